//! Faults of the LU, told by the name of one path and met on all, and faults
//! of the LUN.

use super::*;
use crate::scsi::capacity::Capacity;
use crate::scsi::vpd;

fn read(lba: u64, blocks: u64) -> Cdb {
    Cdb::read(Extent::new(lba, blocks)).unwrap()
}

fn write(lba: u64, blocks: u64) -> Cdb {
    Cdb::write(Extent::new(lba, blocks), false).unwrap()
}

fn information(done: &Done) -> Option<[u8; 4]> {
    let Completion::Scsi { sense, .. } = done.completion else { return None };
    let raw = sense.as_bytes();
    (raw[0] == 0xf0).then(|| raw[3..7].try_into().unwrap())
}

fn status_of(done: &Done) -> Status {
    match done.completion {
        Completion::Scsi { status, host: HostByte::OK, .. } => status,
        Completion::Good => Status::GOOD,
        ref other => panic!("{other:?}"),
    }
}

fn wwid(rig: &mut Rig, over: NexusId) -> String {
    let page = rig.run_on(over, Cdb::inquiry(Some(0x83), 255), &[], 255).data_in;
    vpd::wwid(Some(&page), None).unwrap()
}

#[test]
fn busy_and_task_set_full_meet_so_many_commands_of_one_path() {
    let mut rig = Rig::new(small());
    for (fault, status) in [
        (Fault::Busy { count: 2 }, Status::BUSY),
        (Fault::TaskSetFull { count: 2 }, Status::TASK_SET_FULL),
    ] {
        rig.inject(fault);
        let refused = rig.run(write(0, 1), &[1; BLOCK], 0);
        assert_eq!((status_of(&refused), residual_of(&refused)), (status, 512));
        assert_eq!(status_of(&rig.run(Cdb::inquiry(None, 96), &[], 96)), Status::GOOD);
        assert_eq!(rig.tur_on(rig.b).completion, Completion::Good);
        assert_eq!(status_of(&rig.tur()), status);
        assert_eq!(rig.tur().completion, Completion::Good);
    }
    assert_eq!(rig.blocks(0, 1), [0], "not executed");
    rig.inject(Fault::Busy { count: 0 });
    assert_eq!(rig.array.faults(rig.a).unwrap().to_string(), "BUSY (always)");
    (0..5).for_each(|_| assert_eq!(status_of(&rig.tur()), Status::BUSY));
    rig.inject(Fault::Plug);
    assert_eq!(rig.attentions_on(rig.a), [code(6, 0x29, 7)]);
}

#[test]
fn bad_blocks_fail_what_meets_them_and_name_the_first() {
    let mut rig = Rig::new(small());
    rig.write(0, 16, 1);
    rig.inject(Fault::MediumError { lba: 12, blocks: 2 });
    rig.inject(Fault::MediumError { lba: 10, blocks: 1 });
    assert_eq!(rig.array.condition(rig.b).unwrap(), "bad blocks 12+2, bad blocks 10+1");
    let b = rig.b;
    for (lba, blocks, first) in
        [(8, 8, Some(10)), (11, 2, Some(12)), (13, 3, Some(13)), (11, 1, None)]
    {
        let first = first.map(|lba: u32| lba.to_be_bytes());
        let bytes = usize::try_from(blocks).unwrap() * BLOCK;
        let done = rig.run_on(b, read(lba, blocks), &[], bytes);
        assert_eq!((sense_of(&done), information(&done)), (first.map(|_| code(3, 0x11, 0)), first));
        let done = rig.run_on(b, write(lba, blocks), &vec![2; bytes], 0);
        assert_eq!((sense_of(&done), information(&done)), (first.map(|_| code(3, 0x0c, 0)), first));
    }
    for (cdb, out, wanted) in [
        (raw(&[0x2f, 0, 0, 0, 0, 9, 0, 0, 3]), 0, code(3, 0x11, 0)),
        (raw(&[0x2e, 0, 0, 0, 0, 9, 0, 0, 3]), 3 * BLOCK, code(3, 0x0c, 0)),
        (raw(&[0x41, 0, 0, 0, 0, 9, 0, 0, 3]), BLOCK, code(3, 0x0c, 0)),
        (raw(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3]), 6 * BLOCK, code(3, 0x11, 0)),
    ] {
        let done = rig.run(cdb, &vec![1; out], 0);
        assert_eq!(sense_of(&done), Some(wanted), "{cdb:?}");
        assert_eq!(information(&done), Some([0, 0, 0, 10]));
    }
    rig.inject(Fault::Plug);
    rig.tur();
    assert_eq!(sense_of(&rig.run(read(10, 1), &[], BLOCK)), Some(code(3, 0x11, 0)), "still");
    rig.inject(Fault::Mend);
    assert_eq!(rig.blocks(8, 8), [1, 1, 1, 2, 1, 1, 1, 1], "only the sound write was done");
    assert_eq!(rig.array.condition(rig.a).unwrap(), "none");
}

