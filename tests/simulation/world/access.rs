//! Target port groups: what happens to them, and what is true of them.

use super::*;
use crate::jobs::{Job, What};
use vhost_mpath::mpath::prio::{AluaReading, PrioKind, Reading};
use vhost_mpath::sim::{Task, Upgrade};

/// Target port groups are counted from 1.
fn id_of(group: usize) -> u16 {
    u16::try_from(group + 1).unwrap()
}

/// Whether a group in that state serves reads and writes.
pub(super) fn carries(state: AccessState) -> bool {
    matches!(
        state,
        AccessState::ActiveOptimized | AccessState::ActiveNonOptimized | AccessState::LbaDependent
    )
}

impl World {
    /// The state a group is in, and whether it is preferred.
    pub(super) fn state_of(&self, group: usize) -> AccessState {
        self.array.access_state(self.story.hosts[group]).expect("a host stays")
    }

    fn is_preferred(&self, group: usize) -> bool {
        self.progress.preferred.get(group).copied().unwrap_or(false)
    }

    /// What the path's prioritizer found when it was opened, where that is
    /// known without asking.
    pub(super) fn reading_of(&mut self, group: usize) -> Option<Reading> {
        let exclusive = match self.policy.prio {
            PrioKind::Detect if !self.story.alua() => {
                return Some(Reading { priority: Some(1), alua: None });
            }
            PrioKind::Detect => false,
            PrioKind::Alua { exclusive_pref } if self.story.alua() => exclusive_pref,
            _ => return None,
        };
        if self.random.one_in(4) {
            return None; // no answer
        }
        let groups = (0..self.story.hosts.len())
            .map(|g| (id_of(g), self.state_of(g), self.is_preferred(g)))
            .collect();
        let alua = AluaReading {
            own: id_of(group),
            implicit: self.story.implicit,
            explicit: self.story.explicit,
            transition: None,
            groups,
        };
        Some(Reading { priority: Some(self.alua_priority(group, exclusive)), alua: Some(alua) })
    }

    /// The number of multipath-tools' `alua` prioritizer.
    pub(super) fn alua_priority(&self, group: usize, exclusive: bool) -> i32 {
        let state = self.state_of(group);
        let base = match state {
            AccessState::ActiveOptimized => 50,
            AccessState::ActiveNonOptimized => 10,
            AccessState::LbaDependent => 5,
            AccessState::Standby => 1,
            _ => 0,
        };
        let optimized = state == AccessState::ActiveOptimized;
        let preferred = self.is_preferred(group) && (!optimized || exclusive);
        base + if preferred { 80 } else { 0 }
    }

    /// The array changes access states, or another host has it do so.
    pub(super) fn access_fault(&mut self) {
        let group = usize::try_from(self.random.below(self.story.hosts.len() as u64)).unwrap();
        if self.scsi.is_none() && (!self.story.alua() || self.random.one_in(4)) {
            return self.controller_fault(group);
        }
        if !self.story.alua() {
            return;
        }
        match self.random.below(8) {
            0 => {
                let preferred = self.random.one_in(2);
                self.prefer(group, preferred);
            }
            1..=3 => self.set_groups(),
            // All is well again.
            4 => {
                for g in 0..self.story.hosts.len() {
                    self.alua(g, AccessState::ActiveOptimized, Duration::ZERO);
                }
            }
            _ => {
                let state = self.random.pick(&[
                    AccessState::ActiveOptimized,
                    AccessState::ActiveOptimized,
                    AccessState::ActiveNonOptimized,
                    AccessState::Standby,
                    AccessState::Standby,
                    AccessState::Unavailable,
                    AccessState::Offline,
                ]);
                let transition = self.transition();
                self.alua(group, state, transition);
            }
        }
    }

    fn transition(&mut self) -> Duration {
        match self.random.below(8) {
            0 => Duration::from_secs(30),
            1 => Duration::from_secs(90), // too long
            2..=4 => self.random.duration(Duration::from_secs(5)),
            _ => Duration::ZERO,
        }
    }

