//! Stopping a ring: what waits ends, what is on a path is awaited.

use std::time::Duration;

use super::parts::PartIndex;
use super::{Dispatcher, Failure, Running};
use crate::io::{Op, Outcome, Time};
use crate::queue::Stop;
use crate::scsi::patience;

/// How a request fails whose ring stops before any path took it.
pub(super) const STOPPED: Failure = (Outcome::Stopped, "ring-stopped", None);

/// No command is given less time than this.
const SHORTEST: Duration = Duration::from_millis(100);

/// Which of the parts that are not on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Those for which no path is left.
    Held,
    /// Each of them, and what has not been cut into parts.
    All,
}

fn of_ring(ring: u16) -> impl Fn(&Running) -> bool {
    move |r| r.request.tag.ring == ring
}

/// A ring that is being stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping {
    how: Stop,
    /// By when the commands still issued must be back.
    until: Time,
    /// The deadline has passed.
    overdue: bool,
}

impl Stopping {
    /// Requests that have not ended stay marked in the in-flight area.
    pub(super) fn abandons(self) -> bool {
        matches!(self.how, Stop::Suspend | Stop::Discard)
    }

    /// Nothing may wait for a path any more.
    fn lets_nothing_wait(self) -> bool {
        self.abandons() || self.overdue
    }
}

impl Dispatcher {
    /// Begins to stop a ring: nothing of it is held any more. The ring may be
    /// given back when [`Dispatcher::outstanding`] is zero. What is still
    /// issued for it (a retry, the rest of a long request) shares one command
    /// timeout from `now`, so that a stop takes no longer than that, however
    /// many paths hang.
    pub fn stop_ring(&mut self, now: Time, ring: u16, how: Stop) {
        let until = now + self.settings.command_timeout;
        let stopping = Stopping { how, until, overdue: false };
        self.stops[usize::from(ring)] = Some(stopping);
        // With `Finish`, what can progress goes on; what is held ends.
        let what = if stopping.lets_nothing_wait() { Waiting::All } else { Waiting::Held };
        self.retire(of_ring(ring), STOPPED, what);
        if stopping.lets_nothing_wait() {
            self.end_orders(of_ring(ring), Some(STOPPED));
        } else if !self.paths.any_usable() {
            // Who knows for how long there is nothing to carry them out by.
            self.end_orders(of_ring(ring), None);
        }
    }

    /// The stop's deadline has passed: only what is on a path is still awaited.
    pub fn stop_deadline(&mut self, ring: u16) {
        if let Some(stopping) = self.stops[usize::from(ring)].as_mut() {
            stopping.overdue = true;
            self.retire(of_ring(ring), STOPPED, Waiting::All);
            self.end_orders(of_ring(ring), None);
        }
    }

    /// The ring is back with the session; it may start again later.
    pub fn ring_stopped(&mut self, ring: u16) {
        self.stops[usize::from(ring)] = None;
    }

    /// Whether the request's ring is being stopped.
    pub(super) fn is_stopping(&self, request: u32) -> bool {
        self.stop_of(request).is_some()
    }

    /// Whether nothing of the request may wait any more.
    pub(super) fn must_not_wait(&self, request: u32) -> bool {
        self.stop_of(request).is_some_and(Stopping::lets_nothing_wait)
    }

    /// How long the kernel may take over a command for this ring.
    pub(super) fn timeout_for(&self, ring: u16, now: Time) -> Duration {
        let full = self.settings.command_timeout;
        let stopping = self.stops.get(usize::from(ring)).copied().flatten();
        stopping.map_or(full, |s| s.until.since(now).clamp(SHORTEST.min(full), full))
    }

    /// The same for one command: what may rightly take longer than others is
    /// given its time, but not once the ring is being stopped.
    pub(super) fn patience_for(&self, ring: u16, op: &Op, now: Time) -> Duration {
        let timeout = self.timeout_for(ring, now);
        let stopping = self.stops.get(usize::from(ring)).is_some_and(Option::is_some);
        match op {
            Op::Cdb { cdb, .. } if !stopping => {
                timeout.max(patience::at_least(cdb, self.settings.block_size))
            }
            _ => timeout,
        }
    }

    fn stop_of(&self, request: u32) -> Option<Stopping> {
        let running = self.running[request as usize].as_ref()?;
        self.stops.get(usize::from(running.request.tag.ring)).copied().flatten()
    }

    /// Whether the guest will not see how the request ended.
    pub(super) fn is_discarded(&self, request: u32) -> bool {
        self.stop_of(request).is_some_and(|s| s.how == Stop::Discard)
    }

    /// Ends what waits of some requests with `failure`. One pass over each
    /// queue: there may be thousands.
    pub(super) fn retire(
        &mut self,
        which: impl Fn(&Running) -> bool,
        failure: Failure,
        what: Waiting,
    ) {
        let Dispatcher { parts, running, held, ready, delayed, backlog, .. } = self;
        let mut stays = |index: &PartIndex| {
            let Some(r) = running[parts[*index].request as usize].as_mut() else { return true };
            if !which(r) {
                return true;
            }
            r.failure.get_or_insert(failure);
            r.live -= 1;
            parts.free(*index);
            false
        };
        held.retain(&mut stays);
        if what == Waiting::All {
            ready.retain(&mut stays);
            delayed.retain(&mut stays);
            for r in running.iter_mut().flatten().filter(|r| which(r)) {
                if !r.cursor.is_complete() {
                    r.failure.get_or_insert(failure);
                    r.in_backlog = false;
                }
            }
            backlog.retain(|&q| running[q as usize].as_ref().is_some_and(|r| r.in_backlog));
        }
        for request in 0..self.running.len() {
            let over = |r: &Running| r.failure.is_some() && which(r);
            if self.running[request].as_ref().is_some_and(over) {
                self.end_if_over(u32::try_from(request).unwrap_or(u32::MAX));
            }
        }
    }
}
