//! What a path needs before it may carry I/O (law 5): to be registered while
//! the guest is, not to be while it is not; and, where nobody knows, what the
//! guest's registration is.
//!
//! A registration is never brought back that somebody else has removed: a path
//! is registered only while another nexus of ours still is, and when that has
//! lost its registration meanwhile, so does the path again. What a nexus has
//! is tested by REGISTER of the guest's key by itself: it succeeds where that
//! is registered, is a conflict where it is not, and changes nothing.

use super::ghosts::{Holds, haunt, holds_yet, is_ghosts, lay_ghost};
use super::script::{Go, Script, Word};
use super::{Ask, News, Recall, Registration, Remembered, State, conflict, told};
use crate::io::{Outcome, Time};
use crate::mpath::Multipath;
use crate::mpath::check::SOON;
use crate::mpath::effect::{Effect, Effects};
use crate::mpath::snapshot::PathId;
use crate::scsi::reservation::{InAction, Key, Numbered, Out, OutAction};
use crate::scsi::sense::SenseCode;

impl Remembered {
    fn out(self, action: OutAction, key: Key) -> Out {
        let Remembered { key: action_key, aptpl, all_tg_pt } = self;
        Out { aptpl, all_tg_pt, ..Out::new(action, key, action_key) }
    }

    /// Succeeds by a nexus that is registered with the key; changes nothing.
    pub(super) fn renewal(self) -> Out {
        self.out(OutAction::Register, self.key)
    }

    /// How often it is among these.
    pub(super) fn count(self, keys: &[Key]) -> usize {
        keys.iter().filter(|key| **key == self.key).count()
    }

    fn entry(self) -> Out {
        self.out(OutAction::RegisterAndIgnore, Key::NONE)
    }
}

/// Removes what a nexus has registered, if anything.
pub(super) fn removal() -> Out {
    Out::new(OutAction::RegisterAndIgnore, Key::NONE, Key::NONE)
}

/// What the other paths say of their own registration.
pub(super) enum Witness {
    /// One of them still has it.
    Registered,
    /// None has, and some have lost it.
    Lost,
    /// There is none that could say.
    Absent,
}

/// Registers the path, if the guest's key still is in the array.
pub(super) fn admit(s: &mut Script<'_>, path: PathId) -> Go<()> {
    let Some(registered) = s.state().registered else { return Ok(()) };
    let others = s.registered().into_iter().filter(|id| *id != path);
    let witnesses: Vec<PathId> = others.collect();
    if !lay_ghost(s, path, &witnesses, registered)? {
        return rest(s, path);
    }
    let ask: Vec<PathId> = witnesses.iter().copied().chain([path]).collect();
    let before = match s.registrations(&ask)? {
        Ok((_, before)) => before,
        Err(_) => return rest(s, path),
    };
    if registered.count(&before.what) == 0 {
        return preempted(s, registered.key);
    }
    let Some(already) = test_or_enter(s, path, &witnesses, registered, &before)? else {
        return Ok(());
    };
    let witness = ask_witnesses(s, &witnesses, registered)?;
    let read_by: Vec<PathId> = [path].into_iter().chain(witnesses.iter().copied()).collect();
    let mut listed = 0;
    let stays = match (witness, already) {
        (Witness::Registered, true) => {
            // (The path's own command, and the witness's.)
            s.once(|map, _| map.vouch_at(registered.key, before.generation, 2));
            true
        }
        (Witness::Absent, true) => true,
        // They have lost theirs alone, or all has been removed since: once more, without them.
        (Witness::Lost, true) => return Ok(()),
        (witness, false) => match s.registrations(&read_by)? {
            Ok((_, after)) => {
                listed = registered.count(&after.what);
                // (What vouches for it is not what was just made by this path.)
                let others = matches!(witness, Witness::Registered) && listed > 1;
                others || s.is(|map| map.is_vouched_for(after.generation))
            }
            Err(_) => return haunt(s, path),
        },
    };
    let stays = stays
        || match holds_yet(s, &read_by)? {
            Some(holds) => holds == Holds::ByKey,
            None => return haunt(s, path),
        };
    if stays {
        if already {
            conflict::ask_who_holds(s, path, &read_by)?;
        }
        let now = s.now();
        s.once(|map, fx| map.admitted(now, path, already, fx));
        return Ok(());
    }
    s.enter(path, removal())?;
    if listed > 1 {
        // Of the guest's, or of what came late: to be found out without this path's.
        return rest(s, path);
    }
    preempted(s, registered.key)
}

