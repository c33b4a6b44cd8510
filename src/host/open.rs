//! Opening and claiming a path.
//!
//! Block nodes are opened O_DIRECT and O_EXCL always (laws 8 and 3); sg, bsg
//! nodes and files carry an OFD lock, and the sd sibling of an sg or bsg node
//! is held O_EXCL beside it. Identity is then proved through the open file
//! (law 2), in [`PathHandle::new`]. Blocks: at the
//! start the control thread, later threads of their own.

pub(super) mod bsg;
mod regular;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::io::Geometry;
use crate::passthrough_scsi::{
    About, DiskNode, Fabric, HELPERS, Nature, Opened, PathHandle, PathKind, QueueLimits, ScsiNode,
    Transport, WwidSource, probe_bsg,
};
use crate::sim::Plugged;
use crate::sys::file::{self, DirectAlignment, Mode};
use crate::sys::scsi_generic::Interface;
use crate::sys::{block, uring};

use super::error::OpenError;
use super::fabric;
use super::image;
use super::registry::NameLease;
use super::spec::{PathSpec, Target};
use super::sysfs::{BlockFacts, DevT, QueueFacts, ScsiFacts, Sysfs};
use super::users::{self, User};

/// What is assumed of a request queue that sysfs says nothing about: what any
/// HBA of the last twenty years takes.
const UNKNOWN_QUEUE: QueueLimits =
    QueueLimits { max_transfer_bytes: 128 * 1024, max_segments: 32, depth: 32 };

/// Which transport the administrator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportChoice {
    /// The fastest that keeps every promise.
    #[default]
    Auto,
    /// SG_IO.
    SgIo,
    /// io_uring on the bsg node, for every command.
    BsgUring,
    /// io_uring for reads and writes.
    BlkUring,
}

impl TransportChoice {
    fn name(self) -> &'static str {
        match self {
            TransportChoice::Auto => "auto",
            TransportChoice::SgIo => "sg-io",
            TransportChoice::BsgUring => "bsg-uring",
            TransportChoice::BlkUring => "blk-uring",
        }
    }
}

/// How to open a path.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Transport.
    pub transport: TransportChoice,
    /// Kernel timeout of each command that proves identity.
    pub command_timeout: Duration,
    /// Open for reading only.
    pub read_only: bool,
    /// Refuse what takes no SCSI commands.
    pub scsi_only: bool,
    /// Helper threads of a SCSI path: so many commands at once by SG_IO.
    pub helpers: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            transport: TransportChoice::Auto,
            command_timeout: Duration::from_secs(30),
            read_only: false,
            scsi_only: false,
            helpers: HELPERS,
        }
    }
}

/// Everything but the proof.
struct Found {
    kind: PathKind,
    place: Place,
    transport: Transport,
    reason: String,
    opened: Opened,
}

/// Where it is, for the host.
#[derive(Default)]
struct Place {
    devname: Option<String>,
    hctl: Option<String>,
    dev_t: Option<String>,
    fabric: Fabric,
}

impl Place {
    fn of(scsi: &ScsiFacts, dev: DevT) -> Place {
        Place {
            devname: scsi.sd.clone(),
            hctl: Some(scsi.hctl.clone()),
            dev_t: Some(dev.to_string()),
            fabric: fabric::read(&Sysfs::host(), &scsi.dir),
        }
    }
}

