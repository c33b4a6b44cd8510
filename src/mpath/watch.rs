//! While no path carries I/O: the paths are watched closely, so that what is
//! held goes on as soon as one of them can carry it.
//!
//! When the last path goes, every path that is out of use is checked at once,
//! whosever turn it is, and from then on `no_path_interval` after each answer.
//! Each has a timer of its own and one check at a time: a check that hangs keeps
//! no other path from being asked. Target port groups that do not carry I/O are
//! read as often, each by one path.
//!
//! A path that passes every check and fails the first command is not taken round
//! as fast as it can fail: it returns at most once a second.

use super::Multipath;
use super::check::SOON;
use super::effect::Effects;
use super::snapshot::PathId;
use crate::io::Time;

impl Multipath {
    /// No path carries I/O after this step.
    pub(super) fn watch_closely(&mut self, now: Time, fx: &mut Effects) {
        let interval = self.policy.no_path_interval;
        let first = !std::mem::replace(&mut self.watching, true);
        let watched = self.all().filter(|p| !p.failed_by_administrator);
        let ids: Vec<PathId> = watched.map(|p| p.id).collect();
        for id in ids {
            let Some(path) = self.path_mut(id) else { continue };
            let rested = path.returned.map_or(now, |at| at + SOON);
            let next = if path.is_usable() {
                now + interval.max(SOON)
            } else if first && path.interval > interval {
                rested.max(now)
            } else {
                rested.max(now + interval)
            };
            if !path.is_usable() {
                path.interval = path.interval.min(interval);
            }
            path.next_check = path.next_check.min(next);
            if path.next_check <= now && !path.is_being_checked() {
                self.check_now(now, id, fx);
            }
        }
        if self.usable() > 0 {
            let next = now + interval;
            self.reread_at = Some(self.reread_at.map_or(next, |at| at.min(next)));
        }
    }

    /// A path carries I/O again: the others are looked for less and less often.
    pub(super) fn watch_no_more(&mut self) {
        self.watching = false;
    }
}
