//! Paths that fail too often.

use super::*;
use crate::mpath::policy::{MarginalPath, SanPathErr};

fn san() -> Policy {
    let san_path_err =
        Some(SanPathErr { threshold: 2, forget_rate: 3, recovery_time: Duration::from_secs(100) });
    Policy { san_path_err, ..multibus() }
}

fn marginal() -> Policy {
    let marginal_path = Some(MarginalPath {
        double_failed_time: Duration::from_secs(60),
        sample_time: Duration::from_secs(120),
        rate_threshold: 10,
        recheck_gap: Duration::from_secs(300),
    });
    Policy { marginal_path, ..multibus() }
}

fn told(rig: &mut Rig) -> Vec<bool> {
    let marginal = |c: &Change| match c {
        Change::Marginal { marginal, .. } => Some(*marginal),
        _ => None,
    };
    rig.took_changes().iter().filter_map(marginal).collect()
}

impl Rig {
    /// Answers every check of these paths as it comes.
    fn good_for(&mut self, names: &[&str], time: Duration) {
        self.live_for(names, time, &mut |_| Some(true));
    }

    /// As [`Rig::good_for`]; `sample` is given the number of each read of a
    /// path and says how it ends, or that it does not.
    fn live_for(
        &mut self,
        names: &[&str],
        time: Duration,
        sample: &mut dyn FnMut(u32) -> Option<bool>,
    ) -> u32 {
        let (until, mut reads) = (self.now + time, 0);
        loop {
            for (path, number) in std::mem::take(&mut self.samples) {
                reads += 1;
                if let Some(good) = sample(reads) {
                    self.event(Event::Sampled { path, sample: number, good });
                }
            }
            for name in names {
                if self.is_checking(name) {
                    self.checked(name, UP);
                }
                if self.is_proving(name) {
                    self.proven(name, Ok(lu()));
                }
            }
            if !self.samples.is_empty() {
                continue;
            }
            if self.now == until {
                return reads;
            }
            let step = self.map.next_deadline().unwrap_or(until).min(until);
            self.pass(step.since(self.now));
        }
    }
}

#[test]
fn a_path_that_failed_more_often_than_allowed_is_held_back_for_the_recovery_time() {
    let mut rig = Rig::new(san(), &["a", "b"]);
    for _ in 0..2 {
        rig.fail("a");
        rig.come_back("a");
        assert_eq!(rig.groups(), [["a", "b"]]);
    }
    rig.fail("a");
    assert_eq!(told(&mut rig), [true]);
    rig.good_for(&["a", "b"], Duration::from_secs(90));
    assert_eq!(rig.groups(), [["b"]]);
    assert_eq!(rig.path("a").checker_state, CheckerState::Delayed);
    assert!(rig.took_changes().iter().all(|c| *c != Change::Recovered));
    rig.good_for(&["a", "b"], Duration::from_secs(20));
    assert_eq!(rig.groups(), [["a", "b"]]);
    assert_eq!(rig.path("a").checker_state, CheckerState::Ready);
    // Its failures are forgiven: it takes three more.
    rig.fail("a");
    rig.come_back("a");
    assert_eq!(rig.groups(), [["a", "b"]]);
}

#[test]
fn a_bad_check_begins_the_recovery_time_anew() {
    let mut rig = Rig::new(san(), &["a", "b"]);
    for _ in 0..3 {
        rig.fail("a");
        rig.come_back("a");
    }
    rig.good_for(&["a", "b"], Duration::from_secs(90));
    while !rig.is_checking("a") {
        rig.good_for(&["b"], Duration::from_secs(1));
    }
    rig.checked("a", Verdict::Down);
    rig.good_for(&["a", "b"], Duration::from_secs(95));
    assert_eq!(rig.groups(), [["b"]]);
    rig.good_for(&["a", "b"], Duration::from_secs(15));
    assert_eq!(rig.groups(), [["a", "b"]]);
}

#[test]
fn good_checks_make_up_for_failures() {
    let mut rig = Rig::new(san(), &["a", "b"]);
    for _ in 0..6 {
        rig.fail("a");
        rig.come_back("a");
        rig.good_for(&["a", "b"], Duration::from_secs(60));
        assert_eq!(rig.groups(), [["a", "b"]]);
    }
    for _ in 0..3 {
        rig.fail("a");
        rig.come_back("a");
    }
    assert_eq!(rig.groups(), [["b"]], "without them it is held back");
}

/// A path that says it is fine and takes no I/O has them by the hundred.
#[test]
fn good_checks_that_commands_in_trouble_ask_for_make_up_for_no_failure() {
    let mut rig = Rig::new(san(), &["a", "b"]);
    for _ in 0..3 {
        rig.fail("a");
        rig.come_back("a");
        for _ in 0..9 {
            rig.saw("a", PathVerdict::Check);
            rig.checked("a", UP);
        }
    }
    assert_eq!(rig.groups(), [["b"]]);
}

