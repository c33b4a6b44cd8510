//! REGISTER and REGISTER AND IGNORE EXISTING KEY, the guest's: by one path, and
//! then by all; and how a guest gives its registration up (SPC-5 5.14.7, 5.14.11.2).
//!
//! Part of `orders`, which says what all orders have in common.

use super::*;

/// The holder's path first. As soon as one path has done it, it is done, and the
/// others follow as paths do that return: those that cannot carry nothing. A
/// conflict by some paths is theirs, a conflict by all the guest's.
pub(super) fn register(s: &mut Script<'_>, out: Out) -> Go<Ended> {
    let before = s.state();
    let leaves = leaves(&out);
    let all_tg_pt = out.all_tg_pt || s.is(|map| map.policy.all_tg_pt);
    let out = Out { all_tg_pt, ..out };
    let known =
        out.action == OutAction::RegisterAndIgnore || before.key().unwrap_or(Key::NONE) == out.key;
    if leaves && before.registered.is_none() {
        return by_one(s, out);
    }
    // (One that gives no key that it has does so anew, or leaves.)
    let anew = leaves || out.action == OutAction::RegisterAndIgnore;
    let all = if anew || before.registered.is_none() { s.all() } else { s.trusted() };
    let holder = before.holder.filter(|id| all.contains(id));
    if leaves && known && holder.is_none() {
        if let Some(ended) = give_up_reservation(s)? {
            return Ok(ended);
        }
    }
    let mut out = out;
    let (mut dropped, mut unsettled) = (false, Unsettled::default());
    let mut gone = false;
    if leaves && known && before.held.is_some_and(Type::is_of_all_registrants) {
        if !s.suspend()? {
            return Ok(Ended::With(BUSY));
        }
        (dropped, unsettled) = drop_registrations(s)?;
        if s.state().registered.is_none() {
            return by_one(s, out); // as a guest that has none
        }
        gone = dropped && !unsettled.maybe;
        if dropped {
            out.action = OutAction::RegisterAndIgnore;
        }
    }
    s.once(|map, _| map.reservations.ever = true);
    let after = Remembered { key: out.action_key, aptpl: out.aptpl, all_tg_pt: out.all_tg_pt };
    let after = Some(after).filter(|_| !leaves);
    let sure = s.registered();
    let mut is_lus = false;
    let mut late = Vec::new();
    for path in all {
        let word = s.out(path, out)?;
        match word {
            Word::Good(_) => {
                s.once(|map, fx| map.commit(path, after, fx));
                // (What may hold the reservation is never taken away.)
                if before.registered.is_none() && !late.is_empty() {
                    s.once(|map, _| map.expect_ghosts(&late));
                    vouch(s, path, after)?;
                }
                return registered(s, path, before.key(), after);
            }
            // Another key than the guest has, by a path that has the guest's.
            Word::Conflict(outcome) if !known && sure.contains(&path) => {
                return Ok(Ended::With(outcome));
            }
            Word::Refused(outcome) => return Ok(Ended::With(outcome)),
            Word::Conflict(_) | Word::Lost { .. } => {
                unsettled.take(&word);
                is_lus |= matches!(word, Word::Conflict(_)) && sure.contains(&path);
                late.extend(matches!(word, Word::Lost { maybe: true, .. }).then_some(path));
                if leaves && known && holder == Some(path) && give_up_reservation(s)?.is_some() {
                    break;
                }
            }
        }
    }
    if gone {
        // All but one at most, which is removed when a path takes it.
        s.once(|map, fx| {
            map.unregister(fx);
            map.doubt_nexuses();
        });
        return Ok(Ended::With(Outcome::Good));
    }
    if !known && unsettled.conflict.is_some() {
        return Ok(Ended::Nobody(unsettled.harmless())); // as by every path
    }
    if let Some(key) = before.key().filter(|_| !is_lus && !unsettled.maybe && !dropped) {
        conflict::judge(s, key, &mut unsettled, false)?;
        return Ok(Ended::Nobody(unsettled));
    }
    // (With all paths agreeing, somebody else has removed it.)
    if unsettled.maybe || unsettled.conflict.is_some() || dropped {
        // (If it is nothing then, it was not by this order.)
        let untold = !leaves || !(unsettled.maybe || dropped);
        let recall = Recall { perhaps: after, untold, given: false };
        s.once(|map, _| map.doubt_registration(recall));
    }
    Ok(Ended::Nobody(unsettled))
}

