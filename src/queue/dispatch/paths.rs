//! The paths as one queue thread sees them: local verdicts, who may take a
//! command, and who has been out the longest. (Their load is the selector's.)

use std::time::Duration;

use super::bypass::BlockLayer;
use super::parts::{NONE, PartIndex, Parts, PathSet, Place};
use crate::io::Time;
use crate::mpath::event::IoReport;
use crate::mpath::snapshot::{GroupView, PathId, PathTable};

/// A local verdict on a path, until a table with a later epoch revokes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It failed.
    Failed,
    /// Hung, passive, or not registered: the engine decides.
    Undecided,
}

#[derive(Debug)]
struct Slot {
    id: PathId,
    /// Its epoch in the present table; `None` if the table does not name it.
    listed: Option<u32>,
    mark: Option<(u32, Mark)>,
    /// What was reported when it was marked, and when to say it again: until
    /// a table answers.
    unanswered: Option<(IoReport, Time)>,
    /// The epoch it was listed with last, and the generation of the first table
    /// with that epoch.
    last: u32,
    since: u64,
    /// It may lead elsewhere, since that epoch, until it is listed with a later
    /// proof; what was reported, and when to say it again.
    doubt: Option<(u32, IoReport, Time)>,
    block_layer: BlockLayer,
    /// Parts on the path, oldest first.
    head: u32,
    tail: u32,
    /// The oldest of them not yet seen to hang. (Those seen come before it.)
    unseen: u32,
}

/// A report to which no table has come is repeated after this long.
const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// All paths of the map, by slot.
#[derive(Debug, Default)]
pub(super) struct Paths {
    slots: Vec<Slot>,
    /// The paths of each group of the present table.
    groups: Vec<PathSet>,
    /// Paths of the present table that nothing is held against here.
    usable: PathSet,
    /// Paths that turned a command away a moment ago.
    full: PathSet,
    /// A path of the present table carries a mark.
    undecided: bool,
}

impl Paths {
    /// Takes a new table.
    pub(super) fn update(&mut self, table: &PathTable) {
        for slot in &mut self.slots {
            slot.listed = None;
        }
        for view in table.groups.iter().flat_map(|g| &g.paths) {
            let i = usize::from(view.id.slot);
            while self.slots.len() <= i {
                let slot = u8::try_from(self.slots.len()).unwrap_or(u8::MAX);
                self.slots.push(Slot::new(PathId { slot, generation: 0 }));
            }
            if self.slots[i].id != view.id {
                // The slot's old path has gone for good: the owner reuses a
                // slot only after its last command returned (law 10).
                debug_assert_eq!(self.slots[i].head, NONE);
                self.slots[i] = Slot::new(view.id);
            }
            let slot = &mut self.slots[i];
            slot.listed = Some(view.epoch);
            if slot.last != view.epoch || slot.since == 0 {
                slot.since = table.generation;
            }
            slot.last = view.epoch;
            slot.doubt = slot.doubt.filter(|(since, ..)| view.proven <= *since);
            if slot.mark.is_some_and(|(epoch, _)| epoch < view.epoch) {
                slot.mark = None;
                slot.unanswered = None;
            }
        }
        for slot in self.slots.iter_mut().filter(|s| s.listed.is_none()) {
            slot.unanswered = None;
        }
        self.groups.clear();
        // What there may ever be: a path's return allocates nothing (law 6).
        self.groups.reserve(self.slots.len());
        let slots = |g: &GroupView| -> PathSet { g.paths.iter().map(|v| v.id.slot).collect() };
        self.groups.extend(table.groups.iter().map(slots));
        self.look_at_marks();
    }

    fn look_at_marks(&mut self) {
        let undecided = |s: &Slot| {
            let marked = |epoch| s.mark.is_some_and(|(e, _)| e == epoch);
            s.listed.is_some_and(|epoch| s.doubt.is_some() || marked(epoch))
        };
        self.undecided = self.slots.iter().any(undecided);
        let usable = |s: &&Slot| s.listed.is_some() && s.mark.is_none() && s.doubt.is_none();
        self.usable = self.slots.iter().filter(usable).map(|s| s.id.slot).collect();
    }

    /// What the block layer of a path has been worth.
    pub(super) fn block_layer(&self, id: PathId) -> Option<&BlockLayer> {
        let slot = self.slots.get(usize::from(id.slot)).filter(|s| s.id == id);
        slot.map(|s| &s.block_layer)
    }

    pub(super) fn block_layer_mut(&mut self, id: PathId) -> Option<&mut BlockLayer> {
        self.slot_mut(id).map(|s| &mut s.block_layer)
    }

