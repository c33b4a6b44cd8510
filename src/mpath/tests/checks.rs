//! When paths are checked, and how.

use super::*;
use crate::mpath::path::Path;

/// Answers every check with good until all paths are checked as seldom as they
/// will be.
fn come_to_rest(rig: &mut Rig, names: &[&str]) {
    check_for(rig, names, Duration::from_secs(200));
}

/// When each check was asked for.
fn check_for(rig: &mut Rig, names: &[&str], time: Duration) -> Vec<(String, Time)> {
    let (until, mut asked) = (rig.now + time, Vec::new());
    while rig.now < until {
        rig.pass(Duration::from_millis(100));
        for name in names {
            if rig.is_checking(name) {
                asked.push(((*name).to_owned(), rig.now));
                rig.checked(name, UP);
            }
            if rig.is_proving(name) {
                rig.proven(name, Ok(lu()));
            }
        }
    }
    asked
}

fn checker_asked(policy: Policy) -> CheckerKind {
    let mut rig = Rig::new(policy, &["a"]);
    rig.saw("a", PathVerdict::Check);
    rig.checkers[0]
}

#[test]
fn the_policys_checker_goes_before_the_paths_own() {
    assert_eq!(checker_asked(multibus()), CheckerKind::Tur);
    let checker = Some(CheckerKind::ReadSector0);
    assert_eq!(checker_asked(Policy { checker, ..multibus() }), CheckerKind::ReadSector0);
}

#[test]
fn the_checks_of_good_paths_are_spread_over_the_interval() {
    let names: Vec<String> = (0..16).map(|i| format!("p{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut rig = Rig::new(multibus(), &names);
    come_to_rest(&mut rig, &names);
    // An outage, after which all come back at once.
    for name in &names {
        rig.fail(name);
    }
    come_to_rest(&mut rig, &names);
    come_to_rest(&mut rig, &names);
    let begin = rig.now;
    let asked = check_for(&mut rig, &names, Duration::from_secs(20));
    assert_eq!(asked.len(), 16, "each once in max_polling_interval");
    for quarter in 0..4 {
        let from = begin + Duration::from_secs(5 * quarter);
        let within = |at: &Time| *at > from && *at <= from + Duration::from_secs(5);
        let count = asked.iter().filter(|(_, at)| within(at)).count();
        assert!((3..=5).contains(&count), "{count} of 16 in a quarter of the interval");
    }
}

#[test]
fn the_first_paths_of_two_maps_are_not_checked_at_the_same_time() {
    let place = |wwid: &str| {
        let lu = Identity { wwid: wwid.to_owned(), ..lu() };
        let mut map = Multipath::new(lu.clone(), multibus());
        let new = NewPath {
            name: "a".to_owned(),
            identity: lu,
            checker: CheckerKind::Tur,
            attributes: Attributes::default(),
            reading: None,
        };
        map.add_path(Time(0), new, &mut Effects::new()).unwrap();
        map.path_by_name("a").map(Path::next_check).unwrap().0
    };
    let mut places: Vec<Time> = (0..8).map(|i| place(&format!("3600a{i}"))).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 8);
    assert!(places.iter().all(|t| (2_500_000_000..=7_500_000_000).contains(&t.0)));
}

/// How long until the next check of a path that was just found good or bad.
fn gap(rig: &Rig, name: &str) -> Duration {
    rig.path(name).next_check().0.since(rig.now)
}

#[test]
fn a_path_that_failed_twice_lately_is_checked_more_often_until_it_has_settled() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.fail("a");
    let millis = [5000, 2500, 1250, 1000, 1000, 1000];
    for expected in millis {
        let mut gaps = Vec::new();
        while gaps.len() < 5 {
            gaps.push(gap(&rig, "a"));
            rig.pass(gap(&rig, "a"));
            rig.checked("a", Verdict::Down);
            if rig.is_checking("b") {
                rig.checked("b", UP);
            }
        }
        assert_eq!(gaps[0], Duration::from_secs(1));
        assert_eq!(gaps.last(), Some(&Duration::from_millis(expected)), "{gaps:?}");
        rig.come_back("a");
        rig.fail("a");
    }
    rig.come_back("a");
    rig.saw("a", PathVerdict::Check);
    rig.checked("a", UP);
    assert_eq!(gap(&rig, "a"), Duration::from_secs(1), "although it is good");
    come_to_rest(&mut rig, &["a", "b"]);
    assert_eq!(rig.path("a").next_check().1, Duration::from_secs(20));
    rig.fail("a");
    for expected in [1, 2, 4, 5, 5] {
        assert_eq!(gap(&rig, "a"), Duration::from_secs(expected), "that was long ago");
        rig.pass(gap(&rig, "a"));
        rig.checked("a", Verdict::Down);
        if rig.is_checking("b") {
            rig.checked("b", UP);
        }
    }
}

#[test]
fn no_path_is_checked_more_often_than_the_polling_interval_where_that_is_less_than_a_second() {
    let polling_interval = Duration::from_millis(300);
    let mut rig = Rig::new(Policy { polling_interval, ..multibus() }, &["a", "b"]);
    for _ in 0..4 {
        rig.fail("a");
        assert_eq!(gap(&rig, "a"), polling_interval);
        rig.come_back("a");
    }
}

