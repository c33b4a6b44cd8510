//! The logical unit: executes one command on the medium at once.
//!
//! Knows nothing of paths, faults or time. Commands that describe the LU are
//! answered in [`super::report`]; here are those that touch its blocks
//! (SBC-4 5).

use std::io;

use super::{Medium, Task};
use crate::io::{Blocks, Extent};
use crate::scsi::cdb::{Decoded, Malformed};
use crate::scsi::sense::{Key, Sense, SenseCode};
use crate::scsi::unmap;

const INVALID_OPCODE: SenseCode = SenseCode::new(Key::IllegalRequest, 0x20, 0x00);
const LBA_OUT_OF_RANGE: SenseCode = SenseCode::new(Key::IllegalRequest, 0x21, 0x00);
pub(super) const INVALID_FIELD: SenseCode = SenseCode::new(Key::IllegalRequest, 0x24, 0x00);
const INVALID_PARAMETER: SenseCode = SenseCode::new(Key::IllegalRequest, 0x26, 0x00);
const PARAMETER_LENGTH: SenseCode = SenseCode::new(Key::IllegalRequest, 0x1a, 0x00);
const WRITE_PROTECTED: SenseCode = SenseCode::new(Key::DataProtect, 0x27, 0x00);
const NO_SPACE: SenseCode = SenseCode::new(Key::DataProtect, 0x27, 0x07);
const READ_ERROR: SenseCode = SenseCode::new(Key::MediumError, 0x11, 0x00);
const WRITE_ERROR: SenseCode = SenseCode::new(Key::MediumError, 0x0c, 0x00);

/// Bytes written at a time by WRITE SAME of a pattern.
const PATTERN_BYTES: u64 = 1 << 20;

/// What the LU is. Counts are in logical blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LuConfig {
    /// NAA designator of the LU; the high nibble of the first byte must be 6
    /// (IEEE Registered Extended) for initiators to take it as its WWID.
    pub wwid_naa: [u8; 16],
    /// Unit serial number (VPD 80h), ASCII.
    pub serial: String,
    /// T10 vendor, at most 8 characters.
    pub vendor: String,
    /// Product, at most 16 characters.
    pub product: String,
    /// Revision, at most 4 characters.
    pub revision: String,
    /// Logical block length in bytes; not zero.
    pub block_size: u32,
    /// log2 of logical blocks per physical block, below 16.
    pub physical_block_exp: u8,
    /// Capacity.
    pub blocks: u64,
    /// Thin provisioned: UNMAP and WRITE SAME with UNMAP work, unmapped
    /// blocks read as zeroes (LBPME, LBPU, LBPWS, LBPRZ).
    pub thin: bool,
    /// WCE: a volatile write cache is reported. DPOFUA is reported always,
    /// FUA and SYNCHRONIZE CACHE are obeyed always.
    pub write_cache: bool,
    /// Longest READ or WRITE (VPD B0h); 0 = no limit.
    pub max_transfer_blocks: u32,
    /// Most blocks of one UNMAP; 0 = UNMAP is not implemented.
    pub max_unmap_blocks: u32,
    /// Most descriptors of one UNMAP; 0 = UNMAP is not implemented.
    pub max_unmap_descriptors: u32,
    /// UNMAP deallocates whole granules of this size only; 0 counts as 1.
    pub unmap_granularity: u32,
    /// First LBA that starts a granule.
    pub unmap_alignment: u32,
    /// Most blocks of one WRITE SAME; 0 = no limit.
    pub max_write_same_blocks: u64,
    /// Writes are refused.
    pub read_only: bool,
}

impl Default for LuConfig {
    /// A thin 64 MiB disk of 512-byte blocks with a write cache.
    fn default() -> LuConfig {
        LuConfig {
            wwid_naa: [0x60, 0x00, 0x00, 0x00, 0x00, 0x73, 0x69, 0x6d, 0, 0, 0, 0, 0, 0, 0, 0x01],
            serial: "sim0001".to_owned(),
            vendor: "VHOSTMP".to_owned(),
            product: "simulated disk".to_owned(),
            revision: "1".to_owned(),
            block_size: 512,
            physical_block_exp: 3,
            blocks: 128 * 1024,
            thin: true,
            write_cache: true,
            max_transfer_blocks: 2048,
            max_unmap_blocks: 0x40_0000,
            max_unmap_descriptors: 256,
            unmap_granularity: 1,
            unmap_alignment: 0,
            max_write_same_blocks: 0x1_0000,
            read_only: false,
        }
    }
}

