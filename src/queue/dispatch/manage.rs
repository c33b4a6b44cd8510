//! Task management: ending the tasks of an LU, and saying when they are gone.
//!
//! What a function reaches is what is in the core when it comes. That is a
//! number, not a list ([`Ticket`]): a driver may send any number of functions
//! while commands hang, and each costs one pass over the requests and no
//! memory.

use super::stop::Waiting;
use super::{Dispatcher, Failure, Running, raw};
use crate::io::{Action, Management, Outcome, Time};

/// Rule of requests that end because their map goes.
pub(super) const MAP_GONE: &str = "map-gone";

/// Requests submitted before it are those a function reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// What became of a task management function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Managed {
    /// It reached a task.
    pub found: bool,
    /// For [`Dispatcher::is_over`].
    pub ticket: Ticket,
}

impl Dispatcher {
    /// Carries a task management function out on the requests that are in the
    /// core. With [`Action::End`], those that wait end at once; one that is on
    /// a path ends when the path returns it, whatever it returned.
    pub fn manage(&mut self, _now: Time, m: &Management) -> Managed {
        let reached = |r: &Running| m.reach.contains(&r.request);
        let found = self.running.iter().flatten().any(reached);
        match m.action {
            // Nothing is awaited.
            Action::Query => return Managed { found, ticket: Ticket(0) },
            Action::End { reset } if found => {
                let rule = if reset { "reset" } else { "aborted" };
                self.end_those(reached, (Outcome::Aborted { reset }, rule, None));
            }
            Action::End { .. } => {}
        }
        Managed { found, ticket: Ticket(self.next_serial) }
    }

    /// Whether every request that the function reached has left through
    /// [`Dispatcher::finished`].
    pub fn is_over(&self, m: &Management, ticket: Ticket) -> bool {
        let reached = |r: &Running| r.serial < ticket.0 && m.reach.contains(&r.request);
        // (What ended and was not fetched yet may have come later, which
        // delays the answer a little.)
        let unfetched = || self.finished.iter().any(|(request, _)| m.reach.contains(request));
        ticket == Ticket(0) || !(self.running.iter().flatten().any(reached) || unfetched())
    }

    /// Ends everything with `outcome`: the map goes. What waits ends at once,
    /// what is on a path when the path returns it.
    /// Of the latter, what must not be repeated may have been executed (law 3).
    pub fn end_all(&mut self, outcome: Outcome) {
        let failure = (outcome, MAP_GONE, None);
        self.retire(|_| true, failure, Waiting::All);
        self.end_orders(|_| true, None);
        for r in self.running.iter_mut().flatten() {
            let (outcome, rule, path) = failure;
            let outcome = if r.op.is_idempotent() { outcome } else { raw::ambiguous() };
            r.failure.get_or_insert((outcome, rule, path));
        }
    }

    fn end_those(&mut self, which: impl Fn(&Running) -> bool, failure: Failure) {
        for r in self.running.iter_mut().flatten().filter(|r| which(r)) {
            r.failure.get_or_insert(failure);
        }
        self.retire(which, failure, Waiting::All);
    }
}
