//! PERSISTENT RESERVE OUT and IN: who is registered, who holds, who is told.

use proptest::prelude::*;

use super::*;
use crate::scsi::reservation::{
    self, Capabilities, Held, InAction, Key as ResKey, Out, OutAction, Type,
};

pub(super) const NONE: ResKey = ResKey::NONE;
pub(super) const K1: ResKey = ResKey(0xa1);
pub(super) const K2: ResKey = ResKey(0xa2);
pub(super) const K3: ResKey = ResKey(0xa3);

pub(super) fn out(action: OutAction, key: ResKey, action_key: ResKey) -> Out {
    Out::new(action, key, action_key)
}

/// `GOOD`, `CONFLICT`, `05/26/04`, or a host byte.
pub(super) fn said(done: &Done) -> String {
    match &done.completion {
        Completion::Good => "GOOD".to_owned(),
        Completion::Scsi { host, .. } if *host != HostByte::OK => host.to_string(),
        Completion::Scsi { status: Status::RESERVATION_CONFLICT, sense, .. } => {
            assert!(sense.is_empty());
            "CONFLICT".to_owned()
        }
        Completion::Scsi { status: Status::CHECK_CONDITION, sense, .. } => {
            sense.code().unwrap().to_string()
        }
        Completion::Scsi { status, .. } => status.to_string(),
        other => panic!("{other:?}"),
    }
}

impl Rig {
    /// Paths a and b of one host, c of another, all of the first LU.
    pub(super) fn with_a_foreigner() -> (Rig, NexusId) {
        let mut rig = Rig::new(small());
        let c = rig.array.add_foreign_nexus("c", 1);
        (rig, c)
    }

    pub(super) fn order(&mut self, over: NexusId, out: Out) -> String {
        let done = self.run_on(over, out.cdb(), &out.list(), 0);
        assert!(said(&done) != "GOOD" || residual_of(&done) == 0);
        said(&done)
    }

    pub(super) fn good(&mut self, over: NexusId, out: Out) {
        assert_eq!(self.order(over, out), "GOOD", "{out:?}");
    }

    pub(super) fn register(&mut self, over: NexusId, key: ResKey) {
        self.good(over, out(OutAction::RegisterAndIgnore, NONE, key));
    }

    /// A path reserves with the key that it has.
    pub(super) fn reserve(&mut self, over: NexusId, kind: Type) {
        let key = self.key_of(over);
        self.good(over, out(OutAction::Reserve, key, NONE).of_type(kind));
    }

    pub(super) fn key_of(&self, over: NexusId) -> ResKey {
        let of = self.array.ports(over).unwrap();
        self.state().key_of(of).unwrap_or(NONE)
    }

    pub(super) fn state(&self) -> &Reservations {
        self.array.reservations(LuId(0))
    }

    /// Type, and the paths that hold.
    pub(super) fn holders(&self) -> Option<(Type, Vec<NexusId>)> {
        let kind = self.state().held()?.kind;
        let holds = |id: &NexusId| self.state().is_held_by(self.array.ports(*id).unwrap());
        Some((kind, self.array.nexuses().map(|(id, _)| id).filter(holds).collect()))
    }

    fn asked(&mut self, over: NexusId, action: InAction, room: u16) -> Vec<u8> {
        let done = self.run_on(over, action.cdb(room), &[], usize::from(room));
        assert!(sense_of(&done).is_none(), "{done:?}");
        done.data_in
    }
}

