//! Where helper threads leave completions for a queue thread.
//!
//! One per queue thread, shared by all its ports. Any thread pushes; the queue
//! thread drains. Not a request queue: it is bounded by what the ports have in
//! flight.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::data;
use super::doubts::Doubts;
use crate::io::{Completion, Segment, total_len};
use crate::scsi::sense::{SENSE_MAX, Sense};
use crate::scsi::status::Status;
use crate::sys::eventfd::EventFd;
use crate::sys::segment;

/// Completions waiting for one queue thread.
pub struct Inbox {
    items: Mutex<Vec<(u64, Completion)>>,
    event: EventFd,
}

impl Inbox {
    /// An empty one.
    ///
    /// # Errors
    /// Those of eventfd(2).
    pub fn new() -> io::Result<Inbox> {
        Ok(Inbox { items: Mutex::new(Vec::with_capacity(64)), event: EventFd::new()? })
    }

    /// Leaves a completion; signals only if nothing was waiting, so a burst
    /// costs one system call.
    pub fn push(&self, cookie: u64, completion: Completion) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let first = items.is_empty();
        items.push((cookie, completion));
        drop(items);
        if first {
            self.event.signal();
        }
    }

    /// Moves everything to the end of `into`, oldest first. The next push
    /// after this signals again. Need not read the eventfd.
    pub fn drain(&self, into: &mut Vec<(u64, Completion)>) {
        into.append(&mut self.items.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl AsFd for Inbox {
    /// The eventfd to watch (edge by edge, see [`EventFd`]).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// Commands a port has with helper threads: the port counts up, whoever
/// finishes one counts down, and tells the path's other users what it has met.
#[derive(Clone, Debug, Default)]
pub(super) struct InFlight(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    count: AtomicUsize,
    doubts: Arc<Doubts>,
}

impl InFlight {
    pub(super) fn new(doubts: &Arc<Doubts>) -> InFlight {
        let doubts = Arc::clone(doubts);
        InFlight(Arc::new(Shared { count: AtomicUsize::new(0), doubts }))
    }

    pub(super) fn count(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }
}

/// The right, and the duty, to complete one command once.
#[derive(Debug)]
#[must_use]
pub(super) struct Ticket {
    inbox: Arc<Inbox>,
    cookie: u64,
    in_flight: InFlight,
    /// Where the data of a REQUEST SENSE come to.
    sense: Option<Vec<Segment>>,
}

impl Ticket {
    pub(super) fn new(inbox: &Arc<Inbox>, cookie: u64, in_flight: &InFlight) -> Ticket {
        in_flight.0.count.fetch_add(1, Ordering::AcqRel);
        Ticket { inbox: Arc::clone(inbox), cookie, in_flight: in_flight.clone(), sense: None }
    }

    /// The command is a REQUEST SENSE: what its data say is the LU's word, too,
    /// which it has forgotten then.
    pub(super) fn with_sense(self, data: &[Segment]) -> Ticket {
        Ticket { sense: Some(data.to_vec()), ..self }
    }

    /// Counts down first: whoever sees the completion also sees the room, and
    /// that the path may lead elsewhere, if it says so.
    pub(super) fn finish(self, completion: Completion) {
        let doubts = &self.in_flight.0.doubts;
        doubts.look_at(&completion);
        let refused = |status| status != Status::GOOD;
        let good = !matches!(completion, Completion::Scsi { status, .. } if refused(status));
        if let Some(list) = self.sense.as_ref().filter(|_| good) {
            let mut bytes = [0; SENSE_MAX];
            let len = data::arrived(&completion, total_len(list)).min(SENSE_MAX);
            // SAFETY: the requester keeps its segments until the completion is
            // delivered (contract of `Segment`), which is below; the bytes are
            // ours.
            unsafe { segment::copy_in(list, 0, &mut bytes[..len]) };
            doubts.hear(&Sense::from_bytes(&bytes[..len]));
        }
        self.in_flight.0.count.fetch_sub(1, Ordering::AcqRel);
        self.inbox.push(self.cookie, completion);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_signal_and_draining_arms_again() {
        let inbox = Inbox::new().unwrap();
        assert!(!inbox.event.clear());
        inbox.push(1, Completion::Good);
        inbox.push(2, Completion::Short(3));
        assert!(inbox.event.clear());
        inbox.push(3, Completion::Good);
        assert!(!inbox.event.clear(), "still undrained: no second signal");
        let mut got = Vec::new();
        inbox.drain(&mut got);
        assert_eq!(got, [(1, Completion::Good), (2, Completion::Short(3)), (3, Completion::Good)]);
        inbox.push(4, Completion::Good);
        assert!(inbox.event.clear());
    }

    #[test]
    fn room_is_there_when_the_completion_is() {
        let inbox = Arc::new(Inbox::new().unwrap());
        let in_flight = InFlight::default();
        let ticket = Ticket::new(&inbox, 9, &in_flight);
        assert_eq!(in_flight.count(), 1);
        ticket.finish(Completion::Good);
        assert_eq!(in_flight.count(), 0);
    }
}
