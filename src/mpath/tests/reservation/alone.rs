//! Reservations that admit their holder's nexus alone: one path carries, and
//! the reservation follows the guest's I/O.

use super::array::conflict;
use super::*;

const ALONE: [Type; 2] = [Type::WriteExclusive, Type::ExclusiveAccess];

/// A guest that holds one, by `a`.
fn holding(paths: usize, kind: Type) -> World {
    let mut world = World::new(paths);
    world.other_registers();
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    assert_eq!(world.order(reserve(kind)), Some(Outcome::Good));
    assert_eq!(world.array.held, Some((Some("a"), kind)));
    world
}

fn in_use(world: &World) -> Vec<&'static str> {
    NAMES
        .into_iter()
        .filter(|n| world.rig.map.path_by_name(n).is_ok() && world.in_table(n))
        .collect()
}

#[test]
fn one_path_carries_and_the_reservation_goes_to_another_when_that_is_lost() {
    for kind in ALONE {
        let mut world = holding(3, kind);
        assert_eq!(in_use(&world), ["a"]);
        assert!(world.rig.path("b").is_beside_the_holder());
        let epoch = world.rig.path("b").epoch;
        world.rig.fail("a");
        assert_eq!(world.rig.table().queueing, Queueing::Hold, "another will carry in a moment");
        world.run();
        assert_eq!(world.array.held, Some((Some("b"), kind)));
        assert_eq!(in_use(&world), ["b"]);
        assert!(world.rig.path("b").epoch > epoch, "conflicts of before are not the guest's");
        world.all_return();
        assert_eq!(in_use(&world), ["b"], "it stays where it is");
        for name in NAMES {
            assert_eq!(world.array.keys.get(name), Some(&KEY), "{name} is registered");
        }
        assert_eq!(world.rig.attentions, []);
        assert_eq!(world.order(release(kind)), Some(Outcome::Good));
        assert_eq!(in_use(&world), NAMES);
    }
}

#[test]
fn a_path_that_is_removed_leaves_it_to_another() {
    let mut world = holding(2, Type::WriteExclusive);
    world.rig.with(|map, now, fx| map.remove_path(now, "a", fx)).expect("there");
    world.run();
    assert_eq!(in_use(&world), ["b"]);
}

#[test]
fn all_paths_away_and_the_first_to_return_has_it() {
    let mut world = holding(3, Type::ExclusiveAccess);
    NAMES.iter().for_each(|name| world.rig.fail(name));
    world.all_return();
    let holder = world.array.held.and_then(|held| held.0).expect("held");
    assert_eq!(in_use(&world), [holder]);
    assert_eq!(world.rig.attentions, []);
}

#[test]
fn what_another_host_has_taken_or_ended_is_not_taken_back() {
    for order in [OutAction::Preempt, OutAction::Clear] {
        let mut world = holding(2, Type::WriteExclusive);
        world.fenced = true;
        let fence = Out::new(order, OTHERS, KEY).of_type(Type::WriteExclusive);
        world.array.out(OTHER, fence);
        let after = world.array.held;
        world.rig.fail("a");
        world.run();
        assert_eq!(world.array.held, after, "{order:?}");
        assert_eq!(world.key(), None);
        assert!(!world.array.keys.contains_key("b"));
        assert_eq!(in_use(&world), ["b"], "what the guest is told, the array says");
    }
}

/// Whatever is lost on the way, one path that holds it carries in the end.
#[test]
fn it_is_moved_whatever_happens_meanwhile() {
    let moved = |fault| {
        let mut world = holding(3, Type::ExclusiveAccess);
        world.rig.fail("a");
        let first = world.count + 1;
        world.fault = fault;
        world.run();
        (first..=world.count, world)
    };
    let (commands, _) = moved(None);
    assert!(commands.clone().count() >= 3);
    for at in commands {
        let lost = NAMES.map(Fault::Lost);
        for fault in lost.into_iter().chain([Fault::Before, Fault::After, Fault::Hardware]) {
            let (_, mut world) = moved(Some((at, fault)));
            world.all_return();
            let held = world.array.held.expect("held");
            assert_eq!(held.1, Type::ExclusiveAccess);
            assert_eq!(in_use(&world), [held.0.expect("one")], "{fault:?} at {at}");
            assert_eq!(world.rig.attentions, []);
        }
        for fault in [Fault::Fenced, Fault::Cleared] {
            let (_, mut world) = moved(Some((at, fault)));
            world.rig.saw("b", PathVerdict::Conflict);
            world.run();
            world.all_return();
            assert_eq!(world.key(), None, "{fault:?} at {at}");
            assert!(NAMES.iter().all(|name| !world.array.keys.contains_key(name)));
        }
    }
}

