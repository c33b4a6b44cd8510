//! Access states: who carries I/O, and how the engine comes to know.

use super::*;
use AccessState::{
    ActiveNonOptimized, ActiveOptimized, LbaDependent, Offline, Reserved, Standby, Transitioning,
    Unavailable,
};

const TRANSITION: u8 = 0x0a;
const STANDBY: u8 = 0x0b;

/// Two paths to two target port groups in these states.
fn two(policy: Policy, states: &[AccessState; 2]) -> Rig {
    Rig::read(policy, &[("a", alua(1, states)), ("b", alua(2, states))])
}

fn tpg() -> Policy {
    Policy { grouping: GroupingPolicy::GroupByTpg, ..Policy::default() }
}

/// A guest's command on the path was told that it is passive.
fn told(rig: &mut Rig, name: &str, ascq: u8) {
    let epoch = rig.path(name).epoch;
    rig.report(name, epoch, not_ready(ascq));
}

fn access_changes(rig: &mut Rig) -> Vec<(String, Option<AccessState>)> {
    let of = |c: Change| match c {
        Change::AccessChanged { path, access } => Some((path, access.state)),
        _ => None,
    };
    rig.took_changes().into_iter().filter_map(of).collect()
}

#[test]
fn only_paths_of_active_groups_carry_and_the_others_have_not_failed() {
    let carries = [
        (ActiveOptimized, true),
        (ActiveNonOptimized, true),
        (LbaDependent, true),
        (Reserved(7), true),
        (Standby, false),
        (Unavailable, false),
        (Offline, false),
        (Transitioning, false),
    ];
    for (state, expected) in carries {
        let rig = two(multibus(), &[state, ActiveOptimized]);
        assert_eq!(rig.path("a").carries(), expected, "{state:?}");
        assert!(rig.path("a").is_usable(), "{state:?}");
        assert_eq!(rig.table().groups[0].paths.len(), 1 + usize::from(expected), "{state:?}");
        assert_eq!(rig.map.topology().usable, 2);
        assert_eq!(rig.map.topology().carrying, 1 + usize::from(expected));
    }
}

#[test]
fn a_path_whose_array_has_no_such_states_carries() {
    let rig = Rig::read(multibus(), &[("a", priority(1))]);
    assert_eq!(rig.groups(), [["a"]]);
}

#[test]
fn a_path_that_joins_unread_is_read_at_once_and_carries_meanwhile() {
    let mut rig = Rig::new(multibus(), &["a"]);
    assert!(rig.is_reading("a"));
    assert_eq!(rig.groups(), [["a"]]);
    rig.prioritized("a", alua(1, &[Standby]));
    assert!(rig.groups().is_empty());
    assert!(!rig.is_reading("a"));
    let rig = Rig::read(multibus(), &[("a", priority(1))]);
    assert!(!rig.is_reading("a"), "its owner has read it");
    let rig = Rig::new(Policy { prio: PrioKind::Const, ..multibus() }, &["a"]);
    assert!(!rig.is_reading("a"), "there is nothing to read");
}

#[test]
fn one_paths_reading_counts_for_all_paths_of_the_groups_it_names() {
    let mut rig = two(tpg(), &[ActiveOptimized, Standby]);
    assert_eq!(rig.groups(), [["a"]]);
    rig.saw("a", PathVerdict::Refresh);
    rig.prioritized("a", alua(1, &[ActiveNonOptimized, ActiveOptimized]));
    assert_eq!(rig.groups(), [["a"], ["b"]], "failback is manual");
    let changes = access_changes(&mut rig);
    let expected =
        [("a".to_owned(), Some(ActiveNonOptimized)), ("b".to_owned(), Some(ActiveOptimized))];
    assert_eq!(changes, expected);
}

#[test]
fn a_path_that_begins_to_carry_has_an_epoch_that_no_table_has_named() {
    let mut rig = two(multibus(), &[ActiveOptimized, ActiveOptimized]);
    assert_eq!((rig.path("a").epoch, rig.path("b").epoch), (1, 1));
    told(&mut rig, "a", STANDBY);
    assert_eq!(rig.groups(), [["b"]]);
    rig.prioritized("a", alua(1, &[ActiveOptimized; 2]));
    assert_eq!(rig.groups(), [["a", "b"]]);
    assert_eq!((rig.path("a").epoch, rig.path("b").epoch), (2, 1));
    rig.fail("b");
    rig.come_back("b");
    assert_eq!(rig.path("b").epoch, 2, "reinstatement is one beginning, not two");
}

