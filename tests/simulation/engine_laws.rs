//! What the engine's tables must never say.

use std::cmp::Reverse;
use std::sync::Arc;

use std::time::Duration;

use vhost_mpath::io::Time;
use vhost_mpath::mpath::Multipath;
use vhost_mpath::mpath::effect::{Change, Effect};
use vhost_mpath::mpath::path::PathState;
use vhost_mpath::mpath::policy::Failback;
use vhost_mpath::mpath::snapshot::{PathId, PathTable};
use vhost_mpath::mpath::topology::TopologyGroup;
use vhost_mpath::scsi::alua::AccessState;

/// What is known of a path besides what the engine thinks.
#[derive(Debug)]
struct Known {
    id: PathId,
    /// Epoch at which it was listed last.
    epoch: u32,
    /// Listed in the last table.
    listed: bool,
    /// In order, by the engine's last word.
    active: bool,
    /// Since when it has been listed without a break.
    since: Time,
    /// When it was last taken out of use, or came into doubt.
    out: u64,
    /// When the last proof that succeeded had begun.
    proven: u64,
    /// When each proof began.
    proofs: Vec<(u32, u64)>,
}

/// Watches the tables of a map.
#[derive(Debug, Default)]
pub(crate) struct EngineLaws {
    paths: Vec<Known>,
    last: Option<Arc<PathTable>>,
    /// When an administrator last did something,
    commanded: Time,
    /// and when he last chose a group.
    pinned: Option<Time>,
    /// When a path last came or went.
    news: Time,
    /// Since when the group in use has been.
    in_use_since: Time,
    /// When the activation under way began, and `news` then.
    begun: Option<(Time, Time)>,
    /// The same of one that has ended in this step, of the group of that number.
    ended: Option<(u16, Time, Time)>,
    /// In this step conflicts have become the guest's: whoever has set a path
    /// aside for one goes on with it.
    pub(crate) renewed: bool,
}

/// What an administrator did has had its effect after this long: activations
/// and first readings may have to wait for late answers.
const SETTLED: Duration = Duration::from_secs(100);

impl EngineLaws {
    /// A proven path joins.
    pub(crate) fn joins(&mut self, now: u64, time: Time, id: PathId) {
        let (epoch, listed, active, since) = (0, false, true, time);
        let (out, proven, proofs) = (0, now, Vec::new());
        self.paths.push(Known { id, epoch, listed, active, since, out, proven, proofs });
        self.commanded(time);
    }

    /// An administrator has done something.
    pub(crate) fn commanded(&mut self, time: Time) {
        (self.commanded, self.news) = (time, time);
    }

    /// He has chosen the group to be used.
    pub(crate) fn pinned(&mut self, time: Time) {
        self.pinned = Some(time);
    }

