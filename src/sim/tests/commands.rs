//! Each command, over a healthy path.

use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::io::Op;
use crate::scsi::capacity::{Capacity, Capacity10};
use crate::scsi::inquiry::Inquiry;
use crate::scsi::mode::{Caching, Mode};
use crate::scsi::{unmap, vpd};

fn unmap_list(extents: &[Extent]) -> Vec<u8> {
    let mut list = Vec::new();
    unmap::encode(extents, &mut list).unwrap();
    list
}

fn run_unmap(rig: &mut Rig, extents: &[Extent]) -> Done {
    let list = unmap_list(extents);
    rig.run(Cdb::from_op(&Op::Unmap, extents).unwrap().0, &list, 0)
}

fn write_same(rig: &mut Rig, extent: Extent, unmap: bool, block: &[u8]) -> Done {
    rig.run(Cdb::write_same_16(extent, unmap, block.is_empty()).unwrap(), block, 0)
}

#[test]
fn a_write_over_one_path_is_read_over_the_other() {
    let mut rig = Rig::new(small());
    rig.write(5, 3, 0xab);
    assert_eq!(rig.blocks(4, 5), [0, 0xab, 0xab, 0xab, 0]);
    let (a, b) = (rig.array.stats(rig.a).unwrap(), rig.array.stats(rig.b).unwrap());
    assert_eq!((a.good, a.bytes_out, a.bytes_in), (1, 3 * 512, 0));
    assert_eq!((b.good, b.bytes_out, b.bytes_in), (1, 0, 5 * 512));
}

#[test]
fn sixteen_byte_forms_do_the_same() {
    let mut rig = Rig::new(small());
    let extent = Extent::new(63, 1);
    rig.run(Cdb::write_16(extent, true).unwrap(), &[7; BLOCK], 0);
    let done = rig.run(Cdb::read_16(extent).unwrap(), &[], BLOCK);
    assert_eq!((done.completion, done.data_in), (Completion::Good, vec![7; BLOCK]));
}

#[test]
fn identity_is_what_was_configured_and_the_same_on_every_path() {
    let mut rig = Rig::new(LuConfig::default());
    for (nexus, port) in [(rig.a, 1), (rig.b, 2)] {
        let page83 = rig.run_on(nexus, Cdb::inquiry(Some(0x83), 1024), &[], 1024).data_in;
        assert_eq!(
            vpd::wwid(Some(&page83), None).as_deref(),
            Some("3600000000073696d0000000000000001")
        );
        let ports = vpd::designators(&page83).unwrap().filter_map(|d| d.relative_target_port());
        assert_eq!(ports.collect::<Vec<_>>(), [port]);
    }
    let page80 = rig.run(Cdb::inquiry(Some(0x80), 255), &[], 255).data_in;
    assert_eq!(vpd::serial(&page80).as_deref(), Some("sim0001"));
    let inquiry = Inquiry::parse(&rig.run(Cdb::inquiry(None, 36), &[], 36).data_in).unwrap();
    assert!(inquiry.is_disk() && inquiry.multi_port);
    assert_eq!((&*inquiry.vendor, &*inquiry.product), ("VHOSTMP", "simulated disk"));
}

#[test]
fn every_listed_page_is_served_and_no_other() {
    let mut rig = Rig::new(LuConfig::default());
    let page = rig.run(Cdb::inquiry(Some(0), 255), &[], 255).data_in;
    let listed = vpd::supported(&page).unwrap().to_vec();
    assert_eq!(listed, [0, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]);
    for code_byte in 0..=255 {
        let done = rig.run(Cdb::inquiry(Some(code_byte), 255), &[], 255);
        if listed.contains(&code_byte) {
            assert_eq!(done.data_in[1], code_byte);
        } else {
            assert_eq!(sense_of(&done), Some(code(5, 0x24, 0)));
        }
    }
}

#[test]
fn allocation_length_cuts_and_the_residual_counts_what_is_missing() {
    let mut rig = Rig::new(LuConfig::default());
    let done = rig.run(Cdb::inquiry(None, 5), &[], 5);
    assert_eq!((done.completion, done.data_in.len()), (Completion::Good, 5));
    let done = rig.run(Cdb::inquiry(None, 255), &[], 255);
    assert_eq!((done.data_in.len(), residual_of(&done)), (96, 159));
    assert_eq!(host_of(&done), HostByte::OK);
    let done = rig.run(Cdb::inquiry(None, 5), &[], 100);
    assert_eq!((done.data_in.len(), residual_of(&done)), (5, 95));
    let done = rig.run(Cdb::inquiry(None, 36), &[], 4);
    assert_eq!((done.completion, done.data_in.len()), (Completion::Good, 4));
}

