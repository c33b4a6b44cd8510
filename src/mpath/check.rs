//! When a path is checked, what follows from the answer, and what follows when
//! nothing answers. What a checker sends and how it reads the answers is
//! [`super::checker`]'s; what becomes of a path that fails too often is
//! `shaky`'s.
//!
//! The times are multipath-tools' (`checkers.c`, `update_path_state`):
//! * a path that is down: every `polling_interval`, once it has been down for
//!   some seconds;
//! * a good one: each interval twice the last, up to `max_polling_interval`,
//!   and at the path's own place in the interval, so that the checks of many
//!   paths, and of many maps, do not come all at once;
//! * one in transition: each second;
//!
//! Ours is: a path that has just failed is checked after a second, and again
//! after two and four more, since most of what is short is over by then; while
//! no path carries I/O, see `watch`. A path that has failed *n* ≥ 2 times lately (each time within
//! twelve `polling_interval`s of the last) is checked 2ⁿ⁻¹ times as often as
//! one that is down, good or not, but not more often than each second.

use std::time::Duration;

use super::Multipath;
use super::checker::Verdict;
use super::effect::{Cause, Effect, Effects};
use super::path::{CheckerState, Outstanding, Path, PathState};
use super::shaky::LATELY;
use super::snapshot::PathId;
use crate::io::Time;

/// Between two checks of a path in transition; before the first of one that has
/// failed; and the least between two of one that flaps. While no path carries
/// I/O (`watch`): between two returns of a path, and between two checks of one
/// that is in order but passive, which readings are to find out about.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// Marks what has not answered within `timeout` since it was asked; whether it
/// did so now.
fn timed_out(asked: &mut Option<Outstanding>, now: Time, timeout: Duration) -> bool {
    let late = |o: &&mut Outstanding| !o.late && o.since + timeout <= now;
    asked.as_mut().filter(late).map(|o| o.late = true).is_some()
}

impl Multipath {
    /// When to send the next `Event::Timer`; `None` while nothing is to come.
    pub fn next_deadline(&self) -> Option<Time> {
        let due = |p: &Path| {
            let asked = [p.check, p.proof, p.sample].into_iter().flatten();
            let timeouts = asked.filter(|o| !o.late).map(|o| o.since + self.policy.checker_timeout);
            let check = (!p.is_being_checked()).then_some(p.next_check);
            timeouts.chain(check).chain(self.next_sample(p)).min()
        };
        let paths = self.all().filter_map(due);
        paths
            .chain(self.queueing_deadline())
            .chain(self.reading_deadline())
            .chain(self.activation_deadline())
            .chain(self.failback_deadline())
            .chain(self.reservation_deadline())
            .min()
    }

    /// Takes the answer to a check.
    pub(super) fn checked(
        &mut self,
        now: Time,
        id: PathId,
        check: u32,
        verdict: Verdict,
        fx: &mut Effects,
    ) {
        let Some(path) = self.path_mut(id) else { return };
        if path.check.is_none_or(|o| o.number != check) {
            return;
        }
        path.check = None;
        path.checker_state = match verdict {
            Verdict::Up { .. } | Verdict::Resized => CheckerState::Ready,
            Verdict::Ghost { .. } => CheckerState::Ghost,
            Verdict::Pending { .. } => CheckerState::Pending,
            Verdict::Shaky => CheckerState::Shaky,
            Verdict::Down => CheckerState::Faulty,
            Verdict::Disconnected => CheckerState::Disconnected,
            Verdict::TimedOut => CheckerState::TimedOut,
        };
        match verdict {
            Verdict::Disconnected => path.no_lun = true,
            // Nothing has answered.
            Verdict::Down | Verdict::TimedOut => {}
            _ => path.no_lun = false,
        }
        self.schedule(now, id, verdict);
        match verdict {
            Verdict::Pending { doubt } => {
                if doubt {
                    self.doubt(now, id, Cause::Checker("unit attention"), fx);
                }
            }
            Verdict::Up { .. } | Verdict::Resized | Verdict::Ghost { .. } => {
                self.checked_good(now, id, verdict, fx);
            }
            Verdict::Shaky => self.fail(now, id, Cause::Checker("shaky"), fx),
            Verdict::Down => self.fail(now, id, Cause::Checker("faulty"), fx),
            Verdict::Disconnected => self.fail(now, id, Cause::Checker("disconnected"), fx),
            Verdict::TimedOut => self.fail(now, id, Cause::Checker("i/o timeout"), fx),
        }
        self.access_after_check(now, id, check, verdict, fx);
    }

