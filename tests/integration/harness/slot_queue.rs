//! One virtqueue of a driver, whatever the device: chains out, answers back.
//!
//! Chains live in *slots* of guest memory (header, a little payload, reply,
//! indirect table, data), as many as the queue's depth. Every answer is checked
//! against what is outstanding: a chain that comes back twice, or that was
//! never given, ends the test. Waiting is by the call eventfd, and a used
//! element that is there without an interrupt after the wait is a lost one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost_mpath::guest::driver::{Descriptor, Driver, INDIRECT, NEXT, WRITE};
use vhost_mpath::guest::memory::Memory;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::guest::{Guest, read, write};

/// Descriptors of a slot's indirect table.
const TABLE: u16 = 64;
/// Bytes of a slot's request header, at most.
const HEADER: u32 = 512;
/// Bytes of a payload that needs no data buffer, at most.
const EXTRA: u32 = 512;
/// Bytes of a slot's reply, at most.
const REPLY: u32 = 512;
/// Bytes of a slot beside its data: header, payload, table, reply.
const SLOT: u64 = HEADER as u64 + EXTRA as u64 + 16 * TABLE as u64 + REPLY as u64;
/// What a reply is before it is written.
pub(crate) const UNANSWERED: u8 = 0xee;

/// How a queue behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Ring size.
    pub(crate) size: u16,
    /// Most requests at once.
    pub(crate) depth: usize,
    /// Bytes of each slot's data buffer.
    pub(crate) slot_bytes: u32,
    /// EVENT_IDX was negotiated.
    pub(crate) event_idx: bool,
    /// Chains go into an indirect table.
    pub(crate) indirect: bool,
    /// Descriptors that the data is spread over, the first one at the end of the
    /// buffer, so that no two of them lie one behind the other.
    pub(crate) pieces: u32,
    /// No interrupts wanted: the driver looks by itself.
    pub(crate) polling: bool,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    header: u64,
    extra: u64,
    table: u64,
    reply: u64,
    data: u64,
}

/// What goes out behind the header.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many bytes of whatever the buffer holds.
    AsIs(u32),
}

/// A chain to be made of one slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain<'a> {
    /// Device-readable, first.
    pub(crate) header: &'a [u8],
    /// Device-readable, behind it.
    pub(crate) payload: Payload<'a>,
    /// Bytes of the device-writable reply.
    pub(crate) reply: u32,
    /// The reply lies before the data-in, not behind it.
    pub(crate) reply_first: bool,
    /// Bytes of device-writable data.
    pub(crate) data_in: u32,
}

/// A chain that is out.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    token: u64,
    slot: usize,
    reply: u32,
    data_in: u32,
    table_len: u32,
}

/// A chain that came back. Its data stays where it is until the next submit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// What [`SlotQueue::submit_chain`] returned.
    pub(crate) token: u64,
    /// The first byte of the reply: of virtio-blk all of it.
    pub(crate) status: u8,
    /// Length in the used element.
    pub(crate) used_len: u32,
    /// Its slot: below the depth, and nobody else's while it was out.
    pub(crate) slot: usize,
    reply: u32,
    data: u64,
    data_in: u32,
    table_len: u32,
}

/// See the module.
pub(crate) struct SlotQueue {
    pub(crate) driver: Driver,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    pub(crate) err: EventFd,
    manner: Manner,
    memory: Arc<Memory>,
    base: u64,
    slots: Vec<Slot>,
    free: Vec<usize>,
    by_head: Vec<Option<Outstanding>>,
    outstanding: usize,
    next_token: u64,
    used_seen: u16,
    kicked_at: u16,
    calls: Epoll,
    readable: Vec<(u64, u32)>,
    writable: Vec<(u64, u32)>,
}

fn eventfd() -> EventFd {
    EventFd::new(EFD_NONBLOCK).expect("eventfd")
}

fn watch(call: &EventFd) -> Epoll {
    use std::os::fd::AsRawFd;
    let epoll = Epoll::new().expect("epoll");
    let event = EpollEvent::new(EventSet::IN, 0);
    epoll.ctl(ControlOperation::Add, call.as_raw_fd(), event).expect("epoll");
    epoll
}

impl SlotQueue {
    /// Bytes of guest memory a queue takes, generously.
    pub(crate) fn footprint(manner: &Manner) -> u64 {
        let slot = SLOT + u64::from(manner.slot_bytes) + 4096;
        Driver::footprint(manner.size) + 4096 + slot * manner.depth as u64
    }

