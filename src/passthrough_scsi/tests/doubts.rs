//! What questions a path's identity stops every thread's commands there.

use super::*;
use crate::sim::NewCapacity;

/// How a path that is in doubt ends a command that it does not send.
const DOUBT: Completion = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ESTALE };

fn tur() -> Op {
    cdb(&[0; 6], Direction::None)
}

/// A path to a LU of its own, and two queue threads that use it.
fn shared_path() -> (Arc<PathHandle>, Thread, Thread) {
    let path = sim_path(&sim_image(LuConfig::default()), "a");
    let (one, two) = (Thread::new(&path), Thread::new(&path));
    (path, one, two)
}

#[test]
fn a_reset_of_the_lu_is_told_to_every_path() {
    let image = sim_image(LuConfig::default());
    let (a, b) = (sim_path(&image, "a"), sim_path(&image, "b"));
    a.reset_lu(TIMEOUT).unwrap();
    for path in [&a, &b] {
        let met = path.execute(&Cdb::test_unit_ready(), Data::None, TIMEOUT);
        let code = unit_attention(&met).and_then(Sense::code);
        assert_eq!(code, Some(SenseCode::LU_RESET));
    }
}

#[test]
fn what_a_check_meets_stops_the_commands_of_every_thread_until_a_proof() {
    let (path, mut one, mut two) = shared_path();
    // A plug leaves a unit attention behind; the checker meets it.
    path.inject(Fault::Plug);
    let met = path.execute(&Cdb::test_unit_ready(), Data::None, TIMEOUT);
    assert!(unit_attention(&met).is_some_and(|s| s.code().unwrap().questions_identity()));
    assert_eq!(one.run(tur(), &[]), DOUBT);
    assert_eq!(one.run(tur(), &[]), DOUBT, "the engine may not have heard of the first");
    assert_eq!(two.run(Op::Read(Extent::new(0, 1)), &[]), DOUBT);
    assert!(path.identify(TIMEOUT, &|_| ()).is_ok());
    assert_eq!(one.run(tur(), &[]), Completion::Good);
    assert_eq!(two.run(tur(), &[]), Completion::Good);
}

#[test]
fn what_a_guests_command_meets_stops_those_of_every_thread_until_a_proof() {
    let (path, mut one, mut two) = shared_path();
    path.inject(Fault::Plug);
    assert!(unit_attention(&one.run(tur(), &[])).is_some());
    assert_eq!(two.run(tur(), &[]), DOUBT, "it would have gone wherever the path leads now");
    assert_eq!(one.run(tur(), &[]), DOUBT);
    assert!(path.identify(TIMEOUT, &|_| ()).is_ok());
    assert_eq!(two.run(tur(), &[]), Completion::Good);
}

/// The LU has forgotten what it told as the data of a REQUEST SENSE: nobody
/// else meets it.
#[test]
fn what_request_sense_brings_as_data_stops_every_thread_until_a_proof() {
    let (path, mut one, mut two) = shared_path();
    let grown = Fault::Capacity(NewCapacity::Bytes(2 << 20));
    for (fault, questions) in [(Fault::Plug, true), (Fault::LuReset, true), (grown, false)] {
        for (descriptors, room) in [(0, 252_u8), (1, 252), (0, 14)] {
            path.inject(fault);
            let mut data = vec![0; usize::from(room)];
            // In pieces, as a guest may have it.
            let (head, tail) = data.split_at_mut(3);
            let list = [segment::of(head), segment::of(tail)];
            let sense = cdb(&[0x03, descriptors, 0, 0, room, 0], Direction::In);
            one.run(sense, &list);
            let code = Sense::from_bytes(&data).code().unwrap();
            if !questions && code == SenseCode::NO_SENSE {
                continue; // it has that size already
            }
            assert_eq!(code.questions_identity(), questions, "{code}");
            let next = if questions { DOUBT } else { Completion::Good };
            assert_eq!(two.run(tur(), &[]), next, "{code}: wherever the path leads now");
            assert_eq!(one.run(tur(), &[]), next, "{code}");
            assert!(path.identify(TIMEOUT, &|_| ()).is_ok());
            assert_eq!(two.run(tur(), &[]), Completion::Good);
        }
    }
    // A guest that finds old bytes in its buffer has heard nothing.
    path.inject(Fault::Cut(CutMode::Before));
    let mut old = Sense::fixed(SenseCode::LU_RESET).as_bytes().to_vec();
    one.run(cdb(&[0x03, 0, 0, 0, 18, 0], Direction::In), &[segment::of(&mut old)]);
    path.inject(Fault::Plug);
    assert!(unit_attention(&two.run(tur(), &[])).is_some(), "the plug's own");
}

#[test]
fn what_the_host_says_of_a_path_stops_every_thread_until_a_proof() {
    let path = sim_path(&sim_image(LuConfig::default()), "a");
    let mut thread = Thread::new(&path);
    path.question();
    assert_eq!(thread.run(tur(), &[]), DOUBT);
    assert!(path.identify(TIMEOUT, &|_| ()).is_ok());
    assert_eq!(thread.run(tur(), &[]), Completion::Good);
}

#[test]
fn a_proof_tells_every_unit_attention_it_meets() {
    let image = sim_image(LuConfig::default());
    let path = sim_path(&image, "a");
    let heard = std::cell::RefCell::new(Vec::new());
    let hear = |sense: &Sense| heard.borrow_mut().push(sense.code().unwrap());
    assert!(path.identify(TIMEOUT, &hear).is_ok());
    assert_eq!(*heard.borrow(), []);
    path.inject(Fault::Plug);
    assert!(path.identify(TIMEOUT, &hear).is_ok());
    assert_eq!(*heard.borrow(), [SenseCode::NEXUS_LOSS]);
}