    fn alua(&mut self, group: usize, state: AccessState, transition: Duration) {
        let fault = Fault::Alua { state, transition };
        if self.trace {
            eprintln!("{:?} group {}: {fault:?}", self.now, group + 1);
        }
        self.array.inject(self.now, self.story.hosts[group], fault);
    }

    fn prefer(&mut self, group: usize, preferred: bool) {
        self.progress.preferred.resize(self.story.hosts.len(), false);
        self.progress.preferred[group] = preferred;
        self.array.inject(self.now, self.story.hosts[group], Fault::Prefer(preferred));
    }

    /// What happens to whole controllers, where the guest is deaf to what they
    /// tell of themselves afterwards.
    fn controller_fault(&mut self, group: usize) {
        let host = self.story.hosts[group];
        let lasting = Duration::from_secs(1 + self.random.below(25));
        let fault = match self.random.below(8) {
            0 | 1 => Fault::ControllerDown { takeover: lasting },
            2 | 3 => Fault::ControllerUp,
            4 | 5 => Fault::TakeOwnership,
            6 if self.story.alua() => Fault::AluaFails { transition: lasting },
            _ => {
                let how = self.random.pick(&[Upgrade::Busy, Upgrade::BecomingReady, Upgrade::Gone]);
                self.not_ready |= how == Upgrade::BecomingReady;
                self.busy |= how == Upgrade::Busy;
                Fault::Upgrade { how, lasting }
            }
        };
        self.array.inject(self.now, host, fault);
    }

    /// Another host sends SET TARGET PORT GROUPS.
    fn set_groups(&mut self) {
        let groups = self.story.hosts.len();
        let mut data_out = vec![0; 4];
        let active = usize::try_from(self.random.below(groups as u64)).unwrap();
        for group in 0..groups {
            let state = match group == active {
                true => AccessState::ActiveOptimized,
                false => self.random.pick(&[
                    AccessState::ActiveNonOptimized,
                    AccessState::Standby,
                    AccessState::Unavailable,
                ]),
            };
            let id = id_of(group).to_be_bytes();
            data_out.extend([state.to_bits(), 0, id[0], id[1]]);
        }
        let len = u8::try_from(data_out.len()).unwrap();
        let cdb = Cdb::from_bytes(&[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, len, 0, 0]).unwrap();
        let tag = self.wire.tag();
        let begun = self.now;
        self.wire.jobs.push(Job { tag, what: What::SetGroups, sent: 0, drains: None, begun });
        let (nexus, timeout) = (self.story.hosts[active], COMMAND_TIMEOUT);
        self.array.submit(self.now, Task { nexus, tag, cdb, data_out, data_in_max: 0, timeout });
    }

    /// The array comes to rest: one group at least carries.
    pub(super) fn groups_come_to_rest(&mut self) {
        let groups = self.story.hosts.len();
        let over = Fault::Upgrade { how: Upgrade::Busy, lasting: Duration::ZERO };
        self.array.inject(self.now, self.story.hosts[0], over);
        if self.scsi.is_none() {
            for host in self.story.hosts.clone() {
                self.array.inject(self.now, host, Fault::ControllerUp);
            }
        }
        if !self.story.alua() {
            return;
        }
        // One that our paths go through.
        let in_map = |p: &&Plug| self.map.path(p.id).is_some();
        let carrier = self.wire.plugs.iter().find(in_map).map_or(0, |p| p.group);
        for group in 0..groups {
            let state = match group == carrier {
                true => AccessState::ActiveOptimized,
                false => self.random.pick(&[
                    AccessState::ActiveOptimized,
                    AccessState::ActiveNonOptimized,
                    AccessState::Standby,
                ]),
            };
            self.alua(group, state, Duration::ZERO);
        }
    }
}
