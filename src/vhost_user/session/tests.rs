use std::os::unix::net::UnixStream;

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserInflight, VhostUserProtocolFeatures as Protocol,
};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

use crate::vhost_user::SessionEvent;
use crate::vhost_user::rig::*;

#[test]
fn offers_what_it_can_do_and_no_bit_more() {
    let rig = Rig::new();
    let mut client = rig.connect();
    assert_eq!(client.frontend.get_features().unwrap(), FEATURES | PROTOCOL_FEATURES);
    let offered = client.frontend.get_protocol_features().unwrap();
    let expected = Protocol::MQ
        | Protocol::REPLY_ACK
        | Protocol::CONFIG
        | Protocol::INFLIGHT_SHMFD
        | Protocol::RESET_DEVICE
        | Protocol::CONFIGURE_MEM_SLOTS
        | Protocol::GET_VRING_BASE_INFLIGHT;
    assert_eq!(offered, expected);
    client.frontend.set_protocol_features(offered).unwrap();
    assert_eq!(client.frontend.get_queue_num().unwrap(), 2);
    assert_eq!(client.frontend.get_max_mem_slots().unwrap(), 509);

    let untracked = Rig::with(Device { untracked: true, ..Device::default() });
    let mut client = untracked.connect();
    client.frontend.get_features().unwrap();
    let offered = client.frontend.get_protocol_features().unwrap();
    let tracking = Protocol::INFLIGHT_SHMFD | Protocol::GET_VRING_BASE_INFLIGHT;
    assert!(!offered.intersects(tracking));
}

#[test]
fn features_that_were_not_offered_end_the_connection() {
    let rig = Rig::new();
    let client = rig.connect();
    client.frontend.get_features().unwrap();
    let _ = client.frontend.set_features(FEATURES | 1 << 40);
    assert_eq!(
        rig.disconnected(),
        "SET_FEATURES refused: feature bits 0x10000000000 were not offered"
    );
}

#[test]
fn acked_features_and_event_idx_reach_the_device() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.negotiate();
    assert!(rig.device.saw("event_idx false"));
    client.frontend.set_features(FEATURES | PROTOCOL_FEATURES).unwrap();
    assert!(rig.device.saw("event_idx true"));
    assert!(rig.device.saw(&format!("features {:#x}", FEATURES | PROTOCOL_FEATURES)));
}

#[test]
fn config_space_is_the_devices() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.negotiate();
    let (flags, frontend) = (VhostUserConfigFlags::empty(), &mut client.frontend);
    let (_, bytes) = frontend.get_config(4, 4, flags, &[0; 4]).unwrap();
    assert_eq!(bytes, [4, 5, 6, 7]);
    frontend.set_config(32, VhostUserConfigFlags::WRITABLE, &[1]).unwrap();
    assert!(rig.device.saw("config 32 [1]"));
    // Refused by the device: the front-end is told and stays.
    assert!(frontend.set_config(0, VhostUserConfigFlags::WRITABLE, &[1]).is_err());
    assert!(frontend.get_config(4, 4, flags, &[0; 4]).is_ok());
}

#[test]
fn a_ring_runs_from_kick_and_enable_to_get_vring_base() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.negotiate();
    client.share_memory();
    client.set_up(1, 0);
    assert!(rig.host.log().is_empty(), "not enabled yet");
    client.frontend.set_vring_enable(1, true).unwrap();
    client.frontend.set_vring_enable(1, false).unwrap();
    client.frontend.set_vring_enable(1, true).unwrap();
    assert_eq!(client.frontend.get_vring_base(1).unwrap(), 0);
    let log = ["start 1 at 0", "enable 1 false", "enable 1 true", "stop 1 Finish"];
    assert_eq!(rig.host.log(), log);
    // Stopped: a second time, there is nothing to stop; a new kick starts it again.
    assert_eq!(client.frontend.get_vring_base(1).unwrap(), 0);
    client.frontend.set_vring_kick(1, &client.kick).unwrap();
    assert_eq!(rig.host.log().len(), 5);
}

