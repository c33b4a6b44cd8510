use super::*;
use crate::scsi::vpd::{Designator, DesignatorKind, designators, encode_supported, supported};
use proptest::prelude::*;

/// A descriptor with every bit a real one may have: PROTOCOL IDENTIFIER, PIV.
fn descriptor(association: u8, kind: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u8::try_from(bytes.len()).unwrap();
    [&[0x51, 0x80 | association << 4 | kind, 0, len][..], bytes].concat()
}

fn identification(descriptors: &[Vec<u8>]) -> Vec<u8> {
    let body = descriptors.concat();
    let [high, low] = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[0x00, 0x83, high, low][..], &body].concat()
}

#[test]
fn designators_of_the_lu_stay_byte_for_byte_and_the_others_go() {
    let naa = descriptor(0, 3, &[0x60; 16]);
    let t10 = descriptor(0, 1, b"ACME    disk");
    let vendor = descriptor(0, 0, &[1, 2, 3]);
    let lu_group = descriptor(0, 6, &[0, 0, 0, 9]);
    let kept = [naa.clone(), t10.clone(), vendor.clone(), lu_group.clone()];
    let page = identification(&[
        naa,
        descriptor(1, 3, &[0x50; 8]),
        descriptor(1, 4, &[0, 0, 0, 1]),
        t10,
        descriptor(1, 5, &[0, 0, 0, 2]),
        descriptor(2, 8, b"iqn.2003-01.org.example:t1\0\0"),
        vendor,
        descriptor(0, 4, &[0, 0, 0, 1]),
        descriptor(0, 5, &[0, 0, 0, 1]),
        descriptor(1, 9, &[0; 4]),
        descriptor(3, 3, &[0x50; 8]),
        lu_group,
    ]);
    assert_eq!(keep_lu_designators(&page), identification(&kept));
}

#[test]
fn two_paths_of_a_lu_show_one_page() {
    let seen_by = |port: u8| {
        identification(&[
            descriptor(1, 4, &[0, 0, 0, port]),
            descriptor(0, 3, &[0x60; 16]),
            descriptor(1, 3, &[port; 8]),
            descriptor(2, 8, &[b't', port]),
        ])
    };
    assert_ne!(seen_by(1), seen_by(2));
    assert_eq!(keep_lu_designators(&seen_by(1)), keep_lu_designators(&seen_by(2)));
    assert_eq!(
        crate::scsi::vpd::wwid(Some(&seen_by(1)), None),
        crate::scsi::vpd::wwid(Some(&keep_lu_designators(&seen_by(1))), None),
    );
}

#[test]
fn a_broken_designator_ends_the_page_instead_of_leaking() {
    let naa = descriptor(0, 3, &[0x60; 16]);
    let good = identification(std::slice::from_ref(&naa));
    let page = identification(&[naa, descriptor(1, 3, &[0x50; 8])]);
    for cut in 1..=12 {
        assert_eq!(keep_lu_designators(&page[..page.len() - cut]), good, "{cut} bytes missing");
    }
    let mut long = page;
    let length = good.len() + 3;
    long[length] = 200; // the port's designator claims more than there is
    assert_eq!(keep_lu_designators(&long), good);
    assert_eq!(keep_lu_designators(&[]), [0, 0x83, 0, 0]);
    assert_eq!(keep_lu_designators(&encode_supported(&[0, 0x83])), [0, 0x83, 0, 0]);
}

#[test]
fn block_limits_are_listed_in_order_and_pages_of_ports_are_not() {
    let edit = |codes: &[u8]| {
        supported(&supported_with_block_limits(&encode_supported(codes))).unwrap().to_vec()
    };
    assert_eq!(edit(&[0, 0x80, 0x83]), [0, 0x80, 0x83, 0xb0]);
    assert_eq!(edit(&[0, 0x80, 0x83, 0xb0, 0xb2]), [0, 0x80, 0x83, 0xb0, 0xb2]);
    assert_eq!(edit(&[0, 0x83, 0xb1, 0xc0]), [0, 0x83, 0xb0, 0xb1, 0xc0]);
    assert_eq!(edit(&[0, 0x83, 0x86, 0x88, 0x8f, 0x90, 0x91, 0xb0]), [0, 0x83, 0x86, 0xb0]);
    assert_eq!(supported_with_block_limits(&[]), [0, 0, 0, 2, 0, 0xb0]);
    assert_eq!(supported_with_block_limits(&[0x20, 0, 0, 9, 0]), [0x20, 0, 0, 2, 0, 0xb0]);
}

