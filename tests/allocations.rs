//! Law 6 in the good path: a warm request core and a warm virtio-scsi front
//! allocate nothing per I/O.
//!
//! A test target of its own, because it counts every allocation of the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use vhost_mpath::io::{
    Blocks, Command, Completion, Extent, Front, Lba, Limits, MapSlot, Op, Outcome, Parsed, Request,
    Segment, Time,
};
use vhost_mpath::mpath::snapshot::{
    GroupView, PathId, PathTable, PathView, Queueing, SelectorKind,
};
use vhost_mpath::passthrough_scsi::{Issued, Rejected};
use vhost_mpath::queue::dispatch::{Cookie, Dispatcher, Issue, Settings};
use vhost_mpath::scsi::attention::Attentions;
use vhost_mpath::scsi::command::CommandPolicy;
use vhost_mpath::vhost_scsi::{NoPathAnswer, PrShow, ScsiDevice, ScsiFront, ScsiSettings, Unit};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to the system's allocator unchanged; there
// is no safe way to count allocations.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `System` with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: `at` came from `System` with this layout.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Paths that answer when they are asked to.
struct Wire {
    out: Vec<(PathId, Cookie)>,
}

impl Issue for Wire {
    fn issue(&mut self, path: PathId, cookie: Cookie, _: &Command<'_>) -> Result<Issued, Rejected> {
        if self.out.len() == self.out.capacity() {
            return Err(Rejected);
        }
        self.out.push((path, cookie));
        Ok(Issued::Pending)
    }
}

const LIMITS: Limits = Limits {
    max_transfer: Blocks(64),
    max_segments: 8,
    max_unmap: Blocks(1024),
    max_unmap_descriptors: 8,
    unmap_granularity: Blocks(8),
    unmap_alignment: Lba(0),
    max_write_same: Blocks(512),
    fua: false,
};

fn core(selector: SelectorKind) -> Dispatcher {
    let view = |slot| PathView {
        id: PathId { slot, generation: 0 },
        epoch: 1,
        proven: 1,
        priority: 1,
        repeat: 1,
    };
    let table = PathTable {
        generation: 1,
        groups: vec![GroupView { number: 1, paths: vec![view(0), view(1)] }],
        queueing: Queueing::Hold,
        selector,
        suspended: false,
        registered: false,
        hold_for: None,
    };
    let settings = Settings {
        limits: LIMITS,
        block_size: 512,
        command_timeout: Duration::from_secs(30),
        suspect_after: Duration::from_secs(1),
        max_requests: 64,
        rings: 1,
    };
    Dispatcher::new(settings, Arc::new(table), None)
}

/// Fills a pooled request as a front does: every kind, whole and split.
fn fill(request: &mut Request, turn: u64) {
    request.reset();
    let extent = Extent::new(turn % 5000, 1 + turn % 200);
    let op = match turn % 7 {
        0 => Op::Flush,
        1 => Op::WriteZeroes { extent, unmap: false },
        2 => Op::Unmap,
        3 | 4 => Op::Write { extent, fua: turn % 2 == 0 },
        _ => Op::Read(extent),
    };
    if let Op::Read(_) | Op::Write { .. } = op {
        let bytes = usize::try_from(extent.blocks.0).unwrap() * 512;
        let half = bytes / 2;
        request.data.push(Segment { addr: 0x1000, len: half });
        request.data.push(Segment { addr: 0x9_0000, len: bytes - half });
    }
    if op == Op::Unmap {
        request.extents.push(extent);
        request.extents.push(Extent::new(9000, 1500));
    }
    request.op = Some(op);
}

