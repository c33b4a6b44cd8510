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
    for h in [
        HostByte::TRANSPORT_DISRUPTED,
        HostByte::TIME_OUT,
        HostByte::ERROR,
        HostByte::NO_CONNECT,
    ] {
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
    assert_eq!(classify(&both).rule, "illegal-request");
    let disrupted = Completion::Scsi {
        status: Status::CHECK_CONDITION,
        host: HostByte::TRANSPORT_DISRUPTED,
        sense: Sense::fixed(SenseCode::new(Key::MediumError, 0x11, 0)),
        residual: 0,
    };
    assert_eq!(classify(&disrupted).rule, "host-transport-disrupted");
}

/// A write to a deleted sdX, whose size is zero then, ends with ENOSPC
/// although the LU has room: seen when a path was deleted under a guest.
#[test]
fn no_space_of_the_block_layer_is_no_verdict_of_the_lu() {
    let found = classify(&Completion::Errno { from: ErrnoFrom::Block, code: libc::ENOSPC });
    assert_eq!((found.path, found.next), (PathVerdict::Check, Next::OtherPassthrough));
}
