//! The law of progress: I/O goes on whenever a path can carry it.

use super::*;

/// When what does not come before the faults end is said to come.
pub(super) const NEVER: Time = Time(u64::MAX);

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Groups that the array prefers.
    pub(super) preferred: Vec<bool>,
    /// Requests submitted until then may end without a path having answered:
    /// what the administrator has set says so.
    pub(super) may_fail: Time,
    /// Effects since the faults ended that the engine must not go on to have.
    pub(super) restless: u64,
}

impl Progress {
    pub(super) fn count(&mut self, fx: &Effects) {
        let restless = |e: &&Effect| !matches!(e, Effect::Check { .. } | Effect::Prioritize { .. });
        self.restless += fx.iter().filter(restless).count() as u64;
    }
}

/// News of a policy is everywhere after this long.
const NEWS: Duration = Duration::from_secs(10);

impl World {
    /// The administrator has set something about queueing.
    pub(super) fn queueing_changed(&mut self) {
        let queues =
            self.policy.no_path_retry == NoPathRetry::Queue && self.policy.queue_timeout.is_none();
        if !queues {
            self.progress.may_fail = NEVER;
        } else if self.progress.may_fail == NEVER {
            self.progress.may_fail = self.now + NEWS;
        }
    }

    /// After every step.
    pub(super) fn goes_on(&mut self) {}

    /// What checking threads hung on comes back.
    pub(super) fn answers_come(&mut self) {
        for (at, _) in &mut self.answers {
            if *at == NEVER {
                *at = self.now;
            }
        }
    }
}
