//! Queue threads with a plain request format, and the driver of their rings.
#![allow(clippy::disallowed_methods)] // reactors are watched in real time

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::guest::copy;
use crate::guest::driver::Driver;
use crate::guest::inflight::{InflightArea, area_size, create};
use crate::guest::memory::Memory;
use crate::guest::ring::Ring;
use crate::guest::virtqueue::{VirtQueue, VirtQueueParts};
use crate::host::{Options, PathSpec, open_path};
use crate::io::{
    Action, Denied, DeviceEvent, Direction, Extent, Front, Limits, Management, MapSlot, Op,
    Outcome, Parsed, Reach, Request, RingRole, Segment,
};
use crate::mpath::snapshot::{GroupView, PathId, PathTable, PathView, Queueing, SelectorKind};
use crate::passthrough_scsi::PathHandle;
use crate::queue::dispatch::Settings;
use crate::queue::{DeviceSettings, FromQueue, Inlet, Queues, RingHost, StillInKernel, Stop};
use crate::scsi::cdb::Cdb;
use crate::sys::eventfd::EventFd;

/// Rings: as a SCSI device has them.
pub(super) const CONTROL: u16 = 0;
pub(super) const EVENTS: u16 = 1;
pub(super) const RINGS: usize = 4;
const SIZE: u16 = 256;
const BLOCK: u32 = 512;
/// Guest memory of one ring: the ring, then its buffers.
const STRIDE: u64 = 0x40000;
const BUFFERS: u64 = 0x8000;
const SLOT: u64 = 0x400;

/// Commands are given up after this long.
pub(super) const TIMEOUT: Duration = Duration::from_millis(1500);
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What a chain asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Read = 1,
    Refused,
    AbortTask,
    ResetUnit,
    ResetTarget,
    QueryTask,
    QueryUnit,
    Order,
}

/// How it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Good,
    NoPath,
    Aborted,
    Reset,
    Stopped,
    Other,
    Refused,
    Found,
    NotFound,
    Event { lun: u8, missed: bool },
    Nothing,
}

/// What the test and the fronts share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) wants_events: AtomicBool,
    /// Where the queue threads are in /proc.
    pub(super) threads: Mutex<Vec<std::path::PathBuf>>,
    /// Tasks that arrived as replayed.
    pub(super) replayed: Mutex<Vec<u64>>,
}

/// A header of 16 bytes (what, target, map, task), an answer of 8, data.
struct TestFront(Arc<Shared>, Option<Denied>);

impl Front for TestFront {
    fn parse(&mut self, readable: &[Segment], writable: &[Segment], r: &mut Request) -> Parsed {
        let Some(header) = copy::read_array::<16>(readable, 0) else {
            return Parsed::Answered { used_len: 0 };
        };
        copy::slice(writable, 0, 8, &mut r.reply);
        r.target = header[1];
        r.map = MapSlot(u16::from_le_bytes([header[2], header[3]]));
        r.task = u64::from(u32::from_le_bytes([header[4], header[5], header[6], header[7]]));
        if r.replayed {
            self.0.replayed.lock().unwrap().push(r.task);
        }
        let end = |reset| Action::End { reset };
        let (map, task) = (r.map, r.task);
        let (action, reach) = match header[0] {
            1 => {
                copy::slice(writable, 8, BLOCK as usize, &mut r.data);
                r.op = Some(Op::Read(Extent::new(0, 1)));
                return Parsed::Submit;
            }
            2 => {
                copy::copy_out(&r.reply, 0, &[7]);
                let cdb = Cdb::test_unit_ready();
                self.1 = Some(Denied { map, cdb, group: "test" });
                return Parsed::Answered { used_len: 1 };
            }
            3 => (end(false), Reach::Task { map, task }),
            4 => (end(true), Reach::Unit(map)),
            5 => (end(true), Reach::Target(r.target)),
            8 => {
                let register = [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0];
                let cdb = Cdb::from_bytes(&register).expect("a CDB");
                r.op = Some(Op::Cdb { cdb, direction: Direction::Out });
                r.ordered = true;
                r.front.buffer.extend_from_slice(&header);
                return Parsed::Submit;
            }
            6 => (Action::Query, Reach::Task { map, task }),
            _ => (Action::Query, Reach::Unit(map)),
        };
        Parsed::Manage(Management { action, reach })
    }

