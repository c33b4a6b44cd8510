//! Single loads and stores in memory that somebody else writes too.
//!
//! Rings and in-flight areas are checked once, turned into a [`Shared`] range,
//! and from then on touched only through the methods here: each is one atomic
//! access of its width, bounds-checked. Not for data buffers, see
//! `guest::copy`. Every store to a ring or an in-flight area passes through
//! this file, so the tests can stop the world after any one of them.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// A mapped range of shared memory, 8-byte aligned at most where it needs to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared {
    base: usize,
    len: usize,
}

macro_rules! access {
    ($load:ident, $store:ident, $atomic:ty, $value:ty) => {
        /// One atomic load at a byte offset.
        #[inline]
        #[allow(dead_code)] // the set is complete, not every width is needed both ways
        pub(super) fn $load(self, offset: usize, order: Ordering) -> $value {
            let ptr = self.at(offset, size_of::<$value>()) as *mut $value;
            // SAFETY: `at` has checked that the value lies in the range and is
            // aligned; `new`'s caller keeps the range mapped. Safe code has no
            // atomic access to memory another process maps.
            unsafe { <$atomic>::from_ptr(ptr) }.load(order)
        }

        /// One atomic store at a byte offset.
        #[inline]
        #[allow(dead_code)]
        pub(super) fn $store(self, offset: usize, value: $value, order: Ordering) {
            #[cfg(test)]
            if !power::spend() {
                return;
            }
            let ptr = self.at(offset, size_of::<$value>()) as *mut $value;
            // SAFETY: as for the load.
            unsafe { <$atomic>::from_ptr(ptr) }.store(value, order);
        }
    };
}

impl Shared {
    /// The range `[base, base + len)`.
    ///
    /// # Safety
    ///
    /// The range must stay mapped, readable and writable, for as long as the
    /// value or a copy of it is used: its owner holds the mapping beside it.
    pub(super) unsafe fn new(base: usize, len: usize) -> Shared {
        Shared { base, len }
    }

    #[inline]
    fn at(self, offset: usize, size: usize) -> usize {
        assert!(offset <= self.len && size <= self.len - offset, "beyond shared range");
        let addr = self.base + offset;
        assert!(addr & (size - 1) == 0, "misaligned shared access");
        addr
    }

    access!(load_u8, store_u8, AtomicU8, u8);
    access!(load_u16, store_u16, AtomicU16, u16);
    access!(load_u32, store_u32, AtomicU32, u32);
    access!(load_u64, store_u64, AtomicU64, u64);
}

/// A power failure on demand: of the stores made inside [`power::on`], the
/// first `n` after `cut_after(n)` reach memory and no later one does.
#[cfg(test)]
pub(super) mod power {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<u64> = const { Cell::new(0) };
        static LOST: Cell<bool> = const { Cell::new(false) };
        static ON: Cell<bool> = const { Cell::new(false) };
    }

    pub(in crate::guest) fn cut_after(stores: u64) {
        LEFT.set(stores);
        LOST.set(false);
    }

    /// Runs `f` on the failing supply; everything else has power always.
    pub(in crate::guest) fn on<T>(f: impl FnOnce() -> T) -> T {
        ON.set(true);
        let result = f();
        ON.set(false);
        result
    }

    /// Whether a store has been lost since `cut_after`.
    pub(in crate::guest) fn failed() -> bool {
        LOST.get()
    }

    pub(super) fn spend() -> bool {
        if !ON.get() {
            return true;
        }
        let left = LEFT.get();
        LEFT.set(left.saturating_sub(1));
        LOST.set(LOST.get() || left == 0);
        left > 0
    }
}
