//! What is known about each command before it is sent: the policy group it
//! belongs to, whether it may be repeated, whether it changes the medium.
//!
//! Knowledge about CDBs, not their encoding ([`super::cdb`]) and not the
//! decision whom to believe when one fails (`mpath::classify`). One table
//! ([`commands`]) of operation codes and service actions (SPC-5, SBC-4, ZBC-2);
//! what depends on other fields of the CDB (START STOP UNIT, SEND DIAGNOSTIC,
//! READ BUFFER) is added in [`info`]. Pure; asked on the queue threads once
//! per guest command.

use super::be;
use super::cdb::Cdb;

mod group;
mod policy;
mod table;

pub use group::{Group, UnknownGroup};
pub use policy::CommandPolicy;

#[cfg(test)]
mod tests;

/// What a command does to the medium, as far as a read-only disk cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Neither reads nor changes user data.
    None,
    /// Reads user data.
    Read,
    /// Changes user data, or may: a read-only disk answers 07/27/00.
    Write,
}

/// What is known about one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandInfo {
    /// The policy group; `None` for commands no policy needs to name.
    pub group: Option<Group>,
    /// Whether doing it twice, with nothing in between, equals doing it once
    /// (law 3). If not, it is neither retried nor replayed after an ambiguous
    /// result: the guest gets `0B/00/06`.
    pub idempotent: bool,
    /// What it does to the medium.
    pub access: Access,
}

impl CommandInfo {
    /// A command the table does not have: assume the worst.
    const UNKNOWN: CommandInfo =
        CommandInfo { group: Some(Group::Unknown), idempotent: false, access: Access::Write };
    /// An operation code whose meaning the standards leave to the vendor.
    const VENDOR: CommandInfo = CommandInfo { group: Some(Group::Vendor), ..Self::UNKNOWN };
}

/// What is known about the command in `cdb`.
///
/// Operation codes and service actions that are not in the table belong to
/// [`Group::Unknown`] or [`Group::Vendor`] and are not idempotent.
pub fn info(cdb: &Cdb) -> CommandInfo {
    let raw = cdb.as_slice();
    let mut info = known(cdb.opcode(), service_action(cdb));
    match cdb.opcode() {
        START_STOP_UNIT if !stops(raw) => info.group = None,
        SEND_DIAGNOSTIC if is_self_test(raw) => info.group = None,
        // Error history, buffer FEh and FFh: frees or clears what was read.
        READ_BUFFER_10 | READ_BUFFER_16 if byte(raw, 1) & 0x1f == 0x1c => info.idempotent = false,
        _ => {}
    }
    info
}

/// What is known by operation code and service action alone. The groups are
/// those of the command's worst form: of START STOP UNIT and SEND DIAGNOSTIC
/// some forms are in no group, which only [`info`] can tell.
pub fn known(opcode: u8, service_action: Option<u16>) -> CommandInfo {
    table::find(opcode, service_action).unwrap_or(match (opcode, service_action) {
        (0xc0..=0xff, _) => CommandInfo::VENDOR,
        // Service actions of 7Fh from 8800h on are those of object storage
        // (OSD-2) and then the vendors'; 1Fh is the vendors' in MAINTENANCE IN.
        (VARIABLE_LENGTH, Some(0x8800..)) | (MAINTENANCE_IN, Some(0x1f)) => CommandInfo::VENDOR,
        _ => CommandInfo::UNKNOWN,
    })
}

/// The table, row by row, for documentation and tools: operation code,
/// service action (`None`: whatever it is, except those of the rows before),
/// and what is known.
pub fn commands() -> impl Iterator<Item = (u8, Option<u16>, CommandInfo)> {
    table::TABLE.iter().map(|row| (row.opcode, row.service_action, row.info))
}

/// The service action of commands that have one: the low five bits of byte 1,
/// of a variable-length CDB bytes 8 and 9. `None` for all others, and where a
/// variable-length CDB is too short to have the field.
pub fn service_action(cdb: &Cdb) -> Option<u16> {
    let raw = cdb.as_slice();
    match cdb.opcode() {
        VARIABLE_LENGTH => be::u16_at(raw, 8),
        opcode if has_service_action(opcode) => Some(u16::from(byte(raw, 1) & 0x1f)),
        _ => None,
    }
}

/// Whether the operation code names several commands, told apart by a service
/// action (SPC-5 4.2.2.1).
pub fn has_service_action(opcode: u8) -> bool {
    // 8C READ ATTRIBUTE, 94/95 ZBC, A9/AB the 12-byte SERVICE ACTION pair.
    matches!(
        opcode,
        0x48 | 0x5e
            | 0x5f
            | VARIABLE_LENGTH
            | 0x83
            | 0x84
            | 0x86
            | 0x87
            | 0x8c
            | 0x94
            | 0x95
            | 0x9d
            | 0x9e
            | 0x9f
            | MAINTENANCE_IN
            | 0xa4
            | 0xa9
            | 0xab
    )
}

/// Bytes of the CDB that starts with `raw`, by the group code of its
/// operation code (SAM-5 5.2.2) or the length a variable-length CDB states.
/// Where a front carries CDBs in a field of fixed size, this is how many of
/// its bytes belong to the command.
///
/// `None` for vendor specific operation codes, reserved group codes, an
/// extended CDB (7Eh), and a variable-length CDB cut before its length.
pub fn cdb_len(raw: &[u8]) -> Option<usize> {
    match raw.first()? {
        0x7e => None,
        &VARIABLE_LENGTH => Some(8 + usize::from(*raw.get(7)?)),
        0x00..=0x1f => Some(6),
        0x20..=0x5f => Some(10),
        0x80..=0x9f => Some(16),
        0xa0..=0xbf => Some(12),
        _ => None,
    }
}

const START_STOP_UNIT: u8 = 0x1b;
const SEND_DIAGNOSTIC: u8 = 0x1d;
const READ_BUFFER_10: u8 = 0x3c;
const READ_BUFFER_16: u8 = 0x9b;
const VARIABLE_LENGTH: u8 = 0x7f;
const MAINTENANCE_IN: u8 = 0xa3;

/// Commands of a group that have forms outside it (see [`info`]).
fn has_harmless_form(opcode: u8) -> bool {
    matches!(opcode, START_STOP_UNIT | SEND_DIAGNOSTIC)
}

/// A byte the guest's CDB does not have reads as zero, as it would in the
/// field of fixed size it came in.
fn byte(raw: &[u8], offset: usize) -> u8 {
    raw.get(offset).copied().unwrap_or(0)
}

/// START STOP UNIT that takes the LU (or its power) away from everybody:
/// START=0, LOEJ=1, or a POWER CONDITION (SBC-4 5.29).
fn stops(raw: &[u8]) -> bool {
    let flags = byte(raw, 4);
    flags & 0x01 == 0 || flags & 0x02 != 0 || flags >> 4 != 0
}

/// SEND DIAGNOSTIC that is a self-test and nothing else (SPC-5 6.42): SELFTEST
/// or a defined SELF-TEST CODE, no parameter list, and neither DEVOFFL nor
/// UNITOFFL, which would let it take the LU away from other initiators.
fn is_self_test(raw: &[u8]) -> bool {
    let flags = byte(raw, 1);
    let asks = flags & 0x04 != 0 || matches!(flags >> 5, 1 | 2 | 4..=6);
    asks && flags & 0x03 == 0 && byte(raw, 3) == 0 && byte(raw, 4) == 0
}
