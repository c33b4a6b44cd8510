//! The simulated array: one LU, reachable over any number of I_T nexuses.
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

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::io::{Completion, Time};
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::{Sense, SenseCode};
use crate::scsi::status::{HostByte, Status};

mod fault;
mod lu;
mod medium;
mod report;

pub use fault::{CutMode, Fault, Faults};
pub use lu::LuConfig;
pub use medium::{Medium, MemoryMedium};

use fault::Verdict;
use lu::{Answer, Lu, Share};

#[cfg(test)]
mod tests;

/// What a task's timeout of zero means: what the kernel's SG_IO takes it for.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// Names one I_T nexus: one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NexusId(pub u16);

/// A command as an initiator sends it.
#[derive(Clone, Debug)]
pub struct Task {
    /// Over which path.
    pub nexus: NexusId,
    /// Handed back in [`Done`]; need not be unique.
    pub tag: u64,
    /// The command.
    pub cdb: Cdb,
    /// Data the initiator offers; may be longer than the CDB asks for.
    pub data_out: Vec<u8>,
    /// Bytes the initiator has room for.
    pub data_in_max: usize,
    /// The initiator aborts the task after this long; zero means 60 s.
    pub timeout: Duration,
}

impl Task {
    fn abort_after(&self) -> Duration {
        if self.timeout.is_zero() { DEFAULT_TIMEOUT } else { self.timeout }
    }
}

/// A task that ended. Every task submitted ends exactly once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Of the task.
    pub nexus: NexusId,
    /// Of the task.
    pub tag: u64,
    /// How it ended; the residual counts bytes of `data_in_max` not filled,
    /// or of `data_out` not taken.
    pub completion: Completion,
    /// Data-in, at most `data_in_max` bytes.
    pub data_in: Vec<u8>,
}

/// Counts of one nexus since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tasks submitted.
    pub submitted: u64,
    /// Tasks ended with status GOOD and no transport error.
    pub good: u64,
    /// Tasks ended with CHECK CONDITION or another status of the LU.
    pub check_conditions: u64,
    /// Tasks ended by the transport (host byte).
    pub transport_errors: u64,
    /// Faults injected, [`Fault::Plug`] not counted.
    pub faults: u64,
    /// Bytes of data-in delivered.
    pub bytes_in: u64,
    /// Bytes of data-out of tasks that ended well.
    pub bytes_out: u64,
}

#[derive(Debug)]
struct Nexus {
    name: String,
    /// Relative target port identifier shown in VPD page 83h.
    port: u16,
    faults: Faults,
    stats: Stats,
}

/// What becomes of a submitted task at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Executed.
    Execute,
    /// Answered with this sense, not executed.
    Sense(SenseCode),
    /// A REQUEST SENSE that reports this sense as its data.
    ReportSense(SenseCode),
    /// Ended by the transport, not executed.
    Host(HostByte),
}

#[derive(Debug)]
struct Pending {
    task: Task,
    submitted: Time,
    fate: Fate,
}

/// The simulated array.
pub struct Array {
    lu: Lu,
    nexuses: BTreeMap<NexusId, Nexus>,
    next_nexus: u16,
    latency: Duration,
    /// By time of completion, then order of submission.
    pending: BTreeMap<(Time, u64), Pending>,
    submissions: u64,
    /// Ended but not yet polled, in order, each with the time it ended.
    ended: Vec<(Time, Done)>,
}

impl Array {
    /// An array with one LU on `medium`, which must hold `config.blocks` ×
    /// `config.block_size` bytes, and no nexus yet.
    pub fn new(config: LuConfig, medium: Box<dyn Medium>) -> Array {
        Array {
            lu: Lu::new(config, medium),
            nexuses: BTreeMap::new(),
            next_nexus: 0,
            latency: Duration::ZERO,
            pending: BTreeMap::new(),
            submissions: 0,
            ended: Vec::new(),
        }
    }

    /// What the LU was made with.
    pub fn config(&self) -> &LuConfig {
        &self.lu.config
    }

    /// Service time of every task submitted from now on (zero at first).
    pub fn set_latency(&mut self, latency: Duration) {
        self.latency = latency;
    }

