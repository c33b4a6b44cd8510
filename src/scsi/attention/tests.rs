//! What a guest hears of, and what it does not hear twice.

use super::*;

const NOW: u64 = u64::MAX;

fn ua(asc: u8, ascq: u8) -> Sense {
    Sense::fixed(SenseCode::new(Key::UnitAttention, asc, ascq))
}

#[test]
fn an_event_told_by_every_path_is_news_once() {
    let attentions = Attentions::new(true);
    assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x00)), Hearing::News);
    assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x00)), Hearing::Known);
    assert_eq!(attentions.met(3, NOW, &ua(0x29, 0x00)), Hearing::Known);
    assert!(!attentions.is_pending());
}

#[test]
fn a_path_that_tells_again_tells_of_another_event() {
    let attentions = Attentions::new(true);
    assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x01)), Hearing::News);
    assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x01)), Hearing::Known);
    assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x01)), Hearing::News);
    assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x01)), Hearing::Known);
}

#[test]
fn a_path_that_had_nothing_left_to_tell_tells_of_another_event() {
    let attentions = Attentions::new(true);
    assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x01)), Hearing::News);
    // Another path joins, the first one leaves, and something happens.
    attentions.drained(2, attentions.moment());
    assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x01)), Hearing::News);
}

#[test]
fn a_path_that_was_proven_before_an_event_may_still_have_to_tell_of_it() {
    let attentions = Attentions::new(true);
    assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x01)), Hearing::News);
    let moment = attentions.moment();
    assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x01)), Hearing::News);
    attentions.drained(2, moment);
    assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x01)), Hearing::Known);
}

#[test]
fn a_command_older_than_the_proof_of_its_path_tells_of_no_other_event() {
    let attentions = Attentions::new(true);
    assert_eq!(attentions.met(1, 0, &ua(0x2a, 0x01)), Hearing::News);
    let sent = attentions.now();
    attentions.drained(2, attentions.moment());
    assert_eq!(attentions.met(2, sent, &ua(0x2a, 0x01)), Hearing::Known);
    let sent = attentions.now();
    assert_eq!(attentions.met(2, sent, &ua(0x2a, 0x01)), Hearing::News);
}

#[test]
fn what_a_path_tells_late_is_no_news_after_an_order_by_it() {
    let attentions = Attentions::new(true);
    let sent = attentions.now();
    assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x04)), Hearing::News);
    // The other one's command has told, and is not back yet.
    attentions.drained(2, attentions.moment());
    let released = SenseCode::new(Key::UnitAttention, 0x2a, 0x04);
    let expected = attentions.expect_of_others(2, released);
    attentions.has_happened(expected);
    assert_eq!(attentions.met(2, sent, &ua(0x2a, 0x04)), Hearing::Known);
    assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x04)), Hearing::News);
}

#[test]
fn a_path_that_tells_late_of_an_event_tells_of_our_own_as_well() {
    let attentions = Attentions::new(true);
    let sent = attentions.now();
    let released = SenseCode::new(Key::UnitAttention, 0x2a, 0x04);
    assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x04)), Hearing::News);
    let expected = attentions.expect_of_others(1, released);
    attentions.has_happened(expected);
    for hearing in [Hearing::Known, Hearing::Known, Hearing::News] {
        assert_eq!(attentions.met(2, sent, &ua(0x2a, 0x04)), hearing);
    }
    let expected = attentions.expect_of_others(1, released);
    attentions.has_happened(expected);
    for hearing in [Hearing::Known, Hearing::News] {
        assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x04)), hearing);
    }
}

#[test]
fn what_is_expected_is_known_from_every_path_and_no_news_is_lost() {
    let attentions = Attentions::new(true);
    attentions.expect(SenseCode::LU_RESET);
    assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::Known);
    assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x03)), Hearing::Known);
    assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::News);
    attentions.expect(SenseCode::LU_RESET);
    attentions.expect_no_more(SenseCode::LU_RESET);
    assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x03)), Hearing::News);
}

