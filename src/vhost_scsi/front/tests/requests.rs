use super::*;
use crate::io::Denied;
use crate::scsi::command::Group;
use crate::scsi::sense::{FieldPointer, SenseFormat};

fn submit(cdb: &[u8], direction: Direction, len: usize) -> Expect {
    Expect::Submit(cdb.to_vec(), direction, len)
}

#[test]
fn transfers_take_what_the_cdb_says_of_what_the_buffers_hold() {
    let overrun = || Expect::Response(Response::Overrun);
    let tur = cdb(6, &[]);
    let (none, out, into) = (Direction::None, Direction::Out, Direction::In);
    let verify = cdb(10, &[(0, 0x2f), (1, 2), (8, 1)]);
    let unmap = cdb(10, &[(0, 0x42), (8, 24)]);
    let caw = cdb(16, &[(0, 0x89), (13, 1)]);
    let capacity = cdb(10, &[(0, 0x25)]);
    let rows = vec![
        row("no data", tur.clone(), 0, 0, submit(&tur, none, 0)),
        row("room for data nobody has", tur.clone(), 0, 512, submit(&tur, none, 0)),
        row("data nobody wants", tur.clone(), 512, 0, submit(&tur, none, 0)),
        row("read", read_10(2), 0, 1024, submit(&read_10(2), into, 1024)),
        row("read, more room", read_10(1), 0, 5000, submit(&read_10(1), into, 512)),
        row("read, a byte short", read_10(2), 0, 1023, overrun()),
        row("read into nothing", read_10(1), 0, 0, overrun()),
        row("read with data-out", read_10(1), 512, 0, overrun()),
        row("read of nothing", read_10(0), 0, 512, submit(&read_10(0), none, 0)),
        row("longest read", read_10(128), 0, 65536, submit(&read_10(128), into, 65536)),
        row("read too long for a path", read_10(129), 0, 70_000, {
            Expect::Check(SenseCode::INVALID_FIELD_IN_CDB)
        }),
        row("write", write_10(2), 1024, 0, submit(&write_10(2), out, 1024)),
        row("write, more data", write_10(1), 1025, 0, submit(&write_10(1), out, 512)),
        row("write, a byte short", write_10(2), 1023, 0, overrun()),
        row("write with room for data-in", write_10(1), 0, 512, overrun()),
        row("write too long for a path", write_10(129), 70_000, 0, {
            Expect::Check(SenseCode::INVALID_FIELD_IN_CDB)
        }),
        row("verify", verify.clone(), 512, 0, submit(&verify, out, 512)),
        row("verify, data short", verify.clone(), 511, 0, overrun()),
        row("unmap", unmap.clone(), 24, 0, submit(&unmap, out, 24)),
        row("unmap, list short", unmap.clone(), 23, 0, overrun()),
        row("compare and write", caw.clone(), 1024, 0, submit(&caw, out, 1024)),
        row("compare and write, half", caw.clone(), 512, 0, overrun()),
        row("read capacity", capacity.clone(), 0, 8, submit(&capacity, into, 8)),
        row("read capacity, short", capacity.clone(), 0, 7, overrun()),
        row("data both ways", read_10(1), 1, 512, Expect::Response(Response::Failure)),
    ];
    check(&with_unit(|_| ()).0, rows);
}

/// SPC-5 4.2.5.6: the buffer is the smaller; and what the LU is told is what
/// the path expects.
#[test]
fn an_allocation_length_is_lowered_to_the_buffer() {
    let log = |len: u8| cdb(10, &[(0, 0x4d), (2, 0x40), (7, len >> 7), (8, len << 1 >> 1)]);
    let long = cdb(10, &[(0, 0x4d), (7, 0xff), (8, 0xff)]);
    let rows = vec![
        row("exact", log(64), 0, 64, submit(&log(64), Direction::In, 64)),
        row("more room", log(64), 0, 4096, submit(&log(64), Direction::In, 64)),
        row("less room", log(64), 0, 10, submit(&log(10), Direction::In, 10)),
        row("no room", log(64), 0, 0, submit(&log(0), Direction::None, 0)),
        row("of nothing", log(0), 0, 64, submit(&log(0), Direction::None, 0)),
        row("wrong direction", log(64), 64, 0, submit(&log(0), Direction::None, 0)),
        row("within what a path carries", long.clone(), 0, 70_000, {
            submit(&long, Direction::In, 65_535)
        }),
    ];
    check(&with_unit(|_| ()).0, rows);

    let capped = cdb(10, &[(0, 0x4d), (7, 0x80), (8, 0x00)]);
    let rows = vec![row("capped by what a path carries", long, 0, 70_000, {
        submit(&capped, Direction::In, 32768)
    })];
    let (device, _) = with_unit(|u| u.limits.max_transfer = crate::io::Blocks(64));
    check(&device, rows);
}

