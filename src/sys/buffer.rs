//! Page-aligned buffers for O_DIRECT and for coalescing.
//!
//! Not a general allocator: one buffer is one piece of private memory that a
//! transport puts between a misaligned request and the kernel.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
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

#[cfg(test)]
mod tests {
    use super::*;

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
