//! The parts of requests: a fixed pool, indexed, with generations.

use std::ops::{Index, IndexMut};
use std::time::Duration;

use super::cut::{Progress, skip_bytes};
use crate::io::{Blocks, Extent, Lba, Op, Outcome, Segment, Time};
use crate::mpath::selector::Want;
use crate::mpath::snapshot::PathId;

/// Index of a part in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartIndex(pub(super) u32);

/// Names one command to the transport and back. At most 40 bits, so that a
/// reactor can add its own tag and the map; the same for two commands on the
/// same part only when millions have come between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cookie(pub u64);

const INDEX_BITS: u32 = 16;
const GENERATION_BITS: u32 = 24;

/// Where a part is: exactly one of these (law 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the pool.
    Free,
    /// Wants a path now.
    Ready,
    /// No path is left.
    Held,
    /// Waits for a moment.
    Delayed,
    /// In the hands of a path until its completion.
    OnPath,
}

/// A set of paths, by slot.
pub(super) use crate::mpath::selector::Slots as PathSet;

/// No neighbour in a path's list.
pub(super) const NONE: u32 = u32::MAX;

/// A piece of a request that fits the map's limits.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) request: u32,
    pub(super) op: Op,
    pub(super) place: Place,
    /// It is all of the request: data and extents are the request's own.
    pub(super) whole: bool,
    pub(super) data: Vec<Segment>,
    pub(super) extents: Vec<Extent>,
    /// Blocks this part is still to cover after the present command, and
    /// their data; none for zeroes.
    pub(super) left: Extent,
    pub(super) left_data: Vec<Segment>,
    /// It writes zeroes where WRITE SAME is not to be had.
    pub(super) zeroes: bool,
    /// The limits it was cut for.
    pub(super) limits_generation: u32,
    pub(super) passthrough: bool,
    /// `passthrough` was asked for and no path has been asked that way yet.
    pub(super) next_is_passthrough: bool,
    /// The command that is out, or was last, went so.
    pub(super) went_by_passthrough: bool,
    /// It met a RESERVATION CONFLICT that may have been a path's, issued by the
    /// table of this generation.
    pub(super) conflicted: Option<u64>,
    /// The path whose block layer ended it with an error that says little.
    pub(super) accused: Option<PathId>,
    /// Paths that have answered it.
    pub(super) tried: PathSet,
    /// The only usable path has been asked a second time.
    pub(super) asked_twice: bool,
    /// What all paths agree on may pass: pause before the next round.
    pub(super) patience: Option<Duration>,
    /// What all paths agree on may have passed already: rounds yet to come.
    pub(super) rounds: Option<u8>,
    /// A path of this round had transport trouble that did not fail it.
    pub(super) trouble: bool,
    /// Immediate repetitions.
    pub(super) again: u8,
    /// Unit attentions it has met that the guest knew of.
    pub(super) attentions: u8,
    /// The next command goes to this path if it can.
    pub(super) same_path: Option<PathId>,
    /// Every path that lost it did so by a timeout; `None`: none has lost it.
    pub(super) only_timeouts: Option<bool>,
    /// Since when it has waited for the LU, or for transport trouble to pass;
    /// later by what paths that failed have cost, and by waiting for room on one.
    pub(super) first_delay: Option<Time>,
    /// Since when it has been held, now and again.
    pub(super) held_since: Option<Time>,
    /// From when on it wants a path: it came back then, or its delay ended.
    pub(super) wake: Time,
    /// The last answer, the rule and the path it came by.
    pub(super) answer: Option<(Outcome, &'static str, PathId)>,
    // On a path:
    pub(super) path: PathId,
    pub(super) epoch: u32,
    pub(super) issued: Time,
    pub(super) want: Want,
    /// When, by the clock of the unit attentions.
    pub(super) sent: u64,
    /// By which table: its generation.
    pub(super) table: u64,
    pub(super) prev: u32,
    pub(super) next: u32,
    generation: u32,
}

impl Part {
    fn blank() -> Part {
        Part {
            request: 0,
            op: Op::Flush,
            place: Place::Free,
            whole: false,
            data: Vec::new(),
            extents: Vec::new(),
            left: Extent::default(),
            left_data: Vec::new(),
            zeroes: false,
            limits_generation: 0,
            passthrough: false,
            next_is_passthrough: false,
            went_by_passthrough: false,
            conflicted: None,
            accused: None,
            tried: PathSet::default(),
            asked_twice: false,
            patience: None,
            rounds: None,
            trouble: false,
            again: 0,
            attentions: 0,
            same_path: None,
            only_timeouts: None,
            first_delay: None,
            held_since: None,
            wake: Time::default(),
            answer: None,
            path: PathId { slot: 0, generation: 0 },
            epoch: 0,
            issued: Time::default(),
            want: Want::default(),
            sent: 0,
            table: 0,
            prev: NONE,
            next: NONE,
            generation: 0,
        }
    }

