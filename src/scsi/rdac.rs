//! RDAC arrays (LSI/Engenio, NetApp E-Series and their resellers): the vendor
//! VPD pages C2h, C8h and C9h, and the redundant controller mode page 2Ch,
//! encode and decode.
//!
//! An LU has two controllers, of which one *owns* it; the other answers READ
//! and WRITE with 05/94/01. Page C9h says who owns it, MODE SELECT of page 2Ch
//! moves it. Formats as Linux' `scsi_dh_rdac` and multipath-tools use them
//! (the vendor's are not public). What a controller's state is worth to the
//! engine is not decided here.

use super::alua::AccessState;
use super::{be, mode, vpd};

/// Software version; says how many LUNs there can be.
pub const SOFTWARE_VERSION: u8 = 0xc2;
/// Extended device identification; says the LU's number in the array.
pub const DEVICE_IDENTIFICATION: u8 = 0xc8;
/// Volume access control: who owns the LU.
pub const VOLUME_ACCESS: u8 = 0xc9;
/// Redundant controller mode page.
pub const REDUNDANT_CONTROLLER: u8 = 0x2c;

/// Bytes to ask for of any of the VPD pages.
pub const ALLOCATION: u16 = 252;

/// LUNs in the table of the MODE SELECT(6) form.
pub const LUNS_6: u8 = 32;

/// State of a controller's target port group in page C9h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerState {
    /// The state.
    pub state: AccessState,
    /// Why it is unavailable; see [`unavailable`].
    pub reason: u8,
}

/// Values of [`ControllerState::reason`] of an unavailable controller, in
/// words.
pub fn unavailable(reason: u8) -> &'static str {
    match reason {
        0x2 => "not responding to queries",
        0x3 => "held in reset",
        0x4 | 0x5 => "downloading firmware",
        0x6 => "quiesced by the administrator",
        0x7 => "in service mode",
        _ => "unavailable",
    }
}

/// Whether the LU should be used through this path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// Not said.
    #[default]
    Unstated,
    /// Preferred.
    Preferred,
    /// For failover.
    Secondary,
}

/// Page C9h, `vace`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeAccess {
    /// Peripheral qualifier and device type are both 0: an LU is connected.
    pub connected: bool,
    /// The controller that answers owns the LU.
    pub owned: bool,
    /// IOSHIP: both controllers do I/O, the owner faster.
    pub ioship: bool,
    /// AVT: I/O to the other controller moves the LU there.
    pub avt: bool,
    /// States of the answering and of the other controller, where it tells
    /// them (TPGDE).
    pub controllers: Option<(ControllerState, ControllerState)>,
    /// Volume preferred path priority.
    pub preference: Preference,
}

const OWNED: u8 = 0x01;
const TPGDE: u8 = 0x10;
const IOSHIP: u8 = 0x20;
const AVT: u8 = 0x80;

/// The body behind the four letters of a vendor page.
fn named<'a>(page: &'a [u8], code: u8, name: &[u8; 4]) -> Option<&'a [u8]> {
    vpd::body(page, code)?.strip_prefix(name)
}

impl VolumeAccess {
    /// Reads page C9h; `None` if it is not that page, or shorter than what is
    /// needed of it.
    pub fn parse(page: &[u8]) -> Option<VolumeAccess> {
        // Bytes 8 to 13 of the page. Only "vac" of the name is checked by
        // others, too.
        let body = vpd::body(page, VOLUME_ACCESS)?;
        let [flags, preference, rest @ ..] = body.strip_prefix(b"vac")?.get(1..)? else {
            return None;
        };
        let controllers = match rest {
            [own, own_reason, other, other_reason, ..] if flags & TPGDE != 0 => Some((
                ControllerState { state: AccessState::from_bits(*own), reason: *own_reason },
                ControllerState { state: AccessState::from_bits(*other), reason: *other_reason },
            )),
            _ => None,
        };
        Some(VolumeAccess {
            connected: page[0] == 0,
            owned: flags & OWNED != 0,
            ioship: flags & IOSHIP != 0,
            avt: flags & AVT != 0,
            controllers,
            preference: match preference & 0x0f {
                0x1 => Preference::Preferred,
                0x2 => Preference::Secondary,
                _ => Preference::Unstated,
            },
        })
    }

    /// Page C9h of 48 bytes. A LU that is not connected has qualifier 1.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = [0; 44];
        be::put(&mut body, 0, *b"vace");
        let flags = [
            (self.owned, OWNED),
            (self.ioship, IOSHIP),
            (self.avt, AVT),
            (self.controllers.is_some(), TPGDE),
        ];
        body[4] = flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        body[5] = match self.preference {
            Preference::Unstated => 0,
            Preference::Preferred => 1,
            Preference::Secondary => 2,
        };
        if let Some((own, other)) = self.controllers {
            let states = [own.state.to_bits(), own.reason, other.state.to_bits(), other.reason];
            be::put(&mut body, 6, states);
        }
        let mut page = vpd::page(VOLUME_ACCESS, &body);
        page[0] = if self.connected { 0 } else { 0x20 };
        page
    }
}

