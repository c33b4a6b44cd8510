//! Between the request core and the array: what is on which path, and what
//! must never be put there.

use std::sync::Arc;

use vhost_mpath::guest::copy;
use vhost_mpath::io::{
    Blocks, Command, Completion, ErrnoFrom, Extent, Limits, Op, Outcome, Segment, Time, total_len,
};
use vhost_mpath::mpath::Multipath;
use vhost_mpath::mpath::classify::{PathVerdict, classify, classify_raw};
use vhost_mpath::mpath::snapshot::{PathId, PathTable};
use vhost_mpath::passthrough_scsi::{Issued, Rejected, unit_attention};
use vhost_mpath::queue::dispatch::{Cookie, Issue};
use vhost_mpath::scsi::cdb::{Cdb, Payload};
use vhost_mpath::scsi::sense::{Key, Sense, SenseCode};
use vhost_mpath::scsi::status::{HostByte, Status};
use vhost_mpath::scsi::unmap;
use vhost_mpath::sim::{Array, LuId, Task};

use crate::jobs::Job;
use crate::plug::Plug;
use crate::random::Random;
use crate::reservation_laws::ReservationLaws;
use crate::world::{BLOCK, SUSPECT_AFTER};

/// A guest command on a path.
#[derive(Debug)]
pub(crate) struct OnPath {
    tag: u64,
    pub(crate) cookie: Cookie,
    pub(crate) path: PathId,
    pub(crate) epoch: u32,
    op: Op,
    address: usize,
    pub(crate) issued: Time,
    /// The transport moves this many bytes only.
    short: Option<usize>,
    passthrough: bool,
    data: Vec<Segment>,
}

/// What the paths saw.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) plugs: Vec<Plug>,
    /// Guest commands on paths.
    pub(crate) on_path: Vec<OnPath>,
    /// Commands of the checking threads, and of other hosts.
    pub(crate) jobs: Vec<Job>,
    /// Tags grow: odd ones are guest commands.
    serial: u64,
    pub(crate) issued: u64,
    random: Random,
    /// Errors of reads and writes come as errno unless passthrough is asked
    /// for, as by `blk-uring`.
    block_layer: bool,
    /// The faults are over.
    pub(crate) calm: bool,
    /// What the array has said of each raw command, by the address of its
    /// first segment.
    said: Vec<(usize, Completion)>,
    /// The command that came back last was good, and the block layer says EIO.
    pub(crate) lied: Option<PathId>,
    /// Of commands that are back, for the next ones.
    spare: Vec<Vec<Segment>>,
}

impl Wire {
    pub(crate) fn new(mut random: Random) -> Wire {
        Wire {
            plugs: Vec::new(),
            on_path: Vec::new(),
            jobs: Vec::new(),
            serial: 0,
            issued: 0,
            block_layer: random.one_in(3),
            random,
            calm: false,
            said: Vec::new(),
            lied: None,
            spare: Vec::new(),
        }
    }

    pub(crate) fn plug(&self, path: PathId) -> Option<&Plug> {
        self.plugs.iter().find(|p| p.id == path)
    }

    pub(crate) fn plug_mut(&mut self, path: PathId) -> Option<&mut Plug> {
        self.plugs.iter_mut().find(|p| p.id == path)
    }

    /// A tag for what is no guest command.
    pub(crate) fn tag(&mut self) -> u64 {
        self.serial += 1;
        self.serial << 1
    }

    fn guest_tag(&mut self) -> u64 {
        self.tag() | 1
    }

    /// Tags up to this one have been used.
    pub(crate) fn last_tag(&self) -> u64 {
        self.serial << 1 | 1
    }

    pub(crate) fn oldest_tag(&self) -> Option<u64> {
        let guest = self.on_path.iter().map(|w| w.tag);
        guest.chain(self.jobs.iter().map(|j| j.tag)).min()
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
        self.on_path.iter().find(|w| within.contains(&w.address))
    }

