//! Files: OFD locks, hole punching, direct-I/O alignment, open flags.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes an exclusive open-file-description lock on the whole file (fcntl(2)
/// F_OFD_SETLK), without waiting. It lasts until the last descriptor *and the
/// last command in the kernel* lets go of the open file. Needs a writable
/// descriptor; use [`lock_shared`] on a read-only one.
///
/// # Errors
/// EAGAIN when another open file holds a lock.
pub fn lock_exclusive(fd: BorrowedFd<'_>) -> io::Result<()> {
    lock(fd, libc::F_WRLCK)
}

/// As [`lock_exclusive`], against exclusive locks only.
///
/// # Errors
/// EAGAIN when another open file holds an exclusive lock.
pub fn lock_shared(fd: BorrowedFd<'_>) -> io::Result<()> {
    lock(fd, libc::F_RDLCK)
}

/// Whether another open file has a lock of either kind on it (F_OFD_GETLK).
///
/// # Errors
/// EBADF and the like.
pub fn is_locked(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut region = whole(libc::F_WRLCK);
    // SAFETY: as in `lock`; the kernel writes one `struct flock`.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut region) })?;
    Ok(libc::c_int::from(region.l_type) != libc::F_UNLCK)
}

fn whole(kind: libc::c_int) -> libc::flock {
    let narrow = |value: libc::c_int| libc::c_short::try_from(value).unwrap_or(0);
    libc::flock {
        l_type: narrow(kind),
        l_whence: narrow(libc::SEEK_SET),
        l_start: 0,
        l_len: 0, // to the end, however long it becomes
        l_pid: 0, // must be zero for OFD locks
    }
}

fn lock(fd: BorrowedFd<'_>, kind: libc::c_int) -> io::Result<()> {
    let region = whole(kind);
    // SAFETY: the descriptor is open and `region` is a whole `struct flock`
    // that lives for the call; std's locks are flock(2), which NFS and
    // qemu-img do not look at.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const region) })
}

/// What fallocate(2) does to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Deallocate; reads as zeroes.
    Punch,
    /// Reads as zeroes, stays allocated.
    Zero,
}

/// Changes `len` bytes at `offset` without changing the file's size.
///
/// # Errors
/// EOPNOTSUPP where the file system or device cannot; I/O errors.
pub fn fallocate(fd: BorrowedFd<'_>, range: Range, offset: u64, len: u64) -> io::Result<()> {
    let mode = libc::FALLOC_FL_KEEP_SIZE
        | match range {
            Range::Punch => libc::FALLOC_FL_PUNCH_HOLE,
            Range::Zero => libc::FALLOC_FL_ZERO_RANGE,
        };
    let signed =
        |v: u64| libc::off64_t::try_from(v).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
    let (offset, len) = (signed(offset)?, signed(len)?);
    // SAFETY: no pointers; std has no fallocate.
    check(unsafe { libc::fallocate64(fd.as_raw_fd(), mode, offset, len) })
}

/// Whether the byte at `offset` is data (not a hole), and for how many bytes
/// from there on that is so, at most to the end of the file. A file system
/// that knows no holes says that all is data. Moves the file's position.
///
/// # Errors
/// ENXIO beyond the end of the file; ESPIPE and the like for what is no file.
pub fn run_at(fd: BorrowedFd<'_>, offset: u64) -> io::Result<(bool, u64)> {
    let seek = |to: u64, whence: libc::c_int| {
        let to =
            libc::off64_t::try_from(to).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: no pointers; std has no SEEK_DATA and SEEK_HOLE.
        let found = unsafe { libc::lseek64(fd.as_raw_fd(), to, whence) };
        u64::try_from(found).map_err(|_| io::Error::last_os_error())
    };
    let hole = seek(offset, libc::SEEK_HOLE)?;
    if hole > offset {
        return Ok((true, hole - offset));
    }
    let data = match seek(offset, libc::SEEK_DATA) {
        // Nothing but the hole.
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => seek(0, libc::SEEK_END)?,
        found => found?,
    };
    Ok((false, data.saturating_sub(offset)))
}

/// Alignment that direct I/O on an open file asks for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectAlignment {
    /// Of buffer addresses.
    pub memory: usize,
    /// Of file offsets and segment lengths.
    pub offset: usize,
}

