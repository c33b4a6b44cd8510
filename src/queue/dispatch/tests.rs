//! The request core over a scripted wire.

use super::*;
use crate::io::{Blocks, ErrnoFrom, Extent, Lba, Segment, Tag, total_len};
use crate::mpath::classify::PathVerdict;
use crate::mpath::event::{IoReason, IoReport};
use crate::mpath::snapshot::{GroupView, PathView, Queueing, SelectorKind};
use crate::queue::Stop;
use crate::scsi::attention::Attentions;
use crate::scsi::block::Direction;
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::{Key, Sense, SenseCode};
use crate::scsi::status::{HostByte, Status};

mod access;
mod attentions;
mod bypass;
mod conflicts;
mod cutting;
mod holding;
mod managing;
mod orders;
mod paths;
mod raw;
mod reserving;
mod retries;
mod stopping;
mod suspension;
mod zeroes;

/// A command on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    path: u8,
    cookie: Cookie,
    op: Op,
    data: Vec<Segment>,
    extents: Vec<Extent>,
    passthrough: bool,
}

/// The paths: they remember what they were given, and answer when told.
#[derive(Debug)]
struct Wire {
    out: Vec<Sent>,
    /// Everything ever sent.
    count: usize,
    /// Commands one path takes at once.
    room: [usize; 4],
    /// Answered at once, in this order, while there are any.
    at_once: VecDeque<Completion>,
}

impl Issue for Wire {
    fn issue(&mut self, id: PathId, cookie: Cookie, c: &Command<'_>) -> Result<Issued, Rejected> {
        let path = id.slot;
        if self.out.iter().filter(|s| s.path == path).count() >= self.room[usize::from(path)] {
            return Err(Rejected);
        }
        assert!(self.out.iter().all(|s| s.cookie != cookie), "a cookie is used twice");
        self.count += 1;
        if let Some(completion) = self.at_once.pop_front() {
            return Ok(Issued::Done(completion));
        }
        self.out.push(Sent {
            path,
            cookie,
            op: c.op,
            data: c.data.to_vec(),
            extents: c.extents.to_vec(),
            passthrough: c.passthrough,
        });
        Ok(Issued::Pending)
    }
}

struct Rig {
    core: Dispatcher,
    wire: Wire,
    now: Time,
    ended: Vec<(u16, End)>,
    reports: Vec<Report>,
    generation: u64,
}

const BLOCK: usize = 512;
const READ_10: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0];
const COMPARE_AND_WRITE: [u8; 16] = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];

fn limits() -> Limits {
    Limits {
        max_transfer: Blocks(16),
        max_segments: 4,
        max_unmap: Blocks(100),
        max_unmap_descriptors: 3,
        unmap_granularity: Blocks(1),
        unmap_alignment: Lba(0),
        max_write_same: Blocks(50),
        fua: true,
    }
}

fn settings(limits: Limits) -> Settings {
    Settings {
        limits,
        block_size: 512,
        command_timeout: Duration::from_secs(30),
        suspect_after: Duration::from_secs(1),
        max_requests: 16,
        rings: 2,
    }
}

fn id(slot: u8) -> PathId {
    PathId { slot, generation: 0 }
}

/// A table of groups of (slot, epoch).
fn table(generation: u64, groups: &[&[(u8, u32)]], queueing: Queueing) -> Arc<PathTable> {
    let view = |&(slot, epoch): &(u8, u32)| PathView {
        id: id(slot),
        epoch,
        proven: epoch,
        priority: 1,
        repeat: 1,
    };
    let group = |(i, g): (usize, &&[(u8, u32)])| GroupView {
        number: u16::try_from(i + 1).unwrap(),
        paths: g.iter().map(view).collect(),
    };
    let groups = groups.iter().enumerate().map(group).collect();
    Arc::new(PathTable {
        generation,
        groups,
        queueing,
        selector: SelectorKind::RoundRobin,
        suspended: false,
        registered: false,
        hold_for: None,
    })
}

impl Rig {
    fn new() -> Rig {
        Rig::with(limits())
    }

    /// Two paths in one group.
    fn with(limits: Limits) -> Rig {
        Rig::of(settings(limits), &[&[(0, 1), (1, 1)]])
    }

    /// One path.
    fn single() -> Rig {
        Rig::of(settings(limits()), &[&[(0, 1)]])
    }

    fn of(settings: Settings, groups: &[&[(u8, u32)]]) -> Rig {
        Rig::hearing(settings, groups, None)
    }

    /// Of a guest that hears of unit attentions.
    fn hearing(
        settings: Settings,
        groups: &[&[(u8, u32)]],
        attentions: Option<Arc<Attentions>>,
    ) -> Rig {
        let core = Dispatcher::new(settings, table(1, groups, Queueing::Hold), attentions);
        let (out, at_once) = (Vec::new(), VecDeque::new());
        let wire = Wire { out, count: 0, room: [64; 4], at_once };
        let (ended, reports) = (Vec::new(), Vec::new());
        Rig { core, wire, now: Time(5_000_000_000), ended, reports, generation: 1 }
    }

    fn table(&mut self, groups: &[&[(u8, u32)]], queueing: Queueing) {
        self.generation += 1;
        self.core.set_table(table(self.generation, groups, queueing));
        self.pump();
    }

