//! Chains of arbitrary bytes and shapes: answered, nothing written outside.

use proptest::prelude::*;

use super::*;
use crate::io::{Action, Management, Reach};
use crate::scsi::command::Group;

/// Bytes around every buffer, which nobody may touch.
const GUARD: usize = 32;

/// Descriptors in one block of memory, with guards between them.
struct Guarded {
    memory: Vec<u8>,
    buffers: Vec<(usize, usize)>,
}

impl Guarded {
    fn new(pieces: &[Vec<u8>]) -> Guarded {
        let mut guarded = Guarded { memory: vec![0xc3; GUARD], buffers: Vec::new() };
        for piece in pieces {
            guarded.buffers.push((guarded.memory.len(), piece.len()));
            guarded.memory.extend_from_slice(piece);
            guarded.memory.extend_from_slice(&[0xc3; GUARD]);
        }
        guarded
    }

    fn segments(&mut self) -> Vec<Segment> {
        let base = self.memory.as_mut_ptr().expose_provenance();
        self.buffers.iter().map(|(at, len)| Segment { addr: base + at, len: *len }).collect()
    }

    fn contents(&self) -> Vec<u8> {
        self.buffers.iter().flat_map(|(at, len)| &self.memory[*at..at + len]).copied().collect()
    }

    fn guards_hold(&self) -> bool {
        let mut outside = self.memory.clone();
        for (at, len) in self.buffers.iter().rev() {
            outside.drain(*at..at + len);
        }
        outside.iter().all(|b| *b == 0xc3)
    }
}

fn everything_allowed() -> ScsiDevice {
    let mut units = vec![unit(0, 0, 0), unit(0, 1, 1), unit(0, 2, 2)];
    for group in Group::all() {
        units[0].policy.allow(group);
    }
    units[0].multipath = false;
    units[1].joined = false;
    units[1].read_only = true;
    units[2].block_size = 4096;
    device(units)
}

fn cut(bytes: &[u8], len: usize) -> Vec<Vec<u8>> {
    bytes.chunks(len).map(<[u8]>::to_vec).collect()
}

/// Mostly LUNs that exist, so that the rest is reached.
fn lun() -> impl Strategy<Value = [u8; 8]> {
    prop_oneof![
        8 => (0_u8..4).prop_map(|lun| [1, 0, 0, lun, 0, 0, 0, 0]),
        1 => Just([0xc1, 1, 0, 0, 0, 0, 0, 0]),
        1 => any::<[u8; 8]>(),
    ]
}

/// CDBs whose numbers are small enough to be meant.
fn any_cdb() -> impl Strategy<Value = Vec<u8>> {
    let small = prop_oneof![4 => Just(0_u8), 2 => 0_u8..9, 1 => any::<u8>()];
    (any::<u8>(), prop::collection::vec(small, 31))
        .prop_map(|(opcode, rest)| [vec![opcode], rest].concat())
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let sense = prop::collection::vec(any::<u8>(), 0..96).prop_map(|raw| Sense::from_bytes(&raw));
    prop_oneof![
        Just(Outcome::Good),
        Just(Outcome::NoPath),
        Just(Outcome::Stopped),
        Just(Outcome::TimedOut),
        any::<bool>().prop_map(|reset| Outcome::Aborted { reset }),
        any::<i32>().prop_map(Outcome::Host),
        (any::<u8>(), sense, prop_oneof![0..600_u32, any::<u32>()]).prop_map(
            |(status, sense, residual)| Outcome::Lu { status: Status(status), sense, residual }
        ),
    ]
}

