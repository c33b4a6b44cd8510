//! Persistent reservations: that a guest with many paths is told, and has, what
//! a guest with one would; and law 5.

mod alone;
mod array;
mod doubtful;
mod hostile;
mod leaving;
mod left_behind;
mod lifecycle;
mod random;
mod words;
mod world;

use super::*;
use crate::mpath::effect::Effect;
use crate::mpath::reservation::News;
use crate::scsi::reservation::{Key, Out, OutAction, Type};
use crate::scsi::sense::Sense;
use array::Array;
use world::{Fault, GUEST, NAMES, OTHER, World};

const KEY: Key = Key(0xabc);
const NEXT: Key = Key(0xdef);
const OTHERS: Key = Key(0xbad);
const NONE: Key = Key::NONE;
const RO: Type = Type::WriteExclusiveRegistrantsOnly;
const EX: Type = Type::ExclusiveAccess;
const AR: Type = Type::ExclusiveAccessAllRegistrants;

fn out(action: OutAction, key: Key, action_key: Key) -> Out {
    Out::new(action, key, action_key)
}

fn register(key: Key, to: Key) -> Out {
    out(OutAction::Register, key, to)
}

fn typed(action: OutAction, action_key: Key, kind: Type) -> Out {
    out(action, KEY, action_key).of_type(kind)
}

fn reserve(kind: Type) -> Out {
    typed(OutAction::Reserve, NONE, kind)
}

fn release(kind: Type) -> Out {
    typed(OutAction::Release, NONE, kind)
}

fn preempt(key: Key, kind: Type) -> Out {
    typed(OutAction::Preempt, key, kind)
}

/// Sequences of orders; of each the last is tried with faults.
fn stories() -> Vec<Vec<Out>> {
    let known = register(NONE, KEY);
    let anyhow = out(OutAction::RegisterAndIgnore, NONE, KEY);
    let clear = out(OutAction::Clear, KEY, NONE);
    let mut all = vec![
        vec![known],
        vec![anyhow],
        vec![known, known],
        vec![register(NEXT, KEY)],
        vec![register(NONE, NONE)],
        vec![known, register(KEY, NEXT)],
        vec![known, register(KEY, KEY)],
        vec![known, register(NEXT, KEY)],
        vec![known, out(OutAction::RegisterAndIgnore, NONE, NEXT)],
        vec![known, register(KEY, NONE)],
        vec![known, out(OutAction::RegisterAndIgnore, NONE, NONE)],
        vec![known, clear],
        vec![clear],
        vec![reserve(RO)],
        vec![release(RO)],
        vec![known, release(RO)],
        vec![known, preempt(OTHERS, RO)],
        vec![known, preempt(Key(0x77), RO)],
        vec![known, preempt(KEY, RO)],
        vec![known, preempt(NONE, RO)],
        vec![known, reserve(RO), out(OutAction::Reserve, NEXT, NONE).of_type(RO)],
    ];
    for kind in [RO, EX, AR] {
        let held = [known, reserve(kind)];
        let then = [
            reserve(kind),
            reserve(Type::WriteExclusive),
            release(kind),
            release(Type::WriteExclusive),
            register(KEY, NEXT),
            register(KEY, NONE),
            clear,
            preempt(OTHERS, kind),
            typed(OutAction::PreemptAndAbort, OTHERS, kind),
            preempt(KEY, Type::WriteExclusive),
            preempt(NONE, RO),
        ];
        all.push(held.to_vec());
        all.extend(then.map(|last| [&held[..], &[last]].concat()));
    }
    all
}

/// The world and the bare LU with all orders but the last carried out.
fn told(story: &[Out], paths: usize) -> (World, Array, Out) {
    let mut world = World::new(paths);
    let mut bare = Array::default();
    world.other_registers();
    bare.out(OTHER, out(OutAction::RegisterAndIgnore, NONE, OTHERS));
    let (last, before) = story.split_last().expect("an order");
    for order in before {
        let expected = bare.out(GUEST, *order);
        assert_eq!(world.order(*order), Some(expected), "{order:?}");
        assert_eq!(world.differs_from(&bare), None, "{order:?}");
    }
    (world, bare, *last)
}

#[test]
fn each_order_that_holds_guest_io_is_told_when_it_is_quiet() {
    for paths in [1, 3] {
        let mut world = World::new(paths);
        assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
        assert_eq!(world.order(reserve(EX)), Some(Outcome::Good));
        // The later ones begin while guest I/O is held for the one before.
        for kind in [RO, EX, RO] {
            world.give(preempt(KEY, kind));
        }
        world.run();
        for order in 3..=5 {
            assert_eq!(world.ended(order), Some(Outcome::Good), "order {order}, {paths} paths");
        }
    }
}

fn is_ambiguous(outcome: Outcome) -> bool {
    outcome == array::check(SenseCode::IO_PROCESS_TERMINATED)
}

#[test]
fn every_order_ends_as_by_one_path() {
    for story in stories() {
        for paths in 1..=3 {
            let (mut world, mut bare, last) = told(&story, paths);
            let expected = bare.out(GUEST, last);
            assert_eq!(world.order(last), Some(expected), "{story:#?}");
            assert_eq!(world.differs_from(&bare), None, "{story:#?}");
            assert_eq!(world.rig.attentions, []);
            assert!(!world.rig.table().suspended);
            world.all_return();
            assert_eq!(world.differs_from(&bare), None, "{story:#?}");
        }
    }
}

/// Commands that the last order of a story takes.
fn commands(story: &[Out], paths: usize) -> std::ops::RangeInclusive<usize> {
    let (mut world, _, last) = told(story, paths);
    let first = world.count + 1;
    world.order(last);
    first..=world.count
}

