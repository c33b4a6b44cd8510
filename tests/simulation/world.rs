//! The world of one seed: guest, queue thread, control thread, array, clock.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use vhost_mpath::guest::buffer::Buffer;
use vhost_mpath::io::{
    Blocks, Completion, ErrnoFrom, Extent, Identity, Lba, Limits, Op, Outcome, Request, Segment,
    Time,
};
use vhost_mpath::mpath::classify::{PathVerdict, unit_attention};
use vhost_mpath::mpath::effect::{Change, Effect, Effects};
use vhost_mpath::mpath::event::{Event, IoReason, IoReport};
use vhost_mpath::mpath::policy::{NoPathRetry, Policy};
use vhost_mpath::mpath::reservation::OrderId;
use vhost_mpath::mpath::snapshot::{PathId, PathTable, Queueing};
use vhost_mpath::mpath::{Multipath, NewPath};
use vhost_mpath::queue::Stop;
use vhost_mpath::queue::dispatch::{Dispatcher, End, GuestError, Order, Report, Settings};
use vhost_mpath::scsi::alua::AccessState;
use vhost_mpath::scsi::cdb::Cdb;
use vhost_mpath::scsi::reservation::Out;
use vhost_mpath::scsi::sense::{Key, SenseCode};
use vhost_mpath::scsi::status::{HostByte, Status};
use vhost_mpath::sim::{
    Array, CutMode, DeviceState, Done, Fault, LuConfig, MemoryMedium, NewCapacity, NexusId,
};

use crate::access_laws::AccessLaws;
use crate::durable::{Cached, Dirty};
use crate::engine_laws::EngineLaws;
use crate::plug::{Plug, Remapped};
use crate::random::Random;
use crate::reasons::{Reasons, Setting};
use crate::record::Record;
use crate::shadow::{Shadow, Writing};
use crate::totals::Totals;
use crate::watch_laws::WatchLaws;
use crate::wire::{ToArray, Wire};

mod access;
mod admin;
mod control;
mod events;
mod faults;
mod guest;
mod host;
mod progress;
mod quiet;
pub(crate) mod replay;
mod reservations;
mod scsi;
mod setup;
mod tasks;

pub(crate) const BLOCK: usize = 512;
const BLOCKS: u64 = 256;
/// The LU is never larger.
pub(crate) const MOST_BLOCKS: usize = 448;
/// Longest transfer of the guest, in blocks.
const LONGEST: u64 = 64;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
pub(crate) const SUSPECT_AFTER: Duration = Duration::from_secs(1);
const CRC_ERROR: SenseCode = SenseCode::new(Key::AbortedCommand, 0x47, 0x00);
const MEDIUM_ERROR: SenseCode = SenseCode::new(Key::MediumError, 0x11, 0x00);

/// Runs one seed to its end; panics where a law is broken. The guest of an
/// odd seed composes its own commands.
pub(crate) fn run(seed: u64) -> Totals {
    // So that a failing seed names itself.
    struct Name(u64);
    impl Drop for Name {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("seed {0} failed; again: scripts/simulate --seed {0}", self.0);
            }
        }
    }
    let _name = Name(seed);
    let mut world = World::new(seed);
    world.run();
    world.totals
}

/// A guest's command was told that the LU has another size.
fn resized(report: &IoReport) -> bool {
    let IoReason::Judged { completion, .. } = &report.reason else { return false };
    unit_attention(completion).and_then(|s| s.code()) == Some(SenseCode::CAPACITY_CHANGED)
}

/// A message between the threads, under way.
#[derive(Debug)]
enum Message {
    Table(Arc<PathTable>),
    ToEngine(Event),
    Retire(PathId),
    /// Of the guest's PERSISTENT RESERVE OUT, and back.
    Order(Order),
    Answer(OrderId, Outcome),
    /// Nothing is out on the map that this table suspends.
    Quiet(u64),
}

/// Messages of one direction: they keep their order, as in the daemon.
type Mail = VecDeque<(Time, Message)>;

