//! A front-end that goes away and comes back, and a daemon that does: every
//! request is answered exactly once, with the right data.

use std::time::Duration;

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_mpath::virtio::blk::RequestType;

use crate::harness::blk_queue::{PATIENCE, Payload};
use crate::harness::daemon::AT_ONCE;
use crate::harness::front_end::{FrontEnd, Shape};
use crate::harness::load::{Load, Mix};
use crate::harness::random::Random;
use crate::harness::sim_daemon::{Daemon, Setup};

const MIX: Mix = Mix { sectors: 4096, block: 1, most: 24, zeroes: true };

fn shape() -> Shape {
    let mut shape = Shape { queues: 2, ..Shape::default() };
    shape.manner.depth = 24;
    shape.manner.slot_bytes = 32 << 10;
    shape
}

fn setup() -> Setup {
    Setup { size: 2 << 20, queues: 2, ..Setup::default() }.with(&["--command-timeout", "3"])
}

/// Ends the load and compares the whole disk.
fn conclude(mut load: Load, front_end: &mut FrontEnd) {
    load.settle(&mut front_end.queues);
    assert!(load.failed.is_empty(), "{:?}", load.failed);
    load.read_back(front_end.queue(0));
    // A busy machine does little in the milliseconds between two blows.
    assert!(load.good > 30, "only {} requests", load.good);
}

#[test]
fn a_front_end_that_comes_back_with_its_in_flight_area_loses_and_doubles_nothing() {
    let mut daemon = Daemon::start(&setup());
    for event_idx in [true, false] {
        let mut shape = shape();
        shape.manner.event_idx = event_idx;
        let mut front_end = FrontEnd::connect(&daemon.socket(), shape);
        daemon.delay(0, 2);
        daemon.delay(1, 3);
        // The disk of the round before reads as zeroes again.
        wipe(&mut front_end, 4096);
        let mut random = Random::new(7);
        let mut load = Load::new(11, MIX);
        for _ in 0..25 {
            load.run(&mut front_end.queues, Duration::from_millis(random.below(20)));
            front_end.disconnect();
            // The guest does not know: it goes on making requests.
            load.run(&mut front_end.queues, Duration::from_millis(random.below(8)));
            front_end.reconnect();
        }
        conclude(load, &mut front_end);
    }
}

fn wipe(front_end: &mut FrontEnd, sectors: u32) {
    use vhost_mpath::virtio::blk::RangeSegment;
    let all = RangeSegment { sector: 0, num_sectors: sectors, flags: 0 }.encode();
    let done = front_end.queue(0).run(RequestType::WriteZeroes, 0, Payload::Bytes(&all), 0);
    assert_eq!(done.status, 0);
}

#[test]
fn requests_held_for_want_of_a_path_survive_a_reconnect() {
    let mut daemon = Daemon::start(&setup());
    let mut front_end = FrontEnd::connect(&daemon.socket(), shape());
    daemon.cut_all();
    let mut load = Load::new(3, MIX);
    load.submit(&mut front_end.queues);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(30));
        front_end.disconnect();
        std::thread::sleep(Duration::from_millis(5));
        front_end.reconnect();
    }
    load.submit(&mut front_end.queues);
    assert_eq!(load.reap(&mut front_end.queues), 0, "no path, no answer");
    daemon.plug_all();
    load.run(&mut front_end.queues, Duration::from_millis(1200));
    conclude(load, &mut front_end);
}

/// Without an in-flight area a front-end goes on from the used index, so what
/// was out must not be answered behind its back. One request at a time, as
/// the used index cannot tell the order of several.
#[test]
fn a_reconnect_without_in_flight_area_answers_the_request_that_was_out_once() {
    let mut daemon = Daemon::start(&setup());
    let mut shape = shape();
    shape.without_protocol = Protocol::INFLIGHT_SHMFD | Protocol::GET_VRING_BASE_INFLIGHT;
    let mut front_end = FrontEnd::connect(&daemon.socket(), shape);
    assert!(!front_end.has(Protocol::INFLIGHT_SHMFD));
    let data = [0x5a; 4096];
    // Held, and in the kernel.
    for held in [true, false] {
        if held {
            daemon.cut_all();
        } else {
            daemon.delay(0, 150);
            daemon.delay(1, 150);
        }
        for (index, queue) in front_end.queues.iter_mut().enumerate() {
            let sector = 8 * index as u64;
            queue.submit(RequestType::Out, sector, Payload::Bytes(&data), 0).expect("room");
            queue.kick();
        }
        std::thread::sleep(Duration::from_millis(50));
        front_end.disconnect();
        std::thread::sleep(Duration::from_millis(20));
        front_end.reconnect();
        daemon.plug_all();
        for queue in &mut front_end.queues {
            let done = queue.wait(PATIENCE).expect("an answer");
            assert_eq!(done.status, 0);
        }
        std::thread::sleep(Duration::from_millis(200));
        assert!(front_end.queues.iter_mut().all(|q| q.poll().is_none()), "and one only");
    }
    let done = front_end.queue(0).run(RequestType::In, 0, Payload::None, 8192);
    assert!(front_end.queue(0).data(&done).iter().all(|&b| b == 0x5a));
}

/// What no path has is left to the successor, which finds it in the in-flight
/// area.
#[test]
fn sigterm_with_requests_held_ends_at_once_and_the_successor_answers_them() {
    let mut daemon = Daemon::start(&setup());
    let mut front_end = FrontEnd::connect(&daemon.socket(), shape());
    let mut load = Load::new(5, MIX);
    for _ in 0..3 {
        load.run(&mut front_end.queues, Duration::from_millis(30));
        daemon.cut_all();
        load.run(&mut front_end.queues, Duration::from_millis(30));
        let (status, took) = daemon.terminate();
        assert!(status.success(), "{status}");
        assert!(took < AT_ONCE, "SIGTERM took {took:?}");
        daemon.run();
        front_end.disconnect();
        front_end.reconnect();
    }
    conclude(load, &mut front_end);
}

#[test]
fn sigterm_under_load_loses_nothing() {
    let mut daemon = Daemon::start(&setup());
    let mut front_end = FrontEnd::connect(&daemon.socket(), shape());
    let mut load = Load::new(6, MIX);
    for _ in 0..8 {
        load.run(&mut front_end.queues, Duration::from_millis(25));
        let (status, took) = daemon.terminate();
        assert!(status.success(), "{status}");
        assert!(took < AT_ONCE, "SIGTERM took {took:?}");
        daemon.run();
        front_end.disconnect();
        front_end.reconnect();
    }
    conclude(load, &mut front_end);
}

#[test]
fn a_daemon_killed_with_requests_in_flight_is_succeeded_without_loss() {
    let mut daemon = Daemon::start(&setup());
    let mut front_end = FrontEnd::connect(&daemon.socket(), shape());
    let mut random = Random::new(99);
    let mut load = Load::new(8, MIX);
    for round in 0..20 {
        if round % 2 == 0 {
            daemon.delay(0, 1);
        }
        load.run(&mut front_end.queues, Duration::from_millis(5 + random.below(20)));
        daemon.kill();
        assert!(front_end.is_cut_off());
        load.submit(&mut front_end.queues);
        daemon.run();
        front_end.disconnect();
        front_end.reconnect();
    }
    conclude(load, &mut front_end);
}
