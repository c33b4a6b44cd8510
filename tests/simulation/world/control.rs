//! The control thread: engine, checking threads, and what they ask for.

use super::progress::Progress;
use super::*;
use crate::jobs::{Coming, Job, Move, Proof, Task, What};
use vhost_mpath::mpath::checker::Checker;
use vhost_mpath::mpath::event::HostNews;
use vhost_mpath::mpath::hwhandler::Handler;
use vhost_mpath::mpath::prio::Prioritizer;
use vhost_mpath::mpath::probe::{Answer, DeviceState, Fact, Probe, Transfer};
use vhost_mpath::mpath::reservation::News;
use vhost_mpath::sim;

const INQUIRY: u8 = 0x12;

impl World {
    pub(super) fn engine(&mut self, event: Event) {
        self.moment += 1;
        if self.trace && event != Event::Timer {
            eprintln!("{:?} {event:?}", self.now);
        }
        match &event {
            Event::Io(IoReport { path, reason: IoReason::Judged { verdict, .. }, .. })
                if *verdict == PathVerdict::Doubt =>
            {
                self.laws.doubted(self.moment, *path);
            }
            Event::Told { path, news: HostNews::PerhapsAnother(_) } => self.questioned(*path),
            // The capacity is the engine's to judge.
            Event::Proven { path, proof, identity: Ok(found) }
                if found.wwid == self.map.identity().wwid =>
            {
                self.laws.proof_succeeds(*path, *proof);
            }
            _ => {}
        }
        let old = match &event {
            Event::Io(IoReport { path, epoch, reason }) => {
                let doubt = matches!(reason, IoReason::Judged { verdict: PathVerdict::Doubt, .. });
                self.map
                    .path(*path)
                    .filter(|p| p.epoch != *epoch && !doubt)
                    .map(|p| (p.id, p.state))
            }
            _ => None,
        };
        self.reasons.tells(self.moment, self.now, &event, &self.map);
        self.access.tells(self.now, &event, &self.map);
        self.watch.tells(self.now, &event);
        let resized = match &event {
            Event::Io(report) if resized(report) => Some(report.path),
            _ => None,
        };
        let reserved = matches!(event, Event::Reserved { .. });
        if let Event::Reserved { job, answer, .. } = &event {
            self.reserved(*job, answer);
        }
        let conflict = match &event {
            Event::Io(IoReport { path, reason: IoReason::Judged { verdict, .. }, .. })
                if *verdict == PathVerdict::Conflict =>
            {
                self.map.path(*path).map(|p| (p.id, p.state))
            }
            _ => None,
        };
        let mut fx = Effects::new();
        self.laws.renewed = conflict.is_some();
        self.map.handle(self.now, event, &mut fx);
        if let Some((path, state)) = conflict {
            let now = self.map.path(path).map(|p| p.state);
            assert_eq!(now, Some(state), "a conflict by {path} changed its state");
        }
        if let Some((path, state)) = old {
            let now = self.map.path(path).map(|p| p.state);
            assert_eq!(now, Some(state), "an old report about {path} changed its state");
        }
        if let Some(path) = resized.and_then(|id| self.map.path(id)) {
            // (One that is out of use is proven when it returns.)
            let id = path.id;
            let proven = !path.is_usable() || path.is_being_proven();
            assert!(proven, "{id} has told of another size, and is not proven");
            let begins = |e: &Effect| matches!(e, Effect::Prove { path, .. } if *path == id);
            assert!(!path.is_usable() || fx.iter().any(begins), "{id}: by a proof begun before");
        }
        self.carry_out(fx);
        if reserved {
            self.others_may_tell();
        }
    }

