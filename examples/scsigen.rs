//! A vhost-user-scsi guest by hand, on the front-end double of the
//! integration tests: for the test beds with a kernel's own SCSI.
//!
//! `--mode say` sends what the lines of standard input say, one after the
//! other, and prints one line of answer each: a CDB in hex, then words
//! `in=BYTES`, `out=HEX`, `zeroes=BYTES`, `lun=T:L`; or `tmf=NUMBER`, or
//! `wait=MILLISECONDS`. `--mode verify` keeps every queue full of READ, WRITE
//! and COMPARE AND WRITE of the disk's first part against a shadow copy, TEST
//! UNIT READY and INQUIRY among them if `--ask` wants them, and
//! ends with an error at the first wrong byte, at a COMPARE AND WRITE that
//! finds its own work, or at an answer that `--allow` does not name. What is
//! on the disk is lost then.
#![allow(clippy::disallowed_methods)] // a load generator watches the clock

use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use harness::cdb;
use harness::front_end::{FrontEnd, Shape};
use harness::random::Random;
use harness::scsi_queue::{Answer, ScsiQueue, Task, lun, response_name};
use harness::shadow::{Mismatch, SECTOR, Shadow, fill};
use harness::slot_queue::{Done, Manner, PATIENCE};

#[path = "../tests/integration/harness"]
#[allow(dead_code, unused_imports)] // of what the stories use
mod harness {
    pub(crate) mod blk_queue;
    pub(crate) mod cdb;
    pub(crate) mod front_end;
    pub(crate) mod guest;
    #[path = "../../simulation/random.rs"]
    pub(crate) mod random;
    pub(crate) mod scsi_queue;
    pub(crate) mod shadow;
    pub(crate) mod slot_queue;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// One command after the other from standard input.
    Say,
    /// Random commands, every answer checked.
    Verify,
}

/// A guest by hand for a vhost-user-scsi back-end.
#[derive(Debug, Parser)]
struct Options {
    /// The back-end's socket.
    #[arg(long)]
    socket: PathBuf,
    #[arg(long, value_enum, default_value = "say")]
    mode: Mode,
    /// Request queues.
    #[arg(long, default_value_t = 1)]
    queues: u16,
    /// Commands at once on each queue.
    #[arg(long, default_value_t = 16)]
    depth: u16,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Beginning of the random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Bytes of the disk that are used.
    #[arg(long, default_value_t = 16 << 20)]
    span: u64,
    /// Most pieces that a command's data lies in.
    #[arg(long, default_value_t = 3)]
    pieces: u32,
    /// COMPARE AND WRITE among a hundred commands.
    #[arg(long, default_value_t = 15)]
    compare: u64,
    /// TEST UNIT READY and INQUIRY among a hundred of the other commands.
    #[arg(long, default_value_t = 0)]
    ask: u64,
    /// In verify mode: end before `--seconds`, when this file appears.
    #[arg(long)]
    until: Option<PathBuf>,
    /// Beginnings of answers that are no error, as `06/` or `0b/00/06`.
    #[arg(long, value_delimiter = ',')]
    allow: Vec<String>,
}

/// Queues before the first that takes commands.
const FIXED: usize = 2;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap_or(0)).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An answer in one line; data beyond 512 bytes as a checksum.
fn line(answer: &Answer) -> String {
    let Answer { response, status, residual, sense, data, .. } = answer;
    let data = if data.len() > 512 {
        let sum = data.iter().fold(0_u32, |sum, &b| sum.wrapping_mul(31).wrapping_add(b.into()));
        format!("sum:{sum:08x}")
    } else {
        to_hex(data)
    };
    let (response, sense) = (response_name(*response), to_hex(sense));
    format!("{response} status={status:02x} resid={residual} sense={sense} data={data}")
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

fn say(front_end: &mut FrontEnd<ScsiQueue>) {
    for text in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (mut cdb, mut out, mut data_in, mut to) = (Vec::new(), Vec::new(), 0, lun(0, 0));
        let mut function = None;
        for word in text.split_whitespace() {
            match word.split_once('=') {
                None => cdb = hex(word),
                Some(("in", n)) => data_in = u32::try_from(number(n)).expect("small"),
                Some(("out", bytes)) => out = hex(bytes),
                Some(("zeroes", n)) => out = vec![0; usize::try_from(number(n)).expect("small")],
                Some(("lun", place)) => {
                    let (t, l) = place.split_once(':').expect("T:L");
                    let target = u8::try_from(number(t)).expect("a byte");
                    to = lun(target, u16::try_from(number(l)).expect("two bytes"));
                }
                Some(("tmf", n)) => function = Some(u32::try_from(number(n)).expect("small")),
                Some(("wait", n)) => std::thread::sleep(Duration::from_millis(number(n))),
                Some(_) => panic!("what is {word}?"),
            }
        }
        let said = if let Some(function) = function {
            front_end.queues[0].run_tmf(function, to, 0).to_owned()
        } else if cdb.is_empty() {
            continue;
        } else {
            let mut task = Task::new(&cdb).to(to).reading(data_in);
            if !out.is_empty() {
                task = task.writing(&out);
            }
            line(&front_end.queues[FIXED].run(&task))
        };
        println!("{text} -> {said}");
    }
}

