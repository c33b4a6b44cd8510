//! The request core: carries each request over the paths of a map until it
//! has one outcome.
//!
//! Sans-I/O: it is told of requests, completions, path tables and the time,
//! and hands commands to an [`Issue`] implementation, so the same code runs in
//! the queue threads and in the deterministic simulation. One instance per
//! queue thread, owned by it; nothing here is shared, locked or allocated per
//! I/O once warm.
//!
//! A request is cut into *parts* that fit the map's limits ([`cut`]). A part
//! is in exactly one place (law 1, [`Place`]): waiting for a path, waiting for
//! a moment, held because no path is left, or on one path. It leaves a path
//! only by that path's completion. What a completion means is decided by
//! `mpath::classify`; this module carries the decision out.
//!
//! A command that the guest composed itself ([`Op::Cdb`]) is never cut, and
//! ends with the LU's word byte for byte ([`raw`]); what concerns all paths at
//! once is no path's at all ([`order`]).

mod bypass;
mod choose;
mod conflict;
mod cut;
mod hold;
mod judge;
mod manage;
mod order;
mod parts;
mod paths;
mod raw;
mod report;
mod stop;
mod suspend;
mod watch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::io::{Command, Completion, Extent, Limits, Op, Outcome, Request, Time};
use crate::mpath::reservation::OrderId;
use crate::mpath::selector::{Came, Selector};
use crate::mpath::snapshot::{PathId, PathTable};
use crate::passthrough_scsi::{Issued, Rejected};
use crate::scsi::attention::Attentions;
use choose::Choice;
use cut::Cursor;
use parts::{PartIndex, Parts, Place};
use paths::Paths;
use stop::Stopping;

pub use manage::{Managed, Ticket};
pub use order::Order;
pub use parts::Cookie;
pub use report::{GuestError, Report};

/// The way to the paths.
pub trait Issue {
    /// Puts a command on a path. The segments stay valid and unmoved until its
    /// completion was handed to [`Dispatcher::complete`].
    fn issue(
        &mut self,
        path: PathId,
        cookie: Cookie,
        command: &Command<'_>,
    ) -> Result<Issued, Rejected>;
}

/// Settings of the request core of one map.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The smallest limits over all paths.
    pub limits: Limits,
    /// Logical block size of the LU in bytes.
    pub block_size: u32,
    /// The kernel gives up on a command after this long; also the time budget
    /// of delayed retries.
    pub command_timeout: Duration,
    /// A command out for longer makes its path suspect.
    pub suspect_after: Duration,
    /// Most requests at once: the sum of the ring sizes served.
    pub max_requests: usize,
    /// Number of rings of the device.
    pub rings: usize,
}

impl Settings {
    /// Length of an extent in bytes.
    fn bytes(&self, extent: Extent) -> u64 {
        extent.blocks.0.saturating_mul(u64::from(self.block_size))
    }
}

/// How a request left the core.
#[derive(Debug)]
pub enum End {
    /// With an outcome, to be answered.
    Finished(Outcome),
    /// Unanswered, by [`Stop::Suspend`](crate::queue::Stop::Suspend) or
    /// [`Stop::Discard`](crate::queue::Stop::Discard): stays marked in the
    /// in-flight area.
    Abandoned,
}

/// A request while it is in the core.
#[derive(Debug)]
struct Running {
    request: Box<Request>,
    op: Op,
    cursor: Cursor,
    /// Parts that exist.
    live: u32,
    /// It ends so, not simply well, and nothing of it is issued any more: the
    /// first bad end of a part, the LU's word on a raw command, or an abort.
    failure: Option<Failure>,
    /// A flush follows once the data is written: durable zeroes, and writes
    /// cut without the FUA they asked for.
    flush_after: bool,
    tries: u32,
    /// Waiting in `backlog` for a free part.
    in_backlog: bool,
    /// Counts the requests of this core.
    serial: u64,
    /// It is an order that has no answer yet, and no part.
    order: Option<OrderId>,
}

