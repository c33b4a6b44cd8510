//! Between the request core and the array: what is on which path, and what
//! must never be put there.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use vhost_mpath::guest::copy;
use vhost_mpath::io::{
    Blocks, Command, Completion, ErrnoFrom, Extent, Limits, Op, Segment, Time, total_len,
};
use vhost_mpath::mpath::checker::Checker;
use vhost_mpath::mpath::classify::{PathVerdict, classify, classify_raw};
use vhost_mpath::mpath::snapshot::{PathId, PathTable};
use vhost_mpath::passthrough_scsi::{Issued, Rejected};
use vhost_mpath::queue::dispatch::{Cookie, Issue};
use vhost_mpath::scsi::capacity::Capacity;
use vhost_mpath::scsi::cdb::{Cdb, Payload};
use vhost_mpath::scsi::sense::{Key, Sense, SenseCode};
use vhost_mpath::scsi::status::{HostByte, Status};
use vhost_mpath::scsi::unmap;
use vhost_mpath::sim::{Array, NexusId, Task};

use crate::random::Random;
use crate::world::{BLOCK, SUSPECT_AFTER};

/// Whose task it is.
#[derive(Debug)]
pub(crate) enum Purpose {
    Guest {
        cookie: Cookie,
        key: u64,
    },
    /// Another host's MODE SELECT.
    OtherHost {
        descriptor_sense: bool,
    },
    Check {
        path: PathId,
        check: u32,
        checker: Checker,
    },
    Prove(Proof),
}

/// A proof of identity on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proof {
    pub(crate) path: PathId,
    pub(crate) proof: u32,
    pub(crate) step: u8,
    pub(crate) tries: u8,
    pub(crate) capacity: Option<Capacity>,
    /// For [`vhost_mpath::scsi::attention::Attentions::drained`].
    pub(crate) moment: u64,
}

/// A guest command on a path.
#[derive(Debug)]
pub(crate) struct OnPath {
    pub(crate) path: PathId,
    epoch: u32,
    op: Op,
    address: usize,
    pub(crate) issued: Time,
    /// The transport moves this many bytes only.
    short: Option<usize>,
    passthrough: bool,
}

/// The path leads to another LU since the engine listed it at this epoch.
#[derive(Debug)]
pub(crate) struct Remapped {
    pub(crate) epoch: u32,
    /// The array has not yet told anybody.
    pub(crate) attention: bool,
}

/// What the paths saw, shared with the `Issue` side.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) tasks: BTreeMap<u64, Purpose>,
    /// Guest commands on paths, by tag.
    pub(crate) on_path: BTreeMap<u64, OnPath>,
    pub(crate) next_tag: u64,
    pub(crate) issued: u64,
    random: Random,
    /// Errors of reads and writes come as errno unless passthrough is asked
    /// for, as by `blk-uring`.
    block_layer: bool,
    /// Nothing goes onto the path before it is listed with a later epoch than
    /// this; and whether it failed, or the engine must decide.
    barred: BTreeMap<PathId, (u32, PathVerdict)>,
    /// Paths that lead to the other LU.
    pub(crate) remapped: BTreeMap<PathId, Remapped>,
    /// The faults are over.
    pub(crate) calm: bool,
    /// What the array has said of each raw command, by the address of its
    /// first segment.
    pub(crate) said: HashMap<usize, Vec<Completion>>,
}

thread_local! {
    /// Where the data of a guest read goes when it arrives.
    static GUEST_DATA: RefCell<HashMap<u64, Vec<Segment>>> = RefCell::default();
}

impl Wire {
    pub(crate) fn new(mut random: Random) -> Wire {
        GUEST_DATA.with_borrow_mut(HashMap::clear);
        Wire {
            tasks: BTreeMap::new(),
            on_path: BTreeMap::new(),
            next_tag: 0,
            issued: 0,
            block_layer: random.one_in(3),
            random,
            barred: BTreeMap::new(),
            remapped: BTreeMap::new(),
            calm: false,
            said: HashMap::new(),
        }
    }

