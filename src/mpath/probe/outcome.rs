//! How a generator's command ended, in the terms all of them decide by.
//!
//! Not `classify`: that judges guest commands, which have other paths to go
//! to. Who asks here wants to know about this path.

use std::time::Duration;

use super::{Answer, Probe};
use crate::io::Completion;
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::{Key, SenseCode};
use crate::scsi::status::{HostByte, Status};

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mpath) enum Outcome {
    /// Carried out, or with sense that amounts to it (00, 01).
    Good,
    /// Carried out, with fewer bytes than asked for: what answers of variable
    /// length look like.
    Short,
    /// Not carried out for a unit attention, for deferred sense, or since
    /// another nexus aborted it: it wants to be sent again.
    Again(Option<SenseCode>),
    /// Not carried out, and this is why.
    Sense(SenseCode),
    /// The LU is there, and has no time: BUSY, TASK SET FULL, ACA ACTIVE.
    Busy,
    /// The LU is there, and another nexus holds a reservation.
    Reserved,
    /// A status that is none of these, or CHECK CONDITION without sense.
    Status,
    /// The transport's word.
    Host(HostByte),
    /// The kernel's; positive.
    Errno(i32),
}

/// What `completion` says.
pub(in crate::mpath) fn outcome(completion: &Completion) -> Outcome {
    let (status, host, sense, residual) = match completion {
        Completion::Good => return Outcome::Good,
        Completion::Short(_) => return Outcome::Short,
        Completion::Errno { code, .. } => return Outcome::Errno(*code),
        Completion::Scsi { status, host, sense, residual } => (*status, *host, sense, *residual),
    };
    let carried_out = if residual == 0 { Outcome::Good } else { Outcome::Short };
    match (host, status) {
        // Linux sets these host bytes beside the LU's own status.
        (
            HostByte::OK
            | HostByte::TARGET_FAILURE
            | HostByte::NEXUS_FAILURE
            | HostByte::ALLOC_FAILURE
            | HostByte::MEDIUM_ERROR,
            _,
        ) => {}
        (host, _) => return Outcome::Host(host),
    }
    match status {
        Status::GOOD if host == HostByte::OK => carried_out,
        Status::GOOD => Outcome::Host(host),
        Status::BUSY | Status::TASK_SET_FULL | Status::ACA_ACTIVE => Outcome::Busy,
        Status::RESERVATION_CONFLICT => Outcome::Reserved,
        Status::TASK_ABORTED => Outcome::Again(None),
        Status::CHECK_CONDITION if sense.is_deferred() => Outcome::Again(None),
        Status::CHECK_CONDITION => match sense.code() {
            None => Outcome::Status,
            Some(SenseCode { key: Key::NoSense | Key::RecoveredError, .. }) => carried_out,
            // A transition told as a unit attention (Linux 6.10 knows it) is
            // the transition: sending the command again does not end it.
            Some(SenseCode { key: Key::UnitAttention, asc: 0x04, ascq: 0x0a }) => {
                Outcome::Sense(SenseCode::NOT_READY_TRANSITIONING)
            }
            Some(code) if code.key == Key::UnitAttention => Outcome::Again(Some(code)),
            Some(code) => Outcome::Sense(code),
        },
        _ => Outcome::Status,
    }
}

impl Outcome {
    /// The LU does not know the command, the page or a field of it.
    pub(in crate::mpath) fn is_refused(self) -> bool {
        matches!(self, Outcome::Sense(SenseCode { key: Key::IllegalRequest, asc, .. })
            if matches!(asc, 0x1a | 0x20 | 0x24 | 0x26))
    }

    /// Data-in arrived, if perhaps less than asked for.
    pub(in crate::mpath) fn has_data(self) -> bool {
        matches!(self, Outcome::Good | Outcome::Short)
    }
}

/// An answer as commands and reads have it: outcome, data-in, how long it took.
/// A fact is none that was asked for: as a device that is gone.
pub(in crate::mpath) fn completed(answer: &Answer) -> (Outcome, &[u8], Duration) {
    match answer {
        Answer::Completed { completion, data, took } => (outcome(completion), data, *took),
        Answer::DeviceState(_) | Answer::AccessState(_) => {
            (Outcome::Errno(libc::ENODEV), &[], Duration::ZERO)
        }
    }
}

