//! Waiting for descriptors: poll(2), for reactors that are in no hurry.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Something can be read, or the peer is gone.
    pub read: bool,
    /// Something can be written.
    pub write: bool,
}

impl Interest {
    /// Reading only.
    pub const READ: Interest = Interest { read: true, write: false };
}

/// One descriptor to wait for, a `struct pollfd`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct PollFd<'a> {
    raw: libc::pollfd,
    owner: PhantomData<BorrowedFd<'a>>,
}

impl<'a> PollFd<'a> {
    /// Waits for `interest` on `fd`.
    pub fn new(fd: BorrowedFd<'a>, interest: Interest) -> PollFd<'a> {
        let bit = |on: bool, bit: libc::c_short| if on { bit } else { 0 };
        let events = bit(interest.read, libc::POLLIN) | bit(interest.write, libc::POLLOUT);
        let raw = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
        PollFd { raw, owner: PhantomData }
    }

    /// Whether anything was reported for it, an error or hang-up included.
    pub fn is_ready(&self) -> bool {
        self.raw.revents != 0
    }
}

/// Waits until one is ready, at most `timeout` (rounded up to milliseconds).
/// Returns how many are; an interrupting signal counts as none.
///
/// # Errors
/// ENOMEM, EINVAL (more descriptors than the process may have).
pub fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let rounded = |t: Duration| t.saturating_add(Duration::from_micros(999)).as_millis();
    let millis = timeout.map_or(-1, |t| libc::c_int::try_from(rounded(t)).unwrap_or(i32::MAX));
    let count = libc::nfds_t::try_from(fds.len()).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: `PollFd` is a transparent `struct pollfd`, the slice lives for
    // the call and the descriptors are borrowed; std has no poll.
    let ready = unsafe { libc::poll(fds.as_mut_ptr().cast(), count, millis) };
    match usize::try_from(ready) {
        Ok(ready) => Ok(ready),
        Err(_) => match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => Ok(0),
            e => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::eventfd::EventFd;
    use std::os::fd::AsFd;

    #[test]
    fn only_the_descriptor_that_was_signalled_is_ready() {
        let (one, other) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        other.signal();
        let mut fds = [one.as_fd(), other.as_fd()].map(|fd| PollFd::new(fd, Interest::READ));
        assert_eq!(wait(&mut fds, None).unwrap(), 1);
        assert_eq!(fds.map(|fd| fd.is_ready()), [false, true]);
        other.clear();
        let mut fds = [PollFd::new(other.as_fd(), Interest::READ)];
        assert_eq!(wait(&mut fds, Some(Duration::from_millis(1))).unwrap(), 0);
    }
}
