//! Data that goes with a command of our own: checkers, prioritizers, hardware
//! handlers, proofs.
//!
//! Not a guest's: that is [`Segment`](crate::io::Segment)s.

use crate::io::{Completion, Direction};
use crate::scsi::status::HostByte;

/// Data of a command that [`execute`](super::PathHandle::execute) sends.
#[derive(Debug)]
pub enum Data<'a> {
    /// None.
    None,
    /// From the LU: as many bytes as there are at most; cut to what arrived.
    In(&'a mut Vec<u8>),
    /// To the LU.
    Out(&'a [u8]),
}

/// The same for one way into a path, which cuts nothing.
#[derive(Debug)]
pub(super) enum Buffer<'a> {
    In(&'a mut [u8]),
    Out(&'a [u8]),
}

impl Buffer<'_> {
    pub(super) const NONE: Buffer<'static> = Buffer::Out(&[]);

    pub(super) fn len(&self) -> usize {
        match self {
            Buffer::In(bytes) => bytes.len(),
            Buffer::Out(bytes) => bytes.len(),
        }
    }

    /// Which way it goes; nowhere if it is empty.
    pub(super) fn direction(&self) -> Direction {
        match self {
            _ if self.len() == 0 => Direction::None,
            Buffer::In(_) => Direction::In,
            Buffer::Out(_) => Direction::Out,
        }
    }
}

/// How many of `asked` bytes of data-in arrived.
pub(super) fn arrived(completion: &Completion, asked: usize) -> usize {
    match *completion {
        Completion::Good => asked,
        Completion::Short(moved) => moved.min(asked),
        Completion::Scsi { host: HostByte::OK, residual, .. } => {
            asked.saturating_sub(usize::try_from(residual).unwrap_or(usize::MAX))
        }
        Completion::Scsi { .. } | Completion::Errno { .. } => 0,
    }
}
