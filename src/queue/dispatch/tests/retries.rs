//! What becomes of a command that did not end well.

use super::*;

#[test]
fn a_lost_path_costs_the_guest_nothing() {
    for lost in [
        GONE,
        errno(libc::ENOLINK),
        host(HostByte::NO_CONNECT),
        host(HostByte::TRANSPORT_DISRUPTED),
        host(HostByte::TIME_OUT),
        check(2, 0x04, 0x0b),
        check(5, 0x25, 0),
    ] {
        let mut rig = Rig::new();
        rig.submit(1, write(0, 8));
        let first = rig.next(lost);
        let second = rig.next(Completion::Good);
        assert_ne!(first.path, second.path);
        assert_eq!((first.op, first.data), (second.op, second.data));
        assert_eq!(rig.outcome(), Outcome::Good);
        let reports = rig.path_reports();
        assert_eq!(reports.len(), 1);
        assert_eq!((reports[0].path, reports[0].epoch), (id(first.path), 1));
    }
}

#[test]
fn the_lus_own_word_is_delivered_at_once_byte_for_byte_and_costs_no_path() {
    for (answer, rule) in [
        (check(3, 0x11, 0), "medium"),
        (check(5, 0x21, 0), "illegal-lba"),
        (check(7, 0x27, 0x07), "data-protect"),
        (status(Status::RESERVATION_CONFLICT), "reservation-conflict"),
    ] {
        let mut rig = Rig::new();
        rig.submit(1, read(0, 8));
        rig.next(answer);
        let Completion::Scsi { status, sense, .. } = answer else { panic!() };
        assert_eq!(rig.outcome(), Outcome::Lu { status, sense, residual: 0 });
        assert!(rig.path_reports().is_empty());
        let Report::Guest(told) = rig.reports[0] else { panic!() };
        assert_eq!((told.rule, told.tries), (rule, 1));
    }
}

#[test]
fn what_two_paths_agree_on_is_the_lus_word() {
    let mut rig = Rig::new();
    rig.submit(1, read(0, 8));
    let first = rig.next(check(4, 0x44, 0));
    let second = rig.next(check(4, 0x44, 0));
    assert_ne!(first.path, second.path);
    assert_eq!(sense_code(&rig.outcome()), Some(SenseCode::new(Key::HardwareError, 0x44, 0)));
}

/// One fault that ends a few commands so must not be the guest's, which has
/// nobody to repeat them (sd repeats them five times).
#[test]
fn a_command_that_the_lu_has_aborted_is_repeated_by_every_path_three_times() {
    for (paths, tries) in [(1, 6), (2, 6), (3, 9)] {
        let listed: Vec<(u8, u32)> = (0..paths).map(|slot| (slot, 1)).collect();
        for good_at_last in [true, false] {
            let mut rig = Rig::of(settings(limits()), &[&listed]);
            rig.submit(1, read(0, 8));
            for _ in 1..tries {
                rig.next(check(0xb, 0x4b, 0));
            }
            assert!(rig.ended.is_empty(), "{paths} paths");
            rig.next(if good_at_last { Completion::Good } else { check(0xb, 0x4b, 0) });
            match rig.outcome() {
                Outcome::Good => assert!(good_at_last),
                other => assert_eq!(
                    (good_at_last, sense_code(&other)),
                    (false, Some(SenseCode::new(Key::AbortedCommand, 0x4b, 0)))
                ),
            }
        }
    }
}

