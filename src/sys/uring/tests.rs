use super::*;
use crate::sys::eventfd::EventFd;
use crate::sys::segment;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

fn reap_all(ring: &mut Uring) -> Vec<(u64, i32, bool)> {
    let mut got = Vec::new();
    ring.reap(|c| got.push((c.user_data, c.result, c.more)));
    got
}

fn scratch() -> File {
    let name =
        format!("vhost-mpath-uring-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

#[test]
fn what_is_written_by_lists_is_read_back() {
    let mut ring = Uring::new(8).unwrap();
    let file = scratch();
    let (mut a, mut b) = ([1u8; 512], [2u8; 512]);
    let list = [segment::of(&mut a), segment::of(&mut b)];
    // SAFETY: list and arrays live until the completion is reaped below.
    unsafe { ring.writev(file.as_fd(), &list, 512, RwFlags::DSYNC, 7) }.unwrap();
    ring.submit_and_wait(Wait::Forever).unwrap();
    assert_eq!(reap_all(&mut ring), [(7, 1024, false)]);
    ring.fsync(file.as_fd(), 8).unwrap();
    ring.submit_and_wait(Wait::Forever).unwrap();
    assert_eq!(reap_all(&mut ring), [(8, 0, false)]);
    let mut all = [9u8; 2048];
    let list = [segment::of(&mut all)];
    // SAFETY: as above.
    unsafe { ring.readv(file.as_fd(), &list, 0, RwFlags::NONE, 9) }.unwrap();
    ring.submit_and_wait(Wait::Forever).unwrap();
    assert_eq!(reap_all(&mut ring), [(9, 1536, false)]);
    assert_eq!(all[..512], [0; 512]);
    assert_eq!(all[512..1024], [1; 512]);
    assert_eq!(all[1024..1536], [2; 512]);
    assert_eq!(all[1536..], [9; 512], "beyond the end of the file nothing is touched");
}

#[test]
fn every_signal_of_a_watched_eventfd_is_an_edge_without_reading() {
    let mut ring = Uring::new(8).unwrap();
    let event = EventFd::new().unwrap();
    ring.poll_multi(event.as_fd(), 1).unwrap();
    ring.submit_and_wait(Wait::No).unwrap();
    assert_eq!(reap_all(&mut ring), []);
    for _ in 0..3 {
        event.signal();
        ring.submit_and_wait(Wait::AtMost(Duration::from_secs(5))).unwrap();
        let got = reap_all(&mut ring);
        assert_eq!(got.len(), 1);
        assert!(got[0].0 == 1 && got[0].1 > 0 && got[0].2, "{got:?}");
    }
}

#[test]
fn waiting_ends_at_the_limit() {
    let mut ring = Uring::new(2).unwrap();
    ring.submit_and_wait(Wait::AtMost(Duration::from_millis(5))).unwrap();
    assert_eq!(reap_all(&mut ring), []);
}

#[test]
fn a_full_submission_queue_makes_room_by_itself() {
    let mut ring = Uring::new(2).unwrap();
    let file = scratch();
    for n in 0..8 {
        ring.fsync(file.as_fd(), n).unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 8 {
        ring.submit_and_wait(Wait::Forever).unwrap();
        seen.extend(reap_all(&mut ring).iter().map(|c| c.0));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..8).collect::<Vec<_>>());
}

#[test]
fn a_cancelled_operation_still_completes_itself() {
    let mut ring = Uring::new(4).unwrap();
    let event = EventFd::new().unwrap();
    ring.poll_multi(event.as_fd(), 1).unwrap();
    ring.cancel(1, 2).unwrap();
    let mut got = Vec::new();
    while got.len() < 2 {
        ring.submit_and_wait(Wait::Forever).unwrap();
        got.extend(reap_all(&mut ring));
    }
    got.sort_unstable();
    assert_eq!(got, [(1, -libc::ECANCELED, false), (2, 0, false)]);
}

#[test]
fn a_wide_ring_does_all_that_a_narrow_one_does() {
    let mut ring = Uring::wide(4).unwrap();
    assert!(ring.is_wide());
    let file = scratch();
    let mut data = [5u8; 512];
    let list = [segment::of(&mut data)];
    // SAFETY: list and array live until the completion is reaped below.
    unsafe { ring.writev(file.as_fd(), &list, 0, RwFlags::NONE, 7) }.unwrap();
    for n in 0..9 {
        ring.fsync(file.as_fd(), n).unwrap();
    }
    let mut seen = 0;
    while seen < 10 {
        ring.submit_and_wait(Wait::Forever).unwrap();
        seen += reap_all(&mut ring).len();
    }
    assert_eq!(file.metadata().unwrap().len(), 512);
}

#[test]
fn a_ring_that_was_widened_gives_back_what_it_had() {
    let mut ring = Uring::new(4).unwrap();
    let (kick, slow) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    ring.poll_multi(kick.as_fd(), 1).unwrap();
    // A read that is out for as long as nobody signals.
    let mut word = [0u8; 8];
    let list = [segment::of(&mut word)];
    // SAFETY: list and array live until the completion is reaped below.
    unsafe { ring.readv(slow.as_fd(), &list, u64::MAX, RwFlags::NONE, 2) }.unwrap();
    ring.submit_and_wait(Wait::No).unwrap();
    ring.widen(3, [1]).unwrap();
    assert!(ring.is_wide());
    ring.poll_multi(kick.as_fd(), 1).unwrap();
    ring.submit_and_wait(Wait::No).unwrap();
    slow.signal();
    let mut got = Vec::new();
    while !got.iter().any(|c: &(u64, i32, bool)| c.0 == 2) {
        ring.submit_and_wait(Wait::AtMost(Duration::from_secs(5))).unwrap();
        got.extend(reap_all(&mut ring));
    }
    assert!(got.contains(&(2, 8, true)), "{got:?}");
    assert!(got.iter().all(|c| c.2), "no watch is armed twice: {got:?}");
    // The old watch is gone, the new one is there.
    kick.signal();
    ring.submit_and_wait(Wait::AtMost(Duration::from_secs(5))).unwrap();
    let got = reap_all(&mut ring);
    assert!(got.len() == 1 && got[0].0 == 1 && got[0].2, "{got:?}");
}

/// The kernel defers a completion to the next system call on the ring that it
/// belongs to, of which there is none by itself.
#[test]
fn what_a_replaced_ring_had_comes_back_however_late_it_ends() {
    let mut ring = Uring::new(4).unwrap();
    // (No eventfds: what ends in the wake-up of one is told later, by the kernel's
    // choice.)
    let slow = [UnixStream::pair().unwrap(), UnixStream::pair().unwrap()];
    let mut words = [[0u8; 8]; 2];
    for (n, word) in words.iter_mut().enumerate() {
        let list = [segment::of(word)];
        let user_data = u64::try_from(n).unwrap();
        // SAFETY: the array lives until the completion is reaped below, the list
        // until the submission.
        unsafe { ring.readv(slow[n].0.as_fd(), &list, u64::MAX, RwFlags::NONE, user_data) }
            .unwrap();
        ring.submit_and_wait(Wait::No).unwrap();
    }
    ring.widen(3, []).unwrap();
    for (n, (_, writer)) in slow.iter().enumerate() {
        // Nothing is left to be reaped before it ends.
        while !reap_all(&mut ring).is_empty() || ring.queued() > 0 {
            ring.submit_and_wait(Wait::AtMost(Duration::from_millis(50))).unwrap();
        }
        ring.submit_and_wait(Wait::AtMost(Duration::from_millis(50))).unwrap();
        reap_all(&mut ring);
        (&*writer).write_all(&[1; 8]).unwrap();
        let mut got = Vec::new();
        for _ in 0..200 {
            ring.submit_and_wait(Wait::AtMost(Duration::from_millis(25))).unwrap();
            got.extend(reap_all(&mut ring));
            if !got.is_empty() {
                break;
            }
        }
        assert_eq!(got, [(u64::try_from(n).unwrap(), 8, true)]);
    }
}

#[test]
fn a_ring_that_could_not_be_widened_is_whole_and_can_be_later() {
    let mut ring = Uring::new(4).unwrap();
    let (kick, left) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    ring.poll_multi(kick.as_fd(), 1).unwrap();
    ring.fsync(scratch().as_fd(), 2).unwrap();
    ring.submit_and_wait(Wait::AtMost(Duration::from_secs(5))).unwrap();
    assert_eq!(reap_all(&mut ring).len(), 1);
    // As far as the attempt came: its eventfd, and an end of the watch.
    ring.ring.submitter().register_eventfd(left.as_fd().as_raw_fd()).unwrap();
    ring.cancel(1, 3).unwrap();
    ring.submit_and_wait(Wait::AtMost(Duration::from_secs(5))).unwrap();
    let got = reap_all(&mut ring);
    assert!(got.contains(&(1, -libc::ECANCELED, false)), "who watches is told: {got:?}");
    ring.poll_multi(kick.as_fd(), 1).unwrap();
    ring.widen(3, [1]).unwrap();
    assert!(ring.is_wide());
    ring.poll_multi(kick.as_fd(), 1).unwrap();
    kick.signal();
    ring.submit_and_wait(Wait::AtMost(Duration::from_secs(5))).unwrap();
    assert!(reap_all(&mut ring).iter().any(|c| c.0 == 1 && c.2));
}

#[test]
fn an_unused_ring_is_widened_without_a_trace() {
    let mut ring = Uring::new(4).unwrap();
    let kick = EventFd::new().unwrap();
    ring.poll_multi(kick.as_fd(), 1).unwrap();
    ring.widen(3, [1]).unwrap();
    assert!(ring.old.is_none());
    ring.poll_multi(kick.as_fd(), 1).unwrap();
    kick.signal();
    ring.submit_and_wait(Wait::AtMost(Duration::from_secs(5))).unwrap();
    assert_eq!(reap_all(&mut ring).iter().map(|c| c.0).collect::<Vec<_>>(), [1]);
    ring.widen(3, [1]).unwrap();
    assert!(ring.is_wide(), "again is nothing");
}
