//! virtio-scsi chains: request to [`Request`], [`Outcome`] to response
//! (virtio 1.3, 5.6.6).
//!
//! Everything here comes from the guest and is judged before use: headers and
//! CDBs are copied out of guest memory once (law 7), data is only ever an
//! address range to pass on. Framing is never assumed (2.7.4.2): the request
//! header is the first 19 + `cdb_size` readable bytes and data-out what
//! follows, the response the first 12 + `sense_size` writable bytes and
//! data-in what follows, however they are cut into descriptors. A chain
//! without room for a whole response is not executed; what fits is written.
//!
//! [`command`] reads what the request queues carry, [`target`] answers what
//! needs no LU, [`edit`] makes a LU's answer that of one LU, [`control`] is
//! the control queue and the events. One [`ScsiFront`] per queue thread, which
//! owns it.

use std::sync::Arc;

use crate::guest::copy::{copy_out, slice};
use crate::io::{
    Denied, DeviceEvent, Direction, Front, Management, Op, Outcome, Parsed, Request, RingRole,
    Segment, total_len,
};
use crate::scsi::sense::{FieldPointer, Sense, SenseCode, SenseFormat};
use crate::scsi::status::Status;
use crate::virtio::scsi::{CONTROL_QUEUE, CommandResponse, EVENT_QUEUE, RESPONSE_LEN, Response};

use super::units::View;
use super::{MAX_SENSE_SIZE, Shared};
use edit::Edit;

mod command;
mod control;
mod edit;
mod target;

/// Room for every response.
const MAX_RESPONSE: usize = RESPONSE_LEN + MAX_SENSE_SIZE as usize;

/// Bit of `FrontState::word`: a command without a path gets 02/3A/00. The low
/// eight bits are the [`Edit`].
const NOT_READY_WITHOUT_PATH: u32 = 1 << 8;

/// Bit of `FrontState::word`: the LU's sense is in descriptor format, and so
/// is ours in its name.
const DESCRIPTOR_SENSE: u32 = 1 << 9;

/// Parses and answers the requests of one queue thread.
#[derive(Clone, Debug)]
pub struct ScsiFront {
    shared: Arc<Shared>,
    view: View,
    denied: Option<Denied>,
}

/// How a command ended, in the words of a response.
#[derive(Clone, Copy, Debug)]
struct Ending {
    response: Response,
    status: Status,
    words: Words,
}

/// Sense data, or what to say by it.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant)] // lives on the stack for a moment
enum Words {
    /// Byte for byte what somebody else has said.
    Theirs(Sense),
    /// Ours, in the format the LU uses.
    Ours(SenseCode, Option<FieldPointer>),
}

impl Ending {
    const GOOD: Ending =
        Ending { response: Response::Ok, status: Status::GOOD, words: Words::Theirs(Sense::EMPTY) };

    const fn response(response: Response) -> Ending {
        Ending { response, ..Ending::GOOD }
    }

    const fn check(code: SenseCode) -> Ending {
        Ending::ours(code, None)
    }

    const fn ours(code: SenseCode, field: Option<FieldPointer>) -> Ending {
        let words = Words::Ours(code, field);
        Ending { status: Status::CHECK_CONDITION, words, ..Ending::GOOD }
    }

    /// A unit attention: what a path has told as it is, what was raised by
    /// ourselves in the LU's format.
    fn attention(sense: Sense) -> Ending {
        match sense.code() {
            Some(code) if sense == Sense::fixed(code) => Ending::check(code),
            _ => {
                let words = Words::Theirs(sense);
                Ending { status: Status::CHECK_CONDITION, words, ..Ending::GOOD }
            }
        }
    }

    /// Of an order: what the LU's sense may be by a path, may be ours as well,
    /// and then is said in the format the LU uses.
    fn of_order(self) -> Ending {
        match self.words {
            Words::Theirs(sense) => match sense.as_built() {
                Some((code, field)) => Ending { words: Words::Ours(code, field), ..self },
                None => self,
            },
            Words::Ours(..) => self,
        }
    }

    /// Key and codes of the sense data.
    fn code(&self) -> Option<SenseCode> {
        match self.words {
            Words::Theirs(sense) => sense.code(),
            Words::Ours(code, _) => Some(code),
        }
    }
}

