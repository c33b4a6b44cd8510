//! Persistent reservations: what the guest and the engine may do about them,
//! judged at the array.
//!
//! The guest sees one nexus. A [`View`] is what the LU would have of that one
//! nexus, given what it has of all of ours; each order of the guest's is also
//! carried out by a bare LU that has just that.

use vhost_mpath::io::{Outcome, Time};
use vhost_mpath::mpath::reservation::{OrderId, Remembered};
use vhost_mpath::mpath::snapshot::PathId;
use vhost_mpath::scsi::cdb::Cdb;
use vhost_mpath::scsi::reservation::{Key, Out, OutAction, Type};
use vhost_mpath::scsi::sense::SenseCode;
use vhost_mpath::scsi::status::Status;
use vhost_mpath::sim::{
    Array, Done, Fault, ItNexus, LuConfig, LuId, MemoryMedium, NexusId, RESERVATION_TYPES,
    Reservations, Task,
};

/// Initiator port of our host.
pub(crate) const OURS: u16 = 0;
/// That of the other host.
pub(crate) const THEIRS: u16 = 1;

/// What the guest is told by unit attentions.
pub(crate) const TOLD: [SenseCode; 3] = [
    SenseCode::RESERVATIONS_PREEMPTED,
    SenseCode::RESERVATIONS_RELEASED,
    SenseCode::REGISTRATIONS_PREEMPTED,
];
pub(crate) const CLEARED: usize = 0;
pub(crate) const RELEASED: usize = 1;
pub(crate) const FENCED: usize = 2;

/// The LU as it is to a guest with one nexus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) key: Option<Key>,
    /// The type of the reservation, and whether it is the guest's.
    pub(crate) held: Option<(Type, bool)>,
    pub(crate) others: Vec<Key>,
}

/// Whether a nexus of that host holds the LU.
fn holds(of: &Reservations, initiator: u16) -> bool {
    of.registrations().any(|(it, _)| it.initiator == initiator && of.is_held_by(it))
}

fn held_by(of: &Reservations) -> Option<ItNexus> {
    of.registrations().map(|(it, _)| it).find(|it| of.is_held_by(*it))
}

impl View {
    /// `None`: our nexuses do not agree, or one that has gone has something
    /// that the guest has not.
    pub(crate) fn of(of: &Reservations, live: &[ItNexus]) -> Option<View> {
        if live.is_empty() {
            return None;
        }
        let mut keys: Vec<Key> = live.iter().filter_map(|it| of.key_of(*it)).collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.len() > 1 {
            return None;
        }
        let key = keys.first().copied();
        let ours = |it: ItNexus| it.initiator == OURS;
        let dead = |it: ItNexus| ours(it) && it.port != 0 && !live.contains(&it);
        let mut others = Vec::new();
        for (it, has) in of.registrations() {
            if dead(it) && Some(has) != key {
                return None;
            }
            if !ours(it) {
                others.push(has);
            }
        }
        let held = match of.held() {
            None => None,
            Some(held) if held.kind.is_of_all_registrants() => Some((held.kind, key.is_some())),
            Some(held) => Some((held.kind, ours(held_by(of)?))),
        };
        Some(View { key, held, others })
    }

    /// Whether a guest with one nexus is refused reads, and writes.
    fn forbids(&self) -> (bool, bool) {
        match self.held {
            None | Some((_, true)) => (false, false),
            Some((kind, false)) if kind.is_of_registrants() && self.key.is_some() => (false, false),
            Some((kind, false)) => (!kind.lets_read(), true),
        }
    }
}

/// A bare LU with one nexus, and another host at it.
pub(crate) struct Bare {
    array: Array,
    nexus: NexusId,
    it: ItNexus,
    pub(crate) per_initiator: bool,
    tag: u64,
    done: Vec<Done>,
}

impl Bare {
    pub(crate) fn new(config: &LuConfig) -> Bare {
        let medium = MemoryMedium::new(config.blocks * u64::from(config.block_size));
        let mut array = Array::new(config.clone(), Box::new(medium));
        let nexus = array.add_nexus("guest");
        let it = array.ports(nexus).expect("just added");
        Bare { array, nexus, it, per_initiator: false, tag: 0, done: Vec::new() }
    }