    fn finish(&mut self, r: &mut Request, outcome: &Outcome) -> u32 {
        let word = match outcome {
            Outcome::Good => 1,
            Outcome::NoPath => 2,
            Outcome::Aborted { reset: false } => 3,
            Outcome::Aborted { reset: true } => 4,
            Outcome::Stopped => 5,
            _ => 6,
        };
        copy::copy_out(&r.reply, 0, &[word]);
        1
    }

    fn role(&self, ring: u16) -> RingRole {
        if let Ok(thread) = std::fs::read_link("/proc/thread-self") {
            self.0.threads.lock().unwrap().push(thread);
        }
        match ring {
            CONTROL => RingRole::Control,
            EVENTS => RingRole::Events,
            _ => RingRole::Requests,
        }
    }

    fn denied(&mut self) -> Option<Denied> {
        self.1.take()
    }

    fn managed(&mut self, r: &mut Request, _: &Management, found: bool) -> u32 {
        copy::copy_out(&r.reply, 0, &[if found { 20 } else { 21 }]);
        1
    }

    fn wants_event(&self, _: &DeviceEvent) -> bool {
        self.0.wants_events.load(Ordering::Relaxed)
    }

    fn event(&mut self, writable: &[Segment], event: &DeviceEvent, missed: bool) -> Option<u32> {
        if crate::io::total_len(writable) < 4 {
            return None;
        }
        let lun = u8::try_from(event.lun).unwrap();
        copy::copy_out(writable, 0, &[30, lun, u8::from(missed)]);
        Some(3)
    }
}

/// One ring as its driver has it.
struct Side {
    driver: Driver,
    kick: EventFd,
    call: EventFd,
    /// The slot and task of each chain that is out.
    out: HashMap<u16, (u64, u32)>,
    free: Vec<u64>,
}

pub(super) struct Rig {
    pub(super) queues: Queues,
    pub(super) inlet: Inlet,
    pub(super) shared: Arc<Shared>,
    memory: Arc<Memory>,
    sides: Vec<Side>,
    inflight: Option<InflightArea>,
    next_task: u32,
}

impl Rig {
    /// Two queue threads with all rings running: 0 and 2 on one, 1 and 3 on
    /// the other.
    pub(super) fn new() -> Rig {
        Rig::with(256, false)
    }

    pub(super) fn with(max_requests: usize, tracked: bool) -> Rig {
        Rig::of(DeviceSettings { rings: RINGS, max_requests, tell_resets: false }, tracked)
    }

    /// Resets of LUs are told to whoever reads the inlet.
    pub(super) fn telling_resets() -> Rig {
        Rig::of(DeviceSettings { rings: RINGS, max_requests: 256, tell_resets: true }, false)
    }

    fn of(settings: DeviceSettings, tracked: bool) -> Rig {
        let shared = Arc::new(Shared::default());
        let front = || TestFront(Arc::clone(&shared), None);
        let (queues, inlet) = Queues::start(2, settings, front).unwrap();
        shared.threads.lock().unwrap().clear();
        let memory = Arc::new(Memory::anonymous(1, &[(0, STRIDE * RINGS as u64)]).unwrap());
        let side = |index: usize| {
            let base = STRIDE * index as u64;
            let driver = Driver::new(Arc::clone(&memory), base, SIZE, true);
            let (kick, call) = (EventFd::new().unwrap(), EventFd::new().unwrap());
            let slots = (STRIDE - BUFFERS) / SLOT;
            let free = (0..slots).map(|i| base + BUFFERS + i * SLOT).rev().collect();
            Side { driver, kick, call, out: HashMap::new(), free }
        };
        let sides = (0..RINGS).map(side).collect();
        let inflight = tracked.then(|| {
            let rings = u16::try_from(RINGS).unwrap();
            let file = create(rings, SIZE).unwrap();
            InflightArea::attach(file, area_size(rings, SIZE), 0, rings, SIZE).unwrap()
        });
        let mut rig = Rig { queues, inlet, shared, memory, sides, inflight, next_task: 1 };
        for ring in 0..RINGS {
            rig.start(u16::try_from(ring).unwrap());
        }
        rig
    }

