//! Front-ends that break the protocol: whatever they send, the worst that
//! happens is the end of their connection; the daemon lives, leaks nothing and
//! serves the next one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vhost::VhostBackend;
use vhost::vhost_user::message::{FrontendReq as Req, VhostUserHeaderFlag};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost_mpath::guest::memfd;
use vhost_mpath::virtio::blk::RequestType;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::harness::blk_queue::Payload;
use crate::harness::front_end::{FrontEnd, Shape, connect, hang_up};
use crate::harness::random::Random;
use crate::harness::sim_daemon::{Daemon, Setup, open_files};

const VERSION: u32 = 1;
const NEED_REPLY: u32 = 8;

/// A message as it goes over the wire.
fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).expect("short");
    let mut raw = Vec::new();
    for word in [request, flags, size] {
        raw.extend(word.to_le_bytes());
    }
    raw.extend(body);
    raw
}

/// A front-end with no manners.
struct Rude {
    stream: UnixStream,
}

impl Rude {
    fn new(daemon: &Daemon) -> Rude {
        let stream = connect(&daemon.socket());
        let rude = Rude { stream };
        rude.patience(BRIEFLY);
        rude
    }

    /// How long to wait for an answer.
    fn patience(&self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).expect("timeout");
    }

    /// Errors are the daemon's way of saying goodbye.
    fn bytes(&mut self, raw: &[u8]) {
        let _ = self.stream.write_all(raw);
    }

    fn send(&mut self, request: Req, body: &[u8]) {
        self.bytes(&message(request as u32, VERSION | NEED_REPLY, body));
    }

    fn with_fds(&mut self, request: Req, body: &[u8], fds: &[RawFd]) {
        let raw = message(request as u32, VERSION | NEED_REPLY, body);
        let _ = self.stream.send_with_fds(&[&raw[..]], fds);
    }

    /// Owner, features and protocol features as they should be.
    fn introduce(&mut self) {
        // Answers that must come are waited for, also on a busy machine.
        self.patience(Duration::from_secs(10));
        self.bytes(&message(Req::SET_OWNER as u32, VERSION, &[]));
        self.bytes(&message(Req::GET_FEATURES as u32, VERSION, &[]));
        let mut reply = [0; 20];
        let _ = self.stream.read(&mut reply);
        self.bytes(&message(Req::GET_PROTOCOL_FEATURES as u32, VERSION, &[]));
        let read = self.stream.read(&mut reply);
        assert_eq!(read.ok(), Some(20));
        let protocol: [u8; 8] = reply[12..].try_into().expect("8 bytes");
        self.bytes(&message(Req::SET_PROTOCOL_FEATURES as u32, VERSION, &protocol));
        let features: u64 = 1 << 32 | 1 << 30 | 1 << 29;
        self.bytes(&message(Req::SET_FEATURES as u32, VERSION, &features.to_le_bytes()));
        self.patience(BRIEFLY);
    }

    /// Reads what comes back, for a moment; whether the connection has ended.
    fn has_ended(&mut self) -> bool {
        let mut sink = [0; 4096];
        loop {
            match self.stream.read(&mut sink) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    use std::io::ErrorKind::{TimedOut, WouldBlock};
                    return !matches!(error.kind(), TimedOut | WouldBlock);
                }
            }
        }
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        hang_up(&self.stream);
    }
}

