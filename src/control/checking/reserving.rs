//! Commands about reservations by one path, and what the guest is to hear of
//! them.
//!
//! A guest that changes a reservation hears nothing of it from the nexus it
//! came by; the others are told, and all of them are the guest's own here. So
//! what a command of ours will have them tell is expected before it is sent.
//! Afterwards the other paths are asked for what they have to tell
//! ([`Job::Drain`](super::Job)): later the same would be somebody else's doing.

use std::time::Duration;

use crate::control::mailbox::Mail;
use crate::control::probing::{Ask as _, carry_out};
use crate::io::{Completion, ErrnoFrom};
use crate::mpath::errand::Errand;
use crate::mpath::probe::{self, Probe, Step};
use crate::mpath::reservation::{Answer, Ask};
use crate::passthrough_scsi::unit_attention;
use crate::scsi::attention::Expected;
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::{Key, SenseCode};
use crate::scsi::status::Status;

use super::Thread;

/// Unit attentions in a row that a path is asked for; the next check asks again.
const ATTENTIONS: usize = 32;

impl Thread {
    pub(super) fn reserve(&self, job: u32, ask: Ask) -> Mail {
        let told = match &ask {
            Ask::In(_) => &[],
            Ask::Out(out) => out.told_to_others(),
        };
        let (sent, answer) = self.run_errand(Errand::new(ask), told);
        Mail::Reserved { path: self.path, job, answer, sent, told: !told.is_empty() }
    }

    /// With when it was sent last, by the clock of the guest's unit attentions.
    fn run_errand(&self, mut errand: Errand, told: &[SenseCode]) -> (u64, Answer) {
        let mut step = errand.begin();
        let mut sent = 0;
        loop {
            let probe = match step {
                Step::Done(answer) => return (sent, answer),
                Step::Issue(probe) => probe,
            };
            sent = self.attentions.as_ref().map_or(0, |attentions| attentions.moment());
            let expected = self.expect(told);
            // A reservation's command is not cut short like a check's: whether
            // it was executed would not be known.
            let patience = self.timeout.max(self.command_timeout);
            let answer = match self.handle.is_in_doubt() {
                // By a command that the engine has not heard of.
                true => stale(),
                false => carry_out(&self.handle, &probe, patience),
            };
            if let probe::Answer::Completed { completion, .. } = &answer {
                if let Some(sense) = unit_attention(completion) {
                    self.hear(sense);
                }
                self.over(expected, was_refused(completion));
            }
            step = errand.on_answer(&answer);
        }
    }

    fn expect(&self, told: &[SenseCode]) -> Vec<Expected> {
        let Some(attentions) = &self.attentions else { return Vec::new() };
        told.iter().map(|code| attentions.expect_of_others(self.path.key(), *code)).collect()
    }

    fn over(&self, expected: Vec<Expected>, refused: bool) {
        let Some(attentions) = &self.attentions else { return };
        for expected in expected {
            if refused {
                attentions.has_not_happened(expected);
            } else {
                attentions.has_happened(expected);
            }
        }
    }

    /// Has the path tell what it has to tell.
    pub(super) fn drain(&self) {
        for _ in 0..ATTENTIONS {
            match self.ask(&Probe::bare(Cdb::test_unit_ready())) {
                probe::Answer::Completed { completion, .. }
                    if unit_attention(&completion).is_some() => {}
                _ => break,
            }
        }
    }
}

/// As the queue threads' commands end there: it may lead to another LU, of which
/// nothing is to be changed, and whose word is of no worth.
fn stale() -> probe::Answer {
    let completion = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ESTALE };
    probe::Answer::Completed { completion, data: Vec::new(), took: Duration::ZERO }
}

/// Whether it has not been done, beyond doubt: so the LU has said, or it was
/// never sent ([`stale`]).
fn was_refused(completion: &Completion) -> bool {
    if let Completion::Errno { code: libc::ESTALE, .. } = completion {
        return true;
    }
    let Completion::Scsi { status, sense, .. } = completion else { return false };
    match *status {
        Status::RESERVATION_CONFLICT | Status::BUSY | Status::TASK_SET_FULL => true,
        Status::CHECK_CONDITION => {
            let key = sense.code().map(|code| code.key);
            matches!(key, Some(Key::UnitAttention | Key::IllegalRequest))
        }
        _ => false,
    }
}
