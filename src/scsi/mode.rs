//! MODE SENSE data: header, caching page, control page (SPC-5 7.5, SBC-4 6.5).
//!
//! Only what decides how a disk must be written to: write protection, DPOFUA,
//! and the write cache; where the pages of a MODE SELECT parameter list are;
//! TAS. The vendors' pages are in `scsi::rdac` and `scsi::clariion`.

use super::be;
use crate::scsi::block::Blocks;

/// Caching mode page.
pub const CACHING: u8 = 0x08;
/// Control mode page.
pub const CONTROL: u8 = 0x0a;
/// Every page.
pub const ALL_PAGES: u8 = 0x3f;

/// WP in the device specific parameter of a disk.
const WRITE_PROTECTED: u8 = 0x80;

/// What MODE SENSE says about a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// WP: the LU is write protected.
    pub write_protected: bool,
    /// DPOFUA: the LU honours DPO and FUA.
    pub dpofua: bool,
    /// The caching page, if it was among the data.
    pub caching: Option<Caching>,
}

/// Caching mode page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caching {
    /// WCE: the LU has a volatile write cache and uses it.
    pub write_cache: bool,
    /// RCD: reads are not cached.
    pub read_cache_disabled: bool,
}

/// Block descriptor (short LBA form) of MODE SENSE data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockDescriptor {
    /// Capacity; shown as FFFFFFFFh blocks when larger.
    pub blocks: Blocks,
    /// Logical block length in bytes (24 bits).
    pub block_size: u32,
}

impl Mode {
    /// Reads MODE SENSE(6) data; `None` if shorter than its header.
    pub fn parse_6(data: &[u8]) -> Option<Mode> {
        let pages = pages_6(data)?;
        Some(Mode::of(data[2], pages))
    }

    /// Reads MODE SENSE(10) data; `None` if shorter than its header.
    pub fn parse_10(data: &[u8]) -> Option<Mode> {
        let pages = pages_10(data)?;
        Some(Mode::of(data[3], pages))
    }

    fn of(device_specific: u8, pages: &[u8]) -> Mode {
        Mode {
            write_protected: device_specific & WRITE_PROTECTED != 0,
            dpofua: device_specific & 0x10 != 0,
            caching: find_page(pages, CACHING).map(|page| {
                let flags = page.first().copied().unwrap_or(0);
                Caching { write_cache: flags & 0x04 != 0, read_cache_disabled: flags & 0x01 != 0 }
            }),
        }
    }

    /// MODE SENSE(6) data around `pages`. Lengths beyond the header's fields
    /// are cut; the pages of this module stay far below.
    pub fn encode_6(&self, descriptor: Option<BlockDescriptor>, pages: &[u8]) -> Vec<u8> {
        let descriptor = descriptor.map(BlockDescriptor::encode);
        let descriptor = descriptor.as_ref().map_or(&[][..], |d| &d[..]);
        let len = u8::try_from(3 + descriptor.len() + pages.len()).unwrap_or(u8::MAX);
        let descriptor_len = u8::try_from(descriptor.len()).unwrap_or(0);
        [&[len, 0, self.device_specific(), descriptor_len], descriptor, pages].concat()
    }

    /// MODE SENSE(10) data around `pages`.
    pub fn encode_10(&self, descriptor: Option<BlockDescriptor>, pages: &[u8]) -> Vec<u8> {
        let descriptor = descriptor.map(BlockDescriptor::encode);
        let descriptor = descriptor.as_ref().map_or(&[][..], |d| &d[..]);
        let len = u16::try_from(6 + descriptor.len() + pages.len()).unwrap_or(u16::MAX);
        let descriptor_len = u8::try_from(descriptor.len()).unwrap_or(0);
        let [high, low] = len.to_be_bytes();
        let header = [high, low, 0, self.device_specific(), 0, 0, 0, descriptor_len];
        [&header, descriptor, pages].concat()
    }

    fn device_specific(&self) -> u8 {
        u8::from(self.write_protected) << 7 | u8::from(self.dpofua) << 4
    }
}

impl Caching {
    /// The caching page, not savable.
    pub fn encode(&self) -> [u8; 20] {
        let mut page = [0; 20];
        page[0] = CACHING;
        page[1] = 18;
        page[2] = u8::from(self.write_cache) << 2 | u8::from(self.read_cache_disabled);
        page
    }
}

/// Sets WP in MODE SENSE(6) data, with `ten` in MODE SENSE(10) data: the LU
/// may be writable, but not by this guest. Data too short for the field is
/// left alone.
pub fn set_write_protect(data: &mut [u8], ten: bool) {
    if let Some(device_specific) = data.get_mut(if ten { 3 } else { 2 }) {
        *device_specific |= WRITE_PROTECTED;
    }
}

