//! A private view of one split virtqueue (virtio 1.2 §2.7).
//!
//! The three ring addresses are translated and checked once; after that every
//! access is a plain atomic load or store. Batches are explicit: `avail.idx` is
//! read once per [`Ring::pop`], `used.idx` is stored once per [`Ring::push`],
//! and [`Ring::needs_call`] is one decision for everything pushed since the
//! last one. Not here: eventfds and in-flight tracking (`guest::virtqueue`),
//! packed rings, legacy big-endian rings. Owned by one queue thread at a time.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::guest::copy;
use crate::guest::memory::{Memory, MemoryError};
use crate::guest::shared::Shared;
use crate::io::Segment;

const DESC_F_NEXT: u16 = 1;
const DESC_F_WRITE: u16 = 2;
const DESC_F_INDIRECT: u16 = 4;
const AVAIL_F_NO_INTERRUPT: u16 = 1;
const USED_F_NO_NOTIFY: u16 = 1;
const DESC_SIZE: usize = 16;
/// Offset of `ring[0]` in the available and used rings.
const ELEMENTS: usize = 4;
/// Offset of `idx` in the available and used rings.
const IDX: usize = 2;

/// Largest split ring, in descriptors (virtio 1.2 §2.7).
pub const MAX_RING_SIZE: u16 = 32768;

/// Descriptors that one chain may have with an indirect table, on rings
/// smaller than this. Linux makes tables longer than the ring; QEMU stops here.
pub const MAX_CHAIN: usize = 1024;

/// Why a ring cannot be used any more (or at all).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// Not a power of two between 1 and 32768.
    #[error("ring size {0} is not a power of two up to 32768")]
    Size(u32),
    /// A ring part is not aligned as virtio wants it.
    #[error("{part} at guest address {addr:#x} is misaligned")]
    Misaligned {
        /// Descriptor table, available or used ring.
        part: &'static str,
        /// Guest physical address.
        addr: u64,
    },
    /// A ring part is not within one region of the memory table.
    #[error("{part} at guest address {addr:#x} is not in one region of guest memory")]
    Unmapped {
        /// Descriptor table, available or used ring.
        part: &'static str,
        /// Guest physical address.
        addr: u64,
    },
    /// The driver claims more new chains than the ring has entries.
    #[error("available index {idx} is {ahead} ahead of {at} on a ring of {size}")]
    AvailIndex {
        /// What the driver wrote.
        idx: u16,
        /// Where we are.
        at: u16,
        /// The difference.
        ahead: u16,
        /// Ring size.
        size: u16,
    },
    /// A head index beyond the descriptor table.
    #[error("head descriptor {head} is beyond the ring of {size}")]
    Head {
        /// What the driver wrote.
        head: u16,
        /// Ring size.
        size: u16,
    },
    /// The driver made a chain available that it has not got back yet.
    #[error("head descriptor {0} was made available twice")]
    HeadBusy(u16),
    /// A chain cannot be followed.
    #[error("chain at head descriptor {head}: {error}")]
    Chain {
        /// Its head.
        head: u16,
        /// What is wrong with it.
        error: ChainError,
    },
}

/// Why a descriptor chain is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// A `next` index beyond the descriptor table.
    #[error("descriptor index {0} is beyond the table")]
    Index(u16),
    /// The chain does not end within the table's length.
    #[error("the chain loops")]
    Loop,
    /// More descriptors than we follow.
    #[error("{0} descriptors are too many")]
    TooLong(usize),
    /// INDIRECT without VIRTIO_RING_F_INDIRECT_DESC.
    #[error("indirect descriptors were not negotiated")]
    IndirectNotNegotiated,
    /// INDIRECT inside an indirect table.
    #[error("indirect table within an indirect table")]
    Nested,
    /// INDIRECT together with NEXT.
    #[error("indirect descriptor with a successor")]
    IndirectNext,
    /// The indirect table's length is zero or no multiple of 16.
    #[error("indirect table of {0} bytes")]
    IndirectSize(u32),
    /// A device-readable descriptor after a device-writable one.
    #[error("readable descriptor after a writable one")]
    Order,
    /// A descriptor without bytes.
    #[error("descriptor of zero bytes")]
    Empty,
    /// Address plus length, or the sum of lengths, overflows (4 GiB a chain).
    #[error("descriptor addresses or lengths overflow")]
    Overflow,
    /// Not in the memory table.
    #[error("{len:#x} bytes at guest address {addr:#x} are not guest memory")]
    Unmapped {
        /// Guest physical address.
        addr: u64,
        /// Length in bytes.
        len: u32,
    },
}

