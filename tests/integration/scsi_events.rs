//! LUs that come, go and grow while the guest runs: what the event queue tells
//! a vhost-user-scsi guest, and what its next commands do.

use std::time::Duration;

use serde_json::json;

use crate::harness::cdb;
use crate::harness::scsi_guest::ScsiGuest;
use crate::harness::scsi_queue::{Event, F_CHANGE, F_HOTPLUG, Task, lun};
use crate::harness::sim_daemon::{Daemon, Setup};

const HERE: [u8; 8] = lun(0, 0);
const NONE: [&str; 0] = [];

fn add(daemon: &mut Daemon, lun: &str, name: &str) {
    let image = daemon.file(&format!("{name}.img"));
    let paths = [0, 1].map(|path| daemon.spec(&image, &format!("{name}{path}")));
    daemon.qmp().execute("lun-add", &json!({"lun": lun, "paths": paths, "alias": name}));
}

fn remove(daemon: &mut Daemon, lun: &str) {
    daemon.qmp().execute("lun-remove", &json!({"lun": lun}));
}

/// The next event, which must come.
fn event(guest: &mut ScsiGuest) -> Event {
    let done = guest.events().wait_for(|| "an event".into());
    guest.events().event(&done)
}

/// Nothing comes for a while.
fn quiet(guest: &mut ScsiGuest) {
    let late = guest.events().wait(Duration::from_millis(60));
    assert!(late.is_none(), "{:?}", late.map(|done| guest.events().event(&done)));
}

fn luns(guest: &mut ScsiGuest) -> Vec<u8> {
    let answer = guest.run(&Task::new(&cdb::report_luns(0, 256)).reading(256));
    assert!(answer.is_good());
    answer.transferred()[8..].chunks_exact(8).map(|lun| lun[1]).collect()
}

#[test]
fn a_lun_that_comes_and_goes_is_told_and_served() {
    let mut daemon = Daemon::start(&Setup::scsi());
    let mut guest = ScsiGuest::connect(&daemon, 2);
    guest.events().post_events(8);
    quiet(&mut guest);
    for round in 0..3 {
        add(&mut daemon, "0:1", "one");
        assert_eq!(event(&mut guest), Event::rescan(lun(0, 1)));
        assert_eq!(guest.attentions(HERE), ["06/3f/0e"], "round {round}");
        assert_eq!(luns(&mut guest), [0, 1]);
        let data = [round; 512];
        let write = cdb::blocks(0x8a, 0, 1);
        let answer = guest.run(&Task::new(&write).to(lun(0, 1)).writing(&data));
        assert_eq!(answer.to_string(), "GOOD");
        add(&mut daemon, "5:2", "two");
        assert_eq!(event(&mut guest), Event::rescan(lun(5, 2)));
        assert_eq!(guest.attentions(HERE), NONE, "another target's inventory");
        remove(&mut daemon, "0:1");
        assert_eq!(event(&mut guest), Event::removed(lun(0, 1)));
        // Reading the inventory is hearing of its change.
        assert_eq!(luns(&mut guest), [0]);
        assert_eq!(guest.attentions(HERE), NONE);
        let gone = guest.run(&Task::new(&cdb::TUR).to(lun(0, 1)));
        assert_eq!(gone.to_string(), "05/25/00");
        remove(&mut daemon, "5:2");
        assert_eq!(event(&mut guest), Event::removed(lun(5, 2)));
        assert_eq!(guest.run(&Task::new(&cdb::TUR).to(lun(5, 2))).to_string(), "BAD_TARGET");
        guest.events().post_events(4);
    }
    quiet(&mut guest);
}

