//! Commands that describe the LU: INQUIRY and its pages, READ CAPACITY, MODE
//! SENSE, REPORT LUNS, REQUEST SENSE (SPC-5 6, SBC-4 5).

use super::Task;
use super::lu::{Answer, INVALID_FIELD, Lu};
use crate::io::Blocks;
use crate::scsi::capacity::Capacity;
use crate::scsi::cdb::{Decoded, ModeSense};
use crate::scsi::inquiry::Inquiry;
use crate::scsi::mode::{self, BlockDescriptor, Caching, Mode};
use crate::scsi::sense::{Key, Sense, SenseCode};
use crate::scsi::vpd::{
    self, Association, BlockCharacteristics, BlockLimits, Designator, DesignatorKind, Provisioning,
};

const NO_SENSE: SenseCode = SenseCode::new(Key::NoSense, 0x00, 0x00);
const SAVING_NOT_SUPPORTED: SenseCode = SenseCode::new(Key::IllegalRequest, 0x39, 0x00);

const PAGES: [u8; 6] = [
    vpd::SUPPORTED_PAGES,
    vpd::SERIAL,
    vpd::IDENTIFICATION,
    vpd::BLOCK_LIMITS,
    vpd::BLOCK_CHARACTERISTICS,
    vpd::PROVISIONING,
];

impl Lu {
    /// Answers a command that does not touch blocks.
    pub(super) fn describe(&self, port: u16, decoded: &Decoded) -> Answer {
        match *decoded {
            Decoded::Inquiry { page: None, allocation } => {
                Answer::data(self.inquiry().encode().to_vec(), allocation)
            }
            Decoded::Inquiry { page: Some(code), allocation } => match self.vpd(port, code) {
                Some(page) => Answer::data(page, allocation),
                None => INVALID_FIELD.into(),
            },
            Decoded::ReadCapacity10 => {
                let data = self.capacity().encode_10().to_vec();
                let all = data.len();
                Answer::data(data, all)
            }
            Decoded::ReadCapacity16 { allocation } => {
                Answer::data(self.capacity().encode_16().to_vec(), allocation)
            }
            Decoded::ModeSense(request) => self.mode_sense(request),
            Decoded::ReportLuns { select, allocation } => report_luns(select, allocation),
            Decoded::RequestSense { descriptor, allocation } => {
                sense_data(NO_SENSE, descriptor, allocation)
            }
            // TEST UNIT READY; those that touch blocks were served before.
            _ => Answer::data(Vec::new(), 0),
        }
    }

    /// REQUEST SENSE that finds `code` pending.
    pub(super) fn report_sense(&self, task: &Task, code: SenseCode) -> Answer {
        match task.cdb.decode() {
            Ok(Decoded::RequestSense { descriptor, allocation }) => {
                sense_data(code, descriptor, allocation)
            }
            _ => INVALID_FIELD.into(),
        }
    }

    fn inquiry(&self) -> Inquiry {
        Inquiry {
            version: 0x07, // SPC-5
            multi_port: true,
            command_queueing: true,
            vendor: self.config.vendor.clone(),
            product: self.config.product.clone(),
            revision: self.config.revision.clone(),
            ..Inquiry::default()
        }
    }

    fn capacity(&self) -> Capacity {
        Capacity {
            blocks: Blocks(self.config.blocks),
            block_size: self.config.block_size,
            protected: false,
            physical_block_exp: self.config.physical_block_exp,
            lowest_aligned: 0,
            provisioning: self.config.thin,
            unmapped_reads_zero: self.config.thin,
        }
    }

