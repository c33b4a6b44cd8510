//! What a uevent says: `ACTION@DEVPATH`, then `KEY=VALUE`, each ended by a
//! zero byte (`lib/kobject_uevent.c`; SCSI's own keys in
//! `drivers/scsi/scsi_lib.c`, `scsi_evt_emit`).
//!
//! Pure: bytes in, meaning out. Listening is `sys::netlink`'s, what follows is
//! the control thread's. An event is a hint that something is to be looked at,
//! never the truth itself: that is in sysfs, and behind the open file.

use super::sysfs::DevT;

/// One event, as far as SCSI disks and their users are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uevent {
    /// What has happened.
    pub action: Action,
    /// To what.
    pub subsystem: Subsystem,
    /// `sdb`, `sg2`, `bsg/1:0:0:0`.
    pub devname: Option<String>,
    /// Below `/sys`.
    pub devpath: String,
    /// Of its node.
    pub dev: Option<DevT>,
    /// It is a partition.
    pub partition: bool,
    /// What the LU has said.
    pub changes: Vec<SdevChange>,
}

/// What has happened to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is there now.
    Add,
    /// It has gone.
    Remove,
    /// Something about it is different, or a process that had it open for
    /// writing has closed it (udevd's word, not the kernel's).
    Change,
    /// Back.
    Online,
    /// Taken out.
    Offline,
    /// Bound to a driver, renamed, moved.
    Other,
}

/// To what kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsystem {
    /// A disk, a partition, a dm or md device.
    Block,
    /// A SCSI host, target or device.
    Scsi,
    /// What makes a SCSI device a disk: comes before the block device, and goes
    /// before it.
    ScsiDisk,
    /// An sg node.
    ScsiGeneric,
    /// A bsg node.
    Bsg,
    /// Anything else.
    Other,
}

/// What an LU has said by a unit attention that some command met
/// (`SDEV_UA=`), whoever sent it; or what follows for its block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SdevChange {
    /// 3F/03.
    InquiryData,
    /// 2A/09, or the block device has another size (`RESIZE=1`).
    Capacity,
    /// 3F/0E.
    ReportedLuns,
    /// 2A/06.
    AccessState,
    /// 2A/01.
    ModeParameters,
    /// 38/07.
    ThinThreshold,
    /// 29/xx.
    Reset,
}

impl SdevChange {
    /// The kernel's word.
    pub fn name(self) -> &'static str {
        match self {
            SdevChange::InquiryData => "INQUIRY_DATA_HAS_CHANGED",
            SdevChange::Capacity => "CAPACITY_DATA_HAS_CHANGED",
            SdevChange::ReportedLuns => "REPORTED_LUNS_DATA_HAS_CHANGED",
            SdevChange::AccessState => "ASYMMETRIC_ACCESS_STATE_CHANGED",
            SdevChange::ModeParameters => "MODE_PARAMETERS_CHANGED",
            SdevChange::ThinThreshold => "THIN_PROVISIONING_SOFT_THRESHOLD_REACHED",
            SdevChange::Reset => "POWER_ON_RESET_OCCURRED",
        }
    }

    fn from_name(name: &str) -> Option<SdevChange> {
        const ALL: [SdevChange; 7] = [
            SdevChange::InquiryData,
            SdevChange::Capacity,
            SdevChange::ReportedLuns,
            SdevChange::AccessState,
            SdevChange::ModeParameters,
            SdevChange::ThinThreshold,
            SdevChange::Reset,
        ];
        ALL.into_iter().find(|change| change.name() == name)
    }
}

impl Uevent {
    /// Understands a message; `None` if it is none of the kernel's.
    pub fn parse(message: &[u8]) -> Option<Uevent> {
        let mut lines = message.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let head = lines.next()?;
        let (action, devpath) = head.split_once('@')?;
        if !devpath.starts_with('/') {
            return None;
        }
        let mut event = Uevent {
            action: Action::from_name(action),
            subsystem: Subsystem::Other,
            devname: None,
            devpath: devpath.to_owned(),
            dev: None,
            partition: false,
            changes: Vec::new(),
        };
        let (mut major, mut minor) = (None, None);
        for line in lines {
            let Some((key, value)) = line.split_once('=') else { continue };
            match key {
                "SUBSYSTEM" => event.subsystem = Subsystem::from_name(value),
                "DEVNAME" => event.devname = Some(value.to_owned()),
                "DEVTYPE" => event.partition = value == "partition",
                "MAJOR" => major = value.parse().ok(),
                "MINOR" => minor = value.parse().ok(),
                "SDEV_UA" => event.changes.extend(SdevChange::from_name(value)),
                "RESIZE" if value == "1" => event.changes.push(SdevChange::Capacity),
                _ => {}
            }
        }
        event.dev = major.zip(minor).map(|(major, minor)| DevT { major, minor });
        Some(event)
    }

    /// `H:C:T:L` of the SCSI device that it is about, or that it belongs to.
    pub fn hctl(&self) -> Option<&str> {
        self.devpath.rsplit('/').find(|part| is_hctl(part))
    }

    /// Whether SCSI disks may have come or gone.
    pub fn moves_disks(&self) -> bool {
        let whole = self.subsystem == Subsystem::Block && !self.partition;
        matches!(self.subsystem, Subsystem::Scsi | Subsystem::ScsiDisk) || whole
    }