    /// Lays a queue out in the guest's memory.
    pub(crate) fn new(guest: &mut Guest, manner: Manner) -> SlotQueue {
        let base = guest.allocate_in_one(Driver::footprint(manner.size), 4096);
        let mut slots = Vec::new();
        for _ in 0..manner.depth {
            let at = guest.allocate_in_one(SLOT, 16);
            let data = if manner.slot_bytes == 0 {
                0
            } else {
                guest.allocate(u64::from(manner.slot_bytes), 512.min(manner.slot_bytes.into()))
            };
            slots.push(Slot {
                header: at,
                extra: at + u64::from(HEADER),
                table: at + u64::from(HEADER + EXTRA),
                reply: at + u64::from(HEADER + EXTRA) + 16 * u64::from(TABLE),
                data,
            });
        }
        let memory = Arc::clone(guest.memory());
        let call = eventfd();
        SlotQueue {
            driver: Driver::new(Arc::clone(&memory), base, manner.size, manner.event_idx),
            kick: eventfd(),
            calls: watch(&call),
            call,
            err: eventfd(),
            manner,
            memory,
            base,
            free: (0..slots.len()).rev().collect(),
            slots,
            by_head: vec![None; usize::from(manner.size)],
            outstanding: 0,
            next_token: 0,
            used_seen: 0,
            kicked_at: 0,
            readable: Vec::with_capacity(usize::from(TABLE)),
            writable: Vec::with_capacity(usize::from(TABLE)),
        }
    }

    /// Lays the ring out anew, as a driver does after a device reset. What was
    /// outstanding is forgotten.
    pub(crate) fn reset(&mut self) {
        let footprint = usize::try_from(Driver::footprint(self.manner.size)).expect("small");
        write(&self.memory, self.base, &vec![0; footprint]);
        let memory = Arc::clone(&self.memory);
        self.driver = Driver::new(memory, self.base, self.manner.size, self.manner.event_idx);
        self.free = (0..self.slots.len()).rev().collect();
        self.by_head.fill(None);
        self.outstanding = 0;
        self.used_seen = 0;
        self.kicked_at = 0;
    }

    /// Puts every data buffer elsewhere, one behind the other from `base`, in
    /// the guest's present memory. Nothing may be outstanding.
    pub(crate) fn move_data(&mut self, guest: &Guest, base: u64) {
        assert_eq!(self.outstanding, 0);
        self.memory = Arc::clone(guest.memory());
        for (i, slot) in self.slots.iter_mut().enumerate() {
            slot.data = base + i as u64 * u64::from(self.manner.slot_bytes);
        }
    }

    /// A new call eventfd, not yet told to the back-end.
    pub(crate) fn renew_call(&mut self) {
        self.call = eventfd();
        self.calls = watch(&self.call);
    }

    /// Requests that are out.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// How many more requests of `descriptors` each fit.
    pub(crate) fn room(&self, descriptors: usize) -> usize {
        let each = if self.manner.indirect { 1 } else { descriptors };
        let fit = usize::from(self.manner.size) / each;
        self.free.len().min(fit.saturating_sub(self.outstanding))
    }

    /// Makes a chain available, without a kick; its token, or `None` if it does
    /// not fit.
    pub(crate) fn submit_chain(&mut self, chain: &Chain<'_>) -> Option<u64> {
        let index = *self.free.last()?;
        let slot = self.slots[index];
        let header = u32::try_from(chain.header.len()).expect("short");
        assert!(header <= HEADER && chain.reply <= REPLY, "the slot is too small");
        write(&self.memory, slot.header, chain.header);
        write(&self.memory, slot.reply, &[UNANSWERED; REPLY as usize][..chain.reply as usize]);
        self.readable.clear();
        self.writable.clear();
        self.readable.extend((header > 0).then_some((slot.header, header)));
        let (at, len) = match chain.payload {
            Payload::None => (slot.data, 0),
            Payload::AsIs(len) => (slot.data, len),
            Payload::Bytes(bytes) => {
                let len = u32::try_from(bytes.len()).expect("short");
                // Range lists must not need a data buffer.
                let at = if len <= self.manner.slot_bytes { slot.data } else { slot.extra };
                (at, len)
            }
        };
        let first = self.readable.len();
        pieces(&mut self.readable, at, len, self.manner.pieces);
        if let Payload::Bytes(mut left) = chain.payload {
            for &(at, len) in &self.readable[first..] {
                let (bytes, rest) = left.split_at(len as usize);
                write(&self.memory, at, bytes);
                left = rest;
            }
        }
        let reply = (chain.reply > 0).then_some((slot.reply, chain.reply));
        self.writable.extend(reply.filter(|_| chain.reply_first));
        let data = self.data_at(&slot, chain.data_in);
        pieces(&mut self.writable, data, chain.data_in, self.manner.pieces);
        self.writable.extend(reply.filter(|_| !chain.reply_first));
        let head = self.build(slot.table)?;
        self.free.pop();
        let table_len = self.readable.len() + self.writable.len();
        let table_len = u32::try_from(16 * table_len).expect("short");
        let Chain { reply, data_in, .. } = *chain;
        Some(self.give(head, Outstanding { token: 0, slot: index, reply, data_in, table_len }))
    }