    /// What the LU answers, and has then.
    fn carry_out(
        &mut self,
        now: Time,
        view: &View,
        of: &Reservations,
        out: &Out,
    ) -> Option<(Outcome, Option<View>)> {
        let mut text = "generation 0 aptpl false\n".to_owned();
        if let Some(key) = view.key {
            text += &format!("registered {} {} {key}\n", self.it.initiator, self.it.port);
        }
        for (it, key) in of.registrations().filter(|(it, _)| it.initiator != OURS) {
            text += &format!("registered {} {} {key}\n", it.initiator, it.port);
        }
        if let Some((kind, ours)) = view.held {
            let word = RESERVATION_TYPES.iter().find(|row| row.0 == kind).map_or("", |row| row.1);
            let holder = if ours { Some(self.it) } else { held_by(of) };
            let holder = holder.unwrap_or(self.it);
            text += &format!("held {} {} {word}\n", holder.initiator, holder.port);
        }
        // (One that has gone may hold it for all registrants.)
        self.array.restore(LuId(0), Reservations::from_words(&text).ok()?);
        self.array.inject(now, self.nexus, Fault::PerInitiator(self.per_initiator));
        self.tag += 1;
        let task = Task {
            nexus: self.nexus,
            tag: self.tag,
            cdb: out.cdb(),
            data_out: out.list().to_vec(),
            data_in_max: 0,
            timeout: std::time::Duration::from_secs(1),
        };
        self.array.submit(now, task);
        self.array.poll(now, &mut self.done);
        let done = self.done.pop().expect("it takes no time");
        let outcome = crate::wire::word(&done.completion);
        Some((outcome, View::of(self.array.reservations(LuId(0)), &[self.it])))
    }
}

/// An order that the guest has sent, until the engine has answered it, or will
/// not any more.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) order: OrderId,
    pub(crate) out: Out,
    /// Something else has happened meanwhile: any answer goes.
    raced: bool,
    /// A path or the array was told to answer wrongly.
    expected: Option<(Outcome, Option<View>)>,
    /// The same where what the array has forgotten by itself is repaired first, which it may
    /// be or not: nobody has taken it from the guest, which is told of neither.
    repaired: Option<(Outcome, Option<View>)>,
    before: Option<View>,
    pub(crate) withdrawn: bool,
    /// Whether the guest was fenced before it ([`ReservationLaws::fenced`]), and of
    /// which loss it had heard ([`ReservationLaws::told_meanwhile`]): so it is
    /// again if nothing of the order was done.
    was: (bool, bool),
    /// The engine was sent it, and that it is withdrawn.
    pub(crate) sent: bool,
    pub(crate) gone: bool,
}

impl Given {
    pub(crate) fn new(order: OrderId, out: Out) -> Given {
        Given {
            order,
            out,
            raced: false,
            expected: None,
            repaired: None,
            before: None,
            withdrawn: false,
            was: (false, false),
            sent: false,
            gone: false,
        }
    }

    fn preempts_itself(&self) -> bool {
        let preempts = matches!(self.out.action, OutAction::Preempt | OutAction::PreemptAndAbort);
        preempts && (self.out.key == self.out.action_key || self.out.action_key.is_none())
    }

    /// It may end registrations, or change them.
    fn registers(&self) -> bool {
        use OutAction::{Clear, Register, RegisterAndIgnore, ReplaceLost};
        matches!(self.out.action, Register | RegisterAndIgnore | Clear | ReplaceLost)
    }
}

/// An answer of the engine's.
pub(crate) struct Coming {
    order: OrderId,
    registers: bool,
    /// The queue thread has it, and with it the table.
    arrived: bool,
    /// The request has ended, with that or otherwise.
    ended: bool,
}

