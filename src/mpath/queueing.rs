//! What becomes of requests while no path can carry them (`no_path_retry`).

use super::Multipath;
use super::effect::{Change, Effect, Effects};
use super::path::Path;
use super::policy::NoPathRetry;
use super::snapshot::Queueing;
use crate::io::Time;

impl Multipath {
    pub(super) fn track_no_path(&mut self, now: Time, fx: &mut Effects) {
        if self.carrying() > 0 || self.order.is_empty() {
            if self.no_path_since.take().is_some() {
                self.queueing_ended = false;
                fx.push(Effect::Notify(Change::Recovered));
            }
            return;
        }
        if self.no_path_since.is_none() && !self.is_access_undecided() {
            self.no_path_since = Some(now);
            let held = self.queueing() == Queueing::Hold;
            fx.push(Effect::Notify(Change::NoPath { held }));
        }
        let soon = now + self.policy.no_path_interval;
        for path in self.paths.iter_mut().flatten() {
            path.next_check = path.next_check.min(soon);
        }
        if self.queueing_deadline().is_some_and(|d| d <= now) {
            self.queueing_ended = true;
            self.queue_timeouts += 1;
            fx.push(Effect::Notify(Change::QueueingEnded));
        }
    }

    pub(super) fn queueing_deadline(&self) -> Option<Time> {
        match (self.policy.no_path_retry, self.no_path_since) {
            (NoPathRetry::Times(n), Some(since)) if !self.queueing_ended => {
                Some(since + self.policy.polling_interval * n)
            }
            _ => None,
        }
    }

    /// Whether a path may carry I/O in a moment although none has failed.
    fn is_access_undecided(&self) -> bool {
        self.access_is_open() || self.is_activating()
    }

    /// What becomes of requests while no path carries I/O. While a decision
    /// about a path is under way they wait for it, whatever the policy.
    pub(super) fn queueing(&self) -> Queueing {
        let undecided = self.carrying() == 0
            && (self.all().any(Path::is_undecided) || self.is_access_undecided());
        match self.policy.no_path_retry {
            _ if undecided => Queueing::Hold,
            NoPathRetry::Queue => Queueing::Hold,
            NoPathRetry::Times(_) if !self.queueing_ended => Queueing::Hold,
            NoPathRetry::Fail | NoPathRetry::Times(_) if self.lun_gone => Queueing::Gone,
            NoPathRetry::Fail | NoPathRetry::Times(_) => Queueing::Fail,
        }
    }
}
