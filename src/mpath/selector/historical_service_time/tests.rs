//! The average, the estimate and staleness, to the nanosecond.

use super::*;

const START: Time = Time(40_000_000_000_000);

fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}

fn came(issued: Time) -> Came {
    Came { want: super::super::Want::default(), issued, good: true }
}

/// Paths of one group that have had one command each, which took that many
/// microseconds and ended at `START`, and have so many in flight now.
fn paths(of: &[(u64, u32)]) -> (HistoricalServiceTime, Slots, Vec<Load>) {
    let mut paths = HistoricalServiceTime::default();
    let load = |&(_, commands): &(u64, u32)| Load { bytes: 0, commands };
    for (slot, &(took, commands)) in (0u8..).zip(of) {
        paths.list(slot, of.len(), Load::default(), true);
        // As if it had always been so.
        paths.paths[usize::from(slot)].average = (took * 1000) << SHIFT;
        paths.completed(START, slot, &came(Time(START.0 - took * 1000)), Load::default());
        for commands in 1..=commands {
            paths.started(slot, Load { bytes: 0, commands });
        }
    }
    let all = (0u8..).zip(of).map(|(slot, _)| slot).collect();
    (paths, all, of.iter().map(load).collect())
}

#[test]
fn weights_are_the_powers_of_the_base() {
    assert_eq!(KEPT[..3], [972, 923, 876]);
    assert_eq!(KEPT[BUCKETS - 1], 0);
    assert_eq!(KEPT[BUCKETS - 2], (KEPT[BUCKETS - 3] * BASE + 512) >> 10);
}

#[test]
fn a_long_sample_weighs_more_and_a_very_long_one_is_the_average() {
    let bucket = 1 << BUCKET_SHIFT;
    // Old average, sample, what is left of the old average in 1024ths.
    let cases = [
        (1_000_000, 3_000_000, 972),
        (3_000_000, 0, 972),
        (1_000_000, bucket - 1, 972),
        (1_000_000, bucket, 923),
        (1_000_000, 2 * bucket, 876),
        (50 * bucket, 2 * bucket + 5, 876),
        (1_000_000, 62 * bucket, KEPT[62]),
        (1_000_000, 63 * bucket, 0),
        (1_000_000, 1000 * bucket, 0),
    ];
    for (old, sample, kept) in cases {
        let (mut paths, ..) = paths(&[(1, 0)]);
        paths.paths[0].average = old << SHIFT;
        let end = START + Duration::from_nanos(sample);
        paths.completed(end, 0, &came(START), Load::default());
        let average = (old * kept + sample * (1024 - kept)) / 1024;
        assert_eq!(paths.average(0), average, "{old} {sample}");
    }
}

#[test]
fn fractions_of_a_nanosecond_add_up_and_hours_do_not_overflow() {
    let (mut paths, ..) = paths(&[(1, 0)]);
    paths.paths[0].average = 1024 * 7 + 1023;
    paths.completed(START, 0, &came(START), Load::default());
    assert_eq!(paths.paths[0].average, 7775, "of 7775.05");
    paths.paths[0].average = 1;
    paths.completed(START, 0, &came(START), Load::default());
    assert_eq!(paths.paths[0].average, 1, "of 0.95");
    paths.completed(Time(u64::MAX), 0, &came(Time(0)), Load::default());
    assert_eq!(paths.paths[0].average, LONGEST);
    assert_eq!(paths.paths[0].stale_after, Time(u64::MAX));
}

#[test]
fn service_begins_when_the_command_before_is_done() {
    let (mut paths, ..) = paths(&[(1000, 3)]);
    // Issued before the last one ended: it waited until then.
    paths.completed(START + micros(1000), 0, &came(Time(START.0 - 900_000)), Load::default());
    assert_eq!(paths.average(0), 1_000_000);
    // Issued after the last one ended.
    paths.completed(START + micros(5000), 0, &came(START + micros(4000)), Load::default());
    assert_eq!(paths.average(0), 1_000_000);
}

#[test]
fn an_error_ends_the_service_and_is_no_sample() {
    let (mut paths, ..) = paths(&[(1000, 1)]);
    let bad = Came { good: false, ..came(START) };
    paths.completed(START + micros(7), 0, &bad, Load::default());
    assert_eq!(paths.average(0), 1_000_000);
    assert_eq!(paths.paths[0].last_finish, START + micros(7));
    assert_eq!(paths.paths[0].stale_after, START + micros(1007));
}

#[test]
fn the_path_is_chosen_that_would_be_done_first() {
    let now = START + micros(1);
    for (of, best) in [
        ([(100, 3), (220, 1)], 0), // 400 and 440
        ([(100, 3), (190, 1)], 1), // 400 and 380
        ([(100, 3), (390, 1)], 0),
        ([(900, 1), (800, 1)], 1),
        // An idle one that is not stale has no privilege.
        ([(500, 0), (100, 3)], 1),
        ([(300, 0), (100, 3)], 0),
        // Far from anything usual, and still told apart.
        ([(20_000_000, 1), (30_000_000, 1)], 0),
        ([(30_000_000, 1), (20_000_000, 1)], 1),
        ([(30_000_000, 40), (20_000_000, 50)], 1), // 1230 s and 1020 s
    ] {
        let (mut paths, all, loads) = paths(&of);
        assert_eq!(paths.select(now, all, &loads), Some(best), "{of:?}");
        assert_eq!(paths.select(now, Slots::NONE, &loads), None);
    }
}

