//! What follows from the state of the paths: the group in use, the queueing
//! policy, the table the queue threads work by. Brought up to date at the end
//! of every step of the engine.

use std::cmp::Reverse;
use std::sync::Arc;

use super::effect::{Change, Effect, Effects};
use super::path::Path;
use super::snapshot::{GroupView, PathTable, PathView};
use super::{Multipath, group_number};
use crate::io::Time;

impl Multipath {
    /// Brings everything derived up to date after a step: the group in use,
    /// the queueing policy, check times while no path is left, the table.
    pub(super) fn settle(&mut self, now: Time, fx: &mut Effects) {
        self.agree_on_capacity(now, fx);
        self.run_reservations(now, fx);
        self.note_arrivals(now, fx);
        self.hold_back_marginal();
        self.prove_unsized(now, fx);
        self.choose_group(now, fx);
        self.track_patience(now);
        self.track_no_path(now, fx);
        self.track_lun(fx);
        self.refuse_orders(now, fx);
        self.publish(fx);
        // A queue thread that has the answer to an order has the table that goes with it: by an
        // older one it would take the conflict of a path for the LU's word.
        fx.sort_by_key(|effect| matches!(effect, Effect::Answer { .. }));
    }

    /// Keeps the group in use as long as a path of it carries I/O and failback
    /// does not say otherwise; else takes the best that carries it, or has one
    /// activated.
    fn choose_group(&mut self, now: Time, fx: &mut Effects) {
        if let Some(wanted) = self.end_activation(fx) {
            self.switch_to(wanted, fx);
        }
        if self.current.is_some_and(|c| self.group_carries(c)) {
            return self.fail_back(now, fx);
        }
        self.forget_failback();
        match self.best_group(|i| self.group_carries(i)) {
            Some(best) => self.switch_to(best, fx),
            None => self.activate_best(now, fx),
        }
    }

    /// The group is in use from now on.
    pub(super) fn switch_to(&mut self, to: usize, fx: &mut Effects) {
        let from = self.current.replace(to);
        if from == Some(to) {
            return;
        }
        self.switches += u64::from(from.is_some());
        let from = from.map(group_number);
        fx.push(Effect::Notify(Change::GroupSwitched { from, to: group_number(to) }));
    }

    /// A path that begins to carry I/O, for the first time or again, has an
    /// epoch that no table has named before.
    fn renew_epochs(&mut self) {
        for path in self.paths.iter_mut().flatten() {
            let carries = path.carries();
            if carries && !path.listed.in_table {
                path.epoch = path.epoch.max(path.listed.epoch + 1);
            }
            if carries {
                path.listed.epoch = path.epoch;
            }
            path.listed.in_table = carries;
        }
    }

    fn publish(&mut self, fx: &mut Effects) {
        self.renew_epochs();
        let mut table = PathTable {
            generation: self.generation,
            groups: self.group_views(),
            queueing: self.queueing(),
            selector: self.policy.selector,
            suspended: self.is_suspended(),
            registered: self.is_registered(),
            hold_for: self.policy.queue_timeout,
        };
        // (Who is to be quiet says so once of each table.)
        if self.published.as_deref() == Some(&table) && !self.is_to_suspend() {
            return;
        }
        self.generation += 1;
        table.generation = self.generation;
        self.suspended_by(self.generation);
        let table = Arc::new(table);
        self.published = Some(Arc::clone(&table));
        fx.push(Effect::Publish(table));
    }

    /// Groups with a path that carries I/O: the one in use first, then by
    /// rank.
    fn group_views(&self) -> Vec<GroupView> {
        let mut order: Vec<usize> = (0..self.groups.len()).collect();
        order.sort_by_key(|&i| (self.current != Some(i), Reverse(self.rank(i)), i));
        let view = |i: usize| {
            let carrying = self.members(&self.groups[i]).filter(|p| p.carries());
            let paths = carrying.map(|p| self.path_view(p)).collect();
            GroupView { number: group_number(i), paths }
        };
        order.into_iter().map(view).filter(|g| !g.paths.is_empty()).collect()
    }

    fn path_view(&self, path: &Path) -> PathView {
        // `rr_weight priorities`; a priority of 0 still has its turn.
        let weight = match self.policy.rr_weight_priorities {
            true => u32::try_from(path.priority).unwrap_or(0).max(1),
            false => 1,
        };
        let repeat = self.policy.rr_min_io.saturating_mul(weight);
        PathView {
            id: path.id,
            epoch: path.epoch,
            proven: path.proven,
            priority: path.priority,
            repeat,
        }
    }
}
