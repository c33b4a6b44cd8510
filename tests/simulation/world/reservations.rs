//! A guest that reserves, and another host that does: what they do, and the
//! control thread's part of it.

use super::*;
use crate::jobs::{Job, Reserving, Task, What};
use crate::reservation_laws::{
    CLEARED, FENCED, Given, OURS, RELEASED, ReservationLaws, THEIRS, TOLD, View,
};
use vhost_mpath::mpath::errand::{Errand, LastSeen};
use vhost_mpath::mpath::reservation::{Answer, Ask, News, Registration, Remembered};
use vhost_mpath::scsi::attention::Expected;
use vhost_mpath::scsi::block::Direction;
use vhost_mpath::scsi::reservation::{Key as PrKey, OutAction, Type};
use vhost_mpath::scsi::sense::Sense;
use vhost_mpath::sim::{Foreign, ItNexus, LuId, ReserveEnd};

/// Unit attentions in a row that a path is asked for.
const ATTENTIONS: u8 = 32;

/// See the module.
pub(super) struct Hosts {
    pub(super) laws: ReservationLaws,
    /// A stream of its own.
    random: Random,
    /// One in so many steps.
    orders: u64,
    others: u64,
    next_order: u64,
    next_key: u64,
    /// A suspended table of which the engine has not heard that all is quiet.
    suspended: Option<u64>,
    /// A path to be registered, once the queue thread works by this table.
    entry: Option<(u64, PathId, u32, Ask)>,
    quiet: u64,
    last_seen: LastSeen,
    /// The last command.
    asked: Option<(u32, Ask)>,
    /// Commands of which other paths may tell.
    told: Vec<u32>,
    /// Such commands since paths were asked what they have to tell.
    untold: usize,
    at_work: bool,
    /// Commands that may have registered these, of which no good word has come; until the
    /// engine has found them registered.
    entering: Vec<(u32, ItNexus)>,
    /// Ports of paths that have gone, and their groups.
    left: Vec<(u16, usize)>,
}

impl Hosts {
    pub(super) fn new(seed: u64, config: &LuConfig) -> Hosts {
        let mut random = Random::new(seed ^ 0x9e5e_0000);
        let per_initiator = random.one_in(8);
        Hosts {
            laws: ReservationLaws::new(config, per_initiator),
            orders: 6 + random.below(30),
            others: 20 + random.below(150),
            random,
            next_order: 0,
            next_key: 0,
            suspended: None,
            entry: None,
            quiet: 0,
            last_seen: LastSeen::default(),
            asked: None,
            told: Vec::new(),
            untold: 0,
            at_work: false,
            entering: Vec::new(),
            left: Vec::new(),
        }
    }

    /// A command about reservations is sent, or is sent again.
    pub(super) fn sent(&mut self, job: u32, moment: u64) {
        self.last_seen.sent(job, moment);
    }

    /// What the guest sends next.
    fn compose(&mut self, theirs: Option<PrKey>) -> Out {
        use OutAction::{
            Clear, Preempt, PreemptAndAbort, Register, RegisterAndIgnore, Release, ReplaceLost,
            Reserve,
        };
        let random = &mut self.random;
        self.next_key += 1;
        let new = PrKey(0x1000 + self.next_key);
        let other = theirs.unwrap_or(PrKey(0xbad));
        let key = self.laws.kept.map_or(PrKey::NONE, |kept| kept.key);
        let key = if random.one_in(12) { PrKey(0xdead) } else { key };
        let kinds: Vec<Type> = Type::all().collect();
        let kind = random.pick(&kinds);
        let none = PrKey::NONE;
        let fresh = self.laws.kept.is_none();
        let out = match random.below(if fresh { 24 } else { 20 }) {
            20.. => Out::new(random.pick(&[Register, RegisterAndIgnore]), key, new),
            0..=5 => Out::new(Reserve, key, none).of_type(kind),
            6..=8 => Out::new(Release, key, none).of_type(kind),
            9 => Out::new(random.pick(&[Register, RegisterAndIgnore]), key, none),
            10 | 11 => Out::new(random.pick(&[Register, RegisterAndIgnore]), key, new),
            12 => Out::new(Register, key, key),
            13 => Out::new(Clear, key, none),
            14 | 15 => Out::new(random.pick(&[Preempt, PreemptAndAbort]), key, other).of_type(kind),
            16 => Out::new(Preempt, key, key).of_type(kind),
            17 => Out::new(random.pick(&[Preempt, PreemptAndAbort]), key, none).of_type(kind),
            18 if random.one_in(4) => Out::new(ReplaceLost, none, new).of_type(kind),
            _ => Out::new(Release, key, none).of_type(kind),
        };
        Out { aptpl: random.one_in(3), ..out }
    }
}