    pub(crate) fn tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag
    }

    /// The guest gets its memory back: no path may still read or write it.
    pub(crate) fn nothing_uses(&self, memory: Segment) {
        let user = self.user(memory);
        assert!(user.is_none(), "a request has ended and is still on a path: {user:?}");
    }

    pub(crate) fn uses(&self, memory: Segment) -> bool {
        self.user(memory).is_some()
    }

    fn user(&self, memory: Segment) -> Option<&OnPath> {
        let within = memory.addr..memory.addr + memory.len;
        self.on_path.values().find(|w| within.contains(&w.address))
    }

    /// A guest command is back: what the request core is told of it.
    pub(crate) fn take_off(
        &mut self,
        key: u64,
        completion: Completion,
        data_in: &[u8],
        table: &PathTable,
    ) -> Completion {
        let was = self.on_path.remove(&key).expect("a command comes back once");
        let data = GUEST_DATA.with_borrow_mut(|d| d.remove(&key)).unwrap_or_default();
        copy::copy_out(&data, 0, data_in);
        let completion = match (completion, was.short) {
            (Completion::Good, Some(bytes)) => Completion::Short(bytes),
            (other, _) => other,
        };
        let transfer = matches!(was.op, Op::Read(_) | Op::Write { .. });
        let completion = if self.block_layer && transfer && !was.passthrough {
            as_block_layer(completion)
        } else {
            completion
        };
        if matches!(was.op, Op::Cdb { .. }) {
            self.said.entry(was.address).or_default().push(completion);
        }
        let listed = view(table, was.path).map(|v| v.1);
        let raw = matches!(was.op, Op::Cdb { .. });
        let verdict = if raw { classify_raw(&completion) } else { classify(&completion) }.path;
        let bar = match verdict {
            PathVerdict::Doubt => listed,
            PathVerdict::Fail | PathVerdict::Passive => listed.filter(|epoch| *epoch == was.epoch),
            PathVerdict::Keep
            | PathVerdict::Check
            | PathVerdict::Refresh
            | PathVerdict::Marginal => None,
        };
        if let Some(epoch) = bar {
            self.bar(was.path, epoch, verdict);
        }
        completion
    }

    /// What failed is not in doubt any more.
    fn bar(&mut self, path: PathId, epoch: u32, verdict: PathVerdict) {
        if self.barred.get(&path) != Some(&(epoch, PathVerdict::Fail)) {
            self.barred.insert(path, (epoch, verdict));
        }
    }

    /// A path of the table that hangs or is in doubt, and has not failed: its
    /// requests wait for the engine's decision.
    pub(crate) fn undecided(&self, table: &PathTable, now: Time) -> Option<PathId> {
        let mut views = table.groups.iter().flat_map(|g| &g.paths);
        let undecided = |id: PathId, epoch: u32| match self.barred.get(&id) {
            Some((e, verdict)) if *e == epoch => *verdict == PathVerdict::Doubt,
            _ => self
                .on_path
                .values()
                .any(|w| w.path == id && w.epoch == epoch && w.issued + SUSPECT_AFTER <= now),
        };
        views.find(|v| undecided(v.id, v.epoch)).map(|v| v.id)
    }
}

fn view(table: &PathTable, path: PathId) -> Option<(PathId, u32)> {
    let mut views = table.groups.iter().flat_map(|g| &g.paths);
    views.find(|v| v.id == path).map(|v| (v.id, v.epoch))
}

/// `scsi_result_to_blk_status` and `blk_status_to_errno`, roughly; the unit
/// attentions that sd swallows come as what they may turn into.
fn as_block_layer(completion: Completion) -> Completion {
    let Completion::Scsi { status, host, sense, .. } = completion else { return completion };
    let key = sense.code().map(|c| c.key);
    let code = match (host, status, key) {
        (HostByte::OK, Status::BUSY | Status::TASK_SET_FULL, _) => return completion,
        (HostByte::OK, _, Some(Key::MediumError)) => libc::ENODATA,
        (HostByte::OK, _, Some(Key::UnitAttention)) => return completion,
        (HostByte::TRANSPORT_MARGINAL | HostByte::TRANSPORT_FAILFAST, ..) => libc::ENOLINK,
        (HostByte::TIME_OUT, ..) => libc::ETIMEDOUT,
        _ => libc::EIO,
    };
    Completion::Errno { from: ErrnoFrom::Block, code }
}

/// The queue thread's side of the wire.
pub(crate) struct ToArray<'a> {
    pub(crate) array: &'a mut Array,
    pub(crate) wire: &'a RefCell<Wire>,
    pub(crate) nexus_of: &'a BTreeMap<PathId, NexusId>,
    pub(crate) table: Arc<PathTable>,
    pub(crate) limits: Limits,
    pub(crate) now: Time,
    pub(crate) room: usize,
}

impl Issue for ToArray<'_> {
    fn issue(&mut self, path: PathId, cookie: Cookie, c: &Command<'_>) -> Result<Issued, Rejected> {
        let mut wire = self.wire.borrow_mut();
        let on_this = wire.on_path.values().filter(|w| w.path == path).count();
        if on_this >= self.room {
            return Err(Rejected);
        }
        let epoch = self.may_be_issued(&wire, path, c);
        if told_of_remap(&mut wire, path, epoch) {
            wire.issued += 1;
            wire.bar(path, epoch, PathVerdict::Doubt);
            return Ok(at_once(&mut wire, c, luns_changed()));
        }
        if let Some(ended) = ends_at_once(&mut wire) {
            wire.issued += 1;
            return Ok(at_once(&mut wire, c, ended));
        }
        let short = cut_short(&mut wire, c);
        let (op, data) = match short {
            None => (c.op, c.data.to_vec()),
            Some(bytes) => first_blocks(c, bytes / BLOCK),
        };
        let (cdb, payload) = Cdb::from_op(&op, c.extents).expect("encodable");
        let mut data_out = Vec::new();
        let mut data_in_max = 0;
        match payload {
            Payload::In => data_in_max = total_len(&data),
            Payload::Out => {
                data_out.resize(total_len(&data), 0);
                copy::copy_in(&data, 0, &mut data_out);
            }
            Payload::UnmapList => unmap::encode(c.extents, &mut data_out).expect("fits"),
            Payload::ZeroBlock => data_out.resize(BLOCK, 0),
            Payload::None => {}
        }
        let tag = wire.tag();
        wire.issued += 1;
        let address = c.data.first().map_or(0, |s| s.addr);
        let (issued, passthrough) = (self.now, c.passthrough);
        let on_path = OnPath { path, epoch, op: c.op, address, issued, short, passthrough };
        wire.on_path.insert(tag, on_path);
        wire.tasks.insert(tag, Purpose::Guest { cookie, key: tag });
        GUEST_DATA.with_borrow_mut(|d| d.insert(tag, data));
        let (nexus, timeout) = (self.nexus_of[&path], c.timeout);
        self.array.submit(self.now, Task { nexus, tag, cdb, data_out, data_in_max, timeout });
        Ok(Issued::Pending)
    }
}

