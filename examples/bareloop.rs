//! A bare io_uring loop of random reads: READ commands to a bsg node, the floor
//! under the transport bsg-uring, or direct reads of a block node, the one
//! under blk-uring. No rings of a guest, no multipath, no retries. Prints one
//! line of JSON with the words of `loadgen`.
#![allow(clippy::disallowed_methods)] // a load generator watches the clock

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use io_uring::{IoUring, cqueue, opcode, squeue, types};

use random::Random;
use vhost_mpath::io::{Direction, Extent};
use vhost_mpath::scsi::cdb::Cdb;
use vhost_mpath::sys::bsg;
use vhost_mpath::sys::buffer::Arena;

#[path = "../tests/simulation/random.rs"]
#[allow(dead_code)] // of what simulations use
mod random;

/// A bare io_uring loop on a bsg or block node.
#[derive(Debug, Parser)]
struct Options {
    /// The node, as `/dev/bsg/0:0:0:0` or `/dev/sdX`.
    #[arg(long)]
    device: PathBuf,
    /// Commands at once.
    #[arg(long, default_value_t = 32)]
    depth: u16,
    /// Bytes of each command.
    #[arg(long, default_value_t = 4096)]
    block_size: usize,
    /// Bytes of the disk that are used.
    #[arg(long, default_value_t = 64 << 20)]
    span: u64,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Data in registered buffers; of a bsg node only.
    #[arg(long)]
    registered: bool,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

type Ring = IoUring<squeue::Entry128, cqueue::Entry32>;

/// The disk's logical blocks: those of all test beds.
const SECTOR: u64 = 512;
/// CDB, then sense.
const PLACE: usize = 128;

struct Loop {
    ring: Ring,
    file: File,
    is_block: bool,
    options: Options,
    places: Arena,
    data: Arena,
    random: Random,
}

impl Loop {
    fn new(options: Options) -> std::io::Result<Loop> {
        let entries = u32::from(options.depth);
        let ring = Ring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .build(entries)?;
        let data = Arena::new(usize::from(options.depth) * options.block_size)?;
        if options.registered {
            let all = data.segment(0, data.len());
            let all = libc::iovec { iov_base: all.addr as *mut libc::c_void, iov_len: all.len };
            // SAFETY: the arena lives as long as the ring.
            unsafe { ring.submitter().register_buffers(&[all]) }?;
        }
        let is_block = std::fs::metadata(&options.device)?.file_type().is_block_device();
        let flags = if is_block { libc::O_DIRECT } else { 0 };
        let file =
            File::options().read(true).write(true).custom_flags(flags).open(&options.device)?;
        Ok(Loop {
            ring,
            file,
            is_block,
            places: Arena::new(usize::from(options.depth) * PLACE)?,
            data,
            random: Random::new(options.seed),
            options,
        })
    }

    fn push(&mut self, slot: usize) {
        let blocks = self.options.block_size as u64 / SECTOR;
        let lba = self.random.below(self.options.span / SECTOR / blocks) * blocks;
        let fd = types::Fd(self.file.as_raw_fd());
        let data = self.data.segment(slot * self.options.block_size, self.options.block_size);
        if self.is_block {
            let len = u32::try_from(data.len).expect("a short read");
            let read = opcode::Read::new(fd, data.addr as *mut u8, len).offset(lba * SECTOR);
            let entry = read.build().user_data(slot as u64).into();
            // SAFETY: the arenas live until every command is back (`run`).
            unsafe { self.ring.submission().push(&entry) }.expect("room for every slot");
            return;
        }
        let cdb = Cdb::read(Extent::new(lba, blocks)).expect("a short read");
        let cdb = cdb.as_slice();
        self.places.bytes_mut(slot * PLACE, cdb.len()).copy_from_slice(cdb);
        let command = bsg::Command {
            cdb: self.places.segment(slot * PLACE, 1).addr,
            cdb_len: cdb.len(),
            sense: self.places.segment(slot * PLACE + bsg::CDB_MAX, bsg::SENSE_BYTES).addr,
            direction: Direction::In,
            data,
            timeout: Duration::from_secs(30),
        };
        let entry = opcode::UringCmd80::new(fd, 0)
            .cmd(command.to_bytes())
            .buf_index(self.options.registered.then_some(0))
            .build()
            .user_data(slot as u64);
        // SAFETY: the arenas live until every command is back (`run`).
        unsafe { self.ring.submission().push(&entry) }.expect("room for every slot");
    }

    /// Until the time is over and every command is back; how many there were.
    fn run(&mut self) -> Result<(u64, Duration), String> {
        for slot in 0..usize::from(self.options.depth) {
            self.push(slot);
        }
        let begun = Instant::now();
        let limit = Duration::from_secs_f64(self.options.seconds);
        let mut out = u64::from(self.options.depth);
        let mut count = 0;
        let mut came = Vec::with_capacity(usize::from(self.options.depth));
        let mut wrong = None;
        while out > 0 {
            match self.ring.submit_and_wait(1) {
                Err(e) if e.raw_os_error() != Some(libc::EINTR) => return Err(e.to_string()),
                _ => {}
            }
            came.clear();
            for cqe in self.ring.completion() {
                let (result, extra) = (cqe.result(), cqe.big_cqe()[0]);
                let good = match self.is_block {
                    true => usize::try_from(result) == Ok(self.options.block_size),
                    false => bsg::is_clean(result, extra),
                };
                if !good {
                    wrong = Some((result, extra));
                }
                came.push(usize::try_from(cqe.user_data()).expect("a slot"));
            }
            count += came.len() as u64;
            let over = wrong.is_some() || begun.elapsed() >= limit;
            for &slot in &came {
                if over {
                    out -= 1;
                } else {
                    self.push(slot);
                }
            }
        }
        match wrong {
            Some((result, extra)) => Err(format!("a command ended with {result}, {extra:#x}")),
            None => Ok((count, begun.elapsed())),
        }
    }
}

/// CPU time of this thread in nanoseconds, by the scheduler's clock.
fn cpu_time() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}

#[allow(clippy::cast_precision_loss)] // statistics
fn main() -> ExitCode {
    let mut bare = match Loop::new(Options::parse()) {
        Ok(bare) => bare,
        Err(e) => {
            eprintln!("bareloop: {e}");
            return ExitCode::FAILURE;
        }
    };
    let before = cpu_time();
    match bare.run() {
        Ok((count, time)) => {
            let cpu = before.zip(cpu_time()).map(|(b, a)| (a - b) as f64 / 1000.0 / count as f64);
            let line = serde_json::json!({
                "mode": "bare", "depth": bare.options.depth, "block_size": bare.options.block_size,
                "registered": bare.options.registered, "requests": count,
                "seconds": time.as_secs_f64(), "iops": (count as f64 / time.as_secs_f64()).round(),
                "cpu_us_per_io": cpu,
            });
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bareloop: {error}");
            ExitCode::FAILURE
        }
    }
}