/// Registers the path if it is not registered; whether it was `already`.
/// `None`: it could not be, or what else is registered is to be seen to first.
fn test_or_enter(
    s: &mut Script<'_>,
    path: PathId,
    witnesses: &[PathId],
    registered: Remembered,
    before: &Numbered<Vec<Key>>,
) -> Go<Option<bool>> {
    // (Before it counts what follows.)
    let alone = witnesses.is_empty() && !s.is(|map| map.is_vouched_for(before.generation));
    let changed = alone && s.is(|map| map.may_have_changed(before.generation, path));
    let already = match s.out(path, registered.renewal())? {
        Word::Good(_) => true,
        Word::Conflict(_) => {
            s.once(|map, _| {
                if let Some(path) = map.path_mut(path) {
                    path.nexus.had = path.nexus.had.filter(|had| *had != registered.key);
                }
            });
            false
        }
        Word::Refused(_) => false,
        Word::Lost { .. } => {
            rest(s, path)?;
            return Ok(None);
        }
    };
    if alone {
        match is_ghosts(s, path, registered, before, already.then_some(changed))? {
            Some(false) => {}
            Some(true) => {
                preempted(s, registered.key)?;
                return Ok(None);
            }
            None => {
                rest(s, path)?;
                return Ok(None);
            }
        }
    }
    if already {
        return Ok(Some(true));
    }
    // Some arrays have one registration for all ports: what this path brings back, those that
    // carry the guest's I/O have.
    match ask_witnesses(s, witnesses, registered)? {
        Witness::Registered => {
            s.once(|map, _| map.vouch_at(registered.key, before.generation, 1));
        }
        Witness::Absent => {}
        // None of them carries anything from now on: this one again, without them.
        Witness::Lost => return Ok(None),
    }
    match s.enter(path, registered.entry())? {
        Word::Good(_) => {
            // Until it is known that the guest still was registered then: should the path
            // leave now, what it has may be from after the guest was preempted.
            s.once(|map, _| map.expect_ghosts(&[path]));
            return Ok(Some(false));
        }
        Word::Conflict(outcome) | Word::Refused(outcome) => bar(s, path, outcome),
        Word::Lost { .. } => rest(s, path)?,
    }
    Ok(None)
}

/// By these paths the guest was registered before; whether one says that it still is.
pub(super) fn ask_witnesses(
    s: &mut Script<'_>,
    paths: &[PathId],
    registered: Remembered,
) -> Go<Witness> {
    let mut lost = false;
    for &path in paths {
        match s.out(path, registered.renewal())? {
            Word::Good(_) => return Ok(Witness::Registered),
            Word::Conflict(_) => {
                s.unsettle(path);
                lost = true;
            }
            Word::Refused(_) | Word::Lost { .. } => {}
        }
    }
    Ok(if lost { Witness::Lost } else { Witness::Absent })
}

/// Removes what the path may have registered: the guest has nothing.
pub(super) fn clean(s: &mut Script<'_>, path: PathId) -> Go<()> {
    match s.out(path, removal())? {
        // (An array that knows of no reservations has none of ours.)
        Word::Good(_) | Word::Refused(_) => s.settle(path, Registration::None),
        // Nothing that is registered forbids it: not now, or for other reasons.
        Word::Conflict(_) => match s.keys(&[path])? {
            Ok((_, keys)) if keys.is_empty() => s.settle(path, Registration::None),
            _ => rest(s, path)?,
        },
        Word::Lost { .. } => rest(s, path)?,
    }
    Ok(())
}

