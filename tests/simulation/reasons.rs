//! What the engine needs a reason for: laws about its decisions that look back
//! at what it was told, and what it had asked.

use std::time::Duration;

use vhost_mpath::io::{Completion, Time};
use vhost_mpath::mpath::Multipath;
use vhost_mpath::mpath::classify::PathVerdict;
use vhost_mpath::mpath::effect::{Cause, Change, Effect};
use vhost_mpath::mpath::event::{Event, IoReason, IoReport};
use vhost_mpath::mpath::hwhandler::Activation;
use vhost_mpath::mpath::path::{Path, PathState};
use vhost_mpath::mpath::policy::{GroupingPolicy, NoPathRetry};
use vhost_mpath::mpath::prio::Reading;
use vhost_mpath::mpath::snapshot::{PathId, PathTable, PathView, Queueing};
use vhost_mpath::scsi::alua::AccessState;
use vhost_mpath::scsi::sense::Key;
use vhost_mpath::scsi::status::{HostByte, Status};

/// What was asked of a path and has not been answered.
#[derive(Debug)]
struct Asked {
    path: PathId,
    number: u32,
    /// Moment of the engine's step.
    begun: u64,
}

/// A path, for as long as something is to be remembered of it.
#[derive(Debug)]
struct Note {
    path: PathId,
    /// When it was told last that its group is passive, while it carried.
    passive: u64,
    /// Nobody has told anything since, and it took too long: standby is a guess.
    guessed: bool,
    /// Activations in a row that said Retry.
    tries: u32,
    /// When its array was busy, if nothing has changed since.
    busy: Option<Time>,
    /// When an activation was begun that has not been answered; whether it has
    /// been given up: then its answer says nothing of the array as it is.
    begun: Option<Time>,
    given_up: bool,
}

impl Note {
    fn of(path: PathId) -> Note {
        let (passive, tries, guessed, given_up) = (0, 0, false, false);
        Note { path, passive, guessed, tries, busy: None, begun: None, given_up }
    }
}

/// What the administrator has set about requests without a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) disabled: bool,
    /// The last path has gone, and nothing is to wait for another.
    pub(crate) flushed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Reasons {
    asked: Vec<Asked>,
    notes: Vec<Note>,
    /// The latest moment at which something was begun that has told of access
    /// states.
    told: u64,
    activating: bool,
    /// Since when no path has carried I/O.
    empty_since: Option<Time>,
    /// Since when every path has been failed.
    failed_since: Option<Time>,
    /// Requests were held after the last step.
    held: bool,
    /// When something about that was set last.
    set: Time,
}

/// What the LU says of itself, or of a target port group, fails no path (laws
/// 4, 8).
fn is_no_paths_fault(completion: &Completion) -> bool {
    let Completion::Scsi { status, host, sense, .. } = completion else { return false };
    if *host != HostByte::OK {
        return *host == HostByte::TRANSPORT_MARGINAL;
    }
    match (*status, sense.code().map(|c| (c.key, c.asc, c.ascq))) {
        (Status::BUSY | Status::TASK_SET_FULL | Status::RESERVATION_CONFLICT, _) => true,
        (_, Some((Key::MediumError, ..))) => true,
        (_, Some((Key::NotReady, 0x04, 0x01 | 0x0a | 0x0b | 0x0c | 0x12))) => true,
        (_, Some((Key::IllegalRequest, asc, ascq))) => (asc, ascq) != (0x25, 0x00),
        _ => false,
    }
}

impl Reasons {
    fn note(&mut self, path: PathId) -> &mut Note {
        let at = self.notes.iter().position(|n| n.path == path);
        let at = at.unwrap_or_else(|| {
            self.notes.push(Note::of(path));
            self.notes.len() - 1
        });
        &mut self.notes[at]
    }

    /// An administrator, or discovery, has changed something.
    pub(crate) fn commanded(&mut self, time: Time) {
        self.set = time;
        for note in &mut self.notes {
            (note.tries, note.busy) = (0, None);
        }
    }

