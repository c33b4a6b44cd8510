//! Failback, and an administrator's choice of group.

use super::*;
use crate::mpath::policy::Failback;

/// Three groups of one path, the first the best.
fn three(failback: Failback) -> Rig {
    let paths = [("a", priority(50)), ("b", priority(10)), ("c", priority(10))];
    Rig::read(Policy { failback, ..failover() }, &paths)
}

fn in_use(rig: &Rig) -> &str {
    rig.groups()[0][0]
}

#[test]
fn manual_goes_back_only_when_the_group_in_use_is_lost() {
    let mut rig = three(Failback::Manual);
    rig.fail("a");
    assert_eq!(in_use(&rig), "b");
    rig.come_back("a");
    rig.prioritized("a", priority(50));
    rig.pass(Duration::from_secs(3));
    assert_eq!(in_use(&rig), "b");
    rig.fail("b");
    assert_eq!(in_use(&rig), "a");
}

#[test]
fn immediate_goes_back_with_the_table_that_names_the_path_again() {
    let mut rig = three(Failback::Immediate);
    rig.fail("a");
    rig.come_back("a");
    assert_eq!(in_use(&rig), "a");
    assert_eq!(rig.map.topology().switches, 2);
}

#[test]
fn immediate_prefers_the_earlier_of_two_equal_groups_and_the_one_with_more_paths() {
    let mut rig = three(Failback::Immediate);
    rig.fail("a");
    rig.fail("b");
    assert_eq!(in_use(&rig), "c");
    rig.come_back("b");
    assert_eq!(in_use(&rig), "b");
}

#[test]
fn failback_follows_priorities_as_well_as_paths() {
    let mut rig = three(Failback::Immediate);
    rig.saw("c", PathVerdict::Refresh);
    rig.prioritized("c", priority(80));
    assert_eq!(in_use(&rig), "c");
}

#[test]
fn n_seconds_are_counted_from_the_last_path_that_came_up_or_failed() {
    let wait = Duration::from_secs(4);
    let mut rig = three(Failback::After(wait));
    rig.fail("a");
    rig.fail("c");
    rig.come_back("a");
    rig.pass(Duration::from_millis(3900));
    assert_eq!(in_use(&rig), "b");
    rig.checked("c", UP);
    rig.proven("c", Ok(lu()));
    rig.pass(Duration::from_millis(3900));
    assert_eq!(in_use(&rig), "b", "a path has come up");
    rig.fail("c");
    rig.pass(Duration::from_millis(3999));
    assert_eq!(in_use(&rig), "b", "a path has failed");
    rig.pass(Duration::from_millis(1));
    assert_eq!(in_use(&rig), "a");
}

#[test]
fn a_better_group_that_is_lost_again_is_waited_for_anew() {
    let mut rig = three(Failback::After(Duration::from_secs(10)));
    rig.fail("a");
    rig.come_back("a");
    rig.pass(Duration::from_secs(3));
    rig.fail("a");
    assert_eq!(rig.map.failback_deadline(), None);
    rig.pass(Duration::from_secs(15));
    assert_eq!(in_use(&rig), "b");
}

#[test]
fn what_failback_waits_for_is_void_once_the_group_in_use_is_lost() {
    let mut rig = three(Failback::After(Duration::from_secs(10)));
    rig.fail("a");
    rig.come_back("a");
    rig.prioritized("a", priority(50));
    assert!(rig.map.failback_deadline().is_some());
    rig.fail("b");
    assert_eq!(in_use(&rig), "a");
    assert_eq!(rig.map.failback_deadline(), None);
}

#[test]
fn a_failback_switched_off_while_it_waits_is_waited_for_no_more() {
    let mut rig = three(Failback::After(Duration::from_secs(10)));
    rig.fail("a");
    rig.come_back("a");
    assert_eq!(rig.map.failback_deadline(), Some(rig.now + Duration::from_secs(10)));
    rig.with(|m, now, fx| m.set_policy(now, failover(), fx));
    assert_eq!(rig.map.failback_deadline(), None);
    rig.pass(Duration::from_secs(20));
    assert_eq!(in_use(&rig), "b");
}

#[test]
fn followover_goes_back_only_with_the_first_path_of_the_best_group() {
    let policy = Policy {
        grouping: GroupingPolicy::GroupByPrio,
        failback: Failback::Followover,
        prio: PrioKind::Random,
        ..Policy::default()
    };
    let paths = [("a", priority(50)), ("b", priority(50)), ("c", priority(10)), ("d", priority(5))];
    let mut rig = Rig::read(policy.clone(), &paths);
    rig.with(|m, now, fx| m.switch_group(now, 2, fx)).expect("switched");
    rig.fail("a");
    rig.come_back("a");
    assert_eq!(in_use(&rig), "c", "b was there all the time: somebody else chose c");
    rig.fail("a");
    rig.fail("b");
    rig.come_back("b");
    assert_eq!(in_use(&rig), "b");
    assert_eq!(rig.map.topology().switches, 2);
    rig.come_back("a");
    let mut rig = Rig::read(policy, &paths);
    rig.with(|m, now, fx| m.switch_group(now, 3, fx)).expect("switched");
    rig.fail("c");
    rig.come_back("c");
    assert_eq!(in_use(&rig), "d", "c's group is not the best");
}

