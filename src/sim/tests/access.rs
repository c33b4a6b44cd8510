//! Target ports, their groups, and asymmetric access states.

use super::*;
use crate::scsi::vpd::{self, Association, DesignatorKind};

/// Two paths in group 1, one in group 2.
fn rig() -> (Rig, NexusId) {
    let mut rig = Rig::new(small());
    let at = Plugged { port: Some(0x102), group: Some(2), ..Plugged::default() };
    let c = rig.array.connect("c", at).unwrap();
    (rig, c)
}

fn rtpg(format: u8) -> Cdb {
    raw(&[0xa3, format << 5 | 0x0a, 0, 0, 0, 0, 0, 0, 0, 255])
}

fn stpg(states: &[(u16, u8)]) -> (Cdb, Vec<u8>) {
    let mut list = vec![0; 4];
    for (group, state) in states {
        let [high, low] = group.to_be_bytes();
        list.extend([*state, 0, high, low]);
    }
    (raw(&[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, u8::try_from(list.len()).unwrap()]), list)
}

/// Group, PREF, state, status code, ports.
type Reported = (u16, bool, u8, u8, Vec<u16>);

impl Rig {
    fn groups(&mut self, over: NexusId) -> Vec<Reported> {
        let data = self.run_on(over, rtpg(0), &[], 255).data_in;
        let word = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
        assert_eq!(usize::from(word(2)) + 4, data.len());
        let (mut at, mut groups) = (4, Vec::new());
        while at < data.len() {
            let ports = usize::from(data[at + 7]);
            let port = |i: usize| word(at + 8 + 4 * i + 2);
            let ids = (0..ports).map(port).collect();
            groups.push((word(at + 2), data[at] & 0x80 != 0, data[at] & 0x0f, data[at + 5], ids));
            at += 8 + 4 * ports;
        }
        groups
    }
}

fn alua(state: AccessState) -> Fault {
    Fault::Alua { state, transition: Duration::ZERO }
}

#[test]
fn every_group_and_port_is_reported_over_every_path() {
    let (mut rig, c) = rig();
    let wanted = [(1, false, 0, 0, vec![1, 2]), (2, false, 0, 0, vec![0x102])];
    for nexus in [rig.a, rig.b, c] {
        assert_eq!(rig.groups(nexus), wanted);
    }
    let short = rig.run(rtpg(0), &[], 255).data_in;
    let extended = rig.run(rtpg(1), &[], 255).data_in;
    assert_eq!(extended[4..8], [0x10, 0, 0, 0]);
    assert_eq!(extended[8..], short[4..]);
    assert_eq!(sense_of(&rig.run(rtpg(2), &[], 255)), Some(code(5, 0x24, 0)));
    rig.array.remove_nexus(rig.now, c);
    assert_eq!(rig.groups(rig.a), wanted[..1]);
}

#[test]
fn page_83_names_lu_port_and_group() {
    let (mut rig, c) = rig();
    let mut names = Vec::new();
    for (nexus, port, group) in [(rig.a, 1, 1), (rig.b, 2, 1), (c, 0x102, 2)] {
        let page = rig.run_on(nexus, Cdb::inquiry(Some(0x83), 255), &[], 255).data_in;
        let list: Vec<_> = vpd::designators(&page).unwrap().collect();
        assert!(list.iter().any(|d| d.relative_target_port() == Some(port)));
        assert!(list.iter().any(|d| d.target_port_group() == Some(group)));
        let of_port = list
            .iter()
            .find(|d| (d.association, d.kind) == (Association::TargetPort, DesignatorKind::Naa));
        let name = of_port.unwrap().bytes;
        assert_eq!((name.len(), name[0] >> 4), (8, 5), "NAA, IEEE Registered");
        names.push(name.to_vec());
        assert_eq!(
            vpd::wwid(Some(&page), None).as_deref(),
            Some("3600000000073696d0000000000000001")
        );
    }
    names.dedup();
    assert_eq!(names.len(), 3, "every port has its own name");
}

