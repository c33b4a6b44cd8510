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

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::guest::memory::Memory;
use crate::guest::ring::ChainError;
use crate::guest::virtqueue::VirtQueue;
use crate::io::{Denied, DeviceEvent, Front, Limits, MapSlot, Outcome, RingRole};
use crate::mpath::reservation::OrderId;
use crate::mpath::snapshot::{MAX_PATHS, PathId, PathTable};
use crate::passthrough_scsi::PathHandle;
use crate::scsi::attention::Attentions;
use crate::scsi::cdb::Cdb;
use crate::sys::eventfd::EventFd;
pub use worker::Resetting;

use dispatch::{Report, Settings};
use mailbox::{LastOne, Mail, Mailbox, NewMap};

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
    /// Something about a path of a map or a guest-visible error.
    Report(MapSlot, Report),
    /// A removed path is no longer used by the thread that says so.
    Detached(MapSlot, PathId),
    /// A removed map is no longer used by the thread that says so.
    MapGone(MapSlot),
    /// The guest's command that no path carries: the map's engine is to, and
    /// [`Queues::answer`] ends it.
    Ordered {
        /// Which map.
        map: MapSlot,
        /// Names it.
        order: OrderId,
        /// The command.
        cdb: Cdb,
        /// Its parameter list, as far as it may matter.
        list: Vec<u8>,
    },
    /// An order has ended without an answer (task management, its ring's
    /// stop, the end of the map): what has not begun is not to begin.
    Withdrawn(MapSlot, OrderId),
    /// The export's policy refused a command.
    Denied(Denied),
    /// The guest resets an LU; it is answered once this is dropped. Only where
    /// [`DeviceSettings::tell_resets`] is set.
    Resetting(MapSlot, Resetting),
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

/// What one queue thread publishes about one map: one writer (the queue
/// thread), any number of readers.
#[derive(Debug)]
struct Counters {
    /// Generation of the table it works by.
    acknowledged: AtomicU64,
    /// Generation of the last table that suspended the map and found, or left,
    /// nothing of this thread on any path.
    quiet: AtomicU64,
    /// Commands and bytes issued on each path.
    paths: Vec<(AtomicU64, AtomicU64)>,
}

impl Counters {
    fn new() -> Counters {
        Counters {
            acknowledged: AtomicU64::new(0),
            quiet: AtomicU64::new(0),
            paths: (0..MAX_PATHS).map(|_| Default::default()).collect(),
        }
    }

    fn acknowledge(&self, generation: u64) {
        self.acknowledged.store(generation, Ordering::Release);
    }

