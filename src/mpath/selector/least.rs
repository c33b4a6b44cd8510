//! The least loaded of many paths, and of several the one that was not chosen
//! for the longest time (the kernel's selectors move a path that they chose to
//! the end of their list).
//!
//! One word per path: weight, then a stamp of its last choice, then its slot.
//! The smallest word is the path, so that looking at all of them is a run of
//! minima over an array, without branches.

use super::Slots;

const SLOT_BITS: u32 = 6;
const STAMP_BITS: u32 = 14;
const WEIGHT_SHIFT: u32 = SLOT_BITS + STAMP_BITS;
const SLOT: u64 = (1 << SLOT_BITS) - 1;

/// Heavier counts as this.
const MOST_WEIGHT: u64 = u64::MAX >> WEIGHT_SHIFT;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Least {
    words: Vec<u64>,
    /// Of the last choice.
    stamp: u64,
}

impl Least {
    /// The weight of a path from now on.
    pub(super) fn weigh(&mut self, slot: u8, weight: u64) {
        let i = usize::from(slot);
        if i >= self.words.len() {
            let from = self.words.len() as u64;
            self.words.extend(from..=u64::from(slot));
        }
        let word = &mut self.words[i];
        *word = *word & !(u64::MAX << WEIGHT_SHIFT) | weight.min(MOST_WEIGHT) << WEIGHT_SHIFT;
    }

    /// The least loaded, which counts as chosen now.
    pub(super) fn choose(&mut self, among: Slots) -> Option<u8> {
        let slot = self.peek(among)?;
        self.chosen(slot);
        Some(slot)
    }

    /// The least loaded.
    pub(super) fn peek(&self, among: Slots) -> Option<u8> {
        let runs = among.runs().filter_map(|run| Some(least(self.words.get(run)?)));
        let word = runs.fold(u64::MAX, u64::min);
        (word != u64::MAX).then_some(slot_of(word))
    }

    /// A path is chosen.
    pub(super) fn chosen(&mut self, slot: u8) {
        self.stamp += 1;
        if self.stamp >> STAMP_BITS != 0 {
            self.restamp();
        }
        let stamp = self.stamp << SLOT_BITS;
        if let Some(word) = self.words.get_mut(usize::from(slot)) {
            *word = *word & (u64::MAX << WEIGHT_SHIFT | SLOT) | stamp;
        }
    }

    /// Grows with every choice: the smaller, the longer ago.
    pub(super) fn age(&self, slot: u8) -> u64 {
        self.words.get(usize::from(slot)).map_or(0, |word| word & !(u64::MAX << WEIGHT_SHIFT))
    }

    /// The stamps have run out: small ones in the same order.
    #[cold]
    fn restamp(&mut self) {
        let age = |word: u64| word & !(u64::MAX << WEIGHT_SHIFT);
        let mut ages = [u64::MAX; 1 << SLOT_BITS];
        for (to, word) in ages.iter_mut().zip(&self.words) {
            *to = age(*word);
        }
        for word in &mut self.words {
            let rank = ages.iter().filter(|&&a| a < age(*word)).count() as u64;
            *word = *word & (u64::MAX << WEIGHT_SHIFT | SLOT) | rank << SLOT_BITS;
        }
        self.stamp = self.words.len() as u64;
    }
}

/// Several minima at a time: one after the other would wait for each.
fn least(words: &[u64]) -> u64 {
    let mut lanes = [u64::MAX; 4];
    let mut fours = words.chunks_exact(4);
    for four in &mut fours {
        for (lane, word) in lanes.iter_mut().zip(four) {
            *lane = (*lane).min(*word);
        }
    }
    fours.remainder().iter().chain(&lanes).fold(u64::MAX, |a, b| a.min(*b))
}

fn slot_of(word: u64) -> u8 {
    u8::try_from(word & SLOT).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_weight_wins_however_many_there_are_and_whoever_may() {
        for n in [1u8, 3, 4, 7, 16, 64] {
            let mut least = Least::default();
            // Distinct weights, the least somewhere in the middle.
            let weight = |slot: u8| (u64::from(slot) * 37 + 11) % 67;
            for slot in 0..n {
                least.weigh(slot, 1 << 30);
                least.weigh(slot, weight(slot));
            }
            let sets: [fn(&u8) -> bool; 3] = [|_| true, |s| s % 2 == 0, |s| *s > 1];
            for among in sets {
                let members: Slots = (0..n).filter(among).collect();
                assert_eq!(least.peek(members), members.min_by_key(|s| weight(*s)), "{n}");
            }
        }
    }

    #[test]
    fn of_equal_weights_the_one_longest_not_chosen_even_when_stamps_run_out() {
        let mut least = Least::default();
        (0..5).for_each(|slot| least.weigh(slot, 7));
        let all: Slots = (0..5).collect();
        for turn in 0..100_000u32 {
            assert_eq!(least.choose(all).map(u32::from), Some(turn % 5), "{turn}");
        }
        // Chosen while the others could not be: goes last.
        for _ in 0..20_000 {
            least.choose([2].into_iter().collect());
        }
        let order: Vec<u8> = (0..5).filter_map(|_| least.choose(all)).collect();
        assert_eq!(order, [0, 1, 3, 4, 2]);
    }

    #[test]
    fn stamps_begin_anew_only_when_they_have_run_out() {
        let mut least = Least::default();
        (0..5).for_each(|slot| least.weigh(slot, 7));
        let last = (1 << STAMP_BITS) - 1;
        (0..last).for_each(|_| least.chosen(3));
        assert_eq!(least.stamp, last);
        least.chosen(3);
        assert_eq!(least.stamp, 5);
    }

    #[test]
    fn weights_beyond_the_most_are_the_most() {
        let mut least = Least::default();
        least.weigh(0, u64::MAX);
        least.weigh(1, (1 << 44) - 2);
        assert_eq!(least.peek([0, 1].into_iter().collect()), Some(1));
        assert_eq!(least.peek([0].into_iter().collect()), Some(0));
        assert_eq!(least.peek(Slots::NONE), None);
    }
}
