//! The same device and front, served by the stock `VhostUserDaemon`: a second
//! opinion on negotiation, configuration, memory and requests, from an
//! implementation of protocol and ring that is not ours.

use std::sync::Arc;

use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, Listener, VhostUserFrontend};
use vhost::{VhostBackend, VringConfigData};
use vhost_mpath::io::{Blocks, Extent, Geometry, Identity, Lba, Limits, Op};
use vhost_mpath::vhost_blk::{BlkDevice, BlkSettings};
use vhost_mpath::virtio::blk::{RangeSegment, RequestHeader, RequestType};
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{GuestAddress, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::tempdir::TempDir;

use crate::harness::driver_ring::{Buffer, DriverRing};
use crate::harness::guest_memory::{memory_table, shared_memory};
use crate::harness::memory_disk::MemoryDisk;

const BLOCKS: u64 = 256;
const QUEUES: u16 = 2;
const RING_SIZE: u16 = 128;

const REGION: usize = 1 << 20;
/// Where the rings begin, one every 64 KiB.
const RINGS: u64 = 0;
const HEADER: u64 = 0x8_0000;
const RANGES: u64 = 0x8_1000;
const STATUS: u64 = 0x8_2000;
/// Data buffers begin just below the end of the first region and run into the
/// second.
const DATA: u64 = REGION as u64 - 4096;

fn settings(block_size: u32) -> BlkSettings {
    BlkSettings {
        identity: Identity {
            wwid: "36001405aaaaaaaaaaaaaaaaaaaaaaaaa".into(),
            capacity: Blocks(BLOCKS),
            block_size,
        },
        geometry: Geometry {
            physical_block_exp: 0,
            alignment_offset: 0,
            min_io: 0,
            opt_io: 0,
            unmap: true,
            unmap_reads_zero: true,
            read_only: false,
            serial: "STOCK-1".into(),
            vendor: String::new(),
            product: String::new(),
            revision: String::new(),
        },
        limits: Limits {
            max_transfer: Blocks(128),
            max_segments: 128,
            max_unmap: Blocks(64),
            max_unmap_descriptors: 8,
            unmap_granularity: Blocks(1),
            unmap_alignment: Lba(0),
            max_write_same: Blocks(64),
            fua: true,
        },
        num_queues: QUEUES,
        max_queue_size: 1024,
        read_only: false,
        serial: None,
    }
}

/// A stock daemon with one connection, and our end of it.
struct Served {
    disk: MemoryDisk,
    front_end: Frontend,
    daemon: VhostUserDaemon<Arc<BlkDevice>>,
    _dir: TempDir,
}

fn serve(block_size: u32) -> Served {
    let disk = MemoryDisk::new(BLOCKS, block_size);
    let device = BlkDevice::with_executor(&settings(block_size), Box::new(disk.clone()));
    let device = Arc::new(device.expect("valid settings"));
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("stock".into(), device, memory).expect("daemon");

    let dir = TempDir::new().expect("temporary directory");
    let socket = dir.as_path().join("blk.sock");
    let mut listener = Listener::new(&socket, true).expect("listen");
    let front_end = Frontend::connect(&socket, u64::from(QUEUES)).expect("connect");
    daemon.start(&mut listener).expect("accept");
    Served { disk, front_end, daemon, _dir: dir }
}

impl Served {
    /// Takes every feature that is offered; every request is acknowledged
    /// from then on.
    fn negotiate(&mut self) {
        self.front_end.set_owner().expect("SET_OWNER");
        let features = self.front_end.get_features().expect("GET_FEATURES");
        let protocol = self.front_end.get_protocol_features().expect("GET_PROTOCOL_FEATURES");
        self.front_end.set_protocol_features(protocol).expect("SET_PROTOCOL_FEATURES");
        self.front_end.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        self.front_end.set_features(features).expect("SET_FEATURES");
    }

    /// Shares memory, one region by the table and one by slot, and starts the
    /// rings.
    fn start(&mut self) -> Vec<DriverRing> {
        let memory = shared_memory(&[REGION, REGION]);
        let table = memory_table(&memory);
        self.front_end.set_mem_table(&table[..1]).expect("SET_MEM_TABLE");
        self.front_end.add_mem_region(&table[1]).expect("ADD_MEM_REG");
        let mut rings = Vec::new();
        for queue in 0..usize::from(QUEUES) {
            let ring = DriverRing::new(&memory, RINGS + queue as u64 * 0x1_0000, RING_SIZE);
            let address = |guest: u64| {
                memory.get_host_address(GuestAddress(guest)).expect("mapped").addr() as u64
            };
            let config = VringConfigData {
                queue_max_size: RING_SIZE,
                queue_size: RING_SIZE,
                flags: 0,
                desc_table_addr: address(ring.descriptors),
                used_ring_addr: address(ring.used),
                avail_ring_addr: address(ring.available),
                log_addr: None,
            };
            self.front_end.set_vring_num(queue, RING_SIZE).expect("SET_VRING_NUM");
            self.front_end.set_vring_addr(queue, &config).expect("SET_VRING_ADDR");
            self.front_end.set_vring_base(queue, 0).expect("SET_VRING_BASE");
            self.front_end.set_vring_call(queue, &ring.call).expect("SET_VRING_CALL");
            self.front_end.set_vring_kick(queue, &ring.kick).expect("SET_VRING_KICK");
            self.front_end.set_vring_enable(queue, true).expect("SET_VRING_ENABLE");
            rings.push(ring);
        }
        rings
    }

    fn config(&mut self, offset: u32, size: u32) -> Vec<u8> {
        let blank = vec![0; size as usize];
        let flags = VhostUserConfigFlags::empty();
        self.front_end.get_config(offset, size, flags, &blank).expect("GET_CONFIG").1
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.daemon.request_shutdown();
    }
}

/// Sends one request; returns status byte and used length.
fn request(
    ring: &mut DriverRing,
    kind: u32,
    sector: u64,
    buffers: &[Buffer],
    indirect: bool,
) -> (u8, u32) {
    ring.write(HEADER, &RequestHeader { kind, sector }.encode());
    ring.write(STATUS, &[0xee]);
    let mut chain = vec![(HEADER, 16, false)];
    chain.extend(buffers);
    chain.push((STATUS, 1, true));
    let used = ring.submit(&chain, indirect);
    let mut status = [0];
    ring.read(STATUS, &mut status);
    (status[0], used)
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| seed ^ u8::try_from(i % 251).unwrap()).collect()
}

