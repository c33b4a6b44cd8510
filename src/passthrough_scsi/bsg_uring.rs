//! SCSI commands by io_uring to a bsg node: any CDB, full sense, no thread.
//!
//! The table of what one port has in the ring. CDB and sense of each command
//! have a place of their own that does not move; data go as they are where they
//! lie in one piece, else through a buffer of the thread ([`Coalescer`]). No
//! lock, and no allocation here for a read or a write, but that a slot's list
//! of pieces grows with the first reads whose data come in pieces, and stays.
//! (What `wire` makes up itself, the list of an UNMAP and the block of a WRITE
//! SAME, is allocated there.) What the ring cannot carry (a CDB beyond 16
//! bytes, whose refusal wants a clock; data for which there is no buffer) is
//! left to the helper threads and SG_IO on the same node. Owned by a queue
//! thread.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use super::blk_uring::CookieHasher;
use super::coalesce::{Coalescer, Lent};
use super::sg_io::{CDB_SURE, is_torn, moved};
use super::wire::{self, Wire};
use crate::io::{Command, Completion, Direction, Segment, total_len};
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::Sense;
use crate::sys::bsg;
use crate::sys::buffer::Arena;
use crate::sys::segment;
use crate::sys::uring::{Cqe, Uring, Wait};

/// CDB and sense of one command, side by side in two cache lines.
const PLACE: usize = bsg::CDB_MAX + bsg::SENSE_BYTES;
const _: () = assert!(CDB_SURE <= bsg::CDB_MAX);

/// One command in the ring.
#[derive(Debug, Default)]
struct Slot {
    exact: bool,
    direction: Option<Direction>,
    requested: usize,
    lent: Option<Lent>,
    /// Where data that come into a buffer go from there. Keeps its room from
    /// one command to the next.
    guest: Vec<Segment>,
}

/// What became of a command.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is in the ring.
    Queued,
    /// There is no room; nothing happened.
    Full,
    /// It has to go by SG_IO.
    Unfit(Wire),
}

/// The commands one port has in its thread's ring.
#[derive(Debug)]
pub(super) struct BsgSlots {
    busy: HashMap<u64, usize, BuildHasherDefault<CookieHasher>>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    places: Option<Arena>,
    coalescer: Rc<Coalescer>,
    max_segments: usize,
}

impl BsgSlots {
    /// Room for so many commands, on a node whose queue takes so many segments.
    pub(super) fn new(
        capacity: usize,
        max_segments: usize,
        coalescer: &Rc<Coalescer>,
    ) -> io::Result<BsgSlots> {
        coalescer.prepare();
        let mut busy = HashMap::default();
        busy.reserve(2 * capacity);
        Ok(BsgSlots {
            busy,
            slots: (0..capacity).map(|_| Slot::default()).collect(),
            free: (0..capacity).rev().collect(),
            places: Some(Arena::new(capacity * PLACE)?),
            coalescer: Rc::clone(coalescer),
            max_segments,
        })
    }

    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn busy(&self) -> usize {
        self.busy.len()
    }

    /// Queues a command under `cookie`, which is also its user data.
    pub(super) fn issue(
        &mut self,
        uring: &mut Uring,
        fd: BorrowedFd<'_>,
        cookie: u64,
        wire: Wire,
        command: &Command<'_>,
    ) -> Taken {
        let Some(&index) = self.free.last() else { return Taken::Full };
        let cdb = wire.cdb.as_slice();
        if cdb.len() > CDB_SURE || !uring.is_wide() {
            return Taken::Unfit(wire);
        }
        let Some((data, lent)) = self.flat(&wire, command) else { return Taken::Unfit(wire) };
        let Some(places) = &mut self.places else { return Taken::Unfit(wire) };
        places.bytes_mut(index * PLACE, cdb.len()).copy_from_slice(cdb);
        let sense = places.segment(index * PLACE + bsg::CDB_MAX, bsg::SENSE_BYTES);
        let sent = bsg::Command {
            cdb: places.segment(index * PLACE, bsg::CDB_MAX).addr,
            cdb_len: cdb.len(),
            sense: sense.addr,
            direction: wire.direction,
            data,
            timeout: command.timeout,
        };
        // SAFETY: CDB and sense have the slot's place until the completion,
        // and the arena stays where a slot is busy (`drop`); data lie in a
        // buffer that is lent until then, or in a segment of the requester,
        // which keeps it (contract of `Segment`); the port keeps the file. The
        // kernel has no safe interface to a device's queue.
        if unsafe { uring.bsg(fd, &sent, cookie) }.is_err() {
            if let Some(lent) = lent {
                self.coalescer.take_back(lent);
            }
            return Taken::Full;
        }
        self.free.pop();
        let slot = &mut self.slots[index];
        slot.exact = wire.exact;
        slot.direction = (wire.direction != Direction::None).then_some(wire.direction);
        slot.requested = data.len;
        if lent.is_some() && wire.direction == Direction::In {
            slot.guest.extend_from_slice(command.data);
        }
        slot.lent = lent;
        let previous = self.busy.insert(cookie, index);
        debug_assert!(previous.is_none(), "a cookie names one command at a time");
        Taken::Queued
    }

