//! The paths as one queue thread sees them: load, local verdicts, and who has
//! been out the longest.

use std::time::Duration;

use super::parts::{NONE, PartIndex, Parts, Place};
use crate::io::{Op, Time};
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
    mark: Option<(u32, Mark)>,
    load: Load,
    full: bool,
    /// Parts on the path, oldest first.
    head: u32,
    tail: u32,
}

/// All paths of the map, by slot.
#[derive(Debug, Default)]
pub(super) struct Paths {
    slots: Vec<Slot>,
    /// A path of the present table carries an `Undecided` mark.
    undecided: bool,
}

impl Paths {
    /// Takes a new table.
    pub(super) fn update(&mut self, table: &PathTable) {
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
            slot.full = false;
            if slot.mark.is_some_and(|(epoch, _)| epoch < view.epoch) {
                slot.mark = None;
            }
        }
        let undecided = |v: &PathView| {
            self.slots[usize::from(v.id.slot)].mark == Some((v.epoch, Mark::Undecided))
        };
        self.undecided = table.groups.iter().flat_map(|g| &g.paths).any(undecided);
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

    pub(super) fn load(&self, id: PathId) -> Load {
        self.slot(id).map_or(Load { bytes: 0, commands: 0 }, |s| s.load)
    }

    /// A path the table calls usable awaits the engine's decision.
    pub(super) fn any_undecided(&self) -> bool {
        self.undecided
    }

    /// Records a verdict; true if it is news.
    pub(super) fn mark(&mut self, id: PathId, epoch: u32, mark: Mark) -> bool {
        let Some(slot) = self.slot_mut(id) else { return false };
        match slot.mark {
            Some((e, m)) if e > epoch || (e == epoch && (m == Mark::Failed || m == mark)) => {
                return false;
            }
            _ => slot.mark = Some((epoch, mark)),
        }
        if mark == Mark::Undecided {
            self.undecided = true;
        }
        true
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
        part.seen_hung = false;
        if part.passthrough {
            part.next_is_passthrough = false;
        }
        part.bytes = match part.op {
            Op::Read(e) | Op::Write { extent: e, .. } => e.blocks.0,
            Op::Flush | Op::Unmap | Op::WriteZeroes { .. } => 0,
        };
        slot.load.bytes += part.bytes;
        slot.load.commands += 1;
        (part.prev, part.next) = (slot.tail, NONE);
        if slot.tail == NONE {
            slot.head = index.0;
        } else {
            parts[PartIndex(slot.tail)].next = index.0;
        }
        slot.tail = index.0;
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
        slot.full = false;
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
        self.slots.iter().filter_map(|s| Some(parts[first_unseen(s, parts)?].issued))
    }

    /// The next command that has been out for `after` and was not seen before.
    pub(super) fn next_hung(
        &mut self,
        parts: &mut Parts,
        now: Time,
        after: Duration,
    ) -> Option<PartIndex> {
        let index = self
            .slots
            .iter()
            .filter_map(|s| first_unseen(s, parts))
            .find(|&i| parts[i].issued + after <= now)?;
        parts[index].seen_hung = true;
        Some(index)
    }
}

/// Commands are listed in order of issue, so the seen ones come first.
fn first_unseen(slot: &Slot, parts: &Parts) -> Option<PartIndex> {
    let mut at = slot.head;
    while at != NONE {
        let part = &parts[PartIndex(at)];
        if !part.seen_hung {
            return Some(PartIndex(at));
        }
        at = part.next;
    }
    None
}

impl Slot {
    fn new(id: PathId) -> Slot {
        let load = Load { bytes: 0, commands: 0 };
        Slot { id, mark: None, load, full: false, head: NONE, tail: NONE }
    }
}
