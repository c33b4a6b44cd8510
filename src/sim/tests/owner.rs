//! LUs that one of two controllers owns, as their initiators see them.

use super::*;
use crate::scsi::alua;
use crate::scsi::clariion::{self, Binding, Trespass, UnitPathReport};
use crate::scsi::mode;
use crate::scsi::rdac::{self, Preference, TakeOwnership, VolumeAccess};

const NOT_OWNER: SenseCode = SenseCode::new(Key::IllegalRequest, 0x94, 0x01);
const PASSIVE: SenseCode = SenseCode::new(Key::NotReady, 0x04, 0x03);
const BECOMING_READY: SenseCode = SenseCode::new(Key::NotReady, 0x04, 0x01);
const QUIESCENCE_ACHIEVED: SenseCode = SenseCode::new(Key::UnitAttention, 0x8b, 0x02);

/// Paths a and b to the owner, c to the other controller.
fn rig(personality: Personality, tpgs: Tpgs) -> (Rig, NexusId) {
    let mut rig = Rig::new(LuConfig { personality, tpgs, ..small() });
    let at = Plugged { group: Some(2), ..Plugged::default() };
    let c = rig.array.connect("c", at).unwrap();
    (rig, c)
}

fn read() -> Cdb {
    Cdb::read(Extent::new(0, 1)).unwrap()
}

impl Rig {
    fn volume_access(&mut self, over: NexusId) -> VolumeAccess {
        let cdb = Cdb::inquiry(Some(rdac::VOLUME_ACCESS), 252);
        VolumeAccess::parse(&self.run_on(over, cdb, &[], 252).data_in).unwrap()
    }

    fn unit_path_report(&mut self, over: NexusId) -> UnitPathReport {
        let cdb = Cdb::inquiry(Some(clariion::UNIT_PATH_REPORT), 252);
        UnitPathReport::parse(&self.run_on(over, cdb, &[], 252).data_in).unwrap()
    }

    /// What a READ comes to.
    fn read_on(&mut self, over: NexusId) -> Option<SenseCode> {
        sense_of(&self.run_on(over, read(), &[], BLOCK))
    }

    /// MODE SELECT(10) of page 2Ch, as drivers send it: PF is not set.
    fn take(&mut self, over: NexusId, luns: &[u8]) -> Done {
        let list = TakeOwnership { luns: luns.to_vec(), quiescence: 20, forced: true }.encode_10();
        let len = u16::try_from(list.len()).unwrap();
        self.run_on(over, Cdb::mode_select_10(false, false, len), &list, 0)
    }

    fn trespass(&mut self, over: NexusId) -> Done {
        let list = Trespass { honor_reservations: false }.encode_10();
        self.run_on(over, Cdb::mode_select_10(true, false, 19), &list, 0)
    }
}

#[test]
fn an_rdac_array_says_who_owns_the_lu_and_refuses_io_elsewhere() {
    let (mut rig, c) = rig(Personality::Rdac, Tpgs::None);
    let (a, b) = (rig.a, rig.b);
    for (nexus, owned, own, other) in [
        (a, true, AccessState::ActiveOptimized, AccessState::Standby),
        (b, true, AccessState::ActiveOptimized, AccessState::Standby),
        (c, false, AccessState::Standby, AccessState::ActiveOptimized),
    ] {
        let page = rig.volume_access(nexus);
        assert_eq!(
            (page.connected, page.owned, page.ioship, page.avt),
            (true, owned, false, false)
        );
        let (here, there) = page.controllers.unwrap();
        assert_eq!((here.state, there.state), (own, other));
        let preferred = if owned { Preference::Preferred } else { Preference::Secondary };
        assert_eq!(page.preference, preferred);
        assert_eq!(rig.read_on(nexus), (!owned).then_some(NOT_OWNER));
        assert_eq!(rig.tur_on(nexus).completion, Completion::Good, "which says nothing");
        assert_eq!(rig.array.access_state(nexus), Some(own));
    }
    let supported = rig.run(Cdb::inquiry(Some(0), 64), &[], 64).data_in;
    assert!([0xc2, 0xc8, 0xc9].iter().all(|page| supported[4..].contains(page)));
    let page = |rig: &mut Rig, code| rig.run(Cdb::inquiry(Some(code), 255), &[], 255).data_in;
    assert_eq!(rdac::lun(&page(&mut rig, 0xc8)), Some(0));
    assert_eq!(rdac::max_lun(&page(&mut rig, 0xc2)), Some(255));
    assert_eq!(sense_of(&rig.run(Cdb::inquiry(Some(0xc0), 255), &[], 255)), Some(code(5, 0x24, 0)));
}