#[test]
fn a_passive_path_has_not_failed_and_is_read_at_once() {
    let words = [(0x0a, Transitioning), (0x0b, Standby), (0x0c, Unavailable), (0x12, Offline)];
    for (ascq, state) in words {
        let mut rig = two(tpg(), &[ActiveOptimized, ActiveNonOptimized]);
        told(&mut rig, "a", ascq);
        assert_eq!(rig.groups(), [["b"]]);
        assert_eq!(rig.path("a").access.state, Some(state));
        assert!(rig.path("a").is_usable() && rig.is_reading("a"));
        assert_eq!((rig.failures_told(), rig.map.topology().path_faults), (0, 0));
        rig.readings.clear();
        told(&mut rig, "a", ascq);
        assert_eq!(access_changes(&mut rig).len(), 1, "told once");
    }
}

/// The guest's command knows better than what was read before it.
#[test]
fn a_reading_begun_before_the_path_was_told_does_not_bring_it_back() {
    let mut rig = two(tpg(), &[ActiveOptimized, ActiveNonOptimized]);
    rig.saw("a", PathVerdict::Refresh);
    told(&mut rig, "a", STANDBY);
    assert_eq!(rig.readings.len(), 1, "one at a time");
    rig.prioritized("a", alua(1, &[ActiveOptimized, ActiveNonOptimized]));
    assert_eq!(rig.groups(), [["b"]]);
    assert!(rig.is_reading("a"), "once more");
    rig.prioritized("a", alua(1, &[ActiveOptimized, ActiveNonOptimized]));
    assert_eq!(rig.groups(), [["b"], ["a"]]);
    assert!(!rig.is_reading("a"));
}

#[test]
fn an_answer_to_another_reading_is_no_answer() {
    let mut rig = two(tpg(), &[ActiveOptimized, ActiveNonOptimized]);
    told(&mut rig, "a", STANDBY);
    let (path, reading) = rig.readings[0];
    let found = alua(1, &[ActiveOptimized; 2]);
    rig.event(Event::Prioritized { path, reading: reading + 7, found });
    assert_eq!(rig.groups(), [["b"]]);
    assert_eq!(rig.path("a").priority, 50);
}

#[test]
fn a_report_of_an_earlier_epoch_does_not_make_a_path_passive() {
    let mut rig = two(tpg(), &[ActiveOptimized; 2]);
    told(&mut rig, "a", STANDBY);
    rig.prioritized("a", alua(1, &[ActiveOptimized; 2]));
    rig.report("a", 1, not_ready(STANDBY));
    assert!(rig.path("a").carries());
}

/// Each path of a LU is told the same; the target port groups are read once.
#[test]
fn news_that_many_paths_tell_is_read_once_more_not_once_per_path() {
    let states = [ActiveOptimized, ActiveNonOptimized];
    let names = ["a", "b", "c", "d"];
    let paths: Vec<_> = names.iter().map(|n| (*n, alua(1, &states))).collect();
    let mut rig = Rig::read(multibus(), &paths);
    for name in names {
        rig.saw(name, PathVerdict::Refresh);
    }
    assert_eq!(rig.readings.len(), 1);
    rig.prioritized("a", alua(1, &states));
    assert_eq!(rig.readings.len(), 1, "some were told after it had begun");
    rig.prioritized("a", alua(1, &states));
    assert!(rig.readings.is_empty(), "nothing has changed");
}

#[test]
fn a_prioritizer_that_knows_of_one_path_only_is_asked_by_each_that_tells() {
    let policy = Policy { prio: PrioKind::Sysfs { exclusive_pref: false }, ..multibus() };
    let mut rig = Rig::read(policy, &["a", "b"].map(|n| (n, priority(50))));
    rig.saw("a", PathVerdict::Refresh);
    rig.saw("b", PathVerdict::Refresh);
    assert!(rig.is_reading("a") && rig.is_reading("b"));
}

#[test]
fn news_counts_whatever_the_epoch_and_state_of_the_path_that_tells_it() {
    let mut rig = two(tpg(), &[ActiveOptimized; 2]);
    rig.fail("a");
    rig.readings.clear();
    rig.report("a", 1, judged(PathVerdict::Refresh));
    assert!(rig.is_reading("b"), "by a path that is in order");
}

