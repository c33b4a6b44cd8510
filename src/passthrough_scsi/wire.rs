//! A [`Command`] as a CDB with its data: the form both SG_IO and the
//! simulated array take.

use crate::io::{Command, Completion, Direction, ErrnoFrom, Op, Segment, total_len};
use crate::scsi::cdb::{Cdb, Payload};
use crate::scsi::status::{HostByte, Status};
use crate::scsi::unmap;

/// What goes over the wire.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) cdb: Cdb,
    pub(super) direction: Direction,
    /// Data-out of our own making; `None`: the command's segments.
    pub(super) parameters: Option<Vec<u8>>,
    /// The guest's own command: its completion is delivered as it came.
    pub(super) exact: bool,
}

impl Wire {
    /// The segments that go with it: none where there is no data, and none
    /// that is empty (kernels differ in what they make of those).
    pub(super) fn segments(&self, command: &Command<'_>) -> Vec<Segment> {
        match (self.direction, &self.parameters) {
            (Direction::None, _) | (_, Some(_)) => Vec::new(),
            _ => command.data.iter().copied().filter(|s| s.len > 0).collect(),
        }
    }
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
    let exact = matches!(command.op, Op::Cdb { .. });
    // Nothing to move is no direction: an INQUIRY with an allocation length of
    // zero, say.
    let empty = parameters.is_none() && total_len(command.data) == 0;
    let direction = if exact && empty { Direction::None } else { direction };
    Ok(Wire { cdb, direction, parameters, exact })
}

/// What the request core hears of a completion that says everything: of a
/// block operation only how far it came. Sense that says nothing is wrong is
/// for the guest's own commands.
pub(super) fn told(exact: bool, requested: usize, completion: Completion) -> Completion {
    match completion {
        Completion::Scsi { status: Status::GOOD, host: HostByte::OK, residual, .. } if !exact => {
            match usize::try_from(residual).unwrap_or(usize::MAX) {
                0 => Completion::Good,
                left => Completion::Short(requested.saturating_sub(left)),
            }
        }
        other => other,
    }
}
