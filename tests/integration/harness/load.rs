//! A random load on a disk, with its shadow: reads, writes, flushes, discards
//! and zeroes of any size at any place, many at a time, each answer checked.
//!
//! Requests under way never overlap unless both read (see `shadow`), so that
//! every sector has one right answer however the device orders them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use vhost_mpath::virtio::blk::{RangeSegment, RequestType, SEGMENT_F_UNMAP};

use super::blk_queue::{BlkQueue, Done, PATIENCE, Payload};
use super::random::Random;
use super::shadow::{SECTOR, Shadow, fill};

/// Bytes of each read of [`Load::read_back`]: a slot of the queue is no smaller.
pub(crate) const READ_BACK: u32 = 64 * 512;

/// What a request in flight will have done.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Read,
    Write(u32),
    Zero,
    Discard,
    None,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    kind: RequestType,
    sector: u64,
    sectors: u64,
    effect: Effect,
    since: Instant,
}

/// Proportions and sizes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    /// Sectors of the disk that are used.
    pub(crate) sectors: u64,
    /// Sectors of a logical block.
    pub(crate) block: u64,
    /// Most blocks of a request.
    pub(crate) most: u64,
    /// DISCARD and WRITE_ZEROES too.
    pub(crate) zeroes: bool,
}

/// See the module.
pub(crate) struct Load {
    mix: Mix,
    random: Random,
    shadow: Shadow,
    out: HashMap<(usize, u64), Out>,
    buffer: Vec<u8>,
    /// Requests answered with success.
    pub(crate) good: u64,
    /// Requests answered otherwise, in words.
    pub(crate) failed: Vec<String>,
    /// The longest that any took.
    pub(crate) slowest: Duration,
}

impl Load {
    /// On a disk that reads as zeroes.
    pub(crate) fn new(seed: u64, mix: Mix) -> Load {
        Load {
            mix,
            random: Random::new(seed),
            shadow: Shadow::new(mix.sectors),
            out: HashMap::new(),
            buffer: Vec::new(),
            good: 0,
            failed: Vec::new(),
            slowest: Duration::ZERO,
        }
    }

    /// Makes one request if a free range is found; nothing is kicked.
    fn submit_one(&mut self, index: usize, queue: &mut BlkQueue) -> bool {
        let blocks = 1 + self.random.below(self.mix.most);
        let sectors = blocks * self.mix.block;
        let sector =
            self.random.below((self.mix.sectors - sectors) / self.mix.block) * self.mix.block;
        let dice = self.random.below(100);
        let (kind, effect) = match dice {
            0..45 => (RequestType::In, Effect::Read),
            45..50 => (RequestType::Flush, Effect::None),
            50..54 if self.mix.zeroes => (RequestType::WriteZeroes, Effect::Zero),
            54..58 if self.mix.zeroes => (RequestType::Discard, Effect::Discard),
            _ => (RequestType::Out, Effect::Write(0)),
        };
        let effect = match effect {
            Effect::None => Effect::None,
            Effect::Read if !self.shadow.begin_read(sector, sectors) => return false,
            Effect::Read => Effect::Read,
            changing => match self.shadow.begin_write(sector, sectors) {
                None => return false,
                Some(version) => match changing {
                    Effect::Write(_) => Effect::Write(version),
                    other => other,
                },
            },
        };
        let bytes = usize::try_from(sectors).expect("few") * SECTOR;
        let token = match effect {
            Effect::None => queue.submit(kind, 0, Payload::None, 0),
            Effect::Read => {
                let len = u32::try_from(bytes).expect("few");
                queue.submit(kind, sector, Payload::None, len)
            }
            Effect::Write(version) => {
                self.buffer.resize(bytes, 0);
                fill(&mut self.buffer, sector, version);
                queue.submit(kind, sector, Payload::Bytes(&self.buffer), 0)
            }
            Effect::Zero | Effect::Discard => {
                let unmap = matches!(effect, Effect::Zero) && self.random.one_in(2);
                let range = RangeSegment {
                    sector,
                    num_sectors: u32::try_from(sectors).expect("few"),
                    flags: if unmap { SEGMENT_F_UNMAP } else { 0 },
                };
                queue.submit(kind, 0, Payload::Bytes(&range.encode()), 0)
            }
        };
        let token = token.expect("room was looked for");
        let since = Instant::now();
        self.out.insert((index, token), Out { kind, sector, sectors, effect, since });
        true
    }

