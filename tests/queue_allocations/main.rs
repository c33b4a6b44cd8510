//! No allocation per I/O: counted, in a process of its own.
//!
//! Queue threads over real rings, an in-flight area, and two paths; everything
//! but this test's own thread is counted.
#![allow(clippy::disallowed_methods)] // a reactor is watched in real time

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vhost_mpath::guest::inflight::{InflightArea, area_size, create};
use vhost_mpath::guest::ring::Ring;
use vhost_mpath::guest::virtqueue::{VirtQueue, VirtQueueParts};
use vhost_mpath::host::{Options, PathSpec, open_path};
use vhost_mpath::io::{Front, MapSlot, Outcome, Parsed, Request, Segment};
use vhost_mpath::mpath::snapshot::{
    GroupView, PathId, PathTable, PathView, Queueing, SelectorKind,
};
use vhost_mpath::queue::dispatch::Settings;
use vhost_mpath::queue::{DeviceSettings, Queues, RingHost, Stop};
use vhost_mpath::vhost_blk::{BlkDevice, BlkSettings};
use vhost_mpath::virtio::blk::RequestType;
use vmm_sys_util::tempdir::TempDir;

use harness::blk_queue::{BlkQueue, PATIENCE, Payload};
use harness::guest::Guest;
use harness::slot_queue::{Manner, SlotQueue};

#[path = "../integration/harness"]
#[allow(dead_code)] // of what the stories use
mod harness {
    pub(crate) mod blk_queue;
    pub(crate) mod guest;
    pub(crate) mod slot_queue;
}

thread_local! {
    /// This thread is the guest: not counted.
    static IS_GUEST: Cell<bool> = const { Cell::new(false) };
}

static COUNT: AtomicU64 = AtomicU64::new(0);

struct Counting;

