use super::*;
use crate::host::DevT;

const W: &str = "36001405000000000000000000000000a";
const X: &str = "36001405000000000000000000000000b";

/// Discovery for one map, 0, which wants [`W`], and a clock.
struct Rig {
    discovery: Discovery,
    now: Time,
    taken: Vec<&'static str>,
    born: u64,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Rig {
    fn new() -> Rig {
        Rig { discovery: Discovery::default(), now: Time(0), taken: Vec::new(), born: 0 }
    }

    fn hear(&mut self, news: &DeviceNews) {
        self.discovery.learn(self.now, news);
    }

    fn disk(&mut self, hctl: &str, devname: &str, wwid: Option<&str>) -> Disk {
        self.born += 1;
        Disk {
            hctl: hctl.to_owned(),
            devname: devname.to_owned(),
            dev: DevT { major: 8, minor: 0 },
            wwid: wwid.map(str::to_owned),
            also: None,
            is_head: false,
            born: self.born,
        }
    }

    fn come(&mut self, hctl: &str, devname: &str, wwid: &str) {
        let disk = self.disk(hctl, devname, Some(wwid));
        self.hear(&DeviceNews::Came(disk));
    }

    fn next(&mut self) -> Vec<Opening> {
        let wants = [Want { slot: MapSlot(0), wwid: W.to_owned() }];
        let taken = &self.taken;
        let openings =
            self.discovery.next(self.now, &wants, |disk| taken.contains(&disk.devname.as_str()));
        assert!(openings.iter().all(|opening| opening.want == wants[0]));
        openings
    }

    fn names(&mut self) -> Vec<String> {
        self.next().into_iter().map(|opening| opening.devname).collect()
    }

    /// The one disk to be opened now.
    fn only(&mut self) -> Opening {
        let mut all = self.next();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn ends(&mut self, opening: &Opening, result: Result<(), Refusal>) -> Option<String> {
        self.discovery.opened(self.now, opening, result).map(|notice| notice.text)
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }
}

fn in_use() -> Refusal {
    Refusal::InUse("/dev/sda: is in use by LVM".to_owned())
}

#[test]
fn a_disk_that_bears_the_name_is_opened_once_and_others_never() {
    let mut rig = Rig::new();
    rig.come("1:0:0:0", "sda", W);
    rig.come("2:0:0:0", "sdb", X);
    let nameless = rig.disk("3:0:0:0", "sdc", None);
    rig.hear(&DeviceNews::Came(nameless));
    let sda = rig.only();
    assert_eq!((sda.devname.as_str(), sda.hctl.as_str()), ("sda", "1:0:0:0"));
    assert_eq!(rig.names(), [""; 0], "under way");
    assert_eq!(rig.ends(&sda, Ok(())), None);
    rig.taken.push("sda");
    assert_eq!(rig.names(), [""; 0], "a path");
    assert_eq!(rig.discovery.deadline(), None);
}

#[test]
fn a_deleted_path_joins_again_under_whatever_name_it_has() {
    let mut rig = Rig::new();
    rig.taken.push("sda");
    rig.come("1:0:0:0", "sda", W);
    assert_eq!(rig.names(), [""; 0]);
    // The name stays the old device's until its file is closed.
    rig.hear(&DeviceNews::Went("1:0:0:0".to_owned()));
    rig.come("1:0:0:0", "sdd", W);
    assert_eq!(rig.names(), ["sdd"]);
    rig.hear(&DeviceNews::Went("1:0:0:0".to_owned()));
    rig.taken.clear();
    rig.come("1:0:0:0", "sda", W);
    assert_eq!(rig.names(), ["sda"]);
}

#[test]
fn what_was_opened_of_a_device_that_has_gone_says_nothing_of_the_next_one() {
    let mut rig = Rig::new();
    rig.come("1:0:0:0", "sda", W);
    let old = rig.only();
    rig.hear(&DeviceNews::Went("1:0:0:0".to_owned()));
    assert!(!rig.discovery.is_current(&old.hctl, old.born));
    rig.come("1:0:0:0", "sda", W);
    assert!(!rig.discovery.is_current(&old.hctl, old.born));
    assert_eq!(rig.ends(&old, Err(Refusal::OtherLu(X.to_owned()))), None);
    let new = rig.only();
    assert!(rig.discovery.is_current(&new.hctl, new.born));
}

#[test]
fn a_disk_in_use_is_told_once_with_who_and_tried_again() {
    let mut rig = Rig::new();
    rig.come("1:0:0:0", "sda", W);
    let sda = rig.only();
    let told = rig.ends(&sda, Err(in_use())).unwrap();
    assert!(told.contains("sda (1:0:0:0)") && told.contains("in use by LVM"), "{told}");
    assert_eq!(
        rig.discovery.list().next().unwrap().1.as_deref(),
        Some("/dev/sda: is in use by LVM")
    );
    for _ in 0..3 {
        assert_eq!(rig.names(), [""; 0], "not yet");
        rig.now = rig.discovery.deadline().unwrap();
        let sda = rig.only();
        assert_eq!(rig.ends(&sda, Err(in_use())), None, "told already");
    }
    // Another user is another story.
    rig.now = rig.discovery.deadline().unwrap();
    let sda = rig.only();
    let other = Refusal::InUse("/dev/sda: is in use by a mounted file system".to_owned());
    assert!(rig.ends(&sda, Err(other)).unwrap().contains("mounted"));
    // A uevent says that something has let go of some disk.
    assert!(rig.discovery.deadline().unwrap() > rig.now + ms(1000));
    rig.hear(&DeviceNews::Freed);
    rig.pass(SOON);
    let sda = rig.only();
    assert_eq!(rig.ends(&sda, Ok(())), None);
    assert_eq!(rig.discovery.list().next().unwrap().1, None);
    // And if it is in use anew, that is told anew.
    let sda = rig.only();
    assert!(rig.ends(&sda, Err(in_use())).is_some());
}

#[test]
fn an_error_that_passes_by_itself_is_told_when_it_does_not() {
    let mut rig = Rig::new();
    rig.come("1:0:0:0", "sda", W);
    let error = || Err(Refusal::Other("/dev/sda: permission denied".to_owned()));
    let sda = rig.only();
    assert_eq!(rig.ends(&sda, error()), None, "udevd may be about to change its mode");
    // Whoever lets go of a disk does not mend that.
    rig.hear(&DeviceNews::Freed);
    assert_eq!(rig.discovery.deadline(), Some(rig.now + SOON));
    rig.pass(SOON);
    let sda = rig.only();
    assert!(rig.ends(&sda, error()).unwrap().contains("permission denied"));
    let mut waits = Vec::new();
    for _ in 0..6 {
        let again = rig.discovery.deadline().unwrap();
        waits.push(again.since(rig.now).as_secs());
        rig.now = again;
        let sda = rig.only();
        assert_eq!(rig.ends(&sda, error()), None, "told already");
    }
    assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
    // A trial may meet a reset: that is no reason for the next one.
    rig.hear(&DeviceNews::Said("1:0:0:0".to_owned(), SdevChange::Reset, None));
    assert_eq!(rig.names(), [""; 0]);
    // Its LU has said that it has another size: it may fit by now.
    rig.hear(&DeviceNews::Said("1:0:0:0".to_owned(), SdevChange::Capacity, None));
    assert_eq!(rig.names(), ["sda"]);
}

#[test]
fn a_disk_that_proves_another_lu_is_left_alone_until_it_changes() {
    let mut rig = Rig::new();
    rig.come("1:0:0:0", "sda", W);
    let sda = rig.only();
    let told = rig.ends(&sda, Err(Refusal::OtherLu(X.to_owned()))).unwrap();
    assert!(told.contains(X) && told.contains("rescan"), "{told}");
    for news in [DeviceNews::Freed, DeviceNews::Looked] {
        rig.hear(&news);
        rig.pass(Duration::from_secs(3600));
        assert_eq!((rig.names(), rig.discovery.deadline()), (vec![], None));
    }
    let said = |change| DeviceNews::Said("1:0:0:0".to_owned(), change, None);
    for change in [SdevChange::Capacity, SdevChange::Reset] {
        rig.hear(&said(change));
        assert_eq!(rig.names(), [""; 0]);
    }
    rig.hear(&said(SdevChange::InquiryData));
    assert_eq!(rig.names(), ["sda"]);
}

#[test]
fn a_disk_that_gets_the_maps_name_joins() {
    let mut rig = Rig::new();
    rig.come("1:0:0:0", "sda", X);
    assert_eq!(rig.names(), [""; 0]);
    let born = rig.born;
    let mut renamed = rig.disk("1:0:0:0", "sda", Some(W));
    let said = |disk| DeviceNews::Said("1:0:0:0".to_owned(), SdevChange::InquiryData, Some(disk));
    rig.hear(&said(renamed.clone()));
    assert_eq!(rig.names(), [""; 0], "of another device at that address");
    renamed.born = born;
    rig.hear(&said(renamed));
    assert_eq!(rig.names(), ["sda"]);
}

#[test]
fn a_path_that_an_administrator_removed_stays_out_until_its_device_is_another() {
    let mut rig = Rig::new();
    rig.come("1:0:0:0", "sda", W);
    rig.taken.push("sda");
    rig.next();
    rig.discovery.leave_out("1:0:0:0");
    rig.taken.clear();
    rig.hear(&DeviceNews::Freed);
    rig.hear(&DeviceNews::Looked);
    assert_eq!(rig.names(), [""; 0]);
    assert_eq!(rig.discovery.list().next().unwrap().1.as_deref(), Some("left out (del path)"));
    rig.discovery.let_in("1:0:0:0");
    assert_eq!(rig.names(), ["sda"], "added by hand, and lost since");
    rig.discovery.leave_out("1:0:0:0");
    rig.hear(&DeviceNews::Went("1:0:0:0".to_owned()));
    rig.come("1:0:0:0", "sda", W);
    assert_eq!(rig.names(), ["sda"]);
}

#[test]
fn a_storm_of_disks_is_opened_a_few_at_a_time_and_all_have_their_turn() {
    let mut rig = Rig::new();
    for n in 0..20 {
        rig.come(&format!("1:0:0:{n}"), &format!("sd{n}"), W);
    }
    let mut under_way = rig.next();
    assert_eq!(under_way.len(), MAX_OF_TARGET);
    assert_eq!(rig.names(), [""; 0]);
    let mut seen = under_way.len();
    while let Some(opening) = under_way.pop() {
        rig.ends(&opening, Err(Refusal::OtherLu(X.to_owned())));
        let next = rig.next();
        assert!(next.len() <= 1, "{next:?}");
        seen += next.len();
        under_way.extend(next);
    }
    assert_eq!(seen, 20);
}

#[test]
fn openings_that_hang_keep_nobody_else_out() {
    let mut rig = Rig::new();
    // Two targets of one host are dead: each disk of theirs hangs for good.
    for n in 0..40 {
        rig.come(&format!("1:0:{}:{n}", n % 2), &format!("dead{n}"), W);
    }
    assert_eq!(rig.next().len(), 2 * MAX_OF_TARGET);
    // Another target of that host, and another host.
    rig.come("1:0:2:0", "sda", W);
    rig.come("11:0:0:0", "sdb", W);
    assert_eq!(rig.names(), ["sdb", "sda"], "11 is not 1");
    // All of the host hangs.
    for target in 3..20 {
        rig.come(&format!("1:0:{target}:0"), &format!("worse{target}"), W);
    }
    rig.next();
    rig.come("2:0:0:0", "sdc", W);
    assert_eq!(rig.names(), ["sdc"]);
    rig.pass(Duration::from_secs(3600));
    assert_eq!(rig.names(), [""; 0], "none of the dead ones has ended");
}

#[test]
fn threads_that_hang_have_an_end_whatever_is_dead() {
    let mut rig = Rig::new();
    for n in 0..MAX_OPENING {
        rig.come(&format!("{n}:0:0:0"), &format!("dead{n}"), W);
    }
    let dead = rig.next();
    assert_eq!(dead.len(), MAX_OPENING);
    rig.come("100:0:0:0", "sda", W);
    assert_eq!(rig.names(), [""; 0]);
    // The kernel takes one of them away: what it held up there is over.
    rig.hear(&DeviceNews::Went(dead[0].hctl.clone()));
    assert_eq!(rig.names(), ["sda"]);
}

#[test]
fn a_disk_that_waits_for_its_turn_says_for_whom() {
    let reason = |count: u16, hctl: fn(u16) -> String| {
        let mut rig = Rig::new();
        for n in 0..count {
            rig.come(&hctl(n), &format!("sd{n}"), W);
        }
        rig.next();
        let list = rig.discovery.list();
        list.filter_map(|(_, reason)| reason.filter(|why| why != "being opened")).next()
    };
    let target = reason(5, |n| format!("3:0:7:{n}"));
    assert_eq!(
        target.as_deref(),
        Some("waits for its turn: 4 disks of target 3:0:7 are being opened")
    );
    let host = reason(17, |n| format!("3:0:{n}:0"));
    assert_eq!(host.as_deref(), Some("waits for its turn: 16 disks of host 3 are being opened"));
    let all = reason(65, |n| format!("{n}:0:0:0"));
    assert_eq!(all.as_deref(), Some("waits for its turn: 64 disks are being opened"));
}

#[test]
fn a_disk_whose_time_has_come_is_queued_and_wakes_nobody_meanwhile() {
    let mut rig = Rig::new();
    for n in 0..=MAX_OF_TARGET {
        rig.come(&format!("1:0:0:{n}"), &format!("sd{n}"), W);
    }
    let first = rig.next();
    rig.ends(&first[0], Err(in_use()));
    assert_eq!(rig.names(), [format!("sd{MAX_OF_TARGET}")]);
    assert_eq!(rig.discovery.deadline(), Some(rig.now + SOON));
    rig.pass(SOON);
    assert_eq!(rig.names(), [""; 0]);
    assert_eq!(rig.discovery.deadline(), None, "not before one of them has ended");
    rig.ends(&first[1], Ok(()));
    rig.taken.push("sd1");
    assert_eq!(rig.names(), ["sd0"]);
}