/// Asks statx(2) STATX_DIOALIGN (Linux 6.1; on block devices too); `None`
/// where the kernel does not say or the file has no direct I/O.
pub fn direct_alignment(fd: BorrowedFd<'_>) -> Option<DirectAlignment> {
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a NUL-terminated literal, the buffer is a whole
    // `struct statx`; std does not show these fields.
    let result = unsafe {
        libc::statx(
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            stat.as_mut_ptr(),
        )
    };
    // SAFETY: zeroed before, and all-zero is a valid `struct statx`.
    let stat = unsafe { stat.assume_init() };
    let memory = usize::try_from(stat.stx_dio_mem_align).ok()?;
    let offset = usize::try_from(stat.stx_dio_offset_align).ok()?;
    (result == 0
        && stat.stx_mask & libc::STATX_DIOALIGN != 0
        && memory.is_power_of_two()
        && offset.is_power_of_two())
    .then_some(DirectAlignment { memory, offset })
}

/// Whether the open file bypasses the page cache (O_DIRECT).
pub fn is_direct(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: F_GETFL takes no argument; std does not show the flags.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    flags != -1 && flags & libc::O_DIRECT != 0
}

/// How to open a path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mode {
    /// O_RDONLY instead of O_RDWR.
    pub read_only: bool,
    /// O_DIRECT: no page cache.
    pub direct: bool,
    /// O_EXCL without O_CREAT: on a block device, the exclusive claim that
    /// mounts, dm and md take too.
    pub exclusive: bool,
    /// O_NONBLOCK: an sg node then opens during error recovery.
    pub nonblocking: bool,
}

/// Opens an existing node or file.
///
/// # Errors
/// Those of open(2), EBUSY for a block device somebody else claims.
pub fn open(path: &Path, mode: Mode) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flag = |on: bool, flag: libc::c_int| if on { flag } else { 0 };
    std::fs::OpenOptions::new()
        .read(true)
        .write(!mode.read_only)
        .custom_flags(
            flag(mode.direct, libc::O_DIRECT)
                | flag(mode.exclusive, libc::O_EXCL)
                | flag(mode.nonblocking, libc::O_NONBLOCK),
        )
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn a_second_open_file_cannot_lock() {
        let dir = tempdir();
        let path = dir.join("locked");
        std::fs::write(&path, [0; 512]).unwrap();
        let first = open(&path, Mode::default()).unwrap();
        lock_exclusive(first.as_fd()).unwrap();
        let second = open(&path, Mode::default()).unwrap();
        assert_eq!(lock_exclusive(second.as_fd()).unwrap_err().raw_os_error(), Some(libc::EAGAIN));
        assert!(is_locked(second.as_fd()).unwrap() && !is_locked(first.as_fd()).unwrap());
        let copy = first.try_clone().unwrap();
        drop(first);
        assert!(lock_exclusive(second.as_fd()).is_err(), "a duplicate keeps the lock");
        drop(copy);
        lock_exclusive(second.as_fd()).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn punched_ranges_read_as_zeroes_and_keep_the_size() {
        let dir = tempdir();
        let path = dir.join("punched");
        std::fs::write(&path, vec![7; 65536]).unwrap();
        let file = open(&path, Mode::default()).unwrap();
        fallocate(file.as_fd(), Range::Punch, 4096, 8192).unwrap();
        let mut got = vec![1; 16384];
        file.read_exact_at(&mut got, 0).unwrap();
        assert!(got[..4096].iter().all(|b| *b == 7) && got[12288..].iter().all(|b| *b == 7));
        assert!(got[4096..12288].iter().all(|b| *b == 0));
        assert_eq!(file.metadata().unwrap().size(), 65536);
        assert!(fallocate(file.as_fd(), Range::Punch, u64::MAX, 1).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn holes_and_data_are_told_apart() {
        let dir = tempdir();
        let file = File::create(dir.join("holes")).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[1; 65536], 1 << 18).unwrap();
        let run = |offset| run_at(file.as_fd(), offset).unwrap();
        if run(0) != (true, 1 << 20) {
            // The file system knows holes.
            assert_eq!(run(0), (false, 1 << 18));
            assert_eq!(run((1 << 18) + 512), (true, 65536 - 512));
            assert_eq!(run((1 << 18) + 65536), (false, (1 << 20) - (1 << 18) - 65536));
        }
        assert!(run_at(file.as_fd(), 1 << 20).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }

    fn tempdir() -> std::path::PathBuf {
        let name =
            format!("vhost-mpath-sys-{}-{:?}", std::process::id(), std::thread::current().id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }
}
