//! What applications in a guest live through while the host's paths fail: a
//! load on a disk that counts its errors and remembers its longest I/O. Runs
//! inside the guest, on any disk; knows nothing of what serves it.
//!
//! Two writers, each with a part of the disk of its own and one I/O at a time:
//! O_DIRECT, a 4 KiB write, then a read that is compared. With `--sg` a third
//! sends TEST UNIT READY and INQUIRY by SG_IO in turn, every 20 ms. After an
//! error each waits 10 ms, so an error count says for how long it was exposed.
//! A thread without I/O sees how long the whole machine stands still.
//! Orders come as numbered lines on standard input, each answered by a line
//! `GUEST: done: …`: `begin` counts anew, `end` prints `GUEST: result: …` once
//! nothing is out, `pause`, `resume`, `read SECTOR COUNT` reads one place COUNT
//! times, `probe` begins one read of its own, `verify` reads back everything.
//! `pr-out ACTION TYPE KEY ACTION_KEY` (numbers, the keys in hexadecimal) is a
//! PERSISTENT RESERVE OUT, after which the third sends READ KEYS as well;
//! `pr-in` prints `GUEST: reservation: …`, what READ KEYS and READ RESERVATION
//! answer.
#![allow(clippy::disallowed_methods)] // a load generator watches the clock

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use random::Random;

#[path = "../tests/simulation/random.rs"]
#[allow(dead_code)] // of what simulations use
mod random;

const BLOCK: usize = 4096;
/// Where the writers' parts begin, and how long each is. What is before them
/// is for `read`.
const FIRST: u64 = 8 << 20;
const BLOCKS: u64 = 2048;
const AFTER_ERROR: Duration = Duration::from_millis(10);
const SG_EVERY: Duration = Duration::from_millis(20);
/// Longer than any outage here: the guest's kernel shall not add its own.
const SG_TIMEOUT_MS: u32 = 600_000;

/// O_DIRECT wants memory that begins where a page does.
#[repr(align(4096))]
struct Page([u8; BLOCK]);

/// What was counted since `begin`.
#[derive(Default)]
struct Counts {
    ios: u64,
    commands: u64,
    app_errors: BTreeMap<String, u64>,
    sg_errors: BTreeMap<String, u64>,
    wrong: u64,
    longest: Duration,
    longest_command: Duration,
    /// By how much a nap without any I/O was too long: the machine's own stalls.
    longest_nap: Duration,
    /// How long each `probe` took, or its error.
    probes: Vec<String>,
    read: BTreeMap<String, u64>,
    kernel: BTreeMap<String, u64>,
}

struct Shared {
    disk: String,
    counts: Mutex<Counts>,
    paused: AtomicBool,
    over: AtomicBool,
    /// The disk has persistent reservations, so READ KEYS is worth sending.
    reserves: AtomicBool,
    /// Threads that have something out.
    busy: AtomicUsize,
}

impl Shared {
    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// One turn of a thread, or a nap while the load is paused.
    fn turn(&self, work: impl FnOnce()) {
        self.busy.fetch_add(1, Ordering::SeqCst);
        if self.paused.load(Ordering::SeqCst) {
            self.busy.fetch_sub(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(2));
            return;
        }
        work();
        self.busy.fetch_sub(1, Ordering::SeqCst);
    }

    fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        while self.busy.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn open(&self) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_DIRECT);
        options.open(&self.disk).unwrap_or_else(|e| panic!("{}: {e}", self.disk))
    }
}

fn add(to: &mut BTreeMap<String, u64>, what: String) {
    *to.entry(what).or_default() += 1;
}

/// The words of a count: `NAME xN, …`.
fn words(of: &BTreeMap<String, u64>) -> String {
    of.iter().map(|(name, n)| format!("{name} x{n}")).collect::<Vec<_>>().join(", ")
}

fn errno_name(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EIO) => "EIO".to_owned(),
        Some(libc::ENODATA) => "ENODATA".to_owned(),
        Some(libc::ENXIO) => "ENXIO".to_owned(),
        Some(libc::EAGAIN) => "EAGAIN".to_owned(),
        Some(libc::EBADE) => "EBADE".to_owned(),
        Some(libc::ENOSPC) => "ENOSPC".to_owned(),
        Some(libc::ETIMEDOUT) => "ETIMEDOUT".to_owned(),
        Some(libc::EREMOTEIO) => "EREMOTEIO".to_owned(),
        Some(n) => format!("errno {n}"),
        None => error.kind().to_string(),
    }
}

