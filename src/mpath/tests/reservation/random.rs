//! Random histories of a guest that reserves, of its paths and of another host
//! that fences it: in the end every path has what the guest has, or none has
//! anything, and what another host has removed is not brought back.

use super::*;
use proptest::prelude::*;

struct Random {
    world: World,
    orders: u64,
    fences: usize,
    /// It was fenced, and has ordered nothing since.
    is_out: bool,
    /// The array has forgotten a registration by itself.
    forgot: bool,
}

impl Random {
    fn order(&mut self, i: usize) {
        let key = self.world.key().unwrap_or([KEY, NEXT][i % 2]);
        let kind = [RO, EX, AR][self.world.count % 3];
        let typed = |action, action_key| out(action, key, action_key).of_type(kind);
        let order = match (self.world.count + self.world.rig.tables.len()) % 10 {
            0 | 1 => out(OutAction::RegisterAndIgnore, NONE, KEY),
            2 => register(NONE, NEXT),
            3 => register(key, [KEY, NEXT, NONE][i]),
            4 | 5 => typed(OutAction::Reserve, NONE),
            6 => typed(OutAction::Release, NONE),
            7 => typed(OutAction::Preempt, [key, OTHERS, NONE][i]),
            8 => out(OutAction::Clear, key, NONE),
            _ => typed(OutAction::Reserve, NONE),
        };
        self.world.give(order);
        self.orders += 1;
        self.is_out = false;
    }

    fn fence(&mut self, order: OutAction) {
        self.world.fenced = true;
        self.world.other_registers();
        for key in [KEY, NEXT] {
            let kind = self.world.array.held.map_or(RO, |h| h.1);
            self.world.array.out(OTHER, out(order, OTHERS, key).of_type(kind));
        }
        self.fences += 1;
        self.is_out = self.world.facts().orders == 0;
    }

    fn time(&mut self, seconds: u64) {
        self.world.rig.pass(Duration::from_secs(seconds));
        self.world.rig.all_checked(UP);
        for name in NAMES {
            if self.world.rig.is_proving(name) {
                self.world.rig.proven(name, Ok(super::lu()));
            }
        }
    }

    /// A guest's command meets a conflict where its nexus has no registration,
    /// or another alone has access.
    fn write(&mut self, i: usize) {
        let name = NAMES[i];
        let alone = self.world.array.held.filter(|(_, kind)| kind.is_of_holder_alone());
        let conflicts = !self.world.array.keys.contains_key(name)
            || alone.is_some_and(|(holder, _)| holder != Some(name));
        if self.world.in_table(name) && self.world.rig.table().registered && conflicts {
            self.world.rig.saw(name, PathVerdict::Conflict);
        }
    }

    fn one(&mut self, fault: Option<Fault>) {
        if self.world.rig.asks.is_empty() {
            return;
        }
        self.world.fault = fault.map(|fault| (self.world.count + 1, fault));
        self.world.one();
    }

    fn act(&mut self, what: u8, i: usize) {
        match what {
            0..=7 => self.one(None),
            8 => self.one(Some(Fault::Before)),
            9 => self.one(Some(Fault::After)),
            10 => self.one(Some(Fault::Hardware)),
            11 => self.world.lose(NAMES[i]),
            12 | 13 => self.time([1, 5, 12][i]),
            14 => self.fence([OutAction::Preempt, OutAction::Clear, OutAction::Preempt][i]),
            15 => {
                self.world.fenced = true; // as far as law 5 can be told from here
                self.world.array.unregister(NAMES[i]);
                self.fences += 1; // it may have been the only one
                self.forgot = true;
            }
            16 => self.write(i),
            17 => {
                let generation = self.world.rig.table().generation;
                self.world.rig.event(Event::Quiet { generation });
            }
            18 if self.world.array.held.is_none() => {
                self.world.other_registers();
                self.world.array.reserve(OTHER, EX);
            }
            _ => self.order(i),
        }
    }

    /// Whether an array that has forgotten a registration by itself, and told nobody, has
    /// kept it from being noticed what this path has.
    fn unheard(&self, name: array::Nexus) -> bool {
        let has = self.world.array.keys.contains_key(name);
        // It carries nothing, for another path holds the reservation; or what it conflicts
        // with is another host's, as every path does.
        let carries_nothing = self.world.rig.path(name).is_beside_the_holder()
            || self.world.array.held.is_some_and(|(holder, _)| holder == Some(OTHER));
        // The guest was taken for fenced: the registration that went was the one that counted.
        let fenced = self.world.key().is_none();
        self.forgot && ((carries_nothing && !has) || fenced)
    }

    fn come_to_rest(&mut self) {
        self.world.fault = None;
        for _ in 0..3 {
            self.world.run();
            (0..3).for_each(|i| self.write(i));
            self.world.all_return();
        }
        let facts = self.world.facts();
        assert!(!facts.suspended && !facts.unsure && facts.orders == 0, "{facts:?}");
        for order in 1..=self.orders {
            assert!(self.world.ended(order).is_some(), "order {order} is not answered");
        }
        for name in NAMES {
            assert!(
                self.world.is_used_well(name),
                "{name} is in use or not: {:?} {:?}",
                self.world.array,
                self.world.facts()
            );
            let has = self.world.array.keys.get(name).copied();
            assert!(has == self.world.key() || self.unheard(name), "of {name}: {has:?}");
        }
        let remembered = self.world.rig.remembered.last().copied().flatten();
        assert_eq!(remembered, facts.registered);
        assert!(self.world.rig.attentions.len() <= self.fences);
        assert!(!self.is_out || self.world.key().is_none(), "it was fenced");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_history_leaves_paths_that_differ_or_brings_back_a_guest_that_was_fenced(
        history in prop::collection::vec((0u8..24, 0usize..3), 0..120),
    ) {
        let (world, orders) = (World::new(3), 0);
        let mut random = Random { world, orders, fences: 0, is_out: false, forgot: false };
        for (what, i) in history {
            random.act(what, i);
        }
        random.come_to_rest();
    }
}