#[test]
fn mode_select_moves_an_rdac_lu_to_the_controller_that_gets_it() {
    let (mut rig, c) = rig(Personality::Rdac, Tpgs::None);
    let (a, b) = (rig.a, rig.b);
    assert_eq!(rig.take(c, &[7]).completion, Completion::Good, "another LU's number");
    assert_eq!(rig.read_on(a), None);
    assert_eq!(rig.take(c, &[0]).completion, Completion::Good);
    assert_eq!(rig.attentions_on(c), [], "not the one that asked");
    for nexus in [a, b] {
        assert_eq!(rig.attentions_on(nexus), [QUIESCENCE_ACHIEVED]);
        assert_eq!(rig.read_on(nexus), Some(NOT_OWNER));
    }
    assert_eq!(rig.read_on(c), None);
    let page = rig.volume_access(c);
    assert_eq!((page.owned, page.preference), (true, Preference::Secondary));
    assert_eq!(rig.take(c, &[0]).completion, Completion::Good, "it is there already");
    assert_eq!(rig.attentions_on(a), []);
    let list = TakeOwnership { luns: vec![0], quiescence: 0, forced: true }.encode_6().unwrap();
    let six = Cdb::mode_select_6(false, u8::try_from(list.len()).unwrap());
    assert_eq!(rig.run_on(a, six, &list, 0).completion, Completion::Good);
    assert_eq!(rig.read_on(a), None);
}

#[test]
fn an_lu_is_nowhere_while_it_moves_and_the_command_ends_with_that() {
    let (mut rig, c) = rig(Personality::Rdac, Tpgs::None);
    rig.array.set_transition(ms(500));
    let list = TakeOwnership { luns: vec![0], quiescence: 20, forced: true }.encode_10();
    let tag = rig.submit(c, Cdb::mode_select_10(false, false, 308), &list, 0);
    assert_eq!(rig.poll(), []);
    for nexus in [rig.a, c] {
        assert_eq!(rig.read_on(nexus), Some(BECOMING_READY));
        assert_eq!(sense_of(&rig.tur_on(nexus)), Some(BECOMING_READY));
        let (here, there) = rig.volume_access(nexus).controllers.unwrap();
        assert_eq!((here.state, there.state), (AccessState::Transitioning, here.state));
    }
    assert_eq!(rig.after(ms(499)), []);
    let done = rig.after(ms(1));
    assert_eq!((done.len(), done[0].tag, &done[0].completion), (1, tag, &Completion::Good));
    assert_eq!(rig.read_on(c), None);
    // An initiator that does not wait for it: it moves all the same.
    rig.array.set_transition(ms(1500));
    let tag = rig.submit(rig.a, Cdb::mode_select_10(false, false, 308), &list, 0);
    assert_eq!(sense_of(&rig.poll().remove(0)), Some(QUIESCENCE_ACHIEVED));
    let again = rig.submit(rig.a, Cdb::mode_select_10(false, false, 308), &list, 0);
    let done = rig.after(ms(1000));
    assert_eq!(done.iter().map(host_of).collect::<Vec<_>>(), [HostByte::TIME_OUT]);
    assert_eq!(done[0].tag, again);
    assert_ne!(tag, again);
    rig.after(ms(500));
    assert_eq!(rig.read_on(rig.a), None);
}