/// See the module.
pub(crate) struct ReservationLaws {
    pub(crate) given: Vec<Given>,
    /// Answered by the engine, and not yet to the guest.
    pub(crate) on_its_way: Vec<Coming>,
    /// The prkeys file.
    pub(crate) kept: Option<Remembered>,
    /// Keys that were kept before.
    had: Vec<Key>,
    /// The key that the guest was told it has, and has done nothing about.
    pub(crate) known: Option<Key>,
    /// Another host has removed the guest's registration, and the guest has
    /// not registered since.
    pub(crate) fenced: bool,
    /// Keys of orders to register of which nobody knows what became.
    perhaps: Vec<Key>,
    /// Nexuses whose registration something else than the guest has ended.
    excused: Vec<ItNexus>,
    /// Until when a guest with one nexus was refused reads, and writes.
    refused: (u64, u64),
    refuses: (bool, bool),
    bare: Bare,
    /// A fault has arrays answer PERSISTENT RESERVE OUT with something else.
    pub(crate) answers_wrongly: bool,
    pub(crate) causes: [u64; 3],
    /// Registrations of ours that went by what is no foreign PREEMPT.
    pub(crate) silent_losses: u64,
    pub(crate) heard: [u64; 3],
    /// The guest must hear that it was fenced.
    pub(crate) must_hear: bool,
    /// It heard of a loss while it registered, or of what it had before, and has
    /// not been seen registered since: of which, no path says.
    pub(crate) told_meanwhile: bool,
    /// Losses of what it had before, of which a path may tell at any later time:
    /// what the guest hears next may be of one.
    pub(crate) left_untold: u64,
    /// The guest has been told that nobody knows what became of an order.
    pub(crate) unclear: bool,
    /// `heard`, when that was so.
    pub(crate) heard_before: [u64; 3],
    /// Registrations and reservation of the other host.
    theirs: (Vec<Key>, bool),
    /// The guest's reservation.
    pub(crate) held: bool,
    /// All registrants hold it.
    of_all: bool,
    /// A nexus of ours has the key that is kept.
    has_kept: bool,
    pub(crate) compared: u64,
}

impl ReservationLaws {
    pub(crate) fn new(config: &LuConfig, per_initiator: bool) -> ReservationLaws {
        ReservationLaws {
            given: Vec::new(),
            on_its_way: Vec::new(),
            kept: None,
            had: Vec::new(),
            known: None,
            fenced: false,
            perhaps: Vec::new(),
            excused: Vec::new(),
            refused: (0, 0),
            refuses: (false, false),
            bare: Bare { per_initiator, ..Bare::new(config) },
            answers_wrongly: false,
            causes: [0; 3],
            silent_losses: 0,
            heard: [0; 3],
            must_hear: false,
            told_meanwhile: false,
            left_untold: 0,
            unclear: false,
            heard_before: [0; 3],
            theirs: (Vec::new(), false),
            held: false,
            of_all: false,
            has_kept: false,
            compared: 0,
        }
    }

    pub(crate) fn per_initiator(&self) -> bool {
        self.bare.per_initiator
    }

    /// The engine has the guest's registration kept, or forgotten.
    /// (Of what paths have that are gone nobody knows whether it is the guest's
    /// or came too late.) `there`: of all paths of the map.
    pub(crate) fn remember(
        &mut self,
        what: Option<Remembered>,
        of: &Reservations,
        live: &[ItNexus],
        there: &[ItNexus],
    ) {
        if let (Some(kept), None) = (self.kept, what) {
            let left = |(it, key): (ItNexus, Key)| it.initiator == OURS && key == kept.key;
            let any_left = of.registrations().any(left);
            self.silent_losses += u64::from(any_left);
            let leaves = |g: &Given| g.registers() && g.out.action_key.is_none();
            let own = self.given.iter().any(|g| leaves(g) || g.preempts_itself());
            if any_left && !own && !there.iter().any(|it| of.key_of(*it) == Some(kept.key)) {
                // What orders do then is what a guest is told that was preempted.
                self.race();
            }
            let gone = !live.iter().any(|it| of.key_of(*it) == Some(kept.key));
            // (Where the array denies or forgets registrations, the guest is rather taken for
            // preempted than brought back.)
            let denied = self.answers_wrongly || !self.excused.is_empty();
            let right = gone
                || self.fenced
                || denied
                || self.given.iter().any(|g| g.registers() || g.preempts_itself());
            assert!(
                right,
                "the guest's registration was forgotten, and is there: {}",
                of.to_words()
            );
        }
        if self.kept.map(|kept| kept.key) != what.map(|what| what.key) {
            self.perhaps.clear();
            self.had.extend(self.kept.map(|kept| kept.key));
        }
        self.known = self.known.filter(|known| what.is_some_and(|what| what.key == *known));
        self.kept = what;
    }

    /// Something that is not the guest's doing happens to reservations.
    pub(crate) fn race(&mut self) {
        self.given.iter_mut().for_each(|g| g.raced = true);
    }

