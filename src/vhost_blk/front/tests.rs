use proptest::prelude::*;
use vhost_user_backend::VhostUserBackend;

use super::*;
use crate::io::{Blocks, Extent, Lba};
use crate::scsi::sense::{Sense, SenseCode};
use crate::vhost_blk::tests::settings;
use crate::vhost_blk::{BlkDevice, BlkSettings};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: Option<u8> = Some(0);
const IOERR: Option<u8> = Some(1);
const UNSUPP: Option<u8> = Some(2);

/// What the guest finds in a status byte nobody wrote.
const UNTOUCHED: u8 = 0xee;

/// A chain in buffers of our own.
#[derive(Debug)]
struct Chain {
    readable: Vec<Vec<u8>>,
    writable: Vec<Vec<u8>>,
}

impl Chain {
    /// `readable` and `writable` bytes, each in one descriptor.
    fn new(readable: Vec<u8>, writable: usize) -> Chain {
        Chain { readable: vec![readable], writable: vec![vec![UNTOUCHED; writable]] }
    }

    /// The same bytes in descriptors of at most `len` bytes, with an empty one
    /// here and there.
    fn cut(self, len: usize) -> Chain {
        let cut = |buffers: Vec<Vec<u8>>| {
            let mut pieces: Vec<Vec<u8>> =
                buffers.concat().chunks(len).map(<[u8]>::to_vec).collect();
            pieces.insert(pieces.len() / 2, Vec::new());
            pieces.push(Vec::new());
            pieces
        };
        Chain { readable: cut(self.readable), writable: cut(self.writable) }
    }

    fn parse(&mut self, front: &mut BlkFront) -> (Parsed, Request) {
        let readable = segments(&mut self.readable);
        let writable = segments(&mut self.writable);
        let mut request = Request::default();
        let parsed = front.parse(&readable, &writable, &mut request);
        (parsed, request)
    }

    fn status(&self) -> Option<u8> {
        self.writable.concat().last().copied()
    }
}

fn segments(buffers: &mut [Vec<u8>]) -> Vec<Segment> {
    buffers
        .iter_mut()
        .map(|b| Segment { addr: b.as_mut_ptr().expose_provenance(), len: b.len() })
        .collect()
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    RequestHeader { kind, sector }.encode().to_vec()
}

fn with_data(kind: u32, sector: u64, len: usize) -> Vec<u8> {
    let mut bytes = header(kind, sector);
    bytes.resize(HEADER_LEN + len, 0x5a);
    bytes
}

fn with_ranges(kind: u32, ranges: &[(u64, u32, u32)]) -> Vec<u8> {
    let mut bytes = header(kind, 0);
    for &(sector, num_sectors, flags) in ranges {
        bytes.extend(RangeSegment { sector, num_sectors, flags }.encode());
    }
    bytes
}

fn device_with(block_size: u32, change: impl FnOnce(&mut BlkSettings)) -> BlkDevice {
    let mut settings = settings(block_size);
    change(&mut settings);
    let device = BlkDevice::new(&settings).expect("valid settings");
    device.acked_features(device.features());
    device
}

fn device(block_size: u32) -> BlkDevice {
    device_with(block_size, |_| ())
}

/// One row: what the driver sends, what it must get.
struct Row {
    name: &'static str,
    readable: Vec<u8>,
    writable: usize,
    expect: Expect,
}

#[derive(Debug, PartialEq, Eq)]
enum Expect {
    Submit(Op),
    Answer(Option<u8>),
}

fn row(name: &'static str, readable: Vec<u8>, writable: usize, expect: Expect) -> Row {
    Row { name, readable, writable, expect }
}