fn with_fault(story: &[Out], paths: usize, at: usize, fault: Fault) {
    let (mut world, before, last) = told(story, paths);
    let mut after = before.clone();
    let expected = after.out(GUEST, last);
    world.fault = Some((at, fault));
    let first = world.order(last);
    world.all_return();
    let words = format!("{fault:?} at command {at}, {paths} paths, {story:#?}");
    let ended = first.or(world.last()).unwrap_or_else(|| panic!("not answered: {words}"));
    if is_ambiguous(ended) {
        assert!(paths == 1, "what came of it can be known: {words}");
        let [one, other] = [&before, &after].map(|bare| world.differs_from(bare));
        assert!(one.is_none() || other.is_none(), "{one:?}, {other:?}: {words}");
    } else {
        assert_eq!(ended, expected, "{words}");
        assert_eq!(world.differs_from(&after), None, "{words}");
    }
    assert_eq!(world.rig.attentions, [], "{words}");
    let facts = world.facts();
    assert!(!facts.suspended && !facts.unsure && facts.orders == 0, "{words}");
}

#[test]
fn a_path_lost_at_any_command_changes_nothing_for_the_guest() {
    for story in stories() {
        for paths in 1..=3 {
            for at in commands(&story, paths) {
                with_fault(&story, paths, at, Fault::Before);
                with_fault(&story, paths, at, Fault::After);
            }
        }
    }
}

#[test]
fn any_path_lost_between_two_commands_changes_nothing_for_the_guest() {
    for story in stories() {
        for at in commands(&story, 3) {
            for name in NAMES {
                with_fault(&story, 3, at, Fault::Lost(name));
            }
        }
    }
}

#[test]
fn a_path_that_is_down_from_before_changes_nothing_for_the_guest() {
    for story in stories() {
        for down in NAMES {
            let (mut world, mut bare, last) = told(&story, 3);
            world.rig.fail(down);
            let expected = bare.out(GUEST, last);
            assert_eq!(world.order(last), Some(expected), "{down} is down, {story:#?}");
            world.all_return();
            assert_eq!(world.differs_from(&bare), None, "{down} was down, {story:#?}");
        }
    }
}

#[test]
fn an_array_that_registers_an_initiator_once_for_all_ports_makes_no_difference() {
    for story in stories() {
        let (mut world, mut bare) = (World::new(3), Array::default());
        world.per_initiator = true;
        world.other_registers();
        bare.out(OTHER, out(OutAction::RegisterAndIgnore, NONE, OTHERS));
        for order in &story {
            assert_eq!(world.order(*order), Some(bare.out(GUEST, *order)), "{story:#?}");
            assert_eq!(world.differs_from(&bare), None, "{story:#?}");
        }
        world.rig.fail("a");
        world.all_return();
        assert_eq!(world.differs_from(&bare), None, "{story:#?}");
        assert_eq!(world.rig.attentions, []);
    }
}

#[test]
fn what_an_array_has_lost_is_replaced_by_one_path_and_followed_by_all() {
    for lost in [false, true] {
        let (mut world, mut bare) = (World::new(3), Array::default());
        (world.array.lost, bare.lost) = (lost, lost);
        let order = out(OutAction::ReplaceLost, NONE, KEY).of_type(RO);
        assert_eq!(world.order(order), Some(bare.out(GUEST, order)));
        assert_eq!(world.differs_from(&bare), None);
        assert_eq!(world.facts().held, lost.then_some(RO));
    }
}

#[test]
fn what_the_array_says_of_a_release_of_another_type_is_what_the_guest_hears() {
    for kind in [Type::WriteExclusive, EX, RO, AR] {
        let other = if kind == RO { EX } else { RO };
        let (mut world, mut bare) = (World::new(3), Array::default());
        (world.array.release_conflicts, bare.release_conflicts) = (true, true);
        for order in [register(NONE, KEY), reserve(kind), release(other), release(kind)] {
            assert_eq!(world.order(order), Some(bare.out(GUEST, order)), "{order:?}");
            assert_eq!(world.differs_from(&bare), None, "{order:?}");
        }
    }
}

#[test]
fn a_hardware_error_by_one_path_is_made_up_for_by_another() {
    let (mut world, mut bare, last) = told(&[register(NONE, KEY)], 3);
    world.fault = Some((1, Fault::Hardware));
    assert_eq!(world.order(last), Some(bare.out(GUEST, last)));
    world.all_return();
    assert_eq!(world.differs_from(&bare), None);
}

#[test]
fn nobody_brings_back_what_another_host_has_removed() {
    for story in stories() {
        for at in commands(&story, 3) {
            for fault in [Fault::Fenced, Fault::Cleared] {
                let (mut world, _, last) = told(&story, 3);
                world.fault = Some((at, fault));
                world.order(last);
                let words = format!("{fault:?} at command {at}, {story:#?}");
                assert!(world.last().is_some(), "{words}");
                // Once it is noticed, by whatever the guest sends.
                for name in NAMES {
                    if world.rig.table().registered && !world.array.keys.contains_key(name) {
                        world.rig.saw(name, PathVerdict::Conflict);
                        world.run();
                    }
                }
                world.all_return();
                let mut ours = NAMES.map(|name| world.array.keys.get(name).copied()).to_vec();
                ours.dedup();
                assert_eq!(ours, [world.key()], "all or none: {words}");
                assert!(world.rig.attentions.len() <= 1, "it is told once: {words}");
                assert!(NAMES.iter().all(|name| world.is_used_well(name)), "{words}");
            }
        }
    }
}
