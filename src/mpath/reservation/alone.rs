//! Reservations that give access to the nexus of their holder alone (write
//! exclusive and exclusive access, SPC-5 5.14.6): one path carries the guest's
//! I/O, and the reservation goes to another when that one does not any more.
//!
//! Nothing has to be quiet for that: by the other paths nothing of the guest's
//! is out, and what the old holder's still executes late is refused by the
//! array, which is the path's word, and goes elsewhere. It is not moved back
//! to a better path that returns.

use super::script::{Go, Script, Word};
use super::{Path, Recall, Registration, State, lifecycle, orders};
use crate::mpath::Multipath;
use crate::mpath::snapshot::PathId;
use crate::scsi::reservation::{Held, Key, Out, OutAction, Type};

impl State {
    /// The guest's key and the type, if it holds such a reservation.
    fn alone(&self) -> Option<(Key, Type)> {
        let kind = self.held.filter(|kind| kind.is_of_holder_alone())?;
        Some((self.key()?, kind))
    }
}

/// Moves the reservation to a path that is registered, if the guest has it.
pub(super) fn take(s: &mut Script<'_>) -> Go<()> {
    let Some((key, kind)) = s.state().alone() else { return Ok(()) };
    let serving = s.paths(|p| is_registered(p) && serves(p));
    let paths = if serving.is_empty() { s.registered() } else { serving };
    let former = s.former_keys();
    let is_guests = |of: Key| of == key || former.contains(&of);
    let victim = match s.held(&paths)? {
        // (A path may be away with a key that the guest had before.)
        Ok((_, Some(held))) if is_guests(held.key) && held.kind == kind => held.key,
        Ok((_, held)) => return has_ended(s, key, held),
        Err(_) => return rest(s, &paths),
    };
    let out = Out::new(OutAction::Preempt, key, victim).of_type(kind);
    let mut in_vain = Vec::new();
    for path in &paths {
        match s.out(*path, out)? {
            Word::Good(_) => return taken(s, *path, key),
            Word::Lost { maybe: true, .. } => {
                // (Whether it was done or not, the guest's key stays.)
                let recall = Recall { perhaps: None, untold: true, given: false };
                s.once(|map, _| map.doubt_registration(recall));
                return Ok(());
            }
            // It has no registration: its own affair, to be seen to first.
            Word::Conflict(_) => {
                s.unsettle(*path);
                in_vain.push(*path);
            }
            Word::Refused(_) | Word::Lost { .. } => in_vain.push(*path),
        }
    }
    rest(s, &in_vain)
}

/// Another host has ended it, or reserved since; or the array has forgotten it.
fn has_ended(s: &mut Script<'_>, key: Key, held: Option<Held>) -> Go<()> {
    let ours = held.filter(|h| h.key == key || h.kind.is_of_all_registrants());
    s.once(|map, fx| map.reserved_by(ours.map(|h| h.kind), None, fx));
    orders::check_registration(s, key)?;
    Ok(())
}

/// The path has it now, and is the only one that is registered. Where there was
/// nothing left to take, that has ended its own registration, too.
fn taken(s: &mut Script<'_>, path: PathId, key: Key) -> Go<()> {
    s.once(|map, _| map.unsettle_others(path));
    match s.held(&[path])? {
        Ok((_, held)) if held.is_none_or(|h| h.key != key) => {
            s.unsettle(path);
            has_ended(s, key, held)
        }
        Ok(_) | Err(_) => {
            s.once(|map, fx| map.took_over(path, fx));
            Ok(())
        }
    }
}

fn is_registered(path: &Path) -> bool {
    path.nexus.registration == Registration::Registered
}

/// It would carry I/O if it had the reservation.
fn serves(path: &Path) -> bool {
    path.standing.carries(path.access) && !path.standing.unsized_lu
}

fn rest(s: &mut Script<'_>, paths: &[PathId]) -> Go<()> {
    paths.iter().try_for_each(|path| lifecycle::rest(s, *path))
}

impl Multipath {
    /// The path is registered, and the reservation another's: nothing of the
    /// guest's goes by it.
    pub(super) fn is_beside_the_holder(&self, path: &Path) -> bool {
        let state = &self.reservations.state;
        path.is_usable()
            && is_registered(path)
            && state.alone().is_some()
            && state.holder != Some(path.id)
    }

    /// The path could have the reservation, which no path has that could use
    /// it.
    pub(super) fn could_hold(&self, path: &Path) -> bool {
        let state = &self.reservations.state;
        self.is_beside_the_holder(path)
            && match state.holder.and_then(|id| self.path(id)) {
                Some(holder) => !serves(holder) && serves(path),
                None => true,
            }
    }

    /// The guest holds such a reservation.
    pub(super) fn is_held_alone(&self) -> bool {
        self.reservations.state.alone().is_some()
    }

    /// Where a path had a conflict that the reservation was thought to be by,
    /// it is not.
    pub(super) fn doubt_holder(&mut self, id: PathId) {
        let alone = self.is_held_alone();
        let holder = &mut self.reservations.state.holder;
        if alone && *holder == Some(id) {
            *holder = None;
        }
    }
}
