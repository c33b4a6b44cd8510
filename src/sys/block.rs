//! Block device ioctls (`linux/fs.h`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const BLKDISCARD: libc::Ioctl = 0x1277;
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272;
const BLKPBSZGET: libc::Ioctl = 0x127b;
const BLKROGET: libc::Ioctl = 0x125e;
const BLKSSZGET: libc::Ioctl = 0x1268;

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Size in bytes (BLKGETSIZE64).
///
/// # Errors
/// ENOTTY when it is no block device.
pub fn size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes = 0u64;
    // SAFETY: the ioctl writes one u64 to a u64 of ours; std has no ioctl.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) })?;
    Ok(bytes)
}

/// Logical block size in bytes (BLKSSZGET).
///
/// # Errors
/// ENOTTY when it is no block device.
pub fn logical_block_size(fd: BorrowedFd<'_>) -> io::Result<u32> {
    int(fd, BLKSSZGET)
}

/// Physical block size in bytes (BLKPBSZGET).
///
/// # Errors
/// ENOTTY when it is no block device.
pub fn physical_block_size(fd: BorrowedFd<'_>) -> io::Result<u32> {
    int(fd, BLKPBSZGET)
}

/// Whether the kernel holds it for read-only (BLKROGET).
///
/// # Errors
/// ENOTTY when it is no block device.
pub fn read_only(fd: BorrowedFd<'_>) -> io::Result<bool> {
    int(fd, BLKROGET).map(|value| value != 0)
}

fn int(fd: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<u32> {
    let mut value: libc::c_int = 0;
    // SAFETY: these ioctls write one int to an int of ours; std has no ioctl.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut value) })?;
    u32::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::ERANGE))
}

/// Discards a range of bytes (BLKDISCARD); what it reads as is the device's
/// choice. Blocks until done.
///
/// # Errors
/// EOPNOTSUPP, EINVAL for misaligned ranges, I/O errors.
pub fn discard(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: the ioctl reads two u64 from an array of two; std has no ioctl.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), BLKDISCARD, range.as_ptr()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_character_device_is_no_block_device() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(size(null.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(
            logical_block_size(null.as_fd()).unwrap_err().raw_os_error(),
            Some(libc::ENOTTY)
        );
    }
}
