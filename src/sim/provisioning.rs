//! Commands of thin provisioning (SBC-4 4.7): UNMAP, WRITE SAME, GET LBA
//! STATUS.

use super::answer::{Answer, Call, Failure, Outcome, Refusal, Share, wrong_field};
use super::lu::{Lu, write_failure};
use crate::io::Extent;
use crate::scsi::sense::SenseCode;
use crate::scsi::unmap;

/// Bytes written at a time by WRITE SAME of a pattern.
const PATTERN_BYTES: u64 = 1 << 20;

impl Lu {
    /// UNMAP.
    pub(super) fn unmap(&mut self, call: &Call<'_>) -> Outcome {
        self.unprotected()?;
        let len = call.length_16(7);
        let list = call.announced(len)?;
        if list.is_empty() {
            return Ok(Answer::taken(0)); // SBC-4 5.32.1: not an error
        }
        let extents = unmap::parse(list).map_err(|_| SenseCode::PARAMETER_LIST_LENGTH_ERROR)?;
        let blocks: u64 = extents.iter().map(|extent| extent.blocks.0).sum();
        if extents.len() as u64 > u64::from(self.config.max_unmap_descriptors)
            || blocks > u64::from(self.config.max_unmap_blocks)
        {
            return Err(SenseCode::INVALID_FIELD_IN_PARAMETER_LIST.into());
        }
        // All descriptors are checked before the first takes effect.
        extents.iter().try_for_each(|extent| self.in_range(*extent))?;
        for extent in extents {
            let (granules, _) = self.split_at_granules(extent);
            self.zero(granules, true)?;
        }
        self.settle(false)?;
        Ok(Answer::taken(len))
    }

    /// WRITE SAME(10) and (16).
    pub(super) fn write_same(&mut self, call: &Call<'_>) -> Outcome {
        let extent = call.extent();
        let unmap = call.flag(1, 0x08);
        let ndob = call.cdb.len() == 16 && call.flag(1, 0x01);
        let limit = self.config.max_write_same_blocks;
        if unmap && !self.config.thin {
            return Err(wrong_field(1, Some(3)));
        }
        // WSNZ is set: zero blocks do not mean the rest of the LU.
        if extent.blocks.0 == 0 || limit != 0 && extent.blocks.0 > limit {
            return Err(wrong_field(if call.cdb.len() == 16 { 10 } else { 7 }, None));
        }
        self.in_range(extent)?;
        self.writable(extent)?;
        let taken = if ndob { 0 } else { self.block_len() };
        // Another amount than one block means that the initiator is mistaken
        // about what would be repeated.
        if call.data_out.len() != taken {
            return Err(wrong_field(1, None));
        }
        let block = call.announced(taken)?;
        let part = match call.share {
            Share::Whole => extent,
            Share::FirstHalf => Extent::new(extent.lba.0, extent.blocks.0 / 2),
        };
        if block.iter().any(|byte| *byte != 0) {
            self.fill(part, block)?;
        } else if unmap {
            let (granules, edges) = self.split_at_granules(part);
            self.zero(granules, true)?;
            edges.into_iter().try_for_each(|edge| self.zero(edge, false))?;
        } else {
            self.zero(part, false)?;
        }
        self.settle(false)?;
        Ok(Answer::taken(taken))
    }

    /// GET LBA STATUS(16): as many runs as there is room for, one at least.
    pub(super) fn get_lba_status(&mut self, call: &Call<'_>) -> Outcome {
        let first = call.u64_at(2);
        if first >= self.config.blocks {
            return Err(Refusal::about(SenseCode::LBA_OUT_OF_RANGE, first).into());
        }
        if call.byte(14) != 0 {
            return Err(wrong_field(14, None)); // REPORT TYPE: all LBAs only
        }
        let allocation = call.length_32(10);
        let most = (allocation.min(call.room).saturating_sub(8) / 16).max(1);
        let mut data = vec![0; 8];
        let mut lba = first;
        for _ in 0..most {
            if lba >= self.config.blocks {
                break;
            }
            let (mapped, blocks) = self.run_at(lba)?;
            data.extend(lba.to_be_bytes());
            data.extend(blocks.to_be_bytes());
            data.extend([u8::from(!mapped), 0, 0, 0]);
            lba += u64::from(blocks);
        }
        let len = u32::try_from(data.len() - 4).unwrap_or(u32::MAX);
        data[..4].copy_from_slice(&len.to_be_bytes());
        Ok(Answer::data(data, allocation))
    }

    /// Whether the block at `lba` is mapped, and for how many it is the same.
    fn run_at(&mut self, lba: u64) -> Result<(bool, u32), Failure> {
        let left = (self.config.blocks - lba).min(u64::from(u32::MAX));
        if !self.config.thin {
            return Ok((true, u32::try_from(left).unwrap_or(u32::MAX)));
        }
        let (offset, len) = (self.offset(lba), self.offset(left));
        let (mapped, bytes) =
            self.medium.mapped(offset, len).map_err(|_| SenseCode::UNRECOVERED_READ_ERROR)?;
        let block = u64::from(self.config.block_size);
        // A block is unmapped only if all of it is.
        let (mapped, blocks) = match bytes / block {
            _ if mapped => (true, bytes.div_ceil(block)),
            0 => (true, 1),
            whole => (false, whole),
        };
        Ok((mapped, u32::try_from(blocks.clamp(1, left)).unwrap_or(u32::MAX)))
    }

    /// The granules wholly within `extent`, and what is before and after.
    fn split_at_granules(&self, extent: Extent) -> (Extent, [Extent; 2]) {
        let size = u64::from(self.config.unmap_granularity.max(1));
        let phase = u64::from(self.config.unmap_alignment) % size;
        let (start, end) = (extent.lba.0, extent.lba.0 + extent.blocks.0);
        // Distance from the start of the granule.
        let into = |lba: u64| (lba % size + size - phase) % size;
        let first = start.saturating_add((size - into(start)) % size).min(end);
        let last = end.saturating_sub(into(end)).max(first);
        let run = |from: u64, to: u64| Extent::new(from, to - from);
        (run(first, last), [run(start, first), run(last, end)])
    }

    fn zero(&mut self, extent: Extent, deallocate: bool) -> Result<(), Failure> {
        if extent.blocks.0 == 0 {
            return Ok(());
        }
        let (offset, len) = (self.offset(extent.lba.0), self.offset(extent.blocks.0));
        self.medium.zero(offset, len, deallocate).map_err(write_failure)
    }

    /// Repeats `block` over `extent`.
    fn fill(&mut self, extent: Extent, block: &[u8]) -> Result<(), Failure> {
        let (mut at, mut left) = (self.offset(extent.lba.0), self.offset(extent.blocks.0));
        let longest = left.min(PATTERN_BYTES.max(block.len() as u64));
        let repeats = usize::try_from(longest).unwrap_or(0) / block.len();
        let pattern = block.repeat(repeats);
        while left > 0 {
            let len = pattern.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.medium.write_at(at, &pattern[..len]).map_err(write_failure)?;
            at += len as u64;
            left -= len as u64;
        }
        Ok(())
    }
}
