//! All maps of a device: which there are, where the guest finds them, how
//! they come and go.
//!
//! Owned by the control thread. A map that goes is first hidden from the
//! guest, then ended by every queue thread, then closed; its slot is free for
//! another one only after that (law 10).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::checking::Patience;
use super::events::{self, Notice};
use super::lun::Address;
use super::mailbox::Post;
use super::map::{JoinError, Lun, Map, Parts};
use super::opening::Lu;
use super::prkeys::keeper::Keeper;
use super::settings::Scsi;
use crate::io::{DeviceEvent, Happened, MAX_MAPS, MapSlot, Time};
use crate::mpath::MapError;
use crate::mpath::event::Event;
use crate::mpath::snapshot::{PathId, PathTable, Queueing};
use crate::queue::{Queues, dispatch};
use crate::scsi::attention::Attentions;
use crate::scsi::sense::{Sense, SenseCode};
use crate::vhost_blk::BlkDevice;
use crate::vhost_scsi::ScsiDevice;

/// Why an LU cannot be added or found.
#[derive(Debug, thiserror::Error)]
pub(super) enum LunError {
    #[error("LUN {0} is there already; `show luns` lists them")]
    AddressTaken(Address),
    #[error("LUN {0} is being removed; wait for it")]
    AddressLeaving(Address),
    #[error("there is a map {0} already; give another alias")]
    NameTaken(String),
    #[error("{wwid} is LUN {address} already; add the path to it: add path SPEC to {address}")]
    Served { wwid: String, address: Address },
    #[error("a device has at most {MAX_MAPS} LUNs")]
    Full,
    #[error("{0}")]
    Join(#[from] JoinError),
    #[error("there is no LUN {0}; `show luns` lists them")]
    NoSuchLun(Address),
    #[error("there is no map {0}; `show maps` lists them")]
    NoSuchMap(String),
    #[error("there are {0} maps; say which one")]
    WhichMap(usize),
    #[error("there is no map yet; add one: add lun T:L SPEC")]
    NoMap,
}

/// A SCSI device and how it shows LUs.
pub(super) struct Shown {
    pub(super) device: Arc<ScsiDevice>,
    pub(super) settings: Scsi,
}

/// What all maps have in common.
pub(super) struct Common {
    pub(super) queues: Arc<Queues>,
    /// `None` for vhost-user-blk.
    pub(super) scsi: Option<Shown>,
    /// `None` for vhost-user-scsi.
    pub(super) disk: Option<Arc<BlkDevice>>,
    pub(super) command_timeout: Duration,
    pub(super) suspect_after: Duration,
    pub(super) post: Post,
    /// Keeps what is to be remembered of reservations; `None` for
    /// vhost-user-blk, whose guests cannot reserve.
    pub(super) keeper: Option<Keeper>,
}

/// The maps of a device.
pub(super) struct Maps {
    maps: BTreeMap<MapSlot, Map>,
    common: Common,
    news: Vec<(String, Notice)>,
    /// What the guest is to be told once it can see it.
    happened: Vec<DeviceEvent>,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps").field("maps", &self.maps).finish_non_exhaustive()
    }
}

impl Maps {
    pub(super) fn new(common: Common) -> Maps {
        Maps { maps: BTreeMap::new(), common, news: Vec::new(), happened: Vec::new() }
    }

    /// Whether an order of some guest's about its reservations has not ended.
    pub(super) fn any_order(&self) -> bool {
        self.maps.values().any(|map| map.engine.reservation_facts().orders > 0)
    }

    /// Who keeps the guests' reservation keys.
    pub(super) fn keeper(&self) -> Option<&Keeper> {
        self.common.keeper.as_ref()
    }

    /// How LUs are shown; `None` for vhost-user-blk.
    pub(super) fn scsi(&self) -> Option<&Scsi> {
        self.common.scsi.as_ref().map(|shown| &shown.settings)
    }

    pub(super) fn get(&self, slot: MapSlot) -> Option<&Map> {
        self.maps.get(&slot)
    }

    /// In the order of their addresses.
    pub(super) fn in_order(&self) -> Vec<&Map> {
        let mut maps: Vec<&Map> = self.maps.values().collect();
        maps.sort_by_key(|map| map.lun.as_ref().map(|lun| lun.address));
        maps
    }

    /// Every slot that has one.
    pub(super) fn slots(&self) -> Vec<MapSlot> {
        self.maps.keys().copied().collect()
    }

    /// The map a path of that name is in.
    pub(super) fn with_path(&mut self, path: &str) -> Result<&mut Map, MapError> {
        let found = self.maps.values_mut().find(|map| map.has_path(path));
        found.ok_or_else(|| MapError::NoSuchPath(path.to_owned()))
    }

