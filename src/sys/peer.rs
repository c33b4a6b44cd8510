//! Who is at the other end of a Unix socket.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The process that connected (SO_PEERCRED); `None` where the kernel does not
/// say, or the process is of a pid namespace that we do not see.
pub fn process(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut who = MaybeUninit::<libc::ucred>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).ok()?;
    // SAFETY: both pointers are to variables of ours of the stated size that
    // live for the call; std has no stable way to the peer's process.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            who.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: filled in by the kernel; zeroed before.
    let who = unsafe { who.assume_init() };
    u32::try_from(who.pid).ok().filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peer_of_a_socket_pair_is_this_process() {
        let (a, _b) = UnixStream::pair().unwrap();
        assert_eq!(process(a.as_fd()), Some(std::process::id()));
        assert_eq!(process(File::open("/dev/null").unwrap().as_fd()), None);
    }
}
