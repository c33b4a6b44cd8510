//! Persistent reservations: PERSISTENT RESERVE IN and OUT (SPC-5 5.14, 6.16,
//! 6.17), encode and decode.
//!
//! Both sides use it: the engine builds and reads what arrays are told and
//! say, the simulated array answers. What a reservation means to a map's paths
//! is `mpath::reservation`'s; what it forbids, the array's.

use std::fmt;

use super::be;
use super::cdb::Cdb;
use super::sense::{FieldPointer, SenseCode};

mod one_nexus;

pub use one_nexus::{Registered, hide_ports, show_key_once, show_status_once};

/// Operation code of PERSISTENT RESERVE IN.
pub const IN: u8 = 0x5e;
/// Operation code of PERSISTENT RESERVE OUT.
pub const OUT: u8 = 0x5f;
/// Bytes of a parameter list, but for REGISTER AND MOVE and SPEC_I_PT.
pub const LIST_LEN: usize = 24;

/// A reservation key. Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

impl Key {
    /// No key: not registered, or "unregister".
    pub const NONE: Key = Key(0);

    /// Whether there is none.
    pub fn is_none(self) -> bool {
        self == Key::NONE
    }

    /// As it is written: up to sixteen hexadecimal digits behind `0x` or not;
    /// `None` for anything else, and for zero, which is no key.
    pub fn from_words(word: &str) -> Option<Key> {
        let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).unwrap_or(word);
        let valid =
            (1..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let key = valid.then(|| u64::from_str_radix(digits, 16).ok()).flatten().map(Key)?;
        (!key.is_none()).then_some(key)
    }
}

/// As multipath-tools and sg_persist print it.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Type of a persistent reservation (SPC-5 table 230).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Others may read.
    WriteExclusive,
    /// Others may neither read nor write.
    ExclusiveAccess,
    /// Who is not registered may read.
    WriteExclusiveRegistrantsOnly,
    /// Who is not registered may neither read nor write.
    ExclusiveAccessRegistrantsOnly,
    /// As registrants only; and each registrant holds it.
    WriteExclusiveAllRegistrants,
    /// As registrants only; and each registrant holds it.
    ExclusiveAccessAllRegistrants,
}

/// Types by their code, with their bit in the type mask of REPORT
/// CAPABILITIES (bytes 4 and 5) and their names.
#[rustfmt::skip]
const TYPES: &[(Type, u8, u16, &str)] = &[
    (Type::WriteExclusive, 0x1, 0x0200, "write exclusive"),
    (Type::ExclusiveAccess, 0x3, 0x0800, "exclusive access"),
    (Type::WriteExclusiveRegistrantsOnly, 0x5, 0x2000, "write exclusive, registrants only"),
    (Type::ExclusiveAccessRegistrantsOnly, 0x6, 0x4000, "exclusive access, registrants only"),
    (Type::WriteExclusiveAllRegistrants, 0x7, 0x8000, "write exclusive, all registrants"),
    (Type::ExclusiveAccessAllRegistrants, 0x8, 0x0001, "exclusive access, all registrants"),
];

impl Type {
    /// Every type.
    pub fn all() -> impl Iterator<Item = Type> {
        TYPES.iter().map(|row| row.0)
    }

    /// From the low four bits of `byte`; `None` for a code that is reserved or
    /// obsolete.
    pub fn from_bits(byte: u8) -> Option<Type> {
        TYPES.iter().find(|row| row.1 == byte & 0x0f).map(|row| row.0)
    }

