//! The kernel's uevents: a netlink socket of NETLINK_KOBJECT_UEVENT
//! (netlink(7), `lib/kobject_uevent.c`).
//!
//! One datagram is one event, as text; what it says is `host::uevent`'s.
//! Only what the kernel itself sent is handed out: anybody who may send to the
//! group could otherwise tell us that a disk has gone. A socket belongs to the
//! thread that reads it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The multicast group of the kernel; udevd's own is another one.
const KERNEL: u32 = 1;
/// What may wait unread: a storm of a thousand disks is some megabytes.
const RECEIVE_BUFFER: libc::c_int = 16 << 20;
/// More than the kernel makes an event of (`UEVENT_BUFFER_SIZE` and the path).
pub const LONGEST: usize = 8192;

/// A socket that hears every uevent of this network namespace.
#[derive(Debug)]
pub struct UeventSocket(OwnedFd);

impl UeventSocket {
    /// Begins to listen; what happens from now on is heard.
    ///
    /// # Errors
    /// EPERM, EACCES, EPROTONOSUPPORT, EAFNOSUPPORT where a container or a
    /// service manager forbids it; EMFILE, ENFILE, ENOMEM.
    pub fn open() -> io::Result<UeventSocket> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes no pointers; std has no netlink sockets.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_KOBJECT_UEVENT) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor.
        let socket = UeventSocket(unsafe { OwnedFd::from_raw_fd(fd) });
        // Beyond the administrator's limit where we may, else up to it.
        if !socket.set(libc::SO_RCVBUFFORCE, RECEIVE_BUFFER) {
            socket.set(libc::SO_RCVBUF, RECEIVE_BUFFER);
        }
        socket.bind()?;
        Ok(socket)
    }

    fn set(&self, option: libc::c_int, value: libc::c_int) -> bool {
        let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
        // SAFETY: the pointer is to a variable of ours of the stated size.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const value).cast(),
                len,
            )
        };
        result == 0
    }

    fn bind(&self) -> io::Result<()> {
        let (address, len) = kernels_group();
        // SAFETY: the pointer is to an address of ours of the stated size.
        let result = unsafe { libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), len) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The next event of the kernel, if one has arrived. `into` should have
    /// [`LONGEST`] bytes; the rest of a longer event is lost.
    ///
    /// # Errors
    /// ENOBUFS: events were lost, since nobody read for too long. ENOMEM.
    pub fn receive<'a>(&self, into: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        loop {
            let (len, from_kernel) = match self.receive_any(into) {
                Ok(message) => message,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if from_kernel {
                return Ok(Some(&into[..len.min(into.len())]));
            }
        }
    }

    /// Length of the next message, and whether the kernel sent it to its group.
    fn receive_any(&self, into: &mut [u8]) -> io::Result<(usize, bool)> {
        let mut from = MaybeUninit::<libc::sockaddr_nl>::zeroed();
        let (_, size) = kernels_group();
        let mut from_len = size;
        // SAFETY: buffer, address and length are ours, of the stated sizes, and
        // live for the call.
        let got = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                into.as_mut_ptr().cast(),
                into.len(),
                0,
                from.as_mut_ptr().cast(),
                &raw mut from_len,
            )
        };
        let len = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: integers only, zeroed before and perhaps filled in since.
        let from = unsafe { from.assume_init() };
        Ok((len, from_len == size && from.nl_pid == 0 && from.nl_groups == KERNEL))
    }
}

/// Where the kernel sends uevents, and the address's size.
fn kernels_group() -> (libc::sockaddr_nl, libc::socklen_t) {
    // SAFETY: a `sockaddr_nl` is integers only, for which zeroes are values.
    let mut address: libc::sockaddr_nl = unsafe { MaybeUninit::zeroed().assume_init() };
    address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).unwrap_or(0);
    address.nl_groups = KERNEL;
    (address, libc::socklen_t::try_from(size_of::<libc::sockaddr_nl>()).unwrap_or(0))
}

impl AsFd for UeventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl UeventSocket {
        /// Whether it could be sent to the kernel's group.
        fn forge(&self, message: &[u8]) -> bool {
            let (address, len) = kernels_group();
            // SAFETY: message and address are ours, of the stated sizes.
            let sent = unsafe {
                libc::sendto(
                    self.0.as_raw_fd(),
                    message.as_ptr().cast(),
                    message.len(),
                    0,
                    (&raw const address).cast(),
                    len,
                )
            };
            sent >= 0
        }
    }

    /// A buffer that is full loses events: that is said once, and what comes
    /// afterwards is heard.
    #[test]
    fn a_buffer_that_runs_over_is_an_error_and_not_the_end() {
        let Ok(socket) = UeventSocket::open() else { return };
        let Ok(forger) = UeventSocket::open() else { return };
        // (The kernel makes it a page or so.)
        socket.set(libc::SO_RCVBUF, 1);
        let mut buffer = [0; LONGEST];
        let message = [b'x'; 1024];
        // Only root may send; the last ones find no room.
        if !(0..1000).all(|_| forger.forge(&message) || full()) {
            return;
        }
        let mut lost = 0;
        for _ in 0..10 {
            match socket.receive(&mut buffer) {
                Ok(None) => break,
                Ok(Some(_)) => {}
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
                    lost += 1;
                }
            }
        }
        assert_eq!(lost, 1);
        assert!(matches!(socket.receive(&mut buffer), Ok(None)), "and it goes on");
    }

    fn full() -> bool {
        io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS)
    }

    #[test]
    fn what_the_kernel_did_not_send_is_not_heard() {
        // Where containers have no netlink there is nothing to see.
        let Ok(socket) = UeventSocket::open() else { return };
        let Ok(forger) = UeventSocket::open() else { return };
        let mut buffer = [0; LONGEST];
        while socket.receive(&mut buffer).unwrap().is_some() {}
        forger.forge(b"remove@/devices/sdx\0ACTION=remove\0");
        while let Some(heard) = socket.receive(&mut buffer).unwrap() {
            assert!(!heard.starts_with(b"remove@/devices/sdx"));
        }
    }
}
