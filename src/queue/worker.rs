//! A queue thread: a run-to-completion reactor over one io_uring.
//!
//! One round: mail, then a batch from each ring (parse, submit), then the
//! request cores issue what they can, then everything that ended is published
//! (one used-index store and one notify decision per ring), then one
//! io_uring_enter. The thread owns its rings, its requests, its view of the
//! maps and their paths; nothing in a round takes a lock or allocates once
//! warm.

mod events;
mod manage;
mod maps;
mod taking;
mod waiting;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::dispatch::End;
use super::mailbox::{LastOne, Mail, Mailbox};
use super::ring::{Ended, RunningRing};
use super::{DeviceSettings, Outbox, StillInKernel, Stop};
use crate::guest::memory::Memory;
use crate::guest::ring::Chain;
use crate::guest::virtqueue::VirtQueue;
use crate::io::{Completion, Front, Outcome, Request, Time};
use crate::passthrough_scsi::Inbox;
use crate::sys::uring::{Cqe, Uring};
use events::Events;
use manage::{Functions, Orders};
use maps::Maps;

pub(super) use manage::Order;
pub use manage::Resetting;
pub(super) use maps::thread_of;

/// Chains taken from one ring per round, so that rings share the thread.
const QUANTUM: usize = 64;

/// Submission entries; completions four times as many.
const URING_ENTRIES: u32 = 256;

/// Who a completion of the io_uring belongs to: the top byte of its user data.
/// Commands have the tag 0 (see `maps`).
const TAG_SHIFT: u32 = 56;
const TAG_KICK: u64 = 1;
const TAG_MAIL: u64 = 2;
const TAG_INBOX: u64 = 3;
const TAG_IGNORE: u64 = 4;

/// The state of a queue thread.
pub(super) struct Worker<F: Front> {
    front: F,
    uring: Uring,
    mailbox: Arc<Mailbox>,
    /// The mailboxes of all queue threads.
    peers: Arc<[Arc<Mailbox>]>,
    inbox: Arc<Inbox>,
    outbox: Outbox,
    rings: Vec<Option<RunningRing>>,
    maps: Maps,
    #[allow(clippy::vec_box)] // requests move by pointer between pool, core and rings
    pool: Vec<Box<Request>>,
    /// Requests taken for the sake of task management for which there is no
    /// room yet. They go before anything in the rings.
    parked: VecDeque<Box<Request>>,
    functions: Functions,
    /// See [`DeviceSettings::tell_resets`].
    tell_resets: bool,
    orders: Orders,
    events: Events,
    start: Instant,
    quitting: bool,
    /// Kick polls armed so far, to tell a ring's kicks from its predecessor's.
    polls: u32,
    // Reused buffers.
    chain: Chain,
    heads: Vec<u16>,
    from_uring: VecDeque<Cqe>,
    from_inbox: Vec<(u64, Completion)>,
}

/// What a queue thread is made of.
pub(super) struct Parts<F> {
    /// Which of the threads.
    pub(super) number: usize,
    pub(super) front: F,
    pub(super) mailbox: Arc<Mailbox>,
    /// The mailboxes of all queue threads.
    pub(super) peers: Arc<[Arc<Mailbox>]>,
    pub(super) outbox: Outbox,
    pub(super) settings: DeviceSettings,
    /// Start of the clock, the same for all threads.
    pub(super) start: Instant,
}

impl<F: Front> Worker<F> {
    /// Builds the thread's state; called on the thread itself, because the
    /// io_uring stays with the thread that made it.
    pub(super) fn new(parts: Parts<F>) -> io::Result<Worker<F>> {
        let Parts { number, front, mailbox, peers, outbox, settings, start } = parts;
        let DeviceSettings { rings, max_requests, tell_resets } = settings;
        let max_requests = max_requests.clamp(1, 1 << 16);
        let mut uring = Uring::new(URING_ENTRIES)?;
        let inbox = Arc::new(Inbox::new()?);
        uring.poll_multi(mailbox.as_fd(), TAG_MAIL << TAG_SHIFT)?;
        uring.poll_multi(inbox.as_fd(), TAG_INBOX << TAG_SHIFT)?;
        Ok(Worker {
            front,
            uring,
            mailbox,
            peers,
            inbox,
            outbox,
            rings: (0..rings).map(|_| None).collect(),
            maps: Maps::new(max_requests, rings, number),
            pool: Vec::with_capacity(max_requests),
            parked: VecDeque::new(),
            functions: Functions::new(),
            tell_resets,
            orders: Orders::new(),
            events: Events::default(),
            start,
            quitting: false,
            polls: 0,
            chain: Chain::default(),
            heads: Vec::with_capacity(QUANTUM),
            from_uring: VecDeque::with_capacity(URING_ENTRIES as usize * 4),
            from_inbox: Vec::with_capacity(64),
        })
    }