    /// The group in use may be his choice.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned.is_some_and(|at| at >= self.news)
    }

    pub(crate) fn leaves(&mut self, path: PathId) {
        self.paths.retain(|k| k.id != path);
    }

    fn known(&mut self, path: PathId) -> Option<&mut Known> {
        self.paths.iter_mut().find(|k| k.id == path)
    }

    pub(crate) fn proof_begins(&mut self, now: u64, path: PathId, proof: u32) {
        if let Some(known) = self.known(path) {
            known.proofs.push((proof, now));
        }
    }

    pub(crate) fn proof_succeeds(&mut self, path: PathId, proof: u32) {
        if let Some(known) = self.known(path) {
            let at = known.proofs.iter().position(|p| p.0 == proof);
            let begun = at.map_or(0, |at| known.proofs.remove(at).1);
            known.proven = known.proven.max(begun);
        }
    }

    /// The engine has been told that the path may lead elsewhere.
    pub(crate) fn doubted(&mut self, now: u64, path: PathId) {
        if let Some(known) = self.known(path) {
            known.out = now;
        }
    }

    /// After every step of the engine.
    pub(crate) fn check(&mut self, now: u64, time: Time, fx: &[Effect], map: &Multipath) {
        let Some(table) = map.table() else { return };
        for known in &mut self.paths {
            let path = map.path(known.id);
            let active = path.is_some_and(|p| p.state == PathState::Active);
            if known.active && !active {
                known.out = now;
            }
            if known.active != active {
                self.news = time;
            }
            known.active = active;
            let id = known.id;
            let view = table.groups.iter().flat_map(|g| &g.paths).find(|v| v.id == id);
            let Some(view) = view else {
                known.listed = false;
                continue;
            };
            if !known.listed {
                known.since = time;
            }
            assert!(known.proven >= known.out, "{id} is in use with an unproven identity");
            let path = path.expect("in the map");
            let (proven, size) = (path.capacity, map.identity().capacity);
            let sized = proven == size || path.is_being_proven();
            assert!(sized, "{id} was proven with {proven} blocks, the map has {size}");
            assert_eq!(path.shrunk_to, None, "{id} is in use and waits");
            assert!(!path.failed_by_administrator, "{id} is in use against the administrator");
            let state = path.access.state;
            let carries = state.is_none_or(|state| {
                use AccessState::{ActiveNonOptimized, ActiveOptimized, LbaDependent};
                matches!(state, ActiveOptimized | ActiveNonOptimized | LbaDependent)
            });
            assert!(carries, "{id} is in use, and its target port group is {state:?}");
            assert!(path.carries(), "{id} is in use and does not carry I/O");
            let renewed = self.renewed && view.epoch > known.epoch;
            if known.listed && !renewed {
                assert_eq!(view.epoch, known.epoch, "{id} has another epoch without a break");
            } else {
                assert!(view.epoch > known.epoch, "{id} is back with epoch {}", view.epoch);
            }
            (known.listed, known.epoch) = (true, view.epoch);
        }
        self.follow_activation(time, fx);
        let last = self.last.replace(Arc::clone(table));
        if let Some(last) = last.filter(|last| !Arc::ptr_eq(last, table)) {
            assert!(table.generation > last.generation);
            self.moves(time, &last, table, map);
        }
    }

    fn follow_activation(&mut self, time: Time, fx: &[Effect]) {
        self.ended = None;
        for effect in fx {
            match effect {
                Effect::Notify(Change::Activating { .. }) => self.begun = Some((time, self.news)),
                Effect::Notify(Change::Activated { group, .. }) => {
                    self.ended = self.begun.take().map(|(begun, news)| (*group, begun, news));
                }
                _ => {}
            }
        }
    }

    /// I/O leaves a group that carries it for another only as `failback` says.
    fn moves(&mut self, time: Time, last: &PathTable, table: &PathTable, map: &Multipath) {
        let (Some(was), Some(is)) = (last.groups.first(), table.groups.first()) else {
            self.in_use_since = time;
            return;
        };
        let in_use = |id: PathId| was.paths.iter().any(|v| v.id == id);
        if is.paths.iter().any(|v| in_use(v.id)) {
            return;
        }
        let since = std::mem::replace(&mut self.in_use_since, time);
        let Some(left) = table.groups.iter().find(|g| g.paths.iter().any(|v| in_use(v.id))) else {
            return; // it carries no more
        };
        // What an administrator did, or a path that joined, is no failback.
        if self.commanded + SETTLED > time {
            return;
        }
        let topology = map.topology();
        let group = |number: u16| topology.groups.iter().find(|g| g.number == number);
        let (Some(left), Some(to)) = (group(left.number), group(is.number)) else { return };
        if left.marginal && !to.marginal {
            return;
        }
        let short = |g: &TopologyGroup| {
            let paths = g.paths.iter().map(|p| format!("{} {:?} {:?}", p.name, p.state, p.access));
            format!("group {} ({}): {:?}", g.number, g.priority, paths.collect::<Vec<_>>())
        };
        let text = format!("{} was left for {}", short(left), short(to));
        assert!(!to.marginal || left.marginal, "unreliable: {text}");
        // The first of equals is the better one, as for multipathd.
        let rank = |g: &TopologyGroup| {
            let usable = || g.paths.iter().filter(|p| p.is_usable());
            let count = i32::try_from(usable().count()).unwrap();
            let average = usable().map(|p| p.priority).sum::<i32>() / count.max(1);
            (average, count, Reverse(g.number))
        };
        // It was when its activation began, during which priorities may change.
        let activated = self.ended.filter(|ended| ended.0 == is.number);
        let lasted = activated.is_some_and(|(_, begun, _)| begun < time);
        assert!(lasted || rank(to) > rank(left), "not better: {text}");
        match topology.policy.failback {
            Failback::Manual => panic!("failback is manual: {text}"),
            Failback::Immediate => {}
            Failback::After(wait) => {
                // Where the group had to be activated first, it was time when that
                // began: its own paths may fail in it.
                let was_time = activated.is_some_and(|(_, begun, news)| news + wait <= begun);
                let is_time = self.news + wait <= time;
                assert!(is_time || was_time, "failback before its time: {text}");
            }
            Failback::Followover => {
                let back = |k: &Known| k.since >= since;
                let to = |k: &&Known| is.paths.iter().any(|v| v.id == k.id);
                assert!(self.paths.iter().filter(to).all(back), "nobody came back: {text}");
            }
        }
    }
}
