//! Queue threads: reactors that carry requests from rings to paths and back.
//!
//! A ring is *moved* into its queue thread when it starts and moved back when
//! it stops ([`RingHost`]); the vhost-user session cannot touch a running ring
//! because it does not have it.

pub mod dispatch;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::guest::memory::Memory;
use crate::guest::virtqueue::VirtQueue;

/// How a ring stops. Commands already in the kernel are always awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// GET_VRING_BASE without GET_VRING_BASE_INFLIGHT: every popped request
    /// finishes; those no path has taken end with [`Outcome::Stopped`]
    /// (IOERR for the guest).
    ///
    /// [`Outcome::Stopped`]: crate::io::Outcome::Stopped
    Finish,
    /// Requests no path has taken stay marked in the in-flight area and are
    /// not answered; commands that return are published. For
    /// GET_VRING_BASE_INFLIGHT, SIGTERM, and a client that went away, where
    /// in-flight tracking was negotiated.
    Suspend,
    /// The client went away and there is no in-flight area: nothing more is
    /// written to its rings. (QEMU restarts from the used index.)
    Discard,
}

/// A command did not come back from the kernel in time; the ring stays with
/// its queue thread until it does.
#[derive(Debug)]
pub struct StillInKernel;

/// Owner of running rings, as the session sees it.
///
/// All methods return at once; a receiver delivers the answer.
pub trait RingHost: Send + Sync {
    /// Gives a ring away; the queue thread looks at it once without a kick.
    fn start_ring(&self, ring: Box<VirtQueue>);

    /// Takes a ring back. The answer comes once none of its requests is in the
    /// kernel, or `StillInKernel` after `deadline`. A second `stop_ring` may
    /// be sent after that.
    fn stop_ring(
        &self,
        index: u16,
        how: Stop,
        deadline: Duration,
    ) -> Receiver<Result<Box<VirtQueue>, StillInKernel>>;

    /// Stops or resumes popping from a running ring (SET_VRING_ENABLE).
    fn enable_ring(&self, index: u16, enabled: bool);

    /// Replaces the call (interrupt) eventfd of a running ring.
    fn set_call(&self, index: u16, call: Option<OwnedFd>);

    /// Replaces the guest memory under all running rings; the receiver gets a
    /// message once every running ring uses the new table. Requests in flight
    /// keep the old one mapped.
    fn set_memory(&self, memory: Arc<Memory>) -> Receiver<()>;
}
