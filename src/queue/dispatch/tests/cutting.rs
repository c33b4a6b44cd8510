//! Requests become commands that every path can take.

use super::*;

fn seg(addr: usize, len: usize) -> Segment {
    Segment { addr, len }
}

fn unmap(head: u16, extents: Vec<Extent>) -> Request {
    Request { tag: Tag { ring: 0, head }, op: Some(Op::Unmap), extents, ..Request::default() }
}

/// What the commands move, byte for byte: (offset from the first block,
/// address), and the limits they keep.
fn bytes_of(sent: &[Sent], first: u64, limits: &Limits) -> Vec<(usize, usize)> {
    let mut bytes = Vec::new();
    for s in sent {
        let (Op::Read(e) | Op::Write { extent: e, .. }) = s.op else { panic!("{:?}", s.op) };
        assert!(e.blocks.0 > 0 && e.blocks <= limits.max_transfer, "{e:?}");
        assert!(s.data.len() <= limits.max_segments, "{:?}", s.data);
        assert_eq!(total_len(&s.data), usize::try_from(e.blocks.0).unwrap() * BLOCK);
        let mut at = usize::try_from(e.lba.0 - first).unwrap() * BLOCK;
        for d in &s.data {
            bytes.extend((0..d.len).map(|i| (at + i, d.addr + i)));
            at += d.len;
        }
    }
    bytes.sort_unstable();
    bytes
}

fn expected(data: &[Segment]) -> Vec<(usize, usize)> {
    let addresses = data.iter().flat_map(|d| d.addr..d.addr + d.len);
    addresses.enumerate().collect()
}

#[test]
fn a_request_within_the_limits_is_one_command() {
    let mut rig = Rig::new();
    rig.submit(1, read(100, 16));
    let sent = rig.all_good();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].op, read(100, 16));
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn a_long_request_is_cut_at_the_longest_transfer() {
    let mut rig = Rig::new();
    let data = vec![seg(0x1000, 40 * BLOCK)];
    rig.submit_data(1, write(100, 40), data.clone());
    let sent = rig.all_good();
    assert_eq!(
        sent.iter().map(|s| s.op).collect::<Vec<_>>(),
        [write(100, 16), write(116, 16), write(132, 8)]
    );
    assert_eq!(bytes_of(&sent, 100, &limits()), expected(&data));
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn a_cut_by_segments_falls_back_to_the_end_of_a_block() {
    let mut rig = Rig::new();
    // Four segments reach into the middle of the third block.
    let data = vec![seg(0, 300), seg(1000, 500), seg(2000, 400), seg(3000, 200), seg(4000, 648)];
    rig.submit_data(1, write(0, 4), data.clone());
    let sent = rig.all_good();
    assert_eq!(sent.iter().map(|s| s.op).collect::<Vec<_>>(), [write(0, 2), write(2, 2)]);
    assert_eq!(bytes_of(&sent, 0, &limits()), expected(&data));
}

#[test]
fn a_block_in_more_pieces_than_allowed_goes_alone() {
    let mut rig = Rig::new();
    let mut data: Vec<Segment> = (0..5).map(|i| seg(i * 1000, 100)).collect();
    data.push(seg(9000, 3 * BLOCK + 12));
    rig.submit_data(1, write(0, 4), data);
    let sent = rig.all_good();
    assert_eq!(sent.iter().map(|s| s.op).collect::<Vec<_>>(), [write(0, 1), write(1, 3)]);
}

#[test]
fn every_byte_goes_to_its_place_once_however_the_guest_cuts_its_memory() {
    let mut state = 7u64;
    let mut below = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from((state >> 33) % n).unwrap()
    };
    for _ in 0..300 {
        let blocks = 1 + below(60);
        let mut data = Vec::new();
        let mut left = blocks * BLOCK;
        while left > 0 {
            // Not so small that one block needs more segments than allowed.
            let len = (BLOCK / 2 + below(3000)).min(left);
            data.push(seg(0x10_0000 * (data.len() + 1), len));
            left -= len;
        }
        let mut rig = Rig::new();
        let op = read(77, blocks as u64);
        rig.submit_data(1, op, data.clone());
        let sent = rig.all_good();
        assert_eq!(bytes_of(&sent, 77, &limits()), expected(&data));
        assert_eq!(rig.outcome(), Outcome::Good);
    }
}

#[test]
fn a_request_without_blocks_is_good_and_sends_nothing() {
    let mut rig = Rig::new();
    rig.submit(1, read(5, 0));
    rig.submit_request(unmap(2, Vec::new()));
    rig.submit_request(unmap(3, vec![Extent::new(9, 0)]));
    rig.submit(4, Op::WriteZeroes { extent: Extent::new(5, 0), unmap: false });
    assert_eq!(rig.wire.count, 0);
    assert!(rig.ended.iter().all(|(_, end)| matches!(end, End::Finished(Outcome::Good))));
    assert_eq!(rig.ended.len(), 4);
    assert!(rig.core.is_idle());
}