/// Every row must hold however the chain is cut.
fn check(device: &BlkDevice, rows: Vec<Row>) {
    for Row { name, readable, writable, expect } in rows {
        for piece in [usize::MAX, 4096, 100, 7, 1] {
            let mut chain = Chain::new(readable.clone(), writable).cut(piece);
            let (parsed, request) = chain.parse(&mut device.front());
            let found = match parsed {
                Parsed::Submit => {
                    assert_eq!(chain.status(), Some(UNTOUCHED), "{name}: not answered yet");
                    Expect::Submit(request.op.expect("submitted"))
                }
                Parsed::Manage(_) => panic!("{name}: no task management in virtio-blk"),
                Parsed::Answered { used_len } => {
                    assert_eq!(used_len, u32::from(writable > 0), "{name}: used length");
                    Expect::Answer(chain.status())
                }
            };
            assert_eq!(found, expect, "{name}, cut every {piece} bytes");
        }
    }
}

fn read(lba: u64, blocks: u64) -> Expect {
    Expect::Submit(Op::Read(Extent::new(lba, blocks)))
}

fn write(lba: u64, blocks: u64) -> Expect {
    Expect::Submit(Op::Write { extent: Extent::new(lba, blocks), fua: false })
}

fn answer(status: Option<u8>) -> Expect {
    Expect::Answer(status)
}

#[test]
fn reads_and_writes_of_512_byte_blocks() {
    check(
        &device(512),
        vec![
            row("one block", header(IN, 0), 513, read(0, 1)),
            row("last block", header(IN, 1023), 513, read(1023, 1)),
            row("all blocks", header(IN, 0), 1024 * 512 + 1, read(0, 1024)),
            row("readable tail of a read is ignored", with_data(IN, 3, 512), 1025, read(3, 2)),
            row("read beyond the end", header(IN, 1024), 513, answer(IOERR)),
            row("read across the end", header(IN, 1023), 1025, answer(IOERR)),
            row("sector overflows", header(IN, u64::MAX), 513, answer(IOERR)),
            row("read of nothing", header(IN, 0), 1, answer(IOERR)),
            row("read of half a block", header(IN, 0), 257, answer(IOERR)),
            row("read of a block and a byte", header(IN, 0), 514, answer(IOERR)),
            row("write", with_data(OUT, 5, 1024), 1, write(5, 2)),
            row("writable tail of a write", with_data(OUT, 5, 512), 9, write(5, 1)),
            row("write beyond the end", with_data(OUT, 1024, 512), 1, answer(IOERR)),
            row("write across the end", with_data(OUT, 1023, 1024), 1, answer(IOERR)),
            row("write at the last sector of all", with_data(OUT, u64::MAX, 512), 1, answer(IOERR)),
            row("write of nothing", header(OUT, 0), 1, answer(IOERR)),
            row("write of half a block", with_data(OUT, 0, 256), 1, answer(IOERR)),
        ],
    );
}

/// Sectors stay 512 bytes; what is not made of whole blocks is refused.
#[test]
fn reads_and_writes_of_4096_byte_blocks() {
    check(
        &device(4096),
        vec![
            row("one block", header(IN, 8), 4097, read(1, 1)),
            row("last block", header(IN, 1023 * 8), 4097, read(1023, 1)),
            row("beyond the end", header(IN, 1024 * 8), 4097, answer(IOERR)),
            row("sector within a block", header(IN, 4), 4097, answer(IOERR)),
            row("part of a block", header(IN, 8), 513, answer(IOERR)),
            row("write", with_data(OUT, 16, 8192), 1, write(2, 2)),
            row("write to a sector within a block", with_data(OUT, 17, 4096), 1, answer(IOERR)),
            row("write of part of a block", with_data(OUT, 16, 4608), 1, answer(IOERR)),
        ],
    );
}

