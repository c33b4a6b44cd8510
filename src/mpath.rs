//! The multipath engine: a pure state machine over (time, event).
//!
//! [`Multipath`] owns the state of one map: its paths, path groups, checks,
//! failures, reinstatement and queueing policy. It performs no I/O and reads
//! no clock; every step is `handle(now, event, &mut effects)` and the owner
//! (the control thread, or the simulation) carries out the effects. It does
//! not see guest I/O in the good case: queue threads choose paths themselves
//! from the published [`PathTable`] and report only what bears on a path.
//!
//! Names and rules follow multipath-tools and dm-multipath; where they differ
//! the module concerned says why.

mod access;
mod admin;
mod check;
pub mod checker;
pub mod classify;
pub mod effect;
pub mod errand;
pub mod event;
mod failback;
pub mod hwhandler;
mod identity;
pub mod path;
pub mod path_group;
mod pg_init;
pub mod policy;
pub mod prio;
pub mod probe;
mod queueing;
mod reconfigure;
pub mod reservation;
pub mod selector;
mod settle;
mod shaky;
pub mod snapshot;
pub mod topology;
mod watch;

use std::sync::Arc;

use crate::io::{Identity, Time};
use checker::CheckerKind;
use classify::PathVerdict;
use effect::{Cause, Change, Effect, Effects};
use event::{Event, HostNews, IoReason, IoReport};
use failback::FailbackState;
use path::{CheckerState, Path, PathState};
use path_group::PathGroup;
use pg_init::{Patience, PgInit};
use policy::Policy;
use prio::{Attributes, Reading};
use reservation::Reservations;
use snapshot::{MAX_PATHS, PathId, PathTable, Queueing};
use topology::{GroupStatus, Topology, TopologyGroup};

/// A path about to join the map. Its owner has opened it, claimed it and read
/// `identity` through the very file that will carry the I/O (law 2).
#[derive(Clone, Debug)]
pub struct NewPath {
    /// Unique name within the map.
    pub name: String,
    /// What it leads to.
    pub identity: Identity,
    /// How to check it, where the policy does not say.
    pub checker: CheckerKind,
    /// What grouping and prioritizers go by.
    pub attributes: Attributes,
    /// What its prioritizer found when it was opened; `None`: it is asked at
    /// once, and the path carries I/O meanwhile.
    pub reading: Option<Reading>,
}

/// Why a path cannot join, or an administrator's request cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// Different WWID.
    #[error(
        "path {name} leads to another LU: its WWID is {found}, the map's is {expected}; \
         remove it, or start a second instance for that LU"
    )]
    OtherLu {
        /// The path.
        name: String,
        /// Its WWID.
        found: String,
        /// The map's.
        expected: String,
    },
    /// Same WWID, different capacity or block size.
    #[error(
        "path {name} has {found_blocks} blocks of {found_size} bytes, the map has \
         {blocks} of {size}; rescan the device so that all paths agree"
    )]
    OtherSize {
        /// The path.
        name: String,
        /// Its capacity.
        found_blocks: u64,
        /// Its block size.
        found_size: u32,
        /// The map's capacity.
        blocks: u64,
        /// The map's block size.
        size: u32,
    },
    /// The name is taken.
    #[error("path {0} is in the map already; give the second one another name")]
    Duplicate(String),
    /// No free slot.
    #[error("the map has {MAX_PATHS} paths already, which is the most it can have")]
    Full,
    /// No such path.
    #[error("there is no path {0} in the map; `show paths` lists them")]
    NoSuchPath(String),
    /// Taking the last path away would leave nothing.
    #[error("path {0} is the map's last path; add another first, or `quit`")]
    LastPath(String),
    /// No such path group.
    #[error(
        "there is no path group {number} in the map, which has {count}; `show topology` numbers them"
    )]
    NoSuchGroup {
        /// Asked for.
        number: u16,
        /// How many there are.
        count: usize,
    },
    /// No path of the group carries I/O, nor can be activated.
    #[error("no path of group {0} can carry I/O now; `show topology` says why")]
    GroupPassive(u16),
    /// One activation at a time.
    #[error("a path group is being activated; try again when that has ended")]
    Activating,
}

/// The state machine of one map.
#[derive(Debug)]
pub struct Multipath {
    identity: Identity,
    policy: Policy,
    /// By slot.
    paths: Vec<Option<Path>>,
    /// Generations used per slot, so that none is used twice.
    generations: Vec<u32>,
    /// Slots of removed paths that a queue thread may still use.
    retiring: Vec<PathId>,
    /// Slots in the order in which paths were configured.
    order: Vec<u8>,
    groups: Vec<PathGroup>,
    /// Index into `groups` of the one in use.
    current: Option<usize>,
    failback: FailbackState,
    pg_init: Option<PgInit>,
    patience: Patience,
    /// Target port groups in transition are read again then.
    reread_at: Option<Time>,
    published: Option<Arc<PathTable>>,
    generation: u64,
    numbers: u32,
    no_path_since: Option<Time>,
    /// No path carries I/O: each is looked at all the time.
    watching: bool,
    queueing_ended: bool,
    /// `disablequeueing`.
    queueing_disabled: bool,
    /// The last path was taken away and nothing is to wait for another.
    flushed: bool,
    path_faults: u64,
    switches: u64,
    queue_timeouts: u64,
    lun_gone: bool,
    reservations: Reservations,
}