/// What a command in flight will have done.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Read,
    Write(u32),
    /// From one version to another.
    Swap(u32, u32),
    /// TEST UNIT READY or INQUIRY, which must have as much data.
    Ask(usize),
}

#[derive(Clone, Copy, Debug)]
struct Out {
    sector: u64,
    sectors: u64,
    effect: Effect,
    since: Instant,
}

struct Load {
    random: Random,
    shadow: Shadow,
    sectors: u64,
    /// COMPARE AND WRITE among a hundred commands.
    compare: u64,
    /// TEST UNIT READY and INQUIRY among a hundred of the others.
    ask: u64,
    out: HashMap<(usize, u64), Out>,
    counts: BTreeMap<String, u64>,
    first: BTreeMap<String, String>,
    slowest: Duration,
}

impl Load {
    fn submit_ask(&mut self, index: usize, queue: &mut ScsiQueue) {
        let inquiry = self.random.below(2) == 0;
        let (cdb, room) = if inquiry { ([0x12, 0, 0, 0, 36, 0], 36) } else { ([0; 6], 0) };
        let token = queue.submit(&Task::new(&cdb).reading(room)).expect("room was looked for");
        let effect = Effect::Ask(usize::try_from(room).expect("few"));
        self.out
            .insert((index, token), Out { sector: 0, sectors: 0, effect, since: Instant::now() });
    }

    fn submit_one(&mut self, index: usize, queue: &mut ScsiQueue) -> Option<()> {
        if self.random.below(100 + self.ask) >= 100 {
            self.submit_ask(index, queue);
            return Some(());
        }
        let swap = self.random.below(100) < self.compare;
        let dice = if swap { 0 } else { 15 + self.random.below(85) };
        let sectors = if swap { 1 } else { 1 + self.random.below(16) };
        let sector = self.random.below(self.sectors - sectors);
        let count = u32::try_from(sectors).expect("few");
        let bytes = usize::try_from(sectors).expect("few") * SECTOR;
        let mut data = vec![0; bytes];
        let (token, effect) = match dice {
            0..15 => {
                let old = self.shadow.certain(sector)?;
                let new = self.shadow.begin_write(sector, 1)?;
                fill(&mut data, sector, old);
                data.resize(2 * SECTOR, 0);
                fill(&mut data[SECTOR..], sector, new);
                let cdb = cdb::compare_and_write(sector, 1);
                (queue.submit(&Task::new(&cdb).writing(&data)), Effect::Swap(old, new))
            }
            15..55 => {
                self.shadow.begin_read(sector, sectors).then_some(())?;
                let cdb = cdb::blocks(if dice < 35 { 0x28 } else { 0x88 }, sector, count);
                let room = u32::try_from(bytes).expect("few");
                (queue.submit(&Task::new(&cdb).reading(room)), Effect::Read)
            }
            _ => {
                let version = self.shadow.begin_write(sector, sectors)?;
                fill(&mut data, sector, version);
                let cdb = cdb::blocks(if dice < 80 { 0x2a } else { 0x8a }, sector, count);
                (queue.submit(&Task::new(&cdb).writing(&data)), Effect::Write(version))
            }
        };
        let token = token.expect("room was looked for");
        let since = Instant::now();
        self.out.insert((index, token), Out { sector, sectors, effect, since });
        Some(())
    }

    fn judge(&mut self, index: usize, queue: &ScsiQueue, done: &Done) {
        let out = self.out.remove(&(index, done.token)).expect("ours");
        let Out { sector, sectors, effect, since } = out;
        self.slowest = self.slowest.max(since.elapsed());
        let answer = queue.answer(done);
        let said = answer.to_string();
        let good = answer.is_good() && answer.residual == 0;
        let said = if answer.is_good() && !good { "GOOD, but less".to_owned() } else { said };
        *self.counts.entry(said.clone()).or_default() += 1;
        self.first.entry(said.clone()).or_insert_with(|| format!("{out:?}"));
        let verdict: Result<(), Mismatch> = match effect {
            Effect::Read => self.shadow.end_read(sector, sectors, good.then_some(&answer.data[..])),
            Effect::Write(version) => {
                self.shadow.end_write(sector, sectors, version, good);
                Ok(())
            }
            Effect::Swap(_, new) if good => {
                self.shadow.end_write(sector, sectors, new, true);
                Ok(())
            }
            Effect::Ask(bytes) => {
                assert!(!good || answer.data.len() == bytes, "{out:?}: {answer:02x?}");
                Ok(())
            }
            // A unit attention says that nothing was carried out.
            Effect::Swap(old, _) if said.starts_with("06/") => {
                self.shadow.end_write(sector, sectors, old, true);
                Ok(())
            }
            Effect::Swap(old, new) => {
                assert!(
                    !said.starts_with("0e/"),
                    "{old} to {new} at {sector} miscompared: {answer:02x?}"
                );
                self.shadow.end_write(sector, sectors, new, false);
                Ok(())
            }
        };
        if let Err(mismatch) = verdict {
            panic!("{out:?}: {mismatch}");
        }
    }

