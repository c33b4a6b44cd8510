//! Command descriptor blocks of the disk commands: build and decode.
//!
//! A [`Cdb`] is the bytes only; it carries no data and no policy (which
//! opcodes a guest may send is not decided here). Builders are used by the
//! transports and the checkers, [`Cdb::decode`] by the simulated array.
//! SPC-5 6 (INQUIRY, MODE SENSE, REPORT LUNS, REQUEST SENSE, TEST UNIT READY)
//! and SBC-4 5 (the rest).

use std::fmt;

use thiserror::Error;

use super::be;
use crate::scsi::block::{Direction, Extent, Op};

mod decode;
mod opcode;

pub use decode::{Decoded, Malformed, ModeSense};
pub use opcode::name as opcode_name;

#[cfg(test)]
mod tests;

/// Longest CDB carried: the 32 bytes of the variable-length commands, which is
/// also what virtio-scsi carries by default. We build none beyond 16.
pub const CDB_MAX: usize = 32;

/// A command descriptor block.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cdb {
    bytes: [u8; CDB_MAX],
    len: u8,
}

/// What accompanies the CDB of an [`Op`] on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// No data.
    None,
    /// Data-in: the command's segments.
    In,
    /// Data-out: the command's segments.
    Out,
    /// Data-out: the extents as an UNMAP parameter list (`unmap::encode`).
    UnmapList,
    /// Data-out: one logical block of zeroes.
    ZeroBlock,
}

/// Why an operation has no CDB. Always a bug of the caller, which splits
/// requests to the map's limits first; never a path's verdict (law 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unencodable {
    /// A block count does not fit the CDB's 32 bits.
    #[error("{0} blocks do not fit one command")]
    TooLong(u64),
    /// Zero blocks would mean "to the end of the LU" in WRITE SAME.
    #[error("WRITE SAME of zero blocks would mean the rest of the LU")]
    EmptyWriteSame,
    /// An UNMAP without extents, or with more than a parameter list holds.
    #[error("{0} extents do not fit one UNMAP")]
    Extents(usize),
}

impl Cdb {
    /// A CDB of 1 to [`CDB_MAX`] bytes; `None` for any other length.
    pub fn from_bytes(raw: &[u8]) -> Option<Cdb> {
        if raw.is_empty() || raw.len() > CDB_MAX {
            return None;
        }
        let mut bytes = [0; CDB_MAX];
        bytes[..raw.len()].copy_from_slice(raw);
        Some(Cdb { bytes, len: u8::try_from(raw.len()).ok()? })
    }

    /// The bytes to send.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The operation code.
    pub fn opcode(&self) -> u8 {
        self.bytes[0]
    }

