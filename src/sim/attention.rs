//! Unit attention conditions of one I_T_L nexus (SAM-5 5.14, SPC-5 5.14).
//!
//! A queue in which a condition stands once; which commands report and clear
//! it is decided in [`super::fault`].

use std::collections::VecDeque;

use crate::scsi::sense::{Key, SenseCode};

/// MICROCODE HAS BEEN CHANGED.
pub(super) const MICROCODE_CHANGED: SenseCode = SenseCode::new(Key::UnitAttention, 0x3f, 0x01);

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
            self.0.retain(|pending| {
                pending.asc != 0x29 && *pending != SenseCode::MODE_PARAMETERS_CHANGED
            });
            self.0.push_front(code);
        } else if !self.0.contains(&code) {
            self.0.push_back(code);
        }
    }

    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether the next one comes before RESERVATION CONFLICT (SAM-5 5.3.3).
    pub(super) fn outrank_conflicts(&self) -> bool {
        self.0.front().is_some_and(|next| next.asc == 0x29 || *next == MICROCODE_CHANGED)
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
