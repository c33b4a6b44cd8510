use super::blk_uring::Direct;
use super::*;
use crate::io::{Command, Direction, Op, Segment};
use crate::scsi::reservation::{Key as PrKey, Type};
use crate::scsi::sense::{Key, SenseCode};
use crate::scsi::status::{HostByte, Status};
use crate::sim::{CutMode, Foreign, LuConfig, MemoryMedium};
use crate::sys::file::DirectAlignment;
use crate::sys::segment;
use crate::sys::uring::{Uring, Wait};
use std::fs::File;
use std::os::unix::fs::FileExt;

mod blocking;
mod commands;
mod doubts;

const TIMEOUT: Duration = Duration::from_secs(5);

fn about(kind: PathKind, transport: Transport) -> About {
    About {
        name: "test".to_owned(),
        spec: "test".to_owned(),
        kind,
        devname: None,
        hctl: None,
        dev_t: None,
        transport,
        reason: String::new(),
        fabric: Fabric::default(),
    }
}

fn open(opened: Opened, kind: PathKind, transport: Transport) -> Arc<PathHandle> {
    PathHandle::new(about(kind, transport), opened, 4, TIMEOUT, Box::new(())).unwrap()
}

/// A queue thread in miniature.
struct Thread {
    uring: Uring,
    inbox: Arc<Inbox>,
    port: PathPort,
    cookie: u64,
}

impl Thread {
    fn new(path: &Arc<PathHandle>) -> Thread {
        let inbox = Arc::new(Inbox::new().unwrap());
        let mut uring = Uring::new(16).unwrap();
        uring.poll_multi(std::os::fd::AsFd::as_fd(&*inbox), u64::MAX).unwrap();
        Thread { uring, port: path.port(&inbox, &Coalescer::new(), 1), inbox, cookie: 0 }
    }

    fn issue(&mut self, command: &Command<'_>) -> Result<Issued, Rejected> {
        self.cookie += 1;
        self.port.issue(&mut self.uring, self.cookie, command)
    }

    fn wait(&mut self) -> Vec<(u64, Completion)> {
        let mut done = Vec::new();
        while done.is_empty() {
            self.uring.submit_and_wait(Wait::AtMost(Duration::from_secs(10))).unwrap();
            let port = &mut self.port;
            self.uring.reap(|cqe| {
                if let Some(completion) = port.on_uring(&cqe) {
                    done.push((cqe.user_data, completion));
                }
            });
            self.inbox.drain(&mut done);
        }
        done
    }

    fn run(&mut self, op: Op, data: &[Segment]) -> Completion {
        self.run_extents(op, data, &[])
    }

    fn run_extents(&mut self, op: Op, data: &[Segment], extents: &[Extent]) -> Completion {
        let command = Command { op, data, extents, passthrough: false, timeout: TIMEOUT };
        match self.issue(&command).unwrap() {
            Issued::Done(completion) => completion,
            Issued::Pending => {
                let done = self.wait();
                assert_eq!(done.len(), 1);
                assert_eq!(done[0].0, self.cookie);
                assert_eq!(self.port.in_flight(), 0);
                done[0].1
            }
        }
    }

    fn write(&mut self, lba: u64, data: &mut [u8]) -> Completion {
        let extent = Extent::new(lba, u64::try_from(data.len() / 512).unwrap());
        self.run(Op::Write { extent, fua: false }, &[segment::of(data)])
    }

    fn read(&mut self, lba: u64, blocks: usize) -> Vec<u8> {
        let mut data = vec![0xee; blocks * 512];
        let extent = Extent::new(lba, u64::try_from(blocks).unwrap());
        let completion = self.run(Op::Read(extent), &[segment::of(&mut data)]);
        assert_eq!(completion, Completion::Good);
        data
    }
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| seed.wrapping_add(u8::try_from(i % 251).unwrap())).collect()
}

