use super::*;
use crate::scsi::block::{Direction, Op};
use crate::scsi::cdb::{CDB_MAX, opcode_name};
use proptest::prelude::*;

fn cdb(raw: &[u8]) -> Cdb {
    Cdb::from_bytes(raw).unwrap()
}

/// A CDB of `opcode` with its service action where the standard has it.
fn with_action(opcode: u8, service_action: u16) -> Cdb {
    let mut raw = [0; 16];
    raw[0] = opcode;
    match opcode {
        0x7f => be::put(&mut raw, 8, service_action.to_be_bytes()),
        _ => raw[1] = u8::try_from(service_action).unwrap(),
    }
    cdb(&raw)
}

fn group_of(raw: &[u8]) -> Option<Group> {
    info(&cdb(raw)).group
}

#[test]
fn rows_are_in_order_so_that_each_is_found() {
    let rows: Vec<_> = commands().collect();
    for pair in rows.windows(2) {
        let key = |(opcode, action, _): (u8, Option<u16>, _)| (opcode, action.unwrap_or(u16::MAX));
        assert!(key(pair[0]) < key(pair[1]), "{:02x?}", pair[1]);
    }
    for (opcode, action, info) in rows {
        assert_eq!(known(opcode, action), info, "{opcode:02x}/{action:02x?}");
        if action.is_some() {
            assert!(has_service_action(opcode), "{opcode:02x}");
        }
    }
}

#[test]
fn every_row_has_a_name_for_events() {
    for (opcode, action, _) in commands() {
        assert!(opcode_name(opcode, action.unwrap_or(u16::MAX)).is_some(), "{opcode:02x}");
    }
}

