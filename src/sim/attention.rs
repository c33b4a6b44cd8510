//! Unit attention conditions of one I_T_L nexus (SAM-5 5.14, SPC-5 5.14).
//!
//! A queue in which a condition stands once; which commands report and clear
//! it is decided in [`super::fault`].

use std::collections::VecDeque;

use crate::scsi::sense::{Key, SenseCode};

const fn attention(asc: u8, ascq: u8) -> SenseCode {
    SenseCode::new(Key::UnitAttention, asc, ascq)
}

pub(super) const LU_RESET: SenseCode = attention(0x29, 0x03);
pub(super) const NEXUS_LOSS: SenseCode = attention(0x29, 0x07);
pub(super) const MODE_CHANGED: SenseCode = attention(0x2a, 0x01);
pub(super) const ACCESS_CHANGED: SenseCode = attention(0x2a, 0x06);
pub(super) const CAPACITY_CHANGED: SenseCode = attention(0x2a, 0x09);
pub(super) const INQUIRY_CHANGED: SenseCode = attention(0x3f, 0x03);
pub(super) const LUNS_CHANGED: SenseCode = attention(0x3f, 0x0e);

/// Conditions not yet reported, in the order of reporting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attentions(VecDeque<SenseCode>);

impl Attentions {
    /// Establishes a condition.
    ///
    /// A reset is reported first and takes with it what it says too: earlier
    /// resets, and mode parameters that it has set back.
    pub(super) fn raise(&mut self, code: SenseCode) {
        if code.asc == 0x29 {
            self.0.retain(|pending| pending.asc != 0x29 && *pending != MODE_CHANGED);
            self.0.push_front(code);
        } else if !self.0.contains(&code) {
            self.0.push_back(code);
        }
    }

    /// Forgets all: the nexus was lost.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Reports the first, which ends it.
    pub(super) fn take(&mut self) -> Option<SenseCode> {
        self.0.pop_front()
    }

    /// Ends one condition without reporting it.
    pub(super) fn forget(&mut self, code: SenseCode) {
        self.0.retain(|pending| *pending != code);
    }
}
