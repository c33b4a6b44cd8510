//! What happens while no path is left.

use super::*;

fn retry(no_path_retry: NoPathRetry) -> Policy {
    Policy { no_path_retry, ..multibus() }
}

#[test]
fn fail_fails_at_once_and_queue_holds_for_ever() {
    let mut rig = Rig::new(retry(NoPathRetry::Fail), &["a"]);
    rig.fail("a");
    assert_eq!(rig.table().queueing, Queueing::Fail);
    assert!(rig.changes.contains(&Change::NoPath { held: false }));
    let mut rig = Rig::new(retry(NoPathRetry::Queue), &["a"]);
    rig.fail("a");
    rig.pass(Duration::from_secs(3));
    rig.pass(Duration::from_secs(100_000));
    assert_eq!(rig.table().queueing, Queueing::Hold);
    assert!(rig.changes.contains(&Change::NoPath { held: true }));
}

#[test]
fn a_number_holds_for_exactly_that_many_polling_intervals_and_recovery_resets_it() {
    let mut rig = Rig::new(retry(NoPathRetry::Times(3)), &["a"]);
    for round in 1..=2 {
        rig.fail("a");
        rig.pass(Duration::from_nanos(14_999_999_999));
        assert_eq!(rig.table().queueing, Queueing::Hold);
        rig.pass(Duration::from_nanos(1));
        assert_eq!(rig.table().queueing, Queueing::Fail);
        let ended = rig.took_changes().iter().filter(|c| **c == Change::QueueingEnded).count();
        assert_eq!(ended, 1);
        assert_eq!(rig.map.topology().queue_timeouts, round);
        rig.checked("a", UP);
        rig.proven("a", Ok(lu()));
        assert!(rig.took_changes().contains(&Change::Recovered));
        assert_eq!(rig.table().queueing, Queueing::Hold);
    }
}

#[test]
fn an_outage_is_told_once() {
    let mut rig = Rig::new(retry(NoPathRetry::Queue), &["a", "b"]);
    rig.fail("a");
    assert!(!rig.changes.iter().any(|c| matches!(c, Change::NoPath { .. })));
    rig.fail("b");
    rig.pass(Duration::from_secs(30));
    rig.event(Event::Timer);
    let told = rig.changes.iter().filter(|c| matches!(c, Change::NoPath { .. })).count();
    assert_eq!(told, 1);
}

#[test]
fn while_a_path_is_undecided_requests_wait_even_under_fail() {
    for reason in [hung(), judged(PathVerdict::Doubt)] {
        let mut rig = Rig::new(retry(NoPathRetry::Fail), &["a"]);
        rig.report("a", 1, reason);
        assert!(rig.table().groups.is_empty());
        assert_eq!(rig.table().queueing, Queueing::Hold);
        if rig.is_checking("a") {
            rig.checked("a", Verdict::Down);
        } else {
            rig.proven("a", Ok(other_lu()));
        }
        assert_eq!(rig.table().queueing, Queueing::Fail, "decided");
    }
}

#[test]
fn values_of_no_path_retry_are_those_of_multipath_conf() {
    assert_eq!("fail".parse(), Ok(NoPathRetry::Fail));
    assert_eq!("0".parse(), Ok(NoPathRetry::Fail));
    assert_eq!("queue".parse(), Ok(NoPathRetry::Queue));
    assert_eq!("18".parse(), Ok(NoPathRetry::Times(18)));
    assert!("soon".parse::<NoPathRetry>().is_err());
}

#[test]
fn the_longest_numbers_do_not_overflow() {
    let mut rig = Rig::new(
        Policy {
            polling_interval: Duration::from_secs(3600),
            ..retry(NoPathRetry::Times(u32::MAX))
        },
        &["a"],
    );
    rig.fail("a");
    assert!(rig.map.next_deadline().is_some());
    assert_eq!(rig.table().queueing, Queueing::Hold);
}

#[test]
fn queueing_may_be_switched_off_and_on_again() {
    let mut rig = Rig::new(retry(NoPathRetry::Queue), &["a"]);
    rig.fail("a");
    rig.with(|m, now, fx| m.disable_queueing(now, fx));
    rig.with(|m, now, fx| m.disable_queueing(now, fx));
    assert_eq!(rig.table().queueing, Queueing::Fail);
    let told = |rig: &Rig, on| {
        rig.changes.iter().filter(|c| **c == Change::QueueingSwitched { on }).count()
    };
    assert_eq!(told(&rig, false), 1);
    rig.come_back("a");
    assert_eq!(rig.table().queueing, Queueing::Fail, "it stays off");
    rig.fail("a");
    assert_eq!(rig.table().queueing, Queueing::Fail);
    rig.with(|m, now, fx| m.restore_queueing(now, fx));
    assert_eq!(rig.table().queueing, Queueing::Hold);
    assert_eq!(told(&rig, true), 1);
    assert_eq!(rig.map.topology().queue_timeouts, 0);
}

