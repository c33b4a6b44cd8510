//! Answers of the LU on their way to the guest.

use super::*;
use crate::scsi::command::Group;
use crate::scsi::inquiry::Inquiry;
use crate::scsi::reservation::{
    Capabilities, Held, Key, Registered, Registration, Type, encode_full_status, encode_keys,
    encode_reservation,
};
use crate::scsi::sense;
use crate::scsi::vpd::{self, Association, BlockLimits, Designator, DesignatorKind};
use crate::vhost_scsi::PrShow;

fn standard() -> Vec<u8> {
    let inquiry = Inquiry {
        version: 7,
        tpgs: 3,
        third_party_copy: true,
        multi_port: true,
        command_queueing: true,
        vendor: "ACME".into(),
        product: "LUN".into(),
        revision: "1".into(),
        ..Inquiry::default()
    };
    let mut data = inquiry.encode().to_vec();
    data.extend_from_slice(&[0x77; 60]);
    data
}

/// Sends INQUIRY for `page`, the LU answers `page` as far as it is asked to.
fn inquire(
    device: &ScsiDevice,
    page: Option<u8>,
    allocation: u8,
    room: usize,
    data: &[u8],
) -> (Cdb, Reply) {
    let mut chain = Chain::command(LUN_0, &inquiry(page, allocation), 0, room).cut(50);
    let (cdb, reply, used) = exchange(device, &mut chain, data, good);
    let got = room - usize::try_from(reply.header.residual).unwrap();
    assert_eq!(usize::try_from(used).unwrap(), REPLY_LEN + got, "used length");
    (cdb, reply)
}

#[test]
fn standard_inquiry_shows_one_lu_behind_one_port_at_any_allocation_length() {
    let (device, _) = with_unit(|_| ());
    let mut expect = standard();
    expect[5] = 0;
    expect[6] = 0;
    for (allocation, room) in
        [(255, 255), (96, 96), (36, 36), (36, 255), (255, 36), (5, 255), (6, 6), (7, 7), (1, 1)]
    {
        let (cdb, reply) = inquire(&device, None, allocation, room, &standard());
        let len = room.min(usize::from(allocation)).min(96);
        reply.assert_data(&expect[..len], "edited");
        let asked = u8::try_from(room.min(usize::from(allocation))).unwrap();
        assert_eq!(cdb.as_slice(), inquiry(None, asked), "asked for what there is room for");
    }
    let (exposed, _) = with_unit(|u| u.joined = false);
    let (_, reply) = inquire(&exposed, None, 96, 96, &standard());
    reply.assert_data(&standard(), "a guest that sees paths sees all of it");
}

