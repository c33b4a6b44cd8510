//! The map: the engine, the open paths, and carrying out what the engine asks.
//!
//! Owned by the control thread. Effects become messages to queue threads and
//! checking threads; news is collected for the daemon to tell. Never blocks.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::checking::Checking;
use super::events::{self, Notice};
use super::mailbox::Post;
use super::status::{GroupStatus, MapStatus, PathStatus};
use crate::host::{DeviceState, device_state};
use crate::io::{Blocks, Geometry, Limits, MapSlot, Time};
use crate::mpath::checker::CheckerKind;
use crate::mpath::effect::{Effect, Effects};
use crate::mpath::event::Event;
use crate::mpath::path::{Path, PathState};
use crate::mpath::policy::NoPathRetry;
use crate::mpath::snapshot::PathId;
use crate::mpath::{MapError, Multipath, NewPath};
use crate::passthrough_scsi::{PathHandle, PathKind};
use crate::queue::Queues;

/// Why a path could not join.
#[derive(Debug, thiserror::Error)]
pub(super) enum JoinError {
    /// The engine refuses it.
    #[error(transparent)]
    Map(#[from] MapError),
    /// No checking thread.
    #[error("path {path}: cannot start its checking thread: {source}")]
    Thread {
        /// Its name.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The guest could not write by it.
    #[error(
        "path {0} is write protected, the map is not; lift the protection, or serve the disk with \
         --read-only"
    )]
    WriteProtected(String),
}

/// A path from its opening to the closing of its file.
#[derive(Debug)]
struct OpenPath {
    name: String,
    /// Gone once every queue thread has let go of it.
    open: Option<(Arc<PathHandle>, Checking)>,
    /// Queue threads that still use it, once it has left the map.
    users: usize,
}

/// The only map.
pub(super) const SLOT: MapSlot = MapSlot(0);

/// One map.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) name: String,
    pub(super) engine: Multipath,
    queues: Arc<Queues>,
    paths: HashMap<PathId, OpenPath>,
    limits: Limits,
    geometry: Geometry,
    read_only: bool,
    check_timeout: Duration,
    post: Post,
    news: Vec<Notice>,
}

/// What a map is made of.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) engine: Multipath,
    pub(super) queues: Arc<Queues>,
    /// The smallest limits over all paths to begin with.
    pub(super) limits: Limits,
    /// As shown to the guest.
    pub(super) geometry: Geometry,
    pub(super) read_only: bool,
    pub(super) check_timeout: Duration,
    pub(super) post: Post,
}

impl Map {
    pub(super) fn new(parts: Parts) -> Map {
        let Parts { name, engine, queues, limits, geometry, read_only, check_timeout, post } =
            parts;
        Map {
            name,
            engine,
            queues,
            paths: HashMap::new(),
            limits,
            geometry,
            read_only,
            check_timeout,
            post,
            news: Vec::new(),
        }
    }