    /// Starts a ring where the driver's used index is.
    pub(super) fn start(&mut self, index: u16) {
        let side = &self.sides[usize::from(index)];
        let mut config = side.driver.config();
        config.next_avail = side.driver.used_idx();
        let ring = Ring::new(Arc::clone(&self.memory), config).unwrap();
        let inflight = self.inflight.as_ref().map(|a| a.queue(index, SIZE).unwrap());
        let fd = |event: &EventFd| -> OwnedFd { event.as_fd().try_clone_to_owned().unwrap() };
        let (kick, call) = (fd(&side.kick), Some(fd(&side.call)));
        let parts = VirtQueueParts { index, ring, inflight, kick, call, err: None };
        self.queues.start_ring(Box::new(VirtQueue::new(parts).unwrap()));
    }

    pub(super) fn stop(
        &mut self,
        index: u16,
        how: Stop,
        deadline: Duration,
    ) -> Result<Box<VirtQueue>, StillInKernel> {
        self.queues.stop_ring(index, how, deadline).recv_timeout(PATIENCE).expect("an answer")
    }

    /// Stops every ring and ends the threads.
    pub(super) fn end(mut self) {
        for ring in 0..RINGS {
            self.stop(u16::try_from(ring).unwrap(), Stop::Discard, PATIENCE).expect("the ring");
        }
        self.queues.quit();
    }

    // --- maps -------------------------------------------------------------------

    pub(super) fn add_map(&self, map: u16, queueing: Queueing) {
        let limits = Limits {
            max_transfer: crate::io::Blocks(2048),
            max_segments: 128,
            max_unmap: crate::io::Blocks(0),
            max_unmap_descriptors: 0,
            unmap_granularity: crate::io::Blocks(1),
            unmap_alignment: crate::io::Lba(0),
            max_write_same: crate::io::Blocks(0),
            fua: true,
        };
        let settings = Settings {
            limits,
            block_size: BLOCK,
            command_timeout: TIMEOUT,
            suspect_after: Duration::from_secs(60),
            max_requests: 1,
            rings: 1,
        };
        self.queues.add_map(MapSlot(map), settings, &table(1, &[], queueing), None);
    }

    /// A map with one path, in use.
    pub(super) fn add_map_on(&self, map: u16, path: &Arc<PathHandle>) {
        self.add_map(map, Queueing::Hold);
        self.attach(map, path);
    }

    pub(super) fn attach(&self, map: u16, path: &Arc<PathHandle>) {
        self.queues.attach(MapSlot(map), path_id(0), path);
        self.queues.publish(MapSlot(map), &table(2, &[0], Queueing::Hold));
        until("the table is acknowledged", || self.queues.acknowledged(MapSlot(map)) == 2);
    }

    /// The next message that is no report.
    pub(super) fn hear(&self) -> FromQueue {
        let mut heard = None;
        until("word from a queue thread", || {
            while let Some(message) = self.inlet.next() {
                if !matches!(message, FromQueue::Report(..)) {
                    heard = Some(message);
                    return true;
                }
            }
            false
        });
        heard.unwrap()
    }

    // --- the driver ---------------------------------------------------------------

    fn write(&self, at: u64, bytes: &[u8]) {
        let addr = self.memory.host_addr(at, bytes.len() as u64).unwrap();
        copy::copy_out(&[Segment { addr, len: bytes.len() }], 0, bytes);
    }

    fn read_at(&self, at: u64) -> [u8; 4] {
        let addr = self.memory.host_addr(at, 4).unwrap();
        copy::read_array(&[Segment { addr, len: 4 }], 0).unwrap()
    }

    /// Makes a chain available, unkicked; returns its task number.
    pub(super) fn put(&mut self, ring: u16, ask: Ask, map: u16, of: u32) -> u32 {
        let task = if of == 0 { self.next_task } else { of };
        self.next_task += 1;
        let slot = self.sides[usize::from(ring)].free.pop().expect("a slot");
        let mut header = [0; 16];
        header[0] = ask as u8;
        header[1] = u8::try_from(map / 4 % 256).unwrap();
        header[2..4].copy_from_slice(&map.to_le_bytes());
        header[4..8].copy_from_slice(&task.to_le_bytes());
        self.write(slot, &header);
        self.write(slot + 16, &[0; 8]);
        let side = &mut self.sides[usize::from(ring)];
        let head = side.driver.add(&[(slot, 16)], &[(slot + 16, 8), (slot + 0x200, BLOCK)]);
        side.out.insert(head.expect("descriptors"), (slot, task));
        task
    }

