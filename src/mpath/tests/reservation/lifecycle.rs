//! Paths that come, go, and lose their registration; the start.

use super::array::{answer, check, lu};
use super::world::gone;
use super::*;
use crate::mpath::reservation::Registration;
use crate::scsi::reservation::Registered;

/// A guest that has registered, and reserved.
pub(super) fn holding(paths: usize) -> World {
    let mut world = World::new(paths);
    world.other_registers();
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::Good));
    assert_eq!(world.order(reserve(RO)), Some(Outcome::Good));
    world.rig.took_changes();
    world
}

pub(super) fn told(world: &mut World) -> Vec<News> {
    let news = |change| match change {
        Change::Reservation(news) => Some(news),
        _ => None,
    };
    world.rig.took_changes().into_iter().filter_map(news).collect()
}

#[test]
fn a_path_that_returns_carries_nothing_before_it_is_registered() {
    let mut world = holding(2);
    world.rig.fail("a");
    world.array.unregister("a");
    world.array.reserve("b", RO);
    world.back("a");
    assert!(world.rig.path("a").is_usable() && world.rig.path("a").is_barred());
    assert!(!world.in_table("a"));
    world.run();
    assert!(world.in_table("a"));
    assert_eq!(world.array.keys["a"], KEY);
    let own = Registered { key: KEY, copies: 2, former: false };
    assert_eq!(world.rig.map.reservation(), [own]);
}

#[test]
fn a_path_that_joins_is_registered_first() {
    let mut world = holding(2);
    world.rig.add("c").expect("joins");
    assert!(!world.in_table("c"));
    world.run();
    assert!(world.in_table("c"));
    assert_eq!(world.array.keys["c"], KEY);
}

#[test]
fn one_that_joins_while_nothing_is_registered_is_asked_nothing() {
    let mut world = World::new(2);
    world.rig.add("c").expect("joins");
    assert!(world.in_table("c") && world.rig.asks.is_empty());
    world.rig.fail("c");
    world.back("c");
    assert!(world.in_table("c") && world.rig.asks.is_empty());
}

#[test]
fn what_the_guest_gives_up_while_a_path_is_away_is_removed_when_it_returns() {
    let mut world = holding(2);
    world.rig.fail("a");
    assert_eq!(world.order(register(KEY, NONE)), Some(Outcome::Good));
    assert_eq!(world.array.held, None, "nobody is left holding");
    world.back("a");
    assert!(!world.in_table("a"));
    world.run();
    assert!(world.in_table("a"));
    assert!(!world.array.keys.contains_key("a"));
}

#[test]
fn one_path_that_has_lost_its_registration_gets_it_again_and_the_guest_sees_nothing() {
    let mut world = holding(3);
    let epoch = world.rig.path("b").epoch;
    world.array.keys.remove("b");
    world.rig.saw("b", PathVerdict::Conflict);
    assert!(!world.in_table("b"), "nothing more goes there meanwhile");
    assert_eq!(world.rig.failures_told(), 0);
    world.run();
    assert!(world.in_table("b"));
    assert!(world.rig.path("b").epoch > epoch);
    assert_eq!(world.array.keys["b"], KEY);
    assert_eq!(told(&mut world), [News::Repaired("b".to_owned())]);
    assert!(world.rig.table().registered);
}

#[test]
fn a_conflict_that_is_anothers_reservation_brings_the_path_back_at_a_later_epoch() {
    let mut world = World::new(2);
    world.other_registers();
    world.order(register(NONE, KEY));
    world.array.reserve(OTHER, EX);
    let epoch = world.rig.path("a").epoch;
    for name in ["a", "b"] {
        world.rig.saw(name, PathVerdict::Conflict);
    }
    assert!(world.rig.table().groups.is_empty());
    assert_eq!(world.rig.table().queueing, Queueing::Hold, "it is just being found out");
    world.run();
    assert!(world.in_table("a") && world.in_table("b"));
    assert!(world.rig.path("a").epoch > epoch);
    assert!(world.rig.table().registered);
    assert!(!told(&mut world).iter().any(|n| matches!(n, News::Repaired(_) | News::Preempted(_))));
}

