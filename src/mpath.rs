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

pub mod checker;
pub mod classify;
pub mod effect;
pub mod event;
pub mod hwhandler;
mod identity;
pub mod path;
pub mod path_group;
mod pending;
pub mod policy;
pub mod prio;
pub mod probe;
pub mod selector;
mod settle;
pub mod snapshot;
pub mod topology;

use std::sync::Arc;
use std::time::Duration;

use crate::io::{Identity, Time};
use checker::{CheckerKind, Verdict};
use classify::PathVerdict;
use effect::{Cause, Change, Effect, Effects};
use event::{Event, IoReason, IoReport};
use path::{Access, CheckerState, Outstanding, Path, PathState};
use path_group::PathGroup;
use policy::Policy;
use prio::{Attributes, Reading};
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
    published: Option<Arc<PathTable>>,
    generation: u64,
    numbers: u32,
    no_path_since: Option<Time>,
    queueing_ended: bool,
    path_faults: u64,
    switches: u64,
    queue_timeouts: u64,
    lun_gone: bool,
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
            published: None,
            generation: 0,
            numbers: 0,
            no_path_since: None,
            queueing_ended: false,
            path_faults: 0,
            switches: 0,
            queue_timeouts: 0,
            lun_gone: false,
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

    /// Adds a proven path; it carries I/O from the next table on.
    ///
    /// The owner makes the path known to the queue threads under the returned
    /// id *before* it carries out the effects.
    pub fn add_path(
        &mut self,
        now: Time,
        new: NewPath,
        fx: &mut Effects,
    ) -> Result<PathId, MapError> {
        self.admits(&new.name, &new.identity)?;
        let slot = self.free_slot()?;
        let id = PathId { slot, generation: self.generations[usize::from(slot)] };
        // Spread the checks of a map's paths over the interval.
        let interval = self.policy.polling_interval;
        let next_check = now + interval * u32::from(slot % 8) / 8 + interval / 2;
        let name = new.name.clone();
        let capacity = new.identity.capacity;
        self.paths[usize::from(slot)] = Some(Path {
            id,
            name: new.name,
            checker: new.checker,
            attributes: new.attributes,
            access: Access::default(),
            marginal: false,
            state: PathState::Active,
            checker_state: CheckerState::Ready,
            failed_by_administrator: false,
            priority: 1,
            epoch: 1,
            failures: 0,
            last_cause: None,
            capacity,
            shrunk_to: None,
            no_lun: false,
            next_check,
            interval,
            check: None,
            proof: None,
        });
        self.order.push(slot);
        self.regroup();
        fx.push(Effect::Notify(Change::PathAdded { path: name }));
        self.settle(now, fx);
        Ok(id)
    }

    /// Whether a path of that name and identity could be added: lets the owner
    /// refuse before it spends anything on the path.
    pub fn admits(&self, name: &str, found: &Identity) -> Result<(), MapError> {
        if self.all().any(|p| p.name == name) {
            return Err(MapError::Duplicate(name.to_owned()));
        }
        let map = &self.identity;
        if found.wwid != map.wwid {
            return Err(MapError::OtherLu {
                name: name.to_owned(),
                found: found.wwid.clone(),
                expected: map.wwid.clone(),
            });
        }
        if (found.capacity, found.block_size) != (map.capacity, map.block_size) {
            return Err(MapError::OtherSize {
                name: name.to_owned(),
                found_blocks: found.capacity.0,
                found_size: found.block_size,
                blocks: map.capacity.0,
                size: map.block_size,
            });
        }
        Ok(())
    }

    /// `del path`: takes the path out of the map.
    pub fn remove_path(
        &mut self,
        now: Time,
        name: &str,
        fx: &mut Effects,
    ) -> Result<PathId, MapError> {
        let id = self.path_by_name(name)?.id;
        if self.order.len() == 1 {
            return Err(MapError::LastPath(name.to_owned()));
        }
        let slot = usize::from(id.slot);
        let in_use = self.current.map(|c| self.groups[c].slots.clone());
        self.paths[slot] = None;
        self.generations[slot] += 1;
        self.retiring.push(id);
        self.order.retain(|&s| s != id.slot);
        self.regroup();
        // Removing a path must not move I/O off the group in use.
        self.current = in_use.and_then(|old| {
            self.groups.iter().position(|g| g.slots.iter().any(|s| old.contains(s)))
        });
        fx.push(Effect::Notify(Change::PathRemoved { path: name.to_owned() }));
        self.settle(now, fx);
        fx.push(Effect::Retire(id));
        Ok(id)
    }

    /// The owner has closed a path it was told to retire: its slot is free.
    pub fn retired(&mut self, id: PathId) {
        self.retiring.retain(|&leaving| leaving != id);
    }

    /// `fail path`: no I/O on it until [`Multipath::reinstate_path`].
    pub fn fail_path(&mut self, now: Time, name: &str, fx: &mut Effects) -> Result<(), MapError> {
        let id = self.path_by_name(name)?.id;
        if let Some(path) = self.path_mut(id) {
            path.failed_by_administrator = true;
        }
        self.fail(now, id, Cause::Administrator, fx);
        self.settle(now, fx);
        Ok(())
    }

    /// `reinstate path`: lifts `fail path`. The path is checked and its
    /// identity proven at once; it carries I/O when both succeed.
    pub fn reinstate_path(
        &mut self,
        now: Time,
        name: &str,
        fx: &mut Effects,
    ) -> Result<(), MapError> {
        let id = self.path_by_name(name)?.id;
        if let Some(path) = self.path_mut(id) {
            path.failed_by_administrator = false;
        }
        self.check_now(now, id, fx);
        self.settle(now, fx);
        Ok(())
    }

    /// Takes one step.
    pub fn handle(&mut self, now: Time, event: Event, fx: &mut Effects) {
        match event {
            Event::Io(report) => self.io_report(now, report, fx),
            Event::Checked { path, check, verdict } => self.checked(now, path, check, verdict, fx),
            Event::Proven { path, proof, identity } => {
                self.proven(now, path, proof, identity, fx);
            }
            // Being built.
            Event::Prioritized { .. } | Event::Activated { .. } | Event::Sampled { .. } => {}
            Event::Timer => {}
        }
        self.run_due_checks(now, fx);
        self.settle(now, fx);
    }

    /// When to send the next `Event::Timer`; `None` while there is no path.
    pub fn next_deadline(&self) -> Option<Time> {
        let due = |p: &Path| {
            let asked = [p.check, p.proof].into_iter().flatten();
            let timeouts = asked.filter(|o| !o.late).map(|o| o.since + self.policy.checker_timeout);
            let idle = p.check.is_none() && p.proof.is_none();
            timeouts.chain(idle.then_some(p.next_check)).min()
        };
        let paths = self.all().filter_map(due);
        paths.chain(self.queueing_deadline()).min()
    }

    /// A copy of the state for display.
    pub fn topology(&self) -> Topology {
        let group = |(i, g): (usize, &PathGroup)| {
            let rank = path_group::rank(self.members(g));
            TopologyGroup {
                number: group_number(i),
                priority: rank.priority,
                status: match (rank.usable, self.current == Some(i)) {
                    (false, _) => GroupStatus::Disabled,
                    (true, true) => GroupStatus::Active,
                    (true, false) => GroupStatus::Enabled,
                },
                paths: self.members(g).cloned().collect(),
            }
        };
        Topology {
            identity: self.identity.clone(),
            policy: self.policy.clone(),
            groups: self.groups.iter().enumerate().map(group).collect(),
            queueing: self.queueing() == Queueing::Hold,
            usable: self.usable(),
            path_faults: self.path_faults,
            switches: self.switches,
            generation: self.generation,
            queue_timeouts: self.queue_timeouts,
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
            IoReason::Judged { verdict: PathVerdict::Doubt, .. } => {} // above
            // Being built.
            IoReason::Judged { .. } => {}
            IoReason::Hung { .. } => {
                self.set_aside(id, PathState::Suspect, cause, fx);
                self.check_now(now, id, fx);
            }
        }
    }

    fn checked(&mut self, now: Time, id: PathId, check: u32, verdict: Verdict, fx: &mut Effects) {
        let (polling, ceiling) = (self.policy.polling_interval, self.policy.max_polling_interval());
        let Some(path) = self.path_mut(id) else { return };
        if path.check.is_none_or(|o| o.number != check) {
            return;
        }
        path.check = None;
        path.checker_state = match verdict {
            Verdict::Up { .. } | Verdict::Resized => CheckerState::Ready,
            Verdict::Ghost => CheckerState::Ghost,
            Verdict::Pending => CheckerState::Pending,
            Verdict::Shaky => CheckerState::Shaky,
            Verdict::Down => CheckerState::Faulty,
            Verdict::Disconnected => CheckerState::Disconnected,
            Verdict::TimedOut => CheckerState::TimedOut,
        };
        match verdict {
            Verdict::Disconnected => path.no_lun = true,
            // Nothing has answered.
            Verdict::Down | Verdict::TimedOut => {}
            _ => path.no_lun = false,
        }
        path.interval = match verdict {
            Verdict::Up { .. } | Verdict::Resized if path.is_usable() => {
                (path.interval * 2).min(ceiling)
            }
            Verdict::Pending => Duration::from_secs(1),
            _ => polling,
        };
        path.next_check = now + path.interval;
        match (verdict, path.state) {
            (Verdict::Up { doubt: false }, PathState::Active) | (Verdict::Pending, _) => {}
            (Verdict::Up { .. }, PathState::Active) => {
                self.doubt(now, id, Cause::Checker("unit attention"), fx);
            }
            (Verdict::Resized, PathState::Active) => self.resized(now, id, fx),
            (Verdict::Up { .. } | Verdict::Resized, _) if path.failed_by_administrator => {}
            (Verdict::Up { .. } | Verdict::Resized, _) => self.prove(now, id, fx),
            (down, _) => {
                let word = match down {
                    Verdict::Ghost => "ghost",
                    Verdict::Disconnected => "disconnected",
                    Verdict::TimedOut => "i/o timeout",
                    _ => "faulty",
                };
                self.fail(now, id, Cause::Checker(word), fx);
            }
        }
    }

    /// Takes a path out of use. Told once: a path that is down stays down
    /// silently, unless the cause becomes a different identity.
    fn fail(&mut self, now: Time, id: PathId, cause: Cause, fx: &mut Effects) {
        let interval = self.policy.polling_interval;
        let Some(path) = self.path_mut(id) else { return };
        let news = path.state != PathState::Failed
            || (matches!(cause, Cause::IdentityMismatch { .. })
                && path.last_cause.as_ref() != Some(&cause));
        if path.is_usable() {
            // Begun while it was in use: says nothing about its return.
            path.proof = None;
        }
        path.state = PathState::Failed;
        path.shrunk_to = None;
        path.interval = interval;
        path.next_check = now + interval;
        if matches!(path.checker_state, CheckerState::Ready) && !path.failed_by_administrator {
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

    // --- checks -----------------------------------------------------------

    fn check_now(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        self.numbers = self.numbers.wrapping_add(1);
        let number = self.numbers;
        let Some(path) = self.path_mut(id) else { return };
        // One check at a time: the answer under way counts.
        if path.check.is_none() && path.proof.is_none() {
            path.check = Some(Outstanding { number, since: now, late: false });
            fx.push(Effect::Check { path: id, check: number, checker: path.checker });
        }
    }

    fn run_due_checks(&mut self, now: Time, fx: &mut Effects) {
        let timeout = self.policy.checker_timeout;
        for slot in self.order.clone() {
            let Some(path) = self.paths[usize::from(slot)].as_mut() else { continue };
            let id = path.id;
            let mut timed_out = false;
            for o in [&mut path.check, &mut path.proof].into_iter().flatten() {
                timed_out |= !o.late && o.since + timeout <= now;
                o.late |= timed_out;
            }
            if timed_out {
                path.checker_state = CheckerState::TimedOut;
                self.fail(now, id, Cause::Checker("i/o timeout"), fx);
            } else if path.check.is_none() && path.proof.is_none() && path.next_check <= now {
                self.check_now(now, id, fx);
            }
        }
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

    fn first_free(&self) -> Option<usize> {
        let leaving = |slot: u8| self.retiring.iter().any(|id| id.slot == slot);
        (0u8..).zip(&self.paths).position(|(s, p)| p.is_none() && !leaving(s))
    }

    fn free_slot(&mut self) -> Result<u8, MapError> {
        let slot = match self.first_free() {
            Some(free) => free,
            None if self.paths.len() < MAX_PATHS => {
                self.paths.push(None);
                self.generations.push(0);
                self.paths.len() - 1
            }
            None => return Err(MapError::Full),
        };
        u8::try_from(slot).map_err(|_| MapError::Full)
    }
}

/// Groups are counted from 1, as `multipath -ll` and `switchgroup` do.
fn group_number(index: usize) -> u16 {
    u16::try_from(index + 1).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
