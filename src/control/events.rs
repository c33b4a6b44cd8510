//! What happened, in words for the journal and as data for QMP clients.
//!
//! Pure. Every change of state becomes exactly one [`Notice`]; who hears of it
//! is the daemon's business.

mod change;
mod reservation;

use log::Level;
use serde_json::{Map, Value, json};

use super::lun::Address;
use crate::io::{Completion, Denied, ErrnoFrom, Extent, Op, Outcome};
use crate::mpath::effect::Cause;
use crate::mpath::event::IoReason;
use crate::passthrough_scsi::in_words;
use crate::queue::dispatch::GuestError;
use crate::scsi::command::Group;
use crate::scsi::sense::{self, Sense};
use crate::scsi::status::{HostByte, Status};
use crate::vhost_user::{DisconnectReason, SessionEvent};

pub(super) use change::{add_guest_size, of_change};
pub(super) use reservation::{of_saved_key, of_unsaved_key};

/// One piece of news.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    /// QMP event name.
    pub(super) name: &'static str,
    /// How bad it is.
    pub(super) level: Level,
    /// For people.
    pub(super) text: String,
    /// For programs.
    pub(super) data: Map<String, Value>,
    /// Somebody else could make us tell it without end: not all are told.
    pub(super) some: bool,
}

impl Notice {
    pub(super) fn new(name: &'static str, level: Level, text: String, data: Value) -> Notice {
        let data = match data {
            Value::Object(data) => data,
            _ => Map::new(),
        };
        Notice { name, level, text, data, some: false }
    }

    /// The same, not told without end.
    fn some(self) -> Notice {
        Notice { some: true, ..self }
    }
}

/// A request the guest sees fail.
pub(super) fn of_guest_error(error: &GuestError, path: Option<&str>) -> Notice {
    let mut notice = guest_error(error, path);
    if is_conflict(&error.outcome) {
        notice.name = "RESERVATION_CONFLICT";
        notice.text += "; another host has reserved the LU (`sg_persist -r DISK` shows how)";
    }
    notice
}

/// Another nexus's reservation forbids it, by whatever words.
fn is_conflict(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Lu { status, .. } => *status == Status::RESERVATION_CONFLICT,
        Outcome::Host(code) => *code == libc::EBADE,
        _ => false,
    }
}

fn guest_error(error: &GuestError, path: Option<&str>) -> Notice {
    let ended = outcome_in_words(&error.outcome);
    let tries = error.tries;
    let by = path.map_or_else(String::new, |path| format!(", last on path {path}"));
    let text = format!(
        "the guest sees an error: {}: {ended} (rule {}, {tries} tries{by})",
        op_in_words(&error.op),
        error.rule
    );
    let mut data = op_as_data(&error.op);
    data.insert("reason".to_owned(), json!(ended));
    data.insert("rule".to_owned(), json!(error.rule));
    data.insert("tries".to_owned(), json!(tries));
    if let Some(path) = path {
        data.insert("path".to_owned(), json!(path));
    }
    match &error.outcome {
        Outcome::Lu { status, sense, .. } => data.extend(status_as_data(*status, sense)),
        Outcome::Host(code) => drop(data.insert("errno".to_owned(), json!(code))),
        Outcome::Good
        | Outcome::NoPath
        | Outcome::TimedOut
        | Outcome::Stopped
        | Outcome::Aborted { .. } => {}
    }
    Notice { name: "GUEST_IO_ERROR", level: Level::Error, text, data, some: true }
}

/// An error of a command that had ended well.
pub(super) fn of_deferred_error(path: Option<&str>, sense: &Sense) -> Notice {
    let path = path.unwrap_or("that has left");
    let code = sense.code();
    let words = code.and_then(sense::describe).unwrap_or("unknown");
    let told = code.map_or_else(String::new, |c| format!("{c} ({words})"));
    let text = format!(
        "the LU tells by path {path} of a deferred error: {told}; what it acknowledged earlier \
         may be lost: check the array and the file system"
    );
    let mut data = status_as_data(Status::CHECK_CONDITION, sense);
    data.insert("path".to_owned(), json!(path));
    Notice { name: "DEFERRED_ERROR", level: Level::Error, text, data, some: true }
}

