//! What the engine is told.

use std::time::Duration;

use super::checker::Verdict;
use super::classify::PathVerdict;
use super::hwhandler::Activation;
use super::prio::Reading;
use super::reservation::{Answer, OrderId};
use super::snapshot::PathId;
use crate::io::{Completion, Identity, Op};
use crate::scsi::reservation::Out;

/// A fact that reached the engine. Administrator requests are methods of
/// [`Multipath`](super::Multipath) instead, because they have an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A queue thread saw something that bears on a path.
    Io(IoReport),
    /// A check ended; `check` is the number it was asked for with.
    Checked {
        /// Which path.
        path: PathId,
        /// Number of the check.
        check: u32,
        /// Its finding.
        verdict: Verdict,
    },
    /// A proof of identity ended.
    Proven {
        /// Which path.
        path: PathId,
        /// Number of the proof.
        proof: u32,
        /// What the path leads to, or why that could not be learned.
        identity: Result<Identity, String>,
    },
    /// A proof of identity ended halfway: the path leads to the LU of that
    /// WWID, but its target port group is passive, and of a passive path the
    /// capacity cannot be read. It carries nothing until that is proven, too.
    Recognized {
        /// Which path.
        path: PathId,
        /// Number of the proof.
        proof: u32,
        /// The WWID.
        wwid: String,
    },
    /// A prioritizer ended.
    Prioritized {
        /// Which path.
        path: PathId,
        /// Number of the reading.
        reading: u32,
        /// What it came to.
        found: Reading,
    },
    /// An activation ended.
    Activated {
        /// Which path.
        path: PathId,
        /// Number of the activation.
        activation: u32,
        /// How.
        result: Activation,
    },
    /// A sample was read, or not.
    Sampled {
        /// Which path.
        path: PathId,
        /// Number of the sample.
        sample: u32,
        /// Whether it could be read.
        good: bool,
    },
    /// The host's kernel says of the path's device what its LU has told some
    /// command, perhaps one that was not ours (a uevent).
    Told {
        /// Which path.
        path: PathId,
        /// What.
        news: HostNews,
    },
    /// The guest's PERSISTENT RESERVE OUT; answered by `Effect::Answer`.
    Ordered {
        /// Names it.
        order: OrderId,
        /// What it says.
        out: Out,
    },
    /// That has ended without an answer: if it has not begun it is not to
    /// begin.
    Withdrawn {
        /// Names it.
        order: OrderId,
    },
    /// A command about reservations ended.
    Reserved {
        /// Which path.
        path: PathId,
        /// Number of the job.
        job: u32,
        /// What came of it.
        answer: Answer,
    },
    /// Every queue thread has acknowledged the suspended table of this
    /// generation, and nothing of the guest's is out on any path.
    Quiet {
        /// Of the table.
        generation: u64,
    },
    /// [`Multipath::next_deadline`](super::Multipath::next_deadline) passed.
    Timer,
}

/// What the host's kernel has heard from an LU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostNews {
    /// It may be another LU now: the kernel's word for it.
    PerhapsAnother(&'static str),
    /// It may have another capacity.
    Capacity,
    /// Access states of target port groups have changed.
    AccessStates,
}

/// A queue thread's report about a path. It has already acted on it locally;
/// the report may be lost (the next failure repeats it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoReport {
    /// Which path.
    pub path: PathId,
    /// Epoch of the path at which the command was issued.
    pub epoch: u32,
    /// What happened.
    pub reason: IoReason,
}

/// Why a queue thread reports a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoReason {
    /// A completion was judged.
    Judged {
        /// The classifier's rule.
        rule: &'static str,
        /// Its verdict on the path, not `Keep`.
        verdict: PathVerdict,
        /// The command.
        op: Op,
        /// Its completion.
        completion: Completion,
    },
    /// A command has been out longer than the suspect time.
    Hung {
        /// The command.
        op: Op,
        /// How long it has been out.
        out: Duration,
    },
}