    /// What the array said of a raw command, which has ended.
    pub(crate) fn take_said(&mut self, marker: usize) -> Vec<Completion> {
        let mut taken = Vec::new();
        self.said.retain(|(address, completion)| {
            let other = *address != marker;
            if !other {
                taken.push(*completion);
            }
            other
        });
        taken
    }

    /// A guest command is back: its cookie, its path, and what the request
    /// core is told of it.
    pub(crate) fn take_off(
        &mut self,
        tag: u64,
        completion: Completion,
        data_in: &[u8],
        table: &PathTable,
    ) -> (Cookie, PathId, Completion) {
        let at = self.on_path.iter().position(|w| w.tag == tag);
        let was = self.on_path.swap_remove(at.expect("a command comes back once"));
        if let Some(plug) = self.plug_mut(was.path) {
            plug.commands -= 1;
        }
        copy::copy_out(&was.data, 0, data_in);
        let completion = match (completion, was.short) {
            (Completion::Good, Some(bytes)) => Completion::Short(bytes),
            (other, _) => other,
        };
        let transfer = matches!(was.op, Op::Read(_) | Op::Write { .. });
        let lies = self.plug(was.path).is_some_and(|p| p.lies);
        let completion = match (self.block_layer && transfer && !was.passthrough, completion) {
            (false, completion) => completion,
            (true, Completion::Good) if lies => {
                self.lied = Some(was.path);
                Completion::Errno { from: ErrnoFrom::Block, code: libc::EIO }
            }
            (true, completion) => as_block_layer(completion),
        };
        let raw = matches!(was.op, Op::Cdb { .. });
        if raw {
            self.said.push((was.address, completion));
        }
        let met = unit_attention(&completion).and_then(Sense::code);
        // Whatever the classifier makes of it.
        let doubt = met.is_some_and(SenseCode::questions_identity);
        let listed = view(table, was.path);
        let verdict = match completion {
            Completion::Good => PathVerdict::Keep,
            ref bad if raw => classify_raw(bad).path,
            ref bad => classify(bad).path,
        };
        let bar = match verdict {
            _ if doubt => listed.map(|e| (e, PathVerdict::Doubt)),
            v @ PathVerdict::Doubt => listed.map(|e| (e, v)),
            v @ (PathVerdict::Fail | PathVerdict::Passive | PathVerdict::Conflict) => {
                listed.filter(|e| *e == was.epoch).map(|e| (e, v))
            }
            PathVerdict::Keep
            | PathVerdict::Check
            | PathVerdict::Refresh
            | PathVerdict::Marginal => None,
        };
        if let Some(plug) = self.plug_mut(was.path) {
            plug.doubts.met += u32::from(doubt);
            if let Some((epoch, verdict)) = bar {
                plug.bar(epoch, verdict);
            }
        }
        let mut data = was.data;
        data.clear();
        self.spare.push(data);
        (was.cookie, was.path, completion)
    }

    /// A path of the table that hangs or is in doubt, and has not failed: its
    /// requests wait for the engine's decision.
    pub(crate) fn undecided(&self, table: &PathTable, now: Time) -> Option<PathId> {
        let mut views = table.groups.iter().flat_map(|g| &g.paths);
        let undecided = |id: PathId, epoch: u32| match self.plug(id).and_then(|p| p.barred) {
            Some((e, verdict)) if e == epoch => verdict == PathVerdict::Doubt,
            _ => self
                .on_path
                .iter()
                .any(|w| w.path == id && w.epoch == epoch && w.issued + SUSPECT_AFTER <= now),
        };
        views.find(|v| undecided(v.id, v.epoch)).map(|v| v.id)
    }

    /// Whether every path of the table has failed since, or there is none.
    pub(crate) fn has_lost_all_of(&self, table: &PathTable) -> bool {
        let mut views = table.groups.iter().flat_map(|g| &g.paths);
        views.all(|v| {
            let barred = self.plug(v.id).and_then(|p| p.barred);
            barred == Some((v.epoch, PathVerdict::Fail))
        })
    }
}

