//! `path_latency`: the first block is read a number of times, and the time
//! that takes ranks the path (`libmultipath/prioritizers/path_latency.c`).
//!
//! On a logarithmic scale, so that paths much alike share a group: a path that
//! is `base_num` times as fast has a priority one higher. The mean is that of
//! the logarithms, from 1 µs (best) to 100 s (0).

use std::time::Duration;

use super::{Reading, UNKNOWN};
use crate::mpath::probe::outcome::{Outcome, Tries, completed};
use crate::mpath::probe::{Answer, Probe, Step};

/// Microseconds that are worth nothing.
const SLOWEST: f64 = 100_000_000.0;

/// One path's measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathLatency {
    reads: u16,
    /// Natural logarithm of `base_num`.
    log_base: f64,
    left: u16,
    tries: Tries,
    /// Logarithms of the microseconds so far.
    sum: f64,
}

impl PathLatency {
    /// Arguments outside their ranges count as the nearest within.
    pub(super) fn new(io_num: u16, base_milli: u32) -> PathLatency {
        let base = f64::from(base_milli.clamp(1100, 10_000)) / 1000.0;
        PathLatency {
            reads: io_num.clamp(20, 200),
            log_base: base.ln(),
            left: 0,
            tries: Tries::FIVE,
            sum: 0.0,
        }
    }

    pub(super) fn begin(&mut self) -> Step<Reading> {
        self.left = self.reads;
        self.tries = Tries::FIVE;
        self.sum = 0.0;
        Step::Issue(Probe::ReadFirstBlock)
    }

    pub(super) fn on_answer(&mut self, answer: &Answer) -> Step<Reading> {
        let (outcome, _, took) = completed(answer);
        match outcome {
            Outcome::Good => self.measured(took),
            Outcome::Again(_) if self.tries.another() => {}
            _ => return Step::Done(UNKNOWN),
        }
        if self.left > 0 {
            return Step::Issue(Probe::ReadFirstBlock);
        }
        Step::Done(Reading { priority: Some(self.priority()), alua: None })
    }

    fn measured(&mut self, took: Duration) {
        self.left = self.left.saturating_sub(1);
        let whole = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        // Less than a microsecond is one.
        self.sum += f64::from(whole.max(1)).ln();
    }

    fn priority(&self) -> i32 {
        let slowest = SLOWEST.ln() / self.log_base;
        let mean = self.sum / f64::from(self.reads) / self.log_base;
        #[allow(clippy::cast_possible_truncation)] // 0 to 194
        let priority = (slowest - mean).clamp(0.0, slowest) as i32;
        priority
    }
}
