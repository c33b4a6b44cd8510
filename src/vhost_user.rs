//! The vhost-user back-end: socket, connection, protocol state.
//!
//! One [`listener`] per disk owns its socket and a thread; that thread serves
//! one front-end at a time with a [`Session`], which turns messages into ring
//! starts and stops. Rings are *moved* to a [`RingHost`] (the queue threads)
//! and back, so nothing here touches a running ring. Not here: what requests
//! mean (the device behind `vhost_user_backend::VhostUserBackend`) and any
//! I/O. Messages follow QEMU's `docs/interop/vhost-user.rst`; framing and
//! file descriptor passing are the `vhost` crate's.
//!
//! [`Session`]: session::Session
//! [`RingHost`]: crate::queue::RingHost

use std::fmt;
use std::time::Duration;

use crate::guest::inflight::InflightArea;

mod back_channel;
pub mod listener;
mod memory;
mod peer;
#[cfg(test)]
mod rig;
pub mod session;
pub mod socket;
mod stragglers;
mod vring;

/// What the session needs to know of a device and
/// `vhost_user_backend::VhostUserBackend` has no word for.
pub trait Extras {
    /// Whether in-flight tracking (INFLIGHT_SHMFD, GET_VRING_BASE_INFLIGHT) is
    /// offered. A device whose requests must not be issued again says no.
    fn inflight(&self) -> bool {
        true
    }

    /// An in-flight area was made for the front-end.
    fn area_made(&self) {}

    /// The front-end gave an in-flight area. If none was ever made here, its
    /// rings come from an earlier process, and what the driver told that one
    /// (its write-cache mode) nobody will repeat. Its memo is the device's.
    fn area_given(&self, _area: &InflightArea) {}

    /// Whether the configuration space may change by itself, so that there is
    /// something to tell a front-end (BACKEND_REQ is offered).
    fn config_changes(&self) -> bool {
        false
    }

    /// A number for what the configuration space reads as now, if no front-end
    /// has read it so. [`listener::ListenerHandle::config_changed`] has it
    /// looked at.
    fn unread_config(&self) -> Option<u64> {
        None
    }
}

/// How a session deals with its rings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long the kernel may keep a command; a stopping ring waits so long
    /// for what it has issued.
    pub command_timeout: Duration,
    /// What is added to `command_timeout` before a ring stop is given up.
    pub margin: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { command_timeout: Duration::from_secs(30), margin: Duration::from_secs(5) }
    }
}

impl Settings {
    fn stop_deadline(&self) -> Duration {
        self.command_timeout + self.margin
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The front-end closed it.
    Closed,
    /// The front-end broke the protocol: what it did.
    Protocol(String),
    /// A request could not be done and the protocol knows no way to say so.
    Refused(String),
    /// The daemon is shutting down.
    Shutdown,
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DisconnectReason::Closed => f.write_str("closed by the front-end"),
            DisconnectReason::Protocol(what) => write!(f, "protocol error: {what}"),
            DisconnectReason::Refused(what) => f.write_str(what),
            DisconnectReason::Shutdown => f.write_str("shutting down"),
        }
    }
}

/// What happens to the connection of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// A front-end connected.
    Connected,
    /// A second front-end connected and was sent away.
    ClientRefused,
    /// A request was answered with failure; the connection goes on.
    RequestRefused {
        /// Its name in the vhost-user specification.
        request: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// The front-end has given an in-flight area ([`Extras::area_given`]).
    AreaGiven,
    /// The front-end was told that the configuration space has changed, and
    /// answered that it could not take it.
    ConfigRefused,
    /// The back-end channel is of no use any more: why. The connection goes on.
    ChannelLost(String),
    /// Rings of an earlier connection still have commands in the kernel: no
    /// ring is started until all have returned.
    RingsHeld(usize),
    /// The last of them has returned.
    RingsReturned,
    /// The connection is over.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
    },
    /// Nothing will connect any more: the adopted connection is over, the
    /// listening socket failed, or [`listener::ListenerHandle::shutdown`].
    Finished,
}

/// What to add where the guest's memory is not shared with us.
pub const SHARE_MEMORY: &str = "the guest's memory must be shared with this process: \
    add `-object memory-backend-memfd,id=mem,size=<the value of -m>,share=on \
    -machine memory-backend=mem` to the QEMU command line, or in a libvirt domain \
    `<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>`";