    /// The engine hears of an order. `busy`: earlier commands are out.
    pub(crate) fn ordered(
        &mut self,
        now: Time,
        order: OrderId,
        of: &Reservations,
        live: &[ItNexus],
        busy: bool,
    ) {
        let alone = self.given.len() == 1;
        if !alone {
            self.race();
        }
        let Some(given) = self.given.iter_mut().find(|g| g.order == order) else { return };
        given.raced |= busy;
        given.before = View::of(of, live);
        if let Some(view) = &given.before {
            given.expected = self.bare.carry_out(now, view, of, &given.out);
            let nobodys = view.key.is_none() && !self.fenced && !self.excused.is_empty();
            if let Some(kept) = self.kept.filter(|_| nobodys) {
                let of_all = |kind: Type| kind.is_of_all_registrants();
                let held = view.held.map(|(kind, ours)| (kind, ours || of_all(kind)));
                let whole = View { key: Some(kept.key), held, ..view.clone() };
                given.repaired = self.bare.carry_out(now, &whole, of, &given.out);
            }
        }
        let registers = matches!(
            given.out.action,
            OutAction::Register | OutAction::RegisterAndIgnore | OutAction::ReplaceLost
        );
        // (By the key that was removed nobody registers again.)
        let by_its_key = given.out.action == OutAction::Register && !given.out.key.is_none();
        if registers && !given.out.action_key.is_none() && !by_its_key {
            let was = &mut given.was;
            *was = (std::mem::take(&mut self.fenced), std::mem::take(&mut self.told_meanwhile));
        }
    }

    /// Orders that were withdrawn, of which the engine knows nothing any more.
    pub(crate) fn forget_gone(&mut self) {
        // (It may not have registered by them: what it had heard before counts still.)
        self.told_meanwhile |= self.given.iter().any(|given| given.gone && given.was.1);
        self.given.retain(|given| !given.gone);
    }

    /// The guest hears of the loss of its registration, which may be another's.
    pub(crate) fn hears_of_loss(&mut self) {
        let earlier = self.left_untold > 0;
        self.left_untold -= u64::from(earlier);
        self.told_meanwhile |= earlier || self.is_registering();
    }

    /// An order is out that may give the guest a registration.
    pub(crate) fn is_registering(&self) -> bool {
        self.given.iter().any(|g| g.registers() && !g.out.action_key.is_none())
    }

    /// An order is out that removes the guest's registrations, all but one at most.
    pub(crate) fn preempts_itself(&self) -> bool {
        use OutAction::{Preempt, PreemptAndAbort};
        let preempts = |out: &Out| matches!(out.action, Preempt | PreemptAndAbort);
        self.given.iter().any(|g| preempts(&g.out) && g.out.key == g.out.action_key)
    }

    /// Registers another key or none, or may: I/O meanwhile goes as it may.
    fn in_between(&self) -> bool {
        self.given.iter().any(|g| g.registers() || g.withdrawn)
            || self.on_its_way.iter().any(|coming| coming.registers)
    }

    /// A guest's command goes to the array by this nexus. `carries`: as the
    /// engine has it by now, of which the queue thread may not know.
    pub(crate) fn may_go(&self, of: &Reservations, it: ItNexus, path: PathId, carries: bool) {
        let key = of.key_of(it);
        // The queue thread may not know yet that the engine has it carry nothing, since it has
        // a key that the guest had before, which nobody has preempted.
        let older = |key: Key| self.had.contains(&key) && self.kept.is_none_or(|k| k.key != key);
        // An array that has wrongly refused to remove a registration keeps it for good.
        let wrong = self.answers_wrongly && self.kept.is_none();
        let late = wrong || (!carries && key.is_some_and(older));
        assert!(
            !self.fenced || key.is_none() || late,
            "{path} is registered again, though the guest was fenced"
        );
        let Some(known) = self.known else { return };
        if self.in_between() || self.fenced || self.is_excused(it) {
            return;
        }
        // The guest's reservation admits one nexus, and has been moved from this one, of which
        // the queue thread does not know yet: what is not for everybody the array refuses.
        let alone = of.held().is_some_and(|held| held.kind.is_of_holder_alone());
        if key.is_none() && !carries && alone && held_by(of).is_some_and(|h| h.initiator == OURS) {
            return;
        }
        assert_eq!(key, Some(known), "a command by {path}, which is not registered");
    }

