//! After the faults: everything comes to rest, and says what is true.

use super::*;

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
        let topology = self.map.topology();
        let all = topology.groups.iter().flat_map(|g| &g.paths).count();
        assert_eq!(topology.usable, all, "a path does not come back: {}", self.description());
        assert_eq!(self.map.identity().capacity, Blocks(self.blocks), "the map has another size");
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
                text += &format!(
                    "  {} {} {:?} {} {:?} prio {} {}{}cause {:?}; true: group {:?}, {:?}\n",
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
        assert!(
            self.pending.iter().all(Option::is_none),
            "the last reads do not end: {}",
            self.description()
        );
        self.last_events();
        self.totals.end = self.now.0;
    }

    /// Nothing happens any more but checks and readings.
    pub(super) fn stays_quiet(&mut self) {
        self.progress.restless = 0;
        self.advance(Duration::from_secs(60));
        let restless = self.progress.restless;
        assert_eq!(restless, 0, "{restless} effects while nothing happens");
    }
}
