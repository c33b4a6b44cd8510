//! CLARiiON, VNX and Unity in their non-ALUA modes: VPD page C0h (unit path
//! report) and mode page 22h (trespass), encode and decode.
//!
//! An LU has two service processors (SP), of which one owns it; the other
//! answers READ and WRITE with 02/04/03. MODE SELECT of page 22h makes the SP
//! that receives it the owner. Formats as Linux' `scsi_dh_emc` and
//! multipath-tools use them (the vendor's are not public).

use super::{mode, vpd};

/// Unit path report.
pub const UNIT_PATH_REPORT: u8 = 0xc0;
/// Trespass mode page.
pub const TRESPASS: u8 = 0x22;
/// Bytes to ask for of page C0h.
pub const ALLOCATION: u16 = 252;

/// Whether and where the LU is bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// Not bound, or LUNZ (a place holder).
    #[default]
    Unbound,
    /// Bound; the other SP owns it.
    Bound,
    /// This SP owns it.
    Owned,
    /// No value that is known.
    Other(u8),
}

impl Binding {
    /// LUN STATE.
    pub fn from_byte(byte: u8) -> Binding {
        match byte {
            0 => Binding::Unbound,
            1 => Binding::Bound,
            2 => Binding::Owned,
            other => Binding::Other(other),
        }
    }

    /// LUN STATE.
    pub fn to_byte(self) -> u8 {
        match self {
            Binding::Unbound => 0,
            Binding::Bound => 1,
            Binding::Owned => 2,
            Binding::Other(byte) => byte,
        }
    }
}

/// Page C0h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitPathReport {
    /// LUN STATE.
    pub binding: Binding,
    /// The SP that owns the LU by default: 0 = A, 1 = B.
    pub default_sp: u8,
    /// Port of the SP that answers.
    pub port: u8,
    /// The SP that answers.
    pub current_sp: u8,
    /// Revision of the page; 0 is the one known.
    pub revision: u8,
    /// WWN of the LU.
    pub wwn: [u8; 16],
    /// Effective initiator type; 3 is the one that works.
    pub initiator_type: u8,
    /// Failover mode and what shares its byte; see
    /// [`fit_for_failover`](UnitPathReport::fit_for_failover).
    pub failover_mode: u8,
    /// Arraycommpath and what shares its byte.
    pub options: u8,
    /// 0 = normal operation; else an upgrade of the array (NDU) is going on.
    pub operation: u8,
}

/// PNR failover mode (1 in the array's counting).
pub const MODE_PNR: u8 = 0x04;
/// ALUA failover mode (4 in the array's counting).
pub const MODE_ALUA: u8 = 0x06;
/// Initiator type of a host with failover software.
pub const INITIATOR_FAILOVER: u8 = 0x03;
/// Arraycommpath is on.
pub const ARRAYCOMMPATH: u8 = 0x04;

/// The page's length.
const LEN: usize = 64;

impl UnitPathReport {
    /// Reads page C0h; `None` if it is not that page, or shorter than what is
    /// needed of it.
    pub fn parse(page: &[u8]) -> Option<UnitPathReport> {
        // Some models state no page length that is right; the bytes decide.
        let page = page.get(..49).filter(|page| page[1] == UNIT_PATH_REPORT)?;
        Some(UnitPathReport {
            binding: Binding::from_byte(page[4]),
            default_sp: page[5],
            port: page[7],
            current_sp: page[8],
            revision: page[9],
            wwn: page[10..26].try_into().ok()?,
            initiator_type: page[27],
            failover_mode: page[28],
            options: page[30],
            operation: page[48],
        })
    }

    /// Page C0h.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vpd::page(UNIT_PATH_REPORT, &[0; LEN - 4]);
        page[4] = self.binding.to_byte();
        page[5] = self.default_sp;
        page[7] = self.port;
        page[8] = self.current_sp;
        page[9] = self.revision;
        page[10..26].copy_from_slice(&self.wwn);
        page[27] = self.initiator_type;
        page[28] = self.failover_mode;
        page[30] = self.options;
        page[48] = self.operation;
        page
    }

    /// Whether the array treats this path as one of several: the initiator
    /// type, failover mode 1 or 4, arraycommpath.
    pub fn fit_for_failover(&self) -> bool {
        self.initiator_type == INITIATOR_FAILOVER
            && matches!(self.failover_mode & 0x07, MODE_PNR | MODE_ALUA)
            && self.options & ARRAYCOMMPATH != 0
    }

    /// Whether the SP that answers is the default one.
    pub fn on_default_sp(&self) -> bool {
        self.default_sp == self.current_sp
    }
}

/// MODE SELECT of page 22h: the SP that receives it becomes the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trespass {
    /// Not in spite of another host's reservation.
    pub honor_reservations: bool,
}