    /// What has happened since the last call.
    pub(super) fn take_news(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.news)
    }

    /// Takes an open, proven path into the map. The queue threads know it
    /// before any table names it.
    pub(super) fn join(
        &mut self,
        now: Time,
        handle: &Arc<PathHandle>,
    ) -> Result<PathId, JoinError> {
        let name = handle.name().to_owned();
        self.engine.admits(&name, handle.identity())?;
        if handle.geometry().read_only && !self.read_only {
            return Err(JoinError::WriteProtected(name));
        }
        let checker = if handle.is_scsi() { CheckerKind::Tur } else { CheckerKind::DirectIo };
        let new = NewPath { name: name.clone(), identity: handle.identity().clone(), checker };
        let mut fx = Effects::new();
        let id = self.engine.add_path(now, new, &mut fx)?;
        let (timeout, post) = (self.check_timeout, self.post.clone());
        let checking = match Checking::start(id, Arc::clone(handle), checker, timeout, post) {
            Ok(checking) => checking,
            Err(source) => {
                self.take_back(now, &name, id);
                return Err(JoinError::Thread { path: name, source });
            }
        };
        let limits = shrunk(self.limits, *handle.limits());
        if limits != self.limits {
            self.limits = limits;
            self.queues.set_limits(SLOT, limits);
        }
        self.queues.attach(SLOT, id, handle);
        let open = Some((Arc::clone(handle), checking));
        self.paths.insert(id, OpenPath { name, open, users: self.queues.threads() });
        self.carry_out(fx);
        Ok(id)
    }

    /// The engine took a path that cannot join after all; nobody has heard.
    fn take_back(&mut self, now: Time, name: &str, id: PathId) {
        let mut fx = Effects::new();
        if self.engine.remove_path(now, name, &mut fx).is_ok() {
            self.engine.retired(id);
            fx.retain(|effect| matches!(effect, Effect::Publish(_)));
            self.carry_out(fx);
        }
    }

    /// Tells the engine something and does what it asks.
    pub(super) fn handle(&mut self, now: Time, event: Event) {
        let mut fx = Effects::new();
        self.engine.handle(now, event, &mut fx);
        self.carry_out(fx);
    }

    /// `fail path`; returns the table that must be acknowledged.
    pub(super) fn fail_path(&mut self, now: Time, name: &str) -> Result<u64, MapError> {
        let mut fx = Effects::new();
        self.engine.fail_path(now, name, &mut fx)?;
        self.carry_out(fx);
        Ok(self.generation())
    }

    /// `reinstate path`.
    pub(super) fn reinstate_path(&mut self, now: Time, name: &str) -> Result<PathId, MapError> {
        let mut fx = Effects::new();
        self.engine.reinstate_path(now, name, &mut fx)?;
        self.carry_out(fx);
        Ok(self.engine.path_by_name(name)?.id)
    }

    /// `del path`; returns the table that must be acknowledged.
    pub(super) fn remove_path(&mut self, now: Time, name: &str) -> Result<(PathId, u64), MapError> {
        let mut fx = Effects::new();
        let id = self.engine.remove_path(now, name, &mut fx)?;
        self.carry_out(fx);
        Ok((id, self.generation()))
    }

    /// A queue thread has let go of a removed path.
    pub(super) fn detached(&mut self, id: PathId) {
        let Some(path) = self.paths.get_mut(&id) else { return };
        path.users = path.users.saturating_sub(1);
        if path.users == 0 {
            // The checking thread ends, closes the file and says so; the
            // handle must not be the last one here, closing may take a while.
            path.open = None;
        }
    }

    /// A removed path's file is closed: its slot is free.
    pub(super) fn closed(&mut self, id: PathId) {
        if let Some(path) = self.paths.remove(&id) {
            self.engine.retired(id);
            log::debug!("path {} closed", path.name);
        }
    }

    /// Whether a removed path is still open.
    pub(super) fn is_open(&self, id: PathId) -> bool {
        self.paths.contains_key(&id)
    }

    /// Whether every queue thread works by a table at least this new.
    pub(super) fn acknowledged(&self, generation: u64) -> bool {
        self.queues.acknowledged(SLOT) >= generation
    }

    /// Name of a path that is, or was until a moment ago, in the map.
    pub(super) fn path_name(&self, id: PathId) -> Option<&str> {
        self.paths.get(&id).map(|path| path.name.as_str())
    }

    /// The open path of that name.
    pub(super) fn open_path(&self, name: &str) -> Result<&Arc<PathHandle>, MapError> {
        let id = self.engine.path_by_name(name)?.id;
        let open = self.paths.get(&id).and_then(|path| path.open.as_ref());
        open.map(|(handle, _)| handle).ok_or_else(|| MapError::NoSuchPath(name.to_owned()))
    }

    /// Paths whose commands may be stuck in the kernel.
    pub(super) fn doubtful_paths(&self) -> Vec<String> {
        let topology = self.engine.topology();
        let paths = topology.groups.iter().flat_map(|group| &group.paths);
        paths.filter(|p| !p.is_usable()).map(|p| p.name.clone()).collect()
    }

    fn generation(&self) -> u64 {
        self.engine.table().map_or(0, |table| table.generation)
    }

    fn carry_out(&mut self, fx: Effects) {
        for effect in fx {
            match effect {
                Effect::Publish(table) => self.queues.publish(SLOT, &table),
                Effect::Check { path, check } => self.with_checking(path, |c| c.check(check)),
                Effect::Prove { path, proof } => self.with_checking(path, |c| c.prove(proof)),
                Effect::Retire(path) => self.queues.detach(SLOT, path),
                Effect::Notify(change) => self.news.push(events::of_change(&change)),
            }
        }
    }

    fn with_checking(&self, path: PathId, tell: impl FnOnce(&Checking)) {
        if let Some((_, checking)) = self.paths.get(&path).and_then(|p| p.open.as_ref()) {
            tell(checking);
        }
    }

    // --- for display ------------------------------------------------------------

    /// Paths by the checker's finding, all paths, usable paths.
    pub(super) fn counts(&self) -> (BTreeMap<String, usize>, usize, usize) {
        let topology = self.engine.topology();
        let mut states = BTreeMap::new();
        let mut all = 0;
        for path in topology.groups.iter().flat_map(|group| &group.paths) {
            *states.entry(path.checker_state.name().to_owned()).or_default() += 1;
            all += 1;
        }
        (states, all, topology.usable)
    }

    pub(super) fn status(&self, now: Time, front_end: bool) -> MapStatus {
        let topology = self.engine.topology();
        let policy = topology.policy;
        let group = |g: &crate::mpath::topology::TopologyGroup| GroupStatus {
            selector: format!("{} 0", policy.selector.name()),
            pri: g.priority,
            dm_st: g.status.name().to_owned(),
            marginal_st: "normal".to_owned(),
            group: g.number,
            paths: g.paths.iter().map(|p| self.path_status(now, g.number, p)).collect(),
        };
        let holds = topology.queueing && policy.no_path_retry != NoPathRetry::Fail;
        MapStatus {
            name: self.name.clone(),
            uuid: topology.identity.wwid.clone(),
            sysfs: String::new(),
            failback: "manual".to_owned(),
            queueing: match (holds, policy.no_path_retry) {
                (false, _) => "off".to_owned(),
                (true, NoPathRetry::Times(n)) => format!("{n} chk"),
                (true, _) => "on".to_owned(),
            },
            paths: topology.usable,
            write_prot: if self.read_only { "ro" } else { "rw" }.to_owned(),
            dm_st: "active".to_owned(),
            features: if holds { "1 queue_if_no_path" } else { "0" }.to_owned(),
            hwhandler: "0".to_owned(),
            action: String::new(),
            path_faults: topology.path_faults,
            vend: self.geometry.vendor.clone(),
            prod: self.geometry.product.clone(),
            rev: self.geometry.revision.clone(),
            switch_grp: topology.switches,
            map_loads: topology.generation,
            total_q_time: 0,
            q_timeouts: topology.queue_timeouts,
            path_groups: topology.groups.iter().map(group).collect(),
            size: topology
                .identity
                .capacity
                .0
                .saturating_mul(u64::from(topology.identity.block_size)),
            block_size: topology.identity.block_size,
            serial: self.geometry.serial.clone(),
            front_end,
        }
    }

    fn path_status(&self, now: Time, group: u16, path: &Path) -> PathStatus {
        let undef = || "[undef]".to_owned();
        let handle = self.paths.get(&path.id).and_then(|p| p.open.as_ref()).map(|(h, _)| h);
        let say = |f: &dyn Fn(&PathHandle) -> String| handle.map(|h| f(h)).unwrap_or_default();
        let (ios, bytes) = self.queues.issued(SLOT, path.id);
        let (next_check, interval) = path.next_check();
        PathStatus {
            dev: path.name.clone(),
            dev_t: say(&dev_t),
            hcil: say(&|h| hcil(h, path.id)),
            dm_st: path.dm_state().to_owned(),
            dev_st: say(&dev_state),
            chk_st: path.checker_state.name().to_owned(),
            checker: path.checker.name().to_owned(),
            pri: path.priority,
            host_wwnn: undef(),
            target_wwnn: undef(),
            host_wwpn: undef(),
            target_wwpn: undef(),
            host_adapter: undef(),
            lun_hex: undef(),
            marginal_st: "normal".to_owned(),
            group,
            state: match path.state {
                PathState::Active => "active",
                PathState::Suspect => "suspect",
                PathState::Doubt => "doubt",
                PathState::Failed => "failed",
            }
            .to_owned(),
            failed_by_administrator: path.failed_by_administrator,
            checking: path.is_being_checked(),
            next_check: next_check.since(now).as_secs_f64(),
            check_interval: interval.as_secs_f64(),
            failures: path.failures,
            last_cause: path.last_cause.as_ref().map(events::cause_in_words),
            last_cause_data: path.last_cause.as_ref().map(events::cause_as_data),
            ios,
            bytes,
            spec: say(&|h| h.spec().to_owned()),
            transport: say(&|h| h.transport().name().to_owned()),
            transport_reason: say(&|h| h.transport_reason().to_owned()),
            wwid: say(&|h| h.identity().wwid.clone()),
            faults: handle.and_then(|h| h.faults()).map(|(words, _)| words),
        }
    }
}

