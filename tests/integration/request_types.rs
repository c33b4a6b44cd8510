//! Every request type and its effect on the disk, for both block sizes and
//! every manner of ring.

use vhost_mpath::virtio::blk::{
    BlkStatus, F_CONFIG_WCE, F_DISCARD, F_FLUSH, F_RO, F_WRITE_ZEROES, ID_LEN, RangeSegment,
    RequestType, SEGMENT_F_UNMAP,
};

use crate::harness::blk_queue::{BlkQueue, PATIENCE, Payload};
use crate::harness::front_end::{FrontEnd, Shape};
use crate::harness::sim_daemon::{Daemon, Setup};

const OK: u8 = BlkStatus::Ok as u8;
const IOERR: u8 = BlkStatus::IoErr as u8;
const UNSUPP: u8 = BlkStatus::Unsupp as u8;

/// Every combination of EVENT_IDX and indirect descriptors, on two queues.
fn manners() -> impl Iterator<Item = Shape> {
    [(true, true), (true, false), (false, true), (false, false)]
        .map(|(event_idx, indirect)| {
            let mut shape = Shape { queues: 2, slots: indirect, ..Shape::default() };
            shape.manner.event_idx = event_idx;
            shape.manner.indirect = indirect;
            shape
        })
        .into_iter()
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| seed.wrapping_add(u8::try_from(i % 251).expect("small"))).collect()
}

fn read(queue: &mut BlkQueue, sector: u64, len: u32) -> Vec<u8> {
    let done = queue.run(RequestType::In, sector, Payload::None, len);
    assert_eq!((done.status, done.used_len), (OK, len + 1));
    queue.data(&done)
}

fn write(queue: &mut BlkQueue, sector: u64, data: &[u8]) {
    let done = queue.run(RequestType::Out, sector, Payload::Bytes(data), 0);
    assert_eq!((done.status, done.used_len), (OK, 1));
}

fn ranges(list: &[(u64, u32, u32)]) -> Vec<u8> {
    let encode = |&(sector, num_sectors, flags): &(u64, u32, u32)| {
        RangeSegment { sector, num_sectors, flags }.encode()
    };
    list.iter().flat_map(encode).collect()
}

/// Writes on one queue, reads on the other.
fn reads_and_writes(front_end: &mut FrontEnd, block: u32) {
    let sectors = u64::from(block / 512);
    for (seed, len) in [(1, block), (2, 8 * block), (3, 65536)] {
        let at = u64::from(seed) * 256 * sectors;
        let data = pattern(len as usize, seed);
        write(front_end.queue(0), at, &data);
        assert!(read(front_end.queue(1), at, len) == data, "{len} bytes");
    }
    let zeroes = vec![0; block as usize];
    assert!(read(front_end.queue(1), 1000 * sectors, block) == zeroes, "never written");
}

fn flushes_and_says_who_it_is(front_end: &mut FrontEnd) {
    let queue = front_end.queue(0);
    let done = queue.run(RequestType::Flush, 0, Payload::None, 0);
    assert_eq!((done.status, done.used_len), (OK, 1));
    let len = u32::try_from(ID_LEN).expect("20");
    let done = queue.run(RequestType::GetId, 0, Payload::None, len);
    assert_eq!(done.status, OK);
    let id = queue.data(&done);
    assert!(id.iter().any(u8::is_ascii_alphanumeric), "{id:?}");
}

fn discards(front_end: &mut FrontEnd, block: u32) {
    let sectors = block / 512;
    let at = |n: u32| u64::from(n * sectors);
    let queue = front_end.queue(0);
    let data = pattern(64 * block as usize / 4, 9);
    write(queue, 0, &data);
    // Blocks 1, 4 and 5, and 15.
    let list = [(at(1), sectors, 0), (at(4), 2 * sectors, 0), (at(15), sectors, 0)];
    let done = queue.run(RequestType::Discard, 0, Payload::Bytes(&ranges(&list)), 0);
    assert_eq!((done.status, done.used_len), (OK, 1));
    let found = read(front_end.queue(1), 0, 16 * block);
    for n in 0..16u32 {
        let range = (n * block) as usize..((n + 1) * block) as usize;
        if [1, 4, 5, 15].contains(&n) {
            assert!(found[range].iter().all(|&b| b == 0), "block {n} is gone");
        } else {
            assert!(found[range.clone()] == data[range], "block {n} is untouched");
        }
    }
}

fn writes_zeroes(front_end: &mut FrontEnd, block: u32) {
    let sectors = block / 512;
    let queue = front_end.queue(0);
    for flags in [0, SEGMENT_F_UNMAP] {
        let data = pattern(16 * block as usize, 17);
        write(queue, 0, &data);
        let range = ranges(&[(u64::from(2 * sectors), 3 * sectors, flags)]);
        let done = queue.run(RequestType::WriteZeroes, 0, Payload::Bytes(&range), 0);
        assert_eq!((done.status, done.used_len), (OK, 1));
        let mut expected = data;
        expected[2 * block as usize..5 * block as usize].fill(0);
        assert!(read(queue, 0, 16 * block) == expected, "flags {flags}");
    }
}

