//! A [`Command`] as a CDB with its data: the form both SG_IO and the
//! simulated array take.

use crate::io::Direction;
use crate::io::{Command, Completion, ErrnoFrom};
use crate::scsi::cdb::{Cdb, Payload};
use crate::scsi::unmap;

/// What goes over the wire.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) cdb: Cdb,
    pub(super) direction: Direction,
    /// Data-out of our own making; `None`: the command's segments.
    pub(super) parameters: Option<Vec<u8>>,
}

/// Encodes a command for an LU with blocks of `block_size` bytes.
///
/// An operation that fits no CDB is our own mistake, not a path's (law 4): it
/// comes back as the completion EINVAL.
pub(super) fn encode(command: &Command<'_>, block_size: u32) -> Result<Wire, Completion> {
    let refused = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::EINVAL };
    let (cdb, payload) = Cdb::from_op(&command.op, command.extents).map_err(|_| refused)?;
    let (direction, parameters) = match payload {
        Payload::None => (Direction::None, None),
        Payload::In => (Direction::In, None),
        Payload::Out => (Direction::Out, None),
        Payload::UnmapList => {
            let mut list = Vec::new();
            unmap::encode(command.extents, &mut list).ok_or(refused)?;
            (Direction::Out, Some(list))
        }
        Payload::ZeroBlock => {
            let block = usize::try_from(block_size).map_err(|_| refused)?;
            (Direction::Out, Some(vec![0; block]))
        }
    };
    Ok(Wire { cdb, direction, parameters })
}
