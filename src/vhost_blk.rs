//! The virtio-blk front: one LU shown to a guest as a vhost-user-blk disk.
//!
//! Turns descriptor chains into [`Request`]s and outcomes into status bytes
//! (virtio 1.3, 5.2), and says what the device offers: features,
//! configuration space, queues. It is *not* a ring (that is
//! `guest::virtqueue`), not a session (that is `vhost_user`) and does no I/O.
//!
//! [`BlkDevice`] belongs to the session, which reaches it from the protocol
//! thread; each queue thread has its own [`BlkFront`]. Both share the few
//! words that change: the features the driver took and the write-cache mode.

mod backend;
mod front;
mod offer;
mod stock;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::guest::inflight::InflightArea;
use crate::io::{Blocks, Geometry, Identity, Limits, Outcome, Request};
use crate::virtio::blk;
use offer::Offer;

pub use front::BlkFront;

/// Largest ring we accept, in descriptors.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// No capacity: 2^64 - 1 sectors are not whole blocks beyond 512 bytes, and no
/// disk of those.
const UNREAD: u64 = u64::MAX;

/// Most request queues: the ring index of SET_VRING_KICK has eight bits.
pub const MAX_QUEUES: u16 = 256;

/// What the disk is and how it is shown.
#[derive(Clone, Debug)]
pub struct BlkSettings {
    /// WWID, capacity, block size.
    pub identity: Identity,
    /// Topology and what the LU can do.
    pub geometry: Geometry,
    /// What the request core can pass on; it splits whatever is larger.
    pub limits: Limits,
    /// Request queues, 1 to [`MAX_QUEUES`].
    pub num_queues: u16,
    /// Largest ring in descriptors, a power of two up to [`MAX_QUEUE_SIZE`].
    pub max_queue_size: u16,
    /// Refuse writes even where the LU would take them.
    pub read_only: bool,
    /// Serial for GET_ID; else the LU's own, else the tail of its WWID.
    pub serial: Option<String>,
}

/// Settings no virtio-blk device can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlkError {
    /// Virtio positions are in 512-byte sectors and Linux guests want a power
    /// of two, so formats such as 520 bytes cannot be shown.
    #[error(
        "logical block size of {0} bytes cannot be shown as a virtio disk: \
         it must be a power of two from 512 to 65536 bytes"
    )]
    BlockSize(u32),
    /// More than 2^64 sectors.
    #[error("capacity of {blocks} blocks of {block_size} bytes does not fit a virtio disk")]
    Capacity {
        /// Capacity in logical blocks.
        blocks: u64,
        /// Logical block size in bytes.
        block_size: u32,
    },
    /// Number of queues out of range.
    #[error("{0} queues: a virtio disk has from 1 to {MAX_QUEUES}")]
    Queues(u16),
    /// Ring size out of range.
    #[error("queue size {0}: it must be a power of two from 4 to {MAX_QUEUE_SIZE} descriptors")]
    QueueSize(u16),
    /// `--serial` does not fit GET_ID.
    #[error(
        "serial '{0}' cannot be shown to a guest: it must be 1 to {len} printable ASCII characters",
        len = blk::ID_LEN
    )]
    Serial(String),
}

/// Executes a request at once; for serving without queue threads.
pub trait SyncExecutor: Send + Sync {
    /// Does what the request says. Its segments stay mapped during the call.
    fn execute(&self, request: &Request) -> Outcome;
}

impl<F: Fn(&Request) -> Outcome + Send + Sync> SyncExecutor for F {
    fn execute(&self, request: &Request) -> Outcome {
        self(request)
    }
}

/// What device and fronts share.
#[derive(Debug)]
struct Shared {
    offer: Offer,
    /// Virtio features the driver took; 0 before negotiation.
    acked: AtomicU64,
    /// Write-cache mode as the driver last set it: true = write-back.
    writeback: AtomicBool,
}

impl Shared {
    /// Whether a write must be durable when it completes (virtio 1.3, 5.2.6.2
    /// and law 9): the driver cannot flush, or chose write-through.
    fn write_through(&self) -> bool {
        let acked = self.acked.load(Ordering::Acquire);
        acked & blk::F_FLUSH == 0
            || (acked & blk::F_CONFIG_WCE != 0 && !self.writeback.load(Ordering::Acquire))
    }

    /// The `writeback` byte as the driver reads it: 0 where CONFIG_WCE was
    /// taken without FLUSH (5.2.5.2), whatever an earlier driver left.
    fn shown_writeback(&self) -> u8 {
        let acked = self.acked.load(Ordering::Acquire);
        let cannot_flush = acked & (blk::F_CONFIG_WCE | blk::F_FLUSH) == blk::F_CONFIG_WCE;
        u8::from(!cannot_flush && self.writeback.load(Ordering::Acquire))
    }
}