impl World {
    /// The guest, or the other host, or a fault may do something.
    pub(super) fn hosts_act(&mut self) {
        let Some(hosts) = &mut self.hosts else { return };
        let order = hosts.random.one_in(hosts.orders);
        let other = hosts.random.one_in(hosts.others);
        let fault = hosts.random.one_in(40);
        if order {
            self.order();
        }
        if other {
            self.other_host_acts();
        }
        if fault {
            self.reservation_fault();
        }
    }

    /// Nexuses of paths that are in order, as far as the engine knows. One that
    /// carries nothing, and has something of which those that do carry have
    /// nothing, is yet to be cleaned: it is as those that have gone.
    pub(super) fn live(&self) -> Vec<ItNexus> {
        let of = self.array.reservations(LuId(0));
        let paths = self.in_order();
        let carriers = paths.iter().filter(|(_, barred)| !barred);
        let bare = carriers.clone().count() > 0
            && carriers.clone().all(|(it, _)| of.key_of(*it).is_none());
        let stale = |(it, barred): &(ItNexus, bool)| bare && *barred && of.key_of(*it).is_some();
        paths.iter().filter(|path| !stale(path)).map(|(it, _)| *it).collect()
    }

    /// The same as an order finds and leaves them. (Where the guest has no registration for
    /// certain, one that carries nothing is cleaned before the next order begins, and before it
    /// carries anything, though none carries anything.)
    fn live_but_for_stale(&self) -> Vec<ItNexus> {
        let of = self.array.reservations(LuId(0));
        let facts = self.map.reservation_facts();
        let none = facts.registered.is_none() && !facts.unsure && facts.orders == 0;
        let stale = |(it, barred): &(ItNexus, bool)| none && *barred && of.key_of(*it).is_some();
        let stale: Vec<ItNexus> =
            self.in_order().iter().filter(|path| stale(path)).map(|(it, _)| *it).collect();
        self.live().into_iter().filter(|it| !stale.contains(it)).collect()
    }

    /// Of paths that are in order, and whether they carry nothing.
    fn in_order(&self) -> Vec<(ItNexus, bool)> {
        let usable = |p: &Plug| self.map.path(p.id).filter(|p| p.is_usable());
        let paths = self.wire.plugs.iter().filter_map(|p| {
            let barred = usable(p)?.is_barred();
            Some((self.array.ports(p.nexus)?, barred))
        });
        paths.collect()
    }

    fn their_key(&self) -> Option<PrKey> {
        let of = self.array.reservations(LuId(0));
        of.registrations().find(|(it, _)| it.initiator == THEIRS).map(|(_, key)| key)
    }

    /// For the totals.
    pub(super) fn count_hosts(&mut self) {
        self.totals.compared = self.hosts.as_ref().map_or(0, |hosts| hosts.laws.compared);
    }

    fn order(&mut self) {
        if self.stopping.is_some() || self.core.room() == 0 {
            return;
        }
        let theirs = self.their_key();
        let Some(hosts) = &mut self.hosts else { return };
        if !hosts.laws.given.is_empty() && !hosts.random.one_in(8) {
            return;
        }
        // As the front does.
        if let Some(sense) = self.scsi.as_ref().and_then(|s| s.attentions.take()) {
            return self.guest_hears(&sense);
        }
        let Some(head) = self.free_heads.pop() else { return };
        let out = hosts.compose(theirs);
        hosts.next_order += 1;
        let order = OrderId(hosts.next_order);
        hosts.laws.given.push(Given::new(order, out));
        self.moment += 1;
        self.totals.requests += 1;
        self.totals.steps += 1;
        self.totals.orders += 1;
        let op = Op::Cdb { cdb: out.cdb(), direction: Direction::Out };
        let mut request = self.request(head);
        request.op = Some(op);
        request.front.buffer.extend_from_slice(&out.list());
        self.serial += 1;
        let mut pending = self.pending_request(op);
        pending.serial = self.serial;
        pending.order = Some((order, out));
        request.task = pending.serial;
        self.pending[usize::from(head)] = Some(pending);
        self.touched = true;
        if self.trace {
            eprintln!("{:?} {order:?}: {out:?}", self.now);
        }
        self.core.submit_order(request, order).expect("room");
    }