/// Offset of LUN in the body of page C8h; only its last byte is used.
const LUN: usize = 163;

/// The LU's number in the array (page C8h, `edid`); `None` if it is not that
/// page. It need not be the LUN the host knows the LU by.
pub fn lun(page: &[u8]) -> Option<u8> {
    named(page, DEVICE_IDENTIFICATION, b"edid")?.get(LUN - 4 + 7).copied()
}

/// Page C8h; the identifiers and labels of volume and array in it are left
/// empty but for the volume's.
pub fn encode_device_identification(lun: u8, volume: [u8; 16]) -> Vec<u8> {
    let mut body = [0; LUN + 8];
    be::put(&mut body, 0, *b"edid");
    body[7] = 16;
    be::put(&mut body, 8, volume);
    body[LUN + 7] = lun;
    vpd::page(DEVICE_IDENTIFICATION, &body)
}

/// The highest LUN supported (page C2h, `swr4`); `None` if it is not that
/// page. From [`LUNS_6`] on the MODE SELECT(6) form does not reach them all.
pub fn max_lun(page: &[u8]) -> Option<u8> {
    named(page, SOFTWARE_VERSION, b"swr4")?.get(7).copied()
}

/// Page C2h.
pub fn encode_software_version(max_lun: u8) -> Vec<u8> {
    let mut body = [0; 251];
    be::put(&mut body, 0, *b"swr4");
    body[11] = max_lun;
    vpd::page(SOFTWARE_VERSION, &body)
}

/// MODE SELECT of page 2Ch: moves LUs to the controller that receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeOwnership {
    /// Numbers of the LUs in the array ([`lun`]).
    pub luns: Vec<u8>,
    /// Seconds the other controller has to end what it is doing.
    pub quiescence: u8,
    /// Move them although it has not ended by then.
    pub forced: bool,
}

/// Offsets in the body of page 2Ch, either form.
const RDAC_MODE: usize = 33;
const QUIESCENCE: usize = 36;
const OPTIONS: usize = 37;
const TABLE: usize = 38;
/// Length of the body.
const BODY_6: u8 = 0x68;
const BODY_10: u16 = 0x128;
/// RDAC MODE: transfer the LUNs marked in the table.
const TRANSFER_SPECIFIED: u8 = 0x02;
/// RDAC OPTIONS: forced quiescence.
const FORCED: u8 = 0x02;
/// Mark of a LUN to transfer.
const TAKE: u8 = 0x81;

impl TakeOwnership {
    /// Parameter list of MODE SELECT(6), 110 bytes; `None` if a LUN does not
    /// fit its table.
    pub fn encode_6(&self) -> Option<Vec<u8>> {
        let mut list = vec![0, 0, 0, 0, REDUNDANT_CONTROLLER, BODY_6];
        list.extend(self.body(usize::from(BODY_6), usize::from(LUNS_6))?);
        Some(list)
    }

    /// Parameter list of MODE SELECT(10), 308 bytes (the page's subpage form).
    pub fn encode_10(&self) -> Vec<u8> {
        let [high, low] = BODY_10.to_be_bytes();
        let mut list = vec![0; 8];
        list.extend([0x40 | REDUNDANT_CONTROLLER, 1, high, low]);
        list.extend(self.body(usize::from(BODY_10), 256).unwrap_or_default());
        list
    }

    fn body(&self, len: usize, luns: usize) -> Option<Vec<u8>> {
        let mut body = vec![0; len];
        body[RDAC_MODE] = TRANSFER_SPECIFIED;
        body[QUIESCENCE] = self.quiescence;
        body[OPTIONS] = if self.forced { FORCED } else { 0 };
        for lun in &self.luns {
            *body[TABLE..TABLE + luns].get_mut(usize::from(*lun))? = TAKE;
        }
        Some(body)
    }

    /// Reads the parameter list of a MODE SELECT(6), with `ten` of a (10);
    /// `None` if it is no transfer of specified LUNs by this page.
    pub fn parse(list: &[u8], ten: bool) -> Option<TakeOwnership> {
        let pages = mode::selected_pages(list, ten)?;
        let (body, luns) = match pages {
            [0x2c, BODY_6, body @ ..] if !ten => (body.get(..usize::from(BODY_6))?, 32),
            [0x6c, 1, 0x01, 0x28, body @ ..] if ten => (body.get(..usize::from(BODY_10))?, 256),
            _ => return None,
        };
        if body[RDAC_MODE] != TRANSFER_SPECIFIED {
            return None;
        }
        let marked = body[TABLE..TABLE + luns].iter().zip(0u8..=u8::MAX);
        Some(TakeOwnership {
            luns: marked.filter(|(mark, _)| **mark == TAKE).map(|(_, lun)| lun).collect(),
            quiescence: body[QUIESCENCE],
            forced: body[OPTIONS] & FORCED != 0,
        })
    }
}

#[cfg(test)]
mod tests;
