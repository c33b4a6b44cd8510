//! Every checker's verdicts, row by row.

use std::time::Duration;

use super::*;
use crate::io::{ErrnoFrom, Extent};
use crate::mpath::probe::Transfer;
use crate::mpath::probe::outcome::inquiry;
use crate::scsi::alua::AccessState;
use crate::scsi::cdb::Cdb;
use crate::scsi::clariion::{Binding, UnitPathReport};
use crate::scsi::mode::{self, Mode};
use crate::scsi::rdac::{ControllerState, VolumeAccess};
use crate::scsi::sense::Sense;
use crate::scsi::status::Status;

const UP: Verdict = Verdict::Up { doubt: false };
const GHOST: Verdict = Verdict::Ghost { doubt: false };
const PENDING: Verdict = Verdict::Pending { doubt: false };

fn check(key: u8, asc: u8, ascq: u8) -> Completion {
    Completion::Scsi {
        status: Status::CHECK_CONDITION,
        host: HostByte::OK,
        sense: Sense::fixed(SenseCode::new(Key::from_bits(key), asc, ascq)),
        residual: 0,
    }
}

fn host(host: HostByte) -> Completion {
    Completion::Scsi { status: Status::GOOD, host, sense: Sense::EMPTY, residual: 0 }
}

fn status(status: Status) -> Completion {
    Completion::Scsi { status, host: HostByte::OK, sense: Sense::EMPTY, residual: 0 }
}

fn ioctl(code: i32) -> Completion {
    Completion::Errno { from: ErrnoFrom::Ioctl, code }
}

fn answer(completion: Completion, data: Vec<u8>) -> Answer {
    Answer::Completed { completion, data, took: Duration::ZERO }
}

/// Begins a check of a device that runs; returns the first thing sent.
fn begin(checker: &mut Checker) -> Probe {
    assert_eq!(checker.begin(), Step::Issue(Probe::Fact(Fact::DeviceState)));
    match checker.on_answer(&Answer::DeviceState(Some(DeviceState::Running))) {
        Step::Issue(probe) => probe,
        Step::Done(verdict) => panic!("{verdict:?} before anything was sent"),
    }
}

/// The verdict of a new checker of `kind` after these answers, each to `probe`.
fn verdict(kind: CheckerKind, probe: &Probe, answers: &[Completion]) -> Verdict {
    let mut checker = Checker::new(kind);
    assert_eq!(begin(&mut checker), *probe);
    for completion in answers {
        match checker.on_answer(&answer(*completion, Vec::new())) {
            Step::Done(verdict) => return verdict,
            Step::Issue(again) => assert_eq!(again, *probe),
        }
    }
    panic!("undecided after {} answers", answers.len());
}

fn tur(answers: &[Completion]) -> Verdict {
    verdict(CheckerKind::Tur, &Probe::bare(Cdb::test_unit_ready()), answers)
}

fn read(answers: &[Completion]) -> Verdict {
    verdict(CheckerKind::DirectIo, &Probe::ReadFirstBlock, answers)
}

#[test]
fn the_devices_state_decides_before_anything_is_sent() {
    for kind in CheckerKind::ALL {
        let after = |state| {
            let mut checker = Checker::new(*kind);
            assert_eq!(checker.begin(), Step::Issue(Probe::Fact(Fact::DeviceState)), "{kind:?}");
            checker.on_answer(&Answer::DeviceState(state))
        };
        assert_eq!(after(Some(DeviceState::Offline)), Step::Done(Verdict::Down), "{kind:?}");
        assert_eq!(after(Some(DeviceState::Blocked)), Step::Done(PENDING), "{kind:?}");
        for goes_on in [Some(DeviceState::Running), None] {
            match (kind, after(goes_on)) {
                (CheckerKind::None, step) => assert_eq!(step, Step::Done(UP)),
                (_, step) => assert!(matches!(step, Step::Issue(_)), "{kind:?}"),
            }
        }
    }
}

#[test]
fn an_answer_that_was_not_asked_for_is_no_sign_of_life() {
    let mut checker = Checker::new(CheckerKind::Tur);
    checker.begin();
    let stray = answer(Completion::Good, Vec::new());
    assert_eq!(checker.on_answer(&stray), Step::Done(Verdict::Down));
    assert_eq!(checker.on_answer(&stray), Step::Done(Verdict::Down), "nothing is under way");
    begin(&mut checker);
    assert_eq!(checker.on_answer(&Answer::AccessState(None)), Step::Done(Verdict::Down));
}

