//! One queue of a virtio-scsi driver: commands, task management, events.
//!
//! Encodes and decodes by itself (virtio 1.3, 5.6.6): what the daemon's own
//! wire structs got wrong would not show if the stories shared them.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::slot_queue::{Chain, Done, Payload, SlotQueue};

/// Bytes of a command's header before its CDB.
pub(crate) const HEADER: usize = 19;
/// Bytes of a command's response before its sense data.
pub(crate) const RESPONSE: usize = 12;
/// Bytes of an event.
pub(crate) const EVENT: u32 = 16;

/// Bits of the feature word.
pub(crate) const F_INOUT: u64 = 1 << 0;
pub(crate) const F_HOTPLUG: u64 = 1 << 1;
pub(crate) const F_CHANGE: u64 = 1 << 2;
pub(crate) const F_T10_PI: u64 = 1 << 3;

/// Subtypes of task management.
pub(crate) const ABORT_TASK: u32 = 0;
pub(crate) const ABORT_TASK_SET: u32 = 1;
pub(crate) const CLEAR_ACA: u32 = 2;
pub(crate) const CLEAR_TASK_SET: u32 = 3;
pub(crate) const NEXUS_RESET: u32 = 4;
pub(crate) const LU_RESET: u32 = 5;
pub(crate) const QUERY_TASK: u32 = 6;
pub(crate) const QUERY_TASK_SET: u32 = 7;

/// The response byte, by its number.
const RESPONSES: [&str; 13] = [
    "OK",
    "OVERRUN",
    "ABORTED",
    "BAD_TARGET",
    "RESET",
    "BUSY",
    "TRANSPORT_FAILURE",
    "TARGET_FAILURE",
    "NEXUS_FAILURE",
    "FAILURE",
    "FUNCTION_SUCCEEDED",
    "FUNCTION_REJECTED",
    "INCORRECT_LUN",
];

/// The word for a response byte.
pub(crate) fn response_name(response: u8) -> &'static str {
    RESPONSES.get(usize::from(response)).copied().unwrap_or("?")
}

/// The LUN field of a LU: single-level, peripheral up to 255 and flat above.
pub(crate) const fn lun(target: u8, lun: u16) -> [u8; 8] {
    let [high, low] = lun.to_be_bytes();
    [1, target, if high == 0 { 0 } else { 0x40 | high }, low, 0, 0, 0, 0]
}

/// A command as a driver gives it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task<'a> {
    pub(crate) lun: [u8; 8],
    /// The driver's name for it.
    pub(crate) id: u64,
    /// 0 SIMPLE, 1 ORDERED, 2 HEAD OF QUEUE, 3 ACA.
    pub(crate) attribute: u8,
    /// Put into a field of `cdb_size`, zeroes behind it.
    pub(crate) cdb: &'a [u8],
    pub(crate) out: Payload<'a>,
    /// Bytes of room for data-in.
    pub(crate) data_in: u32,
}

impl<'a> Task<'a> {
    /// Of LUN 0 at target 0, without data.
    pub(crate) fn new(cdb: &'a [u8]) -> Task<'a> {
        Task { lun: lun(0, 0), id: 0, attribute: 0, cdb, out: Payload::None, data_in: 0 }
    }

    /// To another LU.
    pub(crate) fn to(self, lun: [u8; 8]) -> Task<'a> {
        Task { lun, ..self }
    }

    /// By this name.
    pub(crate) fn named(self, id: u64) -> Task<'a> {
        Task { id, ..self }
    }

    /// With room for data-in.
    pub(crate) fn reading(self, data_in: u32) -> Task<'a> {
        Task { data_in, ..self }
    }

    /// With data-out.
    pub(crate) fn writing(self, out: &'a [u8]) -> Task<'a> {
        Task { out: Payload::Bytes(out), ..self }
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) response: u8,
    pub(crate) status: u8,
    pub(crate) qualifier: u16,
    pub(crate) residual: u32,
    /// `sense_len` bytes of it.
    pub(crate) sense: Vec<u8>,
    /// Length in the used element.
    pub(crate) used_len: u32,
    /// All of the room for data-in.
    pub(crate) data: Vec<u8>,
}

