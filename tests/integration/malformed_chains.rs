//! Malformed chains: every shape a hostile driver can build. Each is answered
//! (or its ring stopped), and neighbours on the same and other rings go on.

use vhost_mpath::guest::driver::{Descriptor, Driver, INDIRECT, NEXT, WRITE};
use vhost_mpath::virtio::blk::{BlkStatus, RangeSegment, RequestHeader, RequestType};

use crate::harness::blk_queue::{BlkQueue, Done, PATIENCE, Payload};
use crate::harness::front_end::{FrontEnd, Shape};
use crate::harness::guest;
use crate::harness::sim_daemon::{Daemon, Setup};
use crate::harness::slot_queue::{RawSlot, UNANSWERED};

const OK: u8 = BlkStatus::Ok as u8;
const IOERR: u8 = BlkStatus::IoErr as u8;
const UNSUPP: u8 = BlkStatus::Unsupp as u8;

/// What must become of a chain.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Returned with this status byte.
    Status(u8),
    /// Returned with nothing written: there was no place for a status.
    Unread,
}

struct Shot {
    name: &'static str,
    descriptors: usize,
    fill: fn(&Driver, &RawSlot, &[u16]),
    fate: Fate,
}

fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor { addr, len, flags, next }
}

/// A request header in the slot.
fn header(driver: &Driver, slot: &RawSlot, kind: u32, sector: u64) {
    guest::write(driver.memory(), slot.header, &RequestHeader { kind, sector }.encode());
}

/// Writes descriptors of the ring's table, linked in order.
fn chain(driver: &Driver, indexes: &[u16], buffers: &[(u64, u32, u16)]) {
    for (i, &(addr, len, flags)) in buffers.iter().enumerate() {
        let next = indexes.get(i + 1).copied().unwrap_or(0);
        let more = if i + 1 < buffers.len() { NEXT } else { 0 };
        driver.set_descriptor(indexes[i], descriptor(addr, len, flags | more, next));
    }
}

/// Writes an indirect table, linked in order.
fn table(driver: &Driver, at: u64, buffers: &[(u64, u32, u16)]) {
    for (i, &(addr, len, flags)) in buffers.iter().enumerate() {
        let next = u16::try_from(i + 1).expect("short");
        let more = if i + 1 < buffers.len() { NEXT } else { 0 };
        driver.write_table(at, i, descriptor(addr, len, flags | more, next));
    }
}

const NOWHERE: u64 = 0xdead_0000_0000;
const IN: u32 = 0;
const OUT: u32 = 1;

