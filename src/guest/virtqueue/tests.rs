use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;

use proptest::prelude::*;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::guest::driver::Driver;
use crate::guest::inflight::{self, InflightArea};
use crate::guest::ring::RingConfig;
use crate::guest::shared::power;

const SIZE: u16 = 8;

fn event() -> (OwnedFd, File) {
    let event = EventFd::new(EFD_NONBLOCK).unwrap();
    let ours = event.try_clone().unwrap();
    (into_fd(&event), File::from(into_fd(&ours)))
}

fn into_fd(event: &EventFd) -> OwnedFd {
    use std::os::fd::BorrowedFd;
    // SAFETY: the eventfd is open until the end of this function, by when it
    // has been duplicated; EventFd has no safe conversion.
    let fd = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    fd.try_clone_to_owned().unwrap()
}

fn count(mut event: &File) -> u64 {
    let mut bytes = [0; 8];
    event.read(&mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
}

/// A guest, its ring, and the in-flight area its front-end keeps.
struct World {
    driver: Driver,
    area: InflightArea,
    /// What the guest waits for, in the order it was made available.
    owed: Vec<u16>,
}

impl World {
    fn new() -> World {
        let memory = Arc::new(Memory::anonymous(1, &[(0, 0x4000)]).unwrap());
        let driver = Driver::new(memory, 0, SIZE, false);
        let file = inflight::create(2, SIZE).unwrap();
        let area = InflightArea::attach(file, inflight::area_size(2, SIZE), 0, 2, SIZE).unwrap();
        World { driver, area, owed: Vec::new() }
    }

    fn start(&self) -> VirtQueue {
        let config = RingConfig { next_avail: 0x5555, ..self.driver.config() };
        let ring = Ring::new(Arc::clone(self.driver.memory()), config).unwrap();
        let inflight = Some(self.area.queue(1, SIZE).unwrap());
        let (kick, call, err) = (event().0, None, None);
        VirtQueue::new(VirtQueueParts { index: 1, ring, inflight, kick, call, err }).unwrap()
    }

    fn post(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(head) = self.driver.add(&[(0x2000, 16)], &[]) {
                self.owed.push(head);
            }
        }
    }

    fn reap(&mut self) {
        while let Some((head, _)) = self.driver.used() {
            let at = self.owed.iter().position(|&h| h == head);
            self.owed.remove(at.expect("a chain came back that the guest did not wait for"));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Post(usize),
    Take(usize),
    /// Complete those taken chains whose bit is set, rotated.
    Complete(u8, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..6usize).prop_map(Step::Post),
        (1..9usize).prop_map(Step::Take),
        (any::<u8>(), 0..8usize).prop_map(|(mask, turn)| Step::Complete(mask, turn)),
    ]
}

fn play(world: &mut World, queue: &mut VirtQueue, taken: &mut Vec<u16>, steps: &[Step]) {
    for step in steps {
        match *step {
            Step::Post(count) => world.post(count),
            Step::Take(max) => {
                power::on(|| queue.take(max, taken)).unwrap();
            }
            Step::Complete(mask, turn) => {
                let chosen = |i: usize| mask & (1 << (i % 8)) != 0;
                let mut done: Vec<(u16, u32)> =
                    (0..taken.len()).filter(|&i| chosen(i)).map(|i| (taken[i], 0)).collect();
                taken.retain(|&h| !done.iter().any(|&(d, _)| d == h));
                let turn = turn.min(done.len());
                done.rotate_left(turn);
                power::on(|| queue.complete(&done));
            }
        }
        if power::failed() {
            return;
        }
        world.reap();
    }
}

/// What an owner after a crash is given must be exactly what the guest still
/// waits for, in the order it asked.
fn check_nothing_lost_or_doubled(world: &mut World) {
    let mut queue = world.start();
    let mut heads = Vec::new();
    while queue.take(3, &mut heads).unwrap() > 0 {}
    assert_eq!(heads, world.owed);
    let done: Vec<(u16, u32)> = heads.iter().map(|&h| (h, 0)).collect();
    queue.complete(&done);
    world.reap();
    assert!(world.owed.is_empty());
    assert_eq!(world.start().in_flight(), 0);
}

fn crash_everywhere(steps: &[Step], more: usize) {
    for cut in 0.. {
        let mut world = World::new();
        power::cut_after(u64::MAX);
        let mut queue = power::on(|| world.start());
        let (before, after) = steps.split_at(steps.len() / 2);
        let mut taken = Vec::new();
        play(&mut world, &mut queue, &mut taken, before);
        power::cut_after(cut);
        play(&mut world, &mut queue, &mut taken, after);
        let crashed = power::failed();
        drop(queue);
        // The guest goes on while nobody serves it.
        world.reap();
        world.post(more);
        // The next owner may crash while it repairs.
        power::cut_after(cut % 7);
        power::on(|| drop(world.start()));
        check_nothing_lost_or_doubled(&mut world);
        if !crashed {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Stops after every single store of taking and completing.
    #[test]
    fn a_crash_between_any_two_stores_loses_and_doubles_nothing(
        steps in prop::collection::vec(step(), 2..24),
        more in 0..4usize,
    ) {
        crash_everywhere(&steps, more);
    }
}

#[test]
fn a_batch_that_wraps_and_completes_backwards_survives_every_crash() {
    let mut steps = Vec::new();
    for _ in 0..3 {
        steps.extend([Step::Post(8), Step::Take(8), Step::Complete(0xff, 5)]);
    }
    steps.extend([Step::Post(8), Step::Take(8), Step::Complete(0b1010_1010, 3)]);
    steps.extend([Step::Complete(0xff, 2), Step::Post(5), Step::Take(2), Step::Take(3)]);
    crash_everywhere(&steps, 2);
}

/// SPDK issue 3766: the destination of a migration gets a fresh area for a
/// ring that is not at zero.
#[test]
fn a_fresh_area_takes_over_the_used_index_of_the_ring() {
    for cut in 0..20 {
        let mut world = World::new();
        let ring = Ring::new(Arc::clone(world.driver.memory()), world.driver.config()).unwrap();
        let (kick, call, err) = (event().0, None, None);
        let parts = VirtQueueParts { index: 0, ring, inflight: None, kick, call, err };
        let mut source = VirtQueue::new(parts).unwrap();
        world.post(3);
        let mut heads = Vec::new();
        source.take(8, &mut heads).unwrap();
        source.complete(&heads.iter().map(|&h| (h, 0)).collect::<Vec<_>>());
        world.reap();
        world.post(2);
        power::cut_after(cut);
        power::on(|| drop(world.start()));
        let destination = world.start();
        assert_eq!((destination.used_idx(), destination.next_avail()), (3, 3));
        drop(destination);
        check_nothing_lost_or_doubled(&mut world);
    }
}

#[test]
fn a_head_made_available_twice_breaks_the_ring() {
    let mut world = World::new();
    let mut queue = world.start();
    let head = world.driver.add(&[(0x2000, 16)], &[]).unwrap();
    world.driver.offer(head);
    world.driver.publish();
    let mut heads = Vec::new();
    assert_eq!(queue.take(8, &mut heads), Ok(1));
    assert_eq!(queue.take(8, &mut heads), Err(RingError::HeadBusy(head)));
    assert_eq!((heads, queue.next_avail(), queue.in_flight()), (vec![head], 1, 1));
}

#[test]
#[should_panic(expected = "not in flight")]
fn a_chain_is_not_returned_twice() {
    let mut world = World::new();
    let mut queue = world.start();
    world.post(1);
    let mut heads = Vec::new();
    queue.take(8, &mut heads).unwrap();
    queue.complete(&[(heads[0], 0)]);
    queue.complete(&[(heads[0], 0)]);
}

#[test]
fn one_interrupt_for_a_batch_and_one_for_a_new_call_fd() {
    let mut world = World::new();
    let mut queue = world.start();
    let (call, ours) = event();
    queue.set_call(Some(call));
    assert_eq!(count(&ours), 1, "an interrupt may have been lost before");
    world.post(4);
    let mut heads = Vec::new();
    queue.take(8, &mut heads).unwrap();
    queue.complete(&[(heads[0], 0), (heads[2], 0)]);
    queue.complete(&[(heads[1], 0)]);
    queue.notify();
    queue.notify();
    assert_eq!(count(&ours), 1);
    world.driver.set_no_interrupt(true);
    queue.complete(&[(heads[3], 0)]);
    queue.notify();
    assert_eq!(count(&ours), 0);
}

/// A front-end with `share=off` maps its memory privately: kicks come, but
/// what the guest writes does not.
#[test]
fn a_ring_in_memory_that_is_not_shared_is_recognized() {
    let mut world = World::new();
    let queue = world.start();
    assert!(queue.is_untouched());
    world.post(1);
    assert!(!queue.is_untouched());
}

fn await_event(event: &EventFd, what: &str) {
    let epoll = Epoll::new().unwrap();
    epoll.ctl(ControlOperation::Add, event.as_raw_fd(), EpollEvent::new(EventSet::IN, 0)).unwrap();
    let ready = loop {
        match epoll.wait(10_000, &mut [EpollEvent::default()]) {
            // The process was stopped, and goes on.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            waited => break waited.unwrap(),
        }
    };
    assert_eq!(ready, 1, "a {what} was lost");
    event.read().unwrap();
}

/// Driver and device each sleep until the other wakes them: one wake-up lost
/// to the race between suppressing and checking, and both sleep for ever.
fn no_wake_up_is_lost(event_idx: bool) {
    const REQUESTS: usize = 60_000;
    const DEPTH: usize = 2;
    let memory = Arc::new(Memory::anonymous(1, &[(0, 0x4000)]).unwrap());
    let mut driver = Driver::new(memory, 0, SIZE, event_idx);
    let ring = Ring::new(Arc::clone(driver.memory()), driver.config()).unwrap();
    let (kick, call) = (EventFd::new(EFD_NONBLOCK).unwrap(), EventFd::new(EFD_NONBLOCK).unwrap());
    let parts = VirtQueueParts {
        index: 0,
        ring,
        inflight: None,
        kick: into_fd(&kick),
        call: Some(into_fd(&call)),
        err: None,
    };
    let mut queue = VirtQueue::new(parts).unwrap();
    let kicked = kick.try_clone().unwrap();
    let device = std::thread::spawn(move || {
        let (mut heads, mut served) = (Vec::new(), 0);
        while served < REQUESTS {
            queue.disable_notification();
            while queue.take(3, &mut heads).unwrap() > 0 {
                served += heads.len();
                queue.complete(&heads.drain(..).map(|h| (h, 0)).collect::<Vec<_>>());
                queue.notify();
            }
            if !queue.enable_notification() && served < REQUESTS {
                await_event(&kicked, "kick");
            }
        }
    });
    let (mut posted, mut seen) = (0, 0);
    while seen < REQUESTS {
        let old = driver.avail_idx();
        if posted < REQUESTS && posted - seen < DEPTH {
            driver.add(&[(0x2000, 16)], &[]).unwrap();
            posted += 1;
        }
        if driver.avail_idx() != old && driver.needs_kick(old) {
            kick.write(1).unwrap();
        }
        // Arrive at every moment of what the device does.
        (0..posted % 97).for_each(|_| std::hint::spin_loop());
        driver.set_no_interrupt(true);
        while driver.used().is_some() {
            seen += 1;
        }
        driver.set_no_interrupt(false);
        driver.set_used_event(u16::try_from(seen & 0xffff).unwrap());
        let all_posted = posted - seen == DEPTH.min(REQUESTS - seen) && seen < REQUESTS;
        if all_posted && usize::from(driver.used_idx()) == seen & 0xffff {
            await_event(&call, "call");
        }
    }
    device.join().unwrap();
}

#[test]
fn no_wake_up_is_lost_with_event_idx() {
    no_wake_up_is_lost(true);
}

#[test]
fn no_wake_up_is_lost_with_flags() {
    no_wake_up_is_lost(false);
}

#[test]
fn failing_a_ring_tells_the_front_end() {
    let world = World::new();
    let ring = Ring::new(Arc::clone(world.driver.memory()), world.driver.config()).unwrap();
    let (err, ours) = event();
    let (kick, err) = (event().0, Some(err));
    let parts = VirtQueueParts { index: 0, ring, inflight: None, kick, call: None, err };
    VirtQueue::new(parts).unwrap().fail(&RingError::HeadBusy(1));
    assert_eq!(count(&ours), 1);
}
