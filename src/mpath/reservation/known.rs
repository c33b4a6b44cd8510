//! How what is known of the guest's registration and reservation changes.
//!
//! Nothing is asked here: scripts (`orders`, `lifecycle`, `alone`) say what they
//! have learnt, and once (`Script::once`). What a successor is to remember and
//! the administrator to hear goes out with it.

use super::{News, Recall, Registration, Remembered, Reservations, State, told};
use crate::mpath::Multipath;
use crate::mpath::effect::{Effect, Effects};
use crate::mpath::snapshot::PathId;
use crate::scsi::reservation::{Held, Key, Numbered, Type};

impl Multipath {
    /// The guest's registration is another; one path has it already.
    pub(super) fn commit(&mut self, leader: PathId, after: Option<Remembered>, fx: &mut Effects) {
        let state = &mut self.reservations.state;
        match after {
            Some(after) if state.registered == Some(after) => {}
            Some(after) => {
                let another = state.registered.is_none_or(|before| before.key != after.key);
                state.registered = Some(after);
                if another {
                    self.reservations.ghosts = 0;
                    self.reservations.haunted = None;
                }
                told(fx, News::Registered(after.key));
                fx.push(Effect::Remember(Some(after)));
            }
            None => self.unregister(fx),
        }
        self.reservations.recall = None;
        self.unsettle_others(leader);
        if let Some(path) = self.path_mut(leader) {
            let registered = Registration::Registered;
            path.nexus.settled(after.map_or(Registration::None, |_| registered));
        }
    }

    /// The array lists the guest's key more often than ghosts could have it, or nobody can
    /// have removed it meanwhile.
    pub(super) fn vouch(&mut self, keys: &Numbered<Vec<Key>>) {
        let Some(registered) = self.reservations.state.registered else { return };
        let ghosts = self.all().filter(|p| p.nexus.ghost).count() + self.reservations.ghosts;
        let listed = registered.count(&keys.what);
        if listed > ghosts || (listed > 0 && self.is_vouched_for(keys.generation)) {
            self.reservations.vouched = Some((registered.key, keys.generation));
        }
    }

    /// The guest had that key at that PRGENERATION, by what is no ghost; so many commands
    /// of ours have been executed since that make another.
    pub(super) fn vouch_at(&mut self, key: Key, generation: u32, commands: u32) {
        self.reservations.vouched = Some((key, generation.wrapping_add(commands)));
    }

    /// A command of ours has been executed that makes another PRGENERATION.
    pub(super) fn generated(&mut self) {
        if let Some((_, generation)) = &mut self.reservations.vouched {
            *generation = generation.wrapping_add(1);
        }
    }

    /// Of a key that the array lists: it was there all the time since it was registered by
    /// what is no ghost. To remove it and to register it again makes two PRGENERATIONs.
    pub(super) fn is_vouched_for(&self, generation: u32) -> bool {
        self.vouched().is_some_and(|vouched| generation.wrapping_sub(vouched) <= 1)
    }

    /// It may have been removed and registered again.
    pub(super) fn has_changed(&self, generation: u32) -> bool {
        self.vouched().is_some() && !self.is_vouched_for(generation)
    }

    /// The same of what this path has; where nothing vouches for it, and it has just joined,
    /// as well.
    pub(super) fn may_have_changed(&self, generation: u32, path: PathId) -> bool {
        let joined = self.path(path).is_some_and(|p| p.nexus.had.is_none());
        self.has_changed(generation) || (joined && self.vouched().is_none())
    }

    fn vouched(&self) -> Option<u32> {
        let Reservations { vouched, state, .. } = &self.reservations;
        vouched.filter(|(key, _)| state.key() == Some(*key)).map(|(_, generation)| generation)
    }

    /// These may be registered yet, at any later time.
    pub(super) fn expect_ghosts(&mut self, paths: &[PathId]) {
        let left = paths.iter().filter(|id| self.path(**id).is_none()).count();
        self.reservations.ghosts += left;
        for path in self.paths.iter_mut().flatten().filter(|p| paths.contains(&p.id)) {
            path.nexus.ghost = true;
        }
    }

    /// The guest has no registration, and wanted none.
    pub(super) fn unregister(&mut self, fx: &mut Effects) {
        self.has_nothing();
        fx.push(Effect::Remember(None));
        told(fx, News::Unregistered);
    }

    pub(super) fn has_nothing(&mut self) {
        self.reservations.state = State::default();
        (self.reservations.ghosts, self.reservations.vouched) = (0, None);
        self.reservations.haunted = None;
    }

    /// The guest has no registration; what its nexuses have nobody knows.
    pub(super) fn doubt_nexuses(&mut self) {
        self.reservations.ever = true;
        self.paths.iter_mut().flatten().for_each(|path| path.nexus.unsettled());
    }

    pub(super) fn unsettle_others(&mut self, leader: PathId) {
        for path in self.paths.iter_mut().flatten().filter(|p| p.id != leader) {
            path.nexus.unsettled();
            path.nexus.listens = false;
        }
    }

    /// What the guest has registered, the array is to say.
    pub(super) fn doubt_registration(&mut self, recall: Recall) {
        self.reservations.recall = Some(recall);
        for path in self.paths.iter_mut().flatten() {
            path.nexus.unsettled();
        }
    }

    pub(super) fn reserved_by(
        &mut self,
        kind: Option<Type>,
        holder: Option<PathId>,
        fx: &mut Effects,
    ) {
        let state = &mut self.reservations.state;
        let before = std::mem::replace(&mut state.held, kind);
        state.holder = holder;
        // Whose word a conflict was says nothing of the next.
        self.reservations.contested = None;
        self.paths.iter_mut().flatten().for_each(|path| path.nexus.consults = None);
        if let Some(path) = holder.and_then(|id| self.path_mut(id)) {
            // What it has registered has the reservation, whenever it came.
            path.nexus.ghost = false;
        }
        match kind {
            Some(kind) if before != Some(kind) => told(fx, News::Reserved(kind)),
            None if before.is_some() => told(fx, News::Released),
            _ => {}
        }
    }

    /// The array says who holds the LU: the guest, perhaps by an order that was
    /// lost, or by a path that has left.
    pub(super) fn noticed(&mut self, held: Held, fx: &mut Effects) {
        let state = &self.reservations.state;
        let ours = state.key() == Some(held.key) && !held.kind.is_of_all_registrants();
        if ours && state.held != Some(held.kind) {
            self.reserved_by(Some(held.kind), None, fx);
        }
    }

    pub(super) fn took_over(&mut self, leader: PathId, fx: &mut Effects) {
        self.reservations.state.holder = Some(leader);
        if let Some(path) = self.path(leader) {
            told(fx, News::TakenOver(path.name.clone()));
        }
    }
}
