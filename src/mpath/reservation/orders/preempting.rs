//! PREEMPT and PREEMPT AND ABORT, the guest's: of another host, and of itself, to
//! take its reservation by another type (SPC-5 5.14.11.4).
//!
//! Part of `orders`, which says what all orders have in common.

use super::*;

/// One path. With the guest's own key (to change the type), or with none where
/// all registrants hold the reservation, the array removes our other paths'
/// registrations, too: guest I/O is held until they have them again.
pub(super) fn preempt(s: &mut Script<'_>, out: Out) -> Go<Ended> {
    let Some(key) = own_key(s, &out) else { return by_one(s, out) };
    // (What all registrants hold another host may have reserved just before.)
    let own = preempts_itself(&out);
    if !own {
        match is_there(s, out.action_key)? {
            Ok(true) => {}
            Ok(false) => return of_nobody(s, out),
            Err(unsettled) => return Ok(Ended::Nobody(unsettled)),
        }
    }
    if own && !s.suspend()? {
        return Ok(Ended::With(BUSY));
    }
    if out.action_key == key {
        // (What is gone later is gone by this: whoever preempts the key that it has,
        // and holds nothing, loses it.)
        check_registration(s, key)?;
        if s.state().key() != Some(key) {
            return by_one(s, out);
        }
    }
    let keeps = keeps_registration(s, key, out)?;
    let mut unsettled = Unsettled::default();
    let sure = s.registered();
    let mut is_lus = false;
    for path in s.trusted() {
        if unsettled.maybe {
            // By the path that was lost, or not?
            if let Some(ended) = was_preempted(s, path, key, out, keeps)? {
                return Ok(ended);
            }
        }
        let word = s.out(path, out)?;
        match word {
            Word::Good(_) => {
                // (Carried out twice, the first leaves what the second takes: a type that
                // all registrants hold, say.)
                let once = !unsettled.maybe || out.action_key != key;
                let holder = Some(path).filter(|_| own || !unsettled.maybe);
                return preempted(s, path, holder, out, once && keeps);
            }
            Word::Refused(outcome) => return Ok(Ended::With(outcome)),
            Word::Conflict(_) | Word::Lost { .. } => unsettled.take(&word),
        }
        is_lus |= matches!(word, Word::Conflict(_)) && sure.contains(&path);
    }
    conflict::judge(s, key, &mut unsettled, is_lus)?;
    doubtful(s, &unsettled, !own);
    Ok(Ended::Nobody(unsettled))
}

/// Whether the guest's own key is among those it preempts; with none they are all.
fn preempts_itself(out: &Out) -> bool {
    out.action_key == out.key || out.action_key.is_none()
}

/// Whether there are registrations of the key.
fn is_there(s: &mut Script<'_>, key: Key) -> Go<Result<bool, Unsettled>> {
    let all = s.all();
    Ok(s.keys(&all)?.map(|(_, keys)| keys.contains(&key)).map_err(Unsettled::harmless))
}

/// To be refused, by whichever path; or its victim has registered just now, and what
/// that held is the guest's.
fn of_nobody(s: &mut Script<'_>, out: Out) -> Go<Ended> {
    let ended = by_one(s, out)?;
    if matches!(ended, Ended::With(Outcome::Good)) {
        let all = s.all();
        s.held(&all)?.ok();
    }
    Ok(ended)
}

/// A path that was lost may have done it: then the array is as it is to be,
/// and what the guest has by it is read.
fn was_preempted(
    s: &mut Script<'_>,
    path: PathId,
    key: Key,
    out: Out,
    keeps: bool,
) -> Go<Option<Ended>> {
    let Ok((_, keys)) = s.keys(&[path])? else { return Ok(None) };
    let before = s.state().held;
    let own = preempts_itself(&out);
    let done = match keys.contains(&key) {
        // The key was there before.
        true if !own => !keys.contains(&out.action_key),
        true => {
            let held = s.held(&[path])?.ok().and_then(|(_, held)| held);
            // (With no key nothing is taken where the guest had it.)
            let new = out.action_key == key || before != out.kind();
            new && held.is_some_and(|h| h.key == key && Some(h.kind) == out.kind())
        }
        // The guest's own: as by one path. (Who takes what all registrants hold stays.)
        false => out.action_key == key,
    };
    if !done {
        return Ok(None);
    }
    if !own {
        return preempted(s, path, None, out, true).map(Some);
    }
    doubt(s, keeps);
    Ok(Some(Ended::With(Outcome::Good)))
}

/// Whether the guest will be registered by the path that preempts for it, be it
/// itself: who takes a reservation is (SPC-5 5.14.11.4). If it is found not to be,
/// that is somebody else's doing.
fn keeps_registration(s: &mut Script<'_>, key: Key, out: Out) -> Go<bool> {
    // (With no key it is taken from all registrants, or nothing is done.)
    if out.action_key != key {
        return Ok(true);
    }
    // What was released by a command that was lost, or ended by another host with a
    // registration that the guest had before, it does not hold any more.
    let of_one = |kind: &Type| !kind.is_of_all_registrants();
    let believed = s.state().held.filter(of_one);
    Ok(holds(s, key)?.unwrap_or(believed).is_some())
}

/// The path has done it, or says that it is done; if the guest `stays` registered by
/// it, nobody but another host can have ended that. `holder`: who has the
/// reservation if the guest has taken one, unless a path that was lost may have
/// taken it before.
fn preempted(
    s: &mut Script<'_>,
    leader: PathId,
    holder: Option<PathId>,
    out: Out,
    stays: bool,
) -> Go<Ended> {
    let key = out.key;
    let own = preempts_itself(&out);
    if own {
        s.once(|map, _| map.unsettle_others(leader));
    }
    // An array may remove what the guest has preempted itself, or another host
    // has the same key: then the guest has none, as with one path.
    let paths: Vec<PathId> = [leader].into_iter().chain(others(s, leader)).collect();
    match s.keys(&paths)? {
        Ok((_, keys)) if keys.contains(&key) => {}
        Ok(_) if stays => {
            lifecycle::preempted(s, key)?;
            return Ok(Ended::With(Outcome::Good));
        }
        Ok(_) => {
            s.once(|map, fx| map.unregister(fx));
            s.settle(leader, Registration::None);
            return Ok(Ended::With(Outcome::Good));
        }
        Err(_) => {
            doubt(s, stays);
            return Ok(Ended::With(Outcome::Good));
        }
    }
    let before = s.state().held;
    let Ok((_, held)) = s.held(&paths)? else {
        doubt(s, stays);
        return Ok(Ended::With(Outcome::Good));
    };
    let ours = held.filter(|h| h.key == key || h.kind.is_of_all_registrants());
    s.once(|map, fx| {
        let same = ours.is_some() && ours.map(|h| h.kind) == before;
        if own || !same {
            map.reserved_by(ours.map(|h| h.kind), holder.filter(|_| ours.is_some()), fx);
        }
    });
    if own {
        for path in others(s, leader) {
            lifecycle::admit(s, path)?;
        }
    }
    Ok(Ended::With(Outcome::Good))
}