// --- the writers ------------------------------------------------------------

/// What a block may hold: a version, or either of two after a failed write.
#[derive(Clone, Copy, Default)]
struct Held {
    version: u32,
    or: Option<u32>,
}

/// Fills a block so that no other block and no other version looks like it.
fn fill(page: &mut Page, at: u64, version: u32) {
    let mut random = Random::new(at << 20 ^ u64::from(version));
    for eight in page.0.chunks_exact_mut(8) {
        eight.copy_from_slice(&random.next().to_le_bytes());
    }
}

struct Writer {
    shared: Arc<Shared>,
    file: File,
    /// Byte of the disk at which its part begins.
    base: u64,
    held: Vec<Held>,
    random: Random,
    page: Box<Page>,
    want: Box<Page>,
}

impl Writer {
    fn new(shared: &Arc<Shared>, number: u64) -> Writer {
        Writer {
            shared: Arc::clone(shared),
            file: shared.open(),
            base: FIRST + number * BLOCKS * BLOCK as u64,
            held: vec![Held::default(); usize::try_from(BLOCKS).expect("few")],
            random: Random::new(number),
            page: Box::new(Page([0; BLOCK])),
            want: Box::new(Page([0; BLOCK])),
        }
    }

    fn timed(
        &mut self,
        io: impl FnOnce(&mut Self) -> std::io::Result<usize>,
    ) -> std::io::Result<()> {
        let began = Instant::now();
        let result = match io(self) {
            Ok(BLOCK) => Ok(()),
            Ok(_) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Err(e) => Err(e),
        };
        let took = began.elapsed();
        self.shared.count(|c| {
            c.ios += 1;
            c.longest = c.longest.max(took);
            if let Err(e) = &result {
                add(&mut c.app_errors, errno_name(e));
            }
        });
        if result.is_err() {
            std::thread::sleep(AFTER_ERROR);
        }
        result
    }

    fn write_and_read(&mut self) {
        let block = self.random.below(BLOCKS);
        let index = usize::try_from(block).expect("few");
        let at = self.base + block * BLOCK as u64;
        let version = self.held[index].version.max(self.held[index].or.unwrap_or(0)) + 1;
        fill(&mut self.page, at, version);
        let old = self.held[index].version;
        self.held[index] = match self.timed(|w| w.file.write_at(&w.page.0, at)) {
            Ok(()) => Held { version, or: None },
            Err(_) => Held { version: old, or: Some(version) },
        };
        // Half of the reads are of something older.
        let block = if self.random.one_in(2) { block } else { self.random.below(BLOCKS) };
        self.read(block);
    }

    fn read(&mut self, block: u64) {
        let held = self.held[usize::try_from(block).expect("few")];
        let at = self.base + block * BLOCK as u64;
        if self.timed(|w| w.file.read_at(&mut w.page.0, at)).is_err() {
            return;
        }
        // Never written: what is there is somebody else's.
        if held.version == 0 {
            return;
        }
        let right = [Some(held.version), held.or].into_iter().flatten().any(|version| {
            fill(&mut self.want, at, version);
            self.want.0 == self.page.0
        });
        if !right {
            self.shared.count(|c| c.wrong += 1);
        }
    }

    fn run(&mut self, verify: &AtomicBool) {
        while !self.shared.over.load(Ordering::SeqCst) {
            if verify.swap(false, Ordering::SeqCst) {
                (0..BLOCKS).for_each(|block| self.read(block));
                self.shared.busy.fetch_sub(1, Ordering::SeqCst);
            }
            let shared = Arc::clone(&self.shared);
            shared.turn(|| self.write_and_read());
        }
    }
}

// --- SCSI commands by SG_IO -------------------------------------------------

/// `struct sg_io_hdr` of `scsi/sg.h`.
#[repr(C)]
struct SgIoHdr {
    interface_id: i32,
    dxfer_direction: i32,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut u8,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: i32,
    usr_ptr: *mut u8,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: i32,
    duration: u32,
    info: u32,
}

