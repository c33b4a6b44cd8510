//! Operation codes and their names (SPC-5 annex F, SBC-4 5.1).
//!
//! The table names more commands than we build or answer: events and traces
//! name whatever a guest sent.

pub(super) const TEST_UNIT_READY: u8 = 0x00;
pub(super) const REQUEST_SENSE: u8 = 0x03;
pub(super) const INQUIRY: u8 = 0x12;
pub(super) const MODE_SENSE_6: u8 = 0x1a;
pub(super) const READ_CAPACITY_10: u8 = 0x25;
pub(super) const READ_10: u8 = 0x28;
pub(super) const WRITE_10: u8 = 0x2a;
pub(super) const SYNCHRONIZE_CACHE_10: u8 = 0x35;
pub(super) const UNMAP: u8 = 0x42;
pub(super) const MODE_SENSE_10: u8 = 0x5a;
pub(super) const READ_16: u8 = 0x88;
pub(super) const WRITE_16: u8 = 0x8a;
pub(super) const SYNCHRONIZE_CACHE_16: u8 = 0x91;
pub(super) const WRITE_SAME_16: u8 = 0x93;
pub(super) const SERVICE_ACTION_IN_16: u8 = 0x9e;
pub(super) const SA_READ_CAPACITY_16: u8 = 0x10;
pub(super) const REPORT_LUNS: u8 = 0xa0;

/// Commands told apart by a service action (low five bits of byte 1).
const SERVICE_ACTIONS: &[(u8, u8, &str)] = &[
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
    (0x9e, 0x10, "READ CAPACITY(16)"),
    (0x9e, 0x12, "GET LBA STATUS(16)"),
    (0xa3, 0x05, "REPORT IDENTIFYING INFORMATION"),
    (0xa3, 0x0a, "REPORT TARGET PORT GROUPS"),
    (0xa3, 0x0c, "REPORT SUPPORTED OPERATION CODES"),
    (0xa3, 0x0d, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS"),
    (0xa4, 0x0a, "SET TARGET PORT GROUPS"),
];

const OPCODES: &[(u8, &str)] = &[
    (TEST_UNIT_READY, "TEST UNIT READY"),
    (REQUEST_SENSE, "REQUEST SENSE"),
    (0x04, "FORMAT UNIT"),
    (0x07, "REASSIGN BLOCKS"),
    (0x08, "READ(6)"),
    (0x0a, "WRITE(6)"),
    (INQUIRY, "INQUIRY"),
    (0x15, "MODE SELECT(6)"),
    (0x16, "RESERVE(6)"),
    (0x17, "RELEASE(6)"),
    (MODE_SENSE_6, "MODE SENSE(6)"),
    (0x1b, "START STOP UNIT"),
    (0x1c, "RECEIVE DIAGNOSTIC RESULTS"),
    (0x1d, "SEND DIAGNOSTIC"),
    (0x1e, "PREVENT ALLOW MEDIUM REMOVAL"),
    (READ_CAPACITY_10, "READ CAPACITY(10)"),
    (READ_10, "READ(10)"),
    (WRITE_10, "WRITE(10)"),
    (0x2e, "WRITE AND VERIFY(10)"),
    (0x2f, "VERIFY(10)"),
    (0x34, "PRE-FETCH(10)"),
    (SYNCHRONIZE_CACHE_10, "SYNCHRONIZE CACHE(10)"),
    (0x37, "READ DEFECT DATA(10)"),
    (0x3b, "WRITE BUFFER"),
    (0x3c, "READ BUFFER(10)"),
    (0x3e, "READ LONG(10)"),
    (0x41, "WRITE SAME(10)"),
    (UNMAP, "UNMAP"),
    (0x48, "SANITIZE"),
    (0x4c, "LOG SELECT"),
    (0x4d, "LOG SENSE"),
    (0x55, "MODE SELECT(10)"),
    (MODE_SENSE_10, "MODE SENSE(10)"),
    (0x5e, "PERSISTENT RESERVE IN"),
    (0x5f, "PERSISTENT RESERVE OUT"),
    (0x7f, "variable-length command"),
    (0x83, "EXTENDED COPY"),
    (0x84, "RECEIVE COPY RESULTS"),
    (0x85, "ATA PASS-THROUGH(16)"),
    (READ_16, "READ(16)"),
    (0x89, "COMPARE AND WRITE"),
    (WRITE_16, "WRITE(16)"),
    (0x8b, "ORWRITE(16)"),
    (0x8e, "WRITE AND VERIFY(16)"),
    (0x8f, "VERIFY(16)"),
    (0x90, "PRE-FETCH(16)"),
    (SYNCHRONIZE_CACHE_16, "SYNCHRONIZE CACHE(16)"),
    (WRITE_SAME_16, "WRITE SAME(16)"),
    (0x94, "ZBC OUT"),
    (0x95, "ZBC IN"),
    (0x9c, "WRITE ATOMIC(16)"),
    (SERVICE_ACTION_IN_16, "SERVICE ACTION IN(16)"),
    (0x9f, "SERVICE ACTION OUT(16)"),
    (REPORT_LUNS, "REPORT LUNS"),
    (0xa1, "ATA PASS-THROUGH(12)"),
    (0xa3, "MAINTENANCE IN"),
    (0xa4, "MAINTENANCE OUT"),
    (0xa8, "READ(12)"),
    (0xaa, "WRITE(12)"),
    (0xae, "WRITE AND VERIFY(12)"),
    (0xaf, "VERIFY(12)"),
];

/// The standard's name of an operation code; `service_action` (low five bits
/// of CDB byte 1) matters only for the opcodes that have one.
pub fn name(opcode: u8, service_action: u8) -> Option<&'static str> {
    SERVICE_ACTIONS
        .iter()
        .find(|(op, sa, _)| (*op, *sa) == (opcode, service_action))
        .map(|(_, _, name)| *name)
        .or_else(|| OPCODES.iter().find(|(op, _)| *op == opcode).map(|(_, name)| *name))
}
