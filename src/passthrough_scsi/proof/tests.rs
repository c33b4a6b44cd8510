use super::*;
use crate::scsi::sense::SenseCode;
use crate::scsi::vpd::{Association, Designator};
use proptest::prelude::*;
use std::cell::Cell;

const QUEUE: QueueLimits =
    QueueLimits { max_transfer_bytes: 512 * 1024, max_segments: 128, depth: 32 };

fn check(key: Key, asc: u8, ascq: u8) -> Completion {
    let sense = Sense::fixed(SenseCode::new(key, asc, ascq));
    let (status, host) = (Status::CHECK_CONDITION, HostByte::OK);
    Completion::Scsi { status, host, sense, residual: 0 }
}

/// A real disk as far as these commands go.
struct Disk {
    naa: [u8; 16],
    provisioning: bool,
    no_sixteen: bool,
    no_pages: bool,
    limits: BlockLimits,
    device_type: u8,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk {
            naa: [0x60, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
            provisioning: true,
            no_sixteen: false,
            no_pages: false,
            limits: BlockLimits {
                max_transfer: 256,
                max_unmap: 0xffff_ffff,
                max_unmap_descriptors: 0xffff_ffff,
                unmap_granularity: 8,
                unmap_alignment: Some(3),
                ..BlockLimits::default()
            },
            device_type: 0,
        }
    }
}

impl Disk {
    fn answer(&self, cdb: &Cdb, into: &mut [u8]) -> Completion {
        let raw = cdb.as_slice();
        let data = match (raw[0], raw[1] & 1, raw[2]) {
            (0x12, 0, _) => Inquiry {
                device_type: self.device_type,
                vendor: "ACME".into(),
                product: "disk".into(),
                ..Inquiry::default()
            }
            .encode()
            .to_vec(),
            (0x12, _, _) if self.no_pages => return check(Key::IllegalRequest, 0x24, 0),
            (0x12, _, 0x00) => vpd::encode_supported(&[0, 0x80, 0x83, 0xb0, 0xb2]),
            (0x12, _, 0x80) => vpd::encode_serial("  S1  "),
            (0x12, _, 0x83) => {
                let kind = vpd::DesignatorKind::Naa;
                let lu = Association::Lu;
                vpd::encode_identification(&[Designator {
                    association: lu,
                    kind,
                    bytes: &self.naa,
                }])
            }
            (0x12, _, 0xb0) => self.limits.encode(),
            (0x12, _, 0xb2) => Provisioning { unmap: true, ..Provisioning::default() }.encode(),
            (0x9e, _, _) if self.no_sixteen => return check(Key::IllegalRequest, 0x20, 0),
            (0x9e | 0x25, _, _) => {
                let capacity = Capacity {
                    blocks: Blocks(1000),
                    block_size: 512,
                    provisioning: self.provisioning,
                    ..Capacity::default()
                };
                if raw[0] == 0x25 {
                    capacity.encode_10().to_vec()
                } else {
                    capacity.encode_16().to_vec()
                }
            }
            (0x5a, _, _) => return check(Key::IllegalRequest, 0x20, 0),
            (0x1a, _, _) => {
                Mode { dpofua: true, write_protected: true, caching: None }.encode_6(None, &[])
            }
            _ => return check(Key::IllegalRequest, 0x20, 0),
        };
        let len = data.len().min(into.len());
        into[..len].copy_from_slice(&data[..len]);
        if len == into.len() { Completion::Good } else { Completion::Short(len) }
    }
}

#[test]
fn a_disk_is_asked_for_everything_a_map_needs() {
    let disk = Disk::default();
    let proof = prove(&|cdb, into| disk.answer(cdb, into), &QUEUE).unwrap();
    assert_eq!(proof.identity.wwid, "3600102030405060708090a0b0c0d0e0f");
    assert_eq!((proof.identity.capacity, proof.identity.block_size), (Blocks(1000), 512));
    assert_eq!(proof.geometry.vendor, "ACME");
}