    fn row(self) -> &'static (Type, u8, u16, &'static str) {
        TYPES.iter().find(|row| row.0 == self).unwrap_or(&TYPES[0])
    }

    /// The four bits.
    pub fn to_bits(self) -> u8 {
        self.row().1
    }

    /// The standard's words.
    pub fn name(self) -> &'static str {
        self.row().3
    }

    /// Its bit in [`Capabilities::types`].
    pub fn mask(self) -> u16 {
        self.row().2
    }

    /// Whether who is not the holder but registered has the holder's rights.
    pub fn is_of_registrants(self) -> bool {
        !matches!(self, Type::WriteExclusive | Type::ExclusiveAccess)
    }

    /// Whether every registrant is a holder.
    pub fn is_of_all_registrants(self) -> bool {
        matches!(self, Type::WriteExclusiveAllRegistrants | Type::ExclusiveAccessAllRegistrants)
    }

    /// Whether being registered is not enough: the holder alone has access.
    pub fn is_of_holder_alone(self) -> bool {
        matches!(self, Type::WriteExclusive | Type::ExclusiveAccess)
    }

    /// Whether who has no rights may read all the same.
    pub fn lets_read(self) -> bool {
        matches!(
            self,
            Type::WriteExclusive
                | Type::WriteExclusiveRegistrantsOnly
                | Type::WriteExclusiveAllRegistrants
        )
    }
}

/// Service action of PERSISTENT RESERVE IN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the standard's
pub enum InAction {
    ReadKeys,
    ReadReservation,
    ReportCapabilities,
    ReadFullStatus,
}

impl InAction {
    /// Of a CDB; `None` if it is no PERSISTENT RESERVE IN or its action is
    /// reserved.
    pub fn of(cdb: &Cdb) -> Option<InAction> {
        let raw = cdb.as_slice();
        match (cdb.opcode(), raw.get(1)? & 0x1f) {
            (IN, 0x00) => Some(InAction::ReadKeys),
            (IN, 0x01) => Some(InAction::ReadReservation),
            (IN, 0x02) => Some(InAction::ReportCapabilities),
            (IN, 0x03) => Some(InAction::ReadFullStatus),
            _ => None,
        }
    }

    /// The command, with room for `allocation` bytes.
    pub fn cdb(self, allocation: u16) -> Cdb {
        let action = match self {
            InAction::ReadKeys => 0x00,
            InAction::ReadReservation => 0x01,
            InAction::ReportCapabilities => 0x02,
            InAction::ReadFullStatus => 0x03,
        };
        Cdb::persistent_reserve_in(action, allocation)
    }
}

/// Service action of PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the standard's
pub enum OutAction {
    Register,
    Reserve,
    Release,
    Clear,
    Preempt,
    PreemptAndAbort,
    RegisterAndIgnore,
    RegisterAndMove,
    ReplaceLost,
}

const OUT_ACTIONS: &[(OutAction, u8)] = &[
    (OutAction::Register, 0x00),
    (OutAction::Reserve, 0x01),
    (OutAction::Release, 0x02),
    (OutAction::Clear, 0x03),
    (OutAction::Preempt, 0x04),
    (OutAction::PreemptAndAbort, 0x05),
    (OutAction::RegisterAndIgnore, 0x06),
    (OutAction::RegisterAndMove, 0x07),
    (OutAction::ReplaceLost, 0x08),
];

impl OutAction {
    fn from_bits(byte: u8) -> Option<OutAction> {
        OUT_ACTIONS.iter().find(|(_, bits)| *bits == byte & 0x1f).map(|(action, _)| *action)
    }

    fn to_bits(self) -> u8 {
        OUT_ACTIONS.iter().find(|(action, _)| *action == self).map_or(0, |(_, bits)| *bits)
    }

    /// Whether TYPE and SCOPE count (SPC-5 table 241).
    pub fn has_type(self) -> bool {
        use OutAction::{Preempt, PreemptAndAbort, Release, ReplaceLost, Reserve};
        matches!(self, Reserve | Release | Preempt | PreemptAndAbort | ReplaceLost)
    }
}

/// One PERSISTENT RESERVE OUT, but for REGISTER AND MOVE's and SPEC_I_PT's
/// lists of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Out {
    /// What to do.
    pub action: OutAction,
    /// SCOPE and TYPE as they were sent: what is reserved among them is for
    /// the LU to refuse.
    pub scope_and_type: u8,
    /// RESERVATION KEY.
    pub key: Key,
    /// SERVICE ACTION RESERVATION KEY.
    pub action_key: Key,
    /// SPEC_I_PT: register others' ports.
    pub spec_i_pt: bool,
    /// ALL_TG_PT: register by all target ports.
    pub all_tg_pt: bool,
    /// APTPL: keep it through a loss of power.
    pub aptpl: bool,
}

