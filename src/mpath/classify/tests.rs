//! The table row by row, and the properties it must have as a whole.

use super::*;
use crate::scsi::sense::Sense;

fn check(key: u8, asc: u8, ascq: u8) -> Completion {
    Completion::Scsi {
        status: Status::CHECK_CONDITION,
        host: HostByte::OK,
        sense: Sense::fixed(SenseCode::new(Key::from_bits(key), asc, ascq)),
        residual: 0,
    }
}

fn host(host: HostByte) -> Completion {
    Completion::Scsi { status: Status::GOOD, host, sense: Sense::EMPTY, residual: 4096 }
}

fn status(status: Status) -> Completion {
    Completion::Scsi { status, host: HostByte::OK, sense: Sense::EMPTY, residual: 0 }
}

/// A completion that the row's condition describes.
fn example(when: When) -> Completion {
    match when {
        When::Host(h) => host(h),
        When::AnyHost => host(HostByte(0x2a)),
        When::Status(s) => status(s),
        When::Deferred => Completion::Scsi {
            status: Status::CHECK_CONDITION,
            host: HostByte::OK,
            sense: Sense::from_bytes(&[0x71, 0, 0x03, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x11, 0]),
            residual: 0,
        },
        When::Code(k, a, q) => check(k, a, q),
        When::Asc(k, a) => check(k, a, 0x7f),
        When::Key(k) => check(k, 0x7e, 0x7f),
        When::NoSense => status(Status::CHECK_CONDITION),
        When::Errno(from, code) => Completion::Errno { from, code },
        When::AnyErrno(from) => Completion::Errno { from, code: libc::EFAULT },
    }
}

#[test]
fn every_row_can_be_reached_by_what_it_describes() {
    for row in TABLE {
        let decided = classify(&example(row.1));
        assert_eq!(decided.rule, row.0, "an earlier row hides this one");
        assert_eq!(decided, disposition(row));
    }
}

