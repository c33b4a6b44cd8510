//! Vital product data pages 00h, 80h and 83h, and the WWID made from them
//! (SPC-5 7.7), and the pages of a disk, B0h to B2h (SBC-4 6.6).
//!
//! Wire format and naming rules only: which page to ask for, and what to do
//! when the WWID of a path changes, is decided elsewhere.

use super::be;
use super::inquiry::Inquiry;

mod designator;
mod disk;
mod edit;

pub use designator::{Association, Designator, DesignatorKind, Designators, designators};
pub use disk::{BlockCharacteristics, BlockLimits, Provisioning};
pub use edit::{
    Ceiling, keep_lu_designators, limit_block_limits, own_block_limits, supported_of_absent,
    supported_with_block_limits, withheld,
};

#[cfg(test)]
mod tests;

/// Supported VPD pages.
pub const SUPPORTED_PAGES: u8 = 0x00;
/// Unit serial number.
pub const SERIAL: u8 = 0x80;
/// Device identification.
pub const IDENTIFICATION: u8 = 0x83;
/// Block limits.
pub const BLOCK_LIMITS: u8 = 0xb0;
/// Block device characteristics.
pub const BLOCK_CHARACTERISTICS: u8 = 0xb1;
/// Logical block provisioning.
pub const PROVISIONING: u8 = 0xb2;

/// The part of a VPD page behind its four-byte header, if it is the page
/// asked for. A page cut short by the allocation length yields what is there.
pub(super) fn body(page: &[u8], code: u8) -> Option<&[u8]> {
    let len = usize::from(be::u16_at(page, 2)?);
    let rest = page.get(4..).filter(|_| page[1] == code)?;
    Some(&rest[..len.min(rest.len())])
}

/// A VPD page of a disk: header and body. The body is cut at 64 KiB.
pub(super) fn page(code: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut page = vec![super::inquiry::TYPE_DISK, code];
    page.extend_from_slice(&len.to_be_bytes());
    page.extend_from_slice(&body[..usize::from(len)]);
    page
}

/// Codes of the pages the LU supports (page 00h); `None` if it is not that
/// page.
pub fn supported(page: &[u8]) -> Option<&[u8]> {
    body(page, SUPPORTED_PAGES)
}

/// Page 00h. `codes` must be in ascending order and include 00h.
pub fn encode_supported(codes: &[u8]) -> Vec<u8> {
    page(SUPPORTED_PAGES, codes)
}

/// The unit serial number without padding (page 80h), possibly empty; `None`
/// if it is not that page.
pub fn serial(page: &[u8]) -> Option<String> {
    Some(be::ascii_trimmed(body(page, SERIAL)?))
}

/// Page 80h.
pub fn encode_serial(serial: &str) -> Vec<u8> {
    let field: Vec<u8> = serial
        .chars()
        .map(|ch| u8::try_from(ch).ok().filter(u8::is_ascii).unwrap_or(b'?'))
        .collect();
    page(SERIAL, &field)
}

/// Page 83h with these designators, in order.
pub fn encode_identification(list: &[Designator<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for designator in list {
        designator.encode(&mut body);
    }
    page(IDENTIFICATION, &body)
}

/// The WWID as multipath-tools prints it, so that one string can be searched
/// for in the logs of both.
///
/// Made from page 83h: among the designators of the *LU* the best of NAA-6 >
/// NAA-5 > NAA-2 > EUI-64 > SCSI name string > T10 vendor > NAA-3, the first
/// of equals. `None` of these: `S`, vendor, product and page 80h serial,
/// blanks folded to `_`, as udev's `scsi_id` does; vendor and product are
/// part of it because serial numbers of two makers may collide (law 2).
///
/// `None` if neither page yields anything: such a LU cannot be identified.
pub fn wwid(page83: Option<&[u8]>, page80: Option<(&Inquiry, &[u8])>) -> Option<String> {
    page83.and_then(wwid_from_identification).or_else(|| {
        let (inquiry, page) = page80?;
        wwid_from_serial(inquiry, page)
    })
}

fn wwid_from_identification(page: &[u8]) -> Option<String> {
    let mut best: Option<(u8, Designator<'_>)> = None;
    for designator in designators(page)? {
        let Some(rank) = designator.wwid_rank() else { continue };
        if best.as_ref().is_none_or(|(so_far, _)| rank > *so_far) {
            best = Some((rank, designator));
        }
    }
    best.and_then(|(_, designator)| designator.wwid())
}

fn wwid_from_serial(inquiry: &Inquiry, page: &[u8]) -> Option<String> {
    let serial = body(page, SERIAL)?.trim_ascii();
    if serial.iter().all(|b| *b == 0) {
        return None;
    }
    // The fields at their full width: a vendor of eight characters runs into
    // the product without a blank between them, in scsi_id too.
    let name = format!("{:8}{:16}", inquiry.vendor, inquiry.product);
    Some(format!("S{}", visible(&fold_blanks(&[name.as_bytes(), serial].concat()))))
}

/// Runs of blanks become one `_`; blanks at the end disappear.
fn fold_blanks(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut pending = false;
    for &byte in text {
        if byte == b' ' {
            pending = true;
            continue;
        }
        if std::mem::take(&mut pending) {
            out.push(b'_');
        }
        out.push(byte);
    }
    out
}

/// Bytes that do not print become `\xNN`: safe to show, and two names that
/// differ stay different.
fn visible(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if (0x20..0x7f).contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}
