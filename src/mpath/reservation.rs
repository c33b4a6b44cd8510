//! Persistent reservations over many paths: one nexus to the guest, several to
//! the array (SPC-5 5.14; law 5).
//!
//! Part of the engine, hence pure: what is to be asked by which path goes out
//! as [`Effect::Reserve`], what came of it in
//! as [`Event::Reserved`](super::event::Event::Reserved). One *task* at a time:
//! an order of the guest's (`orders`), or whatever a path needs before it may
//! carry I/O (`lifecycle`, `alone`); all are written as scripts (`script`). Here is
//! what is known, which task is next, and which paths are barred meanwhile.
//! Not here: the wire formats (`scsi::reservation`), and what is held and
//! repeated on a queue thread (`queue::dispatch`).
//!
//! The guest has one key per LU, and nobody else has the same: what is
//! registered with it is ours.

mod alone;
mod conflict;
mod ghosts;
mod known;
mod left_behind;
mod lifecycle;
mod orders;
mod remembered;
mod script;
mod shown;

use std::collections::VecDeque;

use super::Multipath;
use super::classify::PathVerdict;
use super::effect::{Cause, Change, Effect, Effects};
use super::event::{IoReason, IoReport};
use super::path::{Outstanding, Path};
use super::snapshot::{PathId, Queueing};
use crate::io::{Completion, Direction, Op, Outcome, Time};
use crate::scsi::reservation::{InAction, Key, Out, OutAction, Type};
use crate::scsi::sense::SenseCode;
use script::{Entry, Script, Word};
pub use shown::{Facts, News, Registration};

/// A command of ours about reservations, for one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// PERSISTENT RESERVE IN, with room enough for the whole answer.
    In(InAction),
    /// PERSISTENT RESERVE OUT.
    Out(Out),
}

impl Ask {
    /// As a command, for reports.
    fn op(&self) -> Op {
        match self {
            Ask::In(action) => Op::Cdb { cdb: action.cdb(u16::MAX), direction: Direction::In },
            Ask::Out(out) => Op::Cdb { cdb: out.cdb(), direction: Direction::Out },
        }
    }

    /// It may register the path: not to be sent before every queue thread works
    /// by the newest table, which may bar the path.
    pub fn enters(&self) -> bool {
        matches!(self, Ask::Out(out) if out.enters())
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it ended. A unit attention has been told to the guest's
    /// attentions, and the command repeated, by whoever carried it out.
    pub completion: Completion,
    /// Of [`Ask::In`], where it went well: all of it.
    pub data: Vec<u8>,
}

/// What outlives the daemon: a line of the prkeys file, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The guest's key.
    pub key: Key,
    /// It was registered with APTPL.
    pub aptpl: bool,
    /// It was registered with ALL_TG_PT.
    pub all_tg_pt: bool,
}

/// Names a guest's PERSISTENT RESERVE OUT until it is answered: unique as long
/// as the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub u64);

/// Of one path.
#[derive(Clone, Debug, Default)]
pub(super) struct Nexus {
    pub(super) registration: Registration,
    /// Nothing of the guest's goes by it: it waits for what the engine does.
    barred: bool,
    /// Nothing of the guest's goes by it: the reservation is another path's.
    beside: bool,
    /// A command that has not been answered; while there is one, no other is
    /// sent.
    job: Option<Outstanding>,
    /// What it needs was tried in vain since it came, or was checked, last:
    /// when its array did, or did not, take I/O by it.
    rested: Option<bool>,
    /// A command that would have registered it has not been answered: it may
    /// be registered although the guest was preempted meanwhile.
    ghost: bool,
    /// A guest's command met a conflict there.
    conflicted: bool,
    /// It is not asked about that before: the others may meet one, too.
    consults: Option<Time>,
    /// It was registered and has been in order ever since: what becomes of its
    /// registration, the array tells by it.
    listens: bool,
    /// The key it was last known to be registered with, unless the array has
    /// said that it has none such.
    had: Option<Key>,
    /// `News::Barred` was told.
    told: bool,
}

/// What the guest's registration is, in the array, to be found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Recall {
    /// What else it may be than what is registered.
    perhaps: Option<Remembered>,
    /// If it is nothing, somebody else has removed it, and no path has told.
    untold: bool,
    /// Only an administrator says so: if it is nothing, what the array has
    /// instead is not ours to remove.
    given: bool,
}