impl Answer {
    /// Key, code and qualifier of the sense data, of either format.
    pub(crate) fn sense_code(&self) -> Option<(u8, u8, u8)> {
        let byte = |at: usize| self.sense.get(at).copied().unwrap_or(0);
        match self.sense.first()? & 0x7f {
            0x70 | 0x71 => Some((byte(2) & 0xf, byte(12), byte(13))),
            0x72 | 0x73 => Some((byte(1) & 0xf, byte(2), byte(3))),
            _ => None,
        }
    }

    /// OK with status GOOD.
    pub(crate) fn is_good(&self) -> bool {
        (self.response, self.status) == (0, 0)
    }

    /// The data that was transferred, by the residual.
    pub(crate) fn transferred(&self) -> &[u8] {
        let residual = usize::try_from(self.residual).expect("small");
        &self.data[..self.data.len().saturating_sub(residual)]
    }
}

impl fmt::Display for Answer {
    /// `GOOD`, `05/24/00`, `CONFLICT`, `OVERRUN`: what a table says of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.response != 0 {
            return f.write_str(response_name(self.response));
        }
        match (self.status, self.sense_code()) {
            (0x00, None) => f.write_str("GOOD"),
            (0x02, Some((key, asc, ascq))) => write!(f, "{key:02x}/{asc:02x}/{ascq:02x}"),
            (0x08, None) => f.write_str("BUSY STATUS"),
            (0x18, None) => f.write_str("CONFLICT"),
            (0x28, None) => f.write_str("TASK SET FULL"),
            (status, sense) => write!(f, "status {status:02x} sense {sense:02x?}"),
        }
    }
}

/// What the device told unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// With [`Event::MISSED`] or without.
    pub(crate) event: u32,
    pub(crate) lun: [u8; 8],
    pub(crate) reason: u32,
}

impl Event {
    /// Others were lost.
    pub(crate) const MISSED: u32 = 1 << 31;
    pub(crate) const TRANSPORT_RESET: u32 = 1;
    pub(crate) const PARAM_CHANGE: u32 = 3;
    pub(crate) const RESCAN: u32 = 1;
    pub(crate) const REMOVED: u32 = 2;

    /// A LU came.
    pub(crate) fn rescan(lun: [u8; 8]) -> Event {
        Event { event: Event::TRANSPORT_RESET, lun, reason: Event::RESCAN }
    }

    /// A LU went.
    pub(crate) fn removed(lun: [u8; 8]) -> Event {
        Event { event: Event::TRANSPORT_RESET, lun, reason: Event::REMOVED }
    }

    /// Its parameters changed.
    pub(crate) fn changed(lun: [u8; 8], asc: u8, ascq: u8) -> Event {
        let reason = u32::from(asc) | u32::from(ascq) << 8;
        Event { event: Event::PARAM_CHANGE, lun, reason }
    }
}

/// See the module.
pub(crate) struct ScsiQueue {
    slots: SlotQueue,
    /// As in the configuration space.
    pub(crate) cdb_size: usize,
    /// As in the configuration space.
    pub(crate) sense_size: usize,
}

impl From<SlotQueue> for ScsiQueue {
    fn from(slots: SlotQueue) -> ScsiQueue {
        ScsiQueue { slots, cdb_size: 32, sense_size: 96 }
    }
}

impl Deref for ScsiQueue {
    type Target = SlotQueue;
    fn deref(&self) -> &SlotQueue {
        &self.slots
    }
}

impl DerefMut for ScsiQueue {
    fn deref_mut(&mut self) -> &mut SlotQueue {
        &mut self.slots
    }
}

/// A command's header, with a CDB field of `cdb_size`.
pub(crate) fn header(task: &Task<'_>, cdb_size: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER + cdb_size);
    header.extend(task.lun);
    header.extend(task.id.to_le_bytes());
    header.extend([task.attribute, 0, 0]);
    header.extend(&task.cdb[..task.cdb.len().min(cdb_size)]);
    header.resize(HEADER + cdb_size, 0);
    header
}

