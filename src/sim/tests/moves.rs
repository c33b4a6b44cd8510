//! Commands that move and compare blocks, in every length of CDB.

use super::*;

/// The CDB of a READ, WRITE or VERIFY of any length.
fn of_length(opcode: u8, flags: u8, lba: u8, blocks: u8) -> Cdb {
    match opcode >> 5 {
        0 => raw(&[opcode, flags, 0, lba, blocks]),
        1 | 2 => raw(&[opcode, flags, 0, 0, 0, lba, 0, 0, blocks]),
        5 => raw(&[opcode, flags, 0, 0, 0, lba, 0, 0, 0, blocks]),
        _ => raw(&[opcode, flags, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, blocks]),
    }
}

fn compare_and_write(lba: u8, blocks: u8) -> Cdb {
    raw(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, lba, 0, 0, 0, blocks])
}

#[test]
fn every_length_of_write_is_read_by_every_length_of_read() {
    let mut rig = Rig::new(small());
    for (fill, write) in [(1, 0x0a), (2, 0x2a), (3, 0xaa), (4, 0x8a)] {
        let done = rig.run(of_length(write, 0, 9, 3), &[fill; 3 * BLOCK], 0);
        assert_eq!(done.completion, Completion::Good);
        for read in [0x08, 0x28, 0xa8, 0x88] {
            let done = rig.run(of_length(read, 0, 9, 3), &[], 3 * BLOCK);
            assert_eq!((done.completion, done.data_in), (Completion::Good, vec![fill; 3 * BLOCK]));
        }
    }
}

#[test]
fn zero_blocks_are_256_in_the_six_byte_forms_and_none_in_the_others() {
    let mut rig = Rig::new(LuConfig::default());
    let done = rig.run(of_length(0x08, 0, 0, 0), &[], 256 * BLOCK);
    assert_eq!((done.completion, done.data_in.len()), (Completion::Good, 256 * BLOCK));
    for opcode in [0x28, 0xa8, 0x88, 0x2a, 0xaa, 0x8a, 0x2e, 0x8e, 0x2f, 0x8f, 0x34, 0x90, 0x89] {
        let done = rig.run(of_length(opcode, 0, 1, 0), &[], 0);
        assert_eq!(done.completion, Completion::Good, "{opcode:02x}");
    }
}

#[test]
fn beyond_the_end_is_out_of_range_even_for_no_blocks() {
    let mut rig = Rig::new(small());
    for opcode in [
        0x28, 0xa8, 0x88, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e, 0x2f, 0xaf, 0x8f, 0x34, 0x90, 0x35,
        0x91,
    ] {
        for (lba, blocks) in [(64, 1), (62, 3), (65, 0)] {
            let done = rig.run(of_length(opcode, 0, lba, blocks), &[0; 3 * BLOCK], 3 * BLOCK);
            assert_eq!(sense_of(&done), Some(code(5, 0x21, 0)), "{opcode:02x} {lba}+{blocks}");
            let Completion::Scsi { sense, .. } = done.completion else { unreachable!() };
            let first = u8::max(lba, 64);
            assert_eq!(sense.as_bytes()[3..7], [0, 0, 0, first], "INFORMATION");
        }
    }
    let done = rig.run(compare_and_write(64, 1), &[0; 2 * BLOCK], 0);
    assert_eq!(sense_of(&done), Some(code(5, 0x21, 0)));
    for opcode in [0x41, 0x93] {
        let done = rig.run(of_length(opcode, 0, 63, 2), &[0; BLOCK], 0);
        assert_eq!(sense_of(&done), Some(code(5, 0x21, 0)));
    }
}

