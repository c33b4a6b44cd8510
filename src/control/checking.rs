//! One path's reserved thread: checks, proofs of identity, resets of the LU.
//!
//! What a check sends and what the answer means is `mpath::checker`'s; this
//! carries it out, and waits as long as the kernel makes it wait. It is never
//! behind guest I/O: the path has a way of its own for it (law 2, design of
//! the transports). When the path has left the map this thread is the last to
//! hold it, closes it and says so.
//!
//! A unit attention that a check or a proof meets is told to the map's
//! [`Attentions`] before anything else is sent: the LU tells it once per path,
//! and it is the guest's to hear. What met none is told, too: the path had
//! nothing left to tell then.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::mailbox::{Mail, Post};
use crate::io::Completion;
use crate::mpath::checker::{Checker, CheckerKind, Probe, Step, Verdict};
use crate::mpath::snapshot::PathId;
use crate::passthrough_scsi::{PathHandle, unit_attention};
use crate::scsi::attention::Attentions;
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::Sense;

/// What to do next.
#[derive(Clone, Copy, Debug)]
enum Job {
    Check(u32),
    Prove(u32),
    ResetLu,
}

/// The owner's end; dropping it closes the path.
#[derive(Debug)]
pub(super) struct Checking {
    jobs: Sender<Job>,
}

impl Checking {
    /// Starts the thread. `timeout` is the kernel's for each command;
    /// `attentions` are the map's, `None` where its guest knows no such thing.
    pub(super) fn start(
        path: PathId,
        handle: Arc<PathHandle>,
        kind: CheckerKind,
        timeout: Duration,
        post: Post,
        attentions: Option<Arc<Attentions>>,
    ) -> io::Result<Checking> {
        let (jobs, todo) = channel();
        let name = format!("check-{}", handle.name());
        let thread = Thread { path, handle, kind, timeout, post, attentions };
        std::thread::Builder::new().name(name).spawn(move || thread.run(&todo))?;
        Ok(Checking { jobs })
    }

    /// Checks the path; answered by [`Mail::Checked`].
    pub(super) fn check(&self, number: u32) {
        // The thread ends only after this end is gone.
        let _ = self.jobs.send(Job::Check(number));
    }

    /// Proves its identity; answered by [`Mail::Proven`].
    pub(super) fn prove(&self, number: u32) {
        let _ = self.jobs.send(Job::Prove(number));
    }

    /// Resets the LU in the array; answered by [`Mail::LuReset`].
    pub(super) fn reset_lu(&self) {
        let _ = self.jobs.send(Job::ResetLu);
    }
}

struct Thread {
    path: PathId,
    handle: Arc<PathHandle>,
    kind: CheckerKind,
    timeout: Duration,
    post: Post,
    attentions: Option<Arc<Attentions>>,
}

impl Thread {
    fn run(self, jobs: &Receiver<Job>) {
        let path = self.path;
        if self.attentions.is_some() {
            // It joins with nothing left to tell of what has been. (If it does
            // not answer, the engine's first check says so.)
            self.verdict();
        }
        while let Ok(job) = jobs.recv() {
            self.post.send(match job {
                Job::Check(check) => Mail::Checked { path, check, verdict: self.verdict() },
                Job::Prove(proof) => {
                    let before = self.moment();
                    let identity = self.handle.identify(self.timeout, &|sense| self.hear(sense));
                    if identity.is_ok() {
                        // READ CAPACITY has met no unit attention in the end.
                        self.drained(before);
                    }
                    Mail::Proven { path, proof, identity }
                }
                Job::ResetLu => Mail::LuReset { path, result: self.handle.reset_lu(self.timeout) },
            });
        }
        let Thread { handle, post, .. } = self;
        drop(handle);
        post.send(Mail::Closed(path));
    }

    fn verdict(&self) -> Verdict {
        let mut checker = Checker::new(self.kind);
        let mut step = checker.begin();
        loop {
            let before = self.moment();
            let completion = match step {
                Step::Done(verdict) => return verdict,
                Step::Issue(Probe::TestUnitReady) => {
                    self.handle.execute(&Cdb::test_unit_ready(), &mut [], self.timeout)
                }
                Step::Issue(Probe::ReadFirstBlock) => self.handle.read_check(self.timeout),
            };
            if let Some(sense) = unit_attention(&completion) {
                self.hear(sense);
            } else if completion == Completion::Good {
                self.drained(before);
            }
            step = checker.on_completion(&completion);
        }
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
