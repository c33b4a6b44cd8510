use vhost_user_backend::VhostUserBackend;

use super::*;
use crate::io::{Blocks, Lba, Limits, MapSlot};
use crate::scsi::attention::Attentions;
use crate::scsi::command::CommandPolicy;
use crate::scsi::sense::{Key, Sense, SenseCode};
use crate::virtio;
use units::View;

/// One LU of several paths, 512-byte blocks, at most 128 of them in a command.
pub(super) fn unit(target: u8, lun: u16, map: u16) -> Unit {
    Unit {
        target,
        lun,
        map: MapSlot(map),
        attentions: Arc::new(Attentions::new(true)),
        policy: CommandPolicy::default(),
        joined: true,
        multipath: true,
        nexus: Arc::default(),
        reservation: Arc::default(),
        pr_show: PrShow::One,
        read_only: false,
        limits: Limits {
            max_transfer: Blocks(128),
            max_segments: 64,
            max_unmap: Blocks(512),
            max_unmap_descriptors: 4,
            unmap_granularity: Blocks(16),
            unmap_alignment: Lba(0),
            max_write_same: Blocks(512),
            fua: true,
        },
        block_size: 512,
        no_path: NoPathAnswer::TransportError,
    }
}

pub(super) const SETTINGS: ScsiSettings =
    ScsiSettings { num_queues: 4, max_queue_size: 256, max_sectors: 1024 };

fn device() -> ScsiDevice {
    ScsiDevice::new(&SETTINGS).expect("valid settings")
}

fn le32(device: &ScsiDevice, offset: u32) -> u32 {
    u32::from_le_bytes(device.get_config(offset, 4).try_into().expect("four bytes"))
}

/// virtio 1.3, 5.6.3: neither INOUT (0) nor T10_PI (3).
#[test]
fn features_are_those_of_a_device_without_inout_and_protection_information() {
    let expect = (1 << 1) | (1 << 2) | (1 << 28) | (1 << 29) | (1 << 30) | (1 << 32);
    assert_eq!(device().features(), expect);
    let named: u64 =
        virtio::FEATURES.iter().chain(scsi::FEATURES).map(|f| f.mask).fold(0, |a, b| a | b);
    assert_eq!(expect & !named, 0);
}

#[test]
fn control_and_event_ring_come_on_top_of_the_request_rings() {
    assert_eq!(device().num_queues(), 6);
    assert_eq!(device().max_queue_size(), 256);
    let most = ScsiSettings { num_queues: MAX_QUEUES, ..SETTINGS };
    assert_eq!(ScsiDevice::new(&most).expect("valid").num_queues(), 256);
}

#[test]
fn settings_no_device_can_have_are_refused() {
    let table = [
        (ScsiSettings { num_queues: 0, ..SETTINGS }, ScsiError::Queues(0)),
        (ScsiSettings { num_queues: 255, ..SETTINGS }, ScsiError::Queues(255)),
        (ScsiSettings { max_queue_size: 2, ..SETTINGS }, ScsiError::QueueSize(2)),
        (ScsiSettings { max_queue_size: 100, ..SETTINGS }, ScsiError::QueueSize(100)),
        (ScsiSettings { max_queue_size: 2048, ..SETTINGS }, ScsiError::QueueSize(2048)),
    ];
    for (settings, error) in table {
        assert_eq!(ScsiDevice::new(&settings).map(|_| ()), Err(error));
    }
}

#[test]
fn config_space_is_read_in_any_piece() {
    let device = device();
    let expect = [4, 126, 1024, 128, 16, 96, 32];
    for (offset, word) in (0..).step_by(4).zip(expect) {
        assert_eq!(le32(&device, offset), word, "word at {offset}");
    }
    assert_eq!(device.get_config(28, 4), [0, 0, 255, 0], "max_channel, max_target");
    assert_eq!(le32(&device, 32), 16383, "max_lun");
    let whole = device.get_config(0, 256);
    assert_eq!(whole.len(), 256);
    assert_eq!(whole[36..], [0; 220], "newer fields read as zero");
    assert_eq!(device.get_config(19, 7), whole[19..26]);
    for (offset, size) in [(0, 257), (256, 1), (u32::MAX, 1), (1, u32::MAX)] {
        assert_eq!(device.get_config(offset, size), [0; 0], "{offset}+{size}");
    }
}