    fn reap(&mut self, queues: &mut [ScsiQueue]) -> usize {
        let mut count = 0;
        for (index, queue) in queues.iter_mut().enumerate() {
            while let Some(done) = queue.poll() {
                self.judge(index, queue, &done);
                count += 1;
            }
        }
        count
    }

    fn run(&mut self, queues: &mut [ScsiQueue], options: &Options) {
        let until = Instant::now() + Duration::from_secs_f64(options.seconds);
        let is_wanted = || options.until.as_ref().is_none_or(|file| !file.exists());
        while Instant::now() < until && is_wanted() {
            for (index, queue) in queues.iter_mut().enumerate() {
                for _ in 0..queue.room(12) {
                    let _ = self.submit_one(index, queue);
                }
                queue.kick();
            }
            if self.reap(queues) == 0 {
                queues[0].sleep(Duration::from_millis(1));
            }
        }
        let until = Instant::now() + PATIENCE;
        while !self.out.is_empty() {
            assert!(Instant::now() < until, "not answered: {:?}", self.out);
            if self.reap(queues) == 0 {
                queues[0].sleep(Duration::from_millis(1));
            }
        }
    }

    /// One range, over unit attentions.
    fn carry(&mut self, queue: &mut ScsiQueue, task: &Task<'_>) -> Answer {
        loop {
            let answer = queue.run(task);
            let said = answer.to_string();
            if answer.is_good() {
                return answer;
            }
            assert!(said.starts_with("06/"), "{said} of {:02x?}", task.cdb);
            *self.counts.entry(said).or_default() += 1;
        }
    }

    /// Every block of the part that is used, for the first time or the last.
    fn sweep(&mut self, queue: &mut ScsiQueue, zero: bool) {
        let zeroes = [0; 64 * SECTOR];
        for sector in (0..self.sectors).step_by(64) {
            let sectors = 64.min(self.sectors - sector);
            let count = u32::try_from(sectors).expect("few");
            let bytes = usize::try_from(sectors).expect("few") * SECTOR;
            let cdb = cdb::blocks(if zero { 0x8a } else { 0x88 }, sector, count);
            if zero {
                self.carry(queue, &Task::new(&cdb).writing(&zeroes[..bytes]));
                continue;
            }
            let room = u32::try_from(bytes).expect("few");
            let answer = self.carry(queue, &Task::new(&cdb).reading(room));
            if let Err(mismatch) = self.shadow.verify(sector, &answer.data) {
                panic!("reading back: {mismatch}");
            }
        }
    }
}

/// True if no answer was out of order.
fn verify(options: &Options, front_end: &mut FrontEnd<ScsiQueue>) -> bool {
    let queues = &mut front_end.queues[FIXED..];
    let sectors = options.span / 512;
    let mut load = Load {
        random: Random::new(options.seed),
        shadow: Shadow::new(sectors),
        sectors,
        compare: options.compare,
        ask: options.ask,
        out: HashMap::new(),
        counts: BTreeMap::new(),
        first: BTreeMap::new(),
        slowest: Duration::ZERO,
    };
    load.sweep(&mut queues[0], true);
    println!("scsigen: verifying");
    load.run(queues, options);
    load.sweep(&mut queues[0], false);
    let allowed = |said: &str| {
        said == "GOOD" || options.allow.iter().any(|beginning| said.starts_with(beginning.as_str()))
    };
    let bad: Vec<_> = load.first.iter().filter(|(said, _)| !allowed(said)).collect();
    println!("scsigen: {:?}, slowest {:.1?}", load.counts, load.slowest);
    for (said, out) in &bad {
        println!("scsigen: error: {said} of {out}");
    }
    bad.is_empty()
}

fn main() -> ExitCode {
    let options = Options::parse();
    let usual = Shape::default();
    let depth = usize::from(options.depth);
    let slot_bytes = if options.mode == Mode::Say { 4 << 20 } else { 64 << 10 };
    let depth = if options.mode == Mode::Say { 2 } else { depth };
    let pieces = options.pieces;
    let manner = Manner { depth, slot_bytes, size: 256, pieces, ..usual.manner };
    let queues = options.queues + u16::try_from(FIXED).expect("two");
    let mut front_end: FrontEnd<ScsiQueue> =
        FrontEnd::prepare(&options.socket, Shape { queues, manner, ..usual });
    front_end.reconnect();
    let good = match options.mode {
        Mode::Say => {
            say(&mut front_end);
            true
        }
        Mode::Verify => verify(&options, &mut front_end),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
