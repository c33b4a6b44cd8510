//! A map as an administrator sees it: a copy of the engine's state for
//! display. What it looks like as a tree or as JSON is the control module's.

use super::path::Path;
use super::policy::Policy;
use super::reservation::Facts;
use crate::io::{Identity, Time};

/// Status of a path group, in dm's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupStatus {
    /// In use.
    Active,
    /// Usable, not in use.
    Enabled,
    /// No usable path, or bypassed: its array was busy when it was to be
    /// activated.
    Disabled,
}

impl GroupStatus {
    /// As `multipath -ll` prints it.
    pub fn name(self) -> &'static str {
        match self {
            GroupStatus::Active => "active",
            GroupStatus::Enabled => "enabled",
            GroupStatus::Disabled => "disabled",
        }
    }
}

/// One group with its paths.
#[derive(Clone, Debug)]
pub struct TopologyGroup {
    /// 1-based number.
    pub number: u16,
    /// Average priority of the usable paths, 0 if none.
    pub priority: i32,
    /// Its paths are unreliable ones (`marginal_pathgroups`).
    pub marginal: bool,
    /// Its status.
    pub status: GroupStatus,
    /// Its paths in configuration order.
    pub paths: Vec<Path>,
}

/// The whole map.
#[derive(Clone, Debug)]
pub struct Topology {
    /// What the map is a map of.
    pub identity: Identity,
    /// Its settings.
    pub policy: Policy,
    /// Groups in order.
    pub groups: Vec<TopologyGroup>,
    /// Requests are held while no path is usable.
    pub queueing: bool,
    /// `disablequeueing` holds.
    pub queueing_disabled: bool,
    /// I/O goes back to a better group then (`failback` in seconds).
    pub failback_at: Option<Time>,
    /// Paths usable now.
    pub usable: usize,
    /// Paths that carry I/O now: not those in standby.
    pub carrying: usize,
    /// Path failures since start.
    pub path_faults: u64,
    /// Group switches since start.
    pub switches: u64,
    /// Tables published since start.
    pub generation: u64,
    /// Times `no_path_retry` ended.
    pub queue_timeouts: u64,
    /// What the guest has registered and reserved.
    pub reservation: Facts,
}
