//! Unit attentions as a vhost-user-scsi guest hears them: each event of the
//! array once, whichever paths tell of it, and what concerns a path never.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::cdb;
use crate::harness::daemon::until;
use crate::harness::scsi_guest::ScsiGuest;
use crate::harness::scsi_queue::{LU_RESET, Task, lun};
use crate::harness::sim_daemon::{Daemon, Setup};

const HERE: [u8; 8] = lun(0, 0);
const NONE: [&str; 0] = [];

/// Both paths carry commands, so that both tell what they have to tell.
fn start(paths: usize) -> (Daemon, ScsiGuest) {
    let multibus = &["--path-grouping-policy", "multibus", "--path-selector", "round-robin 0"];
    let setup = Setup { paths, ..Setup::scsi() }.lun("0:1", "one").with(multibus);
    let mut daemon = Daemon::start(&setup);
    let mut guest = ScsiGuest::connect(&daemon, 2);
    daemon.until_usable(2 * paths as u64);
    assert_eq!(guest.attentions(HERE), NONE);
    (daemon, guest)
}

/// Hears out what there is, over every path and through every check that an
/// event may have set off.
fn heard(daemon: &mut Daemon, guest: &mut ScsiGuest) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..10 {
        all.extend(guest.attentions(HERE));
        std::thread::sleep(Duration::from_millis(3));
    }
    let paths = daemon.qmp().execute("query-paths", &json!({}));
    let names = paths.as_array().expect("paths").iter();
    let names: Vec<Value> = names.map(|path| path["dev"].clone()).collect();
    for name in names {
        let _ = daemon.qmp().try_execute("path-reinstate", &json!({"path": name}));
    }
    for _ in 0..10 {
        all.extend(guest.attentions(HERE));
    }
    all
}

#[test]
fn every_event_of_the_array_is_heard_once() {
    for paths in [1, 2, 4] {
        let (mut daemon, mut guest) = start(paths);
        let rows: Vec<(Value, &[&str])> = vec![
            (json!({"fault": "lu-reset"}), &["06/29/03"]),
            (json!({"fault": "capacity"}), &["06/2a/09"]),
            // Another one, of the same kind: heard again.
            (json!({"fault": "lu-reset"}), &["06/29/03"]),
            (json!({"fault": "capacity"}), &["06/2a/09"]),
            // Of the way to the LU: nothing to hear.
            (json!({"fault": "alua", "state": "active-non-optimized"}), &[]),
            (json!({"fault": "alua", "state": "active-optimized"}), &[]),
            (json!({"fault": "prefer"}), &[]),
            (json!({"fault": "plug"}), &[]),
        ];
        for (fault, expected) in rows {
            daemon.fault_of("sim0", fault.clone());
            let heard = heard(&mut daemon, &mut guest);
            assert_eq!(heard, expected, "{fault} with {paths} paths");
            assert_eq!(guest.attentions(lun(0, 1)), NONE, "the neighbour, after {fault}");
        }
    }
}

/// The event is the LU's exact sense, on the first command that may carry it.
#[test]
fn the_next_command_carries_it_but_for_the_three_that_must_not() {
    let (mut daemon, mut guest) = start(2);
    daemon.fault_of("sim1", json!({"fault": "lu-reset"}));
    let inquiry = guest.run(&Task::new(&cdb::inquiry(None, 36)).reading(36));
    assert!(inquiry.is_good() && inquiry.residual == 0);
    let luns = guest.run(&Task::new(&cdb::report_luns(0, 64)).reading(64));
    assert!(luns.is_good());
    let read = guest.run(&Task::new(&cdb::blocks(0x88, 0, 1)).reading(512));
    assert_eq!(read.to_string(), "06/29/03");
    assert_eq!((read.residual, read.sense[0], read.sense.len()), (512, 0x70, 18));
    let read = guest.run(&Task::new(&cdb::blocks(0x88, 0, 1)).reading(512));
    assert!(read.is_good());
    assert_eq!(heard(&mut daemon, &mut guest), NONE);
}

#[test]
fn request_sense_reports_it_as_data_and_once() {
    let (mut daemon, mut guest) = start(2);
    let ask = |guest: &mut ScsiGuest| {
        let answer = guest.run(&Task::new(&cdb::request_sense(false, 18)).reading(18));
        assert!(answer.is_good(), "{answer}");
        (answer.data[2] & 0xf, answer.data[12], answer.data[13])
    };
    assert_eq!(ask(&mut guest), (0, 0, 0));
    daemon.fault_of("sim0", json!({"fault": "lu-reset"}));
    let told: Vec<_> = (0..6).map(|_| ask(&mut guest)).collect();
    let news = told.iter().filter(|code| **code == (6, 0x29, 3)).count();
    let quiet = told.iter().filter(|code| **code == (0, 0, 0)).count();
    assert_eq!((news, quiet), (1, 5), "{told:02x?}");
    assert_eq!(heard(&mut daemon, &mut guest), NONE);
}

