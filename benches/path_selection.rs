//! What the good path costs per command: choosing its path, and judging its
//! completion; and the whole request core around it. `cargo bench`.
//!
//! Each sample is a thousand commands: read microseconds as nanoseconds per
//! command.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use divan::{Bencher, black_box, counter::ItemsCount};
use vhost_mpath::io::{
    Blocks, Command, Completion, Extent, Lba, Limits, Op, Request, Segment, Time,
};
use vhost_mpath::mpath::classify::{self, PathVerdict};
use vhost_mpath::mpath::selector::{Came, Selector, Slots, Want};
use vhost_mpath::mpath::snapshot::{
    GroupView, PathId, PathTable, PathView, Queueing, SelectorKind,
};
use vhost_mpath::passthrough_scsi::{Issued, Rejected};
use vhost_mpath::queue::dispatch::{Cookie, Dispatcher, Issue, Settings};

const COMMANDS: u64 = 1000;
/// Commands in flight.
const DEPTH: usize = 64;
/// Of the request core's.
const BATCH: u32 = 20;
/// Between two commands of the guest.
const GAP: Duration = Duration::from_micros(1);

const CASES: [(SelectorKind, u8); 10] = [
    (SelectorKind::RoundRobin, 4),
    (SelectorKind::RoundRobin, 64),
    (SelectorKind::QueueLength, 4),
    (SelectorKind::QueueLength, 64),
    (SelectorKind::ServiceTime, 4),
    (SelectorKind::ServiceTime, 64),
    (SelectorKind::HistoricalServiceTime, 4),
    (SelectorKind::HistoricalServiceTime, 64),
    (SelectorKind::Latency, 4),
    (SelectorKind::Latency, 64),
];

fn main() {
    divan::main();
}

fn table(selector: SelectorKind, paths: u8) -> PathTable {
    let view = |slot| PathView {
        id: PathId { slot, generation: 0 },
        epoch: 1,
        proven: 1,
        priority: 1,
        repeat: 1,
    };
    PathTable {
        generation: 1,
        groups: vec![GroupView { number: 1, paths: (0..paths).map(view).collect() }],
        queueing: Queueing::Hold,
        selector,
        suspended: false,
        registered: false,
        hold_for: None,
    }
}

/// Reads and writes of several sizes, none of them rare.
fn want(turn: u64) -> Want {
    Want { bytes: 4096 << (turn * 7 % 5), write: turn % 3 == 0 }
}

/// A selector with commands out.
struct Guest {
    selector: Selector,
    among: Slots,
    out: VecDeque<(u8, Want, Time)>,
    now: Time,
    turn: u64,
}

impl Guest {
    fn new((kind, paths): (SelectorKind, u8), depth: usize) -> Guest {
        let mut selector = Selector::new(kind);
        selector.update(&table(kind, paths));
        let (among, out) = ((0..paths).collect(), VecDeque::with_capacity(DEPTH + 1));
        let mut guest = Guest { selector, among, out, now: Time(1_000_000_000), turn: 0 };
        (0..depth).for_each(|_| guest.issue());
        (0..10_000).for_each(|_| guest.turn());
        guest
    }

    fn issue(&mut self) {
        let want = want(self.turn);
        let slot = self.selector.select(self.now, black_box(self.among), want).expect("paths");
        self.selector.started(self.now, slot, want);
        self.out.push_back((slot, want, self.now));
        self.turn += 1;
    }

    /// One command comes back and is judged, another is issued.
    fn turn(&mut self) {
        self.now = self.now + GAP;
        if let Some((slot, want, issued)) = self.out.pop_front() {
            let verdict = classify::classify(black_box(&Completion::Good));
            let good = verdict.path == PathVerdict::Keep;
            self.selector.completed(self.now, slot, &Came { want, issued, good });
        }
        self.issue();
    }
}

/// Choice, its book-keeping, and judgement.
#[divan::bench(args = CASES)]
fn selection_and_judgement(bencher: Bencher, case: (SelectorKind, u8)) {
    let mut guest = Guest::new(case, DEPTH);
    bencher
        .counter(ItemsCount::new(COMMANDS))
        .bench_local(|| (0..COMMANDS).for_each(|_| guest.turn()));
}

/// The same with one command at a time: most paths are idle.
#[divan::bench(args = CASES)]
fn selection_and_judgement_at_depth_1(bencher: Bencher, case: (SelectorKind, u8)) {
    let mut guest = Guest::new(case, 1);
    bencher
        .counter(ItemsCount::new(COMMANDS))
        .bench_local(|| (0..COMMANDS).for_each(|_| guest.turn()));
}

/// The same where one path of them may not be taken.
#[divan::bench(args = CASES)]
fn selection_and_judgement_without_a_path(bencher: Bencher, case: (SelectorKind, u8)) {
    let mut guest = Guest::new(case, DEPTH);
    guest.among.remove(1);
    bencher
        .counter(ItemsCount::new(COMMANDS))
        .bench_local(|| (0..COMMANDS).for_each(|_| guest.turn()));
}

/// Paths that answer when they are asked to.
struct Wire(VecDeque<Cookie>);

impl Issue for Wire {
    fn issue(&mut self, _: PathId, cookie: Cookie, _: &Command<'_>) -> Result<Issued, Rejected> {
        self.0.push_back(cookie);
        Ok(Issued::Pending)
    }
}

const LIMITS: Limits = Limits {
    max_transfer: Blocks(2048),
    max_segments: 128,
    max_unmap: Blocks(0),
    max_unmap_descriptors: 1,
    unmap_granularity: Blocks(1),
    unmap_alignment: Lba(0),
    max_write_same: Blocks(0),
    fua: true,
};

/// All that the request core does for a command, in batches of twenty.
#[divan::bench(args = CASES)]
fn request_core(bencher: Bencher, (kind, paths): (SelectorKind, u8)) {
    let settings = Settings {
        limits: LIMITS,
        block_size: 512,
        command_timeout: Duration::from_secs(30),
        suspect_after: Duration::from_secs(1),
        max_requests: 256,
        rings: 1,
    };
    let mut core = Dispatcher::new(settings, Arc::new(table(kind, paths)), None);
    let mut wire = Wire(VecDeque::with_capacity(DEPTH + 1));
    let mut pool: Vec<Box<Request>> = (0..DEPTH).map(|_| Box::default()).collect();
    let (mut now, mut turn) = (Time(1_000_000_000), 0u64);
    let mut batch = || {
        now = now + GAP * BATCH;
        for _ in 0..BATCH {
            let Some(mut request) = pool.pop() else { break };
            let want = want(turn);
            let extent = Extent::new(turn * 8 % 100_000, want.bytes / 512);
            request.data.clear();
            let len = usize::try_from(want.bytes).expect("small");
            request.data.push(Segment { addr: 0x10_0000, len });
            request.op = Some(match want.write {
                true => Op::Write { extent, fua: false },
                false => Op::Read(extent),
            });
            turn += 1;
            core.submit(request).expect("room");
        }
        core.pump(now, &mut wire);
        for _ in 0..BATCH {
            let Some(cookie) = wire.0.pop_front() else { break };
            core.complete(now, cookie, black_box(&Completion::Good));
        }
        black_box(core.next_deadline());
        pool.extend(core.finished().map(|(request, _)| request));
    };
    (0..1000).for_each(|_| batch());
    bencher
        .counter(ItemsCount::new(COMMANDS))
        .bench_local(|| (0..COMMANDS / u64::from(BATCH)).for_each(|_| batch()));
}