/// How long blocks with protection information are is the LU's business; which
/// way they go is not the guest's.
#[test]
fn protected_blocks_go_their_way_or_not_at_all() {
    let overrun = || Expect::Response(Response::Overrun);
    let read = cdb(10, &[(0, 0x28), (1, 0x20), (8, 2)]);
    let write = cdb(10, &[(0, 0x2a), (1, 0x20), (8, 2)]);
    let submit = |raw: &[u8], way, len| Expect::Submit(raw.to_vec(), way, len);
    let rows = vec![
        row("read", read.clone(), 0, 1040, submit(&read, Direction::In, 1040)),
        row("write", write.clone(), 1040, 0, submit(&write, Direction::Out, 1040)),
        row("read of data-out", read.clone(), 1040, 0, overrun()),
        row("write of data-in", write, 0, 1040, overrun()),
        row("less than the blocks alone", read, 0, 1023, overrun()),
    ];
    check(&with_unit(|_| ()).0, rows);
}

/// SG_IO gets the command's own length, whatever field it came in.
#[test]
fn bytes_behind_the_cdb_are_not_the_command() {
    let (device, _) = with_unit(|u| {
        for group in Group::all() {
            u.policy.allow(group);
        }
        u.multipath = false;
    });
    let noise = |opcode: u8| {
        let mut raw = vec![0xa5; 32];
        raw[0] = opcode;
        raw
    };
    for (opcode, len) in [(0x00, 6), (0x1b, 6), (0x35, 10), (0x91, 16), (0x94, 16), (0x57, 10)] {
        let mut raw = noise(opcode);
        raw[len - 1] = 0; // no NACA
        let (parsed, request) = Chain::command(LUN_0, &raw, 0, 0).parse(&mut device.front());
        assert_eq!(parsed, Parsed::Submit, "{opcode:02x}");
        let Some(Op::Cdb { cdb, .. }) = request.op else { panic!("{opcode:02x}") };
        assert_eq!(cdb.as_slice(), &raw[..len], "{opcode:02x}");
    }
    let vendor = |behind: u8| {
        let mut raw = vec![0; 32];
        (raw[0], raw[9], raw[20]) = (0xc1, 0xff, behind);
        let (_, request) = Chain::command(LUN_0, &raw, 0, 0).parse(&mut device.front());
        match request.op {
            Some(Op::Cdb { cdb, .. }) => cdb.as_slice().len(),
            _ => 0,
        }
    };
    assert_eq!((vendor(0), vendor(1)), (16, 32), "vendor specific commands have no length");
}

#[test]
fn variable_length_cdbs_have_the_length_they_state() {
    let variable = |more: u8| cdb(32, &[(0, 0x7f), (7, more), (9, 0x09), (31, 1)]);
    let rows = vec![
        row("READ(32)", variable(24), 0, 512, submit(&variable(24), Direction::In, 512)),
        row("longer than the field", variable(25), 0, 512, {
            Expect::Check(SenseCode::INVALID_FIELD_IN_CDB)
        }),
        row("longest", variable(255), 0, 512, Expect::Check(SenseCode::INVALID_FIELD_IN_CDB)),
        row("without service action", variable(0), 0, 512, {
            Expect::Check(SenseCode::INVALID_OPCODE)
        }),
    ];
    check(&with_unit(|_| ()).0, rows);
}