#[test]
fn registering_follows_the_standards_table() {
    use OutAction::{Register, RegisterAndIgnore};
    // What is registered; the command; what it says; what is registered then.
    for (before, action, key, new, answer, after) in [
        (NONE, Register, NONE, NONE, "GOOD", NONE),
        (NONE, Register, NONE, K1, "GOOD", K1),
        (NONE, Register, K1, K1, "CONFLICT", NONE),
        (NONE, Register, K1, NONE, "CONFLICT", NONE),
        (K1, Register, NONE, K2, "CONFLICT", K1),
        (K1, Register, K2, K2, "CONFLICT", K1),
        (K1, Register, K1, K2, "GOOD", K2),
        (K1, Register, K1, K1, "GOOD", K1),
        (K1, Register, K1, NONE, "GOOD", NONE),
        (NONE, RegisterAndIgnore, K2, K1, "GOOD", K1),
        (NONE, RegisterAndIgnore, K2, NONE, "GOOD", NONE),
        (K1, RegisterAndIgnore, K3, K2, "GOOD", K2),
        (K1, RegisterAndIgnore, K3, NONE, "GOOD", NONE),
    ] {
        let mut rig = Rig::new(small());
        let (a, b) = (rig.a, rig.b);
        rig.register(a, before);
        rig.register(b, K3);
        let generation = rig.state().generation();
        assert_eq!(rig.order(a, out(action, key, new)), answer);
        assert_eq!((rig.key_of(a), rig.key_of(b)), (after, K3), "{before} {action:?} {key} {new}");
        let changes = answer == "GOOD" && (before, new) != (NONE, NONE);
        assert_eq!(rig.state().generation(), generation + u32::from(changes));
        assert_eq!(rig.attentions_on(b), []);
    }
}

#[test]
fn nothing_else_is_for_who_is_not_registered_with_that_key() {
    use OutAction::{Clear, Preempt, PreemptAndAbort, Release, Reserve};
    for (registered, key) in [(NONE, NONE), (NONE, K1), (K1, K2), (K1, NONE)] {
        for action in [Reserve, Release, Clear, Preempt, PreemptAndAbort] {
            let mut rig = Rig::new(small());
            let (a, b) = (rig.a, rig.b);
            rig.register(a, registered);
            rig.register(b, K3);
            rig.reserve(b, Type::WriteExclusive);
            let generation = rig.state().generation();
            let order = out(action, key, K3).of_type(Type::WriteExclusive);
            assert_eq!(rig.order(a, order), "CONFLICT", "{order:?}");
            assert_eq!(rig.state().generation(), generation);
            assert_eq!(rig.holders(), Some((Type::WriteExclusive, vec![b])));
        }
    }
}

#[test]
fn one_holds_and_may_say_so_again() {
    for kind in Type::all() {
        let mut rig = Rig::new(small());
        let (a, b) = (rig.a, rig.b);
        rig.register(a, K1);
        rig.register(b, K2);
        let generation = rig.state().generation();
        rig.reserve(a, kind);
        rig.reserve(a, kind);
        let all = kind.is_of_all_registrants();
        let holders = if all { vec![a, b] } else { vec![a] };
        assert_eq!(rig.holders(), Some((kind, holders)));
        let again = out(OutAction::Reserve, K2, NONE).of_type(kind);
        assert_eq!(rig.order(b, again), if all { "GOOD" } else { "CONFLICT" });
        for other in Type::all().filter(|other| *other != kind) {
            let other = out(OutAction::Reserve, K1, NONE).of_type(other);
            assert_eq!(rig.order(a, other), "CONFLICT");
        }
        assert_eq!(rig.state().generation(), generation, "RESERVE does not count");
        assert_eq!(rig.attentions_on(b), []);
    }
}

#[test]
fn release_is_the_holders_with_the_type_it_has() {
    for kind in Type::all() {
        let (mut rig, c) = Rig::with_a_foreigner();
        let (a, b) = (rig.a, rig.b);
        rig.register(a, K1);
        rig.register(c, K2);
        let release = |key| out(OutAction::Release, key, NONE);
        rig.good(a, release(K1).of_type(kind));
        rig.reserve(a, kind);
        for other in Type::all().filter(|other| *other != kind) {
            assert_eq!(rig.order(a, release(K1).of_type(other)), "05/26/04");
        }
        let scope = Out { scope_and_type: 0x10 | kind.to_bits(), ..release(K1) };
        assert_eq!(rig.order(a, scope), "05/26/04");
        if !kind.is_of_all_registrants() {
            // Who does not hold releases nothing, whatever type it says.
            rig.good(c, release(K2).of_type(kind));
            rig.good(c, release(K2));
            assert_eq!(rig.holders(), Some((kind, vec![a])));
        }
        rig.good(a, release(K1).of_type(kind));
        assert_eq!(rig.holders(), None);
        let told = if kind.is_of_registrants() { vec![code(6, 0x2a, 4)] } else { Vec::new() };
        assert_eq!(rig.attentions_on(c), told);
        assert_eq!((rig.attentions_on(a), rig.attentions_on(b)), (vec![], vec![]));
    }
}

