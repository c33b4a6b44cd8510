//! The law of the close watch: while no path carries I/O, every path that is out
//! of use is asked at once when the last one goes, and `no_path_interval` after
//! each answer, whatever becomes of the others.

use std::time::Duration;

use vhost_mpath::io::Time;
use vhost_mpath::mpath::Multipath;
use vhost_mpath::mpath::effect::{Change, Effect};
use vhost_mpath::mpath::event::Event;
use vhost_mpath::mpath::snapshot::PathId;

/// A path that passes its checks and fails the first command returns no more
/// often.
const RETURNS: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Watched {
    path: PathId,
    /// When it was asked, or answered, last.
    looked: Time,
    returned: Option<Time>,
    /// It is out of use while no path carries I/O.
    out: bool,
    /// When it is to be asked first, for that.
    turn: Time,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct WatchLaws {
    paths: Vec<Watched>,
    /// Since when no path has carried I/O.
    empty: Option<Time>,
}

impl WatchLaws {
    fn watched(&mut self, path: PathId, time: Time) -> &mut Watched {
        let at = self.paths.iter().position(|w| w.path == path).unwrap_or_else(|| {
            self.paths.push(Watched { path, looked: time, returned: None, out: false, turn: time });
            self.paths.len() - 1
        });
        &mut self.paths[at]
    }

    /// Before the engine is told.
    pub(crate) fn tells(&mut self, time: Time, event: &Event) {
        if let Event::Checked { path, .. } | Event::Proven { path, .. } = event {
            self.watched(*path, time).looked = time;
        }
    }

    /// What a step of the engine asks for and tells.
    pub(crate) fn asks(&mut self, time: Time, fx: &[Effect], map: &Multipath) {
        for effect in fx {
            match effect {
                Effect::Check { path, .. } | Effect::Prove { path, .. } => {
                    self.watched(*path, time).looked = time;
                }
                Effect::Notify(Change::PathReinstated { path, .. }) => {
                    if let Ok(path) = map.path_by_name(path) {
                        self.watched(path.id, time).returned = Some(time);
                    }
                }
                Effect::Retire(path) => self.paths.retain(|w| w.path != *path),
                _ => {}
            }
        }
    }

    /// After every step of the engine; `paths` are those that are open.
    pub(crate) fn check(&mut self, time: Time, map: &Multipath, paths: &[PathId]) {
        let none = map.table().is_some_and(|table| table.groups.is_empty());
        if !none {
            self.empty = None;
            return self.paths.iter_mut().for_each(|w| w.out = false);
        }
        let last_went = self.empty.is_none();
        let empty = *self.empty.get_or_insert(time);
        let interval = map.policy().no_path_interval;
        for id in paths {
            let Some(path) = map.path(*id) else { continue };
            let watched = self.watched(*id, time);
            if path.is_usable() || path.failed_by_administrator {
                watched.out = false;
                continue;
            }
            if !std::mem::replace(&mut watched.out, true) {
                // (It may be waiting for its turn since a path went a moment ago.)
                let turn = if last_went { time } else { time + interval };
                watched.turn = watched.turn.max(turn);
            }
            let rested = watched.returned.map_or(watched.turn, |at| at + RETURNS);
            let latest = watched.turn.max(watched.looked + interval).max(rested);
            assert!(
                path.is_being_checked() || time <= latest,
                "no path carries I/O since {empty:?}, and {id} was asked last at {:?}",
                watched.looked
            );
        }
    }
}
