//! `rdac` and `emc`: one vendor page each
//! (`libmultipath/prioritizers/{rdac,emc}.c`).

use super::{Reading, UNKNOWN};
use crate::mpath::probe::outcome::{Outcome, Tries, completed, inquiry};
use crate::mpath::probe::{Answer, Step};
use crate::scsi::clariion::{self, UnitPathReport};
use crate::scsi::rdac::{self, Preference, VolumeAccess};

/// Which page, and what its numbers are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Page {
    Rdac,
    Emc,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vendor {
    page: Page,
    tries: Tries,
}

impl Vendor {
    pub(super) fn new(page: Page) -> Vendor {
        Vendor { page, tries: Tries::FIVE }
    }

    pub(super) fn begin(&mut self) -> Step<Reading> {
        self.tries = Tries::FIVE;
        self.send()
    }

    fn send(&self) -> Step<Reading> {
        Step::Issue(match self.page {
            Page::Rdac => inquiry(Some(rdac::VOLUME_ACCESS), rdac::ALLOCATION),
            Page::Emc => inquiry(Some(clariion::UNIT_PATH_REPORT), clariion::ALLOCATION),
        })
    }

    pub(super) fn on_answer(&mut self, answer: &Answer) -> Step<Reading> {
        let (outcome, data, _) = completed(answer);
        let priority = match outcome {
            Outcome::Again(_) if self.tries.another() => return self.send(),
            outcome if !outcome.has_data() => return Step::Done(UNKNOWN),
            _ => match self.page {
                // A page in another format is worth nothing.
                Page::Rdac => Some(VolumeAccess::parse(data).map_or(0, |access| of_rdac(&access))),
                Page::Emc => UnitPathReport::parse(data).and_then(|report| of_emc(&report)),
            },
        };
        Step::Done(Reading { priority, alua: None })
    }
}

fn of_rdac(access: &VolumeAccess) -> i32 {
    let preference = match access.preference {
        Preference::Preferred => 4,
        Preference::Secondary => 1,
        Preference::Unstated => 0,
    };
    preference + if access.owned { 2 } else { 0 } + if access.ioship { 8 } else { 0 }
}

/// `None` where the page says that it is not to be gone by.
fn of_emc(report: &UnitPathReport) -> Option<i32> {
    if report.revision != 0 || !report.fit_for_failover() || report.operation != 0 {
        return None;
    }
    let binding = i32::from(report.binding.to_byte());
    Some(binding + if report.on_default_sp() { 2 } else { 0 })
}