    /// The map of that name or address; without one, the only one.
    pub(super) fn named(&self, word: Option<&str>) -> Result<MapSlot, LunError> {
        let staying = || self.maps.values().filter(|map| !map.is_leaving());
        let Some(word) = word else {
            let mut all = staying();
            return match (all.next(), all.next()) {
                (Some(map), None) => Ok(map.slot),
                (None, _) => Err(LunError::NoMap),
                _ => Err(LunError::WhichMap(staying().count())),
            };
        };
        let address: Option<Address> = word.parse().ok();
        let is_it = |map: &&Map| {
            let there = map.lun.as_ref().is_some_and(|lun| Some(lun.address) == address);
            there || map.name == word || map.engine.identity().wwid == word
        };
        let slot = staying().find(is_it).map(|map| map.slot);
        slot.ok_or_else(|| LunError::NoSuchMap(word.to_owned()))
    }

    /// Name of the disk where the device is one: vhost-user-blk.
    pub(super) fn sole_disk(&self) -> Option<&str> {
        let map = self.maps.values().next().filter(|_| self.common.scsi.is_none());
        map.map(|map| map.name.as_str())
    }

    fn at(&self, address: Address) -> Option<&Map> {
        let is_it = |map: &&Map| map.lun.as_ref().is_some_and(|lun| lun.address == address);
        self.maps.values().find(is_it)
    }

    /// Whether an LU could come to this address.
    pub(super) fn admits(&self, address: Address) -> Result<(), LunError> {
        match self.at(address) {
            None if self.maps.len() >= MAX_MAPS => Err(LunError::Full),
            None => Ok(()),
            Some(map) if map.is_leaving() => Err(LunError::AddressLeaving(address)),
            Some(_) => Err(LunError::AddressTaken(address)),
        }
    }

    /// Takes an LU in. `news`: the guest may be there, and is told.
    pub(super) fn add(&mut self, now: Time, lu: Lu, news: bool) -> Result<(), LunError> {
        self.refuse_doubles(&lu)?;
        let (address, name) = (lu.address, lu.name.clone());
        let slot = self.free_slot().ok_or(LunError::Full)?;
        let (paths, remembered) = (lu.paths.clone(), lu.remembered);
        let mut map = self.map_of(slot, lu);
        match remembered {
            Some(remembered) => map.recall(now, remembered),
            None => map.expect_key(now),
        }
        let joined = paths.iter().try_for_each(|path| map.join(now, path).map(drop));
        if joined.is_err() {
            map.leave();
            map.let_go();
        }
        self.maps.insert(slot, map);
        joined?;
        if news && self.common.scsi.is_some() {
            self.luns_changed(address, Happened::Added);
            self.news.push((name, events::of_lun_added(address)));
        }
        self.show();
        Ok(())
    }

    fn refuse_doubles(&self, lu: &Lu) -> Result<(), LunError> {
        if self.common.scsi.is_none() {
            return Ok(());
        }
        self.admits(lu.address)?;
        for map in self.maps.values() {
            if map.name == lu.name {
                return Err(LunError::NameTaken(lu.name.clone()));
            }
            let Some(lun) = map.lun.as_ref().filter(|lun| lu.joined || lun.joined) else {
                continue;
            };
            if map.engine.identity().wwid == lu.wwid() {
                let (wwid, address) = (lu.wwid().to_owned(), lun.address);
                return Err(LunError::Served { wwid, address });
            }
        }
        Ok(())
    }

    fn free_slot(&self) -> Option<MapSlot> {
        let all = (0..u16::try_from(MAX_MAPS).unwrap_or(u16::MAX)).map(MapSlot);
        all.into_iter().find(|slot| !self.maps.contains_key(slot))
    }

    /// A map without paths yet, known to the queue threads.
    fn map_of(&self, slot: MapSlot, lu: Lu) -> Map {
        let lun = self.common.scsi.as_ref().map(|shown| Lun {
            address: lu.address,
            attentions: Arc::new(Attentions::new(lu.joined)),
            policy: lu.command_policy(shown.settings.policy),
            joined: lu.joined,
            no_path: shown.settings.no_path,
            nexus: Arc::default(),
            reservation: Arc::default(),
            pr_show: shown.settings.pr_show,
        });
        let Common { queues, command_timeout, suspect_after, .. } = &self.common;
        let core = dispatch::Settings {
            limits: lu.limits,
            block_size: lu.engine.identity().block_size,
            command_timeout: *command_timeout,
            suspect_after: *suspect_after,
            // What the threads have is theirs to say.
            max_requests: 0,
            rings: 0,
        };
        let table = Arc::new(PathTable {
            generation: 0,
            groups: Vec::new(),
            queueing: Queueing::Hold,
            selector: lu.policy().selector,
            suspended: false,
            registered: false,
            hold_for: None,
        });
        let patience = Patience { check: lu.policy().checker_timeout, command: *command_timeout };
        let keeper = self.common.keeper.as_ref().filter(|_| lu.joined).cloned();
        let attentions = lun.as_ref().map(|lun| Arc::clone(&lun.attentions));
        queues.add_map(slot, core, &table, attentions);
        Map::new(Parts {
            slot,
            name: lu.name,
            lun,
            disk: self.common.disk.clone(),
            engine: lu.engine,
            queues: Arc::clone(queues),
            limits: lu.limits,
            geometry: lu.geometry,
            read_only: lu.read_only,
            patience,
            keeper,
            post: self.common.post.of(slot),
            discover: lu.discover,
        })
    }

