//! Path checkers as command generators.
//!
//! A checker decides what to send and what the answers mean; it performs no
//! I/O. The control thread's per-path checker threads run it against the
//! kernel, the simulation runs it in virtual time. Verdicts are those of
//! multipath-tools' `libmultipath/checkers/*.c`; where they differ, the
//! checker's module says why.
//!
//! Before anything is sent the host is asked for the device's state, as
//! multipath-tools' `path_sysfs_state` does: what is offline is down, and what
//! is blocked would hold the check as long as it is.

use super::probe::outcome::{Outcome, Tries, outcome};
use super::probe::{Answer, DeviceState, Fact, Probe, Step};
use crate::io::Completion;
use crate::scsi::sense::{Key, SenseCode};
use crate::scsi::status::HostByte;

mod emc_clariion;
mod rdac;
mod read;
mod tur;

#[cfg(test)]
mod tests;

/// Which checker (`path_checker`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckerKind {
    /// TEST UNIT READY.
    Tur,
    /// Direct read of one block, for what is no SCSI device.
    DirectIo,
    /// READ of the first block, by SCSI passthrough.
    ReadSector0,
    /// VPD C9h of an RDAC array.
    Rdac,
    /// VPD C0h of a CLARiiON, and a read on the owning path.
    EmcClariion,
    /// Nothing is sent: the host's word only.
    None,
}

impl CheckerKind {
    /// Every checker.
    pub const ALL: &[CheckerKind] = &[
        CheckerKind::Tur,
        CheckerKind::DirectIo,
        CheckerKind::ReadSector0,
        CheckerKind::Rdac,
        CheckerKind::EmcClariion,
        CheckerKind::None,
    ];

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

    /// Whether what it sends are SCSI commands of its own, which no other path
    /// carries out.
    pub fn needs_scsi(self) -> bool {
        match self {
            CheckerKind::Tur | CheckerKind::Rdac | CheckerKind::EmcClariion => true,
            CheckerKind::DirectIo | CheckerKind::ReadSector0 | CheckerKind::None => false,
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
    Ghost {
        /// As above: a unit attention is told once.
        doubt: bool,
    },
    /// In transition; keep the old state and ask again in a second.
    Pending {
        /// As above.
        doubt: bool,
    },
    /// Answers, but is not in normal operation (`emc_clariion`).
    Shaky,
    /// Does not answer, or answers that it cannot.
    Down,
    /// The target has no such LU.
    Disconnected,
    /// No answer within `checker_timeout`.
    TimedOut,
}

impl Verdict {
    /// Whether the path's identity is to be proven before any further use.
    pub fn doubts(self) -> bool {
        use Verdict::{Ghost, Pending, Up};
        matches!(self, Up { doubt: true } | Ghost { doubt: true } | Pending { doubt: true })
    }
}

/// One path's checker; kept from one check to the next, since some learn.
#[derive(Clone, Copy, Debug)]
pub struct Checker {
    kind: CheckerKind,
    asked: Asked,
    tally: Tally,
    rdac: rdac::Rdac,
    emc: emc_clariion::EmcClariion,
}

/// What the next answer is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Nothing is under way.
    Nothing,
    DeviceState,
    /// What the checker is about.
    Probe,
}

impl Checker {
    /// A checker that has not checked yet.
    pub fn new(kind: CheckerKind) -> Checker {
        Checker {
            kind,
            asked: Asked::Nothing,
            tally: Tally::new(kind),
            rdac: rdac::Rdac::default(),
            emc: emc_clariion::EmcClariion::default(),
        }
    }

    /// What it was made for.
    pub fn kind(&self) -> CheckerKind {
        self.kind
    }

    /// The first move of a check.
    pub fn begin(&mut self) -> Step<Verdict> {
        self.tally = Tally::new(self.kind);
        self.asked = Asked::DeviceState;
        Step::Issue(Probe::Fact(Fact::DeviceState))
    }

    /// The next move after a probe came back.
    pub fn on_answer(&mut self, answer: &Answer) -> Step<Verdict> {
        let step = match (self.asked, answer) {
            (Asked::DeviceState, Answer::DeviceState(state)) => match state {
                Some(DeviceState::Offline) => Step::Done(Verdict::Down),
                Some(DeviceState::Blocked) => Step::Done(Verdict::Pending { doubt: false }),
                Some(DeviceState::Running) | None => self.first(),
            },
            (Asked::Probe, Answer::Completed { completion, data, .. }) => {
                self.next(completion, data)
            }
            _ => Step::Done(Verdict::Down), // not what was asked for
        };
        self.asked = match step {
            Step::Issue(_) => Asked::Probe,
            Step::Done(_) => Asked::Nothing,
        };
        step
    }

