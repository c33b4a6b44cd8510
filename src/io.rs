//! The contract between device front, multipath request core and transport.
//!
//! A [`Request`] is what a guest asked for; it belongs to exactly one owner at
//! a time (law 1 of `docs/architecture.md`). The request core cuts it into
//! *parts* that fit the map's [`Limits`], and hands each part to a transport
//! as a [`Command`] for one path. The transport answers every command it
//! accepted with exactly one [`Completion`].
//!
//! This module holds types only: no I/O, no clock, no policy. What a
//! completion *means* is `mpath::classify`; where a retry goes is
//! `queue::dispatch`.

use std::ops::{Add, Sub};
use std::time::Duration;

pub use crate::scsi::block::{Blocks, Direction, Extent, Lba, Op};
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::Sense;
use crate::scsi::status::{HostByte, Status};

/// A moment on a monotonic clock, in nanoseconds since an arbitrary start.
///
/// Pure modules take it as a parameter; only reactors read the real clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Time elapsed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, rhs: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, rhs: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A piece of host memory that carries data: guest memory, or a buffer of ours.
///
/// Same layout as `struct iovec`, so a `&[Segment]` can be given to the kernel.
/// It is a plain address pair, not a reference: whoever holds a segment also
/// holds the memory generation (or buffer) it points into, and only `guest/`
/// and the transports ever dereference it (law 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Host virtual address.
    pub addr: usize,
    /// Length in bytes.
    pub len: usize,
}

/// Total bytes of a segment list.
pub fn total_len(segments: &[Segment]) -> usize {
    segments.iter().map(|s| s.len).sum()
}

/// Names one guest request: the ring it came from and its head descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag {
    /// Queue index within the device.
    pub ring: u16,
    /// Head descriptor index of the chain.
    pub head: u16,
}

/// Which map of a device: every LU shown to the guest is one. A disk served as
/// vhost-user-blk has the map 0 only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MapSlot(pub u16);

/// Most maps of one device.
pub const MAX_MAPS: usize = 1024;

/// One guest request, owned by exactly one place at a time.
///
/// Requests are boxed and pooled: the vectors keep their capacity, so a warm
/// pool makes no allocation per I/O. A request must reach [`Outcome`] exactly
/// once, or be abandoned by an explicit ring stop.
#[derive(Debug, Default)]
pub struct Request {
    /// Which chain this is.
    pub tag: Tag,
    /// Which LU it is for.
    pub map: MapSlot,
    /// virtio-scsi target that LU was addressed by; 0 for blk.
    pub target: u8,
    /// The initiator's name for it, which task management uses
    /// (virtio 1.3 5.6.6.1 `id`); 0 for blk.
    pub task: u64,
    /// What to do; `None` only while it sits in the pool.
    pub op: Option<Op>,
    /// An earlier owner of the ring had taken it: it may have been executed
    /// already, so that only what is idempotent may be issued (law 3).
    pub replayed: bool,
    /// An order: no path carries it, the map's engine does, by all paths as it
    /// sees fit (law 5). Its parameter list lies in `front.buffer`.
    pub ordered: bool,
    /// For the front alone, between `parse` and `finish`.
    pub front: FrontState,
    /// Data segments in order.
    pub data: Vec<Segment>,
    /// Extents of an [`Op::Unmap`].
    pub extents: Vec<Extent>,
    /// Device-writable segments that receive the front's answer (for blk the
    /// status byte; for scsi the response header).
    pub reply: Vec<Segment>,
    /// An [`Op::WriteZeroes`] must be durable before it completes (write-through).
    pub durable: bool,
    /// Bytes of data-in the front reports in the used element on success.
    pub data_in_len: u32,
    /// Memory generation the segments point into (see `guest::memory`).
    pub memory_generation: u32,
    /// When it was popped from the ring.
    pub arrived: Time,
}

impl Request {
    /// Empties the request for reuse, keeping the capacity of its vectors.
    pub fn reset(&mut self) {
        self.tag = Tag::default();
        self.map = MapSlot::default();
        self.target = 0;
        self.task = 0;
        self.op = None;
        self.replayed = false;
        self.ordered = false;
        self.front.reset();
        self.data.clear();
        self.extents.clear();
        self.reply.clear();
        self.durable = false;
        self.data_in_len = 0;
        self.memory_generation = 0;
    }
}

/// What a front keeps with a request: an answer of the LU that it wants to see
/// before the guest does lies in `buffer`, whose segment is the request's data,
/// and goes to `guest` in `finish`.
#[derive(Debug, Default)]
pub struct FrontState {
    /// The front's own number for what is to be done in `finish`.
    pub word: u32,
    /// Where the guest wants its data.
    pub guest: Vec<Segment>,
    /// Data in our memory; its heap address does not change while the request
    /// is out. The answer to a REQUEST SENSE must come here: the request core
    /// looks for unit attentions in it. Of an order, its parameter list.
    pub buffer: Vec<u8>,
}