/// What a path's block layer says of reads and writes is not relied on, or again.
pub(super) fn of_block_layer(path: Option<&str>, avoided: bool) -> Notice {
    let path = path.unwrap_or("that has left");
    let data = json!({ "path": path });
    if avoided {
        let text = format!(
            "path {path}: the kernel's block layer ends reads and writes with EIO that go well by \
             SCSI passthrough: they go that way now (SG_IO, slower), and by the block layer again \
             after a minute; look at dmesg, and at the disk's size in the kernel"
        );
        return Notice::new("BLOCK_LAYER_AVOIDED", Level::Warn, text, data);
    }
    let text = format!("path {path}: reads and writes go by the kernel's block layer again");
    Notice::new("BLOCK_LAYER_USED", Level::Info, text, data)
}

/// A ring or chain that made no sense.
pub(super) fn of_ring(name: &'static str, ring: u16, reason: &str) -> Notice {
    let what = match name {
        "RING_BROKEN" => "stopped, its driver broke it",
        _ => "a request could not be read",
    };
    let text = format!("ring {ring}: {what}: {reason}");
    Notice::new(name, Level::Error, text, json!({ "ring": ring, "reason": reason }))
}

/// An LU came at run time.
pub(super) fn of_lun_added(address: Address) -> Notice {
    let text = format!("LUN {address} added");
    Notice::new("LUN_ADDED", Level::Info, text, json!({ "lun": address.to_string() }))
}

/// An LU went, and everything of it is closed.
pub(super) fn of_lun_removed(address: Address) -> Notice {
    let text = format!("LUN {address} removed");
    Notice::new("LUN_REMOVED", Level::Info, text, json!({ "lun": address.to_string() }))
}

/// A command the guest is not allowed to send. `joined`: the guest sees one LU
/// where there are several paths, and no word allows RESERVE then.
pub(super) fn of_denied(denied: &Denied, joined: bool) -> Notice {
    let (name, group) = (denied.cdb.name().unwrap_or("unknown command"), denied.group);
    let known: Option<Group> = group.parse().ok();
    let bound = known == Some(Group::Reserve) && joined;
    let remedy = if bound {
        "it would hold for one of several paths only (persistent reservations hold for all)"
            .to_owned()
    } else {
        format!("--allow {group}, or allow={group} in its --lun, lets it pass")
    };
    let cdb: Vec<String> = denied.cdb.as_slice().iter().map(|byte| format!("{byte:02x}")).collect();
    let cdb = cdb.join(" ");
    let text = format!("the guest's {name} ({cdb}) was refused: group {group} is denied; {remedy}");
    let data = json!({ "command": name, "cdb": cdb, "group": group });
    Notice::new("COMMAND_DENIED", Level::Warn, text, data)
}

/// Nothing tells when a disk comes or goes.
pub(super) fn of_no_uevents(why: &str) -> Notice {
    let text = format!(
        "{why}: /sys is looked at once a second for disks that come and go; what a logical unit \
         says of itself to others is not heard"
    );
    Notice::new("NO_UEVENTS", Level::Warn, text, json!({ "reason": why }))
}

/// News of the front-end's connection.
pub(super) fn of_session(event: &SessionEvent) -> Option<Notice> {
    let notice = |name, level, text: String, data| Some(Notice::new(name, level, text, data));
    match event {
        SessionEvent::Connected => {
            notice("FRONT_END_CONNECTED", Level::Info, "front-end connected".to_owned(), json!({}))
        }
        SessionEvent::ClientRefused => {
            let text = "a second front-end was sent away: one serves at a time";
            notice("FRONT_END_REFUSED", Level::Warn, text.to_owned(), json!({}))
        }
        SessionEvent::RequestRefused { request, reason } => {
            let text = format!("{request} refused: {reason}");
            let data = json!({ "request": request, "reason": reason });
            notice("REQUEST_REFUSED", Level::Warn, text, data)
        }
        SessionEvent::ConfigRefused => {
            let text = "the front-end could not take the disk's new size; \
                        the guest sees it when it starts again";
            notice("RESIZE_REFUSED", Level::Warn, text.to_owned(), json!({}))
        }
        SessionEvent::ChannelLost(why) => {
            let text = format!(
                "the back-end channel is lost ({why}): the front-end is not told of a new size \
                 before it connects again"
            );
            notice("CHANNEL_LOST", Level::Warn, text, json!({ "reason": why }))
        }
        SessionEvent::RingsHeld(rings) => {
            let text = format!(
                "{rings} rings of the last connection have commands in the kernel; \
                 no ring starts before they return"
            );
            notice("RINGS_HELD", Level::Warn, text, json!({ "rings": rings }))
        }
        SessionEvent::RingsReturned => {
            let text = "the last connection's commands have returned".to_owned();
            notice("RINGS_RETURNED", Level::Info, text, json!({}))
        }
        SessionEvent::Disconnected { reason } => {
            let level = match reason {
                DisconnectReason::Closed | DisconnectReason::Shutdown => Level::Info,
                _ => Level::Warn,
            };
            let text = format!("front-end disconnected: {reason}");
            notice("FRONT_END_DISCONNECTED", level, text, json!({ "reason": reason.to_string() }))
        }
        SessionEvent::AreaGiven | SessionEvent::Finished => None,
    }
}

