//! Parts for which no path is left: held or failed, as the table says, and
//! not held for longer than it says.

use super::Dispatcher;
use super::choose::Choice;
use super::parts::{PartIndex, Place};
use crate::io::{Outcome, Time, total_len};
use crate::mpath::snapshot::Queueing;
use crate::scsi::sense::{Sense, SenseCode};
use crate::scsi::status::Status;

/// Rule of requests that were held for as long as they may be.
const QUEUE_TIMEOUT: &str = "queue-timeout";

impl Dispatcher {
    /// No usable path at all: hold or fail, as the table says; but wait while
    /// a verdict about a path is still to come.
    pub(super) fn no_path_left(&mut self, now: Time, index: PartIndex) -> Choice {
        let request = self.parts[index].request;
        if self.is_stopping(request) {
            self.end_part(index, Outcome::Stopped, "ring-stopped", None);
        } else if self.table.queueing == Queueing::Hold || self.paths.any_undecided() {
            if self.may_be_held(now, index) {
                self.parts[index].place = Place::Held;
                self.hold(now, index);
            } else {
                self.held_too_long(index);
            }
        } else {
            let (outcome, rule) = match self.table.queueing {
                Queueing::Gone => (self.lun_gone(request), "lun-gone"),
                Queueing::Hold | Queueing::Fail => self.parts[index].no_path(),
            };
            self.end_part(index, outcome, rule, None);
        }
        Choice::Gone
    }

    pub(super) fn hold(&mut self, now: Time, index: PartIndex) {
        let since = self.parts[index].held_since.unwrap_or(now);
        self.held_since = Some(self.held_since.map_or(since, |first| first.min(since)));
        self.held.push_back(index);
    }

    /// Whether the part may go on waiting for want of a path. Its time runs
    /// from the first such moment, through whatever paths came and went since;
    /// but not from before it last moved any data.
    pub(super) fn may_be_held(&mut self, now: Time, index: PartIndex) -> bool {
        let since = *self.parts[index].held_since.get_or_insert(now);
        self.table.hold_for.is_none_or(|limit| now < since + limit)
    }

    /// Ends a part that may wait no longer.
    pub(super) fn held_too_long(&mut self, index: PartIndex) {
        let (outcome, _) = self.parts[index].no_path();
        self.end_part(index, outcome, QUEUE_TIMEOUT, None);
    }

    /// Ends what has been held for as long as it may.
    pub(super) fn end_held(&mut self, now: Time) {
        if self.next_end_of_held().is_none_or(|at| at > now) {
            return;
        }
        self.held_since = None;
        // Each of them once: those that stay keep their order.
        for _ in 0..self.held.len() {
            let Some(index) = self.held.pop_front() else { break };
            if self.is_decided(self.parts[index].request) {
                // A sibling was held for longer.
                self.drop_part(index);
            } else if self.parts[index].held_since.is_none() {
                // Suspended, and no path's lack.
                self.held.push_back(index);
            } else if self.may_be_held(now, index) {
                self.hold(now, index);
            } else {
                self.held_too_long(index);
            }
        }
    }

    /// When [`Dispatcher::end_held`] is to look again; early at times.
    pub(super) fn next_end_of_held(&self) -> Option<Time> {
        let limit = self.table.hold_for?;
        (!self.held.is_empty()).then_some(self.held_since? + limit)
    }

    /// What the array would say to a request for a LU that is gone.
    fn lun_gone(&self, request: u32) -> Outcome {
        let running = self.running[request as usize].as_ref();
        let asked = running.map_or(0, |r| total_len(&r.request.data));
        let residual = u32::try_from(asked).unwrap_or(u32::MAX);
        let sense = Sense::fixed(SenseCode::LUN_NOT_SUPPORTED);
        Outcome::Lu { status: Status::CHECK_CONDITION, sense, residual }
    }
}
