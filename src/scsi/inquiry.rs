//! Standard INQUIRY data (SPC-5 6.7.2).
//!
//! The fields a multipath engine looks at; the vital product data pages are
//! in [`super::vpd`].

use super::be;

/// Bytes every LU must return, and the least we accept.
pub const LEN_MIN: usize = 36;

/// Peripheral device type of a direct-access block device.
pub const TYPE_DISK: u8 = 0x00;

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

    proptest! {
        #[test]
        fn hostile_data_never_panics_and_prints_safely(raw in prop::collection::vec(any::<u8>(), 0..64)) {
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