/// A followed chain: host segments of guest memory. Reused: once its vectors
/// have grown, following a chain allocates nothing.
#[derive(Debug, Default)]
pub struct Chain {
    /// Device-readable segments in order.
    pub readable: Vec<Segment>,
    /// Device-writable segments in order.
    pub writable: Vec<Segment>,
    table: Vec<u8>,
}

impl Chain {
    /// Empties the chain, keeping its capacity.
    pub fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
        self.table.clear();
    }
}

/// What the front-end says about a ring. Addresses are guest physical.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingConfig {
    /// Number of descriptors: a power of two.
    pub size: u16,
    /// Descriptor table.
    pub desc: u64,
    /// Available ring.
    pub avail: u64,
    /// Used ring.
    pub used: u64,
    /// VIRTIO_RING_F_EVENT_IDX was negotiated.
    pub event_idx: bool,
    /// VIRTIO_RING_F_INDIRECT_DESC was negotiated.
    pub indirect: bool,
    /// First available entry to look at.
    pub next_avail: u16,
}

#[derive(Clone, Copy)]
struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn decode(addr: u64, rest: u64) -> Descriptor {
        let [l0, l1, l2, l3, f0, f1, n0, n1] = rest.to_ne_bytes();
        Descriptor {
            addr: u64::from_le(addr),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        }
    }
}

/// A split virtqueue.
#[derive(Debug)]
pub struct Ring {
    memory: Arc<Memory>,
    config: RingConfig,
    parts: Parts,
    next_avail: u16,
    next_used: u16,
    /// `used.idx` at the last decision of `needs_call`.
    decided: u16,
}

#[derive(Clone, Copy, Debug)]
struct Parts {
    desc: Shared,
    avail: Shared,
    used: Shared,
}

impl Parts {
    fn translate(memory: &Memory, config: &RingConfig) -> Result<Parts, RingError> {
        let n = usize::from(config.size);
        // The event index word is there whether or not it is negotiated only
        // with EVENT_IDX; without, the ring may end where memory does.
        let event = if config.event_idx { 2 } else { 0 };
        Ok(Parts {
            desc: part(memory, "descriptor table", config.desc, DESC_SIZE * n, 16)?,
            avail: part(memory, "available ring", config.avail, ELEMENTS + 2 * n + event, 2)?,
            used: part(memory, "used ring", config.used, ELEMENTS + 8 * n + event, 4)?,
        })
    }
}

fn part(
    memory: &Memory,
    part: &'static str,
    addr: u64,
    len: usize,
    align: u64,
) -> Result<Shared, RingError> {
    let host = memory.host_addr(addr, len as u64).ok_or(RingError::Unmapped { part, addr })?;
    if addr % align != 0 || host as u64 % align != 0 {
        return Err(RingError::Misaligned { part, addr });
    }
    // SAFETY: `host_addr` has checked that the range lies within one mapped
    // region; the ring holds the memory's `Arc` for as long as the parts.
    Ok(unsafe { Shared::new(host, len) })
}

impl Ring {
    /// A view of the ring; continues at its current used index.
    ///
    /// # Errors
    ///
    /// Size, alignment or addresses.
    pub fn new(memory: Arc<Memory>, config: RingConfig) -> Result<Ring, RingError> {
        if !config.size.is_power_of_two() || config.size > MAX_RING_SIZE {
            return Err(RingError::Size(u32::from(config.size)));
        }
        let parts = Parts::translate(&memory, &config)?;
        let next_used = u16::from_le(parts.used.load_u16(IDX, Ordering::Acquire));
        let next_avail = config.next_avail;
        Ok(Ring { memory, config, parts, next_avail, next_used, decided: next_used })
    }

    /// Translates the ring anew for a changed memory table.
    ///
    /// # Errors
    ///
    /// The ring is not in the new table; the old one stays in use.
    pub fn set_memory(&mut self, memory: Arc<Memory>) -> Result<(), RingError> {
        self.parts = Parts::translate(&memory, &self.config)?;
        self.memory = memory;
        Ok(())
    }

