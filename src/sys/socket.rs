//! Sends and receives that never wait (send(2), recv(2) with MSG_DONTWAIT).
//!
//! For a socket whose other end, or a copy of ours, belongs to somebody who may
//! change the open file's flags at any time: O_NONBLOCK is then no promise.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

fn count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Sends what there is room for; bytes taken.
///
/// # Errors
/// `WouldBlock` without room; EPIPE when the other side is gone (no SIGPIPE).
pub fn send_now(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: reads `bytes` during the call; std has no send with flags.
    count(unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Receives what is there, without descriptors; 0 when the other side is gone.
///
/// # Errors
/// `WouldBlock` when nothing is there.
pub fn receive_now(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    let (fd, len) = (socket.as_raw_fd(), into.len());
    // SAFETY: writes into `into` during the call; std has no recv with flags.
    count(unsafe { libc::recv(fd, into.as_mut_ptr().cast(), len, libc::MSG_DONTWAIT) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn neither_way_waits_on_a_blocking_socket() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut byte = [0; 1];
        let nothing = receive_now(ours.as_fd(), &mut byte).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        let full = loop {
            match send_now(ours.as_fd(), &[7; 64]) {
                Ok(sent) => assert_eq!(sent, 64),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(receive_now(theirs.as_fd(), &mut byte).unwrap(), 1);
        drop(theirs);
        assert!(send_now(ours.as_fd(), &[7]).is_err());
    }
}
