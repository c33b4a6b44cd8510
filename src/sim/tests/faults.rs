//! Faults of one path, and that the other does not notice.

use super::*;

const NEXUS_LOSS: SenseCode = SenseCode::new(Key::UnitAttention, 0x29, 0x07);

fn write_4(fill: u8) -> (Cdb, Vec<u8>) {
    (Cdb::write(Extent::new(0, 4), false).unwrap(), vec![fill; 4 * BLOCK])
}

#[test]
fn a_task_touches_the_medium_when_it_completes_not_before() {
    let mut rig = Rig::new(small());
    rig.array.set_latency(ms(5));
    let (cdb, data) = write_4(1);
    let late = rig.submit(rig.a, cdb, &data, 0);
    rig.array.set_latency(ms(2));
    let read = rig.submit(rig.b, Cdb::read(Extent::new(0, 1)).unwrap(), &[], BLOCK);
    assert_eq!(rig.array.next_deadline(), Some(rig.now + ms(2)));
    assert_eq!(rig.after(ms(1)), []);
    let done = rig.after(ms(9));
    assert_eq!(done.iter().map(|d| d.tag).collect::<Vec<_>>(), [read, late]);
    assert_eq!(done[0].data_in[0], 0, "the read completed before the write");
    assert_eq!(rig.array.next_deadline(), None);
}

#[test]
fn what_a_cut_executes_depends_on_its_mode_only() {
    for (mode, wanted) in [
        (CutMode::Before, [0, 0, 0, 0]),
        (CutMode::StatusLost, [1, 1, 1, 1]),
        (CutMode::Half, [1, 1, 0, 0]),
    ] {
        let mut rig = Rig::new(small());
        rig.array.set_latency(ms(5));
        let (cdb, data) = write_4(1);
        rig.submit(rig.a, cdb, &data, 0);
        rig.inject(Fault::Cut(mode));
        assert_eq!(rig.array.next_deadline(), Some(rig.now), "the end is due now");
        let done = rig.poll();
        assert_eq!(done.len(), 1);
        assert_eq!(host_of(&done[0]), HostByte::TRANSPORT_DISRUPTED);
        assert_eq!(residual_of(&done[0]), 2048);
        rig.array.set_latency(ms(0));
        assert_eq!(rig.blocks(0, 4), wanted);
        assert_eq!(rig.after(ms(100)), [], "nothing of a cut path happens later");
        assert_eq!(rig.blocks(0, 4), wanted);
    }
}

#[test]
fn half_a_write_same_is_half_its_blocks_and_half_of_one_is_none() {
    let mut rig = Rig::new(small());
    rig.array.set_latency(ms(5));
    let same = Cdb::write_same_16(Extent::new(0, 5), false, false).unwrap();
    rig.submit(rig.a, same, &[3; BLOCK], 0);
    let one = Cdb::write(Extent::new(8, 1), false).unwrap();
    rig.submit(rig.a, one, &[4; BLOCK], 0);
    rig.inject(Fault::Cut(CutMode::Half));
    rig.poll();
    rig.array.set_latency(ms(0));
    assert_eq!(rig.blocks(0, 9), [3, 3, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_cut_path_refuses_and_a_plugged_one_reports_nexus_loss_once() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::Cut(CutMode::StatusLost));
    let (cdb, data) = write_4(1);
    let done = rig.run(cdb, &data, 0);
    assert_eq!((host_of(&done), residual_of(&done)), (HostByte::NO_CONNECT, 2048));
    assert_eq!(rig.blocks(0, 4), [0; 4], "the mode is of the moment of the cut only");

    rig.inject(Fault::Plug);
    let inquiry = rig.run(Cdb::inquiry(None, 36), &[], 36);
    let luns = rig.run(Cdb::report_luns(16), &[], 16);
    assert_eq!((inquiry.completion, luns.completion), (Completion::Good, Completion::Good));
    let refused = rig.run(cdb, &data, 0);
    assert_eq!(sense_of(&refused), Some(NEXUS_LOSS));
    assert_eq!(rig.blocks(0, 4), [0; 4], "the command was not executed");
    assert_eq!(rig.run(cdb, &data, 0).completion, Completion::Good);
    assert_eq!(rig.blocks(0, 4), [1; 4]);
}

#[test]
fn request_sense_takes_the_unit_attention_as_data() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::Plug);
    let done = rig.run(Cdb::request_sense(18), &[], 18);
    assert_eq!(done.completion, Completion::Good);
    assert_eq!(Sense::from_bytes(&done.data_in).code(), Some(NEXUS_LOSS));
    assert_eq!(rig.tur().completion, Completion::Good);
}