#[test]
fn without_protocol_features_rings_are_enabled_at_once() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.frontend.get_features().unwrap();
    client.frontend.set_owner().unwrap();
    client.frontend.set_features(FEATURES).unwrap();
    client.share_memory();
    client.set_up(0, 7);
    assert_eq!(client.frontend.get_vring_base(0).unwrap(), 7);
    assert_eq!(rig.host.log()[0], "start 0 at 7");
}

#[test]
fn requests_go_through_shared_memory_and_come_back_with_an_interrupt() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.begin();
    let posted = client.post(3);
    {
        let mut state = rig.host.state();
        let ring = state.ring(0);
        let (mut heads, mut chain) = (Vec::new(), crate::guest::ring::Chain::default());
        assert_eq!(ring.take(8, &mut heads), Ok(3));
        assert_eq!(heads, posted);
        ring.chain(heads[1], &mut chain).unwrap();
        assert_eq!((chain.readable.len(), chain.writable.len()), (1, 1));
        crate::guest::copy::copy_out(&chain.writable, 0, b"answer");
        ring.complete(&[(heads[1], 6)]);
        ring.notify();
    }
    assert_eq!(client.drivers[0].used(), Some((posted[1], 6)));
    assert!(client.call.read().is_ok());
    let mut seen = Vec::new();
    client.memory.segments(0x9000, 6, &mut seen).unwrap();
    assert_eq!(crate::guest::copy::read_array(&seen, 0), Some(*b"answer"));
}

#[test]
fn get_vring_base_suspends_only_where_that_was_negotiated() {
    for (wanted, how) in [
        (Protocol::all(), "stop 0 Suspend"),
        (Protocol::all() - Protocol::GET_VRING_BASE_INFLIGHT, "stop 0 Finish"),
    ] {
        let rig = Rig::new();
        let mut client = rig.connect();
        client.negotiate_with(wanted);
        client.share_memory();
        client.share_inflight();
        client.start(0, 0);
        client.post(2);
        rig.host.state().ring(0).take(1, &mut Vec::new()).unwrap();
        assert_eq!(client.frontend.get_vring_base(0).unwrap(), 1);
        assert_eq!(rig.host.log().last().unwrap(), how);
    }
}

/// QEMU resets its position to the used index when the back-end goes away.
#[test]
fn reconnecting_with_the_in_flight_area_resumes_exactly_what_was_left() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.begin();
    let posted = client.post(4);
    {
        let mut state = rig.host.state();
        let mut heads = Vec::new();
        state.ring(0).take(3, &mut heads).unwrap();
        state.ring(0).complete(&[(posted[1], 0)]);
    }
    client.reconnect(&rig.path);
    assert_eq!(rig.disconnected(), "closed by the front-end");
    assert_eq!(rig.host.log().last().unwrap(), "stop 0 Suspend");
    assert!(rig.host.state().rings.is_empty());

    client.reconnect(&rig.path);
    client.negotiate();
    client.share_memory();
    client.share_inflight();
    client.start(0, 1);
    assert_eq!(rig.host.log().last().unwrap(), "start 0 at 3");
    let mut state = rig.host.state();
    let ring = state.ring(0);
    let mut heads = Vec::new();
    while ring.take(8, &mut heads).unwrap() > 0 {}
    assert_eq!(heads, [posted[0], posted[2], posted[3]]);
}