/// Finds out which key is the guest's, and what it holds.
pub(super) fn recall(s: &mut Script<'_>, what: Recall) -> Go<()> {
    let before = s.state();
    let all = s.all();
    let keys = match s.keys(&all)? {
        Ok((_, keys)) => keys,
        // It knows of no reservations.
        Err(unsettled) if unsettled.refused => Vec::new(),
        Err(_) => {
            return all.into_iter().try_for_each(|path| rest(s, path));
        }
    };
    let candidates = [what.perhaps, before.registered].into_iter().flatten();
    let registered = candidates.into_iter().find(|r| keys.contains(&r.key));
    if registered.is_none() && what.untold {
        hear_out(s)?;
    }
    let mut held = None;
    if let Some(Remembered { key, .. }) = registered {
        match s.held(&all)? {
            Ok((_, found)) => {
                let ours = found.filter(|h| h.key == key || h.kind.is_of_all_registrants());
                held = ours.map(|h| h.kind);
            }
            Err(unsettled) if unsettled.refused => {}
            Err(_) => {
                return all.into_iter().try_for_each(|path| rest(s, path));
            }
        }
    }
    s.once(|map, fx| {
        let reservations = &mut map.reservations;
        if reservations.recall == Some(what) {
            reservations.recall = None;
        }
        reservations.state = State { registered, held, holder: None };
        if registered == what.perhaps && registered.map(|r| r.key) != before.key() {
            // The order's own doing: by these paths nothing can come too late any more.
            reservations.ghosts = 0;
            for path in map.paths.iter_mut().flatten().filter(|p| p.is_usable()) {
                path.nexus.ghost = false;
            }
        }
        let reservations = &mut map.reservations;
        if registered.is_none() && what.given {
            reservations.ever = false;
            for path in map.paths.iter_mut().flatten() {
                path.nexus.settled(Registration::None);
            }
        }
        fx.push(Effect::Remember(registered));
        match before.key() {
            Some(key) if registered.is_none() && what.untold => {
                fx.push(Effect::Attention(SenseCode::REGISTRATIONS_PREEMPTED));
                told(fx, News::Preempted(key));
            }
            _ => told(fx, News::Recalled(registered.map(|r| r.key))),
        }
    });
    Ok(())
}

/// Somebody else has removed the guest's registration. What paths tell of it that
/// were registered comes first: the guest is told by us if none does.
pub(super) fn preempted(s: &mut Script<'_>, key: Key) -> Go<()> {
    hear_out(s)?;
    s.once(|map, fx| map.was_preempted(key, fx));
    Ok(())
}

/// Has paths tell what they have to tell, which is met by any command.
fn hear_out(s: &mut Script<'_>) -> Go<()> {
    for path in s.paths(|p| p.nexus.listens) {
        s.ask(path, Ask::In(InAction::ReadKeys))?;
    }
    Ok(())
}

/// It was tried in vain, and is tried again once the path is checked. (One that has
/// failed by it is tried as soon as it returns.)
pub(super) fn rest(s: &mut Script<'_>, path: PathId) -> Go<()> {
    let again = s.now() + SOON;
    s.once(|map, _| {
        if let Some(path) = map.path_mut(path) {
            let carries = path.standing.carries(path.access);
            path.nexus.rested = path.is_usable().then_some(carries);
            path.next_check = path.next_check.min(again);
        }
    });
    Ok(())
}

/// The array does not let it register.
fn bar(s: &mut Script<'_>, path: PathId, why: Outcome) {
    let again = s.now() + s.polling_interval();
    s.once(|map, fx| {
        let Some(path) = map.path_mut(path) else { return };
        path.nexus.rested = Some(path.standing.carries(path.access));
        path.next_check = path.next_check.min(again);
        if !std::mem::replace(&mut path.nexus.told, true) {
            told(fx, News::Barred(path.name.clone(), why));
        }
    });
}

impl Multipath {
    fn admitted(&mut self, now: Time, id: PathId, already: bool, fx: &mut Effects) {
        let key = self.reservations.state.key();
        let joined = already && self.path(id).is_some_and(|p| p.nexus.had.is_none());
        if let Some(key) = key.filter(|_| joined) {
            self.reservations.returned(key);
        }
        // (By the last command it may have been lost: it begins anew.)
        let Some(path) = self.path_mut(id).filter(|p| p.is_usable()) else { return };
        let conflicted = path.nexus.conflicted;
        if conflicted && !already {
            told(fx, News::Repaired(path.name.clone()));
        }
        path.nexus.settled(Registration::Registered);
        self.reservations.haunted = None;
        if conflicted && already {
            self.is_contested(now, id);
        }
    }

    fn was_preempted(&mut self, key: Key, fx: &mut Effects) {
        self.has_nothing();
        for path in self.paths.iter_mut().flatten() {
            if path.nexus.registration == Registration::Registered {
                path.nexus.settled(Registration::None);
            }
            path.nexus.consults = None;
            // Whoever has set a path aside for its conflicts goes on: from now
            // on they are the guest's.
            path.epoch += 1;
        }
        fx.push(Effect::Remember(None));
        fx.push(Effect::Attention(SenseCode::REGISTRATIONS_PREEMPTED));
        told(fx, News::Preempted(key));
    }
}