#[test]
fn a_longer_cdb_field_is_honoured_and_a_cdb_too_long_for_a_path_is_the_guests_mistake() {
    let (device, _) = with_unit(|_| ());
    for (cdb_size, more, expect) in [
        (260_u32, 24, None),
        (260, 252, Some(SenseCode::INVALID_FIELD_IN_CDB)),
        (16, 24, Some(SenseCode::INVALID_FIELD_IN_CDB)),
        (12, 0, Some(SenseCode::INVALID_OPCODE)),
        (7, 0, Some(SenseCode::INVALID_FIELD_IN_CDB)),
    ] {
        device.set_config(24, &cdb_size.to_le_bytes()).expect("valid");
        let mut raw = cdb(usize::try_from(cdb_size).unwrap(), &[(0, 0x7f)]);
        for (at, byte) in [(7, more), (9, 0x09), (31, 1)] {
            if let Some(place) = raw.get_mut(at) {
                *place = byte;
            }
        }
        let mut chain =
            Chain::new([&header(LUN_0, 77)[..], &raw].concat(), REPLY_LEN + 512).cut(50);
        let (parsed, request) = chain.parse(&mut device.front());
        match expect {
            None => {
                assert_eq!(parsed, Parsed::Submit, "{cdb_size}, {more}");
                assert_eq!(total(&request), 512);
            }
            Some(code) => assert_eq!(chain.response().code(), Some(code), "{cdb_size}, {more}"),
        }
    }
    device.set_config(24, &6_u32.to_le_bytes()).expect("valid");
    let mut chain = Chain::new([&header(LUN_0, 77)[..], &read_10(1)[..6]].concat(), 700);
    chain.parse(&mut device.front());
    assert_eq!(chain.response().code(), Some(SenseCode::INVALID_FIELD_IN_CDB), "READ(10) cut");
}

#[test]
fn luns_address_units_targets_or_nothing() {
    let units = vec![unit(0, 0, 0), unit(0, 255, 1), unit(0, 256, 2), unit(255, 16383, 3)];
    let device = device(units);
    let tur = cdb(6, &[]);
    let found = |lun: [u8; 8]| {
        let mut chain = Chain::command(lun, &tur, 0, 0);
        match chain.parse(&mut device.front()) {
            (Parsed::Submit, request) => Ok((request.target, request.map.0)),
            _ => Err((chain.response().header.response, chain.response().code())),
        }
    };
    let bad_target = Err((3, None));
    let absent = Err((0, Some(SenseCode::LUN_NOT_SUPPORTED)));
    let table = [
        ([1, 0, 0, 0, 0, 0, 0, 0], Ok((0, 0))),
        ([1, 0, 0x40, 0, 0, 0, 0, 0], Ok((0, 0))),
        ([1, 0, 0, 255, 0, 0, 0, 0], Ok((0, 1))),
        ([1, 0, 0x41, 0, 0, 0, 0, 0], Ok((0, 2))),
        ([1, 255, 0x7f, 0xff, 0, 0, 0, 0], Ok((255, 3))),
        ([1, 0, 0, 1, 0, 0, 0, 0], absent),
        ([1, 255, 0, 0, 0, 0, 0, 0], absent),
        ([1, 1, 0, 0, 0, 0, 0, 0], bad_target),
        ([0, 0, 0, 0, 0, 0, 0, 0], bad_target),
        ([2, 0, 0, 0, 0, 0, 0, 0], bad_target),
        ([1, 0, 1, 0, 0, 0, 0, 0], bad_target),
        ([1, 0, 0x80, 0, 0, 0, 0, 0], bad_target),
        ([1, 0, 0xc1, 2, 0, 0, 0, 0], bad_target),
        ([1, 0, 0, 0, 1, 0, 0, 0], bad_target),
        ([1, 0, 0, 0, 0, 0, 0, 1], bad_target),
        ([0xff; 8], bad_target),
    ];
    for (lun, expect) in table {
        assert_eq!(found(lun), expect, "{lun:02x?}");
    }
}

/// Whatever a response buffer of the wrong size means, nothing is done and
/// what fits is written.
#[test]
fn a_chain_without_room_for_a_response_or_without_a_whole_header_is_not_executed() {
    let (device, _) = with_unit(|_| ());
    let command = [&header(LUN_0, 77)[..], &read_10(0), &[0; 22]].concat();
    assert_eq!(command.len(), 51);
    for room in [0, 1, 8, 11, 12, 13, REPLY_LEN - 1] {
        let mut chain = Chain::new(command.clone(), room);
        let (parsed, _) = chain.parse(&mut device.front());
        assert_eq!(parsed, Parsed::Answered { used_len: u32::try_from(room).unwrap() });
        if room >= 12 {
            assert_eq!(chain.writable[0][..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], "FAILURE");
        }
    }
    for len in 0..51 {
        for piece in [usize::MAX, 5] {
            let mut chain = Chain::new(command[..len].to_vec(), REPLY_LEN).cut(piece);
            let (parsed, _) = chain.parse(&mut device.front());
            assert_eq!(parsed, Parsed::Answered { used_len: 108 }, "{len}");
            assert_eq!(chain.response().header.response, Response::Failure as u8, "{len}");
        }
    }
    let (parsed, _) = Chain::new(command, REPLY_LEN).parse(&mut device.front());
    assert_eq!(parsed, Parsed::Submit);
}