/// The epoch at which the table names the path.
fn view(table: &PathTable, path: PathId) -> Option<u32> {
    let mut views = table.groups.iter().flat_map(|g| &g.paths);
    views.find(|v| v.id == path).map(|v| v.epoch)
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
    pub(crate) wire: &'a mut Wire,
    pub(crate) table: Arc<PathTable>,
    pub(crate) limits: Limits,
    pub(crate) now: Time,
    pub(crate) room: usize,
    /// And what the engine knows by now.
    pub(crate) reserving: Option<(&'a ReservationLaws, &'a Multipath)>,
}

impl Issue for ToArray<'_> {
    fn issue(&mut self, path: PathId, cookie: Cookie, c: &Command<'_>) -> Result<Issued, Rejected> {
        let wire = &mut *self.wire;
        let plug = wire.plug(path).unwrap_or_else(|| panic!("issue on {path}, which is closed"));
        if plug.commands >= self.room {
            return Err(Rejected);
        }
        let nexus = plug.nexus;
        let epoch = may_be_issued(wire, &self.table, &self.limits, self.now, path, c);
        if let Some(doubt) = in_doubt(wire, path, epoch) {
            wire.issued += 1;
            return Ok(at_once(wire, c, doubt));
        }
        if let Some(gone) = is_deleted(wire, c, path, epoch) {
            wire.issued += 1;
            return Ok(at_once(wire, c, gone));
        }
        if let Some(ended) = ends_at_once(wire) {
            wire.issued += 1;
            return Ok(at_once(wire, c, ended));
        }
        let short = cut_short(wire, c);
        let mut data = wire.spare.pop().unwrap_or_default();
        let op = match short {
            None => {
                data.extend_from_slice(c.data);
                c.op
            }
            Some(bytes) => first_blocks(c, bytes / BLOCK, &mut data),
        };
        let (cdb, payload) = Cdb::from_op(&op, c.extents).expect("encodable");
        let mut data_out = self.array.buffer();
        data_out.clear();
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
        if let (Some((laws, map)), Some(it)) = (self.reserving, self.array.ports(nexus)) {
            let carries = map.path(path).is_some_and(|p| p.carries());
            laws.may_go(self.array.reservations(LuId(0)), it, path, carries);
        }
        let tag = wire.guest_tag();
        wire.issued += 1;
        let address = c.data.first().map_or(0, |s| s.addr);
        let (issued, passthrough, op) = (self.now, c.passthrough, c.op);
        let on_path =
            OnPath { tag, cookie, path, epoch, op, address, issued, short, passthrough, data };
        wire.on_path.push(on_path);
        wire.plug_mut(path).expect("just found").commands += 1;
        let timeout = c.timeout;
        self.array.submit(self.now, Task { nexus, tag, cdb, data_out, data_in_max, timeout });
        Ok(Issued::Pending)
    }
}

/// What the LU's answer is to a guest that hears it as it is.
pub(crate) fn word(completion: &Completion) -> Outcome {
    match *completion {
        Completion::Scsi { status, sense, residual, .. } if status != Status::GOOD => {
            Outcome::Lu { status, sense, residual }
        }
        Completion::Good => Outcome::Good,
        ref other => panic!("no fault was asked for: {other:?}"),
    }
}