/// The array tells every path of the reset it was asked for.
#[test]
fn a_reset_of_the_guest_that_the_array_repeats_is_heard_once() {
    for reach in ["own", "array"] {
        let multibus = &["--path-grouping-policy", "multibus", "--lu-reset", reach];
        let mut daemon = Daemon::start(&Setup { paths: 2, ..Setup::scsi() }.with(multibus));
        let mut guest = ScsiGuest::connect(&daemon, 1);
        daemon.until_usable(2);
        for _ in 0..3 {
            assert_eq!(guest.control().run_tmf(LU_RESET, HERE, 0), "OK");
            assert_eq!(heard(&mut daemon, &mut guest), ["06/29/03"], "--lu-reset {reach}");
        }
        daemon.fault_of("sim0", json!({"fault": "lu-reset"}));
        assert_eq!(heard(&mut daemon, &mut guest), ["06/29/03"], "another host's");
    }
}

/// What a check of ours meets waits for the guest.
#[test]
fn an_event_that_a_check_met_is_not_lost() {
    let (mut daemon, mut guest) = start(2);
    for _ in 0..3 {
        daemon.fault_of("sim0", json!({"fault": "lu-reset"}));
        // The checks are first, and over before the guest is.
        for path in 0..2 {
            daemon.reinstate(path);
        }
        until("both are checked and proven", || {
            let paths = daemon.qmp().execute("query-paths", &json!({}));
            let mut these = paths.as_array().expect("paths").iter().take(2);
            these.all(|path| path["checking"] == false && path["dm_st"] == "active")
        });
        assert_eq!(heard(&mut daemon, &mut guest), ["06/29/03"]);
    }
}

/// A path that leads elsewhere must not be written to; the guest hears of the
/// event and finds its own data.
#[test]
fn a_remapped_path_is_left_and_the_data_is_the_lus() {
    let (mut daemon, mut guest) = start(2);
    let data = [0x77; 512];
    let write = cdb::blocks(0x8a, 9, 1);
    assert!(guest.run(&Task::new(&write).writing(&data)).is_good());
    daemon.fault_of("sim0", json!({"fault": "remap"}));
    let mut told = Vec::new();
    for _ in 0..20 {
        let read = guest.run(&Task::new(&cdb::blocks(0x88, 9, 1)).reading(512));
        match read.to_string().as_str() {
            "GOOD" => assert!(read.data == data),
            other => told.push(other.to_owned()),
        }
    }
    // Whoever reads the inventory anew loses nothing by being told.
    assert!(told.len() <= 1 && told.iter().all(|word| word == "06/3f/03"), "{told:?}");
    daemon.until_usable(3);
    daemon.plug(0);
    daemon.reinstate(0);
    daemon.until_usable(4);
    let told = heard(&mut daemon, &mut guest);
    assert!(told.len() <= 1 && told.iter().all(|word| word == "06/3f/03"), "{told:?}");
    let read = guest.run(&Task::new(&cdb::blocks(0x88, 9, 1)).reading(512));
    assert!(read.is_good() && read.data == data);
}

/// Many events while commands are under way on every queue: each is heard
/// exactly once, and no command is lost.
#[test]
fn events_under_load_are_heard_once_each() {
    let (mut daemon, mut guest) = start(2);
    let cdb = cdb::blocks(0x88, 0, 1);
    let mut resets = 0;
    let mut told = 0;
    for _ in 0..30 {
        for queue in guest.all_requests() {
            for _ in 0..queue.room(8) {
                queue.submit(&Task::new(&cdb).reading(512)).expect("room");
            }
            queue.kick();
        }
        daemon.fault_of("sim0", json!({"fault": "lu-reset"}));
        resets += 1;
        for queue in guest.all_requests() {
            for done in queue.drain(crate::harness::slot_queue::PATIENCE) {
                match queue.answer(&done).to_string().as_str() {
                    "GOOD" => {}
                    "06/29/03" => told += 1,
                    other => panic!("{other}"),
                }
            }
        }
        told += guest.attentions(HERE).len();
        // Every path has told before the next: else two events are one.
        for path in 0..2 {
            daemon.reinstate(path);
        }
        daemon.until_usable(4);
        told += guest.attentions(HERE).len();
    }
    assert_eq!(told, resets);
}
