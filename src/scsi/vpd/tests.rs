use super::*;
use proptest::prelude::*;

const NAA6: [u8; 16] = [0x60, 0x01, 0x40, 0x5a, 0xbc, 0xde, 0xf0, 1, 2, 3, 4, 5, 6, 7, 8, 0xff];
const NAA5: [u8; 8] = [0x50, 0x01, 0x40, 0x5a, 1, 2, 3, 4];
const NAA3: [u8; 8] = [0x33, 0x33, 0x33, 0x30, 0, 0, 0x07, 0xd0];

fn lu(kind: DesignatorKind, bytes: &[u8]) -> Designator<'_> {
    Designator { association: Association::Lu, kind, bytes }
}

fn wwid_of(list: &[Designator<'_>]) -> Option<String> {
    wwid(Some(&encode_identification(list)), None)
}

#[test]
fn wwid_prefers_designators_in_multipath_order() {
    use DesignatorKind::*;
    let order = [
        (lu(Naa, &NAA6), "36001405abcdef00102030405060708ff"),
        (lu(Naa, &NAA5), "35001405a01020304"),
        (lu(Naa, &[0x20, 0, 0, 0, 0, 0, 0, 0xab]), "320000000000000ab"),
        (lu(Eui64, &[0, 0x25, 0x38, 1, 2, 3, 4, 5]), "20025380102030405"),
        (lu(ScsiName, b"iqn.2003-01.org.Example:lun0\0\0\0\0"), "82003-01.org.Example:lun0"),
        (lu(T10Vendor, b"ACME    disk  of  7 "), "1ACME_disk_of_7"),
        (lu(Naa, &NAA3), "333333330000007d0"),
    ];
    // Each wins over everything after it, whatever the order on the wire.
    for i in 0..order.len() {
        let mut list: Vec<_> = order[i..].iter().map(|(d, _)| *d).collect();
        assert_eq!(wwid_of(&list).as_deref(), Some(order[i].1));
        list.reverse();
        assert_eq!(wwid_of(&list).as_deref(), Some(order[i].1));
    }
}

#[test]
fn scsi_names_of_eui_and_naa_read_like_the_binary_designators() {
    let naa = lu(DesignatorKind::ScsiName, b"naa.6001405ABCDEF001\0\0\0\0");
    assert_eq!(wwid_of(&[naa]).as_deref(), Some("36001405abcdef001"));
    let eui = lu(DesignatorKind::ScsiName, b"eui.0025380102030405");
    assert_eq!(wwid_of(&[eui]).as_deref(), Some("20025380102030405"));
}

#[test]
fn names_of_ports_and_malformed_names_make_no_wwid() {
    let port =
        Designator { association: Association::TargetPort, ..lu(DesignatorKind::Naa, &NAA6) };
    let device =
        Designator { association: Association::TargetDevice, ..lu(DesignatorKind::Naa, &NAA6) };
    assert_eq!(wwid_of(&[port, device]), None);
    assert_eq!(wwid_of(&[lu(DesignatorKind::Naa, &NAA6[..15])]), None);
    assert_eq!(wwid_of(&[lu(DesignatorKind::Naa, &[0x90; 8])]), None);
    assert_eq!(wwid_of(&[lu(DesignatorKind::T10Vendor, b"ACME")]), None);
    assert_eq!(wwid_of(&[lu(DesignatorKind::ScsiName, b"wwn.1")]), None);
    assert_eq!(wwid_of(&[]), None);
}

#[test]
fn names_that_differ_in_unprintable_bytes_stay_different() {
    let a = wwid_of(&[lu(DesignatorKind::T10Vendor, b"ACME    \x01")]).unwrap();
    let b = wwid_of(&[lu(DesignatorKind::T10Vendor, b"ACME    \x02")]).unwrap();
    assert_eq!((a.as_str(), b.as_str()), ("1ACME_\\x01", "1ACME_\\x02"));
    let long = |tail: u8| {
        let mut name = [b'a'; 200];
        name[199] = tail;
        wwid_of(&[lu(DesignatorKind::T10Vendor, &name)])
    };
    assert_ne!(long(b'1'), long(b'2'));
}

#[test]
fn a_descriptor_beyond_the_page_hides_nothing_before_it() {
    let mut page =
        encode_identification(&[lu(DesignatorKind::Naa, &NAA5), lu(DesignatorKind::Naa, &NAA6)]);
    page.truncate(page.len() - 1); // the allocation length cut the second one
    assert_eq!(wwid(Some(&page), None).as_deref(), Some("35001405a01020304"));
}

#[test]
fn serial_makes_a_wwid_only_together_with_vendor_and_product() {
    let inquiry = Inquiry { vendor: "ACME".into(), product: "RAID 5".into(), ..Inquiry::default() };
    let page80 = encode_serial("  00 42 ");
    let empty83 = encode_identification(&[]);
    assert_eq!(
        wwid(Some(&empty83), Some((&inquiry, &page80))).as_deref(),
        Some("SACME_RAID_5_00_42")
    );
    assert_eq!(wwid(None, Some((&inquiry, &encode_serial("   ")))), None);
    assert_eq!(wwid(None, None), None);
}

#[test]
fn another_page_than_asked_for_is_no_page() {
    // Targets that ignore EVPD answer standard INQUIRY data.
    let standard = Inquiry::default().encode();
    assert_eq!(serial(&standard), None);
    assert!(designators(&standard).is_none());
    assert_eq!(BlockLimits::parse(&standard), None);
    assert_eq!(supported(&encode_supported(&[0, 0x80, 0x83])), Some(&[0, 0x80, 0x83][..]));
}

#[test]
fn block_limits_sit_where_the_standard_puts_them() {
    let limits = BlockLimits {
        write_same_non_zero: true,
        max_transfer: 0x0102_0304,
        max_unmap_descriptors: 7,
        unmap_granularity: 16,
        unmap_alignment: Some(3),
        max_write_same: 9,
        ..BlockLimits::default()
    };
    let page = limits.encode();
    assert_eq!(page.len(), 64);
    assert_eq!(&page[..5], &[0, 0xb0, 0, 0x3c, 1]);
    assert_eq!(&page[8..12], &[1, 2, 3, 4]);
    assert_eq!(page[27], 7);
    assert_eq!(page[31], 16);
    assert_eq!(&page[32..36], &[0x80, 0, 0, 3]);
    assert_eq!(page[43], 9);
}

#[test]
fn sbc2_block_limits_have_no_unmap() {
    let mut page =
        BlockLimits { max_transfer: 8, max_unmap: 99, ..BlockLimits::default() }.encode();
    page[3] = 0x0c;
    let parsed = BlockLimits::parse(&page).unwrap();
    assert_eq!((parsed.max_transfer, parsed.max_unmap), (8, 0));
}

#[test]
fn port_designators_give_their_numbers() {
    let group = lu(DesignatorKind::TargetPortGroup, &[0, 0, 1, 2]);
    assert_eq!(group.target_port_group(), Some(0x102));
    assert_eq!(group.relative_target_port(), None);
    let short = lu(DesignatorKind::RelativeTargetPort, &[0, 0, 1]);
    assert_eq!(short.relative_target_port(), None);
}

proptest! {
    #[test]
    fn block_limits_survive_the_wire(
        wsnz: bool, caw: u8, granularity: u16, max: u32, opt: u32, unmap: u32, descriptors: u32,
        unmap_granularity: u32, alignment in prop::option::of(0u32..1 << 31), same: u64,
    ) {
        let limits = BlockLimits {
            write_same_non_zero: wsnz, max_compare_and_write: caw,
            optimal_granularity: granularity, max_transfer: max, optimal_transfer: opt,
            max_unmap: unmap, max_unmap_descriptors: descriptors,
            unmap_granularity, unmap_alignment: alignment, max_write_same: same,
        };
        prop_assert_eq!(BlockLimits::parse(&limits.encode()), Some(limits));
    }

    #[test]
    fn provisioning_survives_the_wire(
        threshold_exponent: u8, unmap: bool, write_same_16: bool, write_same_10: bool,
        reads_zero in 0u8..8, anchor: bool, kind in 0u8..8,
    ) {
        let page = Provisioning {
            threshold_exponent, unmap, write_same_16, write_same_10, reads_zero, anchor, kind,
        };
        prop_assert_eq!(Provisioning::parse(&page.encode()), Some(page));
    }

    #[test]
    fn hostile_pages_never_panic_and_print_safely(
        code in prop::sample::select(vec![0u8, 0x80, 0x83, 0xb0, 0xb1, 0xb2]),
        len: u8, kinds in prop::collection::vec(any::<u8>(), 0..8),
        mut raw in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        if raw.len() >= 4 {
            raw[1] = code;
            raw[2] = 0;
            raw[3] = len;
        }
        // Give descriptors a chance to be of known types and to fit.
        for (i, kind) in kinds.iter().enumerate() {
            if let Some(descriptor) = raw.get_mut(4 + i * 24..8 + i * 24) {
                descriptor[1] = kind & 0x3f;
                descriptor[3] = 20;
            }
        }
        if let Some(wwid) = wwid(Some(&raw), Some((&Inquiry::default(), &raw))) {
            prop_assert!(wwid.bytes().all(|b| (0x20..0x7f).contains(&b)));
        }
        let _ = (supported(&raw), BlockLimits::parse(&raw));
        let _ = (BlockCharacteristics::parse(&raw), Provisioning::parse(&raw));
    }
}