/// A path that is short of breath for five seconds does not wait for its turn.
#[test]
fn a_path_that_has_just_failed_is_checked_after_one_two_and_four_seconds_more() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    come_to_rest(&mut rig, &["a", "b"]);
    rig.fail("a");
    let failed = rig.now;
    for at in [1, 3, 7, 12, 17] {
        rig.pass((failed + Duration::from_secs(at)).since(rig.now) - Duration::from_millis(1));
        assert!(!rig.is_checking("a"), "{at}");
        rig.pass(Duration::from_millis(1));
        rig.checked("a", Verdict::Down);
        if rig.is_checking("b") {
            rig.checked("b", UP);
        }
    }
    // So is one that a check has found down.
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.saw("a", PathVerdict::Check);
    rig.checked("a", Verdict::Down);
    assert_eq!(gap(&rig, "a"), Duration::from_secs(1));
}

const CLOSELY: Duration = Duration::from_millis(200);

#[test]
fn when_the_last_path_goes_all_are_checked_at_once_and_each_closely_by_itself() {
    let mut rig = Rig::new(multibus(), &["a", "b", "c"]);
    assert_eq!(rig.map.policy.no_path_interval, CLOSELY);
    rig.fail("a");
    rig.pass(Duration::from_secs(1));
    rig.checked("a", Verdict::Down);
    rig.fail("b");
    rig.pass(Duration::from_millis(100));
    assert!(rig.checks.is_empty());
    rig.fail("c");
    for name in ["a", "b", "c"] {
        assert!(rig.is_checking(name), "{name}: at once, whosever turn it is");
    }
    // b hangs, a takes its time.
    rig.checked("c", Verdict::Down);
    rig.pass(Duration::from_millis(50));
    rig.checked("a", Verdict::Down);
    let (mut asked_a, mut asked_c) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        rig.pass(Duration::from_millis(50));
        for (name, asked) in [("a", &mut asked_a), ("c", &mut asked_c)] {
            if rig.is_checking(name) {
                asked.push(rig.now);
                rig.checked(name, Verdict::Down);
            }
        }
    }
    for asked in [&asked_a, &asked_c] {
        assert!(asked.windows(2).all(|w| w[1].since(w[0]) == CLOSELY), "{asked:?}");
        assert_eq!(asked.len(), 5);
    }
    assert_ne!(asked_a[0], asked_c[0]);
    assert_eq!(rig.checks.len(), 1, "b is asked nothing more while its check is out");
    // What comes back is used at once; the others are looked for less and less.
    rig.pass(CLOSELY);
    rig.checked("a", UP);
    rig.proven("a", Ok(lu()));
    assert_eq!(rig.groups(), [["a"]]);
    rig.checked("c", Verdict::Down);
    for millis in [400, 800, 1600, 3200, 5000, 5000] {
        assert_eq!(gap(&rig, "c"), Duration::from_millis(millis));
        rig.pass(gap(&rig, "c"));
        rig.checked("c", Verdict::Down);
        if rig.is_checking("a") {
            rig.checked("a", UP);
        }
    }
}

/// Else it is taken round as fast as it can fail, and its log with it.
#[test]
fn the_last_path_that_passes_its_checks_and_takes_no_command_returns_once_a_second() {
    let mut rig = Rig::new(multibus(), &["a"]);
    let mut returned = 0;
    for _ in 0..10_000 {
        if rig.path("a").is_usable() {
            rig.fail("a");
        }
        if rig.is_checking("a") {
            rig.checked("a", UP);
        }
        if rig.is_proving("a") {
            rig.proven("a", Ok(lu()));
            returned += 1;
        }
        rig.pass(Duration::from_millis(1));
    }
    assert!((9..=11).contains(&returned), "{returned} times in ten seconds");
}

#[test]
fn what_an_administrator_has_failed_is_not_watched() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.with(|m, now, fx| m.fail_path(now, "a", fx)).unwrap();
    rig.fail("b");
    assert!(rig.is_checking("b") && !rig.is_checking("a"));
    rig.with(|m, now, fx| m.reinstate_path(now, "a", fx)).unwrap();
    assert!(rig.is_checking("a"));
}

/// As after a controller's takeover: the array does not say when it is over.
#[test]
fn while_nothing_carries_a_group_in_transition_is_read_as_closely_by_one_path() {
    let policy = Policy { grouping: GroupingPolicy::GroupByTpg, ..Policy::default() };
    let transition = alua(1, &[AccessState::Transitioning]);
    let paths = ["a", "b"].map(|name| (name, transition.clone()));
    let mut rig = Rig::read(policy, &paths);
    let mut readings = 0;
    for _ in 0..100 {
        rig.pass(Duration::from_millis(10));
        let under_way = ["a", "b"].iter().filter(|name| rig.is_reading(name)).count();
        assert!(under_way <= 1, "one speaks for both");
        for name in ["a", "b"] {
            if rig.is_reading(name) {
                readings += 1;
                rig.prioritized(name, transition.clone());
            }
        }
    }
    assert_eq!(readings, 5, "in a second");
}

#[test]
fn a_path_in_no_normal_operation_is_down_in_the_checkers_word() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.saw("a", PathVerdict::Check);
    rig.checked("a", Verdict::Shaky);
    assert_eq!(rig.path("a").last_cause, Some(Cause::Checker("shaky")));
    assert_eq!(rig.path("a").checker_state, CheckerState::Shaky);
    assert_eq!(rig.groups(), [["b"]]);
}