    fn vpd(&self, port: u16, code: u8) -> Option<Vec<u8>> {
        let config = &self.config;
        Some(match code {
            vpd::SUPPORTED_PAGES => vpd::encode_supported(&PAGES),
            vpd::SERIAL => vpd::encode_serial(&config.serial),
            vpd::IDENTIFICATION => self.identification(port),
            vpd::BLOCK_LIMITS => {
                let unmaps = config.unmaps();
                let if_unmaps = |value| if unmaps { value } else { 0 };
                BlockLimits {
                    write_same_non_zero: true,
                    max_transfer: config.max_transfer_blocks,
                    max_unmap: if_unmaps(config.max_unmap_blocks),
                    max_unmap_descriptors: if_unmaps(config.max_unmap_descriptors),
                    unmap_granularity: if_unmaps(config.unmap_granularity),
                    unmap_alignment: unmaps.then_some(config.unmap_alignment),
                    max_write_same: config.max_write_same_blocks,
                    ..BlockLimits::default()
                }
                .encode()
            }
            vpd::BLOCK_CHARACTERISTICS => {
                BlockCharacteristics { rotation_rate: 1, zoned: 0 }.encode()
            }
            vpd::PROVISIONING => Provisioning {
                unmap: config.unmaps(),
                write_same_16: config.thin,
                reads_zero: u8::from(config.thin),
                kind: if config.thin { 2 } else { 0 },
                ..Provisioning::default()
            }
            .encode(),
            _ => return None,
        })
    }

    /// The LU's names, and the port this was asked through (which is what
    /// makes page 83h differ between paths).
    fn identification(&self, port: u16) -> Vec<u8> {
        let name =
            format!("{:8.8}{} {}", self.config.vendor, self.config.product, self.config.serial);
        let [high, low] = port.to_be_bytes();
        vpd::encode_identification(&[
            Designator {
                association: Association::Lu,
                kind: DesignatorKind::Naa,
                bytes: &self.config.wwid_naa,
            },
            Designator {
                association: Association::Lu,
                kind: DesignatorKind::T10Vendor,
                bytes: name.as_bytes(),
            },
            Designator {
                association: Association::TargetPort,
                kind: DesignatorKind::RelativeTargetPort,
                bytes: &[0, 0, high, low],
            },
        ])
    }

    fn mode_sense(&self, request: ModeSense) -> Answer {
        let caching = Caching { write_cache: self.config.write_cache, ..Caching::default() };
        let (mut caching, mut control) = (caching.encode(), mode::encode_control());
        match request.control {
            1 => {
                // Changeable values: nothing is.
                caching[2..].fill(0);
                control[2..].fill(0);
            }
            3 => return SAVING_NOT_SUPPORTED.into(),
            _ => {}
        }
        let pages = match (request.page, request.subpage) {
            (mode::CACHING, 0) => caching.to_vec(),
            (mode::CONTROL, 0) => control.to_vec(),
            (mode::ALL_PAGES, 0 | 0xff) => [&caching[..], &control[..]].concat(),
            _ => return INVALID_FIELD.into(),
        };
        let mode = Mode { write_protected: self.config.read_only, dpofua: true, caching: None };
        let descriptor = (!request.no_block_descriptors).then_some(BlockDescriptor {
            blocks: Blocks(self.config.blocks),
            block_size: self.config.block_size,
        });
        let data = if request.ten {
            mode.encode_10(descriptor, &pages)
        } else {
            mode.encode_6(descriptor, &pages)
        };
        Answer::data(data, request.allocation)
    }
}

/// One LU, at LUN 0.
fn report_luns(select: u8, allocation: usize) -> Answer {
    let luns: usize = match select {
        0x00 | 0x02 => 1,
        0x01 => 0, // well-known LUs: none
        _ => return INVALID_FIELD.into(),
    };
    let mut data = vec![0; 8 + 8 * luns];
    data[3] = if luns == 0 { 0 } else { 8 };
    Answer::data(data, allocation)
}

fn sense_data(code: SenseCode, descriptor: bool, allocation: usize) -> Answer {
    let data = if descriptor {
        vec![0x72, code.key as u8, code.asc, code.ascq, 0, 0, 0, 0]
    } else {
        Sense::fixed(code).as_bytes().to_vec()
    };
    Answer::data(data, allocation)
}
