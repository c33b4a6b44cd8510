//! The administrator: paths come and go, groups are switched, the map is
//! reconfigured.

use super::*;
use vhost_mpath::mpath::checker::CheckerKind;
use vhost_mpath::mpath::policy::{Failback, FlushOnLastDel};
use vhost_mpath::mpath::prio::Attributes;
use vhost_mpath::sim::Plugged;

impl World {
    pub(super) fn administrator(&mut self) {
        let mut fx = Effects::new();
        let name = match self.any_plug() {
            Some(at) => self.wire.plugs[at].name.clone(),
            None => String::new(),
        };
        match self.random.below(20) {
            0..=3 => {
                if self.wire.plugs.len() < self.story.most_paths {
                    self.shrink_limits();
                    self.add_path();
                }
            }
            // Refused for the last path, as it must be.
            4 => drop(self.map.remove_path(self.now, &name, &mut fx)),
            5 => self.lose_path(&name, &mut fx),
            6 | 7 => drop(self.map.fail_path(self.now, &name, &mut fx)),
            8..=10 => drop(self.map.reinstate_path(self.now, &name, &mut fx)),
            11 | 12 => self.switch_group(&mut fx),
            13 => {
                self.progress.disabled = true;
                self.queueing_changed();
                self.map.disable_queueing(self.now, &mut fx);
            }
            14 => self.restore_queueing(&mut fx),
            15 | 16 => {
                let marginal = self.random.one_in(2);
                drop(self.map.set_marginal(self.now, &name, marginal, &mut fx));
            }
            17 | 18 => self.reconfigure(&mut fx),
            _ => self.map.prove_all(self.now, &mut fx),
        }
        self.laws.commanded(self.now);
        self.reasons.commanded(self.now);
        self.access.commanded();
        self.carry_out(fx);
    }

    pub(super) fn add_path(&mut self) {
        let name = format!("sim{}", self.paths_made + 1);
        let group = usize::try_from(self.random.below(self.story.hosts.len() as u64)).unwrap();
        self.plug_in(name, group, None);
    }

    /// A path through a target port group, which may be given a state.
    pub(super) fn plug_in(&mut self, name: String, group: usize, access: Option<AccessState>) {
        self.paths_made += 1;
        let number = self.paths_made;
        let group_id = Some(u16::try_from(group + 1).unwrap());
        let port = self.port_again(group);
        let at = Plugged { group: group_id, access, port, ..Plugged::default() };
        let nexus = self.array.connect(&name, at).expect("a new port");
        assert_eq!(self.other.connect(&name, at).expect("a new port"), nexus);
        let attributes = Attributes {
            devname: name.clone(),
            hbtl: Some(format!("{}:0:{group}:0", number % 2)),
            serial: Some(format!("serial{}", group % 2)),
            target_node: Some(format!("node{group}")),
            target_port: Some(format!("port{number}")),
        };
        let new = NewPath {
            name,
            identity: Identity { capacity: Blocks(self.blocks), ..self.map.identity().clone() },
            checker: self.policy.checker.unwrap_or(CheckerKind::Tur),
            attributes: attributes.clone(),
            reading: self.reading_of(group),
        };
        let mut fx = Effects::new();
        let reading = new.reading.clone();
        match self.map.add_path(self.now, new, &mut fx) {
            Ok(id) => {
                self.reasons.joins(reading.as_ref());
                // Law 10: the old path's last command is back, and it is closed.
                let used = self.wire.plugs.iter().any(|old| old.id.slot == id.slot);
                assert!(!used, "slot {} is used again too early", id.slot);
                self.laws.joins(self.moment, self.now, id);
                if let Some(scsi) = &mut self.scsi {
                    scsi.proven(id, scsi.attentions.moment());
                }
                self.wire.plugs.push(Plug::new(id, attributes, nexus, group));
                self.progress.lost_all = false;
                self.queueing_changed();
            }
            Err(_) => {
                self.array.remove_nexus(self.now, nexus);
                self.other.remove_nexus(self.now, nexus);
            }
        }
        self.carry_out(fx);
    }

    /// The host has lost the device, were it the last one.
    pub(super) fn lose_path(&mut self, name: &str, fx: &mut Effects) {
        if self.wire.plugs.iter().filter(|p| self.map.path(p.id).is_some()).count() == 1 {
            self.progress.lost_all = true;
            self.progress.flushed = self.policy.flush_on_last_del == FlushOnLastDel::Always;
            self.queueing_changed();
        }
        drop(self.map.lose_path(self.now, name, fx));
    }

