//! Who uses a block device that could not be claimed.
//!
//! Looked up only after EBUSY or a lock that somebody has, to say in words who
//! it is and what to do: holders in sysfs (device mapper, md), mounts, swap,
//! processes. A process that has been killed is nobody: what it has left in the
//! kernel ends by itself. In doubt (a process that only reads, descriptors that
//! may not be looked at) it is what a dead one has left: that is waited for
//! before anybody is refused.

use std::fmt;
use std::fs;
use std::path::Path;

use super::sysfs::{BlockFacts, Sysfs, attribute, entries};

/// Who uses a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// multipathd's map.
    Multipath {
        /// Map name.
        map: String,
    },
    /// A volume of LVM.
    Lvm {
        /// Volume as device mapper names it.
        volume: String,
    },
    /// Another device-mapper device.
    DeviceMapper {
        /// Its name.
        name: String,
    },
    /// An md array.
    Md {
        /// `mdN`.
        name: String,
    },
    /// Another kernel device.
    Holder {
        /// Its name.
        name: String,
    },
    /// A mounted file system.
    Mount {
        /// The disk or partition.
        device: String,
        /// Mount point.
        at: String,
    },
    /// Swap space.
    Swap {
        /// The disk or partition.
        device: String,
    },
    /// A process that has it open.
    Process {
        /// Process id.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// Nobody who is sure to: a process has it open, but for reading only, as
    /// those have it who look at every disk (multipathd, smartd).
    Onlooker {
        /// Process id.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// This process: it is a path already.
    Ourselves,
    /// Nobody we can see.
    Unknown,
}

impl User {
    fn or_onlooker(self) -> User {
        match self {
            User::Process { pid, name } => User::Onlooker { pid, name },
            other => other,
        }
    }

    /// What the administrator can do about it.
    pub(super) fn next_step(&self) -> String {
        match self {
            User::Multipath { map } => format!(
                "flush that map (`multipath -f {map}`) and blacklist the disk in multipath.conf, or serve /dev/mapper/{map}'s paths through one of the two only"
            ),
            User::Lvm { volume } => format!(
                "deactivate the volume (`vgchange -an`, volume {volume}) and keep LVM off the disk (filter, system.devices)"
            ),
            User::DeviceMapper { name } => format!("remove it first: `dmsetup remove {name}`"),
            User::Md { name } => format!("stop it first: `mdadm --stop /dev/{name}`"),
            User::Holder { name } => format!("release /dev/{name} first"),
            User::Mount { at, .. } => format!("unmount it first: `umount {at}`"),
            User::Swap { device } => format!("switch it off first: `swapoff /dev/{device}`"),
            User::Process { pid, .. } => format!("end process {pid} first"),
            User::Onlooker { pid, .. } => {
                format!("if that does not pass by itself, end process {pid}")
            }
            User::Ourselves => "a device can be one path only, whichever node names it".to_owned(),
            User::Unknown => {
                "commands of a process that was killed, perhaps; else `lsblk` and `fuser -v` may show by whom (a mount in another namespace, for instance)"
                    .to_owned()
            }
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            User::Multipath { map } => write!(f, "multipathd (map {map})"),
            User::Lvm { volume } => write!(f, "LVM (volume {volume})"),
            User::DeviceMapper { name } => write!(f, "device-mapper device {name}"),
            User::Md { name } => write!(f, "the md array {name}"),
            User::Holder { name } => write!(f, "the kernel device {name}"),
            User::Mount { device, at } => write!(f, "a mounted file system ({device} on {at})"),
            User::Swap { device } => write!(f, "swap space ({device})"),
            User::Process { pid, name } => write!(f, "process {pid} ({name})"),
            User::Onlooker { pid, name } => write!(
                f,
                "commands of a process that was killed, perhaps, else by process {pid} ({name}), which has it open for reading only"
            ),
            User::Ourselves => f.write_str("this very process"),
            User::Unknown => f.write_str("somebody else"),
        }
    }
}

/// Finds a user of the device or one of its partitions; `proc` is `/proc`.
pub(super) fn find(sysfs: &Sysfs, facts: &BlockFacts, proc: &Path) -> User {
    let partitions = entries(&facts.dir)
        .into_iter()
        .filter(|name| facts.dir.join(name).join("partition").exists());
    let mut devices = vec![(facts.name.clone(), facts.dir.clone())];
    devices.extend(partitions.map(|name| (name.clone(), facts.dir.join(name))));
    let held = devices.iter().find_map(|(_, dir)| entries(&dir.join("holders")).into_iter().next());
    if let Some(name) = held {
        return holder(sysfs, name);
    }
    for (name, dir) in &devices {
        let number = attribute(&dir.join("dev")).unwrap_or_default();
        if let Some(at) = mount_point(proc, name, &number) {
            return User::Mount { device: name.clone(), at };
        }
        if swaps(proc, name) {
            return User::Swap { device: name.clone() };
        }
    }
    let one = |writing| devices.iter().find_map(|(name, _)| process(proc, name, writing));
    one(true).or_else(|| one(false).map(User::or_onlooker)).unwrap_or(User::Unknown)
}

fn holder(sysfs: &Sysfs, name: String) -> User {
    let dir = sysfs.named(&name);
    let Some(dm) = attribute(&dir.join("dm/name")) else {
        return if dir.join("md").exists() { User::Md { name } } else { User::Holder { name } };
    };
    let uuid = attribute(&dir.join("dm/uuid")).unwrap_or_default();
    if uuid.starts_with("mpath-") {
        User::Multipath { map: dm }
    } else if uuid.starts_with("LVM-") {
        User::Lvm { volume: dm }
    } else {
        User::DeviceMapper { name: dm }
    }
}

/// By device number, or by source for file systems with numbers of their own
/// (btrfs). The format is that of proc(5), mountinfo.
fn mount_point(proc: &Path, name: &str, number: &str) -> Option<String> {
    let table = fs::read_to_string(proc.join("self/mountinfo")).ok()?;
    let source = format!("/dev/{name}");
    table.lines().find_map(|line| {
        let (mount, fs) = line.split_once(" - ")?;
        let fields: Vec<_> = mount.split(' ').collect();
        let by_source = fs.split(' ').nth(1) == Some(&source);
        (fields.get(2) == Some(&number) || by_source)
            .then(|| fields.get(4).map(|at| (*at).to_owned()))
            .flatten()
    })
}

fn swaps(proc: &Path, name: &str) -> bool {
    let source = format!("/dev/{name}");
    fs::read_to_string(proc.join("swaps")).is_ok_and(|table| {
        table.lines().any(|line| line.split_whitespace().next() == Some(&source))
    })
}

/// A process that has the node of that name open; `writing`: for writing, too.
fn process(proc: &Path, name: &str, writing: bool) -> Option<User> {
    let source = Path::new("/dev").join(name);
    let is_it = |dir: &Path, fd: &str| {
        fs::read_link(dir.join("fd").join(fd)).is_ok_and(|link| link == source)
            && (!writing || may_write(&dir.join("fdinfo").join(fd)))
    };
    opener(proc, is_it)
}

/// By the `flags` of proc(5)'s fdinfo, which are octal. (The kernel does not
/// keep O_EXCL among them, which would tell who has the claim.)
fn may_write(fdinfo: &Path) -> bool {
    const O_ACCMODE: u32 = 0o3;
    let info = fs::read_to_string(fdinfo).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & O_ACCMODE != 0)
}

