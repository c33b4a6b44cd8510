//! What the queue threads see of a map: an immutable table of usable paths.
//!
//! The engine (owned by the control thread) is the only writer; it publishes a
//! new table, with a higher generation, whenever a path joins, fails, is
//! reinstated or leaves. Queue threads compare one integer per batch and swap
//! an `Arc`. A queue thread that sees a path fail stops using it at once, on
//! its own, by remembering the path's *epoch*: only a table with a later epoch
//! of that path makes it usable again.

use std::fmt;
use std::time::Duration;

/// Most paths of one map.
pub const MAX_PATHS: usize = 64;

/// Names one path of a map for as long as it is in the map.
///
/// `slot` is reused after removal, `generation` never is (law 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathId {
    /// Index below [`MAX_PATHS`].
    pub slot: u8,
    /// Counts the paths that ever used this slot.
    pub generation: u32,
}

impl PathId {
    /// A number that no other path of the map ever has.
    pub fn key(self) -> u64 {
        u64::from(self.generation) << 8 | u64::from(self.slot)
    }
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// A path as a queue thread sees it: usable, unless failed locally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathView {
    /// Which path.
    pub id: PathId,
    /// Counts how often the path was (re)instated. A failure seen at epoch
    /// *e* says nothing about epoch *e* + 1.
    pub epoch: u32,
    /// Its epoch when its identity was last proven for it to be (re)instated.
    /// A path may be passive for a while and carry I/O again, at a later epoch,
    /// without a proof: that clears it of no doubt.
    pub proven: u32,
    /// Priority of the path; larger is better.
    pub priority: i32,
    /// Commands in a row before `round-robin` moves on: `rr_min_io_rq`, times
    /// the priority under `rr_weight priorities`.
    pub repeat: u32,
}

/// A path group: paths that may be used at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// 1-based number, as `multipath -ll` and `switchgroup` count.
    pub number: u16,
    /// Usable paths only, in configuration order.
    pub paths: Vec<PathView>,
}

/// What to do with requests while no path is usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queueing {
    /// Hold them.
    Hold,
    /// Fail them (no_path_retry has ended).
    Fail,
    /// The same, with the array's word: on every path it says that there is no
    /// such LU (05/25/00).
    Gone,
}

/// Path selector (`path_selector` in multipath.conf).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SelectorKind {
    /// Each path in turn.
    RoundRobin,
    /// The path with the fewest commands in flight.
    QueueLength,
    /// The path with the fewest bytes in flight.
    ServiceTime,
    /// The path that would be done first, by an average of its service times.
    HistoricalServiceTime,
    /// The better of two paths by what commands of this direction and size
    /// took there lately, and by what waits there.
    Latency,
}

/// The usable paths of a map at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTable {
    /// Grows with every table published; starts at 1.
    pub generation: u64,
    /// Groups with at least one usable path, the current group first, then in
    /// the order in which they would take over.
    pub groups: Vec<GroupView>,
    /// Policy while `groups` is empty (or every path in it failed locally).
    pub queueing: Queueing,
    /// How to choose within a group.
    pub selector: SelectorKind,
    /// Nothing new of the guest's is issued, and a request that comes back is
    /// held: reservations are being moved from one path to another.
    pub suspended: bool,
    /// The guest has registered a reservation key: a RESERVATION CONFLICT may
    /// be a path's that has lost its registration (`PathVerdict::Conflict`).
    pub registered: bool,
    /// A request is not held longer than this (`queue_timeout`); `None`: as
    /// long as `queueing` says.
    pub hold_for: Option<Duration>,
}
