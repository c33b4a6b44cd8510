use super::*;

/// Offsets as printed in virtio 1.3, 5.2.4, independent of the bindings.
#[test]
fn config_fields_sit_where_the_specification_puts_them() {
    let config = BlkConfig {
        capacity: 0x0102_0304_0506_0708,
        seg_max: 0x1112_1314,
        blk_size: 0x2122_2324,
        physical_block_exp: 0x31,
        alignment_offset: 0x32,
        min_io_size: 0x4142,
        opt_io_size: 0x5152_5354,
        writeback: 0x61,
        num_queues: 0x7172,
        max_discard_sectors: 0x8182_8384,
        max_discard_seg: 0x9192_9394,
        discard_sector_alignment: 0xa1a2_a3a4,
        max_write_zeroes_sectors: 0xb1b2_b3b4,
        max_write_zeroes_seg: 0xc1c2_c3c4,
        write_zeroes_may_unmap: 0xd1,
    };
    let raw = config.encode();
    let fields: &[(usize, &[u8])] = &[
        (0, &[0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01]),
        (8, &[0; 4]), // size_max
        (12, &[0x14, 0x13, 0x12, 0x11]),
        (16, &[0; 4]), // geometry
        (20, &[0x24, 0x23, 0x22, 0x21]),
        (24, &[0x31]),
        (25, &[0x32]),
        (26, &[0x42, 0x41]),
        (28, &[0x54, 0x53, 0x52, 0x51]),
        (32, &[0x61]),
        (33, &[0]),
        (34, &[0x72, 0x71]),
        (36, &[0x84, 0x83, 0x82, 0x81]),
        (40, &[0x94, 0x93, 0x92, 0x91]),
        (44, &[0xa4, 0xa3, 0xa2, 0xa1]),
        (48, &[0xb4, 0xb3, 0xb2, 0xb1]),
        (52, &[0xc4, 0xc3, 0xc2, 0xc1]),
        (56, &[0xd1]),
        (57, &[0; 3]),
    ];
    let mut covered = 0;
    for (offset, bytes) in fields {
        assert_eq!(&raw[*offset..offset + bytes.len()], *bytes, "field at {offset}");
        covered += bytes.len();
    }
    assert_eq!(covered, CONFIG_LEN, "the table must cover every byte");
}

#[test]
fn header_and_segment_decode_what_a_driver_encodes() {
    let raw = [4, 3, 2, 1, 9, 9, 9, 9, 8, 7, 6, 5, 4, 3, 2, 1];
    let header = RequestHeader::decode(&raw);
    assert_eq!(header, RequestHeader { kind: 0x0102_0304, sector: 0x0102_0304_0506_0708 });
    assert_eq!(RequestHeader::decode(&header.encode()), header);

    let raw = [8, 7, 6, 5, 4, 3, 2, 1, 4, 3, 2, 1, 1, 0, 0, 0x80];
    let segment = RangeSegment::decode(&raw);
    assert_eq!(
        segment,
        RangeSegment {
            sector: 0x0102_0304_0506_0708,
            num_sectors: 0x0102_0304,
            flags: 0x8000_0001
        }
    );
    assert_eq!(segment.encode(), raw);
}

/// virtio 1.3, 5.2.6 lists the numbers; legacy, zoned and erase types are not ours.
#[test]
fn only_the_six_types_are_known() {
    let known = [
        (0, RequestType::In),
        (1, RequestType::Out),
        (4, RequestType::Flush),
        (8, RequestType::GetId),
        (11, RequestType::Discard),
        (13, RequestType::WriteZeroes),
    ];
    for wire in 0..64 {
        let expected = known.iter().find(|(n, _)| *n == wire).map(|(_, t)| *t);
        assert_eq!(RequestType::from_wire(wire), expected, "type {wire}");
        if let Some(kind) = expected {
            assert_eq!(kind.to_wire(), wire);
        }
    }
    assert_eq!(RequestType::from_wire(0x8000_0000), None);
}

#[test]
fn feature_table_has_the_bit_numbers_of_the_specification() {
    let expected = [
        ("SEG_MAX", 2),
        ("RO", 5),
        ("BLK_SIZE", 6),
        ("FLUSH", 9),
        ("TOPOLOGY", 10),
        ("CONFIG_WCE", 11),
        ("MQ", 12),
        ("DISCARD", 13),
        ("WRITE_ZEROES", 14),
        ("INDIRECT_DESC", 28),
        ("EVENT_IDX", 29),
        ("PROTOCOL_FEATURES", 30),
        ("VERSION_1", 32),
    ];
    let all: Vec<_> = FEATURES.iter().chain(crate::virtio::FEATURES).collect();
    assert_eq!(all.len(), expected.len());
    for (feature, (name, bit)) in all.iter().zip(expected) {
        assert_eq!((feature.name, feature.mask), (name, 1u64 << bit));
    }
}