#[test]
fn the_default_denies_what_endangers_others() {
    use Group::*;
    // The list of the requirement, by operation code, not by our table.
    let rows: &[(&[u8], Group)] = &[
        (&[0x04, 0, 0, 0, 0, 0], FormatUnit),
        (&[0x38, 0, 0, 0, 0, 0, 0, 0, 0, 0], FormatUnit),
        (&[0x3b, 0x05, 0, 0, 0, 0, 0, 0, 1, 0], WriteBuffer),
        (&[0x48, 0x01, 0, 0, 0, 0, 0, 0, 0, 0], Sanitize),
        (&[0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0], Sanitize),
        (&[0x9e, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Depopulate),
        (&[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], MaintenanceOut),
        (&[0xa4, 0x06, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], MaintenanceOut),
        (&[0xa4, 0x1f, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], MaintenanceOut),
        (&[0xa4, 0x0f, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0], SetTimestamp),
        (&[0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], ThirdPartyCopy),
        (&[0x83, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], ThirdPartyCopy),
        (&[0x84, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], ThirdPartyCopy),
        (&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], ThirdPartyCopy),
        (&[0x1b, 0, 0, 0, 0, 0], StopUnit),
        (&[0x15, 0x10, 0, 0, 24, 0], ModeSelect),
        (&[0x55, 0x10, 0, 0, 0, 0, 0, 0, 28, 0], ModeSelect),
        (&[0x4c, 0x02, 0, 0, 0, 0, 0, 0, 0, 0], LogSelect),
        (&[0x3f, 0, 0, 0, 0, 0, 0, 2, 8, 0], WriteLong),
        (&[0x9f, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 8, 0, 0], WriteLong),
        (&[0x1d, 0x10, 0, 0, 4, 0], SendDiagnostic),
        (&[0xb5, 0xef, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], SecurityProtocolOut),
        (&[0x8c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], Attribute),
        (&[0x8d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], Attribute),
        (&[0x85, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0, 0], AtaPassThrough),
        (&[0xa1, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0, 0, 0], AtaPassThrough),
        (&[0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Vendor),
        (&[0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0], Vendor),
        (&[0xa3, 0x1f, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], Vendor),
        (&[0x01, 0, 0, 0, 0, 0], Unknown),
        (&[0x7e, 0, 0, 0, 0, 0, 0, 0, 0, 0], Unknown),
        (&[0xa3, 0x1e, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], Unknown),
        (&[0x9e, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], Unknown),
    ];
    let policy = CommandPolicy::default();
    for (raw, group) in rows {
        for joined in [false, true] {
            assert_eq!(policy.verdict(&cdb(raw), joined), Err(*group), "{raw:02x?}");
        }
        let CommandInfo { idempotent, .. } = info(&cdb(raw));
        assert!(!idempotent || matches!(group, StopUnit | Attribute), "{raw:02x?}");
    }
}

#[test]
fn variable_length_commands_are_judged_by_their_service_action() {
    let policy = CommandPolicy::default();
    let verdict = |action| policy.verdict(&with_action(0x7f, action), true);
    for harmless in [0x03, 0x04, 0x06, 0x07, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x12] {
        assert_eq!(verdict(harmless), Ok(()), "{harmless:04x}");
    }
    assert_eq!(verdict(0x05), Err(Group::ThirdPartyCopy), "XDWRITE EXTENDED writes elsewhere");
    assert_eq!(verdict(0x1ff0), Err(Group::AtaPassThrough));
    assert_eq!(verdict(0x8805), Err(Group::Vendor), "object storage");
    assert_eq!(verdict(0xffff), Err(Group::Vendor));
    assert_eq!(verdict(0x0000), Err(Group::Unknown));
    assert_eq!(group_of(&[0x7f, 0, 0, 0, 0, 0, 0, 24, 0]), Some(Group::Unknown), "cut");
    assert!(!info(&with_action(0x7f, 0x07)).idempotent, "XDWRITEREAD");
    assert!(info(&with_action(0x7f, 0x0b)).idempotent, "WRITE(32)");
}

#[test]
fn a_unit_is_started_by_anyone_and_stopped_by_nobody() {
    let start_stop = |flags| group_of(&[0x1b, 0, 0, 0, flags, 0]);
    assert_eq!(start_stop(0x01), None);
    for flags in [0x00, 0x02, 0x03, 0x11, 0x20, 0x31, 0xb1, 0x04] {
        assert_eq!(start_stop(flags), Some(Group::StopUnit), "{flags:02x}");
    }
    assert_eq!(group_of(&[0x1b]), Some(Group::StopUnit), "a missing byte reads as zero");
}

#[test]
fn a_plain_self_test_is_all_of_send_diagnostic_that_passes() {
    let send = |flags, length| group_of(&[0x1d, flags, 0, 0, length, 0]);
    for self_test in [0x04, 0x20, 0x40, 0x80, 0xa0, 0xc0, 0x14] {
        assert_eq!(send(self_test, 0), None, "{self_test:02x}");
        assert_eq!(send(self_test | 0x01, 0), Some(Group::SendDiagnostic), "UNITOFFL");
        assert_eq!(send(self_test | 0x02, 0), Some(Group::SendDiagnostic), "DEVOFFL");
        assert_eq!(send(self_test, 4), Some(Group::SendDiagnostic), "a parameter list");
    }
    for other in [0x00, 0x10, 0x60, 0xe0] {
        assert_eq!(send(other, 0), Some(Group::SendDiagnostic), "{other:02x}");
    }
}

#[test]
fn what_a_disk_is_used_with_passes() {
    let policy = CommandPolicy::default();
    let plain: &[u8] = &[
        0x00, 0x03, 0x07, 0x08, 0x0a, 0x12, 0x1a, 0x1c, 0x1e, 0x25, 0x28, 0x2a, 0x2e, 0x2f, 0x34,
        0x35, 0x37, 0x3c, 0x3e, 0x41, 0x42, 0x4d, 0x50, 0x53, 0x5a, 0x88, 0x89, 0x8a, 0x8b, 0x8e,
        0x8f, 0x90, 0x91, 0x93, 0x9a, 0x9b, 0x9c, 0xa0, 0xa2, 0xa8, 0xaa, 0xae, 0xaf, 0xb7,
    ];
    for opcode in plain {
        let mut raw = [0; 16];
        raw[0] = *opcode;
        assert_eq!(policy.verdict(&cdb(&raw), true), Ok(()), "{opcode:02x}");
    }
    for (opcode, action) in [
        (0x5e, 0),
        (0x5e, 2),
        (0x94, 4),
        (0x95, 0),
        (0x9e, 0x10),
        (0x9e, 0x12),
        (0x9f, 0x12),
        (0xa3, 0x0a),
        (0xa3, 0x0c),
        (0xa3, 0x0d),
    ] {
        assert_eq!(policy.verdict(&with_action(opcode, action), true), Ok(()), "{opcode:02x}");
    }
}

#[test]
fn only_what_may_be_done_twice_is_idempotent() {
    let idempotent = |opcode: u8| known(opcode, None).idempotent;
    for opcode in [
        0x00, 0x03, 0x08, 0x0a, 0x12, 0x1a, 0x25, 0x28, 0x2a, 0x2e, 0x2f, 0x35, 0x41, 0x42, 0x4d,
        0x5a, 0x88, 0x8a, 0x8e, 0x8f, 0x91, 0x93, 0x9c, 0xa0, 0xa8, 0xaa, 0xae, 0xaf,
    ] {
        assert!(idempotent(opcode), "{opcode:02x}");
    }
    for opcode in [
        0x04, 0x07, 0x15, 0x16, 0x17, 0x1d, 0x3b, 0x3f, 0x48, 0x4c, 0x50, 0x53, 0x55, 0x5f, 0x83,
        0x84, 0x85, 0x89, 0x8b, 0x94, 0xa2, 0xa4, 0xb5, 0xc1, 0x02,
    ] {
        assert!(!idempotent(opcode), "{opcode:02x}");
    }
    assert!(known(0x5e, Some(0)).idempotent && known(0x9e, Some(0x10)).idempotent);
    let error_history = cdb(&[0x3c, 0x1c, 0xff, 0, 0, 0, 0, 0, 0, 0]);
    assert!(!info(&error_history).idempotent);
    assert!(info(&cdb(&[0x3c, 0x02, 0, 0, 0, 0, 0, 0, 4, 0])).idempotent);
}

#[test]
fn a_guests_own_command_is_repeated_only_if_the_table_says_so() {
    let op = |raw: &[u8]| Op::Cdb { cdb: cdb(raw), direction: Direction::None };
    assert!(op(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]).is_idempotent());
    assert!(!op(&[0x89; 16]).is_idempotent(), "COMPARE AND WRITE");
    assert!(!op(&[0xc2; 10]).is_idempotent());
}

