//! One path's reserved thread: checks, readings of its priority, activations,
//! samples, proofs of identity, resets of the LU, commands about reservations.
//!
//! What is sent and what the answer means is `mpath`'s (`checker`, `prio`,
//! `hwhandler`); this has it carried out, one after the other, and waits as long as the kernel makes it wait. It is never
//! behind guest I/O: the path has a way of its own for it (law 2, design of
//! the transports). When the path has left the map this thread is the last to
//! hold it, closes it and says so.
//!
//! A unit attention that a check or a proof meets is told to the map's
//! [`Attentions`] before anything else is sent: the LU tells it once per path,
//! and it is the guest's to hear. What met none is told, too: the path had
//! nothing left to tell then.

mod reserving;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::mailbox::{Mail, Post};
use super::probing::{Ask, carry_out};
use crate::io::Completion;
use crate::mpath::checker::{Checker, CheckerKind, Verdict};
use crate::mpath::hwhandler::{Handler, HandlerKind};
use crate::mpath::prio::{Attributes, PrioKind, Prioritizer, Reading};
use crate::mpath::probe::{Answer, Probe};
use crate::mpath::reservation;
use crate::mpath::snapshot::PathId;
use crate::passthrough_scsi::{PathHandle, unit_attention};
use crate::scsi::attention::Attentions;
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::Sense;

/// What to do next.
#[derive(Clone, Debug)]
enum Job {
    Check(u32, CheckerKind),
    Prioritize(u32, PrioKind),
    Activate(u32, HandlerKind, Option<u16>),
    Sample(u32),
    Prove(u32),
    Reserve(u32, reservation::Ask),
    Drain,
    Timeout(Duration),
    ResetLu,
}

/// How long the kernel has for each command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// With a check, and all that is like one.
    pub(super) check: Duration,
    /// With what a guest waits for.
    pub(super) command: Duration,
}

/// The owner's end; dropping it closes the path.
#[derive(Debug)]
pub(super) struct Checking {
    jobs: Sender<Job>,
}

impl Checking {
    /// Starts the thread. `attentions` are the map's, `None` where its guest knows no such thing.
    pub(super) fn start(
        path: PathId,
        handle: Arc<PathHandle>,
        (kind, attributes): (CheckerKind, Attributes),
        patience: Patience,
        post: Post,
        attentions: Option<Arc<Attentions>>,
    ) -> io::Result<Checking> {
        let (jobs, todo) = channel();
        let name = format!("check-{}", handle.name());
        let node_size = handle.node_size();
        let thread = Thread {
            path,
            handle,
            attributes,
            timeout: patience.check,
            command_timeout: patience.command,
            post,
            attentions,
            checker: Checker::new(kind),
            prioritizer: None,
            node_size,
        };
        std::thread::Builder::new().name(name).spawn(move || thread.run(&todo))?;
        Ok(Checking { jobs })
    }

    /// Checks the path; answered by [`Mail::Checked`].
    pub(super) fn check(&self, number: u32, checker: CheckerKind) {
        // The thread ends only after this end is gone.
        let _ = self.jobs.send(Job::Check(number, checker));
    }

    /// Determines its priority; answered by [`Mail::Prioritized`].
    pub(super) fn prioritize(&self, number: u32, prio: PrioKind) {
        let _ = self.jobs.send(Job::Prioritize(number, prio));
    }

    /// Activates it; answered by [`Mail::Activated`].
    pub(super) fn activate(&self, number: u32, handler: HandlerKind, group: Option<u16>) {
        let _ = self.jobs.send(Job::Activate(number, handler, group));
    }

    /// Reads its first block; answered by [`Mail::Sampled`].
    pub(super) fn sample(&self, number: u32) {
        let _ = self.jobs.send(Job::Sample(number));
    }

    /// Proves its identity; answered by [`Mail::Proven`].
    pub(super) fn prove(&self, number: u32) {
        let _ = self.jobs.send(Job::Prove(number));
    }

    /// Carries out a command about reservations; answered by
    /// [`Mail::Reserved`].
    pub(super) fn reserve(&self, job: u32, ask: reservation::Ask) {
        let _ = self.jobs.send(Job::Reserve(job, ask));
    }

    /// Has the path tell the unit attentions that it has to tell.
    pub(super) fn drain(&self) {
        let _ = self.jobs.send(Job::Drain);
    }

    /// The kernel's timeout for each check from now on.
    pub(super) fn set_timeout(&self, timeout: Duration) {
        let _ = self.jobs.send(Job::Timeout(timeout));
    }

    /// Resets the LU in the array; answered by [`Mail::LuReset`].
    pub(super) fn reset_lu(&self) {
        let _ = self.jobs.send(Job::ResetLu);
    }
}

