//! How long requests are held for want of a path.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn allow(rig: &mut Rig, groups: &[&[(u8, u32)]], queueing: Queueing, limit: Option<Duration>) {
    rig.generation += 1;
    let mut next = PathTable::clone(&table(rig.generation, groups, queueing));
    next.hold_for = limit;
    rig.core.set_table(Arc::new(next));
    rig.pump();
}

/// No path, and ten seconds.
fn rig() -> Rig {
    let mut rig = Rig::new();
    allow(&mut rig, &[], Queueing::Hold, Some(10 * SECOND));
    rig
}

#[test]
fn a_request_is_held_to_the_end_of_its_time_and_no_longer() {
    let mut rig = rig();
    rig.submit(1, read(0, 8));
    assert_eq!(rig.core.next_deadline(), Some(rig.now + 10 * SECOND));
    rig.pass(10 * SECOND - Duration::from_nanos(1));
    assert!(rig.ended.is_empty());
    rig.pass(Duration::from_nanos(1));
    assert_eq!(rig.outcome(), Outcome::NoPath);
    assert_eq!(rig.told()[0].rule, "queue-timeout");
    assert!(rig.core.is_idle());
    assert_eq!(rig.core.next_deadline(), None);
}

#[test]
fn each_request_has_its_own_time() {
    let mut rig = rig();
    for head in 0..5 {
        rig.submit(head, read(0, 1));
        rig.pass(SECOND);
    }
    rig.pass(5 * SECOND);
    for head in 0..5 {
        assert_eq!(rig.ended.len(), usize::from(head) + 1);
        assert_eq!(rig.ended.last().map(|e| e.0), Some(head));
        rig.pass(SECOND);
    }
    assert_eq!(rig.ended.len(), 5);
}

#[test]
fn raw_commands_are_held_no_longer_either() {
    let mut rig = rig();
    rig.submit_read(1);
    rig.submit_compare_and_write(2);
    rig.pass(11 * SECOND);
    let ended = std::mem::take(&mut rig.ended);
    assert_eq!(ended.len(), 2);
    for (_, end) in ended {
        assert!(matches!(end, End::Finished(Outcome::NoPath)), "{end:?}");
    }
}

#[test]
fn without_a_limit_a_request_is_held_as_long_as_the_table_says() {
    let mut rig = Rig::new();
    rig.table(&[], Queueing::Hold);
    rig.submit(1, read(0, 8));
    assert_eq!(rig.core.next_deadline(), None);
    rig.pass(100_000 * SECOND);
    assert!(rig.ended.is_empty());
    // A limit that comes later counts from when it was held first.
    allow(&mut rig, &[], Queueing::Hold, Some(10 * SECOND));
    assert_eq!(rig.outcome(), Outcome::NoPath);
}

#[test]
fn time_runs_on_while_paths_come_and_go() {
    let mut rig = rig();
    let limit = Some(10 * SECOND);
    rig.submit(1, write(0, 1));
    rig.pass(6 * SECOND);
    allow(&mut rig, &[&[(0, 2)]], Queueing::Hold, limit);
    rig.next(GONE);
    assert_eq!(rig.core.held(), 1);
    allow(&mut rig, &[], Queueing::Hold, limit);
    rig.pass(3 * SECOND);
    assert!(rig.ended.is_empty());
    rig.pass(SECOND);
    assert_eq!(rig.outcome(), Outcome::NoPath);
}

#[test]
fn past_its_time_a_request_that_a_path_has_goes_on_there_and_is_not_held_again() {
    let mut rig = rig();
    let limit = Some(10 * SECOND);
    rig.submit(1, write(0, 1));
    rig.submit(2, write(8, 1));
    rig.pass(9 * SECOND);
    allow(&mut rig, &[&[(0, 2)]], Queueing::Hold, limit);
    // Long, but not so long that the path counts as hung.
    rig.now = rig.now + Duration::from_millis(900);
    rig.pump();
    rig.now = rig.now + Duration::from_millis(100);
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good, "it is late, and done");
    rig.next(GONE);
    assert_eq!(rig.outcome(), Outcome::NoPath);
    assert_eq!(rig.core.held(), 0);
}

