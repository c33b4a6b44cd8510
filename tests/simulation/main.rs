//! Deterministic simulation: the real engine, classifier, selectors, checkers
//! and request core over the simulated array, in virtual time.
//!
//! One seed fixes the map's policy, the guest's workload (overlapping reads
//! and writes, flush, discard, zeroes; the guest of an odd seed composes its own
//! commands, COMPARE AND WRITE among them, and ends tasks), the delays between the threads, and
//! the faults. After every step the world checks the laws of data integrity
//! (see `world.rs`); at the end the faults end, everything must come to rest,
//! and every block is read back.
//!
//! `VHOST_MPATH_SEEDS=A..B` chooses the seeds (default 0..500); a failing seed
//! prints itself. A seed that found a bug is listed in [`REGRESSIONS`].

mod durable;
mod engine_laws;
mod random;
mod shadow;
mod wire;
mod world;

use std::ops::Range;

/// Seeds that once found a bug, with what it was.
const REGRESSIONS: &[(u64, &str)] = &[
    (16, "NOT READY from the only path left was taken for the LU's word at once"),
    (60, "a request that waited for free parts was forgotten once nothing was ready"),
    (29740, "the unit attention of a path in doubt was delivered as the LU's answer"),
];

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("VHOST_MPATH_SEEDS") else { return 0..500 };
    let (from, to) = text.split_once("..").expect("VHOST_MPATH_SEEDS=A..B");
    from.parse().expect("first seed")..to.parse().expect("last seed")
}

#[test]
fn nothing_is_lost_doubled_stale_or_in_two_places() {
    let mut totals = world::Totals::default();
    for seed in seeds() {
        totals += world::run(seed);
    }
    println!("{totals:?}");
    // The schedules must reach what they are there to prove.
    if std::env::var_os("VHOST_MPATH_SEEDS").is_none() {
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
    }
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