fn words(list: &[u64]) -> Vec<u8> {
    list.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn half_words(list: &[u32]) -> Vec<u8> {
    list.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// A memory table message: (guest address, size, user address, offset) each.
fn table(count: u32, regions: &[[u64; 4]]) -> Vec<u8> {
    let mut body = half_words(&[count, 0]);
    regions.iter().for_each(|region| body.extend(words(region)));
    body
}

/// A slot message.
fn slot(region: [u64; 4]) -> Vec<u8> {
    let mut body = words(&[0]);
    body.extend(words(&region));
    body
}

/// Long enough to see what comes of abuse.
const BRIEFLY: Duration = Duration::from_millis(20);

const MIB: u64 = 1 << 20;
const USER: u64 = 0x7f00_0000_0000;

/// Something a front-end must not do.
type Abuse = (&'static str, fn(&mut Rude));

const ABUSES: &[Abuse] = &[
    ("nothing at all", |_| {}),
    ("garbage", |r| r.bytes(&[0xa5; 4096])),
    ("zeroes", |r| r.bytes(&[0; 4096])),
    ("half a header", |r| r.bytes(&[1, 0, 0, 0, 1, 0])),
    ("a header without its body", |r| r.bytes(&message(8, 1, &[0; 8])[..12])),
    ("a body that ends early", |r| r.bytes(&message(8, 1, &[0; 8])[..17])),
    ("a size of four gigabytes", |r| {
        r.bytes(&half_words(&[Req::SET_FEATURES as u32, VERSION, u32::MAX]));
        r.bytes(&[0; 4096]);
    }),
    ("another protocol version", |r| r.bytes(&message(1, 2, &[]))),
    ("a reply nobody asked for", |r| r.bytes(&message(1, VERSION | 4, &words(&[0])))),
    ("request 0", |r| r.bytes(&message(0, VERSION, &[]))),
    ("request 99", |r| r.bytes(&message(99, VERSION | NEED_REPLY, &words(&[1])))),
    ("request 2^32-1", |r| r.bytes(&message(u32::MAX, VERSION, &[]))),
    ("bodies of the wrong size", |r| {
        for request in 1..44 {
            r.bytes(&message(request, VERSION | NEED_REPLY, &[7; 3]));
        }
    }),
    ("features that were not offered", |r| r.send(Req::SET_FEATURES, &words(&[u64::MAX]))),
    ("protocol features that were not offered", |r| {
        r.send(Req::SET_PROTOCOL_FEATURES, &words(&[u64::MAX]));
    }),
    ("a ring that is not there", |r| {
        r.introduce();
        for index in [64, 255, 65535, u32::MAX] {
            r.send(Req::SET_VRING_NUM, &half_words(&[index, 128]));
            r.send(Req::SET_VRING_BASE, &half_words(&[index, 0]));
            r.send(Req::SET_VRING_ENABLE, &half_words(&[index, 1]));
            r.send(Req::GET_VRING_BASE, &half_words(&[index, 0]));
        }
    }),
    ("ring sizes that are none", |r| {
        r.introduce();
        for size in [0, 3, 32769, 65536, u32::MAX] {
            r.send(Req::SET_VRING_NUM, &half_words(&[0, size]));
        }
    }),
    ("a ring base beyond 16 bits", |r| {
        r.introduce();
        r.send(Req::SET_VRING_BASE, &half_words(&[0, 65536]));
        r.send(Req::SET_VRING_BASE, &half_words(&[0, u32::MAX]));
    }),
    ("ring addresses before any memory", |r| {
        r.introduce();
        r.send(Req::SET_VRING_NUM, &half_words(&[0, 128]));
        let mut body = half_words(&[0, 0]);
        body.extend(words(&[USER, USER + 8192, USER + 4096, 0]));
        r.send(Req::SET_VRING_ADDR, &body);
    }),
    ("a kick before anything else", |r| {
        let kick = EventFd::new(EFD_NONBLOCK).expect("eventfd");
        r.with_fds(Req::SET_VRING_KICK, &words(&[0]), &[kick.as_raw_fd()]);
    }),
    ("a ring enabled before anything else", |r| {
        r.send(Req::SET_VRING_ENABLE, &half_words(&[0, 1]));
    }),
    ("a kick that is no eventfd", |r| {
        set_up(r);
        let file = memfd::sealed(c"no eventfd", 4096).expect("memfd");
        r.with_fds(Req::SET_VRING_KICK, &words(&[0]), &[file.as_raw_fd()]);
        r.send(Req::SET_VRING_ENABLE, &half_words(&[0, 1]));
    }),
    ("a kick that is a directory, a call that is the socket itself", |r| {
        set_up(r);
        let dir = File::open("/").expect("/");
        let own = r.stream.as_raw_fd();
        r.with_fds(Req::SET_VRING_CALL, &words(&[0]), &[own]);
        r.with_fds(Req::SET_VRING_KICK, &words(&[0]), &[dir.as_raw_fd()]);
        r.send(Req::SET_VRING_ENABLE, &half_words(&[0, 1]));
    }),
    ("a kick without a descriptor", |r| {
        set_up(r);
        r.send(Req::SET_VRING_KICK, &words(&[0]));
        r.send(Req::SET_VRING_KICK, &words(&[0x100]));
    }),
    ("two descriptors where one belongs", |r| {
        set_up(r);
        let kick = EventFd::new(EFD_NONBLOCK).expect("eventfd");
        let fd = kick.as_raw_fd();
        r.with_fds(Req::SET_VRING_KICK, &words(&[0]), &[fd, fd]);
    }),
    ("thirty descriptors where none belongs", |r| {
        let file = memfd::sealed(c"many", 4096).expect("memfd");
        r.with_fds(Req::SET_OWNER, &[], &[file.as_raw_fd(); 30]);
        r.with_fds(Req::GET_FEATURES, &[], &[file.as_raw_fd(); 30]);
    }),
    ("memory without descriptors: not shared", |r| {
        r.introduce();
        r.send(Req::SET_MEM_TABLE, &table(1, &[[0, MIB, USER, 0]]));
    }),
    ("no memory", |r| {
        r.introduce();
        r.send(Req::SET_MEM_TABLE, &table(0, &[]));
    }),
    ("more regions than described", |r| {
        r.introduce();
        let file = memfd::sealed(c"memory", MIB).expect("memfd");
        r.with_fds(Req::SET_MEM_TABLE, &table(8, &[[0, MIB, USER, 0]]), &[file.as_raw_fd()]);
        r.with_fds(Req::SET_MEM_TABLE, &table(u32::MAX, &[]), &[file.as_raw_fd()]);
    }),
    ("more regions than descriptors", |r| {
        r.introduce();
        let file = memfd::sealed(c"memory", MIB).expect("memfd");
        let regions = [[0, MIB, USER, 0], [MIB, MIB, USER + MIB, 0]];
        r.with_fds(Req::SET_MEM_TABLE, &table(2, &regions), &[file.as_raw_fd()]);
    }),
    ("a region larger than its file", |r| {
        r.introduce();
        let file = memfd::sealed(c"memory", MIB).expect("memfd");
        r.with_fds(Req::SET_MEM_TABLE, &table(1, &[[0, 2 * MIB, USER, 0]]), &[file.as_raw_fd()]);
    }),
    ("a region behind the end of its file", |r| {
        r.introduce();
        let file = memfd::sealed(c"memory", MIB).expect("memfd");
        r.with_fds(Req::SET_MEM_TABLE, &table(1, &[[0, MIB, USER, 8 * MIB]]), &[file.as_raw_fd()]);
    }),
    ("regions that wrap around", |r| {
        r.introduce();
        let file = memfd::sealed(c"memory", MIB).expect("memfd");
        for region in [
            [u64::MAX - 4095, MIB, USER, 0],
            [0, MIB, u64::MAX - 4095, 0],
            [0, u64::MAX, USER, 0],
            [0, MIB, USER, u64::MAX - 4095],
        ] {
            r.with_fds(Req::SET_MEM_TABLE, &table(1, &[region]), &[file.as_raw_fd()]);
            r.with_fds(Req::ADD_MEM_REG, &slot(region), &[file.as_raw_fd()]);
        }
    }),
    ("regions that overlap", |r| {
        r.introduce();
        let file = memfd::sealed(c"memory", MIB).expect("memfd");
        let regions = [[0, MIB, USER, 0], [4096, MIB, USER + MIB, 0]];
        r.with_fds(Req::SET_MEM_TABLE, &table(2, &regions), &[file.as_raw_fd(); 2]);
    }),
    ("a region of nothing", |r| {
        r.introduce();
        let file = memfd::sealed(c"memory", MIB).expect("memfd");
        r.with_fds(Req::ADD_MEM_REG, &slot([0, 0, USER, 0]), &[file.as_raw_fd()]);
    }),
    ("memory that is an eventfd", |r| {
        r.introduce();
        let file = EventFd::new(EFD_NONBLOCK).expect("eventfd");
        r.with_fds(Req::SET_MEM_TABLE, &table(1, &[[0, MIB, USER, 0]]), &[file.as_raw_fd()]);
    }),
    ("memory opened for reading only", |r| {
        r.introduce();
        let file = File::open("/proc/self/exe").expect("a file");
        r.with_fds(Req::ADD_MEM_REG, &slot([0, 4096, USER, 0]), &[file.as_raw_fd()]);
    }),
    ("a slot taken away that was never there", |r| {
        r.introduce();
        r.send(Req::REM_MEM_REG, &slot([0, MIB, USER, 0]));
    }),
    ("memory taken away from under a running ring", |r| {
        start(r);
        r.send(Req::REM_MEM_REG, &slot([0, MIB, USER, 0]));
        let other = memfd::sealed(c"memory", MIB).expect("memfd");
        r.with_fds(Req::SET_MEM_TABLE, &table(1, &[[MIB, MIB, USER, 0]]), &[other.as_raw_fd()]);
    }),
    ("a running ring set up anew", |r| {
        start(r);
        r.send(Req::SET_VRING_NUM, &half_words(&[0, 64]));
        r.send(Req::SET_VRING_BASE, &half_words(&[0, 7]));
        let kick = EventFd::new(EFD_NONBLOCK).expect("eventfd");
        r.with_fds(Req::SET_VRING_KICK, &words(&[0]), &[kick.as_raw_fd()]);
        r.send(Req::SET_FEATURES, &words(&[1 << 32]));
    }),
    ("rings that overlap each other and themselves", |r| {
        memory(r);
        r.send(Req::SET_VRING_NUM, &half_words(&[0, 128]));
        let mut body = half_words(&[0, 0]);
        body.extend(words(&[USER, USER, USER, 0]));
        r.send(Req::SET_VRING_ADDR, &body);
        kick_off(r);
    }),
    ("a ring that runs over the end of memory", |r| {
        memory(r);
        r.send(Req::SET_VRING_NUM, &half_words(&[0, 128]));
        let end = USER + MIB - 16;
        let mut body = half_words(&[0, 0]);
        body.extend(words(&[end, end, end, 0]));
        r.send(Req::SET_VRING_ADDR, &body);
        kick_off(r);
    }),
    ("a ring at odd addresses", |r| {
        memory(r);
        r.send(Req::SET_VRING_NUM, &half_words(&[0, 128]));
        let mut body = half_words(&[0, 0]);
        body.extend(words(&[USER + 1, USER + 8193, USER + 4097, 0]));
        r.send(Req::SET_VRING_ADDR, &body);
        kick_off(r);
    }),
    ("configuration that is not there", |r| {
        r.introduce();
        for (offset, size) in [(0, 257), (256, 1), (u32::MAX, 8), (8, u32::MAX), (0, 0)] {
            let mut body = half_words(&[offset, size, 0]);
            body.resize(12 + (size as usize).min(256), 0);
            r.send(Req::GET_CONFIG, &body);
            r.send(Req::SET_CONFIG, &body);
        }
    }),
    ("a capacity of its own choice", |r| {
        r.introduce();
        let mut body = half_words(&[0, 8, 0]);
        body.extend(words(&[1]));
        r.send(Req::SET_CONFIG, &body);
    }),
    ("an in-flight area of nothing, of everything, and without a file", |r| {
        r.introduce();
        for (queues, size) in [(0_u16, 128_u16), (1, 0), (u16::MAX, u16::MAX)] {
            let mut body = words(&[0, 0]);
            body.extend(queues.to_le_bytes());
            body.extend(size.to_le_bytes());
            body.extend([0; 4]);
            r.send(Req::GET_INFLIGHT_FD, &body);
            r.send(Req::SET_INFLIGHT_FD, &body);
        }
    }),
    ("an in-flight area smaller than it says", |r| {
        r.introduce();
        let file = memfd::sealed(c"inflight", 4096).expect("memfd");
        for (len, offset) in [(1 << 40, 0), (4096, 1), (4096, 4096), (u64::MAX, u64::MAX - 4095)] {
            let mut body = words(&[len, offset]);
            body.extend(16_u16.to_le_bytes());
            body.extend(1024_u16.to_le_bytes());
            body.extend([0; 4]);
            r.with_fds(Req::SET_INFLIGHT_FD, &body, &[file.as_raw_fd()]);
        }
    }),
    ("an in-flight area full of nonsense", |r| {
        memory(r);
        let file = memfd::sealed(c"inflight", 1 << 16).expect("memfd");
        (&file).write_all(&[0xff; 1 << 16]).expect("write");
        let mut body = words(&[1 << 16, 0]);
        body.extend(1_u16.to_le_bytes());
        body.extend(128_u16.to_le_bytes());
        body.extend([0; 4]);
        r.with_fds(Req::SET_INFLIGHT_FD, &body, &[file.as_raw_fd()]);
        ring(r);
        kick_off(r);
    }),
    ("logging, which was not offered", |r| {
        r.introduce();
        let file = memfd::sealed(c"log", 4096).expect("memfd");
        r.with_fds(Req::SET_LOG_BASE, &words(&[4096, 0]), &[file.as_raw_fd()]);
        r.with_fds(Req::SET_LOG_FD, &[], &[file.as_raw_fd()]);
    }),
    ("a ring stopped again and again", |r| {
        start(r);
        for _ in 0..50 {
            r.send(Req::GET_VRING_BASE, &half_words(&[0, 0]));
        }
    }),
    ("resets in the middle", |r| {
        start(r);
        r.send(Req::RESET_DEVICE, &[]);
        r.send(Req::RESET_OWNER, &[]);
        r.send(Req::SET_OWNER, &[]);
        r.send(Req::SET_VRING_ENABLE, &half_words(&[0, 1]));
    }),
];

fn memory(r: &mut Rude) {
    r.introduce();
    let file = memfd::sealed(c"memory", MIB).expect("memfd");
    r.with_fds(Req::SET_MEM_TABLE, &table(1, &[[0, MIB, USER, 0]]), &[file.as_raw_fd()]);
}

fn ring(r: &mut Rude) {
    r.send(Req::SET_VRING_NUM, &half_words(&[0, 128]));
    let mut body = half_words(&[0, 0]);
    body.extend(words(&[USER, USER + 8192, USER + 4096, 0]));
    r.send(Req::SET_VRING_ADDR, &body);
    r.send(Req::SET_VRING_BASE, &half_words(&[0, 0]));
}

fn kick_off(r: &mut Rude) {
    let kick = EventFd::new(EFD_NONBLOCK).expect("eventfd");
    kick.write(1).expect("kick");
    r.with_fds(Req::SET_VRING_KICK, &words(&[0]), &[kick.as_raw_fd()]);
    r.send(Req::SET_VRING_ENABLE, &half_words(&[0, 1]));
}

fn set_up(r: &mut Rude) {
    memory(r);
    ring(r);
}

fn start(r: &mut Rude) {
    set_up(r);
    kick_off(r);
}

/// A front-end of good manners is served.
fn next_is_served(daemon: &mut Daemon, after: &str) {
    assert!(daemon.is_alive(), "dead after: {after}\n{}", daemon.log());
    let mut front_end = FrontEnd::connect(&daemon.socket(), Shape::default());
    let done = front_end.queue(0).run(RequestType::In, 0, Payload::None, 4096);
    assert_eq!(done.status, 0, "after: {after}");
}

#[test]
fn whatever_a_front_end_does_the_next_one_is_served() {
    let mut daemon = Daemon::start(&Setup::default());
    next_is_served(&mut daemon, "nothing");
    let files = open_files(daemon.pid());
    for (what, abuse) in ABUSES {
        let mut rude = Rude::new(&daemon);
        abuse(&mut rude);
        rude.has_ended();
        drop(rude);
        next_is_served(&mut daemon, what);
    }
    std::thread::sleep(Duration::from_millis(50));
    let now = open_files(daemon.pid());
    assert!(now <= files + 1, "{files} files open before, {now} after");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

/// Some abuses leave nothing to say but goodbye.
#[test]
fn a_front_end_that_is_not_understood_is_dropped() {
    let daemon = Daemon::start(&Setup::default());
    for what in [
        "garbage",
        "another protocol version",
        "request 2^32-1",
        "a size of four gigabytes",
        "features that were not offered",
        "protocol features that were not offered",
    ] {
        let (_, abuse) = ABUSES.iter().find(|(name, _)| *name == what).expect("listed");
        let mut rude = Rude::new(&daemon);
        abuse(&mut rude);
        let until = Instant::now() + Duration::from_secs(10);
        while !rude.has_ended() {
            assert!(Instant::now() < until, "still connected after {what}");
        }
    }
}

/// Valid codes, random bodies, random descriptors, in random order.
#[test]
fn random_messages_end_connections_only() {
    let mut daemon = Daemon::start(&Setup::default());
    next_is_served(&mut daemon, "nothing");
    let files = open_files(daemon.pid());
    let sizes = [0, 4, 8, 8, 8, 16, 20, 24, 40, 40, 268];
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let mut rude = Rude::new(&daemon);
        match random.below(4) {
            0 => {}
            1 => rude.introduce(),
            2 => set_up(&mut rude),
            _ => start(&mut rude),
        }
        let file = memfd::sealed(c"random", MIB).expect("memfd");
        let event = EventFd::new(EFD_NONBLOCK).expect("eventfd");
        for _ in 0..1 + random.below(12) {
            let request = u32::try_from(random.below(44)).expect("small");
            let mut body = vec![0; random.pick(&sizes)];
            match random.below(3) {
                0 => body.fill_with(|| random.next().to_le_bytes()[0]),
                1 => body.fill_with(|| random.pick(&[0, 0, 0, 1, 255])),
                _ => {}
            }
            let fds = [file.as_raw_fd(), event.as_raw_fd(), rude.stream.as_raw_fd()];
            let count = usize::try_from(random.below(3)).expect("few");
            let raw = message(request, VERSION | NEED_REPLY, &body);
            let _ = rude.stream.send_with_fds(&[&raw[..]], &fds[..count]);
        }
        rude.stream.set_read_timeout(Some(Duration::from_millis(1))).expect("timeout");
        rude.has_ended();
        drop(rude);
        if seed % 10 == 0 {
            next_is_served(&mut daemon, &format!("seed {seed}"));
        }
    }
    next_is_served(&mut daemon, "all seeds");
    std::thread::sleep(Duration::from_millis(50));
    let now = open_files(daemon.pid());
    assert!(now <= files + 1, "{files} files open before, {now} after");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[test]
fn a_second_front_end_is_sent_away_and_the_first_served_on() {
    let daemon = Daemon::start(&Setup::default());
    let mut front_end = FrontEnd::connect(&daemon.socket(), Shape::default());
    for _ in 0..10 {
        let mut second = connect(&daemon.socket());
        let mut byte = [0];
        let answer = second.read(&mut byte);
        assert!(matches!(answer, Ok(0) | Err(_)), "it gets no answer");
        let done = front_end.queue(0).run(RequestType::In, 0, Payload::None, 512);
        assert_eq!(done.status, 0);
    }
    front_end.disconnect();
    front_end.reconnect();
    assert_eq!(front_end.queue(0).run(RequestType::In, 0, Payload::None, 512).status, 0);
}

#[test]
fn a_front_end_that_stops_in_the_middle_of_a_message_is_given_up() {
    let mut daemon = Daemon::start(&Setup::default());
    let mut rude = Rude::new(&daemon);
    rude.bytes(&message(Req::SET_FEATURES as u32, VERSION, &[0; 8])[..15]);
    let begun = Instant::now();
    while !rude.has_ended() {
        assert!(begun.elapsed() < Duration::from_secs(10), "still connected");
    }
    next_is_served(&mut daemon, "half a message");
}

/// One that connects and says nothing holds nobody up once it is gone; the
/// control socket answers all the while.
#[test]
fn a_front_end_that_never_speaks_harms_nobody() {
    let mut daemon = Daemon::start(&Setup::default());
    let silent = Rude::new(&daemon);
    std::thread::sleep(Duration::from_millis(200));
    daemon.cut(0, "before");
    daemon.plug(0);
    drop(silent);
    next_is_served(&mut daemon, "silence");
}

/// QEMU without `share=on` sends a region and no file for it.
#[test]
fn unshared_memory_is_told_with_what_to_add() {
    let daemon = Daemon::start(&Setup::default());
    let mut rude = Rude::new(&daemon);
    let (_, abuse) =
        ABUSES.iter().find(|(name, _)| name.starts_with("memory without")).expect("listed");
    abuse(&mut rude);
    daemon.until_said("share=on");
}

/// A socket among them could be the front-end's own end of the connection,
/// which would then outlive it.
#[test]
fn only_eventfds_are_taken_for_events() {
    let daemon = Daemon::start(&Setup::default());
    let mut rude = Rude::new(&daemon);
    rude.stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    rude.introduce();
    let event = EventFd::new(EFD_NONBLOCK).expect("eventfd");
    let file = memfd::sealed(c"no eventfd", 4096).expect("memfd");
    let own = rude.stream.as_raw_fd();
    for request in [Req::SET_VRING_CALL, Req::SET_VRING_ERR] {
        for (fd, refused) in [(own, 1), (file.as_raw_fd(), 1), (event.as_raw_fd(), 0)] {
            rude.with_fds(request, &words(&[0]), &[fd]);
            let mut reply = [0; 20];
            rude.stream.read_exact(&mut reply).expect("an acknowledgement");
            assert_eq!(reply[12..], u64::to_le_bytes(refused), "{request:?}");
        }
    }
}

/// A refusable request is answered with failure and the connection goes on.
#[test]
fn a_refused_request_keeps_the_connection() {
    let daemon = Daemon::start(&Setup::default());
    let mut vhost = Frontend::from_stream(connect(&daemon.socket()), 1);
    vhost.set_owner().expect("SET_OWNER");
    let features = vhost.get_features().expect("GET_FEATURES");
    let protocol = vhost.get_protocol_features().expect("GET_PROTOCOL_FEATURES");
    vhost.set_protocol_features(protocol).expect("SET_PROTOCOL_FEATURES");
    vhost.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    vhost.set_features(features).expect("SET_FEATURES");
    assert!(vhost.set_vring_num(0, 3).is_err(), "three descriptors");
    assert!(vhost.set_vring_num(0, 128).is_ok(), "the same connection goes on");
}
