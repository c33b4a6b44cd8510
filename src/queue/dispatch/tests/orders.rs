//! Requests that no path carries.

use super::super::raw::ambiguous;
use super::*;
use crate::io::{Action, Management, MapSlot, Reach};
use crate::mpath::reservation::OrderId;

const REGISTER: [u8; 10] = [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0];

fn order(head: u16) -> Request {
    let mut request = Request {
        tag: Tag { ring: 0, head },
        task: u64::from(head),
        op: Some(Op::Cdb { cdb: Cdb::from_bytes(&REGISTER).unwrap(), direction: Direction::Out }),
        ordered: true,
        ..Request::default()
    };
    request.front.buffer = vec![u8::try_from(head).unwrap(); 24];
    request
}

fn given(head: u16) -> Order {
    let cdb = Cdb::from_bytes(&REGISTER).unwrap();
    let list = vec![u8::try_from(head).unwrap(); 24];
    Order::Given { order: OrderId(u64::from(head)), cdb, list }
}

impl Rig {
    fn give(&mut self, head: u16) {
        self.give_request(order(head));
    }

    fn give_request(&mut self, request: Request) {
        let id = OrderId(u64::from(request.tag.head));
        self.core.submit_order(Box::new(request), id).expect("room");
        self.pump();
    }

    fn heard(&mut self) -> Vec<Order> {
        self.core.orders().collect()
    }
}

fn withdrawn(head: u64) -> Vec<Order> {
    vec![Order::Withdrawn(OrderId(head))]
}

#[test]
fn an_order_goes_to_no_path_and_ends_with_its_answer() {
    let sense = Sense::fixed(SenseCode::INVALID_RELEASE_OF_RESERVATION);
    for outcome in [
        Outcome::Good,
        Outcome::NoPath,
        Outcome::Lu { status: Status::CHECK_CONDITION, sense, residual: 24 },
        Outcome::Lu { status: Status::RESERVATION_CONFLICT, sense: Sense::EMPTY, residual: 0 },
    ] {
        let mut rig = Rig::new();
        rig.give(7);
        assert_eq!(rig.heard(), [given(7)]);
        assert_eq!((rig.core.outstanding(0), rig.core.is_idle()), (1, false));
        assert_eq!(rig.core.next_deadline(), None, "only the engine can end it");
        rig.pass(Duration::from_secs(1000));
        rig.core.answer(OrderId(8), Outcome::Good);
        rig.pump();
        assert!(rig.ended.is_empty());
        rig.core.answer(OrderId(7), outcome);
        rig.pump();
        assert_eq!(rig.outcome(), outcome);
        assert_eq!((rig.wire.count, rig.heard()), (0, vec![]));
        assert!(rig.core.is_idle() && rig.core.outstanding(0) == 0);
        rig.core.answer(OrderId(7), outcome);
        rig.pump();
        assert!(rig.ended.is_empty(), "once");
    }
}

#[test]
fn orders_and_commands_do_not_wait_for_each_other() {
    let mut rig = Rig::new();
    rig.give(1);
    rig.submit_read(2);
    rig.give(3);
    rig.next(Completion::Good);
    rig.core.answer(OrderId(3), Outcome::Good);
    rig.pump();
    rig.core.answer(OrderId(1), Outcome::Good);
    rig.pump();
    let heads: Vec<u16> = rig.ended.iter().map(|e| e.0).collect();
    assert_eq!(heads, [2, 3, 1]);
    assert_eq!(rig.heard(), [given(1), given(3)]);
}

#[test]
fn an_order_takes_room_like_any_request() {
    let mut rig = Rig::new();
    for head in 0..16 {
        rig.give(head);
    }
    assert_eq!(rig.core.room(), 0);
    let back = rig.core.submit_order(Box::new(order(16)), OrderId(16));
    assert_eq!(back.unwrap_err().tag.head, 16);
    rig.core.answer(OrderId(5), Outcome::Good);
    rig.pump();
    assert_eq!(rig.core.room(), 1);
}

#[test]
fn lost_paths_and_suspension_are_the_engines_to_deal_with() {
    let mut rig = Rig::new();
    rig.give(1);
    rig.table(&[], Queueing::Fail);
    rig.table_with(&[], Queueing::Gone, |t| t.suspended = true);
    assert_eq!(rig.core.quiet(), Some(rig.generation), "orders are on no path");
    rig.give(2);
    assert!(rig.ended.is_empty());
    assert_eq!(rig.heard(), [given(1), given(2)]);
}

