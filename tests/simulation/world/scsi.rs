//! A guest that composes its own commands: what it sends, and what it may be
//! told.

use super::*;
use vhost_mpath::guest::copy;
use vhost_mpath::mpath::classify;
use vhost_mpath::scsi::block::Direction;
use vhost_mpath::scsi::cdb::Payload;
use vhost_mpath::scsi::sense::Sense;
use vhost_mpath::scsi::unmap;

/// COMPARE AND WRITE of one block, under way.
#[derive(Debug)]
pub(super) struct Swap {
    lba: u64,
    /// What the guest believes to be there.
    old: u64,
    new: u64,
    /// The write of `new`, in the shadow.
    writing: Writing,
}

/// Its result is unknown to everybody.
const UNKNOWN: SenseCode = SenseCode::IO_PROCESS_TERMINATED;

fn code_of(outcome: &Outcome) -> Option<SenseCode> {
    match outcome {
        Outcome::Lu { status: Status::CHECK_CONDITION, sense, .. } => sense.code(),
        _ => None,
    }
}

impl World {
    /// As the front does: a unit attention that waits ends the next command.
    pub(super) fn scsi_request(&mut self) {
        let Some(scsi) = &self.scsi else { return };
        if let Some(sense) = scsi.attentions.take() {
            self.guest_hears(&sense);
            return;
        }
        let Some(head) = self.free_heads.pop() else { return };
        self.moment += 1;
        self.totals.requests += 1;
        self.totals.steps += 1;
        let (mut request, pending) = self.compose(head);
        request.task = pending.serial;
        self.submit(head, request, pending);
    }

    fn compose(&mut self, head: u16) -> (Box<Request>, Pending) {
        let config = self.array.config();
        let (thin, same) = (config.thin, config.max_write_same_blocks);
        let most = match config.max_transfer_blocks {
            0 => LONGEST,
            n => u64::from(n),
        };
        let most = if self.random.one_in(8) { most } else { most.min(6) };
        let lba = self.random.below(BLOCKS - 64);
        let extent = Extent::new(lba, 1 + self.random.below(most));
        let few = |most: u64| Extent::new(lba, extent.blocks.0.min(most));
        match self.random.below(16) {
            0 => self.raw(head, Op::Flush, 0, 0),
            1 if thin => self.raw(head, Op::Unmap, 0, extent.blocks.0.min(16)),
            2 => {
                let unmap = thin && self.random.one_in(2);
                self.raw(head, Op::WriteZeroes { extent: few(same), unmap }, 0, 0)
            }
            3..=6 => {
                let (value, fua) = (self.value(), self.random.one_in(3));
                self.raw(head, Op::Write { extent, fua }, value, 0)
            }
            7..=9 => self.compare_and_write(head, lba),
            10 => {
                let cdb = Cdb::test_unit_ready();
                self.marked(head, Op::Cdb { cdb, direction: Direction::None }, None)
            }
            _ => self.raw(head, Op::Read(extent), 0, 0),
        }
    }

