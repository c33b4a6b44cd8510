//! Registrations through what happens to paths and arrays, other hosts, and
//! arrays that are odd about it.

use super::reservations::{K1, K2, K3, NONE, out, said};
use super::*;
use crate::scsi::reservation::{Held, Out, OutAction, Type};

const SHARED: Type = Type::WriteExclusiveRegistrantsOnly;

fn foreign(order: Foreign) -> Fault {
    Fault::Foreign { host: 1, order }
}

impl Rig {
    fn refused(&mut self, order: Foreign) -> String {
        self.array.try_inject(self.now, self.a, foreign(order)).unwrap_err().to_string()
    }
}

#[test]
fn a_registration_outlives_its_path_and_comes_back_with_its_name_or_port() {
    let mut rig = Rig::new(small());
    let (a, b) = (rig.a, rig.b);
    rig.register(a, K1);
    rig.register(b, K2);
    rig.reserve(a, SHARED);
    rig.inject(Fault::Cut(CutMode::Before));
    rig.inject(Fault::Plug);
    rig.attentions_on(a);
    assert_eq!(rig.key_of(a), K1, "a nexus loss is none of a registration");
    let was = rig.array.ports(a).unwrap();
    rig.array.remove_nexus(rig.now, a);
    assert_eq!(rig.state().key_of(was), Some(K1));
    let other = rig.array.add_nexus("other");
    assert_eq!(rig.key_of(other), NONE);
    let again = rig.array.connect("a", Plugged::default()).unwrap();
    assert_eq!((rig.array.ports(again), rig.key_of(again)), (Some(was), K1));
    rig.array.remove_nexus(rig.now, again);
    let at = Plugged { port: Some(was.port), ..Plugged::default() };
    let by_port = rig.array.connect("new", at).unwrap();
    assert_eq!(rig.holders(), Some((SHARED, vec![by_port])));
    // The port is taken: another one, and unregistered.
    let late = rig.array.connect("a", Plugged::default()).unwrap();
    assert_eq!(rig.key_of(late), NONE);
}

#[test]
fn paths_between_the_same_ports_share_a_registration_and_its_news() {
    let (mut rig, c) = Rig::with_a_foreigner();
    let a = rig.a;
    let at = Plugged { port: Some(rig.array.ports(a).unwrap().port), ..Plugged::default() };
    let twin = rig.array.connect("twin", at).unwrap();
    let hba = rig.array.connect("hba", Plugged { initiator: 7, ..at }).unwrap();
    rig.register(a, K1);
    assert_eq!([twin, hba, c].map(|path| rig.key_of(path)), [K1, NONE, NONE]);
    rig.register(c, K2);
    rig.good(c, out(OutAction::Clear, K2, NONE));
    for path in [a, twin] {
        assert_eq!(rig.attentions_on(path), [code(6, 0x2a, 3)]);
    }
    assert_eq!(rig.attentions_on(hba), []);
}

#[test]
fn what_no_path_will_tell_is_lost_with_the_path() {
    let (mut rig, c) = Rig::with_a_foreigner();
    rig.register(rig.a, K1);
    rig.register(c, K2);
    rig.inject(Fault::Cut(CutMode::Before));
    rig.good(c, out(OutAction::Preempt, K2, K1));
    rig.inject(Fault::Plug);
    assert_eq!(rig.attentions_on(rig.a), [code(6, 0x29, 7)]);
    assert_eq!(rig.key_of(rig.a), NONE);
}

#[test]
fn power_loss_ends_what_was_not_registered_to_persist() {
    for aptpl in [false, true] {
        let (mut rig, c) = Rig::with_a_foreigner();
        let register = out(OutAction::RegisterAndIgnore, NONE, K1);
        rig.good(rig.a, Out { aptpl: !aptpl, ..register });
        rig.good(c, Out { aptpl, ..register });
        rig.reserve(c, Type::WriteExclusive);
        rig.array.set_latency(ms(5));
        rig.submit(rig.a, Cdb::test_unit_ready(), &[], 0);
        rig.inject(Fault::PowerLoss);
        let ends: Vec<_> = rig.poll().iter().map(host_of).collect();
        assert_eq!(ends, [HostByte::TRANSPORT_DISRUPTED]);
        rig.array.set_latency(ms(0));
        for path in [rig.a, rig.b, c] {
            assert_eq!(rig.attentions_on(path), [code(6, 0x29, 0)]);
        }
        let key = if aptpl { K1 } else { NONE };
        assert_eq!((rig.key_of(rig.a), rig.key_of(c)), (key, key));
        let held = aptpl.then_some(Held { key: K1, kind: Type::WriteExclusive });
        assert_eq!((rig.state().held(), rig.state().generation()), (held, 0));
    }
}

