//! Deterministic simulation: the real engine, classifier, selectors, checkers,
//! prioritizers, hardware handlers and request core over the simulated array,
//! in virtual time.
//!
//! One seed fixes the array, the map's policy, the guest's workload (overlapping
//! reads and writes, flush, discard, zeroes; the guest of an odd seed composes
//! its own commands, COMPARE AND WRITE among them, and ends tasks), the delays
//! between the threads, the faults, and what the administrator does. After every
//! step the world checks the laws (`docs/simulation.md`); at the end the faults
//! end, everything must come to rest, and every block is read back.
//!
//! `scripts/simulate` runs any seeds over all cores; here `VHOST_MPATH_SEEDS=A..B`
//! chooses them (default 0..500). A failing seed prints itself; with
//! `VHOST_MPATH_TRACE` set it tells its story. A seed that found a bug is listed
//! in [`REGRESSIONS`].

mod access_laws;
mod durable;
mod engine_laws;
mod jobs;
mod plug;
mod random;
mod reasons;
mod record;
mod reservation_laws;
mod scenario;
mod shadow;
mod totals;
mod watch_laws;
mod wire;
mod world;

use std::ops::Range;

/// Seeds that once found a bug, with what it was.
const REGRESSIONS: &[(u64, &str)] = &[
    (4, "what a guest's command was told of a passive controller was asked about for ever"),
    (46, "a map whose last path left before the LU grew never took a path again"),
    (95, "flush_on_last_del went on failing requests after a path had joined"),
    (120, "emc_clariion held a path down for the LU it had led to for a while"),
    (532, "regrouping moved I/O off paths that carried it"),
    (654, "a block layer's EIO was delivered when the path that was to say more came into doubt"),
    (71264, "the same, where it had met a unit attention as well"),
    (887, "a doubt was forgotten when the epoch grew for another reason"),
    (2805, "a guest that had heard that it is fenced, and preempted meanwhile, heard it again"),
    (3173, "a fenced guest was not told, for its own commands had had paths tell the same"),
    (3577, "a guest was told by us that it is fenced, and by a path that everything was cleared"),
    (5657, "a fenced guest came back by what a late command had registered"),
    (5924, "a delayed activation whose handler was gone kept the timer busy for ever"),
    (7968, "a path that was busy just now was activated along with another of its group"),
    (8814, "a moment's NOT READY was delivered for the time that a hung path had taken"),
    (10932, "what a joining path was read with brought back one that was told it is passive"),
    (13793, "a path that held the reservation was taken for registered too late, and lost it"),
    (14180, "a unit attention was delivered whose repetition a failing path had lost"),
    (15169, "a fenced guest was not told, for the path that would have told had lost its nexus"),
    (28895, "a path told that it is passive while it was being proven was not checked"),
    (35597, "what a path told late was told again after an order by it"),
    (50937, "a first priority moved I/O to another path's group under failback manual"),
    (53565, "another prioritizer put passive paths in use, and their group with them"),
    (54317, "a guest's own preemption of itself hid that another host had preempted it"),
    (60973, "a path that was not registered yet had a release of nothing refused"),
    (62477, "guest I/O waited for ever for a path that may have been registered late"),
    (79345, "a fenced guest came back by a registration that all ports have in common"),
    (86214, "a path that came back in transition was asked about by nobody"),
    (99875, "other groups made followover follow a path that had come back before"),
    (101465, "what a slow command told of our own preemption was told to the guest"),
    (115345, "an array that denied a registration once cost the guest its reservation"),
    (184481, "the guest's reservation by a key it had before was taken for another host's"),
    (199333, "a guest that was refused to leave, and fenced, was not told"),
    (220645, "a path that may have been registered late reserved for a fenced guest"),
    (346801, "a guest of which nobody knew that it is registered held with all registrants"),
    (364073, "an order was answered before the table that says what it has done"),
    (366365, "a registration that was forgotten passed for the LU's word"),
    (420837, "a watched path whose check was not answered was put off"),
    (465541, "a path came into use while the guest reserved for one nexus"),
    (684913, "what a path told while it registered the guest hid that it was fenced later"),
    (698497, "a guest was not told that it is fenced, for its reservation was about to be moved"),
    (769777, "a guest was taken for fenced whose registration a path in transition had"),
    (870497, "a guest that preempted itself, holding nothing any more, was told that it is fenced"),
    (
        2385197,
        "a path that denied its registration took away the one that all ports have in common",
    ),
    (1049345, "a path that told of two things the guest had done was taken for another host's"),
];

/// Somebody has chosen which seeds to run.
fn chosen() -> bool {
    ["VHOST_MPATH_SEED", "VHOST_MPATH_SEEDS"].iter().any(|name| std::env::var_os(name).is_some())
}

fn seeds() -> Range<u64> {
    if let Ok(seed) = std::env::var("VHOST_MPATH_SEED") {
        let seed = seed.parse().expect("VHOST_MPATH_SEED=N");
        return seed..seed + 1;
    }
    let Ok(text) = std::env::var("VHOST_MPATH_SEEDS") else { return 0..500 };
    let (from, to) = text.split_once("..").expect("VHOST_MPATH_SEEDS=A..B");
    from.parse().expect("first seed")..to.parse().expect("last seed")
}