#[test]
fn a_conflict_by_a_guest_that_was_preempted_is_the_guests_by_every_path_from_then_on() {
    let mut world = holding(2);
    world.fenced = true;
    world.array.out(OTHER, Out::new(OutAction::Preempt, OTHERS, KEY).of_type(RO));
    let epochs = ["a", "b"].map(|name| world.rig.path(name).epoch);
    world.rig.saw("a", PathVerdict::Conflict);
    world.run();
    assert!(!world.rig.table().registered);
    assert_eq!(world.key(), None);
    assert_eq!(world.rig.remembered.last(), Some(&None));
    for (name, epoch) in ["a", "b"].iter().zip(epochs) {
        assert!(world.in_table(name) && world.rig.path(name).epoch > epoch, "{name}");
    }
    assert_eq!(told(&mut world), [News::Preempted(KEY)]);
    assert_eq!(world.rig.attentions, [SenseCode::REGISTRATIONS_PREEMPTED]);
    assert!(!world.array.keys.contains_key("a"));
}

/// Their own words are better than ours, and come once.
#[test]
fn each_path_that_was_registered_may_tell_of_a_preemption_before_it_is_told_for_them() {
    let mut world = holding(3);
    world.fenced = true;
    world.array.out(OTHER, Out::new(OutAction::Preempt, OTHERS, KEY).of_type(RO));
    world.rig.saw("a", PathVerdict::Conflict);
    let mut asked = Vec::new();
    while world.rig.attentions.is_empty() {
        let id = world.rig.asks.first().expect("the guest is told").0;
        asked.push(world.rig.map.path(id).expect("in the map").name.clone());
        world.one();
    }
    assert!(["b", "c"].iter().all(|name| asked.iter().any(|a| a == name)), "{asked:?}");
}

#[test]
fn a_guest_preempted_while_no_path_was_there_is_told_once_by_us() {
    let mut world = holding(2);
    world.rig.fail("a");
    world.rig.fail("b");
    world.fenced = true;
    world.array.out(OTHER, Out::new(OutAction::Preempt, OTHERS, KEY).of_type(RO));
    world.all_return();
    assert_eq!(world.rig.attentions, [SenseCode::REGISTRATIONS_PREEMPTED]);
    assert_eq!(world.key(), None);
    assert!(world.in_table("a") && world.in_table("b"));
    assert_eq!(world.array.keys.len(), 1);
}

#[test]
fn a_guest_preempted_after_a_registration_of_unknown_end_is_told() {
    let mut world = holding(1);
    world.fault = Some((world.count + 1, Fault::After));
    world.order(register(KEY, KEY));
    world.fenced = true;
    world.array.out(OTHER, Out::new(OutAction::Preempt, OTHERS, KEY).of_type(RO));
    world.all_return();
    assert_eq!(world.key(), None);
    assert_eq!(world.rig.attentions, [SenseCode::REGISTRATIONS_PREEMPTED]);
}

#[test]
fn all_paths_away_and_back_lose_nothing() {
    let mut world = holding(3);
    let before = world.array.clone();
    for name in NAMES {
        world.rig.fail(name);
    }
    world.all_return();
    assert_eq!(world.array.keys, before.keys);
    assert_eq!(world.array.held, before.held);
    assert!(NAMES.iter().all(|name| world.in_table(name)));
    assert_eq!(world.rig.attentions, []);
}

/// Another host preempts the guest at each command of a path's return, or one
/// of the paths is lost.
#[test]
fn whatever_happens_while_a_path_is_registered_it_is_all_or_none_in_the_end() {
    for lost in [false, true] {
        let returns = |fault| {
            let mut world = holding(3);
            world.rig.fail("a");
            if lost {
                world.array.unregister("a");
            }
            world.back("a");
            let first = world.count + 1;
            world.fault = fault;
            world.run();
            (first..=world.count, world)
        };
        let (commands, _) = returns(None);
        assert!(commands.clone().count() >= 3);
        for at in commands {
            for fault in [Fault::Fenced, Fault::Cleared] {
                let (_, mut world) = returns(Some((at, fault)));
                world.rig.saw("b", PathVerdict::Conflict);
                world.run();
                world.all_return();
                assert_eq!(world.key(), None, "{fault:?} at {at}");
                assert!(NAMES.iter().all(|name| !world.array.keys.contains_key(name)));
                assert_eq!(world.rig.attentions, [SenseCode::REGISTRATIONS_PREEMPTED]);
            }
            let others = NAMES.map(Fault::Lost);
            for fault in others.into_iter().chain([Fault::Before, Fault::After]) {
                let (_, mut world) = returns(Some((at, fault)));
                world.all_return();
                assert_eq!(world.key(), Some(KEY));
                for name in NAMES {
                    assert_eq!(world.array.keys.get(name), Some(&KEY), "{name}, {fault:?} at {at}");
                    assert!(world.in_table(name));
                }
                assert_eq!(world.rig.attentions, []);
            }
        }
    }
}

