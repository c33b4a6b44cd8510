//! What is counted of the times without a path, for `show maps stats`.

use std::time::Duration;

use crate::io::Time;
use crate::mpath::effect::Change;

/// The counts of one map.
#[derive(Debug, Default)]
pub(super) struct Outages {
    held_since: Option<Time>,
    held: Duration,
    failures: u64,
}

impl Outages {
    /// Counts a change of the map.
    pub(super) fn count(&mut self, now: Time, change: &Change) {
        match change {
            Change::NoPath { held: true } => self.held_since = Some(now),
            Change::NoPath { held: false } => self.failures += 1,
            Change::QueueingEnded => {
                self.failures += 1;
                self.over(now);
            }
            Change::Recovered => self.over(now),
            _ => {}
        }
    }

    fn over(&mut self, now: Time) {
        if let Some(since) = self.held_since.take() {
            self.held += now.since(since);
        }
    }

    /// How long requests have been held, in all.
    pub(super) fn held(&self, now: Time) -> Duration {
        self.held + self.held_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Times requests failed because no path was left.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_without_a_path_is_counted_while_requests_are_held() {
        let at = |s: u64| Time(s * 1_000_000_000);
        let mut outages = Outages::default();
        outages.count(at(10), &Change::NoPath { held: true });
        assert_eq!(outages.held(at(12)), Duration::from_secs(2));
        outages.count(at(15), &Change::QueueingEnded);
        outages.count(at(20), &Change::Recovered);
        assert_eq!((outages.held(at(99)), outages.failures()), (Duration::from_secs(5), 1));
        outages.count(at(30), &Change::NoPath { held: false });
        outages.count(at(31), &Change::Recovered);
        assert_eq!((outages.held(at(99)), outages.failures()), (Duration::from_secs(5), 2));
    }
}