#[test]
fn a_reset_ends_the_tasks_of_every_path_unexecuted() {
    let mut rig = Rig::new(small());
    rig.array.set_latency(ms(5));
    let (a, b) = (rig.a, rig.b);
    rig.submit(a, write(0, 1), &[1; BLOCK], 0);
    rig.submit(b, write(1, 1), &[1; BLOCK], 0);
    rig.array.inject(rig.now, b, Fault::Hang);
    rig.array.reset_lu(rig.now, a);
    let done = rig.poll();
    assert_eq!(done.iter().map(host_of).collect::<Vec<_>>(), [HostByte::RESET; 2]);
    assert_eq!(rig.after(ms(2000)), [], "not a second time");
    rig.array.inject(rig.now, b, Fault::Plug);
    rig.array.set_latency(ms(0));
    assert_eq!(rig.attentions_on(a), [code(6, 0x29, 3)]);
    assert_eq!(rig.attentions_on(b), [code(6, 0x29, 7)]);
    assert_eq!(rig.blocks(0, 2), [0, 0]);
}

#[test]
fn a_reset_leaves_other_lus_alone() {
    let mut rig = Rig::new(small());
    let other = LuConfig { wwid_naa: [0x61; 16], ..small() };
    let lu = rig.array.add_lu(other, Box::new(MemoryMedium::new(64 * BLOCK as u64)));
    let c = rig.array.connect("c", Plugged { lu, ..Plugged::default() }).unwrap();
    rig.array.set_latency(ms(5));
    rig.submit(c, write(0, 1), &[1; BLOCK], 0);
    rig.inject(Fault::LuReset);
    rig.inject(Fault::MediumError { lba: 0, blocks: 64 });
    rig.inject(Fault::Capacity(NewCapacity::Grow));
    assert_eq!(rig.after(ms(5))[0].completion, Completion::Good);
    rig.array.set_latency(ms(0));
    assert_eq!(rig.attentions_on(c), []);
    assert_eq!(rig.run_on(c, read(0, 1), &[], BLOCK).data_in, [1; BLOCK]);
    assert_eq!(wwid(&mut rig, c), format!("3{}", "61".repeat(16)));
}

#[test]
fn a_remapped_lun_is_another_lu_until_the_plug() {
    let mut rig = Rig::new(small());
    let (a, b) = (rig.a, rig.b);
    rig.write(0, 1, 1);
    let home = wwid(&mut rig, a);
    rig.array.set_latency(ms(5));
    rig.submit(a, write(1, 1), &[2; BLOCK], 0);
    rig.inject(Fault::Remap);
    rig.after(ms(5));
    rig.array.set_latency(ms(0));
    assert_eq!(rig.attentions_on(a), [code(6, 0x3f, 3), code(6, 0x3f, 0x0e)]);
    assert_eq!(rig.attentions_on(b), []);
    assert_ne!(wwid(&mut rig, a), home);
    assert_eq!(wwid(&mut rig, b), home);
    assert_eq!(rig.run(read(0, 1), &[], BLOCK).data_in, [0; BLOCK], "blocks of its own");
    rig.run(write(0, 1), &[9; BLOCK], 0);
    assert_eq!(rig.blocks(0, 2), [1, 2], "what was accepted before ended where it was");
    let capacity = Capacity::parse_16(&rig.run(Cdb::read_capacity_16(32), &[], 32).data_in);
    assert_eq!(capacity.unwrap().blocks.0, 64);
    assert_eq!(rig.array.condition(a).unwrap(), "LUN remapped");

    rig.array.inject(rig.now, b, Fault::Remap);
    rig.attentions_on(b);
    assert_eq!(rig.blocks(0, 1), [9], "the same other LU");
    rig.inject(Fault::Plug);
    let wanted = [code(6, 0x29, 7), code(6, 0x3f, 3), code(6, 0x3f, 0x0e)];
    assert_eq!(rig.attentions_on(a), wanted);
    assert_eq!(wwid(&mut rig, a), home);
}