#[test]
fn the_task_aborted_status_of_an_rdac_array_can_be_set_and_outlives_a_reset() {
    let (mut rig, _) = rig(Personality::Rdac, Tpgs::None);
    let values = |rig: &mut Rig, control| {
        let cdb = Cdb::mode_sense_10_values(control, mode::CONTROL, 64);
        rig.run(cdb, &[], 64).data_in
    };
    let current = values(&mut rig, 0);
    assert_eq!(mode::task_aborted_status(&current), Some(false));
    assert_eq!(mode::task_aborted_status(&values(&mut rig, 1)), Some(true), "changeable");
    let list = mode::with_task_aborted_status(&current).unwrap();
    let len = u16::try_from(list.len()).unwrap();
    // SP and not PF, as the checker sends it.
    let done = rig.run(Cdb::mode_select_10(false, true, len), &list, 0);
    assert_eq!(done.completion, Completion::Good);
    let (a, b) = (rig.a, rig.b);
    rig.attentions_on(b);
    rig.array.set_latency(ms(5));
    let mine = rig.submit(a, read(), &[], BLOCK);
    let theirs = rig.submit(b, read(), &[], BLOCK);
    rig.inject(Fault::LuReset);
    for done in rig.poll() {
        if done.tag == theirs {
            assert!(matches!(
                done.completion,
                Completion::Scsi { status: Status::TASK_ABORTED, .. }
            ));
        } else {
            assert_eq!((done.tag, host_of(&done)), (mine, HostByte::RESET));
        }
    }
    rig.array.set_latency(ms(0));
    rig.attentions_on(a);
    for control in [0, 3] {
        assert_eq!(mode::task_aborted_status(&values(&mut rig, control)), Some(true));
    }
}

#[test]
fn a_generic_array_neither_sets_tas_nor_saves() {
    let mut rig = Rig::new(small());
    let cdb = Cdb::mode_sense_10_values(1, mode::CONTROL, 64);
    let changeable = rig.run(cdb, &[], 64).data_in;
    assert_eq!(mode::task_aborted_status(&changeable), Some(false));
    let save = Cdb::mode_select_10(true, true, 0);
    assert_eq!(sense_of(&rig.run(save, &[], 0)), Some(code(5, 0x24, 0)));
    let saved = Cdb::mode_sense_10_values(3, mode::CONTROL, 64);
    assert_eq!(sense_of(&rig.run(saved, &[], 64)), Some(code(5, 0x39, 0)));
    assert_eq!(sense_of(&rig.take(rig.a, &[0])), Some(code(5, 0x24, 0)));
    let c9 = Cdb::inquiry(Some(rdac::VOLUME_ACCESS), 252);
    assert_eq!(sense_of(&rig.run(c9, &[], 252)), Some(code(5, 0x24, 0)));
}

#[test]
fn a_clariion_says_which_sp_owns_the_lu_and_the_other_is_not_ready() {
    let (mut rig, c) = rig(Personality::Clariion, Tpgs::None);
    for (nexus, binding, sp) in [(rig.a, Binding::Owned, 0), (c, Binding::Bound, 1)] {
        let page = rig.unit_path_report(nexus);
        assert!(page.fit_for_failover());
        assert_eq!((page.binding, page.default_sp, page.current_sp), (binding, 0, sp));
        assert_eq!((page.operation, page.revision), (0, 0));
        assert_eq!(page.wwn, small().wwid_naa);
        assert_eq!(page.failover_mode, clariion::MODE_PNR);
        let passive = (binding == Binding::Bound).then_some(PASSIVE);
        assert_eq!(rig.read_on(nexus), passive);
        assert_eq!(sense_of(&rig.tur_on(nexus)), passive);
    }
}

