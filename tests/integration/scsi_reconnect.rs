//! A vhost-user-scsi front-end that goes away and comes back, and a daemon
//! that does: every command is answered exactly once; what may be repeated is,
//! and what must not be is answered with 0B/00/06.

use std::time::Duration;

use serde_json::json;

use crate::harness::cdb;
use crate::harness::daemon::AT_ONCE;
use crate::harness::random::Random;
use crate::harness::scsi_guest::ScsiGuest;
use crate::harness::scsi_load::ScsiLoad;
use crate::harness::scsi_queue::{Event, LU_RESET, Task, lun, response_name};
use crate::harness::sim_daemon::{Daemon, Setup};
use crate::harness::slot_queue::PATIENCE;

const SECTORS: u64 = 2048;
const HERE: [u8; 8] = lun(0, 0);

fn start() -> (Daemon, ScsiGuest) {
    let setup = Setup { size: 2 << 20, ..Setup::scsi() }.lun("0:1", "one");
    let daemon = Daemon::start(&setup.with(&["--command-timeout", "3"]));
    let mut shape = ScsiGuest::shape(2);
    shape.manner.depth = 16;
    shape.manner.slot_bytes = 32 << 10;
    let guest = ScsiGuest::with(&daemon.socket(), shape);
    (daemon, guest)
}

fn conclude(mut load: ScsiLoad, guest: &mut ScsiGuest) -> ScsiLoad {
    load.settle(guest.all_requests());
    assert!(load.failed.is_empty(), "{:?}", load.failed);
    assert!(load.attentions.is_empty(), "{:?}", load.attentions);
    load.read_back(guest.requests(0));
    assert!(load.total() > 30, "only {} commands", load.total());
    load
}

#[test]
fn a_front_end_that_comes_back_loses_and_doubles_nothing() {
    let (mut daemon, mut guest) = start();
    daemon.delay(0, 2);
    daemon.delay(1, 3);
    let mut random = Random::new(7);
    let mut load = ScsiLoad::new(11, SECTORS);
    for _ in 0..20 {
        load.run(guest.all_requests(), Duration::from_millis(random.below(20)));
        guest.disconnect();
        // The guest does not know: it goes on.
        load.run(guest.all_requests(), Duration::from_millis(random.below(8)));
        guest.reconnect();
    }
    conclude(load, &mut guest);
}

#[test]
fn a_killed_daemon_is_succeeded_and_nothing_is_done_twice() {
    let (mut daemon, mut guest) = start();
    let mut random = Random::new(99);
    let mut load = ScsiLoad::new(8, SECTORS);
    for _ in 0..15 {
        daemon.delay(0, random.below(4));
        load.run(guest.all_requests(), Duration::from_millis(5 + random.below(20)));
        daemon.kill();
        load.submit(guest.all_requests());
        daemon.run();
        guest.disconnect();
        guest.reconnect();
    }
    let load = conclude(load, &mut guest);
    assert!(load.unknown > 0, "no COMPARE AND WRITE was under way when the daemon was killed");
}

#[test]
fn sigterm_with_commands_held_leaves_them_to_the_successor() {
    let (mut daemon, mut guest) = start();
    let mut load = ScsiLoad::new(5, SECTORS);
    for held in [true, false, true] {
        load.run(guest.all_requests(), Duration::from_millis(30));
        if held {
            daemon.cut_all();
        }
        load.run(guest.all_requests(), Duration::from_millis(20));
        let (status, took) = daemon.terminate();
        assert!(status.success(), "{status}");
        assert!(took < AT_ONCE, "SIGTERM took {took:?}");
        daemon.run();
        guest.disconnect();
        guest.reconnect();
    }
    conclude(load, &mut guest);
}

