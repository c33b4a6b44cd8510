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
//! and SBC-4. A reservation forbids a task at its arrival or not at all (SPC-5
//! 5.14.1). A task touches the medium at the moment it completes, in order
//! of completion time, then of submission. A fault ends or condemns the tasks
//! of its nexus at the moment it is injected: nothing of a cut nexus is
//! executed later (the end of tasks at nexus loss that law 1 of
//! `docs/architecture.md` relies on), but for [`Fault::LateCut`].

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::io::{Completion, Time};
use crate::scsi::alua::AccessState;
use crate::scsi::sense::SenseFormat;
use crate::scsi::status::HostByte;

mod answer;
mod attention;
mod blocks;
mod buffers;
mod command;
mod config;
mod fault;
mod inject;
mod lu;
mod medium;
mod mode;
mod nexus;
mod owner;
mod provisioning;
mod report;
mod reservation;
pub mod scenario;
mod schedule;
mod target;
mod task;

pub use config::{LuConfig, Personality, Tpgs};
pub(crate) use fault::words::{host_byte, reservation_key, sense_code};
pub use fault::{CutMode, DeviceState, Fault, Faults, NewCapacity, ReserveEnd, Upgrade};
pub use inject::NotInjected;
pub use medium::{Medium, MemoryMedium};
pub use reservation::foreign::Foreign;
pub use reservation::{RESERVATION_TYPES, Reservations};
pub use target::{ACCESS_STATES, PortConflict};
pub use task::{Done, Stats, Task};

use answer::{Answer, Call, Effect, Outcome, Share};
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

/// An I_T nexus by its ports: what a registration belongs to. It outlives the
/// path, and paths between the same ports share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItNexus {
    /// The initiator port: a number for each host, or for each of its HBAs.
    pub initiator: u16,
    /// Relative target port identifier, not zero.
    pub port: u16,
}

/// Where a path is plugged in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plugged {
    /// The LU that its LUN 0 leads to.
    pub lu: LuId,
    /// The initiator port at the host's end.
    pub initiator: u16,
    /// Relative target port identifier, not zero; `None`: what a path of this
    /// name had, else the first free one in order of addition.
    pub port: Option<u16>,
    /// Target port group of the port; `None`: as the port has it, else 1.
    pub group: Option<u16>,
    /// Access state that the group is put into; `None`: what it is in, at first
    /// active/optimized.
    pub access: Option<AccessState>,
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
    /// When something of the array's own happens next.
    next_change: Option<Time>,
}

impl Array {
    /// An array with one LU on `medium`, which must hold `config.blocks` ×
    /// `config.block_size` bytes, and no nexus yet.
    pub fn new(config: LuConfig, medium: Box<dyn Medium>) -> Array {
        Array {
            target: Target::new(&config.wwid_naa),
            lus: vec![Lu::new(LuId(0), config, medium)],
            others: BTreeMap::new(),
            nexuses: Nexuses::default(),
            latency: Duration::ZERO,
            pending: Schedule::default(),
            ended: Vec::new(),
            first_ended: Time(0),
            buffers: Buffers::default(),
            next_change: None,
        }
    }

    /// A further LU, as [`Array::new`] makes the first. The identity must be
    /// its own. At most 65536 are supported.
    pub fn add_lu(&mut self, config: LuConfig, medium: Box<dyn Medium>) -> LuId {
        let id = LuId(u16::try_from(self.lus.len()).unwrap_or(u16::MAX));
        self.lus.push(Lu::new(id, config, medium));
        id
    }

    /// What the first LU is; its capacity follows [`Fault::Capacity`].
    pub fn config(&self) -> &LuConfig {
        &self.lus[0].config
    }

    /// Service time of every task submitted from now on (zero at first).
    pub fn set_latency(&mut self, latency: Duration) {
        self.latency = latency;
    }

    /// How long the array takes for what an initiator asks of it from now on:
    /// a state by SET TARGET PORT GROUPS, which has ended by then, or another
    /// owner by MODE SELECT, which ends with it (zero at first). Is told by
    /// REPORT TARGET PORT GROUPS, in seconds.
    pub fn set_transition(&mut self, transition: Duration) {
        self.target.transition = transition;
    }

    /// Adds a healthy path called `name` to the first LU, through a port of
    /// its own in target port group 1. Ids are not reused before 65536 paths
    /// have been added; that many at once are not supported.
    pub fn add_nexus(&mut self, name: &str) -> NexusId {
        // A free port, unless there are none left: then it is shared.
        let port = self.port_for(name);
        self.join(name, ItNexus { initiator: 0, port })
    }

    /// A path to the first LU through a port, in whatever group that is.
    fn join(&mut self, name: &str, it: ItNexus) -> NexusId {
        let id = self.nexuses.next_id();
        let _ = self.target.join(it.port, None);
        self.insert(id, name, it, LuId(0));
        id
    }

