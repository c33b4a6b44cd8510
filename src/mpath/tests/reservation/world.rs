//! A map of three paths to an [`Array`], with whatever happens between two
//! commands about reservations.

use super::array::{Array, Nexus, answer, check, lu};
use super::*;
use crate::mpath::reservation::{Answer, Facts, Registration};
use crate::scsi::reservation::Type;

pub(super) const NAMES: [Nexus; 3] = ["a", "b", "c"];
pub(super) const OTHER: Nexus = "another host";
pub(super) const GUEST: Nexus = "guest";

/// What happens at a certain command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its path is lost before it.
    Before,
    /// Its path is lost when it has been executed, with the answer.
    After,
    /// This path is lost just before.
    Lost(Nexus),
    /// Another host removes the guest's key by PREEMPT just before.
    Fenced,
    /// Another host clears everything just before.
    Cleared,
    /// Another host reserves for all registrants just before.
    Reserved,
    /// The LU fails it with a hardware error.
    Hardware,
    /// The LU is busy for so many commands.
    Busy(usize),
}

pub(super) struct World {
    pub(super) rig: Rig,
    pub(super) array: Array,
    /// Commands so far.
    pub(super) count: usize,
    pub(super) fault: Option<(usize, Fault)>,
    orders: u64,
    /// Nothing is said of being quiet.
    pub(super) noisy: bool,
    /// The array registers an initiator port once, by whatever target port.
    pub(super) per_initiator: bool,
    /// Another host may have removed registrations.
    pub(super) fenced: bool,
    /// An order is to clear everything, which one path may know of before the
    /// engine does.
    clears: bool,
}

impl World {
    pub(super) fn new(paths: usize) -> World {
        let policy = Policy { prio: PrioKind::Const, ..multibus() };
        World::with(Rig::new(policy, &NAMES[..paths]))
    }

    /// One path, `a`.
    pub(super) fn that_queues_for_20_s() -> World {
        let policy = Policy {
            no_path_retry: NoPathRetry::Queue,
            queue_timeout: Some(Duration::from_secs(20)),
            prio: PrioKind::Const,
            ..multibus()
        };
        World::with(Rig::new(policy, &["a"]))
    }

    pub(super) fn with(rig: Rig) -> World {
        let (array, fault) = (Array::default(), None);
        World {
            rig,
            array,
            count: 0,
            fault,
            orders: 0,
            noisy: false,
            per_initiator: false,
            fenced: false,
            clears: false,
        }
    }

    /// What a path is to the array.
    pub(super) fn nexus(&self, name: &str) -> Nexus {
        let name = NAMES.into_iter().find(|n| *n == name).expect("one of ours");
        if self.per_initiator { NAMES[0] } else { name }
    }

    pub(super) fn key(&self) -> Option<Key> {
        self.rig.map.reservation().iter().find(|r| !r.former).map(|r| r.key)
    }

    pub(super) fn facts(&self) -> Facts {
        self.rig.map.reservation_facts()
    }

    pub(super) fn in_table(&self, name: Nexus) -> bool {
        let id = self.rig.id(name);
        self.rig.table().groups.iter().flat_map(|g| &g.paths).any(|p| p.id == id)
    }

    /// Whether it is in use as it is to be: all paths are, or the one that
    /// holds a reservation that admits no other.
    pub(super) fn is_used_well(&self, name: Nexus) -> bool {
        let alone = self.array.held.filter(|(_, kind)| kind.is_of_holder_alone());
        let holder = alone.and_then(|(holder, _)| holder).filter(|h| *h != OTHER);
        if holder.is_some() && self.per_initiator {
            // Which of them it is, nothing tells.
            return NAMES.iter().filter(|name| self.in_table(name)).count() == 1;
        }
        self.in_table(name) == holder.is_none_or(|holder| holder == self.nexus(name))
    }

    pub(super) fn lose(&mut self, name: Nexus) {
        if self.rig.path(name).is_usable() {
            self.rig.fail(name);
        }
    }

    /// Its device has gone from the host; what the engine asks for then nobody carries out.
    pub(super) fn leaves(&mut self, name: &str) {
        let now = self.rig.now;
        self.rig.map.lose_path(now, name, &mut Vec::new()).expect("is there");
    }

    /// A path is checked and proven, or only proven; nothing is answered yet.
    pub(super) fn back(&mut self, name: &str) {
        self.rig.pass(Duration::from_secs(5));
        self.rig.all_checked(UP);
        self.rig.proven(name, Ok(super::lu()));
    }

    /// Another host registers.
    pub(super) fn other_registers(&mut self) {
        self.array.out(OTHER, Out::new(OutAction::RegisterAndIgnore, Key::NONE, OTHERS));
    }

    /// Carries out what the engine asks for until it asks for nothing more.
    pub(super) fn run(&mut self) {
        loop {
            self.holds_to_the_laws();
            if self.rig.asks.is_empty() {
                let table = self.rig.table();
                let generation = table.generation;
                let waits = table.suspended && !self.noisy;
                if !waits || self.facts().orders == 0 {
                    return;
                }
                self.rig.event(Event::Quiet { generation });
                if self.rig.asks.is_empty() && self.rig.table().suspended {
                    return;
                }
                continue;
            }
            self.one();
        }
    }

