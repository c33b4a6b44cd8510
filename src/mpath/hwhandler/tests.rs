//! Every hardware handler: what it sends, and what it comes to row by row.

use std::time::Duration;

use super::*;
use crate::io::{Completion, ErrnoFrom};
use crate::mpath::probe::{Probe, Transfer};
use crate::scsi::alua::{AccessState, SetState, TargetPortGroup, encode, parse_set};
use crate::scsi::clariion::{Binding, Trespass, UnitPathReport};
use crate::scsi::inquiry::Inquiry;
use crate::scsi::rdac::{self as page, Preference, TakeOwnership, VolumeAccess};
use crate::scsi::sense::{Key, Sense, SenseCode};
use crate::scsi::status::Status;
use crate::scsi::vpd::{self, Association, Designator, DesignatorKind};
use proptest::prelude::*;

const SOON: Activation = Activation::Retry { delayed: false };
const LATER: Activation = Activation::Retry { delayed: true };
const WAIT: Activation = Activation::Transition;

fn check(key: u8, asc: u8, ascq: u8) -> Completion {
    Completion::Scsi {
        status: Status::CHECK_CONDITION,
        host: HostByte::OK,
        sense: Sense::fixed(SenseCode::new(Key::from_bits(key), asc, ascq)),
        residual: 0,
    }
}

fn status(status: Status) -> Completion {
    Completion::Scsi { status, host: HostByte::OK, sense: Sense::EMPTY, residual: 0 }
}

fn host(host: HostByte) -> Completion {
    Completion::Scsi { status: Status::GOOD, host, sense: Sense::EMPTY, residual: 0 }
}

fn ended(completion: Completion) -> Answer {
    Answer::Completed { completion, data: Vec::new(), took: Duration::ZERO }
}

fn data(data: Vec<u8>) -> Answer {
    let completion = Completion::Short(data.len());
    Answer::Completed { completion, data, took: Duration::ZERO }
}

/// Runs it to its end; returns what it came to, and the names of what it sent.
fn run(
    kind: HandlerKind,
    group: Option<u16>,
    mut answer: impl FnMut(&Probe, &str) -> Answer,
) -> (Activation, Vec<String>) {
    let mut handler = Handler::new(kind, group);
    let mut sent = Vec::new();
    let mut step = handler.begin();
    loop {
        match step {
            Step::Done(result) => return (result, sent),
            Step::Issue(probe) => {
                assert!(sent.len() < 60, "it never ends");
                let name = name(&probe);
                step = handler.on_answer(&answer(&probe, &name));
                sent.push(name);
            }
        }
    }
}

/// `83` and the like for INQUIRY, else the command.
fn name(probe: &Probe) -> String {
    let Probe::Command { cdb, .. } = probe else { panic!("{probe:?}") };
    match cdb.opcode() {
        0x12 => format!("{:02x}", cdb.as_slice()[2]),
        0x15 => "select6".to_owned(),
        0x55 => "select10".to_owned(),
        0xa3 => "rtpg".to_owned(),
        0xa4 => "stpg".to_owned(),
        _ => panic!("{cdb:?}"),
    }
}

fn list(probe: &Probe) -> Vec<u8> {
    match probe {
        Probe::Command { cdb, transfer: Transfer::Out(list) } => {
            let raw = cdb.as_slice();
            let said = match cdb.opcode() {
                0x15 => usize::from(raw[4]),
                0x55 => usize::from(u16::from_be_bytes([raw[7], raw[8]])),
                _ => usize::from(u16::from_be_bytes([raw[8], raw[9]])),
            };
            assert_eq!(said, list.len(), "the CDB says how long the list is");
            list.clone()
        }
        other => panic!("{other:?} has no parameter list"),
    }
}

#[test]
fn without_a_handler_nothing_is_sent() {
    for kind in [HandlerKind::None, HandlerKind::Detect] {
        let result = run(kind, Some(1), |_, _| ended(Completion::Good));
        assert_eq!(result, (Activation::Unsupported, vec![]));
    }
}

