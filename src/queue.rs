//! Queue threads: reactors that carry requests from rings to paths and back.
//!
//! A ring is *moved* into its queue thread when it starts and moved back when
//! it stops ([`RingHost`]); the vhost-user session cannot touch a running ring
//! because it does not have it. Everything else a queue thread knows of the
//! world arrives as mail; what it has to say goes out through an [`Outbox`].
//! Neither side waits for the other.

pub mod dispatch;
mod mailbox;
mod ring;
mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::guest::memory::Memory;
use crate::guest::ring::ChainError;
use crate::guest::virtqueue::VirtQueue;
use crate::io::{Front, Limits};
use crate::mpath::snapshot::{MAX_PATHS, PathId, PathTable};
use crate::passthrough_scsi::PathHandle;
use crate::sys::eventfd::EventFd;
use dispatch::{Report, Settings};
use mailbox::{LastOne, Mail, Mailbox};

/// How a ring stops. Commands already in the kernel are always awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// GET_VRING_BASE without GET_VRING_BASE_INFLIGHT: every popped request
    /// finishes; those no path has taken end with [`Outcome::Stopped`]
    /// (IOERR for the guest).
    ///
    /// [`Outcome::Stopped`]: crate::io::Outcome::Stopped
    Finish,
    /// Requests no path has taken stay marked in the in-flight area and are
    /// not answered; commands that return are published. For
    /// GET_VRING_BASE_INFLIGHT, SIGTERM, and a client that went away, where
    /// in-flight tracking was negotiated.
    Suspend,
    /// The client went away and there is no in-flight area: nothing more is
    /// written to its rings. (QEMU restarts from the used index.)
    Discard,
}

/// A command did not come back from the kernel in time; the ring stays with
/// its queue thread until it does.
#[derive(Debug)]
pub struct StillInKernel;

/// Owner of running rings, as the session sees it.
///
/// All methods return at once; a receiver delivers the answer.
pub trait RingHost: Send + Sync {
    /// Gives a ring away; the queue thread looks at it once without a kick.
    fn start_ring(&self, ring: Box<VirtQueue>);

    /// Takes a ring back. The answer comes once none of its requests is in the
    /// kernel, or `StillInKernel` after `deadline`. A second `stop_ring` may
    /// be sent after that.
    fn stop_ring(
        &self,
        index: u16,
        how: Stop,
        deadline: Duration,
    ) -> Receiver<Result<Box<VirtQueue>, StillInKernel>>;

    /// Stops or resumes popping from a running ring (SET_VRING_ENABLE).
    fn enable_ring(&self, index: u16, enabled: bool);

    /// Replaces the call (interrupt) eventfd of a running ring.
    fn set_call(&self, index: u16, call: Option<OwnedFd>);

    /// Replaces the guest memory under all running rings; the receiver gets a
    /// message once every running ring uses the new table. Requests in flight
    /// keep the old one mapped.
    fn set_memory(&self, memory: Arc<Memory>) -> Receiver<()>;
}

/// What a queue thread tells the control thread.
#[derive(Debug)]
pub enum FromQueue {
    /// Something about a path or a guest-visible error.
    Report(Report),
    /// A removed path is no longer used by the thread that says so.
    Detached(PathId),
    /// A ring made no sense and was stopped.
    RingBroken {
        /// Queue index.
        ring: u16,
        /// What was wrong.
        reason: String,
    },
    /// A guest request could not even be read.
    BadChain {
        /// Queue index.
        ring: u16,
        /// What was wrong.
        reason: String,
    },
    /// The queue thread ended with an error; the device is dead.
    Died(String),
}

/// Commands and bytes issued on each path: one writer (the queue thread), any
/// number of readers.
#[derive(Debug)]
pub struct Counters {
    paths: Vec<(AtomicU64, AtomicU64)>,
}

impl Counters {
    fn new() -> Counters {
        Counters { paths: (0..MAX_PATHS).map(|_| Default::default()).collect() }
    }

