//! Groups, the one in use, and the generation of tables.

use super::*;
use crate::mpath::policy::Failback;

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

/// A path with what the policies group by.
fn with(name: &str, serial: &str, node: &str, reading: Reading) -> NewPath {
    let attributes = Attributes {
        serial: Some(serial.to_owned()),
        target_node: Some(node.to_owned()),
        ..Attributes::default()
    };
    NewPath { attributes, reading: Some(reading), ..new_path(name) }
}

fn grouped_by(grouping: GroupingPolicy, paths: &[NewPath]) -> Vec<Vec<String>> {
    let mut rig = Rig::new(Policy { grouping, ..Policy::default() }, &[]);
    for path in paths {
        rig.join(path.clone()).expect("joins");
    }
    let names = |g: &TopologyGroup| g.paths.iter().map(|p| p.name.clone()).collect();
    rig.map.topology().groups.iter().map(names).collect()
}

#[test]
fn each_policy_groups_by_what_it_is_called_and_the_best_group_is_first() {
    use AccessState::{ActiveNonOptimized as Other, ActiveOptimized as Best};
    let states = [Other, Best, Other];
    let paths = [
        with("a", "s1", "n1", alua(1, &states)),
        with("b", "s2", "n1", alua(2, &states)),
        with("c", "s1", "n2", alua(3, &states)),
        with("d", "s2", "n2", alua(2, &states)),
    ];
    let table: [(GroupingPolicy, &[&[&str]]); 6] = [
        (GroupingPolicy::Failover, &[&["b"], &["d"], &["a"], &["c"]]),
        (GroupingPolicy::Multibus, &[&["a", "b", "c", "d"]]),
        (GroupingPolicy::GroupBySerial, &[&["b", "d"], &["a", "c"]]),
        (GroupingPolicy::GroupByPrio, &[&["b", "d"], &["a", "c"]]),
        (GroupingPolicy::GroupByNodeName, &[&["a", "b"], &["c", "d"]]),
        (GroupingPolicy::GroupByTpg, &[&["b", "d"], &["a"], &["c"]]),
    ];
    for (policy, expected) in table {
        assert_eq!(grouped_by(policy, &paths), expected, "{}", policy.name());
    }
}

/// As in multipath-tools, where an unknown serial number or node is an empty
/// one, and an unknown target port group is no group.
#[test]
fn paths_of_which_nothing_is_known_are_alike_but_for_their_target_port_group() {
    for grouping in [
        GroupingPolicy::GroupBySerial,
        GroupingPolicy::GroupByNodeName,
        GroupingPolicy::GroupByPrio,
    ] {
        assert_eq!(grouped_by(grouping, &["a", "b"].map(new_path)), [["a", "b"]]);
    }
    let by_tpg = grouped_by(GroupingPolicy::GroupByTpg, &["a", "b"].map(new_path));
    assert_eq!(by_tpg, [["a"], ["b"]]);
}

/// The average, rounded down, not the sum; then the number of paths; then the
/// order of configuration.
#[test]
fn a_groups_priority_is_the_average_over_its_usable_paths() {
    let paths = [
        with("a", "s1", "", priority(10)),
        with("b", "s1", "", priority(11)),
        with("c", "s2", "", priority(11)),
        with("d", "s3", "", priority(10)),
        with("e", "s4", "", priority(10)),
    ];
    let rig = grouped_by(GroupingPolicy::GroupBySerial, &paths);
    assert_eq!(rig, [vec!["c"], vec!["a", "b"], vec!["d"], vec!["e"]]);
    let policy = Policy { grouping: GroupingPolicy::GroupBySerial, ..Policy::default() };
    let mut rig = Rig::new(policy, &[]);
    for path in paths {
        rig.join(path).expect("joins");
    }
    assert_eq!(rig.map.topology().groups[1].priority, 10);
    rig.fail("a");
    assert_eq!(rig.map.topology().groups[1].priority, 11, "of the paths that are left");
    rig.fail("b");
    assert_eq!(rig.map.topology().groups[1].priority, 0);
    assert_eq!(rig.map.topology().groups[1].status, GroupStatus::Disabled);
}

