//! `/dev/null` stands in for a bsg node: it takes any command by io_uring, says
//! that it went well and touches nothing. A regular file takes none.

use super::*;
use crate::io::{ErrnoFrom, Extent, Op};
use std::fs::File;
use std::os::fd::AsFd;

const TIMEOUT: Duration = Duration::from_secs(5);

/// A port and its thread in miniature.
struct Port {
    uring: Uring,
    coalescer: Rc<Coalescer>,
    slots: BsgSlots,
    file: File,
}

impl Port {
    fn new(file: File) -> Port {
        let coalescer = Coalescer::new();
        let slots = BsgSlots::new(4, 128, &coalescer).unwrap();
        Port { uring: Uring::wide(8).unwrap(), coalescer, slots, file }
    }

    fn null() -> Port {
        Port::new(File::options().read(true).write(true).open("/dev/null").unwrap())
    }

    fn issue(&mut self, cookie: u64, op: Op, data: &[Segment]) -> Taken {
        let extents = [Extent::new(0, 8)];
        let command = Command { op, data, extents: &extents, passthrough: false, timeout: TIMEOUT };
        let wire = wire::encode(&command, 512).unwrap();
        self.slots.issue(&mut self.uring, self.file.as_fd(), cookie, wire, &command)
    }

    fn wait(&mut self) -> Vec<Cqe> {
        self.uring.submit_and_wait(Wait::AtMost(TIMEOUT)).unwrap();
        let mut came = Vec::new();
        self.uring.reap(|cqe| came.push(cqe));
        assert!(!came.is_empty());
        came
    }

    fn run(&mut self, op: Op, data: &[Segment]) -> Completion {
        assert!(matches!(self.issue(7, op, data), Taken::Queued));
        let came = self.wait();
        assert_eq!(came.len(), 1);
        self.slots.complete(&came[0]).unwrap()
    }

    /// As if the kernel had said that.
    fn told(&mut self, op: Op, data: &[Segment], result: i32, extra: u64) -> Completion {
        assert!(matches!(self.issue(8, op, data), Taken::Queued));
        let came = self.wait();
        let completion = self.slots.complete(&Cqe { result, extra, ..came[0] }).unwrap();
        assert_eq!(self.slots.busy(), 0);
        completion
    }
}

fn read(blocks: u64) -> Op {
    Op::Read(Extent::new(0, blocks))
}

fn raw(cdb: &[u8], direction: Direction) -> Op {
    Op::Cdb { cdb: Cdb::from_bytes(cdb).unwrap(), direction }
}

fn pieces(data: &mut [Vec<u8>]) -> Vec<Segment> {
    data.iter_mut().map(|piece| segment::of(piece)).collect()
}

#[test]
fn pieces_that_follow_each_other_are_one() {
    let at = |addr, len| Segment { addr, len };
    assert_eq!(joined(&[]), None);
    assert_eq!(joined(&[at(5, 0)]), None);
    assert_eq!(joined(&[at(4096, 512)]), Some(at(4096, 512)));
    let list = [at(0, 0), at(4096, 512), at(1, 0), at(4608, 100), at(4708, 1)];
    assert_eq!(joined(&list), Some(at(4096, 613)));
    assert_eq!(joined(&[at(4096, 512), at(4609, 1)]), None);
    assert_eq!(joined(&[at(4096, 512), at(4096, 512)]), None);
}