    /// Adds a healthy path called `name`. Ids are not reused before 65536
    /// paths have been added; that many at once are not supported.
    pub fn add_nexus(&mut self, name: &str) -> NexusId {
        while self.nexuses.contains_key(&NexusId(self.next_nexus)) {
            self.next_nexus = self.next_nexus.wrapping_add(1);
        }
        let id = NexusId(self.next_nexus);
        self.next_nexus = self.next_nexus.wrapping_add(1);
        let nexus = Nexus {
            name: name.to_owned(),
            port: id.0.saturating_add(1),
            faults: Faults::default(),
            stats: Stats::default(),
        };
        self.nexuses.insert(id, nexus);
        id
    }

    /// Removes a path. Its pending tasks end at once with
    /// `DID_TRANSPORT_DISRUPTED`, not executed; later ones with
    /// `DID_NO_CONNECT`.
    pub fn remove_nexus(&mut self, now: Time, id: NexusId) {
        self.advance(now);
        self.cut(now, id, CutMode::Before);
        self.nexuses.remove(&id);
    }

    /// The paths and their names, in order of addition.
    pub fn nexuses(&self) -> impl Iterator<Item = (NexusId, &str)> {
        self.nexuses.iter().map(|(id, nexus)| (*id, nexus.name.as_str()))
    }

    /// Takes a task; it ends by a later [`Array::poll`].
    ///
    /// Faults and unit attentions meet the task here, in the order in which
    /// tasks arrive; the command itself is looked at when it completes.
    pub fn submit(&mut self, now: Time, task: Task) {
        let verdict = match self.nexuses.get_mut(&task.nexus) {
            Some(nexus) => {
                nexus.stats.submitted += 1;
                nexus.faults.judge(&task.cdb)
            }
            None => Verdict::Refuse(HostByte::NO_CONNECT),
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
        self.submissions += 1;
        let key = (now + service, self.submissions);
        self.pending.insert(key, Pending { task, submitted: now, fate });
    }

    /// When [`Array::poll`] will next have something to report; a time that
    /// has passed means now.
    pub fn next_deadline(&self) -> Option<Time> {
        let ended = self.ended.first().map(|(time, _)| *time);
        ended.or_else(|| self.pending.first_key_value().map(|((due, _), _)| *due))
    }

    /// Completes what is due at `now` and appends everything that ended since
    /// the last poll to `done`, in the order in which it ended. `now` must not
    /// go backwards.
    pub fn poll(&mut self, now: Time, done: &mut Vec<Done>) {
        self.advance(now);
        done.extend(self.ended.drain(..).map(|(_, done)| done));
    }

    /// Injects a fault into one path, or ends its faults ([`Fault::Plug`]).
    /// Tasks due by `now` have completed before. Unknown paths are ignored.
    pub fn inject(&mut self, now: Time, id: NexusId, fault: Fault) {
        self.advance(now);
        let Some(nexus) = self.nexuses.get_mut(&id) else { return };
        nexus.faults.apply(fault);
        if fault != Fault::Plug {
            nexus.stats.faults += 1;
        }
        match fault {
            Fault::Cut(mode) => self.cut(now, id, mode),
            Fault::Hang => self.lose_pending(id),
            _ => {}
        }
    }

    /// The faults in force on a path, for display.
    pub fn faults(&self, id: NexusId) -> Option<&Faults> {
        self.nexuses.get(&id).map(|nexus| &nexus.faults)
    }

    /// Counts of a path.
    pub fn stats(&self, id: NexusId) -> Option<Stats> {
        self.nexuses.get(&id).map(|nexus| nexus.stats)
    }

    /// Completes everything due by `now`.
    fn advance(&mut self, now: Time) {
        while let Some(entry) = self.pending.first_entry() {
            let (due, _) = *entry.key();
            if due > now {
                break;
            }
            let Pending { task, fate, .. } = entry.remove();
            let port = self.nexuses.get(&task.nexus).map_or(0, |nexus| nexus.port);
            let (completion, data_in) = match fate {
                Fate::Execute => finish(&task, self.lu.execute(port, &task, Share::Whole)),
                Fate::Sense(code) => finish(&task, Answer::sense(code)),
                Fate::ReportSense(code) => finish(&task, self.lu.report_sense(&task, code)),
                Fate::Host(host) => (transport_error(&task, host), Vec::new()),
            };
            self.end(due, &task, completion, data_in);
        }
    }

    /// Ends every pending task of a path now, as `mode` says.
    fn cut(&mut self, now: Time, id: NexusId, mode: CutMode) {
        for Pending { task, fate, .. } in self.take_pending(id) {
            let share = match mode {
                _ if fate != Fate::Execute => None,
                CutMode::Before => None,
                CutMode::StatusLost => Some(Share::Whole),
                CutMode::Half => Some(Share::FirstHalf),
            };
            if let Some(share) = share {
                let port = self.nexuses.get(&id).map_or(0, |nexus| nexus.port);
                self.lu.execute(port, &task, share);
            }
            let completion = transport_error(&task, HostByte::TRANSPORT_DISRUPTED);
            self.end(now, &task, completion, Vec::new());
        }
    }

    /// Pending tasks of a path will get no answer: they end at their timeout.
    fn lose_pending(&mut self, id: NexusId) {
        for pending in self.take_pending(id) {
            self.submissions += 1;
            let key = (pending.submitted + pending.task.abort_after(), self.submissions);
            let fate = Fate::Host(HostByte::TIME_OUT);
            self.pending.insert(key, Pending { fate, ..pending });
        }
    }

    /// Takes the pending tasks of a path, in the order they would complete.
    fn take_pending(&mut self, id: NexusId) -> Vec<Pending> {
        let keys: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.task.nexus == id)
            .map(|(key, _)| *key)
            .collect();
        keys.iter().filter_map(|key| self.pending.remove(key)).collect()
    }