/// An ALUA LU: `tpgs`, the state of group 2 before a SET TARGET PORT GROUPS,
/// its answer, the state after.
struct Alua {
    tpgs: u8,
    before: AccessState,
    says: Completion,
    after: AccessState,
}

impl Alua {
    fn activate(&self, group: Option<u16>) -> (Activation, Vec<String>) {
        let mut state = self.before;
        run(HandlerKind::Alua, group, |probe, name| match name {
            "00" => data(Inquiry { tpgs: self.tpgs, ..Inquiry::default() }.encode().to_vec()),
            "83" => {
                let (association, kind) =
                    (Association::TargetPort, DesignatorKind::TargetPortGroup);
                let bytes = &[0, 0, 0, 2];
                data(vpd::encode_identification(&[Designator { association, kind, bytes }]))
            }
            "rtpg" => {
                let group = |id, state| TargetPortGroup {
                    id,
                    state,
                    preferred: false,
                    supported: 0xdf,
                    status_code: 0,
                    ports: vec![id],
                };
                let groups = [group(1, AccessState::ActiveOptimized), group(2, state)];
                data(encode(Some(0), &groups))
            }
            "stpg" => {
                let wanted = SetState { state: AccessState::ActiveOptimized, group: 2 };
                assert_eq!(parse_set(&list(probe)), Ok(vec![wanted]));
                state = self.after;
                ended(self.says)
            }
            other => panic!("{other}"),
        })
    }
}

#[test]
fn alua_sets_the_group_of_a_passive_port_and_looks_what_came_of_it() {
    use AccessState::{ActiveNonOptimized, ActiveOptimized, Offline, Standby, Transitioning};
    let good = Completion::Good;
    let all = ["00", "83", "rtpg", "stpg", "rtpg"];
    let table = [
        (Standby, good, ActiveOptimized, Activation::Done),
        (AccessState::Unavailable, good, ActiveOptimized, Activation::Done),
        (ActiveNonOptimized, good, ActiveOptimized, Activation::Done),
        (Standby, good, ActiveNonOptimized, Activation::Done),
        (Standby, good, Transitioning, WAIT),
        (Standby, check(2, 0x04, 0x0a), Transitioning, WAIT),
        (Standby, good, Standby, LATER),
        (Standby, good, Offline, Activation::Failed),
        (Standby, check(5, 0x20, 0x00), Standby, Activation::Unsupported),
        (Standby, check(5, 0x26, 0x00), Standby, Activation::Unsupported),
        (Standby, check(4, 0x44, 0x00), Standby, LATER),
        // Another host's reservation is no fault of the path's.
        (Standby, status(Status::RESERVATION_CONFLICT), Standby, Activation::Busy),
        // Another host's command did it.
        (Standby, check(4, 0x44, 0x00), ActiveOptimized, Activation::Done),
        (ActiveNonOptimized, check(5, 0x20, 0x00), ActiveNonOptimized, Activation::Done),
    ];
    for (before, says, after, expected) in table {
        let (result, sent) = Alua { tpgs: 3, before, says, after }.activate(None);
        assert_eq!(result, expected, "{before:?} {says:?} {after:?}");
        assert_eq!(sent, all);
    }
    let known = Alua { tpgs: 2, before: Standby, says: good, after: ActiveOptimized };
    assert_eq!(
        known.activate(Some(2)),
        (Activation::Done, ["00", "rtpg", "stpg", "rtpg"].map(str::to_owned).to_vec())
    );
}

#[test]
fn alua_sends_nothing_that_is_needless_or_not_allowed() {
    use AccessState::{
        ActiveNonOptimized, ActiveOptimized, LbaDependent, Offline, Reserved, Standby,
        Transitioning, Unavailable,
    };
    let table = [
        (3, ActiveOptimized, Activation::Done),
        (3, LbaDependent, Activation::Done),
        (3, Transitioning, WAIT),
        (3, Offline, Activation::Failed),
        (3, Reserved(9), Activation::Unsupported),
        (1, ActiveNonOptimized, Activation::Done),
        (1, Standby, Activation::Unsupported),
        (1, Unavailable, Activation::Unsupported),
        (1, Transitioning, WAIT),
    ];
    for (tpgs, before, expected) in table {
        let (says, after) = (Completion::Good, ActiveOptimized);
        let (result, sent) = Alua { tpgs, before, says, after }.activate(Some(2));
        assert_eq!(
            (result, sent.last().map(String::as_str)),
            (expected, Some("rtpg")),
            "{before:?}"
        );
    }
}

