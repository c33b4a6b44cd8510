//! virtio-blk requests: chain to [`Request`], [`Outcome`] to status byte
//! (virtio 1.3, 5.2.6).
//!
//! Everything here comes from the guest and is judged before use: the header
//! and the range segments are copied out of guest memory once (law 7), data
//! is only ever an address range to pass on. Framing is never assumed
//! (2.7.4.2): the header is the first 16 readable bytes, the status the last
//! writable byte, data what lies between, however it is cut into descriptors.
//!
//! One [`BlkFront`] per queue thread, which owns it.

use std::sync::Arc;

use crate::guest::copy::{copy_in, copy_out, read_array, slice};
use crate::io::{Front, Op, Outcome, Parsed, Request, Segment, total_len};
use crate::scsi::sense::Key;
use crate::scsi::status::Status;
use crate::virtio::blk::{
    self, BlkStatus, HEADER_LEN, ID_LEN, RangeSegment, RequestHeader, RequestType, SECTOR_SIZE,
    SEGMENT_F_UNMAP, SEGMENT_LEN,
};

use super::Shared;
use super::offer::{MAX_DISCARD_SEG, Offer};

/// Room for every range of the longest DISCARD we offer.
const RANGES_LEN: usize = MAX_DISCARD_SEG as usize * SEGMENT_LEN;

/// Parses and answers virtio-blk requests of one queue thread.
#[derive(Clone, Debug)]
pub struct BlkFront {
    shared: Arc<Shared>,
}

impl BlkFront {
    pub(super) fn new(shared: Arc<Shared>) -> BlkFront {
        BlkFront { shared }
    }

    /// Everything between header and status, by type. `Err` is the status of
    /// a refusal.
    fn read_request(
        &self,
        readable: &[Segment],
        writable: &[Segment],
        data_in: usize,
        request: &mut Request,
    ) -> Result<Parsed, BlkStatus> {
        let raw = read_array::<HEADER_LEN>(readable, 0).ok_or(BlkStatus::IoErr)?;
        let header = RequestHeader::decode(&raw);
        let kind = RequestType::from_wire(header.kind).ok_or(BlkStatus::Unsupp)?;
        match kind {
            RequestType::In => self.read_in(header.sector, writable, data_in, request),
            RequestType::Out => self.read_out(header.sector, readable, request),
            RequestType::Flush => {
                request.op = Some(Op::Flush);
                Ok(Parsed::Submit)
            }
            RequestType::GetId => self.answer_id(writable, data_in, request),
            RequestType::Discard => self.read_discard(readable, request),
            RequestType::WriteZeroes => self.read_write_zeroes(readable, request),
        }
    }

    fn read_in(
        &self,
        sector: u64,
        writable: &[Segment],
        len: usize,
        request: &mut Request,
    ) -> Result<Parsed, BlkStatus> {
        let extent = self.offer().extent(sector, whole_sectors(len)?).ok_or(BlkStatus::IoErr)?;
        // A chain is at most 2^32 bytes (2.7.5.2), so the used length fits.
        request.data_in_len = u32::try_from(len).map_err(|_| BlkStatus::IoErr)?;
        slice(writable, 0, len, &mut request.data);
        request.op = Some(Op::Read(extent));
        Ok(Parsed::Submit)
    }

    fn read_out(
        &self,
        sector: u64,
        readable: &[Segment],
        request: &mut Request,
    ) -> Result<Parsed, BlkStatus> {
        let len = total_len(readable) - HEADER_LEN;
        if self.offer().read_only || u32::try_from(len).is_err() {
            return Err(BlkStatus::IoErr);
        }
        let extent = self.offer().extent(sector, whole_sectors(len)?).ok_or(BlkStatus::IoErr)?;
        slice(readable, HEADER_LEN, len, &mut request.data);
        request.op = Some(Op::Write { extent, fua: self.shared.write_through() });
        Ok(Parsed::Submit)
    }

    /// GET_ID needs nobody else: answered at once. A buffer shorter than the
    /// ID gets as much as it holds.
    fn answer_id(
        &self,
        writable: &[Segment],
        data_in: usize,
        request: &mut Request,
    ) -> Result<Parsed, BlkStatus> {
        let len = data_in.min(ID_LEN);
        slice(writable, 0, len, &mut request.data);
        if len == 0 || copy_out(&request.data, 0, &self.offer().id[..len]) != len {
            return Err(BlkStatus::IoErr);
        }
        write_status(request, BlkStatus::Ok);
        Ok(Parsed::Answered { used_len: u32::try_from(len + 1).unwrap_or(1) })
    }

    fn read_discard(
        &self,
        readable: &[Segment],
        request: &mut Request,
    ) -> Result<Parsed, BlkStatus> {
        let offer = self.offer();
        if !offer.has(blk::F_DISCARD) {
            return Err(BlkStatus::Unsupp);
        }
        let mut raw = [0; RANGES_LEN];
        let ranges = copy_ranges(readable, offer.config.max_discard_seg, &mut raw)?;
        // The unmap bit belongs to WRITE_ZEROES; here it is as unknown as the rest.
        if ranges.clone().any(|range| range.flags != 0) {
            return Err(BlkStatus::Unsupp);
        }
        for range in ranges {
            if range.num_sectors > offer.config.max_discard_sectors {
                return Err(BlkStatus::IoErr);
            }
            let extent = offer.extent(range.sector, u64::from(range.num_sectors));
            request.extents.push(extent.ok_or(BlkStatus::IoErr)?);
        }
        request.op = Some(Op::Unmap);
        Ok(Parsed::Submit)
    }

