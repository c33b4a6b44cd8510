//! Additional sense codes in words (SPC-5 annex F).
//!
//! Not the whole of the annex: the codes disks and arrays send. The words do
//! not depend on the sense key.

use super::SenseCode;

/// What the additional sense code says, in the standard's words; `None` for
/// codes not in the table (vendor specific ones among them).
pub fn describe(code: SenseCode) -> Option<&'static str> {
    let wanted = (code.asc, code.ascq);
    TABLE
        .binary_search_by_key(&wanted, |(asc, ascq, _)| (*asc, *ascq))
        .ok()
        .map(|index| TABLE[index].2)
}

/// ASC, ASCQ and words; ascending.
const TABLE: &[(u8, u8, &str)] = &[
    (0x00, 0x00, "No additional sense information"),
    (0x00, 0x06, "I/O process terminated"),
    (0x03, 0x00, "Peripheral device write fault"),
    (0x04, 0x00, "Logical unit not ready, cause not reportable"),
    (0x04, 0x01, "Logical unit is in process of becoming ready"),
    (0x04, 0x02, "Logical unit not ready, initializing command required"),
    (0x04, 0x03, "Logical unit not ready, manual intervention required"),
    (0x04, 0x04, "Logical unit not ready, format in progress"),
    (0x04, 0x05, "Logical unit not ready, rebuild in progress"),
    (0x04, 0x07, "Logical unit not ready, operation in progress"),
    (0x04, 0x09, "Logical unit not ready, self-test in progress"),
    (0x04, 0x0a, "Logical unit not accessible, asymmetric access state transition"),
    (0x04, 0x0b, "Logical unit not accessible, target port in standby state"),
    (0x04, 0x0c, "Logical unit not accessible, target port in unavailable state"),
    (0x04, 0x10, "Logical unit not ready, auxiliary memory not accessible"),
    (0x04, 0x11, "Logical unit not ready, notify (enable spinup) required"),
    (0x04, 0x12, "Logical unit not ready, offline"),
    (0x04, 0x14, "Logical unit not ready, space allocation in progress"),
    (0x04, 0x1b, "Logical unit not ready, sanitize in progress"),
    (0x05, 0x00, "Logical unit does not respond to selection"),
    (0x08, 0x00, "Logical unit communication failure"),
    (0x08, 0x01, "Logical unit communication time-out"),
    (0x08, 0x02, "Logical unit communication parity error"),
    (0x08, 0x03, "Logical unit communication CRC error"),
    (0x0b, 0x00, "Warning"),
    (0x0b, 0x01, "Warning - specified temperature exceeded"),
    (0x0c, 0x00, "Write error"),
    (0x0c, 0x02, "Write error - auto reallocation failed"),
    (0x0c, 0x03, "Write error - recommend reassignment"),
    (0x0e, 0x03, "Invalid field in command information unit"),
    (0x10, 0x00, "ID CRC or ECC error"),
    (0x10, 0x01, "Logical block guard check failed"),
    (0x10, 0x02, "Logical block application tag check failed"),
    (0x10, 0x03, "Logical block reference tag check failed"),
    (0x11, 0x00, "Unrecovered read error"),
    (0x11, 0x01, "Read retries exhausted"),
    (0x11, 0x04, "Unrecovered read error - auto reallocate failed"),
    (0x11, 0x0b, "Unrecovered read error - recommend reassignment"),
    (0x11, 0x14, "Read error - LBA marked bad by application client"),
    (0x13, 0x00, "Address mark not found for data field"),
    (0x14, 0x00, "Recorded entity not found"),
    (0x14, 0x01, "Record not found"),
    (0x15, 0x00, "Random positioning error"),
    (0x17, 0x01, "Recovered data with retries"),
    (0x18, 0x00, "Recovered data with error correction applied"),
    (0x1a, 0x00, "Parameter list length error"),
    (0x1b, 0x00, "Synchronous data transfer error"),
    (0x1d, 0x00, "Miscompare during verify operation"),
    (0x20, 0x00, "Invalid command operation code"),
    (0x20, 0x02, "Access denied - no access rights"),
    (0x21, 0x00, "Logical block address out of range"),
    (0x21, 0x04, "Unaligned write command"),
    (0x21, 0x05, "Write boundary violation"),
    (0x22, 0x00, "Illegal function"),
    (0x24, 0x00, "Invalid field in CDB"),
    (0x25, 0x00, "Logical unit not supported"),
    (0x26, 0x00, "Invalid field in parameter list"),
    (0x26, 0x01, "Parameter not supported"),
    (0x26, 0x02, "Parameter value invalid"),
    (0x26, 0x04, "Invalid release of persistent reservation"),
    (0x27, 0x00, "Write protected"),
    (0x27, 0x01, "Hardware write protected"),
    (0x27, 0x02, "Logical unit software write protected"),
    (0x27, 0x07, "Space allocation failed write protect"),
    (0x28, 0x00, "Not ready to ready change, medium may have changed"),
    (0x29, 0x00, "Power on, reset, or bus device reset occurred"),
    (0x29, 0x01, "Power on occurred"),
    (0x29, 0x02, "SCSI bus reset occurred"),
    (0x29, 0x03, "Bus device reset function occurred"),
    (0x29, 0x04, "Device internal reset"),
    (0x29, 0x05, "Transceiver mode changed to single-ended"),
    (0x29, 0x06, "Transceiver mode changed to LVD"),
    (0x29, 0x07, "I_T nexus loss occurred"),
    (0x2a, 0x00, "Parameters changed"),
    (0x2a, 0x01, "Mode parameters changed"),
    (0x2a, 0x02, "Log parameters changed"),
    (0x2a, 0x03, "Reservations preempted"),
    (0x2a, 0x04, "Reservations released"),
    (0x2a, 0x05, "Registrations preempted"),
    (0x2a, 0x06, "Asymmetric access state changed"),
    (0x2a, 0x07, "Implicit asymmetric access state transition failed"),
    (0x2a, 0x08, "Priority changed"),
    (0x2a, 0x09, "Capacity data has changed"),
    (0x2a, 0x10, "Timestamp changed"),
    (0x2c, 0x00, "Command sequence error"),
    (0x2c, 0x09, "Previous reservation conflict status"),
    (0x2e, 0x01, "Command timeout before processing"),
    (0x2e, 0x02, "Command timeout during processing"),
    (0x2e, 0x03, "Command timeout during processing due to error recovery"),
    (0x2f, 0x00, "Commands cleared by another initiator"),
    (0x2f, 0x01, "Commands cleared by power loss notification"),
    (0x2f, 0x02, "Commands cleared by device server"),
    (0x31, 0x00, "Medium format corrupted"),
    (0x32, 0x00, "No defect spare location available"),
    (0x35, 0x00, "Enclosure services failure"),
    (0x37, 0x00, "Rounded parameter"),
    (0x38, 0x07, "Thin provisioning soft threshold reached"),
    (0x39, 0x00, "Saving parameters not supported"),
    (0x3a, 0x00, "Medium not present"),
    (0x3e, 0x00, "Logical unit has not self-configured yet"),
    (0x3e, 0x01, "Logical unit failure"),
    (0x3e, 0x02, "Timeout on logical unit"),
    (0x3f, 0x00, "Target operating conditions have changed"),
    (0x3f, 0x01, "Microcode has been changed"),
    (0x3f, 0x02, "Changed operating definition"),
    (0x3f, 0x03, "Inquiry data has changed"),
    (0x3f, 0x05, "Device identifier changed"),
    (0x3f, 0x0a, "Volume set created or modified"),
    (0x3f, 0x0e, "Reported LUNs data has changed"),
    (0x40, 0x00, "RAM failure"),
    (0x41, 0x00, "Data path failure"),
    (0x43, 0x00, "Message error"),
    (0x44, 0x00, "Internal target failure"),
    (0x45, 0x00, "Select or reselect failure"),
    (0x47, 0x00, "SCSI parity error"),
    (0x47, 0x01, "Data phase CRC error detected"),
    (0x47, 0x03, "Information unit iuCRC error detected"),
    (0x48, 0x00, "Initiator detected error message received"),
    (0x49, 0x00, "Invalid message error"),
    (0x4b, 0x00, "Data phase error"),
    (0x4b, 0x03, "ACK/NAK timeout"),
    (0x4b, 0x04, "NAK received"),
    (0x4b, 0x05, "Data offset error"),
    (0x4b, 0x06, "Initiator response timeout"),
    (0x4b, 0x07, "Connection lost"),
    (0x4e, 0x00, "Overlapped commands attempted"),
    (0x53, 0x02, "Medium removal prevented"),
    (0x55, 0x00, "System resource failure"),
    (0x55, 0x03, "Insufficient resources"),
    (0x55, 0x04, "Insufficient registration resources"),
    (0x55, 0x0e, "Insufficient zone resources"),
    (0x5d, 0x00, "Failure prediction threshold exceeded"),
    (0x5e, 0x00, "Low power condition on"),
    (0x68, 0x00, "Logical unit not configured"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::sense::Key;

    #[test]
    fn table_is_sorted_so_that_every_row_is_found() {
        assert!(TABLE.windows(2).all(|w| (w[0].0, w[0].1) < (w[1].0, w[1].1)));
        for (asc, ascq, words) in TABLE {
            assert_eq!(describe(SenseCode::new(Key::NotReady, *asc, *ascq)), Some(*words));
        }
    }

    #[test]
    fn unknown_codes_have_no_words() {
        assert_eq!(describe(SenseCode::new(Key::NotReady, 0x04, 0xf0)), None);
        assert_eq!(describe(SenseCode::new(Key::HardwareError, 0x80, 0x01)), None);
    }
}
