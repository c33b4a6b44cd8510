//! The simulated array: LUs, reachable over any number of I_T nexuses.
//!
//! It is the target's side of the wire: it takes CDBs and answers with what a
//! host would see of them, faults of the paths included. It is a product
//! feature (`--path sim:…` serves a guest in real time) and the device under
//! the deterministic simulation (virtual time), hence sans-I/O: no clock, no
//! thread; time is a parameter, blocks live behind [`Medium`]. It is *not* an
//! initiator: what a failure means and where a retry goes is `mpath`'s and the
//! request core's work. Whoever owns the [`Array`] calls it from one thread.
//!
//! Tasks follow SAM-5 (task set with unrestricted reordering), commands SPC-5
//! and SBC-4. A task touches the medium at the moment it completes, in order
//! of completion time, then of submission. A fault ends or condemns the tasks
//! of its nexus at the moment it is injected: nothing of a cut nexus is
//! executed later (the end of tasks at nexus loss that law 1 of
//! `docs/architecture.md` relies on).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::io::{Completion, Extent, Time};
use crate::scsi::alua::AccessState;
use crate::scsi::sense::{SenseCode, SenseFormat};
use crate::scsi::status::HostByte;

mod answer;
mod attention;
mod blocks;
mod buffers;
mod command;
mod config;
mod fault;
mod lu;
mod medium;
mod mode;
mod nexus;
mod provisioning;
mod report;
mod schedule;
mod target;
mod task;

pub use config::LuConfig;
pub use fault::{CutMode, Fault, Faults, NewCapacity};
pub use medium::{Medium, MemoryMedium};
pub use target::{ACCESS_STATES, PortConflict};
pub use task::{Done, Stats, Task};

use answer::{Call, Effect, Outcome, Share};
use attention::Attentions;
use buffers::Buffers;
use command::Command;
use fault::{Arrival, Fate, Verdict};
use lu::Lu;
use nexus::{Nexus, Nexuses};
use schedule::{Pending, Schedule};
use target::Target;

#[cfg(test)]
mod tests;

/// Names one I_T nexus: one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NexusId(pub u16);

/// Names one LU of the array, in order of addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LuId(pub u16);

/// Where a path is plugged in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plugged {
    /// The LU that its LUN 0 leads to.
    pub lu: LuId,
    /// Relative target port identifier, not zero; `None`: the first free one
    /// in order of addition.
    pub port: Option<u16>,
    /// Target port group of the port; `None`: as the port has it, else 1.
    pub group: Option<u16>,
}

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
}

/// The simulated array.
pub struct Array {
    lus: Vec<Lu>,
    /// What [`Fault::Remap`] leads to, for each LU that was remapped.
    others: BTreeMap<LuId, LuId>,
    target: Target,
    nexuses: Nexuses,
    latency: Duration,
    pending: Schedule,
    /// Ended but not yet polled, in order, and when the first of them ended.
    ended: Vec<Done>,
    first_ended: Time,
    buffers: Buffers,
}

impl Array {
    /// An array with one LU on `medium`, which must hold `config.blocks` ×
    /// `config.block_size` bytes, and no nexus yet.
    pub fn new(config: LuConfig, medium: Box<dyn Medium>) -> Array {
        Array {
            target: Target::new(&config.wwid_naa),
            lus: vec![Lu::new(config, medium)],
            others: BTreeMap::new(),
            nexuses: Nexuses::default(),
            latency: Duration::ZERO,
            pending: Schedule::default(),
            ended: Vec::new(),
            first_ended: Time(0),
            buffers: Buffers::default(),
        }
    }

    /// A further LU, as [`Array::new`] makes the first. The identity must be
    /// its own. At most 65536 are supported.
    pub fn add_lu(&mut self, config: LuConfig, medium: Box<dyn Medium>) -> LuId {
        self.lus.push(Lu::new(config, medium));
        LuId(u16::try_from(self.lus.len() - 1).unwrap_or(u16::MAX))
    }

    /// What the first LU is; its capacity follows [`Fault::Capacity`].
    pub fn config(&self) -> &LuConfig {
        &self.lus[0].config
    }

    /// Service time of every task submitted from now on (zero at first).
    pub fn set_latency(&mut self, latency: Duration) {
        self.latency = latency;
    }