#[test]
fn if_one_priority_has_changed_all_are_read_and_that_ends() {
    let mut rig = Rig::read(multibus(), &["a", "b", "c"].map(|n| (n, priority(1))));
    rig.saw("a", PathVerdict::Refresh);
    rig.prioritized("a", priority(2));
    assert!(rig.is_reading("b") && rig.is_reading("c") && !rig.is_reading("a"));
    rig.prioritized("b", priority(3));
    rig.prioritized("c", priority(4));
    assert!(rig.readings.is_empty());
    assert_eq!(["a", "b", "c"].map(|n| rig.path(n).priority), [2, 3, 4]);
}

#[test]
fn a_priority_is_read_after_every_good_check_and_after_every_return() {
    let mut rig = Rig::read(multibus(), &[("a", priority(1)), ("b", priority(1))]);
    for verdict in [UP, GHOST, PENDING] {
        rig.saw("a", PathVerdict::Check);
        rig.checks.retain(|c| c.0 == rig.map.path_by_name("a").expect("in the map").id);
        rig.pass(Duration::from_secs(1));
        rig.checked("a", verdict);
        assert!(rig.is_reading("a"), "{verdict:?}");
        rig.prioritized("a", priority(1));
    }
    rig.fail("a");
    rig.come_back("a");
    assert!(rig.is_reading("a"));
}

#[test]
fn what_could_not_be_read_stays_as_it_was() {
    let mut rig = two(tpg(), &[ActiveOptimized, Standby]);
    rig.saw("a", PathVerdict::Refresh);
    rig.prioritized("a", Reading { priority: None, alua: None });
    assert_eq!(rig.path("a").priority, 50);
    assert_eq!(rig.groups(), [["a"]]);
}

/// What a path reads that may lead elsewhere is not what the map's LU says.
#[test]
fn a_reading_by_a_path_that_is_not_in_order_counts_for_nothing() {
    let mut rig = two(tpg(), &[ActiveOptimized, ActiveNonOptimized]);
    rig.saw("a", PathVerdict::Refresh);
    rig.saw("a", PathVerdict::Doubt);
    rig.prioritized("a", alua(1, &[Standby, Standby]));
    assert_eq!(rig.groups(), [["b"]]);
    assert_eq!(rig.path("a").priority, 50);
}

#[test]
fn while_a_path_looks_into_being_passive_requests_wait_even_under_fail() {
    let policy = Policy { no_path_retry: NoPathRetry::Fail, ..tpg() };
    let mut rig = Rig::read(policy, &[("a", alua(1, &[ActiveOptimized]))]);
    told(&mut rig, "a", STANDBY);
    assert_eq!(rig.table().queueing, Queueing::Hold);
    assert!(!rig.changes.iter().any(|c| matches!(c, Change::NoPath { .. })));
    rig.prioritized("a", alua(1, &[Standby]));
    assert_eq!(rig.table().queueing, Queueing::Fail, "it is known");
    assert!(rig.changes.contains(&Change::NoPath { held: false }));
    rig.pass(Duration::from_secs(1));
    rig.checked("a", UP);
    rig.prioritized("a", alua(1, &[ActiveOptimized]));
    assert_eq!(rig.groups(), [["a"]]);
    assert!(rig.changes.contains(&Change::Recovered));
}

#[test]
fn a_transition_is_read_every_second_holds_requests_and_ends() {
    let policy = Policy { no_path_retry: NoPathRetry::Fail, ..tpg() };
    let mut rig = Rig::read(policy, &[("a", alua(1, &[ActiveOptimized]))]);
    told(&mut rig, "a", TRANSITION);
    for _ in 0..10 {
        assert_eq!(rig.table().queueing, Queueing::Hold);
        rig.prioritized("a", alua(1, &[Transitioning]));
        rig.pass(Duration::from_secs(1));
        assert!(rig.is_reading("a"));
    }
    rig.prioritized("a", alua(1, &[ActiveNonOptimized]));
    assert_eq!(rig.groups(), [["a"]]);
    assert_eq!(rig.path("a").epoch, 2);
    assert!(!rig.changes.iter().any(|c| matches!(c, Change::NoPath { .. })));
    rig.pass(Duration::from_secs(2));
    assert!(!rig.is_reading("a"), "it is over");
}

