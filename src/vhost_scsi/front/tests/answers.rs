//! How a command that was sent ends, and what the target itself answers.

use super::*;
use crate::scsi::attention::Attentions;
use crate::scsi::luns;
use crate::scsi::sense::Key;
use crate::vhost_scsi::NoPathAnswer;

fn ending(outcome: Outcome, no_path: NoPathAnswer) -> (Reply, u32) {
    let (device, _) = with_unit(|u| u.no_path = no_path);
    let mut chain = Chain::command(LUN_0, &read_10(2), 0, 1024);
    let mut front = device.front();
    let (parsed, mut request) = chain.parse(&mut front);
    assert_eq!(parsed, Parsed::Submit);
    let used = front.finish(&mut request, &outcome);
    (chain.response(), used)
}

/// The one table of endings, row by row.
#[test]
fn every_outcome_has_its_response() {
    use NoPathAnswer::{NotReady, TransportError};
    let host = Outcome::Host;
    let code = |key, asc, ascq| Some(SenseCode::new(key, asc, ascq));
    type Row = (&'static str, Outcome, NoPathAnswer, u8, u8, Option<SenseCode>);
    let rows: &[Row] = &[
        ("no path", Outcome::NoPath, TransportError, 6, 0, None),
        ("no path, not ready", Outcome::NoPath, NotReady, 0, 2, code(Key::NotReady, 0x3a, 0)),
        ("aborted", Outcome::Aborted { reset: false }, TransportError, 2, 0, None),
        ("reset", Outcome::Aborted { reset: true }, NotReady, 4, 0, None),
        ("stopped", Outcome::Stopped, NotReady, 5, 0, None),
        ("EREMOTEIO", host(121), NotReady, 7, 0, None),
        ("EBADE", host(52), NotReady, 0, 0x18, None),
        ("ENOSPC", host(28), NotReady, 0, 2, code(Key::DataProtect, 0x27, 0x07)),
        ("ENODATA", host(61), NotReady, 0, 2, code(Key::MediumError, 0x11, 0)),
        ("timed out", Outcome::TimedOut, NotReady, 0, 2, code(Key::AbortedCommand, 0x2e, 0x02)),
        ("EIO", host(5), NotReady, 9, 0, None),
        ("EINVAL", host(22), NotReady, 9, 0, None),
        ("nonsense", host(i32::MIN), NotReady, 9, 0, None),
    ];
    for (name, outcome, no_path, response, status, code) in rows {
        let (reply, used) = ending(*outcome, *no_path);
        assert_eq!((reply.header.response, reply.header.status), (*response, *status), "{name}");
        assert_eq!(reply.code(), *code, "{name}");
        assert_eq!(reply.header.residual, 1024, "{name}");
        assert_eq!(used, 108, "{name}");
    }
    let (reply, used) = ending(Outcome::Good, TransportError);
    assert_eq!((reply.header.response, reply.header.status, reply.header.residual), (0, 0, 0));
    assert_eq!(used, 108 + 1024);
}

/// Law 4: status, sense and residual byte for byte, whatever they are.
#[test]
fn the_lus_word_is_delivered_exactly() {
    let long: Vec<u8> = [0x72, 3, 0x11, 0, 0, 0, 0, 200].into_iter().chain(9..=96).collect();
    assert_eq!(long.len(), 96);
    let senses: &[&[u8]] = &[
        &[],
        &[0x70],
        &[0x70, 0, 3, 0, 0, 0, 9, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0],
        &[0x71, 0, 3, 0, 0, 0, 9, 10],
        &[0xff; 20],
        &long,
    ];
    for status in [0x00, 0x02, 0x04, 0x08, 0x18, 0x28, 0x30, 0x40, 0xff] {
        for sense in senses {
            for residual in [0, 1, 512, 1024] {
                let status = Status(status);
                let sense = Sense::from_bytes(sense);
                let outcome = Outcome::Lu { status, sense, residual };
                let (reply, used) = ending(outcome, NoPathAnswer::NotReady);
                assert_eq!((reply.header.response, reply.header.status), (0, status.0));
                assert_eq!(reply.sense, sense.as_bytes());
                assert_eq!(reply.header.residual, residual);
                assert_eq!(used, 108 + 1024 - residual);
            }
        }
    }
    let sense = Sense::EMPTY;
    let outcome = Outcome::Lu { status: Status::GOOD, sense, residual: u32::MAX };
    let (reply, used) = ending(outcome, NoPathAnswer::NotReady);
    assert_eq!((reply.header.residual, used), (1024, 108), "an absurd residual is all of it");
}

#[test]
fn residual_counts_what_the_guest_gave_beyond_the_command() {
    let (device, _) = with_unit(|_| ());
    for (raw, out, room, data_len) in [
        (write_10(1), 700, 0, 512),
        (read_10(1), 0, 700, 512),
        (cdb(6, &[]), 700, 0, 0),
        (cdb(6, &[]), 0, 700, 0),
        (cdb(10, &[(0, 0x4d), (8, 64)]), 0, 700, 64),
    ] {
        for short in [0, 10_u32] {
            let short = if data_len == 0 { 0 } else { short };
            let mut chain = Chain::command(LUN_0, &raw, out, room);
            let (_, mut request) = chain.parse(&mut device.front());
            let outcome =
                Outcome::Lu { status: Status::GOOD, sense: Sense::EMPTY, residual: short };
            let used = device.front().finish(&mut request, &outcome);
            assert_eq!(chain.response().header.residual, 700 - data_len + short, "{raw:02x?}");
            let read = if room > 0 { data_len - short } else { 0 };
            assert_eq!(used, 108 + read, "{raw:02x?}");
        }
    }
}

#[test]
fn sense_size_is_honoured() {
    let (device, _) = with_unit(|_| ());
    let sense = Sense::from_bytes(&(1..=96).collect::<Vec<u8>>());
    for size in [0_u8, 1, 18, 96, 252] {
        device.set_config(20, &[size, 0, 0, 0]).expect("valid");
        let size = usize::from(size);
        let mut chain = Chain::command(LUN_0, &read_10(1), 0, 0);
        chain.writable = vec![vec![UNTOUCHED; 12 + size + 512]];
        let (parsed, mut request) = chain.parse(&mut device.front());
        assert_eq!(parsed, Parsed::Submit);
        crate::guest::copy::fill(&request.data, 0, 0x11, 512);
        // The driver changes its mind while the command is out: the response
        // fits the buffers it gave.
        device.set_config(20, &[96, 0, 0, 0]).expect("valid");
        let outcome = Outcome::Lu { status: Status::CHECK_CONDITION, sense, residual: 0 };
        let used = device.front().finish(&mut request, &outcome);
        assert_eq!(used, u32::try_from(12 + size + 512).unwrap());
        let raw = &chain.writable[0];
        let kept = size.min(96);
        assert_eq!(raw[0..4], u32::try_from(kept).unwrap().to_le_bytes());
        assert_eq!(raw[12..12 + kept], sense.as_bytes()[..kept]);
        assert!(raw[12 + kept..12 + size].iter().all(|b| *b == 0));
        assert_eq!(raw[12 + size..], [0x11; 512]);
    }
}

// --- the target's own answers ----------------------------------------------------

const ABSENT: [u8; 8] = [1, 0, 0, 9, 0, 0, 0, 0];
const WELL_KNOWN: [u8; 8] = [0xc1, 1, 0, 0, 0, 0, 0, 0];
const WELL_KNOWN_OF_3: [u8; 8] = [1, 3, 0xc1, 1, 0, 0, 0, 0];

fn report_luns(select: u8, allocation: u8) -> Vec<u8> {
    cdb(12, &[(0, 0xa0), (2, select), (9, allocation)])
}

#[test]
fn report_luns_lists_the_target_whoever_is_asked() {
    let device = device(vec![unit(0, 0, 0), unit(0, 300, 1), unit(3, 1, 2)]);
    let list = |luns: &[u16]| luns::report_luns(luns.iter().copied(), 0, 255).expect("valid");
    let both = Expect::Data(luns::report_luns([0, 300], 2, 255).expect("valid"));
    let at = |name, lun, cdb, expect| Row { name, lun, cdb, out: 0, room: 255, expect };
    let all = || Expect::Data(list(&[0, 300]));
    let others = || Expect::Data(list(&[1]));
    let lun_300 = luns::encode(0, 300);
    let wrong = || Expect::Check(SenseCode::INVALID_FIELD_IN_CDB);
    check(
        &device,
        vec![
            at("LUN 0", LUN_0, report_luns(0, 255), all()),
            at("another LUN", lun_300, report_luns(0, 255), all()),
            at("absent LUN", ABSENT, report_luns(0, 255), all()),
            at("absent LUN 0", [1, 3, 0, 0, 0, 0, 0, 0], report_luns(0, 255), others()),
            at("well-known LU", WELL_KNOWN, report_luns(0, 255), all()),
            at("well-known LU of a target", WELL_KNOWN_OF_3, report_luns(0, 255), others()),
            at("all of them", LUN_0, report_luns(2, 255), both),
            at("cut", LUN_0, report_luns(0, 17), Expect::Data(list(&[0, 300])[..17].to_vec())),
            at("short allocation", LUN_0, report_luns(0, 15), wrong()),
            at("unknown selection", LUN_0, report_luns(0x55, 255), wrong()),
        ],
    );
    check(
        &device,
        vec![Row {
            name: "short buffer",
            lun: LUN_0,
            cdb: report_luns(0, 255),
            out: 0,
            room: 9,
            expect: Expect::Data(list(&[0, 300])[..9].to_vec()),
        }],
    );
}

/// SPC-5 4.6.1: peripheral qualifier 3, sense 05/25/00.
#[test]
fn an_absent_lun_of_a_target_is_described_not_hidden() {
    let (device, _) = with_unit(|_| ());
    let at = |name, cdb, expect| Row { name, lun: ABSENT, cdb, out: 0, room: 64, expect };
    let standard = crate::scsi::inquiry::absent();
    assert_eq!(standard[0], 0x7f);
    let gone = || Expect::Check(SenseCode::LUN_NOT_SUPPORTED);
    let wrong = || Expect::Check(SenseCode::INVALID_FIELD_IN_CDB);
    let sense = Sense::fixed(SenseCode::LUN_NOT_SUPPORTED).as_bytes().to_vec();
    let descriptor = Sense::descriptor(SenseCode::LUN_NOT_SUPPORTED).as_bytes().to_vec();
    let request_sense = |desc, len| cdb(6, &[(0, 0x03), (1, desc), (4, len)]);
    check(
        &device,
        vec![
            at("inquiry", inquiry(None, 255), Expect::Data(standard.to_vec())),
            at("inquiry of 5 bytes", inquiry(None, 5), Expect::Data(standard[..5].to_vec())),
            at("inquiry of nothing", inquiry(None, 0), Expect::Data(vec![])),
            at("page 00h", inquiry(Some(0), 255), Expect::Data(vec![0x7f, 0, 0, 1, 0])),
            at("page 83h", inquiry(Some(0x83), 255), wrong()),
            at("page without EVPD", cdb(6, &[(0, 0x12), (2, 0x80), (4, 9)]), wrong()),
            at("CMDDT", cdb(6, &[(0, 0x12), (1, 2), (4, 9)]), wrong()),
            at("request sense", request_sense(0, 252), Expect::Data(sense.clone())),
            at("request sense, 4 bytes", request_sense(0, 4), Expect::Data(sense[..4].to_vec())),
            at("request sense, descriptors", request_sense(1, 252), Expect::Data(descriptor)),
            at("test unit ready", cdb(6, &[]), gone()),
            at("read", read_10(1), gone()),
            at("format unit", cdb(6, &[(0, 0x04)]), gone()),
            at("vendor specific", cdb(16, &[(0, 0xff)]), gone()),
            at("NACA", cdb(6, &[(0, 0x12), (4, 255), (5, 4)]), wrong()),
        ],
    );
}

#[test]
fn the_well_known_lu_answers_four_commands() {
    let (device, _) = with_unit(|_| ());
    let at = |name, cdb, expect| Row { name, lun: WELL_KNOWN, cdb, out: 0, room: 64, expect };
    let no_sense = Sense::fixed(SenseCode::NO_SENSE).as_bytes().to_vec();
    let standard = crate::scsi::inquiry::well_known().to_vec();
    let unknown = || Expect::Check(SenseCode::INVALID_OPCODE);
    check(
        &device,
        vec![
            at("test unit ready", cdb(6, &[]), Expect::Data(vec![])),
            at("inquiry", inquiry(None, 255), Expect::Data(standard)),
            at("page 00h", inquiry(Some(0), 255), Expect::Data(vec![0x1e, 0, 0, 1, 0])),
            at("request sense", cdb(6, &[(0, 3), (4, 252)]), Expect::Data(no_sense)),
            at("read", read_10(1), unknown()),
            at("mode sense", cdb(6, &[(0, 0x1a), (4, 9)]), unknown()),
        ],
    );
    let empty = super::device(vec![]);
    for lun in [WELL_KNOWN, WELL_KNOWN_OF_3, LUN_0] {
        let expect = Expect::Response(Response::BadTarget);
        check(&empty, vec![Row { name: "no LU", lun, cdb: cdb(6, &[]), out: 0, room: 0, expect }]);
    }
}

fn attention(asc: u8, ascq: u8) -> Sense {
    Sense::fixed(SenseCode::new(Key::UnitAttention, asc, ascq))
}

/// SAM-5 5.14: reported once, before the command is executed; not by INQUIRY,
/// REPORT LUNS; as data by REQUEST SENSE.
#[test]
fn a_pending_unit_attention_meets_the_next_command() {
    let (device, one) = with_unit(|_| ());
    let once = |raw: &[u8]| {
        one.attentions.raise(&attention(0x2a, 0x09));
        let mut chain = Chain::command(LUN_0, raw, 0, 512);
        let (parsed, _) = chain.parse(&mut device.front());
        let pending = one.attentions.take().is_some();
        match parsed {
            Parsed::Answered { .. } => (Some(chain.response()), pending),
            _ => (None, pending),
        }
    };
    let resize = SenseCode::new(Key::UnitAttention, 0x2a, 0x09);
    let denied = cdb(6, &[(0, 0x04)]);
    let naca = cdb(6, &[(5, 4)]);
    for raw in [cdb(6, &[]), read_10(1), read_10(9), denied, naca, cdb(10, &[(0, 0x25)])] {
        let (reply, pending) = once(&raw);
        assert_eq!(reply.and_then(|r| r.code()), Some(resize), "{raw:02x?}");
        assert!(!pending, "{raw:02x?}: told, not pending");
    }
    let (reply, pending) = once(&inquiry(None, 36));
    assert!(reply.is_none() && pending, "INQUIRY passes and leaves it");
    let (reply, pending) = once(&report_luns(0, 255));
    assert_eq!(reply.map(|r| r.header.status), Some(0), "REPORT LUNS passes and leaves it");
    assert!(pending);
    let (reply, pending) = once(&cdb(6, &[(0, 0x03), (4, 252)]));
    let reply = reply.expect("answered");
    assert_eq!((reply.header.status, reply.header.residual), (0, 512 - 18));
    assert_eq!(Sense::from_bytes(&reply.data[..18]), attention(0x2a, 0x09));
    assert!(!pending);
    let (reply, _) = once(&cdb(6, &[(0, 0x03), (1, 1), (4, 252)]));
    let reply = reply.expect("answered");
    assert_eq!(reply.data[..8], *Sense::descriptor(resize).as_bytes(), "DESC");
}

#[test]
fn unit_attentions_are_told_one_by_one_and_by_lu() {
    let units = vec![unit(0, 0, 0), unit(0, 1, 1)];
    let device = device(units.clone());
    units[0].attentions.raise(&attention(0x29, 0x03));
    units[0].attentions.raise(&attention(0x2a, 0x01));
    let code = |lun: u8| {
        let mut chain = Chain::command([1, 0, 0, lun, 0, 0, 0, 0], &cdb(6, &[]), 0, 0);
        match chain.parse(&mut device.front()).0 {
            Parsed::Answered { .. } => chain.response().code().map(|c| (c.asc, c.ascq)),
            _ => None,
        }
    };
    assert_eq!(code(1), None);
    assert_eq!(code(0), Some((0x29, 0x03)));
    assert_eq!(code(0), Some((0x2a, 0x01)));
    assert_eq!(code(0), None);
}

/// SPC-5 6.33.
#[test]
fn report_luns_clears_reported_luns_have_changed_for_the_target() {
    let units = vec![unit(0, 0, 0), unit(0, 1, 1), unit(1, 0, 2)];
    let device = device(units.clone());
    for one in &units {
        one.attentions.raise(&Sense::fixed(SenseCode::REPORTED_LUNS_CHANGED));
    }
    units[1].attentions.raise(&attention(0x29, 0x03));
    let mut refused = Chain::command(LUN_0, &report_luns(0, 8), 0, 255);
    refused.parse(&mut device.front());
    assert!(units[0].attentions.is_pending(), "a refused REPORT LUNS tells nothing");
    Chain::command(LUN_0, &report_luns(0, 255), 0, 255).parse(&mut device.front());
    assert!(!units[0].attentions.is_pending());
    assert_eq!(units[1].attentions.take(), Some(attention(0x29, 0x03)));
    assert!(units[2].attentions.is_pending(), "another target");
}

#[test]
fn access_states_are_ours_where_the_guest_sees_one_lu() {
    let rtpg = |format: u8, len| cdb(12, &[(0, 0xa3), (1, format | 0x0a), (9, len)]);
    let groups = crate::scsi::alua::report_one_group(false, 1, 1);
    let extended = crate::scsi::alua::report_one_group(true, 1, 1);
    assert_eq!(groups[4] & 0x0f, 0, "active/optimized");
    check(
        &with_unit(|_| ()).0,
        vec![
            row("plain", rtpg(0, 255), 0, 64, Expect::Data(groups.clone())),
            row("extended", rtpg(0x20, 255), 0, 64, Expect::Data(extended)),
            row("cut", rtpg(0, 6), 0, 64, Expect::Data(groups[..6].to_vec())),
            row("unknown format", rtpg(0x40, 255), 0, 64, {
                Expect::Check(SenseCode::INVALID_FIELD_IN_CDB)
            }),
        ],
    );
    let pass = rtpg(0, 64);
    let (exposed, _) = with_unit(|u| u.joined = false);
    check(
        &exposed,
        vec![row("guest sees paths", pass.clone(), 0, 64, {
            Expect::Submit(pass, Direction::In, 64)
        })],
    );
}

/// A unit without joined paths has its own word, even on path events.
#[test]
fn exposed_paths_tell_their_own_unit_attentions() {
    let (device, one) = with_unit(|u| {
        u.joined = false;
        u.attentions = std::sync::Arc::new(Attentions::new(false));
    });
    one.attentions.overheard(1, &attention(0x2a, 0x06));
    let mut chain = Chain::command(LUN_0, &cdb(6, &[]), 0, 0);
    chain.parse(&mut device.front());
    assert_eq!(chain.response().code(), Some(SenseCode::ACCESS_STATE_CHANGED));
}

/// SPC-5 4.4.1, D_SENSE: what we say in a LU's name is in the format it uses.
#[test]
fn our_sense_is_in_the_format_of_the_lu() {
    let units = vec![unit(0, 0, 5), unit(0, 1, 6)];
    let device = device(units.clone());
    let ours = |lun: u8| {
        let mut chain = Chain::command([1, 0, 0, lun, 0, 0, 0, 0], &cdb(6, &[(5, 4)]), 0, 0);
        chain.parse(&mut device.front());
        chain.response().sense
    };
    let says = |sense: Sense| {
        let mut chain = Chain::command(LUN_0, &cdb(6, &[]), 0, 0);
        let (_, reply, _) = exchange(&device, &mut chain, &[], |_| Outcome::Lu {
            status: Status::CHECK_CONDITION,
            sense,
            residual: 0,
        });
        reply
    };
    let not_ready = SenseCode::NOT_READY_TRANSITIONING;
    assert_eq!(ours(0)[0], 0x70, "until the LU has said something");
    says(Sense::descriptor(not_ready));
    let sense = ours(0);
    assert_eq!(sense[..4], [0x72, 5, 0x24, 0]);
    assert_eq!(sense[8..15], [2, 6, 0, 0, 0xca, 0, 5], "the field pointer, too");
    assert_eq!(ours(1)[0], 0x70, "another LU");
    assert_eq!(ours(9)[0], 0x70, "no LU");
    units[0].attentions.raise(&attention(0x29, 0x03));
    assert_eq!(ours(0), Sense::descriptor(SenseCode::LU_RESET).as_bytes(), "raised by ourselves");
    let exact = Sense::from_bytes(&[0x70, 0, 6, 0, 0, 0, 0, 10, 1, 2, 3, 4, 0x2a, 9, 0, 0, 0, 0]);
    units[0].attentions.raise(&exact);
    assert_eq!(ours(0), exact.as_bytes(), "a path's own words");
    says(Sense::from_bytes(&[0x7f, 1, 2]));
    assert_eq!(ours(0)[0], 0x72, "nonsense says nothing of the format");
    // What the request core says of an ambiguous result is ours, too.
    let terminated = SenseCode::IO_PROCESS_TERMINATED;
    let reply = says(Sense::fixed(terminated));
    assert_eq!(reply.sense, Sense::descriptor(terminated).as_bytes());
    assert_eq!(ours(0)[0], 0x72, "and says nothing of the LU's format");
    // Another LU in its place.
    device.set_units(vec![units[1].clone()]);
    device.set_units(units.clone());
    assert_eq!(ours(0)[0], 0x70);
    says(Sense::descriptor(not_ready));
    says(Sense::fixed(not_ready));
    assert_eq!(ours(0)[0], 0x70);
}