#[test]
fn an_unmapped_lun_answers_as_nobody_does() {
    let mut rig = Rig::new(small());
    rig.inject(Fault::UnmapLun);
    let gone = Some(code(5, 0x25, 0));
    assert_eq!(sense_of(&rig.tur()), gone);
    assert_eq!(sense_of(&rig.run(write(0, 1), &[1; BLOCK], 0)), gone);
    assert_eq!(sense_of(&rig.run(Cdb::inquiry(Some(0x83), 255), &[], 255)), gone);
    assert_eq!(rig.run(Cdb::inquiry(None, 96), &[], 96).data_in[0], 0x7f);
    assert_eq!(rig.run(Cdb::report_luns(16), &[], 16).data_in, [0; 8]);
    let sense = rig.run(Cdb::request_sense(18), &[], 18);
    assert_eq!(Sense::from_bytes(&sense.data_in).code(), gone);
    rig.array.inject(rig.now, rig.b, Fault::LuReset);
    assert_eq!(rig.blocks_after_attentions(), [0]);
    assert_eq!(rig.array.condition(rig.a).unwrap(), "LUN unmapped");
    rig.inject(Fault::Plug);
    let wanted = [code(6, 0x29, 7), code(6, 0x3f, 3), code(6, 0x3f, 0x0e)];
    assert_eq!(rig.attentions_on(rig.a), wanted);
}

impl Rig {
    fn blocks_after_attentions(&mut self) -> Vec<u8> {
        assert_eq!(self.attentions_on(self.b), [code(6, 0x29, 3)]);
        self.blocks(0, 1)
    }
}

#[test]
fn a_new_capacity_is_reported_and_in_force() {
    let mut rig = Rig::new(small());
    let blocks = |rig: &mut Rig| {
        let sixteen = Capacity::parse_16(&rig.run(Cdb::read_capacity_16(32), &[], 32).data_in);
        let ten = rig.run(Cdb::read_capacity_10(), &[], 8).data_in;
        let sixteen = sixteen.unwrap().blocks.0;
        assert_eq!(u64::from(u32::from_be_bytes(ten[..4].try_into().unwrap())) + 1, sixteen);
        sixteen
    };
    rig.inject(Fault::Capacity(NewCapacity::Grow));
    for nexus in [rig.a, rig.b] {
        assert_eq!(rig.attentions_on(nexus), [code(6, 0x2a, 9)]);
    }
    assert_eq!((blocks(&mut rig), rig.array.config().blocks), (128, 128));
    rig.write(127, 1, 5);
    rig.inject(Fault::Capacity(NewCapacity::Bytes(32 * 512)));
    assert_eq!(rig.attentions_on(rig.a), [code(6, 0x2a, 9)]);
    assert_eq!(blocks(&mut rig), 32);
    assert_eq!(sense_of(&rig.run(read(127, 1), &[], BLOCK)), Some(code(5, 0x21, 0)));
    rig.inject(Fault::Capacity(NewCapacity::Bytes(128 * 512)));
    rig.attentions_on(rig.a);
    rig.attentions_on(rig.b);
    assert_eq!(rig.blocks(127, 1), [0], "what was cut off is gone");

    for bytes in [0, 1000, u64::MAX / 512 * 512] {
        let refused = Fault::Capacity(NewCapacity::Bytes(bytes));
        assert!(rig.array.try_inject(rig.now, rig.a, refused).is_err(), "{bytes}");
    }
    let same = Fault::Capacity(NewCapacity::Bytes(128 * 512));
    rig.inject(same);
    assert_eq!(rig.attentions_on(rig.a), [], "nothing has changed");
    let unknown = rig.array.try_inject(rig.now, NexusId(99), Fault::Plug);
    assert!(matches!(unknown, Err(NotInjected::NoPath)));
}
