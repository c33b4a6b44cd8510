//! Commands that the guest composed itself.

use super::*;
use crate::mpath::selector::Load;

fn exactly(completion: Completion) -> Outcome {
    let Completion::Scsi { status, sense, residual, .. } = completion else { panic!() };
    Outcome::Lu { status, sense, residual }
}

fn full(status: Status, sense: &[u8], residual: u32) -> Completion {
    let sense = Sense::from_bytes(sense);
    Completion::Scsi { status, host: HostByte::OK, sense, residual }
}

#[test]
fn a_raw_command_is_never_cut_and_counts_by_its_data() {
    let mut rig = Rig::with(Limits { max_transfer: Blocks(1), max_segments: 1, ..limits() });
    let cdb = Cdb::from_bytes(&READ_10).unwrap();
    let data: Vec<Segment> = (0..9).map(|i| Segment { addr: i * 0x1000, len: 700 }).collect();
    rig.submit_data(1, Op::Cdb { cdb, direction: Direction::In }, data.clone());
    assert_eq!(rig.wire.out.len(), 1);
    assert_eq!(rig.wire.out[0].data, data);
    assert!(rig.wire.out[0].passthrough);
    let path = id(rig.wire.out[0].path);
    assert_eq!(rig.core.selector.load(path), Load { bytes: 9 * 700, commands: 1 });
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
    assert_eq!(rig.core.selector.load(path), Load { bytes: 0, commands: 0 });
}

#[test]
fn block_operations_and_raw_commands_count_in_the_same_unit() {
    let mut rig = Rig::single();
    rig.submit(1, read(0, 8));
    rig.submit_read(2);
    assert_eq!(rig.core.selector.load(id(0)).bytes, 2 * 8 * BLOCK as u64);
}

