//! What holds for every selector, and those that count what is in flight.

use super::*;

#[test]
fn every_selector_takes_only_what_it_may_and_something_if_there_is_anything() {
    for &kind in SelectorKind::ALL {
        for mut seed in SEEDS {
            let (mut s, _) = selector(kind, 64);
            let mut out: Vec<(u8, Want, Time)> = Vec::new();
            let mut now = Time(1);
            for turn in 0..5_000u64 {
                now = now + Duration::from_nanos(random(&mut seed) % 3_000_000);
                let mask = random(&mut seed) & random(&mut seed);
                let mask = if turn % 9 == 0 { u64::MAX } else { mask & random(&mut seed) };
                let among: Slots = (0..64u8).filter(|slot| mask >> slot & 1 != 0).collect();
                let want = Want { bytes: random(&mut seed) % 100_000, write: turn % 2 == 0 };
                let chosen = s.select(now, among, want);
                assert_eq!(chosen.is_some(), mask != 0, "{kind:?}");
                if let Some(slot) = chosen {
                    assert!(among.has(slot), "{kind:?} {slot} of {mask:x}");
                    s.started(now, slot, want);
                    out.push((slot, want, now));
                }
                while out.len() > 40 || (!out.is_empty() && random(&mut seed) % 2 == 0) {
                    let at = usize::try_from(random(&mut seed) % out.len() as u64).unwrap();
                    let (slot, want, issued) = out.swap_remove(at);
                    let good = random(&mut seed) % 5 != 0;
                    s.completed(now, slot, &Came { want, issued, good });
                }
            }
            for (slot, want, issued) in out {
                s.completed(now, slot, &Came { want, issued, good: true });
            }
            assert!(s.all_idle());
            let left: u64 = (0..64).map(|slot| s.load(PathId { slot, generation: 0 }).bytes).sum();
            assert_eq!(left, 0);
        }
    }
}

#[test]
fn equal_paths_get_equal_shares_at_any_depth_from_every_selector() {
    for &kind in SelectorKind::ALL {
        for seed in SEEDS {
            for (n, depth) in [(2, 1), (4, 1), (3, 8), (4, 32), (8, 32), (7, 3)] {
                let mut world = World::new(kind, n, seed, |_, _, _| micros(200));
                let fair = 1.0 / f64::from(n);
                let within = match kind {
                    // These make something of what chance adds.
                    SelectorKind::HistoricalServiceTime | SelectorKind::Latency => 0.4,
                    _ => 0.1,
                };
                for share in world.run(20_000, depth) {
                    assert!((share / fair - 1.0).abs() < within, "{kind:?} {n} {depth}: {share}");
                }
            }
        }
    }
}

#[test]
fn shares_are_equal_whatever_slots_the_paths_have() {
    for &kind in SelectorKind::ALL {
        let slots = [3, 17, 18, 19, 62, 63];
        let mut world = World::new(kind, 64, 1, |_, _, _| micros(200));
        world.among = slots.into_iter().collect();
        for share in world.run(20_000, 16) {
            assert!((share * 6.0 - 1.0).abs() < 0.2, "{kind:?}: {share}");
        }
    }
}

#[test]
fn round_robin_takes_each_path_in_turn_and_skips_those_it_may_not() {
    let (mut s, _) = selector(SelectorKind::RoundRobin, 3);
    let among: Slots = [0, 2].into_iter().collect();
    let picks: Vec<_> = (0..5).filter_map(|_| s.select(Time(0), among, READ)).collect();
    assert_eq!(picks, [0, 2, 0, 2, 0]);
}

#[test]
fn round_robin_repeats_as_the_path_weighs_and_moves_on_when_it_may_not() {
    let mut s = Selector::new(SelectorKind::RoundRobin);
    s.update(&table(SelectorKind::RoundRobin, &[(0, 1, 3), (1, 1, 1), (2, 1, 2), (3, 1, 0)]));
    let all: Slots = (0..4).collect();
    let mut picks = |n: usize, among: Slots| -> Vec<u8> {
        (0..n).filter_map(|_| s.select(Time(0), among, READ)).collect()
    };
    assert_eq!(picks(9, all), [0, 0, 0, 1, 2, 2, 3, 0, 0]);
    // In the middle of its turn the path drops out; the next has its full turn.
    assert_eq!(picks(4, all.without([0].into_iter().collect())), [1, 2, 2, 3]);
    assert_eq!(picks(4, all), [0, 0, 0, 1]);
}

