//! What the request queues carry: from header and CDB to a [`Request`] for a
//! map, or to an answer.
//!
//! The order of judgement is SAM-5's: address, then pending unit attention,
//! then the CDB, then its data. Task attributes other than SIMPLE are run as
//! SIMPLE, because SG_IO cannot carry them (ACA, too: there is no auto
//! contingent allegiance here); priority and CRN are ignored.

use crate::guest::copy::{copy_in, slice};
use crate::io::{Denied, Direction, Op, Request, Segment, total_len};
use crate::scsi::cdb::Cdb;
use crate::scsi::command::{self, Access, Group};
use crate::scsi::luns::Address;
use crate::scsi::reservation;
use crate::scsi::sense::{FieldPointer, SenseCode};
use crate::virtio::scsi::{CommandRequest, REQUEST_LEN, Response};

use super::edit::Edit;
use super::{Answer, DESCRIPTOR_SENSE, NOT_READY_WITHOUT_PATH, target};
use crate::vhost_scsi::transfer::{Field, Transfer, transfer};
use crate::vhost_scsi::units::{NoPathAnswer, Unit, Units};
use crate::vhost_scsi::{MAX_CDB_SIZE, Shared};

/// CDBs of vendor specific operation codes have no length of their own; they
/// go in as many bytes as a command IU has for a CDB, or all 32.
const VENDOR_CDB_LEN: usize = 16;

/// Operation code of CDBs that state their length (SPC-5 4.2.3).
const VARIABLE_LENGTH: u8 = 0x7f;

/// A chain with room for the response.
pub(super) struct Chain<'a> {
    pub(super) readable: &'a [Segment],
    pub(super) writable: &'a [Segment],
    /// Writable bytes before data-in.
    pub(super) reply_len: usize,
    pub(super) cdb_size: u16,
}

/// Bytes of the guest's data buffers.
#[derive(Clone, Copy)]
struct Buffers {
    /// Offset of data-out in the readable segments.
    out_at: usize,
    out_len: usize,
    in_len: usize,
}

/// Fills the request; `Err` is what to answer instead.
pub(super) fn read(
    units: &Units,
    shared: &Shared,
    chain: &Chain<'_>,
    request: &mut Request,
    denied: &mut Option<Denied>,
) -> Result<(), Answer> {
    let mut raw = [0; REQUEST_LEN + MAX_CDB_SIZE as usize];
    let (header, cdb, buffers) = split(chain, &mut raw)?;
    // A chain is at most 2^32 bytes (virtio 1.3, 2.7.5.2).
    request.data_in_len = u32::try_from(buffers.out_len + buffers.in_len)
        .map_err(|_| Answer::response(Response::Failure))?;
    if buffers.out_len > 0 && buffers.in_len > 0 {
        // VIRTIO_SCSI_F_INOUT is not offered, so that this is a driver's bug;
        // what QEMU answers, too.
        return Err(Answer::response(Response::Failure));
    }
    let (target, lun) = match target::address(&header.lun) {
        Some(Address::Unit { target, lun }) => (target, lun),
        Some(Address::WellKnownReportLuns) => {
            let target = target::of_well_known(&header.lun, units);
            let target = target.ok_or_else(|| Answer::response(Response::BadTarget))?;
            return Err(target::well_known(units, target, &own_command(cdb)?));
        }
        None => return Err(Answer::response(Response::BadTarget)),
    };
    let Some(unit) = units.find(target, lun) else {
        return Err(if units.of_target(target).is_empty() {
            Answer::response(Response::BadTarget)
        } else {
            target::absent(units, target, &own_command(cdb)?)
        });
    };
    request.map = unit.map;
    request.target = unit.target;
    request.task = header.id;
    if unit.no_path == NoPathAnswer::NotReady {
        request.front.word |= NOT_READY_WITHOUT_PATH;
    }
    if shared.has_descriptor_sense(unit.map) {
        request.front.word |= DESCRIPTOR_SENSE;
    }
    let cdb = command_of(cdb)?;
    if request.replayed && !command::info(&cdb).idempotent {
        // It may have been executed already, which nothing we answer tells:
        // least of all a unit attention, after which a driver sends it again.
        // The request core ends it unissued (law 3).
        request.op = Some(Op::Cdb { cdb, direction: Direction::None });
        return Ok(());
    }
    for_unit(units, unit, &cdb, denied)?;
    shape(unit, cdb, chain, buffers, request)
}

