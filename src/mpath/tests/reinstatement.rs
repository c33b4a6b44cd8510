//! How a path fails, is checked, and comes back.

use super::*;

#[test]
fn a_failed_path_comes_back_only_after_a_check_and_a_proof_with_a_later_epoch() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    let epoch = rig.path("a").epoch;
    rig.fail("a");
    rig.pass(Duration::from_secs(5));
    assert!(rig.is_checking("a") && !rig.is_proving("a"));
    assert_eq!(rig.groups(), [["b"]]);
    rig.checked("a", UP);
    assert!(rig.is_proving("a"));
    assert_eq!(rig.groups(), [["b"]], "a check alone does not bring it back");
    rig.proven("a", Ok(lu()));
    assert_eq!(rig.groups(), [["a", "b"]]);
    assert_eq!(rig.table().groups[0].paths[0].epoch, epoch + 1);
    let back = Change::PathReinstated { path: "a".to_owned(), usable: 2 };
    assert!(rig.changes.contains(&back));
}

#[test]
fn a_failure_is_told_once_with_its_cause_and_what_is_left() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.fail("a");
    rig.saw("a", PathVerdict::Fail);
    rig.pass(Duration::from_secs(5));
    rig.checked("a", Verdict::Down);
    let cause = Cause::Io(judged(PathVerdict::Fail));
    assert_eq!(rig.took_changes(), [Change::PathFailed { path: "a".to_owned(), cause, left: 1 }]);
    assert_eq!(rig.path("a").failures, 1);
    assert_eq!(rig.map.topology().path_faults, 1);
}

/// Else I/O moves to another group, and "reinstated" is told of a path that
/// never failed, and nobody knows why.
#[test]
fn a_path_that_hangs_or_is_in_doubt_is_told_once_with_its_cause() {
    for reason in [hung(), judged(PathVerdict::Doubt)] {
        let mut rig = Rig::new(multibus(), &["a", "b"]);
        rig.report("a", 1, reason);
        rig.report("a", 1, reason);
        let (path, cause) = ("a".to_owned(), Cause::Io(reason));
        assert_eq!(rig.took_changes(), [Change::PathSuspect { path, cause, left: 1 }]);
    }
}

#[test]
fn a_report_of_an_earlier_epoch_says_nothing_about_this_one() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.fail("a");
    rig.come_back("a");
    rig.report("a", 1, judged(PathVerdict::Fail));
    rig.report("a", 1, hung());
    assert!(rig.path("a").is_usable());
    rig.report("a", 2, judged(PathVerdict::Fail));
    assert!(!rig.path("a").is_usable());
}

#[test]
fn a_report_about_a_path_that_left_is_ignored_even_if_its_slot_is_in_use_again() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    let old = rig.id("a");
    rig.with(|m, now, fx| m.remove_path(now, "a", fx)).unwrap();
    rig.map.retired(old);
    rig.add("c").unwrap();
    assert_eq!(rig.id("c").slot, old.slot);
    let reason = judged(PathVerdict::Fail);
    rig.event(Event::Io(IoReport { path: old, epoch: 1, reason }));
    assert!(rig.path("c").is_usable());
}

#[test]
fn fail_path_holds_until_reinstate_path_although_checks_are_good() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.with(|m, now, fx| m.fail_path(now, "a", fx)).unwrap();
    assert_eq!(rig.groups(), [["b"]]);
    for _ in 0..3 {
        rig.pass(Duration::from_secs(5));
        rig.checked("a", UP);
        assert!(!rig.is_proving("a") && !rig.path("a").is_usable());
    }
    rig.with(|m, now, fx| m.reinstate_path(now, "a", fx)).unwrap();
    assert!(rig.is_checking("a"), "at once");
    assert!(!rig.path("a").is_usable());
    rig.checked("a", UP);
    rig.proven("a", Ok(lu()));
    assert!(rig.path("a").is_usable());
}

#[test]
fn fail_path_holds_against_a_proof_that_was_under_way() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.fail("a");
    rig.pass(Duration::from_secs(5));
    rig.checked("a", UP);
    rig.with(|m, now, fx| m.fail_path(now, "a", fx)).unwrap();
    rig.proven("a", Ok(lu()));
    assert!(!rig.path("a").is_usable());
}

#[test]
fn fail_and_reinstate_name_a_path_that_is_not_there() {
    let mut rig = Rig::new(multibus(), &["a"]);
    let missing = MapError::NoSuchPath("x".to_owned());
    assert_eq!(rig.with(|m, now, fx| m.fail_path(now, "x", fx)), Err(missing.clone()));
    assert_eq!(rig.with(|m, now, fx| m.reinstate_path(now, "x", fx)), Err(missing.clone()));
    assert_eq!(missing.to_string(), "there is no path x in the map; `show paths` lists them");
}