const SHOTS: &[Shot] = &[
    Shot {
        name: "one readable descriptor, no status byte",
        descriptors: 1,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            chain(d, i, &[(s.header, 16, 0)]);
        },
        fate: Fate::Unread,
    },
    Shot {
        name: "only a status byte",
        descriptors: 1,
        fill: |d, s, i| chain(d, i, &[(s.status, 1, WRITE)]),
        fate: Fate::Status(IOERR),
    },
    Shot {
        name: "half a header",
        descriptors: 2,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            chain(d, i, &[(s.header, 8, 0), (s.status, 1, WRITE)]);
        },
        fate: Fate::Status(IOERR),
    },
    Shot {
        name: "a header in sixteen descriptors is no error",
        descriptors: 18,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            let mut buffers: Vec<_> = (0..16).map(|b| (s.header + b, 1, 0)).collect();
            buffers.extend([(s.data, 512, WRITE), (s.status, 1, WRITE)]);
            chain(d, i, &buffers);
        },
        fate: Fate::Status(OK),
    },
    Shot {
        name: "writable before readable",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            chain(d, i, &[(s.data, 512, WRITE), (s.header, 16, 0), (s.status, 1, WRITE)]);
        },
        fate: Fate::Unread,
    },
    Shot {
        name: "data in no region",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            chain(d, i, &[(s.header, 16, 0), (NOWHERE, 512, WRITE), (s.status, 1, WRITE)]);
        },
        fate: Fate::Unread,
    },
    Shot {
        name: "the end of data behind the end of memory",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            chain(d, i, &[(s.header, 16, 0), (s.data, 0x7fff_fe00, WRITE), (s.status, 1, WRITE)]);
        },
        fate: Fate::Unread,
    },
    Shot {
        name: "an address that wraps around",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            chain(d, i, &[(s.header, 16, 0), (u64::MAX - 255, 512, WRITE), (s.status, 1, WRITE)]);
        },
        fate: Fate::Unread,
    },
    Shot {
        name: "header in no region",
        descriptors: 2,
        fill: |d, s, i| chain(d, i, &[(NOWHERE, 16, 0), (s.status, 1, WRITE)]),
        fate: Fate::Unread,
    },
    Shot {
        name: "a chain of one that is its own next",
        descriptors: 1,
        fill: |d, s, i| d.set_descriptor(i[0], descriptor(s.header, 16, NEXT, i[0])),
        fate: Fate::Unread,
    },
    Shot {
        name: "a chain that runs in a circle",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            d.set_descriptor(i[0], descriptor(s.header, 16, NEXT, i[1]));
            d.set_descriptor(i[1], descriptor(s.header, 16, NEXT, i[2]));
            d.set_descriptor(i[2], descriptor(s.header, 16, NEXT, i[0]));
        },
        fate: Fate::Unread,
    },
    Shot {
        name: "next beyond the table",
        descriptors: 1,
        fill: |d, s, i| d.set_descriptor(i[0], descriptor(s.header, 16, NEXT, u16::MAX)),
        fate: Fate::Unread,
    },
    Shot {
        name: "an empty descriptor",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            chain(d, i, &[(s.header, 16, 0), (s.data, 0, WRITE), (s.status, 1, WRITE)]);
        },
        fate: Fate::Unread,
    },
    Shot {
        name: "an indirect table that is no multiple of sixteen",
        descriptors: 1,
        fill: |d, s, i| d.set_descriptor(i[0], descriptor(s.table, 24, INDIRECT, 0)),
        fate: Fate::Unread,
    },
    Shot {
        name: "an empty indirect table",
        descriptors: 1,
        fill: |d, s, i| d.set_descriptor(i[0], descriptor(s.table, 0, INDIRECT, 0)),
        fate: Fate::Unread,
    },
    Shot {
        name: "an indirect table in no region",
        descriptors: 1,
        fill: |d, _, i| d.set_descriptor(i[0], descriptor(NOWHERE, 48, INDIRECT, 0)),
        fate: Fate::Unread,
    },
    Shot {
        name: "an indirect table larger than any",
        descriptors: 1,
        fill: |d, s, i| d.set_descriptor(i[0], descriptor(s.table, 0xffff_fff0, INDIRECT, 0)),
        fate: Fate::Unread,
    },
    Shot {
        name: "an indirect table in an indirect table",
        descriptors: 1,
        fill: |d, s, i| {
            table(d, s.table, &[(s.table, 48, INDIRECT)]);
            d.set_descriptor(i[0], descriptor(s.table, 48, INDIRECT, 0));
        },
        fate: Fate::Unread,
    },
    Shot {
        name: "an indirect descriptor with a next",
        descriptors: 2,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            table(d, s.table, &[(s.header, 16, 0), (s.data, 512, WRITE), (s.status, 1, WRITE)]);
            d.set_descriptor(i[0], descriptor(s.table, 48, INDIRECT | NEXT, i[1]));
        },
        fate: Fate::Unread,
    },
    Shot {
        name: "a circle in an indirect table",
        descriptors: 1,
        fill: |d, s, i| {
            d.write_table(s.table, 0, descriptor(s.header, 16, NEXT, 1));
            d.write_table(s.table, 1, descriptor(s.header, 16, NEXT, 0));
            d.set_descriptor(i[0], descriptor(s.table, 32, INDIRECT, 0));
        },
        fate: Fate::Unread,
    },
    Shot {
        name: "next beyond an indirect table",
        descriptors: 1,
        fill: |d, s, i| {
            d.write_table(s.table, 0, descriptor(s.header, 16, NEXT, 9));
            d.set_descriptor(i[0], descriptor(s.table, 32, INDIRECT, 0));
        },
        fate: Fate::Unread,
    },
    Shot {
        name: "a read of no data",
        descriptors: 2,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            chain(d, i, &[(s.header, 16, 0), (s.status, 1, WRITE)]);
        },
        fate: Fate::Status(IOERR),
    },
    Shot {
        name: "a read of half a sector",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            chain(d, i, &[(s.header, 16, 0), (s.data, 256, WRITE), (s.status, 1, WRITE)]);
        },
        fate: Fate::Status(IOERR),
    },
    Shot {
        name: "a write of half a sector",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, OUT, 0);
            chain(d, i, &[(s.header, 16, 0), (s.data, 256, 0), (s.status, 1, WRITE)]);
        },
        fate: Fate::Status(IOERR),
    },
    Shot {
        name: "a read into readable data",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            chain(d, i, &[(s.header, 16, 0), (s.data, 512, 0), (s.status, 1, WRITE)]);
        },
        fate: Fate::Status(IOERR),
    },
    Shot {
        name: "a write from writable data",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, OUT, 0);
            chain(d, i, &[(s.header, 16, 0), (s.data, 512, WRITE), (s.status, 1, WRITE)]);
        },
        fate: Fate::Status(IOERR),
    },
    Shot {
        name: "a status byte at the end of a longer descriptor is no error",
        descriptors: 2,
        fill: |d, s, i| {
            header(d, s, 8, 0); // GET_ID: 15 bytes and the status
            guest::write(d.memory(), s.status - 15, &[0; 15]);
            chain(d, i, &[(s.header, 16, 0), (s.status - 15, 16, WRITE)]);
        },
        fate: Fate::Status(OK),
    },
    Shot {
        name: "discard of half a range",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, RequestType::Discard.to_wire(), 0);
            chain(d, i, &[(s.header, 16, 0), (s.data, 8, 0), (s.status, 1, WRITE)]);
        },
        fate: Fate::Status(IOERR),
    },
    Shot {
        name: "discard of nothing",
        descriptors: 2,
        fill: |d, s, i| {
            header(d, s, RequestType::Discard.to_wire(), 0);
            chain(d, i, &[(s.header, 16, 0), (s.status, 1, WRITE)]);
        },
        fate: Fate::Status(IOERR),
    },
    Shot {
        name: "discard of more ranges than are allowed",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, RequestType::Discard.to_wire(), 0);
            let one = RangeSegment { sector: 0, num_sectors: 1, flags: 0 }.encode();
            guest::write(d.memory(), s.data, &one.repeat(257));
            chain(d, i, &[(s.header, 16, 0), (s.data, 257 * 16, 0), (s.status, 1, WRITE)]);
        },
        fate: Fate::Status(IOERR),
    },
    Shot {
        name: "zeroes of two ranges where one is allowed",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, RequestType::WriteZeroes.to_wire(), 0);
            let one = RangeSegment { sector: 0, num_sectors: 1, flags: 0 }.encode();
            guest::write(d.memory(), s.data, &one.repeat(2));
            chain(d, i, &[(s.header, 16, 0), (s.data, 32, 0), (s.status, 1, WRITE)]);
        },
        fate: Fate::Status(IOERR),
    },
    Shot {
        name: "a request type nobody knows",
        descriptors: 3,
        fill: |d, s, i| {
            header(d, s, 0x8000_0001, 0);
            chain(d, i, &[(s.header, 16, 0), (s.data, 512, WRITE), (s.status, 1, WRITE)]);
        },
        fate: Fate::Status(UNSUPP),
    },
];

