//! Files, and block nodes that are no SCSI disks.
//!
//! Reads and writes go by io_uring ([`super::blk_uring`]); flush, hole
//! punching and zeroing block, so helper threads do them. Errors are errnos
//! and nothing else. There is no passthrough here.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::pool::{Scratch, Work};
use crate::io::{Blocks, Command, Completion, ErrnoFrom, Extent, Geometry, Identity, Limits, Op};
use crate::sys::block;
use crate::sys::file::{self, DirectAlignment, Range};

/// Bytes written at a time where the kernel has no zeroing.
const ZERO_CHUNK: usize = 256 * 1024;

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// A regular file.
    File,
    /// A block node.
    Block,
}

/// Where the WWID of such a path comes from; read again at every proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WwidSource {
    /// `file-DEV-INODE` of the open file: one LU is one inode.
    Inode,
    /// `dev-MAJOR:MINOR` of the open node: nothing better is known.
    Devno,
    /// A sysfs attribute behind a prefix that names its kind.
    Sysfs {
        /// The attribute.
        attribute: PathBuf,
        /// `wwid-`, `dm-`, `md-`.
        prefix: &'static str,
    },
}

/// The open file of such a path.
#[derive(Debug)]
pub struct DiskNode {
    /// Carries every command, and the claim.
    pub file: Arc<File>,
    /// File or block node.
    pub nature: Nature,
    /// Identity.
    pub wwid: WwidSource,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// What buffers must be aligned to; 1 and 1 where the page cache is used.
    pub alignment: DirectAlignment,
    /// As shown to the guest.
    pub geometry: Geometry,
    /// Most I/O in flight that makes sense (`queue/nr_requests`).
    pub depth: usize,
    /// UNMAP granularity in bytes.
    pub unmap_granularity: u32,
}

impl DiskNode {
    pub(super) fn errno_from(&self) -> ErrnoFrom {
        match self.nature {
            Nature::File => ErrnoFrom::File,
            Nature::Block => ErrnoFrom::Block,
        }
    }

    /// Bytes it has.
    pub(super) fn size(&self) -> io::Result<u64> {
        match self.nature {
            Nature::File => self.file.metadata().map(|meta| meta.size()),
            Nature::Block => block::size(self.file.as_fd()),
        }
    }

    /// Reads identity through the open file.
    pub(super) fn identify(&self) -> Result<Identity, String> {
        let meta = self.file.metadata().map_err(|e| format!("fstat: {e}"))?;
        let bytes = self.size().map_err(|e| format!("size: {e}"))?;
        let wwid = match &self.wwid {
            WwidSource::Inode => format!("file-{:x}-{}", meta.dev(), meta.ino()),
            WwidSource::Devno => {
                format!("dev-{}:{}", libc::major(meta.rdev()), libc::minor(meta.rdev()))
            }
            WwidSource::Sysfs { attribute, prefix } => {
                let value = std::fs::read_to_string(attribute)
                    .map_err(|e| format!("{}: {e}", attribute.display()))?;
                format!("{prefix}{}", value.trim())
            }
        };
        let capacity = Blocks(bytes / u64::from(self.block_size));
        Ok(Identity { wwid, capacity, block_size: self.block_size })
    }

    pub(super) fn limits(&self) -> Limits {
        let blocks = |bytes: u64| Blocks((bytes / u64::from(self.block_size)).max(1));
        let unmap = if self.geometry.unmap { blocks(1 << 30) } else { Blocks(0) };
        Limits {
            max_transfer: blocks(4 << 20),
            max_segments: 1024, // UIO_MAXIOV
            max_unmap: unmap,
            max_unmap_descriptors: 256,
            unmap_granularity: blocks(u64::from(self.unmap_granularity)),
            unmap_alignment: crate::io::Lba(0),
            max_write_same: blocks(64 << 20),
            fua: true,
        }
    }

    /// A direct read of the first block.
    pub(super) fn read_check(&self) -> Completion {
        let mut scratch = Scratch::default();
        let block = usize::try_from(self.block_size).unwrap_or(4096);
        let buffer = &mut scratch.at_least(block).bytes_mut()[..block];
        self.completion(self.file.read_exact_at(buffer, 0))
    }

    fn completion(&self, result: io::Result<()>) -> Completion {
        match result {
            Ok(()) => Completion::Good,
            Err(e) => Completion::Errno {
                from: self.errno_from(),
                code: e.raw_os_error().unwrap_or(libc::EIO),
            },
        }
    }

    fn bytes(&self, extent: Extent) -> (u64, u64) {
        let size = u64::from(self.block_size);
        (extent.lba.0.saturating_mul(size), extent.blocks.0.saturating_mul(size))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        match self.nature {
            Nature::File => file::fallocate(self.file.as_fd(), Range::Punch, offset, len),
            Nature::Block => block::discard(self.file.as_fd(), offset, len),
        }
    }

    /// Punches where that is wanted and known to read as zeroes, else zeroes
    /// in place, else writes.
    fn zero(&self, unmap: bool, offset: u64, len: u64, scratch: &mut Scratch) -> io::Result<()> {
        let fd = self.file.as_fd();
        let unsupported =
            |e: &io::Error| matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS));
        if unmap {
            match file::fallocate(fd, Range::Punch, offset, len) {
                Err(e) if unsupported(&e) => {}
                result => return result,
            }
        }
        match file::fallocate(fd, Range::Zero, offset, len) {
            Err(e) if unsupported(&e) => {}
            result => return result,
        }
        let buffer = scratch.at_least(ZERO_CHUNK).bytes_mut();
        buffer.fill(0);
        let (mut at, end) = (offset, offset.saturating_add(len));
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let part = left.min(buffer.len());
            self.file.write_all_at(&buffer[..part], at)?;
            at += u64::try_from(part).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}

/// One blocking operation for a helper thread.
#[derive(Debug)]
pub(super) struct DiskWork {
    node: Arc<DiskNode>,
    op: Op,
    extents: Vec<Extent>,
}

impl DiskWork {
    pub(super) fn new(node: &Arc<DiskNode>, command: &Command<'_>) -> DiskWork {
        DiskWork { node: Arc::clone(node), op: command.op, extents: command.extents.to_vec() }
    }
}

impl Work for DiskWork {
    fn run(&mut self, scratch: &mut Scratch) -> Completion {
        let node = &self.node;
        node.completion(match self.op {
            Op::Flush => node.file.sync_data(),
            Op::Unmap => self.extents.iter().try_for_each(|extent| {
                let (offset, len) = node.bytes(*extent);
                node.punch(offset, len)
            }),
            Op::WriteZeroes { extent, unmap } => {
                let (offset, len) = node.bytes(extent);
                node.zero(unmap, offset, len, scratch)
            }
            // The port sends these by the ring, or not at all.
            Op::Read(_) | Op::Write { .. } | Op::Cdb { .. } => {
                Err(io::Error::from_raw_os_error(libc::EINVAL))
            }
        })
    }
}
