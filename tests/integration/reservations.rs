//! Persistent reservations of a vhost-user-scsi guest over two paths: one
//! nexus to the guest, each path registered to the array, and a key that
//! outlives the daemon.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vhost_mpath::virtio::blk::{BlkStatus, RequestType};

use crate::harness::blk_queue::Payload;
use crate::harness::cdb;
use crate::harness::front_end::{FrontEnd, Shape};
use crate::harness::scsi_guest::ScsiGuest;
use crate::harness::scsi_queue::{Task, lun};
use crate::harness::sim_daemon::{Daemon, Setup};

const HERE: [u8; 8] = lun(0, 0);
const NONE: [&str; 0] = [];
const OURS: u64 = 0xaa;
const THEIRS: u64 = 0xbb;

/// Service actions of PERSISTENT RESERVE OUT.
const REGISTER: u8 = 0x00;
const RESERVE: u8 = 0x01;
const RELEASE: u8 = 0x02;
const CLEAR: u8 = 0x03;
const PREEMPT: u8 = 0x04;
const REGISTER_AND_MOVE: u8 = 0x07;
const REPLACE_LOST: u8 = 0x08;
/// Write exclusive, registrants only.
const KIND: u8 = 0x05;

/// Both paths carry commands.
fn start(setup: Setup) -> (Daemon, ScsiGuest) {
    let multibus = &["--path-grouping-policy", "multibus", "--path-selector", "round-robin 0"];
    let paths = setup.paths as u64;
    let mut daemon = Daemon::start(&setup.with(multibus));
    let mut guest = ScsiGuest::connect(&daemon, 1);
    daemon.until_usable(paths);
    assert_eq!(guest.attentions(HERE), NONE);
    (daemon, guest)
}

/// PERSISTENT RESERVE OUT; what its answer says.
fn out(guest: &mut ScsiGuest, action: u8, key: u64, action_key: u64) -> String {
    let cdb = [0x5f, action, KIND, 0, 0, 0, 0, 0, 24, 0];
    let list = [&key.to_be_bytes()[..], &action_key.to_be_bytes(), &[0; 8]].concat();
    guest.run(&Task::new(&cdb).writing(&list)).to_string()
}

/// What PERSISTENT RESERVE IN reads behind its header.
fn read(guest: &mut ScsiGuest, action: u8) -> Vec<u8> {
    let cdb = [0x5e, action, 0, 0, 0, 0, 0, 0x04, 0x00, 0];
    let answer = guest.run(&Task::new(&cdb).reading(1024));
    assert!(answer.is_good(), "{answer}");
    answer.transferred()[8..].to_vec()
}

fn keys(guest: &mut ScsiGuest) -> Vec<u64> {
    let data = read(guest, 0);
    data.chunks_exact(8).map(|key| u64::from_be_bytes(key.try_into().expect("8"))).collect()
}

/// A write of one block; what its answer says.
fn write(guest: &mut ScsiGuest) -> String {
    guest.run(&Task::new(&cdb::blocks(0x2a, 7, 1)).writing(&[0x5a; 512])).to_string()
}

fn status(daemon: &mut Daemon) -> Value {
    daemon.qmp().execute("query-reservations", &json!({}))[0].clone()
}

/// How many paths are registered.
fn registered(daemon: &mut Daemon) -> usize {
    let status = status(daemon);
    let paths = status["paths"].as_array().expect("paths");
    paths.iter().filter(|path| path["registration"] == "registered").count()
}

fn until_registered(daemon: &mut Daemon, count: usize) {
    until(daemon, "registered by so many", |now| {
        let paths = now["paths"].as_array().expect("paths");
        let registered = |path: &&Value| path["registration"] == "registered";
        paths.iter().filter(registered).count() == count
            && paths.iter().all(|p| p["barred"] == false)
    });
}

