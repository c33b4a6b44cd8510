//! REPORT SUPPORTED OPERATION CODES (SPC-5 6.35): what the LU said, without
//! the commands a policy denies.
//!
//! Edits and reads the data; which commands to keep is the caller's word
//! (`command::CommandPolicy::offers`).

use super::be;
use super::cdb::Cdb;
use super::command;

/// Command timeouts descriptor: its length field says 10, and does not count
/// itself.
const TIMEOUTS_LEN: usize = 12;
/// Command descriptor of the all-commands list, without timeouts.
const DESCRIPTOR_LEN: usize = 8;
/// Header of either format.
const HEADER_LEN: usize = 4;
/// SUPPORT 001b: the LU does not support the command.
const NOT_SUPPORTED: u8 = 0x01;

/// What a REPORT SUPPORTED OPERATION CODES asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// RCTD: with command timeouts descriptors.
    pub timeouts: bool,
    /// REPORTING OPTIONS: 0 = all commands; 1 = one, by operation code; 2 =
    /// one, by service action; 3 = one, by both.
    pub reporting_options: u8,
    /// REQUESTED OPERATION CODE.
    pub opcode: u8,
    /// REQUESTED SERVICE ACTION.
    pub service_action: u16,
    /// Most bytes to answer.
    pub allocation: u32,
}

impl Request {
    /// Reads the CDB; `None` if it is another command or too short.
    pub fn decode(cdb: &Cdb) -> Option<Request> {
        let raw = cdb.as_slice();
        (cdb.opcode() == 0xa3 && *raw.get(1)? & 0x1f == 0x0c).then_some(())?;
        Some(Request {
            timeouts: *raw.get(2)? & 0x80 != 0,
            reporting_options: raw[2] & 0x07,
            opcode: *raw.get(3)?,
            service_action: be::u16_at(raw, 4)?,
            allocation: be::u32_at(raw, 6)?,
        })
    }

    /// The one command asked about, if it is one.
    pub fn command(&self) -> Option<(u8, Option<u16>)> {
        let by_action = command::has_service_action(self.opcode);
        match self.reporting_options {
            1 => Some((self.opcode, None)),
            2 => Some((self.opcode, Some(self.service_action))),
            3 => Some((self.opcode, by_action.then_some(self.service_action))),
            _ => None,
        }
    }
}

/// The one-command answer "not supported": what to say of a denied command
/// without asking the LU.
pub fn not_supported() -> Vec<u8> {
    vec![0, NOT_SUPPORTED, 0, 0]
}

/// The LU's answer without the commands for which `keep` (operation code,
/// service action where there is one) says no.
///
/// `data` must be the whole answer: fetch it with an allocation length of our
/// own, and cut the result to the guest's. Of data that is cut nevertheless,
/// what is whole is kept. In the all-commands list denied descriptors are
/// taken out, with their timeouts; in the one-command format a denied command
/// becomes [`not_supported`]. Reporting options that do not exist yield
/// nothing.
pub fn filter(
    data: &[u8],
    reporting_options: u8,
    keep: impl Fn(u8, Option<u16>) -> bool,
) -> Vec<u8> {
    match reporting_options {
        0 => filter_list(data, keep),
        1..=3 => filter_one(data, keep),
        _ => Vec::new(),
    }
}

fn filter_list(data: &[u8], keep: impl Fn(u8, Option<u16>) -> bool) -> Vec<u8> {
    let mut kept = vec![0; HEADER_LEN];
    for descriptor in descriptors(data) {
        let (opcode, service_action) = named(descriptor);
        if keep(opcode, service_action) {
            kept.extend_from_slice(descriptor);
        }
    }
    let len = u32::try_from(kept.len() - HEADER_LEN).unwrap_or(u32::MAX);
    be::put(&mut kept, 0, len.to_be_bytes());
    kept
}

/// The whole descriptors of an all-commands list, timeouts included.
fn descriptors(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let len = be::u32_at(data, 0).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let rest = data.get(HEADER_LEN..).unwrap_or(&[]);
    let mut rest = &rest[..len.min(rest.len())];
    std::iter::from_fn(move || {
        let timeouts = rest.get(5)? & 0x02 != 0; // CTDP
        let len = DESCRIPTOR_LEN + if timeouts { TIMEOUTS_LEN } else { 0 };
        let descriptor = rest.get(..len)?;
        rest = &rest[len..];
        Some(descriptor)
    })
}

/// Operation code and service action (SERVACTV) of a descriptor.
fn named(descriptor: &[u8]) -> (u8, Option<u16>) {
    let service_action = be::u16_at(descriptor, 2).filter(|_| descriptor[5] & 0x01 != 0);
    (descriptor[0], service_action)
}

/// The commands of an all-commands list.
pub fn parse_list(data: &[u8]) -> impl Iterator<Item = (u8, Option<u16>)> + '_ {
    descriptors(data).map(named)
}

fn filter_one(data: &[u8], keep: impl Fn(u8, Option<u16>) -> bool) -> Vec<u8> {
    let Some(size) = be::u16_at(data, 2).map(usize::from) else { return not_supported() };
    if matches!(data[1] & 0x07, 0 | NOT_SUPPORTED) {
        return data.to_vec();
    }
    // CDB USAGE DATA has the operation code and service action as values.
    let Some(usage) = data.get(HEADER_LEN..HEADER_LEN + size).and_then(Cdb::from_bytes) else {
        return not_supported();
    };
    if !keep(usage.opcode(), command::service_action(&usage)) {
        return not_supported();
    }
    let timeouts = if data[1] & 0x80 != 0 { TIMEOUTS_LEN } else { 0 };
    data[..data.len().min(HEADER_LEN + size + timeouts)].to_vec()
}

#[cfg(test)]
mod tests;