    fn end(&mut self, at: Time, task: &Task, completion: Completion, data_in: Vec<u8>) {
        if let Some(nexus) = self.nexuses.get_mut(&task.nexus) {
            nexus.stats.count(task, &completion, data_in.len());
        }
        let done = Done { nexus: task.nexus, tag: task.tag, completion, data_in };
        self.ended.push((at, done));
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array")
            .field("config", &self.lu.config)
            .field("nexuses", &self.nexuses)
            .field("latency", &self.latency)
            .field("pending", &self.pending.len())
            .field("ended", &self.ended.len())
            .finish_non_exhaustive()
    }
}

impl Stats {
    fn count(&mut self, task: &Task, completion: &Completion, data_in: usize) {
        let residual = match completion {
            Completion::Scsi { host, .. } if *host != HostByte::OK => {
                self.transport_errors += 1;
                return;
            }
            Completion::Scsi { status, residual, .. } if *status == Status::GOOD => *residual,
            Completion::Good => 0,
            _ => {
                self.check_conditions += 1;
                return;
            }
        };
        self.good += 1;
        self.bytes_in += data_in as u64;
        if task.data_in_max == 0 {
            self.bytes_out += (task.data_out.len() as u64).saturating_sub(u64::from(residual));
        }
    }
}

/// What the initiator sees of the LU's answer.
fn finish(task: &Task, answer: Answer) -> (Completion, Vec<u8>) {
    match answer {
        Answer::Good { mut data_in, taken } => {
            data_in.truncate(task.data_in_max);
            let missing = task.data_in_max - data_in.len();
            let residual = missing + task.data_out.len().saturating_sub(taken);
            if residual == 0 {
                return (Completion::Good, data_in);
            }
            (scsi(Status::GOOD, HostByte::OK, Sense::EMPTY, residual), data_in)
        }
        Answer::Sense(sense) => {
            let completion = scsi(Status::CHECK_CONDITION, HostByte::OK, sense, offered(task));
            (completion, Vec::new())
        }
        // What an HBA makes of an initiator that has no data (or no room) for
        // what its own CDB announces.
        Answer::Overrun => (transport_error(task, HostByte::ERROR), Vec::new()),
    }
}

fn transport_error(task: &Task, host: HostByte) -> Completion {
    scsi(Status::GOOD, host, Sense::EMPTY, offered(task))
}

/// Bytes the initiator offered to move, in either direction.
fn offered(task: &Task) -> usize {
    task.data_in_max.saturating_add(task.data_out.len())
}

fn scsi(status: Status, host: HostByte, sense: Sense, residual: usize) -> Completion {
    let residual = u32::try_from(residual).unwrap_or(u32::MAX);
    Completion::Scsi { status, host, sense, residual }
}
