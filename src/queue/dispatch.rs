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

mod cut;
mod parts;
mod paths;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::io::{Blocks, Command, Completion, Extent, Limits, Op, Outcome, Request, Segment, Time};
use crate::mpath::classify::{self, Disposition, Executed, Next, PathVerdict};
use crate::mpath::event::{IoReason, IoReport};
use crate::mpath::selector::{Load, Selector};
use crate::mpath::snapshot::{PathId, PathTable, Queueing};
use crate::passthrough_scsi::{Issued, Rejected};
use crate::queue::Stop;
use crate::scsi::sense::{Key, Sense, SenseCode};
use crate::scsi::status::Status;
use cut::Cursor;
use parts::{PartIndex, Parts, Place};
use paths::{Mark, Paths};

pub use parts::Cookie;

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

/// How a request left the core.
#[derive(Debug)]
pub enum End {
    /// With an outcome, to be answered.
    Finished(Outcome),
    /// Unanswered, by [`Stop::Suspend`] or [`Stop::Discard`]: stays marked in
    /// the in-flight area.
    Abandoned,
}

/// A request the guest will see fail, for the event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestError {
    /// What it was.
    pub op: Op,
    /// How it ended.
    pub outcome: Outcome,
    /// The classifier's last rule, or the queueing policy's.
    pub rule: &'static str,
    /// Path of the last completion.
    pub path: Option<PathId>,
    /// Commands issued for it.
    pub tries: u32,
}

/// Something for the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Bears on a path.
    Path(IoReport),
    /// A guest-visible error.
    Guest(GuestError),
}

/// Most reports kept for the control thread; more are dropped, the next
/// failure repeats them.
const MAX_REPORTS: usize = 64;

/// Pause before a command goes round again that found transport trouble on
/// every path.
const TRANSPORT_DELAY: Duration = Duration::from_millis(100);

/// A request while it is in the core.
#[derive(Debug)]
struct Running {
    request: Box<Request>,
    op: Op,
    cursor: Cursor,
    /// Parts that exist.
    live: u32,
    /// The first bad end of a part; the rest is not issued any more.
    failure: Option<(Outcome, &'static str, Option<PathId>)>,
    /// A flush follows once the data is written.
    flush_after: bool,
    tries: u32,
    /// Waiting in `backlog` for a free part.
    in_backlog: bool,
}

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
    /// Parts for which no path is left.
    held: VecDeque<PartIndex>,
    /// Parts that wait for a moment, unordered: rare and few.
    delayed: Vec<PartIndex>,
    /// Requests with blocks that no part covers yet, for want of parts.
    backlog: VecDeque<u32>,
    finished: Vec<(Box<Request>, End)>,
    reports: Vec<Report>,
    /// The LU refused WRITE SAME: zeroes are written.
    write_same_refused: bool,
    /// Requests per ring.
    outstanding: Vec<u32>,
    stops: Vec<Option<Stop>>,
}

