//! Carrying out what the classifier decided about a completion.
//!
//! The decision itself is `mpath::classify`'s table; here it becomes a place
//! for the part: ended, ready for another path, waiting for a moment.

use std::time::Duration;

use super::cut::Progress;
use super::parts::{PartIndex, Place};
use super::{Dispatcher, Report};
use crate::io::{Blocks, Completion, Op, Outcome, Time};
use crate::mpath::classify::{self, Disposition, Next, PathVerdict};
use crate::mpath::snapshot::PathId;
use crate::scsi::sense::Key;
use crate::scsi::status::{HostByte, Status};

/// Most unit attentions after which a command whose time is up is repeated.
const ATTENTIONS: u8 = 5;

impl Dispatcher {
    pub(super) fn judge(
        &mut self,
        now: Time,
        index: PartIndex,
        path: PathId,
        epoch: u32,
        completion: &Completion,
    ) {
        let op = self.parts[index].op;
        let raw = matches!(op, Op::Cdb { .. });
        if raw {
            self.hear_data(now, index, path, epoch, completion);
        }
        if matches!(completion, Completion::Good) {
            self.weigh_block_layer(now, index, path);
            return self.part_good(index);
        }
        let completion = &match *completion {
            Completion::Short(done) if !raw => match self.continue_short(index, done) {
                Progress::Some => return,
                Progress::All => return self.part_good(index),
                // Less than a block is nothing (and `Short` with some bytes
                // would pass for good).
                Progress::None => Completion::Short(0),
            },
            other => other,
        };
        let verdict =
            if raw { classify::classify_raw(completion) } else { classify::classify(completion) };
        let verdict = self.weigh_conflict(index, path, epoch, verdict);
        if verdict.path != PathVerdict::Keep {
            self.report_path(now, path, epoch, verdict, op, completion);
        }
        if let Some(sense) = classify::deferred_error(completion) {
            self.report(Report::Deferred { path, sense: *sense });
        }
        if verdict.path == PathVerdict::Fail {
            self.parts[index].lost(classify::is_timeout(completion));
        }
        if verdict.path.puts_aside() {
            self.parts[index].not_the_lus_time(now);
        }
        if raw {
            return self.judge_raw(now, index, path, verdict, completion);
        }
        self.overhear(index, path, completion);
        if self.is_decided(self.parts[index].request) {
            return self.drop_part(index);
        }
        if self.fall_back_to_writing_zeroes(index, completion) {
            return;
        }
        if verdict.next == Next::OtherPassthrough {
            self.accuse_block_layer(index, path, completion);
        }
        self.carry_out(now, index, path, verdict, outcome_of(completion));
    }

    pub(super) fn carry_out(
        &mut self,
        now: Time,
        index: PartIndex,
        path: PathId,
        verdict: Disposition,
        outcome: Outcome,
    ) {
        let budget = self.settings.command_timeout;
        let part = &mut self.parts[index];
        let repeated = matches!(verdict.next, Next::Again { tries } if part.again < tries);
        if !verdict.path.puts_aside() && !repeated {
            // What a path says that is out of use now is nobody's answer; nor is
            // what is yet to be repeated there: the path may be lost before that.
            part.answer = Some((outcome, verdict.rule, path));
        }
        match verdict.next {
            Next::Done => self.part_good(index),
            Next::Deliver | Next::Own => self.end_part(index, outcome, verdict.rule, Some(path)),
            Next::Again { tries } if part.again < tries => {
                part.again += 1;
                // It was to say what the block layer had kept to itself.
                part.next_is_passthrough |= part.passthrough && part.accused.is_some();
                self.make_ready(index);
            }
            Next::Later { delay } if now.since(part.first_delay.unwrap_or(now)) < budget => {
                self.delay(now, index, delay);
            }
            // Repeating did not help: elsewhere. (Many paths may each have a
            // unit attention or two to tell of the same event.)
            Next::Again { .. } => {
                part.trouble |= outcome == Outcome::NoPath;
                part.again = 0;
                part.tried.insert(path);
                self.make_ready(index);
            }
            // It is told once, and is not the LU's answer to a request: that is
            // what comes next.
            Next::Later { .. } if is_attention(&outcome) && part.again < ATTENTIONS => {
                part.again += 1;
                self.make_ready(index);
            }
            Next::Later { .. } => self.end_part(index, outcome, verdict.rule, Some(path)),
            Next::Other
            | Next::OtherInRounds { .. }
            | Next::OtherThenLater { .. }
            | Next::OtherPassthrough => {
                match verdict.next {
                    Next::OtherThenLater { delay } => part.patience = Some(delay),
                    Next::OtherInRounds { rounds } => {
                        part.rounds.get_or_insert(rounds.saturating_sub(1));
                    }
                    _ => {}
                }
                // A path that failed may come back and be tried again; one
                // that merely answered has had its say.
                if !verdict.path.puts_aside() {
                    part.trouble |= outcome == Outcome::NoPath;
                    part.tried.insert(path);
                } else if part.passthrough && part.accused.is_some() {
                    // It was to say what the block layer had kept to itself.
                    part.next_is_passthrough = true;
                }
                if verdict.next == Next::OtherPassthrough && !part.passthrough {
                    part.passthrough = true;
                    part.next_is_passthrough = true;
                }
                self.make_ready(index);
            }
        }
    }

