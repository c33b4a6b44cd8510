//! The table of commands: one row for each operation code, or operation code
//! and service action (SPC-5 annex F, SBC-4 5, ZBC-2 5).
//!
//! Ascending by operation code, then by service action; a row for all other
//! service actions of an operation code comes last among its rows.

use super::{Access, CommandInfo, Group};

pub(super) struct Row {
    pub(super) opcode: u8,
    /// `None`: whatever the service action, or the command has none.
    pub(super) service_action: Option<u16>,
    pub(super) info: CommandInfo,
}

/// The row of a command, if there is one.
pub(super) fn find(opcode: u8, service_action: Option<u16>) -> Option<CommandInfo> {
    rows(opcode)
        .find(|row| row.service_action.is_none() || row.service_action == service_action)
        .map(|row| row.info)
}

fn rows(opcode: u8) -> impl Iterator<Item = &'static Row> {
    let start = usize::from(FIRST[usize::from(opcode)]);
    TABLE[start..].iter().take_while(move |row| row.opcode == opcode)
}

/// For each operation code the index of its first row, or of the row where it
/// would stand: one look per guest command instead of a search.
static FIRST: [u8; 256] = first_rows();

#[allow(clippy::cast_possible_truncation)] // TABLE.len() < 256, else evaluation fails
const fn first_rows() -> [u8; 256] {
    assert!(TABLE.len() < 256);
    let mut first = [0; 256];
    let mut row = 0;
    let mut opcode = 0;
    while opcode < 256 {
        while row < TABLE.len() && (TABLE[row].opcode as usize) < opcode {
            row += 1;
        }
        first[opcode] = row as u8;
        opcode += 1;
    }
    first
}

/// A row. Kinds: `get`, may be repeated, leaves the medium alone; `act`, not
/// to be repeated, leaves the medium alone; `read`; `write`, may be repeated;
/// `alter`, changes the medium, not to be repeated.
const fn row(opcode: u8, service_action: Option<u16>, kind: Kind, group: Option<Group>) -> Row {
    let (idempotent, access) = match kind {
        Kind::Get => (true, Access::None),
        Kind::Act => (false, Access::None),
        Kind::Read => (true, Access::Read),
        Kind::Write => (true, Access::Write),
        Kind::Alter => (false, Access::Write),
    };
    Row { opcode, service_action, info: CommandInfo { group, idempotent, access } }
}

#[derive(Clone, Copy)]
enum Kind {
    Get,
    Act,
    Read,
    Write,
    Alter,
}

macro_rules! table {
    (@sa *) => { None };
    (@sa $sa:literal) => { Some($sa) };
    (@group -) => { None };
    (@group $group:ident) => { Some(Group::$group) };
    ($($opcode:literal $sa:tt $kind:ident $group:tt,)*) => {
        pub(super) static TABLE: &[Row] = &[
            $(row($opcode, table!(@sa $sa), Kind::$kind, table!(@group $group))),*
        ];
    };
}

