//! Transports: how a command gets to a path, and what comes back.
//!
//! A [`PathHandle`] is one open path, shared by all threads; a [`PathPort`] is
//! one queue thread's way into it. The transports differ in what they can
//! carry and how they wait (table in `docs/architecture.md`): SG_IO with
//! helper threads for any CDB with full sense; io_uring on bsg nodes for the
//! same without threads, where the kernel has it; io_uring reads and writes on
//! block nodes and files, zero copy, errno only; the simulated array; the null
//! path. Not here: finding, opening and claiming devices (`host`), retries and
//! path choice (`queue`), what an error means (`mpath::classify`).
//!
//! `unsafe` appears where commands are submitted: segments are addresses into
//! guest memory, which no safe type may describe (law 7). Every such use rests
//! on the contract of [`Segment`](crate::io::Segment): whoever made it keeps
//! the memory mapped until the command's completion is delivered.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::io::{Completion, ErrnoFrom, Extent, Geometry, Identity, Limits};
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::Sense;
use crate::sim::{Fault, NotInjected, Stats};
use crate::sys::scsi_generic::{Interface, SG_FILE_QUEUE};

mod about;
mod blk_uring;
mod bsg_uring;
mod coalesce;
mod data;
mod doubts;
mod file;
mod inbox;
mod null;
mod pool;
mod port;
mod proof;
mod sg_io;
mod sim;
mod wire;

#[cfg(test)]
mod tests;

pub use about::{About, Fabric};
pub use bsg_uring::probe as probe_bsg;
pub use coalesce::Coalescer;
pub use data::Data;
pub use file::{DiskNode, Nature, WwidSource};
pub use inbox::Inbox;
pub use port::{Issued, PathPort, Rejected};
pub use proof::{ProofError, in_words, unit_attention};
pub use sg_io::ScsiNode;
pub use sim::{FileMedium, Keeper, SimFacts, SimImage, SimNexus};

use blk_uring::{Direct, Slots};
use bsg_uring::BsgSlots;
use data::Buffer;
use doubts::Doubts;
use file::DiskWork;
use pool::Pool;
use port::InRing;
use sg_io::ScsiWork;

/// Helper threads of a SCSI path unless said otherwise.
pub const HELPERS: usize = 16;
/// Helper threads of a bsg path: what the ring cannot carry only.
const BSG_HELPERS: usize = 4;
/// Helper threads of a file: flush, punch and zero only.
const FILE_HELPERS: usize = 4;
/// Commands of an sg node's open file kept for checkers and proofs.
const SG_RESERVE: usize = 2;
/// Operation code.
const INQUIRY: u8 = 0x12;
/// Operation code.
const REQUEST_SENSE: u8 = 0x03;
/// Most commands of one path in one thread's ring.
const RING_DEPTH: usize = 256;

/// What kind of thing a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathKind {
    /// SCSI disk node (`/dev/sdX`).
    ScsiDisk,
    /// SCSI generic node (`/dev/sgN`).
    ScsiGeneric,
    /// Block SG node (`/dev/bsg/H:C:T:L`).
    ScsiBsg,
    /// Any other block node.
    Block,
    /// Regular file.
    File,
    /// Null path.
    Null,
    /// Path to the simulated array.
    Sim,
}

/// How a path's reads and writes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// SG_IO by helper threads.
    SgIo,
    /// Every SCSI command by io_uring on the bsg node.
    BsgUring,
    /// io_uring reads and writes; on SCSI disks everything else by SG_IO.
    BlkUring,
    /// io_uring on a file.
    File,
    /// Nowhere.
    Null,
    /// The simulated array.
    Sim,
}

impl Transport {
    /// As `--transport` and `status` spell it.
    pub fn name(self) -> &'static str {
        match self {
            Transport::SgIo => "sg-io",
            Transport::BsgUring => "bsg-uring",
            Transport::BlkUring => "blk-uring",
            Transport::File => "file",
            Transport::Null => "null",
            Transport::Sim => "sim",
        }
    }
}

/// What one SG_IO on a node may carry (law 4: more is our own mistake).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes (`max_hw_sectors_kb`).
    pub max_transfer_bytes: u64,
    /// Physical segments (`max_segments`).
    pub max_segments: usize,
    /// Commands in flight that make sense (`nr_requests`, `queue_depth`).
    pub depth: usize,
}

