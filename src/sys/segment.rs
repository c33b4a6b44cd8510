//! Raw copies between [`Segment`] lists and byte slices.
//!
//! Guest memory is shared with a running guest, so no Rust reference is ever
//! made into it (law 7): bytes are copied by address. A guest that writes
//! while we copy gets a mixture of old and new bytes, as it would from a DMA
//! engine; nothing here looks at a byte twice.

use crate::io::Segment;

/// Walks the parts of `segments` from byte `offset` on, at most `len` bytes,
/// as `(position in the slice, address, length)`. Returns the bytes covered.
fn walk(
    segments: &[Segment],
    mut offset: usize,
    len: usize,
    mut visit: impl FnMut(usize, usize, usize),
) -> usize {
    let mut done = 0;
    for segment in segments {
        if done == len {
            break;
        }
        if offset >= segment.len {
            offset -= segment.len;
            continue;
        }
        let part = (segment.len - offset).min(len - done);
        visit(done, segment.addr + offset, part);
        done += part;
        offset = 0;
    }
    done
}

/// Copies from the segments, starting at byte `offset` of them, into `into`.
/// Returns the bytes copied: less than `into.len()` if the segments end first.
///
/// # Safety
/// Every segment is mapped and readable for the whole call, and none overlaps
/// `into`.
pub unsafe fn copy_in(segments: &[Segment], offset: usize, into: &mut [u8]) -> usize {
    let target = into.as_mut_ptr();
    walk(segments, offset, into.len(), |at, addr, len| {
        // SAFETY: `at + len <= into.len()` by `walk`.
        let target = unsafe { target.add(at) };
        // SAFETY: the caller vouches for the segment, `walk` stays inside
        // both. A safe copy would need a reference into guest memory.
        unsafe { std::ptr::copy_nonoverlapping(addr as *const u8, target, len) };
    })
}

/// Copies `from` into the segments, starting at byte `offset` of them.
/// Returns the bytes copied: less than `from.len()` if the segments end first.
///
/// # Safety
/// Every segment is mapped and writable for the whole call, and none overlaps
/// `from`.
pub unsafe fn copy_out(segments: &[Segment], offset: usize, from: &[u8]) -> usize {
    let source = from.as_ptr();
    walk(segments, offset, from.len(), |at, addr, len| {
        // SAFETY: `at + len <= from.len()` by `walk`.
        let source = unsafe { source.add(at) };
        // SAFETY: as in `copy_in`.
        unsafe { std::ptr::copy_nonoverlapping(source, addr as *mut u8, len) };
    })
}

/// Fills the segments with zeroes.
///
/// # Safety
/// Every segment is mapped and writable for the whole call.
pub unsafe fn zero(segments: &[Segment]) {
    for segment in segments {
        // SAFETY: the caller vouches for the segment.
        unsafe { std::ptr::write_bytes(segment.addr as *mut u8, 0, segment.len) };
    }
}

/// Whether every segment starts at a multiple of `address` bytes and is a
/// multiple of `length` bytes long (both powers of two): what O_DIRECT asks.
pub fn aligned(segments: &[Segment], address: usize, length: usize) -> bool {
    segments.iter().all(|s| s.addr & (address - 1) == 0 && s.len & (length - 1) == 0)
}

/// Pages touched, counting a page once per segment: an upper bound of the
/// physical segments the kernel makes of the list.
pub fn pages(segments: &[Segment]) -> usize {
    const PAGE: usize = 4096;
    segments.iter().map(|s| ((s.addr & (PAGE - 1)) + s.len).div_ceil(PAGE)).sum()
}

/// A segment over a buffer of ours. It does not borrow the buffer: see
/// [`Segment`] for who keeps it alive.
pub fn of(buffer: &mut [u8]) -> Segment {
    Segment { addr: buffer.as_mut_ptr() as usize, len: buffer.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_cross_segment_borders_at_any_offset() {
        let mut a = [1u8, 2, 3];
        let mut b = [4u8, 5];
        let mut c = [6u8, 7, 8, 9];
        let list = [of(&mut a), of(&mut []), of(&mut b), of(&mut c)];
        for offset in 0..=9 {
            let mut got = [0u8; 9];
            // SAFETY: the arrays live, and are not otherwise used, for the call.
            let n = unsafe { copy_in(&list, offset, &mut got) };
            assert_eq!(n, 9 - offset);
            assert_eq!(&got[..n], &[1, 2, 3, 4, 5, 6, 7, 8, 9][offset..]);
        }
        // SAFETY: as above.
        assert_eq!(unsafe { copy_out(&list, 2, &[30, 40, 50, 60]) }, 4);
        assert_eq!((a, b, c), ([1, 2, 30], [40, 50], [60, 7, 8, 9]));
        let list = [of(&mut b), of(&mut c)];
        // SAFETY: as above.
        unsafe { zero(&list) };
        assert_eq!((b, c), ([0; 2], [0; 4]));
    }

    #[test]
    fn alignment_and_pages_count_both_ends() {
        let at = |addr, len| Segment { addr, len };
        assert!(aligned(&[at(4096, 512), at(8192, 1024)], 512, 512));
        assert!(!aligned(&[at(4100, 512)], 512, 512));
        assert!(aligned(&[at(4100, 512)], 4, 512));
        assert!(!aligned(&[at(4096, 100)], 4, 512));
        assert_eq!(pages(&[at(4096, 4096)]), 1);
        assert_eq!(pages(&[at(4096 + 512, 4096)]), 2);
        assert_eq!(pages(&[at(0, 1), at(4095, 2)]), 3);
    }
}