fn count() {
    if !IS_GUEST.with(Cell::get) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged; the
// counter is an atomic, the thread-local neither allocates nor has a
// destructor. There is no safe way to see allocations.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A device front whose requests go to each of so many maps in turn.
struct Spread<F> {
    front: F,
    maps: u16,
    next: u16,
}

impl<F: Front> Front for Spread<F> {
    fn parse(
        &mut self,
        readable: &[Segment],
        writable: &[Segment],
        request: &mut Request,
    ) -> Parsed {
        let parsed = self.front.parse(readable, writable, request);
        request.map = MapSlot(self.next % self.maps);
        self.next = self.next.wrapping_add(1);
        parsed
    }

    fn finish(&mut self, request: &mut Request, outcome: &Outcome) -> u32 {
        self.front.finish(request, outcome)
    }
}

const DEPTH: usize = 32;
const SIZE: u16 = 128;

/// One queue thread with one ring over so many maps with the given paths.
struct Running {
    queues: Queues,
    queue: BlkQueue,
    _guest: Guest,
}

fn start(paths: &[String], maps: u16, pieces: u32) -> Running {
    let open = |text: &String| {
        let spec: PathSpec = text.parse().expect("a path");
        open_path(&spec, &Options::default()).expect("opens")
    };
    let handles: Vec<_> = paths.iter().map(open).collect();
    let device = BlkDevice::new(&BlkSettings {
        identity: handles[0].identity().clone(),
        geometry: handles[0].geometry().clone(),
        limits: *handles[0].limits(),
        num_queues: 1,
        max_queue_size: 1024,
        read_only: false,
        serial: None,
    })
    .expect("settings");
    let settings = Settings {
        limits: *handles[0].limits(),
        block_size: handles[0].identity().block_size,
        command_timeout: Duration::from_secs(30),
        suspect_after: Duration::from_secs(10),
        max_requests: 1024,
        rings: 1,
    };
    let id = |slot| PathId { slot, generation: 0 };
    let view = |(slot, _)| PathView { id: id(slot), epoch: 1, proven: 1, priority: 1, repeat: 1 };
    let table = Arc::new(PathTable {
        generation: 1,
        groups: vec![GroupView { number: 1, paths: (0..).zip(&handles).map(view).collect() }],
        queueing: Queueing::Hold,
        selector: SelectorKind::ServiceTime,
        suspended: false,
        registered: false,
        hold_for: None,
    });
    let empty = Arc::new(PathTable { generation: 0, groups: Vec::new(), ..(*table).clone() });
    let device_settings = DeviceSettings { rings: 1, max_requests: 1024, tell_resets: false };
    let front = || Spread { front: device.front(), maps, next: 0 };
    let (queues, _inlet) = Queues::start(1, device_settings, front).expect("threads");
    for map in (0..maps).map(MapSlot) {
        queues.add_map(map, settings, &empty, None);
        for (slot, handle) in (0..).zip(&handles) {
            queues.attach(map, id(slot), handle);
        }
        queues.publish(map, &table);
    }

    let mut guest = Guest::new(&[4 << 20]);
    let manner = Manner {
        size: SIZE,
        depth: DEPTH,
        slot_bytes: 4096,
        event_idx: true,
        indirect: true,
        pieces,
        polling: false,
    };
    let queue = BlkQueue::from(SlotQueue::new(&mut guest, manner));
    let ring = Ring::new(Arc::clone(guest.memory()), queue.driver.config()).expect("ring");
    let area =
        InflightArea::attach(create(1, SIZE).expect("memfd"), area_size(1, SIZE), 0, 1, SIZE);
    let inflight = Some(area.expect("area").queue(0, SIZE).expect("queue"));
    let fd = |event: &vmm_sys_util::eventfd::EventFd| -> OwnedFd {
        use std::os::fd::{AsRawFd, BorrowedFd};
        // SAFETY: the eventfd lives as long as this call.
        let borrowed = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
        borrowed.try_clone_to_owned().expect("dup")
    };
    let (kick, call) = (fd(&queue.kick), Some(fd(&queue.call)));
    let parts = VirtQueueParts { index: 0, ring, inflight, kick, call, err: None };
    queues.start_ring(Box::new(VirtQueue::new(parts).expect("virtqueue")));
    Running { queues, queue, _guest: guest }
}

impl Running {
    /// So many requests, 32 at a time, mostly reads.
    fn run(&mut self, count: u64) {
        let mut made = 0;
        let mut back = 0;
        while back < count {
            while made < count && self.queue.room(1) > 0 {
                let sector = made * 8 % 4096;
                match made % 8 {
                    0 => self.queue.submit(RequestType::Out, sector, Payload::AsIs(4096), 0),
                    _ => self.queue.submit(RequestType::In, sector, Payload::None, 4096),
                }
                .expect("room");
                made += 1;
            }
            self.queue.kick();
            let done = self.queue.wait(PATIENCE).expect("an answer");
            assert_eq!(done.status, 0);
            back += 1;
            while let Some(done) = self.queue.poll() {
                assert_eq!(done.status, 0);
                back += 1;
            }
        }
    }

    fn stop(self) {
        let ring = self.queues.stop_ring(0, Stop::Finish, Duration::from_secs(10));
        ring.recv().expect("an answer").expect("the ring");
        self.queues.quit();
    }
}

/// The fewest allocations of several rounds of `count` requests. A pool may
/// still grow to a depth that it has not seen, on a busy machine late; what is
/// allocated per I/O is allocated in every round.
fn allocations(paths: &[String], maps: u16, count: u64) -> u64 {
    allocations_in(paths, maps, count, 1)
}

/// The same, where a request's data lie in so many pieces.
fn allocations_in(paths: &[String], maps: u16, count: u64, pieces: u32) -> u64 {
    const ROUNDS: usize = 5;
    let mut running = start(paths, maps, pieces);
    running.run(count / 4);
    let mut fewest = u64::MAX;
    for _ in 0..ROUNDS {
        let before = COUNT.load(Ordering::Relaxed);
        running.run(count);
        fewest = fewest.min(COUNT.load(Ordering::Relaxed) - before);
        if fewest == 0 {
            break;
        }
    }
    running.stop();
    fewest
}

#[test]
fn a_warm_queue_thread_allocates_nothing() {
    IS_GUEST.with(|guest| guest.set(true));
    let before = COUNT.load(Ordering::Relaxed);
    std::thread::spawn(|| std::hint::black_box(vec![1_u8; 100])).join().expect("thread");
    assert!(COUNT.load(Ordering::Relaxed) > before, "the counter counts");

    let null = ["null:1G,name=a".to_owned(), "null:1G,name=b".to_owned()];
    assert_eq!(allocations(&null, 1, 200_000), 0, "two null paths");
    assert_eq!(allocations(&null, 5, 200_000), 0, "five maps of two null paths");

    let dir = TempDir::new().expect("temporary directory");
    let image = dir.as_path().join("disk.img");
    std::fs::File::create(&image).and_then(|f| f.set_len(4 << 20)).expect("image");
    let file = |name| format!("{},name={name}", image.display());
    assert_eq!(allocations(&[file("c"), file("d")], 1, 20_000), 0, "two paths to a file");
    assert_eq!(allocations(&[file("e"), file("f")], 3, 20_000), 0, "three maps of two such");
}

/// Overwrites the first 2 MiB of the SCSI disks that the environment variable
/// `VHOST_MPATH_DISKS` names (`/dev/sda,/dev/sdb`), paths to one LU.
#[test]
#[ignore = "needs SCSI disks to overwrite; scripts/rig run allocations.sh"]
fn a_warm_queue_thread_allocates_nothing_for_a_scsi_disk() {
    IS_GUEST.with(|guest| guest.set(true));
    let disks = std::env::var("VHOST_MPATH_DISKS").expect("VHOST_MPATH_DISKS");
    let paths: Vec<_> = disks.split(',').map(str::to_owned).collect();
    for (pieces, maps) in [(1, 1), (1, 3), (3, 1)] {
        let count = allocations_in(&paths, maps, 5_000, pieces);
        assert_eq!(count, 0, "{maps} maps, data in {pieces} pieces");
    }
}