#[test]
fn limits_are_the_smallest_of_lu_and_queue() {
    let disk = Disk::default();
    let limits = prove(&|cdb, into| disk.answer(cdb, into), &QUEUE).unwrap().limits;
    assert_eq!(limits.max_transfer, Blocks(256));
    assert_eq!(limits.max_segments, 128);
    assert_eq!(limits.max_unmap, Blocks(LONGEST_UNMAP));
    assert_eq!(limits.max_unmap_descriptors, 255);
    assert_eq!((limits.unmap_granularity, limits.unmap_alignment), (Blocks(8), Lba(3)));
    assert_eq!(limits.max_write_same, Blocks(0), "nothing says that it has WRITE SAME");
    assert!(limits.fua);
    let disk = Disk { limits: BlockLimits::default(), provisioning: false, ..disk };
    let proof = prove(&|cdb, into| disk.answer(cdb, into), &QUEUE).unwrap();
    assert_eq!(proof.limits.max_transfer, Blocks(1024), "the queue's");
    assert_eq!((proof.limits.max_unmap, proof.geometry.unmap), (Blocks(0), false));
    let narrow = QueueLimits { max_segments: 16, ..QUEUE };
    let narrow = prove(&|cdb, into| disk.answer(cdb, into), &narrow).unwrap().limits;
    assert_eq!(narrow.max_transfer, Blocks(128), "a segment carries a page");
    assert!(proof.geometry.read_only);
    assert_eq!(proof.geometry.serial, "S1");
}

#[test]
fn older_disks_are_asked_the_older_way() {
    let disk = Disk { no_sixteen: true, ..Disk::default() };
    let identity = identify(&|cdb, into| disk.answer(cdb, into)).unwrap();
    assert_eq!(identity.capacity, Blocks(1000));
}

#[test]
fn unit_attentions_are_old_news_but_not_for_ever() {
    let disk = Disk::default();
    let left = Cell::new(5);
    let answer = |cdb: &Cdb, into: &mut [u8]| {
        if left.get() > 0 {
            left.set(left.get() - 1);
            return check(Key::UnitAttention, 0x29, 0);
        }
        disk.answer(cdb, into)
    };
    assert!(identify(&answer).is_ok());
    left.set(u32::MAX);
    let error = identify(&answer).unwrap_err().to_string();
    assert!(error.contains("06/29/00"), "{error}");
}