#[test]
fn who_unregisters_holds_no_longer() {
    for kind in Type::all() {
        let (mut rig, c) = Rig::with_a_foreigner();
        let (a, b) = (rig.a, rig.b);
        rig.register(a, K1);
        rig.register(c, K2);
        rig.reserve(a, kind);
        rig.good(a, out(OutAction::Register, K1, NONE));
        if kind.is_of_all_registrants() {
            assert_eq!(rig.holders(), Some((kind, vec![c])), "one is left");
            assert_eq!(rig.attentions_on(c), []);
            rig.good(c, out(OutAction::Register, K2, NONE));
        } else {
            let told = if kind.is_of_registrants() { vec![code(6, 0x2a, 4)] } else { Vec::new() };
            assert_eq!(rig.attentions_on(c), told);
        }
        assert_eq!(rig.holders(), None);
        assert_eq!((rig.attentions_on(a), rig.attentions_on(b)), (vec![], vec![]));
    }
}

#[test]
fn a_holder_that_changes_its_key_still_holds() {
    let mut rig = Rig::new(small());
    let a = rig.a;
    rig.register(a, K1);
    rig.reserve(a, Type::ExclusiveAccess);
    rig.good(a, out(OutAction::Register, K1, K2));
    let held = Held { key: K2, kind: Type::ExclusiveAccess };
    assert_eq!(rig.state().held(), Some(held));
}

#[test]
fn clear_removes_everything_and_tells_who_was_registered() {
    let (mut rig, c) = Rig::with_a_foreigner();
    let (a, b) = (rig.a, rig.b);
    rig.register(a, K1);
    rig.register(c, K2);
    rig.reserve(a, Type::WriteExclusiveRegistrantsOnly);
    let generation = rig.state().generation();
    rig.good(c, out(OutAction::Clear, K2, NONE));
    assert_eq!((rig.state().registrations().count(), rig.holders()), (0, None));
    assert_eq!(rig.state().generation(), generation + 1);
    assert_eq!(rig.attentions_on(a), [code(6, 0x2a, 3)]);
    assert_eq!((rig.attentions_on(b), rig.attentions_on(c)), (vec![], vec![]));
}

#[test]
fn preempting_the_holder_takes_over_and_removes_all_of_its_key() {
    for kind in Type::all().filter(|kind| !kind.is_of_all_registrants()) {
        let (mut rig, c) = Rig::with_a_foreigner();
        let (a, b) = (rig.a, rig.b);
        let d = rig.array.add_foreign_nexus("d", 2);
        for (path, key) in [(a, K1), (b, K1), (c, K2), (d, K3)] {
            rig.register(path, key);
        }
        rig.reserve(a, kind);
        let generation = rig.state().generation();
        let other = Type::ExclusiveAccessRegistrantsOnly;
        rig.good(c, out(OutAction::Preempt, K2, K1).of_type(other));
        assert_eq!(rig.holders(), Some((other, vec![c])));
        assert_eq!([a, b, c, d].map(|path| rig.key_of(path)), [NONE, NONE, K2, K3]);
        assert_eq!(rig.state().generation(), generation + 1);
        for path in [a, b] {
            assert_eq!(rig.attentions_on(path), [code(6, 0x2a, 5)]);
        }
        assert_eq!(rig.attentions_on(c), []);
        let changed = if kind == other { vec![] } else { vec![code(6, 0x2a, 4)] };
        assert_eq!(rig.attentions_on(d), changed, "another type");
    }
}