/// Opens and claims a path, and has it prove what it is a path to.
///
/// # Errors
/// [`OpenError`]: one variant per cause, with the next step in words.
pub fn open_path(spec: &PathSpec, options: &Options) -> Result<Arc<PathHandle>, OpenError> {
    if let (Target::Null(_), true) = (&spec.target, options.scsi_only) {
        return Err(no_scsi(Path::new(&spec.text), "a null path"));
    }
    let lease = match &spec.name {
        Some(name) => NameLease::exactly(name)?,
        None => default_name(&spec.target),
    };
    let found = match &spec.target {
        Target::Null(bytes) => Found {
            kind: PathKind::Null,
            transport: Transport::Null,
            reason: "drops writes and reads zeroes".to_owned(),
            opened: Opened::Null(*bytes),
            place: Place::default(),
        },
        Target::Sim(sim) => {
            let (port, group, access) = (sim.port, sim.group, sim.access);
            let at = Plugged { port, group, access, ..Plugged::default() };
            let array = image::open(sim, options.read_only)?;
            let failed = |source| io_error(&sim.image, "adding a simulated path", source);
            Found {
                kind: PathKind::Sim,
                place: Place::default(),
                transport: Transport::Sim,
                reason: "simulated array".to_owned(),
                opened: Opened::Sim(array.add_path_at(lease.as_str(), at).map_err(failed)?),
            }
        }
        Target::Node(path) => open_node(path, options)?,
    };
    let Found { kind, place, transport, reason, opened } = found;
    let Place { devname, hctl, dev_t, fabric } = place;
    let (name, spec_text) = (lease.as_str().to_owned(), spec.text.clone());
    let about =
        About { name, spec: spec_text, kind, devname, hctl, dev_t, transport, reason, fabric };
    PathHandle::new(about, opened, options.helpers, options.command_timeout, Box::new(lease))
        .map_err(|source| OpenError::Unproven { path: shown(&spec.target, &spec.text), source })
}

fn shown(target: &Target, text: &str) -> PathBuf {
    match target {
        Target::Node(path) => path.clone(),
        Target::Sim(sim) => sim.image.clone(),
        Target::Null(_) => PathBuf::from(text),
    }
}

fn default_name(target: &Target) -> NameLease {
    match target {
        Target::Null(_) => NameLease::numbered("null"),
        Target::Sim(_) => NameLease::numbered("sim"),
        Target::Node(path) => {
            // `/dev/disk/by-path/…` is shown as what it leads to.
            let resolved = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            let name = resolved.file_name().map(|name| name.to_string_lossy().into_owned());
            NameLease::like(&name.unwrap_or_else(|| "path".to_owned()))
        }
    }
}

fn open_node(path: &Path, options: &Options) -> Result<Found, OpenError> {
    let meta = fs::metadata(path).map_err(|e| refused(path, e, "looking at it"))?;
    let kind = meta.file_type();
    if kind.is_block_device() {
        open_block(path, &meta, options)
    } else if kind.is_char_device() {
        open_generic(path, &meta, options)
    } else if kind.is_file() {
        regular::open(path, options)
    } else {
        let what = if kind.is_dir() {
            "a directory"
        } else if kind.is_socket() {
            "a socket"
        } else {
            "a pipe or another special file"
        };
        Err(OpenError::WrongKind { path: path.to_owned(), what })
    }
}

fn no_scsi(path: &Path, what: &'static str) -> OpenError {
    OpenError::NoScsi { path: path.to_owned(), what }
}

fn io_error(path: &Path, doing: &'static str, source: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), doing, source }
}

/// An errno of open(2) or its like in our words.
pub(super) fn refused(path: &Path, source: io::Error, doing: &'static str) -> OpenError {
    let path = path.to_owned();
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => OpenError::NotFound { path },
        Some(libc::EACCES | libc::EPERM) => OpenError::Permission { path },
        Some(libc::EROFS) => OpenError::WriteProtected { path },
        Some(libc::ENXIO | libc::ENODEV | libc::ENOMEDIUM) => {
            OpenError::Offline { path, state: "unknown".to_owned() }
        }
        Some(libc::EBUSY) => OpenError::InUse { path, user: User::Unknown },
        _ => OpenError::Io { path, doing, source },
    }
}

