//! `vhost-mpath ctl sim PATH …`: faults of the simulated array, as words of the
//! command line.
//!
//! Only words: what the daemon is asked for is checked there again
//! (`control::sim_fault`), what it does is in `sim`.

use clap::builder::{PossibleValuesParser, RangedI64ValueParser};
use clap::{ArgAction, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::host::parse_size;
use crate::sim::{
    ACCESS_STATES, DeviceState, RESERVATION_TYPES, Upgrade, host_byte, reservation_key, sense_code,
};

/// A verb behind `sim PATH`.
#[derive(Debug, Subcommand)]
pub(super) enum Fault {
    /// Pull the cable: what is under way ends, what comes later fails at once.
    Cut {
        /// What becomes of the commands under way.
        #[arg(value_enum, default_value_t = Mode::Before)]
        mode: Mode,
    },
    /// Pull the cable of an array that ends no command: writes under way are done all the same, later.
    LateCut {
        /// After so long, whatever was written meanwhile.
        milliseconds: u32,
    },
    /// End every fault of the path.
    Plug,
    /// Lose every frame: commands end at their timeout.
    Hang,
    /// Add to every command's time.
    Delay {
        /// Milliseconds; 0 ends it.
        milliseconds: u32,
    },
    /// Answer with this sense.
    Sense {
        /// Key/ASC/ASCQ in hexadecimal, such as 02/04/0b.
        #[arg(value_parser = checked_sense)]
        code: String,
        /// To so many commands; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// End with this host byte.
    HostByte {
        /// Its number, or its name without DID_, such as no-connect.
        #[arg(value_parser = checked_host)]
        host: u8,
        /// So many commands; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Answer BUSY.
    Busy {
        /// To so many commands; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Answer TASK SET FULL.
    TaskSetFull {
        /// To so many commands; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Answer I/O with this sense, and everything else (TEST UNIT READY) as if nothing were wrong.
    IoSense {
        /// Key/ASC/ASCQ in hexadecimal, such as 04/44/00.
        #[arg(value_parser = checked_sense)]
        code: String,
        /// To so many commands; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// The same with a host byte.
    IoHostByte {
        /// Its number, or its name without DID_, such as error.
        #[arg(value_parser = checked_host)]
        host: u8,
        /// So many commands; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Say that the port is marginal: DID_TRANSPORT_MARGINAL.
    Marginal {
        /// To so many commands; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Refuse MODE SELECT and SET TARGET PORT GROUPS with this sense.
    ActivationSense {
        /// Key/ASC/ASCQ in hexadecimal, such as 05/91/36.
        #[arg(value_parser = checked_sense)]
        code: String,
        /// So many times; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Let another host, behind no path of this daemon, register with the unit, reserve or preempt it.
    Reservation {
        #[command(subcommand)]
        action: Foreign,
    },
    /// Answer PERSISTENT RESERVE OUT with this sense.
    ReserveSense {
        /// Key/ASC/ASCQ in hexadecimal, such as 02/04/0b.
        #[arg(value_parser = checked_sense)]
        code: String,
        /// So many times; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// End PERSISTENT RESERVE OUT with this host byte, not executed.
    ReserveHostByte {
        /// Its number, or its name without DID_, such as transport-disrupted.
        #[arg(value_parser = checked_host)]
        host: u8,
        /// So many times; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Answer PERSISTENT RESERVE OUT with RESERVATION CONFLICT.
    ReserveConflict {
        /// So many times; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Execute PERSISTENT RESERVE OUT and lose its status.
    ReserveStatusLost {
        /// So many times; 0: until plugged.
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Have the array forget that the path is registered.
    ForgetRegistration,
    /// Have the array lose all that it knows of the unit's reservations; nobody is told.
    LoseReservations,
    /// Have a registration wait so long when another is under way.
    RegisterStall {
        /// Milliseconds; 0 ends it.
        milliseconds: u32,
    },
    /// Have one registration count for all target ports, as arrays do that want ALL_TG_PT.
    PerInitiator {
        /// Or no longer.
        #[arg(default_value_t = true, action = ArgAction::Set, value_name = "true|false")]
        enabled: bool,
    },
    /// Have the unit tell every unit attention before RESERVATION CONFLICT.
    AttentionsFirst {
        /// Or no longer.
        #[arg(default_value_t = true, action = ArgAction::Set, value_name = "true|false")]
        enabled: bool,
    },
    /// Take the array's power and give it back: registrations without APTPL are gone.
    PowerLoss,
    /// Say what sysfs would say of the path: blocked holds commands back, offline ends them.
    Device {
        /// The state.
        #[arg(value_parser = words(&DeviceState::NAMES))]
        state: String,
    },
    /// Make blocks of the unit bad: 03/11/00 for reads, 03/0c/00 for writes.
    MediumError {
        /// The first.
        lba: u64,
        /// How many.
        #[arg(default_value_t = 1)]
        blocks: u64,
    },
    /// Make the unit's bad blocks good again.
    Mend,
    /// Change the access state of the path's target port group.
    Alua {
        /// The new state.
        #[arg(value_parser = words(&ACCESS_STATES))]
        state: String,
        /// Be in transition for so long before.
        #[arg(default_value_t = 0)]
        milliseconds: u32,
    },
    /// Try to change that state, and fail.
    AluaFails {
        /// Be in transition for so long before.
        #[arg(default_value_t = 0)]
        milliseconds: u32,
    },
    /// How long the array takes for a state or an owner that is asked for.
    Transition {
        /// Milliseconds; 0 at first.
        milliseconds: u32,
    },
    /// Give the unit to the path's controller, as if another host had asked for it.
    TakeOwnership,
    /// Take down the path's controller, with every path of its target port group; the others take over.
    ControllerDown {
        /// After so long.
        #[arg(default_value_t = 0)]
        milliseconds: u32,
    },
    /// Bring it up again.
    ControllerUp,
    /// Upgrade the array's firmware.
    Upgrade {
        /// What the paths answer: BUSY, 02/04/01, or nothing.
        #[arg(value_parser = words(&Upgrade::NAMES))]
        how: String,
        /// For so long; 0 ends it.
        milliseconds: u32,
    },
    /// Mark the path's target port group as preferred.
    Prefer {
        /// Or no longer.
        #[arg(default_value_t = true, action = ArgAction::Set, value_name = "true|false")]
        preferred: bool,
    },
    /// Reset the unit: every command of every path ends, not executed.
    LuReset,
    /// Lead the path to another unit, until plugged.
    Remap,
    /// Lead the path to no unit, until plugged.
    UnmapLun,
    /// Make the unit, and its image, larger or smaller.
    Capacity {
        /// Such as 2G, or `grow`: to twice what it is.
        #[arg(value_parser = checked_capacity)]
        size: Capacity,
    },
}

/// What another host does about the unit's reservation, with the key that it has registered.
#[derive(Debug, Subcommand)]
pub(super) enum Foreign {
    /// Register a key, or another one.
    Register {
        /// In hexadecimal; 0: unregister.
        #[arg(value_parser = checked_key)]
        key: String,
        /// Which host.
        #[arg(default_value_t = 1, value_parser = host())]
        host: u16,
    },
    /// Reserve the unit.
    Reserve {
        /// How.
        #[arg(value_name = "TYPE", value_parser = words(&RESERVATION_TYPES))]
        kind: String,
        /// Which host.
        #[arg(default_value_t = 1, value_parser = host())]
        host: u16,
    },
    /// Release it.
    Release {
        /// Which host.
        #[arg(default_value_t = 1, value_parser = host())]
        host: u16,
    },
    /// Remove the reservation and every registration.
    Clear {
        /// Which host.
        #[arg(default_value_t = 1, value_parser = host())]
        host: u16,
    },
    /// Remove the registrations of a key, and take over what they hold.
    Preempt {
        /// In hexadecimal.
        #[arg(value_parser = checked_key)]
        key: String,
        /// How to hold the unit then.
        #[arg(value_name = "TYPE", value_parser = words(&RESERVATION_TYPES))]
        kind: String,
        /// Which host.
        #[arg(default_value_t = 1, value_parser = host())]
        host: u16,
    },
    /// The same, and abort their commands.
    PreemptAbort {
        /// In hexadecimal.
        #[arg(value_parser = checked_key)]
        key: String,
        /// How to hold the unit then.
        #[arg(value_name = "TYPE", value_parser = words(&RESERVATION_TYPES))]
        kind: String,
        /// Which host.
        #[arg(default_value_t = 1, value_parser = host())]
        host: u16,
    },
}

impl Foreign {
    fn arguments(&self) -> Value {
        let (action, host) = match self {
            Foreign::Register { host, .. } => ("register", host),
            Foreign::Reserve { host, .. } => ("reserve", host),
            Foreign::Release { host } => ("release", host),
            Foreign::Clear { host } => ("clear", host),
            Foreign::Preempt { host, .. } => ("preempt", host),
            Foreign::PreemptAbort { host, .. } => ("preempt-abort", host),
        };
        let mut arguments = json!({ "fault": "reservation", "action": action, "initiator": host });
        match self {
            Foreign::Register { key, .. } => arguments["key"] = json!(key),
            Foreign::Reserve { kind, .. } => arguments["type"] = json!(kind),
            Foreign::Release { .. } | Foreign::Clear { .. } => {}
            Foreign::Preempt { key, kind, .. } | Foreign::PreemptAbort { key, kind, .. } => {
                arguments["key"] = json!(key);
                arguments["type"] = json!(kind);
            }
        }
        arguments
    }
}

/// A new capacity in bytes; none: it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity(Option<u64>);

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Mode {
    /// They were not executed.
    Before,
    /// They were executed, their status is lost.
    StatusLost,
    /// Half the blocks of writes were written.
    Half,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Before => "before",
            Mode::StatusLost => "status-lost",
            Mode::Half => "half",
        }
    }
}

fn checked_sense(text: &str) -> Result<String, String> {
    let words = "give key, ASC and ASCQ in hexadecimal, such as 02/04/0b";
    sense_code(text).map(|_| text.to_owned()).ok_or_else(|| words.to_owned())
}

/// `no-connect`, `DID_NO_CONNECT`, `1` or `0x1`.
fn checked_host(text: &str) -> Result<u8, String> {
    let host = host_byte(text).map(|host| host.0);
    host.ok_or_else(|| "give a number or a name such as no-connect".to_owned())
}

/// Other hosts; 0 is this one.
fn host() -> RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

fn checked_key(text: &str) -> Result<String, String> {
    let words = "give the key in hexadecimal, such as 0x1a2b";
    reservation_key(text).map(|_| text.to_owned()).ok_or_else(|| words.to_owned())
}

fn words<T>(names: &[(T, &'static str)]) -> PossibleValuesParser {
    PossibleValuesParser::new(names.iter().map(|(_, name)| *name))
}

fn checked_capacity(text: &str) -> Result<Capacity, String> {
    if text == "grow" {
        return Ok(Capacity(None));
    }
    parse_size(text).map(|bytes| Capacity(Some(bytes))).map_err(|error| error.to_string())
}

/// What `sim-fault` is given.
pub(super) fn fault_arguments(path: &str, fault: &Fault) -> Value {
    let mut arguments = match fault {
        Fault::Cut { mode } => json!({ "fault": "cut", "mode": mode.name() }),
        Fault::LateCut { milliseconds } => timed("late-cut", *milliseconds),
        Fault::IoSense { code, count } => {
            json!({ "fault": "io-sense", "sense": code, "count": count })
        }
        Fault::IoHostByte { host, count } => {
            json!({ "fault": "io-host-byte", "host": host, "count": count })
        }
        Fault::Marginal { count } => json!({ "fault": "marginal", "count": count }),
        Fault::ActivationSense { code, count } => {
            json!({ "fault": "activation-sense", "sense": code, "count": count })
        }
        Fault::Reservation { action } => action.arguments(),
        Fault::ReserveSense { code, count } => {
            json!({ "fault": "reserve-sense", "sense": code, "count": count })
        }
        Fault::ReserveHostByte { host, count } => {
            json!({ "fault": "reserve-host-byte", "host": host, "count": count })
        }
        Fault::ReserveConflict { count } => {
            json!({ "fault": "reserve-conflict", "count": count })
        }
        Fault::ReserveStatusLost { count } => {
            json!({ "fault": "reserve-status-lost", "count": count })
        }
        Fault::ForgetRegistration => json!({ "fault": "forget-registration" }),
        Fault::LoseReservations => json!({ "fault": "lose-reservations" }),
        Fault::RegisterStall { milliseconds } => timed("register-stall", *milliseconds),
        Fault::PerInitiator { enabled } => {
            json!({ "fault": "per-initiator", "enabled": enabled })
        }
        Fault::AttentionsFirst { enabled } => {
            json!({ "fault": "attentions-first", "enabled": enabled })
        }
        Fault::PowerLoss => json!({ "fault": "power-loss" }),
        Fault::Device { state } => json!({ "fault": "device", "state": state }),
        Fault::AluaFails { milliseconds } => timed("alua-fails", *milliseconds),
        Fault::Transition { milliseconds } => timed("transition", *milliseconds),
        Fault::TakeOwnership => json!({ "fault": "take-ownership" }),
        Fault::ControllerDown { milliseconds } => timed("controller-down", *milliseconds),
        Fault::ControllerUp => json!({ "fault": "controller-up" }),
        Fault::Upgrade { how, milliseconds } => {
            json!({ "fault": "upgrade", "how": how, "milliseconds": milliseconds })
        }
        Fault::Plug => json!({ "fault": "plug" }),
        Fault::Hang => json!({ "fault": "hang" }),
        Fault::Delay { milliseconds } => timed("delay", *milliseconds),
        Fault::Sense { code, count } => json!({ "fault": "sense", "sense": code, "count": count }),
        Fault::HostByte { host, count } => {
            json!({ "fault": "host-byte", "host": host, "count": count })
        }
        Fault::Busy { count } => json!({ "fault": "busy", "count": count }),
        Fault::TaskSetFull { count } => json!({ "fault": "task-set-full", "count": count }),
        Fault::MediumError { lba, blocks } => {
            json!({ "fault": "medium-error", "lba": lba, "blocks": blocks })
        }
        Fault::Mend => json!({ "fault": "mend" }),
        Fault::Alua { state, milliseconds } => {
            json!({ "fault": "alua", "state": state, "milliseconds": milliseconds })
        }
        Fault::Prefer { preferred } => json!({ "fault": "prefer", "preferred": preferred }),
        Fault::LuReset => json!({ "fault": "lu-reset" }),
        Fault::Remap => json!({ "fault": "remap" }),
        Fault::UnmapLun => json!({ "fault": "unmap-lun" }),
        Fault::Capacity { size: Capacity(None) } => json!({ "fault": "capacity" }),
        Fault::Capacity { size: Capacity(Some(bytes)) } => {
            json!({ "fault": "capacity", "bytes": bytes })
        }
    };
    arguments["path"] = json!(path);
    arguments
}

/// The same for a fault in words.
pub(super) fn arguments_of(path: &str, words: &str) -> Result<Value, String> {
    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        fault: Fault,
    }
    let words = std::iter::once("sim").chain(words.split_whitespace());
    let line = <Line as clap::Parser>::try_parse_from(words).map_err(|error| error.to_string())?;
    Ok(fault_arguments(path, &line.fault))
}

fn timed(fault: &str, milliseconds: u32) -> Value {
    json!({ "fault": fault, "milliseconds": milliseconds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::sim_fault::SimFault;
    use crate::sim;

    #[test]
    fn faults_become_the_daemons_arguments() {
        let sense = Fault::Sense { code: "03/11/00".to_owned(), count: 2 };
        assert_eq!(
            fault_arguments("sim0", &sense),
            json!({ "path": "sim0", "fault": "sense", "sense": "03/11/00", "count": 2 })
        );
        let cut = Fault::Cut { mode: Mode::StatusLost };
        assert_eq!(fault_arguments("sim0", &cut)["mode"], "status-lost");
        let grow = Fault::Capacity { size: checked_capacity("grow").unwrap() };
        assert_eq!(fault_arguments("sim0", &grow), json!({ "path": "sim0", "fault": "capacity" }));
    }

    #[test]
    fn faults_are_read_as_they_are_documented() {
        let given = |words: &str| arguments_of("p", words);
        for (words, wanted) in [
            ("host-byte no-connect", json!({ "fault": "host-byte", "host": 1, "count": 1 })),
            ("host-byte 0x0e 0", json!({ "fault": "host-byte", "host": 14, "count": 0 })),
            ("busy 3", json!({ "fault": "busy", "count": 3 })),
            ("task-set-full", json!({ "fault": "task-set-full", "count": 1 })),
            ("medium-error 7 2", json!({ "fault": "medium-error", "lba": 7, "blocks": 2 })),
            ("alua standby 50", json!({ "fault": "alua", "state": "standby", "milliseconds": 50 })),
            ("prefer", json!({ "fault": "prefer", "preferred": true })),
            ("prefer false", json!({ "fault": "prefer", "preferred": false })),
            ("late-cut 9", json!({ "fault": "late-cut", "milliseconds": 9 })),
            ("io-sense 4/44/0 0", json!({ "fault": "io-sense", "sense": "4/44/0", "count": 0 })),
            ("io-host-byte error", json!({ "fault": "io-host-byte", "host": 7, "count": 1 })),
            ("marginal 3", json!({ "fault": "marginal", "count": 3 })),
            (
                "activation-sense 5/91/36",
                json!({ "fault": "activation-sense", "sense": "5/91/36", "count": 1 }),
            ),
            ("device blocked", json!({ "fault": "device", "state": "blocked" })),
            ("alua-fails", json!({ "fault": "alua-fails", "milliseconds": 0 })),
            ("transition 5", json!({ "fault": "transition", "milliseconds": 5 })),
            ("take-ownership", json!({ "fault": "take-ownership" })),
            ("controller-down 5", json!({ "fault": "controller-down", "milliseconds": 5 })),
            ("controller-up", json!({ "fault": "controller-up" })),
            ("upgrade gone 5", json!({ "fault": "upgrade", "how": "gone", "milliseconds": 5 })),
            (
                "reservation register 0xab",
                json!({
                    "fault": "reservation", "action": "register", "key": "0xab", "initiator": 1
                }),
            ),
            (
                "reservation reserve write-exclusive 2",
                json!({
                    "fault": "reservation", "action": "reserve", "type": "write-exclusive",
                    "initiator": 2
                }),
            ),
            (
                "reservation release",
                json!({ "fault": "reservation", "action": "release", "initiator": 1 }),
            ),
            (
                "reservation clear",
                json!({ "fault": "reservation", "action": "clear", "initiator": 1 }),
            ),
            (
                "reservation preempt-abort ab exclusive-access-all-registrants",
                json!({
                    "fault": "reservation", "action": "preempt-abort", "key": "ab",
                    "type": "exclusive-access-all-registrants", "initiator": 1
                }),
            ),
            (
                "reservation preempt 0 write-exclusive-registrants-only 65535",
                json!({
                    "fault": "reservation", "action": "preempt", "key": "0",
                    "type": "write-exclusive-registrants-only", "initiator": 65535
                }),
            ),
            (
                "reserve-sense 2/4/b",
                json!({ "fault": "reserve-sense", "sense": "2/4/b", "count": 1 }),
            ),
            (
                "reserve-host-byte no-connect 2",
                json!({ "fault": "reserve-host-byte", "host": 1, "count": 2 }),
            ),
            ("reserve-conflict", json!({ "fault": "reserve-conflict", "count": 1 })),
            ("reserve-status-lost 0", json!({ "fault": "reserve-status-lost", "count": 0 })),
            ("forget-registration", json!({ "fault": "forget-registration" })),
            ("lose-reservations", json!({ "fault": "lose-reservations" })),
            ("register-stall 5000", json!({ "fault": "register-stall", "milliseconds": 5000 })),
            ("per-initiator", json!({ "fault": "per-initiator", "enabled": true })),
            ("per-initiator false", json!({ "fault": "per-initiator", "enabled": false })),
            ("attentions-first", json!({ "fault": "attentions-first", "enabled": true })),
            ("power-loss", json!({ "fault": "power-loss" })),
            ("capacity 1M", json!({ "fault": "capacity", "bytes": 1 << 20 })),
        ] {
            let mut wanted = wanted;
            wanted["path"] = json!("p");
            assert_eq!(given(words), Ok(wanted.clone()));
            // The daemon understands it.
            let fault: SimFault = serde_json::from_value(wanted).unwrap();
            // So does whoever reads a scenario.
            let fault = fault.fault().expect(words);
            assert_eq!(Ok(fault), sim::Fault::from_words(words), "{words}");
        }
        assert!(given("alua up").unwrap_err().contains("active-non-optimized"));
        assert!(given("device on").unwrap_err().contains("blocked"));
        assert!(given("upgrade soon 5").unwrap_err().contains("becoming-ready"));
        assert!(given("host-byte maybe").unwrap_err().contains("no-connect"));
        assert!(given("reservation register much").unwrap_err().contains("hexadecimal"));
        assert!(given("reservation reserve 5").unwrap_err().contains("write-exclusive"));
        assert!(given("reservation release 0").unwrap_err().contains("1..=65535"));
        assert!(given("reservation move 1").unwrap_err().contains("'move'"));
        assert!(given("capacity much").unwrap_err().contains("is no size"));
    }
}