/// As QEMU 10.0.13 does: it asks with its queue-size, repeats that, and lets the guest choose a longer ring.
#[test]
fn a_ring_longer_than_the_front_end_asked_for_is_tracked() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.negotiate();
    client.share_memory();
    let asked = VhostUserInflight::new(0, 0, QUEUES, SIZE / 4);
    let (mut area, file) = client.frontend.get_inflight_fd(&asked).unwrap();
    area.queue_size = asked.queue_size;
    client.inflight = Some((area, file));
    client.share_inflight();
    client.start(0, 0);
    let posted = client.post(8);
    rig.host.state().ring(0).take(8, &mut Vec::new()).unwrap();
    client.reconnect(&rig.path);
    rig.disconnected();
    client.reconnect(&rig.path);
    client.negotiate();
    client.share_memory();
    client.share_inflight();
    client.start(0, 0);
    assert_eq!(rig.host.log().last().unwrap(), "start 0 at 8");
    let mut heads = Vec::new();
    rig.host.state().ring(0).take(8, &mut heads).unwrap();
    assert_eq!(heads, posted);
}

#[test]
fn without_an_in_flight_area_nothing_more_is_written_after_a_disconnect() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.negotiate();
    client.share_memory();
    client.start(0, 0);
    drop(client);
    rig.disconnected();
    assert_eq!(rig.host.log().last().unwrap(), "stop 0 Discard");
}

/// Law 1: a late write of the old session must not meet a newer one.
#[test]
fn a_new_session_starts_no_ring_until_the_old_ones_are_back() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.begin();
    client.post(2);
    let mut taken = Vec::new();
    rig.host.state().ring(0).take(2, &mut taken).unwrap();
    rig.host.state().stuck = true;
    client.frontend = vhost::vhost_user::Frontend::from_stream(UnixStream::pair().unwrap().0, 1);
    rig.await_event(&SessionEvent::RingsHeld(1));

    client.reconnect(&rig.path);
    client.negotiate();
    client.share_memory();
    client.share_inflight();
    client.start(0, 0);
    assert_eq!(rig.host.log(), ["start 0 at 0", "stop 0 Suspend"]);
    // Its deadline passes: it is asked for again.
    rig.host.state().expire();
    while rig.host.state().waiting() == 0 {
        std::thread::yield_now();
    }
    {
        // One command has returned, and its owner publishes it still.
        let mut state = rig.host.state();
        state.ring(0).complete(&[(taken[1], 0)]);
        state.unstick();
    }
    rig.await_event(&SessionEvent::RingsReturned);
    while rig.host.state().rings.is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(rig.host.log().last().unwrap(), "start 0 at 2");
    assert_eq!(rig.host.state().ring(0).backlog(), 1);
}

#[test]
fn a_ring_that_does_not_come_back_fails_get_vring_base() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.begin();
    rig.host.state().stuck = true;
    let host = std::sync::Arc::clone(&rig.host);
    let clock = std::thread::spawn(move || {
        while host.state().waiting() == 0 {
            std::thread::yield_now();
        }
        host.state().expire();
    });
    assert!(client.frontend.get_vring_base(0).is_err());
    clock.join().unwrap();
    let reason = rig.disconnected();
    assert!(reason.contains("commands are still in the kernel"), "{reason}");
    rig.host.state().unstick();
    rig.await_event(&SessionEvent::RingsReturned);
}

#[test]
fn a_refused_request_is_answered_and_the_connection_goes_on() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.negotiate();
    client.share_memory();
    assert!(client.frontend.set_vring_num(5, SIZE).is_err());
    assert!(client.frontend.set_vring_num(0, 48).is_err());
    assert!(client.frontend.set_vring_num(0, 128).is_err());
    assert!(client.frontend.set_vring_kick(0, &client.kick).is_err(), "no addresses");
    let far = VringConfigData { desc_table_addr: 0x1000, ..client.addresses(0) };
    assert!(client.frontend.set_vring_addr(0, &far).is_err());
    let too_big = VhostUserInflight::new(0, 0, 3, SIZE);
    rig.await_event(&SessionEvent::RequestRefused {
        request: "SET_VRING_NUM".into(),
        reason: "there is no ring 5".into(),
    });
    client.start(0, 0);
    // Running: not to be changed under the queue thread.
    assert!(client.frontend.set_vring_num(0, SIZE).is_err());
    assert!(client.frontend.set_vring_base(0, 3).is_err());
    assert!(client.frontend.set_vring_kick(0, &client.kick).is_err());
    let same = client.addresses(0);
    assert!(client.frontend.set_vring_addr(0, &same).is_ok());
    assert_eq!(client.frontend.get_vring_base(0).unwrap(), 0);
    // A request with a reply of its own cannot fail but by the connection.
    assert!(client.frontend.get_inflight_fd(&too_big).is_err());
    assert!(rig.disconnected().starts_with("GET_INFLIGHT_FD refused: there is no ring 2"));
}