fn scratch_file(len: u64) -> File {
    let name = format!("vhost-mpath-path-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.set_len(len).unwrap();
    file
}

fn disk(file: File, alignment: usize) -> DiskNode {
    DiskNode {
        file: Arc::new(file),
        nature: Nature::File,
        wwid: WwidSource::Inode,
        block_size: 512,
        alignment: DirectAlignment { memory: alignment, offset: alignment },
        geometry: null::geometry(),
        depth: 64,
        unmap_granularity: 512,
    }
}

fn file_path(len: u64, alignment: usize) -> Arc<PathHandle> {
    open(Opened::Disk(disk(scratch_file(len), alignment)), PathKind::File, Transport::File)
}

fn sim_image(config: LuConfig) -> Arc<SimImage> {
    let bytes = config.blocks * u64::from(config.block_size);
    Arc::new(SimImage::start(config, Box::new(MemoryMedium::new(bytes))).unwrap())
}

fn sim_path(image: &Arc<SimImage>, name: &str) -> Arc<PathHandle> {
    open(Opened::Sim(image.add_path(name).unwrap()), PathKind::Sim, Transport::Sim)
}

/// What every transport owes: the same bytes back, whatever the list looks like.
fn keeps_its_promises(path: &Arc<PathHandle>) {
    let mut thread = Thread::new(path);
    let mut all = pattern(3, 16 * 512 + 9);
    // Odd addresses and odd lengths; 16 blocks in total.
    let (head, rest) = all[9..].split_at_mut(700);
    let (middle, tail) = rest.split_at_mut(1);
    let list = [segment::of(head), segment::of(middle), segment::of(tail)];
    let extent = Extent::new(8, 16);
    assert_eq!(thread.run(Op::Write { extent, fua: true }, &list), Completion::Good);
    assert_eq!(thread.read(8, 16), pattern(3, 16 * 512 + 9)[9..]);
    let mut got = vec![0; 16 * 512 + 5];
    let (left, right) = got[5..].split_at_mut(4097);
    let list = [segment::of(left), segment::of(right)];
    assert_eq!(thread.run(Op::Read(extent), &list), Completion::Good);
    assert_eq!(got[5..], pattern(3, 16 * 512 + 9)[9..]);
    assert_eq!(thread.run(Op::Flush, &[]), Completion::Good);
    let extents = [Extent::new(8, 2), Extent::new(12, 1)];
    assert_eq!(thread.run_extents(Op::Unmap, &[], &extents), Completion::Good);
    let zeroes = Op::WriteZeroes { extent: Extent::new(14, 2), unmap: false };
    assert_eq!(thread.run(zeroes, &[]), Completion::Good);
    let zeroes = Op::WriteZeroes { extent: Extent::new(20, 1), unmap: true };
    assert_eq!(thread.run(zeroes, &[]), Completion::Good);
    let mut expected = pattern(3, 16 * 512 + 9)[9..].to_vec();
    for block in [0, 1, 4, 6, 7, 12] {
        expected[block * 512..][..512].fill(0);
    }
    assert_eq!(thread.read(8, 16), expected);
    assert_eq!(path.read_check(TIMEOUT), Completion::Good);
    assert_eq!(path.identify(TIMEOUT, &|_| ()).as_ref(), Ok(path.identity()));
}

#[test]
fn a_file_through_the_page_cache_keeps_its_promises() {
    keeps_its_promises(&file_path(1 << 20, 1));
}

#[test]
fn a_file_with_bounced_buffers_keeps_its_promises() {
    keeps_its_promises(&file_path(1 << 20, 512));
}

#[test]
fn a_simulated_path_keeps_its_promises() {
    keeps_its_promises(&sim_path(&sim_image(LuConfig::default()), "a"));
}

#[test]
fn the_null_path_reads_zeroes_at_once() {
    let path = open(Opened::Null(1 << 20), PathKind::Null, Transport::Null);
    let mut thread = Thread::new(&path);
    let mut data = pattern(1, 1024);
    assert_eq!(thread.write(0, &mut data), Completion::Good);
    assert_eq!(thread.read(0, 2), vec![0; 1024]);
    assert_eq!(path.identity().wwid, "null-1048576");
    assert!(!path.is_scsi());
    let completion = path.execute(&Cdb::test_unit_ready(), Data::None, TIMEOUT);
    assert_eq!(completion, Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENOTTY });
}

#[test]
fn the_end_of_a_file_is_short_and_beyond_it_an_error() {
    // The capacity was right when the path was opened; then somebody cut it.
    let node = disk(scratch_file(8192), 1);
    let file = Arc::clone(&node.file);
    let path = open(Opened::Disk(node), PathKind::File, Transport::File);
    file.set_len(1536).unwrap();
    let mut thread = Thread::new(&path);
    let mut data = vec![0; 2048];
    let list = [segment::of(&mut data)];
    assert_eq!(thread.run(Op::Read(Extent::new(1, 4)), &list), Completion::Short(1024));
    let beyond = thread.run(Op::Read(Extent::new(8, 4)), &list);
    assert_eq!(beyond, Completion::Errno { from: ErrnoFrom::File, code: libc::EIO });
    assert_ne!(path.identify(TIMEOUT, &|_| ()).as_ref(), Ok(path.identity()), "capacity changed");
}