    /// Adds a healthy path called `name` to the first LU, through a port of
    /// its own in target port group 1. Ids are not reused before 65536 paths
    /// have been added; that many at once are not supported.
    pub fn add_nexus(&mut self, name: &str) -> NexusId {
        let id = self.nexuses.next_id();
        // A free port, unless there are none left: then it is shared.
        let port = self.target.free_port(id.0.saturating_add(1));
        let _ = self.target.join(port, None);
        self.insert(id, name, port, LuId(0));
        id
    }

    /// Adds a healthy path, plugged in where `at` says.
    ///
    /// # Errors
    /// The port is in another group already.
    ///
    /// # Panics
    /// If there is no such LU.
    pub fn connect(&mut self, name: &str, at: Plugged) -> Result<NexusId, PortConflict> {
        assert!(usize::from(at.lu.0) < self.lus.len(), "no {:?}", at.lu);
        let id = self.nexuses.next_id();
        let port = at.port.unwrap_or_else(|| self.target.free_port(id.0.saturating_add(1)));
        self.target.join(port, at.group)?;
        self.insert(id, name, port, at.lu);
        Ok(id)
    }

    fn insert(&mut self, id: NexusId, name: &str, port: u16, lu: LuId) {
        let nexus = Nexus {
            name: name.to_owned(),
            port,
            group: self.target.group_of(port),
            home: lu,
            lu: Some(lu),
            faults: Faults::default(),
            attentions: Attentions::default(),
            stats: Stats::default(),
        };
        self.nexuses.insert(id, nexus);
    }

    /// Removes a path. Its pending tasks end at once with
    /// `DID_TRANSPORT_DISRUPTED`, not executed; later ones with
    /// `DID_NO_CONNECT`.
    pub fn remove_nexus(&mut self, now: Time, id: NexusId) {
        self.advance(now);
        self.cut(now, id, CutMode::Before);
        if let Some(nexus) = self.nexuses.remove(id) {
            self.target.leave(nexus.port);
        }
    }

    /// The paths and their names, in order of addition.
    pub fn nexuses(&self) -> impl Iterator<Item = (NexusId, &str)> {
        self.nexuses.iter().map(|(id, nexus)| (id, nexus.name.as_str()))
    }

    /// Takes a task; it ends by a later [`Array::poll`].
    ///
    /// Faults, access states and unit attentions meet the task here, in the
    /// order in which tasks arrive; the command itself is looked at when it
    /// completes.
    pub fn submit(&mut self, now: Time, task: Task) {
        // What has happened by now may have raised a unit attention.
        self.advance(now);
        let (lu, command, verdict) = match self.nexuses.get_mut(task.nexus) {
            Some(nexus) => {
                nexus.stats.submitted += 1;
                let lu = nexus.lu.unwrap_or(nexus.home);
                let config = &self.lus[usize::from(lu.0)].config;
                let command = command::find(config, task.cdb.as_slice()).ok();
                let mut arrival = Arrival {
                    opcode: task.cdb.opcode(),
                    command,
                    mapped: nexus.lu.is_some(),
                    access: self.target.state_of(nexus.group),
                    attentions: &mut nexus.attentions,
                };
                (lu, command, nexus.faults.judge(&mut arrival))
            }
            None => (LuId(0), None, Verdict::Refuse(HostByte::NO_CONNECT)),
        };
        let timeout = task.abort_after();
        let (service, fate) = match verdict {
            Verdict::Refuse(host) => (Duration::ZERO, Fate::Host(host)),
            Verdict::Lose => (timeout, Fate::Host(HostByte::TIME_OUT)),
            Verdict::Serve { delay, fate } => {
                let service = self.latency.saturating_add(delay);
                if service >= timeout {
                    (timeout, Fate::Host(HostByte::TIME_OUT))
                } else {
                    (service, fate)
                }
            }
        };
        self.pending.push(now + service, Pending { task, submitted: now, lu, command, fate });
    }