#[test]
fn negotiation_and_config_pass_the_stock_daemon() {
    let mut served = serve(4096);
    served.negotiate();
    let protocol = served.front_end.get_protocol_features().expect("GET_PROTOCOL_FEATURES");
    // What qemu-img and qemu-storage-daemon insist on.
    assert!(protocol.contains(
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    ));
    assert_eq!(served.front_end.get_queue_num().expect("GET_QUEUE_NUM"), u64::from(QUEUES));

    assert_eq!(served.config(0, 8), (BLOCKS * 8).to_le_bytes(), "capacity in sectors");
    assert_eq!(served.config(20, 4), 4096_u32.to_le_bytes(), "block size");
    // QEMU's struct is longer than ours; both ends must agree on the length.
    assert_eq!(served.config(0, 96)[60..], [0; 36]);

    assert_eq!(served.config(32, 1), [1]);
    let flags = VhostUserConfigFlags::WRITABLE;
    served.front_end.set_config(32, flags, &[0]).expect("SET_CONFIG of writeback");
    assert_eq!(served.config(32, 1), [0]);
}

#[test]
fn requests_pass_over_a_real_ring() {
    for (block_size, indirect) in [(512, false), (4096, true)] {
        let mut served = serve(block_size);
        served.negotiate();
        let mut rings = served.start();
        let len = 8192_u32;
        let blocks = u64::from(len / block_size);
        let per_block = u64::from(block_size / 512);
        let (out, read_in) = (RequestType::Out.to_wire(), RequestType::In.to_wire());

        // Write from a buffer that straddles the two memory regions.
        let data = pattern(len as usize, 0x35);
        rings[0].write(DATA, &data);
        let sector = 10 * per_block;
        let done = request(&mut rings[0], out, sector, &[(DATA, len, false)], indirect);
        assert_eq!(done, (0, 1));
        let start = 10 * block_size as usize;
        assert_eq!(served.disk.bytes.lock().unwrap()[start..start + data.len()], data);

        // Read it back on the other queue, into two buffers.
        rings[1].write(DATA, &vec![0; len as usize]);
        let halves = [(DATA, 5000, true), (DATA + 5000, len - 5000, true)];
        let done = request(&mut rings[1], read_in, sector, &halves, indirect);
        assert_eq!(done, (0, len + 1));
        let mut back = vec![0; len as usize];
        rings[1].read(DATA, &mut back);
        assert_eq!(back, data);

        let done = request(&mut rings[0], RequestType::Flush.to_wire(), 0, &[], indirect);
        assert_eq!(done, (0, 1));
        let id = [(DATA, 20, true)];
        let done = request(&mut rings[0], RequestType::GetId.to_wire(), 0, &id, indirect);
        assert_eq!(done, (0, 21));
        let mut id = [0; 20];
        rings[0].read(DATA, &mut id);
        assert_eq!(&id, b"STOCK-1\0\0\0\0\0\0\0\0\0\0\0\0\0");

        let write = Op::Write { extent: Extent::new(10, blocks), fua: false };
        let read = Op::Read(Extent::new(10, blocks));
        assert_eq!(*served.disk.seen.lock().unwrap(), [write, read, Op::Flush]);
    }
}

