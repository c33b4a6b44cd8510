//! Path checkers as command generators.
//!
//! A checker decides what to send and what the answers mean; it performs no
//! I/O. The control thread's per-path checker threads run it against the
//! kernel, the simulation runs it in virtual time. Verdicts are those of
//! multipath-tools' `libmultipath/checkers/*.c`.

use super::probe::{Answer, Probe, Step};
use crate::io::{Completion, ErrnoFrom};
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::{Key, SenseCode};
use crate::scsi::status::{HostByte, Status};

/// Which checker (`path_checker`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckerKind {
    /// TEST UNIT READY.
    Tur,
    /// Direct read of one block, for what is no SCSI device.
    DirectIo,
    /// READ(10) of the first block, by SCSI passthrough.
    ReadSector0,
    /// VPD C9h of an RDAC array.
    Rdac,
    /// VPD C0h of a CLARiiON, and a read on the owning path.
    EmcClariion,
    /// Nothing is sent: the host's word only.
    None,
}

impl CheckerKind {
    /// multipath.conf's spelling.
    pub fn name(self) -> &'static str {
        match self {
            CheckerKind::Tur => "tur",
            CheckerKind::DirectIo => "directio",
            CheckerKind::ReadSector0 => "readsector0",
            CheckerKind::Rdac => "rdac",
            CheckerKind::EmcClariion => "emc_clariion",
            CheckerKind::None => "none",
        }
    }
}

/// The checker's finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answers.
    Up {
        /// A unit attention on the way says that the LU may be another one
        /// now: prove identity before any further use (law 2).
        doubt: bool,
    },
    /// Answers; a unit attention on the way says that the capacity has changed
    /// (06/2A/09): read it again, the path may be used meanwhile.
    Resized,
    /// Answers, but only after an activation (ALUA standby).
    Ghost,
    /// In transition; keep the old state and ask again in a second.
    Pending,
    /// Answers, but is not in normal operation (`emc_clariion`).
    Shaky,
    /// Does not answer, or answers that it cannot.
    Down,
    /// The target has no such LU.
    Disconnected,
    /// No answer within `checker_timeout`.
    TimedOut,
}

/// Tries on unit attentions and retryable host bytes (`tur.c`).
const TRIES: u8 = 5;

/// One check in progress.
#[derive(Clone, Copy, Debug)]
pub struct Checker {
    kind: CheckerKind,
    tries_left: u8,
    doubt: bool,
    resized: bool,
}

impl Checker {
    /// A check that has not begun.
    pub fn new(kind: CheckerKind) -> Checker {
        Checker { kind, tries_left: TRIES, doubt: false, resized: false }
    }

    /// What it was made for.
    pub fn kind(&self) -> CheckerKind {
        self.kind
    }

    /// The first move.
    pub fn begin(&mut self) -> Step<Verdict> {
        *self = Checker::new(self.kind);
        self.send()
    }

    fn send(&self) -> Step<Verdict> {
        Step::Issue(match self.kind {
            CheckerKind::Tur => Probe::bare(Cdb::test_unit_ready()),
            // The others are being built.
            _ => Probe::ReadFirstBlock,
        })
    }

    /// The next move after a probe came back.
    pub fn on_answer(&mut self, answer: &Answer) -> Step<Verdict> {
        let Answer::Completed { completion, .. } = answer else {
            return Step::Done(Verdict::Down); // not asked for
        };
        match self.kind {
            CheckerKind::Tur => self.tur(completion),
            _ => match completion {
                Completion::Good => Step::Done(Verdict::Up { doubt: false }),
                _ => Step::Done(Verdict::Down),
            },
        }
    }

    fn tur(&mut self, completion: &Completion) -> Step<Verdict> {
        let (status, host, sense) = match completion {
            Completion::Good => return self.up(),
            Completion::Scsi { status, host, sense, .. } => (*status, *host, sense),
            Completion::Errno { from: ErrnoFrom::Ioctl, .. }
            | Completion::Errno { .. }
            | Completion::Short(_) => return Step::Done(Verdict::Down),
        };
        if host != HostByte::OK {
            return match host {
                HostByte::NO_CONNECT
                | HostByte::BAD_TARGET
                | HostByte::ABORT
                | HostByte::TRANSPORT_FAILFAST => Step::Done(Verdict::Down),
                HostByte::TIME_OUT => Step::Done(Verdict::TimedOut),
                _ => self.again(),
            };
        }
        match status {
            Status::GOOD | Status::RESERVATION_CONFLICT => self.up(),
            Status::CHECK_CONDITION => self.tur_sense(sense.code()),
            _ => Step::Done(Verdict::Down),
        }
    }

