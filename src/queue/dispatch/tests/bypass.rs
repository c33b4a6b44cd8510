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
