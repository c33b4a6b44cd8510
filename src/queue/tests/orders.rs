//! Orders on their way to the control thread and back, and maps that are
//! suspended.

use std::sync::Arc;
use std::time::Duration;

use super::rig::{Answer, Ask, CONTROL, Image, PATIENCE, Rig, open, path_id, table, until};
use crate::io::{MapSlot, Outcome};
use crate::mpath::reservation::OrderId;
use crate::mpath::snapshot::{PathTable, Queueing};
use crate::queue::{FromQueue, Stop};
use crate::scsi::reservation;
use crate::sim::Fault;

const MAP: MapSlot = MapSlot(3);

/// The order that the control thread hears of next, and its task.
fn ordered(rig: &Rig) -> (OrderId, u32) {
    let FromQueue::Ordered { map, order, cdb, list } = rig.hear() else { panic!("no order") };
    assert_eq!((map, cdb.opcode()), (MAP, reservation::OUT));
    (order, u32::from_le_bytes([list[4], list[5], list[6], list[7]]))
}

fn suspended(generation: u64) -> Arc<PathTable> {
    let open = table(generation, &[0], Queueing::Hold);
    Arc::new(PathTable { suspended: true, ..PathTable::clone(&open) })
}

#[test]
fn an_order_comes_back_to_the_ring_it_came_from() {
    let mut rig = Rig::new();
    rig.add_map(MAP.0, Queueing::Hold);
    let mut orders = Vec::new();
    for ring in [2, 3, 2, 3] {
        let task = rig.send(ring, Ask::Order, MAP.0);
        let (order, named) = ordered(&rig);
        assert_eq!(task, named);
        assert!(orders.iter().all(|(_, other, _)| *other != order), "a name is used twice");
        orders.push((ring, order, task));
    }
    let outcomes = [Outcome::Good, Outcome::NoPath, Outcome::Host(5), Outcome::Good];
    let answers = [Answer::Good, Answer::NoPath, Answer::Other, Answer::Good];
    for ((ring, order, task), (outcome, answer)) in
        orders.into_iter().zip(outcomes.into_iter().zip(answers)).rev()
    {
        // Names nobody has.
        rig.queues.answer(MapSlot(4), order, outcome);
        rig.queues.answer(MAP, OrderId(order.0 + (1 << 20)), outcome);
        rig.queues.answer(MAP, OrderId(u64::MAX), outcome);
        rig.queues.answer(MAP, order, outcome);
        assert_eq!(rig.wait(ring, 1), [(task, answer)]);
    }
    rig.end();
}

#[test]
fn the_control_thread_hears_of_orders_that_ended_without_it() {
    let mut rig = Rig::with(256, true);
    rig.add_map(MAP.0, Queueing::Hold);
    let task = rig.send(2, Ask::Order, MAP.0);
    let (aborted, _) = ordered(&rig);
    rig.send_about(Ask::AbortTask, MAP.0, task);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
    assert_eq!(rig.back(2), [(task, Answer::Aborted)]);
    assert!(matches!(rig.hear(), FromQueue::Withdrawn(MAP, order) if order == aborted));
    rig.queues.answer(MAP, aborted, Outcome::Good);

    rig.send(3, Ask::Order, MAP.0);
    let (left, _) = ordered(&rig);
    let ring = rig.stop(3, Stop::Suspend, PATIENCE).expect("the ring");
    assert_eq!(ring.in_flight(), 1);
    assert!(matches!(rig.hear(), FromQueue::Withdrawn(MAP, order) if order == left));
    drop(ring);

    rig.send(2, Ask::Order, MAP.0);
    let (last, _) = ordered(&rig);
    rig.queues.remove_map(MAP);
    assert_eq!(rig.answers(2, 1), [Answer::Other], "0B/00/06");
    let mut heard = [rig.hear(), rig.hear(), rig.hear()].into_iter();
    let withdrawn = |m: &FromQueue| matches!(m, FromQueue::Withdrawn(MAP, o) if *o == last);
    assert!(heard.any(|m| withdrawn(&m)));
    assert_eq!(rig.send(2, Ask::Order, MAP.0), rig.wait(2, 1)[0].0, "no map, no order");
    rig.start(3);
    rig.end();
}

#[test]
fn a_suspended_map_is_quiet_once_its_paths_have_given_everything_back() {
    let image = Image::new();
    let mut rig = Rig::new();
    let path = open(&image.path());
    rig.add_map_on(MAP.0, &path);
    rig.add_map_on(7, &open("null:1G"));
    path.inject(Fault::Hang);
    rig.send(2, Ask::Read, MAP.0);
    until("it is on the path", || rig.queues.issued(MAP, path_id(0)).0 == 1);
    rig.queues.publish(MAP, &suspended(3));
    until("the table is acknowledged", || rig.queues.acknowledged(MAP) == 3);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(rig.queues.quiet(MAP), 0, "one thread has a command out");
    // The other map and orders go on, and so does task management.
    rig.send(3, Ask::Read, 7);
    assert_eq!(rig.answers(3, 1), [Answer::Good]);
    rig.send(3, Ask::Order, MAP.0);
    let (order, _) = ordered(&rig);
    rig.queues.answer(MAP, order, Outcome::Good);
    assert_eq!(rig.answers(3, 1), [Answer::Good]);
    let late = rig.send(3, Ask::Read, MAP.0);
    until("the kernel gives up", || rig.queues.quiet(MAP) == 3);
    assert_eq!(rig.queues.issued(MAP, path_id(0)).0, 1, "nothing new went out");
    // A later table that suspends still.
    rig.queues.publish(MAP, &suspended(4));
    until("it is quiet", || rig.queues.quiet(MAP) == 4);
    rig.send_about(Ask::AbortTask, MAP.0, late);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
    assert_eq!(rig.back(3), [(late, Answer::Aborted)]);
    let null = open("null:1G");
    rig.queues.attach(MAP, path_id(0), &null);
    let mut next = PathTable::clone(&table(5, &[0], Queueing::Hold));
    next.groups[0].paths[0].epoch = 2;
    rig.queues.publish(MAP, &Arc::new(next));
    assert_eq!(rig.answers(2, 1), [Answer::Good]);
    assert_eq!((rig.queues.quiet(MAP), rig.queues.quiet(MapSlot(7))), (4, 0));
    rig.end();
}
