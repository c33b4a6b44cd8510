//! A ring while a queue thread runs it: what belongs to the ring and not to
//! the requests on it.

use std::sync::Arc;

use super::mailbox::RingReply;
use super::{StillInKernel, Stop};
use crate::guest::memory::Memory;
use crate::guest::ring::RingError;
use crate::guest::virtqueue::VirtQueue;
use crate::io::{Request, RingRole, Time};

/// How a request left its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this many bytes written.
    Answered(u32),
    /// Not: it stays marked in flight, or its ring is written no more.
    Unanswered,
}

#[derive(Debug)]
struct Stopping {
    how: Stop,
    deadline: Time,
    /// Gone once the asker was told that commands are still in the kernel.
    reply: Option<RingReply>,
}

/// An older memory table that requests in flight still point into.
#[derive(Debug)]
struct Retired {
    memory: Arc<Memory>,
    requests: u32,
}

/// A running ring.
#[derive(Debug)]
pub(super) struct RunningRing {
    pub(super) queue: Box<VirtQueue>,
    pub(super) role: RingRole,
    /// When it started, or was enabled again.
    pub(super) since: Time,
    pub(super) enabled: bool,
    /// There may be something to take.
    pub(super) look: bool,
    /// The ring made no sense: nothing more is taken from it.
    pub(super) broken: bool,
    /// Tells this ring's kicks from those of an earlier run.
    pub(super) poll_generation: u32,
    /// The kernel dropped the kick poll; it is armed again.
    pub(super) poll_lost: bool,
    /// Answered in this round.
    pub(super) done: Vec<(u16, u32)>,
    /// Requests in flight in the present memory table.
    requests: u32,
    retired: Vec<Retired>,
    stopping: Option<Stopping>,
}

impl RunningRing {
    pub(super) fn new(
        queue: Box<VirtQueue>,
        role: RingRole,
        since: Time,
        poll_generation: u32,
    ) -> RunningRing {
        let size = usize::from(queue.size());
        RunningRing {
            queue,
            role,
            since,
            enabled: true,
            look: true,
            broken: false,
            poll_generation,
            poll_lost: false,
            done: Vec::with_capacity(size),
            requests: 0,
            retired: Vec::new(),
            stopping: None,
        }
    }

    pub(super) fn is_popping(&self) -> bool {
        self.enabled && !self.broken && self.stopping.is_none()
    }

    pub(super) fn carries_events(&self) -> bool {
        self.role == RingRole::Events
    }

    /// Requests of it have not ended.
    pub(super) fn is_busy(&self) -> bool {
        self.requests > 0 || !self.retired.is_empty()
    }

    /// Nothing may be written to it any more.
    pub(super) fn is_discarded(&self) -> bool {
        self.stopping.as_ref().is_some_and(|s| s.how == Stop::Discard)
    }

    pub(super) fn memory_generation(&self) -> u32 {
        self.queue.memory().generation()
    }

    /// A request of the present memory table is in flight.
    pub(super) fn taken(&mut self) {
        self.requests += 1;
    }

    /// A request is no longer in flight.
    pub(super) fn ended(&mut self, request: &Request, how: Ended) {
        if request.memory_generation == self.memory_generation() {
            self.requests -= 1;
        } else {
            let is_its = |r: &Retired| r.memory.generation() == request.memory_generation;
            if let Some(at) = self.retired.iter().position(is_its) {
                self.retired[at].requests -= 1;
                if self.retired[at].requests == 0 {
                    self.retired.swap_remove(at);
                }
            }
        }
        if let Ended::Answered(used_len) = how {
            self.done.push((request.tag.head, used_len));
        }
    }

    /// Publishes what was answered in this round: one store, one decision
    /// about the interrupt.
    pub(super) fn publish(&mut self) {
        if self.done.is_empty() {
            return;
        }
        if !self.is_discarded() {
            self.queue.complete(&self.done);
            self.queue.notify();
        }
        self.done.clear();
    }

    /// Moves the ring to another memory table.
    pub(super) fn set_memory(&mut self, memory: Arc<Memory>) -> Result<(), RingError> {
        let old = Arc::clone(self.queue.memory());
        if self.requests > 0 {
            self.retired.push(Retired { memory: old, requests: self.requests });
            self.requests = 0;
        }
        self.queue.set_memory(memory)
    }

    pub(super) fn stop(&mut self, how: Stop, deadline: Time, reply: RingReply) {
        self.stopping = Some(Stopping { how, deadline, reply: Some(reply) });
    }

    /// Until when it is to stop; `None` if it need not, or nobody waits.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.stopping.as_ref().filter(|s| s.reply.is_some()).map(|s| s.deadline)
    }

    /// Answers whoever asked for the stop; the ring stays.
    pub(super) fn reply(&mut self, answer: Result<Box<VirtQueue>, StillInKernel>) {
        if let Some(reply) = self.stopping.as_mut().and_then(|s| s.reply.take()) {
            // Nobody listening any more is fine.
            let _ = reply.send(answer);
        }
    }

    /// Gives the ring to whoever asked for the stop.
    pub(super) fn into_reply(self) {
        if let Some(reply) = self.stopping.and_then(|s| s.reply) {
            let _ = reply.send(Ok(self.queue));
        }
    }
}