#[test]
fn another_host_does_as_it_is_told_whatever_is_wrong_with_the_path() {
    let mut rig = Rig::new(small());
    let (a, b) = (rig.a, rig.b);
    for path in [a, b] {
        rig.register(path, K1);
    }
    rig.reserve(a, SHARED);
    rig.inject(Fault::Cut(CutMode::Before));
    for order in [Foreign::Clear, Foreign::Reserve(SHARED), Foreign::Release] {
        assert_eq!(rig.refused(order), "the array answers RESERVATION CONFLICT");
    }
    rig.inject(foreign(Foreign::Register(K2)));
    assert_eq!(rig.refused(Foreign::Reserve(SHARED)), "the array answers RESERVATION CONFLICT");
    let preempt = |victim| Foreign::Preempt { victim, kind: SHARED, abort: false };
    assert_eq!(rig.refused(preempt(NONE)), "the array answers 05/26/00");
    rig.array.inject(rig.now, b, foreign(preempt(K1)));
    assert_eq!(rig.state().held(), Some(Held { key: K2, kind: SHARED }));
    assert_eq!((rig.key_of(a), rig.key_of(b)), (NONE, NONE));
    let (cdb, data) = (Cdb::write(Extent::new(0, 1), false).unwrap(), [0; BLOCK]);
    assert_eq!(said(&rig.run_on(b, cdb, &data, 0)), "CONFLICT");
    assert_eq!(rig.attentions_on(b), [code(6, 0x2a, 5)]);
    rig.register(b, K3);
    assert_eq!(rig.refused(preempt(K1)), "the array answers RESERVATION CONFLICT", "gone");
    rig.inject(foreign(Foreign::Release));
    assert_eq!(rig.state().held(), None);
    assert_eq!(rig.attentions_on(b), [code(6, 0x2a, 4)]);
    rig.inject(foreign(Foreign::Reserve(Type::ExclusiveAccess)));
    rig.inject(foreign(Foreign::Register(NONE)));
    assert_eq!((rig.state().held(), rig.state().registrations().count()), (None, 1));
    // Another one, with a key of its own, by whichever path it is told.
    let second = |order| Fault::Foreign { host: 2, order };
    rig.inject(second(Foreign::Register(K1)));
    rig.array.inject(rig.now, b, second(Foreign::Clear));
    assert_eq!(rig.state().registrations().count(), 0);
    assert_eq!(rig.attentions_on(b), [code(6, 0x2a, 3)]);
}

#[test]
fn a_path_may_fail_to_register_while_all_else_works() {
    let register = out(OutAction::Register, NONE, K1);
    for (end, says, word) in [
        (ReserveEnd::Sense(code(2, 4, 1)), "02/04/01", "sense 02/04/01"),
        (ReserveEnd::HostByte(HostByte::ERROR), "DID_ERROR", "DID_ERROR"),
        (ReserveEnd::Conflict, "CONFLICT", "RESERVATION CONFLICT"),
        (ReserveEnd::StatusLost, "DID_TRANSPORT_DISRUPTED", "status lost"),
    ] {
        let mut rig = Rig::new(small());
        let (a, b) = (rig.a, rig.b);
        rig.inject(Fault::ReserveFails { end, count: 1 });
        assert_eq!(rig.array.condition(a).unwrap(), format!("reserving: {word} (1 more)"));
        assert_eq!(said(&rig.tur()), "GOOD");
        assert_eq!(said(&rig.run(raw(&[0x5e, 0]), &[], 0)), "GOOD");
        rig.good(b, register);
        assert_eq!(rig.order(a, register), says);
        let executed = end == ReserveEnd::StatusLost;
        assert_eq!(rig.key_of(a), if executed { K1 } else { NONE });
        assert_eq!(rig.order(a, register), if executed { "CONFLICT" } else { "GOOD" });
        rig.inject(Fault::ReserveFails { end, count: 0 });
        rig.inject(Fault::Plug);
        rig.attentions_on(a);
        rig.register(a, K2);
    }
}

#[test]
fn a_cut_may_lose_the_status_of_an_order_twice() {
    let mut rig = Rig::new(small());
    rig.array.set_latency(ms(5));
    rig.inject(Fault::ReserveFails { end: ReserveEnd::StatusLost, count: 1 });
    let order = out(OutAction::Register, NONE, K1);
    rig.submit(rig.a, order.cdb(), &order.list(), 0);
    rig.inject(Fault::Cut(CutMode::StatusLost));
    assert_eq!(rig.key_of(rig.a), K1);
}

#[test]
fn a_registration_may_be_forgotten_and_nobody_is_told() {
    for kind in [SHARED, Type::WriteExclusiveAllRegistrants] {
        let mut rig = Rig::new(small());
        let (a, b) = (rig.a, rig.b);
        rig.register(a, K1);
        rig.register(b, K1);
        rig.reserve(b, kind);
        let generation = rig.state().generation();
        rig.inject(Fault::ForgetRegistration);
        assert_eq!((rig.key_of(a), rig.key_of(b)), (NONE, K1));
        assert_eq!(rig.holders(), Some((kind, vec![b])));
        rig.array.inject(rig.now, b, Fault::ForgetRegistration);
        assert_eq!((rig.key_of(b), rig.holders()), (NONE, None));
        assert_eq!(rig.state().generation(), generation);
        assert_eq!((rig.attentions_on(a), rig.attentions_on(b)), (vec![], vec![]));
    }
}

