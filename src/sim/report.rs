//! Commands that describe the LU: INQUIRY and its pages, READ CAPACITY,
//! REPORT LUNS, REQUEST SENSE, TEST UNIT READY, START STOP UNIT (SPC-5 6,
//! SBC-4 5).

use super::answer::{Answer, Call, Effect, Outcome, Refusal, wrong_field};
use super::command;
use super::lu::Lu;
use crate::io::Blocks;
use crate::scsi::capacity::Capacity;
use crate::scsi::inquiry::{self, Inquiry};
use crate::scsi::sense::{SenseCode, SenseFormat};
use crate::scsi::vpd::{
    self, Association, BlockCharacteristics, BlockLimits, Designator, DesignatorKind, Provisioning,
};

mod opcodes;

/// Extended INQUIRY data.
const EXTENDED_INQUIRY: u8 = 0x86;

const PAGES: [u8; 7] = [
    vpd::SUPPORTED_PAGES,
    vpd::SERIAL,
    vpd::IDENTIFICATION,
    EXTENDED_INQUIRY,
    vpd::BLOCK_LIMITS,
    vpd::BLOCK_CHARACTERISTICS,
    vpd::PROVISIONING,
];

/// Version descriptors: SAM-5, SPC-4, SBC-3. The commands are those of SPC-5
/// and SBC-4; initiators and their test suites know these older names.
const VERSIONS: [u16; 3] = [0x00a0, 0x0460, 0x04c0];

/// Standard INQUIRY data with version descriptors.
const STANDARD_LEN: usize = 96;

/// Where the LUN leads to nothing.
pub(super) fn absent(call: &Call<'_>) -> Outcome {
    match call.byte(0) {
        command::INQUIRY if !call.flag(1, 0x01) => {
            Ok(Answer::data(inquiry::absent().to_vec(), call.length_16(3)))
        }
        command::REPORT_LUNS => Ok(Answer::data(vec![0; 8], call.length_32(6))),
        command::REQUEST_SENSE => Ok(sense_data(call, SenseCode::LUN_NOT_SUPPORTED)),
        _ => Err(SenseCode::LUN_NOT_SUPPORTED.into()),
    }
}

/// REQUEST SENSE that finds `code`.
pub(super) fn sense_data(call: &Call<'_>, code: SenseCode) -> Answer {
    let sense = Refusal::from(code).sense(SenseFormat::of(call.flag(1, 0x01)));
    Answer::data(sense.as_bytes().to_vec(), usize::from(call.byte(4)))
}

impl Lu {
    /// TEST UNIT READY, of a LU that is.
    pub(super) fn test_unit_ready(&mut self, _: &Call<'_>) -> Outcome {
        Ok(Answer::default())
    }

    /// REQUEST SENSE with nothing pending.
    pub(super) fn request_sense(&mut self, call: &Call<'_>) -> Outcome {
        Ok(sense_data(call, SenseCode::NO_SENSE))
    }

    /// START STOP UNIT. The medium cannot be ejected, and there are no power
    /// conditions.
    pub(super) fn start_stop_unit(&mut self, call: &Call<'_>) -> Outcome {
        if call.byte(4) & 0xf0 != 0 || call.byte(3) != 0 {
            return Err(wrong_field(4, Some(7)));
        }
        if call.flag(4, 0x02) {
            return Err(wrong_field(4, Some(1))); // LOEJ
        }
        let start = call.flag(4, 0x01);
        if !start && !call.flag(4, 0x04) {
            self.settle(true)?; // NO_FLUSH is not set
        }
        self.stopped = !start;
        Ok(Answer::default())
    }

    /// INQUIRY.
    pub(super) fn inquiry(&mut self, call: &Call<'_>) -> Outcome {
        let data = match (call.flag(1, 0x01), call.byte(2)) {
            (false, 0) => self.standard_inquiry(),
            (false, _) => return Err(wrong_field(2, None)),
            (true, code) => self.vpd(call, code).ok_or_else(|| wrong_field(2, None))?,
        };
        Ok(Answer::data(data, call.length_16(3)))
    }

