//! What a reservation forbids whom (SPC-5 table 66, SBC-4 table 13).

use super::Reservations;
use crate::scsi::cdb::Cdb;
use crate::sim::ItNexus;

/// What a command does, as reservations see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Touch {
    /// Neither: it is served always.
    Nothing,
    /// It reads.
    Reads,
    /// It writes, or is as bad.
    Writes,
}

impl Touch {
    /// Of a command by its operation code, and by its service action or
    /// another byte where that matters. PERSISTENT RESERVE OUT is told by the
    /// registration whether it may be.
    pub(in crate::sim) fn of(cdb: &[u8]) -> Touch {
        let byte = |at: usize| cdb.get(at).copied().unwrap_or(0);
        match (byte(0), byte(1) & 0x1f) {
            // TEST UNIT READY, REQUEST SENSE, INQUIRY, READ CAPACITY(10),
            // PERSISTENT RESERVE IN and OUT, REPORT LUNS.
            (0x00 | 0x03 | 0x12 | 0x25 | 0x5e | 0x5f | 0xa0, _) => Touch::Nothing,
            // READ CAPACITY(16), REPORT TARGET PORT GROUPS.
            (0x9e, 0x10) | (0xa3, 0x0a) => Touch::Nothing,
            // START STOP UNIT that starts.
            (0x1b, _) if byte(4) & 0xf1 == 0x01 => Touch::Nothing,
            // READ.
            (0x08 | 0x28 | 0x88 | 0xa8, _) => Touch::Reads,
            // MODE SENSE, VERIFY, PRE-FETCH.
            (0x1a | 0x5a | 0x2f | 0x8f | 0xaf | 0x34 | 0x90, _) => Touch::Reads,
            // GET LBA STATUS; REPORT SUPPORTED OPERATION CODES, TASK
            // MANAGEMENT FUNCTIONS.
            (0x9e, 0x12) | (0xa3, 0x0c | 0x0d) => Touch::Reads,
            _ => Touch::Writes,
        }
    }
}

impl Reservations {
    /// Whether a command that a nexus sends ends with RESERVATION CONFLICT.
    pub fn forbids(&self, nexus: ItNexus, cdb: &Cdb) -> bool {
        let Some(held) = self.held else { return false };
        let forbidden = match Touch::of(cdb.as_slice()) {
            Touch::Nothing => false,
            Touch::Reads => !held.kind.lets_read(),
            Touch::Writes => true,
        };
        let registered = || held.kind.is_of_registrants() && self.key_of(nexus).is_some();
        forbidden && !self.is_held_by(nexus) && !registered()
    }
}
