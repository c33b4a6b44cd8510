//! Paths that fail too often: `san_path_err_*`, `marginal_path_*`, marks.
//!
//! A path is *unreliable* while any of these holds:
//! * it failed more often than `san_path_err_threshold`, where each
//!   `san_path_err_forget_rate` good checks make up for one failure (those it
//!   has from time to time, not those that commands in trouble ask for): until
//!   it has answered for `san_path_err_recovery_time`;
//! * it failed twice within `marginal_path_double_failed_time`, or a command
//!   ended with DID_TRANSPORT_MARGINAL: it is read ten times a second for
//!   `marginal_path_err_sample_time`, from the first good check on. With more
//!   errors than `marginal_path_err_rate_threshold` it is left alone for
//!   `marginal_path_err_recheck_gap_time` and read again;
//! * an administrator says so (`setmarginal`).
//!
//! With `marginal_pathgroups` it is used all the same, in groups that come
//! last. Without, it is *held back*: it fails, is checked and proven like any
//! other, but once it is in order it carries nothing while a reliable path
//! does (`delayed` in `multipath -ll`). When the last reliable path goes it
//! takes over in the same step; multipath-tools lets it wait for its next
//! check, with no path at all meanwhile, and then forgives it everything.

use std::time::Duration;

use super::effect::{Cause, Change, Effect, Effects};
use super::path::{Outstanding, Path, PathState};
use super::policy::MarginalPath;
use super::snapshot::PathId;
use super::{MapError, Multipath};
use crate::io::Time;

/// This many `polling_interval`s after its last failure a path has settled.
pub(super) const LATELY: u32 = 12;

/// Between two reads of a path that is sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// `san_path_err_recovery_time`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hold {
    #[default]
    None,
    /// Begins with the next good check.
    Due,
    Until(Time),
}

/// `marginal_path_err_sample_time` and `marginal_path_err_recheck_gap_time`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trial {
    #[default]
    None,
    /// Begins with the next good check.
    Due,
    Sampling {
        until: Time,
        next: Time,
        reads: u32,
        bad: u32,
    },
    /// Found bad; due again then.
    Rest {
        until: Time,
    },
}

/// How reliable a path has been.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shaky {
    /// Failures that have not been made up for.
    errors: u32,
    /// Good checks since the last that was.
    good: u32,
    /// The last check was due.
    regular: bool,
    hold: Hold,
    trial: Trial,
    /// `setmarginal`.
    marked: bool,
    /// Failures, each lately after the one before, and the last one.
    flaps: u32,
    last_failure: Option<Time>,
}

impl Shaky {
    /// Whether it is used last, or not at all.
    fn is_unreliable(&self) -> bool {
        self.marked || self.hold != Hold::None || self.trial != Trial::None
    }

    /// How often it failed, if the last time was within `lately`.
    pub(super) fn flaps(&self, now: Time, lately: Duration) -> u32 {
        let recent = self.last_failure.is_some_and(|at| now.since(at) < lately);
        if recent { self.flaps } else { 0 }
    }

    /// A check begins.
    pub(super) fn is_regular(&mut self, regular: bool) {
        self.regular = regular;
    }

    fn forgive(&mut self) {
        (self.errors, self.good) = (0, 0);
        (self.hold, self.trial) = (Hold::None, Trial::None);
    }

    /// When a check may change what is thought of it.
    pub(super) fn next_change(&self, now: Time) -> Option<Time> {
        let hold = match self.hold {
            Hold::Until(at) => Some(at),
            Hold::None | Hold::Due => None,
        };
        let rest = match self.trial {
            Trial::Rest { until } => Some(until),
            _ => None,
        };
        hold.into_iter().chain(rest).filter(|at| *at > now).min()
    }

    fn sample_from(&mut self, now: Time, how: MarginalPath) {
        self.trial = Trial::Sampling { until: now + how.sample_time, next: now, reads: 0, bad: 0 };
    }
}

impl Multipath {
    /// `setmarginal path`, `unsetmarginal path`. The latter forgives whatever
    /// made the path unreliable.
    ///
    /// # Errors
    /// There is no such path.
    pub fn set_marginal(
        &mut self,
        now: Time,
        name: &str,
        marginal: bool,
        fx: &mut Effects,
    ) -> Result<(), MapError> {
        let id = self.path_by_name(name)?.id;
        if let Some(path) = self.path_mut(id) {
            path.shaky.marked = marginal;
        }
        match marginal {
            true => self.judge_reliability(id, fx),
            false => self.forgive(id, fx),
        }
        self.settle(now, fx);
        Ok(())
    }

    /// Forgets why the path is unreliable, but for a mark.
    pub(super) fn forgive(&mut self, id: PathId, fx: &mut Effects) {
        if let Some(path) = self.path_mut(id) {
            path.shaky.forgive();
        }
        self.judge_reliability(id, fx);
    }

    /// DID_TRANSPORT_MARGINAL.
    pub(super) fn reported_marginal(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        let Some(path) = self.path_mut(id) else { return };
        if path.shaky.trial == Trial::None {
            path.shaky.trial = Trial::Due;
            self.check_now(now, id, fx);
            self.judge_reliability(id, fx);
        }
    }

