//! Asymmetric logical unit access: REPORT TARGET PORT GROUPS and SET TARGET
//! PORT GROUPS (SPC-5 5.18, 6.36, 6.45), encode and decode.
//!
//! States as the wire has them. What a state is worth to the engine is a
//! prioritizer's business (`mpath`).

use super::be;
use super::cdb::Cdb;
use super::sense::{FieldPointer, SenseCode};

/// Asymmetric access state of a target port group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessState {
    /// Active/optimized.
    ActiveOptimized,
    /// Active/non-optimized.
    ActiveNonOptimized,
    /// Standby.
    Standby,
    /// Unavailable.
    Unavailable,
    /// Logical block dependent.
    LbaDependent,
    /// Offline.
    Offline,
    /// Transitioning between states.
    Transitioning,
    /// A reserved value (4 bits).
    Reserved(u8),
}

impl AccessState {
    /// From the low four bits of `byte`.
    pub fn from_bits(byte: u8) -> AccessState {
        match byte & 0x0f {
            0x0 => AccessState::ActiveOptimized,
            0x1 => AccessState::ActiveNonOptimized,
            0x2 => AccessState::Standby,
            0x3 => AccessState::Unavailable,
            0x4 => AccessState::LbaDependent,
            0xe => AccessState::Offline,
            0xf => AccessState::Transitioning,
            other => AccessState::Reserved(other),
        }
    }

    /// The four bits.
    pub fn to_bits(self) -> u8 {
        match self {
            AccessState::ActiveOptimized => 0x0,
            AccessState::ActiveNonOptimized => 0x1,
            AccessState::Standby => 0x2,
            AccessState::Unavailable => 0x3,
            AccessState::LbaDependent => 0x4,
            AccessState::Offline => 0xe,
            AccessState::Transitioning => 0xf,
            AccessState::Reserved(bits) => bits & 0x0f,
        }
    }

    /// The standard's spelling.
    pub fn name(self) -> &'static str {
        match self {
            AccessState::ActiveOptimized => "active/optimized",
            AccessState::ActiveNonOptimized => "active/non-optimized",
            AccessState::Standby => "standby",
            AccessState::Unavailable => "unavailable",
            AccessState::LbaDependent => "logical block dependent",
            AccessState::Offline => "offline",
            AccessState::Transitioning => "transitioning",
            AccessState::Reserved(_) => "reserved",
        }
    }

    /// Whether a target port group in this state serves reads and writes
    /// (SPC-5 5.16). Of a state that the standard does not define it is for the
    /// LU to say, command by command.
    pub fn carries_io(self) -> bool {
        match self {
            AccessState::ActiveOptimized
            | AccessState::ActiveNonOptimized
            | AccessState::LbaDependent
            | AccessState::Reserved(_) => true,
            AccessState::Standby
            | AccessState::Unavailable
            | AccessState::Offline
            | AccessState::Transitioning => false,
        }
    }
}

/// Bits of [`TargetPortGroup::supported`].
pub mod supports {
    /// AO_SUP: active/optimized.
    pub const ACTIVE_OPTIMIZED: u8 = 0x01;
    /// AN_SUP: active/non-optimized.
    pub const ACTIVE_NON_OPTIMIZED: u8 = 0x02;
    /// S_SUP: standby.
    pub const STANDBY: u8 = 0x04;
    /// U_SUP: unavailable.
    pub const UNAVAILABLE: u8 = 0x08;
    /// LBD_SUP: logical block dependent.
    pub const LBA_DEPENDENT: u8 = 0x10;
    /// O_SUP: offline.
    pub const OFFLINE: u8 = 0x40;
    /// T_SUP: transitioning is reported.
    pub const TRANSITIONING: u8 = 0x80;
}

/// One target port group descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPortGroup {
    /// TARGET PORT GROUP.
    pub id: u16,
    /// Its state.
    pub state: AccessState,
    /// PREF: the group the array would like to see used.
    pub preferred: bool,
    /// States the group can be in; see [`supports`].
    pub supported: u8,
    /// STATUS CODE: 0 = none, 1 = changed by SET TARGET PORT GROUPS, 2 =
    /// changed by the array itself.
    pub status_code: u8,
    /// Relative target port identifiers of its ports, at most 255.
    pub ports: Vec<u16>,
}

/// One active/optimized group with one port, which can be nothing else: what
/// a guest is told about a map. `extended_header`: parameter data format 001b,
/// with an implicit transition time of 0 (none stated).
pub fn report_one_group(extended_header: bool, tpg: u16, port: u16) -> Vec<u8> {
    let group = TargetPortGroup {
        id: tpg,
        state: AccessState::ActiveOptimized,
        preferred: false,
        supported: supports::ACTIVE_OPTIMIZED,
        status_code: 0,
        ports: vec![port],
    };
    encode(extended_header.then_some(0), &[group])
}

/// [`report_one_group`] as the CDB asks for it, cut to its allocation length.
///
/// # Errors
/// `05/24/00` for a parameter data format other than 000b and 001b, with the
/// field of the CDB that is wrong; `05/20/00` if `cdb` is no REPORT TARGET
/// PORT GROUPS.
pub fn answer(cdb: &Cdb, tpg: u16, port: u16) -> Result<Vec<u8>, (SenseCode, FieldPointer)> {
    let raw = cdb.as_slice();
    let allocation = be::u32_at(raw, 6).and_then(|n| usize::try_from(n).ok());
    let (0xa3, Some(byte), Some(allocation)) = (cdb.opcode(), raw.get(1), allocation) else {
        return Err((SenseCode::INVALID_OPCODE, FieldPointer::cdb(0)));
    };
    if byte & 0x1f != 0x0a {
        return Err((SenseCode::INVALID_OPCODE, FieldPointer::cdb(0)));
    }
    let extended = match byte >> 5 {
        0 => false,
        1 => true,
        _ => return Err((SenseCode::INVALID_FIELD_IN_CDB, FieldPointer::cdb(1).bit(7))),
    };
    let mut data = report_one_group(extended, tpg, port);
    data.truncate(allocation);
    Ok(data)
}

