//! Failback: when I/O leaves a path group that carries it for a better one
//! (`failback`), and when an administrator has it do so (`switch group`).
//!
//! The rules are multipathd's. A group is better by its rank; to one that does
//! not carry I/O as it is, failback leads only by an activation that succeeds,
//! and never to one that is bypassed. Two changes of group do not wait for
//! failback, as multipathd loads the map anew for them: a path has joined and
//! has a higher priority than those in use; reliable paths can take over from
//! marginal ones. Ours alone: what an administrator has chosen stays until
//! paths come or go or their priorities change.

use super::access::REREAD;
use super::effect::Effects;
use super::path::Path;
use super::policy::Failback;
use super::{MapError, Multipath};
use crate::io::Time;

/// What failback waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FailbackState {
    /// A better group is taken then (`failback N`).
    at: Option<Time>,
    /// The group in use is the administrator's choice.
    pub(super) pinned: bool,
    /// A path has come up since the last decision.
    came_up: bool,
    /// A path went out of use since then.
    went_down: bool,
}

impl Multipath {
    /// `switch map group`: has I/O go to the group of that number, activating
    /// it if need be.
    ///
    /// # Errors
    ///
    /// There is no such group, or no path of it can carry I/O.
    pub fn switch_group(
        &mut self,
        now: Time,
        number: u16,
        fx: &mut Effects,
    ) -> Result<(), MapError> {
        let count = self.groups.len();
        let index = usize::from(number).checked_sub(1).filter(|&i| i < count);
        let index = index.ok_or(MapError::NoSuchGroup { number, count })?;
        if !self.group_carries(index) {
            self.end_bypass(index);
        }
        if !self.is_eligible(now, index) {
            return Err(MapError::GroupPassive(number));
        }
        if self.group_carries(index) {
            self.switch_to(index, fx);
        } else if self.pg_init.is_none() {
            self.begin_activation(now, index, true, fx);
        } else {
            return Err(MapError::Activating);
        }
        self.failback.pinned = true;
        self.failback.at = None;
        self.settle(now, fx);
        Ok(())
    }

    /// Notes which paths have come up or gone since the last step. One that
    /// comes up has its priority read.
    pub(super) fn note_arrivals(&mut self, now: Time, fx: &mut Effects) {
        let mut up = Vec::new();
        for path in self.paths.iter_mut().flatten() {
            let usable = path.is_usable();
            let was = std::mem::replace(&mut path.listed.usable, usable);
            self.failback.came_up |= usable && !was;
            self.failback.went_down |= !usable && was;
            path.listed.first_back &= usable;
            path.listed.joins &= usable;
            if usable && !was {
                up.push(path.id);
            }
        }
        self.failback.pinned &= !self.failback.came_up && !self.failback.went_down;
        for id in &up {
            let alone = self
                .groups
                .iter()
                .filter(|g| g.slots.contains(&id.slot))
                .all(|g| self.members(g).all(|p| !p.is_usable() || up.contains(&p.id)));
            let Some(path) = self.path_mut(*id) else { continue };
            path.listed.first_back = alone;
            // One that joins may have been read already.
            if !path.standing.read || path.epoch > 1 {
                self.prioritize(now, *id, fx);
            }
        }
    }

    /// Leaves the group in use, which carries I/O, if there is a better one
    /// and it is time.
    pub(super) fn fail_back(&mut self, now: Time, fx: &mut Effects) {
        let news = std::mem::take(&mut self.failback.came_up);
        let news = std::mem::take(&mut self.failback.went_down) || news;
        let better = self.better_group(now);
        let first_back = self.take_first_back(better);
        let joined = self.take_joined(better);
        let counts = matches!(self.policy.failback, Failback::After(_)) && !self.failback.pinned;
        self.failback.at = self.failback.at.filter(|_| counts && better.is_some());
        let Some(to) = better else { return };
        if self.group_carries(to)
            && (joined && self.has_higher_priority(to) || self.is_reliable(to))
        {
            return self.switch_to(to, fx);
        }
        if self.failback.pinned {
            return;
        }
        let due = match self.policy.failback {
            Failback::Manual => false,
            Failback::Immediate => true,
            Failback::After(wait) => {
                if news || self.failback.at.is_none() {
                    self.failback.at = Some(now + wait);
                }
                self.failback.at.is_some_and(|at| at <= now)
            }
            Failback::Followover => first_back,
        };
        if !due {
            return;
        }
        self.failback.at = None;
        match self.group_carries(to) {
            true => self.switch_to(to, fx),
            // What they are worth now is just being read.
            false
                if self.is_being_read(to)
                    || self.current.is_some_and(|c| self.is_being_read(c)) =>
            {
                let waits = matches!(self.policy.failback, Failback::After(_));
                self.failback.at = waits.then_some(now + REREAD);
            }
            false => self.begin_activation(now, to, true, fx),
        }
    }

    /// Whether the priority of one of its paths is being read. The array moves
    /// one group away from active/optimized and another one there; each keeps
    /// the priority it had until it has been read, and the first would be taken
    /// for the better one and moved back.
    fn is_being_read(&self, group: usize) -> bool {
        self.members(&self.groups[group]).any(|path| path.standing.is_being_read())
    }

    /// The group in use carries nothing: what failback waited for is void.
    pub(super) fn forget_failback(&mut self) {
        self.failback = FailbackState { pinned: self.failback.pinned, ..FailbackState::default() };
        self.take_joined(None);
    }

    /// The best group, if it is another than the one in use.
    fn better_group(&self, now: Time) -> Option<usize> {
        let best = self.best_group(|i| self.is_eligible(now, i))?;
        (self.current != Some(best) && self.pg_init.is_none()).then_some(best)
    }

    fn has_higher_priority(&self, to: usize) -> bool {
        self.current.is_some_and(|c| self.rank(to).priority > self.rank(c).priority)
    }

    /// It has reliable paths, and the group in use has not.
    fn is_reliable(&self, to: usize) -> bool {
        self.current.is_some_and(|c| self.groups[c].marginal && !self.groups[to].marginal)
    }

    /// Whether a path of the better group was the first to come back there. A
    /// path is asked about for as long as its priority is being read, because
    /// that is what may make its group the better one.
    fn take_first_back(&mut self, better: Option<usize>) -> bool {
        let slots = better.map_or(&[][..], |i| &self.groups[i].slots[..]);
        let first =
            self.paths.iter().flatten().any(|p| p.listed.first_back && slots.contains(&p.id.slot));
        for path in self.paths.iter_mut().flatten() {
            path.listed.first_back &= path.standing.is_being_read() && !first;
        }
        first
    }

    /// Whether a path of the better group has joined: the priority it has now is
    /// its first.
    fn take_joined(&mut self, better: Option<usize>) -> bool {
        let slots = better.map_or(&[][..], |i| &self.groups[i].slots[..]);
        let joined = |p: &Path| p.listed.joined && slots.contains(&p.id.slot);
        let any = self.all().any(joined);
        self.paths.iter_mut().flatten().for_each(|p| p.listed.joined = false);
        any
    }

    /// When [`Multipath::fail_back`] has something to do.
    pub(super) fn failback_deadline(&self) -> Option<Time> {
        self.failback.at
    }
}
