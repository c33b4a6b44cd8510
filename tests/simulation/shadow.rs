//! What every block may read as.
//!
//! Each write carries a value of its own. A read that runs from `start` to
//! `end` may return value *v* of a block if *v* was written by a write that
//! began before `end` and was not overwritten for certain: there is no other
//! certain write that began after *v*'s write had ended and ended before
//! `start`. A write that ended in an error is uncertain: it may or may not
//! have happened, but not later than its end. What a read has seen is a
//! certain fact as well: the block held that value at some moment of the read,
//! so a value whose write ended before that read cannot come back.

use std::collections::HashMap;

/// A point in the order of events.
pub(crate) type Moment = u64;

#[derive(Clone, Copy, Debug)]
struct Fact {
    value: u64,
    start: Moment,
    /// `None` while the write is under way.
    end: Option<Moment>,
    certain: bool,
    /// What a read has seen, as opposed to what was written.
    seen: bool,
}

/// History of all blocks.
#[derive(Debug)]
pub(crate) struct Shadow {
    blocks: Vec<Vec<Fact>>,
    writes: HashMap<u64, (u64, u64, u64)>,
    next: u64,
}

impl Shadow {
    /// All blocks hold zero.
    pub(crate) fn new(blocks: usize) -> Shadow {
        let zero = Fact { value: 0, start: 0, end: Some(0), certain: true, seen: false };
        Shadow { blocks: vec![vec![zero]; blocks], writes: HashMap::new(), next: 1 }
    }

    /// A write of `value` to a range begins; returns its handle.
    pub(crate) fn begin(&mut self, now: Moment, lba: u64, blocks: u64, value: u64) -> u64 {
        for block in lba..lba + blocks {
            let history = &mut self.blocks[usize::try_from(block).unwrap()];
            history.push(Fact { value, start: now, end: None, certain: true, seen: false });
        }
        let handle = self.next;
        self.next += 1;
        self.writes.insert(handle, (lba, blocks, now));
        handle
    }

    /// The write ended; `certain` if the guest was told that it succeeded.
    pub(crate) fn end(&mut self, now: Moment, handle: u64, certain: bool) {
        let (lba, blocks, start) = self.writes.remove(&handle).expect("a write ends once");
        for block in lba..lba + blocks {
            let history = &mut self.blocks[usize::try_from(block).unwrap()];
            let open = |f: &&mut Fact| f.start == start && f.end.is_none();
            let fact = history.iter_mut().find(open).expect("began");
            fact.end = Some(now);
            fact.certain = certain;
            prune(history);
        }
    }

    /// The write of `value` to one block has certainly not happened.
    pub(crate) fn never(&mut self, handle: u64, value: u64) {
        let (lba, blocks, start) = self.writes.remove(&handle).expect("a write ends once");
        assert_eq!(blocks, 1);
        let history = &mut self.blocks[usize::try_from(lba).unwrap()];
        let seen = history.iter().find(|f| f.seen && f.value == value);
        assert!(seen.is_none(), "block {lba}: what was not to be executed was: {seen:?}");
        history.retain(|f| f.start != start || f.end.is_some());
    }

    /// What was written to the block last, for all one knows.
    pub(crate) fn latest(&self, lba: u64) -> u64 {
        let history = &self.blocks[usize::try_from(lba).unwrap()];
        let certain = history.iter().filter(|f| f.certain && f.end.is_some());
        certain.max_by_key(|f| f.end).map_or(0, |f| f.value)
    }

    /// Whether every write to the block but the one that began at `start` had
    /// ended by then.
    pub(crate) fn settled(&self, block: usize, start: Moment) -> bool {
        let ended = |f: &&Fact| f.seen || f.start == start || f.end.is_some_and(|e| e < start);
        self.blocks[block].iter().all(|f| ended(&f))
    }

    /// A read of one block from `start` to `now` returned `value`.
    pub(crate) fn read(
        &mut self,
        start: Moment,
        now: Moment,
        block: u64,
        value: u64,
    ) -> Result<(), String> {
        let history = &mut self.blocks[usize::try_from(block).unwrap()];
        let overwritten = |f: &Fact| {
            f.end.is_some_and(|end| {
                history
                    .iter()
                    .any(|w| w.certain && w.start > end && w.end.is_some_and(|e| e < start))
            })
        };
        let possible = |f: &&Fact| f.value == value && !overwritten(f);
        if history.iter().any(|f| possible(&f)) {
            let seen = true;
            history.push(Fact { value, start, end: Some(now), certain: true, seen });
            prune(history);
            return Ok(());
        }
        Err(format!("block {block} read as {value:#x} from {start} to {now}: {history:?}"))
    }
}

/// Forgets what is overwritten for every read to come.
fn prune(history: &mut Vec<Fact>) {
    if history.len() < 24 {
        return;
    }
    // Reads under way may have begun long ago; keep a generous tail.
    let last_certain =
        history.iter().filter(|f| f.certain && f.end.is_some()).map(|f| f.start).max().unwrap_or(0);
    let horizon = last_certain.saturating_sub(100_000);
    history.retain(|f| f.end.is_none_or(|end| end >= horizon));
}