/// TRESPASS CODE: trespass the addressed LU.
const CODE: u8 = 0x01;
/// In the same byte.
const HONOR_RESERVATIONS: u8 = 0x80;

impl Trespass {
    fn code(self) -> u8 {
        if self.honor_reservations { CODE | HONOR_RESERVATIONS } else { CODE }
    }

    /// Parameter list of MODE SELECT(6), for the FC series.
    pub fn encode_6(self) -> [u8; 8] {
        [0, 0, 0, 0, TRESPASS, 2, self.code(), 0xff]
    }

    /// Parameter list of MODE SELECT(10), for the others.
    pub fn encode_10(self) -> [u8; 19] {
        [0, 0, 0, 0, 0, 0, 0, 0, TRESPASS, 9, self.code(), 0xff, 0xff, 0, 0, 0, 0, 0, 0]
    }

    /// Reads the parameter list of a MODE SELECT(6), with `ten` of a (10);
    /// `None` if it is no trespass of the addressed LU.
    pub fn parse(list: &[u8], ten: bool) -> Option<Trespass> {
        let (code, target) = match mode::selected_pages(list, ten)? {
            [TRESPASS, 2, code, target] if !ten => (*code, [*target; 2]),
            [TRESPASS, 9, code, high, low, _, _, _, _, _, _] if ten => (*code, [*high, *low]),
            _ => return None,
        };
        let honor_reservations = code & HONOR_RESERVATIONS != 0;
        (code & !HONOR_RESERVATIONS == CODE && target == [0xff; 2])
            .then_some(Trespass { honor_reservations })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIT: UnitPathReport = UnitPathReport {
        binding: Binding::Owned,
        default_sp: 1,
        port: 2,
        current_sp: 1,
        revision: 0,
        wwn: [0x60; 16],
        initiator_type: 3,
        failover_mode: 4,
        options: 4,
        operation: 0,
    };

    #[test]
    fn the_unit_path_report_is_where_the_drivers_look_for_it() {
        let page = FIT.encode();
        assert_eq!(page[..10], [0, 0xc0, 0, 60, 2, 1, 0, 2, 1, 0]);
        assert_eq!((page[10], page[25], page[27], page[28], page[30]), (0x60, 0x60, 3, 4, 4));
        assert_eq!(UnitPathReport::parse(&page[..48]), None, "cut before its last field");
        let mut other = page;
        other[1] = 0xc9;
        assert_eq!(UnitPathReport::parse(&other), None);
    }

    #[test]
    fn fitness_for_failover_is_three_fields() {
        assert!(FIT.fit_for_failover());
        assert!(UnitPathReport { failover_mode: 0x16, ..FIT }.fit_for_failover(), "ALUA");
        assert!(!UnitPathReport { failover_mode: 5, ..FIT }.fit_for_failover());
        assert!(!UnitPathReport { initiator_type: 2, ..FIT }.fit_for_failover());
        assert!(!UnitPathReport { options: 0xfb, ..FIT }.fit_for_failover());
    }

    #[test]
    fn the_trespass_page_is_the_drivers_in_both_forms() {
        for (honor_reservations, code) in [(false, 0x01), (true, 0x81)] {
            let trespass = Trespass { honor_reservations };
            let (six, ten) = (trespass.encode_6(), trespass.encode_10());
            assert_eq!(six, [0, 0, 0, 0, 0x22, 2, code, 0xff]);
            assert_eq!(ten[8..13], [0x22, 9, code, 0xff, 0xff]);
            assert_eq!(Trespass::parse(&six, false), Some(trespass));
            assert_eq!(Trespass::parse(&ten, true), Some(trespass));
            assert_eq!(Trespass::parse(&ten, false), None);
            assert_eq!(Trespass::parse(&ten[..18], true), None);
        }
        assert_eq!(Trespass::parse(&[0, 0, 0, 0, 0x22, 2, 0x02, 0xff], false), None);
        assert_eq!(Trespass::parse(&[0, 0, 0, 0, 0x22, 2, 0x01, 0x00], false), None);
    }

    proptest! {
        #[test]
        fn the_report_survives_the_wire(raw in any::<[u8; 9]>(), wwn in any::<[u8; 16]>()) {
            let report = UnitPathReport {
                binding: Binding::from_byte(raw[0]), default_sp: raw[1], port: raw[2],
                current_sp: raw[3], revision: raw[4], wwn, initiator_type: raw[5],
                failover_mode: raw[6], options: raw[7], operation: raw[8],
            };
            prop_assert_eq!(UnitPathReport::parse(&report.encode()), Some(report));
        }

        #[test]
        fn hostile_data_never_panics(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(UnitPathReport::parse(&raw).is_none() || raw.len() >= 49);
            let _ = (Trespass::parse(&raw, false), Trespass::parse(&raw, true));
        }
    }
}
