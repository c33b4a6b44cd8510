//! What a path says whose target port group does not carry I/O, or carries it
//! badly.

use super::*;
use crate::mpath::classify::PathVerdict;
use crate::mpath::event::IoReason;

/// What target port groups say that do not carry I/O.
fn passive() -> [Completion; 5] {
    [
        check(0x2, 0x04, 0x0a),
        check(0x2, 0x04, 0x0b),
        check(0x2, 0x04, 0x0c),
        check(0x2, 0x04, 0x12),
        check(0x5, 0x94, 0x01),
    ]
}

fn verdicts(rig: &Rig) -> Vec<PathVerdict> {
    let verdict = |r: &IoReport| match r.reason {
        IoReason::Judged { verdict, .. } => verdict,
        IoReason::Hung { .. } => panic!("hung"),
    };
    rig.path_reports().iter().map(verdict).collect()
}

#[test]
fn a_passive_path_gets_nothing_new_and_its_command_goes_elsewhere_at_once() {
    for passive in passive() {
        let mut rig = Rig::new();
        rig.submit(1, write(0, 8));
        let first = rig.next(passive);
        let second = rig.next(Completion::Good);
        assert_ne!(first.path, second.path, "{passive:?}");
        assert_eq!(rig.outcome(), Outcome::Good);
        assert_eq!(verdicts(&rig), [PathVerdict::Passive]);
        for head in 2..6 {
            rig.submit(head, read(0, 1));
            assert_eq!(rig.next(Completion::Good).path, second.path);
        }
    }
}

#[test]
fn passive_paths_are_nobodys_answer_requests_are_held_until_the_engine_has_decided() {
    for passive in passive() {
        let mut rig = Rig::new();
        rig.table(&[&[(0, 1), (1, 1)]], Queueing::Fail);
        rig.submit(1, write(0, 8));
        rig.next(passive);
        rig.next(passive);
        rig.pass(Duration::from_secs(3));
        assert!(rig.ended.is_empty(), "{passive:?}: {:?}", rig.ended);
        assert_eq!(rig.core.held(), 1);
        // The engine has read the access states: the second one carries again.
        rig.table(&[&[(1, 2)]], Queueing::Fail);
        assert_eq!(rig.next(Completion::Good).path, 1);
        assert_eq!(rig.outcome(), Outcome::Good);
    }
}

#[test]
fn what_is_held_for_passive_paths_fails_as_the_table_says_once_none_is_left() {
    let mut rig = Rig::new();
    rig.table(&[&[(0, 1), (1, 1)]], Queueing::Fail);
    rig.submit(1, write(0, 8));
    rig.next(passive()[1]);
    rig.next(passive()[1]);
    rig.table(&[], Queueing::Fail);
    assert_eq!(rig.outcome(), Outcome::NoPath);
}

#[test]
fn a_guests_own_command_does_not_hear_of_access_states() {
    for passive in passive() {
        let mut rig = Rig::new();
        rig.submit_compare_and_write(1);
        let first = rig.next(passive);
        let second = rig.next(Completion::Good);
        assert_ne!(first.path, second.path);
        assert_eq!(rig.outcome(), Outcome::Good);
    }
}

#[test]
fn a_path_whose_access_state_or_quality_is_news_is_told_of_and_used_further() {
    for (answer, verdict) in [
        (check(6, 0x2a, 0x06), PathVerdict::Refresh),
        (check(6, 0x2a, 0x07), PathVerdict::Refresh),
        (check(6, 0x04, 0x0a), PathVerdict::Refresh),
        (host(HostByte::TRANSPORT_MARGINAL), PathVerdict::Marginal),
    ] {
        let mut rig = Rig::single();
        rig.submit(1, read(0, 8));
        rig.next(answer);
        rig.pass(Duration::from_millis(500));
        rig.next(Completion::Good);
        assert_eq!(rig.outcome(), Outcome::Good, "{answer:?}");
        assert_eq!(verdicts(&rig), [verdict]);
    }
}

#[test]
fn an_ambiguous_illegal_request_is_one_paths_trouble_unless_another_agrees() {
    let odd = check(5, 0x53, 0x02);
    let mut rig = Rig::new();
    rig.submit(1, read(0, 8));
    rig.next(odd);
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
    assert_eq!(verdicts(&rig), [PathVerdict::Check]);
    rig.submit(2, read(0, 8));
    rig.next(odd);
    rig.next(odd);
    let code = SenseCode::new(Key::IllegalRequest, 0x53, 0x02);
    assert_eq!(sense_code(&rig.outcome()), Some(code));
}

#[test]
fn a_deferred_error_is_told_once_and_costs_the_command_nothing() {
    let deferred = Sense::from_bytes(&[0x71, 0, 0x03, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0c, 0x02]);
    let answer = Completion::Scsi {
        status: Status::CHECK_CONDITION,
        host: HostByte::OK,
        sense: deferred,
        residual: 0,
    };
    let mut rig = Rig::single();
    rig.submit(1, write(0, 8));
    rig.next(answer);
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
    assert_eq!(rig.reports, [Report::Deferred { path: id(0), sense: deferred }]);
}
