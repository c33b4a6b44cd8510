//! A map: the engine, the open paths, and carrying out what the engine asks.
//!
//! Owned by the control thread, one for each LU the guest sees. Effects become
//! messages to queue threads and checking threads; news is collected for the
//! daemon to tell. Never blocks. Which maps there are is `control::maps`.

mod admin;
mod display;
mod limits;
mod outages;
mod reservations;
mod reset;
mod scsi_paths;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::checking::{Checking, Patience};
use super::events::{self, Notice};
use super::lun::Address;
use super::mailbox::Post;
use super::opening::Arrival;
use super::prkeys::keeper::Keeper;
use crate::host::Options;
use crate::io::{Blocks, DeviceEvent, Geometry, Happened, Limits, MapSlot, Time};
use crate::mpath::checker::CheckerKind;
use crate::mpath::effect::{Change, Effect, Effects};
use crate::mpath::event::Event;
use crate::mpath::policy::Policy;
use crate::mpath::snapshot::PathId;
use crate::mpath::{MapError, Multipath, NewPath};
use crate::passthrough_scsi::PathHandle;
use crate::queue::Queues;
use crate::scsi::attention::Attentions;
use crate::scsi::command::CommandPolicy;
use crate::scsi::sense::SenseCode;
use crate::vhost_blk::BlkDevice;
use crate::vhost_scsi::{Nexus, NoPathAnswer, OwnKeys, PrShow, Unit};

use limits::shrunk;
pub(super) use limits::smallest;
use outages::Outages;
use reservations::Reservations;
use reset::Resets;
pub(super) use scsi_paths::ScsiPath;

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
        "path {0} is write protected, the map is not; lift the protection, or serve the disk \
         read-only"
    )]
    WriteProtected(String),
    /// The guest would see another disk than it was shown.
    #[error(
        "LUN {0} is one path that the guest sees (--expose paths); show it another one as a LUN \
         of its own: add lun T:L SPEC"
    )]
    Exposed(Address),
    /// The guest's RESERVE holds for the path it was made by.
    #[error(
        "LUN {0} has one path and its guest has sent RESERVE by it, which holds for that path \
         only: no path joins; remove the LUN and add it with all its paths (persistent reservations \
         hold for all of them)"
    )]
    Reserved(Address),
    /// It is being removed.
    #[error("map {0} is being removed")]
    Leaving(String),
    /// Its checker would find it down, and nothing would ever carry I/O.
    #[error(
        "path {path} speaks no SCSI, which path_checker {checker} needs; take path_checker detect \
         or directio"
    )]
    NoScsi {
        /// Its name.
        path: String,
        /// In multipath.conf's spelling.
        checker: &'static str,
    },
}

/// Whether the checker that the policy names can check the path.
fn can_be_checked(path: &PathHandle, checker: Option<CheckerKind>) -> Result<(), JoinError> {
    match checker {
        Some(kind) if kind.needs_scsi() && !path.is_scsi() => {
            Err(JoinError::NoScsi { path: path.name().to_owned(), checker: kind.name() })
        }
        _ => Ok(()),
    }
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

/// How a SCSI device shows an LU.
#[derive(Debug)]
pub(super) struct Lun {
    pub(super) address: Address,
    /// What the LU has said and the guest has not heard.
    pub(super) attentions: Arc<Attentions>,
    pub(super) policy: CommandPolicy,
    /// The guest sees one LU; otherwise a path.
    pub(super) joined: bool,
    pub(super) no_path: NoPathAnswer,
    /// RESERVE(6) and (10) against paths.
    pub(super) nexus: Arc<Nexus>,
    /// What the guest has registered.
    pub(super) reservation: Arc<OwnKeys>,
    pub(super) pr_show: PrShow,
}

/// One map.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) slot: MapSlot,
    pub(super) name: String,
    /// `None` for a disk served as vhost-user-blk.
    pub(super) lun: Option<Lun>,
    /// The device it is, if that is vhost-user-blk.
    disk: Option<Arc<BlkDevice>>,
    pub(super) engine: Multipath,
    queues: Arc<Queues>,
    paths: HashMap<PathId, OpenPath>,
    limits: Limits,
    geometry: Geometry,
    read_only: bool,
    patience: Patience,
    post: Post,
    news: Vec<Notice>,
    /// What a [`Unit`] says has changed.
    changed: bool,
    /// The guest's disk is larger than its front-end knows.
    grown: bool,
    /// What the guest is to be told of the LU.
    happened: Vec<Happened>,
    outages: Outages,
    reservations: Reservations,
    resets: Resets,
    /// Paths to its LU join and leave by themselves.
    discover: bool,
    /// It has, or has had, paths that are SCSI devices of this host.
    of_scsi_disks: bool,
    /// It is being removed: so many queue threads still have it.
    leaving: Option<usize>,
}