#[test]
fn rule_names_are_unique() {
    let mut names: Vec<_> = TABLE.iter().map(|row| row.0).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn only_the_transport_or_a_denying_lu_fails_a_path() {
    // Medium, target, protection, space and reservation answers are the LU's
    // and must never cost a path (blk_path_error is false for them).
    for (k, a, q) in [
        (0x3, 0x11, 0x00),
        (0x4, 0x09, 0x00),
        (0x5, 0x20, 0x00),
        (0x5, 0x21, 0x00),
        (0x5, 0x24, 0x00),
        (0x5, 0x26, 0x00),
        (0x7, 0x27, 0x07),
        (0xb, 0x10, 0x01),
        (0xe, 0x1d, 0x00),
    ] {
        let decided = classify(&check(k, a, q));
        assert_eq!(
            (decided.path, decided.next),
            (PathVerdict::Keep, Next::Deliver),
            "{}",
            decided.rule
        );
    }
    assert_eq!(classify(&status(Status::RESERVATION_CONFLICT)).next, Next::Deliver);
    assert_eq!(classify(&status(Status::RESERVATION_CONFLICT)).path, PathVerdict::Keep);
}

#[test]
fn our_own_errors_are_never_a_paths_verdict() {
    for code in [libc::EIO, libc::EINVAL, libc::ENOMEM, libc::EPERM, libc::E2BIG, libc::EACCES] {
        let d = classify(&Completion::Errno { from: ErrnoFrom::Ioctl, code });
        assert_eq!((d.path, d.next), (PathVerdict::Keep, Next::Own), "errno {code}");
    }
}

#[test]
fn a_lost_transfer_may_have_been_executed() {
    // A transport fails what it has not sent and what was under way by the same
    // DID_NO_CONNECT, when the port or the whole adapter goes.
    for h in
        [HostByte::TRANSPORT_DISRUPTED, HostByte::TIME_OUT, HostByte::ERROR, HostByte::NO_CONNECT]
    {
        assert_eq!(classify(&host(h)).executed, Executed::Maybe);
    }
    assert_eq!(classify(&host(HostByte::BAD_TARGET)).executed, Executed::No);
    assert_eq!(classify(&check(0x2, 0x04, 0x0b)).executed, Executed::No);
}

#[test]
fn unknown_sense_of_a_known_key_is_decided_by_the_key() {
    assert_eq!(classify(&check(0x9, 0x1d, 0)).rule, "unknown");
    assert_eq!(classify(&check(0x2, 0x3a, 0)).rule, "not-ready");
    assert_eq!(classify(&check(0x6, 0x2a, 0x01)).rule, "ua-other");
}

#[test]
fn the_sense_beats_a_host_byte_the_kernel_derived_from_it() {
    let both = Completion::Scsi {
        status: Status::CHECK_CONDITION,
        host: HostByte::TARGET_FAILURE,
        sense: Sense::fixed(SenseCode::new(Key::IllegalRequest, 0x20, 0)),
        residual: 0,
    };
    assert_eq!(classify(&both).rule, "illegal-opcode");
    let disrupted = Completion::Scsi {
        status: Status::CHECK_CONDITION,
        host: HostByte::TRANSPORT_DISRUPTED,
        sense: Sense::fixed(SenseCode::new(Key::MediumError, 0x11, 0)),
        residual: 0,
    };
    assert_eq!(classify(&disrupted).rule, "host-transport-disrupted");
}

#[test]
fn every_rule_for_raw_commands_exists_and_says_something_else() {
    for &(rule, next) in RAW {
        let of_table = TABLE.iter().find(|row| row.0 == rule).map(|row| row.3);
        let of_block = of_table.unwrap_or_else(|| {
            assert_eq!(rule, UNKNOWN.rule);
            UNKNOWN.next
        });
        assert_ne!(of_block, next, "{rule}");
    }
}

#[test]
fn a_path_is_judged_the_same_whoever_composed_the_command() {
    for row in TABLE {
        let completion = example(row.1);
        let (block, raw) = (classify(&completion), classify_raw(&completion));
        let path = if BY_THE_GUEST.contains(&raw.rule) { PathVerdict::Check } else { block.path };
        assert_eq!((raw.rule, raw.path, raw.executed), (block.rule, path, block.executed));
    }
}

#[test]
fn missing_bytes_are_a_raw_commands_own_affair() {
    let good = |residual, sense: &[u8]| Completion::Scsi {
        status: Status::GOOD,
        host: HostByte::OK,
        sense: Sense::from_bytes(sense),
        residual,
    };
    for answer in [Completion::Good, good(0, &[])] {
        assert_eq!(classify_raw(&answer), GOOD);
    }
    for answer in [good(1, &[]), good(0, &[0x72, 1, 0, 0, 0, 0, 0, 0]), Completion::Short(0)] {
        let decided = classify_raw(&answer);
        assert_eq!((decided.path, decided.next), (PathVerdict::Keep, Next::Deliver));
    }
}

/// What follows is decided for commands that must not be executed twice.
#[test]
fn only_what_was_refused_before_it_began_was_certainly_not_executed() {
    let not = |c: &Completion| classify(c).executed == Executed::No;
    for certain in [
        host(HostByte::BAD_TARGET),
        status(Status::BUSY),
        status(Status::TASK_SET_FULL),
        status(Status::RESERVATION_CONFLICT),
        check(0x2, 0x04, 0x0b),
        check(0x2, 0x3a, 0x00),
        check(0x5, 0x25, 0x00),
        check(0x6, 0x29, 0x00),
        check(0x7, 0x27, 0x00),
    ] {
        assert!(not(&certain), "{certain:?}");
    }
    for perhaps in [
        // Also of what was under way when the port or the adapter went.
        host(HostByte::NO_CONNECT),
        host(HostByte::BUS_BUSY),
        host(HostByte::SOFT_ERROR),
        host(HostByte::REQUEUE),
        host(HostByte::RESET),
        host(HostByte::TIME_OUT),
        status(Status::TASK_ABORTED),
        check(0x4, 0x44, 0x00),
        check(0xb, 0x47, 0x00),
        // sg says so of a command that was out when its device was deleted.
        Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENODEV },
    ] {
        assert!(!not(&perhaps), "{perhaps:?}");
    }
}

