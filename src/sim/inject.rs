//! What happens to the array beside its tasks: faults, and the changes that
//! take their time (access states, owners, upgrades).
//!
//! What a fault does to one path's new tasks is [`super::fault`]'s part.

use std::io;
use std::time::Duration;

use super::answer::{Effect, Share};
use super::attention::MICROCODE_CHANGED;
use super::config::{Personality, Tpgs};
use super::fault::{CutMode, DeviceState, Fate, Fault, NewCapacity, Upgrade};
use super::owner::{Move, QUIESCENCE_ACHIEVED};
use super::reservation::Told;
use super::schedule::Pending;
use super::{Array, ItNexus, LuId, MemoryMedium, NexusId};
use crate::io::{Extent, Time};
use crate::scsi::alua::AccessState;
use crate::scsi::sense::SenseCode;
use crate::scsi::status::{HostByte, Status};

/// Why a fault was not injected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotInjected {
    /// No such path.
    #[error("the path is not connected to the simulated array")]
    NoPath,
    /// Not whole blocks, none, or more than can be addressed.
    #[error("{0} bytes are no capacity of a LU with blocks of {1} bytes")]
    Capacity(u64, u32),
    /// The medium refuses the new size.
    #[error("changing the capacity: {0}")]
    Medium(#[source] io::Error),
    /// What another host was to do, the array refuses it.
    #[error("the array answers {0}")]
    Refused(String),
}

impl Array {
    /// [`Array::try_inject`], where nobody wants to know of a refusal.
    pub fn inject(&mut self, now: Time, id: NexusId, fault: Fault) {
        let _ = self.try_inject(now, id, fault);
    }

    /// Injects a fault into one path, or into the LU, group or array behind
    /// it; or ends the path's faults ([`Fault::Plug`]). Tasks due by `now`
    /// have completed before.
    ///
    /// # Errors
    /// No such path; a capacity that cannot be; what the array refuses another
    /// host. Nothing has happened then.
    pub fn try_inject(&mut self, now: Time, id: NexusId, fault: Fault) -> Result<(), NotInjected> {
        self.advance(now);
        let nexus = self.nexuses.get_mut(id).ok_or(NotInjected::NoPath)?;
        let (lu, group, it) = (nexus.lu.unwrap_or(nexus.home), nexus.group, nexus.it);
        nexus.faults.apply(fault);
        match fault {
            Fault::Cut(mode) => self.cut(now, id, mode),
            Fault::LateCut(after) => self.cut_late(now, id, after),
            Fault::Hang => self.lose_pending(id),
            Fault::Plug => nexus.plug(),
            Fault::UnmapLun => nexus.lu = None,
            Fault::Remap => self.remap(id),
            Fault::MediumError { lba, blocks } => self.lu(lu).spoil(Extent::new(lba, blocks)),
            Fault::Mend => self.lu(lu).mend(),
            Fault::LuReset => self.reset_lu(now, id),
            Fault::Capacity(capacity) => self.resize(lu, capacity)?,
            Fault::Alua { state, transition } => {
                let changed = self.target.implicit(now, group, state, transition);
                self.tell_access(changed, None);
            }
            Fault::AluaFails { transition } => {
                let failed = self.target.fail(now, group, transition);
                if failed {
                    self.tell(SenseCode::ACCESS_STATE_TRANSITION_FAILED, None);
                }
            }
            Fault::Prefer(preferred) => {
                let changed = self.target.prefer(group, preferred);
                self.tell_access(changed, None);
            }
            Fault::Transition(transition) => self.target.transition = transition,
            Fault::TakeOwnership => self.take_over(now, lu, group),
            Fault::ControllerDown { takeover } => self.take_down(now, group, takeover),
            Fault::ControllerUp => self.bring_up(now, group),
            Fault::Upgrade { how, lasting } => self.upgrade(now, how, lasting),
            Fault::PowerLoss => self.lose_power(now),
            Fault::Foreign { host, order } => {
                self.foreign(now, lu, ItNexus { initiator: host, ..it }, order)?;
            }
            Fault::ForgetRegistration => self.lu(lu).reservations.forget(it),
            Fault::LoseReservations => self.lu(lu).reservations.lose(),
            Fault::RegisterStall(stall) => self.lu(lu).reservations.stall = stall,
            Fault::AttentionsFirst(on) => self.lu(lu).reservations.attentions_first = on,
            Fault::PerInitiator(on) => self.lu(lu).reservations.set_per_initiator(on),
            _ => {}
        }
        self.reschedule();
        self.release(now, id);
        if let Some(nexus) = self.nexuses.get_mut(id).filter(|_| fault != Fault::Plug) {
            nexus.stats.faults += 1;
        }
        Ok(())
    }