    /// Before the engine is told.
    pub(crate) fn tells(&mut self, moment: u64, time: Time, event: &Event, map: &Multipath) {
        match *event {
            Event::Io(IoReport { path, epoch, reason: IoReason::Judged { verdict, .. } }) => {
                let carries = map.path(path).is_some_and(|p| p.epoch == epoch && p.carries());
                if verdict == PathVerdict::Passive && carries {
                    let note = self.note(path);
                    (note.passive, note.guessed) = (moment, false);
                }
            }
            Event::Checked { path, check: number, .. }
            | Event::Prioritized { path, reading: number, .. } => {
                let is = |a: &Asked| a.path == path && a.number == number;
                if let Some(at) = self.asked.iter().position(is) {
                    self.told = self.told.max(self.asked.swap_remove(at).begun);
                }
            }
            Event::Activated { path, result, .. } => {
                // The states were read at its end.
                self.told = moment;
                let note = self.note(path);
                if !std::mem::take(&mut note.given_up) {
                    note.busy = (result == Activation::Busy).then_some(time);
                }
                note.begun = None;
                if !matches!(result, Activation::Retry { .. }) {
                    note.tries = 0;
                }
            }
            _ => {}
        }
    }

    /// What a step of the engine asks for and tells.
    pub(crate) fn asks(&mut self, moment: u64, time: Time, fx: &[Effect], map: &Multipath) {
        let mut begins = false;
        for effect in fx {
            match effect {
                Effect::Check { path, check: number, .. }
                | Effect::Prioritize { path, reading: number, .. } => {
                    self.asked.push(Asked { path: *path, number: *number, begun: moment });
                }
                Effect::Activate { path, .. } => {
                    let most = map.policy().pg_init_retries + 1;
                    let note = self.note(*path);
                    note.tries = if begins { 1 } else { note.tries + 1 };
                    assert!(note.tries <= most, "{path} is activated for ever: {}", note.tries);
                    let rests = note.busy.is_some_and(|at| at + Duration::from_secs(2) > time);
                    assert!(!rests, "{path} is activated, and was busy just now");
                    note.begun = Some(time);
                }
                Effect::Notify(change) => {
                    self.guessed(moment, change, map);
                    if matches!(change, Change::Activating { .. }) {
                        begins = true;
                        // What is still out counts as the first time.
                        self.notes.iter_mut().for_each(|n| n.tries = n.tries.min(1));
                    }
                    self.notified(change, map);
                }
                Effect::Retire(path) => {
                    self.notes.retain(|n| n.path != *path);
                    self.asked.retain(|a| a.path != *path);
                }
                _ => {}
            }
        }
    }

    /// A target port group that stays in transition for too long is taken for standby.
    fn guessed(&mut self, moment: u64, change: &Change, map: &Multipath) {
        let Change::AccessChanged { path, access } = change else { return };
        let Ok(path) = map.path_by_name(path) else { return };
        let told = self.told;
        let note = self.note(path.id);
        let untold = note.passive >= told && note.passive < moment;
        note.guessed = untold && access.state == Some(AccessState::Standby);
    }

    /// A path joins, and its opening has read the target port groups just now. It has no number,
    /// and a command knows better; but of what is only guessed it tells.
    pub(crate) fn joins(&mut self, reading: Option<&Reading>) {
        if reading.is_some_and(|reading| reading.alua.is_some()) {
            self.notes.iter_mut().filter(|note| note.guessed).for_each(|note| note.passive = 0);
        }
    }

    fn notified(&mut self, change: &Change, map: &Multipath) {
        match change {
            Change::Activating { .. } => self.activating = true,
            // (Of a group all of whose paths have gone nothing is told.)
            Change::Activated { .. } | Change::PathRemoved { .. } | Change::PathDeleted { .. } => {
                self.activating = false;
            }
            Change::PathFailed { path, cause, .. } => {
                if let Cause::Io(IoReason::Judged { completion, .. }) = cause {
                    assert!(!is_no_paths_fault(completion), "{path} has failed for {completion:?}");
                }
                self.changed(path, map);
            }
            Change::PathReinstated { path, .. } | Change::AccessChanged { path, .. } => {
                self.changed(path, map);
            }
            _ => {}
        }
    }