#[test]
fn estimates_are_told_apart_by_an_eighth_of_a_nanosecond() {
    let (mut paths, all, loads) = paths(&[(1, 1), (1, 1)]);
    for (slot, average) in [(0, 1000 * 1024 + 64), (1, 1000 * 1024)] {
        paths.paths[slot].average = average;
        paths.weigh(u8::try_from(slot).unwrap(), loads[slot]);
    }
    assert_eq!(paths.select(START, all, &loads), Some(1));
}

#[test]
fn an_idle_path_that_is_stale_is_next_and_none_that_is_not() {
    // Slot 1 is much slower, so that only staleness gives it a command.
    let stale_after = START + micros(2 * 50_000) + BATCH;
    let (mut paths, all, loads) = paths(&[(10, 1), (50_000, 0)]);
    // Not stale itself.
    paths.paths[0].stale_after = START + Duration::from_secs(9);
    assert_eq!(paths.select(START, all, &loads), Some(0));
    assert_eq!(paths.next_stale, stale_after);
    assert_eq!(paths.select(stale_after - Duration::from_nanos(1), all, &loads), Some(0));
    assert_eq!(paths.select(stale_after, all, &loads), Some(0));
    assert_eq!(paths.select(stale_after + Duration::from_nanos(1), all, &loads), Some(1));
    assert_eq!(paths.select(stale_after + micros(1), [0].into_iter().collect(), &loads), Some(0));
}

#[test]
fn a_path_that_becomes_idle_later_becomes_stale_sooner_if_it_is_fast() {
    let (mut paths, all, mut loads) = paths(&[(10, 5), (60_000, 0), (500, 1)]);
    paths.paths[0].stale_after = START + Duration::from_secs(9);
    assert_eq!(paths.select(START, all, &loads), Some(0));
    assert_eq!(paths.next_stale, START + micros(3 * 60_000) + BATCH);
    loads[2].commands = 0;
    paths.completed(START + micros(500), 2, &came(START), loads[2]);
    let stale = START + micros(500 + 3 * 500) + BATCH;
    assert_eq!(paths.next_stale, stale);
    loads[0].commands = 100;
    (6..=100).for_each(|commands| paths.started(0, Load { bytes: 0, commands }));
    assert_eq!(paths.select(stale, [0, 1].into_iter().collect(), &loads), Some(0));
    assert_eq!(paths.select(stale + micros(1), all, &loads), Some(2));
}

#[test]
fn of_idle_paths_alone_the_one_that_is_stale_first_is_next() {
    let (mut paths, all, loads) = paths(&[(900, 0), (100, 0), (500, 0)]);
    assert_eq!(paths.select(START, all, &loads), Some(1));
    let others = all.without([1].into_iter().collect());
    assert_eq!(paths.select(START, others, &loads), Some(2));
    // A table may name them again at any time.
    (0..3).for_each(|slot| paths.list(slot, 3, loads[usize::from(slot)], false));
    assert_eq!(paths.select(START, all, &loads), Some(1));
    paths.list(1, 3, Load { bytes: 0, commands: 9 }, false);
    assert_eq!(paths.idle, others, "what is in flight is known from the load");
}

#[test]
fn of_idle_paths_alone_the_one_that_is_stale_first_is_next_whoever_was_looked_at_before() {
    let (mut paths, all, loads) = paths(&[(900, 0), (800, 0), (10, 1)]);
    let now = START + micros(1000);
    paths.completed(now, 1, &came(START + micros(200)), loads[1]);
    assert_eq!(paths.select(now, all, &loads), Some(2), "no idle one is stale");
    assert_eq!(paths.select(now, [0, 1].into_iter().collect(), &loads), Some(0));
}

#[test]
fn a_loaded_path_that_is_stale_gets_an_equal_share() {
    let (mut paths, all, loads) = paths(&[(1000, 2), (90_000, 2), (90_000, 3)]);
    let stale = START + micros(3 * 1000) + BATCH;
    assert_eq!(paths.select(stale, all, &loads), Some(0), "not yet");
    let late = stale + Duration::from_nanos(1);
    let mut loads = loads;
    let mut picks = Vec::new();
    for _ in 0..5 {
        let slot = paths.select(late, all, &loads).expect("three paths");
        let load = &mut loads[usize::from(slot)];
        load.commands += 1;
        paths.started(slot, *load);
        picks.push(slot);
    }
    // Fewest first, of equals the one not chosen for longest.
    assert_eq!(picks, [1, 0, 2, 1, 0]);
}

#[test]
fn a_path_that_begins_anew_is_looked_at_again() {
    let (mut paths, all, loads) = paths(&[(10, 1), (50_000, 0)]);
    paths.paths[0].stale_after = START + Duration::from_secs(9);
    assert_eq!(paths.select(START, all, &loads), Some(0));
    paths.list(1, 2, loads[1], false);
    assert_eq!(paths.average(1), 50_000_000, "the same path");
    paths.list(1, 2, loads[1], true);
    assert_eq!(paths.average(1), 1);
    assert_eq!(paths.select(START, all, &loads), Some(1), "nothing is known of it: stale");
}