/// D_SENSE of the control page, if it is among MODE SENSE(6) data (with `ten`
/// MODE SENSE(10) data): the LU sends its sense in descriptor format, and so
/// must we for it.
pub fn descriptor_sense(data: &[u8], ten: bool) -> Option<bool> {
    let pages = if ten { pages_10(data) } else { pages_6(data) }?;
    Some(find_page(pages, CONTROL)?.first()? & 0x04 != 0)
}

/// The mode pages of MODE SENSE(6) data; `None` if shorter than its header.
fn pages_6(data: &[u8]) -> Option<&[u8]> {
    let header = data.get(..4)?;
    // MODE DATA LENGTH does not count itself.
    let end = (usize::from(header[0]) + 1).min(data.len());
    Some(data.get(4 + usize::from(header[3])..end).unwrap_or(&[]))
}

/// The mode pages of MODE SENSE(10) data; `None` if shorter than its header.
fn pages_10(data: &[u8]) -> Option<&[u8]> {
    let header = data.get(..8)?;
    let end = (usize::from(be::u16_at(header, 0)?) + 2).min(data.len());
    let descriptors = usize::from(be::u16_at(header, 6)?);
    Some(data.get(8 + descriptors..end).unwrap_or(&[]))
}

/// The pages of a MODE SELECT(6) parameter list, with `ten` of a (10): what
/// follows its header and block descriptors; `None` if it ends before. MODE
/// DATA LENGTH is reserved there (SPC-5 6.15), so the list's end is the data's.
pub fn selected_pages(list: &[u8], ten: bool) -> Option<&[u8]> {
    let (header, descriptors) = match ten {
        false => (4, usize::from(*list.get(3)?)),
        true => (8, usize::from(be::u16_at(list, 6)?)),
    };
    list.get(header + descriptors..)
}

/// TAS of the control page among MODE SENSE(10) data: a command that another
/// nexus aborts comes back as TASK ABORTED, and does not vanish silently.
pub fn task_aborted_status(data: &[u8]) -> Option<bool> {
    Some(find_page(pages_10(data)?, CONTROL)?.get(3)? & TAS != 0)
}

/// The MODE SELECT(10) parameter list that sets TAS and leaves the rest of the
/// control page as MODE SENSE(10) `data` without block descriptors has it.
/// `None` where the page is not among the data.
pub fn with_task_aborted_status(data: &[u8]) -> Option<Vec<u8>> {
    let body = find_page(pages_10(data)?, CONTROL)?;
    let mut page = vec![CONTROL, u8::try_from(body.len()).ok()?];
    page.extend_from_slice(body);
    *page.get_mut(5)? |= TAS;
    Some([&[0; 8][..], &page].concat())
}

/// TAS, byte 5 of the control page.
const TAS: u8 = 0x40;

/// The control page of an LU that reorders freely (QUEUE ALGORITHM MODIFIER
/// 1), sends fixed-format sense and reports aborts by no other nexus (TAS=0).
pub fn encode_control() -> [u8; 12] {
    let mut page = [0; 12];
    page[0] = CONTROL;
    page[1] = 10;
    page[3] = 0x10;
    page
}

impl BlockDescriptor {
    fn encode(self) -> [u8; 8] {
        let mut raw = [0; 8];
        let blocks = u32::try_from(self.blocks.0).unwrap_or(u32::MAX);
        be::put(&mut raw, 0, blocks.to_be_bytes());
        let [_, size @ ..] = self.block_size.to_be_bytes();
        be::put(&mut raw, 5, size);
        raw
    }
}