/// Opens a block node exclusively; says who has it, or why not.
fn claim_block(
    path: &Path,
    dev: DevT,
    facts: Option<&BlockFacts>,
    read_only: bool,
) -> Result<File, OpenError> {
    let mode = Mode { read_only, direct: true, exclusive: true, nonblocking: false };
    let file = file::open(path, mode).map_err(|e| match (e.raw_os_error(), facts) {
        (Some(libc::EBUSY), Some(facts)) => {
            let user = users::find(&Sysfs::host(), facts, Path::new("/proc"));
            OpenError::InUse { path: path.to_owned(), user }
        }
        (Some(libc::ENXIO | libc::ENODEV), Some(BlockFacts { scsi: Some(scsi), .. })) => {
            let state = scsi.state.clone().unwrap_or_else(|| "unknown".to_owned());
            OpenError::Offline { path: path.to_owned(), state }
        }
        _ => refused(path, e, "opening"),
    })?;
    let failed = |source| io_error(path, "looking at the open device", source);
    let opened = file.metadata().map_err(failed)?;
    if DevT::from_raw(opened.rdev()) != dev {
        // The name changed hands between looking and opening.
        return Err(OpenError::NotFound { path: path.to_owned() });
    }
    if !read_only && block::read_only(file.as_fd()).map_err(failed)? {
        return Err(OpenError::WriteProtected { path: path.to_owned() });
    }
    Ok(file)
}

fn refuse_heads_and_partitions(path: &Path, facts: &BlockFacts) -> Result<(), OpenError> {
    if let Some((name, paths)) = facts.multipath_head() {
        let (path, paths) = (path.to_owned(), paths.join(" "));
        return Err(OpenError::MultipathHead { path, name, paths });
    }
    match (&facts.partition_of, &facts.scsi) {
        (Some(disk), Some(_)) => {
            let disk = format!("/dev/{disk}");
            Err(OpenError::Partition { path: path.to_owned(), disk })
        }
        _ => Ok(()),
    }
}

fn queue_limits(queue: &QueueFacts, scsi: Option<&ScsiFacts>) -> QueueLimits {
    let as_usize = |v: u64| usize::try_from(v).unwrap_or(usize::MAX);
    let depth = queue.nr_requests.map_or(UNKNOWN_QUEUE.depth, as_usize);
    let device = scsi.and_then(|s| s.queue_depth).map_or(usize::MAX, as_usize);
    QueueLimits {
        max_transfer_bytes: queue
            .max_hw_sectors_kb
            .map_or(UNKNOWN_QUEUE.max_transfer_bytes, |kb| kb.saturating_mul(1024)),
        max_segments: queue.max_segments.map_or(UNKNOWN_QUEUE.max_segments, as_usize).max(1),
        depth: depth.min(device).max(1),
    }
}

/// Which transport a SCSI disk gets, and why, where its bsg node takes commands
/// by io_uring or, in words, does not.
fn choose(
    path: &Path,
    options: &Options,
    bsg: Result<(), String>,
) -> Result<(Transport, String), OpenError> {
    let refuse =
        |transport, why| Err(OpenError::Transport { path: path.to_owned(), transport, why });
    let asked = |name| format!("asked for by --transport {name}");
    match (options.transport, bsg) {
        (TransportChoice::SgIo, _) => Ok((Transport::SgIo, asked("sg-io"))),
        (TransportChoice::BsgUring, Ok(())) => Ok((Transport::BsgUring, asked("bsg-uring"))),
        (TransportChoice::BsgUring, Err(why)) => refuse("bsg-uring", why),
        (TransportChoice::BlkUring, _) => match uring::available() {
            Ok(_) => Ok((Transport::BlkUring, asked("blk-uring"))),
            Err(why) => refuse("blk-uring", why),
        },
        (TransportChoice::Auto, Ok(())) => Ok((
            Transport::BsgUring,
            "every command by io_uring with its sense: the kernel can".to_owned(),
        )),
        // A guest's own commands are never carried as reads and writes.
        (TransportChoice::Auto, Err(why)) if options.scsi_only => {
            Ok((Transport::SgIo, format!("no bsg-uring: {why}")))
        }
        (TransportChoice::Auto, Err(why)) => match uring::available() {
            Ok(_) => Ok((
                Transport::BlkUring,
                format!(
                    "reads and writes by io_uring without copies; the rest, and retries, by SG_IO with sense (no bsg-uring: {why})"
                ),
            )),
            Err(why) => Ok((Transport::SgIo, why)),
        },
    }
}

