//! The parameter list of UNMAP (SBC-4 5.32).
//!
//! Wire format only. Whether the LU takes that many descriptors or blocks is
//! said by its Block Limits page; splitting to it is the request core's work,
//! enforcing it the LU's.

use super::be;
use crate::scsi::block::Extent;

const HEADER: usize = 8;
const DESCRIPTOR: usize = 16;

/// Most descriptors whose list still has a 16-bit length.
pub const MAX_DESCRIPTORS: usize = (u16::MAX as usize - HEADER) / DESCRIPTOR;

/// Why a parameter list cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    /// Shorter than its header, or than the descriptors the header announces:
    /// 05/1a/00.
    #[error("UNMAP parameter list is truncated")]
    Truncated,
}

/// Bytes of a list of `descriptors` extents; `None` above [`MAX_DESCRIPTORS`].
pub fn list_len(descriptors: usize) -> Option<u16> {
    if descriptors > MAX_DESCRIPTORS {
        return None;
    }
    u16::try_from(HEADER + descriptors * DESCRIPTOR).ok()
}

/// Appends the parameter list for `extents` to `out`, in order.
///
/// Returns `None` and leaves `out` alone when there are more than
/// [`MAX_DESCRIPTORS`] or an extent is longer than 32 bits of blocks.
pub fn encode(extents: &[Extent], out: &mut Vec<u8>) -> Option<()> {
    let len = list_len(extents.len())?;
    if extents.iter().any(|extent| u32::try_from(extent.blocks.0).is_err()) {
        return None;
    }
    out.extend_from_slice(&(len - 2).to_be_bytes());
    out.extend_from_slice(&(len - 8).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    for extent in extents {
        out.extend_from_slice(&extent.lba.0.to_be_bytes());
        out.extend_from_slice(&u32::try_from(extent.blocks.0).ok()?.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
    }
    Some(())
}

/// Reads a parameter list; a last descriptor that the header cuts off is
/// ignored, as the standard says.
///
/// # Errors
/// [`BadList`] when bytes are missing.
pub fn parse(list: &[u8]) -> Result<Vec<Extent>, BadList> {
    let announced = usize::from(be::u16_at(list, 2).ok_or(BadList::Truncated)?);
    let descriptors = list.get(HEADER..HEADER + announced).ok_or(BadList::Truncated)?;
    descriptors
        .chunks_exact(DESCRIPTOR)
        .map(|raw| {
            let lba = be::u64_at(raw, 0).ok_or(BadList::Truncated)?;
            let blocks = be::u32_at(raw, 8).ok_or(BadList::Truncated)?;
            Ok(Extent::new(lba, u64::from(blocks)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn list_has_the_lengths_of_the_standard() {
        let mut list = Vec::new();
        encode(&[Extent::new(0x0102, 3), Extent::new(u64::MAX, u64::from(u32::MAX))], &mut list)
            .unwrap();
        assert_eq!(list.len(), 40);
        assert_eq!(&list[..8], &[0, 38, 0, 32, 0, 0, 0, 0]);
        assert_eq!(&list[8..24], &[0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 0, 0, 0, 0]);
    }

    #[test]
    fn oversized_lists_are_refused_and_leave_the_buffer_alone() {
        let mut list = vec![7];
        assert_eq!(encode(&vec![Extent::new(0, 1); MAX_DESCRIPTORS + 1], &mut list), None);
        assert_eq!(encode(&[Extent::new(0, 1 << 32)], &mut list), None);
        assert_eq!(list, [7]);
        assert!(encode(&vec![Extent::new(0, 1); MAX_DESCRIPTORS], &mut list).is_some());
    }

    #[test]
    fn announced_but_missing_descriptors_are_an_error() {
        let mut list = Vec::new();
        encode(&[Extent::new(1, 1)], &mut list).unwrap();
        assert_eq!(parse(&list[..23]), Err(BadList::Truncated));
        assert_eq!(parse(&list[..7]), Err(BadList::Truncated));
        list[3] = 15; // a partial descriptor is ignored, not an error
        assert_eq!(parse(&list), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(raw in prop::collection::vec((any::<u64>(), any::<u32>()), 0..20)) {
            let extents: Vec<_> = raw.iter().map(|(l, b)| Extent::new(*l, u64::from(*b))).collect();
            let mut list = Vec::new();
            encode(&extents, &mut list).unwrap();
            prop_assert_eq!(parse(&list), Ok(extents));
        }

        #[test]
        fn hostile_lists_never_panic(raw in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(extents) = parse(&raw) {
                prop_assert!(extents.len() * DESCRIPTOR + HEADER <= raw.len());
            }
        }
    }
}
