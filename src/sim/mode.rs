//! Mode parameters: MODE SENSE and MODE SELECT (SPC-5 6.13 to 6.16, 7.5; SBC-4
//! 6.5).
//!
//! One set for all nexuses. A LU reset sets back what was changed and not
//! saved, which only RDAC arrays do. Changeable are WCE, D_SENSE and SWP, with
//! them also TAS.

use super::answer::{Answer, Call, Effect, Failure, Outcome, wrong_field, wrong_parameter};
use super::config::{LuConfig, Personality};
use super::lu::Lu;
use crate::io::Blocks;
use crate::scsi::mode::{self, BlockDescriptor, Caching, Mode};
use crate::scsi::sense::SenseCode;

/// Informational exceptions control mode page.
const EXCEPTIONS: u8 = 0x1c;
/// Subpage of the control page: control extension.
const CONTROL_EXTENSION: u8 = 0x01;
/// Every subpage.
const ALL_SUBPAGES: u8 = 0xff;

/// What can be changed by MODE SELECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ModePages {
    /// WCE.
    pub(super) write_cache: bool,
    /// D_SENSE: sense data in descriptor format.
    pub(super) descriptor_sense: bool,
    /// SWP.
    pub(super) software_write_protect: bool,
    /// TAS: a task that another nexus ends is ended with TASK ABORTED.
    pub(super) task_aborted_status: bool,
}

/// Which values MODE SENSE wants.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Current(ModePages),
    /// Ones where MODE SELECT may change something.
    Changeable(Personality),
}

impl Values {
    fn bit(self, of: fn(&ModePages) -> bool) -> u8 {
        match self {
            Values::Current(pages) => u8::from(of(&pages)),
            Values::Changeable(_) => 1,
        }
    }

    /// A byte that never changes.
    fn fixed(self, value: u8) -> u8 {
        if matches!(self, Values::Changeable(_)) { 0 } else { value }
    }

    fn caching(self) -> Vec<u8> {
        let write_cache = self.bit(|pages| pages.write_cache) != 0;
        Caching { write_cache, read_cache_disabled: false }.encode().to_vec()
    }

    fn control(self) -> Vec<u8> {
        let mut page = mode::encode_control();
        page[2] = self.bit(|pages| pages.descriptor_sense) << 2;
        page[3] = self.fixed(page[3]);
        page[4] = self.bit(|pages| pages.software_write_protect) << 3;
        page[5] = match self {
            Values::Changeable(personality) if personality != Personality::Rdac => 0,
            _ => self.bit(|pages| pages.task_aborted_status) << 6,
        };
        page.to_vec()
    }

    /// Nothing of it is implemented: no timestamp, no command priority, no
    /// limit of the length of sense data.
    fn control_extension() -> Vec<u8> {
        let mut page = vec![0; 32];
        page[..4].copy_from_slice(&[0x40 | mode::CONTROL, CONTROL_EXTENSION, 0, 28]);
        page
    }

    /// No exceptions are reported (MRIE 0).
    fn exceptions() -> Vec<u8> {
        let mut page = vec![0; 12];
        page[..2].copy_from_slice(&[EXCEPTIONS, 10]);
        page
    }

    /// Every page with its code and subpage, ascending.
    fn pages(self) -> [(u8, u8, Vec<u8>); 4] {
        [
            (mode::CACHING, 0, self.caching()),
            (mode::CONTROL, 0, self.control()),
            (mode::CONTROL, CONTROL_EXTENSION, Values::control_extension()),
            (EXCEPTIONS, 0, Values::exceptions()),
        ]
    }
}

impl ModePages {
    /// The default values.
    pub(super) fn of(config: &LuConfig) -> ModePages {
        ModePages {
            write_cache: config.write_cache,
            descriptor_sense: false,
            software_write_protect: false,
            task_aborted_status: false,
        }
    }

    /// The pages after MODE SELECT of `page`, which begins at byte `at` of
    /// the parameter list.
    fn changed_by(
        self,
        page: &[u8],
        at: usize,
        personality: Personality,
    ) -> Result<ModePages, Failure> {
        let subpage = if page[0] & 0x40 == 0 { 0 } else { page[1] };
        let code = page[0] & 0x3f;
        let find = |values: Values| {
            let found = values.pages().into_iter().find(|(c, s, _)| (*c, *s) == (code, subpage));
            found.map(|(_, _, page)| page)
        };
        let (Some(current), Some(changeable)) =
            (find(Values::Current(self)), find(Values::Changeable(personality)))
        else {
            return Err(wrong_parameter(at));
        };
        if page.len() != current.len() {
            return Err(wrong_parameter(at + 1));
        }
        // Bit 7 of the first byte is PS in MODE SENSE data and reserved here.
        let differs = |i: usize| {
            let may = changeable[i] | if i == 0 { 0x80 } else { 0 };
            i >= 2 && (page[i] ^ current[i]) & !may != 0
        };
        if let Some(wrong) = (0..page.len()).find(|i| differs(*i)) {
            return Err(wrong_parameter(at + wrong));
        }
        Ok(match (code, subpage) {
            (mode::CACHING, 0) => ModePages { write_cache: page[2] & 0x04 != 0, ..self },
            (mode::CONTROL, 0) => ModePages {
                descriptor_sense: page[2] & 0x04 != 0,
                software_write_protect: page[4] & 0x08 != 0,
                task_aborted_status: page[5] & 0x40 != 0,
                ..self
            },
            _ => self,
        })
    }
}