#[test]
fn each_state_serves_what_the_standard_says() {
    let (mut rig, c) = rig();
    use AccessState::{ActiveNonOptimized, Offline, Standby, Transitioning, Unavailable};
    let commands = [
        Cdb::inquiry(None, 96),
        Cdb::report_luns(16),
        rtpg(0),
        Cdb::request_sense(18),
        stpg(&[]).0,
        Cdb::mode_sense_10(8, 64),
        Cdb::read_capacity_16(32),
        Cdb::test_unit_ready(),
        Cdb::read(Extent::new(0, 1)).unwrap(),
    ];
    for (state, ascq, served) in [
        (ActiveNonOptimized, 0, 9),
        (Standby, 0x0b, 7),
        (Unavailable, 0x0c, 5),
        (Offline, 0x12, 5),
        (Transitioning, 0x0a, 4),
    ] {
        rig.array.inject(rig.now, c, alua(state));
        assert_eq!(rig.array.access_state(c), Some(state));
        let clear = rig.run_on(c, Cdb::request_sense(18), &[], 18); // the unit attention
        assert_eq!(Sense::from_bytes(&clear.data_in).code(), Some(code(6, 0x2a, 6)));
        rig.attentions_on(rig.a);
        for (index, cdb) in commands.iter().enumerate() {
            let sense = sense_of(&rig.run_on(c, *cdb, &[0; 4], 512));
            let wanted = (index >= served).then_some(code(2, 4, ascq));
            assert_eq!(sense, wanted, "{state:?} {cdb:?}");
        }
        assert_eq!(rig.tur().completion, Completion::Good, "the other group is active");
    }
}

#[test]
fn a_transition_takes_its_time_and_tells_everybody_at_its_end() {
    let (mut rig, c) = rig();
    let b = rig.b;
    rig.inject(Fault::Alua { state: AccessState::Standby, transition: ms(50) });
    assert_eq!(sense_of(&rig.tur()), Some(code(2, 4, 0x0a)));
    assert_eq!(sense_of(&rig.tur_on(b)), Some(code(2, 4, 0x0a)), "b is of the same group");
    assert_eq!(rig.tur_on(c).completion, Completion::Good);
    assert_eq!(rig.groups(c)[0].2, 0xf);
    rig.after(ms(49));
    assert_eq!(sense_of(&rig.tur()), Some(code(2, 4, 0x0a)));
    rig.now = rig.now + ms(1); // nobody polls
    assert_eq!(sense_of(&rig.tur()), Some(code(6, 0x2a, 6)));
    assert_eq!(sense_of(&rig.tur()), Some(code(2, 4, 0x0b)));
    assert_eq!(rig.attentions_on(c), [code(6, 0x2a, 6)]);
    assert_eq!(rig.groups(c)[0], (1, false, 2, 2, vec![1, 2]), "implicit");
}

#[test]
fn a_plug_does_not_change_an_access_state() {
    let (mut rig, _) = rig();
    rig.inject(alua(AccessState::Standby));
    rig.inject(Fault::Plug);
    assert_eq!(sense_of(&rig.tur()), Some(code(6, 0x29, 7)));
    assert_eq!(sense_of(&rig.tur()), Some(code(2, 4, 0x0b)));
    assert_eq!(rig.array.condition(rig.a).unwrap(), "standby");
}