#[test]
fn a_read_only_disk_knows_what_changes_it() {
    let access = |opcode: u8| known(opcode, None).access;
    for opcode in [0x0a, 0x2a, 0x2e, 0x41, 0x42, 0x89, 0x8a, 0x8b, 0x93, 0xaa, 0x04, 0x48, 0xc0] {
        assert_eq!(access(opcode), Access::Write, "{opcode:02x}");
    }
    for opcode in [0x08, 0x28, 0x2f, 0x88, 0x8f, 0xa8] {
        assert_eq!(access(opcode), Access::Read, "{opcode:02x}");
    }
    for opcode in [0x00, 0x12, 0x1a, 0x35, 0x5e, 0x5f, 0xa0] {
        assert_eq!(access(opcode), Access::None, "{opcode:02x}");
    }
}

#[test]
fn reservations_of_one_nexus_are_refused_while_paths_are_joined_whatever_is_allowed() {
    let mut policy = CommandPolicy::default();
    Group::all().for_each(|group| policy.allow(group));
    for opcode in [0x16, 0x17, 0x56, 0x57] {
        let mut raw = [0; 10];
        raw[0] = opcode;
        assert_eq!(policy.verdict(&cdb(&raw), true), Err(Group::Reserve));
        assert_eq!(policy.verdict(&cdb(&raw), false), Ok(()));
        assert!(!policy.offers(opcode, None, true) && policy.offers(opcode, None, false));
    }
    for action in 0..=8 {
        let out = with_action(0x5f, action);
        assert_eq!(policy.verdict(&out, true), Ok(()));
        assert_eq!(policy.verdict(&out, false), Ok(()));
        assert_eq!(policy.verdict(&with_action(0x5e, action), true), Ok(()), "PR IN passes");
        assert!(policy.offers(0x5f, Some(action), true));
        let mut strict = policy;
        strict.deny(Group::PersistentReserveOut);
        assert_eq!(strict.verdict(&out, true), Err(Group::PersistentReserveOut));
        assert!(!strict.offers(0x5f, Some(action), true));
    }
    let by_default = CommandPolicy::default();
    assert_eq!(by_default.verdict(&with_action(0x5f, 0), true), Ok(()));
}