impl FrontState {
    /// Bytes of `buffer` that a pooled request keeps: rarely is more needed.
    const KEPT: usize = 16 << 10;

    fn reset(&mut self) {
        self.word = 0;
        self.guest.clear();
        self.buffer.clear();
        if self.buffer.capacity() > FrontState::KEPT {
            self.buffer = Vec::new();
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Good,
    /// The LU's own answer, to be passed on exactly (law 4).
    Lu {
        /// SCSI status.
        status: Status,
        /// Sense data, possibly empty.
        sense: Sense,
        /// Bytes not transferred; says something for an [`Op::Cdb`] only,
        /// where even a GOOD status may come with it.
        residual: u32,
    },
    /// No path could carry it and the queueing policy has ended.
    NoPath,
    /// As `NoPath`, where every path that took it lost it by a timeout. It may
    /// have been executed.
    TimedOut,
    /// Our own refusal or a host error that is no path's fault; the errno.
    Host(i32),
    /// Ended by a ring stop before any path took it.
    Stopped,
    /// Ended by task management. It may have been executed.
    Aborted {
        /// By a reset of the LU or the target, not by an abort of the task.
        reset: bool,
    },
}

/// One command for one path.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// What to do.
    pub op: Op,
    /// Data segments; their total length equals the extent's bytes. Of an
    /// [`Op::Cdb`] any length, zero as well, whatever the CDB announces.
    pub data: &'a [Segment],
    /// Extents of an [`Op::Unmap`], within the map's limits.
    pub extents: &'a [Extent],
    /// Must go by SCSI passthrough even where a faster transport exists, so
    /// that a failure comes with its sense.
    pub passthrough: bool,
    /// The kernel gives up on it after this long.
    pub timeout: Duration,
}

/// Who produced an errno: the same number means different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrnoFrom {
    /// `ioctl(SG_IO)` itself failed; the command may not have been issued.
    Ioctl,
    /// The block layer's translation of a SCSI result (`blk_status_t`).
    Block,
    /// A regular file.
    File,
}

/// How a command ended on its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Everything transferred, status GOOD.
    Good,
    /// The transport moved only this many bytes and reported no error.
    Short(usize),
    /// SCSI passthrough came back with anything but a clean GOOD.
    Scsi {
        /// SAM status byte.
        status: Status,
        /// Host byte (`DID_*`): what the kernel or HBA says of the transport.
        host: HostByte,
        /// Sense, possibly empty.
        sense: Sense,
        /// Bytes not transferred.
        residual: u32,
    },
    /// The kernel failed the I/O with an errno and nothing else.
    Errno {
        /// Which interface said so.
        from: ErrnoFrom,
        /// Positive errno.
        code: i32,
    },
}

/// What one command and one map may carry: the minimum over all paths
/// (law 4: an oversized command is never a path's verdict).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest data transfer of one command, in logical blocks. So many bytes
    /// are also the most that an [`Op::Cdb`] may move, parameter data included:
    /// the kernel's limit knows no difference.
    pub max_transfer: Blocks,
    /// Most data segments of one command.
    pub max_segments: usize,
    /// Most blocks of one UNMAP command; 0 where UNMAP is not offered.
    pub max_unmap: Blocks,
    /// Most block descriptors of one UNMAP command.
    pub max_unmap_descriptors: usize,
    /// UNMAP granularity in blocks (1 = none stated).
    pub unmap_granularity: Blocks,
    /// First LBA that starts a granule.
    pub unmap_alignment: Lba,
    /// Most blocks of one WRITE SAME; 0 = not offered, write zeroes instead.
    pub max_write_same: Blocks,
    /// The LU honours FUA in WRITE; otherwise a write-through write is
    /// followed by a flush.
    pub fua: bool,
}

/// What a path is a path *to*: must be equal on all paths of a map (law 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// WWID as multipath-tools prints it, or an equivalent unique string.
    pub wwid: String,
    /// Capacity in logical blocks.
    pub capacity: Blocks,
    /// Logical block size in bytes: 512 or 4096 in practice.
    pub block_size: u32,
}

/// What the LU offers, learned once per map and shown to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// log2 of logical blocks per physical block.
    pub physical_block_exp: u8,
    /// First LBA aligned to a physical block.
    pub alignment_offset: u16,
    /// Optimal transfer granularity in logical blocks (0 = unknown).
    pub min_io: u16,
    /// Optimal transfer length in logical blocks (0 = unknown).
    pub opt_io: u32,
    /// UNMAP works (LBPME with LBPU), or hole punching for a file.
    pub unmap: bool,
    /// Unmapped blocks read as zeroes (LBPRZ).
    pub unmap_reads_zero: bool,
    /// Write protected.
    pub read_only: bool,
    /// VPD 0x80 unit serial number, trimmed; may be empty.
    pub serial: String,
    /// INQUIRY vendor, trimmed.
    pub vendor: String,
    /// INQUIRY product, trimmed.
    pub product: String,
    /// INQUIRY revision, trimmed.
    pub revision: String,
}