impl ToArray<'_> {
    /// The laws about what may go where; the path's epoch.
    fn may_be_issued(&self, wire: &Wire, path: PathId, c: &Command<'_>) -> u32 {
        let view = view(&self.table, path);
        let (_, epoch) = view.unwrap_or_else(|| panic!("issue on {path}, which is not in use"));
        let barred = wire.barred.get(&path).is_some_and(|(until, _)| epoch <= *until);
        assert!(!barred, "issue on {path}, which failed or is in doubt at epoch {epoch}");
        // Never in two places: data segments identify a transfer.
        let address = c.data.first().map_or(0, |s| s.addr);
        if matches!(c.op, Op::Read(_) | Op::Cdb { .. }) {
            let twice = wire.on_path.values().any(|w| w.address == address && w.op == c.op);
            assert!(!twice, "{:?} is on two paths", c.op);
        }
        if let Op::Read(e) | Op::Write { extent: e, .. } = c.op {
            assert_eq!(total_len(c.data), usize::try_from(e.blocks.0).unwrap() * BLOCK);
            assert!(e.blocks <= self.limits.max_transfer, "{e:?} is more than a path takes");
            let pieces = c.data.len();
            assert!(pieces <= self.limits.max_segments || e.blocks.0 == 1, "{pieces} segments");
        }
        if let Op::Write { fua, .. } = c.op {
            assert!(self.limits.fua || !fua, "FUA to an LU that does not know it");
        }
        epoch
    }
}

fn at_once(wire: &mut Wire, c: &Command<'_>, completion: Completion) -> Issued {
    if let (Op::Cdb { .. }, Some(first)) = (c.op, c.data.first()) {
        wire.said.entry(first.addr).or_default().push(completion);
    }
    Issued::Done(completion)
}

/// REPORTED LUNS DATA HAS CHANGED.
fn luns_changed() -> Completion {
    let sense = Sense::fixed(SenseCode::new(Key::UnitAttention, 0x3f, 0x0e));
    Completion::Scsi { status: Status::CHECK_CONDITION, host: HostByte::OK, sense, residual: 0 }
}

/// The array tells of a remap once, and keeps the host off the other LU until
/// it had the chance to act on that. After that it is the host's fault.
fn told_of_remap(wire: &mut Wire, path: PathId, epoch: u32) -> bool {
    let Some(remapped) = wire.remapped.get_mut(&path) else { return false };
    let told = std::mem::take(&mut remapped.attention) || epoch <= remapped.epoch;
    assert!(told, "a command went to another LU by {path}");
    true
}

/// The LU has no room for the command at this moment.
fn ends_at_once(wire: &mut Wire) -> Option<Completion> {
    if wire.calm || !wire.random.one_in(200) {
        return None;
    }
    let status = wire.random.pick(&[Status::BUSY, Status::TASK_SET_FULL]);
    Some(Completion::Scsi { status, host: HostByte::OK, sense: Sense::EMPTY, residual: 0 })
}

/// Bytes after which the transport stops for no reason, at least a block.
fn cut_short(wire: &mut Wire, c: &Command<'_>) -> Option<usize> {
    let bytes = total_len(c.data);
    let transfer = matches!(c.op, Op::Read(_) | Op::Write { fua: false, .. });
    if !transfer || bytes <= BLOCK || wire.calm || !wire.random.one_in(60) {
        return None;
    }
    Some(BLOCK + usize::try_from(wire.random.below((bytes - BLOCK) as u64)).unwrap())
}

/// The first `blocks` of a transfer.
fn first_blocks(c: &Command<'_>, blocks: usize) -> (Op, Vec<Segment>) {
    let mut left = blocks * BLOCK;
    let mut data = Vec::new();
    for s in c.data {
        let len = s.len.min(left);
        left -= len;
        if len > 0 {
            data.push(Segment { addr: s.addr, len });
        }
    }
    let few = |e: Extent| Extent { blocks: Blocks(blocks as u64), ..e };
    let op = match c.op {
        Op::Read(e) => Op::Read(few(e)),
        Op::Write { extent, fua } => Op::Write { extent: few(extent), fua },
        other => other,
    };
    (op, data)
}
