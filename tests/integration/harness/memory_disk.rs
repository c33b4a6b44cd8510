//! A disk in our own memory that executes requests where it is asked.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use vhost_mpath::guest::copy::{copy_in, copy_out};
use vhost_mpath::io::{Extent, Op, Outcome, Request};
use vhost_mpath::vhost_blk::SyncExecutor;

/// Contents of the disk and the operations it has seen.
#[derive(Clone)]
pub(crate) struct MemoryDisk {
    block_size: u32,
    pub(crate) bytes: Arc<Mutex<Vec<u8>>>,
    pub(crate) seen: Arc<Mutex<Vec<Op>>>,
}

impl MemoryDisk {
    pub(crate) fn new(blocks: u64, block_size: u32) -> MemoryDisk {
        let len = usize::try_from(blocks * u64::from(block_size)).unwrap();
        MemoryDisk {
            block_size,
            bytes: Arc::new(Mutex::new(vec![0xd1; len])),
            seen: Arc::default(),
        }
    }

    fn range(&self, extent: Extent) -> Range<usize> {
        let byte = |block: u64| usize::try_from(block * u64::from(self.block_size)).unwrap();
        byte(extent.lba.0)..byte(extent.end().expect("in range").0)
    }
}

impl SyncExecutor for MemoryDisk {
    fn execute(&self, request: &Request) -> Outcome {
        let op = request.op.expect("submitted");
        self.seen.lock().unwrap().push(op);
        let mut bytes = self.bytes.lock().unwrap();
        match op {
            Op::Read(extent) => {
                copy_out(&request.data, 0, &bytes[self.range(extent)]);
            }
            Op::Write { extent, .. } => {
                copy_in(&request.data, 0, &mut bytes[self.range(extent)]);
            }
            Op::Flush => {}
            Op::Unmap => {
                for extent in &request.extents {
                    bytes[self.range(*extent)].fill(0);
                }
            }
            Op::WriteZeroes { extent, .. } => bytes[self.range(extent)].fill(0),
            Op::Cdb { .. } => return Outcome::Host(libc::ENOTTY),
        }
        Outcome::Good
    }
}