#[test]
fn an_errno_of_the_ring_is_reported_as_it_came() {
    let full = File::options().read(true).write(true).open("/dev/full").unwrap();
    let path = open(Opened::Disk(disk(full, 1)), PathKind::File, Transport::File);
    let mut thread = Thread::new(&path);
    let completion = thread.write(0, &mut pattern(1, 512));
    assert_eq!(completion, Completion::Errno { from: ErrnoFrom::File, code: libc::ENOSPC });
}

#[test]
fn a_bounced_read_that_fails_leaves_the_guest_alone() {
    let node = disk(scratch_file(512), 512);
    let path = open(Opened::Disk(node), PathKind::File, Transport::File);
    let mut thread = Thread::new(&path);
    let mut data = vec![7; 513];
    let list = [segment::of(&mut data[1..])];
    let completion = thread.run(Op::Read(Extent::new(1, 1)), &list);
    assert!(matches!(completion, Completion::Errno { .. }));
    assert_eq!(data, vec![7; 513]);
}

#[test]
fn two_paths_of_one_array_are_one_disk() {
    let image = sim_image(LuConfig::default());
    let (a, b) = (sim_path(&image, "a"), sim_path(&image, "b"));
    assert_eq!(a.identity(), b.identity());
    assert!(a.geometry().unmap && a.limits().fua);
    Thread::new(&a).write(100, &mut pattern(5, 2048));
    assert_eq!(Thread::new(&b).read(100, 4), pattern(5, 2048));
    // A path that is removed leaves the other alone.
    drop(a);
    assert_eq!(Thread::new(&b).read(100, 4), pattern(5, 2048));
}

#[test]
fn a_cut_is_the_transports_word_and_a_plug_a_unit_attention() {
    let image = sim_image(LuConfig::default());
    let (a, b) = (sim_path(&image, "a"), sim_path(&image, "b"));
    let tur = |path: &PathHandle| path.execute(&Cdb::test_unit_ready(), Data::None, TIMEOUT);
    assert!(a.inject(Fault::Cut(CutMode::Before)));
    assert!(matches!(tur(&a), Completion::Scsi { host: HostByte::NO_CONNECT, .. }));
    let refused = Thread::new(&a).write(0, &mut pattern(1, 512));
    assert!(matches!(refused, Completion::Scsi { host: HostByte::NO_CONNECT, .. }));
    assert!(a.identify(TIMEOUT, &|_| ()).unwrap_err().contains("DID_NO_CONNECT"));
    assert!(a.faults().unwrap().0.contains("cut"), "{:?}", a.faults());
    assert_eq!(tur(&b), Completion::Good);
    a.inject(Fault::Plug);
    let Completion::Scsi { sense, .. } = tur(&a) else { panic!("no unit attention") };
    assert_eq!(sense.code().map(|code| code.key), Some(Key::UnitAttention));
    assert_eq!(tur(&a), Completion::Good);
    // The proof takes a unit attention for old news.
    a.inject(Fault::Plug);
    assert_eq!(a.identify(TIMEOUT, &|_| ()).as_ref(), Ok(a.identity()));
    assert!(!open(Opened::Null(512), PathKind::Null, Transport::Null).inject(Fault::Plug));
}

#[test]
fn what_a_reservation_has_kept_from_a_path_it_learns_when_that_has_ended() {
    let image = sim_image(LuConfig::default());
    let first = sim_path(&image, "a");
    let told = |order| assert!(first.inject(Fault::Foreign { host: 9, order }), "{order:?}");
    told(Foreign::Register(PrKey(0xbad)));
    told(Foreign::Reserve(Type::ExclusiveAccess));
    let path = sim_path(&image, "b");
    assert_eq!((path.fua(), path.limits().fua), (None, false), "nothing is promised");
    assert!(!path.learn_fua(TIMEOUT, &|_| ()), "it is still kept from us");
    told(Foreign::Release);
    assert!(path.learn_fua(TIMEOUT, &|_| ()));
    assert_eq!(path.fua(), Some(true));
    assert!(!path.learn_fua(TIMEOUT, &|_| ()), "that is no news");
    assert_eq!(first.fua(), Some(true), "known from the beginning");
}

