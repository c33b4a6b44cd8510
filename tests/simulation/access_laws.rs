//! Laws about access states: what may say that a path is active, how soon and
//! for how long the engine asks, and that what could carry I/O is not left
//! alone while nothing does.

use std::time::Duration;

use vhost_mpath::io::Time;
use vhost_mpath::mpath::Multipath;
use vhost_mpath::mpath::classify::PathVerdict;
use vhost_mpath::mpath::effect::{Change, Effect};
use vhost_mpath::mpath::event::{Event, IoReason, IoReport};
use vhost_mpath::mpath::hwhandler::Activation;
use vhost_mpath::mpath::path::{CheckerState, Path};
use vhost_mpath::mpath::snapshot::PathId;
use vhost_mpath::scsi::alua::AccessState;

/// What is not known of a path, or not for sure, is asked for this often.
const SOON: Duration = Duration::from_secs(1);
/// A path whose array was busy has its turn again after 2 s, one that its array
/// contradicts itself about after 1 s.
const RESTED: Duration = Duration::from_secs(3);
/// The longest transition that the array states (`set_transition`).
const STATED: Duration = Duration::from_secs(3);

/// A path, until it is closed.
#[derive(Debug)]
struct Watched {
    path: PathId,
    /// Numbers of the readings that have not been answered, the latest last.
    readings: Vec<u32>,
    /// The number of the latest one, and the priority before an answer to an
    /// earlier one.
    latest: u32,
    before: Option<i32>,
    /// When it was asked something last, or answered, or came to be usable, or
    /// in transition.
    looked: Time,
    usable: bool,
    /// Since when its group has been in transition, and the longest that the
    /// policy has allowed for since.
    transition: Option<(Time, Duration)>,
    /// When a command was told last that it is passive; whether it has been
    /// asked since.
    told: Option<Time>,
    asked: bool,
    /// The number of the latest reading of any path then: a later one that says
    /// so, too, whoever it is by, has asked for it.
    told_after: u32,
    /// When its array was busy, if nothing has changed since.
    busy: Option<Time>,
}

/// Which paths an event may show to be active.
#[derive(Debug, Default)]
enum Says {
    /// Commands of the administrator: any.
    #[default]
    Anything,
    Nothing,
    /// Those of these groups, in that state.
    Groups(Vec<(u16, AccessState, bool)>),
    /// That one, and those of its group.
    Activated(PathId, Option<u16>),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct AccessLaws {
    paths: Vec<Watched>,
    says: Says,
    /// (For ever, if all paths of the group go: nothing is told of that.)
    activating: bool,
}

fn in_transition(path: &Path) -> bool {
    path.access.state == Some(AccessState::Transitioning)
}

/// Passive, and of a kind that an activation is for.
fn is_passive(path: &Path) -> bool {
    match path.access.state {
        Some(AccessState::Standby | AccessState::Unavailable) => true,
        None => path.checker_state == CheckerState::Ghost,
        _ => false,
    }
}

impl AccessLaws {
    fn watched(&mut self, path: PathId, time: Time) -> &mut Watched {
        let at = self.paths.iter().position(|w| w.path == path).unwrap_or_else(|| {
            self.paths.push(Watched {
                path,
                readings: Vec::new(),
                latest: 0,
                before: None,
                looked: time,
                usable: false,
                transition: None,
                told: None,
                asked: true,
                told_after: 0,
                busy: None,
            });
            self.paths.len() - 1
        });
        &mut self.paths[at]
    }

    /// An administrator has changed something.
    pub(crate) fn commanded(&mut self) {
        self.paths.iter_mut().for_each(|w| w.busy = None);
    }