#[test]
fn marginal_paths_have_groups_of_their_own_and_are_used_last() {
    let policy = Policy { marginal_pathgroups: true, failback: Failback::Immediate, ..multibus() };
    let mut rig = Rig::read(policy, &[("a", priority(50)), ("b", priority(1)), ("c", priority(1))]);
    rig.set_marginal("a", true);
    assert_eq!(rig.groups(), [vec!["b", "c"], vec!["a"]]);
    assert_eq!(
        rig.map.topology().groups.iter().map(|g| g.marginal).collect::<Vec<_>>(),
        [false, true]
    );
    rig.fail("b");
    rig.fail("c");
    assert_eq!(rig.groups(), [["a"]]);
    assert_eq!(rig.table().groups[0].number, 2);
    rig.with(|m, now, fx| m.remove_path(now, "c", fx)).expect("removed");
    let numbers: Vec<_> = rig.map.topology().groups.iter().map(|g| g.marginal).collect();
    assert_eq!(numbers, [false, true], "numbered last, too, though nothing else is usable");
}

/// multipathd loads the map anew when a path is marginal no longer; under any
/// failback.
#[test]
fn a_marginal_group_is_left_for_a_reliable_one_whatever_failback_says() {
    let policy = Policy { marginal_pathgroups: true, ..multibus() };
    let mut rig = Rig::read(policy, &[("a", priority(50)), ("b", priority(1))]);
    rig.set_marginal("a", true);
    rig.fail("b");
    assert_eq!(rig.groups(), [["a"]]);
    rig.come_back("b");
    assert_eq!(rig.groups(), [["b"], ["a"]]);
}

#[test]
fn without_groups_of_their_own_marginal_paths_are_held_back_while_others_carry() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.set_marginal("a", true);
    assert_eq!(rig.groups(), [["b"]]);
    let epoch = rig.path("a").epoch;
    rig.fail("b");
    assert_eq!(rig.groups(), [["a"]], "better than none");
    assert_eq!(rig.path("a").epoch, epoch + 1, "it begins to carry anew");
    rig.come_back("b");
    assert_eq!(rig.groups(), [["b"]]);
}

#[test]
fn a_change_of_priority_regroups_and_moves_no_io() {
    let policy = Policy { grouping: GroupingPolicy::GroupByPrio, ..Policy::default() };
    let mut rig = Rig::read(
        policy,
        &[("a", priority(50)), ("b", priority(50)), ("c", priority(50)), ("d", priority(10))],
    );
    assert_eq!(rig.groups(), [vec!["a", "b", "c"], vec!["d"]]);
    rig.saw("c", PathVerdict::Refresh);
    rig.prioritized("c", priority(80));
    assert_eq!(rig.groups(), [vec!["a", "b"], vec!["c"], vec!["d"]], "failback is manual");
    assert_eq!(rig.table().groups[0].number, 2, "numbered by rank");
    assert_eq!(rig.map.topology().switches, 0);
}

/// Else the first path that was opened would carry all I/O for ever, however
/// bad it is, under `failback manual`.
#[test]
fn a_path_that_joins_with_a_higher_priority_takes_over_whatever_failback_says() {
    let mut rig = Rig::read(failover(), &[("a", priority(10)), ("b", priority(50))]);
    assert_eq!(rig.groups(), [["b"], ["a"]]);
    rig.add("c").expect("joins");
    assert_eq!(rig.groups()[0], ["b"]);
    rig.prioritized("c", priority(60));
    assert_eq!(rig.groups(), [["c"], ["b"], ["a"]], "as soon as it has been read");
    rig.saw("b", PathVerdict::Refresh);
    rig.prioritized("b", priority(80));
    assert_eq!(rig.groups(), [["c"], ["b"], ["a"]], "that is failback's to decide");
}

