//! What a path's checking thread is at: checks, priorities, activations,
//! samples, proofs of identity. The generators are the engine's own; this turns
//! what they ask for into one kind of conversation.

use std::time::Duration;

use vhost_mpath::io::{Completion, Identity};
use vhost_mpath::mpath::checker::Checker;
use vhost_mpath::mpath::classify;
use vhost_mpath::mpath::errand::Errand;
use vhost_mpath::mpath::event::Event;
use vhost_mpath::mpath::hwhandler::Handler;
use vhost_mpath::mpath::prio::Prioritizer;
use vhost_mpath::mpath::probe::{Answer, Probe, Step};
use vhost_mpath::mpath::reservation;
use vhost_mpath::mpath::snapshot::PathId;
use vhost_mpath::scsi::attention::Expected;
use vhost_mpath::scsi::capacity::Capacity;
use vhost_mpath::scsi::cdb::Cdb;
use vhost_mpath::scsi::sense::SenseCode;
use vhost_mpath::scsi::status::{HostByte, Status};
use vhost_mpath::scsi::vpd;

/// A command on its way.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) tag: u64,
    pub(crate) what: What,
    /// When it was sent, by the clock of the unit attentions.
    pub(crate) sent: u64,
    /// A moment before it was sent, if it says that nothing is left to tell.
    pub(crate) drains: Option<u64>,
    /// When it was sent.
    pub(crate) begun: vhost_mpath::io::Time,
}

/// Whose command it is, and who waits for its answer.
#[derive(Debug)]
pub(crate) enum What {
    /// Another host's MODE SELECT.
    ModeSelect { descriptor_sense: bool },
    /// Another host's SET TARGET PORT GROUPS.
    SetGroups,
    /// A path's checking thread.
    Path(PathId, Task),
}

#[derive(Debug)]
pub(crate) enum Task {
    Check(u32, Checker),
    Prioritize(u32, Prioritizer),
    Activate(u32, Handler),
    Sample(u32),
    Prove(u32, Proof),
    Reserve(u32, Reserving),
    /// Tells what it has to tell, so often at most.
    Drain(u8),
}

/// A command about reservations on its way.
#[derive(Debug)]
pub(crate) struct Reserving {
    pub(crate) errand: Errand,
    /// What other nexuses may be told of it.
    pub(crate) told: &'static [SenseCode],
    pub(crate) expected: Vec<Expected>,
    /// An order of the guest's was there that may end registrations.
    pub(crate) ordered: bool,
}

/// What a task does next.
#[derive(Debug)]
pub(crate) enum Move {
    Ask(Probe),
    End(Event),
    /// Nobody waits for it.
    Nothing,
}

impl Task {
    pub(crate) fn begin(&mut self, path: PathId) -> Move {
        match self {
            Task::Check(n, checker) => checked(path, *n, checker.begin()),
            Task::Prioritize(n, prioritizer) => prioritized(path, *n, prioritizer.begin()),
            Task::Activate(n, handler) => activated(path, *n, handler.begin()),
            Task::Sample(_) => Move::Ask(Probe::ReadFirstBlock),
            Task::Prove(_, proof) => proof.ask(),
            Task::Reserve(n, reserving) => reserved(path, *n, reserving.errand.begin()),
            Task::Drain(_) => Move::Ask(Probe::bare(Cdb::test_unit_ready())),
        }
    }

