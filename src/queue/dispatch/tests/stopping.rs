//! A ring stops: with requests in every place.

use super::*;

/// Requests of ring 0 on a path (1), delayed (2), ready (3), in the backlog
/// or cut in part (4 to 7); nothing held. One of ring 1 is ready (99).
fn everywhere() -> Rig {
    let mut rig = Rig::of(settings(limits()), &[&[(0, 1)]]);
    rig.wire.room = [2; 4];
    rig.submit(1, write(0, 1));
    rig.submit(2, write(10, 1));
    let two = rig.wire.out[1].clone();
    rig.wire.room = [1; 4];
    rig.submit(3, write(20, 1));
    for head in 4..8 {
        rig.submit(head, write(1000 * u64::from(head), 16 * 20));
    }
    rig.submit_request(Request {
        tag: Tag { ring: 1, head: 99 },
        op: Some(Op::Flush),
        ..Request::default()
    });
    rig.answer(&two, status(Status::BUSY));
    assert!(rig.core.parts.take(0, Op::Flush).is_none(), "the pool is used up");
    assert!(!rig.core.backlog.is_empty() && !rig.core.delayed.is_empty());
    rig
}

fn heads(rig: &Rig) -> Vec<u16> {
    let mut heads: Vec<u16> = rig.ended.iter().map(|e| e.0).collect();
    heads.sort_unstable();
    heads
}

#[test]
fn suspend_and_discard_abandon_everything_but_what_is_on_a_path() {
    for how in [Stop::Suspend, Stop::Discard] {
        let mut rig = everywhere();
        rig.core.stop_ring(rig.now, 0, how);
        rig.pump();
        assert_eq!(heads(&rig), [2, 3, 4, 5, 6, 7]);
        assert!(rig.ended.iter().all(|e| matches!(e.1, End::Abandoned)));
        assert_eq!((rig.core.outstanding(0), rig.core.outstanding(1)), (1, 1));
        rig.ended.clear();
        rig.all_good();
        assert_eq!(heads(&rig), [1, 99]);
        assert!(rig.ended.iter().all(|e| matches!(e.1, End::Finished(Outcome::Good))));
        assert!(rig.core.is_idle());
        assert_eq!(rig.core.next_deadline(), None);
        let guest = rig.reports.iter().any(|r| matches!(r, Report::Guest(_)));
        assert!(!guest, "no guest sees an error");
    }
}

#[test]
fn finish_lets_what_can_progress_go_on() {
    let mut rig = everywhere();
    rig.core.stop_ring(rig.now, 0, Stop::Finish);
    rig.pass(Duration::from_millis(10));
    rig.all_good();
    rig.pass(Duration::from_millis(10));
    rig.all_good();
    assert_eq!(heads(&rig), [1, 2, 3, 4, 5, 6, 7, 99]);
    assert!(rig.ended.iter().all(|e| matches!(e.1, End::Finished(Outcome::Good))));
}

#[test]
fn finish_ends_what_is_held_and_what_would_be() {
    let mut rig = Rig::single();
    rig.submit(1, write(0, 1));
    rig.table(&[], Queueing::Hold);
    rig.submit(2, write(0, 1));
    rig.submit(3, write(0, 100));
    rig.core.stop_ring(rig.now, 0, Stop::Finish);
    rig.pump();
    assert_eq!(heads(&rig), [2, 3]);
    rig.next(GONE);
    assert_eq!(heads(&rig), [1, 2, 3]);
    assert!(rig.ended.iter().all(|e| matches!(e.1, End::Finished(Outcome::Stopped))));
    assert_eq!(rig.core.outstanding(0), 0);
}

#[test]
fn the_deadline_of_finish_ends_everything_but_what_is_on_a_path() {
    let mut rig = everywhere();
    rig.core.stop_ring(rig.now, 0, Stop::Finish);
    rig.core.stop_deadline(0);
    rig.pump();
    assert_eq!(heads(&rig), [2, 3, 4, 5, 6, 7]);
    assert!(rig.ended.iter().all(|e| matches!(e.1, End::Finished(Outcome::Stopped))));
}

#[test]
fn after_the_deadline_nothing_is_issued_again() {
    for answer in [check(6, 0x2a, 0x01), status(Status::BUSY), GONE, Completion::Short(512)] {
        let mut rig = Rig::new();
        rig.submit(1, write(0, 4));
        rig.core.stop_ring(rig.now, 0, Stop::Finish);
        rig.core.stop_deadline(0);
        rig.next(answer);
        assert!(rig.wire.out.is_empty());
        assert_eq!(rig.outcome(), Outcome::Stopped);
    }
}

