//! Sense data of our own, in either format (SPC-5 4.4.2, 4.4.3).
//!
//! The LU's sense is never rebuilt, only passed on (law 4).

use super::{Key, Sense, SenseCode};

/// Format of sense data; what a guest expects is decided by D_SENSE of the
/// LU's control mode page, for REQUEST SENSE by DESC of the CDB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SenseFormat {
    /// Response code 70h, 18 bytes.
    #[default]
    Fixed,
    /// Response code 72h, 8 bytes and descriptors.
    Descriptor,
}

impl SenseFormat {
    /// Descriptor format where `d_sense` (or DESC) is set.
    pub fn of(d_sense: bool) -> SenseFormat {
        if d_sense { SenseFormat::Descriptor } else { SenseFormat::Fixed }
    }
}

/// The field in error, for ILLEGAL REQUEST (SPC-5 4.4.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPointer {
    /// C/D: in the CDB; otherwise in the parameter list.
    pub in_cdb: bool,
    /// First byte of the field.
    pub byte: u16,
    /// Most significant bit of the field within that byte (0 to 7), if it is
    /// not the whole byte.
    pub bit: Option<u8>,
}

impl FieldPointer {
    /// The field that starts at `byte` of the CDB.
    pub const fn cdb(byte: u16) -> FieldPointer {
        FieldPointer { in_cdb: true, byte, bit: None }
    }

    /// The field that starts at `byte` of the parameter list.
    pub const fn parameter(byte: u16) -> FieldPointer {
        FieldPointer { in_cdb: false, byte, bit: None }
    }

    /// The field whose most significant bit is `bit` of that byte.
    pub const fn bit(self, bit: u8) -> FieldPointer {
        FieldPointer { bit: Some(bit), ..self }
    }

    /// The three bytes of the sense key specific field; SKSV=1.
    fn encode(self) -> [u8; 3] {
        let bit = self.bit.map_or(0, |bit| 0x08 | bit & 0x07); // BPV
        let [high, low] = self.byte.to_be_bytes();
        [0x80 | u8::from(self.in_cdb) << 6 | bit, high, low]
    }

    fn decode(raw: [u8; 3]) -> Option<FieldPointer> {
        let [flags, high, low] = raw;
        (flags & 0x80 != 0).then(|| FieldPointer {
            in_cdb: flags & 0x40 != 0,
            byte: u16::from_be_bytes([high, low]),
            bit: (flags & 0x08 != 0).then_some(flags & 0x07),
        })
    }
}

impl Sense {
    /// Fixed-format current sense (response code 70h) of 18 bytes.
    pub fn fixed(code: SenseCode) -> Sense {
        Sense::build(SenseFormat::Fixed, code, None)
    }

    /// Descriptor-format current sense (response code 72h) of 8 bytes,
    /// without descriptors.
    pub fn descriptor(code: SenseCode) -> Sense {
        Sense::build(SenseFormat::Descriptor, code, None)
    }

    /// Code and field of what is, byte for byte, what [`Sense::build`] makes of
    /// them in fixed format: it can be said in the other one as well.
    pub fn as_built(&self) -> Option<(SenseCode, Option<FieldPointer>)> {
        let code = self.code()?;
        let field = self.as_bytes().get(15..18).and_then(|raw| raw.try_into().ok());
        let field = field.filter(|_| code.key == Key::IllegalRequest);
        let field = field.and_then(FieldPointer::decode);
        (*self == Sense::build(SenseFormat::Fixed, code, field)).then_some((code, field))
    }

    /// Current sense in either format. `field` says which field is in error,
    /// and is for ILLEGAL REQUEST only.
    pub fn build(format: SenseFormat, code: SenseCode, field: Option<FieldPointer>) -> Sense {
        match format {
            SenseFormat::Fixed => {
                let mut raw = [0u8; 18];
                raw[0] = 0x70;
                raw[2] = code.key as u8;
                raw[7] = 10;
                raw[12] = code.asc;
                raw[13] = code.ascq;
                if let Some(field) = field {
                    raw[15..18].copy_from_slice(&field.encode());
                }
                Sense::from_bytes(&raw)
            }
            SenseFormat::Descriptor => {
                let mut raw = [0u8; 16];
                raw[..4].copy_from_slice(&[0x72, code.key as u8, code.asc, code.ascq]);
                let Some(field) = field else { return Sense::from_bytes(&raw[..8]) };
                raw[7] = 8;
                raw[8] = 0x02; // sense key specific descriptor
                raw[9] = 6;
                raw[12..15].copy_from_slice(&field.encode());
                Sense::from_bytes(&raw)
            }
        }
    }
}
