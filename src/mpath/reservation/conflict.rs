//! Conflicts that guests' commands meet: a path that has lost its
//! registration, or the LU's word.
//!
//! The first is repaired at once (`lifecycle`), which takes commands about
//! reservations. The second may come as often as the guest asks: another host
//! has reserved the LU for itself. So for a moment after a conflict was found
//! to be the LU's word, the paths are consulted in place of the array: queue
//! threads try every path before they take a conflict for the guest's, and once
//! all paths have met one, no path is at fault. Where the others meet none, the
//! path is asked all the same, after another moment; guest I/O does not wait
//! for that, since the others carry it.

use std::time::Duration;

use super::script::{Go, Script, Unsettled};
use super::{Registration, Reservations, State, orders};
use crate::io::Time;
use crate::mpath::Multipath;
use crate::mpath::check::SOON;
use crate::mpath::path::Path;
use crate::mpath::snapshot::PathId;
use crate::scsi::reservation::{Held, Key};

/// How long a path waits for the others to meet a conflict.
const CONSULTATION: Duration = Duration::from_millis(100);

/// A conflict by a path that is not registered yet is that path's own affair, as
/// long as the guest is registered at all; by one that is, `is_lus`, it is the
/// guest's.
pub(super) fn judge(
    s: &mut Script<'_>,
    key: Key,
    unsettled: &mut Unsettled,
    is_lus: bool,
) -> Go<()> {
    if unsettled.conflict.is_none() {
        return Ok(());
    }
    if !unsettled.maybe {
        orders::check_registration(s, key)?;
    }
    if !is_lus && s.state().key() == Some(key) {
        unsettled.conflict = None;
    }
    Ok(())
}

/// A path that has met a conflict is registered. Where the guest holds the LU that
/// was from before it did, and no path's conflict is the guest's; but another host may
/// have ended that, and hold it. Or another path of ours does, by an order of which
/// nobody heard that it was done.
pub(super) fn ask_who_holds(s: &mut Script<'_>, path: PathId, by: &[PathId]) -> Go<()> {
    let State { registered, held: believed, .. } = s.state();
    let conflicted = s.is(|map| map.path(path).is_some_and(|p| p.nexus.conflicted));
    let Some(key) = registered.map(|r| r.key).filter(|_| conflicted) else { return Ok(()) };
    // (If it is the guest that holds it unknowingly, that is noticed as it is read.)
    if let (Ok((_, held)), true) = (s.held(by)?, believed.is_some()) {
        is_held(s, held, &[key]);
    }
    Ok(())
}

/// This is who holds the LU, which the guest believed to be itself; by any of its keys.
pub(super) fn is_held(s: &mut Script<'_>, held: Option<Held>, own: &[Key]) {
    let ours = held.filter(|h| own.contains(&h.key) || h.kind.is_of_all_registrants());
    let kind = ours.map(|h| h.kind);
    if kind != s.state().held {
        s.once(|map, fx| map.reserved_by(kind, None, fx));
    }
}

impl Reservations {
    /// Whether a conflict was found to be the LU's word just now.
    fn is_contested(&self, now: Time) -> bool {
        self.contested.is_some_and(|since| now < since + SOON)
    }
}

impl Multipath {
    /// A guest's command met a conflict: the path may have lost its
    /// registration. It carries nothing until that is known.
    pub(in crate::mpath) fn conflict(&mut self, now: Time, id: PathId) {
        let registered = self.reservations.state.registered.is_some();
        let alone = self.is_held_alone();
        let contested = self.reservations.is_contested(now) && !alone;
        let consults = contested.then_some(now + CONSULTATION);
        let Some(path) = self.path_mut(id) else { return };
        if !registered {
            // From now on it is the guest's; whoever has set the path aside
            // goes on with it.
            path.epoch += 1;
            return;
        }
        if path.nexus.registration == Registration::Unknown && !path.nexus.conflicted {
            // It is being asked about already, by what has been found out otherwise: a path
            // that is not registered has no word in whose conflict it is.
            return;
        }
        path.nexus.registration = Registration::Unknown;
        path.nexus.conflicted = true;
        path.nexus.consults = consults;
        path.nexus.rested = None;
        self.doubt_holder(id);
    }

    /// A path that has met a conflict is registered: it is the LU's word, and
    /// so is that of others that have met one meanwhile, if all have.
    pub(super) fn is_contested(&mut self, now: Time, found: PathId) {
        if self.reservations.state.held.is_some() {
            // It was from before the guest held the LU; or it is what every path
            // but one has while the reservation admits no other.
            return;
        }
        self.reservations.contested = Some(now);
        self.agree(|path| path.id == found || path.nexus.conflicted);
    }

    /// Paths that consult each other have met conflicts all of them, or have
    /// done so for long enough.
    pub(super) fn weigh_conflicts(&mut self, now: Time) {
        if self.all().any(|path| path.nexus.consults.is_some()) {
            self.agree(|path| path.nexus.consults.is_some());
        }
        for path in self.paths.iter_mut().flatten() {
            path.nexus.consults = path.nexus.consults.filter(|until| now < *until);
        }
    }

    /// When a path has waited for the others long enough.
    pub(super) fn consultation_deadline(&self) -> Option<Time> {
        self.all().filter_map(|path| path.nexus.consults).min()
    }

    /// If it is so of every path that guest I/O may go by, their conflicts are
    /// the guest's: they come back at later epochs.
    /// (Not while the guest reserves: what they met may be its own reservation by then.)
    fn agree(&mut self, so: impl Fn(&Path) -> bool) {
        if self.guest_reserves().is_some() {
            return;
        }
        let used = |path: &&Path| path.carries() || (path.is_usable() && path.nexus.conflicted);
        if self.reservations.state.registered.is_none() || !self.all().filter(used).all(so) {
            return;
        }
        for path in self.paths.iter_mut().flatten().filter(|path| path.nexus.conflicted) {
            path.epoch += 1;
            path.nexus.settled(Registration::Registered);
        }
    }
}
