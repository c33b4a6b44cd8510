//! SCSI passthrough on a real path: SG_IO by helper threads.
//!
//! Every CDB, full sense. The ioctl blocks until the kernel has given the
//! command up, so a helper thread is busy exactly as long as the command is
//! in the kernel. Lists that the node cannot take as they are (bsg: more than
//! one segment; others: more pages than the queue has segments) go through
//! the thread's page-aligned buffer.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::QueueLimits;
use super::pool::{Scratch, Work};
use super::wire::Wire;
use crate::io::{Completion, Direction, Segment, total_len};
use crate::scsi::cdb::Cdb;
use crate::sys::file::DirectAlignment;
use crate::sys::scsi_generic::{self, Interface};
use crate::sys::segment;

/// The open files of a SCSI path.
#[derive(Debug)]
pub struct ScsiNode {
    /// Carries every command: the sd, sg or bsg node.
    pub file: Arc<File>,
    /// The sd sibling of an sg or bsg node, held O_EXCL and never used.
    pub claim: Option<Arc<File>>,
    /// Header version the node takes.
    pub interface: Interface,
    /// Reads and writes go by io_uring on `file`, with buffers so aligned.
    pub direct: Option<DirectAlignment>,
    /// What one SG_IO may carry.
    pub queue: QueueLimits,
    /// Opened read-only.
    pub read_only: bool,
}

impl ScsiNode {
    /// One blocking command with a buffer of ours; any thread.
    pub(super) fn execute(&self, cdb: &Cdb, data_in: &mut [u8], timeout: Duration) -> Completion {
        let data = [segment::of(data_in)];
        let (direction, data) = if data[0].len == 0 {
            (Direction::None, &data[..0])
        } else {
            (Direction::In, &data[..])
        };
        let (fd, interface) = (self.file.as_fd(), self.interface);
        scsi_generic::without_signals(|| {
            // SAFETY: `data_in` is borrowed exclusively until this returns.
            unsafe { scsi_generic::sg_io(fd, interface, cdb.as_slice(), direction, data, timeout) }
        })
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
        if let Some(parameters) = &self.wire.parameters {
            // From a page boundary: LIO refuses a WRITE SAME whose block lies
            // in two pages.
            let len = parameters.len();
            let buffer = scratch.at_least(len);
            buffer.bytes_mut()[..len].copy_from_slice(parameters);
            return self.send(&[buffer.segment(len)]);
        }
        let flat_only = self.node.interface == Interface::V4 && self.segments.len() > 1;
        // The kernel maps pages, and answers EINVAL beyond its segments.
        let pages = || segment::pages(&self.segments);
        if flat_only || pages() > self.node.queue.max_segments {
            self.bounced(scratch)
        } else {
            self.send(&self.segments)
        }
    }
}

impl ScsiWork {
    fn bounced(&self, scratch: &mut Scratch) -> Completion {
        let len = total_len(&self.segments);
        let buffer = scratch.at_least(len);
        if self.wire.direction == Direction::Out {
            // SAFETY: the requester keeps its segments until the completion
            // (contract of `Segment`); the buffer is ours.
            unsafe { segment::copy_in(&self.segments, 0, &mut buffer.bytes_mut()[..len]) };
        }
        let completion = self.send(&[buffer.segment(len)]);
        if self.wire.direction == Direction::In {
            let moved = match completion {
                Completion::Good => len,
                Completion::Short(moved) => moved,
                Completion::Scsi { residual, .. } => {
                    len.saturating_sub(usize::try_from(residual).unwrap_or(len))
                }
                Completion::Errno { .. } => 0,
            };
            // SAFETY: as above.
            unsafe { segment::copy_out(&self.segments, 0, &buffer.bytes()[..moved.min(len)]) };
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
