//! A queue thread: a run-to-completion reactor over one io_uring.
//!
//! One round: mail, then a batch from each ring (parse, submit), then the
//! request core issues what it can, then everything that ended is published
//! (one used-index store and one notify decision per ring), then one
//! io_uring_enter. The thread owns its rings, its requests, its view of the
//! paths; nothing in a round takes a lock or allocates once warm.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dispatch::{Cookie, Dispatcher, End, Issue, Settings};
use super::mailbox::{LastOne, Mail, Mailbox};
use super::ring::{Ended, RunningRing};
use super::{Counters, FromQueue, Outbox, StillInKernel};
use crate::guest::memory::Memory;
use crate::guest::ring::Chain;
use crate::io::{Command, Completion, Front, Op, Parsed, Request, Time};
use crate::mpath::snapshot::{PathId, PathTable};
use crate::passthrough_scsi::{Inbox, Issued, PathHandle, PathPort, Rejected};
use crate::sys::uring::{Uring, Wait};

/// Chains taken from one ring per round, so that rings share the thread.
const QUANTUM: usize = 64;

/// Submission entries; completions four times as many.
const URING_ENTRIES: u32 = 256;

/// Who a completion of the io_uring belongs to: the top byte of its user data.
/// A request core cookie has 40 bits, with the tag 0.
const TAG_SHIFT: u32 = 56;
const TAG_KICK: u64 = 1;
const TAG_MAIL: u64 = 2;
const TAG_INBOX: u64 = 3;
const TAG_IGNORE: u64 = 4;

/// A path as this thread uses it.
#[derive(Debug)]
struct Port {
    id: PathId,
    port: PathPort,
    leaving: bool,
}

/// The state of a queue thread.
pub(super) struct Worker<F: Front> {
    front: F,
    uring: Uring,
    mailbox: Arc<Mailbox>,
    inbox: Arc<Inbox>,
    outbox: Outbox,
    counters: Arc<Counters>,
    share: usize,
    rings: Vec<Option<RunningRing>>,
    dispatcher: Dispatcher,
    ports: Vec<Option<Port>>,
    #[allow(clippy::vec_box)] // requests move by pointer between pool, core and rings
    pool: Vec<Box<Request>>,
    start: Instant,
    quitting: bool,
    /// Kick polls armed so far, to tell a ring's kicks from its predecessor's.
    polls: u32,
    // Reused buffers.
    chain: Chain,
    heads: Vec<u16>,
    from_uring: VecDeque<(u64, i32)>,
    from_inbox: Vec<(u64, Completion)>,
}

/// What a queue thread is made of.
pub(super) struct Parts<F> {
    pub(super) front: F,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) outbox: Outbox,
    pub(super) counters: Arc<Counters>,
    pub(super) settings: Settings,
    pub(super) table: Arc<PathTable>,
    /// Number of queue threads that share the paths.
    pub(super) share: usize,
    /// Start of the clock, the same for all threads.
    pub(super) start: Instant,
}

