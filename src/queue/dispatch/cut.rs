//! Cutting requests into parts that every path of the map can take.

use super::{Dispatcher, PartIndex, Place};
use crate::io::{Blocks, Extent, Lba, Limits, Op, Outcome, Segment, total_len};

/// How far a request has been cut.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// Every block is covered by a part.
    complete: bool,
    /// Blocks covered so far (of the present extent, for UNMAP).
    blocks: u64,
    /// First data segment not covered entirely, and bytes of it that are.
    segment: usize,
    offset: usize,
    /// First extent not covered entirely.
    extent: usize,
}

/// What a short transfer achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing that counts.
    None,
    /// Some blocks; the part is about the rest now.
    Some,
    /// Everything.
    All,
}

/// Zeroes to write where WRITE SAME is not to be had.
#[repr(align(4096))]
struct Zeroes([u8; ZEROES_LEN]);
const ZEROES_LEN: usize = 64 * 1024;

/// Most parts one request has at once, however large the pool.
const MOST_PARTS_AT_ONCE: u32 = 32;
static ZEROES: Zeroes = Zeroes([0; ZEROES_LEN]);

impl Dispatcher {
    /// Makes parts of a request until it is covered or no part is free.
    pub(super) fn cut(&mut self, request: u32) {
        // A request of gigabytes must not take the pool away from the others.
        let share = u32::try_from(self.settings.max_requests / 2).unwrap_or(u32::MAX);
        let most = share.clamp(1, MOST_PARTS_AT_ONCE);
        while let Some(r) = self.running[request as usize].as_mut() {
            if r.cursor.complete || r.failure.is_some() {
                r.in_backlog = false;
                break;
            }
            if r.live >= most {
                return; // goes on as its parts end
            }
            if !self.parts.has_free() {
                if !r.in_backlog {
                    r.in_backlog = true;
                    self.backlog.push_back(request);
                }
                return;
            }
            self.cut_one(request);
        }
        if self.running[request as usize].as_ref().is_some_and(|r| r.live == 0) {
            self.end_if_over(request);
        }
    }

    /// Goes on with a request one of whose parts has ended, after those that
    /// have waited for longer.
    pub(super) fn cut_on(&mut self, request: u32) {
        if self.backlog.is_empty() {
            return self.cut(request);
        }
        if let Some(r) = self.running[request as usize].as_mut() {
            r.in_backlog = true;
            self.backlog.push_back(request);
        }
    }

    /// Goes on with requests that waited for free parts.
    pub(super) fn cut_backlog(&mut self) {
        while self.parts.has_free() {
            let Some(request) = self.backlog.pop_front() else { return };
            if let Some(r) = self.running[request as usize].as_mut() {
                r.in_backlog = false;
            }
            self.cut(request);
        }
    }

    /// Makes the next part of a request, if there is anything left of it.
    fn cut_one(&mut self, request: u32) {
        let limits_generation = self.limits_generation;
        let limits = self.settings.limits;
        let block_size = self.settings.block_size as usize;
        let zeroes_by_write = self.write_same_refused;
        let Some(r) = self.running[request as usize].as_mut() else { return };
        let Some(index) = self.parts.take(request, r.op) else { return };
        let part = &mut self.parts[index];
        part.limits_generation = limits_generation;
        let covered = match r.op {
            Op::Flush => {
                r.cursor.complete = true;
                true
            }
            Op::Cdb { .. } => {
                r.cursor.complete = true;
                part.whole = true;
                part.passthrough = true;
                true
            }
            Op::Unmap if limits.max_unmap.0 == 0 => {
                let unsupported = Outcome::Host(libc::EOPNOTSUPP);
                r.failure.get_or_insert((unsupported, "unmap-not-offered", None));
                false
            }
            Op::Unmap => {
                r.cursor.next_extents(&r.request.extents, &limits, &mut part.extents);
                !part.extents.is_empty()
            }
            Op::WriteZeroes { extent, unmap } => {
                let most = if zeroes_by_write {
                    most_zeroes(&limits, block_size)
                } else {
                    limits.max_write_same
                };
                let piece = r.cursor.next_piece(extent, most);
                if zeroes_by_write {
                    part.op = Op::Write { extent: piece, fua: false };
                    part.zeroes = true;
                    zero_segments(piece, block_size, &mut part.data);
                } else {
                    part.op = Op::WriteZeroes { extent: piece, unmap };
                }
                piece.blocks.0 > 0
            }
            Op::Read(extent) | Op::Write { extent, .. } => {
                let data = &r.request.data;
                if r.cursor.blocks == 0
                    && extent.blocks <= limits.max_transfer
                    && data.len() <= limits.max_segments
                {
                    r.cursor.complete = true;
                    part.whole = true;
                } else {
                    let piece =
                        r.cursor.next_data(extent, data, &limits, block_size, &mut part.data);
                    part.op = match r.op {
                        Op::Write { fua, .. } => Op::Write { extent: piece, fua },
                        _ => Op::Read(piece),
                    };
                    if piece.blocks.0 == 0 && extent.blocks.0 > 0 {
                        // Fewer bytes than blocks: a front that is wrong must
                        // not make a guest believe its data is written.
                        r.failure.get_or_insert((Outcome::Host(libc::EINVAL), "no-data", None));
                    }
                }
                extent.blocks.0 > 0 && r.failure.is_none()
            }
        };
        if let Op::Write { fua: fua @ true, .. } = &mut part.op {
            if !limits.fua {
                *fua = false;
                r.flush_after = true;
            }
        }
        if covered {
            r.live += 1;
            self.ready.push_back(index);
        } else {
            r.cursor.complete = true;
            self.parts.free(index);
        }
    }

