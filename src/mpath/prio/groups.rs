//! Reading the target port groups: what the ALUA prioritizers and the ALUA
//! hardware handler have in common.
//!
//! Standard INQUIRY says whether the states are explicit or implicit, VPD 83h
//! which group the path's port is in, REPORT TARGET PORT GROUPS the states. The
//! first two are remembered; the group is looked up again when it is not among
//! those reported (the port has moved). As Linux' `scsi_dh_alua` the report is
//! asked for with the extended header, and without it where the LU refuses that
//! (SPC-5 6.37).

use std::time::Duration;

use super::AluaReading;
use crate::mpath::probe::outcome::{Outcome, Tries, completed, inquiry};
use crate::mpath::probe::{Answer, Probe, Step};
use crate::scsi::alua::{self, AccessState};
use crate::scsi::cdb::Cdb;
use crate::scsi::inquiry::Inquiry;
use crate::scsi::sense::SenseCode;
use crate::scsi::vpd;

/// First allocation length of VPD 83h; some old LUs mishandle more than a byte.
const PAGE: u16 = 252;
/// First allocation length of the report; more is asked for where it is not
/// enough.
const REPORT: u32 = 1024;
/// A report is cut here: 2000 ports.
const LONGEST_REPORT: u32 = 16384;
/// TPGS.
const IMPLICIT: u8 = 0x1;
const EXPLICIT: u8 = 0x2;

/// Why the groups could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mpath) enum Unread {
    /// The LU has none, or does not say which is the path's.
    Unsupported,
    /// A command ended so.
    Failed(Outcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Support,
    Page,
    Report,
}

/// One path's reader of the target port groups.
#[derive(Clone, Copy, Debug)]
pub(in crate::mpath) struct Reader {
    /// TPGS, once known.
    tpgs: Option<u8>,
    own: Option<u16>,
    extended: bool,
    /// Ends before the report, which somebody else has.
    only_own: bool,
    asked: Asked,
    tries: Tries,
    /// Of the report.
    allocation: u32,
    /// Of VPD 83h.
    page: u16,
    /// The group was looked up in this reading.
    looked_up: bool,
}

pub(in crate::mpath) type Found = Result<AluaReading, Unread>;

impl Reader {
    /// `own` is the path's group, if it is known.
    pub(in crate::mpath) fn new(own: Option<u16>) -> Reader {
        Reader {
            tpgs: None,
            own,
            extended: true,
            only_own: false,
            asked: Asked::Support,
            tries: Tries::FIVE,
            allocation: REPORT,
            page: PAGE,
            looked_up: false,
        }
    }

    /// One that finds out the path's own group and TPGS only; what it comes to
    /// has no groups.
    pub(super) fn of_own_group() -> Reader {
        Reader { only_own: true, ..Reader::new(None) }
    }

    /// The LU knows no target port groups (TPGS of standard INQUIRY data).
    pub(super) fn has_none(&self) -> bool {
        self.tpgs == Some(0)
    }

    /// Begins a reading.
    pub(in crate::mpath) fn begin(&mut self) -> Step<Found> {
        self.allocation = REPORT;
        self.looked_up = false;
        self.go_on()
    }

    /// Asks for the first thing that is not known.
    fn go_on(&mut self) -> Step<Found> {
        self.tries = Tries::FIVE;
        self.asked = match (self.tpgs, self.own) {
            (None, _) => Asked::Support,
            (_, None) => Asked::Page,
            _ if self.only_own => return Step::Done(Ok(self.reading(None, Vec::new()))),
            _ => Asked::Report,
        };
        self.send()
    }

    fn send(&self) -> Step<Found> {
        Step::Issue(match self.asked {
            Asked::Support => inquiry(None, 36),
            Asked::Page => inquiry(Some(vpd::IDENTIFICATION), self.page),
            Asked::Report => {
                let len = usize::try_from(self.allocation).unwrap_or(0);
                let cdb = Cdb::report_target_port_groups(self.extended, self.allocation);
                Probe::reading(cdb, len)
            }
        })
    }

