//! Faults in words, as `ctl sim` and the scenario files write them.

use std::time::Duration;

use super::{CutMode, DeviceState, Fault, NewCapacity, ReserveEnd, Upgrade};
use crate::scsi::reservation;
use crate::scsi::sense::{Key, SenseCode};
use crate::scsi::status::HostByte;
use crate::sim::{ACCESS_STATES, Foreign, RESERVATION_TYPES};

impl Fault {
    /// Reads a fault: `cut status-lost`, `sense 02/04/0b 3`, `alua standby
    /// 2000`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn from_words(text: &str) -> Result<Fault, String> {
        let mut words = Words(text.split_whitespace().collect());
        let name =
            words.next().ok_or("a fault is missing: cut, plug, hang, delay, sense, alua…")?;
        let fault = match name {
            "cut" => Fault::Cut(match words.next() {
                None | Some("before") => CutMode::Before,
                Some("status-lost") => CutMode::StatusLost,
                Some("half") => CutMode::Half,
                Some(other) => return Err(format!("'{other}': before, status-lost or half")),
            }),
            "plug" => Fault::Plug,
            "hang" => Fault::Hang,
            "delay" => Fault::Delay(words.milliseconds()?.ok_or("delay wants milliseconds")?),
            "late-cut" => {
                Fault::LateCut(words.milliseconds()?.ok_or("late-cut wants milliseconds")?)
            }
            "sense" => Fault::Sense { code: words.sense()?, count: words.count()? },
            "io-sense" => Fault::IoSense { code: words.sense()?, count: words.count()? },
            "activation-sense" => {
                Fault::ActivationSense { code: words.sense()?, count: words.count()? }
            }
            "host-byte" => Fault::HostByte { host: words.host()?, count: words.count()? },
            "io-host-byte" => Fault::IoHostByte { host: words.host()?, count: words.count()? },
            "marginal" => {
                let host = HostByte::TRANSPORT_MARGINAL;
                Fault::HostByte { host, count: words.count()? }
            }
            "reserve-sense" => {
                let end = ReserveEnd::Sense(words.sense()?);
                Fault::ReserveFails { end, count: words.count()? }
            }
            "reserve-host-byte" => {
                let end = ReserveEnd::HostByte(words.host()?);
                Fault::ReserveFails { end, count: words.count()? }
            }
            "reserve-conflict" => {
                Fault::ReserveFails { end: ReserveEnd::Conflict, count: words.count()? }
            }
            "reserve-status-lost" => {
                Fault::ReserveFails { end: ReserveEnd::StatusLost, count: words.count()? }
            }
            "reservation" => {
                let order = words.foreign()?;
                let host = words.number("the number of a host")?.unwrap_or(1);
                let host = u16::try_from(host).ok().filter(|host| *host != 0);
                let host = host.ok_or("hosts are numbered from 1 to 65535")?;
                Fault::Foreign { host, order }
            }
            "forget-registration" => Fault::ForgetRegistration,
            "lose-reservations" => Fault::LoseReservations,
            "register-stall" => Fault::RegisterStall(
                words.milliseconds()?.ok_or("register-stall wants milliseconds")?,
            ),
            "per-initiator" => Fault::PerInitiator(words.yes_or_no()?),
            "attentions-first" => Fault::AttentionsFirst(words.yes_or_no()?),
            "power-loss" => Fault::PowerLoss,
            "busy" => Fault::Busy { count: words.count()? },
            "task-set-full" => Fault::TaskSetFull { count: words.count()? },
            "medium-error" => {
                let lba = words.number("a block")?.ok_or("medium-error wants a block")?;
                Fault::MediumError { lba, blocks: words.number("how many blocks")?.unwrap_or(1) }
            }
            "mend" => Fault::Mend,
            "alua" => {
                let state = words.one_of(&ACCESS_STATES)?;
                Fault::Alua { state, transition: words.milliseconds()?.unwrap_or_default() }
            }
            "alua-fails" => {
                Fault::AluaFails { transition: words.milliseconds()?.unwrap_or_default() }
            }
            "transition" => {
                Fault::Transition(words.milliseconds()?.ok_or("transition wants milliseconds")?)
            }
            "device" => Fault::Device(words.one_of(&DeviceState::NAMES)?),
            "controller-down" => {
                Fault::ControllerDown { takeover: words.milliseconds()?.unwrap_or_default() }
            }
            "controller-up" => Fault::ControllerUp,
            "take-ownership" => Fault::TakeOwnership,
            "upgrade" => {
                let how = words.one_of(&Upgrade::NAMES)?;
                let lasting = words.milliseconds()?.ok_or("upgrade wants milliseconds")?;
                Fault::Upgrade { how, lasting }
            }
            "prefer" => Fault::Prefer(words.yes_or_no()?),
            "lu-reset" => Fault::LuReset,
            "remap" => Fault::Remap,
            "unmap-lun" => Fault::UnmapLun,
            "capacity" => Fault::Capacity(match words.next() {
                Some("grow") => NewCapacity::Grow,
                Some(size) => NewCapacity::Bytes(
                    bytes(size).ok_or_else(|| format!("'{size}' is no size, such as 2G"))?,
                ),
                None => return Err("capacity wants a size, or grow".to_owned()),
            }),
            other => return Err(format!("'{other}' is no fault")),
        };
        match words.next() {
            None => Ok(fault),
            Some(word) => Err(format!("'{word}' does not belong to {name}")),
        }
    }
}

