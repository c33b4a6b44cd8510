//! When a path is checked, and what follows from the answer. What a checker
//! sends and how it reads the answers is [`super::checker`]'s.

use std::time::Duration;

use super::Multipath;
use super::checker::Verdict;
use super::effect::{Cause, Effect, Effects};
use super::path::{CheckerState, Outstanding, Path, PathState};
use super::snapshot::PathId;
use crate::io::Time;

impl Multipath {
    /// When to send the next `Event::Timer`; `None` while there is no path.
    pub fn next_deadline(&self) -> Option<Time> {
        let due = |p: &Path| {
            let asked = [p.check, p.proof].into_iter().flatten();
            let timeouts = asked.filter(|o| !o.late).map(|o| o.since + self.policy.checker_timeout);
            let idle = p.check.is_none() && p.proof.is_none();
            timeouts.chain(idle.then_some(p.next_check)).min()
        };
        let paths = self.all().filter_map(due);
        paths
            .chain(self.queueing_deadline())
            .chain(self.reading_deadline())
            .chain(self.activation_deadline())
            .chain(self.failback_deadline())
            .min()
    }

    pub(super) fn checked(
        &mut self,
        now: Time,
        id: PathId,
        check: u32,
        verdict: Verdict,
        fx: &mut Effects,
    ) {
        let (polling, ceiling) = (self.policy.polling_interval, self.policy.max_polling_interval());
        let Some(path) = self.path_mut(id) else { return };
        if path.check.is_none_or(|o| o.number != check) {
            return;
        }
        path.check = None;
        path.checker_state = match verdict {
            Verdict::Up { .. } | Verdict::Resized => CheckerState::Ready,
            Verdict::Ghost => CheckerState::Ghost,
            Verdict::Pending => CheckerState::Pending,
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
        path.interval = match verdict {
            Verdict::Up { .. } | Verdict::Resized | Verdict::Ghost if path.is_usable() => {
                (path.interval * 2).min(ceiling)
            }
            Verdict::Pending => Duration::from_secs(1),
            _ => polling,
        };
        path.next_check = now + path.interval;
        match (verdict, path.state) {
            (Verdict::Up { doubt: false } | Verdict::Ghost, PathState::Active)
            | (Verdict::Pending, _) => {}
            (Verdict::Up { .. }, PathState::Active) => {
                self.doubt(now, id, Cause::Checker("unit attention"), fx);
            }
            (Verdict::Resized, PathState::Active) => self.resized(now, id, fx),
            (Verdict::Up { .. } | Verdict::Resized | Verdict::Ghost, _)
                if path.failed_by_administrator => {}
            (Verdict::Up { .. } | Verdict::Resized | Verdict::Ghost, _) => self.prove(now, id, fx),
            (down, _) => {
                let word = match down {
                    Verdict::Disconnected => "disconnected",
                    Verdict::TimedOut => "i/o timeout",
                    _ => "faulty",
                };
                self.fail(now, id, Cause::Checker(word), fx);
            }
        }
        self.access_after_check(now, id, check, verdict, fx);
    }

    pub(super) fn check_now(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        self.numbers = self.numbers.wrapping_add(1);
        let number = self.numbers;
        let Some(path) = self.path_mut(id) else { return };
        // One check at a time: the answer under way counts.
        if path.check.is_none() && path.proof.is_none() {
            path.check = Some(Outstanding { number, since: now, late: false });
            fx.push(Effect::Check { path: id, check: number, checker: path.checker });
        }
    }

    pub(super) fn run_due_checks(&mut self, now: Time, fx: &mut Effects) {
        let timeout = self.policy.checker_timeout;
        for slot in self.order.clone() {
            let Some(path) = self.paths[usize::from(slot)].as_mut() else { continue };
            let id = path.id;
            let mut timed_out = false;
            for o in [&mut path.check, &mut path.proof].into_iter().flatten() {
                timed_out |= !o.late && o.since + timeout <= now;
                o.late |= timed_out;
            }
            if timed_out {
                path.checker_state = CheckerState::TimedOut;
                self.fail(now, id, Cause::Checker("i/o timeout"), fx);
            } else if path.check.is_none() && path.proof.is_none() && path.next_check <= now {
                self.check_now(now, id, fx);
            }
        }
    }
}