/// An open file (or its like), ready to become a path.
#[derive(Debug)]
pub enum Opened {
    /// A SCSI node.
    Scsi(ScsiNode),
    /// A file, or a block node that is no SCSI disk.
    Disk(DiskNode),
    /// A null path of so many bytes.
    Null(u64),
    /// A path to a simulated LU.
    Sim(SimNexus),
}

enum Backend {
    Scsi { node: Arc<ScsiNode>, direct: Option<Direct>, pool: Pool<ScsiWork> },
    Disk { node: Arc<DiskNode>, direct: Direct, pool: Pool<DiskWork> },
    Null { bytes: u64 },
    Sim(SimNexus),
}

/// Why an open file did not become a path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// It did not prove what it is.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// No helper threads.
    #[error("cannot start helper threads: {0}")]
    Threads(#[source] io::Error),
}

/// One open path. Shared by all threads; its files are closed when the last
/// owner lets go, or when the last command has returned if that is later.
pub struct PathHandle {
    about: About,
    backend: Backend,
    identity: Identity,
    geometry: Geometry,
    limits: Limits,
    /// Whether the LU knows FUA; empty while a reservation keeps that from us.
    fua: OnceLock<bool>,
    read_only: bool,
    doubts: Arc<Doubts>,
    /// Whatever must live as long as the path (its name, its registration).
    _keep: Box<dyn Any + Send + Sync>,
}