    /// What the queue thread has for the engine.
    pub(super) fn orders_go(&mut self) -> bool {
        let orders: Vec<Order> = self.core.orders().collect();
        let mut busy = !orders.is_empty();
        for order in orders {
            if let (Order::Given { order, .. }, Some(hosts)) = (&order, &mut self.hosts) {
                let given = hosts.laws.given.iter_mut().find(|g| g.order == *order);
                given.expect("the guest's").sent = true;
            }
            self.post(Message::Order(order));
        }
        if let (Some(quiet), Some(hosts)) = (self.core.quiet(), &mut self.hosts) {
            if hosts.quiet != quiet {
                hosts.quiet = quiet;
                busy = true;
                self.post(Message::Quiet(quiet));
            }
        }
        busy
    }

    /// Commands about reservations are out. (An answer may be from before.)
    fn is_reserving(&self) -> bool {
        let late = self.answers.iter().any(|(_, e)| matches!(e, Event::Reserved { .. }));
        late || self.wire.jobs.iter().any(is_reserving)
    }

    /// The control thread has it.
    pub(super) fn order_comes(&mut self, order: Order) {
        match order {
            Order::Given { order, cdb, list } => {
                let out = Out::parse(&cdb, &list).expect("well composed");
                let live = self.live_but_for_stale();
                let busy = self.is_reserving();
                let of = self.array.reservations(LuId(0));
                if let Some(hosts) = &mut self.hosts {
                    hosts.laws.ordered(self.now, order, of, &live, busy);
                }
                self.engine(Event::Ordered { order, out });
            }
            Order::Withdrawn(order) => {
                if let Some(hosts) = &mut self.hosts {
                    let given = hosts.laws.given.iter_mut().find(|g| g.order == order);
                    given.into_iter().for_each(|given| given.gone = true);
                }
                self.engine(Event::Withdrawn { order });
            }
        }
    }

    pub(super) fn quiet_comes(&mut self, generation: u64) {
        let Some(hosts) = &mut self.hosts else { return };
        if let Some(suspended) = hosts.suspended.filter(|s| *s <= generation) {
            hosts.suspended = None;
            self.engine(Event::Quiet { generation: suspended });
        }
    }

    // --- what the engine asks for ------------------------------------------------

    pub(super) fn note_suspended(&mut self, table: &PathTable) {
        let Some(hosts) = &mut self.hosts else { return };
        hosts.suspended = table.suspended.then_some(table.generation);
        self.totals.suspended += u64::from(table.suspended);
    }

    pub(super) fn reserve(&mut self, path: PathId, job: u32, ask: Ask) {
        let barred = self.map.path(path).is_none_or(|p| !p.carries());
        let held = self.map.reservation_facts().held;
        let alone = held.is_some_and(|kind| !kind.is_of_registrants());
        let table = self.map.table().map_or(0, |table| table.generation);
        let it = self.wire.plug(path).and_then(|plug| self.array.ports(plug.nexus));
        let Some(hosts) = &mut self.hosts else { panic!("{path} is asked {ask:?} for nobody") };
        if let Ask::Out(out) = &ask {
            hosts.laws.may_be_asked(out, barred, alone);
        }
        hosts.at_work = true;
        hosts.entry = None;
        if ask.enters() {
            hosts.entering.extend(it.map(|it| (job, it)));
        }
        if ask.enters() && self.core.table().generation < table {
            hosts.entry = Some((table, path, job, ask));
            self.totals.entries_held += 1;
        } else {
            self.send_reserving(path, job, ask);
        }
    }

    /// The queue thread works by another table.
    pub(super) fn look_for_entry(&mut self) {
        let table = self.core.table().generation;
        let Some(hosts) = &mut self.hosts else { return };
        if let Some((_, path, job, ask)) = hosts.entry.filter(|entry| entry.0 <= table) {
            hosts.entry = None;
            self.send_reserving(path, job, ask);
        }
    }

