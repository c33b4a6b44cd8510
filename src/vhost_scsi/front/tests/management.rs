//! The control queue and the events.

use super::*;
use crate::io::{Action, DeviceEvent, Happened, Management, Reach, RingRole};
use crate::virtio::scsi::{self, AnRequest, CONTROL_QUEUE, EVENT_QUEUE, TmfRequest};

const LUN_1: [u8; 8] = [1, 0, 0, 1, 0, 0, 0, 0];
const OTHER_TARGET: [u8; 8] = [1, 9, 0, 0, 0, 0, 0, 0];

fn two_luns() -> (ScsiDevice, Vec<Unit>) {
    let units = vec![unit(0, 0, 5), unit(0, 1, 6), unit(1, 0, 7)];
    (device(units.clone()), units)
}

fn tmf(subtype: u32, lun: [u8; 8]) -> Vec<u8> {
    TmfRequest { subtype, lun, id: 42 }.encode().to_vec()
}

fn ask(device: &ScsiDevice, readable: &[u8], room: usize) -> (Parsed, Vec<u8>) {
    let mut found = None;
    for piece in [usize::MAX, 7, 1] {
        let mut chain = Chain::new(readable.to_vec(), room).cut(piece);
        let (parsed, request) = chain.parse_on(&mut device.front(), CONTROL_QUEUE);
        assert!(request.op.is_none());
        let answer = (parsed, chain.writable.concat());
        assert_eq!(found.get_or_insert(answer.clone()), &answer, "cut every {piece} bytes");
    }
    found.expect("asked")
}

/// What the eight functions reach (SAM-5 7, virtio 1.3 5.6.6.2).
#[test]
fn all_eight_task_management_functions() {
    let (device, _) = two_luns();
    let task = Reach::Task { map: MapSlot(6), task: 42 };
    let unit = Reach::Unit(MapSlot(6));
    let end = |reset| Action::End { reset };
    let table = [
        (0, Some((end(false), task))),
        (1, Some((end(false), unit))),
        (2, None), // CLEAR ACA
        (3, Some((end(false), unit))),
        (4, Some((end(true), Reach::Target(0)))),
        (5, Some((end(true), unit))),
        (6, Some((Action::Query, task))),
        (7, Some((Action::Query, unit))),
        (8, None),
        (u32::MAX, None),
    ];
    for (subtype, expect) in table {
        let (parsed, written) = ask(&device, &tmf(subtype, LUN_1), 1);
        match expect {
            Some((action, reach)) => {
                assert_eq!(parsed, Parsed::Manage(Management { action, reach }), "{subtype}");
                assert_eq!(written, [UNTOUCHED], "{subtype}: not answered yet");
            }
            None => {
                assert_eq!(parsed, Parsed::Answered { used_len: 1 }, "{subtype}");
                assert_eq!(written, [Response::FunctionRejected as u8], "{subtype}");
            }
        }
    }
}

#[test]
fn task_management_of_nobody_is_answered_at_once() {
    let (device, _) = two_luns();
    let (bad_target, incorrect_lun) = (3, 12);
    let table = [
        (OTHER_TARGET, bad_target),
        ([2, 0, 0, 0, 0, 0, 0, 0], bad_target),
        ([0; 8], bad_target),
        ([0xc1, 1, 0, 0, 0, 0, 0, 0], bad_target),
        ([1, 0, 0, 2, 0, 0, 0, 0], incorrect_lun),
        ([1, 0, 0x80, 0, 0, 0, 0, 0], incorrect_lun),
        ([1, 0, 0xc1, 1, 0, 0, 0, 0], incorrect_lun),
        ([1, 0, 0, 0, 0, 0, 0, 1], incorrect_lun),
    ];
    for (lun, expect) in table {
        for subtype in [0, 1, 2, 3, 5, 6, 7] {
            let (parsed, written) = ask(&device, &tmf(subtype, lun), 1);
            assert_eq!(parsed, Parsed::Answered { used_len: 1 }, "{subtype} {lun:02x?}");
            assert_eq!(written, [expect], "{subtype} {lun:02x?}");
        }
    }
    assert_eq!(ask(&device, &tmf(4, OTHER_TARGET), 1).1, [bad_target]);
    assert_eq!(ask(&device, &tmf(4, [3; 8]), 1).1, [bad_target]);
    let (parsed, _) = ask(&device, &tmf(4, [1, 0, 0x99, 0x99, 9, 9, 9, 9]), 1);
    assert!(matches!(parsed, Parsed::Manage(_)), "a nexus reset is for the target");
}

#[test]
fn malformed_control_requests_are_answered_and_do_nothing() {
    let (device, _) = two_luns();
    let reset = tmf(5, LUN_0);
    for len in 0..24 {
        let (parsed, written) = ask(&device, &reset[..len], 1);
        assert_eq!(parsed, Parsed::Answered { used_len: 1 }, "{len} bytes");
        assert_eq!(written, [Response::Failure as u8], "{len} bytes");
    }
    let (parsed, _) = ask(&device, &reset, 0);
    assert_eq!(parsed, Parsed::Answered { used_len: 0 }, "no room for an answer: not done");
    let (parsed, written) = ask(&device, &reset, 9);
    assert!(matches!(parsed, Parsed::Manage(_)), "more room than needed");
    assert_eq!(written, [UNTOUCHED; 9]);
    for kind in [3_u32, 99, u32::MAX] {
        let (parsed, written) = ask(&device, &kind.to_le_bytes(), 5);
        assert_eq!(parsed, Parsed::Answered { used_len: 1 });
        assert_eq!(written[0], Response::FunctionRejected as u8);
    }
}

