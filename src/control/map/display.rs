//! A map as data: what `query-maps` and `query-luns` answer.

use std::collections::BTreeMap;

use super::Map;
use crate::control::events;
use crate::control::probing::device_state;
use crate::control::status::{GroupStatus, LunStatus, MapStatus, PathStatus};
use crate::host::discover::siblings;
use crate::io::{Blocks, Time};
use crate::mpath::hwhandler::HandlerKind;
use crate::mpath::path::{Path, PathState};
use crate::mpath::policy::keywords::{KEYWORDS, Keyword};
use crate::mpath::policy::{Failback, NoPathRetry, Policy};
use crate::mpath::probe::DeviceState;
use crate::mpath::topology::{Topology, TopologyGroup};
use crate::passthrough_scsi::{PathHandle, PathKind};

impl Map {
    /// Paths by the checker's finding, all paths, usable paths.
    pub(in crate::control) fn counts(&self) -> (BTreeMap<String, usize>, usize, usize) {
        let topology = self.engine.topology();
        let mut states = BTreeMap::new();
        let mut all = 0;
        for path in topology.groups.iter().flat_map(|group| &group.paths) {
            *states.entry(path.checker_state.name().to_owned()).or_default() += 1;
            all += 1;
        }
        (states, all, topology.usable)
    }

    pub(in crate::control) fn status(&self, now: Time, front_end: bool) -> MapStatus {
        let topology = self.engine.topology();
        let policy = &topology.policy;
        let group = |g: &TopologyGroup| GroupStatus {
            selector: format!("{} 0", policy.selector.name()),
            pri: g.priority,
            dm_st: g.status.name().to_owned(),
            marginal_st: marginal(g.marginal),
            group: g.number,
            paths: g.paths.iter().map(|p| self.path_status(now, g.number, p)).collect(),
        };
        let holds = topology.queueing && policy.no_path_retry != NoPathRetry::Fail;
        MapStatus {
            name: self.name.clone(),
            lun: self.lun.as_ref().map(|lun| lun.address.to_string()),
            uuid: topology.identity.wwid.clone(),
            sysfs: String::new(),
            failback: failback(policy.failback),
            failback_in: topology.failback_at.map(|at| at.since(now).as_secs_f64()),
            queueing: match (holds, policy.no_path_retry) {
                (false, _) => "off".to_owned(),
                (true, NoPathRetry::Times(n)) => format!("{n} chk"),
                (true, _) => "on".to_owned(),
            },
            queueing_disabled: topology.queueing_disabled,
            paths: topology.usable,
            write_prot: if self.read_only { "ro" } else { "rw" }.to_owned(),
            dm_st: "active".to_owned(),
            features: features(policy, holds),
            hwhandler: hwhandler(&topology),
            action: String::new(),
            path_faults: topology.path_faults,
            vend: self.geometry.vendor.clone(),
            prod: self.geometry.product.clone(),
            rev: self.geometry.revision.clone(),
            switch_grp: topology.switches,
            map_loads: topology.generation,
            total_q_time: self.outages.held(now).as_secs(),
            q_timeouts: topology.queue_timeouts,
            map_failures: self.outages.failures(),
            path_groups: topology.groups.iter().map(group).collect(),
            size: self.sizes().0,
            guest_size: self.sizes().1,
            block_size: topology.identity.block_size,
            serial: self.geometry.serial.clone(),
            front_end,
            policy: KEYWORDS.iter().map(|k| (k.name.to_owned(), k.value(policy))).collect(),
        }
    }

    /// Bytes of the LU, and of the disk that a vhost-user-blk guest is shown.
    pub(in crate::control) fn sizes(&self) -> (u64, Option<u64>) {
        let identity = self.engine.identity();
        let bytes = |blocks: Blocks| blocks.0.saturating_mul(u64::from(identity.block_size));
        (bytes(identity.capacity), self.disk.as_ref().map(|disk| bytes(disk.capacity())))
    }

