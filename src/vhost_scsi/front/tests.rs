//! Chains in buffers of our own, and the rows of what they are answered.

use crate::io::{Direction, Front, MapSlot, Op, Outcome, Parsed, Request, Segment};
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::{Sense, SenseCode};
use crate::scsi::status::Status;
use crate::vhost_scsi::tests::{SETTINGS, unit};
use crate::vhost_scsi::{ScsiDevice, ScsiFront, Unit};
use crate::virtio::scsi::{CommandRequest, CommandResponse, FIRST_REQUEST_QUEUE, Response};
use vhost_user_backend::VhostUserBackend;

mod answers;
mod edits;
mod hostile;
mod management;
mod requests;

/// What the guest finds where nobody wrote.
const UNTOUCHED: u8 = 0xee;
/// The data it sends.
const DATA_OUT: u8 = 0x5a;

const SENSE_SIZE: usize = 96;
const REPLY_LEN: usize = 12 + SENSE_SIZE;
const LUN_0: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];

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

    /// A command with as much data-out and room for data-in.
    fn command(lun: [u8; 8], cdb: &[u8], out: usize, room: usize) -> Chain {
        let mut readable = header(lun, 77).to_vec();
        readable.extend_from_slice(cdb);
        readable.resize(19 + 32, 0);
        readable.resize(19 + 32 + out, DATA_OUT);
        Chain::new(readable, REPLY_LEN + room)
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

    fn parse(&mut self, front: &mut ScsiFront) -> (Parsed, Request) {
        self.parse_on(front, FIRST_REQUEST_QUEUE)
    }

    fn parse_on(&mut self, front: &mut ScsiFront, ring: u16) -> (Parsed, Request) {
        let readable = segments(&mut self.readable);
        let writable = segments(&mut self.writable);
        let mut request = Request::default();
        request.tag.ring = ring;
        let parsed = front.parse(&readable, &writable, &mut request);
        (parsed, request)
    }

    fn response(&self) -> Reply {
        Reply::read(&self.writable.concat())
    }
}

/// What the guest reads from the writable part.
#[derive(Debug)]
struct Reply {
    header: CommandResponse,
    sense: Vec<u8>,
    data: Vec<u8>,
}

impl Reply {
    fn read(writable: &[u8]) -> Reply {
        let header = writable.first_chunk().map(CommandResponse::decode).expect("a response");
        let sense = &writable[12..REPLY_LEN];
        let len = usize::try_from(header.sense_len).expect("small");
        assert!(sense[len..].iter().all(|b| *b == 0), "zeroes behind the sense data");
        Reply { header, sense: sense[..len].to_vec(), data: writable[REPLY_LEN..].to_vec() }
    }

    fn code(&self) -> Option<SenseCode> {
        Sense::from_bytes(&self.sense).code()
    }

    /// GOOD with this data, and the rest of the guest's buffer residual.
    fn assert_data(&self, data: &[u8], what: &str) {
        let expect = CommandResponse {
            sense_len: 0,
            residual: u32::try_from(self.data.len() - data.len()).expect("small"),
            status_qualifier: 0,
            status: 0,
            response: 0,
        };
        assert_eq!(self.header, expect, "{what}");
        assert_eq!(self.data[..data.len()], *data, "{what}");
        assert!(self.data[data.len()..].iter().all(|b| *b == UNTOUCHED), "{what}");
    }
}

fn header(lun: [u8; 8], id: u64) -> [u8; 19] {
    CommandRequest { lun, id, task_attr: 0, prio: 0, crn: 0 }.encode()
}

fn segments(buffers: &mut [Vec<u8>]) -> Vec<Segment> {
    buffers
        .iter_mut()
        .map(|b| Segment { addr: b.as_mut_ptr().expose_provenance(), len: b.len() })
        .collect()
}

/// A device with these LUs, all its features taken.
fn device(units: Vec<Unit>) -> ScsiDevice {
    let device = ScsiDevice::new(&SETTINGS).expect("valid settings");
    device.acked_features(device.features());
    device.set_units(units);
    device
}

/// A device with one LU, changed as wanted.
fn with_unit(change: impl FnOnce(&mut Unit)) -> (ScsiDevice, Unit) {
    let mut one = unit(0, 0, 5);
    change(&mut one);
    (device(vec![one.clone()]), one)
}

/// A CDB of `len` zero bytes with these bytes set.
fn cdb(len: usize, bytes: &[(usize, u8)]) -> Vec<u8> {
    let mut raw = vec![0; len];
    for (at, byte) in bytes {
        raw[*at] = *byte;
    }
    raw
}

