//! `latency`: the better of two paths picked at random, by what commands of
//! this direction and size took there lately, times what is in flight there.
//!
//! Ours; the kernel has no such selector, since none of its sees direction and
//! size. Two at random rather than the best of all: threads (and hosts) that do
//! not know of each other's commands do not all run to the same path, and a
//! choice costs the same with any number of paths. The random numbers are the
//! instance's own and begin the same way, so that a simulation repeats.
//!
//! * A path that has taken commands and is silent for longer than they usually
//!   take counts as that slow.
//! * A path that nothing is known of for this class of commands competes by what
//!   is in flight alone, so that it neither is left out nor gets a rush.
//! * No path starves: one that got no command of a class for [`PROBE_AFTER`] gets
//!   the next one of it, but no more than one command in [`PROBE_SHARE`] goes so
//!   (a guest with little to do must not meet a slow path at every second
//!   command), and none to a path that has not answered since the last.
//! * What is known from long ago weighs less: a path that was slow is found to be
//!   fast again within a few probes.

use super::{Came, Load, Slots, Want};
use crate::io::Time;

/// Ticks of 2^20 ns.
const TICK_SHIFT: u32 = 20;
/// In ticks: 105 ms.
const PROBE_AFTER: u32 = 100;
/// At most one command of so many of a class is a probe.
const PROBE_SHARE: u32 = 16;

/// Estimates are kept in units of 2^4 ns.
const UNIT_SHIFT: u32 = 4;

/// One without data, and four sizes for each direction.
const CLASSES: usize = 9;

/// Longest of each size but the last, in bytes.
const SIZES: [u64; 3] = [8 << 10, 64 << 10, 512 << 10];

fn class_of(want: Want) -> usize {
    if want.bytes == 0 {
        return 0;
    }
    let size = SIZES.iter().filter(|&&most| want.bytes > most).count();
    1 + size + if want.write { SIZES.len() + 1 } else { 0 }
}

/// Wraps after 52 days: differences count.
fn tick(now: Time) -> u32 {
    u32::try_from(now.0 >> TICK_SHIFT & u64::from(u32::MAX)).unwrap_or(0)
}