    /// Whether somebody may have let go of a disk: a volume, a map or an array
    /// has gone, or (udevd's word) whoever had the disk open has closed it.
    pub fn may_free_disks(&self) -> bool {
        self.subsystem == Subsystem::Block && matches!(self.action, Action::Remove | Action::Change)
    }
}

impl Action {
    fn from_name(name: &str) -> Action {
        match name {
            "add" => Action::Add,
            "remove" => Action::Remove,
            "change" => Action::Change,
            "online" => Action::Online,
            "offline" => Action::Offline,
            _ => Action::Other,
        }
    }
}

impl Subsystem {
    fn from_name(name: &str) -> Subsystem {
        match name {
            "block" => Subsystem::Block,
            "scsi" => Subsystem::Scsi,
            "scsi_disk" => Subsystem::ScsiDisk,
            "scsi_generic" => Subsystem::ScsiGeneric,
            "bsg" => Subsystem::Bsg,
            _ => Subsystem::Other,
        }
    }
}

/// Whether this is the name of a SCSI device, `H:C:T:L`.
pub(super) fn is_hctl(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split(':').count() == 4 && text.split(':').all(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DISK: &str = "/devices/platform/host1/target1:0:0/1:0:0:0";

    fn event(lines: &[&str]) -> Uevent {
        Uevent::parse(lines.join("\0").as_bytes()).unwrap()
    }

    #[test]
    fn a_disk_that_comes_is_known_by_its_address_and_number() {
        let path = format!("{DISK}/block/sdb");
        let devpath = format!("DEVPATH={path}");
        let head = format!("add@{path}");
        let come = event(&[
            &head,
            "ACTION=add",
            &devpath,
            "SUBSYSTEM=block",
            "MAJOR=8",
            "MINOR=16",
            "DEVNAME=sdb",
            "DEVTYPE=disk",
            "SEQNUM=1234",
            "",
        ]);
        assert_eq!((come.action, come.subsystem), (Action::Add, Subsystem::Block));
        assert_eq!((come.hctl(), come.devname.as_deref()), (Some("1:0:0:0"), Some("sdb")));
        assert_eq!(come.dev, Some(DevT { major: 8, minor: 16 }));
        assert!(come.moves_disks() && !come.may_free_disks() && !come.partition);
    }

    #[test]
    fn what_the_lu_says_is_understood_word_by_word() {
        let head = format!("change@{DISK}");
        for (word, change) in [
            ("INQUIRY_DATA_HAS_CHANGED", SdevChange::InquiryData),
            ("CAPACITY_DATA_HAS_CHANGED", SdevChange::Capacity),
            ("REPORTED_LUNS_DATA_HAS_CHANGED", SdevChange::ReportedLuns),
            ("ASYMMETRIC_ACCESS_STATE_CHANGED", SdevChange::AccessState),
            ("MODE_PARAMETERS_CHANGED", SdevChange::ModeParameters),
            ("THIN_PROVISIONING_SOFT_THRESHOLD_REACHED", SdevChange::ThinThreshold),
            ("POWER_ON_RESET_OCCURRED", SdevChange::Reset),
        ] {
            let said = event(&[&head, "SUBSYSTEM=scsi", &format!("SDEV_UA={word}")]);
            assert_eq!((said.hctl(), &said.changes[..]), (Some("1:0:0:0"), &[change][..]));
        }
        let unknown = event(&[&head, "SUBSYSTEM=scsi", "SDEV_UA=SOMETHING_NEW"]);
        assert_eq!(unknown.changes, []);
        let resized = event(&[&format!("change@{DISK}/block/sdb"), "SUBSYSTEM=block", "RESIZE=1"]);
        assert_eq!(resized.changes, [SdevChange::Capacity]);
    }

    #[test]
    fn a_volume_that_goes_may_free_a_disk_and_a_partition_moves_none() {
        let dm = event(&["remove@/devices/virtual/block/dm-0", "SUBSYSTEM=block", "DEVNAME=dm-0"]);
        assert!(dm.may_free_disks() && dm.hctl().is_none());
        let part =
            event(&[&format!("add@{DISK}/block/sdb/sdb1"), "SUBSYSTEM=block", "DEVTYPE=partition"]);
        assert!(!part.moves_disks());
        let network = event(&["add@/devices/virtual/net/tap0", "SUBSYSTEM=net"]);
        assert!(!network.moves_disks() && !network.may_free_disks());
    }

    #[test]
    fn what_is_no_message_of_the_kernel_is_none() {
        for message in [&b""[..], b"libudev\0\xfe\xed\xca\xfe", b"add", b"add@\0", b"\0\0"] {
            assert_eq!(Uevent::parse(message), None, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(event) = Uevent::parse(&bytes) {
                prop_assert!(event.devpath.starts_with('/'));
                prop_assert!(event.hctl().is_none_or(is_hctl));
            }
        }

        #[test]
        fn any_lines_behind_a_head_are_survived(lines in prop::collection::vec("[A-Z_]{0,8}=?[ -~]{0,12}", 0..8)) {
            let text = format!("change@{DISK}\0{}", lines.join("\0"));
            prop_assert_eq!(Uevent::parse(text.as_bytes()).unwrap().action, Action::Change);
        }
    }
}