/// Header, the field with the CDB, and where the data is.
fn split<'a>(
    chain: &Chain<'_>,
    raw: &'a mut [u8; REQUEST_LEN + MAX_CDB_SIZE as usize],
) -> Result<(CommandRequest, &'a [u8], Buffers), Answer> {
    let out_at = REQUEST_LEN + usize::from(chain.cdb_size);
    let header = raw.get_mut(..out_at).ok_or_else(|| Answer::response(Response::Failure))?;
    if copy_in(chain.readable, 0, header) != header.len() {
        return Err(Answer::response(Response::Failure));
    }
    let header: &'a [u8] = header;
    let (fixed, cdb) = header
        .split_first_chunk::<REQUEST_LEN>()
        .ok_or_else(|| Answer::response(Response::Failure))?;
    let buffers = Buffers {
        out_at,
        out_len: total_len(chain.readable) - out_at,
        in_len: total_len(chain.writable) - chain.reply_len,
    };
    Ok((CommandRequest::decode(fixed), cdb, buffers))
}

/// The CDB in its field of fixed size: only the bytes that are the command's,
/// because SG_IO gets its length. Cut by the field, or beyond what a path
/// carries: 05/24/00.
fn command_of(raw: &[u8]) -> Result<Cdb, Answer> {
    let len = match command::cdb_len(raw) {
        Some(len) => len,
        None if raw.first() == Some(&VARIABLE_LENGTH) => usize::MAX, // cut before its length
        None => {
            let rest = raw.get(VENDOR_CDB_LEN..).unwrap_or(&[]);
            let long = rest.iter().any(|byte| *byte != 0);
            if long { raw.len() } else { raw.len().min(VENDOR_CDB_LEN) }
        }
    };
    raw.get(..len)
        .and_then(Cdb::from_bytes)
        .ok_or_else(|| Answer::check(SenseCode::INVALID_FIELD_IN_CDB))
}

/// Everything about the command but its data: what the LU is not asked.
fn for_unit(
    units: &Units,
    unit: &Unit,
    cdb: &Cdb,
    denied: &mut Option<Denied>,
) -> Result<(), Answer> {
    if unit.attentions.is_pending() {
        if let Some(answer) = target::attention(unit, cdb) {
            return Err(answer);
        }
    }
    without_naca(cdb)?;
    let joined = unit.paths_joined();
    let info = command::info(cdb);
    let denies = |group: &Group| unit.policy.denies(*group, joined) || comes_late(unit, *group);
    if let Some(group) = info.group.filter(denies) {
        *denied = Some(Denied { map: unit.map, cdb: *cdb, group: group.name() });
        return Err(Answer::check(SenseCode::INVALID_OPCODE));
    }
    if unit.read_only && info.access == Access::Write {
        return Err(Answer::check(SenseCode::WRITE_PROTECTED));
    }
    match target::answer(units, unit, cdb) {
        Some(answer) => Err(answer),
        None => Ok(()),
    }
}

/// Whether a command that binds the LU to its one path comes after a second
/// path has: the table of LUs may not say so yet.
fn comes_late(unit: &Unit, group: Group) -> bool {
    group == Group::Reserve && unit.joined && !unit.nexus.reserve()
}

/// A command that no LU is behind.
fn own_command(raw: &[u8]) -> Result<Cdb, Answer> {
    let cdb = command_of(raw)?;
    without_naca(&cdb)?;
    Ok(cdb)
}

/// Normal auto contingent allegiance, in the control byte (SAM-5 5.2.3).
const NACA: u8 = 0x04;

/// Refuses NACA=1. Where the control byte is nobody knows of CDBs of a
/// vendor's format.
fn without_naca(cdb: &Cdb) -> Result<(), Answer> {
    let raw = cdb.as_slice();
    let at = match cdb.opcode() {
        VARIABLE_LENGTH => 1,
        _ => command::cdb_len(raw).map_or(0, |len| len.saturating_sub(1)),
    };
    match raw.get(at) {
        Some(control) if at > 0 && control & NACA != 0 => {
            Err(target::invalid(FieldPointer::cdb(u16::try_from(at).unwrap_or(0)).bit(2)))
        }
        _ => Ok(()),
    }
}

