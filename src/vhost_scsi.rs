//! The virtio-scsi front: LUs shown to a guest as a vhost-user-scsi device.
//!
//! Turns descriptor chains of the request queues into [`Request`]s that carry
//! the guest's own CDB, and outcomes into responses; answers the control
//! queue; writes events (virtio 1.3, 5.6). It is the *target* the guest talks
//! to: it knows which LUs there are, refuses what the export's policy denies,
//! and makes the answers of a LU those of one LU rather than of the path that
//! gave them. It is *not* a ring (`guest::virtqueue`), not a session
//! (`vhost_user`) and does no I/O.
//!
//! [`ScsiDevice`] belongs to the session, which reaches it from the protocol
//! thread, and to the control thread, which sets its LUs; each queue thread
//! has its own [`ScsiFront`]. They share a few words and the table of LUs.
//!
//! [`Request`]: crate::io::Request

mod backend;
mod front;
mod transfer;
mod units;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::io::{MAX_MAPS, MapSlot};
use crate::scsi::sense::Sense;
use crate::virtio::scsi::{
    self, CDB_SIZE_DEFAULT, EVENT_LEN, FIRST_REQUEST_QUEUE, SENSE_SIZE_DEFAULT, ScsiConfig,
};
use crate::virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_PROTOCOL_FEATURES, F_VERSION_1};
use units::Shown;

pub use front::ScsiFront;
pub use units::{Nexus, NoPathAnswer, OwnKeys, PrShow, Unit};

/// Largest ring we accept, in descriptors.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// Most request queues: the ring index of SET_VRING_KICK has eight bits, and
/// two rings are the control and the event queue.
pub const MAX_QUEUES: u16 = 254;

/// Largest `cdb_size` a driver may ask for: the longest CDB there is (7Fh with
/// an ADDITIONAL CDB LENGTH of 252).
pub const MAX_CDB_SIZE: u32 = 260;

/// Largest `sense_size` a driver may ask for: the longest sense data there is
/// (SPC-5 4.4.1).
pub const MAX_SENSE_SIZE: u32 = 252;

/// What the device offers.
const FEATURES: u64 = F_VERSION_1
    | F_INDIRECT_DESC
    | F_EVENT_IDX
    | F_PROTOCOL_FEATURES
    | scsi::F_HOTPLUG
    | scsi::F_CHANGE;

/// Most data segments told to drivers that ask us: what fits a ring of 128
/// descriptors, QEMU's default, beside request and response. (QEMU has a
/// configuration space of its own.)
const SEG_MAX: u16 = 126;

/// Commands of one LU at a time, told to drivers that ask us: QEMU's default.
const CMD_PER_LUN: u32 = 128;

/// How the device is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiSettings {
    /// Request queues, 1 to [`MAX_QUEUES`]; a front-end may use fewer.
    pub num_queues: u16,
    /// Largest ring in descriptors, a power of two up to [`MAX_QUEUE_SIZE`].
    pub max_queue_size: u16,
    /// Longest transfer told to drivers that ask us, in 512-byte sectors; the
    /// Block Limits page of each LU says what counts.
    pub max_sectors: u32,
}

/// Settings no virtio-scsi device can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScsiError {
    /// Number of queues out of range.
    #[error("{0} request queues: a virtio SCSI device has from 1 to {MAX_QUEUES}")]
    Queues(u16),
    /// Ring size out of range.
    #[error("queue size {0}: it must be a power of two from 4 to {MAX_QUEUE_SIZE} descriptors")]
    QueueSize(u16),
}

/// What device and fronts share.
#[derive(Debug)]
struct Shared {
    /// Virtio features the driver took; 0 before negotiation.
    acked: AtomicU64,
    sizes: AtomicU32,
    units: Shown,
    /// By map: whether its LU's last sense data was in descriptor format. What
    /// we say in its name is in the same; fixed until it has said something.
    descriptor_sense: Vec<AtomicBool>,
}

/// `sense_size` and `cdb_size` as the driver last set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    sense: u16,
    cdb: u16,
}

impl Sizes {
    /// `None` for sizes no driver has a use for.
    fn new(sense: u32, cdb: u32) -> Option<Sizes> {
        if sense > MAX_SENSE_SIZE || !(1..=MAX_CDB_SIZE).contains(&cdb) {
            return None;
        }
        Some(Sizes { sense: u16::try_from(sense).ok()?, cdb: u16::try_from(cdb).ok()? })
    }

    fn of_reset() -> Sizes {
        Sizes::new(SENSE_SIZE_DEFAULT, CDB_SIZE_DEFAULT).expect("the defaults are in range")
    }

    fn pack(self) -> u32 {
        u32::from(self.sense) << 16 | u32::from(self.cdb)
    }
}

