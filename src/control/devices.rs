//! What the daemon does about SCSI disks that come, go and speak: paths that
//! join and leave by themselves.
//!
//! Runs on the control thread; opens nothing there. What to open is decided by
//! [`discovery`](super::discovery), what a path's news mean by the engine.

use super::daemon::Daemon;
use super::discovery::{Opening, Refusal, Want};
use super::events;
use super::mailbox::Mail;
use super::map::{Map, ScsiPath};
use super::opening::{self, Arrival, introduce, open_quietly};
use super::status::DeviceStatus;
use super::uevents::{self, DeviceNews};
use crate::host::OpenError;
use crate::host::discover::{Disk, is_there, siblings};
use crate::host::uevent::SdevChange;
use crate::io::{MapSlot, Time};
use crate::mpath::event::{Event, HostNews};
use crate::mpath::snapshot::PathId;

impl Daemon {
    /// Opens what is to be opened now; begins to listen as soon as there is a
    /// map of real SCSI paths.
    pub(super) fn look_for_paths(&mut self) {
        if self.is_stopping() {
            return;
        }
        if !self.listening && self.maps.in_order().iter().any(|map| map.is_of_scsi_disks()) {
            self.listening = true;
            if let Err(error) = uevents::start(self.mailbox.sender()) {
                log::error!("paths that come or go are not noticed: no thread for it: {error}");
            }
        }
        let now = self.clock.now();
        let due = self.discovery.deadline().is_some_and(|at| at <= now);
        if !std::mem::take(&mut self.look_again) && !due {
            return;
        }
        let maps = self.maps.in_order();
        let want = |map: &&Map| {
            map.discovers().then(|| Want { slot: map.slot, wwid: map.wwid().to_owned() })
        };
        let wants: Vec<Want> = maps.iter().filter_map(want).collect();
        let open: Vec<ScsiPath> = maps.iter().flat_map(|map| map.scsi_paths()).collect();
        let taken = |disk: &Disk| open.iter().any(|path| path.is_of(disk));
        for opening in self.discovery.next(now, &wants, taken) {
            self.open_found(now, &opening);
        }
    }

    /// When there is something to open, should nothing happen.
    pub(super) fn discovery_deadline(&self) -> Option<Time> {
        self.discovery.deadline().filter(|_| !self.is_stopping())
    }

    fn open_found(&mut self, now: Time, opening: &Opening) {
        let slot = opening.want.slot;
        let Some(map) = self.maps.get(slot) else { return };
        let (options, policy) = (map.options(self.open), map.policy());
        let post = self.mailbox.sender().of(slot);
        let name = format!("open-{}", opening.devname);
        let job = opening.clone();
        let open = move || {
            let result = open_quietly(&opening::found(&job.devname), &options, &policy);
            post.send(Mail::Found { opening: job, result });
        };
        if let Err(error) = std::thread::Builder::new().name(name).spawn(open) {
            let refusal = Refusal::Other(format!("cannot start a thread: {error}"));
            self.found_ended(now, slot, opening, Err(refusal));
        }
    }

    /// A disk that may be a path was opened, or not.
    pub(super) fn found(
        &mut self,
        slot: MapSlot,
        opening: &Opening,
        result: Result<Arrival, OpenError>,
    ) {
        let now = self.clock.now();
        let outcome = match result {
            Err(error) => Err(Refusal::from(&error)),
            Ok(path) => self.take_found(now, slot, opening, &path),
        };
        self.found_ended(now, slot, opening, outcome);
    }

    fn take_found(
        &mut self,
        now: Time,
        slot: MapSlot,
        opening: &Opening,
        path: &Arrival,
    ) -> Result<(), Refusal> {
        let other = |why: &str| Err(Refusal::Other(why.to_owned()));
        let proven = &path.handle.identity().wwid;
        // A device that goes now is not in a map yet, and nobody would notice.
        if !self.discovery.is_current(&opening.hctl, opening.born) || has_gone(path) {
            return other("its device has gone meanwhile");
        }
        if *proven != opening.want.wwid {
            return Err(Refusal::OtherLu(proven.clone()));
        }
        if self.is_stopping() {
            return other("the daemon is stopping");
        }
        match self.maps.get_mut(slot).filter(|map| map.wwid() == proven) {
            None => other("its map has gone meanwhile"),
            Some(map) => match map.join(now, path) {
                Ok(_) => {
                    introduce(path);
                    Ok(())
                }
                Err(error) => Err(Refusal::Other(error.to_string())),
            },
        }
    }

    fn found_ended(
        &mut self,
        now: Time,
        slot: MapSlot,
        opening: &Opening,
        outcome: Result<(), Refusal>,
    ) {
        self.look_again = true;
        if let Some(notice) = self.discovery.opened(now, opening, outcome) {
            self.tell_some(Some(slot), notice);
        }
    }

