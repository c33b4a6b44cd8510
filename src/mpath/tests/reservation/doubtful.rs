//! What the array says and does not say: registrations that several paths have
//! in common, and what came of a command that was lost.

use super::*;
use crate::mpath::reservation::Registration;

/// An array that registers an initiator port once, by whatever target port.
fn of_one_registration(paths: usize) -> World {
    let mut world = World::new(paths);
    world.per_initiator = true;
    world.other_registers();
    world
}

/// The other paths vouch for nothing there: what they say they have is what the
/// returning path has just registered.
#[test]
fn a_guest_fenced_while_a_path_returns_stays_so_where_all_paths_have_one_registration() {
    let returns = |fault| {
        let mut world = of_one_registration(2);
        assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
        world.rig.fail("b");
        world.back("b");
        let first = world.count + 1;
        world.fault = fault;
        world.run();
        (first..=world.count, world)
    };
    let (commands, world) = returns(None);
    assert_eq!(world.key(), Some(KEY));
    for at in commands {
        for fault in [Fault::Fenced, Fault::Cleared] {
            let (_, mut world) = returns(Some((at, fault)));
            world.rig.saw("a", PathVerdict::Conflict);
            world.run();
            world.all_return();
            assert_eq!(world.key(), None, "{fault:?} at {at}");
            assert!(!world.array.keys.contains_key("a"), "{fault:?} at {at}");
        }
    }
}

#[test]
fn a_registration_of_unknown_end_does_not_cost_the_other_paths_the_one_they_have_in_common() {
    for fault in [Fault::Before, Fault::After] {
        for paths in [2, 3] {
            let mut world = of_one_registration(paths);
            world.fault = Some((1, fault));
            let anyhow = out(OutAction::RegisterAndIgnore, NONE, KEY);
            assert_eq!(world.order(anyhow), Some(Outcome::Good));
            world.all_return();
            assert_eq!(world.key(), Some(KEY), "{fault:?}, {paths} paths");
            assert_eq!(world.array.keys.get("a"), Some(&KEY), "{fault:?}, {paths} paths");
            assert_eq!(world.rig.attentions, []);
        }
    }
}

/// A path may have been registered late and has left; the one whose
/// registration is listed has just returned.
#[test]
fn a_path_that_joins_does_not_take_anothers_registration_for_one_that_came_too_late() {
    let mut world = World::new(2);
    world.other_registers();
    world.fault = Some((1, Fault::Before));
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.leaves("a");
    world.rig.fail("b");
    world.rig.add("c").expect("joins");
    // READ KEYS, and a test that finds that it is not registered.
    world.one();
    world.one();
    world.back("b");
    world.run();
    world.all_return();
    assert_eq!(world.key(), Some(KEY));
    for name in ["b", "c"] {
        assert_eq!(world.array.keys.get(name), Some(&KEY), "{name}");
        assert!(world.in_table(name), "{name}");
    }
    assert_eq!(world.rig.attentions, []);
}

/// The array has changed nothing since the first path was found to be registered.
#[test]
fn the_first_paths_registration_is_not_taken_for_the_second_ones_that_was_lost() {
    let mut world = World::new(3);
    world.give(register(NONE, KEY));
    // By a; READ KEYS; b's test, which finds that it is not registered.
    world.one();
    world.one();
    world.one();
    world.rig.fail("a");
    world.fault = Some((world.count + 1, Fault::Before));
    world.run();
    assert_eq!(world.last(), Some(Outcome::Good));
    assert!(world.in_table("c"));
    assert_eq!(world.array.keys.get("c"), Some(&KEY));
    world.all_return();
    assert_eq!(world.key(), Some(KEY));
    assert_eq!(world.rig.attentions, []);
}

/// Nobody waits for the order any more, and the LU has carried it out.
#[test]
fn a_reservation_that_was_made_unheard_is_found_by_the_next_path() {
    let mut world = World::new(2);
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.rig.fail("b");
    world.fault = Some((world.count + 1, Fault::After));
    assert_eq!(world.order(reserve(EX)), None);
    world.rig.event(Event::Withdrawn { order: OrderId(2) });
    assert_eq!(world.array.held, Some((Some("a"), EX)));
    world.leaves("a");
    world.back("b");
    world.run();
    assert_eq!(world.facts().held, Some(EX));
    assert_eq!(world.array.held, Some((Some("b"), EX)), "or the guest's own would conflict");
    assert!(world.in_table("b"));
}

