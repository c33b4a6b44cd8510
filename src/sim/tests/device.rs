//! Faults between the host and the array's ports: what the host says of a
//! path, paths that only look alive, writes that come late.

use super::*;

fn read() -> Cdb {
    Cdb::read(Extent::new(0, 1)).unwrap()
}

fn write(fill: u8) -> (Cdb, Vec<u8>) {
    (Cdb::write(Extent::new(0, 1), false).unwrap(), vec![fill; BLOCK])
}

#[test]
fn a_blocked_path_holds_commands_whatever_their_timeout() {
    let mut rig = Rig::new(small());
    let a = rig.a;
    rig.inject(Fault::Device(DeviceState::Blocked));
    assert_eq!(rig.array.device_state(a), Some(DeviceState::Blocked));
    assert_eq!(rig.array.device_state(rig.b), Some(DeviceState::Running));
    assert_eq!(rig.array.condition(a).unwrap(), "blocked");
    let (cdb, data) = write(1);
    let first = rig.submit(a, cdb, &data, 0);
    let (cdb, data) = write(2);
    let second = rig.submit(a, cdb, &data, 0);
    assert_eq!(rig.array.next_deadline(), None);
    assert_eq!(rig.after(ms(5000)), [], "their timeout is 1 s");
    assert_eq!(rig.blocks(0, 1), [0]);
    rig.inject(Fault::Device(DeviceState::Running));
    let done = rig.poll();
    assert_eq!(done.iter().map(|d| d.tag).collect::<Vec<_>>(), [first, second]);
    assert!(done.iter().all(|d| d.completion == Completion::Good));
    assert_eq!(rig.blocks(0, 1), [2]);
}

#[test]
fn what_a_blocked_path_holds_ends_when_it_goes_offline_or_away() {
    for (offline, host) in [(true, HostByte::NO_CONNECT), (false, HostByte::TRANSPORT_DISRUPTED)] {
        let mut rig = Rig::new(small());
        let a = rig.a;
        rig.inject(Fault::Device(DeviceState::Blocked));
        let (cdb, data) = write(1);
        rig.submit(a, cdb, &data, 0);
        if offline {
            rig.inject(Fault::Device(DeviceState::Offline));
        } else {
            rig.array.remove_nexus(rig.now, a);
        }
        let done = rig.poll();
        assert_eq!((done.len(), host_of(&done[0])), (1, host));
        assert_eq!(rig.blocks(0, 1), [0]);
        if offline {
            assert_eq!(host_of(&rig.tur()), HostByte::NO_CONNECT);
            rig.inject(Fault::Plug);
            assert_eq!(rig.attentions_on(a), [SenseCode::NEXUS_LOSS]);
            assert_eq!(rig.array.device_state(a), Some(DeviceState::Running));
        }
    }
}

#[test]
fn a_path_may_say_that_it_takes_io_and_take_none() {
    let hardware = code(4, 0x44, 0);
    for (fault, host, sense) in [
        (Fault::IoSense { code: hardware, count: 0 }, HostByte::OK, Some(hardware)),
        (Fault::IoHostByte { host: HostByte::ERROR, count: 0 }, HostByte::ERROR, None),
    ] {
        let mut rig = Rig::new(small());
        rig.inject(fault);
        for _ in 0..3 {
            assert_eq!(rig.tur().completion, Completion::Good);
            assert_eq!(rig.run(Cdb::inquiry(None, 36), &[], 36).completion, Completion::Good);
            let (cdb, data) = write(1);
            for done in [rig.run(read(), &[], BLOCK), rig.run(cdb, &data, 0)] {
                assert_eq!(sense_of(&done), sense);
                assert!(sense.is_some() || host_of(&done) == host);
            }
        }
        assert_eq!(rig.blocks(0, 1), [0], "the other path works");
        assert!(rig.array.condition(rig.a).unwrap().starts_with("I/O: "));
        rig.inject(Fault::Plug);
        rig.attentions_on(rig.a);
        assert_eq!(rig.run(read(), &[], BLOCK).completion, Completion::Good);
    }
}

#[test]
fn io_faults_are_counted_in_io() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::IoSense { code: code(0xb, 0x4b, 0), count: 2 });
    let mut failed = 0;
    for _ in 0..5 {
        rig.tur();
        failed += u32::from(sense_of(&rig.run(read(), &[], BLOCK)).is_some());
    }
    assert_eq!(failed, 2);
}

#[test]
fn a_marginal_path_is_a_host_byte_some_times() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::HostByte { host: HostByte::TRANSPORT_MARGINAL, count: 2 });
    let ends: Vec<_> = (0..3).map(|_| host_of(&rig.run(read(), &[], BLOCK))).collect();
    assert_eq!(ends, [HostByte::TRANSPORT_MARGINAL, HostByte::TRANSPORT_MARGINAL, HostByte::OK]);
}

/// The known limit of law 1: this is what no initiator can see.
#[test]
fn a_late_cut_writes_after_the_task_has_ended() {
    let mut rig = Rig::new(small());
    let a = rig.a;
    rig.array.set_latency(ms(5));
    let (cdb, data) = write(1);
    rig.submit(a, cdb, &data, 0);
    rig.submit(a, read(), &[], BLOCK);
    rig.inject(Fault::LateCut(ms(50)));
    let ends: Vec<_> = rig.poll().iter().map(host_of).collect();
    assert_eq!(ends, [HostByte::TRANSPORT_DISRUPTED; 2]);
    rig.array.set_latency(ms(0));
    // Its retry over the other path, and a newer write.
    for fill in [1, 2] {
        let (cdb, data) = write(fill);
        rig.run_on(rig.b, cdb, &data, 0);
    }
    assert_eq!(rig.after(ms(49)), []);
    assert_eq!(rig.blocks(0, 1), [2]);
    rig.array.remove_nexus(rig.now, a);
    assert_eq!(rig.after(ms(1)), [], "nobody hears of it");
    assert_eq!(rig.blocks(0, 1), [1]);
    assert_eq!(rig.array.next_deadline(), None);
}

#[test]
fn a_reset_ends_late_writes_too() {
    let mut rig = Rig::new(small());
    rig.array.set_latency(ms(5));
    let (cdb, data) = write(1);
    rig.submit(rig.a, cdb, &data, 0);
    rig.inject(Fault::LateCut(ms(50)));
    assert_eq!(rig.poll().len(), 1);
    let b = rig.b;
    rig.array.inject(rig.now, b, Fault::LuReset);
    assert_eq!(rig.after(ms(100)), []);
    rig.array.set_latency(ms(0));
    rig.attentions_on(b);
    assert_eq!(rig.blocks(0, 1), [0]);
}

#[test]
fn buffers_come_back() {
    let mut rig = Rig::new(small());
    rig.write(0, 1, 7);
    let mut done = rig.run(read(), &[], BLOCK);
    assert_eq!(done.data_in, [7; BLOCK]);
    done.data_in.fill(9);
    let at = done.data_in.as_ptr();
    rig.array.recycle(done.data_in);
    let again = rig.run(read(), &[], BLOCK);
    assert_eq!(again.data_in, [7; BLOCK], "what was in it is gone");
    assert_eq!(again.data_in.as_ptr(), at, "and it is the same");
    rig.array.recycle(again.data_in);
    let spare = rig.array.buffer();
    assert_eq!(spare.as_ptr(), at);
}
