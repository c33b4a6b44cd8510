//! The arguments of `sim-fault`: which fault of the simulated array they mean.
//!
//! Words only; injecting the fault is the path's work.

use std::time::Duration;

use serde::Deserialize;

use super::qmp::QmpError;
use crate::scsi::reservation::{Key, Type};
use crate::scsi::sense::SenseCode;
use crate::scsi::status::HostByte;
use crate::sim::{
    ACCESS_STATES, CutMode, DeviceState, Fault, Foreign, NewCapacity, RESERVATION_TYPES,
    ReserveEnd, Upgrade, reservation_key, sense_code,
};

/// As a client gives them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SimFault {
    pub(super) path: String,
    pub(super) fault: FaultName,
    mode: Option<CutName>,
    milliseconds: Option<u32>,
    sense: Option<String>,
    host: Option<u8>,
    count: Option<u32>,
    lba: Option<u64>,
    blocks: Option<u64>,
    state: Option<String>,
    how: Option<String>,
    preferred: Option<bool>,
    bytes: Option<u64>,
    enabled: Option<bool>,
    action: Option<ForeignName>,
    key: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    initiator: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FaultName {
    Cut,
    Plug,
    Hang,
    Delay,
    Sense,
    HostByte,
    Busy,
    TaskSetFull,
    MediumError,
    Mend,
    Alua,
    Prefer,
    LuReset,
    Remap,
    UnmapLun,
    Capacity,
    LateCut,
    IoSense,
    IoHostByte,
    Marginal,
    ActivationSense,
    Device,
    ControllerDown,
    ControllerUp,
    Upgrade,
    AluaFails,
    TakeOwnership,
    Transition,
    Reservation,
    ReserveSense,
    ReserveHostByte,
    ReserveConflict,
    ReserveStatusLost,
    ForgetRegistration,
    LoseReservations,
    RegisterStall,
    PerInitiator,
    AttentionsFirst,
    PowerLoss,
}

/// What another host does about a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ForeignName {
    Register,
    Reserve,
    Release,
    Clear,
    Preempt,
    PreemptAbort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CutName {
    Before,
    StatusLost,
    Half,
}

impl FaultName {
    /// The arguments that belong to the fault.
    fn takes(self) -> &'static [&'static str] {
        match self {
            FaultName::Cut => &["mode"],
            FaultName::Plug
            | FaultName::Hang
            | FaultName::Mend
            | FaultName::LuReset
            | FaultName::Remap
            | FaultName::UnmapLun
            | FaultName::ControllerUp
            | FaultName::TakeOwnership
            | FaultName::ForgetRegistration
            | FaultName::LoseReservations
            | FaultName::PowerLoss => &[],
            FaultName::Delay
            | FaultName::LateCut
            | FaultName::ControllerDown
            | FaultName::AluaFails
            | FaultName::RegisterStall
            | FaultName::Transition => &["milliseconds"],
            FaultName::Upgrade => &["how", "milliseconds"],
            FaultName::Device => &["state"],
            FaultName::Sense
            | FaultName::IoSense
            | FaultName::ActivationSense
            | FaultName::ReserveSense => &["sense", "count"],
            FaultName::HostByte | FaultName::IoHostByte | FaultName::ReserveHostByte => {
                &["host", "count"]
            }
            FaultName::Busy
            | FaultName::TaskSetFull
            | FaultName::Marginal
            | FaultName::ReserveConflict
            | FaultName::ReserveStatusLost => &["count"],
            FaultName::PerInitiator | FaultName::AttentionsFirst => &["enabled"],
            FaultName::Reservation => &["action", "key", "type", "initiator"],
            FaultName::MediumError => &["lba", "blocks"],
            FaultName::Alua => &["state", "milliseconds"],
            FaultName::Prefer => &["preferred"],
            FaultName::Capacity => &["bytes"],
        }
    }
}