    /// Runs until told to quit and every ring is gone.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            let now = self.now();
            self.read_mail(now)?;
            let resets = self.tell_resets.then_some(&self.outbox);
            self.functions.begin(now, &self.mailbox, &self.peers, resets);
            let more = self.take_from_rings(now);
            self.carry_out_orders(now);
            self.maps.pump(now, &mut self.uring);
            self.tell_driver();
            self.finish();
            self.tell_ends();
            self.stop_rings(now);
            self.maps.settle(&self.outbox);
            if self.quitting && self.rings.iter().all(Option::is_none) && self.maps.are_idle() {
                return Ok(());
            }
            let wait = self.how_long(now, more);
            self.uring.submit_and_wait(wait)?;
            self.reap()?;
        }
    }

    #[allow(clippy::disallowed_methods)] // this is the reactor: the clock is read here, once a round
    fn now(&self) -> Time {
        Time(u64::try_from(Instant::now().duration_since(self.start).as_nanos()).unwrap_or(0))
    }

    // --- mail -----------------------------------------------------------------

    fn read_mail(&mut self, now: Time) -> io::Result<()> {
        while let Some(mail) = self.mailbox.next() {
            match mail {
                Mail::Start(ring) => self.start_ring(now, ring),
                Mail::Stop { index, how, deadline, reply } => {
                    let Some(ring) = self.ring(index) else { continue };
                    ring.stop(how, now + deadline, reply);
                    self.maps.stop_ring(now, index, how);
                    self.stop_what_no_map_has(index, how);
                }
                Mail::Enable { index, enabled } => {
                    if let Some(ring) = self.ring(index) {
                        ring.enabled = enabled;
                        ring.look = true;
                        ring.since = now;
                    }
                }
                Mail::SetCall { index, call } => {
                    if let Some(ring) = self.ring(index) {
                        ring.queue.set_call(call);
                        // An interrupt may have gone to the old one only.
                        ring.queue.signal();
                    }
                }
                Mail::SetMemory { memory, done } => self.set_memory(&memory, &done),
                Mail::AddMap(new) => self.maps.add(*new, &self.outbox),
                Mail::RemoveMap(map) => {
                    self.maps.remove(map);
                    self.end_parked_of(map);
                }
                Mail::Attach(map, id, handle) => {
                    if handle.wants_wide_ring() {
                        self.widen(handle.name())?;
                    }
                    self.maps.attach(map, id, &handle, &self.inbox, self.peers.len());
                }
                Mail::Detach(map, id) => self.maps.detach(map, id),
                Mail::Table(map, table) => self.maps.set_table(map, table, &self.outbox),
                Mail::SetLimits(map, limits) => self.maps.set_limits(map, limits),
                Mail::Answer(map, order, outcome) => self.maps.answer(map, order, outcome),
                Mail::Manage(order) => self.orders.add(order),
                Mail::Managed { number, found } => self.answer_function(number, found),
                Mail::Tell(event) => self.events.tell(&self.front, event),
                Mail::Quit => self.quitting = true,
            }
        }
        Ok(())
    }

    fn start_ring(&mut self, now: Time, queue: Box<VirtQueue>) {
        let index = queue.index;
        let role = self.front.role(index);
        let Some(slot) = self.rings.get_mut(usize::from(index)) else { return };
        debug_assert!(slot.is_none(), "ring {index} is running already");
        self.polls = self.polls.wrapping_add(1);
        let ring = slot.insert(RunningRing::new(queue, role, now, self.polls));
        let user_data = waiting::kick_user_data(index, ring.poll_generation);
        if let Err(error) = self.uring.poll_multi(ring.queue.kick_fd(), user_data) {
            log::error!("ring {index}: cannot watch its kick eventfd: {error}");
        }
    }

    fn set_memory(&mut self, memory: &Arc<Memory>, done: &LastOne) {
        for ring in self.rings.iter_mut().flatten() {
            if let Err(error) = ring.set_memory(Arc::clone(memory)) {
                ring.queue.fail(&error);
                ring.broken = true;
            }
        }
        done.done();
    }

    // --- back to the rings --------------------------------------------------------

    /// Answers what ended, and publishes it.
    fn finish(&mut self) {
        let Worker { maps, rings, front, pool, orders, .. } = self;
        maps.finished(|mut request, end| {
            orders.ended(&request);
            if let Some(ring) = rings[usize::from(request.tag.ring)].as_mut() {
                let ended = match &end {
                    End::Finished(_) if ring.is_discarded() => Ended::Unanswered,
                    End::Finished(outcome) => Ended::Answered(front.finish(&mut request, outcome)),
                    End::Abandoned => Ended::Unanswered,
                };
                ring.ended(&request, ended);
            }
            pool.push(request);
        });
        for ring in rings.iter_mut().flatten() {
            ring.publish();
        }
    }

    /// Answers a request that is in no map.
    fn answer(&mut self, mut request: Box<Request>, outcome: &Outcome) {
        if let Some(ring) = self.rings[usize::from(request.tag.ring)].as_mut() {
            let ended = if ring.is_discarded() {
                Ended::Unanswered
            } else {
                Ended::Answered(self.front.finish(&mut request, outcome))
            };
            ring.ended(&request, ended);
        }
        self.pool.push(request);
    }

    /// All tasks that a function reached are back with the driver.
    fn answer_function(&mut self, number: u64, found: bool) {
        let Some((mut request, management)) = self.functions.over(number) else { return };
        if let Some(ring) = self.rings[usize::from(request.tag.ring)].as_mut() {
            let used_len = self.front.managed(&mut request, &management, found);
            ring.ended(&request, Ended::Answered(used_len));
        }
        self.pool.push(request);
    }

    /// Gives the driver the events it has chains for.
    fn tell_driver(&mut self) {
        if self.events.is_empty() {
            return;
        }
        for index in 0..self.rings.len() {
            let is_one = |r: &RunningRing| r.carries_events() && r.look && r.is_popping();
            if self.rings[index].as_ref().is_some_and(is_one) {
                self.tell_by(index);
            }
        }
    }

    // --- stopping rings -------------------------------------------------------------

    /// A ring begins to stop: ends its requests that wait for room. Functions
    /// of task management that it carried end with the tasks they wait for,
    /// or stay in flight as other requests do.
    fn stop_what_no_map_has(&mut self, index: u16, how: Stop) {
        let Worker { functions, parked, rings, pool, front, .. } = self;
        let Some(ring) = rings[usize::from(index)].as_mut() else { return };
        if how != Stop::Finish {
            functions.abandon(index, |request| {
                ring.ended(&request, Ended::Unanswered);
                pool.push(request);
            });
        }
        for _ in 0..parked.len() {
            let Some(mut request) = parked.pop_front() else { break };
            if request.tag.ring != index {
                parked.push_back(request);
                continue;
            }
            let ended = match how {
                Stop::Finish => Ended::Answered(front.finish(&mut request, &Outcome::Stopped)),
                Stop::Suspend | Stop::Discard => Ended::Unanswered,
            };
            ring.ended(&request, ended);
            pool.push(request);
        }
    }

    fn stop_rings(&mut self, now: Time) {
        for index in 0..self.rings.len() {
            let Some(ring) = self.rings[index].as_mut() else { continue };
            let Some(deadline) = ring.deadline() else { continue };
            if ring.is_busy() && deadline <= now {
                let number = ring.queue.index;
                self.maps.stop_deadline(number);
                self.finish();
                self.tell_ends();
            }
            let Some(ring) = self.rings[index].as_mut() else { continue };
            if !ring.is_busy() {
                self.give_back(index);
            } else if deadline <= now {
                ring.reply(Err(StillInKernel));
            }
        }
    }

    fn give_back(&mut self, index: usize) {
        let Some(ring) = self.rings[index].take() else { return };
        let number = ring.queue.index;
        self.maps.ring_stopped(number);
        let watched = waiting::kick_user_data(number, ring.poll_generation);
        if let Err(error) = self.uring.cancel(watched, TAG_IGNORE << TAG_SHIFT) {
            log::warn!("ring {number}: cannot stop watching its kick eventfd: {error}");
        }
        ring.into_reply();
    }

    fn ring(&mut self, index: u16) -> Option<&mut RunningRing> {
        self.rings.get_mut(usize::from(index))?.as_mut()
    }
}
