//! Wire formats of the virtio SCSI host device (virtio 1.3, 5.6).
//!
//! Requests, responses and events of the control, event and request queues,
//! feature bits and the configuration space, as values with `encode` and
//! `decode`. No guest memory and no judgement: which request is acceptable is
//! decided in `vhost_scsi`. Numbers and offsets are the specification's,
//! because `virtio-bindings` has no header of this device. No thread owns it.

use super::Feature;

/// The device may carry data both ways in one command; never offered.
pub const F_INOUT: u64 = 1 << 0;
/// LUs may come and go, and events tell.
pub const F_HOTPLUG: u64 = 1 << 1;
/// Events tell of changed LU parameters.
pub const F_CHANGE: u64 = 1 << 2;
/// Protection information beside the data; never offered.
pub const F_T10_PI: u64 = 1 << 3;

/// Every bit of the device type we may offer, with its name.
pub const FEATURES: &[Feature] =
    &[Feature { mask: F_HOTPLUG, name: "HOTPLUG" }, Feature { mask: F_CHANGE, name: "CHANGE" }];

/// Index of the control queue.
pub const CONTROL_QUEUE: u16 = 0;
/// Index of the event queue.
pub const EVENT_QUEUE: u16 = 1;
/// Index of the first request queue.
pub const FIRST_REQUEST_QUEUE: u16 = 2;

/// `cdb_size` until the driver writes another one.
pub const CDB_SIZE_DEFAULT: u32 = 32;
/// `sense_size` until the driver writes another one.
pub const SENSE_SIZE_DEFAULT: u32 = 96;

/// Bytes of a command request before its CDB (`struct virtio_scsi_req_cmd`).
pub const REQUEST_LEN: usize = 19;
/// Bytes of a command response before its sense data.
pub const RESPONSE_LEN: usize = 12;

/// The part of a command request before its CDB (virtio 1.3, 5.6.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandRequest {
    /// Whom it is for.
    pub lun: [u8; 8],
    /// The driver's name for the task.
    pub id: u64,
    /// Task attribute: 0 SIMPLE, 1 ORDERED, 2 HEAD OF QUEUE, 3 ACA; unchecked.
    pub task_attr: u8,
    /// Command priority.
    pub prio: u8,
    /// Command reference number.
    pub crn: u8,
}

impl CommandRequest {
    /// Decodes.
    pub fn decode(raw: &[u8; REQUEST_LEN]) -> CommandRequest {
        CommandRequest {
            lun: bytes(raw, 0),
            id: u64::from_le_bytes(bytes(raw, 8)),
            task_attr: raw[16],
            prio: raw[17],
            crn: raw[18],
        }
    }

    /// Encodes, as a driver would.
    pub fn encode(&self) -> [u8; REQUEST_LEN] {
        let mut raw = [0; REQUEST_LEN];
        raw[0..8].copy_from_slice(&self.lun);
        raw[8..16].copy_from_slice(&self.id.to_le_bytes());
        raw[16..].copy_from_slice(&[self.task_attr, self.prio, self.crn]);
        raw
    }
}

/// The `response` byte (virtio 1.3, 5.6.6.1 and 5.6.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Response {
    /// OK; of task management FUNCTION COMPLETE.
    Ok = 0,
    /// The CDB wants more data than the buffers hold.
    Overrun = 1,
    /// Ended by ABORT TASK, ABORT TASK SET or CLEAR TASK SET.
    Aborted = 2,
    /// No such target.
    BadTarget = 3,
    /// Ended by a reset.
    Reset = 4,
    /// Try again.
    Busy = 5,
    /// The way to the LU is broken.
    TransportFailure = 6,
    /// The target is broken; no retry elsewhere helps.
    TargetFailure = 7,
    /// The nexus is broken; Linux takes it for a reservation conflict.
    NexusFailure = 8,
    /// Anything else.
    Failure = 9,
    /// FUNCTION SUCCEEDED: the task asked about exists.
    FunctionSucceeded = 10,
    /// FUNCTION REJECTED: no such function here.
    FunctionRejected = 11,
    /// No such LU at that target.
    IncorrectLun = 12,
}