#[test]
fn what_ends_tasks_ends_an_order_and_withdraws_it() {
    let end = |reset| Action::End { reset };
    let map = MapSlot(0);
    for (action, reach) in [
        (end(false), Reach::Task { map, task: 1 }),
        (end(true), Reach::Unit(map)),
        (end(true), Reach::Target(0)),
    ] {
        let mut rig = Rig::new();
        rig.give(1);
        assert_eq!(rig.heard(), [given(1)]);
        let management = Management { action, reach };
        let managed = rig.core.manage(rig.now, &management);
        assert!(managed.found && !rig.core.is_over(&management, managed.ticket));
        rig.pump();
        assert!(rig.core.is_over(&management, managed.ticket));
        let Action::End { reset } = action else { panic!() };
        assert_eq!(rig.outcome(), Outcome::Aborted { reset });
        assert_eq!(rig.heard(), withdrawn(1));
        rig.core.answer(OrderId(1), Outcome::Good);
        rig.pump();
        assert!(rig.ended.is_empty(), "the answer comes too late");
    }
    let mut rig = Rig::new();
    rig.give(1);
    rig.heard();
    let query = Management { action: Action::Query, reach: Reach::Unit(map) };
    assert!(rig.core.manage(rig.now, &query).found);
    rig.pump();
    assert!(rig.ended.is_empty() && rig.heard().is_empty());
}

#[test]
fn an_order_that_ends_before_anybody_hears_of_it_is_never_carried_out() {
    let mut rig = Rig::new();
    rig.give(1);
    rig.give(2);
    let reach = Reach::Task { map: MapSlot(0), task: 1 };
    rig.core.manage(rig.now, &Management { action: Action::End { reset: false }, reach });
    rig.pump();
    assert_eq!(rig.outcome(), Outcome::Aborted { reset: false });
    assert_eq!(rig.heard(), [given(2)]);
}

#[test]
fn a_ring_that_stops_leaves_its_orders_to_the_next_owner_who_does_not_repeat_them() {
    for how in [Stop::Suspend, Stop::Discard] {
        let mut rig = Rig::new();
        rig.give(1);
        rig.give_request(Request { tag: Tag { ring: 1, head: 2 }, ..order(2) });
        rig.heard();
        rig.core.stop_ring(rig.now, 0, how);
        rig.pump();
        assert!(matches!(rig.end(), End::Abandoned), "{how:?}");
        assert_eq!(rig.heard(), withdrawn(1));
        assert_eq!((rig.core.outstanding(0), rig.core.outstanding(1)), (0, 1));
    }
    let mut rig = Rig::new();
    rig.give_request(Request { replayed: true, ..order(1) });
    assert_eq!(rig.outcome(), ambiguous());
    assert_eq!(rig.told()[0].rule, "replayed");
    assert!(rig.heard().is_empty() && rig.core.is_idle());
}

#[test]
fn a_ring_that_finishes_awaits_its_orders_but_not_for_ever() {
    let mut rig = Rig::new();
    rig.give(1);
    rig.give(2);
    rig.heard();
    rig.core.stop_ring(rig.now, 0, Stop::Finish);
    rig.pump();
    assert!(rig.ended.is_empty());
    rig.core.answer(OrderId(1), Outcome::Good);
    rig.pump();
    assert_eq!(rig.outcome(), Outcome::Good);
    rig.core.stop_deadline(0);
    rig.pump();
    assert_eq!(rig.outcome(), ambiguous(), "the driver must not simply send it again");
    assert_eq!(rig.heard(), withdrawn(2));
    // With no path there is no telling when there will be an answer.
    let mut rig = Rig::new();
    rig.table(&[], Queueing::Hold);
    rig.give(1);
    rig.heard();
    rig.core.stop_ring(rig.now, 0, Stop::Finish);
    rig.pump();
    assert_eq!(rig.outcome(), ambiguous());
    assert_eq!(rig.heard(), withdrawn(1));
}

#[test]
fn an_order_of_a_map_that_goes_may_have_been_carried_out() {
    let mut rig = Rig::new();
    rig.give(1);
    rig.heard();
    rig.core.end_all(Outcome::NoPath);
    rig.pump();
    assert_eq!(rig.outcome(), ambiguous());
    assert_eq!(rig.heard(), withdrawn(1));
    assert!(rig.core.is_idle());
}