    /// Where a slot's data-in is.
    fn data_at(&self, slot: &Slot, data_in: u32) -> u64 {
        assert!(data_in <= self.manner.slot_bytes.max(EXTRA), "the slot is too small");
        if data_in <= self.manner.slot_bytes { slot.data } else { slot.extra }
    }

    fn build(&mut self, table: u64) -> Option<u16> {
        if !self.manner.indirect {
            return self.driver.build(&self.readable, &self.writable);
        }
        let count = self.readable.len() + self.writable.len();
        assert!(count <= usize::from(TABLE), "the indirect table is too small");
        let len = u32::try_from(16 * count).expect("short");
        let head = self.driver.build(&[(table, len)], &[])?;
        let flagged = Descriptor { addr: table, len, flags: INDIRECT, next: 0 };
        self.driver.set_descriptor(head, flagged);
        let readable = self.readable.iter().map(|b| (b, 0));
        let writable = self.writable.iter().map(|b| (b, WRITE));
        for (i, (&(addr, len), flag)) in readable.chain(writable).enumerate() {
            let flags = flag | if i + 1 < count { NEXT } else { 0 };
            let next = u16::try_from(i + 1).expect("short");
            self.driver.write_table(table, i, Descriptor { addr, len, flags, next });
        }
        Some(head)
    }