impl SimFault {
    /// The fault asked for; what does not belong to it is refused.
    pub(super) fn fault(&self) -> Result<Fault, QmpError> {
        self.only_what_belongs()?;
        let count = self.count.unwrap_or(1);
        let milliseconds = |ms: u32| Duration::from_millis(ms.into());
        let needs_time = || needed("milliseconds", self.milliseconds).map(milliseconds);
        let time_or_none = milliseconds(self.milliseconds.unwrap_or(0));
        Ok(match self.fault {
            FaultName::Cut => Fault::Cut(match self.mode.unwrap_or(CutName::Before) {
                CutName::Before => CutMode::Before,
                CutName::StatusLost => CutMode::StatusLost,
                CutName::Half => CutMode::Half,
            }),
            FaultName::Plug => Fault::Plug,
            FaultName::Hang => Fault::Hang,
            FaultName::Delay => Fault::Delay(needs_time()?),
            FaultName::Sense => Fault::Sense { code: self.sense_code()?, count },
            FaultName::HostByte => Fault::HostByte { host: self.host_byte()?, count },
            FaultName::Busy => Fault::Busy { count },
            FaultName::TaskSetFull => Fault::TaskSetFull { count },
            FaultName::MediumError => {
                let lba = needed("lba", self.lba)?;
                Fault::MediumError { lba, blocks: self.blocks.unwrap_or(1) }
            }
            FaultName::Mend => Fault::Mend,
            FaultName::Alua => Fault::Alua {
                state: self.word("access state", &ACCESS_STATES)?,
                transition: time_or_none,
            },
            FaultName::Prefer => Fault::Prefer(self.preferred.unwrap_or(true)),
            FaultName::LuReset => Fault::LuReset,
            FaultName::Remap => Fault::Remap,
            FaultName::UnmapLun => Fault::UnmapLun,
            FaultName::Capacity => {
                Fault::Capacity(self.bytes.map_or(NewCapacity::Grow, NewCapacity::Bytes))
            }
            FaultName::LateCut => Fault::LateCut(needs_time()?),
            FaultName::IoSense => Fault::IoSense { code: self.sense_code()?, count },
            FaultName::IoHostByte => Fault::IoHostByte { host: self.host_byte()?, count },
            FaultName::Marginal => Fault::HostByte { host: HostByte::TRANSPORT_MARGINAL, count },
            FaultName::ActivationSense => {
                Fault::ActivationSense { code: self.sense_code()?, count }
            }
            FaultName::Device => Fault::Device(self.word("device state", &DeviceState::NAMES)?),
            FaultName::ControllerDown => Fault::ControllerDown { takeover: time_or_none },
            FaultName::ControllerUp => Fault::ControllerUp,
            FaultName::Upgrade => {
                let how = needed("how", self.how.as_deref())?;
                Fault::Upgrade {
                    how: named("kind of upgrade", how, &Upgrade::NAMES)?,
                    lasting: needs_time()?,
                }
            }
            FaultName::AluaFails => Fault::AluaFails { transition: time_or_none },
            FaultName::TakeOwnership => Fault::TakeOwnership,
            FaultName::Transition => Fault::Transition(needs_time()?),
            FaultName::Reservation => {
                Fault::Foreign { host: self.other_host()?, order: self.foreign()? }
            }
            FaultName::ReserveSense => {
                Fault::ReserveFails { end: ReserveEnd::Sense(self.sense_code()?), count }
            }
            FaultName::ReserveHostByte => {
                Fault::ReserveFails { end: ReserveEnd::HostByte(self.host_byte()?), count }
            }
            FaultName::ReserveConflict => Fault::ReserveFails { end: ReserveEnd::Conflict, count },
            FaultName::ReserveStatusLost => {
                Fault::ReserveFails { end: ReserveEnd::StatusLost, count }
            }
            FaultName::ForgetRegistration => Fault::ForgetRegistration,
            FaultName::LoseReservations => Fault::LoseReservations,
            FaultName::RegisterStall => Fault::RegisterStall(needs_time()?),
            FaultName::PerInitiator => Fault::PerInitiator(self.enabled.unwrap_or(true)),
            FaultName::AttentionsFirst => Fault::AttentionsFirst(self.enabled.unwrap_or(true)),
            FaultName::PowerLoss => Fault::PowerLoss,
        })
    }