/// INQUIRY: standard data, or the VPD `page`.
pub(in crate::mpath) fn inquiry(page: Option<u8>, allocation: u16) -> Probe {
    Probe::reading(Cdb::inquiry(page, allocation), usize::from(allocation))
}

/// So many tries where a command must be sent again.
#[derive(Clone, Copy, Debug)]
pub(in crate::mpath) struct Tries(u8);

impl Tries {
    /// Most checkers and drivers try five times.
    pub(in crate::mpath) const FIVE: Tries = Tries(5);
    /// `readsector0`.
    pub(in crate::mpath) const THREE: Tries = Tries(3);

    /// One try is used up; whether there is another.
    pub(in crate::mpath) fn another(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::ErrnoFrom;
    use crate::scsi::sense::Sense;

    fn scsi(status: Status, host: HostByte, sense: Sense, residual: u32) -> Outcome {
        outcome(&Completion::Scsi { status, host, sense, residual })
    }

    #[test]
    fn the_lus_word_is_told_from_the_transports() {
        let none = Sense::EMPTY;
        let ok = HostByte::OK;
        assert_eq!(scsi(Status::GOOD, ok, none, 0), Outcome::Good);
        assert_eq!(scsi(Status::GOOD, ok, none, 9), Outcome::Short);
        let error = HostByte::ERROR;
        assert_eq!(scsi(Status::BUSY, error, none, 0), Outcome::Host(error));
        let nexus = HostByte::NEXUS_FAILURE;
        assert_eq!(scsi(Status::RESERVATION_CONFLICT, nexus, none, 0), Outcome::Reserved);
        assert_eq!(scsi(Status::GOOD, nexus, none, 0), Outcome::Host(nexus));
        assert_eq!(scsi(Status(0x77), ok, none, 0), Outcome::Status);
        assert_eq!(scsi(Status::CHECK_CONDITION, ok, none, 0), Outcome::Status);
        for status in [Status::BUSY, Status::TASK_SET_FULL, Status::ACA_ACTIVE] {
            assert_eq!(scsi(status, ok, none, 0), Outcome::Busy, "{status}");
        }
        let gone = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENODEV };
        assert_eq!(outcome(&gone), Outcome::Errno(libc::ENODEV));
    }

    #[test]
    fn what_wants_to_be_sent_again_is_told_from_what_does_not() {
        let check = |sense: Sense| scsi(Status::CHECK_CONDITION, HostByte::OK, sense, 0);
        let reset = SenseCode::POWER_ON_OR_RESET;
        assert_eq!(check(Sense::fixed(reset)), Outcome::Again(Some(reset)));
        let mut deferred = Sense::fixed(SenseCode::UNRECOVERED_READ_ERROR).as_bytes().to_vec();
        deferred[0] = 0x71;
        assert_eq!(check(Sense::from_bytes(&deferred)), Outcome::Again(None));
        let transition = SenseCode::new(Key::UnitAttention, 0x04, 0x0a);
        let known = Outcome::Sense(SenseCode::NOT_READY_TRANSITIONING);
        assert_eq!(check(Sense::fixed(transition)), known);
        let recovered = SenseCode::new(Key::RecoveredError, 0x17, 0x01);
        assert_eq!(check(Sense::fixed(recovered)), Outcome::Good);
        let aborted = scsi(Status::TASK_ABORTED, HostByte::OK, Sense::EMPTY, 0);
        assert_eq!(aborted, Outcome::Again(None));
        assert!(check(Sense::fixed(SenseCode::INVALID_FIELD_IN_CDB)).is_refused());
        assert!(!check(Sense::fixed(SenseCode::LUN_NOT_SUPPORTED)).is_refused());
    }

    #[test]
    fn tries_end() {
        let mut tries = Tries::THREE;
        assert_eq!([(); 4].map(|()| tries.another()), [true, true, false, false]);
    }
}