/// What is not SCSI has no address: multipath-tools' placeholder. A simulated
/// path's target port is its slot.
fn hcil(handle: &PathHandle, id: PathId) -> String {
    match (handle.hctl(), handle.kind()) {
        (Some(hctl), _) => hctl.to_owned(),
        (None, PathKind::Sim) => format!("0:0:{}:0", id.slot),
        (None, _) => "#:#:#:#".to_owned(),
    }
}

fn dev_t(handle: &PathHandle) -> String {
    match (handle.dev_t(), handle.kind()) {
        (Some(dev_t), _) => dev_t.to_owned(),
        (None, PathKind::Sim) => "0:0".to_owned(),
        (None, _) => "#:#".to_owned(),
    }
}

fn dev_state(handle: &PathHandle) -> String {
    let Some(dev) = handle.dev_t() else { return "running".to_owned() };
    let generic = matches!(handle.kind(), PathKind::ScsiGeneric | PathKind::ScsiBsg);
    match device_state(dev, generic) {
        DeviceState::Running => "running".to_owned(),
        DeviceState::Blocked => "blocked".to_owned(),
        DeviceState::Offline | DeviceState::Gone => "offline".to_owned(),
        DeviceState::Other(state) => state,
    }
}

/// What every path of two can carry (law 4). What only one of them can do at
/// all, none is asked for.
pub(super) fn smallest(a: Limits, b: Limits) -> Limits {
    let granularity = common_multiple(a.unmap_granularity.0, b.unmap_granularity.0);
    Limits {
        max_transfer: a.max_transfer.min(b.max_transfer),
        max_segments: a.max_segments.min(b.max_segments),
        max_unmap: a.max_unmap.min(b.max_unmap),
        max_unmap_descriptors: a.max_unmap_descriptors.min(b.max_unmap_descriptors),
        unmap_granularity: Blocks(granularity),
        // Granules are a hint; where two paths tell them apart, the coarser
        // one's alignment counts.
        unmap_alignment: if a.unmap_granularity >= b.unmap_granularity {
            a.unmap_alignment
        } else {
            b.unmap_alignment
        },
        max_write_same: a.max_write_same.min(b.max_write_same),
        fua: a.fua && b.fua,
    }
}

