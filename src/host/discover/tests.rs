use std::os::unix::fs::MetadataExt;

use super::super::tests::Dir;
use super::*;
use crate::scsi::vpd::{Association, Designator, DesignatorKind};

/// A host's `/sys`, to which disks are added and from which they go.
struct Host(Dir);

impl Host {
    fn new() -> Host {
        let host = Host(Dir::new());
        host.0.put("bus/scsi/uevent", "");
        fs::create_dir_all(host.0.0.join("class/scsi_disk")).unwrap();
        host
    }

    fn sysfs(&self) -> Sysfs {
        Sysfs::at(self.0.0.clone())
    }

    fn device(hctl: &str) -> String {
        let host = hctl.split(':').next().unwrap();
        format!("devices/host{host}/target/{hctl}")
    }

    /// A SCSI device, without its disk yet.
    fn found(&self, hctl: &str, naa: u8) {
        let device = Host::device(hctl);
        self.0.link(&format!("{device}/subsystem"), "bus/scsi");
        self.0.put(&format!("{device}/state"), "running\n");
        let mut bytes = [0x60; 16];
        bytes[15] = naa;
        let lu =
            Designator { association: Association::Lu, kind: DesignatorKind::Naa, bytes: &bytes };
        let page = vpd::encode_identification(&[lu]);
        fs::write(self.0.0.join(format!("{device}/vpd_pg83")), page).unwrap();
        self.0.put(&format!("{device}/scsi_disk/{hctl}/cache_type"), "write back");
        self.0.link(&format!("{device}/scsi_disk/{hctl}/device"), &device);
        self.0.link(&format!("class/scsi_disk/{hctl}"), &format!("{device}/scsi_disk/{hctl}"));
        self.0.link(&format!("class/scsi_device/{hctl}/device"), &device);
    }

    fn probed(&self, hctl: &str, name: &str, dev: &str) {
        let device = Host::device(hctl);
        self.0.put(&format!("{device}/block/{name}/dev"), &format!("{dev}\n"));
        self.0.link(&format!("{device}/block/{name}/device"), &device);
        self.0.link(&format!("dev/block/{dev}"), &format!("{device}/block/{name}"));
    }

    fn disk(&self, hctl: &str, name: &str, dev: &str, naa: u8) {
        self.found(hctl, naa);
        self.probed(hctl, name, dev);
    }

    /// The address' entry is moved away, and keeps its inode: sysfs gives none
    /// out again soon, the file system of this test may at once.
    fn delete(&self, hctl: &str, dev: &str) {
        let entry = self.0.0.join(format!("class/scsi_disk/{hctl}"));
        let inode = fs::symlink_metadata(&entry).unwrap().ino();
        fs::rename(entry, self.0.0.join(format!("deleted-{inode}"))).unwrap();
        fs::remove_file(self.0.0.join(format!("dev/block/{dev}"))).unwrap();
        fs::remove_dir_all(self.0.0.join(format!("class/scsi_device/{hctl}"))).unwrap();
        fs::remove_dir_all(self.0.0.join(Host::device(hctl))).unwrap();
    }
}

fn wwid(naa: u8) -> Option<String> {
    Some(format!("3{}{naa:02x}", "60".repeat(15)))
}

fn names(found: &[Found]) -> Vec<String> {
    let name = |found: &Found| match found {
        Found::Came(disk) => format!("+{}", disk.devname),
        Found::Went(hctl) => format!("-{hctl}"),
    };
    found.iter().map(name).collect()
}

#[test]
fn disks_come_once_and_go_once() {
    let host = Host::new();
    let mut disks = Disks::of(host.sysfs());
    assert_eq!(disks.look(), []);
    host.disk("1:0:0:0", "sda", "8:0", 1);
    host.disk("2:0:0:0", "sdb", "8:16", 1);
    assert_eq!(names(&disks.look()), ["+sda", "+sdb"]);
    assert_eq!(disks.look(), []);
    let again = disks.again("1:0:0:0").unwrap();
    assert_eq!((again.wwid, again.dev.to_string()), (wwid(1), "8:0".to_owned()));
    host.delete("1:0:0:0", "8:0");
    assert_eq!(names(&disks.look()), ["-1:0:0:0"]);
    assert_eq!((disks.look(), disks.again("1:0:0:0")), (vec![], None));
    assert_eq!(scan_below(&host.sysfs()).len(), 1);
}