/// User-mode Linux writes both at probe; a refusal would end its probe.
#[test]
fn a_driver_may_write_sense_size_and_cdb_size_and_nothing_else() {
    let device = device();
    device.set_config(20, &96_u32.to_le_bytes()).expect("sense_size");
    device.set_config(24, &32_u32.to_le_bytes()).expect("cdb_size");
    device.set_config(20, &[252, 0, 0, 0, 4, 1, 0, 0]).expect("both, the largest");
    assert_eq!((le32(&device, 20), le32(&device, 24)), (252, 260));
    assert!(device.set_config(24, &[16]).is_err(), "one byte of 260 makes 272");
    device.set_config(20, &[0, 0, 0, 0, 1, 0, 0, 0]).expect("both, the smallest");
    assert_eq!((le32(&device, 20), le32(&device, 24)), (0, 1));

    let refused: &[(u32, &[u8])] = &[
        (20, &[253, 0, 0, 0]),
        (20, &[255; 4]),
        (24, &[0; 4]),
        (24, &[5, 1, 0, 0]),
        (24, &[255; 4]),
        (0, &[4, 0, 0, 1]),
        (18, &[1, 0, 96, 0, 0, 0]),
        (28, &[1, 0]),
        (36, &[0]),
        (35, &[0, 0]),
        (20, &[]),
        (u32::MAX, &[0]),
        (0, &[0; 300]),
    ];
    for (offset, bytes) in refused {
        assert!(device.set_config(*offset, bytes).is_err(), "{offset}: {bytes:?}");
        assert_eq!((le32(&device, 20), le32(&device, 24)), (0, 1), "unchanged");
    }
    let mut whole = device.get_config(0, 36);
    whole[20] = 18;
    device.set_config(0, &whole).expect("a write of the whole that changes sense_size only");
    assert_eq!(le32(&device, 20), 18);
}

/// virtio 1.3, 5.6.4.2.
#[test]
fn a_reset_restores_the_sizes_and_forgets_the_features() {
    let device = device();
    device.acked_features(device.features());
    assert!(device.shared.has(scsi::F_HOTPLUG));
    device.set_config(20, &[18, 0, 0, 0, 16, 0, 0, 0]).expect("valid");
    device.reset_device();
    assert_eq!((le32(&device, 20), le32(&device, 24)), (96, 32));
    assert!(!device.shared.has(scsi::F_HOTPLUG));
}

#[test]
fn a_front_sees_the_newest_table_of_lus() {
    let device = device();
    let mut view = View::new();
    view.refresh(&device.shared.units);
    assert_eq!(view.units().first_target(), None);
    device.set_units(vec![unit(3, 7, 1), unit(3, 0, 0), unit(1, 300, 2), unit(3, 7, 9)]);
    assert_eq!(view.units().first_target(), None, "not before it looks");
    view.refresh(&device.shared.units);
    let units = view.units();
    assert_eq!(units.first_target(), Some(1));
    assert_eq!(units.find(3, 7).map(|u| u.map), Some(MapSlot(1)), "the first of two");
    assert!(units.find(3, 1).is_none());
    assert!(units.find(2, 0).is_none());
    let luns = |target| units.of_target(target).iter().map(|u| u.lun).collect::<Vec<_>>();
    assert_eq!((luns(0), luns(1), luns(3), luns(255)), (vec![], vec![300], vec![0, 7], vec![]));
    assert_eq!(units.of_map(3, MapSlot(1)).map(|u| u.lun), Some(7));
    assert!(units.of_map(3, MapSlot(2)).is_none());
}

/// What a table change leaves behind belongs to the LU, not to the table.
#[test]
fn unit_attentions_outlive_a_change_of_the_table() {
    let device = device();
    let kept = unit(0, 0, 0);
    device.set_units(vec![kept.clone()]);
    kept.attentions.raise(&Sense::fixed(SenseCode::new(Key::UnitAttention, 0x3f, 0x0e)));
    device.set_units(vec![kept, unit(0, 1, 1)]);
    let mut view = View::new();
    view.refresh(&device.shared.units);
    assert!(view.units().find(0, 0).is_some_and(|u| u.attentions.is_pending()));
}

#[test]
fn a_reservation_and_a_second_path_exclude_each_other_whichever_comes_first() {
    let reserved = Nexus::default();
    assert!(reserved.reserve() && reserved.reserve() && reserved.is_reserved());
    assert!(!reserved.join());
    let several = Nexus::default();
    assert!(several.join() && several.join() && !several.is_reserved());
    assert!(!several.reserve());
}
