//! Who uses a block device that could not be claimed.
//!
//! Looked up only after EBUSY, to say in words who it is and what to do:
//! holders in sysfs (device mapper, md), mounts, swap, processes.

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
    /// This process: it is a path already.
    Ourselves,
    /// Nobody we can see.
    Unknown,
}

impl User {
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
            User::Ourselves => "a device can be one path only, whichever node names it".to_owned(),
            User::Unknown => {
                "`lsblk` and `fuser -v` may show by whom (a mount in another namespace, for instance)"
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
    devices.iter().find_map(|(name, _)| process(proc, name)).unwrap_or(User::Unknown)
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

fn process(proc: &Path, name: &str) -> Option<User> {
    let source = Path::new("/dev").join(name);
    let own = std::process::id();
    entries(proc).into_iter().filter_map(|entry| entry.parse::<u32>().ok()).find_map(|pid| {
        let dir = proc.join(pid.to_string());
        let open = entries(&dir.join("fd"))
            .iter()
            .any(|fd| fs::read_link(dir.join("fd").join(fd)).is_ok_and(|link| link == source));
        if open && pid == own {
            return Some(User::Ourselves);
        }
        let name = attribute(&dir.join("comm")).unwrap_or_else(|| "?".to_owned());
        open.then_some(User::Process { pid, name })
    })
}