#[test]
fn less_data_than_blocks_is_an_error_and_never_good() {
    let mut rig = Rig::new();
    rig.submit_data(1, write(0, 40), vec![seg(0, 20 * BLOCK)]);
    rig.all_good();
    assert_eq!(rig.outcome(), Outcome::Host(libc::EINVAL));
}

#[test]
fn an_unmap_is_cut_by_length_and_by_descriptors() {
    let mut rig = Rig::new();
    let extents = [(0, 60), (100, 60), (200, 1), (300, 1), (400, 1), (500, 1)];
    rig.submit_request(unmap(1, extents.map(|(lba, n)| Extent::new(lba, n)).to_vec()));
    let sent = rig.all_good();
    let lists: Vec<Vec<(u64, u64)>> =
        sent.iter().map(|s| s.extents.iter().map(|e| (e.lba.0, e.blocks.0)).collect()).collect();
    let first = vec![(0, 60), (100, 40)];
    assert_eq!(lists, [first, vec![(140, 20), (200, 1), (300, 1)], vec![(400, 1), (500, 1)]]);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn an_unmap_is_cut_where_a_granule_ends() {
    let limits = Limits { unmap_granularity: Blocks(8), unmap_alignment: Lba(3), ..limits() };
    let mut rig = Rig::with(limits);
    rig.submit_request(unmap(1, vec![Extent::new(0, 250)]));
    let ends: Vec<u64> = rig.all_good().iter().map(|s| s.extents[0].end().unwrap().0).collect();
    assert_eq!(ends, [99, 195, 250], "each but the last is 3 more than a multiple of 8");
}

#[test]
fn half_a_granule_does_not_go_along_with_another_extent() {
    let limits = Limits { unmap_granularity: Blocks(64), ..limits() };
    let mut rig = Rig::with(limits);
    rig.submit_request(unmap(1, vec![Extent::new(0, 64), Extent::new(128, 64)]));
    let lists: Vec<_> = rig.all_good().into_iter().map(|s| s.extents).collect();
    assert_eq!(lists, [[Extent::new(0, 64)], [Extent::new(128, 64)]]);
}

#[test]
fn hostile_numbers_end_in_commands_the_lu_can_refuse() {
    let mut rig = Rig::with(Limits { unmap_granularity: Blocks(8), ..limits() });
    rig.submit_request(unmap(1, vec![Extent::new(u64::MAX - 5, 200)]));
    rig.submit(2, write(u64::MAX - 3, 40));
    rig.submit(3, Op::WriteZeroes { extent: Extent::new(u64::MAX, 120), unmap: true });
    while !rig.wire.out.is_empty() {
        rig.next(check(5, 0x21, 0));
    }
    assert_eq!(rig.ended.len(), 3);
    assert!(rig.core.is_idle());
}

#[test]
fn limits_of_zero_neither_stall_nor_divide() {
    let zero = Limits {
        max_transfer: Blocks(0),
        max_segments: 0,
        max_unmap: Blocks(0),
        max_unmap_descriptors: 0,
        unmap_granularity: Blocks(0),
        unmap_alignment: Lba(0),
        max_write_same: Blocks(0),
        fua: false,
    };
    let mut rig = Rig::with(zero);
    rig.submit(1, write(0, 3));
    assert_eq!(rig.all_good().len(), 3, "block by block");
    assert_eq!(rig.outcome(), Outcome::Good);
    rig.submit_request(unmap(2, vec![Extent::new(0, 9)]));
    assert_eq!(rig.outcome(), Outcome::Host(libc::EOPNOTSUPP), "not offered");
    rig.submit(3, Op::WriteZeroes { extent: Extent::new(0, 2), unmap: false });
    assert!(rig.all_good().iter().all(|s| matches!(s.op, Op::Write { .. })));
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn what_was_cut_for_larger_limits_is_cut_again_before_it_is_issued() {
    let mut rig = Rig::single();
    rig.table(&[], Queueing::Hold);
    let data = vec![seg(0, 16 * BLOCK)];
    rig.submit_data(1, write(50, 16), data.clone());
    assert_eq!(rig.core.held(), 1);
    let small = Limits { max_transfer: Blocks(6), max_segments: 2, ..limits() };
    rig.core.set_limits(small);
    rig.table(&[&[(0, 2)]], Queueing::Hold);
    let sent = rig.all_good();
    assert_eq!(bytes_of(&sent, 50, &small), expected(&data));
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn limits_may_shrink_in_the_middle_of_everything() {
    for step in 0..6 {
        let mut rig = Rig::new();
        let data: Vec<Segment> = (0..40).map(|i| seg(0x10_0000 + i * 0x1000, BLOCK)).collect();
        rig.submit_data(1, write(0, 40), data.clone());
        let mut sent = Vec::new();
        for round in 0.. {
            if round == step {
                let small = Limits { max_transfer: Blocks(3), max_segments: 2, ..limits() };
                rig.core.set_limits(small);
            }
            if rig.wire.out.is_empty() {
                break;
            }
            // The first time everything is disturbed, so that it goes again.
            let answer = if round < 3 { check(6, 0x2a, 0x01) } else { Completion::Good };
            let s = rig.next(answer);
            if answer == Completion::Good {
                sent.push(s);
            }
        }
        assert_eq!(bytes_of(&sent, 0, &limits()), expected(&data), "at step {step}");
        assert_eq!(rig.outcome(), Outcome::Good);
    }
}

#[test]
fn a_short_transfer_is_continued_where_it_stopped() {
    let mut rig = Rig::new();
    rig.submit_data(1, write(10, 8), vec![seg(0, 1000), seg(5000, 3096)]);
    rig.next(Completion::Short(3 * BLOCK + 100));
    let rest = rig.next(Completion::Good);
    assert_eq!(rest.op, write(13, 5));
    assert_eq!(rest.data, [seg(5000 + 3 * BLOCK - 1000, 5 * BLOCK)]);
    assert_eq!(rig.outcome(), Outcome::Good);
}

#[test]
fn less_than_a_block_is_not_done() {
    let mut rig = Rig::new();
    rig.submit(1, write(10, 8));
    let first = rig.next(Completion::Short(BLOCK - 1));
    let second = rig.wire.out[0].clone();
    assert_eq!(second.op, write(10, 8), "all of it again");
    assert_ne!(second.path, first.path);
    rig.next(Completion::Short(0));
    assert_eq!(rig.outcome(), Outcome::Host(libc::EIO), "both paths agree");
}

#[test]
fn missing_bytes_are_not_good_whatever_the_status_says() {
    let recovered = Sense::fixed(SenseCode::new(Key::RecoveredError, 0x17, 0));
    for (status, sense) in [(Status::GOOD, Sense::EMPTY), (Status::CHECK_CONDITION, recovered)] {
        let mut rig = Rig::new();
        rig.submit(1, read(0, 8));
        let missing = Completion::Scsi { status, host: HostByte::OK, sense, residual: 4096 };
        rig.next(missing);
        assert_eq!(rig.wire.out.len(), 1, "asked again");
        rig.next(Completion::Good);
        assert_eq!(rig.outcome(), Outcome::Good);
    }
}

#[test]
fn a_request_of_many_parts_does_not_keep_others_waiting() {
    let mut rig = Rig::single();
    rig.wire.room = [1; 4];
    rig.submit(1, Op::WriteZeroes { extent: Extent::new(0, 50_000), unmap: false });
    rig.submit(2, read(0, 1));
    let mut before = 0;
    while rig.ended.is_empty() {
        rig.next(Completion::Good);
        before += 1;
    }
    assert_eq!(rig.ended[0].0, 2);
    assert!(before < 40, "after {before} commands of the other");
    assert_eq!(before - 1 + rig.all_good().len(), 1000);
}

#[test]
fn more_requests_than_parts_all_end() {
    let mut rig = Rig::single();
    rig.wire.room = [3; 4];
    for head in 0..16 {
        rig.submit(head, write(u64::from(head) * 100, 100));
    }
    assert_eq!(rig.core.room(), 0);
    let mut covered = vec![0; 1600];
    for s in rig.all_good() {
        let Op::Write { extent, .. } = s.op else { panic!() };
        for block in extent.lba.0..extent.lba.0 + extent.blocks.0 {
            covered[usize::try_from(block).unwrap()] += 1;
        }
    }
    assert!(covered.iter().all(|&n| n == 1), "each block once");
    assert_eq!(rig.ended.len(), 16);
    assert!(rig.core.is_idle());
}

#[test]
fn a_request_beyond_the_room_or_without_operation_is_handed_back() {
    let mut rig = Rig::single();
    assert!(rig.core.submit(Box::<Request>::default()).is_err());
    assert_eq!(rig.core.room(), 16, "it used up no place");
    for head in 0..16 {
        rig.submit(head, Op::Flush);
    }
    let one_more = Request { op: Some(Op::Flush), ..Request::default() };
    assert!(rig.core.submit(Box::new(one_more)).is_err());
}
