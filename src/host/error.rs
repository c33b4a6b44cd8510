//! Why a path cannot be opened: one variant per cause, each with the path, the
//! cause and the next step in words.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::passthrough_scsi::HandleError;

use super::users::User;

/// Why a path cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// ENOENT.
    #[error("{path}: no such file or device; {}", if_missing(.path))]
    NotFound {
        /// Which.
        path: PathBuf,
    },
    /// EACCES, EPERM.
    #[error(
        "{path}: permission denied; {}", if_forbidden(.path)
    )]
    Permission {
        /// Which.
        path: PathBuf,
    },
    /// The device or file refuses writing.
    #[error("{path}: is write protected; give --read-only to serve it read-only")]
    WriteProtected {
        /// Which.
        path: PathBuf,
    },
    /// ENXIO, ENODEV.
    #[error(
        "{path}: the device does not answer (state: {state}); check the cabling and `cat /sys/block/*/device/state`, write `running` there to bring an offline device back"
    )]
    Offline {
        /// Which.
        path: PathBuf,
        /// Of sysfs, or `unknown`.
        state: String,
    },
    /// Neither block, sg, bsg nor regular file.
    #[error("{path}: is {what}; a path is a block device, an sg or bsg node, or a regular file")]
    WrongKind {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A SCSI device is wanted, and this is none.
    #[error(
        "{path}: speaks no SCSI: it is {what}; give /dev/sdX, /dev/sgN, /dev/bsg/H:C:T:L or \
         sim:FILE, or serve it with --device blk"
    )]
    NoScsi {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A partition of a SCSI disk.
    #[error("{path}: is a partition; SCSI commands address the whole disk, give {disk} instead")]
    Partition {
        /// Which.
        path: PathBuf,
        /// Its disk.
        disk: String,
    },
    /// A multipath device is not a path.
    #[error(
        "{path}: is itself a multipath device ({name}) that would hide the paths' errors; give its paths instead: {paths}"
    )]
    MultipathHead {
        /// Which.
        path: PathBuf,
        /// Map name or device.
        name: String,
        /// Its slaves.
        paths: String,
    },
    /// Somebody holds it.
    #[error("{path}: is in use by {user}; {step}", step = .user.next_step())]
    InUse {
        /// Which.
        path: PathBuf,
        /// By whom.
        user: User,
    },
    /// Another open file holds the lock.
    #[error("{path}: is locked by another open of it, {}", whose_lock(.path, .user))]
    Locked {
        /// Which.
        path: PathBuf,
        /// Whose.
        user: User,
    },
    /// A size that is no disk.
    #[error(
        "{path}: has {bytes} bytes; a disk needs a whole number of {block_size}-byte blocks, at least one{}",
        if_no_size(.path)
    )]
    Size {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Logical block size.
        block_size: u32,
    },
    /// A block size that cannot be served.
    #[error("{path}: has logical blocks of {block_size} bytes; only 512 to 4096 can be served")]
    BlockSize {
        /// Which.
        path: PathBuf,
        /// Its block size.
        block_size: u32,
    },
    /// The transport asked for does not fit.
    #[error("{path}: transport {transport} is not possible: {why}")]
    Transport {
        /// Which.
        path: PathBuf,
        /// As asked for.
        transport: &'static str,
        /// Reason and next step.
        why: String,
    },
    /// A simulated LU's image does not exist and no size was given.
    #[error("{path}: no such image; add size= to have it made, for instance sim:{path},size=1G")]
    NoImage {
        /// Which.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("{path}: an image of {bytes} bytes cannot be made: {source}{}", if_not_made(.source))]
    NotMade {
        /// Which.
        path: PathBuf,
        /// `size=`.
        bytes: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// `size=`, `bs=`, `personality=` or `tpgs=` contradict the image, or what
    /// it was opened as first.
    #[error(
        "{path}: {what} is {found}, but {asked} was asked for; leave the option out or use another image"
    )]
    ImageDiffers {
        /// Which.
        path: PathBuf,
        /// Which of its properties.
        what: &'static str,
        /// The image's.
        found: String,
        /// The option's.
        asked: String,
    },
    /// The sidecar cannot be read.
    #[error("{path}: carries no usable identity: {why}; delete it to give the image a new one")]
    Sidecar {
        /// The sidecar file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// What was registered cannot be read.
    #[error("{path}: {why}; delete it to have nobody registered with the image")]
    Registrations {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Two images with one WWID.
    #[error(
        "{path}: is a copy that carries the WWID of another open image ({wwid}), and would be taken for the same disk; delete {path}.lu to give it its own"
    )]
    CopiedIdentity {
        /// Which.
        path: PathBuf,
        /// The WWID of both.
        wwid: String,
    },
    /// `name=` is taken.
    #[error("name={name}: another path has that name")]
    NameTaken {
        /// Which.
        name: String,
    },
    /// It opened, but did not prove what it is.
    #[error("{path}: opened, but cannot be used: {source}")]
    Unproven {
        /// Which.
        path: PathBuf,
        /// Why.
        source: HandleError,
    },
    /// Anything else.
    #[error("{path}: {doing} failed: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OpenError {
    /// Whether it is held by nobody who can be seen: by what a process that was
    /// killed has left in the kernel, as far as anybody can tell. That ends by
    /// itself, and until then nothing may be done in that process's place
    /// (law 3).
    pub fn is_left_behind(&self) -> bool {
        match self {
            OpenError::InUse { user, .. } | OpenError::Locked { user, .. } => {
                matches!(user, User::Unknown | User::Onlooker { .. })
            }
            _ => false,
        }
    }
}

// --- next steps that depend on what kind of name it is --------------------------

fn is_node(path: &Path) -> bool {
    path.starts_with("/dev")
}

fn if_missing(path: &Path) -> String {
    if is_node(path) {
        "`lsblk -S` lists the SCSI disks this host sees".to_owned()
    } else {
        format!("check the name, or make a file to serve: `truncate -s 1G {}`", path.display())
    }
}

fn whose_lock(path: &Path, user: &User) -> String {
    match user {
        User::Ourselves => "another kind of path in this very process".to_owned(),
        User::Unknown => format!(
            "but by no process that can be seen: by commands of one that was killed, perhaps; else see `lslocks`, `fuser -v {}`",
            path.display()
        ),
        _ => format!("{user}; {}", user.next_step()),
    }
}

fn if_forbidden(path: &Path) -> &'static str {
    let root = fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
    match (is_node(path), root) {
        (true, false) => {
            "run as root, or as a user in group `disk` with CAP_SYS_RAWIO (needed for SCSI commands such as UNMAP)"
        }
        (true, true) => {
            "even for root: a container's or a service's device rules (such as systemd's DeviceAllow=) forbid it"
        }
        (false, _) => {
            "this process's user must be able to read and write it (`ls -l`, `namei -l`); with --read-only, to read it"
        }
    }
}

fn if_no_size(path: &Path) -> String {
    if is_node(path) {
        "; is a medium there?".to_owned()
    } else {
        format!(" (`truncate -s 1G {}` makes a file of that size)", path.display())
    }
}

fn if_not_made(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT) => "; make its directory first",
        Some(libc::EFBIG | libc::EINVAL) => {
            "; its file system takes no files of that size (XFS and btrfs take larger ones than ext4)"
        }
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            "; choose a directory that may be written"
        }
        _ => "",
    }
}