#[test]
fn naca_is_refused_with_the_field_and_other_task_attributes_run_as_simple() {
    let (device, _) = with_unit(|_| ());
    for (raw, at) in [
        (cdb(6, &[(5, 4)]), 5),
        (cdb(10, &[(0, 0x28), (9, 0xff)]), 9),
        (cdb(12, &[(0, 0xa8), (11, 4)]), 11),
        (cdb(16, &[(0, 0x88), (15, 4)]), 15),
        (cdb(32, &[(0, 0x7f), (1, 4), (7, 24), (9, 9)]), 1),
    ] {
        let mut chain = Chain::command(LUN_0, &raw, 0, 0);
        let (parsed, _) = chain.parse(&mut device.front());
        assert_eq!(parsed, Parsed::Answered { used_len: 108 }, "{raw:02x?}");
        let reply = chain.response();
        assert_eq!(reply.code(), Some(SenseCode::INVALID_FIELD_IN_CDB), "{raw:02x?}");
        assert_eq!(reply.sense[15..18], [0xca, 0, at], "SKSV, C/D, bit 2 of byte {at}");
    }
    for attribute in [0, 1, 2, 3, 255] {
        let mut chain = Chain::command(LUN_0, &read_10(1), 0, 512);
        chain.readable[0][16] = attribute;
        assert_eq!(chain.parse(&mut device.front()).0, Parsed::Submit, "{attribute}");
    }
}

#[test]
fn what_the_policy_denies_is_an_unknown_command_and_told_once() {
    let reserve = cdb(6, &[(0, 0x16)]);
    let register = cdb(10, &[(0, 0x5f), (8, 24)]);
    let format = cdb(6, &[(0, 0x04)]);
    let mode_select = cdb(6, &[(0, 0x15)]);
    let sent = |device: &ScsiDevice, raw: &[u8]| {
        let mut front = device.front();
        let mut chain = Chain::command(LUN_0, raw, 24, 0);
        let (parsed, _) = chain.parse(&mut front);
        let denied = front.denied();
        assert_eq!(front.denied(), None, "told once");
        if parsed == Parsed::Submit {
            return None;
        }
        assert_eq!(chain.response().code(), Some(SenseCode::INVALID_OPCODE));
        let Denied { map, cdb, group } = denied.expect("told");
        assert_eq!((map, cdb.as_slice()), (MAP, raw));
        Some(group)
    };
    let (device, _) = with_unit(|_| ());
    assert_eq!(sent(&device, &format), Some("format-unit"));
    assert_eq!(sent(&device, &mode_select), Some("mode-select"));
    assert_eq!(sent(&device, &reserve), Some("reserve"));
    assert_eq!(sent(&device, &register), None);
    assert_eq!(sent(&device, &cdb(10, &[(0, 0x5e), (8, 8)])), None, "PERSISTENT RESERVE IN");
    assert_eq!(sent(&device, &cdb(16, &[(0, 0xc0)])), Some("vendor"));
    let (one_path, _) = with_unit(|u| u.multipath = false);
    assert_eq!(sent(&one_path, &reserve), None);
    assert_eq!(sent(&one_path, &register), None);
    let (exposed, _) = with_unit(|u| u.joined = false);
    assert_eq!(sent(&exposed, &reserve), None);
    // A second path has joined, and the table of LUs does not say so yet.
    let (late, _) = with_unit(|u| {
        u.multipath = false;
        assert!(u.nexus.join());
    });
    assert_eq!(sent(&late, &reserve), Some("reserve"));
    assert_eq!(sent(&late, &register), None);
    let (fresh, one) = with_unit(|u| u.multipath = false);
    assert_eq!(sent(&fresh, &register), None);
    assert!(!one.nexus.is_reserved(), "persistent reservations bind a LU to no path");
    assert_eq!(sent(&fresh, &reserve), None);
    assert!(one.nexus.is_reserved());
    let (strict, _) = with_unit(|u| u.policy.deny(Group::PersistentReserveOut));
    assert_eq!(sent(&strict, &register), Some("persistent-reserve-out"));
    let (lax, _) = with_unit(|u| u.policy.allow(Group::ModeSelect));
    assert_eq!(sent(&lax, &mode_select), None);
    let (strict, _) = with_unit(|u| u.policy.deny(Group::ZoneOut));
    assert_eq!(sent(&strict, &cdb(16, &[(0, 0x94), (1, 1)])), Some("zone-out"));
}

