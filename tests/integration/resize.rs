//! A LU that grows or shrinks under a running vhost-user-blk guest: what the
//! front-end is told, what the guest is shown, what becomes of its requests.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use serde_json::json;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_mpath::virtio::blk::RequestType;

use crate::harness::blk_queue::Payload;
use crate::harness::front_end::{FrontEnd, Shape};
use crate::harness::load::{Load, Mix};
use crate::harness::sim_daemon::{Daemon, Setup, open_files};

const MIB: u64 = 1 << 20;
const SECTORS: u64 = 2 * MIB / 512;
const MIX: Mix = Mix { sectors: SECTORS, block: 1, most: 24, zeroes: true };
/// For what must come.
const SOON: Duration = Duration::from_secs(10);
/// For what must not.
const AWHILE: Duration = Duration::from_millis(100);

fn setup() -> Setup {
    Setup { size: 2 * MIB, queues: 2, ..Setup::default() }
}

fn shape() -> Shape {
    Shape { queues: 2, ..Shape::default() }
}

/// Connects as QEMU does: the configuration is read before the rings start.
fn connected(daemon: &Daemon, shape: Shape) -> FrontEnd {
    let mut front_end = FrontEnd::new(&daemon.socket(), shape);
    front_end.attach();
    assert_eq!(front_end.sectors(), SECTORS);
    front_end.start();
    front_end
}

fn resize(daemon: &mut Daemon, bytes: u64) {
    daemon.fault_of("sim0", json!({"fault": "capacity", "bytes": bytes}));
    // Who notices is the guest's next command, or this.
    daemon.qmp().execute("map-resize", &json!({}));
}

/// What the map says of itself: bytes of the LU and of the disk.
fn sizes(daemon: &mut Daemon) -> (u64, u64) {
    let maps = daemon.qmp().execute("query-maps", &json!({}));
    let map = &maps["maps"][0];
    (map["size"].as_u64().expect("a size"), map["guest_size"].as_u64().expect("a size"))
}

fn read_at(front_end: &mut FrontEnd, sector: u64) -> u8 {
    front_end.queue(0).run(RequestType::In, sector, Payload::None, 512).status
}

fn write_at(front_end: &mut FrontEnd, sector: u64) -> u8 {
    front_end.queue(0).run(RequestType::Out, sector, Payload::Bytes(&[7; 512]), 0).status
}

/// The size as it is noticed without any hint: by a command of the guest.
#[test]
fn a_disk_grows_under_load_and_its_front_end_is_told() {
    let mut daemon = Daemon::start(&setup());
    let mut front_end = connected(&daemon, shape());
    assert_eq!(read_at(&mut front_end, SECTORS), 1, "not there yet");
    let mut load = Load::new(5, MIX);
    let mut sectors = SECTORS;
    for round in 1..=3 {
        load.run(&mut front_end.queues, Duration::from_millis(20));
        daemon.fault_of("sim0", json!({"fault": "capacity", "bytes": 2 * (round + 1) * MIB}));
        load.run(&mut front_end.queues, Duration::from_millis(20));
        assert!(front_end.told_of_config(SOON), "round {round}");
        sectors += SECTORS;
        assert_eq!(front_end.sectors(), sectors);
        load.run(&mut front_end.queues, Duration::from_millis(20));
        load.settle(&mut front_end.queues);
        assert_eq!(write_at(&mut front_end, sectors - 1), 0);
        assert_eq!(read_at(&mut front_end, sectors), 1);
        let event = daemon.qmp().event("MAP_RESIZED");
        assert_eq!((&event["guest-blocks"], &event["to"]), (&json!(sectors), &json!(sectors)));
    }
    assert!(load.failed.is_empty(), "{:?}", load.failed);
    load.read_back(front_end.queue(1));
    assert!(!front_end.told_of_config(AWHILE), "it has read it");
    assert_eq!(daemon.usable(), 2);
}

#[test]
fn a_front_end_that_was_away_is_told_when_its_rings_run_again() {
    let mut daemon = Daemon::start(&setup());
    let mut front_end = connected(&daemon, shape());
    front_end.disconnect();
    resize(&mut daemon, 4 * MIB);
    daemon.qmp().event("MAP_RESIZED");
    // As QEMU does, it does not ask by itself.
    front_end.attach();
    assert!(!front_end.told_of_config(AWHILE), "there is no driver yet");
    front_end.start();
    assert!(front_end.told_of_config(SOON));
    assert_eq!(front_end.sectors(), 2 * SECTORS);
    front_end.disconnect();
    front_end.reconnect();
    assert!(!front_end.told_of_config(AWHILE), "it knows");
    assert_eq!(write_at(&mut front_end, 2 * SECTORS - 1), 0);
}

/// It does not know what its front-end knows.
#[test]
fn a_new_process_has_the_configuration_read_again() {
    let mut daemon = Daemon::start(&setup());
    let mut front_end = connected(&daemon, shape());
    front_end.disconnect();
    daemon.restart_with(&[]);
    front_end.reconnect();
    assert!(front_end.told_of_config(SOON));
    assert_eq!(front_end.sectors(), SECTORS);
}

#[test]
fn without_the_channel_the_next_look_shows_the_new_size() {
    let mut daemon = Daemon::start(&setup());
    let without_protocol = VhostUserProtocolFeatures::BACKEND_REQ;
    let mut front_end = connected(&daemon, Shape { without_protocol, ..shape() });
    resize(&mut daemon, 4 * MIB);
    daemon.qmp().event("MAP_RESIZED");
    assert_eq!(front_end.sectors(), 2 * SECTORS);
    assert_eq!(read_at(&mut front_end, 2 * SECTORS - 1), 0);
}

