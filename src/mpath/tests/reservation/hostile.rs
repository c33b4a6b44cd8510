//! What a hostile reader tried: orders, paths and other hosts in the worst
//! order.

use super::array::{answer, check, conflict, lu};
use super::world::gone;
use super::*;
use crate::mpath::reservation::{Answer, Ask, Registration, Remembered};

/// A guest that has registered, and reserved.
fn holding(paths: usize, kind: Type) -> World {
    let mut world = World::new(paths);
    world.other_registers();
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    assert_eq!(world.order(reserve(kind)), Some(Outcome::Good));
    world.rig.took_changes();
    world
}

/// The answer of the command that is out.
fn say(world: &mut World, said: Answer) {
    let (path, job, _) = world.rig.asks.remove(0);
    world.rig.event(Event::Reserved { path, job, answer: said });
}

#[test]
fn one_that_is_withdrawn_while_its_path_is_lost_does_not_begin_by_the_next() {
    let mut world = World::new(1);
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.give(reserve(RO));
    world.rig.event(Event::Withdrawn { order: OrderId(2) });
    say(&mut world, gone());
    assert!(!world.rig.path("a").is_usable());
    world.all_return();
    assert_eq!(world.array.held, None, "the guest was told that it was aborted");
    assert_eq!(world.last(), None);
    assert_eq!(world.facts().orders, 0);
}

#[test]
fn a_guest_that_leaves_while_its_reservation_cannot_be_moved_is_not_told_that_it_has() {
    let mut world = holding(2, RO);
    let holder = world.facts().holder.expect("known");
    let holder = world.rig.map.path(holder).expect("there").name.clone();
    world.rig.fail(&holder);
    world.noisy = true;
    assert_eq!(world.order(register(KEY, NONE)), None, "guest I/O is out");
    for _ in 0..7 {
        world.rig.pass(Duration::from_secs(5));
        let checks = std::mem::take(&mut world.rig.checks);
        for (path, check) in checks {
            let is_down = world.rig.map.path(path).is_some_and(|p| p.name == holder);
            let verdict = if is_down { crate::mpath::checker::Verdict::Down } else { UP };
            world.rig.event(Event::Checked { path, check, verdict });
        }
        world.run();
    }
    let end = world.last().expect("answered");
    assert!(
        end != Outcome::Good || world.array.held.is_none(),
        "{end:?}, and yet it is reserved: {:?}",
        world.array.held
    );
}

#[test]
fn a_register_that_assumes_no_registration_is_refused_though_some_path_has_none() {
    let mut world = holding(2, RO);
    // By b nothing is registered, and it cannot be.
    world.array.unregister("b");
    world.rig.saw("b", PathVerdict::Conflict);
    let busy = lu(Status::BUSY, Sense::EMPTY);
    while let Some((path, _, _)) = world.rig.asks.first().copied() {
        if world.rig.map.path(path).expect("there").name == "b" {
            say(&mut world, answer(busy));
        } else {
            world.one();
        }
    }
    assert_eq!(world.rig.path("b").registration(), Registration::Unknown);
    assert_eq!(world.order(register(NONE, NEXT)), Some(conflict()));
    assert_eq!(world.key(), Some(KEY));
}

#[test]
fn an_order_waits_no_longer_for_a_path_than_a_request_may() {
    let mut world = World::that_queues_for_20_s();
    world.rig.fail("a");
    assert_eq!(world.order(register(NONE, KEY)), None);
    world.rig.pass(Duration::from_secs(19));
    assert_eq!(world.last(), None);
    world.rig.pass(Duration::from_secs(2));
    assert_eq!(world.last(), Some(Outcome::NoPath));
}

/// A path that takes REGISTER late, after another host has fenced the guest.
#[test]
fn a_guests_own_registration_that_comes_late_does_not_outlive_a_preempt() {
    let mut world = World::new(2);
    world.other_registers();
    world.give(register(NONE, KEY));
    let (slow, job, ask) = world.rig.asks.remove(0);
    // The path hangs; the other does it.
    for _ in 0..7 {
        world.rig.pass(Duration::from_secs(5));
        world.rig.all_checked(UP);
    }
    world.run();
    assert_eq!(world.last(), Some(Outcome::Good));
    // All paths go; another host fences; then the array has the late command.
    world.rig.fail("b");
    world.array.out(OTHER, out(OutAction::Preempt, OTHERS, KEY).of_type(RO));
    world.fenced = true;
    let late = world.array.ask("a", ask);
    world.rig.event(Event::Reserved { path: slow, job, answer: late });
    world.rig.pass(Duration::from_secs(5));
    for (path, check) in std::mem::take(&mut world.rig.checks) {
        if world.rig.map.path(path).is_some_and(|p| p.name == "a") {
            world.rig.event(Event::Checked { path, check, verdict: UP });
        }
    }
    if world.rig.is_proving("a") {
        world.rig.proven("a", Ok(super::super::lu()));
    }
    world.run();
    world.all_return();
    assert_eq!(world.key(), None, "it was fenced");
    assert_eq!(world.array.keys.get("a"), None);
}

