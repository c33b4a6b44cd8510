//! Proof of identity: what LU answers at the other end of this open file.
//!
//! Asks by SCSI commands through whatever carries the path's I/O (law 2):
//! standard INQUIRY, VPD 00h, 80h, 83h, B0h, B2h, READ CAPACITY(16) or (10),
//! MODE SENSE (SPC-5 6, 7; SBC-4 5, 6). It compares with nothing: whether the
//! LU is the map's is decided by who asked. Blocks; any thread but a queue
//! thread.

use crate::io::{Blocks, Completion, Geometry, Identity, Lba, Limits};
use crate::scsi::capacity::{Capacity, Capacity10, LEN_10, LEN_16};
use crate::scsi::cdb::{Cdb, opcode_name};
use crate::scsi::inquiry::Inquiry;
use crate::scsi::mode::{self, Mode};
use crate::scsi::sense::{self, Key, Sense};
use crate::scsi::status::{HostByte, Status};
use crate::scsi::vpd::{self, BlockLimits, Provisioning};

use super::QueueLimits;

/// Unit attentions in a row that are taken for old news: a new nexus has a
/// few to report, an LU that never ends is broken.
const ATTENTIONS: usize = 8;
/// First allocation length; some old LUs mishandle more than a byte of it.
const ALLOCATION: usize = 252;
/// What sd takes for the longest UNMAP and WRITE SAME (`SD_MAX_WS16_BLOCKS`):
/// longer ones risk their timeout.
const LONGEST_UNMAP: u64 = 0x7f_ffff;
/// The same for zeroes where the LU states no limit (`SD_MAX_WS10_BLOCKS`).
const LONGEST_WRITE_SAME: u64 = 0xffff;
/// Descriptors of one UNMAP: one page of parameter list.
const MOST_DESCRIPTORS: u32 = 255;

/// Why a path could not prove what it is a path to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// A command that must work did not.
    #[error("{command} failed: {how}")]
    Command {
        /// Name of the command.
        command: &'static str,
        /// Completion in words.
        how: String,
        /// As it came.
        completion: Box<Completion>,
    },
    /// The answer was too short or of another format.
    #[error("the answer to {0} makes no sense")]
    Nonsense(&'static str),
    /// No disk at this LUN.
    #[error("it is no disk (peripheral qualifier {qualifier}, device type {device_type:#04x})")]
    NoDisk {
        /// Peripheral qualifier: 0 = connected.
        qualifier: u8,
        /// Peripheral device type.
        device_type: u8,
    },
    /// Neither VPD 83h nor 80h names it.
    #[error(
        "it has no identification (VPD page 83h or 80h), so its paths cannot be told from those of another disk"
    )]
    Nameless,
    /// A block size nobody can serve.
    #[error("its logical blocks have {0} bytes; only 512, 1024, 2048 and 4096 can be served")]
    BlockSize(u32),
    /// Not SCSI: reading identity failed.
    #[error("{0}")]
    Other(String),
}

/// What was learned.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) identity: Identity,
    pub(super) geometry: Geometry,
    pub(super) limits: Limits,
    /// A reservation has kept the mode pages from us: `Limits::fua` and
    /// `Geometry::read_only` promise nothing, but may be so all the same.
    pub(super) mode_unread: bool,
}

/// Sends a CDB with a data-in buffer and waits.
pub(super) type Ask<'a> = dyn Fn(&Cdb, &mut [u8]) -> Completion + 'a;

/// A completion in words, for errors and logs.
pub fn in_words(completion: &Completion) -> String {
    match completion {
        Completion::Good => "it worked".to_owned(),
        Completion::Short(moved) => format!("only {moved} bytes were transferred"),
        Completion::Scsi { host, .. } if *host != HostByte::OK => format!("host byte {host}"),
        Completion::Scsi { status, sense: data, .. } => match data.code() {
            Some(code) => {
                let text = sense::describe(code).unwrap_or("no text for this code");
                format!("{status}, sense {code} ({text})")
            }
            None => status.to_string(),
        },
        Completion::Errno { code, .. } => std::io::Error::from_raw_os_error(*code).to_string(),
    }
}

