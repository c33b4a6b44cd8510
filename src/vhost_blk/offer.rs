//! What a virtio-blk device offers for a given LU.
//!
//! A pure function of the settings: feature bits, configuration space, ID
//! string, and the unit conversions the front needs (virtio 1.3, 5.2.3 to
//! 5.2.5). Computed once; only the capacity changes, and it only grows.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::io::{Blocks, Extent};
use crate::virtio::blk::{self, BlkConfig, ID_LEN, SECTOR_SIZE};
use crate::virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_PROTOCOL_FEATURES, F_VERSION_1};

use super::{BlkError, BlkSettings, MAX_QUEUE_SIZE, MAX_QUEUES};

/// Most data segments offered: what fits a ring of 128 descriptors, QEMU's
/// default, beside header and status. A driver may not build a longer chain
/// than its ring, and we learn the ring's size too late.
const SEG_MAX: u16 = 126;

/// Most ranges of one DISCARD, so that they fit a buffer on the stack.
pub(super) const MAX_DISCARD_SEG: u32 = 16;

/// Longest DISCARD range, and WRITE_ZEROES range where the LU has WRITE SAME:
/// 2 GiB in sectors. The request core splits it.
const MAX_RANGE_SECTORS: u32 = 1 << 22;

/// Longest WRITE_ZEROES range where zeroes must be written out: 32 MiB.
const MAX_WRITTEN_ZEROES_SECTORS: u32 = 1 << 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) features: u64,
    /// `writeback` and `capacity` are filled in when the space is read.
    pub(super) config: BlkConfig,
    pub(super) id: [u8; ID_LEN],
    pub(super) read_only: bool,
    /// In blocks, as the guest is shown it.
    capacity: AtomicU64,
    /// log2 of sectors per logical block.
    sector_shift: u32,
}

impl Offer {
    pub(super) fn new(settings: &BlkSettings) -> Result<Offer, BlkError> {
        let BlkSettings { identity, geometry, limits, .. } = settings;
        let block_size = identity.block_size;
        if !block_size.is_power_of_two() || !(SECTOR_SIZE..=1 << 16).contains(&block_size) {
            return Err(BlkError::BlockSize(block_size));
        }
        if !(1..=MAX_QUEUES).contains(&settings.num_queues) {
            return Err(BlkError::Queues(settings.num_queues));
        }
        let queue_size = settings.max_queue_size;
        if !queue_size.is_power_of_two() || !(4..=MAX_QUEUE_SIZE).contains(&queue_size) {
            return Err(BlkError::QueueSize(queue_size));
        }
        let sectors_per_block = block_size / SECTOR_SIZE;
        let blocks = identity.capacity.0;
        if blocks.checked_mul(u64::from(sectors_per_block)).is_none() {
            return Err(BlkError::Capacity { blocks, block_size });
        }

        let read_only = settings.read_only || geometry.read_only;
        let discard = !read_only && geometry.unmap && limits.max_unmap.0 > 0;
        let segments = u16::try_from(limits.max_segments).unwrap_or(u16::MAX);
        let mut config = BlkConfig {
            seg_max: u32::from(segments.min(queue_size - 2).clamp(1, SEG_MAX)),
            blk_size: block_size,
            physical_block_exp: geometry.physical_block_exp,
            // The field has one byte; an offset that does not fit helps nobody.
            alignment_offset: u8::try_from(geometry.alignment_offset).unwrap_or(0),
            min_io_size: geometry.min_io,
            opt_io_size: geometry.opt_io,
            num_queues: settings.num_queues,
            ..BlkConfig::default()
        };
        if discard {
            let descriptors = u32::try_from(limits.max_unmap_descriptors).unwrap_or(u32::MAX);
            config.max_discard_sectors = MAX_RANGE_SECTORS;
            config.max_discard_seg = descriptors.clamp(1, MAX_DISCARD_SEG);
            config.discard_sector_alignment =
                sectors(limits.unmap_granularity, sectors_per_block).unwrap_or(sectors_per_block);
        }
        if !read_only {
            config.max_write_zeroes_sectors = if limits.max_write_same.0 > 0 {
                MAX_RANGE_SECTORS
            } else {
                MAX_WRITTEN_ZEROES_SECTORS
            };
            // A request carries one extent to zero.
            config.max_write_zeroes_seg = 1;
            config.write_zeroes_may_unmap = u8::from(geometry.unmap && geometry.unmap_reads_zero);
        }
        Ok(Offer {
            features: features(read_only, discard),
            config,
            id: id_string(settings)?,
            read_only,
            capacity: AtomicU64::new(identity.capacity.0),
            sector_shift: sectors_per_block.trailing_zeros(),
        })
    }

