//! What the front-end has said about one ring while we hold it, that is while
//! it is not running. Plain data; the session decides. No thread of its own.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;

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