/// An operation with its range.
fn op_in_words(op: &Op) -> String {
    match extent(op) {
        Some(e) => format!("{} of {} blocks at {}", op.name(), e.blocks, e.lba),
        None => op.name().to_owned(),
    }
}

fn extent(op: &Op) -> Option<Extent> {
    match op {
        Op::Read(extent) | Op::Write { extent, .. } | Op::WriteZeroes { extent, .. } => {
            Some(*extent)
        }
        Op::Flush | Op::Unmap | Op::Cdb { .. } => None,
    }
}

fn op_as_data(op: &Op) -> Map<String, Value> {
    let mut data = Map::new();
    data.insert("command".to_owned(), json!(op.name()));
    if let Some(e) = extent(op) {
        data.insert("lba".to_owned(), json!(e.lba.0));
        data.insert("blocks".to_owned(), json!(e.blocks.0));
    }
    data
}

fn outcome_in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Good => "it worked".to_owned(),
        Outcome::Lu { status, sense, residual } => in_words(&Completion::Scsi {
            status: *status,
            host: HostByte::OK,
            sense: *sense,
            residual: *residual,
        }),
        Outcome::NoPath => "no path is left and queueing has ended".to_owned(),
        Outcome::TimedOut => "it timed out on every path, and queueing has ended".to_owned(),
        // The kernel's word for it is "Invalid exchange".
        Outcome::Host(libc::EBADE) => "RESERVATION CONFLICT (EBADE)".to_owned(),
        Outcome::Host(code) => std::io::Error::from_raw_os_error(*code).to_string(),
        Outcome::Stopped => "the ring was stopped".to_owned(),
        Outcome::Aborted { reset: false } => "the guest aborted it".to_owned(),
        Outcome::Aborted { reset: true } => "the guest reset the LU".to_owned(),
    }
}

/// Why a path is not used, in one sentence without a full stop.
pub(super) fn cause_in_words(cause: &Cause) -> String {
    match cause {
        Cause::Io(IoReason::Judged { rule, op, completion, .. }) => {
            format!("{}: {} (rule {rule})", op_in_words(op), in_words(completion))
        }
        Cause::Io(IoReason::Hung { op, out }) => {
            format!("{} has been out for {:.1} s", op_in_words(op), out.as_secs_f64())
        }
        Cause::Checker(word) => format!("the checker says {word}"),
        Cause::IdentityMismatch { expected, found } if expected.wwid != found.wwid => {
            format!("it leads to another LU now: WWID {}, not {}", found.wwid, expected.wwid)
        }
        Cause::IdentityMismatch { expected, found } => format!(
            "the LU has another size now: {} blocks of {} bytes, not {} of {}",
            found.capacity, found.block_size, expected.capacity, expected.block_size
        ),
        Cause::IdentityUnknown(why) => format!("its identity could not be read: {why}"),
        Cause::Host(word) => format!("the kernel has heard {word} from it"),
        Cause::Activation(why) => format!("its activation was {why}"),
        Cause::Reservation(why) => format!("a command about reservations was {why}"),
        Cause::Administrator => {
            "taken out by the administrator (reinstate path lifts it)".to_owned()
        }
    }
}

