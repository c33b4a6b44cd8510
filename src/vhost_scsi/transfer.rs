//! How much data a guest's command moves, and which way, read off its CDB
//! (SPC-5 6, SBC-4 5).
//!
//! Needed because a virtio-scsi chain has buffers of its own length: where the
//! CDB wants more than they hold the answer is OVERRUN, where it wants less
//! the rest is residual, and neither is for a path to find out (law 4). Only
//! numbers: whether a command may be sent at all is `scsi::command`'s, and
//! whether its fields are right is the LU's word. Pure.

use crate::scsi::cdb::{CDB_MAX, Cdb};
use crate::scsi::command;

/// What a command moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// No data.
    None,
    /// From the LU, exactly so many bytes.
    In(u64),
    /// To the LU, exactly so many bytes.
    Out(u64),
    /// From the LU, so many bytes and more: blocks with protection information
    /// are longer than we know.
    InAtLeast(u64),
    /// The same to the LU.
    OutAtLeast(u64),
    /// From the LU, at most what this field of the CDB says (SPC-5 4.2.5.6,
    /// allocation length): a shorter buffer only gets less.
    Allocated(Field),
    /// The CDB does not say, or we do not know it: as much as the guest's
    /// buffers hold.
    Unknown,
}

/// A big-endian field of a CDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    at: u8,
    width: u8,
}

impl Field {
    const fn new(at: u8, width: u8) -> Field {
        Field { at, width }
    }

    fn range(self) -> std::ops::Range<usize> {
        usize::from(self.at)..usize::from(self.at) + usize::from(self.width)
    }

    /// Its value; bytes the CDB does not have read as zero.
    pub(super) fn get(self, cdb: &Cdb) -> u64 {
        let raw = cdb.as_slice();
        self.range().fold(0, |value, at| value << 8 | u64::from(raw.get(at).copied().unwrap_or(0)))
    }

    /// The CDB with another value, cut to the largest the field holds.
    pub(super) fn set(self, cdb: &Cdb, value: u64) -> Cdb {
        let len = cdb.as_slice().len();
        let mut raw = [0; CDB_MAX];
        raw[..len].copy_from_slice(cdb.as_slice());
        let value = value.min(self.largest()).to_be_bytes();
        if let Some(place) = raw[..len].get_mut(self.range()) {
            place.copy_from_slice(&value[value.len() - usize::from(self.width)..]);
        }
        Cdb::from_bytes(&raw[..len]).unwrap_or(*cdb)
    }

    pub(super) fn largest(self) -> u64 {
        (1 << (8 * u32::from(self.width))) - 1
    }
}

/// A command's length field by kind; most commands need no more.
#[derive(Clone, Copy)]
enum Kind {
    Nothing,
    /// Fixed number of bytes from the LU.
    Fixed(u64),
    /// Allocation length in bytes.
    Allocation(Field),
    /// Bytes from the LU.
    BytesIn(Field),
    /// Bytes to the LU: parameter list length.
    List(Field),
    /// Logical blocks from and to the LU.
    BlocksIn(Field),
    BlocksOut(Field),
    /// Twice as many logical blocks to the LU.
    BlocksOutTwice(Field),
    /// One logical block to the LU.
    OneBlockOut,
    /// VERIFY: by BYTCHK in this byte.
    Verify(u8, Field),
    /// WRITE SAME: nothing with NDOB, bit 0 of this byte.
    WriteSame(u8),
    /// In units of 512 bytes with INC_512.
    Security(Direction),
    /// WRITE LONG: nothing with WR_UNCOR.
    WriteLong(Field),
    /// FORMAT UNIT: nothing without FMTDATA.
    Format,
}

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

const fn field(at: u8, width: u8) -> Field {
    Field::new(at, width)
}