#[test]
fn preempting_who_does_not_hold_only_unregisters_it() {
    for kind in Type::all() {
        let (mut rig, c) = Rig::with_a_foreigner();
        let (a, b) = (rig.a, rig.b);
        for (path, key) in [(a, K1), (b, K3), (c, K2)] {
            rig.register(path, key);
        }
        rig.reserve(a, kind);
        // The type is of no meaning.
        rig.good(c, Out { scope_and_type: 0xff, ..out(OutAction::Preempt, K2, K3) });
        assert_eq!([a, b, c].map(|path| rig.key_of(path)), [K1, NONE, K2]);
        assert_eq!(rig.holders().unwrap().0, kind);
        assert!(rig.holders().unwrap().1.contains(&a));
        assert_eq!(rig.attentions_on(b), [code(6, 0x2a, 5)]);
        assert_eq!((rig.attentions_on(a), rig.attentions_on(c)), (vec![], vec![]));
        assert_eq!(rig.order(c, out(OutAction::Preempt, K2, K3)), "CONFLICT", "nobody has it");
    }
}

#[test]
fn key_zero_preempts_all_registrants_and_nobody_else() {
    for kind in Type::all() {
        let (mut rig, c) = Rig::with_a_foreigner();
        let (a, b) = (rig.a, rig.b);
        for (path, key) in [(a, K1), (b, K1), (c, K2)] {
            rig.register(path, key);
        }
        let order = out(OutAction::Preempt, K2, NONE).of_type(Type::WriteExclusive);
        assert_eq!(rig.order(c, order), "05/26/00", "no reservation");
        rig.reserve(a, kind);
        if !kind.is_of_all_registrants() {
            assert_eq!(rig.order(c, order), "05/26/00");
            continue;
        }
        rig.good(c, order);
        assert_eq!(rig.holders(), Some((Type::WriteExclusive, vec![c])));
        assert_eq!([a, b, c].map(|path| rig.key_of(path)), [NONE, NONE, K2]);
        assert_eq!(rig.attentions_on(a), [code(6, 0x2a, 5)]);
        assert_eq!(rig.attentions_on(b), [code(6, 0x2a, 5)]);
    }
}

#[test]
fn a_nexus_preempts_its_own_key() {
    let mut rig = Rig::new(small());
    let (a, b) = (rig.a, rig.b);
    rig.register(a, K1);
    rig.register(b, K1);
    rig.reserve(a, Type::WriteExclusive);
    let own = out(OutAction::Preempt, K1, K1).of_type(Type::ExclusiveAccess);
    rig.good(b, own);
    assert_eq!(rig.holders(), Some((Type::ExclusiveAccess, vec![b])), "the holder's key: it holds");
    assert_eq!((rig.key_of(a), rig.key_of(b)), (NONE, K1));
    assert_eq!(rig.attentions_on(a), [code(6, 0x2a, 5)]);
    rig.good(b, out(OutAction::Release, K1, NONE).of_type(Type::ExclusiveAccess));
    rig.register(a, K1);
    rig.good(a, own);
    assert_eq!((rig.key_of(a), rig.key_of(b)), (NONE, NONE), "nobody holds: it goes, too");
    assert_eq!((rig.attentions_on(a), rig.attentions_on(b)), (vec![], vec![code(6, 0x2a, 5)]));
}

#[test]
fn the_last_of_all_registrants_takes_the_reservation_along() {
    let mut rig = Rig::new(small());
    let a = rig.a;
    rig.register(a, K1);
    rig.reserve(a, Type::WriteExclusiveAllRegistrants);
    rig.good(a, out(OutAction::Preempt, K1, K1));
    assert_eq!((rig.state().registrations().count(), rig.holders()), (0, None));
}