    /// Name of the command, e.g. `READ(10)`; service actions are told apart.
    pub fn name(&self) -> Option<&'static str> {
        opcode::name_of(self.as_slice())
    }

    /// TEST UNIT READY.
    pub fn test_unit_ready() -> Cdb {
        Cdb::six(opcode::TEST_UNIT_READY)
    }

    /// REQUEST SENSE, fixed format.
    pub fn request_sense(allocation: u8) -> Cdb {
        Cdb::six(opcode::REQUEST_SENSE).with(4, [allocation])
    }

    /// INQUIRY: standard data, or the VPD `page`.
    pub fn inquiry(page: Option<u8>, allocation: u16) -> Cdb {
        let evpd = u8::from(page.is_some());
        Cdb::six(opcode::INQUIRY)
            .with(1, [evpd, page.unwrap_or(0)])
            .with(3, allocation.to_be_bytes())
    }

    /// MODE SENSE(6), current values, block descriptors allowed.
    pub fn mode_sense_6(page: u8, allocation: u8) -> Cdb {
        Cdb::six(opcode::MODE_SENSE_6).with(2, [page & 0x3f]).with(4, [allocation])
    }

    /// MODE SENSE(10), current values, block descriptors allowed.
    pub fn mode_sense_10(page: u8, allocation: u16) -> Cdb {
        Cdb::of(opcode::MODE_SENSE_10, 10).with(2, [page & 0x3f]).with(7, allocation.to_be_bytes())
    }

    /// MODE SENSE(10) without block descriptors; `control` is PC: 0 current, 1
    /// changeable, 2 default, 3 saved values.
    pub fn mode_sense_10_values(control: u8, page: u8, allocation: u16) -> Cdb {
        Cdb::of(opcode::MODE_SENSE_10, 10)
            .with(1, [0x08, (control & 0x03) << 6 | page & 0x3f])
            .with(7, allocation.to_be_bytes())
    }

    /// MODE SELECT(6), not saved. `page_format`: PF, the list is pages as the
    /// standard has them.
    pub fn mode_select_6(page_format: bool, list_len: u8) -> Cdb {
        Cdb::six(opcode::MODE_SELECT_6).with(1, [u8::from(page_format) << 4]).with(4, [list_len])
    }

    /// MODE SELECT(10). `page_format`: PF; `save`: SP, the values outlive a
    /// reset.
    pub fn mode_select_10(page_format: bool, save: bool, list_len: u16) -> Cdb {
        Cdb::of(opcode::MODE_SELECT_10, 10)
            .with(1, [u8::from(page_format) << 4 | u8::from(save)])
            .with(7, list_len.to_be_bytes())
    }

    /// READ CAPACITY(10).
    pub fn read_capacity_10() -> Cdb {
        Cdb::of(opcode::READ_CAPACITY_10, 10)
    }

    /// READ CAPACITY(16).
    pub fn read_capacity_16(allocation: u32) -> Cdb {
        Cdb::of(opcode::SERVICE_ACTION_IN_16, 16)
            .with(1, [opcode::SA_READ_CAPACITY_16])
            .with(10, allocation.to_be_bytes())
    }

    /// REPORT LUNS, addressable logical units (SELECT REPORT 00h).
    pub fn report_luns(allocation: u32) -> Cdb {
        Cdb::of(opcode::REPORT_LUNS, 12).with(6, allocation.to_be_bytes())
    }

    /// REPORT TARGET PORT GROUPS; `extended`: with the extended header, which
    /// older LUs refuse.
    pub fn report_target_port_groups(extended: bool, allocation: u32) -> Cdb {
        let format = u8::from(extended) << 5;
        Cdb::of(opcode::MAINTENANCE_IN, 12)
            .with(1, [format | opcode::SA_REPORT_TARGET_PORT_GROUPS])
            .with(6, allocation.to_be_bytes())
    }

    /// SET TARGET PORT GROUPS with a parameter list of `list_len` bytes.
    pub fn set_target_port_groups(list_len: u32) -> Cdb {
        Cdb::of(opcode::MAINTENANCE_OUT, 12)
            .with(1, [opcode::SA_SET_TARGET_PORT_GROUPS])
            .with(6, list_len.to_be_bytes())
    }

    /// PERSISTENT RESERVE IN, see [`reservation`](super::reservation).
    pub(super) fn persistent_reserve_in(action: u8, allocation: u16) -> Cdb {
        Cdb::of(super::reservation::IN, 10).with(1, [action]).with(7, allocation.to_be_bytes())
    }

    /// PERSISTENT RESERVE OUT with a parameter list of `list_len` bytes.
    pub(super) fn persistent_reserve_out(action: u8, scope_and_type: u8, list_len: u32) -> Cdb {
        Cdb::of(super::reservation::OUT, 10)
            .with(1, [action, scope_and_type])
            .with(5, list_len.to_be_bytes())
    }

    /// READ(10) where LBA and length fit it, else READ(16).
    pub fn read(extent: Extent) -> Result<Cdb, Unencodable> {
        Cdb::transfer(opcode::READ_10, opcode::READ_16, extent, 0)
    }

    /// WRITE(10) where LBA and length fit it, else WRITE(16).
    pub fn write(extent: Extent, fua: bool) -> Result<Cdb, Unencodable> {
        Cdb::transfer(opcode::WRITE_10, opcode::WRITE_16, extent, u8::from(fua) << 3)
    }

    /// READ(16) whatever the LBA.
    pub fn read_16(extent: Extent) -> Result<Cdb, Unencodable> {
        Cdb::sixteen(opcode::READ_16, extent, 0)
    }

    /// WRITE(16) whatever the LBA.
    pub fn write_16(extent: Extent, fua: bool) -> Result<Cdb, Unencodable> {
        Cdb::sixteen(opcode::WRITE_16, extent, u8::from(fua) << 3)
    }

    /// SYNCHRONIZE CACHE(10) of the whole LU; returns when done (IMMED=0).
    pub fn synchronize_cache_10() -> Cdb {
        Cdb::of(opcode::SYNCHRONIZE_CACHE_10, 10)
    }

    /// SYNCHRONIZE CACHE(16) of the whole LU, for LUs that lack the (10).
    pub fn synchronize_cache_16() -> Cdb {
        Cdb::of(opcode::SYNCHRONIZE_CACHE_16, 16)
    }

    /// UNMAP with a parameter list of `parameter_list_len` bytes.
    pub fn unmap(parameter_list_len: u16) -> Cdb {
        Cdb::of(opcode::UNMAP, 10).with(7, parameter_list_len.to_be_bytes())
    }

    /// WRITE SAME(16). With `ndob` no data-out is sent and the LU writes
    /// zeroes; older LUs refuse it.
    pub fn write_same_16(extent: Extent, unmap: bool, ndob: bool) -> Result<Cdb, Unencodable> {
        if extent.blocks.0 == 0 {
            return Err(Unencodable::EmptyWriteSame);
        }
        Cdb::sixteen(opcode::WRITE_SAME_16, extent, u8::from(unmap) << 3 | u8::from(ndob))
    }

    /// The CDB for `op`, and what to send with it. `extents` are those of an
    /// [`Op::Unmap`] and ignored otherwise.
    ///
    /// Zeroes go as WRITE SAME(16) with one block of zeroes (NDOB=0), which is
    /// what the widest range of arrays accepts.
    ///
    /// # Errors
    /// When the operation does not fit one command; see [`Unencodable`].
    pub fn from_op(op: &Op, extents: &[Extent]) -> Result<(Cdb, Payload), Unencodable> {
        Ok(match *op {
            Op::Read(extent) => (Cdb::read(extent)?, Payload::In),
            Op::Write { extent, fua } => (Cdb::write(extent, fua)?, Payload::Out),
            Op::Flush => (Cdb::synchronize_cache_10(), Payload::None),
            Op::Cdb { cdb, direction } => {
                let payload = match direction {
                    Direction::None => Payload::None,
                    Direction::In => Payload::In,
                    Direction::Out => Payload::Out,
                };
                (cdb, payload)
            }
            Op::Unmap => {
                let len = super::unmap::list_len(extents.len())
                    .filter(|_| !extents.is_empty())
                    .ok_or(Unencodable::Extents(extents.len()))?;
                for extent in extents {
                    block_count(*extent)?;
                }
                (Cdb::unmap(len), Payload::UnmapList)
            }
            Op::WriteZeroes { extent, unmap } => {
                (Cdb::write_same_16(extent, unmap, false)?, Payload::ZeroBlock)
            }
        })
    }

    fn six(opcode: u8) -> Cdb {
        Cdb::of(opcode, 6)
    }

    fn of(opcode: u8, len: u8) -> Cdb {
        Cdb { bytes: [0; CDB_MAX], len }.with(0, [opcode])
    }

    fn with<const N: usize>(mut self, offset: usize, field: [u8; N]) -> Cdb {
        be::put(&mut self.bytes, offset, field);
        self
    }

    fn transfer(ten: u8, sixteen: u8, extent: Extent, flags: u8) -> Result<Cdb, Unencodable> {
        match (u32::try_from(extent.lba.0), u16::try_from(extent.blocks.0)) {
            (Ok(lba), Ok(blocks)) => Ok(Cdb::of(ten, 10)
                .with(1, [flags])
                .with(2, lba.to_be_bytes())
                .with(7, blocks.to_be_bytes())),
            _ => Cdb::sixteen(sixteen, extent, flags),
        }
    }

    fn sixteen(opcode: u8, extent: Extent, flags: u8) -> Result<Cdb, Unencodable> {
        let blocks = block_count(extent)?;
        Ok(Cdb::of(opcode, 16)
            .with(1, [flags])
            .with(2, extent.lba.0.to_be_bytes())
            .with(10, blocks.to_be_bytes()))
    }
}

fn block_count(extent: Extent) -> Result<u32, Unencodable> {
    u32::try_from(extent.blocks.0).map_err(|_| Unencodable::TooLong(extent.blocks.0))
}

impl fmt::Debug for Cdb {
    /// `READ(10) 28 00 00 …`, the form logs and events use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("(unknown)"))?;
        self.as_slice().iter().try_for_each(|b| write!(f, " {b:02x}"))
    }
}
