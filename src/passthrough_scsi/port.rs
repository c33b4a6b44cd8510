//! A queue thread's way into one path.
//!
//! Owned by the queue thread; takes commands while there is room and hands
//! each back exactly once: at once ([`Issued::Done`]), by the thread's ring
//! ([`PathPort::on_uring`]) or by its [`Inbox`]. It queues nothing: what it
//! has accepted is in the kernel, or in the simulated array (law 1).
//!
//! A guest's own command ([`Op::Cdb`]) always goes by SCSI passthrough, reads
//! and writes too: a read through the block layer would lose the bits of its
//! CDB (DPO, FUA, group number, duration limit), the residual, the sense, and
//! unit attentions, which sd swallows.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::blk_uring::{Direct, Full, Slots, Transfer};
use super::bsg_uring::{BsgSlots, Taken};
use super::file::DiskWork;
use super::inbox::{InFlight, Inbox, Ticket};
use super::sg_io::ScsiWork;
use super::wire::Wire;
use super::{Backend, PathHandle, REQUEST_SENSE, null, wire};
use crate::io::{Command, Completion, Direction, ErrnoFrom, Op};
use crate::sys::uring::{Cqe, RwFlags, Uring};

/// Room for commands that end at once or in memory.
pub(super) const MEMORY_DEPTH: usize = 128;

/// See [`PathPort::issue`].
const IDENTITY_IN_DOUBT: Completion =
    Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ESTALE };

/// What became of a command that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Issued {
    /// Its completion will come.
    Pending,
    /// It ended already.
    Done(Completion),
}

/// There is no room; nothing happened. Either this port has commands in
/// flight, and room comes with their completions, or the ring is full, and
/// room comes by submitting and reaping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected;

/// What a port may put into its thread's ring, and what it has there.
#[derive(Debug)]
pub(super) enum InRing {
    Nothing,
    /// Reads and writes of a block node or a file.
    Transfers(Slots),
    /// SCSI commands to a bsg node.
    Commands(BsgSlots),
}

/// One queue thread's share of one path; see [`PathHandle::port`].
#[derive(Debug)]
pub struct PathPort {
    handle: Arc<PathHandle>,
    inbox: Arc<Inbox>,
    in_flight: InFlight,
    helpers: usize,
    ring: InRing,
}

impl PathPort {
    pub(super) fn new(
        handle: Arc<PathHandle>,
        inbox: Arc<Inbox>,
        helpers: usize,
        ring: InRing,
    ) -> PathPort {
        let in_flight = InFlight::new(&handle.doubts);
        PathPort { handle, inbox, in_flight, helpers, ring }
    }

    /// The path.
    pub fn handle(&self) -> &Arc<PathHandle> {
        &self.handle
    }

    /// Most commands at once from this thread. Commands that need a helper
    /// thread may be rejected earlier.
    pub fn capacity(&self) -> usize {
        match &self.ring {
            InRing::Nothing => self.helpers,
            InRing::Transfers(slots) => slots.capacity(),
            InRing::Commands(slots) => slots.capacity(),
        }
    }

    /// Commands accepted whose completion has not been seen.
    pub fn in_flight(&self) -> usize {
        let in_ring = match &self.ring {
            InRing::Nothing => 0,
            InRing::Transfers(slots) => slots.busy(),
            InRing::Commands(slots) => slots.busy(),
        };
        self.in_flight.count() + in_ring
    }

