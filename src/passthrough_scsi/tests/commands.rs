//! SCSI commands: the guest's own, and ours.

use super::*;

#[test]
fn a_guests_own_command_ends_as_the_lu_ended_it() {
    let image = sim_image(LuConfig::default());
    let mut thread = Thread::new(&sim_path(&image, "a"));
    // More room than data: GOOD, and the residual says how much more.
    let mut data = vec![0xee; 300];
    let (head, tail) = data.split_at_mut(7);
    let list = [segment::of(head), Segment::default(), segment::of(tail)];
    let inquiry = cdb(&[0x12, 1, 0x80, 0x01, 0x2c, 0], Direction::In);
    let Completion::Scsi { status, host, residual, .. } = thread.run(inquiry, &list) else {
        panic!("a residual is not told")
    };
    assert_eq!((status, host), (Status::GOOD, HostByte::OK));
    let moved = 300 - usize::try_from(residual).unwrap();
    assert!((4..64).contains(&moved) && data[1] == 0x80, "{moved} bytes");
    assert!(data[moved..].iter().all(|b| *b == 0xee), "beyond the answer nothing is touched");
    // No data at all, whatever direction it would have had.
    let nothing = cdb(&[0x12, 0, 0, 0, 0, 0], Direction::In);
    assert_eq!(thread.run(nothing, &[]), Completion::Good);
    assert_eq!(thread.run(nothing, &[Segment::default()]), Completion::Good);
    let unknown = thread.run(cdb(&[0xff, 0, 0, 0, 0, 0], Direction::None), &[]);
    let Completion::Scsi { status, sense, .. } = unknown else { panic!("{unknown:?}") };
    assert_eq!(status, Status::CHECK_CONDITION);
    assert_eq!(sense.code().map(|c| (c.asc, c.ascq)), Some((0x20, 0)));
}

#[test]
fn data_of_a_guests_own_commands_goes_both_ways() {
    let image = sim_image(LuConfig::default());
    let mut thread = Thread::new(&sim_path(&image, "a"));
    let mut data = pattern(9, 1024);
    let write = cdb(&[0x2a, 0, 0, 0, 0, 5, 0, 0, 2, 0], Direction::Out);
    assert_eq!(thread.run(write, &[segment::of(&mut data)]), Completion::Good);
    let mut got = vec![0; 1024];
    let (left, right) = got.split_at_mut(100);
    let list = [segment::of(left), segment::of(right)];
    let read = cdb(&[0x28, 0, 0, 0, 0, 5, 0, 0, 2, 0], Direction::In);
    assert_eq!(thread.run(read, &list), Completion::Good);
    assert_eq!(got, pattern(9, 1024));
}

#[test]
fn paths_that_speak_no_scsi_refuse_a_guests_own_command() {
    let refused = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENOTTY };
    let tur = cdb(&[0; 6], Direction::None);
    let null = open(Opened::Null(1 << 20), PathKind::Null, Transport::Null);
    assert_eq!(Thread::new(&null).run(tur, &[]), refused);
    let file = file_path(4096, 1);
    assert_eq!(Thread::new(&file).run(tur, &[]), refused);
    for path in [&null, &file] {
        let error = path.reset_lu(TIMEOUT).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }
}

#[test]
fn block_operations_hear_how_far_they_came_and_a_guest_hears_it_all() {
    let half = Completion::Scsi {
        status: Status::GOOD,
        host: HostByte::OK,
        sense: Sense::EMPTY,
        residual: 512,
    };
    assert_eq!(wire::told(false, 1024, half), Completion::Short(512));
    assert_eq!(wire::told(true, 1024, half), half);
    let recovered = Completion::Scsi {
        status: Status::GOOD,
        host: HostByte::OK,
        sense: Sense::fixed(SenseCode::new(Key::RecoveredError, 0x18, 0x00)),
        residual: 0,
    };
    assert_eq!(wire::told(false, 1024, recovered), Completion::Good);
    assert_eq!(wire::told(true, 1024, recovered), recovered);
}

#[test]
fn an_answer_shorter_than_asked_for_is_seen_to_be_short() {
    let path = sim_path(&sim_image(LuConfig::default()), "a");
    let mut data = vec![0xee; 4096];
    let completion = path.execute(&Cdb::inquiry(None, 4096), Data::In(&mut data), TIMEOUT);
    assert_ne!(completion, Completion::Good, "fewer bytes than asked for");
    assert_eq!(data.len(), usize::from(data[4]) + 5);
    let mut data = vec![0; 8];
    let whole = path.execute(&Cdb::inquiry(None, 8), Data::In(&mut data), TIMEOUT);
    assert_eq!((whole, data.len()), (Completion::Good, 8));
    path.inject(Fault::Cut(CutMode::Before));
    path.execute(&Cdb::inquiry(None, 8), Data::In(&mut data), TIMEOUT);
    assert!(data.is_empty(), "nothing arrives on a path that is cut");
}

#[test]
fn data_goes_to_the_lu_with_a_command_of_our_own() {
    let path = sim_path(&sim_image(LuConfig::default()), "a");
    let extent = Extent::new(3, 1);
    let block = pattern(9, 512);
    let write = Cdb::write(extent, false).unwrap();
    assert_eq!(path.execute(&write, Data::Out(&block), TIMEOUT), Completion::Good);
    let mut read = vec![0; 512];
    let cdb = Cdb::read(extent).unwrap();
    assert_eq!(path.execute(&cdb, Data::In(&mut read), TIMEOUT), Completion::Good);
    assert_eq!(read, block);
}