#[test]
fn tur_verdicts_are_those_of_multipath_tools() {
    let table = [
        (Completion::Good, UP),
        (check(0, 0x00, 0x00), UP),
        (check(1, 0x17, 0x01), UP),
        (status(Status::RESERVATION_CONFLICT), UP),
        (check(2, 0x04, 0x0b), GHOST),
        (check(2, 0x04, 0x0a), PENDING),
        (check(6, 0x04, 0x0a), PENDING),
        (check(5, 0x25, 0x00), Verdict::Disconnected),
        (check(2, 0x04, 0x0c), Verdict::Down),
        (check(2, 0x04, 0x12), Verdict::Down),
        (check(2, 0x3a, 0x00), Verdict::Down),
        (check(3, 0x11, 0x00), Verdict::Down),
        (check(4, 0x44, 0x00), Verdict::Down),
        (check(5, 0x20, 0x00), Verdict::Down),
        (host(HostByte::NO_CONNECT), Verdict::Down),
        (host(HostByte::BAD_TARGET), Verdict::Down),
        (host(HostByte::ABORT), Verdict::Down),
        (host(HostByte::TRANSPORT_FAILFAST), Verdict::Down),
        (host(HostByte::TIME_OUT), Verdict::TimedOut),
        (ioctl(libc::ENODEV), Verdict::Down),
        (ioctl(libc::ENXIO), Verdict::Down),
        (ioctl(libc::ENOTTY), Verdict::Down),
        (status(Status::CHECK_CONDITION), Verdict::Down),
        (status(Status(0x22)), Verdict::Down),
    ];
    for (answer, expected) in table {
        assert_eq!(tur(&[answer]), expected, "{answer:?}");
    }
}

#[test]
fn tur_is_up_where_the_lu_is_there_and_has_no_time() {
    for busy in [Status::BUSY, Status::TASK_SET_FULL, Status::ACA_ACTIVE] {
        assert_eq!(tur(&[status(busy)]), UP, "{busy}");
    }
}

#[test]
fn our_own_trouble_changes_no_paths_state() {
    for code in [libc::ENOMEM, libc::EAGAIN, libc::EINTR] {
        assert_eq!(tur(&[ioctl(code)]), PENDING);
        assert_eq!(read(&[ioctl(code)]), PENDING);
    }
}

#[test]
fn tur_rides_over_unit_attentions_and_remembers_what_they_said() {
    let resized = check(6, 0x2a, 0x09);
    let reset = check(6, 0x29, 0x00);
    assert_eq!(tur(&[resized, Completion::Good]), Verdict::Resized);
    assert_eq!(tur(&[resized, reset, Completion::Good]), Verdict::Up { doubt: true });
    assert_eq!(tur(&[reset, status(Status::BUSY)]), Verdict::Up { doubt: true });
    // Passive and in transition it may lead elsewhere as well.
    assert_eq!(tur(&[reset, check(2, 0x04, 0x0b)]), Verdict::Ghost { doubt: true });
    assert_eq!(tur(&[reset, check(2, 0x04, 0x0a)]), Verdict::Pending { doubt: true });
    assert_eq!(tur(&[reset, ioctl(libc::EAGAIN)]), Verdict::Pending { doubt: true });
    assert_eq!(tur(&[check(6, 0x2a, 0x06), Completion::Good]), UP);
    assert_eq!(tur(&[reset; 5]), Verdict::Down);
    assert_eq!(tur(&[status(Status::TASK_ABORTED), Completion::Good]), UP);
}

#[test]
fn what_one_check_met_is_not_met_again_by_the_next() {
    let mut checker = Checker::new(CheckerKind::Tur);
    for (first, expected) in [(check(6, 0x29, 0x00), true), (check(6, 0x2a, 0x01), false)] {
        for _ in 0..2 {
            begin(&mut checker);
            assert!(matches!(checker.on_answer(&answer(first, vec![])), Step::Issue(_)));
            let verdict = checker.on_answer(&answer(Completion::Good, vec![]));
            assert_eq!(verdict, Step::Done(Verdict::Up { doubt: expected }));
        }
    }
}

