//! Other settings while the map is in use.

use super::*;
use crate::mpath::policy::SanPathErr;

fn set(rig: &mut Rig, policy: Policy) {
    rig.with(|m, now, fx| m.set_policy(now, policy, fx));
}

#[test]
fn other_groups_do_not_move_io() {
    let mut rig = Rig::new(failover(), &["a", "b", "c"]);
    rig.fail("a");
    assert_eq!(rig.groups()[0], ["b"]);
    rig.come_back("a");
    let epochs: Vec<u32> = ["a", "b", "c"].map(|n| rig.path(n).epoch).to_vec();
    let switches = rig.map.topology().switches;
    set(&mut rig, multibus());
    assert_eq!(rig.groups(), [["a", "b", "c"]]);
    set(&mut rig, failover());
    assert_eq!(rig.map.topology().switches, switches);
    assert_eq!(["a", "b", "c"].map(|n| rig.path(n).epoch).to_vec(), epochs, "nothing was in doubt");
}

#[test]
fn another_selector_is_published_at_once_and_the_same_settings_are_no_news() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    let tables = rig.tables.len();
    set(&mut rig, multibus());
    assert_eq!(rig.tables.len(), tables);
    let selector = SelectorKind::RoundRobin;
    let queue_timeout = Some(Duration::from_secs(7));
    set(&mut rig, Policy { selector, queue_timeout, rr_min_io: 9, ..multibus() });
    assert_eq!(rig.table().selector, selector);
    assert_eq!(rig.table().hold_for, queue_timeout);
    assert_eq!(rig.table().groups[0].paths[0].repeat, 9);
}

#[test]
fn another_no_path_retry_is_counted_from_now() {
    let times = |n| Policy { no_path_retry: NoPathRetry::Times(n), ..multibus() };
    let mut rig = Rig::new(Policy { no_path_retry: NoPathRetry::Fail, ..multibus() }, &["a"]);
    rig.fail("a");
    assert_eq!(rig.table().queueing, Queueing::Fail);
    rig.pass(Duration::from_secs(100));
    set(&mut rig, times(2));
    assert_eq!(rig.table().queueing, Queueing::Hold);
    rig.pass(Duration::from_millis(9999));
    assert_eq!(rig.table().queueing, Queueing::Hold);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.table().queueing, Queueing::Fail);
    set(&mut rig, multibus());
    assert_eq!(rig.table().queueing, Queueing::Hold);
}

#[test]
fn another_checker_is_used_from_the_next_check_on_and_the_paths_own_again_without() {
    let mut rig = Rig::new(multibus(), &["a"]);
    for checker in [Some(CheckerKind::DirectIo), None] {
        set(&mut rig, Policy { checker, ..multibus() });
        rig.saw("a", PathVerdict::Check);
        rig.checked("a", UP);
        assert_eq!(rig.checkers.last(), Some(&checker.unwrap_or(CheckerKind::Tur)));
    }
}

#[test]
fn a_shorter_interval_holds_for_the_check_that_is_next() {
    let long = Duration::from_secs(600);
    let mut rig = Rig::new(Policy { polling_interval: long, ..multibus() }, &["a"]);
    set(&mut rig, multibus());
    rig.pass(Duration::from_secs(5));
    assert!(rig.is_checking("a"));
}

#[test]
fn a_count_without_a_use_is_dropped() {
    let san_path_err = Some(SanPathErr {
        threshold: 1,
        forget_rate: 100,
        recovery_time: Duration::from_secs(10_000),
    });
    let mut rig = Rig::new(Policy { san_path_err, ..multibus() }, &["a", "b"]);
    for _ in 0..2 {
        rig.fail("a");
        rig.come_back("a");
    }
    assert_eq!(rig.groups(), [["b"]]);
    set(&mut rig, multibus());
    assert_eq!(rig.groups(), [["a", "b"]]);
}

#[test]
fn marginal_pathgroups_may_be_switched_on_and_off() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.with(|m, now, fx| m.set_marginal(now, "a", true, fx)).unwrap();
    assert_eq!(rig.groups(), [["b"]]);
    set(&mut rig, Policy { marginal_pathgroups: true, ..multibus() });
    assert_eq!(rig.groups(), [["b"], ["a"]]);
    set(&mut rig, multibus());
    assert_eq!(rig.groups(), [["b"]]);
}

/// Without a prioritizer that reads access states it is for the checker to say
/// that a passive path carries I/O.
#[test]
fn another_prioritizer_sends_no_io_to_a_path_that_was_passive() {
    let states = [AccessState::ActiveOptimized, AccessState::Standby];
    let mut rig = Rig::read(multibus(), &[("a", alua(1, &states)), ("b", alua(2, &states))]);
    set(&mut rig, Policy { prio: PrioKind::Const, ..multibus() });
    assert_eq!(rig.groups(), [["a"]]);
    rig.checked("b", GHOST);
    assert_eq!(rig.groups(), [["a"]]);
    rig.saw("b", PathVerdict::Check);
    rig.checked("b", UP);
    assert_eq!(rig.groups(), [["a", "b"]]);
}

/// The path that has just come back was the first of the group it was in.
#[test]
fn a_path_that_came_back_before_the_settings_changed_has_no_io_follow_it() {
    let failback = crate::mpath::policy::Failback::Followover;
    let policy = Policy { grouping: GroupingPolicy::GroupByTpg, failback, ..Policy::default() };
    let states = [AccessState::ActiveOptimized; 2];
    let paths = [("a", 2), ("b", 1), ("c", 1)].map(|(name, own)| (name, alua(own, &states)));
    let mut rig = Rig::read(policy.clone(), &paths);
    rig.fail("a");
    rig.come_back("a");
    assert_eq!(rig.groups()[0], ["b", "c"]);
    assert!(rig.is_reading("a"), "its group may be the better one yet");
    set(&mut rig, Policy { grouping: GroupingPolicy::Failover, ..policy });
    assert_eq!(rig.groups()[0], ["b"]);
}

/// Its group was the last while it was out, and is the first of two that are worth
/// the same when they are numbered anew.
#[test]
fn groups_that_are_numbered_anew_have_no_io_follow_a_path_that_came_back_before() {
    let failback = crate::mpath::policy::Failback::Followover;
    let policy = Policy { failback, ..failover() };
    let timeout = |s| Policy { queue_timeout: Some(Duration::from_secs(s)), ..policy.clone() };
    let mut rig = Rig::read(policy.clone(), &[("a", priority(10)), ("b", priority(10))]);
    rig.fail("a");
    set(&mut rig, timeout(7));
    rig.come_back("a");
    assert_eq!(rig.groups()[0], ["b"]);
    assert!(rig.is_reading("a"));
    set(&mut rig, timeout(8));
    assert_eq!(rig.groups(), [["b"], ["a"]]);
}