    fn value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }

    /// The CDB that stands for a block operation, and its data. `blocks`: of
    /// an UNMAP.
    fn raw(&mut self, head: u16, op: Op, value: u64, blocks: u64) -> (Box<Request>, Pending) {
        let mut extents = Vec::new();
        if op == Op::Unmap {
            let lba = self.random.below(BLOCKS - 64);
            extents = vec![Extent::new(lba, blocks), Extent::new(lba / 2, blocks.min(8))];
        }
        let (cdb, payload) = Cdb::from_op(&op, &extents).expect("encodable");
        let data = match payload {
            Payload::In => {
                let Op::Read(extent) = op else { unreachable!() };
                // Room that the command does not fill is left over exactly.
                let more = u64::from(self.random.one_in(4)) * (1 + self.random.below(3));
                let blocks = usize::try_from(extent.blocks.0 + more).unwrap();
                Some(self.untouched(head, blocks * BLOCK))
            }
            Payload::Out => {
                let Op::Write { extent, .. } = op else { unreachable!() };
                Some(self.filled_with(head, usize::try_from(extent.blocks.0).unwrap(), value))
            }
            Payload::UnmapList => {
                let mut list = Vec::new();
                unmap::encode(&extents, &mut list).expect("fits");
                let memory = self.untouched(head, list.len());
                copy::copy_out(&[memory], 0, &list);
                Some(memory)
            }
            Payload::ZeroBlock => Some(self.filled_with(head, 1, 0)),
            Payload::None => None,
        };
        let direction = match payload {
            Payload::None => Direction::None,
            Payload::In => Direction::In,
            Payload::Out | Payload::UnmapList | Payload::ZeroBlock => Direction::Out,
        };
        let written = match op {
            Op::Write { extent, .. } | Op::WriteZeroes { extent, .. } => vec![extent],
            _ => extents,
        };
        let (request, mut pending) = self.marked(head, Op::Cdb { cdb, direction }, data);
        pending.meaning = op;
        for e in written {
            pending.writes.push(self.shadow.begin(self.moment, e.lba.0, e.blocks.0, value));
            self.moment += 1;
        }
        (request, pending)
    }

    /// One block becomes another value, if it is what the guest thinks it is.
    fn compare_and_write(&mut self, head: u16, lba: u64) -> (Box<Request>, Pending) {
        let old = match self.random.one_in(5) {
            true => 0xbad,
            false => self.shadow.latest(lba),
        };
        let new = self.value();
        let mut raw = [0u8; 16];
        raw[0] = 0x89;
        raw[2..10].copy_from_slice(&lba.to_be_bytes());
        raw[13] = 1;
        let memory = self.filled_with(head, 2, new);
        let first = Segment { len: BLOCK, ..memory };
        copy::copy_out(&[first], 0, &old.to_le_bytes().repeat(BLOCK / 8));
        let cdb = Cdb::from_bytes(&raw).unwrap();
        let direction = Direction::Out;
        let (request, mut pending) = self.marked(head, Op::Cdb { cdb, direction }, Some(memory));
        let writing = self.shadow.begin(self.moment, lba, 1, new);
        pending.swap = Some(Swap { lba, old, new, writing });
        (request, pending)
    }

    /// A request whose first segment tells it from every other, though it may
    /// be empty.
    fn marked(&mut self, head: u16, op: Op, data: Option<Segment>) -> (Box<Request>, Pending) {
        let mut request = self.request(head);
        request.op = Some(op);
        let memory = match data.filter(|d| d.len > 0) {
            Some(memory) => {
                self.segments(memory, &mut request);
                memory
            }
            None => {
                let memory = self.untouched(head, BLOCK);
                request.data.push(Segment { len: 0, ..memory });
                memory
            }
        };
        self.serial += 1;
        let pending = self.pending_request(op);
        (request, Pending { memory: Some(memory), serial: self.serial, ..pending })
    }

    /// What the guest was told is what the array said, byte for byte, or one of
    /// the few things that are ours to say.
    pub(super) fn is_exact(&mut self, p: &Pending, end: &End) {
        let marker = p.memory.expect("each has some").addr;
        let said = self.wire.take_said(marker);
        let outcome = match end {
            End::Abandoned => return,
            End::Finished(outcome) => outcome,
        };
        if let Some(reset) = p.aborted {
            assert_eq!(*outcome, Outcome::Aborted { reset }, "it was aborted");
            self.totals.aborted += 1;
            return;
        }
        let word = |completion: &Completion| match *completion {
            Completion::Scsi { status, sense, residual, .. } => (status, sense, residual),
            _ => (Status::GOOD, Sense::EMPTY, 0),
        };
        match *outcome {
            Outcome::Good => {
                let last = said.last().map(word);
                assert_eq!(last, Some((Status::GOOD, Sense::EMPTY, 0)));
            }
            Outcome::Lu { sense, .. } if sense.code() == Some(UNKNOWN) => {
                assert!(p.swap.is_some(), "only what must not be repeated ends so");
                let last = said.last().expect("it was on a path");
                assert!(!classify::is_word_of_lu(last), "{last:?} was kept from the guest");
                self.totals.ambiguous += 1;
            }
            // Not always the last: a path that came into doubt has no say.
            Outcome::Lu { status, sense, residual } => {
                let exact = said.iter().any(|s| word(s) == (status, sense, residual));
                assert!(exact, "{outcome:?} is nothing the LU said: {said:?}");
            }
            Outcome::Aborted { .. } => panic!("aborted by nobody"),
            _ => {}
        }
    }

    /// Exactly once: COMPARE AND WRITE did what the guest was told, unless the
    /// guest was told that nobody knows.
    pub(super) fn swapped(&mut self, p: &Pending, end: &End) {
        let Some(swap) = &p.swap else { return };
        let outcome = match end {
            End::Abandoned => Outcome::Aborted { reset: false },
            End::Finished(outcome) => *outcome,
        };
        let unknown =
            matches!(outcome, Outcome::Aborted { .. }) || code_of(&outcome) == Some(UNKNOWN);
        match outcome {
            Outcome::Good => {
                self.totals.swapped += 1;
                let was = self.shadow.read(p.start, self.moment, swap.lba, swap.old);
                was.expect("it compared equal");
                self.shadow.end(self.moment, swap.writing, true);
            }
            _ if unknown => self.shadow.end(self.moment, swap.writing, false),
            Outcome::Host(_) | Outcome::TimedOut => panic!("the guest was told {outcome:?}"),
            // The LU's word, no path, a stop: it was not executed.
            _ => {
                self.totals.not_swapped += 1;
                self.shadow.never(swap.writing, swap.new);
            }
        }
    }

    /// Whether a guest that hears the LU's word may be told this.
    pub(super) fn allowed_raw(&self, p: &Pending, sense: &Sense) {
        let code = sense.code().expect("decodable");
        let word = match (code.key, code.asc) {
            (Key::UnitAttention, _) => true, // see `events.rs`
            (Key::Miscompare, 0x1d) => p.swap.is_some(),
            (Key::NotReady, 0x04) => code.ascq == 0x01 && self.not_ready,
            (Key::NotReady, 0x3a) => self.not_ready,
            _ => {
                code == UNKNOWN
                    || (code == MEDIUM_ERROR && self.medium_errors)
                    || (code == CRC_ERROR && self.aborts > 0)
            }
        };
        assert!(word, "the guest was told {code}");
    }
}