impl<F: Front> Worker<F> {
    /// Builds the thread's state; called on the thread itself, because the
    /// io_uring stays with the thread that made it.
    pub(super) fn new(parts: Parts<F>) -> io::Result<Worker<F>> {
        let Parts { front, mailbox, outbox, counters, settings, table, share, start } = parts;
        let mut uring = Uring::new(URING_ENTRIES)?;
        let inbox = Arc::new(Inbox::new()?);
        uring.poll_multi(mailbox.as_fd(), TAG_MAIL << TAG_SHIFT)?;
        uring.poll_multi(inbox.as_fd(), TAG_INBOX << TAG_SHIFT)?;
        let n = settings.max_requests;
        Ok(Worker {
            front,
            uring,
            mailbox,
            inbox,
            outbox,
            counters,
            share,
            rings: (0..settings.rings).map(|_| None).collect(),
            dispatcher: Dispatcher::new(settings, table, None),
            ports: Vec::new(),
            pool: Vec::with_capacity(n),
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
            self.read_mail(now);
            let more = self.take_from_rings(now);
            self.pump(now);
            self.finish();
            self.stop_rings(now);
            self.let_paths_go();
            if self.quitting && self.rings.iter().all(Option::is_none) && self.dispatcher.is_idle()
            {
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

    fn read_mail(&mut self, now: Time) {
        while let Some(mail) = self.mailbox.next() {
            match mail {
                Mail::Start(ring) => self.start_ring(ring),
                Mail::Stop { index, how, deadline, reply } => {
                    let Some(ring) = self.ring(index) else { continue };
                    ring.stop(how, now + deadline, reply);
                    self.dispatcher.stop_ring(now, index, how);
                }
                Mail::Enable { index, enabled } => {
                    if let Some(ring) = self.ring(index) {
                        ring.enabled = enabled;
                        ring.look = true;
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
                Mail::Attach(id, handle) => self.attach(id, &handle),
                Mail::Detach(id) => {
                    if let Some(port) = self.port_mut(id) {
                        port.leaving = true;
                    }
                }
                Mail::Table(table) => {
                    let generation = table.generation;
                    self.dispatcher.set_table(table);
                    self.outbox.acknowledge(generation);
                }
                Mail::SetLimits(limits) => self.dispatcher.set_limits(limits),
                Mail::Quit => self.quitting = true,
            }
        }
    }

    fn start_ring(&mut self, queue: Box<crate::guest::virtqueue::VirtQueue>) {
        let index = queue.index;
        let Some(slot) = self.rings.get_mut(usize::from(index)) else { return };
        debug_assert!(slot.is_none(), "ring {index} is running already");
        self.polls = self.polls.wrapping_add(1);
        let ring = slot.insert(RunningRing::new(queue, self.polls));
        let user_data = kick_user_data(index, ring.poll_generation);
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

    fn attach(&mut self, id: PathId, handle: &Arc<PathHandle>) {
        let slot = usize::from(id.slot);
        if self.ports.len() <= slot {
            self.ports.resize_with(slot + 1, || None);
        }
        let port = handle.port(&self.inbox, self.share);
        self.ports[slot] = Some(Port { id, port, leaving: false });
    }

    /// Closes this thread's side of removed paths whose commands are back.
    fn let_paths_go(&mut self) {
        for slot in &mut self.ports {
            let gone = |p: &Port| p.leaving && self.dispatcher.in_flight(p.id) == 0;
            if let Some(Port { id, port, .. }) = slot.take_if(|p| gone(p)) {
                // Let go of the file before anybody hears of it (law 10).
                drop(port);
                self.outbox.send(FromQueue::Detached(id));
            }
        }
    }

    // --- from the rings ---------------------------------------------------------

    /// Takes a batch from every ring that may have something; true if there is
    /// more than fitted this round.
    fn take_from_rings(&mut self, now: Time) -> bool {
        let mut more = false;
        for index in 0..self.rings.len() {
            let Some(ring) = self.rings[index].as_mut() else { continue };
            if !ring.look || !ring.is_popping() {
                continue;
            }
            let room = self.dispatcher.room().min(QUANTUM);
            if room == 0 {
                continue; // looked at again when requests have finished
            }
            ring.queue.disable_notification();
            self.heads.clear();
            match ring.queue.take(room, &mut self.heads) {
                Ok(0) => ring.look = false,
                Ok(n) => more |= n == room,
                Err(error) => {
                    ring.queue.fail(&error);
                    ring.broken = true;
                    self.outbox.send(FromQueue::RingBroken {
                        ring: ring.queue.index,
                        reason: error.to_string(),
                    });
                    continue;
                }
            }
            for i in 0..self.heads.len() {
                self.take_one(now, index, self.heads[i]);
            }
        }
        more
    }

    /// Follows one chain and hands the request over, or answers it.
    fn take_one(&mut self, now: Time, index: usize, head: u16) {
        let Some(ring) = self.rings[index].as_mut() else { return };
        if let Err(error) = ring.queue.chain(head, &mut self.chain) {
            // Nothing in the chain can be trusted to hold an answer.
            ring.done.push((head, 0));
            self.outbox.report_chain(ring.queue.index, &error);
            return;
        }
        let mut request = self.pool.pop().unwrap_or_default();
        request.reset();
        request.tag.ring = ring.queue.index;
        request.tag.head = head;
        request.arrived = now;
        request.memory_generation = ring.memory_generation();
        match self.front.parse(&self.chain.readable, &self.chain.writable, &mut request) {
            Parsed::Answered { used_len } => {
                ring.done.push((head, used_len));
                self.pool.push(request);
            }
            Parsed::Manage(_) => {
                debug_assert!(false, "no ring carries task management yet");
                ring.done.push((head, 0));
                self.pool.push(request);
            }
            Parsed::Submit => {
                ring.taken();
                if let Err(refused) = self.dispatcher.submit(request) {
                    // Room was checked before the batch was taken.
                    debug_assert!(false, "the request core has no room");
                    ring.ended(&refused, Ended::Answered(0));
                    self.pool.push(refused);
                }
            }
        }
    }

    // --- to the paths and back ----------------------------------------------------

    fn pump(&mut self, now: Time) {
        let mut paths =
            ToPaths { uring: &mut self.uring, ports: &mut self.ports, counters: &self.counters };
        self.dispatcher.pump(now, &mut paths);
        for report in self.dispatcher.reports() {
            self.outbox.report(report);
        }
    }

    /// Answers what ended, and publishes it.
    fn finish(&mut self) {
        for (mut request, end) in self.dispatcher.finished() {
            let ring = self.rings[usize::from(request.tag.ring)].as_mut();
            if let Some(ring) = ring {
                let ended = match &end {
                    End::Finished(_) if ring.is_discarded() => Ended::Unanswered,
                    End::Finished(outcome) => {
                        Ended::Answered(self.front.finish(&mut request, outcome))
                    }
                    End::Abandoned => Ended::Unanswered,
                };
                ring.ended(&request, ended);
            }
            self.pool.push(request);
        }
        for ring in self.rings.iter_mut().flatten() {
            ring.publish();
        }
    }

    /// Waits for the kernel, but not while there is something to do.
    fn how_long(&mut self, now: Time, more: bool) -> Wait {
        if more {
            return Wait::No;
        }
        let has_room = self.dispatcher.room() > 0;
        for ring in self.rings.iter_mut().flatten() {
            if has_room && ring.is_popping() && (ring.look || ring.queue.enable_notification()) {
                ring.look = true;
                return Wait::No;
            }
        }
        let stops = self.rings.iter().flatten().filter_map(RunningRing::deadline);
        match stops.chain(self.dispatcher.next_deadline()).min() {
            None => Wait::Forever,
            Some(at) if at <= now => Wait::No,
            Some(at) => Wait::AtMost(at.since(now).max(Duration::from_micros(50))),
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        let from_uring = &mut self.from_uring;
        let mut rearm_mail = false;
        let mut rearm_inbox = false;
        let mut look_in_inbox = false;
        let rings = &mut self.rings;
        let mut lost_kick_polls: Option<u16> = None;
        self.uring.reap(|user_data, result, more| match user_data >> TAG_SHIFT {
            0 => from_uring.push_back((user_data, result)),
            TAG_KICK => {
                let (index, generation) = split_kick(user_data);
                if let Some(ring) = rings.get_mut(usize::from(index)).and_then(Option::as_mut) {
                    if ring.poll_generation == generation {
                        ring.look = true;
                        if !more {
                            ring.poll_lost = true;
                            lost_kick_polls = Some(index);
                        }
                    }
                }
            }
            TAG_MAIL => rearm_mail |= !more,
            TAG_INBOX => {
                look_in_inbox = true;
                rearm_inbox |= !more;
            }
            _ => {}
        });
        if lost_kick_polls.is_some() {
            self.rearm_kicks()?;
        }
        if rearm_mail {
            self.uring.poll_multi(self.mailbox.as_fd(), TAG_MAIL << TAG_SHIFT)?;
        }
        if rearm_inbox {
            self.uring.poll_multi(self.inbox.as_fd(), TAG_INBOX << TAG_SHIFT)?;
        }
        self.complete_from_uring();
        if look_in_inbox {
            self.complete_from_inbox();
        }
        Ok(())
    }

    fn rearm_kicks(&mut self) -> io::Result<()> {
        for ring in self.rings.iter_mut().flatten() {
            if std::mem::take(&mut ring.poll_lost) {
                let user_data = kick_user_data(ring.queue.index, ring.poll_generation);
                self.uring.poll_multi(ring.queue.kick_fd(), user_data)?;
            }
        }
        Ok(())
    }

    fn complete_from_uring(&mut self) {
        let now = self.now();
        while let Some((cookie, result)) = self.from_uring.pop_front() {
            let Some(id) = self.dispatcher.path_of(Cookie(cookie)) else { continue };
            let Some(port) = self.port_mut(id) else { continue };
            if let Some(completion) = port.port.on_uring(cookie, result) {
                self.dispatcher.complete(now, Cookie(cookie), &completion);
            }
        }
    }

    fn complete_from_inbox(&mut self) {
        let now = self.now();
        let mut arrived = std::mem::take(&mut self.from_inbox);
        self.inbox.drain(&mut arrived);
        for (cookie, completion) in arrived.drain(..) {
            self.dispatcher.complete(now, Cookie(cookie), &completion);
        }
        self.from_inbox = arrived;
    }

    // --- stopping rings -------------------------------------------------------------

    fn stop_rings(&mut self, now: Time) {
        for index in 0..self.rings.len() {
            let Some(ring) = self.rings[index].as_mut() else { continue };
            let Some(deadline) = ring.deadline() else { continue };
            let number = ring.queue.index;
            if self.dispatcher.outstanding(number) > 0 && deadline <= now {
                self.dispatcher.stop_deadline(number);
                self.finish();
            }
            let Some(ring) = self.rings[index].as_mut() else { continue };
            if self.dispatcher.outstanding(number) == 0 {
                self.give_back(index);
            } else if deadline <= now {
                ring.reply(Err(StillInKernel));
            }
        }
    }

    fn give_back(&mut self, index: usize) {
        let Some(ring) = self.rings[index].take() else { return };
        let number = ring.queue.index;
        self.dispatcher.ring_stopped(number);
        let watched = kick_user_data(number, ring.poll_generation);
        if let Err(error) = self.uring.cancel(watched, TAG_IGNORE << TAG_SHIFT) {
            log::warn!("ring {number}: cannot stop watching its kick eventfd: {error}");
        }
        ring.into_reply();
    }

    fn ring(&mut self, index: u16) -> Option<&mut RunningRing> {
        self.rings.get_mut(usize::from(index))?.as_mut()
    }

    fn port_mut(&mut self, id: PathId) -> Option<&mut Port> {
        self.ports.get_mut(usize::from(id.slot))?.as_mut().filter(|p| p.id == id)
    }
}

/// The request core's way to the paths.
struct ToPaths<'a> {
    uring: &'a mut Uring,
    ports: &'a mut [Option<Port>],
    counters: &'a Counters,
}

impl Issue for ToPaths<'_> {
    fn issue(
        &mut self,
        path: PathId,
        cookie: Cookie,
        command: &Command<'_>,
    ) -> Result<Issued, Rejected> {
        let port = self.ports.get_mut(usize::from(path.slot)).and_then(Option::as_mut);
        let Some(port) = port.filter(|p| p.id == path) else {
            // The table names a path this thread was never given: treat it as
            // a path that is not there.
            let code = libc::ENODEV;
            let from = crate::io::ErrnoFrom::Block;
            return Ok(Issued::Done(Completion::Errno { from, code }));
        };
        let issued = port.port.issue(self.uring, cookie.0, command)?;
        self.counters.issued(path, bytes_of(command));
        Ok(issued)
    }
}

fn bytes_of(command: &Command<'_>) -> u64 {
    match command.op {
        Op::Read(_) | Op::Write { .. } | Op::Cdb { .. } => {
            crate::io::total_len(command.data) as u64
        }
        Op::Flush | Op::Unmap | Op::WriteZeroes { .. } => 0,
    }
}

fn kick_user_data(index: u16, generation: u32) -> u64 {
    TAG_KICK << TAG_SHIFT | u64::from(generation) << 16 | u64::from(index)
}

fn split_kick(user_data: u64) -> (u16, u32) {
    let index = u16::try_from(user_data & 0xffff).unwrap_or(0);
    let generation = u32::try_from((user_data >> 16) & 0xffff_ffff).unwrap_or(0);
    (index, generation)
}