/// PERSISTENT RESERVE OUT with this action and list length, and so many bytes.
fn reserve_out(action: u8, stated: u8, bytes: &[u8]) -> Chain {
    let mut chain = Chain::command(LUN_0, &cdb(10, &[(0, 0x5f), (1, action), (8, stated)]), 0, 0);
    chain.readable[0].extend_from_slice(bytes);
    chain
}

#[test]
fn what_concerns_every_path_is_an_order_with_its_list() {
    let list: Vec<u8> = (1..=40).collect();
    for (multipath, action, stated, kept) in
        [(true, 0, 24, 24), (false, 3, 24, 24), (true, 7, 40, 24), (true, 6, 8, 8), (true, 0, 0, 0)]
    {
        let (device, _) = with_unit(|u| u.multipath = multipath);
        for piece in [usize::MAX, 19, 5, 1] {
            let mut chain = reserve_out(action, stated, &list).cut(piece);
            let mut front = device.front();
            let (parsed, mut request) = chain.parse(&mut front);
            assert_eq!(parsed, Parsed::Submit);
            assert!(request.ordered);
            assert_eq!(request.front.buffer, list[..kept], "law 7: copied");
            let Some(Op::Cdb { cdb, .. }) = request.op else { panic!("{request:?}") };
            assert_eq!((cdb.as_slice()[1], cdb.as_slice()[8]), (action, stated));
            assert_eq!(front.finish(&mut request, &Outcome::Good), 108);
            let residual = u32::from(40 - stated);
            assert_eq!(
                (chain.response().header.status, chain.response().header.residual),
                (0, residual)
            );
        }
    }
    let (device, _) = with_unit(|_| ());
    let short = reserve_out(0, 24, &list[..23]).parse(&mut device.front()).0;
    assert_eq!(short, Parsed::Answered { used_len: 108 }, "OVERRUN, as of any command");
    let (exposed, _) = with_unit(|u| u.joined = false);
    let (_, request) = reserve_out(0, 24, &list).parse(&mut exposed.front());
    assert!(!request.ordered, "the guest knows which path it means");
    let mut read = Chain::command(LUN_0, &read_10(1), 0, 512);
    assert!(!read.parse(&mut device.front()).1.ordered);
}

/// The LU's word by whatever path is passed on as it is; what we say in its
/// stead is in the format it uses.
#[test]
fn an_order_ends_in_the_lus_own_words_or_in_ours_as_it_would_say_them() {
    let (device, _) = with_unit(|_| ());
    let answer = |sense: Sense, descriptor: bool| {
        let mut chain = Chain::command(LUN_0, &read_10(1), 0, 512);
        let said = Sense::build(SenseFormat::of(descriptor), SenseCode::LU_RESET, None);
        let status = Status::CHECK_CONDITION;
        exchange(&device, &mut chain, &[], |_| Outcome::Lu { status, sense: said, residual: 512 });
        let mut chain = reserve_out(2, 24, &[0; 24]);
        let mut front = device.front();
        let (_, mut request) = chain.parse(&mut front);
        front.finish(&mut request, &Outcome::Lu { status, sense, residual: 24 });
        let reply = chain.response();
        assert_eq!((reply.header.status, reply.header.residual), (2, 24));
        reply.sense
    };
    let code = SenseCode::INVALID_FIELD_IN_PARAMETER_LIST;
    let field = Some(FieldPointer::parameter(20).bit(3));
    let ours = Sense::build(SenseFormat::Fixed, code, field);
    assert_eq!(answer(ours, false), ours.as_bytes());
    let descriptor = Sense::build(SenseFormat::Descriptor, code, field);
    assert_eq!(answer(ours, true), descriptor.as_bytes());
    let theirs = Sense::from_bytes(&[0x70, 0, 5, 0, 0, 0, 0, 10, 1, 2, 3, 4, 0x26, 4, 0, 0, 0, 0]);
    assert_eq!(answer(theirs, true), theirs.as_bytes());
    assert_eq!(answer(descriptor, false), descriptor.as_bytes());
}

