//! Copies between segment lists and our own bytes.
//!
//! Used by the fronts (headers in, status out) and by transports that bounce.
//! Not for ring structures, which `guest::ring` reads field by field.
//!
//! **Why these are safe functions.** They dereference the raw addresses of the
//! [`Segment`]s they are given. A segment is an address pair that anybody in
//! this crate could make up, so their soundness is a contract of the crate and
//! not of the compiler: segments come only from [`Memory::segments`] (a checked
//! range of a mapped region) or from a [`Buffer`] that its holder owns, and
//! whoever holds a segment keeps the memory generation or the buffer
//! alive (`io::Segment` says so). A front, which may not use `unsafe`, gets
//! its segments for the duration of a call from a queue thread that holds the
//! generation. Making up a `Segment` from an integer is a bug wherever it
//! happens, exactly as calling these with one would be.
//!
//! The guest may write the same bytes at the same time. No Rust reference to
//! them is ever formed; what is copied in is then validated and used from the
//! copy (law 7).
//!
//! [`Memory::segments`]: crate::guest::memory::Memory::segments
//! [`Buffer`]: crate::guest::buffer::Buffer

use crate::io::Segment;

/// Walks the part of `segments` that starts `offset` bytes in and is at most
/// `len` bytes long: `f(address, bytes done before, length)` for each piece.
#[inline]
fn pieces(
    segments: &[Segment],
    offset: usize,
    len: usize,
    mut f: impl FnMut(usize, usize, usize),
) -> usize {
    let (mut skip, mut done) = (offset, 0);
    for segment in segments {
        if done == len {
            break;
        }
        if skip >= segment.len {
            skip -= segment.len;
            continue;
        }
        let piece = (segment.len - skip).min(len - done);
        f(segment.addr + skip, done, piece);
        done += piece;
        skip = 0;
    }
    done
}

/// Copies from the segments, beginning `offset` bytes in, until `buf` is full
/// or the segments end; returns the number of bytes copied.
#[inline]
pub fn copy_in(segments: &[Segment], offset: usize, buf: &mut [u8]) -> usize {
    let to = buf.as_mut_ptr();
    let len = buf.len();
    pieces(segments, offset, len, |addr, done, piece| {
        // SAFETY: `pieces` keeps `done + piece <= len`, so the result is in `buf`.
        let to = unsafe { to.add(done) };
        // SAFETY: the segment is mapped (module contract) and no reference to
        // it exists; `buf` is ours alone, so the two do not overlap. Safe code
        // cannot read memory that the guest may be writing.
        unsafe { std::ptr::copy_nonoverlapping(addr as *const u8, to, piece) };
    })
}

/// Copies `bytes` to the segments, beginning `offset` bytes in; returns how
/// many there was room for.
#[inline]
pub fn copy_out(segments: &[Segment], offset: usize, bytes: &[u8]) -> usize {
    let from = bytes.as_ptr();
    pieces(segments, offset, bytes.len(), |addr, done, piece| {
        // SAFETY: `pieces` keeps `done + piece <= bytes.len()`.
        let from = unsafe { from.add(done) };
        // SAFETY: as in `copy_in`, the other way round.
        unsafe { std::ptr::copy_nonoverlapping(from, addr as *mut u8, piece) };
    })
}

/// Sets up to `len` bytes of the segments, beginning `offset` bytes in, to
/// `value`; returns how many there were.
pub fn fill(segments: &[Segment], offset: usize, value: u8, len: usize) -> usize {
    pieces(segments, offset, len, |addr, _, piece| {
        // SAFETY: the segment is mapped (module contract); no reference to it exists.
        unsafe { std::ptr::write_bytes(addr as *mut u8, value, piece) };
    })
}

/// The `N` bytes that begin `offset` bytes in; `None` if the segments end
/// before. For wire structs and little-endian fields.
#[inline]
pub fn read_array<const N: usize>(segments: &[Segment], offset: usize) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    (copy_in(segments, offset, &mut bytes) == N).then_some(bytes)
}

/// Appends to `out` the segments of the `len` bytes that begin `offset` bytes
/// in, touching no memory; returns the number of bytes they cover.
pub fn slice(segments: &[Segment], offset: usize, len: usize, out: &mut Vec<Segment>) -> usize {
    pieces(segments, offset, len, |addr, _, piece| out.push(Segment { addr, len: piece }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::buffer::Buffer;

    #[test]
    fn copies_cross_segments_and_stop_at_the_end() {
        let (a, b) = (Buffer::zeroed(3), Buffer::zeroed(5));
        let segments = [a.segment(), Segment { addr: a.segment().addr, len: 0 }, b.segment()];
        assert_eq!(copy_out(&segments, 1, b"abcdefghij"), 7);
        assert_eq!(a.to_vec(), b"\0ab");
        assert_eq!(b.to_vec(), b"cdefg");
        let mut back = [0; 4];
        assert_eq!(copy_in(&segments, 2, &mut back), 4);
        assert_eq!(&back, b"bcde");
        assert_eq!(copy_in(&segments, 6, &mut back), 2);
        assert_eq!(copy_in(&segments, 8, &mut back), 0);
        assert_eq!(copy_in(&segments, usize::MAX, &mut back), 0);
    }

    #[test]
    fn short_object_is_not_read() {
        let a = Buffer::zeroed(7);
        assert_eq!(read_array::<8>(&[a.segment()], 0), None);
        assert_eq!(read_array::<7>(&[a.segment()], 0), Some([0; 7]));
    }

    #[test]
    fn slice_and_fill_cover_exactly_the_range() {
        let (a, b) = (Buffer::zeroed(4), Buffer::zeroed(4));
        let mut out = Vec::new();
        assert_eq!(slice(&[a.segment(), b.segment()], 3, 2, &mut out), 2);
        assert_eq!(out.len(), 2);
        assert_eq!(fill(&out, 0, 0xff, 100), 2);
        assert_eq!(a.to_vec(), [0, 0, 0, 0xff]);
        assert_eq!(b.to_vec(), [0xff, 0, 0, 0]);
    }
}
