//! A load generator for any vhost-user-blk back-end, on the front-end double
//! of the integration tests.
//!
//! Prints one line of JSON: IOPS, latency, and what the back-end's process
//! spent per I/O. `--mode verify` writes and reads random ranges against a
//! shadow copy and ends with an error at the first wrong byte; the disk's
//! contents are lost in every mode but `read`.
#![allow(clippy::disallowed_methods)] // a load generator watches the clock

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_mpath::virtio::blk::{RangeSegment, RequestType};

use harness::blk_queue::{Done, PATIENCE, Payload};
use harness::front_end::{FrontEnd, Shape};
use harness::load::{Load, Mix, READ_BACK};
use harness::random::Random;
use harness::slot_queue::Manner;

#[path = "../tests/integration/harness"]
#[allow(dead_code)] // of what the stories use
mod harness {
    pub(crate) mod blk_queue;
    pub(crate) mod front_end;
    pub(crate) mod guest;
    pub(crate) mod load;
    #[path = "../../simulation/random.rs"]
    pub(crate) mod random;
    pub(crate) mod shadow;
    pub(crate) mod slot_queue;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Random reads.
    Read,
    /// Random writes of whatever the buffers hold.
    Write,
    /// Random requests of all types, every answer checked.
    Verify,
}

/// Load generator for a vhost-user-blk back-end.
#[derive(Debug, Parser)]
struct Options {
    /// The back-end's socket.
    #[arg(long)]
    socket: PathBuf,
    /// Request queues.
    #[arg(long, default_value_t = 1)]
    queues: u16,
    /// Requests at once on each queue.
    #[arg(long, default_value_t = 32)]
    depth: u16,
    /// Bytes of each request; in verify mode, of the largest.
    #[arg(long, default_value_t = 4096)]
    block_size: u32,
    #[arg(long, value_enum, default_value = "read")]
    mode: Mode,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// In verify mode: end before that, when this file appears.
    #[arg(long)]
    until: Option<PathBuf>,
    /// Look for answers all the time, without interrupts.
    #[arg(long, conflicts_with = "sleep")]
    poll: bool,
    /// Sleep until an interrupt comes (the default).
    #[arg(long)]
    sleep: bool,
    /// Process whose CPU time is counted.
    #[arg(long)]
    pid: Option<u32>,
    /// Beginning of the random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Bytes of the disk that are used; all of it, or 64 MiB in verify mode.
    #[arg(long)]
    span: Option<u64>,
    /// Pieces that the data of a request lie in.
    #[arg(long, default_value_t = 1)]
    pieces: u32,
    /// In verify mode: come back with the in-flight area, as QEMU does, when the
    /// daemon goes away. Prints each time.
    #[arg(long)]
    reconnect: bool,
    /// Do not ask for in-flight tracking.
    #[arg(long)]
    no_inflight: bool,
}

/// Small numbers only.
fn index(value: u64) -> usize {
    usize::try_from(value).expect("small")
}

/// What was measured.
struct Result {
    count: u64,
    time: Duration,
    latency: Histogram,
    /// In verify mode, which has no latencies of single requests.
    slowest: Option<Duration>,
}

/// Latencies in buckets of a sixteenth of their power of two.
struct Histogram {
    buckets: Vec<u64>,
}

impl Histogram {
    fn new() -> Histogram {
        Histogram { buckets: vec![0; 64 * 16] }
    }

    fn add(&mut self, nanoseconds: u64) {
        let value = nanoseconds.max(16);
        let power = value.ilog2();
        let sixteenth = (value >> (power - 4)) & 15;
        self.buckets[index(u64::from(power) * 16 + sixteenth)] += 1;
    }

    /// In microseconds: the lower end of the bucket that `share` falls into.
    fn percentile(&self, share: f64) -> f64 {
        let total: u64 = self.buckets.iter().sum();
        #[allow(clippy::cast_precision_loss)] // statistics
        let mut left = total as f64 * share;
        for (bucket, &count) in (0_u32..).zip(&self.buckets) {
            #[allow(clippy::cast_precision_loss)] // statistics
            let count = count as f64;
            left -= count;
            if left <= 0.0 && count > 0.0 {
                let (power, sixteenth) = (f64::from(bucket / 16), f64::from(bucket % 16));
                return power.exp2() * (1.0 + sixteenth / 16.0) / 1000.0;
            }
        }
        0.0
    }
}

