//! The driver's side of a split ring (virtio 1.3, 2.7), in guest memory.
//!
//! Deliberately plain: one chain at a time, descriptors from index 0 or in an
//! indirect table, an interrupt wanted for every completion. Shares no code
//! with `guest::driver`: here the other implementations are the point.

use std::thread::sleep;
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// One descriptor's buffer: guest address, length, device-writable.
pub(crate) type Buffer = (u64, u32, bool);

/// A split ring and its eventfds.
pub(crate) struct DriverRing {
    memory: GuestMemoryMmap,
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    indirect: u64,
    next: u16,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
}

impl DriverRing {
    /// Lays the ring out at `base`; it takes less than 64 KiB.
    pub(crate) fn new(memory: &GuestMemoryMmap, base: u64, size: u16) -> DriverRing {
        let eventfd = || EventFd::new(EFD_NONBLOCK).expect("eventfd");
        let ring = DriverRing {
            memory: memory.clone(),
            size,
            descriptors: base,
            available: base + 0x8000,
            used: base + 0xa000,
            indirect: base + 0xe000,
            next: 0,
            kick: eventfd(),
            call: eventfd(),
        };
        ring.write(ring.available, &[0; 4]);
        ring.write(ring.used, &[0; 4]);
        ring
    }

    /// Makes the chain available at descriptor 0, kicks, and waits for the
    /// used element; returns its length. Panics after ten seconds, or if no
    /// interrupt came with it.
    pub(crate) fn submit(&mut self, chain: &[Buffer], indirect: bool) -> u32 {
        let slot = u64::from(self.next % self.size);
        self.offer(chain, indirect);
        self.await_call();
        assert_eq!(self.read_u16(self.used + 2), self.next, "one element per chain");
        let mut element = [0; 8];
        self.read(self.used + 4 + slot * 8, &mut element);
        assert_eq!(element[..4], [0; 4], "the chain that was made available");
        u32::from_le_bytes(element[4..].try_into().unwrap())
    }

    /// Makes the chain available and kicks, without waiting.
    pub(crate) fn offer(&mut self, chain: &[Buffer], indirect: bool) {
        let table = if indirect { self.indirect } else { self.descriptors };
        for (index, &(addr, len, writable)) in (0_u16..).zip(chain) {
            let last = usize::from(index) + 1 == chain.len();
            let flags = if last { 0 } else { NEXT } | if writable { WRITE } else { 0 };
            self.descriptor(table, index, addr, len, flags);
        }
        if indirect {
            let len = u32::try_from(chain.len() * 16).unwrap();
            self.descriptor(self.descriptors, 0, table, len, INDIRECT);
        }
        let slot = u64::from(self.next % self.size);
        self.write(self.available + 4 + slot * 2, &0_u16.to_le_bytes());
        // used_event: an interrupt for the very next used element.
        self.write(self.available + 4 + u64::from(self.size) * 2, &self.next.to_le_bytes());
        self.next = self.next.wrapping_add(1);
        self.publish(self.next);
        self.kick.write(1).expect("kick");
    }

    /// Sets the available index to anything, as a broken driver would.
    pub(crate) fn publish(&self, index: u16) {
        let addr = GuestAddress(self.available + 2);
        self.memory.store(index, addr, std::sync::atomic::Ordering::Release).expect("publish");
    }

    fn await_call(&self) {
        for _ in 0..10_000 {
            if self.call.read().is_ok() {
                return;
            }
            sleep(Duration::from_millis(1));
        }
        panic!("no interrupt within ten seconds");
    }

    fn descriptor(&self, table: u64, index: u16, addr: u64, len: u32, flags: u16) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&addr.to_le_bytes());
        raw[8..12].copy_from_slice(&len.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&(index + 1).to_le_bytes());
        self.write(table + u64::from(index) * 16, &raw);
    }

    /// Writes guest memory.
    pub(crate) fn write(&self, addr: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(addr)).expect("guest memory");
    }

    /// Reads guest memory.
    pub(crate) fn read(&self, addr: u64, bytes: &mut [u8]) {
        self.memory.read_slice(bytes, GuestAddress(addr)).expect("guest memory");
    }

    fn read_u16(&self, addr: u64) -> u16 {
        let mut raw = [0; 2];
        self.read(addr, &mut raw);
        u16::from_le_bytes(raw)
    }
}