    fn send_reserving(&mut self, path: PathId, job: u32, ask: Ask) {
        self.totals.asked += 1;
        let it = self.wire.plug(path).and_then(|plug| self.array.ports(plug.nexus));
        let of = self.array.reservations(LuId(0));
        let Some(hosts) = &mut self.hosts else { return };
        let (told, ordered) = match &ask {
            Ask::In(_) => (&[][..], false),
            Ask::Out(out) => {
                hosts.laws.removes(out, it, of);
                (out.told_to_others(), hosts.laws.may_end())
            }
        };
        let now = self.scsi.as_ref().map_or(0, |s| s.attentions.moment());
        hosts.last_seen.asks(job, ask, now);
        hosts.asked = Some((job, ask));
        if !told.is_empty() {
            hosts.told.push(job);
        }
        let reserving = Reserving { errand: Errand::new(ask), told, expected: Vec::new(), ordered };
        self.begin(path, Task::Reserve(job, reserving));
    }

    /// Before the engine hears of it.
    pub(super) fn reserved(&mut self, job: u32, answer: &Answer) {
        let Some(hosts) = &mut self.hosts else { return };
        hosts.last_seen.answered(job, &answer.completion);
        if let Some((_, Ask::Out(out))) = hosts.asked.filter(|asked| asked.0 == job) {
            let renews = out.action == OutAction::Register && out.key == out.action_key;
            hosts.laws.told_meanwhile &= !(renews && answer.completion == Completion::Good);
        }
        // (What the engine has given up, it does not hear of.)
        let heard = hosts.asked.is_some_and(|asked| asked.0 == job);
        let good = heard && answer.completion == Completion::Good;
        hosts.entering.retain(|(entering, _)| *entering != job || !good);
        let before = hosts.told.len();
        hosts.told.retain(|told| *told != job);
        hosts.untold += before - hosts.told.len();
        hosts.at_work = false;
    }

    /// And after that: as the control thread has it.
    pub(super) fn others_may_tell(&mut self) {
        let paths = self.wire.plugs.len();
        if self.hosts.as_ref().is_some_and(|h| !h.at_work || h.untold >= paths) {
            self.others_tell();
        }
    }

    fn others_tell(&mut self) {
        let Some(hosts) = &mut self.hosts else { return };
        if std::mem::take(&mut hosts.untold) == 0 {
            return;
        }
        let paths: Vec<PathId> = self.wire.plugs.iter().map(|p| p.id).collect();
        for path in paths {
            if self.map.path(path).is_some() {
                self.begin(path, Task::Drain(ATTENTIONS));
            }
        }
    }

    /// A command about reservations is back: what was expected of it.
    pub(super) fn has_happened(&mut self, completion: &Completion, expected: Vec<Expected>) {
        let Some(scsi) = &self.scsi else { return };
        let refused = match completion {
            Completion::Scsi { status, sense, .. } => match *status {
                Status::RESERVATION_CONFLICT | Status::BUSY | Status::TASK_SET_FULL => true,
                Status::CHECK_CONDITION => matches!(
                    sense.code().map(|code| code.key),
                    Some(Key::UnitAttention | Key::IllegalRequest)
                ),
                _ => false,
            },
            _ => false,
        };
        for expected in expected {
            if refused {
                scsi.attentions.has_not_happened(expected);
            } else {
                scsi.attentions.has_happened(expected);
            }
        }
    }

    pub(super) fn engine_tells(&mut self, code: SenseCode) {
        let (Some(scsi), Some(hosts)) = (&self.scsi, &self.hosts) else { return };
        scsi.attentions.seen(code, hosts.last_seen.moment());
    }

    pub(super) fn remember(&mut self, what: Option<Remembered>) {
        let live = self.live();
        let plugs = self.wire.plugs.iter().filter(|plug| self.map.path(plug.id).is_some());
        let there: Vec<ItNexus> = plugs.filter_map(|plug| self.array.ports(plug.nexus)).collect();
        let Some(hosts) = &mut self.hosts else { return };
        if what.is_some() {
            hosts.last_seen.registered();
        }
        // (Whether it was there before another host changed something, nobody knows.)
        let one = hosts.laws.per_initiator();
        let late = |it: &ItNexus| hosts.entering.iter().any(|(_, its)| one || its == it);
        let live: Vec<ItNexus> = live.into_iter().filter(|it| !late(it)).collect();
        hosts.laws.remember(what, self.array.reservations(LuId(0)), &live, &there);
    }

