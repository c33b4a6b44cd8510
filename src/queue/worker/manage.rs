//! Task management over all queue threads (SAM-5 7; virtio 1.3 5.6.6.2).
//!
//! The thread that takes a task management function from its ring sends an
//! [`Order`] to every thread, itself among them. Each takes everything that
//! its rings have, so that no task the guest sent before is overlooked, and
//! lets the request cores end or look for what the function reaches. Once the
//! last of that is in the used rings of a thread, it says so; the last thread
//! to say so sends word back, and the function is answered.
//!
//! Here is the bookkeeping of both sides; the worker carries it out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::io::{Action, Management, MapSlot, Reach, Request, Time};
use crate::queue::dispatch::Ticket;
use crate::queue::mailbox::{Mail, Mailbox};
use crate::queue::{FromQueue, Outbox};

/// Task management waits for so long after its ring has started: the rings of
/// a device start one after the other, and a task left in flight by an earlier
/// owner is found only when its own ring runs.
const SETTLING: Duration = Duration::from_millis(500);

/// Most functions under way at once that this thread has begun; more wait
/// their turn. Each is looked after in every round in which a task ends.
const MOST_BEGUN: usize = 64;

/// Orders carried out in one round, so that a storm of them does not keep the
/// requests waiting.
pub(super) const ORDERS_A_ROUND: usize = 16;

/// How far an order has come in all threads.
#[derive(Debug)]
struct Progress {
    threads_left: AtomicUsize,
    found: AtomicBool,
    number: u64,
    /// Mailbox of the thread that answers.
    home: Arc<Mailbox>,
}

/// A task management function on its way through the queue threads.
#[derive(Clone, Debug)]
pub(in crate::queue) struct Order {
    pub(super) management: Management,
    progress: Arc<Progress>,
}

impl Order {
    pub(super) fn found(&self) {
        self.progress.found.store(true, Ordering::Relaxed);
    }

    /// This thread has nothing to wait for any more.
    fn done(self) {
        let progress = &self.progress;
        // Acquire and release: `found` of every thread is seen by the last.
        if progress.threads_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let found = progress.found.load(Ordering::Relaxed);
            progress.home.post(Mail::Managed { number: progress.number, found });
        }
    }
}

/// A reset of an LU that is not answered before this is dropped: so the
/// control thread can have the LU reset in the array, too.
#[derive(Debug)]
pub struct Resetting(Option<Order>);

impl Drop for Resetting {
    fn drop(&mut self) {
        if let Some(order) = self.0.take() {
            order.done();
        }
    }
}

/// Whether a function resets an LU (and not merely ends tasks of a target).
fn lu_reset(management: &Management) -> Option<MapSlot> {
    match *management {
        Management { action: Action::End { reset: true }, reach: Reach::Unit(map) } => Some(map),
        _ => None,
    }
}

/// A function that this thread has taken from its ring and will answer.
#[derive(Debug)]
struct Taken {
    number: u64,
    request: Box<Request>,
    management: Management,
    /// When it may begin; `None` once it has.
    begins: Option<Time>,
}

/// The functions this thread has taken.
#[derive(Debug)]
pub(super) struct Functions {
    taken: Vec<Taken>,
    next_number: u64,
}

/// The orders this thread carries out.
#[derive(Debug)]
pub(super) struct Orders {
    waiting: VecDeque<Order>,
    /// Carried out; tasks are still on their way back.
    ending: Vec<(Order, Vec<(MapSlot, Ticket)>)>,
    /// A task that one of them reaches has ended since they were looked at.
    stirred: bool,
}

impl Functions {
    pub(super) fn new() -> Functions {
        Functions { taken: Vec::new(), next_number: 0 }
    }

    /// One more, from a ring that started at `started`.
    pub(super) fn take(&mut self, request: Box<Request>, management: Management, started: Time) {
        let number = self.next_number;
        self.next_number += 1;
        let begins = Some(started + SETTLING);
        self.taken.push(Taken { number, request, management, begins });
    }

    /// Sends out the orders of those that may begin; resets of LUs go to
    /// `resets` as well, where somebody wants to have a part in them.
    pub(super) fn begin(
        &mut self,
        now: Time,
        home: &Arc<Mailbox>,
        peers: &[Arc<Mailbox>],
        resets: Option<&Outbox>,
    ) {
        if self.taken.is_empty() {
            return;
        }
        let begun = self.taken.iter().filter(|t| t.begins.is_none()).count();
        let due = self.taken.iter_mut().filter(|t| t.begins.is_some_and(|at| at <= now));
        for function in due.take(MOST_BEGUN.saturating_sub(begun)) {
            function.begins = None;
            let reset = resets.zip(lu_reset(&function.management));
            let progress = Arc::new(Progress {
                threads_left: AtomicUsize::new(peers.len() + usize::from(reset.is_some())),
                found: AtomicBool::new(false),
                number: function.number,
                home: Arc::clone(home),
            });
            for peer in peers {
                let (management, progress) = (function.management, Arc::clone(&progress));
                peer.post(Mail::Manage(Order { management, progress }));
            }
            if let Some((outbox, map)) = reset {
                let order = Order { management: function.management, progress };
                outbox.send(FromQueue::Resetting(map, Resetting(Some(order))));
            }
        }
    }

    /// The function all threads are through with, unless it was let go.
    pub(super) fn over(&mut self, number: u64) -> Option<(Box<Request>, Management)> {
        let at = self.taken.iter().position(|t| t.number == number)?;
        let Taken { request, management, .. } = self.taken.remove(at);
        Some((request, management))
    }

    /// Lets go of those of a ring, which are not answered.
    pub(super) fn abandon(&mut self, ring: u16, mut each: impl FnMut(Box<Request>)) {
        let all = std::mem::take(&mut self.taken);
        let (its, others) = all.into_iter().partition(|t| t.request.tag.ring == ring);
        self.taken = others;
        Vec::<Taken>::into_iter(its).for_each(|function| each(function.request));
    }

    /// When one may begin.
    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        self.taken.iter().filter_map(|t| t.begins).filter(|&at| at > now).min()
    }
}

impl Orders {
    pub(super) fn new() -> Orders {
        Orders { waiting: VecDeque::new(), ending: Vec::new(), stirred: false }
    }

    pub(super) fn add(&mut self, order: Order) {
        self.waiting.push_back(order);
    }

    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn next(&mut self) -> Option<Order> {
        self.waiting.pop_front()
    }

    /// An order is carried out; what it reached in each map ends by `tickets`.
    pub(super) fn await_end(&mut self, order: Order, tickets: Vec<(MapSlot, Ticket)>) {
        self.ending.push((order, tickets));
        self.stirred = true;
    }

    /// A task has ended.
    #[inline]
    pub(super) fn ended(&mut self, request: &Request) {
        if !self.ending.is_empty() && !self.stirred {
            self.stirred = self.ending.iter().any(|(o, _)| o.management.reach.contains(request));
        }
    }

    /// Everything that ended is published: tells whose tasks are all over.
    pub(super) fn tell_ends(
        &mut self,
        mut is_over: impl FnMut(MapSlot, &Management, Ticket) -> bool,
    ) {
        if !std::mem::take(&mut self.stirred) {
            return;
        }
        let mut at = 0;
        while at < self.ending.len() {
            let (order, tickets) = &mut self.ending[at];
            tickets.retain(|&(map, ticket)| !is_over(map, &order.management, ticket));
            if tickets.is_empty() {
                let (order, _) = self.ending.swap_remove(at);
                order.done();
            } else {
                at += 1;
            }
        }
    }
}
