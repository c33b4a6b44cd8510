//! Which path a command takes, and which paths are out of use here.

use super::*;

#[test]
fn round_robin_alternates_and_service_time_evens_out_the_bytes() {
    let mut rig = Rig::new();
    for head in 0..8 {
        rig.submit(head, read(u64::from(head), 1));
    }
    let paths: Vec<u8> = rig.wire.out.iter().map(|s| s.path).collect();
    assert_eq!(paths, [0, 1, 0, 1, 0, 1, 0, 1]);

    let mut rig = Rig::new();
    let mut by_bytes = PathTable::clone(rig.core.table());
    by_bytes.selector = crate::mpath::snapshot::SelectorKind::ServiceTime;
    rig.core.set_table(Arc::new(by_bytes));
    rig.submit(0, read(0, 16));
    for head in 1..9 {
        rig.submit(head, read(0, 2));
    }
    let first = rig.wire.out[0].path;
    let others = rig.wire.out[1..].iter().filter(|s| s.path != first).count();
    assert_eq!(others, 8, "16 blocks here, 8 times 2 there");
}

#[test]
fn the_next_group_is_used_only_when_the_first_has_no_usable_path() {
    let mut rig = Rig::of(settings(limits()), &[&[(0, 1)], &[(1, 1)]]);
    rig.submit(1, read(0, 1));
    rig.submit(2, read(0, 1));
    assert!(rig.wire.out.iter().all(|s| s.path == 0));
    rig.next(GONE);
    assert_eq!(rig.wire.out[1].path, 1);
    rig.submit(3, read(0, 1));
    assert_eq!(rig.wire.out[2].path, 1, "the other group takes over at once");
}

#[test]
fn a_failed_path_gets_nothing_until_a_table_with_a_later_epoch() {
    let mut rig = Rig::new();
    rig.submit(1, read(0, 1));
    let lost = rig.next(GONE).path;
    let other = 1 - lost;
    for head in 2..6 {
        rig.submit(head, read(0, 1));
    }
    rig.table(&[&[(0, 1), (1, 1)]], Queueing::Hold);
    rig.submit(6, read(0, 1));
    assert!(rig.wire.out.iter().all(|s| s.path == other), "a table of the same epoch is older");
    rig.all_good();
    let back: Vec<(u8, u32)> = (0..2).map(|s| (s, if s == lost { 2 } else { 1 })).collect();
    rig.table(&[&back], Queueing::Hold);
    rig.submit(7, read(0, 1));
    rig.submit(8, read(0, 1));
    assert!(rig.wire.out.iter().any(|s| s.path == lost));
}

#[test]
fn a_late_failure_of_an_earlier_epoch_does_not_fail_the_path_again() {
    let mut rig = Rig::new();
    rig.submit(1, read(0, 1));
    rig.submit(2, read(0, 1));
    rig.submit(3, read(0, 1));
    rig.next(GONE); // path 0; its other command is still out
    rig.table(&[&[(0, 2)]], Queueing::Hold);
    let late = rig.wire.out.iter().find(|s| s.path == 0).expect("still out").clone();
    let before = rig.path_reports().len();
    rig.answer(&late, GONE);
    assert_eq!(rig.path_reports().len(), before);
    assert_eq!(rig.wire.out.last().map(|s| s.path), Some(0), "it is tried again there");
}

#[test]
fn doubt_counts_whatever_the_epoch_of_the_command_that_was_told() {
    let mut rig = Rig::single();
    rig.submit(1, read(0, 1));
    rig.submit(2, read(0, 1));
    rig.next(GONE);
    rig.table(&[&[(0, 2)]], Queueing::Fail);
    let old = rig.wire.out[0].clone();
    rig.answer(&old, check(6, 0x3f, 0x0e));
    rig.all_good();
    rig.submit(3, read(0, 1));
    assert!(rig.wire.out.is_empty(), "nothing goes there before its identity is proven");
    let report = rig.path_reports().pop().unwrap();
    assert!(matches!(report.reason, IoReason::Judged { verdict: PathVerdict::Doubt, .. }));
    rig.table(&[&[(0, 3)]], Queueing::Fail);
    assert!(!rig.wire.out.is_empty());
}

#[test]
fn every_doubt_is_reported_since_a_proof_may_be_under_way() {
    let mut rig = Rig::new();
    for head in 0..4 {
        rig.submit(head, read(0, 1));
    }
    for _ in 0..2 {
        let sent = rig.wire.out.iter().find(|s| s.path == 0).unwrap().clone();
        rig.answer(&sent, check(6, 0x29, 0));
    }
    assert_eq!(rig.path_reports().len(), 2);
}

#[test]
fn with_no_path_left_requests_are_held_or_failed_as_the_table_says() {
    let mut rig = Rig::single();
    rig.table(&[], Queueing::Hold);
    rig.submit(1, read(0, 1));
    assert_eq!(rig.core.held(), 1);
    rig.table(&[], Queueing::Hold);
    assert_eq!(rig.core.held(), 1);
    rig.table(&[], Queueing::Fail);
    assert_eq!(rig.outcome(), Outcome::NoPath);
    rig.submit(2, read(0, 1));
    assert_eq!(rig.outcome(), Outcome::NoPath);
}

