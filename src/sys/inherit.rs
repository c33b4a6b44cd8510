//! What a process gets from outside by number or name: descriptors, groups.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes over a descriptor that the parent process left open (`--fd`), and
/// keeps it from further children.
///
/// Call it once per number, before anything else is opened: the number is then
/// certain to be the parent's.
///
/// # Errors
/// EBADF for one that is not open, and for the standard streams.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: no pointers; fails on a number that is not open.
    let set = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if set == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open, as just seen, and nobody else in this process knows it
    // (contract above). There is no safe way from a number to a descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The number of a group by its name, wherever the system keeps it.
pub fn group_by_name(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let mut group = MaybeUninit::<libc::group>::zeroed();
    let mut found = std::ptr::null_mut();
    let mut buffer = vec![0; 64 * 1024];
    // SAFETY: every pointer is to a buffer of ours of the stated size that
    // lives for the call; std does not know groups.
    let result = unsafe {
        libc::getgrnam_r(
            name.as_ptr(),
            group.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        )
    };
    if result != 0 || found.is_null() {
        return None;
    }
    // SAFETY: filled in, as `found` says; zeroed before.
    Some(unsafe { group.assume_init() }.gr_gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        assert_eq!(group_by_name("root"), Some(0));
        assert_eq!(group_by_name("no such group, surely"), None);
        assert_eq!(group_by_name("a\0b"), None);
    }

    #[test]
    fn standard_streams_and_closed_descriptors_are_refused() {
        assert_eq!(adopt(1).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(adopt(99_999).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