#[test]
fn queueing_that_is_restored_is_counted_anew() {
    let mut rig = Rig::new(retry(NoPathRetry::Times(3)), &["a"]);
    rig.fail("a");
    rig.pass(Duration::from_secs(10));
    rig.with(|m, now, fx| m.disable_queueing(now, fx));
    rig.pass(Duration::from_secs(100));
    assert!(!rig.changes.contains(&Change::QueueingEnded), "there was nothing to end");
    rig.with(|m, now, fx| m.restore_queueing(now, fx));
    rig.pass(Duration::from_millis(14_999));
    assert_eq!(rig.table().queueing, Queueing::Hold);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.table().queueing, Queueing::Fail);
}

fn lose(rig: &mut Rig, name: &str) -> Result<PathId, MapError> {
    rig.with(|m, now, fx| m.lose_path(now, name, fx))
}

#[test]
fn flush_on_last_del_decides_what_becomes_of_what_is_held_when_the_last_path_is_lost() {
    use crate::mpath::policy::FlushOnLastDel::{Always, Never, Unused};
    let cases = [(Always, Queueing::Fail), (Unused, Queueing::Hold), (Never, Queueing::Hold)];
    for (flush_on_last_del, queueing) in cases {
        let policy = Policy { flush_on_last_del, ..retry(NoPathRetry::Queue) };
        let mut rig = Rig::new(policy, &["a", "b"]);
        let id = rig.id("b");
        assert_eq!(lose(&mut rig, "b"), Ok(id));
        assert_eq!(rig.groups(), [["a"]]);
        assert_eq!(rig.table().queueing, Queueing::Hold, "one is left");
        lose(&mut rig, "a").unwrap();
        assert!(rig.table().groups.is_empty());
        assert_eq!(rig.table().queueing, queueing);
        let held = queueing == Queueing::Hold;
        assert!(rig.changes.contains(&Change::NoPath { held }));
        assert_eq!(rig.retire.len(), 2);
        rig.pass(Duration::from_secs(1000));
        rig.add("c").unwrap();
        assert_eq!(rig.groups(), [["c"]]);
        assert!(rig.changes.contains(&Change::Recovered));
        assert_eq!(rig.table().queueing, Queueing::Hold, "queueing is what it was");
    }
    let mut rig = Rig::new(multibus(), &["a"]);
    assert_eq!(lose(&mut rig, "x"), Err(MapError::NoSuchPath("x".to_owned())));
}

#[test]
fn what_was_flushed_is_held_again_once_a_path_has_joined_though_it_carries_nothing() {
    let flush_on_last_del = crate::mpath::policy::FlushOnLastDel::Always;
    let policy = Policy { flush_on_last_del, ..retry(NoPathRetry::Queue) };
    let mut rig = Rig::new(policy, &["a"]);
    lose(&mut rig, "a").unwrap();
    assert_eq!(rig.table().queueing, Queueing::Fail);
    let reading = Some(alua(1, &[AccessState::Standby]));
    rig.join(NewPath { reading, ..new_path("b") }).unwrap();
    assert!(rig.groups().is_empty());
    rig.pass(Duration::from_secs(1000));
    assert_eq!(rig.table().queueing, Queueing::Hold, "no_path_retry is queue");
}

#[test]
fn what_was_flushed_has_no_queueing_to_end() {
    let flush_on_last_del = crate::mpath::policy::FlushOnLastDel::Always;
    let policy = Policy { flush_on_last_del, ..retry(NoPathRetry::Times(3)) };
    let mut rig = Rig::new(policy, &["a"]);
    lose(&mut rig, "a").unwrap();
    assert_eq!(rig.map.next_deadline(), None);
    rig.pass(Duration::from_secs(100));
    rig.event(Event::Timer);
    assert!(!rig.changes.contains(&Change::QueueingEnded));
    assert_eq!(rig.map.topology().queue_timeouts, 0);
}

#[test]
fn without_any_path_no_path_retry_ends_as_well() {
    let mut rig = Rig::new(retry(NoPathRetry::Times(3)), &["a"]);
    lose(&mut rig, "a").unwrap();
    rig.pass(Duration::from_millis(14_999));
    assert_eq!(rig.table().queueing, Queueing::Hold);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.table().queueing, Queueing::Fail);
    assert_eq!(rig.map.next_deadline(), None);
}

#[test]
fn how_long_one_request_may_wait_is_published() {
    let queue_timeout = Some(Duration::from_secs(30));
    let rig = Rig::new(Policy { queue_timeout, ..multibus() }, &["a"]);
    assert_eq!(rig.table().hold_for, queue_timeout);
}