// Operation code, service action, kind, group, and the command's name.
table! {
    0x00 * Get -,                        // TEST UNIT READY
    // Clears what it reports, but unit attentions are kept for the guest by
    // the engine, so a second one loses nothing.
    0x03 * Get -,                        // REQUEST SENSE
    0x04 * Alter FormatUnit,             // FORMAT UNIT
    0x07 * Alter ReassignBlocks,         // REASSIGN BLOCKS
    0x08 * Read -,                       // READ(6)
    0x0a * Write -,                      // WRITE(6)
    0x12 * Get -,                        // INQUIRY
    0x15 * Act ModeSelect,               // MODE SELECT(6)
    0x16 * Act Reserve,                  // RESERVE(6)
    0x17 * Act Reserve,                  // RELEASE(6)
    0x18 * Alter ThirdPartyCopy,         // COPY
    0x1a * Get -,                        // MODE SENSE(6)
    0x1b * Get StopUnit,                 // START STOP UNIT
    0x1c * Get -,                        // RECEIVE DIAGNOSTIC RESULTS
    0x1d * Act SendDiagnostic,           // SEND DIAGNOSTIC
    0x1e * Get -,                        // PREVENT ALLOW MEDIUM REMOVAL
    0x25 * Get -,                        // READ CAPACITY(10)
    0x28 * Read -,                       // READ(10)
    0x2a * Write -,                      // WRITE(10)
    0x2e * Write -,                      // WRITE AND VERIFY(10)
    0x2f * Read -,                       // VERIFY(10)
    0x34 * Read -,                       // PRE-FETCH(10)
    0x35 * Get -,                        // SYNCHRONIZE CACHE(10)
    0x37 * Get -,                        // READ DEFECT DATA(10)
    0x38 * Alter FormatUnit,             // FORMAT WITH PRESET
    0x39 * Alter ThirdPartyCopy,         // COMPARE
    0x3a * Alter ThirdPartyCopy,         // COPY AND VERIFY
    0x3b * Act WriteBuffer,              // WRITE BUFFER
    0x3c * Get -,                        // READ BUFFER(10)
    0x3e * Read -,                       // READ LONG(10)
    0x3f * Alter WriteLong,              // WRITE LONG(10)
    0x41 * Write -,                      // WRITE SAME(10)
    0x42 * Write -,                      // UNMAP
    0x48 * Alter Sanitize,               // SANITIZE ...
    0x4c * Act LogSelect,                // LOG SELECT
    // SP=1 saves parameters and does not change them; resetting them is LOG
    // SELECT's.
    0x4d * Get -,                        // LOG SENSE
    0x50 * Alter -,                      // XDWRITE(10)
    0x51 * Alter -,                      // XPWRITE(10)
    0x52 * Act -,                        // XDREAD(10)
    0x53 * Alter -,                      // XDWRITEREAD(10)
    0x55 * Act ModeSelect,               // MODE SELECT(10)
    0x56 * Act Reserve,                  // RESERVE(10)
    0x57 * Act Reserve,                  // RELEASE(10)
    0x5a * Get -,                        // MODE SENSE(10)
    0x5e * Get -,                        // PERSISTENT RESERVE IN ...
    0x5f * Act PersistentReserveOut,     // PERSISTENT RESERVE OUT ...
    0x7f 0x0001 Alter ThirdPartyCopy,    // REBUILD(32)
    0x7f 0x0002 Alter ThirdPartyCopy,    // REGENERATE(32)
    0x7f 0x0003 Act -,                   // XDREAD(32)
    0x7f 0x0004 Alter -,                 // XDWRITE(32)
    0x7f 0x0005 Alter ThirdPartyCopy,    // XDWRITE EXTENDED(32)
    0x7f 0x0006 Alter -,                 // XPWRITE(32)
    0x7f 0x0007 Alter -,                 // XDWRITEREAD(32)
    0x7f 0x0008 Alter ThirdPartyCopy,    // XDWRITE EXTENDED(64)
    0x7f 0x0009 Read -,                  // READ(32)
    0x7f 0x000a Read -,                  // VERIFY(32)
    0x7f 0x000b Write -,                 // WRITE(32)
    0x7f 0x000c Write -,                 // WRITE AND VERIFY(32)
    0x7f 0x000d Write -,                 // WRITE SAME(32)
    0x7f 0x000e Alter -,                 // ORWRITE(32)
    0x7f 0x000f Write -,                 // WRITE ATOMIC(32)
    0x7f 0x0010 Write -,                 // WRITE STREAM(32)
    0x7f 0x0011 Write -,                 // WRITE SCATTERED(32)
    0x7f 0x0012 Get -,                   // GET LBA STATUS(32)
    0x7f 0x1ff0 Alter AtaPassThrough,    // ATA PASS-THROUGH(32)
    0x80 * Alter ThirdPartyCopy,         // XDWRITE EXTENDED(16)
    0x81 * Alter ThirdPartyCopy,         // REBUILD(16)
    0x82 * Alter ThirdPartyCopy,         // REGENERATE(16)
    0x83 * Alter ThirdPartyCopy,         // third-party copy out
    // Some report a copy once and forget it.
    0x84 * Act ThirdPartyCopy,           // third-party copy in
    0x85 * Alter AtaPassThrough,         // ATA PASS-THROUGH(16)
    0x86 * Get -,                        // ACCESS CONTROL IN ...
    0x87 * Act MaintenanceOut,           // ACCESS CONTROL OUT ...
    0x88 * Read -,                       // READ(16)
    0x89 * Alter -,                      // COMPARE AND WRITE
    0x8a * Write -,                      // WRITE(16)
    0x8b * Alter -,                      // ORWRITE(16)
    0x8c * Get Attribute,                // READ ATTRIBUTE ...
    0x8d * Act Attribute,                // WRITE ATTRIBUTE
    0x8e * Write -,                      // WRITE AND VERIFY(16)
    0x8f * Read -,                       // VERIFY(16)
    0x90 * Read -,                       // PRE-FETCH(16)
    0x91 * Get -,                        // SYNCHRONIZE CACHE(16)
    0x93 * Write -,                      // WRITE SAME(16)
    0x94 * Alter ZoneOut,                // ZBC OUT ...
    0x95 0x00 Get -,                     // REPORT ZONES
    0x95 0x06 Get -,                     // REPORT REALMS
    0x95 0x07 Get -,                     // REPORT ZONE DOMAINS
    0x95 0x08 Alter ZoneOut,             // ZONE ACTIVATE(16)
    0x95 0x09 Get -,                     // ZONE QUERY(16)
    0x9a * Write -,                      // WRITE STREAM(16)
    0x9b * Get -,                        // READ BUFFER(16)
    0x9c * Write -,                      // WRITE ATOMIC(16)
    0x9e 0x0f Get -,                     // RECEIVE BINDING REPORT
    0x9e 0x10 Get -,                     // READ CAPACITY(16)
    0x9e 0x11 Read -,                    // READ LONG(16)
    0x9e 0x12 Get -,                     // GET LBA STATUS(16)
    0x9e 0x13 Get -,                     // REPORT REFERRALS
    0x9e 0x14 Act -,                     // STREAM CONTROL
    0x9e 0x15 Act -,                     // BACKGROUND CONTROL
    0x9e 0x16 Get -,                     // GET STREAM STATUS
    0x9e 0x17 Get -,                     // GET PHYSICAL ELEMENT STATUS
    0x9e 0x18 Alter Depopulate,          // REMOVE ELEMENT AND TRUNCATE
    0x9e 0x19 Alter Depopulate,          // RESTORE ELEMENTS AND REBUILD
    0x9e 0x1a Alter Depopulate,          // REMOVE ELEMENT AND MODIFY ZONES
    0x9f 0x0b Act MaintenanceOut,        // TEST BIND
    0x9f 0x0c Act MaintenanceOut,        // PREPARE BINDING REPORT
    0x9f 0x0d Act MaintenanceOut,        // SET AFFILIATION
    0x9f 0x0e Act MaintenanceOut,        // BIND
    0x9f 0x0f Act MaintenanceOut,        // UNBIND
    0x9f 0x11 Alter WriteLong,           // WRITE LONG(16)
    0x9f 0x12 Write -,                   // WRITE SCATTERED(16)
    0xa0 * Get -,                        // REPORT LUNS
    0xa1 * Alter AtaPassThrough,         // ATA PASS-THROUGH(12)
    // A protocol may hand out its answer once (TCG does).
    0xa2 * Act -,                        // SECURITY PROTOCOL IN
    0xa3 0x05 Get -,                     // REPORT IDENTIFYING INFORMATION
    0xa3 0x0a Get -,                     // REPORT TARGET PORT GROUPS
    0xa3 0x0b Get -,                     // REPORT ALIASES
    0xa3 0x0c Get -,                     // REPORT SUPPORTED OPERATION CODES
    0xa3 0x0d Get -,                     // REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
    0xa3 0x0e Get -,                     // REPORT PRIORITY
    0xa3 0x0f Get -,                     // REPORT TIMESTAMP
    0xa3 0x10 Act -,                     // MANAGEMENT PROTOCOL IN
    0xa3 0x1d Get -,                     // REPORT PROVISIONING INITIALIZATION PATTERN
    0xa4 0x0f Act SetTimestamp,          // SET TIMESTAMP
    0xa4 * Act MaintenanceOut,           // MAINTENANCE OUT ...
    0xa8 * Read -,                       // READ(12)
    0xaa * Write -,                      // WRITE(12)
    0xab 0x01 Get -,                     // READ MEDIA SERIAL NUMBER
    0xae * Write -,                      // WRITE AND VERIFY(12)
    0xaf * Read -,                       // VERIFY(12)
    0xb5 * Act SecurityProtocolOut,      // SECURITY PROTOCOL OUT
    0xb7 * Get -,                        // READ DEFECT DATA(12)
}
