//! A running ring as its queue thread owns it.
//!
//! Ring view, in-flight record and the three eventfds, moved as one into the
//! queue thread when the ring starts and back when it stops. Good path: no
//! lock, no allocation, no system call but the call eventfd's write. Not here:
//! waiting for kicks (`queue`), and what the chains mean (the fronts).

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::guest::inflight::{InflightError, InflightQueue};
use crate::guest::memory::Memory;
use crate::guest::ring::{Chain, ChainError, Ring, RingError};

/// What a [`VirtQueue`] is made of.
#[derive(Debug)]
pub struct VirtQueueParts {
    /// Queue index within the device.
    pub index: u16,
    /// The ring, at the position to start from if there is no in-flight record.
    pub ring: Ring,
    /// In-flight record; decides the position if there.
    pub inflight: Option<InflightQueue>,
    /// Kick eventfd: readable when the driver has made chains available.
    pub kick: OwnedFd,
    /// Call eventfd: the interrupt. None = the driver polls.
    pub call: Option<OwnedFd>,
    /// Error eventfd, if the front-end gave one.
    pub err: Option<OwnedFd>,
}

/// A split ring with its in-flight record and eventfds.
#[derive(Debug)]
pub struct VirtQueue {
    /// Queue index within the device.
    pub index: u16,
    ring: Ring,
    inflight: Option<InflightQueue>,
    kick: OwnedFd,
    call: Option<File>,
    err: Option<File>,
    /// Heads that an earlier owner popped and did not return, oldest first.
    resubmit: VecDeque<u16>,
    /// The last call of [`VirtQueue::take`] handed out such heads.
    replays: bool,
    /// One bit per head: popped and not returned. Ours alone, unlike the
    /// in-flight record, which the front-end can write.
    held: Vec<u64>,
}

impl VirtQueue {
    /// Puts a ring together. With an in-flight record the position is the used
    /// index plus what is in flight, and that is handed out again first.
    ///
    /// # Errors
    ///
    /// An in-flight record that makes no sense.
    pub fn new(parts: VirtQueueParts) -> Result<VirtQueue, InflightError> {
        let VirtQueueParts { index, mut ring, mut inflight, kick, call, err } = parts;
        let mut resubmit = VecDeque::new();
        if let Some(record) = &mut inflight {
            let recovered = record.recover(ring.used_idx())?;
            if recovered.restarted {
                log::warn!("ring {index}: the in-flight area is of an earlier driver, restarted");
            }
            resubmit = recovered.resubmit;
            let count = u16::try_from(resubmit.len()).expect("at most one per descriptor");
            ring.set_next_avail(ring.used_idx().wrapping_add(count));
        }
        let held = vec![0; usize::from(ring.size()).div_ceil(64)];
        let (call, err) = (call.map(File::from), err.map(File::from));
        let mut queue =
            VirtQueue { index, ring, inflight, kick, call, err, resubmit, replays: false, held };
        for i in 0..queue.resubmit.len() {
            queue.hold(queue.resubmit[i]);
        }
        Ok(queue)
    }

    /// Marks a head as ours; false if it already was.
    #[inline]
    fn hold(&mut self, head: u16) -> bool {
        let (word, bit) = (usize::from(head) / 64, 1 << (head % 64));
        let was = self.held[word] & bit != 0;
        self.held[word] |= bit;
        !was
    }