#[test]
fn tasks_due_by_the_moment_of_a_fault_have_completed() {
    let mut rig = Rig::new(small());
    rig.array.set_latency(ms(5));
    let (cdb, data) = write_4(1);
    rig.submit(rig.a, cdb, &data, 0);
    rig.now = rig.now + ms(5);
    rig.inject(Fault::Cut(CutMode::Before));
    let done = rig.poll();
    assert_eq!(done[0].completion, Completion::Good);
}

#[test]
fn a_cut_leaves_the_tasks_of_other_paths_alone() {
    let mut rig = Rig::new(small());
    rig.array.set_latency(ms(5));
    let tag = rig.submit(rig.b, Cdb::test_unit_ready(), &[], 0);
    rig.inject(Fault::Cut(CutMode::Before));
    assert_eq!(rig.poll(), []);
    let done = rig.after(ms(5));
    assert_eq!((done[0].tag, done[0].completion), (tag, Completion::Good));
}

#[test]
fn hung_tasks_end_at_their_timeout_unexecuted_even_after_the_plug() {
    let mut rig = Rig::new(small());
    rig.array.set_latency(ms(5));
    let (cdb, data) = write_4(1);
    rig.submit(rig.a, cdb, &data, 0);
    rig.now = rig.now + ms(1);
    rig.inject(Fault::Hang);
    rig.submit(rig.a, cdb, &data, 0);
    rig.now = rig.now + ms(100);
    rig.inject(Fault::Plug);
    let tur = rig.submit(rig.a, Cdb::test_unit_ready(), &[], 0);
    let done = rig.after(ms(898));
    assert_eq!(done.iter().map(|d| d.tag).collect::<Vec<_>>(), [tur], "new tasks run");
    let first = rig.after(ms(1));
    assert_eq!(first.len(), 1, "each ends at its own timeout");
    let second = rig.after(ms(1));
    assert_eq!(second.len(), 1);
    for done in first.iter().chain(&second) {
        assert_eq!((host_of(done), residual_of(done)), (HostByte::TIME_OUT, 2048));
    }
    rig.array.set_latency(ms(0));
    assert_eq!(rig.blocks(0, 4), [0; 4]);
}

#[test]
fn cutting_a_hung_path_returns_the_lost_tasks_at_once_unexecuted() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::Hang);
    let (cdb, data) = write_4(1);
    rig.submit(rig.a, cdb, &data, 0);
    assert_eq!(rig.after(ms(10)), []);
    rig.inject(Fault::Cut(CutMode::StatusLost));
    assert_eq!(host_of(&rig.poll()[0]), HostByte::TRANSPORT_DISRUPTED);
    assert_eq!(rig.blocks(0, 4), [0; 4]);
}

#[test]
fn a_task_slower_than_its_timeout_is_aborted_unexecuted() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::Delay(ms(2000)));
    let (cdb, data) = write_4(1);
    rig.submit(rig.a, cdb, &data, 0);
    assert_eq!(rig.array.next_deadline(), Some(rig.now + ms(1000)));
    assert_eq!(host_of(&rig.after(ms(3000))[0]), HostByte::TIME_OUT);
    assert_eq!(rig.blocks(0, 4), [0; 4]);
}

