//! What an administrator, or discovery, asks of a map: paths that join and
//! leave, that are taken out of use and put back. Each request has an answer,
//! which is why it is a method and no event.

use super::access::Standing;
use super::effect::{Cause, Change, Effect, Effects};
use super::path::{Access, CheckerState, Listed, Path, PathState};
use super::pg_init::Init;
use super::reservation::Nexus;
use super::shaky::Shaky;
use super::snapshot::{MAX_PATHS, PathId};
use super::{MapError, Multipath, NewPath};
use crate::io::{Identity, Time};

impl Multipath {
    /// Adds a proven path; it carries I/O from the next table on.
    ///
    /// The owner makes the path known to the queue threads under the returned
    /// id *before* it carries out the effects.
    pub fn add_path(
        &mut self,
        now: Time,
        new: NewPath,
        fx: &mut Effects,
    ) -> Result<PathId, MapError> {
        self.admits(&new.name, &new.identity)?;
        let slot = self.free_slot()?;
        let id = PathId { slot, generation: self.generations[usize::from(slot)] };
        let interval = self.policy.polling_interval;
        let next_check = self.own_place(now, id, interval);
        let name = new.name.clone();
        let capacity = new.identity.capacity;
        self.paths[usize::from(slot)] = Some(Path {
            id,
            name: new.name,
            checker: self.policy.checker.unwrap_or(new.checker),
            own_checker: new.checker,
            attributes: new.attributes,
            access: Access::default(),
            marginal: false,
            state: PathState::Active,
            checker_state: CheckerState::Ready,
            failed_by_administrator: false,
            priority: 1,
            epoch: 1,
            proven: 1,
            failures: 0,
            last_cause: None,
            capacity,
            shrunk_to: None,
            no_lun: false,
            next_check,
            check_follows: false,
            interval,
            returned: None,
            check: None,
            proof: None,
            sample: None,
            shaky: Shaky::default(),
            standing: Standing::default(),
            init: Init::default(),
            nexus: Nexus::of_new_path(&self.reservations),
            listed: Listed { joins: true, ..Listed::default() },
        });
        self.order.push(slot);
        self.regroup();
        fx.push(Effect::Notify(Change::PathAdded { path: name }));
        if capacity != self.identity.capacity {
            self.adopt(now, capacity, fx);
        }
        if let Some(found) = new.reading {
            self.take_reading(now, id, None, &found, fx);
        }
        self.settle(now, fx);
        Ok(id)
    }

    /// Whether a path of that name and identity could be added: lets the owner
    /// refuse before it spends anything on the path.
    pub fn admits(&self, name: &str, found: &Identity) -> Result<(), MapError> {
        if self.all().any(|p| p.name == name) {
            return Err(MapError::Duplicate(name.to_owned()));
        }
        let map = &self.identity;
        if found.wwid != map.wwid {
            return Err(MapError::OtherLu {
                name: name.to_owned(),
                found: found.wwid.clone(),
                expected: map.wwid.clone(),
            });
        }
        // As of a path that returns: growth is believed, a shrink only where no
        // path in use says otherwise.
        let refused = found.capacity < map.capacity && !self.agreed(found.capacity, None);
        if refused || found.block_size != map.block_size {
            return Err(MapError::OtherSize {
                name: name.to_owned(),
                found_blocks: found.capacity.0,
                found_size: found.block_size,
                blocks: map.capacity.0,
                size: map.block_size,
            });
        }
        Ok(())
    }

    /// `del path`: takes the path out of the map.
    pub fn remove_path(
        &mut self,
        now: Time,
        name: &str,
        fx: &mut Effects,
    ) -> Result<PathId, MapError> {
        let id = self.path_by_name(name)?.id;
        if self.order.len() == 1 {
            return Err(MapError::LastPath(name.to_owned()));
        }
        self.take_out(now, id, |path, _| Change::PathRemoved { path }, fx);
        Ok(id)
    }

    /// The path's device is gone: as [`Multipath::remove_path`], but it may be
    /// the last; `flush_on_last_del` decides about what is held then.
    ///
    /// # Errors
    /// There is no such path.
    pub fn lose_path(
        &mut self,
        now: Time,
        name: &str,
        fx: &mut Effects,
    ) -> Result<PathId, MapError> {
        let id = self.path_by_name(name)?.id;
        if self.order.len() == 1 {
            self.last_path_lost();
        }
        self.take_out(now, id, |path, left| Change::PathDeleted { path, left }, fx);
        Ok(id)
    }

    /// `news`: of its name and the usable paths left.
    fn take_out(
        &mut self,
        now: Time,
        id: PathId,
        news: impl FnOnce(String, usize) -> Change,
        fx: &mut Effects,
    ) {
        let slot = usize::from(id.slot);
        let Some(path) = self.paths[slot].take() else { return };
        self.reservations.departs(&path);
        self.generations[slot] += 1;
        self.retiring.push(id);
        self.order.retain(|&s| s != id.slot);
        self.regroup();
        fx.push(Effect::Notify(news(path.name, self.usable())));
        self.settle(now, fx);
        fx.push(Effect::Retire(id));
    }

    /// The owner has closed a path it was told to retire: its slot is free.
    pub fn retired(&mut self, id: PathId) {
        self.retiring.retain(|&leaving| leaving != id);
    }

    /// `fail path`: no I/O on it until [`Multipath::reinstate_path`].
    pub fn fail_path(&mut self, now: Time, name: &str, fx: &mut Effects) -> Result<(), MapError> {
        let id = self.path_by_name(name)?.id;
        if let Some(path) = self.path_mut(id) {
            path.failed_by_administrator = true;
        }
        self.fail(now, id, Cause::Administrator, fx);
        self.settle(now, fx);
        Ok(())
    }

    /// `reinstate path`: lifts `fail path`. The path is checked and its
    /// identity proven at once; it carries I/O when both succeed.
    pub fn reinstate_path(
        &mut self,
        now: Time,
        name: &str,
        fx: &mut Effects,
    ) -> Result<(), MapError> {
        let id = self.path_by_name(name)?.id;
        if let Some(path) = self.path_mut(id) {
            path.failed_by_administrator = false;
        }
        self.forgive(id, fx);
        self.check_now(now, id, fx);
        self.settle(now, fx);
        Ok(())
    }

    fn first_free(&self) -> Option<usize> {
        let leaving = |slot: u8| self.retiring.iter().any(|id| id.slot == slot);
        (0u8..).zip(&self.paths).position(|(s, p)| p.is_none() && !leaving(s))
    }

    fn free_slot(&mut self) -> Result<u8, MapError> {
        let slot = match self.first_free() {
            Some(free) => free,
            None if self.paths.len() < MAX_PATHS => {
                self.paths.push(None);
                self.generations.push(0);
                self.paths.len() - 1
            }
            None => return Err(MapError::Full),
        };
        u8::try_from(slot).map_err(|_| MapError::Full)
    }
}