/// Limits of a running map when a path with others joins. What the guest was
/// offered stays: a path that cannot UNMAP or WRITE SAME at all says so itself,
/// and the request core or the guest goes on without.
fn shrunk(map: Limits, path: Limits) -> Limits {
    let mut limits = smallest(map, path);
    if path.max_unmap.0 == 0 {
        limits.max_unmap = map.max_unmap;
        limits.max_unmap_descriptors = map.max_unmap_descriptors;
    }
    if path.max_write_same.0 == 0 {
        limits.max_write_same = map.max_write_same;
    }
    limits
}

/// The least common multiple; the larger one where that overflows.
fn common_multiple(a: u64, b: u64) -> u64 {
    let (a, b) = (a.max(1), b.max(1));
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    (a / x).checked_mul(b).unwrap_or_else(|| a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Lba;

    #[test]
    fn limits_of_a_map_are_what_all_its_paths_can_do() {
        let one = Limits {
            max_transfer: Blocks(1024),
            max_segments: 32,
            max_unmap: Blocks(4096),
            max_unmap_descriptors: 1,
            unmap_granularity: Blocks(8),
            unmap_alignment: Lba(4),
            max_write_same: Blocks(0),
            fua: true,
        };
        let other = Limits {
            max_transfer: Blocks(256),
            max_segments: 128,
            max_unmap: Blocks(0),
            max_unmap_descriptors: 0,
            unmap_granularity: Blocks(1),
            unmap_alignment: Lba(0),
            max_write_same: Blocks(77),
            fua: false,
        };
        let both = Limits {
            max_transfer: Blocks(256),
            max_segments: 32,
            max_unmap: Blocks(0),
            max_unmap_descriptors: 0,
            unmap_granularity: Blocks(8),
            unmap_alignment: Lba(4),
            max_write_same: Blocks(0),
            fua: false,
        };
        assert_eq!(smallest(one, other), both);
        assert_eq!(smallest(other, one), both);
        assert_eq!(smallest(one, one), one);
    }

    #[test]
    fn a_path_that_joins_later_takes_no_offer_back() {
        let map = Limits {
            max_transfer: Blocks(1024),
            max_segments: 32,
            max_unmap: Blocks(4096),
            max_unmap_descriptors: 4,
            unmap_granularity: Blocks(1),
            unmap_alignment: Lba(0),
            max_write_same: Blocks(64),
            fua: true,
        };
        let poor = Limits {
            max_transfer: Blocks(8),
            max_unmap: Blocks(0),
            max_unmap_descriptors: 0,
            max_write_same: Blocks(0),
            ..map
        };
        assert_eq!(shrunk(map, poor), Limits { max_transfer: Blocks(8), ..map });
    }

    #[test]
    fn granules_of_two_paths_are_those_of_both() {
        assert_eq!(common_multiple(6, 4), 12);
        assert_eq!(common_multiple(0, 8), 8);
        assert_eq!(common_multiple(u64::MAX, u64::MAX - 1), u64::MAX);
    }
}
