//! The world of one seed: guest, queue thread, control thread, array, clock.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::AddAssign;
use std::time::Duration;

use vhost_mpath::guest::buffer::Buffer;
use vhost_mpath::io::{
    Blocks, Completion, Extent, Identity, Lba, Limits, Op, Outcome, Request, Segment, Time,
};
use vhost_mpath::mpath::checker::{Checker, CheckerKind, Verdict};
use vhost_mpath::mpath::classify::{PathVerdict, unit_attention};
use vhost_mpath::mpath::effect::{Change, Effect, Effects};
use vhost_mpath::mpath::event::{Event, IoReason, IoReport};
use vhost_mpath::mpath::policy::{GroupingPolicy, NoPathRetry, Policy};
use vhost_mpath::mpath::prio::Attributes;
use vhost_mpath::mpath::probe::{Answer, Fact, Probe, Step};
use vhost_mpath::mpath::snapshot::{PathId, PathTable, Queueing, SelectorKind};
use vhost_mpath::mpath::{Multipath, NewPath};
use vhost_mpath::queue::Stop;
use vhost_mpath::queue::dispatch::{Cookie, Dispatcher, End, GuestError, Report, Settings};
use vhost_mpath::scsi::capacity::Capacity;
use vhost_mpath::scsi::cdb::Cdb;
use vhost_mpath::scsi::sense::{Key, SenseCode};
use vhost_mpath::scsi::status::{HostByte, Status};
use vhost_mpath::scsi::vpd;
use vhost_mpath::sim::Task;
use vhost_mpath::sim::{Array, CutMode, Done, Fault, LuConfig, MemoryMedium, NewCapacity, NexusId};

use crate::durable::{Cached, Dirty};
use crate::engine_laws::EngineLaws;
use crate::random::Random;
use crate::shadow::Shadow;
use crate::wire::{OnPath, Proof, Purpose, Remapped, ToArray, Wire};

mod control;
mod events;
mod faults;
mod guest;
mod scsi;
mod tasks;

pub(crate) const BLOCK: usize = 512;
const BLOCKS: u64 = 256;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
pub(crate) const SUSPECT_AFTER: Duration = Duration::from_secs(1);
const CRC_ERROR: SenseCode = SenseCode::new(Key::AbortedCommand, 0x47, 0x00);
const MEDIUM_ERROR: SenseCode = SenseCode::new(Key::MediumError, 0x11, 0x00);

/// Counts over a run, to prove that the schedules reach something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) retries: u64,
    pub(crate) path_failures: u64,
    pub(crate) reinstated: u64,
    pub(crate) held: u64,
    pub(crate) hung: u64,
    pub(crate) abandoned: u64,
    pub(crate) resized: u64,
    // Of guests that compose their own commands:
    /// Task management functions that end tasks, and tasks they ended.
    pub(crate) functions: u64,
    pub(crate) aborted: u64,
    /// Events of the LU, and those the guest heard of.
    pub(crate) events: u64,
    pub(crate) heard: u64,
    /// COMPARE AND WRITE: done, certainly not done, unknown.
    pub(crate) swapped: u64,
    pub(crate) not_swapped: u64,
    pub(crate) ambiguous: u64,
    pub(crate) end: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, o: Totals) {
        self.requests += o.requests;
        self.errors += o.errors;
        self.retries += o.retries;
        self.path_failures += o.path_failures;
        self.reinstated += o.reinstated;
        self.held += o.held;
        self.hung += o.hung;
        self.abandoned += o.abandoned;
        self.resized += o.resized;
        self.functions += o.functions;
        self.aborted += o.aborted;
        self.events += o.events;
        self.heard += o.heard;
        self.swapped += o.swapped;
        self.not_swapped += o.not_swapped;
        self.ambiguous += o.ambiguous;
        self.end = self.end.max(o.end);
    }
}

/// Runs one seed to its end; panics where a law is broken. The guest of an
/// odd seed composes its own commands.
pub(crate) fn run(seed: u64) -> Totals {
    // So that a failing seed names itself.
    struct Name(u64);
    impl Drop for Name {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("seed {0} failed; again: VHOST_MPATH_SEEDS={0}..{1}", self.0, self.0 + 1);
            }
        }
    }
    let _name = Name(seed);
    let mut world = World::new(seed);
    world.run();
    world.totals
}

/// A message between the threads, under way.
#[derive(Debug)]
enum Message {
    Table(std::sync::Arc<PathTable>),
    ToEngine(Event),
    Retire(PathId),
}