#[test]
fn a_registration_that_comes_late_does_not_outlive_a_preempt() {
    let mut world = holding(2);
    world.rig.fail("b");
    world.array.unregister("b");
    world.back("b");
    // READ KEYS, a test, a witness, and REGISTER AND IGNORE, which is lost on its way.
    world.one();
    world.one();
    world.one();
    let (path, job, ask) = world.rig.asks.remove(0);
    assert!(matches!(ask, Ask::Out(o) if o.action == OutAction::RegisterAndIgnore));
    world.fenced = true;
    world.array.out(OTHER, Out::new(OutAction::Preempt, OTHERS, KEY).of_type(RO));
    world.array.ask("b", ask);
    world.rig.event(Event::Reserved { path, job, answer: gone() });
    world.run();
    world.all_return();
    assert!(!world.array.keys.contains_key("b"));
    assert_eq!(world.key(), None);
}

#[test]
fn flags_are_repeated_with_every_registration() {
    let mut world = World::new(2);
    world.give(Out { aptpl: true, all_tg_pt: true, ..register(NONE, KEY) });
    let mut entered = 0;
    while let Some((_, _, ask)) = world.rig.asks.first().copied() {
        if let Ask::Out(out) = ask {
            assert!(out.aptpl && out.all_tg_pt, "{out:?}");
            entered += usize::from(out.action == OutAction::RegisterAndIgnore);
        }
        world.one();
    }
    assert_eq!((world.last(), entered), (Some(Outcome::Good), 1));
}

// --- arrays that refuse, or do not answer ---------------------------------------------

#[test]
fn a_path_that_cannot_be_registered_carries_nothing_is_told_once_and_tried_again() {
    let mut world = holding(2);
    world.rig.fail("b");
    world.array.unregister("b");
    world.back("b");
    let refusal = check(SenseCode::INVALID_FIELD_IN_PARAMETER_LIST);
    for _ in 0..4 {
        while let Some(at) =
            world.rig.asks.iter().position(
                |a| matches!(a.2, Ask::Out(o) if o.action == OutAction::RegisterAndIgnore),
            )
        {
            let (path, job, _) = world.rig.asks.remove(at);
            world.rig.event(Event::Reserved { path, job, answer: answer(refusal) });
        }
        if !world.rig.asks.is_empty() {
            world.one();
        }
    }
    assert!(world.rig.asks.is_empty(), "it rests");
    assert!(world.rig.path("b").is_barred());
    assert_eq!(told(&mut world), [News::Barred("b".to_owned(), refusal)]);
    world.rig.pass(Duration::from_secs(5));
    world.rig.all_checked(UP);
    world.run();
    assert!(world.in_table("b"));
}

#[test]
fn a_passive_path_is_registered_once_its_array_takes_it() {
    use AccessState::{ActiveOptimized, Standby};
    let one = [ActiveOptimized, Standby];
    let policy = Policy { grouping: GroupingPolicy::GroupByPrio, ..Policy::default() };
    let rig = Rig::read(policy, &[("a", alua(1, &one)), ("b", alua(2, &one))]);
    let mut world = World::with(rig);
    world.give(register(NONE, KEY));
    world.one();
    let not_ready = answer(check(SenseCode::NOT_READY_STANDBY));
    while let Some(at) = world.rig.asks.iter().position(|ask| ask.0 == world.rig.id("b")) {
        let (path, job, _) = world.rig.asks.remove(at);
        world.rig.event(Event::Reserved { path, job, answer: not_ready.clone() });
    }
    // (The first command of its admission goes by the other path.)
    while !world.rig.asks.is_empty() {
        if world.rig.asks[0].0 == world.rig.id("b") {
            let (path, job, _) = world.rig.asks.remove(0);
            world.rig.event(Event::Reserved { path, job, answer: not_ready.clone() });
        } else {
            world.one();
        }
    }
    assert_eq!(world.last(), Some(Outcome::Good));
    assert!(world.rig.path("b").is_barred() && world.rig.path("b").is_usable());
    let both = [ActiveOptimized, ActiveOptimized];
    world.rig.readings.retain(|_| false);
    world.rig.saw("a", PathVerdict::Refresh);
    world.rig.prioritized("a", alua(1, &both));
    assert!(!world.in_table("b"));
    world.run();
    assert!(world.in_table("b"));
    assert_eq!(world.array.keys["b"], KEY);
}

