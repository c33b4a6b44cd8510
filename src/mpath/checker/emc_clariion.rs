//! `emc_clariion`: how the LU is bound, and whether its owner can read it
//! (`libmultipath/checkers/emc_clariion.c`).
//!
//! VPD page C0h, and on the owning path the first block. The path of the other
//! service processor is a ghost here, up in multipath-tools: dm-multipath
//! activates whatever group it takes, ours those whose paths do not carry. In
//! ALUA failover mode it carries, and is up. That an inactive snapshot is
//! behind the LU (05/25/01 to the owner's read) each path finds out and
//! remembers for itself.

use super::{Heard, Probe, Step, Tally, Verdict};
use crate::mpath::probe::outcome::{Outcome, inquiry};
use crate::scsi::clariion::{self, Binding, UnitPathReport};
use crate::scsi::sense::{Key, SenseCode};

/// What an inactive snapshot says to a read.
const INACTIVE_SNAPSHOT: SenseCode = SenseCode::new(Key::IllegalRequest, 0x25, 0x01);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EmcClariion {
    reading: bool,
    /// WWN of the LU at the last check.
    wwn: Option<[u8; 16]>,
    inactive_snapshot: bool,
}

impl EmcClariion {
    pub(super) fn first(&mut self) -> Step<Verdict> {
        self.reading = false;
        self.send()
    }

    fn send(&self) -> Step<Verdict> {
        Step::Issue(match self.reading {
            false => inquiry(Some(clariion::UNIT_PATH_REPORT), clariion::ALLOCATION),
            true => Probe::ReadFirstBlock,
        })
    }

    pub(super) fn next(
        &mut self,
        tally: &mut Tally,
        outcome: Outcome,
        data: &[u8],
    ) -> Step<Verdict> {
        if self.reading {
            return self.read(tally, outcome);
        }
        Step::Done(match tally.hear(outcome) {
            Heard::Good => match UnitPathReport::parse(data) {
                Some(report) => match self.reported(&report, tally) {
                    Some(verdict) => verdict,
                    None => {
                        self.reading = true;
                        return self.send();
                    }
                },
                None => Verdict::Down,
            },
            Heard::Again => return self.send(),
            // It does not say how it is bound.
            Heard::There => tally.pending(),
            Heard::Sense(_) => Verdict::Down,
            Heard::Final(verdict) => verdict,
        })
    }

    /// The verdict after page C0h; `None`: the owner shall read.
    fn reported(&mut self, report: &UnitPathReport, tally: &Tally) -> Option<Verdict> {
        if report.revision != 0 || !report.fit_for_failover() {
            return Some(Verdict::Down);
        }
        if report.operation != 0 {
            return Some(Verdict::Shaky);
        }
        if report.binding == Binding::Unbound {
            return Some(Verdict::Down);
        }
        // Down once. Which of the two is the map's LU the proof of identity says
        // before the path is used again: the first may have been the wrong one.
        if self.wwn.replace(report.wwn).is_some_and(|before| before != report.wwn) {
            return Some(Verdict::Down);
        }
        match report.binding {
            Binding::Owned => None,
            _ if self.inactive_snapshot => Some(Verdict::Down),
            _ if report.failover_mode & 0x07 == clariion::MODE_ALUA => Some(tally.up()),
            _ => Some(tally.ghost()),
        }
    }

    fn read(&mut self, tally: &mut Tally, outcome: Outcome) -> Step<Verdict> {
        let Some(verdict) = tally.judge_read(outcome) else { return self.send() };
        if outcome == Outcome::Sense(INACTIVE_SNAPSHOT) {
            self.inactive_snapshot = true;
        } else if outcome == Outcome::Good {
            self.inactive_snapshot = false;
        }
        Step::Done(verdict)
    }
}