#[test]
fn what_an_administrator_does_to_a_path_is_no_failure_of_it() {
    let mut rig = Rig::new(san(), &["a", "b"]);
    for _ in 0..5 {
        rig.with(|m, now, fx| m.fail_path(now, "a", fx)).unwrap();
        rig.with(|m, now, fx| m.reinstate_path(now, "a", fx)).unwrap();
        rig.checked("a", UP);
        rig.proven("a", Ok(lu()));
        assert_eq!(rig.groups(), [["a", "b"]]);
    }
}

/// multipath-tools lets it wait for its next check, with no path meanwhile.
#[test]
fn a_path_that_is_held_back_takes_over_in_the_step_in_which_the_last_reliable_one_goes() {
    for no_path_retry in [NoPathRetry::Fail, NoPathRetry::Queue] {
        let mut rig = Rig::new(Policy { no_path_retry, ..san() }, &["a", "b"]);
        for _ in 0..3 {
            rig.fail("a");
            rig.come_back("a");
        }
        let epoch = rig.path("a").epoch;
        rig.took_changes();
        rig.fail("b");
        assert_eq!(rig.groups(), [["a"]]);
        assert!(rig.table().groups[0].paths[0].epoch >= epoch);
        assert!(!rig.took_changes().iter().any(|c| matches!(c, Change::NoPath { .. })));
        rig.come_back("b");
        assert_eq!(rig.groups(), [["b"]], "and only until a reliable one is back");
    }
}

#[test]
fn reinstate_path_forgives() {
    let mut rig = Rig::new(san(), &["a", "b"]);
    for _ in 0..3 {
        rig.fail("a");
        rig.come_back("a");
    }
    assert_eq!(rig.groups(), [["b"]]);
    rig.with(|m, now, fx| m.reinstate_path(now, "a", fx)).unwrap();
    assert_eq!(rig.groups(), [["a", "b"]]);
}

#[test]
fn with_marginal_pathgroups_an_unreliable_path_is_used_last_instead() {
    let mut rig = Rig::new(Policy { marginal_pathgroups: true, ..san() }, &["a", "b", "c"]);
    for _ in 0..3 {
        rig.fail("a");
        rig.come_back("a");
    }
    assert_eq!(rig.groups(), [vec!["b", "c"], vec!["a"]]);
    rig.good_for(&["a", "b", "c"], Duration::from_secs(130));
    assert_eq!(rig.groups(), [["a", "b", "c"]]);
}

#[test]
fn two_failures_in_a_short_time_have_the_path_read_ten_times_a_second_before_it_is_used() {
    let mut rig = Rig::new(marginal(), &["a", "b"]);
    rig.fail("a");
    rig.come_back("a");
    assert_eq!(rig.groups(), [["a", "b"]], "once is not twice");
    rig.fail("a");
    assert_eq!(told(&mut rig), [true]);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.samples.len(), 0, "it does not answer yet");
    rig.come_back("a");
    assert_eq!(rig.groups(), [["b"]]);
    let reads = rig.live_for(&["a", "b"], Duration::from_secs(119), &mut |_| Some(true));
    assert!((1180..=1200).contains(&reads), "{reads} reads");
    assert_eq!(rig.groups(), [["b"]]);
    rig.good_for(&["a", "b"], Duration::from_secs(2));
    assert_eq!(rig.groups(), [["a", "b"]]);
    assert_eq!(told(&mut rig), [false]);
    let reads = rig.live_for(&["a", "b"], Duration::from_secs(100), &mut |_| Some(true));
    assert_eq!(reads, 0, "it is over");
}

#[test]
fn two_failures_far_apart_are_no_reason_to_read_a_path() {
    let mut rig = Rig::new(marginal(), &["a", "b"]);
    for _ in 0..3 {
        rig.fail("a");
        rig.come_back("a");
        assert_eq!(rig.groups(), [["a", "b"]]);
        rig.good_for(&["a", "b"], Duration::from_secs(61));
    }
}

#[test]
fn more_errors_than_allowed_and_the_path_rests_before_it_is_read_again() {
    // Ten of a thousand are allowed.
    for (every, good) in [(80, false), (120, true)] {
        let mut rig = Rig::new(marginal(), &["a", "b"]);
        for _ in 0..2 {
            rig.fail("a");
            rig.come_back("a");
        }
        rig.live_for(&["a", "b"], Duration::from_secs(121), &mut |n| Some(n % every != 0));
        assert_eq!(rig.groups(), [if good { vec!["a", "b"] } else { vec!["b"] }]);
        if good {
            continue;
        }
        let mut all_good = |_| Some(true);
        let reads = rig.live_for(&["a", "b"], Duration::from_secs(298), &mut all_good);
        assert_eq!(reads, 0, "left alone");
        let reads = rig.live_for(&["a", "b"], Duration::from_secs(130), &mut all_good);
        assert!((1180..=1201).contains(&reads), "{reads} reads");
        assert_eq!(rig.groups(), [["a", "b"]]);
    }
}