#[test]
fn a_smaller_repeat_count_holds_at_once() {
    let mut s = Selector::new(SelectorKind::RoundRobin);
    let all: Slots = (0..2).collect();
    s.update(&table(SelectorKind::RoundRobin, &[(0, 1, 1000), (1, 1, 1000)]));
    assert_eq!(s.select(Time(0), all, READ), Some(0));
    s.update(&table(SelectorKind::RoundRobin, &[(0, 1, 1), (1, 1, 1)]));
    let picks: Vec<_> = (0..4).filter_map(|_| s.select(Time(0), all, READ)).collect();
    assert_eq!(picks, [0, 1, 0, 1]);
    // Another path's is its own affair.
    for (counts, expected) in [([1000, 1], [0; 4]), ([1, 1000], [0, 1, 1, 1])] {
        let mut s = Selector::new(SelectorKind::RoundRobin);
        s.update(&table(SelectorKind::RoundRobin, &[(0, 1, 1000), (1, 1, 1000)]));
        assert_eq!(s.select(Time(0), all, READ), Some(0));
        s.update(&table(SelectorKind::RoundRobin, &[(0, 1, counts[0]), (1, 1, counts[1])]));
        let picks: Vec<_> = (0..4).filter_map(|_| s.select(Time(0), all, READ)).collect();
        assert_eq!(picks, expected, "{counts:?}");
    }
}

#[test]
fn queue_length_counts_commands_whatever_their_size() {
    let (mut s, all) = selector(SelectorKind::QueueLength, 3);
    s.started(Time(0), 0, read(1 << 20));
    s.started(Time(0), 1, read(512));
    s.started(Time(0), 1, read(512));
    s.started(Time(0), 2, read(0));
    s.started(Time(0), 2, read(0));
    assert_eq!(s.select(Time(0), all, READ), Some(0));
    assert_eq!(s.select(Time(0), all.without([0].into_iter().collect()), READ), Some(1));
}

#[test]
fn service_time_counts_bytes_then_commands_then_takes_turns() {
    let (mut s, all) = selector(SelectorKind::ServiceTime, 3);
    s.started(Time(0), 0, read(9000));
    s.started(Time(0), 1, read(512));
    s.started(Time(0), 2, read(4096));
    assert_eq!(s.select(Time(0), all, READ), Some(1));
    let (mut s, all) = selector(SelectorKind::ServiceTime, 3);
    s.started(Time(0), 0, read(0));
    s.started(Time(0), 2, read(0));
    assert_eq!(s.select(Time(0), all, READ), Some(1), "a flush is something");
    let (mut s, all) = selector(SelectorKind::ServiceTime, 2);
    let picks: Vec<_> = (0..4).filter_map(|_| s.select(Time(0), all, READ)).collect();
    assert_eq!(picks, [0, 1, 0, 1]);
}

#[test]
fn service_time_keeps_small_commands_from_queueing_behind_a_large_one() {
    let takes: Takes = |_, _, want| Duration::from_nanos(want.bytes);
    for seed in SEEDS {
        let mut world = World::new(SelectorKind::ServiceTime, 2, seed, takes);
        world.wants = |turn| if turn == 0 { read(1 << 20) } else { read(4096) };
        world.run(1_500, 8);
        assert!(world.out.iter().any(|out| out.0.1 == 0), "the large one is out all the time");
        let large = world.trace[0];
        assert!(world.trace[1..].iter().all(|&slot| slot != large));
    }
}