/// The same for programs.
pub(super) fn cause_as_data(cause: &Cause) -> Value {
    let kind = |kind: &str, mut data: Map<String, Value>| {
        data.insert("kind".to_owned(), json!(kind));
        Value::Object(data)
    };
    match cause {
        Cause::Io(IoReason::Judged { rule, op, completion, .. }) => {
            let mut data = op_as_data(op);
            data.insert("rule".to_owned(), json!(rule));
            data.extend(completion_as_data(completion));
            kind("io", data)
        }
        Cause::Io(IoReason::Hung { op, out }) => {
            let mut data = op_as_data(op);
            data.insert("seconds".to_owned(), json!(out.as_secs_f64()));
            kind("hung", data)
        }
        Cause::Checker(word) => json!({ "kind": "checker", "state": word }),
        Cause::IdentityMismatch { expected, found } => json!({
            "kind": "identity",
            "expected": expected.wwid,
            "found": found.wwid,
            "expected-blocks": expected.capacity.0,
            "found-blocks": found.capacity.0,
        }),
        Cause::IdentityUnknown(why) => json!({ "kind": "identity", "error": why }),
        Cause::Host(word) => json!({ "kind": "uevent", "reason": word }),
        Cause::Activation(why) => json!({ "kind": "activation", "reason": why }),
        Cause::Reservation(why) => json!({ "kind": "reservation", "reason": why }),
        Cause::Administrator => json!({ "kind": "administrator" }),
    }
}

fn completion_as_data(completion: &Completion) -> Map<String, Value> {
    let mut data = Map::new();
    match completion {
        Completion::Good => {}
        Completion::Short(bytes) => drop(data.insert("transferred".to_owned(), json!(bytes))),
        Completion::Scsi { status, host, sense, residual } => {
            data.insert("host".to_owned(), json!(host.to_string()));
            data.insert("residual".to_owned(), json!(residual));
            data.extend(status_as_data(*status, sense));
        }
        Completion::Errno { from, code } => {
            let from = match from {
                ErrnoFrom::Ioctl => "ioctl",
                ErrnoFrom::Block => "block",
                ErrnoFrom::File => "file",
            };
            data.insert("errno".to_owned(), json!(code));
            data.insert("errno-from".to_owned(), json!(from));
        }
    }
    data
}