#[test]
fn what_the_array_was_made_to_tell_is_known_once_from_every_path() {
    for joined in [true, false] {
        let attentions = Attentions::new(joined);
        assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::News);
        let before = attentions.moment();
        attentions.expect(SenseCode::LU_RESET);
        // A check that began before says nothing of what comes after.
        attentions.drained(3, before);
        for path in [1, 2, 3] {
            assert_eq!(attentions.met(path, NOW, &ua(0x29, 0x03)), Hearing::Known);
        }
        assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x03)), Hearing::News);
        attentions.expect(SenseCode::LU_RESET);
        attentions.drained(2, attentions.moment());
        assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x03)), Hearing::News, "of another reset");
        attentions.expect(SenseCode::LU_RESET);
        attentions.expect_no_more(SenseCode::LU_RESET);
        assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::News);
    }
}

#[test]
fn events_of_different_codes_do_not_hide_each_other() {
    let attentions = Attentions::new(true);
    assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x01)), Hearing::News);
    assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x09)), Hearing::News);
}

#[test]
fn what_a_check_met_waits_for_the_guest() {
    let attentions = Attentions::new(true);
    attentions.overheard(1, &ua(0x2a, 0x09));
    assert!(attentions.is_pending());
    assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x09)), Hearing::Known);
    assert_eq!(attentions.take(), Some(ua(0x2a, 0x09)));
    assert!(!attentions.is_pending());
    assert_eq!(attentions.take(), None);
}

#[test]
fn what_concerns_a_path_is_kept_from_the_guest_unless_it_sees_paths() {
    for &(asc, ascq) in OURS {
        assert_eq!(Attentions::new(true).met(1, NOW, &ua(asc, ascq)), Hearing::Known);
        assert_eq!(Attentions::new(false).met(1, NOW, &ua(asc, ascq)), Hearing::News);
    }
}

#[test]
fn one_that_waits_already_is_not_queued_twice() {
    let attentions = Attentions::new(true);
    attentions.raise(&ua(0x3f, 0x0e));
    attentions.raise(&ua(0x3f, 0x0e));
    assert!(attentions.take().is_some());
    assert!(attentions.take().is_none());
}

#[test]
fn what_the_guest_learnt_otherwise_is_forgotten_and_nothing_else() {
    let attentions = Attentions::new(true);
    let luns_changed = SenseCode::new(Key::UnitAttention, 0x3f, 0x0e);
    attentions.raise(&ua(0x3f, 0x0e));
    attentions.raise(&ua(0x29, 0x03));
    attentions.forget(luns_changed);
    assert!(attentions.is_pending());
    assert_eq!(attentions.take(), Some(ua(0x29, 0x03)));
    attentions.raise(&ua(0x3f, 0x0e));
    attentions.forget(luns_changed);
    assert!(!attentions.is_pending());
    assert_eq!(attentions.take(), None);
}

#[test]
fn what_we_caused_ourselves_is_known_from_every_path_once() {
    let attentions = Attentions::new(true);
    assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::News);
    for _ in 0..2 {
        attentions.expect(SenseCode::LU_RESET);
        assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::Known);
        assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x03)), Hearing::Known);
    }
    // Somebody else's.
    assert_eq!(attentions.met(2, NOW, &ua(0x29, 0x03)), Hearing::News);
    assert_eq!(attentions.met(1, NOW, &ua(0x29, 0x03)), Hearing::Known);
}

#[test]
fn what_a_guest_does_by_one_path_is_no_news_from_the_others() {
    let attentions = Attentions::new(true);
    let _done = attentions.expect_of_others(1, SenseCode::RESERVATIONS_RELEASED);
    assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x04)), Hearing::Known);
    attentions.overheard(3, &ua(0x2a, 0x04));
    assert!(!attentions.is_pending());
    // Whoever did it is told nothing of it: this is another host's doing.
    assert_eq!(attentions.met(1, NOW, &ua(0x2a, 0x04)), Hearing::News);
    assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x04)), Hearing::Known);
    assert_eq!(attentions.met(2, NOW, &ua(0x2a, 0x04)), Hearing::News);
}

