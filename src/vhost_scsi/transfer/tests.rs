use proptest::prelude::*;

use super::*;

fn cdb(bytes: &[u8]) -> Cdb {
    Cdb::from_bytes(bytes).expect("1 to 32 bytes")
}

/// A CDB of `len` zero bytes with these bytes set.
fn with(len: usize, bytes: &[(usize, u8)]) -> Cdb {
    let mut raw = vec![0; len];
    for (at, byte) in bytes {
        raw[*at] = *byte;
    }
    cdb(&raw)
}

/// Row by row from the CDB tables of SBC-4 and SPC-5.
#[test]
fn data_lengths_of_block_commands() {
    use Transfer::{In, InAtLeast, None, Out, OutAtLeast, Unknown};
    let rows: &[(&str, Cdb, Transfer)] = &[
        ("READ(6)", with(6, &[(0, 0x08), (4, 3)]), In(1536)),
        ("READ(6) of 0 is 256", with(6, &[(0, 0x08)]), In(256 * 512)),
        ("READ(6), reserved bits", with(6, &[(0, 0x08), (1, 0xff), (4, 1)]), In(512)),
        ("WRITE(6) of 0 is 256", with(6, &[(0, 0x0a)]), Out(256 * 512)),
        ("READ(10)", with(10, &[(0, 0x28), (7, 1), (8, 2)]), In(258 * 512)),
        ("READ(10) of 0", with(10, &[(0, 0x28)]), In(0)),
        ("READ(10), RDPROTECT", with(10, &[(0, 0x28), (1, 0x20), (8, 2)]), InAtLeast(1024)),
        ("WRITE(10), WRPROTECT", with(10, &[(0, 0x2a), (1, 0xe0), (8, 2)]), OutAtLeast(1024)),
        ("READ(10) of 0, RDPROTECT", with(10, &[(0, 0x28), (1, 0x20)]), In(0)),
        ("VERIFY(10), VRPROTECT", with(10, &[(0, 0x2f), (1, 0x20), (8, 9)]), None),
        ("WRITE SAME(16), WRPROTECT", with(16, &[(0, 0x93), (1, 0x20)]), OutAtLeast(512)),
        ("READ(10), DPO and FUA", with(10, &[(0, 0x28), (1, 0x18), (8, 2)]), In(1024)),
        ("WRITE(10)", with(10, &[(0, 0x2a), (8, 1)]), Out(512)),
        ("WRITE AND VERIFY(10)", with(10, &[(0, 0x2e), (1, 2), (8, 1)]), Out(512)),
        ("READ(12)", with(12, &[(0, 0xa8), (9, 1)]), In(512)),
        ("WRITE(12)", with(12, &[(0, 0xaa), (9, 1)]), Out(512)),
        ("WRITE AND VERIFY(12)", with(12, &[(0, 0xae), (9, 1)]), Out(512)),
        ("READ(16)", with(16, &[(0, 0x88), (13, 1)]), In(512)),
        (
            "READ(16), longest",
            with(16, &[(0, 0x88), (10, 255), (11, 255), (12, 255), (13, 255)]),
            { In(0xffff_ffff * 512) },
        ),
        ("WRITE(16)", with(16, &[(0, 0x8a), (13, 1)]), Out(512)),
        ("ORWRITE(16)", with(16, &[(0, 0x8b), (13, 1)]), Out(512)),
        ("WRITE AND VERIFY(16)", with(16, &[(0, 0x8e), (13, 1)]), Out(512)),
        ("WRITE ATOMIC(16)", with(16, &[(0, 0x9c), (13, 2)]), Out(1024)),
        ("COMPARE AND WRITE", with(16, &[(0, 0x89), (13, 3)]), Out(6 * 512)),
        ("VERIFY(10), BYTCHK 0", with(10, &[(0, 0x2f), (8, 9)]), None),
        ("VERIFY(10), BYTCHK 1", with(10, &[(0, 0x2f), (1, 2), (8, 9)]), Out(9 * 512)),
        ("VERIFY(10), BYTCHK 2", with(10, &[(0, 0x2f), (1, 4), (8, 9)]), Unknown),
        ("VERIFY(10), BYTCHK 3", with(10, &[(0, 0x2f), (1, 6), (8, 9)]), Out(512)),
        ("VERIFY(10), BYTCHK 3 of 0", with(10, &[(0, 0x2f), (1, 6)]), None),
        ("VERIFY(12), BYTCHK 1", with(12, &[(0, 0xaf), (1, 2), (9, 1)]), Out(512)),
        ("VERIFY(16), BYTCHK 1", with(16, &[(0, 0x8f), (1, 2), (13, 1)]), Out(512)),
        ("WRITE SAME(10)", with(10, &[(0, 0x41), (8, 99)]), Out(512)),
        ("WRITE SAME(16)", with(16, &[(0, 0x93), (13, 99)]), Out(512)),
        ("WRITE SAME(16), NDOB", with(16, &[(0, 0x93), (1, 1), (13, 99)]), None),
        ("SYNCHRONIZE CACHE(10)", with(10, &[(0, 0x35), (8, 9)]), None),
        ("SYNCHRONIZE CACHE(16)", with(16, &[(0, 0x91), (13, 9)]), None),
        ("PRE-FETCH(16)", with(16, &[(0, 0x90), (13, 9)]), None),
        ("READ(32)", with(32, &[(0, 0x7f), (7, 24), (9, 0x09), (31, 1)]), In(512)),
        ("READ(32), RDPROTECT", with(32, &[(0, 0x7f), (7, 24), (9, 0x09), (10, 0x20), (31, 1)]), {
            InAtLeast(512)
        }),
        ("VERIFY(32), BYTCHK 1", with(32, &[(0, 0x7f), (7, 24), (9, 0x0a), (10, 2), (31, 1)]), {
            Out(512)
        }),
        ("WRITE(32)", with(32, &[(0, 0x7f), (7, 24), (9, 0x0b), (31, 1)]), Out(512)),
        ("WRITE SAME(32)", with(32, &[(0, 0x7f), (7, 24), (9, 0x0d), (31, 7)]), Out(512)),
        ("WRITE SAME(32), NDOB", with(32, &[(0, 0x7f), (7, 24), (9, 0x0d), (10, 1)]), None),
        ("READ LONG(10)", with(10, &[(0, 0x3e), (8, 100)]), In(100)),
        ("WRITE LONG(10)", with(10, &[(0, 0x3f), (8, 100)]), Out(100)),
        ("WRITE LONG(10), WR_UNCOR", with(10, &[(0, 0x3f), (1, 0x40), (8, 100)]), None),
    ];
    for (name, cdb, expect) in rows {
        assert_eq!(transfer(cdb, 512), *expect, "{name}");
    }
    let read = with(10, &[(0, 0x28), (8, 2)]);
    assert_eq!(transfer(&read, 4096), In(8192), "blocks of the LU's size");
}

