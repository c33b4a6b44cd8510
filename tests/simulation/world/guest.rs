//! The guest: its requests and what it may be told.

use super::*;

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
        let lba = self.random.below(BLOCKS - 64);
        let most = if self.random.one_in(4) { 64 } else { 6 };
        let n = 1 + self.random.below(most);
        let extent = Extent::new(lba, n);
        let mut request = Box::<Request>::default();
        request.tag.head = head;
        let mut pending = Pending::new(None, self.moment, Op::Flush);
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
                let mut buffer = Buffer::zeroed(usize::try_from(n).unwrap() * BLOCK);
                buffer.write(&value.to_le_bytes().repeat(buffer.len() / 8));
                self.segments(buffer.segment(), &mut request);
                pending.writes.push(self.shadow.begin(self.moment, lba, n, value));
                pending.buffer = Some(buffer);
            }
            _ => {
                request.op = Some(Op::Read(extent));
                let buffer = Buffer::zeroed(usize::try_from(n).unwrap() * BLOCK);
                self.segments(buffer.segment(), &mut request);
                pending.buffer = Some(buffer);
            }
        }
        pending.meaning = request.op.expect("just set");
        self.pending.insert(head, pending);
        self.core.submit(request).expect("room");
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
        let p = self.pending.remove(&head).expect("each request ends once");
        if let Some(buffer) = &p.buffer {
            self.wire.borrow().nothing_uses(buffer.segment());
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
        if let Outcome::Lu { status: Status::CHECK_CONDITION, sense, .. } = &outcome {
            if sense.code().is_some_and(|c| c.key == Key::UnitAttention) {
                self.guest_hears(sense);
            }
        }
        self.allowed(&p, &outcome);
        if matches!(request.op, Some(Op::Cdb { .. })) {
            self.is_exact(&p, end);
            self.swapped(&p, end);
        }
        if good {
            self.is_durable(&p.meaning, request.durable, p.start);
        }
        for &handle in &p.writes {
            self.shadow.end(self.moment, handle, good);
        }
        if let (Op::Read(extent), true) = (p.meaning, good) {
            let bytes = p.buffer.as_ref().expect("a read has a buffer").to_vec();
            let read = usize::try_from(extent.blocks.0).unwrap() * BLOCK;
            assert!(bytes[read..].iter().all(|b| *b == 0xee), "more than was read has changed");
            for (block, data) in (extent.lba.0..).zip(bytes[..read].chunks(BLOCK)) {
                let value = u64::from_le_bytes(data[..8].try_into().unwrap());
                assert!(data.chunks(8).all(|c| c == &data[..8]), "block {block} is torn");
                if let Err(why) = self.shadow.read(p.start, self.moment, block, value) {
                    panic!("stale or lost: {why}");
                }
            }
        }
        self.free_heads.push(head);
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
        for block in blocks.map(|b| usize::try_from(b).unwrap()) {
            let lost = self.dirty.is(block) && self.shadow.settled(block, start);
            assert!(!lost, "block {block} is not durable after {op:?}");
        }
    }

    /// Whether the guest may be told this.
    fn allowed(&self, p: &Pending, outcome: &Outcome) {
        match outcome {
            Outcome::Good => {}
            Outcome::Lu { status: Status::GOOD, .. } => assert!(self.scsi.is_some()),
            Outcome::Aborted { .. } => assert!(p.aborted.is_some(), "aborted by nobody"),
            Outcome::Stopped => assert!(self.stopping.is_some(), "stopped though nothing stops"),
            Outcome::NoPath | Outcome::TimedOut => {
                assert_ne!(
                    self.policy.no_path_retry,
                    NoPathRetry::Queue,
                    "an error while queueing"
                );
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
                assert!(medium || aborted, "{sense:?}");
            }
            other => panic!("the guest was told {other:?}"),
        }
    }
}