    pub(super) fn answered(&mut self, order: OrderId, outcome: Outcome) {
        let held = |t: &PathTable| t.queueing == Queueing::Hold && t.hold_for.is_none();
        let held = self.map.table().is_some_and(|table| held(table));
        assert!(!held || outcome != Outcome::NoPath, "{order:?} ends while requests are held");
        // (No path may carry anything now, and what the guest has given up be there yet.)
        let live = self.live_but_for_stale();
        let of = self.array.reservations(LuId(0));
        let Some(hosts) = &mut self.hosts else { return };
        hosts.laws.answered(order, outcome, of, &live);
        self.others_tell();
        self.post(Message::Answer(order, outcome));
    }

    /// After every step of the engine: orders that it will not carry out.
    pub(super) fn forget_orders(&mut self) {
        if self.hosts.is_none() || self.map.reservation_facts().orders > 0 {
            return;
        }
        let Some(hosts) = &mut self.hosts else { return };
        hosts.laws.forget_gone();
    }

    /// An order's request has ended.
    pub(super) fn order_ends(&mut self, (order, out): (OrderId, Out), p: &Pending, end: &End) {
        let Some(hosts) = &mut self.hosts else { return };
        let laws = &mut hosts.laws;
        let good = matches!(end, End::Finished(Outcome::Good));
        if let Some(given) = laws.given.iter_mut().find(|g| g.order == order) {
            given.withdrawn = true;
            assert!(!good, "{order:?} has ended well, and the engine has not said so");
        }
        // (Nobody has heard of it.)
        laws.given.retain(|g| g.order != order || g.sent);
        laws.delivered(order, &out, good);
        let End::Finished(outcome) = end else { return };
        if let Some(reset) = p.aborted {
            assert_eq!(*outcome, Outcome::Aborted { reset }, "it was aborted");
            self.totals.aborted += 1;
            return;
        }
        let totals = &mut self.totals;
        match outcome {
            Outcome::Good => match out.action {
                OutAction::Preempt | OutAction::PreemptAndAbort if out.key == out.action_key => {
                    totals.self_preempts += 1;
                }
                OutAction::Preempt | OutAction::PreemptAndAbort => totals.preempts += 1,
                OutAction::Reserve => totals.reserved += 1,
                _ => totals.carried_out += 1,
            },
            Outcome::Lu { status: Status::RESERVATION_CONFLICT, .. } => totals.refused += 1,
            _ => totals.unclear += 1,
        }
    }

    // --- the other host, and faults ------------------------------------------------

    /// Before and after something that is not the guest's doing.
    fn happens_to_reservations(&mut self, what: impl FnOnce(&mut World)) -> [usize; 2] {
        // What is due has been carried out before it.
        self.settle();
        let live = self.live();
        let of = self.array.reservations(LuId(0));
        let before: Vec<(ItNexus, PrKey)> = of.registrations().collect();
        self.moment += 1;
        let moment = self.moment;
        if let Some(hosts) = &mut self.hosts {
            hosts.laws.look(moment, self.array.reservations(LuId(0)), &live);
            hosts.laws.race();
        }
        what(self);
        let of = self.array.reservations(LuId(0));
        let ours =
            |list: &[(ItNexus, PrKey)]| list.iter().filter(|r| r.0.initiator == OURS).count();
        let after: Vec<(ItNexus, PrKey)> = of.registrations().collect();
        let counts = [ours(&before), ours(&after)];
        self.moment += 1;
        if let Some(hosts) = &mut self.hosts {
            hosts.laws.changed(&before, of);
            hosts.laws.look(self.moment, of, &live);
        }
        self.touched = true;
        counts
    }

    fn other_host_acts(&mut self) {
        let theirs = self.their_key();
        let of = self.array.reservations(LuId(0));
        let ours = of.registrations().find(|(it, _)| it.initiator == OURS).map(|(_, key)| key);
        let Some(hosts) = &mut self.hosts else { return };
        let random = &mut hosts.random;
        let kinds: Vec<Type> = Type::all().collect();
        let kind = random.pick(&kinds);
        let order = match (theirs, random.below(16)) {
            (None, _) => Foreign::Register(PrKey(0xf000 + random.below(3))),
            (_, 0) => Foreign::Register(PrKey::NONE),
            (_, 1) => Foreign::Register(PrKey(0xf000 + random.below(3))),
            (_, 2..=5) => Foreign::Reserve(kind),
            (_, 6..=8) => Foreign::Release,
            (_, 9) => Foreign::Clear,
            (Some(own), 10) => Foreign::Preempt { victim: own, kind, abort: false },
            (_, 11) => Foreign::Preempt { victim: PrKey::NONE, kind, abort: random.one_in(2) },
            _ => {
                let victim = ours.unwrap_or(PrKey(0x77));
                Foreign::Preempt { victim, kind, abort: random.one_in(4) }
            }
        };
        self.foreign(order);
    }

