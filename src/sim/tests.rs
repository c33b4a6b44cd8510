use super::*;
use crate::io::Extent;
use crate::scsi::cdb::Cdb;
use crate::scsi::sense::{Key, Sense, SenseCode};
use crate::scsi::status::Status;

mod access;
mod attentions;
mod commands;
mod controllers;
mod device;
mod faults;
mod generators;
mod hostile;
mod lu_faults;
mod modes;
mod moves;
mod owner;
mod reservation_access;
mod reservation_faults;
mod reservations;
mod shadow;
mod table;

const BLOCK: usize = 512;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn code(key: u8, asc: u8, ascq: u8) -> SenseCode {
    SenseCode::new(Key::from_bits(key), asc, ascq)
}

/// A small thick-or-thin LU whose limits are easy to exceed.
fn small() -> LuConfig {
    LuConfig {
        blocks: 64,
        max_transfer_blocks: 16,
        max_unmap_blocks: 32,
        max_unmap_descriptors: 4,
        max_write_same_blocks: 32,
        max_compare_and_write_blocks: 4,
        ..LuConfig::default()
    }
}

/// A CDB of raw bytes, filled up with zeroes to the length of its group.
fn raw(bytes: &[u8]) -> Cdb {
    let mut cdb = [0; 16];
    cdb[..bytes.len()].copy_from_slice(bytes);
    let len = [6, 10, 10, 10, 16, 12, 10, 10][usize::from(bytes[0] >> 5)];
    Cdb::from_bytes(&cdb[..len]).unwrap()
}

/// An array with two paths, and the time.
struct Rig {
    array: Array,
    now: Time,
    a: NexusId,
    b: NexusId,
    tags: u64,
}

impl Rig {
    fn new(config: LuConfig) -> Rig {
        let len = config.blocks * u64::from(config.block_size);
        Rig::on(config, Box::new(MemoryMedium::new(len)))
    }

    fn on(config: LuConfig, medium: Box<dyn Medium>) -> Rig {
        let mut array = Array::new(config, medium);
        let (a, b) = (array.add_nexus("a"), array.add_nexus("b"));
        Rig { array, now: Time(1000), a, b, tags: 0 }
    }

    fn submit(&mut self, nexus: NexusId, cdb: Cdb, data_out: &[u8], data_in_max: usize) -> u64 {
        self.tags += 1;
        let task = Task {
            nexus,
            tag: self.tags,
            cdb,
            data_out: data_out.to_vec(),
            data_in_max,
            timeout: ms(1000),
        };
        self.array.submit(self.now, task);
        self.tags
    }

    fn poll(&mut self) -> Vec<Done> {
        let mut done = Vec::new();
        self.array.poll(self.now, &mut done);
        done
    }

    fn after(&mut self, wait: Duration) -> Vec<Done> {
        self.now = self.now + wait;
        self.poll()
    }

    /// Runs one command to its end over path `nexus`.
    fn run_on(&mut self, nexus: NexusId, cdb: Cdb, data_out: &[u8], data_in_max: usize) -> Done {
        let tag = self.submit(nexus, cdb, data_out, data_in_max);
        let mut done = self.poll();
        assert_eq!(done.len(), 1, "one task, one end");
        let done = done.remove(0);
        assert_eq!((done.nexus, done.tag), (nexus, tag));
        done
    }

    fn run(&mut self, cdb: Cdb, data_out: &[u8], data_in_max: usize) -> Done {
        self.run_on(self.a, cdb, data_out, data_in_max)
    }

    fn inject(&mut self, fault: Fault) {
        self.array.try_inject(self.now, self.a, fault).unwrap();
    }

    fn tur(&mut self) -> Done {
        self.tur_on(self.a)
    }

    fn tur_on(&mut self, nexus: NexusId) -> Done {
        self.run_on(nexus, Cdb::test_unit_ready(), &[], 0)
    }

    /// What a path's next TEST UNIT READYs say until one is GOOD.
    fn attentions_on(&mut self, nexus: NexusId) -> Vec<SenseCode> {
        std::iter::from_fn(|| sense_of(&self.tur_on(nexus))).take(9).collect()
    }

    fn write(&mut self, lba: u64, blocks: usize, fill: u8) {
        let extent = Extent::new(lba, blocks as u64);
        let done = self.run(Cdb::write(extent, false).unwrap(), &vec![fill; blocks * BLOCK], 0);
        assert_eq!(done.completion, Completion::Good);
    }

    /// First byte of each block, read over the second path; asserts that each
    /// block is uniform.
    fn blocks(&mut self, lba: u64, blocks: usize) -> Vec<u8> {
        let extent = Extent::new(lba, blocks as u64);
        let done = self.run_on(self.b, Cdb::read(extent).unwrap(), &[], blocks * BLOCK);
        assert_eq!(done.completion, Completion::Good);
        let uniform = |block: &[u8]| {
            assert!(block.iter().all(|byte| *byte == block[0]));
            block[0]
        };
        done.data_in.chunks(BLOCK).map(uniform).collect()
    }
}

fn sense_of(done: &Done) -> Option<SenseCode> {
    match &done.completion {
        Completion::Scsi { status: Status::CHECK_CONDITION, host: HostByte::OK, sense, .. } => {
            sense.code()
        }
        _ => None,
    }
}

fn host_of(done: &Done) -> HostByte {
    match done.completion {
        Completion::Scsi { status: Status::GOOD, host, sense, .. } => {
            assert!(sense.is_empty(), "a transport error has no sense");
            host
        }
        Completion::Good => HostByte::OK,
        ref other => panic!("not a transport's word: {other:?}"),
    }
}

fn residual_of(done: &Done) -> u32 {
    match done.completion {
        Completion::Scsi { residual, .. } => residual,
        _ => 0,
    }
}
