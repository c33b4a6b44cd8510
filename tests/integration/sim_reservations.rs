//! Reservations of the simulated array, under real guests: those of other
//! hosts (`sim-fault` `reservation`), and a guest's own over one path.

use serde_json::{Value, json};

use crate::harness::cdb;
use crate::harness::scsi_guest::ScsiGuest;
use crate::harness::scsi_queue::{Task, lun};
use crate::harness::sim_daemon::{Daemon, Setup};

const KIND: &str = "write-exclusive-registrants-only";
/// RESERVATION CONFLICT.
const CONFLICT: u8 = 0x18;

fn foreign(action: &str, key: Option<&str>, kind: Option<&str>) -> Value {
    let mut fault = json!({"fault": "reservation", "action": action});
    if let Some(key) = key {
        fault["key"] = json!(key);
    }
    if let Some(kind) = kind {
        fault["type"] = json!(kind);
    }
    fault
}

/// PERSISTENT RESERVE OUT with the key, and the key of its service action.
fn out(guest: &mut ScsiGuest, action: u8, kind: u8, key: u64, action_key: u64) -> u8 {
    let list = [&key.to_be_bytes()[..], &action_key.to_be_bytes(), &[0; 8]].concat();
    let cdb = [0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0];
    guest.run(&Task::new(&cdb).writing(&list)).status
}

/// READ KEYS.
fn keys(guest: &mut ScsiGuest) -> Vec<u64> {
    let cdb = [0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0];
    let answer = guest.run(&Task::new(&cdb).reading(64));
    assert!(answer.is_good(), "{answer}");
    let key = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight"));
    answer.transferred()[8..].chunks_exact(8).map(key).collect()
}

fn write(guest: &mut ScsiGuest) -> u8 {
    guest.run(&Task::new(&cdb::blocks(0x8a, 0, 1)).writing(&[7; 512])).status
}

fn read(guest: &mut ScsiGuest) -> u8 {
    guest.run(&Task::new(&cdb::blocks(0x88, 0, 1)).reading(512)).status
}

#[test]
fn another_hosts_reservation_is_the_lus_word_whichever_path_meets_it() {
    let multibus = &["--path-grouping-policy", "multibus", "--path-selector", "round-robin 0"];
    let mut daemon = Daemon::start(&Setup { paths: 2, ..Setup::scsi() }.with(multibus));
    let mut guest = ScsiGuest::connect(&daemon, 1);
    daemon.until_usable(2);
    daemon.fault_of("sim0", foreign("register", Some("0xf0"), None));
    assert_eq!(keys(&mut guest), [0xf0]);
    assert_eq!(write(&mut guest), 0);
    daemon.fault_of("sim1", foreign("reserve", None, Some(KIND)));
    for _ in 0..4 {
        assert_eq!((write(&mut guest), read(&mut guest)), (CONFLICT, 0));
    }
    let mut refused = foreign("clear", None, None);
    refused["initiator"] = json!(2);
    refused["path"] = json!("sim0");
    let error = daemon.qmp().try_execute("sim-fault", &refused).expect_err("not registered");
    assert!(error["desc"].as_str().expect("words").contains("RESERVATION CONFLICT"), "{error}");
    daemon.fault_of("sim0", foreign("release", None, None));
    assert_eq!(write(&mut guest), 0);
    assert!(!daemon.log().contains("PATH_FAILED"), "{}", daemon.log());
}

#[test]
fn a_guest_with_one_path_reserves_and_is_fenced() {
    let mut daemon = Daemon::start(&Setup { paths: 1, ..Setup::scsi() });
    let mut guest = ScsiGuest::connect(&daemon, 1);
    daemon.until_usable(1);
    assert_eq!(out(&mut guest, 0, 0, 0, 0x61), 0, "REGISTER");
    assert_eq!(out(&mut guest, 1, 5, 0x61, 0), 0, "RESERVE");
    daemon.fault_of("sim0", foreign("register", Some("f0"), None));
    assert_eq!((keys(&mut guest), write(&mut guest)), (vec![0x61, 0xf0], 0));
    daemon.fault_of("sim0", foreign("preempt-abort", Some("0x61"), Some(KIND)));
    assert_eq!(write(&mut guest), CONFLICT);
    assert_eq!(guest.attentions(lun(0, 0)), ["06/2a/05"]);
    assert_eq!((write(&mut guest), read(&mut guest)), (CONFLICT, 0));
    assert_eq!(keys(&mut guest), [0xf0]);
    // Both are gone with the power: APTPL was not set.
    daemon.fault_of("sim0", json!({"fault": "power-loss"}));
    guest.attentions(lun(0, 0));
    assert_eq!((keys(&mut guest), write(&mut guest)), (vec![], 0));
}

#[test]
fn registrations_outlive_the_daemon() {
    let mut daemon = Daemon::start(&Setup { paths: 1, ..Setup::scsi() });
    let mut guest = ScsiGuest::connect(&daemon, 1);
    daemon.until_usable(1);
    assert_eq!(out(&mut guest, 0, 0, 0, 0x61), 0, "REGISTER");
    daemon.fault_of("sim0", foreign("register", Some("f0"), None));
    daemon.fault_of("sim0", foreign("reserve", None, Some("exclusive-access")));
    drop(guest);
    daemon.kill();
    daemon.run();
    let mut guest = ScsiGuest::connect(&daemon, 1);
    daemon.until_usable(1);
    assert_eq!(keys(&mut guest), [0x61, 0xf0]);
    assert_eq!((write(&mut guest), read(&mut guest)), (CONFLICT, CONFLICT));
    daemon.fault_of("sim0", foreign("register", Some("0"), None));
    assert_eq!((write(&mut guest), keys(&mut guest)), (0, vec![0x61]));
}