    /// A WRITE SAME part becomes one that writes zeroes, piece by piece.
    pub(super) fn zero_by_writing(&mut self, index: PartIndex, extent: Extent) {
        self.write_zeroes_next(index, extent);
        self.make_ready(index);
    }

    /// The part's next command writes zeroes to the start of `extent`.
    fn write_zeroes_next(&mut self, index: PartIndex, extent: Extent) {
        let block_size = self.settings.block_size as usize;
        let now = extent.blocks.0.min(most_zeroes(&self.settings.limits, block_size).0);
        let part = &mut self.parts[index];
        let piece = Extent::new(extent.lba.0, now);
        part.left = Extent::new(extent.lba.0.saturating_add(now), extent.blocks.0 - now);
        part.zeroes = true;
        part.op = Op::Write { extent: piece, fua: false };
        part.whole = false;
        part.data.clear();
        part.new_round();
        part.again = 0;
        part.first_delay = None;
        part.held_since = None;
        zero_segments(piece, block_size, &mut part.data);
        debug_assert_eq!(part.place, Place::Ready);
    }

    /// The present command is done; the part is not.
    pub(super) fn go_on_with_the_rest(&mut self, index: PartIndex) {
        let part = &mut self.parts[index];
        let left = std::mem::take(&mut part.left);
        if part.zeroes {
            return self.zero_by_writing(index, left);
        }
        std::mem::swap(&mut part.data, &mut part.left_data);
        part.left_data.clear();
        part.op = match part.op {
            Op::Write { fua, .. } => Op::Write { extent: left, fua },
            _ => Op::Read(left),
        };
        part.new_round();
        part.again = 0;
        part.first_delay = None;
        part.held_since = None;
        // What is left has not been fitted to any limits yet.
        part.limits_generation = self.limits_generation.wrapping_sub(1);
        self.make_ready(index);
    }

    /// The limits have changed since the part was cut: it carries what fits
    /// now, and the rest afterwards. (An UNMAP or WRITE SAME that is too long
    /// now is refused by the LU, which harms nobody.)
    pub(super) fn cut_again(&mut self, index: PartIndex) {
        let limits = self.settings.limits;
        let block_size = self.settings.block_size as usize;
        let part = &mut self.parts[index];
        part.limits_generation = self.limits_generation;
        let (Op::Read(extent) | Op::Write { extent, .. }) = part.op else { return };
        let all = Extent::new(extent.lba.0, extent.blocks.0 + part.left.blocks.0);
        if part.zeroes {
            return self.write_zeroes_next(index, all);
        }
        let Some(r) = self.running[part.request as usize].as_mut() else { return };
        if part.whole {
            part.data.clear();
            part.data.extend_from_slice(&r.request.data);
            part.whole = false;
        }
        if let Op::Write { fua: fua @ true, .. } = &mut part.op {
            if !limits.fua {
                *fua = false;
                r.flush_after = true;
            }
        }
        if extent.blocks <= limits.max_transfer && part.data.len() <= limits.max_segments {
            return;
        }
        let mut piece_data = std::mem::take(&mut part.left_data);
        if part.left.blocks.0 > 0 {
            // It was cut again before: one list of everything that is left.
            part.data.append(&mut piece_data);
        }
        piece_data.clear();
        let mut cursor = Cursor::default();
        let piece = cursor.next_data(all, &part.data, &limits, block_size, &mut piece_data);
        let n = piece.blocks.0;
        part.left = Extent::new(all.lba.0 + n, all.blocks.0 - n);
        skip_bytes(&mut part.data, total_len(&piece_data));
        part.left_data = std::mem::replace(&mut part.data, piece_data);
        part.op = match part.op {
            Op::Write { fua, .. } => Op::Write { extent: piece, fua },
            _ => Op::Read(piece),
        };
    }
}

