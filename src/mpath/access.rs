//! Access states: which paths can carry I/O as the array is now (ALUA, SPC-5
//! 5.16; passive controllers), and when that and the priorities are read.
//!
//! What is known of a path comes from three sides: readings of the target port
//! groups (a reading by one path counts for every path of the groups it names),
//! the sense of guests' commands (which counts until a reading that was begun
//! later), and the checker (*ghost*). A path that is passive is in order: it has
//! not failed, and it carries nothing. Not here: how a passive path is made to
//! carry I/O (`pg_init`), and what a prioritizer sends (`prio`).

use std::time::Duration;

use super::Multipath;
use super::checker::Verdict;
use super::effect::{Change, Effect, Effects};
use super::event::IoReason;
use super::path::{Access, CheckerState, Outstanding, Path};
use super::policy::GroupingPolicy;
use super::prio::{AluaReading, PrioKind, Reading};
use super::snapshot::PathId;
use crate::io::{Completion, Time};
use crate::scsi::alua::AccessState;

/// A target port group in transition is read this often.
pub(super) const REREAD: Duration = Duration::from_secs(1);

/// What the engine keeps of a path besides its [`Access`].
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// TPGS: states change by SET TARGET PORT GROUPS; `None`: not known.
    pub(super) explicit: Option<bool>,
    /// How long its group may be in transition, as the array states it.
    transition: Option<Duration>,
    /// Number of the latest request when the state became what it is: what was
    /// begun before says nothing about it.
    as_of: u32,
    /// The state is what a guest's command was told, not yet what was read.
    told: bool,
    /// No reading will say, or the latest did not: it is for the checker to.
    unread: bool,
    /// In transition until then, and for standby afterwards.
    until: Option<Time>,
    /// It has been in transition for too long.
    overdue: bool,
    /// When a reading, or the checker, said last that it carries I/O although a
    /// command had been told that it does not.
    contradicted: Option<Time>,
    /// A command has been told so again within a second of that: it is passive
    /// until then, and read again.
    pause: Option<Time>,
    /// The checker said *ghost* last.
    pub(super) ghost: bool,
    /// It has been proven to be the map's LU, but for its capacity, which
    /// cannot be read of a passive path.
    pub(super) unsized_lu: bool,
    /// It is marginal, and others can do without it.
    pub(super) held_back: bool,
    /// Its priority has been read.
    pub(super) read: bool,
    /// A reading under way.
    reading: Option<Outstanding>,
    /// That one was begun too early to count: another follows.
    again: bool,
    /// That one is due to what another path's reading found.
    follows: bool,
}

impl Standing {
    /// A path carries I/O as far as its array is concerned.
    pub(super) fn carries(&self, access: Access) -> bool {
        !self.ghost && access.state.is_none_or(AccessState::carries_io)
    }

    /// Its target port group is in transition.
    pub(super) fn in_transition(&self) -> bool {
        self.until.is_some()
    }

    /// Whether its priority is being read, and the answer may still come.
    pub(super) fn is_being_read(&self) -> bool {
        self.reading.is_some_and(|o| !o.late)
    }

    /// What says now that it carries I/O contradicts what a command was told;
    /// whether that is to be believed yet.
    fn believes(&mut self, now: Time) -> bool {
        if self.told && self.pause.is_none() {
            self.contradicted = Some(now);
        }
        self.pause.is_none()
    }

    /// What makes the state known: whether it was the guest that was told.
    fn known(&mut self, as_of: u32, told: bool) {
        (self.as_of, self.told, self.unread) = (as_of, told, false);
        self.pause = None;
    }
}

/// What a reading found to be another than it was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// The path's priority.
    priority: bool,
    /// The access state of a path.
    access: bool,
}

/// Whether what was asked for by `number` was begun after `as_of`.
fn is_later(number: u32, as_of: u32) -> bool {
    (1..u32::MAX / 2).contains(&number.wrapping_sub(as_of))
}

/// The access state that a command was told.
fn told(reason: &IoReason) -> AccessState {
    let code = match reason {
        IoReason::Judged { completion: Completion::Scsi { sense, .. }, .. } => sense.code(),
        _ => None,
    };
    match code.map(|c| (c.asc, c.ascq)) {
        Some((0x04, 0x0a)) => AccessState::Transitioning,
        Some((0x04, 0x0c)) => AccessState::Unavailable,
        Some((0x04, 0x12)) => AccessState::Offline,
        _ => AccessState::Standby,
    }
}

