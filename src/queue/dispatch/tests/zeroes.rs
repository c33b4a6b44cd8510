//! WRITE SAME, zeroes written where it is refused, FUA and flushes.

use super::*;

fn zero(head: u16, blocks: u64, durable: bool) -> Request {
    let op = Some(Op::WriteZeroes { extent: Extent::new(1000, blocks), unmap: true });
    Request { tag: Tag { ring: 0, head }, op, durable, ..Request::default() }
}

fn blocks_written(sent: &[Sent]) -> Vec<u64> {
    let mut blocks = Vec::new();
    for s in sent {
        let (Op::Write { extent, .. } | Op::WriteZeroes { extent, .. }) = s.op else { continue };
        blocks.extend(extent.lba.0..extent.lba.0 + extent.blocks.0);
    }
    blocks.sort_unstable();
    blocks
}

#[test]
fn write_same_is_cut_at_its_own_limit_and_keeps_the_unmap_bit() {
    let mut rig = Rig::new();
    rig.submit_request(zero(1, 120, false));
    let sent = rig.all_good();
    let same = |lba, n| Op::WriteZeroes { extent: Extent::new(lba, n), unmap: true };
    assert_eq!(
        sent.iter().map(|s| s.op).collect::<Vec<_>>(),
        [same(1000, 50), same(1050, 50), same(1100, 20)]
    );
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn refused_write_same_becomes_writes_of_zeroes_for_every_block_and_is_not_asked_again() {
    for refusal in [check(5, 0x20, 0), check(5, 0x24, 0), errno(libc::EOPNOTSUPP)] {
        let mut rig = Rig::new();
        rig.submit_request(zero(1, 120, false));
        let mut written = Vec::new();
        while !rig.wire.out.is_empty() {
            let sent = rig.wire.out[0].clone();
            if matches!(sent.op, Op::WriteZeroes { .. }) {
                rig.answer(&sent, refusal);
            } else {
                let Op::Write { extent, .. } = sent.op else { panic!() };
                assert!(extent.blocks.0 <= 16 && sent.data.len() <= 4);
                written.push(sent.clone());
                rig.answer(&sent, Completion::Good);
            }
        }
        assert_eq!(blocks_written(&written), (1000..1120).collect::<Vec<u64>>());
        assert_eq!(rig.outcome(), Outcome::Good);
        rig.submit_request(zero(2, 40, false));
        assert!(rig.wire.out.iter().all(|s| matches!(s.op, Op::Write { .. })));
        assert_eq!(blocks_written(&rig.all_good()), (1000..1040).collect::<Vec<u64>>());
        assert_eq!(rig.outcome(), Outcome::Good);
        assert!(rig.path_reports().is_empty(), "no path is to blame");
    }
}

#[test]
fn zeroes_are_zeroes() {
    let mut rig =
        Rig::with(Limits { max_write_same: Blocks(0), max_transfer: Blocks(300), ..limits() });
    rig.submit_request(zero(1, 250, false));
    for sent in rig.all_good() {
        let Op::Write { extent, .. } = sent.op else { panic!() };
        assert_eq!(total_len(&sent.data), usize::try_from(extent.blocks.0).unwrap() * BLOCK);
        for s in sent.data {
            assert!(s.len <= 64 * 1024);
            assert_eq!(s.addr % 4096, 0, "fit for O_DIRECT");
        }
    }
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn writes_of_zeroes_keep_the_segment_limit() {
    let wide = Limits {
        max_write_same: Blocks(0),
        max_transfer: Blocks(4096),
        max_segments: 2,
        ..limits()
    };
    let mut rig = Rig::with(wide);
    rig.submit_request(zero(1, 1000, false));
    let sent = rig.all_good();
    assert!(sent.iter().all(|s| s.data.len() <= 2));
    assert_eq!(blocks_written(&sent), (1000..2000).collect::<Vec<u64>>());
}

#[test]
fn a_failure_in_the_middle_of_writing_zeroes_is_the_guests_to_know() {
    let mut rig = Rig::new();
    rig.submit_request(zero(1, 50, false));
    rig.next(check(5, 0x20, 0));
    rig.next(Completion::Good);
    rig.next(check(3, 0x0c, 0));
    assert!(rig.wire.out.is_empty());
    assert_eq!(sense_code(&rig.outcome()), Some(SenseCode::new(Key::MediumError, 0x0c, 0)));
}

#[test]
fn smaller_limits_without_write_same_turn_to_writing_zeroes() {
    let mut rig = Rig::new();
    rig.core.set_limits(Limits { max_write_same: Blocks(0), ..limits() });
    rig.submit_request(zero(1, 40, false));
    assert!(rig.wire.out.iter().all(|s| matches!(s.op, Op::Write { .. })));
    assert_eq!(blocks_written(&rig.all_good()), (1000..1040).collect::<Vec<u64>>());
}

#[test]
fn smaller_limits_in_the_middle_of_writing_zeroes_lose_none() {
    let mut rig = Rig::new();
    rig.submit_request(zero(1, 50, false));
    rig.next(check(5, 0x24, 0));
    rig.core.set_limits(Limits { max_transfer: Blocks(3), ..limits() });
    let mut written = vec![rig.next(Completion::Good)];
    rig.next(host(HostByte::SOFT_ERROR));
    written.extend(rig.all_good());
    assert!(written[1..].iter().all(|s| s.data.iter().all(|d| d.len <= 3 * BLOCK)));
    assert_eq!(blocks_written(&written), (1000..1050).collect::<Vec<u64>>());
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn fua_goes_along_where_the_lu_honours_it() {
    let mut rig = Rig::new();
    rig.submit(1, Op::Write { extent: Extent::new(0, 40), fua: true });
    let sent = rig.all_good();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|s| matches!(s.op, Op::Write { fua: true, .. })));
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn where_it_does_not_a_flush_follows_the_last_part_and_decides() {
    let mut rig = Rig::with(Limits { fua: false, ..limits() });
    rig.submit(1, Op::Write { extent: Extent::new(0, 40), fua: true });
    for _ in 0..3 {
        let part = rig.next(Completion::Good);
        assert!(matches!(part.op, Op::Write { fua: false, .. }));
    }
    assert!(rig.ended.is_empty(), "not durable yet");
    assert_eq!(rig.next(check(4, 0x09, 0)).op, Op::Flush);
    assert_eq!(sense_code(&rig.outcome()), Some(SenseCode::new(Key::HardwareError, 0x09, 0)));
    let told = rig
        .reports
        .iter()
        .any(|r| matches!(r, Report::Guest(GuestError { op: Op::Write { .. }, .. })));
    assert!(told, "the event names what the guest asked for");
}

#[test]
fn durable_zeroes_are_flushed() {
    for refuse in [false, true] {
        let mut rig = Rig::new();
        rig.submit_request(zero(1, 20, true));
        if refuse {
            rig.next(check(5, 0x20, 0));
        }
        while rig.wire.out[0].op != Op::Flush {
            rig.next(Completion::Good);
        }
        assert!(rig.ended.is_empty());
        rig.next(Completion::Good);
        assert_eq!(rig.outcome(), Outcome::Good);
        assert_eq!(rig.wire.count, if refuse { 4 } else { 2 });
    }
}

#[test]
fn no_flush_follows_what_failed() {
    let mut rig = Rig::with(Limits { fua: false, ..limits() });
    rig.submit(1, Op::Write { extent: Extent::new(0, 1), fua: true });
    rig.next(check(3, 0x0c, 0));
    assert!(rig.wire.out.is_empty());
    assert_eq!(rig.ended.len(), 1);
}

#[test]
fn a_write_that_must_be_durable_stays_so_when_a_path_without_fua_joins() {
    let mut rig = Rig::single();
    rig.table(&[], Queueing::Hold);
    rig.submit(1, Op::Write { extent: Extent::new(0, 4), fua: true });
    rig.core.set_limits(Limits { fua: false, ..limits() });
    rig.table(&[&[(0, 2)]], Queueing::Hold);
    assert!(matches!(rig.next(Completion::Good).op, Op::Write { fua: false, .. }));
    assert_eq!(rig.next(Completion::Good).op, Op::Flush);
    assert_eq!(rig.outcome(), Outcome::Good);
}
