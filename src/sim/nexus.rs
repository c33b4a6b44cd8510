//! One I_T nexus: one path, as the array sees it.

use std::collections::VecDeque;

use super::attention::Attentions;
use super::{Faults, ItNexus, LuId, NexusId, Stats, Task};
use crate::scsi::sense::SenseCode;

/// One path.
#[derive(Debug)]
pub(super) struct Nexus {
    pub(super) name: String,
    /// Its ports, and the group of the target port.
    pub(super) it: ItNexus,
    pub(super) group: u16,
    /// The LU its LUN leads to when nothing is wrong, and now.
    pub(super) home: LuId,
    pub(super) lu: Option<LuId>,
    pub(super) faults: Faults,
    /// Unit attention conditions not yet reported.
    pub(super) attentions: Attentions,
    pub(super) stats: Stats,
    /// What waits for the host to unblock the path.
    pub(super) held: VecDeque<Task>,
}

impl Nexus {
    /// Conditions that were pending are gone: the loss of the nexus comes
    /// after them and says more (SAM-5 5.14.5).
    pub(super) fn plug(&mut self) {
        self.attentions.clear();
        self.attentions.raise(SenseCode::NEXUS_LOSS);
        if self.lu.replace(self.home) != Some(self.home) {
            self.attentions.raise(SenseCode::INQUIRY_DATA_CHANGED);
            self.attentions.raise(SenseCode::REPORTED_LUNS_CHANGED);
        }
    }
}

/// All of them, ascending: they are few, and looked up with every task.
#[derive(Debug, Default)]
pub(super) struct Nexuses {
    list: Vec<(NexusId, Nexus)>,
    next: u16,
}

impl Nexuses {
    fn place(&self, id: NexusId) -> Result<usize, usize> {
        // Mostly none was ever removed.
        match self.list.get(usize::from(id.0)) {
            Some((there, _)) if *there == id => Ok(usize::from(id.0)),
            _ => self.list.binary_search_by_key(&id, |(id, _)| *id),
        }
    }

    pub(super) fn get(&self, id: NexusId) -> Option<&Nexus> {
        self.place(id).ok().map(|at| &self.list[at].1)
    }

    pub(super) fn get_mut(&mut self, id: NexusId) -> Option<&mut Nexus> {
        self.place(id).ok().map(|at| &mut self.list[at].1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NexusId, &Nexus)> {
        self.list.iter().map(|(id, nexus)| (*id, nexus))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (NexusId, &mut Nexus)> {
        self.list.iter_mut().map(|(id, nexus)| (*id, nexus))
    }

    /// The id that the next one gets: as late as possible one that was in use.
    pub(super) fn next_id(&mut self) -> NexusId {
        while self.place(NexusId(self.next)).is_ok() {
            self.next = self.next.wrapping_add(1);
        }
        NexusId(self.next)
    }

    pub(super) fn insert(&mut self, id: NexusId, nexus: Nexus) {
        self.next = id.0.wrapping_add(1);
        match self.place(id) {
            Ok(at) => self.list[at] = (id, nexus),
            Err(at) => self.list.insert(at, (id, nexus)),
        }
    }

    pub(super) fn remove(&mut self, id: NexusId) -> Option<Nexus> {
        self.place(id).ok().map(|at| self.list.remove(at).1)
    }
}
