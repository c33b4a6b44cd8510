//! Answers of the LU that the guest does not get as they are, so that it sees
//! one LU rather than the path that answered, and
//! what every path can carry.
//!
//! Such an answer goes to a buffer of ours, and from there to the guest once
//! it is edited. How to edit is `scsi`'s; here is what, when, and how much the
//! guest gets of it.

use std::mem;

use crate::guest::copy::copy_out;
use crate::io::{Op, Request};
use crate::scsi::cdb::Cdb;
use crate::scsi::reservation::{self, InAction};
use crate::scsi::sense::Key;
use crate::scsi::status::Status;
use crate::scsi::{inquiry, mode, opcodes, vpd};

use super::Ending;
use super::target::EVPD;
use crate::vhost_scsi::units::{PrShow, Unit};

/// Which answer it is that we edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Edit {
    /// Standard INQUIRY data.
    Inquiry = 1,
    /// VPD page 00h.
    SupportedPages,
    /// VPD page 83h.
    Identification,
    /// VPD page B0h.
    BlockLimits,
    /// REPORT SUPPORTED OPERATION CODES.
    Opcodes,
    /// MODE SENSE(6).
    ModeSense6,
    /// MODE SENSE(10).
    ModeSense10,
    /// REQUEST SENSE: what the request core has made of it.
    RequestSense,
    /// PERSISTENT RESERVE IN, READ KEYS.
    ReadKeys,
    /// PERSISTENT RESERVE IN, READ FULL STATUS.
    FullStatus,
    /// PERSISTENT RESERVE IN, REPORT CAPABILITIES.
    Capabilities,
}

impl Edit {
    const ALL: [Edit; 11] = [
        Edit::Inquiry,
        Edit::SupportedPages,
        Edit::Identification,
        Edit::BlockLimits,
        Edit::Opcodes,
        Edit::ModeSense6,
        Edit::ModeSense10,
        Edit::RequestSense,
        Edit::ReadKeys,
        Edit::FullStatus,
        Edit::Capabilities,
    ];

    /// Whether and how the answer to this command is edited.
    pub(super) fn wanted(unit: &Unit, cdb: &Cdb) -> Option<Edit> {
        let raw = cdb.as_slice();
        match (cdb.opcode(), raw[1]) {
            (0x12, flags) if flags & EVPD == 0 => unit.joined.then_some(Edit::Inquiry),
            (0x12, _) => match raw[2] {
                vpd::SUPPORTED_PAGES => Some(Edit::SupportedPages),
                vpd::IDENTIFICATION if unit.joined => Some(Edit::Identification),
                vpd::BLOCK_LIMITS => Some(Edit::BlockLimits),
                _ => None,
            },
            (0xa3, action) if action & 0x1f == 0x0c => Some(Edit::Opcodes),
            (0x1a, _) if unit.read_only => Some(Edit::ModeSense6),
            (0x5a, _) if unit.read_only => Some(Edit::ModeSense10),
            (0x03, _) => Some(Edit::RequestSense),
            (reservation::IN, _) if unit.joined => match InAction::of(cdb)? {
                InAction::ReadKeys => (unit.pr_show == PrShow::One).then_some(Edit::ReadKeys),
                InAction::ReadFullStatus => {
                    (unit.pr_show == PrShow::One).then_some(Edit::FullStatus)
                }
                InAction::ReportCapabilities => Some(Edit::Capabilities),
                InAction::ReadReservation => None,
            },
            _ => None,
        }
    }

    /// How many bytes of the answer are asked for where the guest has room for
    /// `room`: all of it where all is needed, and never more than such answers
    /// are long, because it is memory of ours.
    pub(super) fn length(self, room: u64) -> u64 {
        let (least, most) = match self {
            Edit::Inquiry => (0, 260),
            Edit::SupportedPages => (255, 260),
            Edit::Identification => (2048, 16384),
            Edit::BlockLimits => (64, 260),
            Edit::Opcodes => (16384, 16384),
            Edit::ModeSense6 => (0, 255),
            Edit::ModeSense10 => (0, 16384),
            // The LU may tell by it what it tells once, of which nothing must
            // be missed.
            Edit::RequestSense => (252, 252),
            // One entry for each path of each host. A guest that asks for the
            // length first is told it less what is hidden of so many.
            Edit::ReadKeys | Edit::FullStatus => (16384, 65535),
            Edit::Capabilities => (0, 260),
        };
        room.clamp(least, most)
    }