#[test]
fn a_transition_that_takes_too_long_counts_as_standby_until_it_ends() {
    let stated = |states: &[AccessState]| {
        let Reading { priority, alua } = alua(1, states);
        let alua = alua.map(|a| AluaReading { transition: Some(Duration::from_secs(7)), ..a });
        Reading { priority, alua }
    };
    for (seconds, reading) in [(60, alua(1, &[Transitioning])), (7, stated(&[Transitioning]))] {
        let policy = Policy { no_path_retry: NoPathRetry::Fail, ..tpg() };
        let mut rig = Rig::read(policy, &[("a", stated(&[ActiveOptimized]))]);
        if seconds == 60 {
            rig = Rig::read(rig.map.policy.clone(), &[("a", alua(1, &[ActiveOptimized]))]);
        }
        told(&mut rig, "a", TRANSITION);
        rig.prioritized("a", reading.clone());
        for _ in 1..seconds {
            rig.pass(Duration::from_secs(1));
            rig.all_checked(PENDING);
            rig.prioritized("a", reading.clone());
            assert_eq!(rig.path("a").access.state, Some(Transitioning));
            assert_eq!(rig.table().queueing, Queueing::Hold);
        }
        rig.pass(Duration::from_secs(1));
        assert_eq!(rig.path("a").access.state, Some(Standby));
        assert_eq!(rig.table().queueing, Queueing::Fail);
        if rig.is_reading("a") {
            rig.prioritized("a", reading);
        }
        assert_eq!(rig.path("a").access.state, Some(Standby), "it is not another transition");
        rig.pass(Duration::from_secs(1));
        rig.all_checked(UP);
        rig.prioritized("a", alua(1, &[ActiveOptimized]));
        assert_eq!(rig.groups(), [["a"]]);
    }
}

#[test]
fn each_group_in_transition_is_read_by_one_of_its_paths() {
    let states = [ActiveOptimized, Transitioning, Transitioning];
    let paths =
        [("a", 1), ("b", 2), ("c", 2), ("d", 3), ("e", 3)].map(|(n, g)| (n, alua(g, &states)));
    let mut rig = Rig::read(tpg(), &paths);
    rig.pass(Duration::from_secs(1));
    let by: Vec<bool> = ["a", "b", "c", "d", "e"].map(|n| rig.is_reading(n)).into();
    assert_eq!(by, [false, true, false, true, false]);
    rig.pass(Duration::from_secs(1));
    let by: Vec<bool> = ["b", "c", "d", "e"].map(|n| rig.is_reading(n)).into();
    assert_eq!(by, [true; 4], "by another where the first does not answer");
}

/// `prio const`, and arrays whose prioritizer knows of no such states.
#[test]
fn where_no_reading_tells_the_checker_says_when_a_passive_path_carries_again() {
    for prio in [PrioKind::Const, PrioKind::Rdac, PrioKind::Detect] {
        let policy = Policy { prio: prio.clone(), ..multibus() };
        let mut rig = Rig::read(policy, &[("a", priority(1)), ("b", priority(1))]);
        told(&mut rig, "a", STANDBY);
        assert_eq!(rig.groups(), [["b"]]);
        if prio != PrioKind::Const {
            rig.prioritized("a", priority(1));
        }
        assert!(rig.is_checking("a"), "at once");
        rig.checked("a", GHOST);
        assert_eq!(rig.groups(), [["b"]]);
        rig.pass(Duration::from_secs(5));
        rig.pass(Duration::from_secs(5));
        rig.checked("a", UP);
        assert_eq!(rig.groups(), [["a", "b"]], "{prio:?}");
        assert_eq!(rig.path("a").epoch, 2);
    }
}

/// A proof says whose path it is, not whether it carries I/O.
#[test]
fn a_path_that_is_told_it_is_passive_while_it_is_proven_is_checked_right_after() {
    let mut rig = Rig::new(Policy { prio: PrioKind::Const, ..multibus() }, &["a", "b"]);
    rig.saw("a", PathVerdict::Check);
    rig.checked("a", Verdict::Resized);
    assert!(rig.is_proving("a") && rig.path("a").is_usable());
    told(&mut rig, "a", STANDBY);
    assert!(!rig.is_checking("a"), "one thing at a time");
    rig.proven("a", Ok(lu()));
    assert!(rig.is_checking("a"));
}

#[test]
fn a_path_that_comes_back_in_transition_is_asked_within_a_second() {
    let mut rig = Rig::new(Policy { prio: PrioKind::Const, ..multibus() }, &["a", "b"]);
    told(&mut rig, "a", TRANSITION);
    rig.checked("a", PENDING);
    rig.saw("a", PathVerdict::Doubt);
    // Nobody is left whose transition is followed.
    rig.pass(Duration::from_secs(1));
    rig.pass(Duration::from_secs(1));
    rig.proven("a", Ok(lu()));
    assert!(rig.path("a").is_usable() && !rig.is_checking("a"));
    rig.pass(Duration::from_secs(1));
    assert!(rig.is_checking("a"));
}