    fn give(&mut self, head: u16, out: Outstanding) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        let entry = &mut self.by_head[usize::from(head)];
        assert!(entry.is_none(), "descriptor {head} is used twice");
        *entry = Some(Outstanding { token, ..out });
        self.outstanding += 1;
        self.driver.offer(head);
        self.driver.publish();
        token
    }

    /// Makes a chain of `count` descriptors available whose contents are up to
    /// `fill`, which gets the slot's first address, and the descriptors' own
    /// indexes. Returns the token.
    pub(crate) fn submit_raw(
        &mut self,
        count: usize,
        fill: impl FnOnce(&Driver, &RawSlot, &[u16]),
    ) -> u64 {
        let index = self.free.pop().expect("a free slot");
        let slot = self.slots[index];
        write(&self.memory, slot.reply, &[UNANSWERED; REPLY as usize]);
        let head = self.driver.build(&vec![(slot.header, 16); count], &[]).expect("descriptors");
        let mut indexes = vec![head];
        while indexes.len() < count {
            let last = u64::from(*indexes.last().expect("not empty"));
            let mut next = [0; 2];
            read(&self.memory, self.driver.config().desc + 16 * last + 14, &mut next);
            indexes.push(u16::from_le_bytes(next));
        }
        let raw =
            RawSlot { header: slot.header, table: slot.table, status: slot.reply, data: slot.data };
        fill(&self.driver, &raw, &indexes);
        let out = Outstanding { token: 0, slot: index, reply: REPLY, data_in: 0, table_len: 0 };
        self.give(head, out)
    }

    /// Kicks, if the device wants it for what was made available since the
    /// last kick.
    pub(crate) fn kick(&mut self) {
        if self.driver.needs_kick(self.kicked_at) {
            self.kick.write(1).expect("kick");
        }
        self.kicked_at = self.driver.avail_idx();
    }

    /// Makes the chain that `done` was available once more, as it stands in its
    /// indirect table, with these bytes at `offset` of its header.
    pub(crate) fn submit_again(&mut self, done: &Done, offset: u64, bytes: &[u8]) -> u64 {
        assert!(self.manner.indirect);
        // The slot that was freed last, mostly.
        let place = self.free.iter().rposition(|&slot| slot == done.slot).expect("free");
        self.free.swap_remove(place);
        let slot = self.slots[done.slot];
        write(&self.memory, slot.header + offset, bytes);
        write(&self.memory, slot.reply, &[UNANSWERED]);
        let Done { reply, data_in, table_len, slot: index, .. } = *done;
        let head = self.driver.build(&[(slot.table, table_len)], &[]).expect("a descriptor");
        let flagged = Descriptor { addr: slot.table, len: table_len, flags: INDIRECT, next: 0 };
        self.driver.set_descriptor(head, flagged);
        self.give(head, Outstanding { token: 0, slot: index, reply, data_in, table_len })
    }

    /// What came back, if anything did.
    pub(crate) fn poll(&mut self) -> Option<Done> {
        let (head, used_len) = self.driver.used()?;
        self.used_seen = self.used_seen.wrapping_add(1);
        let entry = self.by_head[usize::from(head)].take();
        let Outstanding { token, slot: index, reply, data_in, table_len } =
            entry.unwrap_or_else(|| panic!("chain {head} came back, which is not out"));
        self.outstanding -= 1;
        self.free.push(index);
        let slot = self.slots[index];
        let mut status = [0];
        read(&self.memory, slot.reply, &mut status);
        let data = self.data_at(&slot, data_in);
        let status = status[0];
        Some(Done { token, status, used_len, slot: index, reply, data, data_in, table_len })
    }

    /// Asks for an interrupt for the next element; `poll` comes after that.
    fn want_call(&mut self) {
        if self.manner.event_idx {
            self.driver.set_used_event(self.used_seen);
        } else {
            self.driver.set_no_interrupt(false);
        }
    }

    /// No interrupts, until the next wait.
    pub(crate) fn want_no_call(&mut self) {
        if self.manner.event_idx {
            self.driver.set_used_event(self.used_seen.wrapping_sub(1));
        } else {
            self.driver.set_no_interrupt(true);
        }
    }

    /// Waits for something to come back, by interrupt unless polling.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Option<Done> {
        let until = Instant::now() + timeout;
        loop {
            if let Some(done) = self.poll() {
                return Some(done);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            if self.manner.polling {
                std::hint::spin_loop();
                continue;
            }
            self.want_call();
            if let Some(done) = self.poll() {
                return Some(done);
            }
            let mut events = [EpollEvent::default()];
            let millis = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
            // Interrupted by a signal is as good as woken.
            let woken = self.calls.wait(millis, &mut events).unwrap_or(1);
            if woken > 0 {
                let _ = self.call.read();
            } else {
                let late = self.poll();
                assert!(late.is_none(), "{late:?} came back without an interrupt");
            }
        }
    }

    /// Sleeps until an interrupt comes (or `timeout`), having asked for one.
    pub(crate) fn sleep(&mut self, timeout: Duration) {
        self.want_call();
        if self.driver.used_idx() == self.used_seen {
            let mut events = [EpollEvent::default()];
            let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
            let _ = self.calls.wait(millis, &mut events);
            let _ = self.call.read();
        }
    }

    /// The whole reply.
    pub(crate) fn reply(&self, done: &Done) -> Vec<u8> {
        let mut bytes = vec![0; done.reply as usize];
        read(&self.memory, self.slots[done.slot].reply, &mut bytes);
        bytes
    }

    /// The data a request has read.
    pub(crate) fn data(&self, done: &Done) -> Vec<u8> {
        let mut bytes = vec![0; done.data_in as usize];
        let mut places = Vec::new();
        pieces(&mut places, done.data, done.data_in, self.manner.pieces);
        let mut left = &mut bytes[..];
        for (at, len) in places {
            let (piece, rest) = left.split_at_mut(len as usize);
            read(&self.memory, at, piece);
            left = rest;
        }
        bytes
    }

    /// Makes one chain available and waits for it; nothing else may be out.
    pub(crate) fn run_chain(&mut self, chain: &Chain<'_>) -> Done {
        assert_eq!(self.outstanding, 0, "others are out");
        let token = self.submit_chain(chain).expect("room for one");
        self.kick();
        let done = self.wait(PATIENCE).unwrap_or_else(|| panic!("{chain:?} was not answered"));
        assert_eq!(done.token, token);
        done
    }

    /// Waits for everything that is out.
    pub(crate) fn drain(&mut self, timeout: Duration) -> Vec<Done> {
        let until = Instant::now() + timeout;
        let mut all = Vec::new();
        while self.outstanding > 0 {
            let left = until.saturating_duration_since(Instant::now());
            match self.wait(left) {
                Some(done) => all.push(done),
                None => panic!("{} requests did not come back", self.outstanding),
            }
        }
        all
    }
}

/// How long anything that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Addresses a raw chain can be made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawSlot {
    pub(crate) header: u64,
    pub(crate) table: u64,
    pub(crate) status: u64,
    pub(crate) data: u64,
}

/// Cuts a buffer into at most `count` descriptors, not of equal length, from
/// its end to its beginning.
fn pieces(out: &mut Vec<(u64, u32)>, at: u64, len: u32, count: u32) {
    let mut left = len;
    for i in (1..=count).rev() {
        if left == 0 {
            return;
        }
        let piece = if i == 1 { left } else { (left / i).next_multiple_of(512).min(left) };
        left -= piece;
        out.push((at + u64::from(left), piece));
    }
}