#[test]
fn a_path_that_does_not_answer_fails_and_is_asked_nothing_until_it_does() {
    let mut world = World::new(2);
    world.give(register(NONE, KEY));
    let (path, job, ask) = world.rig.asks.remove(0);
    let slow = world.rig.map.path(path).expect("there").name.clone();
    assert_eq!(slow, "a");
    for _ in 0..7 {
        world.rig.pass(Duration::from_secs(5));
        world.rig.all_checked(UP);
    }
    assert!(!world.rig.path("a").is_usable());
    world.run();
    assert_eq!(world.last(), Some(Outcome::Good), "by the other");
    world.back("a");
    assert!(world.rig.asks.is_empty() && !world.in_table("a"), "one command at a time");
    let late = world.array.ask("a", ask);
    world.rig.event(Event::Reserved { path, job, answer: late });
    world.run();
    assert!(world.in_table("a"));
    assert_eq!(world.array.keys.len(), 2);
}

#[test]
fn a_busy_lu_is_the_guests_answer_once_every_path_says_so() {
    let mut world = holding(2);
    world.give(release(RO));
    let busy = lu(Status::BUSY, Sense::EMPTY);
    while !world.rig.asks.is_empty() {
        let (path, job, _) = world.rig.asks.remove(0);
        world.rig.event(Event::Reserved { path, job, answer: answer(busy) });
    }
    assert_eq!(world.last(), Some(busy));
    assert!(world.in_table("a") && world.in_table("b"));
}

// --- holding guest I/O -------------------------------------------------------------------

#[test]
fn guest_io_is_held_while_the_reservation_is_moved_from_a_path_that_is_down() {
    let mut world = holding(3);
    let holder = world.facts().holder.expect("known");
    let holder = world.rig.map.path(holder).expect("there").name.clone();
    world.rig.fail(&holder);
    world.noisy = true;
    assert_eq!(world.order(release(RO)), None, "it waits");
    let table = world.rig.table();
    assert!(table.suspended);
    let generation = table.generation;
    world.rig.event(Event::Quiet { generation: generation - 1 });
    assert!(world.rig.asks.is_empty(), "that was another table");
    world.rig.event(Event::Quiet { generation });
    assert!(!world.rig.asks.is_empty() && world.rig.table().suspended);
    world.run();
    assert_eq!(world.last(), Some(Outcome::Good));
    assert!(!world.rig.table().suspended);
    assert_eq!(world.array.held, None);
    assert!(told(&mut world).iter().any(|n| matches!(n, News::TakenOver(_))));
    world.all_return();
    assert!(NAMES.iter().all(|name| world.in_table(name)));
}

#[test]
fn a_command_that_hangs_keeps_the_guest_waiting_no_longer_than_a_check_may_take() {
    let mut world = holding(2);
    world.noisy = true;
    assert_eq!(world.order(preempt(KEY, EX)), None);
    let before = world.array.clone();
    for _ in 0..7 {
        world.rig.pass(Duration::from_secs(5));
        world.rig.all_checked(UP);
    }
    assert_eq!(world.last(), Some(lu(Status::BUSY, Sense::EMPTY)));
    assert!(!world.rig.table().suspended);
    assert_eq!(world.array, before, "nothing was done");
    world.noisy = false;
    assert_eq!(world.order(preempt(KEY, EX)), Some(Outcome::Good));
}

// --- orders and paths ---------------------------------------------------------------------