    fn tur_sense(&mut self, code: Option<SenseCode>) -> Step<Verdict> {
        let Some(code) = code else { return Step::Done(Verdict::Down) };
        match (code.key, code.asc, code.ascq) {
            // In transition, told as a unit attention (Linux 6.10 knows it).
            (Key::UnitAttention, 0x04, 0x0a) => Step::Done(Verdict::Pending),
            (Key::UnitAttention, ..) => {
                self.doubt |= code.questions_identity();
                self.resized |= code == SenseCode::CAPACITY_CHANGED;
                self.again()
            }
            (Key::NoSense | Key::RecoveredError, ..) => self.up(),
            (Key::NotReady, 0x04, 0x0b) => Step::Done(Verdict::Ghost),
            (Key::NotReady, 0x04, 0x0a) => Step::Done(Verdict::Pending),
            (Key::IllegalRequest, 0x25, 0x00) => Step::Done(Verdict::Disconnected),
            _ => Step::Done(Verdict::Down),
        }
    }

    fn up(&self) -> Step<Verdict> {
        Step::Done(match self.resized && !self.doubt {
            true => Verdict::Resized,
            // A proof of identity reads the capacity, too.
            false => Verdict::Up { doubt: self.doubt },
        })
    }

    fn again(&mut self) -> Step<Verdict> {
        self.tries_left -= 1;
        if self.tries_left == 0 { Step::Done(Verdict::Down) } else { self.send() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scsi::sense::Sense;

    fn check(key: u8, asc: u8, ascq: u8) -> Completion {
        Completion::Scsi {
            status: Status::CHECK_CONDITION,
            host: HostByte::OK,
            sense: Sense::fixed(SenseCode::new(Key::from_bits(key), asc, ascq)),
            residual: 0,
        }
    }

    fn host(host: HostByte) -> Completion {
        Completion::Scsi { status: Status::GOOD, host, sense: Sense::EMPTY, residual: 0 }
    }

    fn verdict(answers: &[Completion]) -> Verdict {
        let mut c = Checker::new(CheckerKind::Tur);
        assert_eq!(c.begin(), Step::Issue(Probe::bare(Cdb::test_unit_ready())));
        for a in answers {
            let took = Duration::ZERO;
            let answer = Answer::Completed { completion: *a, data: Vec::new(), took };
            if let Step::Done(v) = c.on_answer(&answer) {
                return v;
            }
        }
        panic!("undecided after {} answers", answers.len());
    }

    #[test]
    fn tur_verdicts_are_those_of_multipath_tools() {
        let conflict = Completion::Scsi {
            status: Status::RESERVATION_CONFLICT,
            host: HostByte::OK,
            sense: Sense::EMPTY,
            residual: 0,
        };
        let table = [
            (Completion::Good, Verdict::Up { doubt: false }),
            (conflict, Verdict::Up { doubt: false }),
            (check(2, 0x04, 0x0b), Verdict::Ghost),
            (check(2, 0x04, 0x0a), Verdict::Pending),
            (check(6, 0x04, 0x0a), Verdict::Pending),
            (check(5, 0x25, 0x00), Verdict::Disconnected),
            (check(2, 0x3a, 0x00), Verdict::Down),
            (check(3, 0x11, 0x00), Verdict::Down),
            (host(HostByte::NO_CONNECT), Verdict::Down),
            (host(HostByte::TRANSPORT_FAILFAST), Verdict::Down),
            (host(HostByte::TIME_OUT), Verdict::TimedOut),
            (Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENODEV }, Verdict::Down),
        ];
        for (answer, expected) in table {
            assert_eq!(verdict(&[answer]), expected, "{answer:?}");
        }
    }

    #[test]
    fn tur_rides_over_unit_attentions_and_remembers_what_they_said() {
        let resized = check(6, 0x2a, 0x09);
        let reset = check(6, 0x29, 0x00);
        assert_eq!(verdict(&[resized, Completion::Good]), Verdict::Resized);
        assert_eq!(verdict(&[resized, reset, Completion::Good]), Verdict::Up { doubt: true });
        assert_eq!(verdict(&[reset; 5]), Verdict::Down);
    }

    #[test]
    fn tur_retries_a_disrupted_transport_before_it_says_down() {
        let disrupted = host(HostByte::TRANSPORT_DISRUPTED);
        assert_eq!(verdict(&[disrupted, Completion::Good]), Verdict::Up { doubt: false });
        assert_eq!(verdict(&[disrupted; 5]), Verdict::Down);
    }
}
