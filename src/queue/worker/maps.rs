//! The maps of a queue thread: each with its request core and its ports.
//!
//! A map costs a round something only while it is *active*: while it has
//! requests, reports without an answer, or paths to let go. Idle maps are not
//! looked at. Owned by the queue thread. Not here: rings and requests that no
//! map has (`worker`), the maps' engines (`control`).

use std::rc::Rc;
use std::sync::Arc;

use crate::io::{
    Command, Completion, ErrnoFrom, Limits, Management, MapSlot, Op, Outcome, Reach, Request, Time,
};
use crate::mpath::reservation::OrderId;
use crate::mpath::snapshot::{PathId, PathTable};
use crate::passthrough_scsi::{Coalescer, Inbox, Issued, PathHandle, PathPort, Rejected};
use crate::queue::dispatch::{Cookie, Dispatcher, End, Issue, Managed, Order, Settings, Ticket};
use crate::queue::mailbox::NewMap;
use crate::queue::{Counters, FromQueue, Outbox, Stop};
use crate::sys::uring::{Cqe, Uring};

/// User data of a command: the tag of the reactor (0), the map, the cookie.
const MAP_BITS: u32 = 16;
const COOKIE_BITS: u32 = 40;
const _: () = assert!(COOKIE_BITS + MAP_BITS == super::TAG_SHIFT);

fn user_data(slot: u16, cookie: Cookie) -> u64 {
    debug_assert!(cookie.0 >> COOKIE_BITS == 0);
    u64::from(slot) << COOKIE_BITS | cookie.0
}

fn split(user_data: u64) -> (u16, Cookie) {
    let slot = user_data >> COOKIE_BITS & ((1 << MAP_BITS) - 1);
    (u16::try_from(slot).unwrap_or(0), Cookie(user_data & ((1 << COOKIE_BITS) - 1)))
}

/// Low bits of an order's name: the thread that has its request.
const THREAD_BITS: u32 = 16;

/// The thread that has the order.
pub(in crate::queue) fn thread_of(order: OrderId) -> usize {
    usize::try_from(order.0 & ((1 << THREAD_BITS) - 1)).unwrap_or(usize::MAX)
}

/// A path as this thread uses it.
#[derive(Debug)]
struct Port {
    id: PathId,
    port: PathPort,
    leaving: bool,
}

/// One map as this thread uses it.
#[derive(Debug)]
struct MapSide {
    core: Dispatcher,
    ports: Vec<Option<Port>>,
    counters: Arc<Counters>,
    /// It is in the list of active maps.
    active: bool,
    /// Ports on their way out.
    leaving_ports: usize,
    /// The map goes, once its last request has ended.
    leaving: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Maps {
    sides: Vec<Option<Box<MapSide>>>,
    active: Vec<u16>,
    /// How many more requests fit, over all maps.
    room: usize,
    max_requests: usize,
    rings: usize,
    /// The next order's name.
    next_order: OrderId,
    /// For the ports of all maps.
    coalescer: Rc<Coalescer>,
}

impl Maps {
    /// Those of thread number `thread`.
    pub(super) fn new(max_requests: usize, rings: usize, thread: usize) -> Maps {
        Maps {
            sides: Vec::new(),
            active: Vec::new(),
            room: max_requests,
            max_requests,
            rings,
            next_order: OrderId(thread as u64),
            coalescer: Coalescer::new(),
        }
    }

    /// How many more requests fit.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// No map has anything to do.
    pub(super) fn are_idle(&self) -> bool {
        self.active.iter().all(|&slot| self.get(slot).is_none_or(|s| s.core.is_idle()))
    }

    // --- what the control thread wants ------------------------------------------

    pub(super) fn add(&mut self, new: NewMap, outbox: &Outbox) {
        let NewMap { map, settings, table, attentions, counters } = new;
        let slot = usize::from(map.0);
        if self.sides.len() <= slot {
            self.sides.resize_with(slot + 1, || None);
        }
        if self.sides[slot].is_some() {
            // The old one's commands may still come back by this number.
            log::error!("map {slot} was added before it had gone");
            return;
        }
        let generation = table.generation;
        let settings = Settings { max_requests: self.max_requests, rings: self.rings, ..settings };
        self.active.reserve(self.sides.len());
        self.sides[slot] = Some(Box::new(MapSide {
            core: Dispatcher::new(settings, table, attentions),
            ports: Vec::new(),
            counters,
            active: false,
            leaving_ports: 0,
            leaving: false,
        }));
        self.acknowledge(map.0, generation, outbox);
    }

    /// Nothing new reaches the map; what it has ends.
    pub(super) fn remove(&mut self, map: MapSlot) {
        if let Some(side) = self.wake(map.0) {
            side.leaving = true;
            side.core.end_all(Outcome::NoPath);
        }
    }

    pub(super) fn attach(
        &mut self,
        map: MapSlot,
        id: PathId,
        handle: &Arc<PathHandle>,
        inbox: &Arc<Inbox>,
        share: usize,
    ) {
        let coalescer = Rc::clone(&self.coalescer);
        let Some(side) = self.get_mut(map.0) else { return };
        let slot = usize::from(id.slot);
        if side.ports.len() <= slot {
            side.ports.resize_with(slot + 1, || None);
        }
        let port = handle.port(inbox, &coalescer, share);
        side.ports[slot] = Some(Port { id, port, leaving: false });
    }