    /// LOGICAL UNIT RESET through a path, as [`Fault::LuReset`]; an unknown
    /// path is ignored. With TAS the tasks of other paths end with TASK
    /// ABORTED.
    pub fn reset_lu(&mut self, now: Time, id: NexusId) {
        self.advance(now);
        let Some(lu) = self.nexuses.get(id).and_then(|nexus| nexus.lu) else { return };
        let tell = self.lu(lu).mode.task_aborted_status;
        for Pending { task, fate, .. } in self.pending.take(|pending| pending.lu == lu) {
            if fate == Fate::Ghost {
                continue;
            }
            let completion = if tell && task.nexus != id {
                task.refused_with(Status::TASK_ABORTED)
            } else {
                task.transport_error(HostByte::RESET)
            };
            self.end(now, task, completion, Vec::new());
        }
        self.lu(lu).reset();
        self.raise(Some(lu), SenseCode::LU_RESET, None);
    }

    /// Does what a command wants beyond its LU's blocks and pages; returns
    /// how long the command takes for it.
    pub(super) fn follow(&mut self, now: Time, lu: LuId, by: NexusId, effect: Effect) -> Duration {
        let Some(group) = self.nexuses.get(by).map(|nexus| nexus.group) else {
            return Duration::ZERO;
        };
        let mut wait = Duration::ZERO;
        match effect {
            Effect::None => {}
            Effect::ModeChanged => {
                self.raise(Some(lu), SenseCode::MODE_PARAMETERS_CHANGED, Some(by));
            }
            Effect::Reservations(told) => self.spread(now, lu, told),
            Effect::Groups(states) => self.set_groups(now, lu, by, states),
            Effect::Take(lus) => {
                let (count, transition) = (self.lus.len(), self.target.transition);
                for lu in lus.into_iter().filter(|lu| usize::from(lu.0) < count) {
                    if self.move_owner(now, lu, group, transition, Some(by)) {
                        wait = transition;
                    }
                }
            }
        }
        self.reschedule();
        wait
    }

    /// What a change of reservations means for others: aborted tasks end with
    /// TASK ABORTED, or without TAS get no answer; then come the unit
    /// attentions.
    pub(super) fn spread(&mut self, now: Time, lu: LuId, told: Told) {
        let Told { attentions, aborted } = told;
        let nexuses = &self.nexuses;
        let hit = |of: &Pending| {
            let by = nexuses.get(of.task.nexus).map(|nexus| nexus.it);
            of.lu == lu && by.is_some_and(|by| aborted.iter().any(|it| it.covers(by)))
        };
        let hit = if aborted.is_empty() { Vec::new() } else { self.pending.take(hit) };
        let tell = self.lu(lu).mode.task_aborted_status;
        for Pending { task, fate, submitted, lu, command } in hit {
            match fate {
                Fate::Ghost => {}
                _ if tell => {
                    let completion = task.refused_with(Status::TASK_ABORTED);
                    self.end(now, task, completion, Vec::new());
                }
                _ => {
                    let at = submitted + task.abort_after();
                    let fate = Fate::Host(HostByte::TIME_OUT);
                    self.pending.push(at, Pending { task, submitted, lu, command, fate });
                }
            }
        }
        for (_, nexus) in self.nexuses.iter_mut().filter(|(_, nexus)| nexus.lu == Some(lu)) {
            for (_, code) in attentions.iter().filter(|(it, _)| it.covers(nexus.it)) {
                nexus.attentions.raise(*code);
            }
        }
    }

    /// The array is off and on again: no task survives, late writes neither.
    fn lose_power(&mut self, now: Time) {
        for Pending { task, fate, .. } in self.pending.take(|_| true) {
            if fate != Fate::Ghost {
                let completion = task.transport_error(HostByte::TRANSPORT_DISRUPTED);
                self.end(now, task, completion, Vec::new());
            }
        }
        for lu in &mut self.lus {
            lu.reset();
            lu.reservations.power_on();
        }
        for (_, nexus) in self.nexuses.iter_mut() {
            nexus.attentions.clear();
            nexus.attentions.raise(SenseCode::POWER_ON_OR_RESET);
        }
    }

