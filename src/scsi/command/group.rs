//! Policy groups: the words by which commands are allowed and denied.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

macro_rules! groups {
    ($($(#[$doc:meta])* $group:ident, $name:literal, $denied:literal, $help:literal;)*) => {
        /// A group of commands a policy decides about as one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Group { $(#[doc = $help] $group),* }

        impl Group {
            const ALL: &'static [Group] = &[$(Group::$group),*];

            /// The word for it on the command line, e.g. `format-unit`.
            pub fn name(self) -> &'static str {
                match self { $(Group::$group => $name),* }
            }

            /// One line for `--help` and the manual: what is in the group.
            pub fn help(self) -> &'static str {
                match self { $(Group::$group => $help),* }
            }

            /// Whether it is denied unless allowed by name.
            pub const fn denied_by_default(self) -> bool {
                match self { $(Group::$group => $denied),* }
            }
        }
    };
}

groups! {
    FormatUnit, "format-unit", true,
        "FORMAT UNIT, FORMAT WITH PRESET";
    Sanitize, "sanitize", true,
        "SANITIZE";
    Depopulate, "depopulate", true,
        "REMOVE ELEMENT AND TRUNCATE or MODIFY ZONES, RESTORE ELEMENTS AND REBUILD";
    ReassignBlocks, "reassign-blocks", false,
        "REASSIGN BLOCKS";
    ZoneOut, "zone-out", false,
        "ZBC OUT and ZONE ACTIVATE";
    WriteLong, "write-long", true,
        "WRITE LONG: bad blocks made on purpose";
    WriteBuffer, "write-buffer", true,
        "WRITE BUFFER: microcode download and buffer tests";
    StopUnit, "stop-unit", true,
        "START STOP UNIT with START=0, LOEJ=1 or a power condition";
    SendDiagnostic, "send-diagnostic", true,
        "SEND DIAGNOSTIC other than a plain self-test";
    ModeSelect, "mode-select", true,
        "MODE SELECT";
    LogSelect, "log-select", true,
        "LOG SELECT";
    MaintenanceOut, "maintenance-out", true,
        "MAINTENANCE OUT: SET TARGET PORT GROUPS, ...; ACCESS CONTROL OUT, BIND, UNBIND";
    SetTimestamp, "set-timestamp", true,
        "SET TIMESTAMP";
    ThirdPartyCopy, "third-party-copy", true,
        "EXTENDED COPY, POPULATE TOKEN, WRITE USING TOKEN, RECEIVE COPY ..., XDWRITE EXTENDED";
    SecurityProtocolOut, "security-protocol-out", true,
        "SECURITY PROTOCOL OUT";
    Attribute, "attribute", true,
        "READ ATTRIBUTE, WRITE ATTRIBUTE";
    AtaPassThrough, "ata-pass-through", true,
        "ATA PASS-THROUGH: any ATA command";
    Reserve, "reserve", false,
        "RESERVE and RELEASE (6 and 10); always denied while paths are joined";
    PersistentReserveOut, "persistent-reserve-out", false,
        "PERSISTENT RESERVE OUT";
    Vendor, "vendor", true,
        "vendor specific operation codes (C0h to FFh) and object storage";
    Unknown, "unknown", true,
        "operation codes and service actions not in the table";
}

impl Group {
    /// Every group, in the order of the documentation.
    pub fn all() -> impl ExactSizeIterator<Item = Group> + Clone {
        Group::ALL.iter().copied()
    }

    /// Its bit in a set of groups.
    pub(super) const fn bit(self) -> u32 {
        1 << self as u8
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no command group.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no command group {0:?}; there are: {all}", all = names())]
pub struct UnknownGroup(pub String);

fn names() -> String {
    Group::all().map(Group::name).collect::<Vec<_>>().join(", ")
}

impl FromStr for Group {
    type Err = UnknownGroup;

    fn from_str(text: &str) -> Result<Group, UnknownGroup> {
        Group::all().find(|g| g.name() == text).ok_or_else(|| UnknownGroup(text.to_owned()))
    }
}