    /// Carries out one command.
    pub(super) fn one(&mut self) {
        let (path, job, ask) = self.rig.asks.remove(0);
        let nexus = self.nexus(&self.rig.map.path(path).expect("in the map").name);
        self.count += 1;
        self.array.all_ports = self.per_initiator;
        let is_now = |(at, fault): &(usize, Fault)| match fault {
            Fault::Busy(times) => (*at..at.saturating_add(*times)).contains(&self.count),
            _ => *at == self.count,
        };
        let fault = self.fault.filter(is_now).map(|(_, fault)| fault);
        match fault {
            Some(Fault::Lost(other)) => self.lose(other),
            Some(Fault::Fenced) => {
                self.fenced = true;
                self.other_registers();
                let kind = self.array.held.map_or(Type::WriteExclusiveRegistrantsOnly, |h| h.1);
                let preempt = Out::new(OutAction::Preempt, OTHERS, KEY).of_type(kind);
                self.array.out(OTHER, preempt);
            }
            Some(Fault::Cleared) => {
                self.fenced = true;
                self.other_registers();
                self.array.out(OTHER, Out::new(OutAction::Clear, OTHERS, Key::NONE));
            }
            Some(Fault::Reserved) => {
                self.array.out(OTHER, out(OutAction::Reserve, OTHERS, NONE).of_type(AR));
            }
            _ => {}
        }
        let answer = match fault {
            Some(Fault::Before) => gone(),
            Some(Fault::Hardware) => answer(check(SenseCode::INTERNAL_TARGET_FAILURE)),
            Some(Fault::Busy(_)) => answer(lu(Status::BUSY, Sense::EMPTY)),
            Some(Fault::After) => {
                self.array.ask(nexus, ask);
                gone()
            }
            _ => self.array.ask(nexus, ask),
        };
        self.rig.event(Event::Reserved { path, job, answer });
    }

    /// Law 5.
    fn holds_to_the_laws(&self) {
        let table = self.rig.table();
        if !table.registered || table.suspended || self.fenced || self.clears {
            return;
        }
        for name in NAMES.into_iter().filter(|n| self.rig.map.path_by_name(n).is_ok()) {
            if self.in_table(name) {
                let has = self.array.keys.get(self.nexus(name)).copied();
                assert_eq!(has, self.key(), "{name} is in use at command {}", self.count);
            }
        }
    }

    pub(super) fn give(&mut self, out: Out) {
        self.orders += 1;
        self.clears &= self.facts().orders > 0;
        self.clears |= out.action == OutAction::Clear;
        self.rig.event(Event::Ordered { order: OrderId(self.orders), out });
    }

    /// Has an order carried out; how it ended, if it has.
    pub(super) fn order(&mut self, out: Out) -> Option<Outcome> {
        self.give(out);
        self.run();
        self.ended(self.orders)
    }

    pub(super) fn ended(&self, order: u64) -> Option<Outcome> {
        let mut ends = self.rig.answers.iter().filter(|(id, _)| *id == OrderId(order));
        let end = ends.next().map(|(_, outcome)| *outcome);
        assert_eq!(ends.next(), None, "an order is answered once");
        end
    }

    /// How the last order ended.
    pub(super) fn last(&self) -> Option<Outcome> {
        self.ended(self.orders)
    }

    /// What was lost returns.
    pub(super) fn all_return(&mut self) {
        for _ in 0..8 {
            self.rig.pass(Duration::from_secs(5));
            self.rig.all_checked(UP);
            for name in NAMES {
                if self.rig.map.path_by_name(name).is_ok() && self.rig.is_proving(name) {
                    self.rig.proven(name, Ok(super::lu()));
                }
            }
            self.run();
        }
    }

    /// Whether the guest has what it would have with one path; all paths are
    /// there.
    pub(super) fn differs_from(&self, bare: &Array) -> Option<String> {
        let key = bare.keys.get(GUEST).copied();
        if self.key() != key {
            return Some(format!("{:?} is registered, not {key:?}", self.key()));
        }
        for name in NAMES.into_iter().filter(|n| self.rig.map.path_by_name(n).is_ok()) {
            let has = self.array.keys.get(self.nexus(name)).copied();
            if has != key || !self.is_used_well(name) {
                let used = self.in_table(name);
                return Some(format!("{name} has {has:?}, not {key:?}; in use: {used}"));
            }
            let knows = self.rig.path(name).registration() == Registration::Registered;
            assert_eq!(knows, key.is_some());
        }
        let mine = |(holder, kind): (Option<Nexus>, Type)| {
            let who = holder.map(|h| if NAMES.contains(&h) { GUEST } else { h });
            (who, kind)
        };
        let held = self.array.held.map(mine);
        (held != bare.held).then(|| format!("held by {held:?}, not {:?}", bare.held))
    }
}

/// The path is lost.
pub(super) fn gone() -> Answer {
    let completion = Completion::Scsi {
        status: Status::GOOD,
        host: HostByte::NO_CONNECT,
        sense: Sense::EMPTY,
        residual: 0,
    };
    Answer { completion, data: Vec::new() }
}
