//! `tur`: TEST UNIT READY (`libmultipath/checkers/tur.c`).
//!
//! BUSY, TASK SET FULL and ACA ACTIVE are up here, down in multipath-tools:
//! the LU is there and says itself that it has no time, which no other path
//! would change; the request core waits for it (`classify`). RESERVATION
//! CONFLICT is up in both.

use super::{Heard, Probe, SenseCode, Step, Tally, Verdict};
use crate::mpath::probe::outcome::Outcome;
use crate::scsi::cdb::Cdb;

pub(super) fn first() -> Step<Verdict> {
    Step::Issue(Probe::bare(Cdb::test_unit_ready()))
}

pub(super) fn next(tally: &mut Tally, outcome: Outcome) -> Step<Verdict> {
    Step::Done(match tally.hear(outcome) {
        Heard::Again => return first(),
        Heard::Good | Heard::There => tally.up(),
        Heard::Sense(SenseCode::NOT_READY_STANDBY) => tally.ghost(),
        Heard::Sense(_) => Verdict::Down,
        Heard::Final(verdict) => verdict,
    })
}