/// A world in which the last order of a story is to be given, with a path down.
fn with_down(story: &[Out], down: Option<&str>) -> (World, Array, Out) {
    let (mut world, bare, last) = told(story, 2);
    down.into_iter().for_each(|name| world.rig.fail(name));
    (world, bare, last)
}

/// From a command on the LU is busy, for so many commands. What the guest is
/// told has happened; where it is told BUSY it may say the same again.
fn busy_from(story: &[Out], down: Option<&str>, at: usize, times: usize) {
    let words = format!("busy {times} times from {at} on, {down:?} is down, {story:#?}");
    let (mut world, mut bare, last) = with_down(story, down);
    let expected = bare.out(GUEST, last);
    world.fault = Some((at, Fault::Busy(times)));
    let mut ended = world.order(last).expect(&words);
    world.fault = None;
    world.all_return();
    if ended == lu(Status::BUSY, Sense::EMPTY) {
        ended = world.order(last).expect(&words);
    }
    assert_eq!(ended, expected, "{words}");
    assert_eq!(world.differs_from(&bare), None, "{words}");
}

#[test]
fn a_busy_lu_has_done_what_the_guest_is_told() {
    for story in stories() {
        for down in [None, Some("a"), Some("b")] {
            let (mut world, _, last) = with_down(&story, down);
            let first = world.count + 1;
            world.order(last);
            for at in first..=world.count {
                for times in [1, 2, 3, 1000] {
                    busy_from(&story, down, at, times);
                }
            }
        }
    }
}

/// After a live migration: what the guest has is registered by another host's
/// ports, and an administrator says which key it is.
#[test]
fn a_guest_that_has_moved_here_is_registered_here_once_its_key_is_told() {
    let mut world = World::new(2);
    world.array.out("old host", register(NONE, KEY));
    world.array.reserve("old host", RO);
    let known = Remembered { key: KEY, aptpl: true, all_tg_pt: false };
    world.rig.with(|map, now, fx| map.recall(now, known, fx));
    world.run();
    for name in ["a", "b"] {
        assert!(world.in_table(name));
        assert_eq!(world.array.keys.get(name), Some(&KEY));
    }
    assert_eq!(world.facts().held, Some(RO));
    assert_eq!(world.rig.attentions, []);
    assert_eq!(world.order(release(RO)), Some(Outcome::Good));
    assert_eq!(world.array.held, None);
    assert_eq!(world.array.keys.get("old host"), None);
    assert_eq!(world.array.keys.len(), 2);
}

/// The prkeys file was lost.
#[test]
fn a_guest_that_nobody_knows_to_be_registered_leaves_by_every_path() {
    for order in [register(KEY, NONE), out(OutAction::RegisterAndIgnore, NONE, NONE)] {
        let mut world = World::new(3);
        for name in NAMES {
            world.array.out(name, register(NONE, KEY));
        }
        assert_eq!(world.order(order), Some(Outcome::Good));
        assert!(world.array.keys.is_empty(), "{:?}", world.array);
        assert_eq!(world.key(), None);
        assert!(NAMES.iter().all(|name| world.in_table(name)));
    }
}

/// After a start the engine has not seen the guest register; its paths come and
/// go all the same.
#[test]
fn what_was_registered_before_the_start_is_looked_after_as_what_came_later() {
    let policy = Policy { prio: PrioKind::Const, ..multibus() };
    let mut world = World::with(Rig::new(policy, &[]));
    for name in ["a", "b"] {
        world.array.out(name, register(NONE, KEY));
    }
    let known = Remembered { key: KEY, aptpl: false, all_tg_pt: false };
    world.rig.with(|map, now, fx| map.recall(now, known, fx));
    for name in ["a", "b"] {
        world.rig.add(name).expect("joins");
    }
    world.run();
    assert!(world.in_table("a") && world.in_table("b"));
    world.rig.fail("a");
    world.array.unregister("a");
    world.rig.come_back("a");
    assert!(!world.in_table("a"), "its registration is gone");
    world.run();
    assert!(world.in_table("a"));
    assert_eq!(world.array.keys["a"], KEY);
}