#[test]
fn followover_is_for_the_path_that_comes_back_and_not_for_what_it_is_worth_later() {
    let policy = Policy { failback: Failback::Followover, ..failover() };
    let mut rig = Rig::read(policy, &[("a", priority(10)), ("b", priority(10))]);
    rig.fail("a");
    rig.saw("b", PathVerdict::Refresh);
    rig.prioritized("b", priority(20));
    rig.readings.clear();
    rig.come_back("a");
    rig.prioritized("a", priority(10));
    assert_eq!(in_use(&rig), "b", "a's group is not the better one");
    rig.saw("a", PathVerdict::Refresh);
    rig.prioritized("a", priority(50));
    rig.event(Event::Timer);
    assert_eq!(in_use(&rig), "b", "it has been there for long");
}

/// It comes back with the priority it had when it failed; what it is worth now
/// is read.
#[test]
fn followover_waits_for_the_priority_of_the_path_that_came_back() {
    let policy = Policy { failback: Failback::Followover, ..failover() };
    let mut rig = Rig::read(policy, &[("a", priority(50)), ("b", priority(10))]);
    rig.saw("a", PathVerdict::Refresh);
    rig.prioritized("a", priority(1));
    rig.fail("a");
    rig.readings.clear();
    rig.come_back("a");
    assert_eq!(in_use(&rig), "b");
    rig.prioritized("a", priority(50));
    assert_eq!(in_use(&rig), "a");
}

#[test]
fn failback_never_leads_to_a_ghost_that_nothing_can_activate() {
    for failback in [Failback::Immediate, Failback::After(Duration::from_secs(1))] {
        let mut rig = three(failback);
        rig.fail("a");
        rig.pass(Duration::from_secs(5));
        rig.checked("a", GHOST);
        rig.proven("a", Ok(lu()));
        rig.pass(Duration::from_secs(4));
        assert_eq!(in_use(&rig), "b");
        assert!(rig.activations.is_empty());
    }
}

#[test]
fn an_administrators_choice_stays_until_paths_come_or_go_or_priorities_change() {
    let choose = |rig: &mut Rig, n| {
        rig.with(|m, now, fx| m.switch_group(now, n, fx)).expect("switched");
    };
    let mut rig = three(Failback::Immediate);
    choose(&mut rig, 3);
    assert_eq!(in_use(&rig), "c");
    assert!(rig.changes.contains(&Change::GroupSwitched { from: Some(1), to: 3 }));
    rig.pass(Duration::from_secs(4));
    assert_eq!(in_use(&rig), "c");
    rig.fail("b");
    assert_eq!(in_use(&rig), "a");
    choose(&mut rig, 3);
    rig.saw("c", PathVerdict::Refresh);
    rig.prioritized("c", priority(9));
    assert_eq!(in_use(&rig), "a");
    let mut rig = three(Failback::Immediate);
    choose(&mut rig, 3);
    let reading = Some(priority(1));
    rig.join(NewPath { reading, ..new_path("d") }).unwrap();
    assert_eq!(in_use(&rig), "a", "one has come");
    let mut rig = three(Failback::Manual);
    choose(&mut rig, 2);
    rig.fail("c");
    assert_eq!(in_use(&rig), "b");
}

#[test]
fn a_group_that_is_not_there_or_cannot_carry_is_refused_in_words() {
    let mut rig = three(Failback::Manual);
    let switch = |rig: &mut Rig, n| rig.with(|m, now, fx| m.switch_group(now, n, fx));
    for number in [0, 4] {
        let error = switch(&mut rig, number).expect_err("no such group");
        assert_eq!(error, MapError::NoSuchGroup { number, count: 3 });
    }
    rig.fail("c");
    assert_eq!(switch(&mut rig, 3), Err(MapError::GroupPassive(3)));
    assert_eq!(in_use(&rig), "a");
}

/// A path that joins takes I/O over for what it is itself worth.
#[test]
fn a_path_that_joins_has_io_go_to_no_other_group() {
    let mut rig = Rig::read(failover(), &[("a", priority(10)), ("b", priority(5))]);
    rig.saw("b", PathVerdict::Refresh);
    rig.prioritized("b", priority(50));
    rig.add("c").expect("joins");
    rig.prioritized("c", priority(7));
    assert_eq!(in_use(&rig), "a", "failback is manual");
}

#[test]
fn a_path_that_failed_before_its_first_priority_comes_back_as_any_other_does() {
    let mut rig = Rig::read(failover(), &[("a", priority(10))]);
    rig.add("b").expect("joins");
    rig.fail("b");
    rig.readings.clear();
    rig.come_back("b");
    if rig.is_reading("b") {
        rig.prioritized("b", priority(50));
    }
    assert_eq!(in_use(&rig), "a", "failback is manual");
}