#[test]
fn what_only_one_path_says_is_its_own_trouble() {
    let mut rig = Rig::new();
    rig.submit(1, read(0, 8));
    rig.next(check(0xb, 0x4b, 0));
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn the_only_path_is_asked_twice() {
    let mut rig = Rig::single();
    rig.submit(1, read(0, 8));
    rig.next(check(4, 0x44, 0));
    rig.next(check(4, 0x44, 0));
    assert_eq!(sense_code(&rig.outcome()), Some(SenseCode::new(Key::HardwareError, 0x44, 0)));
    assert_eq!(rig.wire.count, 2);
}

#[test]
fn a_path_with_transport_trouble_does_not_agree_with_anybody() {
    for trouble_first in [true, false] {
        let mut rig = Rig::new();
        rig.submit(1, read(0, 8));
        for round in 0..2 {
            let marginal = (round == 0) == trouble_first;
            let answer =
                if marginal { host(HostByte::TRANSPORT_MARGINAL) } else { check(0xb, 0x47, 0) };
            rig.next(answer);
        }
        assert!(rig.ended.is_empty(), "one path's word is not the LU's");
        rig.pass(Duration::from_millis(100));
        rig.next(Completion::Good);
        assert_eq!(rig.outcome(), Outcome::Good);
    }
}

#[test]
fn not_ready_is_waited_for_whoever_said_it_first() {
    for not_ready_first in [true, false] {
        let mut rig = Rig::new();
        rig.submit(1, read(0, 8));
        for round in 0..2 {
            let not_ready = (round == 0) == not_ready_first;
            let answer = if not_ready { check(2, 0x3a, 0) } else { check(0xb, 0x47, 0) };
            rig.next(answer);
        }
        assert!(rig.ended.is_empty());
        rig.pass(Duration::from_millis(200));
        rig.next(Completion::Good);
        assert_eq!(rig.outcome(), Outcome::Good);
    }
}

#[test]
fn not_ready_on_every_path_for_the_whole_budget_is_the_lus_word() {
    let mut rig = Rig::new();
    rig.submit(1, read(0, 8));
    let began = rig.now;
    while rig.ended.is_empty() {
        if rig.wire.out.is_empty() {
            rig.pass(Duration::from_millis(50));
        } else {
            rig.next(check(2, 0x3a, 0));
        }
    }
    assert_eq!(sense_code(&rig.outcome()), Some(SenseCode::new(Key::NotReady, 0x3a, 0)));
    let took = rig.now.since(began);
    assert!((30..32).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn busy_is_repeated_after_a_pause_until_the_budget_ends() {
    let mut rig = Rig::single();
    rig.submit(1, read(0, 8));
    rig.next(status(Status::BUSY));
    assert!(rig.wire.out.is_empty(), "not at once");
    assert_eq!(rig.core.next_deadline(), Some(rig.now + Duration::from_millis(10)));
    rig.pass(Duration::from_millis(10));
    rig.next(status(Status::TASK_SET_FULL));
    rig.pass(Duration::from_millis(10));
    rig.now = rig.now + Duration::from_secs(30);
    rig.next(status(Status::BUSY));
    let Outcome::Lu { status, .. } = rig.outcome() else { panic!() };
    assert_eq!(status, Status::BUSY);
}

#[test]
fn an_outage_gives_a_new_budget() {
    let mut rig = Rig::single();
    rig.submit(1, read(0, 8));
    rig.next(status(Status::BUSY));
    rig.pass(Duration::from_millis(10));
    rig.next(GONE);
    rig.pass(Duration::from_secs(300));
    rig.table(&[&[(0, 2)]], Queueing::Hold);
    rig.next(status(Status::BUSY));
    rig.pass(Duration::from_millis(10));
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn the_time_that_a_failing_path_takes_is_none_of_the_lus() {
    let mut rig = Rig::new();
    rig.submit(1, read(0, 8));
    rig.next(status(Status::BUSY));
    rig.pass(Duration::from_millis(10));
    rig.now = rig.now + Duration::from_secs(30);
    rig.next(host(HostByte::TIME_OUT));
    // Busy twice for a moment is not busy for the whole budget.
    rig.next(status(Status::TASK_SET_FULL));
    assert!(rig.ended.is_empty(), "{:?}", rig.outcome());
    rig.pass(Duration::from_millis(10));
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn the_time_that_a_command_waits_for_room_is_none_of_the_lus() {
    let mut rig = Rig::single();
    rig.submit(1, read(0, 8));
    rig.next(check(2, 0x04, 0x01));
    rig.submit(2, read(8, 8));
    rig.wire.room = [0; 4];
    rig.pass(Duration::from_millis(200));
    rig.now = rig.now + Duration::from_secs(30);
    rig.wire.room = [64; 4];
    rig.next(Completion::Good);
    rig.next(check(2, 0x04, 0x01));
    assert_eq!(rig.ended.len(), 1, "it has been asked for a moment only: {:?}", rig.ended);
    rig.pass(Duration::from_millis(200));
    rig.next(Completion::Good);
    assert!(rig.ended.iter().all(|(_, end)| matches!(end, End::Finished(Outcome::Good))));
}

#[test]
fn a_unit_attention_is_no_answer_though_the_budget_has_ended() {
    let mut rig = Rig::single();
    rig.submit(1, write(0, 8));
    rig.next(check(2, 0x04, 0x01));
    rig.pass(Duration::from_millis(200));
    rig.now = rig.now + Duration::from_secs(30);
    rig.next(check(6, 0x8b, 0x02));
    assert!(rig.ended.is_empty(), "{:?}", rig.outcome());
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn answers_from_before_an_outage_do_not_count_after_it() {
    let mut rig = Rig::new();
    rig.submit(1, read(0, 8));
    let first = rig.next(check(0xb, 0x4b, 0));
    rig.next(GONE);
    // The path that merely answered is asked again, and lost as well.
    rig.next(GONE);
    assert_eq!(rig.core.held(), 1);
    rig.table(&[&[(first.path, 2)]], Queueing::Hold);
    rig.next(check(0xb, 0x4b, 0));
    assert!(!rig.wire.out.is_empty() || !rig.ended.is_empty());
    rig.table(&[&[(0, 2), (1, 2)]], Queueing::Hold);
    rig.all_good();
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn a_host_byte_that_asks_for_it_is_repeated_no_more_than_it_says() {
    let mut rig = Rig::single();
    rig.submit(1, read(0, 8));
    for _ in 0..6 {
        rig.next(host(HostByte::IMM_RETRY));
    }
    // Then as if every path had had its say, and once more from the start.
    for _ in 0..6 {
        rig.next(host(HostByte::IMM_RETRY));
    }
    assert!(rig.wire.out.is_empty() && rig.ended.is_empty(), "held back, not failed");
    rig.pass(Duration::from_millis(100));
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn transport_trouble_everywhere_ends_with_the_budget_where_the_policy_is_fail() {
    let mut rig = Rig::single();
    rig.table(&[&[(0, 1)]], Queueing::Fail);
    rig.submit(1, read(0, 8));
    let began = rig.now;
    while rig.ended.is_empty() {
        if rig.wire.out.is_empty() {
            rig.pass(Duration::from_millis(50));
        } else {
            rig.next(host(HostByte::TRANSPORT_MARGINAL));
        }
        assert!(rig.now.since(began) < Duration::from_secs(40));
    }
    assert_eq!(rig.outcome(), Outcome::NoPath);
}

#[test]
fn many_paths_with_a_unit_attention_each_are_no_error() {
    let paths: Vec<(u8, u32)> = (0..4).map(|slot| (slot, 1)).collect();
    let mut rig = Rig::of(settings(limits()), &[&paths]);
    rig.submit(1, read(0, 8));
    // Three conditions on each of four paths, told to whoever asks first.
    let mut pending = [3; 4];
    while rig.ended.is_empty() {
        let left = &mut pending[usize::from(rig.wire.out[0].path)];
        let answer = if *left > 0 { check(6, 0x2a, 0x01) } else { Completion::Good };
        *left -= i32::from(*left > 0);
        rig.next(answer);
    }
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn a_unit_attention_whose_repetition_is_lost_is_nobodys_answer() {
    let mut rig = Rig::of(settings(limits()), &[&[(0, 1), (1, 1), (2, 1)]]);
    rig.submit(1, read(0, 8));
    rig.next(check(4, 0x44, 0));
    rig.next(check(4, 0x44, 0));
    let last = rig.next(check(6, 0x2a, 0x01));
    let again = rig.next(GONE);
    assert_eq!(last.path, again.path);
    // What the two paths left have agreed on.
    assert_eq!(sense_code(&rig.outcome()), Some(SenseCode::new(Key::HardwareError, 0x44, 0)));
}

#[test]
fn an_lu_that_says_the_same_for_ever_is_believed() {
    for answer in [check(6, 0x2a, 0x01), status(Status::TASK_ABORTED)] {
        let mut rig = Rig::new();
        rig.submit(1, read(0, 8));
        while rig.ended.is_empty() {
            rig.next(answer);
            assert!(rig.wire.count < 40);
        }
        assert!(matches!(rig.outcome(), Outcome::Lu { .. }));
    }
}

#[test]
fn an_alua_transition_told_as_unit_attention_is_waited_for() {
    let mut rig = Rig::new();
    rig.submit(1, read(0, 8));
    for _ in 0..50 {
        rig.next(check(6, 0x04, 0x0a));
        assert!(rig.wire.out.is_empty());
        rig.pass(Duration::from_millis(200));
    }
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn an_errno_that_says_nothing_is_asked_for_its_sense_on_another_path() {
    let mut rig = Rig::new();
    rig.submit(1, write(0, 8));
    let first = rig.next(errno(libc::EIO));
    assert!(!first.passthrough);
    let second = rig.next(check(3, 0x0c, 0));
    assert!(second.passthrough);
    assert_ne!(first.path, second.path);
    assert_eq!(sense_code(&rig.outcome()), Some(SenseCode::new(Key::MediumError, 0x0c, 0)));
}

#[test]
fn or_on_the_same_path_where_there_is_no_other() {
    let mut rig = Rig::single();
    rig.submit(1, write(0, 8));
    rig.next(errno(libc::EIO));
    assert!(rig.next(Completion::Good).passthrough);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn our_own_errors_are_the_guests_and_no_paths() {
    let mut rig = Rig::new();
    rig.submit(1, write(0, 8));
    rig.next(Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::EINVAL });
    assert_eq!(rig.outcome(), Outcome::Host(libc::EINVAL));
    assert!(rig.path_reports().is_empty());
}

#[test]
fn the_lus_word_in_a_host_byte_is_not_called_a_missing_path() {
    let mut rig = Rig::new();
    rig.submit(1, write(0, 8));
    rig.next(host(HostByte::MEDIUM_ERROR));
    assert_eq!(rig.outcome(), Outcome::Host(libc::ENODATA));
}

#[test]
fn after_a_part_failed_nothing_more_of_its_request_is_issued() {
    let mut rig = Rig::single();
    rig.wire.room = [1; 4];
    rig.submit(1, write(0, 64));
    rig.next(check(3, 0x0c, 0));
    assert!(rig.wire.out.is_empty());
    assert_eq!(rig.wire.count, 1);
    assert!(matches!(rig.outcome(), Outcome::Lu { .. }));
    assert!(rig.core.is_idle());
}

#[test]
fn a_failed_request_ends_only_when_its_last_command_is_back() {
    let mut rig = Rig::new();
    rig.submit(1, write(0, 32));
    assert_eq!(rig.wire.out.len(), 2);
    rig.next(check(3, 0x0c, 0));
    assert!(rig.ended.is_empty(), "the other part may still write the guest's memory");
    rig.next(Completion::Good);
    assert!(matches!(rig.outcome(), Outcome::Lu { .. }));
}

#[test]
fn completions_of_the_past_are_ignored() {
    let mut rig = Rig::new();
    rig.submit(1, read(0, 8));
    let sent = rig.next(status(Status::BUSY));
    rig.core.complete(rig.now, sent.cookie, &Completion::Good);
    rig.pump();
    assert!(rig.ended.is_empty(), "it waits");
    rig.pass(Duration::from_millis(10));
    rig.core.complete(rig.now, sent.cookie, &Completion::Good);
    rig.pump();
    assert!(rig.ended.is_empty(), "its successor is out");
    rig.next(Completion::Good);
    rig.core.complete(rig.now, sent.cookie, &check(3, 0x11, 0));
    rig.core.complete(rig.now, Cookie(u64::MAX), &Completion::Good);
    rig.pump();
    assert_eq!(rig.outcome(), Outcome::Good);
    assert_eq!(rig.core.path_of(sent.cookie), None);
}

#[test]
fn commands_that_end_at_once_are_judged_like_the_others() {
    let mut rig = Rig::new();
    rig.wire.at_once.extend([GONE, check(6, 0x2a, 0x01), Completion::Good]);
    rig.submit(1, read(0, 8));
    assert_eq!(rig.outcome(), Outcome::Good);
    assert_eq!(rig.wire.count, 3);
}
