//! The memory of the guest that the front-end double plays: shared memfds,
//! mapped here and described to the back-end.
//!
//! Guest physical addresses are dense from 0 unless a hole is asked for; what
//! the back-end is told as *user address* is an arithmetic fiction, as nothing
//! but translation is done with it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use vhost::VhostUserMemoryRegionInfo;
use vhost_mpath::guest::copy::{copy_in, copy_out};
use vhost_mpath::guest::memfd;
use vhost_mpath::guest::memory::{Memory, Region};
use vhost_mpath::io::Segment;

/// User addresses are guest addresses plus this.
pub(crate) const USER_BASE: u64 = 0x7f00_0000_0000;

/// A guest's memory.
pub(crate) struct Guest {
    regions: Vec<(Region, File)>,
    memory: Arc<Memory>,
    next: u64,
}

impl Guest {
    /// Regions of these sizes, one behind the other.
    pub(crate) fn new(sizes: &[u64]) -> Guest {
        let memory = Arc::new(Memory::empty(0));
        let mut guest = Guest { regions: Vec::new(), memory, next: 0 };
        for &size in sizes {
            guest.grow(size);
        }
        guest
    }

    /// One more region behind the last one; returns its number.
    pub(crate) fn grow(&mut self, size: u64) -> usize {
        let guest_addr = self.regions.last().map_or(0, |(r, _)| r.guest_addr + r.size);
        let file = memfd::sealed(c"guest", size).expect("memfd");
        let user_addr = USER_BASE + guest_addr;
        let region = Region { guest_addr, size, user_addr, mmap_offset: 0 };
        let mapped = file.try_clone().expect("dup");
        self.memory = Arc::new(self.memory.with_region(0, region, mapped).expect("map"));
        self.regions.push((region, file));
        self.regions.len() - 1
    }

    /// Takes the last region out of the table; its mapping stays.
    pub(crate) fn forget_last(&mut self) {
        let (region, _) = self.regions.pop().expect("a region");
        self.memory = Arc::new(self.memory.without_region(0, &region).expect("the last one"));
    }

    /// Where a region lies.
    pub(crate) fn region(&self, number: usize) -> Region {
        self.regions[number].0
    }

    /// Regions as a front-end describes them.
    pub(crate) fn table(&self) -> Vec<VhostUserMemoryRegionInfo> {
        let describe = |(region, file): &(Region, File)| VhostUserMemoryRegionInfo {
            guest_phys_addr: region.guest_addr,
            memory_size: region.size,
            userspace_addr: region.user_addr,
            mmap_offset: region.mmap_offset,
            mmap_handle: file.as_raw_fd(),
        };
        self.regions.iter().map(describe).collect()
    }

    /// The mapping.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Hands out `len` bytes at a multiple of `align`, never to be given back.
    pub(crate) fn allocate(&mut self, len: u64, align: u64) -> u64 {
        let at = self.next.next_multiple_of(align);
        self.next = at + len;
        let end = self.regions.last().map_or(0, |(r, _)| r.guest_addr + r.size);
        assert!(self.next <= end, "the guest has only {end} bytes of memory");
        at
    }

    /// The same, but within one region.
    pub(crate) fn allocate_in_one(&mut self, len: u64, align: u64) -> u64 {
        loop {
            let at = self.allocate(len, align);
            if self.memory.host_addr(at, len).is_some() {
                return at;
            }
        }
    }
}

/// Writes guest memory.
pub(crate) fn write(memory: &Memory, addr: u64, bytes: &[u8]) {
    if let Some(addr) = memory.host_addr(addr, bytes.len() as u64) {
        copy_out(&[Segment { addr, len: bytes.len() }], 0, bytes);
        return;
    }
    let mut segments = Vec::with_capacity(2);
    let len = u32::try_from(bytes.len()).expect("short");
    memory.segments(addr, len, &mut segments).expect("guest memory");
    assert_eq!(copy_out(&segments, 0, bytes), bytes.len());
}

/// Reads guest memory.
pub(crate) fn read(memory: &Memory, addr: u64, bytes: &mut [u8]) {
    if let Some(addr) = memory.host_addr(addr, bytes.len() as u64) {
        copy_in(&[Segment { addr, len: bytes.len() }], 0, bytes);
        return;
    }
    let mut segments = Vec::with_capacity(2);
    let len = u32::try_from(bytes.len()).expect("short");
    memory.segments(addr, len, &mut segments).expect("guest memory");
    assert_eq!(copy_in(&segments, 0, bytes), bytes.len());
}