    /// The array's own changes that are due.
    pub(super) fn change(&mut self, now: Time) {
        for ended in self.target.end_transitions(now) {
            if ended.failed {
                self.tell(SenseCode::ACCESS_STATE_TRANSITION_FAILED, ended.by);
            } else {
                self.tell_access(true, ended.by);
            }
        }
        for lu in 0..self.lus.len() {
            if let Some(due) = self.lus[lu].owner.moving.filter(|due| due.at <= now) {
                let id = self.lus[lu].id;
                self.end_move(id, due);
            }
        }
        if self.target.upgrade.is_some_and(|(_, until)| until <= now) {
            self.end_upgrade();
        }
        self.reschedule();
    }

    fn reschedule(&mut self) {
        let owners = self.lus.iter().filter_map(|lu| lu.owner.moving.map(|due| due.at));
        let others = [self.target.next_transition(), self.target.upgrade.map(|(_, until)| until)];
        self.next_change = owners.chain(others.into_iter().flatten()).min();
    }

    /// Raises a unit attention on every path to `lu` (or to any), except one.
    fn raise(&mut self, lu: Option<LuId>, code: SenseCode, except: Option<NexusId>) {
        for (id, nexus) in self.nexuses.iter_mut() {
            let concerned = nexus.lu.is_some() && (lu.is_none() || nexus.lu == lu);
            if concerned && Some(id) != except {
                nexus.attentions.raise(code);
            }
        }
    }

    /// Raises what is about access states on every path but one; LUs without
    /// TPGS do not tell.
    fn tell(&mut self, code: SenseCode, except: Option<NexusId>) {
        for (id, nexus) in self.nexuses.iter_mut() {
            let lu = nexus.lu.map(|lu| &self.lus[usize::from(lu.0)]);
            let concerned = lu.is_some_and(|lu| lu.config.tpgs != Tpgs::None);
            if concerned && Some(id) != except {
                nexus.attentions.raise(code);
            }
        }
    }

    /// Raises 2a/06 on every path but one, if there is something to tell.
    pub(super) fn tell_access(&mut self, changed: bool, except: Option<NexusId>) {
        if changed {
            self.tell(SenseCode::ACCESS_STATE_CHANGED, except);
        }
    }

    /// SET TARGET PORT GROUPS. For an LU with an owner, active states are
    /// about that.
    fn set_groups(
        &mut self,
        now: Time,
        lu: LuId,
        by: NexusId,
        mut states: Vec<(u16, AccessState)>,
    ) {
        use AccessState::{ActiveNonOptimized, ActiveOptimized};
        if self.lu(lu).is_owned() {
            let owner = self.lu(lu).owner.current;
            let wanted = |group: u16| states.contains(&(group, ActiveOptimized));
            let to = states.iter().map(|(group, _)| *group).find(|group| wanted(*group));
            if let Some(to) = to.filter(|_| !wanted(owner)) {
                self.move_owner(now, lu, to, self.target.transition, Some(by));
            }
            // Groups that serve at all stay as they are.
            let target = &self.target;
            states.retain(|(group, state)| {
                let active = [ActiveOptimized, ActiveNonOptimized];
                !(active.contains(state) && active.contains(&target.state_of(*group)))
            });
        }
        let changed = self.target.explicit(now, &states, by);
        self.tell_access(changed, Some(by));
    }

    /// Another host takes the LU through `group`.
    fn take_over(&mut self, now: Time, lu: LuId, group: u16) {
        let transition = self.target.transition;
        if self.target.is_down(group) {
            return;
        }
        if self.lu(lu).is_owned() {
            self.move_owner(now, lu, group, transition, None);
        } else if self.target.state_of(group) != AccessState::ActiveOptimized {
            let state = AccessState::ActiveOptimized;
            let changed = self.target.implicit(now, group, state, transition);
            self.tell_access(changed, None);
        }
    }