#[test]
fn what_the_lu_says_reaches_the_guest_byte_for_byte_at_the_first_answer() {
    // ILI with the information field, a filemark, vendor bytes at the end.
    let ili = [0xf0, 0, 0x20, 0, 0, 2, 0, 12, 1, 2, 3, 4, 0, 0, 9, 0x80, 0, 7, 0xaa, 0xbb];
    let filemark = [0x70, 0, 0x80, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let recovered = [0x72, 0x01, 0x18, 0x02, 0, 0, 0, 0];
    let deferred = [0x71, 0, 0x03, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0c, 0x02, 0, 0, 0, 0];
    let deferred_descriptor = [0x73, 0x04, 0x44, 0, 0, 0, 0, 0];
    let vendor = [0x70, 0, 0x09, 0, 0, 0, 0, 10, 1, 2, 3, 4, 0x80, 0x81, 0, 0, 0, 0];
    let completed = [0x72, 0x0f, 0, 0, 0, 0, 0, 0];
    for answer in [
        full(Status::GOOD, &[], 100),
        full(Status::GOOD, &recovered, 0),
        full(Status::CHECK_CONDITION, &ili, 512),
        full(Status::CHECK_CONDITION, &filemark, 4096),
        full(Status::CHECK_CONDITION, &recovered, 0),
        full(Status::CHECK_CONDITION, &deferred, 4096),
        full(Status::CHECK_CONDITION, &deferred_descriptor, 4096),
        full(Status::CHECK_CONDITION, &vendor, 1),
        full(Status::CHECK_CONDITION, &completed, 1),
        full(Status::CONDITION_MET, &[], 0),
        full(Status(0x10), &[], 0),
        full(Status(0x22), &[], 0),
        full(Status::RESERVATION_CONFLICT, &[], 4096),
        full(Status::ACA_ACTIVE, &[], 4096),
        check(3, 0x11, 0),
        check(5, 0x20, 0),
        check(7, 0x27, 0),
        check(0xe, 0x1d, 0),
    ] {
        for repeatable in [true, false] {
            let mut rig = Rig::new();
            if repeatable {
                rig.submit_read(1);
            } else {
                rig.submit_compare_and_write(1);
            }
            rig.next(answer);
            assert_eq!(rig.outcome(), exactly(answer));
            assert!(
                rig.path_reports().iter().all(|r| matches!(
                    r.reason,
                    IoReason::Judged { verdict: PathVerdict::Check, .. }
                ))
            );
            assert_eq!(rig.wire.count, 1, "{answer:?}");
        }
    }
}

#[test]
fn a_short_transfer_is_good_with_a_residual() {
    let mut rig = Rig::new();
    rig.submit_read(1);
    rig.next(Completion::Short(1000));
    let residual = 8 * 512 - 1000;
    let good = Outcome::Lu { status: Status::GOOD, sense: Sense::EMPTY, residual };
    assert_eq!(rig.outcome(), good);
    rig.submit_read(2);
    rig.next(Completion::Short(8 * BLOCK));
    assert_eq!(rig.outcome(), Outcome::Good);
    // Nor is it ambiguous where it must not be repeated.
    rig.submit_compare_and_write(3);
    let bytes = total_len(&rig.wire.out[0].data);
    rig.next(Completion::Short(bytes - 512));
    assert_eq!(
        rig.outcome(),
        Outcome::Lu { status: Status::GOOD, sense: Sense::EMPTY, residual: 512 }
    );
}

#[test]
fn a_lost_path_costs_the_guest_nothing() {
    for lost in [GONE, host(HostByte::NO_CONNECT), host(HostByte::TIME_OUT), check(2, 0x04, 0x0b)] {
        let mut rig = Rig::new();
        rig.submit_read(1);
        let first = rig.next(lost);
        let second = rig.next(Completion::Good);
        assert_ne!(first.path, second.path);
        assert_eq!((first.op, first.data), (second.op, second.data));
        assert_eq!(rig.outcome(), Outcome::Good);
        assert!(rig.told().is_empty());
    }
}

#[test]
fn not_ready_is_the_lus_word_once_the_paths_agree() {
    for code in [check(2, 0x04, 0x01), check(2, 0x3a, 0)] {
        let mut rig = Rig::new();
        rig.submit_read(1);
        rig.next(code);
        rig.next(code);
        assert_eq!(rig.outcome(), exactly(code), "the guest knows what to do about it");
        rig.submit_read(2);
        rig.next(code);
        rig.next(Completion::Good);
        assert_eq!(rig.outcome(), Outcome::Good, "one controller's word is not the LU's");
    }
}

#[test]
fn busy_is_repeated_within_the_budget_and_then_delivered() {
    for (status, repeatable) in [(Status::BUSY, true), (Status::TASK_SET_FULL, false)] {
        let mut rig = Rig::new();
        let answer = full(status, &[], 4096);
        if repeatable {
            rig.submit_read(1);
        } else {
            rig.submit_compare_and_write(1);
        }
        let began = rig.now;
        while rig.ended.is_empty() {
            if rig.wire.out.is_empty() {
                rig.pass(Duration::from_millis(10));
            } else {
                rig.next(answer);
            }
        }
        assert_eq!(rig.outcome(), exactly(answer));
        assert!((30..31).contains(&rig.now.since(began).as_secs()));
    }
}

#[test]
fn what_may_have_been_executed_and_must_not_be_twice_is_never_repeated() {
    for lost in [
        GONE,
        errno(libc::EIO),
        Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENODEV },
        host(HostByte::TRANSPORT_DISRUPTED),
        host(HostByte::TIME_OUT),
        host(HostByte::BUS_BUSY),
        host(HostByte::SOFT_ERROR),
        host(HostByte::IMM_RETRY),
        host(HostByte::REQUEUE),
        host(HostByte::RESET),
        host(HostByte::ERROR),
        host(HostByte::TRANSPORT_MARGINAL),
        status(Status::CHECK_CONDITION),
    ] {
        if lost == GONE {
            continue; // the block layer's word, which a raw command does not get
        }
        let mut rig = Rig::new();
        rig.submit_compare_and_write(1);
        rig.next(lost);
        assert_eq!(rig.outcome(), super::super::raw::ambiguous(), "{lost:?}");
        assert_eq!(rig.wire.count, 1);
        let told = rig.told();
        assert_eq!(told.len(), 1, "there is an event");
        assert_eq!(told[0].rule, "ambiguous");
    }
}

#[test]
fn what_was_certainly_not_executed_is_repeated_though_it_must_not_be_twice() {
    for lost in
        [host(HostByte::BAD_TARGET), check(2, 0x04, 0x0b), check(5, 0x25, 0), check(2, 0x3a, 0)]
    {
        let mut rig = Rig::new();
        rig.submit_compare_and_write(1);
        rig.next(lost);
        rig.next(Completion::Good);
        assert_eq!(rig.outcome(), Outcome::Good, "{lost:?}");
    }
}

#[test]
fn what_the_lu_says_of_an_aborted_command_is_delivered_where_it_must_not_be_repeated() {
    for answer in [check(0xb, 0x47, 0), full(Status::TASK_ABORTED, &[], 1024), check(0x4, 0x44, 0)]
    {
        let mut rig = Rig::new();
        rig.submit_compare_and_write(1);
        rig.next(answer);
        assert_eq!(rig.outcome(), exactly(answer));
        assert_eq!(rig.wire.count, 1);
    }
}

#[test]
fn an_unknown_command_is_taken_for_one_that_must_not_be_repeated() {
    let mut rig = Rig::new();
    rig.submit_cdb(1, &[0xc5, 0, 0, 0, 0, 0], Direction::None, 0);
    rig.next(host(HostByte::TRANSPORT_DISRUPTED));
    assert_eq!(rig.outcome(), super::super::raw::ambiguous());
}