    /// A table that says more than [`table`] does.
    fn table_with(
        &mut self,
        groups: &[&[(u8, u32)]],
        queueing: Queueing,
        change: impl FnOnce(&mut PathTable),
    ) {
        self.generation += 1;
        let mut next = PathTable::clone(&table(self.generation, groups, queueing));
        change(&mut next);
        self.core.set_table(Arc::new(next));
        self.pump();
    }

    fn submit(&mut self, head: u16, op: Op) {
        let data = match op {
            Op::Read(e) | Op::Write { extent: e, .. } => {
                let len = usize::try_from(e.blocks.0).unwrap() * BLOCK;
                vec![Segment { addr: 0x10_0000 * (usize::from(head) + 1), len }]
            }
            _ => Vec::new(),
        };
        self.submit_data(head, op, data);
    }

    fn submit_data(&mut self, head: u16, op: Op, data: Vec<Segment>) {
        self.submit_request(Request {
            tag: Tag { ring: 0, head },
            op: Some(op),
            data,
            ..Request::default()
        });
    }

    fn submit_request(&mut self, request: Request) {
        self.core.submit(Box::new(request)).expect("room");
        self.pump();
    }

    fn submit_cdb(&mut self, head: u16, cdb: &[u8], direction: Direction, bytes: usize) {
        let cdb = Cdb::from_bytes(cdb).unwrap();
        let data = if bytes > 0 { vec![Segment { addr: 0x1000, len: bytes }] } else { Vec::new() };
        self.submit_data(head, Op::Cdb { cdb, direction }, data);
    }

    /// READ(10) of 8 blocks: idempotent.
    fn submit_read(&mut self, head: u16) {
        self.submit_cdb(head, &READ_10, Direction::In, 8 * BLOCK);
    }

    /// COMPARE AND WRITE of a block: not idempotent.
    fn submit_compare_and_write(&mut self, head: u16) {
        self.submit_cdb(head, &COMPARE_AND_WRITE, Direction::Out, 2 * BLOCK);
    }

    fn pump(&mut self) {
        self.core.pump(self.now, &mut self.wire);
        let ended = self.core.finished().map(|(r, end)| (r.tag.head, end)).collect::<Vec<_>>();
        self.ended.extend(ended);
        self.reports.extend(self.core.reports().collect::<Vec<_>>());
    }

    fn answer(&mut self, sent: &Sent, completion: Completion) {
        let at = self.wire.out.iter().position(|s| s.cookie == sent.cookie).expect("on a path");
        self.wire.out.remove(at);
        self.core.complete(self.now, sent.cookie, &completion);
        self.pump();
    }

    /// Answers the oldest command out; what it was.
    fn next(&mut self, completion: Completion) -> Sent {
        let sent = self.wire.out.first().expect("nothing is on a path").clone();
        self.answer(&sent, completion);
        sent
    }

    /// Answers everything with GOOD until nothing is out; what it was.
    fn all_good(&mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        while !self.wire.out.is_empty() {
            all.push(self.next(Completion::Good));
        }
        all
    }

    /// Lets time pass; the core is pumped when it asks for it.
    fn pass(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(at) = self.core.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.pump();
            let next = self.core.next_deadline();
            assert!(next.is_none_or(|at| at > self.now), "pumping does not help");
        }
        self.now = until;
    }

    /// How the only request that ended did.
    fn end(&mut self) -> End {
        assert_eq!(self.ended.len(), 1, "{:?}", self.ended);
        self.ended.pop().unwrap().1
    }

    fn outcome(&mut self) -> Outcome {
        match self.end() {
            End::Finished(outcome) => outcome,
            End::Abandoned => panic!("abandoned"),
        }
    }

    fn told(&self) -> Vec<GuestError> {
        let guest = |r: &Report| match r {
            Report::Guest(r) => Some(*r),
            _ => None,
        };
        self.reports.iter().filter_map(guest).collect()
    }

    fn path_reports(&self) -> Vec<IoReport> {
        let path = |r: &Report| match r {
            Report::Path(r) => Some(*r),
            _ => None,
        };
        self.reports.iter().filter_map(path).collect()
    }
}

fn read(lba: u64, blocks: u64) -> Op {
    Op::Read(Extent::new(lba, blocks))
}

fn write(lba: u64, blocks: u64) -> Op {
    Op::Write { extent: Extent::new(lba, blocks), fua: false }
}

fn host(host: HostByte) -> Completion {
    Completion::Scsi { status: Status::GOOD, host, sense: Sense::EMPTY, residual: 512 }
}

fn status(status: Status) -> Completion {
    Completion::Scsi { status, host: HostByte::OK, sense: Sense::EMPTY, residual: 0 }
}

fn check(key: u8, asc: u8, ascq: u8) -> Completion {
    let sense = Sense::fixed(SenseCode::new(Key::from_bits(key), asc, ascq));
    Completion::Scsi { status: Status::CHECK_CONDITION, host: HostByte::OK, sense, residual: 0 }
}

fn errno(code: i32) -> Completion {
    Completion::Errno { from: ErrnoFrom::Block, code }
}

const GONE: Completion = Completion::Errno { from: ErrnoFrom::Block, code: libc::ENODEV };

fn sense_code(outcome: &Outcome) -> Option<SenseCode> {
    match outcome {
        Outcome::Lu { sense, .. } => sense.code(),
        _ => None,
    }
}
