//! Classes, estimates, comparison and probes, to the tick.

use std::time::Duration;

use super::*;

const READ: Want = Want { bytes: 4096, write: false };
const CLASS: usize = 1;

/// Somewhere in the life of a host; a whole tick.
const START: u64 = 5_000_000 << TICK_SHIFT;

fn at(ticks: u64) -> Time {
    Time(START + (ticks << TICK_SHIFT))
}

fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}

fn loads(commands: &[u32]) -> Vec<Load> {
    commands.iter().map(|&commands| Load { bytes: 0, commands }).collect()
}

fn good(issued: Time) -> Came {
    Came { want: READ, issued, good: true }
}

fn paths(n: u8) -> (Latency, Slots) {
    let mut latency = Latency::default();
    (0..n).for_each(|slot| latency.list(slot, true));
    (latency, (0..n).collect())
}

#[test]
fn classes_are_told_apart_by_direction_and_size() {
    let want = |bytes, write| class_of(Want { bytes, write });
    let reads = [1, 8 << 10, (8 << 10) + 1, 64 << 10, 512 << 10, (512 << 10) + 1, u64::MAX];
    assert_eq!(reads.map(|b| want(b, false)), [1, 1, 2, 2, 3, 4, 4]);
    assert_eq!(reads.map(|b| want(b, true)), [5, 5, 6, 6, 7, 8, 8]);
    assert_eq!((want(0, false), want(0, true)), (0, 0));
}

#[test]
fn ticks_wrap() {
    assert_eq!(tick(Time((7 << TICK_SHIFT) - 1)), 6);
    assert_eq!(tick(Time(((1 << 32) + 7) << TICK_SHIFT)), 7);
    assert_eq!(tick(Time(u64::MAX)), u32::MAX);
}

#[test]
fn an_estimate_goes_an_eighth_of_the_way_and_half_of_it_after_a_long_silence() {
    let (mut latency, _) = paths(1);
    let mut learn = |tick: u64, took: u64| {
        latency.completed(at(tick) + Duration::from_nanos(took << UNIT_SHIFT), 0, &good(at(tick)));
        latency.paths[0].classes[CLASS].took
    };
    assert_eq!(learn(0, 8000), 8000, "the first");
    assert_eq!(learn(99, 16_000), 9000, "a tick before it is old");
    assert_eq!(learn(198, 1000), 8000);
    assert_eq!(learn(198, 8000), 8000);
    assert_eq!(learn(198, 8001), 8001, "never stuck short of it");
    assert_eq!(learn(198, 7999), 8000);
    assert_eq!(learn(298, 1000), 4500, "old");
    assert_eq!(learn(398, 4501), 4500, "half of each, rounded down");
    assert_eq!(learn(498, 5001), 4750);
    assert_eq!(learn(598, 5000), 4875);
    assert_eq!(learn(698, 4877), 4876, "of two odd ones nothing is lost");
    assert_eq!((0..99).map(|_| learn(698, 0)).last(), Some(1), "0 would be unknown");
    assert_eq!(learn(698, 1 << 40), 1 << 31, "too long to be told: half of the most");
}

#[test]
fn errors_and_commands_of_another_class_teach_nothing() {
    let (mut latency, _) = paths(1);
    latency.completed(at(1), 0, &Came { good: false, ..good(at(0)) });
    assert_eq!(latency.paths[0].classes.map(|c| c.took), [0; CLASSES]);
    assert_eq!(latency.paths[0].heard, at(1), "but the path has answered");
    latency.completed(at(2), 0, &good(at(1)));
    let took = 1 << (TICK_SHIFT - UNIT_SHIFT);
    assert_eq!(latency.paths[0].classes.map(|c| c.took), [0, took, 0, 0, 0, 0, 0, 0, 0]);
    latency.list(0, false);
    assert_eq!(latency.paths[0].classes[CLASS].took, took, "another table");
    latency.list(0, true);
    assert_eq!(latency.paths[0].classes[CLASS].took, 0, "reinstated");
}

/// Of two paths that take this many microseconds, with so many commands in
/// flight, and silent for so many: is the first the better one?
fn better(a: (u64, u32, u64), b: (u64, u32, u64)) -> bool {
    let (mut latency, _) = paths(2);
    let now = at(50);
    for (slot, (took, _, silent)) in [(0, a), (1, b)] {
        let heard = Time(now.0 - silent * 1000);
        if took > 0 {
            latency.completed(heard, slot, &good(Time(heard.0 - took * 1000)));
        }
    }
    latency.is_better(now, CLASS, 0, 1, &loads(&[a.1, b.1]))
}