#[test]
fn data_lengths_of_primary_commands() {
    use Transfer::{In, None, Out, Unknown};
    let rows: &[(&str, Cdb, Transfer)] = &[
        ("TEST UNIT READY", with(6, &[(0, 0x00), (4, 9)]), None),
        ("START STOP UNIT", with(6, &[(0, 0x1b), (4, 1)]), None),
        ("READ CAPACITY(10)", with(10, &[(0, 0x25)]), In(8)),
        ("UNMAP", with(10, &[(0, 0x42), (8, 24)]), Out(24)),
        ("MODE SELECT(6)", with(6, &[(0, 0x15), (4, 24)]), Out(24)),
        ("MODE SELECT(10)", with(10, &[(0, 0x55), (7, 1), (8, 24)]), Out(280)),
        ("LOG SELECT", with(10, &[(0, 0x4c), (8, 4)]), Out(4)),
        ("SEND DIAGNOSTIC", with(6, &[(0, 0x1d), (3, 1)]), Out(256)),
        ("PERSISTENT RESERVE OUT", with(10, &[(0, 0x5f), (8, 24)]), Out(24)),
        ("WRITE BUFFER", with(10, &[(0, 0x3b), (6, 1)]), Out(65536)),
        ("EXTENDED COPY", with(16, &[(0, 0x83), (13, 99)]), Out(99)),
        ("SET TARGET PORT GROUPS", with(12, &[(0, 0xa4), (1, 0x0a), (9, 8)]), Out(8)),
        ("SECURITY PROTOCOL OUT", with(12, &[(0, 0xb5), (9, 8)]), Out(8)),
        ("SECURITY PROTOCOL OUT, INC_512", with(12, &[(0, 0xb5), (4, 0x80), (9, 8)]), Out(4096)),
        ("SECURITY PROTOCOL IN, INC_512", with(12, &[(0, 0xa2), (4, 0x80), (9, 8)]), In(4096)),
        ("FORMAT UNIT", with(6, &[(0, 0x04)]), None),
        ("FORMAT UNIT, FMTDATA", with(6, &[(0, 0x04), (1, 0x10)]), Unknown),
        ("vendor specific", with(16, &[(0, 0xc0), (4, 9)]), Unknown),
        ("XDREAD(32)", with(32, &[(0, 0x7f), (7, 24), (9, 0x03)]), Unknown),
        ("no service action", with(8, &[(0, 0x7f)]), Unknown),
    ];
    for (name, cdb, expect) in rows {
        assert_eq!(transfer(cdb, 512), *expect, "{name}");
    }
}

