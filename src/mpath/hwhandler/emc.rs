//! `emc`: MODE SELECT of the trespass page 22h (Linux' `scsi_dh_emc`).
//!
//! VPD C0h says first whether the service processor owns the LU already, and
//! whether the array is being upgraded (NDU), and after the command whether it
//! came to own it. The long form of the page goes first; the FC series, which
//! refuses it, gets the short one. Reservations of other hosts are honoured.

use super::{Activation, failed};
use crate::mpath::probe::outcome::{Outcome, Tries, completed, inquiry};
use crate::mpath::probe::{Answer, Probe, Step, Transfer};
use crate::scsi::cdb::Cdb;
use crate::scsi::clariion::{self, Binding, Trespass, UnitPathReport};
use crate::scsi::sense::{Key, SenseCode};

/// An array-based copy is going on, which a trespass would abort.
const COPYING: SenseCode = SenseCode::new(Key::IllegalRequest, 0x04, 0x00);
/// The array is being upgraded.
const UPGRADING: SenseCode = SenseCode::new(Key::NotReady, 0x04, 0x03);

#[derive(Debug)]
pub(super) struct Emc {
    stage: Stage,
    tries: Tries,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Before,
    Long,
    Short,
    After,
}

impl Default for Emc {
    fn default() -> Emc {
        Emc { stage: Stage::Before, tries: Tries::FIVE }
    }
}

impl Emc {
    pub(super) fn begin(&mut self) -> Step<Activation> {
        self.at(Stage::Before)
    }

    fn at(&mut self, stage: Stage) -> Step<Activation> {
        self.stage = stage;
        self.tries = Tries::FIVE;
        self.send()
    }

    fn send(&self) -> Step<Activation> {
        let trespass = Trespass { honor_reservations: true };
        let select =
            |cdb, list: &[u8]| Probe::Command { cdb, transfer: Transfer::Out(list.into()) };
        Step::Issue(match self.stage {
            Stage::Before | Stage::After => {
                inquiry(Some(clariion::UNIT_PATH_REPORT), clariion::ALLOCATION)
            }
            Stage::Long => {
                let list = trespass.encode_10();
                let len = u16::try_from(list.len()).unwrap_or(0);
                select(Cdb::mode_select_10(true, false, len), &list)
            }
            Stage::Short => {
                let list = trespass.encode_6();
                let len = u8::try_from(list.len()).unwrap_or(0);
                select(Cdb::mode_select_6(true, len), &list)
            }
        })
    }

    pub(super) fn on_answer(&mut self, answer: &Answer) -> Step<Activation> {
        let (outcome, data, _) = completed(answer);
        match (self.stage, outcome) {
            (_, Outcome::Again(_)) if self.tries.another() => self.send(),
            (_, outcome) if !outcome.has_data() => self.not_done(outcome),
            (Stage::Long | Stage::Short, _) => self.at(Stage::After),
            (Stage::Before | Stage::After, _) => self.reported(data),
        }
    }

    fn not_done(&mut self, outcome: Outcome) -> Step<Activation> {
        let selecting = matches!(self.stage, Stage::Long | Stage::Short);
        match outcome {
            Outcome::Sense(COPYING | UPGRADING) if selecting => Step::Done(Activation::Busy),
            outcome if self.stage == Stage::Long && outcome.is_refused() => self.at(Stage::Short),
            Outcome::Sense(_) if selecting => Step::Done(Activation::Failed),
            outcome => Step::Done(failed(outcome)),
        }
    }

    fn reported(&mut self, data: &[u8]) -> Step<Activation> {
        let Some(report) = UnitPathReport::parse(data) else {
            return Step::Done(Activation::Unsupported);
        };
        // Four bits here, three in the checker: the kernel's handler leaves
        // modes alone that it does not know.
        let known = matches!(report.failover_mode & 0x0f, clariion::MODE_PNR | clariion::MODE_ALUA);
        Step::Done(match report.binding {
            _ if report.operation != 0 => Activation::Busy,
            Binding::Other(_) => Activation::Unsupported,
            _ if !known => Activation::Unsupported,
            Binding::Owned => Activation::Done,
            Binding::Unbound => Activation::Failed,
            Binding::Bound if self.stage == Stage::Before => return self.at(Stage::Long),
            // It was told to, and has not done it yet.
            Binding::Bound => Activation::Retry { delayed: true },
        })
    }
}
