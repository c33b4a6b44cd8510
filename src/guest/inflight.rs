//! The in-flight area: which chains we hold, kept in memory that outlives us.
//!
//! Layout and order of stores are those of the vhost-user specification,
//! "Inflight I/O tracking", split virtqueue. The front-end keeps the file
//! (GET_INFLIGHT_FD, SET_INFLIGHT_FD) and hands it to the next connection or
//! the next process, which finds in it what was popped and not returned.
//!
//! Order: a chain is marked *before* anything is done for it; a batch is linked,
//! written and published in the used ring, then unmarked, then `used_idx`
//! follows. A crash between any two stores is repaired by [`InflightQueue::recover`].
//! Behind the queues lies a memo of ours, one number that a process leaves to
//! its successor and only we know of ([`InflightArea::memo`]).
//! The queues are owned by the queue thread, each as part of its `VirtQueue`;
//! the memo by whoever holds the area. Nothing in the area
//! is trusted beyond its own ring: a front-end that scribbles in it harms its
//! own disk only.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use vm_memory::{FileOffset, MmapRegion};

use crate::guest::memfd;
use crate::guest::shared::Shared;

const VERSION: u16 = 1;
/// Bytes of the header in front of a queue's descriptor states.
const HEADER: usize = 16;
const STATE: usize = 16;
/// Queue regions start at multiples of this, in bytes.
const ALIGN: usize = 64;
const PAGE: u64 = 4096;
/// Bytes behind the queues for the memo: a u64, and room.
const MEMO: usize = ALIGN;

/// Offsets in a queue region; `features` (u64 at 0) stays zero.
mod at {
    pub(super) const VERSION: usize = 8;
    pub(super) const DESC_NUM: usize = 10;
    pub(super) const LAST_BATCH_HEAD: usize = 12;
    pub(super) const USED_IDX: usize = 14;
    /// In a descriptor state.
    pub(super) const NEXT: usize = 6;
    /// In a descriptor state.
    pub(super) const COUNTER: usize = 8;
}

/// Why an in-flight area is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InflightError {
    /// The memfd could not be made or mapped.
    #[error("in-flight area: {0}")]
    Io(#[from] io::Error),
    /// The area is smaller than its queues need.
    #[error("in-flight area of {have} bytes for {queues} queues of {size} needs {need}")]
    TooSmall {
        /// Bytes there are.
        have: u64,
        /// Bytes needed.
        need: u64,
        /// Number of queues.
        queues: u16,
        /// Size of each.
        size: u16,
    },
    /// The offset in the file is not a multiple of the page size.
    #[error("in-flight area at file offset {0:#x} is not page-aligned")]
    Offset(u64),
    /// The ring is not covered by the area.
    #[error(
        "ring {index} of {size} descriptors is not in the in-flight area, made for {queues} queues of {queue_size}; \
         give the front-end's device queue-size={size}"
    )]
    NoSuchQueue {
        /// Ring index.
        index: u16,
        /// Ring size.
        size: u16,
        /// Queues in the area.
        queues: u16,
        /// Their size.
        queue_size: u16,
    },
    /// Written by a back-end that knows more than we do.
    #[error("in-flight area version {0} is unknown")]
    Version(u16),
    /// A descriptor index beyond the ring.
    #[error("in-flight area names descriptor {0}, which the ring does not have")]
    Corrupt(u16),
}

fn stride(queue_size: u16) -> usize {
    (HEADER + STATE * usize::from(queue_size)).next_multiple_of(ALIGN)
}

/// Bytes that `queues` queues of `queue_size` descriptors take.
fn queues_size(queues: u16, queue_size: u16) -> u64 {
    u64::from(queues) * stride(queue_size) as u64
}

/// Bytes of an area for `queues` queues of `queue_size` descriptors, as we make
/// it.
pub fn area_size(queues: u16, queue_size: u16) -> u64 {
    queues_size(queues, queue_size) + MEMO as u64
}

/// The ring size an area of `size` bytes was laid out for, at least `named`.
///
/// A front-end names the size it once asked for, while the rings may be longer:
/// the QEMUs that carry the fix of mid-2026 (10.0.13 among them) let the guest
/// choose up to 1024 whatever their `queue-size` is, and 128 stays in their
/// in-flight messages. So the back-end makes the area for the longest ring it
/// accepts, and recognises it by its size, which the front-end repeats.
fn ring_size_of(size: u64, queues: u16, named: u16) -> u16 {
    let longer = iter::successors(named.checked_next_power_of_two(), |&s| s.checked_mul(2));
    longer
        .take_while(|&s| area_size(queues, s) <= size)
        .find(|&s| area_size(queues, s) == size)
        .unwrap_or(named)
}

