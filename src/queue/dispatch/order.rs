//! Requests that no path carries: a PERSISTENT RESERVE OUT concerns every path
//! of the map, so that the map's engine carries it out (law 5).
//!
//! Such a request has no part and no path. It stays in the core until the
//! engine has answered it, or whatever ends what waits has ended it
//! unanswered: task management, its ring's stop, the map's end. Nobody does it
//! again then, for the engine may have begun (law 3). Suspension and lost
//! paths are nothing to it: what to make of them is the engine's
//! (`mpath::reservation`).

use super::cut::Cursor;
use super::{Dispatcher, Failure, Running, raw};
use crate::io::{Op, Outcome, Request};
use crate::mpath::reservation::OrderId;
use crate::scsi::cdb::Cdb;

/// What the engine is to hear of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// It is to be carried out, and answered ([`Dispatcher::answer`]).
    Given {
        /// Its name.
        order: OrderId,
        /// The command.
        cdb: Cdb,
        /// Its parameter list, as far as it may matter.
        list: Vec<u8>,
    },
    /// Its request has ended without an answer: what has not begun is not to
    /// begin any more.
    Withdrawn(OrderId),
}

/// How an order ends that nobody can say of whether it was carried out.
fn unanswered() -> Failure {
    (raw::ambiguous(), "order-unanswered", None)
}

impl Dispatcher {
    /// Takes a request as an order. The caller keeps within
    /// [`Dispatcher::room`] and sees to it that the name is new; a request
    /// beyond that is handed back.
    pub fn submit_order(
        &mut self,
        request: Box<Request>,
        order: OrderId,
    ) -> Result<(), Box<Request>> {
        let Some(Op::Cdb { cdb, .. }) = request.op else { return Err(request) };
        let index = self.enter(request)?;
        let Some(r) = self.running[index as usize].as_mut() else { return Ok(()) };
        r.cursor = Cursor::complete();
        if r.failure.is_some() {
            // An earlier owner of the ring may have had it carried out.
            self.end(index);
            return Ok(());
        }
        r.order = Some(order);
        let list = r.request.front.buffer.clone();
        self.orders.push(Order::Given { order, cdb, list });
        Ok(())
    }

    /// The engine has carried it out, or cannot. One that has ended otherwise
    /// is nobody's any more.
    pub fn answer(&mut self, order: OrderId, outcome: Outcome) {
        let is_it = |r: &Option<Running>| r.as_ref().is_some_and(|r| r.order == Some(order));
        let Some(index) = self.running.iter().position(is_it) else { return };
        if let Some(r) = self.running[index].as_mut() {
            r.order = None;
            if outcome != Outcome::Good {
                r.failure.get_or_insert((outcome, "ordered", None));
            }
        }
        self.end(u32::try_from(index).unwrap_or(u32::MAX));
    }

    /// What the engine is to hear since the last call, in order.
    pub fn orders(&mut self) -> std::vec::Drain<'_, Order> {
        self.orders.drain(..)
    }

    /// An order's request has ended, and it was not the engine that ended it.
    pub(super) fn withdraw(&mut self, order: OrderId) {
        let is_it = |o: &Order| matches!(o, Order::Given { order: its, .. } if *its == order);
        match self.orders.iter().position(is_it) {
            // Nobody has heard of it.
            Some(at) => drop(self.orders.remove(at)),
            None => self.orders.push(Order::Withdrawn(order)),
        }
    }

    /// Ends those of some requests that are orders; `failure`, if they end as
    /// other requests do.
    pub(super) fn end_orders(
        &mut self,
        which: impl Fn(&Running) -> bool,
        failure: Option<Failure>,
    ) {
        for index in 0..self.running.len() {
            let Some(r) = self.running[index].as_mut() else { continue };
            if r.order.is_some() && which(r) {
                r.failure.get_or_insert(failure.unwrap_or_else(unanswered));
                self.end(u32::try_from(index).unwrap_or(u32::MAX));
            }
        }
    }
}
