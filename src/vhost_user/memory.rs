//! The session's memory table: messages in, [`Memory`] snapshots out.
//!
//! SET_MEM_TABLE replaces the table, ADD_MEM_REG and REM_MEM_REG change one
//! slot. Mapping itself is `guest::memory`'s. Runs on the listener's thread.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vhost::vhost_user::message::VhostUserMemoryRegion;

use crate::guest::memory::{Memory, MemoryError, Region};

/// Slots offered by GET_MAX_MEM_SLOTS: what the kernel's vhost offers.
pub(super) const MAX_SLOTS: usize = 509;

/// Snapshots are numbered through all disks and sessions, so that a number
/// never means two tables.
static GENERATION: AtomicU32 = AtomicU32::new(1);

fn next_generation() -> u32 {
    GENERATION.fetch_add(1, Ordering::Relaxed)
}

pub(super) fn region(message: &VhostUserMemoryRegion) -> Region {
    // The message struct is packed: copy the fields, do not borrow them.
    Region {
        guest_addr: message.guest_phys_addr,
        size: message.memory_size,
        user_addr: message.user_addr,
        mmap_offset: message.mmap_offset,
    }
}

pub(super) fn replaced(
    regions: &[VhostUserMemoryRegion],
    files: Vec<File>,
) -> Result<Arc<Memory>, MemoryError> {
    let table = regions.iter().map(region).zip(files);
    Ok(Arc::new(Memory::map(next_generation(), table)?))
}

pub(super) fn added(
    memory: &Memory,
    message: &VhostUserMemoryRegion,
    file: File,
) -> Result<Arc<Memory>, MemoryError> {
    Ok(Arc::new(memory.with_region(next_generation(), region(message), file)?))
}

pub(super) fn removed(
    memory: &Memory,
    message: &VhostUserMemoryRegion,
) -> Result<Arc<Memory>, MemoryError> {
    Ok(Arc::new(memory.without_region(next_generation(), &region(message))?))
}
