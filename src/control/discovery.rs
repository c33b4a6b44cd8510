//! Which disks of the host are to be opened for which map.
//!
//! A state machine of the control thread's, fed with what the uevents thread
//! has found and with how openings ended; out come disks to be opened and news
//! to be told. It opens nothing itself, reads no clock, and trusts no name: a
//! disk is opened because sysfs calls it by a map's WWID, and joins because it
//! proves that name through its own open file (law 2). One that proves another
//! is left alone until its device, or what the kernel says of it, changes. One
//! that somebody else uses is told once, with who and what to do, and tried
//! again.
//!
//! An opening may hang, as long as the kernel holds back what is sent to a port
//! that has gone. So few are under way to one target, and not many more to one
//! host: what hangs there must not keep the disks of others out.

use std::collections::BTreeMap;
use std::time::Duration;

use log::Level;
use serde_json::json;

use super::events::Notice;
use super::uevents::DeviceNews;
use crate::host::discover::Disk;
use crate::host::uevent::SdevChange;
use crate::host::{OpenError, User};
use crate::io::{MapSlot, Time};

/// Disks opened at once, whoever's they are; each takes a thread. What is dead
/// on three hosts leaves a fourth its share.
const MAX_OPENING: usize = 64;
/// Of one SCSI host.
const MAX_OF_HOST: usize = 16;
/// Of one target of it.
const MAX_OF_TARGET: usize = 4;
/// The first trial after one that failed: a node's owner and mode come from
/// udevd a moment after the node.
const SOON: Duration = Duration::from_millis(500);
/// The second, and all others where somebody uses the disk; else less and less
/// often.
const LATER: Duration = Duration::from_secs(5);
/// But this often.
const SELDOM: Duration = Duration::from_secs(60);

/// A map that takes what is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) slot: MapSlot,
    pub(super) wwid: String,
}

/// A disk to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) hctl: String,
    /// Of this device, not of one that comes after it.
    pub(super) born: u64,
    pub(super) devname: String,
    pub(super) want: Want,
}

/// Why a disk did not become a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It leads to another LU than sysfs says.
    OtherLu(String),
    /// Somebody has it; who, and what to do.
    InUse(String),
    /// Anything else; it may pass by itself.
    Other(String),
}

impl From<&OpenError> for Refusal {
    fn from(error: &OpenError) -> Refusal {
        match error {
            // A path that has left and is not closed yet.
            OpenError::InUse { user: User::Ourselves, .. } => Refusal::Other(error.to_string()),
            OpenError::InUse { .. }
            | OpenError::MultipathHead { .. }
            | OpenError::Locked { .. } => Refusal::InUse(error.to_string()),
            _ => Refusal::Other(error.to_string()),
        }
    }
}

/// What is done about a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing: nobody wants it, or it is a path.
    Idle,
    Opening,
    /// To be opened, when enough of these have ended.
    Queued(Crowd),
    /// It could not be opened and is tried again then.
    Waiting(Time),
    /// It has proved this WWID, whatever sysfs says.
    OtherLu(String),
    /// An administrator has removed it (`del path`).
    LeftOut,
}

/// Of whom as many disks are being opened as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowd {
    Target,
    Host,
    All,
}

/// Openings under way: of each target, of each host, and all.
#[derive(Debug, Default)]
struct UnderWay(BTreeMap<String, usize>);

#[derive(Clone, Debug)]
struct Entry {
    disk: Disk,
    standing: Standing,
    /// Why it could not be opened last, and whether that was told.
    refusal: Option<(Refusal, bool)>,
    /// How often in a row.
    trials: u32,
}

/// The disks of the host and what is done about each.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    disks: BTreeMap<String, Entry>,
}

