//! Activation of path groups (`pg_init` of dm-mpath): when nothing carries I/O,
//! or a better group is to be used, a group that can be made to carry it is.
//!
//! Retries, their pause, the bypassing of a group whose array is busy and what
//! fails a path are dm-mpath's `pg_init_done`. Unlike there, requests wait only
//! while no path carries I/O: a group in use stays in use until the other one
//! carries. What an activation sends is the hardware handler's (`hwhandler`).

use std::time::Duration;

use super::effect::{Cause, Change, Effect, Effects};
use super::hwhandler::{Activation, HandlerKind};
use super::path::{Outstanding, Path};
use super::snapshot::PathId;
use super::{Multipath, group_number};
use crate::io::Time;
use crate::scsi::alua::AccessState;

/// Controllers are left alone for so long between two attempts (dm-mpath).
const REST: Duration = Duration::from_secs(2);
/// A transition is looked at so often.
const LOOK: Duration = Duration::from_secs(1);

/// Of one path.
#[derive(Clone, Debug, Default)]
pub(super) struct Init {
    activation: Option<Outstanding>,
    retries: u32,
    /// Its target port group is in transition: a failure from then on.
    transition: Option<Time>,
    /// To be tried again then.
    again_at: Option<Time>,
    /// It cannot be activated; what is tried no more until it returns.
    unsupported: bool,
    /// Since when its array is busy.
    pub(super) bypassed: Option<Time>,
    /// It was activated lately: not again before then.
    not_before: Option<Time>,
}

impl Init {
    /// It has just been activated: it rests.
    pub(super) fn rest(&mut self, now: Time) {
        *self = Init { activation: self.activation, ..Init::default() };
        self.not_before = Some(now + REST);
    }

    /// It comes back: what was found of it before counts no longer.
    pub(super) fn renew(&mut self) {
        *self = Init { activation: self.activation, ..Init::default() };
    }

    fn is_under_way(&self) -> bool {
        self.again_at.is_some() || self.activation.is_some_and(|o| !o.late)
    }
}

/// A group that is being activated.
#[derive(Clone, Debug)]
pub(super) struct PgInit {
    paths: Vec<PathId>,
    result: Option<Activation>,
    /// The group is to be used once it carries I/O, though another does.
    switch: bool,
}

/// Of several paths' results the best is the group's.
fn weight(result: Activation) -> u8 {
    match result {
        Activation::Done => 4,
        Activation::Busy => 3,
        Activation::Retry { .. } | Activation::Transition => 2,
        Activation::Failed => 1,
        Activation::Unsupported => 0,
    }
}

/// For how long requests wait for activations that do not come about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    until: Option<Time>,
    over: bool,
}

impl Multipath {
    /// By what a path is activated; `None`: it is as it is.
    fn handler(&self, path: &Path) -> Option<HandlerKind> {
        match self.policy.hardware_handler {
            HandlerKind::None => None,
            HandlerKind::Detect => {
                (path.standing.explicit == Some(true)).then_some(HandlerKind::Alua)
            }
            kind => Some(kind),
        }
    }

    /// Whether the path is passive and could be made to carry I/O.
    fn can_activate(&self, path: &Path) -> bool {
        let lost = path.init.activation.is_some_and(|o| o.late);
        let carries = path.standing.carries(path.access);
        if !path.is_usable() || carries || path.init.unsupported || lost {
            return false;
        }
        let passive = match path.access.state {
            Some(AccessState::Standby | AccessState::Unavailable) => true,
            Some(AccessState::Transitioning | AccessState::Offline) => return false,
            _ => path.standing.ghost,
        };
        passive
            && self.handler(path).is_some_and(|handler| {
                handler != HandlerKind::Alua || path.standing.explicit != Some(false)
            })
    }

    /// From when on it may be activated, if it can be: not at once after it
    /// was, nor after its array was busy.
    fn turn(&self, path: &Path) -> Option<Time> {
        let busy = path.init.bypassed.map(|since| since + REST);
        let turn = busy.into_iter().chain(path.init.not_before).max();
        self.can_activate(path).then_some(turn.unwrap_or(Time(0)))
    }

    /// Whether the group could be made to carry I/O now; one that is bypassed
    /// only if that `counts`.
    fn can_activate_group(&self, now: Time, index: usize, bypassed_counts: bool) -> bool {
        let ready = |p: &Path| {
            self.turn(p).is_some_and(|t| t <= now) && (bypassed_counts || p.init.bypassed.is_none())
        };
        self.groups.get(index).is_some_and(|g| self.members(g).any(ready))
    }