#[test]
fn tur_retries_a_disrupted_transport_before_it_says_down() {
    let disrupted = host(HostByte::TRANSPORT_DISRUPTED);
    assert_eq!(tur(&[disrupted, Completion::Good]), UP);
    for again in [HostByte::TRANSPORT_DISRUPTED, HostByte::ERROR, HostByte::TRANSPORT_MARGINAL] {
        assert_eq!(tur(&[host(again); 5]), Verdict::Down, "{again}");
    }
}

#[test]
fn a_read_of_the_first_block_is_never_a_ghost() {
    let block = |code| Completion::Errno { from: ErrnoFrom::Block, code };
    let table = [
        (Completion::Good, UP),
        (Completion::Short(256), Verdict::Down),
        (check(2, 0x04, 0x0b), Verdict::Down),
        (check(2, 0x04, 0x0a), PENDING),
        (check(5, 0x25, 0x00), Verdict::Disconnected),
        (check(4, 0x44, 0x00), Verdict::Down),
        (host(HostByte::NO_CONNECT), Verdict::Down),
        (host(HostByte::TIME_OUT), Verdict::TimedOut),
        (block(libc::EIO), Verdict::Down),
        (block(libc::ENODEV), Verdict::Down),
        (block(libc::ENOLINK), Verdict::Down),
        (block(libc::EREMOTEIO), Verdict::Down),
        (block(libc::ETIMEDOUT), Verdict::TimedOut),
        // The LU's word, which no other path would change.
        (check(3, 0x11, 0x00), UP),
        (status(Status::RESERVATION_CONFLICT), UP),
        (status(Status::BUSY), UP),
        (block(libc::EBADE), UP),
        (block(libc::ENODATA), UP),
        (block(libc::EILSEQ), UP),
    ];
    for (answer, expected) in table {
        assert_eq!(read(&[answer]), expected, "{answer:?}");
    }
}

#[test]
fn readsector0_gives_up_earlier_than_directio() {
    let reset = check(6, 0x29, 0x00);
    let sector0 = |a: &[_]| verdict(CheckerKind::ReadSector0, &Probe::ReadFirstBlock, a);
    assert_eq!(sector0(&[reset, reset, Completion::Good]), Verdict::Up { doubt: true });
    assert_eq!(sector0(&[reset; 3]), Verdict::Down);
    assert_eq!(read(&[reset; 5]), Verdict::Down);
    assert_eq!(sector0(&[host(HostByte::NO_CONNECT)]), Verdict::Down);
}

fn inquiry_c9() -> Probe {
    inquiry(Some(0xc9), 252)
}

/// An `rdac` checker that has dealt with TAS.
fn rdac() -> Checker {
    let mut checker = Checker::new(CheckerKind::Rdac);
    begin(&mut checker);
    checker.on_answer(&answer(check(5, 0x20, 0), vec![]));
    checker
}

fn rdac_verdict(completion: Completion, data: Vec<u8>) -> Verdict {
    let mut checker = rdac();
    assert_eq!(begin(&mut checker), inquiry_c9());
    match checker.on_answer(&answer(completion, data)) {
        Step::Done(verdict) => verdict,
        Step::Issue(probe) => panic!("{probe:?}"),
    }
}

