use super::*;
use proptest::prelude::*;

const fn unit(target: u8, lun: u16) -> Option<Address> {
    Some(Address::Unit { target, lun })
}

#[test]
fn formats_of_the_lun_field_row_by_row() {
    let rows: &[([u8; 8], Option<Address>, &str)] = &[
        ([1, 0, 0, 0, 0, 0, 0, 0], unit(0, 0), "peripheral, as SeaBIOS and QEMU send LUN 0"),
        ([1, 7, 0, 255, 0, 0, 0, 0], unit(7, 255), "peripheral"),
        ([1, 0, 0x40, 0, 0, 0, 0, 0], unit(0, 0), "flat, as Linux sends every LUN"),
        ([1, 255, 0x41, 0x02, 0, 0, 0, 0], unit(255, 0x102), "flat"),
        ([1, 0, 0x7f, 0xff, 0, 0, 0, 0], unit(0, LUN_MAX), "largest"),
        ([0xc1, 1, 0, 0, 0, 0, 0, 0], Some(Address::WellKnownReportLuns), "REPORT LUNS"),
        ([0xc1, 2, 0, 0, 0, 0, 0, 0], None, "another well-known LU"),
        ([0xc1, 1, 0, 0, 0, 0, 0, 1], None, "more after the well-known LU"),
        ([0, 0, 0, 0, 0, 0, 0, 0], None, "no target"),
        ([2, 0, 0, 0, 0, 0, 0, 0], None, "first byte"),
        ([1, 0, 0x01, 0, 0, 0, 0, 0], None, "peripheral on another bus"),
        ([1, 0, 0x80, 0, 0, 0, 0, 0], None, "logical unit addressing"),
        ([1, 0, 0xc1, 1, 0, 0, 0, 0], None, "extended addressing within a target"),
        ([1, 0, 0, 0, 1, 0, 0, 0], None, "a second level"),
        ([1, 0, 0x40, 0, 0, 0, 0, 1], None, "trailing bytes"),
    ];
    for (raw, address, why) in rows {
        assert_eq!(decode(raw), *address, "{why}");
    }
}

#[test]
fn luns_are_written_as_guests_number_them() {
    assert_eq!(encode(3, 0), [1, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(encode(3, 255), [1, 3, 0, 255, 0, 0, 0, 0]);
    assert_eq!(encode(3, 256), [1, 3, 0x41, 0, 0, 0, 0, 0]);
    assert_eq!(encode(3, LUN_MAX), [1, 3, 0x7f, 0xff, 0, 0, 0, 0]);
}

#[test]
fn the_list_has_what_select_report_asks_for() {
    let list = |select| report_luns([0, 5, 0x102], select, 1024);
    let units: Vec<u8> = [
        [0, 0, 0, 24, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 5, 0, 0, 0, 0, 0, 0],
        [0x41, 2, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    assert_eq!(list(0).unwrap(), units);
    let well_known = [[0, 0, 0, 8, 0, 0, 0, 0], [0xc1, 1, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(list(1).unwrap(), well_known);
    let both = list(2).unwrap();
    assert_eq!((both.len(), both[3]), (8 + 32, 32));
    assert_eq!(both[8..32], units[8..]);
    assert_eq!(both[32..], well_known[8..]);
    for reserved in [0x03, 0x0f, 0x10, 0x12, 0xff] {
        let refused = Err((SenseCode::INVALID_FIELD_IN_CDB, FieldPointer::cdb(2)));
        assert_eq!(list(reserved), refused, "{reserved:02x}");
    }
}

#[test]
fn the_list_length_is_true_though_the_data_is_cut() {
    let cut = report_luns([1, 2], 0, 16).unwrap();
    assert_eq!(cut.len(), 16);
    assert_eq!(cut[..4], [0, 0, 0, 16], "the length does not depend on the allocation");
    assert_eq!(report_luns([], 0, 16).unwrap(), [0; 8], "a target without LUs");
    for allocation in [0, 8, 15] {
        let refused = Err((SenseCode::INVALID_FIELD_IN_CDB, FieldPointer::cdb(6)));
        assert_eq!(report_luns([1], 0, allocation), refused);
    }
}

#[test]
fn a_cdb_is_answered_by_its_fields() {
    assert_eq!(answer(&Cdb::report_luns(64), [1]), report_luns([1], 0, 64));
    let well_known = Cdb::from_bytes(&[0xa0, 0, 1, 0, 0, 0, 0, 0, 0, 64, 0, 0]).unwrap();
    assert_eq!(answer(&well_known, [1]), report_luns([1], 1, 64));
    assert!(answer(&Cdb::report_luns(15), [1]).is_err());
    let other = answer(&Cdb::test_unit_ready(), [1]).unwrap_err();
    assert_eq!(other.0, SenseCode::INVALID_OPCODE);
    let short = Cdb::from_bytes(&[0xa0, 0, 0, 0, 0, 0]).unwrap();
    assert!(answer(&short, [1]).is_err());
}

proptest! {
    #[test]
    fn luns_survive_the_wire(target: u8, lun in 0..=LUN_MAX) {
        prop_assert_eq!(decode(&encode(target, lun)), unit(target, lun));
        let data = report_luns([lun], 0, 64).unwrap();
        let listed: Vec<_> = parse(&data).collect();
        // The guest puts the two bytes it was given behind the target.
        let field = [1, target, listed[0][0], listed[0][1], 0, 0, 0, 0];
        prop_assert_eq!(decode(&field), unit(target, lun));
        prop_assert_eq!(listed.len(), 1);
    }

    #[test]
    fn hostile_lists_never_panic(
        raw: [u8; 8], data in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        if let Some(Address::Unit { lun, .. }) = decode(&raw) {
            prop_assert!(lun <= LUN_MAX);
        }
        prop_assert!(parse(&data).count() * 8 <= data.len());
    }
}