    fn port_for(&mut self, name: &str) -> u16 {
        let id = self.nexuses.next_id();
        self.target.port_for(name, id.0.saturating_add(1))
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
        let port = at.port.unwrap_or_else(|| self.port_for(name));
        self.target.join(port, at.group)?;
        if let Some(state) = at.access {
            let changed = self.target.put(self.target.group_of(port), state);
            self.tell_access(changed, None);
        }
        self.insert(id, name, ItNexus { initiator: at.initiator, port }, at.lu);
        Ok(id)
    }

    fn insert(&mut self, id: NexusId, name: &str, it: ItNexus, lu: LuId) {
        let nexus = Nexus {
            name: name.to_owned(),
            it,
            group: self.target.group_of(it.port),
            home: lu,
            lu: Some(lu),
            faults: Faults::default(),
            attentions: Attentions::default(),
            stats: Stats::default(),
            held: VecDeque::new(),
        };
        self.nexuses.insert(id, nexus);
    }

    /// Removes a path. Its pending tasks end at once with
    /// `DID_TRANSPORT_DISRUPTED`, not executed; later ones with
    /// `DID_NO_CONNECT`.
    pub fn remove_nexus(&mut self, now: Time, id: NexusId) {
        self.advance(now);
        self.cut(now, id, CutMode::Before);
        let held = self.nexuses.get_mut(id).map(|nexus| std::mem::take(&mut nexus.held));
        for task in held.into_iter().flatten() {
            let completion = task.transport_error(HostByte::TRANSPORT_DISRUPTED);
            self.end(now, task, completion, Vec::new());
        }
        if let Some(nexus) = self.nexuses.remove(id) {
            self.target.leave(nexus.it.port, nexus.name);
        }
    }

    /// The paths and their names, in order of addition.
    pub fn nexuses(&self) -> impl Iterator<Item = (NexusId, &str)> {
        self.nexuses.iter().map(|(id, nexus)| (id, nexus.name.as_str()))
    }

    /// Takes a task; it ends by a later [`Array::poll`].
    /// On a path that the host has blocked it waits, and its timeout with it.
    ///
    /// Faults, access states and unit attentions meet the task here, in the
    /// order in which tasks arrive; the command itself is looked at when it
    /// completes.
    pub fn submit(&mut self, now: Time, task: Task) {
        // What has happened by now may have raised a unit attention.
        self.advance(now);
        let (lu, command, verdict) = match self.nexuses.get_mut(task.nexus) {
            Some(nexus) => {
                if nexus.faults.device_state() == DeviceState::Blocked {
                    nexus.held.push_back(task);
                    return;
                }
                nexus.stats.submitted += 1;
                let id = nexus.lu.unwrap_or(nexus.home);
                let lu = &self.lus[usize::from(id.0)];
                let command = command::find(&lu.config, task.cdb.as_slice()).ok();
                let (of_group, is_down) = self.target.meets(nexus.group);
                let news_first = lu.reservations.attentions_first && nexus.attentions.any()
                    || nexus.attentions.outrank_conflicts();
                let mut arrival = Arrival {
                    opcode: task.cdb.opcode(),
                    command,
                    mapped: nexus.lu.is_some(),
                    conflicts: command.is_some()
                        && !news_first
                        && lu.reservations.forbids(nexus.it, &task.cdb),
                    access: lu.access(nexus.group, of_group),
                    upgrade: self.target.upgrade.map(|(how, _)| how),
                    attentions: &mut nexus.attentions,
                };
                let verdict = if is_down {
                    Verdict::Refuse(HostByte::NO_CONNECT)
                } else {
                    nexus.faults.judge(&mut arrival)
                };
                (id, command, verdict)
            }
            None => (LuId(0), None, Verdict::Refuse(HostByte::NO_CONNECT)),
        };
        let timeout = task.abort_after();
        let (service, fate) = match verdict {
            Verdict::Refuse(host) => (Duration::ZERO, Fate::Host(host)),
            Verdict::Lose => (timeout, Fate::Host(HostByte::TIME_OUT)),
            Verdict::Serve { delay, fate } => {
                let stall = self.stalls(lu, &task);
                let service = self.latency.saturating_add(delay).saturating_add(stall);
                if service >= timeout {
                    (timeout, Fate::Host(HostByte::TIME_OUT))
                } else {
                    (service, fate)
                }
            }
        };
        self.pending.push(now + service, Pending { task, submitted: now, lu, command, fate });
    }

    /// How much longer a task takes because another is under way: what some
    /// arrays do to registrations.
    fn stalls(&self, lu: LuId, task: &Task) -> Duration {
        let stall = self.lus[usize::from(lu.0)].reservations.stall;
        let also = |of: &Pending| of.lu == lu && registers(&of.task);
        let stalls = !stall.is_zero() && registers(task) && self.pending.any(also);
        if stalls { stall } else { Duration::ZERO }
    }

    /// When [`Array::poll`] will next have something to report, at the
    /// earliest; a time that has passed means now.
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
        if self.target.is_down(nexus.group) {
            words.push("controller down".to_owned());
        }
        if let Some((how, _)) = self.target.upgrade {
            words.push(format!("firmware upgrade ({})", how.name()));
        }
        let state = self.lus[usize::from(nexus.lu.unwrap_or(nexus.home).0)]
            .state(nexus.group, self.target.state_of(nexus.group));
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