#[test]
fn malformed_chains_and_unknown_types() {
    let device = device(512);
    let mut rows = vec![
        row("flush", header(FLUSH, 0), 1, Expect::Submit(Op::Flush)),
        row("flush with a sector and data", with_data(FLUSH, 99, 512), 513, {
            Expect::Submit(Op::Flush)
        }),
        row("nothing at all", vec![], 0, answer(None)),
        row("no header", vec![], 1, answer(IOERR)),
        row("half a header", header(FLUSH, 0)[..15].to_vec(), 1, answer(IOERR)),
        row("header in the wrong direction", vec![], 17, answer(IOERR)),
        // Without a status byte nothing may be done, not even what is valid.
        row("read without status", header(IN, 0), 0, answer(None)),
        row("write without status", with_data(OUT, 0, 512), 0, answer(None)),
        row("flush without status", header(FLUSH, 0), 0, answer(None)),
        row("ID into nothing", header(GET_ID, 0), 1, answer(IOERR)),
    ];
    // Legacy SCSI and flush, lifetime, erase, zoned, barrier, nonsense.
    for kind in [2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 18, 20, 22, 24, 26, 1 << 31, u32::MAX] {
        rows.push(row("unknown type", with_data(kind, 0, 512), 513, answer(UNSUPP)));
    }
    check(&device, rows);
}

#[test]
fn discard_rules() {
    let discard = |ranges: &[(u64, u32, u32)]| with_ranges(DISCARD, ranges);
    let unmap = || Expect::Submit(Op::Unmap);
    check(
        &device(512),
        vec![
            row("one range", discard(&[(0, 8, 0)]), 1, unmap()),
            row("most ranges", discard(&[(0, 8, 0); 4]), 1, unmap()),
            row("too many ranges", discard(&[(0, 8, 0); 5]), 1, answer(IOERR)),
            row("a flood of ranges", discard(&[(0, 8, 0); 1000]), 1, answer(IOERR)),
            row("no range", discard(&[]), 1, answer(IOERR)),
            row("piece of a range", with_data(DISCARD, 0, 15), 1, answer(IOERR)),
            row("range and a piece", with_data(DISCARD, 0, 17), 1, answer(IOERR)),
            row("unmap bit", discard(&[(0, 8, 1)]), 1, answer(UNSUPP)),
            row("unknown flag", discard(&[(0, 8, 0), (8, 8, 1 << 31)]), 1, answer(UNSUPP)),
            row("flags before ranges", discard(&[(5000, 8, 0), (0, 8, 2)]), 1, answer(UNSUPP)),
            row("empty range", discard(&[(0, 0, 0)]), 1, answer(IOERR)),
            row("beyond the end", discard(&[(0, 8, 0), (1020, 8, 0)]), 1, answer(IOERR)),
            row("overflow", discard(&[(u64::MAX, 8, 0)]), 1, answer(IOERR)),
            row("no status", discard(&[(0, 8, 0)]), 0, answer(None)),
        ],
    );
    check(
        &device(4096),
        vec![
            row("whole blocks", discard(&[(8, 8, 0)]), 1, unmap()),
            row("misaligned start", discard(&[(4, 8, 0)]), 1, answer(IOERR)),
            row("misaligned length", discard(&[(8, 12, 0)]), 1, answer(IOERR)),
        ],
    );
    let big = device_with(512, |s| s.identity.capacity = Blocks(1 << 40));
    check(
        &big,
        vec![
            row("longest range", discard(&[(0, 1 << 22, 0)]), 1, unmap()),
            row("longer range", discard(&[(0, (1 << 22) + 1, 0)]), 1, answer(IOERR)),
        ],
    );
    for refused in [
        device_with(512, |s| s.geometry.unmap = false),
        device_with(512, |s| s.limits.max_unmap = Blocks(0)),
        device_with(512, |s| s.read_only = true),
    ] {
        check(&refused, vec![row("not offered", discard(&[(0, 8, 0)]), 1, answer(UNSUPP))]);
    }
}

#[test]
fn discard_passes_every_range_on_in_blocks() {
    let device = device(4096);
    let mut chain = Chain::new(with_ranges(DISCARD, &[(0, 8, 0), (80, 160, 0)]), 1);
    let (parsed, request) = chain.parse(&mut device.front());
    assert_eq!(parsed, Parsed::Submit);
    assert_eq!(request.extents, [Extent::new(0, 1), Extent::new(10, 20)]);
    assert_eq!(request.data, []);
}