#[test]
fn limits_and_provisioning_are_reported_as_configured() {
    let mut config = small();
    config.unmap_granularity = 8;
    config.unmap_alignment = 3;
    let mut rig = Rig::new(config.clone());
    let b0 = rig.run(Cdb::inquiry(Some(0xb0), 64), &[], 64).data_in;
    let limits = vpd::BlockLimits::parse(&b0).unwrap();
    assert_eq!((limits.max_transfer, limits.max_unmap, limits.max_write_same), (16, 32, 32));
    assert_eq!((limits.unmap_granularity, limits.unmap_alignment), (8, Some(3)));
    let b2 = rig.run(Cdb::inquiry(Some(0xb2), 8), &[], 8).data_in;
    let provisioning = vpd::Provisioning::parse(&b2).unwrap();
    assert!(provisioning.unmap && provisioning.write_same_16 && provisioning.reads_zero == 1);

    config.thin = false;
    let mut rig = Rig::new(config);
    let b0 = rig.run(Cdb::inquiry(Some(0xb0), 64), &[], 64).data_in;
    assert_eq!(vpd::BlockLimits::parse(&b0).unwrap().max_unmap, 0);
    let b2 = rig.run(Cdb::inquiry(Some(0xb2), 8), &[], 8).data_in;
    assert!(!vpd::Provisioning::parse(&b2).unwrap().unmap);
    let capacity = rig.run(Cdb::read_capacity_16(32), &[], 32).data_in;
    assert!(!Capacity::parse_16(&capacity).unwrap().provisioning);
}

#[test]
fn both_read_capacities_agree() {
    let mut rig = Rig::new(small());
    let sixteen = rig.run(Cdb::read_capacity_16(32), &[], 32).data_in;
    let sixteen = Capacity::parse_16(&sixteen).unwrap();
    let ten = Capacity10::parse(&rig.run(Cdb::read_capacity_10(), &[], 8).data_in).unwrap();
    assert_eq!((sixteen.blocks.0, sixteen.block_size, sixteen.physical_block_exp), (64, 512, 3));
    assert!(sixteen.provisioning && sixteen.unmapped_reads_zero);
    assert_eq!((ten.blocks, ten.block_size), (Some(sixteen.blocks), sixteen.block_size));
}

#[test]
fn mode_sense_tells_write_cache_and_write_protection() {
    for (write_cache, read_only) in [(true, false), (false, true)] {
        let mut rig = Rig::new(LuConfig { write_cache, read_only, ..small() });
        let caching = Some(Caching { write_cache, read_cache_disabled: false });
        let wanted = Some(Mode { write_protected: read_only, dpofua: true, caching });
        for page in [0x08, 0x3f] {
            let six = rig.run(Cdb::mode_sense_6(page, 192), &[], 192).data_in;
            assert_eq!(Mode::parse_6(&six), wanted);
            let ten = rig.run(Cdb::mode_sense_10(page, 192), &[], 192).data_in;
            assert_eq!(Mode::parse_10(&ten), wanted);
        }
    }
}

#[test]
fn one_lun_is_reported_and_no_sense_is_pending() {
    let mut rig = Rig::new(small());
    let luns = rig.run(Cdb::report_luns(16), &[], 16);
    assert_eq!(
        (luns.completion, luns.data_in),
        (Completion::Good, [0, 0, 0, 8].iter().copied().chain([0; 12]).collect())
    );
    let done = rig.run(Cdb::request_sense(18), &[], 18);
    assert_eq!(Sense::from_bytes(&done.data_in).code(), Some(code(0, 0, 0)));
    assert_eq!(rig.run(Cdb::test_unit_ready(), &[], 0).completion, Completion::Good);
}

