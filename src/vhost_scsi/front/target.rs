//! What the guest's *target* answers, and not a LU behind it: the inventory,
//! LUNs where no LU is, pending unit attentions, access states (SPC-5 4.6,
//! SAM-5 4.7, 5.14).
//!
//! Only answers; nothing here touches guest memory.

use crate::scsi::alua;
use crate::scsi::cdb::Cdb;
use crate::scsi::inquiry;
use crate::scsi::luns::{self, Address};
use crate::scsi::sense::{FieldPointer, Sense, SenseCode, SenseFormat};
use crate::scsi::vpd;

use super::{Answer, Ending};
use crate::vhost_scsi::units::{Unit, Units};

const TEST_UNIT_READY: u8 = 0x00;
const REQUEST_SENSE: u8 = 0x03;
const INQUIRY: u8 = 0x12;
const REPORT_LUNS: u8 = 0xa0;
const MAINTENANCE_IN: u8 = 0xa3;
/// Service action of MAINTENANCE IN.
const REPORT_TARGET_PORT_GROUPS: u8 = 0x0a;

/// The group and the port a guest sees where it sees one LU.
const TARGET_PORT_GROUP: u16 = 1;
const TARGET_PORT: u16 = 1;

/// The second level of a LUN field that addresses the REPORT LUNS well-known
/// LU of the target before it. Linux builds such fields.
const WELL_KNOWN: [u8; 6] = [0xc1, 0x01, 0, 0, 0, 0];

/// Reads the LUN field of a request; `None` for formats that address nothing.
pub(super) fn address(lun: &[u8; 8]) -> Option<Address> {
    if lun[0] == 1 && lun[2..] == WELL_KNOWN {
        return Some(Address::WellKnownReportLuns);
    }
    luns::decode(lun)
}

/// The target whose well-known LU that is; the field that virtio 1.3 5.6.6.1
/// gives the REPORT LUNS well-known LU names none: the first that has LUs.
pub(super) fn of_well_known(lun: &[u8; 8], units: &Units) -> Option<u8> {
    let target = if lun[0] == 1 { Some(lun[1]) } else { units.first_target() };
    target.filter(|target| !units.of_target(*target).is_empty())
}

/// A command to the REPORT LUNS well-known LU (SPC-5 7.9).
pub(super) fn well_known(units: &Units, target: u8, cdb: &Cdb) -> Answer {
    match cdb.opcode() {
        TEST_UNIT_READY => Answer::Ending(Ending::GOOD),
        REPORT_LUNS => report_luns(units, target, cdb),
        REQUEST_SENSE => sense_data(cdb, &Sense::fixed(SenseCode::NO_SENSE)),
        INQUIRY => {
            let pages =
                [inquiry::TYPE_WELL_KNOWN, vpd::SUPPORTED_PAGES, 0, 1, vpd::SUPPORTED_PAGES];
            own_inquiry(cdb, &inquiry::well_known(), &pages)
        }
        _ => Answer::check(SenseCode::INVALID_OPCODE),
    }
}

/// A command to a LUN where the target has no LU (SPC-5 4.6.1).
pub(super) fn absent(units: &Units, target: u8, cdb: &Cdb) -> Answer {
    match cdb.opcode() {
        INQUIRY => own_inquiry(cdb, &inquiry::absent(), &vpd::supported_of_absent()),
        REPORT_LUNS => report_luns(units, target, cdb),
        REQUEST_SENSE => sense_data(cdb, &Sense::fixed(SenseCode::LUN_NOT_SUPPORTED)),
        _ => Answer::check(SenseCode::LUN_NOT_SUPPORTED),
    }
}

/// Delivers a pending unit attention, unless the command is one that is done
/// nevertheless (SAM-5 5.14).
pub(super) fn attention(unit: &Unit, cdb: &Cdb) -> Option<Answer> {
    match cdb.opcode() {
        INQUIRY | REPORT_LUNS => None,
        REQUEST_SENSE => unit.attentions.take().map(|sense| sense_data(cdb, &sense)),
        _ => unit.attentions.take().map(|sense| Answer::Ending(Ending::attention(sense))),
    }
}

/// What we answer for a LU that exists; `None`: the LU is to be asked.
pub(super) fn answer(units: &Units, unit: &Unit, cdb: &Cdb) -> Option<Answer> {
    let raw = cdb.as_slice();
    match cdb.opcode() {
        REPORT_LUNS => Some(report_luns(units, unit.target, cdb)),
        MAINTENANCE_IN if unit.joined && raw[1] & 0x1f == REPORT_TARGET_PORT_GROUPS => {
            Some(data_or_sense(alua::answer(cdb, TARGET_PORT_GROUP, TARGET_PORT)))
        }
        INQUIRY if unit.joined && raw[1] & EVPD != 0 && vpd::withheld(raw[2]) => {
            Some(invalid(FieldPointer::cdb(2)))
        }
        _ => None,
    }
}

/// EVPD of INQUIRY, byte 1.
pub(super) const EVPD: u8 = 0x01;

/// The inventory of the target; with it the guest knows what 3F/0E would tell
/// it (SPC-5 6.33).
fn report_luns(units: &Units, target: u8, cdb: &Cdb) -> Answer {
    let units = units.of_target(target);
    let answer = luns::answer(cdb, units.iter().map(|unit| unit.lun));
    if answer.is_ok() {
        for unit in units {
            unit.attentions.forget(SenseCode::REPORTED_LUNS_CHANGED);
        }
    }
    data_or_sense(answer)
}

/// INQUIRY of what is no LU of an array: standard data and page 00h.
fn own_inquiry(cdb: &Cdb, standard: &[u8], pages: &[u8]) -> Answer {
    let raw = cdb.as_slice();
    let data = match (raw[1], raw[2]) {
        (0, 0) => standard,
        (EVPD, vpd::SUPPORTED_PAGES) => pages,
        (0 | EVPD, _) => return invalid(FieldPointer::cdb(2)),
        _ => return invalid(FieldPointer::cdb(1)),
    };
    let allocation = usize::from(u16::from_be_bytes([raw[3], raw[4]]));
    Answer::Data(data[..data.len().min(allocation)].to_vec())
}

/// REQUEST SENSE (SPC-5 6.39): `sense` as it is where its format is the one
/// asked for, else built anew from its code.
fn sense_data(cdb: &Cdb, sense: &Sense) -> Answer {
    let raw = cdb.as_slice();
    let format = SenseFormat::of(raw[1] & 0x01 != 0);
    let is = sense.as_bytes().first().map(|byte| SenseFormat::of(byte & 0x7f >= 0x72));
    let sense = match sense.code() {
        Some(code) if is != Some(format) => Sense::build(format, code, None),
        _ => *sense,
    };
    let data = sense.as_bytes();
    Answer::Data(data[..data.len().min(usize::from(raw[4]))].to_vec())
}

fn data_or_sense(answer: Result<Vec<u8>, (SenseCode, FieldPointer)>) -> Answer {
    match answer {
        Ok(data) => Answer::Data(data),
        Err((code, field)) => Answer::Ending(Ending::ours(code, Some(field))),
    }
}

/// 05/24/00, with the field.
pub(super) fn invalid(field: FieldPointer) -> Answer {
    data_or_sense(Err((SenseCode::INVALID_FIELD_IN_CDB, field)))
}