/// The body of page `code` (no subpage) among mode pages.
fn find_page(mut pages: &[u8], code: u8) -> Option<&[u8]> {
    loop {
        let first = *pages.first()?;
        let (start, len) = if first & 0x40 != 0 {
            (4, usize::from(be::u16_at(pages, 2)?)) // SPF: subpage format
        } else {
            (2, usize::from(*pages.get(1)?))
        };
        let body = pages.get(start..)?;
        if first & 0x7f == code {
            return Some(&body[..len.min(body.len())]);
        }
        pages = body.get(len..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WRITE_BACK: Mode = Mode {
        write_protected: true,
        dpofua: true,
        caching: Some(Caching { write_cache: true, read_cache_disabled: false }),
    };

    fn pages() -> Vec<u8> {
        let caching = Caching { write_cache: true, read_cache_disabled: false };
        [&encode_control()[..], &caching.encode()[..]].concat()
    }

    #[test]
    fn both_headers_survive_the_wire_with_and_without_descriptor() {
        for descriptor in [None, Some(BlockDescriptor { blocks: Blocks(1 << 40), block_size: 512 })]
        {
            let six = WRITE_BACK.encode_6(descriptor, &pages());
            assert_eq!(usize::from(six[0]) + 1, six.len());
            assert_eq!(Mode::parse_6(&six), Some(WRITE_BACK));
            let ten = WRITE_BACK.encode_10(descriptor, &pages());
            assert_eq!(usize::from(ten[1]) + 2, ten.len());
            assert_eq!(Mode::parse_10(&ten), Some(WRITE_BACK));
        }
        let raw = BlockDescriptor { blocks: Blocks(1 << 40), block_size: 0x1000 }.encode();
        assert_eq!(raw, [0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0]);
    }

    #[test]
    fn a_missing_caching_page_is_not_write_through() {
        // sd guesses write-through here and then drops flushes (law 9).
        let data = WRITE_BACK.encode_6(None, &encode_control());
        assert_eq!(Mode::parse_6(&data), Some(Mode { caching: None, ..WRITE_BACK }));
    }

    #[test]
    fn the_format_of_sense_is_read_off_the_control_page() {
        for ten in [false, true] {
            let encode = |pages: &[u8]| match ten {
                false => WRITE_BACK.encode_6(None, pages),
                true => WRITE_BACK.encode_10(None, pages),
            };
            assert_eq!(descriptor_sense(&encode(&pages()), ten), Some(false));
            let mut control = encode_control();
            control[2] |= 0x04;
            assert_eq!(descriptor_sense(&encode(&control), ten), Some(true));
            assert_eq!(descriptor_sense(&encode(&control)[..4], ten), None);
            let caching = Caching::default().encode();
            assert_eq!(descriptor_sense(&encode(&caching), ten), None);
        }
    }

    #[test]
    fn tas_is_set_and_nothing_else_of_the_control_page() {
        let data = WRITE_BACK.encode_10(None, &pages());
        assert_eq!(task_aborted_status(&data), Some(false));
        let list = with_task_aborted_status(&data).unwrap();
        let page = selected_pages(&list, true).unwrap();
        let mut wanted = encode_control();
        wanted[5] |= 0x40;
        assert_eq!((&list[..8], page), (&[0; 8][..], &wanted[..]));
        let set = WRITE_BACK.encode_10(None, page);
        assert_eq!(task_aborted_status(&set), Some(true));
        assert_eq!(with_task_aborted_status(&set), Some(list));
        let none = WRITE_BACK.encode_10(None, &Caching::default().encode());
        assert_eq!((task_aborted_status(&none), with_task_aborted_status(&none)), (None, None));
    }

    #[test]
    fn selected_pages_lie_behind_the_block_descriptors() {
        let descriptor = Some(BlockDescriptor { blocks: Blocks(8), block_size: 512 });
        for descriptor in [None, descriptor] {
            let mut list = WRITE_BACK.encode_6(descriptor, &pages());
            list[0] = 0; // reserved in MODE SELECT
            assert_eq!(selected_pages(&list, false), Some(&pages()[..]));
            let mut list = WRITE_BACK.encode_10(descriptor, &pages());
            list[..2].fill(0);
            assert_eq!(selected_pages(&list, true), Some(&pages()[..]));
        }
        assert_eq!(selected_pages(&[0, 0, 0, 8, 0], false), None);
        assert_eq!(selected_pages(&[0; 7], true), None);
        assert_eq!(selected_pages(&[0; 8], true), Some(&[][..]));
    }

    #[test]
    fn subpages_are_skipped_not_mistaken() {
        let mut pages = vec![0x40 | CACHING, 1, 0, 3, 0xff, 0xff, 0xff];
        pages.extend(Caching { write_cache: false, read_cache_disabled: true }.encode());
        let data = Mode::default().encode_10(None, &pages);
        assert_eq!(
            Mode::parse_10(&data).unwrap().caching,
            Some(Caching { write_cache: false, read_cache_disabled: true })
        );
    }

    #[test]
    fn write_protection_changes_one_bit() {
        let writable = Mode { write_protected: false, ..WRITE_BACK };
        for ten in [false, true] {
            let encode = |mode: Mode| match ten {
                false => mode.encode_6(None, &pages()),
                true => mode.encode_10(None, &pages()),
            };
            let mut data = encode(writable);
            set_write_protect(&mut data, ten);
            assert_eq!(data, encode(WRITE_BACK));
            set_write_protect(&mut data, ten);
            assert_eq!(data, encode(WRITE_BACK));
            for len in 0..4 {
                let mut short = data[..len].to_vec();
                set_write_protect(&mut short, ten);
                assert_eq!(short, data[..len]);
            }
        }
    }

    proptest! {
        #[test]
        fn hostile_data_never_panics(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(Mode::parse_6(&raw).is_some(), raw.len() >= 4);
            prop_assert_eq!(Mode::parse_10(&raw).is_some(), raw.len() >= 8);
            let _ = (descriptor_sense(&raw, false), descriptor_sense(&raw, true));
            let _ = (selected_pages(&raw, false), selected_pages(&raw, true));
            prop_assert_eq!(task_aborted_status(&raw).is_some(), with_task_aborted_status(&raw).is_some());
        }
    }
}
