//! SCSI passthrough on a real path: SG_IO by helper threads.
//!
//! Every CDB, full sense. The ioctl blocks until the kernel has given the
//! command up, so a helper thread is busy exactly as long as the command is
//! in the kernel. Lists that the node cannot take as they are (bsg: more than
//! one segment; others: more pages than the queue has segments) go through
//! the thread's page-aligned buffer.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::QueueLimits;
use super::data::Buffer;
use super::pool::{Scratch, Work};
use super::wire::{self, Wire};
use crate::io::{Completion, Direction, ErrnoFrom, Segment, total_len};
use crate::scsi::cdb::Cdb;
use crate::scsi::command;
use crate::scsi::sense::{Sense, SenseCode};
use crate::scsi::status::{HostByte, Status};
use crate::sys::block;
use crate::sys::file::DirectAlignment;
use crate::sys::scsi_generic::{self, Interface};
use crate::sys::segment;

/// What every kernel and host adapter carries (SPC-4's longest but for the
/// variable-length ones).
pub(super) const CDB_SURE: usize = 16;
/// A CDB too long for the host adapter comes back with `DID_ABORT` without
/// having been sent (`scsi_dispatch_cmd`), that is at once; an abort that the
/// error handler did takes a timeout first.
const AT_ONCE: Duration = Duration::from_secs(1);
const PAGE: usize = 4096;
/// Most segments of one list (`UIO_MAXIOV`).
const MOST_SEGMENTS: usize = 1024;

/// The open files of a SCSI path.
#[derive(Debug)]
pub struct ScsiNode {
    /// Carries every command: the sd, sg or bsg node.
    pub file: Arc<File>,
    /// A sibling that is held and never used: of an sg or bsg node the sd node,
    /// O_EXCL; of an sd node the bsg node with its lock, by which the successor
    /// of a process knows of commands that are still out (law 3).
    pub claim: Option<Arc<File>>,
    /// Header version the node takes.
    pub interface: Interface,
    /// Reads and writes go by io_uring on `file`, with buffers so aligned.
    pub direct: Option<DirectAlignment>,
    /// All commands go by io_uring on `file`, a bsg node that was probed.
    pub bsg_uring: bool,
    /// What one SG_IO may carry.
    pub queue: QueueLimits,
    /// Opened read-only.
    pub read_only: bool,
}

impl ScsiNode {
    /// One blocking command with a buffer of ours; any thread.
    pub(super) fn execute(&self, cdb: &Cdb, data: Buffer<'_>, timeout: Duration) -> Completion {
        let direction = data.direction();
        let segment = [match data {
            Buffer::In(bytes) => segment::of(bytes),
            Buffer::Out(bytes) => Segment { addr: bytes.as_ptr() as usize, len: bytes.len() },
        }];
        let list = if direction == Direction::None { &segment[..0] } else { &segment[..] };
        let (fd, interface) = (self.file.as_fd(), self.interface);
        scsi_generic::without_signals(|| {
            // SAFETY: the bytes are borrowed until this returns, exclusively
            // where the LU writes to them.
            unsafe { scsi_generic::sg_io(fd, interface, cdb.as_slice(), direction, list, timeout) }
        })
    }

    /// Bytes that sd says it has, where there is a disk node.
    pub(super) fn size(&self) -> Option<u64> {
        // The one of the two that is a disk's node.
        let files = [Some(&self.file), self.claim.as_ref()];
        files.into_iter().flatten().find_map(|file| block::size(file.as_fd()).ok())
    }

    /// Resets the LU, for all hosts. Waits for the host adapter. A bsg node
    /// knows no reset, its sd sibling does.
    pub(super) fn reset_lu(&self) -> io::Result<()> {
        let file = match self.interface {
            Interface::V3 => &self.file,
            Interface::V4 => self.claim.as_ref().unwrap_or(&self.file),
        };
        scsi_generic::without_signals(|| scsi_generic::reset_device(file.as_fd()))
    }
}

/// One command for a helper thread.
#[derive(Debug)]
pub(super) struct ScsiWork {
    pub(super) node: Arc<ScsiNode>,
    pub(super) wire: Wire,
    pub(super) segments: Vec<Segment>,
    pub(super) timeout: Duration,
}

impl Work for ScsiWork {
    fn run(&mut self, scratch: &mut Scratch) -> Completion {
        let long = self.wire.cdb.as_slice().len() > CDB_SURE;
        #[allow(clippy::disallowed_methods)] // a transport is no pure module
        let since = long.then(Instant::now);
        let completion = self.carry(scratch);
        let at_once = since.is_some_and(|since| since.elapsed() < AT_ONCE);
        if self.wire.exact && is_too_long(&completion, at_once) {
            return too_long();
        }
        let requested = match &self.wire.parameters {
            Some(parameters) => parameters.len(),
            None => total_len(&self.segments),
        };
        wire::told(self.wire.exact, requested, completion)
    }
}

