//! RESERVATION CONFLICT while the guest has a key registered.

use super::*;

const CONFLICT: Completion = Completion::Scsi {
    status: Status::RESERVATION_CONFLICT,
    host: HostByte::OK,
    sense: Sense::EMPTY,
    residual: 4096,
};
const DELIVERED: Outcome =
    Outcome::Lu { status: Status::RESERVATION_CONFLICT, sense: Sense::EMPTY, residual: 4096 };

impl Rig {
    fn registered(groups: &[&[(u8, u32)]], queueing: Queueing) -> Rig {
        let mut rig = Rig::of(settings(limits()), groups);
        rig.still_registered(groups, queueing);
        rig
    }

    fn still_registered(&mut self, groups: &[&[(u8, u32)]], queueing: Queueing) {
        self.table_with(groups, queueing, |table| table.registered = true);
    }

    /// The paths reported for a conflict, and their epochs.
    fn conflicts(&mut self) -> Vec<(u8, u32)> {
        let of = |report: IoReport| match report.reason {
            IoReason::Judged { verdict: PathVerdict::Conflict, .. } => {
                (report.path.slot, report.epoch)
            }
            other => panic!("{other:?}"),
        };
        let all = self.path_reports().into_iter().map(of).collect();
        self.reports.clear();
        all
    }
}

#[test]
fn a_conflict_by_one_path_is_its_own_and_the_guest_does_not_see_it() {
    for conflict in [CONFLICT, host(HostByte::NEXUS_FAILURE), errno(libc::EBADE)] {
        for repeatable in [true, false] {
            let mut rig = Rig::registered(&[&[(0, 1), (1, 1)]], Queueing::Fail);
            if repeatable {
                rig.submit_read(1);
            } else {
                rig.submit_compare_and_write(1);
            }
            let first = rig.next(conflict).path;
            assert_eq!(rig.conflicts(), [(first, 1)]);
            let second = rig.next(Completion::Good).path;
            assert_ne!(first, second);
            assert_eq!(rig.outcome(), Outcome::Good, "{conflict:?}");
            for head in 2..6 {
                rig.submit_read(head);
            }
            assert!(rig.wire.out.iter().all(|s| s.path == second), "law 5");
            assert!(rig.told().is_empty());
        }
    }
}

#[test]
fn an_unregistered_guest_gets_the_conflict_at_once() {
    let mut rig = Rig::new();
    rig.submit_read(1);
    rig.next(CONFLICT);
    assert_eq!(rig.outcome(), DELIVERED);
    assert!(rig.conflicts().is_empty());
}

#[test]
fn a_conflict_by_every_path_waits_for_the_engine_whatever_the_policy() {
    let mut rig = Rig::registered(&[&[(0, 1), (1, 1)]], Queueing::Fail);
    rig.submit_read(1);
    rig.next(CONFLICT);
    rig.next(CONFLICT);
    let mut reported = rig.conflicts();
    reported.sort_unstable();
    assert_eq!(reported, [(0, 1), (1, 1)]);
    assert_eq!((rig.ended.len(), rig.core.held()), (0, 1));
    // A report may be lost.
    rig.pass(Duration::from_millis(1500));
    assert_eq!(rig.conflicts().len(), 2);
    // The paths are being looked after.
    rig.still_registered(&[], Queueing::Hold);
    assert!(rig.ended.is_empty() && rig.wire.out.is_empty());
    // The guest has been preempted.
    rig.table(&[&[(0, 2), (1, 2)]], Queueing::Fail);
    rig.next(CONFLICT);
    assert_eq!(rig.outcome(), DELIVERED);
}

#[test]
fn a_conflict_by_a_path_that_was_looked_after_is_the_guests() {
    let mut rig = Rig::registered(&[&[(0, 1)]], Queueing::Hold);
    rig.submit_read(1);
    rig.next(CONFLICT);
    assert_eq!(rig.conflicts(), [(0, 1)]);
    rig.still_registered(&[&[(0, 2)]], Queueing::Hold);
    rig.next(CONFLICT);
    assert_eq!(rig.outcome(), DELIVERED);
    assert!(rig.conflicts().is_empty(), "and says nothing against the path");
    rig.submit_read(2);
    assert_eq!(rig.wire.out.len(), 1);
    // Another command's first conflict is the path's again: the nexus may have
    // lost its registration since.
    rig.next(CONFLICT);
    assert_eq!(rig.conflicts(), [(0, 2)]);
    assert!(rig.ended.is_empty());
}

#[test]
fn a_path_that_nobody_has_looked_after_says_nothing_of_the_guest() {
    let mut rig = Rig::registered(&[&[(0, 1), (1, 1)]], Queueing::Hold);
    rig.submit_read(1);
    let first = rig.next(CONFLICT).path;
    let other = 1 - first;
    // The first is back before the other has answered.
    let groups: [(u8, u32); 2] = [(first, 2), (other, 1)];
    rig.still_registered(&[&groups], Queueing::Hold);
    assert_eq!(rig.next(CONFLICT).path, other, "on its way already");
    assert_eq!(rig.conflicts(), [(first, 1), (other, 1)]);
    assert!(rig.ended.is_empty());
    // That one is the engine's word.
    assert_eq!(rig.next(CONFLICT).path, first);
    assert_eq!(rig.outcome(), DELIVERED);
}

/// The engine has looked after the path because of another command; this one
/// was sent before.
#[test]
fn a_conflict_of_an_earlier_epoch_is_repeated_once() {
    let mut rig = Rig::registered(&[&[(0, 1)]], Queueing::Hold);
    rig.submit_read(1);
    rig.still_registered(&[&[(0, 2)]], Queueing::Hold);
    rig.next(CONFLICT);
    assert!(rig.conflicts().iter().all(|&(_, epoch)| epoch == 1));
    rig.next(CONFLICT);
    assert_eq!(rig.outcome(), DELIVERED);
    assert!(rig.conflicts().is_empty());
}

#[test]
fn a_conflict_is_remembered_through_other_trouble() {
    let mut rig = Rig::registered(&[&[(0, 1)]], Queueing::Hold);
    rig.submit_read(1);
    rig.next(CONFLICT);
    rig.still_registered(&[&[(0, 2)]], Queueing::Hold);
    rig.next(host(HostByte::NO_CONNECT));
    rig.still_registered(&[], Queueing::Hold);
    rig.still_registered(&[&[(0, 3)]], Queueing::Hold);
    rig.next(CONFLICT);
    assert_eq!(rig.outcome(), DELIVERED, "it was registered before it carried anything");
    // The next request's part has nothing to remember.
    rig.reports.clear();
    rig.submit_read(2);
    rig.next(CONFLICT);
    assert_eq!(rig.conflicts(), [(0, 3)]);
}