/// What a PREEMPT is told as: to who has lost a registration, to who has kept
/// one while the type changed, and by SPC-2 targets.
const PREEMPTED: &[SenseCode] = &[
    SenseCode::REGISTRATIONS_PREEMPTED,
    SenseCode::RESERVATIONS_RELEASED,
    SenseCode::RESERVATIONS_PREEMPTED,
];
const PREEMPTED_AND_ABORTED: &[SenseCode] = &[
    SenseCode::REGISTRATIONS_PREEMPTED,
    SenseCode::RESERVATIONS_RELEASED,
    SenseCode::RESERVATIONS_PREEMPTED,
    SenseCode::COMMANDS_CLEARED,
];

impl Out {
    /// A command that registers nothing for others and has no type.
    pub fn new(action: OutAction, key: Key, action_key: Key) -> Out {
        let (spec_i_pt, all_tg_pt, aptpl) = (false, false, false);
        Out { action, scope_and_type: 0, key, action_key, spec_i_pt, all_tg_pt, aptpl }
    }

    /// The same with a type.
    #[must_use]
    pub fn of_type(self, kind: Type) -> Out {
        Out { scope_and_type: kind.to_bits(), ..self }
    }

    /// Its type; `None` for a code that is reserved or obsolete.
    pub fn kind(&self) -> Option<Type> {
        Type::from_bits(self.scope_and_type)
    }

    /// What an LU that has carried it out may tell every nexus but the one it
    /// came by (SPC-5 5.14.11).
    pub fn told_to_others(&self) -> &'static [SenseCode] {
        match self.action {
            OutAction::Release => &[SenseCode::RESERVATIONS_RELEASED],
            OutAction::Register | OutAction::RegisterAndIgnore if self.action_key.is_none() => {
                &[SenseCode::RESERVATIONS_RELEASED]
            }
            OutAction::Clear => &[SenseCode::RESERVATIONS_PREEMPTED],
            OutAction::Preempt | OutAction::ReplaceLost => PREEMPTED,
            OutAction::PreemptAndAbort => PREEMPTED_AND_ABORTED,
            OutAction::Register
            | OutAction::RegisterAndIgnore
            | OutAction::RegisterAndMove
            | OutAction::Reserve => &[],
        }
    }

    /// SCOPE; 0 is the LU.
    pub fn scope(&self) -> u8 {
        self.scope_and_type >> 4
    }

    /// Reads a command.
    ///
    /// # Errors
    /// What an LU answers that knows neither REGISTER AND MOVE nor SPEC_I_PT
    /// (SIP_C=0), with the field: 05/24/00 for a reserved service action,
    /// 05/1A/00 for a list of another length than 24 bytes, 05/26/00 for
    /// SPEC_I_PT.
    pub fn parse(cdb: &Cdb, list: &[u8]) -> Result<Out, (SenseCode, Option<FieldPointer>)> {
        let raw = cdb.as_slice();
        let action = (cdb.opcode() == OUT)
            .then(|| raw.get(1).and_then(|byte| OutAction::from_bits(*byte)))
            .flatten()
            .filter(|action| *action != OutAction::RegisterAndMove)
            .ok_or((SenseCode::INVALID_FIELD_IN_CDB, Some(FieldPointer::cdb(1).bit(4))))?;
        let stated = be::u32_at(raw, 5).and_then(|n| usize::try_from(n).ok());
        let flags = list.get(20).copied().unwrap_or(0);
        let spec_i_pt = flags & 0x08 != 0;
        if spec_i_pt && matches!(action, OutAction::Register | OutAction::RegisterAndIgnore) {
            let field = FieldPointer::parameter(20).bit(3);
            return Err((SenseCode::INVALID_FIELD_IN_PARAMETER_LIST, Some(field)));
        }
        let (Some(LIST_LEN), LIST_LEN, Some(key), Some(action_key), Some(byte)) =
            (stated, list.len(), be::u64_at(list, 0), be::u64_at(list, 8), raw.get(2))
        else {
            return Err((SenseCode::PARAMETER_LIST_LENGTH_ERROR, None));
        };
        Ok(Out {
            action,
            scope_and_type: *byte,
            key: Key(key),
            action_key: Key(action_key),
            spec_i_pt,
            all_tg_pt: flags & 0x04 != 0,
            aptpl: flags & 0x01 != 0,
        })
    }

    /// The command.
    pub fn cdb(&self) -> Cdb {
        let len = u32::try_from(LIST_LEN).unwrap_or(0);
        Cdb::persistent_reserve_out(self.action.to_bits(), self.scope_and_type, len)
    }

    /// Its parameter list.
    pub fn list(&self) -> [u8; LIST_LEN] {
        let mut list = [0; LIST_LEN];
        be::put(&mut list, 0, self.key.0.to_be_bytes());
        be::put(&mut list, 8, self.action_key.0.to_be_bytes());
        list[20] =
            u8::from(self.spec_i_pt) << 3 | u8::from(self.all_tg_pt) << 2 | u8::from(self.aptpl);
        list
    }
}

