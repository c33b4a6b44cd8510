//! Edits of the LU's VPD pages that make it *one LU*, not N paths: what a
//! guest is shown must not depend on the path that answered.
//!
//! The pages given must be whole, fetched with an allocation length of our
//! own; cut the result to the guest's. What is cut or malformed is never
//! passed on in parts that could name a port: the edit ends there.

use super::{BLOCK_LIMITS, BlockLimits, IDENTIFICATION, SUPPORTED_PAGES, body};
use crate::scsi::be;
use crate::scsi::inquiry::TYPE_DISK;

/// SCSI Ports: every port of the target device.
const SCSI_PORTS: u8 = 0x88;
/// Third-Party Copy: what INQUIRY's 3PC announces.
const THIRD_PARTY_COPY: u8 = 0x8f;
/// Protocol Specific Logical Unit Information, and Port Information: by port.
const PROTOCOL_LU: u8 = 0x90;
const PROTOCOL_PORT: u8 = 0x91;

/// Whether a page is withheld from guests that see one LU: its content is the
/// ports' (88h, 90h, 91h) or announces third-party copy (8Fh), as 3PC does.
/// INQUIRY for it gets `05/24/00`.
pub fn withheld(code: u8) -> bool {
    matches!(code, SCSI_PORTS | THIRD_PARTY_COPY | PROTOCOL_LU | PROTOCOL_PORT)
}

/// Page 00h without the [`withheld`] pages, and with B0h in its place in the
/// order: where the LU has no such page we make it ([`own_block_limits`]).
///
/// A page that is not 00h or is cut within its header yields a list of 00h
/// and B0h.
pub fn supported_with_block_limits(page00: &[u8]) -> Vec<u8> {
    let codes = body(page00, SUPPORTED_PAGES).unwrap_or(&[SUPPORTED_PAGES]);
    let mut kept: Vec<u8> = codes.iter().copied().filter(|code| !withheld(*code)).collect();
    if !kept.contains(&BLOCK_LIMITS) {
        let place = kept.iter().position(|code| *code > BLOCK_LIMITS).unwrap_or(kept.len());
        kept.insert(place, BLOCK_LIMITS);
    }
    rebuilt(page00, SUPPORTED_PAGES, &kept)
}

/// The page 00h of a LUN where no LU is: only itself, with the peripheral
/// qualifier of [`crate::scsi::inquiry::absent`]. Every other page gets
/// `05/24/00`.
pub fn supported_of_absent() -> [u8; 5] {
    [0x7f, SUPPORTED_PAGES, 0, 1, SUPPORTED_PAGES]
}

/// Page 83h with the designators of the LU only, byte for byte.
///
/// Those of the target port (relative port, target port group, port name) go
/// because they are those of the path that answered. Those of the target
/// *device* go, too: an array may show itself as several target devices, each
/// reached by other paths (every tcm_loop or iSCSI target of LIO has its own
/// name), so a guest would see them change. The page ends at the first
/// designator that runs over its end.
///
/// A page that is not 83h or is cut within its header yields an empty list.
pub fn keep_lu_designators(page: &[u8]) -> Vec<u8> {
    let mut rest = body(page, IDENTIFICATION).unwrap_or(&[]);
    let mut kept = Vec::with_capacity(rest.len());
    while let Some(len) = rest.get(3).map(|len| 4 + usize::from(*len)) {
        let Some(descriptor) = rest.get(..len) else { break };
        let association = descriptor[1] >> 4 & 0x03;
        let kind = descriptor[1] & 0x0f;
        // Relative port (4), port group (5) and protocol specific port (9)
        // designators name a port whatever the association claims.
        if association == 0 && !matches!(kind, 0x4 | 0x5 | 0x9) {
            kept.extend_from_slice(descriptor);
        }
        rest = &rest[len..];
    }
    rebuilt(page, IDENTIFICATION, &kept)
}

/// Upper bounds for a Block Limits page: what every path and we can do, the
/// minimum over all of them. In logical blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ceiling {
    /// Longest transfer of one command; 0 = no bound.
    pub max_transfer: u32,
    /// Most blocks of one UNMAP, where there is a bound; 0 = no UNMAP.
    pub max_unmap: Option<u32>,
    /// Most descriptors of one UNMAP, where there is a bound; 0 = no UNMAP.
    pub max_unmap_descriptors: Option<u32>,
    /// Most blocks of one WRITE SAME; 0 = no bound.
    pub max_write_same: u64,
}

