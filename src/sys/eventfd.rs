//! Eventfds: the wake-up of a reactor by another thread (eventfd(2)), and our
//! word to another process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;

/// A non-blocking eventfd.
///
/// A reactor polls it (multishot, edge by edge) and need not read it: every
/// [`signal`](EventFd::signal) is a new edge.
#[derive(Debug)]
pub struct EventFd(File);

impl EventFd {
    /// A new one, counter zero.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: takes no pointers; std has no eventfd.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor.
        Ok(EventFd(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Wakes whoever polls it. A full counter is as good as a signal.
    pub fn signal(&self) {
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Resets the counter; whether it had been signalled.
    pub fn clear(&self) -> bool {
        (&self.0).read(&mut [0; 8]).is_ok()
    }
}

/// What another process waits on for a word of ours: its eventfd, or its end
/// of a socket pair.
#[derive(Debug)]
pub struct CallFd {
    file: File,
    socket: bool,
}

impl From<OwnedFd> for CallFd {
    fn from(fd: OwnedFd) -> CallFd {
        let file = File::from(fd);
        let socket = file.metadata().is_ok_and(|m| m.file_type().is_socket());
        CallFd { file, socket }
    }
}

impl From<CallFd> for OwnedFd {
    fn from(call: CallFd) -> OwnedFd {
        call.file.into()
    }
}

impl CallFd {
    /// Adds one. The only failure that is no bug, here or there, is a full
    /// counter of a non-blocking eventfd, or a full socket, on which nobody is
    /// waited for: then the other side has been told already.
    pub fn signal(&self) {
        let one = 1u64.to_ne_bytes();
        if !self.socket {
            let _ = (&self.file).write(&one);
            return;
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: reads eight bytes of ours during the call; std has no send
        // that cannot block whatever the other side does to the file's flags.
        unsafe { libc::send(self.file.as_raw_fd(), one.as_ptr().cast(), one.len(), flags) };
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_call_reaches_a_socket_and_never_waits_for_it() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let call = CallFd::from(OwnedFd::from(ours));
        for _ in 0..100_000 {
            call.signal();
        }
        let mut word = [0; 8];
        theirs.read_exact(&mut word).unwrap();
        assert_eq!(u64::from_ne_bytes(word), 1);
        drop(theirs);
        call.signal();
    }

    #[test]
    fn a_call_adds_to_an_eventfd() {
        let event = EventFd::new().unwrap();
        let call = CallFd::from(OwnedFd::from(event.0.try_clone().unwrap()));
        assert!(!event.clear());
        call.signal();
        assert!(event.clear());
    }
}