/// A LU that goes takes its commands with it, and no other's.
#[test]
fn a_lun_that_goes_under_load_ends_its_commands() {
    let mut daemon = Daemon::start(&Setup::scsi());
    let mut guest = ScsiGuest::connect(&daemon, 2);
    guest.events().post_events(8);
    for held in [false, true] {
        add(&mut daemon, "0:1", "one");
        guest.attentions(HERE);
        for path in ["one0", "one1"] {
            let fault = if held {
                json!({"fault": "cut", "mode": "before"})
            } else {
                json!({"fault": "delay", "milliseconds": 30})
            };
            daemon.fault_of(path, fault);
        }
        let cdb = cdb::blocks(0x88, 0, 1);
        for queue in guest.all_requests() {
            for n in 0..8 {
                let task = Task::new(&cdb).to(lun(0, n % 2)).reading(512);
                queue.submit(&task).expect("room");
            }
            queue.kick();
        }
        remove(&mut daemon, "0:1");
        let mut good = 0;
        for queue in guest.all_requests() {
            for done in queue.drain(crate::harness::slot_queue::PATIENCE) {
                let word = queue.answer(&done).to_string();
                good += usize::from(word == "GOOD");
                let fine = ["GOOD", "05/25/00", "06/3f/0e", "TRANSPORT_FAILURE", "BAD_TARGET"];
                assert!(fine.contains(&word.as_str()), "{word}");
            }
        }
        assert!(good >= 7, "only {good} of LUN 0's eight");
        guest.attentions(HERE);
        assert_eq!(event(&mut guest), Event::rescan(lun(0, 1)));
        assert_eq!(event(&mut guest), Event::removed(lun(0, 1)));
    }
}

#[test]
fn a_lu_that_grew_is_told_and_its_size_is_read_anew() {
    let mut daemon = Daemon::start(&Setup::scsi().lun("0:3", "three"));
    let mut guest = ScsiGuest::connect(&daemon, 1);
    guest.events().post_events(8);
    let size = |guest: &mut ScsiGuest, lun| {
        let answer = guest.run(&Task::new(&cdb::read_capacity(32)).to(lun).reading(32));
        assert!(answer.is_good(), "{answer}");
        u64::from_be_bytes(answer.data[..8].try_into().expect("8 bytes")) + 1
    };
    let before = size(&mut guest, lun(0, 3));
    daemon.fault_of("three0", json!({"fault": "capacity"}));
    // Somebody has to notice: a command of the guest does.
    assert_eq!(guest.attentions(lun(0, 3)), ["06/2a/09"]);
    assert_eq!(event(&mut guest), Event::changed(lun(0, 3), 0x2a, 0x09));
    assert_eq!(size(&mut guest, lun(0, 3)), 2 * before);
    let last = cdb::blocks(0x88, 2 * before - 1, 1);
    let read = guest.run(&Task::new(&last).to(lun(0, 3)).reading(512));
    assert_eq!(read.to_string(), "GOOD");
    assert_eq!(size(&mut guest, HERE), before);
    assert_eq!(guest.attentions(lun(0, 3)), NONE);
    quiet(&mut guest);
}

/// Its guest is told as by any LU, and the LU refuses what is beyond its end.
#[test]
fn a_lu_that_shrank_is_told_and_refuses_what_is_beyond_its_end() {
    let mut daemon = Daemon::start(&Setup::scsi());
    let mut guest = ScsiGuest::connect(&daemon, 1);
    guest.events().post_events(8);
    daemon.fault_of("sim0", json!({"fault": "capacity", "bytes": 1 << 20}));
    assert_eq!(guest.attentions(HERE), ["06/2a/09"]);
    assert_eq!(event(&mut guest), Event::changed(HERE, 0x2a, 0x09));
    let read = |guest: &mut ScsiGuest, lba| {
        guest.run(&Task::new(&cdb::blocks(0x88, lba, 1)).reading(512)).to_string()
    };
    assert_eq!(read(&mut guest, 2047), "GOOD");
    assert_eq!(read(&mut guest, 2048), "05/21/00");
    let resized = daemon.qmp().event("MAP_RESIZED");
    assert_eq!(resized["to"], 2048);
    assert!(resized.get("guest-blocks").is_none(), "it asks the LU itself");
    daemon.until_usable(2);
    assert_eq!(read(&mut guest, 2048), "05/21/00");
}