impl LuConfig {
    /// Whether UNMAP is implemented.
    pub fn unmaps(&self) -> bool {
        self.thin && self.max_unmap_blocks > 0 && self.max_unmap_descriptors > 0
    }
}

/// How much of a write is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Whole,
    /// The first half of the blocks, rounded down.
    FirstHalf,
}

/// The LU's answer to a command.
#[derive(Debug)]
pub(super) enum Answer {
    Good {
        data_in: Vec<u8>,
        /// Bytes of data-out used.
        taken: usize,
    },
    Sense(Sense),
    /// The CDB announces more data than the initiator has, or has room for.
    Overrun,
}

impl Answer {
    pub(super) fn sense(code: SenseCode) -> Answer {
        Answer::Sense(Sense::fixed(code))
    }

    /// Parameter data cut to the allocation length.
    pub(super) fn data(mut data: Vec<u8>, allocation: usize) -> Answer {
        data.truncate(allocation);
        Answer::Good { data_in: data, taken: 0 }
    }

    fn taken(taken: usize) -> Answer {
        Answer::Good { data_in: Vec::new(), taken }
    }
}

impl From<SenseCode> for Answer {
    fn from(code: SenseCode) -> Answer {
        Answer::sense(code)
    }
}

/// The logical unit.
pub(super) struct Lu {
    pub(super) config: LuConfig,
    medium: Box<dyn Medium>,
}

impl Lu {
    pub(super) fn new(config: LuConfig, medium: Box<dyn Medium>) -> Lu {
        Lu { config, medium }
    }

    /// Executes the task's command, received through target port `port`.
    pub(super) fn execute(&mut self, port: u16, task: &Task, share: Share) -> Answer {
        let decoded = match task.cdb.decode() {
            Ok(decoded) => decoded,
            Err(Malformed::Opcode) => return INVALID_OPCODE.into(),
            Err(Malformed::Field) => return INVALID_FIELD.into(),
        };
        let result = match decoded {
            Decoded::Read(extent) => self.read(task, extent),
            Decoded::Write { extent, fua } => self.write(task, extent, fua, share),
            Decoded::SynchronizeCache(extent) => self.synchronize(extent),
            Decoded::Unmap { list_len } => self.unmap(task, list_len),
            Decoded::WriteSame { extent, unmap, ndob } => {
                self.write_same(task, extent, unmap, ndob, share)
            }
            describing => return self.describe(port, &describing),
        };
        result.unwrap_or_else(|refusal| refusal)
    }

    fn read(&mut self, task: &Task, extent: Extent) -> Result<Answer, Answer> {
        let len = self.transfer_len(extent)?;
        if task.data_in_max < len {
            return Err(Answer::Overrun);
        }
        let mut data_in = vec![0; len];
        let offset = self.offset(extent.lba.0);
        self.medium.read_at(offset, &mut data_in).map_err(|_| Answer::from(READ_ERROR))?;
        Ok(Answer::Good { data_in, taken: 0 })
    }

    fn write(
        &mut self,
        task: &Task,
        extent: Extent,
        fua: bool,
        share: Share,
    ) -> Result<Answer, Answer> {
        let len = self.transfer_len(extent)?;
        self.writable()?;
        let data = task.data_out.get(..len).ok_or(Answer::Overrun)?;
        let part = match share {
            Share::Whole => len,
            Share::FirstHalf => len / 2 / self.block_len() * self.block_len(),
        };
        let offset = self.offset(extent.lba.0);
        self.medium.write_at(offset, &data[..part]).map_err(write_failure)?;
        if fua {
            self.medium.sync().map_err(write_failure)?;
        }
        Ok(Answer::taken(len))
    }

