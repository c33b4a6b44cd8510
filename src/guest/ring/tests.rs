use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::*;
use crate::guest::copy;
use crate::guest::driver::{self, Descriptor as Raw, Driver};

const SIZE: u16 = 16;
const LEN: u64 = 0x10000;
const TABLE: u64 = 0x4000;

fn memory() -> Arc<Memory> {
    Arc::new(Memory::anonymous(1, &[(0, LEN)]).unwrap())
}

fn ring(driver: &Driver) -> Ring {
    Ring::new(Arc::clone(driver.memory()), driver.config()).unwrap()
}

/// Everything a ring of `SIZE` at address 0 occupies.
fn bytes(memory: &Memory) -> Vec<u8> {
    let mut segments = Vec::new();
    memory.segments(0, 0x400, &mut segments).unwrap();
    let mut all = vec![0; 0x400];
    copy::copy_in(&segments, 0, &mut all);
    all
}

/// The same driver on two memories: one under our ring, one under the oracle.
struct Pair {
    ours: Driver,
    ring: Ring,
    theirs: Driver,
    queue: Queue,
    held: Vec<u16>,
}

impl Pair {
    fn new(event_idx: bool) -> Pair {
        let ours = Driver::new(memory(), 0, SIZE, event_idx);
        let theirs = Driver::new(memory(), 0, SIZE, event_idx);
        let config = ours.config();
        let mut queue = Queue::new(SIZE).unwrap();
        queue.try_set_desc_table_address(GuestAddress(config.desc)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(config.avail)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(config.used)).unwrap();
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        assert!(queue.is_valid(theirs.memory().backing()));
        Pair { ring: ring(&ours), ours, theirs, queue, held: Vec::new() }
    }

    fn both<T: PartialEq + std::fmt::Debug>(&mut self, f: impl Fn(&mut Driver) -> T) {
        assert_eq!(f(&mut self.ours), f(&mut self.theirs));
    }

    fn pop(&mut self, max: usize) {
        let mut heads = Vec::new();
        self.ring.pop(max, &mut heads).unwrap();
        let mut chain = Chain::default();
        for &head in &heads {
            self.ring.read_chain(head, &mut chain).unwrap();
            let theirs = self.queue.pop_descriptor_chain(self.theirs.memory().backing()).unwrap();
            assert_eq!(head, theirs.head_index());
            let theirs: Vec<_> =
                theirs.map(|d| (d.addr().0, d.len() as usize, d.is_write_only())).collect();
            assert_eq!(self.flat(&chain), theirs);
        }
        if heads.len() < max {
            assert!(self.queue.pop_descriptor_chain(self.theirs.memory().backing()).is_none());
        }
        self.held.extend(heads);
        assert_eq!(self.ring.next_avail(), self.queue.next_avail());
    }

    fn flat(&self, chain: &Chain) -> Vec<(u64, usize, bool)> {
        let zero = self.ours.memory().host_addr(0, 1).unwrap();
        let flat = |list: &[Segment], write| {
            list.iter().map(|s| ((s.addr - zero) as u64, s.len, write)).collect::<Vec<_>>()
        };
        let mut all = flat(&chain.readable, false);
        all.extend(flat(&chain.writable, true));
        all
    }

    fn complete(&mut self, mask: u16) {
        let (mut done, mut keep) = (Vec::new(), Vec::new());
        for (i, &head) in self.held.iter().enumerate() {
            if mask & (1 << (i % 16)) != 0 {
                done.push((head, u32::from(head) * 3));
            } else {
                keep.push(head);
            }
        }
        self.held = keep;
        self.ring.push(&done);
        for &(head, len) in &done {
            self.queue.add_used(self.theirs.memory().backing(), head, len).unwrap();
        }
        if !done.is_empty() {
            let theirs = self.queue.needs_notification(self.theirs.memory().backing()).unwrap();
            assert_eq!(self.ring.needs_call(), theirs);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(usize, usize),
    AddIndirect(usize, usize),
    Pop(usize),
    Complete(u16),
    Reap,
    UsedEvent(u16),
    Enable,
    Disable,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, 0..3usize).prop_map(|(r, w)| Step::Add(r, w)),
        2 => (1..9usize, 0..9usize).prop_map(|(r, w)| Step::AddIndirect(r, w)),
        3 => (0..8usize).prop_map(Step::Pop),
        3 => any::<u16>().prop_map(Step::Complete),
        3 => Just(Step::Reap),
        1 => (0..20u16).prop_map(Step::UsedEvent),
        1 => Just(Step::Enable),
        1 => Just(Step::Disable),
    ]
}

