//! Anonymous shared files (memfd), for the in-flight area and for tests.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A zero-filled memfd of `size` bytes that can neither grow nor shrink, so a
/// front-end that shares it cannot cut it away under our mapping.
///
/// # Errors
///
/// The errno of `memfd_create`, `ftruncate` or of sealing.
pub fn sealed(name: &CStr, size: u64) -> io::Result<File> {
    // SAFETY: `name` is a NUL-terminated string; the call touches nothing
    // else of ours. The standard library has no memfd.
    let fd =
        unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just created and nobody else owns it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(size)?;
    let seals = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes an integer; no memory is involved.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}