    pub(super) fn detach(&mut self, map: MapSlot, id: PathId) {
        let Some(side) = self.wake(map.0) else { return };
        if let Some(port) = side.port_mut(id).filter(|p| !p.leaving) {
            port.leaving = true;
            side.leaving_ports += 1;
        }
    }

    pub(super) fn set_table(&mut self, map: MapSlot, table: Arc<PathTable>, outbox: &Outbox) {
        let Some(side) = self.wake(map.0) else { return };
        let generation = table.generation;
        side.core.set_table(table);
        self.acknowledge(map.0, generation, outbox);
    }

    pub(super) fn set_limits(&mut self, map: MapSlot, limits: Limits) {
        if let Some(side) = self.get_mut(map.0) {
            side.core.set_limits(limits);
        }
    }

    fn acknowledge(&self, slot: u16, generation: u64, outbox: &Outbox) {
        if let Some(side) = self.get(slot) {
            side.counters.acknowledge(generation);
            outbox.wake();
        }
    }

    // --- requests ---------------------------------------------------------------

    /// Gives a request to its map; hands it back where there is none.
    #[inline]
    pub(super) fn submit(&mut self, request: Box<Request>) -> Result<(), Box<Request>> {
        let slot = request.map.0;
        let Some(side) = self.sides.get_mut(usize::from(slot)).and_then(Option::as_mut) else {
            return Err(request);
        };
        if side.leaving {
            return Err(request);
        }
        if request.ordered {
            side.core.submit_order(request, self.next_order)?;
            self.next_order.0 += 1 << THREAD_BITS;
        } else {
            side.core.submit(request)?;
        }
        if !side.active {
            side.active = true;
            self.active.push(slot);
        }
        self.room = self.room.saturating_sub(1);
        Ok(())
    }

    /// An order has ended so.
    pub(super) fn answer(&mut self, map: MapSlot, order: OrderId, outcome: Outcome) {
        // A map with an order is active.
        if let Some(side) = self.get_mut(map.0) {
            side.core.answer(order, outcome);
        }
    }

    /// Lets every active map issue what it can.
    pub(super) fn pump(&mut self, now: Time, uring: &mut Uring) {
        for &slot in &self.active {
            let side = self.sides.get_mut(usize::from(slot)).and_then(Option::as_mut);
            let Some(MapSide { core, ports, counters, .. }) = side.map(Box::as_mut) else {
                continue;
            };
            core.pump(now, &mut ToPaths { uring, ports, counters, slot });
        }
    }

    /// Hands over every request that ended.
    pub(super) fn finished(&mut self, mut each: impl FnMut(Box<Request>, End)) {
        for &slot in &self.active {
            let side = self.sides.get_mut(usize::from(slot)).and_then(Option::as_mut);
            let Some(side) = side else { continue };
            for (request, end) in side.core.finished() {
                self.room += 1;
                each(request, end);
            }
        }
    }

    /// When a map has something to do without further events.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.active.iter().filter_map(|&slot| self.get(slot)?.core.next_deadline()).min()
    }

    pub(super) fn complete_from_uring(&mut self, now: Time, cqe: &Cqe) {
        let (slot, cookie) = split(cqe.user_data);
        let Some(side) = self.get_mut(slot) else { return };
        let Some(id) = side.core.path_of(cookie) else { return };
        let Some(port) = side.port_mut(id) else { return };
        if let Some(completion) = port.port.on_uring(cqe) {
            side.core.complete(now, cookie, &completion);
        }
    }

    pub(super) fn complete_from_inbox(
        &mut self,
        now: Time,
        user_data: u64,
        completion: &Completion,
    ) {
        let (slot, cookie) = split(user_data);
        if let Some(side) = self.get_mut(slot) {
            side.core.complete(now, cookie, completion);
        }
    }

    // --- task management ----------------------------------------------------------

    /// Lets every map the management reaches carry it out.
    pub(super) fn manage(
        &mut self,
        now: Time,
        management: &Management,
        mut each: impl FnMut(MapSlot, Managed),
    ) {
        // Maps that are idle have no task.
        for &slot in &self.active {
            let reached = match management.reach {
                Reach::Task { map, .. } | Reach::Unit(map) => map.0 == slot,
                Reach::Target(_) => true,
            };
            let side = self.sides.get_mut(usize::from(slot)).and_then(Option::as_mut);
            if let Some(side) = side.filter(|_| reached) {
                each(MapSlot(slot), side.core.manage(now, management));
            }
        }
    }

    /// Whether everything has ended that a management reached in a map.
    pub(super) fn is_over(&self, map: MapSlot, management: &Management, ticket: Ticket) -> bool {
        self.get(map.0).is_none_or(|side| side.core.is_over(management, ticket))
    }

    // --- rings that stop ----------------------------------------------------------