fn buffers(count: usize, salt: usize) -> Vec<(u64, u32)> {
    (0..count)
        .map(|i| (0x8000 + 0x100 * i as u64, u32::try_from(1 + 7 * i + salt).unwrap()))
        .collect()
}

fn add_indirect(driver: &mut Driver, readable: usize, writable: usize) -> Option<u16> {
    let count = readable + writable;
    let head = driver.build(&[(TABLE, u32::try_from(16 * count).unwrap())], &[])?;
    let table = TABLE + 0x200 * u64::from(head);
    for i in 0..count {
        let flags = if i < readable { 0 } else { driver::WRITE };
        let flags = flags | if i + 1 < count { driver::NEXT } else { 0 };
        // The table is filled back to front, so that order in it is not order in memory.
        let next = u16::try_from(if i + 1 < count { count - 1 - i } else { 0 }).unwrap();
        let at = if i == 0 { 0 } else { count - i };
        let raw = Raw { addr: 0x9000 + 16 * i as u64, len: 16, flags, next };
        driver.write_table(table, at, raw);
    }
    let len = u32::try_from(16 * count).unwrap();
    driver.set_descriptor(head, Raw { addr: table, len, flags: driver::INDIRECT, next: 0 });
    driver.offer(head);
    driver.publish();
    Some(head)
}

proptest! {
    #[test]
    fn behaves_as_virtio_queue_does(
        event_idx: bool,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut pair = Pair::new(event_idx);
        for (salt, step) in steps.into_iter().enumerate() {
            match step {
                Step::Add(r, w) => pair.both(|d| d.add(&buffers(r, salt), &buffers(w, salt))),
                Step::AddIndirect(r, w) => pair.both(|d| add_indirect(d, r, w)),
                Step::Pop(max) => pair.pop(max),
                Step::Complete(mask) => pair.complete(mask),
                Step::Reap => pair.both(Driver::used),
                Step::UsedEvent(ahead) => {
                    let event = pair.ours.used_idx().wrapping_add(ahead);
                    pair.both(|d| d.set_used_event(event));
                }
                Step::Enable => {
                    let theirs = pair.queue.enable_notification(pair.theirs.memory().backing());
                    assert_eq!(pair.ring.enable_notification(), theirs.unwrap());
                }
                Step::Disable => {
                    pair.ring.disable_notification();
                    pair.queue.disable_notification(pair.theirs.memory().backing()).unwrap();
                }
            }
            prop_assert!(bytes(pair.ours.memory()) == bytes(pair.theirs.memory()));
        }
    }
}