    fn next_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1) & ((1 << GENERATION_BITS) - 1);
    }

    /// How it ends when no path is left.
    pub(super) fn no_path(&self) -> (Outcome, &'static str) {
        if self.only_timeouts == Some(true) {
            (Outcome::TimedOut, "timed-out")
        } else {
            (Outcome::NoPath, "no-path")
        }
    }

    /// A path has lost it.
    pub(super) fn lost(&mut self, by_timeout: bool) {
        self.only_timeouts = Some(by_timeout && self.only_timeouts.unwrap_or(true));
    }

    /// The path it was on is to blame, not the LU: the time it was out there is
    /// none that the LU has had to become ready (`first_delay`).
    pub(super) fn not_the_lus_time(&mut self, now: Time) {
        self.first_delay = self.first_delay.map(|since| since + now.since(self.issued));
    }

    /// Nobody has said anything yet.
    pub(super) fn new_round(&mut self) {
        self.tried.clear();
        self.patience = None;
        self.trouble = false;
        self.asked_twice = false;
    }
}

/// The pool. It grows on demand.
#[derive(Debug)]
pub(super) struct Parts {
    items: Vec<Part>,
    most: usize,
    free: Vec<PartIndex>,
}

impl Parts {
    /// Most parts a cookie can name.
    pub(super) const MOST: usize = 1 << INDEX_BITS;

    pub(super) fn at_most(n: usize) -> Parts {
        Parts { items: Vec::new(), most: n.min(Parts::MOST), free: Vec::new() }
    }

    /// Takes a part from the pool for `request`, ready for a path.
    pub(super) fn take(&mut self, request: u32, op: Op) -> Option<PartIndex> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.items.len() < self.most => {
                self.items.push(Part::blank());
                PartIndex(u32::try_from(self.items.len() - 1).ok()?)
            }
            None => return None,
        };
        let part = &mut self[index];
        part.request = request;
        part.op = op;
        part.place = Place::Ready;
        part.whole = false;
        part.data.clear();
        part.extents.clear();
        part.left = Extent::default();
        part.left_data.clear();
        part.zeroes = false;
        part.passthrough = false;
        part.next_is_passthrough = false;
        part.went_by_passthrough = false;
        part.conflicted = None;
        part.accused = None;
        part.new_round();
        part.rounds = None;
        part.again = 0;
        part.attentions = 0;
        part.same_path = None;
        part.only_timeouts = None;
        part.first_delay = None;
        part.held_since = None;
        part.answer = None;
        Some(index)
    }

    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty() || self.items.len() < self.most
    }

    pub(super) fn free(&mut self, index: PartIndex) {
        let part = &mut self[index];
        debug_assert!(part.place != Place::Free && part.place != Place::OnPath);
        part.place = Place::Free;
        part.next_generation();
        self.free.push(index);
    }

    pub(super) fn cookie(&self, index: PartIndex) -> Cookie {
        Cookie(u64::from(self[index].generation) << INDEX_BITS | u64::from(index.0))
    }

    /// The part on a path that this cookie names.
    pub(super) fn find(&self, cookie: Cookie) -> Option<PartIndex> {
        let index = u32::try_from(cookie.0 & ((1 << INDEX_BITS) - 1)).ok()?;
        let part = self.items.get(index as usize)?;
        let index = PartIndex(index);
        (part.place == Place::OnPath && self.cookie(index) == cookie).then_some(index)
    }

    /// The part has left its path: its cookie is spent.
    pub(super) fn spend_cookie(&mut self, index: PartIndex) {
        self[index].next_generation();
    }

    /// Moves a part past the first `blocks` of its transfer.
    pub(super) fn advance(
        &mut self,
        index: PartIndex,
        blocks: Blocks,
        block_size: u64,
        request_data: &[Segment],
    ) -> Progress {
        let part = &mut self[index];
        let extent = match part.op {
            Op::Read(extent) | Op::Write { extent, .. } => extent,
            Op::Flush | Op::Unmap | Op::WriteZeroes { .. } | Op::Cdb { .. } => {
                return Progress::None;
            }
        };
        if blocks.0 == 0 {
            return Progress::None;
        }
        if blocks.0 >= extent.blocks.0 {
            return Progress::All;
        }
        let rest = Extent {
            lba: Lba(extent.lba.0 + blocks.0),
            blocks: Blocks(extent.blocks.0 - blocks.0),
        };
        let Ok(bytes) = usize::try_from(blocks.0 * block_size) else { return Progress::None };
        if part.whole {
            part.data.clear();
            part.data.extend_from_slice(request_data);
            part.whole = false;
        }
        skip_bytes(&mut part.data, bytes);
        part.op = match part.op {
            Op::Write { fua, .. } => Op::Write { extent: rest, fua },
            _ => Op::Read(rest),
        };
        // It moved: what was said before was about other blocks.
        part.new_round();
        part.held_since = None;
        part.again = 0;
        Progress::Some
    }
}

impl Index<PartIndex> for Parts {
    type Output = Part;
    fn index(&self, index: PartIndex) -> &Part {
        &self.items[index.0 as usize]
    }
}

impl IndexMut<PartIndex> for Parts {
    fn index_mut(&mut self, index: PartIndex) -> &mut Part {
        &mut self.items[index.0 as usize]
    }
}