/// A guest request that has not ended.
#[derive(Debug)]
struct Pending {
    /// Its memory, if it has any.
    memory: Option<Segment>,
    start: u64,
    writes: Vec<Writing>,
    /// The block operation that a raw command stands for.
    meaning: Op,
    /// Its number among all requests.
    serial: u64,
    swap: Option<scsi::Swap>,
    order: Option<(OrderId, Out)>,
    /// A task management function has reached it; by a reset?
    aborted: Option<bool>,
    submitted: Time,
}

struct World {
    /// What the engine is told and asks for goes to standard error.
    trace: bool,
    random: Random,
    now: Time,
    /// Counts events; the shadow's clock.
    moment: u64,
    array: Array,
    /// Another LU, to which no guest command may ever go.
    other: Array,
    map: Multipath,
    core: Dispatcher,
    wire: Wire,
    laws: EngineLaws,
    reasons: Reasons,
    access: AccessLaws,
    watch: WatchLaws,
    dirty: Dirty,
    to_engine: Mail,
    to_queue: Mail,
    /// Answers of checking threads, each with a time of its own.
    answers: Vec<(Time, Event)>,
    /// Blocked paths, and what they become when.
    unblocked: Vec<(Time, NexusId, DeviceState)>,
    /// By head of its descriptor chain.
    pending: Vec<Option<Pending>>,
    /// The guest's memory, by head.
    memory: Vec<Buffer>,
    free_heads: Vec<u16>,
    /// Requests that have ended, for the next ones.
    #[allow(clippy::vec_box)] // the request core takes boxes
    spare: Vec<Box<Request>>,
    scratch: Vec<u8>,
    done: Vec<Done>,
    finished: Vec<(Box<Request>, End)>,
    /// The request core has been told something.
    touched: bool,
    shadow: Shadow,
    next_value: u64,
    stopping: Option<Stop>,
    story: setup::Story,
    progress: progress::Progress,
    /// What the administrator has set.
    policy: Policy,
    /// The LU itself was told to answer with a medium error at some time.
    medium_errors: bool,
    /// How often a path was told to answer with an aborted command.
    aborts: u32,
    totals: Totals,
    paths_made: u32,
    limits: Limits,
    /// Paths that have told the queue thread that the LU has another size.
    told_size: Vec<PathId>,
    /// When the LU changes its size, and to what; a stream of its own, so that
    /// the rest of a seed's story stays what it is.
    sizes: Random,
    /// What the host does with its devices; likewise.
    host: Random,
    discovery: Vec<(Time, host::Discovery)>,
    /// What the LU has now, and all it has had.
    blocks: u64,
    had: BTreeSet<u64>,
    /// The LU was told not to be ready at some time.
    not_ready: bool,
    /// The LU or a path was told to be busy at some time.
    busy: bool,
    /// A path was told to answer with `DID_ERROR` at some time.
    host_errors: bool,
    serial: u64,
    /// The guest composes its own commands.
    scsi: Option<events::Scsi>,
    functions: Vec<tasks::Function>,
    /// The guest, and another host, reserve.
    hosts: Option<reservations::Hosts>,
    /// Of an outage that was written down: nothing happens but that.
    record: Option<Record>,
}

impl World {
    fn run(&mut self) {
        let steps = 400 + self.random.below(400);
        for step in 0..steps {
            if self.random.one_in(20) {
                self.totals.steps += 1;
                self.misfortune();
            }
            if self.random.one_in(120) {
                self.stop_or_restart();
            }
            if self.sizes.one_in(150) {
                self.resize_lu();
            }
            if self.host.one_in(50) {
                self.host_acts();
            }
            if self.scsi.is_some() {
                if self.random.one_in(15) {
                    self.event();
                }
                if self.random.one_in(40) {
                    self.manage();
                }
                self.hosts_act();
            }
            for _ in 0..self.random.below(4) {
                self.guest_request();
            }
            if step % 16 == 0 {
                self.forget();
            }
            let pause = self.pause();
            self.advance(pause);
        }
        self.end_of_faults();
        self.come_to_rest();
        self.read_everything();
        self.stays_quiet();
        self.count_hosts();
    }

