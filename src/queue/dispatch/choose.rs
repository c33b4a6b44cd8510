//! Which path carries a part next, and what becomes of it where none does.

use std::time::Duration;

use super::parts::PartIndex;
use super::{Dispatcher, Issue};
use crate::io::{Command, Direction, Extent, Op, Outcome, Segment, Time, total_len};
use crate::mpath::selector::Want;
use crate::mpath::snapshot::{PathId, Queueing};
use crate::passthrough_scsi::{Issued, Rejected};

/// Pause before a command goes round again that found transport trouble on
/// every path.
const TRANSPORT_DELAY: Duration = Duration::from_millis(100);

/// How long a command goes round that every path ends with an error of the
/// host's: a device that is being deleted ends commands so until it has gone,
/// and paths that go at the same moment must not look like the command's own
/// mistake.
const DYING: Duration = Duration::from_secs(1);

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
        if self.table.suspended {
            return self.suspend(index);
        }
        if self.parts[index].limits_generation != self.limits_generation {
            self.cut_again(index);
        }
        let part = &mut self.parts[index];
        part.want = match part.op {
            Op::Read(e) => Want { bytes: self.settings.bytes(e), write: false },
            Op::Write { extent, .. } => Want { bytes: self.settings.bytes(extent), write: true },
            Op::Cdb { direction, .. } => {
                let running = self.running[part.request as usize].as_ref();
                let bytes = running.map_or(0, |r| total_len(&r.request.data)) as u64;
                Want { bytes, write: direction == Direction::Out }
            }
            Op::Flush | Op::Unmap | Op::WriteZeroes { .. } => Want::default(),
        };
        let (tried, same, want) = (part.tried, part.same_path, part.want);
        let mut any_usable = false;
        for group in 0..self.paths.groups() {
            let usable = self.paths.usable(group);
            any_usable |= !usable.is_empty();
            if usable.without(tried).is_empty() {
                continue;
            }
            let free = usable.without(self.paths.full());
            // To be repeated on this path, if that can take it.
            let again = same.filter(|path| free.contains(*path));
            if let Some(listed) = again.and_then(|path| self.paths.listed(path.slot)) {
                if Some(listed.0) == same {
                    return Choice::Path(listed.0, listed.1);
                }
            }
            let slot = self.selector.select(now, free.without(tried), want);
            return match slot.and_then(|slot| self.paths.listed(slot)) {
                Some((id, epoch)) => Choice::Path(id, epoch),
                None => Choice::Full,
            };
        }
        if any_usable {
            self.every_path_answered(now, index)
        } else {
            self.no_path_left(now, index)
        }
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
            _ if part.trouble && in_time => self.delay(now, index, TRANSPORT_DELAY),
            _ if part.trouble && queueing == Queueing::Hold => {
                if self.may_be_held(now, index) {
                    self.delay(now, index, TRANSPORT_DELAY);
                } else {
                    self.held_too_long(index);
                }
            }
            (Some((Outcome::Lu { .. }, ..)), Some(pause)) if in_time => {
                self.delay(now, index, pause);
            }
            (Some((Outcome::Host(_), ..)), Some(pause))
                if now.since(part.first_delay.unwrap_or(now)) < DYING =>
            {
                self.delay(now, index, pause);
            }
            (Some(_), _) if part.rounds.is_some_and(|left| left > 0) => {
                part.rounds = part.rounds.map(|left| left - 1);
                part.new_round();
                self.ready.push_front(index);
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
        let data: &[Segment] = if part.whole { &running.request.data } else { &part.data };
        let extents: &[Extent] = if part.whole { &running.request.extents } else { &part.extents };
        let passthrough = self.goes_by_passthrough(now, index, id);
        let command = Command { op: part.op, data, extents, passthrough, timeout };
        let cookie = self.parts.cookie(index);
        let sent = self.attentions.as_ref().map_or(0, |a| a.now());
        match paths.issue(id, cookie, &command) {
            Err(Rejected) => {
                self.paths.set_full(id);
                false
            }
            Ok(issued) => {
                self.count_try(index);
                self.parts[index].sent = sent;
                self.parts[index].table = self.table.generation;
                self.parts[index].went_by_passthrough = passthrough;
                self.paths.put_on(&mut self.parts, index, id, epoch, now);
                self.selector.started(now, id.slot, self.parts[index].want);
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
