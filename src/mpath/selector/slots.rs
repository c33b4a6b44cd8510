//! Sets of paths of one map, by slot.

use std::ops::Range;

use crate::mpath::snapshot::PathId;

/// A set of slots, below [`MAX_PATHS`](crate::mpath::snapshot::MAX_PATHS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots(u64);

/// One in every byte.
const ONES: u64 = 0x0101_0101_0101_0101;

impl Slots {
    /// The empty set.
    pub const NONE: Slots = Slots(0);

    fn bit(slot: u8) -> u64 {
        1u64.checked_shl(u32::from(slot)).unwrap_or(0)
    }

    /// Adds a path.
    pub fn insert(&mut self, path: PathId) {
        self.add(path.slot);
    }

    /// Adds a slot.
    pub fn add(&mut self, slot: u8) {
        self.0 |= Slots::bit(slot);
    }

    /// Takes a slot out.
    pub fn remove(&mut self, slot: u8) {
        self.0 &= !Slots::bit(slot);
    }

    /// Whether a path is in it.
    pub fn contains(self, path: PathId) -> bool {
        self.has(path.slot)
    }

    /// Whether a slot is in it.
    pub fn has(self, slot: u8) -> bool {
        self.0 & Slots::bit(slot) != 0
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.0 = 0;
    }

    /// Nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Exactly one is in it.
    pub fn is_single(self) -> bool {
        self.0.is_power_of_two()
    }

    /// How many are in it.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// What is in both.
    pub fn and(self, other: Slots) -> Slots {
        Slots(self.0 & other.0)
    }

    /// What is in this and not in the other.
    pub fn without(self, other: Slots) -> Slots {
        Slots(self.0 & !other.0)
    }

    /// The lowest.
    pub fn first(self) -> Option<u8> {
        (self.0 != 0).then(|| lowest(self.0))
    }

    /// The lowest above `slot`, else the lowest of all.
    pub(super) fn next_after(self, slot: u8) -> Option<u8> {
        let above = Slots(self.0 & u64::MAX.wrapping_shl(u32::from(slot)).wrapping_shl(1));
        above.first().or_else(|| self.first())
    }

    /// They are the slots from 0 on without a gap.
    fn is_dense(self) -> bool {
        self.0 & self.0.wrapping_add(1) == 0
    }

    /// The members as runs of slots without a gap: few, as a rule one.
    pub(super) fn runs(self) -> impl Iterator<Item = Range<usize>> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let from = left.trailing_zeros();
            let n = left.checked_shr(from)?.trailing_ones();
            // Adding one carries through the run.
            left &= left.wrapping_add(1 << from);
            Some(from as usize..(from + n) as usize)
        })
    }

    /// The lowest but `k`; `k` is below [`Slots::len`].
    pub(super) fn nth(self, k: u32) -> u8 {
        if self.is_dense() {
            return u8::try_from(k).unwrap_or(0);
        }
        // Ones up to and with each byte, in that byte; the first byte with
        // more than `k`; the one in question there.
        let pairs = self.0 - (self.0 >> 1 & 0x5555_5555_5555_5555);
        let fours = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
        let upto = ((fours + (fours >> 4)) & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(ONES);
        let more = ((upto | ONES << 7) - ONES * u64::from((k & 63) + 1)) & (ONES << 7);
        let shift = more.trailing_zeros() & 56;
        let below = if shift == 0 { 0 } else { upto >> (shift - 8) & 0xff };
        let mut byte = self.0 >> shift & 0xff;
        for _ in below..u64::from(k) {
            byte &= byte.wrapping_sub(1);
        }
        lowest(byte) + u8::try_from(shift).unwrap_or(0)
    }
}

/// Place of the lowest one; of none, 64.
fn lowest(bits: u64) -> u8 {
    u8::try_from(bits.trailing_zeros()).unwrap_or(64)
}

impl Iterator for Slots {
    type Item = u8;
    fn next(&mut self) -> Option<u8> {
        let slot = self.first()?;
        self.0 &= self.0 - 1;
        Some(slot)
    }
}

impl FromIterator<u8> for Slots {
    fn from_iter<I: IntoIterator<Item = u8>>(slots: I) -> Slots {
        let mut set = Slots::NONE;
        slots.into_iter().for_each(|slot| set.add(slot));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETS: [u64; 8] =
        [1, 0b1011, 0x8000_0000_0000_0001, 0xff00, u64::MAX, 1 << 63, 0xaaaa << 20, 0x7fff << 48];

    #[test]
    fn a_set_is_a_set() {
        use std::collections::BTreeSet;
        let set = |bits: u64| -> BTreeSet<u8> { (0..64).filter(|s| bits >> s & 1 != 0).collect() };
        for (a, b) in SETS.into_iter().flat_map(|a| SETS.into_iter().map(move |b| (a, b))) {
            let (slots, other) = (Slots(a), Slots(b));
            let (model, others) = (set(a), set(b));
            assert!(slots.and(other).eq(model.intersection(&others).copied()), "{a:x} {b:x}");
            assert!(slots.without(other).eq(model.difference(&others).copied()), "{a:x} {b:x}");
            let mut joined = slots;
            others.iter().for_each(|&slot| joined.insert(PathId { slot, generation: 3 }));
            assert_eq!(joined, model.union(&others).copied().collect(), "{a:x} {b:x}");
            others.iter().for_each(|&slot| joined.remove(slot));
            assert!(joined.eq(model.difference(&others).copied()), "{a:x} {b:x}");
        }
        for bits in SETS.into_iter().chain([0]) {
            let (slots, model) = (Slots(bits), set(bits));
            assert_eq!((slots.len() as usize, slots.is_empty()), (model.len(), model.is_empty()));
            assert_eq!(slots.is_single(), model.len() == 1);
            assert_eq!(slots.first(), model.first().copied());
            for slot in 0..64 {
                assert_eq!(slots.has(slot), model.contains(&slot));
                assert_eq!(slots.contains(PathId { slot, generation: 1 }), slots.has(slot));
            }
            assert!(!slots.has(64) && !slots.has(255), "there is no such slot");
            let mut none = slots;
            none.clear();
            assert_eq!(none, Slots::NONE);
        }
    }

    #[test]
    fn nth_counts_as_the_iterator_does() {
        for bits in SETS {
            let all: Vec<u8> = Slots(bits).collect();
            assert_eq!(all.len(), Slots(bits).len() as usize);
            let nth: Vec<u8> = (0..Slots(bits).len()).map(|k| Slots(bits).nth(k)).collect();
            assert_eq!(nth, all, "{bits:x}");
        }
    }

    #[test]
    fn next_after_goes_round() {
        for bits in SETS {
            let set = Slots(bits);
            let all: Vec<u8> = set.collect();
            for slot in 0..64 {
                let next = all.iter().copied().find(|&s| s > slot).unwrap_or(all[0]);
                assert_eq!(set.next_after(slot), Some(next), "{bits:x} {slot}");
            }
        }
        assert_eq!(Slots::NONE.next_after(3), None);
    }

    #[test]
    fn runs_are_all_members_in_order_and_have_no_gap_to_join_over() {
        for bits in SETS.into_iter().chain([0]) {
            let runs: Vec<Range<usize>> = Slots(bits).runs().collect();
            let members: Vec<usize> = runs.iter().cloned().flatten().collect();
            assert_eq!(members, Slots(bits).map(usize::from).collect::<Vec<_>>(), "{bits:x}");
            assert!(runs.windows(2).all(|w| w[0].end < w[1].start), "{runs:?}");
        }
    }
}
