//! The null path: drops writes, reads zeroes, completes at once.
//!
//! For measuring everything above the transport. Reads really fill guest
//! memory: a disk that never touches it would flatter the numbers.

use crate::io::{Blocks, Command, Completion, ErrnoFrom, Geometry, Identity, Lba, Limits, Op};
use crate::sys::segment;

pub(super) const BLOCK_SIZE: u32 = 512;

pub(super) fn identity(bytes: u64) -> Identity {
    Identity {
        wwid: format!("null-{bytes}"),
        capacity: Blocks(bytes / u64::from(BLOCK_SIZE)),
        block_size: BLOCK_SIZE,
    }
}

pub(super) fn geometry() -> Geometry {
    Geometry {
        physical_block_exp: 0,
        alignment_offset: 0,
        min_io: 0,
        opt_io: 0,
        unmap: true,
        unmap_reads_zero: true,
        read_only: false,
        serial: "null".to_owned(),
        vendor: "VHMPATH".to_owned(),
        product: "null".to_owned(),
        revision: String::new(),
    }
}

pub(super) fn limits() -> Limits {
    Limits {
        max_transfer: Blocks(65536),
        max_segments: 1024,
        max_unmap: Blocks(1 << 22),
        max_unmap_descriptors: 256,
        unmap_granularity: Blocks(1),
        unmap_alignment: Lba(0),
        max_write_same: Blocks(1 << 22),
        fua: true,
    }
}

pub(super) fn run(command: &Command<'_>) -> Completion {
    if matches!(command.op, Op::Cdb { .. }) {
        // No SCSI here: see `port`.
        return Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENOTTY };
    }
    if matches!(command.op, Op::Read(_)) {
        // SAFETY: the requester keeps its segments until the completion, which
        // is the return of this call (contract of `Segment`).
        unsafe { segment::zero(command.data) };
    }
    Completion::Good
}
