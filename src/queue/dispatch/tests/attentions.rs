//! Unit attentions: each event reaches the guest once, whoever met it.

use super::*;

fn rig(joined: bool, groups: &[&[(u8, u32)]]) -> (Rig, Arc<Attentions>) {
    let attentions = Arc::new(Attentions::new(joined));
    let rig = Rig::hearing(settings(limits()), groups, Some(Arc::clone(&attentions)));
    (rig, attentions)
}

fn sense_of(completion: Completion) -> Sense {
    let Completion::Scsi { sense, .. } = completion else { panic!() };
    sense
}

const MODE_CHANGED: (u8, u8) = (0x2a, 0x01);

fn ua(code: (u8, u8)) -> Completion {
    check(6, code.0, code.1)
}

#[test]
fn a_guest_that_hears_of_none_sees_none() {
    let mut rig = Rig::new();
    rig.submit_read(1);
    rig.next(ua(MODE_CHANGED));
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn the_first_path_that_tells_ends_the_guests_command_and_the_others_repeat() {
    let (mut rig, attentions) = rig(true, &[&[(0, 1), (1, 1)]]);
    rig.submit_read(1);
    rig.submit_read(2);
    assert_ne!(rig.wire.out[0].path, rig.wire.out[1].path);
    let bytes = [0x70, 0, 6, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0x2a, 0x01, 0, 0, 0, 0, 0xde, 0xad];
    let told = Completion::Scsi {
        status: Status::CHECK_CONDITION,
        host: HostByte::OK,
        sense: Sense::from_bytes(&bytes),
        residual: 4096,
    };
    rig.next(told);
    let exactly = Outcome::Lu {
        status: Status::CHECK_CONDITION,
        sense: Sense::from_bytes(&bytes),
        residual: 4096,
    };
    assert_eq!(rig.outcome(), exactly);
    let second = rig.next(ua(MODE_CHANGED));
    assert_eq!(rig.wire.out[0].path, second.path, "again on the same path");
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
    assert!(!attentions.is_pending());
    assert!(rig.told().is_empty());
}

#[test]
fn news_end_a_command_that_must_not_be_executed_twice_and_what_is_known_does_not() {
    let (mut rig, _) = rig(true, &[&[(0, 1), (1, 1)]]);
    rig.submit_compare_and_write(1);
    rig.submit_compare_and_write(2);
    rig.next(ua(MODE_CHANGED));
    assert_eq!(sense_code(&rig.outcome()).unwrap().asc, 0x2a);
    rig.next(ua(MODE_CHANGED));
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn news_that_put_a_path_in_doubt_do_both() {
    for code in [(0x29, 0x00), (0x3f, 0x03)] {
        let (mut rig, _) = rig(true, &[&[(0, 1), (1, 1)]]);
        rig.submit_read(1);
        let first = rig.next(ua(code));
        assert_eq!(sense_code(&rig.outcome()).unwrap().asc, code.0);
        let reports = rig.path_reports();
        assert_eq!(reports.len(), 1);
        let doubt = PathVerdict::Doubt;
        assert!(matches!(reports[0].reason, IoReason::Judged { verdict, .. } if verdict == doubt));
        // Nothing goes there until it is proven.
        for head in 2..6 {
            rig.submit_read(head);
        }
        assert!(rig.wire.out.iter().all(|s| s.path != first.path));
    }
}

#[test]
fn what_concerns_the_path_alone_is_not_for_a_guest_that_sees_one_lu() {
    for code in [(0x2a, 0x06), (0x29, 0x07), (0x3f, 0x0e), (0x04, 0x0a)] {
        let (mut rig, attentions) = rig(true, &[&[(0, 1), (1, 1)]]);
        rig.submit_read(1);
        rig.next(ua(code));
        rig.pass(Duration::from_millis(200));
        rig.next(Completion::Good);
        assert_eq!(rig.outcome(), Outcome::Good, "{code:x?}");
        assert!(!attentions.is_pending());
    }
}

#[test]
fn a_guest_that_sees_paths_hears_everything() {
    let (mut rig, _) = rig(false, &[&[(0, 1)]]);
    for code in [(0x2a, 0x06), (0x2a, 0x06), (0x2a, 0x01)] {
        rig.submit_read(1);
        rig.next(ua(code));
        assert_eq!(sense_code(&rig.outcome()).unwrap().ascq, code.1);
    }
}

#[test]
fn one_unit_attention_after_another_is_normal_and_an_endless_row_is_not() {
    let (mut rig, _) = rig(true, &[&[(0, 1)]]);
    rig.submit_read(1);
    for _ in 0..32 {
        rig.next(ua((0x2a, 0x06)));
    }
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
    rig.submit_read(2);
    while !rig.wire.out.is_empty() {
        rig.next(ua((0x2a, 0x06)));
        assert!(rig.wire.count < 200, "a path that tells for ever");
    }
    let word = Outcome::Lu {
        status: Status::CHECK_CONDITION,
        sense: sense_of(ua((0x2a, 0x06))),
        residual: 0,
    };
    assert_eq!(rig.outcome(), word);
}

#[test]
fn a_path_that_tells_for_ever_does_not_keep_a_command_from_the_others() {
    let (mut rig, _) = rig(true, &[&[(0, 1), (1, 1)]]);
    rig.submit_read(1);
    let bad = rig.wire.out[0].path;
    while rig.wire.out[0].path == bad {
        rig.next(ua((0x2a, 0x06)));
        assert!(rig.wire.count < 100);
    }
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn what_a_command_met_that_was_aborted_meanwhile_waits_for_the_next() {
    let (mut rig, attentions) = rig(true, &[&[(0, 1), (1, 1)]]);
    rig.submit_read(1);
    rig.core.manage(
        rig.now,
        &crate::io::Management {
            action: crate::io::Action::End { reset: true },
            reach: crate::io::Reach::Unit(crate::io::MapSlot(0)),
        },
    );
    rig.next(ua(MODE_CHANGED));
    assert_eq!(rig.outcome(), Outcome::Aborted { reset: true });
    assert_eq!(attentions.take(), Some(sense_of(ua(MODE_CHANGED))));
}

#[test]
fn what_a_discarded_command_met_waits_for_the_next() {
    for (how, heard) in [(Stop::Discard, false), (Stop::Suspend, true), (Stop::Finish, true)] {
        let (mut rig, attentions) = rig(true, &[&[(0, 1), (1, 1)]]);
        rig.submit_read(1);
        rig.core.stop_ring(rig.now, 0, how);
        rig.next(ua(MODE_CHANGED));
        assert_eq!(rig.ended.len(), 1);
        assert_eq!(matches!(rig.end(), End::Finished(Outcome::Lu { .. })), heard);
        assert_eq!(attentions.is_pending(), !heard);
    }
}

#[test]
fn a_block_operation_leaves_what_it_met_to_the_guests_next_command() {
    let (mut rig, attentions) = rig(true, &[&[(0, 1), (1, 1)]]);
    rig.submit(1, read(0, 8));
    rig.next(ua(MODE_CHANGED));
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Good);
    assert!(attentions.is_pending());
}

#[test]
fn a_deferred_error_is_no_unit_attention() {
    let (mut rig, attentions) = rig(true, &[&[(0, 1)]]);
    let sense = Sense::from_bytes(&[0x71, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2a, 1, 0, 0, 0, 0]);
    let (status, host) = (Status::CHECK_CONDITION, HostByte::OK);
    for head in 0..2 {
        rig.submit_read(head);
        rig.next(Completion::Scsi { status, host, sense, residual: 0 });
        assert_eq!(rig.outcome(), Outcome::Lu { status, sense, residual: 0 });
    }
    assert!(!attentions.is_pending());
}

/// A REQUEST SENSE of the guest, whose data comes to a buffer of ours.
fn request_sense(head: u16) -> Request {
    let mut buffer = vec![0; 252];
    let data = vec![Segment { addr: buffer.as_mut_ptr().expose_provenance(), len: buffer.len() }];
    let cdb = Cdb::from_bytes(&[0x03, 0, 0, 0, 252, 0]).unwrap();
    Request {
        tag: Tag { ring: 0, head },
        op: Some(Op::Cdb { cdb, direction: Direction::In }),
        front: crate::io::FrontState { buffer, ..Default::default() },
        data,
        ..Request::default()
    }
}

impl Rig {
    /// The LU answers a REQUEST SENSE with this data; what the guest gets.
    fn tell_by_data(&mut self, head: u16, data: &Sense) -> Vec<u8> {
        let mut request = request_sense(head);
        request.front.buffer[..data.as_bytes().len()].copy_from_slice(data.as_bytes());
        self.core.submit(Box::new(request)).expect("room");
        self.core.pump(self.now, &mut self.wire);
        let sent = self.wire.out.pop().expect("on a path");
        let residual = 252 - u32::try_from(data.as_bytes().len()).unwrap();
        let (status, host, sense) = (Status::GOOD, HostByte::OK, Sense::EMPTY);
        let good = Completion::Scsi { status, host, sense, residual };
        self.core.complete(self.now, sent.cookie, &good);
        self.core.pump(self.now, &mut self.wire);
        let ended: Vec<_> = self.core.finished().collect();
        assert!(matches!(
            ended[..],
            [(_, End::Finished(Outcome::Lu { status: Status::GOOD, .. }))]
        ));
        self.reports.extend(self.core.reports().collect::<Vec<_>>());
        ended[0].0.front.buffer[..data.as_bytes().len()].to_vec()
    }
}

/// The LU forgets a unit attention that it has told as parameter data: nothing
/// but that data says that the path may lead elsewhere now (law 2).
#[test]
fn what_request_sense_brings_puts_a_path_in_doubt_as_an_answer_does() {
    for joined in [true, false] {
        for code in [(0x29, 0x00), (0x3f, 0x03), (0x3f, 0x0e)] {
            let (mut rig, _) = rig(joined, &[&[(0, 1)]]);
            let sense = sense_of(ua(code));
            let got = rig.tell_by_data(1, &sense);
            let heard = !joined || code != (0x3f, 0x0e);
            assert_eq!(got[2] & 0x0f, if heard { 6 } else { 0 }, "{code:02x?}");
            let reports = rig.path_reports();
            assert_eq!(reports.len(), 1, "{code:02x?}");
            let doubt = PathVerdict::Doubt;
            assert!(
                matches!(reports[0].reason, IoReason::Judged { verdict, .. } if verdict == doubt)
            );
            rig.submit_read(2);
            assert!(rig.wire.out.is_empty(), "nothing goes there until it is proven");
        }
    }
}

#[test]
fn what_request_sense_brings_is_heard_once_and_not_lost() {
    let (mut rig, attentions) = rig(true, &[&[(0, 1)]]);
    let is = |data: &[u8]| Sense::from_bytes(data).code().unwrap();
    for sense in
        [sense_of(ua(MODE_CHANGED)), Sense::descriptor(is(sense_of(ua((0x2a, 0x09))).as_bytes()))]
    {
        let code = sense.code().unwrap();
        assert_eq!(rig.tell_by_data(1, &sense), sense.as_bytes(), "byte for byte");
        // The same path tells again: it is another event.
        rig.submit_read(2);
        rig.next(check(6, code.asc, code.ascq));
        assert_eq!(sense_code(&rig.outcome()), Some(code));
    }
    // What another path has told, and what concerns a path only.
    assert_eq!(
        attentions.met(77, u64::MAX, &sense_of(ua((0x2a, 0x02)))),
        crate::scsi::attention::Hearing::News
    );
    for (asc, ascq) in [(0x2a, 0x02), (0x2a, 0x06)] {
        let code = SenseCode::new(Key::UnitAttention, asc, ascq);
        for sense in [Sense::fixed(code), Sense::descriptor(code)] {
            let got = rig.tell_by_data(3, &sense);
            if (asc, ascq) == (0x2a, 0x06) || sense == Sense::fixed(code) {
                assert_eq!(is(&got), SenseCode::NO_SENSE, "{code}");
            }
        }
    }
    assert!(!attentions.is_pending());
    let not_ready = Sense::fixed(SenseCode::new(Key::NotReady, 0x04, 0x04));
    assert_eq!(rig.tell_by_data(4, &not_ready), not_ready.as_bytes());
}

#[test]
fn what_an_aborted_request_sense_brought_waits_for_the_next_command() {
    let (mut rig, attentions) = rig(true, &[&[(0, 1)]]);
    let mut request = request_sense(1);
    let sense = sense_of(ua(MODE_CHANGED));
    request.front.buffer[..sense.as_bytes().len()].copy_from_slice(sense.as_bytes());
    rig.submit_request(request);
    let reach = crate::io::Reach::Unit(crate::io::MapSlot(0));
    let action = crate::io::Action::End { reset: false };
    rig.core.manage(rig.now, &crate::io::Management { action, reach });
    rig.next(Completion::Good);
    assert_eq!(rig.outcome(), Outcome::Aborted { reset: false });
    assert_eq!(attentions.take().and_then(|s| s.code()), sense.code());
}