    fn synchronize(&mut self, extent: Extent) -> Result<Answer, Answer> {
        self.in_range(extent)?;
        self.medium.sync().map_err(write_failure)?;
        Ok(Answer::taken(0))
    }

    fn unmap(&mut self, task: &Task, list_len: usize) -> Result<Answer, Answer> {
        if !self.config.unmaps() {
            return Err(INVALID_OPCODE.into());
        }
        self.writable()?;
        let list = task.data_out.get(..list_len).ok_or(Answer::Overrun)?;
        if list.is_empty() {
            return Ok(Answer::taken(0)); // SBC-4 5.32.1: not an error
        }
        let extents = unmap::parse(list).map_err(|_| Answer::from(PARAMETER_LENGTH))?;
        let blocks: u64 = extents.iter().map(|extent| extent.blocks.0).sum();
        if extents.len() as u64 > u64::from(self.config.max_unmap_descriptors)
            || blocks > u64::from(self.config.max_unmap_blocks)
        {
            return Err(INVALID_PARAMETER.into());
        }
        // All descriptors are checked before the first takes effect.
        extents.iter().try_for_each(|extent| self.in_range(*extent))?;
        for extent in extents {
            let (granules, _) = self.split_at_granules(extent);
            self.zero(granules, true)?;
        }
        Ok(Answer::taken(list_len))
    }

    fn write_same(
        &mut self,
        task: &Task,
        extent: Extent,
        unmap: bool,
        ndob: bool,
        share: Share,
    ) -> Result<Answer, Answer> {
        let limit = self.config.max_write_same_blocks;
        if extent.blocks.0 == 0 // WSNZ is set
            || limit != 0 && extent.blocks.0 > limit
            || unmap && !self.config.thin
        {
            return Err(INVALID_FIELD.into());
        }
        self.in_range(extent)?;
        self.writable()?;
        let taken = if ndob { 0 } else { self.block_len() };
        let block = task.data_out.get(..taken).ok_or(Answer::Overrun)?;
        let part = match share {
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
        Ok(Answer::taken(taken))
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

    fn zero(&mut self, extent: Extent, deallocate: bool) -> Result<(), Answer> {
        if extent.blocks.0 == 0 {
            return Ok(());
        }
        let (offset, len) = (self.offset(extent.lba.0), self.offset(extent.blocks.0));
        self.medium.zero(offset, len, deallocate).map_err(write_failure)
    }

    /// Repeats `block` over `extent`.
    fn fill(&mut self, extent: Extent, block: &[u8]) -> Result<(), Answer> {
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

    /// Bytes a READ or WRITE of `extent` moves, if the LU takes it.
    fn transfer_len(&self, extent: Extent) -> Result<usize, Answer> {
        self.in_range(extent)?;
        let limit = u64::from(self.config.max_transfer_blocks);
        if limit != 0 && extent.blocks.0 > limit {
            return Err(INVALID_FIELD.into());
        }
        usize::try_from(self.offset(extent.blocks.0)).map_err(|_| INVALID_FIELD.into())
    }

    fn in_range(&self, extent: Extent) -> Result<(), Answer> {
        let within = extent.within(Blocks(self.config.blocks));
        if within { Ok(()) } else { Err(LBA_OUT_OF_RANGE.into()) }
    }

    fn writable(&self) -> Result<(), Answer> {
        if self.config.read_only { Err(WRITE_PROTECTED.into()) } else { Ok(()) }
    }

    fn block_len(&self) -> usize {
        usize::try_from(self.config.block_size).unwrap_or(usize::MAX)
    }

    /// Blocks as bytes. LBAs were checked against the capacity, which is
    /// that of a medium addressed by 64 bits of bytes.
    fn offset(&self, blocks: u64) -> u64 {
        blocks.saturating_mul(u64::from(self.config.block_size))
    }
}

#[allow(clippy::needless_pass_by_value)] // the shape of map_err
fn write_failure(error: io::Error) -> Answer {
    if error.kind() == io::ErrorKind::StorageFull { NO_SPACE.into() } else { WRITE_ERROR.into() }
}