/// Who has a lock on the file or node of that name.
pub(super) fn locker(proc: &Path, path: &Path) -> User {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let has_lock = |dir: &Path, fd: &str| {
        fs::read_link(dir.join("fd").join(fd)).is_ok_and(|link| link == path)
            && fs::read_to_string(dir.join("fdinfo").join(fd))
                .is_ok_and(|info| info.lines().any(|line| line.starts_with("lock:")))
    };
    opener(proc, has_lock).unwrap_or(User::Unknown)
}

/// The first living process with a descriptor that is the one.
fn opener(proc: &Path, is_it: impl Fn(&Path, &str) -> bool) -> Option<User> {
    let own = std::process::id();
    entries(proc).into_iter().filter_map(|entry| entry.parse::<u32>().ok()).find_map(|pid| {
        let dir = proc.join(pid.to_string());
        let open = entries(&dir.join("fd")).iter().any(|fd| is_it(&dir, fd));
        if !open || is_dying(&dir) {
            return None;
        }
        if pid == own {
            return Some(User::Ourselves);
        }
        let name = attribute(&dir.join("comm")).unwrap_or_else(|| "?".to_owned());
        Some(User::Process { pid, name })
    })
}

/// Killed, or on its way out: field 3 (state) and 9 (flags) of proc(5)'s stat,
/// and the signals that are pending for it.
fn is_dying(dir: &Path) -> bool {
    const PF_EXITING: u64 = 4;
    const SIGKILL: u64 = 1 << 8;
    let stat = attribute(&dir.join("stat")).unwrap_or_default();
    // The name before them may hold anything.
    let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let is_dead = fields.next().is_some_and(|state| matches!(state, "Z" | "X"));
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u64>().ok()).unwrap_or(0);
    let status = attribute(&dir.join("status")).unwrap_or_default();
    let pending = status.lines().filter_map(|line| {
        let mask = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    is_dead || flags & PF_EXITING != 0 || pending.fold(0, |all, mask| all | mask) & SIGKILL != 0
}