impl Multipath {
    /// A map of `identity` without paths.
    pub fn new(identity: Identity, policy: Policy) -> Multipath {
        Multipath {
            identity,
            policy,
            paths: Vec::new(),
            generations: Vec::new(),
            retiring: Vec::new(),
            order: Vec::new(),
            groups: Vec::new(),
            current: None,
            failback: FailbackState::default(),
            pg_init: None,
            patience: Patience::default(),
            reread_at: None,
            published: None,
            generation: 0,
            numbers: 0,
            no_path_since: None,
            watching: false,
            queueing_ended: false,
            queueing_disabled: false,
            flushed: false,
            path_faults: 0,
            switches: 0,
            queue_timeouts: 0,
            lun_gone: false,
            reservations: Reservations::default(),
        }
    }

    /// What the map is a map of.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The table last published.
    pub fn table(&self) -> Option<&Arc<PathTable>> {
        self.published.as_ref()
    }

    /// The path of that id, if it is still in the map.
    pub fn path(&self, id: PathId) -> Option<&Path> {
        self.paths.get(usize::from(id.slot))?.as_ref().filter(|p| p.id == id)
    }

    /// The path of that name.
    pub fn path_by_name(&self, name: &str) -> Result<&Path, MapError> {
        self.all().find(|p| p.name == name).ok_or_else(|| MapError::NoSuchPath(name.to_owned()))
    }

    /// Takes one step.
    pub fn handle(&mut self, now: Time, event: Event, fx: &mut Effects) {
        match event {
            Event::Io(report) => self.io_report(now, report, fx),
            Event::Checked { path, check, verdict } => self.checked(now, path, check, verdict, fx),
            Event::Proven { path, proof, identity } => {
                self.proven(now, path, proof, identity, fx);
            }
            Event::Recognized { path, proof, wwid } => self.recognized(now, path, proof, wwid, fx),
            Event::Prioritized { path, reading, found } => {
                self.prioritized(now, path, reading, &found, fx);
            }
            Event::Activated { path, activation, result } => {
                self.activated(now, path, activation, result, fx);
            }
            Event::Sampled { path, sample, good } => self.sampled(path, sample, good),
            Event::Told { path, news } => self.told(now, path, news, fx),
            Event::Ordered { order, out } => self.ordered(order, out),
            Event::Withdrawn { order } => self.withdrawn(order),
            Event::Reserved { path, job, answer } => self.reserved(now, path, job, &answer, fx),
            Event::Quiet { generation } => self.quiet(generation),
            Event::Timer => {}
        }
        self.run_due_checks(now, fx);
        self.run_due_readings(now, fx);
        self.run_due_activations(now, fx);
        self.run_due_reservations(now, fx);
        self.settle(now, fx);
    }

    /// A copy of the state for display.
    pub fn topology(&self) -> Topology {
        let group = |(i, g): (usize, &PathGroup)| {
            let rank = self.rank(i);
            TopologyGroup {
                number: group_number(i),
                priority: rank.priority,
                status: match (rank.usable && !self.is_bypassed(i), self.current == Some(i)) {
                    (false, _) => GroupStatus::Disabled,
                    (true, true) => GroupStatus::Active,
                    (true, false) => GroupStatus::Enabled,
                },
                marginal: g.marginal,
                paths: self.members(g).cloned().collect(),
            }
        };
        Topology {
            identity: self.identity.clone(),
            policy: self.policy.clone(),
            groups: self.groups.iter().enumerate().map(group).collect(),
            queueing: self.queueing() == Queueing::Hold,
            queueing_disabled: self.queueing_disabled,
            failback_at: self.failback_deadline(),
            usable: self.usable(),
            carrying: self.carrying(),
            path_faults: self.path_faults,
            switches: self.switches,
            generation: self.generation,
            queue_timeouts: self.queue_timeouts,
            reservation: self.reservation_facts(),
        }
    }

    // --- what happens to a path -------------------------------------------

