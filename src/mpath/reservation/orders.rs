//! The guest's PERSISTENT RESERVE OUT: by which paths it goes, in which order,
//! and what becomes of it when paths are lost on the way.
//!
//! The array judges an order: it goes to one path as it is, and what the LU
//! says is the guest's, sense and all. What the LU cannot know, that several
//! nexuses are one, is made up for here. Rules and their reasons are
//! libmpathpersist's (multipath-tools 0.14.3) except where said.

mod holding;
mod preempting;
mod registering;

use super::script::{BUSY, Go, Script, Unsettled, Word, check};
use super::{Recall, Registration, Remembered, Waiting, conflict, lifecycle};
use crate::io::Outcome;
use crate::mpath::Multipath;
use crate::mpath::effect::{Effect, Effects};
use crate::mpath::path::Path;
use crate::mpath::snapshot::PathId;
use crate::scsi::reservation::{Held, Key, Out, OutAction, Type};
use crate::scsi::sense::SenseCode;

/// How an order ended.
enum Ended {
    With(Outcome),
    /// No path has settled it.
    Nobody(Unsettled),
}

/// Carries out an order and answers it.
pub(super) fn order(s: &mut Script<'_>, waiting: Waiting) -> Go<()> {
    let out = waiting.out;
    reclaim(s, &out)?;
    let ended = match out.action {
        OutAction::Register | OutAction::RegisterAndIgnore => registering::register(s, out)?,
        OutAction::Reserve => holding::reserve(s, out)?,
        OutAction::Release => holding::release(s, out)?,
        OutAction::Clear => clear(s, out)?,
        OutAction::Preempt | OutAction::PreemptAndAbort => preempting::preempt(s, out)?,
        OutAction::ReplaceLost => replace_lost(s, out)?,
        // (Refused when it was read: nobody's registration moves.)
        OutAction::RegisterAndMove => Ended::With(check(SenseCode::INVALID_FIELD_IN_CDB)),
    };
    s.once(|map, fx| map.answer(waiting, &ended, fx));
    Ok(())
}

/// By one path, whichever answers: the LU's word is the guest's, but for the
/// conflict of a path that is not registered while the guest is. For what
/// changes nothing, be it carried out once or twice: most often the LU is to
/// refuse it.
fn by_one(s: &mut Script<'_>, out: Out) -> Go<Ended> {
    let mut unsettled = Unsettled::default();
    let own = own_key(s, &out);
    let sure = s.registered();
    for path in s.all() {
        match s.out(path, out)? {
            Word::Good(_) if leaves(&out) => {
                // Nobody knew that it was there: by the others it may be, too.
                s.once(|map, _| map.doubt_nexuses());
                return Ok(Ended::With(Outcome::Good));
            }
            Word::Good(_) => {
                let key = Some(out.key).filter(|key| !key.is_none());
                if key.is_some() && s.state().key() != key {
                    // It has another key than we know of.
                    let perhaps = Remembered { key: out.key, aptpl: false, all_tg_pt: false };
                    let recall = Recall { perhaps: Some(perhaps), untold: false, given: false };
                    s.once(|map, _| map.doubt_registration(recall));
                }
                return Ok(Ended::With(Outcome::Good));
            }
            word @ Word::Conflict(_) if own.is_some() && !sure.contains(&path) => {
                unsettled.take(&word);
            }
            Word::Conflict(outcome) | Word::Refused(outcome) => {
                return Ok(Ended::With(outcome));
            }
            word @ Word::Lost { .. } => unsettled.take(&word),
        }
    }
    if let Some(key) = own {
        conflict::judge(s, key, &mut unsettled, false)?;
    }
    Ok(Ended::Nobody(unsettled))
}

/// A reservation that a path has which is away, by a key that the guest had before, is
/// the guest's all the same: it could not be taken from there when the key was changed.
fn reclaim(s: &mut Script<'_>, out: &Out) -> Go<()> {
    let of_one = |kind: Type| !kind.is_of_all_registrants();
    let believed = s.state().held.is_some_and(of_one);
    let former = s.former_keys();
    let Some(key) = own_key(s, out).filter(|_| believed && !former.is_empty()) else {
        return Ok(());
    };
    let all = s.all();
    let Ok((_, Some(held))) = s.held(&all)? else { return Ok(()) };
    if !former.contains(&held.key) || !of_one(held.kind) {
        return Ok(());
    }
    let take = Out::new(OutAction::Preempt, key, held.key).of_type(held.kind);
    for path in s.registered() {
        if let Word::Good(_) = s.out(path, take)? {
            s.once(|map, fx| map.took_over(path, fx));
            break;
        }
    }
    Ok(())
}

/// Whether a guest gives up its registration by it.
fn leaves(out: &Out) -> bool {
    let registers = matches!(out.action, OutAction::Register | OutAction::RegisterAndIgnore);
    registers && out.action_key.is_none()
}

/// The guest's key, if the order says that it has it.
fn own_key(s: &mut Script<'_>, out: &Out) -> Option<Key> {
    s.state().key().filter(|key| *key == out.key)
}