    /// Whether the answer is wanted though the guest has no room for any.
    pub(super) fn is_always_wanted(self) -> bool {
        self == Edit::RequestSense
    }

    pub(super) fn word(self) -> u32 {
        u32::from(self as u8)
    }

    pub(super) fn of(word: u32) -> Option<Edit> {
        Edit::ALL.into_iter().find(|edit| edit.word() == word & 0xff)
    }
}

/// Edits what the LU answered and gives it to the guest; returns how the
/// command ends and how much of its buffer the guest got filled.
pub(super) fn edited(
    edit: Edit,
    unit: &Unit,
    request: &mut Request,
    ending: Ending,
    moved: usize,
) -> (Ending, usize) {
    let mut data = mem::take(&mut request.front.buffer);
    data.truncate(moved);
    let mut ending = ending;
    let has_none = edit == Edit::BlockLimits && is_illegal_request(&ending);
    if has_none {
        data.clear();
        ending = Ending::GOOD;
    }
    // LIO claims a residual of 0 for a command it has refused.
    if ending.status != Status::GOOD && (data.is_empty() || is_failure(&ending)) {
        request.front.buffer = data;
        return (ending, 0);
    }
    match edit {
        Edit::Inquiry => inquiry::hide_paths(&mut data),
        Edit::SupportedPages => data = supported_pages(unit, data),
        Edit::Identification => data = vpd::keep_lu_designators(&data),
        Edit::BlockLimits => vpd::limit_block_limits(&mut data, &ceiling(unit)),
        Edit::Opcodes => data = offered_opcodes(unit, request.op.as_ref(), &data),
        Edit::ModeSense6 => mode::set_write_protect(&mut data, false),
        Edit::ModeSense10 => mode::set_write_protect(&mut data, true),
        Edit::RequestSense => {}
        Edit::ReadKeys => {
            unit.reservation.hide(|own| reservation::show_key_once(&mut data, own));
        }
        Edit::FullStatus => {
            unit.reservation.hide(|own| reservation::show_status_once(&mut data, own));
        }
        Edit::Capabilities => reservation::hide_ports(&mut data),
    }
    let moved = copy_out(&request.front.guest, 0, &data);
    // Back for its capacity.
    request.front.buffer = data;
    (ending, moved)
}

/// What was transferred, if anything, is no answer.
fn is_failure(ending: &Ending) -> bool {
    !matches!(ending.code().map(|code| code.key), Some(Key::NoSense | Key::RecoveredError))
}

/// The LU has no such page.
fn is_illegal_request(ending: &Ending) -> bool {
    ending.status == Status::CHECK_CONDITION
        && ending.code().is_some_and(|code| code.key == Key::IllegalRequest)
}

/// Page 00h. A guest that sees paths sees every page of the LU, but B0h is
/// there in any case.
fn supported_pages(unit: &Unit, page: Vec<u8>) -> Vec<u8> {
    if unit.joined {
        return vpd::supported_with_block_limits(&page);
    }
    let Some(codes) = vpd::supported(&page) else { return page };
    if codes.contains(&vpd::BLOCK_LIMITS) {
        return page;
    }
    let mut codes = codes.to_vec();
    codes.push(vpd::BLOCK_LIMITS);
    codes.sort_unstable();
    let mut new = vpd::encode_supported(&codes);
    new[0] = page[0];
    new
}

/// What every path can carry. The LU's own limits are the same by every path.
fn ceiling(unit: &Unit) -> vpd::Ceiling {
    let max_transfer = u32::try_from(unit.limits.max_transfer.0).unwrap_or(u32::MAX);
    vpd::Ceiling { max_transfer, ..vpd::Ceiling::default() }
}

fn offered_opcodes(unit: &Unit, op: Option<&Op>, data: &[u8]) -> Vec<u8> {
    let asked = match op {
        Some(Op::Cdb { cdb, .. }) => opcodes::Request::decode(cdb),
        _ => None,
    };
    let Some(asked) = asked else { return Vec::new() };
    // REGISTER AND MOVE names a port of the target, which this guest sees none of.
    let moves = |opcode, action| unit.joined && (opcode, action) == (reservation::OUT, Some(7));
    let offers = |opcode, action| {
        unit.policy.offers(opcode, action, unit.paths_joined()) && !moves(opcode, action)
    };
    // The one-command format does not repeat which command it is about.
    match asked.command() {
        Some((opcode, action)) if !offers(opcode, action) => opcodes::not_supported(),
        Some(_) => data.to_vec(),
        None => opcodes::filter(data, asked.reporting_options, offers),
    }
}
