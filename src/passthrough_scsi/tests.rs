use super::blk_uring::Direct;
use super::sg_io::{ScsiWork, is_torn};
use super::*;
use crate::io::{Command, Direction, Op, Segment};
use crate::scsi::sense::{Key, SenseCode};
use crate::scsi::status::{HostByte, Status};
use crate::sim::{CutMode, LuConfig, MemoryMedium, NewCapacity};
use crate::sys::file::DirectAlignment;
use crate::sys::segment;
use crate::sys::uring::{Uring, Wait};
use pool::{Scratch, Work};
use std::fs::File;
use std::os::unix::fs::FileExt;

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
fn a_file_that_is_no_scsi_device_proves_nothing() {
    let node = scsi_node("/dev/null", Interface::V3);
    let about = about(PathKind::ScsiGeneric, Transport::SgIo);
    let error = PathHandle::new(about, Opened::Scsi(node), 4, TIMEOUT, Box::new(())).unwrap_err();
    assert!(error.to_string().starts_with("INQUIRY failed: Inappropriate ioctl"), "{error}");
}

fn scsi_node(path: &str, interface: Interface) -> ScsiNode {
    let queue = QueueLimits { max_transfer_bytes: 65536, max_segments: 2, depth: 4 };
    let file = Arc::new(File::open(path).unwrap());
    ScsiNode {
        file,
        claim: None,
        interface,
        direct: None,
        bsg_uring: false,
        queue,
        read_only: true,
    }
}

/// LIO writes other bytes than those it was given, else.
#[test]
fn blocks_that_are_compared_or_repeated_go_from_a_page_boundary() {
    let at = |addr, len| Segment { addr, len };
    let compare_and_write = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    let same_32 = [&[0x7f, 0, 0, 0, 0, 0, 0, 24, 0, 0x0d][..], &[0; 22]].concat();
    let write_32 = [&[0x7f, 0, 0, 0, 0, 0, 0, 24, 0, 0x0b][..], &[0; 22]].concat();
    let rows: [(&[u8], bool); 6] = [
        (&compare_and_write, true),
        (&[0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0], true),
        (&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], true),
        (&same_32, true),
        (&write_32, false),
        (&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], false),
    ];
    for (cdb, minds) in rows {
        let cdb = Cdb::from_bytes(cdb).unwrap();
        assert!(!is_torn(&cdb, &[]));
        assert!(!is_torn(&cdb, &[at(0x3000, 1024)]));
        assert_eq!(is_torn(&cdb, &[at(0x3e00, 1024)]), minds, "{cdb:?}");
        assert_eq!(is_torn(&cdb, &[at(0x3000, 512), at(0x5000, 512)]), minds, "{cdb:?}");
    }
}

#[test]
fn sg_io_on_a_wrong_file_is_an_errno_of_the_ioctl_bounced_or_not() {
    let expected = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENOTTY };
    for interface in [Interface::V3, Interface::V4] {
        let mut data = vec![7; 3 * 512];
        let segments: Vec<_> = data.chunks_mut(512).map(segment::of).collect();
        let op = Op::Read(Extent::new(0, 3));
        let command =
            Command { op, data: &segments, extents: &[], passthrough: true, timeout: TIMEOUT };
        let mut work = ScsiWork {
            node: Arc::new(scsi_node("/dev/null", interface)),
            wire: wire::encode(&command, 512).unwrap(),
            segments: segments.clone(),
            timeout: TIMEOUT,
        };
        assert_eq!(work.run(&mut Scratch::default()), expected);
        assert_eq!(data, vec![7; 3 * 512]);
    }
}

#[test]
fn helpers_leave_an_sg_nodes_checkers_room() {
    assert_eq!(helpers_for(PathKind::ScsiGeneric, Interface::V3, 16), 14);
    assert_eq!(helpers_for(PathKind::ScsiDisk, Interface::V3, 16), 16);
    assert_eq!(helpers_for(PathKind::ScsiDisk, Interface::V3, 0), 1);
}