#[test]
fn rdac_verdicts_are_those_of_multipath_tools() {
    let state = |state| ControllerState { state, reason: 0 };
    let tpg = |own, other| Some((state(own), state(other)));
    use AccessState::{ActiveOptimized, Transitioning, Unavailable};
    let passive = VolumeAccess { connected: true, ..VolumeAccess::default() };
    let owner = VolumeAccess { owned: true, ..passive };
    let table = [
        (owner, UP),
        (passive, GHOST),
        (VolumeAccess { ioship: true, ..passive }, UP),
        (VolumeAccess { avt: true, ..passive }, GHOST),
        (VolumeAccess { connected: false, ..owner }, Verdict::Down),
        (VolumeAccess { controllers: tpg(Unavailable, ActiveOptimized), ..owner }, Verdict::Down),
        (VolumeAccess { controllers: tpg(Transitioning, ActiveOptimized), ..owner }, Verdict::Down),
        (VolumeAccess { controllers: tpg(Transitioning, Transitioning), ..owner }, UP),
        (VolumeAccess { controllers: tpg(Transitioning, Transitioning), ..passive }, GHOST),
        (VolumeAccess { controllers: tpg(ActiveOptimized, Unavailable), ..owner }, UP),
    ];
    for (access, expected) in table {
        // An answer shorter than asked for is what is normal here.
        let found = rdac_verdict(Completion::Short(48), access.encode());
        assert_eq!(found, expected, "{access:?}");
    }
    assert_eq!(rdac_verdict(Completion::Good, vec![0; 48]), Verdict::Down, "another page");
    assert_eq!(rdac_verdict(check(5, 0x24, 0), vec![]), Verdict::Down, "no such page");
    assert_eq!(rdac_verdict(check(5, 0x25, 0), vec![]), Verdict::Disconnected);
    assert_eq!(rdac_verdict(status(Status::BUSY), vec![]), PENDING);
    assert_eq!(rdac_verdict(host(HostByte::NO_CONNECT), vec![]), Verdict::Down);
}

#[test]
fn rdac_sets_tas_once_where_it_can_be_set() {
    let control = Mode::default().encode_10(None, &mode::encode_control());
    let mut changeable = control.clone();
    changeable[8 + 5] |= 0x40;
    let mode_sense =
        |control| Step::Issue(Probe::reading(Cdb::mode_sense_10_values(control, 0x0a, 20), 20));
    let mut checker = Checker::new(CheckerKind::Rdac);
    assert_eq!(Step::Issue(begin(&mut checker)), mode_sense(0));
    assert_eq!(checker.on_answer(&answer(Completion::Good, control.clone())), mode_sense(1));
    let list = mode::with_task_aborted_status(&control).unwrap();
    assert_eq!(list.len(), 20);
    assert_eq!(
        checker.on_answer(&answer(Completion::Good, changeable)),
        Step::Issue(Probe::Command {
            cdb: Cdb::mode_select_10(false, true, 20),
            transfer: Transfer::Out(list)
        })
    );
    let asked = checker.on_answer(&answer(Completion::Good, vec![]));
    assert_eq!(asked, Step::Issue(inquiry_c9()));
    assert_eq!(begin(&mut checker), inquiry_c9(), "not again");
}

#[test]
fn rdac_lets_tas_be_where_it_is_set_or_fixed() {
    let control = Mode::default().encode_10(None, &mode::encode_control());
    let mut set = control.clone();
    set[8 + 5] |= 0x40;
    let mut checker = Checker::new(CheckerKind::Rdac);
    begin(&mut checker);
    let asked = checker.on_answer(&answer(Completion::Good, set));
    assert_eq!(asked, Step::Issue(inquiry_c9()), "set");
    let mut checker = Checker::new(CheckerKind::Rdac);
    begin(&mut checker);
    checker.on_answer(&answer(Completion::Good, control.clone()));
    let asked = checker.on_answer(&answer(Completion::Good, control));
    assert_eq!(asked, Step::Issue(inquiry_c9()), "cannot be changed");
    // A path that is down is down without another command.
    let mut checker = Checker::new(CheckerKind::Rdac);
    begin(&mut checker);
    let cut = checker.on_answer(&answer(host(HostByte::NO_CONNECT), vec![]));
    assert_eq!(cut, Step::Done(Verdict::Down));
    assert_ne!(begin(&mut checker), inquiry_c9(), "TAS is still to be done");
}

const FIT: UnitPathReport = UnitPathReport {
    binding: Binding::Owned,
    default_sp: 0,
    port: 0,
    current_sp: 0,
    revision: 0,
    wwn: [0x60; 16],
    initiator_type: 3,
    failover_mode: 4,
    options: 4,
    operation: 0,
};

/// What page C0h comes to; `None`: the first block is read.
fn emc(checker: &mut Checker, report: &UnitPathReport) -> Option<Verdict> {
    assert_eq!(begin(checker), inquiry(Some(0xc0), 252));
    match checker.on_answer(&answer(Completion::Short(64), report.encode())) {
        Step::Done(verdict) => Some(verdict),
        Step::Issue(probe) => {
            assert_eq!(probe, Probe::ReadFirstBlock);
            None
        }
    }
}