    /// What another host is to do.
    fn foreign(&self) -> Result<Foreign, QmpError> {
        let action = needed("action", self.action)?;
        let takes: &[&str] = match action {
            ForeignName::Register => &["key"],
            ForeignName::Reserve => &["type"],
            ForeignName::Release | ForeignName::Clear => &[],
            ForeignName::Preempt | ForeignName::PreemptAbort => &["key", "type"],
        };
        for (name, there) in [("key", self.key.is_some()), ("type", self.kind.is_some())] {
            if there && !takes.contains(&name) {
                let desc = format!("argument '{name}' does not belong to this action");
                return Err(QmpError::generic(desc));
            }
        }
        Ok(match action {
            ForeignName::Register => Foreign::Register(self.key()?),
            ForeignName::Reserve => Foreign::Reserve(self.kind()?),
            ForeignName::Release => Foreign::Release,
            ForeignName::Clear => Foreign::Clear,
            ForeignName::Preempt | ForeignName::PreemptAbort => {
                let abort = action == ForeignName::PreemptAbort;
                Foreign::Preempt { victim: self.key()?, kind: self.kind()?, abort }
            }
        })
    }

    /// Which one; 0 is this host.
    fn other_host(&self) -> Result<u16, QmpError> {
        let host = Some(self.initiator.unwrap_or(1)).filter(|host| *host != 0);
        host.ok_or_else(|| QmpError::generic("other hosts are numbered from 1".to_owned()))
    }

    fn key(&self) -> Result<Key, QmpError> {
        let text = needed("key", self.key.as_deref())?;
        reservation_key(text).ok_or_else(|| {
            let desc = format!("'{text}' is no reservation key; write it in hexadecimal: 0x1a2b");
            QmpError::generic(desc)
        })
    }

    fn kind(&self) -> Result<Type, QmpError> {
        named("type of reservation", needed("type", self.kind.as_deref())?, &RESERVATION_TYPES)
    }

    fn only_what_belongs(&self) -> Result<(), QmpError> {
        let there = [
            ("mode", self.mode.is_some()),
            ("milliseconds", self.milliseconds.is_some()),
            ("sense", self.sense.is_some()),
            ("host", self.host.is_some()),
            ("count", self.count.is_some()),
            ("lba", self.lba.is_some()),
            ("blocks", self.blocks.is_some()),
            ("state", self.state.is_some()),
            ("how", self.how.is_some()),
            ("preferred", self.preferred.is_some()),
            ("bytes", self.bytes.is_some()),
            ("enabled", self.enabled.is_some()),
            ("action", self.action.is_some()),
            ("key", self.key.is_some()),
            ("type", self.kind.is_some()),
            ("initiator", self.initiator.is_some()),
        ];
        let taken = self.fault.takes();
        match there.iter().find(|(name, there)| *there && !taken.contains(name)) {
            None => Ok(()),
            Some((name, _)) => {
                let desc = format!("argument '{name}' does not belong to this fault");
                Err(QmpError::generic(desc))
            }
        }
    }

    fn sense_code(&self) -> Result<SenseCode, QmpError> {
        let text = needed("sense", self.sense.as_deref())?;
        sense_code(text).ok_or_else(|| {
            QmpError::generic(format!(
                "'{text}' is no sense code; write K/ASC/ASCQ in hexadecimal, such as 02/04/0b"
            ))
        })
    }

    fn host_byte(&self) -> Result<HostByte, QmpError> {
        needed("host", self.host).map(HostByte)
    }

    /// What `state` stands for.
    fn word<T: Copy>(&self, what: &str, names: &[(T, &str)]) -> Result<T, QmpError> {
        named(what, needed("state", self.state.as_deref())?, names)
    }
}

fn named<T: Copy>(what: &str, word: &str, names: &[(T, &str)]) -> Result<T, QmpError> {
    let found = names.iter().find(|(_, name)| *name == word);
    found.map(|(value, _)| *value).ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
        let desc = format!("'{word}' is no {what}; there are {}", known.join(", "));
        QmpError::generic(desc)
    })
}

