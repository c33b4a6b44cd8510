//! `historical-service-time`: the path that would be done first, by a moving
//! average of its service times and what is in flight there.
//!
//! As the kernel's with its default arguments: a command's service time begins
//! when the one before it finished, if that was later than its issue; a long
//! one weighs more in the average. A path that has finished nothing for longer
//! than its average times the number of paths of the group is *stale*: idle, it
//! gets the next command, to see whether it has become better; loaded, it gets
//! no more than its equal share, since it may have become worse. When all
//! paths are idle, the one that is stale first is next.
//!
//! Where not: the kernel compares paths two by two in an order of its list,
//! which is no order of all of them; here staleness is looked at first, then
//! the smallest estimate is taken. A queue thread hears of completions in
//! batches: a path counts as stale [`BATCH`] later. A completion that is an
//! error says nothing about service times.

use std::time::Duration;

use super::least::Least;
use super::{Came, Load, Slots};
use crate::io::Time;

/// Fractional bits of an average.
const SHIFT: u32 = 10;
/// The average, of a first sample of a bucket's length.
const BASE: u64 = 972;
/// A sample is longer by a bucket: its weight is that of one sample more.
/// About 17 ms.
const BUCKET_SHIFT: u32 = 24;
/// Longer than so many buckets, it is the average.
const BUCKETS: usize = 64;
/// An average grows no further: 34 s.
const LONGEST: u64 = 1 << 45;

/// Staleness is put in order by units of 2^13 ns: weights are good for the
/// first four years of a clock.
const ORDER_SHIFT: u32 = 13;

/// Silence that is no staleness yet.
const BATCH: Duration = Duration::from_millis(1);

/// What is left of the old average beside a sample, by its buckets.
const KEPT: [u64; BUCKETS] = {
    let mut kept = [0; BUCKETS];
    let (mut i, mut power) = (0, BASE);
    while i < BUCKETS - 1 {
        kept[i] = power;
        power = (power * BASE + (1 << (SHIFT - 1))) >> SHIFT;
        i += 1;
    }
    kept
};

#[derive(Clone, Copy, Debug)]
struct History {
    /// Average service time in nanoseconds, with a fraction of [`SHIFT`] bits.
    average: u64,
    last_finish: Time,
    /// By its average, without [`BATCH`].
    stale_after: Time,
    /// Paths of its group.
    peers: u64,
}

const UNKNOWN: History =
    History { average: 1 << SHIFT, last_finish: Time(0), stale_after: Time(0), peers: 1 };

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HistoricalServiceTime {
    /// By estimate.
    least: Least,
    /// By when they are stale.
    stalest: Least,
    paths: Vec<History>,
    idle: Slots,
    /// No path of `looked` that is idle becomes stale before this.
    next_stale: Time,
    looked: Slots,
}

impl HistoricalServiceTime {
    pub(super) fn list(&mut self, slot: u8, peers: usize, load: Load, fresh: bool) {
        let i = usize::from(slot);
        if i >= self.paths.len() {
            self.paths.resize(i + 1, UNKNOWN);
        }
        if fresh {
            self.paths[i] = UNKNOWN;
            self.looked.remove(slot);
        }
        self.paths[i].peers = peers as u64;
        self.stalest.weigh(slot, self.paths[i].stale_after.0 >> ORDER_SHIFT);
        self.weigh(slot, load);
        if load.commands == 0 {
            self.idle.add(slot);
        } else {
            self.idle.remove(slot);
        }
    }

    pub(super) fn started(&mut self, slot: u8, load: Load) {
        self.idle.remove(slot);
        self.weigh(slot, load);
    }

    pub(super) fn completed(&mut self, now: Time, slot: u8, came: &Came, load: Load) {
        let Some(path) = self.paths.get_mut(usize::from(slot)) else { return };
        let began = came.issued.max(path.last_finish);
        let took = now.0.saturating_sub(began.0);
        path.last_finish = now;
        if came.good {
            let bucket = usize::try_from(took >> BUCKET_SHIFT).unwrap_or(BUCKETS);
            let kept = KEPT[bucket.min(BUCKETS - 1)];
            let sample = took.min(LONGEST >> SHIFT) << SHIFT;
            let sum = path.average * kept + sample * ((1 << SHIFT) - kept);
            path.average = (sum + (1 << (SHIFT - 1))) >> SHIFT;
        }
        path.stale_after = now + Duration::from_nanos(path.peers * (path.average >> SHIFT));
        self.stalest.weigh(slot, path.stale_after.0 >> ORDER_SHIFT);
        if load.commands == 0 {
            self.idle.add(slot);
            self.looked.add(slot);
            self.next_stale = self.next_stale.min(path.stale_after + BATCH);
        }
        self.weigh(slot, load);
    }

    /// Estimate for one command more, to an eighth of a nanosecond.
    fn weigh(&mut self, slot: u8, load: Load) {
        let average = self.paths.get(usize::from(slot)).map_or(0, |p| p.average);
        let estimate = average.saturating_mul(1 + u64::from(load.commands));
        self.least.weigh(slot, estimate >> (SHIFT - 3));
    }

    pub(super) fn select(&mut self, now: Time, among: Slots, loads: &[Load]) -> Option<u8> {
        let idle = self.idle.and(among);
        let slot = match self.first_stale(now, idle, among) {
            Some(slot) => slot,
            None => {
                let best = self.least.peek(among)?;
                if self.is_stale(now, best) { self.fewest(among, loads)? } else { best }
            }
        };
        self.least.chosen(slot);
        self.stalest.chosen(slot);
        Some(slot)
    }

    /// An idle path that is to be used for being stale, or for being the first
    /// to be.
    fn first_stale(&mut self, now: Time, idle: Slots, among: Slots) -> Option<u8> {
        let nothing_due = now < self.next_stale && idle.without(self.looked).is_empty();
        if idle.is_empty() || (nothing_due && idle != among) {
            return None;
        }
        let first = self.stalest.peek(idle)?;
        if idle == among || self.is_stale(now, first) {
            return Some(first);
        }
        self.looked = idle;
        self.next_stale = self.stale_after(first) + BATCH;
        None
    }

    fn stale_after(&self, slot: u8) -> Time {
        self.paths.get(usize::from(slot)).map_or(Time(0), |p| p.stale_after)
    }

    fn is_stale(&self, now: Time, slot: u8) -> bool {
        self.stale_after(slot) + BATCH < now
    }

    #[cfg(test)]
    pub(super) fn average(&self, slot: usize) -> u64 {
        self.paths[slot].average >> SHIFT
    }

    fn fewest(&self, among: Slots, loads: &[Load]) -> Option<u8> {
        let load = |slot: u8| loads.get(usize::from(slot)).map_or(0, |l| l.commands);
        among.min_by_key(|slot| (load(*slot), self.least.age(*slot)))
    }
}

#[cfg(test)]
mod tests;
