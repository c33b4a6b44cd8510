//! `rdac`: MODE SELECT of the redundant controller page 2Ch (Linux'
//! `scsi_dh_rdac`).
//!
//! Who owns the LU is read first (VPD C9h): the owner's path needs no command,
//! nor does one of an array that moves the LU by itself (AVT) or lets both
//! controllers do I/O (IOSHIP), unless the other one is preferred there. The
//! LU's number in the array is in VPD C8h, the form of the command follows from
//! the highest number (C2h). Who owns it is read again after the command: some
//! arrays answer it with NO SENSE, which is worth nothing.

use super::{Activation, failed};
use crate::mpath::probe::outcome::{Outcome, Tries, completed, inquiry};
use crate::mpath::probe::{Answer, Probe, Step, Transfer};
use crate::scsi::cdb::Cdb;
use crate::scsi::rdac::{self, Preference, TakeOwnership, VolumeAccess};
use crate::scsi::sense::{Key, SenseCode};

/// Seconds the other controller has to come to rest.
const QUIESCENCE: u8 = 20;

#[derive(Debug)]
pub(super) struct Rdac {
    stage: Stage,
    tries: Tries,
    lun: u8,
    /// The short form of the command is enough.
    six: bool,
    /// The command was carried out.
    selected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Access,
    Lun,
    MaxLun,
    Select,
}

impl Default for Rdac {
    fn default() -> Rdac {
        Rdac { stage: Stage::Access, tries: Tries::FIVE, lun: 0, six: false, selected: false }
    }
}

impl Rdac {
    pub(super) fn begin(&mut self) -> Step<Activation> {
        self.at(Stage::Access)
    }

    fn at(&mut self, stage: Stage) -> Step<Activation> {
        self.stage = stage;
        self.tries = Tries::FIVE;
        self.send()
    }

    fn send(&self) -> Step<Activation> {
        let page = match self.stage {
            Stage::Access => rdac::VOLUME_ACCESS,
            Stage::Lun => rdac::DEVICE_IDENTIFICATION,
            Stage::MaxLun => rdac::SOFTWARE_VERSION,
            Stage::Select => return Step::Issue(self.select()),
        };
        Step::Issue(inquiry(Some(page), rdac::ALLOCATION))
    }

    fn select(&self) -> Probe {
        let take = TakeOwnership { luns: vec![self.lun], quiescence: QUIESCENCE, forced: true };
        // Without PF, and not saved: as the page's own drivers send it.
        let (list, six) = match take.encode_6().filter(|_| self.six) {
            Some(list) => (list, true),
            None => (take.encode_10(), false),
        };
        let cdb = match six {
            true => Cdb::mode_select_6(false, u8::try_from(list.len()).unwrap_or(0)),
            false => Cdb::mode_select_10(false, false, u16::try_from(list.len()).unwrap_or(0)),
        };
        Probe::Command { cdb, transfer: Transfer::Out(list) }
    }

    pub(super) fn on_answer(&mut self, answer: &Answer) -> Step<Activation> {
        let (outcome, data, _) = completed(answer);
        if self.stage == Stage::Select {
            return self.selected(outcome);
        }
        match outcome {
            Outcome::Again(_) if self.tries.another() => return self.send(),
            outcome if !outcome.has_data() => return Step::Done(failed(outcome)),
            _ => {}
        }
        let unsupported = Step::Done(Activation::Unsupported);
        match self.stage {
            Stage::Access => match VolumeAccess::parse(data) {
                None => unsupported,
                Some(access) if !is_needed(&access) => Step::Done(Activation::Done),
                Some(_) if self.selected => Step::Done(Activation::Retry { delayed: true }),
                Some(_) => self.at(Stage::Lun),
            },
            Stage::Lun => match rdac::lun(data) {
                None => unsupported,
                Some(lun) => {
                    self.lun = lun;
                    self.at(Stage::MaxLun)
                }
            },
            Stage::MaxLun | Stage::Select => match rdac::max_lun(data) {
                None => unsupported,
                Some(most) => {
                    self.six = most < rdac::LUNS_6;
                    self.at(Stage::Select)
                }
            },
        }
    }

    fn selected(&mut self, outcome: Outcome) -> Step<Activation> {
        let again = match outcome {
            Outcome::Good | Outcome::Short => {
                self.selected = true;
                return self.at(Stage::Access);
            }
            Outcome::Again(_) => true,
            Outcome::Sense(code) => is_passing(code),
            _ => false,
        };
        if again && self.tries.another() {
            return self.send();
        }
        Step::Done(match outcome {
            _ if again => Activation::Retry { delayed: true },
            // Quiescence in progress, or achieved.
            Outcome::Sense(
                SenseCode { key: Key::NotReady, asc: 0x04, ascq: 0xa1 }
                | SenseCode { key: Key::NotReady, asc: 0xa1, ascq: 0x02 },
            ) => Activation::Retry { delayed: true },
            // The page is known; it is this command that does not do.
            Outcome::Sense(_) => Activation::Failed,
            outcome => failed(outcome),
        })
    }
}

/// Sense that an array has for a MODE SELECT while it is at something else, and
/// that passes at once.
fn is_passing(code: SenseCode) -> bool {
    const BECOMING_READY: SenseCode = SenseCode::new(Key::NotReady, 0x04, 0x01);
    const LOCK_CONTENTION: SenseCode = SenseCode::new(Key::IllegalRequest, 0x91, 0x36);
    code.key == Key::AbortedCommand || code == BECOMING_READY || code == LOCK_CONTENTION
}

fn is_needed(access: &VolumeAccess) -> bool {
    if access.owned {
        false
    } else if access.ioship {
        access.preference == Preference::Preferred
    } else {
        !access.avt
    }
}