#[test]
fn an_order_waits_for_a_path_as_every_request_does() {
    let mut world = World::new(2);
    world.rig.fail("a");
    world.rig.fail("b");
    assert_eq!(world.order(register(NONE, KEY)), None);
    assert_eq!(world.facts().orders, 1);
    world.all_return();
    assert_eq!(world.last(), Some(Outcome::Good));
    assert_eq!(world.array.keys.len(), 2);
}

#[test]
fn without_queueing_it_ends_as_every_request_does() {
    let policy = Policy { no_path_retry: NoPathRetry::Fail, prio: PrioKind::Const, ..multibus() };
    let mut world = World::with(Rig::new(policy, &["a"]));
    world.rig.fail("a");
    assert_eq!(world.order(register(NONE, KEY)), Some(Outcome::NoPath));
}

#[test]
fn one_that_is_withdrawn_does_not_begin() {
    let mut world = World::new(2);
    world.rig.fail("a");
    world.rig.fail("b");
    world.give(register(NONE, KEY));
    world.rig.event(Event::Withdrawn { order: OrderId(1) });
    world.all_return();
    assert_eq!(world.last(), None);
    assert!(world.array.keys.is_empty());
}

#[test]
fn orders_are_carried_out_one_at_a_time() {
    let mut world = World::new(2);
    world.give(register(NONE, KEY));
    world.give(reserve(RO));
    world.give(release(RO));
    assert_eq!(world.rig.asks.len(), 1);
    world.run();
    let ends: Vec<_> = world.rig.answers.iter().map(|(id, end)| (id.0, *end)).collect();
    assert_eq!(ends, [(1, Outcome::Good), (2, Outcome::Good), (3, Outcome::Good)]);
}

#[test]
fn a_key_is_remembered_before_its_registration_is_answered() {
    let mut map = Multipath::new(super::lu(), Policy { prio: PrioKind::Const, ..multibus() });
    let mut fx = Effects::new();
    map.add_path(Time(0), new_path("a"), &mut fx).expect("joins");
    let out = Out { aptpl: true, ..register(NONE, KEY) };
    map.handle(Time(0), Event::Ordered { order: OrderId(1), out }, &mut fx);
    let asked = |fx: &Effects| match fx.last() {
        Some(Effect::Reserve { path, job, .. }) => (*path, *job),
        other => panic!("{other:?}"),
    };
    let (path, job) = asked(&fx);
    fx.clear();
    let answer = answer(Outcome::Good);
    map.handle(Time(0), Event::Reserved { path, job, answer }, &mut fx);
    let known = Remembered { key: KEY, aptpl: true, all_tg_pt: false };
    let at = |wanted: &Effect| fx.iter().position(|e| e == wanted);
    let remembered = at(&Effect::Remember(Some(known))).expect("remembered");
    let answered = at(&Effect::Answer { order: OrderId(1), outcome: Outcome::Good });
    assert!(remembered < answered.expect("answered"));
}

// --- the start ------------------------------------------------------------------------------

/// A map that is told at its start what an earlier process remembers.
fn started(array: impl FnOnce(&mut Array)) -> World {
    let mut rig = Rig::new(Policy { prio: PrioKind::Const, ..multibus() }, &[]);
    let known = Remembered { key: KEY, aptpl: false, all_tg_pt: false };
    rig.with(|map, now, fx| map.recall(now, known, fx));
    for name in ["a", "b"] {
        rig.add(name).expect("joins");
    }
    let mut world = World::with(rig);
    world.other_registers();
    array(&mut world.array);
    assert!(world.rig.table().groups.is_empty(), "nothing before the array has been asked");
    assert_eq!(world.rig.table().queueing, Queueing::Hold);
    world.run();
    world
}

#[test]
fn at_the_start_the_array_says_what_the_guest_has() {
    let world = started(|array| {
        array.keys.insert("a", KEY);
        array.reserve("a", EX);
    });
    assert_eq!(world.facts().held, Some(EX));
    assert_eq!(world.key(), Some(KEY));
    assert!(world.is_used_well("a") && world.is_used_well("b"));
    assert_eq!(world.array.keys["b"], KEY);
    assert_eq!(world.rig.attentions, []);
}

