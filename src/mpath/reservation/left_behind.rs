//! Registrations of the guest's that the array still has, though no path that
//! is in order has them: of paths that have left the map, or that were down
//! while the guest took another key, or none.
//!
//! They are counted for one purpose: that the guest, which knows of one nexus,
//! does not read them. To count too many is harmless, for no more is hidden
//! than the array lists; what it lists no more is forgotten each time it is
//! asked. Not remembered by a daemon that starts anew.

use super::script::Entry;
use super::{Ask, Registration, Reservations};
use crate::mpath::Multipath;
use crate::mpath::path::Path;
use crate::scsi::reservation::{Key, Out, OutAction, Registered};

/// The key by which a path's nexus was last known to be registered.
fn had(path: &Path) -> Option<Key> {
    path.nexus.had.filter(|_| path.nexus.registration == Registration::Unknown)
}

impl Out {
    /// It may register what had no such registration.
    pub(super) fn enters(&self) -> bool {
        let anew = match self.action {
            OutAction::Register => self.key != self.action_key,
            OutAction::RegisterAndIgnore => true,
            _ => false,
        };
        anew && !self.action_key.is_none()
    }
}

impl Multipath {
    /// The guest's registrations, as far as the array may list them: those of
    /// its key, then those of keys it had before.
    pub fn reservation(&self) -> Vec<Registered> {
        let key = self.reservations.state.key();
        let departed = self.reservations.departed.iter().copied();
        let left: Vec<Key> = self.all().filter_map(had).chain(departed).collect();
        let with = |key: Key| left.iter().filter(|left| **left == key).count();
        let current = key.map(|key| {
            let away = self.reservations.departed.iter().filter(|left| **left == key).count();
            let perhaps = self.all().filter(|p| p.nexus.registration != Registration::None).count();
            Registered { key, copies: away + perhaps, former: false }
        });
        let mut former: Vec<Key> = left.iter().copied().filter(|left| Some(*left) != key).collect();
        former.sort_unstable();
        former.dedup();
        let former = former.into_iter();
        let former = former.map(|key| Registered { key, copies: with(key), former: true });
        current.into_iter().chain(former).collect()
    }

    /// Which path has which key.
    pub(super) fn note_registrations(&mut self) {
        let key = self.reservations.state.key();
        for path in self.paths.iter_mut().flatten() {
            match path.nexus.registration {
                Registration::None => path.nexus.had = None,
                Registration::Registered => path.nexus.had = key,
                Registration::Unknown => {}
            }
        }
    }

    /// The array lists these keys, and no others.
    pub(super) fn listed(&mut self, keys: &[Key]) {
        for path in self.paths.iter_mut().flatten() {
            path.nexus.had = path.nexus.had.filter(|key| keys.contains(key));
        }
        let in_order = self.all().filter(|p| p.nexus.registration == Registration::Registered);
        let of_paths = in_order.count();
        let key = self.reservations.state.key();
        self.reservations.limit_departed(|left| {
            let listed = keys.iter().filter(|key| **key == left).count();
            listed.saturating_sub(if key == Some(left) { of_paths } else { 0 })
        });
    }
}

impl Reservations {
    /// A path leaves the map.
    pub(in crate::mpath) fn departs(&mut self, path: &Path) {
        self.departed.extend(path.nexus.had);
        self.ghosts += usize::from(path.nexus.ghost || self.is_entering(path));
    }

    /// A command is out that may register it, of which nobody hears any more. (With
    /// another key than the guest's it is not taken for the guest's, whenever it comes.)
    fn is_entering(&self, path: &Path) -> bool {
        let Some(out) = path.nexus.job else { return false };
        let mut log = self.work.iter().flat_map(|work| &work.log);
        log.any(|entry| match entry {
            Entry::Asked { job, ask: Ask::Out(ask), .. } if *job == out.number => {
                let key = self.state.key();
                ask.enters() && key.is_none_or(|key| key == ask.action_key)
            }
            _ => false,
        })
    }

    /// A path that joined has turned out to be registered already.
    pub(super) fn returned(&mut self, key: Key) {
        if let Some(at) = self.departed.iter().position(|left| *left == key) {
            self.departed.swap_remove(at);
        }
    }

    /// Keeps no more of each key than that.
    fn limit_departed(&mut self, most: impl Fn(Key) -> usize) {
        let mut kept: Vec<Key> = Vec::with_capacity(self.departed.len());
        for key in self.departed.drain(..) {
            if kept.iter().filter(|one| **one == key).count() < most(key) {
                kept.push(key);
            }
        }
        self.departed = kept;
    }
}