    #[inline]
    fn release(&mut self, head: u16) -> bool {
        let (word, bit) = (usize::from(head) / 64, 1 << (head % 64));
        let was = self.held[word] & bit != 0;
        self.held[word] &= !bit;
        was
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// The kick eventfd. Its file flags are shared with the front-end: rely on
    /// neither blocking nor non-blocking.
    pub fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// Whether an in-flight record is kept.
    pub fn has_inflight(&self) -> bool {
        self.inflight.is_some()
    }

    /// The memory that chains are translated with. Whoever keeps segments of a
    /// chain beyond [`VirtQueue::set_memory`] keeps a clone of this.
    pub fn memory(&self) -> &Arc<Memory> {
        self.ring.memory()
    }

    /// Changes over to a new memory table.
    ///
    /// # Errors
    ///
    /// The ring is not in it; the old table stays in use.
    pub fn set_memory(&mut self, memory: Arc<Memory>) -> Result<(), RingError> {
        self.ring.set_memory(memory)
    }

    /// Replaces the call eventfd and signals the new one once, since an
    /// interrupt may have gone to the old one after the front-end left it.
    pub fn set_call(&mut self, call: Option<OwnedFd>) {
        self.call = call.map(File::from);
        self.signal();
    }

    /// The next available entry to look at: the base that GET_VRING_BASE
    /// reports.
    pub fn next_avail(&self) -> u16 {
        self.ring.next_avail()
    }

    /// The used index as published.
    pub fn used_idx(&self) -> u16 {
        self.ring.used_idx()
    }

    /// Whether the driver seems never to have written to the ring; see
    /// [`Ring::is_untouched`].
    pub fn is_untouched(&self) -> bool {
        self.ring.is_untouched()
    }

    /// Chains waiting: those to hand out again and those never popped.
    pub fn backlog(&self) -> usize {
        self.resubmit.len() + usize::from(self.ring.backlog())
    }

    /// Chains taken (or waiting to be handed out again) and not completed.
    pub fn in_flight(&self) -> usize {
        self.held.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Appends up to `max` heads, what an earlier owner left first; each is
    /// recorded as in flight before this returns. Returns how many.
    ///
    /// # Errors
    ///
    /// A broken ring; nothing was appended then.
    pub fn take(&mut self, max: usize, heads: &mut Vec<u16>) -> Result<usize, RingError> {
        let left = self.resubmit.len().min(max);
        self.replays = left > 0;
        if self.replays {
            heads.extend(self.resubmit.drain(..left));
            return Ok(left);
        }
        let before = heads.len();
        let popped = self.ring.pop(max, heads)?;
        for i in 0..popped {
            let head = heads[before + i];
            if !self.hold(head) {
                return self.refuse_from(before, i, heads);
            }
            if let Some(record) = &mut self.inflight {
                record.mark(head);
            }
        }
        Ok(popped)
    }

    /// Whether the heads of the last [`VirtQueue::take`] had been taken by an
    /// earlier owner of the ring already: one call never mixes the two kinds.
    #[inline]
    pub fn replays(&self) -> bool {
        self.replays
    }

    /// The `taken`th popped head is one we hold already: what came before it
    /// is good, the ring goes no further.
    #[cold]
    fn refuse_from(
        &mut self,
        before: usize,
        taken: usize,
        heads: &mut Vec<u16>,
    ) -> Result<usize, RingError> {
        let head = heads[before + taken];
        let back = u16::try_from(heads.len() - before - taken).expect("at most the ring size");
        self.ring.set_next_avail(self.ring.next_avail().wrapping_sub(back));
        heads.truncate(before + taken);
        if taken > 0 { Ok(taken) } else { Err(RingError::HeadBusy(head)) }
    }

    /// Follows the chain of a taken head.
    ///
    /// # Errors
    ///
    /// What is wrong with it; see [`RingError::Chain`] for [`VirtQueue::fail`].
    #[inline]
    pub fn chain(&self, head: u16, chain: &mut Chain) -> Result<(), ChainError> {
        self.ring.read_chain(head, chain)
    }

    /// Returns a batch of `(head, bytes written)` to the driver, published by
    /// one store, in the order the in-flight area demands. Does not signal.
    ///
    /// # Panics
    ///
    /// If a head was not taken or is completed twice: going on would corrupt
    /// the ring, a restart recovers it.
    pub fn complete(&mut self, done: &[(u16, u32)]) {
        if done.is_empty() {
            return;
        }
        for &(head, _) in done {
            assert!(self.release(head), "ring {}: head {head} is not in flight", self.index);
        }
        let Some(record) = &mut self.inflight else {
            self.ring.push(done);
            return;
        };
        record.link(done);
        self.ring.write_used(done);
        let used_idx = self.ring.publish(done.len());
        record.settle(done, used_idx);
    }

    /// Interrupts the driver if it wants to know of anything completed since
    /// the last call of this function.
    #[inline]
    pub fn notify(&mut self) {
        if self.ring.needs_call() {
            self.signal();
        }
    }

    /// Interrupts the driver unconditionally.
    pub fn signal(&self) {
        write_event(self.call.as_ref());
    }

    /// Asks for kicks again; returns whether there is more to take already.
    pub fn enable_notification(&mut self) -> bool {
        self.ring.enable_notification() || !self.resubmit.is_empty()
    }

    /// Asks the driver not to kick for now.
    pub fn disable_notification(&mut self) {
        self.ring.disable_notification();
    }

    /// Tells the front-end that the ring is broken. The caller stops taking
    /// from it; what is in flight may still be completed.
    pub fn fail(&mut self, error: &RingError) {
        log::error!("ring {} is stopped: {error}", self.index);
        write_event(self.err.as_ref());
    }

    /// Takes the call and error eventfds out of a stopped ring.
    pub fn into_events(self) -> (Option<OwnedFd>, Option<OwnedFd>) {
        (self.call.map(OwnedFd::from), self.err.map(OwnedFd::from))
    }
}

/// Adds one to an eventfd. The only possible failure that is no bug is a full
/// counter of a non-blocking one: then the other side has been told already.
fn write_event(event: Option<&File>) {
    if let Some(mut event) = event {
        let _ = event.write(&1u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests;