    pub(super) fn foreign(&mut self, order: Foreign) {
        let host = self.story.hosts[0];
        let fault = Fault::Foreign { host: THEIRS, order };
        let kind = self.array.reservations(LuId(0)).held().map(|held| held.kind);
        let busy = self.is_reserving();
        let of = self.array.reservations(LuId(0));
        let held: Vec<PrKey> =
            of.registrations().filter(|r| r.0.initiator == OURS).map(|r| r.1).collect();
        // (Not what it had before, by a path that has left.)
        let was = self.hosts.as_ref().is_some_and(|hosts| !hosts.laws.is_none_of(&held));
        let mut done = false;
        let [before, after] = self.happens_to_reservations(|world| {
            done = world.array.try_inject(world.now, host, fault).is_ok();
        });
        if self.trace {
            eprintln!("{:?} the other host: {order:?} {done}; ours {before} -> {after}", self.now);
        }
        if !done {
            return;
        }
        self.totals.foreign += 1;
        let then = self.array.reservations(LuId(0)).held().map(|held| held.kind);
        let left: Vec<PrKey> = {
            let of = self.array.reservations(LuId(0));
            of.registrations().filter(|r| r.0.initiator == OURS).map(|r| r.1).collect()
        };
        let Some(hosts) = &mut self.hosts else { return };
        let laws = &mut hosts.laws;
        if after < before {
            let code = if order == Foreign::Clear { CLEARED } else { FENCED };
            laws.causes[code] += 1;
            let gone = was && laws.is_none_of(&left);
            // (What a path that has left had before: a path may tell of it.)
            laws.told_meanwhile |= !gone;
            laws.left_untold += u64::from(!gone);
            if gone && !laws.is_registering() {
                let already = std::mem::replace(&mut laws.fenced, true);
                laws.known = None;
                self.totals.fenced += 1;
                // (Nor does a guest rely on a registration of which it was told
                // that nobody knows whether it has ended it, or that it is about to
                // remove.)
                let sure = !laws.unclear && !laws.preempts_itself();
                // (What came too late is no registration of the guest's to be told of.)
                if !already {
                    laws.must_hear |= !busy && sure && !laws.told_meanwhile;
                    laws.heard_before = laws.heard;
                }
            }
        }
        if after > 0 && kind != then && kind.is_some() {
            laws.causes[RELEASED] += 1;
        }
    }

    /// The array, or a path, is at fault.
    fn reservation_fault(&mut self) {
        let Some(at) = self.any_plug_of_hosts() else { return };
        let nexus = self.wire.plugs[at].nexus;
        let Some(hosts) = &mut self.hosts else { return };
        let random = &mut hosts.random;
        let fault = match random.below(12) {
            0 => Fault::ForgetRegistration,
            1 => Fault::RegisterStall(Duration::from_secs(5)),
            2 => Fault::RegisterStall(Duration::ZERO),
            3 => Fault::AttentionsFirst(random.one_in(2)),
            4 if random.one_in(3) => Fault::PowerLoss,
            _ => {
                let end = random.pick(&[
                    ReserveEnd::Conflict,
                    ReserveEnd::StatusLost,
                    ReserveEnd::StatusLost,
                    ReserveEnd::HostByte(HostByte::TRANSPORT_DISRUPTED),
                    ReserveEnd::Sense(SenseCode::new(Key::IllegalRequest, 0x55, 0x04)),
                    ReserveEnd::Sense(CRC_ERROR),
                ]);
                Fault::ReserveFails { end, count: 1 + u32::try_from(random.below(3)).unwrap() }
            }
        };
        if self.wire.plugs[at].remapped.is_some() {
            return;
        }
        if self.trace {
            eprintln!("{:?} fault of {}: {fault:?}", self.now, self.wire.plugs[at].id);
        }
        if matches!(fault, Fault::PowerLoss) {
            return self.power_is_lost(nexus);
        }
        let [before, after] =
            self.happens_to_reservations(|world| world.array.inject(world.now, nexus, fault));
        self.totals.forgotten += u64::from(after < before);
        if let Some(hosts) = &mut self.hosts {
            hosts.laws.answers_wrongly |= matches!(fault, Fault::ReserveFails { .. });
            hosts.laws.silent_losses += u64::from(after < before);
            if after == 0 {
                hosts.laws.known = None;
            }
        }
    }

