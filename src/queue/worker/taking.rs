//! From the rings into the maps: taking chains, reading them, handing over.

use super::{QUANTUM, Worker, manage};
use crate::io::{Action, Front, MapSlot, Outcome, Parsed, Request, RingRole, Time};
use crate::queue::FromQueue;
use crate::queue::ring::RunningRing;

/// Chains taken from a control ring per round: each may be work for all
/// threads.
const CONTROL_QUANTUM: usize = manage::ORDERS_A_ROUND;

impl<F: Front> Worker<F> {
    /// Takes a batch from every ring that may have something; true if there is
    /// more than fitted this round.
    pub(super) fn take_from_rings(&mut self, now: Time) -> bool {
        self.hand_over_parked();
        let mut more = false;
        for index in 0..self.rings.len() {
            let Some(ring) = self.rings[index].as_ref() else { continue };
            if !ring.look || !ring.is_popping() {
                continue;
            }
            let room = match ring.role {
                RingRole::Requests => self.maps.room().min(QUANTUM),
                RingRole::Control => CONTROL_QUANTUM,
                RingRole::Events => 0, // taken from when there is an event
            };
            if room == 0 {
                continue; // looked at again when requests have finished
            }
            more |= self.take_batch(now, index, room) == room;
        }
        more
    }

    /// Takes up to `most` chains from a ring and hands them over; how many.
    fn take_batch(&mut self, now: Time, index: usize, most: usize) -> usize {
        let Some(count) = self.take_heads(index, most) else { return 0 };
        for i in 0..count {
            self.take_one(now, index, self.heads[i]);
        }
        count
    }

    /// Takes up to `most` heads from a ring; `None` if it makes no sense.
    fn take_heads(&mut self, index: usize, most: usize) -> Option<usize> {
        let ring = self.rings[index].as_mut()?;
        ring.queue.disable_notification();
        self.heads.clear();
        match ring.queue.take(most, &mut self.heads) {
            Ok(0) => {
                ring.look = false;
                Some(0)
            }
            Ok(n) => Some(n),
            Err(error) => {
                ring.queue.fail(&error);
                ring.broken = true;
                let (ring, reason) = (ring.queue.index, error.to_string());
                self.outbox.send(FromQueue::RingBroken { ring, reason });
                None
            }
        }
    }

    /// Follows one chain and hands the request over, or answers it.
    fn take_one(&mut self, now: Time, index: usize, head: u16) {
        let Some(ring) = self.rings[index].as_mut() else { return };
        if let Err(error) = ring.queue.chain(head, &mut self.chain) {
            // Nothing in the chain can be trusted to hold an answer.
            ring.done.push((head, 0));
            self.outbox.report_chain(ring.queue.index, &error);
            return;
        }
        let mut request = self.pool.pop().unwrap_or_default();
        request.reset();
        request.tag.ring = ring.queue.index;
        request.tag.head = head;
        request.replayed = ring.queue.replays();
        request.arrived = now;
        request.memory_generation = ring.memory_generation();
        match self.front.parse(&self.chain.readable, &self.chain.writable, &mut request) {
            Parsed::Submit => {
                ring.taken();
                if self.maps.room() == 0 {
                    self.parked.push_back(request);
                } else {
                    self.hand_over(request);
                }
            }
            Parsed::Answered { used_len } => {
                ring.done.push((head, used_len));
                self.pool.push(request);
                while let Some(denied) = self.front.denied() {
                    self.outbox.try_send(FromQueue::Denied(denied));
                }
            }
            Parsed::Manage(management) => {
                ring.taken();
                self.functions.take(request, management, ring.since);
            }
        }
    }

    #[inline]
    fn hand_over(&mut self, request: Box<Request>) {
        if let Err(refused) = self.maps.submit(request) {
            // Its map has gone, or has not come yet.
            self.answer(refused, &Outcome::NoPath);
        }
    }

    fn hand_over_parked(&mut self) {
        while self.maps.room() > 0 {
            let Some(request) = self.parked.pop_front() else { return };
            self.hand_over(request);
        }
    }

    /// Ends requests without room whose map goes: its number may be another
    /// LU's by the time there is room.
    pub(super) fn end_parked_of(&mut self, map: MapSlot) {
        for _ in 0..self.parked.len() {
            let Some(request) = self.parked.pop_front() else { break };
            if request.map == map {
                self.answer(request, &Outcome::NoPath);
            } else {
                self.parked.push_back(request);
            }
        }
    }

    // --- task management ----------------------------------------------------------

    /// Carries out the orders that have come, some of them.
    pub(super) fn carry_out_orders(&mut self, now: Time) {
        if !self.orders.are_waiting() {
            return;
        }
        self.take_everything(now);
        for _ in 0..manage::ORDERS_A_ROUND {
            let Some(order) = self.orders.next() else { break };
            if self.end_parked(&order) {
                order.found();
            }
            let mut tickets = Vec::new();
            self.maps.manage(now, &order.management, |map, managed| {
                if managed.found {
                    order.found();
                    tickets.push((map, managed.ticket));
                }
            });
            self.orders.await_end(order, tickets);
        }
    }

    /// Takes what lies in the rings now, room or no room: the driver sent it
    /// before the function of task management that is to reach it.
    fn take_everything(&mut self, now: Time) {
        for index in 0..self.rings.len() {
            let is_one = |r: &&RunningRing| r.role == RingRole::Requests && r.is_popping();
            let Some(ring) = self.rings[index].as_ref().filter(is_one) else { continue };
            let mut left = ring.queue.backlog();
            while left > 0 {
                match self.take_batch(now, index, left.min(QUANTUM)) {
                    0 => break,
                    taken => left -= taken,
                }
            }
        }
    }

    /// Ends requests without room that the order reaches; whether there are any.
    fn end_parked(&mut self, order: &manage::Order) -> bool {
        let mut found = false;
        for _ in 0..self.parked.len() {
            let Some(request) = self.parked.pop_front() else { break };
            let reached = order.management.reach.contains(&request);
            found |= reached;
            match order.management.action {
                Action::End { reset } if reached => {
                    self.answer(request, &Outcome::Aborted { reset });
                }
                _ => self.parked.push_back(request),
            }
        }
        found
    }

    /// Everything that ended is published: whose tasks are all over?
    pub(super) fn tell_ends(&mut self) {
        let Worker { orders, maps, .. } = self;
        orders.tell_ends(|map, management, ticket| maps.is_over(map, management, ticket));
    }

    // --- events -------------------------------------------------------------------

    /// Delivers events by a ring for as long as it has chains for them.
    pub(super) fn tell_by(&mut self, index: usize) {
        for _ in 0..QUANTUM {
            let Some((event, missed)) = self.events.next(&self.front) else { return };
            let Some(1) = self.take_heads(index, 1) else { return };
            let Some(ring) = self.rings[index].as_mut() else { return };
            let head = self.heads[0];
            if let Err(error) = ring.queue.chain(head, &mut self.chain) {
                ring.done.push((head, 0));
                self.outbox.report_chain(ring.queue.index, &error);
                continue;
            }
            let used_len = self.front.event(&self.chain.writable, &event, missed);
            ring.done.push((head, used_len.unwrap_or(0)));
            self.events.used(used_len.is_some());
        }
    }
}