impl Multipath {
    /// Paths that carry I/O.
    pub(super) fn carrying(&self) -> usize {
        self.all().filter(|p| p.carries()).count()
    }

    // --- what a path is told ------------------------------------------------

    /// A guest's command was told that the path's target port group does not
    /// carry I/O now. It has not failed; what is true of it is read.
    pub(super) fn passive(&mut self, now: Time, id: PathId, reason: &IoReason, fx: &mut Effects) {
        let (number, reads) = (self.numbers, self.policy.prio.reads_access());
        let Some(path) = self.path_mut(id).filter(|p| p.carries()) else { return };
        let access = Access { state: Some(told(reason)), ..path.access };
        path.standing.known(number, true);
        // Nothing is to be hoped for of a reading that is late.
        let late = path.standing.reading.is_some_and(|o| o.late);
        path.standing.unread = !reads || late;
        let again = path.standing.contradicted.is_some_and(|at| now < at + REREAD);
        self.set_access(now, id, access, fx);
        if again {
            return self.pause(now, id);
        }
        self.prioritize(now, id, fx);
        if !reads || late {
            self.check_now(now, id, fx);
        }
    }

    /// The array says that the path carries I/O and answers I/O otherwise. It is
    /// not asked as fast as it answers; one reading covers its group, so the
    /// paths of a group wait for the same moment.
    fn pause(&mut self, now: Time, id: PathId) {
        let group = self.path(id).and_then(|p| p.access.group);
        let same = |p: &&Path| group.is_some() && p.access.group == group;
        let until = self.all().filter(same).filter_map(|p| p.standing.pause).min();
        if let Some(path) = self.path_mut(id) {
            path.standing.pause = Some(until.unwrap_or(now + REREAD));
        }
    }

    /// Looks into the paths whose pause is over.
    fn end_pauses(&mut self, now: Time, fx: &mut Effects) {
        let mut groups: Vec<u16> = Vec::new();
        let over = |p: &&Path| p.standing.pause.is_some_and(|until| until <= now);
        let ids: Vec<PathId> = self.all().filter(over).map(|p| p.id).collect();
        for id in ids {
            let Some(path) = self.path_mut(id) else { continue };
            path.standing.pause = None;
            let (unread, group) = (path.standing.unread, path.access.group);
            if !path.is_usable() {
                continue; // it is read when it returns
            }
            if unread {
                self.check_now(now, id, fx);
            } else if group.is_none_or(|group| !groups.contains(&group)) {
                groups.extend(group);
                self.prioritize(now, id, fx);
            }
        }
    }

    /// The access states or priorities are others now. One reading covers all
    /// paths: one that has begun already may have read too early, and is
    /// followed by one more, however many paths tell of it.
    pub(super) fn refresh(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        let reads_groups = self.policy.prio.reads_groups();
        let usable = |p: &&Path| p.is_usable();
        // (A prioritizer that reads no groups speaks for its own path.)
        let covers = |p: &&Path| p.standing.is_being_read() && (reads_groups || p.id == id);
        let by = self.all().filter(usable).find(covers).map(|p| p.id);
        let by = by.or_else(|| self.path(id).filter(usable).map(|p| p.id));
        let by = by.or_else(|| self.all().find(usable).map(|p| p.id));
        if let Some(by) = by {
            self.prioritize(now, by, fx);
        }
    }

    // --- readings ------------------------------------------------------------

    /// Has the path's priority read; if that is under way already, once more
    /// afterwards.
    pub(super) fn prioritize(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        let Some(path) = self.path_mut(id) else { return };
        path.standing.again |= path.standing.reading.is_some();
        self.read(now, id, false, fx);
    }

    /// Has the priority of every path but this one read, unless that is under
    /// way.
    pub(super) fn prioritize_others(&mut self, now: Time, besides: PathId, fx: &mut Effects) {
        let others = self.all().filter(|p| p.is_usable() && p.id != besides);
        let ids: Vec<PathId> = others.map(|p| p.id).collect();
        for id in ids {
            self.read(now, id, true, fx);
        }
    }