    /// Tops every queue up with new requests and kicks.
    pub(crate) fn submit(&mut self, queues: &mut [BlkQueue]) {
        for (index, queue) in queues.iter_mut().enumerate() {
            // Some rings are too small for the depth: `submit` sees to chains
            // of up to a dozen descriptors.
            for _ in 0..queue.room(12) {
                self.submit_one(index, queue);
            }
            queue.kick();
        }
    }

    /// Takes and checks what came back; how many.
    pub(crate) fn reap(&mut self, queues: &mut [BlkQueue]) -> usize {
        let mut count = 0;
        for (index, queue) in queues.iter_mut().enumerate() {
            while let Some(done) = queue.poll() {
                self.judge(index, queue, &done);
                count += 1;
            }
        }
        count
    }

    fn judge(&mut self, index: usize, queue: &BlkQueue, done: &Done) {
        let out = self.out.remove(&(index, done.token)).expect("ours");
        let Out { kind, sector, sectors, effect, since } = out;
        self.slowest = self.slowest.max(since.elapsed());
        let good = done.status == 0;
        if good {
            self.good += 1;
        } else {
            let status = done.status;
            self.failed.push(format!("{kind:?} of {sectors} at {sector}: status {status}"));
        }
        let verdict = match effect {
            Effect::None => Ok(()),
            Effect::Read if good => {
                let data = queue.data(done);
                assert_eq!(done.used_len as usize, data.len() + 1);
                self.shadow.end_read(sector, sectors, Some(&data))
            }
            Effect::Read => self.shadow.end_read(sector, sectors, None),
            Effect::Write(version) => {
                self.shadow.end_write(sector, sectors, version, good);
                Ok(())
            }
            Effect::Zero => {
                self.shadow.end_zero(sector, sectors, good);
                Ok(())
            }
            Effect::Discard => {
                self.shadow.end_zero(sector, sectors, false);
                Ok(())
            }
        };
        if let Err(mismatch) = verdict {
            panic!("{kind:?} of {sectors} at {sector}: {mismatch}");
        }
    }

    /// Keeps the queues full for a while.
    pub(crate) fn run(&mut self, queues: &mut [BlkQueue], time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.submit(queues);
            if self.reap(queues) == 0 {
                let turn = usize::try_from(self.random.below(queues.len() as u64)).expect("few");
                queues[turn].sleep(Duration::from_millis(1));
            }
        }
    }

    /// Waits for everything that is out.
    pub(crate) fn settle(&mut self, queues: &mut [BlkQueue]) {
        for (index, queue) in queues.iter_mut().enumerate() {
            while queue.outstanding() > 0 {
                match queue.wait(PATIENCE) {
                    Some(done) => self.judge(index, queue, &done),
                    None => panic!("not answered: {:?}", self.out),
                }
            }
        }
        assert!(self.out.is_empty());
    }

    /// Reads the whole disk and compares.
    pub(crate) fn read_back(&mut self, queue: &mut BlkQueue) {
        let step = u64::from(READ_BACK / 512).min(self.mix.sectors);
        for sector in (0..self.mix.sectors).step_by(usize::try_from(step).expect("few")) {
            let sectors = step.min(self.mix.sectors - sector);
            let bytes = u32::try_from(sectors).expect("few") * 512;
            let done = queue.run(RequestType::In, sector, Payload::None, bytes);
            assert_eq!(done.status, 0, "reading back at {sector}");
            if let Err(mismatch) = self.shadow.verify(sector, &queue.data(&done)) {
                panic!("reading back: {mismatch}");
            }
        }
    }
}