/// `turns` requests at depth 32, in time, over both paths; allocations made.
#[allow(clippy::vec_box)] // a pool of what the core takes and gives back
fn run(core: &mut Dispatcher, wire: &mut Wire, pool: &mut Vec<Box<Request>>, turns: u64) -> u64 {
    let before = COUNT.get();
    let mut now = Time(1_000_000_000);
    for turn in 0..turns {
        if let Some(mut request) = pool.pop() {
            fill(&mut request, turn);
            core.submit(request).expect("room");
        }
        now = now + Duration::from_micros(20);
        core.pump(now, wire);
        // The oldest half comes back, as a batch.
        if wire.out.len() > 24 || pool.is_empty() {
            let half = wire.out.len().div_ceil(2);
            for (_, cookie) in wire.out.drain(..half) {
                core.complete(now, cookie, &Completion::Good);
            }
        }
        core.pump(now, wire);
        assert_eq!(core.reports().count(), 0);
        pool.extend(core.finished().map(|(request, _)| request));
        assert!(core.next_deadline().is_none_or(|at| at > now));
    }
    COUNT.get() - before
}

#[test]
fn the_good_path_of_a_warm_core_allocates_nothing() {
    for &selector in SelectorKind::ALL {
        let mut core = core(selector);
        let mut wire = Wire { out: Vec::with_capacity(40) };
        let mut pool: Vec<Box<Request>> = (0..32).map(|_| Box::default()).collect();
        let warming = run(&mut core, &mut wire, &mut pool, 50_000);
        let warm = run(&mut core, &mut wire, &mut pool, 50_000);
        println!("{selector:?}: {warming} allocations while warming up, {warm} once warm");
        assert!(warming > 0, "the counter does not count");
        assert_eq!(warm, 0);
    }
}

/// READ(10) and WRITE(10) of eight blocks, to several LUNs, in pieces.
fn serve(front: &mut ScsiFront, request: &mut Request, memory: &mut [u8], turns: u64) -> u64 {
    let before = COUNT.get();
    for turn in 0..turns {
        let read = turn % 2 == 0;
        memory[..51].fill(0);
        (memory[0], memory[3]) = (1, u8::try_from(turn % 3).expect("small"));
        (memory[19], memory[27]) = (if read { 0x28 } else { 0x2a }, 8);
        let base = memory.as_mut_ptr().expose_provenance();
        let segment = |at, len| Segment { addr: base + at, len };
        let (header, reply) = (segment(0, 51), segment(100, 108));
        let data = [segment(300, 1000), segment(2000, 3096)];
        let (readable, writable) = if read {
            ([header; 3], [reply, data[0], data[1]])
        } else {
            ([header, data[0], data[1]], [reply; 3])
        };
        let (readable, writable) =
            if read { (&readable[..1], &writable[..]) } else { (&readable[..], &writable[..1]) };
        request.reset();
        request.tag.ring = 2;
        assert_eq!(front.parse(readable, writable, request), Parsed::Submit);
        let used = front.finish(request, &Outcome::Good);
        assert_eq!(used, if read { 108 + 4096 } else { 108 });
        assert_eq!(front.denied(), None);
    }
    COUNT.get() - before
}

#[test]
fn the_good_path_of_a_warm_scsi_front_allocates_nothing() {
    let settings = ScsiSettings { num_queues: 1, max_queue_size: 128, max_sectors: 128 };
    let device = ScsiDevice::new(&settings).expect("valid");
    let unit = |lun| Unit {
        target: 0,
        lun,
        map: MapSlot(lun),
        attentions: Arc::new(Attentions::new(true)),
        policy: CommandPolicy::default(),
        joined: true,
        multipath: true,
        nexus: Arc::default(),
        reservation: Arc::default(),
        pr_show: PrShow::One,
        read_only: false,
        limits: LIMITS,
        block_size: 512,
        no_path: NoPathAnswer::TransportError,
    };
    device.set_units((0..3).map(unit).collect());
    let mut front = device.front();
    let (mut request, mut memory) = (Request::default(), vec![0; 6000]);
    assert!(serve(&mut front, &mut request, &mut memory, 10) > 0, "the counter does not count");
    assert_eq!(serve(&mut front, &mut request, &mut memory, 10_000), 0);
}