#[test]
fn what_a_guest_does_by_each_path_in_turn_is_no_news_from_any() {
    let attentions = Attentions::new(true);
    let released = ua(0x2a, 0x04);
    let _done = attentions.expect_of_others(1, SenseCode::RESERVATIONS_RELEASED);
    // Path 2 has the attention of the first when it is to do the same.
    let refused = attentions.expect_of_others(2, SenseCode::RESERVATIONS_RELEASED);
    assert_eq!(attentions.met(2, NOW, &released), Hearing::Known);
    attentions.has_not_happened(refused);
    let _done = attentions.expect_of_others(2, SenseCode::RESERVATIONS_RELEASED);
    assert_eq!(attentions.met(1, NOW, &released), Hearing::Known);
    assert_eq!(attentions.met(3, NOW, &released), Hearing::Known);
    assert!(!attentions.is_pending());
    assert_eq!(attentions.met(2, NOW, &released), Hearing::News, "another host's");
}

#[test]
fn a_guest_that_is_fenced_while_it_fences_hears_of_it_once() {
    let preempted = ua(0x2a, 0x05);
    for told_before in [false, true] {
        let attentions = Attentions::new(true);
        let refused = attentions.expect_of_others(1, SenseCode::REGISTRATIONS_PREEMPTED);
        if told_before {
            assert_eq!(attentions.met(2, NOW, &preempted), Hearing::Known);
        }
        attentions.has_not_happened(refused);
        assert_eq!(attentions.is_pending(), told_before);
        if told_before {
            assert_eq!(attentions.take(), Some(preempted));
        } else {
            assert_eq!(attentions.met(2, NOW, &preempted), Hearing::News);
        }
        // The other paths tell of the same.
        assert_eq!(attentions.met(1, NOW, &preempted), Hearing::Known);
        assert_eq!(attentions.met(3, NOW, &preempted), Hearing::Known);
        assert!(!attentions.is_pending());
    }
}

#[test]
fn what_was_refused_leaves_what_was_known_as_it_was() {
    let preempted = ua(0x2a, 0x05);
    let attentions = Attentions::new(true);
    assert_eq!(attentions.met(1, NOW, &preempted), Hearing::News);
    attentions.drained(4, attentions.moment());
    let refused = attentions.expect_of_others(1, SenseCode::REGISTRATIONS_PREEMPTED);
    assert_eq!(attentions.met(2, NOW, &preempted), Hearing::Known);
    attentions.drained(3, attentions.moment());
    attentions.has_not_happened(refused);
    // Path 2 has told of the first event, path 3 and 4 have nothing of it.
    assert!(!attentions.is_pending());
    for path in [2, 3, 4] {
        let attentions = &attentions;
        assert_eq!(attentions.met(path, NOW, &preempted), Hearing::News, "path {path}");
        let other = [2, 3, 4].into_iter().filter(|other| *other != path);
        for other in other.chain([1]) {
            assert_eq!(attentions.met(other, NOW, &preempted), Hearing::Known, "path {other}");
        }
    }
}

#[test]
fn what_two_paths_tell_meanwhile_is_one_event_that_the_guest_hears() {
    let preempted = ua(0x2a, 0x05);
    let attentions = Attentions::new(true);
    let refused = attentions.expect_of_others(1, SenseCode::REGISTRATIONS_PREEMPTED);
    assert_eq!(attentions.met(2, NOW, &preempted), Hearing::Known);
    assert_eq!(attentions.met(3, NOW, &preempted), Hearing::Known);
    attentions.has_not_happened(refused);
    assert_eq!(attentions.take(), Some(preempted));
    assert_eq!(attentions.take(), None);
}

