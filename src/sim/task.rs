//! Tasks as an initiator sees them: what it sends, how they end (SAM-5 5).

use std::time::Duration;

use super::NexusId;
use super::answer::{Failure, Outcome};
use crate::io::Completion;
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::{Sense, SenseFormat};
use crate::scsi::status::{HostByte, Status};

/// What a task's timeout of zero means: what the kernel's SG_IO takes it for.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// A command as an initiator sends it.
#[derive(Clone, Debug)]
pub struct Task {
    /// Over which path.
    pub nexus: NexusId,
    /// Handed back in [`Done`]; need not be unique.
    pub tag: u64,
    /// The command.
    pub cdb: Cdb,
    /// Data the initiator offers; may be longer than the CDB asks for.
    pub data_out: Vec<u8>,
    /// Bytes the initiator has room for.
    pub data_in_max: usize,
    /// The initiator aborts the task after this long; zero means 60 s.
    pub timeout: Duration,
}

/// A task that ended. Every task submitted ends exactly once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Of the task.
    pub nexus: NexusId,
    /// Of the task.
    pub tag: u64,
    /// How it ended; the residual counts bytes of `data_in_max` not filled,
    /// or of `data_out` not taken.
    pub completion: Completion,
    /// Data-in, at most `data_in_max` bytes.
    pub data_in: Vec<u8>,
}

/// Counts of one nexus since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tasks submitted.
    pub submitted: u64,
    /// Tasks ended with status GOOD and no transport error.
    pub good: u64,
    /// Tasks ended with CHECK CONDITION or another status of the LU.
    pub check_conditions: u64,
    /// Tasks ended by the transport (host byte).
    pub transport_errors: u64,
    /// Faults injected, [`super::Fault::Plug`] not counted.
    pub faults: u64,
    /// Bytes of data-in delivered.
    pub bytes_in: u64,
    /// Bytes of data-out of tasks that ended well.
    pub bytes_out: u64,
}

impl Task {
    pub(super) fn abort_after(&self) -> Duration {
        if self.timeout.is_zero() { DEFAULT_TIMEOUT } else { self.timeout }
    }

    /// Bytes the initiator offered to move, in either direction.
    fn offered(&self) -> usize {
        self.data_in_max.saturating_add(self.data_out.len())
    }

    /// What the initiator sees of the LU's answer.
    pub(super) fn finish(&self, outcome: Outcome, format: SenseFormat) -> (Completion, Vec<u8>) {
        match outcome {
            Ok(answer) => {
                let mut data_in = answer.data_in;
                data_in.truncate(self.data_in_max);
                let missing = self.data_in_max - data_in.len();
                let residual = missing + self.data_out.len().saturating_sub(answer.taken);
                if residual == 0 {
                    return (Completion::Good, data_in);
                }
                (scsi(Status::GOOD, HostByte::OK, Sense::EMPTY, residual), data_in)
            }
            Err(Failure::Refused(refusal)) => {
                let sense = refusal.sense(format);
                let status = Status::CHECK_CONDITION;
                (scsi(status, HostByte::OK, sense, self.offered()), Vec::new())
            }
            Err(Failure::Conflict) => (self.refused_with(Status::RESERVATION_CONFLICT), Vec::new()),
            // What an HBA makes of an initiator that has no data (or no room)
            // for what its own CDB announces.
            Err(Failure::Overrun) => (self.transport_error(HostByte::ERROR), Vec::new()),
        }
    }

    /// Ended by the transport.
    pub(super) fn transport_error(&self, host: HostByte) -> Completion {
        scsi(Status::GOOD, host, Sense::EMPTY, self.offered())
    }

    /// Ended with a status that has no sense.
    pub(super) fn refused_with(&self, status: Status) -> Completion {
        scsi(status, HostByte::OK, Sense::EMPTY, self.offered())
    }
}

impl Stats {
    pub(super) fn count(&mut self, task: &Task, completion: &Completion, data_in: usize) {
        let residual = match completion {
            Completion::Scsi { host, .. } if *host != HostByte::OK => {
                self.transport_errors += 1;
                return;
            }
            Completion::Scsi { status, residual, .. } if *status == Status::GOOD => *residual,
            Completion::Good => 0,
            _ => {
                self.check_conditions += 1;
                return;
            }
        };
        self.good += 1;
        self.bytes_in += data_in as u64;
        if task.data_in_max == 0 {
            self.bytes_out += (task.data_out.len() as u64).saturating_sub(u64::from(residual));
        }
    }
}

fn scsi(status: Status, host: HostByte, sense: Sense, residual: usize) -> Completion {
    let residual = u32::try_from(residual).unwrap_or(u32::MAX);
    Completion::Scsi { status, host, sense, residual }
}
