//! What a CDB asks for: the reverse of the builders, which it checks.
//!
//! Not the simulated array's: that has a table of its own. Knows the commands
//! the builders build, and few more; anything else is [`Malformed::Opcode`].
//! It checks fields only as far as they cannot be right for any LU.

use super::{Cdb, be, opcode};
use crate::scsi::block::Extent;

/// A CDB taken apart. Allocation lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// TEST UNIT READY.
    TestUnitReady,
    /// REQUEST SENSE.
    RequestSense {
        /// DESC: descriptor format wanted.
        descriptor: bool,
        /// Allocation length.
        allocation: usize,
    },
    /// INQUIRY.
    Inquiry {
        /// VPD page, or `None` for standard data.
        page: Option<u8>,
        /// Allocation length.
        allocation: usize,
    },
    /// MODE SENSE(6) or (10).
    ModeSense(ModeSense),
    /// READ CAPACITY(10).
    ReadCapacity10,
    /// READ CAPACITY(16).
    ReadCapacity16 {
        /// Allocation length.
        allocation: usize,
    },
    /// REPORT LUNS.
    ReportLuns {
        /// SELECT REPORT.
        select: u8,
        /// Allocation length.
        allocation: usize,
    },
    /// READ(10) or (16).
    Read(Extent),
    /// WRITE(10) or (16).
    Write {
        /// Where.
        extent: Extent,
        /// Durable before status.
        fua: bool,
    },
    /// SYNCHRONIZE CACHE(10) or (16); zero blocks mean to the end of the LU.
    SynchronizeCache(Extent),
    /// UNMAP.
    Unmap {
        /// Bytes of parameter list that follow.
        list_len: usize,
    },
    /// WRITE SAME(16); zero blocks mean to the end of the LU unless WSNZ.
    WriteSame {
        /// Where.
        extent: Extent,
        /// The LU may deallocate.
        unmap: bool,
        /// No data-out: zeroes.
        ndob: bool,
    },
}

/// The fields of MODE SENSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSense {
    /// The (10) form: other header.
    pub ten: bool,
    /// DBD: no block descriptors.
    pub no_block_descriptors: bool,
    /// PC: 0 current, 1 changeable, 2 default, 3 saved.
    pub control: u8,
    /// Page code.
    pub page: u8,
    /// Subpage code.
    pub subpage: u8,
    /// Allocation length.
    pub allocation: usize,
}

/// Why a CDB cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Operation code (or service action) not implemented: 05/20/00.
    Opcode,
    /// A field is wrong, or the CDB too short for its opcode: 05/24/00.
    Field,
}

