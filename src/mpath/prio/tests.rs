//! Every prioritizer: what it sends, and its numbers row by row.

use super::groups::priority;
use super::*;
use crate::io::{Completion, ErrnoFrom};
use crate::mpath::probe::outcome::inquiry;
use crate::mpath::probe::{Fact, Probe, Transfer};
use crate::scsi::alua::{TargetPortGroup, encode};
use crate::scsi::clariion::{Binding, UnitPathReport};
use crate::scsi::inquiry::Inquiry;
use crate::scsi::rdac::{Preference, VolumeAccess};
use crate::scsi::sense::{Sense, SenseCode};
use crate::scsi::status::{HostByte, Status};
use crate::scsi::vpd::{self, Association, Designator, DesignatorKind};
use proptest::prelude::*;

use AccessState::{
    ActiveNonOptimized, ActiveOptimized, LbaDependent, Offline, Reserved, Standby, Transitioning,
    Unavailable,
};

fn check(code: SenseCode) -> Answer {
    ended(Completion::Scsi {
        status: Status::CHECK_CONDITION,
        host: HostByte::OK,
        sense: Sense::fixed(code),
        residual: 0,
    })
}

fn cut() -> Answer {
    let (host, sense) = (HostByte::NO_CONNECT, Sense::EMPTY);
    ended(Completion::Scsi { status: Status::GOOD, host, sense, residual: 0 })
}

fn ended(completion: Completion) -> Answer {
    Answer::Completed { completion, data: Vec::new(), took: Duration::ZERO }
}

/// Data cut to what was asked for, as a path would deliver it.
fn data(probe: &Probe, mut data: Vec<u8>) -> Answer {
    let Probe::Command { transfer: Transfer::In(asked), .. } = probe else {
        panic!("{probe:?} reads nothing")
    };
    data.truncate(*asked);
    let completion = match data.len() == *asked {
        true => Completion::Good,
        false => Completion::Short(data.len()),
    };
    Answer::Completed { completion, data, took: Duration::ZERO }
}

/// Runs it to its end; returns what it came to, and what it sent.
fn run(
    prioritizer: &mut Prioritizer,
    mut answer: impl FnMut(&Probe) -> Answer,
) -> (Reading, Vec<Probe>) {
    let mut sent = Vec::new();
    let mut step = prioritizer.begin();
    loop {
        match step {
            Step::Done(reading) => return (reading, sent),
            Step::Issue(probe) => {
                assert!(sent.len() < 300, "it never ends");
                step = prioritizer.on_answer(&answer(&probe));
                sent.push(probe);
            }
        }
    }
}

fn of(kind: PrioKind) -> Prioritizer {
    Prioritizer::new(kind, &Attributes { devname: "sdb".into(), ..Attributes::default() })
}

/// An LU with target port groups, as one of its ports answers.
#[derive(Clone)]
struct Lu {
    tpgs: u8,
    own: u16,
    groups: Vec<(u16, AccessState, bool)>,
    extended: bool,
    transition: u8,
    ports: usize,
}

impl Lu {
    fn new(state: AccessState) -> Lu {
        let groups = vec![(1, ActiveOptimized, false), (2, state, false)];
        Lu { tpgs: 3, own: 2, groups, extended: true, transition: 60, ports: 1 }
    }

    fn answer(&self, probe: &Probe) -> Answer {
        let Probe::Command { cdb, .. } = probe else { panic!("{probe:?}") };
        let raw = cdb.as_slice();
        match (raw[0], raw[1], raw[2]) {
            (0x12, 0, _) => {
                data(probe, Inquiry { tpgs: self.tpgs, ..Inquiry::default() }.encode().to_vec())
            }
            (0x12, 1, 0x83) => {
                let [high, low] = self.own.to_be_bytes();
                let (association, kind) =
                    (Association::TargetPort, DesignatorKind::TargetPortGroup);
                let bytes = &[0, 0, high, low];
                data(probe, vpd::encode_identification(&[Designator { association, kind, bytes }]))
            }
            (0xa3, 0x2a, _) if !self.extended => check(SenseCode::INVALID_FIELD_IN_CDB),
            (0xa3, 0x0a | 0x2a, _) => {
                let groups: Vec<_> = self
                    .groups
                    .iter()
                    .map(|(id, state, preferred)| TargetPortGroup {
                        id: *id,
                        state: *state,
                        preferred: *preferred,
                        supported: 0xdf,
                        status_code: 0,
                        ports: (1..).take(self.ports).collect(),
                    })
                    .collect();
                data(probe, encode((raw[1] == 0x2a).then_some(self.transition), &groups))
            }
            _ => panic!("{cdb:?}"),
        }
    }
}

