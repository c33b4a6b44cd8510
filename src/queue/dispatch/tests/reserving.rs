//! Orders, suspension and conflicts at random: nothing is lost, nothing goes
//! where it must not.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::io::{Action, Management, MapSlot, Reach};
use crate::mpath::reservation::OrderId;

#[derive(Clone, Copy, Debug)]
enum Step {
    Read,
    CompareAndWrite,
    Order,
    /// The n-th command that is out.
    Complete(usize, Completion),
    /// The n-th order that has no answer.
    Answer(usize),
    Abort(u64),
    /// Paths listed, those looked after, suspended, registered.
    Table([bool; 3], [bool; 3], bool, bool),
    Pass,
}

const CONFLICT: Completion = Completion::Scsi {
    status: Status::RESERVATION_CONFLICT,
    host: HostByte::OK,
    sense: Sense::EMPTY,
    residual: 0,
};

fn completion() -> impl Strategy<Value = Completion> {
    prop_oneof![
        3 => Just(Completion::Good),
        3 => Just(CONFLICT),
        1 => Just(host(HostByte::TRANSPORT_DISRUPTED)),
        1 => Just(status(Status::BUSY)),
        1 => Just(check(2, 0x04, 0x0b)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Read),
        1 => Just(Step::CompareAndWrite),
        1 => Just(Step::Order),
        6 => (0..8_usize, completion()).prop_map(|(n, c)| Step::Complete(n, c)),
        1 => (0..4_usize).prop_map(Step::Answer),
        1 => (0..64_u64).prop_map(Step::Abort),
        3 => any::<([bool; 3], [bool; 3], bool, bool)>()
            .prop_map(|(listed, after, s, r)| Step::Table(listed, after, s, r)),
        1 => Just(Step::Pass),
    ]
}

struct Tale {
    rig: Rig,
    epochs: [u32; 3],
    /// Reported for a conflict at this epoch, and not looked after since.
    barred: BTreeMap<u8, u32>,
    heads: BTreeSet<u16>,
    next: u16,
    open: Vec<OrderId>,
    given: BTreeSet<OrderId>,
}

impl Tale {
    fn head(&mut self) -> u16 {
        self.next += 1;
        self.heads.insert(self.next);
        self.next
    }

    fn has_room(&self) -> bool {
        self.rig.core.room() > 0
    }

    fn order(&mut self) {
        let head = self.head();
        let cdb = Cdb::from_bytes(&[0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0]).unwrap();
        let request = Request {
            tag: Tag { ring: 0, head },
            task: u64::from(head),
            op: Some(Op::Cdb { cdb, direction: Direction::Out }),
            ordered: true,
            ..Request::default()
        };
        let order = OrderId(u64::from(head));
        self.rig.core.submit_order(Box::new(request), order).expect("room");
        self.rig.pump();
    }

    fn table(&mut self, listed: [bool; 3], after: [bool; 3], suspended: bool, registered: bool) {
        for slot in (0..3_u8).filter(|s| after[usize::from(*s)]) {
            self.epochs[usize::from(slot)] += 1;
            self.barred.remove(&slot);
        }
        let paths: Vec<(u8, u32)> = (0..3_u8)
            .filter(|slot| listed[usize::from(*slot)])
            .map(|slot| (slot, self.epochs[usize::from(slot)]))
            .collect();
        let groups: &[&[(u8, u32)]] = if paths.is_empty() { &[] } else { &[&paths] };
        self.rig.table_with(groups, Queueing::Hold, |table| {
            (table.suspended, table.registered) = (suspended, registered);
        });
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Read if self.has_room() => {
                let head = self.head();
                self.rig.submit_read(head);
            }
            Step::CompareAndWrite if self.has_room() => {
                let head = self.head();
                self.rig.submit_compare_and_write(head);
            }
            Step::Order if self.has_room() => self.order(),
            Step::Read | Step::CompareAndWrite | Step::Order => {}
            Step::Complete(n, completion) => {
                if let Some(sent) = self.rig.wire.out.get(n).cloned() {
                    self.rig.answer(&sent, completion);
                }
            }
            Step::Answer(n) => {
                if let Some(order) = self.open.get(n) {
                    self.rig.core.answer(*order, Outcome::Good);
                    self.rig.pump();
                }
            }
            Step::Abort(task) => {
                let reach = Reach::Task { map: MapSlot(0), task };
                let action = Action::End { reset: false };
                self.rig.core.manage(self.rig.now, &Management { action, reach });
                self.rig.pump();
            }
            Step::Table(listed, after, suspended, registered) => {
                self.table(listed, after, suspended, registered);
            }
            Step::Pass => self.rig.pass(Duration::from_millis(50)),
        }
    }

    /// What must hold after each step, `before` which so many were sent.
    fn check(&mut self, before: usize) {
        let table = Arc::clone(self.rig.core.table());
        let new = self.rig.wire.count - before;
        assert!(!table.suspended || new == 0, "something went out");
        assert_eq!(
            self.rig.core.quiet().is_some(),
            table.suspended && self.rig.wire.out.is_empty()
        );
        for report in self.rig.path_reports() {
            if let IoReason::Judged { verdict: PathVerdict::Conflict, .. } = report.reason {
                self.barred.insert(report.path.slot, report.epoch);
            }
        }
        let sent = self.rig.wire.out.len();
        for sent in &self.rig.wire.out[sent - new.min(sent)..] {
            let barred = self.barred.get(&sent.path);
            assert_ne!(barred, Some(&self.epochs[usize::from(sent.path)]), "law 5");
        }
        self.rig.reports.clear();
        for order in self.rig.core.orders().collect::<Vec<_>>() {
            match order {
                Order::Given { order, .. } => {
                    assert!(self.given.insert(order), "given twice");
                    self.open.push(order);
                }
                Order::Withdrawn(order) => {
                    assert!(self.open.contains(&order), "nobody had heard of it");
                    self.open.retain(|o| *o != order);
                }
            }
        }
        for (head, end) in std::mem::take(&mut self.rig.ended) {
            assert!(self.heads.remove(&head), "ended twice");
            self.open.retain(|o| *o != OrderId(u64::from(head)));
            assert!(matches!(end, End::Finished(_)), "{end:?}");
        }
    }
}

proptest! {
    #[test]
    fn every_request_ends_once_and_none_goes_by_a_path_that_is_not_registered(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let rig = Rig::of(settings(limits()), &[&[(0, 1), (1, 1), (2, 1)]]);
        let mut tale = Tale {
            rig,
            epochs: [1; 3],
            barred: BTreeMap::new(),
            heads: BTreeSet::new(),
            next: 0,
            open: Vec::new(),
            given: BTreeSet::new(),
        };
        for step in steps {
            let before = tale.rig.wire.count;
            tale.step(step);
            tale.check(before);
        }
        // Everything is in order again.
        let before = tale.rig.wire.count;
        tale.table([true; 3], [true; 3], false, false);
        tale.check(before);
        for _ in 0..100 {
            tale.step(Step::Complete(0, Completion::Good));
            tale.step(Step::Answer(0));
            tale.step(Step::Pass);
            tale.check(tale.rig.wire.count);
        }
        prop_assert!(tale.heads.is_empty() && tale.open.is_empty(), "{:?}", tale.heads);
        prop_assert!(tale.rig.core.is_idle());
        prop_assert_eq!(tale.rig.core.next_deadline(), None);
    }
}