fn open_block(path: &Path, meta: &Metadata, options: &Options) -> Result<Found, OpenError> {
    let dev = DevT::from_raw(meta.rdev());
    let facts = Sysfs::host().block(dev).and_then(|dir| BlockFacts::read(&dir));
    if let Some(facts) = &facts {
        refuse_heads_and_partitions(path, facts)?;
    }
    if options.scsi_only && facts.as_ref().is_none_or(|facts| facts.scsi.is_none()) {
        return Err(no_scsi(path, "a block device of another kind"));
    }
    let file = claim_block(path, dev, facts.as_ref(), options.read_only)?;
    let failed = |source| io_error(path, "asking for its block size", source);
    let block_size = block::logical_block_size(file.as_fd()).map_err(failed)?;
    if !block_size.is_power_of_two() || !(512..=4096).contains(&block_size) {
        return Err(OpenError::BlockSize { path: path.to_owned(), block_size });
    }
    let cautious = usize::try_from(block_size).unwrap_or(4096);
    let alignment = file::direct_alignment(file.as_fd())
        .unwrap_or(DirectAlignment { memory: cautious, offset: cautious });
    let queue = facts.as_ref().map(BlockFacts::queue).unwrap_or_default();
    if let Some(scsi) = facts.as_ref().and_then(|f| f.scsi.as_ref()) {
        // Locked where it is there at all, whatever carries the commands:
        // those of a process that was killed may still be out by it (law 3).
        let bsg = bsg::open(scsi, dev, options)?;
        let able = match (&bsg, options.transport) {
            (Err(why), _) => Err(why.clone()),
            (Ok(bsg), TransportChoice::Auto | TransportChoice::BsgUring) => {
                probe_bsg(bsg.as_fd(), options.command_timeout)
            }
            (Ok(_), _) => Ok(()),
        };
        let (transport, reason) = choose(path, options, able)?;
        let (sd, bsg) = (Arc::new(file), bsg.ok().map(Arc::new));
        let (file, claim, interface) = match (transport, bsg) {
            (Transport::BsgUring, Some(bsg)) => (bsg, Some(sd), Interface::V4),
            (_, bsg) => (sd, bsg, Interface::V3),
        };
        let node = ScsiNode {
            file,
            claim,
            interface,
            direct: (transport == Transport::BlkUring).then_some(alignment),
            bsg_uring: transport == Transport::BsgUring,
            queue: queue_limits(&queue, Some(scsi)),
            read_only: options.read_only,
        };
        let (kind, opened) = (PathKind::ScsiDisk, Opened::Scsi(node));
        return Ok(Found { kind, place: Place::of(scsi, dev), transport, reason, opened });
    }
    let reason = "not a SCSI disk: io_uring, errors without sense".to_owned();
    only_by_ring(path, options.transport, "it is not a SCSI disk")?;
    let size = block::size(file.as_fd()).map_err(|e| io_error(path, "asking for its size", e))?;
    if size < u64::from(block_size) {
        return Err(OpenError::Size { path: path.to_owned(), bytes: size, block_size });
    }
    let node = DiskNode {
        geometry: block_geometry(&file, &queue, block_size, options.read_only),
        file: Arc::new(file),
        nature: Nature::Block,
        wwid: facts.as_ref().map_or(WwidSource::Devno, wwid_source),
        block_size,
        alignment,
        depth: queue_limits(&queue, None).depth,
        unmap_granularity: granularity(&queue, block_size),
    };
    let (kind, opened) = (PathKind::Block, Opened::Disk(node));
    let place = Place {
        devname: facts.map(|facts| facts.name),
        dev_t: Some(dev.to_string()),
        ..Place::default()
    };
    Ok(Found { kind, place, transport: Transport::BlkUring, reason, opened })
}

