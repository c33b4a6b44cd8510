//! The driver's half of a split ring, for tests, benches and load generators.
//!
//! Lays a ring out in a [`Memory`] and plays the guest on it: build chains,
//! make them available, look at what came back. It is well-behaved unless
//! told otherwise ([`Driver::set_descriptor`], [`Driver::set_avail_idx`] write
//! anything anywhere). The daemon itself never uses it.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::guest::memory::Memory;
use crate::guest::ring::RingConfig;
use crate::guest::shared::Shared;

/// Descriptor flag: `next` is valid.
pub const NEXT: u16 = 1;
/// Descriptor flag: device-writable.
pub const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// One descriptor as it stands in a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest physical address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// Index of the next one.
    pub next: u16,
}

/// The driver of one ring.
#[derive(Debug)]
pub struct Driver {
    memory: Arc<Memory>,
    config: RingConfig,
    avail: Shared,
    used: Shared,
    avail_idx: u16,
    used_seen: u16,
    free: Vec<u16>,
    chains: Vec<Vec<u16>>,
}

impl Driver {
    /// Bytes a ring of `size` descriptors takes.
    pub fn footprint(size: u16) -> u64 {
        16 * u64::from(size)
            + (6 + 2 * u64::from(size)).next_multiple_of(16)
            + 6
            + 8 * u64::from(size)
    }

    /// An empty ring at a 16-byte-aligned guest address.
    ///
    /// # Panics
    ///
    /// If the ring does not lie in one region of the memory.
    pub fn new(memory: Arc<Memory>, base: u64, size: u16, event_idx: bool) -> Driver {
        let avail = base + 16 * u64::from(size);
        let used = avail + (6 + 2 * u64::from(size)).next_multiple_of(16);
        let config =
            RingConfig { size, desc: base, avail, used, event_idx, indirect: true, next_avail: 0 };
        let part = |addr: u64, len: usize| {
            let host = memory.host_addr(addr, len as u64).expect("ring outside of memory");
            // SAFETY: checked to be mapped just now; the driver holds the memory.
            unsafe { Shared::new(host, len) }
        };
        let n = usize::from(size);
        let (avail, used) = (part(avail, 6 + 2 * n), part(used, 6 + 8 * n));
        let free = (0..size).rev().collect();
        let chains = vec![Vec::new(); n];
        Driver { memory, config, avail, used, avail_idx: 0, used_seen: 0, free, chains }
    }

    /// Where the ring is.
    pub fn config(&self) -> RingConfig {
        self.config
    }

    /// The memory the ring lies in.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Writes one descriptor of the ring's table.
    pub fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        self.write_table(self.config.desc, usize::from(index), descriptor);
    }

    /// Writes one descriptor of a table anywhere in guest memory.
    ///
    /// # Panics
    ///
    /// If it does not lie in one region of the memory, or unaligned.
    pub fn write_table(&self, table: u64, index: usize, descriptor: Descriptor) {
        let Descriptor { addr, len, flags, next } = descriptor;
        let host = self.memory.host_addr(table + 16 * index as u64, 16).expect("table in memory");
        // SAFETY: checked to be mapped just now.
        let at = unsafe { Shared::new(host, 16) };
        let rest = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
        at.store_u64(0, addr.to_le(), Ordering::Relaxed);
        at.store_u64(8, rest.to_le(), Ordering::Relaxed);
    }

    /// Builds a chain and makes it available, its index published at once;
    /// returns its head, or None if there are not enough free descriptors.
    pub fn add(&mut self, readable: &[(u64, u32)], writable: &[(u64, u32)]) -> Option<u16> {
        let head = self.build(readable, writable)?;
        self.offer(head);
        self.publish();
        Some(head)
    }

    /// Builds a chain without making it available.
    pub fn build(&mut self, readable: &[(u64, u32)], writable: &[(u64, u32)]) -> Option<u16> {
        let count = readable.len() + writable.len();
        if count == 0 || self.free.len() < count {
            return None;
        }
        let indexes = self.free.split_off(self.free.len() - count);
        let buffers = readable.iter().map(|b| (b, 0)).chain(writable.iter().map(|b| (b, WRITE)));
        for (i, (&(addr, len), flag)) in buffers.enumerate() {
            let next = indexes.get(i + 1).copied();
            let flags = flag | if next.is_some() { NEXT } else { 0 };
            let next = next.unwrap_or(0);
            self.set_descriptor(indexes[i], Descriptor { addr, len, flags, next });
        }
        let head = indexes[0];
        self.chains[usize::from(head)] = indexes;
        Some(head)
    }

    /// Puts a head into the available ring; [`Driver::publish`] makes it seen.
    pub fn offer(&mut self, head: u16) {
        let slot = usize::from(self.avail_idx & (self.config.size - 1));
        self.avail.store_u16(4 + 2 * slot, head.to_le(), Ordering::Relaxed);
        self.avail_idx = self.avail_idx.wrapping_add(1);
    }

    /// Publishes the available index.
    pub fn publish(&self) {
        self.set_avail_idx(self.avail_idx);
    }

    /// Publishes any available index.
    pub fn set_avail_idx(&self, idx: u16) {
        self.avail.store_u16(2, idx.to_le(), Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The next chain that came back: head and bytes written. Its descriptors
    /// are free again.
    pub fn used(&mut self) -> Option<(u16, u32)> {
        let idx = u16::from_le(self.used.load_u16(2, Ordering::Acquire));
        if idx == self.used_seen {
            return None;
        }
        let slot = 4 + 8 * usize::from(self.used_seen & (self.config.size - 1));
        let head = u32::from_le(self.used.load_u32(slot, Ordering::Relaxed));
        let len = u32::from_le(self.used.load_u32(slot + 4, Ordering::Relaxed));
        self.used_seen = self.used_seen.wrapping_add(1);
        let head = u16::try_from(head).ok()?;
        let indexes = self.chains.get_mut(usize::from(head))?;
        self.free.append(indexes);
        Some((head, len))
    }

    /// The used index as the device published it.
    pub fn used_idx(&self) -> u16 {
        u16::from_le(self.used.load_u16(2, Ordering::Acquire))
    }

    /// With EVENT_IDX: asks for an interrupt once the used index passes `event`.
    pub fn set_used_event(&self, event: u16) {
        let at = 4 + 2 * usize::from(self.config.size);
        self.avail.store_u16(at, event.to_le(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Without EVENT_IDX: asks for no interrupts, or for interrupts again.
    pub fn set_no_interrupt(&self, suppressed: bool) {
        self.avail.store_u16(0, u16::from(suppressed).to_le(), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether the device wants to be kicked for what was published since the
    /// available index was `old`.
    pub fn needs_kick(&self, old: u16) -> bool {
        fence(Ordering::SeqCst);
        if !self.config.event_idx {
            return u16::from_le(self.used.load_u16(0, Ordering::Relaxed)) & 1 == 0;
        }
        let at = 4 + 8 * usize::from(self.config.size);
        let event = u16::from_le(self.used.load_u16(at, Ordering::Relaxed));
        let new = self.avail_idx;
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }

    /// The available index last published by [`Driver::publish`].
    pub fn avail_idx(&self) -> u16 {
        self.avail_idx
    }
}
