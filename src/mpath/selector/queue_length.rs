//! `queue-length`: the path with the fewest commands in flight.

use super::least::Least;
use super::{Load, Slots};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct QueueLength {
    least: Least,
}

impl QueueLength {
    pub(super) fn load(&mut self, slot: u8, load: Load) {
        self.least.weigh(slot, u64::from(load.commands));
    }

    pub(super) fn select(&mut self, among: Slots) -> Option<u8> {
        self.least.choose(among)
    }
}