#[test]
fn good_is_good_only_if_nothing_is_missing() {
    let scsi = |status, sense: &[u8], residual| Completion::Scsi {
        status,
        host: HostByte::OK,
        sense: Sense::from_bytes(sense),
        residual,
    };
    let recovered = [0x72, 0x01, 0x18, 0x02, 0, 0, 0, 0];
    let medium = [0x72, 0x03, 0x11, 0, 0, 0, 0, 0];
    for (completion, rule, next, retried) in [
        (Completion::Good, "good", Next::Done, false),
        (Completion::Short(1), "good", Next::Done, false),
        (Completion::Short(0), "nothing-moved", Next::Other, true),
        (scsi(Status::GOOD, &[], 0), "good", Next::Done, false),
        (scsi(Status::GOOD, &recovered, 0), "good", Next::Done, false),
        (scsi(Status::GOOD, &[], 1), "underrun", Next::Other, true),
        (scsi(Status::CONDITION_MET, &[], 0), "condition-met", Next::Done, false),
        (scsi(Status::CONDITION_MET, &[], 1), "underrun", Next::Other, true),
        (scsi(Status::CHECK_CONDITION, &recovered, 0), "recovered", Next::Done, false),
        (scsi(Status::CHECK_CONDITION, &recovered, 1), "underrun", Next::Other, true),
        // What is an error anyway misses what it misses.
        (scsi(Status::CHECK_CONDITION, &medium, 1), "medium", Next::Deliver, false),
    ] {
        let decided = classify(&completion);
        assert_eq!((decided.rule, decided.next), (rule, next), "{completion:?}");
        assert_eq!(decided.is_retried(), retried, "{completion:?}");
    }
}

#[test]
fn who_has_spoken_and_of_what() {
    let said = |status, host, sense: &[u8]| Completion::Scsi {
        status,
        host,
        sense: Sense::from_bytes(sense),
        residual: 0,
    };
    let check = |host, sense: &[u8]| said(Status::CHECK_CONDITION, host, sense);
    let attention = [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0];
    let medium = [0x70, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0];
    let deferred = |mut sense: [u8; 18]| {
        sense[0] = 0x71;
        sense
    };
    let errno = |from, code| Completion::Errno { from, code };
    const OK: HostByte = HostByte::OK;
    const LUS: HostByte = HostByte::TARGET_FAILURE;
    const LOST: HostByte = HostByte::TRANSPORT_DISRUPTED;
    // What came; is it a unit attention, a deferred error, the LU's word, a timeout?
    let cases = [
        (Completion::Good, [false; 4]),
        (Completion::Short(512), [false; 4]),
        (errno(ErrnoFrom::Ioctl, libc::EIO), [false; 4]),
        (errno(ErrnoFrom::Block, libc::ETIMEDOUT), [false, false, false, true]),
        (said(Status::GOOD, HostByte::TIME_OUT, &[]), [false, false, false, true]),
        (said(Status::GOOD, LOST, &[]), [false; 4]),
        (said(Status::GOOD, OK, &[]), [false, false, true, false]),
        (said(Status::BUSY, OK, &[]), [false, false, true, false]),
        (said(Status::GOOD, LUS, &[]), [false, false, true, false]),
        (
            said(Status::RESERVATION_CONFLICT, HostByte::NEXUS_FAILURE, &[]),
            [false, false, true, false],
        ),
        // Sense that nobody announced says nothing.
        (said(Status::GOOD, OK, &attention), [false, false, true, false]),
        (said(Status::GOOD, OK, &deferred(medium)), [false, false, true, false]),
        (check(OK, &[]), [false; 4]),
        (check(OK, &attention), [true, false, true, false]),
        (check(LUS, &attention), [true, false, true, false]),
        (check(LOST, &attention), [false; 4]),
        (check(OK, &medium), [false, false, true, false]),
        (check(OK, &deferred(medium)), [false, true, true, false]),
        (check(OK, &deferred(attention)), [false, true, true, false]),
        // It says that it is deferred, and not what.
        (check(OK, &[0x71, 0]), [false; 4]),
    ];
    for (answer, expected) in cases {
        let attention = unit_attention(&answer).is_some();
        let deferred = deferred_error(&answer).is_some();
        let found = [attention, deferred, is_word_of_lu(&answer), is_timeout(&answer)];
        assert_eq!(found, expected, "{answer:?}");
    }
}