#[test]
fn what_is_not_understood_is_refused_and_changes_nothing() {
    let mut rig = Rig::new(small());
    let a = rig.a;
    rig.register(a, K1);
    let reserve = out(OutAction::Reserve, K1, NONE);
    for (byte, pointer) in [(0x00, 0xcb), (0x02, 0xcb), (0x04, 0xcb), (0x0f, 0xcb), (0x13, 0xcf)] {
        let order = Out { scope_and_type: byte, ..reserve };
        let done = rig.run(order.cdb(), &order.list(), 0);
        assert_eq!(said(&done), "05/24/00", "{byte:02x}");
        let Completion::Scsi { sense, .. } = done.completion else { unreachable!() };
        assert_eq!(sense.as_bytes()[15..18], [pointer, 0, 2]);
    }
    for action in [0x07, 0x08, 0x09, 0x1f] {
        let cdb = raw(&[0x5f, action, 0x01, 0, 0, 0, 0, 0, 24]);
        assert_eq!(said(&rig.run(cdb, &reserve.list(), 0)), "05/24/00", "action {action:02x}");
    }
    for action in [0x04, 0x1f] {
        assert_eq!(said(&rig.run(raw(&[0x5e, action, 0, 0, 0, 0, 0, 0, 8]), &[], 8)), "05/24/00");
    }
    let others = Out { spec_i_pt: true, ..out(OutAction::Register, K1, K2) };
    assert_eq!(rig.order(a, others), "05/26/00");
    for len in [0, 8, 23, 25] {
        let done = rig.run(raw(&[0x5f, 0, 0, 0, 0, 0, 0, 0, len]), &[0; 32], 0);
        assert_eq!(said(&done), "05/1a/00", "{len} bytes");
    }
    let short = rig.run(reserve.cdb(), &[0; 20], 0);
    assert_eq!(said(&short), "DID_ERROR", "less data than announced");
    assert_eq!((rig.key_of(a), rig.holders()), (K1, None));
}

#[test]
fn what_is_so_is_read_by_any_path_as_far_as_there_is_room() {
    let (mut rig, c) = Rig::with_a_foreigner();
    let (a, b) = (rig.a, rig.b);
    let read = |rig: &mut Rig, over| {
        let keys = reservation::keys(&rig.asked(over, InAction::ReadKeys, 64)).unwrap();
        let held = rig.asked(over, InAction::ReadReservation, 64);
        (keys.generation, keys.what, reservation::reservation(&held).unwrap().what)
    };
    assert_eq!(read(&mut rig, c), (0, vec![], None));
    for (path, key) in [(c, K2), (a, K1), (b, K1)] {
        rig.register(path, key);
    }
    rig.reserve(b, Type::ExclusiveAccess);
    let held = Held { key: K1, kind: Type::ExclusiveAccess };
    let d = rig.array.add_nexus("d");
    for path in [a, b, c, d] {
        assert_eq!(read(&mut rig, path), (3, vec![K2, K1, K1], Some(held)));
    }
    let cut = rig.asked(a, InAction::ReadKeys, 12);
    assert_eq!((cut.len(), reservation::keys(&cut)), (12, Err(32)));
    assert!(rig.asked(a, InAction::ReadKeys, 0).is_empty());
    let all = reservation::full_status(&rig.asked(d, InAction::ReadFullStatus, 512)).unwrap();
    assert_eq!(all.generation, 3);
    let ports: Vec<_> = all.what.iter().map(|of| (of.key, of.port, of.holds)).collect();
    let kind = Some(Type::ExclusiveAccess);
    assert_eq!(ports, [(K2, 1, None), (K1, 1, None), (K1, 2, kind)]);
    let id = |at: usize| all.what[at].transport_id.clone();
    assert_eq!((id(0).len(), id(0)[0]), (24, 0), "a Fibre Channel name");
    assert!(id(0) != id(1) && id(1) == id(2), "of two hosts");
}

#[test]
fn capabilities_are_what_is_implemented() {
    let mut rig = Rig::new(small());
    let a = rig.a;
    for aptpl in [false, true, false] {
        rig.good(a, Out { aptpl, ..out(OutAction::RegisterAndIgnore, NONE, K1) });
        let data = rig.asked(a, InAction::ReportCapabilities, 64);
        assert_eq!(data.len(), 8);
        let can = Capabilities::parse(&data).unwrap();
        let replaces = can.can & Capabilities::REPLACE_LOST != 0;
        assert!(replaces && can.can & Capabilities::SPEC_I_PT == 0);
        assert_eq!(can.can & 0x7f, Capabilities::ALL_TG_PT | Capabilities::PERSIST);
        assert_eq!(can.now, Capabilities::TYPE_MASK_VALID | u8::from(aptpl));
        assert!(Type::all().all(|kind| can.types & kind.mask() != 0));
    }
}