    fn issued(&self, path: PathId, bytes: u64) {
        let (commands, total) = &self.paths[usize::from(path.slot) % MAX_PATHS];
        // One writer: a plain load and store, no locked instruction.
        commands.store(commands.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        total.store(total.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }

    fn of(&self, path: PathId) -> (u64, u64) {
        let (commands, total) = &self.paths[usize::from(path.slot) % MAX_PATHS];
        (commands.load(Ordering::Relaxed), total.load(Ordering::Relaxed))
    }

    fn clear(&self, path: PathId) {
        let (commands, total) = &self.paths[usize::from(path.slot) % MAX_PATHS];
        commands.store(0, Ordering::Relaxed);
        total.store(0, Ordering::Relaxed);
    }
}

/// A queue thread's way to the control thread. Sending never blocks: reports
/// that do not fit are dropped, the next failure repeats them.
#[derive(Clone, Debug)]
struct Outbox {
    reports: SyncSender<FromQueue>,
    important: Sender<FromQueue>,
    acknowledged: Arc<AtomicU64>,
    wake: Arc<EventFd>,
}

impl Outbox {
    fn send(&self, message: FromQueue) {
        // A control thread that is gone does not listen: the process ends.
        let _ = self.important.send(message);
        self.wake.signal();
    }

    fn try_send(&self, message: FromQueue) {
        match self.reports.try_send(message) {
            Ok(()) => self.wake.signal(),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    fn report(&self, report: Report) {
        self.try_send(FromQueue::Report(report));
    }

    fn report_chain(&self, ring: u16, error: &ChainError) {
        self.try_send(FromQueue::BadChain { ring, reason: error.to_string() });
    }

    fn acknowledge(&self, generation: u64) {
        self.acknowledged.store(generation, Ordering::Release);
        self.wake.signal();
    }
}

/// What the control thread listens to.
#[derive(Debug)]
pub struct Inlet {
    reports: Receiver<FromQueue>,
    important: Receiver<FromQueue>,
    wake: Arc<EventFd>,
}

impl Inlet {
    /// The next message, if any.
    pub fn next(&self) -> Option<FromQueue> {
        self.important.try_recv().ok().or_else(|| self.reports.try_recv().ok())
    }

    /// Signalled when there is something to read.
    pub fn event(&self) -> &Arc<EventFd> {
        &self.wake
    }
}

/// Most reports waiting for the control thread.
const REPORTS: usize = 1024;

/// One queue thread from outside.
#[derive(Debug)]
struct Thread {
    mailbox: Arc<Mailbox>,
    counters: Arc<Counters>,
    acknowledged: Arc<AtomicU64>,
    join: Mutex<Option<JoinHandle<()>>>,
}

/// The queue threads of one device.
#[derive(Debug)]
pub struct Queues {
    threads: Vec<Thread>,
}

impl Queues {
    /// Starts `threads` queue threads over `settings.rings` rings.
    ///
    /// # Errors
    ///
    /// Those of thread creation and eventfd(2).
    pub fn start<F: Front + 'static>(
        threads: usize,
        settings: Settings,
        table: &Arc<PathTable>,
        front: impl Fn() -> F,
    ) -> io::Result<(Queues, Inlet)> {
        let (reports, reports_in) = std::sync::mpsc::sync_channel(REPORTS);
        let (important, important_in) = channel();
        let wake = Arc::new(EventFd::new()?);
        #[allow(clippy::disallowed_methods)] // the start of the reactors' clock
        let start = Instant::now();
        let mut started = Vec::with_capacity(threads);
        for number in 0..threads.max(1) {
            let mailbox = Arc::new(Mailbox::new()?);
            let counters = Arc::new(Counters::new());
            let acknowledged = Arc::new(AtomicU64::new(0));
            let outbox = Outbox {
                reports: reports.clone(),
                important: important.clone(),
                acknowledged: Arc::clone(&acknowledged),
                wake: Arc::clone(&wake),
            };
            let parts = worker::Parts {
                front: front(),
                mailbox: Arc::clone(&mailbox),
                outbox: outbox.clone(),
                counters: Arc::clone(&counters),
                settings,
                table: Arc::clone(table),
                share: threads.max(1),
                start,
            };
            let run = move || {
                if let Err(error) = worker::Worker::new(parts).and_then(worker::Worker::run) {
                    log::error!("queue thread {number} ended: {error}");
                    outbox.send(FromQueue::Died(error.to_string()));
                }
            };
            let name = format!("queue{number}");
            let join = std::thread::Builder::new().name(name).spawn(run)?;
            started.push(Thread { mailbox, counters, acknowledged, join: Mutex::new(Some(join)) });
        }
        let inlet = Inlet { reports: reports_in, important: important_in, wake };
        Ok((Queues { threads: started }, inlet))
    }

    /// Number of queue threads.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Makes a path known, before a table names it.
    pub fn attach(&self, id: PathId, handle: &Arc<PathHandle>) {
        for thread in &self.threads {
            thread.counters.clear(id);
            thread.mailbox.post(Mail::Attach(id, Arc::clone(handle)));
        }
    }

    /// Forgets a path no table names any more; each thread answers
    /// [`FromQueue::Detached`] when its last command on it has returned.
    pub fn detach(&self, id: PathId) {
        self.post_all(|| Mail::Detach(id));
    }

    /// Hands a new table to every thread.
    pub fn publish(&self, table: &Arc<PathTable>) {
        self.post_all(|| Mail::Table(Arc::clone(table)));
    }

    /// Changes the limits every command must fit.
    pub fn set_limits(&self, limits: Limits) {
        self.post_all(|| Mail::SetLimits(limits));
    }

    /// The newest table that every thread works by.
    pub fn acknowledged(&self) -> u64 {
        let each = self.threads.iter().map(|t| t.acknowledged.load(Ordering::Acquire));
        each.min().unwrap_or(0)
    }

    /// Commands and bytes issued on a path since it joined.
    pub fn issued(&self, path: PathId) -> (u64, u64) {
        self.threads.iter().map(|t| t.counters.of(path)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }

    /// Ends the threads; every ring must have been taken back.
    pub fn quit(&self) {
        self.post_all(|| Mail::Quit);
        for thread in &self.threads {
            let join = thread.join.lock().unwrap_or_else(PoisonError::into_inner).take();
            if join.is_some_and(|j| j.join().is_err()) {
                log::error!("a queue thread panicked");
            }
        }
    }

    fn post_all(&self, mail: impl Fn() -> Mail) {
        for thread in &self.threads {
            thread.mailbox.post(mail());
        }
    }

    /// A ring always runs on the same thread.
    fn thread_of(&self, ring: u16) -> &Thread {
        &self.threads[usize::from(ring) % self.threads.len()]
    }
}

impl RingHost for Queues {
    fn start_ring(&self, ring: Box<VirtQueue>) {
        self.thread_of(ring.index).mailbox.post(Mail::Start(ring));
    }

    fn stop_ring(
        &self,
        index: u16,
        how: Stop,
        deadline: Duration,
    ) -> Receiver<Result<Box<VirtQueue>, StillInKernel>> {
        let (reply, answer) = channel();
        self.thread_of(index).mailbox.post(Mail::Stop { index, how, deadline, reply });
        answer
    }

    fn enable_ring(&self, index: u16, enabled: bool) {
        self.thread_of(index).mailbox.post(Mail::Enable { index, enabled });
    }

    fn set_call(&self, index: u16, call: Option<OwnedFd>) {
        self.thread_of(index).mailbox.post(Mail::SetCall { index, call });
    }

    fn set_memory(&self, memory: Arc<Memory>) -> Receiver<()> {
        let (answer, done) = channel();
        let done_by_all = LastOne::of(self.threads.len(), answer);
        self.post_all(|| Mail::SetMemory {
            memory: Arc::clone(&memory),
            done: done_by_all.clone(),
        });
        done
    }
}