    /// Goes on with the answer to what it asked for.
    pub(in crate::mpath) fn on_answer(&mut self, answer: &Answer) -> Step<Found> {
        let (outcome, data, _) = completed(answer);
        match outcome {
            Outcome::Again(_) if self.tries.another() => return self.send(),
            outcome if outcome.has_data() => {}
            _ => return self.failed(outcome),
        }
        match self.asked {
            Asked::Support => match Inquiry::parse(data) {
                Some(found) => {
                    self.tpgs = Some(found.tpgs);
                    self.go_on()
                }
                None => Step::Done(Err(Unread::Failed(outcome))),
            },
            Asked::Page => self.page(data),
            Asked::Report => self.report(data),
        }
    }

    fn failed(&mut self, outcome: Outcome) -> Step<Found> {
        match (self.asked, outcome, self.own) {
            (Asked::Report, _, _) if self.extended && outcome.is_refused() => {
                self.extended = false;
                self.send()
            }
            // It cannot report during a transition: then this is the report.
            (_, Outcome::Sense(SenseCode::NOT_READY_TRANSITIONING), Some(own)) => {
                let groups = vec![(own, AccessState::Transitioning, false)];
                Step::Done(Ok(self.reading(None, groups)))
            }
            (Asked::Page | Asked::Report, _, _) if outcome.is_refused() => {
                Step::Done(Err(Unread::Unsupported))
            }
            // The path speaks no SCSI.
            (_, Outcome::Errno(libc::ENOTTY), _) => Step::Done(Err(Unread::Unsupported)),
            _ => Step::Done(Err(Unread::Failed(outcome))),
        }
    }

    fn page(&mut self, data: &[u8]) -> Step<Found> {
        let len = data.get(2..4).map_or(0, |len| u16::from_be_bytes([len[0], len[1]]));
        let whole = len.saturating_add(4);
        if whole > self.page && self.page == PAGE {
            self.page = whole;
            return self.send();
        }
        self.looked_up = true;
        let own = vpd::designators(data)
            .and_then(|mut list| list.find_map(|designator| designator.target_port_group()));
        match own {
            Some(own) => {
                self.own = Some(own);
                self.go_on()
            }
            None => Step::Done(Err(Unread::Unsupported)),
        }
    }

    fn report(&mut self, data: &[u8]) -> Step<Found> {
        let whole = match data {
            [a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]).saturating_add(4),
            _ => 0,
        };
        if whole > self.allocation && self.allocation < LONGEST_REPORT {
            self.allocation = whole.min(LONGEST_REPORT);
            return self.send();
        }
        let groups: Vec<_> =
            alua::parse(data).iter().map(|g| (g.id, g.state, g.preferred)).collect();
        let listed = groups.iter().any(|(id, _, _)| Some(*id) == self.own);
        if !listed {
            // The port may be in another group by now.
            self.own = None;
            if self.looked_up {
                return Step::Done(Err(Unread::Unsupported));
            }
            return self.go_on();
        }
        let seconds = alua::transition_seconds(data).filter(|seconds| *seconds > 0);
        let transition = seconds.map(|seconds| Duration::from_secs(seconds.into()));
        Step::Done(Ok(self.reading(transition, groups)))
    }

    fn reading(
        &self,
        transition: Option<Duration>,
        groups: Vec<(u16, AccessState, bool)>,
    ) -> AluaReading {
        let tpgs = self.tpgs.unwrap_or(0);
        AluaReading {
            own: self.own.unwrap_or(0),
            implicit: tpgs & IMPLICIT != 0,
            explicit: tpgs & EXPLICIT != 0,
            transition,
            groups,
        }
    }
}

impl AluaReading {
    /// State and PREF of the path's own group.
    pub fn own_state(&self) -> Option<(AccessState, bool)> {
        self.groups
            .iter()
            .find(|(id, _, _)| *id == self.own)
            .map(|(_, state, preferred)| (*state, *preferred))
    }
}

/// The priority of a group in this state (multipath-tools' `alua` and `sysfs`).
/// PREF adds 80; to an active/optimized group only if it shall be alone in its
/// path group then (`exclusive_pref_bit`).
pub(super) fn priority(state: AccessState, preferred: bool, exclusive_pref: bool) -> i32 {
    let base = match state {
        AccessState::ActiveOptimized => 50,
        AccessState::ActiveNonOptimized => 10,
        AccessState::LbaDependent => 5,
        AccessState::Standby => 1,
        AccessState::Unavailable
        | AccessState::Offline
        | AccessState::Transitioning
        | AccessState::Reserved(_) => 0,
    };
    let counts = preferred && (state != AccessState::ActiveOptimized || exclusive_pref);
    base + if counts { 80 } else { 0 }
}
