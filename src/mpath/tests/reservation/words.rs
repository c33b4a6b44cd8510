//! Conflicts that are the LU's word, how long orders wait, and what an
//! administrator says of keys.

use super::lifecycle::{holding, told};
use super::*;
use crate::mpath::policy::ReservationKey;
use crate::mpath::reservation::Remembered;

// --- conflicts that are the LU's word -------------------------------------------------------

/// A guest that is registered, another host that has the LU for itself, and a
/// conflict by each path that was found to be its word.
fn contested(paths: usize) -> World {
    let mut world = World::new(paths);
    world.other_registers();
    world.order(register(NONE, KEY));
    world.array.reserve(OTHER, EX);
    let asked = world.count;
    conflicts(&mut world, &NAMES[..paths]);
    world.run();
    assert!(world.count <= asked + 4, "for all of them once");
    world
}

fn conflicts(world: &mut World, names: &[&str]) {
    names.iter().for_each(|name| world.rig.saw(name, PathVerdict::Conflict));
}

#[test]
fn a_guest_that_goes_on_meeting_anothers_reservation_costs_one_round_of_questions_a_second() {
    for paths in 1..=3 {
        let mut world = contested(paths);
        let epochs = |world: &World| {
            NAMES[..paths].iter().map(|n| world.rig.path(n).epoch).collect::<Vec<_>>()
        };
        for _ in 0..20 {
            let (asked, before) = (world.count, epochs(&world));
            conflicts(&mut world, &NAMES[..paths]);
            world.run();
            assert_eq!(world.count, asked, "nothing is asked");
            assert!(NAMES[..paths].iter().all(|name| world.in_table(name)), "it is the guest's");
            assert!(before.iter().zip(epochs(&world)).all(|(before, now)| now > *before));
            world.rig.pass(Duration::from_millis(10));
        }
        world.rig.pass(Duration::from_secs(1));
        let asked = world.count;
        conflicts(&mut world, &NAMES[..paths]);
        world.run();
        assert!(world.count > asked, "what was true a second ago is asked again");
    }
}

#[test]
fn a_path_that_loses_its_registration_while_conflicts_are_the_lus_is_repaired_in_a_moment() {
    let mut world = contested(3);
    world.array.held = None;
    world.array.keys.remove("b");
    let asked = world.count;
    conflicts(&mut world, &["b"]);
    assert!(!world.in_table("b") && world.in_table("a"), "the others carry on");
    world.run();
    assert_eq!(world.count, asked, "the others may meet one, too");
    world.rig.pass(Duration::from_millis(100));
    world.run();
    assert!(world.in_table("b"));
    assert_eq!(world.array.keys["b"], KEY);
    assert!(told(&mut world).contains(&News::Repaired("b".to_owned())));
}

#[test]
fn a_guest_preempted_while_conflicts_are_the_lus_is_found_out_about_within_two_seconds() {
    let mut world = contested(2);
    world.fenced = true;
    world.array.out(OTHER, Out::new(OutAction::Preempt, OTHERS, KEY).of_type(EX));
    for _ in 0..20 {
        if world.rig.table().registered {
            conflicts(&mut world, &["a", "b"]);
            world.run();
        }
        world.rig.pass(Duration::from_millis(100));
    }
    assert_eq!(world.key(), None);
    assert!(!world.rig.table().registered);
}

#[test]
fn a_conflict_while_others_are_awaited_does_not_hide_that_the_guest_moved_its_reservation() {
    let mut world = contested(2);
    conflicts(&mut world, &["a"]);
    world.array.held = None;
    // All registrations but the leader's are new after this.
    assert_eq!(world.order(reserve(EX)), Some(Outcome::Good));
    assert_eq!(world.order(preempt(KEY, RO)), Some(Outcome::Good));
    world.rig.pass(Duration::from_millis(100));
    world.run();
    for name in ["a", "b"] {
        assert!(world.in_table(name));
        assert_eq!(world.array.keys[name], KEY, "{name}");
    }
}

#[test]
fn once_the_guest_has_the_reservation_a_conflict_is_looked_into_anew() {
    let mut world = contested(2);
    assert_eq!(world.order(preempt(OTHERS, AR)), Some(Outcome::Good));
    world.rig.saw("a", PathVerdict::Passive);
    world.array.keys.remove("b");
    conflicts(&mut world, &["b"]);
    world.run();
    assert_eq!(world.array.keys.get("b"), Some(&KEY));
    assert!(world.in_table("b"));
}

#[test]
fn conflicts_while_the_guest_reserves_are_not_agreed_to_be_the_lus() {
    let mut world = contested(2);
    world.give(preempt(OTHERS, EX));
    while world.array.held.is_some_and(|held| held.0 == Some(OTHER)) {
        world.one();
    }
    conflicts(&mut world, &["a", "b"]);
    assert!(!world.in_table("a") && !world.in_table("b"), "it may be its own");
    world.run();
    assert_eq!(world.last(), Some(Outcome::Good));
    assert!(NAMES[..2].iter().all(|name| world.is_used_well(name)));
}

// --- how long orders wait -------------------------------------------------------------------

#[test]
fn an_order_without_a_path_fails_when_the_guests_other_commands_do() {
    let policy = Policy { queue_timeout: Some(Duration::from_secs(7)), ..multibus() };
    let policy = Policy { prio: PrioKind::Const, ..policy };
    let mut world = World::with(Rig::new(policy, &NAMES[..2]));
    world.order(register(NONE, KEY));
    ["a", "b"].into_iter().for_each(|name| world.lose(name));
    assert_eq!(world.order(reserve(RO)), None, "it waits");
    world.rig.pass(Duration::from_millis(6900));
    assert_eq!(world.last(), None);
    assert!(
        world
            .rig
            .map
            .next_deadline()
            .is_some_and(|at| at <= world.rig.now + Duration::from_millis(100))
    );
    world.rig.pass(Duration::from_millis(100));
    assert_eq!(world.last(), Some(Outcome::NoPath));
}

