//! One command on its way through the LU: what it was called with, and what
//! it answers (sense data: SPC-5 4.4; CDB fields: SPC-5 4.2).
//!
//! Values only; nothing here knows a command.

use std::cell::Cell;

use super::reservation::Told;
use super::target::Target;
use super::{ItNexus, LuId};
use crate::io::Extent;
use crate::scsi::alua::AccessState;
use crate::scsi::sense::{FieldPointer, Key, Sense, SenseCode, SenseFormat};

pub(super) const STOPPED: SenseCode = SenseCode::new(Key::NotReady, 0x04, 0x02);
pub(super) const SOFTWARE_PROTECTED: SenseCode = SenseCode::new(Key::DataProtect, 0x27, 0x02);

/// How much of a write is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Whole,
    /// The first half of the blocks, rounded down.
    FirstHalf,
}

/// A command, as the LU meets it.
pub(super) struct Call<'a> {
    /// As long as its operation code says, at least.
    pub(super) cdb: &'a [u8],
    pub(super) data_out: &'a [u8],
    /// Bytes the initiator has room for.
    pub(super) room: usize,
    pub(super) share: Share,
    /// The ports it came through.
    pub(super) nexus: ItNexus,
    pub(super) target: &'a Target,
    /// For data-in; what is in it is of no meaning.
    pub(super) buffer: Cell<Vec<u8>>,
}

impl<'a> Call<'a> {
    /// A byte of the CDB; zero behind its end.
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.cdb.get(at).copied().unwrap_or(0)
    }

    pub(super) fn flag(&self, at: usize, mask: u8) -> bool {
        self.byte(at) & mask != 0
    }

    pub(super) fn u16_at(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.byte(at), self.byte(at + 1)])
    }

    pub(super) fn u32_at(&self, at: usize) -> u32 {
        u32::from(self.u16_at(at)) << 16 | u32::from(self.u16_at(at + 2))
    }

    pub(super) fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) << 32 | u64::from(self.u32_at(at + 4))
    }

    /// An allocation or parameter list length of 16 or 32 bits.
    pub(super) fn length_16(&self, at: usize) -> usize {
        usize::from(self.u16_at(at))
    }

    pub(super) fn length_32(&self, at: usize) -> usize {
        usize::try_from(self.u32_at(at)).unwrap_or(usize::MAX)
    }

    /// LBA and transfer length, where the CDBs of that length have them.
    pub(super) fn extent(&self) -> Extent {
        match self.cdb.len() {
            6 => {
                let lba = u64::from(self.u32_at(0) & 0x001f_ffff);
                // Zero means 256 in the oldest form.
                let blocks = if self.byte(4) == 0 { 256 } else { u64::from(self.byte(4)) };
                Extent::new(lba, blocks)
            }
            10 => Extent::new(u64::from(self.u32_at(2)), u64::from(self.u16_at(7))),
            12 => Extent::new(u64::from(self.u32_at(2)), u64::from(self.u32_at(6))),
            _ => Extent::new(self.u64_at(2), u64::from(self.u32_at(10))),
        }
    }

    /// Data-out that the CDB announces.
    pub(super) fn announced(&self, len: usize) -> Result<&'a [u8], Failure> {
        self.data_out.get(..len).ok_or(Failure::Overrun)
    }
}

/// What an answer does beyond this LU's blocks and pages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Effect {
    #[default]
    None,
    /// Mode parameters changed: the other nexuses are told.
    ModeChanged,
    /// SET TARGET PORT GROUPS wants these states.
    Groups(Vec<(u16, AccessState)>),
    /// These LUs move to the controller that got the command; it ends when
    /// they have.
    Take(Vec<LuId>),
    /// PERSISTENT RESERVE OUT concerns others.
    Reservations(Told),
}

/// GOOD.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) data_in: Vec<u8>,
    /// Bytes of data-out used.
    pub(super) taken: usize,
    pub(super) effect: Effect,
}

impl Answer {
    /// Parameter data cut to the allocation length.
    pub(super) fn data(mut data_in: Vec<u8>, allocation: usize) -> Answer {
        data_in.truncate(allocation);
        Answer { data_in, ..Answer::default() }
    }

    pub(super) fn taken(taken: usize) -> Answer {
        Answer { taken, ..Answer::default() }
    }
}

/// CHECK CONDITION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: SenseCode,
    information: Option<u64>,
    field: Option<FieldPointer>,
}

/// Anything but GOOD.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Refused(Refusal),
    /// The CDB announces more data than the initiator has, or has room for.
    Overrun,
    /// RESERVATION CONFLICT.
    Conflict,
}

pub(super) type Outcome = Result<Answer, Failure>;

impl From<SenseCode> for Refusal {
    fn from(code: SenseCode) -> Refusal {
        Refusal { code, information: None, field: None }
    }
}

impl From<SenseCode> for Failure {
    fn from(code: SenseCode) -> Failure {
        Failure::Refused(code.into())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

/// 05/24/00 that points at a byte of the CDB, and at a bit of it.
pub(super) fn wrong_field(byte: u16, bit: Option<u8>) -> Failure {
    let field = Some(FieldPointer { bit, ..FieldPointer::cdb(byte) });
    Refusal { field, ..SenseCode::INVALID_FIELD_IN_CDB.into() }.into()
}

/// 05/26/00 that points at a byte of the parameter list.
pub(super) fn wrong_parameter(byte: usize) -> Failure {
    let field = Some(FieldPointer::parameter(u16::try_from(byte).unwrap_or(u16::MAX)));
    Refusal { field, ..SenseCode::INVALID_FIELD_IN_PARAMETER_LIST.into() }.into()
}

impl Refusal {
    /// Sense that points at a field.
    pub(super) fn at(code: SenseCode, field: Option<FieldPointer>) -> Refusal {
        Refusal { field, ..code.into() }
    }

    /// Sense with its INFORMATION field.
    pub(super) fn about(code: SenseCode, information: u64) -> Refusal {
        Refusal { information: Some(information), ..code.into() }
    }

    /// The sense data, in the format the LU is set to.
    pub(super) fn sense(&self, format: SenseFormat) -> Sense {
        let sense = Sense::build(format, self.code, self.field);
        let Some(information) = self.information else { return sense };
        let mut raw = sense.as_bytes().to_vec();
        match format {
            // Four bytes; what does not fit them is not said.
            SenseFormat::Fixed => {
                if let Ok(information) = u32::try_from(information) {
                    raw[0] |= 0x80; // VALID
                    raw[3..7].copy_from_slice(&information.to_be_bytes());
                }
            }
            SenseFormat::Descriptor => {
                raw.extend([0x00, 0x0a, 0x80, 0x00]);
                raw.extend(information.to_be_bytes());
                raw[7] += 12; // of at most 252
            }
        }
        Sense::from_bytes(&raw)
    }
}