impl Dispatcher {
    /// An idle core. `table` may be empty of paths.
    pub fn new(settings: Settings, table: Arc<PathTable>) -> Dispatcher {
        let n = settings.max_requests.max(1);
        // Room for every request to have one part, and some to be split.
        let parts = n * 2;
        let mut dispatcher = Dispatcher {
            settings,
            selector: Selector::default(),
            paths: Paths::default(),
            parts: Parts::with_capacity(parts),
            running: (0..n).map(|_| None).collect(),
            free: (0..u32::try_from(n).unwrap_or(u32::MAX)).rev().collect(),
            ready: VecDeque::with_capacity(parts),
            held: VecDeque::with_capacity(parts),
            delayed: Vec::with_capacity(parts),
            backlog: VecDeque::with_capacity(n),
            finished: Vec::with_capacity(n),
            reports: Vec::with_capacity(MAX_REPORTS),
            write_same_refused: settings.limits.max_write_same.0 == 0,
            outstanding: vec![0; settings.rings],
            stops: vec![None; settings.rings],
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
        self.free.len()
    }

    /// Requests of a ring that are in the core.
    pub fn outstanding(&self, ring: u16) -> u32 {
        self.outstanding.get(usize::from(ring)).copied().unwrap_or(0)
    }

    /// Commands of this thread on a path.
    pub fn in_flight(&self, path: PathId) -> u32 {
        self.paths.load(path).commands
    }

    /// Requests that wait because no path is left.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Nothing to issue, nothing on a path, nothing finished.
    pub fn is_idle(&self) -> bool {
        self.free.len() == self.running.len() && self.finished.is_empty()
    }

    /// Changes limits: a path with smaller ones joined the map.
    pub fn set_limits(&mut self, limits: Limits) {
        self.settings.limits = limits;
    }

    /// Takes a new table. Parts that were held get another chance.
    pub fn set_table(&mut self, table: Arc<PathTable>) {
        self.paths.update(&table);
        self.table = table;
        while let Some(index) = self.held.pop_front() {
            self.parts[index].place = Place::Ready;
            self.ready.push_back(index);
        }
    }

    /// Takes a request. Its issue happens in [`Dispatcher::pump`].
    ///
    /// The caller keeps within [`Dispatcher::room`]; a request beyond it is
    /// handed back.
    pub fn submit(&mut self, request: Box<Request>) -> Result<(), Box<Request>> {
        let (Some(op), Some(index)) = (request.op, self.free.pop()) else {
            return Err(request);
        };
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
            request,
        };
        match op {
            Op::Write { fua: true, .. } => running.flush_after = !self.settings.limits.fua,
            Op::WriteZeroes { .. } => running.flush_after = running.request.durable,
            Op::Read(_) | Op::Write { .. } | Op::Flush | Op::Unmap => {}
        }
        self.running[index as usize] = Some(running);
        self.cut(index);
        Ok(())
    }