/// What is known at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    registered: Option<Remembered>,
    /// The guest holds a reservation of this type.
    held: Option<Type>,
    /// By this path.
    holder: Option<PathId>,
}

impl State {
    fn key(&self) -> Option<Key> {
        self.registered.map(|r| r.key)
    }
}

/// An order that has not begun, or found no path that could settle it.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    order: OrderId,
    out: Out,
    /// When it first found no path (`queue_timeout` is counted from then, as
    /// for every request).
    lacks: Option<Time>,
    /// Each path said that the LU is not ready by it: it waits for one that
    /// carries I/O, as every request does.
    unready: bool,
}

/// Guest I/O is held.
#[derive(Clone, Copy, Debug)]
struct Suspension {
    /// Of the first table that says so.
    generation: Option<u64>,
    /// Patience ends then.
    until: Time,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    state: State,
    /// The guest has registered something at some time: what a path has from
    /// then nobody knows.
    ever: bool,
    recall: Option<Recall>,
    orders: VecDeque<Waiting>,
    /// Paths that left the map as ghosts, while the guest's key was this.
    ghosts: usize,
    /// Since when the guest's registration may be that of ghosts which are not there.
    haunted: Option<Time>,
    /// The guest's key, and a PRGENERATION at which it was registered by what is
    /// no ghost. Nobody removes it without another PRGENERATION (SPC-5 5.14.3).
    vouched: Option<(Key, u32)>,
    work: Option<Work>,
    suspension: Option<Suspension>,
    /// A conflict was found to be the LU's word then.
    contested: Option<Time>,
    /// Keys that paths had when they left the map.
    departed: Vec<Key>,
}

/// What is being done.
#[derive(Clone, Copy, Debug)]
enum Task {
    /// The guest's.
    Order(Waiting),
    /// Which key is the guest's?
    Recall(Recall),
    /// The path is to be registered.
    Admit(PathId),
    /// The path is to have no registration.
    Clean(PathId),
    /// A path is to have the reservation that admits one only.
    Take,
}

/// A task under way.
#[derive(Debug)]
struct Work {
    task: Task,
    log: Vec<Entry>,
    /// It is an order that nobody waits for any more.
    withdrawn: bool,
}

impl Path {
    /// What the array knows of its nexus.
    pub fn registration(&self) -> Registration {
        self.nexus.registration
    }

    /// It is in order and carries nothing, because it is not registered, or
    /// not known to be, while the guest is; or the other way round (law 5).
    pub fn is_barred(&self) -> bool {
        self.nexus.barred || self.nexus.beside
    }

    /// It is registered and carries nothing, because the guest's reservation
    /// admits one path only, and that is another.
    pub fn is_beside_the_holder(&self) -> bool {
        self.nexus.beside
    }
}

impl Nexus {
    /// Of a path that joins.
    pub(super) fn of_new_path(reservations: &Reservations) -> Nexus {
        let unknown = reservations.ever || reservations.recall.is_some();
        let registration = if unknown { Registration::Unknown } else { Registration::None };
        Nexus { registration, barred: unknown, ..Nexus::default() }
    }

    fn settled(&mut self, registration: Registration) {
        self.registration = registration;
        (self.ghost, self.conflicted, self.told) = (false, false, false);
        self.consults = None;
        self.listens = registration == Registration::Registered;
        self.rested = None;
    }

    /// What it is nobody knows any more.
    fn unsettled(&mut self) {
        self.registration = Registration::Unknown;
        (self.conflicted, self.consults, self.rested) = (false, None, None);
    }
}

impl Multipath {
    /// For display.
    pub fn reservation_facts(&self) -> Facts {
        let Reservations { state, recall, orders, work, suspension, .. } = &self.reservations;
        let State { registered, held, holder } = *state;
        let at_work = work.as_ref().is_some_and(|w| matches!(w.task, Task::Order(..)));
        Facts {
            registered,
            unsure: recall.is_some(),
            held,
            holder,
            orders: orders.len() + usize::from(at_work),
            suspended: suspension.is_some(),
        }
    }

    // --- what happens ---------------------------------------------------------

    pub(super) fn ordered(&mut self, order: OrderId, out: Out) {
        self.reservations.orders.push_back(Waiting { order, out, lacks: None, unready: false });
    }

