//! Groups, the one in use, and the generation of tables.

use super::*;

#[test]
fn failover_puts_each_path_in_a_group_of_its_own_and_multibus_all_in_one() {
    assert_eq!(Rig::new(failover(), &["a", "b"]).groups(), [["a"], ["b"]]);
    assert_eq!(Rig::new(multibus(), &["a", "b"]).groups(), [["a", "b"]]);
}

#[test]
fn the_table_says_how_to_choose_and_what_to_do_without_paths() {
    let policy = Policy {
        selector: SelectorKind::RoundRobin,
        no_path_retry: NoPathRetry::Fail,
        ..failover()
    };
    let rig = Rig::new(policy, &["a"]);
    assert_eq!(rig.table().selector, SelectorKind::RoundRobin);
    assert_eq!(rig.table().queueing, Queueing::Fail);
}

#[test]
fn a_failed_path_leaves_its_group_and_the_group_without_paths_leaves_the_table() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.fail("a");
    assert_eq!(rig.groups(), [["b"]]);
    let mut rig = Rig::new(failover(), &["a", "b"]);
    rig.fail("a");
    assert_eq!(rig.groups(), [["b"]]);
    assert_eq!(rig.table().groups[0].number, 2, "groups keep their number");
}

#[test]
fn a_returned_path_does_not_take_the_io_back() {
    let mut rig = Rig::new(failover(), &["a", "b"]);
    rig.fail("a");
    rig.come_back("a");
    assert_eq!(rig.groups(), [["b"], ["a"]]);
}

#[test]
fn leaving_a_group_is_told_with_both_numbers_and_counted() {
    let mut rig = Rig::new(failover(), &["a", "b"]);
    rig.fail("a");
    let switched = Change::GroupSwitched { from: Some(1), to: 2 };
    assert_eq!(rig.took_changes().iter().filter(|c| **c == switched).count(), 1);
    assert_eq!(rig.map.topology().switches, 1);
    rig.come_back("a");
    rig.fail("b");
    assert!(rig.took_changes().contains(&Change::GroupSwitched { from: Some(2), to: 1 }));
    assert_eq!(rig.map.topology().switches, 2);
}

#[test]
fn an_outage_that_ends_where_it_began_is_no_switch() {
    let mut rig = Rig::new(failover(), &["a"]);
    rig.fail("a");
    rig.come_back("a");
    assert!(!rig.changes.iter().any(|c| matches!(c, Change::GroupSwitched { .. })));
    assert_eq!(rig.map.topology().switches, 0);
}

#[test]
fn generations_grow_by_one_and_only_when_the_table_changes() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.fail("a");
    rig.come_back("a");
    rig.pass(Duration::from_secs(4));
    rig.event(Event::Timer);
    let generations: Vec<u64> = rig.tables.iter().map(|t| t.generation).collect();
    assert_eq!(generations, (1..=4).collect::<Vec<u64>>(), "a, b, a failed, a back");
    for pair in rig.tables.windows(2) {
        assert_ne!(pair[0].groups, pair[1].groups);
    }
}

#[test]
fn removing_a_path_of_another_group_leaves_the_group_in_use_alone() {
    let mut rig = Rig::new(failover(), &["a", "b", "c"]);
    rig.fail("a");
    rig.fail("b");
    rig.come_back("a");
    assert_eq!(rig.groups(), [["c"], ["a"]]);
    rig.with(|m, now, fx| m.remove_path(now, "a", fx)).unwrap();
    assert_eq!(rig.groups(), [["c"]]);
    assert_eq!(rig.map.topology().switches, 2, "a to b, b to c");
}