    pub(super) fn carry_out(&mut self, fx: Effects) {
        self.moment += 1;
        self.laws.renewed |=
            fx.iter().any(|e| matches!(e, Effect::Notify(Change::Reservation(News::Preempted(_)))));
        self.laws.check(self.moment, self.now, &fx, &self.map);
        self.reasons.asks(self.moment, self.now, &fx, &self.map);
        self.has_reasons();
        self.access.asks(self.now, &fx, &self.map);
        self.access.check(self.now, &self.map);
        self.watch.asks(self.now, &fx, &self.map);
        let open: Vec<PathId> = self.wire.plugs.iter().map(|p| p.id).collect();
        self.watch.check(self.now, &self.map, &open);
        self.count_effects(&fx);
        for effect in fx {
            if self.trace {
                eprintln!("{:?}   -> {effect:?}", self.now);
            }
            match effect {
                Effect::Publish(table) => {
                    self.note_suspended(&table);
                    self.post(Message::Table(table));
                }
                Effect::Check { path, check, checker: kind } => {
                    let kept = self.wire.plug_mut(path).and_then(|p| p.checker.take());
                    let kept = kept.filter(|c| c.kind() == kind);
                    let checker = kept.unwrap_or_else(|| Checker::new(kind));
                    self.begin(path, Task::Check(check, checker));
                }
                Effect::Prioritize { path, reading, prio } => {
                    self.totals.readings += 1;
                    let Some(plug) = self.wire.plug_mut(path) else { continue };
                    let kept = plug.prioritizer.take().filter(|p| *p.kind() == prio);
                    let prioritizer =
                        kept.unwrap_or_else(|| Prioritizer::new(prio, &plug.attributes));
                    self.begin(path, Task::Prioritize(reading, prioritizer));
                }
                Effect::Activate { path, activation, handler, group } => {
                    self.totals.activations += 1;
                    self.begin(path, Task::Activate(activation, Handler::new(handler, group)));
                }
                Effect::Sample { path, sample } => {
                    self.totals.samples += 1;
                    self.begin(path, Task::Sample(sample));
                }
                Effect::Prove { path, proof } => {
                    self.laws.proof_begins(self.moment, path, proof);
                    self.begin(path, Task::Prove(proof, Proof::new()));
                }
                Effect::Retire(path) => self.post(Message::Retire(path)),
                Effect::Reserve { path, job, ask } => self.reserve(path, job, ask),
                Effect::Answer { order, outcome } => self.answered(order, outcome),
                Effect::Attention(code) => self.engine_tells(code),
                Effect::Remember(what) => self.remember(what),
                Effect::Notify(change) => self.notified(&change),
            }
        }
        self.forget_orders();
    }

    fn has_reasons(&mut self) {
        let Progress { disabled, flushed, .. } = self.progress;
        let setting = Setting { disabled, flushed };
        let ids = self.wire.plugs.iter().map(|p| p.id);
        let paths: Vec<PathId> = match self.map.table() {
            Some(table) if table.groups.is_empty() => ids.collect(),
            _ => Vec::new(),
        };
        self.reasons.check(self.now, &self.map, &paths, setting);
    }

    fn notified(&mut self, change: &Change) {
        self.take_down(change);
        let totals = &mut self.totals;
        match change {
            Change::PathFailed { .. } => totals.path_failures += 1,
            Change::PathReinstated { .. } => totals.reinstated += 1,
            Change::GroupSwitched { .. } => totals.switches += 1,
            Change::AccessChanged { .. } => totals.access_changes += 1,
            Change::Activated { .. } => totals.activated += 1,
            Change::Marginal { marginal: true, .. } => totals.marginal += 1,
            Change::Resized { to, .. } => {
                assert!(self.had.contains(&to.0), "the LU never had {to} blocks");
                totals.resized += 1;
            }
            Change::Reservation(news) => self.reservation_news(news),
            _ => {}
        }
    }

    // --- checking threads -------------------------------------------------------

    pub(super) fn begin(&mut self, path: PathId, mut task: Task) {
        if self.wire.plug(path).is_none() {
            return; // closed
        }
        let first = task.begin(path);
        self.go_on(path, task, first);
    }

    /// Carries out a task's next move; facts are there at once.
    fn go_on(&mut self, path: PathId, mut task: Task, mut next: Move) {
        loop {
            next = match next {
                Move::End(event) => return self.task_ends(path, task, event),
                Move::Nothing => return,
                Move::Ask(Probe::Fact(fact)) => {
                    let answer = self.fact(path, fact);
                    task.on_answer(path, &answer)
                }
                Move::Ask(Probe::ReadFirstBlock) => {
                    let cdb = Cdb::read(Extent::new(0, 1)).expect("encodable");
                    return self.send(path, task, cdb, Transfer::In(BLOCK));
                }
                Move::Ask(Probe::Command { cdb, transfer }) => {
                    return self.send(path, task, cdb, transfer);
                }
            };
        }
    }