#[test]
fn verify_compares_as_bytchk_says() {
    for opcode in [0x2f, 0xaf, 0x8f] {
        let mut rig = Rig::new(small());
        rig.write(4, 2, 7);
        let mut wrong = vec![7; 2 * BLOCK];
        wrong[BLOCK + 3] = 8;
        let mut verify = |bytchk: u8, blocks: u8, data: &[u8]| {
            rig.run(of_length(opcode, bytchk << 1 | 0x10, 4, blocks), data, 0)
        };
        assert_eq!(verify(0, 2, &[]).completion, Completion::Good);
        assert_eq!(sense_of(&verify(0, 2, &wrong)), None, "nothing is compared");
        assert_eq!(verify(1, 2, &[7; 2 * BLOCK]).completion, Completion::Good);
        assert_eq!(sense_of(&verify(1, 2, &wrong)), Some(code(0xe, 0x1d, 0)));
        assert_eq!(verify(3, 2, &[7; BLOCK]).completion, Completion::Good);
        assert_eq!(sense_of(&verify(3, 3, &[7; BLOCK])), Some(code(0xe, 0x1d, 0)));
        assert_eq!(sense_of(&verify(2, 2, &[7; BLOCK])), Some(code(5, 0x24, 0)));
        assert_eq!(host_of(&verify(1, 2, &[7; BLOCK])), HostByte::ERROR, "too little data");
    }
}

#[test]
fn write_and_verify_writes() {
    let mut rig = Rig::new(small());
    for (fill, opcode, flags) in [(1, 0x2e, 0), (2, 0xae, 0x12), (3, 0x8e, 0x02)] {
        let done = rig.run(of_length(opcode, flags, 5, 2), &[fill; 2 * BLOCK], 0);
        assert_eq!(done.completion, Completion::Good);
        assert_eq!(rig.blocks(4, 4), [0, fill, fill, 0]);
        let done = rig.run(of_length(opcode, 0x04, 5, 2), &[9; 2 * BLOCK], 0);
        assert_eq!(sense_of(&done), Some(code(5, 0x24, 0)), "BYTCHK 10b");
    }
    assert_eq!(rig.blocks(4, 4), [0, 3, 3, 0]);
}

#[test]
fn compare_and_write_writes_only_where_all_is_as_expected() {
    let mut rig = Rig::new(small());
    rig.write(8, 2, 5);
    let data = [vec![5; 2 * BLOCK], vec![6; 2 * BLOCK]].concat();
    assert_eq!(rig.run(compare_and_write(8, 2), &data, 0).completion, Completion::Good);
    assert_eq!(rig.blocks(7, 4), [0, 6, 6, 0]);

    let mut data = [vec![6; 2 * BLOCK], vec![7; 2 * BLOCK]].concat();
    data[700] = 1;
    let done = rig.run(compare_and_write(8, 2), &data, 0);
    assert_eq!(sense_of(&done), Some(code(0xe, 0x1d, 0)));
    let Completion::Scsi { sense, .. } = done.completion else { unreachable!() };
    assert_eq!(sense.as_bytes()[0], 0xf0, "VALID");
    assert_eq!(sense.as_bytes()[3..7], 700u32.to_be_bytes(), "offset of the first difference");
    assert_eq!(rig.blocks(7, 4), [0, 6, 6, 0]);

    let done = rig.run(compare_and_write(0, 5), &[0; 10 * BLOCK], 0);
    assert_eq!(sense_of(&done), Some(code(5, 0x24, 0)), "more than its limit");
    let done = rig.run(compare_and_write(8, 2), &[6; 3 * BLOCK], 0);
    assert_eq!(host_of(&done), HostByte::ERROR, "half of the data is missing");
    let b0 = rig.run(Cdb::inquiry(Some(0xb0), 64), &[], 64).data_in;
    assert_eq!(b0[5], 4);
}