    pub(super) fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Converts a range on the wire; `None` if it is empty, not made of whole
    /// logical blocks or beyond the end.
    pub(super) fn extent(&self, sector: u64, sectors: u64) -> Option<Extent> {
        let misaligned = (sector | sectors) & ((1 << self.sector_shift) - 1) != 0;
        if sectors == 0 || misaligned {
            return None;
        }
        let extent = Extent::new(sector >> self.sector_shift, sectors >> self.sector_shift);
        extent.within(self.capacity()).then_some(extent)
    }

    /// As the guest is shown it.
    pub(super) fn capacity(&self) -> Blocks {
        Blocks(self.capacity.load(Ordering::Acquire))
    }

    /// The same in sectors, as the configuration space has it.
    pub(super) fn sectors(&self) -> u64 {
        self.capacity().0 << self.sector_shift
    }

    /// An earlier process has shown that; whether it was more.
    pub(super) fn grow_to_sectors(&self, sectors: u64) -> bool {
        self.grow(Blocks(sectors >> self.sector_shift))
    }

    /// The LU has another capacity; whether the guest is shown a larger disk
    /// from now on.
    pub(super) fn grow(&self, capacity: Blocks) -> bool {
        let fits = capacity.0.leading_zeros() >= self.sector_shift;
        fits && self.capacity.fetch_max(capacity.0, Ordering::AcqRel) < capacity.0
    }
}

fn features(read_only: bool, discard: bool) -> u64 {
    let mut features = F_VERSION_1
        | F_INDIRECT_DESC
        | F_EVENT_IDX
        | F_PROTOCOL_FEATURES
        | blk::F_SEG_MAX
        | blk::F_BLK_SIZE
        | blk::F_TOPOLOGY
        | blk::F_FLUSH
        | blk::F_CONFIG_WCE
        | blk::F_MQ;
    if read_only {
        features |= blk::F_RO;
    } else {
        features |= blk::F_WRITE_ZEROES;
    }
    if discard {
        features |= blk::F_DISCARD;
    }
    features
}

/// Blocks as sectors; `None` for zero and for what does not fit the field.
fn sectors(blocks: Blocks, sectors_per_block: u32) -> Option<u32> {
    let blocks = u32::try_from(blocks.0).ok().filter(|blocks| *blocks > 0)?;
    blocks.checked_mul(sectors_per_block)
}

/// The device ID: `--serial` exactly, else the last 20 characters of the LU's
/// serial or WWID, whose tail is what differs between LUs of one array.
fn id_string(settings: &BlkSettings) -> Result<[u8; ID_LEN], BlkError> {
    let printable = |c: char| c.is_ascii_graphic() || c == ' ';
    let source = match &settings.serial {
        Some(serial) => {
            if serial.is_empty() || serial.len() > ID_LEN || !serial.chars().all(printable) {
                return Err(BlkError::Serial(serial.clone()));
            }
            serial
        }
        None if settings.geometry.serial.chars().any(|c| c.is_ascii_graphic()) => {
            &settings.geometry.serial
        }
        None => &settings.identity.wwid,
    };
    let text: Vec<u8> = source.bytes().filter(|b| printable(char::from(*b))).collect();
    let tail = &text[text.len().saturating_sub(ID_LEN)..];
    let mut id = [0; ID_LEN];
    id[..tail.len()].copy_from_slice(tail);
    Ok(id)
}