    /// Issues what can be issued. Call after submissions, completions, a new
    /// table, and when [`Dispatcher::next_deadline`] passed.
    pub fn pump(&mut self, now: Time, paths: &mut impl Issue) {
        self.wake_delayed(now);
        self.find_hung(now);
        loop {
            self.cut_backlog();
            let Some(index) = self.ready.pop_front() else { return };
            match self.place(now, index) {
                Choice::Path(id, epoch) => {
                    if !self.issue(now, index, id, epoch, paths) {
                        self.ready.push_front(index);
                    }
                }
                Choice::Full => {
                    self.ready.push_front(index);
                    return;
                }
                Choice::Gone => {}
            }
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
        let delayed = self.delayed.iter().map(|&i| self.parts[i].wake).min();
        let hung =
            self.paths.oldest(&self.parts).map(|issued| issued + self.settings.suspect_after).min();
        delayed.into_iter().chain(hung).min()
    }

    // --- stopping a ring ----------------------------------------------------

    /// Begins to stop a ring: nothing of it is held any more. The ring may be
    /// given back when [`Dispatcher::outstanding`] is zero.
    pub fn stop_ring(&mut self, ring: u16, how: Stop) {
        self.stops[usize::from(ring)] = Some(how);
        match how {
            // What can progress goes on; what is held ends.
            Stop::Finish => self.retire_waiting(ring, &[Place::Held]),
            Stop::Suspend | Stop::Discard => {
                self.retire_waiting(ring, &[Place::Held, Place::Ready, Place::Delayed]);
            }
        }
    }

    /// The stop's deadline has passed: only what is on a path is still awaited.
    pub fn stop_deadline(&mut self, ring: u16) {
        if self.stops[usize::from(ring)].is_some() {
            self.retire_waiting(ring, &[Place::Held, Place::Ready, Place::Delayed]);
        }
    }

    /// The ring is back with the session; it may start again later.
    pub fn ring_stopped(&mut self, ring: u16) {
        self.stops[usize::from(ring)] = None;
    }

    fn stop_of(&self, request: u32) -> Option<Stop> {
        let running = self.running[request as usize].as_ref()?;
        self.stops.get(usize::from(running.request.tag.ring)).copied().flatten()
    }

    /// Ends the waiting parts of a ring's requests, and their unissued rest.
    fn retire_waiting(&mut self, ring: u16, places: &[Place]) {
        for index in 0..self.running.len() {
            let Some(r) = self.running[index].as_mut() else { continue };
            if r.request.tag.ring != ring {
                continue;
            }
            let request = u32::try_from(index).unwrap_or(u32::MAX);
            let waiting = self.parts.of_request(request, places);
            if waiting.is_empty() && !(r.in_backlog && places.contains(&Place::Ready)) {
                continue;
            }
            r.failure.get_or_insert((Outcome::Stopped, "ring-stopped", None));
            for part in waiting {
                self.forget(part);
            }
            self.end_if_over(request);
        }
    }

    /// Takes a waiting part out of its queue and frees it.
    fn forget(&mut self, index: PartIndex) {
        match self.parts[index].place {
            Place::Ready => self.ready.retain(|&i| i != index),
            Place::Held => self.held.retain(|&i| i != index),
            Place::Delayed => self.delayed.retain(|&i| i != index),
            Place::OnPath | Place::Free => return,
        }
        let request = self.parts[index].request;
        self.parts.free(index);
        if let Some(r) = self.running[request as usize].as_mut() {
            r.live -= 1;
        }
    }

    // --- choosing and issuing -----------------------------------------------

    /// Decides where a part that wants a path goes; parks it if nowhere.
    fn place(&mut self, now: Time, index: PartIndex) -> Choice {
        let part = &self.parts[index];
        if self.running[part.request as usize].as_ref().is_none_or(|r| r.failure.is_some()) {
            // A sibling failed: the request's end is decided.
            let request = part.request;
            self.parts.free(index);
            self.part_over(request);
            return Choice::Gone;
        }
        let tried = part.tried;
        let mut any_usable = false;
        for g in 0..self.table.groups.len() {
            let group = &self.table.groups[g];
            let usable = |p: &&crate::mpath::snapshot::PathView| self.paths.is_usable(p);
            any_usable |= group.paths.iter().any(|p| usable(&p));
            if !group.paths.iter().any(|p| usable(&p) && !tried.contains(p.id)) {
                continue;
            }
            let load = |p: &crate::mpath::snapshot::PathView| -> Option<Load> {
                let free =
                    self.paths.is_usable(p) && !tried.contains(p.id) && !self.paths.is_full(p.id);
                free.then(|| self.paths.load(p.id))
            };
            return match self.selector.select(self.table.selector, &group.paths, load) {
                Some(i) => Choice::Path(group.paths[i].id, group.paths[i].epoch),
                None => Choice::Full,
            };
        }
        if any_usable { self.every_path_answered(now, index) } else { self.no_path_left(index) }
    }

    /// No usable path at all: hold or fail, as the table says; but wait while
    /// a verdict about a path is still to come.
    fn no_path_left(&mut self, index: PartIndex) -> Choice {
        let request = self.parts[index].request;
        let stopping = self.stop_of(request).is_some();
        if stopping {
            self.end_part(index, Outcome::Stopped, "ring-stopped", None);
        } else if self.table.queueing == Queueing::Hold || self.paths.any_undecided() {
            self.parts[index].place = Place::Held;
            self.held.push_back(index);
        } else {
            self.end_part(index, Outcome::NoPath, "no-path", None);
        }
        Choice::Gone
    }

    /// Every usable path has given its answer: they agree, it is the LU's.
    fn every_path_answered(&mut self, now: Time, index: PartIndex) -> Choice {
        let (budget, queueing) = (self.settings.command_timeout, self.table.queueing);
        let part = &mut self.parts[index];
        let in_time = now.since(part.first_delay.unwrap_or(now)) < budget;
        if part.next_is_passthrough || (part.tried.is_single() && !part.asked_twice) {
            // Once more on a path that has spoken already: for the sense, or
            // because there is nobody else to ask.
            part.asked_twice |= !part.next_is_passthrough;
            part.next_is_passthrough = false;
            part.tried.clear();
            self.ready.push_front(index);
            return Choice::Gone;
        }
        match (part.answer, part.patience) {
            // Every path had transport trouble and none failed for it: not an
            // answer. Hold it, as the queueing policy says.
            (Some((Outcome::NoPath, ..)), _) if in_time || queueing == Queueing::Hold => {
                self.delay(now, index, TRANSPORT_DELAY);
            }
            (Some((Outcome::Lu { .. }, ..)), Some(pause)) if in_time => {
                self.delay(now, index, pause);
            }
            (Some((outcome, rule, path)), _) => self.end_part(index, outcome, rule, Some(path)),
            (None, _) => self.end_part(index, Outcome::NoPath, "no-answer", None),
        }
        Choice::Gone
    }

    /// Issues a part; false if the path is full after all.
    fn issue(
        &mut self,
        now: Time,
        index: PartIndex,
        id: PathId,
        epoch: u32,
        paths: &mut impl Issue,
    ) -> bool {
        let part = &self.parts[index];
        let Some(running) = self.running[part.request as usize].as_mut() else { return true };
        let data: &[Segment] = if part.whole { &running.request.data } else { &part.data };
        let extents: &[Extent] = if part.whole { &running.request.extents } else { &part.extents };
        let command = Command {
            op: part.op,
            data,
            extents,
            passthrough: part.passthrough,
            timeout: self.settings.command_timeout,
        };
        let cookie = self.parts.cookie(index);
        match paths.issue(id, cookie, &command) {
            Err(Rejected) => {
                self.paths.set_full(id);
                false
            }
            Ok(issued) => {
                running.tries += 1;
                self.paths.put_on(&mut self.parts, index, id, epoch, now);
                if let Issued::Done(completion) = issued {
                    self.complete(now, cookie, &completion);
                }
                true
            }
        }
    }

    // --- judging completions ------------------------------------------------

    fn judge(
        &mut self,
        now: Time,
        index: PartIndex,
        path: PathId,
        epoch: u32,
        completion: &Completion,
    ) {
        if matches!(completion, Completion::Good) {
            self.part_good(index);
            return;
        }
        if let Completion::Short(done) = *completion {
            if done > 0 && self.continue_short(index, done) {
                return;
            }
        }
        let verdict = classify::classify(completion);
        let op = self.parts[index].op;
        if verdict.path != PathVerdict::Keep {
            self.report_path(path, epoch, verdict, op, completion);
        }
        if self.fall_back_to_writing_zeroes(index, completion) {
            return;
        }
        let outcome = outcome_of(completion);
        if !op.is_idempotent()
            && verdict.executed == Executed::Maybe
            && !matches!(verdict.next, Next::Done | Next::Deliver | Next::Own)
        {
            // Law 3: it may have been executed; the guest must decide.
            self.end_part(index, ambiguous(), "ambiguous", Some(path));
            return;
        }
        self.carry_out(now, index, path, verdict, outcome);
    }

    fn carry_out(
        &mut self,
        now: Time,
        index: PartIndex,
        path: PathId,
        verdict: Disposition,
        outcome: Outcome,
    ) {
        let budget = self.settings.command_timeout;
        let part = &mut self.parts[index];
        if !matches!(verdict.path, PathVerdict::Fail | PathVerdict::Doubt) {
            // What a path says that is out of use now is nobody's answer.
            part.answer = Some((outcome, verdict.rule, path));
        }
        match verdict.next {
            Next::Done => self.part_good(index),
            Next::Deliver | Next::Own => self.end_part(index, outcome, verdict.rule, Some(path)),
            Next::Again { tries } if part.again < tries => {
                part.again += 1;
                self.make_ready(index);
            }
            Next::Later { delay } if now.since(part.first_delay.unwrap_or(now)) < budget => {
                self.delay(now, index, delay);
            }
            // Repeating did not help against transport trouble: elsewhere.
            Next::Again { .. } if outcome == Outcome::NoPath => {
                part.tried.insert(path);
                self.make_ready(index);
            }
            Next::Again { .. } | Next::Later { .. } => {
                self.end_part(index, outcome, verdict.rule, Some(path));
            }
            Next::Other | Next::OtherThenLater { .. } | Next::OtherPassthrough => {
                part.patience = match verdict.next {
                    Next::OtherThenLater { delay } => Some(delay),
                    _ => None,
                };
                // A path that failed may come back and be tried again; one
                // that merely answered has had its say.
                if verdict.path != PathVerdict::Fail && verdict.path != PathVerdict::Doubt {
                    part.tried.insert(path);
                }
                if verdict.next == Next::OtherPassthrough && !part.passthrough {
                    part.passthrough = true;
                    part.next_is_passthrough = true;
                }
                self.make_ready(index);
            }
        }
    }

    /// Lets a part wait for a moment.
    fn delay(&mut self, now: Time, index: PartIndex, delay: Duration) {
        let part = &mut self.parts[index];
        part.tried.clear();
        part.first_delay.get_or_insert(now);
        part.wake = now + delay;
        part.place = Place::Delayed;
        self.delayed.push(index);
        self.stop_if_suspended(index);
    }

    fn make_ready(&mut self, index: PartIndex) {
        self.parts[index].place = Place::Ready;
        // Older than anything that waits: goes first.
        self.ready.push_front(index);
        self.stop_if_suspended(index);
    }

    /// A part came back to wait while its ring is being suspended.
    fn stop_if_suspended(&mut self, index: PartIndex) {
        let request = self.parts[index].request;
        if matches!(self.stop_of(request), Some(Stop::Suspend | Stop::Discard)) {
            if let Some(r) = self.running[request as usize].as_mut() {
                r.failure.get_or_insert((Outcome::Stopped, "ring-stopped", None));
            }
            self.forget(index);
            self.end_if_over(request);
        }
    }

    /// Reissues the rest after a short transfer; false if there is no whole
    /// block to go on from.
    fn continue_short(&mut self, index: PartIndex, done: usize) -> bool {
        let block = u64::from(self.settings.block_size);
        let whole = Blocks(done as u64 / block);
        let request = self.parts[index].request;
        let Some(running) = self.running[request as usize].as_ref() else { return false };
        if !self.parts.advance(index, whole, block, &running.request.data) {
            return false;
        }
        self.make_ready(index);
        true
    }

    /// WRITE SAME refused (05/20, 05/24, EOPNOTSUPP): zeroes are written from
    /// now on, beginning with this part.
    fn fall_back_to_writing_zeroes(&mut self, index: PartIndex, completion: &Completion) -> bool {
        if !matches!(self.parts[index].op, Op::WriteZeroes { .. }) || !is_refusal(completion) {
            return false;
        }
        self.write_same_refused = true;
        if let Op::WriteZeroes { extent, .. } = self.parts[index].op {
            self.zero_by_writing(index, extent);
        }
        true
    }

    // --- ends of parts and requests -----------------------------------------

    fn part_good(&mut self, index: PartIndex) {
        let left = self.parts[index].zeroes_left;
        if left.blocks.0 > 0 {
            self.zero_by_writing(index, left);
            return;
        }
        let request = self.parts[index].request;
        self.parts.free(index);
        self.part_over(request);
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
        self.parts.free(index);
        self.part_over(request);
    }

    fn part_over(&mut self, request: u32) {
        if let Some(r) = self.running[request as usize].as_mut() {
            r.live -= 1;
        }
        self.end_if_over(request);
    }

    /// Ends a request none of whose parts is left, unless there is more to do.
    fn end_if_over(&mut self, request: u32) {
        let Some(r) = self.running[request as usize].as_mut() else { return };
        if r.live > 0 {
            return;
        }
        if r.failure.is_none() {
            if r.in_backlog {
                return;
            }
            if r.flush_after {
                r.flush_after = false;
                r.op = Op::Flush;
                r.cursor = Cursor::default();
                self.cut(request);
                return;
            }
        }
        self.end(request);
    }

    fn end(&mut self, request: u32) {
        let Some(r) = self.running[request as usize].take() else { return };
        if r.in_backlog {
            self.backlog.retain(|&i| i != request);
        }
        self.free.push(request);
        let ring = usize::from(r.request.tag.ring);
        self.outstanding[ring] -= 1;
        let end = match r.failure {
            None => End::Finished(Outcome::Good),
            Some((Outcome::Stopped, ..))
                if matches!(self.stops[ring], Some(Stop::Suspend | Stop::Discard)) =>
            {
                End::Abandoned
            }
            Some((outcome, rule, path)) => {
                let op = r.request.op.unwrap_or(r.op);
                self.report(Report::Guest(GuestError { op, outcome, rule, path, tries: r.tries }));
                End::Finished(outcome)
            }
        };
        self.finished.push((r.request, end));
    }

    // --- time and reports -----------------------------------------------------

    fn wake_delayed(&mut self, now: Time) {
        let mut i = 0;
        while i < self.delayed.len() {
            let index = self.delayed[i];
            if self.parts[index].wake <= now {
                self.delayed.swap_remove(i);
                self.parts[index].place = Place::Ready;
                self.ready.push_back(index);
            } else {
                i += 1;
            }
        }
    }

    /// Marks paths with a command that has been out too long. The command
    /// stays where it is (law 1); nothing new joins it.
    fn find_hung(&mut self, now: Time) {
        let after = self.settings.suspect_after;
        while let Some(index) = self.paths.next_hung(&mut self.parts, now, after) {
            let part = &self.parts[index];
            let (id, epoch) = (part.path, part.epoch);
            let reason = IoReason::Hung { op: part.op, out: now.since(part.issued) };
            if self.paths.mark(id, epoch, Mark::Undecided) {
                self.report(Report::Path(IoReport { path: id, epoch, reason }));
            }
        }
    }

    fn report_path(
        &mut self,
        path: PathId,
        epoch: u32,
        verdict: Disposition,
        op: Op,
        completion: &Completion,
    ) {
        let news = match verdict.path {
            PathVerdict::Fail => self.paths.mark(path, epoch, Mark::Failed),
            PathVerdict::Doubt => self.paths.mark(path, epoch, Mark::Undecided),
            PathVerdict::Check => true,
            PathVerdict::Keep => false,
        };
        if news {
            let reason = IoReason::Judged {
                rule: verdict.rule,
                verdict: verdict.path,
                op,
                completion: *completion,
            };
            self.report(Report::Path(IoReport { path, epoch, reason }));
        }
    }

    fn report(&mut self, report: Report) {
        if self.reports.len() < MAX_REPORTS {
            self.reports.push(report);
        }
    }
}

/// What to do with a part that wants a path.
enum Choice {
    /// Issue it there.
    Path(PathId, u32),
    /// Wait for room on the paths.
    Full,
    /// It has been dealt with.
    Gone,
}

/// The outcome a completion stands for if it is delivered.
fn outcome_of(completion: &Completion) -> Outcome {
    match completion {
        Completion::Good | Completion::Short(_) => Outcome::Host(libc::EIO),
        Completion::Scsi { status, sense, .. } if *status != Status::GOOD => {
            Outcome::Lu { status: *status, sense: *sense }
        }
        Completion::Scsi { .. } => Outcome::NoPath,
        Completion::Errno { code, .. } => Outcome::Host(*code),
    }
}

/// CHECK CONDITION 0B/00/06: I/O process terminated.
fn ambiguous() -> Outcome {
    let sense = Sense::fixed(SenseCode::new(Key::AbortedCommand, 0x00, 0x06));
    Outcome::Lu { status: Status::CHECK_CONDITION, sense }
}

/// Whether the LU (or the kernel for it) said that it does not know the
/// command or a field of it.
fn is_refusal(completion: &Completion) -> bool {
    match completion {
        Completion::Scsi { sense, .. } => sense
            .code()
            .is_some_and(|c| c.key == Key::IllegalRequest && matches!(c.asc, 0x20 | 0x24)),
        Completion::Errno { code, .. } => *code == libc::EOPNOTSUPP,
        Completion::Good | Completion::Short(_) => false,
    }
}

#[cfg(test)]
mod tests;
