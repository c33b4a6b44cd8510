//! The world of one seed: guest, queue thread, control thread, array, clock.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::AddAssign;
use std::time::Duration;

use vhost_mpath::guest::buffer::Buffer;
use vhost_mpath::io::{
    Blocks, Completion, Extent, Identity, Lba, Limits, Op, Outcome, Request, Time,
};
use vhost_mpath::mpath::checker::{Checker, CheckerKind, Step, Verdict};
use vhost_mpath::mpath::classify::PathVerdict;
use vhost_mpath::mpath::effect::{Change, Effect, Effects};
use vhost_mpath::mpath::event::{Event, IoReason, IoReport};
use vhost_mpath::mpath::policy::{GroupingPolicy, NoPathRetry, Policy};
use vhost_mpath::mpath::snapshot::{PathId, PathTable, Queueing, SelectorKind};
use vhost_mpath::mpath::{Multipath, NewPath};
use vhost_mpath::queue::Stop;
use vhost_mpath::queue::dispatch::{Cookie, Dispatcher, End, Report, Settings};
use vhost_mpath::scsi::capacity::Capacity;
use vhost_mpath::scsi::cdb::Cdb;
use vhost_mpath::scsi::sense::{Key, SenseCode};
use vhost_mpath::scsi::status::{HostByte, Status};
use vhost_mpath::scsi::vpd;
use vhost_mpath::sim::Task;
use vhost_mpath::sim::{Array, CutMode, Done, Fault, LuConfig, MemoryMedium, NexusId};

use crate::durable::{Cached, Dirty};
use crate::engine_laws::EngineLaws;
use crate::random::Random;
use crate::shadow::Shadow;
use crate::wire::{OnPath, Purpose, ToArray, Wire};

pub(crate) const BLOCK: usize = 512;
const BLOCKS: u64 = 256;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
const SUSPECT_AFTER: Duration = Duration::from_secs(1);
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
        self.end = self.end.max(o.end);
    }
}

/// Runs one seed to its end; panics where a law is broken.
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
    /// Blocks to compare for a read.
    extent: Extent,
}