#[test]
fn a_guest_that_reserves_what_it_holds_by_another_path_is_told_that_it_does() {
    let mut world = World::new(2);
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    // As by an order that was lost.
    world.array.reserve("b", RO);
    world.rig.fail("b");
    assert_eq!(world.order(reserve(RO)), Some(Outcome::Good));
    assert_eq!(world.facts().held, Some(RO));
}

#[test]
fn what_a_path_took_that_leaves_before_it_was_checked_brings_no_fenced_guest_back() {
    let mut world = World::new(2);
    world.other_registers();
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.rig.add("c").expect("joins");
    // READ KEYS, a test that finds that it is not registered, and another path that is.
    world.one();
    world.one();
    world.one();
    world.fenced = true;
    world.array.out(OTHER, out(OutAction::Preempt, OTHERS, KEY).of_type(RO));
    // REGISTER AND IGNORE EXISTING KEY.
    world.one();
    assert_eq!(world.array.keys.get("c"), Some(&KEY));
    world.leaves("c");
    world.run();
    world.rig.saw("a", PathVerdict::Conflict);
    world.run();
    world.all_return();
    assert_eq!(world.key(), None);
    for name in ["a", "b"] {
        assert_eq!(world.array.keys.get(name), None, "{name}");
    }
}

/// Of a guest that has changed its key, and leaves.
#[test]
fn a_reservation_of_all_registrants_does_not_outlive_the_guest_by_keys_that_it_had_before() {
    let mut world = World::new(3);
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.leaves("c");
    assert_eq!(world.order(register(KEY, NEXT)), Some(Outcome::Good));
    let held = out(OutAction::Reserve, NEXT, NONE).of_type(AR);
    assert_eq!(world.order(held), Some(Outcome::Good));
    assert_eq!(world.order(register(NEXT, NONE)), Some(Outcome::Good));
    assert_eq!(world.array.held, None);
    assert_eq!(world.array.keys.len(), 0, "{:?}", world.array.keys);
}

/// The path is in use again, and still at the command that it did not answer.
#[test]
fn an_order_that_waits_for_a_path_that_is_at_another_command_keeps_no_timer_busy() {
    let mut world = World::that_queues_for_20_s();
    world.give(out(OutAction::Clear, KEY, NONE));
    let (path, job, ask) = world.rig.asks.remove(0);
    for _ in 0..7 {
        world.rig.pass(Duration::from_secs(5));
        world.rig.all_checked(UP);
    }
    assert!(!world.rig.path("a").is_usable());
    world.give(register(NONE, KEY));
    world.back("a");
    assert!(world.in_table("a") && world.rig.asks.is_empty());
    // (A timer that does not help is an error.)
    world.rig.pass(Duration::from_secs(24));
    let late = world.array.ask("a", ask);
    world.rig.event(Event::Reserved { path, job, answer: late });
    world.run();
    assert_eq!(world.last(), Some(Outcome::Good));
}

/// Its path leaves while it is being registered again; `fenced`: by then another host
/// has removed the registration, which all paths have in common.
fn left_while_it_registers(fenced: bool) -> World {
    let mut world = of_one_registration(1);
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.rig.fail("a");
    world.back("a");
    world.one();
    if fenced {
        world.fenced = true;
        world.array.out(OTHER, out(OutAction::Preempt, OTHERS, KEY).of_type(RO));
        world.one();
    } else {
        let (path, job, _) = world.rig.asks.remove(0);
        let answer = array::answer(array::conflict());
        world.rig.event(Event::Reserved { path, job, answer });
    }
    let (.., late) = world.rig.asks[0];
    world.leaves("a");
    world.rig.asks.clear();
    if fenced {
        world.array.ask("a", late);
        assert_eq!(world.array.keys.get("a"), Some(&KEY), "late, but it comes");
    }
    world.rig.add("b").expect("joins");
    world.run();
    world
}

#[test]
fn what_came_late_by_a_path_that_has_left_is_not_taken_for_the_next_ones() {
    let world = left_while_it_registers(true);
    assert_eq!((world.key(), world.array.keys.get("a")), (None, None));
    assert_eq!(world.rig.attentions, [SenseCode::REGISTRATIONS_PREEMPTED]);
    assert!(world.in_table("b"));
}

#[test]
fn what_never_came_by_a_path_that_has_left_does_not_cost_the_guest_its_registration() {
    let world = left_while_it_registers(false);
    assert_eq!((world.key(), world.array.keys.get("a")), (Some(KEY), Some(&KEY)));
    assert_eq!(world.rig.attentions, []);
    assert!(world.in_table("b"));
}

