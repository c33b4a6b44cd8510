//! One path of a map, as the engine keeps it.

use super::access::Standing;
use super::checker::CheckerKind;
use super::effect::Cause;
use super::pg_init::Init;
use super::prio::Attributes;
use super::reservation::Nexus;
use super::shaky::Shaky;
use super::snapshot::PathId;
use crate::io::{Blocks, Time};
use crate::scsi::alua::AccessState;

use std::time::Duration;

/// Whether the path is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// It may be used.
    Active,
    /// A guest command has been out for too long; nothing new is issued until
    /// a check says whether the path lives.
    Suspect,
    /// It may lead to another LU now, and its identity is being read; or it
    /// says alone that the LU has shrunk.
    Doubt,
    /// Not in use until a check and a proof of identity succeed.
    Failed,
}

/// The checker's view, in multipath-tools' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckerState {
    /// Answers.
    Ready,
    /// Does not.
    Faulty,
    /// Answers only after activation.
    Ghost,
    /// In transition, or a first check is under way.
    Pending,
    /// The check did not answer in time.
    TimedOut,
    /// Answers, but is not in normal operation.
    Shaky,
    /// Good again, but held back for having been unreliable.
    Delayed,
    /// The target has no such LU.
    Disconnected,
}

impl CheckerState {
    /// As `multipath -ll` prints it.
    pub fn name(self) -> &'static str {
        match self {
            CheckerState::Ready => "ready",
            CheckerState::Faulty => "faulty",
            CheckerState::Ghost => "ghost",
            CheckerState::Pending => "i/o pending",
            CheckerState::TimedOut => "i/o timeout",
            CheckerState::Shaky => "shaky",
            CheckerState::Delayed => "delayed",
            CheckerState::Disconnected => "disconnected",
        }
    }
}

/// The access state of a path, as the array last told it (SPC-5 5.16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Target port group; `None` until a prioritizer has asked, and where the
    /// array has none.
    pub group: Option<u16>,
    /// Its state; `None` likewise.
    pub state: Option<AccessState>,
    /// The array prefers the group (PREF).
    pub preferred: bool,
}

/// Something asked of a path that has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outstanding {
    /// The number it answers with.
    pub(super) number: u32,
    /// When it was asked for.
    pub(super) since: Time,
    /// It did not answer in time and the path was failed for it; a late
    /// answer still counts.
    pub(super) late: bool,
}

/// What the tables published last, and the last step, made of a path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Listed {
    /// The epoch in the last table that named it.
    pub(super) epoch: u32,
    /// The last table names it.
    pub(super) in_table: bool,
    /// It was usable after the last step.
    pub(super) usable: bool,
    /// It has come back before the other paths of its group (`followover`).
    pub(super) first_back: bool,
    /// It is new, or its prioritizer is, it has been in order ever since, and
    /// its priority is not known yet.
    pub(super) joins: bool,
    /// That has come in since the last decision about failback.
    pub(super) joined: bool,
}

/// What the engine knows of a path.
#[derive(Clone, Debug)]
pub struct Path {
    /// Its id in this map.
    pub id: PathId,
    /// Its name: `sdb`, `sim0`.
    pub name: String,
    /// How it is checked.
    pub checker: CheckerKind,
    /// How it is checked where the policy does not say.
    pub(super) own_checker: CheckerKind,
    /// What grouping and prioritizers go by.
    pub attributes: Attributes,
    /// What its target port group was last said to be.
    pub access: Access,
    /// It is unreliable: used last, or not at all (`marginal_pathgroups`).
    pub marginal: bool,
    /// Whether it is in order.
    pub state: PathState,
    /// The last check's finding.
    pub checker_state: CheckerState,
    /// `fail path` holds until `reinstate path`.
    pub failed_by_administrator: bool,
    /// Priority; 1 until it has been read.
    pub priority: i32,
    /// Counts the times it began to carry I/O.
    pub epoch: u32,
    /// Its epoch when it was last (re)instated by a proof.
    pub(super) proven: u32,
    /// Times it went from usable to failed.
    pub failures: u64,
    /// Why it is, or last was, not in use.
    pub last_cause: Option<Cause>,
    /// Capacity it proved last.
    pub capacity: Blocks,
    /// It waits in doubt because it has proven the map's LU with this smaller
    /// capacity, until every usable path has.
    pub shrunk_to: Option<Blocks>,
    /// The target said last that it has no such LU (05/25/00).
    pub(super) no_lun: bool,
    pub(super) next_check: Time,
    /// One follows the proof under way.
    pub(super) check_follows: bool,
    pub(super) interval: Duration,
    /// When it was reinstated last.
    pub(super) returned: Option<Time>,
    pub(super) check: Option<Outstanding>,
    pub(super) proof: Option<Outstanding>,
    pub(super) sample: Option<Outstanding>,
    pub(super) shaky: Shaky,
    pub(super) standing: Standing,
    pub(super) init: Init,
    pub(super) nexus: Nexus,
    pub(super) listed: Listed,
}

impl Path {
    /// Whether it is in order: nothing speaks against it, though its array may
    /// have to be asked before it carries I/O.
    pub fn is_usable(&self) -> bool {
        self.state == PathState::Active
    }

    /// Whether it carries I/O: it is usable, and its array takes I/O by it now.
    pub fn carries(&self) -> bool {
        let Standing { unsized_lu, held_back, .. } = self.standing;
        self.is_usable()
            && !self.is_barred()
            && !unsized_lu
            && !held_back
            && self.standing.carries(self.access)
    }

    /// Whether a decision about it is under way, so that requests should wait
    /// for it rather than fail.
    pub fn is_undecided(&self) -> bool {
        match self.state {
            PathState::Suspect => true,
            // One that waits for others to agree about the capacity is decided
            // until it is asked again.
            PathState::Doubt => self.proof.is_some(),
            PathState::Active | PathState::Failed => false,
        }
    }

    /// When it is checked next, and the interval that leads there.
    pub fn next_check(&self) -> (Time, Duration) {
        (self.next_check, self.interval)
    }

    /// Whether a check or a proof of identity is under way.
    pub fn is_being_checked(&self) -> bool {
        self.check.is_some() || self.proof.is_some()
    }

    /// Whether a proof of identity is under way.
    pub fn is_being_proven(&self) -> bool {
        self.proof.is_some()
    }

    /// dm's word: `active` or `failed`.
    pub fn dm_state(&self) -> &'static str {
        if self.is_usable() { "active" } else { "failed" }
    }
}