fn names(sent: &[Probe]) -> Vec<String> {
    let name = |probe: &Probe| match probe {
        Probe::Command { cdb, .. } if cdb.opcode() == 0x12 => {
            format!("{:02x}", cdb.as_slice()[2])
        }
        Probe::Command { cdb, .. } if cdb.opcode() == 0xa3 => {
            if cdb.as_slice()[1] == 0x2a { "rtpg+" } else { "rtpg" }.to_owned()
        }
        other => format!("{other:?}"),
    };
    sent.iter().map(name).collect()
}

#[test]
fn access_states_are_worth_what_they_are_in_multipath_tools() {
    let table = [
        (ActiveOptimized, 50, 50, 130),
        (ActiveNonOptimized, 10, 90, 90),
        (LbaDependent, 5, 85, 85),
        (Standby, 1, 81, 81),
        (Unavailable, 0, 80, 80),
        (Offline, 0, 80, 80),
        (Transitioning, 0, 80, 80),
        (Reserved(7), 0, 80, 80),
    ];
    for (state, plain, preferred, exclusive) in table {
        assert_eq!(priority(state, false, false), plain, "{state:?}");
        assert_eq!(priority(state, false, true), plain, "{state:?}");
        assert_eq!(priority(state, true, false), preferred, "{state:?}");
        assert_eq!(priority(state, true, true), exclusive, "{state:?}");
        for (pref, wanted) in [(false, preferred), (true, exclusive)] {
            let mut lu = Lu::new(state);
            lu.groups[1].2 = true;
            let mut alua = of(PrioKind::Alua { exclusive_pref: pref });
            assert_eq!(run(&mut alua, |p| lu.answer(p)).0.priority, Some(wanted));
        }
    }
}

#[test]
fn alua_reads_all_groups_and_remembers_what_does_not_change() {
    let lu = Lu::new(Standby);
    let mut alua = of(PrioKind::Alua { exclusive_pref: false });
    let (reading, sent) = run(&mut alua, |p| lu.answer(p));
    assert_eq!(names(&sent), ["00", "83", "rtpg+"]);
    let found = AluaReading {
        own: 2,
        implicit: true,
        explicit: true,
        transition: Some(Duration::from_secs(60)),
        groups: lu.groups.clone(),
    };
    assert_eq!(reading, Reading { priority: Some(1), alua: Some(found) });
    let (_, sent) = run(&mut alua, |p| lu.answer(p));
    assert_eq!(names(&sent), ["rtpg+"]);
    for (tpgs, implicit, explicit) in [(1, true, false), (2, false, true), (0, false, false)] {
        let lu = Lu { tpgs, transition: 0, ..lu.clone() };
        let mut alua = of(PrioKind::Alua { exclusive_pref: false });
        let found = run(&mut alua, |p| lu.answer(p)).0.alua.unwrap();
        assert_eq!((found.implicit, found.explicit, found.transition), (implicit, explicit, None));
    }
}

#[test]
fn alua_does_without_the_extended_header_where_it_is_refused() {
    let lu = Lu { extended: false, ..Lu::new(ActiveNonOptimized) };
    let mut alua = of(PrioKind::Alua { exclusive_pref: false });
    let (reading, sent) = run(&mut alua, |p| lu.answer(p));
    assert_eq!(names(&sent), ["00", "83", "rtpg+", "rtpg"]);
    assert_eq!(reading.priority, Some(10));
    assert_eq!(reading.alua.unwrap().transition, None);
    assert_eq!(names(&run(&mut alua, |p| lu.answer(p)).1), ["rtpg"]);
}

