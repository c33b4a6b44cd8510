//! What this process has open: names of paths, and files by inode.
//!
//! Two paths to one file are one inode *and one open file* (laws 2 and 8): an
//! exclusive lock belongs to the open file, and must be held by the very one
//! that carries the commands (law 3). Hence the one process-wide table;
//! whoever opens a path uses it.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use crate::passthrough_scsi::SimImage;

use super::error::OpenError;

/// Device and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Inode(u64, u64);

impl From<&Metadata> for Inode {
    fn from(meta: &Metadata) -> Inode {
        Inode(meta.dev(), meta.ino())
    }
}

/// An image that is open, and the WWID it carries.
pub(super) struct OpenImage {
    pub(super) image: Weak<SimImage>,
    pub(super) wwid: String,
}

#[derive(Default)]
pub(super) struct Registry {
    names: BTreeSet<String>,
    /// Files, told apart by whether they may be written.
    pub(super) files: HashMap<(Inode, bool), Weak<File>>,
    pub(super) images: HashMap<Inode, OpenImage>,
}

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

/// The table, for the length of one opening.
pub(super) fn lock() -> MutexGuard<'static, Registry> {
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    registry.files.retain(|_, file| file.strong_count() > 0);
    registry.images.retain(|_, open| open.image.strong_count() > 0);
    registry
}

/// A name in use; free again when dropped.
#[derive(Debug)]
pub(super) struct NameLease(String);

impl NameLease {
    /// Takes `name`.
    pub(super) fn exactly(name: &str) -> Result<NameLease, OpenError> {
        if lock().names.insert(name.to_owned()) {
            Ok(NameLease(name.to_owned()))
        } else {
            Err(OpenError::NameTaken { name: name.to_owned() })
        }
    }

    /// Takes `base`, or `base-2`, `base-3`, …
    pub(super) fn like(base: &str) -> NameLease {
        NameLease::first(|n| if n == 0 { base.to_owned() } else { format!("{base}-{}", n + 1) })
    }

    /// Takes `base0`, `base1`, …
    pub(super) fn numbered(base: &str) -> NameLease {
        NameLease::first(|n| format!("{base}{n}"))
    }

    fn first(candidate: impl Fn(u32) -> String) -> NameLease {
        let mut registry = lock();
        let mut n = 0;
        loop {
            let name = candidate(n);
            if registry.names.insert(name.clone()) {
                return NameLease(name);
            }
            n += 1;
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Drop for NameLease {
    fn drop(&mut self) {
        lock().names.remove(&self.0);
    }
}

/// The file of that inode, if it is open with these rights.
pub(super) fn open_file(registry: &Registry, inode: Inode, read_only: bool) -> Option<Arc<File>> {
    registry.files.get(&(inode, read_only)).and_then(Weak::upgrade)
}