#[test]
fn a_check_begun_before_the_path_was_told_does_not_bring_it_back() {
    let policy = Policy { prio: PrioKind::Const, ..multibus() };
    let mut rig = Rig::new(policy, &["a", "b"]);
    rig.saw("a", PathVerdict::Check);
    told(&mut rig, "a", STANDBY);
    rig.checked("a", UP);
    assert_eq!(rig.groups(), [["b"]]);
    rig.checked("a", UP);
    assert_eq!(rig.groups(), [["a", "b"]], "the one after it does");
}

#[test]
fn a_reading_that_never_answers_fails_no_path_and_leaves_it_to_the_checker() {
    let mut rig = two(multibus(), &[ActiveOptimized; 2]);
    told(&mut rig, "a", STANDBY);
    for _ in 0..10 {
        rig.pass(Duration::from_secs(3));
        for name in ["a", "b"] {
            if rig.is_checking(name) {
                rig.checked(name, UP);
            }
        }
    }
    assert!(rig.path("a").is_usable());
    assert_eq!(rig.groups(), [["a", "b"]]);
    assert_eq!(rig.readings.iter().filter(|r| r.0 == rig.id("a")).count(), 1, "one at a time");
    rig.pass(Duration::from_secs(1));
    rig.all_checked(UP);
    told(&mut rig, "a", STANDBY);
    assert!(rig.is_checking("a"), "there is nothing to wait for");
    rig.checked("a", UP);
    assert_eq!(rig.groups(), [["a", "b"]]);
}

#[test]
fn a_ghost_is_usable_and_does_not_carry() {
    let mut rig = Rig::read(multibus(), &[("a", priority(1)), ("b", priority(1))]);
    rig.saw("a", PathVerdict::Check);
    rig.checked("a", GHOST);
    assert_eq!(rig.groups(), [["b"]]);
    assert!(rig.path("a").is_usable());
    assert_eq!(rig.path("a").checker_state, CheckerState::Ghost);
    assert_eq!(rig.failures_told(), 0);
    rig.pass(Duration::from_secs(10));
    rig.checked("a", PENDING);
    assert_eq!(rig.groups(), [["b"]], "pending keeps the old state");
    rig.pass(Duration::from_secs(1));
    rig.checked("a", UP);
    assert_eq!(rig.groups(), [["a", "b"]]);
    assert_eq!(rig.path("a").epoch, 2);
}

#[test]
fn a_failed_path_that_comes_back_as_a_ghost_is_proven_and_still_does_not_carry() {
    let mut rig = Rig::read(multibus(), &[("a", priority(1)), ("b", priority(1))]);
    rig.fail("a");
    rig.pass(Duration::from_secs(5));
    rig.checked("a", GHOST);
    assert!(!rig.path("a").is_usable());
    rig.proven("a", Ok(lu()));
    assert!(rig.path("a").is_usable());
    assert_eq!(rig.path("a").checker_state, CheckerState::Ghost);
    assert_eq!(rig.groups(), [["b"]]);
}

/// READ CAPACITY is not answered in standby (SPC-5 5.16.2.4): law 2 is kept
/// by a second proof before the path carries.
#[test]
fn a_path_recognized_in_standby_carries_nothing_before_its_capacity_is_proven() {
    let mut rig = two(multibus(), &[Standby, ActiveOptimized]);
    rig.fail("a");
    rig.pass(Duration::from_secs(5));
    rig.checked("a", GHOST);
    let recognize = |rig: &mut Rig, wwid: String| {
        let (path, proof) = rig.proofs.pop().expect("a proof is under way");
        rig.event(Event::Recognized { path, proof, wwid });
    };
    recognize(&mut rig, lu().wwid);
    assert!(rig.path("a").is_usable() && !rig.is_proving("a"));
    rig.prioritized("a", alua(1, &[ActiveOptimized; 2]));
    rig.pass(Duration::from_secs(10));
    rig.checked("a", UP);
    assert_eq!(rig.groups(), [["b"]]);
    assert!(rig.is_proving("a"));
    rig.proven("a", Ok(lu()));
    assert_eq!(rig.groups(), [["a", "b"]]);
    assert_eq!(rig.path("a").epoch, 2, "no table has named it meanwhile");
    rig.saw("a", PathVerdict::Doubt);
    recognize(&mut rig, other_lu().wwid);
    assert_eq!(rig.path("a").state, PathState::Failed);
}