    /// Whether I/O may be sent to the group, or could be once it is activated.
    pub(super) fn is_eligible(&self, now: Time, index: usize) -> bool {
        self.group_carries(index) || self.can_activate_group(now, index, false)
    }

    /// Whether the group is left alone because its array was busy.
    pub(super) fn is_bypassed(&self, index: usize) -> bool {
        let bypassed = |p: &Path| p.init.bypassed.is_some() && self.can_activate(p);
        !self.group_carries(index) && self.members(&self.groups[index]).any(bypassed)
    }

    /// Whether requests should wait because a group is being activated, or
    /// will be in a moment.
    pub(super) fn is_activating(&self) -> bool {
        self.pg_init.is_some() || (!self.patience.over && self.all().any(|p| self.can_activate(p)))
    }

    /// Whether an activation may begin for want of a path. First let it be
    /// known what the paths are like.
    fn may_activate(&self) -> bool {
        self.pg_init.is_none() && self.carrying() == 0 && !self.access_is_open()
    }

    /// Nothing carries I/O: activates the best group that can be, one that is
    /// bypassed only if there is no other.
    pub(super) fn activate_best(&mut self, now: Time, fx: &mut Effects) {
        if self.may_activate() {
            let best = |counts| self.best_group(|i| self.can_activate_group(now, i, counts));
            if let Some(index) = best(false).or_else(|| best(true)) {
                self.begin_activation(now, index, false, fx);
            }
        }
    }

    /// Activates a group: one path of each target port group, or every path
    /// where a path is activated by itself. `switch`: it is to be used then,
    /// whatever else carries I/O.
    pub(super) fn begin_activation(
        &mut self,
        now: Time,
        index: usize,
        switch: bool,
        fx: &mut Effects,
    ) {
        let mut paths = Vec::new();
        let mut seen: Vec<Option<u16>> = Vec::new();
        // (A group's paths may have been bypassed at different times: one that
        // is news since is tried again by itself.)
        let ready = |p: &&Path| self.turn(p).is_some_and(|turn| turn <= now);
        for path in self.members(&self.groups[index]).filter(ready) {
            let group = path.access.group;
            let shared = self.handler(path) == Some(HandlerKind::Alua);
            if !shared || !seen.contains(&group) {
                seen.push(group);
                paths.push(path.id);
            }
        }
        fx.push(Effect::Notify(Change::Activating { group: group_number(index) }));
        for &id in &paths {
            if let Some(path) = self.path_mut(id) {
                (path.init.retries, path.init.transition) = (0, None);
            }
            self.activate(now, id, fx);
        }
        self.pg_init = Some(PgInit { paths, result: None, switch });
    }

    fn activate(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        self.numbers = self.numbers.wrapping_add(1);
        let number = self.numbers;
        let Some(handler) = self.path(id).and_then(|p| self.handler(p)) else { return };
        let Some(path) = self.path_mut(id) else { return };
        path.init.again_at = None;
        if path.init.activation.is_none() {
            path.init.activation = Some(Outstanding { number, since: now, late: false });
            let group = path.access.group;
            fx.push(Effect::Activate { path: id, activation: number, handler, group });
        }
    }

    pub(super) fn activated(
        &mut self,
        now: Time,
        id: PathId,
        number: u32,
        result: Activation,
        fx: &mut Effects,
    ) {
        let retries = self.policy.pg_init_retries;
        let delay = self.policy.pg_init_delay;
        let patience = self.policy.transition_timeout;
        let Some(path) = self.path_mut(id) else { return };
        let Some(asked) = path.init.activation.filter(|o| o.number == number) else { return };
        path.init.activation = None;
        if asked.late || !path.is_usable() {
            return; // it has failed meanwhile, and comes back as every path does
        }
        match result {
            Activation::Done => {
                self.made_active(now, id, fx);
                self.prioritize(now, id, fx);
                self.prioritize_others(now, id, fx);
            }
            Activation::Retry { delayed } if path.init.retries < retries => {
                path.init.retries += 1;
                path.init.again_at = Some(if delayed { now + delay } else { now });
                return;
            }
            Activation::Retry { .. } => {
                self.fail(now, id, Cause::Activation("tried too often"), fx);
            }
            Activation::Transition => {
                let until = *path.init.transition.get_or_insert(now + patience);
                if now < until {
                    path.init.again_at = Some(until.min(now + LOOK));
                    return;
                }
                self.fail(now, id, Cause::Activation("in transition for too long"), fx);
            }
            Activation::Failed => self.fail(now, id, Cause::Activation("refused"), fx),
            Activation::Unsupported => path.init.unsupported = true,
            Activation::Busy => self.bypass(now, id),
        }
        if let Some(pg_init) = self.pg_init.as_mut().filter(|g| g.paths.contains(&id)) {
            let best = pg_init.result.is_none_or(|before| weight(before) < weight(result));
            pg_init.result = if best { Some(result) } else { pg_init.result };
        }
    }

