//! VPD pages of a disk: Block Limits (B0h), Block Device Characteristics
//! (B1h), Logical Block Provisioning (B2h); SBC-4 6.6.
//!
//! All counts are in logical blocks. Fields beyond the end of a short page
//! (older standards) read as zero, which everywhere means "not reported".

use super::{BLOCK_CHARACTERISTICS, BLOCK_LIMITS, PROVISIONING, body, page};
use crate::scsi::be;

/// Length of the bodies of B0h and B1h since SBC-3.
const BODY_LEN: usize = 0x3c;

/// Block Limits page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockLimits {
    /// WSNZ: WRITE SAME of zero blocks is refused.
    pub write_same_non_zero: bool,
    /// Most blocks of one COMPARE AND WRITE; 0 = not supported.
    pub max_compare_and_write: u8,
    /// Optimal transfer length granularity; 0 = unknown.
    pub optimal_granularity: u16,
    /// Longest transfer of one command; 0 = no limit stated.
    pub max_transfer: u32,
    /// Optimal transfer length; 0 = unknown.
    pub optimal_transfer: u32,
    /// Most blocks of one UNMAP; 0 = no UNMAP, FFFFFFFFh = no limit.
    pub max_unmap: u32,
    /// Most descriptors of one UNMAP; 0 = no UNMAP, FFFFFFFFh = no limit.
    pub max_unmap_descriptors: u32,
    /// Optimal UNMAP granularity; 0 = unknown.
    pub unmap_granularity: u32,
    /// First LBA that starts a granule, where the LU says so (UGAVALID).
    pub unmap_alignment: Option<u32>,
    /// Most blocks of one WRITE SAME; 0 = no limit stated.
    pub max_write_same: u64,
}

/// Block Device Characteristics page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCharacteristics {
    /// Rotation rate: 0 = unknown, 1 = solid state, else revolutions/minute.
    pub rotation_rate: u16,
    /// ZONED field: 0 = not reported, 1 = host-aware, 2 = device-managed.
    pub zoned: u8,
}

/// Logical Block Provisioning page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provisioning {
    /// Threshold set size exponent; 0 = thresholds not supported.
    pub threshold_exponent: u8,
    /// LBPU: UNMAP works.
    pub unmap: bool,
    /// LBPWS: WRITE SAME(16) with UNMAP works.
    pub write_same_16: bool,
    /// LBPWS10: WRITE SAME(10) with UNMAP works.
    pub write_same_10: bool,
    /// LBPRZ (3 bits): 1 = unmapped blocks read as zeroes.
    pub reads_zero: u8,
    /// ANC_SUP: anchored state.
    pub anchor: bool,
    /// PROVISIONING TYPE: 0 = not reported, 1 = resource, 2 = thin.
    pub kind: u8,
}

/// Zero where a short page has no such field.
fn be32(body: &[u8], offset: usize) -> u32 {
    be::u32_at(body, offset).unwrap_or(0)
}

impl BlockLimits {
    /// Reads page B0h; `None` if it is not that page or shorter than SBC-2's.
    pub fn parse(page: &[u8]) -> Option<BlockLimits> {
        // Offsets in the body are four less than in the standard's tables.
        let body = body(page, BLOCK_LIMITS).filter(|body| body.len() >= 12)?;
        let alignment = be32(body, 28);
        Some(BlockLimits {
            write_same_non_zero: body[0] & 0x01 != 0,
            max_compare_and_write: body[1],
            optimal_granularity: be::u16_at(body, 2)?,
            max_transfer: be32(body, 4),
            optimal_transfer: be32(body, 8),
            max_unmap: be32(body, 16),
            max_unmap_descriptors: be32(body, 20),
            unmap_granularity: be32(body, 24),
            unmap_alignment: (alignment >> 31 != 0).then_some(alignment & 0x7fff_ffff),
            max_write_same: be::u64_at(body, 32).unwrap_or(0),
        })
    }

    /// Page B0h.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = [0; BODY_LEN];
        body[0] = u8::from(self.write_same_non_zero);
        body[1] = self.max_compare_and_write;
        be::put(&mut body, 2, self.optimal_granularity.to_be_bytes());
        be::put(&mut body, 4, self.max_transfer.to_be_bytes());
        be::put(&mut body, 8, self.optimal_transfer.to_be_bytes());
        be::put(&mut body, 16, self.max_unmap.to_be_bytes());
        be::put(&mut body, 20, self.max_unmap_descriptors.to_be_bytes());
        be::put(&mut body, 24, self.unmap_granularity.to_be_bytes());
        let alignment = self.unmap_alignment.map_or(0, |lba| 1 << 31 | lba & 0x7fff_ffff);
        be::put(&mut body, 28, alignment.to_be_bytes());
        be::put(&mut body, 32, self.max_write_same.to_be_bytes());
        page(BLOCK_LIMITS, &body)
    }
}

impl BlockCharacteristics {
    /// Reads page B1h; `None` if it is not that page or has no rotation rate.
    pub fn parse(page: &[u8]) -> Option<BlockCharacteristics> {
        let body = body(page, BLOCK_CHARACTERISTICS)?;
        Some(BlockCharacteristics {
            rotation_rate: be::u16_at(body, 0)?,
            zoned: body.get(4).map_or(0, |b| b >> 4 & 0x03),
        })
    }

    /// Page B1h.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = [0; BODY_LEN];
        be::put(&mut body, 0, self.rotation_rate.to_be_bytes());
        body[4] = (self.zoned & 0x03) << 4;
        page(BLOCK_CHARACTERISTICS, &body)
    }
}

impl Provisioning {
    /// Reads page B2h; `None` if it is not that page or has no flags.
    pub fn parse(page: &[u8]) -> Option<Provisioning> {
        let body = body(page, PROVISIONING)?;
        let flags = *body.get(1)?;
        Some(Provisioning {
            threshold_exponent: body[0],
            unmap: flags & 0x80 != 0,
            write_same_16: flags & 0x40 != 0,
            write_same_10: flags & 0x20 != 0,
            reads_zero: flags >> 2 & 0x07,
            anchor: flags & 0x02 != 0,
            kind: body.get(2).map_or(0, |b| b & 0x07),
        })
    }

    /// Page B2h, without a provisioning group descriptor.
    pub fn encode(&self) -> Vec<u8> {
        let flags = u8::from(self.unmap) << 7
            | u8::from(self.write_same_16) << 6
            | u8::from(self.write_same_10) << 5
            | (self.reads_zero & 0x07) << 2
            | u8::from(self.anchor) << 1;
        page(PROVISIONING, &[self.threshold_exponent, flags, self.kind & 0x07, 0])
    }
}
