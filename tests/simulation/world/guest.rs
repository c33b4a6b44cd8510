//! The guest: its requests and what it may be told.

use super::*;
use std::cell::RefCell;
use vhost_mpath::guest::copy;

/// Memory of a request: its longest transfer, and room that a raw command does
/// not fill.
const MEMORY: usize = (64 + 3) * BLOCK;

thread_local! {
    /// Memory is used again from one seed to the next.
    static MEMORIES: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn memory(depth: u16) -> Vec<Buffer> {
    let kept = MEMORIES.with_borrow_mut(std::mem::take).into_iter();
    kept.chain(std::iter::repeat_with(|| Buffer::zeroed(MEMORY))).take(depth.into()).collect()
}

impl Drop for World {
    fn drop(&mut self) {
        MEMORIES.set(std::mem::take(&mut self.memory));
    }
}

/// What no block ever holds.
const UNTOUCHED: u8 = 0xee;

impl World {
    pub(super) fn guest_request(&mut self) {
        if self.stopping.is_some() || self.core.room() == 0 {
            return;
        }
        if self.scsi.is_some() {
            return self.scsi_request();
        }
        let Some(head) = self.free_heads.pop() else { return };
        self.moment += 1;
        self.totals.requests += 1;
        self.totals.steps += 1;
        let lba = self.random.below(BLOCKS - 64);
        let most = if self.random.one_in(8) { LONGEST } else { 6 };
        let n = 1 + self.random.below(most);
        let extent = Extent::new(lba, n);
        let mut request = self.request(head);
        let mut pending = self.pending_request(Op::Flush);
        match self.random.below(12) {
            0 => request.op = Some(Op::Flush),
            1 if self.limits.max_unmap.0 > 0 => {
                request.op = Some(Op::Unmap);
                request.extents = vec![extent, Extent::new(lba / 2, n.min(9))];
                for e in &request.extents {
                    pending.writes.push(self.shadow.begin(self.moment, e.lba.0, e.blocks.0, 0));
                    self.moment += 1;
                }
            }
            2 => {
                let unmap = self.limits.max_unmap.0 > 0 && self.random.one_in(2);
                request.op = Some(Op::WriteZeroes { extent, unmap });
                request.durable = self.random.one_in(3);
                pending.writes.push(self.shadow.begin(self.moment, lba, n, 0));
            }
            3..=6 => {
                let value = self.next_value;
                self.next_value += 1;
                request.op = Some(Op::Write { extent, fua: self.random.one_in(3) });
                let memory = self.filled_with(head, usize::try_from(n).unwrap(), value);
                self.segments(memory, &mut request);
                pending.writes.push(self.shadow.begin(self.moment, lba, n, value));
                pending.memory = Some(memory);
            }
            _ => {
                request.op = Some(Op::Read(extent));
                let memory = self.untouched(head, usize::try_from(n).unwrap() * BLOCK);
                self.segments(memory, &mut request);
                pending.memory = Some(memory);
            }
        }
        pending.meaning = request.op.expect("just set");
        self.submit(head, request, pending);
    }

    pub(super) fn read(&mut self, extent: Extent) {
        self.moment += 1;
        let head = self.free_heads.pop().expect("idle");
        let mut request = self.request(head);
        request.op = Some(Op::Read(extent));
        let memory = self.untouched(head, usize::try_from(extent.blocks.0).unwrap() * BLOCK);
        request.data.push(memory);
        let pending = Pending { memory: Some(memory), ..self.pending_request(Op::Read(extent)) };
        self.submit(head, request, pending);
    }

    pub(super) fn submit(&mut self, head: u16, request: Box<Request>, pending: Pending) {
        self.pending[usize::from(head)] = Some(pending);
        self.touched = true;
        self.core.submit(request).expect("room");
    }

    pub(super) fn request(&mut self, head: u16) -> Box<Request> {
        let mut request = self.spare.pop().unwrap_or_default();
        request.reset();
        request.tag.head = head;
        request
    }

    pub(super) fn pending_request(&self, meaning: Op) -> Pending {
        Pending {
            memory: None,
            start: self.moment,
            writes: Vec::new(),
            meaning,
            serial: 0,
            swap: None,
            order: None,
            aborted: None,
            submitted: self.now,
        }
    }

    /// The first bytes of a request's memory, as nothing leaves them.
    pub(super) fn untouched(&mut self, head: u16, len: usize) -> Segment {
        let memory = Segment { len, ..self.memory[usize::from(head)].segment() };
        copy::fill(&[memory], 0, UNTOUCHED, len);
        memory
    }

    /// The first blocks of a request's memory, with `value` all over.
    pub(super) fn filled_with(&mut self, head: u16, blocks: usize, value: u64) -> Segment {
        let len = blocks * BLOCK;
        self.scratch.clear();
        self.scratch.resize(len, 0);
        let value = value.to_le_bytes();
        self.scratch.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&value));
        let memory = Segment { len, ..self.memory[usize::from(head)].segment() };
        copy::copy_out(&[memory], 0, &self.scratch);
        memory
    }

    /// Splits a buffer at random places, as a guest's pages do.
    pub(super) fn segments(&mut self, all: Segment, request: &mut Request) {
        let mut rest = all;
        while rest.len > 0 {
            let len = if self.random.one_in(3) {
                rest.len
            } else {
                (1 + usize::try_from(self.random.below(2000)).unwrap()).min(rest.len)
            };
            request.data.push(Segment { addr: rest.addr, len });
            rest.addr += len;
            rest.len -= len;
        }
    }

    pub(super) fn request_ended(&mut self, request: &Request, end: &End) {
        self.moment += 1;
        let head = request.tag.head;
        let p = self.pending[usize::from(head)].take().expect("each request ends once");
        if let Some(memory) = p.memory {
            self.wire.nothing_uses(memory);
        }
        let outcome = match end {
            End::Finished(outcome) => *outcome,
            End::Abandoned => {
                self.totals.abandoned += 1;
                assert!(
                    matches!(self.stopping, Some(Stop::Suspend | Stop::Discard)),
                    "abandoned though nothing stops"
                );
                Outcome::Stopped
            }
        };
        let good = matches!(outcome, Outcome::Good | Outcome::Lu { status: Status::GOOD, .. });
        self.totals.errors += u64::from(!good);
        if let Some(record) = &mut self.record {
            record.ended(self.now, p.submitted, (!good).then_some(&outcome));
        }
        if let Outcome::Lu { status: Status::CHECK_CONDITION, sense, .. } = &outcome {
            if sense.code().is_some_and(|c| c.key == Key::UnitAttention) {
                self.guest_hears(sense);
            }
        }
        self.allowed(&p, &outcome);
        if let Some(order) = p.order {
            self.order_ends(order, &p, end);
        } else if matches!(request.op, Some(Op::Cdb { .. })) {
            self.is_exact(&p, end);
            self.swapped(&p, end);
        }
        if good {
            self.is_durable(&p.meaning, request.durable, p.start);
        }
        for &writing in &p.writes {
            self.shadow.end(self.moment, writing, good);
        }
        if let (Op::Read(extent), true) = (p.meaning, good) {
            self.has_read(extent, &p);
        }
        self.free_heads.push(head);
    }

    /// A read was answered: with what the blocks held, and no more.
    fn has_read(&mut self, extent: Extent, p: &Pending) {
        let memory = p.memory.expect("a read has memory");
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.resize(memory.len, 0);
        copy::copy_in(&[memory], 0, &mut bytes);
        let (data, rest) = bytes.split_at(usize::try_from(extent.blocks.0).unwrap() * BLOCK);
        assert!(rest.iter().all(|b| *b == UNTOUCHED), "more than was read has changed");
        for (block, data) in (extent.lba.0..).zip(data.chunks_exact(BLOCK)) {
            let value = u64::from_le_bytes(data[..8].try_into().unwrap());
            assert!(data[8..] == data[..BLOCK - 8], "block {block} is torn");
            if let Err(why) = self.shadow.read(p.start, self.moment, block, value) {
                panic!("stale or lost: {why}");
            }
        }
        self.scratch = bytes;
    }

    /// Law 9: what is flushed, or was to be durable, survives a power failure,
    /// unless something else was written to the block meanwhile.
    fn is_durable(&self, op: &Op, durable: bool, start: u64) {
        let blocks = match *op {
            Op::Flush => 0..BLOCKS,
            Op::Write { extent, fua: true } => extent.lba.0..extent.end().unwrap().0,
            Op::WriteZeroes { extent, .. } if durable => extent.lba.0..extent.end().unwrap().0,
            _ => return,
        };
        let blocks = usize::try_from(blocks.start).unwrap()..usize::try_from(blocks.end).unwrap();
        let lost = self.dirty.among(blocks).find(|block| self.shadow.settled(*block, start));
        assert_eq!(lost, None, "this block is not durable after {op:?}");
    }

    /// Whether the guest may be told this.
    fn allowed(&self, p: &Pending, outcome: &Outcome) {
        match outcome {
            Outcome::Good => {}
            _ if self.is_written_down(outcome) => {}
            Outcome::Lu { status: Status::GOOD, .. } => assert!(self.scsi.is_some()),
            Outcome::Aborted { .. } => assert!(p.aborted.is_some(), "aborted by nobody"),
            Outcome::Lu { status: Status::RESERVATION_CONFLICT, .. } => {
                let laws = self.hosts.as_ref().map(|hosts| &hosts.laws);
                let cdb = match p.meaning {
                    Op::Read(extent) => Cdb::read(extent).ok(),
                    _ => None,
                };
                let may = p.order.is_some()
                    || laws.is_some_and(|laws| laws.may_conflict(p.start, cdb.as_ref()));
                let of = self.array.reservations(vhost_mpath::sim::LuId(0)).to_words();
                assert!(may, "a conflict that a guest with one path would not meet: {of} {p:?}");
            }
            // The LU's refusals are looked at elsewhere.
            Outcome::Lu { status: Status::CHECK_CONDITION, .. } if p.order.is_some() => {}
            Outcome::NoPath if p.order.is_some() => {}
            Outcome::Lu { status: Status::BUSY, .. } if p.order.is_some() => {}
            Outcome::Stopped => assert!(self.stopping.is_some(), "stopped though nothing stops"),
            Outcome::NoPath | Outcome::TimedOut => {
                let may = p.submitted <= self.progress.may_fail;
                assert!(may, "an error while queueing: {outcome:?} under {:?}", self.policy);
            }
            // After the command's time budget.
            Outcome::Lu { status: Status::BUSY | Status::TASK_SET_FULL, .. } => {
                assert!(self.busy, "{outcome:?}");
            }
            // Every path said so, of a command that may not fit its buffers.
            Outcome::Host(libc::EIO) => {
                assert!(self.scsi.is_some() && self.host_errors && p.swap.is_none());
            }
            Outcome::Host(libc::ENODATA) => assert!(self.medium_errors),
            Outcome::Lu { status: Status::CHECK_CONDITION, sense, .. } if self.scsi.is_some() => {
                self.allowed_raw(p, sense);
            }
            Outcome::Lu { status: Status::CHECK_CONDITION, sense, .. } => {
                // An aborted command is the LU's word once the paths left have been
                // asked twice and had nothing better to say.
                let word = sense.code();
                let medium = self.medium_errors && word == Some(MEDIUM_ERROR);
                let aborted = self.aborts > 0 && word == Some(CRC_ERROR);
                let not_ready = self.not_ready && word.is_some_and(|c| c.key == Key::NotReady);
                assert!(medium || aborted || not_ready, "{sense:?}");
            }
            other => panic!("the guest was told {other:?}"),
        }
    }
}