fn read_10(blocks: u8) -> Vec<u8> {
    cdb(10, &[(0, 0x28), (8, blocks)])
}

fn write_10(blocks: u8) -> Vec<u8> {
    cdb(10, &[(0, 0x2a), (8, blocks)])
}

fn inquiry(page: Option<u8>, allocation: u8) -> Vec<u8> {
    cdb(6, &[(0, 0x12), (1, u8::from(page.is_some())), (2, page.unwrap_or(0)), (4, allocation)])
}

/// Sends a command, lets "the LU" answer `data` and `outcome`, and reads what
/// the guest got; its CDB as the LU saw it.
fn exchange(
    device: &ScsiDevice,
    chain: &mut Chain,
    data: &[u8],
    outcome: impl FnOnce(usize) -> Outcome,
) -> (Cdb, Reply, u32) {
    let mut front = device.front();
    let (parsed, mut request) = chain.parse(&mut front);
    assert_eq!(parsed, Parsed::Submit, "{:?}", chain.response());
    let Some(Op::Cdb { cdb, .. }) = request.op else { panic!("{request:?}") };
    let moved = crate::guest::copy::copy_out(&request.data, 0, data);
    let outcome = outcome(total(&request) - moved);
    let used = front.finish(&mut request, &outcome);
    (cdb, chain.response(), used)
}

fn total(request: &Request) -> usize {
    crate::io::total_len(&request.data)
}

/// GOOD with this residual.
fn good(residual: usize) -> Outcome {
    let residual = u32::try_from(residual).expect("small");
    Outcome::Lu { status: Status::GOOD, sense: Sense::EMPTY, residual }
}

/// One row: what the driver sends, what it must get.
struct Row {
    name: &'static str,
    lun: [u8; 8],
    cdb: Vec<u8>,
    out: usize,
    room: usize,
    expect: Expect,
}

#[derive(Debug, PartialEq, Eq)]
enum Expect {
    /// The CDB as sent, and how much data.
    Submit(Vec<u8>, Direction, usize),
    Response(Response),
    Check(SenseCode),
    Data(Vec<u8>),
}

fn row(name: &'static str, cdb: Vec<u8>, out: usize, room: usize, expect: Expect) -> Row {
    Row { name, lun: LUN_0, cdb, out, room, expect }
}

/// Every row must hold however the chain is cut.
fn check(device: &ScsiDevice, rows: Vec<Row>) {
    for Row { name, lun, cdb, out, room, expect } in rows {
        for piece in [usize::MAX, 4096, 100, 12, 7, 1] {
            if piece < 12 && out + room > 10_000 {
                continue;
            }
            let mut chain = Chain::command(lun, &cdb, out, room).cut(piece);
            let (parsed, request) = chain.parse(&mut device.front());
            let found = match parsed {
                Parsed::Submit => {
                    let untouched = chain.writable.concat().iter().all(|b| *b == UNTOUCHED);
                    assert!(untouched, "{name}: not answered yet");
                    let Some(Op::Cdb { cdb, direction }) = request.op else { panic!("{name}") };
                    assert_eq!(request.task, 77, "{name}");
                    Expect::Submit(cdb.as_slice().to_vec(), direction, total(&request))
                }
                Parsed::Answered { used_len } => read_answer(name, &chain, used_len, out + room),
                Parsed::Manage(_) => panic!("{name}: on a request queue"),
            };
            assert_eq!(found, expect, "{name}, cut every {piece} bytes");
        }
    }
}

fn read_answer(name: &str, chain: &Chain, used_len: u32, buffers: usize) -> Expect {
    let reply = chain.response();
    let used = usize::try_from(used_len).expect("small");
    let data = reply.data[..used - REPLY_LEN].to_vec();
    let moved = u32::try_from(buffers - data.len()).expect("small");
    assert_eq!(reply.header.residual, moved, "{name}: residual");
    assert!(reply.data[data.len()..].iter().all(|b| *b == UNTOUCHED), "{name}: data beyond");
    match (reply.header.response, reply.header.status) {
        (0, 0) => Expect::Data(data),
        (0, 2) => Expect::Check(reply.code().expect("sense")),
        (response, 0) => Expect::Response(named(response)),
        other => panic!("{name}: {other:?}"),
    }
}

fn named(response: u8) -> Response {
    use Response::*;
    [Overrun, Aborted, BadTarget, Reset, Busy, TransportFailure, TargetFailure, Failure]
        .into_iter()
        .find(|r| *r as u8 == response)
        .expect("a response of a request queue")
}

/// The map the unit of [`with_unit`] is.
const MAP: MapSlot = MapSlot(5);