/// CPU time of a process in nanoseconds, over its present threads.
fn cpu_time(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // Gone meanwhile: a thread that ended.
        let Ok(text) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
        sum += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(sum)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Keeps every queue full with requests of one kind.
fn steady(
    options: &Options,
    front_end: &mut FrontEnd,
    sectors: u64,
) -> std::result::Result<Result, String> {
    let mut random = Random::new(options.seed);
    let blocks = sectors * 512 / u64::from(options.block_size);
    let mut place = || random.below(blocks) * u64::from(options.block_size) / 512;
    let mut sinces =
        vec![vec![Instant::now(); index(options.depth.into())]; index(options.queues.into())];
    for queue in &mut front_end.queues {
        for _ in 0..options.depth {
            let token = match options.mode {
                Mode::Write => {
                    queue.submit(RequestType::Out, place(), Payload::AsIs(options.block_size), 0)
                }
                _ => queue.submit(RequestType::In, place(), Payload::None, options.block_size),
            };
            token.ok_or("the ring is too small")?;
        }
        if options.poll {
            queue.want_no_call();
        }
        queue.kick();
    }
    let latency = Histogram::new();
    let mut result = Result { count: 0, time: Duration::ZERO, latency, slowest: None };
    let begun = Instant::now();
    let limit = Duration::from_secs_f64(options.seconds);
    let mut came: Vec<Done> = Vec::with_capacity(usize::from(options.depth));
    let mut last = begun;
    loop {
        let mut any = false;
        for (queue, since) in front_end.queues.iter_mut().zip(&mut sinces) {
            came.clear();
            while let Some(done) = queue.poll() {
                came.push(done);
            }
            if came.is_empty() {
                continue;
            }
            any = true;
            let now = Instant::now();
            last = now;
            for done in &came {
                if done.status != 0 {
                    return Err(format!("a request failed with status {}", done.status));
                }
                result.latency.add(nanoseconds(now.duration_since(since[done.slot])));
                queue.again(done, place());
                since[done.slot] = now;
            }
            result.count += came.len() as u64;
            if options.poll {
                queue.want_no_call();
            }
            queue.kick();
        }
        if last.duration_since(begun) >= limit {
            break;
        }
        if !any {
            if last.elapsed() > PATIENCE {
                return Err(format!("nothing came back for {PATIENCE:?}"));
            }
            if !options.poll {
                front_end.queues[0].sleep(Duration::from_millis(100));
            }
        }
    }
    result.time = begun.elapsed();
    Ok(result)
}

/// Random requests against a shadow copy; wrong data panics with the place.
fn verify(options: &Options, front_end: &mut FrontEnd, sectors: u64, block: u64) -> Result {
    // The shadow begins with a disk of zeroes.
    for sector in (0..sectors).step_by(1 << 16) {
        let count = (sectors - sector).min(1 << 16);
        let num_sectors = u32::try_from(count).expect("at most 65536");
        let range = RangeSegment { sector, num_sectors, flags: 0 }.encode();
        let done = front_end.queue(0).run(RequestType::WriteZeroes, 0, Payload::Bytes(&range), 0);
        assert_eq!(done.status, 0, "zeroing the disk at sector {sector}");
    }
    if options.reconnect {
        println!("loadgen: verifying");
    }
    let most = u64::from(options.block_size) / 512 / block;
    let mix = Mix { sectors, block, most: most.max(1), zeroes: true };
    let mut load = Load::new(options.seed, mix);
    let begun = Instant::now();
    let limit = Duration::from_secs_f64(options.seconds);
    let mut times = 0;
    let is_wanted = || options.until.as_ref().is_none_or(|file| !file.exists());
    while begun.elapsed() < limit && is_wanted() {
        let rest = limit.saturating_sub(begun.elapsed());
        load.run(&mut front_end.queues, rest.min(Duration::from_millis(100)));
        if options.reconnect && front_end.is_cut_off() {
            front_end.disconnect();
            front_end.reconnect();
            times += 1;
            println!("loadgen: connected again ({times})");
        }
    }
    load.settle(&mut front_end.queues);
    let time = begun.elapsed();
    assert!(load.failed.is_empty(), "requests failed: {:?}", load.failed);
    load.read_back(front_end.queue(0));
    Result { count: load.good, time, latency: Histogram::new(), slowest: Some(load.slowest) }
}

fn connect(socket: &Path, options: &Options) -> FrontEnd {
    let least = if options.mode == Mode::Verify { READ_BACK } else { 4096 };
    let mut without_protocol = VhostUserProtocolFeatures::empty();
    if options.no_inflight {
        without_protocol |= VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::GET_VRING_BASE_INFLIGHT;
    }
    let shape = Shape {
        queues: options.queues,
        manner: Manner {
            size: (options.depth.max(64)).next_power_of_two(),
            depth: usize::from(options.depth),
            slot_bytes: options.block_size.max(least),
            event_idx: true,
            indirect: true,
            pieces: options.pieces,
            polling: options.poll,
        },
        without: 0,
        without_protocol,
        slots: false,
        regions: 2,
    };
    FrontEnd::connect(socket, shape)
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut front_end = connect(&options.socket, &options);
    let word = |bytes: Vec<u8>| bytes.iter().rev().fold(0, |sum, &b| sum << 8 | u64::from(b));
    let capacity = word(front_end.config(0, 8));
    let block = word(front_end.config(20, 4)) / 512;
    let span = match (options.span, options.mode) {
        (Some(bytes), _) => bytes / 512,
        (None, Mode::Verify) => 64 << 11,
        (None, _) => capacity,
    };
    let sectors = span.min(capacity);
    let before = options.pid.and_then(cpu_time);
    let result = match options.mode {
        Mode::Verify => Ok(verify(&options, &mut front_end, sectors, block)),
        Mode::Read | Mode::Write => steady(&options, &mut front_end, sectors),
    };
    let after = options.pid.and_then(cpu_time);
    match result {
        Ok(result) => {
            print(&options, &result, before.zip(after).map(|(b, a)| a - b));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::cast_precision_loss)] // statistics
fn print(options: &Options, result: &Result, cpu: Option<u64>) {
    let Result { count, time, latency, slowest } = result;
    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    let line = serde_json::json!({
        "mode": format!("{:?}", options.mode).to_lowercase(),
        "queues": options.queues,
        "depth": options.depth,
        "block_size": options.block_size,
        "client": if options.poll { "polls" } else { "sleeps" },
        "requests": count,
        "seconds": round(time.as_secs_f64()),
        "iops": (*count as f64 / time.as_secs_f64()).round(),
        "p50_us": slowest.is_none().then(|| round(latency.percentile(0.5))),
        "p99_us": slowest.is_none().then(|| round(latency.percentile(0.99))),
        "slowest_us": slowest.map(|time| round(time.as_secs_f64() * 1e6)),
        "cpu_us_per_io": cpu.map(|ns| round(ns as f64 / 1000.0 / *count as f64)),
        "cpu_percent": cpu.map(|ns| round(ns as f64 / 10_000_000.0 / time.as_secs_f64())),
    });
    println!("{line}");
}
