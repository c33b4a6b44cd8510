//! Rings of an ended session that their queue threads have not given back.
//!
//! A command in the kernel cannot be recalled, so a ring may come back long
//! after its front-end has gone. Until then no other ring of the disk starts:
//! a late write must not land beside newer ones (law 1). Owned by the
//! listener's thread, which polls.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use crate::guest::virtqueue::VirtQueue;
use crate::queue::{RingHost, StillInKernel, Stop};

type Answer = Receiver<Result<Box<VirtQueue>, StillInKernel>>;

#[derive(Debug)]
struct Straggler {
    index: u16,
    how: Stop,
    answer: Answer,
}

/// Rings on their way back.
#[derive(Debug, Default)]
pub(super) struct Stragglers {
    rings: Vec<Straggler>,
}

impl Stragglers {
    /// Waits for the answer of a stop that was sent already.
    pub(super) fn add(&mut self, index: u16, how: Stop, answer: Answer) {
        self.rings.push(Straggler { index, how, answer });
    }

    /// Adds those of another list.
    pub(super) fn append(&mut self, mut other: Stragglers) {
        self.rings.append(&mut other.rings);
    }

    /// Rings that are not back yet.
    pub(super) fn len(&self) -> usize {
        self.rings.len()
    }

    /// Looks for answers, and stops again what was still in the kernel.
    pub(super) fn poll(&mut self, host: &dyn RingHost, deadline: Duration) {
        self.rings.retain_mut(|ring| match ring.answer.try_recv() {
            Err(TryRecvError::Empty) => true,
            Ok(Err(StillInKernel)) => {
                log::warn!("ring {}: commands are still in the kernel", ring.index);
                ring.answer = host.stop_ring(ring.index, ring.how, deadline);
                true
            }
            // Disconnected: the queue thread is gone, and its rings with it.
            Ok(Ok(_)) | Err(TryRecvError::Disconnected) => false,
        });
    }
}