    /// Something happens to the paths, to the array, or the administrator acts.
    fn misfortune(&mut self) {
        match self.random.below(10) {
            0..=5 => self.fault(),
            6 | 7 => self.access_fault(),
            _ => self.administrator(),
        }
    }

    /// The longest that a command may be out.
    fn longest(&self) -> Duration {
        let patience = Duration::from_secs(120); // `scsi::patience`
        let timeout = if self.scsi.is_some() { patience } else { COMMAND_TIMEOUT };
        timeout + faults::MOST_BLOCKED
    }

    fn pause(&mut self) -> Duration {
        if self.random.one_in(30) {
            self.random.duration(Duration::from_secs(40))
        } else {
            self.random.duration(Duration::from_millis(40))
        }
    }

    /// What ended before the oldest request began bears on no read any more.
    fn forget(&mut self) {
        let oldest = self.pending.iter().flatten().map(|p| p.start).min();
        self.shadow.forget_before(oldest.unwrap_or(self.moment));
    }

    // --- the clock ------------------------------------------------------------

    /// Lets `by` of virtual time pass, event by event.
    fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        self.settle();
        while let Some(at) = self.next_event().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.settle();
        }
        self.now = until;
        self.settle();
    }

    fn next_event(&self) -> Option<Time> {
        let mail = |mail: &Mail| mail.front().map(|m| m.0);
        [
            self.array.next_deadline(),
            self.other.next_deadline(),
            self.core.next_deadline(),
            self.map.next_deadline(),
            mail(&self.to_engine),
            mail(&self.to_queue),
            self.answers.iter().map(|a| a.0).min(),
            self.unblocked.iter().map(|u| u.0).min(),
            self.discovery.iter().map(|d| d.0).min(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does everything that is due now.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the world does not come to rest at {:?}", self.now);
            let mut busy = self.poll_arrays();
            busy |= self.deliver_mail();
            busy |= self.unblock();
            busy |= self.discover();
            if self.map.next_deadline().is_some_and(|d| d <= self.now) {
                busy = true;
                self.totals.steps += 1;
                self.engine(Event::Timer);
            }
            let due = |d: Option<Time>| d.is_some_and(|d| d <= self.now);
            if self.touched || due(self.core.next_deadline()) {
                self.touched = false;
                busy |= self.pump();
            }
            if !busy {
                break;
            }
        }
        self.goes_on();
    }

    fn poll_arrays(&mut self) -> bool {
        let mut done = std::mem::take(&mut self.done);
        for array in [&mut self.array, &mut self.other] {
            if array.next_deadline().is_some_and(|d| d <= self.now) {
                array.poll(self.now, &mut done);
            }
        }
        let busy = !done.is_empty();
        if busy {
            self.look_at_reservations();
        }
        for d in done.drain(..) {
            self.totals.steps += 1;
            self.task_done(d);
        }
        self.done = done;
        busy
    }

    fn deliver_mail(&mut self) -> bool {
        let before = self.totals.steps;
        let due = |mail: &Mail, now: Time| mail.front().is_some_and(|m| m.0 <= now);
        while due(&self.to_engine, self.now) || due(&self.to_queue, self.now) {
            let first = match (self.to_engine.front(), self.to_queue.front()) {
                (Some(a), Some(b)) if b.0 < a.0 => &mut self.to_queue,
                (None, _) => &mut self.to_queue,
                _ => &mut self.to_engine,
            };
            let (_, message) = first.pop_front().expect("due");
            self.totals.steps += 1;
            match message {
                Message::Table(table) => {
                    self.touched = true;
                    self.core.set_table(table);
                    self.look_for_entry();
                }
                Message::ToEngine(event) => self.engine(event),
                Message::Retire(path) => {
                    self.touched = true;
                    self.wire.plug_mut(path).expect("closed later").leaving = true;
                }
                Message::Order(order) => self.order_comes(order),
                Message::Quiet(generation) => self.quiet_comes(generation),
                Message::Answer(order, outcome) => {
                    self.touched = true;
                    if let Some(hosts) = &mut self.hosts {
                        hosts.laws.arrives(order);
                    }
                    self.core.answer(order, outcome);
                }
            }
        }
        while let Some(at) = self.answers.iter().position(|a| a.0 <= self.now) {
            let (_, event) = self.answers.remove(at);
            self.totals.steps += 1;
            self.engine(event);
        }
        before != self.totals.steps
    }

    fn post(&mut self, message: Message) {
        let delay = match self.random.below(100) {
            // The other thread is at something else.
            0 if self.record.is_none() => Duration::from_millis(500 + self.random.below(2500)),
            1..=10 => self.random.duration(Duration::from_millis(50)),
            _ => self.random.duration(Duration::from_millis(2)),
        };
        let mail = match message {
            Message::ToEngine(_) | Message::Order(_) | Message::Quiet(_) => &mut self.to_engine,
            Message::Table(_) | Message::Retire(_) | Message::Answer(..) => &mut self.to_queue,
        };
        let last = mail.back().map_or(Time::default(), |m| m.0);
        mail.push_back(((self.now + delay).max(last), message));
    }

    // --- queue thread ---------------------------------------------------------

    fn pump(&mut self) -> bool {
        let issued = self.wire.issued;
        let mut paths = ToArray {
            table: Arc::clone(self.core.table()),
            array: &mut self.array,
            wire: &mut self.wire,
            limits: self.limits,
            now: self.now,
            room: 8,
            reserving: self.hosts.as_ref().map(|hosts| (&hosts.laws, &self.map)),
        };
        self.core.pump(self.now, &mut paths);
        let mut busy = self.wire.issued != issued;
        self.totals.held += u64::from(self.core.held() > 0);
        busy |= self.reports();
        busy |= self.orders_go();
        busy |= self.ended_requests();
        if self.wire.plugs.iter().any(|p| p.leaving) {
            self.close_paths();
        }
        self.functions_end();
        busy
    }

    fn reports(&mut self) -> bool {
        let reports: Vec<Report> = self.core.reports().collect();
        let busy = !reports.is_empty();
        for path in self.told_size.drain(..) {
            let says = |r: &Report| matches!(r, Report::Path(r) if r.path == path && resized(r));
            assert!(reports.iter().any(says), "{path} has told of another size, and nobody heard");
        }
        self.see_whether_anything_is_left();
        for report in reports {
            if let Report::Guest(GuestError { rule: "no-path" | "timed-out", op, .. }) = report {
                self.ends_for_want_of_a_path(op);
            }
            if let Report::Guest(GuestError {
                op, outcome: Outcome::Lu { sense, .. }, tries, ..
            }) = report
            {
                // (What must not be repeated is not, law 3.)
                let retried = sense.code() == Some(CRC_ERROR) && op.is_idempotent();
                assert!(tries > 1 || !retried, "one path's abort, and nobody else was asked");
            }
            if let Report::Path(report) = report {
                // The control thread's inlet may be full.
                if self.record.is_none() && self.random.one_in(10) {
                    continue;
                }
                self.totals.hung += u64::from(matches!(report.reason, IoReason::Hung { .. }));
                self.post(Message::ToEngine(Event::Io(report)));
            }
        }
        busy
    }

    fn ended_requests(&mut self) -> bool {
        let mut finished = std::mem::take(&mut self.finished);
        finished.extend(self.core.finished());
        let busy = !finished.is_empty();
        for (request, end) in finished.drain(..) {
            self.request_ended(&request, &end);
            self.spare.push(request);
        }
        self.finished = finished;
        busy
    }

    fn close_paths(&mut self) {
        for at in (0..self.wire.plugs.len()).rev() {
            let Plug { id, nexus, leaving, .. } = self.wire.plugs[at];
            if leaving && self.core.in_flight(id) == 0 {
                self.laws.leaves(id);
                self.nexus_lost(id);
                self.port_left(self.array.ports(nexus), self.wire.plugs[at].group);
                self.wire.plugs.remove(at);
                self.array.remove_nexus(self.now, nexus);
                self.other.remove_nexus(self.now, nexus);
                self.map.retired(id);
            }
        }
    }
}