/// What a map is made of.
pub(super) struct Parts {
    pub(super) slot: MapSlot,
    pub(super) name: String,
    pub(super) lun: Option<Lun>,
    /// The device it is, if that is vhost-user-blk.
    pub(super) disk: Option<Arc<BlkDevice>>,
    pub(super) engine: Multipath,
    pub(super) queues: Arc<Queues>,
    /// The smallest limits over all paths to begin with.
    pub(super) limits: Limits,
    /// As shown to the guest.
    pub(super) geometry: Geometry,
    pub(super) read_only: bool,
    pub(super) patience: Patience,
    /// Keeps what is to be remembered of reservations; `None`: the guest
    /// cannot reserve.
    pub(super) keeper: Option<Keeper>,
    pub(super) post: Post,
    /// Paths to its LU join and leave by themselves, if they are SCSI disks.
    pub(super) discover: bool,
}

impl Map {
    pub(super) fn new(parts: Parts) -> Map {
        let Parts { slot, name, lun, disk, engine, queues, .. } = parts;
        let Parts { limits, geometry, read_only, patience, keeper, post, discover, .. } = parts;
        Map {
            slot,
            name,
            lun,
            disk,
            engine,
            queues,
            paths: HashMap::new(),
            limits,
            geometry,
            read_only,
            patience,
            post,
            news: Vec::new(),
            changed: true,
            grown: false,
            happened: Vec::new(),
            outages: Outages::default(),
            reservations: Reservations::new(keeper),
            resets: Resets::default(),
            discover,
            of_scsi_disks: false,
            leaving: None,
        }
    }

    /// What the device's front has to know of it; `None` for vhost-user-blk,
    /// and once it is being removed.
    pub(super) fn unit(&self) -> Option<Unit> {
        let lun = self.lun.as_ref().filter(|_| self.leaving.is_none())?;
        Some(Unit {
            target: lun.address.target,
            lun: lun.address.lun,
            map: self.slot,
            attentions: Arc::clone(&lun.attentions),
            policy: lun.policy,
            joined: lun.joined,
            multipath: self.paths.len() > 1,
            nexus: Arc::clone(&lun.nexus),
            reservation: Arc::clone(&lun.reservation),
            pr_show: lun.pr_show,
            read_only: self.read_only,
            limits: self.limits,
            block_size: self.engine.identity().block_size,
            no_path: lun.no_path,
        })
    }

    /// What steers it.
    pub(super) fn policy(&self) -> Policy {
        self.engine.policy().clone()
    }

    /// How a further path of it is opened.
    pub(super) fn options(&self, all: Options) -> Options {
        Options { read_only: self.read_only, ..all }
    }

    /// What the guest is to be told, by the address it knows; once.
    pub(super) fn take_happened(&mut self) -> Vec<DeviceEvent> {
        let happened = std::mem::take(&mut self.happened);
        let Some(lun) = self.lun.as_ref().filter(|_| self.leaving.is_none()) else {
            return Vec::new();
        };
        let Address { target, lun } = lun.address;
        happened.into_iter().map(|what| DeviceEvent { target, lun, what }).collect()
    }

    /// Whether the guest sees one LU where there are several paths.
    pub(super) fn paths_joined(&self) -> bool {
        self.paths.len() > 1 && self.lun.as_ref().is_some_and(|lun| lun.joined)
    }

    /// Whether [`Map::unit`] says something new since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether the front-end is to be told of a larger disk, since the last call.
    pub(super) fn take_grown(&mut self) -> bool {
        std::mem::take(&mut self.grown)
    }