#[test]
fn write_zeroes_rules() {
    let zero = |ranges: &[(u64, u32, u32)]| with_ranges(WRITE_ZEROES, ranges);
    let submit = |lba, blocks, unmap| {
        Expect::Submit(Op::WriteZeroes { extent: Extent::new(lba, blocks), unmap })
    };
    check(
        &device(512),
        vec![
            row("keep", zero(&[(8, 8, 0)]), 1, submit(8, 8, false)),
            row("unmap", zero(&[(8, 8, 1)]), 1, submit(8, 8, true)),
            row("to the end", zero(&[(0, 1024, 0)]), 1, submit(0, 1024, false)),
            row("two ranges", zero(&[(8, 8, 0), (16, 8, 0)]), 1, answer(IOERR)),
            row("no range", zero(&[]), 1, answer(IOERR)),
            row("unknown flag", zero(&[(8, 8, 3)]), 1, answer(UNSUPP)),
            // WRITE SAME of 0 blocks would mean "to the end of the medium".
            row("empty range", zero(&[(8, 0, 0)]), 1, answer(IOERR)),
            row("across the end", zero(&[(1023, 2, 0)]), 1, answer(IOERR)),
            row("no status", zero(&[(8, 8, 0)]), 0, answer(None)),
        ],
    );
    check(
        &device(4096),
        vec![
            row("whole block", zero(&[(8, 8, 0)]), 1, submit(1, 1, false)),
            row("misaligned", zero(&[(9, 8, 0)]), 1, answer(IOERR)),
        ],
    );
    let no_lbprz = device_with(512, |s| s.geometry.unmap_reads_zero = false);
    check(&no_lbprz, vec![row("permission unused", zero(&[(8, 8, 1)]), 1, submit(8, 8, false))]);
    let written_out = device_with(512, |s| {
        s.limits.max_write_same = Blocks(0);
        s.identity.capacity = Blocks(1 << 40);
    });
    check(
        &written_out,
        vec![
            row("longest", zero(&[(0, 1 << 16, 0)]), 1, submit(0, 1 << 16, false)),
            row("longer", zero(&[(0, (1 << 16) + 1, 0)]), 1, answer(IOERR)),
        ],
    );
}

/// virtio 1.3, 5.2.6.2: IOERR for a write to a read-only device.
#[test]
fn read_only_device_takes_no_write() {
    let device = device_with(512, |s| s.read_only = true);
    check(
        &device,
        vec![
            row("read", header(IN, 0), 513, read(0, 1)),
            row("flush", header(FLUSH, 0), 1, Expect::Submit(Op::Flush)),
            row("write", with_data(OUT, 0, 512), 1, answer(IOERR)),
            row("zeroes", with_ranges(WRITE_ZEROES, &[(0, 8, 0)]), 1, answer(UNSUPP)),
        ],
    );
}

#[test]
fn data_segments_are_the_bytes_between_header_and_status() {
    let device = device(512);
    // Header split over two descriptors, its tail sharing one with data.
    let bytes: Vec<u8> = with_data(OUT, 0, 1024);
    let mut chain = Chain {
        readable: vec![bytes[..10].to_vec(), bytes[10..100].to_vec(), bytes[100..].to_vec()],
        writable: vec![vec![UNTOUCHED; 1]],
    };
    let bases = segments(&mut chain.readable);
    let (_, request) = chain.parse(&mut device.front());
    assert_eq!(
        request.data,
        [
            Segment { addr: bases[1].addr + 6, len: 84 },
            Segment { addr: bases[2].addr, len: bytes.len() - 100 },
        ]
    );
    assert_eq!(request.data_in_len, 0);

    // Data and status share the last writable descriptor.
    let mut chain = Chain {
        readable: vec![header(IN, 0)],
        writable: vec![vec![UNTOUCHED; 500], vec![UNTOUCHED; 13]],
    };
    let bases = segments(&mut chain.writable);
    let (_, request) = chain.parse(&mut device.front());
    assert_eq!(request.data, [bases[0], Segment { addr: bases[1].addr, len: 12 }]);
    assert_eq!(request.reply, [Segment { addr: bases[1].addr + 12, len: 1 }]);
    assert_eq!(request.data_in_len, 512);
}