/// Makes the file of a fresh area, all zeroes (GET_INFLIGHT_FD).
///
/// # Errors
///
/// The errno of making the memfd.
pub fn create(queues: u16, queue_size: u16) -> Result<File, InflightError> {
    Ok(memfd::sealed(c"vhost-user-inflight", area_size(queues, queue_size))?)
}

/// A mapped in-flight area (SET_INFLIGHT_FD).
#[derive(Clone, Debug)]
pub struct InflightArea {
    map: Arc<MmapRegion<()>>,
    queues: u16,
    queue_size: u16,
    has_memo: bool,
}

impl InflightArea {
    /// Maps `size` bytes at `offset` of a front-end's file. An area we made for
    /// longer rings than the front-end knows of is used to its full extent: its
    /// size tells (see [`ring_size_of`]).
    ///
    /// # Errors
    ///
    /// The area or its file is too small, the offset unaligned, or `mmap` fails.
    pub fn attach(
        file: File,
        size: u64,
        offset: u64,
        queues: u16,
        queue_size: u16,
    ) -> Result<InflightArea, InflightError> {
        let queue_size = ring_size_of(size, queues, queue_size);
        // One of another back-end's making has no memo.
        let has_memo = size == area_size(queues, queue_size);
        let need = if has_memo { size } else { queues_size(queues, queue_size) };
        let have = size.min(file.metadata()?.len().saturating_sub(offset));
        if have < need {
            return Err(InflightError::TooSmall { have, need, queues, size: queue_size });
        }
        if offset % PAGE != 0 {
            return Err(InflightError::Offset(offset));
        }
        let len = usize::try_from(need).map_err(io::Error::other)?;
        let map = MmapRegion::from_file(FileOffset::new(file, offset), len)
            .map_err(|e| InflightError::Io(io::Error::other(e)))?;
        Ok(InflightArea { map: Arc::new(map), queues, queue_size, has_memo })
    }

    /// What was left for us: 0 in a fresh area, and in one that others made.
    pub fn memo(&self) -> u64 {
        self.memo_place().map_or(0, |place| place.load_u64(0, Acquire))
    }

    /// Leaves that for a successor.
    pub fn set_memo(&self, memo: u64) {
        if let Some(place) = self.memo_place() {
            place.store_u64(0, memo, Release);
        }
    }

    fn memo_place(&self) -> Option<Shared> {
        let queues = usize::from(self.queues) * stride(self.queue_size);
        // SAFETY: `attach` has mapped the queues and a memo behind them where
        // `has_memo`; the range is used under `&self`, which holds the mapping.
        self.has_memo.then(|| unsafe { Shared::new(self.map.as_ptr() as usize + queues, MEMO) })
    }

    /// The record of one ring of `size` descriptors; [`InflightQueue::recover`]
    /// comes next.
    ///
    /// # Errors
    ///
    /// The area does not cover that ring.
    pub fn queue(&self, index: u16, size: u16) -> Result<InflightQueue, InflightError> {
        let &InflightArea { queues, queue_size, .. } = self;
        if index >= queues || size > queue_size {
            return Err(InflightError::NoSuchQueue { index, size, queues, queue_size });
        }
        let start = self.map.as_ptr() as usize + usize::from(index) * stride(queue_size);
        // SAFETY: `attach` has mapped `queues` regions of that stride, and the
        // `InflightQueue` holds the mapping as long as the range.
        let state = unsafe { Shared::new(start, stride(queue_size)) };
        Ok(InflightQueue { _map: Arc::clone(&self.map), state, size, counter: 0, last: 0 })
    }
}

/// What was found in the record of a ring.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Heads popped and not returned, oldest first.
    pub resubmit: VecDeque<u16>,
    /// The record belonged to an earlier life of the ring (a used index that
    /// no crash can explain) and was started afresh.
    pub restarted: bool,
}

/// The record of one ring.
#[derive(Debug)]
pub struct InflightQueue {
    _map: Arc<MmapRegion<()>>,
    state: Shared,
    size: u16,
    counter: u64,
    last: u16,
}

