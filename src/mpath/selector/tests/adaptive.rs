//! The selectors that learn how long commands take.

use super::*;

const ADAPTIVE: [SelectorKind; 2] = [SelectorKind::HistoricalServiceTime, SelectorKind::Latency];

/// Path 0 is a hundred times slower.
const SLOW: Takes = |slot, _, _| if slot == 0 { micros(20_000) } else { micros(200) };

#[test]
fn a_slow_path_is_avoided_and_still_gets_something() {
    for kind in ADAPTIVE {
        for seed in SEEDS {
            for (n, depth) in [(2, 1), (2, 16), (4, 1), (4, 32), (8, 16)] {
                let mut world = World::new(kind, n, seed, SLOW);
                world.run(2_000, depth);
                let shares = world.run(20_000, depth);
                assert!(shares[0] < 0.1 / f64::from(n), "{kind:?} {n} {depth}: {shares:?}");
                assert!(shares[0] > 0.0, "{kind:?} {n} {depth}: it starves");
                for other in &shares[1..] {
                    let fair = 1.0 / f64::from(n - 1);
                    assert!((other / fair - 1.0).abs() < 0.3, "{kind:?} {n} {depth}: {shares:?}");
                }
            }
        }
    }
}

#[test]
fn a_path_that_was_slow_is_found_to_be_fast_again() {
    for kind in ADAPTIVE {
        for seed in SEEDS {
            for depth in [1, 16] {
                let mut world = World::new(kind, 2, seed, SLOW);
                world.run(20_000, depth);
                world.takes = |_, _, _| micros(200);
                // Within three seconds of virtual time.
                let until = world.now + Duration::from_secs(3);
                while world.now < until {
                    world.run(100, depth);
                }
                let shares = world.run(10_000, depth);
                assert!(shares[0] > 0.35, "{kind:?} {depth}: {shares:?}");
            }
        }
    }
}

#[test]
fn a_path_that_becomes_slow_is_left_soon() {
    for kind in ADAPTIVE {
        for seed in SEEDS {
            let mut world = World::new(kind, 4, seed, |_, _, _| micros(200));
            world.run(10_000, 16);
            world.takes = SLOW;
            world.run(200, 16);
            let shares = world.run(5_000, 16);
            assert!(shares[0] < 0.05, "{kind:?}: {shares:?}");
        }
    }
}

#[test]
fn a_silent_path_gets_no_more_than_the_others() {
    for kind in ADAPTIVE {
        let mut world = World::new(kind, 2, 3, |_, _, _| micros(200));
        world.run(10_000, 16);
        // It was good, and answers nothing from now on; the other slows down.
        let slow: Takes =
            |slot, _, _| if slot == 0 { Duration::from_secs(3600) } else { micros(5_000) };
        world.takes = slow;
        let shares = world.run(400, 64);
        let stuck = world.out.iter().filter(|out| out.0.2 == 0).count();
        assert!(stuck <= 34, "{kind:?}: {stuck} of 64 are stuck, {shares:?}");
    }
}

#[test]
fn latency_knows_reads_from_writes() {
    let takes: Takes = |slot, _, want| {
        if want.write == (slot == 0) { micros(5_000) } else { micros(200) }
    };
    for seed in SEEDS {
        let mut world = World::new(SelectorKind::Latency, 2, seed, takes);
        world.wants = |turn| if turn % 2 == 0 { read(4096) } else { write(4096) };
        world.run(4_000, 4);
        world.trace.clear();
        world.sent = 0;
        world.run(20_000, 4);
        let right = world.trace.iter().zip(0u64..).filter(|(slot, turn)| {
            let write = turn % 2 == 1;
            (**slot == 1) == write
        });
        let right = right.count();
        assert!(right > 18_500, "{right} of 20000 took the path that is fast for them");
    }
}

#[test]
fn latency_knows_large_from_small() {
    // Path 0 has a long way and a wide pipe, path 1 a short way and a narrow one.
    let takes: Takes = |slot, _, want| {
        let (way, per_kib) = if slot == 0 { (500, 1) } else { (100, 20) };
        micros(way + per_kib * (want.bytes >> 10))
    };
    for seed in SEEDS {
        let mut world = World::new(SelectorKind::Latency, 2, seed, takes);
        world.wants = |turn| read(if turn % 4 == 0 { 1 << 20 } else { 4096 });
        world.run(4_000, 2);
        world.trace.clear();
        world.sent = 0;
        world.run(20_000, 2);
        let right = world.trace.iter().zip(0u64..);
        let right = right.filter(|(slot, turn)| (**slot == 0) == (turn % 4 == 0)).count();
        assert!(right > 15_000, "{right} of 20000 took the path that is fast for them");
    }
}

#[test]
fn with_little_to_do_latency_does_not_run_into_the_slow_path_again_and_again() {
    for seed in SEEDS {
        let mut world = World::new(SelectorKind::Latency, 2, seed, SLOW);
        world.pause = Duration::from_secs(1);
        world.run(100, 1);
        let shares = world.run(2_000, 1);
        // One probe in sixteen, of the slow path and the other in turn.
        assert!((0.01..=0.0626).contains(&shares[0]), "{shares:?}");
    }
}

#[test]
fn historical_service_time_probes_a_stale_path_with_single_commands() {
    for seed in SEEDS {
        let mut world = World::new(SelectorKind::HistoricalServiceTime, 2, seed, SLOW);
        world.run(5_000, 8);
        for _ in 0..5_000 {
            world.run(1, 8);
            let slow = world.out.iter().filter(|out| out.0.2 == 0).count();
            assert!(slow <= 1, "{slow} at once");
        }
    }
}

#[test]
fn historical_service_time_does_not_mind_depth_where_service_is_serial() {
    // Overlapping commands are served one after the other: their service
    // time is the time between completions.
    let (mut s, _) = selector(SelectorKind::HistoricalServiceTime, 2);
    let issued = Time(1_000_000);
    for _ in 0..100 {
        s.started(issued, 0, READ);
        s.started(issued, 1, READ);
    }
    for turn in 0..100u64 {
        let came = Came { want: READ, issued, good: true };
        s.completed(issued + micros(100 * (turn + 1)), 0, &came);
        s.completed(issued + micros(100 * (turn + 1)), 1, &came);
    }
    let Method::HistoricalServiceTime(m) = &s.method else { panic!() };
    let average = m.average(0);
    assert!((90_000..101_000).contains(&average), "{average} ns");
}

#[test]
fn an_error_is_no_sample() {
    for kind in ADAPTIVE {
        let mut world = World::new(kind, 2, 1, |_, _, _| micros(1000));
        world.run(1_000, 4);
        while !world.out.is_empty() {
            world.complete();
        }
        // Path 0 fails everything at once, and is none the more attractive.
        for _ in 0..200 {
            world.now = world.now + micros(300);
            world.selector.started(world.now, 0, READ);
            let came = Came { want: READ, issued: world.now, good: false };
            world.selector.completed(world.now, 0, &came);
        }
        let shares = world.run(100, 4);
        assert!(shares[0] < 0.7, "{kind:?}: {shares:?}");
    }
}

#[test]
fn the_same_history_leads_to_the_same_choices() {
    for &kind in SelectorKind::ALL {
        let trace = |seed| {
            let mut world = World::new(kind, 5, seed, SLOW);
            world.run(3_000, 12);
            world.trace
        };
        assert_eq!(trace(7), trace(7), "{kind:?}");
    }
}
