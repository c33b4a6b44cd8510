//! READ CAPACITY(10) and (16) parameter data (SBC-4 5.20, 5.21).
//!
//! Wire format only: which of the two to send, and what a change of capacity
//! means, is decided elsewhere.

use super::be;
use crate::scsi::block::Blocks;

/// Bytes of READ CAPACITY(10) data.
pub const LEN_10: usize = 8;
/// Bytes of READ CAPACITY(16) data.
pub const LEN_16: usize = 32;

/// What READ CAPACITY(16) says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Capacity in logical blocks (the wire carries the last LBA).
    pub blocks: Blocks,
    /// Logical block length in bytes.
    pub block_size: u32,
    /// PROT_EN: formatted with protection information.
    pub protected: bool,
    /// LBPPBE: log2 of logical blocks per physical block.
    pub physical_block_exp: u8,
    /// LALBA: lowest LBA aligned to a physical block (14 bits).
    pub lowest_aligned: u16,
    /// LBPME: logical block provisioning management is enabled.
    pub provisioning: bool,
    /// LBPRZ: unmapped blocks read as zeroes.
    pub unmapped_reads_zero: bool,
}

/// What READ CAPACITY(10) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity10 {
    /// Capacity in logical blocks; `None` when the LU is too big to say
    /// (last LBA FFFFFFFFh): ask by READ CAPACITY(16).
    pub blocks: Option<Blocks>,
    /// Logical block length in bytes.
    pub block_size: u32,
}

impl Capacity {
    /// Reads READ CAPACITY(16) data; `None` if shorter than the fields up to
    /// LALBA (16 bytes) or the capacity does not fit 64 bits.
    pub fn parse_16(data: &[u8]) -> Option<Capacity> {
        let last = be::u64_at(data, 0)?;
        let flags = be::u16_at(data, 14)?;
        Some(Capacity {
            blocks: Blocks(last.checked_add(1)?),
            block_size: be::u32_at(data, 8)?,
            protected: data[12] & 0x01 != 0,
            physical_block_exp: data[13] & 0x0f,
            lowest_aligned: flags & 0x3fff,
            provisioning: flags & 0x8000 != 0,
            unmapped_reads_zero: flags & 0x4000 != 0,
        })
    }

    /// READ CAPACITY(16) data. An LU of no blocks cannot be expressed and is
    /// shown as one block.
    pub fn encode_16(&self) -> [u8; LEN_16] {
        let mut data = [0; LEN_16];
        be::put(&mut data, 0, self.blocks.0.saturating_sub(1).to_be_bytes());
        be::put(&mut data, 8, self.block_size.to_be_bytes());
        data[12] = u8::from(self.protected);
        data[13] = self.physical_block_exp & 0x0f;
        let flags = u16::from(self.provisioning) << 15
            | u16::from(self.unmapped_reads_zero) << 14
            | self.lowest_aligned & 0x3fff;
        be::put(&mut data, 14, flags.to_be_bytes());
        data
    }

    /// READ CAPACITY(10) data of the same LU.
    pub fn encode_10(&self) -> [u8; LEN_10] {
        let last = u32::try_from(self.blocks.0.saturating_sub(1)).unwrap_or(u32::MAX);
        let mut data = [0; LEN_10];
        be::put(&mut data, 0, last.to_be_bytes());
        be::put(&mut data, 4, self.block_size.to_be_bytes());
        data
    }
}

impl Capacity10 {
    /// Reads READ CAPACITY(10) data; `None` if shorter than 8 bytes.
    pub fn parse(data: &[u8]) -> Option<Capacity10> {
        let last = be::u32_at(data, 0)?;
        let blocks = (last != u32::MAX).then(|| Blocks(u64::from(last) + 1));
        Some(Capacity10 { blocks, block_size: be::u32_at(data, 4)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THIN_4K: Capacity = Capacity {
        blocks: Blocks(0x1_0000_0000),
        block_size: 512,
        protected: false,
        physical_block_exp: 3,
        lowest_aligned: 1,
        provisioning: true,
        unmapped_reads_zero: true,
    };

    #[test]
    fn flags_sit_where_the_standard_puts_them() {
        let data = THIN_4K.encode_16();
        assert_eq!(&data[..8], &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(&data[8..16], &[0, 0, 2, 0, 0, 3, 0xc0, 1]);
    }

    #[test]
    fn too_big_for_ten_says_ask_sixteen() {
        let ten = Capacity10::parse(&THIN_4K.encode_10()).unwrap();
        assert_eq!(ten, Capacity10 { blocks: None, block_size: 512 });
        let small = Capacity { blocks: Blocks(8), ..THIN_4K };
        assert_eq!(Capacity10::parse(&small.encode_10()).unwrap().blocks, Some(Blocks(8)));
    }

    #[test]
    fn short_answers_are_no_answers() {
        assert_eq!(Capacity::parse_16(&THIN_4K.encode_16()[..15]), None);
        assert_eq!(Capacity10::parse(&[0; 7]), None);
        assert_eq!(Capacity::parse_16(&[0xff; 32]), None, "2^64 blocks do not fit");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(
            blocks in 1u64.., block_size: u32, protected: bool, physical_block_exp in 0u8..16,
            lowest_aligned in 0u16..0x4000, provisioning: bool, unmapped_reads_zero: bool,
        ) {
            let capacity = Capacity {
                blocks: Blocks(blocks), block_size, protected, physical_block_exp,
                lowest_aligned, provisioning, unmapped_reads_zero,
            };
            prop_assert_eq!(Capacity::parse_16(&capacity.encode_16()), Some(capacity));
        }

        #[test]
        fn hostile_data_never_panics(raw in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Capacity::parse_16(&raw);
            let _ = Capacity10::parse(&raw);
        }
    }
}