/// A vhost-user-blk device: the contract [`VhostUserBackend`] over one LU.
///
/// In production our own session serves it and asks for features,
/// configuration and fronts only; rings go to queue threads and
/// `handle_event` is never called. Served by the stock `VhostUserDaemon`
/// (tests, as a second opinion on the protocol) the rings are worked off in
/// `handle_event` by the executor given to [`BlkDevice::with_executor`].
///
/// [`VhostUserBackend`]: vhost_user_backend::VhostUserBackend
pub struct BlkDevice {
    shared: Arc<Shared>,
    num_queues: u16,
    max_queue_size: u16,
    executor: Option<Box<dyn SyncExecutor>>,
    /// An in-flight area was made by this device.
    area_made: AtomicBool,
    /// The front-end's in-flight area. Its memo is the disk's size in sectors,
    /// as the guest is shown it.
    area: Mutex<Option<InflightArea>>,
    /// That size is an earlier process's: the LU has shrunk since.
    inherited_size: AtomicBool,
    /// The capacity a front-end has last read; [`UNREAD`] until one has.
    sectors_read: AtomicU64,
    /// Guest memory, for `handle_event` only.
    memory: Mutex<Option<GuestMemoryAtomic<GuestMemoryMmap>>>,
}

impl BlkDevice {
    /// A device for our own session: no executor.
    ///
    /// # Errors
    ///
    /// Settings that no virtio-blk device can have.
    pub fn new(settings: &BlkSettings) -> Result<BlkDevice, BlkError> {
        let offer = Offer::new(settings)?;
        Ok(BlkDevice {
            shared: Arc::new(Shared {
                offer,
                acked: AtomicU64::new(0),
                writeback: AtomicBool::new(true),
            }),
            num_queues: settings.num_queues,
            max_queue_size: settings.max_queue_size,
            executor: None,
            area_made: AtomicBool::new(false),
            area: Mutex::new(None),
            inherited_size: AtomicBool::new(false),
            sectors_read: AtomicU64::new(UNREAD),
            memory: Mutex::new(None),
        })
    }

    /// A device the stock daemon can serve: each request is executed where it
    /// is found.
    ///
    /// # Errors
    ///
    /// As [`BlkDevice::new`].
    pub fn with_executor(
        settings: &BlkSettings,
        executor: Box<dyn SyncExecutor>,
    ) -> Result<BlkDevice, BlkError> {
        Ok(BlkDevice { executor: Some(executor), ..BlkDevice::new(settings)? })
    }

    /// A front for one queue thread. All fronts follow the negotiated state.
    pub fn front(&self) -> BlkFront {
        BlkFront::new(Arc::clone(&self.shared))
    }

    /// Whether the driver wants a write-back cache; meaningful only where it
    /// took CONFIG_WCE.
    pub fn writeback(&self) -> bool {
        self.shared.writeback.load(Ordering::Acquire)
    }

    /// Goes to write-through until the driver says otherwise.
    ///
    /// For a session that takes over rings from an earlier process: the driver
    /// may have chosen write-through then, and front-ends repeat neither the
    /// choice nor the question after a reconnect.
    pub fn assume_write_through(&self) {
        self.shared.writeback.store(false, Ordering::Release);
    }

    /// The LU has another capacity; whether the guest's disk is larger now.
    /// Then the front-end is to be told, see [`BlkDevice::unread_config`].
    ///
    /// A disk never gets smaller under its guest: after a shrink it keeps its
    /// size, in a later process, too, and what the guest sends beyond the LU's
    /// end is the LU's to refuse.
    pub fn resize(&self, capacity: Blocks) -> bool {
        let grew = self.shared.offer.grow(capacity);
        if grew {
            self.leave_size(self.area().as_ref());
        }
        grew
    }

    /// Capacity as the guest is shown it, in logical blocks.
    pub fn capacity(&self) -> Blocks {
        self.shared.offer.capacity()
    }

    /// The configuration space as a number (its capacity), if no front-end has
    /// read it as it is now: not since the disk grew, or not from this process.
    pub fn unread_config(&self) -> Option<u64> {
        let sectors = self.shared.offer.sectors();
        (self.sectors_read.load(Ordering::Acquire) != sectors).then_some(sectors)
    }

    /// The session made an in-flight area: rings tracked in it began here.
    pub fn area_made(&self) {
        self.area_made.store(true, Ordering::Release);
    }

    /// The front-end gave an in-flight area; one that was not made here is an
    /// earlier process's ([`BlkDevice::assume_write_through`]). The guest keeps
    /// the size that one has shown it, if the LU has fewer blocks by now.
    pub fn area_given(&self, area: &InflightArea) {
        if !self.area_made.load(Ordering::Acquire) {
            self.assume_write_through();
        }
        let mut kept = self.area();
        if self.shared.offer.grow_to_sectors(area.memo()) {
            self.inherited_size.store(true, Ordering::Release);
        }
        self.leave_size(Some(area));
        *kept = Some(area.clone());
    }

    /// Whether the guest was found to be shown more than the LU has, since the
    /// last call.
    pub fn take_inherited_size(&self) -> bool {
        self.inherited_size.swap(false, Ordering::AcqRel)
    }

    /// Tells a successor what the guest is shown.
    fn leave_size(&self, area: Option<&InflightArea>) {
        if let Some(area) = area {
            area.set_memo(self.shared.offer.sectors());
        }
    }

    fn area(&self) -> MutexGuard<'_, Option<InflightArea>> {
        self.area.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BlkDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlkDevice")
            .field("shared", &self.shared)
            .field("num_queues", &self.num_queues)
            .field("max_queue_size", &self.max_queue_size)
            .field("has_executor", &self.executor.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