    /// True if it is news.
    fn be_quiet(&self, generation: u64) -> bool {
        self.quiet.swap(generation, Ordering::AcqRel) != generation
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

    fn report(&self, map: MapSlot, report: Report) {
        self.try_send(FromQueue::Report(map, report));
    }

    fn report_chain(&self, ring: u16, error: &ChainError) {
        self.try_send(FromQueue::BadChain { ring, reason: error.to_string() });
    }

    fn wake(&self) {
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

/// What all queue threads of a device are sized for.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSettings {
    /// Number of rings of the device.
    pub rings: usize,
    /// Most requests one thread has at once, over all maps; more wait in
    /// their rings.
    pub max_requests: usize,
    /// The guest's resets of LUs are told ([`FromQueue::Resetting`]), and not
    /// answered before whoever reads that agrees.
    pub tell_resets: bool,
}

/// One queue thread from outside.
#[derive(Debug)]
struct Thread {
    mailbox: Arc<Mailbox>,
    join: Mutex<Option<JoinHandle<()>>>,
}

/// The queue threads of one device.
#[derive(Debug)]
pub struct Queues {
    threads: Vec<Thread>,
    /// The ring by which the driver hears of events, if the device has one.
    events_ring: Option<u16>,
    /// What each thread publishes about each map.
    maps: Mutex<HashMap<MapSlot, Vec<Arc<Counters>>>>,
}

impl Queues {
    /// Starts `threads` queue threads over `settings.rings` rings. They have
    /// no map yet.
    ///
    /// # Errors
    ///
    /// Those of thread creation and eventfd(2).
    pub fn start<F: Front + 'static>(
        threads: usize,
        settings: DeviceSettings,
        front: impl Fn() -> F,
    ) -> io::Result<(Queues, Inlet)> {
        let (reports, reports_in) = std::sync::mpsc::sync_channel(REPORTS);
        let (important, important_in) = channel();
        let wake = Arc::new(EventFd::new()?);
        #[allow(clippy::disallowed_methods)] // the start of the reactors' clock
        let start = Instant::now();
        let mailbox = |_| Mailbox::new().map(Arc::new);
        let peers: Arc<[_]> = (0..threads.max(1)).map(mailbox).collect::<io::Result<_>>()?;
        let mut started = Vec::with_capacity(peers.len());
        for (number, mailbox) in peers.iter().enumerate() {
            let outbox = Outbox {
                reports: reports.clone(),
                important: important.clone(),
                wake: Arc::clone(&wake),
            };
            let parts = worker::Parts {
                number,
                front: front(),
                mailbox: Arc::clone(mailbox),
                peers: Arc::clone(&peers),
                outbox: outbox.clone(),
                settings,
                start,
            };
            let run = move || {
                if let Err(error) = worker::Worker::new(parts).and_then(worker::Worker::run) {
                    log::error!("queue thread {number} ended: {error}");
                    outbox.send(FromQueue::Died(error.to_string()));
                }
            };
            let name = format!("queue{number}");
            let join = Mutex::new(Some(std::thread::Builder::new().name(name).spawn(run)?));
            started.push(Thread { mailbox: Arc::clone(mailbox), join });
        }
        let inlet = Inlet { reports: reports_in, important: important_in, wake };
        let front = front();
        let rings = 0..u16::try_from(settings.rings).unwrap_or(u16::MAX);
        let events_ring = rings.into_iter().find(|&ring| front.role(ring) == RingRole::Events);
        Ok((Queues { threads: started, events_ring, maps: Mutex::default() }, inlet))
    }

    /// Number of queue threads.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Makes a map known; requests for it were answered with
    /// [`Outcome::NoPath`] before. `rings` and
    /// `max_requests` of the settings are the device's. A slot is free again
    /// when every thread has said [`FromQueue::MapGone`].
    #[allow(clippy::needless_pass_by_value)] // the threads own it from now on
    pub fn add_map(
        &self,
        map: MapSlot,
        settings: Settings,
        table: &Arc<PathTable>,
        attentions: Option<Arc<Attentions>>,
    ) {
        let counters: Vec<_> = self.threads.iter().map(|_| Arc::new(Counters::new())).collect();
        for (thread, counters) in self.threads.iter().zip(&counters) {
            thread.mailbox.post(Mail::AddMap(Box::new(NewMap {
                map,
                settings,
                table: Arc::clone(table),
                attentions: attentions.clone(),
                counters: Arc::clone(counters),
            })));
        }
        self.published().insert(map, counters);
    }

    /// Forgets a map: what waits in it ends with
    /// [`Outcome::NoPath`], what is on a path when
    /// it comes back. Each thread answers [`FromQueue::MapGone`] when its last
    /// request has ended and its ports are closed; the caller keeps the paths'
    /// handles until then, so that no queue thread is the one to close a file.
    pub fn remove_map(&self, map: MapSlot) {
        self.published().remove(&map);
        self.post_all(|| Mail::RemoveMap(map));
    }

    /// Makes a path known, before a table names it.
    pub fn attach(&self, map: MapSlot, id: PathId, handle: &Arc<PathHandle>) {
        for counters in self.published().get(&map).into_iter().flatten() {
            counters.clear(id);
        }
        self.post_all(|| Mail::Attach(map, id, Arc::clone(handle)));
    }

    /// Forgets a path no table names any more; each thread answers
    /// [`FromQueue::Detached`] when its last command on it has returned.
    pub fn detach(&self, map: MapSlot, id: PathId) {
        self.post_all(|| Mail::Detach(map, id));
    }

    /// Hands a new table to every thread.
    pub fn publish(&self, map: MapSlot, table: &Arc<PathTable>) {
        self.post_all(|| Mail::Table(map, Arc::clone(table)));
    }

    /// Changes the limits every command must fit.
    pub fn set_limits(&self, map: MapSlot, limits: Limits) {
        self.post_all(|| Mail::SetLimits(map, limits));
    }

    /// The newest table that every thread works by; 0 if there is no such map.
    pub fn acknowledged(&self, map: MapSlot) -> u64 {
        let published = self.published();
        let each = published.get(&map).into_iter().flatten();
        each.map(|c| c.acknowledged.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    /// The newest table that suspends the map and after which every thread has
    /// seen nothing of the guest's on any path; 0 if there was none. It says
    /// nothing of a table that came later and does not suspend it. The inlet's
    /// event is signalled when a thread becomes quiet.
    pub fn quiet(&self, map: MapSlot) -> u64 {
        let published = self.published();
        let each = published.get(&map).into_iter().flatten();
        each.map(|c| c.quiet.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    /// Ends an order ([`FromQueue::Ordered`]). One that has been withdrawn is
    /// passed over.
    pub fn answer(&self, map: MapSlot, order: OrderId, outcome: Outcome) {
        if let Some(thread) = self.threads.get(worker::thread_of(order)) {
            thread.mailbox.post(Mail::Answer(map, order, outcome));
        }
    }

    /// Commands and bytes issued on a path since it joined.
    pub fn issued(&self, map: MapSlot, path: PathId) -> (u64, u64) {
        let published = self.published();
        let each = published.get(&map).into_iter().flatten();
        each.map(|c| c.of(path)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }

    /// Tells the driver something, once it has a chain for it. Events it did
    /// not negotiate are dropped; of more than 64 that wait, the newest are
    /// lost and the next one delivered says so. What waits survives a stop and
    /// a new start of the ring, not the end of the process.
    pub fn tell(&self, event: DeviceEvent) {
        if let Some(ring) = self.events_ring {
            self.thread_of(ring).mailbox.post(Mail::Tell(event));
        }
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

    fn published(&self) -> MutexGuard<'_, HashMap<MapSlot, Vec<Arc<Counters>>>> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests;