    pub(super) fn stop_ring(&mut self, now: Time, ring: u16, how: Stop) {
        // Maps that are idle have no request of that ring, and get none.
        self.each_active(|side| side.core.stop_ring(now, ring, how));
    }

    pub(super) fn stop_deadline(&mut self, ring: u16) {
        self.each_active(|side| side.core.stop_deadline(ring));
    }

    pub(super) fn ring_stopped(&mut self, ring: u16) {
        for side in self.sides.iter_mut().flatten() {
            side.core.ring_stopped(ring);
        }
    }

    // --- the end of a round -------------------------------------------------------

    /// Passes on reports, closes what can be closed, and forgets about maps
    /// that have nothing to do.
    pub(super) fn settle(&mut self, outbox: &Outbox) {
        let mut at = 0;
        while at < self.active.len() {
            let slot = self.active[at];
            let entry = &mut self.sides[usize::from(slot)];
            let Some(side) = entry else {
                self.active.swap_remove(at);
                continue;
            };
            for report in side.core.reports() {
                outbox.report(MapSlot(slot), report);
            }
            for order in side.core.orders() {
                outbox.send(of_order(MapSlot(slot), order));
            }
            if side.core.quiet().is_some_and(|table| side.counters.be_quiet(table)) {
                outbox.wake();
            }
            if side.leaving_ports > 0 {
                side.let_paths_go(MapSlot(slot), outbox);
            }
            let idle = side.core.is_idle();
            if side.leaving && idle && side.leaving_ports == 0 {
                // Let go of the files before anybody hears of it (law 10).
                *entry = None;
                outbox.send(FromQueue::MapGone(MapSlot(slot)));
                self.active.swap_remove(at);
            } else if idle && side.leaving_ports == 0 && side.core.next_deadline().is_none() {
                side.active = false;
                self.active.swap_remove(at);
            } else {
                at += 1;
            }
        }
    }

    fn each_active(&mut self, mut each: impl FnMut(&mut MapSide)) {
        for &slot in &self.active {
            if let Some(side) = self.sides.get_mut(usize::from(slot)).and_then(Option::as_mut) {
                each(side);
            }
        }
    }

    #[inline]
    fn get(&self, slot: u16) -> Option<&MapSide> {
        self.sides.get(usize::from(slot))?.as_deref()
    }

    #[inline]
    fn get_mut(&mut self, slot: u16) -> Option<&mut MapSide> {
        self.sides.get_mut(usize::from(slot))?.as_deref_mut()
    }

    /// The map, which is looked at in this round.
    fn wake(&mut self, slot: u16) -> Option<&mut MapSide> {
        let side = self.sides.get_mut(usize::from(slot))?.as_deref_mut()?;
        if !side.active {
            side.active = true;
            self.active.push(slot);
        }
        Some(side)
    }
}

impl MapSide {
    #[inline]
    fn port_mut(&mut self, id: PathId) -> Option<&mut Port> {
        self.ports.get_mut(usize::from(id.slot))?.as_mut().filter(|p| p.id == id)
    }

    /// Closes this thread's side of removed paths whose commands are back.
    fn let_paths_go(&mut self, map: MapSlot, outbox: &Outbox) {
        for slot in &mut self.ports {
            let gone = |p: &Port| p.leaving && self.core.in_flight(p.id) == 0;
            if let Some(Port { id, port, .. }) = slot.take_if(|p| gone(p)) {
                self.leaving_ports -= 1;
                // Let go of the file before anybody hears of it (law 10).
                drop(port);
                outbox.send(FromQueue::Detached(map, id));
            }
        }
    }
}

fn of_order(map: MapSlot, order: Order) -> FromQueue {
    match order {
        Order::Given { order, cdb, list } => FromQueue::Ordered { map, order, cdb, list },
        Order::Withdrawn(order) => FromQueue::Withdrawn(map, order),
    }
}

/// The request core's way to the paths.
struct ToPaths<'a> {
    uring: &'a mut Uring,
    ports: &'a mut [Option<Port>],
    counters: &'a Counters,
    slot: u16,
}

impl Issue for ToPaths<'_> {
    fn issue(
        &mut self,
        path: PathId,
        cookie: Cookie,
        command: &Command<'_>,
    ) -> Result<Issued, Rejected> {
        let port = self.ports.get_mut(usize::from(path.slot)).and_then(Option::as_mut);
        let Some(port) = port.filter(|p| p.id == path) else {
            // The table names a path this thread was never given: treat it as
            // a path that is not there.
            let code = libc::ENODEV;
            let from = ErrnoFrom::Block;
            return Ok(Issued::Done(Completion::Errno { from, code }));
        };
        let issued = port.port.issue(self.uring, user_data(self.slot, cookie), command)?;
        self.counters.issued(path, bytes_of(command));
        Ok(issued)
    }
}

fn bytes_of(command: &Command<'_>) -> u64 {
    match command.op {
        Op::Read(_) | Op::Write { .. } | Op::Cdb { .. } => {
            crate::io::total_len(command.data) as u64
        }
        Op::Flush | Op::Unmap | Op::WriteZeroes { .. } => 0,
    }
}