impl Cursor {
    /// Whether every block is covered by a part.
    /// Of what has no parts.
    pub(super) fn complete() -> Cursor {
        Cursor { complete: true, ..Cursor::default() }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The next at most `most` blocks of `extent`.
    fn next_piece(&mut self, extent: Extent, most: Blocks) -> Extent {
        let left = extent.blocks.0 - self.blocks;
        let n = left.min(most.0.max(1));
        let piece = Extent::new(extent.lba.0.saturating_add(self.blocks), n);
        self.blocks += n;
        self.complete = self.blocks >= extent.blocks.0;
        piece
    }

    /// The next blocks of a transfer that fit the limits, and their segments.
    /// A piece is a whole number of blocks, at least one.
    fn next_data(
        &mut self,
        extent: Extent,
        data: &[Segment],
        limits: &Limits,
        block_size: usize,
        out: &mut Vec<Segment>,
    ) -> Extent {
        let left = extent.blocks.0 - self.blocks;
        let most = left.min(limits.max_transfer.0.max(1));
        let most_bytes = usize::try_from(most).unwrap_or(usize::MAX).saturating_mul(block_size);
        let (segment, offset) = (self.segment, self.offset);
        let mut bytes = 0;
        while bytes < most_bytes && self.segment < data.len() {
            // A block in more pieces than the limit cannot be cut: it goes alone.
            let full = out.len() >= limits.max_segments.max(1);
            let room = if full { block_size.saturating_sub(bytes) } else { most_bytes - bytes };
            if room == 0 {
                break;
            }
            let s = data[self.segment];
            let n = (s.len - self.offset).min(room);
            out.push(Segment { addr: s.addr + self.offset, len: n });
            bytes += n;
            self.offset += n;
            if self.offset == s.len {
                self.segment += 1;
                self.offset = 0;
            }
        }
        let excess = bytes % block_size;
        if excess > 0 {
            // The segment limit fell inside a block: give the piece of it back.
            bytes -= excess;
            truncate_bytes(out, bytes);
            (self.segment, self.offset) = (segment, offset);
            self.move_by(data, bytes);
        }
        let n = (bytes / block_size) as u64;
        let piece = Extent::new(extent.lba.0.saturating_add(self.blocks), n);
        self.blocks += n;
        self.complete = self.blocks >= extent.blocks.0 || n == 0;
        piece
    }

    fn move_by(&mut self, data: &[Segment], mut bytes: usize) {
        while bytes > 0 && self.segment < data.len() {
            let n = (data[self.segment].len - self.offset).min(bytes);
            bytes -= n;
            self.offset += n;
            if self.offset == data[self.segment].len {
                self.segment += 1;
                self.offset = 0;
            }
        }
    }

    /// The next extents of an UNMAP within the limits (SBC-4 6.6.3): by total
    /// length, by descriptor count, and cut where a granule ends.
    fn next_extents(&mut self, extents: &[Extent], limits: &Limits, out: &mut Vec<Extent>) {
        let mut room = limits.max_unmap.0.max(1);
        while let Some(e) = extents.get(self.extent) {
            if room == 0 || out.len() >= limits.max_unmap_descriptors.max(1) {
                return;
            }
            let left = e.blocks.0 - self.blocks;
            let lba = e.lba.0.saturating_add(self.blocks);
            let n = if left <= room {
                left
            } else {
                match whole_granules(lba, room, limits) {
                    // Better a command of its own than half a granule.
                    None if !out.is_empty() => return,
                    n => n.unwrap_or(room),
                }
            };
            if n > 0 {
                out.push(Extent { lba: Lba(lba), blocks: Blocks(n) });
            }
            room -= n;
            self.blocks += n;
            if self.blocks >= e.blocks.0 {
                self.extent += 1;
                self.blocks = 0;
            } else {
                return;
            }
        }
        self.complete = true;
    }
}

/// The longest run of at most `room` blocks from `lba` that ends where a
/// granule ends, if one does.
fn whole_granules(lba: u64, room: u64, limits: &Limits) -> Option<u64> {
    let granule = limits.unmap_granularity.0.max(1);
    let phase = limits.unmap_alignment.0 % granule;
    let end = lba.saturating_add(room).checked_sub(phase)?;
    let cut = (end / granule * granule + phase).checked_sub(lba)?;
    (cut > 0 && cut <= room).then_some(cut)
}

/// Most blocks of zeroes that one WRITE carries.
fn most_zeroes(limits: &Limits, block_size: usize) -> Blocks {
    let by_segments = limits.max_segments.saturating_mul(ZEROES_LEN) / block_size;
    Blocks(limits.max_transfer.0.min(by_segments as u64).max(1))
}

/// Segments of zeroes for an extent.
fn zero_segments(extent: Extent, block_size: usize, out: &mut Vec<Segment>) {
    let mut left =
        usize::try_from(extent.blocks.0).unwrap_or(usize::MAX).saturating_mul(block_size);
    let addr = ZEROES.0.as_ptr() as usize;
    while left > 0 {
        let len = left.min(ZEROES_LEN);
        out.push(Segment { addr, len });
        left -= len;
    }
}

/// Drops the first `bytes` of a segment list.
pub(super) fn skip_bytes(segments: &mut Vec<Segment>, mut bytes: usize) {
    let mut gone = 0;
    for s in segments.iter_mut() {
        if bytes >= s.len {
            bytes -= s.len;
            gone += 1;
        } else {
            s.addr += bytes;
            s.len -= bytes;
            break;
        }
    }
    segments.drain(..gone);
}

/// Keeps the first `bytes` of a segment list.
fn truncate_bytes(segments: &mut Vec<Segment>, mut bytes: usize) {
    let mut kept = 0;
    for s in segments.iter_mut() {
        if bytes == 0 {
            break;
        }
        s.len = s.len.min(bytes);
        bytes -= s.len;
        kept += 1;
    }
    segments.truncate(kept);
}