    /// Another prioritizer is in force: what the old one found is no measure
    /// any more, and what it is just finding is not waited for.
    pub(super) fn prio_changed(&mut self, now: Time, fx: &mut Effects) {
        let (number, prio) = (self.numbers, self.policy.prio.clone());
        let ids: Vec<PathId> = self.all().map(|p| p.id).collect();
        for id in ids {
            let Some(path) = self.path_mut(id) else { continue };
            path.standing.read = false;
            path.listed.joins = path.is_usable();
            if prio == PrioKind::Const {
                path.standing.reading = None;
                path.priority = 1;
            }
            if !prio.reads_access() {
                // From now on it is for the checker, and guests' commands.
                path.standing.explicit = None;
                if path.standing.carries(path.access) {
                    path.standing.known(number, false);
                    let access = Access { state: None, ..path.access };
                    self.set_access(now, id, access, fx);
                } else if path.access.state.is_some() {
                    // It stays passive until the checker says otherwise.
                    path.standing.known(number, true);
                    path.standing.unread = true;
                    if path.is_usable() {
                        self.check_now(now, id, fx);
                    }
                }
            }
            if self.path(id).is_some_and(Path::is_usable) {
                self.prioritize(now, id, fx);
            }
        }
    }

    fn read(&mut self, now: Time, id: PathId, follows: bool, fx: &mut Effects) {
        let prio = self.policy.prio.clone();
        self.numbers = self.numbers.wrapping_add(1);
        let number = self.numbers;
        let Some(path) = self.path_mut(id).filter(|p| p.standing.reading.is_none()) else { return };
        if prio == PrioKind::Const {
            path.standing.again = false;
            return;
        }
        path.standing.reading = Some(Outstanding { number, since: now, late: false });
        path.standing.follows = follows;
        fx.push(Effect::Prioritize { path: id, reading: number, prio });
    }

    pub(super) fn prioritized(
        &mut self,
        now: Time,
        id: PathId,
        number: u32,
        found: &Reading,
        fx: &mut Effects,
    ) {
        let Some(path) = self.path_mut(id) else { return };
        if path.standing.reading.is_none_or(|o| o.number != number) {
            return;
        }
        path.standing.reading = None;
        let again = std::mem::take(&mut path.standing.again);
        // One that may lead elsewhere now, or is out of use, is read when it
        // returns.
        let early = found.alua.is_some() && !is_later(number, path.standing.as_of);
        if path.is_usable() {
            let follows = path.standing.follows;
            if early {
                // Its priority is that of a state which is over.
                self.read(now, id, true, fx);
            } else {
                let number = Some(number);
                let Found { priority, access } = self.take_reading(now, id, number, found, fx);
                if access || (priority && !follows) {
                    // If one has changed, all are read (multipath-tools).
                    self.prioritize_others(now, id, fx);
                }
            }
            if again {
                self.read(now, id, false, fx);
            }
        }
    }

    /// Takes over what a reading found; what is another than it was. One without
    /// a number is as old as its path's opening: a command knows better.
    pub(super) fn take_reading(
        &mut self,
        now: Time,
        id: PathId,
        number: Option<u32>,
        found: &Reading,
        fx: &mut Effects,
    ) -> Found {
        let Some(path) = self.path_mut(id) else { return Found::default() };
        let priority = found.priority.unwrap_or(path.priority);
        let another = std::mem::replace(&mut path.priority, priority) != priority;
        let mut news = Found { priority: another, access: false };
        let first = found.priority.is_some() && !path.standing.read;
        path.standing.read |= first;
        path.listed.joined |= first && std::mem::take(&mut path.listed.joins);
        if let Some(alua) = &found.alua {
            news.access = self.take_groups(now, id, number, alua, fx);
        } else if path.standing.told {
            // Once: the checker goes on asking by itself.
            if !std::mem::replace(&mut path.standing.unread, true) {
                self.check_now(now, id, fx);
            }
        }
        let by_reading = matches!(
            self.policy.grouping,
            GroupingPolicy::GroupByPrio | GroupingPolicy::GroupByTpg
        );
        let changed = news.priority || news.access;
        if first || (changed && by_reading) {
            self.regroup();
        }
        self.failback.pinned &= !changed;
        news
    }