#[test]
fn a_path_that_had_nothing_to_tell_before_it_happened_tells_of_it_all_the_same() {
    let preempted = ua(0x2a, 0x05);
    let attentions = Attentions::new(true);
    let expected = attentions.expect_of_others(1, SenseCode::REGISTRATIONS_PREEMPTED);
    // A check by path 2 while the command is on its way; another is out still.
    attentions.drained(2, attentions.moment());
    let before = attentions.moment();
    attentions.has_happened(expected);
    attentions.drained(3, before);
    for path in [2, 3] {
        assert_eq!(attentions.met(path, NOW, &preempted), Hearing::Known, "path {path}");
    }
    // One that has nothing to tell afterwards tells of another event.
    attentions.drained(4, attentions.moment());
    assert_eq!(attentions.met(4, NOW, &preempted), Hearing::News);
}

#[test]
fn what_the_guests_own_commands_had_told_is_not_the_loss_of_its_registration() {
    let (code, preempted) = (SenseCode::REGISTRATIONS_PREEMPTED, ua(0x2a, 0x05));
    let attentions = Attentions::new(true);
    let since = attentions.moment();
    attentions.has_happened(attentions.expect_of_others(1, code));
    assert_eq!(attentions.met(2, NOW, &preempted), Hearing::Known);
    attentions.seen(code, since);
    assert_eq!(attentions.take(), Some(preempted), "no path has told of this one");
    // And what was heard is heard, though the guest preempts afterwards.
    let attentions = Attentions::new(true);
    let since = attentions.moment();
    assert_eq!(attentions.met(2, NOW, &preempted), Hearing::News);
    attentions.has_happened(attentions.expect_of_others(1, code));
    attentions.seen(code, since);
    assert!(!attentions.is_pending());
}

#[test]
fn a_clear_that_a_path_has_told_of_is_not_told_again_as_a_preempt() {
    let (code, cleared) = (SenseCode::REGISTRATIONS_PREEMPTED, ua(0x2a, 0x03));
    let attentions = Attentions::new(true);
    let since = attentions.moment();
    assert_eq!(attentions.met(1, NOW, &cleared), Hearing::News);
    attentions.seen(code, since);
    assert!(!attentions.is_pending());
    // What was told before the guest registered again was of another.
    attentions.seen(code, attentions.moment());
    assert_eq!(attentions.take(), Some(ua(0x2a, 0x05)));
    // Nor is one that a path tells of when we have told of it.
    assert_eq!(attentions.met(2, NOW, &cleared), Hearing::Known);
}

#[test]
fn what_is_seen_otherwise_is_told_once_whether_a_path_tells_of_it_or_not() {
    let (code, preempted) = (SenseCode::REGISTRATIONS_PREEMPTED, ua(0x2a, 0x05));
    // No path has told of it when it is seen.
    let attentions = Attentions::new(true);
    attentions.seen(code, attentions.moment());
    assert_eq!(attentions.take(), Some(preempted));
    assert_eq!(attentions.met(1, NOW, &preempted), Hearing::Known);
    assert_eq!(attentions.met(2, NOW, &preempted), Hearing::Known);
    // One has.
    let since = attentions.moment();
    assert_eq!(attentions.met(2, NOW, &preempted), Hearing::News);
    attentions.seen(code, since);
    assert!(!attentions.is_pending());
    // What one has told of an earlier event says nothing of this one; nor
    // does what the guest itself has done since.
    let since = attentions.moment();
    let _done = attentions.expect_of_others(1, code);
    attentions.seen(code, since);
    assert_eq!(attentions.take(), Some(preempted));
}

#[test]
fn a_command_from_before_our_own_event_that_comes_back_after_a_later_one_is_no_news() {
    let (code, preempted) = (SenseCode::REGISTRATIONS_PREEMPTED, ua(0x2a, 0x05));
    let attentions = Attentions::new(true);
    let slow = attentions.now();
    for _ in 0..2 {
        attentions.has_happened(attentions.expect_of_others(1, code));
    }
    assert_eq!(attentions.met(2, attentions.now(), &preempted), Hearing::Known, "the second");
    assert_eq!(attentions.met(2, slow, &preempted), Hearing::Known, "the first");
    assert_eq!(attentions.met(2, slow, &preempted), Hearing::News, "another host's");
}