/// One of each, under way when the daemon is killed.
#[test]
fn what_may_be_repeated_is_and_what_must_not_be_is_told() {
    let (mut daemon, mut guest) = start();
    for executed in [false, true] {
        for path in 0..2 {
            daemon.delay(path, if executed { 0 } else { 400 });
        }
        let (old, new) = ([0; 512], [0x99; 512]);
        let both = [old, new].concat();
        let compare = cdb::compare_and_write(50, 1);
        let read = cdb::blocks(0x88, 0, 1);
        let write = cdb::blocks(0x2a, 60, 1);
        let queue = guest.requests(0);
        if executed {
            // The answer is there, but nobody looks before the kill: it is no
            // longer in flight, and comes as it is.
            queue.submit(&Task::new(&read).reading(512)).expect("room");
            queue.kick();
            std::thread::sleep(Duration::from_millis(100));
        } else {
            queue.submit(&Task::new(&compare).named(1).writing(&both)).expect("room");
            queue.submit(&Task::new(&read).named(2).reading(512)).expect("room");
            queue.submit(&Task::new(&write).named(3).writing(&new)).expect("room");
            queue.kick();
            // Popped, and on a path.
            for _ in 0..200 {
                if guest.has_popped_of(2, 3) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon.kill();
        daemon.run();
        guest.disconnect();
        guest.reconnect();
        let queue = guest.requests(0);
        let answers: Vec<String> =
            queue.drain(PATIENCE).iter().map(|done| queue.answer(done).to_string()).collect();
        if executed {
            assert_eq!(answers, ["GOOD"]);
            continue;
        }
        let count = |word: &str| answers.iter().filter(|answer| *answer == word).count();
        assert_eq!((count("0b/00/06"), count("GOOD")), (1, 2), "{answers:?}");
        // Neither done twice nor half.
        let block = guest.run(&Task::new(&cdb::blocks(0x88, 50, 1)).reading(512));
        assert!(block.data == old || block.data == new);
        let block = guest.run(&Task::new(&cdb::blocks(0x88, 60, 1)).reading(512));
        assert!(block.data == new);
        assert_eq!(guest.attentions(HERE), [""; 0]);
        let told = daemon.qmp().event("GUEST_IO_ERROR");
        assert!(told["rule"] == "replayed", "{told}");
    }
}

/// Task management under way when the daemon is killed is carried out by the
/// successor.
#[test]
fn task_management_in_flight_is_answered_by_the_successor() {
    let (mut daemon, mut guest) = start();
    for _ in 0..3 {
        daemon.hang(0);
        daemon.hang(1);
        let cdb = cdb::blocks(0x88, 0, 1);
        for queue in guest.all_requests() {
            for id in 0..4 {
                queue.submit(&Task::new(&cdb).named(id).reading(512)).expect("room");
            }
            queue.kick();
        }
        guest.control().submit_tmf(LU_RESET, HERE, 0);
        guest.control().kick();
        std::thread::sleep(Duration::from_millis(40));
        daemon.kill();
        daemon.run();
        guest.disconnect();
        guest.reconnect();
        let done = guest.control().wait_for(|| "the LU reset".into());
        assert_eq!(response_name(done.status), "OK");
        for queue in guest.all_requests() {
            for done in queue.drain(PATIENCE) {
                let word = queue.answer(&done).to_string();
                assert!(["GOOD", "RESET", "06/29/03"].contains(&word.as_str()), "{word}");
            }
        }
        let left = guest.attentions(HERE);
        assert!(left.len() <= 1 && left.iter().all(|ua| ua == "06/29/03"), "{left:?}");
    }
}

/// A guest that reboots with commands held and on slow paths: the rings stop,
/// and begin anew from nothing.
#[test]
fn rings_stop_and_start_again_with_commands_out() {
    let (mut daemon, mut guest) = start();
    let cdb = cdb::blocks(0x88, 0, 1);
    for fault in
        [json!({"fault": "cut", "mode": "before"}), json!({"fault": "delay", "milliseconds": 100})]
    {
        daemon.fault_of("sim0", fault.clone());
        daemon.fault_of("sim1", fault);
        for queue in guest.all_requests() {
            for n in 0..8 {
                let task = Task::new(&cdb).to(lun(0, n % 2)).reading(512);
                queue.submit(&task).expect("room");
            }
            queue.kick();
        }
        guest.events().post_events(4);
        std::thread::sleep(Duration::from_millis(20));
        let begun = std::time::Instant::now();
        guest.reboot();
        let took = begun.elapsed();
        assert!(took < AT_ONCE, "the reboot took {took:?}");
        daemon.plug_all();
        (0..2).for_each(|path| daemon.reinstate(path));
        daemon.until_usable(4);
        assert_eq!(guest.say(&cdb::TUR), "GOOD");
        let mut load = ScsiLoad::new(3, SECTORS);
        load.read_back(guest.requests(1));
        // Events go on, too.
        guest.events().post_events(2);
        let image = daemon.file("late.img");
        let spec = daemon.spec(&image, "late");
        daemon.qmp().execute("lun-add", &json!({"lun": "0:7", "paths": [spec]}));
        let done = guest.events().wait_for(|| "RESCAN".into());
        assert_eq!(guest.events().event(&done), Event::rescan(lun(0, 7)));
        guest.attentions(HERE);
        guest.attentions(lun(0, 1));
        daemon.qmp().execute("lun-remove", &json!({"lun": "0:7"}));
        guest.events().wait_for(|| "REMOVED".into());
        guest.attentions(HERE);
    }
}
