//! Path groups: which paths may be used together, and which group is in use.
//!
//! The rules are multipath-tools' `pgpolicies.c` and `switchgroup.c`: a
//! group's priority is the average over its usable paths, more usable paths
//! break a tie, then configuration order.

use super::path::Path;
use super::policy::GroupingPolicy;

/// A group: indexes into the map's path slots, in configuration order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathGroup {
    /// Slots of its paths.
    pub slots: Vec<u8>,
}

/// Groups `paths` (in configuration order) by `policy`.
pub fn group<'a>(policy: GroupingPolicy, paths: impl Iterator<Item = &'a Path>) -> Vec<PathGroup> {
    let slots = paths.map(|p| p.id.slot);
    match policy {
        GroupingPolicy::Failover => slots.map(|s| PathGroup { slots: vec![s] }).collect(),
        GroupingPolicy::Multibus => {
            let slots: Vec<u8> = slots.collect();
            if slots.is_empty() { Vec::new() } else { vec![PathGroup { slots }] }
        }
        // Being built.
        _ => slots.map(|s| PathGroup { slots: vec![s] }).collect(),
    }
}

/// What decides between groups: larger is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Whether any path is usable.
    pub usable: bool,
    /// Average priority of the usable paths.
    pub priority: i32,
    /// How many there are.
    pub paths: usize,
}

/// Ranks a group by its usable paths.
pub fn rank<'a>(paths: impl Iterator<Item = &'a Path>) -> Rank {
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
    Rank { usable: true, priority, paths: count }
}
