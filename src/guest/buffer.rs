//! Memory of our own that carries data, addressable as a [`Segment`].
//!
//! For bounce buffers (a transport whose alignment the guest's buffer does not
//! meet), private reads of checkers, and tests of the fronts. Not shared with
//! the guest. Whoever owns the buffer keeps it until no segment of it is used.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use crate::guest::copy;
use crate::io::Segment;

/// Alignment of every buffer, in bytes: enough for direct I/O everywhere.
pub const ALIGN: usize = 4096;

/// A zero-filled, page-aligned buffer with a stable address.
#[derive(Debug)]
pub struct Buffer {
    addr: usize,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` zero bytes.
    ///
    /// # Panics
    ///
    /// If `len` exceeds what an allocation can have.
    pub fn zeroed(len: usize) -> Buffer {
        let layout = layout(len);
        // SAFETY: the layout's size is not zero. A `Vec` would not do: its
        // content may not be written behind a shared borrow by the kernel.
        let ptr = unsafe { alloc_zeroed(layout) };
        if ptr.is_null() {
            handle_alloc_error(layout);
        }
        Buffer { addr: ptr as usize, len }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The whole buffer; valid as long as the buffer is.
    pub fn segment(&self) -> Segment {
        Segment { addr: self.addr, len: self.len }
    }

    /// A copy of the content.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        copy::copy_in(&[self.segment()], 0, &mut bytes);
        bytes
    }

    /// Overwrites from the start; returns how many bytes there was room for.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        copy::copy_out(&[self.segment()], 0, bytes)
    }
}

fn layout(len: usize) -> Layout {
    // Never of size zero, which the allocator does not allow.
    Layout::from_size_align(len.max(1), ALIGN).expect("buffer longer than isize::MAX")
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with the same layout, freed only here.
        unsafe { dealloc(self.addr as *mut u8, layout(self.len)) };
    }
}
