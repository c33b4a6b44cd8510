//! `round-robin`: each path in turn, with as many commands in a row as its
//! [`repeat`](crate::mpath::snapshot::PathView::repeat) says.
//!
//! Today's kernel has given up repeat counts; multipath.conf still has them
//! (`rr_min_io_rq`, `rr_weight`), and here they do what they say.

use super::Slots;

/// See the module.
#[derive(Debug)]
pub(super) struct RoundRobin {
    repeat: Vec<u32>,
    current: u8,
    /// Commands that `current` still gets.
    left: u32,
}

impl Default for RoundRobin {
    fn default() -> RoundRobin {
        // The lowest slot comes after the highest.
        RoundRobin { repeat: Vec::new(), current: 63, left: 0 }
    }
}

impl RoundRobin {
    pub(super) fn list(&mut self, slot: u8, repeat: u32) {
        let i = usize::from(slot);
        if i >= self.repeat.len() {
            self.repeat.resize(i + 1, 1);
        }
        self.repeat[i] = repeat;
        if self.current == slot {
            self.left = self.left.min(repeat);
        }
    }

    pub(super) fn select(&mut self, among: Slots) -> Option<u8> {
        if self.left > 0 && among.has(self.current) {
            self.left -= 1;
        } else {
            self.current = among.next_after(self.current)?;
            let repeat = self.repeat.get(usize::from(self.current)).copied().unwrap_or(1);
            self.left = repeat.saturating_sub(1);
        }
        Some(self.current)
    }
}