    /// Gives `command` to the path under `cookie`, which must name no other
    /// command of this thread. Whoever made its segments keeps them mapped
    /// until the completion is delivered (contract of [`Segment`](crate::io::Segment)).
    ///
    /// Where anybody has met a unit attention that questions the path's
    /// identity, a checker or a guest's command of any thread, no command is
    /// sent until a proof has settled that: each ends with ESTALE
    /// ([`ErrnoFrom::Ioctl`]), the transport's word for "doubt this path".
    /// (Once would not do: the news may not have reached the engine when a
    /// table with a later epoch comes for another reason.)
    ///
    /// # Errors
    /// [`Rejected`] when there is no room.
    pub fn issue(
        &mut self,
        uring: &mut Uring,
        cookie: u64,
        command: &Command<'_>,
    ) -> Result<Issued, Rejected> {
        if self.handle.doubts.is_open() {
            return Ok(Issued::Done(IDENTITY_IN_DOUBT));
        }
        let block_size = self.handle.identity.block_size;
        match &self.handle.backend {
            Backend::Null { .. } => Ok(Issued::Done(null::run(command))),
            Backend::Sim(nexus) => {
                let wire = match wire::encode(command, block_size) {
                    Ok(wire) => wire,
                    Err(refused) => return Ok(Issued::Done(refused)),
                };
                let ticket = self.ticket(cookie)?;
                let ticket = match asks_for_sense(&wire) {
                    true => ticket.with_sense(command.data),
                    false => ticket,
                };
                nexus.issue(wire, command.data, command.timeout, ticket);
                Ok(Issued::Pending)
            }
            Backend::Scsi { node, direct, pool } => {
                let by_ring = match command.op {
                    Op::Read(_) => true,
                    // sd may drop FUA silently: see law 9.
                    Op::Write { fua, .. } => !fua,
                    _ => false,
                };
                if let (Some(direct), true, false) = (direct, by_ring, command.passthrough) {
                    return transfer(&mut self.ring, uring, direct, block_size, cookie, command);
                }
                let wire = match wire::encode(command, block_size) {
                    Ok(wire) => wire,
                    Err(refused) => return Ok(Issued::Done(refused)),
                };
                let asks = asks_for_sense(&wire);
                let wire = match &mut self.ring {
                    // Its data are looked into where tickets end.
                    InRing::Commands(slots) if !asks => {
                        match slots.issue(uring, node.file.as_fd(), cookie, wire, command) {
                            Taken::Queued => return Ok(Issued::Pending),
                            Taken::Full => return Err(Rejected),
                            Taken::Unfit(wire) => wire,
                        }
                    }
                    _ => wire,
                };
                let ticket = self.ticket(cookie)?;
                let segments = wire.segments(command);
                let ticket = if asks { ticket.with_sense(&segments) } else { ticket };
                let timeout = command.timeout;
                pool.submit(ScsiWork { node: Arc::clone(node), wire, segments, timeout }, ticket);
                Ok(Issued::Pending)
            }
            Backend::Disk { node, direct, pool } => match command.op {
                Op::Read(_) | Op::Write { .. } => {
                    transfer(&mut self.ring, uring, direct, block_size, cookie, command)
                }
                // No SCSI here: such a path never joins a map that is shown as SCSI.
                Op::Cdb { .. } => Ok(Issued::Done(Completion::Errno {
                    from: ErrnoFrom::Ioctl,
                    code: libc::ENOTTY,
                })),
                Op::Flush | Op::Unmap | Op::WriteZeroes { .. } => {
                    let ticket = self.ticket(cookie)?;
                    pool.submit(DiskWork::new(node, command), ticket);
                    Ok(Issued::Pending)
                }
            },
        }
    }

    fn ticket(&self, cookie: u64) -> Result<Ticket, Rejected> {
        if self.in_flight.count() >= self.helpers {
            return Err(Rejected);
        }
        Ok(Ticket::new(&self.inbox, cookie, &self.in_flight))
    }

    /// Translates a completion of the ring, whose user data is the cookie.
    /// `None`: it is not one that this port has in the ring.
    ///
    /// A command that comes back with a unit attention which questions the
    /// path's identity stops the next one from here on; those that were queued
    /// beside it, or in the same round as it came back, are out already.
    pub fn on_uring(&mut self, cqe: &Cqe) -> Option<Completion> {
        let errno_from = match &self.handle.backend {
            Backend::Scsi { direct: Some(direct), .. } | Backend::Disk { direct, .. } => {
                direct.errno_from
            }
            _ => ErrnoFrom::Ioctl,
        };
        match &mut self.ring {
            InRing::Nothing => None,
            InRing::Transfers(slots) => slots.complete(cqe.user_data, cqe.result, errno_from),
            InRing::Commands(slots) => {
                let completion = slots.complete(cqe)?;
                if completion != Completion::Good {
                    self.handle.doubts.look_at(&completion);
                }
                Some(completion)
            }
        }
    }
}

/// Whether the LU may tell as data what it tells otherwise as sense, and has
/// forgotten then.
fn asks_for_sense(wire: &Wire) -> bool {
    wire.direction == Direction::In && wire.cdb.opcode() == REQUEST_SENSE
}

/// Puts a read or write into the ring.
fn transfer(
    ring: &mut InRing,
    uring: &mut Uring,
    direct: &Direct,
    block_size: u32,
    cookie: u64,
    command: &Command<'_>,
) -> Result<Issued, Rejected> {
    let refused = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::EINVAL };
    let InRing::Transfers(slots) = ring else { return Err(Rejected) };
    let (write, extent, flags) = match command.op {
        Op::Read(extent) => (false, extent, RwFlags::NONE),
        Op::Write { extent, fua: false } => (true, extent, RwFlags::NONE),
        Op::Write { extent, fua: true } => (true, extent, RwFlags::DSYNC),
        _ => return Ok(Issued::Done(refused)),
    };
    let Some(offset) = extent.lba.0.checked_mul(u64::from(block_size)) else {
        return Ok(Issued::Done(refused));
    };
    if command.data.is_empty() {
        return Ok(Issued::Done(Completion::Good));
    }
    match slots.issue(uring, direct, cookie, &Transfer { write, offset, data: command.data, flags })
    {
        Ok(()) => Ok(Issued::Pending),
        Err(Full) => Err(Rejected),
    }
}