#[test]
fn alua_asks_again_for_a_report_longer_than_expected() {
    let lu = Lu { ports: 255, ..Lu::new(Standby) };
    let mut alua = of(PrioKind::Alua { exclusive_pref: false });
    let (reading, sent) = run(&mut alua, |p| lu.answer(p));
    assert_eq!(names(&sent), ["00", "83", "rtpg+", "rtpg+"]);
    assert_eq!(reading.alua.unwrap().groups, lu.groups);
    let Probe::Command { transfer: Transfer::In(len), .. } = sent[3] else { panic!() };
    assert_eq!(len, 8 + 2 * (8 + 4 * 255));
}

#[test]
fn alua_finds_its_group_again_when_the_port_has_moved() {
    let mut lu = Lu::new(Standby);
    let mut alua = of(PrioKind::Alua { exclusive_pref: false });
    run(&mut alua, |p| lu.answer(p));
    (lu.own, lu.groups) = (7, vec![(7, ActiveOptimized, false)]);
    let (reading, sent) = run(&mut alua, |p| lu.answer(p));
    assert_eq!(names(&sent), ["rtpg+", "83", "rtpg+"]);
    assert_eq!((reading.priority, reading.alua.unwrap().own), (Some(50), 7));
    // Nowhere to be found: what was known is not known any more, no loop.
    lu.own = 8;
    lu.groups = vec![(9, ActiveOptimized, false)];
    assert_eq!(run(&mut alua, |p| lu.answer(p)).0, UNKNOWN);
}

#[test]
fn a_report_that_the_lu_cannot_give_in_transition_says_transition() {
    let lu = Lu::new(Standby);
    let mut alua = of(PrioKind::Alua { exclusive_pref: false });
    for code in [
        SenseCode::NOT_READY_TRANSITIONING,
        SenseCode::new(crate::scsi::sense::Key::UnitAttention, 0x04, 0x0a),
    ] {
        let (reading, _) =
            run(&mut alua, |probe| match names(std::slice::from_ref(probe))[0].as_str() {
                "rtpg+" => check(code),
                _ => lu.answer(probe),
            });
        assert_eq!(reading.priority, Some(0));
        assert_eq!(reading.alua.unwrap().groups, [(2, Transitioning, false)]);
    }
}

#[test]
fn unit_attentions_are_ridden_over_and_a_dead_path_keeps_its_priority() {
    let lu = Lu::new(Standby);
    let mut alua = of(PrioKind::Alua { exclusive_pref: false });
    let mut first = true;
    let (reading, sent) = run(&mut alua, |probe| {
        if names(std::slice::from_ref(probe)) == ["rtpg+"] && std::mem::take(&mut first) {
            return check(SenseCode::ACCESS_STATE_CHANGED);
        }
        lu.answer(probe)
    });
    assert_eq!((reading.priority, names(&sent).len()), (Some(1), 4));
    assert_eq!(run(&mut alua, |_| cut()).0, UNKNOWN);
    let (reading, sent) = run(&mut alua, |_| check(SenseCode::POWER_ON_OR_RESET));
    assert_eq!((reading, sent.len()), (UNKNOWN, 5));
}

#[test]
fn detect_is_alua_where_the_lu_has_target_port_groups() {
    let lu = Lu::new(ActiveNonOptimized);
    let mut detect = of(PrioKind::Detect);
    let (reading, sent) = run(&mut detect, |p| lu.answer(p));
    assert_eq!((reading.priority, names(&sent).len()), (Some(10), 3));
    assert!(reading.alua.is_some());
    // What it has reported once it has; an error does not make it another LU.
    let refused = |_: &Probe| check(SenseCode::INVALID_OPCODE);
    assert_eq!(run(&mut detect, refused).0, UNKNOWN);
    assert_eq!(run(&mut detect, |p| lu.answer(p)).0.priority, Some(10));
}

