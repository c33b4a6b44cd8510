//! The engine's checkers, prioritizers and hardware handlers before this
//! array: each side was written from the field's drivers, not from the other.

use super::*;
use crate::mpath::checker::{Checker, CheckerKind, Verdict};
use crate::mpath::hwhandler::{Activation, Handler, HandlerKind};
use crate::mpath::prio::{Attributes, PrioKind, Prioritizer};
use crate::mpath::probe::{self, Answer, Fact, Probe, Step, Transfer};

/// Paths a and b in group 1, c in group 2, which is in `state`.
fn rig(personality: Personality, tpgs: Tpgs, state: AccessState) -> (Rig, NexusId) {
    let mut rig = Rig::new(LuConfig { personality, tpgs, ..small() });
    let at = Plugged { group: Some(2), access: Some(state), ..Plugged::default() };
    let c = rig.array.connect("c", at).unwrap();
    rig.attentions_on(rig.a);
    (rig, c)
}

impl Rig {
    fn answer(&mut self, over: NexusId, probe: Probe) -> Answer {
        let (cdb, out, room) = match probe {
            Probe::Command { cdb, transfer: Transfer::None } => (cdb, Vec::new(), 0),
            Probe::Command { cdb, transfer: Transfer::In(len) } => (cdb, Vec::new(), len),
            Probe::Command { cdb, transfer: Transfer::Out(list) } => (cdb, list, 0),
            Probe::ReadFirstBlock => (Cdb::read(Extent::new(0, 1)).unwrap(), Vec::new(), BLOCK),
            Probe::Fact(Fact::DeviceState) => {
                let state = match self.array.device_state(over).unwrap() {
                    DeviceState::Running => probe::DeviceState::Running,
                    DeviceState::Blocked => probe::DeviceState::Blocked,
                    DeviceState::Offline => probe::DeviceState::Offline,
                };
                return Answer::DeviceState(Some(state));
            }
            Probe::Fact(Fact::AccessState) => {
                return Answer::AccessState(self.array.access_fact(over));
            }
        };
        self.submit(over, cdb, &out, room);
        // As long as it takes, which is not long here.
        let done = self.after(ms(100)).remove(0);
        Answer::Completed { completion: done.completion, data: done.data_in, took: ms(100) }
    }

    fn finish<V>(
        &mut self,
        over: NexusId,
        first: Step<V>,
        mut next: impl FnMut(&Answer) -> Step<V>,
    ) -> V {
        let mut step = first;
        for _ in 0..20 {
            match step {
                Step::Done(value) => return value,
                Step::Issue(probe) => step = next(&self.answer(over, probe)),
            }
        }
        panic!("it does not end")
    }

    fn check(&mut self, over: NexusId, kind: CheckerKind) -> Verdict {
        let mut checker = Checker::new(kind);
        let first = checker.begin();
        self.finish(over, first, |answer| checker.on_answer(answer))
    }

    fn prio(&mut self, over: NexusId, kind: PrioKind) -> Option<i32> {
        let mut prioritizer = Prioritizer::new(kind, &Attributes::default());
        let first = prioritizer.begin();
        self.finish(over, first, |answer| prioritizer.on_answer(answer)).priority
    }

    fn activate(&mut self, over: NexusId, kind: HandlerKind) -> Activation {
        let mut handler = Handler::new(kind, Some(2));
        let first = handler.begin();
        self.finish(over, first, |answer| handler.on_answer(answer))
    }
}

const UP: Verdict = Verdict::Up { doubt: false };
const GHOST: Verdict = Verdict::Ghost { doubt: false };
const PENDING: Verdict = Verdict::Pending { doubt: false };

fn is_up(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Up { .. })
}