/// What is answered without asking the LU.
#[derive(Debug)]
enum Answer {
    Ending(Ending),
    /// GOOD, with data-in (already cut to the allocation length).
    Data(Vec<u8>),
}

impl Answer {
    fn response(response: Response) -> Answer {
        Answer::Ending(Ending::response(response))
    }

    fn check(code: SenseCode) -> Answer {
        Answer::Ending(Ending::check(code))
    }
}

impl ScsiFront {
    pub(super) fn new(shared: Arc<Shared>) -> ScsiFront {
        ScsiFront { shared, view: View::new(), denied: None }
    }

    /// The LU's answer, or what stands in its place, edited; returns how it
    /// ended and how many bytes of the guest's data buffers were transferred.
    fn settle(&mut self, request: &mut Request, outcome: &Outcome) -> (Ending, usize) {
        let (ending, residual) = match outcome {
            // Not by this process; the driver must not simply send it again.
            Outcome::Stopped | Outcome::NoPath if may_be_done_already(request) => {
                (Ending::check(SenseCode::IO_PROCESS_TERMINATED), None)
            }
            _ => ending_of(request.front.word, outcome),
        };
        let ending = if request.ordered { ending.of_order() } else { ending };
        if let Words::Theirs(sense) = &ending.words {
            self.shared.learn_sense_format(request.map, sense);
        }
        let Some(residual) = residual else { return (ending, 0) };
        let moved = total_len(&request.data)
            .saturating_sub(usize::try_from(residual).unwrap_or(usize::MAX));
        let Some(edit) = Edit::of(request.front.word) else { return (ending, moved) };
        self.view.refresh(&self.shared.units);
        match self.view.units().of_map(request.target, request.map) {
            Some(unit) => edit::edited(edit, unit, request, ending, moved),
            // It has gone meanwhile.
            None => (Ending::check(SenseCode::LUN_NOT_SUPPORTED), 0),
        }
    }
}

impl Front for ScsiFront {
    fn parse(
        &mut self,
        readable: &[Segment],
        writable: &[Segment],
        request: &mut Request,
    ) -> Parsed {
        self.view.refresh(&self.shared.units);
        match request.tag.ring {
            CONTROL_QUEUE => control::parse(self.view.units(), readable, writable, request),
            // Not a request; the queue threads take no chain from that ring.
            EVENT_QUEUE => Parsed::Answered { used_len: 0 },
            _ => self.parse_command(readable, writable, request),
        }
    }

    fn finish(&mut self, request: &mut Request, outcome: &Outcome) -> u32 {
        let (ending, moved) = self.settle(request, outcome);
        let is_in = matches!(request.op, Some(Op::Cdb { direction: Direction::In, .. }));
        respond(request, &ending, moved, if is_in { moved } else { 0 })
    }

    fn role(&self, ring: u16) -> RingRole {
        match ring {
            CONTROL_QUEUE => RingRole::Control,
            EVENT_QUEUE => RingRole::Events,
            _ => RingRole::Requests,
        }
    }

    fn managed(&mut self, request: &mut Request, management: &Management, found: bool) -> u32 {
        self.view.refresh(&self.shared.units);
        control::managed(self.view.units(), request, management, found)
    }

    fn denied(&mut self) -> Option<Denied> {
        self.denied.take()
    }

    fn wants_event(&self, event: &DeviceEvent) -> bool {
        self.shared.has(control::feature_of(event))
    }

    fn event(&mut self, writable: &[Segment], event: &DeviceEvent, missed: bool) -> Option<u32> {
        control::write_event(writable, event, missed)
    }
}

impl ScsiFront {
    fn parse_command(
        &mut self,
        readable: &[Segment],
        writable: &[Segment],
        request: &mut Request,
    ) -> Parsed {
        let sizes = self.shared.sizes();
        let reply_len = RESPONSE_LEN + usize::from(sizes.sense);
        let room = slice(writable, 0, reply_len, &mut request.reply);
        let units = self.view.units();
        let refusal = if room < reply_len {
            Err(Answer::response(Response::Failure))
        } else {
            let chain = command::Chain { readable, writable, reply_len, cdb_size: sizes.cdb };
            command::read(units, &self.shared, &chain, request, &mut self.denied)
        };
        match refusal {
            Ok(()) => Parsed::Submit,
            Err(answer) => {
                request.op = None;
                Parsed::Answered { used_len: give(writable, reply_len, request, answer) }
            }
        }
    }
}