    pub(super) fn set_out_hosts(&mut self) {
        let Some(hosts) = &mut self.hosts else { return };
        if hosts.laws.per_initiator() {
            let host = self.story.hosts[0];
            self.array.inject(self.now, host, Fault::PerInitiator(true));
        }
    }

    pub(super) fn reservation_news(&mut self, news: &News) {
        let totals = &mut self.totals;
        match news {
            News::Preempted(_) => totals.found_fenced += 1,
            News::Repaired(_) => totals.repaired += 1,
            News::TakenOver(_) => totals.taken_over += 1,
            News::Barred(..) => totals.barred += 1,
            News::Recalled(_) => totals.recalled += 1,
            _ => {}
        }
    }

    fn any_plug_of_hosts(&mut self) -> Option<usize> {
        let n = self.wire.plugs.len() as u64;
        let hosts = self.hosts.as_mut()?;
        (n > 0).then(|| usize::try_from(hosts.random.below(n)).unwrap())
    }

    fn power_is_lost(&mut self, nexus: NexusId) {
        if !self.may_lose_power() {
            return;
        }
        let [before, after] = self.happens_to_reservations(|world| {
            world.array.inject(world.now, nexus, Fault::PowerLoss);
        });
        self.power_lost();
        self.totals.power_losses += 1;
        if let Some(hosts) = &mut self.hosts {
            hosts.laws.silent_losses += u64::from(after < before);
            if after == 0 {
                hosts.laws.known = None;
            }
        }
    }

    /// After what the array has carried out, and before anybody hears of it.
    pub(super) fn look_at_reservations(&mut self) {
        if self.hosts.is_none() {
            return;
        }
        let live = self.live();
        let jobs = self.wire.jobs.iter().filter_map(|job| match &job.what {
            What::Path(_, Task::Reserve(_, reserving)) => match reserving.errand.ask() {
                Ask::Out(out) => Some((*out, reserving.ordered)),
                Ask::In(_) => None,
            },
            _ => None,
        });
        let out: Vec<(Out, bool)> = jobs.collect();
        let plugs = self.wire.plugs.iter().filter(|plug| {
            let path = self.map.path(plug.id);
            path.is_some_and(|path| path.registration() == Registration::Registered)
        });
        let found: Vec<ItNexus> = plugs.filter_map(|p| self.array.ports(p.nexus)).collect();
        let of = self.array.reservations(LuId(0));
        let Some(hosts) = &mut self.hosts else { return };
        hosts.laws.look(self.moment, of, &live);
        hosts.entering.retain(|(_, it)| !found.contains(it));
        hosts.laws.nothing_is_taken(of, &out);
        if hosts.laws.answers_wrongly && out.is_empty() {
            self.answers_well_again(&live);
        }
        let wrong = self.other.reservations(LuId(0));
        assert_eq!(wrong.generation(), 0, "another LU was told to register something");
    }

    /// Once no path answers PERSISTENT RESERVE OUT wrongly any more, nothing about reservations is
    /// under way, and the engine and the array agree.
    fn answers_well_again(&mut self, live: &[ItNexus]) {
        let wrongly = |plug: &Plug| {
            let words = self.array.condition(plug.nexus).unwrap_or_default();
            words.contains("reserving: ")
        };
        let facts = self.map.reservation_facts();
        let busy = facts.unsure || facts.orders > 0 || self.wire.jobs.iter().any(is_reserving);
        // (A path that has denied its registration may be taken for one that was registered late.)
        let settled = match facts.registered {
            Some(_) => Registration::Registered,
            None => Registration::None,
        };
        let mut paths = self.wire.plugs.iter().filter_map(|plug| self.map.path(plug.id));
        let unsettled = paths.any(|path| path.registration() != settled);
        let of = self.array.reservations(LuId(0));
        let Some(hosts) = &mut self.hosts else { return };
        let laws = &mut hosts.laws;
        let wrong = self.wire.plugs.iter().any(wrongly);
        if busy || unsettled || wrong || !laws.given.is_empty() {
            return;
        }
        let agrees = |view: View| {
            let held = view.held.and_then(|(kind, ours)| ours.then_some(kind));
            view.key == laws.kept.map(|kept| kept.key) && held == facts.held
        };
        let all = |it: &ItNexus| of.key_of(*it) == laws.kept.map(|kept| kept.key);
        if View::of(of, live).is_some_and(agrees) && live.iter().all(all) {
            laws.answers_wrongly = false;
        }
    }