/// A task management request.
pub(crate) fn tmf(subtype: u32, lun: [u8; 8], id: u64) -> Vec<u8> {
    [&[0; 4], &subtype.to_le_bytes()[..], &lun, &id.to_le_bytes()].concat()
}

fn le32(raw: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(raw[at..at + 4].try_into().expect("4 bytes"))
}

impl ScsiQueue {
    /// Makes a command available, without a kick; `None` if it does not fit.
    pub(crate) fn submit(&mut self, task: &Task<'_>) -> Option<u64> {
        let header = header(task, self.cdb_size);
        let reply = u32::try_from(RESPONSE + self.sense_size).expect("small");
        let Task { out, data_in, .. } = *task;
        let chain = Chain { header: &header, payload: out, reply, reply_first: true, data_in };
        self.slots.submit_chain(&chain)
    }

    /// The answer to a command that came back.
    pub(crate) fn answer(&self, done: &Done) -> Answer {
        let reply = self.slots.reply(done);
        let sense_len = usize::try_from(le32(&reply, 0)).expect("small");
        let room = reply.len() - RESPONSE;
        assert!(sense_len <= room, "{sense_len} bytes of sense in {room}");
        let qualifier = u16::from_le_bytes([reply[8], reply[9]]);
        Answer {
            response: reply[11],
            status: reply[10],
            qualifier,
            residual: le32(&reply, 4),
            sense: reply[RESPONSE..RESPONSE + sense_len].to_vec(),
            used_len: done.used_len,
            data: self.slots.data(done),
        }
    }

    /// Gives one command and waits for it; nothing else may be out.
    pub(crate) fn run(&mut self, task: &Task<'_>) -> Answer {
        assert_eq!(self.outstanding(), 0, "others are out");
        self.submit(task).expect("room for one");
        self.kick();
        let done = self.wait_for(|| format!("{task:02x?}"));
        self.answer(&done)
    }

    /// Waits for one chain; what for is said if it does not come.
    pub(crate) fn wait_for(&mut self, what: impl Fn() -> String) -> Done {
        let done = self.wait(super::slot_queue::PATIENCE);
        done.unwrap_or_else(|| panic!("not answered: {}", what()))
    }

    /// Gives a control request of any bytes, with room for so many of answer.
    pub(crate) fn submit_control(&mut self, request: &[u8], reply: u32) -> Option<u64> {
        let payload = Payload::None;
        let chain = Chain { header: request, payload, reply, reply_first: true, data_in: 0 };
        self.slots.submit_chain(&chain)
    }

    /// Gives a task management function.
    pub(crate) fn submit_tmf(&mut self, subtype: u32, lun: [u8; 8], id: u64) -> u64 {
        self.submit_control(&tmf(subtype, lun, id), 1).expect("room for one")
    }

    /// A control request and its answer.
    pub(crate) fn run_control(&mut self, request: &[u8], reply: u32) -> Vec<u8> {
        assert_eq!(self.outstanding(), 0, "others are out");
        self.submit_control(request, reply).expect("room for one");
        self.kick();
        let done = self.wait_for(|| format!("control request {request:02x?}"));
        self.slots.reply(&done)
    }

    /// A task management function and its response.
    pub(crate) fn run_tmf(&mut self, subtype: u32, lun: [u8; 8], id: u64) -> &'static str {
        response_name(self.run_control(&tmf(subtype, lun, id), 1)[0])
    }

    /// Gives the device room for events.
    pub(crate) fn post_events(&mut self, count: usize) {
        for _ in 0..count {
            self.submit_control(&[], EVENT).expect("room for one");
        }
        self.kick();
    }

    /// The event that came back.
    pub(crate) fn event(&self, done: &Done) -> Event {
        let raw = self.slots.reply(done);
        assert_eq!(done.used_len, EVENT, "{raw:02x?}");
        let lun = raw[4..12].try_into().expect("8 bytes");
        Event { event: le32(&raw, 0), lun, reason: le32(&raw, 12) }
    }
}
