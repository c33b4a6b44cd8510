//! Sends and receives that never wait (send(2), recv(2) with MSG_DONTWAIT), and
//! a receive that takes descriptors (recvmsg(2)).
//!
//! Not to wait is for a socket whose other end, or a copy of ours, belongs to somebody who may
//! change the open file's flags at any time: O_NONBLOCK is then no promise.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Room for eight descriptors; the kernel closes what does not fit.
const CONTROL_WORDS: usize = 6;

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

/// Receives bytes with the descriptors that came with them, all of them ours to
/// close; waits as the socket is set up.
///
/// # Errors
/// `WouldBlock` after the socket's timeout.
pub fn receive_with_files(
    socket: BorrowedFd<'_>,
    into: &mut [u8],
) -> io::Result<(usize, Vec<File>)> {
    let mut control = [0u64; CONTROL_WORDS]; // aligned as a cmsghdr
    let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: all zeroes is a msghdr: no pointers, no lengths.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let fd = socket.as_raw_fd();
    // SAFETY: writes into `into` and `control`, which outlive the call, by the
    // lengths stated above; std has no receive with descriptors.
    let received = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let received = count(received)?;
    Ok((received, files_in(&message)))
}

fn files_in(message: &libc::msghdr) -> Vec<File> {
    let mut files = Vec::new();
    // SAFETY: the kernel has filled in the message, and its control buffer lives.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: a header within the control buffer, as the macros return it.
        let header = unsafe { next.read_unaligned() };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: only computes the place of the data behind the header.
            let data = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            // SAFETY: only computes a length.
            let empty = usize::try_from(unsafe { libc::CMSG_LEN(0) }).unwrap_or(usize::MAX);
            let fds = header.cmsg_len.saturating_sub(empty) / size_of::<RawFd>();
            for index in 0..fds {
                // SAFETY: the header's length covers this many descriptors.
                let fd = unsafe { data.wrapping_add(index).read_unaligned() };
                // SAFETY: the kernel has just given us this descriptor.
                files.push(File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        // SAFETY: as for the first one.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use vmm_sys_util::sock_ctrl_msg::ScmSocket;

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

    #[test]
    fn every_descriptor_is_received_or_closed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut word = [0; 4];
        for sent in [0, 1, 2, 3, 8, 20] {
            let fds = vec![ours.as_raw_fd(); sent];
            theirs.send_with_fds(&[&b"word"[..]], &fds).unwrap();
            let (len, got) = receive_with_files(ours.as_fd(), &mut word).unwrap();
            assert_eq!((len, &word), (4, b"word"));
            assert_eq!(got.len(), sent.min(8));
            assert!(got.iter().all(|file| file.metadata().is_ok()));
        }
        drop(theirs);
        assert_eq!(receive_with_files(ours.as_fd(), &mut word).unwrap().0, 0);
    }
}
