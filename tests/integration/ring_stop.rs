//! Rings stopped (GET_VRING_BASE) and guests rebooted while paths are gone or
//! hang: bounded, and nothing is answered that did not happen.

use std::time::{Duration, Instant};

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_mpath::virtio::blk::{BlkStatus, RequestType};

use crate::harness::blk_queue::{PATIENCE, Payload};
use crate::harness::daemon::{AT_ONCE, until};
use crate::harness::front_end::{FrontEnd, Shape};
use crate::harness::sim_daemon::{Daemon, Setup};

const OK: u8 = BlkStatus::Ok as u8;
const IOERR: u8 = BlkStatus::IoErr as u8;
/// `--command-timeout` of these daemons, in seconds.
const COMMAND_TIMEOUT: u64 = 3;
/// Something in the kernel: its timeout, and a slow machine.
const AFTER_TIMEOUT: Duration = Duration::from_secs(COMMAND_TIMEOUT + 3);

fn daemon() -> Daemon {
    let setup = Setup { queues: 2, ..Setup::default() };
    Daemon::start(&setup.with(&["--command-timeout", "2", "--checker-timeout", "2"]))
}

fn connect(daemon: &Daemon, without_protocol: Protocol) -> FrontEnd {
    let shape = Shape { queues: 2, without_protocol, ..Shape::default() };
    FrontEnd::connect(&daemon.socket(), shape)
}

/// Ten writes on each queue.
fn submit(front_end: &mut FrontEnd, fill: u8) {
    let data = vec![fill; 4096];
    for (index, queue) in front_end.queues.iter_mut().enumerate() {
        for n in 0..10 {
            let sector = (index as u64 * 10 + n) * 8;
            queue.submit(RequestType::Out, sector, Payload::Bytes(&data), 0).expect("room");
        }
        queue.kick();
    }
    // On a loaded machine the daemon may not even have been woken yet.
    until("the daemon pops the requests", || front_end.has_popped(10));
    std::thread::sleep(Duration::from_millis(100));
}

fn first_byte(front_end: &mut FrontEnd, sector: u64) -> u8 {
    let queue = front_end.queue(0);
    let done = queue.run(RequestType::In, sector, Payload::None, 512);
    assert_eq!(done.status, OK);
    queue.data(&done)[0]
}

fn stop_all(front_end: &mut FrontEnd) -> (Vec<u16>, Duration) {
    let begun = Instant::now();
    let bases = (0..2).map(|index| front_end.stop_ring(index)).collect();
    let took = begun.elapsed();
    println!("stop: {took:?}");
    (bases, took)
}

#[test]
fn stopping_with_all_paths_cut_fails_what_was_held() {
    let mut daemon = daemon();
    let mut front_end = connect(&daemon, Protocol::GET_VRING_BASE_INFLIGHT);
    daemon.cut_all();
    submit(&mut front_end, 1);
    let (bases, took) = stop_all(&mut front_end);
    assert!(took < AT_ONCE, "{took:?}");
    assert_eq!(bases, [10, 10]);
    for queue in &mut front_end.queues {
        let done = queue.drain(Duration::from_millis(1));
        assert!(done.iter().all(|d| d.status == IOERR), "{done:?}");
    }
    daemon.plug_all();
    for (index, base) in (0..).zip(bases) {
        front_end.start_ring(index, base);
    }
    assert_eq!(first_byte(&mut front_end, 0), 0, "what failed was not done");
}

#[test]
fn stopping_with_get_vring_base_inflight_leaves_what_was_held_in_the_area() {
    let mut daemon = daemon();
    let mut front_end = connect(&daemon, Protocol::empty());
    assert!(front_end.has(Protocol::GET_VRING_BASE_INFLIGHT));
    daemon.cut_all();
    submit(&mut front_end, 2);
    let (bases, took) = stop_all(&mut front_end);
    assert!(took < AT_ONCE, "{took:?}");
    assert!(front_end.queues.iter_mut().all(|q| q.poll().is_none()), "nothing is answered");
    for (index, base) in (0..).zip(bases) {
        front_end.start_ring(index, base);
    }
    daemon.plug_all();
    for queue in &mut front_end.queues {
        let done = queue.drain(PATIENCE);
        assert!(done.iter().all(|d| d.status == OK), "{done:?}");
    }
    assert_eq!(first_byte(&mut front_end, 19 * 8), 2);
}