    pub(crate) fn on_answer(&mut self, path: PathId, answer: &Answer) -> Move {
        match self {
            Task::Check(n, checker) => checked(path, *n, checker.on_answer(answer)),
            Task::Prioritize(n, prioritizer) => {
                prioritized(path, *n, prioritizer.on_answer(answer))
            }
            Task::Activate(n, handler) => activated(path, *n, handler.on_answer(answer)),
            Task::Sample(n) => {
                let good = matches!(answer, Answer::Completed { completion: Completion::Good, .. });
                Move::End(Event::Sampled { path, sample: *n, good })
            }
            Task::Prove(n, proof) => match proof.on_answer(answer) {
                None => proof.ask(),
                Some(identity) => Move::End(Event::Proven { path, proof: *n, identity }),
            },
            Task::Reserve(n, reserving) => reserved(path, *n, reserving.errand.on_answer(answer)),
            Task::Drain(left) => {
                let told = |c: &Completion| classify::unit_attention(c).is_some();
                let more =
                    matches!(answer, Answer::Completed { completion, .. } if told(completion));
                *left -= 1;
                if !more || *left == 0 {
                    return Move::Nothing;
                }
                Move::Ask(Probe::bare(Cdb::test_unit_ready()))
            }
        }
    }
}

fn checked(path: PathId, check: u32, step: Step<vhost_mpath::mpath::checker::Verdict>) -> Move {
    match step {
        Step::Issue(probe) => Move::Ask(probe),
        Step::Done(verdict) => Move::End(Event::Checked { path, check, verdict }),
    }
}

fn prioritized(path: PathId, reading: u32, step: Step<vhost_mpath::mpath::prio::Reading>) -> Move {
    match step {
        Step::Issue(probe) => Move::Ask(probe),
        Step::Done(found) => Move::End(Event::Prioritized { path, reading, found }),
    }
}

fn activated(
    path: PathId,
    activation: u32,
    step: Step<vhost_mpath::mpath::hwhandler::Activation>,
) -> Move {
    match step {
        Step::Issue(probe) => Move::Ask(probe),
        Step::Done(result) => Move::End(Event::Activated { path, activation, result }),
    }
}

fn reserved(path: PathId, job: u32, step: Step<reservation::Answer>) -> Move {
    match step {
        Step::Issue(probe) => Move::Ask(probe),
        Step::Done(answer) => Move::End(Event::Reserved { path, job, answer }),
    }
}

/// A proof of identity on its way: the capacity, and then the name, as in the
/// daemon: INQUIRY uses up no unit attention.
#[derive(Debug)]
pub(crate) struct Proof {
    tries: u8,
    capacity: Option<Capacity>,
    /// Before its last READ CAPACITY was sent, for
    /// [`vhost_mpath::scsi::attention::Attentions::drained`].
    pub(crate) moment: u64,
    /// Doubts met before the name was asked for: those it settles.
    pub(crate) doubts: u32,
}

impl Proof {
    pub(crate) fn new() -> Proof {
        Proof { tries: 6, capacity: None, moment: 0, doubts: 0 }
    }

    /// The next command reads the capacity.
    pub(crate) fn is_at_capacity(&self) -> bool {
        self.capacity.is_none()
    }

    fn ask(&self) -> Move {
        Move::Ask(match self.capacity {
            None => Probe::reading(Cdb::read_capacity_16(32), 32),
            Some(_) => Probe::reading(Cdb::inquiry(Some(vpd::IDENTIFICATION), 252), 252),
        })
    }

    fn on_answer(&mut self, answer: &Answer) -> Option<Result<Identity, String>> {
        let Answer::Completed { completion, data, .. } = answer else {
            panic!("a proof asks for no facts")
        };
        if !is_good(completion) {
            self.tries -= 1;
            return (self.tries == 0).then(|| Err(format!("{completion:?}")));
        }
        match self.capacity {
            None => {
                self.capacity = Some(Capacity::parse_16(data).expect("READ CAPACITY(16)"));
                None
            }
            Some(capacity) => Some(Ok(Identity {
                wwid: vpd::wwid(Some(data), None).expect("VPD 83h"),
                capacity: capacity.blocks,
                block_size: capacity.block_size,
            })),
        }
    }
}

pub(crate) fn is_good(completion: &Completion) -> bool {
    match completion {
        Completion::Good => true,
        Completion::Scsi { status, host, .. } => *status == Status::GOOD && *host == HostByte::OK,
        _ => false,
    }
}

/// How long a checking thread's answer takes to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coming {
    Soon,
    After(Duration),
    /// Not before the faults end.
    Stuck,
}