impl Cdb {
    /// Takes the CDB apart.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn decode(&self) -> Result<Decoded, Malformed> {
        let opcode = self.opcode();
        let wanted = match opcode {
            opcode::TEST_UNIT_READY
            | opcode::REQUEST_SENSE
            | opcode::INQUIRY
            | opcode::MODE_SENSE_6 => 6,
            opcode::READ_CAPACITY_10
            | opcode::READ_10
            | opcode::WRITE_10
            | opcode::SYNCHRONIZE_CACHE_10
            | opcode::UNMAP
            | opcode::MODE_SENSE_10 => 10,
            opcode::REPORT_LUNS => 12,
            opcode::READ_16
            | opcode::WRITE_16
            | opcode::SYNCHRONIZE_CACHE_16
            | opcode::WRITE_SAME_16
            | opcode::SERVICE_ACTION_IN_16 => 16,
            _ => return Err(Malformed::Opcode),
        };
        if usize::from(self.len) < wanted {
            return Err(Malformed::Field);
        }
        match wanted {
            6 => self.decode_6(),
            10 => self.decode_10(),
            12 => Ok(Decoded::ReportLuns { select: self.bytes[2], allocation: self.length_32(6) }),
            _ => self.decode_16(),
        }
    }

    fn decode_6(&self) -> Result<Decoded, Malformed> {
        let bytes = &self.bytes;
        Ok(match self.opcode() {
            opcode::TEST_UNIT_READY => Decoded::TestUnitReady,
            opcode::REQUEST_SENSE => Decoded::RequestSense {
                descriptor: bytes[1] & 0x01 != 0,
                allocation: usize::from(bytes[4]),
            },
            opcode::INQUIRY => {
                let page = match (bytes[1] & 0x03, bytes[2]) {
                    (0, 0) => None,
                    (1, page) => Some(page),
                    _ => return Err(Malformed::Field),
                };
                Decoded::Inquiry { page, allocation: self.length_16(3) }
            }
            _ => Decoded::ModeSense(self.mode_sense(false, usize::from(bytes[4]))),
        })
    }

    fn decode_10(&self) -> Result<Decoded, Malformed> {
        let bytes = &self.bytes;
        let lba = be::u32_at(bytes, 2).map_or(0, u64::from);
        let blocks = be::u16_at(bytes, 7).map_or(0, u64::from);
        let extent = Extent::new(lba, blocks);
        Ok(match self.opcode() {
            opcode::READ_CAPACITY_10 => Decoded::ReadCapacity10,
            opcode::READ_10 => self.unprotected(Decoded::Read(extent))?,
            opcode::WRITE_10 => self.unprotected(Decoded::Write { extent, fua: self.fua() })?,
            opcode::SYNCHRONIZE_CACHE_10 => Decoded::SynchronizeCache(extent),
            opcode::UNMAP if bytes[1] & 0x01 != 0 => return Err(Malformed::Field), // ANCHOR
            opcode::UNMAP => Decoded::Unmap { list_len: self.length_16(7) },
            _ => Decoded::ModeSense(self.mode_sense(true, self.length_16(7))),
        })
    }

    fn decode_16(&self) -> Result<Decoded, Malformed> {
        let bytes = &self.bytes;
        let lba = be::u64_at(bytes, 2).unwrap_or(0);
        let blocks = be::u32_at(bytes, 10).map_or(0, u64::from);
        let extent = Extent::new(lba, blocks);
        Ok(match self.opcode() {
            opcode::READ_16 => self.unprotected(Decoded::Read(extent))?,
            opcode::WRITE_16 => self.unprotected(Decoded::Write { extent, fua: self.fua() })?,
            opcode::SYNCHRONIZE_CACHE_16 => Decoded::SynchronizeCache(extent),
            opcode::WRITE_SAME_16 => {
                let (unmap, ndob) = (bytes[1] & 0x08 != 0, bytes[1] & 0x01 != 0);
                // ANCHOR and the obsolete PBDATA and LBDATA.
                if bytes[1] & 0x16 != 0 {
                    return Err(Malformed::Field);
                }
                self.unprotected(Decoded::WriteSame { extent, unmap, ndob })?
            }
            _ if bytes[1] & 0x1f == opcode::SA_READ_CAPACITY_16 => {
                Decoded::ReadCapacity16 { allocation: self.length_32(10) }
            }
            // An unknown service action is a wrong field (SPC-5 4.2.5.2).
            _ => return Err(Malformed::Field),
        })
    }

    /// Protection information (RDPROTECT, WRPROTECT) is not implemented.
    fn unprotected(&self, decoded: Decoded) -> Result<Decoded, Malformed> {
        if self.bytes[1] & 0xe0 == 0 { Ok(decoded) } else { Err(Malformed::Field) }
    }

    fn fua(&self) -> bool {
        self.bytes[1] & 0x08 != 0
    }

    fn mode_sense(&self, ten: bool, allocation: usize) -> ModeSense {
        ModeSense {
            ten,
            no_block_descriptors: self.bytes[1] & 0x08 != 0,
            control: self.bytes[2] >> 6,
            page: self.bytes[2] & 0x3f,
            subpage: self.bytes[3],
            allocation,
        }
    }

    fn length_16(&self, offset: usize) -> usize {
        be::u16_at(&self.bytes, offset).map_or(0, usize::from)
    }

    fn length_32(&self, offset: usize) -> usize {
        be::u32_at(&self.bytes, offset).and_then(|len| usize::try_from(len).ok()).unwrap_or(0)
    }
}