struct Thread {
    path: PathId,
    handle: Arc<PathHandle>,
    attributes: Attributes,
    timeout: Duration,
    command_timeout: Duration,
    post: Post,
    attentions: Option<Arc<Attentions>>,
    /// Kept from one use to the next: some learn, and remember.
    checker: Checker,
    prioritizer: Option<Prioritizer>,
    /// What the kernel last said of the node's size.
    node_size: Option<u64>,
}

/// Whether the LU answers this with a unit attention where it has one to tell.
/// INQUIRY is served in spite of them (SPC-5 5.14), and what else there is may
/// be; that the path has nothing left to tell is believed of these two only.
fn tells_attentions(probe: &Probe) -> bool {
    match probe {
        Probe::Command { cdb, .. } => *cdb == Cdb::test_unit_ready(),
        Probe::ReadFirstBlock => true,
        Probe::Fact(_) => false,
    }
}

/// The path's unit attentions are heard.
impl Ask for Thread {
    fn ask(&self, probe: &Probe) -> Answer {
        let before = self.moment();
        let answer = carry_out(&self.handle, probe, self.timeout);
        if let Answer::Completed { completion, .. } = &answer {
            if let Some(sense) = unit_attention(completion) {
                self.hear(sense);
            } else if *completion == Completion::Good && tells_attentions(probe) {
                self.drained(before);
            }
        }
        answer
    }
}

impl Thread {
    fn run(mut self, jobs: &Receiver<Job>) {
        let path = self.path;
        if self.attentions.is_some() {
            // It joins with nothing left to tell of what has been. (If it does
            // not answer, the engine's first check says so.)
            self.verdict(self.checker.kind());
        }
        while let Ok(job) = jobs.recv() {
            let mail = match job {
                Job::Check(check, kind) => {
                    let verdict = self.verdict(kind);
                    let good = verdict == (Verdict::Up { doubt: false });
                    if good && self.handle.learn_fua(self.timeout, &|sense| self.hear(sense)) {
                        self.post.send(Mail::Learned);
                    }
                    Mail::Checked { path, check, verdict }
                }
                Job::Prioritize(reading, prio) => {
                    Mail::Prioritized { path, reading, found: self.priority(prio) }
                }
                Job::Activate(activation, kind, group) => {
                    let mut handler = Handler::new(kind, group);
                    Mail::Activated { path, activation, result: self.activate(&mut handler) }
                }
                Job::Sample(sample) => {
                    let answer = self.ask(&Probe::ReadFirstBlock);
                    let good = Completion::Good;
                    let good = matches!(answer, Answer::Completed { completion, .. } if completion == good);
                    Mail::Sampled { path, sample, good }
                }
                Job::Prove(proof) => self.prove(proof),
                Job::Reserve(job, ask) => self.reserve(job, ask),
                Job::Drain => {
                    self.drain();
                    continue;
                }
                Job::Timeout(timeout) => {
                    self.timeout = timeout;
                    continue;
                }
                Job::ResetLu => Mail::LuReset { path, result: self.handle.reset_lu(self.timeout) },
            };
            self.post.send(mail);
        }
        let Thread { handle, post, .. } = self;
        drop(handle);
        post.send(Mail::Closed(path));
    }

    fn prove(&self, proof: u32) -> Mail {
        let before = self.moment();
        let identity = self.handle.identify(self.timeout, &|sense| self.hear(sense));
        if identity.is_ok() {
            // READ CAPACITY has met no unit attention in the end.
            self.drained(before);
        }
        Mail::Proven { path: self.path, proof, identity }
    }

    fn verdict(&mut self, kind: CheckerKind) -> Verdict {
        let mut checker = std::mem::replace(&mut self.checker, Checker::new(kind));
        if checker.kind() != kind {
            checker = Checker::new(kind);
        }
        let verdict = self.check(&mut checker);
        self.checker = checker;
        match verdict {
            Verdict::Up { doubt: false } if self.node_was_resized() => Verdict::Resized,
            other => other,
        }
    }

    /// The kernel knows of another size of the node: of a file, or of a disk
    /// that somebody had rescanned, which takes the LU's word of it.
    fn node_was_resized(&mut self) -> bool {
        let size = self.handle.node_size();
        size.is_some() && std::mem::replace(&mut self.node_size, size) != size
    }

    fn priority(&mut self, kind: PrioKind) -> Reading {
        let mut prioritizer = match self.prioritizer.take() {
            Some(old) if *old.kind() == kind => old,
            _ => Prioritizer::new(kind, &self.attributes),
        };
        let found = self.prioritize(&mut prioritizer);
        self.prioritizer = Some(prioritizer);
        found
    }

    fn hear(&self, sense: &Sense) {
        if let Some(attentions) = &self.attentions {
            attentions.overheard(self.path.key(), sense);
        }
    }

    fn moment(&self) -> u64 {
        self.attentions.as_ref().map_or(0, |attentions| attentions.moment())
    }

    /// What was sent after `before` met no unit attention.
    fn drained(&self, before: u64) {
        if let Some(attentions) = &self.attentions {
            attentions.drained(self.path.key(), before);
        }
    }
}