#[test]
fn a_name_that_is_out_of_date_leaves_a_unit_attention_for_the_next_command() {
    type Proof = fn(&Ask<'_>) -> Result<Identity, ProofError>;
    let both: [Proof; 2] = [identify, |send| prove(send, &QUEUE).map(|proof| proof.identity)];
    for proof in both {
        for remapped_before in 0..30 {
            let (old, new) = (Disk::default(), Disk { naa: [0x6f; 16], ..Disk::default() });
            let (asked, attention) = (Cell::new(0), Cell::new(false));
            let answer = |cdb: &Cdb, into: &mut [u8]| {
                if asked.get() == remapped_before {
                    attention.set(true);
                }
                asked.set(asked.get() + 1);
                let is_inquiry = cdb.as_slice()[0] == 0x12;
                if !is_inquiry && attention.replace(false) {
                    return check(Key::UnitAttention, 0x3f, 0x0e);
                }
                let disk = if asked.get() > remapped_before { &new } else { &old };
                disk.answer(cdb, into)
            };
            let identity = proof(&answer).unwrap();
            let told = identity.wwid == "36f6f6f6f6f6f6f6f6f6f6f6f6f6f6f6f";
            let never = asked.get() <= remapped_before;
            assert!(told || never || attention.get(), "remapped before command {remapped_before}");
        }
    }
}

#[test]
fn a_path_failure_is_not_taken_for_a_missing_page() {
    let disk = Disk::default();
    let answer = |cdb: &Cdb, into: &mut [u8]| match cdb.as_slice() {
        [0x12, 1, 0x83, ..] => Completion::Scsi {
            status: Status::GOOD,
            host: HostByte::TRANSPORT_DISRUPTED,
            sense: Sense::EMPTY,
            residual: 0,
        },
        _ => disk.answer(cdb, into),
    };
    let error = identify(&answer).unwrap_err().to_string();
    assert!(error.contains("DID_TRANSPORT_DISRUPTED"), "{error}");
}

#[test]
fn a_reservation_keeps_mode_pages_from_us_and_no_path_from_its_map() {
    let disk = Disk::default();
    let conflict = Completion::Scsi {
        status: Status::RESERVATION_CONFLICT,
        host: HostByte::OK,
        sense: Sense::EMPTY,
        residual: 0,
    };
    let reserved = |cdb: &Cdb, into: &mut [u8]| match cdb.opcode() {
        0x1a | 0x5a => conflict,
        _ => disk.answer(cdb, into),
    };
    let proof = prove(&reserved, &QUEUE).unwrap();
    assert!(!proof.limits.fua && !proof.geometry.read_only, "nothing is promised");
    assert!(proof.mode_unread);
    assert_eq!(fua(&reserved), None, "it is still so");
    assert_eq!(fua(&|cdb, into| disk.answer(cdb, into)), Some(true));
    let open = prove(&|cdb, into| disk.answer(cdb, into), &QUEUE).unwrap();
    assert!(!open.mode_unread);
    assert_eq!((&proof.identity, proof.geometry.unmap), (&open.identity, open.geometry.unmap));
    // Nothing else conflicts, under any reservation: then it is a failure.
    let all = |_: &Cdb, _: &mut [u8]| conflict;
    assert!(prove(&all, &QUEUE).unwrap_err().to_string().contains("RESERVATION CONFLICT"));
}

#[test]
fn an_array_that_keeps_read_capacity_16_to_registrants_keeps_no_path_from_its_map() {
    let disk = Disk::default();
    let reserved = |cdb: &Cdb, into: &mut [u8]| match cdb.opcode() {
        0x9e | 0x1a | 0x5a => Completion::Scsi {
            status: Status::RESERVATION_CONFLICT,
            host: HostByte::OK,
            sense: Sense::EMPTY,
            residual: 0,
        },
        _ => disk.answer(cdb, into),
    };
    let proof = prove(&reserved, &QUEUE).unwrap();
    let open = prove(&|cdb, into| disk.answer(cdb, into), &QUEUE).unwrap();
    assert_eq!(proof.identity, open.identity);
    assert_eq!(identify(&reserved).unwrap(), open.identity);
    assert!(open.limits.max_unmap > Blocks(0));
    assert_eq!(proof.limits.max_unmap, open.limits.max_unmap, "the guest may unmap as before");
    // One that is too long for READ CAPACITY(10) says why it does not join.
    let long = |cdb: &Cdb, into: &mut [u8]| match cdb.opcode() {
        0x25 => {
            into[..8].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
            Completion::Good
        }
        _ => reserved(cdb, into),
    };
    let error = identify(&long).unwrap_err().to_string();
    assert!(error.contains("READ CAPACITY(16)") && error.contains("CONFLICT"), "{error}");
}

#[test]
fn what_is_no_disk_or_has_no_name_says_so() {
    let tape = Disk { device_type: 1, ..Disk::default() };
    let error = identify(&|cdb, into| tape.answer(cdb, into)).unwrap_err();
    assert!(matches!(error, ProofError::NoDisk { device_type: 1, .. }), "{error}");
    let nameless = Disk { no_pages: true, ..Disk::default() };
    let error = identify(&|cdb, into| nameless.answer(cdb, into)).unwrap_err();
    assert!(matches!(error, ProofError::Nameless), "{error}");
}

#[test]
fn a_standby_path_says_why_it_proves_nothing() {
    let disk = Disk::default();
    let answer = |cdb: &Cdb, into: &mut [u8]| match cdb.opcode() {
        0x9e => check(Key::NotReady, 0x04, 0x0b),
        _ => disk.answer(cdb, into),
    };
    let error = identify(&answer).unwrap_err().to_string();
    assert!(error.contains("READ CAPACITY(16)") && error.contains("02/04/0b"), "{error}");
}

proptest! {
    #[test]
    fn hostile_answers_never_panic(
        raw in prop::collection::vec(any::<u8>(), 0..400),
        lengths in prop::collection::vec(0usize..400, 1..12),
    ) {
        let calls = Cell::new(0);
        let answer = |cdb: &Cdb, into: &mut [u8]| {
            let call = calls.replace(calls.get() + 1);
            let len = raw.len().min(into.len());
            into[..len].copy_from_slice(&raw[..len]);
            if cdb.opcode() == 0x12 && len > 1 {
                into[0] = 0;
                into[1] = cdb.as_slice()[2];
            }
            Completion::Short(lengths[call % lengths.len()])
        };
        let _ = prove(&answer, &QUEUE);
        prop_assert!(calls.get() < 40);
    }
}