#[test]
fn the_better_path_is_done_sooner_with_what_is_in_flight_and_one_more() {
    assert!(better((100, 0, 0), (200, 0, 0)));
    assert!(!better((200, 0, 0), (100, 0, 0)));
    assert!(!better((100, 0, 0), (100, 0, 0)), "as good");
    // Estimates times commands: the one more counts.
    assert!(better((100, 3, 0), (220, 1, 0)), "400 and 440");
    assert!(!better((220, 1, 0), (100, 3, 0)));
    assert!(!better((100, 3, 0), (390, 0, 0)));
    assert!(better((390, 0, 0), (100, 3, 0)));
}

#[test]
fn a_path_silent_for_longer_than_it_takes_is_as_slow_as_that() {
    assert!(better((100, 1, 99), (150, 1, 0)), "not yet");
    assert!(better((100, 1, 149), (150, 1, 0)));
    assert!(!better((100, 1, 151), (150, 1, 0)));
    assert!(better((150, 1, 0), (100, 1, 151)));
    assert!(better((100, 0, 5000), (150, 0, 0)), "nothing is asked of it");
}

#[test]
fn a_path_of_which_nothing_is_known_competes_by_what_is_in_flight() {
    assert!(better((0, 1, 0), (1, 2, 0)));
    assert!(better((900, 1, 0), (0, 2, 0)));
    assert!(!better((0, 2, 0), (900, 1, 0)));
    assert!(!better((0, 1, 0), (900, 1, 0)) && !better((900, 1, 0), (0, 1, 0)));
    assert!(better((0, 1, 9000), (1, 2, 0)), "silence says nothing either");
}

/// As published for the seed 1.
#[test]
fn random_numbers_are_those_of_xorshift64_star() {
    let mut latency = Latency { random: 1, ..Latency::default() };
    let numbers = [
        5_180_492_295_206_395_165,
        12_380_297_144_915_551_517,
        13_389_498_078_930_870_103,
        5_599_127_315_341_312_413,
    ];
    assert_eq!(numbers.map(|_| latency.next_random()), numbers);
}

/// Of four paths with 0, 1, 2 and 3 commands the better of two is the first
/// for three of six pairs, then for two, then for one.
#[test]
fn every_pair_of_paths_is_as_likely() {
    for slots in [[0, 1, 2, 3], [5, 17, 40, 63]] {
        let (mut latency, _) = paths(64);
        let among: Slots = slots.into_iter().collect();
        let mut commands = [0; 64];
        (0..).zip(slots).for_each(|(n, slot)| commands[usize::from(slot)] = n);
        let loads = loads(&commands);
        // Asked lately: no probes.
        slots.into_iter().for_each(|slot| latency.started(at(0), slot, READ, loads[0]));
        let mut counts = [0u32; 64];
        for _ in 0..60_000 {
            let slot = latency.select(at(0), among, READ, &loads).expect("four");
            counts[usize::from(slot)] += 1;
        }
        for (slot, share) in slots.into_iter().zip([30_000, 20_000, 10_000, 0u32]) {
            let count = counts[usize::from(slot)];
            assert!(count.abs_diff(share) < 600, "{slot}: {count}, not {share}");
        }
        assert_eq!(counts.iter().sum::<u32>(), 60_000);
    }
}

/// A guest with one command at a time, each `every` ticks; path 1 is so slow
/// that only probes go there. The ticks of the probes.
fn probes(every: u64, ticks: u64, answers: bool) -> Vec<u64> {
    let (mut latency, all) = paths(2);
    let mut commands = [0, 0];
    for (slot, took) in [(0u8, 100), (1, 900_000)] {
        latency.started(at(0), slot, READ, Load { bytes: 0, commands: 1 });
        latency.completed(at(0), slot, &good(Time(at(0).0 - took * 1000)));
    }
    let mut found = Vec::new();
    for turn in 1..=ticks / every {
        let now = at(turn * every);
        let slot = latency.select(now, all, READ, &loads(&commands)).expect("two paths");
        let on = &mut commands[usize::from(slot)];
        *on += 1;
        latency.started(now, slot, READ, Load { bytes: 0, commands: *on });
        if slot == 1 {
            found.push(turn * every);
            if !answers {
                continue;
            }
        }
        *on -= 1;
        let took = if slot == 0 { 100 } else { 900_000 };
        latency.completed(now, slot, &good(Time(now.0 - took * 1000)));
    }
    found
}

#[test]
fn a_path_not_asked_for_so_long_gets_one_command() {
    assert_eq!(probes(1, 450, true), [100, 200, 300, 400]);
    assert_eq!(probes(3, 450, true), [102, 204, 306, 408]);
}