    fn path_status(&self, now: Time, group: u16, path: &Path) -> PathStatus {
        let handle = self.paths.get(&path.id).and_then(|p| p.open.as_ref()).map(|(h, _)| h);
        let say = |f: &dyn Fn(&PathHandle) -> String| handle.map(|h| f(h)).unwrap_or_default();
        let (ios, bytes) = self.queues.issued(self.slot, path.id);
        let (next_check, interval) = path.next_check();
        let nodes = handle.and_then(|h| h.hctl()).map(siblings).unwrap_or_default();
        PathStatus {
            dev: path.name.clone(),
            multipath: self.name.clone(),
            dev_t: say(&dev_t),
            hcil: say(&|h| self.hcil(h, path)),
            dm_st: path.dm_state().to_owned(),
            dev_st: say(&dev_state),
            chk_st: path.checker_state.name().to_owned(),
            checker: path.checker.name().to_owned(),
            pri: path.priority,
            host_wwnn: defined(handle.and_then(|h| h.fabric().host_node.clone())),
            target_wwnn: defined(path.attributes.target_node.clone()),
            host_wwpn: defined(handle.and_then(|h| h.fabric().host_port.clone())),
            target_wwpn: defined(path.attributes.target_port.clone()),
            host_adapter: defined(handle.and_then(|h| h.fabric().host_adapter.clone())),
            lun_hex: say(&|h| lun_hex(&self.hcil(h, path))),
            marginal_st: marginal(path.marginal),
            protocol: say(&|h| h.fabric().protocol.unwrap_or("undef").to_owned()),
            target_port_group: path.access.group,
            access_state: path.access.state.map(|state| state.name().to_owned()),
            preferred: path.access.preferred,
            vend_prod_rev: say(&vend_prod_rev),
            size: path.capacity.0.saturating_mul(self.engine.identity().block_size.into()),
            serial: path.attributes.serial.clone().unwrap_or_default(),
            group,
            state: match path.state {
                PathState::Active if path.is_beside_the_holder() => "reserved",
                PathState::Active if path.is_barred() => "unregistered",
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
            sg: nodes.sg,
            bsg: nodes.bsg,
        }
    }

    /// What is not SCSI has no address: multipath-tools' placeholder. Each
    /// simulated path has a target port of its own.
    fn hcil(&self, handle: &PathHandle, path: &Path) -> String {
        let address = self.lun.as_ref().map(|lun| lun.address).unwrap_or_default();
        match (handle.hctl(), handle.kind()) {
            (Some(hctl), _) => hctl.to_owned(),
            (None, PathKind::Sim) => {
                let port = u16::from(address.target) + u16::from(path.id.slot);
                format!("0:0:{port}:{}", address.lun)
            }
            (None, _) => "#:#:#:#".to_owned(),
        }
    }

    /// For `query-luns`; `None` for a disk served as vhost-user-blk.
    pub(in crate::control) fn lun_status(&self) -> Option<LunStatus> {
        let lun = self.lun.as_ref()?;
        let topology = self.engine.topology();
        let identity = &topology.identity;
        Some(LunStatus {
            lun: lun.address.to_string(),
            map: self.name.clone(),
            uuid: identity.wwid.clone(),
            size: identity.capacity.0.saturating_mul(u64::from(identity.block_size)),
            block_size: identity.block_size,
            paths: topology.groups.iter().map(|group| group.paths.len()).sum(),
            usable: topology.usable,
            read_only: self.read_only,
            exposed: if lun.joined { "lu" } else { "path" }.to_owned(),
            state: if self.is_leaving() { "leaving" } else { "serving" }.to_owned(),
            denied: lun
                .policy
                .denied(self.paths_joined())
                .map(|group| group.name().to_owned())
                .collect(),
            attention_pending: lun.attentions.is_pending(),
        })
    }
}

fn marginal(it_is: bool) -> String {
    if it_is { "marginal" } else { "normal" }.to_owned()
}

/// multipathd's placeholder for what is not known.
fn defined(name: Option<String>) -> String {
    name.unwrap_or_else(|| "[undef]".to_owned())
}

fn failback(failback: Failback) -> String {
    match failback {
        Failback::Manual => "manual".to_owned(),
        Failback::Immediate => "immediate".to_owned(),
        Failback::Followover => "followover".to_owned(),
        Failback::After(time) => format!("deferred:{}", time.as_secs_f64()),
    }
}

/// The kernel's words: what it would be told.
fn features(policy: &Policy, holds: bool) -> String {
    let no_path_retry = if holds { NoPathRetry::Queue } else { NoPathRetry::Fail };
    let now = Policy { no_path_retry, ..policy.clone() };
    Keyword::named("features").map(|keyword| keyword.value(&now)).unwrap_or_default()
}

/// The handler in use; one that is to be detected is alua as soon as a path
/// has told its target port group.
fn hwhandler(topology: &Topology) -> String {
    let mut paths = topology.groups.iter().flat_map(|group| &group.paths);
    match topology.policy.hardware_handler {
        HandlerKind::Alua => "1 alua",
        HandlerKind::Rdac => "1 rdac",
        HandlerKind::Emc => "1 emc",
        HandlerKind::Detect if paths.any(|path| path.access.group.is_some()) => "1 alua",
        HandlerKind::Detect | HandlerKind::None => "0",
    }
    .to_owned()
}

/// The LUN of an `H:C:T:L` as it stands in a CDB's header (SAM-5 4.7).
fn lun_hex(hcil: &str) -> String {
    let lun: Option<u64> = hcil.rsplit(':').next().and_then(|lun| lun.parse().ok());
    let swapped = lun.map_or(u64::MAX, |lun| {
        let level = |n: u32| (lun >> (16 * n) & 0xffff) << (48 - 16 * n);
        (0..4).map(level).fold(0, |all, part| all | part)
    });
    format!("0x{swapped:016x}")
}

fn vend_prod_rev(handle: &PathHandle) -> String {
    let geometry = handle.geometry();
    let fields = [&geometry.vendor, &geometry.product, &geometry.revision];
    fields.map(|field| if field.is_empty() { "##" } else { field }).join(",")
}

fn dev_t(handle: &PathHandle) -> String {
    match (handle.dev_t(), handle.kind()) {
        (Some(dev_t), _) => dev_t.to_owned(),
        (None, PathKind::Sim) => "0:0".to_owned(),
        (None, _) => "#:#".to_owned(),
    }
}

/// multipathd's words; what cannot be known is taken to run.
fn dev_state(handle: &PathHandle) -> String {
    match device_state(handle) {
        Some(DeviceState::Blocked) => "blocked",
        Some(DeviceState::Offline) => "offline",
        Some(DeviceState::Running) | None => "running",
    }
    .to_owned()
}