#[test]
fn a_verdict_that_never_comes_holds_nobody_for_longer_whatever_the_policy() {
    let mut rig = Rig::single();
    allow(&mut rig, &[&[(0, 1)]], Queueing::Fail, Some(10 * SECOND));
    rig.submit(1, read(0, 1));
    rig.next(check(6, 0x29, 0));
    assert_eq!(rig.core.held(), 1);
    rig.pass(11 * SECOND);
    assert_eq!(rig.outcome(), Outcome::NoPath);
}

#[test]
fn trouble_of_transport_on_every_path_is_held_no_longer() {
    let mut rig = Rig::single();
    allow(&mut rig, &[&[(0, 1)]], Queueing::Hold, Some(10 * SECOND));
    rig.submit(1, read(0, 1));
    let start = rig.now;
    while rig.ended.is_empty() && rig.now.since(start) < 100 * SECOND {
        while !rig.wire.out.is_empty() {
            rig.next(host(HostByte::SOFT_ERROR));
        }
        rig.pass(Duration::from_millis(50));
    }
    assert_eq!(rig.outcome(), Outcome::NoPath);
    // A command timeout of retries, and then as long as it may be held.
    let took = rig.now.since(start);
    assert!(took >= 40 * SECOND && took < 41 * SECOND, "{took:?}");
}

#[test]
fn a_request_in_parts_ends_with_the_first_that_is_out_of_time() {
    let mut rig = rig();
    rig.submit(1, read(0, 48));
    assert_eq!(rig.core.held(), 3);
    rig.pass(11 * SECOND);
    assert_eq!(rig.outcome(), Outcome::NoPath);
    assert_eq!(rig.core.held(), 0);
    assert!(rig.core.is_idle());
}

#[test]
fn a_part_still_on_a_path_is_awaited_though_the_rest_is_out_of_time() {
    let mut rig = Rig::single();
    rig.wire.room = [1; 4];
    allow(&mut rig, &[&[(0, 1)]], Queueing::Hold, Some(10 * SECOND));
    rig.submit(1, write(0, 32));
    let first = rig.wire.out[0].clone();
    allow(&mut rig, &[], Queueing::Hold, Some(10 * SECOND));
    assert_eq!(rig.core.held(), 1);
    rig.pass(11 * SECOND);
    assert!(rig.ended.is_empty(), "the kernel still has its memory");
    rig.answer(&first, Completion::Good);
    assert_eq!(rig.outcome(), Outcome::NoPath);
}

#[test]
fn what_moves_data_between_outages_begins_anew() {
    let mut rig = rig();
    let limit = Some(10 * SECOND);
    rig.submit(1, write(0, 16));
    rig.pass(9 * SECOND);
    allow(&mut rig, &[&[(0, 2)]], Queueing::Hold, limit);
    rig.next(Completion::Short(8 * BLOCK));
    rig.next(GONE);
    allow(&mut rig, &[], Queueing::Hold, limit);
    rig.pass(9 * SECOND);
    assert!(rig.ended.is_empty());
    rig.pass(SECOND);
    assert_eq!(rig.outcome(), Outcome::NoPath);
}

#[test]
fn many_held_requests_keep_their_order_when_some_are_out_of_time() {
    let mut rig = rig();
    for head in 0..4 {
        rig.submit(head, read(u64::from(head), 1));
    }
    rig.pass(5 * SECOND);
    for head in 4..8 {
        rig.submit(head, read(u64::from(head), 1));
    }
    rig.pass(5 * SECOND);
    assert_eq!(rig.ended.len(), 4);
    allow(&mut rig, &[&[(0, 2)]], Queueing::Hold, None);
    let order: Vec<Op> = rig.wire.out.iter().map(|s| s.op).collect();
    assert_eq!(order, (4..8).map(|lba| read(lba, 1)).collect::<Vec<_>>());
}