#[test]
fn no_more_than_one_command_of_so_many_is_a_probe() {
    let gaps = |probes: Vec<u64>| -> Vec<u64> { probes.windows(2).map(|w| w[1] - w[0]).collect() };
    assert_eq!(gaps(probes(10, 2000, true)), [160; 11]);
    assert_eq!(gaps(probes(100, 20_000, true)), [1600; 11]);
}

#[test]
fn a_path_that_has_not_answered_is_not_probed_again() {
    assert_eq!(probes(1, 2000, false), [100]);
}

#[test]
fn a_probe_goes_to_the_path_that_waited_longest_and_of_equals_to_the_lowest() {
    let (mut latency, all) = paths(4);
    for (slot, tick) in [(0, 30), (1, 10), (2, 20), (3, 10)] {
        latency.started(at(tick), slot, READ, Load { bytes: 0, commands: 1 });
        latency.completed(at(tick) + micros(100), slot, &good(at(tick)));
    }
    let idle = loads(&[0; 4]);
    assert_eq!(latency.probe(at(109), all, CLASS, &idle), None, "99 ticks");
    assert_eq!(latency.probing[CLASS].at, tick(at(110)));
    assert_eq!(latency.probe(at(110), all, CLASS, &idle), Some(1));
    assert_eq!(latency.probing[CLASS].since, 0);
    let next = (0..40).find_map(|turn| Some((turn, latency.probe(at(500), all, CLASS, &idle)?)));
    assert_eq!(next, Some((15, 1)), "the sixteenth command; nobody asked meanwhile");
    let others = all.without([1, 3].into_iter().collect());
    (0..15).for_each(|_| assert_eq!(latency.probe(at(500), others, CLASS, &idle), None));
    assert_eq!(latency.probe(at(500), others, CLASS, &idle), Some(2));
}

#[test]
fn what_was_never_asked_of_a_path_is_asked_first() {
    let (mut latency, all) = paths(3);
    for slot in [0, 2] {
        latency.started(at(0), slot, READ, Load { bytes: 0, commands: 1 });
        latency.completed(at(0) + micros(100), slot, &good(at(0)));
    }
    let idle = loads(&[0; 3]);
    assert_eq!(latency.select(at(200), all, READ, &idle), Some(1));
    // It has been asked now, and not answered.
    latency.started(at(200), 1, READ, Load { bytes: 0, commands: 1 });
    let again = (0..16).find_map(|_| latency.probe(at(201), all, CLASS, &loads(&[0, 1, 0])));
    assert_eq!(again, Some(0));
    // An error says nothing about what it takes, and it has been asked.
    latency.completed(at(201), 1, &Came { good: false, ..good(at(200)) });
    let again = (0..16).find_map(|_| latency.probe(at(202), all, CLASS, &idle));
    assert_eq!(again, Some(0));
}

/// Ticks are compared by their difference; what a selector begins with is far
/// from the ticks of a host that has been up for a month.
#[test]
fn what_was_never_asked_is_asked_first_at_any_time() {
    for ticks in [1u64, 200, 1 << 20, (1 << 31) + 7, 3 << 30, (1 << 32) - 200, (1 << 32) + 3] {
        let now = Time(ticks << TICK_SHIFT);
        let (mut latency, all) = paths(2);
        let before = Time(now.0 - (1 << TICK_SHIFT));
        latency.started(before, 0, READ, Load { bytes: 0, commands: 1 });
        latency.completed(now, 0, &good(before));
        // It is busy with other things, too.
        latency.started(now, 1, Want::default(), Load { bytes: 0, commands: 1 });
        assert_eq!(latency.select(now, all, READ, &loads(&[0, 1])), Some(1), "{ticks}");
    }
}

#[test]
fn a_path_is_heard_from_its_first_command_on() {
    let (mut latency, _) = paths(1);
    latency.started(at(3), 0, READ, Load { bytes: 0, commands: 1 });
    latency.started(at(5), 0, READ, Load { bytes: 0, commands: 2 });
    assert_eq!(latency.paths[0].heard, at(3));
    assert_eq!(latency.paths[0].classes.map(|c| c.asked)[..3], [0, tick(at(5)), 0]);
}

#[test]
fn one_path_is_taken_without_a_probe_being_counted() {
    let (mut latency, all) = paths(2);
    let idle = loads(&[0; 2]);
    assert_eq!(latency.select(at(0), [1].into_iter().collect(), READ, &idle), Some(1));
    assert_eq!(latency.select(at(0), Slots::NONE, READ, &idle), None);
    assert_eq!(latency.probing[CLASS].since, PROBE_SHARE);
    assert!(latency.select(at(0), all, READ, &idle).is_some());
    assert_ne!(latency.probing[CLASS].since, PROBE_SHARE);
}
