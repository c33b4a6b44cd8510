//! The law of progress: I/O goes on whenever a path can carry it; what is held
//! has a reason, and an end.

use super::*;
use vhost_mpath::sim::Faults;

/// When what does not come before the faults end is said to come.
pub(super) const NEVER: Time = Time(u64::MAX);

/// News of a policy is everywhere after this long.
const NEWS: Duration = Duration::from_secs(10);

/// A path that is in order is found so, proven and known to the queue thread
/// after this long: a check that hangs from before, one whose answer comes late
/// (40 s), a check, a reading, a proof, and three messages.
const FOUND: Duration = Duration::from_secs(100);

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Groups that the array prefers.
    pub(super) preferred: Vec<bool>,
    /// Requests submitted until then may end without a path having answered:
    /// what the administrator has set says so.
    pub(super) may_fail: Time,
    /// `disablequeueing`.
    pub(super) disabled: bool,
    /// The map has no path.
    pub(super) lost_all: bool,
    /// and what it holds is not to wait (`flush_on_last_del`).
    pub(super) flushed: bool,
    /// When there was last no path left for the queue thread, all decided, and
    /// its table held nothing.
    nothing_left: Option<Time>,
    /// Since when requests have been held without a break,
    held_since: Option<Time>,
    /// and since when nothing has been on a path meanwhile.
    idle_since: Option<Time>,
    /// Effects that the engine must not go on to have when nothing happens.
    pub(super) restless: Vec<String>,
    pub(super) quiet: bool,
}

impl World {
    /// The administrator has set something about queueing.
    pub(super) fn queueing_changed(&mut self) {
        let queues = self.policy.no_path_retry == NoPathRetry::Queue
            && self.policy.queue_timeout.is_none()
            && !self.progress.disabled
            && !self.progress.lost_all;
        if !queues {
            self.progress.may_fail = NEVER;
        } else if self.progress.may_fail == NEVER {
            self.progress.may_fail = self.now + NEWS;
        }
        self.progress.idle_since = None;
    }

    pub(super) fn see_whether_anything_is_left(&mut self) {
        let table = self.core.table();
        if table.queueing != Queueing::Hold && self.wire.has_lost_all_of(table) {
            self.progress.nothing_left = Some(self.now);
        }
    }

    /// A request has ended for want of a path: there is none that the engine is
    /// still to decide about. (One in several parts may have lost its first at
    /// an earlier moment.)
    pub(super) fn ends_for_want_of_a_path(&self, op: Op) {
        let same = self.pending.iter().flatten().filter(|p| p.meaning == op);
        let since = same.map(|p| p.submitted).min();
        if since.is_some() && since <= self.progress.nothing_left {
            return;
        }
        let undecided = self.wire.undecided(self.core.table(), self.now);
        assert_eq!(undecided, None, "no path, while nothing is decided about this one");
    }

    pub(super) fn count_effects(&mut self, fx: &Effects) {
        if self.progress.quiet {
            // (What is unreliable may be so for good, and is sampled for good.)
            let regular = |e: &Effect| {
                matches!(
                    e,
                    Effect::Check { .. } | Effect::Prioritize { .. } | Effect::Sample { .. }
                )
            };
            let restless = |e: &&Effect| !regular(e);
            let restless = fx.iter().filter(restless).map(|e| format!("{e:?}"));
            self.progress.restless.extend(restless);
        }
    }

    /// After every step.
    pub(super) fn goes_on(&mut self) {
        if self.core.held() == 0 {
            self.progress.held_since = None;
            self.progress.idle_since = None;
            return;
        }
        let now = self.now;
        if self.progress.held_since.is_none() {
            self.progress.held_since = Some(now);
            self.wire.plugs.iter_mut().for_each(|p| p.good_since = None);
        }
        for at in 0..self.wire.plugs.len() {
            let good = self.is_good(&self.wire.plugs[at]);
            let plug = &mut self.wire.plugs[at];
            plug.good_since = plug.good_since.or(Some(now)).filter(|_| good);
            let forgotten = plug.good_since.is_some_and(|since| since + FOUND <= now);
            assert!(
                !forgotten,
                "{} can carry I/O for {FOUND:?}, and requests are held: {}",
                self.wire.plugs[at].name,
                self.description()
            );
        }
        self.is_not_held_too_long();
    }

    /// `queue_timeout`, for requests that nothing else can have kept.
    fn is_not_held_too_long(&mut self) {
        let now = self.now;
        if !self.wire.on_path.is_empty() {
            self.progress.idle_since = None;
            return;
        }
        let since = *self.progress.idle_since.get_or_insert(now);
        if self.hosts.is_some() {
            return; // suspended, or awaiting what orders end with
        }
        let Some(limit) = self.policy.queue_timeout else { return };
        // One that had to wait for another's end to be looked at at all (a part
        // of the request core's pool) is held from then on.
        let over = |p: &&Pending| p.submitted.max(since) + 3 * limit + NEWS <= now;
        let late = self.pending.iter().flatten().find(over);
        assert!(late.is_none(), "{late:?} is held longer than {limit:?}: {}", self.description());
    }

    /// Nothing is wrong with the path, whatever the engine thinks.
    fn is_good(&self, plug: &Plug) -> bool {
        let in_order = Faults::default();
        plug.remapped.is_none()
            && plug.stuck == 0
            && !plug.deleted
            && !plug.leaving
            && self.array.faults(plug.nexus) == Some(&in_order)
            && self.array.access_state(plug.nexus).is_some_and(access::carries)
            && self
                .array
                .condition(plug.nexus)
                .is_some_and(|c| !c.contains("upgrade") && !c.contains("down"))
            && self
                .map
                .path(plug.id)
                .is_some_and(|p| !p.failed_by_administrator && p.shrunk_to.is_none())
    }

    /// What checking threads hung on comes back.
    pub(super) fn answers_come(&mut self) {
        for (at, _) in &mut self.answers {
            if *at == NEVER {
                *at = self.now;
            }
        }
    }
}
