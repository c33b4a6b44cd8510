//! Designation descriptors of VPD page 83h (SPC-5 7.7.6).

use super::{IDENTIFICATION, body, fold_blanks, visible};
use crate::scsi::be;

/// What a designator names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Association {
    /// The addressed LU.
    Lu,
    /// The target port that received the command.
    TargetPort,
    /// The target device.
    TargetDevice,
    /// Reserved value.
    Reserved,
}

/// The kinds of designator that matter here (DESIGNATOR TYPE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DesignatorKind {
    /// T10 vendor ID based.
    T10Vendor,
    /// EUI-64 based.
    Eui64,
    /// NAA.
    Naa,
    /// Relative target port identifier.
    RelativeTargetPort,
    /// Target port group.
    TargetPortGroup,
    /// SCSI name string.
    ScsiName,
    /// Any other type.
    Other(u8),
}

impl DesignatorKind {
    fn from_bits(bits: u8) -> DesignatorKind {
        match bits & 0x0f {
            0x1 => DesignatorKind::T10Vendor,
            0x2 => DesignatorKind::Eui64,
            0x3 => DesignatorKind::Naa,
            0x4 => DesignatorKind::RelativeTargetPort,
            0x5 => DesignatorKind::TargetPortGroup,
            0x8 => DesignatorKind::ScsiName,
            other => DesignatorKind::Other(other),
        }
    }

    /// DESIGNATOR TYPE and the CODE SET that goes with it.
    fn to_bits(self) -> (u8, u8) {
        const BINARY: u8 = 1;
        const ASCII: u8 = 2;
        const UTF8: u8 = 3;
        match self {
            DesignatorKind::T10Vendor => (0x1, ASCII),
            DesignatorKind::Eui64 => (0x2, BINARY),
            DesignatorKind::Naa => (0x3, BINARY),
            DesignatorKind::RelativeTargetPort => (0x4, BINARY),
            DesignatorKind::TargetPortGroup => (0x5, BINARY),
            DesignatorKind::ScsiName => (0x8, UTF8),
            DesignatorKind::Other(bits) => (bits & 0x0f, BINARY),
        }
    }
}

/// One designation descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Designator<'a> {
    /// What it names.
    pub association: Association,
    /// Its type.
    pub kind: DesignatorKind,
    /// The designator itself, at most 255 bytes.
    pub bytes: &'a [u8],
}

/// Iterator over the whole descriptors of a page 83h.
#[derive(Clone, Debug)]
pub struct Designators<'a> {
    rest: &'a [u8],
}

/// The descriptors of a page 83h; `None` if it is not that page. A descriptor
/// that runs over the end of the page ends the iteration.
pub fn designators(page: &[u8]) -> Option<Designators<'_>> {
    body(page, IDENTIFICATION).map(|rest| Designators { rest })
}

impl<'a> Iterator for Designators<'a> {
    type Item = Designator<'a>;

    fn next(&mut self) -> Option<Designator<'a>> {
        let len = usize::from(*self.rest.get(3)?);
        let bytes = self.rest.get(4..4 + len)?;
        let flags = self.rest[1];
        self.rest = &self.rest[4 + len..];
        let association = match flags >> 4 & 0x03 {
            0 => Association::Lu,
            1 => Association::TargetPort,
            2 => Association::TargetDevice,
            _ => Association::Reserved,
        };
        Some(Designator { association, kind: DesignatorKind::from_bits(flags), bytes })
    }
}

impl Designator<'_> {
    /// The target port group a [`DesignatorKind::TargetPortGroup`] names.
    pub fn target_port_group(&self) -> Option<u16> {
        (self.kind == DesignatorKind::TargetPortGroup).then(|| be::u16_at(self.bytes, 2))?
    }

    /// The port a [`DesignatorKind::RelativeTargetPort`] names.
    pub fn relative_target_port(&self) -> Option<u16> {
        (self.kind == DesignatorKind::RelativeTargetPort).then(|| be::u16_at(self.bytes, 2))?
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (kind, code_set) = self.kind.to_bits();
        let association = match self.association {
            Association::Lu => 0,
            Association::TargetPort => 1,
            Association::TargetDevice => 2,
            Association::Reserved => 3,
        };
        let len = u8::try_from(self.bytes.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[code_set, association << 4 | kind, 0, len]);
        out.extend_from_slice(&self.bytes[..usize::from(len)]);
    }

    /// How good a WWID this designator makes (larger is better); `None` if it
    /// makes none.
    pub(super) fn wwid_rank(&self) -> Option<u8> {
        if self.association != Association::Lu {
            return None;
        }
        let len = self.bytes.len();
        match self.kind {
            DesignatorKind::Naa => match (self.bytes.first()? >> 4, len) {
                (6, 16) => Some(8),
                (5, 8) => Some(7),
                (2, 8) => Some(6),
                (3, 8) => Some(1),
                _ => None,
            },
            DesignatorKind::Eui64 => matches!(len, 8 | 12 | 16).then_some(4),
            DesignatorKind::ScsiName => self.scsi_name().map(|_| 3),
            DesignatorKind::T10Vendor => (len >= 8).then_some(2),
            _ => None,
        }
    }

    /// The WWID this designator makes. multipath-tools cuts it at 127
    /// characters; we do not, lest two LUs look like one.
    pub(super) fn wwid(&self) -> Option<String> {
        Some(match self.kind {
            DesignatorKind::Naa => format!("3{}", hex(self.bytes)),
            DesignatorKind::Eui64 => format!("2{}", hex(self.bytes)),
            DesignatorKind::ScsiName => match self.scsi_name()? {
                ("eui.", rest) => format!("2{}", rest.to_ascii_lowercase()),
                ("naa.", rest) => format!("3{}", rest.to_ascii_lowercase()),
                (_, rest) => format!("8{rest}"),
            },
            DesignatorKind::T10Vendor => format!("1{}", until_nul(&fold_blanks(self.bytes))),
            _ => return None,
        })
    }

    /// Prefix and rest of a SCSI name string of a known naming authority.
    fn scsi_name(&self) -> Option<(&'static str, String)> {
        let prefix =
            ["eui.", "naa.", "iqn."].into_iter().find(|p| self.bytes.starts_with(p.as_bytes()))?;
        Some((prefix, until_nul(&self.bytes[4..])))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn until_nul(bytes: &[u8]) -> String {
    visible(bytes.split(|b| *b == 0).next().unwrap_or(&[]))
}