/// What a front made of a descriptor chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The request is complete and valid: hand it to the request core.
    Submit,
    /// Answered already (GET_ID, a malformed or refused request); the chain
    /// goes back with this many bytes written.
    Answered {
        /// For the used element.
        used_len: u32,
    },
    /// A task management function: the queue threads carry it out on the
    /// tasks of every ring, then [`Front::managed`] answers.
    Manage(Management),
}

/// A task management function (SAM-5 7), as far as it concerns tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Management {
    /// What becomes of the tasks it reaches.
    pub action: Action,
    /// Which tasks it reaches.
    pub reach: Reach,
}

/// See [`Management`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// They end with [`Outcome::Aborted`]: at once where no path has them,
    /// else when the path returns them.
    End {
        /// See [`Outcome::Aborted`].
        reset: bool,
    },
    /// They are looked for, and left alone.
    Query,
}

/// See [`Management`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One task.
    Task {
        /// Of this LU.
        map: MapSlot,
        /// With this name.
        task: u64,
    },
    /// All tasks of an LU.
    Unit(MapSlot),
    /// All tasks of all LUs of a target.
    Target(u8),
}

impl Reach {
    /// Whether a request is among those reached.
    pub fn contains(&self, request: &Request) -> bool {
        match *self {
            Reach::Task { map, task } => request.map == map && request.task == task,
            Reach::Unit(map) => request.map == map,
            Reach::Target(target) => request.target == target,
        }
    }
}

/// What a ring of a device is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingRole {
    /// Requests come by it.
    Requests,
    /// Task management comes by it. It is taken from even when no more
    /// requests fit.
    Control,
    /// The device tells the driver something by it: a chain is taken only
    /// when there is something to tell.
    Events,
}

/// A guest's command that the export's policy refused, for the event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// For which LU.
    pub map: MapSlot,
    /// What it was.
    pub cdb: Cdb,
    /// The policy's word for it.
    pub group: &'static str,
}

/// Something a device tells its driver unasked (virtio 1.3 5.6.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceEvent {
    /// Which LU, by the address the guest knows.
    pub target: u8,
    /// See `target`.
    pub lun: u16,
    /// What happened.
    pub what: Happened,
}

/// See [`DeviceEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The LU has come.
    Added,
    /// The LU has gone.
    Removed,
    /// Its parameters have changed; additional sense code and qualifier as in
    /// a unit attention.
    Changed {
        /// Additional sense code.
        asc: u8,
        /// Additional sense code qualifier.
        ascq: u8,
    },
}

/// A virtio device's request format: chain to [`Request`], [`Outcome`] to answer.
///
/// One instance per queue thread; no method blocks, allocates in the good path
/// or calls back into the queue thread. Segments point into guest memory that
/// the caller keeps mapped for the duration of the call, and until `finish`
/// for what was stored in the request.
pub trait Front: Send {
    /// Reads the chain (device-readable and device-writable segments in
    /// descriptor order) and fills `request`, which arrives reset except for
    /// `tag`, `arrived` and `memory_generation`.
    fn parse(
        &mut self,
        readable: &[Segment],
        writable: &[Segment],
        request: &mut Request,
    ) -> Parsed;

    /// Writes the answer for a submitted request; returns the byte count of
    /// the used element.
    fn finish(&mut self, request: &mut Request, outcome: &Outcome) -> u32;

    /// What ring `ring` is for.
    fn role(&self, ring: u16) -> RingRole {
        let _ = ring;
        RingRole::Requests
    }

    /// Writes the answer of a task management function: all tasks it reached
    /// are back with the driver. `found`: it reached any.
    fn managed(&mut self, request: &mut Request, management: &Management, found: bool) -> u32 {
        let _ = (request, management, found);
        0
    }

    /// A command refused since the last call, if the front keeps such a thing;
    /// asked after every request that was answered at once.
    fn denied(&mut self) -> Option<Denied> {
        None
    }

    /// Whether the driver wants to hear of this at all (it took the feature).
    /// What it does not want is dropped, and is not missed.
    fn wants_event(&self, event: &DeviceEvent) -> bool {
        let _ = event;
        false
    }

    /// Writes an event into a chain of an events ring; `missed`: others before
    /// it were lost for want of chains. Returns the byte count of the used
    /// element, or `None` where the chain cannot hold it.
    fn event(&mut self, writable: &[Segment], event: &DeviceEvent, missed: bool) -> Option<u32> {
        let _ = (writable, event, missed);
        None
    }
}