impl Shared {
    /// Both sizes of the same moment.
    #[inline]
    fn sizes(&self) -> Sizes {
        let [sense_high, sense_low, cdb_high, cdb_low] =
            self.sizes.load(Ordering::Acquire).to_be_bytes();
        Sizes {
            sense: u16::from_be_bytes([sense_high, sense_low]),
            cdb: u16::from_be_bytes([cdb_high, cdb_low]),
        }
    }

    fn set_sizes(&self, sizes: Sizes) {
        self.sizes.store(sizes.pack(), Ordering::Release);
    }

    #[inline]
    fn has_descriptor_sense(&self, map: MapSlot) -> bool {
        let known = self.descriptor_sense.get(usize::from(map.0));
        known.is_some_and(|is| is.load(Ordering::Relaxed))
    }

    /// Response codes 70h and 71h are fixed format, 72h and 73h descriptors
    /// (SPC-5 4.4.1); anything else says nothing.
    fn learn_sense_format(&self, map: MapSlot, sense: &Sense) {
        let format = match sense.as_bytes().first().map(|byte| byte & 0x7f) {
            Some(0x70 | 0x71) => false,
            Some(0x72 | 0x73) => true,
            _ => return,
        };
        if let Some(known) = self.descriptor_sense.get(usize::from(map.0)) {
            known.store(format, Ordering::Relaxed);
        }
    }

    fn has(&self, feature: u64) -> bool {
        self.acked.load(Ordering::Acquire) & feature != 0
    }
}

/// A vhost-user-scsi device: the contract [`VhostUserBackend`] over a table of
/// LUs, which may change at any time. For our own session only: the stock
/// daemon cannot work its rings.
///
/// [`VhostUserBackend`]: vhost_user_backend::VhostUserBackend
pub struct ScsiDevice {
    shared: Arc<Shared>,
    settings: ScsiSettings,
}

impl ScsiDevice {
    /// A device without LUs.
    ///
    /// # Errors
    ///
    /// Settings that no virtio-scsi device can have.
    pub fn new(settings: &ScsiSettings) -> Result<ScsiDevice, ScsiError> {
        if !(1..=MAX_QUEUES).contains(&settings.num_queues) {
            return Err(ScsiError::Queues(settings.num_queues));
        }
        let size = settings.max_queue_size;
        if !size.is_power_of_two() || !(4..=MAX_QUEUE_SIZE).contains(&size) {
            return Err(ScsiError::QueueSize(size));
        }
        Ok(ScsiDevice {
            shared: Arc::new(Shared {
                acked: AtomicU64::new(0),
                sizes: AtomicU32::new(Sizes::of_reset().pack()),
                units: Shown::default(),
                descriptor_sense: (0..MAX_MAPS).map(|_| AtomicBool::new(false)).collect(),
            }),
            settings: *settings,
        })
    }

    /// A front for one queue thread. All fronts follow the negotiated state
    /// and the table of LUs.
    pub fn front(&self) -> ScsiFront {
        ScsiFront::new(Arc::clone(&self.shared))
    }

    /// Replaces the table of LUs. A front uses it from the next request it
    /// parses; one it has parsed goes on to its map. Of two units with one
    /// address the first counts.
    pub fn set_units(&self, units: Vec<Unit>) {
        // The next LU of a map that is not there has said nothing yet.
        let maps: HashSet<_> = units.iter().map(|unit| usize::from(unit.map.0)).collect();
        let known = self.shared.descriptor_sense.iter().enumerate();
        for (_, is) in known.filter(|(map, _)| !maps.contains(map)) {
            is.store(false, Ordering::Relaxed);
        }
        self.shared.units.set(units);
    }

    /// Rings of all kinds: control, event, request.
    fn rings(&self) -> u16 {
        FIRST_REQUEST_QUEUE + self.settings.num_queues
    }

    fn config(&self) -> ScsiConfig {
        let Sizes { sense, cdb } = self.shared.sizes();
        ScsiConfig {
            num_queues: u32::from(self.settings.num_queues),
            seg_max: u32::from((self.settings.max_queue_size - 2).min(SEG_MAX)),
            max_sectors: self.settings.max_sectors,
            cmd_per_lun: CMD_PER_LUN,
            event_info_size: u32::try_from(EVENT_LEN).unwrap_or(u32::MAX),
            sense_size: u32::from(sense),
            cdb_size: u32::from(cdb),
            max_channel: 0,
            max_target: u16::from(u8::MAX),
            max_lun: u32::from(crate::scsi::luns::LUN_MAX),
        }
    }
}

impl fmt::Debug for ScsiDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScsiDevice")
            .field("settings", &self.settings)
            .field("sizes", &self.shared.sizes())
            .field("units", &self.shared.units)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