#[test]
fn a_guest_that_was_preempted_while_the_daemon_was_away_is_told() {
    let mut world = started(|_| ());
    assert_eq!(told(&mut world), [News::Preempted(KEY)], "the administrator, too");
    assert_eq!(world.key(), None);
    assert!(world.in_table("a") && world.in_table("b"));
    assert_eq!(world.rig.attentions, [SenseCode::REGISTRATIONS_PREEMPTED]);
    assert_eq!(world.rig.remembered, [None]);
    assert_eq!(world.array.keys.len(), 1, "nothing is registered again");
}

#[test]
fn a_key_mistyped_by_an_administrator_removes_no_registration() {
    let mut world = World::new(2);
    for path in ["a", "b"] {
        world.array.keys.insert(path, KEY);
    }
    for (key, found) in [(NEXT, None), (KEY, Some(KEY))] {
        let given = Remembered { key, aptpl: false, all_tg_pt: false };
        world.rig.with(|map, now, fx| map.recall(now, given, fx));
        world.run();
        assert_eq!(world.key(), found);
        assert!(["a", "b"].iter().all(|path| world.array.keys[path] == KEY));
        assert!(world.in_table("a") && world.in_table("b"));
    }
}

#[test]
fn what_is_known_is_shown() {
    let mut world = World::new(2);
    assert_eq!(world.facts(), crate::mpath::reservation::Facts::default());
    world.order(register(NONE, KEY));
    world.order(reserve(RO));
    let facts = world.rig.map.topology().reservation;
    assert_eq!(facts.registered.map(|r| r.key), Some(KEY));
    assert_eq!((facts.held, facts.holder), (Some(RO), Some(world.rig.id("a"))));
    assert_eq!(world.rig.path("b").registration(), Registration::Registered);
    let news = [News::Registered(KEY), News::Reserved(RO)];
    assert_eq!(told(&mut world), news);
    world.order(register(KEY, NONE));
    assert_eq!(told(&mut world), [News::Unregistered]);
    assert_eq!(world.rig.map.reservation(), []);
}

#[test]
fn a_queue_thread_that_has_the_answer_to_an_order_has_its_table() {
    let mut world = World::new(1);
    world.give(register(NONE, KEY));
    let (path, job, ask) = world.rig.asks.remove(0);
    let answer = world.array.ask("a", ask);
    let mut fx = Vec::new();
    world.rig.map.handle(world.rig.now, Event::Reserved { path, job, answer }, &mut fx);
    let at = |which: fn(&Effect) -> bool| fx.iter().position(which).expect("it is there");
    let remembered = at(|effect| matches!(effect, Effect::Remember(Some(_))));
    let table = at(|effect| matches!(effect, Effect::Publish(table) if table.registered));
    let answered = at(|effect| matches!(effect, Effect::Answer { .. }));
    assert!(remembered < answered && table < answered, "{fx:?}");
}

#[test]
fn a_path_in_doubt_whose_command_hangs_is_watched_as_closely_as_before() {
    const SIZES: [(&str, u64); 3] = [("a", 500), ("b", 400), ("c", 300)];
    const STEP: Duration = Duration::from_millis(10);
    let mut world = World::new(3);
    world.order(register(NONE, KEY));
    world.rig.saw("a", PathVerdict::Conflict);
    let hangs = world.rig.asks[0].0;
    let rig = &mut world.rig;
    let hangs = rig.map.path(hangs).expect("in the map").name.clone();
    for (name, _) in SIZES {
        let epoch = rig.path(name).epoch;
        rig.report(name, epoch, capacity_changed());
    }
    // Nobody agrees with another, and no path carries I/O.
    for (name, blocks) in SIZES {
        rig.proven(name, Ok(sized(blocks)));
    }
    let (most, mut looked) = (rig.map.policy.no_path_interval + STEP, rig.now);
    let until = rig.now + rig.map.policy.checker_timeout + Duration::from_secs(2);
    while rig.now < until {
        for (name, blocks) in SIZES {
            if rig.is_checking(name) {
                rig.checked(name, UP);
            }
            if rig.is_proving(name) {
                rig.proven(name, Ok(sized(blocks)));
                looked = if name == hangs { rig.now } else { looked };
            }
        }
        assert!(rig.now.since(looked) <= most, "at {:?}, since {looked:?}", rig.now);
        rig.pass(STEP);
    }
    assert_eq!(rig.path(&hangs).failures, 1, "its command was not answered in time");
}
