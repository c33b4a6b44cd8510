//! Page-aligned buffers for O_DIRECT and for coalescing.
//!
//! Not a general allocator: an [`AlignedBuffer`] is one piece of private memory
//! that a transport puts between a misaligned request and the kernel, an
//! [`Arena`] a large one of which its owner lends parts.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::io;
use std::ptr::NonNull;

use crate::io::Segment;

const ALIGN: usize = 4096;

/// Private memory at a page boundary.
pub struct AlignedBuffer {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the buffer owns its memory exclusively, like a `Box<[u8]>`; a `Vec`
// cannot give the alignment.
unsafe impl Send for AlignedBuffer {}

impl AlignedBuffer {
    /// A zeroed buffer of `len` bytes, rounded up to whole pages (at least one).
    pub fn new(len: usize) -> AlignedBuffer {
        let pages = len.div_ceil(ALIGN).max(1) * ALIGN;
        let layout = Layout::from_size_align(pages, ALIGN).expect("a transfer fits memory");
        // SAFETY: the layout has a size above zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        AlignedBuffer { start, layout }
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// Never: a buffer has at least one page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The first `len` bytes as a segment; the owner keeps the buffer until
    /// whoever it gives the segment to has returned it.
    pub fn segment(&mut self, len: usize) -> Segment {
        assert!(len <= self.len(), "a segment stays inside its buffer");
        Segment { addr: self.start.as_ptr() as usize, len }
    }

    /// The bytes; not while the kernel may be writing to them.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: start and size are those of the allocation, which is
        // initialised and owned; `Vec` cannot give the alignment.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len()) }
    }

    /// The bytes, writable; not while the kernel may be using them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len()) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuffer({} bytes)", self.len())
    }
}

/// Private memory at a page boundary whose pages cost nothing until they are
/// first used. Its owner sees to it that parts which the kernel has are not
/// looked at.
pub struct Arena {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: as `AlignedBuffer`.
unsafe impl Send for Arena {}

impl Arena {
    /// Zeroed memory of `len` bytes, rounded up to whole pages (at least one).
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn new(len: usize) -> io::Result<Arena> {
        let len = len.div_ceil(ALIGN).max(1) * ALIGN;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel likes it touches no other.
        // The allocator would write zeroes to all of it.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Arena { start, len })
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: it has at least one page.
    pub fn is_empty(&self) -> bool {
        false
    }

    fn check(&self, at: usize, len: usize) {
        assert!(at <= self.len && len <= self.len - at, "a part lies inside its arena");
    }

    /// `len` bytes from byte `at` on, as a segment.
    pub fn segment(&self, at: usize, len: usize) -> Segment {
        self.check(at, len);
        Segment { addr: self.start.as_ptr() as usize + at, len }
    }

    /// The same bytes; not while the kernel may be writing to them.
    pub fn bytes(&self, at: usize, len: usize) -> &[u8] {
        self.check(at, len);
        // SAFETY: inside the mapping, as checked.
        let start = unsafe { self.start.as_ptr().add(at) };
        // SAFETY: mapped, initialised and owned.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// The same bytes, writable; not while the kernel may be using them.
    pub fn bytes_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        self.check(at, len);
        // SAFETY: inside the mapping, as checked.
        let start = unsafe { self.start.as_ptr().add(at) };
        // SAFETY: as in `bytes`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this very length, and ours alone.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_lends_parts_of_whole_pages() {
        let mut arena = Arena::new(4097).unwrap();
        assert_eq!(arena.len(), 8192);
        assert_eq!(arena.segment(0, 1).addr % 4096, 0);
        arena.bytes_mut(4096, 4096)[4095] = 7;
        assert_eq!(arena.bytes(8191, 1), [7]);
        assert_eq!(arena.bytes(0, 4096), [0; 4096]);
        let outside = std::panic::catch_unwind(|| arena.segment(4096, 4097));
        assert!(outside.is_err());
    }

    #[test]
    fn starts_on_a_page_and_holds_at_least_what_was_asked() {
        for len in [0, 1, 4096, 4097] {
            let mut buffer = AlignedBuffer::new(len);
            assert!(buffer.len() >= len.max(1));
            assert_eq!(buffer.segment(len).addr % 4096, 0);
            buffer.bytes_mut()[len.saturating_sub(1)] = 7;
            assert_eq!(buffer.bytes()[len.saturating_sub(1)], 7);
        }
    }
}