fn needed<T>(name: &str, given: Option<T>) -> Result<T, QmpError> {
    given.ok_or_else(|| QmpError::generic(format!("argument '{name}' is missing")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::alua::AccessState;
    use crate::scsi::sense::Key;
    use serde_json::{Value, json};

    fn parse(arguments: Value) -> Result<Fault, String> {
        let given: SimFault = serde_json::from_value(arguments).map_err(|e| e.to_string())?;
        given.fault().map_err(|e| format!("{e:?}"))
    }

    #[test]
    fn every_fault_has_its_arguments() {
        let code = SenseCode::new(Key::NotReady, 0x04, 0x0b);
        let ms = Duration::from_millis;
        for (arguments, expected) in [
            (json!({"fault": "cut"}), Fault::Cut(CutMode::Before)),
            (json!({"fault": "cut", "mode": "half"}), Fault::Cut(CutMode::Half)),
            (json!({"fault": "plug"}), Fault::Plug),
            (json!({"fault": "hang"}), Fault::Hang),
            (json!({"fault": "delay", "milliseconds": 5}), Fault::Delay(ms(5))),
            (
                json!({"fault": "sense", "sense": "2/4/b", "count": 3}),
                Fault::Sense { code, count: 3 },
            ),
            (
                json!({"fault": "host-byte", "host": 1}),
                Fault::HostByte { host: HostByte::NO_CONNECT, count: 1 },
            ),
            (json!({"fault": "busy", "count": 0}), Fault::Busy { count: 0 }),
            (json!({"fault": "task-set-full"}), Fault::TaskSetFull { count: 1 }),
            (
                json!({"fault": "medium-error", "lba": 7, "blocks": 2}),
                Fault::MediumError { lba: 7, blocks: 2 },
            ),
            (json!({"fault": "medium-error", "lba": 7}), Fault::MediumError { lba: 7, blocks: 1 }),
            (json!({"fault": "mend"}), Fault::Mend),
            (
                json!({"fault": "alua", "state": "standby", "milliseconds": 9}),
                Fault::Alua { state: AccessState::Standby, transition: ms(9) },
            ),
            (json!({"fault": "prefer"}), Fault::Prefer(true)),
            (json!({"fault": "prefer", "preferred": false}), Fault::Prefer(false)),
            (json!({"fault": "lu-reset"}), Fault::LuReset),
            (json!({"fault": "remap"}), Fault::Remap),
            (json!({"fault": "unmap-lun"}), Fault::UnmapLun),
            (json!({"fault": "late-cut", "milliseconds": 9}), Fault::LateCut(ms(9))),
            (
                json!({"fault": "io-sense", "sense": "2/4/b", "count": 0}),
                Fault::IoSense { code, count: 0 },
            ),
            (
                json!({"fault": "io-host-byte", "host": 7}),
                Fault::IoHostByte { host: HostByte::ERROR, count: 1 },
            ),
            (
                json!({"fault": "marginal", "count": 2}),
                Fault::HostByte { host: HostByte::TRANSPORT_MARGINAL, count: 2 },
            ),
            (
                json!({"fault": "activation-sense", "sense": "2/4/b"}),
                Fault::ActivationSense { code, count: 1 },
            ),
            (json!({"fault": "device", "state": "blocked"}), Fault::Device(DeviceState::Blocked)),
            (json!({"fault": "controller-down"}), Fault::ControllerDown { takeover: ms(0) }),
            (
                json!({"fault": "controller-down", "milliseconds": 9}),
                Fault::ControllerDown { takeover: ms(9) },
            ),
            (json!({"fault": "controller-up"}), Fault::ControllerUp),
            (
                json!({"fault": "upgrade", "how": "gone", "milliseconds": 9}),
                Fault::Upgrade { how: Upgrade::Gone, lasting: ms(9) },
            ),
            (
                json!({"fault": "alua-fails", "milliseconds": 9}),
                Fault::AluaFails { transition: ms(9) },
            ),
            (json!({"fault": "take-ownership"}), Fault::TakeOwnership),
            (json!({"fault": "transition", "milliseconds": 9}), Fault::Transition(ms(9))),
            (
                json!({"fault": "reservation", "action": "register", "key": "0xab"}),
                Fault::Foreign { host: 1, order: Foreign::Register(Key(0xab)) },
            ),
            (
                json!({
                    "fault": "reservation", "action": "preempt-abort", "key": "12",
                    "type": "exclusive-access", "initiator": 3
                }),
                Fault::Foreign {
                    host: 3,
                    order: Foreign::Preempt {
                        victim: Key(0x12),
                        kind: Type::ExclusiveAccess,
                        abort: true,
                    },
                },
            ),
            (
                json!({"fault": "reservation", "action": "release"}),
                Fault::Foreign { host: 1, order: Foreign::Release },
            ),
            (
                json!({"fault": "reserve-sense", "sense": "2/4/b"}),
                Fault::ReserveFails { end: ReserveEnd::Sense(code), count: 1 },
            ),
            (
                json!({"fault": "reserve-status-lost", "count": 2}),
                Fault::ReserveFails { end: ReserveEnd::StatusLost, count: 2 },
            ),
            (json!({"fault": "forget-registration"}), Fault::ForgetRegistration),
            (json!({"fault": "lose-reservations"}), Fault::LoseReservations),
            (json!({"fault": "register-stall", "milliseconds": 9}), Fault::RegisterStall(ms(9))),
            (json!({"fault": "per-initiator", "enabled": false}), Fault::PerInitiator(false)),
            (json!({"fault": "attentions-first"}), Fault::AttentionsFirst(true)),
            (json!({"fault": "power-loss"}), Fault::PowerLoss),
            (json!({"fault": "capacity"}), Fault::Capacity(NewCapacity::Grow)),
            (json!({"fault": "capacity", "bytes": 512}), Fault::Capacity(NewCapacity::Bytes(512))),
        ] {
            let mut arguments = arguments;
            arguments["path"] = json!("p");
            assert_eq!(parse(arguments), Ok(expected));
        }
    }

    #[test]
    fn faults_with_wrong_arguments_are_refused_in_words() {
        for (arguments, word) in [
            (json!({"path": "p", "fault": "smoke"}), "smoke"),
            (json!({"path": "p", "fault": "hang", "mode": "half"}), "'mode' does not belong"),
            (json!({"path": "p", "fault": "delay"}), "'milliseconds' is missing"),
            (json!({"path": "p", "fault": "sense", "sense": "2/4"}), "K/ASC/ASCQ"),
            (json!({"path": "p", "fault": "sense", "sense": "10/4/0"}), "K/ASC/ASCQ"),
            (json!({"path": "p", "fault": "medium-error"}), "'lba' is missing"),
            (json!({"path": "p", "fault": "alua", "state": "up"}), "active-optimized, active-non"),
            (json!({"path": "p", "fault": "remap", "bytes": 1}), "'bytes' does not belong"),
            (json!({"path": "p", "fault": "device", "state": "on"}), "running, blocked, offline"),
            (json!({"path": "p", "fault": "upgrade", "how": "x"}), "busy, becoming-ready, gone"),
            (json!({"path": "p", "fault": "upgrade", "how": "gone"}), "'milliseconds' is missing"),
            (json!({"path": "p", "fault": "late-cut"}), "'milliseconds' is missing"),
            (json!({"path": "p", "fault": "reservation"}), "'action' is missing"),
            (
                json!({
                    "path": "p", "fault": "reservation", "action": "release", "initiator": 0
                }),
                "from 1",
            ),
            (json!({"path": "p", "fault": "reservation", "action": "move"}), "preempt-abort"),
            (json!({"path": "p", "fault": "reservation", "action": "register"}), "'key' is"),
            (
                json!({"path": "p", "fault": "reservation", "action": "clear", "key": "1"}),
                "'key' does not belong",
            ),
            (
                json!({"path": "p", "fault": "reservation", "action": "register", "key": "+1"}),
                "hexadecimal",
            ),
            (
                json!({"path": "p", "fault": "reservation", "action": "reserve", "type": "5"}),
                "write-exclusive, exclusive-access",
            ),
            (json!({"path": "p", "fault": "cut", "how": "gone"}), "'how' does not belong"),
            (json!({"fault": "cut"}), "path"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