fn check(shot: &Shot, done: &Done) {
    match shot.fate {
        Fate::Status(status) => assert_eq!(done.status, status, "{}", shot.name),
        Fate::Unread => {
            assert_eq!((done.status, done.used_len), (UNANSWERED, 0), "{}", shot.name);
        }
    }
}

fn shoot(queue: &mut BlkQueue, shot: &Shot) {
    // A good one before and behind, in the same batch.
    queue.submit(RequestType::In, 8, Payload::None, 4096).expect("room");
    let bad = queue.submit_raw(shot.descriptors, shot.fill);
    queue.submit(RequestType::In, 16, Payload::None, 4096).expect("room");
    queue.kick();
    for done in queue.drain(PATIENCE) {
        if done.token == bad {
            check(shot, &done);
        } else {
            assert_eq!(done.status, OK, "neighbour of: {}", shot.name);
        }
    }
}

#[test]
fn malformed_chains_are_answered_and_their_neighbours_served() {
    let mut daemon = Daemon::start(&Setup { queues: 2, ..Setup::default() });
    for event_idx in [true, false] {
        let mut shape = Shape { queues: 2, ..Shape::default() };
        shape.manner.event_idx = event_idx;
        let mut front_end = FrontEnd::connect(&daemon.socket(), shape);
        for shot in SHOTS {
            shoot(front_end.queue(0), shot);
            let other = front_end.queue(1).run(RequestType::In, 0, Payload::None, 512);
            assert_eq!(other.status, OK, "other ring after: {}", shot.name);
        }
        assert!(!front_end.ring_failed(0), "no single chain breaks a ring");
    }
    assert!(daemon.is_alive());
}