    /// The array is busy: the path's group is left alone for a while.
    fn bypass(&mut self, now: Time, id: PathId) {
        let group = self.groups.iter().find(|g| g.slots.contains(&id.slot));
        for slot in group.map(|g| g.slots.clone()).unwrap_or_default() {
            if let Some(path) = self.paths[usize::from(slot)].as_mut() {
                path.init.bypassed = Some(now);
                path.init.again_at = None;
            }
        }
    }

    /// An administrator asks for the group: it is bypassed no longer.
    pub(super) fn end_bypass(&mut self, index: usize) {
        for slot in self.groups[index].slots.clone() {
            if let Some(path) = self.paths[usize::from(slot)].as_mut() {
                (path.init.bypassed, path.init.not_before) = (None, None);
            }
        }
    }

    /// The group's activation has ended if no path's is under way; returns the
    /// group if it is to be used now.
    pub(super) fn end_activation(&mut self, fx: &mut Effects) -> Option<usize> {
        let under_way =
            |id: &PathId| self.path(*id).is_some_and(|p| p.is_usable() && p.init.is_under_way());
        if self.pg_init.as_ref().is_none_or(|g| g.paths.iter().any(under_way)) {
            return None;
        }
        let ended = self.pg_init.take()?;
        let slots: Vec<u8> = ended.paths.iter().map(|id| id.slot).collect();
        let index = self.group_with_most(&slots)?;
        let result = ended.result.unwrap_or(Activation::Failed);
        fx.push(Effect::Notify(Change::Activated { group: group_number(index), result }));
        (ended.switch && self.group_carries(index)).then_some(index)
    }

    /// Does what is due: activations that have not answered fail their path,
    /// delayed ones begin.
    pub(super) fn run_due_activations(&mut self, now: Time, fx: &mut Effects) {
        let timeout = self.policy.checker_timeout;
        self.patience.over |= self.patience.until.is_some_and(|until| until <= now);
        let ids: Vec<PathId> = self.all().map(|p| p.id).collect();
        for id in ids {
            let Some(path) = self.path_mut(id) else { continue };
            let mut lost = false;
            if let Some(o) = path.init.activation.as_mut().filter(|o| !o.late) {
                o.late = o.since + timeout <= now;
                lost = o.late;
            }
            // (Taken, whatever comes of it: there may be no handler by now.)
            let again = path.init.again_at.take_if(|at| *at <= now).is_some();
            let usable = path.is_usable();
            if lost && usable {
                self.fail(now, id, Cause::Activation("not answered in time"), fx);
            } else if again && usable {
                self.activate(now, id, fx);
            }
        }
    }

    /// Requests do not wait for ever for activations that come to nothing.
    pub(super) fn track_patience(&mut self, now: Time) {
        let limit = self.policy.transition_timeout;
        if self.carrying() > 0 {
            self.patience = Patience::default();
        } else if self.patience.until.is_none() && self.is_activating() {
            self.patience.until = Some(now + limit);
        }
    }

    /// When [`Multipath::run_due_activations`] or [`Multipath::activate_best`]
    /// has something to do.
    pub(super) fn activation_deadline(&self) -> Option<Time> {
        let timeout = self.policy.checker_timeout;
        let due = |p: &Path| {
            let answer = p.init.activation.filter(|o| !o.late).map(|o| o.since + timeout);
            answer.into_iter().chain(p.init.again_at).min()
        };
        let turns = self.all().filter_map(|p| self.turn(p)).min();
        let patience = self.patience.until.filter(|_| !self.patience.over);
        self.all()
            .filter_map(due)
            .chain(turns.filter(|_| self.may_activate()))
            .chain(patience)
            .min()
    }
}