    /// Moves an LU that has an owner to another, `after` so long; whether
    /// there is anything to move.
    fn move_owner(
        &mut self,
        now: Time,
        lu: LuId,
        to: u16,
        after: Duration,
        by: Option<NexusId>,
    ) -> bool {
        let of = self.lu(lu);
        let heading = of.owner.moving.map_or(of.owner.current, |due| due.to);
        if !of.is_owned() || heading == to {
            return false;
        }
        let due = Move { at: now + after, to, by };
        of.owner.moving = Some(due);
        if after.is_zero() {
            self.end_move(lu, due);
        }
        true
    }

    fn end_move(&mut self, lu: LuId, due: Move) {
        let of = self.lu(lu);
        of.owner.moving = None;
        of.owner.current = due.to;
        match of.config.personality {
            Personality::Generic => {}
            Personality::Rdac => self.raise(Some(lu), QUIESCENCE_ACHIEVED, due.by),
            Personality::Clariion => {
                for (id, nexus) in self.nexuses.iter_mut() {
                    if nexus.lu == Some(lu) && nexus.group == due.to && Some(id) != due.by {
                        nexus.attentions.raise(SenseCode::POWER_ON_OR_RESET);
                    }
                }
            }
        }
        if self.lu(lu).config.tpgs != Tpgs::None {
            self.raise(Some(lu), SenseCode::ACCESS_STATE_CHANGED, due.by);
        }
    }

    /// Owned LUs whose owner, now or soon, is `group`.
    fn owned_by(&self, group: u16) -> Vec<LuId> {
        let is = |of: &super::Lu| of.owner.moving.map_or(of.owner.current, |due| due.to) == group;
        self.lus.iter().filter(|of| of.is_owned() && is(of)).map(|of| of.id).collect()
    }

    fn take_down(&mut self, now: Time, group: u16, takeover: Duration) {
        if !self.target.take_down(group) {
            return;
        }
        self.cut_all(now, |of| of == group);
        let others = self.target.working();
        for other in &others {
            if self.target.state_of(*other) != AccessState::ActiveOptimized {
                self.target.implicit(now, *other, AccessState::ActiveOptimized, takeover);
            }
        }
        if let Some(other) = others.first() {
            for lu in self.owned_by(group) {
                self.move_owner(now, lu, *other, takeover, None);
            }
        }
        self.tell_access(true, None);
    }

    fn bring_up(&mut self, now: Time, group: u16) {
        use AccessState::{ActiveNonOptimized, ActiveOptimized, Transitioning};
        let is_optimized =
            |other: &u16| [ActiveOptimized, Transitioning].contains(&self.target.state_of(*other));
        let taken_over = self.target.working().iter().any(is_optimized);
        let state = match self.target.state_below(group) {
            _ if !taken_over => ActiveOptimized,
            ActiveOptimized => ActiveNonOptimized,
            state => state,
        };
        if !self.target.bring_up(group, state) {
            return;
        }
        for (_, nexus) in self.nexuses.iter_mut().filter(|(_, nexus)| nexus.group == group) {
            nexus.attentions.clear();
            nexus.attentions.raise(SenseCode::POWER_ON_OR_RESET);
        }
        let lost = |lu: &LuId| {
            let of = &self.lus[usize::from(lu.0)].owner;
            of.current != group && of.moving.is_none() && self.target.is_down(of.current)
        };
        let all: Vec<LuId> = self.lus.iter().map(|lu| lu.id).filter(lost).collect();
        for lu in all {
            self.move_owner(now, lu, group, Duration::ZERO, None);
        }
        self.tell_access(true, None);
    }

    fn upgrade(&mut self, now: Time, how: Upgrade, lasting: Duration) {
        if lasting.is_zero() {
            if self.target.upgrade.is_some() {
                self.end_upgrade();
            }
            return;
        }
        self.target.upgrade = Some((how, now + lasting));
        if how == Upgrade::Gone {
            self.cut_all(now, |_| true);
        }
    }

    fn end_upgrade(&mut self) {
        let gone = self.target.upgrade.take().is_some_and(|(how, _)| how == Upgrade::Gone);
        if gone {
            for (_, nexus) in self.nexuses.iter_mut() {
                nexus.attentions.clear();
                nexus.attentions.raise(SenseCode::POWER_ON_OR_RESET);
            }
        }
        self.raise(None, MICROCODE_CHANGED, None);
    }

