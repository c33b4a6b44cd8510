//! What time brings: delayed parts that are due, commands that hang, and the
//! reports about paths to the control thread.

use super::parts::Place;
use super::paths::Mark;
use super::{Dispatcher, Report};
use crate::io::{Completion, Op, Time};
use crate::mpath::classify::{Disposition, PathVerdict};
use crate::mpath::event::{IoReason, IoReport};
use crate::mpath::snapshot::PathId;

impl Dispatcher {
    pub(super) fn wake_delayed(&mut self, now: Time) {
        let mut i = 0;
        while i < self.delayed.len() {
            let index = self.delayed[i];
            if self.parts[index].wake <= now {
                self.delayed.swap_remove(i);
                self.parts[index].place = Place::Ready;
                self.ready.push_back(index);
            } else {
                i += 1;
            }
        }
    }

    /// Marks paths with a command that has been out too long. The command
    /// stays where it is (law 1); nothing new joins it.
    pub(super) fn find_hung(&mut self, now: Time) {
        let after = self.settings.suspect_after;
        while let Some(index) = self.paths.next_hung(&self.parts, now, after) {
            let part = &self.parts[index];
            let (id, epoch) = (part.path, part.epoch);
            let reason = IoReason::Hung { op: part.op, out: now.since(part.issued) };
            let report = IoReport { path: id, epoch, reason };
            if self.paths.mark(now, report, Mark::Undecided) {
                self.report(Report::Path(report));
            }
        }
    }

    pub(super) fn report_path(
        &mut self,
        now: Time,
        path: PathId,
        epoch: u32,
        verdict: Disposition,
        op: Op,
        completion: &Completion,
    ) {
        let reason = IoReason::Judged {
            rule: verdict.rule,
            verdict: verdict.path,
            op,
            completion: *completion,
        };
        let report = IoReport { path, epoch, reason };
        let news = match verdict.path {
            PathVerdict::Fail => self.paths.mark(now, report, Mark::Failed),
            PathVerdict::Doubt => {
                // The array says it once: it counts whatever is known or
                // decided about the path already.
                self.paths.doubt(now, report);
                true
            }
            // Until the engine has read the access state, or who is registered.
            PathVerdict::Passive | PathVerdict::Conflict => {
                self.paths.mark(now, report, Mark::Undecided)
            }
            PathVerdict::Check | PathVerdict::Refresh | PathVerdict::Marginal => true,
            PathVerdict::Keep => false,
        };
        if news {
            self.report(Report::Path(report));
        }
    }

    /// The control thread has not answered a report that a path is out of use
    /// here: it may have been lost, and nothing else would bring it back.
    pub(super) fn repeat_reports(&mut self, now: Time) {
        while let Some(report) = self.paths.next_unanswered(now) {
            self.report(Report::Path(report));
        }
    }
}