    fn take_groups(
        &mut self,
        now: Time,
        id: PathId,
        number: Option<u32>,
        alua: &AluaReading,
        fx: &mut Effects,
    ) -> bool {
        let (mut changed, latest) = (false, self.numbers);
        if let Some(path) = self.path_mut(id) {
            changed = path.access.group != Some(alua.own);
            path.access.group = Some(alua.own);
            path.standing.explicit = Some(alua.explicit);
        }
        let paths: Vec<(PathId, Option<u16>)> =
            self.all().map(|p| (p.id, p.access.group)).collect();
        for (id, group) in paths {
            let Some(group) = group else { continue };
            let Some(&(_, state, preferred)) = alua.groups.iter().find(|g| g.0 == group) else {
                continue;
            };
            let Some(path) = self.path_mut(id) else { continue };
            path.standing.transition = alua.transition.or(path.standing.transition);
            let as_of = path.standing.as_of;
            let counts = number.map_or(!path.standing.told, |number| is_later(number, as_of));
            if counts && (!state.carries_io() || path.standing.believes(now)) {
                path.standing.known(number.unwrap_or(latest), false);
                let access = Access { group: Some(group), state: Some(state), preferred };
                changed |= self.set_access(now, id, access, fx);
            }
        }
        changed
    }

    /// Sets the access state of a path; whether it is another than it was. A
    /// group that stays in transition for too long is taken for standby.
    fn set_access(&mut self, now: Time, id: PathId, mut to: Access, fx: &mut Effects) -> bool {
        let patience = self.policy.transition_timeout;
        let Some(path) = self.path_mut(id) else { return false };
        let patience = path.standing.transition.unwrap_or(patience);
        if to.state != Some(AccessState::Transitioning) {
            (path.standing.until, path.standing.overdue) = (None, false);
        } else if path.standing.overdue {
            to.state = Some(AccessState::Standby);
        } else {
            path.standing.until = path.standing.until.or(Some(now + patience));
        }
        let from = std::mem::replace(&mut path.access, to);
        if (from.state, from.preferred) == (to.state, to.preferred) {
            return false;
        }
        path.init.bypassed = None;
        if from.state.is_some() || to.state.is_some_and(|s| !s.carries_io()) {
            let name = path.name.clone();
            fx.push(Effect::Notify(Change::AccessChanged { path: name, access: to }));
        }
        let again = now + REREAD;
        if self.all().any(|p| p.standing.in_transition()) {
            self.reread_at = self.reread_at.or(Some(again));
        }
        true
    }

    /// The paths of that target port group, or that one where it is not known,
    /// carry I/O: their array has said so of an activation.
    pub(super) fn made_active(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        let number = self.numbers;
        let Some(group) = self.path(id).map(|p| p.access.group) else { return };
        let same = |p: &&Path| p.id == id || (group.is_some() && p.access.group == group);
        let ids: Vec<PathId> = self.all().filter(same).map(|p| p.id).collect();
        for id in ids {
            let Some(path) = self.path_mut(id) else { continue };
            path.standing.ghost = false;
            path.standing.known(number, false);
            path.init.rest(now);
            let known = path.access.state.map(|_| AccessState::ActiveOptimized);
            let access = Access { state: known, ..path.access };
            self.set_access(now, id, access, fx);
        }
    }

    // --- checks and time -----------------------------------------------------

    /// A check has ended. After a good one the priority is read.
    pub(super) fn access_after_check(
        &mut self,
        now: Time,
        id: PathId,
        check: u32,
        verdict: Verdict,
        fx: &mut Effects,
    ) {
        let Some(path) = self.path_mut(id) else { return };
        let answers =
            matches!(verdict, Verdict::Up { .. } | Verdict::Resized | Verdict::Ghost { .. });
        match verdict {
            Verdict::Up { .. } | Verdict::Resized => path.standing.ghost = false,
            Verdict::Ghost { .. } => path.standing.ghost = true,
            Verdict::Pending { .. } => {}
            _ => return,
        }
        let usable = path.is_usable();
        let counts = is_later(check, path.standing.as_of);
        if path.standing.unread && !counts {
            self.check_now(now, id, fx);
        } else if path.standing.unread
            && answers
            && (path.standing.ghost || path.standing.believes(now))
        {
            // Nobody but the checker can say what has become of it.
            path.standing.known(check, false);
            let access = Access { state: None, ..path.access };
            self.set_access(now, id, access, fx);
        } else if path.standing.unread && matches!(verdict, Verdict::Ghost { .. }) {
            path.standing.told = false; // it is so
        }
        if usable {
            self.read(now, id, false, fx);
        }
    }

