//! Task management over threads.

use std::time::{Duration, Instant};

use super::rig::{Answer, Ask, CONTROL, Image, PATIENCE, Rig, TIMEOUT, open, path_id, until};
use crate::io::MapSlot;
use crate::mpath::snapshot::Queueing;
use crate::queue::{FromQueue, Stop};
use crate::sim::Fault;

#[test]
fn a_reset_ends_the_tasks_of_all_threads_and_is_answered_after_them() {
    let image = Image::new();
    let mut rig = Rig::new();
    let hung = open(&image.path());
    rig.add_map_on(0, &hung);
    rig.add_map(1, Queueing::Hold);
    rig.add_map_on(2, &open("null:1G"));
    hung.inject(Fault::Hang);
    // On ring 2, one on the path and one held; on ring 3, one on the path.
    for (ring, map) in [(2, 0), (2, 1), (3, 0)] {
        rig.send(ring, Ask::Read, map);
    }
    until("they are on the path", || rig.queues.issued(MapSlot(0), path_id(0)).0 == 2);
    rig.send(CONTROL, Ask::ResetUnit, 0);
    // The others go on.
    rig.send(2, Ask::Read, 2);
    assert_eq!(rig.answers(2, 1), [Answer::Good]);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
    // Everything it reached is there already.
    let back: Vec<_> = [2, 3].into_iter().flat_map(|ring| rig.back(ring)).map(|b| b.1).collect();
    assert_eq!(back, [Answer::Reset, Answer::Reset]);
    assert_eq!((rig.out(2), rig.out(3)), (1, 0));
    rig.end();
}

#[test]
fn a_reset_that_is_told_is_answered_when_whoever_heard_lets_go() {
    let mut rig = Rig::telling_resets();
    rig.add_map(3, Queueing::Hold);
    rig.send(2, Ask::Read, 3);
    rig.send(CONTROL, Ask::ResetUnit, 3);
    let FromQueue::Resetting(map, function) = rig.hear() else { panic!("no reset was told") };
    assert_eq!(map, MapSlot(3));
    assert_eq!(rig.answers(2, 1), [Answer::Reset]);
    std::thread::sleep(Duration::from_millis(50));
    assert!(rig.back(CONTROL).is_empty(), "answered before the array was reset");
    drop(function);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
    // Only LUs are reset: a target is the guest's own nexus.
    rig.send(CONTROL, Ask::ResetTarget, 0);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::NotFound]);
    assert!(rig.inlet.next().is_none());
    rig.end();
}

#[test]
fn a_reset_of_the_target_reaches_all_its_units() {
    let mut rig = Rig::new();
    for map in [0, 3, 4] {
        rig.add_map(map, Queueing::Hold);
    }
    for (ring, map) in [(2, 0), (3, 0), (2, 3), (3, 4)] {
        rig.send(ring, Ask::Read, map);
    }
    // Maps 0 to 3 are target 0.
    rig.send(CONTROL, Ask::ResetTarget, 0);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
    assert_eq!(rig.answers(2, 2), [Answer::Reset; 2]);
    assert_eq!(rig.answers(3, 1), [Answer::Reset]);
    assert_eq!(rig.out(3), 1);
    rig.end();
}

#[test]
fn a_task_is_looked_for_and_aborted_by_its_name() {
    let mut rig = Rig::new();
    rig.add_map(0, Queueing::Hold);
    let first = rig.send(2, Ask::Read, 0);
    let second = rig.send(3, Ask::Read, 0);
    rig.send_about(Ask::QueryTask, 0, second);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
    rig.send_about(Ask::AbortTask, 0, second);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
    assert_eq!(rig.back(3), [(second, Answer::Aborted)]);
    rig.send_about(Ask::QueryTask, 0, second);
    rig.send_about(Ask::AbortTask, 0, second);
    rig.send_about(Ask::AbortTask, 1, first);
    assert_eq!(rig.answers(CONTROL, 3), [Answer::NotFound; 3]);
    rig.send_about(Ask::QueryUnit, 0, 1);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
    assert_eq!(rig.out(2), 1);
    rig.end();
}

/// Tasks that the thread has no room for are tasks all the same.
#[test]
fn what_lies_in_the_rings_is_reached_though_there_is_no_room() {
    let mut rig = Rig::with(4, false);
    rig.add_map(0, Queueing::Hold);
    rig.add_map_on(1, &open("null:1G"));
    for _ in 0..30 {
        rig.put(2, Ask::Read, 0, 0);
    }
    let other = rig.put(2, Ask::Read, 1, 0);
    let last = rig.put(2, Ask::Read, 0, 0);
    rig.kick(2);
    rig.send_about(Ask::QueryTask, 0, last);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
    rig.send_about(Ask::AbortTask, 0, last);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
    assert_eq!(rig.back(2), [(last, Answer::Aborted)]);
    rig.send(CONTROL, Ask::ResetUnit, 0);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
    let back = rig.back(2);
    assert_eq!(back.iter().filter(|b| b.1 == Answer::Reset).count(), 30);
    // And the one it did not reach goes on.
    if !back.contains(&(other, Answer::Good)) {
        assert_eq!(rig.wait(2, 1), [(other, Answer::Good)]);
    }
    rig.end();
}

