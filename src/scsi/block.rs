//! Block addresses and the block operations of SBC-4, as data: what a command
//! does, before it has a CDB and without its payload.

use std::fmt;

use super::cdb::Cdb;
use super::command;

/// A logical block address of the LU, in units of its logical block size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lba(pub u64);

/// A count of logical blocks of the LU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blocks(pub u64);

impl fmt::Display for Lba {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A run of logical blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First block.
    pub lba: Lba,
    /// Length in blocks.
    pub blocks: Blocks,
}

impl Extent {
    /// The extent of `blocks` blocks at `lba`.
    pub const fn new(lba: u64, blocks: u64) -> Extent {
        Extent { lba: Lba(lba), blocks: Blocks(blocks) }
    }

    /// The block after the last one; `None` if that does not fit 64 bits.
    pub fn end(self) -> Option<Lba> {
        self.lba.0.checked_add(self.blocks.0).map(Lba)
    }

    /// Whether the extent lies within a medium of `capacity` blocks.
    pub fn within(self, capacity: Blocks) -> bool {
        self.end().is_some_and(|end| end.0 <= capacity.0)
    }
}

/// Which way the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// No data.
    None,
    /// From the LU into the segments.
    In,
    /// From the segments to the LU.
    Out,
}

/// What a request or a command does to the LU. Ranges are in logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read an extent into the data segments.
    Read(Extent),
    /// Write an extent from the data segments; `fua`: durable before it completes.
    Write {
        /// Where.
        extent: Extent,
        /// Force unit access (law 9).
        fua: bool,
    },
    /// Make every acknowledged write durable (SYNCHRONIZE CACHE).
    Flush,
    /// Deallocate the extents listed beside the operation (UNMAP).
    Unmap,
    /// Write zeroes to an extent without data segments (WRITE SAME).
    WriteZeroes {
        /// Where.
        extent: Extent,
        /// The LU may deallocate, provided the blocks read as zeroes afterwards.
        unmap: bool,
    },
    /// A command the guest composed itself: passed on as it is, never cut,
    /// its status, sense and residual delivered as the LU gave them.
    Cdb {
        /// The CDB, byte for byte.
        cdb: Cdb,
        /// Which way the data segments go.
        direction: Direction,
    },
}

impl Op {
    /// Short name for messages and events.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Read(_) => "READ",
            Op::Write { .. } => "WRITE",
            Op::Flush => "SYNCHRONIZE CACHE",
            Op::Unmap => "UNMAP",
            Op::WriteZeroes { .. } => "WRITE SAME",
            Op::Cdb { cdb, .. } => cdb.name().unwrap_or("unknown command"),
        }
    }

    /// Whether doing it twice, with nothing in between, equals doing it once
    /// (law 3). Every block operation is; a guest's own command is if the
    /// table of commands says so.
    pub fn is_idempotent(&self) -> bool {
        match self {
            Op::Cdb { cdb, .. } => command::info(cdb).idempotent,
            _ => true,
        }
    }
}
