//! A change of settings at run time (`reconfigure`): the paths stay, and I/O
//! stays where it is as far as the new settings let it.

use super::Multipath;
use super::effect::Effects;
use super::policy::Policy;
use crate::io::Time;

impl Multipath {
    /// The settings the map has.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Gives the map other settings. What is out with a path (a check, a
    /// reading) is waited for and counts; a count that the new settings have no
    /// use for is dropped; `no_path_retry` begins anew if it is another.
    pub fn set_policy(&mut self, now: Time, policy: Policy, fx: &mut Effects) {
        let old = std::mem::replace(&mut self.policy, policy);
        let (polling, ceiling) = (self.policy.polling_interval, self.policy.max_polling_interval());
        let checker = self.policy.checker;
        for path in self.paths.iter_mut().flatten() {
            path.checker = checker.unwrap_or(path.own_checker);
            path.interval = path.interval.min(ceiling);
            path.next_check = path.next_check.min(now + polling);
        }
        if self.policy.no_path_retry != old.no_path_retry {
            self.count_retries_from(now);
        }
        self.rejudge_all(old.marginal_path, fx);
        if self.policy.hardware_handler != old.hardware_handler {
            self.paths.iter_mut().flatten().for_each(|p| p.init.renew());
        }
        if self.policy.prio != old.prio {
            self.prio_changed(now, fx);
        }
        let groups = |p: &Policy| (p.grouping, p.marginal_pathgroups, p.failback);
        if groups(&self.policy) != groups(&old) {
            // It was the first of another group.
            self.paths.iter_mut().flatten().for_each(|p| p.listed.first_back = false);
        }
        self.regroup();
        self.forget_who_came_back_alike();
        self.settle(now, fx);
    }

    /// Groups are numbered anew: one that is worth the same as the group in use,
    /// and comes before it now, is none that its path has come back to.
    fn forget_who_came_back_alike(&mut self) {
        let Some(current) = self.current else { return };
        let rank = self.rank(current);
        let alike = (0..current).filter(|&i| self.rank(i) == rank);
        let slots: Vec<u8> = alike.flat_map(|i| self.groups[i].slots.iter().copied()).collect();
        let paths = self.paths.iter_mut().flatten().filter(|p| slots.contains(&p.id.slot));
        paths.for_each(|p| p.listed.first_back = false);
    }
}
