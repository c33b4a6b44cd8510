//! `service-time`: the path with the fewest bytes in flight, all paths being
//! of the same throughput.
//!
//! (The kernel's knows a relative throughput per path, which multipath-tools
//! never gives it.) A command counts for a byte of its own: of two paths with
//! as many bytes, the one with fewer commands, so that flushes spread, too.

use super::least::Least;
use super::{Load, Slots};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ServiceTime {
    least: Least,
}

impl ServiceTime {
    pub(super) fn load(&mut self, slot: u8, load: Load) {
        self.least.weigh(slot, load.bytes.saturating_add(u64::from(load.commands)));
    }

    pub(super) fn select(&mut self, among: Slots) -> Option<u8> {
        self.least.choose(among)
    }
}
