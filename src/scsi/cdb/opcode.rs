//! Operation codes and their names (SPC-5 annex F, SBC-4 5.1).
//!
//! The tables name more commands than we build or answer: events and traces
//! name whatever a guest sent. What is known about a command beside its name
//! stands in `scsi::command`.

use crate::scsi::be;

pub(super) const TEST_UNIT_READY: u8 = 0x00;
pub(super) const REQUEST_SENSE: u8 = 0x03;
pub(super) const INQUIRY: u8 = 0x12;
pub(super) const MODE_SELECT_6: u8 = 0x15;
pub(super) const MODE_SENSE_6: u8 = 0x1a;
pub(super) const READ_CAPACITY_10: u8 = 0x25;
pub(super) const READ_10: u8 = 0x28;
pub(super) const WRITE_10: u8 = 0x2a;
pub(super) const SYNCHRONIZE_CACHE_10: u8 = 0x35;
pub(super) const UNMAP: u8 = 0x42;
pub(super) const MODE_SELECT_10: u8 = 0x55;
pub(super) const MODE_SENSE_10: u8 = 0x5a;
pub(super) const READ_16: u8 = 0x88;
pub(super) const WRITE_16: u8 = 0x8a;
pub(super) const SYNCHRONIZE_CACHE_16: u8 = 0x91;
pub(super) const WRITE_SAME_16: u8 = 0x93;
pub(super) const SERVICE_ACTION_IN_16: u8 = 0x9e;
pub(super) const SA_READ_CAPACITY_16: u8 = 0x10;
pub(super) const REPORT_LUNS: u8 = 0xa0;
pub(super) const MAINTENANCE_IN: u8 = 0xa3;
pub(super) const SA_REPORT_TARGET_PORT_GROUPS: u8 = 0x0a;
pub(super) const MAINTENANCE_OUT: u8 = 0xa4;
pub(super) const SA_SET_TARGET_PORT_GROUPS: u8 = 0x0a;
const VARIABLE_LENGTH: u8 = 0x7f;

