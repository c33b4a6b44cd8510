//! Faults of whole controllers and of the array: takeover, upgrades.

use super::*;

/// Paths a and b in group 1, c in group 2, which is in `state`.
fn rig(config: LuConfig, state: AccessState) -> (Rig, NexusId) {
    let mut rig = Rig::new(config);
    let at = Plugged { group: Some(2), access: Some(state), ..Plugged::default() };
    let c = rig.array.connect("c", at).unwrap();
    (rig, c)
}

fn read() -> Cdb {
    Cdb::read(Extent::new(0, 1)).unwrap()
}

fn states(rig: &Rig, c: NexusId) -> [AccessState; 2] {
    [rig.a, c].map(|nexus| rig.array.access_state(nexus).unwrap())
}

#[test]
fn another_controller_takes_over_what_one_leaves() {
    use AccessState::{ActiveNonOptimized, ActiveOptimized, Standby, Transitioning, Unavailable};
    let (mut rig, c) = rig(small(), Standby);
    let (a, b) = (rig.a, rig.b);
    rig.array.set_latency(ms(5));
    let write = Cdb::write(Extent::new(0, 1), false).unwrap();
    for nexus in [a, b] {
        rig.submit(nexus, write, &[1; BLOCK], 0);
    }
    rig.inject(Fault::ControllerDown { takeover: ms(50) });
    let ends: Vec<_> = rig.poll().iter().map(host_of).collect();
    assert_eq!(ends, [HostByte::TRANSPORT_DISRUPTED; 2], "every path of the group");
    rig.array.set_latency(ms(0));
    assert_eq!(states(&rig, c), [Unavailable, Transitioning]);
    assert_eq!(rig.array.condition(b).unwrap(), "controller down, unavailable");
    for nexus in [a, b] {
        let done = rig.run_on(nexus, Cdb::inquiry(None, 36), &[], 36);
        assert_eq!(host_of(&done), HostByte::NO_CONNECT);
    }
    assert_eq!(sense_of(&rig.tur_on(c)), Some(SenseCode::ACCESS_STATE_CHANGED));
    assert_eq!(sense_of(&rig.tur_on(c)), Some(code(2, 4, 0x0a)));
    rig.after(ms(50));
    assert_eq!(rig.attentions_on(c), [SenseCode::ACCESS_STATE_CHANGED]);
    let done = rig.run_on(c, read(), &[], BLOCK);
    assert_eq!((done.completion, done.data_in[0]), (Completion::Good, 0), "nothing came of it");
    // A plug mends a path, not a controller.
    rig.inject(Fault::Plug);
    assert_eq!(host_of(&rig.tur()), HostByte::NO_CONNECT);

    rig.inject(Fault::ControllerUp);
    assert_eq!(states(&rig, c), [ActiveNonOptimized, ActiveOptimized]);
    for nexus in [a, b] {
        let wanted = [SenseCode::POWER_ON_OR_RESET, SenseCode::ACCESS_STATE_CHANGED];
        assert_eq!(rig.attentions_on(nexus), wanted);
    }
    assert_eq!(rig.attentions_on(c), [SenseCode::ACCESS_STATE_CHANGED]);
    rig.inject(Fault::ControllerUp);
    assert_eq!(rig.attentions_on(c), [], "it is up already");
}

#[test]
fn the_last_controller_leaves_nothing_and_comes_back_as_the_best() {
    use AccessState::{ActiveOptimized, Standby, Unavailable};
    let (mut rig, c) = rig(small(), Standby);
    let down = Fault::ControllerDown { takeover: ms(50) };
    rig.inject(down);
    rig.array.inject(rig.now, c, down);
    rig.after(ms(100));
    assert_eq!(states(&rig, c), [Unavailable; 2]);
    rig.array.inject(rig.now, c, Fault::ControllerUp);
    assert_eq!(states(&rig, c), [Unavailable, ActiveOptimized]);
}

#[test]
fn set_target_port_groups_cannot_wake_the_dead() {
    let (mut rig, c) = rig(small(), AccessState::Standby);
    rig.inject(Fault::ControllerDown { takeover: Duration::ZERO });
    rig.attentions_on(c);
    let list = [0, 0, 0, 0, 0, 0, 0, 1];
    let done = rig.run_on(c, Cdb::set_target_port_groups(8), &list, 0);
    assert_eq!(sense_of(&done), Some(code(4, 0x67, 0x0a)));
}

