//! The control queue: task management and asynchronous notification
//! (virtio 1.3, 5.6.6.2); and the events of the event queue (5.6.6.3).
//!
//! A task management function that concerns tasks goes to the queue threads
//! ([`Parsed::Manage`]) and is answered by [`managed`] once all it reached are
//! back with the driver; everything else is answered at once.

use crate::guest::copy::{copy_out, read_array, slice};
use crate::io::{
    Action, DeviceEvent, Happened, Management, Parsed, Reach, Request, Segment, total_len,
};
use crate::scsi::luns::{self, Address};
use crate::scsi::sense::{Sense, SenseCode};
use crate::virtio::scsi::{
    self, AN_LEN, AN_RESPONSE_LEN, AnRequest, CONTROL_TYPE_LEN, EVENT_LEN, EVENT_PARAM_CHANGE,
    EVENT_TRANSPORT_RESET, EVENTS_MISSED, Event, RESET_REMOVED, RESET_RESCAN, Response, T_AN_QUERY,
    T_AN_SUBSCRIBE, T_TMF, TMF_LEN, TaskManagement, TmfRequest,
};

use super::target;
use crate::vhost_scsi::units::{Unit, Units};

/// Reads a request of the control queue.
pub(super) fn parse(
    units: &Units,
    readable: &[Segment],
    writable: &[Segment],
    request: &mut Request,
) -> Parsed {
    let kind = read_array::<CONTROL_TYPE_LEN>(readable, 0).map(u32::from_le_bytes);
    match kind {
        Some(T_AN_QUERY | T_AN_SUBSCRIBE) => {
            let response = notification(units, readable);
            slice(writable, 0, AN_RESPONSE_LEN, &mut request.reply);
            // No events are reported, whichever were asked for.
            answer(request, &[0, 0, 0, 0, response as u8])
        }
        // The answer to a type that nobody knows has a response byte, if
        // anything.
        _ if slice(writable, 0, 1, &mut request.reply) == 0 => Parsed::Answered { used_len: 0 },
        Some(T_TMF) => match task_management(units, readable, request) {
            Ok(management) => Parsed::Manage(management),
            Err(response) => answer(request, &[response as u8]),
        },
        Some(_) => answer(request, &[Response::FunctionRejected as u8]),
        None => answer(request, &[Response::Failure as u8]),
    }
}

fn answer(request: &Request, bytes: &[u8]) -> Parsed {
    let written = copy_out(&request.reply, 0, bytes);
    Parsed::Answered { used_len: u32::try_from(written).unwrap_or(0) }
}

fn task_management(
    units: &Units,
    readable: &[Segment],
    request: &mut Request,
) -> Result<Management, Response> {
    let raw = read_array::<TMF_LEN>(readable, 0).ok_or(Response::Failure)?;
    let TmfRequest { subtype, lun, id } = TmfRequest::decode(&raw);
    let function = TaskManagement::from_wire(subtype).ok_or(Response::FunctionRejected)?;
    if function == TaskManagement::ItNexusReset {
        // Of the LUN field only the target counts.
        let target = if lun[0] == 1 { Some(lun[1]) } else { None };
        let target = target.filter(|target| !units.of_target(*target).is_empty());
        request.target = target.ok_or(Response::BadTarget)?;
        let reach = Reach::Target(request.target);
        return Ok(Management { action: Action::End { reset: true }, reach });
    }
    let unit = addressed(units, &lun)?;
    request.target = unit.target;
    request.map = unit.map;
    let (map, task) = (unit.map, id);
    let (action, reach) = match function {
        TaskManagement::AbortTask => (Action::End { reset: false }, Reach::Task { map, task }),
        // The guest is the only initiator its target has.
        TaskManagement::AbortTaskSet | TaskManagement::ClearTaskSet => {
            (Action::End { reset: false }, Reach::Unit(map))
        }
        TaskManagement::LogicalUnitReset | TaskManagement::ItNexusReset => {
            (Action::End { reset: true }, Reach::Unit(map))
        }
        TaskManagement::QueryTask => (Action::Query, Reach::Task { map, task }),
        TaskManagement::QueryTaskSet => (Action::Query, Reach::Unit(map)),
        // There is no auto contingent allegiance to clear: NACA is refused.
        TaskManagement::ClearAca => return Err(Response::FunctionRejected),
    };
    Ok(Management { action, reach })
}

/// The LU of a LUN field, or what to answer.
fn addressed<'a>(units: &'a Units, lun: &[u8; 8]) -> Result<&'a Unit, Response> {
    if lun[0] != 1 || units.of_target(lun[1]).is_empty() {
        return Err(Response::BadTarget);
    }
    match target::address(lun) {
        Some(Address::Unit { target, lun }) => {
            units.find(target, lun).ok_or(Response::IncorrectLun)
        }
        Some(Address::WellKnownReportLuns) | None => Err(Response::IncorrectLun),
    }
}

fn notification(units: &Units, readable: &[Segment]) -> Response {
    let Some(raw) = read_array::<AN_LEN>(readable, 0) else { return Response::Failure };
    match addressed(units, &AnRequest::decode(&raw).lun) {
        Ok(_) => Response::Ok,
        Err(response) => response,
    }
}

/// The answer of a task management function. A reset is told to the guest by
/// unit attention, too (SAM-5 5.14, 6.3): of the LU 29/03, of the nexus 29/07.
pub(super) fn managed(
    units: &Units,
    request: &Request,
    management: &Management,
    found: bool,
) -> u32 {
    if management.action == (Action::End { reset: true }) {
        match management.reach {
            Reach::Unit(map) => {
                if let Some(unit) = units.of_map(request.target, map) {
                    unit.attentions.raise(&Sense::fixed(SenseCode::LU_RESET));
                }
            }
            Reach::Target(target) => {
                for unit in units.of_target(target) {
                    unit.attentions.raise(&Sense::fixed(SenseCode::NEXUS_LOSS));
                }
            }
            Reach::Task { .. } => {}
        }
    }
    let response = match management.action {
        Action::Query if found => Response::FunctionSucceeded,
        Action::Query | Action::End { .. } => Response::Ok,
    };
    match answer(request, &[response as u8]) {
        Parsed::Answered { used_len } => used_len,
        Parsed::Submit | Parsed::Manage(_) => 0,
    }
}

/// The feature that makes the driver listen to such an event.
pub(super) fn feature_of(event: &DeviceEvent) -> u64 {
    match event.what {
        Happened::Added | Happened::Removed => scsi::F_HOTPLUG,
        Happened::Changed { .. } => scsi::F_CHANGE,
    }
}

/// Writes an event; `None` where the chain is too short for one.
pub(super) fn write_event(writable: &[Segment], event: &DeviceEvent, missed: bool) -> Option<u32> {
    if total_len(writable) < EVENT_LEN {
        return None;
    }
    let (kind, reason) = match event.what {
        Happened::Added => (EVENT_TRANSPORT_RESET, RESET_RESCAN),
        Happened::Removed => (EVENT_TRANSPORT_RESET, RESET_REMOVED),
        Happened::Changed { asc, ascq } => {
            (EVENT_PARAM_CHANGE, u32::from(asc) | u32::from(ascq) << 8)
        }
    };
    let raw = Event {
        event: kind | if missed { EVENTS_MISSED } else { 0 },
        lun: luns::encode(event.target, event.lun),
        reason,
    };
    u32::try_from(copy_out(writable, 0, &raw.encode())).ok()
}
