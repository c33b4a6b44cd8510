//! The guest's memory table: an immutable snapshot of the mapped regions.
//!
//! The vhost-user session builds a new [`Memory`] for every change of the
//! table (SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG) and hands an `Arc` of it to
//! the queue threads. Whoever keeps host addresses taken from a snapshot keeps
//! the `Arc`: a region is unmapped when its last holder is gone. There is no
//! dirty log here and no IOMMU.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::io::Segment;

/// Why a memory table or an address in it is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Part of the range is in no region.
    #[error("guest address {addr:#x} (+{len:#x}) is not in the memory table")]
    Unmapped {
        /// Guest physical address.
        addr: u64,
        /// Length in bytes.
        len: u64,
    },
    /// A region of no bytes, or one that runs over the end of an address space.
    #[error("region of {size:#x} bytes at guest address {addr:#x} is malformed")]
    Malformed {
        /// Guest physical address.
        addr: u64,
        /// Size in bytes.
        size: u64,
    },
    /// Two regions cover the same guest address.
    #[error("regions overlap at guest address {addr:#x}")]
    Overlap {
        /// Where the later one starts.
        addr: u64,
    },
    /// The file ends before the region does.
    #[error(
        "the file behind the region at guest address {addr:#x} has {have:#x} bytes, {need:#x} needed"
    )]
    FileTooSmall {
        /// Guest physical address.
        addr: u64,
        /// Size of the file.
        have: u64,
        /// Offset plus size of the region.
        need: u64,
    },
    /// REM_MEM_REG of a region that is not in the table.
    #[error("no region of {size:#x} bytes at guest address {addr:#x}")]
    NoSuchRegion {
        /// Guest physical address.
        addr: u64,
        /// Size in bytes.
        size: u64,
    },
    /// `mmap` failed.
    #[error("cannot map the region at guest address {addr:#x}")]
    Map {
        /// Guest physical address.
        addr: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// One region as the front-end describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest physical address of the first byte.
    pub guest_addr: u64,
    /// Size in bytes.
    pub size: u64,
    /// Address of the first byte in the front-end's own address space; ring
    /// addresses are given in this one.
    pub user_addr: u64,
    /// Where the region starts in its file, in bytes.
    pub mmap_offset: u64,
}

impl Region {
    fn check(&self) -> Result<usize, MemoryError> {
        let malformed = MemoryError::Malformed { addr: self.guest_addr, size: self.size };
        let fits = self.size != 0
            && self.guest_addr.checked_add(self.size).is_some()
            && self.user_addr.checked_add(self.size).is_some()
            && self.mmap_offset.checked_add(self.size).is_some();
        match usize::try_from(self.size) {
            Ok(size) if fits => Ok(size),
            _ => Err(malformed),
        }
    }
}

#[derive(Clone, Debug)]
struct Mapped {
    region: Region,
    host: usize,
    mmap: Arc<GuestRegionMmap<()>>,
}

/// Immutable snapshot of the guest's memory table.
#[derive(Debug)]
pub struct Memory {
    generation: u32,
    /// Sorted by guest address, not overlapping.
    table: Vec<Mapped>,
    backing: GuestMemoryMmap<()>,
}

impl Memory {
    /// A table without regions.
    pub fn empty(generation: u32) -> Memory {
        Memory { generation, table: Vec::new(), backing: GuestMemoryMmap::new() }
    }

    /// Maps a whole table (SET_MEM_TABLE).
    ///
    /// # Errors
    ///
    /// Malformed or overlapping regions, a file that is too small, `mmap`.
    pub fn map(
        generation: u32,
        regions: impl IntoIterator<Item = (Region, File)>,
    ) -> Result<Memory, MemoryError> {
        let mut table = Vec::new();
        for (region, file) in regions {
            table.push(map_file(region, file)?);
        }
        Memory::from_table(generation, table)
    }

    /// This table and one region more (ADD_MEM_REG).
    ///
    /// # Errors
    ///
    /// As for [`Memory::map`].
    pub fn with_region(
        &self,
        generation: u32,
        region: Region,
        file: File,
    ) -> Result<Memory, MemoryError> {
        let mut table = self.table.clone();
        table.push(map_file(region, file)?);
        Memory::from_table(generation, table)
    }

    /// This table without one region (REM_MEM_REG), which is named by its
    /// guest address, user address and size.
    ///
    /// # Errors
    ///
    /// [`MemoryError::NoSuchRegion`].
    pub fn without_region(&self, generation: u32, region: &Region) -> Result<Memory, MemoryError> {
        let same = |m: &Mapped| {
            m.region.guest_addr == region.guest_addr
                && m.region.user_addr == region.user_addr
                && m.region.size == region.size
        };
        let Some(index) = self.table.iter().position(same) else {
            return Err(MemoryError::NoSuchRegion { addr: region.guest_addr, size: region.size });
        };
        let mut table = self.table.clone();
        table.remove(index);
        Memory::from_table(generation, table)
    }

    /// Private anonymous memory at the given `(guest address, size)` pairs,
    /// for tests and benches; user addresses equal guest addresses.
    ///
    /// # Errors
    ///
    /// As for [`Memory::map`].
    pub fn anonymous(generation: u32, ranges: &[(u64, u64)]) -> Result<Memory, MemoryError> {
        let mut table = Vec::new();
        for &(guest_addr, size) in ranges {
            let region = Region { guest_addr, size, user_addr: guest_addr, mmap_offset: 0 };
            let len = region.check()?;
            let mmap = MmapRegion::new(len).map_err(|e| map_error(guest_addr, e))?;
            table.push(mapped(region, mmap)?);
        }
        Memory::from_table(generation, table)
    }

