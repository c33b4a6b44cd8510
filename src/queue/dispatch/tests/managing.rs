//! Task management.

use super::*;
use crate::io::{Action, Management, MapSlot, Reach};

const RESET: Action = Action::End { reset: true };
const ABORT: Action = Action::End { reset: false };
const UNIT: Reach = Reach::Unit(MapSlot(0));

impl Rig {
    fn submit_task(&mut self, head: u16, task: u64, target: u8) {
        let cdb = Cdb::from_bytes(&READ_10).unwrap();
        self.submit_request(Request {
            tag: Tag { ring: 0, head },
            task,
            target,
            op: Some(Op::Cdb { cdb, direction: Direction::In }),
            data: vec![Segment { addr: 0x1000, len: 4096 }],
            ..Request::default()
        });
    }

    fn manage(&mut self, action: Action, reach: Reach) -> (Management, Managed) {
        let m = Management { action, reach };
        (m, self.core.manage(self.now, &m))
    }

    fn is_over(&self, (m, managed): &(Management, Managed)) -> bool {
        self.core.is_over(m, managed.ticket)
    }

    fn all_ended(&mut self) -> Vec<(u16, Outcome)> {
        let outcome = |(head, end)| match end {
            End::Finished(outcome) => (head, outcome),
            End::Abandoned => panic!("abandoned"),
        };
        self.ended.drain(..).map(outcome).collect()
    }
}

const ABORTED: Outcome = Outcome::Aborted { reset: false };
const BY_RESET: Outcome = Outcome::Aborted { reset: true };

#[test]
fn a_task_that_waits_ends_at_once() {
    // Held for want of a path; waiting for a moment; waiting for room.
    let mut held = Rig::single();
    held.table(&[], Queueing::Hold);
    held.submit_task(1, 7, 0);
    let mut delayed = Rig::single();
    delayed.submit_task(1, 7, 0);
    delayed.next(status(Status::BUSY));
    let mut ready = Rig::single();
    ready.wire.room = [0; 4];
    ready.submit_task(1, 7, 0);
    for mut rig in [held, delayed, ready] {
        let m = rig.manage(ABORT, Reach::Task { map: MapSlot(0), task: 7 });
        assert!(m.1.found);
        assert!(!rig.is_over(&m), "not fetched yet");
        rig.pump();
        assert!(rig.is_over(&m));
        assert_eq!(rig.all_ended(), [(1, ABORTED)]);
        assert!(rig.core.is_idle());
        rig.pass(Duration::from_secs(60));
        rig.wire.room = [64; 4];
        rig.table(&[&[(0, 9)]], Queueing::Hold);
        assert!(rig.wire.out.is_empty(), "it has ended");
    }
}

#[test]
fn a_task_on_a_path_ends_when_the_path_returns_it_whatever_that_says() {
    for answer in [
        Completion::Good,
        GONE,
        status(Status::BUSY),
        check(3, 0x11, 0),
        check(2, 0x3a, 0),
        host(HostByte::SOFT_ERROR),
    ] {
        let mut rig = Rig::new();
        rig.submit_task(1, 7, 0);
        let m = rig.manage(RESET, UNIT);
        rig.pump();
        assert!(m.1.found && !rig.is_over(&m));
        assert!(rig.ended.is_empty());
        rig.next(answer);
        assert!(rig.is_over(&m));
        assert_eq!(rig.all_ended(), [(1, BY_RESET)]);
        assert_eq!(rig.wire.count, 1, "not repeated after {answer:?}");
        assert!(rig.told().is_empty(), "the guest asked for it");
    }
}

#[test]
fn a_path_verdict_counts_though_the_task_was_aborted() {
    let mut rig = Rig::new();
    rig.submit_task(1, 7, 0);
    rig.manage(ABORT, UNIT);
    rig.next(host(HostByte::NO_CONNECT));
    assert_eq!(rig.path_reports().len(), 1);
}

#[test]
fn only_what_is_reached_ends() {
    let mut rig = Rig::single();
    rig.submit_task(1, 7, 0);
    rig.submit_task(2, 8, 0);
    rig.submit_task(3, 7, 1);
    let task = rig.manage(ABORT, Reach::Task { map: MapSlot(0), task: 8 });
    assert!(task.1.found);
    let none = rig.manage(ABORT, Reach::Task { map: MapSlot(1), task: 7 });
    assert!(!none.1.found && rig.is_over(&none));
    let target = rig.manage(RESET, Reach::Target(1));
    rig.all_good();
    assert_eq!(rig.all_ended(), [(1, Outcome::Good), (2, ABORTED), (3, BY_RESET)]);
    assert!(rig.is_over(&task) && rig.is_over(&target));
}

