//! A random load of SCSI commands on a LU, with its shadow: every command that
//! reads, writes, compares, verifies or unmaps blocks, in every length its CDB
//! comes in, many at a time, each answer checked.
//!
//! As in `load`, commands under way do not overlap unless both read. COMPARE
//! AND WRITE tells whether a command was carried out twice: it compares with
//! what is there, so that a second time it miscompares.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::cdb;
use super::random::Random;
use super::scsi_queue::{Answer, ScsiQueue, Task};
use super::shadow::{SECTOR, Shadow, fill};
use super::slot_queue::{Done, PATIENCE};

/// What a command in flight will have done.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Read,
    /// Compared, and found equal.
    Verify,
    Write(u32),
    /// The same, not idempotent.
    CompareAndWrite(u32),
    Zero,
    Unmap,
    None,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    opcode: u8,
    sector: u64,
    sectors: u64,
    effect: Effect,
}

/// See the module.
pub(crate) struct ScsiLoad {
    sectors: u64,
    random: Random,
    shadow: Shadow,
    out: HashMap<(usize, u64), Out>,
    /// No commands that may rightly take minutes, which a path that swallows
    /// them keeps for so long.
    pub(crate) only_quick: bool,
    /// Commands answered GOOD, by operation code.
    pub(crate) good: BTreeMap<u8, u64>,
    /// COMPARE AND WRITEs whose fate the guest was not told.
    pub(crate) unknown: u64,
    /// Unit attentions the guest heard.
    pub(crate) attentions: Vec<String>,
    /// Commands answered otherwise, in words.
    pub(crate) failed: Vec<String>,
}

const READS: [u8; 4] = [0x08, 0x28, 0xa8, 0x88];
const WRITES: [u8; 7] = [0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e];
const VERIFIES: [u8; 3] = [0x2f, 0xaf, 0x8f];
const WRITE_SAMES: [u8; 2] = [0x41, 0x93];
/// Every operation code of the load.
pub(crate) const ALL: [u8; 19] = [
    0x08, 0x0a, 0x28, 0x2a, 0x2e, 0x2f, 0x35, 0x41, 0x42, 0x88, 0x89, 0x8a, 0x8e, 0x8f, 0x93, 0xa8,
    0xaa, 0xae, 0xaf,
];