#[test]
fn a_conflict_by_the_path_that_was_thought_to_have_it_takes_it_there() {
    let mut world = holding(2, Type::WriteExclusive);
    world.array.reserve("b", Type::WriteExclusive);
    world.rig.saw("a", PathVerdict::Conflict);
    world.run();
    let holder = world.array.held.and_then(|held| held.0).expect("held");
    assert_eq!(in_use(&world), [holder]);
}

#[test]
fn it_goes_with_the_access_state() {
    use AccessState::{ActiveOptimized, Standby};
    let policy = Policy { grouping: GroupingPolicy::GroupByPrio, ..Policy::default() };
    let [first, second] = [[ActiveOptimized, Standby], [Standby, ActiveOptimized]];
    let rig = Rig::read(policy, &[("a", alua(1, &first)), ("b", alua(2, &first))]);
    let mut world = World::with(rig);
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    assert_eq!(world.order(reserve(Type::WriteExclusive)), Some(Outcome::Good));
    assert_eq!(in_use(&world), ["a"]);
    world.rig.readings.retain(|_| false);
    world.rig.saw("a", PathVerdict::Refresh);
    world.rig.prioritized("a", alua(1, &second));
    world.run();
    assert_eq!(world.array.held, Some((Some("b"), Type::WriteExclusive)));
    assert_eq!(in_use(&world), ["b"]);
}

/// By one that does, a conflict would be taken for the LU's word.
#[test]
fn no_path_begins_to_carry_while_the_guest_reserves_the_lu_for_one_nexus() {
    for kind in ALONE {
        let mut world = World::new(2);
        assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
        world.rig.saw("b", PathVerdict::Passive);
        assert_eq!(in_use(&world), ["a"]);
        world.give(reserve(kind));
        world.rig.checked("b", UP);
        assert_eq!(in_use(&world), ["a"], "b carries I/O again as far as its array is concerned");
        world.rig.saw("a", PathVerdict::Conflict);
        assert_eq!(in_use(&world), [""; 0]);
        assert_eq!(world.rig.table().queueing, Queueing::Hold, "one will carry in a moment");
        world.run();
        assert_eq!(world.last(), Some(Outcome::Good));
        assert_eq!(in_use(&world).len(), 1);
        assert_eq!(world.order(release(kind)), Some(Outcome::Good));
        assert_eq!(in_use(&world), ["a", "b"]);
    }
}

/// Until a path is about to take the reservation over.
fn until_it_is_taken(world: &mut World) {
    let takes = |ask: &Ask| matches!(ask, Ask::Out(out) if out.action == OutAction::Preempt);
    while !world.rig.asks.first().is_some_and(|(_, _, ask)| takes(ask)) {
        if world.rig.asks.is_empty() {
            let generation = world.rig.table().generation;
            world.rig.event(Event::Quiet { generation });
        } else {
            world.one();
        }
    }
}

/// What takes a reservation over that is not there any more removes its own
/// registration: PREEMPT of a key that holds nothing removes all that have it
/// (SPC-5 5.14.11.4).
#[test]
fn an_array_that_forgets_a_reservation_while_it_is_taken_over_leaves_no_path_in_use_unregistered() {
    for kind in [Type::WriteExclusive, Type::WriteExclusiveRegistrantsOnly] {
        let mut world = World::new(2);
        world.other_registers();
        assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
        assert_eq!(world.order(reserve(kind)), Some(Outcome::Good));
        world.rig.fail("a");
        if !kind.is_of_holder_alone() {
            world.give(release(kind));
        }
        until_it_is_taken(&mut world);
        world.array.unregister("a");
        world.run();
        assert_eq!(world.key(), None, "{kind:?}");
        assert_eq!(world.rig.attentions, [SenseCode::REGISTRATIONS_PREEMPTED]);
        assert_eq!(in_use(&world), ["b"]);
        let released = (!kind.is_of_holder_alone()).then(conflict);
        assert_eq!(world.rig.answers.get(2).map(|(_, outcome)| *outcome), released);
    }
}

/// The path that has taken it from another host is lost with the answer; another finds
/// that it is done, or does the rest since the other host is there again.
#[test]
fn what_a_path_has_taken_that_was_lost_is_not_thought_to_be_held_by_the_next() {
    for (kind, again) in ALONE.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let mut world = World::new(3);
        world.other_registers();
        assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
        world.array.reserve(OTHER, kind);
        world.give(preempt(OTHERS, kind));
        world.fault = Some((world.count + 2, Fault::After));
        // READ KEYS, and PREEMPT.
        world.one();
        world.one();
        assert_eq!(world.array.held, Some((Some("a"), kind)));
        if again {
            world.other_registers();
        }
        world.run();
        assert_eq!(world.last(), Some(Outcome::Good));
        let holder = world.array.held.and_then(|held| held.0).expect("held");
        assert_eq!(in_use(&world), [holder], "{kind:?}, again: {again}");
        assert_eq!(world.rig.attentions, []);
    }
}
