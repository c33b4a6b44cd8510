use vhost_user_backend::VhostUserBackend;

use super::*;
use crate::guest::inflight;
use crate::io::{Blocks, Lba};
use crate::virtio;
use crate::virtio::blk::{CONFIG_LEN, CONFIG_WRITEBACK};

/// 1024 blocks, everything the LU can offer.
pub(super) fn settings(block_size: u32) -> BlkSettings {
    BlkSettings {
        identity: Identity {
            wwid: "3600a098038303053453f463045727a41".into(),
            capacity: Blocks(1024),
            block_size,
        },
        geometry: Geometry {
            physical_block_exp: 3,
            alignment_offset: 1,
            min_io: 8,
            opt_io: 128,
            unmap: true,
            unmap_reads_zero: true,
            read_only: false,
            serial: "SN-42".into(),
            vendor: "VENDOR".into(),
            product: "LUN".into(),
            revision: "1".into(),
        },
        limits: Limits {
            max_transfer: Blocks(256),
            max_segments: 64,
            max_unmap: Blocks(512),
            max_unmap_descriptors: 4,
            unmap_granularity: Blocks(16),
            unmap_alignment: Lba(0),
            max_write_same: Blocks(512),
            fua: true,
        },
        num_queues: 3,
        max_queue_size: 256,
        read_only: false,
        serial: None,
    }
}

fn device(change: impl FnOnce(&mut BlkSettings)) -> BlkDevice {
    let mut settings = settings(512);
    change(&mut settings);
    BlkDevice::new(&settings).expect("valid settings")
}

fn config_u32(device: &BlkDevice, offset: u32) -> u32 {
    u32::from_le_bytes(device.get_config(offset, 4).try_into().expect("four bytes"))
}

/// The bits of an ordinary disk, by number (virtio 1.3, 5.2.3).
const PLAIN: u64 = (1 << 2) // SEG_MAX
    | (1 << 6) // BLK_SIZE
    | (1 << 9) // FLUSH
    | (1 << 10) // TOPOLOGY
    | (1 << 11) // CONFIG_WCE
    | (1 << 12) // MQ
    | (1 << 28) // INDIRECT_DESC
    | (1 << 29) // EVENT_IDX
    | (1 << 30) // vhost-user protocol features
    | (1 << 32); // VERSION_1
const RO: u64 = 1 << 5;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;

#[test]
fn features_follow_what_the_lu_can_do() {
    type Change = fn(&mut BlkSettings);
    let table: &[(&str, Change, u64)] = &[
        ("all", |_| (), PLAIN | DISCARD | WRITE_ZEROES),
        ("no unmap", |s| s.geometry.unmap = false, PLAIN | WRITE_ZEROES),
        ("no unmap limit", |s| s.limits.max_unmap = Blocks(0), PLAIN | WRITE_ZEROES),
        ("no write same", |s| s.limits.max_write_same = Blocks(0), PLAIN | DISCARD | WRITE_ZEROES),
        ("--read-only", |s| s.read_only = true, PLAIN | RO),
        ("write protected", |s| s.geometry.read_only = true, PLAIN | RO),
        ("one queue", |s| s.num_queues = 1, PLAIN | DISCARD | WRITE_ZEROES),
    ];
    for (name, change, features) in table {
        assert_eq!(device(change).features(), *features, "{name}");
    }
}

#[test]
fn every_offered_bit_has_a_name() {
    let named: u64 =
        virtio::FEATURES.iter().chain(blk::FEATURES).map(|f| f.mask).fold(0, |a, b| a | b);
    assert_eq!(device(|_| ()).features() & !named, 0);
    assert_eq!(device(|s| s.read_only = true).features() & !named, 0);
}

