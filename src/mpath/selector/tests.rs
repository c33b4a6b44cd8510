//! Selectors over paths that take their time, in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::*;
use crate::mpath::snapshot::{GroupView, Queueing};

mod adaptive;
mod counting;

const SEEDS: std::ops::Range<u64> = 1..6;

/// One group of paths (slot, epoch, repeat).
fn table(selector: SelectorKind, paths: &[(u8, u32, u32)]) -> PathTable {
    let view = |&(slot, epoch, repeat): &(u8, u32, u32)| PathView {
        id: PathId { slot, generation: 0 },
        epoch,
        proven: epoch,
        priority: 1,
        repeat,
    };
    let groups = vec![GroupView { number: 1, paths: paths.iter().map(view).collect() }];
    PathTable {
        generation: 1,
        groups,
        queueing: Queueing::Hold,
        selector,
        suspended: false,
        registered: false,
        hold_for: None,
    }
}

fn selector(kind: SelectorKind, n: u8) -> (Selector, Slots) {
    let mut selector = Selector::new(kind);
    let paths: Vec<_> = (0..n).map(|slot| (slot, 1, 1)).collect();
    selector.update(&table(kind, &paths));
    (selector, (0..n).collect())
}

fn read(bytes: u64) -> Want {
    Want { bytes, write: false }
}

fn write(bytes: u64) -> Want {
    Want { bytes, write: true }
}

const READ: Want = Want { bytes: 4096, write: false };

fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// What a path takes for a command, before chance adds up to a tenth.
type Takes = fn(slot: u8, now: Time, want: Want) -> Duration;

/// A guest that keeps `depth` commands out, and the paths it has.
struct World {
    selector: Selector,
    among: Slots,
    takes: Takes,
    /// Paths do one command after the other; when each is done with all.
    serial: bool,
    done: Vec<Time>,
    wants: fn(u64) -> Want,
    /// Between two commands, where nothing is out.
    pause: Duration,
    now: Time,
    seed: u64,
    out: BinaryHeap<Reverse<(Time, u64, u8, Time)>>,
    sent: u64,
    /// Commands each path was given, and each command's path.
    counts: Vec<u64>,
    trace: Vec<u8>,
    /// Sum of what the commands took.
    waited: Duration,
}

impl World {
    fn new(kind: SelectorKind, n: u8, seed: u64, takes: Takes) -> World {
        let (selector, among) = selector(kind, n);
        World {
            selector,
            among,
            takes,
            // What the selector takes a path for.
            serial: kind == SelectorKind::HistoricalServiceTime,
            done: vec![Time(0); 64],
            wants: |_| READ,
            pause: Duration::ZERO,
            now: Time(7_000_000_000),
            seed,
            out: BinaryHeap::new(),
            sent: 0,
            counts: vec![0; 64],
            trace: Vec::new(),
            waited: Duration::ZERO,
        }
    }

    fn issue(&mut self) {
        // Every command has a number, by which its want is known again.
        let want = (self.wants)(self.sent);
        let slot = self.selector.select(self.now, self.among, want).expect("there are paths");
        assert!(self.among.has(slot));
        self.selector.started(self.now, slot, want);
        let takes = (self.takes)(slot, self.now, want);
        let chance = takes / 1000 * u32::try_from(random(&mut self.seed) % 100).unwrap();
        let done = &mut self.done[usize::from(slot)];
        let begins = if self.serial { self.now.max(*done) } else { self.now };
        *done = begins + takes + chance;
        self.out.push(Reverse((*done, self.sent, slot, self.now)));
        self.sent += 1;
        self.counts[usize::from(slot)] += 1;
        self.trace.push(slot);
    }

    fn complete(&mut self) {
        let Reverse((at, number, slot, issued)) = self.out.pop().expect("one is out");
        self.now = self.now.max(at);
        self.waited += self.now.since(issued);
        let came = Came { want: (self.wants)(number), issued, good: true };
        self.selector.completed(self.now, slot, &came);
    }

    /// `n` commands at this depth; what part of them each path got.
    fn run(&mut self, n: u64, depth: usize) -> Vec<f64> {
        self.counts.fill(0);
        self.waited = Duration::ZERO;
        for _ in 0..n {
            while self.out.len() >= depth {
                self.complete();
            }
            if self.out.is_empty() {
                self.now = self.now + self.pause;
            }
            self.issue();
        }
        self.shares(n)
    }

    #[allow(clippy::cast_precision_loss)] // counts are small
    fn shares(&self, n: u64) -> Vec<f64> {
        self.among.map(|slot| self.counts[usize::from(slot)] as f64 / n as f64).collect()
    }
}

const fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}
