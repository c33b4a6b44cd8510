//! RESERVE and RELEASE, the guest's: one path of many holds what the guest holds
//! (SPC-5 5.14.9, 5.14.11.1).
//!
//! Part of `orders`, which says what all orders have in common.

use super::*;

/// By one path; but the holder may be another one of ours, and down: then the
/// guest holds what it asks for.
pub(super) fn reserve(s: &mut Script<'_>, out: Out) -> Go<Ended> {
    let Some(key) = own_key(s, &out) else { return by_one(s, out) };
    let before = s.state();
    let mut unsettled = Unsettled::default();
    let sure = s.registered();
    let mut is_lus = false;
    for path in s.trusted() {
        let word = s.out(path, out)?;
        match word {
            Word::Good(_) => {
                s.once(|map, fx| map.reserved_by(out.kind(), Some(path), fx));
                return Ok(Ended::With(Outcome::Good));
            }
            Word::Refused(outcome) => return Ok(Ended::With(outcome)),
            Word::Conflict(_) | Word::Lost { .. } => unsettled.take(&word),
        }
        is_lus |= matches!(word, Word::Conflict(_)) && sure.contains(&path);
    }
    let kind = out.kind();
    let ours = unsettled.maybe || (kind.is_some() && before.held == kind);
    let all = s.all();
    match s.held(&all)? {
        Ok((_, Some(held))) => {
            // (With the guest's key it is the guest's, whenever it was reserved.)
            let of_all = held.kind.is_of_all_registrants();
            // (All registrants may be without the guest by now.)
            if ours && of_all && !check_registration(s, key)? {
                doubtful(s, &unsettled, true);
                return Ok(Ended::Nobody(unsettled.harmless()));
            }
            let registered = s.state().key() == Some(key);
            let holder = held.key == key || (ours && of_all && registered);
            if holder && Some(held.kind) == kind {
                s.once(|map, fx| map.reserved_by(kind, None, fx));
                return Ok(Ended::With(Outcome::Good));
            }
            is_lus = true;
        }
        // Whose conflict it is nobody says.
        Err(unread) if ours => {
            doubtful(s, &unsettled, true);
            return Ok(Ended::Nobody(unread.harmless()));
        }
        Ok((_, None)) | Err(_) => {}
    }
    conflict::judge(s, key, &mut unsettled, is_lus)?;
    if let Some(conflict) = unsettled.conflict {
        return Ok(Ended::With(conflict));
    }
    // Whoever has it holds what the guest wants: it may be asked for again.
    Ok(Ended::Nobody(unsettled.harmless()))
}

/// A nexus that does not hold the reservation releases nothing, and is told
/// GOOD: whether it is released, the array is asked. What others hold is left
/// alone.
pub(super) fn release(s: &mut Script<'_>, out: Out) -> Go<Ended> {
    let Some(key) = own_key(s, &out) else { return by_one(s, out) };
    let all = s.all();
    let held = match s.held(&all)? {
        Ok((_, held)) => held,
        Err(unsettled) => return Ok(Ended::Nobody(unsettled.harmless())),
    };
    match held {
        Some(held) if held.key == key && !held.kind.is_of_all_registrants() => {
            release_own(s, key, out)
        }
        _ => release_nothing(s, out),
    }
}

/// No single path of the guest's holds a reservation.
fn release_nothing(s: &mut Script<'_>, out: Out) -> Go<Ended> {
    let ended = by_one(s, out)?;
    if matches!(ended, Ended::With(Outcome::Good)) {
        s.once(|map, fx| map.reserved_by(None, None, fx));
    }
    Ok(ended)
}

/// What the guest holds is released by the path that holds it: by each in turn,
/// until it is. If that is down the reservation is moved to another first.
pub(super) fn release_own(s: &mut Script<'_>, key: Key, out: Out) -> Go<Ended> {
    let mut holders_word = None;
    for path in s.all() {
        let word = s.out(path, out)?;
        match word {
            Word::Good(_) => {}
            Word::Refused(outcome) => return Ok(Ended::With(outcome)),
            Word::Lost { maybe: true, .. } => {}
            Word::Lost { .. } => continue,
            Word::Conflict(outcome) => {
                let is_holders = s.state().holder == Some(path);
                holders_word = holders_word.or(is_holders.then_some(outcome));
                continue;
            }
        }
        let all = s.all();
        if let Ok((_, held)) = s.held(&all)? {
            if held.is_none_or(|h| h.key != key) {
                s.once(|map, fx| map.reserved_by(None, None, fx));
                return Ok(Ended::With(Outcome::Good));
            }
        }
    }
    let kind = match holds(s, key)? {
        Ok(Some(kind)) => kind,
        Ok(None) => return release_nothing(s, out),
        Err(unsettled) => return Ok(Ended::Nobody(unsettled)),
    };
    if out.kind() != Some(kind) || out.scope() != 0 {
        // The holder's path would say so, or has said what this LU says.
        let word = holders_word.unwrap_or_else(|| check(SenseCode::INVALID_RELEASE_OF_RESERVATION));
        return Ok(Ended::With(word));
    }
    let Some(leader) = take_over(s, key, kind)? else { return Ok(Ended::With(BUSY)) };
    let word = s.out(leader, out)?;
    let ended = match word {
        Word::Good(_) => {
            s.once(|map, fx| map.reserved_by(None, None, fx));
            Ended::With(Outcome::Good)
        }
        // There was nothing to take over: then taking it has ended the path's own registration.
        Word::Conflict(outcome) => {
            s.unsettle(leader);
            check_registration(s, key)?;
            Ended::With(outcome)
        }
        Word::Refused(outcome) => Ended::With(outcome),
        Word::Lost { .. } => {
            let mut unsettled = Unsettled::default();
            unsettled.take(&word);
            Ended::Nobody(unsettled.harmless())
        }
    };
    for path in others(s, leader) {
        lifecycle::admit(s, path)?;
    }
    Ok(ended)
}

/// Moves the guest's reservation from a path that is down to one that is not,
/// while nothing of the guest's is out: the other paths lose their registration
/// by it. `None`: it could not be moved.
fn take_over(s: &mut Script<'_>, key: Key, kind: Type) -> Go<Option<PathId>> {
    if !s.suspend()? {
        return Ok(None);
    }
    let take = Out::new(OutAction::Preempt, key, key).of_type(kind);
    let mut conflict = false;
    for path in s.registered() {
        match s.out(path, take)? {
            Word::Good(_) => {
                s.once(|map, _| map.unsettle_others(path));
                s.once(|map, fx| map.took_over(path, fx));
                return Ok(Some(path));
            }
            Word::Lost { maybe: true, .. } => {
                // (Whether it was done or not, the guest's key stays.)
                doubt(s, true);
                return Ok(None);
            }
            Word::Conflict(_) => conflict = true,
            Word::Refused(_) | Word::Lost { .. } => {}
        }
    }
    if conflict {
        check_registration(s, key)?;
    }
    Ok(None)
}