    fn remap(&mut self, id: NexusId) {
        let Some(home) = self.nexuses.get(id).map(|nexus| nexus.home) else { return };
        let other = match self.others.get(&home) {
            Some(other) => *other,
            None => {
                let mut config = self.lu(home).config.clone();
                config.wwid_naa[8] ^= 0xff;
                config.serial.push('R');
                let len = config.blocks.saturating_mul(u64::from(config.block_size));
                let other = self.add_lu(config, Box::new(MemoryMedium::new(len)));
                self.others.insert(home, other);
                other
            }
        };
        if let Some(nexus) = self.nexuses.get_mut(id) {
            nexus.lu = Some(other);
            nexus.attentions.raise(SenseCode::INQUIRY_DATA_CHANGED);
            nexus.attentions.raise(SenseCode::REPORTED_LUNS_CHANGED);
        }
    }

    fn resize(&mut self, lu: LuId, capacity: NewCapacity) -> Result<(), NotInjected> {
        let of = self.lu(lu);
        let block_size = of.config.block_size;
        let size = u64::from(block_size);
        let blocks = match capacity {
            NewCapacity::Grow => of.config.blocks.saturating_mul(2),
            NewCapacity::Bytes(bytes) if bytes != 0 && bytes % size == 0 => bytes / size,
            NewCapacity::Bytes(bytes) => return Err(NotInjected::Capacity(bytes, block_size)),
        };
        if blocks == of.config.blocks {
            return Ok(());
        }
        of.resize(blocks).map_err(NotInjected::Medium)?;
        self.raise(Some(lu), SenseCode::CAPACITY_CHANGED, None);
        Ok(())
    }

    /// Ends every pending task of a path now, as `mode` says.
    pub(super) fn cut(&mut self, now: Time, id: NexusId, mode: CutMode) {
        for pending in self.pending.take(|p| p.task.nexus == id && p.fate != Fate::Ghost) {
            let Pending { task, fate, lu, command, .. } = pending;
            let share = match mode {
                _ if !matches!(fate, Fate::Execute | Fate::StatusLost) => None,
                CutMode::Before => None,
                CutMode::StatusLost => Some(Share::Whole),
                CutMode::Half => Some(Share::FirstHalf),
            };
            if let Some(share) = share {
                // The status is lost.
                let _ = self.execute(now, lu, &task, command, share);
            }
            let completion = task.transport_error(HostByte::TRANSPORT_DISRUPTED);
            self.end(now, task, completion, Vec::new());
        }
    }

    /// As [`Array::cut`] before execution, but what writes is executed later.
    fn cut_late(&mut self, now: Time, id: NexusId, after: Duration) {
        for pending in self.pending.take(|p| p.task.nexus == id && p.fate != Fate::Ghost) {
            let writes = pending.command.is_some_and(|command| command.targeted)
                && !pending.task.data_out.is_empty();
            let task = pending.task.clone();
            if writes && pending.fate == Fate::Execute {
                self.pending.push(now + after, Pending { fate: Fate::Ghost, ..pending });
            }
            let completion = task.transport_error(HostByte::TRANSPORT_DISRUPTED);
            self.end(now, task, completion, Vec::new());
        }
    }

    /// [`Array::cut`] before execution, for every path of these groups.
    fn cut_all(&mut self, now: Time, groups: impl Fn(u16) -> bool) {
        let of_groups = self.nexuses.iter().filter(|(_, nexus)| groups(nexus.group));
        let ids: Vec<NexusId> = of_groups.map(|(id, _)| id).collect();
        for id in ids {
            self.cut(now, id, CutMode::Before);
        }
    }

    /// Pending tasks of a path will get no answer: they end at their timeout.
    fn lose_pending(&mut self, id: NexusId) {
        for pending in self.pending.take(|p| p.task.nexus == id && p.fate != Fate::Ghost) {
            let at = pending.submitted + pending.task.abort_after();
            let fate = Fate::Host(HostByte::TIME_OUT);
            self.pending.push(at, Pending { fate, ..pending });
        }
    }

    /// Sends what the host has held back, once it need not any more.
    fn release(&mut self, now: Time, id: NexusId) {
        let Some(nexus) = self.nexuses.get_mut(id) else { return };
        if nexus.faults.device_state() == DeviceState::Blocked {
            return;
        }
        for task in std::mem::take(&mut nexus.held) {
            self.submit(now, task);
        }
    }
}