impl PathHandle {
    /// Makes a path of an open file, after it has proved through that file
    /// what it is a path to (law 2). `keep` is dropped with the path.
    ///
    /// Unit attentions met on the way are dropped, and that is right: they
    /// tell of what happened before this nexus carried anything for a guest (a
    /// real disk has 29/00, POWER ON OR RESET, for every new nexus).
    ///
    /// Blocks for up to `timeout` per command.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn new(
        about: About,
        opened: Opened,
        helpers: usize,
        timeout: Duration,
        keep: Box<dyn Any + Send + Sync>,
    ) -> Result<Arc<PathHandle>, HandleError> {
        let mut mode_unread = false;
        let (identity, mut geometry, limits, backend, read_only) = match opened {
            Opened::Scsi(node) => {
                let ask = |cdb: &Cdb, data: &mut [u8]| node.execute(cdb, Buffer::In(data), timeout);
                let proof = proof::prove(&ask, &node.queue)?;
                mode_unread = proof.mode_unread;
                let read_only = node.read_only;
                let direct = node.direct.map(|alignment| Direct {
                    file: Arc::clone(&node.file),
                    alignment,
                    errno_from: ErrnoFrom::Block,
                });
                let helpers = if node.bsg_uring { helpers.min(BSG_HELPERS) } else { helpers };
                let pool = start(&about, helpers_for(about.kind, node.interface, helpers))?;
                let backend = Backend::Scsi { node: Arc::new(node), direct, pool };
                (proof.identity, proof.geometry, proof.limits, backend, read_only)
            }
            Opened::Disk(node) => {
                let identity = node.identify().map_err(ProofError::Other)?;
                let (geometry, limits) = (node.geometry.clone(), node.limits());
                let direct = Direct {
                    file: Arc::clone(&node.file),
                    alignment: node.alignment,
                    errno_from: node.errno_from(),
                };
                let pool = start(&about, FILE_HELPERS)?;
                let read_only = geometry.read_only;
                let backend = Backend::Disk { node: Arc::new(node), direct, pool };
                (identity, geometry, limits, backend, read_only)
            }
            Opened::Null(bytes) => {
                let backend = Backend::Null { bytes };
                (null::identity(bytes), null::geometry(), null::limits(), backend, false)
            }
            Opened::Sim(nexus) => {
                let ask =
                    |cdb: &Cdb, data: &mut [u8]| nexus.execute(cdb, Buffer::In(data), timeout);
                let unbounded =
                    QueueLimits { max_transfer_bytes: 4 << 20, max_segments: 1024, depth: 128 };
                let proof = proof::prove(&ask, &unbounded)?;
                mode_unread = proof.mode_unread;
                let backend = Backend::Sim(nexus);
                (proof.identity, proof.geometry, proof.limits, backend, false)
            }
        };
        geometry.read_only |= read_only;
        let doubts = Arc::default();
        let fua = OnceLock::new();
        if !mode_unread {
            let _ = fua.set(limits.fua); // it is empty
        }
        let path = PathHandle {
            about,
            backend,
            identity,
            geometry,
            limits,
            fua,
            read_only,
            doubts,
            _keep: keep,
        };
        Ok(Arc::new(path))
    }

    /// Short name.
    pub fn name(&self) -> &str {
        &self.about.name
    }

    /// As the administrator gave it.
    pub fn spec(&self) -> &str {
        &self.about.spec
    }

    /// Kind.
    pub fn kind(&self) -> PathKind {
        self.about.kind
    }

    /// `H:C:T:L` of a SCSI device.
    pub fn hctl(&self) -> Option<&str> {
        self.about.hctl.as_deref()
    }

    /// `MAJOR:MINOR` of a device node.
    pub fn dev_t(&self) -> Option<&str> {
        self.about.dev_t.as_deref()
    }

    /// Kernel name of the disk, `sdb`; `None` where there is no block node.
    pub fn devname(&self) -> Option<&str> {
        self.about.devname.as_deref()
    }

    /// The ports it goes through, as far as the host knows them.
    pub fn fabric(&self) -> &Fabric {
        &self.about.fabric
    }

    /// Transport of reads and writes.
    pub fn transport(&self) -> Transport {
        self.about.transport
    }

    /// Why this transport.
    pub fn transport_reason(&self) -> &str {
        &self.about.reason
    }

    /// What it proved to be a path to when it was opened.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the LU offers.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What one command may carry on this path.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether it was opened read-only.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether [`execute`](PathHandle::execute) works.
    pub fn is_scsi(&self) -> bool {
        matches!(self.backend, Backend::Scsi { .. } | Backend::Sim(_))
    }

    /// Sends one CDB with its data, and waits: checkers, prioritizers,
    /// hardware handlers. Any thread but a queue thread. ENOTTY where the path
    /// speaks no SCSI. A unit attention among the answers is the guest's too:
    /// see [`unit_attention`].
    pub fn execute(&self, cdb: &Cdb, data: Data<'_>, timeout: Duration) -> Completion {
        match data {
            Data::None => self.exchange(cdb, Buffer::NONE, timeout),
            Data::Out(bytes) => self.exchange(cdb, Buffer::Out(bytes), timeout),
            Data::In(bytes) => {
                let completion = self.exchange(cdb, Buffer::In(bytes), timeout);
                bytes.truncate(data::arrived(&completion, bytes.len()));
                completion
            }
        }
    }

    /// Something has questioned where the path leads, and no proof has settled
    /// it since: every command of a guest ends with ESTALE ([`PathPort`]), and so is a
    /// command of ours to end that would change what it meets.
    pub fn is_in_doubt(&self) -> bool {
        self.doubts.is_open()
    }

    fn exchange(&self, cdb: &Cdb, data: Buffer<'_>, timeout: Duration) -> Completion {
        let completion = match &self.backend {
            Backend::Scsi { node, .. } => node.execute(cdb, data, timeout),
            Backend::Sim(nexus) => nexus.execute(cdb, data, timeout),
            Backend::Disk { .. } | Backend::Null { .. } => {
                Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENOTTY }
            }
        };
        self.doubts.look_at(&completion);
        completion
    }

    /// Bytes that the kernel says the open file or block node has, without a
    /// command to the device; `None` where it has no such word (sg, bsg without
    /// a disk, simulated). For sdX it is what sd read last, not what the LU
    /// has: a change says that sd has been told of another capacity, perhaps
    /// by the unit attention that we would have met.
    pub fn node_size(&self) -> Option<u64> {
        match &self.backend {
            Backend::Scsi { node, .. } => node.size(),
            Backend::Disk { node, .. } => node.size().ok(),
            Backend::Null { .. } | Backend::Sim(_) => None,
        }
    }

    /// Resets the logical unit (SAM-5 7.6), for *every* host that uses it, and
    /// waits until that is done. Any thread but a queue thread, and none that
    /// must not wait: `timeout` binds the simulated array only, on a SCSI node
    /// the host adapter takes the time it takes.
    ///
    /// # Errors
    /// ENOTTY where the path speaks no SCSI; else what the kernel says (EACCES
    /// without CAP_SYS_ADMIN and CAP_SYS_RAWIO, EIO where the adapter failed).
    pub fn reset_lu(&self, timeout: Duration) -> io::Result<()> {
        let _ = timeout;
        match &self.backend {
            Backend::Scsi { node, .. } => node.reset_lu(),
            Backend::Sim(nexus) => {
                nexus.reset_lu();
                Ok(())
            }
            Backend::Disk { .. } | Backend::Null { .. } => {
                Err(io::Error::from_raw_os_error(libc::ENOTTY))
            }
        }
    }

    /// Reads the first block and waits. `timeout` binds SCSI paths only: a
    /// direct read of a file or another block node returns when it returns.
    pub fn read_check(&self, timeout: Duration) -> Completion {
        match &self.backend {
            Backend::Null { .. } => Completion::Good,
            Backend::Disk { node, .. } => node.read_check(),
            Backend::Scsi { .. } | Backend::Sim(_) => match Cdb::read(Extent::new(0, 1)) {
                Ok(cdb) => {
                    let block = usize::try_from(self.identity.block_size).unwrap_or(4096);
                    self.exchange(&cdb, Buffer::In(&mut vec![0; block]), timeout)
                }
                Err(_) => Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::EINVAL },
            },
        }
    }

    /// Proves again, through the same open file, what it is a path to. The
    /// caller compares; blocks for up to `timeout` per command. Every unit
    /// attention met on the way goes to `heard`, before the command that met
    /// it is sent again: the LU tells it once. One thread at a time sends
    /// commands by this and [`execute`](PathHandle::execute).
    ///
    /// # Errors
    /// Why it could not, in words.
    pub fn identify(&self, timeout: Duration, heard: &dyn Fn(&Sense)) -> Result<Identity, String> {
        match &self.backend {
            Backend::Scsi { .. } | Backend::Sim(_) => {
                // What was met before the name was asked for: INQUIRY comes last.
                let met = Cell::new(0);
                let ask = |cdb: &Cdb, data: &mut [u8]| {
                    let completion = self.exchange(cdb, Buffer::In(data), timeout);
                    if cdb.opcode() != INQUIRY {
                        met.set(self.doubts.met());
                    }
                    if let Some(sense) = unit_attention(&completion) {
                        heard(sense);
                    }
                    completion
                };
                let found = proof::identify(&ask).map_err(|e| e.to_string())?;
                if found.wwid == self.identity.wwid {
                    self.doubts.settle(met.get());
                }
                Ok(found)
            }
            Backend::Disk { node, .. } => node.identify(),
            Backend::Null { bytes } => Ok(null::identity(*bytes)),
        }
    }

    /// Whether the LU knows FUA, where that is known: a reservation may have
    /// kept it from us when the path was opened.
    pub fn fua(&self) -> Option<bool> {
        self.fua.get().copied()
    }

    /// Reads whether the LU knows FUA, where that is not known yet; true if it
    /// is now. Blocks and hears as [`identify`](PathHandle::identify) does.
    pub fn learn_fua(&self, timeout: Duration, heard: &dyn Fn(&Sense)) -> bool {
        if self.fua.get().is_some() {
            return false;
        }
        let ask = |cdb: &Cdb, data: &mut [u8]| {
            let completion = self.exchange(cdb, Buffer::In(data), timeout);
            if let Some(sense) = unit_attention(&completion) {
                heard(sense);
            }
            completion
        };
        proof::fua(&ask).is_some_and(|fua| self.fua.set(fua).is_ok())
    }

    /// Somebody has heard, by a way of his own, that the LU may be another one
    /// now: no command is sent until [`identify`](PathHandle::identify) has
    /// found the same. Whoever says so has it proven.
    pub fn question(&self) {
        self.doubts.question();
    }

    /// Breaks or mends a simulated path; whether that was done, see
    /// [`PathHandle::try_inject`].
    pub fn inject(&self, fault: Fault) -> bool {
        matches!(self.try_inject(fault), Ok(true))
    }

    /// Breaks or mends a simulated path; `false` on any other.
    ///
    /// # Errors
    /// What cannot be: a capacity of broken blocks.
    pub fn try_inject(&self, fault: Fault) -> Result<bool, NotInjected> {
        match &self.backend {
            Backend::Sim(nexus) => nexus.inject(fault).map(|()| true),
            _ => Ok(false),
        }
    }

    /// The faults in force on a simulated path, in words, and its counts.
    pub fn faults(&self) -> Option<(String, Option<Stats>)> {
        match &self.backend {
            Backend::Sim(nexus) => Some(nexus.describe()),
            _ => None,
        }
    }

    /// What a host would say of a simulated path; `None` of any other.
    pub fn simulated_facts(&self) -> Option<SimFacts> {
        match &self.backend {
            Backend::Sim(nexus) => nexus.facts(),
            _ => None,
        }
    }

    /// Whether a queue thread needs a wide ring for its port
    /// ([`Uring::widen`](crate::sys::uring::Uring::widen)). Without one
    /// everything goes by helper threads.
    pub fn wants_wide_ring(&self) -> bool {
        matches!(&self.backend, Backend::Scsi { node, .. } if node.bsg_uring)
    }

    /// A queue thread's way into the path, one of `share` threads. Completions
    /// of helper threads come to `inbox`; data that must lie in one piece are
    /// put together in buffers of `coalescer`.
    ///
    /// The commands of all ports together keep within the helper threads; if
    /// there are more queue threads than helpers, helpers are added.
    pub fn port(
        self: &Arc<Self>,
        inbox: &Arc<Inbox>,
        coalescer: &Rc<Coalescer>,
        share: usize,
    ) -> PathPort {
        let share = share.max(1);
        let split = |threads: usize| (threads / share).max(1);
        let depth = |depth: usize| (depth.min(RING_DEPTH) / share).max(8);
        let (helpers, ring) = match &self.backend {
            Backend::Null { .. } | Backend::Sim(_) => (port::MEMORY_DEPTH, InRing::Nothing),
            Backend::Scsi { node, direct, pool } => {
                let depth = depth(node.queue.depth);
                let ring = match direct {
                    Some(_) => InRing::Transfers(Slots::new(depth)),
                    None if node.bsg_uring => self.bsg_slots(depth, node, coalescer),
                    None => InRing::Nothing,
                };
                (split(at_least(pool, share, self.name())), ring)
            }
            Backend::Disk { node, pool, .. } => {
                let ring = InRing::Transfers(Slots::new(depth(node.depth)));
                (split(at_least(pool, share, self.name())), ring)
            }
        };
        PathPort::new(Arc::clone(self), Arc::clone(inbox), helpers, ring)
    }

    fn bsg_slots(&self, depth: usize, node: &ScsiNode, coalescer: &Rc<Coalescer>) -> InRing {
        match BsgSlots::new(depth, node.queue.max_segments, coalescer) {
            Ok(slots) => InRing::Commands(slots),
            Err(e) => {
                log::warn!(
                    "{}: no memory for commands by io_uring, SG_IO instead: {e}",
                    self.name()
                );
                InRing::Nothing
            }
        }
    }
}

/// The number of helpers, after adding some if there are fewer than `share`.
/// Where none can be had, each port has one command at a time all the same: it
/// may have to wait for another thread's then, but is not refused for ever.
fn at_least<W: pool::Work>(pool: &Pool<W>, share: usize, path: &str) -> usize {
    pool.grow_to(share).unwrap_or_else(|e| {
        log::warn!(
            "{path}: cannot start a helper for every queue thread, so they wait for each other: {e}"
        );
        1
    })
}

fn start<W: pool::Work>(about: &About, threads: usize) -> Result<Pool<W>, HandleError> {
    Pool::new(&about.name, threads).map_err(HandleError::Threads)
}

/// The classic sg driver takes a limited number of commands per open file, and
/// checkers need some of them.
fn helpers_for(kind: PathKind, interface: Interface, wanted: usize) -> usize {
    let most = match (kind, interface) {
        (PathKind::ScsiGeneric, Interface::V3) => SG_FILE_QUEUE - SG_RESERVE,
        _ => 256,
    };
    wanted.clamp(1, most)
}

impl fmt::Debug for PathHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathHandle")
            .field("name", &self.about.name)
            .field("transport", &self.about.transport)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
