//! The paths as one queue thread sees them: load, local verdicts, and who has
//! been out the longest.

use std::time::Duration;

use super::parts::{NONE, PartIndex, Parts, Place};
use crate::io::Time;
use crate::mpath::event::IoReport;
use crate::mpath::selector::Load;
use crate::mpath::snapshot::{PathId, PathTable, PathView};

/// A local verdict on a path, until a table with a later epoch revokes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It failed.
    Failed,
    /// Hung, or its identity is in doubt: the engine decides.
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
    load: Load,
    full: bool,
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
                debug_assert_eq!(self.slots[i].load.commands, 0);
                self.slots[i] = Slot::new(view.id);
            }
            let slot = &mut self.slots[i];
            slot.listed = Some(view.epoch);
            if slot.mark.is_some_and(|(epoch, _)| epoch < view.epoch) {
                slot.mark = None;
                slot.unanswered = None;
            }
        }
        for slot in self.slots.iter_mut().filter(|s| s.listed.is_none()) {
            slot.unanswered = None;
        }
        self.look_for_undecided();
    }

    fn look_for_undecided(&mut self) {
        let undecided =
            |s: &Slot| s.listed.is_some_and(|epoch| s.mark.is_some_and(|(e, _)| e == epoch));
        self.undecided = self.slots.iter().any(undecided);
    }

    fn slot(&self, id: PathId) -> Option<&Slot> {
        self.slots.get(usize::from(id.slot)).filter(|s| s.id == id)
    }

    fn slot_mut(&mut self, id: PathId) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(id.slot)).filter(|s| s.id == id)
    }

    /// Whether nothing is held against it here.
    pub(super) fn is_usable(&self, view: &PathView) -> bool {
        self.slot(view.id).is_some_and(|s| s.mark.is_none_or(|(epoch, _)| epoch < view.epoch))
    }

    pub(super) fn is_full(&self, id: PathId) -> bool {
        self.slot(id).is_some_and(|s| s.full)
    }

    pub(super) fn set_full(&mut self, id: PathId) {
        if let Some(slot) = self.slot_mut(id) {
            slot.full = true;
        }
    }

    pub(super) fn none_is_full(&mut self) {
        for slot in &mut self.slots {
            slot.full = false;
        }
    }

    /// Nothing is on any path.
    pub(super) fn all_idle(&self) -> bool {
        self.slots.iter().all(|s| s.load.commands == 0)
    }

    pub(super) fn load(&self, id: PathId) -> Load {
        self.slot(id).map_or(Load { bytes: 0, commands: 0 }, |s| s.load)
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
        self.look_for_undecided();
        true
    }

    /// It may lead elsewhere now, whenever the command that learned so was
    /// issued: nothing goes there until a table with a later epoch.
    pub(super) fn doubt(&mut self, now: Time, report: IoReport) {
        let epoch = self.slot(report.path).and_then(|s| s.listed);
        if let Some(epoch) = epoch {
            self.mark(now, IoReport { epoch, ..report }, Mark::Undecided);
        }
    }

    /// A report to repeat, if one is due.
    pub(super) fn next_unanswered(&mut self, now: Time) -> Option<IoReport> {
        let (report, at) =
            self.slots.iter_mut().filter_map(|s| s.unanswered.as_mut()).find(|u| u.1 <= now)?;
        *at = now + REPEAT_AFTER;
        Some(*report)
    }

    /// When the next report is due to be repeated.
    pub(super) fn next_repetition(&self) -> Option<Time> {
        self.slots.iter().filter_map(|s| Some(s.unanswered?.1)).min()
    }

    /// A part goes onto a path, with the `bytes` it counts for there.
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
        if part.passthrough {
            part.next_is_passthrough = false;
        }
        part.same_path = None;
        slot.load.bytes += part.bytes;
        slot.load.commands += 1;
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
        let (id, epoch, prev, next, bytes) =
            (part.path, part.epoch, part.prev, part.next, part.bytes);
        let slot = self.slots.get_mut(usize::from(id.slot))?;
        if slot.unseen == index.0 {
            slot.unseen = next;
        }
        slot.load.bytes -= bytes;
        slot.load.commands -= 1;
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
        let load = Load { bytes: 0, commands: 0 };
        Slot {
            id,
            listed: None,
            mark: None,
            unanswered: None,
            load,
            full: false,
            head: NONE,
            tail: NONE,
            unseen: NONE,
        }
    }
}
