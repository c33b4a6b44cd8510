//! What sysfs says about a device node.
//!
//! Facts only, read when asked: siblings (sd, sg), HCTL, limits of the request
//! queue, holders. Paths are under a root that tests replace. A missing
//! attribute is `None`, never an error: kernels differ.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::scsi::alua::AccessState;

/// A device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DevT {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
}

impl DevT {
    /// From `st_rdev`.
    pub fn from_raw(raw: u64) -> DevT {
        DevT { major: libc::major(raw), minor: libc::minor(raw) }
    }

    pub(super) fn parse(text: &str) -> Option<DevT> {
        let (major, minor) = text.split_once(':')?;
        Some(DevT { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for DevT {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// State of a SCSI device in the kernel (`device/state`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Takes commands.
    Running,
    /// The transport holds commands back (`blocked`, `quiesce`).
    Blocked,
    /// Given up (`offline`, `transport-offline`).
    Offline,
    /// Deleted: sysfs does not have it any more, or says that it is going.
    Gone,
    /// Anything else.
    Other(String),
}

/// The state of the device behind the number of a node that is open: of a
/// block node or, with `generic`, of an sg or bsg node. Other devices than
/// SCSI ones run as long as they are there.
pub fn device_state(dev: &str, generic: bool) -> DeviceState {
    state_below(&Sysfs::host(), dev, generic)
}

pub(super) fn state_below(sysfs: &Sysfs, dev: &str, generic: bool) -> DeviceState {
    let Some(number) = DevT::parse(dev) else { return DeviceState::Running };
    // The open node keeps its number from being given to another device.
    let dir = if generic { sysfs.character(number) } else { sysfs.block(number) };
    let Some(dir) = dir else { return DeviceState::Gone };
    state_of(&dir.join("device/state"))
}

/// What this attribute says; without one the device runs.
pub(super) fn state_of(path: &Path) -> DeviceState {
    let Some(state) = attribute(path) else { return DeviceState::Running };
    match state.as_str() {
        "running" => DeviceState::Running,
        "blocked" | "quiesce" | "created-blocked" => DeviceState::Blocked,
        "offline" | "transport-offline" => DeviceState::Offline,
        // Being deleted: only its last commands keep it.
        "cancel" | "deleted" => DeviceState::Gone,
        _ => DeviceState::Other(state),
    }
}

/// What the kernel's hardware handler says of the path's target port group
/// (`device/access_state`, `device/preferred_path`), by the number of its node
/// as above; `None` where it has none.
pub fn access_state(dev: &str, generic: bool) -> Option<(AccessState, bool)> {
    access_below(&Sysfs::host(), dev, generic)
}

pub(super) fn access_below(sysfs: &Sysfs, dev: &str, generic: bool) -> Option<(AccessState, bool)> {
    let number = DevT::parse(dev)?;
    let dir = if generic { sysfs.character(number) } else { sysfs.block(number) }?;
    let state = match attribute(&dir.join("device/access_state"))?.as_str() {
        "active/optimized" => AccessState::ActiveOptimized,
        "active/non-optimized" => AccessState::ActiveNonOptimized,
        "lba-dependent" => AccessState::LbaDependent,
        "standby" => AccessState::Standby,
        "unavailable" => AccessState::Unavailable,
        "offline" => AccessState::Offline,
        "transitioning" => AccessState::Transitioning,
        _ => return None,
    };
    let preferred = attribute(&dir.join("device/preferred_path")).as_deref() == Some("1");
    Some((state, preferred))
}

/// One line of a sysfs attribute, trimmed; `None` if missing or empty.
pub(super) fn attribute(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(path: &Path) -> Option<u64> {
    attribute(path)?.parse().ok()
}

fn base(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Names in a directory, sorted; empty if there is none.
pub(super) fn entries(dir: &Path) -> Vec<String> {
    let Ok(list) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> =
        list.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// sysfs below some root.
#[derive(Clone, Debug)]
pub(super) struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    /// The machine's own.
    pub(super) fn host() -> Sysfs {
        Sysfs { root: PathBuf::from("/sys") }
    }

    #[cfg(test)]
    pub(super) fn at(root: PathBuf) -> Sysfs {
        Sysfs { root }
    }

    /// Directory of a block device.
    pub(super) fn block(&self, dev: DevT) -> Option<PathBuf> {
        fs::canonicalize(self.root.join(format!("dev/block/{dev}"))).ok()
    }

    /// Directory of a character device.
    pub(super) fn character(&self, dev: DevT) -> Option<PathBuf> {
        fs::canonicalize(self.root.join(format!("dev/char/{dev}"))).ok()
    }

    /// Directory of a class.
    pub(super) fn classes(&self, class: &str) -> PathBuf {
        self.root.join("class").join(class)
    }

    /// Directory of a device of a class.
    pub(super) fn class(&self, class: &str, name: &str) -> PathBuf {
        self.classes(class).join(name)
    }

    /// Directory of a block device by name.
    pub(super) fn named(&self, name: &str) -> PathBuf {
        self.root.join("class/block").join(name)
    }
}

/// A block device.
#[derive(Clone, Debug)]
pub(super) struct BlockFacts {
    pub(super) dir: PathBuf,
    /// Kernel name: `sdb`, `sdb1`, `dm-0`.
    pub(super) name: String,
    /// The disk it is a partition of.
    pub(super) partition_of: Option<String>,
    pub(super) scsi: Option<ScsiFacts>,
    /// `dm/name` and `dm/uuid`.
    pub(super) dm: Option<(String, String)>,
}

impl BlockFacts {
    pub(super) fn read(dir: &Path) -> Option<BlockFacts> {
        let partition_of =
            dir.join("partition").exists().then(|| dir.parent().and_then(base)).flatten();
        let whole = if partition_of.is_some() { dir.parent()? } else { dir };
        let dm = attribute(&dir.join("dm/name"))
            .map(|name| (name, attribute(&dir.join("dm/uuid")).unwrap_or_default()));
        Some(BlockFacts {
            name: base(dir)?,
            partition_of,
            scsi: ScsiFacts::read(&whole.join("device")),
            dm,
            dir: dir.to_owned(),
        })
    }

    /// Name and paths of a multipath device, if it is one: a dm map of
    /// multipathd, or the head of the kernel's own SCSI multipath, which has
    /// a directory of its paths.
    pub(super) fn multipath_head(&self) -> Option<(String, Vec<String>)> {
        if let Some((name, uuid)) = &self.dm {
            return uuid
                .starts_with("mpath-")
                .then(|| (name.clone(), entries(&self.dir.join("slaves"))));
        }
        let paths = entries(&self.dir.join("multipath"));
        (self.scsi.is_some() && !paths.is_empty()).then(|| (self.name.clone(), paths))
    }

    pub(super) fn queue(&self) -> QueueFacts {
        let dir = if self.partition_of.is_some() {
            self.dir.parent().unwrap_or(&self.dir)
        } else {
            &self.dir
        };
        QueueFacts::read(&dir.join("queue"))
    }
}

/// A SCSI device (the directory `H:C:T:L`).
#[derive(Clone, Debug)]
pub(super) struct ScsiFacts {
    pub(super) dir: PathBuf,
    pub(super) hctl: String,
    pub(super) queue_depth: Option<u64>,
    pub(super) state: Option<String>,
    /// Name of the sd node.
    pub(super) sd: Option<String>,
}

impl ScsiFacts {
    /// `device` is the link of that name of an sd, sg or bsg device.
    pub(super) fn read(device: &Path) -> Option<ScsiFacts> {
        let dir = fs::canonicalize(device).ok()?;
        let subsystem = fs::canonicalize(dir.join("subsystem")).ok()?;
        if base(&subsystem)? != "scsi" {
            return None;
        }
        Some(ScsiFacts {
            hctl: base(&dir)?,
            queue_depth: number(&dir.join("queue_depth")),
            state: attribute(&dir.join("state")),
            sd: entries(&dir.join("block")).into_iter().next(),
            dir,
        })
    }

    /// The sd sibling with its device number.
    pub(super) fn disk(&self) -> Option<(BlockFacts, DevT)> {
        let dir = self.dir.join("block").join(self.sd.as_ref()?);
        let dev = DevT::parse(&attribute(&dir.join("dev"))?)?;
        Some((BlockFacts::read(&dir)?, dev))
    }
}

/// Limits of a request queue, where known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueFacts {
    pub(super) max_hw_sectors_kb: Option<u64>,
    pub(super) max_segments: Option<u64>,
    pub(super) nr_requests: Option<u64>,
    pub(super) minimum_io: Option<u64>,
    pub(super) optimal_io: Option<u64>,
    pub(super) discard_max_bytes: Option<u64>,
    pub(super) discard_granularity: Option<u64>,
}

impl QueueFacts {
    fn read(dir: &Path) -> QueueFacts {
        let get = |name: &str| number(&dir.join(name));
        QueueFacts {
            max_hw_sectors_kb: get("max_hw_sectors_kb"),
            max_segments: get("max_segments"),
            nr_requests: get("nr_requests"),
            minimum_io: get("minimum_io_size"),
            optimal_io: get("optimal_io_size"),
            discard_max_bytes: get("discard_max_bytes"),
            discard_granularity: get("discard_granularity"),
        }
    }
}
