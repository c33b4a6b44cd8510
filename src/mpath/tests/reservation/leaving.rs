//! A guest that gives its registration up while all registrants hold the
//! reservation.

use super::array::conflict;
use super::*;

/// Carries out the order; at each step what the guest may send goes by paths
/// that the array lets it.
fn leaves(world: &mut World) {
    world.give(register(KEY, NONE));
    loop {
        let suspended = world.rig.table().suspended;
        let known = |name: &&str| world.rig.map.path_by_name(name).is_ok();
        // (What a path that is lost has done, nobody knows at once.)
        let looks = !suspended && world.fault.is_none();
        for name in NAMES.into_iter().filter(known).filter(|name| looks && world.in_table(name)) {
            let forbidden = world.array.held.is_some() && !world.array.keys.contains_key(name);
            assert!(!forbidden, "{name} is in use");
        }
        match (world.rig.asks.is_empty(), suspended) {
            (false, _) => world.one(),
            (true, true) => {
                let generation = world.rig.table().generation;
                world.rig.event(Event::Quiet { generation });
            }
            (true, false) => return,
        }
    }
}

fn registrant(paths: usize) -> World {
    let mut world = World::new(paths);
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    assert_eq!(world.order(reserve(AR)), Some(Outcome::Good));
    world
}

#[test]
fn it_meets_no_conflict_of_its_own_on_the_way() {
    let mut world = registrant(3);
    leaves(&mut world);
    assert_eq!(world.last(), Some(Outcome::Good));
    assert_eq!(world.differs_from(&Array::default()), None);
    assert_eq!(world.rig.attentions, []);
}

#[test]
fn the_reservation_ends_though_a_path_is_down_or_has_left_the_map() {
    for removed in [false, true] {
        let mut world = registrant(3);
        world.rig.fail("b");
        if removed {
            world.rig.with(|map, now, fx| map.remove_path(now, "b", fx)).expect("there");
        }
        leaves(&mut world);
        assert_eq!(world.last(), Some(Outcome::Good));
        assert_eq!(world.array.held, None, "removed: {removed}");
        assert!(world.array.keys.is_empty());
        world.all_return();
        assert_eq!(world.key(), None);
        assert!(world.in_table("a") && world.in_table("c"));
        assert_eq!(world.rig.attentions, []);
    }
}

#[test]
fn whatever_is_lost_on_the_way_nothing_is_left_half_done() {
    let left = |fault| {
        let mut world = registrant(3);
        world.rig.fail("b");
        let first = world.count + 1;
        world.fault = fault;
        leaves(&mut world);
        (first..=world.count, world)
    };
    let (commands, _) = left(None);
    for at in commands {
        for fault in ["a", "c"].map(Fault::Lost).into_iter().chain([Fault::Before, Fault::After]) {
            let (_, mut world) = left(Some((at, fault)));
            world.all_return();
            for name in NAMES {
                let has = world.array.keys.get(name).copied();
                assert_eq!(has, world.key(), "{name}, {fault:?} at {at}");
                assert!(world.in_table(name));
            }
        }
    }
}

/// It preempts itself, and what was gone before is not gone by that.
#[test]
fn a_guest_that_was_fenced_before_it_leaves_is_not_told_that_it_has_left() {
    for order in [OutAction::Preempt, OutAction::Clear] {
        for at in 0..3 {
            let mut world = registrant(3);
            world.other_registers();
            world.rig.fail("b");
            world.fenced = true;
            let victim = if order == OutAction::Preempt { NONE } else { KEY };
            world.array.out(OTHER, out(order, OTHERS, victim).of_type(EX));
            world.fault = Some((world.count + 1 + at, Fault::Before));
            assert_eq!(world.order(register(KEY, NONE)), Some(conflict()), "{order:?}, {at}");
            assert_eq!(world.key(), None);
            assert_eq!(world.rig.attentions, [SenseCode::REGISTRATIONS_PREEMPTED]);
        }
    }
}