    /// Before the engine is told.
    pub(crate) fn tells(&mut self, time: Time, event: &Event, map: &Multipath) {
        self.says = Says::Nothing;
        match event {
            Event::Io(IoReport { path, epoch, reason: IoReason::Judged { verdict, .. } })
                if *verdict == PathVerdict::Passive
                    && map.path(*path).is_some_and(|p| p.epoch == *epoch && p.carries()) =>
            {
                let latest = self.paths.iter().map(|w| w.latest).max();
                let watched = self.watched(*path, time);
                (watched.told, watched.asked) = (Some(time), false);
                watched.told_after = latest.unwrap_or(0);
            }
            Event::Checked { path, .. }
            | Event::Proven { path, .. }
            | Event::Recognized { path, .. } => self.watched(*path, time).looked = time,
            Event::Prioritized { path, reading, found } => {
                if let Some(alua) = &found.alua {
                    self.says = Says::Groups(alua.groups.clone());
                }
                let priority = map.path(*path).map(|p| p.priority);
                let watched = self.watched(*path, time);
                watched.looked = time;
                watched.readings.retain(|number| number != reading);
                if *reading != watched.latest {
                    watched.before = priority;
                    self.says = Says::Nothing;
                } else if let Some(alua) = &found.alua {
                    self.says_passive(*reading, &alua.groups, map);
                }
            }
            Event::Activated { path, result, .. } => {
                if *result == Activation::Done {
                    let group = map.path(*path).and_then(|p| p.access.group);
                    self.says = Says::Activated(*path, group);
                }
                let busy = (*result == Activation::Busy).then_some(time);
                // (Its group is left alone with it.)
                let groups = map.topology().groups;
                let mut group = groups
                    .iter()
                    .map(|g| &g.paths)
                    .filter(|paths| busy.is_some() && paths.iter().any(|p| p.id == *path));
                let ids: Vec<_> = group.next().into_iter().flatten().map(|p| p.id).collect();
                for w in self.paths.iter_mut().filter(|w| w.busy.is_some() && ids.contains(&w.path))
                {
                    w.busy = busy;
                }
                let watched = self.watched(*path, time);
                watched.busy = busy;
                // The states were read at its end.
                watched.asked |= *result == Activation::Done;
            }
            _ => {}
        }
    }

    /// What a step of the engine asks for and tells.
    pub(crate) fn asks(&mut self, time: Time, fx: &[Effect], map: &Multipath) {
        for effect in fx {
            match effect {
                Effect::Prioritize { path, reading, .. } => {
                    let watched = self.watched(*path, time);
                    watched.readings.push(*reading);
                    watched.latest = *reading;
                    self.looks(time, *path, map);
                }
                Effect::Check { path, .. } => self.looks(time, *path, map),
                // (What its opening has read may leave nothing to ask it for a while.)
                Effect::Notify(Change::PathAdded { path }) => {
                    if let Ok(path) = map.path_by_name(path) {
                        self.watched(path.id, time);
                    }
                }
                Effect::Notify(Change::AccessChanged { path, access }) => {
                    let Ok(path) = map.path_by_name(path) else { continue };
                    if let Some(state) = access.state.filter(|s| s.carries_io()) {
                        let right = match &self.says {
                            Says::Anything => true,
                            Says::Nothing => false,
                            Says::Groups(groups) => {
                                let is = |g: &&(u16, AccessState, bool)| Some(g.0) == access.group;
                                groups.iter().find(is).is_some_and(|g| g.1 == state)
                            }
                            Says::Activated(by, group) => {
                                path.id == *by || (group.is_some() && access.group == *group)
                            }
                        };
                        let says = &self.says;
                        assert!(right, "{} is said to be {state:?}, and that by {says:?}", path.id);
                    }
                    self.watched(path.id, time).busy = None;
                }
                Effect::Notify(Change::PathFailed { path, .. }) => {
                    if let Ok(path) = map.path_by_name(path) {
                        self.watched(path.id, time).busy = None;
                    }
                }
                Effect::Notify(Change::PathReinstated { path, .. }) => {
                    if let Ok(path) = map.path_by_name(path) {
                        self.watched(path.id, time).busy = None;
                    }
                }
                Effect::Notify(Change::Activating { .. }) => self.activating = true,
                Effect::Notify(Change::Activated { .. }) => self.activating = false,
                Effect::Retire(path) => {
                    self.paths.retain(|w| w.path != *path);
                    // It may have been the one to ask for the others.
                    self.paths.iter_mut().for_each(|w| w.looked = time);
                }
                _ => {}
            }
        }
        self.says = Says::Anything;
    }

    /// The path is asked, and with it its group.
    fn looks(&mut self, time: Time, path: PathId, map: &Multipath) {
        let group = map.path(path).and_then(|p| p.access.group);
        self.watched(path, time).looked = time;
        for watched in &mut self.paths {
            let own = map.path(watched.path).and_then(|p| p.access.group);
            watched.asked |= watched.path == path || (own.is_some() && own == group);
        }
    }

    /// A reading by one path speaks for the others, too, where it was begun
    /// after they were told.
    fn says_passive(&mut self, reading: u32, groups: &[(u16, AccessState, bool)], map: &Multipath) {
        let passive = |g: u16| groups.iter().any(|said| said.0 == g && !said.1.carries_io());
        for watched in self.paths.iter_mut().filter(|w| reading > w.told_after) {
            let own = map.path(watched.path).and_then(|p| p.access.group);
            watched.asked |= own.is_some_and(passive);
        }
    }