/// What is left of a line.
struct Words<'a>(std::collections::VecDeque<&'a str>);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.0.pop_front()
    }

    fn number(&mut self, what: &str) -> Result<Option<u64>, String> {
        let parse = |word: &str| word.parse().map_err(|_| format!("'{word}' is not {what}"));
        self.next().map(parse).transpose()
    }

    fn milliseconds(&mut self) -> Result<Option<Duration>, String> {
        Ok(self.number("a number of milliseconds")?.map(Duration::from_millis))
    }

    fn sense(&mut self) -> Result<SenseCode, String> {
        let code = self.next().and_then(sense_code);
        code.ok_or_else(|| "a sense is K/ASC/ASCQ in hexadecimal: 02/04/0b".to_owned())
    }

    fn host(&mut self) -> Result<HostByte, String> {
        let host = self.next().and_then(host_byte);
        host.ok_or_else(|| "a host byte is a number or a name such as no-connect".to_owned())
    }

    fn one_of<T: Copy>(&mut self, names: &[(T, &str)]) -> Result<T, String> {
        let word = self.next().unwrap_or_default();
        let found = names.iter().find(|(_, name)| *name == word);
        found.map(|(value, _)| *value).ok_or_else(|| {
            let known: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
            format!("'{word}': one of {}", known.join(", "))
        })
    }

    /// True unless said otherwise.
    fn yes_or_no(&mut self) -> Result<bool, String> {
        match self.next() {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(format!("'{other}': true or false")),
        }
    }

    fn key(&mut self) -> Result<reservation::Key, String> {
        let key = self.next().and_then(reservation_key);
        key.ok_or_else(|| "a key is a number in hexadecimal: 0x1a2b".to_owned())
    }

    /// What another host does.
    fn foreign(&mut self) -> Result<Foreign, String> {
        let action = self.next().unwrap_or_default();
        Ok(match action {
            "register" => Foreign::Register(self.key()?),
            "reserve" => Foreign::Reserve(self.one_of(&RESERVATION_TYPES)?),
            "release" => Foreign::Release,
            "clear" => Foreign::Clear,
            "preempt" | "preempt-abort" => {
                let (victim, kind) = (self.key()?, self.one_of(&RESERVATION_TYPES)?);
                Foreign::Preempt { victim, kind, abort: action == "preempt-abort" }
            }
            other => {
                let known = "register, reserve, release, clear, preempt, preempt-abort";
                return Err(format!("'{other}': one of {known}"));
            }
        })
    }

    /// To so many commands; one unless said otherwise.
    fn count(&mut self) -> Result<u32, String> {
        let count = self.number("a number of commands")?.unwrap_or(1);
        u32::try_from(count).map_err(|_| format!("{count} commands are too many"))
    }
}

/// `K/ASC/ASCQ` in hexadecimal.
pub(crate) fn sense_code(text: &str) -> Option<SenseCode> {
    let mut parts = text.split('/').map(|part| u8::from_str_radix(part, 16).ok());
    let mut next = || parts.next().flatten();
    let (key, asc, ascq) = (next()?, next()?, next()?);
    (parts.next().is_none() && key < 16).then(|| SenseCode::new(Key::from_bits(key), asc, ascq))
}

/// A reservation key in hexadecimal, with or without `0x`.
pub(crate) fn reservation_key(text: &str) -> Option<reservation::Key> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let plain = !digits.starts_with('+');
    u64::from_str_radix(digits, 16).ok().filter(|_| plain).map(reservation::Key)
}

/// A host byte by its number, or by its name without `DID_`: `no-connect`.
pub(crate) fn host_byte(text: &str) -> Option<HostByte> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let name = text.to_ascii_uppercase().replace('-', "_");
    let is_it = |known: &str| known == name || known.strip_prefix("DID_") == Some(&name);
    let named = || HostByte::NAMES.iter().find(|(_, known)| is_it(known)).map(|(host, _)| *host);
    number.map(HostByte).or_else(named)
}

/// A size in bytes: `2G`.
fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().last()? {
        (at, 'K') => (&text[..at], 10),
        (at, 'M') => (&text[..at], 20),
        (at, 'G') => (&text[..at], 30),
        (at, 'T') => (&text[..at], 40),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