#[test]
fn the_last_owner_closes_the_file_at_once() {
    let file = Arc::new(scratch_file(4096));
    let mut node = disk(file.try_clone().unwrap(), 1);
    node.file = Arc::clone(&file);
    let path = open(Opened::Disk(node), PathKind::File, Transport::File);
    let mut thread = Thread::new(&path);
    assert_eq!(thread.run(Op::Flush, &[]), Completion::Good);
    drop(thread);
    drop(path);
    assert_eq!(Arc::strong_count(&file), 1);
    file.read_at(&mut [0; 1], 0).unwrap();
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

#[test]
fn a_guests_own_command_ends_as_the_lu_ended_it() {
    let image = sim_image(LuConfig::default());
    let mut thread = Thread::new(&sim_path(&image, "a"));
    // More room than data: GOOD, and the residual says how much more.
    let mut data = vec![0xee; 300];
    let (head, tail) = data.split_at_mut(7);
    let list = [segment::of(head), Segment::default(), segment::of(tail)];
    let inquiry = cdb(&[0x12, 1, 0x80, 0x01, 0x2c, 0], Direction::In);
    let Completion::Scsi { status, host, residual, .. } = thread.run(inquiry, &list) else {
        panic!("a residual is not told")
    };
    assert_eq!((status, host), (Status::GOOD, HostByte::OK));
    let moved = 300 - usize::try_from(residual).unwrap();
    assert!((4..64).contains(&moved) && data[1] == 0x80, "{moved} bytes");
    assert!(data[moved..].iter().all(|b| *b == 0xee), "beyond the answer nothing is touched");
    // No data at all, whatever direction it would have had.
    let nothing = cdb(&[0x12, 0, 0, 0, 0, 0], Direction::In);
    assert_eq!(thread.run(nothing, &[]), Completion::Good);
    assert_eq!(thread.run(nothing, &[Segment::default()]), Completion::Good);
    let unknown = thread.run(cdb(&[0xff, 0, 0, 0, 0, 0], Direction::None), &[]);
    let Completion::Scsi { status, sense, .. } = unknown else { panic!("{unknown:?}") };
    assert_eq!(status, Status::CHECK_CONDITION);
    assert_eq!(sense.code().map(|c| (c.asc, c.ascq)), Some((0x20, 0)));
}

#[test]
fn data_of_a_guests_own_commands_goes_both_ways() {
    let image = sim_image(LuConfig::default());
    let mut thread = Thread::new(&sim_path(&image, "a"));
    let mut data = pattern(9, 1024);
    let write = cdb(&[0x2a, 0, 0, 0, 0, 5, 0, 0, 2, 0], Direction::Out);
    assert_eq!(thread.run(write, &[segment::of(&mut data)]), Completion::Good);
    let mut got = vec![0; 1024];
    let (left, right) = got.split_at_mut(100);
    let list = [segment::of(left), segment::of(right)];
    let read = cdb(&[0x28, 0, 0, 0, 0, 5, 0, 0, 2, 0], Direction::In);
    assert_eq!(thread.run(read, &list), Completion::Good);
    assert_eq!(got, pattern(9, 1024));
}

#[test]
fn paths_that_speak_no_scsi_refuse_a_guests_own_command() {
    let refused = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENOTTY };
    let tur = cdb(&[0; 6], Direction::None);
    let null = open(Opened::Null(1 << 20), PathKind::Null, Transport::Null);
    assert_eq!(Thread::new(&null).run(tur, &[]), refused);
    let file = file_path(4096, 1);
    assert_eq!(Thread::new(&file).run(tur, &[]), refused);
    for path in [&null, &file] {
        let error = path.reset_lu(TIMEOUT).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }
}

#[test]
fn a_reset_of_the_lu_is_told_to_every_path() {
    let image = sim_image(LuConfig::default());
    let (a, b) = (sim_path(&image, "a"), sim_path(&image, "b"));
    a.reset_lu(TIMEOUT).unwrap();
    for path in [&a, &b] {
        let met = path.execute(&Cdb::test_unit_ready(), Data::None, TIMEOUT);
        let code = unit_attention(&met).and_then(Sense::code);
        assert_eq!(code, Some(SenseCode::LU_RESET));
    }
}