    pub(super) fn withdrawn(&mut self, order: OrderId) {
        let Reservations { orders, work, .. } = &mut self.reservations;
        orders.retain(|waiting| waiting.order != order);
        let is_it = |w: &&mut Work| matches!(w.task, Task::Order(its) if its.order == order);
        if let Some(work) = work.as_mut().filter(is_it) {
            work.withdrawn = true;
        }
    }

    /// A command has been answered.
    pub(super) fn reserved(
        &mut self,
        now: Time,
        id: PathId,
        job: u32,
        answer: &Answer,
        fx: &mut Effects,
    ) {
        let Some(path) = self.path_mut(id) else { return };
        let Some(asked) = path.nexus.job.filter(|o| o.number == job) else { return };
        path.nexus.job = None;
        let (usable, epoch) = (path.is_usable(), path.epoch);
        let Some(ask) = self.asked(job).filter(|_| !asked.late) else { return };
        let (word, disposition) = Word::of(answer);
        self.take_word(job, word);
        if usable && disposition.path != PathVerdict::Keep {
            let (rule, verdict) = (disposition.rule, disposition.path);
            let completion = answer.completion;
            let reason = IoReason::Judged { rule, verdict, op: ask.op(), completion };
            self.io_report(now, IoReport { path: id, epoch, reason }, fx);
        }
    }

    /// The path answers, or its access state is another: what it needs is
    /// tried again.
    pub(super) fn may_register(&mut self, id: PathId) {
        if let Some(path) = self.path_mut(id) {
            path.nexus.rested = None;
        }
    }

    pub(super) fn quiet(&mut self, generation: u64) {
        let suspension = self.reservations.suspension;
        if suspension.is_some_and(|s| s.generation.is_some_and(|g| g <= generation)) {
            self.be_quiet(true);
        }
    }

    fn be_quiet(&mut self, quiet: bool) {
        let log = self.reservations.work.iter_mut().flat_map(|work| &mut work.log);
        log.filter(|e| matches!(e, Entry::Quieting)).for_each(|e| *e = Entry::Quiet(quiet));
    }

    /// What job that is.
    fn asked(&self, number: u32) -> Option<Ask> {
        let mut log = self.reservations.work.iter().flat_map(|work| &work.log);
        log.find_map(|entry| match entry {
            Entry::Asked { job, ask, .. } if *job == number => Some(*ask),
            _ => None,
        })
    }

    fn take_word(&mut self, number: u32, word: Word) {
        let mut log = self.reservations.work.iter_mut().flat_map(|work| &mut work.log);
        let asked = log.find(|e| matches!(e, Entry::Asked { job, .. } if *job == number));
        if let Some(entry) = asked {
            *entry = Entry::Answered(word);
        }
    }

    // --- time -------------------------------------------------------------------

    /// Gives up on what has not been answered in time.
    pub(super) fn run_due_reservations(&mut self, now: Time, fx: &mut Effects) {
        let timeout = self.policy.checker_timeout;
        let ids: Vec<PathId> = self.all().map(|p| p.id).collect();
        for id in ids {
            let Some(path) = self.path_mut(id) else { continue };
            let due = |o: &&mut Outstanding| !o.late && o.since + timeout <= now;
            let Some(asked) = path.nexus.job.as_mut().filter(due) else { continue };
            asked.late = true;
            let number = asked.number;
            self.take_word(number, Word::Lost { maybe: true, said: None });
            self.fail(now, id, Cause::Reservation("not answered in time"), fx);
        }
        if self.reservations.suspension.is_some_and(|s| s.until <= now) {
            self.be_quiet(false);
        }
    }

    /// When [`Multipath::run_due_reservations`] has something to do.
    pub(super) fn reservation_deadline(&self) -> Option<Time> {
        let timeout = self.policy.checker_timeout;
        let job = |p: &Path| p.nexus.job.filter(|o| !o.late).map(|o| o.since + timeout);
        let log = self.reservations.work.iter().flat_map(|work| &work.log);
        let quieting = log.filter(|e| matches!(e, Entry::Quieting)).count() > 0;
        let until = self.reservations.suspension.filter(|_| quieting).map(|s| s.until);
        self.all()
            .filter_map(job)
            .chain(until)
            .chain(self.order_deadline())
            .chain(self.consultation_deadline())
            .min()
    }

