//! With a guest on the disk: what it sees of errors is told to administrators,
//! and the daemon ends in order whatever is under way.

use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VringConfigData};
use vhost_mpath::virtio::blk::RequestHeader;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::harness::daemon::{AT_ONCE, Daemon, Scratch, two_paths, until};
use crate::harness::driver_ring::DriverRing;
use crate::harness::guest_memory::{memory_table, shared_memory};

const RING_SIZE: u16 = 16;
const HEADER: u64 = 0x8_0000;
const STATUS: u64 = 0x8_2000;
const DATA: u64 = 0x9_0000;
const IN: u32 = 0;

/// A guest with one ring.
struct Guest {
    /// The connection; ends when dropped.
    _front_end: Frontend,
    _memory: GuestMemoryMmap,
    ring: DriverRing,
}

impl Guest {
    fn attach(daemon: &Daemon) -> Guest {
        let mut front_end = Frontend::connect(&daemon.socket, 1).expect("connect");
        let memory = shared_memory(&[1 << 20]);
        front_end.set_owner().expect("SET_OWNER");
        let features = front_end.get_features().expect("GET_FEATURES");
        let protocol = front_end.get_protocol_features().expect("GET_PROTOCOL_FEATURES");
        front_end.set_protocol_features(protocol).expect("SET_PROTOCOL_FEATURES");
        front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        front_end.set_features(features).expect("SET_FEATURES");
        front_end.set_mem_table(&memory_table(&memory)).expect("SET_MEM_TABLE");
        let ring = DriverRing::new(&memory, 0, RING_SIZE);
        let address = |guest: u64| {
            memory.get_host_address(GuestAddress(guest)).expect("mapped").addr() as u64
        };
        let config = VringConfigData {
            queue_max_size: RING_SIZE,
            queue_size: RING_SIZE,
            flags: 0,
            desc_table_addr: address(ring.descriptors),
            used_ring_addr: address(ring.used),
            avail_ring_addr: address(ring.available),
            log_addr: None,
        };
        front_end.set_vring_num(0, RING_SIZE).expect("SET_VRING_NUM");
        front_end.set_vring_addr(0, &config).expect("SET_VRING_ADDR");
        front_end.set_vring_base(0, 0).expect("SET_VRING_BASE");
        front_end.set_vring_call(0, &ring.call).expect("SET_VRING_CALL");
        front_end.set_vring_kick(0, &ring.kick).expect("SET_VRING_KICK");
        front_end.set_vring_enable(0, true).expect("SET_VRING_ENABLE");
        Guest { _front_end: front_end, _memory: memory, ring }
    }

    fn prepare(&self) -> [(u64, u32, bool); 3] {
        self.ring.write(HEADER, &RequestHeader { kind: IN, sector: 8 }.encode());
        self.ring.write(STATUS, &[0xee]);
        [(HEADER, 16, false), (DATA, 4096, true), (STATUS, 1, true)]
    }

    /// Reads 4 KiB; the status byte.
    fn read(&mut self) -> u8 {
        let chain = self.prepare();
        self.ring.submit(&chain, false);
        self.status()
    }

    /// Reads 4 KiB, and does not wait for it.
    fn begin_read(&mut self) {
        let chain = self.prepare();
        self.ring.offer(&chain, false);
    }

    fn status(&self) -> u8 {
        let mut status = [0];
        self.ring.read(STATUS, &mut status);
        status[0]
    }
}

fn start(scratch: &Scratch, more: &[&str]) -> Daemon {
    let paths = two_paths(scratch);
    let options: Vec<&str> = paths.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Daemon::start(scratch, &options)
}

#[test]
fn an_error_the_guest_sees_is_told_with_its_sense() {
    let scratch = Scratch::new("ending-error");
    let daemon = start(&scratch, &[]);
    let mut events = daemon.qmp();
    let mut guest = Guest::attach(&daemon);
    assert_eq!(guest.read(), 0);
    for path in ["sim0", "sim1"] {
        daemon.ctl(&format!("sim {path} sense 03/11/00 0"));
    }
    assert_eq!(guest.read(), 1);
    let event = events.event("GUEST_IO_ERROR");
    let data = &event["data"];
    assert_eq!((&data["sense"], &data["command"]), (&"03/11/00".into(), &"READ".into()), "{event}");
    assert_eq!((&data["lba"], &data["blocks"]), (&8.into(), &8.into()));
    assert!(data["rule"] == "medium" && data["path"].is_string(), "{event}");
    daemon.until_said("Unrecovered read error");
    // No path's fault.
    assert!(daemon.ctl("show status").contains("(2 usable)"));
}

#[test]
fn a_failing_guest_does_not_fill_the_log() {
    let scratch = Scratch::new("ending-flood");
    let daemon = start(&scratch, &[]);
    let mut guest = Guest::attach(&daemon);
    for path in ["sim0", "sim1"] {
        daemon.ctl(&format!("sim {path} sense 03/11/00 0"));
    }
    (0..200).for_each(|_| assert_eq!(guest.read(), 1));
    daemon.until_said("the guest sees an error");
    let told = daemon.log().matches("the guest sees an error").count();
    assert!((1..=20).contains(&told), "{told} lines");
}