#[test]
fn id_is_the_serial_or_the_tail_of_the_wwid() {
    type Change = fn(&mut BlkSettings);
    let table: &[(Change, &str)] = &[
        (|_| (), "SN-42"),
        (|s| s.serial = Some("given".into()), "given"),
        (|s| s.serial = Some("exactly-20-long-text".into()), "exactly-20-long-text"),
        (|s| s.geometry.serial = "0123456789abcdefghijklmnop".into(), "6789abcdefghijklmnop"),
        (|s| s.geometry.serial = String::new(), "03053453f463045727a41"),
        (|s| s.geometry.serial = " \u{0}".into(), "03053453f463045727a41"),
    ];
    for (change, id) in table {
        let device = device_with(512, change);
        let mut expected = id.as_bytes()[id.len().saturating_sub(20)..].to_vec();
        expected.resize(20, 0);
        // A buffer of 20 bytes, a short one, and a longer one.
        for len in [20, 5, 36] {
            let mut chain = Chain::new(header(GET_ID, 0), len + 1);
            let (parsed, _) = chain.parse(&mut device.front());
            let written = len.min(20);
            assert_eq!(parsed, Parsed::Answered { used_len: u32::try_from(written + 1).unwrap() });
            assert_eq!(chain.status(), OK);
            assert_eq!(chain.writable[0][..written], expected[..written]);
            assert!(chain.writable[0][written..len].iter().all(|b| *b == UNTOUCHED));
        }
    }
}

/// virtio 1.3, 5.2.6.2 and law 9: write-through unless the driver can flush
/// and did not switch the cache off.
#[test]
fn writes_are_durable_when_the_guest_expects_write_through() {
    let device = device(512);
    let mut front = device.front();
    let mut fua = || {
        let (_, zeroes) = Chain::new(with_ranges(WRITE_ZEROES, &[(0, 8, 0)]), 1).parse(&mut front);
        let (_, write) = Chain::new(with_data(OUT, 0, 512), 1).parse(&mut front);
        match write.op {
            Some(Op::Write { fua, .. }) => {
                assert_eq!(zeroes.durable, fua, "zeroes are written like anything else");
                fua
            }
            other => panic!("not a write: {other:?}"),
        }
    };
    for (acked, writeback, expected) in [
        (0, 1, true),
        (blk::F_CONFIG_WCE, 1, true),
        (blk::F_FLUSH, 1, false),
        (blk::F_FLUSH, 0, false), // the byte counts only with CONFIG_WCE
        (blk::F_FLUSH | blk::F_CONFIG_WCE, 1, false),
        (blk::F_FLUSH | blk::F_CONFIG_WCE, 0, true),
    ] {
        device.acked_features(acked);
        device.set_config(32, &[writeback]).expect("the writeback byte");
        assert_eq!(fua(), expected, "acked {acked:#x}, writeback {writeback}");
    }
    device.set_config(32, &[1]).expect("the writeback byte");
    device.reset_device();
    assert!(fua(), "after a reset nothing is negotiated");
}

/// A driver without FLUSH may still send one.
#[test]
fn flush_is_done_without_the_feature() {
    let device = device(512);
    device.acked_features(0);
    check(&device, vec![row("flush", header(FLUSH, 0), 1, Expect::Submit(Op::Flush))]);
}