/// It was registered after another path that has left was asked to, in vain; nobody has
/// read the keys since.
#[test]
fn a_path_is_not_taken_for_a_ghost_where_nothing_is_known_to_have_changed() {
    let mut world = of_one_registration(2);
    world.fault = Some((1, Fault::Before));
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.leaves("a");
    world.rig.fail("b");
    world.rig.come_back("b");
    world.run();
    assert_eq!((world.key(), world.in_table("b")), (Some(KEY), true));
    assert_eq!(world.rig.attentions, []);
}

/// The same, and no other path's I/O goes by what is registered again in between.
#[test]
fn a_path_that_returns_gives_a_fenced_guest_no_registration_that_all_paths_have() {
    let fenced_at = |at| {
        let mut world = of_one_registration(2);
        assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
        world.rig.fail("b");
        world.back("b");
        world.fault = Some((world.count + at, Fault::Fenced));
        while !world.rig.asks.is_empty() {
            world.one();
            let again = world.fenced && world.array.keys.contains_key("a");
            assert!(!again, "fenced before command {at}, and registered again");
        }
        assert!(world.fenced, "there are {at}");
    };
    (1..=3).for_each(fenced_at);
}

/// What is registered by a path that is away is not the guest's, which another host has
/// fenced before.
#[test]
fn what_came_late_by_one_path_vouches_for_no_other() {
    let mut world = World::new(3);
    world.other_registers();
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.rig.fail("c");
    world.array.unregister("c");
    world.back("c");
    // READ KEYS, a test, a witness, and REGISTER AND IGNORE, which comes late.
    (0..3).for_each(|_| world.one());
    let (path, job, late) = world.rig.asks.remove(0);
    world.fenced = true;
    world.array.out(OTHER, out(OutAction::Preempt, OTHERS, KEY).of_type(RO));
    world.array.ask("c", late);
    world.rig.event(Event::Reserved { path, job, answer: world::gone() });
    assert_eq!(world.array.keys.get("c"), Some(&KEY), "late, but it comes");
    world.rig.fail("b");
    world.rig.come_back("b");
    while !world.rig.asks.is_empty() {
        world.one();
        let again = ["a", "b"].iter().any(|name| world.array.keys.contains_key(name));
        assert!(!again, "registered again");
    }
    world.all_return();
    assert_eq!(world.key(), None);
    assert!(NAMES.iter().all(|name| !world.array.keys.contains_key(name)));
}

/// Nobody could say meanwhile whether the guest still was registered.
#[test]
fn a_path_that_left_with_what_it_was_given_too_late_does_not_bring_it_back() {
    let mut world = World::new(2);
    world.other_registers();
    world.fault = Some((1, Fault::Before));
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.leaves("a");
    world.rig.add("c").expect("joins");
    // READ KEYS, a test, and the only witness is lost.
    world.fault = Some((world.count + 3, Fault::Before));
    (0..3).for_each(|_| world.one());
    world.fenced = true;
    world.array.out(OTHER, out(OutAction::Preempt, OTHERS, KEY).of_type(RO));
    // REGISTER AND IGNORE EXISTING KEY.
    world.one();
    assert_eq!(world.array.keys.get("c"), Some(&KEY));
    world.leaves("c");
    world.rig.asks.clear();
    world.rig.add("c").expect("joins");
    world.run();
    assert!(!world.in_table("c"));
    world.all_return();
    assert_eq!((world.key(), world.array.keys.get("c")), (None, None));
    assert_eq!(world.rig.attentions, [SenseCode::REGISTRATIONS_PREEMPTED]);
}

/// Which is one change: to fence the guest and to register the path late would be two.
#[test]
fn another_host_that_leaves_does_not_fence_a_guest_whose_path_may_have_been_registered_late() {
    let mut world = World::new(1);
    world.other_registers();
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.rig.fail("a");
    world.rig.add("b").expect("joins");
    // READ KEYS, a test, REGISTER AND IGNORE EXISTING KEY.
    world.fault = Some((world.count + 3, Fault::Before));
    world.run();
    for name in ["a", "b"] {
        world.leaves(name);
    }
    world.array.out(OTHER, out(OutAction::RegisterAndIgnore, NONE, NONE));
    world.rig.add("a").expect("joins");
    world.run();
    assert_eq!((world.key(), world.in_table("a")), (Some(KEY), true));
    assert_eq!(world.rig.attentions, []);
}