    /// Whether the engine may send this; `barred`: nothing goes by that path.
    /// `alone`: the guest holds a reservation that admits one nexus.
    pub(crate) fn may_be_asked(&self, out: &Out, barred: bool, alone: bool) {
        use OutAction::{
            Clear, Preempt, PreemptAndAbort, Register, RegisterAndIgnore, Release, ReplaceLost,
            Reserve,
        };
        let kept = self.kept.map(|kept| kept.key);
        let order = |which: &dyn Fn(&Out) -> bool| self.given.iter().any(|g| which(&g.out));
        let any_register = |o: &Out| matches!(o.action, Register | RegisterAndIgnore);
        let leaves = |o: &Out| any_register(o) && o.action_key.is_none();
        let may = match out.action {
            Register | RegisterAndIgnore if out.action_key.is_none() => {
                order(&|o| leaves(o)) || (out.action == RegisterAndIgnore && barred)
            }
            Register if out.key == out.action_key => Some(out.key) == kept || order(&any_register),
            Register | RegisterAndIgnore => {
                let its = |o: &Out| {
                    (any_register(o) || o.action == ReplaceLost) && o.action_key == out.action_key
                };
                order(&its) || (barred && kept == Some(out.action_key))
            }
            Reserve | Clear | ReplaceLost => order(&|o| o == out),
            Release => order(&|o| o.action == Release || leaves(o)),
            Preempt | PreemptAndAbort => {
                let own = kept == Some(out.key) && out.key == out.action_key;
                let moves = |o: &Out| o.action == Release || any_register(o);
                order(&|o| o == out)
                    || (own && (alone || order(&moves)))
                    // (A reservation that is the guest's by a key it had before.)
                    || (kept == Some(out.key)
                        && self.had.contains(&out.action_key)
                        && (alone || order(&|o| o.key == out.key)))
                    || order(&|o| any_register(o))
            }
            OutAction::RegisterAndMove => false,
        };
        assert!(may, "nobody has ordered {out:?}: {:?}, kept {:?}", self.given, self.kept);
    }

    /// A path that an array at fault has told that it is not registered is registered
    /// anew, and that taken back where nobody says what else was there meanwhile:
    /// the guest is fenced for it, rather than not.
    pub(crate) fn removes(&mut self, out: &Out, by: Option<ItNexus>, of: &Reservations) {
        let removal = out.action == OutAction::RegisterAndIgnore && out.action_key.is_none();
        let Some(kept) = self.kept.filter(|_| removal && self.answers_wrongly) else { return };
        let all = of.registrations().filter(|(it, key)| it.initiator == OURS && *key == kept.key);
        let last = all.map(|(it, _)| it).collect::<Vec<_>>();
        let its = by.is_some_and(|by| last == [by] || (self.per_initiator() && last.len() == 1));
        // (An order to register that waits has done nothing about it.)
        self.silent_losses += u64::from(its);
    }

    /// Some order is there that may end registrations or reservations.
    pub(crate) fn may_end(&self) -> bool {
        self.given.iter().any(|g| g.out.action != OutAction::Reserve)
    }