impl Discovery {
    /// Takes note of what has happened.
    pub(super) fn learn(&mut self, now: Time, news: &DeviceNews) {
        match news {
            DeviceNews::Came(disk) => {
                let (standing, disk) = (Standing::Idle, disk.clone());
                let entry = Entry { disk, standing, refusal: None, trials: 0 };
                self.disks.insert(entry.disk.hctl.clone(), entry);
            }
            DeviceNews::Went(hctl) => drop(self.disks.remove(hctl)),
            DeviceNews::Said(hctl, change, disk) => {
                let Some(entry) = self.disks.get_mut(hctl) else { return };
                if let Some(disk) = disk.as_ref().filter(|disk| disk.born == entry.disk.born) {
                    entry.disk = disk.clone();
                }
                // A reset mends nothing, and every trial may meet one.
                if *change == SdevChange::Reset {
                    return;
                }
                let another = matches!(change, SdevChange::InquiryData | SdevChange::ReportedLuns);
                match entry.standing {
                    Standing::OtherLu(_) if another => entry.standing = Standing::Idle,
                    // It may fit by now.
                    Standing::Waiting(_) => entry.standing = Standing::Waiting(now),
                    _ => {}
                }
            }
            DeviceNews::Freed => {
                for entry in self.disks.values_mut() {
                    let in_use = matches!(&entry.refusal, Some((Refusal::InUse(_), _)));
                    if let (Standing::Waiting(again), true) = (&mut entry.standing, in_use) {
                        *again = (*again).min(now + SOON);
                    }
                }
            }
            DeviceNews::Looked | DeviceNews::Deaf(_) => {}
        }
    }

    /// The disks to be opened now, for maps that want them. `taken`: it is a
    /// path already, or was one and is not closed yet.
    pub(super) fn next(
        &mut self,
        now: Time,
        wants: &[Want],
        taken: impl Fn(&Disk) -> bool,
    ) -> Vec<Opening> {
        let mut under_way = UnderWay::default();
        let is_opening = |entry: &&Entry| entry.standing == Standing::Opening;
        self.disks.values().filter(is_opening).for_each(|entry| under_way.add(&entry.disk.hctl));
        let mut out = Vec::new();
        for entry in self.disks.values_mut() {
            let disk = &entry.disk;
            let is_its = |want: &&Want| Some(&want.wwid) == disk.wwid.as_ref();
            let Some(want) = wants.iter().find(is_its).filter(|_| !taken(disk)) else {
                if matches!(entry.standing, Standing::Waiting(_) | Standing::Queued(_)) {
                    entry.over();
                }
                continue;
            };
            let due = match entry.standing {
                Standing::Idle | Standing::Queued(_) => true,
                Standing::Waiting(again) => again <= now,
                Standing::Opening | Standing::OtherLu(_) | Standing::LeftOut => false,
            };
            if !due {
                continue;
            }
            if let Some(crowd) = under_way.crowd_of(&disk.hctl) {
                entry.standing = Standing::Queued(crowd);
                continue;
            }
            under_way.add(&disk.hctl);
            entry.standing = Standing::Opening;
            out.push(Opening {
                hctl: disk.hctl.clone(),
                born: disk.born,
                devname: disk.devname.clone(),
                want: want.clone(),
            });
        }
        out
    }

    /// When [`Discovery::next`] has something to do, should nothing happen.
    /// (What is queued has its turn when an opening ends.)
    pub(super) fn deadline(&self) -> Option<Time> {
        let again = |entry: &Entry| match entry.standing {
            Standing::Waiting(again) => Some(again),
            _ => None,
        };
        self.disks.values().filter_map(again).min()
    }

    /// Whether the device that was opened is still the one at its address, as
    /// far as has been heard.
    pub(super) fn is_current(&self, hctl: &str, born: u64) -> bool {
        self.disks.get(hctl).is_some_and(|entry| entry.disk.born == born)
    }

    /// An opening has ended; what is to be told of it.
    pub(super) fn opened(
        &mut self,
        now: Time,
        opening: &Opening,
        result: Result<(), Refusal>,
    ) -> Option<Notice> {
        let entry = self.disks.get_mut(&opening.hctl)?;
        if entry.disk.born != opening.born {
            return None;
        }
        let refusal = match result {
            Ok(()) => {
                entry.over();
                return None;
            }
            Err(refusal) => refusal,
        };
        entry.trials += 1;
        entry.standing = match (&refusal, entry.trials) {
            (Refusal::OtherLu(wwid), _) => Standing::OtherLu(wwid.clone()),
            (_, 1) => Standing::Waiting(now + SOON),
            (Refusal::InUse(_), _) => Standing::Waiting(now + LATER),
            (Refusal::Other(_), n) => {
                Standing::Waiting(now + SELDOM.min(LATER * 2_u32.pow((n - 2).min(4))))
            }
        };
        let before = entry.refusal.take().filter(|(old, _)| *old == refusal);
        // What passes by itself within a moment is not worth a word.
        let worth = entry.trials > 1 || !matches!(refusal, Refusal::Other(_));
        let told = before.is_some_and(|(_, told)| told);
        let notice = (worth && !told).then(|| in_words(opening, &refusal));
        entry.refusal = Some((refusal, told || worth));
        notice
    }