#[test]
fn a_replayed_command_is_issued_only_if_it_may_be_executed_twice() {
    let request = |head, cdb: &[u8]| Request {
        tag: Tag { ring: 0, head },
        op: Some(Op::Cdb { cdb: Cdb::from_bytes(cdb).unwrap(), direction: Direction::None }),
        replayed: true,
        ..Request::default()
    };
    let mut rig = Rig::new();
    rig.submit_request(request(1, &COMPARE_AND_WRITE));
    assert_eq!(rig.outcome(), super::super::raw::ambiguous());
    assert_eq!(rig.wire.count, 0);
    assert_eq!(rig.told()[0].rule, "replayed");
    assert_eq!(rig.core.outstanding(0), 0);
    rig.submit_request(request(2, &READ_10));
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn the_lus_word_that_the_kernel_kept_to_itself_is_an_errno() {
    for (byte, code) in [
        (HostByte::TARGET_FAILURE, libc::EREMOTEIO),
        (HostByte::NEXUS_FAILURE, libc::EBADE),
        (HostByte::ALLOC_FAILURE, libc::ENOSPC),
        (HostByte::MEDIUM_ERROR, libc::ENODATA),
    ] {
        for status in [Status::GOOD, Status::CHECK_CONDITION] {
            let mut rig = Rig::new();
            rig.submit_read(1);
            rig.next(Completion::Scsi { status, host: byte, sense: Sense::EMPTY, residual: 0 });
            assert_eq!(rig.outcome(), Outcome::Host(code));
        }
        let mut rig = Rig::new();
        rig.submit_read(1);
        let Completion::Scsi { sense, .. } = check(3, 0x11, 0) else { panic!() };
        let status = Status::CHECK_CONDITION;
        rig.next(Completion::Scsi { status, host: byte, sense, residual: 7 });
        assert_eq!(rig.outcome(), Outcome::Lu { status, sense, residual: 7 });
    }
}

#[test]
fn a_timeout_on_every_path_is_told_from_paths_that_are_gone() {
    for (second, outcome) in [
        (host(HostByte::TIME_OUT), Outcome::TimedOut),
        (host(HostByte::NO_CONNECT), Outcome::NoPath),
    ] {
        let mut rig = Rig::new();
        rig.table(&[&[(0, 1), (1, 1)]], Queueing::Fail);
        rig.submit_read(1);
        rig.next(host(HostByte::TIME_OUT));
        rig.next(second);
        rig.table(&[], Queueing::Fail);
        assert_eq!(rig.outcome(), outcome);
        assert_eq!(rig.told().len(), 1);
    }
    // Also where queueing ends later.
    let mut rig = Rig::single();
    rig.submit_read(1);
    rig.next(host(HostByte::TIME_OUT));
    rig.table(&[], Queueing::Hold);
    assert_eq!(rig.core.held(), 1);
    rig.table(&[], Queueing::Fail);
    assert_eq!(rig.outcome(), Outcome::TimedOut);
}

#[test]
fn an_administrator_hears_of_trouble_and_not_of_the_guests_own_work() {
    for (answer, told) in [
        (check(2, 0x3a, 0), true),
        (check(3, 0x11, 0), true),
        (check(4, 0x09, 0), true),
        (check(0xb, 0x10, 1), true),
        (check(0xd, 0x00, 0), true),
        (check(7, 0x27, 0x07), true),
        (check(1, 0x17, 0), false),
        (check(5, 0x24, 0), false),
        (check(6, 0x29, 0), false),
        (check(7, 0x27, 0), false),
        (check(0xe, 0x1d, 0), false),
        (status(Status::RESERVATION_CONFLICT), false),
        (full(Status::GOOD, &[], 5), false),
        (host(HostByte::TARGET_FAILURE), true),
    ] {
        let attentions = Some(Arc::new(Attentions::new(true)));
        let mut rig = Rig::hearing(settings(limits()), &[&[(0, 1)]], attentions);
        rig.submit_read(1);
        while !rig.wire.out.is_empty() {
            rig.next(answer);
        }
        assert_eq!(rig.ended.len(), 1);
        assert_eq!(!rig.told().is_empty(), told, "{answer:?}");
    }
}

#[test]
fn a_cdb_that_does_not_go_with_its_buffers_fails_no_path() {
    // Two paths, each asked once; neither may be out of use afterwards.
    let mut rig = Rig::new();
    rig.submit_read(1);
    rig.next(host(HostByte::ERROR));
    rig.next(host(HostByte::ERROR));
    assert_eq!(rig.outcome(), Outcome::Host(libc::EIO));
    assert!(
        rig.path_reports()
            .iter()
            .all(|r| !matches!(r.reason, IoReason::Judged { verdict: PathVerdict::Fail, .. }))
    );
    rig.submit_read(2);
    assert_eq!(rig.wire.out.len(), 1);
}