#[test]
fn a_path_that_tells_of_two_of_our_own_events_in_a_row_tells_of_no_other() {
    let (code, released) = (SenseCode::RESERVATIONS_RELEASED, ua(0x2a, 0x04));
    let attentions = Attentions::new(true);
    attentions.has_happened(attentions.expect_of_others(1, code));
    assert_eq!(attentions.met(3, attentions.moment(), &released), Hearing::Known);
    // Path 4 had nothing to tell after the first.
    attentions.drained(4, attentions.moment());
    attentions.has_happened(attentions.expect_of_others(1, code));
    for path in [2, 2, 3, 4] {
        let sent = attentions.moment();
        assert_eq!(attentions.met(path, sent, &released), Hearing::Known, "path {path}");
    }
    assert_eq!(attentions.met(2, attentions.moment(), &released), Hearing::News);
    for path in [1, 3, 4] {
        let sent = attentions.moment();
        assert_eq!(attentions.met(path, sent, &released), Hearing::Known, "path {path}");
    }
    assert_eq!(attentions.met(1, attentions.moment(), &released), Hearing::News);
}

#[test]
fn a_path_tells_of_our_own_event_after_that_of_another_host_once_each() {
    let (code, preempted) = (SenseCode::REGISTRATIONS_PREEMPTED, ua(0x2a, 0x05));
    let attentions = Attentions::new(true);
    assert_eq!(attentions.met(1, attentions.moment(), &preempted), Hearing::News);
    attentions.has_happened(attentions.expect_of_others(1, code));
    // (Whoever did it tells of the first only.)
    for path in [2, 2, 3] {
        let sent = attentions.moment();
        assert_eq!(attentions.met(path, sent, &preempted), Hearing::Known, "path {path}");
    }
    attentions.drained(3, attentions.moment());
    assert_eq!(attentions.met(3, attentions.moment(), &preempted), Hearing::News);
}

#[test]
fn another_hosts_event_while_our_own_is_out_leaves_paths_that_can_be_drained() {
    let (code, preempted) = (SenseCode::REGISTRATIONS_PREEMPTED, ua(0x2a, 0x05));
    for happens in [false, true] {
        let attentions = Attentions::new(true);
        let expected = attentions.expect_of_others(1, code);
        assert_eq!(attentions.met(1, attentions.moment(), &preempted), Hearing::News);
        if happens {
            attentions.has_happened(expected);
        } else {
            attentions.has_not_happened(expected);
        }
        attentions.drained(2, attentions.moment());
        assert_eq!(attentions.met(2, attentions.moment(), &preempted), Hearing::News);
    }
}

#[test]
fn what_was_told_of_our_last_event_while_another_was_tried_in_vain_is_no_news() {
    let released = ua(0x2a, 0x04);
    let attentions = Attentions::new(true);
    attentions.has_happened(attentions.expect_of_others(1, SenseCode::RESERVATIONS_RELEASED));
    let sent = attentions.now();
    let refused = attentions.expect_of_others(1, SenseCode::RESERVATIONS_RELEASED);
    assert_eq!(attentions.met(2, sent, &released), Hearing::Known);
    attentions.drained(2, attentions.moment());
    attentions.has_not_happened(refused);
    assert!(!attentions.is_pending());
}

#[test]
fn what_a_slow_command_told_while_an_event_was_tried_in_vain_is_judged_by_when_it_was_sent() {
    let released = ua(0x2a, 0x04);
    let attentions = Attentions::new(true);
    attentions.has_happened(attentions.expect_of_others(1, SenseCode::RESERVATIONS_RELEASED));
    let slow = attentions.now();
    let refused = attentions.expect_of_others(1, SenseCode::RESERVATIONS_RELEASED);
    // Its command has met what there was to tell, and is not back yet.
    attentions.drained(2, attentions.moment());
    assert_eq!(attentions.met(2, slow, &released), Hearing::Known);
    attentions.has_not_happened(refused);
    assert!(!attentions.is_pending());
}
