//! Opening a regular file as a path: direct I/O where its file system has it in
//! units of 512 bytes, one open file for all paths to one inode.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{Found, OpenError, Options, Place, io_error, lock, no_scsi, only_by_ring, refused};
use crate::host::registry::{self, Inode};
use crate::io::Geometry;
use crate::passthrough_scsi::{DiskNode, Nature, Opened, PathKind, Transport, WwidSource};
use crate::sys::buffer::AlignedBuffer;
use crate::sys::file::{self, DirectAlignment, Mode, Range};

pub(super) fn open(path: &Path, options: &Options) -> Result<Found, OpenError> {
    if options.scsi_only {
        return Err(no_scsi(path, "a file"));
    }
    only_by_ring(path, options.transport, "it is a file")?;
    let read_only = options.read_only;
    let opening = |direct| {
        file::open(path, Mode { read_only, direct, ..Mode::default() })
            .map_err(|e| refused(path, e, "opening"))
    };
    let plain = opening(false)?;
    let failed = |source| io_error(path, "looking at the open file", source);
    let meta = plain.metadata().map_err(failed)?;
    if meta.len() == 0 || meta.len() % 512 != 0 {
        let (path, bytes) = (path.to_owned(), meta.len());
        return Err(OpenError::Size { path, bytes, block_size: 512 });
    }
    let mut registry = registry::lock();
    let inode = Inode::from(&meta);
    let shared = registry::open_file(&registry, inode, read_only);
    let file = match shared {
        Some(file) => file,
        None => {
            let direct = opening(true).ok().filter(|file| direct_by_sectors(file).is_some());
            let file = direct.unwrap_or(plain);
            if Inode::from(&file.metadata().map_err(failed)?) != inode {
                return Err(OpenError::NotFound { path: path.to_owned() });
            }
            lock(path, &file, read_only)?;
            let file = Arc::new(file);
            registry.files.insert((inode, read_only), Arc::downgrade(&file));
            file
        }
    };
    drop(registry);
    let (alignment, reason) = match file_alignment(&file) {
        Some(alignment) => (alignment, "io_uring, past the page cache"),
        None => (
            DirectAlignment { memory: 1, offset: 1 },
            "io_uring through the page cache: the file system has no direct I/O in units of 512 bytes",
        ),
    };
    // A hole beyond the end changes nothing, and tells whether holes work.
    let beyond = meta.len().next_multiple_of(4096);
    let unmap = !read_only && file::fallocate(file.as_fd(), Range::Punch, beyond, 4096).is_ok();
    let node = DiskNode {
        file,
        nature: Nature::File,
        wwid: WwidSource::Inode,
        block_size: 512,
        alignment,
        geometry: file_geometry(unmap, read_only),
        depth: 128,
        unmap_granularity: 4096,
    };
    Ok(Found {
        kind: PathKind::File,
        place: Place::default(),
        transport: Transport::File,
        reason: reason.to_owned(),
        opened: Opened::Disk(node),
    })
}

fn file_geometry(unmap: bool, read_only: bool) -> Geometry {
    Geometry {
        physical_block_exp: 3,
        alignment_offset: 0,
        min_io: 0,
        opt_io: 0,
        unmap,
        unmap_reads_zero: unmap,
        read_only,
        serial: String::new(),
        vendor: "VHMPATH".to_owned(),
        product: "file".to_owned(),
        revision: String::new(),
    }
}

/// The alignment direct I/O wants, if the file is open for direct I/O.
fn file_alignment(file: &File) -> Option<DirectAlignment> {
    file::is_direct(file.as_fd()).then(|| direct_by_sectors(file)).flatten()
}

/// The alignment for direct I/O in units of 512 bytes on a file that is open
/// for it; `None` if larger units are asked for. Kernels before 6.1 do not
/// say: there a read is tried.
fn direct_by_sectors(file: &File) -> Option<DirectAlignment> {
    if let Some(alignment) = file::direct_alignment(file.as_fd()) {
        return (alignment.offset <= 512).then_some(alignment);
    }
    let mut buffer = AlignedBuffer::new(4096);
    // At an address that is a multiple of 512 and of nothing more.
    let trial = file.read_at(&mut buffer.bytes_mut()[512..1024], 0);
    trial.ok().map(|_| DirectAlignment { memory: 512, offset: 512 })
}
