//! Whether a path may lead elsewhere, as far as anybody has been told through
//! it (law 2).
//!
//! The array tells of it once per nexus, by a unit attention, to whichever
//! command comes next: a guest's on one queue thread, a checker's, a proof's.
//! All others learn of it here: from the moment that command is back, no other
//! is sent until a proof has settled it, whatever tables are on their way. Any
//! thread.

use std::sync::atomic::{AtomicU64, Ordering};

use super::unit_attention;
use crate::io::Completion;
use crate::scsi::sense::{Sense, SenseCode};

/// Unit attentions that question a path's identity.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// How many were met.
    met: AtomicU64,
    /// How many of them a proof of the same LU has settled.
    settled: AtomicU64,
}

impl Doubts {
    /// One is not settled.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.met() != self.settled.load(Ordering::Acquire)
    }

    /// How many were met so far.
    pub(super) fn met(&self) -> u64 {
        self.met.load(Ordering::Acquire)
    }

    /// A command is back, whoever sent it.
    pub(super) fn look_at(&self, completion: &Completion) {
        if let Some(sense) = unit_attention(completion) {
            self.hear(sense);
        }
    }

    /// The LU has said this, by whatever way.
    pub(super) fn hear(&self, sense: &Sense) {
        let code = sense.code().filter(|_| !sense.is_deferred());
        if code.is_some_and(SenseCode::questions_identity) {
            self.question();
        }
    }

    /// Somebody says so.
    pub(super) fn question(&self) {
        self.met.fetch_add(1, Ordering::AcqRel);
    }

    /// The path's name was read and is the right one. Whatever was met before
    /// that was asked for is settled: `met` of them.
    pub(super) fn settle(&self, met: u64) {
        self.settled.fetch_max(met, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::status::{HostByte, Status};

    fn check(code: SenseCode) -> Completion {
        let (status, host) = (Status::CHECK_CONDITION, HostByte::OK);
        Completion::Scsi { status, host, sense: Sense::fixed(code), residual: 0 }
    }

    #[test]
    fn what_is_met_while_the_name_is_read_is_not_settled_by_it() {
        let doubts = Doubts::default();
        doubts.look_at(&check(SenseCode::REPORTED_LUNS_CHANGED));
        let before = doubts.met();
        doubts.look_at(&check(SenseCode::REPORTED_LUNS_CHANGED));
        doubts.settle(before);
        assert!(doubts.is_open());
        doubts.settle(doubts.met());
        assert!(!doubts.is_open());
        doubts.settle(before);
        assert!(!doubts.is_open(), "an older proof takes nothing back");
    }

    #[test]
    fn only_what_questions_the_identity_counts() {
        let doubts = Doubts::default();
        doubts.look_at(&check(SenseCode::CAPACITY_CHANGED));
        doubts.look_at(&Completion::Good);
        assert!(!doubts.is_open());
    }
}