/// It had released it by a command that was lost; or another host had cleared
/// everything, and the guest has registered another key.
#[test]
fn a_guest_that_preempts_itself_and_holds_nothing_any_more_is_not_told_that_it_was_fenced() {
    for cleared in [false, true] {
        let mut world = World::new(2);
        world.other_registers();
        assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
        assert_eq!(world.order(reserve(RO)), Some(Outcome::Good));
        world.array.held = None;
        world.fenced = true;
        let mut key = KEY;
        if cleared {
            world.array.out(OTHER, out(OutAction::Clear, OTHERS, NONE));
            key = NEXT;
            let anew = out(OutAction::RegisterAndIgnore, NONE, key);
            assert_eq!(world.order(anew), Some(Outcome::Good));
        }
        let own = out(OutAction::Preempt, key, key).of_type(RO);
        assert_eq!(world.order(own), Some(Outcome::Good));
        assert_eq!((world.key(), world.array.keys.get("a")), (None, None));
        assert_eq!(world.rig.attentions, [], "it was its own doing");
    }
}

/// One path may have been registered late and has left, the one that was registered is
/// in doubt for a moment.
#[test]
fn a_guest_is_not_fenced_while_the_path_by_which_it_has_registered_may_return_and_say_so() {
    let mut world = World::new(3);
    world.other_registers();
    world.fault = Some((1, Fault::Before));
    world.give(register(NONE, KEY));
    world.one();
    world.leaves("a");
    world.rig.fail("b");
    world.run();
    assert_eq!((world.last(), world.key()), (Some(Outcome::Good), Some(KEY)));
    world.back("b");
    world.run();
    world.all_return();
    for name in ["b", "c"] {
        assert_eq!(world.array.keys.get(name), Some(&KEY), "{name}");
        assert!(world.in_table(name), "{name}");
    }
    assert_eq!(world.rig.attentions, []);
}

/// Another host held the LU when a path met a conflict, and then the guest took it.
#[test]
fn a_conflict_from_before_the_guest_held_the_lu_makes_no_later_one_the_guests() {
    let mut world = World::new(2);
    world.other_registers();
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.array.reserve(OTHER, EX);
    world.give(preempt(OTHERS, RO));
    world.rig.saw("b", PathVerdict::Conflict);
    world.run();
    assert_eq!(world.last(), Some(Outcome::Good));
    assert!(world.in_table("a") && world.in_table("b"));
    world.rig.fail("b");
    world.array.keys.insert("b", KEY);
    world.array.keys.remove("a");
    world.array.reserve("b", RO);
    world.rig.saw("a", PathVerdict::Conflict);
    assert!(!world.in_table("a"), "the array is asked first");
    world.run();
    assert_eq!((world.in_table("a"), world.array.keys.get("a")), (true, Some(&KEY)));
}

/// It meets a unit attention about where it leads, and is proven at once; another, which
/// may be registered late, has left.
#[test]
fn a_path_that_was_in_doubt_for_a_moment_is_asked_for_its_registration_before_a_new_one() {
    let mut world = World::new(2);
    world.other_registers();
    world.give(register(NONE, KEY));
    let anew = |ask: &Ask| matches!(ask, Ask::Out(o) if o.action == OutAction::RegisterAndIgnore);
    while !world.rig.asks.iter().any(|(_, _, ask)| anew(ask)) {
        world.one();
    }
    world.leaves("b");
    world.rig.asks.clear();
    world.rig.fail("a");
    world.back("a");
    let (path, job, _) = world.rig.asks.remove(0);
    let lost = array::answer(array::check(SenseCode::NEXUS_LOSS));
    world.rig.event(Event::Reserved { path, job, answer: lost });
    assert!(!world.rig.path("a").is_usable());
    world.rig.proven("a", Ok(super::lu()));
    world.rig.add("c").expect("joins");
    world.run();
    world.all_return();
    for name in ["a", "c"] {
        assert_eq!(world.array.keys.get(name), Some(&KEY), "{name}");
        assert!(world.in_table(name), "{name}");
    }
    assert_eq!(world.rig.attentions, []);
}