    /// Lets a part wait for a moment.
    pub(super) fn delay(&mut self, now: Time, index: PartIndex, delay: Duration) {
        if self.must_not_wait(self.parts[index].request) {
            return self.end_part(index, Outcome::Stopped, "ring-stopped", None);
        }
        let part = &mut self.parts[index];
        part.new_round();
        part.first_delay.get_or_insert(now);
        part.wake = now + delay;
        part.place = Place::Delayed;
        self.delayed.push(index);
    }

    pub(super) fn make_ready(&mut self, index: PartIndex) {
        if self.must_not_wait(self.parts[index].request) {
            return self.end_part(index, Outcome::Stopped, "ring-stopped", None);
        }
        self.parts[index].place = Place::Ready;
        // Older than anything that waits: goes first.
        self.ready.push_front(index);
    }

    /// Goes on after a transfer of `done` bytes.
    pub(super) fn continue_short(&mut self, index: PartIndex, done: usize) -> Progress {
        let block = u64::from(self.settings.block_size);
        let whole = Blocks(done as u64 / block);
        let request = self.parts[index].request;
        let Some(running) = self.running[request as usize].as_ref() else { return Progress::None };
        let progress = self.parts.advance(index, whole, block, &running.request.data);
        if progress == Progress::Some {
            self.make_ready(index);
        }
        progress
    }

    /// WRITE SAME refused (05/20, 05/24, EOPNOTSUPP): zeroes are written from
    /// now on, beginning with this part.
    pub(super) fn fall_back_to_writing_zeroes(
        &mut self,
        index: PartIndex,
        completion: &Completion,
    ) -> bool {
        if !matches!(self.parts[index].op, Op::WriteZeroes { .. }) || !is_refusal(completion) {
            return false;
        }
        self.write_same_refused = true;
        if let Op::WriteZeroes { extent, .. } = self.parts[index].op {
            self.zero_by_writing(index, extent);
        }
        true
    }
}

fn is_attention(outcome: &Outcome) -> bool {
    let Outcome::Lu { status: Status::CHECK_CONDITION, sense, .. } = outcome else { return false };
    sense.code().is_some_and(|code| code.key == Key::UnitAttention)
}

/// The outcome a completion stands for if it is delivered.
pub(super) fn outcome_of(completion: &Completion) -> Outcome {
    match completion {
        Completion::Good | Completion::Short(_) => Outcome::Host(libc::EIO),
        Completion::Scsi { status, sense, residual, .. } if *status != Status::GOOD => {
            Outcome::Lu { status: *status, sense: *sense, residual: *residual }
        }
        // Nobody complained, but not everything was transferred.
        Completion::Scsi { host: HostByte::OK, .. } => Outcome::Host(libc::EIO),
        Completion::Scsi { host, .. } => match host_errno(*host) {
            Some(errno) => Outcome::Host(errno),
            None => Outcome::NoPath,
        },
        Completion::Errno { code, .. } => Outcome::Host(*code),
    }
}

/// Errno of the host bytes with which the kernel passes on the LU's word
/// (`scsi_result_to_blk_status`); the others speak of the transport.
pub(super) fn host_errno(host: HostByte) -> Option<i32> {
    match host {
        HostByte::TARGET_FAILURE => Some(libc::EREMOTEIO),
        HostByte::NEXUS_FAILURE => Some(libc::EBADE),
        HostByte::ALLOC_FAILURE => Some(libc::ENOSPC),
        HostByte::MEDIUM_ERROR => Some(libc::ENODATA),
        _ => None,
    }
}

/// Whether the LU (or the kernel for it) said that it does not know the
/// command or a field of it.
fn is_refusal(completion: &Completion) -> bool {
    match completion {
        Completion::Scsi { sense, .. } => sense
            .code()
            .is_some_and(|c| c.key == Key::IllegalRequest && matches!(c.asc, 0x20 | 0x24)),
        Completion::Errno { code, .. } => *code == libc::EOPNOTSUPP,
        Completion::Good | Completion::Short(_) => false,
    }
}