/// virtio 1.3, 5.2.4: capacity and ranges in 512-byte sectors whatever the
/// block size, topology in logical blocks.
#[test]
fn config_space_of_512_and_4096_byte_blocks() {
    for (block_size, per_block) in [(512, 1), (4096, 8)] {
        let device = BlkDevice::new(&settings(block_size)).expect("valid");
        let raw = device.get_config(0, 60);
        assert_eq!(raw[0..8], (1024 * u64::from(per_block)).to_le_bytes());
        assert_eq!(config_u32(&device, 8), 0, "size_max");
        assert_eq!(config_u32(&device, 12), 64, "seg_max");
        assert_eq!(config_u32(&device, 20), block_size);
        assert_eq!(raw[24..32], [3, 1, 8, 0, 128, 0, 0, 0], "topology");
        assert_eq!(raw[32..36], [1, 0, 3, 0], "writeback, num_queues");
        assert_eq!(config_u32(&device, 36), 1 << 22, "max_discard_sectors");
        assert_eq!(config_u32(&device, 40), 4, "max_discard_seg");
        assert_eq!(config_u32(&device, 44), 16 * per_block, "discard_sector_alignment");
        assert_eq!(config_u32(&device, 48), 1 << 22, "max_write_zeroes_sectors");
        assert_eq!(config_u32(&device, 52), 1, "max_write_zeroes_seg");
        assert_eq!(raw[56], 1, "write_zeroes_may_unmap");
    }
}

#[test]
fn limits_shape_the_config_space() {
    let bare = device(|s| {
        s.limits.max_segments = 4000;
        s.limits.max_unmap_descriptors = 4000;
        s.limits.unmap_granularity = Blocks(u64::MAX);
        s.limits.max_write_same = Blocks(0);
        s.geometry.unmap_reads_zero = false;
        s.geometry.alignment_offset = 300;
    });
    assert_eq!(config_u32(&bare, 12), 126, "fits a ring of 128");
    assert_eq!(config_u32(&bare, 40), 16);
    assert_eq!(config_u32(&bare, 44), 1, "an absurd granularity is no granularity");
    assert_eq!(config_u32(&bare, 48), 1 << 16, "zeroes must be written out");
    assert_eq!(bare.get_config(56, 1), [0], "may not unmap without LBPRZ");
    let thick = device(|s| s.geometry.unmap = false);
    assert_eq!(thick.get_config(56, 1), [0], "may not unmap without UNMAP");
    assert_eq!(bare.get_config(25, 1), [0], "alignment_offset has one byte");

    let small = device(|s| {
        s.max_queue_size = 64;
        s.limits.max_unmap_descriptors = 0;
    });
    assert_eq!(config_u32(&small, 12), 62, "fits the largest ring");
    assert_eq!(config_u32(&small, 40), 1);
    assert_eq!(config_u32(&device(|s| s.limits.max_segments = 0), 12), 1);

    let read_only = device(|s| s.read_only = true);
    assert_eq!(read_only.get_config(36, 24), [0; 24], "no discard, no write zeroes");
}

#[test]
fn settings_no_disk_can_have_are_refused() {
    type Change = fn(&mut BlkSettings);
    let table: &[(Change, BlkError)] = &[
        (|s| s.identity.block_size = 0, BlkError::BlockSize(0)),
        (|s| s.identity.block_size = 256, BlkError::BlockSize(256)),
        (|s| s.identity.block_size = 520, BlkError::BlockSize(520)),
        (|s| s.identity.block_size = 1 << 17, BlkError::BlockSize(1 << 17)),
        (
            |s| {
                s.identity.block_size = 4096;
                s.identity.capacity = Blocks(u64::MAX / 4);
            },
            BlkError::Capacity { blocks: u64::MAX / 4, block_size: 4096 },
        ),
        (|s| s.num_queues = 0, BlkError::Queues(0)),
        (|s| s.num_queues = 257, BlkError::Queues(257)),
        (|s| s.max_queue_size = 0, BlkError::QueueSize(0)),
        (|s| s.max_queue_size = 100, BlkError::QueueSize(100)),
        (|s| s.max_queue_size = 2048, BlkError::QueueSize(2048)),
        (|s| s.serial = Some(String::new()), BlkError::Serial(String::new())),
        (|s| s.serial = Some("x".repeat(21)), BlkError::Serial("x".repeat(21))),
        (|s| s.serial = Some("é".into()), BlkError::Serial("é".into())),
    ];
    for (change, error) in table {
        let mut settings = settings(512);
        change(&mut settings);
        assert_eq!(BlkDevice::new(&settings).map(|_| ()), Err(error.clone()));
    }
}