#[test]
fn a_path_that_failed_before_it_was_read_returns_and_does_not_join_again() {
    let mut rig = Rig::read(failover(), &[("a", priority(50))]);
    rig.add("b").expect("joins");
    rig.fail("b");
    rig.prioritized("b", priority(60));
    rig.come_back("b");
    rig.prioritized("b", priority(60));
    assert_eq!(rig.groups(), [["a"], ["b"]], "failback is manual");
}

#[test]
fn a_path_that_joins_with_no_higher_priority_leaves_it_to_failback() {
    let policy = Policy { grouping: GroupingPolicy::GroupBySerial, ..Policy::default() };
    let mut rig = Rig::new(policy, &[]);
    for (name, serial) in [("a", "one"), ("b", "two"), ("c", "two")] {
        rig.join(with(name, serial, "", priority(10))).expect("joins");
    }
    assert_eq!(rig.groups(), [vec!["a"], vec!["b", "c"]]);
    assert_eq!(rig.table().groups[0].number, 2, "the other is better by its two paths");
}

#[test]
fn a_group_that_has_gone_with_its_paths_is_not_the_one_that_is_left() {
    let mut rig = Rig::read(failover(), &[("a", priority(50)), ("b", priority(10))]);
    rig.with(|m, now, fx| m.lose_path(now, "a", fx)).expect("it was there");
    assert_eq!(rig.groups(), [["b"]]);
    assert!(rig.changes.contains(&Change::GroupSwitched { from: None, to: 1 }));
}

#[test]
fn a_table_says_how_often_round_robin_repeats_a_path() {
    let policy = Policy { rr_min_io: 3, rr_weight_priorities: true, ..multibus() };
    let rig = Rig::read(policy, &[("a", priority(50)), ("b", priority(0))]);
    let repeats: Vec<u32> = rig.table().groups[0].paths.iter().map(|v| v.repeat).collect();
    assert_eq!(repeats, [150, 3], "at least one turn");
    let policy = Policy { rr_min_io: 3, ..multibus() };
    let rig = Rig::read(policy, &[("a", priority(50))]);
    assert_eq!(rig.table().groups[0].paths[0].repeat, 3, "rr_weight uniform");
}

#[test]
fn regrouping_follows_the_paths_that_carry_io() {
    let grouping = GroupingPolicy::GroupByPrio;
    let prios = [("a", 5), ("b", 5), ("c", 5), ("e", 9)].map(|(name, p)| (name, priority(p)));
    let mut rig = Rig::read(Policy { grouping, ..failover() }, &prios);
    rig.fail("e");
    rig.come_back("e");
    rig.prioritized("e", priority(9));
    assert_eq!(rig.groups(), [vec!["a", "b", "c"], vec!["e"]], "failback is manual");
    for name in ["a", "b"] {
        rig.fail(name);
    }
    // c alone carries. Now the others, which are out of use, part with it.
    rig.saw("c", PathVerdict::Refresh);
    rig.prioritized("c", priority(1));
    assert_eq!(rig.groups(), [["c"], ["e"]], "it is used on");
}

/// The group in use falls apart in the step in which most of its paths begin to
/// carry I/O: those that have carried it so far count.
#[test]
fn paths_that_begin_to_carry_as_their_group_falls_apart_draw_no_io() {
    use AccessState::{ActiveNonOptimized, ActiveOptimized};
    let policy = Policy { grouping: GroupingPolicy::GroupByPrio, ..Policy::default() };
    let paths = [("a", 1), ("b", 2), ("c", 2)];
    let mut rig = Rig::read(policy, &paths.map(|(n, own)| (n, alua(own, &[ActiveOptimized; 2]))));
    for name in ["b", "c"] {
        rig.report(name, 1, not_ready(0x0b));
    }
    assert_eq!(rig.groups(), [["a"]]);
    rig.saw("a", PathVerdict::Check);
    rig.checked("a", UP);
    rig.prioritized("a", alua(1, &[ActiveNonOptimized, ActiveOptimized]));
    assert_eq!(rig.groups(), [vec!["a"], vec!["b", "c"]], "failback is manual");
}
