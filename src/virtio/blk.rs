//! Wire formats of the virtio block device (virtio 1.3, 5.2).
//!
//! Request header, range segments, status codes, feature bits and the
//! configuration space, as values with `encode` and `decode`. No guest memory
//! and no judgement: which request is acceptable is decided in
//! `vhost_blk::front`. Numbers and field offsets come from the kernel's
//! header by way of `virtio-bindings`. No thread owns it.

use std::mem::offset_of;

use virtio_bindings::bindings::virtio_blk as sys;
use virtio_bindings::bindings::virtio_blk::virtio_blk_config as Layout;

use super::Feature;

/// Bytes of a *sector*, the unit of every position and length on the wire
/// (virtio 1.3, 5.2.4), whatever the logical block size is.
pub const SECTOR_SIZE: u32 = 512;

/// `seg_max` is valid.
pub const F_SEG_MAX: u64 = 1 << sys::VIRTIO_BLK_F_SEG_MAX;
/// The device is read-only.
pub const F_RO: u64 = 1 << sys::VIRTIO_BLK_F_RO;
/// `blk_size` is valid.
pub const F_BLK_SIZE: u64 = 1 << sys::VIRTIO_BLK_F_BLK_SIZE;
/// FLUSH works; a driver that does not take it gets write-through.
pub const F_FLUSH: u64 = 1 << sys::VIRTIO_BLK_F_FLUSH;
/// The topology fields are valid.
pub const F_TOPOLOGY: u64 = 1 << sys::VIRTIO_BLK_F_TOPOLOGY;
/// The driver may switch `writeback`.
pub const F_CONFIG_WCE: u64 = 1 << sys::VIRTIO_BLK_F_CONFIG_WCE;
/// Several queues; `num_queues` is valid.
pub const F_MQ: u64 = 1 << sys::VIRTIO_BLK_F_MQ;
/// DISCARD works.
pub const F_DISCARD: u64 = 1 << sys::VIRTIO_BLK_F_DISCARD;
/// WRITE_ZEROES works.
pub const F_WRITE_ZEROES: u64 = 1 << sys::VIRTIO_BLK_F_WRITE_ZEROES;

/// Every bit of the device type we may offer, with its name.
pub const FEATURES: &[Feature] = &[
    Feature { mask: F_SEG_MAX, name: "SEG_MAX" },
    Feature { mask: F_RO, name: "RO" },
    Feature { mask: F_BLK_SIZE, name: "BLK_SIZE" },
    Feature { mask: F_FLUSH, name: "FLUSH" },
    Feature { mask: F_TOPOLOGY, name: "TOPOLOGY" },
    Feature { mask: F_CONFIG_WCE, name: "CONFIG_WCE" },
    Feature { mask: F_MQ, name: "MQ" },
    Feature { mask: F_DISCARD, name: "DISCARD" },
    Feature { mask: F_WRITE_ZEROES, name: "WRITE_ZEROES" },
];

/// Bytes of the request header.
pub const HEADER_LEN: usize = 16;

/// Bytes of the device ID string of GET_ID.
pub const ID_LEN: usize = sys::VIRTIO_BLK_ID_BYTES as usize;

/// Bytes of one segment of DISCARD and WRITE_ZEROES.
pub const SEGMENT_LEN: usize = 16;

/// The `unmap` bit of [`RangeSegment::flags`]; all others are reserved.
pub const SEGMENT_F_UNMAP: u32 = sys::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

/// The request types we know; everything else is answered UNSUPP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestType {
    /// Read.
    In,
    /// Write.
    Out,
    /// Make completed writes durable.
    Flush,
    /// Read the device ID string.
    GetId,
    /// Deallocate ranges.
    Discard,
    /// Zero ranges.
    WriteZeroes,
}

impl RequestType {
    /// From the header's `type`; `None` for unknown, legacy, zoned and secure
    /// erase types.
    pub const fn from_wire(wire: u32) -> Option<RequestType> {
        match wire {
            sys::VIRTIO_BLK_T_IN => Some(RequestType::In),
            sys::VIRTIO_BLK_T_OUT => Some(RequestType::Out),
            sys::VIRTIO_BLK_T_FLUSH => Some(RequestType::Flush),
            sys::VIRTIO_BLK_T_GET_ID => Some(RequestType::GetId),
            sys::VIRTIO_BLK_T_DISCARD => Some(RequestType::Discard),
            sys::VIRTIO_BLK_T_WRITE_ZEROES => Some(RequestType::WriteZeroes),
            _ => None,
        }
    }

    /// The header's `type`.
    pub const fn to_wire(self) -> u32 {
        match self {
            RequestType::In => sys::VIRTIO_BLK_T_IN,
            RequestType::Out => sys::VIRTIO_BLK_T_OUT,
            RequestType::Flush => sys::VIRTIO_BLK_T_FLUSH,
            RequestType::GetId => sys::VIRTIO_BLK_T_GET_ID,
            RequestType::Discard => sys::VIRTIO_BLK_T_DISCARD,
            RequestType::WriteZeroes => sys::VIRTIO_BLK_T_WRITE_ZEROES,
        }
    }
}

/// The status byte that ends every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BlkStatus {
    /// VIRTIO_BLK_S_OK.
    Ok = 0,
    /// VIRTIO_BLK_S_IOERR.
    IoErr = 1,
    /// VIRTIO_BLK_S_UNSUPP.
    Unsupp = 2,
}