#[test]
fn a_refused_request_that_wants_no_answer_ends_the_connection() {
    let rig = Rig::new();
    let client = rig.connect();
    client.frontend.set_vring_num(5, SIZE).unwrap();
    assert_eq!(rig.disconnected(), "SET_VRING_NUM refused: there is no ring 5");
}

#[test]
fn unshared_guest_memory_says_what_to_add_to_the_command_line() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.negotiate();
    client.frontend.set_vring_num(0, SIZE).unwrap();
    let addresses = client.addresses(0);
    assert!(client.frontend.set_vring_addr(0, &addresses).is_err());
    let reason = loop {
        if let SessionEvent::RequestRefused { reason, .. } = rig.event() {
            break reason;
        }
    };
    assert!(reason.contains("share=on -machine memory-backend=mem"), "{reason}");
    assert!(reason.contains("<access mode='shared'/>"), "{reason}");
}

#[test]
fn memory_slots_change_under_running_rings() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.negotiate();
    client.frontend.add_mem_region(&client.region()).unwrap();
    client.start(0, 0);
    let plugged = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0x10_0000,
        userspace_addr: USER + 0x10_0000,
        ..client.region()
    };
    client.frontend.add_mem_region(&plugged).unwrap();
    assert!(client.frontend.add_mem_region(&plugged).is_err(), "there already");
    client.frontend.remove_mem_region(&plugged).unwrap();
    assert!(client.frontend.remove_mem_region(&plugged).is_err(), "gone already");
    assert_eq!(rig.host.log(), ["start 0 at 0", "memory 2", "memory 1"]);
    assert!(rig.device.saw("memory 2"));
}

#[test]
fn a_region_beyond_its_file_is_refused() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.negotiate();
    let beyond = VhostUserMemoryRegionInfo { mmap_offset: 0x1000, ..client.region() };
    assert!(client.frontend.add_mem_region(&beyond).is_err());
    assert!(client.frontend.set_mem_table(&[beyond]).is_err());
}

/// QEMU does this whenever the guest masks or unmasks an MSI-X vector.
#[test]
fn the_call_fd_of_a_running_ring_is_replaced() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.begin();
    let other = event();
    client.frontend.set_vring_call(0, &other).unwrap();
    assert!(rig.host.log().ends_with(&["call 0".into()]));
    assert!(other.read().is_ok(), "an interrupt may have been lost before");
}

#[test]
fn reset_device_stops_rings_and_forgets_positions() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.begin();
    client.post(2);
    rig.host.state().ring(0).take(2, &mut Vec::new()).unwrap();
    client.frontend.reset_device().unwrap();
    assert_eq!(rig.host.log().last().unwrap(), "stop 0 Discard");
    assert!(rig.device.saw("reset"));
    assert_eq!(client.frontend.get_vring_base(0).unwrap(), 0);
}

#[test]
fn shutting_down_leaves_requests_marked_and_does_not_wait_for_the_front_end() {
    let mut rig = Rig::new();
    let mut client = rig.connect();
    client.begin();
    client.post(1);
    rig.host.state().ring(0).take(1, &mut Vec::new()).unwrap();
    assert_eq!(rig.handle.take().unwrap().join(), 0);
    assert_eq!(rig.disconnected(), "shutting down");
    assert_eq!(rig.host.log().last().unwrap(), "stop 0 Suspend");
    assert!(!rig.path.exists());
}
