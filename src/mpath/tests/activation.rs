//! Activation of path groups: who is activated, and what becomes of it.

use super::*;
use crate::mpath::policy::Failback;
use AccessState::{ActiveNonOptimized, ActiveOptimized, Standby, Transitioning};

fn tpg() -> Policy {
    let grouping = GroupingPolicy::GroupByTpg;
    Policy { grouping, no_path_retry: NoPathRetry::Fail, ..Policy::default() }
}

/// An active group of one path, and one in standby of two.
fn array(policy: Policy) -> Rig {
    let states = [ActiveOptimized, Standby];
    let paths = [("a", 1), ("b", 2), ("c", 2)].map(|(name, own)| (name, explicit(own, &states)));
    let mut rig = Rig::read(policy, &paths);
    rig.readings.clear();
    rig
}

/// Two passive groups of a controller pair, as a checker sees them.
fn controllers(failback: Failback) -> Rig {
    let policy =
        Policy { failback, hardware_handler: HandlerKind::Rdac, prio: PrioKind::Rdac, ..tpg() };
    let paths = [("a", 6), ("b", 6), ("c", 0), ("d", 0)].map(|(n, p)| (n, priority(p)));
    let mut rig = Rig::read(Policy { grouping: GroupingPolicy::GroupByPrio, ..policy }, &paths);
    for name in ["c", "d"] {
        rig.saw(name, PathVerdict::Check);
        rig.checked(name, GHOST);
        rig.prioritized(name, priority(0));
    }
    rig
}

fn results(rig: &mut Rig) -> Vec<(u16, Activation)> {
    let of = |c: Change| match c {
        Change::Activated { group, result } => Some((group, result)),
        _ => None,
    };
    rig.took_changes().into_iter().filter_map(of).collect()
}

#[test]
fn a_group_in_standby_is_activated_by_one_path_when_nothing_carries() {
    let mut rig = array(tpg());
    assert!(rig.activations.is_empty(), "a carries");
    rig.fail("a");
    assert_eq!(rig.activations.len(), 1, "one path of the target port group");
    let Asked { path, handler, group, .. } = rig.activations[0];
    assert_eq!((path, handler, group), (rig.id("b"), HandlerKind::Alua, Some(2)));
    assert_eq!(rig.table().queueing, Queueing::Hold, "even under fail");
    assert!(rig.changes.contains(&Change::Activating { group: 2 }));
    assert!(!rig.changes.iter().any(|c| matches!(c, Change::NoPath { .. })));
    let epoch = rig.path("b").epoch;
    rig.activated("b", Activation::Done);
    assert_eq!(rig.groups(), [["b", "c"]], "every path of the target port group");
    assert!(rig.path("b").epoch == epoch && epoch == 1, "no table had named it");
    assert!(rig.is_reading("b"), "to know what is true");
    assert_eq!(results(&mut rig), [(2, Activation::Done)]);
}

#[test]
fn each_path_of_a_passive_controller_is_activated_by_itself() {
    let mut rig = controllers(Failback::Manual);
    assert_eq!(rig.groups(), [["a", "b"]]);
    rig.fail("a");
    rig.fail("b");
    assert!(rig.is_activating("c") && rig.is_activating("d"));
    rig.activated("c", Activation::Done);
    assert_eq!(rig.groups(), [["c"]], "requests need not wait for the other");
    rig.activated("d", Activation::Done);
    assert_eq!(rig.groups(), [["c", "d"]]);
    assert_eq!(results(&mut rig), [(2, Activation::Done)]);
}