/// Who holds an LU and how: READ RESERVATION.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The holder's key; none of all registrants.
    pub key: Key,
    /// How.
    pub kind: Type,
}

/// An answer with its PRGENERATION, which counts changes of registrations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbered<T> {
    /// PRGENERATION.
    pub generation: u32,
    /// The answer.
    pub what: T,
}

/// Parameter data behind the header of eight bytes: all of it.
///
/// # Errors
/// How many bytes the whole answer has, where there are fewer.
fn body(data: &[u8]) -> Result<Numbered<&[u8]>, usize> {
    const HEADER: usize = 8;
    let (Some(generation), Some(len)) = (be::u32_at(data, 0), be::u32_at(data, 4)) else {
        return Err(HEADER);
    };
    let end = usize::try_from(len).map_or(usize::MAX, |len| HEADER.saturating_add(len));
    let what = data.get(HEADER..end).ok_or(end)?;
    Ok(Numbered { generation, what })
}

fn with_header(generation: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&generation.to_be_bytes(), &len.to_be_bytes(), body].concat()
}

/// Reads READ KEYS: one key per registration.
///
/// # Errors
/// The length to ask for, where `data` was cut.
pub fn keys(data: &[u8]) -> Result<Numbered<Vec<Key>>, usize> {
    let Numbered { generation, what } = body(data)?;
    let what = what.chunks_exact(8).filter_map(|key| be::u64_at(key, 0)).map(Key).collect();
    Ok(Numbered { generation, what })
}

/// Answers READ KEYS.
pub fn encode_keys(generation: u32, keys: &[Key]) -> Vec<u8> {
    let body: Vec<u8> = keys.iter().flat_map(|key| key.0.to_be_bytes()).collect();
    with_header(generation, &body)
}

/// Reads READ RESERVATION.
///
/// # Errors
/// The length to ask for, where `data` was cut. (A type that is not known
/// reads as no reservation: there is nothing that we could do about it.)
pub fn reservation(data: &[u8]) -> Result<Numbered<Option<Held>>, usize> {
    let Numbered { generation, what } = body(data)?;
    let held = || {
        let kind = Type::from_bits(*what.get(13)?)?;
        Some(Held { key: Key(be::u64_at(what, 0)?), kind })
    };
    Ok(Numbered { generation, what: held() })
}

/// Answers READ RESERVATION.
pub fn encode_reservation(generation: u32, held: Option<Held>) -> Vec<u8> {
    let Some(held) = held else { return with_header(generation, &[]) };
    let mut body = [0; 16];
    be::put(&mut body, 0, held.key.0.to_be_bytes());
    body[13] = held.kind.to_bits();
    with_header(generation, &body)
}