    /// When [`Array::poll`] will next have something to report; a time that
    /// has passed means now.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.ended.is_empty() { self.pending.first() } else { Some(self.first_ended) }
    }

    /// Completes what is due at `now` and appends everything that ended since
    /// the last poll to `done`, in the order in which it ended. `now` must not
    /// go backwards.
    pub fn poll(&mut self, now: Time, done: &mut Vec<Done>) {
        self.advance(now);
        done.append(&mut self.ended);
    }

    /// A buffer to fill with a task's data-out; what is in it is of no meaning.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.buffers.take()
    }

    /// Takes back a buffer ([`Done::data_in`]) to use it again.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        self.buffers.give(buffer);
    }

    /// [`Array::try_inject`], where nobody wants to know of a refusal.
    pub fn inject(&mut self, now: Time, id: NexusId, fault: Fault) {
        let _ = self.try_inject(now, id, fault);
    }

    /// Injects a fault into one path, or into the LU or group behind it; or
    /// ends the path's faults ([`Fault::Plug`]). Tasks due by `now` have
    /// completed before.
    ///
    /// # Errors
    /// No such path; a capacity that cannot be. Nothing has happened then.
    pub fn try_inject(&mut self, now: Time, id: NexusId, fault: Fault) -> Result<(), NotInjected> {
        self.advance(now);
        let nexus = self.nexuses.get_mut(id).ok_or(NotInjected::NoPath)?;
        let (lu, group) = (nexus.lu.unwrap_or(nexus.home), nexus.group);
        nexus.faults.apply(fault);
        match fault {
            Fault::Cut(mode) => self.cut(now, id, mode),
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
            Fault::Prefer(preferred) => {
                let changed = self.target.prefer(group, preferred);
                self.tell_access(changed, None);
            }
            _ => {}
        }
        if let Some(nexus) = self.nexuses.get_mut(id).filter(|_| fault != Fault::Plug) {
            nexus.stats.faults += 1;
        }
        Ok(())
    }

    /// LOGICAL UNIT RESET through a path, as [`Fault::LuReset`]; an unknown
    /// path is ignored.
    pub fn reset_lu(&mut self, now: Time, id: NexusId) {
        self.advance(now);
        let Some(lu) = self.nexuses.get(id).and_then(|nexus| nexus.lu) else { return };
        for Pending { task, .. } in self.pending.take(|pending| pending.lu == lu) {
            let completion = task.transport_error(HostByte::RESET);
            self.end(now, task, completion, Vec::new());
        }
        self.lu(lu).reset();
        self.raise(Some(lu), SenseCode::LU_RESET, None);
    }

    /// The faults in force on a path.
    pub fn faults(&self, id: NexusId) -> Option<&Faults> {
        self.nexuses.get(id).map(|nexus| &nexus.faults)
    }

    /// What is wrong with a path, its LU and its group, for display: `none`,
    /// or such as `cut, LUN remapped, standby, bad blocks 8+2`.
    pub fn condition(&self, id: NexusId) -> Option<String> {
        let nexus = self.nexuses.get(id)?;
        let mut words = nexus.faults.words();
        match nexus.lu {
            None => words.push("LUN unmapped".to_owned()),
            Some(lu) if lu != nexus.home => words.push("LUN remapped".to_owned()),
            Some(_) => {}
        }
        let state = self.target.state_of(nexus.group);
        if state != AccessState::ActiveOptimized {
            words.push(state.name().to_owned());
        }
        if self.target.is_preferred(nexus.group) {
            words.push("preferred".to_owned());
        }
        let lu = &self.lus[usize::from(nexus.lu.unwrap_or(nexus.home).0)];
        if lu.stopped {
            words.push("LU stopped".to_owned());
        }
        words.extend(lu.bad().iter().map(|bad| format!("bad blocks {}+{}", bad.lba, bad.blocks)));
        Some(if words.is_empty() { "none".to_owned() } else { words.join(", ") })
    }

    /// The asymmetric access state of a path's target port group.
    pub fn access_state(&self, id: NexusId) -> Option<AccessState> {
        self.nexuses.get(id).map(|nexus| self.target.state_of(nexus.group))
    }

    /// Counts of a path.
    pub fn stats(&self, id: NexusId) -> Option<Stats> {
        self.nexuses.get(id).map(|nexus| nexus.stats)
    }

    fn lu(&mut self, id: LuId) -> &mut Lu {
        &mut self.lus[usize::from(id.0)]
    }

    /// Lets happen everything due by `now`, in order of time.
    fn advance(&mut self, now: Time) {
        loop {
            let task = self.pending.first().filter(|due| *due <= now);
            let transition = self.target.next_transition().filter(|at| *at <= now);
            match (transition, task) {
                (Some(at), task) if task.is_none_or(|due| at <= due) => {
                    let changed = self.target.end_transitions(at);
                    self.tell_access(changed, None);
                }
                (_, Some(_)) => self.complete_first(),
                _ => return,
            }
        }
    }

    /// Completes the pending task that is due first.
    fn complete_first(&mut self) {
        let Some((due, Pending { task, fate, lu, command, .. })) = self.pending.pop() else {
            return;
        };
        let outcome = match fate {
            Fate::Host(host) => Err(task.transport_error(host)),
            Fate::Status(status) => Err(task.refused_with(status)),
            Fate::Execute => Ok(self.execute(lu, &task, command, Share::Whole)),
            Fate::Sense(code) => Ok(Err(code.into())),
            Fate::ReportSense(code) => Ok(Ok(report::sense_data(&self.call(&task), code))),
            Fate::Absent => Ok(report::absent(&self.call(&task))),
        };
        let d_sense = fate != Fate::Absent && self.lu(lu).mode.descriptor_sense;
        let (completion, data_in) = match outcome {
            Ok(outcome) => task.finish(outcome, SenseFormat::of(d_sense)),
            Err(completion) => (completion, Vec::new()),
        };
        self.end(due, task, completion, data_in);
    }

    /// As [`Array::execute`] makes one, for those who move no data.
    fn call<'a>(&'a self, task: &'a Task) -> Call<'a> {
        call(&self.target, &self.nexuses, task, Share::Whole)
    }

    /// Executes a task, and what it does beyond its LU.
    fn execute(
        &mut self,
        lu: LuId,
        task: &Task,
        command: Option<&'static Command>,
        share: Share,
    ) -> Outcome {
        let mut call = Call {
            buffer: Cell::new(self.buffers.take()),
            ..call(&self.target, &self.nexuses, task, share)
        };
        let outcome = self.lus[usize::from(lu.0)].execute(&mut call, command);
        self.buffers.give(call.buffer.into_inner());
        let mut answer = outcome?;
        match std::mem::take(&mut answer.effect) {
            Effect::None => {}
            Effect::ModeChanged => {
                self.raise(Some(lu), SenseCode::MODE_PARAMETERS_CHANGED, Some(task.nexus));
            }
            Effect::Groups(states) => {
                let changed = self.target.explicit(&states);
                self.tell_access(changed, Some(task.nexus));
            }
        }
        Ok(answer)
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

    /// Raises 2a/06 on every path but one, if there is something to tell.
    fn tell_access(&mut self, changed: bool, except: Option<NexusId>) {
        if changed {
            self.raise(None, SenseCode::ACCESS_STATE_CHANGED, except);
        }
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
    fn cut(&mut self, now: Time, id: NexusId, mode: CutMode) {
        for Pending { task, fate, lu, command, .. } in self.pending.take(|p| p.task.nexus == id) {
            let share = match mode {
                _ if fate != Fate::Execute => None,
                CutMode::Before => None,
                CutMode::StatusLost => Some(Share::Whole),
                CutMode::Half => Some(Share::FirstHalf),
            };
            if let Some(share) = share {
                let _ = self.execute(lu, &task, command, share); // the status is lost
            }
            let completion = task.transport_error(HostByte::TRANSPORT_DISRUPTED);
            self.end(now, task, completion, Vec::new());
        }
    }

    /// Pending tasks of a path will get no answer: they end at their timeout.
    fn lose_pending(&mut self, id: NexusId) {
        for pending in self.pending.take(|p| p.task.nexus == id) {
            let at = pending.submitted + pending.task.abort_after();
            let fate = Fate::Host(HostByte::TIME_OUT);
            self.pending.push(at, Pending { fate, ..pending });
        }
    }

    fn end(&mut self, at: Time, task: Task, completion: Completion, data_in: Vec<u8>) {
        if let Some(nexus) = self.nexuses.get_mut(task.nexus) {
            nexus.stats.count(&task, &completion, data_in.len());
        }
        if self.ended.is_empty() {
            self.first_ended = at;
        }
        self.ended.push(Done { nexus: task.nexus, tag: task.tag, completion, data_in });
        self.buffers.give(task.data_out);
    }
}

fn call<'a>(target: &'a Target, nexuses: &Nexuses, task: &'a Task, share: Share) -> Call<'a> {
    Call {
        cdb: task.cdb.as_slice(),
        data_out: &task.data_out,
        room: task.data_in_max,
        share,
        port: nexuses.get(task.nexus).map_or(0, |nexus| nexus.port),
        target,
        buffer: Cell::default(),
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array")
            .field("config", self.config())
            .field("nexuses", &self.nexuses)
            .field("latency", &self.latency)
            .field("pending", &self.pending.len())
            .field("ended", &self.ended.len())
            .finish_non_exhaustive()
    }
}