#[test]
fn emc_clariion_verdicts_are_those_of_multipath_tools_but_for_the_ghost() {
    let bound = UnitPathReport { binding: Binding::Bound, ..FIT };
    let table = [
        (FIT, None),
        (bound, Some(GHOST)),
        (UnitPathReport { failover_mode: 6, ..bound }, Some(UP)),
        (UnitPathReport { failover_mode: 6, ..FIT }, None),
        (UnitPathReport { failover_mode: 5, ..FIT }, Some(Verdict::Down)),
        (UnitPathReport { initiator_type: 0, ..FIT }, Some(Verdict::Down)),
        (UnitPathReport { options: 0, ..FIT }, Some(Verdict::Down)),
        (UnitPathReport { revision: 1, ..FIT }, Some(Verdict::Down)),
        (UnitPathReport { operation: 1, ..FIT }, Some(Verdict::Shaky)),
        (UnitPathReport { binding: Binding::Unbound, ..FIT }, Some(Verdict::Down)),
    ];
    for (report, expected) in table {
        let found = emc(&mut Checker::new(CheckerKind::EmcClariion), &report);
        assert_eq!(found, expected, "{report:?}");
    }
    let page = inquiry(Some(0xc0), 252);
    let alone = |completion| verdict(CheckerKind::EmcClariion, &page, &[completion]);
    assert_eq!(alone(Completion::Good), Verdict::Down, "no page");
    assert_eq!(alone(check(5, 0x24, 0)), Verdict::Down);
    assert_eq!(alone(status(Status::BUSY)), PENDING);
    assert_eq!(alone(ioctl(libc::ENODEV)), Verdict::Down);
}

#[test]
fn emc_clariion_owners_read_and_inactive_snapshots_are_down_on_both_sides() {
    let mut checker = Checker::new(CheckerKind::EmcClariion);
    let bound = UnitPathReport { binding: Binding::Bound, ..FIT };
    let mut owner = |completion| {
        assert_eq!(emc(&mut checker, &FIT), None);
        let read = checker.on_answer(&answer(completion, vec![]));
        (read, emc(&mut checker, &bound).unwrap())
    };
    assert_eq!(owner(Completion::Good), (Step::Done(UP), GHOST));
    assert_eq!(owner(check(4, 0x44, 0)), (Step::Done(Verdict::Down), GHOST));
    assert_eq!(owner(check(5, 0x25, 1)), (Step::Done(Verdict::Down), Verdict::Down));
    assert_eq!(owner(check(4, 0x44, 0)), (Step::Done(Verdict::Down), Verdict::Down));
    assert_eq!(owner(Completion::Good), (Step::Done(UP), GHOST));
}

#[test]
fn emc_clariion_is_down_once_when_its_lu_becomes_another_one() {
    let mut checker = Checker::new(CheckerKind::EmcClariion);
    assert_eq!(emc(&mut checker, &FIT), None);
    let other = UnitPathReport { wwn: [0x61; 16], ..FIT };
    assert_eq!(emc(&mut checker, &other), Some(Verdict::Down));
    assert_eq!(emc(&mut checker, &other), None, "which of them is right the proof says");
    assert_eq!(emc(&mut checker, &FIT), Some(Verdict::Down));
    assert_eq!(emc(&mut checker, &FIT), None, "not for good: it may have met the wrong one first");
}

#[test]
fn no_checker_writes_to_the_blocks() {
    // What a check sends is either a command listed here or a read.
    let allowed = [0x00, 0x12, 0x28, 0x55, 0x5a];
    let read = Cdb::read(Extent::new(0, 1)).unwrap().opcode();
    assert_eq!(read, 0x28);
    for kind in CheckerKind::ALL.iter().filter(|k| **k != CheckerKind::None) {
        let mut checker = Checker::new(*kind);
        let mut step = Step::Issue(begin(&mut checker));
        for _ in 0..20 {
            let Step::Issue(probe) = step else { break };
            if let Probe::Command { cdb, .. } = &probe {
                assert!(allowed.contains(&cdb.opcode()), "{kind:?}: {cdb:?}");
            }
            step = checker.on_answer(&answer(Completion::Good, vec![0; 64]));
        }
        assert!(matches!(step, Step::Done(_)), "{kind:?} ends");
    }
}