/// A write to a deleted sdX, whose size is zero then, ends with ENOSPC
/// although the LU has room: seen when a path was deleted under a guest.
#[test]
fn no_space_of_the_block_layer_is_no_verdict_of_the_lu() {
    let found = classify(&Completion::Errno { from: ErrnoFrom::Block, code: libc::ENOSPC });
    assert_eq!((found.path, found.next), (PathVerdict::Check, Next::OtherPassthrough));
}

/// HARDWARE ERROR 04/44 of one path of two came to a guest that read by the block
/// layer, which says the same errno of what the LU refuses.
#[test]
fn a_failure_of_the_target_is_asked_for_its_sense() {
    let found = classify(&Completion::Errno { from: ErrnoFrom::Block, code: libc::EREMOTEIO });
    assert_eq!((found.path, found.next), (PathVerdict::Check, Next::OtherPassthrough));
}

/// Law 5: a nexus that has lost its registration is refused, too.
#[test]
fn a_conflict_may_be_a_paths_word_and_then_fails_nothing() {
    let conflicts = [
        status(Status::RESERVATION_CONFLICT),
        Completion::Scsi {
            status: Status::RESERVATION_CONFLICT,
            host: HostByte::NEXUS_FAILURE,
            sense: Sense::EMPTY,
            residual: 0,
        },
        host(HostByte::NEXUS_FAILURE),
        Completion::Errno { from: ErrnoFrom::Block, code: libc::EBADE },
    ];
    for conflict in conflicts {
        for decided in [classify(&conflict), classify_raw(&conflict)] {
            assert!(decided.is_conflict(), "{conflict:?}");
            assert_eq!((decided.path, decided.next), (PathVerdict::Keep, Next::Deliver));
            let path = decided.of_an_unregistered_path();
            assert_eq!(path.rule, decided.rule);
            assert_eq!((path.path, path.next), (PathVerdict::Conflict, Next::Other));
            assert_eq!(path.executed, Executed::No);
            assert!(path.path.puts_aside() && path.is_retried());
        }
    }
    for other in [status(Status::BUSY), status(Status::ACA_ACTIVE), Completion::Good] {
        assert!(!classify(&other).is_conflict());
    }
    assert!(CONFLICTS.iter().all(|rule| TABLE.iter().any(|row| row.0 == *rule)));
}