#[test]
fn what_was_lost_is_replaced_once_by_one_nexus() {
    let mut rig = Rig::new(small());
    let (a, b) = (rig.a, rig.b);
    let replace = out(OutAction::ReplaceLost, NONE, K1).of_type(SHARED);
    assert_eq!(rig.order(a, replace), "05/24/00", "nothing is lost");
    rig.register(a, K1);
    rig.register(b, K1);
    rig.inject(Fault::LoseReservations);
    assert_eq!((rig.key_of(a), rig.key_of(b)), (NONE, NONE));
    for (key, action_key) in [(K1, K1), (NONE, NONE)] {
        let wrong = out(OutAction::ReplaceLost, key, action_key).of_type(SHARED);
        assert_eq!(rig.order(a, wrong), "05/26/00");
    }
    rig.good(a, replace);
    assert_eq!((rig.key_of(a), rig.key_of(b)), (K1, NONE));
    assert_eq!(rig.holders(), Some((SHARED, vec![a])));
    assert_eq!(rig.order(b, replace), "05/24/00");
}

#[test]
fn registrations_at_once_may_stall() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::RegisterStall(ms(500)));
    rig.array.set_latency(ms(5));
    let order = out(OutAction::Register, NONE, K1);
    let submit = |rig: &mut Rig, over| rig.submit(over, order.cdb(), &order.list(), 0);
    let (a, b) = (rig.a, rig.b);
    let (a, b) = (submit(&mut rig, a), submit(&mut rig, b));
    let read = rig.submit(rig.b, raw(&[0x5e, 0]), &[], 0);
    let tags = |done: Vec<Done>| done.iter().map(|d| (d.tag, said(d))).collect::<Vec<_>>();
    let good = |tag| (tag, "GOOD".to_owned());
    assert_eq!(tags(rig.after(ms(5))), [good(a), good(read)]);
    assert_eq!(tags(rig.after(ms(499))), []);
    assert_eq!(tags(rig.after(ms(1))), [good(b)]);
    // One after the other does not.
    rig.inject(Fault::RegisterStall(ms(500)));
    let order = out(OutAction::Register, K1, K2);
    for path in [rig.a, rig.b] {
        let tag = rig.submit(path, order.cdb(), &order.list(), 0);
        assert_eq!(tags(rig.after(ms(5))), [good(tag)]);
    }
    rig.inject(Fault::RegisterStall(Duration::ZERO));
    for path in [rig.a, rig.b] {
        rig.submit(path, order.cdb(), &order.list(), 0);
    }
    assert_eq!(rig.after(ms(5)).len(), 2);
}

#[test]
fn all_tg_pt_registers_by_every_port_of_the_target() {
    let (mut rig, c) = Rig::with_a_foreigner();
    let (a, b) = (rig.a, rig.b);
    let all = |action, key, new| Out { all_tg_pt: true, ..out(action, key, new) };
    rig.good(a, all(OutAction::Register, NONE, K1));
    assert_eq!([a, b, c].map(|path| rig.key_of(path)), [K1, K1, NONE]);
    assert_eq!((rig.state().registrations().count(), rig.state().generation()), (2, 1));
    // By one port alone it is another matter.
    rig.good(b, out(OutAction::Register, K1, K2));
    assert_eq!(rig.order(a, all(OutAction::Register, K1, NONE)), "CONFLICT");
    assert_eq!([a, b].map(|path| rig.key_of(path)), [K1, K2], "all or none");
    rig.reserve(b, SHARED);
    rig.good(a, all(OutAction::RegisterAndIgnore, NONE, NONE));
    assert_eq!((rig.state().registrations().count(), rig.holders()), (0, None));
}

#[test]
fn an_array_may_have_one_registration_for_each_initiator() {
    let (mut rig, c) = Rig::with_a_foreigner();
    let (a, b) = (rig.a, rig.b);
    rig.register(a, K1);
    rig.register(b, K2);
    rig.reserve(b, SHARED);
    rig.inject(Fault::PerInitiator(true));
    assert_eq!(rig.state().registrations().count(), 1);
    assert_eq!([a, b, c].map(|path| rig.key_of(path)), [K1, K1, NONE]);
    assert_eq!(rig.holders(), Some((SHARED, vec![a, b])), "whichever path");
    // What has been registered by one port cannot be by the other.
    assert_eq!(rig.order(b, out(OutAction::Register, NONE, K1)), "CONFLICT");
    rig.register(b, K3);
    rig.register(c, K2);
    assert_eq!([a, b, c].map(|path| rig.key_of(path)), [K3, K3, K2]);
    rig.good(c, out(OutAction::Preempt, K2, K3).of_type(SHARED));
    for path in [a, b] {
        assert_eq!(rig.attentions_on(path), [code(6, 0x2a, 5)]);
    }
    assert_eq!(rig.state().registrations().count(), 1);
}