#[test]
fn an_order_fails_with_what_is_held_when_no_path_retry_ends() {
    let policy = Policy { no_path_retry: NoPathRetry::Times(3), ..multibus() };
    let policy = Policy { prio: PrioKind::Const, ..policy };
    let mut world = World::with(Rig::new(policy, &NAMES[..1]));
    world.order(register(NONE, KEY));
    world.lose("a");
    assert_eq!(world.order(reserve(RO)), None, "it waits");
    world.rig.pass(Duration::from_millis(14_999));
    assert_eq!(world.last(), None);
    world.rig.pass(Duration::from_millis(1));
    assert_eq!(world.rig.table().queueing, Queueing::Fail);
    assert_eq!(world.last(), Some(Outcome::NoPath), "in the same step");
}

// --- an administrator's words -----------------------------------------------------------------

#[test]
fn a_key_that_is_forgotten_stays_in_the_array_and_no_path_is_registered_or_cleaned_any_more() {
    let mut world = holding(2);
    assert!(world.rig.with(|map, now, fx| map.forget_key(now, fx)));
    world.run();
    assert_eq!((world.key(), world.rig.table().registered), (None, false));
    assert_eq!(world.rig.remembered.last(), Some(&None));
    assert_eq!(told(&mut world), [News::Forgotten]);
    let asked = world.count;
    world.lose("b");
    world.all_return();
    assert_eq!(world.count, asked);
    assert_eq!(world.array.keys["a"], KEY);
    assert!(world.array.held.is_some(), "and what it reserves");
    // An administrator may say it again.
    let again = Remembered { key: KEY, aptpl: false, all_tg_pt: false };
    world.rig.with(|map, now, fx| map.recall(now, again, fx));
    world.run();
    assert_eq!(world.key(), Some(KEY));
    assert_eq!(world.facts().held, Some(RO));
}

#[test]
fn a_key_is_not_forgotten_under_an_order_that_is_being_carried_out() {
    let mut world = holding(2);
    world.give(release(RO));
    assert!(!world.rig.with(|map, now, fx| map.forget_key(now, fx)));
    world.run();
    assert_eq!(world.last(), Some(Outcome::Good));
    assert_eq!(world.key(), Some(KEY));
}

#[test]
fn the_array_is_asked_again_on_request_if_there_is_a_key_to_ask_for() {
    let mut world = World::new(2);
    assert!(!world.rig.with(|map, now, fx| map.ask_again(now, fx)));
    let mut world = holding(2);
    world.fenced = true;
    world.array.out(OTHER, Out::new(OutAction::Clear, OTHERS, NONE));
    assert!(world.rig.with(|map, now, fx| map.ask_again(now, fx)));
    world.run();
    assert_eq!(world.key(), None, "the array has it not");
    assert!(world.in_table("a") && world.in_table("b"));
}

#[test]
fn a_key_that_is_expected_counts_if_the_array_has_it_and_else_nothing_was_said() {
    for there in [true, false] {
        let mut world = World::with(Rig::new(multibus(), &[]));
        if there {
            world.array.out(NAMES[1], register(NONE, KEY));
        }
        let expected = Remembered { key: KEY, aptpl: true, all_tg_pt: false };
        world.rig.with(|map, now, fx| map.expect_key(now, expected, fx));
        for name in &NAMES[..2] {
            world.rig.add(name).expect("joins");
            assert!(!world.in_table(name), "the array is to say first");
        }
        world.run();
        assert_eq!(world.key(), there.then_some(KEY));
        for name in &NAMES[..2] {
            assert!(world.in_table(name));
            assert_eq!(world.array.keys.contains_key(name), there, "{name}");
        }
        assert_eq!(world.rig.attentions, [], "the guest has lost nothing");
    }
}

#[test]
fn under_all_tg_pt_whatever_is_registered_or_given_up_says_so() {
    let policy = Policy { all_tg_pt: true, prio: PrioKind::Const, ..multibus() };
    for per_initiator in [true, false] {
        let mut world = World::with(Rig::new(policy.clone(), &NAMES));
        world.per_initiator = per_initiator;
        for order in [register(NONE, KEY), register(KEY, NEXT), register(NEXT, NONE)] {
            world.give(order);
            while let Some(&(_, _, ask)) = world.rig.asks.first() {
                if let crate::mpath::reservation::Ask::Out(out) = ask {
                    let gives =
                        !out.action_key.is_none() || out == Out { all_tg_pt: true, ..order };
                    assert!(out.all_tg_pt || !gives, "{out:?}");
                }
                world.one();
            }
            assert_eq!(world.last(), Some(Outcome::Good), "{order:?}");
        }
        assert!(world.array.keys.is_empty());
        let kept: Vec<bool> = world.rig.remembered.iter().flatten().map(|r| r.all_tg_pt).collect();
        assert_eq!(kept, [true, true]);
    }
}

#[test]
fn a_reservation_key_is_read_as_multipath_tools_write_it() {
    let read = |text: &str| text.parse::<ReservationKey>();
    let (key, aptpl) = (Key(0x123abc), true);
    assert_eq!(read("file"), Ok(ReservationKey::File));
    assert_eq!(read("0x123abc:aptpl"), Ok(ReservationKey::Key { key, aptpl }));
    assert_eq!(read("123ABC"), Ok(ReservationKey::Key { key, aptpl: false }));
    for nonsense in ["", "0", "0x0", "file:aptpl", "0x123:", "0x12345678123456789", "key"] {
        assert!(read(nonsense).is_err(), "{nonsense}");
    }
}