/// I/O is told one thing and readings another: neither the array nor the queue
/// threads are kept busy with it.
#[test]
fn an_array_that_contradicts_itself_is_read_once_a_second() {
    for ascq in [STANDBY, TRANSITION] {
        let policy = Policy { no_path_retry: NoPathRetry::Fail, ..tpg() };
        let active = [ActiveOptimized];
        let paths = ["a", "b"].map(|name| (name, alua(1, &active)));
        let mut rig = Rig::read(policy, &paths);
        let (mut read, mut returned) = (0, 0);
        for _ in 0..10_000 {
            for name in ["a", "b"] {
                if rig.path(name).carries() {
                    returned += 1;
                    told(&mut rig, name, ascq);
                }
                if rig.is_reading(name) {
                    read += 1;
                    rig.prioritized(name, alua(1, &active));
                }
            }
            let held = !rig.groups().is_empty() || rig.table().queueing == Queueing::Hold;
            assert!(held, "what is true will be known in a second");
            rig.all_checked(UP);
            rig.pass(Duration::from_millis(1));
        }
        assert!((10..80).contains(&read), "{read} readings in ten seconds");
        assert!((10..30).contains(&returned), "{returned} returns in ten seconds");
    }
}

#[test]
fn a_path_that_was_told_it_is_passive_for_the_first_time_is_read_at_once() {
    let mut rig = two(tpg(), &[ActiveOptimized, ActiveNonOptimized]);
    told(&mut rig, "a", STANDBY);
    rig.prioritized("a", alua(1, &[ActiveOptimized, ActiveNonOptimized]));
    rig.pass(Duration::from_secs(1));
    told(&mut rig, "a", STANDBY);
    assert!(rig.is_reading("a"), "a second has passed");
}

#[test]
fn in_its_pause_a_path_returns_by_no_reading_and_what_agrees_ends_the_pause() {
    let (good, moved) = ([ActiveOptimized, ActiveNonOptimized], [Standby, ActiveOptimized]);
    let mut rig = two(tpg(), &good);
    told(&mut rig, "a", STANDBY);
    rig.prioritized("a", alua(1, &good));
    told(&mut rig, "a", STANDBY);
    rig.saw("b", PathVerdict::Refresh);
    while let Some(name) = ["a", "b"].into_iter().find(|name| rig.is_reading(name)) {
        rig.prioritized(name, alua(if name == "a" { 1 } else { 2 }, &good));
        assert_eq!(rig.groups(), [["b"]]);
    }
    rig.pass(Duration::from_millis(500));
    rig.saw("b", PathVerdict::Refresh);
    rig.prioritized("b", alua(2, &moved));
    assert_eq!(rig.path("a").access.state, Some(Standby));
    rig.prioritized("a", alua(1, &moved));
    rig.saw("b", PathVerdict::Refresh);
    rig.prioritized("b", alua(2, &good));
    assert_eq!(rig.groups(), [["b"], ["a"]], "a change is no contradiction");
}

#[test]
fn a_checker_that_contradicts_io_is_asked_once_a_second() {
    let policy = Policy { prio: PrioKind::Const, ..multibus() };
    let mut rig = Rig::new(policy, &["a", "b"]);
    let mut checks = 0;
    for _ in 0..3_000 {
        if rig.path("a").carries() {
            told(&mut rig, "a", STANDBY);
        }
        checks += usize::from(rig.is_checking("a"));
        rig.all_checked(UP);
        rig.pass(Duration::from_millis(1));
    }
    assert!((3..9).contains(&checks), "{checks} checks in three seconds");
}

/// It was read when it was opened, which may be before the command was told.
#[test]
fn what_a_joining_path_was_read_with_does_not_bring_back_a_passive_one() {
    let states = [ActiveOptimized, ActiveNonOptimized];
    let mut rig = two(tpg(), &states);
    told(&mut rig, "a", STANDBY);
    let reading = Some(alua(2, &states));
    rig.join(NewPath { reading, ..new_path("c") }).expect("joins");
    assert_eq!(rig.groups(), [["b", "c"]]);
    rig.prioritized("a", alua(1, &states));
    assert_eq!(rig.groups(), [vec!["b", "c"], vec!["a"]]);
}