fn identification() -> (Vec<u8>, Vec<u8>) {
    let naa = [0x60, 0x0a, 0x09, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let lu = Designator { association: Association::Lu, kind: DesignatorKind::Naa, bytes: &naa };
    let port = Designator {
        association: Association::TargetPort,
        kind: DesignatorKind::RelativeTargetPort,
        bytes: &[0, 0, 0, 1],
    };
    let group = Designator { kind: DesignatorKind::TargetPortGroup, ..port };
    let leaky = vpd::encode_identification(&[port, lu, group]);
    (leaky, vpd::encode_identification(&[lu]))
}

/// The LU is asked for all of it: the guest's four bytes of header say how
/// long the *edited* page is.
#[test]
fn ports_do_not_leak_by_the_identification_page() {
    let (device, _) = with_unit(|_| ());
    let (leaky, clean) = identification();
    for (allocation, room) in [(255, 255), (4, 4), (4, 255), (255, 10), (24, 24)] {
        let (cdb, reply) = inquire(&device, Some(0x83), allocation, room, &leaky);
        let len = room.min(usize::from(allocation)).min(clean.len());
        reply.assert_data(&clean[..len], "edited");
        assert_eq!(cdb.as_slice()[..5], [0x12, 1, 0x83, 8, 0], "2048 bytes");
    }
    let (exposed, _) = with_unit(|u| u.joined = false);
    let (cdb, reply) = inquire(&exposed, Some(0x83), 255, 255, &leaky);
    reply.assert_data(&leaky, "a guest that sees paths tells them apart by it");
    assert_eq!(cdb.as_slice(), inquiry(Some(0x83), 255));
}

#[test]
fn pages_of_ports_are_withheld() {
    let (device, _) = with_unit(|_| ());
    let (exposed, _) = with_unit(|u| u.joined = false);
    for page in [0x88, 0x8f, 0x90, 0x91] {
        let raw = inquiry(Some(page), 64);
        check(
            &device,
            vec![row("withheld", raw.clone(), 0, 64, {
                Expect::Check(SenseCode::INVALID_FIELD_IN_CDB)
            })],
        );
        check(
            &exposed,
            vec![row("shown", raw.clone(), 0, 64, Expect::Submit(raw, Direction::In, 64))],
        );
    }
    let list = vpd::encode_supported(&[0, 0x80, 0x83, 0x88, 0xb2]);
    let (_, reply) = inquire(&device, Some(0), 255, 255, &list);
    reply.assert_data(&vpd::encode_supported(&[0, 0x80, 0x83, 0xb0, 0xb2]), "page 00h");
    let (_, reply) = inquire(&device, Some(0), 4, 4, &list);
    reply.assert_data(&[0, 0, 0, 5], "the length of the edited page");
    let (_, reply) = inquire(&exposed, Some(0), 255, 255, &list);
    reply.assert_data(&vpd::encode_supported(&[0, 0x80, 0x83, 0x88, 0xb0, 0xb2]), "exposed");
    let with_b0 = vpd::encode_supported(&[0, 0x88, 0xb0]);
    let (_, reply) = inquire(&exposed, Some(0), 255, 255, &with_b0);
    reply.assert_data(&with_b0, "as it is");
}

#[test]
fn block_limits_are_what_every_path_carries() {
    let lu = BlockLimits {
        max_transfer: 8192,
        optimal_transfer: 1024,
        max_unmap: 7,
        ..BlockLimits::default()
    };
    for joined in [true, false] {
        let (device, _) = with_unit(|u| u.joined = joined);
        let (_, reply) = inquire(&device, Some(0xb0), 64, 64, &lu.encode());
        let page = BlockLimits::parse(&reply.data).expect("page B0h");
        assert_eq!((page.max_transfer, page.optimal_transfer), (128, 128));
        assert_eq!(page.max_unmap, 7, "the LU's own limits stay");
        let (_, reply) = inquire(&device, Some(0xb0), 12, 64, &lu.encode());
        assert_eq!(reply.data[8..12], [0, 0, 0, 128]);
        assert_eq!(reply.header.residual, 64 - 12);
    }
}

#[test]
fn a_lu_without_block_limits_gets_ours() {
    let (device, _) = with_unit(|_| ());
    for (code, ours) in [
        (SenseCode::INVALID_FIELD_IN_CDB, true),
        (SenseCode::INVALID_OPCODE, true),
        (SenseCode::new(sense::Key::NotReady, 0x04, 0x03), false),
    ] {
        let mut chain = Chain::command(LUN_0, &inquiry(Some(0xb0), 64), 0, 64);
        let (_, reply, _) = exchange(&device, &mut chain, &[], |residual| Outcome::Lu {
            status: Status::CHECK_CONDITION,
            sense: Sense::fixed(code),
            residual: u32::try_from(residual).unwrap(),
        });
        if ours {
            let page = BlockLimits::parse(&reply.data).expect("page B0h");
            assert_eq!((reply.header.status, page.max_transfer), (0, 128));
            assert!(reply.sense.is_empty());
        } else {
            assert_eq!((reply.header.status, reply.code()), (2, Some(code)));
            assert_eq!(reply.header.residual, 64);
        }
    }
}

/// Errors of an edited command are the LU's word like all others.
#[test]
fn errors_and_lost_paths_pass_an_edited_command() {
    let (device, _) = with_unit(|_| ());
    for page in [None, Some(0), Some(0x83)] {
        let mut chain = Chain::command(LUN_0, &inquiry(page, 64), 0, 64);
        let code = SenseCode::new(sense::Key::HardwareError, 0x44, 0);
        let (_, reply, used) = exchange(&device, &mut chain, &[], |residual| Outcome::Lu {
            status: Status::CHECK_CONDITION,
            sense: Sense::fixed(code),
            residual: u32::try_from(residual).unwrap(),
        });
        assert_eq!((reply.code(), reply.header.residual, used), (Some(code), 64, 108));
        assert!(reply.data.iter().all(|b| *b == UNTOUCHED));

        let mut chain = Chain::command(LUN_0, &inquiry(page, 64), 0, 64);
        let (_, reply, _) = exchange(&device, &mut chain, &[], |_| Outcome::NoPath);
        assert_eq!((reply.header.response, reply.header.residual), (6, 64));
    }
}

#[test]
fn a_lu_that_went_while_it_answered_is_gone() {
    let (device, _) = with_unit(|_| ());
    let mut chain = Chain::command(LUN_0, &inquiry(Some(0x83), 64), 0, 64);
    let (leaky, _) = identification();
    let (_, reply, _) = exchange(&device, &mut chain, &leaky, |residual| {
        device.set_units(vec![]);
        good(residual)
    });
    assert_eq!(reply.code(), Some(SenseCode::LUN_NOT_SUPPORTED));
    assert!(reply.data.iter().all(|b| *b == UNTOUCHED), "nothing unedited leaks");
}

/// A descriptor of the all-commands list (SPC-5 6.35.2).
fn descriptor(opcode: u8, action: Option<u8>) -> [u8; 8] {
    [opcode, 0, 0, action.unwrap_or(0), 0, u8::from(action.is_some()), 0, 10]
}

fn all_commands(list: &[(u8, Option<u8>)]) -> Vec<u8> {
    let body: Vec<u8> = list.iter().flat_map(|(op, sa)| descriptor(*op, *sa)).collect();
    let mut data = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    data.extend(body);
    data
}

#[test]
fn supported_opcodes_are_those_the_policy_lets_through() {
    let lu = all_commands(&[
        (0x28, None),
        (0x04, None),
        (0x5e, Some(0)),
        (0x5f, Some(0)),
        (0x5f, Some(7)),
        (0x16, None),
        (0xa3, Some(0x0a)),
        (0xa4, Some(0x0a)),
    ]);
    let shown = |change: &dyn Fn(&mut Unit), allocation: u8| {
        let (device, _) = with_unit(change);
        let raw = cdb(12, &[(0, 0xa3), (1, 0x0c), (9, allocation)]);
        let mut chain = Chain::command(LUN_0, &raw, 0, 255);
        let (cdb, reply, _) = exchange(&device, &mut chain, &lu, good);
        assert_eq!(cdb.as_slice()[6..10], [0, 0, 0x40, 0], "all of it");
        reply
    };
    let (rtpg, pr_in) = ((0xa3, Some(0x0a)), (0x5e, Some(0)));
    let pr_out = (0x5f, Some(0));
    let joined = all_commands(&[(0x28, None), pr_in, pr_out, rtpg]);
    shown(&|_| (), 255).assert_data(&joined, "joined");
    shown(&|_| (), 4).assert_data(&joined[..4], "header only");
    let one_path = all_commands(&[(0x28, None), pr_in, pr_out, (0x16, None), rtpg]);
    shown(&|u| u.multipath = false, 255).assert_data(&one_path, "one path");
    let lax = all_commands(&[(0x28, None), (0x04, None), pr_in, pr_out, rtpg]);
    shown(&|u| u.policy.allow(Group::FormatUnit), 255).assert_data(&lax, "allowed by name");
}

#[test]
fn a_single_opcode_that_is_denied_is_not_supported() {
    let (device, _) = with_unit(|_| ());
    let answer = [0, 3, 0, 6, 0x12, 1, 0xff, 0xff, 0xff, 0];
    let ask = |option: u8, opcode: u8, action: u8| {
        let raw = cdb(12, &[(0, 0xa3), (1, 0x0c), (2, option), (3, opcode), (5, action), (9, 64)]);
        let mut chain = Chain::command(LUN_0, &raw, 0, 64);
        exchange(&device, &mut chain, &answer, good).1
    };
    ask(1, 0x12, 0).assert_data(&answer, "INQUIRY");
    ask(1, 0x04, 0).assert_data(&[0, 1, 0, 0], "FORMAT UNIT");
    ask(1, 0x16, 0).assert_data(&[0, 1, 0, 0], "RESERVE");
    ask(2, 0x5f, 0).assert_data(&answer, "PERSISTENT RESERVE OUT");
    ask(2, 0x5f, 7).assert_data(&[0, 1, 0, 0], "REGISTER AND MOVE: to which port?");
    ask(2, 0x5e, 0).assert_data(&answer, "PERSISTENT RESERVE IN");
    ask(3, 0x12, 0).assert_data(&answer, "INQUIRY by either");
    ask(3, 0xa4, 0x0a).assert_data(&[0, 1, 0, 0], "SET TARGET PORT GROUPS");
    ask(2, 0xa3, 0x0a).assert_data(&answer, "REPORT TARGET PORT GROUPS");
}

/// LIO refuses a command and claims to have moved everything.
#[test]
fn what_the_lu_refused_has_no_answer_to_edit() {
    let (device, _) = with_unit(|_| ());
    let refused = Sense::fixed(SenseCode::INVALID_FIELD_IN_CDB);
    let recovered = Sense::fixed(SenseCode::new(sense::Key::RecoveredError, 0x18, 0x02));
    let ask = |sense: Sense| {
        let raw = cdb(12, &[(0, 0xa3), (1, 0x0c), (2, 1), (3, 0x16), (9, 64)]);
        let mut chain = Chain::command(LUN_0, &raw, 0, 64);
        let check = |residual| Outcome::Lu { status: Status::CHECK_CONDITION, sense, residual };
        exchange(&device, &mut chain, &[0; 64], |_| check(0)).1
    };
    let reply = ask(refused);
    assert_eq!((reply.header.residual, &reply.data[..4]), (64, &[0xee; 4][..]));
    assert_eq!(ask(recovered).header.residual, 60);
}

#[test]
fn mode_sense_of_a_read_only_disk_says_write_protected() {
    let six = cdb(6, &[(0, 0x1a), (2, 0x3f), (4, 64)]);
    let ten = cdb(10, &[(0, 0x5a), (2, 0x3f), (8, 64)]);
    let data: Vec<u8> = (0..40).collect();
    for read_only in [true, false] {
        let (device, _) = with_unit(|u| u.read_only = read_only);
        for (raw, at) in [(&six, 2), (&ten, 3)] {
            let mut chain = Chain::command(LUN_0, raw, 0, 64);
            let (cdb, reply, _) = exchange(&device, &mut chain, &data, good);
            let mut expect = data.clone();
            expect[at] |= if read_only { 0x80 } else { 0 };
            reply.assert_data(&expect, "mode data");
            assert_eq!(cdb.as_slice(), &raw[..]);
        }
        let mut chain = Chain::command(LUN_0, &six, 0, 2);
        let (_, reply, _) = exchange(&device, &mut chain, &data[..2], good);
        reply.assert_data(&[0, 1], "too short for the bit");
    }
}

/// A unit attention is forgotten by the LU once told: all of it must be seen
/// by the request core, however little of it the guest wants.
#[test]
fn sense_data_is_asked_for_as_a_whole_whatever_the_guest_has_room_for() {
    let sense = Sense::fixed(SenseCode::CAPACITY_CHANGED);
    for joined in [true, false] {
        let (device, _) = with_unit(|u| u.joined = joined);
        for (allocation, room) in [(252, 252), (252, 3), (3, 252), (0, 252), (18, 0)] {
            let mut chain = Chain::command(LUN_0, &cdb(6, &[(0, 3), (4, allocation)]), 0, room);
            let (asked, reply, used) = exchange(&device, &mut chain, sense.as_bytes(), good);
            assert_eq!(asked.as_slice(), cdb(6, &[(0, 3), (4, 252)]));
            let len = room.min(usize::from(allocation)).min(18);
            reply.assert_data(&sense.as_bytes()[..len], "sense data");
            assert_eq!(usize::try_from(used).unwrap(), REPLY_LEN + len);
        }
    }
}

/// PERSISTENT RESERVE IN; what the LU was asked for, and what the guest got.
fn reserve_in(
    device: &ScsiDevice,
    action: u8,
    allocation: u16,
    room: usize,
    data: &[u8],
) -> (u16, Reply) {
    let [high, low] = allocation.to_be_bytes();
    let raw = cdb(10, &[(0, 0x5e), (1, action), (7, high), (8, low)]);
    let mut chain = Chain::command(LUN_0, &raw, 0, room);
    let (cdb, reply, _) = exchange(device, &mut chain, data, good);
    (u16::from_be_bytes([cdb.as_slice()[7], cdb.as_slice()[8]]), reply)
}

fn own(key: Key, copies: usize) -> Vec<Registered> {
    vec![Registered { key, copies, former: false }]
}

#[test]
fn a_guest_of_many_paths_reads_its_key_once() {
    let (ours, other) = (Key(0xa), Key(0xb));
    let (device, unit) = with_unit(|_| ());
    let all = encode_keys(9, &[ours, other, ours, ours]);
    let once = encode_keys(9, &[ours, other]);
    let (_, reply) = reserve_in(&device, 0, 255, 255, &all);
    reply.assert_data(&all, "nothing is registered by us");
    unit.reservation.set(own(ours, 3));
    for (allocation, room) in [(255, 255), (8, 8), (8, 255), (255, 17), (4, 4)] {
        let (asked, reply) = reserve_in(&device, 0, allocation, room, &all);
        let len = room.min(usize::from(allocation)).min(once.len());
        reply.assert_data(&once[..len], "the length of the edited list");
        assert_eq!(asked, 16384, "all of it is wanted");
    }
    unit.reservation.set(Vec::new());
    let (_, reply) = reserve_in(&device, 0, 255, 255, &all);
    reply.assert_data(&all, "preempted");
    for (change, what) in [
        (&(|u: &mut Unit| u.pr_show = PrShow::All) as &dyn Fn(&mut Unit), "--pr-show all"),
        (&|u: &mut Unit| u.joined = false, "exposed"),
    ] {
        let (device, unit) = with_unit(change);
        unit.reservation.set(own(ours, 3));
        let (asked, reply) = reserve_in(&device, 0, 255, 64, &all);
        reply.assert_data(&all, what);
        assert_eq!(asked, 64, "{what}: asked for what there is room for");
    }
}

#[test]
fn full_status_shows_one_nexus_of_the_guests() {
    let one = |key, port, holds| Registration {
        key,
        all_tg_pt: false,
        holds,
        port,
        transport_id: vec![6; 24],
    };
    let (ours, held) = (Key(0xa), Some(Type::WriteExclusive));
    let all = [one(ours, 1, None), one(ours, 2, held), one(Key(0xb), 1, None)];
    let data = encode_full_status(9, &all);
    let (device, unit) = with_unit(|_| ());
    unit.reservation.set(own(ours, 2));
    let (asked, reply) = reserve_in(&device, 3, 512, 512, &data);
    reply.assert_data(&encode_full_status(9, &all[1..]), "its holder");
    assert_eq!(asked, 16384);
    // Many hosts of many paths: what the guest has room for, it can get.
    let many: Vec<_> = (0..1000).map(|port| one(Key(0xb), port, None)).collect();
    let long = encode_full_status(9, &many);
    let (asked, reply) = reserve_in(&device, 3, 65535, 65535, &long);
    reply.assert_data(&long, "of others");
    assert_eq!(asked, 65535);
    let (all_device, unit) = with_unit(|u| u.pr_show = PrShow::All);
    unit.reservation.set(own(ours, 2));
    reserve_in(&all_device, 3, 512, 512, &data).1.assert_data(&data, "--pr-show all");
}

#[test]
fn a_guest_of_one_port_is_offered_nothing_about_ports() {
    let can = Capabilities { can: 0x9d, now: 0xff, types: 0xea01 };
    let hidden = Capabilities { can: 0x91, ..can }.encode();
    for show in [PrShow::One, PrShow::All] {
        let (device, _) = with_unit(|u| u.pr_show = show);
        let (asked, reply) = reserve_in(&device, 2, 255, 8, &can.encode());
        reply.assert_data(&hidden, "joined");
        assert_eq!(asked, 8);
        reserve_in(&device, 2, 3, 8, &can.encode()).1.assert_data(&hidden[..3], "cut");
    }
    let (exposed, _) = with_unit(|u| u.joined = false);
    reserve_in(&exposed, 2, 255, 8, &can.encode()).1.assert_data(&can.encode(), "exposed");
    // Who holds it is the LU's to say, and one word in any case.
    let held = encode_reservation(9, Some(Held { key: Key(1), kind: Type::ExclusiveAccess }));
    let (device, unit) = with_unit(|_| ());
    unit.reservation.set(own(Key(1), 4));
    let (asked, reply) = reserve_in(&device, 1, 255, 64, &held);
    reply.assert_data(&held, "READ RESERVATION");
    assert_eq!(asked, 64);
}