    /// After every step of the engine.
    pub(crate) fn check(&mut self, time: Time, map: &Multipath) {
        for watched in &mut self.paths {
            let Some(path) = map.path(watched.path) else { continue };
            if path.is_usable() && !watched.usable {
                watched.looked = time;
            }
            watched.usable = path.is_usable();
            // (It is read when it returns.)
            watched.asked |= !watched.usable;
            let before = watched.before.take();
            assert!(
                before.is_none_or(|before| before == path.priority),
                "the answer to a reading that was given up has made {before:?} of {} {}",
                path.id,
                path.priority
            );
            watched.follows_transition(time, path, map.policy().transition_timeout);
            let open = !watched.readings.is_empty() || path.is_being_checked();
            let late = watched.told.is_some_and(|at| at.max(watched.looked) + SOON < time);
            assert!(
                watched.asked || !late || open,
                "{} was told that it is passive at {:?}, and is not asked",
                path.id,
                watched.told
            );
        }
        self.asks_in_transition(time, map);
        if let Some(table) = map.table() {
            let mut listed = table.groups.iter().flat_map(|g| &g.paths);
            let reliable = listed.any(|v| map.path(v.id).is_some_and(|p| !p.marginal));
            if !reliable {
                self.needs_marginal(map);
            }
            if table.groups.is_empty() {
                self.activates(time, map);
            }
        }
    }

    /// A target port group in transition is asked about each second, by every
    /// path that has not been asked already if by no other.
    fn asks_in_transition(&self, time: Time, map: &Multipath) {
        for watched in self.paths.iter().filter(|w| w.transition.is_some()) {
            let Some(path) = map.path(watched.path).filter(|p| p.is_usable()) else { continue };
            let group = path.access.group;
            let same = |w: &&Watched| {
                let other = map.path(w.path).and_then(|p| p.access.group);
                w.path == path.id || (group.is_some() && other == group)
            };
            let looked = self.paths.iter().filter(same).map(|w| w.looked).max();
            let checked = !map.policy().prio.reads_access() && path.is_being_checked();
            assert!(
                !watched.readings.is_empty() || checked || looked.is_some_and(|l| l + SOON >= time),
                "{} is in transition, and nobody has asked since {looked:?}",
                path.id
            );
        }
    }

    /// An unreliable path is held back only where others carry I/O.
    fn needs_marginal(&self, map: &Multipath) {
        let held = |p: &&Path| p.is_usable() && p.checker_state == CheckerState::Delayed;
        let held = self.paths.iter().filter_map(|w| map.path(w.path)).find(held);
        assert!(
            held.is_none(),
            "{:?} is held back, and no reliable path carries I/O",
            held.map(|p| p.id)
        );
    }

    /// Nothing carries I/O, nothing is open: what can be activated is, if it
    /// has rested.
    fn activates(&self, time: Time, map: &Multipath) {
        let open = |w: &Watched| {
            let told = w.told.is_some_and(|at| at + RESTED > time);
            map.path(w.path).is_some_and(|p| {
                let asked = !w.readings.is_empty() || p.is_being_checked();
                // (What is to be registered will carry it in a moment.)
                let registering = p.is_barred() && !is_passive(p);
                p.is_usable() && (asked || in_transition(p) || told || registering)
            })
        };
        if self.activating || self.paths.iter().any(open) {
            return;
        }
        let ready = |w: &&Watched| {
            let rested = w.busy.is_some_and(|at| at + RESTED <= time);
            rested && map.path(w.path).is_some_and(|p| p.is_usable() && is_passive(p))
        };
        let left = self.paths.iter().find(ready);
        assert!(left.is_none(), "nothing carries I/O, and this is not activated: {left:?}");
    }
}

impl Watched {
    /// A transition that lasts too long is taken for standby.
    fn follows_transition(&mut self, time: Time, path: &Path, timeout: Duration) {
        if !in_transition(path) {
            self.transition = None;
            return;
        }
        if self.transition.is_none() {
            self.looked = time;
        }
        let (since, longest) = self.transition.get_or_insert((time, STATED));
        *longest = timeout.max(*longest);
        assert!(
            *since + *longest >= time,
            "{} has been in transition since {since:?}, {longest:?} are allowed",
            path.id
        );
    }
}