    fn changed(&mut self, name: &str, map: &Multipath) {
        if let Ok(path) = map.path_by_name(name) {
            let note = self.note(path.id);
            (note.tries, note.busy) = (0, None);
        }
    }

    /// After every step of the engine.
    pub(crate) fn check(
        &mut self,
        time: Time,
        map: &Multipath,
        paths: &[PathId],
        setting: Setting,
    ) {
        let timeout = map.policy().checker_timeout;
        for note in &mut self.notes {
            note.given_up |= note.begun.is_some_and(|at| at + timeout <= time);
        }
        let Some(table) = map.table() else { return };
        for view in table.groups.iter().flat_map(|g| &g.paths) {
            let told = self.notes.iter().find(|n| n.path == view.id).map_or(0, |n| n.passive);
            assert!(
                told == 0 || told < self.told,
                "{} is in use, and nothing that was begun since has said that it is not passive",
                view.id
            );
        }
        if !table.groups.is_empty() {
            (self.empty_since, self.failed_since, self.held) = (None, None, true);
            assert!(self.is_grouped(table, map), "wrongly grouped: {table:?}");
            return;
        }
        let since = *self.empty_since.get_or_insert(time);
        let paths: Vec<&Path> = paths.iter().filter_map(|id| map.path(*id)).collect();
        let waits = |p: &&Path| {
            p.is_undecided() || p.is_usable() && p.access.state == Some(AccessState::Transitioning)
        };
        let why = paths.iter().copied().find(waits).map(|p| p.id);
        let hold = table.queueing == Queueing::Hold;
        let held = std::mem::replace(&mut self.held, hold);
        let decided = why.is_none() && !self.activating;
        assert!(hold || decided, "requests do not wait for {why:?}, or an activation");
        if !paths.iter().all(|p| p.state == PathState::Failed) {
            self.failed_since = None;
            return;
        }
        let failed = *self.failed_since.get_or_insert(time);
        let retry = map.policy().no_path_retry;
        let ends = match retry {
            _ if setting.disabled || (setting.flushed && paths.is_empty()) => {
                return assert!(!hold, "requests are held against {setting:?}");
            }
            NoPathRetry::Queue => None,
            NoPathRetry::Fail => Some((since, failed)),
            NoPathRetry::Times(n) => {
                let lasts = map.policy().polling_interval * n;
                Some((since + lasts, failed.max(self.set) + lasts))
            }
        };
        let Some((earliest, latest)) = ends else { return };
        // (Once it has ended, another interval does not bring it back.)
        let just = held && self.set + Duration::from_secs(60) <= time;
        assert!(
            hold || !just || earliest <= time,
            "no path since {since:?}: too early for {retry:?}"
        );
        assert!(!hold || latest >= time, "no path since {failed:?}: held against {retry:?}");
    }

    /// The paths of a group have in common what the policy groups by, and no
    /// others have it.
    fn is_grouped(&self, table: &PathTable, map: &Multipath) -> bool {
        let policy = map.policy();
        let alike = |a: &PathView, b: &PathView| {
            let (Some(p), Some(q)) = (map.path(a.id), map.path(b.id)) else { return false };
            let same = match policy.grouping {
                GroupingPolicy::Failover => a.id == b.id,
                GroupingPolicy::Multibus => true,
                GroupingPolicy::GroupBySerial => p.attributes.serial == q.attributes.serial,
                GroupingPolicy::GroupByNodeName => {
                    p.attributes.target_node == q.attributes.target_node
                }
                GroupingPolicy::GroupByPrio => p.priority == q.priority,
                GroupingPolicy::GroupByTpg => {
                    a.id == b.id || (p.access.group.is_some() && p.access.group == q.access.group)
                }
            };
            same && (!policy.marginal_pathgroups || p.marginal == q.marginal)
        };
        let firsts = || table.groups.iter().map(|g| &g.paths[0]);
        table.groups.iter().all(|g| g.paths.iter().all(|p| alike(p, &g.paths[0])))
            && firsts().enumerate().all(|(i, a)| firsts().skip(i + 1).all(|b| !alike(a, b)))
    }
}