    fn first(&mut self) -> Step<Verdict> {
        match self.kind {
            CheckerKind::Tur => tur::first(),
            CheckerKind::DirectIo | CheckerKind::ReadSector0 => read::first(),
            CheckerKind::Rdac => self.rdac.first(),
            CheckerKind::EmcClariion => self.emc.first(),
            CheckerKind::None => Step::Done(self.tally.up()),
        }
    }

    fn next(&mut self, completion: &Completion, data: &[u8]) -> Step<Verdict> {
        let outcome = outcome(completion);
        match self.kind {
            CheckerKind::Tur => tur::next(&mut self.tally, outcome),
            CheckerKind::DirectIo | CheckerKind::ReadSector0 => {
                read::next(&mut self.tally, outcome)
            }
            CheckerKind::Rdac => self.rdac.next(&mut self.tally, outcome, data),
            CheckerKind::EmcClariion => self.emc.next(&mut self.tally, outcome, data),
            CheckerKind::None => Step::Done(Verdict::Down),
        }
    }
}

/// What one check has met so far.
#[derive(Clone, Copy, Debug)]
struct Tally {
    tries: Tries,
    /// A unit attention questions the path's identity.
    doubt: bool,
    /// One tells of another capacity.
    resized: bool,
}

/// What all checkers make of an outcome in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Carried out; with data-in, perhaps less than asked for.
    Good,
    /// Send it again.
    Again,
    /// The LU is there, but did not carry it out: BUSY, TASK SET FULL, ACA
    /// ACTIVE, RESERVATION CONFLICT.
    There,
    /// The LU's reason.
    Sense(SenseCode),
    /// There is nothing more to find out.
    Final(Verdict),
}

impl Tally {
    fn new(kind: CheckerKind) -> Tally {
        let tries = match kind {
            CheckerKind::ReadSector0 => Tries::THREE,
            _ => Tries::FIVE,
        };
        Tally { tries, doubt: false, resized: false }
    }

    fn up(&self) -> Verdict {
        match self.resized && !self.doubt {
            true => Verdict::Resized,
            // A proof of identity reads the capacity, too.
            false => Verdict::Up { doubt: self.doubt },
        }
    }

    fn ghost(&self) -> Verdict {
        Verdict::Ghost { doubt: self.doubt }
    }

    fn pending(&self) -> Verdict {
        Verdict::Pending { doubt: self.doubt }
    }

    fn hear(&mut self, outcome: Outcome) -> Heard {
        match outcome {
            Outcome::Good | Outcome::Short => Heard::Good,
            Outcome::Again(code) => {
                self.doubt |= code.is_some_and(SenseCode::questions_identity);
                self.resized |= code == Some(SenseCode::CAPACITY_CHANGED);
                self.again()
            }
            Outcome::Busy | Outcome::Reserved => Heard::There,
            Outcome::Sense(SenseCode::NOT_READY_TRANSITIONING) => Heard::Final(self.pending()),
            Outcome::Sense(SenseCode::LUN_NOT_SUPPORTED) => Heard::Final(Verdict::Disconnected),
            Outcome::Sense(code) => Heard::Sense(code),
            Outcome::Status => Heard::Final(Verdict::Down),
            Outcome::Host(host) => match host {
                HostByte::NO_CONNECT
                | HostByte::BAD_TARGET
                | HostByte::ABORT
                | HostByte::TRANSPORT_FAILFAST => Heard::Final(Verdict::Down),
                HostByte::TIME_OUT => Heard::Final(Verdict::TimedOut),
                _ => self.again(),
            },
            // Our own trouble is never a path's verdict (law 4): the state
            // stays, and the path is asked again in a second.
            Outcome::Errno(libc::ENOMEM | libc::EAGAIN | libc::EINTR) => {
                Heard::Final(self.pending())
            }
            Outcome::Errno(libc::ETIMEDOUT) => Heard::Final(Verdict::TimedOut),
            Outcome::Errno(_) => Heard::Final(Verdict::Down),
        }
    }

    fn again(&mut self) -> Heard {
        if self.tries.another() { Heard::Again } else { Heard::Final(Verdict::Down) }
    }

    /// What a read of the first block makes of an outcome; `None`: send it
    /// again.
    ///
    /// A reservation of another host and a block that cannot be read are the
    /// LU's word, as they are for a guest's command (`classify`):
    /// multipath-tools has all paths down for either.
    fn judge_read(&mut self, outcome: Outcome) -> Option<Verdict> {
        const LU: &[i32] = &[libc::EBADE, libc::ENODATA, libc::EILSEQ];
        Some(match (outcome, self.hear(outcome)) {
            (_, Heard::Again) => return None,
            (Outcome::Short, _) => Verdict::Down,
            (Outcome::Errno(code), _) if LU.contains(&code) => self.up(),
            (_, Heard::Good | Heard::There) => self.up(),
            (_, Heard::Sense(SenseCode { key: Key::MediumError, .. })) => self.up(),
            (_, Heard::Sense(_)) => Verdict::Down,
            (_, Heard::Final(verdict)) => verdict,
        })
    }
}