/// Sends `cdb`, over pending unit attentions; returns the bytes received.
fn ask(ask: &Ask<'_>, cdb: &Cdb, into: &mut [u8]) -> Result<usize, ProofError> {
    let mut last = Completion::Good;
    for _ in 0..ATTENTIONS {
        last = ask(cdb, into);
        match last {
            Completion::Good => return Ok(into.len()),
            // Less than the allocation length is the normal case here.
            Completion::Short(moved) => return Ok(moved.min(into.len())),
            Completion::Scsi { status: Status::GOOD, host: HostByte::OK, residual, .. } => {
                let left = usize::try_from(residual).unwrap_or(usize::MAX);
                return Ok(into.len().saturating_sub(left));
            }
            _ if unit_attention(&last).is_some() => {}
            _ => break,
        }
    }
    let command = cdb.name().or_else(|| opcode_name(cdb.opcode(), 0)).unwrap_or("the command");
    Err(ProofError::Command { command, how: in_words(&last), completion: Box::new(last) })
}

/// The unit attention that a command met instead of being carried out: told
/// once by the LU, so that whoever sends the command again passes it on first
/// (`scsi::attention`).
pub fn unit_attention(completion: &Completion) -> Option<&Sense> {
    match completion {
        Completion::Scsi { status: Status::CHECK_CONDITION, sense, .. } => {
            Some(sense).filter(|sense| sense.code().is_some_and(|c| c.key == Key::UnitAttention))
        }
        _ => None,
    }
}

/// Whether the LU said that it does not know the command or page, as opposed
/// to the path having failed.
fn not_supported(error: &ProofError) -> bool {
    let ProofError::Command { completion, .. } = error else { return false };
    match **completion {
        Completion::Scsi { status: Status::CHECK_CONDITION, host: HostByte::OK, sense, .. } => {
            sense.code().is_some_and(|code| code.key == Key::IllegalRequest)
        }
        _ => false,
    }
}

/// Whether another nexus's reservation forbids the command.
fn reserved(error: &ProofError) -> bool {
    let ProofError::Command { completion, .. } = error else { return false };
    let Completion::Scsi { status, host: HostByte::OK, .. } = **completion else { return false };
    status == Status::RESERVATION_CONFLICT
}