impl InflightQueue {
    fn desc(head: u16) -> usize {
        HEADER + STATE * usize::from(head)
    }

    /// Brings the record in line with the ring's used index and reads what is
    /// still in flight. The ring's next available entry is then the used
    /// index plus the number of heads returned.
    ///
    /// A record never used (version 0: fresh, or the destination of a
    /// migration) takes over the ring's used index as it is.
    ///
    /// # Errors
    ///
    /// An unknown version or indexes beyond the ring; nothing was changed.
    pub fn recover(&mut self, ring_used: u16) -> Result<Recovered, InflightError> {
        let restarted = match self.state.load_u16(at::VERSION, Acquire) {
            0 => {
                self.restart(ring_used);
                false
            }
            VERSION => self.repair(ring_used)?,
            other => return Err(InflightError::Version(other)),
        };
        self.last = self.state.load_u16(at::LAST_BATCH_HEAD, Acquire);
        let mut held: Vec<(u64, u16)> = (0..self.size)
            .filter(|&head| self.is_marked(head))
            .map(|head| (self.state.load_u64(Self::desc(head) + at::COUNTER, Acquire), head))
            .collect();
        held.sort_unstable();
        self.counter = held.last().map_or(0, |&(counter, _)| counter.wrapping_add(1));
        let resubmit = held.into_iter().map(|(_, head)| head).collect();
        Ok(Recovered { resubmit, restarted })
    }

    /// Version goes last: a crash before it starts all over.
    fn restart(&mut self, ring_used: u16) {
        self.state.store_u16(at::VERSION, 0, Release);
        for head in 0..self.size {
            self.state.store_u8(Self::desc(head), 0, Release);
        }
        self.state.store_u16(at::DESC_NUM, self.size, Release);
        self.state.store_u16(at::LAST_BATCH_HEAD, 0, Release);
        self.state.store_u16(at::USED_IDX, ring_used, Release);
        self.state.store_u16(at::VERSION, VERSION, Release);
    }

    /// Unmarks the batch that was published but not yet settled, if any.
    fn repair(&mut self, ring_used: u16) -> Result<bool, InflightError> {
        let batch = ring_used.wrapping_sub(self.state.load_u16(at::USED_IDX, Acquire));
        if batch > self.size {
            // No batch is that large: the driver has set its ring up anew and
            // the front-end kept the old area.
            self.restart(ring_used);
            return Ok(true);
        }
        let mut done = Vec::with_capacity(usize::from(batch));
        let mut head = self.state.load_u16(at::LAST_BATCH_HEAD, Acquire);
        for _ in 0..batch {
            if head >= self.size {
                return Err(InflightError::Corrupt(head));
            }
            done.push(head);
            head = self.state.load_u16(Self::desc(head) + at::NEXT, Acquire);
        }
        for head in done {
            self.state.store_u8(Self::desc(head), 0, Release);
        }
        self.state.store_u16(at::USED_IDX, ring_used, Release);
        Ok(false)
    }

    fn is_marked(&self, head: u16) -> bool {
        self.state.load_u8(Self::desc(head), Acquire) != 0
    }

    /// Records that the chain at `head` (below the ring's size) is ours now.
    /// In the order of the available ring, and before anything is done for it.
    #[inline]
    pub fn mark(&mut self, head: u16) {
        let desc = Self::desc(head);
        self.state.store_u64(desc + at::COUNTER, self.counter, Release);
        self.counter = self.counter.wrapping_add(1);
        self.state.store_u8(desc, 1, Release);
    }

    /// Before the used elements are written: names the batch.
    #[inline]
    pub fn link(&mut self, done: &[(u16, u32)]) {
        for &(head, _) in done {
            self.state.store_u16(Self::desc(head) + at::NEXT, self.last, Release);
            self.state.store_u16(at::LAST_BATCH_HEAD, head, Release);
            self.last = head;
        }
    }

    /// After the used index was published as `used_idx`: forgets the batch.
    #[inline]
    pub fn settle(&mut self, done: &[(u16, u32)], used_idx: u16) {
        for &(head, _) in done {
            self.state.store_u8(Self::desc(head), 0, Release);
        }
        self.state.store_u16(at::USED_IDX, used_idx, Release);
    }
}

#[cfg(test)]
mod tests;