fn others(s: &mut Script<'_>, leader: PathId) -> Vec<PathId> {
    s.paths(|p| p.id != leader)
}

/// The type of the reservation that is held by this key, and not by all
/// registrants.
fn holds(s: &mut Script<'_>, key: Key) -> Go<Result<Option<Type>, Unsettled>> {
    let all = s.all();
    let of_one = |h: &Held| h.key == key && !h.kind.is_of_all_registrants();
    let held = s.held(&all)?.map_err(Unsettled::harmless);
    Ok(held.map(|(_, held)| held.filter(of_one).map(|h| h.kind)))
}

/// A conflict by every path, or a reservation that is gone, may be that of a
/// guest that was preempted. False: that cannot be read now.
pub(super) fn check_registration(s: &mut Script<'_>, key: Key) -> Go<bool> {
    if s.state().key() != Some(key) {
        return Ok(true); // it is known by now
    }
    let all = s.all();
    let Ok((_, keys)) = s.keys(&all)? else { return Ok(false) };
    if !keys.contains(&key) {
        lifecycle::preempted(s, key)?;
    }
    Ok(true)
}

fn clear(s: &mut Script<'_>, out: Out) -> Go<Ended> {
    let Some(key) = own_key(s, &out) else { return by_one(s, out) };
    let mut unsettled = Unsettled::default();
    let sure = s.registered();
    let mut is_lus = false;
    for path in s.all() {
        if unsettled.maybe {
            // By the path that was lost, or not? (If another host's are there,
            // it may be that one that has removed the guest's.)
            if let Ok((_, keys)) = s.keys(&[path])? {
                if keys.is_empty() {
                    return cleared(s);
                }
            }
        }
        let word = s.out(path, out)?;
        match word {
            Word::Good(_) => return cleared(s),
            Word::Refused(outcome) => return Ok(Ended::With(outcome)),
            Word::Conflict(_) | Word::Lost { .. } => unsettled.take(&word),
        }
        is_lus |= matches!(word, Word::Conflict(_)) && sure.contains(&path);
    }
    conflict::judge(s, key, &mut unsettled, is_lus)?;
    doubtful(s, &unsettled, false);
    Ok(Ended::Nobody(unsettled))
}

fn cleared(s: &mut Script<'_>) -> Go<Ended> {
    s.once(|map, fx| {
        map.unregister(fx);
        map.listed(&[]);
        for path in map.paths.iter_mut().flatten().filter(|p| p.is_usable()) {
            path.nexus.settled(Registration::None);
        }
    });
    Ok(Ended::With(Outcome::Good))
}

/// One path, which has a registration and the reservation then.
fn replace_lost(s: &mut Script<'_>, out: Out) -> Go<Ended> {
    let mut unsettled = Unsettled::default();
    for path in s.all() {
        let word = s.out(path, out)?;
        match word {
            Word::Good(_) => {
                let after =
                    Remembered { key: out.action_key, aptpl: out.aptpl, all_tg_pt: out.all_tg_pt };
                s.once(|map, fx| map.commit(path, Some(after), fx));
                let ended = registering::registered(s, path, None, Some(after))?;
                s.once(|map, fx| map.reserved_by(out.kind(), Some(path), fx));
                return Ok(ended);
            }
            Word::Conflict(outcome) | Word::Refused(outcome) => {
                return Ok(Ended::With(outcome));
            }
            Word::Lost { maybe, .. } => {
                unsettled.take(&word);
                if maybe {
                    break;
                }
            }
        }
    }
    if unsettled.maybe {
        let perhaps = Remembered { key: out.action_key, aptpl: out.aptpl, all_tg_pt: false };
        let recall = Recall { perhaps: Some(perhaps), untold: false, given: false };
        s.once(|map, _| map.doubt_registration(recall));
    }
    Ok(Ended::Nobody(unsettled))
}

/// An order may have been executed that may have changed registrations. If it
/// cannot have ended the guest's own, `untold`: somebody else has, if it is gone.
fn doubtful(s: &mut Script<'_>, unsettled: &Unsettled, untold: bool) {
    if unsettled.maybe {
        doubt(s, untold);
    }
}

/// What the guest has, the array is to be asked. If it has nothing, that is
/// somebody else's doing where it is `untold`.
fn doubt(s: &mut Script<'_>, untold: bool) {
    s.once(|map, _| map.doubt_registration(Recall { untold, ..Recall::default() }));
}

impl Multipath {
    /// An order is answered, or waits for another path.
    fn answer(&mut self, mut waiting: Waiting, ended: &Ended, fx: &mut Effects) {
        let outcome = match ended {
            Ended::With(outcome) => Some(*outcome),
            Ended::Nobody(unsettled) => unsettled.outcome(),
        };
        waiting.unready = matches!(ended, Ended::Nobody(u) if u.is_unready());
        if waiting.unready && self.carrying() == 0 {
            return self.reservations.orders.push_front(waiting);
        }
        let left = self.all().any(|p| p.is_usable());
        match outcome.or(left.then_some(BUSY)) {
            Some(outcome) => fx.push(Effect::Answer { order: waiting.order, outcome }),
            None => self.reservations.orders.push_front(waiting),
        }
    }
}
