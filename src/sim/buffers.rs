//! Buffers that are used again, so that a task costs no allocation.

/// Most buffers kept.
const MOST: usize = 64;
/// Longest one kept, in bytes.
const LONGEST: usize = 128 * 1024;

/// Those not in use.
#[derive(Debug, Default)]
pub(super) struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    /// One, with whatever was in it last.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// One that is done with.
    pub(super) fn give(&mut self, buffer: Vec<u8>) {
        if (1..=LONGEST).contains(&buffer.capacity()) && self.0.len() < MOST {
            self.0.push(buffer);
        }
    }
}