#[test]
fn a_good_paths_checks_back_off_to_four_times_the_interval_and_a_failure_ends_that() {
    let mut rig = Rig::new(multibus(), &["a"]);
    let mut gaps = Vec::new();
    let mut last = rig.now;
    for _ in 0..6 {
        while !rig.is_checking("a") {
            rig.pass(Duration::from_millis(500));
        }
        gaps.push(rig.now.since(last));
        last = rig.now;
        rig.checked("a", UP);
    }
    // 10 s, then 20 s, from the path's own place in the interval to the next.
    let seconds = |range: std::ops::RangeInclusive<u64>, gap| {
        range.contains(&u64::try_from(Duration::as_millis(&gap) / 1000).unwrap())
    };
    assert!(seconds(5..=15, gaps[1]) && seconds(10..=30, gaps[2]), "{gaps:?}");
    assert!(gaps[3..].iter().all(|g| *g == Duration::from_secs(20)), "{gaps:?}");
    rig.add("b").unwrap();
    rig.fail("a");
    let failed = rig.now;
    while !rig.is_checking("a") {
        rig.pass(Duration::from_millis(500));
    }
    assert_eq!(rig.now.since(failed), Duration::from_secs(1));
}

#[test]
fn a_check_that_never_answers_times_out_and_its_late_answer_counts() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.saw("a", PathVerdict::Check);
    rig.pass(Duration::from_secs(29));
    assert!(rig.path("a").is_usable());
    rig.pass(Duration::from_secs(1));
    assert!(!rig.path("a").is_usable());
    assert_eq!(rig.path("a").checker_state, CheckerState::TimedOut);
    rig.pass(Duration::from_secs(300));
    let asked = rig.checks.iter().filter(|c| c.0 == rig.id("a")).count();
    assert_eq!(asked, 1, "one reserved checker: no second check while one is out");
    rig.checked("a", UP);
    rig.proven("a", Ok(lu()));
    assert!(rig.path("a").is_usable());
}

#[test]
fn a_proof_that_never_answers_times_out_although_a_check_is_late_as_well() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.saw("a", PathVerdict::Check);
    rig.pass(Duration::from_secs(20));
    rig.saw("a", PathVerdict::Doubt);
    rig.pass(Duration::from_secs(11));
    assert_eq!(rig.path("a").state, PathState::Failed, "by the check's timeout");
    rig.proven("a", Ok(lu()));
    assert!(rig.path("a").is_usable(), "the check is still out");
    rig.saw("a", PathVerdict::Doubt);
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.path("a").state, PathState::Failed, "by the proof's timeout");
}

#[test]
fn an_answer_to_another_check_or_proof_is_no_answer() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.fail("a");
    rig.pass(Duration::from_secs(5));
    let (path, check) = rig.checks[rig.checks.len() - 1];
    rig.event(Event::Checked { path, check: check + 7, verdict: UP });
    assert!(!rig.is_proving("a"));
    rig.checked("a", UP);
    let (path, proof) = rig.proofs[0];
    rig.event(Event::Proven { path, proof: proof + 7, identity: Ok(lu()) });
    assert!(!rig.path("a").is_usable());
}

#[test]
fn a_check_that_says_pending_leaves_everything_as_it_is_and_is_repeated_in_a_second() {
    for fail_first in [false, true] {
        let mut rig = Rig::new(multibus(), &["a", "b"]);
        if fail_first {
            rig.fail("a");
            rig.pass(Duration::from_secs(5));
        } else {
            rig.saw("a", PathVerdict::Check);
        }
        let before = rig.path("a").state;
        rig.checked("a", PENDING);
        assert_eq!(rig.path("a").state, before);
        assert!(!rig.is_proving("a"));
        rig.pass(Duration::from_millis(999));
        assert!(!rig.is_checking("a"));
        rig.pass(Duration::from_millis(1));
        assert!(rig.is_checking("a"));
    }
}

#[test]
fn disconnected_and_down_fail_a_path_in_the_checkers_words() {
    let words = [
        (Verdict::Disconnected, "disconnected", CheckerState::Disconnected),
        (Verdict::TimedOut, "i/o timeout", CheckerState::TimedOut),
        (Verdict::Down, "faulty", CheckerState::Faulty),
    ];
    for (verdict, word, state) in words {
        let mut rig = Rig::new(multibus(), &["a", "b"]);
        rig.saw("a", PathVerdict::Check);
        rig.checked("a", verdict);
        assert_eq!(rig.path("a").last_cause, Some(Cause::Checker(word)));
        assert_eq!(rig.path("a").checker_state, state);
        assert_eq!(rig.groups(), [["b"]]);
    }
}

#[test]
fn a_hung_path_is_out_of_use_until_a_check_and_a_proof_say_otherwise() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.report("a", 1, hung());
    assert_eq!(rig.path("a").state, PathState::Suspect);
    assert_eq!(rig.groups(), [["b"]]);
    assert!(rig.is_checking("a"), "at once");
    rig.checked("a", UP);
    assert_eq!(rig.groups(), [["b"]]);
    rig.proven("a", Ok(lu()));
    assert_eq!(rig.groups(), [["a", "b"]]);
    assert_eq!(rig.failures_told(), 0, "it never failed");
}

#[test]
fn an_unclear_error_has_the_path_checked_while_it_stays_in_use() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.saw("a", PathVerdict::Check);
    rig.saw("a", PathVerdict::Check);
    assert_eq!(rig.checks.len(), 1, "one at a time");
    assert_eq!(rig.groups(), [["a", "b"]]);
    rig.checked("a", Verdict::Down);
    assert_eq!(rig.groups(), [["b"]]);
}