    /// The engine has answered.
    pub(crate) fn answered(
        &mut self,
        order: OrderId,
        outcome: Outcome,
        of: &Reservations,
        live: &[ItNexus],
    ) {
        let Some(at) = self.given.iter().position(|g| g.order == order) else {
            panic!("{order:?} is answered twice, or was never given");
        };
        let given = self.given.remove(at);
        if outcome == Outcome::Good && given.registers() {
            // What it has from now on is its own doing, and it knows.
            self.must_hear = false;
        }
        if outcome != Outcome::Good && !self.is_registering() {
            // (For want of a path it has not been carried out, not even in part.)
            self.fenced |= given.was.0 && outcome == Outcome::NoPath;
            self.told_meanwhile |= given.was.1;
        }
        let (registers, ended) = (given.registers(), given.withdrawn);
        self.on_its_way.push(Coming { order, registers, arrived: false, ended });
        self.unclear = match outcome {
            // (Ours, or the LU's own word for a command that it has aborted.)
            Outcome::Lu { sense, .. } => {
                let aborted = vhost_mpath::scsi::sense::Key::AbortedCommand;
                self.unclear || sense.code().is_some_and(|code| code.key == aborted)
            }
            _ => self.unclear && !(outcome == Outcome::Good && given.registers()),
        };
        if outcome != Outcome::Good && registers {
            self.perhaps.push(given.out.action_key);
        }
        if outcome == Outcome::Good
            && !given.out.action_key.is_none()
            && given.registers()
            && given.out.action != OutAction::Clear
        {
            let kept = self.kept.map(|kept| kept.key);
            assert!(
                given.raced || kept == Some(given.out.action_key),
                "answered before it is kept: {given:?}"
            );
        }
        let (Some((expected, then)), false) = (&given.expected, given.raced) else { return };
        let view = View::of(of, live);
        self.compared += 1;
        let nothing = of.registrations().next().is_none();
        if given.out.action == OutAction::Clear && outcome == Outcome::Good && nothing {
            // A guest whose registration the array has forgotten is told that it
            // has cleared it all, where the word of that was lost: so it is.
            return;
        }
        let repaired = given.repaired.as_ref().is_some_and(|(expected, then)| {
            same(&outcome, expected) && view.is_some() && view == *then
        });
        if repaired {
            return;
        }
        if same(&outcome, expected) {
            let right = then.is_none() || view.is_none() || view == *then || self.answers_wrongly;
            assert!(right, "{given:#?} ended {outcome:?}, and the LU has {view:?}");
            return;
        }
        let lost = match outcome {
            Outcome::NoPath => true,
            Outcome::Lu { status: Status::BUSY | Status::TASK_SET_FULL, .. } => true,
            Outcome::Lu { status: Status::RESERVATION_CONFLICT, .. } => {
                self.answers_wrongly || !self.excused.is_empty()
            }
            Outcome::Lu { status: Status::CHECK_CONDITION, sense, .. } => {
                sense.code() == Some(SenseCode::IO_PROCESS_TERMINATED)
                    || sense.code().is_some_and(|c| {
                        self.answers_wrongly
                            || c.key != vhost_mpath::scsi::sense::Key::IllegalRequest
                    })
            }
            _ => false,
        };
        assert!(lost, "{given:#?} ended {outcome:?}");
    }

    /// The queue thread has the answer.
    pub(crate) fn arrives(&mut self, order: OrderId) {
        let coming = self.on_its_way.iter_mut().find(|coming| coming.order == order);
        coming.into_iter().for_each(|coming| coming.arrived = true);
        self.on_its_way.retain(|coming| !coming.arrived || !coming.ended);
    }

    /// The guest has its answer.
    pub(crate) fn delivered(&mut self, order: OrderId, out: &Out, good: bool) {
        let coming = self.on_its_way.iter_mut().find(|coming| coming.order == order);
        coming.into_iter().for_each(|coming| coming.ended = true);
        self.on_its_way.retain(|coming| !coming.arrived || !coming.ended);
        let changes = !matches!(out.action, OutAction::Reserve | OutAction::Release);
        if good {
            self.known = self.kept.map(|kept| kept.key).filter(|_| !self.fenced);
        } else if changes {
            self.known = None;
        }
    }

    /// After every change, and often.
    pub(crate) fn look(&mut self, moment: u64, of: &Reservations, live: &[ItNexus]) {
        self.excused.retain(|it| of.key_of(*it).is_none());
        // (A guest that has given up its registration has none and holds nothing with all
        // others, whatever is still to be removed: for good, if the array wrongly says that it
        // cannot be.)
        let guests = |view: View| match self.kept {
            Some(_) => Some(view),
            None if self.answers_wrongly && view.key.is_some() => None,
            None => {
                let of_all = |kind: Type| kind.is_of_all_registrants();
                let held = view.held.map(|(kind, ours)| (kind, ours && !of_all(kind)));
                Some(View { key: None, held, ..view })
            }
        };
        let view = View::of(of, live).and_then(guests);
        let (reads, writes) = view.map_or((true, true), |view| view.forbids());
        let before = std::mem::replace(&mut self.refuses, (reads, writes));
        // (What it was lasts until now. While the guest registers it may be both.)
        let between = self.in_between();
        if reads || before.0 || between {
            self.refused.0 = moment;
        }
        if writes || before.1 || between {
            self.refused.1 = moment;
        }
    }