impl Lu {
    /// Whether mode parameters can be saved.
    fn saves(&self) -> bool {
        self.config.personality == Personality::Rdac
    }

    /// MODE SENSE(6) and (10).
    pub(super) fn mode_sense(&mut self, call: &Call<'_>) -> Outcome {
        let values = match call.byte(2) >> 6 {
            0 => Values::Current(self.mode),
            1 => Values::Changeable(self.config.personality),
            2 => Values::Current(ModePages::of(&self.config)),
            3 if self.saves() => Values::Current(self.saved),
            _ => return Err(SenseCode::SAVING_NOT_SUPPORTED.into()),
        };
        let (page, subpage) = (call.byte(2) & 0x3f, call.byte(3));
        let wanted = |code: u8, sub: u8| {
            (page == mode::ALL_PAGES || page == code) && (subpage == sub || subpage == ALL_SUBPAGES)
        };
        let pages = values.pages().into_iter().filter(|(code, sub, _)| wanted(*code, *sub));
        let pages: Vec<u8> = pages.flat_map(|(_, _, page)| page).collect();
        if pages.is_empty() {
            return Err(wrong_field(if page == mode::ALL_PAGES { 3 } else { 2 }, None));
        }
        let write_protected = self.config.read_only || self.mode.software_write_protect;
        let mode = Mode { write_protected, dpofua: true, caching: None };
        let descriptor = (!call.flag(1, 0x08)).then_some(BlockDescriptor {
            blocks: Blocks(self.config.blocks),
            block_size: self.config.block_size,
        });
        Ok(if call.cdb.len() == 10 {
            Answer::data(mode.encode_10(descriptor, &pages), call.length_16(7))
        } else {
            Answer::data(mode.encode_6(descriptor, &pages), usize::from(call.byte(4)))
        })
    }

    /// MODE SELECT(6) and (10): all pages of the list or none.
    pub(super) fn mode_select(&mut self, call: &Call<'_>) -> Outcome {
        let ten = call.cdb.len() == 10;
        let len = if ten { call.length_16(7) } else { usize::from(call.byte(4)) };
        let save = call.flag(1, 0x01);
        if save && !self.saves() {
            return Err(wrong_field(1, Some(0))); // SP
        }
        let list = call.announced(len)?;
        if let Some(outcome) = self.take_ownership(call, list, ten) {
            return outcome;
        }
        if list.is_empty() {
            return Ok(Answer::taken(0));
        }
        // An RDAC array knows no other pages, and does not look.
        if !call.flag(1, 0x10) && self.config.personality != Personality::Rdac {
            return Err(wrong_field(1, Some(4))); // PF: only the standard's pages
        }
        let mut at = self.after_block_descriptors(list, ten)?;
        let mut pages = self.mode;
        while at < len {
            let page = page_at(list, at)?;
            pages = pages.changed_by(page, at, self.config.personality)?;
            at += page.len();
        }
        let changed = pages != self.mode;
        self.mode = pages;
        if save {
            self.saved = pages;
        }
        if !pages.write_cache {
            self.settle(true)?; // what the cache held
        }
        let effect = if changed { Effect::ModeChanged } else { Effect::None };
        Ok(Answer { effect, ..Answer::taken(len) })
    }

    /// Where the pages of a parameter list begin. A block descriptor may say
    /// what is so already: nothing is formatted or resized.
    fn after_block_descriptors(&self, list: &[u8], ten: bool) -> Result<usize, Failure> {
        let (header, length_at) = if ten { (8, 6) } else { (4, 3) };
        if list.len() < header {
            return Err(SenseCode::PARAMETER_LIST_LENGTH_ERROR.into());
        }
        let len = if ten {
            usize::from(u16::from_be_bytes([list[6], list[7]]))
        } else {
            usize::from(list[3])
        };
        if ten && list[4] & 0x01 != 0 {
            return Err(wrong_parameter(4)); // LONGLBA
        }
        if len == 0 {
            return Ok(header);
        }
        if len != 8 {
            return Err(wrong_parameter(length_at));
        }
        let descriptor =
            list.get(header..header + 8).ok_or(SenseCode::PARAMETER_LIST_LENGTH_ERROR)?;
        let field = |at: usize| {
            let bytes =
                [descriptor[at], descriptor[at + 1], descriptor[at + 2], descriptor[at + 3]];
            u32::from_be_bytes(bytes)
        };
        let blocks = u32::try_from(self.config.blocks).unwrap_or(u32::MAX);
        if ![0, u32::MAX, blocks].contains(&field(0)) {
            return Err(wrong_parameter(header));
        }
        let block_size = field(4) & 0x00ff_ffff;
        if block_size != 0 && block_size != self.config.block_size {
            return Err(wrong_parameter(header + 5));
        }
        Ok(header + 8)
    }
}

/// The page that begins at byte `at`, with its header.
fn page_at(list: &[u8], at: usize) -> Result<&[u8], Failure> {
    let rest = &list[at..];
    let len = match rest {
        [first, _, high, low, ..] if first & 0x40 != 0 => {
            4 + usize::from(u16::from_be_bytes([*high, *low]))
        }
        [first, len, ..] if first & 0x40 == 0 => 2 + usize::from(*len),
        _ => return Err(SenseCode::PARAMETER_LIST_LENGTH_ERROR.into()),
    };
    rest.get(..len).ok_or_else(|| SenseCode::PARAMETER_LIST_LENGTH_ERROR.into())
}