/// What an LU can do about reservations: REPORT CAPABILITIES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Byte 2: RLR_C, CRH, SIP_C, ATP_C, PTPL_C.
    pub can: u8,
    /// Byte 3: TMV, ALLOW COMMANDS, PTPL_A.
    pub now: u8,
    /// Types, see [`Type::mask`]; they count if TMV is set.
    pub types: u16,
}

impl Capabilities {
    /// RLR_C: REPLACE LOST RESERVATION is known.
    pub const REPLACE_LOST: u8 = 0x80;
    /// SIP_C: SPEC_I_PT is known.
    pub const SPEC_I_PT: u8 = 0x08;
    /// ATP_C: ALL_TG_PT is known.
    pub const ALL_TG_PT: u8 = 0x04;
    /// PTPL_C, and in the other byte PTPL_A: registrations can be, are kept
    /// through a loss of power.
    pub const PERSIST: u8 = 0x01;
    /// TMV: the type mask is valid.
    pub const TYPE_MASK_VALID: u8 = 0x80;
    const LEN: u16 = 8;

    /// Reads the answer; `None` if it was cut.
    pub fn parse(data: &[u8]) -> Option<Capabilities> {
        let types = be::u16_at(data, 4)?;
        Some(Capabilities { can: *data.get(2)?, now: *data.get(3)?, types })
    }

    /// The answer.
    pub fn encode(self) -> Vec<u8> {
        let [len, types] = [Capabilities::LEN, self.types].map(u16::to_be_bytes);
        [len, [self.can, self.now], types, [0, 0]].concat()
    }
}

/// One registration: READ FULL STATUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its key.
    pub key: Key,
    /// ALL_TG_PT: by every target port.
    pub all_tg_pt: bool,
    /// It holds the reservation, of this type.
    pub holds: Option<Type>,
    /// Relative target port identifier.
    pub port: u16,
    /// TransportID of the initiator port (SPC-5 7.6.4), as it is.
    pub transport_id: Vec<u8>,
}

/// Bytes of a full status descriptor in front of the TransportID.
const DESCRIPTOR: usize = 24;

/// Reads READ FULL STATUS.
///
/// # Errors
/// The length to ask for, where `data` was cut.
pub fn full_status(data: &[u8]) -> Result<Numbered<Vec<Registration>>, usize> {
    let Numbered { generation, what } = body(data)?;
    let (mut rest, mut all) = (what, Vec::new());
    while let Some((registration, len)) = one_status(rest) {
        all.push(registration);
        rest = &rest[len..];
    }
    Ok(Numbered { generation, what: all })
}

/// The first descriptor and its length.
fn one_status(data: &[u8]) -> Option<(Registration, usize)> {
    let id_len = usize::try_from(be::u32_at(data, 20)?).ok()?;
    let len = DESCRIPTOR.checked_add(id_len)?;
    let (flags, kind) = (*data.get(12)?, *data.get(13)?);
    let registration = Registration {
        key: Key(be::u64_at(data, 0)?),
        all_tg_pt: flags & 0x02 != 0,
        holds: (flags & 0x01 != 0).then(|| Type::from_bits(kind)).flatten(),
        port: be::u16_at(data, 18)?,
        transport_id: data.get(DESCRIPTOR..len)?.to_vec(),
    };
    Some((registration, len))
}

/// Answers READ FULL STATUS.
pub fn encode_full_status(generation: u32, all: &[Registration]) -> Vec<u8> {
    let mut body = Vec::new();
    for one in all {
        let mut descriptor = [0; DESCRIPTOR];
        be::put(&mut descriptor, 0, one.key.0.to_be_bytes());
        descriptor[12] = u8::from(one.all_tg_pt) << 1 | u8::from(one.holds.is_some());
        descriptor[13] = one.holds.map_or(0, Type::to_bits);
        be::put(&mut descriptor, 18, one.port.to_be_bytes());
        let id_len = u32::try_from(one.transport_id.len()).unwrap_or(u32::MAX);
        be::put(&mut descriptor, 20, id_len.to_be_bytes());
        body.extend_from_slice(&descriptor);
        body.extend_from_slice(&one.transport_id);
    }
    with_header(generation, &body)
}

#[cfg(test)]
mod tests;