    fn switch_group(&mut self, fx: &mut Effects) {
        let number = 1 + u16::try_from(self.random.below(4)).unwrap();
        if self.map.switch_group(self.now, number, fx).is_ok() {
            self.laws.pinned(self.now);
        }
    }

    fn restore_queueing(&mut self, fx: &mut Effects) {
        self.progress.disabled = false;
        self.queueing_changed();
        self.map.restore_queueing(self.now, fx);
    }

    /// `set map`: one setting or all of them.
    fn reconfigure(&mut self, fx: &mut Effects) {
        self.totals.reconfigured += 1;
        let drawn = setup::draw_policy(&mut self.random, self.story.personality);
        self.policy = match self.random.below(4) {
            0 => drawn,
            1 => Policy { grouping: drawn.grouping, ..self.policy.clone() },
            2 => Policy { failback: drawn.failback, prio: drawn.prio, ..self.policy.clone() },
            _ => Policy {
                no_path_retry: drawn.no_path_retry,
                queue_timeout: drawn.queue_timeout,
                ..self.policy.clone()
            },
        };
        self.queueing_changed();
        let first = |map: &Multipath| {
            let group = map.table().and_then(|t| t.groups.first().cloned());
            group.map_or_else(Vec::new, |g| g.paths.iter().map(|v| v.id).collect::<Vec<_>>())
        };
        let before = first(&self.map);
        self.map.set_policy(self.now, self.policy.clone(), fx);
        // Settings move no I/O, but where the new ones have it go back at once.
        let after = first(&self.map);
        let carries =
            |id: &&PathId| self.map.path(**id).is_some_and(|p| p.carries() && !p.marginal);
        let still =
            before.iter().find(carries).filter(|_| before.iter().all(|id| !after.contains(id)));
        assert!(
            still.is_none() || self.policy.failback == Failback::Immediate,
            "other settings have moved I/O away from {still:?}: {}",
            self.description()
        );
    }

    /// The path that is about to join takes less than the others.
    fn shrink_limits(&mut self) {
        if !self.random.one_in(3) {
            return;
        }
        let l = &mut self.limits;
        l.max_transfer = Blocks((l.max_transfer.0 / 2).max(3));
        l.max_segments = (l.max_segments / 2).max(2);
        l.fua &= !self.random.one_in(3);
        self.touched = true;
        self.core.set_limits(*l);
    }

    /// Everything the administrator forbade is allowed again.
    pub(super) fn allow_everything(&mut self) {
        let mut fx = Effects::new();
        self.reasons.commanded(self.now);
        self.access.commanded();
        self.restore_queueing(&mut fx);
        self.carry_out(fx);
        let names: Vec<String> = self.wire.plugs.iter().map(|p| p.name.clone()).collect();
        for name in names {
            let mut fx = Effects::new();
            let _ = self.map.set_marginal(self.now, &name, false, &mut fx);
            let _ = self.map.reinstate_path(self.now, &name, &mut fx);
            self.carry_out(fx);
        }
    }

    /// The ring is stopped (reboot, disconnect), or starts again.
    pub(super) fn stop_or_restart(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let how = self.random.pick(&[Stop::Finish, Stop::Suspend, Stop::Discard]);
        self.stopping = Some(how);
        // Bounded even with every path gone or hung: one command timeout.
        let most = self.now + self.longest() + Duration::from_secs(2);
        let patience = [0, 50, 2000, 31_000];
        let deadline = self.now + Duration::from_millis(self.random.pick(&patience));
        self.touched = true;
        self.core.stop_ring(self.now, 0, how);
        self.settle();
        let mut asked = false;
        while self.core.outstanding(0) > 0 {
            let left = self.core.outstanding(0);
            assert!(self.now <= most, "the ring does not stop: {left} outstanding");
            if !asked && self.now >= deadline {
                asked = true;
                self.touched = true;
                self.core.stop_deadline(0);
                self.settle();
            }
            if asked {
                // Nothing waits any more: each request has a command out.
                let (left, out) = (self.core.outstanding(0), self.wire.on_path.len());
                assert!(left as usize <= out, "{left} requests wait, {out} commands are out");
            }
            if self.scsi.is_some() && self.random.one_in(10) {
                self.manage();
            }
            let pause = Duration::from_millis(20 + self.random.below(180));
            self.advance(pause);
        }
        self.core.ring_stopped(0);
        self.stopping = None;
    }
}