    fn send(&mut self, path: PathId, mut task: Task, cdb: Cdb, transfer: Transfer) {
        let Some(plug) = self.wire.plug(path) else { return };
        let (nexus, mut timeout) = (plug.nexus, self.policy.checker_timeout);
        // (A checking thread sends one command at a time.)
        let telling = plug.remapped.as_ref().is_some_and(|remapped| remapped.telling.is_some());
        let in_doubt = plug.doubts.met != plug.doubts.settled || telling;
        let (data_out, data_in_max) = match transfer {
            Transfer::None => (Vec::new(), 0),
            Transfer::In(len) => (Vec::new(), len),
            Transfer::Out(data) => (data, 0),
        };
        // INQUIRY is served in spite of a unit attention.
        let meets = cdb.opcode() != INQUIRY;
        let drains = meets.then(|| self.moment());
        if let Task::Prove(_, proof) = &mut task {
            if proof.is_at_capacity() {
                proof.moment = drains.unwrap_or(0);
            } else if let Some(plug) = self.wire.plug(path) {
                proof.doubts = plug.doubts.met;
            }
        }
        if self.wire.plug(path).is_some_and(|p| p.deleted) {
            let none = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ENODEV };
            let answer =
                Answer::Completed { completion: none, data: Vec::new(), took: Duration::ZERO };
            let next = task.on_answer(path, &answer);
            return self.go_on(path, task, next);
        }
        if let Task::Reserve(n, reserving) = &mut task {
            if let (Some(hosts), Some(moment)) = (&mut self.hosts, drains) {
                hosts.sent(*n, moment);
            }
            if in_doubt {
                // As the daemon's thread: nothing of the kind goes to another LU.
                let completion = Completion::Errno { from: ErrnoFrom::Ioctl, code: libc::ESTALE };
                let answer =
                    Answer::Completed { completion, data: Vec::new(), took: Duration::ZERO };
                let next = task.on_answer(path, &answer);
                return self.go_on(path, task, next);
            }
            timeout = timeout.max(COMMAND_TIMEOUT);
            if let Some(scsi) = &self.scsi {
                let codes = reserving.told.iter();
                let expect = |code: &SenseCode| scsi.attentions.expect_of_others(path.key(), *code);
                reserving.expected = codes.map(expect).collect();
            }
        }
        let tag = self.wire.tag();
        let sent = self.scsi.as_ref().map_or(0, |s| s.attentions.now());
        let what = What::Path(path, task);
        self.wire.jobs.push(Job { tag, what, sent, drains, begun: self.now });
        let sim = sim::Task { nexus, tag, cdb, data_out, data_in_max, timeout };
        match self.wire.plug_mut(path).and_then(|p| p.remapped.as_mut()) {
            None => self.array.submit(self.now, sim),
            Some(remapped) => {
                // Until that is back the array keeps the host off the other LU.
                if meets && remapped.attention {
                    remapped.telling = Some(tag);
                }
                self.other.submit(self.now, sim);
            }
        }
    }

    pub(super) fn task_done(&mut self, done: Done) {
        if done.tag & 1 == 1 {
            return self.command_done(done);
        }
        let at = self.wire.jobs.iter().position(|j| j.tag == done.tag);
        let job = self.wire.jobs.swap_remove(at.expect("a task ends once"));
        match job.what {
            What::ModeSelect { descriptor_sense } => {
                self.mode_selected(&done.completion, descriptor_sense);
            }
            What::SetGroups => {}
            What::Path(path, mut task) => {
                if let Some(remapped) = self.wire.plug_mut(path).and_then(|p| p.remapped.as_mut()) {
                    remapped.attention &= remapped.telling != Some(done.tag);
                }
                self.overhear(path, job.sent, job.drains, &done.completion);
                if let Task::Reserve(_, reserving) = &mut task {
                    let expected = std::mem::take(&mut reserving.expected);
                    self.has_happened(&done.completion, expected);
                }
                if !matches!(task, Task::Check(..) | Task::Prove(..)) {
                    self.resized_by_the_way(path, &done.completion);
                }
                let took = self.now.since(job.begun);
                let answer =
                    Answer::Completed { completion: done.completion, data: done.data_in, took };
                let next = task.on_answer(path, &answer);
                self.go_on(path, task, next);
            }
        }
    }

    /// A command that looks for something else has met the news that the LU
    /// has another size: the engine must hear of it, for it is told once.
    fn resized_by_the_way(&mut self, path: PathId, completion: &Completion) {
        let code = unit_attention(completion).and_then(|sense| sense.code());
        let (Some(SenseCode::CAPACITY_CHANGED), Some(p)) = (code, self.map.path(path)) else {
            return;
        };
        let (epoch, verdict) = (p.epoch, PathVerdict::Check);
        let (op, completion) = (Op::Read(Extent::new(0, 1)), *completion);
        let reason = IoReason::Judged { rule: "ua-capacity-changed", verdict, op, completion };
        self.post(Message::ToEngine(Event::Io(IoReport { path, epoch, reason })));
    }

    /// What came of it; it may take its time to arrive.
    fn task_ends(&mut self, path: PathId, task: Task, event: Event) {
        let ours = match &event {
            Event::Proven { identity: Ok(found), .. } => found.wwid == self.map.identity().wwid,
            _ => false,
        };
        let Some(plug) = self.wire.plug_mut(path) else { return };
        match task {
            Task::Check(_, checker) => plug.checker = Some(checker),
            Task::Prioritize(_, prioritizer) => plug.prioritizer = Some(prioritizer),
            Task::Prove(_, proof) if ours => {
                plug.doubts.settled = plug.doubts.settled.max(proof.doubts);
                if let Some(scsi) = &mut self.scsi {
                    scsi.proven(path, proof.moment);
                }
            }
            _ => {}
        }
        match self.coming() {
            Coming::Soon => self.post(Message::ToEngine(event)),
            Coming::After(delay) => {
                self.totals.late += 1;
                self.answers.push((self.now + delay, event));
            }
            Coming::Stuck => {
                self.totals.late += 1;
                if let Some(plug) = self.wire.plug_mut(path) {
                    plug.stuck += 1;
                }
                self.answers.push((progress::NEVER, event));
            }
        }
    }

    fn coming(&mut self) -> Coming {
        match self.random.below(300) {
            _ if self.wire.calm => Coming::Soon,
            0 => Coming::Stuck,
            1..=5 => Coming::After(self.random.duration(Duration::from_secs(40))),
            _ => Coming::Soon,
        }
    }

    /// What the host says of a path.
    fn fact(&self, path: PathId, fact: Fact) -> Answer {
        let nexus = self.wire.plug(path).map(|p| p.nexus);
        match fact {
            Fact::DeviceState => {
                let state = nexus.and_then(|n| self.array.device_state(n));
                Answer::DeviceState(state.map(|state| match state {
                    sim::DeviceState::Running => DeviceState::Running,
                    sim::DeviceState::Blocked => DeviceState::Blocked,
                    sim::DeviceState::Offline => DeviceState::Offline,
                }))
            }
            Fact::AccessState => Answer::AccessState(nexus.and_then(|n| self.array.access_fact(n))),
        }
    }

    fn command_done(&mut self, done: Done) {
        self.moment += 1;
        let table = Arc::clone(self.core.table());
        let (cookie, path, completion) =
            self.wire.take_off(done.tag, done.completion, &done.data_in, &table);
        if self.trace && completion != Completion::Good {
            eprintln!("{:?} {cookie:?} is back from {path}: {completion:?}", self.now);
        }
        if !matches!(completion, Completion::Good) {
            self.totals.retries += 1;
            if let (Some(record), Some(plug)) = (&mut self.record, self.wire.plug(path)) {
                record.lost(self.now, &plug.name);
            }
            if let Some(sense) = unit_attention(&completion) {
                if sense.code() == Some(SenseCode::CAPACITY_CHANGED) {
                    self.told_size.push(path);
                }
                if let Some(scsi) = &mut self.scsi {
                    scsi.told(path, sense);
                }
            }
        }
        if self.wire.lied.take().is_some() {
            self.lied_to(path);
        }
        self.touched = true;
        self.core.complete(self.now, cookie, &completion);
        self.array.recycle(done.data_in);
    }

    /// For the unit attentions: what was sent before is told from what comes.
    fn moment(&self) -> u64 {
        self.scsi.as_ref().map_or(0, |s| s.attentions.moment())
    }
}