#[test]
fn what_returns_from_a_path_unfinished_during_suspend_stays_marked() {
    for answer in [check(6, 0x2a, 0x01), status(Status::BUSY), GONE, Completion::Short(512)] {
        let mut rig = Rig::new();
        rig.submit(1, write(0, 4));
        rig.core.stop_ring(rig.now, 0, Stop::Suspend);
        assert!(rig.ended.is_empty());
        rig.next(answer);
        assert!(matches!(rig.end(), End::Abandoned), "{answer:?}");
        assert!(rig.core.is_idle());
    }
}

#[test]
fn the_lus_word_is_delivered_even_during_suspend() {
    let mut rig = Rig::new();
    rig.submit(1, write(0, 4));
    rig.core.stop_ring(rig.now, 0, Stop::Suspend);
    rig.next(check(3, 0x0c, 0));
    assert!(matches!(rig.outcome(), Outcome::Lu { .. }));
}

#[test]
fn a_request_cut_in_part_when_the_ring_suspends_is_abandoned_as_a_whole() {
    let mut rig = Rig::single();
    rig.wire.room = [1; 4];
    rig.submit(1, write(0, 16 * 40));
    rig.core.stop_ring(rig.now, 0, Stop::Suspend);
    rig.pump();
    assert!(rig.ended.is_empty(), "one part is on a path");
    rig.next(Completion::Good);
    assert!(matches!(rig.end(), End::Abandoned));
    assert_eq!(rig.wire.count, 1);
}

#[test]
fn a_write_that_still_needs_its_flush_is_abandoned_by_suspend() {
    let mut rig = Rig::with(Limits { fua: false, ..limits() });
    rig.submit(1, Op::Write { extent: Extent::new(0, 1), fua: true });
    rig.core.stop_ring(rig.now, 0, Stop::Suspend);
    rig.next(Completion::Good);
    assert!(matches!(rig.end(), End::Abandoned), "it was not made durable");
}

#[test]
fn zeroes_half_written_are_abandoned_by_suspend() {
    let mut rig = Rig::new();
    rig.submit(1, Op::WriteZeroes { extent: Extent::new(0, 40), unmap: false });
    rig.next(check(5, 0x20, 0));
    rig.core.stop_ring(rig.now, 0, Stop::Suspend);
    rig.next(Completion::Good);
    assert!(matches!(rig.end(), End::Abandoned));
}

#[test]
fn a_ring_that_stopped_can_start_again() {
    let mut rig = Rig::single();
    rig.table(&[], Queueing::Hold);
    rig.submit(1, write(0, 1));
    rig.core.stop_ring(rig.now, 0, Stop::Suspend);
    rig.pump();
    assert!(matches!(rig.end(), End::Abandoned));
    rig.core.ring_stopped(0);
    rig.submit(1, write(0, 1));
    assert_eq!(rig.core.held(), 1, "held again, not ended");
    rig.table(&[&[(0, 2)]], Queueing::Hold);
    rig.all_good();
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn other_rings_are_none_of_a_stops_business() {
    let mut rig = Rig::single();
    rig.table(&[], Queueing::Hold);
    for (ring, head) in [(0, 1), (1, 2), (0, 3), (1, 4)] {
        let op = Some(write(0, 1));
        let data = vec![Segment { addr: 0, len: BLOCK }];
        rig.submit_request(Request { tag: Tag { ring, head }, op, data, ..Request::default() });
    }
    rig.core.stop_ring(rig.now, 1, Stop::Finish);
    rig.pump();
    assert_eq!(heads(&rig), [2, 4]);
    assert_eq!(rig.core.held(), 2);
}

#[test]
fn a_retry_during_a_stop_gets_no_more_time_than_the_stop_has() {
    let mut rig = Rig::new();
    rig.submit(1, write(0, 1));
    rig.pump();
    let full = rig.core.timeout_for(0, rig.now);
    assert_eq!(full, Duration::from_secs(30));
    rig.core.stop_ring(rig.now, 0, Stop::Finish);
    let later = rig.now + Duration::from_secs(18);
    assert_eq!(rig.core.timeout_for(0, later), Duration::from_secs(12));
    let late = rig.now + Duration::from_secs(60);
    assert_eq!(rig.core.timeout_for(0, late), Duration::from_millis(100));
    rig.core.ring_stopped(0);
    assert_eq!(rig.core.timeout_for(0, rig.now), full);
}

#[test]
fn what_rightly_takes_long_has_its_time_but_not_from_a_stop() {
    let mut rig = Rig::new();
    let op = |cdb| Op::Cdb { cdb, direction: Direction::Out };
    let (unmap, tur) = (op(Cdb::unmap(24)), op(Cdb::test_unit_ready()));
    let full = rig.core.timeout_for(0, rig.now);
    assert_eq!(rig.core.patience_for(0, &unmap, rig.now), Duration::from_secs(120));
    assert_eq!(rig.core.patience_for(0, &tur, rig.now), full);
    rig.core.stop_ring(rig.now, 0, Stop::Finish);
    let later = rig.now + Duration::from_secs(18);
    assert_eq!(rig.core.patience_for(0, &unmap, later), Duration::from_secs(12));
}
