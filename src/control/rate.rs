//! A limit on how often the same kind of news is told: a guest or an array
//! must not be able to fill the journal. Pure: time is a parameter.

use std::time::Duration;

use crate::io::Time;

/// Told at most `BURST` times per `WINDOW`; the rest is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    window: Option<Time>,
    told: u32,
    kept_back: u64,
}

const WINDOW: Duration = Duration::from_secs(10);
const BURST: u32 = 10;

impl Rate {
    /// Whether to tell; `Some(n)`: yes, and `n` were kept back before.
    pub(super) fn admit(&mut self, now: Time) -> Option<u64> {
        if self.window.is_none_or(|start| now.since(start) >= WINDOW) {
            self.window = Some(now);
            self.told = 0;
        }
        if self.told == BURST {
            self.kept_back += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_the_count_is_told_once() {
        let mut rate = Rate::default();
        let now = Time(5);
        let told = (0..100).filter(|_| rate.admit(now).is_some()).count();
        assert_eq!(told, 10);
        assert_eq!(rate.admit(now + WINDOW), Some(90));
        assert_eq!(rate.admit(now + WINDOW), Some(0));
    }
}