#[test]
fn detect_is_const_where_it_has_none_and_asks_once() {
    let none = Lu { tpgs: 0, ..Lu::new(Standby) };
    let mut detect = of(PrioKind::Detect);
    assert_eq!(run(&mut detect, |_| cut()).0, UNKNOWN, "nothing was learned");
    let (reading, sent) = run(&mut detect, |p| none.answer(p));
    assert_eq!((reading.priority, names(&sent)), (Some(1), vec!["00".to_owned()]));
    assert_eq!(run(&mut detect, |_| cut()), (alua::CONST, vec![]), "remembered");
    // TPGS without the command, and a path that speaks no SCSI.
    let lu = Lu::new(Standby);
    let (reading, _) =
        run(&mut of(PrioKind::Detect), |p| match names(std::slice::from_ref(p))[0].as_str() {
            "rtpg" | "rtpg+" => check(SenseCode::INVALID_OPCODE),
            _ => lu.answer(p),
        });
    assert_eq!(reading, alua::CONST);
    let file = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENOTTY };
    assert_eq!(run(&mut of(PrioKind::Detect), |_| ended(file)).0, alua::CONST);
}

#[test]
fn sysfs_has_the_kernels_state_of_its_own_group() {
    let lu = Lu::new(Standby);
    let mut sysfs = of(PrioKind::Sysfs { exclusive_pref: false });
    let fact = |state| {
        move |probe: &Probe| match probe {
            Probe::Fact(Fact::AccessState) => Answer::AccessState(state),
            _ => lu.answer(probe),
        }
    };
    let (reading, sent) = run(&mut sysfs, fact(Some((ActiveNonOptimized, true))).clone());
    assert_eq!((reading.priority, sent.len()), (Some(90), 3));
    let found = reading.alua.unwrap();
    assert_eq!((found.own, found.groups), (2, vec![(2, ActiveNonOptimized, true)]));
    assert!(found.explicit && found.implicit);
    let lu = Lu::new(Standby);
    let none = move |probe: &Probe| match probe {
        Probe::Fact(_) => Answer::AccessState(None),
        _ => lu.answer(probe),
    };
    let (reading, sent) = run(&mut sysfs, none);
    assert_eq!((reading, sent), (UNKNOWN, vec![Probe::Fact(Fact::AccessState)]));
}

#[test]
fn sysfs_works_without_target_port_groups_of_the_lu() {
    // The kernel's rdac handler states access states, too.
    let mut sysfs = of(PrioKind::Sysfs { exclusive_pref: true });
    let (reading, _) = run(&mut sysfs, |probe| match probe {
        Probe::Fact(_) => Answer::AccessState(Some((ActiveOptimized, true))),
        _ => check(SenseCode::INVALID_FIELD_IN_CDB),
    });
    assert_eq!(reading, Reading { priority: Some(130), alua: None });
}

#[test]
fn const_asks_nothing() {
    assert_eq!(run(&mut of(PrioKind::Const), |_| cut()), (alua::CONST, vec![]));
}

#[test]
fn random_is_one_to_ten_and_the_same_in_every_run() {
    let draw = |name: &str| {
        let attributes = Attributes { devname: name.into(), ..Attributes::default() };
        let mut random = Prioritizer::new(PrioKind::Random, &attributes);
        let mut next = || run(&mut random, |_| cut()).0.priority.unwrap();
        (0..200).map(|_| next()).collect::<Vec<i32>>()
    };
    let all = draw("sda");
    assert!((1..=10).all(|n| all.contains(&n)) && all.iter().all(|n| (1..=10).contains(n)));
    assert_eq!(all, draw("sda"));
    assert_ne!(all, draw("sdb"));
}