#[test]
fn a_hung_path_returns_at_the_commands_timeout() {
    let image = sim_image(LuConfig::default());
    let path = sim_path(&image, "a");
    path.inject(Fault::Hang);
    let short = Duration::from_millis(20);
    let completion = path.execute(&Cdb::test_unit_ready(), Data::None, short);
    assert!(matches!(completion, Completion::Scsi { host: HostByte::TIME_OUT, .. }));
}

#[test]
fn what_is_beyond_the_capacity_is_rejected_and_room_comes_with_completions() {
    let image = sim_image(LuConfig::default());
    let path = sim_path(&image, "a");
    path.inject(Fault::Delay(Duration::from_millis(30)));
    let mut thread = Thread::new(&path);
    let mut data = vec![0; 512];
    let list = [segment::of(&mut data)];
    let op = Op::Read(Extent::new(0, 1));
    let command = Command { op, data: &list, extents: &[], passthrough: false, timeout: TIMEOUT };
    let capacity = thread.port.capacity();
    for _ in 0..capacity {
        assert_eq!(thread.issue(&command), Ok(Issued::Pending));
    }
    assert_eq!(thread.issue(&command), Err(Rejected));
    assert_eq!(thread.port.in_flight(), capacity);
    let mut done = 0;
    while done < capacity {
        done += thread.wait().len();
    }
    assert_eq!(done, capacity);
    assert_eq!(thread.issue(&command), Ok(Issued::Pending));
    assert_eq!(thread.wait().len(), 1);
}

#[test]
fn the_ring_rejects_beyond_its_share_and_recovers() {
    let path = file_path(1 << 20, 1);
    let mut thread = Thread::new(&path);
    let mut data = vec![0; 512];
    let list = [segment::of(&mut data)];
    let op = Op::Read(Extent::new(0, 1));
    let command = Command { op, data: &list, extents: &[], passthrough: false, timeout: TIMEOUT };
    let capacity = thread.port.capacity();
    assert_eq!(capacity, 64);
    for _ in 0..capacity {
        assert_eq!(thread.issue(&command), Ok(Issued::Pending));
    }
    assert_eq!(thread.issue(&command), Err(Rejected));
    let mut done = 0;
    while done < capacity {
        done += thread.wait().len();
    }
    assert_eq!(thread.read(0, 1), vec![0; 512]);
}

#[test]
fn our_own_mistakes_never_reach_a_path() {
    let image = sim_image(LuConfig::default());
    let path = sim_path(&image, "a");
    let mut thread = Thread::new(&path);
    let ours = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::EINVAL };
    assert_eq!(thread.run_extents(Op::Unmap, &[], &[]), ours);
    let path = file_path(4096, 1);
    let mut data = [0; 512];
    let far = Op::Read(Extent::new(u64::MAX, 1));
    assert_eq!(Thread::new(&path).run(far, &[segment::of(&mut data)]), ours);
}

#[test]
fn slots_translate_only_their_own_cookies() {
    let mut slots = Slots::new(2);
    assert_eq!(slots.complete(1, 512, ErrnoFrom::File), None);
    let direct = Direct {
        file: Arc::new(scratch_file(512)),
        alignment: DirectAlignment { memory: 1, offset: 1 },
        errno_from: ErrnoFrom::File,
    };
    let mut uring = Uring::new(2).unwrap();
    let mut data = [0; 512];
    let list = [segment::of(&mut data)];
    let flags = crate::sys::uring::RwFlags::NONE;
    let transfer = blk_uring::Transfer { write: false, offset: 0, data: &list, flags };
    slots.issue(&mut uring, &direct, 9, &transfer).unwrap();
    uring.submit_and_wait(Wait::Forever).unwrap();
    let mut results = Vec::new();
    uring.reap(|cqe| results.push((cqe.user_data, cqe.result)));
    assert_eq!(results, [(9, 512)]);
    assert_eq!(slots.complete(8, 512, ErrnoFrom::File), None);
    assert_eq!(slots.complete(9, 512, ErrnoFrom::File), Some(Completion::Good));
    assert_eq!(slots.complete(9, 512, ErrnoFrom::File), None, "once");
}

fn cdb(raw: &[u8], direction: Direction) -> Op {
    Op::Cdb { cdb: Cdb::from_bytes(raw).unwrap(), direction }
}