/// It keeps its size; what is beyond the end is for the LU to refuse, and no
/// path is blamed for it.
#[test]
fn a_shrink_is_told_and_the_guest_keeps_its_disk() {
    let mut daemon = Daemon::start(&setup());
    let mut front_end = connected(&daemon, shape());
    resize(&mut daemon, MIB);
    let event = daemon.qmp().event("MAP_RESIZED");
    assert_eq!((&event["to"], &event["guest-blocks"]), (&json!(SECTORS / 2), &json!(SECTORS)));
    assert_eq!(sizes(&mut daemon), (MIB, 2 * MIB));
    assert!(!front_end.told_of_config(AWHILE));
    assert_eq!(front_end.sectors(), SECTORS);
    daemon.until_usable(2);
    assert_eq!(write_at(&mut front_end, SECTORS / 2 - 1), 0);
    for sector in [SECTORS / 2, SECTORS - 1] {
        assert_eq!((write_at(&mut front_end, sector), read_at(&mut front_end, sector)), (1, 1));
    }
    // Half of it within: nothing of it is called written.
    let across =
        front_end.queue(0).run(RequestType::Out, SECTORS / 2 - 1, Payload::Bytes(&[9; 1024]), 0);
    assert_eq!(across.status, 1);
    assert_eq!(daemon.usable(), 2, "{}", daemon.log());
    daemon.until_said("the guest keeps its 4096 blocks");
    // A mistake that is mended is as if it had never been.
    resize(&mut daemon, 2 * MIB);
    daemon.qmp().event("MAP_RESIZED");
    assert!(!front_end.told_of_config(AWHILE), "nothing new for the guest");
    assert_eq!(write_at(&mut front_end, SECTORS - 1), 0);
    resize(&mut daemon, 3 * MIB);
    assert!(front_end.told_of_config(SOON));
    assert_eq!(sizes(&mut daemon), (3 * MIB, 3 * MIB));
}

/// The front-end's in-flight area tells the successor what the guest believes.
#[test]
fn a_shrink_while_no_daemon_runs_is_told_and_the_guest_keeps_its_disk() {
    let mut daemon = Daemon::start(&setup());
    let mut front_end = connected(&daemon, shape());
    resize(&mut daemon, 4 * MIB);
    daemon.qmp().event("MAP_RESIZED");
    assert!(front_end.told_of_config(SOON));
    front_end.disconnect();
    let image = File::options().write(true).open(daemon.file("disk.img")).expect("the image");
    image.set_len(2 * MIB).expect("smaller");
    daemon.restart_with(&[]);
    assert_eq!(sizes(&mut daemon), (2 * MIB, 2 * MIB), "it cannot know yet");
    front_end.reconnect();
    let event = daemon.qmp().event("MAP_RESIZED");
    assert_eq!((&event["from"], &event["to"]), (&json!(2 * SECTORS), &json!(SECTORS)));
    assert_eq!(sizes(&mut daemon), (2 * MIB, 4 * MIB));
    assert_eq!(front_end.sectors(), 2 * SECTORS);
    assert_eq!((write_at(&mut front_end, SECTORS - 1), write_at(&mut front_end, SECTORS)), (0, 1));
    daemon.until_said("make sure that this was meant");
}

/// One that never reads its channel, closes it, writes nonsense to it, gives
/// one after the other: the disk goes on, and nothing is left behind.
#[test]
fn a_hostile_channel_stops_nobody_and_leaks_nothing() {
    let mut daemon = Daemon::start(&setup());
    let mut front_end = connected(&daemon, shape());
    let files = open_files(daemon.pid());
    let mut load = Load::new(6, MIX);
    let mut kept = Vec::new();
    for round in 0..40 {
        match round % 4 {
            0 => kept.extend(front_end.channel.take()),
            1 => front_end.channel = None,
            2 => {
                let channel = front_end.channel.as_mut().expect("a channel");
                let _ = channel.write_all(&[0x5a; 4096]);
            }
            _ => front_end.give_channel(),
        }
        resize(&mut daemon, (3 + round) * MIB);
        daemon.qmp().event("MAP_RESIZED");
        load.run(&mut front_end.queues, Duration::from_millis(5));
        if round % 4 != 3 {
            front_end.give_channel();
        }
    }
    load.settle(&mut front_end.queues);
    assert!(load.failed.is_empty(), "{:?}", load.failed);
    assert!(front_end.told_of_config(SOON));
    assert_eq!(front_end.sectors(), 42 * MIB / 512);
    drop(kept);
    assert_eq!(open_files(daemon.pid()), files, "{}", daemon.log());
    daemon.until_said("the back-end channel is lost (the front-end sent something");
    daemon.until_said("the back-end channel is lost (the front-end closed it");
}

/// A file that the administrator made longer is noticed by the next check.
#[test]
fn a_file_that_was_made_longer_is_a_larger_disk() {
    let options = vec!["--polling-interval", "1", "--set", "max_polling_interval=1"];
    let daemon = Daemon::start(&Setup { files: true, paths: 1, options, ..setup() });
    let mut front_end = connected(&daemon, shape());
    let file = std::fs::File::options().write(true).open(daemon.image()).expect("open");
    file.set_len(3 * MIB).expect("longer");
    assert!(front_end.told_of_config(SOON));
    assert_eq!(front_end.sectors(), 3 * SECTORS / 2);
    assert_eq!(write_at(&mut front_end, 3 * SECTORS / 2 - 1), 0);
}
