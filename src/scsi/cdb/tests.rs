use super::*;
use proptest::prelude::*;

fn bytes(cdb: Result<Cdb, Unencodable>) -> Vec<u8> {
    cdb.unwrap().as_slice().to_vec()
}

#[test]
fn ten_byte_forms_end_where_their_fields_end() {
    let last_10 = Extent::new(u64::from(u32::MAX), 0xffff);
    assert_eq!(bytes(Cdb::read(last_10)), [0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]);
    assert_eq!(bytes(Cdb::read(Extent::new(1 << 32, 1)))[0], 0x88);
    assert_eq!(bytes(Cdb::write(Extent::new(0, 0x1_0000), false))[0], 0x8a);
    assert_eq!(
        bytes(Cdb::write_16(Extent::new(0x0102_0304_0506_0708, 0x0a0b_0c0d), true)),
        [0x8a, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0]
    );
}

#[test]
fn fua_is_set_exactly_when_asked_for() {
    for extent in [Extent::new(1, 1), Extent::new(1 << 40, 1)] {
        assert_eq!(bytes(Cdb::write(extent, true))[1], 0x08);
        assert_eq!(bytes(Cdb::write(extent, false))[1], 0);
        assert_eq!(bytes(Cdb::read(extent))[1], 0);
    }
}

#[test]
fn operations_that_do_not_fit_one_command_are_refused() {
    let huge = Extent::new(0, 1 << 32);
    assert_eq!(Cdb::read(huge), Err(Unencodable::TooLong(1 << 32)));
    let zeroes = |extent| Op::WriteZeroes { extent, unmap: true };
    assert_eq!(Cdb::from_op(&zeroes(huge), &[]), Err(Unencodable::TooLong(1 << 32)));
    assert_eq!(
        Cdb::from_op(&zeroes(Extent::new(5, 0)), &[]),
        Err(Unencodable::EmptyWriteSame),
        "zero blocks would wipe the rest of the LU"
    );
    assert_eq!(Cdb::from_op(&Op::Unmap, &[]), Err(Unencodable::Extents(0)));
    assert_eq!(Cdb::from_op(&Op::Unmap, &[huge]), Err(Unencodable::TooLong(1 << 32)));
    assert_eq!(
        Cdb::from_op(&Op::Unmap, &vec![Extent::new(0, 1); 4096]),
        Err(Unencodable::Extents(4096))
    );
}

#[test]
fn every_operation_says_what_it_asks_for() {
    let extent = Extent::new(7, 3);
    let of = |op: Op| {
        let (cdb, payload) = Cdb::from_op(&op, &[extent, extent]).unwrap();
        (cdb.decode().unwrap(), payload)
    };
    assert_eq!(of(Op::Read(extent)), (Decoded::Read(extent), Payload::In));
    assert_eq!(
        of(Op::Write { extent, fua: true }),
        (Decoded::Write { extent, fua: true }, Payload::Out)
    );
    assert_eq!(
        of(Op::Flush),
        (Decoded::SynchronizeCache(Extent::new(0, 0)), Payload::None),
        "LBA 0 and zero blocks: the whole LU"
    );
    assert_eq!(of(Op::Unmap), (Decoded::Unmap { list_len: 40 }, Payload::UnmapList));
    assert_eq!(
        of(Op::WriteZeroes { extent, unmap: true }),
        (Decoded::WriteSame { extent, unmap: true, ndob: false }, Payload::ZeroBlock)
    );
}

#[test]
fn inquiry_and_mode_sense_fields_sit_where_the_standard_puts_them() {
    assert_eq!(Cdb::inquiry(Some(0x83), 0x1234).as_slice(), [0x12, 1, 0x83, 0x12, 0x34, 0]);
    assert_eq!(Cdb::inquiry(None, 36).as_slice(), [0x12, 0, 0, 0, 36, 0]);
    assert_eq!(Cdb::mode_sense_6(8, 192).as_slice(), [0x1a, 0, 8, 0, 192, 0]);
    assert_eq!(Cdb::mode_sense_10(8, 0x102).as_slice(), [0x5a, 0, 8, 0, 0, 0, 0, 1, 2, 0]);
    assert_eq!(Cdb::report_luns(16).as_slice(), [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]);
    assert_eq!(Cdb::read_capacity_16(32).as_slice()[..2], [0x9e, 0x10]);
    assert_eq!(Cdb::read_capacity_16(32).as_slice()[13], 32);
}

#[test]
fn names_tell_service_actions_apart() {
    assert_eq!(Cdb::read_capacity_16(32).name(), Some("READ CAPACITY(16)"));
    assert_eq!(opcode_name(0x5f, 0x04), Some("PERSISTENT RESERVE OUT PREEMPT"));
    assert_eq!(opcode_name(0x5f, 0x1f), Some("PERSISTENT RESERVE OUT"));
    assert_eq!(opcode_name(0x28, 0x1f), Some("READ(10)"));
    assert_eq!(opcode_name(0xff, 0), None);
    assert_eq!(format!("{:?}", Cdb::test_unit_ready()), "TEST UNIT READY 00 00 00 00 00 00");
}

#[test]
fn unsupported_and_malformed_cdbs_are_told_apart() {
    let decode = |raw: &[u8]| Cdb::from_bytes(raw).unwrap().decode();
    assert_eq!(decode(&[0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0]), Err(Malformed::Opcode));
    assert_eq!(decode(&[0x12, 0, 0x83, 0, 36, 0]), Err(Malformed::Field), "page without EVPD");
    assert_eq!(decode(&[0x28, 0, 0, 0, 0, 0]), Err(Malformed::Field), "short for its opcode");
    assert_eq!(decode(&[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0]), Err(Malformed::Field), "RDPROTECT");
    assert!(Cdb::from_bytes(&[]).is_none() && Cdb::from_bytes(&[0; 33]).is_none());
}

proptest! {
    #[test]
    fn transfers_survive_the_wire(lba: u64, blocks: u32, fua: bool) {
        let extent = Extent::new(lba, u64::from(blocks));
        prop_assert_eq!(Cdb::read(extent).unwrap().decode(), Ok(Decoded::Read(extent)));
        prop_assert_eq!(Cdb::read_16(extent).unwrap().decode(), Ok(Decoded::Read(extent)));
        let write = Ok(Decoded::Write { extent, fua });
        prop_assert_eq!(Cdb::write(extent, fua).unwrap().decode(), write);
        prop_assert_eq!(Cdb::write_16(extent, fua).unwrap().decode(), write);
    }

    #[test]
    fn hostile_cdbs_never_panic(raw in prop::collection::vec(any::<u8>(), 1..=32)) {
        let cdb = Cdb::from_bytes(&raw).unwrap();
        let _ = cdb.decode();
        let _ = format!("{cdb:?}");
        prop_assert_eq!(cdb.as_slice(), &raw[..]);
    }
}