#[test]
fn what_is_kept_in_words_is_what_was_there_and_nothing_else_is_taken() {
    let (mut rig, c) = Rig::with_a_foreigner();
    let same = |rig: &Rig| {
        let words = rig.state().to_words();
        let again = Reservations::from_words(&words).unwrap();
        assert_eq!(again.to_words(), words);
        again
    };
    same(&rig);
    rig.good(rig.a, Out { aptpl: true, ..out(OutAction::Register, NONE, K1) });
    let revision = rig.state().revision();
    rig.reserve(rig.a, Type::ExclusiveAccess);
    assert!(rig.state().revision() > revision);
    let mut next = Rig::new(small());
    next.array.restore(LuId(0), same(&rig));
    assert_eq!((next.key_of(next.a), next.key_of(next.b)), (K1, NONE));
    assert_eq!(next.holders(), Some((Type::ExclusiveAccess, vec![next.a])));
    assert!(next.state().persists() && next.state().generation() == 1);
    rig.good(rig.a, out(OutAction::Clear, K1, NONE));
    rig.register(c, K2);
    rig.reserve(c, Type::WriteExclusiveAllRegistrants);
    rig.inject(Fault::PerInitiator(true));
    same(&rig);
    for wrong in [
        "nonsense",
        "generation x aptpl true",
        "registered 0 1 0x0",
        "registered 0 65536 0x1",
        "registered 0 1 0x1\nregistered 0 1 0x2",
        "registered 0 1 0x1\nheld 0 2 write-exclusive",
        "held 0 1 write-exclusive-all-registrants",
        "registered 0 1 0x1\nheld 0 1 5",
    ] {
        assert!(Reservations::from_words(wrong).is_err(), "{wrong}");
    }
}

fn orders() -> impl Strategy<Value = Vec<(usize, Out)>> {
    use OutAction::{
        Clear, Preempt, PreemptAndAbort, Register, RegisterAndIgnore, Release, Reserve,
    };
    let key = || prop::sample::select(vec![NONE, K1, K2, K3]);
    let action = prop::sample::select(vec![
        Register,
        Register,
        RegisterAndIgnore,
        RegisterAndIgnore,
        Reserve,
        Reserve,
        Release,
        Clear,
        Preempt,
        PreemptAndAbort,
    ]);
    let order = (action, key(), key(), 0u8..10, any::<bool>()).prop_map(
        |(action, key, action_key, scope_and_type, all_tg_pt)| {
            let all_tg_pt = all_tg_pt && matches!(action, Register | RegisterAndIgnore);
            Out { scope_and_type, all_tg_pt, ..out(action, key, action_key) }
        },
    );
    prop::collection::vec((0usize..4, order), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is sent: who holds is registered, each nexus once; PRGENERATION
    /// counts what the standard says; nobody is told of what it did itself.
    #[test]
    fn the_state_stays_sound(orders in orders(), per_initiator: bool) {
        let (mut rig, c) = Rig::with_a_foreigner();
        let paths = [rig.a, rig.b, c, rig.array.add_foreign_nexus("d", 2)];
        rig.inject(Fault::PerInitiator(per_initiator));
        for (by, order) in orders {
            rig.attentions_on(paths[by]);
            let before = rig.state().generation();
            let empty = rig.state().registrations().count() == 0;
            let answer = rig.order(paths[by], order);
            let of = rig.state();
            let changes = !matches!(order.action, OutAction::Reserve | OutAction::Release);
            prop_assert!(of.generation() - before <= u32::from(changes && answer == "GOOD"));
            prop_assert!(answer == "GOOD" || of.generation() == before);
            prop_assert!(!empty || answer != "GOOD" || order.action_key == NONE
                || of.registrations().count() > 0);
            let mut nexuses: Vec<_> = of.registrations().map(|(nexus, _)| nexus).collect();
            let count = nexuses.len();
            nexuses.sort();
            nexuses.dedup();
            prop_assert_eq!(nexuses.len(), count);
            prop_assert!(of.registrations().all(|(_, key)| key != NONE));
            if let Some(held) = of.held() {
                let holders = of.registrations().filter(|(nexus, _)| of.is_held_by(*nexus));
                let all = held.kind.is_of_all_registrants();
                prop_assert_eq!(holders.count(), if all { count } else { 1 });
                prop_assert!(count > 0 && all == (held.key == NONE));
            }
            prop_assert_eq!(rig.attentions_on(paths[by]), []);
        }
    }
}
