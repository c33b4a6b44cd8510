//! Every SCSI command that touches blocks under random cuts of all modes,
//! hangs and delays: no error of a path reaches the guest, every block holds
//! what its shadow says, and what is not idempotent is done once or the guest
//! is told that nobody knows.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::harness::random::Random;
use crate::harness::scsi_guest::ScsiGuest;
use crate::harness::scsi_load::{ALL, ScsiLoad};
use crate::harness::sim_daemon::{CUT_MODES, Daemon, Setup};

/// Seeds, and threads that share them: they mostly wait.
const SCHEDULES: u64 = 60;
const THREADS: u64 = 3;
/// Schedules that one daemon goes through.
const PER_DAEMON: u64 = 10;
const SECTORS: u64 = 2048;

const POLICIES: [&[&str]; 3] = [
    &["--path-grouping-policy", "failover"],
    &["--path-grouping-policy", "multibus", "--path-selector", "round-robin 0"],
    &["--path-grouping-policy", "multibus", "--path-selector", "service-time 0"],
];

/// 50 to 100 ms in which one path (seldom both) is broken and mended.
fn schedule(seed: u64, daemon: &mut Daemon, guest: &mut ScsiGuest, load: &mut ScsiLoad) {
    let mut random = Random::new(seed);
    let unlucky = usize::try_from(random.below(2)).expect("a path");
    let both = random.one_in(8);
    for path in 0..2 {
        if random.one_in(2) {
            daemon.delay(path, random.below(4));
        }
    }
    for _ in 0..2 + random.below(5) {
        load.run(guest.all_requests(), Duration::from_millis(5 + random.below(15)));
        let path = if both && random.one_in(2) { 1 - unlucky } else { unlucky };
        match random.below(20) {
            0..10 => daemon.cut(path, random.pick(&CUT_MODES)),
            10..12 => daemon.delay(path, random.below(6)),
            12 if load.only_quick => daemon.hang(path),
            13 => daemon.sense(path, "b/00/00", 3),
            _ => {
                daemon.plug(path);
                daemon.reinstate(path);
            }
        }
    }
    load.run(guest.all_requests(), Duration::from_millis(10));
    for path in 0..2 {
        daemon.plug(path);
        daemon.reinstate(path);
    }
    load.settle(guest.all_requests());
    assert!(load.failed.is_empty(), "seed {seed}: {:?}", load.failed);
    assert!(load.attentions.is_empty(), "seed {seed}: {:?}", load.attentions);
}

fn run_batch(first: u64) -> ScsiLoad {
    let policy = POLICIES[usize::try_from(first / PER_DAEMON).expect("small") % POLICIES.len()];
    let setup = Setup { size: 2 << 20, ..Setup::scsi() }
        .with(&["--command-timeout", "1", "--checker-timeout", "1", "--polling-interval", "1"])
        .with(policy);
    let mut daemon = Daemon::start(&setup);
    let mut shape = ScsiGuest::shape(2);
    shape.manner.depth = 16;
    shape.manner.slot_bytes = 32 << 10;
    shape.manner.event_idx = first % 20 < 10;
    let mut guest = ScsiGuest::with(&daemon.socket(), shape);
    let mut load = ScsiLoad::new(first, SECTORS);
    load.only_quick = first % 20 == 0;
    for seed in first..first + PER_DAEMON {
        schedule(seed, &mut daemon, &mut guest, &mut load);
    }
    load.read_back(guest.requests(0));
    load
}

#[test]
fn every_command_under_random_cuts_is_done_once_or_its_fate_is_unknown() {
    let next = AtomicU64::new(0);
    let all: Mutex<Vec<ScsiLoad>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let batch = next.fetch_add(PER_DAEMON, Ordering::Relaxed);
                    if batch >= SCHEDULES {
                        return;
                    }
                    let load = run_batch(batch);
                    all.lock().expect("lock").push(load);
                }
            });
        }
    });
    let all = all.lock().expect("lock");
    assert_eq!(all.len() as u64, SCHEDULES / PER_DAEMON, "a batch failed");
    for opcode in ALL {
        let good: u64 = all.iter().filter_map(|load| load.good.get(&opcode)).sum();
        assert!(good > 10, "{opcode:02x}: {good}");
    }
    let unknown: u64 = all.iter().map(|load| load.unknown).sum();
    let total: u64 = all.iter().map(ScsiLoad::total).sum();
    println!("{total} commands; {unknown} COMPARE AND WRITEs of unknown fate");
    assert!(unknown > 0, "cuts met COMPARE AND WRITEs under way");
}