/// A command response before its sense data (`struct virtio_scsi_req_cmd`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandResponse {
    /// Bytes of sense data that follow.
    pub sense_len: u32,
    /// Bytes of the data buffers that were not transferred.
    pub residual: u32,
    /// Status qualifier (SAM-5 5.3.2).
    pub status_qualifier: u16,
    /// SAM status byte.
    pub status: u8,
    /// See [`Response`].
    pub response: u8,
}

impl CommandResponse {
    /// Decodes, as a driver would.
    pub fn decode(raw: &[u8; RESPONSE_LEN]) -> CommandResponse {
        CommandResponse {
            sense_len: u32::from_le_bytes(bytes(raw, 0)),
            residual: u32::from_le_bytes(bytes(raw, 4)),
            status_qualifier: u16::from_le_bytes(bytes(raw, 8)),
            status: raw[10],
            response: raw[11],
        }
    }

    /// Encodes.
    pub fn encode(&self) -> [u8; RESPONSE_LEN] {
        let mut raw = [0; RESPONSE_LEN];
        raw[0..4].copy_from_slice(&self.sense_len.to_le_bytes());
        raw[4..8].copy_from_slice(&self.residual.to_le_bytes());
        raw[8..10].copy_from_slice(&self.status_qualifier.to_le_bytes());
        raw[10..].copy_from_slice(&[self.status, self.response]);
        raw
    }
}

/// Bytes of the type word that begins every control request.
pub const CONTROL_TYPE_LEN: usize = 4;
/// `type` of a task management function.
pub const T_TMF: u32 = 0;
/// `type` of an asynchronous notification query.
pub const T_AN_QUERY: u32 = 1;
/// `type` of an asynchronous notification subscription.
pub const T_AN_SUBSCRIBE: u32 = 2;

/// Bytes of a task management request, its type included.
pub const TMF_LEN: usize = 24;
/// Bytes of an asynchronous notification request, its type included.
pub const AN_LEN: usize = 16;
/// Bytes of the answer to one: the events, and the response byte.
pub const AN_RESPONSE_LEN: usize = 5;

/// A task management function (SAM-5 7), the `subtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the standard's
pub enum TaskManagement {
    AbortTask,
    AbortTaskSet,
    ClearAca,
    ClearTaskSet,
    ItNexusReset,
    LogicalUnitReset,
    QueryTask,
    QueryTaskSet,
}

impl TaskManagement {
    /// All of them; the index is the `subtype`.
    pub const ALL: [TaskManagement; 8] = [
        TaskManagement::AbortTask,
        TaskManagement::AbortTaskSet,
        TaskManagement::ClearAca,
        TaskManagement::ClearTaskSet,
        TaskManagement::ItNexusReset,
        TaskManagement::LogicalUnitReset,
        TaskManagement::QueryTask,
        TaskManagement::QueryTaskSet,
    ];

    /// From the `subtype`; `None` for unknown ones.
    pub fn from_wire(wire: u32) -> Option<TaskManagement> {
        usize::try_from(wire).ok().and_then(|index| Self::ALL.get(index)).copied()
    }
}

/// A task management request (`struct virtio_scsi_ctrl_tmf`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TmfRequest {
    /// See [`TaskManagement`]; unchecked.
    pub subtype: u32,
    /// Whom it is for.
    pub lun: [u8; 8],
    /// Which task, for those that name one.
    pub id: u64,
}

impl TmfRequest {
    /// Decodes; the type is not looked at.
    pub fn decode(raw: &[u8; TMF_LEN]) -> TmfRequest {
        TmfRequest {
            subtype: u32::from_le_bytes(bytes(raw, 4)),
            lun: bytes(raw, 8),
            id: u64::from_le_bytes(bytes(raw, 16)),
        }
    }

    /// Encodes, as a driver would.
    pub fn encode(&self) -> [u8; TMF_LEN] {
        let mut raw = [0; TMF_LEN];
        raw[0..4].copy_from_slice(&T_TMF.to_le_bytes());
        raw[4..8].copy_from_slice(&self.subtype.to_le_bytes());
        raw[8..16].copy_from_slice(&self.lun);
        raw[16..].copy_from_slice(&self.id.to_le_bytes());
        raw
    }
}

/// An asynchronous notification request (`struct virtio_scsi_ctrl_an`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnRequest {
    /// [`T_AN_QUERY`] or [`T_AN_SUBSCRIBE`].
    pub kind: u32,
    /// Whom it is for.
    pub lun: [u8; 8],
    /// The events asked about, bit by bit.
    pub events: u32,
}