#[test]
fn events_without_a_buffer_are_delivered_later_and_lost_ones_told() {
    let mut daemon = Daemon::start(&Setup::scsi());
    let mut guest = ScsiGuest::connect(&daemon, 1);
    // A few wait.
    add(&mut daemon, "0:1", "one");
    remove(&mut daemon, "0:1");
    quiet(&mut guest);
    guest.events().post_events(4);
    assert_eq!(event(&mut guest), Event::rescan(lun(0, 1)));
    assert_eq!(event(&mut guest), Event::removed(lun(0, 1)));
    quiet(&mut guest);
    // Two buffers are left: then so many that some are lost.
    let rounds = 60;
    for _ in 0..rounds {
        add(&mut daemon, "0:1", "one");
        remove(&mut daemon, "0:1");
    }
    let first = [event(&mut guest), event(&mut guest)];
    assert_eq!(first, [Event::rescan(lun(0, 1)), Event::removed(lun(0, 1))]);
    guest.events().post_events(32);
    let mut missed = 0;
    let mut told = 2;
    while told < 2 * rounds {
        if guest.events().outstanding() == 0 {
            guest.events().post_events(32);
        }
        let Some(done) = guest.events().wait(Duration::from_millis(300)) else { break };
        let event = guest.events().event(&done);
        missed += usize::from(event.event & Event::MISSED != 0);
        told += 1;
    }
    assert!(missed >= 1, "{told} of {} told, none marked as missed", 2 * rounds);
    assert!(told < 2 * rounds, "all {told} were kept");
    assert_eq!(luns(&mut guest), [0]);
}

#[test]
fn who_did_not_ask_for_events_gets_none() {
    let mut daemon = Daemon::start(&Setup::scsi());
    for without in [F_HOTPLUG, F_CHANGE, F_HOTPLUG | F_CHANGE] {
        let mut shape = ScsiGuest::shape(1);
        shape.without = without;
        let mut guest = ScsiGuest::with(&daemon.socket(), shape);
        guest.events().post_events(8);
        add(&mut daemon, "0:1", "one");
        remove(&mut daemon, "0:1");
        if without & F_HOTPLUG == 0 {
            assert_eq!(event(&mut guest), Event::rescan(lun(0, 1)));
            assert_eq!(event(&mut guest), Event::removed(lun(0, 1)));
        }
        daemon.fault_of("sim0", json!({"fault": "capacity"}));
        let told = guest.attentions(HERE);
        assert!(told.contains(&"06/2a/09".to_owned()), "{told:?}");
        if without & F_CHANGE == 0 {
            assert_eq!(event(&mut guest), Event::changed(HERE, 0x2a, 0x09));
        }
        quiet(&mut guest);
        assert_eq!(guest.attentions(HERE), NONE);
    }
}

/// Buffers too small for an event, and buffers across a reconnect.
#[test]
fn the_event_queue_survives_bad_buffers_and_reconnects() {
    let mut daemon = Daemon::start(&Setup::scsi());
    let mut guest = ScsiGuest::connect(&daemon, 1);
    for len in [1, 15] {
        guest.events().submit_control(&[], len).expect("room");
    }
    guest.events().post_events(6);
    // Each short one costs an event, which the next one tells.
    add(&mut daemon, "0:1", "one");
    remove(&mut daemon, "0:1");
    for _ in 0..2 {
        let done = guest.events().wait_for(|| "a short buffer".into());
        assert_eq!(done.used_len, 0);
    }
    add(&mut daemon, "0:1", "one");
    let next = event(&mut guest);
    assert_eq!(next, Event { event: next.event, ..Event::rescan(lun(0, 1)) });
    assert_eq!(next.event, Event::TRANSPORT_RESET | Event::MISSED);
    guest.disconnect();
    guest.reconnect();
    remove(&mut daemon, "0:1");
    assert_eq!(event(&mut guest).reason, Event::REMOVED);
    daemon.kill();
    daemon.run();
    guest.disconnect();
    guest.reconnect();
    add(&mut daemon, "0:1", "one");
    assert_eq!(event(&mut guest).reason, Event::RESCAN);
}