/// At which PRGENERATION the guest was registered by this path, whatever comes late by others.
fn vouch(s: &mut Script<'_>, path: PathId, after: Option<Remembered>) -> Go<()> {
    let Some(after) = after else { return Ok(()) };
    let Ok((_, listed)) = s.registrations(&[path])? else { return Ok(()) };
    if let Word::Good(_) = s.out(path, after.renewal())? {
        s.once(|map, _| map.vouch_at(after.key, listed.generation, 1));
    }
    Ok(())
}

/// A reservation of all registrants ends with the last registration, and until
/// then it forbids the guest's own I/O by those of its paths that have none any
/// more: so that is held. A path that is away may have one, for ever if it has
/// left the map: then the guest preempts itself, which removes all of its
/// registrations, or all but the one it does so by; whether it has. (What is gone
/// before it does was removed by another host: of that the guest is told.)
fn drop_registrations(s: &mut Script<'_>) -> Go<(bool, Unsettled)> {
    let mut unsettled = Unsettled::default();
    let state = s.state();
    let (Some(key), Some(kind)) = (state.key(), state.held) else { return Ok((false, unsettled)) };
    drop_former(s, key, kind)?;
    let away = |p: &Path| p.nexus.registration == Registration::Unknown;
    if !s.is(|map| map.all().any(away) || !map.reservations.departed.is_empty()) {
        return Ok((false, unsettled));
    }
    check_registration(s, key)?;
    if s.state().key() != Some(key) {
        return Ok((false, unsettled));
    }
    let preempt = Out::new(OutAction::Preempt, key, key).of_type(kind);
    for path in s.registered() {
        let word = s.out(path, preempt)?;
        match word {
            Word::Good(_) => return Ok((true, unsettled)),
            // (By the path that was lost.)
            Word::Conflict(_) if unsettled.maybe => return Ok((true, unsettled)),
            Word::Lost { .. } => unsettled.take(&word),
            Word::Conflict(_) | Word::Refused(_) => {}
        }
    }
    Ok((unsettled.maybe, unsettled))
}

/// What paths that are away have by keys that the guest had before keeps such a
/// reservation as well.
fn drop_former(s: &mut Script<'_>, key: Key, kind: Type) -> Go<()> {
    for former in s.former_keys() {
        for path in s.registered() {
            let word = s.out(path, Out::new(OutAction::Preempt, key, former).of_type(kind))?;
            // (A conflict: the array has none.)
            if matches!(word, Word::Good(_) | Word::Conflict(_)) {
                break;
            }
        }
    }
    Ok(())
}

/// The path has done it, and the engine knows: so do the others now.
pub(super) fn registered(
    s: &mut Script<'_>,
    leader: PathId,
    before: Option<Key>,
    after: Option<Remembered>,
) -> Go<Ended> {
    let others = others(s, leader);
    let Some(after) = after else {
        for path in others {
            lifecycle::clean(s, path)?;
        }
        return Ok(Ended::With(Outcome::Good));
    };
    for path in others {
        lifecycle::admit(s, path)?;
    }
    // A path that is down may hold the reservation by the old key.
    if let Some(old) = before.filter(|old| *old != after.key) {
        let kind = holds(s, old)?.unwrap_or(None);
        let believed = s.is(|map| map.reservations.state.held.is_some());
        if let Some(kind) = kind.filter(|_| believed) {
            let take = Out::new(OutAction::Preempt, after.key, old).of_type(kind);
            if let Word::Good(_) = s.out(leader, take)? {
                s.once(|map, fx| map.took_over(leader, fx));
            }
        }
    }
    // Another host may have ended everything just before, which this does not notice.
    if s.state().held.is_some() {
        if let Ok((_, held)) = s.held(&[leader])? {
            conflict::is_held(s, held, &[after.key, before.unwrap_or(after.key)]);
        }
    }
    Ok(Ended::With(Outcome::Good))
}

/// A reservation ends with its holder's registration; the holder's path may be
/// down, and its registration outlive the others. How the order ends, if that
/// is still to be done.
fn give_up_reservation(s: &mut Script<'_>) -> Go<Option<Ended>> {
    let Some(key) = s.state().key() else { return Ok(None) };
    let kind = match holds(s, key)? {
        Ok(Some(kind)) => kind,
        Ok(None) => return Ok(None),
        Err(unsettled) => return Ok(Some(Ended::Nobody(unsettled))),
    };
    let release = Out::new(OutAction::Release, key, Key::NONE).of_type(kind);
    let ended = super::holding::release_own(s, key, release)?;
    let stays = matches!(ended, Ended::With(BUSY) | Ended::Nobody(_));
    Ok(Some(ended).filter(|_| stays))
}