/// Whether the path could not carry a CDB for its length. `long_and_at_once`:
/// it is longer than what all carry, and came back at once.
pub(super) fn is_too_long(completion: &Completion, long_and_at_once: bool) -> bool {
    match *completion {
        // Never said of anything but the CDB's length.
        Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::EMSGSIZE } => true,
        Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::EINVAL } => long_and_at_once,
        Completion::Scsi { host: HostByte::ABORT, status: Status::GOOD, .. } => long_and_at_once,
        _ => false,
    }
}

/// INVALID FIELD IN CDB.
fn too_long() -> Completion {
    Completion::Scsi {
        status: Status::CHECK_CONDITION,
        host: HostByte::OK,
        sense: Sense::fixed(SenseCode::INVALID_FIELD_IN_CDB),
        residual: 0,
    }
}

/// Whether a command's data are blocks that it compares, or writes more than
/// once, and lie other than from a page boundary in one piece. LIO behind a
/// loopback (7.2 and before) takes the second block of a COMPARE AND WRITE from
/// where it would be then, whatever is there, and refuses a WRITE SAME whose
/// block lies in two pieces.
pub(super) fn is_torn(cdb: &Cdb, data: &[Segment]) -> bool {
    // WRITE SAME (10), COMPARE AND WRITE, WRITE SAME (16).
    let takes_blocks = matches!(cdb.opcode(), 0x41 | 0x89 | 0x93)
        || command::service_action(cdb) == Some(0x0d) && cdb.opcode() == 0x7f; // (32)
    takes_blocks
        && match data {
            [] => false,
            [one] => one.addr % PAGE != 0,
            _ => true,
        }
}

/// How many of `len` bytes of data-in a completion brought.
pub(super) fn moved(completion: &Completion, len: usize) -> usize {
    match *completion {
        Completion::Good => len,
        Completion::Short(moved) => moved.min(len),
        Completion::Scsi { residual, .. } => {
            len.saturating_sub(usize::try_from(residual).unwrap_or(len))
        }
        Completion::Errno { .. } => 0,
    }
}

impl ScsiWork {
    fn carry(&self, scratch: &mut Scratch) -> Completion {
        if let Some(parameters) = &self.wire.parameters {
            // From a page boundary: LIO refuses a WRITE SAME whose block lies
            // in two pages.
            let len = parameters.len();
            let buffer = scratch.at_least(len);
            buffer.bytes_mut()[..len].copy_from_slice(parameters);
            return self.send(&[buffer.segment(len)]);
        }
        let flat_only = self.node.interface == Interface::V4 && self.segments.len() > 1
            || self.wire.direction == Direction::Out && is_torn(&self.wire.cdb, &self.segments);
        // The kernel maps pages, and answers EINVAL beyond its segments.
        let most = self.node.queue.max_segments;
        let pages = || segment::pages(&self.segments);
        if flat_only || self.segments.len() > MOST_SEGMENTS || pages() > most {
            self.bounced(scratch)
        } else {
            self.send(&self.segments)
        }
    }

    fn bounced(&self, scratch: &mut Scratch) -> Completion {
        let len = total_len(&self.segments);
        let buffer = scratch.at_least(len);
        if self.wire.direction == Direction::Out {
            // SAFETY: the requester keeps its segments until the completion
            // (contract of `Segment`); the buffer is ours.
            unsafe { segment::copy_in(&self.segments, 0, &mut buffer.bytes_mut()[..len]) };
        } else if self.wire.exact {
            // An answer that is shorter than its residual says must not end
            // with bytes of an earlier command.
            buffer.bytes_mut()[..len].fill(0);
        }
        let completion = self.send(&[buffer.segment(len)]);
        if self.wire.direction == Direction::In {
            let moved = moved(&completion, len);
            // SAFETY: as above.
            unsafe { segment::copy_out(&self.segments, 0, &buffer.bytes()[..moved]) };
        }
        completion
    }

    fn send(&self, data: &[Segment]) -> Completion {
        // SAFETY: `data` is the requester's segments, which it keeps until the
        // completion (contract of `Segment`), or a buffer of this thread that
        // outlives the call.
        unsafe {
            scsi_generic::sg_io(
                self.node.file.as_fd(),
                self.node.interface,
                self.wire.cdb.as_slice(),
                self.wire.direction,
                data,
                self.timeout,
            )
        }
    }
}