    // --- tasks --------------------------------------------------------------------

    /// Goes on with what is under way and begins what can be; then says which
    /// paths may carry I/O.
    pub(super) fn run_reservations(&mut self, now: Time, fx: &mut Effects) {
        self.forget_registrations();
        self.weigh_conflicts(now);
        while self.reservations.work.is_some() || self.begin_task() {
            if !self.go_on(now, fx) {
                break;
            }
        }
        self.bar_paths();
        self.note_registrations();
    }

    /// What is registered by a path that is out of use, the array knows.
    fn forget_registrations(&mut self) {
        if !self.all().any(Path::is_usable) {
            self.reservations.haunted = None;
        }
        let Reservations { ever, state, .. } = &mut self.reservations;
        for path in self.paths.iter_mut().flatten().filter(|p| !p.is_usable()) {
            if *ever {
                path.nexus.unsettled();
            }
            (path.nexus.rested, path.nexus.listens) = (None, false);
            if state.holder == Some(path.id) {
                state.holder = None;
            }
        }
    }

    /// A path that is in order and may carry I/O only once something is done.
    fn waits(&self, path: &Path) -> bool {
        let registered = self.reservations.state.registered.is_some();
        path.is_usable()
            && match path.nexus.registration {
                _ if self.reservations.recall.is_some() => true,
                Registration::Registered => false,
                Registration::None => registered,
                Registration::Unknown => true,
            }
    }

    /// Whether that is not to be tried now: it was, in vain.
    fn rests(path: &Path) -> bool {
        let carries = path.standing.carries(path.access);
        path.nexus.rested.is_some_and(|carried| carried || !carries)
    }

    /// The path can be asked something.
    fn is_askable(path: &Path) -> bool {
        path.is_usable() && path.nexus.job.is_none()
    }

    fn begin_task(&mut self) -> bool {
        let ready = |p: &&Path| {
            Multipath::is_askable(p) && !Multipath::rests(p) && p.nexus.consults.is_none()
        };
        let registered = self.reservations.state.registered.is_some();
        let recall = self.reservations.recall;
        let next = self.all().filter(ready).find(|p| self.waits(p)).map(|p| p.id);
        let takes = self.all().filter(ready).any(|p| self.could_hold(p));
        let task = match (next, recall) {
            (Some(_), Some(what)) => Some(Task::Recall(what)),
            (Some(id), None) if registered => Some(Task::Admit(id)),
            (Some(id), None) => Some(Task::Clean(id)),
            (None, Some(_)) => None,
            (None, None) if takes => Some(Task::Take),
            (None, None) if !self.all().any(Multipath::is_askable) => None,
            (None, None) => self.next_order().map(Task::Order),
        };
        self.reservations.work = task.map(|task| Work { task, log: Vec::new(), withdrawn: false });
        task.is_some()
    }

    fn next_order(&mut self) -> Option<Waiting> {
        let waits = self.reservations.orders.front().is_some_and(|first| first.unready);
        if waits && self.carrying() == 0 {
            return None;
        }
        self.reservations.orders.pop_front()
    }

    /// Lets the task go on as far as it can; whether it has ended.
    fn go_on(&mut self, now: Time, fx: &mut Effects) -> bool {
        let Some(mut work) = self.reservations.work.take() else { return false };
        work.give_up(self);
        let mut script = Script::new(self, &mut work.log, now, fx);
        let done = match work.task {
            Task::Order(waiting) => orders::order(&mut script, waiting),
            Task::Recall(what) => lifecycle::recall(&mut script, what),
            Task::Admit(path) => lifecycle::admit(&mut script, path),
            Task::Clean(path) => lifecycle::clean(&mut script, path),
            Task::Take => alone::take(&mut script),
        };
        if done.is_ok() {
            self.reservations.suspension = None;
            if let (Task::Order(waiting), true) = (work.task, work.withdrawn) {
                // It may be about to wait for another path.
                self.withdrawn(waiting.order);
            }
        } else {
            self.reservations.work = Some(work);
        }
        done.is_ok()
    }