#[test]
fn a_path_is_lost_without_the_guest_noticing_and_counted() {
    let scratch = Scratch::new("ending-failover");
    let daemon = start(&scratch, &[]);
    let mut events = daemon.qmp();
    let mut guest = Guest::attach(&daemon);
    events.event("FRONT_END_CONNECTED");
    assert_eq!(guest.read(), 0);
    daemon.ctl("sim sim0 cut");
    assert_eq!(guest.read(), 0);
    let failed = events.event("PATH_FAILED");
    let cause = &failed["data"]["cause"];
    assert_eq!((&cause["kind"], &cause["host"]), (&"io".into(), &"DID_NO_CONNECT".into()));
    assert_eq!(cause["rule"], "host-no-connect");
    let paths: serde_json::Value = serde_json::from_str(&daemon.ctl("show paths --json")).unwrap();
    assert_eq!((&paths[0]["ios"], &paths[1]["ios"]), (&2.into(), &1.into()), "{paths:#}");
    assert_eq!(paths[0]["failures"], 1);
    assert!(paths[0]["last_cause"].as_str().is_some_and(|c| c.contains("DID_NO_CONNECT")));
    drop(guest);
    assert_eq!(events.event("FRONT_END_DISCONNECTED")["data"]["reason"], "closed by the front-end");
}

#[test]
fn sigterm_does_not_wait_for_requests_that_are_held() {
    let scratch = Scratch::new("ending-held");
    let mut daemon = start(&scratch, &[]);
    let mut guest = Guest::attach(&daemon);
    assert_eq!(guest.read(), 0);
    daemon.ctl("sim sim0 cut");
    daemon.ctl("sim sim1 cut");
    let mut events = daemon.qmp();
    guest.begin_read();
    assert_eq!(events.event("NO_PATH")["data"]["held"], true);
    daemon.terminate();
    let (code, took) = daemon.wait();
    assert_eq!(code, Some(0), "{}", daemon.log());
    assert!(took < AT_ONCE, "{took:?}");
    assert_eq!(guest.status(), 0xee, "a held request is left, not failed");
}

#[test]
fn sigterm_awaits_what_the_kernel_has() {
    let scratch = Scratch::new("ending-kernel");
    let mut daemon = start(&scratch, &["--command-timeout", "1", "--suspect-timeout", "0.2"]);
    let mut guest = Guest::attach(&daemon);
    daemon.ctl("sim sim0 hang");
    daemon.ctl("sim sim1 hang");
    guest.begin_read();
    until("the read is out", || daemon.ctl("show paths --json").contains("has been out"));
    daemon.terminate();
    let (code, took) = daemon.wait();
    assert_eq!(code, Some(0), "{}", daemon.log());
    assert!(took > Duration::from_millis(200), "the command was not awaited: {took:?}");
}

#[test]
fn a_second_sigterm_leaves_at_once_and_says_what_is_out() {
    let scratch = Scratch::new("ending-twice");
    let mut daemon = start(&scratch, &["--suspect-timeout", "0.2"]);
    let mut guest = Guest::attach(&daemon);
    daemon.ctl("sim sim0 hang");
    daemon.ctl("sim sim1 hang");
    guest.begin_read();
    until("the read is out", || daemon.ctl("show paths --json").contains("has been out"));
    daemon.terminate();
    until("it is stopping", || daemon.ctl("show status").contains("daemon: stopping"));
    // timeout(1) and service managers signal a process and then its group: one
    // wish to end, told twice.
    daemon.terminate();
    std::thread::sleep(Duration::from_millis(600));
    assert!(daemon.is_running(), "{}", daemon.log());
    daemon.terminate();
    let (code, took) = daemon.wait();
    assert_eq!(code, Some(1), "{}", daemon.log());
    assert!(took < AT_ONCE, "{took:?}");
    let log = daemon.log();
    assert!(log.contains("second signal") && log.contains("sim0"), "{log}");
}

#[test]
fn an_inherited_connection_is_served_and_its_end_is_the_end() {
    let scratch = Scratch::new("ending-fd");
    let image = scratch.file("lu.img", 1 << 20);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let script = "exec 3<&0 </dev/null; exec \"$0\" --fd 3 --path \"$1\"";
    let program = env!("CARGO_BIN_EXE_vhost-mpath");
    let mut child = Command::new("sh")
        .args(["-c", script, program, &image])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let front_end = Frontend::from_stream(ours, 1);
    front_end.set_owner().expect("SET_OWNER");
    assert_ne!(front_end.get_features().expect("GET_FEATURES"), 0);
    drop(front_end);
    let mut code = None;
    until("the daemon ends", || {
        code = child.try_wait().unwrap().map(|status| status.code());
        code.is_some()
    });
    assert_eq!(code, Some(Some(0)));
}