    fn checked_good(&mut self, now: Time, id: PathId, verdict: Verdict, fx: &mut Effects) {
        self.found_good(now, id, fx);
        self.may_register(id);
        let Some(path) = self.path(id) else { return };
        match (path.state, verdict) {
            (PathState::Active, _) if verdict.doubts() => {
                self.doubt(now, id, Cause::Checker("unit attention"), fx);
            }
            (PathState::Active, Verdict::Resized) => self.resized(now, id, fx),
            (PathState::Active, _) => {}
            _ if path.failed_by_administrator => {}
            _ => self.prove(now, id, fx),
        }
    }

    /// Asks for a check of the path, unless one is under way.
    pub(super) fn check_now(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        self.numbers = self.numbers.wrapping_add(1);
        let number = self.numbers;
        let Some(path) = self.path_mut(id) else { return };
        // One check at a time: the answer under way counts. A proof says nothing
        // about what a checker sees, and is waited for.
        path.check_follows = path.check.is_none() && path.proof.is_some();
        if path.check.is_none() && path.proof.is_none() {
            path.check = Some(Outstanding { number, since: now, late: false });
            path.shaky.is_regular(path.next_check <= now);
            fx.push(Effect::Check { path: id, check: number, checker: path.checker });
        }
    }

    /// Asks for what is due, and gives up on what has not answered in time.
    pub(super) fn run_due_checks(&mut self, now: Time, fx: &mut Effects) {
        let timeout = self.policy.checker_timeout;
        for slot in self.order.clone() {
            let Some(path) = self.paths[usize::from(slot)].as_mut() else { continue };
            let id = path.id;
            let [check, proof, sample] = [&mut path.check, &mut path.proof, &mut path.sample]
                .map(|asked| timed_out(asked, now, timeout));
            if check || proof {
                // One that is as late as the other is given up with it.
                for o in [&mut path.check, &mut path.proof].into_iter().flatten() {
                    o.late = true;
                }
                path.checker_state = CheckerState::TimedOut;
                self.fail(now, id, Cause::Checker("i/o timeout"), fx);
            } else if !path.is_being_checked() && (path.next_check <= now || path.check_follows) {
                self.check_now(now, id, fx);
            }
            if sample {
                self.count_sample(id, false);
            }
            self.run_sampling(now, id, fx);
        }
    }

    // --- when ---------------------------------------------------------------

    /// When the path is checked after an answer.
    fn schedule(&mut self, now: Time, id: PathId, verdict: Verdict) {
        let ceiling = self.policy.max_polling_interval();
        let Some(path) = self.path(id) else { return };
        let retry = self.retry_interval(now, path);
        let calm = retry == self.policy.polling_interval;
        let good = matches!(verdict, Verdict::Up { .. } | Verdict::Resized | Verdict::Ghost { .. });
        let (interval, next) = match verdict {
            Verdict::Pending { .. } => (SOON, now + SOON),
            _ if good && path.is_usable() && calm => {
                let interval = (path.interval.max(retry) * 2).min(ceiling);
                (interval, self.own_place(now, id, interval))
            }
            // (One that fails by this has its first check set by that.)
            _ if path.is_usable() => (retry, now + retry),
            _ => {
                let interval = (path.interval * 2).min(retry);
                (interval, now + interval)
            }
        };
        if let Some(path) = self.path_mut(id) {
            let sooner = path.shaky.next_change(now);
            path.interval = interval;
            path.next_check = sooner.map_or(next, |at| at.min(next));
        }
    }

    /// Between two checks of a path that is down, or was lately.
    pub(super) fn retry_interval(&self, now: Time, path: &Path) -> Duration {
        let polling = self.policy.polling_interval;
        let halvings = path.shaky.flaps(now, polling * LATELY).saturating_sub(1).min(16);
        (polling / (1 << halvings)).max(SOON.min(polling))
    }

    /// The path's own place in the interval, between half of it and one and a
    /// half from now: a good path is on it exactly one interval after the
    /// other. Golden ratio: any number of paths is spread evenly.
    pub(super) fn own_place(&self, now: Time, id: PathId, interval: Duration) -> Time {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let wwid = self.identity.wwid.bytes();
        let map = wwid.fold(0, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let place = map.wrapping_add(u64::from(id.slot) + 1).wrapping_mul(GOLDEN) >> 48;
        let nanos = interval.as_nanos().clamp(1, u128::from(u64::MAX));
        let phase = (nanos * u128::from(place)) >> 16;
        let earliest = u128::from((now + interval / 2).0);
        let ahead = (phase + nanos - earliest % nanos) % nanos;
        Time(u64::try_from(earliest + ahead).unwrap_or(u64::MAX))
    }
}