#[test]
fn a_piece_goes_as_it_is_and_pieces_through_a_buffer() {
    let port = Port::null();
    let mut data = [vec![1u8; 512], vec![2; 512]];
    let list = pieces(&mut data);
    let write = Op::Write { extent: Extent::new(0, 1), fua: true };
    let flat = |op: Op, data: &[Segment]| {
        let extents = [Extent::new(0, 8)];
        let command = Command { op, data, extents: &extents, passthrough: false, timeout: TIMEOUT };
        port.slots.flat(&wire::encode(&command, 512).unwrap(), &command).unwrap()
    };
    let (one, lent) = flat(write, &list[..1]);
    assert!(one == list[0] && lent.is_none());
    let two = Op::Write { extent: Extent::new(0, 2), fua: false };
    let (all, lent) = flat(two, &list);
    assert_eq!((all.addr % 4096, all.len), (0, 1024));
    let mut got = [0; 1024];
    // SAFETY: the buffer is on loan here, and mapped.
    unsafe { segment::copy_in(&[all], 0, &mut got) };
    assert_eq!(got, *data.concat());
    port.coalescer.take_back(lent.unwrap());
    // Parameters of our own making, and what LIO takes from a page boundary only.
    let (list_of_extents, lent) = flat(Op::Unmap, &[]);
    assert_eq!(list_of_extents.len, 8 + 16);
    port.coalescer.take_back(lent.unwrap());
    let mut page = vec![0; 3 * 4096];
    let odd = [segment::of(&mut page[1..1025])];
    let compare_and_write = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    let (moved, lent) = flat(raw(&compare_and_write, Direction::Out), &odd);
    assert!(moved.addr % 4096 == 0 && moved != odd[0]);
    port.coalescer.take_back(lent.unwrap());
    // No data is no data.
    let (nothing, lent) = flat(Op::Flush, &[]);
    assert!(nothing.len == 0 && lent.is_none());
}

#[test]
fn data_come_from_the_buffer_as_far_as_they_came() {
    let mut port = Port::null();
    let mut data = [vec![7u8; 512], vec![7; 512]];
    let list = pieces(&mut data);
    // What is in the buffer is an earlier command's: a guest's own gets zeroes.
    let inquiry = raw(&[0x12, 0, 0, 4, 0, 0], Direction::In);
    let some = 624 << 32; // of 1024 bytes 400 came
    let completion = port.told(inquiry, &list, 0, some);
    assert!(matches!(completion, Completion::Scsi { residual: 624, .. }), "{completion:?}");
    assert_eq!(data.concat()[..400], [0; 400]);
    assert_eq!(data.concat()[400..], [7; 624]);
    let list = pieces(&mut data);
    assert_eq!(port.told(read(2), &list, 0, 512 << 32), Completion::Short(512));
    let failed = port.told(read(2), &list, -libc::ENODEV, 0);
    assert_eq!(failed, Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENODEV });
    assert_eq!(data.concat()[512..], [7; 512], "of what failed nothing reaches the guest");
    assert!(port.slots.free.len() == 4 && port.slots.slots.iter().all(|s| s.guest.is_empty()));
}

#[test]
fn sense_is_that_of_the_commands_own_place() {
    let mut port = Port::null();
    // Two commands out, the second one's sense is looked at.
    assert!(matches!(port.issue(1, Op::Flush, &[]), Taken::Queued));
    assert!(matches!(port.issue(2, Op::Flush, &[]), Taken::Queued));
    let mut came = Vec::new();
    while came.len() < 2 {
        came.extend(port.wait());
    }
    let sense = [0x70, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0];
    let index = port.slots.busy[&2];
    let places = port.slots.places.as_mut().unwrap();
    places.bytes_mut(index * PLACE + bsg::CDB_MAX, 18).copy_from_slice(&sense);
    let check = 18 << 24 | 0x08 << 8 | 0x02;
    let second = came.iter().find(|cqe| cqe.user_data == 2).unwrap();
    let completion = port.slots.complete(&Cqe { extra: check, ..*second }).unwrap();
    let Completion::Scsi { sense: got, .. } = completion else { panic!("{completion:?}") };
    assert_eq!(got.as_bytes(), sense);
    let first = came.iter().find(|cqe| cqe.user_data == 1).unwrap();
    assert_eq!(port.slots.complete(first), Some(Completion::Good));
    assert_eq!(port.slots.complete(first), None, "once");
}

#[test]
fn a_full_table_rejects_and_completions_make_room() {
    let mut port = Port::null();
    for cookie in 0..4 {
        assert!(matches!(port.issue(cookie, Op::Flush, &[]), Taken::Queued));
    }
    assert_eq!((port.slots.busy(), port.slots.capacity()), (4, 4));
    assert!(matches!(port.issue(4, Op::Flush, &[]), Taken::Full));
    let mut done = 0;
    while done < 4 {
        for cqe in port.wait() {
            assert_eq!(port.slots.complete(&cqe), Some(Completion::Good));
            done += 1;
        }
    }
    assert_eq!(port.run(Op::Flush, &[]), Completion::Good);
}

