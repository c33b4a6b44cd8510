//! Ghosts: paths that may have been registered by a command that came late, after
//! the guest was preempted. What such a path has brings nobody back: it is removed
//! before the path is admitted, unless something shows that nobody has preempted
//! the guest. Three things show it: another path of ours that is registered; that
//! the guest holds a reservation, which who preempts it takes; and PRGENERATION
//! (SPC-5 6.15.2), where nobody but us has done anything.
//!
//! Not here: how a path is admitted (`lifecycle`), and what is vouched for (`known`).

use super::lifecycle::{Witness, ask_witnesses, removal, rest};
use super::script::{Go, Script, Word};
use super::{Ask, Remembered};
use crate::mpath::Multipath;
use crate::mpath::path::Path;
use crate::mpath::snapshot::PathId;
use crate::scsi::reservation::{Held, InAction, Key, Numbered, full_status};

/// What a path has that was registered by a command that came late may be from
/// after the guest was preempted: it begins from nothing. False: not done.
pub(super) fn lay_ghost(
    s: &mut Script<'_>,
    path: PathId,
    witnesses: &[PathId],
    registered: Remembered,
) -> Go<bool> {
    if !s.is(|map| map.path(path).is_some_and(|p| p.nexus.ghost)) {
        return Ok(true);
    }
    // (Where the guest holds a reservation this path may be the holder.)
    let held = match holds_yet(s, &[path])? {
        Some(Holds::ByFormerKey) => match s.out(path, registered.renewal())? {
            // This one may hold it; it has not been registered late.
            Word::Conflict(_) => {
                s.once(|map, _| map.lay_ghost(path));
                return Ok(true);
            }
            Word::Good(_) | Word::Refused(_) => false,
            Word::Lost { .. } => return Ok(false),
        },
        Some(holds) => holds == Holds::ByKey,
        None => return Ok(false),
    };
    // (What is listed may be another path's, which is about to say so.)
    if witnesses.is_empty() && s.is(|map| map.another_had(path, registered.key)) {
        return Ok(held);
    }
    let keeps = held
        || match shares(s, path, witnesses, registered)? {
            // (The one whose it is may have left, and nobody else has done anything since.)
            Some(false) if witnesses.is_empty() => match is_of_all_ports(s, path)? {
                Some(shares) => shares && !has_changed(s, path)?,
                None => return Ok(false),
            },
            Some(shares) => shares,
            None => return Ok(false),
        };
    let done = keeps || matches!(s.out(path, removal())?, Word::Good(_));
    if done {
        s.once(|map, _| map.lay_ghost(path));
    }
    Ok(done)
}

/// Whether what the path has is its witnesses', too: some arrays have one
/// registration for all ports, and to remove it by one path is to remove it by
/// all. There is one then, and both say that they have it. (Of two that have
/// each their own, one would have to go meanwhile, which takes the other along.)
/// `None`: nobody can tell now.
fn shares(
    s: &mut Script<'_>,
    path: PathId,
    witnesses: &[PathId],
    registered: Remembered,
) -> Go<Option<bool>> {
    if witnesses.is_empty() {
        return Ok(Some(false));
    }
    match s.out(path, registered.renewal())? {
        Word::Good(_) => {}
        // It has nothing, unless it has another key: there is nothing to be removed. (An array
        // that says so wrongly would lose what all have.)
        Word::Conflict(_) => {
            let had = |map: &Multipath| map.path(path).and_then(|p| p.nexus.had);
            return Ok(Some(s.is(|map| had(map).is_none_or(|had| had == registered.key))));
        }
        Word::Refused(_) => return Ok(Some(false)),
        Word::Lost { .. } => return Ok(None),
    }
    match s.keys(&[path])? {
        Ok((_, keys)) if registered.count(&keys) == 1 => {}
        Ok(_) => return Ok(Some(false)),
        Err(_) => return Ok(None),
    }
    Ok(match ask_witnesses(s, witnesses, registered)? {
        Witness::Registered => Some(true),
        Witness::Lost => Some(false),
        Witness::Absent => None,
    })
}

/// By what the guest holds a reservation that is one path's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Nothing,
    ByKey,
    /// A path that was away while the guest took another key.
    ByFormerKey,
}

/// Who preempts the guest takes its reservation, too: while it holds one, nothing
/// has come too late. `None`: that cannot be read now.
pub(super) fn holds_yet(s: &mut Script<'_>, paths: &[PathId]) -> Go<Option<Holds>> {
    let key = s.state().key();
    let former = s.former_keys();
    let holds = |held: Held| match held {
        _ if held.kind.is_of_all_registrants() => Holds::Nothing,
        _ if Some(held.key) == key => Holds::ByKey,
        _ if former.contains(&held.key) => Holds::ByFormerKey,
        _ => Holds::Nothing,
    };
    Ok(match s.held(paths)? {
        Ok((_, held)) => Some(held.map_or(Holds::Nothing, holds)),
        Err(unsettled) if unsettled.refused => Some(Holds::Nothing),
        Err(_) => None,
    })
}