    /// The asymmetric access state of a path's target port group, for the LU
    /// it leads to: with an owner, standby is what refuses I/O.
    pub fn access_state(&self, id: NexusId) -> Option<AccessState> {
        let nexus = self.nexuses.get(id)?;
        let lu = &self.lus[usize::from(nexus.lu.unwrap_or(nexus.home).0)];
        Some(lu.state(nexus.group, self.target.state_of(nexus.group)))
    }

    /// What a kernel knows of it (sysfs `access_state`, `preferred_path`):
    /// `None` where the LU has no TPGS.
    pub fn access_fact(&self, id: NexusId) -> Option<(AccessState, bool)> {
        let nexus = self.nexuses.get(id)?;
        let lu = &self.lus[usize::from(nexus.lu.unwrap_or(nexus.home).0)];
        let known = lu.config.tpgs != Tpgs::None;
        known.then_some((self.access_state(id)?, self.target.is_preferred(nexus.group)))
    }

    /// What the host says of a path.
    pub fn device_state(&self, id: NexusId) -> Option<DeviceState> {
        self.nexuses.get(id).map(|nexus| nexus.faults.device_state())
    }

    /// Between which ports a path is.
    pub fn ports(&self, id: NexusId) -> Option<ItNexus> {
        self.nexuses.get(id).map(|nexus| nexus.it)
    }

    /// Who is registered with an LU, and who holds it.
    ///
    /// # Panics
    /// If there is no such LU.
    pub fn reservations(&self, lu: LuId) -> &Reservations {
        &self.lus[usize::from(lu.0)].reservations
    }

    /// Counts of a path.
    pub fn stats(&self, id: NexusId) -> Option<Stats> {
        self.nexuses.get(id).map(|nexus| nexus.stats)
    }

    fn lu(&mut self, id: LuId) -> &mut Lu {
        &mut self.lus[usize::from(id.0)]
    }

    /// Lets happen everything due by `now`, in order of time; the array's own
    /// changes come before tasks.
    fn advance(&mut self, now: Time) {
        loop {
            let task = self.pending.first().filter(|due| *due <= now);
            let change = self.next_change.filter(|at| *at <= now);
            match (change, task) {
                (Some(at), task) if task.is_none_or(|due| at <= due) => self.change(at),
                (_, Some(_)) => self.complete_first(),
                _ => return,
            }
        }
    }

    /// Completes the pending task that is due first.
    fn complete_first(&mut self) {
        let Some((due, Pending { task, submitted, fate, lu, command })) = self.pending.pop() else {
            return;
        };
        let outcome = match fate {
            Fate::Host(host) => Err(task.transport_error(host)),
            Fate::Status(status) => Err(task.refused_with(status)),
            Fate::Execute => match self.execute(due, lu, &task, command, Share::Whole) {
                (outcome, Duration::ZERO) => Ok(outcome),
                (outcome, wait) => {
                    let taken = outcome.map_or(0, |answer| answer.taken);
                    // It ends when what it asked for is so, or is given up.
                    let (at, timeout) = (due + wait, submitted + task.abort_after());
                    let late = at >= timeout;
                    let fate =
                        if late { Fate::Host(HostByte::TIME_OUT) } else { Fate::Good { taken } };
                    let pending = Pending { task, submitted, lu, command, fate };
                    return self.pending.push(at.min(timeout), pending);
                }
            },
            Fate::Good { taken } => Ok(Ok(Answer::taken(taken))),
            Fate::Ghost => {
                let _ = self.execute(due, lu, &task, command, Share::Whole);
                return self.buffers.give(task.data_out);
            }
            Fate::StatusLost => {
                let _ = self.execute(due, lu, &task, command, Share::Whole);
                Err(task.transport_error(HostByte::TRANSPORT_DISRUPTED))
            }
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

    /// Executes a task, and what it does beyond its LU; also how long it takes
    /// until that is done.
    fn execute(
        &mut self,
        now: Time,
        lu: LuId,
        task: &Task,
        command: Option<&'static Command>,
        share: Share,
    ) -> (Outcome, Duration) {
        let mut call = Call {
            buffer: Cell::new(self.buffers.take()),
            ..call(&self.target, &self.nexuses, task, share)
        };
        let outcome = self.lus[usize::from(lu.0)].execute(&mut call, command);
        self.buffers.give(call.buffer.into_inner());
        let Ok(mut answer) = outcome else { return (outcome, Duration::ZERO) };
        let wait = match std::mem::take(&mut answer.effect) {
            Effect::None => Duration::ZERO,
            effect => self.follow(now, lu, task.nexus, effect),
        };
        (Ok(answer), wait)
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
        nexus: nexuses.get(task.nexus).map(|nexus| nexus.it).unwrap_or_default(),
        target,
        buffer: Cell::default(),
    }
}

/// REGISTER, REGISTER AND IGNORE EXISTING KEY.
fn registers(task: &Task) -> bool {
    let cdb = task.cdb.as_slice();
    cdb[0] == command::PERSISTENT_RESERVE_OUT && matches!(cdb.get(1), Some(0x00 | 0x06))
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
