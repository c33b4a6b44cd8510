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
    assert_eq!(gap(&rig, "a"), Duration::from_secs(5));
    let millis = [2500, 1250, 1000, 1000, 1000];
    for expected in millis {
        rig.come_back("a");
        rig.fail("a");
        assert_eq!(gap(&rig, "a"), Duration::from_millis(expected));
    }
    rig.come_back("a");
    rig.saw("a", PathVerdict::Check);
    rig.checked("a", UP);
    assert_eq!(gap(&rig, "a"), Duration::from_secs(1), "although it is good");
    come_to_rest(&mut rig, &["a", "b"]);
    assert_eq!(rig.path("a").next_check().1, Duration::from_secs(20));
    rig.fail("a");
    assert_eq!(gap(&rig, "a"), Duration::from_secs(5), "that was long ago");
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

#[test]
fn while_no_path_is_left_each_is_checked_every_no_path_interval() {
    let no_path_interval = Duration::from_millis(250);
    let mut rig = Rig::new(Policy { no_path_interval, ..multibus() }, &["a", "b"]);
    rig.fail("a");
    rig.fail("b");
    for _ in 0..5 {
        rig.pass(no_path_interval);
        rig.checked("a", Verdict::Down);
        rig.checked("b", Verdict::Down);
    }
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