const SG_IO: libc::Ioctl = 0x2285;
const SG_DXFER_NONE: i32 = -1;
const SG_DXFER_TO_DEV: i32 = -2;
const SG_DXFER_FROM_DEV: i32 = -3;
const PR_IN: u8 = 0x5e;
const PR_OUT: u8 = 0x5f;

/// One command; what went wrong, in a word, where something did.
fn command(file: &File, cdb: &[u8], data: &mut [u8]) -> Result<(), String> {
    let mut sense = [0_u8; 64];
    let direction = match cdb[0] {
        _ if data.is_empty() => SG_DXFER_NONE,
        PR_OUT => SG_DXFER_TO_DEV,
        _ => SG_DXFER_FROM_DEV,
    };
    let mut header = SgIoHdr {
        interface_id: i32::from(b'S'),
        dxfer_direction: direction,
        cmd_len: u8::try_from(cdb.len()).expect("short"),
        mx_sb_len: 64,
        iovec_count: 0,
        dxfer_len: u32::try_from(data.len()).expect("short"),
        dxferp: data.as_mut_ptr(),
        cmdp: cdb.as_ptr(),
        sbp: sense.as_mut_ptr(),
        timeout: SG_TIMEOUT_MS,
        flags: 0,
        pack_id: 0,
        usr_ptr: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the header is sg's version 3; its three pointers are to memory
    // of the lengths it states, which outlives the call. std has no ioctl.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), SG_IO, &raw mut header) };
    if result == -1 {
        return Err(errno_name(&std::io::Error::last_os_error()));
    }
    if header.host_status != 0 {
        return Err(format!("host byte {:02x}", header.host_status));
    }
    match (header.status, header.sb_len_wr) {
        (0, _) => Ok(()),
        // Descriptor or fixed format.
        (2, 4..) if sense[0] & 0x7e == 0x72 => {
            Err(format!("{:x}/{:02x}/{:02x}", sense[1] & 15, sense[2], sense[3]))
        }
        (2, 14..) => Err(format!("{:x}/{:02x}/{:02x}", sense[2] & 15, sense[12], sense[13])),
        (status, _) => Err(format!("status {status:02x}")),
    }
}

fn send_commands(shared: &Shared) {
    let file = shared.open();
    let mut turns = ["TUR", "INQUIRY", "READ KEYS"].iter().cycle();
    while !shared.over.load(Ordering::SeqCst) {
        let mut failed = false;
        shared.turn(|| {
            let Some(&name) = turns.next() else { return };
            let began = Instant::now();
            let mut data = [0_u8; 96];
            let result = match name {
                "TUR" => command(&file, &[0; 6], &mut []),
                "INQUIRY" => command(&file, &[0x12, 0, 0, 0, 96, 0], &mut data),
                _ if !shared.reserves.load(Ordering::SeqCst) => return,
                _ => pr_in(&file, 0, &mut data),
            };
            let took = began.elapsed();
            shared.count(|c| {
                c.commands += 1;
                c.longest_command = c.longest_command.max(took);
                if let Err(what) = &result {
                    add(&mut c.sg_errors, format!("{what} on {name}"));
                }
            });
            failed = result.is_err();
        });
        std::thread::sleep(if failed { AFTER_ERROR } else { SG_EVERY });
    }
}

// --- persistent reservations ------------------------------------------------

fn pr_in(file: &File, action: u8, data: &mut [u8]) -> Result<(), String> {
    let length = u16::try_from(data.len()).expect("short").to_be_bytes();
    command(file, &[PR_IN, action, 0, 0, 0, 0, 0, length[0], length[1], 0], data)
}

/// Unit attentions before a command are read and forgotten.
fn past_attentions(mut send: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    loop {
        match send() {
            Err(said) if said.starts_with("6/") => {}
            result => return result,
        }
    }
}

fn pr_out(file: &File, action: u8, kind: u8, key: u64, action_key: u64) -> Result<(), String> {
    let mut list = [0_u8; 24];
    list[..8].copy_from_slice(&key.to_be_bytes());
    list[8..16].copy_from_slice(&action_key.to_be_bytes());
    let cdb = [PR_OUT, action, kind, 0, 0, 0, 0, 0, 24, 0];
    past_attentions(|| command(file, &cdb, &mut list))
}

/// `keys=KEY,…|holder=KEY|type=N`, the last two of who holds a reservation.
fn reservation(file: &File) -> Result<String, String> {
    let eight = |at: &[u8]| u64::from_be_bytes(at.try_into().expect("eight bytes"));
    // (Behind a length that counts all there is: 32 keys fit.)
    let listed = |data: &[u8]| usize::from(data[6]) << 8 | usize::from(data[7]);
    let (mut keys, mut held) = ([0_u8; 264], [0_u8; 24]);
    past_attentions(|| pr_in(file, 0, &mut keys))?;
    past_attentions(|| pr_in(file, 1, &mut held))?;
    let all = keys[8..].chunks_exact(8).take(listed(&keys) / 8);
    let all: Vec<String> = all.map(|key| format!("{:x}", eight(key))).collect();
    let holder = match listed(&held) {
        0 => "holder=|type=".to_owned(),
        _ => format!("holder={:x}|type={}", eight(&held[8..16]), held[21] & 15),
    };
    Ok(format!("keys={}|{holder}", all.join(",")))
}

// --- what has nothing to do with the disk -----------------------------------

/// Naps, so that a stall of the whole machine is not taken for one of the disk.
fn nap(shared: &Shared) {
    const NAP: Duration = Duration::from_millis(5);
    while !shared.over.load(Ordering::SeqCst) {
        let began = Instant::now();
        std::thread::sleep(NAP);
        let late = began.elapsed().saturating_sub(NAP);
        shared.count(|c| c.longest_nap = c.longest_nap.max(late));
    }
}

// --- what the guest's kernel says -------------------------------------------

/// The kernel log from here on.
struct KernelLog(Option<File>);

impl KernelLog {
    fn open() -> KernelLog {
        let mut log = KernelLog(
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").ok(),
        );
        log.news();
        log
    }

    /// What was said of failed commands since the last time, and how often. The
    /// kernel leaves some out where there are many.
    fn news(&mut self) -> BTreeMap<String, u64> {
        let mut news = BTreeMap::new();
        let Some(file) = &mut self.0 else { return news };
        let mut record = [0_u8; 8192];
        loop {
            match file.read(&mut record) {
                Ok(0) => return news,
                Ok(n) => {
                    let line = String::from_utf8_lossy(&record[..n]);
                    Self::of_line(line.lines().next().unwrap_or_default(), &mut news);
                }
                // Records were overwritten before they were read.
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => return news,
            }
        }
    }

    fn of_line(line: &str, news: &mut BTreeMap<String, u64>) {
        let after = |mark: &str| line.split_once(mark).map(|(_, rest)| rest.trim().to_owned());
        if let Some(host) = after("hostbyte=") {
            let host = host.split_whitespace().next().unwrap_or_default().to_owned();
            if host != "DID_OK" {
                add(news, host);
            }
        } else if let Some(sense) = after("Sense Key : ") {
            add(news, sense.split(" [").next().unwrap_or_default().trim().to_owned());
        } else if let Some(sense) = after("Add. Sense: ") {
            add(news, sense);
        } else if line.contains("I/O error") || line.contains("critical ") {
            add(news, "I/O error logged".to_owned());
        } else if line.contains("blocked for more than") {
            add(news, "hung task logged".to_owned());
        }
    }
}

// --- orders -----------------------------------------------------------------

fn read_at(shared: &Shared, sector: u64) -> Result<Duration, String> {
    let mut page = Box::new(Page([0; BLOCK]));
    let began = Instant::now();
    match shared.open().read_at(&mut page.0, sector * 512) {
        Ok(BLOCK) => Ok(began.elapsed()),
        Ok(n) => Err(format!("{n} bytes")),
        Err(e) => Err(errno_name(&e)),
    }
}

/// `KEY=VALUE|…`
fn result_line(counts: &Counts) -> String {
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    format!(
        "ios={}|app={}|app_kinds={}|commands={}|sg={}|sg_kinds={}|wrong={}|longest_ms={:.1}|\
         longest_command_ms={:.1}|nap_ms={:.1}|probes={}|read={}|kernel={}",
        counts.ios,
        counts.app_errors.values().sum::<u64>(),
        words(&counts.app_errors),
        counts.commands,
        counts.sg_errors.values().sum::<u64>(),
        words(&counts.sg_errors),
        counts.wrong,
        ms(counts.longest),
        ms(counts.longest_command),
        ms(counts.longest_nap),
        counts.probes.join(" "),
        words(&counts.read),
        words(&counts.kernel),
    )
}

struct Orders {
    shared: Arc<Shared>,
    log: KernelLog,
    verify: [Arc<AtomicBool>; 2],
}

impl Orders {
    fn carry_out(&mut self, order: &[&str]) -> Option<()> {
        let shared = &self.shared;
        match order {
            ["begin", ..] => {
                self.log.news();
                shared.count(|c| *c = Counts::default());
            }
            ["end", ..] => {
                shared.pause();
                let kernel = self.log.news();
                shared.count(|c| {
                    c.kernel = kernel;
                    println!("GUEST: result: {}", result_line(c));
                });
                shared.paused.store(false, Ordering::SeqCst);
            }
            ["pause"] => shared.pause(),
            ["resume"] => shared.paused.store(false, Ordering::SeqCst),
            ["verify"] => {
                shared.pause();
                for verify in &self.verify {
                    shared.busy.fetch_add(1, Ordering::SeqCst);
                    verify.store(true, Ordering::SeqCst);
                }
                shared.pause();
                shared.paused.store(false, Ordering::SeqCst);
            }
            ["read", sector, count] => {
                let (sector, count) = (sector.parse().ok()?, count.parse::<u64>().ok()?);
                for _ in 0..count {
                    let said = read_at(shared, sector).map_or_else(|e| e, |_| "good".to_owned());
                    shared.count(|c| add(&mut c.read, said));
                }
            }
            ["probe"] => {
                let shared = Arc::clone(shared);
                shared.busy.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let said = read_at(&shared, 0)
                        .map_or_else(|e| e, |took| format!("{:.1}", took.as_secs_f64() * 1000.0));
                    shared.count(|c| c.probes.push(said));
                    shared.busy.fetch_sub(1, Ordering::SeqCst);
                });
            }
            ["pr-out", action, kind, key, action_key] => {
                let hex = |word: &str| u64::from_str_radix(word, 16).ok();
                let (action, kind) = (action.parse().ok()?, kind.parse().ok()?);
                let (key, action_key) = (hex(key)?, hex(action_key)?);
                shared.reserves.store(true, Ordering::SeqCst);
                match pr_out(&shared.open(), action, kind, key, action_key) {
                    Ok(()) => println!("GUEST: ok: {}", order.join(" ")),
                    Err(said) => println!("GUEST: FAILED: {}: {said}", order.join(" ")),
                }
            }
            ["pr-in"] => {
                let said = reservation(&shared.open()).unwrap_or_else(|e| format!("error={e}"));
                println!("GUEST: reservation: {said}");
            }
            _ => return None,
        }
        Some(())
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(disk) = arguments.first() else {
        eprintln!("usage: witness DISK [--sg] <ORDERS");
        return ExitCode::FAILURE;
    };
    let shared = Arc::new(Shared {
        disk: disk.clone(),
        counts: Mutex::default(),
        paused: AtomicBool::new(false),
        over: AtomicBool::new(false),
        reserves: AtomicBool::new(false),
        busy: AtomicUsize::new(0),
    });
    let verify = [Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false))];
    let mut threads = Vec::new();
    for (number, verify) in (0_u64..).zip(&verify) {
        let (mut writer, verify) = (Writer::new(&shared, number), Arc::clone(verify));
        threads.push(std::thread::spawn(move || writer.run(&verify)));
    }
    if arguments.iter().any(|a| a == "--sg") {
        let shared = Arc::clone(&shared);
        threads.push(std::thread::spawn(move || send_commands(&shared)));
    }
    {
        let shared = Arc::clone(&shared);
        threads.push(std::thread::spawn(move || nap(&shared)));
    }
    let mut orders = Orders { shared: Arc::clone(&shared), log: KernelLog::open(), verify };
    println!("GUEST: writing");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let line = line.trim();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["stop", ..] => break,
            [_, order @ ..] if orders.carry_out(order).is_some() => println!("GUEST: done: {line}"),
            [] => {}
            _ => println!("GUEST: FAILED: what is '{line}'?"),
        }
    }
    shared.over.store(true, Ordering::SeqCst);
    let well = threads.into_iter().all(|t| t.join().is_ok());
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
