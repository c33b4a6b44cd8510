//! What becomes of requests while no path carries I/O: `no_path_retry`,
//! `disablequeueing`, `flush_on_last_del`.
//!
//! While a decision about a path is under way they wait for it, whatever the
//! settings: for a check of a path that hangs, a proof, a target port group in
//! transition, an activation. `queue_timeout` is a limit to how long one
//! request waits, not the map, and is the queue threads' to keep.

use super::Multipath;
use super::effect::{Change, Effect, Effects};
use super::path::Path;
use super::policy::{FlushOnLastDel, NoPathRetry};
use super::snapshot::Queueing;
use crate::io::Time;

impl Multipath {
    /// `disablequeueing map`: requests fail while no path carries I/O, until
    /// [`Multipath::restore_queueing`].
    pub fn disable_queueing(&mut self, now: Time, fx: &mut Effects) {
        if !self.queueing_disabled {
            self.queueing_disabled = true;
            fx.push(Effect::Notify(Change::QueueingSwitched { on: false }));
        }
        self.settle(now, fx);
    }

    /// `restorequeueing map`: what is held is held as `no_path_retry` says
    /// again, counted from now.
    pub fn restore_queueing(&mut self, now: Time, fx: &mut Effects) {
        if self.queueing_disabled {
            self.queueing_disabled = false;
            self.count_retries_from(now);
            fx.push(Effect::Notify(Change::QueueingSwitched { on: true }));
        }
        self.settle(now, fx);
    }

    /// `no_path_retry` begins anew, if no path carries I/O.
    pub(super) fn count_retries_from(&mut self, now: Time) {
        self.queueing_ended = false;
        self.no_path_since = self.no_path_since.map(|_| now);
    }

    /// The last path was taken away (`flush_on_last_del`). A map that is served
    /// to a guest is in use, which is why `unused` does not concern it.
    pub(super) fn last_path_lost(&mut self) {
        self.flushed = self.policy.flush_on_last_del == FlushOnLastDel::Always;
    }

    /// Tells when no path carries I/O any more, or one does again; ends
    /// queueing when it is time, and has the paths checked often meanwhile.
    pub(super) fn track_no_path(&mut self, now: Time, fx: &mut Effects) {
        // Until a path joins again.
        self.flushed &= self.order.is_empty();
        let never_had_one = self.order.is_empty() && self.published.is_none();
        if self.carrying() > 0 || never_had_one {
            self.watch_no_more();
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
        self.watch_closely(now, fx);
        if self.queueing_deadline().is_some_and(|d| d <= now) {
            self.queueing_ended = true;
            self.queue_timeouts += 1;
            fx.push(Effect::Notify(Change::QueueingEnded));
        }
    }

    /// When `no_path_retry` ends.
    pub(super) fn queueing_deadline(&self) -> Option<Time> {
        let over = self.queueing_ended || self.queueing_disabled || self.flushed;
        match (self.policy.no_path_retry, self.no_path_since) {
            (NoPathRetry::Times(n), Some(since)) if !over => {
                Some(since + self.policy.polling_interval * n)
            }
            _ => None,
        }
    }

    /// Whether a path may carry I/O in a moment although none has failed.
    fn is_access_undecided(&self) -> bool {
        self.access_is_open() || self.is_activating()
    }

    /// What becomes of requests while no path carries I/O.
    pub(super) fn queueing(&self) -> Queueing {
        let undecided = self.carrying() == 0
            && (self.all().any(Path::is_undecided) || self.is_access_undecided());
        let holds = match self.policy.no_path_retry {
            _ if undecided => true,
            _ if self.queueing_disabled || self.flushed => false,
            NoPathRetry::Queue => true,
            NoPathRetry::Times(_) => !self.queueing_ended,
            NoPathRetry::Fail => false,
        };
        match holds {
            true => Queueing::Hold,
            false if self.lun_gone => Queueing::Gone,
            false => Queueing::Fail,
        }
    }
}
