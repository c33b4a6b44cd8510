//! Reads and writes by io_uring on block nodes and files.
//!
//! The table of what one port has in the ring: list, expected length, bounce
//! buffer. Misaligned requests go through a page-aligned buffer of ours
//! (law 8: never through the page cache). Short results are reported as such;
//! continuing them is the request core's work. Owned by a queue thread.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::io::{Completion, ErrnoFrom, Segment, total_len};
use crate::sys::buffer::AlignedBuffer;
use crate::sys::file::DirectAlignment;
use crate::sys::segment;
use crate::sys::uring::{RwFlags, Uring};

/// Bounce buffers a port keeps for the next misaligned request.
const SPARE_BUFFERS: usize = 4;

/// One read or write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer<'a> {
    pub(super) write: bool,
    pub(super) offset: u64,
    pub(super) data: &'a [Segment],
    pub(super) flags: RwFlags,
}

/// An open file for the ring.
#[derive(Clone, Debug)]
pub(super) struct Direct {
    pub(super) file: Arc<File>,
    pub(super) alignment: DirectAlignment,
    pub(super) errno_from: ErrnoFrom,
}

/// One command in the ring.
#[derive(Debug, Default)]
struct Slot {
    /// What the kernel was given; must not move until it has taken it.
    list: Vec<Segment>,
    /// Where a bounced read goes afterwards.
    guest: Vec<Segment>,
    bounce: Option<AlignedBuffer>,
    expected: usize,
}

/// The commands one port has in its thread's ring.
#[derive(Debug)]
pub(super) struct Slots {
    busy: HashMap<u64, Slot, BuildHasherDefault<CookieHasher>>,
    spare: Vec<Slot>,
    buffers: Vec<AlignedBuffer>,
    capacity: usize,
}

/// The ring did not take it; nothing happened.
#[derive(Debug)]
pub(super) struct Full;

impl Slots {
    pub(super) fn new(capacity: usize) -> Slots {
        let mut busy = HashMap::default();
        busy.reserve(capacity);
        let spare = (0..capacity).map(|_| Slot::default()).collect();
        Slots { busy, spare, buffers: Vec::new(), capacity }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn busy(&self) -> usize {
        self.busy.len()
    }

    /// Queues one transfer under `cookie`, which is also its user data.
    pub(super) fn issue(
        &mut self,
        uring: &mut Uring,
        direct: &Direct,
        cookie: u64,
        transfer: &Transfer<'_>,
    ) -> Result<(), Full> {
        let mut slot = self.spare.pop().ok_or(Full)?;
        self.fill(&mut slot, direct.alignment, transfer);
        let fd = direct.file.as_fd();
        let Transfer { offset, flags, .. } = *transfer;
        let queued = if transfer.write {
            // SAFETY: the slot keeps the list, and the bounce buffer if there
            // is one, until the completion; the requester keeps its segments
            // (contract of `Segment`); the port keeps the file. Zero copy is
            // the point: safe code would copy every byte.
            unsafe { uring.writev(fd, &slot.list, offset, flags, cookie) }
        } else {
            // SAFETY: as above.
            unsafe { uring.readv(fd, &slot.list, offset, flags, cookie) }
        };
        match queued {
            Ok(()) => {
                let previous = self.busy.insert(cookie, slot);
                debug_assert!(previous.is_none(), "a cookie names one command at a time");
                Ok(())
            }
            Err(_) => {
                self.release(slot);
                Err(Full)
            }
        }
    }

    fn fill(&mut self, slot: &mut Slot, alignment: DirectAlignment, transfer: &Transfer<'_>) {
        slot.list.clear();
        slot.guest.clear();
        slot.expected = total_len(transfer.data);
        if segment::aligned(transfer.data, alignment.memory, alignment.offset) {
            slot.list.extend_from_slice(transfer.data);
            return;
        }
        let mut buffer = self.buffer(slot.expected);
        if transfer.write {
            let into = &mut buffer.bytes_mut()[..slot.expected];
            // SAFETY: the requester keeps its segments mapped (contract of
            // `Segment`), and the buffer is ours alone.
            unsafe { segment::copy_in(transfer.data, 0, into) };
        } else {
            slot.guest.extend_from_slice(transfer.data);
        }
        slot.list.push(buffer.segment(slot.expected));
        slot.bounce = Some(buffer);
    }

    fn buffer(&mut self, len: usize) -> AlignedBuffer {
        match self.buffers.iter().position(|b| b.len() >= len) {
            Some(index) => self.buffers.swap_remove(index),
            None => AlignedBuffer::new(len),
        }
    }

    /// Translates a completion; `None` if `cookie` is not one of ours.
    pub(super) fn complete(
        &mut self,
        cookie: u64,
        result: i32,
        errno_from: ErrnoFrom,
    ) -> Option<Completion> {
        let slot = self.busy.remove(&cookie)?;
        let moved = usize::try_from(result).unwrap_or(0);
        if let Some(buffer) = &slot.bounce {
            let got = &buffer.bytes()[..moved.min(slot.expected)];
            // SAFETY: the requester keeps its segments until the completion is
            // delivered (contract of `Segment`). `guest` is empty for writes.
            unsafe { segment::copy_out(&slot.guest, 0, got) };
        }
        let expected = slot.expected;
        self.release(slot);
        Some(match result {
            code if code < 0 => Completion::Errno { from: errno_from, code: -code },
            _ if moved >= expected => Completion::Good,
            // The end of the file or device, which capacity should have
            // prevented; continuing would never get on.
            0 => Completion::Errno { from: errno_from, code: libc::EIO },
            _ => Completion::Short(moved),
        })
    }

    fn release(&mut self, mut slot: Slot) {
        if let Some(buffer) = slot.bounce.take() {
            if self.buffers.len() < SPARE_BUFFERS {
                self.buffers.push(buffer);
            }
        }
        self.spare.push(slot);
    }
}

/// Cookies are indexes with a generation above them: one multiplication
/// spreads them, and no guest chooses them.
#[derive(Debug, Default)]
pub(super) struct CookieHasher(u64);

impl Hasher for CookieHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, value: u64) {
        let spread = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }
}