/// Rows that are not here move [`Transfer::Unknown`].
fn kind(cdb: &Cdb) -> Option<Kind> {
    use Kind::*;
    let action = command::service_action(cdb);
    Some(match (cdb.opcode(), action) {
        // TEST UNIT READY, RESERVE and RELEASE, START STOP UNIT, PREVENT
        // ALLOW, PRE-FETCH, SYNCHRONIZE CACHE, ZBC OUT.
        (0x00 | 0x16 | 0x17 | 0x1b | 0x1e | 0x34 | 0x35 | 0x57 | 0x90 | 0x91 | 0x94, _) => Nothing,
        (0x03, _) => Allocation(field(4, 1)), // REQUEST SENSE
        (0x04, _) => Format,
        (0x08, _) => BlocksIn(field(4, 1)),
        (0x0a, _) => BlocksOut(field(4, 1)),
        (0x12, _) => Allocation(field(3, 2)), // INQUIRY
        (0x15, _) => List(field(4, 1)),       // MODE SELECT(6)
        (0x1a, _) => Allocation(field(4, 1)), // MODE SENSE(6)
        (0x1c, _) => Allocation(field(3, 2)), // RECEIVE DIAGNOSTIC RESULTS
        (0x1d, _) => List(field(3, 2)),       // SEND DIAGNOSTIC
        (0x25, _) => Fixed(8),                // READ CAPACITY(10)
        (0x28, _) => BlocksIn(field(7, 2)),
        (0x2a | 0x2e, _) => BlocksOut(field(7, 2)),
        (0x2f, _) => Verify(1, field(7, 2)),
        (0x37, _) => Allocation(field(7, 2)), // READ DEFECT DATA(10)
        (0x3b, _) => List(field(6, 3)),       // WRITE BUFFER
        (0x3c, _) => Allocation(field(6, 3)), // READ BUFFER(10)
        (0x3e, _) => BytesIn(field(7, 2)),    // READ LONG(10)
        (0x3f, _) => WriteLong(field(7, 2)),
        (0x41, _) => OneBlockOut, // WRITE SAME(10)
        // UNMAP, SANITIZE, LOG SELECT, MODE SELECT(10), RESERVE(10).
        (0x42 | 0x48 | 0x4c | 0x55 | 0x56, _) => List(field(7, 2)),
        // LOG SENSE, MODE SENSE(10), PERSISTENT RESERVE IN.
        (0x4d | 0x5a | 0x5e, _) => Allocation(field(7, 2)),
        (0x5f, _) => List(field(5, 4)), // PERSISTENT RESERVE OUT
        (0x7f, Some(action)) => variable_length(action)?,
        // EXTENDED COPY, ACCESS CONTROL OUT, WRITE ATTRIBUTE.
        (0x83 | 0x87 | 0x8d, _) => List(field(10, 4)),
        // RECEIVE COPY RESULTS, ACCESS CONTROL IN, READ ATTRIBUTE, ZBC IN,
        // READ BUFFER(16).
        (0x84 | 0x86 | 0x8c | 0x95 | 0x9b, _) => Allocation(field(10, 4)),
        (0x88, _) => BlocksIn(field(10, 4)),
        (0x89, _) => BlocksOutTwice(field(13, 1)), // COMPARE AND WRITE
        (0x8a | 0x8b | 0x8e, _) => BlocksOut(field(10, 4)),
        (0x8f, _) => Verify(1, field(10, 4)),
        (0x93, _) => WriteSame(1),
        (0x9a | 0x9c, _) => BlocksOut(field(12, 2)), // WRITE STREAM, WRITE ATOMIC
        // READ CAPACITY(16), GET LBA STATUS, REPORT REFERRALS, STREAM
        // CONTROL, GET STREAM STATUS, GET PHYSICAL ELEMENT STATUS.
        (0x9e, Some(0x10 | 0x12..=0x14 | 0x16 | 0x17)) => Allocation(field(10, 4)),
        (0x9e, Some(0x11)) => BytesIn(field(12, 2)), // READ LONG(16)
        (0x9e, Some(0x15)) => Nothing,               // BACKGROUND CONTROL
        (0x9f, Some(0x11)) => WriteLong(field(12, 2)),
        // REPORT LUNS, MAINTENANCE IN, SERVICE ACTION IN(12), READ DEFECT
        // DATA(12).
        (0xa0 | 0xa3 | 0xab | 0xb7, _) => Allocation(field(6, 4)),
        (0xa2, _) => Security(Direction::In),
        (0xa4, _) => List(field(6, 4)), // MAINTENANCE OUT
        (0xa8, _) => BlocksIn(field(6, 4)),
        (0xaa | 0xae, _) => BlocksOut(field(6, 4)),
        (0xaf, _) => Verify(1, field(6, 4)),
        (0xb5, _) => Security(Direction::Out),
        _ => return None,
    })
}

