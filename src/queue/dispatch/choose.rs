//! Which path carries a part next, and what becomes of it where none does.

use std::time::Duration;

use super::parts::{PartIndex, Place};
use super::{Dispatcher, Issue};
use crate::io::{Command, Extent, Op, Outcome, Segment, Time, total_len};
use crate::mpath::selector::Load;
use crate::mpath::snapshot::{GroupView, PathId, PathView, Queueing};
use crate::passthrough_scsi::{Issued, Rejected};
use crate::scsi::sense::{Sense, SenseCode};
use crate::scsi::status::Status;

/// Pause before a command goes round again that found transport trouble on
/// every path.
const TRANSPORT_DELAY: Duration = Duration::from_millis(100);

/// What to do with a part that wants a path.
pub(super) enum Choice {
    /// Issue it there.
    Path(PathId, u32),
    /// Wait for room on the paths.
    Full,
    /// It has been dealt with.
    Gone,
}

impl Dispatcher {
    /// Decides where a part that wants a path goes; parks it if nowhere.
    pub(super) fn place(&mut self, now: Time, index: PartIndex) -> Choice {
        if self.is_decided(self.parts[index].request) {
            // A sibling failed.
            self.drop_part(index);
            return Choice::Gone;
        }
        if self.parts[index].limits_generation != self.limits_generation {
            self.cut_again(index);
        }
        let tried = self.parts[index].tried;
        let mut any_usable = false;
        for g in 0..self.table.groups.len() {
            let group = &self.table.groups[g];
            let usable = |p: &&PathView| self.paths.is_usable(p);
            any_usable |= group.paths.iter().any(|p| usable(&p));
            if !group.paths.iter().any(|p| usable(&p) && !tried.contains(p.id)) {
                continue;
            }
            let load = |p: &PathView| -> Option<Load> {
                let free =
                    self.paths.is_usable(p) && !tried.contains(p.id) && !self.paths.is_full(p.id);
                free.then(|| self.paths.load(p.id))
            };
            if let Some(view) = self.wants_same_path(index, group) {
                return Choice::Path(view.id, view.epoch);
            }
            return match self.selector.select(self.table.selector, &group.paths, load) {
                Some(i) => Choice::Path(group.paths[i].id, group.paths[i].epoch),
                None => Choice::Full,
            };
        }
        if any_usable { self.every_path_answered(now, index) } else { self.no_path_left(index) }
    }

    /// The path of the group that the part is to be repeated on, if that can
    /// take it.
    fn wants_same_path(&self, index: PartIndex, group: &GroupView) -> Option<PathView> {
        let same = self.parts[index].same_path?;
        let view = group.paths.iter().find(|p| p.id == same)?;
        (self.paths.is_usable(view) && !self.paths.is_full(same)).then_some(*view)
    }

    /// No usable path at all: hold or fail, as the table says; but wait while
    /// a verdict about a path is still to come.
    fn no_path_left(&mut self, index: PartIndex) -> Choice {
        let request = self.parts[index].request;
        if self.is_stopping(request) {
            self.end_part(index, Outcome::Stopped, "ring-stopped", None);
        } else if self.table.queueing == Queueing::Hold || self.paths.any_undecided() {
            self.parts[index].place = Place::Held;
            self.held.push_back(index);
        } else {
            let (outcome, rule) = match self.table.queueing {
                Queueing::Gone => (self.lun_gone(request), "lun-gone"),
                Queueing::Hold | Queueing::Fail => self.parts[index].no_path(),
            };
            self.end_part(index, outcome, rule, None);
        }
        Choice::Gone
    }

    /// What the array would say to a request for a LU that is gone.
    fn lun_gone(&self, request: u32) -> Outcome {
        let running = self.running[request as usize].as_ref();
        let asked = running.map_or(0, |r| total_len(&r.request.data));
        let residual = u32::try_from(asked).unwrap_or(u32::MAX);
        let sense = Sense::fixed(SenseCode::LUN_NOT_SUPPORTED);
        Outcome::Lu { status: Status::CHECK_CONDITION, sense, residual }
    }

    /// Every usable path has given its answer: they agree, it is the LU's.
    fn every_path_answered(&mut self, now: Time, index: PartIndex) -> Choice {
        let (budget, queueing) = (self.settings.command_timeout, self.table.queueing);
        let part = &mut self.parts[index];
        let in_time = now.since(part.first_delay.unwrap_or(now)) < budget;
        if part.next_is_passthrough || (part.tried.is_single() && !part.asked_twice) {
            // Once more on a path that has spoken already: for the sense, or
            // because there is nobody else to ask.
            part.asked_twice |= !part.next_is_passthrough;
            part.next_is_passthrough = false;
            part.tried.clear();
            self.ready.push_front(index);
            return Choice::Gone;
        }
        match (part.answer, part.patience) {
            // A path had transport trouble and did not fail for it: that is no
            // answer, and what the others said may be no more than their own
            // trouble. Hold it, as the queueing policy says.
            _ if part.trouble && (in_time || queueing == Queueing::Hold) => {
                self.delay(now, index, TRANSPORT_DELAY);
            }
            (Some((Outcome::Lu { .. }, ..)), Some(pause)) if in_time => {
                self.delay(now, index, pause);
            }
            (Some((outcome, rule, path)), _) => self.end_part(index, outcome, rule, Some(path)),
            (None, _) => self.end_part(index, Outcome::NoPath, "no-answer", None),
        }
        Choice::Gone
    }

    /// Issues a part; false if the path is full after all.
    pub(super) fn issue(
        &mut self,
        now: Time,
        index: PartIndex,
        id: PathId,
        epoch: u32,
        paths: &mut impl Issue,
    ) -> bool {
        let part = &self.parts[index];
        let Some(running) = self.running[part.request as usize].as_ref() else { return true };
        let timeout = self.patience_for(running.request.tag.ring, &part.op, now);
        let bytes = match part.op {
            Op::Read(e) | Op::Write { extent: e, .. } => {
                e.blocks.0.saturating_mul(u64::from(self.settings.block_size))
            }
            Op::Cdb { .. } => total_len(&running.request.data) as u64,
            Op::Flush | Op::Unmap | Op::WriteZeroes { .. } => 0,
        };
        let data: &[Segment] = if part.whole { &running.request.data } else { &part.data };
        let extents: &[Extent] = if part.whole { &running.request.extents } else { &part.extents };
        let command =
            Command { op: part.op, data, extents, passthrough: part.passthrough, timeout };
        let cookie = self.parts.cookie(index);
        let sent = self.attentions.as_ref().map_or(0, |a| a.now());
        match paths.issue(id, cookie, &command) {
            Err(Rejected) => {
                self.paths.set_full(id);
                false
            }
            Ok(issued) => {
                self.count_try(index);
                self.parts[index].bytes = bytes;
                self.parts[index].sent = sent;
                self.paths.put_on(&mut self.parts, index, id, epoch, now);
                if let Issued::Done(completion) = issued {
                    self.complete(now, cookie, &completion);
                }
                true
            }
        }
    }

    fn count_try(&mut self, index: PartIndex) {
        if let Some(running) = self.running[self.parts[index].request as usize].as_mut() {
            running.tries += 1;
        }
    }
}
