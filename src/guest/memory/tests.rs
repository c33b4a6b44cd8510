use std::fs::File;

use super::*;
use crate::guest::{copy, memfd};

fn region(guest_addr: u64, size: u64) -> Region {
    Region {
        guest_addr,
        size,
        user_addr: guest_addr.wrapping_add(0x7f00_0000_0000),
        mmap_offset: 0,
    }
}

fn file(size: u64) -> File {
    memfd::sealed(c"test", size).unwrap()
}

#[test]
fn segments_split_at_region_borders_and_stop_at_holes() {
    let memory =
        Memory::anonymous(1, &[(0x3000, 0x1000), (0x1000, 0x1000), (0x2000, 0x1000)]).unwrap();
    let mut out = Vec::new();
    memory.segments(0x1ff0, 0x1020, &mut out).unwrap();
    assert_eq!(out.iter().map(|s| s.len).collect::<Vec<_>>(), [0x10, 0x1000, 0x10]);
    let before = out.clone();
    assert!(matches!(memory.segments(0x3ff0, 0x11, &mut out), Err(MemoryError::Unmapped { .. })));
    assert!(matches!(memory.segments(0xff0, 0x11, &mut out), Err(MemoryError::Unmapped { .. })));
    assert!(memory.segments(u64::MAX - 3, 4, &mut out).is_err());
    assert_eq!(out, before);
    assert_eq!(memory.host_addr(0x1ff0, 0x11), None, "two regions are not one range");
    assert!(memory.host_addr(0x1ff0, 0x10).is_some());
}

#[test]
fn user_addresses_translate_within_their_region_only() {
    let memory = Memory::map(1, [(region(0x1000, 0x1000), file(0x1000))]).unwrap();
    assert_eq!(memory.uva_to_gpa(0x7f00_0000_1000), Some(0x1000));
    assert_eq!(memory.uva_to_gpa(0x7f00_0000_1fff), Some(0x1fff));
    assert_eq!(memory.uva_to_gpa(0x7f00_0000_2000), None);
    assert_eq!(memory.uva_to_gpa(0x7f00_0000_0fff), None);
}

#[test]
fn malformed_tables_are_refused() {
    let overlap = [(region(0, 0x2000), file(0x2000)), (region(0x1000, 0x1000), file(0x1000))];
    assert!(matches!(Memory::map(1, overlap), Err(MemoryError::Overlap { addr: 0x1000 })));
    for bad in [
        region(0, 0),
        region(u64::MAX - 0xfff, 0x1000),
        Region { user_addr: u64::MAX, ..region(0, 0x1000) },
        Region { mmap_offset: u64::MAX, ..region(0, 0x1000) },
    ] {
        let result = Memory::map(1, [(bad, file(0x1000))]);
        assert!(matches!(result, Err(MemoryError::Malformed { .. })), "{bad:?}");
    }
}

/// A region beyond the end of its file would be a SIGBUS at the first touch.
#[test]
fn a_file_that_is_too_small_is_refused() {
    let offset = Region { mmap_offset: 0x1000, ..region(0, 0x1000) };
    let result = Memory::map(1, [(offset, file(0x1000))]);
    assert!(matches!(result, Err(MemoryError::FileTooSmall { need: 0x2000, .. })));
}

#[test]
fn slots_come_and_go_while_old_snapshots_stay_mapped() {
    let (low, high) = (region(0, 0x1000), region(0x10000, 0x1000));
    let one = Memory::empty(0).with_region(1, low, file(0x1000)).unwrap();
    let mut kept = Vec::new();
    one.segments(0x10, 4, &mut kept).unwrap();
    let two = one.with_region(2, high, file(0x1000)).unwrap();
    assert!(matches!(
        two.with_region(3, high, file(0x1000)),
        Err(MemoryError::Overlap { addr: 0x10000 })
    ));
    let three = two.without_region(3, &low).unwrap();
    assert_eq!((two.num_regions(), three.num_regions(), three.generation()), (2, 1, 3));
    assert_eq!(three.host_addr(0, 1), None);
    assert!(matches!(three.without_region(4, &low), Err(MemoryError::NoSuchRegion { .. })));
    assert_eq!(three.without_region(4, &high).unwrap().num_regions(), 0);
    // `one` still holds the mapping of the region that `three` has lost.
    assert_eq!(copy::copy_out(&kept, 0, b"data"), 4);
}

#[test]
fn mappings_share_the_file() {
    let file = file(0x2000);
    let at = |offset| Region { mmap_offset: offset, ..region(0, 0x1000) };
    let a = Memory::map(1, [(at(0x1000), file.try_clone().unwrap())]).unwrap();
    let b = Memory::map(1, [(at(0x1000), file)]).unwrap();
    let (mut sa, mut sb) = (Vec::new(), Vec::new());
    a.segments(0x123, 5, &mut sa).unwrap();
    b.segments(0x123, 5, &mut sb).unwrap();
    copy::copy_out(&sa, 0, b"hello");
    assert_eq!(copy::read_array(&sb, 0), Some(*b"hello"));
}