#[test]
fn stopping_with_one_path_hung_waits_for_the_kernel_and_no_longer() {
    for without in [Protocol::empty(), Protocol::GET_VRING_BASE_INFLIGHT] {
        let mut daemon = daemon();
        let mut front_end = connect(&daemon, without);
        daemon.hang(0);
        submit(&mut front_end, 3);
        let (bases, took) = stop_all(&mut front_end);
        assert!(took < AFTER_TIMEOUT, "{took:?}");
        // Either finished over the other path, or left for the next start.
        for queue in &mut front_end.queues {
            while let Some(done) = queue.poll() {
                assert_eq!(done.status, OK);
            }
        }
        let left: usize = front_end.queues.iter().map(|q| q.outstanding()).sum();
        if without.is_empty() {
            assert!(left > 0, "suspended: they are not sent again");
        } else {
            assert_eq!(left, 0, "finished");
        }
        for (index, base) in (0..).zip(bases) {
            front_end.start_ring(index, base);
        }
        for queue in &mut front_end.queues {
            let done = queue.drain(PATIENCE);
            assert!(done.iter().all(|d| d.status == OK), "{done:?}");
        }
        assert_eq!(first_byte(&mut front_end, 0), 3);
    }
}

/// A guest's reset: rings stopped, forgotten, and set up from nothing.
fn reboot(break_paths: impl Fn(&mut Daemon), bound: Duration) {
    for without in [Protocol::empty(), Protocol::GET_VRING_BASE_INFLIGHT, Protocol::all()] {
        let without = if without == Protocol::all() {
            Protocol::INFLIGHT_SHMFD | Protocol::GET_VRING_BASE_INFLIGHT
        } else {
            without
        };
        let mut daemon = daemon();
        let mut front_end = connect(&daemon, without);
        break_paths(&mut daemon);
        submit(&mut front_end, 4);
        let begun = Instant::now();
        front_end.reboot();
        let took = begun.elapsed();
        println!("reboot: {took:?} without {without:?}");
        assert!(took < bound, "{took:?} without {without:?}");
        daemon.plug_all();
        submit(&mut front_end, 5);
        for queue in &mut front_end.queues {
            let done = queue.drain(PATIENCE);
            assert_eq!(done.len(), 10);
            assert!(done.iter().all(|d| d.status == OK), "{done:?}");
        }
        for sector in 0..20 {
            assert_eq!(first_byte(&mut front_end, sector * 8), 5, "nothing of before came late");
        }
    }
}

#[test]
fn a_guest_reboots_at_once_with_all_paths_cut() {
    reboot(Daemon::cut_all, AT_ONCE);
}

#[test]
fn a_guest_reboots_with_one_path_hung() {
    reboot(|daemon| daemon.hang(0), AFTER_TIMEOUT);
}

/// Nobody knows that the second path hangs before it was tried: one timeout
/// each.
#[test]
fn a_guest_reboots_with_all_paths_hung() {
    let all = |daemon: &mut Daemon| {
        daemon.hang(0);
        daemon.hang(1);
    };
    // Each ring's stop takes at most one command timeout; they are stopped one
    // after the other, and the second ring's commands move on meanwhile.
    reboot(all, Duration::from_secs(2 * COMMAND_TIMEOUT + 3));
}

#[test]
fn sigterm_with_all_paths_cut_ends_at_once() {
    let mut daemon = daemon();
    let mut front_end = connect(&daemon, Protocol::empty());
    daemon.cut_all();
    submit(&mut front_end, 6);
    let (status, took) = daemon.terminate();
    println!("SIGTERM: {took:?}");
    assert!(status.success(), "{status}");
    assert!(took < AT_ONCE, "{took:?}");
}

/// With commands in the kernel the process waits for them, and no longer.
#[test]
fn sigterm_with_a_path_hung_waits_for_the_kernel() {
    let mut daemon = daemon();
    let mut front_end = connect(&daemon, Protocol::empty());
    daemon.hang(0);
    submit(&mut front_end, 7);
    let (_, took) = daemon.terminate();
    println!("SIGTERM with a path hung: {took:?}");
    assert!(took < AFTER_TIMEOUT, "{took:?}");
}

#[test]
fn no_path_retry_fail_answers_at_once_and_a_number_after_its_checks() {
    for (retry, least, most) in [("fail", 0, 2), ("2", 1, 6)] {
        let setup = Setup::default().with(&["--no-path-retry", retry, "--polling-interval", "1"]);
        let mut daemon = Daemon::start(&setup);
        let mut front_end = FrontEnd::connect(&daemon.socket(), Shape::default());
        daemon.cut_all();
        let begun = Instant::now();
        let done = front_end.queue(0).run(RequestType::In, 0, Payload::None, 512);
        let took = begun.elapsed();
        assert_eq!(done.status, IOERR, "no_path_retry {retry}");
        let bounds = Duration::from_secs(least)..Duration::from_secs(most);
        assert!(bounds.contains(&took), "no_path_retry {retry}: {took:?}");
    }
}
