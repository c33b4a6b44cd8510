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
//!
//! A fact is kept only while it can bear on a read: a block's history stays a
//! handful of facts, however long the run.

/// A point in the order of events.
pub(crate) type Moment = u64;

/// Still under way.
const NEVER: Moment = Moment::MAX;

#[derive(Clone, Copy, Debug)]
struct Fact {
    value: u64,
    start: Moment,
    /// [`NEVER`] while the write is under way.
    end: Moment,
    certain: bool,
    /// What a read has seen, as opposed to what was written.
    seen: bool,
}

impl Fact {
    /// Whether it says what the block held before `moment`.
    fn settles(&self, moment: Moment) -> bool {
        self.certain && self.end < moment
    }
}

/// A write that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writing {
    lba: u64,
    blocks: u64,
    start: Moment,
}

/// History of all blocks.
#[derive(Debug)]
pub(crate) struct Shadow {
    blocks: Vec<Vec<Fact>>,
    /// No read that is under way or to come began before.
    horizon: Moment,
}

/// Facts of a block before the useless ones are looked for.
const FEW: usize = 8;

impl Shadow {
    /// All blocks hold zero.
    pub(crate) fn new(blocks: usize) -> Shadow {
        let zero = Fact { value: 0, start: 0, end: 0, certain: true, seen: false };
        let history = || {
            let mut history = Vec::with_capacity(2 * FEW);
            history.push(zero);
            history
        };
        Shadow { blocks: (0..blocks).map(|_| history()).collect(), horizon: 0 }
    }

    /// No read under way began before `moment`.
    pub(crate) fn forget_before(&mut self, moment: Moment) {
        self.horizon = moment;
    }

    fn history(&mut self, block: u64) -> &mut Vec<Fact> {
        &mut self.blocks[usize::try_from(block).unwrap()]
    }

    /// A write of `value` to a range begins.
    pub(crate) fn begin(&mut self, now: Moment, lba: u64, blocks: u64, value: u64) -> Writing {
        for block in lba..lba + blocks {
            let fact = Fact { value, start: now, end: NEVER, certain: true, seen: false };
            self.history(block).push(fact);
        }
        Writing { lba, blocks, start: now }
    }

    /// The write ended; `certain` if the guest was told that it succeeded.
    pub(crate) fn end(&mut self, now: Moment, w: Writing, certain: bool) {
        let horizon = self.horizon;
        for block in w.lba..w.lba + w.blocks {
            let history = self.history(block);
            let open = |f: &&mut Fact| f.start == w.start && f.end == NEVER;
            let fact = history.iter_mut().find(open).expect("began, and ends once");
            fact.end = now;
            fact.certain = certain;
            prune(history, horizon);
        }
    }

    /// The write of `value` to one block has certainly not happened.
    pub(crate) fn never(&mut self, w: Writing, value: u64) {
        assert_eq!(w.blocks, 1);
        let history = self.history(w.lba);
        let seen = history.iter().find(|f| f.seen && f.value == value);
        assert!(seen.is_none(), "block {}: what was not to be executed was: {seen:?}", w.lba);
        history.retain(|f| f.start != w.start || f.end != NEVER);
    }

    /// What was written to the block last, for all one knows.
    pub(crate) fn latest(&self, lba: u64) -> u64 {
        let history = &self.blocks[usize::try_from(lba).unwrap()];
        let certain = history.iter().filter(|f| f.settles(NEVER));
        certain.max_by_key(|f| f.end).map_or(0, |f| f.value)
    }

    /// Whether every write to the block but the one that began at `start` had
    /// ended by then.
    pub(crate) fn settled(&self, block: usize, start: Moment) -> bool {
        self.blocks[block].iter().all(|f| f.seen || f.start == start || f.end < start)
    }

    /// A read of one block from `start` to `now` returned `value`.
    pub(crate) fn read(
        &mut self,
        start: Moment,
        now: Moment,
        block: u64,
        value: u64,
    ) -> Result<(), String> {
        let horizon = self.horizon;
        let history = self.history(block);
        // What ended before was overwritten: for this read, and for later ones.
        let over = overwritten_before(history, start);
        if !history.iter().any(|f| f.value == value && f.end >= over) {
            return Err(format!(
                "block {block} read as {value:#x} from {start} to {now}: {history:?}"
            ));
        }
        let over = overwritten_before(history, NEVER);
        // It is news if it rules a value out, or that a write under way has happened.
        let is_news = |f: &Fact| match f.value == value {
            true => f.end == NEVER,
            false => f.end < start && f.end >= over,
        };
        if history.iter().any(is_news) {
            history.push(Fact { value, start, end: now, certain: true, seen: true });
            prune(history, horizon);
        }
        Ok(())
    }
}

/// For a read that began at `start`: writes that ended before this moment are
/// overwritten.
fn overwritten_before(history: &[Fact], start: Moment) -> Moment {
    history.iter().filter(|f| f.settles(start)).map(|f| f.start).max().unwrap_or(0)
}

/// Forgets what is overwritten for every read to come.
fn prune(history: &mut Vec<Fact>, horizon: Moment) {
    if history.len() < FEW {
        return;
    }
    let over = overwritten_before(history, horizon);
    history.retain(|f| f.end >= over);
}