/// It was recognized in standby: law 2 asks for its capacity first, and
/// requests wait for that even under `fail`.
#[test]
fn a_path_that_was_never_sized_is_proven_after_its_activation() {
    let mut rig = array(tpg());
    for name in ["b", "c"] {
        rig.fail(name);
    }
    rig.pass(Duration::from_secs(5));
    rig.checked("b", GHOST);
    let (path, proof) = rig.proofs.pop().expect("a proof is under way");
    rig.event(Event::Recognized { path, proof, wwid: lu().wwid });
    rig.fail("a");
    rig.activated("b", Activation::Done);
    assert!(rig.groups().is_empty());
    assert_eq!(rig.table().queueing, Queueing::Hold);
    assert!(!rig.changes.iter().any(|c| matches!(c, Change::NoPath { .. })));
    rig.proven("b", Ok(lu()));
    assert_eq!(rig.groups(), [["b"]]);
}

#[test]
fn an_implicit_array_and_a_map_without_handler_are_never_told_to_change() {
    let states = [ActiveOptimized, Standby];
    let mut rig = Rig::read(tpg(), &[("a", alua(1, &states)), ("b", alua(2, &states))]);
    rig.fail("a");
    assert!(rig.activations.is_empty());
    assert_eq!(rig.table().queueing, Queueing::Fail);
    let policy = Policy { hardware_handler: HandlerKind::Alua, ..tpg() };
    let mut rig = Rig::read(policy, &[("a", alua(1, &states)), ("b", alua(2, &states))]);
    rig.fail("a");
    assert!(rig.activations.is_empty(), "it would refuse");
    let mut rig = array(Policy { hardware_handler: HandlerKind::None, ..tpg() });
    rig.fail("a");
    assert!(rig.activations.is_empty());
    assert_eq!(rig.table().queueing, Queueing::Fail);
}

/// The array may have moved the LU by itself: first the states are read.
#[test]
fn nothing_is_activated_while_states_are_open() {
    let mut rig = array(tpg());
    let epoch = rig.path("a").epoch;
    rig.report("a", epoch, not_ready(0x0b));
    assert!(rig.activations.is_empty());
    rig.prioritized("a", explicit(1, &[Standby, ActiveOptimized]));
    assert!(rig.activations.is_empty());
    assert_eq!(rig.groups(), [["b", "c"]]);
    let mut rig = array(tpg());
    rig.report("a", 1, not_ready(0x0a));
    rig.prioritized("a", explicit(1, &[Transitioning, Standby]));
    assert!(rig.activations.is_empty(), "a transition is under way");
    rig.pass(Duration::from_secs(1));
    rig.prioritized("a", explicit(1, &[Standby, Standby]));
    assert!(!rig.activations.is_empty(), "it came to nothing");
}

#[test]
fn retries_are_counted_and_delayed_only_where_the_array_asks_for_it() {
    let mut rig = array(Policy { pg_init_retries: 2, ..tpg() });
    rig.fail("a");
    rig.activated("b", Activation::Retry { delayed: false });
    rig.event(Event::Timer);
    assert!(rig.is_activating("b"), "at once");
    rig.activated("b", Activation::Retry { delayed: true });
    rig.pass(Duration::from_millis(1999));
    assert!(!rig.is_activating("b"));
    assert_eq!(rig.table().queueing, Queueing::Hold);
    rig.pass(Duration::from_millis(1));
    assert!(rig.is_activating("b"));
    rig.activated("b", Activation::Retry { delayed: false });
    assert!(!rig.path("b").is_usable(), "the third was one too many");
    let cause = Some(Cause::Activation("tried too often"));
    assert_eq!(rig.path("b").last_cause, cause);
    assert!(rig.is_activating("c"), "the other path has its try");
}

/// No check is answered meanwhile.
fn patient() -> Policy {
    Policy { checker_timeout: Duration::from_secs(600), ..tpg() }
}

/// What takes half a minute on some arrays, with `pg_init_retries` 0, which is
/// the default.
#[test]
fn a_transition_is_waited_for_and_no_retry() {
    let mut rig = array(patient());
    rig.fail("a");
    for _ in 0..59 {
        rig.activated("b", Activation::Transition);
        assert!(!rig.is_activating("b"), "it is not asked as fast as it answers");
        rig.pass(Duration::from_secs(1));
        assert!(rig.is_activating("b"));
        assert_eq!(rig.table().queueing, Queueing::Hold, "even under fail");
    }
    rig.activated("b", Activation::Done);
    assert_eq!(rig.groups(), [["b", "c"]]);
}