#[test]
fn alua_rides_over_unit_attentions_of_its_own_making() {
    let mut attentions = 2;
    let lu = Alua {
        tpgs: 3,
        before: AccessState::Standby,
        says: Completion::Good,
        after: AccessState::ActiveOptimized,
    };
    let mut inner = Vec::new();
    let (result, sent) = run(HandlerKind::Alua, Some(2), |probe, name| {
        if name == "stpg" && attentions > 0 {
            attentions -= 1;
            return ended(check(6, 0x2a, 0x06));
        }
        inner.push(name.to_owned());
        let stpg = inner.iter().any(|n| n == "stpg");
        let state = if stpg { lu.after } else { lu.before };
        match name {
            "00" => data(Inquiry { tpgs: lu.tpgs, ..Inquiry::default() }.encode().to_vec()),
            "rtpg" => data(encode(
                None,
                &[TargetPortGroup {
                    id: 2,
                    state,
                    preferred: false,
                    supported: 0xdf,
                    status_code: 0,
                    ports: vec![],
                }],
            )),
            _ => {
                list(probe);
                ended(lu.says)
            }
        }
    });
    assert_eq!(result, Activation::Done);
    assert_eq!(sent, ["00", "rtpg", "stpg", "stpg", "stpg", "rtpg"]);
}

/// Rows of [`failed`], which all handlers share: the first command ends so.
#[test]
fn a_path_that_does_not_answer_is_not_activated() {
    let errno = |code| Completion::Errno { from: ErrnoFrom::Ioctl, code };
    let table = [
        (host(HostByte::NO_CONNECT), Activation::Failed),
        (host(HostByte::TIME_OUT), Activation::Failed),
        (host(HostByte::TRANSPORT_FAILFAST), Activation::Failed),
        (host(HostByte::TRANSPORT_DISRUPTED), SOON),
        (host(HostByte::BUS_BUSY), SOON),
        (host(HostByte::RESET), SOON),
        (status(Status::BUSY), LATER),
        (status(Status::TASK_SET_FULL), LATER),
        (check(6, 0x29, 0x00), LATER),
        (check(5, 0x24, 0x00), Activation::Unsupported),
        (check(5, 0x25, 0x00), Activation::Failed),
        (check(4, 0x44, 0x00), Activation::Failed),
        (errno(libc::ENODEV), Activation::Failed),
        (errno(libc::ENOTTY), Activation::Unsupported),
        (errno(libc::ENOMEM), SOON),
    ];
    for kind in [HandlerKind::Rdac, HandlerKind::Emc] {
        for (completion, expected) in table {
            let (result, _) = run(kind, None, |_, _| ended(completion));
            assert_eq!(result, expected, "{kind:?} {completion:?}");
        }
    }
    for (completion, expected) in table.into_iter().filter(|(c, _)| *c != check(5, 0x24, 0x00)) {
        let (result, _) = run(HandlerKind::Alua, None, |_, _| ended(completion));
        assert_eq!(result, expected, "{completion:?}");
    }
}

/// An RDAC LU with number 5: who owns it before and after the command, and what
/// the command answers first.
struct Rdac {
    before: VolumeAccess,
    after: VolumeAccess,
    max_lun: u8,
    says: Vec<Completion>,
}

const PASSIVE: VolumeAccess = VolumeAccess {
    connected: true,
    owned: false,
    ioship: false,
    avt: false,
    controllers: None,
    preference: Preference::Unstated,
};
const OWNER: VolumeAccess = VolumeAccess { owned: true, ..PASSIVE };

impl Rdac {
    fn new(says: Vec<Completion>) -> Rdac {
        Rdac { before: PASSIVE, after: OWNER, max_lun: 31, says }
    }