/// The laws about what may go where; the path's epoch.
fn may_be_issued(
    wire: &Wire,
    table: &PathTable,
    limits: &Limits,
    now: Time,
    path: PathId,
    c: &Command<'_>,
) -> u32 {
    let epoch = view(table, path);
    let epoch = epoch.unwrap_or_else(|| panic!("issue on {path}, which is not in use"));
    let barred = wire.plug(path).and_then(|p| p.barred).is_some_and(|(until, _)| epoch <= until);
    assert!(!barred, "issue on {path}, which failed or is in doubt at epoch {epoch}");
    // Never in two places: data segments identify a transfer.
    let address = c.data.first().map_or(0, |s| s.addr);
    let reads = matches!(c.op, Op::Read(_) | Op::Cdb { .. });
    for w in &wire.on_path {
        let twice = reads && w.address == address && w.op == c.op;
        assert!(!twice, "{:?} is on two paths", c.op);
        // The engine has not decided about it: that would be a later epoch.
        let hung = w.path == path && w.epoch == epoch && w.issued + SUSPECT_AFTER <= now;
        assert!(!hung, "{path} is hung and was given a command");
    }
    if let Op::Read(e) | Op::Write { extent: e, .. } = c.op {
        assert_eq!(total_len(c.data), usize::try_from(e.blocks.0).unwrap() * BLOCK);
        assert!(e.blocks <= limits.max_transfer, "{e:?} is more than a path takes");
        let pieces = c.data.len();
        assert!(pieces <= limits.max_segments || e.blocks.0 == 1, "{pieces} segments");
    }
    if let Op::Write { fua, .. } = c.op {
        assert!(limits.fua || !fua, "FUA to an LU that does not know it");
    }
    epoch
}

fn at_once(wire: &mut Wire, c: &Command<'_>, completion: Completion) -> Issued {
    if let (Op::Cdb { .. }, Some(first)) = (c.op, c.data.first()) {
        wire.said.push((first.addr, completion));
    }
    Issued::Done(completion)
}

/// REPORTED LUNS DATA HAS CHANGED.
const LUNS_CHANGED: SenseCode = SenseCode::new(Key::UnitAttention, 0x3f, 0x0e);

/// What a command ends with that goes no further because the path may lead
/// elsewhere. Somebody has met what says so, and no proof has settled it
/// (`PathPort::issue`); or the array says so itself, once: after that it is the
/// host's fault.
fn in_doubt(wire: &mut Wire, path: PathId, epoch: u32) -> Option<Completion> {
    let plug = wire.plug_mut(path)?;
    if plug.doubts.met != plug.doubts.settled {
        plug.bar(epoch, PathVerdict::Doubt);
        return Some(Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ESTALE });
    }
    let remapped = plug.remapped.as_mut()?;
    let told = std::mem::take(&mut remapped.attention);
    assert!(told, "a command went to another LU by {path}");
    plug.doubts.met += 1;
    plug.bar(epoch, PathVerdict::Doubt);
    let sense = Sense::fixed(LUNS_CHANGED);
    let status = Status::CHECK_CONDITION;
    Some(Completion::Scsi { status, host: HostByte::OK, sense, residual: 0 })
}

/// The host has no such device any more.
fn is_deleted(wire: &mut Wire, c: &Command<'_>, path: PathId, epoch: u32) -> Option<Completion> {
    let transfer = matches!(c.op, Op::Read(_) | Op::Write { .. });
    let block = wire.block_layer && transfer && !c.passthrough;
    let plug = wire.plug_mut(path).filter(|p| p.deleted)?;
    plug.bar(epoch, PathVerdict::Fail);
    let from = if block { ErrnoFrom::Block } else { ErrnoFrom::Ioctl };
    Some(Completion::Errno { from, code: libc::ENODEV })
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

/// The first `blocks` of a transfer, and their `data`.
fn first_blocks(c: &Command<'_>, blocks: usize, data: &mut Vec<Segment>) -> Op {
    let mut left = blocks * BLOCK;
    for s in c.data {
        let len = s.len.min(left);
        left -= len;
        if len > 0 {
            data.push(Segment { addr: s.addr, len });
        }
    }
    let few = |e: Extent| Extent { blocks: Blocks(blocks as u64), ..e };
    match c.op {
        Op::Read(e) => Op::Read(few(e)),
        Op::Write { extent, fua } => Op::Write { extent: few(extent), fua },
        other => other,
    }
}