#[test]
fn notifications_report_no_events() {
    let (device, _) = two_luns();
    for kind in [scsi::T_AN_QUERY, scsi::T_AN_SUBSCRIBE] {
        let request = |lun| AnRequest { kind, lun, events: u32::MAX }.encode();
        for (lun, response) in [(LUN_1, 0), (OTHER_TARGET, 3), ([1, 0, 0, 7, 0, 0, 0, 0], 12)] {
            let (parsed, written) = ask(&device, &request(lun), 5);
            assert_eq!(parsed, Parsed::Answered { used_len: 5 });
            assert_eq!(written, [0, 0, 0, 0, response]);
        }
        let (parsed, written) = ask(&device, &request(LUN_1)[..15], 5);
        assert_eq!(parsed, Parsed::Answered { used_len: 5 });
        assert_eq!(written[4], Response::Failure as u8);
        let (parsed, written) = ask(&device, &request(LUN_1), 3);
        assert_eq!(parsed, Parsed::Answered { used_len: 3 }, "what fits");
        assert_eq!(written, [0, 0, 0]);
        assert_eq!(ask(&device, &request(LUN_1), 0).0, Parsed::Answered { used_len: 0 });
    }
}

fn manage(device: &ScsiDevice, subtype: u32, lun: [u8; 8], found: bool) -> Vec<u8> {
    let mut chain = Chain::new(tmf(subtype, lun), 1);
    let mut front = device.front();
    let (parsed, mut request) = chain.parse_on(&mut front, CONTROL_QUEUE);
    let Parsed::Manage(management) = parsed else { panic!("{parsed:?}") };
    assert_eq!(front.managed(&mut request, &management, found), 1);
    chain.writable.concat()
}

#[test]
fn functions_complete_and_queries_succeed_if_there_is_something() {
    let (device, _) = two_luns();
    for subtype in [0, 1, 3, 4, 5] {
        for found in [true, false] {
            assert_eq!(manage(&device, subtype, LUN_1, found), [0], "{subtype}");
        }
    }
    for subtype in [6, 7] {
        assert_eq!(manage(&device, subtype, LUN_1, true), [10], "FUNCTION SUCCEEDED");
        assert_eq!(manage(&device, subtype, LUN_1, false), [0], "FUNCTION COMPLETE");
    }
}

#[test]
fn resets_raise_their_unit_attention_and_aborts_none() {
    let (device, units) = two_luns();
    let told = || {
        let take = |u: &Unit| u.attentions.take().and_then(|s| s.code()).map(|c| (c.asc, c.ascq));
        units.iter().map(take).collect::<Vec<_>>()
    };
    for subtype in [0, 1, 3, 6, 7] {
        manage(&device, subtype, LUN_1, true);
        assert_eq!(told(), [None, None, None], "{subtype}");
    }
    manage(&device, 5, LUN_1, false);
    assert_eq!(told(), [None, Some((0x29, 0x03)), None], "LU RESET");
    manage(&device, 4, LUN_1, false);
    assert_eq!(told(), [Some((0x29, 0x07)), Some((0x29, 0x07)), None], "I_T NEXUS RESET");
}

/// virtio 1.3, 5.6.6.3.
#[test]
fn events_are_encoded_and_sent_to_drivers_that_took_the_feature() {
    let (device, _) = two_luns();
    let event = |lun, what| DeviceEvent { target: 3, lun, what };
    let resize = Happened::Changed { asc: 0x2a, ascq: 0x09 };
    let table = [
        (event(1, Happened::Added), false, [1, 0, 0, 0, 1, 3, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0]),
        (
            event(300, Happened::Removed),
            false,
            [1, 0, 0, 0, 1, 3, 0x41, 44, 0, 0, 0, 0, 2, 0, 0, 0],
        ),
        (event(0, resize), true, [3, 0, 0, 0x80, 1, 3, 0, 0, 0, 0, 0, 0, 0x2a, 9, 0, 0]),
    ];
    for (event, missed, expect) in table {
        for piece in [usize::MAX, 5] {
            let mut chain = Chain::new(vec![], 20).cut(piece);
            let writable = segments(&mut chain.writable);
            assert_eq!(device.front().event(&writable, &event, missed), Some(16));
            let written = chain.writable.concat();
            assert_eq!((&written[..16], &written[16..]), (&expect[..], &[UNTOUCHED; 4][..]));
        }
        let mut short = Chain::new(vec![], 15);
        let writable = segments(&mut short.writable);
        assert_eq!(device.front().event(&writable, &event, missed), None);
        assert_eq!(short.writable.concat(), [UNTOUCHED; 15]);
    }
    let wants = |features, what| {
        device.acked_features(features);
        device.front().wants_event(&event(0, what))
    };
    for what in [Happened::Added, Happened::Removed] {
        assert!(wants(scsi::F_HOTPLUG, what));
        assert!(!wants(scsi::F_CHANGE, what));
    }
    assert!(wants(scsi::F_CHANGE, resize));
    assert!(!wants(scsi::F_HOTPLUG, resize));
}

#[test]
fn the_first_rings_are_for_control_and_events() {
    let (device, _) = two_luns();
    let mut front = device.front();
    assert_eq!(front.role(EVENT_QUEUE), RingRole::Events);
    assert_eq!(front.role(CONTROL_QUEUE), RingRole::Control);
    for ring in [2, 3, u16::MAX] {
        assert_eq!(front.role(ring), RingRole::Requests);
    }
    let mut chain = Chain::command(LUN_0, &read_10(1), 0, 512);
    let (parsed, _) = chain.parse_on(&mut front, EVENT_QUEUE);
    assert_eq!(parsed, Parsed::Answered { used_len: 0 });
}
