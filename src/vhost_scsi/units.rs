//! The LUs a device shows, by target and LUN.
//!
//! Written by the control thread as a whole, read by the fronts: each keeps
//! the table it saw last and compares one integer per request. Not here: what
//! a LU is (`mpath`), and who may open it (`control`).

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::io::{Limits, MapSlot};
use crate::scsi::attention::Attentions;
use crate::scsi::command::CommandPolicy;
use crate::scsi::reservation::Registered;

/// What the guest is told of a command that found no usable path, once the
/// queueing policy has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoPathAnswer {
    /// Response TRANSPORT_FAILURE: the way to the LU is broken. A guest's
    /// dm-multipath fails the path.
    #[default]
    TransportError,
    /// CHECK CONDITION 02/3A/00: MEDIUM NOT PRESENT.
    NotReady,
}

/// What a LU's RESERVE(6) and RESERVE(10) and its paths settle between them
/// (law 5): such a reservation is a matter of one nexus, so that a LU either
/// has one path and the guest may reserve it, or it has several. Whichever comes
/// first wins, whatever thread it comes by. (Persistent reservations are the
/// engine's, and hold for all paths.)
#[derive(Debug, Default)]
pub struct Nexus(AtomicU8);

impl Nexus {
    const RESERVED: u8 = 1;
    const SEVERAL: u8 = 2;

    /// The guest is about to reserve; false if it may not.
    pub fn reserve(&self) -> bool {
        self.settle(Nexus::RESERVED)
    }

    /// The LU is about to have more than one path; false if it may not.
    pub fn join(&self) -> bool {
        self.settle(Nexus::SEVERAL)
    }

    /// Whether the guest has ever sent a command that reserves so.
    pub fn is_reserved(&self) -> bool {
        self.0.load(Ordering::Acquire) == Nexus::RESERVED
    }

    fn settle(&self, what: u8) -> bool {
        match self.0.compare_exchange(0, what, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(settled) => settled == what,
        }
    }
}

/// What a guest that sees one LU reads of its own registrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrShow {
    /// One, as of one nexus.
    #[default]
    One,
    /// One per path, as the array has them.
    All,
}

/// The guest's registrations, as the array may list them. Written by the
/// control thread, read by the fronts when they edit an answer to PERSISTENT
/// RESERVE IN.
#[derive(Debug, Default)]
pub struct OwnKeys(Mutex<Vec<Registered>>);

impl OwnKeys {
    /// From now on.
    pub fn set(&self, own: Vec<Registered>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = own;
    }

    /// Has an answer edited for each key of the guest's.
    pub fn hide(&self, hide: impl FnMut(&Registered)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(hide);
    }
}

/// One LU as the guest addresses it.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Target, 0 to 255.
    pub target: u8,
    /// LUN, 0 to 16383.
    pub lun: u16,
    /// The map behind it.
    pub map: MapSlot,
    /// Unit attentions that wait for the guest.
    pub attentions: Arc<Attentions>,
    /// Which commands the guest may send.
    pub policy: CommandPolicy,
    /// The guest sees one LU, not paths: port identities are kept from it.
    pub joined: bool,
    /// The map has more than one path: with `joined`, RESERVE(6) and (10) are
    /// refused, because they would hold for one path only.
    pub multipath: bool,
    /// The same against paths that join, with `joined`.
    pub nexus: Arc<Nexus>,
    /// The guest's persistent reservations, with `joined`.
    pub reservation: Arc<OwnKeys>,
    /// See [`PrShow`].
    pub pr_show: PrShow,
    /// Refuse commands that change the medium.
    pub read_only: bool,
    /// What one command may carry, over all paths.
    pub limits: Limits,
    /// Bytes of a logical block.
    pub block_size: u32,
    /// See [`NoPathAnswer`].
    pub no_path: NoPathAnswer,
}

impl Unit {
    /// Whether the LU is more than one nexus to the array and one to the
    /// guest (`CommandPolicy`).
    pub(super) fn paths_joined(&self) -> bool {
        self.joined && self.multipath
    }

    /// Most bytes of data one command may carry.
    pub(super) fn max_bytes(&self) -> u64 {
        self.limits.max_transfer.0.saturating_mul(u64::from(self.block_size))
    }
}

/// The LUs of a device, in ascending order of target and LUN.
#[derive(Debug, Default)]
pub(super) struct Units(Vec<Unit>);

impl Units {
    fn new(mut units: Vec<Unit>) -> Units {
        units.sort_by_key(|u| (u.target, u.lun));
        units.dedup_by_key(|u| (u.target, u.lun));
        Units(units)
    }

    pub(super) fn find(&self, target: u8, lun: u16) -> Option<&Unit> {
        let at = self.0.binary_search_by_key(&(target, lun), |u| (u.target, u.lun));
        at.ok().map(|at| &self.0[at])
    }

    /// The LUs of a target, in ascending order.
    pub(super) fn of_target(&self, target: u8) -> &[Unit] {
        let start = self.0.partition_point(|u| u.target < target);
        let end = self.0.partition_point(|u| u.target <= target);
        &self.0[start..end]
    }

    /// The lowest target that has a LU.
    pub(super) fn first_target(&self) -> Option<u8> {
        self.0.first().map(|u| u.target)
    }

    /// The LU of a map at a target.
    pub(super) fn of_map(&self, target: u8, map: MapSlot) -> Option<&Unit> {
        self.of_target(target).iter().find(|u| u.map == map)
    }
}

/// The table of the moment, shared by the device and its fronts.
#[derive(Debug, Default)]
pub(super) struct Shown {
    generation: AtomicU64,
    table: Mutex<(u64, Arc<Units>)>,
}

impl Shown {
    pub(super) fn set(&self, units: Vec<Unit>) {
        let units = Arc::new(Units::new(units));
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.0 += 1;
        table.1 = units;
        self.generation.store(table.0, Ordering::Release);
    }
}

/// One front's view of the table.
#[derive(Clone, Debug)]
pub(super) struct View {
    generation: u64,
    units: Arc<Units>,
}

impl View {
    /// Empty; [`View::refresh`] before the first use.
    pub(super) fn new() -> View {
        View { generation: 0, units: Arc::default() }
    }

    /// Takes the newest table, if there is a newer one: one load if not.
    #[inline]
    pub(super) fn refresh(&mut self, shown: &Shown) {
        if shown.generation.load(Ordering::Acquire) != self.generation {
            let table = shown.table.lock().unwrap_or_else(PoisonError::into_inner);
            *self = View { generation: table.0, units: Arc::clone(&table.1) };
        }
    }

    pub(super) fn units(&self) -> &Units {
        &self.units
    }
}
