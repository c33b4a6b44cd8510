//! What the engine asks for.

use std::sync::Arc;

use super::event::IoReason;
use super::snapshot::{PathId, PathTable};
use crate::io::{Blocks, Identity};

/// One thing to be done by the engine's owner, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Hand this table to every queue thread.
    Publish(Arc<PathTable>),
    /// Run the path's checker; answer with `Event::Checked`.
    Check {
        /// Which path.
        path: PathId,
        /// Number to answer with.
        check: u32,
    },
    /// Read the path's identity through its open file; answer with
    /// `Event::Proven`.
    Prove {
        /// Which path.
        path: PathId,
        /// Number to answer with.
        proof: u32,
    },
    /// The path has left the map: close it once every queue thread has
    /// acknowledged the table published before this effect and its last
    /// command has returned (law 10).
    Retire(PathId),
    /// Tell the administrator; logged exactly once, by the owner.
    Notify(Change),
}

/// Effects of one step, in order.
pub type Effects = Vec<Effect>;

/// A change of state, with its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A path joined the map and carries I/O.
    PathAdded {
        /// Its name.
        path: String,
    },
    /// A path left the map.
    PathRemoved {
        /// Its name.
        path: String,
    },
    /// A path stopped carrying I/O.
    PathFailed {
        /// Its name.
        path: String,
        /// Why.
        cause: Cause,
        /// Usable paths left.
        left: usize,
    },
    /// A path gets nothing new until a check or a proof has cleared it.
    PathSuspect {
        /// Its name.
        path: String,
        /// Why.
        cause: Cause,
        /// Usable paths left.
        left: usize,
    },
    /// A path carries I/O again.
    PathReinstated {
        /// Its name.
        path: String,
        /// Usable paths now.
        usable: usize,
    },
    /// I/O moved to another path group.
    GroupSwitched {
        /// Group left, 1-based; `None` if there was none.
        from: Option<u16>,
        /// Group now in use.
        to: u16,
    },
    /// No path is usable; requests are held or failed.
    NoPath {
        /// Whether requests are held.
        held: bool,
    },
    /// `no_path_retry` ended: held requests fail.
    QueueingEnded,
    /// A path is usable again after `NoPath`.
    Recovered,
    /// The LU has another capacity, and the map with it.
    Resized {
        /// Before.
        from: Blocks,
        /// Now.
        to: Blocks,
    },
    /// Every path says that its target has no such LU (05/25/00). Told once.
    LunGone,
    /// A path is usable again after `LunGone`.
    LunBack,
}

/// Why a path is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A guest command's end was judged, or it never came.
    Io(IoReason),
    /// The checker said so.
    Checker(&'static str),
    /// It leads to something else than the map's LU.
    IdentityMismatch {
        /// The map's.
        expected: Identity,
        /// The path's.
        found: Identity,
    },
    /// Its identity could not be read.
    IdentityUnknown(String),
    /// `fail path`.
    Administrator,
}