    fn slot_mut(&mut self, id: PathId) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(id.slot)).filter(|s| s.id == id)
    }

    /// Number of groups of the present table.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Paths of a group that nothing is held against here.
    pub(super) fn usable(&self, group: usize) -> PathSet {
        self.groups.get(group).map_or(PathSet::NONE, |g| g.and(self.usable))
    }

    /// Paths that turned a command away.
    pub(super) fn full(&self) -> PathSet {
        self.full
    }

    pub(super) fn set_full(&mut self, id: PathId) {
        self.full.insert(id);
    }

    pub(super) fn none_is_full(&mut self) {
        self.full.clear();
    }

    /// The path that the present table has in a slot, and its epoch.
    pub(super) fn listed(&self, slot: u8) -> Option<(PathId, u32)> {
        let slot = self.slots.get(usize::from(slot))?;
        Some((slot.id, slot.listed?))
    }

    /// A path may carry something.
    pub(super) fn any_usable(&self) -> bool {
        (0..self.groups()).any(|group| !self.usable(group).is_empty())
    }

    /// Since which table's generation the present one's epoch of a path is
    /// what it is; `None` if it is another than `epoch`.
    pub(super) fn since(&self, id: PathId, epoch: u32) -> Option<u64> {
        let slot = self.slots.get(usize::from(id.slot)).filter(|s| s.id == id)?;
        (slot.listed == Some(epoch)).then_some(slot.since)
    }

    /// A path the table calls usable awaits the engine's decision, or has
    /// failed here, which the table does not know yet. Either way another
    /// table is to come, and may have a path that this one has not: one that
    /// was just reinstated.
    pub(super) fn any_undecided(&self) -> bool {
        self.undecided
    }

    /// Records a verdict; true if it is news. A verdict about another epoch
    /// than the table's is none: the engine has decided about that already.
    pub(super) fn mark(&mut self, now: Time, report: IoReport, mark: Mark) -> bool {
        let Some(slot) = self.slot_mut(report.path) else { return false };
        let known = matches!(slot.mark, Some((e, m))
            if e == report.epoch && (m == Mark::Failed || m == mark));
        if known || slot.listed != Some(report.epoch) {
            return false;
        }
        slot.mark = Some((report.epoch, mark));
        slot.unanswered = Some((report, now + REPEAT_AFTER));
        self.look_at_marks();
        true
    }

    /// It may lead elsewhere now, whenever the command that learned so was
    /// issued, and whether or not it is listed just now: nothing goes there
    /// until it is listed with a later proof.
    pub(super) fn doubt(&mut self, now: Time, report: IoReport) {
        if let Some(slot) = self.slot_mut(report.path) {
            slot.doubt = Some((slot.last, report, now + REPEAT_AFTER));
            self.look_at_marks();
        }
    }

    /// A report to repeat, if one is due.
    pub(super) fn next_unanswered(&mut self, now: Time) -> Option<IoReport> {
        let next = now + REPEAT_AFTER;
        for slot in &mut self.slots {
            if let Some((report, at)) = slot.unanswered.as_mut().filter(|u| u.1 <= now) {
                *at = next;
                return Some(*report);
            }
            // One that is not listed is nobody's choice; it may have left.
            let listed = slot.listed.is_some();
            if let Some((_, report, at)) = slot.doubt.as_mut().filter(|d| listed && d.2 <= now) {
                *at = next;
                return Some(*report);
            }
        }
        None
    }

    /// When the next report is due to be repeated.
    pub(super) fn next_repetition(&self) -> Option<Time> {
        let doubt = |s: &Slot| s.listed.and(s.doubt).map(|d| d.2);
        let times = |s: &Slot| [s.unanswered.map(|u| u.1), doubt(s)];
        self.slots.iter().flat_map(times).flatten().min()
    }

    /// A part goes onto a path.
    pub(super) fn put_on(
        &mut self,
        parts: &mut Parts,
        index: PartIndex,
        id: PathId,
        epoch: u32,
        now: Time,
    ) {
        let Some(slot) = self.slots.get_mut(usize::from(id.slot)) else { return };
        let part = &mut parts[index];
        part.place = Place::OnPath;
        part.path = id;
        part.epoch = epoch;
        part.issued = now;
        // The LU was not asked while all paths were full.
        part.first_delay = part.first_delay.map(|since| since + now.since(part.wake));
        if part.passthrough {
            part.next_is_passthrough = false;
        }
        part.same_path = None;
        (part.prev, part.next) = (slot.tail, NONE);
        if slot.tail == NONE {
            slot.head = index.0;
        } else {
            parts[PartIndex(slot.tail)].next = index.0;
        }
        slot.tail = index.0;
        if slot.unseen == NONE {
            slot.unseen = index.0;
        }
    }

    /// A part comes back; its path and the epoch it was issued at.
    pub(super) fn take_off(
        &mut self,
        parts: &mut Parts,
        index: PartIndex,
    ) -> Option<(PathId, u32)> {
        let part = &parts[index];
        let (id, epoch, prev, next) = (part.path, part.epoch, part.prev, part.next);
        let slot = self.slots.get_mut(usize::from(id.slot))?;
        if slot.unseen == index.0 {
            slot.unseen = next;
        }
        match prev {
            NONE => slot.head = next,
            p => parts[PartIndex(p)].next = next,
        }
        match next {
            NONE => slot.tail = prev,
            n => parts[PartIndex(n)].prev = prev,
        }
        parts.spend_cookie(index);
        parts[index].place = Place::Ready;
        Some((id, epoch))
    }

    /// Issue times of the oldest command per path not yet seen to hang.
    pub(super) fn oldest<'a>(&'a self, parts: &'a Parts) -> impl Iterator<Item = Time> + 'a {
        let unseen = self.slots.iter().map(|s| s.unseen).filter(|&i| i != NONE);
        unseen.map(|i| parts[PartIndex(i)].issued)
    }

    /// The next command that has been out for `after` and was not seen before.
    pub(super) fn next_hung(
        &mut self,
        parts: &Parts,
        now: Time,
        after: Duration,
    ) -> Option<PartIndex> {
        let due =
            |s: &&mut Slot| s.unseen != NONE && parts[PartIndex(s.unseen)].issued + after <= now;
        let slot = self.slots.iter_mut().find(due)?;
        let index = PartIndex(slot.unseen);
        slot.unseen = parts[index].next;
        Some(index)
    }
}

impl Slot {
    fn new(id: PathId) -> Slot {
        let (head, tail, unseen) = (NONE, NONE, NONE);
        Slot {
            id,
            listed: None,
            mark: None,
            unanswered: None,
            last: 0,
            since: 0,
            doubt: None,
            block_layer: BlockLayer::default(),
            head,
            tail,
            unseen,
        }
    }
}