    // --- what the guest is told -----------------------------------------------------

    /// A unit attention about reservations; false: it is about something else.
    pub(super) fn hears_of_reservations(&mut self, sense: &Sense) -> bool {
        let Some(kind) = TOLD.iter().position(|code| Some(*code) == sense.code()) else {
            return false;
        };
        let Some(hosts) = &mut self.hosts else { return false };
        let laws = &mut hosts.laws;
        laws.heard[kind] += 1;
        if kind != RELEASED {
            laws.hears_of_loss();
        }
        self.totals.heard += 1;
        if self.trace {
            eprintln!("{:?} the guest hears {}", self.now, TOLD[kind]);
        }
        let losses = laws.causes[CLEARED] + laws.causes[FENCED] + laws.silent_losses;
        let right = match kind {
            RELEASED => laws.heard[RELEASED] <= laws.causes[RELEASED],
            CLEARED => laws.heard[CLEARED] <= laws.causes[CLEARED],
            // (It may have cleared its own, nobody knows: then it is told that it is gone.)
            _ => laws.heard[CLEARED] + laws.heard[FENCED] <= losses || laws.unclear,
        };
        let (heard, causes) = (laws.heard, laws.causes);
        assert!(right, "the guest heard of {} too often: {heard:?} of {causes:?}", TOLD[kind]);
        true
    }

    /// At the end: the other host has gone, or stays.
    pub(super) fn hosts_come_to_rest(&mut self) {
        let Some(hosts) = &mut self.hosts else { return };
        let leaves = hosts.random.below(3);
        let Some(at) = self.wire.plugs.first().map(|p| p.nexus) else { return };
        self.array.inject(self.now, at, Fault::RegisterStall(Duration::ZERO));
        match leaves {
            0 => self.foreign(Foreign::Clear),
            1 => self.foreign(Foreign::Register(PrKey::NONE)),
            _ => {}
        }
    }

    /// Nothing is left over, and nothing has been forgotten.
    pub(super) fn reservations_are_right(&self) {
        let Some(hosts) = &self.hosts else { return };
        let laws = &hosts.laws;
        let of = self.array.reservations(LuId(0));
        let facts = self.map.reservation_facts();
        let text = || format!("{facts:?}, {}: {}", of.to_words(), self.description());
        assert!(!facts.suspended && facts.orders == 0 && !facts.unsure, "{}", text());
        assert_eq!(facts.registered, laws.kept, "{}", text());
        let kept = laws.kept.map(|kept| kept.key);
        // One nexus has it, and carries.
        let alone = facts.held.is_some_and(|kind| !kind.is_of_registrants());
        for plug in &self.wire.plugs {
            let Some(path) = self.map.path(plug.id).filter(|p| p.is_usable()) else { continue };
            let it = self.array.ports(plug.nexus).expect("it is there");
            let key = of.key_of(it);
            assert!(alone || !path.is_barred(), "{} is barred: {}", plug.name, text());
            assert!(key.is_none() || key == kept, "{} has {key:?}: {}", plug.name, text());
            let right = key == kept || laws.fenced || laws.is_excused(it) || laws.known.is_none();
            assert!(right, "{} has no registration: {}", plug.name, text());
            assert!(!laws.fenced || key.is_none(), "{} is registered again: {}", plug.name, text());
        }
        let told =
            laws.heard != laws.heard_before || !laws.must_hear || !laws.fenced || laws.unclear;
        assert!(told, "the guest was fenced, and not told: {}", text());
    }

    pub(super) fn port_left(&mut self, it: Option<ItNexus>, group: usize) {
        if let (Some(hosts), Some(it)) = (&mut self.hosts, it) {
            hosts.left.push((it.port, group));
        }
    }

    /// A port that a path of this group has had.
    pub(super) fn port_again(&mut self, group: usize) -> Option<u16> {
        let hosts = self.hosts.as_mut()?;
        let at = hosts.left.iter().position(|(_, its)| *its == group)?;
        hosts.random.one_in(2).then(|| hosts.left.remove(at).0)
    }
}

fn is_reserving(job: &Job) -> bool {
    matches!(job.what, What::Path(_, Task::Reserve(..) | Task::Drain(_)))
}