/// A key is changed by the holder; before the others follow, that and the next
/// path are lost.
#[test]
fn a_guest_that_changes_its_key_while_two_paths_go_carries_on_by_the_third() {
    for kind in [EX, RO] {
        let mut world = holding(3, kind);
        let holder = world.facts().holder.expect("known");
        let holder = world.rig.map.path(holder).expect("there").name.clone();
        let holder = NAMES.into_iter().find(|name| *name == holder).expect("one of ours");
        world.give(register(KEY, NEXT));
        while let Some((_, _, ask)) = world.rig.asks.first() {
            if matches!(ask, Ask::Out(out) if out.action == OutAction::RegisterAndIgnore) {
                world.lose(holder);
                say(&mut world, gone());
                break;
            }
            world.one();
        }
        world.run();
        assert_eq!(world.last(), Some(Outcome::Good));
        let used: Vec<_> = NAMES.into_iter().filter(|name| world.in_table(name)).collect();
        assert_eq!(used.len(), 1, "the third, {kind:?}");
        assert_eq!(world.array.keys[used[0]], NEXT);
        world.all_return();
        assert!(NAMES.iter().all(|name| world.is_used_well(name)), "{kind:?}");
        assert!(world.array.held.is_some_and(|held| held.1 == kind));
    }
}

/// A REGISTER is lost on its way by one path, and done by another, in an array
/// that has one registration for all ports: that is the guest's.
#[test]
fn a_guest_is_not_fenced_by_the_path_whose_registration_was_lost_on_its_way() {
    let mut world = World::new(2);
    world.per_initiator = true;
    world.other_registers();
    world.fault = Some((1, Fault::Before));
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.lose("b");
    world.rig.come_back("a");
    world.run();
    world.all_return();
    assert_eq!(world.key(), Some(KEY));
    assert_eq!(world.array.keys.get("a"), Some(&KEY));
    assert!(world.in_table("a") && world.in_table("b"));
    assert_eq!(world.rig.attentions, []);
}

/// The path that is registered has a unit attention about where it leads; the
/// other has returned meanwhile.
#[test]
fn a_conflict_by_a_path_that_is_not_registered_yet_is_not_the_guests() {
    let mut world = holding(2, AR);
    world.noisy = true;
    world.rig.fail("b");
    world.array.unregister("b");
    let last = preempt(NONE, RO);
    world.give(last);
    world.run();
    world.rig.come_back("b");
    let generation = world.rig.table().generation;
    world.rig.event(Event::Quiet { generation });
    assert!(matches!(world.rig.asks[0], (_, _, Ask::Out(out)) if out == last));
    say(&mut world, answer(check(SenseCode::NEXUS_LOSS)));
    world.noisy = false;
    world.run();
    assert_eq!(world.last(), Some(lu(Status::BUSY, Sense::EMPTY)), "it may be sent again");
    world.all_return();
    assert_eq!(world.key(), Some(KEY));
    assert_eq!(world.order(last), Some(Outcome::Good));
}

#[test]
fn an_order_waits_for_the_end_of_a_transition_as_every_command_does() {
    let states = [crate::scsi::alua::AccessState::ActiveOptimized; 2];
    let policy = Policy { grouping: GroupingPolicy::GroupByTpg, ..Policy::default() };
    let paths = [("a", alua(1, &states)), ("b", alua(2, &states))];
    let mut world = World::with(Rig::read(policy, &paths));
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.give(reserve(RO));
    while !world.rig.asks.is_empty() {
        say(&mut world, answer(check(SenseCode::NOT_READY_TRANSITIONING)));
    }
    assert_eq!((world.last(), world.facts().orders), (None, 1));
    assert_eq!(world.array.held, None);
    world.rig.prioritized("b", alua(2, &states));
    world.run();
    assert_eq!(world.last(), Some(Outcome::Good));
    assert!(world.array.held.is_some());
}