/// Files and block nodes without SCSI go by io_uring or not at all.
fn only_by_ring(path: &Path, choice: TransportChoice, why: &str) -> Result<(), OpenError> {
    let refuse =
        |transport, why| Err(OpenError::Transport { path: path.to_owned(), transport, why });
    if matches!(choice, TransportChoice::SgIo | TransportChoice::BsgUring) {
        return refuse(choice.name(), format!("{why}; leave --transport at auto"));
    }
    match uring::available() {
        Ok(_) => Ok(()),
        Err(why) => refuse("blk-uring", why),
    }
}

fn granularity(queue: &QueueFacts, block_size: u32) -> u32 {
    let stated = queue.discard_granularity.and_then(|g| u32::try_from(g).ok());
    stated.unwrap_or(block_size).max(block_size)
}

/// NVMe and SCSI publish `wwid`, device mapper its uuid; else the number.
fn wwid_source(facts: &BlockFacts) -> WwidSource {
    let candidates =
        [("wwid", ""), ("device/wwid", ""), ("dm/uuid", "dm-uuid-"), ("md/uuid", "md-uuid-")];
    // A partition is not the disk whose identity is next to it.
    let own = if facts.partition_of.is_some() { &[][..] } else { &candidates[..] };
    own.iter()
        .map(|(name, prefix)| (facts.dir.join(name), *prefix))
        .find(|(attribute, _)| super::sysfs::attribute(attribute).is_some())
        .map_or(WwidSource::Devno, |(attribute, prefix)| WwidSource::Sysfs { attribute, prefix })
}

fn block_geometry(file: &File, queue: &QueueFacts, block_size: u32, read_only: bool) -> Geometry {
    let in_blocks = |bytes: Option<u64>| bytes.unwrap_or(0) / u64::from(block_size);
    let physical = block::physical_block_size(file.as_fd()).unwrap_or(block_size);
    let exp = (physical / block_size).max(1).ilog2();
    Geometry {
        physical_block_exp: u8::try_from(exp).unwrap_or(0),
        alignment_offset: 0,
        min_io: u16::try_from(in_blocks(queue.minimum_io)).unwrap_or(0),
        opt_io: u32::try_from(in_blocks(queue.optimal_io)).unwrap_or(0),
        unmap: !read_only && queue.discard_max_bytes.is_some_and(|max| max > 0),
        // A discard promises nothing; zeroes go by their own way.
        unmap_reads_zero: false,
        read_only,
        serial: String::new(),
        vendor: String::new(),
        product: String::new(),
        revision: String::new(),
    }
}

/// Somebody has a lock on it.
pub(super) fn locked(path: &Path) -> OpenError {
    let user = users::locker(Path::new("/proc"), path);
    OpenError::Locked { path: path.to_owned(), user }
}

/// Why a disk cannot be had, if that is because of what a killed process has
/// left in the kernel. Changes nothing; holds the claim for a moment if it can
/// be had.
pub fn left_behind(devname: &str) -> Option<OpenError> {
    let path = Path::new("/dev").join(devname);
    let dev = DevT::from_raw(fs::metadata(&path).ok()?.rdev());
    let facts = BlockFacts::read(&Sysfs::host().block(dev)?)?;
    let found = match claim_block(&path, dev, Some(&facts), true) {
        Err(error) if error.is_left_behind() => error,
        // An offline disk cannot be claimed, a free one may be somebody else's
        // by now; commands that went by the bsg node keep that one's lock.
        _ => bsg::locked(facts.scsi.as_ref()?)?,
    };
    found.is_left_behind().then_some(found)
}

/// Takes the lock that is ours as long as a command is in the kernel.
fn lock(path: &Path, file: &File, read_only: bool) -> Result<(), OpenError> {
    let result = if read_only {
        file::lock_shared(file.as_fd())
    } else {
        file::lock_exclusive(file.as_fd())
    };
    result.map_err(|e| match e.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => locked(path),
        _ => io_error(path, "locking", e),
    })
}

