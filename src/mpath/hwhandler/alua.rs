//! `alua`: SET TARGET PORT GROUPS (Linux' `scsi_dh_alua`).
//!
//! The states are read first: what carries already needs no command, and only
//! an array whose TPGS says *explicit* gets one. It asks for the path's group
//! to be active/optimized and leaves the others to the array, as the kernel
//! does. What counts is not the command's status but the states read after it:
//! arrays have their own ideas, and other hosts.
//!
//! A group in transition is waited for, as the kernel does: that is none of
//! `pg_init_retries`.
//!
//! Where the kernel calls a group that is still standby usable, this does not:
//! passthrough would reach the port (`scsi_dh_alua` holds back file system I/O
//! only) and get 02/04/0B.

use super::{Activation, failed};
use crate::mpath::prio::AluaReading;
use crate::mpath::prio::groups::{Found, Reader, Unread};
use crate::mpath::probe::outcome::{Outcome, Tries, completed};
use crate::mpath::probe::{Answer, Probe, Step, Transfer};
use crate::scsi::alua::{AccessState, SetState, encode_set};
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::SenseCode;

#[derive(Debug)]
pub(super) struct Alua {
    reader: Reader,
    tries: Tries,
    /// The group that was asked to be active/optimized.
    set: Option<u16>,
    /// The answer to that is still out.
    setting: bool,
    /// It was refused for good.
    refused: bool,
    /// Another host's reservation does not let us.
    reserved: bool,
}

impl Alua {
    pub(super) fn new(group: Option<u16>) -> Alua {
        let reader = Reader::new(group);
        Alua {
            reader,
            tries: Tries::FIVE,
            set: None,
            setting: false,
            refused: false,
            reserved: false,
        }
    }

    pub(super) fn begin(&mut self) -> Step<Activation> {
        let step = self.reader.begin();
        self.step(step)
    }

    pub(super) fn on_answer(&mut self, answer: &Answer) -> Step<Activation> {
        let step = match (self.set, self.setting) {
            (Some(group), true) => {
                match completed(answer).0 {
                    Outcome::Again(_) if self.tries.another() => return set(group),
                    // Carried out, or on the way.
                    Outcome::Sense(SenseCode::NOT_READY_TRANSITIONING) => {}
                    outcome => {
                        self.refused = outcome.is_refused();
                        self.reserved = outcome == Outcome::Reserved;
                    }
                }
                self.setting = false;
                self.reader.begin()
            }
            _ => self.reader.on_answer(answer),
        };
        self.step(step)
    }

    fn step(&mut self, step: Step<Found>) -> Step<Activation> {
        Step::Done(match step {
            Step::Issue(probe) => return Step::Issue(probe),
            Step::Done(Err(Unread::Unsupported)) => Activation::Unsupported,
            Step::Done(Err(Unread::Failed(outcome))) => failed(outcome),
            Step::Done(Ok(found)) => return self.found(&found),
        })
    }

    fn found(&mut self, found: &AluaReading) -> Step<Activation> {
        use AccessState::{
            ActiveNonOptimized, ActiveOptimized, LbaDependent, Offline, Reserved, Standby,
            Transitioning, Unavailable,
        };
        let Some((state, _)) = found.own_state() else { return Step::Done(Activation::Failed) };
        Step::Done(match (state, self.set) {
            (ActiveOptimized | LbaDependent, _) => Activation::Done,
            (Transitioning, _) => Activation::Transition,
            (Offline, _) => Activation::Failed,
            (Reserved(_), _) => Activation::Unsupported,
            // Asked for in vain; but it does carry.
            (ActiveNonOptimized, Some(_)) => Activation::Done,
            (ActiveNonOptimized, None) if !found.explicit => Activation::Done,
            (Standby | Unavailable, None) if !found.explicit => Activation::Unsupported,
            (Standby | Unavailable, Some(_)) if self.refused => Activation::Unsupported,
            // (The kernel tries again until the path has failed for it, which is
            // checked and returns: as long as the other host pleases.)
            (Standby | Unavailable, Some(_)) if self.reserved => Activation::Busy,
            (Standby | Unavailable, Some(_)) => Activation::Retry { delayed: true },
            (ActiveNonOptimized | Standby | Unavailable, None) => {
                self.set = Some(found.own);
                self.setting = true;
                return set(found.own);
            }
        })
    }
}

fn set(group: u16) -> Step<Activation> {
    let list = encode_set(&[SetState { state: AccessState::ActiveOptimized, group }]);
    let cdb = Cdb::set_target_port_groups(u32::try_from(list.len()).unwrap_or(0));
    Step::Issue(Probe::Command { cdb, transfer: Transfer::Out(list) })
}