#[test]
fn a_trespass_moves_a_clariion_lu() {
    let (mut rig, c) = rig(Personality::Clariion, Tpgs::None);
    let at = Plugged { group: Some(2), ..Plugged::default() };
    let d = rig.array.connect("d", at).unwrap();
    assert_eq!(rig.trespass(c).completion, Completion::Good);
    assert_eq!(rig.read_on(c), None);
    assert_eq!(rig.attentions_on(d), [SenseCode::POWER_ON_OR_RESET], "the first I/O over it");
    assert_eq!(rig.read_on(d), None);
    assert_eq!(rig.read_on(rig.a), Some(PASSIVE));
    let page = rig.unit_path_report(c);
    assert_eq!((page.binding, page.default_sp, page.current_sp), (Binding::Owned, 0, 1));
    let six = Trespass { honor_reservations: true }.encode_6();
    let done = rig.run(Cdb::mode_select_6(true, 8), &six, 0);
    assert_eq!(done.completion, Completion::Good);
    assert_eq!(rig.read_on(rig.a), None);
}

#[test]
fn with_access_states_the_other_controller_serves_too_and_stpg_moves_the_lu() {
    for personality in [Personality::Rdac, Personality::Clariion] {
        let (mut rig, c) = rig(personality, Tpgs::Explicit);
        let states = |rig: &mut Rig| [rig.a, c].map(|nexus| rig.array.access_state(nexus).unwrap());
        use AccessState::{ActiveNonOptimized, ActiveOptimized};
        assert_eq!(states(&mut rig), [ActiveOptimized, ActiveNonOptimized]);
        assert_eq!((rig.read_on(rig.a), rig.read_on(c)), (None, None));
        if personality == Personality::Rdac {
            assert!(rig.volume_access(c).ioship);
        } else {
            assert_eq!(rig.unit_path_report(c).failover_mode, clariion::MODE_ALUA);
        }
        let set = [alua::SetState { state: ActiveOptimized, group: 2 }];
        let list = alua::encode_set(&set);
        let done = rig.run_on(c, Cdb::set_target_port_groups(8), &list, 0);
        assert_eq!(done.completion, Completion::Good);
        assert_eq!(states(&mut rig), [ActiveNonOptimized, ActiveOptimized]);
        assert!(rig.attentions_on(rig.a).contains(&SenseCode::ACCESS_STATE_CHANGED));
        let cdb = Cdb::report_target_port_groups(false, 255);
        let groups = alua::parse(&rig.run(cdb, &[], 255).data_in);
        let told: Vec<_> = groups.iter().map(|group| group.state).collect();
        assert_eq!(told, [ActiveNonOptimized, ActiveOptimized]);
        rig.inject(Fault::TakeOwnership);
        assert_eq!(states(&mut rig), [ActiveOptimized, ActiveNonOptimized]);
    }
}

#[test]
fn the_state_of_a_group_stands_above_the_owner() {
    for personality in [Personality::Rdac, Personality::Clariion] {
        let (mut rig, c) = rig(personality, Tpgs::None);
        let (state, transition) = (AccessState::Unavailable, Duration::ZERO);
        rig.inject(Fault::Alua { state, transition });
        assert_eq!(rig.read_on(rig.a), Some(code(2, 4, 0x0c)));
        assert_eq!(rig.array.access_state(rig.a), Some(state));
        assert!(rig.read_on(c).is_some(), "nobody has moved it");
    }
}

#[test]
fn an_activation_is_refused_as_often_as_wanted() {
    let (mut rig, c) = rig(Personality::Rdac, Tpgs::None);
    let lock = code(5, 0x91, 0x36);
    rig.array.inject(rig.now, c, Fault::ActivationSense { code: lock, count: 2 });
    assert_eq!(sense_of(&rig.take(c, &[0])), Some(lock));
    assert_eq!(rig.tur_on(c).completion, Completion::Good, "nothing else is refused");
    assert_eq!(sense_of(&rig.take(c, &[0])), Some(lock));
    assert_eq!(rig.read_on(c), Some(NOT_OWNER));
    assert_eq!(rig.take(c, &[0]).completion, Completion::Good);
    assert_eq!(rig.read_on(c), None);
}