#[test]
fn what_the_ring_cannot_carry_is_left_to_sg_io() {
    let mut port = Port::null();
    let long = [&[0x7f, 0, 0, 0, 0, 0, 0, 24, 0, 0x09][..], &[0; 22]].concat();
    assert!(matches!(port.issue(1, raw(&long, Direction::None), &[]), Taken::Unfit(_)));
    // Two megabytes in pieces.
    let mut data = [vec![0; 1 << 20], vec![0; 1 << 20]];
    let (first, second) = data.split_at_mut(1);
    let list = [segment::of(&mut second[0]), segment::of(&mut first[0])];
    assert!(matches!(port.issue(1, read(4096), &list), Taken::Unfit(_)));
    assert_eq!(port.slots.free.len(), 4);
    let mut narrow = Port { uring: Uring::new(8).unwrap(), ..Port::null() };
    assert!(matches!(narrow.issue(1, Op::Flush, &[]), Taken::Unfit(_)));
}

#[test]
fn a_node_that_takes_none_says_so() {
    let name = format!("vhost-mpath-bsg-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let why = probe(file.as_fd(), TIMEOUT).unwrap_err();
    assert!(why.contains("since 7.1"), "{why}");
    let mut port = Port::new(file);
    let code = libc::EOPNOTSUPP;
    let refused = Completion::Errno { from: ErrnoFrom::Ioctl, code };
    assert_eq!(port.run(Op::Flush, &[]), refused);
    assert_eq!(probe(Port::null().file.as_fd(), TIMEOUT), Ok(()));
}

/// `cargo test --release --lib -- --ignored --nocapture what_a_command_costs`
#[test]
#[ignore = "a measurement, for a release build on a quiet machine"]
#[allow(clippy::disallowed_methods)] // a measurement watches the clock
fn what_a_command_costs_beyond_its_entry() {
    const ROUNDS: u32 = 20_000;
    const DEPTH: u64 = 32;
    let mut data = vec![0u8; 8192];
    let (one, two) = data.split_at_mut(4096);
    let flat = [segment::of(one)];
    let pieces = [segment::of(&mut two[2048..]), segment::of(&mut two[..2048])];
    let mut port = Port::null();
    port.uring = Uring::wide(64).unwrap();
    port.slots = BsgSlots::new(64, 128, &port.coalescer).unwrap();
    let places = Arena::new(4096).unwrap();
    let bare = bsg::Command {
        cdb: places.segment(0, 16).addr,
        cdb_len: 16,
        sense: places.segment(128, 96).addr,
        direction: Direction::In,
        data: flat[0],
        timeout: TIMEOUT,
    };
    let mut measure = |what: &dyn Fn(&mut Port, u64)| {
        let begun = std::time::Instant::now();
        for _ in 0..ROUNDS {
            for cookie in 0..DEPTH {
                what(&mut port, cookie);
            }
            port.uring.submit_and_wait(Wait::Forever).unwrap();
            let slots = &mut port.slots;
            port.uring.reap(|cqe| {
                slots.complete(&cqe);
            });
        }
        begun.elapsed().as_nanos() as f64 / f64::from(ROUNDS) / DEPTH as f64
    };
    for _ in 0..3 {
        let floor = measure(&|port, cookie| {
            // SAFETY: `/dev/null` looks at nothing of it.
            unsafe { port.uring.bsg(port.file.as_fd(), &bare, cookie) }.unwrap();
        });
        let whole = measure(&|port, cookie| {
            assert!(matches!(port.issue(cookie, read(8), &flat), Taken::Queued));
        });
        let coalesced = measure(&|port, cookie| {
            assert!(matches!(port.issue(cookie, read(8), &pieces), Taken::Queued));
        });
        println!("ns per command: {floor:.0} bare, {whole:.0} in one piece, {coalesced:.0} in two");
        assert!(whole - floor < 500.0 && coalesced - floor < 1500.0);
    }
}