#[test]
fn outcomes_become_status_bytes() {
    let extent = Extent::new(0, 1);
    let read = Op::Read(extent);
    let write = Op::Write { extent, fua: false };
    let zero = Op::WriteZeroes { extent, unmap: false };
    let check_condition = |key, asc, ascq| Outcome::Lu {
        status: Status::CHECK_CONDITION,
        sense: Sense::fixed(SenseCode::new(key, asc, ascq)),
        residual: 0,
    };
    let illegal = |asc| check_condition(Key::IllegalRequest, asc, 0);
    let bare = |status| Outcome::Lu { status, sense: Sense::EMPTY, residual: 0 };
    let not_check = Outcome::Lu {
        status: Status::BUSY,
        sense: Sense::fixed(SenseCode::new(Key::IllegalRequest, 0x20, 0)),
        residual: 0,
    };
    let table = [
        (read, Outcome::Good, OK),
        (write, Outcome::Good, OK),
        (Op::Flush, Outcome::Good, OK),
        (Op::Unmap, Outcome::Good, OK),
        (zero, Outcome::Good, OK),
        (Op::Unmap, illegal(0x20), UNSUPP),
        (Op::Unmap, illegal(0x24), UNSUPP),
        (zero, illegal(0x20), UNSUPP),
        (zero, illegal(0x24), UNSUPP),
        (Op::Unmap, illegal(0x21), IOERR),
        (Op::Unmap, illegal(0x26), IOERR),
        (Op::Unmap, check_condition(Key::DataProtect, 0x20, 0), IOERR),
        (Op::Unmap, bare(Status::CHECK_CONDITION), IOERR),
        (Op::Unmap, not_check, IOERR),
        (read, illegal(0x20), IOERR),
        (write, illegal(0x24), IOERR),
        (Op::Flush, illegal(0x20), IOERR),
        (read, check_condition(Key::MediumError, 0x11, 0), IOERR),
        (write, bare(Status::RESERVATION_CONFLICT), IOERR),
        (write, bare(Status::TASK_SET_FULL), IOERR),
        (write, Outcome::NoPath, IOERR),
        (write, Outcome::TimedOut, IOERR),
        (Op::Unmap, Outcome::NoPath, IOERR),
        (read, Outcome::Host(libc::EINVAL), IOERR),
        (zero, Outcome::Stopped, IOERR),
    ];
    let mut front = device(512).front();
    for (op, outcome, expected) in table {
        let mut reply = vec![vec![UNTOUCHED]];
        let data_in_len = if matches!(op, Op::Read(_)) { 512 } else { 0 };
        let mut request = Request {
            op: Some(op),
            reply: segments(&mut reply),
            data_in_len,
            ..Request::default()
        };
        let used = front.finish(&mut request, &outcome);
        assert_eq!(reply[0].first().copied(), expected, "{} {outcome:?}", op.name());
        let data = if expected == OK { data_in_len } else { 0 };
        assert_eq!(used, data + 1, "{} {outcome:?}", op.name());
    }
}

/// Chains as a hostile guest makes them: real types, near-valid numbers, any
/// cut.
fn hostile_chain() -> impl Strategy<Value = Chain> {
    let kind = prop_oneof![
        4 => prop::sample::select(vec![IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES]),
        1 => any::<u32>(),
    ];
    let sector = prop_oneof![4 => 0..9000_u64, 1 => any::<u64>()];
    let range = (sector.clone(), prop_oneof![0..64_u32, any::<u32>()], 0..3_u32);
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..70),
        (0..20_usize).prop_map(|n| vec![0x5a; n * 512]),
        prop::collection::vec(range, 0..20)
            .prop_map(|ranges| { with_ranges(0, &ranges)[HEADER_LEN..].to_vec() }),
    ];
    let readable = (kind, sector, body, prop_oneof![9 => Just(usize::MAX), 1 => 0..17_usize])
        .prop_map(|(kind, sector, body, keep)| {
            let mut bytes = header(kind, sector);
            bytes.extend(body);
            bytes.truncate(keep);
            bytes
        });
    let writable = prop_oneof![
        0..40_usize,
        (0..20_usize).prop_map(|n| n * 512 + 1),
        (0..20_usize).prop_map(|n| n * 512),
    ];
    (readable, writable, 1..5000_usize)
        .prop_map(|(readable, writable, cut)| Chain::new(readable, writable).cut(cut))
}