fn variable_length(action: u16) -> Option<Kind> {
    Some(match action {
        0x0009 => Kind::BlocksIn(field(28, 4)),
        0x000a => Kind::Verify(10, field(28, 4)),
        // WRITE, WRITE AND VERIFY, ORWRITE.
        0x000b | 0x000c | 0x000e => Kind::BlocksOut(field(28, 4)),
        0x000d => Kind::WriteSame(10),
        _ => return None,
    })
}

/// What `cdb` moves on a LU with blocks of `block_size` bytes.
pub(super) fn transfer(cdb: &Cdb, block_size: u32) -> Transfer {
    let Some(kind) = kind(cdb) else { return Transfer::Unknown };
    let byte = |at: u8| cdb.as_slice().get(usize::from(at)).copied().unwrap_or(0);
    let blocks = |count: u64| count * u64::from(block_size);
    let count = |field: Field| match (cdb.opcode(), field.get(cdb)) {
        (0x08 | 0x0a, 0) => 256, // SBC-4 5.11: READ(6), WRITE(6)
        (_, count) => count,
    };
    let transfer = match kind {
        Kind::Nothing => Transfer::None,
        Kind::Fixed(len) => Transfer::In(len),
        Kind::Allocation(field) => Transfer::Allocated(field),
        Kind::BytesIn(field) => Transfer::In(field.get(cdb)),
        Kind::List(field) => Transfer::Out(field.get(cdb)),
        Kind::BlocksIn(field) => Transfer::In(blocks(count(field))),
        Kind::BlocksOut(field) => Transfer::Out(blocks(count(field))),
        Kind::BlocksOutTwice(field) => Transfer::Out(blocks(2 * field.get(cdb))),
        Kind::OneBlockOut => Transfer::Out(blocks(1)),
        Kind::Verify(at, field) => match byte(at) >> 1 & 0x03 {
            0 => Transfer::None,
            1 => Transfer::Out(blocks(field.get(cdb))),
            3 if field.get(cdb) == 0 => Transfer::None,
            3 => Transfer::Out(blocks(1)),
            _ => Transfer::Unknown, // reserved: the LU will say so
        },
        Kind::WriteSame(at) if byte(at) & 0x01 != 0 => Transfer::None,
        Kind::WriteSame(_) => Transfer::Out(blocks(1)),
        Kind::Security(direction) => security(cdb, direction, byte(4) & 0x80 != 0),
        Kind::WriteLong(_) if byte(1) & 0x40 != 0 => Transfer::None,
        Kind::WriteLong(field) => Transfer::Out(field.get(cdb)),
        Kind::Format if byte(1) & 0x10 == 0 => Transfer::None,
        Kind::Format => Transfer::Unknown,
    };
    match transfer {
        Transfer::In(len) if len > 0 && is_protected(cdb, kind) => Transfer::InAtLeast(len),
        Transfer::Out(len) if len > 0 && is_protected(cdb, kind) => Transfer::OutAtLeast(len),
        other => other,
    }
}

/// RDPROTECT, WRPROTECT, VRPROTECT, ORPROTECT: the blocks go with protection
/// information.
fn is_protected(cdb: &Cdb, kind: Kind) -> bool {
    let at = match (cdb.opcode(), kind) {
        // The bits above the 21-bit LBA of READ(6) and WRITE(6) are reserved.
        (0x08 | 0x0a, _) => return false,
        (0x7f, _) => 10,
        (_, Kind::BlocksIn(_) | Kind::BlocksOut(_) | Kind::BlocksOutTwice(_)) => 1,
        (_, Kind::OneBlockOut | Kind::Verify(..) | Kind::WriteSame(_)) => 1,
        _ => return false,
    };
    cdb.as_slice().get(at).is_some_and(|byte| byte >> 5 != 0)
}

/// SECURITY PROTOCOL IN and OUT (SPC-5 6.40, 6.41). An allocation length in
/// units of 512 bytes cannot be lowered to a buffer's length: exact, then.
fn security(cdb: &Cdb, direction: Direction, inc_512: bool) -> Transfer {
    let field = field(6, 4);
    match (direction, inc_512) {
        (Direction::In, false) => Transfer::Allocated(field),
        (Direction::In, true) => Transfer::In(512 * field.get(cdb)),
        (Direction::Out, false) => Transfer::Out(field.get(cdb)),
        (Direction::Out, true) => Transfer::Out(512 * field.get(cdb)),
    }
}

#[cfg(test)]
mod tests;
