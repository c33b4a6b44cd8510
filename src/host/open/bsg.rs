//! The bsg node of a SCSI disk: finding it, proving that it is the disk's, and
//! locking it.
//!
//! Its lock is what tells a successor of commands that are still out: the
//! kernel lets go of it with the last reference to the open file, which an
//! io_uring command has until it ends, while the sd node's claim ends with the
//! process (law 3). Blocks; as `open`.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Options, io_error, lock};
use crate::host::error::OpenError;
use crate::host::sysfs::{DevT, ScsiFacts, Sysfs};
use crate::sys::file::{self, Mode};

/// Opens and locks the bsg node of the disk `sd`, which is open and claimed.
/// `Ok(Err(…))`: there is none to be had, and why.
///
/// # Errors
/// [`OpenError::Locked`], where somebody has it: then the path is not ours.
pub(super) fn open(
    scsi: &ScsiFacts,
    sd: DevT,
    options: &Options,
) -> Result<Result<File, String>, OpenError> {
    let path = Path::new("/dev/bsg").join(&scsi.hctl);
    let mode = Mode { read_only: options.read_only, nonblocking: true, ..Mode::default() };
    let file = match file::open(&path, mode) {
        Ok(file) => file,
        Err(e) => return Ok(Err(format!("{}: {e}", path.display()))),
    };
    let meta = file.metadata().map_err(|e| io_error(&path, "looking at the open device", e))?;
    if !is_of(&Sysfs::host(), DevT::from_raw(meta.rdev()), scsi, sd) {
        // Deleted and found again meanwhile, perhaps, under the same address.
        return Ok(Err(format!("{} is another device's", path.display())));
    }
    if options.read_only && is_locked(&path, &file)? {
        // Reads that are still out are no less in the way than writes: their
        // data go to the guest's memory. One who may only read takes a shared
        // lock, which would not tell.
        return Err(super::locked(&path));
    }
    lock(&path, &file, options.read_only)?;
    Ok(Ok(file))
}

/// Who has the bsg node of a disk locked, if anybody has.
pub(super) fn locked(scsi: &ScsiFacts) -> Option<OpenError> {
    let path = Path::new("/dev/bsg").join(&scsi.hctl);
    let mode = Mode { read_only: true, nonblocking: true, ..Mode::default() };
    let file = file::open(&path, mode).ok()?;
    is_locked(&path, &file).ok()?.then(|| super::locked(&path))
}

fn is_locked(path: &Path, file: &File) -> Result<bool, OpenError> {
    file::is_locked(file.as_fd()).map_err(|e| io_error(path, "looking for locks", e))
}

/// Whether the bsg node belongs to the very device that the open sd node is of.
/// Numbers of open nodes are not given away, addresses are.
pub(in crate::host) fn is_of(sysfs: &Sysfs, bsg: DevT, scsi: &ScsiFacts, sd: DevT) -> bool {
    let device = |dir: Option<std::path::PathBuf>| {
        ScsiFacts::read(&dir?.join("device")).map(|facts| facts.dir)
    };
    let (of_bsg, of_sd) = (device(sysfs.character(bsg)), device(sysfs.block(sd)));
    of_bsg.is_some() && of_bsg == of_sd && of_sd.as_deref() == Some(&scsi.dir)
}