    /// Makes a chain for an event available, of so many bytes.
    pub(super) fn put_empty(&mut self, len: u32) {
        let side = &mut self.sides[usize::from(EVENTS)];
        let slot = side.free.pop().expect("a slot");
        let head = side.driver.add(&[], &[(slot + 16, len)]).expect("descriptors");
        side.out.insert(head, (slot, 0));
        self.write(slot + 16, &[0; 4]);
    }

    pub(super) fn kick(&self, ring: u16) {
        self.sides[usize::from(ring)].kick.signal();
    }

    /// Sends one request.
    pub(super) fn send(&mut self, ring: u16, ask: Ask, map: u16) -> u32 {
        let task = self.put(ring, ask, map, 0);
        self.kick(ring);
        task
    }

    /// Sends a function about a task.
    pub(super) fn send_about(&mut self, ask: Ask, map: u16, task: u32) {
        self.put(CONTROL, ask, map, task);
        self.kick(CONTROL);
    }

    /// What has come back by a ring, in order.
    pub(super) fn back(&mut self, ring: u16) -> Vec<(u32, Answer)> {
        let mut back = Vec::new();
        while let Some((head, used_len)) = self.sides[usize::from(ring)].driver.used() {
            let side = &mut self.sides[usize::from(ring)];
            let (slot, task) = side.out.remove(&head).expect("a chain that is out");
            side.free.push(slot);
            let [word, lun, missed, _] = self.read_at(slot + 16);
            let answer = match word {
                _ if used_len == 0 => Answer::Nothing,
                1 => Answer::Good,
                2 => Answer::NoPath,
                3 => Answer::Aborted,
                4 => Answer::Reset,
                5 => Answer::Stopped,
                7 => Answer::Refused,
                20 => Answer::Found,
                21 => Answer::NotFound,
                30 => Answer::Event { lun, missed: missed != 0 },
                _ => Answer::Other,
            };
            back.push((task, answer));
        }
        back
    }

    /// Waits until so many have come back by a ring.
    pub(super) fn wait(&mut self, ring: u16, count: usize) -> Vec<(u32, Answer)> {
        let mut back = Vec::new();
        let begun = Instant::now();
        while back.len() < count {
            back.extend(self.back(ring));
            let got = back.len();
            assert!(begun.elapsed() < PATIENCE, "ring {ring}: {got} of {count} came back");
            std::thread::sleep(Duration::from_micros(200));
        }
        back
    }

    /// Only the answers.
    pub(super) fn answers(&mut self, ring: u16, count: usize) -> Vec<Answer> {
        self.wait(ring, count).into_iter().map(|(_, answer)| answer).collect()
    }

    pub(super) fn out(&self, ring: u16) -> usize {
        self.sides[usize::from(ring)].out.len()
    }
}

pub(super) fn path_id(slot: u8) -> PathId {
    PathId { slot, generation: 0 }
}

pub(super) fn table(generation: u64, paths: &[u8], queueing: Queueing) -> Arc<PathTable> {
    let view =
        |&slot: &u8| PathView { id: path_id(slot), epoch: 1, proven: 1, priority: 1, repeat: 1 };
    let groups = match paths {
        [] => Vec::new(),
        paths => vec![GroupView { number: 1, paths: paths.iter().map(view).collect() }],
    };
    Arc::new(PathTable {
        generation,
        groups,
        queueing,
        selector: SelectorKind::ServiceTime,
        suspended: false,
        registered: false,
        hold_for: None,
    })
}

/// Opens a path: `null:1G`, `sim:FILE,size=1M`.
pub(super) fn open(text: &str) -> Arc<PathHandle> {
    let spec: PathSpec = text.parse().expect("a path");
    open_path(&spec, &Options::default()).expect("opens")
}

pub(super) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The image of a simulated LU.
pub(super) struct Image(vmm_sys_util::tempdir::TempDir);

impl Image {
    pub(super) fn new() -> Image {
        Image(vmm_sys_util::tempdir::TempDir::new().expect("temporary directory"))
    }

    /// A path to it.
    pub(super) fn path(&self) -> String {
        format!("sim:{},size=1M", self.0.as_path().join("disk.img").display())
    }
}