#[test]
fn any_range_of_the_config_space_is_answered_or_refused_whole() {
    let device = device(|_| ());
    let whole = device.get_config(0, 256);
    assert_eq!(whole.len(), 256);
    assert_eq!(whole[CONFIG_LEN..], [0; 256 - CONFIG_LEN], "newer fields read as zero");
    for (offset, size) in [(0, 0), (32, 1), (59, 2), (255, 1), (256, 0), (17, 100)] {
        let (start, end) = (offset as usize, (offset + size) as usize);
        assert_eq!(device.get_config(offset, size), whole[start..end], "{offset}+{size}");
    }
    for (offset, size) in
        [(0, 257), (256, 1), (255, 2), (u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX)]
    {
        assert_eq!(device.get_config(offset, size), [0; 0], "{offset}+{size}");
    }
}

#[test]
fn only_the_writeback_byte_can_be_written() {
    let device = device(|_| ());
    let offset = u32::try_from(CONFIG_WRITEBACK).expect("small");
    for (offset, bytes) in [
        (0, &[0_u8][..]),
        (offset - 1, &[0, 0]),
        (offset, &[]),
        (offset, &[0, 0]),
        (offset + 1, &[0]),
        (u32::MAX, &[0]),
        (0, &[0; 60]),
    ] {
        assert!(device.set_config(offset, bytes).is_err(), "{offset} {bytes:?}");
        assert!(device.writeback());
    }
    for (byte, writeback) in [(0, false), (1, true), (0, false), (255, true)] {
        device.set_config(offset, &[byte]).expect("the writeback byte");
        assert_eq!(device.writeback(), writeback);
        assert_eq!(device.get_config(offset, 1), [u8::from(writeback)]);
    }
}

/// virtio 1.3, 5.2.5.2: CONFIG_WCE without FLUSH reads as write-through, for
/// that driver only; and a front-end keeps its copy of the byte over a reset.
#[test]
fn writeback_byte_survives_a_reset_and_a_driver_that_cannot_flush() {
    let device = device(|_| ());
    device.acked_features(blk::F_CONFIG_WCE);
    assert_eq!(device.get_config(32, 1), [0]);
    device.acked_features(blk::F_CONFIG_WCE | blk::F_FLUSH);
    assert_eq!(device.get_config(32, 1), [1]);
    device.set_config(32, &[0]).expect("the writeback byte");
    device.reset_device();
    assert_eq!(device.get_config(32, 1), [0]);

    device.set_config(32, &[1]).expect("the writeback byte");
    device.assume_write_through();
    assert_eq!(device.get_config(32, 1), [0]);
}

#[test]
fn stock_daemon_gets_one_worker_for_up_to_64_queues() {
    for (queues, mask) in [(1, 1), (3, 7), (64, u64::MAX), (256, u64::MAX)] {
        assert_eq!(device(|s| s.num_queues = queues).queues_per_thread(), [mask]);
    }
}

#[test]
fn rings_of_an_earlier_process_are_served_write_through() {
    let device = BlkDevice::new(&settings(512)).unwrap();
    device.area_made();
    device.area_given(&area());
    assert!(device.writeback(), "our own area says nothing");
    let successor = BlkDevice::new(&settings(512)).unwrap();
    successor.area_given(&area());
    assert!(!successor.writeback(), "the driver may have chosen write-through");
}

fn area() -> InflightArea {
    let (file, size) = (inflight::create(1, 4).unwrap(), inflight::area_size(1, 4));
    InflightArea::attach(file, size, 0, 1, 4).unwrap()
}

#[test]
fn a_guest_keeps_the_size_that_an_earlier_process_has_shown_it() {
    let area = area();
    let device = BlkDevice::new(&settings(4096)).unwrap();
    let first = device.capacity();
    device.area_given(&area);
    assert!(!device.take_inherited_size(), "a fresh area");
    device.resize(Blocks(2 * first.0));
    let successor = BlkDevice::new(&settings(4096)).unwrap();
    successor.area_given(&area);
    assert_eq!(successor.capacity(), Blocks(2 * first.0));
    assert!(successor.take_inherited_size() && !successor.take_inherited_size());
    // Of a LU that has grown meanwhile there is nothing to keep.
    let later = BlkDevice::new(&settings(4096)).unwrap();
    later.resize(Blocks(3 * first.0));
    later.area_given(&area);
    assert!(!later.take_inherited_size());
    assert_eq!((later.capacity(), area.memo()), (Blocks(3 * first.0), 3 * first.0 * 8));
    area.set_memo(u64::MAX);
    let misled = BlkDevice::new(&settings(512)).unwrap();
    misled.area_given(&area);
    assert_eq!(misled.capacity(), Blocks(u64::MAX), "its own disk only");
}