impl ScsiLoad {
    /// On the first `sectors` of a LU with 512-byte blocks that reads as
    /// zeroes.
    pub(crate) fn new(seed: u64, sectors: u64) -> ScsiLoad {
        ScsiLoad {
            sectors,
            random: Random::new(seed),
            shadow: Shadow::new(sectors),
            out: HashMap::new(),
            only_quick: false,
            good: BTreeMap::new(),
            unknown: 0,
            attentions: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Commands answered GOOD.
    pub(crate) fn total(&self) -> u64 {
        self.good.values().sum()
    }

    /// A command that may be made now: its CDB, data-out, room for data-in.
    fn compose(&mut self) -> Option<(Out, Vec<u8>, Vec<u8>, u32)> {
        let dice = self.random.below(if self.only_quick { 82 } else { 100 });
        let most = if dice < 60 { 24 } else { 4 };
        let sectors = 1 + self.random.below(most);
        let sector = self.random.below(self.sectors - sectors);
        let count = u32::try_from(sectors).expect("few");
        let bytes = usize::try_from(sectors).expect("few") * SECTOR;
        let out = |opcode, sectors, effect| Out { opcode, sector, sectors, effect };
        let mut data = vec![0; bytes];
        Some(match dice {
            0..32 => {
                let opcode = self.random.pick(&READS);
                self.shadow.begin_read(sector, sectors).then_some(())?;
                let room = u32::try_from(bytes).expect("few");
                let cdb = cdb::blocks(opcode, sector, count);
                (out(opcode, sectors, Effect::Read), cdb, Vec::new(), room)
            }
            32..60 => {
                let opcode = self.random.pick(&WRITES);
                let version = self.shadow.begin_write(sector, sectors)?;
                fill(&mut data, sector, version);
                let cdb = cdb::blocks(opcode, sector, count);
                (out(opcode, sectors, Effect::Write(version)), cdb, data, 0)
            }
            60..75 => {
                let old = self.shadow.certain(sector)?;
                let new = self.shadow.begin_write(sector, 1)?;
                let mut data = vec![0; 2 * SECTOR];
                fill(&mut data[..SECTOR], sector, old);
                fill(&mut data[SECTOR..], sector, new);
                let cdb = cdb::compare_and_write(sector, 1);
                (out(0x89, 1, Effect::CompareAndWrite(new)), cdb, data, 0)
            }
            75..82 => {
                let opcode = self.random.pick(&VERIFIES);
                let versions: Option<Vec<u32>> =
                    (sector..sector + sectors).map(|s| self.shadow.certain(s)).collect();
                let versions = versions?;
                self.shadow.begin_read(sector, sectors).then_some(())?;
                for (n, version) in versions.into_iter().enumerate() {
                    fill(&mut data[n * SECTOR..][..SECTOR], sector + n as u64, version);
                }
                let mut cdb = cdb::blocks(opcode, sector, count);
                cdb[1] = 0x02; // BYTCHK
                (out(opcode, sectors, Effect::Verify), cdb, data, 0)
            }
            82..90 => {
                let opcode = self.random.pick(&WRITE_SAMES);
                let version = self.shadow.begin_write(sector, sectors)?;
                let mut cdb = cdb::blocks(opcode, sector, count);
                if sectors == 1 {
                    fill(&mut data, sector, version);
                    (out(opcode, 1, Effect::Write(version)), cdb, data, 0)
                } else if opcode == 0x93 && self.random.one_in(2) {
                    cdb[1] = 0x01; // NDOB
                    (out(opcode, sectors, Effect::Zero), cdb, Vec::new(), 0)
                } else {
                    (out(opcode, sectors, Effect::Zero), cdb, vec![0; SECTOR], 0)
                }
            }
            90..95 => {
                self.shadow.begin_write(sector, sectors)?;
                let (cdb, list) = cdb::unmap(sector, count);
                (out(0x42, sectors, Effect::Unmap), cdb.to_vec(), list, 0)
            }
            _ => (out(0x35, 0, Effect::None), cdb::blocks(0x35, 0, 0), Vec::new(), 0),
        })
    }

    /// Tops every queue up with new commands and kicks.
    pub(crate) fn submit(&mut self, queues: &mut [ScsiQueue]) {
        for (index, queue) in queues.iter_mut().enumerate() {
            for _ in 0..queue.room(8) {
                let Some((out, cdb, data, room)) = self.compose() else { continue };
                let mut task = Task::new(&cdb).named(self.random.below(1 << 40)).reading(room);
                if !data.is_empty() {
                    task = task.writing(&data);
                }
                let token = queue.submit(&task).expect("room was looked for");
                self.out.insert((index, token), out);
            }
            queue.kick();
        }
    }

    /// Takes and checks what came back; how many.
    pub(crate) fn reap(&mut self, queues: &mut [ScsiQueue]) -> usize {
        let mut count = 0;
        for (index, queue) in queues.iter_mut().enumerate() {
            while let Some(done) = queue.poll() {
                self.judge(index, queue, &done);
                count += 1;
            }
        }
        count
    }

    fn judge(&mut self, index: usize, queue: &ScsiQueue, done: &Done) {
        let out = self.out.remove(&(index, done.token)).expect("ours");
        let answer = queue.answer(done);
        let good = self.note(&out, &answer);
        let Out { opcode, sector, sectors, effect } = out;
        let result = match effect {
            Effect::None => Ok(()),
            Effect::Read | Effect::Verify => {
                let data = (good && matches!(effect, Effect::Read)).then_some(&answer.data[..]);
                self.shadow.end_read(sector, sectors, data)
            }
            Effect::Write(version) | Effect::CompareAndWrite(version) => {
                self.shadow.end_write(sector, sectors, version, good);
                Ok(())
            }
            Effect::Zero => {
                self.shadow.end_zero(sector, sectors, good);
                Ok(())
            }
            Effect::Unmap => {
                self.shadow.end_zero(sector, sectors, false);
                Ok(())
            }
        };
        if let Err(mismatch) = result {
            panic!("{opcode:02x} of {sectors} at {sector}: {mismatch}");
        }
    }

    /// Counts an answer; whether it is GOOD.
    fn note(&mut self, out: &Out, answer: &Answer) -> bool {
        let word = answer.to_string();
        match (out.effect, word.as_str()) {
            (_, "GOOD") => {
                assert_eq!(answer.residual, 0, "{out:?}");
                *self.good.entry(out.opcode).or_default() += 1;
                return true;
            }
            // Ours, and what an array says that aborted it.
            (Effect::CompareAndWrite(_), "0b/00/06" | "0b/00/00") => self.unknown += 1,
            (_, attention) if attention.starts_with("06/") => self.attentions.push(word),
            _ => self.failed.push(format!("{out:?}: {word}")),
        }
        false
    }

    /// Keeps the queues full for a while.
    pub(crate) fn run(&mut self, queues: &mut [ScsiQueue], time: Duration) {
        let until = std::time::Instant::now() + time;
        while std::time::Instant::now() < until {
            self.submit(queues);
            if self.reap(queues) == 0 {
                let turn = usize::try_from(self.random.below(queues.len() as u64)).expect("few");
                queues[turn].sleep(Duration::from_millis(1));
            }
        }
    }

    /// Waits for everything that is out.
    pub(crate) fn settle(&mut self, queues: &mut [ScsiQueue]) {
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

    /// Reads every sector and compares.
    pub(crate) fn read_back(&mut self, queue: &mut ScsiQueue) {
        for sector in (0..self.sectors).step_by(64) {
            let count = 64.min(self.sectors - sector);
            let cdb = cdb::blocks(0x88, sector, u32::try_from(count).expect("few"));
            let room = u32::try_from(count).expect("few") * 512;
            let answer = queue.run(&Task::new(&cdb).reading(room));
            assert_eq!(answer.to_string(), "GOOD", "reading back at {sector}");
            if let Err(mismatch) = self.shadow.verify(sector, &answer.data) {
                panic!("reading back: {mismatch}");
            }
        }
    }
}