#[test]
fn what_a_check_meets_stops_the_commands_of_every_thread_until_a_proof() {
    let image = sim_image(LuConfig::default());
    let path = sim_path(&image, "a");
    let (mut one, mut two) = (Thread::new(&path), Thread::new(&path));
    let doubt = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ESTALE };
    let tur = cdb(&[0; 6], Direction::None);
    // A plug leaves a unit attention behind; the checker meets it.
    path.inject(Fault::Plug);
    let met = path.execute(&Cdb::test_unit_ready(), Data::None, TIMEOUT);
    assert!(unit_attention(&met).is_some_and(|s| s.code().unwrap().questions_identity()));
    assert_eq!(one.run(tur, &[]), doubt);
    assert_eq!(one.run(tur, &[]), doubt, "the engine may not have heard of the first");
    assert_eq!(two.run(Op::Read(Extent::new(0, 1)), &[]), doubt);
    assert!(path.identify(TIMEOUT, &|_| ()).is_ok());
    assert_eq!(one.run(tur, &[]), Completion::Good);
    assert_eq!(two.run(tur, &[]), Completion::Good);
}

#[test]
fn what_a_guests_command_meets_stops_those_of_every_thread_until_a_proof() {
    let image = sim_image(LuConfig::default());
    let path = sim_path(&image, "a");
    let (mut one, mut two) = (Thread::new(&path), Thread::new(&path));
    let doubt = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ESTALE };
    let tur = cdb(&[0; 6], Direction::None);
    path.inject(Fault::Plug);
    assert!(unit_attention(&one.run(tur, &[])).is_some());
    assert_eq!(two.run(tur, &[]), doubt, "it would have gone wherever the path leads now");
    assert_eq!(one.run(tur, &[]), doubt);
    assert!(path.identify(TIMEOUT, &|_| ()).is_ok());
    assert_eq!(two.run(tur, &[]), Completion::Good);
}

/// The LU has forgotten what it told as the data of a REQUEST SENSE: nobody
/// else meets it.
#[test]
fn what_request_sense_brings_as_data_stops_every_thread_until_a_proof() {
    let image = sim_image(LuConfig::default());
    let path = sim_path(&image, "a");
    let (mut one, mut two) = (Thread::new(&path), Thread::new(&path));
    let doubt = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ESTALE };
    let tur = cdb(&[0; 6], Direction::None);
    let grown = Fault::Capacity(NewCapacity::Bytes(2 << 20));
    for (fault, questions) in [(Fault::Plug, true), (Fault::LuReset, true), (grown, false)] {
        for (descriptors, room) in [(0, 252_u8), (1, 252), (0, 14)] {
            path.inject(fault);
            let mut data = vec![0; usize::from(room)];
            // In pieces, as a guest may have it.
            let (head, tail) = data.split_at_mut(3);
            let list = [segment::of(head), segment::of(tail)];
            let sense = cdb(&[0x03, descriptors, 0, 0, room, 0], Direction::In);
            one.run(sense, &list);
            let code = Sense::from_bytes(&data).code().unwrap();
            if !questions && code == SenseCode::NO_SENSE {
                continue; // it has that size already
            }
            assert_eq!(code.questions_identity(), questions, "{code}");
            let next = if questions { doubt } else { Completion::Good };
            assert_eq!(two.run(tur, &[]), next, "{code}: wherever the path leads now");
            assert_eq!(one.run(tur, &[]), next, "{code}");
            assert!(path.identify(TIMEOUT, &|_| ()).is_ok());
            assert_eq!(two.run(tur, &[]), Completion::Good);
        }
    }
    // A guest that finds old bytes in its buffer has heard nothing.
    path.inject(Fault::Cut(CutMode::Before));
    let mut old = Sense::fixed(SenseCode::LU_RESET).as_bytes().to_vec();
    one.run(cdb(&[0x03, 0, 0, 0, 18, 0], Direction::In), &[segment::of(&mut old)]);
    path.inject(Fault::Plug);
    assert!(unit_attention(&two.run(tur, &[])).is_some(), "the plug's own");
}

#[test]
fn what_the_host_says_of_a_path_stops_every_thread_until_a_proof() {
    let path = sim_path(&sim_image(LuConfig::default()), "a");
    let mut thread = Thread::new(&path);
    let tur = cdb(&[0; 6], Direction::None);
    path.question();
    let doubt = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ESTALE };
    assert_eq!(thread.run(tur, &[]), doubt);
    assert!(path.identify(TIMEOUT, &|_| ()).is_ok());
    assert_eq!(thread.run(tur, &[]), Completion::Good);
}