/// One request by arbitrary bytes; whatever it was, it ends with an answer
/// that lies in the chain.
fn serve(
    device: &ScsiDevice,
    ring: u16,
    readable: &[Vec<u8>],
    writable: &[Vec<u8>],
    outcome: &Outcome,
    fill: &[u8],
) {
    let (mut from, mut to) = (Guarded::new(readable), Guarded::new(writable));
    let (sent, room) = (from.contents(), to.contents().len());
    let mut front = device.front();
    let mut request = Request::default();
    request.tag.ring = ring;
    let parsed = front.parse(&from.segments(), &to.segments(), &mut request);
    let _ = front.denied();
    let used = match parsed {
        Parsed::Answered { used_len } => used_len,
        Parsed::Manage(management) => {
            assert_eq!(ring, 0);
            front.managed(&mut request, &management, room % 2 == 0)
        }
        Parsed::Submit => {
            let Some(Op::Cdb { cdb, direction }) = request.op else { panic!("{request:?}") };
            assert!(!cdb.as_slice().is_empty());
            let moved = total(&request);
            assert_eq!(direction == Direction::None, moved == 0, "{cdb:?}");
            assert!(moved <= 128 * 4096, "{cdb:?}");
            if direction == Direction::In {
                crate::guest::copy::copy_out(&request.data, 0, fill);
            }
            front.finish(&mut request, outcome)
        }
    };
    let used = usize::try_from(used).expect("small");
    assert!(used <= room, "{used} of {room}");
    assert!(from.guards_hold() && to.guards_hold(), "wrote outside");
    assert_eq!(from.contents(), sent, "wrote to what is the driver's");
    // A command always gets a response, as far as there is room.
    if ring >= 2 {
        assert!(used >= room.min(12));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn commands_of_any_bytes_are_answered_within_their_buffers(
        lun in lun(),
        cdb in any_cdb(),
        data_out in prop_oneof![3 => Just(0_usize), 1 => 0..1500_usize],
        room in prop_oneof![1 => 0..REPLY_LEN, 3 => REPLY_LEN..REPLY_LEN + 1500],
        pieces in (1..200_usize, 1..200_usize),
        outcome in any_outcome(),
        fill in prop::collection::vec(any::<u8>(), 0..600),
        attention in any::<bool>(),
    ) {
        let device = everything_allowed();
        if attention {
            let reset = Management { action: Action::End { reset: true }, reach: Reach::Target(0) };
            device.front().managed(&mut Request::default(), &reset, false);
        }
        let mut readable = [&header(lun, 1)[..], &cdb].concat();
        readable.resize(readable.len() + data_out, DATA_OUT);
        let (readable, writable) = (cut(&readable, pieces.0), cut(&vec![UNTOUCHED; room], pieces.1));
        serve(&device, 2, &readable, &writable, &outcome, &fill);
    }

    #[test]
    fn anything_on_any_ring_is_answered_within_its_buffers(
        ring in 0..4_u16,
        readable in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6),
        writable in prop::collection::vec(0..120_usize, 0..6),
        outcome in any_outcome(),
    ) {
        let writable: Vec<Vec<u8>> = writable.into_iter().map(|n| vec![UNTOUCHED; n]).collect();
        serve(&everything_allowed(), ring, &readable, &writable, &outcome, &[0x5a; 600]);
    }

    #[test]
    fn control_requests_of_any_bytes_are_answered(
        kind in prop_oneof![0..4_u32, any::<u32>()],
        subtype in prop_oneof![0..9_u32, any::<u32>()],
        lun in lun(),
        id in any::<u64>(),
        room in 0..8_usize,
    ) {
        let mut raw = crate::virtio::scsi::TmfRequest { subtype, lun, id }.encode().to_vec();
        raw[..4].copy_from_slice(&kind.to_le_bytes());
        if kind != 0 {
            raw.drain(4..8);
        }
        let device = everything_allowed();
        serve(&device, 0, &cut(&raw, 5), &cut(&vec![UNTOUCHED; room], 2), &Outcome::Good, &[]);
    }

    /// The LU's bytes are as little trusted as the guest's.
    #[test]
    fn answers_of_any_bytes_are_edited_within_the_buffers(
        which in 0..9_usize,
        room in 0..300_usize,
        fill in prop::collection::vec(any::<u8>(), 0..600),
        outcome in any_outcome(),
        piece in 1..200_usize,
    ) {
        let edited = [
            inquiry(None, 255),
            inquiry(Some(0), 255),
            inquiry(Some(0x83), 255),
            inquiry(Some(0xb0), 255),
            cdb(12, &[(0, 0xa3), (1, 0x0c), (9, 255)]),
            cdb(12, &[(0, 0xa3), (1, 0x0c), (2, 0x81), (3, 0x04), (9, 255)]),
            cdb(6, &[(0, 0x1a), (4, 255)]),
            cdb(10, &[(0, 0x5a), (8, 255)]),
            cdb(6, &[(0, 0x03), (4, 255)]),
        ];
        for lun in 0..3 {
            let mut readable = [&header([1, 0, 0, lun, 0, 0, 0, 0], 1)[..], &edited[which]].concat();
            readable.resize(51, 0);
            let writable = cut(&vec![UNTOUCHED; REPLY_LEN + room], piece);
            serve(&everything_allowed(), 2, &[readable], &writable, &outcome, &fill);
        }
    }
}

/// What a guest asks for is no measure of the memory it may take from us: its
/// own buffers cost it nothing, many descriptors may name one page.
#[test]
fn an_answer_that_we_edit_takes_no_more_memory_than_such_answers_are_long() {
    let device = everything_allowed();
    let long = 60_000_usize;
    let ask = [
        cdb(6, &[(0, 0x12), (3, 0xff), (4, 0xff)]),
        cdb(6, &[(0, 0x12), (1, 1), (3, 0xff), (4, 0xff)]),
        cdb(6, &[(0, 0x12), (1, 1), (2, 0x83), (3, 0xff), (4, 0xff)]),
        cdb(6, &[(0, 0x12), (1, 1), (2, 0xb0), (3, 0xff), (4, 0xff)]),
        cdb(12, &[(0, 0xa3), (1, 0x0c), (6, 0xff)]),
        cdb(10, &[(0, 0x5a), (7, 0xff), (8, 0xff)]),
        cdb(6, &[(0, 0x03), (4, 255)]),
    ];
    for (lun, raw) in (0..3).flat_map(|lun| ask.iter().map(move |raw| (lun, raw))) {
        let mut chain = Chain::command([1, 0, 0, lun, 0, 0, 0, 0], raw, 0, long);
        let (parsed, request) = chain.parse(&mut device.front());
        assert_eq!(parsed, Parsed::Submit);
        let ours = request.front.buffer.capacity();
        assert!(ours <= 16 << 10, "{ours} bytes for {raw:02x?} of LUN {lun}");
    }
    // Lists of registrations may be longer, and are not kept.
    for action in [0, 3] {
        let raw = cdb(10, &[(0, 0x5e), (1, action), (7, 0xff), (8, 0xff)]);
        let mut chain = Chain::command(LUN_0, &raw, 0, long);
        let (_, mut request) = chain.parse(&mut device.front());
        assert!(request.front.buffer.capacity() <= 64 << 10);
        request.reset();
        assert!(request.front.buffer.capacity() <= 16 << 10);
    }
}