#[test]
fn a_transition_that_does_not_end_fails_the_path() {
    let mut rig = array(patient());
    rig.fail("a");
    for _ in 0..61 {
        if rig.is_activating("b") {
            rig.activated("b", Activation::Transition);
        }
        rig.pass(Duration::from_secs(1));
    }
    let cause = Some(Cause::Activation("in transition for too long"));
    assert_eq!(rig.path("b").last_cause, cause);
}

#[test]
fn a_failed_activation_fails_the_path_and_requests_with_it_under_fail() {
    let mut rig = array(tpg());
    rig.fail("a");
    rig.activated("b", Activation::Failed);
    assert_eq!(rig.path("b").last_cause, Some(Cause::Activation("refused")));
    rig.activated("c", Activation::Failed);
    assert_eq!(rig.table().queueing, Queueing::Fail);
    assert_eq!(results(&mut rig), [(2, Activation::Failed), (2, Activation::Failed)]);
}

#[test]
fn an_unsupported_activation_leaves_the_path_a_ghost_and_is_not_tried_again() {
    let mut rig = controllers(Failback::Manual);
    rig.fail("a");
    rig.fail("b");
    rig.activated("c", Activation::Unsupported);
    rig.activated("d", Activation::Unsupported);
    assert!(rig.path("c").is_usable() && rig.groups().is_empty());
    assert_eq!(rig.table().queueing, Queueing::Fail);
    rig.pass(Duration::from_secs(3));
    assert!(!rig.is_activating("c"));
}

#[test]
fn a_busy_array_is_left_alone_for_two_seconds_and_other_groups_come_first() {
    let states = [ActiveOptimized, Standby, Standby];
    let paths = [("a", 1), ("b", 2), ("c", 3)].map(|(n, g)| (n, explicit(g, &states)));
    let mut rig = Rig::read(tpg(), &paths);
    rig.fail("a");
    rig.activated("b", Activation::Busy);
    assert!(rig.path("b").is_usable(), "it has not failed");
    assert_eq!(rig.map.topology().groups[1].status, GroupStatus::Disabled);
    assert!(rig.is_activating("c"));
    rig.activated("c", Activation::Busy);
    assert!(rig.activations.is_empty());
    assert_eq!(rig.table().queueing, Queueing::Hold);
    rig.pass(Duration::from_millis(1999));
    assert!(rig.activations.is_empty());
    rig.pass(Duration::from_millis(1));
    assert!(rig.is_activating("b"));
    rig.activated("b", Activation::Done);
    assert_eq!(rig.groups(), [["b"]]);
    assert_eq!(rig.map.topology().groups[1].status, GroupStatus::Active);
}

/// `no_path_retry fail` fails requests in the end, whatever the array promises.
#[test]
fn requests_do_not_wait_for_a_busy_array_for_ever() {
    let mut rig = array(tpg());
    rig.fail("a");
    let mut asked = 0;
    for _ in 0..35 {
        for name in ["b", "c"] {
            if rig.is_activating(name) {
                asked += 1;
                rig.activated(name, Activation::Busy);
            }
        }
        rig.all_checked(GHOST);
        rig.pass(Duration::from_secs(2));
    }
    assert!(asked > 25, "{asked}: it is asked again and again");
    rig.activated("b", Activation::Busy);
    assert_eq!(rig.table().queueing, Queueing::Fail);
    assert!(rig.changes.contains(&Change::NoPath { held: false }));
}

