use super::*;
use crate::scsi::command::CommandPolicy;
use proptest::prelude::*;

/// A command descriptor; with timeouts where `ctdp`.
fn descriptor(opcode: u8, action: Option<u16>, ctdp: bool) -> Vec<u8> {
    let [high, low] = action.unwrap_or(0).to_be_bytes();
    let flags = u8::from(action.is_some()) | u8::from(ctdp) << 1;
    let mut raw = vec![opcode, 0, high, low, 0, flags, 0, 10];
    if ctdp {
        raw.extend_from_slice(&[0, 10, 0, 0, 0, 0, 0, opcode, 0, 0, 0, 30]);
    }
    raw
}

fn list(descriptors: &[Vec<u8>]) -> Vec<u8> {
    let body = descriptors.concat();
    let len = u32::try_from(body.len()).unwrap();
    [&len.to_be_bytes()[..], &body].concat()
}

/// One-command data: usage map, with timeouts where `ctdp`.
fn one(support: u8, usage: &[u8], ctdp: bool) -> Vec<u8> {
    let size = u8::try_from(usage.len()).unwrap();
    let mut raw = vec![0, u8::from(ctdp) << 7 | support, 0, size];
    raw.extend_from_slice(usage);
    if ctdp {
        raw.extend_from_slice(&[0, 10, 0, 0, 0, 0, 0, 5, 0, 0, 0, 30]);
    }
    raw
}

fn by_default(opcode: u8, action: Option<u16>) -> bool {
    CommandPolicy::default().offers(opcode, action, true)
}

#[test]
fn denied_commands_are_taken_out_of_the_list_with_their_timeouts() {
    for ctdp in [false, true] {
        let read = descriptor(0x28, None, ctdp);
        let capacity = descriptor(0x9e, Some(0x10), ctdp);
        let data = list(&[
            descriptor(0x04, None, ctdp),
            read.clone(),
            descriptor(0x16, None, ctdp),
            capacity.clone(),
            descriptor(0xa4, Some(0x0a), ctdp),
            descriptor(0xc1, None, ctdp),
        ]);
        let kept = filter(&data, 0, by_default);
        assert_eq!(kept, list(&[read, capacity]), "ctdp {ctdp}");
        assert_eq!(parse_list(&kept).collect::<Vec<_>>(), [(0x28, None), (0x9e, Some(0x10))]);
        assert_eq!(filter(&data, 0, |_, _| true), data, "nothing denied: byte for byte");
    }
}

#[test]
fn a_descriptor_cut_short_is_left_out_and_the_length_true() {
    let read = descriptor(0x28, None, true);
    let data = list(&[read.clone(), descriptor(0x2a, None, true)]);
    for cut in 1..=20 {
        let kept = filter(&data[..data.len() - cut], 0, |_, _| true);
        assert_eq!(kept, list(std::slice::from_ref(&read)), "{cut} bytes missing");
    }
    assert_eq!(filter(&[], 0, |_, _| true), [0; 4]);
}

#[test]
fn one_denied_command_is_not_supported() {
    let write_buffer = [0x3b, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
    let read = [0x28, 0xfa, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0];
    for ctdp in [false, true] {
        for support in [3, 5] {
            let denied = one(support, &write_buffer, ctdp);
            assert_eq!(filter(&denied, 1, by_default), [0, 1, 0, 0]);
            let allowed = one(support, &read, ctdp);
            assert_eq!(filter(&allowed, 1, by_default), allowed, "byte for byte");
        }
    }
    let unknown = one(1, &[], false);
    assert_eq!(filter(&unknown, 3, |_, _| false), unknown, "what the LU lacks it lacks");
}

#[test]
fn service_actions_of_one_command_are_read_off_its_usage_map() {
    // The high bits of byte 1 are PARAMETER DATA FORMAT, part of the map.
    let rtpg = one(3, &[0xa3, 0xea, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], false);
    let asked = |opcode, action| (opcode, action) == (0xa3, Some(0x0a));
    assert_eq!(filter(&rtpg, 2, asked), rtpg);
    assert_eq!(filter(&rtpg, 3, |o, a| !asked(o, a)), not_supported());
}

#[test]
fn a_usage_map_that_is_cut_supports_nothing() {
    let data = one(3, &[0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0], false);
    for len in 4..data.len() {
        assert_eq!(filter(&data[..len], 1, |_, _| true), not_supported());
    }
    for len in 0..4 {
        assert_eq!(filter(&data[..len], 1, |_, _| true), not_supported());
    }
    assert!(filter(&data, 4, |_, _| true).is_empty(), "reporting options that do not exist");
}

#[test]
fn the_cdb_says_which_command_is_asked_about() {
    let decode = |raw: &[u8]| Request::decode(&Cdb::from_bytes(raw).unwrap());
    let request = decode(&[0xa3, 0x0c, 0x83, 0x9e, 0, 0x10, 0, 0, 1, 0, 0, 0]).unwrap();
    assert!(request.timeouts);
    assert_eq!(request.allocation, 256);
    assert_eq!(request.command(), Some((0x9e, Some(0x10))));
    let with = |reporting_options, opcode| Request { reporting_options, opcode, ..request };
    assert_eq!(with(0, 0x9e).command(), None);
    assert_eq!(with(1, 0x28).command(), Some((0x28, None)));
    assert_eq!(with(2, 0x9e).command(), Some((0x9e, Some(0x10))));
    assert_eq!(with(3, 0x28).command(), Some((0x28, None)), "has no service action");
    assert_eq!(decode(&[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]), None);
    assert_eq!(decode(&[0xa3, 0x0c, 0, 0, 0, 0]), None);
}

proptest! {
    #[test]
    fn edits_of_hostile_data_end_neither_panic_nor_grow(
        mut raw in prop::collection::vec(any::<u8>(), 0..160), options in 0u8..8, mask: u8,
        length in prop::option::of(0u8..160),
    ) {
        if let (Some(length), true) = (length, raw.len() >= 4) {
            // Plausible headers of both formats.
            raw[0] = 0;
            raw[1] &= if options == 0 { 0 } else { 0x87 };
            raw[2] = 0;
            raw[3] = length;
        }
        let keep = |opcode: u8, _: Option<u16>| opcode & mask == 0;
        let once = filter(&raw, options, keep);
        prop_assert!(once.len() <= raw.len().max(HEADER_LEN));
        prop_assert_eq!(&filter(&once, options, keep), &once, "an edit done twice is the edit");
        if options == 0 {
            prop_assert!(parse_list(&once).all(|(opcode, action)| keep(opcode, action)));
        }
    }
}