    fn activate(&self) -> (Activation, Vec<String>) {
        let mut says = self.says.iter();
        let mut access = self.before;
        run(HandlerKind::Rdac, None, |probe, name| match name {
            "c9" => data(access.encode()),
            "c8" => data(page::encode_device_identification(5, [0; 16])),
            "c2" => data(page::encode_software_version(self.max_lun)),
            "select6" | "select10" => {
                let take = TakeOwnership { luns: vec![5], quiescence: 20, forced: true };
                assert_eq!(TakeOwnership::parse(&list(probe), name == "select10"), Some(take));
                let said = says.next().copied().unwrap_or(Completion::Good);
                if said == Completion::Good {
                    access = self.after;
                }
                ended(said)
            }
            other => panic!("{other}"),
        })
    }
}

#[test]
fn rdac_moves_the_lu_to_the_controller_of_the_path() {
    let (result, sent) = Rdac::new(vec![]).activate();
    assert_eq!(result, Activation::Done);
    assert_eq!(sent, ["c9", "c8", "c2", "select6", "c9"]);
    let (result, sent) = Rdac { max_lun: 255, ..Rdac::new(vec![]) }.activate();
    assert_eq!((result, sent[3].as_str()), (Activation::Done, "select10"));
    let (result, _) = Rdac { after: PASSIVE, ..Rdac::new(vec![]) }.activate();
    assert_eq!(result, LATER, "it says yes, and has not done it");
}

#[test]
fn rdac_sends_nothing_where_the_path_carries_already() {
    let preferred = Preference::Preferred;
    let table = [
        (OWNER, 1),
        (VolumeAccess { avt: true, ..PASSIVE }, 1),
        (VolumeAccess { ioship: true, ..PASSIVE }, 1),
        (VolumeAccess { ioship: true, preference: preferred, ..OWNER }, 1),
        (VolumeAccess { ioship: true, preference: preferred, ..PASSIVE }, 5),
        (VolumeAccess { preference: preferred, ..PASSIVE }, 5),
    ];
    for (before, commands) in table {
        let (result, sent) = Rdac { before, ..Rdac::new(vec![]) }.activate();
        assert_eq!((result, sent.len()), (Activation::Done, commands), "{before:?}");
    }
}

#[test]
fn rdac_retries_what_passes_and_fails_on_what_does_not() {
    let passing =
        [check(0xb, 0x47, 0x00), check(6, 0x8b, 0x02), check(2, 0x04, 0x01), check(5, 0x91, 0x36)];
    for says in passing {
        assert_eq!(Rdac::new(vec![says; 4]).activate().0, Activation::Done, "{says:?}");
        let (result, sent) = Rdac::new(vec![says; 5]).activate();
        assert_eq!((result, sent.len()), (LATER, 8), "{says:?}: five tries");
    }
    let table = [
        (check(2, 0x04, 0xa1), LATER),
        (check(2, 0xa1, 0x02), LATER),
        (status(Status::BUSY), LATER),
        (status(Status::RESERVATION_CONFLICT), Activation::Failed),
        (check(2, 0x04, 0x81), Activation::Failed),
        (check(5, 0x26, 0x00), Activation::Failed),
        (check(4, 0x44, 0x00), Activation::Failed),
        (host(HostByte::NO_CONNECT), Activation::Failed),
        (host(HostByte::TRANSPORT_DISRUPTED), SOON),
        // NO SENSE is worth nothing: who owns the LU is read.
        (check(0, 0x00, 0x00), LATER),
    ];
    for (says, expected) in table {
        assert_eq!(Rdac::new(vec![says]).activate().0, expected, "{says:?}");
    }
}

#[test]
fn an_array_without_the_vendor_pages_is_no_such_array() {
    let other = |_: &Probe, _: &str| data(vec![0; 64]);
    assert_eq!(run(HandlerKind::Rdac, None, other).0, Activation::Unsupported);
    assert_eq!(run(HandlerKind::Emc, None, other).0, Activation::Unsupported);
}

const BOUND: UnitPathReport = UnitPathReport {
    binding: Binding::Bound,
    default_sp: 0,
    port: 0,
    current_sp: 1,
    revision: 0,
    wwn: [0; 16],
    initiator_type: 3,
    failover_mode: 4,
    options: 4,
    operation: 0,
};