fn extent_bytes(extent: Extent, block_size: u32) -> u64 {
    extent.blocks.0 * u64::from(block_size)
}

proptest! {
    /// Law 7: whatever the chain, it is answered with one status byte and
    /// nothing else, or it is a request the core can trust: in range, not
    /// empty, data exactly as long as the extent, all within the chain.
    #[test]
    fn hostile_chains_are_answered_or_valid(
        mut chain in hostile_chain(),
        block_size in prop::sample::select(vec![512_u32, 4096]),
    ) {
        let device = device(block_size);
        let (readable, writable) = (chain.readable.concat(), chain.writable.concat());
        let bounds: Vec<Segment> =
            [segments(&mut chain.readable), segments(&mut chain.writable)].concat();
        let (parsed, request) = chain.parse(&mut device.front());
        let after = chain.writable.concat();
        prop_assert_eq!(&chain.readable.concat(), &readable, "wrote to readable memory");
        match parsed {
            Parsed::Manage(_) => prop_assert!(false, "no task management in virtio-blk"),
            Parsed::Answered { used_len } => {
                prop_assert!(used_len as usize <= writable.len());
                let Some((status, data)) = after.split_last() else {
                    prop_assert_eq!(used_len, 0);
                    return Ok(());
                };
                prop_assert!(*status <= 2);
                // Only GET_ID writes data, and only its ID.
                let touched = data.iter().rposition(|b| *b != UNTOUCHED).map_or(0, |i| i + 1);
                let allowed = if *status == 0 { ID_LEN } else { 0 };
                prop_assert!(touched <= allowed);
            }
            Parsed::Submit => {
                prop_assert_eq!(&after, &writable, "answered before it was done");
                let capacity = Blocks(1024);
                let op = request.op.expect("submitted requests have an operation");
                let len = total_len(&request.data) as u64;
                match op {
                    Op::Read(extent) | Op::Write { extent, .. } => {
                        prop_assert!(extent.within(capacity) && extent.blocks.0 > 0);
                        prop_assert_eq!(len, extent_bytes(extent, block_size));
                    }
                    Op::WriteZeroes { extent, .. } => {
                        prop_assert!(extent.within(capacity) && extent.blocks.0 > 0);
                        prop_assert_eq!(len, 0);
                    }
                    Op::Unmap => {
                        prop_assert!(!request.extents.is_empty() && request.extents.len() <= 4);
                        for extent in &request.extents {
                            prop_assert!(extent.within(capacity) && extent.blocks.0 > 0);
                        }
                        prop_assert_eq!(len, 0);
                    }
                    Op::Flush => prop_assert_eq!(len, 0),
                    Op::Cdb { .. } => prop_assert!(false, "no raw commands in virtio-blk"),
                }
                let data_in = if matches!(op, Op::Read(_)) { len } else { 0 };
                prop_assert_eq!(u64::from(request.data_in_len), data_in);
                prop_assert_eq!(total_len(&request.reply), 1);
                for segment in request.data.iter().chain(&request.reply) {
                    let inside = |b: &Segment| {
                        b.addr <= segment.addr && segment.addr + segment.len <= b.addr + b.len
                    };
                    prop_assert!(segment.len > 0 && bounds.iter().any(inside));
                }
            }
        }
    }
}

/// Guards the tables above: they must be able to see a wrong extent.
#[test]
fn extent_conversion_is_exact_at_the_edges() {
    let device = device_with(4096, |s| s.identity.capacity = Blocks(u64::MAX / 8));
    let offer = &device.shared.offer;
    let last = u64::MAX / 8 - 1;
    assert_eq!(offer.extent(last * 8, 8), Some(Extent { lba: Lba(last), blocks: Blocks(1) }));
    assert_eq!(offer.extent(last * 8, 16), None);
    assert_eq!(offer.extent((last + 1) * 8, 8), None);
}