/// `docs/judgement.md`, made from the table.
fn document() -> String {
    use std::fmt::Write;
    let mut text = String::from(
        "# What a completion means\n\n\
         Made from the table in `src/mpath/classify.rs`, by its tests (`VHOST_MPATH_WRITE_DOCS=1 cargo test --lib\n\
         classify`). The first row that matches decides; the rule's name stands in every event. Read as: *seen*, then\n\
         what it says of the *path*, what becomes of the *command*, whether it *may have been executed* (then what is\n\
         not idempotent is not repeated: the guest gets 0B/00/06), and, where a command that the guest composed itself\n\
         goes another way, *which*.\n\n\
         * *keep*: nothing against the path. *fail*: out of use until a check and a proof of identity. *doubt*: out of\n\
         use until its identity is proven. *passive*: its target port group carries no I/O now; out of use until the\n\
         access state is read, not failed. *check*, *refresh*: it goes on; the checker, the prioritizer looks at it.\n\
         *marginal*: used last.\n\
         * *deliver*: the guest gets the LU's answer. *own*: the guest gets an error that is no path's. *again*: the\n\
         same path, so often. *later*: any path, after so long. *other*: a path that has not answered yet; what all\n\
         say is the LU's word. *other, N rounds*: the same, when they have said so often. *other, later*: the same, and\n\
         again after so long. *other, passthrough*: the same, by SCSI passthrough for its sense.\n\n\
         | rule | seen | path | command | maybe executed | guest's own |\n|---|---|---|---|---|---|\n",
    );
    for &(rule, when, path, next, executed) in TABLE {
        let own = RAW.iter().find(|(name, _)| *name == rule).map(|&(_, next)| in_words(next));
        let checked = BY_THE_GUEST.contains(&rule).then(|| "path: check".to_owned());
        let own: Vec<String> = checked.into_iter().chain(own).collect();
        let own = own.join("; ");
        let maybe = if executed == Executed::Maybe { "yes" } else { "" };
        let path = format!("{path:?}").to_lowercase();
        writeln!(
            text,
            "| {rule} | {} | {path} | {} | {maybe} | {own} |",
            seen(when),
            in_words(next)
        )
        .unwrap();
    }
    let conflicts: Vec<_> = CONFLICTS.iter().map(|rule| format!("`{rule}`")).collect();
    write!(
        text,
        "\nWhile the guest has a reservation key registered, {} are a path's word at first. *path: conflict*, out of\n\
         use until the engine has read who is registered, not failed; *command: other*; certainly not executed. By a path that has\n\
         come to its present epoch since the command met the first, they stand as above: the guest's.\n",
        conflicts.join(", ")
    )
    .unwrap();
    text
}

fn seen(when: When) -> String {
    match when {
        When::Host(h) => h.to_string(),
        When::AnyHost => "any other host byte".to_owned(),
        When::Status(s) => s.to_string(),
        When::Deferred => "deferred sense (71h, 73h)".to_owned(),
        When::Code(k, a, q) => format!("{k:02x}/{a:02x}/{q:02x}"),
        When::Asc(k, a) => format!("{k:02x}/{a:02x}"),
        When::Key(k) => format!("{k:02x}, anything else"),
        When::NoSense => "CHECK CONDITION without sense".to_owned(),
        When::Errno(from, code) => format!("{from:?} {}", errno_name(code)),
        When::AnyErrno(from) => format!("{from:?}, any other errno"),
    }
}

fn errno_name(code: i32) -> &'static str {
    [
        (libc::EREMOTEIO, "EREMOTEIO"),
        (libc::ENODATA, "ENODATA"),
        (libc::EBADE, "EBADE"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EILSEQ, "EILSEQ"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENXIO, "ENXIO"),
        (libc::ENOLINK, "ENOLINK"),
        (libc::ETIMEDOUT, "ETIMEDOUT"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::EIO, "EIO"),
        (libc::ESTALE, "ESTALE"),
    ]
    .into_iter()
    .find_map(|(known, name)| (known == code).then_some(name))
    .expect("every errno of the table has a name")
}

fn in_words(next: Next) -> String {
    match next {
        Next::Done => "good".to_owned(),
        Next::Deliver => "deliver".to_owned(),
        Next::Own => "own".to_owned(),
        Next::Again { tries } => format!("again, {tries} times"),
        Next::Later { delay } => format!("later, {} ms", delay.as_millis()),
        Next::Other => "other".to_owned(),
        Next::OtherInRounds { rounds } => format!("other, {rounds} rounds"),
        Next::OtherThenLater { delay } => format!("other, later, {} ms", delay.as_millis()),
        Next::OtherPassthrough => "other, passthrough".to_owned(),
    }
}

#[test]
fn the_document_says_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/judgement.md");
    if std::env::var_os("VHOST_MPATH_WRITE_DOCS").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), document(), "docs/judgement.md is old");
}
