//! After the faults: everything comes to rest, and says what is true.

use super::*;
use vhost_mpath::mpath::checker::CheckerKind;
use vhost_mpath::mpath::path::Path;
use vhost_mpath::mpath::policy::Failback;
use vhost_mpath::mpath::prio::PrioKind;
use vhost_mpath::mpath::topology::{GroupStatus, TopologyGroup};
use vhost_mpath::sim::LuId;

impl World {
    /// Once the faults have ended everything ends, and the paths come back.
    pub(super) fn come_to_rest(&mut self) {
        let limit = self.now + self.longest() * 3;
        while self.pending.iter().any(Option::is_some) {
            assert!(
                self.now < limit,
                "{} requests do not end: {} held, on paths {:?}, {}",
                self.pending.iter().flatten().count(),
                self.core.held(),
                self.wire.on_path,
                self.description()
            );
            self.advance(Duration::from_millis(500));
        }
        assert!(self.core.is_idle());
        self.advance(Duration::from_secs(60));
        for plug in self.wire.plugs.iter().filter(|p| !p.leaving) {
            let usable = self.map.path(plug.id).is_some_and(|p| p.is_usable());
            // Reading checkers call a path down that does not serve reads.
            let reads = self.map.path(plug.id).is_some_and(|p| {
                matches!(p.checker, CheckerKind::DirectIo | CheckerKind::ReadSector0)
            });
            let carries = self.array.access_state(plug.nexus).is_some_and(access::carries);
            // Nor can a group be activated that another host has reserved.
            let back = usable || ((reads || self.hosts.is_some()) && !carries);
            assert!(back, "{} does not come back: {}", plug.name, self.description());
        }
        assert!(self.wire.on_path.is_empty());
        let leaving = self.wire.plugs.iter().find(|p| p.leaving);
        assert!(leaving.is_none(), "removed and never closed: {leaving:?}");
    }

    /// What the engine thinks of each path, and what is true; a line for each.
    pub(super) fn description(&self) -> String {
        let topology = self.map.topology();
        let mut text =
            format!("at {:?}, {:?}, table {:?}\n", self.now, self.policy, self.map.table());
        for group in &topology.groups {
            text += &format!("group {}: {:?}\n", group.number, group.status);
            for p in &group.paths {
                let plug = self.wire.plug(p.id);
                let truth = plug.and_then(|plug| self.array.condition(plug.nexus));
                let whole = format!("{p:?}");
                let inner = whole.split("shrunk_to").nth(1).unwrap_or_default();
                text += &format!(
                    "  {} {} {:?} {} {:?} prio {} {}{}cause {:?}; true: group {:?}, {:?}; {inner}\n",
                    p.name,
                    p.id,
                    p.state,
                    p.checker_state.name(),
                    p.access,
                    p.priority,
                    if p.failed_by_administrator { "failed by administrator " } else { "" },
                    if p.marginal { "marginal " } else { "" },
                    p.last_cause,
                    plug.map(|p| p.group + 1),
                    truth,
                );
            }
        }
        text
    }

    pub(super) fn read_everything(&mut self) {
        for lba in (0..BLOCKS).step_by(64) {
            self.read(Extent::new(lba, LONGEST));
            self.advance(Duration::from_secs(2));
        }
        // What another host's reservation forbids is the guest's once the engine has been told
        // by each path, and the report may have been lost once.
        if self.hosts.is_some() {
            self.advance(Duration::from_secs(8));
        }
        // A path's last words may cost two activations: of another group, and of this again.
        for _ in 0..6 {
            if !self.story.alua() && self.pending.iter().any(Option::is_some) {
                self.advance(Duration::from_secs(2));
            }
        }
        assert!(
            self.pending.iter().all(Option::is_none),
            "the last reads do not end: {}",
            self.description()
        );
        assert_eq!(self.map.identity().capacity, Blocks(self.blocks), "the map has another size");
        self.last_events();
        self.totals.end = self.now.0;
    }

    /// Nothing happens any more but checks and readings; and what the engine
    /// believes is true.
    pub(super) fn stays_quiet(&mut self) {
        self.advance(Duration::from_secs(60));
        // What is sampled, or held back for a time, and what waits for its failback, has its turn.
        for _ in 0..4 {
            let groups = self.map.topology().groups;
            let open = groups.iter().flat_map(|g| &g.paths).any(|p| p.marginal);
            if open || self.map.topology().failback_at.is_some() {
                self.advance(Duration::from_secs(60));
            }
        }
        self.progress.quiet = true;
        self.advance(Duration::from_secs(60));
        // These measure or roll dice: what they find is never the same.
        let varies = matches!(self.policy.prio, PrioKind::Random | PrioKind::PathLatency { .. });
        let activates = self.progress.restless.iter().any(|what| what.starts_with("Activate "));
        let refused = activates && self.cannot_be_activated();
        let restless = &mut self.progress.restless;
        restless.retain(|_| !varies && !refused);
        let restless = &self.progress.restless;
        assert!(restless.is_empty(), "{restless:#?} while nothing happens: {}", self.description());
        self.access_is_true();
        self.reservations_are_right();
        self.best_group_is_used();
    }

    /// Another host's reservation refuses SET TARGET PORT GROUPS by some path, which is tried
    /// again as long as its group is the best.
    fn cannot_be_activated(&self) -> bool {
        let of = self.array.reservations(LuId(0));
        let asks = Cdb::set_target_port_groups(8);
        let mut ports = self.wire.plugs.iter().filter_map(|p| self.array.ports(p.nexus));
        self.hosts.is_some() && ports.any(|it| of.forbids(it, &asks))
    }

    /// Access states and priorities are the array's.
    fn access_is_true(&self) {
        let exclusive = match self.policy.prio {
            PrioKind::Alua { exclusive_pref } | PrioKind::Sysfs { exclusive_pref } => {
                exclusive_pref
            }
            PrioKind::Detect => false,
            _ => return,
        };
        if !self.story.alua() {
            return;
        }
        for plug in &self.wire.plugs {
            let path = self.map.path(plug.id).expect("in the map");
            let state = self.array.access_state(plug.nexus);
            let right = !path.is_usable()
                || (path.access.state == state
                    && path.priority == self.alua_priority(plug.group, exclusive));
            assert!(right, "{} is thought to be what it is not: {}", plug.name, self.description());
        }
    }

    /// Failback has taken place.
    fn best_group_is_used(&self) {
        if self.policy.failback != Failback::Immediate || self.laws.is_pinned() {
            return;
        }
        let groups = self.map.topology().groups;
        let carries = |g: &&TopologyGroup| g.paths.iter().any(Path::carries) && !g.marginal;
        let best = groups.iter().filter(carries).map(|g| g.priority).max();
        let used = groups.iter().find(|g| g.status == GroupStatus::Active);
        let right = used.is_some_and(|g| g.marginal || Some(g.priority) >= best);
        assert!(right || best.is_none(), "the best group is not used: {}", self.description());
    }
}