/// A path that may have been registered late is there, all paths have one registration,
/// and all were away while another host did this and that.
#[test]
fn guest_io_does_not_wait_for_ever_for_what_no_path_can_say() {
    let mut world = of_one_registration(3);
    world.fault = Some((1, Fault::Before));
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    for name in NAMES {
        world.lose(name);
    }
    for to in [NEXT, OTHERS, NONE] {
        world.array.out(OTHER, out(OutAction::RegisterAndIgnore, NONE, to));
    }
    world.fenced = true;
    for _ in 0..2 {
        world.all_return();
    }
    assert!(NAMES.iter().all(|name| world.in_table(name)));
    let key = world.key();
    assert_eq!(world.array.keys.get("a").copied(), key);
}

/// To take its own reservation from a path that is down does not end the guest's
/// registration, be it done or not: if that has gone, somebody else has ended it.
#[test]
fn a_guest_fenced_after_its_reservation_may_have_been_moved_hears_of_it() {
    let mut moved = 0;
    for order in [release(RO), register(KEY, NONE)] {
        for at in 1..10 {
            let mut world = World::new(2);
            world.other_registers();
            assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
            assert_eq!(world.order(reserve(RO)), Some(Outcome::Good));
            let holder = world.facts().holder.expect("known");
            let holder = world.rig.map.path(holder).expect("there").name.clone();
            world.rig.fail(&holder);
            world.fault = Some((world.count + at, Fault::Before));
            if world.order(order) != Some(super::array::lu(Status::BUSY, Sense::EMPTY)) {
                continue;
            }
            moved += 1;
            world.fenced = true;
            world.array.out(OTHER, Out::new(OutAction::Clear, OTHERS, NONE));
            world.all_return();
            assert_eq!(world.rig.attentions, [SenseCode::REGISTRATIONS_PREEMPTED], "{order:?}");
        }
    }
    assert_eq!(moved, 2, "the one command that moves it was lost");
}

/// What was lost with it may have registered that, and not what the array lists.
#[test]
fn a_guest_that_was_changing_its_key_when_its_only_path_left_is_not_taken_for_fenced() {
    let mut world = World::new(1);
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.give(out(OutAction::RegisterAndIgnore, KEY, NEXT));
    world.leaves("a");
    world.rig.asks.clear();
    world.rig.add("a").expect("it returns");
    world.run();
    assert_eq!((world.key(), world.in_table("a")), (Some(KEY), true));
    assert_eq!(world.rig.attentions, []);
}

#[test]
fn a_path_that_was_lost_by_its_last_command_is_not_taken_for_registered() {
    let returns = |fault| {
        let mut world = World::new(2);
        assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
        world.rig.fail("b");
        world.back("b");
        let first = world.count + 1;
        world.fault = fault;
        let mut after_each = Vec::new();
        while !world.rig.asks.is_empty() {
            world.one();
            let path = world.rig.path("b");
            after_each.push((path.is_usable(), path.nexus.registration));
        }
        (first..=world.count, after_each)
    };
    let (commands, after_each) = returns(None);
    assert_eq!(after_each.last(), Some(&(true, Registration::Registered)));
    for at in commands {
        for fault in [Fault::Before, Fault::After, Fault::Lost("b")] {
            let (_, after_each) = returns(Some((at, fault)));
            let wrong = after_each.contains(&(false, Registration::Registered));
            assert!(!wrong, "{fault:?} at {at}: {after_each:?}");
        }
    }
}

#[test]
fn a_reservation_that_another_host_has_ended_is_not_the_guests_though_it_registers_anew() {
    for then in [KEY, NEXT] {
        let mut world = World::new(3);
        assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
        assert_eq!(world.order(reserve(EX)), Some(Outcome::Good));
        // Nobody has heard of that yet.
        world.fault = Some((world.count + 1, Fault::Cleared));
        let anyhow = out(OutAction::RegisterAndIgnore, NONE, then);
        assert_eq!(world.order(anyhow), Some(Outcome::Good));
        world.all_return();
        assert_eq!((world.key(), world.facts().held), (Some(then), None));
        for name in NAMES {
            assert!(world.is_used_well(name), "{name} is not used: {then:?}");
        }
    }
}

/// The guest's last order, of which nobody could say whether it was done, seems to have
/// been: a key that it had at some time is listed.
#[test]
fn a_guest_that_holds_the_lu_by_a_path_unknowingly_meets_no_conflicts_by_the_others() {
    let mut world = World::new(2);
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.array.reserve("a", EX);
    assert_eq!(world.facts().held, None);
    world.rig.saw("b", PathVerdict::Conflict);
    world.run();
    assert_eq!(world.facts().held, Some(EX));
    assert_eq!((world.in_table("a"), world.in_table("b")), (true, false));
}
