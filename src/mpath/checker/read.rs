//! `directio` and `readsector0`: the first block is read
//! (`libmultipath/checkers/{directio,readsector0}.c`).
//!
//! What is read is the same here; how it travels is the path's: by passthrough
//! on a SCSI path, directly on any other. Never a ghost. An alternative to
//! `tur` for arrays whose ports accept that and then fail every read. A
//! transition of the target port group leaves the state as it is, as it does in
//! multipath-tools, where the kernel holds the read as long.

use super::{Probe, Step, Tally, Verdict};
use crate::mpath::probe::outcome::Outcome;

pub(super) fn first() -> Step<Verdict> {
    Step::Issue(Probe::ReadFirstBlock)
}

pub(super) fn next(tally: &mut Tally, outcome: Outcome) -> Step<Verdict> {
    match tally.judge_read(outcome) {
        Some(verdict) => Step::Done(verdict),
        None => first(),
    }
}