#[test]
fn rdac_numbers_are_those_of_multipath_tools() {
    let none = VolumeAccess { connected: true, ..VolumeAccess::default() };
    let preferred = Preference::Preferred;
    let table = [
        (none, 0),
        (VolumeAccess { owned: true, ..none }, 2),
        (VolumeAccess { owned: true, preference: preferred, ..none }, 6),
        (VolumeAccess { preference: Preference::Secondary, ..none }, 1),
        (VolumeAccess { ioship: true, preference: preferred, ..none }, 12),
    ];
    for (access, expected) in table {
        let (reading, sent) = run(&mut of(PrioKind::Rdac), |p| data(p, access.encode()));
        assert_eq!(reading, Reading { priority: Some(expected), alua: None }, "{access:?}");
        assert_eq!(sent, [inquiry(Some(0xc9), 252)]);
    }
    let other = run(&mut of(PrioKind::Rdac), |p| data(p, vec![0; 48])).0;
    assert_eq!(other.priority, Some(0), "a page in another format");
    assert_eq!(run(&mut of(PrioKind::Rdac), |_| cut()).0, UNKNOWN);
}

#[test]
fn emc_numbers_are_those_of_multipath_tools() {
    let bound = UnitPathReport {
        binding: Binding::Bound,
        current_sp: 1,
        initiator_type: 3,
        failover_mode: 4,
        options: 4,
        ..UnitPathReport::default()
    };
    let table = [
        (bound, Some(1)),
        (UnitPathReport { binding: Binding::Owned, ..bound }, Some(2)),
        (UnitPathReport { binding: Binding::Owned, default_sp: 1, ..bound }, Some(4)),
        (UnitPathReport { default_sp: 1, ..bound }, Some(3)),
        (UnitPathReport { binding: Binding::Unbound, ..bound }, Some(0)),
        (UnitPathReport { operation: 1, ..bound }, None),
        (UnitPathReport { failover_mode: 0, ..bound }, None),
        (UnitPathReport { revision: 1, ..bound }, None),
    ];
    for (report, priority) in table {
        let (reading, sent) = run(&mut of(PrioKind::Emc), |p| data(p, report.encode()));
        assert_eq!(reading, Reading { priority, alua: None }, "{report:?}");
        assert_eq!(sent, [inquiry(Some(0xc0), 252)]);
    }
    assert_eq!(run(&mut of(PrioKind::Emc), |p| data(p, vec![0; 64])).0, UNKNOWN);
}

fn latency(io_num: u16, base_milli: u32, micros: &[u64]) -> (Option<i32>, usize) {
    let mut times = micros.iter().cycle();
    let mut prioritizer = of(PrioKind::PathLatency { io_num, base_milli });
    let (reading, sent) = run(&mut prioritizer, |probe| {
        assert_eq!(*probe, Probe::ReadFirstBlock);
        let took = Duration::from_micros(*times.next().unwrap());
        Answer::Completed { completion: Completion::Good, data: vec![], took }
    });
    (reading.priority, sent.len())
}

#[test]
fn path_latency_is_a_logarithmic_scale() {
    assert_eq!(latency(20, 10_000, &[1]), (Some(8), 20));
    assert_eq!(latency(20, 10_000, &[0]), (Some(8), 20), "less than a microsecond is one");
    assert_eq!(latency(100, 10_000, &[150]), (Some(5), 100));
    assert_eq!(latency(20, 10_000, &[1500]), (Some(4), 20));
    assert_eq!(latency(20, 10_000, &[200_000_000]), (Some(0), 20));
    assert_eq!(latency(20, 10_000, &[10, 1000]), latency(20, 10_000, &[100]), "geometric mean");
    // The default: four steps are a factor of ten.
    let (fast, slow) = (latency(100, 1778, &[200]).0, latency(100, 1778, &[2000]).0);
    assert_eq!(fast.unwrap() - slow.unwrap(), 4);
    assert_eq!(latency(1, 1, &[150]), latency(20, 1100, &[150]), "arguments out of range");
}

