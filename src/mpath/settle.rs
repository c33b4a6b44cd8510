//! What follows from the state of the paths: the group in use, the queueing
//! policy, the table the queue threads work by. Brought up to date at the end
//! of every step of the engine.

use std::sync::Arc;

use super::effect::{Change, Effect, Effects};
use super::path::Path;
use super::path_group;
use super::snapshot::{GroupView, PathTable, PathView};
use super::{Multipath, group_number};
use crate::io::Time;

impl Multipath {
    pub(super) fn regroup(&mut self) {
        let paths = self.order.iter().filter_map(|&s| self.paths[usize::from(s)].as_ref());
        self.groups = path_group::group(self.policy.grouping, paths);
    }

    /// Brings everything derived up to date after a step: the group in use,
    /// the queueing policy, check times while no path is left, the table.
    pub(super) fn settle(&mut self, now: Time, fx: &mut Effects) {
        self.agree_on_capacity(now, fx);
        self.choose_group(fx);
        self.track_no_path(now, fx);
        self.track_lun(fx);
        self.publish(fx);
    }

    /// Keeps the group in use as long as it has a usable path (failback
    /// manual), else takes the best.
    pub(super) fn choose_group(&mut self, fx: &mut Effects) {
        let usable =
            |i: usize| self.groups.get(i).is_some_and(|g| self.members(g).any(Path::is_usable));
        if self.current.is_some_and(usable) {
            return;
        }
        let best = (0..self.groups.len())
            .rev() // max_by_key takes the last of equals; the first shall win
            .map(|i| (i, path_group::rank(self.members(&self.groups[i]))))
            .filter(|(_, rank)| rank.usable)
            .max_by_key(|&(_, rank)| rank);
        let Some((to, _)) = best else { return };
        let from = self.current.replace(to);
        if from.is_some() && from != Some(to) {
            self.switches += 1;
        }
        if from != Some(to) {
            let from = from.map(group_number);
            fx.push(Effect::Notify(Change::GroupSwitched { from, to: group_number(to) }));
        }
    }

    pub(super) fn publish(&mut self, fx: &mut Effects) {
        let mut table = PathTable {
            generation: self.generation,
            groups: self.group_views(),
            queueing: self.queueing(),
            selector: self.policy.selector,
            hold_for: self.policy.queue_timeout,
        };
        if self.published.as_deref() == Some(&table) {
            return;
        }
        self.generation += 1;
        table.generation = self.generation;
        let table = Arc::new(table);
        self.published = Some(Arc::clone(&table));
        fx.push(Effect::Publish(table));
    }

    /// Groups with a usable path: the one in use first, then by rank.
    pub(super) fn group_views(&self) -> Vec<GroupView> {
        let mut order: Vec<usize> = (0..self.groups.len()).collect();
        order.sort_by_key(|&i| {
            let rank = path_group::rank(self.members(&self.groups[i]));
            (self.current != Some(i), std::cmp::Reverse(rank), i)
        });
        let view = |i: usize| GroupView {
            number: group_number(i),
            paths: self
                .members(&self.groups[i])
                .filter(|p| p.is_usable())
                .map(|p| PathView {
                    id: p.id,
                    epoch: p.epoch,
                    priority: p.priority,
                    repeat: self.policy.rr_min_io,
                })
                .collect(),
        };
        order.into_iter().map(view).filter(|g| !g.paths.is_empty()).collect()
    }
}
