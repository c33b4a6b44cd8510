//! Commands that the guest composed itself: the LU's word reaches the guest
//! byte for byte (law 4), what is not idempotent is never repeated blindly
//! (law 3), and a unit attention is heard once (`scsi::attention`).

use super::Dispatcher;
use super::judge::{host_errno, outcome_of};
use super::parts::PartIndex;
use crate::io::{Completion, Op, Outcome, Time, total_len};
use crate::mpath::classify::{self, Disposition, Executed, Next, PathVerdict};
use crate::mpath::snapshot::PathId;
use crate::scsi::attention::Hearing;
use crate::scsi::sense::{Sense, SenseCode, make_no_sense};
use crate::scsi::status::{HostByte, Status};

/// Most unit attentions that one path tells a command in a row, of which the
/// guest knows; one after another is normal after an outage.
const MOST_ATTENTIONS: u8 = 32;

/// Operation code.
const REQUEST_SENSE: u8 = 0x03;

impl Dispatcher {
    /// Carries out what a raw command's completion means; the path's part of
    /// it has been dealt with.
    pub(super) fn judge_raw(
        &mut self,
        now: Time,
        index: PartIndex,
        path: PathId,
        verdict: Disposition,
        completion: &Completion,
    ) {
        let heard = self.hear(index, path, completion);
        if self.is_decided(self.parts[index].request) {
            return self.drop_part(index);
        }
        let outcome = self.word(index, completion);
        match heard {
            Some(Hearing::News) => {
                return self.end_part(index, outcome, verdict.rule, Some(path));
            }
            Some(Hearing::Known) => return self.known(now, index, path, verdict, outcome),
            None => {}
        }
        let op = self.parts[index].op;
        if !op.is_idempotent() && verdict.executed == Executed::Maybe && verdict.is_retried() {
            // Law 3: it may have been executed. What the LU says of that, the
            // guest hears; else it must find out.
            let (outcome, rule) = if classify::is_word_of_lu(completion) {
                (outcome, verdict.rule)
            } else {
                (ambiguous(), "ambiguous")
            };
            return self.end_part(index, outcome, rule, Some(path));
        }
        self.carry_out(now, index, path, verdict, outcome);
    }

    /// A unit attention that the LU tells as the data of a REQUEST SENSE, after
    /// which it has forgotten it: it says the same of the path as it does as an
    /// answer (law 2), and the guest hears it by the same rules. What the guest
    /// need not hear becomes NO SENSE. (The data is where a front wants to see
    /// it first; a REQUEST SENSE's always is.)
    pub(super) fn hear_data(
        &mut self,
        now: Time,
        index: PartIndex,
        path: PathId,
        epoch: u32,
        completion: &Completion,
    ) {
        let op = self.parts[index].op;
        let request = self.parts[index].request as usize;
        if !matches!(op, Op::Cdb { cdb, .. } if cdb.opcode() == REQUEST_SENSE) {
            return;
        }
        let Some(data) = self.running[request].as_ref().map(|r| &r.request.front.buffer) else {
            return;
        };
        let told = Completion::Scsi {
            status: Status::CHECK_CONDITION,
            host: HostByte::OK,
            sense: Sense::from_bytes(&data[..moved(completion, data.len())]),
            residual: 0,
        };
        if classify::unit_attention(&told).is_none() {
            return;
        }
        let verdict = classify::classify_raw(&told);
        if verdict.path != PathVerdict::Keep {
            self.report_path(now, path, epoch, verdict, op, &told);
        }
        if self.hear(index, path, &told) == Some(Hearing::Known) {
            if let Some(running) = self.running[request].as_mut() {
                make_no_sense(&mut running.request.front.buffer);
            }
        }
    }

    /// Tells the LU's unit attentions of one that this completion brought.
    fn hear(&self, index: PartIndex, path: PathId, completion: &Completion) -> Option<Hearing> {
        let attentions = self.attentions.as_ref()?;
        let sense = classify::unit_attention(completion)?;
        let (request, sent) = (self.parts[index].request, self.parts[index].sent);
        if self.is_decided(request) || self.is_discarded(request) {
            // The guest will not see this command's end: its next one tells.
            attentions.overheard_since(path.key(), sent, sense);
            return None;
        }
        Some(attentions.met(path.key(), sent, sense))
    }

    /// A block operation met a unit attention: it cannot carry it.
    pub(super) fn overhear(&self, index: PartIndex, path: PathId, completion: &Completion) {
        if let Some(attentions) = &self.attentions {
            if let Some(sense) = classify::unit_attention(completion) {
                attentions.overheard_since(path.key(), self.parts[index].sent, sense);
            }
        }
    }

    /// The guest knows of the unit attention: the command goes on, on the same
    /// path where nothing speaks against it.
    fn known(
        &mut self,
        now: Time,
        index: PartIndex,
        path: PathId,
        verdict: Disposition,
        outcome: Outcome,
    ) {
        let part = &mut self.parts[index];
        part.attentions = part.attentions.saturating_add(1);
        if part.attentions == u8::MAX {
            // On every path, without an end.
            return self.end_part(index, outcome, verdict.rule, Some(path));
        }
        match verdict.next {
            Next::Again { .. } if part.again < MOST_ATTENTIONS => {
                part.again += 1;
                part.same_path = Some(path);
                self.make_ready(index);
            }
            Next::Again { .. } => {
                part.answer = Some((outcome, verdict.rule, path));
                part.again = 0;
                part.tried.insert(path);
                self.make_ready(index);
            }
            _ => self.carry_out(now, index, path, verdict, outcome),
        }
    }

    /// The outcome that a completion is, exactly.
    fn word(&self, index: PartIndex, completion: &Completion) -> Outcome {
        let good = |sense: Sense, residual: u32| match residual {
            0 if sense.is_empty() => Outcome::Good,
            _ => Outcome::Lu { status: Status::GOOD, sense, residual },
        };
        match *completion {
            Completion::Good => Outcome::Good,
            Completion::Short(done) => {
                let request = self.running[self.parts[index].request as usize].as_ref();
                let asked = request.map_or(0, |r| total_len(&r.request.data));
                let residual = u32::try_from(asked.saturating_sub(done)).unwrap_or(u32::MAX);
                good(Sense::EMPTY, residual)
            }
            Completion::Scsi { status: Status::GOOD, host: HostByte::OK, sense, residual } => {
                good(sense, residual)
            }
            // No path's trouble, if every path says so.
            Completion::Scsi { host: HostByte::ERROR, .. } => Outcome::Host(libc::EIO),
            // The kernel saw the sense and kept it to itself.
            Completion::Scsi { host, ref sense, .. } if sense.code().is_none() => {
                host_errno(host).map_or_else(|| outcome_of(completion), Outcome::Host)
            }
            _ => outcome_of(completion),
        }
    }
}

/// How many bytes of data came with a command that went well.
fn moved(completion: &Completion, asked: usize) -> usize {
    match *completion {
        Completion::Good => asked,
        Completion::Short(done) => done.min(asked),
        Completion::Scsi { status: Status::GOOD, host: HostByte::OK, residual, .. } => {
            asked.saturating_sub(usize::try_from(residual).unwrap_or(usize::MAX))
        }
        _ => 0,
    }
}

/// CHECK CONDITION 0B/00/06: I/O process terminated.
pub(super) fn ambiguous() -> Outcome {
    let sense = Sense::fixed(SenseCode::IO_PROCESS_TERMINATED);
    Outcome::Lu { status: Status::CHECK_CONDITION, sense, residual: 0 }
}