#[test]
fn what_is_allowed_by_name_passes_and_what_is_denied_does_not() {
    for group in Group::all() {
        let mut policy = CommandPolicy::default();
        policy.allow(group);
        assert!(!policy.denies(group, false));
        policy.deny(group);
        assert!(policy.denies(group, false));
        let others = |p: CommandPolicy| p.denied(false).filter(|g| *g != group).collect::<Vec<_>>();
        assert_eq!(others(policy), others(CommandPolicy::default()), "{group}");
    }
    let mut policy = CommandPolicy::default();
    let format = cdb(&[0x04, 0, 0, 0, 0, 0]);
    policy.allow(Group::FormatUnit);
    assert_eq!(policy.verdict(&format, true), Ok(()));
    policy.deny(Group::ReassignBlocks);
    assert_eq!(policy.verdict(&cdb(&[0x07; 6]), true), Err(Group::ReassignBlocks));
}

#[test]
fn a_command_with_a_form_that_passes_is_still_offered() {
    let policy = CommandPolicy::default();
    assert!(policy.offers(0x1b, None, true) && policy.offers(0x1d, None, true));
    assert!(policy.offers(0x9e, Some(0x10), true));
    assert!(!policy.offers(0x9e, Some(0x18), true));
    assert!(!policy.offers(0xa4, Some(0x0a), true));
    assert!(!policy.offers(0xc5, None, true));
}

#[test]
fn group_words_are_kebab_case_unique_and_read_back() {
    let mut seen = std::collections::BTreeSet::new();
    for group in Group::all() {
        assert_eq!(group.name().parse(), Ok(group));
        assert!(group.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{group}");
        assert!(seen.insert(group.name()));
        assert!(!group.help().is_empty() && !group.help().contains('\n'));
    }
    let error = "format".parse::<Group>().unwrap_err().to_string();
    assert!(error.contains("\"format\"") && error.contains("format-unit"), "{error}");
    assert!(Group::all().len() <= 32, "the set of groups has 32 bits");
}

#[test]
fn every_group_has_a_command() {
    for group in Group::all() {
        let named = (0..=u8::MAX).any(|opcode| {
            known(opcode, None).group == Some(group)
                || (0..0x20).any(|action| known(opcode, Some(action)).group == Some(group))
        });
        assert!(named, "{group}");
    }
}

#[test]
fn the_operation_code_says_how_long_the_cdb_is() {
    for (opcode, len) in [
        (0x00, Some(6)),
        (0x1f, Some(6)),
        (0x28, Some(10)),
        (0x5f, Some(10)),
        (0x88, Some(16)),
        (0x9f, Some(16)),
        (0xa0, Some(12)),
        (0xbf, Some(12)),
        (0x60, None),
        (0x7e, None),
        (0xc0, None),
        (0xff, None),
    ] {
        assert_eq!(cdb_len(&[opcode; 32]), len, "{opcode:02x}");
    }
    assert_eq!(cdb_len(&[0x7f, 0, 0, 0, 0, 0, 0, 0x18]), Some(32));
    assert_eq!(cdb_len(&[0x7f, 0, 0, 0, 0, 0, 0]), None);
    assert_eq!(cdb_len(&[]), None);
}

proptest! {
    #[test]
    fn every_cdb_is_judged_and_what_is_not_known_is_neither_offered_nor_repeated(
        raw in prop::collection::vec(any::<u8>(), 1..=CDB_MAX), joined: bool,
    ) {
        let cdb = cdb(&raw);
        let policy = CommandPolicy::default();
        let info = info(&cdb);
        let verdict = policy.verdict(&cdb, joined);
        if matches!(info.group, Some(Group::Unknown | Group::Vendor)) {
            prop_assert!(!info.idempotent && verdict.is_err());
            prop_assert_eq!(info.access, Access::Write);
        }
        // What passes is offered.
        let offered = policy.offers(cdb.opcode(), service_action(&cdb), joined);
        prop_assert!(verdict.is_err() || offered);
        let _ = (cdb.name(), cdb_len(&raw));
    }
}
