//! Path groups: which paths may be used together, and which group is better.
//!
//! The rules are multipath-tools' `pgpolicies.c` and `switchgroup.c`: what a
//! policy groups by is compared as it is, so that paths of which it is unknown
//! are alike, but for the target port group; groups of marginal paths are of their own and come last; a
//! group's priority is the integer average over its usable paths, more usable
//! paths break a tie, then configuration order. Not here: which group is in
//! use (`settle`) and when that changes (`failback`).

use std::cmp::Reverse;

use super::Multipath;
use super::path::Path;
use super::policy::{GroupingPolicy, Policy};

/// A group: indexes into the map's path slots, in configuration order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathGroup {
    /// Slots of its paths.
    pub slots: Vec<u8>,
    /// Its paths are unreliable ones (`marginal_pathgroups`).
    pub marginal: bool,
}

/// What the paths of one group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key<'a> {
    Slot(u8),
    All,
    Text(Option<&'a str>),
    Priority(i32),
    Tpg(u16),
}

fn key(policy: GroupingPolicy, path: &Path) -> Key<'_> {
    match policy {
        GroupingPolicy::Failover => Key::Slot(path.id.slot),
        GroupingPolicy::Multibus => Key::All,
        GroupingPolicy::GroupBySerial => Key::Text(path.attributes.serial.as_deref()),
        GroupingPolicy::GroupByNodeName => Key::Text(path.attributes.target_node.as_deref()),
        GroupingPolicy::GroupByPrio => Key::Priority(path.priority),
        // Of unknown ones two may be of two controllers.
        GroupingPolicy::GroupByTpg => path.access.group.map_or(Key::Slot(path.id.slot), Key::Tpg),
    }
}

/// Groups `paths` (in configuration order) by `policy`, in the order in which
/// `multipath -ll` numbers them: the best first.
pub fn group<'a>(policy: &Policy, paths: impl Iterator<Item = &'a Path>) -> Vec<PathGroup> {
    let mut found: Vec<(Key<'_>, bool, Vec<&Path>)> = Vec::new();
    for path in paths {
        let (key, marginal) = (key(policy.grouping, path), path.marginal);
        let marginal = marginal && policy.marginal_pathgroups;
        match found.iter_mut().find(|(k, m, _)| *k == key && *m == marginal) {
            Some((_, _, members)) => members.push(path),
            None => found.push((key, marginal, vec![path])),
        }
    }
    // Stable: equals stay in configuration order.
    found.sort_by_key(|(_, marginal, members)| {
        (*marginal, Reverse(rank(*marginal, members.iter().copied())))
    });
    let slots = |members: Vec<&Path>| members.iter().map(|p| p.id.slot).collect();
    found
        .into_iter()
        .map(|(_, marginal, members)| PathGroup { slots: slots(members), marginal })
        .collect()
}

/// What decides between groups: larger is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Whether any path is usable.
    pub usable: bool,
    /// Whether that is a reliable one.
    pub reliable: bool,
    /// Average priority of the usable paths.
    pub priority: i32,
    /// How many there are.
    pub paths: usize,
}

/// Ranks a group by its usable paths.
pub fn rank<'a>(marginal: bool, paths: impl Iterator<Item = &'a Path>) -> Rank {
    let (mut sum, mut count) = (0i64, 0usize);
    for p in paths.filter(|p| p.is_usable()) {
        sum += i64::from(p.priority);
        count += 1;
    }
    if count == 0 {
        return Rank::default();
    }
    let average = sum / i64::try_from(count).unwrap_or(1);
    let priority = i32::try_from(average).unwrap_or(i32::MAX);
    Rank { usable: true, reliable: !marginal, priority, paths: count }
}

impl Multipath {
    /// Groups the paths anew. The group in use is the one that has most of the
    /// paths of the one that was: how paths are grouped moves no I/O.
    pub(super) fn regroup(&mut self) {
        let in_use = self.current.take().map(|c| self.groups[c].slots.clone());
        let is = |s: u8, what: &dyn Fn(&Path) -> bool| {
            self.paths[usize::from(s)].as_ref().is_some_and(what)
        };
        // Those that carry I/O count, if any does: first of all those that have
        // done so up to now.
        let in_use = in_use.map(|slots| {
            let those = |what: &dyn Fn(&Path) -> bool| -> Vec<u8> {
                slots.iter().copied().filter(|&s| is(s, what)).collect()
            };
            let still = those(&|p| p.carries() && p.listed.in_table);
            let now = those(&Path::carries);
            [still, now].into_iter().find(|found| !found.is_empty()).unwrap_or(slots)
        });
        let paths = self.order.iter().filter_map(|&s| self.paths[usize::from(s)].as_ref());
        self.groups = group(&self.policy, paths);
        self.current = in_use.and_then(|old| self.group_with_most(&old));
    }

    /// The group that has most of these slots, the first of equals; `None` if
    /// none has any.
    pub(super) fn group_with_most(&self, slots: &[u8]) -> Option<usize> {
        let shared = |i: usize| self.groups[i].slots.iter().filter(|s| slots.contains(s)).count();
        let most = (0..self.groups.len()).max_by_key(|&i| (shared(i), Reverse(i)))?;
        (shared(most) > 0).then_some(most)
    }

    /// How good a group is.
    pub(super) fn rank(&self, index: usize) -> Rank {
        let group = &self.groups[index];
        rank(group.marginal, self.members(group))
    }

    /// Whether any of its paths carries I/O.
    pub(super) fn group_carries(&self, index: usize) -> bool {
        self.groups.get(index).is_some_and(|g| self.members(g).any(Path::carries))
    }

    /// The best of the groups that `fit`, the first of equals.
    pub(super) fn best_group(&self, fit: impl Fn(usize) -> bool) -> Option<usize> {
        let fitting = (0..self.groups.len()).filter(|&i| fit(i));
        fitting.max_by_key(|&i| (self.rank(i), Reverse(i)))
    }
}