/// How a request ends that does not simply end well: outcome, rule, path of
/// the last completion.
type Failure = (Outcome, &'static str, Option<PathId>);

/// The request core of one queue thread.
#[derive(Debug)]
pub struct Dispatcher {
    settings: Settings,
    table: Arc<PathTable>,
    selector: Selector,
    paths: Paths,
    parts: Parts,
    running: Vec<Option<Running>>,
    free: Vec<u32>,
    /// Parts that want a path now, oldest first.
    ready: VecDeque<PartIndex>,
    /// Parts that only full paths can take, while `pump` looks at the others.
    blocked: Vec<PartIndex>,
    /// Parts for which no path is left.
    held: VecDeque<PartIndex>,
    /// None of them has been held since before this.
    held_since: Option<Time>,
    /// Parts that wait for a moment, unordered: rare and few.
    delayed: Vec<PartIndex>,
    /// Requests with blocks that no part covers yet, for want of parts.
    backlog: VecDeque<u32>,
    finished: Vec<(Box<Request>, End)>,
    reports: Vec<Report>,
    /// What the engine has not heard of orders.
    orders: Vec<Order>,
    /// The LU refused WRITE SAME: zeroes are written.
    write_same_refused: bool,
    /// Requests per ring.
    outstanding: Vec<u32>,
    stops: Vec<Option<Stopping>>,
    /// Counts changes of the limits.
    limits_generation: u32,
    /// Unit attentions of the LU as the guest is to hear them; `None` where it
    /// hears of none (virtio-blk).
    attentions: Option<Arc<Attentions>>,
    next_serial: u64,
}

impl Dispatcher {
    /// An idle core. `table` may be empty of paths. It takes memory as it
    /// takes requests: a device may have many LUs, few of them busy.
    pub fn new(
        mut settings: Settings,
        table: Arc<PathTable>,
        attentions: Option<Arc<Attentions>>,
    ) -> Dispatcher {
        settings.max_requests = settings.max_requests.clamp(1, Parts::MOST);
        // Room for every request to have one part, and some to be split.
        let parts = (settings.max_requests * 2).min(Parts::MOST);
        let mut dispatcher = Dispatcher {
            settings,
            selector: Selector::new(table.selector),
            paths: Paths::default(),
            parts: Parts::at_most(parts),
            running: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            blocked: Vec::new(),
            held: VecDeque::new(),
            held_since: None,
            delayed: Vec::new(),
            backlog: VecDeque::new(),
            finished: Vec::new(),
            reports: Vec::new(),
            orders: Vec::new(),
            write_same_refused: settings.limits.max_write_same.0 == 0,
            outstanding: vec![0; settings.rings],
            stops: vec![None; settings.rings],
            limits_generation: 0,
            attentions,
            next_serial: 0,
            table: Arc::clone(&table),
        };
        dispatcher.set_table(table);
        dispatcher
    }

    /// The table in use.
    pub fn table(&self) -> &Arc<PathTable> {
        &self.table
    }

    /// How many more requests fit.
    pub fn room(&self) -> usize {
        self.free.len() + self.settings.max_requests - self.running.len()
    }

    /// Requests of a ring that are in the core.
    pub fn outstanding(&self, ring: u16) -> u32 {
        self.outstanding.get(usize::from(ring)).copied().unwrap_or(0)
    }

    /// Commands of this thread on a path.
    pub fn in_flight(&self, path: PathId) -> u32 {
        self.selector.load(path).commands
    }

    /// Requests that wait because no path is left.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Nothing to issue, nothing on a path, nothing finished.
    pub fn is_idle(&self) -> bool {
        self.free.len() == self.running.len() && self.finished.is_empty()
    }

    /// Changes limits: a path with smaller ones joined the map. What was cut
    /// for the old ones is cut again before it is issued.
    pub fn set_limits(&mut self, limits: Limits) {
        self.settings.limits = limits;
        self.limits_generation = self.limits_generation.wrapping_add(1);
        self.write_same_refused |= limits.max_write_same.0 == 0;
    }

    /// Takes a new table. Parts that were held get another chance.
    pub fn set_table(&mut self, table: Arc<PathTable>) {
        self.paths.update(&table);
        self.selector.update(&table);
        self.table = table;
        self.held_since = None;
        while let Some(index) = self.held.pop_front() {
            let part = &mut self.parts[index];
            part.place = Place::Ready;
            // What was answered before the outage says nothing after it.
            part.new_round();
            part.first_delay = None;
            self.ready.push_back(index);
        }
    }

    /// Takes a request. Its issue happens in [`Dispatcher::pump`].
    ///
    /// The caller keeps within [`Dispatcher::room`]; a request beyond it is
    /// handed back.
    pub fn submit(&mut self, request: Box<Request>) -> Result<(), Box<Request>> {
        let index = self.enter(request)?;
        self.cut(index);
        Ok(())
    }

    /// Gives a request its place.
    fn enter(&mut self, request: Box<Request>) -> Result<u32, Box<Request>> {
        let Some(op) = request.op else { return Err(request) };
        let Some(index) = self.take_slot() else { return Err(request) };
        let serial = self.next_serial;
        self.next_serial += 1;
        let ring = usize::from(request.tag.ring);
        self.outstanding[ring] += 1;
        let mut running = Running {
            op,
            cursor: Cursor::default(),
            live: 0,
            failure: None,
            flush_after: false,
            tries: 0,
            in_backlog: false,
            serial,
            order: None,
            request,
        };
        if let Op::WriteZeroes { .. } = op {
            running.flush_after = running.request.durable;
        }
        if running.request.replayed && !op.is_idempotent() {
            // Law 3: an earlier owner of the ring may have had it executed.
            running.failure = Some((raw::ambiguous(), "replayed", None));
        }
        self.running[index as usize] = Some(running);
        Ok(index)
    }

    /// A free place for a request.
    fn take_slot(&mut self) -> Option<u32> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        let index = u32::try_from(self.running.len()).ok()?;
        if self.running.len() == self.settings.max_requests {
            return None;
        }
        self.running.push(None);
        Some(index)
    }

    /// Issues what can be issued. Call after submissions, completions, a new
    /// table, and when [`Dispatcher::next_deadline`] passed.
    pub fn pump(&mut self, now: Time, paths: &mut impl Issue) {
        self.wake_delayed(now);
        self.end_held(now);
        self.find_hung(now);
        self.repeat_reports(now);
        // Room may have come in ways that are not seen here.
        self.paths.none_is_full();
        loop {
            self.cut_backlog();
            let Some(index) = self.ready.pop_front() else { break };
            match self.place(now, index) {
                Choice::Path(id, epoch) => {
                    if !self.issue(now, index, id, epoch, paths) {
                        self.ready.push_front(index);
                    }
                }
                Choice::Full if self.parts[index].tried.is_empty() => {
                    self.ready.push_front(index);
                    break;
                }
                // It may use some of the paths only; the others go on.
                Choice::Full => self.blocked.push(index),
                Choice::Gone => {}
            }
        }
        while let Some(index) = self.blocked.pop() {
            self.ready.push_front(index);
        }
    }

    /// The path a command is on.
    pub fn path_of(&self, cookie: Cookie) -> Option<PathId> {
        self.parts.find(cookie).map(|index| self.parts[index].path)
    }

    /// Takes the completion of a command. Unknown cookies are ignored.
    pub fn complete(&mut self, now: Time, cookie: Cookie, completion: &Completion) {
        let Some(index) = self.parts.find(cookie) else { return };
        let Some((path, epoch)) = self.paths.take_off(&mut self.parts, index) else { return };
        let good = matches!(completion, Completion::Good | Completion::Short(_));
        let part = &mut self.parts[index];
        part.wake = now;
        let came = Came { want: part.want, issued: part.issued, good };
        self.selector.completed(now, path.slot, &came);
        self.judge(now, index, path, epoch, completion);
    }

    /// Requests that ended since the last call, in order.
    pub fn finished(&mut self) -> std::vec::Drain<'_, (Box<Request>, End)> {
        self.finished.drain(..)
    }

    /// Reports since the last call.
    pub fn reports(&mut self) -> std::vec::Drain<'_, Report> {
        self.reports.drain(..)
    }

    /// When [`Dispatcher::pump`] has something to do without further events.
    pub fn next_deadline(&self) -> Option<Time> {
        if !self.ready.is_empty() && self.selector.all_idle() {
            // Turned away though nothing is on a path: no completion will
            // come to say that there is room.
            return Some(Time::default());
        }
        let delayed = self.delayed.iter().map(|&i| self.parts[i].wake).min();
        let hung =
            self.paths.oldest(&self.parts).map(|issued| issued + self.settings.suspect_after).min();
        let others = self.paths.next_repetition().into_iter().chain(self.next_end_of_held());
        delayed.into_iter().chain(hung).chain(others).min()
    }

    // --- ends of parts and requests -----------------------------------------

    fn part_good(&mut self, index: PartIndex) {
        let request = self.parts[index].request;
        if self.parts[index].left.blocks.0 > 0 && !self.is_decided(request) {
            self.go_on_with_the_rest(index);
            return;
        }
        self.drop_part(index);
    }

    /// The part has nothing more to do.
    fn drop_part(&mut self, index: PartIndex) {
        let request = self.parts[index].request;
        self.parts.free(index);
        self.part_over(request);
    }

    /// Whether nothing of the request is to be issued any more.
    fn is_decided(&self, request: u32) -> bool {
        self.running[request as usize].as_ref().is_none_or(|r| r.failure.is_some())
    }

    fn end_part(
        &mut self,
        index: PartIndex,
        outcome: Outcome,
        rule: &'static str,
        path: Option<PathId>,
    ) {
        let request = self.parts[index].request;
        if let Some(r) = self.running[request as usize].as_mut() {
            r.failure.get_or_insert((outcome, rule, path));
        }
        self.drop_part(index);
    }

    fn part_over(&mut self, request: u32) {
        let Some(r) = self.running[request as usize].as_mut() else { return };
        r.live -= 1;
        if r.failure.is_none() && !r.in_backlog && !r.cursor.is_complete() {
            self.cut_on(request);
        } else {
            self.end_if_over(request);
        }
    }

    /// Ends a request none of whose parts is left, unless there is more to do.
    fn end_if_over(&mut self, request: u32) {
        let must_not_wait = self.must_not_wait(request);
        let Some(r) = self.running[request as usize].as_mut() else { return };
        if r.live > 0 {
            return;
        }
        if r.failure.is_none() {
            if r.in_backlog || r.order.is_some() {
                return;
            }
            if r.flush_after && !must_not_wait {
                r.flush_after = false;
                r.op = Op::Flush;
                r.cursor = Cursor::default();
                self.cut(request);
                return;
            }
            if r.flush_after {
                r.failure = Some(stop::STOPPED);
            }
        }
        self.end(request);
    }

    fn end(&mut self, request: u32) {
        let Some(r) = self.running[request as usize].take() else { return };
        if r.in_backlog {
            self.backlog.retain(|&i| i != request);
        }
        if let Some(order) = r.order {
            self.withdraw(order);
        }
        self.free.push(request);
        let ring = usize::from(r.request.tag.ring);
        self.outstanding[ring] -= 1;
        let end = match r.failure {
            None => End::Finished(Outcome::Good),
            Some((Outcome::Stopped, ..)) if self.stops[ring].is_some_and(Stopping::abandons) => {
                End::Abandoned
            }
            Some((outcome, rule, path)) => {
                let op = r.request.op.unwrap_or(r.op);
                self.tell(GuestError { op, outcome, rule, path, tries: r.tries });
                End::Finished(outcome)
            }
        };
        self.finished.push((r.request, end));
    }
}

#[cfg(test)]
mod tests;