    /// Does what is due: readings that have not answered, transitions that
    /// have lasted too long, and those that are read again.
    pub(super) fn run_due_readings(&mut self, now: Time, fx: &mut Effects) {
        let timeout = self.policy.checker_timeout;
        let ids: Vec<PathId> = self.all().map(|p| p.id).collect();
        for id in ids {
            let Some(path) = self.path_mut(id) else { continue };
            let mut lost = false;
            if let Some(o) = path.standing.reading.as_mut().filter(|o| !o.late) {
                o.late = o.since + timeout <= now;
                lost = o.late && path.standing.told;
            }
            if path.standing.until.is_some_and(|until| until <= now) {
                (path.standing.overdue, path.standing.told) = (true, false);
                let access = path.access;
                path.standing.until = None;
                self.set_access(now, id, access, fx);
            }
            if lost {
                if let Some(path) = self.path_mut(id) {
                    path.standing.unread = true;
                }
                self.check_now(now, id, fx);
            }
        }
        self.end_pauses(now, fx);
        if self.reread_at.is_some_and(|at| at <= now) {
            self.reread(now, fx);
        }
    }

    /// Reads the target port groups in transition again, each by one path; all of
    /// them while none carries I/O.
    fn reread(&mut self, now: Time, fx: &mut Effects) {
        let mut groups: Vec<Option<u16>> = Vec::new();
        let mut by = Vec::new();
        // One that contradicts itself has its own time (`pause`).
        let same = |p: &Path, q: &Path| {
            p.id == q.id || (p.access.group.is_some() && p.access.group == q.access.group)
        };
        let paused = |p: &Path| self.all().any(|q| q.standing.pause.is_some() && same(p, q));
        let asks = |p: &&Path| {
            p.is_usable() && if self.watching { !paused(p) } else { p.standing.in_transition() }
        };
        for path in self.all().filter(asks) {
            let group = path.access.group;
            if path.standing.reading.is_none() && (group.is_none() || !groups.contains(&group)) {
                groups.push(group);
                by.push(path.id);
            }
        }
        // (One that is out of use now may be back before its transition is over.)
        let any = self.all().any(|p| p.standing.in_transition());
        self.reread_at = any.then(|| now + REREAD);
        for id in by {
            if self.policy.prio.reads_access() {
                self.read(now, id, false, fx);
            } else {
                self.check_now(now, id, fx);
            }
        }
    }

    /// When [`Multipath::run_due_readings`] has something to do.
    pub(super) fn reading_deadline(&self) -> Option<Time> {
        let timeout = self.policy.checker_timeout;
        let due = |p: &Path| {
            let answer = p.standing.reading.filter(|o| !o.late).map(|o| o.since + timeout);
            answer.into_iter().chain(p.standing.until).chain(p.standing.pause).min()
        };
        self.all().filter_map(due).chain(self.reread_at).min()
    }

    /// Whether some path's state is about to be known: it was told that it
    /// does not carry I/O, and that is being looked into; it is in transition;
    /// its capacity is being read now that it can be; it is being registered.
    pub(super) fn access_is_open(&self) -> bool {
        let registering = self.is_registering();
        registering
            || self.all().filter(|p| p.is_usable()).any(|p| {
                let asked = p.standing.is_being_read() || p.check.is_some_and(|o| !o.late);
                let sized = p.standing.unsized_lu && p.proof.is_some_and(|o| !o.late);
                let paused = p.standing.pause.is_some();
                p.standing.in_transition() || paused || (p.standing.told && asked) || sized
            })
    }

    /// Marginal paths are held back, unless they have groups of their own or
    /// nothing else carries I/O.
    pub(super) fn hold_back_marginal(&mut self) {
        let carries = |p: &Path| p.is_usable() && p.standing.carries(p.access);
        let spare = !self.policy.marginal_pathgroups
            && self
                .all()
                .any(|p| !p.marginal && !p.is_barred() && !p.standing.unsized_lu && carries(p));
        for path in self.paths.iter_mut().flatten() {
            path.standing.held_back = spare && path.marginal;
            path.checker_state = match path.checker_state {
                CheckerState::Ready if path.standing.held_back && path.is_usable() => {
                    CheckerState::Delayed
                }
                CheckerState::Delayed if !path.standing.held_back => CheckerState::Ready,
                as_it_is => as_it_is,
            };
        }
    }

    /// Paths that could carry I/O if only their capacity were known.
    pub(super) fn prove_unsized(&mut self, now: Time, fx: &mut Effects) {
        let ready = |p: &&Path| {
            let waits = p.standing.unsized_lu && p.proof.is_none();
            waits && p.is_usable() && p.standing.carries(p.access)
        };
        let ids: Vec<PathId> = self.all().filter(ready).map(|p| p.id).collect();
        for id in ids {
            self.prove(now, id, fx);
        }
    }
}