/// It is told that it has preempted the other; then its path goes before that is
/// read, and it is fenced by a third.
#[test]
fn a_guest_that_is_fenced_before_its_own_preempt_is_looked_at_hears_of_it() {
    let mut world = holding(1, RO);
    world.give(preempt(OTHERS, RO));
    world.one();
    world.one();
    say(&mut world, gone());
    assert_eq!(world.last(), Some(Outcome::Good));
    world.fenced = true;
    world.array.unregister("a");
    world.all_return();
    assert_eq!(world.key(), None);
    assert_eq!(world.rig.attentions, [SenseCode::REGISTRATIONS_PREEMPTED]);
}

#[test]
fn a_clear_that_was_lost_is_not_taken_for_done_while_another_host_is_registered() {
    let mut world = holding(2, RO);
    world.fenced = true;
    world.array.out(OTHER, out(OutAction::Preempt, OTHERS, KEY).of_type(RO));
    world.give(out(OutAction::Clear, KEY, NONE));
    say(&mut world, gone());
    world.run();
    assert!(is_ambiguous(world.last().expect("it is answered")));
    world.all_return();
    assert_eq!(world.array.keys.get(OTHER), Some(&OTHERS));
    assert_eq!(world.key(), None);
}

/// Its own path is lost with an order, and the only other is not registered yet.
#[test]
fn a_register_that_meets_a_path_that_is_not_registered_yet_is_not_refused_for_it() {
    for to in [KEY, NEXT] {
        let mut world = World::new(2);
        assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
        world.rig.fail("b");
        world.array.unregister("b");
        world.give(reserve(RO));
        world.rig.come_back("b");
        // Between two orders: the second finds both.
        world.give(register(KEY, to));
        while world.last().is_none() {
            let (.., ask) = world.rig.asks[0];
            let by = world.rig.map.path(world.rig.asks[0].0).expect("there").name.clone();
            match ask {
                Ask::Out(o)
                    if o.action == OutAction::Register && by == "a" && o.action_key == to =>
                {
                    say(&mut world, gone());
                    break;
                }
                _ => world.one(),
            }
        }
        world.run();
        world.all_return();
        let ended = world.last().expect("it is answered");
        assert_ne!(ended, conflict(), "{to:?}");
    }
}

/// What is told to remove a registration says RESERVATION CONFLICT, and has it yet.
#[test]
fn a_path_that_does_not_let_its_registration_be_removed_carries_nothing() {
    let mut world = holding(2, RO);
    world.rig.fail("b");
    assert_eq!(world.order(register(KEY, NONE)), Some(Outcome::Good));
    world.rig.come_back("b");
    say(&mut world, answer(conflict()));
    world.run();
    assert!(!world.in_table("b"));
    world.all_return();
    assert!(world.in_table("b"));
    assert_eq!(world.array.keys.get("b"), None);
}

/// Another host has fenced the guest, and holds for all registrants what the guest
/// asks for by a path that is lost.
#[test]
fn a_fenced_guest_is_not_told_that_it_reserves_what_all_registrants_hold() {
    let mut world = holding(2, RO);
    world.fenced = true;
    world.array.out(OTHER, out(OutAction::Preempt, OTHERS, KEY).of_type(AR));
    world.give(reserve(AR));
    say(&mut world, answer(conflict()));
    say(&mut world, gone());
    world.run();
    world.all_return();
    let ended = world.last().expect("it is answered");
    assert_ne!(ended, Outcome::Good);
    assert_eq!(world.key(), None);
}

/// The path that is registered is lost with a RELEASE of what nobody holds, and the
/// only other is not registered yet.
#[test]
fn a_release_that_meets_a_path_that_is_not_registered_yet_is_not_refused_for_it() {
    let mut world = World::new(2);
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.rig.fail("b");
    world.array.unregister("b");
    world.give(release(RO));
    world.rig.come_back("b");
    world.one();
    say(&mut world, gone());
    world.run();
    world.all_return();
    let ended = world.last().expect("it is answered");
    assert_ne!(ended, conflict());
    assert_eq!(world.key(), Some(KEY));
}