#[test]
fn another_lu_under_an_old_name_is_another_disk() {
    let host = Host::new();
    let mut disks = Disks::of(host.sysfs());
    host.disk("1:0:0:0", "sda", "8:0", 1);
    disks.look();
    // Deleted and found again between two looks, as another LU of one name.
    host.delete("1:0:0:0", "8:0");
    host.disk("1:0:0:0", "sda", "8:0", 2);
    let found = disks.look();
    assert_eq!(names(&found), ["-1:0:0:0", "+sda"]);
    assert!(matches!(&found[1], Found::Came(disk) if disk.wwid == wwid(2)));
}

#[test]
fn a_device_is_a_disk_when_its_block_device_is_there() {
    let host = Host::new();
    let mut disks = Disks::of(host.sysfs());
    host.found("1:0:0:0", 1);
    assert_eq!(disks.look(), []);
    host.probed("1:0:0:0", "sda", "8:0");
    assert_eq!(names(&disks.look()), ["+sda"]);
}

#[test]
fn an_open_node_is_told_from_what_comes_after_it() {
    let host = Host::new();
    let sysfs = host.sysfs();
    let there = |dev| is_there_below(&sysfs, "1:0:0:0", dev, false);
    host.disk("1:0:0:0", "sda", "8:0", 1);
    assert!(there("8:0"));
    // The kernel takes the disk away first and waits for its commands then.
    host.0.put("devices/host1/target/1:0:0:0/state", "cancel\n");
    assert!(!there("8:0"));
    host.delete("1:0:0:0", "8:0");
    assert!(!there("8:0"));
    // The old node is still open: the kernel chooses another name and number.
    host.disk("1:0:0:0", "sdb", "8:16", 1);
    assert!(!there("8:0"));
    assert!(there("8:16"));
}

#[test]
fn a_name_is_made_of_what_the_kernel_keeps() {
    let host = Host::new();
    host.disk("1:0:0:0", "sda", "8:0", 7);
    let device = host.0.0.join("devices/host1/target/1:0:0:0");
    assert_eq!(name_of(&device), wwid(7));
    // A name that the kernel prefers is known as well.
    host.0.put("devices/host1/target/1:0:0:0/wwid", "naa.3333333000000001\n");
    let also = scan_below(&host.sysfs())[0].also.clone();
    assert_eq!(also.as_deref(), Some("33333333000000001"));
    fs::remove_file(device.join("wwid")).unwrap();
    fs::remove_file(device.join("vpd_pg83")).unwrap();
    assert_eq!(name_of(&device), None);
    host.0.put("devices/host1/target/1:0:0:0/vendor", "ATA     \n");
    host.0.put("devices/host1/target/1:0:0:0/model", "DISK X          \n");
    fs::write(device.join("vpd_pg80"), vpd::encode_serial("  42")).unwrap();
    assert_eq!(name_of(&device).as_deref(), Some("SATA_DISK_X_42"));
    host.0.put("devices/host1/target/1:0:0:0/wwid", "naa.5000c500A1B2C3D4\n");
    assert_eq!(name_of(&device).as_deref(), Some("35000c500a1b2c3d4"));
}

#[test]
fn the_other_nodes_of_a_disk_are_found() {
    let host = Host::new();
    host.disk("1:0:0:0", "sda", "8:0", 1);
    assert_eq!(siblings_below(&host.sysfs(), "1:0:0:0"), Siblings::default());
    host.0.put("devices/host1/target/1:0:0:0/scsi_generic/sg3/dev", "21:3\n");
    host.0.put("devices/host1/target/1:0:0:0/bsg/1:0:0:0/dev", "243:0\n");
    let nodes = siblings_below(&host.sysfs(), "1:0:0:0");
    assert_eq!(nodes.sg.as_deref(), Some("sg3"));
    assert_eq!(nodes.bsg.as_deref(), Some("bsg/1:0:0:0"));
}

#[test]
fn a_multipath_head_is_seen_as_one() {
    let host = Host::new();
    host.disk("1:0:0:0", "sda", "8:0", 1);
    host.0.put("devices/host1/target/1:0:0:0/block/sda/multipath/sda:0", "");
    assert!(scan_below(&host.sysfs())[0].is_head);
}