/// Parameter data of REPORT TARGET PORT GROUPS. `transition_seconds` (IMPLICIT
/// TRANSITION TIME) asks for the extended header. Ports beyond 255 of a group
/// are cut.
pub fn encode(transition_seconds: Option<u8>, groups: &[TargetPortGroup]) -> Vec<u8> {
    let mut data = vec![0; 4];
    if let Some(seconds) = transition_seconds {
        data.extend_from_slice(&[EXTENDED, seconds, 0, 0]);
    }
    for group in groups {
        let ports = &group.ports[..group.ports.len().min(usize::from(u8::MAX))];
        let [high, low] = group.id.to_be_bytes();
        let count = u8::try_from(ports.len()).unwrap_or(u8::MAX);
        let state = u8::from(group.preferred) << 7 | group.state.to_bits();
        data.extend_from_slice(&[state, group.supported, high, low]);
        data.extend_from_slice(&[0, group.status_code, 0, count]);
        for port in ports {
            let [high, low] = port.to_be_bytes();
            data.extend_from_slice(&[0, 0, high, low]);
        }
    }
    let len = u32::try_from(data.len() - 4).unwrap_or(u32::MAX);
    be::put(&mut data, 0, len.to_be_bytes());
    data
}

/// RETURN DATA FORMAT 001b where the extended header has it.
const EXTENDED: u8 = 0x10;

/// The descriptors behind either header, and IMPLICIT TRANSITION TIME. The
/// headers are told apart by bits that are reserved in a descriptor's first
/// byte.
fn body(data: &[u8]) -> (Option<u8>, &[u8]) {
    let len = be::u32_at(data, 0).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let body = data.get(4..).unwrap_or(&[]);
    let body = &body[..len.min(body.len())];
    match body {
        [format, seconds, _, _, rest @ ..] if format & 0x70 == EXTENDED => (Some(*seconds), rest),
        _ => (None, body),
    }
}

/// The target port groups of the data, with either header. A group counts if
/// its state is there, with the ports that are: LIO leaves the four bytes that
/// the extended header is longer out of RETURN DATA LENGTH, so its last group
/// has lost a port. Linux' `scsi_dh_alua` takes it, too.
pub fn parse(data: &[u8]) -> Vec<TargetPortGroup> {
    let (_, mut rest) = body(data);
    let mut groups = Vec::new();
    while let Some((group, after)) = parse_group(rest) {
        groups.push(group);
        rest = after;
    }
    groups
}

/// IMPLICIT TRANSITION TIME in seconds, 0 = not stated; `None` without an
/// extended header.
pub fn transition_seconds(data: &[u8]) -> Option<u8> {
    body(data).0
}

fn parse_group(raw: &[u8]) -> Option<(TargetPortGroup, &[u8])> {
    let head = raw.get(..8)?;
    let end = 8 + 4 * usize::from(head[7]);
    let (ports, after) = raw.split_at(end.min(raw.len()));
    let ports = &ports[8..];
    let group = TargetPortGroup {
        id: be::u16_at(head, 2)?,
        state: AccessState::from_bits(head[0]),
        preferred: head[0] & 0x80 != 0,
        supported: head[1],
        status_code: head[5],
        ports: ports.chunks_exact(4).filter_map(|port| be::u16_at(port, 2)).collect(),
    };
    Some((group, after))
}

/// One descriptor of SET TARGET PORT GROUPS: this group shall be in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetState {
    /// The state asked for.
    pub state: AccessState,
    /// TARGET PORT GROUP.
    pub group: u16,
}

/// Parameter list of SET TARGET PORT GROUPS: four reserved bytes, four bytes a
/// descriptor.
pub fn encode_set(list: &[SetState]) -> Vec<u8> {
    let mut data = vec![0; 4];
    for SetState { state, group } in list {
        let [high, low] = group.to_be_bytes();
        data.extend_from_slice(&[state.to_bits(), 0, high, low]);
    }
    data
}

/// The descriptors of a SET TARGET PORT GROUPS parameter list. An empty list
/// (no bytes at all) is none, which is no error (SPC-5 6.45).
///
/// # Errors
/// `05/1a/00` where the list ends within its header or a descriptor;
/// `05/26/00` for a state that cannot be asked for.
pub fn parse_set(list: &[u8]) -> Result<Vec<SetState>, SenseCode> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let body = list.get(4..).ok_or(SenseCode::PARAMETER_LIST_LENGTH_ERROR)?;
    let descriptors = body.chunks_exact(4);
    if !descriptors.remainder().is_empty() {
        return Err(SenseCode::PARAMETER_LIST_LENGTH_ERROR);
    }
    descriptors
        .map(|raw| match AccessState::from_bits(raw[0]) {
            AccessState::Transitioning | AccessState::LbaDependent | AccessState::Reserved(_) => {
                Err(SenseCode::INVALID_FIELD_IN_PARAMETER_LIST)
            }
            state => Ok(SetState { state, group: u16::from_be_bytes([raw[2], raw[3]]) }),
        })
        .collect()
}

#[cfg(test)]
mod tests;