#[test]
fn delay_adds_to_the_service_time_of_one_path_until_it_is_zero() {
    let mut rig = Rig::new(small());
    rig.array.set_latency(ms(2));
    rig.inject(Fault::Delay(ms(3)));
    rig.submit(rig.a, Cdb::test_unit_ready(), &[], 0);
    assert_eq!(rig.array.next_deadline(), Some(rig.now + ms(5)));
    rig.submit(rig.b, Cdb::test_unit_ready(), &[], 0);
    assert_eq!(rig.array.next_deadline(), Some(rig.now + ms(2)));
    assert_eq!(rig.after(ms(5)).len(), 2);
    rig.inject(Fault::Delay(ms(0)));
    rig.submit(rig.a, Cdb::test_unit_ready(), &[], 0);
    assert_eq!(rig.array.next_deadline(), Some(rig.now + ms(2)));
}

#[test]
fn injected_sense_meets_so_many_medium_accesses_and_no_others() {
    let mut rig = Rig::new(small());
    let standby = code(2, 4, 0x0b);
    rig.inject(Fault::Sense { code: standby, count: 2 });
    let (cdb, data) = write_4(1);
    assert_eq!(sense_of(&rig.run(cdb, &data, 0)), Some(standby));
    assert_eq!(rig.run(Cdb::inquiry(None, 36), &[], 36).completion, Completion::Good);
    assert_eq!(rig.blocks(0, 4), [0; 4], "not executed, and the other path is healthy");
    assert_eq!(sense_of(&rig.tur()), Some(standby));
    assert_eq!(rig.tur().completion, Completion::Good);
}

#[test]
fn count_zero_lasts_until_the_plug() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::HostByte { host: HostByte::BUS_BUSY, count: 0 });
    for _ in 0..5 {
        assert_eq!(host_of(&rig.tur()), HostByte::BUS_BUSY);
    }
    rig.inject(Fault::Plug);
    assert_eq!(sense_of(&rig.tur()), Some(NEXUS_LOSS));
    assert_eq!(rig.tur().completion, Completion::Good);
}

#[test]
fn a_unit_attention_comes_before_injected_sense_and_uses_none_of_it() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::Plug);
    rig.inject(Fault::Sense { code: code(3, 0x11, 0), count: 1 });
    assert_eq!(sense_of(&rig.tur()), Some(NEXUS_LOSS));
    assert_eq!(sense_of(&rig.tur()), Some(code(3, 0x11, 0)));
    assert_eq!(rig.tur().completion, Completion::Good);
}

#[test]
fn a_removed_path_ends_its_tasks_and_takes_no_more() {
    let mut rig = Rig::new(small());
    rig.array.set_latency(ms(5));
    let (cdb, data) = write_4(1);
    rig.submit(rig.a, cdb, &data, 0);
    rig.array.remove_nexus(rig.now, rig.a);
    rig.submit(rig.a, cdb, &data, 0);
    let done = rig.after(ms(50));
    let hosts: Vec<_> = done.iter().map(host_of).collect();
    assert_eq!(hosts, [HostByte::TRANSPORT_DISRUPTED, HostByte::NO_CONNECT]);
    rig.array.set_latency(ms(0));
    assert_eq!(rig.blocks(0, 4), [0; 4]);
    assert_eq!(rig.array.nexuses().collect::<Vec<_>>(), [(rig.b, "b")]);
    let c = rig.array.add_nexus("c");
    assert!(c != rig.a && c != rig.b, "ids are not reused");
}

#[test]
fn faults_in_force_read_as_words() {
    let mut rig = Rig::new(small());
    let words = |rig: &Rig| rig.array.faults(rig.a).unwrap().to_string();
    assert_eq!(words(&rig), "none");
    rig.inject(Fault::Delay(ms(5)));
    rig.inject(Fault::Sense { code: code(2, 4, 0x0b), count: 3 });
    rig.inject(Fault::HostByte { host: HostByte::ERROR, count: 0 });
    rig.inject(Fault::Hang);
    assert_eq!(words(&rig), "hang, delay 5ms, sense 02/04/0b (3 more), DID_ERROR (always)");
    rig.inject(Fault::Plug);
    assert_eq!(words(&rig), "none");
    assert_eq!(rig.array.stats(rig.a).unwrap().faults, 4);
    assert!(rig.array.faults(NexusId(99)).is_none());
}
