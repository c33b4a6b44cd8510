//! `random`: 1 to 10, for tests of grouping.
//!
//! Different from path to path and from one use to the next, and the same in
//! every run: a pure module knows no clock to draw from.

/// One path's sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    /// The path's own sequence (FNV-1a of its name).
    pub(super) fn new(devname: &str) -> Random {
        let state = devname.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Random { state }
    }

    /// The next number (SplitMix64).
    pub(super) fn next(&mut self) -> i32 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        1 + i32::try_from((z ^ z >> 31) % 10).unwrap_or(0)
    }
}