fn status_as_data(status: Status, sense: &Sense) -> Map<String, Value> {
    let mut data = Map::new();
    data.insert("status".to_owned(), json!(status.to_string()));
    if let Some(code) = sense.code() {
        data.insert("sense".to_owned(), json!(code.to_string()));
        data.insert("sense-key".to_owned(), json!(code.key.name()));
        if let Some(words) = sense::describe(code) {
            data.insert("sense-text".to_owned(), json!(words));
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Blocks, Identity, MapSlot};
    use crate::mpath::classify::PathVerdict;
    use crate::mpath::effect::Change;
    use crate::scsi::cdb::Cdb;
    use crate::scsi::sense::{Key, SenseCode};

    fn judged(completion: Completion) -> Cause {
        Cause::Io(IoReason::Judged {
            rule: "some-rule",
            verdict: PathVerdict::Fail,
            op: Op::Read(Extent::new(2048, 8)),
            completion,
        })
    }

    fn check_condition(code: SenseCode) -> Completion {
        let (status, host) = (Status::CHECK_CONDITION, HostByte::OK);
        Completion::Scsi { status, host, sense: Sense::fixed(code), residual: 0 }
    }

    #[test]
    fn a_failed_path_is_told_with_command_host_byte_and_rule() {
        let completion = Completion::Scsi {
            status: Status::GOOD,
            host: HostByte::NO_CONNECT,
            sense: Sense::EMPTY,
            residual: 4096,
        };
        let change =
            Change::PathFailed { path: "sdb".to_owned(), cause: judged(completion), left: 1 };
        let notice = of_change(&change);
        assert_eq!(
            notice.text,
            "path sdb failed: READ of 8 blocks at 2048: host byte DID_NO_CONNECT \
             (rule some-rule); 1 left"
        );
        let cause = &notice.data["cause"];
        assert_eq!(cause["host"], "DID_NO_CONNECT");
        assert_eq!((&cause["lba"], &cause["blocks"]), (&json!(2048), &json!(8)));
        assert_eq!(cause["command"], "READ");
    }

    #[test]
    fn sense_is_decoded_in_words_and_data() {
        let cause = judged(check_condition(SenseCode::new(Key::NotReady, 0x04, 0x0b)));
        assert!(cause_in_words(&cause).contains("standby state"), "{}", cause_in_words(&cause));
        let data = cause_as_data(&cause);
        assert_eq!(data["sense"], "02/04/0b");
        assert_eq!(data["sense-key"], "NOT READY");
        assert!(data["sense-text"].as_str().is_some_and(|text| text.contains("standby")));
    }

    #[test]
    fn another_lu_and_another_size_are_told_apart() {
        let identity = |wwid: &str, blocks| Identity {
            wwid: wwid.to_owned(),
            capacity: Blocks(blocks),
            block_size: 512,
        };
        let mismatch =
            |expected, found| cause_in_words(&Cause::IdentityMismatch { expected, found });
        let other = mismatch(identity("3aa", 8), identity("3bb", 8));
        assert!(other.contains("WWID 3bb, not 3aa"), "{other}");
        let size = mismatch(identity("3aa", 8), identity("3aa", 9));
        assert!(size.contains("9 blocks of 512 bytes, not 8"), "{size}");
    }

    #[test]
    fn a_refused_command_is_told_with_the_word_that_allows_it() {
        let cdb = |bytes: &[u8]| Cdb::from_bytes(bytes).unwrap();
        let format = Denied {
            map: MapSlot(0),
            cdb: cdb(&[0x04, 0x10, 0, 0, 0, 0]),
            group: Group::FormatUnit.name(),
        };
        let notice = of_denied(&format, true);
        assert_eq!(
            notice.text,
            "the guest's FORMAT UNIT (04 10 00 00 00 00) was refused: group format-unit is \
             denied; --allow format-unit, or allow=format-unit in its --lun, lets it pass"
        );
        assert_eq!(notice.data["group"], "format-unit");
        let reserve =
            Denied { cdb: cdb(&[0x16, 0, 0, 0, 0, 0]), group: Group::Reserve.name(), ..format };
        assert!(!of_denied(&reserve, true).text.contains("--allow"));
        assert!(of_denied(&reserve, false).text.contains("--allow reserve"));
    }

    #[test]
    fn another_hosts_reservation_is_an_event_of_its_own() {
        let error = |outcome| GuestError {
            op: Op::Write { extent: Extent::new(1, 2), fua: false },
            outcome,
            rule: "some-rule",
            path: None,
            tries: 1,
        };
        let (sense, residual) = (Sense::EMPTY, 0);
        let lu = |status| Outcome::Lu { status, sense, residual };
        for outcome in [lu(Status::RESERVATION_CONFLICT), Outcome::Host(libc::EBADE)] {
            let notice = of_guest_error(&error(outcome), None);
            assert_eq!(notice.name, "RESERVATION_CONFLICT");
            assert!(notice.text.contains("another host"), "{}", notice.text);
            let reason = notice.data["reason"].as_str().expect("a reason");
            assert!(reason.starts_with("RESERVATION CONFLICT"), "{reason}");
            assert_eq!(notice.data["lba"], 1);
        }
        for outcome in [lu(Status::BUSY), Outcome::Host(libc::EIO), Outcome::NoPath] {
            assert_eq!(of_guest_error(&error(outcome), None).name, "GUEST_IO_ERROR");
        }
    }

    #[test]
    fn a_guest_error_names_what_how_and_where() {
        let error = GuestError {
            op: Op::Write { extent: Extent::new(1, 2), fua: false },
            outcome: Outcome::Lu {
                status: Status::CHECK_CONDITION,
                sense: Sense::fixed(SenseCode::new(Key::MediumError, 0x11, 0x00)),
                residual: 0,
            },
            rule: "medium",
            path: None,
            tries: 3,
        };
        let notice = of_guest_error(&error, Some("sdc"));
        assert_eq!(notice.level, Level::Error);
        for word in ["WRITE of 2 blocks at 1", "03/11/00", "rule medium", "3 tries", "path sdc"] {
            assert!(notice.text.contains(word), "{word} is not in: {}", notice.text);
        }
        assert_eq!(notice.data["sense-text"], "Unrecovered read error");
        assert_eq!(notice.data["status"], "CHECK CONDITION");
    }
}