#[test]
fn a_read_that_never_comes_back_is_an_error_and_no_other_is_asked_for() {
    let mut rig = Rig::new(marginal(), &["a", "b"]);
    for _ in 0..2 {
        rig.fail("a");
        rig.come_back("a");
    }
    // One of the first hundred hangs, and with it the rest.
    let mut sample = |n| (n < 50).then_some(true);
    let reads = rig.live_for(&["a", "b"], Duration::from_secs(125), &mut sample);
    assert_eq!(reads, 50);
    assert_eq!(rig.groups(), [["b"]], "one of fifty is more than allowed");
}

#[test]
fn a_late_read_is_counted_once_and_lets_the_next_begin() {
    let mut rig = Rig::new(marginal(), &["a", "b"]);
    for _ in 0..2 {
        rig.fail("a");
        rig.come_back("a");
    }
    let mut late = None;
    let (until, mut reads) = (rig.now + Duration::from_secs(121), 0);
    while rig.now < until {
        rig.pass(Duration::from_millis(100));
        for (path, sample) in std::mem::take(&mut rig.samples) {
            reads += 1;
            match reads {
                1 => late = Some((path, sample, rig.now + Duration::from_secs(40))),
                _ => rig.event(Event::Sampled { path, sample, good: true }),
            }
        }
        if let Some((path, sample, _)) = late.take_if(|(_, _, at)| *at <= rig.now) {
            rig.event(Event::Sampled { path, sample, good: true });
        }
        for name in ["a", "b"] {
            if rig.is_checking(name) {
                rig.checked(name, UP);
            }
        }
    }
    assert!(reads > 700, "{reads} reads");
    assert_eq!(rig.groups(), [["a", "b"]], "one in more than 700 is allowed");
}

#[test]
fn a_path_that_fails_while_it_is_read_is_read_anew_when_it_answers() {
    let mut rig = Rig::new(marginal(), &["a", "b"]);
    for _ in 0..2 {
        rig.fail("a");
        rig.come_back("a");
    }
    rig.good_for(&["a", "b"], Duration::from_secs(110));
    rig.saw("a", PathVerdict::Check);
    rig.with(|m, now, fx| m.handle(now, Event::Timer, fx));
    while !rig.is_checking("a") {
        rig.good_for(&["b"], Duration::from_secs(1));
    }
    rig.checked("a", Verdict::Down);
    rig.good_for(&["a", "b"], Duration::from_secs(119));
    assert_eq!(rig.groups(), [["b"]]);
    rig.good_for(&["a", "b"], Duration::from_secs(10));
    assert_eq!(rig.groups(), [["a", "b"]]);
}

#[test]
fn a_path_the_fabric_calls_marginal_is_held_back_until_it_has_been_read_without_error() {
    let mut rig = Rig::new(multibus(), &["a", "b"]);
    rig.saw("a", PathVerdict::Marginal);
    assert_eq!(rig.groups(), [["b"]]);
    assert_eq!(told(&mut rig), [true]);
    assert!(rig.path("a").is_usable(), "it has not failed");
    rig.good_for(&["a", "b"], Duration::from_secs(119));
    assert_eq!(rig.groups(), [["b"]]);
    rig.good_for(&["a", "b"], Duration::from_secs(5));
    assert_eq!(rig.groups(), [["a", "b"]]);
    assert_eq!(told(&mut rig), [false]);
}

#[test]
fn the_only_path_is_used_whatever_is_said_of_it() {
    let mut rig = Rig::new(multibus(), &["a"]);
    rig.saw("a", PathVerdict::Marginal);
    rig.with(|m, now, fx| m.set_marginal(now, "a", true, fx)).unwrap();
    assert_eq!(rig.groups(), [["a"]]);
    rig.add("b").unwrap();
    assert_eq!(rig.groups(), [["b"]]);
    rig.with(|m, now, fx| m.remove_path(now, "b", fx)).unwrap();
    assert_eq!(rig.groups(), [["a"]]);
}

#[test]
fn setmarginal_holds_until_unsetmarginal_which_forgives() {
    let mut rig =
        Rig::new(Policy { marginal_path: marginal().marginal_path, ..san() }, &["a", "b"]);
    let set = |rig: &mut Rig, on| rig.with(|m, now, fx| m.set_marginal(now, "a", on, fx));
    set(&mut rig, true).unwrap();
    set(&mut rig, true).unwrap();
    assert_eq!(told(&mut rig), [true]);
    rig.good_for(&["a", "b"], Duration::from_secs(1000));
    assert_eq!(rig.groups(), [["b"]]);
    for _ in 0..3 {
        rig.fail("a");
        rig.come_back("a");
    }
    set(&mut rig, false).unwrap();
    assert_eq!(rig.groups(), [["a", "b"]]);
    assert_eq!(told(&mut rig), [false]);
    let none = rig.with(|m, now, fx| m.set_marginal(now, "x", true, fx));
    assert_eq!(none, Err(MapError::NoSuchPath("x".to_owned())));
}
