//! Opening the paths of an LU, and what a map of them is made of.
//!
//! Waits for paths: at the start on the control thread, at run time on a
//! thread of its own. Compares what each path has proved (law 2). Paths are
//! those that were named or, where the LU was named, the disks that sysfs
//! calls by its WWID.

use std::sync::Arc;

use super::lun::{Address, LuSettings};
use super::map::smallest;
use super::prkeys::{Prkeys, PrkeysError};
use super::probing::{self, Ask, Unheard};
use crate::host::discover::{self, Disk};
use crate::host::{
    AliasError, OpenError, Options, PathSpec, Target, left_behind, open_path, understand_wwid,
    wwid_of_alias,
};
use crate::io::{Geometry, Limits};
use crate::mpath::policy::keywords::{KeywordError, Setting};
use crate::mpath::policy::{NoPathRetry, Policy};
use crate::mpath::prio::{Attributes, Prioritizer, Reading};
use crate::mpath::reservation::Remembered;
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
    /// No map of that name.
    #[error("{0}")]
    Alias(#[from] AliasError),
    /// Nothing that could be a path to the LU that was named.
    #[error("no path to {wwid}: {}", seen_in_words(.wwid, .seen))]
    NoneFound {
        /// Its WWID.
        wwid: String,
        /// Each disk of this host with its WWID, or why it could not be used.
        seen: Vec<Seen>,
    },
    /// A path that was named leads elsewhere than was said.
    #[error("path {path} leads to {found}, and {expected} was asked for")]
    OtherLu {
        /// Its name.
        path: String,
        /// Its WWID.
        found: String,
        /// The LU's.
        expected: String,
    },
    /// What it is set to contradicts what holds for the device.
    #[error("{0}")]
    Setting(#[from] KeywordError),
    /// What its guest has reserved cannot be read.
    #[error("{0}")]
    Prkeys(#[from] PrkeysError),
}

impl OpenLuError {
    /// Whether nothing is in the way but commands of a process that was killed,
    /// as far as anybody can tell.
    pub(super) fn is_left_behind(&self) -> bool {
        match self {
            OpenLuError::Open(error) => error.is_left_behind(),
            OpenLuError::NoneFound { seen, .. } => seen.iter().any(|disk| disk.left_behind),
            _ => false,
        }
    }
}

/// A disk that was looked at for a path.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Kernel name.
    pub devname: String,
    /// What it calls itself.
    pub wwid: Option<String>,
    /// Why it could not be opened, where its WWID is the right one.
    pub refused: Option<String>,
    /// What was in the way ends by itself.
    pub left_behind: bool,
}

/// Most disks that an error lists.
const LISTED: usize = 8;

fn seen_in_words(wwid: &str, seen: &[Seen]) -> String {
    let refused: Vec<&str> = seen.iter().filter_map(|disk| disk.refused.as_deref()).collect();
    if !refused.is_empty() {
        return refused.join("; ");
    }
    if seen.is_empty() {
        return "this host has no SCSI disk (`lsblk -S`)".to_owned();
    }
    let name = |disk: &Seen| {
        let wwid = disk.wwid.as_deref().unwrap_or("no WWID");
        format!("{} {wwid}", disk.devname)
    };
    let mut all: Vec<String> = seen.iter().take(LISTED).map(name).collect();
    if seen.len() > LISTED {
        all.push(format!("{} more", seen.len() - LISTED));
    }
    let kind = if wwid.len() < 17 { " (a WWID has 17 or 33 characters mostly)" } else { "" };
    format!("none of this host's SCSI disks is called so{kind}: {}", all.join(", "))
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
    open_quietly(spec, options, policy).inspect(introduce)
}

/// The same without a word: nobody has asked for this path by name.
pub(super) fn open_quietly(
    spec: &PathSpec,
    options: &Options,
    policy: &Policy,
) -> Result<Arrival, OpenError> {
    let handle = open_path(spec, options)?;
    let timeout = policy.checker_timeout;
    let attributes = probing::attributes(&handle, timeout);
    let mut prioritizer = Prioritizer::new(policy.prio.clone(), &attributes);
    let reading = Unheard(&handle, timeout).prioritize(&mut prioritizer);
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
    /// Its paths join and leave by themselves.
    pub(super) discover: bool,
    /// What an earlier daemon's guest has registered.
    pub(super) remembered: Option<Remembered>,
    /// What the guest may send beyond, or short of, the device's policy.
    settings: LuSettings,
    policy: Policy,
}

/// Opens every path of an LU: those that are named or, where none is, those
/// that are there. While a predecessor that was killed has commands out on any
/// path that may have been its own, nothing is served (law 3): what was opened
/// is closed again.
pub(super) fn open_lu(
    settings: &LuSettings,
    options: &Options,
    policy: &Policy,
    prkeys: Option<&Prkeys>,
) -> Result<Lu, OpenLuError> {
    let options = Options { read_only: settings.read_only, ..*options };
    let policy = &Setting::apply_all(&settings.set, policy)?;
    let wanted = wanted(settings)?;
    let mut lu: Option<Lu> = None;
    let mut take = |path: Arrival| match &mut lu {
        None => {
            lu = Some(Lu::of(path, settings.clone(), policy.clone()));
            Ok(())
        }
        Some(lu) => lu.take(path),
    };
    if let (true, Some(wwid)) = (settings.paths.is_empty(), &wanted) {
        for path in gather(wwid, &options, policy)? {
            let name = path.handle.name().to_owned();
            // It is named by nobody; it joins when it can.
            take(path).unwrap_or_else(|error| log::warn!("path {name} is left out: {error}"));
        }
    }
    for spec in &settings.paths {
        let path = open_quietly(spec, &options, policy).map_err(OpenLuError::Open)?;
        let (name, found) = (path.handle.name(), &path.handle.identity().wwid);
        if let Some(expected) = wanted.clone().filter(|wanted| wanted != found) {
            let (path, found) = (name.to_owned(), found.clone());
            return Err(OpenLuError::OtherLu { path, found, expected });
        }
        take(path)?;
    }
    // Whoever asks has at least one.
    let none = || OpenLuError::Map(MapError::NoSuchPath("(none given)".to_owned()));
    let mut lu = lu.ok_or_else(none)?;
    lu.succeeds()?;
    lu.remembered = prkeys.map(|prkeys| prkeys.read(lu.wwid())).transpose()?.flatten();
    lu.paths.iter().for_each(introduce);
    Ok(lu)
}

/// The WWID that was given, in whatever words.
pub(super) fn wanted(settings: &LuSettings) -> Result<Option<String>, OpenLuError> {
    Ok(match (&settings.wwid, &settings.map) {
        (Some(wwid), _) => Some(understand_wwid(wwid)),
        (None, Some(map)) => Some(wwid_of_alias(map)?),
        (None, None) => None,
    })
}

/// Opens the disks that sysfs calls by this WWID and that prove it; at least
/// one.
fn gather(wwid: &str, options: &Options, policy: &Policy) -> Result<Vec<Arrival>, OpenLuError> {
    let mut paths = Vec::new();
    let mut seen = Vec::new();
    for Disk { devname, wwid: name, also, .. } in discover::scan() {
        let (mut refused, mut left_behind) = (None, false);
        if [&name, &also].iter().any(|name| name.as_deref() == Some(wwid)) {
            match open_quietly(&found(&devname), options, policy) {
                Ok(path) if Some(&path.handle.identity().wwid) == name.as_ref() => paths.push(path),
                Ok(path) => {
                    refused = Some(format!("{devname} leads to {}", path.handle.identity().wwid));
                }
                Err(error) => {
                    left_behind = error.is_left_behind();
                    refused = Some(error.to_string());
                }
            }
        }
        seen.push(Seen { devname, wwid: name, refused, left_behind });
    }
    if paths.is_empty() {
        return Err(OpenLuError::NoneFound { wwid: wwid.to_owned(), seen });
    }
    Ok(paths)
}

/// A disk that nobody has named, as a path.
pub(super) fn found(devname: &str) -> PathSpec {
    let text = format!("/dev/{devname}");
    PathSpec { target: Target::Node(text.clone().into()), text, name: None }
}

impl Lu {
    /// One more path.
    fn take(&mut self, path: Arrival) -> Result<(), OpenLuError> {
        let handle = &path.handle;
        self.engine.admits(handle.name(), handle.identity())?;
        if handle.geometry().read_only && !self.read_only {
            log::warn!("path {} is write protected: the disk is served read-only", handle.name());
        }
        let fua = handle.fua().unwrap_or(self.limits.fua);
        self.limits = smallest(self.limits, Limits { fua, ..*handle.limits() });
        self.geometry.unmap &= handle.geometry().unmap;
        self.geometry.unmap_reads_zero &= handle.geometry().unmap_reads_zero;
        self.read_only |= handle.geometry().read_only;
        self.paths.push(path);
        Ok(())
    }

    /// An LU of one path, to begin with.
    fn of(path: Arrival, settings: LuSettings, policy: Policy) -> Lu {
        let handle = &path.handle;
        let identity = handle.identity().clone();
        let protected = handle.geometry().read_only;
        if protected && !settings.read_only {
            log::warn!("path {} is write protected: the disk is served read-only", handle.name());
        }
        let called = settings.alias.clone().or_else(|| settings.map.clone());
        Lu {
            address: settings.address,
            name: called.unwrap_or_else(|| identity.wwid.clone()),
            engine: Multipath::new(identity, policy.clone()),
            limits: *handle.limits(),
            geometry: handle.geometry().clone(),
            read_only: settings.read_only || protected,
            paths: vec![path],
            joined: true,
            discover: settings.discover.unwrap_or(true),
            remembered: None,
            settings,
            policy,
        }
    }

    /// A predecessor may have had paths that are not among ours (yet): what it
    /// has sent there must have come back, too.
    fn succeeds(&self) -> Result<(), OpenLuError> {
        let named = !self.settings.paths.is_empty();
        if named && !self.discover {
            return Ok(());
        }
        let is_ours = |hctl: &str| self.paths.iter().any(|path| path.handle.hctl() == Some(hctl));
        let others = discover::scan().into_iter().filter(|disk| {
            disk.wwid.as_deref() == Some(self.wwid()) && !disk.is_head && !is_ours(&disk.hctl)
        });
        match others.filter_map(|disk| left_behind(&disk.devname)).next() {
            Some(error) => Err(OpenLuError::Open(error)),
            None => Ok(()),
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

/// Says in the log what a path is.
pub(super) fn introduce(path: &Arrival) {
    let Arrival { handle, reading, .. } = path;
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