    /// Begins to remove the LU there.
    pub(super) fn remove(&mut self, address: Address) -> Result<MapSlot, LunError> {
        let found = self.at(address).ok_or(LunError::NoSuchLun(address))?;
        if found.is_leaving() {
            return Err(LunError::AddressLeaving(address));
        }
        let slot = found.slot;
        if let Some(map) = self.maps.get_mut(&slot) {
            map.leave();
        }
        self.luns_changed(address, Happened::Removed);
        self.show();
        if let Some(map) = self.maps.get(&slot) {
            map.let_go();
        }
        Ok(slot)
    }

    /// The guest is to hear of it, and the other LUs of the target to say so.
    fn luns_changed(&mut self, address: Address, what: Happened) {
        let Address { target, lun } = address;
        self.happened.push(DeviceEvent { target, lun, what });
    }

    /// Shows the guest what has changed, then tells it: a REPORT LUNS between
    /// the two would clear the unit attention and list what was.
    pub(super) fn show(&mut self) {
        let changed = self.maps.values_mut().fold(false, |any, map| map.take_changed() | any);
        let Some(shown) = &self.common.scsi else { return };
        if changed {
            shown.device.set_units(self.maps.values().filter_map(Map::unit).collect());
        }
        for DeviceEvent { target, lun, .. } in &self.happened {
            let luns = self.maps.values().filter_map(|map| map.lun.as_ref());
            for other in luns.filter(|o| o.address.target == *target && o.address.lun != *lun) {
                other.attentions.raise(&Sense::fixed(SenseCode::REPORTED_LUNS_CHANGED));
            }
        }
        let of_maps = self.maps.values_mut().flat_map(Map::take_happened);
        for event in self.happened.drain(..).chain(of_maps) {
            self.common.queues.tell(event);
        }
    }

    /// An in-flight area was given: what it says of the size that the guest has
    /// been shown.
    pub(super) fn tell_inherited_size(&mut self) {
        self.maps.values_mut().for_each(Map::tell_inherited_size);
    }

    /// Whether the front-end is to be told of a larger disk, since the last call.
    pub(super) fn take_grown(&mut self) -> bool {
        self.maps.values_mut().fold(false, |any, map| map.take_grown() | any)
    }

    // --- what arrives -----------------------------------------------------------

    pub(super) fn handle(&mut self, now: Time, slot: MapSlot, event: Event) {
        if let Some(map) = self.maps.get_mut(&slot) {
            map.handle(now, event);
        }
    }

    /// A path joins a map.
    pub(super) fn get_mut(&mut self, slot: MapSlot) -> Option<&mut Map> {
        self.maps.get_mut(&slot)
    }

    /// A queue thread has let go of a map.
    pub(super) fn gone(&mut self, slot: MapSlot) {
        if let Some(map) = self.maps.get_mut(&slot) {
            map.gone();
        }
        self.bury(slot);
    }

    /// A path's file is closed.
    pub(super) fn closed(&mut self, slot: MapSlot, path: PathId) {
        if let Some(map) = self.maps.get_mut(&slot) {
            map.closed(path);
        }
        self.bury(slot);
    }

    /// Forgets a map of which nothing is left.
    fn bury(&mut self, slot: MapSlot) {
        if !self.maps.get(&slot).is_some_and(Map::is_over) {
            return;
        }
        let Some(mut map) = self.maps.remove(&slot) else { return };
        let name = map.name.clone();
        self.news.extend(map.take_news().into_iter().map(|notice| (name.clone(), notice)));
        if let Some(lun) = map.lun {
            self.news.push((name, events::of_lun_removed(lun.address)));
        }
    }

    /// Runs the engines whose time has come.
    pub(super) fn run_timers(&mut self, now: Time) {
        for map in self.maps.values_mut() {
            if map.next_deadline().is_some_and(|at| at <= now) {
                map.handle(now, Event::Timer);
            }
        }
    }

    /// What has waited for queue threads: engines of suspended maps on which
    /// nothing is out any more, paths that are to be registered.
    pub(super) fn look_at_queues(&mut self, now: Time) {
        for map in self.maps.values_mut() {
            map.look_for_quiet(now);
            map.look_for_entry();
        }
    }

    /// The first moment at which an engine wants to run.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.maps.values().filter_map(Map::next_deadline).min()
    }

    /// What has happened since the last call, with the map's name.
    pub(super) fn take_news(&mut self) -> Vec<(String, Notice)> {
        let mut news = std::mem::take(&mut self.news);
        for map in self.maps.values_mut() {
            let name = &map.name.clone();
            news.extend(map.take_news().into_iter().map(|notice| (name.clone(), notice)));
        }
        news
    }

    /// Paths whose commands may be stuck in the kernel.
    pub(super) fn doubtful_paths(&self) -> Vec<String> {
        self.maps.values().flat_map(Map::doubtful_paths).collect()
    }
}