fn refuses_what_is_out_of_range(front_end: &mut FrontEnd, block: u32, capacity: u64) {
    let queue = front_end.queue(0);
    let sectors = u64::from(block / 512);
    let status = |queue: &mut BlkQueue, kind, sector, len| {
        queue.run(kind, sector, Payload::None, len).status
    };
    assert_eq!(status(queue, RequestType::In, capacity, block), IOERR, "behind the end");
    assert_eq!(status(queue, RequestType::In, capacity - sectors, 2 * block), IOERR, "over it");
    assert_eq!(status(queue, RequestType::In, u64::MAX, block), IOERR, "wrapping around");
    assert_eq!(status(queue, RequestType::In, capacity - sectors, block), OK, "the last block");
    if block > 512 {
        assert_eq!(status(queue, RequestType::In, 1, block), IOERR, "between blocks");
        assert_eq!(status(queue, RequestType::In, 0, 512), IOERR, "part of a block");
    }
    let done = queue.run(RequestType::Out, capacity, Payload::AsIs(block), 0);
    assert_eq!(done.status, IOERR);
    for (sector, count, flags, expected) in [
        (capacity, 1, 0, IOERR),
        (0, u32::MAX, 0, IOERR),
        (u64::MAX, 8, 0, IOERR),
        (0, 8, 2, UNSUPP),
    ] {
        for kind in [RequestType::Discard, RequestType::WriteZeroes] {
            let range = ranges(&[(sector, count, flags)]);
            let done = queue.run(kind, 0, Payload::Bytes(&range), 0);
            assert_eq!(done.status, expected, "{kind:?} of {count} at {sector}, flags {flags}");
        }
    }
    for kind in [3, 5, 9, 16, 18, u32::MAX] {
        queue.submit_kind(kind, 0, Payload::None, block).expect("room");
        queue.kick();
        let done = queue.wait(PATIENCE).expect("an answer");
        assert_eq!(done.status, UNSUPP, "request type {kind}");
    }
}

fn every_request_type(block: u32) {
    let setup = Setup { block_size: block, queues: 2, ..Setup::default() };
    let daemon = Daemon::start(&setup);
    for shape in manners() {
        let mut front_end = FrontEnd::connect(&daemon.socket(), shape);
        let wanted = F_DISCARD | F_WRITE_ZEROES | F_FLUSH | F_CONFIG_WCE;
        assert_eq!(front_end.features & wanted, wanted);
        let capacity = u64::from_le_bytes(front_end.config(0, 8).try_into().expect("8 bytes"));
        assert_eq!(capacity, setup.size / 512);
        assert_eq!(front_end.config(20, 4), block.to_le_bytes(), "blk_size");
        reads_and_writes(&mut front_end, block);
        flushes_and_says_who_it_is(&mut front_end);
        discards(&mut front_end, block);
        writes_zeroes(&mut front_end, block);
        refuses_what_is_out_of_range(&mut front_end, block, capacity);
        // A fresh disk for the next.
        let all = ranges(&[(0, u32::try_from(capacity).expect("small"), 0)]);
        let done = front_end.queue(0).run(RequestType::Discard, 0, Payload::Bytes(&all), 0);
        assert_eq!(done.status, OK);
    }
}

#[test]
fn every_request_type_has_its_effect_on_512_byte_blocks() {
    every_request_type(512);
}

#[test]
fn every_request_type_has_its_effect_on_4096_byte_blocks() {
    every_request_type(4096);
}

#[test]
fn a_read_only_disk_is_read_and_not_written() {
    let setup = Setup::default();
    let mut daemon = Daemon::start(&setup);
    let mut front_end = FrontEnd::connect(&daemon.socket(), Shape::default());
    let data = pattern(4096, 5);
    write(front_end.queue(0), 8, &data);
    drop(front_end);
    daemon.restart_with(&["--read-only"]);
    let mut front_end = FrontEnd::connect(&daemon.socket(), Shape::default());
    assert_eq!(front_end.features & (F_RO | F_DISCARD | F_WRITE_ZEROES), F_RO);
    let queue = front_end.queue(0);
    assert_eq!(queue.run(RequestType::Out, 8, Payload::AsIs(4096), 0).status, IOERR);
    let range = ranges(&[(8, 8, 0)]);
    for kind in [RequestType::Discard, RequestType::WriteZeroes] {
        assert_eq!(queue.run(kind, 0, Payload::Bytes(&range), 0).status, UNSUPP, "{kind:?}");
    }
    assert_eq!(queue.run(RequestType::Flush, 0, Payload::None, 0).status, OK);
    assert!(read(queue, 8, 4096) == data);
}

/// More data than any command may carry, and more descriptors than a segment
/// list holds: cut up and put together again.
#[test]
fn a_request_larger_than_any_command_is_split() {
    let daemon = Daemon::start(&Setup { size: 16 << 20, ..Setup::default() });
    let mut shape = Shape::default();
    shape.manner.depth = 2;
    shape.manner.slot_bytes = 4 << 20;
    shape.manner.pieces = 60;
    let mut front_end = FrontEnd::connect(&daemon.socket(), shape);
    let data = pattern(4 << 20, 77);
    let queue = front_end.queue(0);
    write(queue, 24, &data);
    assert!(read(queue, 24, 4 << 20) == data);
}

/// CONFIG_WCE: the driver's choice is read back, and writes go on either way.
#[test]
fn the_write_cache_can_be_switched_while_running() {
    use vhost::vhost_user::VhostUserFrontend;
    use vhost::vhost_user::message::VhostUserConfigFlags;
    let daemon = Daemon::start(&Setup::default());
    let mut front_end = FrontEnd::connect(&daemon.socket(), Shape::default());
    for writeback in [0, 1, 0] {
        let flags = VhostUserConfigFlags::WRITABLE;
        front_end.vhost().set_config(32, flags, &[writeback]).expect("SET_CONFIG");
        assert_eq!(front_end.config(32, 1), [writeback]);
        let data = pattern(8192, 40 + writeback);
        write(front_end.queue(0), 8, &data);
        assert!(read(front_end.queue(0), 8, 8192) == data);
    }
}