    fn io_report(&mut self, now: Time, report: IoReport, fx: &mut Effects) {
        let id = report.path;
        if let IoReason::Judged { verdict: PathVerdict::Doubt, .. } = report.reason {
            return self.doubt(now, id, Cause::Io(report.reason), fx);
        }
        if identity::says_resized(&report.reason) {
            return self.resized(now, id, fx);
        }
        // The array says this once, too, perhaps to an earlier epoch's command.
        if let IoReason::Judged { verdict: PathVerdict::Refresh, .. } = report.reason {
            return self.refresh(now, id, fx);
        }
        // A report about an earlier epoch, or about a path that is not in
        // use, says nothing new.
        if !self.path(id).is_some_and(|p| p.epoch == report.epoch && p.is_usable()) {
            return;
        }
        let cause = Cause::Io(report.reason);
        match report.reason {
            IoReason::Judged { verdict: PathVerdict::Keep, .. } => {}
            IoReason::Judged { verdict: PathVerdict::Check, .. } => self.check_now(now, id, fx),
            IoReason::Judged { verdict: PathVerdict::Fail, .. } => {
                if let Some(path) = self.path_mut(id) {
                    path.no_lun |= identity::says_no_lun(&report.reason);
                }
                self.fail(now, id, cause, fx);
            }
            IoReason::Judged { verdict: PathVerdict::Marginal, .. } => {
                self.reported_marginal(now, id, fx);
            }
            IoReason::Judged { verdict: PathVerdict::Passive, .. } => {
                self.passive(now, id, &report.reason, fx);
            }
            IoReason::Judged { verdict: PathVerdict::Conflict, .. } => self.conflict(now, id),
            IoReason::Judged { verdict: PathVerdict::Doubt | PathVerdict::Refresh, .. } => {} // above
            IoReason::Hung { .. } => {
                self.set_aside(id, PathState::Suspect, cause, fx);
                self.check_now(now, id, fx);
            }
        }
    }

    /// The host's kernel has heard something of the LU by this path. Most often
    /// a command of ours has heard it as well; but a block device's reads and
    /// writes do not tell (design of `blk-uring`), nor do others' commands.
    fn told(&mut self, now: Time, id: PathId, news: HostNews, fx: &mut Effects) {
        match news {
            HostNews::PerhapsAnother(word) => self.doubt(now, id, Cause::Host(word), fx),
            HostNews::Capacity => self.resized(now, id, fx),
            HostNews::AccessStates => self.refresh(now, id, fx),
        }
    }

    /// Takes a path out of use. Told once: a path that is down stays down
    /// silently, unless the cause becomes a different identity.
    fn fail(&mut self, now: Time, id: PathId, cause: Cause, fx: &mut Effects) {
        self.found_bad(now, id, &cause, fx);
        let Some(retry) = self.path(id).map(|p| self.retry_interval(now, p)) else { return };
        let watching = self.watching;
        let Some(path) = self.path_mut(id) else { return };
        let news = path.state != PathState::Failed
            || (matches!(cause, Cause::IdentityMismatch { .. })
                && path.last_cause.as_ref() != Some(&cause));
        if path.is_usable() {
            // Begun while it was in use: says nothing about its return.
            path.proof = None;
        }
        // (One that was out of use before and is watched is not asked the later for it.)
        if path.state != PathState::Failed && (path.is_usable() || !watching) {
            path.interval = check::SOON.min(retry);
            path.next_check = now + path.interval;
        }
        path.state = PathState::Failed;
        path.shrunk_to = None;
        let good = matches!(path.checker_state, CheckerState::Ready | CheckerState::Delayed);
        if good && !path.failed_by_administrator {
            path.checker_state = CheckerState::Faulty;
        }
        if !news {
            return;
        }
        path.failures += 1;
        path.last_cause = Some(cause.clone());
        let name = path.name.clone();
        self.path_faults += 1;
        let left = self.usable();
        fx.push(Effect::Notify(Change::PathFailed { path: name, cause, left }));
    }

    /// Nothing new goes to a usable path until it is cleared.
    fn set_aside(&mut self, id: PathId, state: PathState, cause: Cause, fx: &mut Effects) {
        let Some(path) = self.path_mut(id) else { return };
        path.state = state;
        path.proof = None; // as in `fail`
        path.last_cause = Some(cause.clone());
        let name = path.name.clone();
        let left = self.usable();
        fx.push(Effect::Notify(Change::PathSuspect { path: name, cause, left }));
    }

    // --- small things -------------------------------------------------------

    fn all(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().flatten()
    }

    fn members<'a>(&'a self, group: &'a PathGroup) -> impl Iterator<Item = &'a Path> {
        group.slots.iter().filter_map(|&s| self.paths[usize::from(s)].as_ref())
    }

    fn path_mut(&mut self, id: PathId) -> Option<&mut Path> {
        self.paths.get_mut(usize::from(id.slot))?.as_mut().filter(|p| p.id == id)
    }

    fn usable(&self) -> usize {
        self.all().filter(|p| p.is_usable()).count()
    }
}

/// Groups are counted from 1, as `multipath -ll` and `switchgroup` do.
fn group_number(index: usize) -> u16 {
    u16::try_from(index + 1).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