    /// The memory the ring and its chains are translated with.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.config.size
    }

    /// The next available entry to look at.
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// Moves to another available entry.
    pub fn set_next_avail(&mut self, next_avail: u16) {
        self.next_avail = next_avail;
    }

    /// The used index as published by us.
    pub fn used_idx(&self) -> u16 {
        self.next_used
    }

    fn avail_idx(&self) -> u16 {
        u16::from_le(self.parts.avail.load_u16(IDX, Ordering::Acquire))
    }

    /// Chains made available and not popped yet; more than [`Ring::size`] on a
    /// broken ring.
    pub fn backlog(&self) -> u16 {
        self.avail_idx().wrapping_sub(self.next_avail)
    }

    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.config.size - 1))
    }

    /// Appends up to `max` new head indexes in order; returns how many.
    ///
    /// # Errors
    ///
    /// A broken available ring; nothing is popped then.
    #[inline]
    pub fn pop(&mut self, max: usize, heads: &mut Vec<u16>) -> Result<usize, RingError> {
        let (size, at) = (self.config.size, self.next_avail);
        let idx = self.avail_idx();
        let ahead = idx.wrapping_sub(at);
        if ahead > size {
            return Err(RingError::AvailIndex { idx, at, ahead, size });
        }
        let count = ahead.min(u16::try_from(max).unwrap_or(u16::MAX));
        let before = heads.len();
        for i in 0..count {
            let slot = self.slot(at.wrapping_add(i));
            let head = self.parts.avail.load_u16(ELEMENTS + 2 * slot, Ordering::Relaxed);
            let head = u16::from_le(head);
            if head >= size {
                heads.truncate(before);
                return Err(RingError::Head { head, size });
            }
            heads.push(head);
        }
        self.next_avail = at.wrapping_add(count);
        Ok(usize::from(count))
    }

    /// Follows the chain at `head` into `chain`, which is emptied first.
    ///
    /// # Errors
    ///
    /// What is wrong with the chain; `chain` then holds nothing of use.
    #[inline]
    pub fn read_chain(&self, head: u16, chain: &mut Chain) -> Result<(), ChainError> {
        chain.clear();
        let (mut index, mut total) = (head, 0);
        for _ in 0..self.config.size {
            if index >= self.config.size {
                return Err(ChainError::Index(index));
            }
            let at = DESC_SIZE * usize::from(index);
            let addr = self.parts.desc.load_u64(at, Ordering::Relaxed);
            let rest = self.parts.desc.load_u64(at + 8, Ordering::Relaxed);
            let desc = Descriptor::decode(addr, rest);
            if desc.flags & DESC_F_INDIRECT != 0 {
                return self.read_indirect(desc, chain, total);
            }
            self.add(desc, chain, &mut total)?;
            if desc.flags & DESC_F_NEXT == 0 {
                return Ok(());
            }
            index = desc.next;
        }
        Err(ChainError::Loop)
    }

    fn read_indirect(
        &self,
        desc: Descriptor,
        chain: &mut Chain,
        mut total: u32,
    ) -> Result<(), ChainError> {
        if !self.config.indirect {
            return Err(ChainError::IndirectNotNegotiated);
        }
        if desc.flags & DESC_F_NEXT != 0 {
            return Err(ChainError::IndirectNext);
        }
        let len = desc.len as usize;
        if len == 0 || len % DESC_SIZE != 0 {
            return Err(ChainError::IndirectSize(desc.len));
        }
        let entries = len / DESC_SIZE;
        if entries > MAX_CHAIN.max(usize::from(self.config.size)) {
            return Err(ChainError::TooLong(entries));
        }
        let table = self.copy_table(desc, chain)?;
        let result = self.walk_table(&table, entries, chain, &mut total);
        chain.table = table;
        result
    }

    /// Copies the indirect table out of the guest's reach, into the chain's
    /// own buffer, which it takes out of the chain.
    fn copy_table(&self, desc: Descriptor, chain: &mut Chain) -> Result<Vec<u8>, ChainError> {
        let len = desc.len as usize;
        let direct = chain.readable.len();
        // The readable list serves as scratch for the table's own segments.
        self.segments(desc, &mut chain.readable)?;
        let mut table = std::mem::take(&mut chain.table);
        table.resize(len, 0);
        copy::copy_in(&chain.readable[direct..], 0, &mut table);
        chain.readable.truncate(direct);
        Ok(table)
    }

    fn walk_table(
        &self,
        table: &[u8],
        entries: usize,
        chain: &mut Chain,
        total: &mut u32,
    ) -> Result<(), ChainError> {
        let mut index = 0;
        for _ in 0..entries {
            let at = DESC_SIZE * usize::from(index);
            let Some(bytes) = table.get(at..at + DESC_SIZE) else {
                return Err(ChainError::Index(index));
            };
            let mut words = [[0; 8]; 2];
            words[0].copy_from_slice(&bytes[..8]);
            words[1].copy_from_slice(&bytes[8..]);
            let desc =
                Descriptor::decode(u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1]));
            if desc.flags & DESC_F_INDIRECT != 0 {
                return Err(ChainError::Nested);
            }
            self.add(desc, chain, total)?;
            if desc.flags & DESC_F_NEXT == 0 {
                return Ok(());
            }
            index = desc.next;
        }
        Err(ChainError::Loop)
    }

    #[inline]
    fn add(&self, desc: Descriptor, chain: &mut Chain, total: &mut u32) -> Result<(), ChainError> {
        *total = total.checked_add(desc.len).ok_or(ChainError::Overflow)?;
        if desc.flags & DESC_F_WRITE != 0 {
            return self.segments(desc, &mut chain.writable);
        }
        if !chain.writable.is_empty() {
            return Err(ChainError::Order);
        }
        self.segments(desc, &mut chain.readable)
    }

    #[inline]
    fn segments(&self, desc: Descriptor, out: &mut Vec<Segment>) -> Result<(), ChainError> {
        let Descriptor { addr, len, .. } = desc;
        if len == 0 {
            return Err(ChainError::Empty);
        }
        if addr.checked_add(u64::from(len)).is_none() {
            return Err(ChainError::Overflow);
        }
        self.memory.segments(addr, len, out).map_err(|e| match e {
            MemoryError::Unmapped { .. } => ChainError::Unmapped { addr, len },
            _ => ChainError::Overflow,
        })
    }

    /// Returns chains to the driver: all used elements `(head, bytes written)`,
    /// then one store of the used index. At most [`Ring::size`] at a time.
    #[inline]
    pub fn push(&mut self, done: &[(u16, u32)]) {
        self.write_used(done);
        self.publish(done.len());
    }

    /// Writes the used elements of a batch without publishing them.
    pub(super) fn write_used(&mut self, done: &[(u16, u32)]) {
        debug_assert!(done.len() <= usize::from(self.config.size));
        let mut at = self.next_used;
        for &(head, len) in done {
            let slot = ELEMENTS + 8 * self.slot(at);
            self.parts.used.store_u32(slot, u32::from(head).to_le(), Ordering::Relaxed);
            self.parts.used.store_u32(slot + 4, len.to_le(), Ordering::Relaxed);
            at = at.wrapping_add(1);
        }
    }

    /// Publishes `count` written elements; returns the new used index.
    pub(super) fn publish(&mut self, count: usize) -> u16 {
        let count = u16::try_from(count).expect("batch larger than any ring");
        self.next_used = self.next_used.wrapping_add(count);
        self.parts.used.store_u16(IDX, self.next_used.to_le(), Ordering::Release);
        self.next_used
    }

    /// Whether the driver wants an interrupt for what was pushed since the
    /// last call of this function (virtio 1.2 §2.7.7).
    #[inline]
    pub fn needs_call(&mut self) -> bool {
        let new = self.next_used;
        let old = std::mem::replace(&mut self.decided, new);
        if old == new {
            return false;
        }
        // The driver writes what we read below and then reads the used index;
        // we do it the other way round. Without full barriers on both sides
        // each could miss the other's store.
        fence(Ordering::SeqCst);
        if !self.config.event_idx {
            let flags = u16::from_le(self.parts.avail.load_u16(0, Ordering::Relaxed));
            return flags & AVAIL_F_NO_INTERRUPT == 0;
        }
        let at = ELEMENTS + 2 * usize::from(self.config.size);
        let event = u16::from_le(self.parts.avail.load_u16(at, Ordering::Relaxed));
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }

    /// Whether the driver seems never to have written here: the available
    /// index and every descriptor are zero. After a kick that means that we
    /// look at other memory than the guest does (mapped privately by a
    /// front-end with `share=off`). Reads the whole table; not for every kick.
    pub fn is_untouched(&self) -> bool {
        let words = 0..2 * usize::from(self.config.size);
        self.avail_idx() == 0
            && self.next_avail == 0
            && words.into_iter().all(|i| self.parts.desc.load_u64(8 * i, Ordering::Relaxed) == 0)
    }

    /// Asks the driver to kick for the next chain; returns whether chains
    /// became available meanwhile, for which no kick may come.
    pub fn enable_notification(&mut self) -> bool {
        if self.config.event_idx {
            let at = ELEMENTS + 8 * usize::from(self.config.size);
            self.parts.used.store_u16(at, self.next_avail.to_le(), Ordering::Relaxed);
        } else {
            self.parts.used.store_u16(0, 0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        self.backlog() != 0
    }

    /// Tells the driver that kicks are not needed for now. With EVENT_IDX
    /// there is nothing to write: the event index is simply left behind.
    pub fn disable_notification(&mut self) {
        if !self.config.event_idx {
            self.parts.used.store_u16(0, USED_F_NO_NOTIFY.to_le(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