#[test]
fn write_same_takes_exactly_one_block() {
    let mut rig = Rig::new(small());
    for (fill, opcode) in [(1, 0x41), (2, 0x93)] {
        let same = of_length(opcode, 0, 3, 2);
        assert_eq!(rig.run(same, &[fill; BLOCK], 0).completion, Completion::Good);
        assert_eq!(rig.blocks(2, 4), [0, fill, fill, 0]);
        for wrong in [BLOCK / 2, 2 * BLOCK, 0] {
            let done = rig.run(same, &vec![9; wrong], 0);
            assert_eq!(sense_of(&done), Some(code(5, 0x24, 0)));
        }
        let none = of_length(opcode, 0, 3, 0);
        assert_eq!(sense_of(&rig.run(none, &[9; BLOCK], 0)), Some(code(5, 0x24, 0)), "WSNZ");
        let unmap = of_length(opcode, 0x08, 3, 1);
        assert_eq!(rig.run(unmap, &[0; BLOCK], 0).completion, Completion::Good);
        assert_eq!(rig.blocks(2, 4), [0, 0, fill, 0]);
    }
    let b2 = rig.run(Cdb::inquiry(Some(0xb2), 8), &[], 8).data_in;
    assert_eq!(b2[5] & 0xe0, 0xe0, "LBPU, LBPWS, LBPWS10");
}

#[test]
fn unmap_of_no_blocks_at_the_end_is_no_error() {
    let mut rig = Rig::new(small());
    let mut list = Vec::new();
    crate::scsi::unmap::encode(&[Extent::new(64, 0)], &mut list).unwrap();
    assert_eq!(rig.run(Cdb::unmap(24), &list, 0).completion, Completion::Good);
}

#[test]
fn lba_status_tells_what_takes_space() {
    // Memory is given back by 64 KiB: 128 blocks.
    let mut rig = Rig::new(LuConfig { max_transfer_blocks: 0, blocks: 1000, ..small() });
    rig.write(200, 1, 1);
    let status = |lba: u16, allocation: u8| {
        let [high, low] = lba.to_be_bytes();
        raw(&[0x9e, 0x12, 0, 0, 0, 0, 0, 0, high, low, 0, 0, 0, allocation])
    };
    let runs = |data: &[u8]| -> Vec<(u64, u32, u8)> {
        let run = |d: &[u8]| {
            let blocks = u32::from_be_bytes(d[8..12].try_into().unwrap());
            (u64::from_be_bytes(d[..8].try_into().unwrap()), blocks, d[12])
        };
        data[8..].chunks_exact(16).map(run).collect()
    };
    let data = rig.run(status(3, 255), &[], 255).data_in;
    assert_eq!(runs(&data), [(3, 125, 1), (128, 128, 0), (256, 744, 1)]);
    assert_eq!(data[..4], 52u32.to_be_bytes());
    let data = rig.run(status(130, 24), &[], 24).data_in;
    assert_eq!((runs(&data), data[3]), (vec![(130, 126, 0)], 20));
    let done = rig.run(status(1000, 24), &[], 24);
    assert_eq!(sense_of(&done), Some(code(5, 0x21, 0)));

    let mut rig = Rig::new(LuConfig { thin: false, ..small() });
    assert_eq!(runs(&rig.run(status(1, 24), &[], 24).data_in), [(1, 63, 0)]);
}

#[test]
fn blocks_of_4096_bytes_are_served_alike() {
    let config = LuConfig { block_size: 4096, physical_block_exp: 0, ..small() };
    let mut rig = Rig::new(config);
    let done = rig.run(of_length(0x8a, 0, 63, 1), &[3; 4096], 0);
    assert_eq!(done.completion, Completion::Good);
    let done = rig.run(of_length(0x28, 0, 62, 2), &[], 8192);
    assert_eq!(done.data_in, [vec![0; 4096], vec![3; 4096]].concat());
    let data = [vec![3; 4096], vec![4; 4096]].concat();
    assert_eq!(rig.run(compare_and_write(63, 1), &data, 0).completion, Completion::Good);
    let done = rig.run(of_length(0x93, 0x01, 62, 2), &[], 0);
    assert_eq!(done.completion, Completion::Good, "NDOB");
    assert!(rig.run(of_length(0x28, 0, 62, 2), &[], 8192).data_in.iter().all(|b| *b == 0));
}