/// Commands told apart by a service action: the low five bits of byte 1, of a
/// variable-length CDB bytes 8 and 9.
const SERVICE_ACTIONS: &[(u8, u16, &str)] = &[
    (0x48, 0x01, "SANITIZE OVERWRITE"),
    (0x48, 0x02, "SANITIZE BLOCK ERASE"),
    (0x48, 0x03, "SANITIZE CRYPTOGRAPHIC ERASE"),
    (0x48, 0x1f, "SANITIZE EXIT FAILURE MODE"),
    (0x5e, 0x00, "PERSISTENT RESERVE IN READ KEYS"),
    (0x5e, 0x01, "PERSISTENT RESERVE IN READ RESERVATION"),
    (0x5e, 0x02, "PERSISTENT RESERVE IN REPORT CAPABILITIES"),
    (0x5e, 0x03, "PERSISTENT RESERVE IN READ FULL STATUS"),
    (0x5f, 0x00, "PERSISTENT RESERVE OUT REGISTER"),
    (0x5f, 0x01, "PERSISTENT RESERVE OUT RESERVE"),
    (0x5f, 0x02, "PERSISTENT RESERVE OUT RELEASE"),
    (0x5f, 0x03, "PERSISTENT RESERVE OUT CLEAR"),
    (0x5f, 0x04, "PERSISTENT RESERVE OUT PREEMPT"),
    (0x5f, 0x05, "PERSISTENT RESERVE OUT PREEMPT AND ABORT"),
    (0x5f, 0x06, "PERSISTENT RESERVE OUT REGISTER AND IGNORE EXISTING KEY"),
    (0x5f, 0x07, "PERSISTENT RESERVE OUT REGISTER AND MOVE"),
    (0x5f, 0x08, "PERSISTENT RESERVE OUT REPLACE LOST RESERVATION"),
    (0x83, 0x00, "EXTENDED COPY(LID1)"),
    (0x83, 0x01, "EXTENDED COPY(LID4)"),
    (0x83, 0x10, "POPULATE TOKEN"),
    (0x83, 0x11, "WRITE USING TOKEN"),
    (0x83, 0x1c, "COPY OPERATION ABORT"),
    (0x84, 0x00, "RECEIVE COPY STATUS(LID1)"),
    (0x84, 0x01, "RECEIVE COPY DATA(LID1)"),
    (0x84, 0x03, "RECEIVE COPY OPERATING PARAMETERS"),
    (0x84, 0x04, "RECEIVE COPY FAILURE DETAILS(LID1)"),
    (0x84, 0x05, "RECEIVE COPY STATUS(LID4)"),
    (0x84, 0x06, "RECEIVE COPY DATA(LID4)"),
    (0x84, 0x07, "RECEIVE ROD TOKEN INFORMATION"),
    (0x84, 0x08, "REPORT ALL ROD TOKENS"),
    (0x94, 0x01, "CLOSE ZONE"),
    (0x94, 0x02, "FINISH ZONE"),
    (0x94, 0x03, "OPEN ZONE"),
    (0x94, 0x04, "RESET WRITE POINTER"),
    (0x94, 0x10, "SEQUENTIALIZE ZONE"),
    (0x95, 0x00, "REPORT ZONES"),
    (0x95, 0x06, "REPORT REALMS"),
    (0x95, 0x07, "REPORT ZONE DOMAINS"),
    (0x95, 0x08, "ZONE ACTIVATE(16)"),
    (0x95, 0x09, "ZONE QUERY(16)"),
    (0x9e, 0x0f, "RECEIVE BINDING REPORT"),
    (0x9e, 0x10, "READ CAPACITY(16)"),
    (0x9e, 0x11, "READ LONG(16)"),
    (0x9e, 0x12, "GET LBA STATUS(16)"),
    (0x9e, 0x13, "REPORT REFERRALS"),
    (0x9e, 0x14, "STREAM CONTROL"),
    (0x9e, 0x15, "BACKGROUND CONTROL"),
    (0x9e, 0x16, "GET STREAM STATUS"),
    (0x9e, 0x17, "GET PHYSICAL ELEMENT STATUS"),
    (0x9e, 0x18, "REMOVE ELEMENT AND TRUNCATE"),
    (0x9e, 0x19, "RESTORE ELEMENTS AND REBUILD"),
    (0x9e, 0x1a, "REMOVE ELEMENT AND MODIFY ZONES"),
    (0x9f, 0x0b, "TEST BIND"),
    (0x9f, 0x0c, "PREPARE BINDING REPORT"),
    (0x9f, 0x0d, "SET AFFILIATION"),
    (0x9f, 0x0e, "BIND"),
    (0x9f, 0x0f, "UNBIND"),
    (0x9f, 0x11, "WRITE LONG(16)"),
    (0x9f, 0x12, "WRITE SCATTERED(16)"),
    (0xa3, 0x05, "REPORT IDENTIFYING INFORMATION"),
    (0xa3, 0x0a, "REPORT TARGET PORT GROUPS"),
    (0xa3, 0x0b, "REPORT ALIASES"),
    (0xa3, 0x0c, "REPORT SUPPORTED OPERATION CODES"),
    (0xa3, 0x0d, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS"),
    (0xa3, 0x0e, "REPORT PRIORITY"),
    (0xa3, 0x0f, "REPORT TIMESTAMP"),
    (0xa3, 0x10, "MANAGEMENT PROTOCOL IN"),
    (0xa3, 0x1d, "REPORT PROVISIONING INITIALIZATION PATTERN"),
    (0xa4, 0x06, "SET IDENTIFYING INFORMATION"),
    (0xa4, 0x0a, "SET TARGET PORT GROUPS"),
    (0xa4, 0x0b, "CHANGE ALIASES"),
    (0xa4, 0x0c, "REMOVE I_T NEXUS"),
    (0xa4, 0x0e, "SET PRIORITY"),
    (0xa4, 0x0f, "SET TIMESTAMP"),
    (0xa4, 0x10, "MANAGEMENT PROTOCOL OUT"),
    (0xab, 0x01, "READ MEDIA SERIAL NUMBER"),
    (0x7f, 0x0001, "REBUILD(32)"),
    (0x7f, 0x0002, "REGENERATE(32)"),
    (0x7f, 0x0003, "XDREAD(32)"),
    (0x7f, 0x0004, "XDWRITE(32)"),
    (0x7f, 0x0005, "XDWRITE EXTENDED(32)"),
    (0x7f, 0x0006, "XPWRITE(32)"),
    (0x7f, 0x0007, "XDWRITEREAD(32)"),
    (0x7f, 0x0008, "XDWRITE EXTENDED(64)"),
    (0x7f, 0x0009, "READ(32)"),
    (0x7f, 0x000a, "VERIFY(32)"),
    (0x7f, 0x000b, "WRITE(32)"),
    (0x7f, 0x000c, "WRITE AND VERIFY(32)"),
    (0x7f, 0x000d, "WRITE SAME(32)"),
    (0x7f, 0x000e, "ORWRITE(32)"),
    (0x7f, 0x000f, "WRITE ATOMIC(32)"),
    (0x7f, 0x0010, "WRITE STREAM(32)"),
    (0x7f, 0x0011, "WRITE SCATTERED(32)"),
    (0x7f, 0x0012, "GET LBA STATUS(32)"),
    (0x7f, 0x1800, "RECEIVE CREDENTIAL"),
    (0x7f, 0x1ff0, "ATA PASS-THROUGH(32)"),
];

const OPCODES: &[(u8, &str)] = &[
    (TEST_UNIT_READY, "TEST UNIT READY"),
    (0x01, "REZERO UNIT"),
    (REQUEST_SENSE, "REQUEST SENSE"),
    (0x04, "FORMAT UNIT"),
    (0x07, "REASSIGN BLOCKS"),
    (0x08, "READ(6)"),
    (0x0a, "WRITE(6)"),
    (0x0b, "SEEK(6)"),
    (INQUIRY, "INQUIRY"),
    (MODE_SELECT_6, "MODE SELECT(6)"),
    (0x16, "RESERVE(6)"),
    (0x17, "RELEASE(6)"),
    (0x18, "COPY"),
    (MODE_SENSE_6, "MODE SENSE(6)"),
    (0x1b, "START STOP UNIT"),
    (0x1c, "RECEIVE DIAGNOSTIC RESULTS"),
    (0x1d, "SEND DIAGNOSTIC"),
    (0x1e, "PREVENT ALLOW MEDIUM REMOVAL"),
    (READ_CAPACITY_10, "READ CAPACITY(10)"),
    (READ_10, "READ(10)"),
    (WRITE_10, "WRITE(10)"),
    (0x2b, "SEEK(10)"),
    (0x2e, "WRITE AND VERIFY(10)"),
    (0x2f, "VERIFY(10)"),
    (0x33, "SET LIMITS(10)"),
    (0x34, "PRE-FETCH(10)"),
    (SYNCHRONIZE_CACHE_10, "SYNCHRONIZE CACHE(10)"),
    (0x36, "LOCK UNLOCK CACHE(10)"),
    (0x37, "READ DEFECT DATA(10)"),
    (0x38, "FORMAT WITH PRESET"),
    (0x39, "COMPARE"),
    (0x3a, "COPY AND VERIFY"),
    (0x3b, "WRITE BUFFER"),
    (0x3c, "READ BUFFER(10)"),
    (0x3d, "UPDATE BLOCK"),
    (0x3e, "READ LONG(10)"),
    (0x3f, "WRITE LONG(10)"),
    (0x40, "CHANGE DEFINITION"),
    (0x41, "WRITE SAME(10)"),
    (UNMAP, "UNMAP"),
    (0x48, "SANITIZE"),
    (0x4c, "LOG SELECT"),
    (0x4d, "LOG SENSE"),
    (0x50, "XDWRITE(10)"),
    (0x51, "XPWRITE(10)"),
    (0x52, "XDREAD(10)"),
    (0x53, "XDWRITEREAD(10)"),
    (MODE_SELECT_10, "MODE SELECT(10)"),
    (0x56, "RESERVE(10)"),
    (0x57, "RELEASE(10)"),
    (MODE_SENSE_10, "MODE SENSE(10)"),
    (0x5e, "PERSISTENT RESERVE IN"),
    (0x5f, "PERSISTENT RESERVE OUT"),
    (0x7e, "extended CDB"),
    (VARIABLE_LENGTH, "variable-length command"),
    (0x80, "XDWRITE EXTENDED(16)"),
    (0x81, "REBUILD(16)"),
    (0x82, "REGENERATE(16)"),
    (0x83, "EXTENDED COPY"),
    (0x84, "RECEIVE COPY RESULTS"),
    (0x85, "ATA PASS-THROUGH(16)"),
    (0x86, "ACCESS CONTROL IN"),
    (0x87, "ACCESS CONTROL OUT"),
    (READ_16, "READ(16)"),
    (0x89, "COMPARE AND WRITE"),
    (WRITE_16, "WRITE(16)"),
    (0x8b, "ORWRITE(16)"),
    (0x8c, "READ ATTRIBUTE"),
    (0x8d, "WRITE ATTRIBUTE"),
    (0x8e, "WRITE AND VERIFY(16)"),
    (0x8f, "VERIFY(16)"),
    (0x90, "PRE-FETCH(16)"),
    (SYNCHRONIZE_CACHE_16, "SYNCHRONIZE CACHE(16)"),
    (0x92, "LOCK UNLOCK CACHE(16)"),
    (WRITE_SAME_16, "WRITE SAME(16)"),
    (0x94, "ZBC OUT"),
    (0x95, "ZBC IN"),
    (0x9a, "WRITE STREAM(16)"),
    (0x9b, "READ BUFFER(16)"),
    (0x9c, "WRITE ATOMIC(16)"),
    (0x9d, "SERVICE ACTION BIDIRECTIONAL"),
    (SERVICE_ACTION_IN_16, "SERVICE ACTION IN(16)"),
    (0x9f, "SERVICE ACTION OUT(16)"),
    (REPORT_LUNS, "REPORT LUNS"),
    (0xa1, "ATA PASS-THROUGH(12)"),
    (0xa2, "SECURITY PROTOCOL IN"),
    (MAINTENANCE_IN, "MAINTENANCE IN"),
    (MAINTENANCE_OUT, "MAINTENANCE OUT"),
    (0xa8, "READ(12)"),
    (0xa9, "SERVICE ACTION OUT(12)"),
    (0xaa, "WRITE(12)"),
    (0xab, "SERVICE ACTION IN(12)"),
    (0xae, "WRITE AND VERIFY(12)"),
    (0xaf, "VERIFY(12)"),
    (0xb3, "SET LIMITS(12)"),
    (0xb5, "SECURITY PROTOCOL OUT"),
    (0xb7, "READ DEFECT DATA(12)"),
];

/// The standard's name of an operation code; `service_action` (low five bits
/// of CDB byte 1; bytes 8 and 9 of a variable-length CDB) matters only for the
/// opcodes that have one.
pub fn name(opcode: u8, service_action: u16) -> Option<&'static str> {
    SERVICE_ACTIONS
        .iter()
        .find(|(op, sa, _)| (*op, *sa) == (opcode, service_action))
        .map(|(_, _, name)| *name)
        .or_else(|| OPCODES.iter().find(|(op, _)| *op == opcode).map(|(_, name)| *name))
}

/// The name of the command in `cdb`; `None` also for an empty one.
pub(super) fn name_of(cdb: &[u8]) -> Option<&'static str> {
    let opcode = *cdb.first()?;
    let low = u16::from(cdb.get(1).copied().unwrap_or(0) & 0x1f);
    let service_action = match opcode {
        // Too short for the field: no service action has this value.
        VARIABLE_LENGTH => be::u16_at(cdb, 8).unwrap_or(u16::MAX),
        _ => low,
    };
    name(opcode, service_action)
}