/// Descriptors that are often nearly right: the interesting kind of wrong.
fn hostile() -> impl Strategy<Value = Raw> {
    let addr = prop_oneof![
        Just(TABLE),
        0..LEN,
        LEN - 0x40..LEN + 0x40,
        (0x2_0000u64 - 0x40)..0x2_0040,
        any::<u64>(),
        Just(u64::MAX - 15),
    ];
    let len = prop_oneof![0..0x80u32, (0..64u32).prop_map(|n| 16 * n), any::<u32>()];
    let flags = prop_oneof![6 => 0..4u16, 1 => 4..8u16, 1 => any::<u16>()];
    (addr, len, flags, 0..SIZE + 2).prop_map(|(addr, len, flags, next)| Raw {
        addr,
        len,
        flags,
        next,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn hostile_chains_are_refused_or_lie_in_guest_memory(
        table in prop::collection::vec(hostile(), usize::from(SIZE)),
        indirect in prop::collection::vec(hostile(), 24),
        head in 0..SIZE + 4,
    ) {
        let regions = [(0, LEN), (LEN, 0x1000), (0x2_0000, 0x1000)];
        let memory = Arc::new(Memory::anonymous(1, &regions).unwrap());
        let driver = Driver::new(Arc::clone(&memory), 0, SIZE, false);
        for (i, raw) in (0u16..).zip(table) {
            driver.set_descriptor(i, raw);
        }
        for (i, raw) in indirect.into_iter().enumerate() {
            driver.write_table(TABLE, i, raw);
        }
        let mut chain = Chain::default();
        if ring(&driver).read_chain(head, &mut chain).is_ok() {
            let mapped = |s: &Segment| {
                regions.iter().any(|&(gpa, len)| {
                    let host = memory.host_addr(gpa, len).unwrap();
                    s.len > 0 && s.addr >= host && s.addr + s.len <= host + usize::try_from(len).unwrap()
                })
            };
            prop_assert!(chain.readable.iter().chain(&chain.writable).all(mapped));
            prop_assert!(chain.readable.len() + chain.writable.len() <= 3 * 64);
        }
    }

    #[test]
    fn hostile_available_rings_never_hand_out_a_bad_head(
        idx: u16,
        entries in prop::collection::vec(prop_oneof![0..SIZE, any::<u16>()], usize::from(SIZE)),
        max in 0..40usize,
    ) {
        let mut driver = Driver::new(memory(), 0, SIZE, true);
        for head in entries {
            driver.offer(head);
        }
        driver.set_avail_idx(idx);
        let mut ring = ring(&driver);
        let mut heads = Vec::new();
        match ring.pop(max, &mut heads) {
            Ok(n) => {
                prop_assert!(idx <= SIZE && n == max.min(usize::from(idx)) && n == heads.len());
                prop_assert!(heads.iter().all(|&h| h < SIZE));
            }
            Err(_) => prop_assert!(heads.is_empty() && ring.next_avail() == 0),
        }
    }
}

fn refused(table: &[(u16, Raw)], indirect: &[Raw]) -> ChainError {
    let driver = Driver::new(memory(), 0, SIZE, false);
    for &(i, raw) in table {
        driver.set_descriptor(i, raw);
    }
    for (i, &raw) in indirect.iter().enumerate() {
        driver.write_table(TABLE, i, raw);
    }
    ring(&driver).read_chain(0, &mut Chain::default()).unwrap_err()
}

#[test]
fn every_kind_of_broken_chain_has_its_own_name() {
    use driver::{INDIRECT, NEXT, WRITE};
    let raw = |flags, next| Raw { addr: 0x8000, len: 16, flags, next };
    let table = |len, flags| Raw { addr: TABLE, len, flags, next: 0 };
    let cases = [
        (vec![(0, raw(NEXT, SIZE))], vec![], ChainError::Index(SIZE)),
        (vec![(0, raw(NEXT, 1)), (1, raw(NEXT, 0))], vec![], ChainError::Loop),
        (vec![(0, raw(WRITE | NEXT, 1)), (1, raw(0, 0))], vec![], ChainError::Order),
        (vec![(0, Raw { len: 0, ..raw(0, 0) })], vec![], ChainError::Empty),
        (vec![(0, Raw { addr: u64::MAX, ..raw(0, 0) })], vec![], ChainError::Overflow),
        (
            vec![(0, Raw { addr: LEN - 8, ..raw(0, 0) })],
            vec![],
            ChainError::Unmapped { addr: LEN - 8, len: 16 },
        ),
        (vec![(0, table(24, INDIRECT))], vec![], ChainError::IndirectSize(24)),
        (vec![(0, table(0, INDIRECT))], vec![], ChainError::IndirectSize(0)),
        (vec![(0, table(16, INDIRECT | NEXT))], vec![], ChainError::IndirectNext),
        (vec![(0, table(16 * 1025, INDIRECT))], vec![], ChainError::TooLong(1025)),
        (vec![(0, table(16, INDIRECT))], vec![table(16, INDIRECT)], ChainError::Nested),
        (vec![(0, table(16, INDIRECT))], vec![raw(NEXT, 1)], ChainError::Loop),
        (vec![(0, table(32, INDIRECT))], vec![raw(NEXT, 2)], ChainError::Index(2)),
    ];
    for (direct, indirect, expected) in cases {
        assert_eq!(refused(&direct, &indirect), expected);
    }
}

#[test]
fn more_than_four_gib_in_one_chain_overflows() {
    let len = u32::MAX / 2 + 1;
    let memory = Arc::new(Memory::anonymous(1, &[(0, 0x1_0000_0000)]).unwrap());
    let driver = Driver::new(memory, 0, SIZE, false);
    driver.set_descriptor(0, Raw { addr: 0x1000, len, flags: driver::NEXT, next: 1 });
    driver.set_descriptor(1, Raw { addr: 0x1000, len, flags: 0, next: 0 });
    let result = ring(&driver).read_chain(0, &mut Chain::default());
    assert_eq!(result, Err(ChainError::Overflow));
}

#[test]
fn indirect_is_refused_where_it_was_not_negotiated() {
    let mut driver = Driver::new(memory(), 0, SIZE, false);
    add_indirect(&mut driver, 1, 1).unwrap();
    let config = RingConfig { indirect: false, ..driver.config() };
    let mut ring = Ring::new(Arc::clone(driver.memory()), config).unwrap();
    let mut heads = Vec::new();
    ring.pop(1, &mut heads).unwrap();
    let result = ring.read_chain(heads[0], &mut Chain::default());
    assert_eq!(result, Err(ChainError::IndirectNotNegotiated));
}

#[test]
fn bad_ring_addresses_and_sizes_are_refused() {
    let driver = Driver::new(memory(), 0, SIZE, true);
    let good = driver.config();
    let new = |config| Ring::new(Arc::clone(driver.memory()), config).map(|_| ());
    assert_eq!(new(good), Ok(()));
    assert_eq!(new(RingConfig { size: 0, ..good }), Err(RingError::Size(0)));
    assert_eq!(new(RingConfig { size: 12, ..good }), Err(RingError::Size(12)));
    let misaligned = |part, addr| Err(RingError::Misaligned { part, addr });
    assert_eq!(new(RingConfig { desc: 8, ..good }), misaligned("descriptor table", 8));
    assert_eq!(new(RingConfig { avail: 0x801, ..good }), misaligned("available ring", 0x801));
    assert_eq!(new(RingConfig { used: 0x802, ..good }), misaligned("used ring", 0x802));
    let unmapped = |part, addr| Err(RingError::Unmapped { part, addr });
    assert_eq!(new(RingConfig { used: LEN - 8, ..good }), unmapped("used ring", LEN - 8));
    // The used ring's last bytes are its event word: 4 + 8 * 16 + 2.
    assert_eq!(new(RingConfig { used: LEN - 136, ..good }), Ok(()));
    assert_eq!(new(RingConfig { used: LEN - 132, ..good }), unmapped("used ring", LEN - 132));
    assert_eq!(new(RingConfig { used: LEN - 132, event_idx: false, ..good }), Ok(()));
}

#[test]
fn a_ring_moves_to_a_new_memory_table_or_stays_on_the_old_one() {
    let mut driver = Driver::new(memory(), 0, SIZE, false);
    let mut ring = ring(&driver);
    let elsewhere = Arc::new(Memory::anonymous(2, &[(0x10_0000, 0x1000)]).unwrap());
    assert!(ring.set_memory(elsewhere).is_err());
    driver.add(&[(0x8000, 8)], &[]).unwrap();
    let mut heads = Vec::new();
    assert_eq!(ring.pop(8, &mut heads), Ok(1));
    assert_eq!(ring.memory().generation(), 1);
}

#[test]
fn chains_of_a_warm_chain_reuse_its_vectors() {
    let mut driver = Driver::new(memory(), 0, SIZE, false);
    let head = add_indirect(&mut driver, 4, 4).unwrap();
    let (ring, mut chain) = (ring(&driver), Chain::default());
    ring.read_chain(head, &mut chain).unwrap();
    let (r, w, t) = (chain.readable.as_ptr(), chain.writable.as_ptr(), chain.table.as_ptr());
    for _ in 0..3 {
        ring.read_chain(head, &mut chain).unwrap();
    }
    assert_eq!((r, w, t), (chain.readable.as_ptr(), chain.writable.as_ptr(), chain.table.as_ptr()));
}
