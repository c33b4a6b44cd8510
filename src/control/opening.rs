//! Opening the paths of an LU, and what a map of them is made of.
//!
//! Waits for paths: at the start on the control thread, at run time on a
//! thread of its own. Compares what each path has proved (law 2).

use std::sync::Arc;

use super::lun::{Address, LuSettings};
use super::map::smallest;
use super::probing::{self, Ask, Unheard};
use crate::host::{OpenError, Options, PathSpec, open_path};
use crate::io::{Geometry, Limits};
use crate::mpath::policy::keywords::{KeywordError, Setting};
use crate::mpath::policy::{NoPathRetry, Policy};
use crate::mpath::prio::{Attributes, Prioritizer, Reading};
use crate::mpath::{MapError, Multipath};
use crate::passthrough_scsi::PathHandle;
use crate::scsi::command::CommandPolicy;

/// Why an LU cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenLuError {
    /// A path cannot be opened.
    #[error("{0}")]
    Open(OpenError),
    /// The paths do not belong together.
    #[error("{0}")]
    Map(#[from] MapError),
    /// What it is set to contradicts what holds for the device.
    #[error("{0}")]
    Setting(#[from] KeywordError),
}

/// A path that is open, and what is known of it before it carries anything.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) handle: Arc<PathHandle>,
    pub(super) attributes: Attributes,
    /// A path of a standby port must not be taken for a good one until its
    /// first check.
    pub(super) reading: Reading,
}

/// Opens a path and asks for its priority, as a map of this policy wants it.
pub(super) fn open_one(
    spec: &PathSpec,
    options: &Options,
    policy: &Policy,
) -> Result<Arrival, OpenError> {
    let handle = open_path(spec, options)?;
    let timeout = policy.checker_timeout;
    let attributes = probing::attributes(&handle, timeout);
    let mut prioritizer = Prioritizer::new(policy.prio.clone(), &attributes);
    let reading = Unheard(&handle, timeout).prioritize(&mut prioritizer);
    introduce(&handle, &reading);
    Ok(Arrival { handle, attributes, reading })
}

/// An LU whose paths are open and have proved to be its paths: what a map is
/// made of.
#[derive(Debug)]
pub(super) struct Lu {
    pub(super) address: Address,
    pub(super) name: String,
    pub(super) engine: Multipath,
    pub(super) paths: Vec<Arrival>,
    pub(super) limits: Limits,
    pub(super) geometry: Geometry,
    pub(super) read_only: bool,
    /// The guest sees one LU; otherwise a path.
    pub(super) joined: bool,
    /// What the guest may send beyond, or short of, the device's policy.
    settings: LuSettings,
    policy: Policy,
}

/// Opens every path of an LU.
pub(super) fn open_lu(
    settings: &LuSettings,
    options: &Options,
    policy: &Policy,
) -> Result<Lu, OpenLuError> {
    let options = Options { read_only: settings.read_only, ..*options };
    let policy = &Setting::apply_all(&settings.set, policy)?;
    let mut lu: Option<Lu> = None;
    for spec in &settings.paths {
        let path = open_one(spec, &options, policy).map_err(OpenLuError::Open)?;
        let handle = &path.handle;
        let protected = handle.geometry().read_only;
        if protected && !settings.read_only {
            log::warn!("path {} is write protected: the disk is served read-only", handle.name());
        }
        match &mut lu {
            None => lu = Some(Lu::of(path, settings.clone(), policy.clone())),
            Some(lu) => {
                lu.engine.admits(handle.name(), handle.identity())?;
                lu.limits = smallest(lu.limits, *handle.limits());
                lu.geometry.unmap &= handle.geometry().unmap;
                lu.geometry.unmap_reads_zero &= handle.geometry().unmap_reads_zero;
                lu.read_only |= protected;
                lu.paths.push(path);
            }
        }
    }
    // Whoever asks has at least one.
    lu.ok_or_else(|| OpenLuError::Map(MapError::NoSuchPath("(none given)".to_owned())))
}

impl Lu {
    /// An LU of one path, to begin with.
    fn of(path: Arrival, settings: LuSettings, policy: Policy) -> Lu {
        let handle = &path.handle;
        let identity = handle.identity().clone();
        Lu {
            address: settings.address,
            name: settings.alias.clone().unwrap_or_else(|| identity.wwid.clone()),
            engine: Multipath::new(identity, policy.clone()),
            limits: *handle.limits(),
            geometry: handle.geometry().clone(),
            read_only: settings.read_only || handle.geometry().read_only,
            paths: vec![path],
            joined: true,
            settings,
            policy,
        }
    }

    /// WWID of what its paths lead to.
    pub(super) fn wwid(&self) -> &str {
        &self.engine.identity().wwid
    }

    /// What steers its map.
    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What the guest may send, where `device` holds for all.
    pub(super) fn command_policy(&self, device: CommandPolicy) -> CommandPolicy {
        self.settings.policy(device)
    }

    /// Each path as an LU of its own, of a target of its own. Nothing is held
    /// then: whether to wait is for the guest's multipath software to say.
    pub(super) fn by_path(self) -> Vec<Lu> {
        let policy = Policy { no_path_retry: NoPathRetry::Fail, ..self.policy };
        let Lu { name, settings, read_only, paths, .. } = self;
        // The command line has checked that the targets suffice.
        let addresses = settings.addresses(true).unwrap_or_default();
        let one = |(path, address): (Arrival, Address)| Lu {
            address,
            name: format!("{name}-{}", path.handle.name()),
            joined: false,
            read_only,
            ..Lu::of(path, settings.clone(), policy.clone())
        };
        paths.into_iter().zip(addresses).map(one).collect()
    }
}

fn introduce(handle: &PathHandle, reading: &Reading) {
    let identity = handle.identity();
    let own = reading.alua.as_ref().and_then(|alua| {
        let group = alua.groups.iter().find(|(id, ..)| *id == alua.own)?;
        Some(format!(", target port group {} {}", group.0, group.1.name()))
    });
    log::info!(
        "path {}: {} ({}), WWID {}, {} blocks of {} bytes{}",
        handle.name(),
        handle.transport().name(),
        handle.transport_reason(),
        identity.wwid,
        identity.capacity,
        identity.block_size,
        own.unwrap_or_default()
    );
}