#[derive(Clone, Copy, Debug, Default)]
struct Estimate {
    /// What such commands take; 0: not known.
    took: u32,
    /// Tick of the last sample.
    learned: u32,
    /// Tick of the last such command issued.
    asked: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Path {
    /// Its last completion, or the first command after it was idle.
    heard: Time,
    classes: [Estimate; CLASSES],
}

#[derive(Clone, Copy, Debug)]
struct Probing {
    /// No path is due before this tick.
    at: u32,
    /// Commands of the class since the last probe.
    since: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Latency {
    paths: Vec<Path>,
    probing: [Probing; CLASSES],
    random: u64,
}

impl Default for Latency {
    fn default() -> Latency {
        let probing = [Probing { at: 0, since: PROBE_SHARE }; CLASSES];
        Latency { paths: Vec::new(), probing, random: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl Latency {
    pub(super) fn list(&mut self, slot: u8, fresh: bool) {
        let i = usize::from(slot);
        if i >= self.paths.len() {
            self.paths.resize(i + 1, Path::default());
        }
        if fresh {
            for class in &mut self.paths[i].classes {
                class.took = 0;
            }
        }
    }

    pub(super) fn select(
        &mut self,
        now: Time,
        among: Slots,
        want: Want,
        loads: &[Load],
    ) -> Option<u8> {
        let n = among.len();
        if n <= 1 {
            return among.first();
        }
        let class = class_of(want);
        if let Some(slot) = self.probe(now, among, class, loads) {
            return Some(slot);
        }
        // Two numbers below n and n - 1 from the halves of one.
        let random = self.next_random();
        let below = |bits: u64, n: u32| {
            u32::try_from(((bits & u64::from(u32::MAX)) * u64::from(n)) >> 32).unwrap_or(0)
        };
        let (i, j) = (below(random >> 32, n), below(random, n - 1));
        let (a, b) = (among.nth(i), among.nth(if j >= i { j + 1 } else { j }));
        Some(if self.is_better(now, class, b, a, loads) { b } else { a })
    }

    /// Whether path `a` is to be preferred to `b`.
    fn is_better(&self, now: Time, class: usize, a: u8, b: u8, loads: &[Load]) -> bool {
        let look = |slot: u8| {
            let i = usize::from(slot);
            let (Some(path), Some(load)) = (self.paths.get(i), loads.get(i)) else {
                return (0, 0);
            };
            let took = u64::from(path.classes[class].took);
            let ahead = u64::from(load.commands);
            let silent =
                if ahead > 0 { now.0.saturating_sub(path.heard.0) >> UNIT_SHIFT } else { 0 };
            (if took == 0 { 0 } else { took.max(silent) }, ahead)
        };
        let ((a, a_ahead), (b, b_ahead)) = (look(a), look(b));
        if a == 0 || b == 0 {
            return a_ahead < b_ahead;
        }
        a.saturating_mul(1 + a_ahead) < b.saturating_mul(1 + b_ahead)
    }

    /// A path that has waited for a command of this class for too long.
    fn probe(&mut self, now: Time, among: Slots, class: usize, loads: &[Load]) -> Option<u8> {
        let tick = tick(now);
        let probing = &mut self.probing[class];
        probing.since = probing.since.saturating_add(1);
        // (A class that was not used for weeks may have any tick there.)
        let nothing_due = (1..=PROBE_AFTER).contains(&probing.at.wrapping_sub(tick));
        if probing.since < PROBE_SHARE || nothing_due {
            return None;
        }
        self.look_for_probe(tick, among, class, loads)
    }

    #[cold]
    fn look_for_probe(
        &mut self,
        tick: u32,
        among: Slots,
        class: usize,
        loads: &[Load],
    ) -> Option<u8> {
        let waited = |slot: u8| {
            let path = self.paths.get(usize::from(slot))?;
            let estimate = path.classes[class];
            let waited = if estimate.took == 0 && estimate.asked == 0 {
                u32::MAX
            } else {
                tick.wrapping_sub(estimate.asked)
            };
            let load = loads.get(usize::from(slot))?;
            // Not heard since it was asked.
            let silence = tick.wrapping_sub(self::tick(path.heard));
            let silent = load.commands > 0 && silence >= waited;
            (!silent).then_some((waited, slot))
        };
        // Of those that waited as long, the lowest.
        let (waited, slot) = among.filter_map(waited).max_by_key(|(w, s)| (*w, !s))?;
        let probing = &mut self.probing[class];
        if waited < PROBE_AFTER {
            probing.at = tick.wrapping_add(PROBE_AFTER - waited);
            return None;
        }
        probing.since = 0;
        Some(slot)
    }

    fn next_random(&mut self) -> u64 {
        // xorshift64* (Vigna).
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn started(&mut self, now: Time, slot: u8, want: Want, load: Load) {
        let Some(path) = self.paths.get_mut(usize::from(slot)) else { return };
        path.classes[class_of(want)].asked = tick(now);
        if load.commands == 1 {
            path.heard = now;
        }
    }

    pub(super) fn completed(&mut self, now: Time, slot: u8, came: &Came) {
        let Some(path) = self.paths.get_mut(usize::from(slot)) else { return };
        path.heard = now;
        if !came.good {
            return;
        }
        let sample = now.0.saturating_sub(came.issued.0) >> UNIT_SHIFT;
        let sample = u32::try_from(sample).unwrap_or(u32::MAX).max(1);
        let (estimate, tick) = (&mut path.classes[class_of(came.want)], tick(now));
        let old = tick.wrapping_sub(estimate.learned) >= PROBE_AFTER;
        estimate.learned = tick;
        estimate.took = match (estimate.took, old) {
            (0, _) => sample,
            (took, true) => took / 2 + sample / 2 + (took & sample & 1),
            // An eighth of the way, and never stuck short of it.
            (took, false) if sample > took => took + (sample - took).div_ceil(8),
            (took, false) => took - (took - sample).div_ceil(8),
        }
        .max(1);
    }
}

#[cfg(test)]
mod tests;