/// A CLARiiON LU: page C0h before and after the trespass, and what the long
/// form of that answers.
fn emc(
    before: UnitPathReport,
    after: UnitPathReport,
    says: Option<Completion>,
) -> (Activation, Vec<String>) {
    let mut report = before;
    run(HandlerKind::Emc, None, |probe, name| match name {
        "c0" => data(report.encode()),
        "select6" | "select10" => {
            let trespass = Trespass { honor_reservations: true };
            assert_eq!(Trespass::parse(&list(probe), name == "select10"), Some(trespass));
            let Probe::Command { cdb, .. } = probe else { panic!() };
            assert_eq!(cdb.as_slice()[1], 0x10, "PF");
            match says.filter(|_| name == "select10") {
                Some(refused) => ended(refused),
                None => {
                    report = after;
                    ended(Completion::Good)
                }
            }
        }
        other => panic!("{other}"),
    })
}

const OWNED: UnitPathReport = UnitPathReport { binding: Binding::Owned, ..BOUND };

#[test]
fn emc_trespasses_the_lu_to_the_sp_of_the_path() {
    let (result, sent) = emc(BOUND, OWNED, None);
    assert_eq!((result, sent.join(" ").as_str()), (Activation::Done, "c0 select10 c0"));
    assert_eq!(emc(BOUND, BOUND, None).0, LATER, "it says yes, and has not done it");
    let upgrading = UnitPathReport { operation: 1, ..OWNED };
    assert_eq!(emc(BOUND, upgrading, None).0, Activation::Busy);
    for refused in [check(5, 0x20, 0), check(5, 0x1a, 0), check(5, 0x26, 0)] {
        let (result, sent) = emc(BOUND, OWNED, Some(refused));
        let sent = sent.join(" ");
        assert_eq!((result, sent.as_str()), (Activation::Done, "c0 select10 select6 c0"));
    }
}

#[test]
fn emc_leaves_alone_what_is_owned_or_busy() {
    let table = [
        (OWNED, Activation::Done),
        (UnitPathReport { operation: 2, ..BOUND }, Activation::Busy),
        (UnitPathReport { binding: Binding::Unbound, ..BOUND }, Activation::Failed),
        (UnitPathReport { binding: Binding::Other(3), ..BOUND }, Activation::Unsupported),
        (UnitPathReport { failover_mode: 3, ..BOUND }, Activation::Unsupported),
    ];
    for (before, expected) in table {
        let (result, sent) = emc(before, OWNED, None);
        assert_eq!((result, sent.len()), (expected, 1), "{before:?}");
    }
    let alua = UnitPathReport { failover_mode: 6, ..BOUND };
    assert_eq!(emc(alua, OWNED, None).0, Activation::Done);
}

#[test]
fn emc_waits_for_copies_and_upgrades() {
    let table = [
        (check(5, 0x04, 0x00), Activation::Busy),
        (check(2, 0x04, 0x03), Activation::Busy),
        (check(4, 0x44, 0x00), Activation::Failed),
        (status(Status::RESERVATION_CONFLICT), Activation::Failed),
        (status(Status::BUSY), LATER),
        (host(HostByte::NO_CONNECT), Activation::Failed),
    ];
    for (says, expected) in table {
        assert_eq!(emc(BOUND, OWNED, Some(says)).0, expected, "{says:?}");
    }
}

proptest! {
    #[test]
    fn hostile_answers_neither_panic_nor_go_on_for_ever(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        words in prop::collection::vec((0u8..5, any::<[u8; 3]>()), 1..20),
        kind in 0usize..3,
    ) {
        let kind = [HandlerKind::Alua, HandlerKind::Rdac, HandlerKind::Emc][kind];
        let mut words = words.iter().cycle();
        run(kind, None, |_, _| match words.next().unwrap() {
            (0, _) => data(bytes.clone()),
            (1, [byte, ..]) => ended(host(HostByte(*byte % 0x15))),
            (2, [byte, ..]) => ended(status(Status(*byte))),
            (3, [key, asc, ascq]) => ended(check(*key, *asc, *ascq)),
            _ => ended(Completion::Good),
        });
    }
}