/// Which data goes with the command, and the request's operation.
///
/// What the CDB states exactly must fit the guest's buffers (OVERRUN) and a
/// command (05/24/00; the Block Limits page told). An allocation length is
/// lowered to what there is room for, in the CDB, too: a target that sends
/// more than a path expects is an error of the path to some adapters.
fn shape(
    unit: &Unit,
    cdb: Cdb,
    chain: &Chain<'_>,
    buffers: Buffers,
    request: &mut Request,
) -> Result<(), Answer> {
    let max = unit.max_bytes();
    let (out_len, in_len) = (length(buffers.out_len), length(buffers.in_len));
    let (direction, len) = match transfer(&cdb, unit.block_size) {
        Transfer::None => (Direction::None, 0),
        Transfer::In(len) if len <= in_len => (Direction::In, len),
        Transfer::Out(len) if len <= out_len => (Direction::Out, len),
        Transfer::InAtLeast(len) if len <= in_len => (Direction::In, in_len),
        Transfer::OutAtLeast(len) if len <= out_len => (Direction::Out, out_len),
        // In the other direction, too: some transports break off the whole
        // session over data that does not go with the command.
        Transfer::In(_) | Transfer::Out(_) | Transfer::InAtLeast(_) | Transfer::OutAtLeast(_) => {
            return Err(Answer::response(Response::Overrun));
        }
        Transfer::Allocated(field) => {
            let len = field.get(&cdb).min(in_len).min(max);
            return allocate(unit, cdb, field, len, chain, request);
        }
        Transfer::Unknown if out_len > 0 => (Direction::Out, out_len),
        Transfer::Unknown => (Direction::In, in_len),
    };
    if len > max {
        return Err(Answer::check(SenseCode::INVALID_FIELD_IN_CDB));
    }
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let direction = if len == 0 { Direction::None } else { direction };
    match direction {
        Direction::None => {}
        Direction::In => {
            slice(chain.writable, chain.reply_len, len, &mut request.data);
        }
        Direction::Out => {
            slice(chain.readable, buffers.out_at, len, &mut request.data);
        }
    }
    request.op = Some(Op::Cdb { cdb, direction });
    if unit.joined && cdb.opcode() == reservation::OUT {
        order(request);
    }
    Ok(())
}

/// Makes an order of a PERSISTENT RESERVE OUT: it is about every path the guest
/// does not see. Its list is copied once (law 7); what is beyond it in a longer
/// one is nothing that is carried out.
fn order(request: &mut Request) {
    let list = &mut request.front.buffer;
    list.clear();
    list.resize(total_len(&request.data).min(reservation::LIST_LEN), 0);
    copy_in(&request.data, 0, list);
    request.ordered = true;
}

/// As [`shape`], for a command whose answer has room for `len` bytes with the
/// guest, and which may be one that we edit.
fn allocate(
    unit: &Unit,
    cdb: Cdb,
    field: Field,
    len: u64,
    chain: &Chain<'_>,
    request: &mut Request,
) -> Result<(), Answer> {
    let room = usize::try_from(len).unwrap_or(usize::MAX);
    let edit = Edit::wanted(unit, &cdb).filter(|edit| len > 0 || edit.is_always_wanted());
    let Some(edit) = edit else {
        slice(chain.writable, chain.reply_len, room, &mut request.data);
        let direction = if len == 0 { Direction::None } else { Direction::In };
        let cdb = if len < field.get(&cdb) { field.set(&cdb, len) } else { cdb };
        request.op = Some(Op::Cdb { cdb, direction });
        return Ok(());
    };
    slice(chain.writable, chain.reply_len, room, &mut request.front.guest);
    let whole = edit.length(len).min(field.largest()).min(unit.max_bytes());
    let whole_len = usize::try_from(whole).unwrap_or(usize::MAX);
    request.front.word |= edit.word();
    request.front.buffer.clear();
    request.front.buffer.resize(whole_len, 0);
    let addr = request.front.buffer.as_mut_ptr().expose_provenance();
    request.data.push(Segment { addr, len: whole_len });
    let cdb = field.set(&cdb, whole);
    request.op = Some(Op::Cdb { cdb, direction: Direction::In });
    Ok(())
}

fn length(bytes: usize) -> u64 {
    // A chain is at most 2^32 bytes, which `read` has checked.
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