    fn read_write_zeroes(
        &self,
        readable: &[Segment],
        request: &mut Request,
    ) -> Result<Parsed, BlkStatus> {
        let offer = self.offer();
        if !offer.has(blk::F_WRITE_ZEROES) {
            return Err(BlkStatus::Unsupp);
        }
        let mut raw = [0; RANGES_LEN];
        let mut ranges = copy_ranges(readable, offer.config.max_write_zeroes_seg, &mut raw)?;
        let range = ranges.next().ok_or(BlkStatus::IoErr)?;
        if range.flags & !SEGMENT_F_UNMAP != 0 {
            return Err(BlkStatus::Unsupp);
        }
        if range.num_sectors > offer.config.max_write_zeroes_sectors {
            return Err(BlkStatus::IoErr);
        }
        let extent =
            offer.extent(range.sector, u64::from(range.num_sectors)).ok_or(BlkStatus::IoErr)?;
        // The bit is a permission, not an order.
        let unmap = range.flags != 0 && offer.config.write_zeroes_may_unmap != 0;
        request.durable = self.shared.write_through();
        request.op = Some(Op::WriteZeroes { extent, unmap });
        Ok(Parsed::Submit)
    }

    fn offer(&self) -> &Offer {
        &self.shared.offer
    }
}

impl Front for BlkFront {
    /// A chain without a writable byte cannot be answered and is not
    /// executed; every other refusal is a status byte.
    fn parse(
        &mut self,
        readable: &[Segment],
        writable: &[Segment],
        request: &mut Request,
    ) -> Parsed {
        let Some((data_in, status)) = split_status(writable) else {
            return Parsed::Answered { used_len: 0 };
        };
        request.reply.push(status);
        match self.read_request(readable, writable, data_in, request) {
            Ok(parsed) => parsed,
            Err(status) => {
                request.op = None;
                write_status(request, status);
                Parsed::Answered { used_len: 1 }
            }
        }
    }

    /// The used length counts the status byte, and the data of a *successful*
    /// read. The specification wants it to cover what was written from the
    /// start of the buffers (2.7.8.2), yet puts the status last, so no value
    /// is right for a failed read: drivers do not look (QEMU reports the
    /// whole buffer), and we claim no data that nobody read.
    fn finish(&mut self, request: &mut Request, outcome: &Outcome) -> u32 {
        let status = status_of(request.op.as_ref(), outcome);
        write_status(request, status);
        match status {
            BlkStatus::Ok => request.data_in_len.saturating_add(1),
            BlkStatus::IoErr | BlkStatus::Unsupp => 1,
        }
    }
}

/// The status byte for an outcome. Only a DISCARD or WRITE_ZEROES that the LU
/// does not know (05/20) or not in this form (05/24) is UNSUPP; the driver
/// then stops using it.
fn status_of(op: Option<&Op>, outcome: &Outcome) -> BlkStatus {
    match outcome {
        Outcome::Good => BlkStatus::Ok,
        Outcome::Lu { status: Status::CHECK_CONDITION, sense, .. }
            if matches!(op, Some(Op::Unmap | Op::WriteZeroes { .. })) =>
        {
            match sense.code() {
                Some(code)
                    if code.key == Key::IllegalRequest && matches!(code.asc, 0x20 | 0x24) =>
                {
                    BlkStatus::Unsupp
                }
                _ => BlkStatus::IoErr,
            }
        }
        Outcome::Lu { .. }
        | Outcome::NoPath
        | Outcome::TimedOut
        | Outcome::Host(_)
        | Outcome::Stopped
        | Outcome::Aborted { .. } => BlkStatus::IoErr,
    }
}

fn write_status(request: &Request, status: BlkStatus) {
    copy_out(&request.reply, 0, &[status as u8]);
}

/// The number of writable bytes before the last one, and the last one.
fn split_status(writable: &[Segment]) -> Option<(usize, Segment)> {
    let last = writable.iter().rev().find(|segment| segment.len > 0)?;
    Some((total_len(writable) - 1, Segment { addr: last.addr + (last.len - 1), len: 1 }))
}

/// Bytes as sectors; IOERR unless they are whole sectors.
fn whole_sectors(len: usize) -> Result<u64, BlkStatus> {
    let len = u64::try_from(len).map_err(|_| BlkStatus::IoErr)?;
    let sector = u64::from(SECTOR_SIZE);
    if len % sector == 0 { Ok(len / sector) } else { Err(BlkStatus::IoErr) }
}

/// Copies the range segments behind the header, once; IOERR if there is none,
/// a piece of one, or more than `max`.
fn copy_ranges<'a>(
    readable: &[Segment],
    max: u32,
    raw: &'a mut [u8; RANGES_LEN],
) -> Result<impl Iterator<Item = RangeSegment> + Clone + use<'a>, BlkStatus> {
    let len = total_len(readable) - HEADER_LEN;
    let count = len / SEGMENT_LEN;
    let fits = u32::try_from(count).is_ok_and(|count| count <= max.min(MAX_DISCARD_SEG));
    if count == 0 || len % SEGMENT_LEN != 0 || !fits {
        return Err(BlkStatus::IoErr);
    }
    let raw = &mut raw[..len];
    if copy_in(readable, HEADER_LEN, raw) != len {
        return Err(BlkStatus::IoErr);
    }
    let raw: &'a [u8] = raw;
    Ok(raw.chunks_exact(SEGMENT_LEN).map(|chunk| {
        let mut one = [0; SEGMENT_LEN];
        one.copy_from_slice(chunk);
        RangeSegment::decode(&one)
    }))
}

#[cfg(test)]
mod tests;