#[test]
fn a_read_only_disk_takes_no_command_that_changes_it() {
    let protected = || Expect::Check(SenseCode::WRITE_PROTECTED);
    let sync = cdb(10, &[(0, 0x35)]);
    let rows = vec![
        row("write", write_10(1), 512, 0, protected()),
        row("write same", cdb(16, &[(0, 0x93), (13, 1)]), 512, 0, protected()),
        row("unmap", cdb(10, &[(0, 0x42), (8, 24)]), 24, 0, protected()),
        row("compare and write", cdb(16, &[(0, 0x89), (13, 1)]), 1024, 0, protected()),
        row("read", read_10(1), 0, 512, submit(&read_10(1), Direction::In, 512)),
        row("synchronize cache", sync.clone(), 0, 0, submit(&sync, Direction::None, 0)),
    ];
    check(&with_unit(|u| u.read_only = true).0, rows);
}

#[test]
fn only_its_own_bytes_of_the_chain_are_the_commands_data() {
    let (device, _) = with_unit(|_| ());
    for piece in [usize::MAX, 64, 19, 3] {
        let mut chain = Chain::command(LUN_0, &write_10(1), 600, 0);
        for (i, byte) in (0_u8..=255).cycle().zip(&mut chain.readable[0][51..]) {
            *byte = i;
        }
        let expect = chain.readable[0][51..51 + 512].to_vec();
        let mut chain = chain.cut(piece);
        let (_, request) = chain.parse(&mut device.front());
        let mut data = vec![0; 512];
        assert_eq!(crate::guest::copy::copy_in(&request.data, 0, &mut data), 512);
        assert_eq!(data, expect, "cut every {piece} bytes");

        let mut chain = Chain::command(LUN_0, &read_10(1), 0, 600).cut(piece);
        let (_, mut request) = chain.parse(&mut device.front());
        crate::guest::copy::fill(&request.data, 0, 0x11, 600);
        let used = device.front().finish(&mut request, &Outcome::Good);
        let reply = chain.response();
        assert_eq!(used, 108 + 512);
        reply.assert_data(&[0x11; 512], "cut");
    }
}

/// An earlier owner of the ring may have had it executed (law 3): whatever says
/// that it was not, or that it is to be sent again, would have it done twice.
#[test]
fn a_replayed_command_that_must_not_be_repeated_is_left_to_the_request_core() {
    let (device, one) = with_unit(|u| u.read_only = true);
    one.attentions.raise(&Sense::fixed(SenseCode::LU_RESET));
    let compare_and_write = cdb(16, &[(0, 0x89), (13, 1)]);
    for (raw, out) in [(compare_and_write, 1024), (cdb(10, &[(0, 0x5f), (8, 24)]), 24)] {
        let mut chain = Chain::command(LUN_0, &raw, out, 0);
        let mut request = Request { replayed: true, ..Request::default() };
        request.tag.ring = FIRST_REQUEST_QUEUE;
        let (readable, writable) = (segments(&mut chain.readable), segments(&mut chain.writable));
        let mut front = device.front();
        assert_eq!(front.parse(&readable, &writable, &mut request), Parsed::Submit, "{raw:02x?}");
        assert!(front.denied().is_none());
        let Some(Op::Cdb { cdb, .. }) = request.op else { panic!("{request:?}") };
        assert_eq!(cdb.as_slice(), raw);
        for outcome in [Outcome::Stopped, Outcome::NoPath] {
            front.finish(&mut request, &outcome);
            let reply = chain.response();
            assert_eq!((reply.header.response, reply.header.status), (0, 2), "{outcome:?}");
            assert_eq!(reply.code(), Some(SenseCode::IO_PROCESS_TERMINATED), "{outcome:?}");
        }
    }
    // What may be repeated carries the unit attention as any other does.
    let mut chain = Chain::command(LUN_0, &read_10(1), 0, 512);
    let mut request = Request { replayed: true, ..Request::default() };
    request.tag.ring = FIRST_REQUEST_QUEUE;
    let (readable, writable) = (segments(&mut chain.readable), segments(&mut chain.writable));
    let parsed = device.front().parse(&readable, &writable, &mut request);
    assert!(matches!(parsed, Parsed::Answered { .. }));
    assert_eq!(chain.response().code(), Some(SenseCode::LU_RESET));
}
