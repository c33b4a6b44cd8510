use super::sysfs::{BlockFacts, ScsiFacts, Sysfs};
use super::users::{self, User};
use super::*;
use crate::io::Blocks;
use crate::passthrough_scsi::{PathHandle, PathKind, Transport};
use crate::scsi::alua::AccessState;
use crate::sys::file as sys_file;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of this test's own, removed at its end.
pub(super) struct Dir(pub(super) PathBuf);

impl Dir {
    pub(super) fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vhost-mpath-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Dir(fs::canonicalize(path).unwrap())
    }

    fn file(&self, name: &str, len: u64) -> PathBuf {
        let path = self.0.join(name);
        fs::File::create(&path).unwrap().set_len(len).unwrap();
        path
    }

    /// Attribute files of a fake sysfs or procfs.
    pub(super) fn put(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn link(&self, link: &str, target: &str) {
        let link = self.0.join(link);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(self.0.join(target), link).unwrap();
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(text: &str) -> Result<Arc<PathHandle>, OpenError> {
    open_path(&text.parse().unwrap(), &Options::default())
}

fn refusal(text: &str) -> String {
    open(text).unwrap_err().to_string()
}

#[test]
fn two_paths_to_one_file_are_one_inode_and_one_open_file() {
    let dir = Dir::new();
    // Names are the process's: no other test may use this one.
    let path = dir.file("pair.img", 1 << 20);
    let text = path.to_str().unwrap();
    let a = open(text).unwrap();
    let b = open(text).unwrap();
    assert_eq!(a.identity(), b.identity());
    assert_eq!(a.identity().capacity, Blocks(2048));
    assert_eq!((a.kind(), a.transport()), (PathKind::File, Transport::File));
    assert_eq!((a.name(), b.name()), ("pair.img", "pair.img-2"));
    // The lock lasts as long as one of them.
    drop(a);
    let other = fs::File::options().read(true).write(true).open(&path).unwrap();
    assert!(sys_file::lock_exclusive(other.as_fd()).is_err());
    drop(b);
    sys_file::lock_exclusive(other.as_fd()).unwrap();
    assert!(refusal(text).contains("is locked by another open"), "{}", refusal(text));
}

#[test]
fn files_that_are_no_disks_are_refused_with_their_size() {
    let dir = Dir::new();
    for (name, len) in [("empty", 0), ("odd", 1000)] {
        let path = dir.file(name, len);
        let words = refusal(path.to_str().unwrap());
        assert!(words.contains(&format!("has {len} bytes")), "{words}");
    }
    assert!(refusal(dir.0.to_str().unwrap()).contains("is a directory"));
    assert!(refusal("/dev/null").contains("neither sg nor bsg"));
    let words = refusal(dir.0.join("missing").to_str().unwrap());
    assert!(words.contains("no such file or device"), "{words}");
    let path = dir.file("disk", 512);
    let options = Options { transport: TransportChoice::SgIo, ..Options::default() };
    let spec: PathSpec = path.to_str().unwrap().parse().unwrap();
    let words = open_path(&spec, &options).unwrap_err().to_string();
    assert!(words.contains("transport sg-io is not possible"), "{words}");
    let options = Options { transport: TransportChoice::BsgUring, ..options };
    let words = open_path(&spec, &options).unwrap_err().to_string();
    assert!(words.contains("transport bsg-uring is not possible"), "{words}");
}

#[test]
fn an_image_is_made_once_and_keeps_its_wwid() {
    let dir = Dir::new();
    let image = dir.0.join("disk.img");
    let image = image.to_str().unwrap();
    let text = format!("sim:{image},size=1M");
    assert!(refusal(&format!("sim:{image}")).contains("add size="));
    // Nothing is left behind by one that could not be made.
    for (text, words) in [
        (format!("sim:{image},size=513K,bs=4096"), "whole number of 4096-byte blocks"),
        (format!("sim:{image},size=8000000T"), "takes no files of that size"),
        (format!("sim:{image}.d/x,size=1M"), "make its directory first"),
        (format!("sim:{},size=1M", dir.0.display()), "is a directory"),
    ] {
        assert!(refusal(&text).contains(words), "{}", refusal(&text));
    }
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
    let first = open(&text).unwrap();
    let wwid = first.identity().wwid.clone();
    assert!(wwid.len() == 33 && wwid.starts_with("36525400"), "{wwid}");
    assert_eq!(first.identity().capacity, Blocks(2048));
    let second = open(&text).unwrap();
    assert_eq!(first.identity(), second.identity());
    assert_ne!(first.name(), second.name());
    drop((first, second));
    assert_eq!(open(&format!("sim:{image}")).unwrap().identity().wwid, wwid);
    assert_eq!(fs::metadata(image).unwrap().len(), 1 << 20, "still a plain raw disk");
}

#[test]
fn an_image_contradicting_its_options_is_refused() {
    let dir = Dir::new();
    let image = dir.0.join("disk.img");
    let image = image.to_str().unwrap();
    drop(open(&format!("sim:{image},size=1M,bs=4096")).unwrap());
    let path = open(&format!("sim:{image}")).unwrap();
    assert_eq!(path.identity().block_size, 4096, "remembered");
    for text in [format!("sim:{image},size=2M"), format!("sim:{image},bs=512")] {
        assert!(refusal(&text).contains("was asked for"), "{}", refusal(&text));
    }
    drop(path);
    assert!(refusal(&format!("sim:{image},bs=512")).contains("was asked for"));
}

#[test]
fn an_array_behaves_as_its_first_path_says() {
    let dir = Dir::new();
    let image = dir.0.join("disk.img");
    let image = image.to_str().unwrap();
    let first = open(&format!("sim:{image},size=1M,personality=clariion")).unwrap();
    // One that refuses I/O is a path to the LU nevertheless.
    let passive = open(&format!("sim:{image},personality=clariion,tpgs=none,tpg=2")).unwrap();
    let standby = open(&format!("sim:{image},tpg=3,access=standby")).unwrap();
    assert_eq!(first.identity(), passive.identity());
    assert_eq!(standby.faults().unwrap().0, "standby");
    for (option, words) in [
        ("personality=generic", "its personality is clariion, but generic was asked for"),
        ("tpgs=both", "its tpgs is none, but both was asked for"),
    ] {
        let refused = refusal(&format!("sim:{image},{option}"));
        assert!(refused.contains(words), "{refused}");
    }
    drop((first, passive, standby));
    open(&format!("sim:{image},personality=rdac")).unwrap();
}

#[test]
fn a_copy_with_the_same_wwid_is_not_taken_for_a_second_path() {
    let dir = Dir::new();
    let (image, copy) = (dir.0.join("a"), dir.0.join("b"));
    let _path = open(&format!("sim:{},size=1M", image.display())).unwrap();
    fs::copy(&image, &copy).unwrap();
    fs::copy(dir.0.join("a.lu"), dir.0.join("b.lu")).unwrap();
    let text = format!("sim:{}", copy.display());
    assert!(refusal(&text).contains("is a copy"), "{}", refusal(&text));
    fs::remove_file(dir.0.join("b.lu")).unwrap();
    let other = open(&text).unwrap();
    assert_ne!(other.identity(), _path.identity());
}

#[test]
fn an_image_in_use_elsewhere_is_refused() {
    let dir = Dir::new();
    let image = dir.file("disk.img", 1 << 20);
    let other = fs::File::options().read(true).write(true).open(&image).unwrap();
    sys_file::lock_exclusive(other.as_fd()).unwrap();
    assert!(refusal(&format!("sim:{}", image.display())).contains("is locked"));
    drop(other);
    dir.put("disk.img.lu", "{\"wwid\": \"zz\"");
    let words = refusal(&format!("sim:{}", image.display()));
    assert!(words.contains("carries no usable identity"), "{words}");
    fs::remove_file(dir.0.join("disk.img.lu")).unwrap();
    dir.put("disk.img.pr", "registered by nobody");
    let words = refusal(&format!("sim:{}", image.display()));
    assert!(words.contains("disk.img.pr: 'registered by nobody'"), "{words}");
}

#[test]
fn names_are_unique_and_free_again() {
    let a = open("null:1M,name=left").unwrap();
    assert!(matches!(open("null:1M,name=left"), Err(OpenError::NameTaken { .. })));
    assert_eq!(a.name(), "left");
    drop(a);
    assert!(open("null:1M,name=left").is_ok());
}

#[test]
fn reading_only_is_shared_and_says_so() {
    let dir = Dir::new();
    let path = dir.file("disk.img", 4096);
    let spec: PathSpec = path.to_str().unwrap().parse().unwrap();
    let options = Options { read_only: true, ..Options::default() };
    let handle = open_path(&spec, &options).unwrap();
    assert!(handle.read_only() && handle.geometry().read_only && !handle.geometry().unmap);
    let file = fs::File::open(&path).unwrap();
    file.read_at(&mut [0], 0).unwrap();
    sys_file::lock_shared(file.as_fd()).unwrap();
    assert!(refusal(spec.text.as_str()).contains("is locked"), "a writer is kept out");
}

/// `/sys` of a host with one SCSI disk: 1:0:0:0 = sda (with a partition), sg0.
fn fake_sysfs() -> (Dir, Sysfs) {
    let dir = Dir::new();
    let scsi = "devices/host1/target1:0:0/1:0:0:0";
    dir.put("bus/scsi/uevent", "");
    dir.link(&format!("{scsi}/subsystem"), "bus/scsi");
    dir.put(&format!("{scsi}/state"), "running\n");
    dir.put(&format!("{scsi}/queue_depth"), "32\n");
    for (path, dev) in [("block/sda", "8:0"), ("block/sda/sda1", "8:1")] {
        dir.put(&format!("{scsi}/{path}/dev"), &format!("{dev}\n"));
        dir.link(&format!("dev/block/{dev}"), &format!("{scsi}/{path}"));
    }
    dir.put(&format!("{scsi}/block/sda/sda1/partition"), "1\n");
    dir.put(&format!("{scsi}/block/sda/queue/max_hw_sectors_kb"), "512\n");
    dir.link(&format!("{scsi}/block/sda/device"), scsi);
    dir.put(&format!("{scsi}/scsi_generic/sg0/dev"), "21:0\n");
    dir.link(&format!("{scsi}/scsi_generic/sg0/device"), scsi);
    dir.link("dev/char/21:0", &format!("{scsi}/scsi_generic/sg0"));
    let sysfs = Sysfs::at(dir.0.clone());
    (dir, sysfs)
}

fn sda(sysfs: &Sysfs) -> BlockFacts {
    BlockFacts::read(&sysfs.block(DevT { major: 8, minor: 0 }).unwrap()).unwrap()
}

#[test]
fn siblings_and_hctl_are_found_from_either_node() {
    let (_dir, sysfs) = fake_sysfs();
    let disk = sda(&sysfs);
    assert_eq!(disk.name, "sda");
    assert_eq!(disk.queue().max_hw_sectors_kb, Some(512));
    assert_eq!(disk.queue().max_segments, None);
    let scsi = disk.scsi.unwrap();
    assert_eq!((scsi.hctl.as_str(), scsi.queue_depth), ("1:0:0:0", Some(32)));
    assert_eq!(scsi.state.as_deref(), Some("running"));
    let generic = sysfs.character(DevT { major: 21, minor: 0 }).unwrap();
    let (sibling, dev) = ScsiFacts::read(&generic.join("device")).unwrap().disk().unwrap();
    assert_eq!((sibling.name.as_str(), dev), ("sda", DevT { major: 8, minor: 0 }));
    let part = sysfs.block(DevT { major: 8, minor: 1 }).unwrap();
    let part = BlockFacts::read(&part).unwrap();
    assert_eq!(part.partition_of.as_deref(), Some("sda"));
    assert!(part.scsi.is_some(), "a partition of a SCSI disk is recognised as such");
}

#[test]
fn a_bsg_node_of_another_device_with_the_same_address_is_told_from_ours() {
    let (dir, sysfs) = fake_sysfs();
    let scsi = "devices/host1/target1:0:0/1:0:0:0";
    let ours = sda(&sysfs).scsi.unwrap();
    let number = |minor| DevT { major: 240, minor };
    dir.put(&format!("{scsi}/bsg/1:0:0:0/dev"), "240:0\n");
    dir.link(&format!("{scsi}/bsg/1:0:0:0/device"), scsi);
    dir.link("dev/char/240:0", &format!("{scsi}/bsg/1:0:0:0"));
    let sd = DevT { major: 8, minor: 0 };
    let is_of = |bsg, sd| super::open::bsg::is_of(&sysfs, bsg, &ours, sd);
    assert!(is_of(number(0), sd));
    assert!(!is_of(number(1), sd), "a number nobody has");
    // Our disk was deleted, and another one has its address.
    fs::remove_file(dir.0.join("dev/block/8:0")).unwrap();
    dir.link("dev/block/8:16", &format!("{scsi}/block/sda"));
    assert!(!is_of(number(0), sd));
}

#[test]
fn multipath_devices_are_told_from_paths() {
    let (dir, sysfs) = fake_sysfs();
    assert_eq!(sda(&sysfs).multipath_head(), None);
    dir.put("devices/host1/target1:0:0/1:0:0:0/block/sda/multipath/sda:0", "");
    let head = sda(&sysfs).multipath_head();
    assert_eq!(head, Some(("sda".to_owned(), vec!["sda:0".to_owned()])));
    for (uuid, is_head) in [("mpath-3600\n", true), ("LVM-abc\n", false)] {
        dir.put("devices/virtual/block/dm-0/dm/name", "mpatha\n");
        dir.put("devices/virtual/block/dm-0/dm/uuid", uuid);
        dir.put("devices/virtual/block/dm-0/slaves/sdb", "");
        let facts = BlockFacts::read(&dir.0.join("devices/virtual/block/dm-0")).unwrap();
        let expected = is_head.then(|| ("mpatha".to_owned(), vec!["sdb".to_owned()]));
        assert_eq!(facts.multipath_head(), expected);
    }
}

#[test]
fn every_user_of_a_disk_is_named() {
    let (dir, sysfs) = fake_sysfs();
    let block = "devices/host1/target1:0:0/1:0:0:0/block/sda";
    let proc = dir.0.join("proc");
    let user = || users::find(&sysfs, &sda(&sysfs), &proc);
    assert_eq!(user(), User::Unknown);
    dir.put("proc/77/comm", "qemu\n");
    fs::create_dir_all(proc.join("77/fd")).unwrap();
    symlink("/dev/sda1", proc.join("77/fd/9")).unwrap();
    dir.put("proc/77/fdinfo/9", "pos:\t0\nflags:\t02140002\n");
    assert_eq!(user(), User::Process { pid: 77, name: "qemu".to_owned() });
    dir.put("proc/swaps", "Filename Type\n/dev/sda1 partition 1 0 -2\n");
    assert_eq!(user(), User::Swap { device: "sda1".to_owned() });
    dir.put("proc/self/mountinfo", "36 35 8:1 / /srv/data rw - ext4 /dev/sda1 rw\n");
    let mount = User::Mount { device: "sda1".to_owned(), at: "/srv/data".to_owned() };
    assert_eq!(user(), mount);
    dir.put(&format!("{block}/sda1/holders/dm-3"), "");
    for (uuid, expected) in [
        ("LVM-x", User::Lvm { volume: "vg-root".to_owned() }),
        ("mpath-3600", User::Multipath { map: "vg-root".to_owned() }),
        ("CRYPT-LUKS2", User::DeviceMapper { name: "vg-root".to_owned() }),
    ] {
        dir.put("class/block/dm-3/dm/name", "vg-root\n");
        dir.put("class/block/dm-3/dm/uuid", uuid);
        assert_eq!(user(), expected);
    }
    let words = OpenError::InUse { path: PathBuf::from("/dev/sda"), user: user() }.to_string();
    assert!(words.contains("/dev/sda: is in use by") && words.contains("dmsetup remove"));
    fs::remove_dir_all(dir.0.join(block).join("sda1/holders")).unwrap();
    dir.put(&format!("{block}/holders/md0"), "");
    dir.put("class/block/md0/md/level", "raid1");
    assert_eq!(user(), User::Md { name: "md0".to_owned() });
}

/// What it has left in the kernel ends by itself, and is waited for.
#[test]
fn a_process_that_was_killed_is_no_user() {
    let (dir, sysfs) = fake_sysfs();
    let proc = dir.0.join("proc");
    let path = PathBuf::from("/dev/sda");
    let refused = || {
        let user = users::find(&sysfs, &sda(&sysfs), &proc);
        let locker = users::locker(&proc, &path);
        assert_eq!(user, locker, "the lock is that descriptor's");
        OpenError::InUse { path: path.clone(), user }
    };
    fs::create_dir_all(proc.join("77/fd")).unwrap();
    symlink("/dev/sda", proc.join("77/fd/9")).unwrap();
    dir.put(
        "proc/77/fdinfo/9",
        "flags:\t02140002\nlock:\t1: OFDLCK ADVISORY WRITE -1 00:06:9 0 EOF\n",
    );
    dir.put("proc/77/comm", "a) Z (b\n");
    let put = |state, flags: u32, private, shared| {
        let stat = format!("77 (a) Z (b) {state} 1 77 77 0 -1 {flags} 99 0 0 0\n");
        dir.put("proc/77/stat", &stat);
        let status = format!("Name:\ta\nSigPnd:\t{private:016x}\nShdPnd:\t{shared:016x}\n");
        dir.put("proc/77/status", &status);
    };
    put("S", 0x40_0040, 0x4000, 0x4000);
    assert!(!refused().is_left_behind(), "SIGTERM may be ignored: {}", refused());
    for (state, flags, private, shared) in
        [("Z", 0, 0, 0), ("D", 0x40_0044, 0, 0), ("D", 0, 0x100, 0), ("S", 0, 0, 0x100)]
    {
        put(state, flags, private, shared);
        assert!(refused().is_left_behind(), "{state} {flags} {private} {shared}: {}", refused());
    }
}

/// The kernel does not say who has the claim. Those who look at every disk must
/// not hide what a killed process has left there.
#[test]
fn who_only_reads_a_disk_is_not_taken_for_the_one_who_has_it() {
    let (dir, sysfs) = fake_sysfs();
    let proc = dir.0.join("proc");
    let user = || users::find(&sysfs, &sda(&sysfs), &proc);
    let opens = |pid: u32, name: &str, info: &str| {
        fs::create_dir_all(proc.join(format!("{pid}/fd"))).unwrap();
        symlink("/dev/sda", proc.join(format!("{pid}/fd/5"))).unwrap();
        dir.put(&format!("proc/{pid}/comm"), name);
        dir.put(&format!("proc/{pid}/fdinfo/5"), info);
    };
    opens(55, "multipathd\n", "pos:\t0\nflags:\t02100000\nmnt_id:\t6\n");
    let error = OpenError::InUse { path: PathBuf::from("/dev/sda"), user: user() };
    assert!(error.is_left_behind(), "{error}");
    assert!(error.to_string().contains("process 55 (multipathd), which has it open for reading"));
    opens(56, "qemu\n", "pos:\t0\nflags:\t02140002\n");
    assert_eq!(user(), User::Process { pid: 56, name: "qemu".to_owned() });
    // What may not be looked at says nothing.
    fs::remove_file(proc.join("56/fdinfo/5")).unwrap();
    fs::remove_dir_all(proc.join("55")).unwrap();
    assert_eq!(user(), User::Onlooker { pid: 56, name: "qemu".to_owned() });
    // A path of ours, read-only.
    opens(std::process::id(), "vhost-mpath\n", "flags:\t02140000\n");
    fs::remove_dir_all(proc.join("56")).unwrap();
    assert_eq!(user(), User::Ourselves);
}

#[test]
fn the_kernels_view_of_a_target_port_group_is_read_from_either_node() {
    let dir = Dir::new();
    dir.put("devices/sdb/device/access_state", "active/non-optimized\n");
    dir.put("devices/sdb/device/preferred_path", "1\n");
    dir.put("devices/sdc/device/access_state", "unknown\n");
    dir.link("dev/block/8:16", "devices/sdb");
    dir.link("dev/char/21:1", "devices/sdb");
    dir.link("dev/block/8:32", "devices/sdc");
    let state = |dev, generic| sysfs::access_below(&Sysfs::at(dir.0.clone()), dev, generic);
    let wanted = Some((AccessState::ActiveNonOptimized, true));
    assert_eq!((state("8:16", false), state("21:1", true)), (wanted, wanted));
    assert_eq!((state("8:32", false), state("8:48", false)), (None, None));
}

#[test]
fn a_deleted_device_is_gone_and_not_running() {
    let dir = Dir::new();
    dir.put("devices/sdb/device/state", "running\n");
    dir.put("devices/vdb/size", "8\n");
    dir.link("dev/block/8:16", "devices/sdb");
    dir.link("dev/char/21:1", "devices/sdb");
    dir.link("dev/block/254:0", "devices/vdb");
    let state = |dev, generic| sysfs::state_below(&Sysfs::at(dir.0.clone()), dev, generic);
    assert_eq!(state("8:16", false), DeviceState::Running);
    assert_eq!(state("254:0", false), DeviceState::Running);
    dir.put("devices/sdb/device/state", "transport-offline\n");
    assert_eq!(
        (state("8:16", false), state("21:1", true)),
        (DeviceState::Offline, DeviceState::Offline)
    );
    fs::remove_file(dir.0.join("dev/block/8:16")).unwrap();
    fs::remove_file(dir.0.join("dev/char/21:1")).unwrap();
    assert_eq!((state("8:16", false), state("21:1", true)), (DeviceState::Gone, DeviceState::Gone));
}
