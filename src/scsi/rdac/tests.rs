use super::*;
use proptest::prelude::*;

fn state(state: AccessState, reason: u8) -> ControllerState {
    ControllerState { state, reason }
}

#[test]
fn the_volume_access_page_is_where_the_drivers_look_for_it() {
    let page = VolumeAccess {
        connected: true,
        owned: true,
        ioship: false,
        avt: false,
        controllers: Some((
            state(AccessState::ActiveOptimized, 0),
            state(AccessState::Unavailable, 3),
        )),
        preference: Preference::Secondary,
    }
    .encode();
    assert_eq!(page.len(), 48);
    assert_eq!(page[..8], [0, 0xc9, 0, 0x2c, b'v', b'a', b'c', b'e']);
    assert_eq!(page[8..14], [0x11, 0x02, 0x00, 0x00, 0x03, 0x03]);
    let ioship = VolumeAccess { connected: true, ioship: true, ..VolumeAccess::default() };
    assert_eq!(ioship.encode()[8..14], [0x20, 0, 0, 0, 0, 0]);
    let absent = VolumeAccess { avt: true, ..VolumeAccess::default() }.encode();
    assert_eq!((absent[0], absent[8]), (0x20, 0x80));
}

#[test]
fn another_page_is_no_volume_access_page() {
    let good = VolumeAccess::default().encode();
    assert!(VolumeAccess::parse(&good).is_some());
    assert_eq!(VolumeAccess::parse(&good[..9]), None, "cut in the flags");
    for (at, byte) in [(1, 0xc8), (4, b'V'), (6, b'e')] {
        let mut other = good.clone();
        other[at] = byte;
        assert_eq!(VolumeAccess::parse(&other), None, "byte {at}");
    }
}

#[test]
fn the_numbers_that_a_take_over_needs_survive_the_wire() {
    let page = encode_device_identification(7, [0xaa; 16]);
    assert_eq!((page.len(), page[1], page[3], page[11], page[174]), (175, 0xc8, 171, 16, 7));
    assert_eq!(lun(&page), Some(7));
    assert_eq!(lun(&page[..174]), None);
    let page = encode_software_version(31);
    assert_eq!((page.len(), page[1], page[15]), (255, 0xc2, 31));
    assert_eq!(max_lun(&page), Some(31));
    assert_eq!(max_lun(&encode_device_identification(7, [0; 16])), None);
    assert!(page.len() - 3 <= usize::from(ALLOCATION), "what is needed lies within a byte's reach");
}

#[test]
fn the_mode_page_is_the_drivers_in_both_forms() {
    let take = TakeOwnership { luns: vec![5], quiescence: 20, forced: true };
    let six = take.encode_6().unwrap();
    assert_eq!((six.len(), &six[..6]), (110, &[0, 0, 0, 0, 0x2c, 0x68][..]));
    assert_eq!((six[39], six[42], six[43], six[44 + 5]), (2, 20, 2, 0x81));
    let ten = take.encode_10();
    assert_eq!((ten.len(), &ten[8..12]), (308, &[0x6c, 1, 1, 0x28][..]));
    assert_eq!((ten[45], ten[48], ten[49], ten[50 + 5]), (2, 20, 2, 0x81));
    assert_eq!(six.iter().filter(|b| **b == 0x81).count(), 1);
    let far = TakeOwnership { luns: vec![32], ..take };
    assert_eq!(far.encode_6(), None, "no place in the short table");
    assert_eq!(TakeOwnership::parse(&far.encode_10(), true), Some(far));
}

#[test]
fn what_is_no_transfer_is_not_taken_for_one() {
    let take = TakeOwnership { luns: vec![0], quiescence: 0, forced: false };
    let ten = take.encode_10();
    assert_eq!(TakeOwnership::parse(&ten[..307], true), None, "cut");
    assert_eq!(TakeOwnership::parse(&ten, false), None, "the other header");
    let mut other = ten.clone();
    other[45] = 1; // another RDAC mode
    assert_eq!(TakeOwnership::parse(&other, true), None);
}

fn any_state() -> impl Strategy<Value = ControllerState> {
    (0u8..16, any::<u8>()).prop_map(|(bits, reason)| state(AccessState::from_bits(bits), reason))
}

proptest! {
    #[test]
    fn volume_access_survives_the_wire(
        flags in any::<[bool; 4]>(), controllers in prop::option::of((any_state(), any_state())),
        preference in 0usize..3,
    ) {
        let [connected, owned, ioship, avt] = flags;
        let preference =
            [Preference::Unstated, Preference::Preferred, Preference::Secondary][preference];
        let access = VolumeAccess { connected, owned, ioship, avt, controllers, preference };
        prop_assert_eq!(VolumeAccess::parse(&access.encode()), Some(access));
    }

    #[test]
    fn a_take_over_survives_the_wire(
        luns in prop::collection::btree_set(any::<u8>(), 0..9), quiescence: u8, forced: bool,
    ) {
        let luns: Vec<u8> = luns.into_iter().collect();
        let take = TakeOwnership { luns, quiescence, forced };
        prop_assert_eq!(TakeOwnership::parse(&take.encode_10(), true), Some(take.clone()));
        match take.encode_6() {
            Some(six) => prop_assert_eq!(TakeOwnership::parse(&six, false), Some(take)),
            None => prop_assert!(take.luns.iter().any(|lun| *lun >= LUNS_6)),
        }
    }

    #[test]
    fn hostile_data_never_panics(raw in prop::collection::vec(any::<u8>(), 0..320), at in 0usize..8) {
        let mut raw = raw;
        for start in [&[0, 0xc9, 0, 44, b'v', b'a', b'c'][..], &[0, 0xc8, 0, 171], &[0; 8]] {
            let len = start.len().min(raw.len()).min(at);
            raw[..len].copy_from_slice(&start[..len]);
            let _ = (VolumeAccess::parse(&raw), lun(&raw), max_lun(&raw));
            let _ = (TakeOwnership::parse(&raw, false), TakeOwnership::parse(&raw, true));
        }
    }
}