#[test]
fn set_target_port_groups_moves_states_and_tells_the_others() {
    let (mut rig, c) = rig();
    let (cdb, list) = stpg(&[(1, 2), (2, 1)]);
    assert_eq!(rig.run_on(c, cdb, &list, 0).completion, Completion::Good);
    assert_eq!(rig.attentions_on(c), [], "not the one that asked");
    assert_eq!(sense_of(&rig.tur()), Some(code(6, 0x2a, 6)));
    assert_eq!(sense_of(&rig.tur()), Some(code(2, 4, 0x0b)));
    let wanted = [(1, false, 2, 1, vec![1, 2]), (2, false, 1, 1, vec![0x102])];
    assert_eq!(rig.groups(c), wanted);
    // Also from standby: that is how a host activates a path.
    let (cdb, list) = stpg(&[(1, 0)]);
    assert_eq!(rig.run(cdb, &list, 0).completion, Completion::Good);
    assert_eq!(rig.tur().completion, Completion::Good);

    let parameter = Some(code(5, 0x26, 0));
    for (states, wanted) in [
        (vec![(1, 2), (9, 0)], parameter),
        (vec![(2, 2), (1, 0xf)], parameter),
        (vec![(1, 0xe)], parameter),
    ] {
        let (cdb, list) = stpg(&states);
        assert_eq!(sense_of(&rig.run(cdb, &list, 0)), wanted);
    }
    let odd = raw(&[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 7]);
    assert_eq!(sense_of(&rig.run(odd, &[0; 7], 0)), Some(code(5, 0x1a, 0)));
    assert_eq!(rig.groups(rig.a)[1].2, 1, "all or nothing");
}

#[test]
fn what_is_asked_for_takes_the_time_that_is_told() {
    let (mut rig, c) = rig();
    rig.array.set_transition(ms(1500));
    assert_eq!(rig.run(rtpg(1), &[], 255).data_in[4..8], [0x10, 2, 0, 0]);
    let (cdb, list) = stpg(&[(1, 2), (2, 0)]);
    assert_eq!(rig.run_on(c, cdb, &list, 0).completion, Completion::Good, "at once");
    assert_eq!(rig.tur_on(c).completion, Completion::Good, "its group was there already");
    assert_eq!(sense_of(&rig.tur()), Some(code(2, 4, 0x0a)));
    assert_eq!(rig.array.access_state(rig.a), Some(AccessState::Transitioning));
    rig.after(ms(1499));
    assert_eq!(sense_of(&rig.tur()), Some(code(2, 4, 0x0a)));
    rig.after(ms(1));
    assert_eq!(rig.attentions_on(c), [], "not the one that asked");
    assert_eq!(sense_of(&rig.tur()), Some(code(6, 0x2a, 6)));
    assert_eq!(sense_of(&rig.tur()), Some(code(2, 4, 0x0b)));
    assert_eq!(rig.groups(c)[0].3, 1, "explicit");
}

#[test]
fn a_state_that_is_not_reached_is_told_as_such_and_the_old_one_stays() {
    let (mut rig, c) = rig();
    rig.array.inject(rig.now, c, Fault::AluaFails { transition: ms(50) });
    assert_eq!(sense_of(&rig.tur_on(c)), Some(code(2, 4, 0x0a)));
    assert_eq!(rig.tur().completion, Completion::Good);
    rig.after(ms(50));
    assert_eq!(rig.attentions_on(rig.a), [code(6, 0x2a, 7)]);
    assert_eq!(rig.attentions_on(c), [code(6, 0x2a, 7)]);
    assert_eq!(rig.array.access_state(c), Some(AccessState::ActiveOptimized));
    rig.array.inject(rig.now, c, Fault::AluaFails { transition: Duration::ZERO });
    assert_eq!(rig.attentions_on(c), [code(6, 0x2a, 7)]);
}

#[test]
fn a_transition_may_never_end() {
    let (mut rig, c) = rig();
    rig.array.inject(rig.now, c, alua(AccessState::Transitioning));
    rig.attentions_on(rig.a);
    let at = Fault::Alua { state: AccessState::Standby, transition: Duration::MAX };
    rig.inject(at);
    rig.after(Duration::from_secs(3600));
    for nexus in [rig.a, c] {
        let sense = rig.attentions_on(nexus);
        assert_eq!(sense.last(), Some(&code(2, 4, 0x0a)));
    }
}

