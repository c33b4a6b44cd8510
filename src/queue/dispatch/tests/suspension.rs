//! A map whose engine moves the guest's reservation: nothing new goes out.

use super::*;
use crate::io::{Action, Management, MapSlot, Reach};

const BOTH: &[&[(u8, u32)]] = &[&[(0, 1), (1, 1)]];
const SECOND: Duration = Duration::from_secs(1);

impl Rig {
    fn suspended(&mut self, groups: &[&[(u8, u32)]], queueing: Queueing) {
        self.table_with(groups, queueing, |table| table.suspended = true);
    }
}

#[test]
fn nothing_new_goes_out_until_the_next_table() {
    let mut rig = Rig::new();
    rig.suspended(BOTH, Queueing::Hold);
    assert_eq!(rig.core.quiet(), Some(2));
    rig.submit_read(1);
    rig.submit(2, write(0, 8));
    rig.submit(3, Op::Flush);
    assert_eq!(rig.core.next_deadline(), None, "nothing to do until then");
    rig.pass(100 * SECOND);
    assert_eq!((rig.wire.count, rig.core.held()), (0, 3));
    rig.suspended(BOTH, Queueing::Hold);
    assert_eq!((rig.wire.count, rig.core.quiet()), (0, Some(3)));
    rig.table(BOTH, Queueing::Hold);
    assert_eq!((rig.wire.count, rig.core.quiet()), (3, None));
    rig.all_good();
    assert_eq!(rig.ended.len(), 3);
}

#[test]
fn it_is_quiet_when_every_path_has_given_everything_back() {
    let mut rig = Rig::new();
    for head in 0..3 {
        rig.submit_read(head);
    }
    assert_eq!(rig.core.quiet(), None, "not suspended");
    rig.suspended(&[&[(0, 1)]], Queueing::Hold);
    // Path 1 is not even listed any more.
    let (on_1, on_0): (Vec<Sent>, Vec<Sent>) =
        rig.wire.out.clone().into_iter().partition(|s| s.path == 1);
    assert_eq!((on_0.len(), on_1.len()), (2, 1));
    rig.answer(&on_0[0], Completion::Good);
    // What would be repeated waits; what has ended has ended.
    rig.answer(&on_0[1], host(HostByte::TRANSPORT_DISRUPTED));
    assert_eq!((rig.ended.len(), rig.core.held(), rig.core.quiet()), (1, 1, None));
    rig.answer(&on_1[0], status(Status::BUSY));
    assert_eq!(rig.core.quiet(), Some(2), "what waits for a moment is on no path either");
    rig.pass(SECOND);
    assert_eq!((rig.core.held(), rig.wire.out.len()), (2, 0));
    rig.table(&[&[(0, 2)]], Queueing::Hold);
    rig.all_good();
    assert_eq!(rig.ended.len(), 3);
    assert!(rig.ended.iter().all(|e| matches!(e.1, End::Finished(Outcome::Good))));
}

#[test]
fn a_long_request_stops_in_the_middle_and_goes_on() {
    let mut rig = Rig::single();
    rig.wire.room = [1; 4];
    rig.submit(1, write(0, 40));
    rig.suspended(&[&[(0, 1)]], Queueing::Hold);
    rig.next(Completion::Good);
    assert_eq!((rig.wire.out.len(), rig.core.quiet()), (0, Some(2)));
    rig.table(&[&[(0, 1)]], Queueing::Hold);
    let rest = rig.all_good();
    assert_eq!(rest.iter().map(|s| total_len(&s.data)).sum::<usize>(), 24 * BLOCK);
    assert_eq!(rig.outcome(), Outcome::Good);
    // Of a short transfer, too.
    rig.submit(2, write(0, 16));
    rig.suspended(&[&[(0, 1)]], Queueing::Hold);
    rig.next(Completion::Short(8 * BLOCK));
    assert!(rig.wire.out.is_empty() && rig.ended.is_empty());
}

#[test]
fn no_policy_fails_what_a_suspended_map_holds() {
    for queueing in [Queueing::Fail, Queueing::Gone] {
        let mut rig = Rig::new();
        rig.suspended(&[], queueing);
        rig.submit_read(1);
        rig.pass(100 * SECOND);
        assert!(rig.ended.is_empty(), "{queueing:?}");
        rig.table(&[], queueing);
        assert_eq!(rig.ended.len(), 1, "and then as ever");
    }
}

#[test]
fn suspension_counts_towards_no_limit_but_stops_none() {
    let limit = |table: &mut PathTable| table.hold_for = Some(10 * SECOND);
    let suspend = |table: &mut PathTable| {
        limit(table);
        table.suspended = true;
    };
    let mut rig = Rig::new();
    rig.table_with(&[], Queueing::Hold, limit);
    rig.submit_read(1);
    rig.pass(6 * SECOND);
    rig.table_with(BOTH, Queueing::Hold, suspend);
    rig.submit_read(2);
    rig.pass(4 * SECOND);
    assert_eq!(rig.ended.pop().map(|e| e.0), Some(1), "it has waited for a path for too long");
    rig.pass(100 * SECOND);
    assert!(rig.ended.is_empty());
    // Its time begins where it finds no path.
    rig.table_with(&[], Queueing::Hold, limit);
    rig.pass(9 * SECOND);
    assert!(rig.ended.is_empty());
    rig.pass(SECOND);
    assert_eq!(rig.outcome(), Outcome::NoPath);
}

#[test]
fn task_management_and_stops_reach_what_is_suspended() {
    let mut rig = Rig::new();
    rig.submit_read(9);
    rig.suspended(BOTH, Queueing::Hold);
    rig.submit_read(1);
    let reach = Reach::Unit(MapSlot(0));
    rig.core.manage(rig.now, &Management { action: Action::End { reset: true }, reach });
    rig.pump();
    assert_eq!(rig.outcome(), Outcome::Aborted { reset: true });
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Aborted { reset: true });
    for how in [Stop::Finish, Stop::Suspend, Stop::Discard] {
        let mut rig = Rig::new();
        rig.submit_read(1);
        rig.suspended(BOTH, Queueing::Hold);
        rig.submit_read(2);
        rig.core.stop_ring(rig.now, 0, how);
        rig.pump();
        let first = rig.end();
        // What would be held after that is not.
        rig.next(host(HostByte::TRANSPORT_DISRUPTED));
        for end in [first, rig.end()] {
            let abandoned = matches!(end, End::Abandoned);
            assert_eq!(abandoned, how != Stop::Finish, "{how:?}: {end:?}");
            assert!(abandoned || matches!(end, End::Finished(Outcome::Stopped)));
        }
        assert_eq!(rig.core.outstanding(0), 0);
    }
}