impl AnRequest {
    /// Decodes.
    pub fn decode(raw: &[u8; AN_LEN]) -> AnRequest {
        AnRequest {
            kind: u32::from_le_bytes(bytes(raw, 0)),
            lun: bytes(raw, 4),
            events: u32::from_le_bytes(bytes(raw, 12)),
        }
    }

    /// Encodes, as a driver would.
    pub fn encode(&self) -> [u8; AN_LEN] {
        let mut raw = [0; AN_LEN];
        raw[0..4].copy_from_slice(&self.kind.to_le_bytes());
        raw[4..12].copy_from_slice(&self.lun);
        raw[12..].copy_from_slice(&self.events.to_le_bytes());
        raw
    }
}

/// Bytes of an event, `event_info_size`.
pub const EVENT_LEN: usize = 16;
/// Bit of [`Event::event`]: events were lost for want of buffers.
pub const EVENTS_MISSED: u32 = 1 << 31;
/// A LU came or went; the reason says which.
pub const EVENT_TRANSPORT_RESET: u32 = 1;
/// The parameters of a LU changed; the reason is ASC, and ASCQ times 256.
pub const EVENT_PARAM_CHANGE: u32 = 3;
/// Reason of a transport reset: the LU came (or look again).
pub const RESET_RESCAN: u32 = 1;
/// Reason of a transport reset: the LU went.
pub const RESET_REMOVED: u32 = 2;

/// What the device tells unasked (virtio 1.3, 5.6.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// `EVENT_*`, with or without [`EVENTS_MISSED`].
    pub event: u32,
    /// Of whom.
    pub lun: [u8; 8],
    /// By event.
    pub reason: u32,
}

impl Event {
    /// Encodes.
    pub fn encode(&self) -> [u8; EVENT_LEN] {
        let mut raw = [0; EVENT_LEN];
        raw[0..4].copy_from_slice(&self.event.to_le_bytes());
        raw[4..12].copy_from_slice(&self.lun);
        raw[12..].copy_from_slice(&self.reason.to_le_bytes());
        raw
    }
}

/// Bytes of the configuration space.
pub const CONFIG_LEN: usize = 36;

/// The device configuration (virtio 1.3, 5.6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiConfig {
    /// Request queues.
    pub num_queues: u32,
    /// Most data segments of one command.
    pub seg_max: u32,
    /// Longest transfer of one command, in 512-byte sectors.
    pub max_sectors: u32,
    /// Most commands of one LU at a time.
    pub cmd_per_lun: u32,
    /// Bytes of an event.
    pub event_info_size: u32,
    /// Bytes the driver reserves for sense data; the driver may write it.
    pub sense_size: u32,
    /// Bytes the driver sends of a CDB; the driver may write it.
    pub cdb_size: u32,
    /// Always 0.
    pub max_channel: u16,
    /// Largest target number.
    pub max_target: u16,
    /// Largest LUN.
    pub max_lun: u32,
}

impl ScsiConfig {
    /// The bytes the driver may write: `sense_size` and `cdb_size`.
    pub const WRITABLE: std::ops::Range<usize> = 20..28;

    /// The bytes as the driver reads them.
    pub fn encode(&self) -> [u8; CONFIG_LEN] {
        let mut raw = [0; CONFIG_LEN];
        let words = [
            self.num_queues,
            self.seg_max,
            self.max_sectors,
            self.cmd_per_lun,
            self.event_info_size,
            self.sense_size,
            self.cdb_size,
        ];
        for (place, word) in raw.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        raw[28..30].copy_from_slice(&self.max_channel.to_le_bytes());
        raw[30..32].copy_from_slice(&self.max_target.to_le_bytes());
        raw[32..36].copy_from_slice(&self.max_lun.to_le_bytes());
        raw
    }

    /// `sense_size` and `cdb_size` of a configuration space.
    pub fn sizes(raw: &[u8; CONFIG_LEN]) -> (u32, u32) {
        (u32::from_le_bytes(bytes(raw, 20)), u32::from_le_bytes(bytes(raw, 24)))
    }
}

/// `N` bytes of a wire struct; the callers' offsets are constants within it.
fn bytes<const N: usize>(raw: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&raw[at..at + N]);
    field
}

#[cfg(test)]
mod tests;