/// The array accepts the request and does nothing.
#[test]
fn an_activation_that_comes_to_nothing_is_not_repeated_at_once() {
    let mut rig = array(tpg());
    rig.fail("a");
    rig.activated("b", Activation::Done);
    rig.prioritized("b", explicit(2, &[Standby, Standby]));
    if rig.is_reading("b") {
        rig.prioritized("b", explicit(2, &[Standby, Standby]));
    }
    assert!(rig.groups().is_empty());
    assert!(rig.activations.is_empty());
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.activations.len(), 1);
}

#[test]
fn an_activation_that_never_answers_fails_its_path() {
    let mut rig = array(tpg());
    rig.fail("a");
    rig.pass(Duration::from_secs(29));
    assert!(rig.path("b").is_usable() && rig.table().queueing == Queueing::Hold);
    let late = rig.activations[0];
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.path("b").last_cause, Some(Cause::Activation("not answered in time")));
    assert!(rig.is_activating("c"), "another path of the group");
    let Asked { path, number, .. } = late;
    rig.event(Event::Activated { path, activation: number, result: Activation::Done });
    assert!(!rig.path("b").is_usable() && rig.groups().is_empty(), "too late to count");
    rig.activated("c", Activation::Done);
    assert_eq!(rig.groups(), [["c"]]);
}

#[test]
fn an_answer_to_another_activation_is_no_answer() {
    let mut rig = array(tpg());
    rig.fail("a");
    let Asked { path, number, .. } = rig.activations[0];
    let result = Activation::Done;
    rig.event(Event::Activated { path, activation: number + 7, result });
    assert!(rig.groups().is_empty());
}

#[test]
fn a_path_that_fails_while_it_is_activated_holds_nothing_up() {
    let mut rig = array(tpg());
    rig.fail("a");
    rig.fail("b");
    assert!(rig.is_activating("c"));
    rig.activated("b", Activation::Done);
    assert!(rig.groups().is_empty(), "b has failed");
}

#[test]
fn a_path_that_comes_back_ends_the_wait_for_an_activation() {
    let mut rig = array(tpg());
    rig.fail("a");
    rig.pass(Duration::from_secs(5));
    rig.checked("a", UP);
    rig.proven("a", Ok(lu()));
    assert_eq!(rig.groups(), [["a"]]);
    rig.activated("b", Activation::Done);
    assert_eq!(rig.groups(), [vec!["a"], vec!["b", "c"]], "and I/O stays where it is");
}

/// Failback leads to a passive controller by its activation, and the group in
/// use carries I/O until that has succeeded.
#[test]
fn failback_activates_a_better_group_first() {
    let mut rig = controllers(Failback::Immediate);
    rig.saw("c", PathVerdict::Refresh);
    rig.prioritized("c", priority(9));
    ["a", "b"].into_iter().for_each(|name| rig.prioritized(name, priority(6)));
    assert!(rig.is_activating("c"));
    assert_eq!(rig.groups(), [["a", "b"]]);
    assert_eq!(rig.table().groups[0].number, 2);
    rig.activated("c", Activation::Done);
    assert_eq!(rig.groups(), [vec!["c"], vec!["a", "b"]]);
    let mut rig = controllers(Failback::Immediate);
    rig.saw("c", PathVerdict::Refresh);
    rig.prioritized("c", priority(9));
    ["a", "b"].into_iter().for_each(|name| rig.prioritized(name, priority(6)));
    rig.activated("c", Activation::Busy);
    rig.pass(Duration::from_secs(4));
    assert!(rig.activations.is_empty(), "never to one that is bypassed");
    assert_eq!(rig.groups(), [["a", "b"]]);
}

