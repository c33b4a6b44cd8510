//! Logical unit numbers: the 8-byte LUN field of virtio-scsi (virtio 1.3
//! 5.6.6.1) and REPORT LUNS (SAM-5 4.7, SPC-5 6.33).
//!
//! Numbers only; which LU stands behind one is the front's business.
//! Single-level LUNs of 14 bits: peripheral addressing up to 255 and flat
//! addressing above, which is how Linux and QEMU number them, too.

use super::be;
use super::cdb::Cdb;
use super::sense::{FieldPointer, SenseCode};

/// Largest LUN flat addressing holds.
pub const LUN_MAX: u16 = 0x3fff;

/// The REPORT LUNS well-known LU as REPORT LUNS lists it.
const WELL_KNOWN_REPORT_LUNS: [u8; 8] = [0xc1, 0x01, 0, 0, 0, 0, 0, 0];

/// Whom a request of the guest is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A LU of a target.
    Unit {
        /// Target.
        target: u8,
        /// LUN, at most [`LUN_MAX`].
        lun: u16,
    },
    /// The REPORT LUNS well-known LU.
    WellKnownReportLuns,
}

/// Reads the LUN field of a virtio-scsi request: `01 TT`, then a single-level
/// LUN (peripheral `00 LL` or flat `4L LL`), then zeroes; or `C1 01` and
/// zeroes for the REPORT LUNS well-known LU. `None` for anything else: the
/// response is BAD_TARGET (INCORRECT_LUN on the control queue).
pub fn decode(raw: &[u8; 8]) -> Option<Address> {
    if *raw == WELL_KNOWN_REPORT_LUNS {
        return Some(Address::WellKnownReportLuns);
    }
    let [1, target, high, low, 0, 0, 0, 0] = *raw else { return None };
    // Peripheral addressing has a bus identifier in the low six bits; a bus
    // other than 0 is somewhere else.
    let high = match high {
        0 => 0,
        0x40..=0x7f => high & 0x3f,
        _ => return None,
    };
    Some(Address::Unit { target, lun: u16::from_be_bytes([high, low]) })
}

/// The LUN field for `lun` of `target`, as guests expect it in events:
/// peripheral addressing up to 255, flat above. Bits above [`LUN_MAX`] are
/// dropped.
pub fn encode(target: u8, lun: u16) -> [u8; 8] {
    let [high, low] = level(lun);
    [1, target, high, low, 0, 0, 0, 0]
}

/// The two bytes of a single-level LUN.
fn level(lun: u16) -> [u8; 2] {
    let [high, low] = (lun & LUN_MAX).to_be_bytes();
    [if high == 0 { 0 } else { 0x40 | high }, low]
}

/// Parameter data of REPORT LUNS, cut to `allocation` bytes: the LUNs in the
/// order given, for SELECT REPORT 00h (LUs), 01h (well-known LUs: our one) or
/// 02h (both).
///
/// # Errors
/// `05/24/00` for any other SELECT REPORT and for an allocation length under
/// 16 bytes, with the field of the CDB that is wrong.
pub fn report_luns(
    luns: impl IntoIterator<Item = u16>,
    select_report: u8,
    allocation: u32,
) -> Result<Vec<u8>, (SenseCode, FieldPointer)> {
    if select_report > 0x02 {
        return Err((SenseCode::INVALID_FIELD_IN_CDB, FieldPointer::cdb(2)));
    }
    if allocation < 16 {
        return Err((SenseCode::INVALID_FIELD_IN_CDB, FieldPointer::cdb(6)));
    }
    let mut data = vec![0; 8];
    if select_report != 0x01 {
        for lun in luns {
            let [high, low] = level(lun);
            data.extend_from_slice(&[high, low, 0, 0, 0, 0, 0, 0]);
        }
    }
    if select_report != 0x00 {
        data.extend_from_slice(&WELL_KNOWN_REPORT_LUNS);
    }
    let len = u32::try_from(data.len() - 8).unwrap_or(u32::MAX);
    be::put(&mut data, 0, len.to_be_bytes());
    data.truncate(usize::try_from(allocation).unwrap_or(usize::MAX));
    Ok(data)
}

/// [`report_luns`] as the CDB asks for it.
///
/// # Errors
/// As [`report_luns`]; `05/20/00` if `cdb` is no REPORT LUNS.
pub fn answer(
    cdb: &Cdb,
    luns: impl IntoIterator<Item = u16>,
) -> Result<Vec<u8>, (SenseCode, FieldPointer)> {
    let raw = cdb.as_slice();
    match (cdb.opcode(), raw.get(2), be::u32_at(raw, 6)) {
        (0xa0, Some(select), Some(allocation)) => report_luns(luns, *select, allocation),
        _ => Err((SenseCode::INVALID_OPCODE, FieldPointer::cdb(0))),
    }
}

/// The LUNs of REPORT LUNS data, as 8-byte fields; a list cut short by the
/// allocation length yields what is there.
pub fn parse(data: &[u8]) -> impl Iterator<Item = [u8; 8]> + '_ {
    let len = be::u32_at(data, 0).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let list = data.get(8..).unwrap_or(&[]);
    let list = &list[..len.min(list.len())];
    list.chunks_exact(8).filter_map(|lun| lun.try_into().ok())
}

#[cfg(test)]
mod tests;
