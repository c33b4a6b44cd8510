//! Standard INQUIRY data (SPC-5 6.7.2).
//!
//! The fields a multipath engine looks at; the vital product data pages are
//! in [`super::vpd`].

use super::be;

/// Bytes every LU must return, and the least we accept.
pub const LEN_MIN: usize = 36;

/// Peripheral device type of a direct-access block device.
pub const TYPE_DISK: u8 = 0x00;

/// Peripheral device type of a well-known LU.
pub const TYPE_WELL_KNOWN: u8 = 0x1e;

/// TPGS, byte 5.
const TPGS: u8 = 0x30;
/// 3PC, byte 5.
const THIRD_PARTY_COPY: u8 = 0x08;
/// MULTIP, byte 6.
const MULTIP: u8 = 0x10;

/// Standard INQUIRY data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inquiry {
    /// Peripheral qualifier: 0 = an LU is there; 1 = none now; 3 = never.
    pub qualifier: u8,
    /// Peripheral device type; [`TYPE_DISK`] for disks.
    pub device_type: u8,
    /// RMB.
    pub removable: bool,
    /// VERSION: 06h = SPC-4, 07h = SPC-5.
    pub version: u8,
    /// TPGS: bit 0 implicit, bit 1 explicit ALUA.
    pub tpgs: u8,
    /// 3PC: third-party copy.
    pub third_party_copy: bool,
    /// PROTECT.
    pub protect: bool,
    /// MULTIP: more than one port.
    pub multi_port: bool,
    /// CMDQUE.
    pub command_queueing: bool,
    /// T10 vendor, trimmed.
    pub vendor: String,
    /// Product, trimmed.
    pub product: String,
    /// Revision, trimmed.
    pub revision: String,
}

impl Inquiry {
    /// Reads standard INQUIRY data; `None` below [`LEN_MIN`] bytes.
    pub fn parse(data: &[u8]) -> Option<Inquiry> {
        let data = data.get(..LEN_MIN)?;
        Some(Inquiry {
            qualifier: data[0] >> 5,
            device_type: data[0] & 0x1f,
            removable: data[1] & 0x80 != 0,
            version: data[2],
            tpgs: data[5] >> 4 & 0x03,
            third_party_copy: data[5] & 0x08 != 0,
            protect: data[5] & 0x01 != 0,
            multi_port: data[6] & 0x10 != 0,
            command_queueing: data[7] & 0x02 != 0,
            vendor: be::ascii_trimmed(&data[8..16]),
            product: be::ascii_trimmed(&data[16..32]),
            revision: be::ascii_trimmed(&data[32..36]),
        })
    }

    /// Standard INQUIRY data of [`LEN_MIN`] bytes (HISUP=1, format 2).
    pub fn encode(&self) -> [u8; LEN_MIN] {
        let mut data = [0; LEN_MIN];
        data[0] = self.qualifier << 5 | self.device_type & 0x1f;
        data[1] = u8::from(self.removable) << 7;
        data[2] = self.version;
        data[3] = 0x12;
        data[4] = 31; // bytes after this one
        data[5] =
            (self.tpgs & 0x03) << 4 | u8::from(self.third_party_copy) << 3 | u8::from(self.protect);
        data[6] = u8::from(self.multi_port) << 4;
        data[7] = u8::from(self.command_queueing) << 1;
        be::put(&mut data, 8, be::ascii_padded::<8>(&self.vendor));
        be::put(&mut data, 16, be::ascii_padded::<16>(&self.product));
        be::put(&mut data, 32, be::ascii_padded::<4>(&self.revision));
        data
    }

    /// Whether a disk answers at this LUN.
    pub fn is_disk(&self) -> bool {
        self.qualifier == 0 && self.device_type == TYPE_DISK
    }
}

/// Makes standard INQUIRY data that of one LU behind one port: TPGS (no
/// asymmetric access), 3PC (no third-party copy) and MULTIP are cleared, the
/// rest stays byte for byte. Data of any length; bytes that are not there are
/// left alone.
pub fn hide_paths(data: &mut [u8]) {
    if let Some(byte) = data.get_mut(5) {
        *byte &= !(TPGS | THIRD_PARTY_COPY);
    }
    if let Some(byte) = data.get_mut(6) {
        *byte &= !MULTIP;
    }
}

/// Standard INQUIRY data for a LUN where no LU is or can be: peripheral
/// qualifier 3, device type 1Fh (7Fh together; SPC-5 6.7.2).
pub fn absent() -> [u8; LEN_MIN] {
    own(3, 0x1f)
}

/// Standard INQUIRY data of the REPORT LUNS well-known LU.
pub fn well_known() -> [u8; LEN_MIN] {
    own(0, TYPE_WELL_KNOWN)
}

/// INQUIRY data that no LU gave us: we are the target.
fn own(qualifier: u8, device_type: u8) -> [u8; LEN_MIN] {
    Inquiry {
        qualifier,
        device_type,
        version: 0x07,
        command_queueing: true,
        vendor: "VHMPATH".to_owned(),
        product: "TARGET".to_owned(),
        revision: "1".to_owned(),
        ..Inquiry::default()
    }
    .encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_padded_cut_and_trimmed() {
        let inquiry = Inquiry {
            vendor: "ACME".into(),
            product: "A name longer than its field".into(),
            revision: "1".into(),
            tpgs: 3,
            multi_port: true,
            ..Inquiry::default()
        };
        let data = inquiry.encode();
        assert_eq!(&data[8..16], b"ACME    ");
        assert_eq!(data[5], 0x30);
        let parsed = Inquiry::parse(&data).unwrap();
        assert_eq!(parsed.product, "A name longer th");
        assert_eq!(parsed.vendor, "ACME");
        assert!(parsed.is_disk() && parsed.multi_port);
    }

    #[test]
    fn an_absent_lun_is_no_disk() {
        let mut data = Inquiry::default().encode();
        data[0] = 0x7f; // what targets answer for a LUN they do not have
        assert!(!Inquiry::parse(&data).unwrap().is_disk());
    }

    #[test]
    fn what_we_answer_ourselves_is_no_disk() {
        assert_eq!(absent()[0], 0x7f);
        assert_eq!(well_known()[0], 0x1e);
        for data in [absent(), well_known()] {
            let inquiry = Inquiry::parse(&data).unwrap();
            assert!(!inquiry.is_disk());
            assert_eq!((data.len(), data[4]), (36, 31), "additional length");
            assert_eq!(data[3] & 0x0f, 2, "response data format");
        }
    }

    proptest! {
        #[test]
        fn hostile_data_never_panics_and_prints_safely(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut hidden = raw.clone();
            hide_paths(&mut hidden);
            if let Some(inquiry) = Inquiry::parse(&hidden) {
                prop_assert!(!inquiry.multi_port && !inquiry.third_party_copy && inquiry.tpgs == 0);
            }
            let once = hidden.clone();
            hide_paths(&mut hidden);
            prop_assert_eq!(&once, &hidden, "an edit done twice is the edit");
            for (i, (was, is)) in raw.iter().zip(&once).enumerate() {
                let may_change = match i { 5 => 0x38, 6 => 0x10, _ => 0 };
                prop_assert_eq!(was & !may_change, *is, "byte {}", i);
            }
            prop_assert_eq!(raw.len(), once.len());
            match Inquiry::parse(&raw) {
                None => prop_assert!(raw.len() < LEN_MIN),
                Some(inquiry) => {
                    let text = inquiry.vendor + &inquiry.product + &inquiry.revision;
                    prop_assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b)));
                }
            }
        }
    }
}