/// Writes an answer of our own; returns the used length.
fn give(writable: &[Segment], reply_len: usize, request: &mut Request, answer: Answer) -> u32 {
    match answer {
        Answer::Ending(ending) => respond(request, &ending, 0, 0),
        Answer::Data(data) => {
            request.data.clear();
            slice(writable, reply_len, data.len(), &mut request.data);
            let moved = copy_out(&request.data, 0, &data);
            respond(request, &Ending::GOOD, moved, moved)
        }
    }
}

/// Writes the response. `moved`: bytes of the guest's data buffers that were
/// transferred, of which `written` lie in its memory. Returns the used length.
///
/// All of the response is written, zeroes behind the sense data, because the
/// used length counts from the start of the buffers (virtio 1.3, 2.7.8.2).
fn respond(request: &Request, ending: &Ending, moved: usize, written: usize) -> u32 {
    let room = total_len(&request.reply).min(MAX_RESPONSE);
    let format = SenseFormat::of(request.front.word & DESCRIPTOR_SENSE != 0);
    let sense = match ending.words {
        Words::Theirs(sense) => sense,
        Words::Ours(code, field) => Sense::build(format, code, field),
    };
    let sense = sense.as_bytes();
    let sense = &sense[..sense.len().min(room.saturating_sub(RESPONSE_LEN))];
    let header = CommandResponse {
        sense_len: u32::try_from(sense.len()).unwrap_or(0),
        residual: request.data_in_len.saturating_sub(u32::try_from(moved).unwrap_or(u32::MAX)),
        status_qualifier: 0,
        status: ending.status.0,
        response: ending.response as u8,
    };
    let mut raw = [0; MAX_RESPONSE];
    raw[..RESPONSE_LEN].copy_from_slice(&header.encode());
    raw[RESPONSE_LEN..RESPONSE_LEN + sense.len()].copy_from_slice(sense);
    copy_out(&request.reply, 0, &raw[..room]);
    u32::try_from(room + written).unwrap_or(u32::MAX)
}

/// An earlier owner of the ring had taken it, and it must not be done twice.
fn may_be_done_already(request: &Request) -> bool {
    request.replayed && request.op.is_some_and(|op| !op.is_idempotent())
}

/// The ending, and the residual where the LU answered; without one no data
/// counts as transferred. One table: the LU's word
/// is exact, a path's never shows, BUSY where a quick retry can succeed.
fn ending_of(word: u32, outcome: &Outcome) -> (Ending, Option<u32>) {
    let ending = match *outcome {
        Outcome::Good => return (Ending::GOOD, Some(0)),
        Outcome::Lu { status, sense, residual } => {
            // The request core's word for a result it does not know.
            let ours = sense == Sense::fixed(SenseCode::IO_PROCESS_TERMINATED);
            let words = match sense.code() {
                Some(code) if ours => Words::Ours(code, None),
                _ => Words::Theirs(sense),
            };
            return (Ending { response: Response::Ok, status, words }, Some(residual));
        }
        Outcome::NoPath if word & NOT_READY_WITHOUT_PATH != 0 => {
            Ending::check(SenseCode::MEDIUM_NOT_PRESENT)
        }
        Outcome::NoPath => Ending::response(Response::TransportFailure),
        Outcome::Aborted { reset: false } => Ending::response(Response::Aborted),
        Outcome::Aborted { reset: true } => Ending::response(Response::Reset),
        // The ring stops: no path had it, and the driver may send it again as
        // soon as the ring runs again.
        Outcome::Stopped => Ending::response(Response::Busy),
        Outcome::TimedOut => Ending::check(SenseCode::COMMAND_TIMEOUT),
        Outcome::Host(errno) => ending_of_errno(errno),
    };
    (ending, None)
}

/// What the kernel says of a command in the LU's stead, without sense.
fn ending_of_errno(errno: i32) -> Ending {
    match errno {
        libc::EREMOTEIO => Ending::response(Response::TargetFailure),
        libc::EBADE => Ending { status: Status::RESERVATION_CONFLICT, ..Ending::GOOD },
        libc::ENOSPC => Ending::check(SenseCode::SPACE_ALLOCATION_FAILED),
        libc::ENODATA => Ending::check(SenseCode::UNRECOVERED_READ_ERROR),
        _ => Ending::response(Response::Failure),
    }
}

#[cfg(test)]
mod tests;