#[test]
fn a_proof_tells_every_unit_attention_it_meets() {
    let image = sim_image(LuConfig::default());
    let path = sim_path(&image, "a");
    let heard = std::cell::RefCell::new(Vec::new());
    let hear = |sense: &Sense| heard.borrow_mut().push(sense.code().unwrap());
    assert!(path.identify(TIMEOUT, &hear).is_ok());
    assert_eq!(*heard.borrow(), []);
    path.inject(Fault::Plug);
    assert!(path.identify(TIMEOUT, &hear).is_ok());
    assert_eq!(*heard.borrow(), [SenseCode::NEXUS_LOSS]);
}

#[test]
fn a_cdb_that_the_path_does_not_take_is_the_lus_illegal_request() {
    let refused = |completion| sg_io::is_too_long(&completion, true);
    let errno = |code| Completion::Errno { from: ErrnoFrom::Ioctl, code };
    let host =
        |host| Completion::Scsi { status: Status::GOOD, host, sense: Sense::EMPTY, residual: 0 };
    for completion in [errno(libc::EMSGSIZE), errno(libc::EINVAL), host(HostByte::ABORT)] {
        assert!(refused(completion), "{completion:?}");
    }
    for completion in [errno(libc::ENODEV), host(HostByte::NO_CONNECT), Completion::Good] {
        assert!(!refused(completion), "{completion:?}");
    }
    // Short ones, and aborts that took their time, mean what they say.
    assert!(sg_io::is_too_long(&errno(libc::EMSGSIZE), false));
    assert!(!sg_io::is_too_long(&errno(libc::EINVAL), false));
    assert!(!sg_io::is_too_long(&host(HostByte::ABORT), false));
}

#[test]
fn block_operations_hear_how_far_they_came_and_a_guest_hears_it_all() {
    let half = Completion::Scsi {
        status: Status::GOOD,
        host: HostByte::OK,
        sense: Sense::EMPTY,
        residual: 512,
    };
    assert_eq!(wire::told(false, 1024, half), Completion::Short(512));
    assert_eq!(wire::told(true, 1024, half), half);
    let recovered = Completion::Scsi {
        status: Status::GOOD,
        host: HostByte::OK,
        sense: Sense::fixed(SenseCode::new(Key::RecoveredError, 0x18, 0x00)),
        residual: 0,
    };
    assert_eq!(wire::told(false, 1024, recovered), Completion::Good);
    assert_eq!(wire::told(true, 1024, recovered), recovered);
}

#[test]
fn an_answer_shorter_than_asked_for_is_seen_to_be_short() {
    let path = sim_path(&sim_image(LuConfig::default()), "a");
    let mut data = vec![0xee; 4096];
    let completion = path.execute(&Cdb::inquiry(None, 4096), Data::In(&mut data), TIMEOUT);
    assert_ne!(completion, Completion::Good, "fewer bytes than asked for");
    assert_eq!(data.len(), usize::from(data[4]) + 5);
    let mut data = vec![0; 8];
    let whole = path.execute(&Cdb::inquiry(None, 8), Data::In(&mut data), TIMEOUT);
    assert_eq!((whole, data.len()), (Completion::Good, 8));
    path.inject(Fault::Cut(CutMode::Before));
    path.execute(&Cdb::inquiry(None, 8), Data::In(&mut data), TIMEOUT);
    assert!(data.is_empty(), "nothing arrives on a path that is cut");
}

#[test]
fn data_goes_to_the_lu_with_a_command_of_our_own() {
    let path = sim_path(&sim_image(LuConfig::default()), "a");
    let extent = Extent::new(3, 1);
    let block = pattern(9, 512);
    let write = Cdb::write(extent, false).unwrap();
    assert_eq!(path.execute(&write, Data::Out(&block), TIMEOUT), Completion::Good);
    let mut read = vec![0; 512];
    let cdb = Cdb::read(extent).unwrap();
    assert_eq!(path.execute(&cdb, Data::In(&mut read), TIMEOUT), Completion::Good);
    assert_eq!(read, block);
}