#[test]
fn held_requests_go_on_in_order_when_a_path_returns() {
    let mut rig = Rig::single();
    rig.table(&[], Queueing::Hold);
    for head in 0..5 {
        rig.submit(head, read(u64::from(head), 1));
    }
    assert_eq!(rig.core.next_deadline(), None);
    rig.table(&[&[(0, 2)]], Queueing::Hold);
    let order: Vec<Op> = rig.wire.out.iter().map(|s| s.op).collect();
    assert_eq!(order, (0..5).map(|lba| read(lba, 1)).collect::<Vec<_>>());
}

#[test]
fn a_hung_path_gets_nothing_new_and_keeps_what_it_has() {
    let mut rig = Rig::new();
    rig.submit(1, write(0, 1));
    let hung = rig.wire.out[0].clone();
    assert_eq!(rig.core.next_deadline(), Some(rig.now + Duration::from_secs(1)));
    rig.pass(Duration::from_secs(1));
    let reports = rig.path_reports();
    assert_eq!(reports.len(), 1);
    let IoReason::Hung { op, out } = reports[0].reason else { panic!() };
    assert_eq!((op, out), (write(0, 1), Duration::from_secs(1)));
    for head in 2..6 {
        rig.submit(head, read(0, 1));
    }
    assert!(rig.wire.out[1..].iter().all(|s| s.path != hung.path));
    assert_eq!(rig.wire.out.iter().filter(|s| s.op == hung.op).count(), 1, "never in two places");
    rig.answer(&hung, Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn with_every_path_hung_requests_wait_for_the_decision_even_under_fail() {
    let mut rig = Rig::single();
    rig.table(&[&[(0, 1)]], Queueing::Fail);
    rig.submit(1, write(0, 1));
    rig.pass(Duration::from_secs(1));
    rig.submit(2, read(0, 1));
    assert_eq!(rig.core.held(), 1);
    rig.table(&[], Queueing::Fail);
    assert_eq!(rig.outcome(), Outcome::NoPath);
    assert_eq!(rig.wire.out.len(), 1, "the write is where it was");
}

#[test]
fn an_old_command_that_hangs_does_not_make_a_reinstated_path_undecided() {
    let mut rig = Rig::single();
    rig.submit(1, write(0, 1));
    rig.table(&[&[(0, 2)]], Queueing::Fail);
    rig.pass(Duration::from_secs(2));
    assert!(rig.path_reports().is_empty(), "the engine has decided about that epoch");
    rig.submit(2, read(0, 1));
    let fresh = rig.wire.out[1].clone();
    rig.answer(&fresh, GONE);
    rig.table(&[], Queueing::Fail);
    assert_eq!(rig.outcome(), Outcome::NoPath, "nothing is left to wait for");
}

#[test]
fn a_lun_that_is_gone_is_told_in_the_arrays_words() {
    let mut rig = Rig::single();
    rig.table(&[], Queueing::Gone);
    rig.submit(1, read(0, 1));
    let code = sense_code(&rig.outcome());
    assert_eq!(code, Some(crate::scsi::sense::SenseCode::LUN_NOT_SUPPORTED));
}

/// The table that still lists it may be older than the return of another.
#[test]
fn nobody_is_told_no_path_before_the_engine_knows_of_the_failure() {
    let mut rig = Rig::single();
    rig.table(&[&[(0, 2)]], Queueing::Fail);
    rig.submit(1, read(0, 1));
    rig.next(GONE);
    assert_eq!(rig.core.held(), 1);
    rig.submit(2, read(1, 1));
    assert_eq!(rig.core.held(), 2);
    rig.table(&[&[(1, 1)]], Queueing::Fail);
    assert_eq!(rig.all_good().len(), 2);
    assert!(rig.core.is_idle());
}

#[test]
fn each_of_many_hung_commands_is_looked_at_once() {
    let mut rig = Rig::new();
    for head in 0..16 {
        rig.submit(head, read(0, 1));
        rig.now = rig.now + Duration::from_millis(10);
    }
    rig.pass(Duration::from_millis(990));
    assert_eq!(rig.path_reports().len(), 2, "once per path");
    let quiet = rig.core.next_deadline();
    assert!(quiet.is_none_or(|at| at > rig.now), "{quiet:?}");
    for s in rig.wire.out.clone().iter().rev() {
        rig.answer(s, Completion::Good);
    }
    assert!(rig.core.is_idle());
}

#[test]
fn a_report_that_is_not_answered_is_repeated_until_it_is() {
    let mut rig = Rig::new();
    rig.submit(1, read(0, 1));
    let lost = rig.next(GONE).path;
    rig.all_good();
    assert_eq!(rig.path_reports().len(), 1);
    rig.pass(Duration::from_secs(3));
    let reports = rig.path_reports();
    assert_eq!(reports.len(), 4);
    assert!(reports.iter().all(|r| *r == reports[0]));
    rig.table(&[&[(1 - lost, 1)]], Queueing::Hold);
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.path_reports().len(), 4);
    assert_eq!(rig.core.next_deadline(), None);
}

#[test]
fn a_flood_of_guest_errors_does_not_bury_the_loss_of_a_path() {
    let mut big = settings(limits());
    big.max_requests = 200;
    let mut rig = Rig::of(big, &[&[(0, 1), (1, 1)]]);
    for head in 0..151 {
        rig.core
            .submit(Box::new(Request {
                tag: Tag { ring: 0, head },
                op: Some(Op::Flush),
                ..Request::default()
            }))
            .unwrap();
    }
    rig.wire.room = [200; 4];
    rig.pump();
    let sent = std::mem::take(&mut rig.wire.out);
    for s in &sent[..150] {
        rig.core.complete(rig.now, s.cookie, &check(3, 0x11, 0));
    }
    rig.core.complete(rig.now, sent[150].cookie, &GONE);
    rig.pump();
    rig.pass(Duration::from_secs(1));
    assert!(!rig.path_reports().is_empty(), "the engine must learn of it");
}

#[test]
fn a_full_path_takes_more_when_a_command_comes_back() {
    let mut rig = Rig::new();
    rig.wire.room = [1, 1, 0, 0];
    for head in 0..6 {
        rig.submit(head, read(u64::from(head), 1));
    }
    assert_eq!(rig.wire.out.len(), 2);
    let order: Vec<Op> = rig.all_good().iter().map(|s| s.op).collect();
    assert_eq!(
        order,
        (0..6).map(|lba| read(lba, 1)).collect::<Vec<_>>(),
        "first come, first served"
    );
    assert_eq!(rig.ended.len(), 6);
}

#[test]
fn a_part_that_may_use_one_full_path_only_does_not_hold_up_the_others() {
    let mut rig = Rig::new();
    rig.submit(1, read(1, 1));
    let first = rig.wire.out[0].path;
    rig.submit(2, read(2, 1));
    let mut room = [1; 4];
    room[usize::from(first)] = 8;
    rig.wire.room = room;
    // It must go to the other path now, which is full.
    let sent = rig.wire.out[0].clone();
    rig.answer(&sent, check(0xb, 0x47, 0));
    for head in 3..7 {
        rig.submit(head, read(u64::from(head), 1));
    }
    assert_eq!(rig.wire.out.iter().filter(|s| s.path == first).count(), 4);
    rig.all_good();
    assert_eq!(rig.ended.len(), 6);
}

#[test]
fn turned_away_with_nothing_on_any_path_is_tried_again() {
    let mut rig = Rig::new();
    rig.wire.room = [0; 4];
    rig.submit(1, read(0, 1));
    assert!(rig.core.next_deadline().is_some_and(|at| at <= rig.now), "nobody else will wake it");
    rig.wire.room = [1; 4];
    rig.pump();
    rig.all_good();
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn a_slot_used_again_is_another_path() {
    let mut rig = Rig::new();
    rig.submit(1, read(0, 1));
    let lost = rig.next(GONE).path;
    rig.all_good();
    rig.table(&[&[(1 - lost, 1)]], Queueing::Hold);
    let new = PathId { slot: lost, generation: 1 };
    let mut next = PathTable::clone(rig.core.table());
    next.groups[0].paths = vec![PathView { id: new, epoch: 1, proven: 1, priority: 1, repeat: 1 }];
    rig.core.set_table(Arc::new(next));
    rig.submit(2, read(0, 1));
    assert_eq!(rig.wire.out.len(), 1, "the old path's failure is not the new one's");
    assert_eq!(rig.core.in_flight(new), 1);
    assert_eq!(rig.core.in_flight(id(lost)), 0);
}

/// A table of one path that carries I/O again without having been proven since
/// its first epoch.
fn returned(rig: &mut Rig, epoch: u32, proven: u32) {
    let mut next = PathTable::clone(rig.core.table());
    next.generation += 1;
    let view = PathView { id: id(0), epoch, proven, priority: 1, repeat: 1 };
    next.groups = vec![GroupView { number: 1, paths: vec![view] }];
    rig.core.set_table(Arc::new(next));
    rig.pump();
}

#[test]
fn a_doubt_outlasts_a_return_without_proof_and_is_told_again() {
    let mut rig = Rig::single();
    rig.submit(1, read(0, 1));
    rig.submit(2, read(8, 1));
    // The first is told while the path is in use, the second when it is not.
    for _ in 0..2 {
        rig.next(check(6, 0x3f, 0x0e));
        rig.table(&[], Queueing::Hold);
    }
    rig.reports.clear();
    returned(&mut rig, 2, 1);
    assert!(rig.wire.out.is_empty(), "nothing proves that it leads to the LU");
    rig.pass(Duration::from_secs(3));
    assert!(rig.wire.out.is_empty());
    assert!(rig.path_reports().len() >= 2, "the engine may never have heard of it");
    returned(&mut rig, 3, 3);
    assert_eq!(rig.all_good().len(), 2);
}