/// The first 16 bytes of a request (virtio 1.3, 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Request type, unchecked.
    pub kind: u32,
    /// First sector, for IN and OUT.
    pub sector: u64,
}

impl RequestHeader {
    /// Decodes; the reserved word (once the priority) is ignored.
    pub fn decode(raw: &[u8; HEADER_LEN]) -> RequestHeader {
        RequestHeader { kind: le32(raw, 0), sector: le64(raw, 8) }
    }

    /// Encodes, as a driver would.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut raw = [0; HEADER_LEN];
        raw[0..4].copy_from_slice(&self.kind.to_le_bytes());
        raw[8..16].copy_from_slice(&self.sector.to_le_bytes());
        raw
    }
}

/// One range of DISCARD or WRITE_ZEROES
/// (`struct virtio_blk_discard_write_zeroes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeSegment {
    /// First sector.
    pub sector: u64,
    /// Length in sectors.
    pub num_sectors: u32,
    /// [`SEGMENT_F_UNMAP`] and reserved bits, unchecked.
    pub flags: u32,
}

impl RangeSegment {
    /// Decodes.
    pub fn decode(raw: &[u8; SEGMENT_LEN]) -> RangeSegment {
        RangeSegment { sector: le64(raw, 0), num_sectors: le32(raw, 8), flags: le32(raw, 12) }
    }

    /// Encodes, as a driver would.
    pub fn encode(&self) -> [u8; SEGMENT_LEN] {
        let mut raw = [0; SEGMENT_LEN];
        raw[0..8].copy_from_slice(&self.sector.to_le_bytes());
        raw[8..12].copy_from_slice(&self.num_sectors.to_le_bytes());
        raw[12..16].copy_from_slice(&self.flags.to_le_bytes());
        raw
    }
}

/// Bytes of the configuration space we fill: up to and including the
/// WRITE_ZEROES fields and their padding.
pub const CONFIG_LEN: usize = offset_of!(Layout, max_secure_erase_sectors);

/// Offset of the only writable byte, `writeback`.
pub const CONFIG_WRITEBACK: usize = offset_of!(Layout, wce);

/// The device configuration (virtio 1.3, 5.2.4), less the fields of features
/// that are never offered (they read as zero).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlkConfig {
    /// Capacity in sectors.
    pub capacity: u64,
    /// Most data segments of one request.
    pub seg_max: u32,
    /// Logical block size in bytes.
    pub blk_size: u32,
    /// log2 of logical blocks per physical block.
    pub physical_block_exp: u8,
    /// First logical block that starts a physical block.
    pub alignment_offset: u8,
    /// Suggested minimum I/O in logical blocks.
    pub min_io_size: u16,
    /// Suggested maximum I/O in logical blocks.
    pub opt_io_size: u32,
    /// 1: write-back, 0: write-through.
    pub writeback: u8,
    /// Request queues.
    pub num_queues: u16,
    /// Most sectors of one DISCARD segment.
    pub max_discard_sectors: u32,
    /// Most segments of one DISCARD.
    pub max_discard_seg: u32,
    /// Alignment of DISCARD, in sectors.
    pub discard_sector_alignment: u32,
    /// Most sectors of one WRITE_ZEROES segment.
    pub max_write_zeroes_sectors: u32,
    /// Most segments of one WRITE_ZEROES.
    pub max_write_zeroes_seg: u32,
    /// 1: WRITE_ZEROES with `unmap` may deallocate.
    pub write_zeroes_may_unmap: u8,
}

impl BlkConfig {
    /// The bytes as the driver reads them.
    pub fn encode(&self) -> [u8; CONFIG_LEN] {
        let mut raw = [0; CONFIG_LEN];
        let mut put = |offset: usize, bytes: &[u8]| {
            raw[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(offset_of!(Layout, capacity), &self.capacity.to_le_bytes());
        put(offset_of!(Layout, seg_max), &self.seg_max.to_le_bytes());
        put(offset_of!(Layout, blk_size), &self.blk_size.to_le_bytes());
        put(offset_of!(Layout, physical_block_exp), &[self.physical_block_exp]);
        put(offset_of!(Layout, alignment_offset), &[self.alignment_offset]);
        put(offset_of!(Layout, min_io_size), &self.min_io_size.to_le_bytes());
        put(offset_of!(Layout, opt_io_size), &self.opt_io_size.to_le_bytes());
        put(CONFIG_WRITEBACK, &[self.writeback]);
        put(offset_of!(Layout, num_queues), &self.num_queues.to_le_bytes());
        put(offset_of!(Layout, max_discard_sectors), &self.max_discard_sectors.to_le_bytes());
        put(offset_of!(Layout, max_discard_seg), &self.max_discard_seg.to_le_bytes());
        put(
            offset_of!(Layout, discard_sector_alignment),
            &self.discard_sector_alignment.to_le_bytes(),
        );
        put(
            offset_of!(Layout, max_write_zeroes_sectors),
            &self.max_write_zeroes_sectors.to_le_bytes(),
        );
        put(offset_of!(Layout, max_write_zeroes_seg), &self.max_write_zeroes_seg.to_le_bytes());
        put(offset_of!(Layout, write_zeroes_may_unmap), &[self.write_zeroes_may_unmap]);
        raw
    }
}

fn le32(raw: &[u8; 16], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&raw[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn le64(raw: &[u8; 16], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&raw[at..at + 8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests;