#[test]
fn requests_that_wait_for_room_end_with_their_ring() {
    for how in [Stop::Finish, Stop::Suspend, Stop::Discard] {
        let mut rig = Rig::with(2, true);
        rig.add_map(0, Queueing::Hold);
        for _ in 0..10 {
            rig.put(2, Ask::Read, 0, 0);
        }
        rig.kick(2);
        rig.send(CONTROL, Ask::QueryUnit, 0);
        assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
        let ring = rig.stop(2, how, PATIENCE).expect("the ring");
        let left = if how == Stop::Finish { 0 } else { 10 };
        assert_eq!(ring.in_flight(), left, "{how:?}");
        assert_eq!(rig.back(2).iter().filter(|b| b.1 == Answer::Stopped).count(), 10 - left);
        drop(ring);
        rig.start(2);
        rig.end();
    }
}

#[test]
fn a_suspended_function_is_carried_out_by_the_next_owner() {
    let image = Image::new();
    let mut rig = Rig::with(256, true);
    let hung = open(&image.path());
    rig.add_map_on(0, &hung);
    hung.inject(Fault::Hang);
    let read = rig.send(2, Ask::Read, 0);
    until("it is on the path", || rig.queues.issued(MapSlot(0), path_id(0)).0 == 1);
    rig.send(CONTROL, Ask::ResetUnit, 0);
    // Begun, and waiting for the task.
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    let ring = rig.stop(CONTROL, Stop::Suspend, PATIENCE).expect("the ring");
    assert!(begun.elapsed() < TIMEOUT - Duration::from_millis(400), "the task was waited for");
    assert_eq!(ring.in_flight(), 1);
    drop(ring);
    rig.start(CONTROL);
    let answers = rig.answers(CONTROL, 1);
    assert_eq!(rig.back(2), [(read, Answer::Reset)]);
    // What it reached was reached by the first attempt, and may have ended
    // before the second.
    assert!(matches!(answers[..], [Answer::Found | Answer::NotFound]));
    assert_eq!(rig.shared.replayed.lock().unwrap().len(), 1);
    rig.end();
}

#[test]
fn a_control_ring_that_stops_waits_for_its_function_as_for_a_command() {
    let image = Image::new();
    let mut rig = Rig::new();
    let hung = open(&image.path());
    rig.add_map_on(0, &hung);
    hung.inject(Fault::Hang);
    rig.send(2, Ask::Read, 0);
    until("it is on the path", || rig.queues.issued(MapSlot(0), path_id(0)).0 == 1);
    rig.send(CONTROL, Ask::ResetUnit, 0);
    until("it is taken", || rig.queues.acknowledged(MapSlot(0)) == 2);
    std::thread::sleep(Duration::from_millis(100));
    rig.stop(CONTROL, Stop::Finish, Duration::from_millis(200)).expect_err("still out");
    assert!(rig.back(CONTROL).is_empty());
    let ring = rig.stop(CONTROL, Stop::Finish, TIMEOUT * 2).expect("the ring");
    assert_eq!(rig.back(CONTROL).len(), 1);
    assert_eq!(rig.back(2).len(), 1);
    assert_eq!(ring.in_flight(), 0);
    drop(ring);
    rig.start(CONTROL);
    rig.end();
}

/// The rings of a device start one by one, the control ring first: a function
/// an earlier process had taken must find the tasks that process had taken.
#[test]
fn a_function_waits_for_the_rings_that_start_after_its_own() {
    let mut rig = Rig::with(256, true);
    rig.add_map(0, Queueing::Hold);
    let read = rig.send(2, Ask::Read, 0);
    rig.send(CONTROL, Ask::QueryUnit, 0);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
    for ring in [CONTROL, 2] {
        rig.stop(ring, Stop::Suspend, PATIENCE).expect("the ring");
    }
    rig.put(CONTROL, Ask::ResetUnit, 0, 0);
    rig.start(CONTROL);
    std::thread::sleep(Duration::from_millis(50));
    rig.start(2);
    assert_eq!(rig.answers(CONTROL, 1), [Answer::Found]);
    assert_eq!(rig.back(2), [(read, Answer::Reset)]);
    assert_eq!(*rig.shared.replayed.lock().unwrap(), [u64::from(read)]);
    rig.end();
}

#[test]
fn a_storm_of_functions_neither_stops_the_requests_nor_is_lost() {
    let image = Image::new();
    let mut rig = Rig::new();
    let hung = open(&image.path());
    rig.add_map_on(0, &hung);
    rig.add_map_on(1, &open("null:1G"));
    hung.inject(Fault::Hang);
    rig.send(2, Ask::Read, 0);
    rig.send(3, Ask::Read, 0);
    until("they are on the path", || rig.queues.issued(MapSlot(0), path_id(0)).0 == 2);
    // As many as the ring holds.
    let storm = 85;
    for _ in 0..storm {
        rig.put(CONTROL, Ask::ResetUnit, 0, 0);
    }
    rig.kick(CONTROL);
    let (begun, mut reads) = (Instant::now(), 0);
    let mut functions = Vec::new();
    while functions.len() < storm {
        assert!(begun.elapsed() < PATIENCE);
        for ring in [2, 3] {
            rig.send(ring, Ask::Read, 1);
            let back = rig.wait(ring, 1);
            reads += back.iter().filter(|b| b.1 == Answer::Good).count();
        }
        functions.extend(rig.back(CONTROL));
    }
    assert!(functions.iter().any(|f| f.1 == Answer::Found));
    assert!(reads > 200, "{reads} reads in {:?}", begun.elapsed());
    rig.end();
}