    /// The path is taken out of use, or stays so after a bad check.
    pub(super) fn found_bad(&mut self, now: Time, id: PathId, cause: &Cause, fx: &mut Effects) {
        let lately = self.policy.polling_interval * LATELY;
        let (san, marginal) = (self.policy.san_path_err, self.policy.marginal_path);
        let Some(path) = self.path_mut(id) else { return };
        let shaky = &mut path.shaky;
        if shaky.hold != Hold::None {
            shaky.hold = Hold::Due;
        }
        if shaky.trial != Trial::None {
            shaky.trial = Trial::Due;
        }
        if path.state != PathState::Failed && *cause != Cause::Administrator {
            shaky.errors = shaky.errors.saturating_add(1);
            if san.is_some_and(|s| shaky.errors > s.threshold) {
                shaky.hold = Hold::Due;
            }
            let since = shaky.last_failure.map(|at| now.since(at));
            if marginal.zip(since).is_some_and(|(m, since)| since <= m.double_failed_time) {
                shaky.trial = Trial::Due;
            }
            shaky.flaps = shaky.flaps(now, lately).saturating_add(1);
            shaky.last_failure = Some(now);
        }
        self.judge_reliability(id, fx);
    }

    /// A check was good.
    pub(super) fn found_good(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        let san = self.policy.san_path_err;
        let how = self.policy.marginal_path.unwrap_or(MarginalPath::USUAL);
        let Some(path) = self.path_mut(id) else { return };
        let usable = path.is_usable();
        let shaky = &mut path.shaky;
        match (shaky.hold, san) {
            (Hold::Due, Some(san)) => shaky.hold = Hold::Until(now + san.recovery_time),
            (Hold::Until(at), _) if at > now => {}
            (Hold::Until(_), _) | (Hold::Due, None) => {
                shaky.hold = Hold::None;
                (shaky.errors, shaky.good) = (0, 0);
            }
            (Hold::None, Some(san)) if usable && shaky.regular && shaky.errors > 0 => {
                shaky.good = shaky.good.saturating_add(1);
                if shaky.good >= san.forget_rate {
                    shaky.errors -= 1;
                    shaky.good = 0;
                }
            }
            (Hold::None, _) => {}
        }
        match shaky.trial {
            Trial::Due => shaky.sample_from(now, how),
            Trial::Rest { until } if until <= now => shaky.sample_from(now, how),
            _ => {}
        }
        self.judge_reliability(id, fx);
    }

    /// Tells when the path becomes unreliable or reliable, and groups by it.
    fn judge_reliability(&mut self, id: PathId, fx: &mut Effects) {
        let Some(path) = self.path_mut(id) else { return };
        let marginal = path.shaky.is_unreliable();
        if path.marginal == marginal {
            return;
        }
        path.marginal = marginal;
        let path = path.name.clone();
        fx.push(Effect::Notify(Change::Marginal { path, marginal }));
        self.regroup();
    }

    /// What no longer applies after a change of policy.
    pub(super) fn rejudge_all(&mut self, was: Option<MarginalPath>, fx: &mut Effects) {
        let san = self.policy.san_path_err.is_some();
        let dropped = was.is_some() && self.policy.marginal_path.is_none();
        let ids: Vec<PathId> = self.all().map(|p| p.id).collect();
        for id in ids {
            let Some(path) = self.path_mut(id) else { continue };
            if !san {
                (path.shaky.hold, path.shaky.errors) = (Hold::None, 0);
            }
            if dropped {
                path.shaky.trial = Trial::None;
            }
            self.judge_reliability(id, fx);
        }
    }

    // --- samples ------------------------------------------------------------

    /// When the path is to be read next, or its sample is complete.
    pub(super) fn next_sample(&self, path: &Path) -> Option<Time> {
        match (path.shaky.trial, path.sample) {
            (Trial::Sampling { until, next, .. }, None) => Some(next.min(until)),
            (Trial::Sampling { until, .. }, Some(o)) if o.late => Some(until),
            _ => None,
        }
    }

    /// Takes the answer to a read.
    pub(super) fn sampled(&mut self, id: PathId, sample: u32, good: bool) {
        let Some(path) = self.path_mut(id) else { return };
        let Some(asked) = path.sample.filter(|o| o.number == sample) else { return };
        path.sample = None;
        // One that came late was counted when it did.
        if !asked.late {
            self.count_sample(id, good);
        }
    }

    pub(super) fn count_sample(&mut self, id: PathId, good: bool) {
        let Some(path) = self.path_mut(id) else { return };
        if let Trial::Sampling { reads, bad, .. } = &mut path.shaky.trial {
            *reads = reads.saturating_add(1);
            *bad = bad.saturating_add(u32::from(!good));
        }
    }

    /// Reads the path if it is time to, or decides.
    pub(super) fn run_sampling(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        let how = self.policy.marginal_path.unwrap_or(MarginalPath::USUAL);
        self.numbers = self.numbers.wrapping_add(1);
        let number = self.numbers;
        let Some(path) = self.path_mut(id) else { return };
        let Trial::Sampling { until, next, reads, bad } = &mut path.shaky.trial else { return };
        if now < *until {
            if *next <= now && path.sample.is_none() {
                *next = now + SAMPLE_INTERVAL;
                path.sample = Some(Outstanding { number, since: now, late: false });
                fx.push(Effect::Sample { path: id, sample: number });
            }
            return;
        }
        if path.sample.is_some_and(|o| !o.late) {
            return; // The last one counts, too.
        }
        let allowed = u64::from(*reads) * u64::from(how.rate_threshold);
        let good = *reads > 0 && u64::from(*bad) * 1000 <= allowed;
        if good {
            path.shaky.trial = Trial::None;
        } else {
            let until = now + how.recheck_gap;
            path.shaky.trial = Trial::Rest { until };
            path.next_check = path.next_check.min(until);
        }
        self.judge_reliability(id, fx);
    }
}