/// A survey runs each seed, or one in so many from the first.
fn stride() -> usize {
    let text = std::env::var("VHOST_MPATH_STRIDE").unwrap_or_default();
    text.parse().ok().filter(|stride| *stride > 0).unwrap_or(1)
}

/// CPU time of this thread so far, in nanoseconds: other load is none of ours.
fn cpu_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn tell(totals: &totals::Totals, took: u64) {
    let rate = u128::from(totals.steps) * 1_000_000_000 / u128::from(took.max(1));
    println!("{totals:?}");
    println!("{} steps, {rate} a second of CPU time", totals.steps);
}

#[test]
fn nothing_is_lost_doubled_stale_or_in_two_places() {
    let begun = cpu_time();
    let mut totals = totals::Totals::default();
    for seed in seeds() {
        totals += world::run(seed);
    }
    tell(&totals, cpu_time() - begun);
    // The schedules must reach what they are there to prove.
    if !chosen() {
        assert!(totals.requests > 50_000, "{totals:?}");
        assert!(totals.path_failures > 1_000, "{totals:?}");
        assert!(totals.reinstated > 1_000, "{totals:?}");
        assert!(totals.retries > 1_000, "{totals:?}");
        assert!(totals.held > 100, "{totals:?}");
        assert!(totals.hung > 50, "{totals:?}");
        assert!(totals.abandoned > 10, "{totals:?}");
        assert!(totals.aborted > 1_000, "{totals:?}");
        assert!(totals.heard > 500, "{totals:?}");
        assert!(totals.swapped > 5_000, "{totals:?}");
        assert!(totals.ambiguous > 100, "{totals:?}");
        assert!(totals.resized > 300, "{totals:?}");
        assert!(totals.switches > 500, "{totals:?}");
        assert!(totals.access_changes > 500, "{totals:?}");
        assert!(totals.activated > 100, "{totals:?}");
        assert!(totals.marginal > 50, "{totals:?}");
        assert!(totals.samples > 500, "{totals:?}");
        assert!(totals.reconfigured > 100, "{totals:?}");
        assert!(totals.host_news > 300, "{totals:?}");
        assert!(totals.deleted > 300, "{totals:?}");
        assert!(totals.lies > 300, "{totals:?}");
        assert!(totals.late > 300, "{totals:?}");
        assert!(totals.orders > 1_000, "{totals:?}");
        assert!(totals.compared > 300, "{totals:?}");
        assert!(totals.reserved > 20, "{totals:?}");
        assert!(totals.preempts > 5, "{totals:?}");
        assert!(totals.self_preempts > 3, "{totals:?}");
        assert!(totals.suspended > 10, "{totals:?}");
        assert!(totals.taken_over > 5, "{totals:?}");
        assert!(totals.foreign > 300, "{totals:?}");
        assert!(totals.fenced > 30, "{totals:?}");
        assert!(totals.found_fenced > 30, "{totals:?}");
        assert!(totals.barred > 2, "{totals:?}");
        assert!(totals.recalled > 10, "{totals:?}");
        assert!(totals.forgotten > 8, "{totals:?}");
        assert!(totals.power_losses > 3, "{totals:?}");
    }
}

/// Runs every seed, and lists what they find: the first line of each failure,
/// how many seeds have it, and the first of them. For work on the engine.
#[test]
#[ignore = "a survey, on demand: VHOST_MPATH_SEEDS=A..B … --ignored survey"]
fn survey() {
    std::panic::set_hook(Box::new(|info| {
        let what = info.payload();
        let text = what.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| what.downcast_ref::<&str>().copied()).unwrap_or("?");
        let at = info.location().map_or(String::new(), |l| format!("{}:{}", l.file(), l.line()));
        let first: String = text.lines().take(3).collect::<Vec<_>>().join(" ");
        FOUND.set(format!("{at}: {first}"));
    }));
    let mut found: Vec<(String, u64, u64)> = Vec::new();
    let (begun, mut totals) = (cpu_time(), totals::Totals::default());
    for seed in seeds().step_by(stride()) {
        if let Ok(good) = std::panic::catch_unwind(|| world::run(seed)) {
            totals += good;
            continue;
        }
        let text = FOUND.take();
        eprintln!("seed {seed}: {}", text.chars().take(300).collect::<String>());
        let place = |t: &str| t.split(": ").next().map(str::to_owned);
        match found.iter_mut().find(|f| place(&f.0) == place(&text)) {
            Some(f) => f.1 += 1,
            None => found.push((text, 1, seed)),
        }
    }
    tell(&totals, cpu_time() - begun);
    for (text, seeds, first) in found {
        println!("{seeds} seeds, first {first}: {}", text.chars().take(300).collect::<String>());
    }
}

thread_local! {
    static FOUND: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

#[test]
fn seeds_that_found_bugs_stay_quiet() {
    for (seed, what) in REGRESSIONS {
        println!("seed {seed}: {what}");
        world::run(*seed);
    }
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in [1, 17, 333] {
        assert_eq!(world::run(seed), world::run(seed), "seed {seed}");
    }
}