#[test]
fn an_rdac_lu_is_seen_moved_and_seen_again() {
    let (mut rig, c) = rig(Personality::Rdac, Tpgs::None, AccessState::ActiveOptimized);
    let a = rig.a;
    rig.array.set_transition(ms(50));
    let check = CheckerKind::Rdac;
    assert_eq!((rig.check(a, check), rig.check(c, check)), (UP, GHOST));
    let better = rig.prio(a, PrioKind::Rdac) > rig.prio(c, PrioKind::Rdac);
    assert!(better);
    assert_eq!(rig.activate(c, HandlerKind::Rdac), Activation::Done);
    assert_eq!((rig.check(a, check), is_up(rig.check(c, check))), (GHOST, true));
    rig.inject(Fault::ActivationSense { code: code(5, 0x91, 0x36), count: 0 });
    assert!(matches!(rig.activate(a, HandlerKind::Rdac), Activation::Retry { .. }));
    rig.array.inject(rig.now, c, Fault::ControllerDown { takeover: Duration::ZERO });
    assert_eq!(rig.check(c, check), Verdict::Down);
    assert!(is_up(rig.check(a, check)), "it has taken over");
}

#[test]
fn a_clariion_lu_is_seen_trespassed_and_seen_again() {
    let (mut rig, c) = rig(Personality::Clariion, Tpgs::None, AccessState::ActiveOptimized);
    let a = rig.a;
    rig.array.set_transition(ms(50));
    let check = CheckerKind::EmcClariion;
    assert!(is_up(rig.check(a, check)));
    assert!(!matches!(rig.check(c, check), Verdict::Down | Verdict::Shaky), "it is passive");
    assert!(rig.prio(a, PrioKind::Emc) > rig.prio(c, PrioKind::Emc));
    rig.array.inject(rig.now, c, Fault::Upgrade { how: Upgrade::Busy, lasting: ms(9999) });
    assert_eq!(rig.check(c, check), Verdict::Shaky);
    assert_eq!(rig.activate(c, HandlerKind::Emc), Activation::Busy);
    rig.array.inject(rig.now, c, Fault::Upgrade { how: Upgrade::Busy, lasting: Duration::ZERO });
    assert_eq!(rig.activate(c, HandlerKind::Emc), Activation::Done);
    let read = Cdb::read(Extent::new(0, 1)).unwrap();
    rig.attentions_on(c);
    assert_eq!(rig.run_on(c, read, &[], BLOCK).completion, Completion::Good);
}

#[test]
fn a_standby_group_is_a_ghost_until_it_is_activated() {
    let (mut rig, c) = rig(Personality::Generic, Tpgs::Explicit, AccessState::Standby);
    let alua = || PrioKind::Alua { exclusive_pref: false };
    assert_eq!(rig.check(c, CheckerKind::Tur), GHOST);
    assert_eq!((rig.prio(rig.a, alua()), rig.prio(c, alua())), (Some(50), Some(1)));
    let sysfs = PrioKind::Sysfs { exclusive_pref: false };
    assert_eq!(rig.prio(c, sysfs), Some(1));
    rig.array.set_transition(ms(50));
    assert_eq!(rig.activate(c, HandlerKind::Alua), Activation::Done);
    assert!(is_up(rig.check(c, CheckerKind::Tur)));
    assert_eq!(rig.prio(c, alua()), Some(50));
}

#[test]
fn a_path_that_only_looks_alive_is_found_by_reading() {
    let (mut rig, c) = rig(Personality::Generic, Tpgs::Both, AccessState::ActiveOptimized);
    rig.attentions_on(c);
    rig.array.inject(rig.now, c, Fault::IoHostByte { host: HostByte::ERROR, count: 0 });
    assert!(is_up(rig.check(c, CheckerKind::Tur)), "that is the trouble");
    for kind in [CheckerKind::DirectIo, CheckerKind::ReadSector0] {
        assert_eq!(rig.check(c, kind), Verdict::Down);
    }
    rig.array.inject(rig.now, c, Fault::Device(DeviceState::Offline));
    assert_eq!(rig.check(c, CheckerKind::Tur), Verdict::Down);
    rig.array.inject(rig.now, c, Fault::Device(DeviceState::Blocked));
    assert_eq!(rig.check(c, CheckerKind::Tur), PENDING);
}