/// A guest request that has not ended.
#[derive(Debug)]
struct Pending {
    buffer: Option<Buffer>,
    start: u64,
    writes: Vec<u64>,
    /// The block operation that a raw command stands for.
    meaning: Op,
    /// Its number among all requests.
    serial: u64,
    swap: Option<scsi::Swap>,
    /// A task management function has reached it; by a reset?
    aborted: Option<bool>,
}

impl Pending {
    fn new(buffer: Option<Buffer>, start: u64, meaning: Op) -> Pending {
        let (writes, swap, aborted) = (Vec::new(), None, None);
        Pending { buffer, start, writes, meaning, serial: 0, swap, aborted }
    }
}

struct World {
    random: Random,
    now: Time,
    /// Counts events; the shadow's clock.
    moment: u64,
    array: Array,
    /// Another LU, to which no guest command may ever go.
    other: Array,
    map: Multipath,
    core: Dispatcher,
    wire: RefCell<Wire>,
    laws: EngineLaws,
    dirty: Dirty,
    nexus_of: BTreeMap<PathId, NexusId>,
    names: BTreeMap<PathId, String>,
    leaving: BTreeSet<PathId>,
    mail: BTreeMap<(Time, u64), Message>,
    mails: u64,
    last_to_engine: Time,
    last_to_queue: Time,
    pending: HashMap<u16, Pending>,
    free_heads: Vec<u16>,
    shadow: Shadow,
    next_value: u64,
    stopping: Option<Stop>,
    policy: Policy,
    /// The LU itself was told to answer with a medium error at some time.
    medium_errors: bool,
    /// How often a path was told to answer with an aborted command.
    aborts: u32,
    totals: Totals,
    paths_made: u32,
    limits: Limits,
    /// When the LU changes its size, and to what; a stream of its own, so that
    /// the rest of a seed's story stays what it is.
    sizes: Random,
    /// What the LU has now, and all it has had.
    blocks: u64,
    had: BTreeSet<u64>,
    /// The LU was told not to be ready at some time.
    not_ready: bool,
    /// A path was told to answer with `DID_ERROR` at some time.
    host_errors: bool,
    serial: u64,
    /// The guest composes its own commands.
    scsi: Option<events::Scsi>,
    functions: Vec<tasks::Function>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let config = LuConfig {
            block_size: u32::try_from(BLOCK).unwrap(),
            blocks: BLOCKS,
            thin: !random.one_in(4),
            max_transfer_blocks: random.pick(&[0, 8, 24]),
            max_unmap_blocks: 24,
            max_unmap_descriptors: 2,
            // Refused with 05/24 where it is less than the limit below.
            max_write_same_blocks: random.pick(&[16, 16, 4]),
            ..LuConfig::default()
        };
        let limits = Limits {
            max_transfer: Blocks(match config.max_transfer_blocks {
                0 => 64,
                n => u64::from(n),
            }),
            max_segments: random.pick(&[2, 3, 64]),
            max_unmap: Blocks(if config.thin { 24 } else { 0 }),
            max_unmap_descriptors: 2,
            unmap_granularity: Blocks(1),
            unmap_alignment: Lba(0),
            max_write_same: Blocks(random.pick(&[0, 16])),
            fua: random.one_in(2),
        };
        let policy = Policy {
            grouping: random.pick(&[GroupingPolicy::Failover, GroupingPolicy::Multibus]),
            selector: random.pick(&[SelectorKind::RoundRobin, SelectorKind::ServiceTime]),
            no_path_retry: random.pick(&[
                NoPathRetry::Queue,
                NoPathRetry::Queue,
                NoPathRetry::Fail,
                NoPathRetry::Times(3),
            ]),
            ..Policy::default()
        };
        let dirty = Dirty::new(usize::try_from(BLOCKS).unwrap());
        let medium = MemoryMedium::new(BLOCKS * BLOCK as u64);
        let medium = Cached { medium, dirty: dirty.clone() };
        let mut other = config.clone();
        other.wwid_naa[15] = 2;
        let mut array = Array::new(config, Box::new(medium));
        let mut other = Array::new(other, Box::new(MemoryMedium::new(BLOCKS * BLOCK as u64)));
        let scsi = (seed % 2 == 1).then(|| {
            let host = array.add_nexus("another host");
            assert_eq!(other.add_nexus("another host"), host);
            events::Scsi::new(host)
        });
        let attentions = scsi.as_ref().map(|s| std::sync::Arc::clone(&s.attentions));
        let identity = Identity {
            wwid: "3600000000073696d0000000000000001".to_owned(),
            capacity: Blocks(BLOCKS),
            block_size: u32::try_from(BLOCK).unwrap(),
        };
        let depth = random.pick(&[4u16, 16, 32]);
        let settings = Settings {
            limits,
            block_size: u32::try_from(BLOCK).unwrap(),
            command_timeout: COMMAND_TIMEOUT,
            suspect_after: SUSPECT_AFTER,
            max_requests: usize::from(depth),
            rings: 1,
        };
        let empty = PathTable {
            generation: 0,
            groups: Vec::new(),
            queueing: Queueing::Hold,
            selector: policy.selector,
            hold_for: None,
        };
        let mut world = World {
            now: Time(1_000_000_000),
            moment: 1,
            array,
            other,
            map: Multipath::new(identity, policy.clone()),
            core: Dispatcher::new(settings, std::sync::Arc::new(empty), attentions),
            wire: RefCell::new(Wire::new(Random::new(seed ^ 0xa11c_e000))),
            laws: EngineLaws::default(),
            dirty,
            nexus_of: BTreeMap::new(),
            names: BTreeMap::new(),
            leaving: BTreeSet::new(),
            mail: BTreeMap::new(),
            mails: 0,
            last_to_engine: Time::default(),
            last_to_queue: Time::default(),
            pending: HashMap::new(),
            free_heads: (0..depth).collect(),
            shadow: Shadow::new(usize::try_from(BLOCKS).unwrap()),
            next_value: 1,
            stopping: None,
            policy,
            medium_errors: false,
            aborts: 0,
            totals: Totals::default(),
            paths_made: 0,
            limits,
            sizes: Random::new(seed ^ 0x5123_0000),
            blocks: BLOCKS,
            had: BTreeSet::from([BLOCKS]),
            not_ready: false,
            host_errors: false,
            serial: 0,
            scsi,
            functions: Vec::new(),
            random,
        };
        world.array.set_latency(world.random.duration(Duration::from_millis(5)));
        for _ in 0..2 {
            world.add_path();
        }
        world
    }

    fn run(&mut self) {
        let steps = 400 + self.random.below(400);
        for _ in 0..steps {
            if self.random.one_in(25) {
                self.fault();
            }
            if self.random.one_in(120) {
                self.stop_or_restart();
            }
            if self.sizes.one_in(150) {
                self.resize_lu();
            }
            if self.scsi.is_some() {
                if self.random.one_in(15) {
                    self.event();
                }
                if self.random.one_in(40) {
                    self.manage();
                }
            }
            for _ in 0..self.random.below(4) {
                self.guest_request();
            }
            let pause = self.pause();
            self.advance(pause);
        }
        self.end_of_faults();
        self.come_to_rest();
        self.read_everything();
    }

    /// The longest that a command may be out.
    fn longest(&self) -> Duration {
        let patience = Duration::from_secs(120); // `scsi::patience`
        if self.scsi.is_some() { patience } else { COMMAND_TIMEOUT }
    }

    fn pause(&mut self) -> Duration {
        if self.random.one_in(30) {
            self.random.duration(Duration::from_secs(40))
        } else {
            self.random.duration(Duration::from_millis(40))
        }
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
        [
            self.array.next_deadline(),
            self.other.next_deadline(),
            self.core.next_deadline(),
            self.map.next_deadline(),
            self.mail.keys().next().map(|k| k.0),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does everything that is due now.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the world does not come to rest at {:?}", self.now);
            let mut busy = false;
            let mut done = Vec::new();
            self.array.poll(self.now, &mut done);
            self.other.poll(self.now, &mut done);
            for d in done {
                busy = true;
                self.task_done(&d);
            }
            while let Some((&key, _)) = self.mail.iter().next().filter(|(k, _)| k.0 <= self.now) {
                busy = true;
                let message = self.mail.remove(&key).unwrap();
                self.deliver(message);
            }
            if self.map.next_deadline().is_some_and(|d| d <= self.now) {
                busy = true;
                self.engine(Event::Timer);
            }
            busy |= self.pump();
            let arrays = self.array.next_deadline().into_iter().chain(self.other.next_deadline());
            if !busy && arrays.min().is_none_or(|d| d > self.now) {
                return;
            }
        }
    }

    fn post(&mut self, message: Message) {
        let delay = match self.random.below(100) {
            // The other thread is at something else.
            0 => Duration::from_millis(500 + self.random.below(2500)),
            1..=10 => self.random.duration(Duration::from_millis(50)),
            _ => self.random.duration(Duration::from_millis(2)),
        };
        self.mails += 1;
        // Mail keeps its order in each direction, as in the daemon.
        let last = match message {
            Message::ToEngine(_) => &mut self.last_to_engine,
            Message::Table(_) | Message::Retire(_) => &mut self.last_to_queue,
        };
        let at = (self.now + delay).max(*last);
        *last = at;
        self.mail.insert((at, self.mails), message);
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Table(table) => self.core.set_table(table),
            Message::ToEngine(event) => self.engine(event),
            Message::Retire(path) => {
                self.leaving.insert(path);
            }
        }
    }

    // --- queue thread ---------------------------------------------------------

    fn pump(&mut self) -> bool {
        let mut paths = ToArray {
            array: &mut self.array,
            wire: &self.wire,
            nexus_of: &self.nexus_of,
            table: std::sync::Arc::clone(self.core.table()),
            limits: self.limits,
            now: self.now,
            room: 8,
        };
        let issued = paths.wire.borrow().issued;
        self.core.pump(self.now, &mut paths);
        let mut busy = self.wire.borrow().issued != issued;
        self.totals.held += u64::from(self.core.held() > 0);
        let reports: Vec<Report> = self.core.reports().collect();
        for report in reports {
            busy = true;
            if let Report::Guest(GuestError { rule: "no-path" | "timed-out", .. }) = report {
                let undecided = self.wire.borrow().undecided(self.core.table(), self.now);
                assert_eq!(undecided, None, "no path, while nothing is decided about this one");
            }
            if let Report::Path(report) = report {
                // The control thread's inlet may be full.
                if self.random.one_in(10) {
                    continue;
                }
                self.totals.hung += u64::from(matches!(report.reason, IoReason::Hung { .. }));
                self.post(Message::ToEngine(Event::Io(report)));
            }
        }
        let finished: Vec<(Box<Request>, End)> = self.core.finished().collect();
        for (request, end) in finished {
            busy = true;
            self.request_ended(&request, &end);
        }
        for path in self.leaving.clone() {
            if self.core.in_flight(path) == 0 {
                self.leaving.remove(&path);
                let nexus = self.nexus_of.remove(&path).unwrap();
                self.laws.leaves(path);
                self.names.remove(&path);
                self.nexus_lost(path);
                self.array.remove_nexus(self.now, nexus);
                self.other.remove_nexus(self.now, nexus);
                self.wire.borrow_mut().remapped.remove(&path);
                self.map.retired(path);
            }
        }
        self.functions_end();
        self.no_one_enters_a_hung_path();
        busy
    }

    /// A path with a command older than the suspect time gets nothing new
    /// until the engine has decided about it.
    fn no_one_enters_a_hung_path(&self) {
        let wire = self.wire.borrow();
        for OnPath { path, .. } in wire.on_path.values() {
            let on_this = wire.on_path.values().filter(|w| w.path == *path);
            let mut times: Vec<Time> = on_this.map(|w| w.issued).collect();
            times.sort_unstable();
            let hung = times.iter().any(|t| *t + SUSPECT_AFTER <= self.now);
            let entered_now = times.last() == Some(&self.now) && hung;
            let decided = self.map.path(*path).is_none_or(|p| p.epoch > 1);
            assert!(!entered_now || decided, "{path} is hung and was given a command");
        }
    }

    /// Once the faults have ended everything ends, and the paths come back.
    fn come_to_rest(&mut self) {
        let limit = self.now + self.longest() * 3;
        while !self.pending.is_empty() {
            assert!(
                self.now < limit,
                "{} requests do not end: {} held, on paths {:?}, {:#?}",
                self.pending.len(),
                self.core.held(),
                self.wire.borrow().on_path,
                self.map.topology()
            );
            self.advance(Duration::from_millis(500));
        }
        assert!(self.core.is_idle());
        self.advance(Duration::from_secs(60));
        let topology = self.map.topology();
        let all = topology.groups.iter().flat_map(|g| &g.paths).count();
        assert_eq!(topology.usable, all, "a path does not come back: {topology:#?}");
        assert_eq!(self.map.identity().capacity, Blocks(self.blocks), "the map has another size");
        assert!(self.wire.borrow().on_path.is_empty());
        assert!(self.leaving.is_empty(), "removed and never closed: {:?}", self.leaving);
    }

    fn read_everything(&mut self) {
        for lba in (0..BLOCKS).step_by(64) {
            let head = self.free_heads.pop().expect("idle");
            self.moment += 1;
            let extent = Extent::new(lba, 64);
            let buffer = Buffer::zeroed(64 * BLOCK);
            let mut request = Box::<Request>::default();
            request.tag.head = head;
            request.op = Some(Op::Read(extent));
            request.data.push(buffer.segment());
            let start = self.moment;
            self.pending.insert(head, Pending::new(Some(buffer), start, Op::Read(extent)));
            self.core.submit(request).expect("room");
            self.advance(Duration::from_secs(2));
        }
        assert!(self.pending.is_empty(), "the last reads do not end");
        self.last_events();
        self.totals.end = self.now.0;
    }
}