#[test]
fn owned_lus_move_to_the_controller_that_is_left() {
    for personality in [Personality::Rdac, Personality::Clariion] {
        let config = LuConfig { personality, tpgs: Tpgs::None, ..small() };
        let (mut rig, c) = rig(config, AccessState::ActiveOptimized);
        rig.inject(Fault::ControllerDown { takeover: ms(50) });
        assert_eq!(sense_of(&rig.run_on(c, read(), &[], BLOCK)), Some(code(2, 4, 1)));
        rig.after(ms(50));
        assert_eq!(rig.attentions_on(c).len(), 1, "it is told");
        assert_eq!(rig.run_on(c, read(), &[], BLOCK).completion, Completion::Good);
        rig.inject(Fault::ControllerUp);
        rig.attentions_on(rig.a);
        let refused = sense_of(&rig.run(read(), &[], BLOCK));
        assert!(refused.is_some(), "it does not take it back: {personality:?}");
        // Both down, and one up again: it has what nobody has.
        rig.array.inject(rig.now, c, Fault::ControllerDown { takeover: Duration::ZERO });
        rig.attentions_on(rig.a);
        assert_eq!(rig.run(read(), &[], BLOCK).completion, Completion::Good);
    }
}

#[test]
fn an_upgrade_looks_as_it_is_told_to_and_ends_by_itself() {
    let changed = code(6, 0x3f, 1);
    for (how, status, sense, host, told) in [
        (Upgrade::Busy, Status::BUSY, None, HostByte::OK, vec![changed]),
        (
            Upgrade::BecomingReady,
            Status::CHECK_CONDITION,
            Some(code(2, 4, 1)),
            HostByte::OK,
            vec![changed],
        ),
        (
            Upgrade::Gone,
            Status::GOOD,
            None,
            HostByte::NO_CONNECT,
            vec![SenseCode::POWER_ON_OR_RESET, changed],
        ),
    ] {
        let (mut rig, c) = rig(small(), AccessState::ActiveOptimized);
        rig.inject(Fault::Upgrade { how, lasting: ms(100) });
        for nexus in [rig.a, rig.b, c] {
            for cdb in [Cdb::test_unit_ready(), read()] {
                let done = rig.run_on(nexus, cdb, &[], 512);
                let Completion::Scsi { status: s, host: h, .. } = done.completion else {
                    panic!("served while upgrading: {how:?}")
                };
                assert_eq!((s, h, sense_of(&done)), (status, host, sense), "{how:?}");
            }
        }
        let inquiry = rig.run(Cdb::inquiry(None, 36), &[], 36);
        assert_eq!(inquiry.completion == Completion::Good, how != Upgrade::Gone);
        assert!(rig.array.condition(c).unwrap().contains("firmware upgrade"));
        rig.after(ms(100));
        for nexus in [rig.a, rig.b, c] {
            assert_eq!(rig.attentions_on(nexus), told, "{how:?}");
        }
        assert_eq!(rig.array.condition(c).unwrap(), "none");
        rig.inject(Fault::Upgrade { how, lasting: ms(100) });
        rig.inject(Fault::Upgrade { how, lasting: Duration::ZERO });
        assert_eq!(rig.attentions_on(c), told, "ended before its time");
        rig.inject(Fault::Upgrade { how, lasting: Duration::ZERO });
        assert_eq!(rig.attentions_on(c), [], "there was none");
    }
}

#[test]
fn no_lu_moves_while_the_firmware_is_upgraded() {
    use crate::scsi::clariion::{Trespass, UnitPathReport};
    let personality = Personality::Clariion;
    let config = LuConfig { personality, tpgs: Tpgs::None, ..small() };
    let (mut rig, c) = rig(config, AccessState::ActiveOptimized);
    rig.inject(Fault::Upgrade { how: Upgrade::BecomingReady, lasting: ms(100) });
    let list = Trespass { honor_reservations: false }.encode_10();
    let trespass = Cdb::mode_select_10(true, false, 19);
    assert_eq!(sense_of(&rig.run_on(c, trespass, &list, 0)), Some(code(2, 4, 3)));
    let page = rig.run_on(c, Cdb::inquiry(Some(0xc0), 252), &[], 252).data_in;
    assert_ne!(UnitPathReport::parse(&page).unwrap().operation, 0);
    rig.after(ms(100));
    rig.attentions_on(c);
    assert_eq!(rig.run_on(c, trespass, &list, 0).completion, Completion::Good);
}
