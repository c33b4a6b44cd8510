//! Guest memory that can be shared with a back-end: one file per region.

use vhost::VhostUserMemoryRegionInfo;
use vhost_mpath::guest::memfd;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Regions one after the other from guest address 0, each in its own memfd.
pub(crate) fn shared_memory(region_sizes: &[usize]) -> GuestMemoryMmap {
    let mut start = 0;
    let mut regions = Vec::new();
    for &size in region_sizes {
        let len = u64::try_from(size).unwrap();
        let file = memfd::sealed(c"guest", len).expect("memfd");
        regions.push((GuestAddress(start), size, Some(FileOffset::new(file, 0))));
        start += len;
    }
    GuestMemoryMmap::from_ranges_with_files(regions).expect("map guest memory")
}

/// The regions as a front-end describes them to a back-end.
pub(crate) fn memory_table(memory: &GuestMemoryMmap) -> Vec<VhostUserMemoryRegionInfo> {
    memory
        .iter()
        .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).expect("file-backed"))
        .collect()
}
