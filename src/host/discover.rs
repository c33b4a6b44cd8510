//! Which SCSI disks this host has, what they call themselves, and which have
//! come or gone since the last look: sysfs, without a command to any of them.
//!
//! The kernel reads VPD pages 83h and 80h when it finds a device and keeps
//! them in sysfs; that is enough to tell which disks are worth opening. What
//! one really is it proves through its own open file (law 2). Never blocks on a
//! device. Under a root that tests replace.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirEntryExt;
use std::path::Path;

use super::sysfs::{BlockFacts, DevT, DeviceState, ScsiFacts, Sysfs, attribute, entries, state_of};
use super::uevent::is_hctl;
use super::wwid;
use crate::scsi::inquiry::Inquiry;
use crate::scsi::vpd;

/// A SCSI disk as sysfs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// `H:C:T:L`.
    pub hctl: String,
    /// Kernel name, `sdb`.
    pub devname: String,
    /// Number of the block node.
    pub dev: DevT,
    /// What it called itself when the kernel last asked, as multipath-tools
    /// write it; `None`: it has no name, or the kernel has not asked.
    pub wwid: Option<String>,
    /// Another name of it that an administrator may know: the kernel's choice,
    /// where it is not multipath-tools' (a locally assigned NAA name).
    pub also: Option<String>,
    /// It is the head of the kernel's own multipath over other disks.
    pub is_head: bool,
    /// Tells it from another device that had the same address before.
    pub born: u64,
}

/// The other nodes of a SCSI device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Siblings {
    /// `sg2`.
    pub sg: Option<String>,
    /// `bsg/1:0:0:0`.
    pub bsg: Option<String>,
}

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A disk that was not there before.
    Came(Disk),
    /// The disk at this address has gone.
    Went(String),
}

/// The disks seen so far.
#[derive(Debug)]
pub struct Disks {
    sysfs: Sysfs,
    known: BTreeMap<String, u64>,
}

impl Disks {
    /// Those of this machine; none are known yet.
    pub fn of_host() -> Disks {
        Disks { sysfs: Sysfs::host(), known: BTreeMap::new() }
    }

    #[cfg(test)]
    fn of(sysfs: Sysfs) -> Disks {
        Disks { sysfs, known: BTreeMap::new() }
    }

    /// What has come and gone since the last look; those that have gone come
    /// first. Costs one directory listing where nothing has.
    pub fn look(&mut self) -> Vec<Found> {
        let there = addresses(&self.sysfs);
        let mut found = Vec::new();
        self.known.retain(|hctl, born| {
            let stays = there.get(hctl) == Some(born);
            if !stays {
                found.push(Found::Went(hctl.clone()));
            }
            stays
        });
        for (hctl, born) in there {
            if self.known.contains_key(&hctl) {
                continue;
            }
            // One whose block device is not there yet is looked at again.
            if let Some(disk) = read(&self.sysfs, &hctl, born) {
                self.known.insert(hctl, born);
                found.push(Found::Came(disk));
            }
        }
        found
    }

    /// A known disk as it is now: it may have another name.
    pub fn again(&self, hctl: &str) -> Option<Disk> {
        read(&self.sysfs, hctl, *self.known.get(hctl)?)
    }
}

/// Every SCSI disk of this machine.
pub fn scan() -> Vec<Disk> {
    scan_below(&Sysfs::host())
}

fn scan_below(sysfs: &Sysfs) -> Vec<Disk> {
    let all = addresses(sysfs);
    all.into_iter().filter_map(|(hctl, born)| read(sysfs, &hctl, born)).collect()
}

/// Whether the disk at this address is still the one whose open node has this
/// number (`generic`: of an sg or bsg node). The kernel gives neither name nor
/// number to another device while the node is open.
pub fn is_there(hctl: &str, dev: &str, generic: bool) -> bool {
    is_there_below(&Sysfs::host(), hctl, dev, generic)
}

fn is_there_below(sysfs: &Sysfs, hctl: &str, dev: &str, generic: bool) -> bool {
    let device = fs::canonicalize(sysfs.class("scsi_disk", hctl).join("device"));
    let Some(number) = DevT::parse(dev) else { return true };
    let node = if generic { sysfs.character(number) } else { sysfs.block(number) };
    let of_node = node.and_then(|node| fs::canonicalize(node.join("device")).ok());
    match (device, of_node) {
        (Ok(device), Some(of_node)) => {
            device == of_node && state_of(&device.join("state")) != DeviceState::Gone
        }
        _ => false,
    }
}

/// The nodes beside the disk of a SCSI device.
pub fn siblings(hctl: &str) -> Siblings {
    siblings_below(&Sysfs::host(), hctl)
}

fn siblings_below(sysfs: &Sysfs, hctl: &str) -> Siblings {
    let device = sysfs.class("scsi_device", hctl).join("device");
    let first = |class: &str| entries(&device.join(class)).into_iter().next();
    Siblings { sg: first("scsi_generic"), bsg: first("bsg").map(|name| format!("bsg/{name}")) }
}

/// Whether this process is in a user namespace of its own, as in a container
/// without privileges.
pub fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Address of each SCSI disk, with a number that no other device at that
/// address has: the inode of its entry.
fn addresses(sysfs: &Sysfs) -> BTreeMap<String, u64> {
    let Ok(list) = fs::read_dir(sysfs.classes("scsi_disk")) else { return BTreeMap::new() };
    let name = |entry: fs::DirEntry| Some((entry.file_name().into_string().ok()?, entry.ino()));
    list.flatten().filter_map(name).filter(|(hctl, _)| is_hctl(hctl)).collect()
}

fn read(sysfs: &Sysfs, hctl: &str, born: u64) -> Option<Disk> {
    let scsi = ScsiFacts::read(&sysfs.class("scsi_disk", hctl).join("device"))?;
    let (block, dev) = scsi.disk()?;
    if state_of(&scsi.dir.join("state")) == DeviceState::Gone {
        return None;
    }
    let wwid = name_of(&scsi.dir);
    let also = attribute(&scsi.dir.join("wwid")).and_then(|text| wwid::of_sysfs(&text));
    Some(Disk {
        hctl: hctl.to_owned(),
        dev,
        also: also.filter(|also| wwid.as_ref().is_some_and(|wwid| wwid != also)),
        wwid,
        is_head: is_head(&block),
        devname: block.name,
        born,
    })
}

fn is_head(block: &BlockFacts) -> bool {
    block.multipath_head().is_some()
}

/// By the pages that the kernel keeps; by its own rendering of them where it
/// keeps none.
fn name_of(device: &Path) -> Option<String> {
    let page = |name: &str| fs::read(device.join(name)).ok().filter(|page| page.len() >= 4);
    let (page83, page80) = (page("vpd_pg83"), page("vpd_pg80"));
    let text = |name: &str| attribute(&device.join(name)).unwrap_or_default();
    let inquiry = Inquiry { vendor: text("vendor"), product: text("model"), ..Inquiry::default() };
    let serial = page80.as_deref().map(|page| (&inquiry, page));
    vpd::wwid(page83.as_deref(), None)
        .or_else(|| wwid::of_sysfs(&attribute(&device.join("wwid"))?))
        .or_else(|| vpd::wwid(None, serial))
}

#[cfg(test)]
mod tests;