#[test]
fn service_time_evens_out_bytes_of_unequal_commands() {
    for mut seed in SEEDS {
        let (mut s, all) = selector(SelectorKind::ServiceTime, 4);
        for _ in 0..500 {
            let want = write(random(&mut seed) % (1 << 20));
            let slot = s.select(Time(0), all, want).expect("four paths");
            s.started(Time(0), slot, want);
            let bytes = |slot| s.load(PathId { slot, generation: 0 }).bytes;
            let (most, least) = (all.map(bytes).max(), all.map(bytes).min());
            assert!(most <= least.map(|b| b + (1 << 20)), "{most:?} {least:?}");
        }
    }
}

#[test]
fn counting_selectors_give_a_slow_path_what_it_gets_through() {
    let takes: Takes = |slot, _, _| if slot == 0 { micros(2000) } else { micros(200) };
    for kind in [SelectorKind::QueueLength, SelectorKind::ServiceTime] {
        for seed in SEEDS {
            let mut world = World::new(kind, 2, seed, takes);
            let shares = world.run(20_000, 32);
            // A tenth of the speed: an eleventh of the commands.
            assert!((0.07..0.12).contains(&shares[0]), "{kind:?} {shares:?}");
        }
    }
}

#[test]
fn another_selector_knows_what_is_in_flight() {
    let counting = [
        SelectorKind::QueueLength,
        SelectorKind::ServiceTime,
        SelectorKind::HistoricalServiceTime,
        SelectorKind::Latency,
    ];
    for kind in counting {
        let (mut s, all) = selector(SelectorKind::RoundRobin, 2);
        for _ in 0..5 {
            s.started(Time(0), 0, READ);
        }
        s.update(&table(kind, &[(0, 1, 1), (1, 1, 1)]));
        assert_eq!(s.load(PathId { slot: 0, generation: 0 }).commands, 5);
        let mut picks = [0; 2];
        for turn in 0..5 {
            let slot = s.select(Time(turn), all, READ).expect("two paths");
            s.started(Time(turn), slot, READ);
            picks[usize::from(slot)] += 1;
        }
        assert!(picks[1] >= 4, "{kind:?} {picks:?}");
    }
}

#[test]
fn a_slot_used_again_and_a_path_reinstated_begin_anew() {
    let takes: Takes = |slot, _, _| if slot == 0 { micros(50_000) } else { micros(100) };
    for kind in [SelectorKind::HistoricalServiceTime, SelectorKind::Latency] {
        for (generation, epoch) in [(0, 2), (1, 1), (1, 2)] {
            let mut world = World::new(kind, 2, 1, takes);
            world.run(5_000, 8);
            while !world.out.is_empty() {
                world.complete();
            }
            let mut next = table(kind, &[(0, epoch, 1), (1, 1, 1)]);
            next.groups[0].paths[0].id.generation = generation;
            world.selector.update(&next);
            world.takes = |_, _, _| micros(100);
            let shares = world.run(400, 8);
            assert!(shares[0] > 0.4, "{kind:?}: {shares:?}");
        }
    }
}

#[test]
fn what_was_learned_of_a_path_outlasts_a_table_that_changes_nothing_about_it() {
    let takes: Takes = |slot, _, _| if slot == 0 { micros(50_000) } else { micros(100) };
    for kind in [SelectorKind::HistoricalServiceTime, SelectorKind::Latency] {
        let mut world = World::new(kind, 2, 1, takes);
        world.run(5_000, 8);
        let mut next = table(kind, &[(0, 1, 1), (1, 1, 1)]);
        next.generation = 2;
        world.selector.update(&next);
        let shares = world.run(40, 8);
        assert!(shares[0] < 0.05, "{kind:?}: {shares:?}");
    }
}

#[test]
fn loads_are_of_one_path_not_of_its_slot() {
    let (mut s, _) = selector(SelectorKind::ServiceTime, 2);
    s.started(Time(0), 1, READ);
    let load = |generation| s.load(PathId { slot: 1, generation });
    assert_eq!(load(0), Load { bytes: 4096, commands: 1 });
    assert_eq!(load(1), Load::default());
    assert_eq!(s.load(PathId { slot: 9, generation: 0 }), Load::default());
    assert!(!s.all_idle());
}
