//! Path selectors: which path of a group carries the next command.
//!
//! Not which group (`queue::dispatch` takes the first that can), and not
//! whether a path may be used at all: the caller says which may. One instance
//! per map and queue thread, owned by it, over that thread's own load: nothing
//! is shared or locked, and a choice allocates nothing. What a choice reads is
//! laid out by slot in small arrays that are made ready when a table comes, so
//! that it costs little with [`MAX_PATHS`](super::snapshot::MAX_PATHS) paths,
//! too (`benches/path_selection.rs`).
//!
//! The first four behave as the kernel's of the same name
//! (`drivers/md/dm-ps-*.c`); each module says where not. `latency` is ours.

mod historical_service_time;
mod latency;
mod least;
mod queue_length;
mod round_robin;
mod service_time;
mod slots;

use super::snapshot::{PathId, PathTable, PathView, SelectorKind};
use crate::io::Time;
use historical_service_time::HistoricalServiceTime;
use latency::Latency;
use queue_length::QueueLength;
use round_robin::RoundRobin;
use service_time::ServiceTime;

pub use slots::Slots;

/// A path's load as this queue thread sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes of commands in flight.
    pub bytes: u64,
    /// Commands in flight.
    pub commands: u32,
}

/// What a command asks of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Bytes of data it moves; 0 for a flush and the like.
    pub bytes: u64,
    /// They go to the LU.
    pub write: bool,
}

/// A command that has come back from its path.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    /// What it asked.
    pub want: Want,
    /// When the path took it.
    pub issued: Time,
    /// It did what it was to do: only then does its time say anything about
    /// the path.
    pub good: bool,
}

/// Path selector of one map on one queue thread.
#[derive(Debug)]
pub struct Selector {
    kind: SelectorKind,
    method: Method,
    /// By slot, as are all lists here: who is there.
    known: Vec<Known>,
    loads: Vec<Load>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    id: PathId,
    epoch: u32,
}

#[derive(Debug)]
enum Method {
    RoundRobin(RoundRobin),
    QueueLength(QueueLength),
    ServiceTime(ServiceTime),
    HistoricalServiceTime(HistoricalServiceTime),
    Latency(Latency),
}

impl Method {
    fn new(kind: SelectorKind) -> Method {
        match kind {
            SelectorKind::RoundRobin => Method::RoundRobin(RoundRobin::default()),
            SelectorKind::QueueLength => Method::QueueLength(QueueLength::default()),
            SelectorKind::ServiceTime => Method::ServiceTime(ServiceTime::default()),
            SelectorKind::HistoricalServiceTime => {
                Method::HistoricalServiceTime(HistoricalServiceTime::default())
            }
            SelectorKind::Latency => Method::Latency(Latency::default()),
        }
    }

    /// A table names the path; `fresh`: nothing is known of it, or no longer.
    /// It shares its group with `peers` paths, itself included.
    fn list(&mut self, view: &PathView, peers: usize, load: Load, fresh: bool) {
        let slot = view.id.slot;
        match self {
            Method::RoundRobin(m) => m.list(slot, view.repeat),
            Method::QueueLength(m) => m.load(slot, load),
            Method::ServiceTime(m) => m.load(slot, load),
            Method::HistoricalServiceTime(m) => m.list(slot, peers, load, fresh),
            Method::Latency(m) => m.list(slot, fresh),
        }
    }
}

impl Selector {
    /// With no path yet.
    pub fn new(kind: SelectorKind) -> Selector {
        Selector { kind, method: Method::new(kind), known: Vec::new(), loads: Vec::new() }
    }

    /// Takes a new table. What was learned of a path stays while its epoch
    /// does; what is in flight counts on, whatever the selector now.
    pub fn update(&mut self, table: &PathTable) {
        let changed = self.kind != table.selector;
        if changed {
            self.kind = table.selector;
            self.method = Method::new(table.selector);
        }
        for group in &table.groups {
            for view in &group.paths {
                let (load, news) = self.know(view);
                self.method.list(view, group.paths.len(), load, changed || news);
            }
        }
    }

    /// The path's load, and whether the path is another one, or reinstated.
    fn know(&mut self, view: &PathView) -> (Load, bool) {
        let i = usize::from(view.id.slot);
        let new = Known { id: view.id, epoch: view.epoch };
        while self.known.len() <= i {
            let slot = u8::try_from(self.known.len()).unwrap_or(u8::MAX);
            self.known.push(Known { id: PathId { slot, generation: 0 }, epoch: 0 });
            self.loads.push(Load::default());
        }
        let old = std::mem::replace(&mut self.known[i], new);
        if old.id != view.id {
            // The slot's old path has gone for good: the owner reuses a slot
            // only after its last command returned (law 10).
            debug_assert_eq!(self.loads[i].commands, 0);
            self.loads[i] = Load::default();
        }
        (self.loads[i], old.id != view.id || old.epoch != view.epoch)
    }

    /// Chooses among paths that may take the command now, all of one group and
    /// named by the table; `None` if there are none.
    pub fn select(&mut self, now: Time, among: Slots, want: Want) -> Option<u8> {
        match &mut self.method {
            Method::RoundRobin(m) => m.select(among),
            Method::QueueLength(m) => m.select(among),
            Method::ServiceTime(m) => m.select(among),
            Method::HistoricalServiceTime(m) => m.select(now, among, &self.loads),
            Method::Latency(m) => m.select(now, among, want, &self.loads),
        }
    }

    /// A path has taken a command, whoever chose it.
    pub fn started(&mut self, now: Time, slot: u8, want: Want) {
        let Some(load) = self.loads.get_mut(usize::from(slot)) else { return };
        load.bytes += want.bytes;
        load.commands += 1;
        let load = *load;
        match &mut self.method {
            Method::RoundRobin(_) => {}
            Method::QueueLength(m) => m.load(slot, load),
            Method::ServiceTime(m) => m.load(slot, load),
            Method::HistoricalServiceTime(m) => m.started(slot, load),
            Method::Latency(m) => m.started(now, slot, want, load),
        }
    }

    /// A path has given a command back.
    pub fn completed(&mut self, now: Time, slot: u8, came: &Came) {
        let Some(load) = self.loads.get_mut(usize::from(slot)) else { return };
        load.bytes = load.bytes.saturating_sub(came.want.bytes);
        load.commands = load.commands.saturating_sub(1);
        let load = *load;
        match &mut self.method {
            Method::RoundRobin(_) => {}
            Method::QueueLength(m) => m.load(slot, load),
            Method::ServiceTime(m) => m.load(slot, load),
            Method::HistoricalServiceTime(m) => m.completed(now, slot, came, load),
            Method::Latency(m) => m.completed(now, slot, came),
        }
    }

    /// What this thread has on a path; nothing on one it does not know.
    pub fn load(&self, id: PathId) -> Load {
        let i = usize::from(id.slot);
        let known = self.known.get(i).is_some_and(|k| k.id == id);
        if known { self.loads[i] } else { Load::default() }
    }

    /// Nothing is on any path.
    pub fn all_idle(&self) -> bool {
        self.loads.iter().all(|l| l.commands == 0)
    }
}

#[cfg(test)]
mod tests;