/// Body of a page B0h between SBC-2 and SBC-3 that has the limits of UNMAP and
/// WRITE SAME, and of one as SBC-3 has it.
const DRAFT_LEN: usize = 0x28;
const FULL_LEN: usize = 0x3c;

/// Lowers the limits of page B0h to `ceiling`; reserved bytes stay. Fields the
/// page does not reach (older standards) are not added, but a whole page that
/// has the limits of UNMAP and WRITE SAME is made as long as SBC-3 has it, with
/// zeroes, which say nothing: Linux' sd reads these limits from no shorter one,
/// and LIO tells no longer one; discards then fail for their length.
///
/// `max_transfer` bounds MAXIMUM and OPTIMAL TRANSFER LENGTH, the maximum
/// atomic transfer lengths, and MAXIMUM COMPARE AND WRITE LENGTH (which
/// transfers twice its blocks); a granularity above it is withdrawn. A page
/// that is not B0h, or shorter than SBC-2's, is replaced by
/// [`own_block_limits`].
pub fn limit_block_limits(page: &mut Vec<u8>, ceiling: &Ceiling) {
    let Some(len) = body(page, BLOCK_LIMITS).map(<[u8]>::len).filter(|len| *len >= 12) else {
        *page = own_block_limits(ceiling);
        return;
    };
    let is_whole = be::u16_at(page, 2).is_some_and(|said| usize::from(said) == len);
    let len = if is_whole && (DRAFT_LEN..FULL_LEN).contains(&len) {
        page.truncate(4 + len);
        page.resize(4 + FULL_LEN, 0);
        be::put(page, 2, [0, 0x3c]);
        FULL_LEN
    } else {
        len
    };
    let body = &mut page[4..4 + len];
    if ceiling.max_transfer != 0 {
        limit_transfers(body, ceiling.max_transfer);
    }
    for (offset, bound) in [(16, ceiling.max_unmap), (20, ceiling.max_unmap_descriptors)] {
        if let (Some(value), Some(bound)) = (be::u32_at(body, offset), bound) {
            be::put(body, offset, value.min(bound).to_be_bytes());
        }
    }
    if let Some(value) = be::u64_at(body, 32) {
        let bound = lower(value, ceiling.max_write_same);
        be::put(body, 32, bound.to_be_bytes());
    }
}

/// Offsets are those in the body: four less than in the standard's table.
fn limit_transfers(body: &mut [u8], max: u32) {
    body[1] = body[1].min(u8::try_from(max / 2).unwrap_or(u8::MAX));
    if u32::from(be::u16_at(body, 2).unwrap_or(0)) > max {
        be::put(body, 2, [0, 0]); // no granularity is better than one out of reach
    }
    be::put(body, 4, lower(be::u32_at(body, 4).unwrap_or(0), max).to_be_bytes());
    for optional in [8, 40, 52] {
        // Optimal, and the two maximum atomic lengths: 0 = none stated.
        if let Some(value) = be::u32_at(body, optional) {
            be::put(body, optional, value.min(max).to_be_bytes());
        }
    }
}

/// The lower of two limits of which 0 means "none".
fn lower<N: Ord + Default>(a: N, b: N) -> N {
    if a == N::default() {
        b
    } else if b == N::default() {
        a
    } else {
        a.min(b)
    }
}

/// Page B0h for a LU that has none: only what `ceiling` says.
pub fn own_block_limits(ceiling: &Ceiling) -> Vec<u8> {
    BlockLimits {
        max_transfer: ceiling.max_transfer,
        max_unmap: ceiling.max_unmap.unwrap_or(0),
        max_unmap_descriptors: ceiling.max_unmap_descriptors.unwrap_or(0),
        max_write_same: ceiling.max_write_same,
        ..BlockLimits::default()
    }
    .encode()
}

/// A page with the peripheral byte of `page` and this body.
fn rebuilt(page: &[u8], code: u8, body: &[u8]) -> Vec<u8> {
    let mut new = super::page(code, body);
    new[0] = page.first().copied().unwrap_or(TYPE_DISK);
    new
}

#[cfg(test)]
mod tests;