#[test]
fn unmap_deallocates_whole_granules_and_leaves_the_rest_alone() {
    let mut rig = Rig::new(LuConfig { unmap_granularity: 4, unmap_alignment: 2, ..small() });
    rig.write(0, 16, 9);
    // Granules start at 2, 6, 10, 14.
    let done = run_unmap(&mut rig, &[Extent::new(1, 8), Extent::new(11, 3)]);
    assert_eq!(done.completion, Completion::Good);
    assert_eq!(rig.blocks(0, 16), [9, 9, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
}

#[test]
fn write_same_zeroes_every_block_even_where_granules_are_partial() {
    let config = LuConfig { unmap_granularity: 4, unmap_alignment: 2, ..small() };
    for (unmap, block) in [(true, vec![0; BLOCK]), (false, vec![0; BLOCK]), (true, vec![])] {
        let mut rig = Rig::new(config.clone());
        rig.write(0, 16, 9);
        let done = write_same(&mut rig, Extent::new(1, 8), unmap, &block);
        assert_eq!(done.completion, Completion::Good);
        assert_eq!(rig.blocks(0, 10), [9, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    }
}

#[test]
fn write_same_repeats_a_pattern() {
    let mut rig = Rig::new(small());
    assert_eq!(
        write_same(&mut rig, Extent::new(1, 2), true, &[5; BLOCK]).completion,
        Completion::Good
    );
    assert_eq!(rig.blocks(0, 4), [0, 5, 5, 0]);
    // More than one piece.
    let mut rig = Rig::new(LuConfig {
        max_write_same_blocks: 0,
        max_transfer_blocks: 0,
        ..LuConfig::default()
    });
    write_same(&mut rig, Extent::new(1, 5000), false, &[6; BLOCK]);
    let blocks = rig.blocks(0, 5002);
    assert_eq!((blocks[0], blocks[5001]), (0, 0));
    assert!(blocks[1..5001].iter().all(|block| *block == 6));
}

#[test]
fn what_exceeds_the_lu_gets_the_sense_of_the_standard() {
    let mut rig = Rig::new(small());
    let read = |lba, blocks| Cdb::read(Extent::new(lba, blocks)).unwrap();
    let mut refused = |cdb: Cdb, out: &[u8]| sense_of(&rig.run(cdb, out, 1 << 20)).unwrap();
    assert_eq!(refused(read(64, 1), &[]), code(5, 0x21, 0));
    assert_eq!(refused(read(60, 5), &[]), code(5, 0x21, 0));
    assert_eq!(refused(read(0, 17), &[]), code(5, 0x24, 0), "above MAXIMUM TRANSFER LENGTH");
    let write = Cdb::write(Extent::new(0, 17), false).unwrap();
    assert_eq!(refused(write, &[0; 17 * BLOCK]), code(5, 0x24, 0));
    let same = Cdb::write_same_16(Extent::new(0, 33), false, true).unwrap();
    assert_eq!(refused(same, &[]), code(5, 0x24, 0), "above MAXIMUM WRITE SAME LENGTH");
    let mut zero = [0; 16];
    (zero[0], zero[1]) = (0x93, 1);
    let zero = Cdb::from_bytes(&zero).unwrap();
    assert_eq!(refused(zero, &[]), code(5, 0x24, 0), "WSNZ: zero blocks are refused");
    let far = Cdb::from_bytes(&[
        0x91, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0,
    ]);
    assert_eq!(refused(far.unwrap(), &[]), code(5, 0x21, 0));
    let unknown = Cdb::from_bytes(&[0x57, 0, 0, 0, 0, 0, 0, 0, 8, 0]).unwrap();
    assert_eq!(refused(unknown, &[]), code(5, 0x20, 0));
}

#[test]
fn unmap_beyond_its_limits_changes_nothing() {
    let mut rig = Rig::new(small());
    rig.write(0, 8, 1);
    let cases = [
        (vec![Extent::new(0, 1); 5], code(5, 0x26, 0)),
        (vec![Extent::new(0, 16), Extent::new(0, 17)], code(5, 0x26, 0)),
        (vec![Extent::new(0, 1), Extent::new(63, 2)], code(5, 0x21, 0)),
    ];
    for (extents, wanted) in cases {
        assert_eq!(sense_of(&run_unmap(&mut rig, &extents)), Some(wanted));
    }
    let list = unmap_list(&[Extent::new(0, 1)]);
    assert_eq!(sense_of(&rig.run(Cdb::unmap(20), &list, 0)), Some(code(5, 0x1a, 0)));
    assert_eq!(rig.run(Cdb::unmap(0), &[], 0).completion, Completion::Good);
    assert_eq!(rig.blocks(0, 8), [1; 8]);
}

#[test]
fn a_thick_lu_does_not_unmap() {
    let mut rig = Rig::new(LuConfig { thin: false, ..small() });
    rig.write(0, 1, 1);
    assert_eq!(sense_of(&run_unmap(&mut rig, &[Extent::new(0, 1)])), Some(code(5, 0x20, 0)));
    let done = write_same(&mut rig, Extent::new(0, 1), true, &[0; BLOCK]);
    assert_eq!(sense_of(&done), Some(code(5, 0x24, 0)));
    assert_eq!(rig.blocks(0, 1), [1]);
}

#[test]
fn a_read_only_lu_refuses_every_kind_of_write() {
    let mut rig = Rig::new(LuConfig { read_only: true, ..small() });
    let extent = Extent::new(0, 1);
    let write = rig.run(Cdb::write(extent, false).unwrap(), &[1; BLOCK], 0);
    let same = write_same(&mut rig, extent, false, &[1; BLOCK]);
    let unmap = run_unmap(&mut rig, &[extent]);
    for done in [write, same, unmap] {
        assert_eq!(sense_of(&done), Some(code(7, 0x27, 0)));
    }
    assert_eq!(rig.blocks(0, 1), [0]);
}

#[test]
fn an_initiator_without_the_data_it_announced_gets_a_host_error() {
    let mut rig = Rig::new(small());
    let extent = Extent::new(0, 2);
    let short = rig.run(Cdb::write(extent, false).unwrap(), &[1; 2 * BLOCK - 1], 0);
    assert_eq!((host_of(&short), residual_of(&short)), (HostByte::ERROR, 1023));
    let short = rig.run(Cdb::read(extent).unwrap(), &[], 2 * BLOCK - 1);
    assert_eq!((host_of(&short), residual_of(&short)), (HostByte::ERROR, 1023));
    assert_eq!(rig.blocks(0, 2), [0, 0]);
    let long = rig.run(Cdb::write(extent, false).unwrap(), &[1; 2 * BLOCK + 3], 0);
    assert_eq!((host_of(&long), residual_of(&long)), (HostByte::OK, 3));
    let long = rig.run(Cdb::read(extent).unwrap(), &[], 3 * BLOCK);
    assert_eq!((long.data_in.len(), residual_of(&long)), (1024, 512));
}

/// Counts syncs, and fails when told to.
#[derive(Clone, Default)]
struct Spy {
    syncs: Arc<Mutex<u32>>,
    fail: Arc<Mutex<Option<io::ErrorKind>>>,
}

impl Spy {
    fn check(&self) -> io::Result<()> {
        self.fail.lock().unwrap().map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl Medium for Spy {
    fn read_at(&mut self, _: u64, _: &mut [u8]) -> io::Result<()> {
        self.check()
    }
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        self.check()
    }
    fn zero(&mut self, _: u64, _: u64, _: bool) -> io::Result<()> {
        self.check()
    }
    fn sync(&mut self) -> io::Result<()> {
        *self.syncs.lock().unwrap() += 1;
        self.check()
    }
}

#[test]
fn fua_and_synchronize_cache_reach_the_medium_and_plain_writes_do_not() {
    let spy = Spy::default();
    let mut rig = Rig::on(small(), Box::new(spy.clone()));
    let write = |fua| Cdb::write(Extent::new(0, 1), fua).unwrap();
    let mut syncs_after = |cdb: Cdb, out: &[u8]| {
        assert_eq!(rig.run(cdb, out, 0).completion, Completion::Good);
        *spy.syncs.lock().unwrap()
    };
    assert_eq!(syncs_after(write(false), &[0; BLOCK]), 0);
    assert_eq!(syncs_after(write(true), &[0; BLOCK]), 1);
    assert_eq!(syncs_after(Cdb::synchronize_cache_10(), &[]), 2);
    assert_eq!(syncs_after(Cdb::synchronize_cache_16(), &[]), 3);
}

#[test]
fn failures_of_the_medium_are_the_lus_word() {
    let spy = Spy::default();
    let mut rig = Rig::on(small(), Box::new(spy.clone()));
    let extent = Extent::new(0, 1);
    *spy.fail.lock().unwrap() = Some(io::ErrorKind::Other);
    let read = rig.run(Cdb::read(extent).unwrap(), &[], BLOCK);
    assert_eq!((sense_of(&read), read.data_in.len()), (Some(code(3, 0x11, 0)), 0));
    let write = Cdb::write(extent, false).unwrap();
    assert_eq!(sense_of(&rig.run(write, &[0; BLOCK], 0)), Some(code(3, 0x0c, 0)));
    assert_eq!(
        sense_of(&rig.run(Cdb::synchronize_cache_10(), &[], 0)),
        Some(code(3, 0x0c, 0)),
        "a flush that failed is never reported as done"
    );
    *spy.fail.lock().unwrap() = Some(io::ErrorKind::StorageFull);
    assert_eq!(sense_of(&rig.run(write, &[0; BLOCK], 0)), Some(code(7, 0x27, 7)));
}