    fn from_table(generation: u32, mut table: Vec<Mapped>) -> Result<Memory, MemoryError> {
        table.sort_by_key(|m| m.region.guest_addr);
        for pair in table.windows(2) {
            let next = pair[1].region.guest_addr;
            if pair[0].region.guest_addr + pair[0].region.size > next {
                return Err(MemoryError::Overlap { addr: next });
            }
        }
        if table.is_empty() {
            return Ok(Memory::empty(generation));
        }
        let arcs = table.iter().map(|m| Arc::clone(&m.mmap)).collect();
        let addr = table[0].region.guest_addr;
        let backing = GuestMemoryMmap::from_arc_regions(arcs)
            .map_err(|e| MemoryError::Map { addr, source: io::Error::other(e) })?;
        Ok(Memory { generation, table, backing })
    }

    /// Number of this snapshot; grows with every change of the table.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Number of regions.
    pub fn num_regions(&self) -> usize {
        self.table.len()
    }

    /// The same mappings in `vm-memory`'s words, for
    /// `VhostUserBackend::update_memory`.
    pub fn backing(&self) -> &GuestMemoryMmap<()> {
        &self.backing
    }

    #[inline]
    fn find(&self, gpa: u64) -> Option<&Mapped> {
        let after = self.table.partition_point(|m| m.region.guest_addr <= gpa);
        let mapped = &self.table[after.checked_sub(1)?];
        (gpa - mapped.region.guest_addr < mapped.region.size).then_some(mapped)
    }

    /// Host address of `len` bytes at a guest physical address, if they lie
    /// within one region.
    #[inline]
    pub fn host_addr(&self, gpa: u64, len: u64) -> Option<usize> {
        let mapped = self.find(gpa)?;
        let offset = gpa - mapped.region.guest_addr;
        if len > mapped.region.size - offset {
            return None;
        }
        // No truncation: `check` made sure that the size fits a usize.
        #[allow(clippy::cast_possible_truncation)]
        Some(mapped.host + offset as usize)
    }

    /// Appends the segments of `len` bytes at a guest physical address, one
    /// for each region touched.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Unmapped`]; `out` is then as it was.
    #[inline]
    pub fn segments(&self, gpa: u64, len: u32, out: &mut Vec<Segment>) -> Result<(), MemoryError> {
        if let Some(addr) = self.host_addr(gpa, u64::from(len)) {
            out.push(Segment { addr, len: len as usize });
            return Ok(());
        }
        self.segments_across(gpa, len, out)
    }

    fn segments_across(
        &self,
        gpa: u64,
        len: u32,
        out: &mut Vec<Segment>,
    ) -> Result<(), MemoryError> {
        let before = out.len();
        let (mut at, mut left) = (gpa, u64::from(len));
        while left > 0 {
            let Some(mapped) = self.find(at) else {
                out.truncate(before);
                return Err(MemoryError::Unmapped { addr: gpa, len: u64::from(len) });
            };
            let offset = at - mapped.region.guest_addr;
            let piece = left.min(mapped.region.size - offset);
            // Both fit: the region's size fits a usize.
            #[allow(clippy::cast_possible_truncation)]
            out.push(Segment { addr: mapped.host + offset as usize, len: piece as usize });
            at += piece;
            left -= piece;
        }
        Ok(())
    }

    /// Guest physical address of an address in the front-end's own space.
    pub fn uva_to_gpa(&self, uva: u64) -> Option<u64> {
        self.table.iter().map(|m| &m.region).find_map(|r| {
            let offset = uva.checked_sub(r.user_addr)?;
            (offset < r.size).then(|| r.guest_addr + offset)
        })
    }
}

fn map_error(addr: u64, error: vm_memory::mmap::MmapRegionError) -> MemoryError {
    let source = match error {
        vm_memory::mmap::MmapRegionError::Mmap(e) => e,
        other => io::Error::other(other),
    };
    MemoryError::Map { addr, source }
}

fn map_file(region: Region, file: File) -> Result<Mapped, MemoryError> {
    let size = region.check()?;
    let addr = region.guest_addr;
    let meta = file.metadata().map_err(|source| MemoryError::Map { addr, source })?;
    let need = region.mmap_offset + region.size;
    // A device file (devdax) has no size to compare with.
    if meta.is_file() && meta.len() < need {
        return Err(MemoryError::FileTooSmall { addr, have: meta.len(), need });
    }
    let mmap = MmapRegion::from_file(FileOffset::new(file, region.mmap_offset), size)
        .map_err(|e| map_error(addr, e))?;
    // SAFETY: the range is the mapping just made; MADV_DONTDUMP changes no
    // content. Keeps the guest's memory out of our core dumps; a kernel that
    // refuses is no harm, so the result is not looked at.
    unsafe { libc::madvise(mmap.as_ptr().cast(), size, libc::MADV_DONTDUMP) };
    mapped(region, mmap)
}

fn mapped(region: Region, mmap: MmapRegion<()>) -> Result<Mapped, MemoryError> {
    let host = mmap.as_ptr() as usize;
    let malformed = MemoryError::Malformed { addr: region.guest_addr, size: region.size };
    let mmap = GuestRegionMmap::new(mmap, GuestAddress(region.guest_addr)).ok_or(malformed)?;
    Ok(Mapped { region, host, mmap: Arc::new(mmap) })
}

#[cfg(test)]
mod tests;