struct World {
    random: Random,
    now: Time,
    /// Counts events; the shadow's clock.
    moment: u64,
    array: Array,
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
        let array = Array::new(config, Box::new(medium));
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
        };
        let mut world = World {
            now: Time(1_000_000_000),
            moment: 1,
            array,
            map: Multipath::new(identity, policy),
            core: Dispatcher::new(settings, std::sync::Arc::new(empty)),
            wire: RefCell::new(Wire::new(Random::new(seed ^ 0xa11c_e000))),
            laws: EngineLaws::default(),
            dirty,
            nexus_of: BTreeMap::new(),
            names: BTreeMap::new(),
            leaving: BTreeSet::new(),
            mail: BTreeMap::new(),
            mails: 0,
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
            if !busy && self.array.next_deadline().is_none_or(|d| d > self.now) {
                return;
            }
        }
    }

    fn post(&mut self, message: Message) {
        let most = if self.random.one_in(10) { 50 } else { 2 };
        let delay = self.random.duration(Duration::from_millis(most));
        self.mails += 1;
        // Mail keeps its order, as in the daemon.
        let last = self.mail.keys().next_back().map_or(self.now, |k| k.0);
        let at = (self.now + delay).max(last);
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
                self.array.remove_nexus(self.now, nexus);
                self.map.retired(path);
            }
        }
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

    fn request_ended(&mut self, request: &Request, end: &End) {
        self.moment += 1;
        let head = request.tag.head;
        let p = self.pending.remove(&head).expect("each request ends once");
        let outcome = match end {
            End::Finished(outcome) => *outcome,
            End::Abandoned => {
                self.totals.abandoned += 1;
                assert!(
                    matches!(self.stopping, Some(Stop::Suspend | Stop::Discard)),
                    "abandoned though nothing stops"
                );
                Outcome::Stopped
            }
        };
        let good = outcome == Outcome::Good;
        self.totals.errors += u64::from(!good);
        self.allowed(&outcome);
        if good {
            self.is_durable(request, p.start);
        }
        for handle in p.writes {
            self.shadow.end(self.moment, handle, good);
        }
        if let (Some(Op::Read(extent)), true) = (request.op, good) {
            assert_eq!(extent, p.extent);
            let bytes = p.buffer.as_ref().expect("a read has a buffer").to_vec();
            for (block, data) in (extent.lba.0..).zip(bytes.chunks(BLOCK)) {
                let value = u64::from_le_bytes(data[..8].try_into().unwrap());
                assert!(data.chunks(8).all(|c| c == &data[..8]), "block {block} is torn");
                if let Err(why) = self.shadow.read(p.start, self.moment, block, value) {
                    panic!("stale or lost: {why}");
                }
            }
        }
        self.free_heads.push(head);
    }

    /// Law 9: what is flushed, or was to be durable, survives a power failure,
    /// unless something else was written to the block meanwhile.
    fn is_durable(&self, request: &Request, start: u64) {
        let blocks = match request.op {
            Some(Op::Flush) => 0..BLOCKS,
            Some(Op::Write { extent, fua: true }) => extent.lba.0..extent.end().unwrap().0,
            Some(Op::WriteZeroes { extent, .. }) if request.durable => {
                extent.lba.0..extent.end().unwrap().0
            }
            _ => return,
        };
        for block in blocks.map(|b| usize::try_from(b).unwrap()) {
            let lost = self.dirty.is(block) && self.shadow.settled(block, start);
            assert!(!lost, "block {block} is not durable after {:?}", request.op);
        }
    }

    /// Whether the guest may be told this.
    fn allowed(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Good => {}
            Outcome::Stopped => assert!(self.stopping.is_some(), "stopped though nothing stops"),
            Outcome::NoPath => {
                assert_ne!(
                    self.policy.no_path_retry,
                    NoPathRetry::Queue,
                    "an error while queueing"
                );
            }
            Outcome::Host(libc::ENODATA) => assert!(self.medium_errors),
            Outcome::Lu { status: Status::CHECK_CONDITION, sense } => {
                // An aborted command is the LU's word once the paths left have been
                // asked twice and had nothing better to say.
                let word = sense.code();
                let medium = self.medium_errors && word == Some(MEDIUM_ERROR);
                let aborted = self.aborts > 0 && word == Some(CRC_ERROR);
                assert!(medium || aborted, "{sense:?}");
            }
            other => panic!("the guest was told {other:?}"),
        }
    }

    // --- control thread ---------------------------------------------------------

    fn engine(&mut self, event: Event) {
        self.moment += 1;
        match &event {
            Event::Io(IoReport { path, reason: IoReason::Judged { verdict, .. }, .. })
                if *verdict == PathVerdict::Doubt =>
            {
                self.laws.doubted(self.moment, *path);
            }
            Event::Proven { path, proof, identity: Ok(found) } if found == self.map.identity() => {
                self.laws.proof_succeeds(*path, *proof);
            }
            _ => {}
        }
        let mut fx = Effects::new();
        self.map.handle(self.now, event, &mut fx);
        self.carry_out(fx);
    }

    fn carry_out(&mut self, fx: Effects) {
        self.moment += 1;
        self.laws.check(self.moment, &self.map);
        for effect in fx {
            match effect {
                Effect::Publish(table) => self.post(Message::Table(table)),
                Effect::Check { path, check } => {
                    let mut checker = Checker::new(CheckerKind::Tur);
                    assert!(matches!(checker.begin(), Step::Issue(_)));
                    let purpose = Purpose::Check { path, check, checker };
                    self.probe(path, purpose, Cdb::test_unit_ready(), 0);
                }
                Effect::Prove { path, proof } => {
                    self.laws.proof_begins(self.moment, path, proof);
                    let purpose = Purpose::Prove { path, proof, step: 0, tries: 5, wwid: None };
                    let cdb = Cdb::inquiry(Some(vpd::IDENTIFICATION), 252);
                    self.probe(path, purpose, cdb, 252);
                }
                Effect::Retire(path) => self.post(Message::Retire(path)),
                Effect::Notify(Change::PathFailed { .. }) => self.totals.path_failures += 1,
                Effect::Notify(Change::PathReinstated { .. }) => self.totals.reinstated += 1,
                Effect::Notify(_) => {}
            }
        }
    }

    fn probe(&mut self, path: PathId, purpose: Purpose, cdb: Cdb, data_in_max: usize) {
        let Some(&nexus) = self.nexus_of.get(&path) else { return };
        let tag = {
            let mut wire = self.wire.borrow_mut();
            let tag = wire.tag();
            wire.tasks.insert(tag, purpose);
            tag
        };
        let timeout = self.policy.checker_timeout;
        let data_out = Vec::new();
        self.array.submit(self.now, Task { nexus, tag, cdb, data_out, data_in_max, timeout });
    }

    fn task_done(&mut self, done: &Done) {
        let purpose = self.wire.borrow_mut().tasks.remove(&done.tag).expect("a task ends once");
        match purpose {
            Purpose::Guest { cookie, key } => self.command_done(done, cookie, key),
            Purpose::Check { path, check, mut checker } => {
                match checker.on_completion(&done.completion) {
                    Step::Issue(_) => {
                        let purpose = Purpose::Check { path, check, checker };
                        self.probe(path, purpose, Cdb::test_unit_ready(), 0);
                    }
                    Step::Done(verdict) => self.post_checked(path, check, verdict),
                }
            }
            Purpose::Prove { path, proof, step, tries, wwid } => {
                self.proof_step(done, path, proof, step, tries, wwid);
            }
        }
    }

    fn post_checked(&mut self, path: PathId, check: u32, verdict: Verdict) {
        self.post(Message::ToEngine(Event::Checked { path, check, verdict }));
    }

    fn command_done(&mut self, done: &Done, cookie: Cookie, key: u64) {
        self.moment += 1;
        let table = std::sync::Arc::clone(self.core.table());
        let completion =
            self.wire.borrow_mut().take_off(key, done.completion, &done.data_in, &table);
        let retry = !matches!(completion, Completion::Good);
        self.totals.retries += u64::from(retry);
        self.core.complete(self.now, cookie, &completion);
    }

    fn proof_step(
        &mut self,
        done: &Done,
        path: PathId,
        proof: u32,
        step: u8,
        tries: u8,
        wwid: Option<String>,
    ) {
        let good = match &done.completion {
            Completion::Good => true,
            Completion::Scsi { status, host, .. } => {
                *status == Status::GOOD && *host == HostByte::OK
            }
            _ => false,
        };
        let answer = |identity| Message::ToEngine(Event::Proven { path, proof, identity });
        if !good && tries > 0 {
            let cdb = if step == 0 {
                Cdb::inquiry(Some(vpd::IDENTIFICATION), 252)
            } else {
                Cdb::read_capacity_16(32)
            };
            let purpose = Purpose::Prove { path, proof, step, tries: tries - 1, wwid };
            self.probe(path, purpose, cdb, 252);
        } else if !good {
            self.post(answer(Err(format!("{:?}", done.completion))));
        } else if step == 0 {
            let wwid = vpd::wwid(Some(&done.data_in), None);
            let purpose = Purpose::Prove { path, proof, step: 1, tries, wwid };
            self.probe(path, purpose, Cdb::read_capacity_16(32), 32);
        } else {
            let capacity = Capacity::parse_16(&done.data_in).expect("READ CAPACITY(16)");
            let identity = Identity {
                wwid: wwid.expect("VPD 83h"),
                capacity: capacity.blocks,
                block_size: capacity.block_size,
            };
            self.post(answer(Ok(identity)));
        }
    }

    // --- the guest --------------------------------------------------------------

    fn guest_request(&mut self) {
        if self.stopping.is_some() || self.core.room() == 0 {
            return;
        }
        let Some(head) = self.free_heads.pop() else { return };
        self.moment += 1;
        self.totals.requests += 1;
        let lba = self.random.below(BLOCKS - 64);
        let most = if self.random.one_in(4) { 64 } else { 6 };
        let n = 1 + self.random.below(most);
        let extent = Extent::new(lba, n);
        let mut request = Box::<Request>::default();
        request.tag.head = head;
        let mut pending = Pending { buffer: None, start: self.moment, writes: Vec::new(), extent };
        match self.random.below(12) {
            0 => request.op = Some(Op::Flush),
            1 if self.limits.max_unmap.0 > 0 => {
                request.op = Some(Op::Unmap);
                request.extents = vec![extent, Extent::new(lba / 2, n.min(9))];
                for e in &request.extents {
                    pending.writes.push(self.shadow.begin(self.moment, e.lba.0, e.blocks.0, 0));
                    self.moment += 1;
                }
            }
            2 => {
                let unmap = self.limits.max_unmap.0 > 0 && self.random.one_in(2);
                request.op = Some(Op::WriteZeroes { extent, unmap });
                request.durable = self.random.one_in(3);
                pending.writes.push(self.shadow.begin(self.moment, lba, n, 0));
            }
            3..=6 => {
                let value = self.next_value;
                self.next_value += 1;
                request.op = Some(Op::Write { extent, fua: self.random.one_in(3) });
                let mut buffer = Buffer::zeroed(usize::try_from(n).unwrap() * BLOCK);
                buffer.write(&value.to_le_bytes().repeat(buffer.len() / 8));
                self.segments(&buffer, &mut request);
                pending.writes.push(self.shadow.begin(self.moment, lba, n, value));
                pending.buffer = Some(buffer);
            }
            _ => {
                request.op = Some(Op::Read(extent));
                let buffer = Buffer::zeroed(usize::try_from(n).unwrap() * BLOCK);
                self.segments(&buffer, &mut request);
                pending.buffer = Some(buffer);
            }
        }
        self.pending.insert(head, pending);
        self.core.submit(request).expect("room");
    }

    /// Splits a buffer at random places, as a guest's pages do.
    fn segments(&mut self, buffer: &Buffer, request: &mut Request) {
        let mut rest = buffer.segment();
        while rest.len > 0 {
            let len = if self.random.one_in(3) {
                rest.len
            } else {
                (1 + usize::try_from(self.random.below(2000)).unwrap()).min(rest.len)
            };
            request.data.push(vhost_mpath::io::Segment { addr: rest.addr, len });
            rest.addr += len;
            rest.len -= len;
        }
    }

    /// The ring is stopped (reboot, disconnect), or starts again.
    fn stop_or_restart(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let how = self.random.pick(&[Stop::Finish, Stop::Suspend, Stop::Discard]);
        self.stopping = Some(how);
        self.core.stop_ring(0, how);
        // Bounded even with every path gone: the commands on paths come back
        // by their timeout.
        let deadline = self.now + COMMAND_TIMEOUT + Duration::from_secs(1);
        self.settle();
        let mut asked = false;
        while self.core.outstanding(0) > 0 {
            assert!(
                self.now <= deadline + COMMAND_TIMEOUT,
                "the ring does not stop: {} outstanding",
                self.core.outstanding(0)
            );
            if !asked && self.now >= deadline {
                asked = true;
                self.core.stop_deadline(0);
            }
            self.advance(Duration::from_millis(200));
        }
        self.core.ring_stopped(0);
        self.stopping = None;
    }

    // --- faults -------------------------------------------------------------------

    fn add_path(&mut self) {
        self.paths_made += 1;
        let name = format!("sim{}", self.paths_made);
        let nexus = self.array.add_nexus(&name);
        let new = NewPath {
            name: name.clone(),
            identity: self.map.identity().clone(),
            checker: CheckerKind::Tur,
        };
        let mut fx = Effects::new();
        match self.map.add_path(self.now, new, &mut fx) {
            Ok(id) => {
                // Law 10: the old path's last command is back, and it is closed.
                let used = self.nexus_of.keys().any(|old| old.slot == id.slot);
                assert!(!used, "slot {} is used again too early", id.slot);
                self.laws.joins(self.moment, id);
                self.nexus_of.insert(id, nexus);
                self.names.insert(id, name);
            }
            Err(_) => self.array.remove_nexus(self.now, nexus),
        }
        self.carry_out(fx);
    }

    /// The path that is about to join takes less than the others.
    fn shrink_limits(&mut self) {
        if !self.random.one_in(3) {
            return;
        }
        let l = &mut self.limits;
        l.max_transfer = Blocks((l.max_transfer.0 / 2).max(3));
        l.max_segments = (l.max_segments / 2).max(2);
        l.fua &= !self.random.one_in(3);
        self.core.set_limits(*l);
    }

    fn fault(&mut self) {
        let ids: Vec<PathId> = self.nexus_of.keys().copied().collect();
        let id = self.random.pick(&ids);
        let (nexus, name) = (self.nexus_of[&id], self.names[&id].clone());
        let mut fx = Effects::new();
        let count = 1 + u32::try_from(self.random.below(3)).unwrap();
        let fault = match self.random.below(16) {
            0 => Fault::Cut(CutMode::Before),
            1 => Fault::Cut(CutMode::StatusLost),
            2 => Fault::Cut(CutMode::Half),
            3 | 4 => Fault::Hang,
            5 => Fault::Delay(self.random.duration(Duration::from_secs(3))),
            6 => {
                let codes = [
                    (0x6, 0x29, 0x00),
                    (0x6, 0x3f, 0x0e),
                    (0x6, 0x2a, 0x09),
                    (0x2, 0x04, 0x01),
                    (0x2, 0x04, 0x0b),
                    (0x2, 0x3a, 0x00),
                    (0xb, 0x47, 0x00),
                ];
                let (key, asc, ascq) = self.random.pick(&codes);
                self.aborts += u32::from(key == 0xb);
                Fault::Sense { code: SenseCode::new(Key::from_bits(key), asc, ascq), count: 1 }
            }
            7 => {
                let host = self.random.pick(&[
                    HostByte::TRANSPORT_DISRUPTED,
                    HostByte::NO_CONNECT,
                    HostByte::SOFT_ERROR,
                    HostByte::ERROR,
                    HostByte::TRANSPORT_MARGINAL,
                ]);
                Fault::HostByte { host, count }
            }
            8 => {
                self.medium_errors = true;
                Fault::Sense { code: MEDIUM_ERROR, count: 1 }
            }
            9 => {
                if self.nexus_of.len() < 4 {
                    self.shrink_limits();
                    self.add_path();
                }
                return;
            }
            10 => {
                // Refused for the last path, as it must be.
                let _ = self.map.remove_path(self.now, &name, &mut fx);
                self.carry_out(fx);
                return;
            }
            11 => {
                let _ = self.map.fail_path(self.now, &name, &mut fx);
                self.carry_out(fx);
                return;
            }
            12 => {
                let _ = self.map.reinstate_path(self.now, &name, &mut fx);
                self.carry_out(fx);
                return;
            }
            _ => Fault::Plug,
        };
        self.array.inject(self.now, nexus, fault);
    }

    fn end_of_faults(&mut self) {
        self.wire.borrow_mut().calm = true;
        for (id, nexus) in self.nexus_of.clone() {
            self.array.inject(self.now, nexus, Fault::Plug);
            self.array.inject(self.now, nexus, Fault::Delay(Duration::ZERO));
            let mut fx = Effects::new();
            if let Some(name) = self.names.get(&id).cloned() {
                let _ = self.map.reinstate_path(self.now, &name, &mut fx);
            }
            self.carry_out(fx);
        }
    }

    /// Once the faults have ended everything ends, and the paths come back.
    fn come_to_rest(&mut self) {
        let limit = self.now + COMMAND_TIMEOUT * 3;
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
        assert!(self.wire.borrow().on_path.is_empty());
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
            let pending = Pending { buffer: Some(buffer), start, writes: Vec::new(), extent };
            self.pending.insert(head, pending);
            self.core.submit(request).expect("room");
            self.advance(Duration::from_secs(2));
        }
        assert!(self.pending.is_empty(), "the last reads do not end");
        self.totals.end = self.now.0;
    }
}