#[test]
fn a_lun_without_lu_has_one_page() {
    assert_eq!(supported(&supported_of_absent()), Some(&[0][..]));
    assert_eq!(supported_of_absent()[0], crate::scsi::inquiry::absent()[0]);
}

const LU: BlockLimits = BlockLimits {
    write_same_non_zero: true,
    max_compare_and_write: 255,
    optimal_granularity: 8,
    max_transfer: 0x2000,
    optimal_transfer: 0x1000,
    max_unmap: 0xffff_ffff,
    max_unmap_descriptors: 64,
    unmap_granularity: 16,
    unmap_alignment: Some(3),
    max_write_same: 0x1_0000_0000,
};

fn limited(lu: BlockLimits, ceiling: &Ceiling) -> BlockLimits {
    let mut page = lu.encode();
    let before = page.len();
    limit_block_limits(&mut page, ceiling);
    assert_eq!(page.len(), before);
    BlockLimits::parse(&page).unwrap()
}

#[test]
fn limits_are_the_lower_of_the_lus_and_ours() {
    assert_eq!(limited(LU, &Ceiling::default()), LU, "no ceiling: nothing changes");
    let ceiling = Ceiling {
        max_transfer: 0x400,
        max_unmap: Some(0x8000),
        max_unmap_descriptors: Some(256),
        max_write_same: 0x1000,
    };
    let expected = BlockLimits {
        max_transfer: 0x400,
        optimal_transfer: 0x400,
        max_unmap: 0x8000,
        max_write_same: 0x1000,
        ..LU
    };
    assert_eq!(limited(LU, &ceiling), expected);
    let above = Ceiling { max_transfer: 0x4000, ..Ceiling::default() };
    assert_eq!(limited(LU, &above), LU, "a ceiling above the LU's limits");
}

#[test]
fn zero_is_no_limit_where_it_says_so_and_no_command_where_it_says_that() {
    let unlimited = BlockLimits { max_transfer: 0, max_write_same: 0, optimal_transfer: 0, ..LU };
    let ceiling = Ceiling { max_transfer: 0x400, max_write_same: 0x1000, ..Ceiling::default() };
    let edited = limited(unlimited, &ceiling);
    assert_eq!((edited.max_transfer, edited.max_write_same), (0x400, 0x1000));
    assert_eq!(edited.optimal_transfer, 0, "unknown stays unknown");
    let no_unmap = BlockLimits { max_unmap: 0, max_unmap_descriptors: 0, ..LU };
    let ceiling = Ceiling { max_unmap: Some(99), max_unmap_descriptors: Some(9), ..ceiling };
    assert_eq!(limited(no_unmap, &ceiling).max_unmap, 0);
    let none = Ceiling { max_unmap: Some(0), max_unmap_descriptors: Some(0), ..ceiling };
    let edited = limited(LU, &none);
    assert_eq!((edited.max_unmap, edited.max_unmap_descriptors), (0, 0));
}

#[test]
fn small_transfers_bound_what_depends_on_them() {
    let edited = limited(LU, &Ceiling { max_transfer: 7, ..Ceiling::default() });
    assert_eq!(edited.max_compare_and_write, 3, "each block is sent twice");
    assert_eq!(edited.optimal_granularity, 0, "8 is out of reach");
    let mut page = LU.encode();
    page[44..48].copy_from_slice(&0x100u32.to_be_bytes());
    page[56..60].copy_from_slice(&0x100u32.to_be_bytes());
    limit_block_limits(&mut page, &Ceiling { max_transfer: 0x80, ..Ceiling::default() });
    assert_eq!(page[44..48], [0, 0, 0, 0x80], "MAXIMUM ATOMIC TRANSFER LENGTH");
    assert_eq!(page[56..60], [0, 0, 0, 0x80], "the same with atomic boundary");
}

#[test]
fn old_pages_keep_their_length_and_missing_ones_are_made() {
    let ceiling = Ceiling { max_transfer: 8, max_unmap: Some(5), ..Ceiling::default() };
    let mut sbc2 = LU.encode();
    sbc2.truncate(16);
    sbc2[3] = 12;
    limit_block_limits(&mut sbc2, &ceiling);
    assert_eq!(sbc2.len(), 16);
    assert_eq!(BlockLimits::parse(&sbc2).unwrap().max_transfer, 8);
    for broken in [vec![], vec![0, 0xb0, 0], vec![0, 0xb0, 0, 60, 0, 0], encode_supported(&[0])] {
        let mut page = broken;
        limit_block_limits(&mut page, &ceiling);
        assert_eq!(page, own_block_limits(&ceiling));
    }
    let own = BlockLimits::parse(&own_block_limits(&ceiling)).unwrap();
    assert_eq!((own.max_transfer, own.max_unmap, own.max_unmap_descriptors), (8, 5, 0));
}