#[test]
fn each_tpgs_mode_is_told_and_does_what_it_says() {
    for (tpgs, bits, reports, sets) in [
        (Tpgs::None, 0, false, false),
        (Tpgs::Implicit, 1, true, false),
        (Tpgs::Explicit, 2, true, true),
        (Tpgs::Both, 3, true, true),
    ] {
        let mut rig = Rig::new(LuConfig { tpgs, ..small() });
        let inquiry = rig.run(Cdb::inquiry(None, 96), &[], 96).data_in;
        assert_eq!(inquiry[5] >> 4 & 3, bits);
        let good = |done: Done| sense_of(&done).is_none();
        assert_eq!(good(rig.run(rtpg(0), &[], 255)), reports, "{tpgs:?}");
        let (cdb, list) = stpg(&[(1, 1)]);
        assert_eq!(good(rig.run(cdb, &list, 0)), sets, "{tpgs:?}");
        let b = rig.b;
        rig.attentions_on(b);
        rig.inject(alua(AccessState::Standby));
        let told = rig.attentions_on(b).contains(&code(6, 0x2a, 6));
        assert_eq!(told, reports, "{tpgs:?}");
        let fact = reports.then_some((AccessState::Standby, false));
        assert_eq!(rig.array.access_fact(rig.a), fact, "{tpgs:?}");
    }
}

#[test]
fn a_path_may_come_with_the_state_of_its_group() {
    let (mut rig, c) = rig();
    let access = Some(AccessState::Standby);
    let at = Plugged { group: Some(3), access, ..Plugged::default() };
    let d = rig.array.connect("d", at).unwrap();
    assert_eq!(sense_of(&rig.tur_on(d)), Some(code(2, 4, 0x0b)), "nothing has changed for it");
    let e = rig.array.connect("e", Plugged { access: None, ..at }).unwrap();
    assert_eq!(rig.array.access_state(e), Some(AccessState::Standby));
    assert_eq!(rig.array.access_state(c), Some(AccessState::ActiveOptimized));
    assert_eq!(rig.attentions_on(c), [code(6, 0x2a, 6)]);
    assert_eq!(rig.groups(c)[2].3, 0, "nobody has changed it");
}

#[test]
fn another_hosts_activation_is_told_to_every_path() {
    let (mut rig, c) = rig();
    rig.array.inject(rig.now, c, alua(AccessState::Standby));
    rig.attentions_on(rig.a);
    rig.attentions_on(c);
    rig.array.set_transition(ms(10));
    rig.array.inject(rig.now, c, Fault::TakeOwnership);
    assert_eq!(sense_of(&rig.tur_on(c)), Some(code(2, 4, 0x0a)));
    rig.after(ms(10));
    assert_eq!(rig.attentions_on(c), [code(6, 0x2a, 6)]);
    assert_eq!(rig.attentions_on(rig.a), [code(6, 0x2a, 6)]);
    assert_eq!(rig.array.access_state(c), Some(AccessState::ActiveOptimized));
}

#[test]
fn a_preferred_group_is_marked() {
    let (mut rig, c) = rig();
    rig.array.inject(rig.now, c, Fault::Prefer(true));
    assert_eq!(rig.attentions_on(rig.a), [code(6, 0x2a, 6)]);
    let preferred: Vec<bool> = rig.groups(rig.a).iter().map(|group| group.1).collect();
    assert_eq!(preferred, [false, true]);
    assert_eq!(rig.array.condition(c).unwrap(), "preferred");
    rig.array.inject(rig.now, c, Fault::Prefer(true));
    assert_eq!(rig.attentions_on(rig.a), [], "nothing new");
}

#[test]
fn a_port_is_in_one_group_and_may_be_shared() {
    let (mut rig, _) = rig();
    let at = |port, group| Plugged { port: Some(port), group, ..Plugged::default() };
    let refused = rig.array.connect("d", at(0x102, Some(1))).unwrap_err();
    assert_eq!(refused, PortConflict { port: 0x102, group: 2 });
    let d = rig.array.connect("d", at(0x102, None)).unwrap();
    rig.array.inject(rig.now, d, alua(AccessState::Unavailable));
    rig.attentions_on(rig.b);
    assert_eq!(rig.groups(rig.b)[1], (2, false, 3, 2, vec![0x102]));
    let e = rig.array.add_nexus("e");
    rig.array.remove_nexus(rig.now, e);
    rig.array.remove_nexus(rig.now, d);
    assert_eq!(rig.groups(rig.b)[1].4, [0x102], "c still has it");
}