#[test]
fn allocation_lengths_are_found_and_lowered() {
    let rows: &[(&str, Cdb, u64)] = &[
        ("REQUEST SENSE", with(6, &[(0, 0x03), (4, 9)]), 0xff),
        ("INQUIRY", with(6, &[(0, 0x12), (4, 9)]), 0xffff),
        ("MODE SENSE(6)", with(6, &[(0, 0x1a), (4, 9)]), 0xff),
        ("MODE SENSE(10)", with(10, &[(0, 0x5a), (8, 9)]), 0xffff),
        ("LOG SENSE", with(10, &[(0, 0x4d), (8, 9)]), 0xffff),
        ("READ BUFFER(10)", with(10, &[(0, 0x3c), (8, 9)]), 0xff_ffff),
        ("READ DEFECT DATA(10)", with(10, &[(0, 0x37), (8, 9)]), 0xffff),
        ("PERSISTENT RESERVE IN", with(10, &[(0, 0x5e), (8, 9)]), 0xffff),
        ("RECEIVE DIAGNOSTIC", with(6, &[(0, 0x1c), (4, 9)]), 0xffff),
        ("RECEIVE COPY", with(16, &[(0, 0x84), (13, 9)]), 0xffff_ffff),
        ("READ CAPACITY(16)", with(16, &[(0, 0x9e), (1, 0x10), (13, 9)]), 0xffff_ffff),
        ("GET LBA STATUS", with(16, &[(0, 0x9e), (1, 0x12), (13, 9)]), 0xffff_ffff),
        ("REPORT ZONES", with(16, &[(0, 0x95), (13, 9)]), 0xffff_ffff),
        ("REPORT LUNS", with(12, &[(0, 0xa0), (9, 9)]), 0xffff_ffff),
        ("RSOC", with(12, &[(0, 0xa3), (1, 0x0c), (9, 9)]), 0xffff_ffff),
        ("SECURITY PROTOCOL IN", with(12, &[(0, 0xa2), (9, 9)]), 0xffff_ffff),
        ("READ DEFECT DATA(12)", with(12, &[(0, 0xb7), (9, 9)]), 0xffff_ffff),
    ];
    for (name, cdb, largest) in rows {
        let Transfer::Allocated(field) = transfer(cdb, 512) else { panic!("{name}") };
        assert_eq!(field.get(cdb), 9, "{name}");
        assert_eq!(field.largest(), *largest, "{name}");
        let lowered = field.set(cdb, 5);
        assert_eq!(field.get(&lowered), 5, "{name}");
        assert_eq!(field.set(&lowered, 9), *cdb, "{name}: nothing else has changed");
        assert_eq!(field.get(&field.set(cdb, u64::MAX)), *largest, "{name}");
    }
}

proptest! {
    #[test]
    fn any_cdb_has_a_length_and_fields_stay_within_it(
        raw in prop::collection::vec(any::<u8>(), 1..=32),
        block_size in any::<u32>(),
        value in any::<u64>(),
    ) {
        let cdb = cdb(&raw);
        if let Transfer::Allocated(field) = transfer(&cdb, block_size) {
            let set = field.set(&cdb, value);
            prop_assert_eq!(set.as_slice().len(), raw.len());
            prop_assert_eq!(set.opcode(), cdb.opcode());
        }
    }
}