/// One path's reading tells that the array has moved; what the paths of the
/// group that was left are worth now is not known before they have been read.
#[test]
fn failback_undoes_no_move_of_the_array() {
    let states = [ActiveOptimized, ActiveNonOptimized];
    let paths = [("a", 1), ("b", 2), ("c", 2)].map(|(name, own)| (name, explicit(own, &states)));
    let mut rig = Rig::read(Policy { failback: Failback::Immediate, ..tpg() }, &paths);
    let moved = [Standby, ActiveOptimized];
    rig.saw("b", PathVerdict::Refresh);
    rig.prioritized("b", explicit(2, &moved));
    assert_eq!(rig.groups(), [["b", "c"]]);
    rig.event(Event::Timer);
    assert!(rig.is_reading("a") && rig.activations.is_empty());
    rig.prioritized("a", explicit(1, &moved));
    rig.pass(Duration::from_secs(4));
    assert!(rig.activations.is_empty());
    assert_eq!(rig.groups(), [["b", "c"]]);
    // Told by a path of the group that is left, when the others are worth less.
    let mut rig = Rig::read(
        Policy { failback: Failback::Immediate, ..tpg() },
        &paths.map(|(name, _)| {
            (name, explicit(if name == "a" { 1 } else { 2 }, &[Transitioning; 2]))
        }),
    );
    rig.saw("a", PathVerdict::Refresh);
    rig.prioritized("a", explicit(1, &moved));
    rig.event(Event::Timer);
    assert!(rig.is_reading("b") && rig.is_reading("c"));
    assert!(rig.activations.is_empty());
    rig.prioritized("b", explicit(2, &moved));
    rig.prioritized("c", explicit(2, &moved));
    assert!(rig.activations.is_empty());
    assert_eq!(rig.groups(), [["b", "c"]]);
}

#[test]
fn a_failback_that_is_due_before_the_priorities_are_known_is_put_off_by_a_second() {
    let failback = Failback::After(Duration::from_secs(2));
    let states = [ActiveOptimized, ActiveNonOptimized];
    let paths = [("a", 1), ("b", 2)].map(|(name, own)| (name, explicit(own, &states)));
    let mut rig = Rig::read(Policy { failback, ..tpg() }, &paths);
    let moved = [Standby, ActiveOptimized];
    rig.saw("b", PathVerdict::Refresh);
    // Worth less than "a" was before: another host moved it.
    rig.prioritized("b", Reading { priority: Some(20), ..explicit(2, &moved) });
    assert_eq!(rig.groups(), [["b"]]);
    rig.event(Event::Timer);
    rig.pass(Duration::from_secs(2));
    assert!(rig.is_reading("a") && rig.activations.is_empty());
    assert_eq!(rig.map.failback_deadline(), Some(rig.now + Duration::from_secs(1)));
    rig.prioritized("a", Reading { priority: Some(50), ..explicit(1, &moved) });
    rig.pass(Duration::from_millis(999));
    assert!(rig.activations.is_empty());
    rig.pass(Duration::from_millis(1));
    assert!(rig.is_activating("a"), "it is the better one");
}

/// Two paths are read at once; what was begun before the array moved says
/// nothing about the path's worth after it.
#[test]
fn a_priority_from_before_the_array_moved_is_read_again() {
    let states = [ActiveOptimized, ActiveNonOptimized];
    let paths = [("a", 1), ("b", 2)].map(|(name, own)| (name, explicit(own, &states)));
    let mut rig = Rig::read(tpg(), &paths);
    rig.saw("a", PathVerdict::Check);
    rig.checked("a", UP);
    rig.saw("b", PathVerdict::Check);
    rig.checked("b", UP);
    assert!(rig.is_reading("a") && rig.is_reading("b"));
    let moved = [Standby, ActiveOptimized];
    rig.prioritized("b", explicit(2, &moved));
    rig.prioritized("a", explicit(1, &states));
    assert!(rig.is_reading("a"), "it was begun too early");
    rig.prioritized("a", explicit(1, &moved));
    assert_eq!((rig.path("a").priority, rig.path("b").priority), (1, 50));
}