/// An answer the LU may lack: `None` where it says so.
fn optional<T>(result: Result<T, ProofError>) -> Result<Option<T>, ProofError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if not_supported(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn page(send: &Ask<'_>, code: u8) -> Result<Vec<u8>, ProofError> {
    let mut data = vec![0; ALLOCATION];
    loop {
        let allocation = u16::try_from(data.len()).unwrap_or(u16::MAX);
        let got = ask(send, &Cdb::inquiry(Some(code), allocation), &mut data)?;
        if got < 4 {
            return Err(ProofError::Nonsense("INQUIRY (VPD)"));
        }
        let whole = 4 + usize::from(u16::from_be_bytes([data[2], data[3]]));
        if whole <= data.len() || data.len() > ALLOCATION {
            data.truncate(got.min(whole));
            return Ok(data);
        }
        data = vec![0; whole.min(usize::from(u16::MAX))];
    }
}

fn capacity(send: &Ask<'_>) -> Result<Capacity, ProofError> {
    let mut data = [0; LEN_16];
    let allocation = u32::try_from(data.len()).unwrap_or(0);
    let conflict = match optional(ask(send, &Cdb::read_capacity_16(allocation), &mut data)) {
        // LIO keeps it, against SBC-4 table 13, from all who are not registered
        // where access is exclusive; (10) it does not.
        Err(error) if reserved(&error) => Some(error),
        Err(error) => return Err(error),
        Ok(None) => None,
        Ok(Some(got)) => {
            let nonsense = ProofError::Nonsense("READ CAPACITY(16)");
            return Capacity::parse_16(&data[..got]).ok_or(nonsense);
        }
    };
    let mut data = [0; LEN_10];
    let got = ask(send, &Cdb::read_capacity_10(), &mut data)?;
    // Whether it provisions, its pages say as well (LBPU).
    let provisioning = conflict.is_some();
    match Capacity10::parse(&data[..got]) {
        Some(Capacity10 { blocks: Some(blocks), block_size }) => {
            Ok(Capacity { blocks, block_size, provisioning, ..Capacity::default() })
        }
        _ => Err(conflict.unwrap_or(ProofError::Nonsense("READ CAPACITY(10)"))),
    }
}

fn mode(send: &Ask<'_>) -> Result<Option<Mode>, ProofError> {
    let mut data = [0; ALLOCATION];
    let ten = Cdb::mode_sense_10(mode::CACHING, u16::try_from(data.len()).unwrap_or(0));
    let answer = match optional(ask(send, &ten, &mut data)) {
        // Exclusive access keeps this from all who are not registered (SPC-5
        // table 66), and nothing else that is asked here; the path must join
        // all the same, or it could never be registered.
        Err(error) if reserved(&error) => return Ok(None),
        answer => answer?,
    };
    if let Some(got) = answer {
        if let Some(mode) = Mode::parse_10(&data[..got]) {
            return Ok(Some(mode));
        }
    }
    let six = Cdb::mode_sense_6(mode::CACHING, u8::try_from(data.len()).unwrap_or(0));
    let got = optional(ask(send, &six, &mut data))?;
    // No mode page at all: nothing is promised.
    Ok(Some(got.and_then(|got| Mode::parse_6(&data[..got])).unwrap_or_default()))
}

/// What [`Proof::mode_unread`] has left open: whether the LU knows FUA. `None`:
/// it is still kept from us, or cannot be asked just now.
pub(super) fn fua(send: &Ask<'_>) -> Option<bool> {
    mode(send).ok().flatten().map(|mode| mode.dpofua)
}

/// Only what identity needs: the part repeated at every reinstatement.
///
/// The name is read last. Unit attentions are passed over on the way, and one
/// of them may say that the LU is another one now; INQUIRY is served in spite
/// of them and uses none up (SPC-5 5.14), so what happens after the name was
/// read is still told to the next command.
pub(super) fn identify(send: &Ask<'_>) -> Result<Identity, ProofError> {
    let inquiry = inquiry(send)?;
    let capacity = capacity(send)?;
    let pages = supported(send)?;
    let (wwid, _) = names(send, &inquiry, &pages)?;
    identity(wwid, &capacity)
}

fn inquiry(send: &Ask<'_>) -> Result<Inquiry, ProofError> {
    let mut data = [0; 36];
    let got = ask(send, &Cdb::inquiry(None, 36), &mut data)?;
    let inquiry = Inquiry::parse(&data[..got]).ok_or(ProofError::Nonsense("INQUIRY"))?;
    if !inquiry.is_disk() {
        let Inquiry { qualifier, device_type, .. } = inquiry;
        return Err(ProofError::NoDisk { qualifier, device_type });
    }
    Ok(inquiry)
}

fn supported(send: &Ask<'_>) -> Result<Vec<u8>, ProofError> {
    let list = optional(page(send, vpd::SUPPORTED_PAGES))?;
    // Without a list, the page that matters is still worth a try.
    let codes = list.as_deref().and_then(vpd::supported);
    Ok(codes.map_or_else(|| vec![vpd::IDENTIFICATION], <[u8]>::to_vec))
}

fn listed(send: &Ask<'_>, pages: &[u8], code: u8) -> Result<Option<Vec<u8>>, ProofError> {
    if pages.contains(&code) { optional(page(send, code)) } else { Ok(None) }
}

/// WWID and unit serial number.
fn names(send: &Ask<'_>, inquiry: &Inquiry, pages: &[u8]) -> Result<(String, String), ProofError> {
    let identification = listed(send, pages, vpd::IDENTIFICATION)?;
    let serial = listed(send, pages, vpd::SERIAL)?;
    let fallback = serial.as_deref().map(|page| (inquiry, page));
    let wwid = vpd::wwid(identification.as_deref(), fallback).ok_or(ProofError::Nameless)?;
    let serial = serial.as_deref().and_then(vpd::serial).unwrap_or_default();
    Ok((wwid, serial))
}

fn identity(wwid: String, capacity: &Capacity) -> Result<Identity, ProofError> {
    let block_size = capacity.block_size;
    if !block_size.is_power_of_two() || !(512..=4096).contains(&block_size) {
        return Err(ProofError::BlockSize(block_size));
    }
    Ok(Identity { wwid, capacity: capacity.blocks, block_size })
}

/// Everything a map wants to know, asked once when a path is opened.
pub(super) fn prove(send: &Ask<'_>, queue: &QueueLimits) -> Result<Proof, ProofError> {
    let inquiry = inquiry(send)?;
    // Before the name, as in `identify`.
    let capacity = capacity(send)?;
    let mode = mode(send)?;
    let mode_unread = mode.is_none();
    let mode = mode.unwrap_or_default();
    let pages = supported(send)?;
    let (wwid, serial) = names(send, &inquiry, &pages)?;
    let identity = identity(wwid, &capacity)?;
    let block_limits = listed(send, &pages, vpd::BLOCK_LIMITS)?;
    let block_limits = block_limits.as_deref().and_then(BlockLimits::parse).unwrap_or_default();
    let provisioning = listed(send, &pages, vpd::PROVISIONING)?;
    let provisioning = provisioning.as_deref().and_then(Provisioning::parse).unwrap_or_default();
    let unmaps = capacity.provisioning && provisioning.unmap && block_limits.max_unmap > 0;
    let limits = limits(&identity, &block_limits, &provisioning, unmaps, mode.dpofua, queue);
    let geometry = Geometry {
        physical_block_exp: capacity.physical_block_exp,
        alignment_offset: capacity.lowest_aligned,
        min_io: block_limits.optimal_granularity,
        opt_io: block_limits.optimal_transfer,
        unmap: unmaps,
        unmap_reads_zero: capacity.unmapped_reads_zero || provisioning.reads_zero & 1 != 0,
        read_only: mode.write_protected,
        serial,
        vendor: inquiry.vendor,
        product: inquiry.product,
        revision: inquiry.revision,
    };
    Ok(Proof { identity, geometry, limits, mode_unread })
}

fn limits(
    identity: &Identity,
    lu: &BlockLimits,
    provisioning: &Provisioning,
    unmaps: bool,
    fua: bool,
    queue: &QueueLimits,
) -> Limits {
    let stated = |value: u32| if value == 0 { u64::MAX } else { u64::from(value) };
    // A transfer from a page boundary takes a segment per page; those that
    // start elsewhere or come in pieces are copied to one (`sg_io`).
    let pages = u64::try_from(queue.max_segments).unwrap_or(u64::MAX).saturating_mul(4096);
    let queue_blocks = queue.max_transfer_bytes.min(pages) / u64::from(identity.block_size);
    let max_unmap = if unmaps { u64::from(lu.max_unmap).min(LONGEST_UNMAP) } else { 0 };
    let descriptors = lu.max_unmap_descriptors.clamp(1, MOST_DESCRIPTORS);
    let granularity = u64::from(lu.unmap_granularity.max(1));
    // Zero means "no limit stated", for LUs with and without WRITE SAME; one
    // that provisions by it has it.
    let max_write_same = match lu.max_write_same {
        0 if provisioning.write_same_16 => LONGEST_WRITE_SAME,
        stated => stated.min(LONGEST_UNMAP),
    };
    Limits {
        max_transfer: Blocks(stated(lu.max_transfer).min(queue_blocks).clamp(1, 0xffff_ffff)),
        max_segments: queue.max_segments.clamp(1, 1024),
        max_unmap: Blocks(max_unmap),
        max_unmap_descriptors: if unmaps { usize::try_from(descriptors).unwrap_or(1) } else { 0 },
        unmap_granularity: Blocks(granularity),
        unmap_alignment: Lba(u64::from(lu.unmap_alignment.unwrap_or(0)) % granularity),
        max_write_same: Blocks(max_write_same),
        fua,
    }
}

#[cfg(test)]
mod tests;
