//! `rdac`: who owns the LU (`libmultipath/checkers/rdac.c`).
//!
//! VPD page C9h says it. Once for each path the TAS bit of the control page is
//! set before, if it can be: commands that another host aborts then come back
//! as TASK ABORTED. Whether the LU does so decides nothing. A LU that answers BUSY
//! does not say who owns it, and the state stays.

use super::{Heard, Probe, Step, Tally, Verdict};
use crate::mpath::probe::Transfer;
use crate::mpath::probe::outcome::{Outcome, inquiry};
use crate::scsi::alua::AccessState;
use crate::scsi::cdb::Cdb;
use crate::scsi::{mode, rdac};

/// Header and control page.
const MODE_LEN: u16 = 20;
/// PC of MODE SENSE.
const CURRENT: u8 = 0;
const CHANGEABLE: u8 = 1;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rdac {
    stage: Stage,
    /// TAS was dealt with, one way or the other.
    tas_done: bool,
    /// The control page as it is, while it is found out whether TAS can be
    /// changed.
    current: [u8; MODE_LEN as usize],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Current,
    Changeable,
    Select,
    Access,
}

impl Rdac {
    pub(super) fn first(&mut self) -> Step<Verdict> {
        self.stage = if self.tas_done { Stage::Access } else { Stage::Current };
        self.send()
    }

    fn send(&self) -> Step<Verdict> {
        let sense = |control| {
            let cdb = Cdb::mode_sense_10_values(control, mode::CONTROL, MODE_LEN);
            Probe::reading(cdb, usize::from(MODE_LEN))
        };
        Step::Issue(match self.stage {
            Stage::Current => sense(CURRENT),
            Stage::Changeable => sense(CHANGEABLE),
            Stage::Select => {
                let list = mode::with_task_aborted_status(&self.current).unwrap_or_default();
                let len = u16::try_from(list.len()).unwrap_or(0);
                let cdb = Cdb::mode_select_10(false, true, len);
                Probe::Command { cdb, transfer: Transfer::Out(list) }
            }
            Stage::Access => inquiry(Some(rdac::VOLUME_ACCESS), rdac::ALLOCATION),
        })
    }

    pub(super) fn next(
        &mut self,
        tally: &mut Tally,
        outcome: Outcome,
        data: &[u8],
    ) -> Step<Verdict> {
        let heard = tally.hear(outcome);
        match heard {
            Heard::Again => self.send(),
            Heard::Final(verdict) => Step::Done(verdict),
            _ if self.stage != Stage::Access => self.set_tas(heard, data),
            Heard::There => Step::Done(tally.pending()),
            Heard::Sense(_) => Step::Done(Verdict::Down),
            Heard::Good => Step::Done(match rdac::VolumeAccess::parse(data) {
                Some(access) => verdict(&access, tally),
                None => Verdict::Down,
            }),
        }
    }

    /// On the way to a set TAS bit; page C9h is asked for in the end.
    fn set_tas(&mut self, heard: Heard, data: &[u8]) -> Step<Verdict> {
        self.stage = match (self.stage, heard, mode::task_aborted_status(data)) {
            (Stage::Current, Heard::Good, Some(false)) => {
                let len = data.len().min(self.current.len());
                self.current = [0; MODE_LEN as usize];
                self.current[..len].copy_from_slice(&data[..len]);
                Stage::Changeable
            }
            (Stage::Changeable, Heard::Good, Some(true)) => Stage::Select,
            _ => {
                self.tas_done = true;
                Stage::Access
            }
        };
        self.send()
    }
}

fn verdict(access: &rdac::VolumeAccess, tally: &Tally) -> Verdict {
    if !access.connected {
        return Verdict::Down;
    }
    match access.controllers.map(|(own, other)| (own.state, other.state)) {
        Some((AccessState::Unavailable, _)) => return Verdict::Down,
        // Both: a change of ownership is under way. This one alone: it boots.
        Some((AccessState::Transitioning, AccessState::Transitioning)) => {}
        Some((AccessState::Transitioning, _)) => return Verdict::Down,
        _ => {}
    }
    if access.owned || access.ioship { tally.up() } else { tally.ghost() }
}