/// What it would have lost by it, another host had taken before.
#[test]
fn a_fenced_guest_is_not_told_that_it_has_preempted_itself() {
    for kind in [None, Some(RO), Some(EX), Some(AR)] {
        for lost in [false, true] {
            let mut world = World::new(2);
            world.other_registers();
            assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
            if let Some(kind) = kind {
                assert_eq!(world.order(reserve(kind)), Some(Outcome::Good));
            }
            world.fenced = true;
            world.array.out(OTHER, out(OutAction::Preempt, OTHERS, KEY).of_type(EX));
            world.fault = Some((world.count + 1 + usize::from(lost), Fault::Before));
            assert_eq!(world.order(preempt(KEY, AR)), Some(conflict()), "{kind:?}");
            assert_eq!(world.rig.attentions, [SenseCode::REGISTRATIONS_PREEMPTED]);
            assert_eq!(world.key(), None);
        }
    }
}

/// One path may have been registered late and stays away, the one that was registered
/// has left, and another host has done this and that: whose registration is listed nobody
/// can say.
#[test]
fn guest_io_does_not_wait_for_ever_for_a_path_that_may_have_been_registered_late() {
    let mut world = World::new(2);
    world.fault = Some((1, Fault::Before));
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    world.leaves("b");
    world.other_registers();
    world.array.out(OTHER, out(OutAction::RegisterAndIgnore, NONE, NONE));
    world.rig.add("c").expect("joins");
    let pass = |world: &mut World, seconds| {
        for _ in 0..seconds {
            world.rig.pass(Duration::from_secs(1));
            if world.rig.is_checking("c") {
                world.rig.checked("c", UP);
            }
            world.run();
        }
    };
    pass(&mut world, 25);
    assert_eq!((world.key(), world.in_table("c")), (Some(KEY), false));
    world.fenced = true;
    pass(&mut world, 10);
    assert_eq!((world.key(), world.in_table("c")), (None, true));
    assert_eq!(world.rig.attentions, [SenseCode::REGISTRATIONS_PREEMPTED]);
}

#[test]
fn a_guest_that_is_cleared_while_it_registers_its_key_again_is_not_thought_to_hold_anything() {
    for kind in [RO, EX, AR] {
        let mut world = holding(2, kind);
        world.fenced = true;
        world.give(out(OutAction::RegisterAndIgnore, NONE, KEY));
        world.array.out(OTHER, out(OutAction::Clear, OTHERS, NONE));
        world.run();
        assert_eq!((world.last(), world.key()), (Some(Outcome::Good), Some(KEY)));
        assert_eq!(world.facts().held, None);
        assert!(world.in_table("a") && world.in_table("b"));
    }
}

/// The holder is down, and what it has by the old key cannot be taken from it at first.
#[test]
fn a_reservation_by_the_key_that_a_guest_had_before_is_still_the_guests() {
    let next = |action, to| out(action, NEXT, to).of_type(RO);
    let orders = [
        (next(OutAction::Reserve, NONE), true),
        (next(OutAction::Release, NONE), false),
        (next(OutAction::Preempt, NEXT), true),
    ];
    for (order, holds) in orders {
        let mut world = holding(2, RO);
        world.rig.fail("a");
        world.give(register(KEY, NEXT));
        while world.last().is_none() {
            match world.rig.asks[0].2 {
                Ask::Out(out) if out.action == OutAction::Preempt && out.key == NEXT => {
                    say(&mut world, answer(lu(Status::BUSY, Sense::EMPTY)));
                }
                _ => world.one(),
            }
        }
        world.run();
        assert_eq!(world.array.held, Some((Some("a"), RO)));
        assert_eq!(world.order(order), Some(Outcome::Good), "{order:?}");
        assert_eq!(world.array.held, holds.then_some((Some("b"), RO)), "{order:?}");
        assert_eq!(world.array.keys.get("b"), Some(&NEXT));
        assert_eq!(world.rig.attentions, []);
    }
}

/// Nothing is reserved when the order is looked at.
#[test]
fn a_guest_that_takes_what_all_registrants_have_held_for_a_moment_uses_no_unregistered_path() {
    for kind in [RO, EX, AR] {
        for after in 0..4 {
            let mut world = World::new(3);
            world.other_registers();
            assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
            world.give(preempt(NONE, kind));
            world.fault = Some((world.count + 1 + after, Fault::Reserved));
            world.run();
            world.all_return();
            let taken = world.array.held.is_some_and(|held| held.0 != Some(OTHER));
            assert_eq!(taken, world.last() == Some(Outcome::Good), "{kind:?} after {after}");
            assert!(NAMES.iter().all(|name| world.is_used_well(name)), "{kind:?} after {after}");
        }
    }
}
