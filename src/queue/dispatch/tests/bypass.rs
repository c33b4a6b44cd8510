//! A path whose block layer ends what is good with EIO.

use super::*;

const EIO: i32 = libc::EIO;

impl Rig {
    /// One read after the other until the rig's paths have had `n` commands,
    /// where what path 0 is given by the block layer ends with EIO; how many did.
    fn reads_while_0_lies(&mut self, n: usize) -> usize {
        let mut lies = 0;
        for _ in 0..n {
            self.submit(1, read(0, 8));
            while let Some(sent) = self.wire.out.first().cloned() {
                let lie = sent.path == 0 && !sent.passthrough;
                lies += usize::from(lie);
                self.answer(&sent, if lie { errno(EIO) } else { Completion::Good });
            }
            assert_eq!(self.outcome(), Outcome::Good);
        }
        lies
    }

    fn told_of_block_layer(&mut self) -> Vec<bool> {
        let all = std::mem::take(&mut self.reports);
        let told = |r: &Report| match r {
            Report::BlockLayer { path, avoided } if *path == id(0) => Some(*avoided),
            _ => None,
        };
        all.iter().filter_map(told).collect()
    }
}

#[test]
fn what_it_ends_with_eio_goes_by_passthrough_from_the_start_after_four_times() {
    for mut rig in [Rig::new(), Rig::single()] {
        assert_eq!(rig.reads_while_0_lies(100), 4);
        assert_eq!(rig.told_of_block_layer(), [true]);
        // The path is used as before.
        rig.submit(1, write(0, 8));
        rig.submit(2, write(8, 8));
        let by: Vec<_> = rig.wire.out.iter().filter(|s| s.path == 0).collect();
        assert!(!by.is_empty() && by.iter().all(|s| s.passthrough));
        assert!(rig.wire.out.iter().filter(|s| s.path == 1).all(|s| !s.passthrough));
        rig.all_good();
    }
}

#[test]
fn it_is_tried_again_after_a_minute_and_after_twice_as_long_when_that_is_in_vain() {
    let mut rig = Rig::single();
    rig.reads_while_0_lies(10);
    for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
        rig.pass(Duration::from_secs(60 * minutes - 1));
        assert_eq!(rig.reads_while_0_lies(5), 0, "{minutes}");
        rig.pass(Duration::from_secs(1));
        assert_eq!(rig.reads_while_0_lies(5), 1, "{minutes}");
    }
    assert_eq!(rig.told_of_block_layer(), [true], "once");
    // In order again: that is told, and everything is as before.
    rig.pass(Duration::from_secs(3600));
    rig.submit(1, read(0, 8));
    assert!(!rig.next(Completion::Good).passthrough);
    assert_eq!(rig.outcome(), Outcome::Good);
    assert_eq!(rig.told_of_block_layer(), [false]);
    assert_eq!(rig.reads_while_0_lies(100), 4);
}

#[test]
fn what_it_carries_and_what_the_truth_bears_out_ends_the_row() {
    let mut rig = Rig::single();
    for _ in 0..10 {
        assert_eq!(rig.reads_while_0_lies(3), 3);
        rig.submit(1, read(0, 8));
        rig.next(Completion::Good);
        assert_eq!(rig.outcome(), Outcome::Good);
    }
    // The LU says the same with more words.
    for _ in 0..10 {
        rig.submit(1, read(0, 8));
        assert!(!rig.next(errno(EIO)).passthrough);
        rig.next(check(4, 0x03, 0));
        assert!(matches!(rig.outcome(), Outcome::Lu { .. }));
    }
    // And four in four hours are no row.
    for _ in 0..10 {
        rig.pass(Duration::from_secs(3600));
        assert_eq!(rig.reads_while_0_lies(1), 1);
    }
    assert_eq!(rig.told_of_block_layer(), [] as [bool; 0]);
}

#[test]
fn trouble_of_the_path_itself_is_seen_exactly_then() {
    let mut rig = Rig::new();
    rig.reads_while_0_lies(20);
    rig.reports.clear();
    rig.submit(1, read(0, 8));
    while rig.wire.out.first().is_some_and(|s| s.path != 0) {
        rig.next(Completion::Good);
        rig.ended.clear();
        rig.submit(1, read(0, 8));
    }
    rig.next(host(HostByte::ERROR));
    let reports = rig.path_reports();
    let fails = |r: &IoReport| {
        matches!(r.reason, IoReason::Judged { rule: "host-error", verdict, .. }
            if verdict == PathVerdict::Fail)
    };
    assert!(reports.iter().any(fails), "{reports:?}");
}

#[test]
fn another_path_that_takes_its_slot_begins_anew() {
    let mut rig = Rig::single();
    rig.reads_while_0_lies(10);
    let mut table = (*table(9, &[&[(0, 1)]], Queueing::Hold)).clone();
    table.groups[0].paths[0].id.generation = 1;
    rig.core.set_table(Arc::new(table));
    rig.submit(1, read(0, 8));
    assert!(!rig.next(Completion::Good).passthrough);
}

/// Else the guest is told EIO although the path that said so has the data.
#[test]
fn a_truth_that_a_path_in_doubt_was_to_tell_is_asked_for_again() {
    let mut rig = Rig::of(settings(limits()), &[&[(0, 1), (1, 1), (2, 1)]]);
    rig.submit(1, read(0, 8));
    let first = rig.next(check(0xb, 0x47, 0));
    let second = rig.next(errno(EIO));
    let third = rig.next(check(6, 0x29, 0));
    assert!(third.passthrough && ![first.path, second.path].contains(&third.path));
    let mut asked = Vec::new();
    while rig.ended.is_empty() {
        let sent = rig.wire.out[0].clone();
        assert!(sent.passthrough);
        asked.push(sent.path);
        let good = sent.path == second.path;
        rig.answer(&sent, if good { Completion::Good } else { check(0xb, 0x47, 0) });
    }
    assert!(asked.contains(&second.path), "{asked:?}");
    assert_eq!(rig.outcome(), Outcome::Good);
}

/// The path that was to tell the truth came into doubt meanwhile, by another
/// command: one that has spoken already is asked by passthrough.
#[test]
fn its_error_is_no_answer_before_somebody_has_told_the_truth() {
    let mut rig = Rig::of(settings(limits()), &[&[(0, 1), (1, 1), (2, 1)]]);
    rig.submit(1, read(0, 8));
    rig.next(check(0xb, 0x47, 0));
    rig.next(errno(EIO));
    let asked = rig.wire.out[0].clone();
    assert!(asked.passthrough && asked.path == 2);
    for request in 2..5 {
        rig.submit(request, read(8, 8));
    }
    let other = rig.wire.out.iter().skip(1).find(|s| s.path == 2).expect("on each").clone();
    rig.answer(&other, check(6, 0x29, 0x07));
    rig.answer(&asked, check(6, 0x2a, 0x09));
    let truth = rig.wire.out.iter().find(|s| s.passthrough).expect("not ended").clone();
    assert_ne!(truth.path, 2);
    rig.all_good();
    let good = |end: &End| matches!(end, End::Finished(Outcome::Good));
    assert!(rig.ended.len() == 4 && rig.ended.iter().all(|(_, end)| good(end)));
}