#[test]
fn an_administrator_can_have_a_passive_group_activated_bypassed_or_not() {
    let mut rig = controllers(Failback::Immediate);
    rig.with(|m, now, fx| m.switch_group(now, 2, fx)).expect("it can be");
    assert!(rig.is_activating("c") && rig.is_activating("d"));
    assert_eq!(rig.groups(), [["a", "b"]], "until it carries");
    let again = rig.with(|m, now, fx| m.switch_group(now, 2, fx));
    assert_eq!(again, Err(MapError::Activating));
    rig.activated("c", Activation::Busy);
    rig.activated("d", Activation::Busy);
    assert_eq!(rig.groups(), [["a", "b"]]);
    rig.with(|m, now, fx| m.switch_group(now, 2, fx)).expect("it can be");
    rig.activated("c", Activation::Done);
    rig.activated("d", Activation::Done);
    assert_eq!(rig.groups(), [["c", "d"], ["a", "b"]], "although failback is immediate");
}

#[test]
fn a_group_an_administrator_had_activated_when_nothing_carried_is_kept() {
    let worth = [("a", 1, 50), ("b", 2, 10)];
    let found = |(own, worth), states| Reading { priority: Some(worth), ..explicit(own, states) };
    let read = |rig: &mut Rig, states| {
        for (name, own, worth) in worth {
            while rig.is_reading(name) {
                rig.prioritized(name, found((own, worth), states));
            }
        }
    };
    let paths = worth.map(|(name, own, worth)| (name, found((own, worth), &[Standby; 2])));
    let mut rig = Rig::read(Policy { failback: Failback::Immediate, ..tpg() }, &paths);
    for name in ["a", "b"] {
        // It comes to nothing.
        rig.activated(name, Activation::Done);
        read(&mut rig, &[Standby; 2]);
    }
    assert!(rig.groups().is_empty() && rig.activations.is_empty());
    rig.with(|m, now, fx| m.switch_group(now, 2, fx)).expect("it can be");
    rig.activated("b", Activation::Done);
    read(&mut rig, &[Standby, ActiveOptimized]);
    assert_eq!(rig.groups(), [["b"]]);
    rig.pass(Duration::from_secs(4));
    rig.event(Event::Timer);
    assert!(rig.activations.is_empty(), "although failback is immediate");
    assert_eq!(rig.groups(), [["b"]]);
}

#[test]
fn a_delayed_retry_whose_handler_is_gone_by_then_keeps_the_timer_from_nothing() {
    let mut rig = array(Policy { pg_init_retries: 3, ..tpg() });
    rig.fail("a");
    rig.activated("b", Activation::Retry { delayed: true });
    let policy = Policy { hardware_handler: HandlerKind::None, ..tpg() };
    rig.with(|m, now, fx| m.set_policy(now, policy, fx));
    // (`pass` fails where the timer does not help.)
    rig.pass(Duration::from_secs(10));
    assert!(!rig.is_activating("b"));
}

/// Its array was busy just now; the other path is news since.
#[test]
fn a_path_that_is_left_alone_is_not_activated_along_with_another_of_its_group() {
    let (hardware_handler, prio) = (HandlerKind::Rdac, PrioKind::Rdac);
    let policy = Policy { hardware_handler, prio, ..multibus() };
    let mut rig = Rig::read(policy, &[("a", priority(6)), ("b", priority(6))]);
    rig.saw("b", PathVerdict::Check);
    rig.checked("b", GHOST);
    rig.prioritized("b", priority(6));
    rig.fail("a");
    assert!(rig.is_activating("b"));
    rig.come_back("a");
    rig.activated("b", Activation::Busy);
    let epoch = rig.path("a").epoch;
    rig.report("a", epoch, not_ready(0x0b));
    rig.prioritized("a", priority(6));
    while rig.is_reading("a") {
        rig.prioritized("a", priority(6));
    }
    rig.all_checked(GHOST);
    assert!(rig.is_activating("a") && !rig.is_activating("b"));
    rig.activated("a", Activation::Failed);
    assert!(!rig.is_activating("b"));
    rig.pass(Duration::from_secs(2));
    assert!(rig.is_activating("b"), "two seconds are over");
}