#[test]
fn ranges_and_refusals_pass_over_a_real_ring() {
    let mut served = serve(512);
    served.negotiate();
    let mut rings = served.start();
    let ring = &mut rings[0];
    let ranges = [
        RangeSegment { sector: 2, num_sectors: 3, flags: 0 },
        RangeSegment { sector: 100, num_sectors: 1, flags: 0 },
    ];
    ring.write(RANGES, &[ranges[0].encode(), ranges[1].encode()].concat());
    let (discard, zero) = (RequestType::Discard.to_wire(), RequestType::WriteZeroes.to_wire());
    assert_eq!(request(ring, discard, 0, &[(RANGES, 32, false)], false), (0, 1));
    let zeroed = |block: usize| served.disk.bytes.lock().unwrap()[block * 512] == 0;
    assert_eq!(
        [1, 2, 4, 5, 99, 100, 101].map(zeroed),
        [false, true, true, false, false, true, false]
    );
    assert_eq!(request(ring, zero, 0, &[(RANGES, 32, false)], false), (1, 1), "two ranges");
    assert_eq!(request(ring, zero, 0, &[(RANGES + 16, 16, false)], false), (0, 1));
    assert_eq!(request(ring, 14, 0, &[], false), (2, 1), "secure erase");
    assert_eq!(request(ring, 0, BLOCKS, &[(DATA, 512, true)], false), (1, 1), "beyond the end");
    // A buffer outside guest memory: returned untouched, and the ring goes on.
    assert_eq!(request(ring, 0, 0, &[(1 << 40, 512, true)], false), (0xee, 0));
    assert_eq!(request(ring, 0, 0, &[(DATA, 512, true)], false), (0, 513));
}

/// Law 9: the guest turns its cache off, and the next write is durable.
#[test]
fn write_through_chosen_by_the_guest_reaches_the_request() {
    let mut served = serve(512);
    served.negotiate();
    let mut rings = served.start();
    let write = |ring: &mut DriverRing| {
        request(ring, RequestType::Out.to_wire(), 0, &[(DATA, 512, false)], false)
    };
    assert_eq!(write(&mut rings[0]), (0, 1));
    let flags = VhostUserConfigFlags::WRITABLE;
    served.front_end.set_config(32, flags, &[0]).expect("SET_CONFIG of writeback");
    assert_eq!(write(&mut rings[0]), (0, 1));
    let extent = Extent::new(0, 1);
    assert_eq!(
        *served.disk.seen.lock().unwrap(),
        [Op::Write { extent, fua: false }, Op::Write { extent, fua: true },]
    );
}

/// Law 7: a nonsensical available index stops nothing but its ring.
#[test]
fn broken_ring_harms_no_other_ring() {
    let mut served = serve(512);
    served.negotiate();
    let mut rings = served.start();
    rings[0].publish(RING_SIZE * 3);
    rings[0].kick.write(1).expect("kick");
    let read_in = RequestType::In.to_wire();
    assert_eq!(request(&mut rings[1], read_in, 0, &[(DATA, 512, true)], false), (0, 513));
    assert_eq!(served.front_end.get_vring_base(1).expect("GET_VRING_BASE"), 1);
}
