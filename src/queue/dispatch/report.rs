//! What the control thread is told, and what it need not hear.

use super::Dispatcher;
use crate::io::{Op, Outcome};
use crate::mpath::event::IoReport;
use crate::mpath::snapshot::PathId;
use crate::scsi::sense::{Key, Sense, SenseCode};
use crate::scsi::status::Status;

/// A request the guest will see fail, for the event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestError {
    /// What it was.
    pub op: Op,
    /// How it ended.
    pub outcome: Outcome,
    /// The classifier's last rule, or the queueing policy's.
    pub rule: &'static str,
    /// Path of the last completion.
    pub path: Option<PathId>,
    /// Commands issued for it.
    pub tries: u32,
}

/// Something for the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Bears on a path.
    Path(IoReport),
    /// A guest-visible error.
    Guest(GuestError),
    /// The LU has told of an error of a command that has ended well long
    /// since (SPC-5 4.4.6): what was acknowledged may be lost.
    Deferred {
        /// By this path.
        path: PathId,
        /// What the LU said.
        sense: Sense,
    },
    /// The block layer of a path ends reads and writes with EIO that go well by
    /// SCSI passthrough: they go so from the start now, or no longer.
    BlockLayer {
        /// Which path.
        path: PathId,
        /// Whether it is avoided.
        avoided: bool,
    },
}

/// Most reports kept for the control thread; more are dropped. What says that
/// a path is out of use here is repeated until a table answers it.
const MAX_REPORTS: usize = 64;

/// Of a raw command the guest sees every answer of the LU, most of them part
/// of its own work (a unit attention, an unsupported page). These keys say
/// that something is wrong with the LU.
const TROUBLE: &[Key] = &[
    Key::NotReady,
    Key::MediumError,
    Key::HardwareError,
    Key::AbortedCommand,
    Key::VolumeOverflow,
];

impl Dispatcher {
    /// Tells of a request that did not simply end well, where an
    /// administrator would want to hear of it.
    pub(super) fn tell(&mut self, error: GuestError) {
        if is_worth_telling(&error) {
            self.report(Report::Guest(error));
        }
    }

    pub(super) fn report(&mut self, report: Report) {
        if self.reports.len() < MAX_REPORTS {
            self.reports.push(report);
        }
    }
}

/// A block operation's end is told always; a raw command's by the table above.
fn is_worth_telling(error: &GuestError) -> bool {
    match (error.op, &error.outcome) {
        // The guest asked for it; or the LU was taken away from it.
        (_, Outcome::Aborted { .. }) => false,
        _ if error.rule == super::manage::MAP_GONE => false,
        (Op::Cdb { .. }, Outcome::Good | Outcome::Stopped) => false,
        (Op::Cdb { .. }, Outcome::Lu { status: Status::CHECK_CONDITION, sense, .. }) => {
            // Sense that is not there is trouble, too.
            sense.code().is_none_or(|code| {
                TROUBLE.contains(&code.key) || code == SenseCode::SPACE_ALLOCATION_FAILED
            })
        }
        (Op::Cdb { .. }, Outcome::Lu { .. }) => false,
        _ => true,
    }
}
