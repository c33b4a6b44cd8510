use super::*;
use proptest::prelude::*;

#[test]
fn a_map_is_one_optimized_group_that_can_be_nothing_else() {
    let data = report_one_group(false, 0x0102, 0x0304);
    assert_eq!(
        data,
        [0, 0, 0, 12, 0x00, 0x01, 1, 2, 0, 0, 0, 1, 0, 0, 3, 4],
        "AO_SUP only, no PREF, one port"
    );
    assert_eq!(transition_seconds(&data), None);
    let extended = report_one_group(true, 0x0102, 0x0304);
    assert_eq!(extended[..8], [0, 0, 0, 16, 0x10, 0, 0, 0]);
    assert_eq!(extended[8..], data[4..]);
    assert_eq!(transition_seconds(&extended), Some(0));
    assert_eq!(parse(&data), parse(&extended));
    assert_eq!(parse(&data)[0].ports, [0x0304]);
}

#[test]
fn the_cdb_decides_the_header_and_the_length() {
    let ask =
        |extended, allocation| answer(&Cdb::report_target_port_groups(extended, allocation), 1, 1);
    assert_eq!(ask(false, 4096), Ok(report_one_group(false, 1, 1)));
    assert_eq!(ask(true, 4096), Ok(report_one_group(true, 1, 1)));
    assert_eq!(ask(true, 6).unwrap(), [0, 0, 0, 16, 0x10, 0], "the length stays that of all");
    assert_eq!(ask(false, 0), Ok(vec![]));
    let reserved = Cdb::from_bytes(&[0xa3, 0x4a, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]).unwrap();
    let (code, field) = answer(&reserved, 1, 1).unwrap_err();
    assert_eq!((code, field.byte), (SenseCode::INVALID_FIELD_IN_CDB, 1));
    let other = Cdb::from_bytes(&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0]).unwrap();
    assert_eq!(answer(&other, 1, 1).unwrap_err().0, SenseCode::INVALID_OPCODE);
}

#[test]
fn the_cdb_is_that_of_the_standard() {
    let raw = |extended| Cdb::report_target_port_groups(extended, 0x1000).as_slice().to_vec();
    assert_eq!(raw(false), [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0]);
    assert_eq!(raw(true), [0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0]);
}

#[test]
fn only_the_extended_format_has_a_transition_time() {
    let mut data = report_one_group(true, 1, 1);
    data[5] = 60;
    assert_eq!(transition_seconds(&data), Some(60));
    for reserved in [0x20, 0x30, 0x50, 0x70] {
        data[4] = reserved;
        assert_eq!(transition_seconds(&data), None, "{reserved:02x}");
    }
}

#[test]
fn a_cut_group_counts_if_its_state_is_there() {
    let groups: Vec<_> = [1, 2].map(|id| parse(&report_one_group(false, id, id))[0].clone()).into();
    let data = encode(None, &groups);
    assert_eq!(parse(&data), groups);
    let without_port = [groups[0].clone(), TargetPortGroup { ports: vec![], ..groups[1].clone() }];
    assert_eq!(parse(&data[..data.len() - 1]), without_port);
    assert_eq!(parse(&data[..data.len() - 4]), without_port);
    assert_eq!(parse(&data[..data.len() - 5]), groups[..1]);
    // As LIO counts: without the rest of the extended header.
    let mut lio = encode(Some(0), &groups);
    let len = lio[3];
    lio[3] = len - 4;
    assert_eq!(parse(&lio), without_port);
    assert_eq!(parse(&data[..4]), []);
    assert_eq!(parse(&[]), []);
}

#[test]
fn set_target_port_groups_is_that_of_the_standard() {
    let list = [
        SetState { state: AccessState::ActiveOptimized, group: 0x0102 },
        SetState { state: AccessState::Standby, group: 3 },
    ];
    let data = encode_set(&list);
    assert_eq!(data, [0, 0, 0, 0, 0, 0, 1, 2, 2, 0, 0, 3]);
    assert_eq!(parse_set(&data), Ok(list.to_vec()));
    let cdb = Cdb::set_target_port_groups(12);
    assert_eq!(cdb.as_slice(), [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0]);
    assert_eq!(cdb.name(), Some("SET TARGET PORT GROUPS"));
}

#[test]
fn a_set_that_no_group_can_obey_is_refused() {
    assert_eq!(parse_set(&[]), Ok(vec![]));
    assert_eq!(parse_set(&[0; 4]), Ok(vec![]));
    for short in [1, 3, 5, 7, 10] {
        let refused = Err(SenseCode::PARAMETER_LIST_LENGTH_ERROR);
        assert_eq!(parse_set(&vec![0; short]), refused, "{short} bytes");
    }
    for state in [0x4, 0x5, 0xd, 0xf] {
        let refused = Err(SenseCode::INVALID_FIELD_IN_PARAMETER_LIST);
        assert_eq!(parse_set(&[0, 0, 0, 0, state, 0, 0, 1]), refused, "state {state:x}");
    }
}

fn group() -> impl Strategy<Value = TargetPortGroup> {
    let ports = prop::collection::vec(any::<u16>(), 0..4);
    (any::<u16>(), 0u8..16, any::<bool>(), any::<u8>(), any::<u8>(), ports).prop_map(
        |(id, state, preferred, supported, status_code, ports)| TargetPortGroup {
            id,
            state: AccessState::from_bits(state),
            preferred,
            supported,
            status_code,
            ports,
        },
    )
}

proptest! {
    #[test]
    fn groups_survive_the_wire(
        seconds in prop::option::of(any::<u8>()), groups in prop::collection::vec(group(), 0..5),
    ) {
        let data = encode(seconds, &groups);
        prop_assert_eq!(transition_seconds(&data), seconds);
        prop_assert_eq!(parse(&data), groups);
    }

    #[test]
    fn states_survive_the_wire(bits in 0u8..16) {
        prop_assert_eq!(AccessState::from_bits(bits).to_bits(), bits);
        prop_assert_eq!(AccessState::from_bits(bits | 0xf0).to_bits(), bits);
    }

    #[test]
    fn hostile_data_never_panics(raw in prop::collection::vec(any::<u8>(), 0..200), len: u8) {
        let mut raw = raw;
        if raw.len() > 4 {
            raw[..4].copy_from_slice(&[0, 0, 0, len]);
        }
        let ports: usize = parse(&raw).iter().map(|g| 8 + 4 * g.ports.len()).sum();
        prop_assert!(ports <= raw.len());
    }
}