/// Without INDIRECT_DESC negotiated the flag is one of the malformations.
#[test]
fn an_indirect_descriptor_that_was_not_negotiated_is_refused() {
    let daemon = Daemon::start(&Setup::default());
    let mut front_end = FrontEnd::connect(&daemon.socket(), Shape::default().plain());
    let shot = Shot {
        name: "indirect without INDIRECT_DESC",
        descriptors: 1,
        fill: |d, s, i| {
            header(d, s, IN, 0);
            table(d, s.table, &[(s.header, 16, 0), (s.data, 512, WRITE), (s.status, 1, WRITE)]);
            d.set_descriptor(i[0], descriptor(s.table, 48, INDIRECT, 0));
        },
        fate: Fate::Unread,
    };
    shoot(front_end.queue(0), &shot);
}

/// A ring that makes no sense is stopped, with its error eventfd told; the
/// others go on, and after a reset of the device so does this one.
fn broken_ring(what: &str, break_it: impl Fn(&mut BlkQueue)) {
    let mut daemon = Daemon::start(&Setup { queues: 2, ..Setup::default() });
    let shape = Shape { queues: 2, ..Shape::default() };
    let mut front_end = FrontEnd::connect(&daemon.socket(), shape);
    assert_eq!(front_end.queue(0).run(RequestType::In, 0, Payload::None, 512).status, OK);
    break_it(front_end.queue(0));
    front_end.queue(0).kick.write(1).expect("kick");
    let told = (0..2000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        front_end.ring_failed(0)
    });
    assert!(told, "{what}: the error eventfd");
    assert_eq!(front_end.queue(1).run(RequestType::In, 0, Payload::None, 512).status, OK);
    front_end.reboot();
    for index in 0..2 {
        let done = front_end.queue(index).run(RequestType::In, 0, Payload::None, 512);
        assert_eq!(done.status, OK, "{what}: ring {index} after a reset");
    }
    assert!(daemon.is_alive());
}

#[test]
fn an_available_index_too_far_ahead_stops_that_ring_only() {
    broken_ring("available index", |queue| {
        let ahead = queue.driver.avail_idx().wrapping_add(1000);
        queue.driver.set_avail_idx(ahead);
    });
}

#[test]
fn a_head_that_is_no_descriptor_stops_that_ring_only() {
    broken_ring("head", |queue| {
        queue.driver.offer(u16::MAX);
        queue.driver.publish();
    });
}

/// The same head twice, while the first is still with a path.
#[test]
fn a_head_made_available_twice_stops_that_ring_only() {
    let mut daemon = Daemon::start(&Setup { queues: 2, ..Setup::default() });
    let shape = Shape { queues: 2, ..Shape::default() };
    let mut front_end = FrontEnd::connect(&daemon.socket(), shape);
    daemon.delay(0, 300);
    let queue = front_end.queue(0);
    let first = queue.submit_raw(3, |d, s, i| {
        header(d, s, IN, 0);
        chain(d, i, &[(s.header, 16, 0), (s.data, 512, WRITE), (s.status, 1, WRITE)]);
        // Whatever its number, it is in the available ring's first slot.
        guest::write(d.memory(), d.config().avail + 4 + 2, &i[0].to_le_bytes());
    });
    let beyond = queue.driver.avail_idx().wrapping_add(1);
    queue.driver.set_avail_idx(beyond);
    queue.kick.write(1).expect("kick");
    let done = queue.wait(PATIENCE).expect("the first one is answered");
    assert_eq!((done.token, done.status), (first, OK));
    assert!(front_end.ring_failed(0), "the error eventfd");
    assert_eq!(front_end.queue(1).run(RequestType::In, 0, Payload::None, 512).status, OK);
    assert!(daemon.is_alive());
}
