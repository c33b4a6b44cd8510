//! The two shapes of an io_uring: narrow (entries of 64 bytes, completions of
//! 16) and wide (128 and 32), which the SCSI passthrough of bsg nodes asks for.
//!
//! The same operations on either; which one it is, is the business of
//! [`Uring`](super::Uring), whose thread owns it.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::{IoUring, cqueue, squeue};

use super::{Cqe, Mode};

type Plain = IoUring;
type Broad = IoUring<squeue::Entry128, cqueue::Entry32>;

/// One ring of either shape.
pub(super) enum Ring {
    Narrow(Plain),
    Wide(Broad),
}

/// The same expression for both shapes.
macro_rules! either {
    ($ring:expr, $name:ident => $what:expr) => {
        match $ring {
            Ring::Narrow($name) => $what,
            Ring::Wide($name) => $what,
        }
    };
}

impl Ring {
    pub(super) fn narrow(entries: u32) -> io::Result<(Ring, Mode)> {
        build(entries).map(|(ring, mode)| (Ring::Narrow(ring), mode))
    }

    /// EINVAL where the kernel has no such entries (before Linux 5.19).
    pub(super) fn wide(entries: u32) -> io::Result<(Ring, Mode)> {
        build(entries).map(|(ring, mode)| (Ring::Wide(ring), mode))
    }

    pub(super) fn is_wide(&self) -> bool {
        matches!(self, Ring::Wide(_))
    }

    /// False where the queue is full.
    ///
    /// # Safety
    /// What the entry points to stays valid as the operation demands.
    #[inline]
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        match self {
            // SAFETY: passed on to the caller.
            Ring::Narrow(ring) => unsafe { ring.submission().push(entry) }.is_ok(),
            Ring::Wide(ring) => {
                let entry = entry.clone().into();
                // SAFETY: passed on to the caller.
                unsafe { ring.submission().push(&entry) }.is_ok()
            }
        }
    }

    /// As [`push`](Ring::push); false on a narrow ring, too.
    ///
    /// # Safety
    /// As [`push`](Ring::push).
    #[inline]
    pub(super) unsafe fn push_wide(&mut self, entry: &squeue::Entry128) -> bool {
        match self {
            Ring::Narrow(_) => false,
            // SAFETY: passed on to the caller.
            Ring::Wide(ring) => unsafe { ring.submission().push(entry) }.is_ok(),
        }
    }

    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        either!(self, ring => ring.submitter())
    }

    /// Entries queued and not yet given to the kernel.
    pub(super) fn queued(&mut self) -> usize {
        either!(self, ring => ring.submission().len())
    }

    /// Whether a system call would do anything.
    pub(super) fn wants_enter(&mut self) -> bool {
        either!(self, ring => {
            let queue = ring.submission();
            !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
        })
    }

    /// Hands over every completion that is there, oldest first.
    #[inline]
    pub(super) fn reap(&mut self, mut each: impl FnMut(Cqe)) {
        match self {
            Ring::Narrow(ring) => {
                for entry in ring.completion() {
                    each(Cqe {
                        user_data: entry.user_data(),
                        result: entry.result(),
                        more: cqueue::more(entry.flags()),
                        extra: 0,
                    });
                }
            }
            Ring::Wide(ring) => {
                for entry in ring.completion() {
                    each(Cqe {
                        user_data: entry.user_data(),
                        result: entry.result(),
                        more: cqueue::more(entry.flags()),
                        extra: entry.big_cqe()[0],
                    });
                }
            }
        }
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        either!(self, ring => ring.as_raw_fd())
    }
}

/// With the newest set-up flags that the kernel knows.
fn build<S, C>(entries: u32) -> io::Result<(IoUring<S, C>, Mode)>
where
    S: squeue::EntryMarker,
    C: cqueue::EntryMarker,
{
    let base = || {
        let mut builder = IoUring::<S, C>::builder();
        builder.setup_clamp().setup_cqsize(entries.next_power_of_two().saturating_mul(4));
        builder
    };
    let deferred = || {
        let mut b = base();
        b.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
        b.build(entries)
    };
    let cooperative = || {
        let mut b = base();
        b.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
        b.build(entries)
    };
    let made = |mode| move |ring| (ring, mode);
    // EINVAL: an older kernel does not know a flag. Anything else would
    // fail the same way without it.
    let unknown = |e: &io::Error| e.raw_os_error() == Some(libc::EINVAL);
    match deferred() {
        Err(e) if unknown(&e) => match cooperative() {
            Err(e) if unknown(&e) => base().build(entries).map(made(Mode::Plain)),
            result => result.map(made(Mode::Cooperative)),
        },
        result => result.map(made(Mode::Deferred)),
    }
}
