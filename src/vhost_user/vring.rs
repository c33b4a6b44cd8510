//! What the front-end has said about one ring while we hold it, that is while
//! it is not running. Plain data; the session decides. No thread of its own.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use crate::guest::virtqueue::VirtQueue;

/// Guest physical addresses of a ring's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) desc: u64,
    pub(super) avail: u64,
    pub(super) used: u64,
}

/// One ring as configured so far.
#[derive(Debug, Default)]
pub(super) struct Vring {
    /// Number of descriptors; 0 = not said yet.
    pub(super) size: u16,
    pub(super) addresses: Option<Addresses>,
    /// SET_VRING_BASE, or where the ring stood when it stopped.
    pub(super) base: u16,
    /// Present from SET_VRING_KICK until the ring is handed to its queue thread.
    pub(super) kick: Option<OwnedFd>,
    pub(super) call: Option<OwnedFd>,
    pub(super) err: Option<OwnedFd>,
    pub(super) enabled: bool,
    pub(super) running: bool,
    /// The running ring keeps an in-flight record.
    pub(super) tracked: bool,
}

impl Vring {
    /// Whether everything is there that a start needs.
    pub(super) fn is_ready(&self) -> bool {
        !self.running
            && self.enabled
            && self.size != 0
            && self.kick.is_some()
            && self.addresses.is_some()
    }

    /// The queue thread has given the ring back.
    pub(super) fn take_back(&mut self, ring: VirtQueue) {
        self.running = false;
        self.base = ring.next_avail();
        (self.call, self.err) = ring.into_events();
    }

    /// Back to the state at connection, but for the eventfds the front-end
    /// sends only once (RESET_DEVICE).
    pub(super) fn reset(&mut self) {
        let (call, err) = (self.call.take(), self.err.take());
        *self = Vring { call, err, ..Vring::default() };
    }
}

/// The eventfd of a message; `Err` if it is something else. The kernel knows
/// no cheaper way to ask. A socket, say, could be the front-end's own end of
/// the connection, which would then never be seen to close.
pub(super) fn event(file: Option<File>) -> Result<Option<OwnedFd>, ()> {
    let Some(file) = file else { return Ok(None) };
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let is_event = match link {
        Ok(name) => name.as_os_str() == "anon_inode:[eventfd]",
        // No /proc: at least no file, socket or pipe.
        Err(_) => file.metadata().is_ok_and(|m| {
            let kind = m.file_type();
            !kind.is_file() && !kind.is_socket() && !kind.is_fifo() && !kind.is_dir()
        }),
    };
    if is_event { Ok(Some(file.into())) } else { Err(()) }
}

/// The call descriptor of a message: an eventfd, or an end of a socket pair,
/// since user-mode Linux (`virtio_uml`) can wait on no eventfd.
pub(super) fn call(file: Option<File>) -> Result<Option<OwnedFd>, ()> {
    let Some(file) = file else { return Ok(None) };
    if !file.metadata().is_ok_and(|m| m.file_type().is_socket()) {
        return event(Some(file));
    }
    socket_pair(file).map(|socket| Some(socket.into()))
}

/// An end of a socket pair; `Err` if it is something else. A socket with a
/// name at either end is somebody's service, or the front-end's own end of the
/// connection.
pub(super) fn socket_pair(file: File) -> Result<UnixStream, ()> {
    let socket = UnixStream::from(OwnedFd::from(file));
    // Of another family than AF_UNIX these are errors.
    let unnamed = |end: std::io::Result<SocketAddr>| end.is_ok_and(|name| name.is_unnamed());
    let pair = unnamed(socket.local_addr()) && unnamed(socket.peer_addr());
    if pair { Ok(socket) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::eventfd::EventFd;
    use std::net::TcpListener;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    fn taken(fd: impl Into<OwnedFd>) -> [bool; 2] {
        let file = File::from(fd.into());
        [event(Some(file.try_clone().unwrap())).is_ok(), call(Some(file)).is_ok()]
    }

    #[test]
    fn calls_go_to_eventfds_and_socket_pairs_and_nothing_else_is_taken() {
        let path = std::env::temp_dir().join(format!("vhost-mpath-call-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let named = UnixStream::connect(&path).unwrap();
        let (pair, _other) = UnixStream::pair().unwrap();
        std::fs::remove_file(&path).unwrap();
        let event = EventFd::new().unwrap();
        assert_eq!(taken(event.as_fd().try_clone_to_owned().unwrap()), [true, true]);
        assert_eq!(taken(pair), [false, true]);
        assert_eq!(taken(named), [false, false], "somebody listens by this name");
        assert_eq!(taken(listener.accept().unwrap().0), [false, false]);
        assert_eq!(taken(TcpListener::bind("127.0.0.1:0").unwrap()), [false, false]);
        assert_eq!(taken(File::open("/dev/null").unwrap()), [false, false]);
        assert_eq!(taken(File::open("/").unwrap()), [false, false]);
        assert!(call(None).is_ok_and(|fd| fd.is_none()));
    }
}
