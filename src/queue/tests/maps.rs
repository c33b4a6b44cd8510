//! Many maps in the same threads.

use std::sync::Arc;

use super::rig::{Answer, Ask, Rig, open, path_id, until};
use crate::io::MapSlot;
use crate::mpath::snapshot::Queueing;
use crate::queue::FromQueue;
use crate::sim::Fault;

#[test]
fn each_request_reaches_its_own_map() {
    let mut rig = Rig::new();
    let paths: Vec<_> = (0..3).map(|_| open("null:1G")).collect();
    for (map, path) in [0, 7, 300].into_iter().zip(&paths) {
        rig.add_map_on(map, path);
    }
    for (map, count) in [(0, 5), (7, 10), (300, 20)] {
        for n in 0..count {
            rig.send(2 + n % 2, Ask::Read, map);
        }
        let half = usize::from(count / 2);
        assert_eq!(rig.answers(3, half), vec![Answer::Good; half]);
        assert_eq!(rig.answers(2, usize::from(count) - half).len(), usize::from(count) - half);
        let issued = rig.queues.issued(MapSlot(map), path_id(0));
        assert_eq!(issued, (u64::from(count), u64::from(count) * 512));
    }
    assert_eq!(rig.queues.issued(MapSlot(8), path_id(0)), (0, 0));
    rig.end();
}

#[test]
fn a_request_for_no_map_is_answered_by_the_front() {
    let mut rig = Rig::new();
    rig.send(2, Ask::Read, 0);
    assert_eq!(rig.answers(2, 1), [Answer::NoPath]);
    rig.add_map_on(0, &open("null:1G"));
    rig.send(2, Ask::Read, 0);
    rig.send(3, Ask::Read, 65535);
    assert_eq!(rig.answers(2, 1), [Answer::Good]);
    assert_eq!(rig.answers(3, 1), [Answer::NoPath]);
    rig.end();
}

#[test]
fn a_refused_command_is_reported() {
    let mut rig = Rig::new();
    rig.send(3, Ask::Refused, 7);
    assert_eq!(rig.answers(3, 1), [Answer::Refused]);
    let heard = rig.hear();
    assert!(matches!(heard, FromQueue::Denied(d) if d.map == MapSlot(7) && d.group == "test"));
    rig.end();
}

#[test]
fn a_map_without_paths_does_not_hold_up_the_others() {
    let mut rig = Rig::new();
    rig.add_map(0, Queueing::Hold);
    rig.add_map_on(1, &open("null:1G"));
    rig.add_map(2, Queueing::Fail);
    for map in [0, 1, 2, 1, 2, 0] {
        rig.send(2, Ask::Read, map);
    }
    let mut answers = rig.answers(2, 4);
    answers.sort_by_key(|a| *a == Answer::Good);
    assert_eq!(answers, [Answer::NoPath, Answer::NoPath, Answer::Good, Answer::Good]);
    assert_eq!(rig.out(2), 2);
    rig.attach(0, &open("null:1G"));
    assert_eq!(rig.answers(2, 2), [Answer::Good, Answer::Good]);
    rig.end();
}