    /// Nothing of the other host's ends but by an order; nor does the guest's
    /// reservation. `out`: commands of ours that are out, and whether an order
    /// had asked for something of the kind.
    pub(crate) fn nothing_is_taken(&mut self, of: &Reservations, out: &[(Out, bool)]) {
        let (keys, holding) = theirs(of);
        let ends = |key: Key| {
            out.iter().any(|(out, _)| match out.action {
                OutAction::Clear => true,
                OutAction::Preempt | OutAction::PreemptAndAbort => {
                    out.action_key == key || out.action_key.is_none()
                }
                _ => false,
            })
        };
        for key in &self.theirs.0 {
            assert!(keys.contains(key) || ends(*key), "{key}, another host's, has gone");
        }
        let takes = |out: &Out| {
            matches!(out.action, OutAction::Clear | OutAction::Preempt | OutAction::PreemptAndAbort)
        };
        let taken = self.theirs.1 && !holding;
        assert!(
            !taken || out.iter().any(|(out, _)| takes(out)),
            "another host's reservation has gone"
        );
        self.theirs = (keys, holding);
        let held = holds(of, OURS);
        let ordered = out.iter().any(|(_, ordered)| *ordered);
        let lost = self.held && !held && self.kept.is_some() && !self.fenced;
        // (What all registrants hold ends with the guest's last registration: which the engine
        // removes if it may have come too late, and the array denies or forgets the others.)
        let denied = self.answers_wrongly || !self.excused.is_empty();
        let lost = lost && !(denied && self.of_all);
        assert!(!lost || ordered, "the guest has lost its reservation");
        (self.held, self.of_all) = (held, is_of_all(of));
        self.comes_late(of);
    }

    /// In an array with one registration for all ports, a command to register of an order
    /// before the last, which was lost and comes late, brings the older key back: the guest is
    /// taken for preempted, and told so.
    fn comes_late(&mut self, of: &Reservations) {
        let has = |key| of.registrations().any(|(it, its)| it.initiator == OURS && its == key);
        let has_kept = self.kept.is_some_and(|kept| has(kept.key));
        let had_kept = std::mem::replace(&mut self.has_kept, has_kept);
        let ordered = self.given.iter().any(Given::registers);
        let gone = self.per_initiator() && self.kept.is_some() && had_kept && !has_kept;
        let older = gone && !ordered && self.had.iter().any(|key| has(*key));
        self.silent_losses += u64::from(older);
    }

    /// Another host, or a fault, has changed what there is from `before`.
    pub(crate) fn changed(&mut self, before: &[(ItNexus, Key)], of: &Reservations) {
        self.theirs = theirs(of);
        (self.held, self.of_all) = (holds(of, OURS), is_of_all(of));
        for (it, _) in before.iter().filter(|(it, _)| it.initiator == OURS) {
            if of.key_of(*it).is_none() {
                self.excused.push(*it);
                if it.port == 0 {
                    self.known = None;
                }
            }
        }
    }

    /// None of these keys is the guest's, as far as anybody can know.
    pub(crate) fn is_none_of(&self, left: &[Key]) -> bool {
        let kept = self.kept.is_some_and(|kept| !left.contains(&kept.key));
        kept && !self.perhaps.iter().any(|key| left.contains(key))
    }

    /// (Port 0: the array has one registration for every port.)
    pub(crate) fn is_excused(&self, it: ItNexus) -> bool {
        self.excused.contains(&it) || self.excused.contains(&ItNexus { port: 0, ..it })
    }

    /// Whether the guest may be told of a conflict by a command that it sent at
    /// `since`.
    pub(crate) fn may_conflict(&self, since: u64, cdb: Option<&Cdb>) -> bool {
        let reads = cdb.is_some_and(|cdb| matches!(cdb.opcode(), 0x08 | 0x28 | 0x88 | 0xa8));
        since <= if reads { self.refused.0 } else { self.refused.1 }
    }
}

fn theirs(of: &Reservations) -> (Vec<Key>, bool) {
    let keys = of.registrations().filter(|(it, _)| it.initiator != OURS).map(|(_, key)| key);
    // (What all registrants hold, each may release.)
    (keys.collect(), !is_of_all(of) && holds(of, THEIRS))
}

fn is_of_all(of: &Reservations) -> bool {
    of.held().is_some_and(|held| held.kind.is_of_all_registrants())
}

/// But for the residual, which is of no meaning without data, and the format of
/// the sense, which another host may change.
fn same(a: &Outcome, b: &Outcome) -> bool {
    match (a, b) {
        (Outcome::Lu { status, sense, .. }, Outcome::Lu { status: other, sense: others, .. }) => {
            status == other && sense.code() == others.code()
        }
        _ => a == b,
    }
}
