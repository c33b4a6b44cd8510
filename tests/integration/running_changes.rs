//! What a front-end may change under a running ring: memory slots, the call
//! eventfd, enabling.

use std::time::Duration;

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost_mpath::guest::driver::{Descriptor, NEXT, WRITE};
use vhost_mpath::virtio::blk::{RequestHeader, RequestType};

use crate::harness::blk_queue::{PATIENCE, Payload};
use crate::harness::front_end::{FrontEnd, Shape};
use crate::harness::guest;
use crate::harness::load::{Load, Mix};
use crate::harness::sim_daemon::{Daemon, Setup};
use crate::harness::slot_queue::UNANSWERED;

const MIX: Mix = Mix { sectors: 4096, block: 1, most: 24, zeroes: false };

#[test]
fn memory_slots_come_and_go_while_rings_run() {
    let daemon = Daemon::start(&Setup { size: 2 << 20, queues: 2, ..Setup::default() });
    let mut shape = Shape { queues: 2, slots: true, ..Shape::default() };
    shape.manner.slot_bytes = 32 << 10;
    let mut front_end = FrontEnd::connect(&daemon.socket(), shape);
    let mut load = Load::new(21, MIX);
    for _ in 0..10 {
        let number = front_end.guest.grow(4 << 20);
        let (region, slot) = (front_end.guest.region(number), front_end.guest.table()[number]);
        front_end.vhost().add_mem_region(&slot).expect("ADD_MEM_REG");
        let FrontEnd { queues, guest, .. } = &mut front_end;
        // One queue's data moves there, the other keeps running where it is.
        queues[0].move_data(guest, region.guest_addr);
        load.run(queues, Duration::from_millis(10));
        load.settle(queues);
        queues[0].move_data(guest, guest.region(1).guest_addr);
        load.run(queues, Duration::from_millis(5));
        front_end.vhost().remove_mem_region(&slot).expect("REM_MEM_REG");
        load.run(&mut front_end.queues, Duration::from_millis(5));
        load.settle(&mut front_end.queues);
        front_end.guest.forget_last();
    }
    assert!(load.failed.is_empty(), "{:?}", load.failed);
    load.read_back(front_end.queue(1));
}

/// The daemon keeps a removed region mapped as long as commands use it.
#[test]
fn a_region_removed_under_requests_in_flight_still_gets_their_data() {
    let mut daemon = Daemon::start(&Setup::default());
    let shape = Shape { slots: true, ..Shape::default() };
    let mut front_end = FrontEnd::connect(&daemon.socket(), shape);
    let data = vec![0xa5; 65536];
    assert_eq!(front_end.queue(0).run(RequestType::Out, 0, Payload::Bytes(&data), 0).status, 0);
    let number = front_end.guest.grow(4 << 20);
    let (region, slot) = (front_end.guest.region(number), front_end.guest.table()[number]);
    front_end.vhost().add_mem_region(&slot).expect("ADD_MEM_REG");
    let FrontEnd { queues, guest, .. } = &mut front_end;
    queues[0].move_data(guest, region.guest_addr);
    daemon.delay(0, 300);
    for _ in 0..10 {
        queues[0].submit(RequestType::In, 0, Payload::None, 65536).expect("room");
    }
    queues[0].kick();
    std::thread::sleep(Duration::from_millis(50));
    front_end.vhost().remove_mem_region(&slot).expect("REM_MEM_REG");
    let queue = front_end.queue(0);
    for done in queue.drain(PATIENCE) {
        assert_eq!(done.status, 0);
        assert!(queue.data(&done) == data);
    }
    // From now on it is no memory.
    daemon.delay(0, 0);
    let gone = queue.submit_raw(3, |driver, slot, i| {
        let head = RequestHeader { kind: 0, sector: 0 }.encode();
        guest::write(driver.memory(), slot.header, &head);
        let at = |addr, len, flags, next| Descriptor { addr, len, flags, next };
        driver.set_descriptor(i[0], at(slot.header, 16, NEXT, i[1]));
        driver.set_descriptor(i[1], at(slot.data, 512, NEXT | WRITE, i[2]));
        driver.set_descriptor(i[2], at(slot.status, 1, WRITE, 0));
    });
    queue.kick();
    let done = queue.wait(PATIENCE).expect("returned");
    assert_eq!((done.token, done.status, done.used_len), (gone, UNANSWERED, 0));
    assert!(daemon.is_alive());
}

/// QEMU does this whenever the guest masks or unmasks an interrupt vector.
#[test]
fn the_call_eventfd_changes_under_load_and_no_interrupt_is_lost() {
    let daemon = Daemon::start(&Setup { size: 2 << 20, ..Setup::default() });
    let mut shape = Shape::default();
    shape.manner.depth = 1;
    let mut front_end = FrontEnd::connect(&daemon.socket(), shape);
    for round in 0..200 {
        let queue = front_end.queue(0);
        queue.submit(RequestType::In, round % 64, Payload::None, 4096).expect("room");
        queue.kick();
        queue.renew_call();
        let call = queue.call.try_clone().expect("dup");
        front_end.vhost().set_vring_call(0, &call).expect("SET_VRING_CALL");
        // Fails if an answer is there and no interrupt came.
        let done = front_end.queue(0).wait(Duration::from_secs(3)).expect("an answer");
        assert_eq!(done.status, 0);
    }
}

#[test]
fn a_disabled_ring_takes_nothing_until_it_is_enabled() {
    let daemon = Daemon::start(&Setup { queues: 2, ..Setup::default() });
    let shape = Shape { queues: 2, ..Shape::default() };
    let mut front_end = FrontEnd::connect(&daemon.socket(), shape);
    for _ in 0..3 {
        front_end.vhost().set_vring_enable(0, false).expect("SET_VRING_ENABLE");
        front_end.queue(0).submit(RequestType::In, 0, Payload::None, 512).expect("room");
        front_end.queue(0).kick.write(1).expect("kick");
        // The other goes on meanwhile.
        for _ in 0..20 {
            let done = front_end.queue(1).run(RequestType::In, 0, Payload::None, 512);
            assert_eq!(done.status, 0);
        }
        assert!(front_end.queue(0).poll().is_none(), "a disabled ring was served");
        front_end.vhost().set_vring_enable(0, true).expect("SET_VRING_ENABLE");
        let done = front_end.queue(0).wait(PATIENCE).expect("served without another kick");
        assert_eq!(done.status, 0);
    }
}
