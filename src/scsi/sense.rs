//! Sense data: fixed and descriptor format (SPC-5 4.4), encode and decode.

use std::fmt;

mod build;
mod codes;
mod words;

pub use build::{FieldPointer, SenseFormat};
pub use words::describe;

#[cfg(test)]
mod tests;

/// Most sense bytes kept: what the kernel's SG_IO and virtio-scsi carry.
pub const SENSE_MAX: usize = 96;

/// Raw sense bytes as the LU sent them, at most [`SENSE_MAX`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    len: u8,
    bytes: [u8; SENSE_MAX],
}

/// Sense key (SPC-5 table 48), the low four bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // the names are the standard's
pub enum Key {
    NoSense = 0x0,
    RecoveredError = 0x1,
    NotReady = 0x2,
    MediumError = 0x3,
    HardwareError = 0x4,
    IllegalRequest = 0x5,
    UnitAttention = 0x6,
    DataProtect = 0x7,
    BlankCheck = 0x8,
    VendorSpecific = 0x9,
    CopyAborted = 0xa,
    AbortedCommand = 0xb,
    Reserved = 0xc,
    VolumeOverflow = 0xd,
    Miscompare = 0xe,
    Completed = 0xf,
}

impl Key {
    /// From the low four bits of `byte`.
    pub fn from_bits(byte: u8) -> Key {
        use Key::*;
        const ALL: [Key; 16] = [
            NoSense,
            RecoveredError,
            NotReady,
            MediumError,
            HardwareError,
            IllegalRequest,
            UnitAttention,
            DataProtect,
            BlankCheck,
            VendorSpecific,
            CopyAborted,
            AbortedCommand,
            Reserved,
            VolumeOverflow,
            Miscompare,
            Completed,
        ];
        ALL[usize::from(byte & 0x0f)]
    }

    /// The standard's spelling.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 16] = [
            "NO SENSE",
            "RECOVERED ERROR",
            "NOT READY",
            "MEDIUM ERROR",
            "HARDWARE ERROR",
            "ILLEGAL REQUEST",
            "UNIT ATTENTION",
            "DATA PROTECT",
            "BLANK CHECK",
            "VENDOR SPECIFIC",
            "COPY ABORTED",
            "ABORTED COMMAND",
            "RESERVED",
            "VOLUME OVERFLOW",
            "MISCOMPARE",
            "COMPLETED",
        ];
        NAMES[self as usize]
    }
}

/// What sense data says: key, additional code and qualifier.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SenseCode {
    /// Sense key.
    pub key: Key,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
}

impl SenseCode {
    /// Key, ASC and ASCQ.
    pub const fn new(key: Key, asc: u8, ascq: u8) -> SenseCode {
        SenseCode { key, asc, ascq }
    }

    /// Unit attentions after which this nexus may lead to another LU: a reset
    /// or nexus loss, changed INQUIRY data, changed LUNs (law 2).
    pub fn questions_identity(self) -> bool {
        self.key == Key::UnitAttention
            && (self.asc == 0x29
                || self == SenseCode::INQUIRY_DATA_CHANGED
                || self == SenseCode::REPORTED_LUNS_CHANGED)
    }
}

impl fmt::Display for SenseCode {
    /// `05/20/00`, the field's notation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}/{:02x}/{:02x}", self.key as u8, self.asc, self.ascq)
    }
}

impl fmt::Debug for SenseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Sense {
    /// No sense data.
    pub const EMPTY: Sense = Sense { len: 0, bytes: [0; SENSE_MAX] };

    /// Keeps the first [`SENSE_MAX`] bytes of `raw`.
    pub fn from_bytes(raw: &[u8]) -> Sense {
        let mut sense = Sense::EMPTY;
        let len = raw.len().min(SENSE_MAX);
        sense.bytes[..len].copy_from_slice(&raw[..len]);
        sense.len = u8::try_from(len).unwrap_or(0);
        sense
    }

    /// The bytes as received.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Response codes 71h and 73h: the sense is about an *earlier* command.
    pub fn is_deferred(&self) -> bool {
        matches!(self.as_bytes().first().map(|b| b & 0x7f), Some(0x71 | 0x73))
    }

    /// Decodes key, ASC and ASCQ of either format; `None` if the bytes are
    /// too short or of no known format.
    pub fn code(&self) -> Option<SenseCode> {
        let raw = self.as_bytes();
        let byte = |i: usize| raw.get(i).copied().unwrap_or(0);
        match raw.first()? & 0x7f {
            0x70 | 0x71 if raw.len() >= 3 => {
                Some(SenseCode::new(Key::from_bits(byte(2)), byte(12), byte(13)))
            }
            0x72 | 0x73 if raw.len() >= 2 => {
                Some(SenseCode::new(Key::from_bits(byte(1)), byte(2), byte(3)))
            }
            _ => None,
        }
    }
}

/// Makes sense data, as parameter data of REQUEST SENSE, say NO SENSE; the rest
/// of it stays. Data of no known format is left alone.
pub fn make_no_sense(data: &mut [u8]) {
    let places: &[usize] = match data.first().map(|byte| byte & 0x7f) {
        Some(0x70 | 0x71) => &[2, 12, 13],
        Some(0x72 | 0x73) => &[1, 2, 3],
        _ => return,
    };
    for place in places {
        if let Some(byte) = data.get_mut(*place) {
            *byte = 0;
        }
    }
}

impl Default for Sense {
    fn default() -> Sense {
        Sense::EMPTY
    }
}

impl fmt::Debug for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code() {
            Some(code) => write!(f, "Sense({code})"),
            None => write!(f, "Sense({:02x?})", self.as_bytes()),
        }
    }
}