    /// Orders wait for a path as every request does, no longer.
    pub(super) fn refuse_orders(&mut self, now: Time, fx: &mut Effects) {
        if self.reservations.work.is_some() || self.carrying() > 0 {
            return;
        }
        let queueing = self.queueing();
        let (holds, limit) = (queueing == Queueing::Hold, self.policy.queue_timeout);
        let outcome = match queueing {
            Queueing::Gone => script::check(SenseCode::LUN_NOT_SUPPORTED),
            Queueing::Hold | Queueing::Fail => Outcome::NoPath,
        };
        self.reservations.orders.retain_mut(|waiting| {
            let since = *waiting.lacks.get_or_insert(now);
            let stays = holds && limit.is_none_or(|limit| now < since + limit);
            if !stays {
                fx.push(Effect::Answer { order: waiting.order, outcome });
            }
            stays
        });
    }

    /// When an order has waited for as long as it may. (Not while there is a
    /// path, which may still be at a command that was given up.)
    fn order_deadline(&self) -> Option<Time> {
        if self.carrying() > 0 {
            return None;
        }
        let limit = self.policy.queue_timeout.filter(|_| self.reservations.work.is_none())?;
        let lacks = self.reservations.orders.iter().filter_map(|waiting| waiting.lacks);
        lacks.min().map(|since| since + limit)
    }

    fn bar_paths(&mut self) {
        // By a path that begins to carry I/O a conflict is taken for the LU's word: where the
        // guest is about to have the LU for one nexus, none begins.
        let alone = self.guest_reserves().is_some_and(Type::is_of_holder_alone);
        let begins = |p: &Path| alone && p.is_usable() && !p.listed.in_table;
        let bars = |p: &Path| (p.id, self.waits(p) || begins(p), self.is_beside_the_holder(p));
        let all: Vec<(PathId, bool, bool)> = self.all().map(bars).collect();
        for (id, waits, beside) in all {
            if let Some(path) = self.path_mut(id) {
                (path.nexus.barred, path.nexus.beside) = (waits, beside);
            }
        }
    }

    /// Whether some path will carry I/O in a moment, once it is registered, or
    /// has the reservation.
    pub(super) fn is_registering(&self) -> bool {
        let could = |p: &Path| p.standing.carries(p.access) && p.nexus.job.is_none_or(|o| !o.late);
        let alone = self.guest_reserves().is_some_and(Type::is_of_holder_alone);
        let will = |p: &Path| {
            self.waits(p) || self.could_hold(p) || (alone && p.is_usable() && p.is_barred())
        };
        self.all().any(|p| will(p) && could(p) && !Multipath::rests(p))
    }

    /// What the guest, registered, is just reserving the LU for, or what it holds is
    /// being moved.
    fn guest_reserves(&self) -> Option<Type> {
        let waiting = match &self.reservations.work.as_ref()?.task {
            Task::Order(waiting) => waiting,
            Task::Take => return self.reservations.state.held,
            _ => return None,
        };
        let (out, key) = (&waiting.out, self.reservations.state.key()?);
        let reserves = matches!(
            out.action,
            OutAction::Reserve | OutAction::Preempt | OutAction::PreemptAndAbort
        );
        out.kind().filter(|_| reserves && out.key == key)
    }

    /// Guest I/O is held, by the table just published or an earlier one.
    pub(super) fn is_suspended(&self) -> bool {
        self.reservations.suspension.is_some()
    }

    /// No table has said so yet on behalf of who holds it now.
    pub(super) fn is_to_suspend(&self) -> bool {
        self.reservations.suspension.is_some_and(|s| s.generation.is_none())
    }

    /// The guest has a key registered.
    pub(super) fn is_registered(&self) -> bool {
        self.reservations.state.registered.is_some()
    }

    /// The table of this generation says so.
    pub(super) fn suspended_by(&mut self, generation: u64) {
        if let Some(suspension) = &mut self.reservations.suspension {
            suspension.generation.get_or_insert(generation);
        }
    }
}

impl Work {
    /// A path that has left the map does not answer any more.
    fn give_up(&mut self, map: &Multipath) {
        for entry in &mut self.log {
            if matches!(entry, Entry::Asked { path, .. } if map.path(*path).is_none()) {
                *entry = Entry::Answered(Word::Lost { maybe: true, said: None });
            }
        }
    }
}

fn told(fx: &mut Effects, news: News) {
    fx.push(Effect::Notify(Change::Reservation(news)));
}
