use std::os::unix::fs::FileExt;

use super::*;

const SIZE: u16 = 4;

fn area() -> (File, InflightArea) {
    let file = create(2, SIZE).unwrap();
    let area =
        InflightArea::attach(file.try_clone().unwrap(), area_size(2, SIZE), 0, 2, SIZE).unwrap();
    (file, area)
}

/// The layout is an interface: a front-end migrates it, another back-end may
/// continue it.
#[test]
fn the_layout_is_the_one_of_the_specification() {
    let (file, area) = area();
    let mut queue = area.queue(1, SIZE).unwrap();
    queue.recover(7).unwrap();
    queue.mark(2);
    queue.mark(3);
    queue.link(&[(3, 0), (2, 0)]);
    let mut bytes = [0; 16 + 16 * 4];
    file.read_exact_at(&mut bytes, 128).unwrap();
    let (header, desc) = bytes.split_at(16);
    assert_eq!(header[..8], [0; 8], "features");
    let words: Vec<u16> = header[8..].chunks(2).map(|w| u16::from_ne_bytes([w[0], w[1]])).collect();
    assert_eq!(words, [1, SIZE, 2, 7], "version, desc_num, last_batch_head, used_idx");
    assert_eq!(desc[32], 1, "in flight");
    assert_eq!(desc[32 + 6..32 + 8], 3u16.to_ne_bytes(), "next");
    assert_eq!(desc[48 + 8..48 + 16], 1u64.to_ne_bytes(), "counter");
    assert_eq!(area_size(2, SIZE), 256 + 64);
    assert_eq!(area_size(1, 128), 2112 + 64);
}

#[test]
fn the_memo_is_left_to_the_next_and_touches_no_queue() {
    let (file, area) = area();
    assert_eq!(area.memo(), 0);
    area.queue(1, SIZE).unwrap().recover(7).unwrap();
    area.set_memo(u64::MAX);
    let next = |size| InflightArea::attach(file.try_clone().unwrap(), size, 0, 2, SIZE).unwrap();
    assert_eq!(next(area_size(2, SIZE)).memo(), u64::MAX);
    let found = next(area_size(2, SIZE)).queue(1, SIZE).unwrap().recover(7).unwrap();
    assert_eq!((found.resubmit.len(), found.restarted), (0, false));
    let others = next(256);
    others.set_memo(1);
    assert_eq!((others.memo(), area.memo()), (0, u64::MAX), "an area of another's making");
}

#[test]
fn heads_come_back_in_the_order_they_were_taken() {
    let (_, area) = area();
    let mut queue = area.queue(0, SIZE).unwrap();
    queue.recover(0).unwrap();
    for head in [3, 0, 2] {
        queue.mark(head);
    }
    let mut next = area.queue(0, SIZE).unwrap();
    let found = next.recover(0).unwrap();
    assert_eq!(found, Recovered { resubmit: VecDeque::from([3, 0, 2]), restarted: false });
    // Counting goes on after the highest, or a second crash would reorder.
    next.mark(1);
    assert_eq!(area.queue(0, SIZE).unwrap().recover(0).unwrap().resubmit, [3, 0, 2, 1]);
}

/// A guest that resets its ring under an area its front-end kept.
#[test]
fn a_ring_that_went_backwards_starts_the_record_afresh() {
    let (_, area) = area();
    let mut queue = area.queue(0, SIZE).unwrap();
    queue.recover(1000).unwrap();
    queue.mark(1);
    let found = area.queue(0, SIZE).unwrap().recover(0).unwrap();
    assert_eq!(found, Recovered { resubmit: VecDeque::new(), restarted: true });
    let found = area.queue(0, SIZE).unwrap().recover(0).unwrap();
    assert!(!found.restarted && found.resubmit.is_empty());
}

#[test]
fn scribbled_areas_are_refused_without_a_panic() {
    let (file, area) = area();
    let mut queue = area.queue(0, SIZE).unwrap();
    file.write_all_at(&2u16.to_ne_bytes(), 8).unwrap();
    assert!(matches!(queue.recover(0), Err(InflightError::Version(2))));
    file.write_all_at(&1u16.to_ne_bytes(), 8).unwrap();
    file.write_all_at(&SIZE.to_ne_bytes(), 12).unwrap();
    assert!(matches!(queue.recover(1), Err(InflightError::Corrupt(SIZE))));
    file.write_all_at(&[0xff; 64], 16).unwrap();
    file.write_all_at(&[0, 0, 0, 0], 12).unwrap();
    assert_eq!(queue.recover(0).unwrap().resubmit.len(), 4);
    queue.mark(0);
}

#[test]
fn areas_that_do_not_fit_are_refused() {
    let attach = |file: &File, size, offset, queues| {
        InflightArea::attach(file.try_clone().unwrap(), size, offset, queues, SIZE).map(|_| ())
    };
    let file = create(2, SIZE).unwrap();
    let fits = area_size(2, SIZE);
    assert!(matches!(attach(&file, fits, 0, 3), Err(InflightError::TooSmall { .. })));
    assert!(matches!(attach(&file, u64::MAX, 128, 2), Err(InflightError::TooSmall { .. })));
    assert!(matches!(attach(&file, 256 - 1, 0, 2), Err(InflightError::TooSmall { .. })));
    let long = memfd::sealed(c"test", 8192).unwrap();
    assert!(matches!(attach(&long, fits, 64, 2), Err(InflightError::Offset(64))));
    assert!(attach(&long, fits, 4096, 2).is_ok());
    let (_, area) = area();
    assert!(matches!(area.queue(2, SIZE), Err(InflightError::NoSuchQueue { .. })));
    assert!(matches!(area.queue(0, 8), Err(InflightError::NoSuchQueue { .. })));
}

/// QEMU 10.0.13 asks with queue-size (128) and then starts rings of 1024.
#[test]
fn an_area_made_for_longer_rings_than_named_serves_them() {
    let file = create(2, 1024).unwrap();
    let attach = |size, named| InflightArea::attach(file.try_clone().unwrap(), size, 0, 2, named);
    let made = area_size(2, 1024);
    let area = attach(made, 128).unwrap();
    let mut queue = area.queue(1, 1024).unwrap();
    queue.recover(0).unwrap();
    queue.mark(1023);
    // The same layout whatever size the next connection names.
    for named in [128, 256, 1024] {
        let mut queue = attach(made, named).unwrap().queue(1, 1024).unwrap();
        assert_eq!(queue.recover(0).unwrap().resubmit, [1023], "{named}");
    }
    // Another back-end's area, only rounded up, keeps the layout that was named.
    assert!(matches!(
        attach(8192, 128).unwrap().queue(0, 256),
        Err(InflightError::NoSuchQueue { size: 256, queue_size: 128, .. })
    ));
}