/// As LIO tells it.
#[test]
fn a_page_with_discard_limits_is_made_as_long_as_linux_wants_it() {
    let ceiling = Ceiling { max_transfer: 0x800, ..Ceiling::default() };
    let mut page = LU.encode();
    page.truncate(4 + 0x28);
    page[3] = 0x28;
    let cut = BlockLimits::parse(&page).unwrap();
    limit_block_limits(&mut page, &ceiling);
    assert_eq!((page.len(), page[3]), (64, 0x3c));
    assert_eq!(page[44..], [0; 20], "what it did not say");
    let told = BlockLimits::parse(&page).unwrap();
    assert_eq!((told.max_unmap, told.max_write_same), (cut.max_unmap, cut.max_write_same));
    // The beginning of a longer one stays that.
    let mut piece = LU.encode();
    piece.truncate(50);
    limit_block_limits(&mut piece, &ceiling);
    assert_eq!((piece.len(), piece[3]), (50, 0x3c));
}

fn ceiling() -> impl Strategy<Value = Ceiling> {
    let bound = || prop::option::of(any::<u32>());
    (any::<u32>(), bound(), bound(), any::<u64>()).prop_map(
        |(max_transfer, max_unmap, max_unmap_descriptors, max_write_same)| Ceiling {
            max_transfer,
            max_unmap,
            max_unmap_descriptors,
            max_write_same,
        },
    )
}

/// Bytes that are often a page of the code asked for.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let code = prop::sample::select(vec![0u8, 0x83, 0xb0, 0xb1]);
    let kinds = prop::collection::vec(any::<u8>(), 0..8);
    (code, any::<u8>(), kinds, prop::collection::vec(any::<u8>(), 0..300)).prop_map(
        |(code, len, kinds, mut raw)| {
            if raw.len() >= 4 {
                raw[1..4].copy_from_slice(&[code, 0, len]);
            }
            // Give descriptors a chance to fit.
            for (i, kind) in kinds.iter().enumerate() {
                if let Some(descriptor) = raw.get_mut(4 + i * 12..8 + i * 12) {
                    descriptor[1] = *kind;
                    descriptor[3] = 8;
                }
            }
            raw
        },
    )
}

proptest! {
    #[test]
    fn edits_of_hostile_pages_neither_panic_nor_grow(raw in hostile(), ceiling in ceiling()) {
        let kept = keep_lu_designators(&raw);
        prop_assert!(kept.len() <= raw.len().max(4));
        prop_assert_eq!(&keep_lu_designators(&kept), &kept, "an edit done twice is the edit");
        for designator in designators(&kept).unwrap() {
            let Designator { association, kind, .. } = designator;
            prop_assert_eq!(association, crate::scsi::vpd::Association::Lu);
            let ports = [DesignatorKind::RelativeTargetPort, DesignatorKind::TargetPortGroup];
            prop_assert!(!ports.contains(&kind));
        }

        let listed = supported_with_block_limits(&raw);
        prop_assert!(listed.len() <= raw.len().max(5) + 1);
        prop_assert_eq!(&supported_with_block_limits(&listed), &listed);
        let codes = supported(&listed).unwrap();
        prop_assert!(codes.contains(&0xb0) && !codes.iter().any(|code| withheld(*code)));

        let mut limits = raw.clone();
        limit_block_limits(&mut limits, &ceiling);
        prop_assert!(limits.len() <= raw.len().max(64));
        let once = limits.clone();
        limit_block_limits(&mut limits, &ceiling);
        prop_assert_eq!(&limits, &once);
        let parsed = BlockLimits::parse(&once).unwrap();
        if ceiling.max_transfer != 0 {
            prop_assert!((1..=ceiling.max_transfer).contains(&parsed.max_transfer));
            prop_assert!(parsed.optimal_transfer <= ceiling.max_transfer);
        }
        prop_assert!(ceiling.max_unmap.is_none_or(|most| parsed.max_unmap <= most));
    }
}