    /// The command's data in one piece; `None` where there is no buffer.
    fn flat(&self, wire: &Wire, command: &Command<'_>) -> Option<(Segment, Option<Lent>)> {
        if wire.direction == Direction::None {
            return Some((Segment::default(), None));
        }
        let (lent, flat) = if let Some(parameters) = &wire.parameters {
            self.coalescer.holding(parameters)?
        } else {
            let out = wire.direction == Direction::Out;
            if let Some(one) = joined(command.data) {
                let torn = out && is_torn(&wire.cdb, &[one]);
                if !torn && segment::pages(&[one]) <= self.max_segments {
                    return Some((one, None));
                }
            }
            let len = total_len(command.data);
            if out {
                // SAFETY: the requester keeps its segments mapped (contract of
                // `Segment`).
                unsafe { self.coalescer.gathered(command.data, len) }?
            } else {
                // An answer that is shorter than its residual says must not end
                // with bytes of an earlier command.
                self.coalescer.empty(len, wire.exact)?
            }
        };
        Some((flat, Some(lent)))
    }

    /// Translates a completion; `None` if its cookie is not one of ours.
    pub(super) fn complete(&mut self, cqe: &Cqe) -> Option<Completion> {
        let index = self.busy.remove(&cqe.user_data)?;
        let slot = &mut self.slots[index];
        let (exact, requested) = (slot.exact, slot.requested);
        let completion = if bsg::is_clean(cqe.result, cqe.extra) {
            Completion::Good
        } else {
            let sense = |written| match &self.places {
                Some(places) => {
                    Sense::from_bytes(places.bytes(index * PLACE + bsg::CDB_MAX, written))
                }
                None => Sense::EMPTY,
            };
            bsg::completion(cqe.result, cqe.extra, requested, sense)
        };
        if let Some(lent) = slot.lent.take() {
            if slot.direction == Some(Direction::In) {
                let len = moved(&completion, requested);
                // SAFETY: the requester keeps its segments until the completion
                // is delivered (contract of `Segment`).
                unsafe { self.coalescer.scatter(&lent, len, &slot.guest) };
                slot.guest.clear();
            }
            self.coalescer.take_back(lent);
        }
        self.free.push(index);
        Some(wire::told(exact, requested, completion))
    }
}

impl Drop for BsgSlots {
    /// What the kernel may still write to stays mapped.
    fn drop(&mut self) {
        if !self.busy.is_empty() {
            std::mem::forget(self.places.take());
        }
    }
}

/// The pieces as one, where each begins at the end of the one before.
fn joined(data: &[Segment]) -> Option<Segment> {
    let mut pieces = data.iter().filter(|piece| piece.len > 0);
    let mut one = *pieces.next()?;
    for piece in pieces {
        if piece.addr != one.addr + one.len {
            return None;
        }
        one.len += piece.len;
    }
    Some(one)
}

/// Whether the kernel takes SCSI commands to this bsg node by io_uring: sends it
/// a TEST UNIT READY and waits. Whatever the device says to that is a yes.
///
/// Blocks for up to `timeout`, and for as long as the kernel's error handling
/// takes if it passes. Any thread but a queue thread.
///
/// # Errors
/// Why not, in words.
pub fn probe(fd: BorrowedFd<'_>, timeout: Duration) -> Result<(), String> {
    let failed = |e: io::Error| match e.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOTTY) => {
            "the kernel takes no SCSI commands to bsg nodes by io_uring (Linux does since 7.1)"
                .to_owned()
        }
        _ => format!("a command to the bsg node by io_uring failed: {e}"),
    };
    let mut uring = Uring::wide(2).map_err(|e| match e.raw_os_error() {
        Some(libc::EINVAL) => "the kernel's io_uring has no wide entries".to_owned(),
        _ => format!("io_uring set-up failed: {e}"),
    })?;
    let mut places = Arena::new(PLACE).map_err(failed)?;
    let ready = Cdb::test_unit_ready();
    let cdb = ready.as_slice();
    places.bytes_mut(0, cdb.len()).copy_from_slice(cdb);
    let command = bsg::Command {
        cdb: places.segment(0, cdb.len()).addr,
        cdb_len: cdb.len(),
        sense: places.segment(bsg::CDB_MAX, bsg::SENSE_BYTES).addr,
        direction: Direction::None,
        data: Segment::default(),
        timeout,
    };
    // SAFETY: the arena and the borrowed descriptor outlive the loop, which ends
    // with the completion; where it ends earlier, the arena is not unmapped.
    unsafe { uring.bsg(fd, &command, 0) }.map_err(failed)?;
    let mut result = None;
    while result.is_none() {
        if let Err(e) = uring.submit_and_wait(Wait::Forever) {
            std::mem::forget(places);
            return Err(failed(e));
        }
        uring.reap(|cqe| result = Some(cqe.result));
    }
    match result {
        Some(0) | None => Ok(()),
        Some(code) => Err(failed(io::Error::from_raw_os_error(-code))),
    }
}

#[cfg(test)]
mod tests;
