//! Two hundred random schedules of cuts, hangs, delays and returns under load,
//! by both policies: no error reaches the guest, and every sector holds what
//! its shadow says.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::front_end::{FrontEnd, Shape};
use crate::harness::load::{Load, Mix};
use crate::harness::random::Random;
use crate::harness::sim_daemon::{CUT_MODES, Daemon, Setup};

/// Seeds, and threads that share them: they mostly wait.
const SCHEDULES: u64 = 200;
const THREADS: u64 = 4;
/// Schedules that one daemon goes through.
const PER_DAEMON: u64 = 10;

const MIX: Mix = Mix { sectors: 4096, block: 1, most: 32, zeroes: true };

const POLICIES: [&[&str]; 4] = [
    &["--path-grouping-policy", "failover"],
    &["--path-grouping-policy", "multibus", "--path-selector", "round-robin 0"],
    &["--path-grouping-policy", "multibus", "--path-selector", "service-time 0"],
    &["--path-grouping-policy", "failover"],
];

/// One schedule: 50 to 100 ms in which one path (seldom both) is broken and
/// mended a few times.
fn schedule(seed: u64, daemon: &mut Daemon, front_end: &mut FrontEnd, load: &mut Load) {
    let mut random = Random::new(seed);
    let unlucky = usize::try_from(random.below(2)).expect("a path");
    let both = random.one_in(8);
    // Commands that take their time are under way when the cut comes.
    for path in 0..2 {
        if random.one_in(2) {
            daemon.delay(path, random.below(4));
        }
    }
    for _ in 0..2 + random.below(5) {
        load.run(&mut front_end.queues, Duration::from_millis(5 + random.below(15)));
        let path = if both && random.one_in(2) { 1 - unlucky } else { unlucky };
        match random.below(20) {
            0..10 => daemon.cut(path, random.pick(&CUT_MODES)),
            10..12 => daemon.delay(path, random.below(6)),
            12 => daemon.hang(path),
            13 => daemon.sense(path, "6/29/00", 1),
            14 => daemon.sense(path, "b/00/00", 3),
            _ => {
                daemon.plug(path);
                daemon.reinstate(path);
            }
        }
    }
    load.run(&mut front_end.queues, Duration::from_millis(10));
    for path in 0..2 {
        daemon.plug(path);
        daemon.reinstate(path);
    }
    load.settle(&mut front_end.queues);
    assert!(load.failed.is_empty(), "seed {seed}: {:?}", load.failed);
}

fn daemon_for(seed: u64) -> (Daemon, FrontEnd, Load) {
    let setup = Setup { size: 2 << 20, queues: 2, ..Setup::default() }
        .with(&["--command-timeout", "1", "--checker-timeout", "1", "--polling-interval", "1"])
        .with(POLICIES[usize::try_from(seed / PER_DAEMON).expect("small") % POLICIES.len()]);
    let daemon = Daemon::start(&setup);
    let mut shape = Shape { queues: 2, ..Shape::default() };
    shape.manner.depth = 16;
    shape.manner.slot_bytes = 32 << 10;
    shape.manner.event_idx = seed % 20 < 10;
    let front_end = FrontEnd::connect(&daemon.socket(), shape);
    (daemon, front_end, Load::new(seed, MIX))
}

/// Ten seeds on one daemon.
fn run_batch(first: u64) -> (u64, Duration) {
    let (mut daemon, mut front_end, mut load) = daemon_for(first);
    for seed in first..first + PER_DAEMON {
        schedule(seed, &mut daemon, &mut front_end, &mut load);
    }
    load.read_back(front_end.queue(0));
    (load.good, load.slowest)
}

#[test]
fn two_hundred_schedules_of_path_trouble_reach_no_guest() {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let all = Mutex::new((0, Duration::ZERO));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let batch = next.fetch_add(PER_DAEMON, Ordering::Relaxed);
                    if batch >= SCHEDULES {
                        return;
                    }
                    let (good, slowest) = run_batch(batch);
                    let mut all = all.lock().expect("lock");
                    all.0 += good;
                    all.1 = all.1.max(slowest);
                }
            });
        }
    });
    let (good, slowest) = *all.lock().expect("lock");
    let took = begun.elapsed();
    println!("{SCHEDULES} schedules, {good} requests, slowest {slowest:?}, in {took:?}");
    assert!(good > SCHEDULES * 20, "only {good} requests");
}