    /// `del path`: the disk stays out until its device is another one, or until
    /// [`Discovery::let_in`].
    pub(super) fn leave_out(&mut self, hctl: &str) {
        if let Some(entry) = self.disks.get_mut(hctl) {
            entry.standing = Standing::LeftOut;
        }
    }

    /// `add path` has opened it.
    pub(super) fn let_in(&mut self, hctl: &str) {
        if let Some(entry) = self.disks.get_mut(hctl) {
            if entry.standing != Standing::Opening {
                entry.over();
            }
        }
    }

    /// Every disk, and why it is no path, where there is a reason.
    pub(super) fn list(&self) -> impl Iterator<Item = (&Disk, Option<String>)> {
        self.disks.values().map(|entry| (&entry.disk, entry.reason()))
    }
}

impl Crowd {
    /// Every one that the disk at this address belongs to, by the address of
    /// all of it.
    fn of(hctl: &str) -> [(Crowd, &str); 3] {
        let before = |nth| hctl.match_indices(':').nth(nth).map_or(hctl, |(at, _)| &hctl[..at]);
        [(Crowd::Target, before(2)), (Crowd::Host, before(0)), (Crowd::All, "")]
    }

    fn most(self) -> usize {
        match self {
            Crowd::Target => MAX_OF_TARGET,
            Crowd::Host => MAX_OF_HOST,
            Crowd::All => MAX_OPENING,
        }
    }
}

impl UnderWay {
    fn add(&mut self, hctl: &str) {
        for (_, address) in Crowd::of(hctl) {
            *self.0.entry(address.to_owned()).or_default() += 1;
        }
    }

    /// The one that leaves no room for another opening.
    fn crowd_of(&self, hctl: &str) -> Option<Crowd> {
        let is_full =
            |(crowd, address): &(Crowd, &str)| self.0.get(*address) >= Some(&crowd.most());
        Crowd::of(hctl).into_iter().find(is_full).map(|(crowd, _)| crowd)
    }
}

impl Entry {
    /// A path again, or nobody's: what was said of it is over.
    fn over(&mut self) {
        (self.standing, self.refusal, self.trials) = (Standing::Idle, None, 0);
    }

    fn reason(&self) -> Option<String> {
        match (&self.standing, &self.refusal) {
            (Standing::Idle, _) if self.disk.is_head => {
                Some("the head of a multipath device".to_owned())
            }
            (Standing::Idle, _) => None,
            (Standing::LeftOut, _) => Some("left out (del path)".to_owned()),
            (Standing::Queued(crowd), _) => Some(self.turn(*crowd)),
            (Standing::OtherLu(wwid), _) => Some(format!("leads to {wwid}")),
            (_, Some((Refusal::InUse(why) | Refusal::Other(why), _))) => Some(why.clone()),
            (Standing::Opening | Standing::Waiting(_), _) => Some("being opened".to_owned()),
        }
    }

    fn turn(&self, crowd: Crowd) -> String {
        let address = Crowd::of(&self.disk.hctl).into_iter().find(|(its, _)| *its == crowd);
        let address = address.map_or("", |(_, address)| address);
        let others = match crowd {
            Crowd::Target => format!("disks of target {address}"),
            Crowd::Host => format!("disks of host {address}"),
            Crowd::All => "disks".to_owned(),
        };
        format!("waits for its turn: {} {others} are being opened", crowd.most())
    }
}

fn in_words(opening: &Opening, refusal: &Refusal) -> Notice {
    let Opening { devname, hctl, want, .. } = opening;
    let (reason, follows) = match refusal {
        Refusal::OtherLu(wwid) => (
            format!("it leads to {wwid}, and sysfs says {}", want.wwid),
            format!("left alone until it changes (`echo 1 > /sys/block/{devname}/device/rescan`)"),
        ),
        Refusal::InUse(why) | Refusal::Other(why) => (why.clone(), "it is tried again".to_owned()),
    };
    let text = format!("{devname} ({hctl}) cannot be a path: {reason}; {follows}");
    let data = json!({ "path": devname, "hcil": hctl, "reason": reason });
    Notice::new("PATH_REFUSED", Level::Warn, text, data)
}

#[cfg(test)]
mod tests;