    /// What has happened since the last call.
    pub(super) fn take_news(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.news)
    }

    /// Takes an open, proven path into the map. The queue threads know it
    /// before any table names it.
    pub(super) fn join(&mut self, now: Time, arrival: &Arrival) -> Result<PathId, JoinError> {
        let Arrival { handle, attributes, reading } = arrival;
        let name = handle.name().to_owned();
        if self.leaving.is_some() {
            return Err(JoinError::Leaving(self.name.clone()));
        }
        match &self.lun {
            Some(lun) if !lun.joined && !self.paths.is_empty() => {
                return Err(JoinError::Exposed(lun.address));
            }
            _ => {}
        }
        if let Err(error) = self.engine.admits(&name, handle.identity()) {
            if matches!(error, MapError::OtherSize { .. }) {
                // A LU that shrank and told nobody: its other paths are asked,
                // and this one may join once they agree.
                let mut fx = Effects::new();
                self.engine.prove_all(now, &mut fx);
                self.carry_out(now, fx);
            }
            return Err(error.into());
        }
        self.one_nexus_or_several()?;
        if handle.geometry().read_only && !self.read_only {
            return Err(JoinError::WriteProtected(name));
        }
        can_be_checked(handle, self.engine.policy().checker)?;
        let checker = if handle.is_scsi() { CheckerKind::Tur } else { CheckerKind::DirectIo };
        let new = NewPath {
            name: name.clone(),
            identity: handle.identity().clone(),
            checker,
            attributes: attributes.clone(),
            reading: Some(reading.clone()),
        };
        let mut fx = Effects::new();
        let id = self.engine.add_path(now, new, &mut fx)?;
        let (patience, post) = (self.patience, self.post.clone());
        let attentions = self.lun.as_ref().map(|lun| Arc::clone(&lun.attentions));
        let file = Arc::clone(handle);
        let checking = match Checking::start(
            id,
            file,
            (checker, attributes.clone()),
            patience,
            post,
            attentions,
        ) {
            Ok(checking) => checking,
            Err(source) => {
                self.take_back(now, &name, id);
                return Err(JoinError::Thread { path: name, source });
            }
        };
        let fua = handle.fua().unwrap_or(self.limits.fua);
        self.set_limits(shrunk(self.limits, Limits { fua, ..*handle.limits() }));
        self.changed = true;
        self.of_scsi_disks |= handle.hctl().is_some();
        self.queues.attach(self.slot, id, handle);
        let open = Some((Arc::clone(handle), checking));
        self.paths.insert(id, OpenPath { name, open, users: self.queues.threads() });
        self.carry_out(now, fx);
        self.learned();
        Ok(id)
    }

    fn set_limits(&mut self, limits: Limits) {
        if limits != self.limits {
            self.limits = limits;
            self.queues.set_limits(self.slot, limits);
        }
    }

    /// A path may know by now whether the LU knows FUA: if no path says no, and
    /// one says yes, writes that are to be durable are sent so.
    pub(super) fn learned(&mut self) {
        let open = self.paths.values().filter_map(|path| path.open.as_ref());
        let known: Vec<bool> = open.filter_map(|(handle, _)| handle.fua()).collect();
        if let Some(fua) = known.iter().copied().reduce(|all, one| all && one) {
            self.set_limits(Limits { fua, ..self.limits });
        }
    }

    /// Law 5: no path joins a LU that its guest has reserved by another, but for
    /// persistent reservations.
    fn one_nexus_or_several(&self) -> Result<(), JoinError> {
        match &self.lun {
            Some(lun) if lun.joined => {
                let first = self.paths.is_empty() && !lun.nexus.is_reserved();
                let joins = first || lun.nexus.join();
                if joins { Ok(()) } else { Err(JoinError::Reserved(lun.address)) }
            }
            _ => Ok(()),
        }
    }

    /// The engine took a path that cannot join after all; nobody has heard.
    fn take_back(&mut self, now: Time, name: &str, id: PathId) {
        let mut fx = Effects::new();
        if self.engine.remove_path(now, name, &mut fx).is_ok() {
            self.engine.retired(id);
            fx.retain(|effect| matches!(effect, Effect::Publish(_)));
            self.carry_out(now, fx);
        }
    }

    /// Tells the engine something and does what it asks.
    pub(super) fn handle(&mut self, now: Time, event: Event) {
        if self.leaving.is_some() {
            return;
        }
        let mut fx = Effects::new();
        self.engine.handle(now, event, &mut fx);
        self.carry_out(now, fx);
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
            self.changed = true;
            log::debug!("path {} closed", path.name);
            match &mut self.lun {
                Some(lun) if self.paths.len() <= 1 && !lun.nexus.is_reserved() => {
                    lun.nexus = Arc::default();
                }
                _ => {}
            }
        }
    }

    /// Whether a removed path is still open.
    pub(super) fn is_open(&self, id: PathId) -> bool {
        self.paths.contains_key(&id)
    }

    /// Whether every queue thread works by a table at least this new.
    pub(super) fn acknowledged(&self, generation: u64) -> bool {
        self.queues.acknowledged(self.slot) >= generation
    }

    /// When the engine wants to hear [`Event::Timer`].
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.engine.next_deadline().filter(|_| self.leaving.is_none())
    }

    // --- its end ----------------------------------------------------------------

    /// Begins to leave: the guest is not shown it any more, and the engine is
    /// heard no more. [`Map::let_go`] follows once the guest's fronts know.
    pub(super) fn leave(&mut self) {
        if self.leaving.is_none() {
            self.leaving = Some(self.queues.threads());
            self.changed = true;
            self.drop_resets();
        }
    }

    /// The queue threads end what they have of it and let go.
    pub(super) fn let_go(&self) {
        self.queues.remove_map(self.slot);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// A queue thread has let go of it; after the last one its paths are
    /// closed (law 10).
    pub(super) fn gone(&mut self) {
        let Some(left) = &mut self.leaving else { return };
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.paths.values_mut().for_each(|path| path.open = None);
        }
    }

    /// Whether nothing of it is left.
    pub(super) fn is_over(&self) -> bool {
        self.leaving == Some(0) && self.paths.is_empty()
    }

    // --- its paths --------------------------------------------------------------

    /// Whether a path of that name is in it.
    pub(super) fn has_path(&self, name: &str) -> bool {
        self.leaving.is_none() && self.engine.path_by_name(name).is_ok()
    }

    /// Names of its paths whose files are open.
    pub(super) fn open_paths(&self) -> Vec<String> {
        let mut names: Vec<String> = self.paths.values().map(|path| path.name.clone()).collect();
        names.sort();
        names
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

    fn carry_out(&mut self, now: Time, fx: Effects) {
        self.show_own_keys();
        for effect in fx {
            match effect {
                Effect::Publish(table) => {
                    self.note_suspended(&table);
                    self.queues.publish(self.slot, &table);
                }
                Effect::Check { path, check, checker } => {
                    self.with_checking(path, |c| c.check(check, checker));
                }
                Effect::Prioritize { path, reading, prio } => {
                    self.with_checking(path, |c| c.prioritize(reading, prio));
                }
                Effect::Activate { path, activation, handler, group } => {
                    self.with_checking(path, |c| c.activate(activation, handler, group));
                }
                Effect::Sample { path, sample } => self.with_checking(path, |c| c.sample(sample)),
                Effect::Prove { path, proof } => self.with_checking(path, |c| c.prove(proof)),
                Effect::Retire(path) => self.queues.detach(self.slot, path),
                Effect::Reserve { path, job, ask } => self.reserve(path, job, ask),
                Effect::Answer { order, outcome } => self.answer(order, outcome),
                Effect::Attention(code) => self.attention(code),
                Effect::Remember(what) => self.remember(what),
                Effect::Notify(change) => {
                    self.happened.extend(seen_by_the_guest(&change));
                    self.changed |= matches!(change, Change::Resized { .. });
                    self.outages.count(now, &change);
                    let mut notice = events::of_change(&change);
                    if let Change::Resized { from, to } = change {
                        self.resize_disk(from, to, &mut notice);
                    }
                    self.news.push(notice);
                }
            }
        }
    }

    /// A vhost-user-blk disk grows with its LU, and never shrinks under its
    /// guest. The guest of a SCSI device asks the LU itself.
    fn resize_disk(&mut self, from: Blocks, to: Blocks, notice: &mut Notice) {
        let Some(disk) = &self.disk else { return };
        let grew = disk.resize(to);
        self.grown |= grew;
        events::add_guest_size(notice, from, to, disk.capacity(), grew);
    }

    /// The guest has been shown more by an earlier process: the LU has shrunk
    /// while nobody looked.
    pub(super) fn tell_inherited_size(&mut self) {
        let Some(disk) = self.disk.as_ref().filter(|disk| disk.take_inherited_size()) else {
            return;
        };
        let (from, to) = (disk.capacity(), self.engine.identity().capacity);
        let mut notice = events::of_change(&Change::Resized { from, to });
        events::add_guest_size(&mut notice, from, to, from, false);
        self.news.push(notice);
    }

    fn with_checking(&self, path: PathId, tell: impl FnOnce(&Checking)) {
        if let Some((_, checking)) = self.paths.get(&path).and_then(|p| p.open.as_ref()) {
            tell(checking);
        }
    }
}

/// What a change of the LU is to the guest (virtio 1.3 5.6.6.3).
fn seen_by_the_guest(change: &Change) -> Option<Happened> {
    match change {
        Change::Resized { .. } => {
            let SenseCode { asc, ascq, .. } = SenseCode::CAPACITY_CHANGED;
            Some(Happened::Changed { asc, ascq })
        }
        Change::LunGone => Some(Happened::Removed),
        Change::LunBack => Some(Happened::Added),
        _ => None,
    }
}