fn open_generic(path: &Path, meta: &Metadata, options: &Options) -> Result<Found, OpenError> {
    let dev = DevT::from_raw(meta.rdev());
    let wrong = || OpenError::WrongKind {
        path: path.to_owned(),
        what: "a character device that is neither sg nor bsg node of a disk",
    };
    let dir = Sysfs::host().character(dev).ok_or_else(wrong)?;
    let class = fs::canonicalize(dir.join("subsystem"))
        .ok()
        .and_then(|link| link.file_name().and_then(|name| name.to_str()).map(str::to_owned));
    let (kind, interface) = match class.as_deref() {
        Some("scsi_generic") => (PathKind::ScsiGeneric, Interface::V3),
        Some("bsg") => (PathKind::ScsiBsg, Interface::V4),
        _ => return Err(wrong()),
    };
    let scsi = ScsiFacts::read(&dir.join("device")).ok_or_else(wrong)?;
    let disk = scsi.disk();
    if options.transport == TransportChoice::BlkUring {
        let hint = scsi.sd.as_ref().map_or_else(String::new, |sd| format!(" (/dev/{sd})"));
        return Err(OpenError::Transport {
            path: path.to_owned(),
            transport: "blk-uring",
            why: format!(
                "sg and bsg nodes take no reads and writes by io_uring; give the disk's block node{hint}"
            ),
        });
    }
    if let Some((facts, _)) = &disk {
        refuse_heads_and_partitions(path, facts)?;
    }
    let claim = claim_sibling(path, disk.as_ref(), options.read_only)?;
    // Without O_NONBLOCK the sg driver waits here for error recovery.
    let mode = Mode { read_only: options.read_only, nonblocking: true, ..Mode::default() };
    let file = file::open(path, mode).map_err(|e| refused(path, e, "opening"))?;
    lock(path, &file, options.read_only)?;
    let able = match (kind, options.transport) {
        (PathKind::ScsiGeneric, _) => {
            Err("an sg node takes no commands by io_uring, the disk's block or bsg node may"
                .to_owned())
        }
        (_, TransportChoice::SgIo) => Ok(()),
        _ => probe_bsg(file.as_fd(), options.command_timeout),
    };
    // Such a node carries nothing but SCSI commands.
    let (transport, reason) = choose(path, &Options { scsi_only: true, ..*options }, able)?;
    let queue = disk.as_ref().map(|(facts, _)| facts.queue()).unwrap_or_default();
    let node = ScsiNode {
        file: Arc::new(file),
        claim,
        interface,
        direct: None,
        bsg_uring: transport == Transport::BsgUring,
        queue: queue_limits(&queue, Some(&scsi)),
        read_only: options.read_only,
    };
    Ok(Found { kind, place: Place::of(&scsi, dev), transport, reason, opened: Opened::Scsi(node) })
}

/// Holds the sd sibling, so that nobody mounts or maps the disk meanwhile.
fn claim_sibling(
    path: &Path,
    disk: Option<&(BlockFacts, DevT)>,
    read_only: bool,
) -> Result<Option<Arc<File>>, OpenError> {
    let Some((facts, dev)) = disk else { return Ok(None) };
    let node = Path::new("/dev").join(&facts.name);
    match claim_block(&node, *dev, Some(facts), read_only) {
        Ok(file) => Ok(Some(Arc::new(file))),
        Err(OpenError::NotFound { .. }) => {
            log::warn!(
                "{}: {} is not visible here, so the disk cannot be claimed against mounts and maps",
                path.display(),
                node.display()
            );
            Ok(None)
        }
        Err(OpenError::InUse { user, .. }) => {
            // By both names: the administrator gave one, and has to free the other.
            let path = PathBuf::from(format!("{} (disk {})", path.display(), node.display()));
            Err(OpenError::InUse { path, user })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