#[test]
fn path_latency_of_a_path_that_does_not_read_is_unknown() {
    let kind = PrioKind::PathLatency { io_num: 20, base_milli: 2000 };
    assert_eq!(run(&mut of(kind.clone()), |_| cut()).0, UNKNOWN);
    let short = |_: &Probe| ended(Completion::Short(100));
    assert_eq!(run(&mut of(kind.clone()), short).0, UNKNOWN);
    let mut first = true;
    let (reading, sent) = run(&mut of(kind), |_| match std::mem::take(&mut first) {
        true => check(SenseCode::POWER_ON_OR_RESET),
        false => ended(Completion::Good),
    });
    assert_eq!((reading.priority, sent.len()), (Some(26), 21));
}

fn weighted(args: &str) -> Option<i32> {
    let attributes = Attributes {
        devname: "sdb".into(),
        hbtl: Some("3:0:1:12".into()),
        serial: Some("KX0049".into()),
        target_node: Some("0x5006016041e0".into()),
        target_port: Some("0x5006016841e0".into()),
    };
    let kind = PrioKind::WeightedPath(args.into());
    run(&mut Prioritizer::new(kind, &attributes), |_| cut()).0.priority
}

#[test]
fn weightedpath_takes_the_first_expression_that_matches() {
    let table = [
        ("hbtl 1:.:.:. 2 3:.:.:. 4", 4),
        ("hbtl [3-5]:0:(0|1):[[:digit:]]+ 7", 7),
        ("devname sda 10 sdb 20 sd. 30", 20),
        ("devname  ^sd[a-c]$\t-5", -5),
        ("serial KX 3", 3),
        ("serial ^X 3", 0),
        ("wwn 5006016841 9", 9),
        (r"wwn ^\[undef\]:\[undef\]:0x5006016041e0: 6", 6),
        ("devname ( 3 sdb 4", 4),
        ("devname sdb 12abc", 12),
        ("devname sdb", 0),
        ("hostname sdb 4", 0),
        ("", 0),
    ];
    for (args, expected) in table {
        assert_eq!(weighted(args), Some(expected), "{args:?}");
    }
}

#[test]
fn what_is_wrong_with_weightedpath_arguments_is_said() {
    assert_eq!(weightedpath_problem("devname sd[ab] 10 sdc -20"), None);
    let table = [
        ("", "'' is none of hbtl"),
        ("hostname x 1", "'hostname' is none of"),
        ("devname", "there is no regular expression"),
        ("devname sdb", "no priority for 'sdb'"),
        ("devname sdb ten", "'ten' is no priority"),
        ("devname ( 10", "'(' is no regular expression"),
    ];
    for (args, text) in table {
        let problem = weightedpath_problem(args).unwrap();
        assert!(problem.contains(text), "{args:?}: {problem}");
    }
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let completion = prop_oneof![
        Just(Completion::Good),
        (0usize..300).prop_map(Completion::Short),
        (any::<u8>(), any::<u8>(), any::<[u8; 3]>()).prop_map(
            |(status, host, [key, asc, ascq])| {
                let key = crate::scsi::sense::Key::from_bits(key);
                Completion::Scsi {
                    status: Status(if status < 128 { 2 } else { status }),
                    host: HostByte(host % 0x20),
                    sense: Sense::fixed(SenseCode::new(key, asc, ascq)),
                    residual: 0,
                }
            }
        ),
    ];
    let micros = (0u64..u64::MAX).prop_map(Duration::from_micros);
    (completion, prop::collection::vec(any::<u8>(), 0..300), micros)
        .prop_map(|(completion, data, took)| Answer::Completed { completion, data, took })
}

proptest! {
    #[test]
    fn hostile_answers_neither_panic_nor_go_on_for_ever(
        answers in prop::collection::vec(any_answer(), 1..40), kind in 0usize..6,
    ) {
        let kind = [
            PrioKind::Detect,
            PrioKind::Alua { exclusive_pref: true },
            PrioKind::Sysfs { exclusive_pref: false },
            PrioKind::PathLatency { io_num: 20, base_milli: 1100 },
            PrioKind::Rdac,
            PrioKind::Emc,
        ][kind].clone();
        let mut prioritizer = of(kind);
        let mut answers = answers.iter().cycle();
        for _ in 0..3 {
            run(&mut prioritizer, |_| answers.next().unwrap().clone());
        }
    }
}
