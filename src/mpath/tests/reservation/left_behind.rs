//! What the guest reads of its own registrations while paths are away.

use super::*;
use crate::scsi::reservation::{encode_keys, keys, show_key_once};

fn registered(paths: usize) -> World {
    let mut world = World::new(paths);
    world.other_registers();
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world
}

/// READ KEYS, as the front edits it.
fn reads(world: &World) -> Vec<Key> {
    let all: Vec<Key> = world.array.keys.values().copied().collect();
    let mut data = encode_keys(1, &all);
    for own in world.rig.map.reservation() {
        show_key_once(&mut data, &own);
    }
    keys(&data).expect("whole").what
}

#[test]
fn a_path_that_has_left_the_map_is_not_read_as_another_initiator() {
    let mut world = registered(3);
    world.leaves("b");
    assert_eq!(world.array.keys.len(), 4, "the array has it still");
    assert_eq!(reads(&world), [KEY, OTHERS]);
    world.leaves("c");
    assert_eq!(reads(&world), [KEY, OTHERS]);
    world.rig.add("b").expect("joins");
    world.run();
    assert_eq!(reads(&world), [KEY, OTHERS]);
    let left: Vec<usize> = world.rig.map.reservation().iter().map(|own| own.copies).collect();
    assert_eq!(left, [3], "counted once");
}

#[test]
fn a_key_that_was_given_up_is_not_read_though_a_path_still_has_it() {
    for (then, what) in
        [(register(KEY, NEXT), vec![NEXT, OTHERS]), (register(KEY, NONE), vec![OTHERS])]
    {
        let mut world = registered(3);
        world.leaves("b");
        world.lose("c");
        assert_eq!(world.order(then), Some(Outcome::Good));
        assert_eq!(world.array.keys.values().filter(|key| **key == KEY).count(), 2);
        assert_eq!(reads(&world), what);
        world.back("c");
        world.run();
        assert_eq!(reads(&world), what);
        world.rig.add("b").expect("joins");
        world.run();
        assert!(!world.array.keys.values().any(|key| *key == KEY));
        assert_eq!(reads(&world), what);
    }
}

#[test]
fn what_the_array_lists_no_more_is_not_waited_for() {
    let mut world = registered(3);
    world.leaves("b");
    world.lose("c");
    assert_eq!(world.order(out(OutAction::Clear, KEY, NONE)), Some(Outcome::Good));
    assert_eq!(world.rig.map.reservation(), []);
    // Another host takes the key that was the guest's.
    world.array.out(OTHER, out(OutAction::RegisterAndIgnore, NONE, KEY));
    assert_eq!(reads(&world), [KEY]);
}