#[test]
fn all_maps_of_a_thread_share_its_room() {
    let mut rig = Rig::with(4, false);
    rig.add_map(0, Queueing::Hold);
    rig.add_map(1, Queueing::Hold);
    rig.add_map_on(2, &open("null:1G"));
    for map in [0, 1, 0, 1, 2, 2] {
        rig.send(2, Ask::Read, map);
    }
    // The four that are held fill the thread; the other thread has room.
    rig.send(3, Ask::Read, 2);
    assert_eq!(rig.answers(3, 1), [Answer::Good]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(rig.back(2).is_empty());
    rig.attach(1, &open("null:1G"));
    assert_eq!(rig.answers(2, 4), [Answer::Good; 4]);
    rig.end();
}

#[test]
fn a_map_goes_under_load_and_its_slot_serves_again() {
    let mut rig = Rig::new();
    let (stays, goes) = (open("null:1G"), open("null:1G"));
    rig.add_map_on(0, &stays);
    rig.add_map_on(1, &goes);
    let mut back = Vec::new();
    for round in 0..200 {
        for ring in [2, 3] {
            for map in [0, 1, 0, 1] {
                back.push((ring, map, rig.send(ring, Ask::Read, map)));
            }
        }
        if round == 100 {
            rig.queues.remove_map(MapSlot(1));
        }
        for ring in [2, 3] {
            for (task, answer) in rig.wait(ring, 4) {
                let &(_, map, _) = back.iter().find(|b| b.2 == task).expect("sent");
                let gone = map == 1 && round >= 100;
                let may = answer == Answer::Good || (gone && answer == Answer::NoPath);
                assert!(may, "map {map}: {answer:?} in round {round}");
                assert!(!(map == 1 && round > 150 && answer == Answer::Good));
            }
        }
    }
    for _ in 0..2 {
        assert!(matches!(rig.hear(), FromQueue::MapGone(MapSlot(1))));
    }
    until("the ports are closed", || Arc::strong_count(&goes) == 1);
    assert_eq!(rig.queues.acknowledged(MapSlot(1)), 0);
    rig.add_map_on(1, &goes);
    rig.send(2, Ask::Read, 1);
    assert_eq!(rig.answers(2, 1), [Answer::Good]);
    assert_eq!(rig.queues.issued(MapSlot(1), path_id(0)), (1, 512));
    rig.end();
}

#[test]
fn a_map_is_gone_only_when_its_last_command_is_back() {
    let image = super::rig::Image::new();
    let mut rig = Rig::new();
    let path = open(&image.path());
    rig.add_map_on(0, &path);
    rig.send(3, Ask::Read, 0);
    assert_eq!(rig.answers(3, 1), [Answer::Good]);
    path.inject(Fault::Hang);
    let hung = rig.send(2, Ask::Read, 0);
    until("it is on the path", || rig.queues.issued(MapSlot(0), path_id(0)).0 == 2);
    rig.queues.remove_map(MapSlot(0));
    // The other thread has nothing to wait for.
    assert!(matches!(rig.hear(), FromQueue::MapGone(MapSlot(0))));
    // Nothing new gets in.
    let late = rig.send(2, Ask::Read, 0);
    assert_eq!(rig.wait(2, 1), [(late, Answer::NoPath)]);
    assert_eq!(rig.wait(2, 1), [(hung, Answer::NoPath)]);
    assert!(matches!(rig.hear(), FromQueue::MapGone(MapSlot(0))));
    rig.end();
}

/// What waits for room belongs to the map it was sent to, not to the one that
/// has its number by then.
#[test]
fn what_waits_for_room_ends_with_its_map() {
    let mut rig = Rig::with(1, false);
    rig.add_map(0, Queueing::Hold);
    rig.add_map_on(1, &open("null:1G"));
    rig.put(2, Ask::Read, 0, 0);
    let waits = rig.put(2, Ask::Read, 1, 0);
    rig.kick(2);
    // Task management takes it from its ring.
    rig.send_about(Ask::QueryTask, 1, waits);
    assert_eq!(rig.answers(super::rig::CONTROL, 1), [Answer::Found]);
    rig.queues.remove_map(MapSlot(1));
    for _ in 0..2 {
        assert!(matches!(rig.hear(), FromQueue::MapGone(MapSlot(1))));
    }
    // Another LU in its place, and room.
    let other = open("null:1G");
    rig.add_map_on(1, &other);
    rig.attach(0, &open("null:1G"));
    let mut back = rig.wait(2, 2);
    back.retain(|b| b.0 == waits);
    assert_eq!(back, [(waits, Answer::NoPath)]);
    assert_eq!(rig.queues.issued(MapSlot(1), path_id(0)).0, 0);
    rig.end();
}

#[test]
fn a_path_leaves_an_idle_map() {
    let rig = Rig::new();
    let path = open("null:1G");
    rig.add_map_on(5, &path);
    let empty = super::rig::table(3, &[], Queueing::Hold);
    rig.queues.publish(MapSlot(5), &empty);
    rig.queues.detach(MapSlot(5), path_id(0));
    for _ in 0..2 {
        let heard = rig.hear();
        assert!(matches!(heard, FromQueue::Detached(MapSlot(5), id) if id == path_id(0)));
    }
    assert_eq!(Arc::strong_count(&path), 1);
    rig.end();
}

#[test]
fn hundreds_of_maps_are_served_by_the_same_threads() {
    let mut rig = Rig::new();
    let paths: Vec<_> = (0..200).map(|_| open("null:1G")).collect();
    for (map, path) in (0..).zip(&paths) {
        rig.add_map_on(map, path);
    }
    for map in 0..200 {
        rig.send(2 + map % 2, Ask::Read, map);
        rig.wait(2 + map % 2, 1).iter().for_each(|(_, a)| assert_eq!(*a, Answer::Good));
    }
    for map in 0..200 {
        assert_eq!(rig.queues.issued(MapSlot(map), path_id(0)).0, 1);
    }
    rig.end();
}