#[test]
fn what_comes_after_a_function_is_not_affected_though_it_has_the_same_name() {
    let mut rig = Rig::single();
    rig.submit_task(1, 7, 0);
    let m = rig.manage(ABORT, Reach::Task { map: MapSlot(0), task: 7 });
    rig.submit_task(2, 7, 0);
    rig.next(Completion::Good);
    assert!(rig.is_over(&m), "the later one is not waited for");
    rig.next(Completion::Good);
    assert_eq!(rig.all_ended(), [(1, ABORTED), (2, Outcome::Good)]);
}

#[test]
fn a_query_finds_and_leaves_alone() {
    let mut rig = Rig::single();
    rig.submit_task(1, 7, 0);
    let m = rig.manage(Action::Query, Reach::Task { map: MapSlot(0), task: 7 });
    assert!(m.1.found && rig.is_over(&m));
    assert!(!rig.manage(Action::Query, Reach::Task { map: MapSlot(0), task: 9 }).1.found);
    rig.next(Completion::Good);
    assert_eq!(rig.all_ended(), [(1, Outcome::Good)]);
    assert!(!rig.manage(Action::Query, UNIT).1.found);
}

#[test]
fn a_second_function_waits_for_what_the_first_has_not_got_back() {
    let mut rig = Rig::single();
    rig.submit_task(1, 7, 0);
    let first = rig.manage(ABORT, UNIT);
    let second = rig.manage(RESET, UNIT);
    assert!(second.1.found);
    assert!(!rig.is_over(&first) && !rig.is_over(&second));
    rig.next(Completion::Good);
    assert!(rig.is_over(&first) && rig.is_over(&second));
    assert_eq!(rig.all_ended(), [(1, ABORTED)]);
}

#[test]
fn a_storm_of_functions_leaves_nothing_behind() {
    let mut rig = Rig::single();
    rig.submit_task(1, 7, 0);
    let all: Vec<_> = (0..1000).map(|_| rig.manage(RESET, UNIT)).collect();
    assert!(all.iter().all(|m| !rig.is_over(m)));
    rig.next(Completion::Good);
    assert!(all.iter().all(|m| rig.is_over(m)));
    assert_eq!(rig.all_ended().len(), 1);
}

#[test]
fn an_aborted_task_of_a_suspended_ring_is_answered() {
    let mut rig = Rig::single();
    rig.submit_task(1, 7, 0);
    rig.manage(ABORT, UNIT);
    rig.core.stop_ring(rig.now, 0, Stop::Suspend);
    rig.next(Completion::Good);
    assert_eq!(rig.all_ended(), [(1, ABORTED)]);
}

#[test]
fn a_split_block_operation_ends_when_its_last_part_is_back() {
    let mut rig = Rig::single();
    rig.wire.room = [2, 0, 0, 0];
    rig.submit(1, read(0, 16 * 5));
    assert_eq!(rig.wire.out.len(), 2);
    let m = rig.manage(RESET, UNIT);
    rig.next(Completion::Short(512));
    assert!(rig.ended.is_empty() && !rig.is_over(&m));
    rig.next(Completion::Good);
    assert!(rig.is_over(&m));
    assert_eq!(rig.all_ended(), [(1, BY_RESET)]);
    assert_eq!(rig.wire.count, 2);
    assert!(rig.core.is_idle());
}

#[test]
fn a_map_that_goes_ends_what_waits_and_awaits_what_is_out() {
    let mut rig = Rig::single();
    rig.wire.room = [1, 0, 0, 0];
    rig.submit_task(1, 7, 0);
    rig.submit_task(2, 8, 0);
    rig.core.end_all(Outcome::NoPath);
    rig.pump();
    assert_eq!(rig.all_ended(), [(2, Outcome::NoPath)]);
    rig.next(host(HostByte::TRANSPORT_DISRUPTED));
    assert_eq!(rig.all_ended(), [(1, Outcome::NoPath)]);
    assert!(rig.core.is_idle());
    assert!(rig.told().is_empty());
}

/// Law 3: a path had it, so that nobody knows; what none had was not executed.
#[test]
fn a_command_that_must_not_be_repeated_is_ambiguous_if_a_path_had_it_when_its_map_went() {
    let mut rig = Rig::new();
    rig.submit_compare_and_write(1);
    rig.submit_read(2);
    rig.core.end_all(Outcome::NoPath);
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), super::super::raw::ambiguous());
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::NoPath);
    let mut rig = Rig::single();
    rig.table(&[], Queueing::Hold);
    rig.submit_compare_and_write(1);
    rig.core.end_all(Outcome::NoPath);
    rig.pump();
    assert_eq!(rig.outcome(), Outcome::NoPath);
}