    /// What the uevents thread has seen.
    pub(super) fn devices(&mut self, all: Vec<DeviceNews>) {
        self.look_again = true;
        for news in all {
            let now = self.clock.now();
            self.discovery.learn(now, &news);
            match &news {
                DeviceNews::Came(disk) => {
                    log::debug!("disk {} came at {}", disk.devname, disk.hctl);
                }
                DeviceNews::Went(hctl) => self.lose_paths(now, Some(hctl)),
                DeviceNews::Looked => self.lose_paths(now, None),
                DeviceNews::Said(hctl, change, _) => self.heard(now, hctl, *change),
                DeviceNews::Freed => {}
                DeviceNews::Deaf(why) => self.tell_some(None, events::of_no_uevents(why)),
            }
        }
    }

    /// Paths whose devices have gone leave their maps.
    pub(super) fn lose_paths(&mut self, now: Time, hctl: Option<&str>) {
        for slot in self.maps.slots() {
            let Some(map) = self.maps.get_mut(slot).filter(|map| map.discovers()) else { continue };
            for path in map.scsi_paths() {
                if hctl.is_none_or(|hctl| hctl == path.hctl) && path.has_gone() {
                    map.lose_path(now, &path);
                }
            }
        }
    }

    /// An LU has said something by the device at this address.
    fn heard(&mut self, now: Time, hctl: &str, change: SdevChange) {
        let Some(news) = news_of(change) else { return };
        for slot in self.maps.slots() {
            let Some(map) = self.maps.get_mut(slot) else { continue };
            for path in map.scsi_paths() {
                if path.hctl == hctl && !path.has_gone() {
                    if let HostNews::PerhapsAnother(_) = news {
                        map.question(path.id);
                    }
                    map.handle(now, Event::Told { path: path.id, news });
                }
            }
        }
    }

    /// The SCSI disks of this host, for `query-devices`.
    pub(super) fn devices_status(&self) -> Vec<DeviceStatus> {
        let maps = self.maps.in_order();
        let of_map = |map: &&Map| {
            let name = map.name.clone();
            map.scsi_paths().into_iter().map(move |path| (path, name.clone()))
        };
        let paths: Vec<(ScsiPath, String)> = maps.iter().flat_map(of_map).collect();
        let status = |(disk, reason): (&Disk, Option<String>)| {
            let map = paths.iter().find(|(path, _)| path.is_of(disk)).map(|(_, map)| map.clone());
            let nodes = siblings(&disk.hctl);
            DeviceStatus {
                dev: disk.devname.clone(),
                hcil: disk.hctl.clone(),
                dev_t: disk.dev.to_string(),
                uuid: disk.wwid.clone().unwrap_or_default(),
                sg: nodes.sg,
                bsg: nodes.bsg,
                reason: reason.filter(|_| map.is_none()),
                multipath: map,
            }
        };
        self.discovery.list().map(status).collect()
    }

    /// `del path`: it does not come back by itself.
    pub(super) fn leave_out(&mut self, path: &ScsiPath) {
        self.discovery.leave_out(&path.hctl);
    }

    /// `add path` has opened this; whether it may join.
    pub(super) fn added_by_hand(&mut self, path: &Arrival) -> Result<(), String> {
        let Some(hctl) = path.handle.hctl() else { return Ok(()) };
        if has_gone(path) {
            return Err(format!("{}: its device has gone meanwhile", path.handle.name()));
        }
        self.discovery.let_in(hctl);
        Ok(())
    }
}

/// What the engine is told of it.
fn news_of(change: SdevChange) -> Option<HostNews> {
    match change {
        // (Law 2. A reset comes with whatever has another LU put there; where sd
        // carries the commands, nobody else hears of it.)
        SdevChange::InquiryData | SdevChange::ReportedLuns | SdevChange::Reset => {
            Some(HostNews::PerhapsAnother(change.name()))
        }
        SdevChange::Capacity => Some(HostNews::Capacity),
        SdevChange::AccessState => Some(HostNews::AccessStates),
        SdevChange::ModeParameters | SdevChange::ThinThreshold => None,
    }
}

/// Whether the device behind an open path that is in no map yet has gone.
fn has_gone(path: &Arrival) -> bool {
    ScsiPath::of(PathId { slot: 0, generation: 0 }, &path.handle)
        .is_some_and(|path| path.has_gone())
}

impl ScsiPath {
    /// Whether its device has gone from the host.
    pub(super) fn has_gone(&self) -> bool {
        !is_there(&self.hctl, &self.dev_t, self.generic)
    }

    /// Whether it is this disk, by whatever node.
    fn is_of(&self, disk: &Disk) -> bool {
        self.hctl == disk.hctl && self.devname == disk.devname
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the sense does that brought the kernel to say so (law 2).
    #[test]
    fn what_may_put_another_lu_behind_a_path_has_it_proven() {
        use SdevChange::{InquiryData, ReportedLuns, Reset};
        for change in [InquiryData, ReportedLuns, Reset] {
            assert_eq!(news_of(change), Some(HostNews::PerhapsAnother(change.name())));
        }
        assert_eq!(news_of(SdevChange::Capacity), Some(HostNews::Capacity));
        assert_eq!(news_of(SdevChange::AccessState), Some(HostNews::AccessStates));
        assert_eq!(news_of(SdevChange::ModeParameters), None);
    }
}
