//! What the driver is told unasked.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::rig::{Answer, Ask, EVENTS, PATIENCE, Rig, open, until};
use crate::io::{DeviceEvent, Happened};
use crate::queue::Stop;

fn added(lun: u16) -> DeviceEvent {
    DeviceEvent { target: 0, lun, what: Happened::Added }
}

fn wanting() -> Rig {
    let rig = Rig::new();
    rig.shared.wants_events.store(true, Ordering::Relaxed);
    rig
}

fn told(lun: u8) -> Answer {
    Answer::Event { lun, missed: false }
}

#[test]
fn an_event_takes_a_chain_that_lies_ready() {
    let mut rig = wanting();
    for _ in 0..3 {
        rig.put_empty(16);
    }
    rig.kick(EVENTS);
    rig.queues.tell(added(1));
    rig.queues.tell(added(2));
    assert_eq!(rig.answers(EVENTS, 2), [told(1), told(2)]);
    let ring = rig.stop(EVENTS, Stop::Finish, PATIENCE).expect("the ring");
    assert_eq!((ring.in_flight(), ring.backlog()), (0, 1), "the third was never taken");
    drop(ring);
    rig.start(EVENTS);
    rig.end();
}

#[test]
fn an_event_waits_for_a_chain() {
    let mut rig = wanting();
    rig.queues.tell(added(1));
    rig.queues.tell(added(2));
    std::thread::sleep(Duration::from_millis(50));
    rig.put_empty(16);
    rig.kick(EVENTS);
    assert_eq!(rig.answers(EVENTS, 1), [told(1)]);
    rig.put_empty(16);
    rig.kick(EVENTS);
    assert_eq!(rig.answers(EVENTS, 1), [told(2)]);
    rig.end();
}

#[test]
fn events_survive_a_pause_of_their_ring() {
    let mut rig = wanting();
    rig.queues.tell(added(1));
    drop(rig.stop(EVENTS, Stop::Suspend, PATIENCE).expect("the ring"));
    rig.queues.tell(added(2));
    for _ in 0..2 {
        rig.put_empty(16);
    }
    rig.start(EVENTS);
    assert_eq!(rig.answers(EVENTS, 2), [told(1), told(2)]);
    rig.end();
}

#[test]
fn the_first_event_after_an_overflow_says_that_others_were_missed() {
    let mut rig = wanting();
    for lun in 0..70 {
        rig.queues.tell(added(lun));
    }
    std::thread::sleep(Duration::from_millis(50));
    for _ in 0..65 {
        rig.put_empty(16);
    }
    rig.kick(EVENTS);
    let told_of = rig.answers(EVENTS, 64);
    assert_eq!(told_of[0], Answer::Event { lun: 0, missed: true });
    assert_eq!(told_of[1..], (1..64).map(told).collect::<Vec<_>>());
    rig.queues.tell(added(99));
    assert_eq!(rig.answers(EVENTS, 1), [told(99)]);
    rig.end();
}

#[test]
fn an_event_that_does_not_fit_its_chain_is_missed() {
    let mut rig = wanting();
    for len in [2, 16] {
        rig.put_empty(len);
    }
    rig.kick(EVENTS);
    rig.queues.tell(added(1));
    assert_eq!(rig.answers(EVENTS, 1), [Answer::Nothing]);
    rig.queues.tell(added(2));
    assert_eq!(rig.answers(EVENTS, 1), [Answer::Event { lun: 2, missed: true }]);
    rig.end();
}

#[test]
fn what_the_driver_did_not_ask_for_is_dropped_and_not_missed() {
    let mut rig = Rig::new();
    rig.put_empty(16);
    rig.put_empty(16);
    rig.kick(EVENTS);
    rig.queues.tell(added(1));
    std::thread::sleep(Duration::from_millis(50));
    rig.shared.wants_events.store(true, Ordering::Relaxed);
    rig.queues.tell(added(2));
    assert_eq!(rig.answers(EVENTS, 1), [told(2)]);
    rig.end();
}

/// A driver that has come meanwhile looks for itself.
#[test]
fn a_driver_that_does_not_want_events_gets_none_of_its_predecessors() {
    let mut rig = wanting();
    rig.queues.tell(added(1));
    std::thread::sleep(Duration::from_millis(50));
    rig.shared.wants_events.store(false, Ordering::Relaxed);
    rig.put_empty(16);
    rig.kick(EVENTS);
    std::thread::sleep(Duration::from_millis(50));
    assert!(rig.back(EVENTS).is_empty());
    rig.shared.wants_events.store(true, Ordering::Relaxed);
    rig.queues.tell(added(2));
    assert_eq!(rig.answers(EVENTS, 1), [told(2)]);
    rig.end();
}

/// Processor time of the queue threads so far.
fn spent(rig: &Rig) -> Duration {
    let mut threads = rig.shared.threads.lock().unwrap().clone();
    threads.sort();
    threads.dedup();
    assert_eq!(threads.len(), 2, "both queue threads have started rings");
    let nanoseconds = |thread: &std::path::PathBuf| -> u64 {
        let path = std::path::Path::new("/proc").join(thread).join("schedstat");
        let text = std::fs::read_to_string(path).expect("schedstat");
        text.split_whitespace().next().expect("a number").parse().expect("a number")
    };
    Duration::from_nanos(threads.iter().map(nanoseconds).sum())
}

fn assert_sleeps(rig: &Rig, when: &str) {
    std::thread::sleep(Duration::from_millis(50));
    let before = spent(rig);
    std::thread::sleep(Duration::from_millis(400));
    let busy = spent(rig).checked_sub(before).unwrap();
    assert!(busy < Duration::from_millis(40), "{when}: busy for {busy:?} of 400 ms");
}

#[test]
fn a_ring_full_of_chains_lets_the_thread_sleep() {
    let mut rig = wanting();
    rig.add_map_on(0, &open("null:1G"));
    until("the rings run", || rig.shared.threads.lock().unwrap().len() == 4);
    assert_sleeps(&rig, "no chain, no event");
    for _ in 0..100 {
        rig.put_empty(16);
    }
    rig.kick(EVENTS);
    assert_sleeps(&rig, "chains, no event");
    rig.queues.tell(added(1));
    assert_eq!(rig.answers(EVENTS, 1), [told(1)]);
    assert_sleeps(&rig, "after an event");
    rig.send(3, Ask::Read, 0);
    assert_eq!(rig.answers(3, 1), [Answer::Good]);
    assert_sleeps(&rig, "after a request of the same thread");
    for lun in 0..101 {
        rig.queues.tell(added(lun));
        std::thread::sleep(Duration::from_micros(300));
    }
    rig.wait(EVENTS, 99);
    assert_sleeps(&rig, "events, no chain");
    rig.end();
}
