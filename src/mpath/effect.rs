//! What the engine asks for.

use std::sync::Arc;

use super::checker::CheckerKind;
use super::event::IoReason;
use super::hwhandler::{Activation, HandlerKind};
use super::path::Access;
use super::prio::PrioKind;
use super::reservation::{Ask, News, OrderId, Remembered};
use super::snapshot::{PathId, PathTable};
use crate::io::{Blocks, Identity, Outcome};
use crate::scsi::sense::SenseCode;

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
        /// Which checker.
        checker: CheckerKind,
    },
    /// Run the path's prioritizer; answer with `Event::Prioritized`.
    Prioritize {
        /// Which path.
        path: PathId,
        /// Number to answer with.
        reading: u32,
        /// Which prioritizer.
        prio: PrioKind,
    },
    /// Activate the path by its hardware handler; answer with
    /// `Event::Activated`.
    Activate {
        /// Which path.
        path: PathId,
        /// Number to answer with.
        activation: u32,
        /// Which handler; never `Detect` or `None`.
        handler: HandlerKind,
        /// Its target port group, if one is known.
        group: Option<u16>,
    },
    /// Read the first block of the path once, to learn how reliable it is
    /// (`marginal_path_*`); answer with `Event::Sampled`.
    Sample {
        /// Which path.
        path: PathId,
        /// Number to answer with.
        sample: u32,
    },
    /// Read the path's identity through its open file; answer with
    /// `Event::Proven`.
    Prove {
        /// Which path.
        path: PathId,
        /// Number to answer with.
        proof: u32,
    },
    /// Carry out a command about reservations; answer with `Event::Reserved`.
    Reserve {
        /// Which path.
        path: PathId,
        /// Number to answer with.
        job: u32,
        /// What.
        ask: Ask,
    },
    /// The guest's PERSISTENT RESERVE OUT has ended so. It follows the table of its step, which
    /// queue threads are to have when they have the answer.
    Answer {
        /// Which.
        order: OrderId,
        /// How.
        outcome: Outcome,
    },
    /// The guest is to hear this unit attention, once: not if a path has told of
    /// it since the guest was last known to be registered.
    Attention(SenseCode),
    /// What a successor of this process must know of reservations; `None`:
    /// nothing is registered any more.
    Remember(Option<Remembered>),
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
    /// A path left the map because its device has gone from the host.
    PathDeleted {
        /// Its name.
        path: String,
        /// Usable paths left.
        left: usize,
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
    /// The access state of a path's target port group is another one.
    AccessChanged {
        /// The path's name.
        path: String,
        /// Now.
        access: Access,
    },
    /// A path group is being activated by its hardware handler; requests that
    /// have no other group are held.
    Activating {
        /// The group, 1-based.
        group: u16,
    },
    /// A path group was activated, or could not be.
    Activated {
        /// The group, 1-based.
        group: u16,
        /// How it ended.
        result: Activation,
    },
    /// A path was found unreliable, or reliable again.
    Marginal {
        /// Its name.
        path: String,
        /// Whether it is unreliable.
        marginal: bool,
    },
    /// Queueing was switched off or back on by an administrator
    /// (`disablequeueing`, `restorequeueing`).
    QueueingSwitched {
        /// Whether requests are held while no path is left.
        on: bool,
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
    /// Registration or reservation have changed.
    Reservation(News),
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
    /// The host's kernel says that its LU may be another one: the kernel's word.
    Host(&'static str),
    /// It could not be activated.
    Activation(&'static str),
    /// A command of ours about reservations came to nothing.
    Reservation(&'static str),
    /// `fail path`.
    Administrator,
}