    fn standard_inquiry(&self) -> Vec<u8> {
        let inquiry = Inquiry {
            version: 0x06, // SPC-4; see VERSIONS
            tpgs: self.config.tpgs.bits(),
            multi_port: true,
            command_queueing: true,
            vendor: self.config.vendor.clone(),
            product: self.config.product.clone(),
            revision: self.config.revision.clone(),
            ..Inquiry::default()
        };
        let mut data = inquiry.encode().to_vec();
        data.resize(58, 0);
        VERSIONS.iter().for_each(|version| data.extend(version.to_be_bytes()));
        data.resize(STANDARD_LEN, 0);
        data[4] = 91; // bytes after this one
        data
    }

    fn vpd(&self, call: &Call<'_>, code: u8) -> Option<Vec<u8>> {
        let config = &self.config;
        Some(match code {
            vpd::SUPPORTED_PAGES => {
                vpd::encode_supported(&[&PAGES[..], self.vendor_pages()].concat())
            }
            vpd::SERIAL => vpd::encode_serial(&config.serial),
            vpd::IDENTIFICATION => self.identification(call),
            EXTENDED_INQUIRY => {
                let mut page = vec![0; 64];
                (page[1], page[3]) = (EXTENDED_INQUIRY, 60);
                page[5] = 0x01; // SIMPSUP
                page[6] = u8::from(self.mode.write_cache); // V_SUP
                page
            }
            vpd::BLOCK_LIMITS => {
                let unmaps = config.unmaps();
                let if_unmaps = |value| if unmaps { value } else { 0 };
                BlockLimits {
                    write_same_non_zero: true,
                    max_compare_and_write: config.max_compare_and_write_blocks,
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
                write_same_10: config.thin,
                reads_zero: u8::from(config.thin),
                kind: if config.thin { 2 } else { 0 },
                ..Provisioning::default()
            }
            .encode(),
            _ => return self.vendor_page(call, code),
        })
    }

    /// The LU's names, and those of the port this was asked through (which
    /// make page 83h differ between paths).
    fn identification(&self, call: &Call<'_>) -> Vec<u8> {
        let name =
            format!("{:8.8}{} {}", self.config.vendor, self.config.product, self.config.serial);
        let number = |id: u16| [0, 0, id.to_be_bytes()[0], id.to_be_bytes()[1]];
        let port = number(call.nexus.port);
        let group = number(call.target.group_of(call.nexus.port));
        let port_name = call.target.port_name(call.nexus.port);
        let list = [
            (Association::Lu, DesignatorKind::Naa, &self.config.wwid_naa[..]),
            (Association::Lu, DesignatorKind::T10Vendor, name.as_bytes()),
            (Association::TargetPort, DesignatorKind::Naa, &port_name[..]),
            (Association::TargetPort, DesignatorKind::RelativeTargetPort, &port[..]),
            (Association::TargetPort, DesignatorKind::TargetPortGroup, &group[..]),
        ]
        .map(|(association, kind, bytes)| Designator { association, kind, bytes });
        vpd::encode_identification(&list)
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

    /// READ CAPACITY(10).
    pub(super) fn read_capacity_10(&mut self, _: &Call<'_>) -> Outcome {
        let data_in = self.capacity().encode_10().to_vec();
        Ok(Answer { data_in, taken: 0, effect: Effect::None })
    }

    /// READ CAPACITY(16).
    pub(super) fn read_capacity_16(&mut self, call: &Call<'_>) -> Outcome {
        Ok(Answer::data(self.capacity().encode_16().to_vec(), call.length_32(10)))
    }

    /// REPORT LUNS: one LU, at LUN 0.
    pub(super) fn report_luns(&mut self, call: &Call<'_>) -> Outcome {
        let luns: usize = match call.byte(2) {
            0x00 | 0x02 => 1,
            0x01 => 0, // well-known LUs: none
            _ => return Err(wrong_field(2, None)),
        };
        let mut data = vec![0; 8 + 8 * luns];
        data[3] = if luns == 0 { 0 } else { 8 };
        Ok(Answer::data(data, call.length_32(6)))
    }
}