/// Whether the array has the guest's key once for all target ports. `None`: that
/// cannot be read now.
fn is_of_all_ports(s: &mut Script<'_>, path: PathId) -> Go<Option<bool>> {
    let key = s.state().key();
    Ok(match s.ask(path, Ask::In(InAction::ReadFullStatus))? {
        Word::Good(data) => Some(full_status(&data).is_ok_and(|status| {
            status.what.iter().any(|one| Some(one.key) == key && one.all_tg_pt)
        })),
        // It does not know the command, as many do not.
        Word::Refused(_) => Some(false),
        _ => None,
    })
}

/// Whether somebody else has done something since the guest's key was registered by
/// what is no ghost; or a command of ours that was lost was executed.
fn has_changed(s: &mut Script<'_>, path: PathId) -> Go<bool> {
    let keys = s.registrations(&[path])?;
    Ok(keys.is_ok_and(|(_, keys)| s.is(|map| map.has_changed(keys.generation))))
}

/// Whether all that the array lists may be ghosts, of a guest that was preempted, and
/// no other path can be asked whose it is. `None`: one may yet say so. `already`: the path
/// says that it has it, and whether somebody else has changed something since that was
/// certain.
pub(super) fn is_ghosts(
    s: &mut Script<'_>,
    path: PathId,
    registered: Remembered,
    listed: &Numbered<Vec<Key>>,
    already: Option<bool>,
) -> Go<Option<bool>> {
    let listed = registered.count(&listed.what);
    let gone = s.is(|map| listed <= map.reservations.ghosts);
    if !gone && !s.is(|map| listed <= map.ghosts(path)) {
        return Ok(Some(false));
    }
    // What it has it had before, unless somebody else has changed something since, and all
    // ports have it in common, or it was another path's that has left.
    let joined = s.is(|map| map.path(path).is_some_and(|p| p.nexus.had.is_none()));
    match already {
        Some(false) => return Ok(Some(false)),
        Some(true) if !joined && is_of_all_ports(s, path)? == Some(false) => {
            return Ok(Some(false));
        }
        _ => {}
    }
    Ok(match holds_yet(s, &[path])? {
        Some(Holds::ByKey) => Some(false),
        // They will not return, or have not for long. (What is listed may be another
        // path's, which is about to say so, or to return and say so.)
        Some(_)
            if (gone && !s.is(|map| map.one_away_had(path, registered.key)))
                || waits_in_vain(s) =>
        {
            let anothers = s.is(|map| map.another_had(path, registered.key));
            (!anothers).then_some(true)
        }
        _ => None,
    })
}

/// Whether ghosts have been waited for as long as for any answer, be their paths away, or
/// be it that no path can say more than another: the guest is fenced rather than held for
/// ever.
fn waits_in_vain(s: &mut Script<'_>) -> bool {
    let (now, limit) = (s.now(), s.checker_timeout());
    s.once(|map, _| {
        map.reservations.haunted.get_or_insert(now);
    });
    s.is(|map| map.reservations.haunted.is_some_and(|since| since + limit <= now))
}

/// The same of a path that may be registered although it should not be.
pub(super) fn haunt(s: &mut Script<'_>, path: PathId) -> Go<()> {
    s.once(|map, _| {
        if let Some(path) = map.path_mut(path) {
            path.nexus.ghost = true;
        }
    });
    rest(s, path)
}

impl Multipath {
    /// Paths that may be registered although they should not be, but for this
    /// one.
    pub(super) fn ghosts(&self, but: PathId) -> usize {
        let there = self.all().filter(|p| p.id != but && p.nexus.ghost);
        there.count() + self.reservations.ghosts
    }

    /// Another path may be registered with this key, and not by what came late.
    fn another_had(&self, but: PathId, key: Key) -> bool {
        let usable = self.all().filter(|p| p.id != but && p.is_usable());
        let mut others = usable.filter(|p| !p.nexus.ghost && !Multipath::rests(p));
        others.any(|p| p.nexus.had == Some(key))
    }

    /// The same of one that is not in order, or has just been asked in vain, and may
    /// say so later.
    fn one_away_had(&self, but: PathId, key: Key) -> bool {
        let silent = |p: &&Path| !p.is_usable() || Multipath::rests(p);
        let mut away = self.all().filter(|p| p.id != but).filter(silent);
        away.any(|p| !p.nexus.ghost && p.nexus.had == Some(key))
    }

    /// Nothing that was registered by this path may come late any more.
    fn lay_ghost(&mut self, id: PathId) {
        if let Some(path) = self.path_mut(id) {
            path.nexus.ghost = false;
        }
    }
}