fn until(daemon: &mut Daemon, what: &str, is_so: impl Fn(&Value) -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let now = status(daemon);
        if is_so(&now) {
            return;
        }
        assert!(Instant::now() < end, "not {what}: {now}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The prkeys file.
fn kept(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.file("state").join("prkeys")).unwrap_or_default()
}

/// It is written aside, where no guest waits for it.
fn until_forgotten(daemon: &Daemon, key: u64) {
    let end = Instant::now() + Duration::from_secs(20);
    while kept(daemon).contains(&format!("{key:016x}")) {
        assert!(Instant::now() < end, "{}", kept(daemon));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn foreign(daemon: &mut Daemon, mut action: Value) {
    action["fault"] = json!("reservation");
    daemon.fault_of("sim0", action);
}

#[test]
fn a_guest_registers_by_all_paths_and_sees_one_nexus() {
    let (mut daemon, mut guest) = start(Setup::scsi());
    assert_eq!(out(&mut guest, REGISTER, 0, OURS), "GOOD");
    // On the disk before the guest has heard that it is registered.
    let wwid = status(&mut daemon)["uuid"].as_str().expect("a WWID").to_owned();
    assert!(kept(&daemon).contains(&format!("0x{OURS:016x} {wwid}\n")), "{}", kept(&daemon));
    assert_eq!(registered(&mut daemon), 2);
    assert_eq!(keys(&mut guest), [OURS]);
    assert_eq!(out(&mut guest, RESERVE, OURS, 0), "GOOD");
    let now = status(&mut daemon);
    assert_eq!((&now["prkey"], &now["prstatus"]), (&json!("0xaa"), &json!("set")));
    assert_eq!(now["prhold"], "set");
    assert_eq!(now["type"], "write exclusive, registrants only");
    assert_eq!(daemon.qmp().event("RESERVATION_HELD")["type"], now["type"]);
    // By whatever path.
    for _ in 0..4 {
        assert_eq!(write(&mut guest), "GOOD");
    }
    assert_eq!(out(&mut guest, RELEASE, OURS, 0), "GOOD");
    assert_eq!(out(&mut guest, REGISTER, OURS, 0), "GOOD");
    assert!(keys(&mut guest).is_empty());
    assert!(!kept(&daemon).contains(&wwid), "{}", kept(&daemon));
    assert_eq!(registered(&mut daemon), 0);
    // Its own doing is no news to it, by no path.
    for _ in 0..4 {
        assert_eq!(guest.attentions(HERE), NONE);
    }
}

#[test]
fn a_reservation_is_no_matter_of_one_path() {
    let (mut daemon, mut guest) = start(Setup::scsi());
    assert_eq!(out(&mut guest, REGISTER, 0, OURS), "GOOD");
    assert_eq!(out(&mut guest, RESERVE, OURS, 0), "GOOD");
    for path in [0, 1, 0] {
        daemon.cut(path, "before");
        assert_eq!(write(&mut guest), "GOOD");
        daemon.plug(path);
        daemon.reinstate(path);
        until_registered(&mut daemon, 2);
        daemon.until_usable(2);
        for _ in 0..4 {
            assert_eq!(write(&mut guest), "GOOD");
        }
        assert_eq!(guest.attentions(HERE), NONE);
    }
    assert_eq!(keys(&mut guest), [OURS]);
}

#[test]
fn a_guest_that_another_host_fences_hears_so_once_and_writes_no_more() {
    let (mut daemon, mut guest) = start(Setup::scsi());
    assert_eq!(out(&mut guest, REGISTER, 0, OURS), "GOOD");
    assert_eq!(out(&mut guest, RESERVE, OURS, 0), "GOOD");
    foreign(&mut daemon, json!({ "action": "register", "key": "0xbb" }));
    let kind = "write-exclusive-registrants-only";
    foreign(&mut daemon, json!({ "action": "preempt", "key": "0xaa", "type": kind }));
    assert_eq!(guest.attentions(HERE), ["06/2a/05"]);
    for _ in 0..6 {
        assert_eq!(write(&mut guest), "CONFLICT");
    }
    assert_eq!(guest.attentions(HERE), NONE);
    until(&mut daemon, "preempted", |now| now["prstatus"] == "unset");
    assert_eq!(daemon.qmp().event("RESERVATION_PREEMPTED")["key"], "0xaa");
    assert_eq!(keys(&mut guest), [THEIRS]);
    // No path was blamed, none is registered again, and nothing is remembered.
    daemon.until_usable(2);
    assert_eq!(registered(&mut daemon), 0);
    until_forgotten(&daemon, OURS);
}

#[test]
fn what_the_lu_refuses_the_guest_hears_and_what_makes_no_sense_goes_no_further() {
    let (mut daemon, mut guest) = start(Setup::scsi());
    assert_eq!(out(&mut guest, RESERVE, OURS, 0), "CONFLICT");
    assert_eq!(out(&mut guest, REGISTER, OURS, THEIRS), "CONFLICT");
    assert_eq!(out(&mut guest, REGISTER_AND_MOVE, OURS, THEIRS), "05/24/00");
    let short = [0x5f, REGISTER, KIND, 0, 0, 0, 0, 0, 23, 0];
    assert_eq!(guest.run(&Task::new(&short).writing(&[0; 23])).to_string(), "05/1a/00");
    assert_eq!(kept(&daemon), "");
    daemon.until_usable(2);
    assert_eq!(guest.attentions(HERE), NONE);
}

/// The simulated array's registrations outlive the daemon as a real one's do.
#[test]
fn a_daemon_that_is_started_anew_has_the_guests_key_and_its_reservation() {
    let (mut daemon, mut guest) = start(Setup::scsi());
    assert_eq!(out(&mut guest, REGISTER, 0, OURS), "GOOD");
    assert_eq!(out(&mut guest, RESERVE, OURS, 0), "GOOD");
    daemon.kill();
    drop(guest);
    daemon.run();
    until_registered(&mut daemon, 2);
    let now = status(&mut daemon);
    assert_eq!((&now["prkey"], &now["prhold"]), (&json!("0xaa"), &json!("set")));
    let mut guest = ScsiGuest::connect(&daemon, 1);
    assert_eq!(guest.attentions(HERE), NONE);
    assert_eq!(keys(&mut guest), [OURS]);
    for _ in 0..4 {
        assert_eq!(write(&mut guest), "GOOD");
    }
    assert_eq!(out(&mut guest, RELEASE, OURS, 0), "GOOD");
}

#[test]
fn a_daemon_that_is_started_anew_believes_the_array_and_forgets_what_is_no_more() {
    let (mut daemon, mut guest) = start(Setup::scsi());
    assert_eq!(out(&mut guest, REGISTER, 0, OURS), "GOOD");
    assert!(kept(&daemon).contains("00aa"));
    daemon.kill();
    drop(guest);
    // Somebody has removed the key meanwhile.
    let registrations = daemon.file("disk.img.pr");
    fs::remove_file(&registrations).expect("kept by the simulated array");
    daemon.run();
    until(&mut daemon, "asked", |now| now["prstatus"] == "unset");
    daemon.until_usable(2);
    until_forgotten(&daemon, OURS);
    let mut guest = ScsiGuest::connect(&daemon, 1);
    guest.attentions(HERE);
    assert_eq!(write(&mut guest), "GOOD");
    assert_eq!(out(&mut guest, REGISTER, 0, THEIRS), "GOOD");
    assert_eq!(registered(&mut daemon), 2);
}

#[test]
fn a_key_that_cannot_be_kept_is_told_and_the_guest_served() {
    let (mut daemon, mut guest) = start(Setup::scsi());
    fs::write(daemon.file("state"), "a file in the place of the directory").expect("a file");
    assert_eq!(out(&mut guest, REGISTER, 0, OURS), "GOOD");
    let why = daemon.qmp().event("RESERVATION_NOT_SAVED");
    assert!(why["reason"].as_str().is_some_and(|why| why.contains("state")), "{why}");
    assert_eq!(status(&mut daemon)["saved"], false);
    fs::remove_file(daemon.file("state")).expect("gone");
    until(&mut daemon, "saved", |now| now["saved"] == true);
    daemon.qmp().event("RESERVATION_SAVED");
    assert!(kept(&daemon).contains("00aa"));
}

#[test]
fn an_administrators_key_counts_if_the_array_has_it() {
    let (mut daemon, mut guest) = start(Setup::scsi());
    let set = |daemon: &mut Daemon, key: &str| {
        daemon.qmp().try_execute("map-set-key", &json!({ "key": key }))
    };
    assert!(set(&mut daemon, "nonsense").unwrap_err()["desc"].as_str().is_some());
    let now = set(&mut daemon, "0xaa").expect("asked");
    assert_eq!((&now["prstatus"], &now["prkey"]), (&json!("unset"), &json!(null)));
    assert!(!kept(&daemon).contains("00aa"), "{}", kept(&daemon));
    assert_eq!(out(&mut guest, REGISTER, 0, OURS), "GOOD");
    let now = set(&mut daemon, "0xaa").expect("asked");
    assert_eq!((&now["prstatus"], &now["prkey"]), (&json!("set"), &json!("0xaa")));
    assert_eq!(now["all_tg_pt"], false);
    until_registered(&mut daemon, 2);
    daemon
        .qmp()
        .execute("map-set", &json!({ "map": now["map"], "keyword": "all_tg_pt", "value": "yes" }));
    assert_eq!(set(&mut daemon, "0xaa").expect("asked")["all_tg_pt"], true);
}

#[test]
fn what_the_guest_does_itself_no_path_of_its_own_tells_it() {
    for attentions_first in [false, true] {
        let (mut daemon, mut guest) = start(Setup { paths: 4, ..Setup::scsi() });
        daemon.until_usable(4);
        daemon
            .fault_of("sim0", json!({ "fault": "attentions-first", "enabled": attentions_first }));
        let deeds: [&[(u8, u64, u64)]; 4] = [
            &[(REGISTER, 0, OURS), (RESERVE, OURS, 0), (RELEASE, OURS, 0)],
            // The holder goes.
            &[(RESERVE, OURS, 0), (REGISTER, OURS, 0)],
            &[(REGISTER, 0, OURS), (RESERVE, OURS, 0), (PREEMPT, OURS, THEIRS)],
            &[(CLEAR, OURS, 0)],
        ];
        for deed in deeds {
            for &(action, key, action_key) in deed {
                if action == PREEMPT {
                    foreign(&mut daemon, json!({ "action": "register", "key": "0xbb" }));
                }
                assert_eq!(out(&mut guest, action, key, action_key), "GOOD", "{action}");
                for _ in 0..8 {
                    assert_eq!(guest.attentions(HERE), NONE, "{action}");
                }
            }
        }
        assert!(keys(&mut guest).is_empty());
        // The same by another host is news, at once and once.
        assert_eq!(out(&mut guest, REGISTER, 0, OURS), "GOOD");
        foreign(&mut daemon, json!({ "action": "register", "key": "0xbb" }));
        foreign(&mut daemon, json!({ "action": "clear" }));
        let mut heard = guest.attentions(HERE);
        for _ in 0..8 {
            heard.extend(guest.attentions(HERE));
        }
        assert_eq!(heard, ["06/2a/03"]);
    }
}

/// The array has the reservation for the path that is down: it is moved to
/// another one, with the guest's I/O held meanwhile, and released there.
#[test]
fn a_reservation_is_released_though_the_path_that_holds_it_is_down() {
    for down in [0, 1] {
        let (mut daemon, mut guest) = start(Setup::scsi());
        assert_eq!(out(&mut guest, REGISTER, 0, OURS), "GOOD");
        assert_eq!(out(&mut guest, RESERVE, OURS, 0), "GOOD");
        daemon.cut(down, "before");
        for _ in 0..4 {
            assert_eq!(write(&mut guest), "GOOD");
        }
        assert_eq!(out(&mut guest, RELEASE, OURS, 0), "GOOD");
        assert!(read(&mut guest, 1).is_empty(), "READ RESERVATION");
        assert_eq!(write(&mut guest), "GOOD");
        daemon.plug(down);
        daemon.reinstate(down);
        until_registered(&mut daemon, 2);
        assert_eq!(out(&mut guest, RESERVE, OURS, 0), "GOOD");
        for _ in 0..4 {
            assert_eq!(write(&mut guest), "GOOD");
        }
        assert_eq!(guest.attentions(HERE), NONE);
        assert_eq!(keys(&mut guest), [OURS]);
    }
}

/// Of a vhost-user-blk guest, which knows no reservations.
#[test]
fn another_hosts_reservation_is_an_io_error_and_an_event_and_no_paths_failure() {
    let mut daemon = Daemon::start(&Setup::default());
    let mut front_end = FrontEnd::connect(&daemon.socket(), Shape::default());
    daemon.until_usable(2);
    let mut write = || front_end.queue(0).run(RequestType::Out, 8, Payload::Bytes(&[1; 512]), 0);
    assert_eq!(write().status, BlkStatus::Ok as u8);
    foreign(&mut daemon, json!({ "action": "register", "key": "0xbb" }));
    foreign(&mut daemon, json!({ "action": "reserve", "type": "write-exclusive" }));
    for _ in 0..20 {
        assert_eq!(write().status, BlkStatus::IoErr as u8);
    }
    let event = daemon.qmp().event("RESERVATION_CONFLICT");
    assert_eq!((&event["lba"], &event["command"]), (&json!(8), &json!("WRITE")));
    daemon.until_said("another host has reserved");
    let told = daemon.log().matches("another host has reserved").count();
    assert!((1..=10).contains(&told), "told {told} times");
    assert_eq!(daemon.usable(), 2);
    foreign(&mut daemon, json!({ "action": "release" }));
    assert_eq!(write().status, BlkStatus::Ok as u8);
    let refused = daemon.qmp().try_execute("map-set-key", &json!({ "key": "0xaa" }));
    assert!(refused.unwrap_err()["desc"].as_str().is_some_and(|why| why.contains("scsi")));
}

#[test]
fn a_key_is_forgotten_on_request_and_the_array_asked_again() {
    let (mut daemon, mut guest) = start(Setup::scsi());
    let ask = |daemon: &mut Daemon, what: &str| daemon.qmp().try_execute(what, &json!({}));
    let why = ask(&mut daemon, "map-ask-reservations").unwrap_err();
    assert!(why["desc"].as_str().is_some_and(|why| why.contains("setprkey")), "{why}");
    assert_eq!(out(&mut guest, REGISTER, 0, OURS), "GOOD");
    assert_eq!(out(&mut guest, RESERVE, OURS, 0), "GOOD");
    let now = ask(&mut daemon, "map-ask-reservations").expect("asked");
    assert_eq!((&now["prstatus"], &now["prhold"]), (&json!("set"), &json!("set")));
    let now = ask(&mut daemon, "map-unset-key").expect("forgotten");
    assert_eq!((&now["prstatus"], &now["prkey"]), (&json!("unset"), &json!(null)));
    assert!(!kept(&daemon).contains("00aa"), "{}", kept(&daemon));
    daemon.qmp().event("RESERVATION_FORGOTTEN");
    assert_eq!(keys(&mut guest), [OURS, OURS], "the array has them, and they are nobody's");
    assert_eq!(write(&mut guest), "GOOD");
    let now = daemon.qmp().execute("map-set-key", &json!({ "key": "0xaa" }));
    assert_eq!((&now["prstatus"], &now["prhold"]), (&json!("set"), &json!("set")));
    until_registered(&mut daemon, 2);
    assert_eq!(keys(&mut guest), [OURS]);
    assert!(kept(&daemon).contains("00aa"));
}

#[test]
fn the_end_does_not_lose_what_could_not_be_written_so_far() {
    let (mut daemon, mut guest) = start(Setup::scsi());
    fs::write(daemon.file("state"), "a file in the place of the directory").expect("a file");
    assert_eq!(out(&mut guest, REGISTER, 0, OURS), "GOOD");
    daemon.qmp().event("RESERVATION_NOT_SAVED");
    fs::remove_file(daemon.file("state")).expect("gone");
    let (status, took) = daemon.terminate();
    assert!(status.success());
    assert!(kept(&daemon).contains("00aa"), "after {took:?}: {}", kept(&daemon));
}

#[test]
fn what_the_array_has_lost_the_guest_replaces_and_every_path_follows() {
    let (mut daemon, mut guest) = start(Setup::scsi());
    assert_eq!(out(&mut guest, REPLACE_LOST, 0, OURS), "05/24/00", "nothing is lost");
    daemon.fault_of("sim0", json!({ "fault": "lose-reservations" }));
    assert_eq!(out(&mut guest, REPLACE_LOST, 0, OURS), "GOOD");
    until_registered(&mut daemon, 2);
    let now = status(&mut daemon);
    assert_eq!((&now["prkey"], &now["prhold"]), (&json!("0xaa"), &json!("set")));
    assert_eq!(keys(&mut guest), [OURS]);
    for _ in 0..4 {
        assert_eq!(write(&mut guest), "GOOD");
    }
    let capabilities = [0x5e, 2, 0, 0, 0, 0, 0, 0, 8, 0];
    let answer = guest.run(&Task::new(&capabilities).reading(8));
    assert_eq!(answer.transferred()[2], 0x81, "RLR_C and PTPL_C; of ports nothing");
}

/// One after the other, always (docs/adr/0006).
#[test]
fn eight_paths_are_registered_in_turn_so_that_no_array_stalls() {
    let (mut daemon, mut guest) = start(Setup { paths: 8, ..Setup::scsi() });
    daemon.fault_of("sim0", json!({ "fault": "register-stall", "milliseconds": 5000 }));
    (0..8).for_each(|path| daemon.delay(path, 1));
    let began = Instant::now();
    assert_eq!(out(&mut guest, REGISTER, 0, OURS), "GOOD");
    let took = began.elapsed();
    println!("8 paths, 1 ms a command: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(registered(&mut daemon), 8);
    assert_eq!(keys(&mut guest), [OURS]);
}

/// `all_tg_pt`, and arrays that have one registration for each port of the host.
#[test]
fn an_array_that_registers_an_initiator_once_is_one_nexus_too() {
    for (per_initiator, option) in
        [(true, "all_tg_pt=yes"), (false, "all_tg_pt=yes"), (true, "all_tg_pt=no")]
    {
        let (mut daemon, mut guest) = start(Setup::scsi().with(&["--set", option]));
        daemon.fault_of("sim0", json!({ "fault": "per-initiator", "enabled": per_initiator }));
        assert_eq!(out(&mut guest, REGISTER, 0, OURS), "GOOD");
        assert_eq!(out(&mut guest, RESERVE, OURS, 0), "GOOD");
        until_registered(&mut daemon, 2);
        let full = read(&mut guest, 3);
        assert_eq!(full.len(), 48, "READ FULL STATUS: one registration");
        assert_eq!(full[12], if per_initiator { 0x03 } else { 0x01 }, "ALL_TG_PT, R_HOLDER");
        daemon.cut(0, "before");
        for _ in 0..4 {
            assert_eq!(write(&mut guest), "GOOD");
        }
        daemon.plug(0);
        daemon.reinstate(0);
        until_registered(&mut daemon, 2);
        assert_eq!(out(&mut guest, REGISTER, OURS, 0), "GOOD");
        assert!(keys(&mut guest).is_empty(), "{option}");
    }
}
