//! What happens to the world: faults, the administrator, stops.

use super::*;

impl World {
    pub(super) fn add_path(&mut self) {
        self.paths_made += 1;
        let name = format!("sim{}", self.paths_made);
        let nexus = self.array.add_nexus(&name);
        assert_eq!(self.other.add_nexus(&name), nexus);
        let new = NewPath {
            name: name.clone(),
            identity: Identity { capacity: Blocks(self.blocks), ..self.map.identity().clone() },
            checker: CheckerKind::Tur,
            attributes: Attributes::default(),
            reading: None,
        };
        let mut fx = Effects::new();
        match self.map.add_path(self.now, new, &mut fx) {
            Ok(id) => {
                // Law 10: the old path's last command is back, and it is closed.
                let used = self.nexus_of.keys().any(|old| old.slot == id.slot);
                assert!(!used, "slot {} is used again too early", id.slot);
                self.laws.joins(self.moment, id);
                if let Some(scsi) = &mut self.scsi {
                    scsi.proven(id, scsi.attentions.moment());
                }
                self.nexus_of.insert(id, nexus);
                self.names.insert(id, name);
            }
            Err(_) => {
                self.array.remove_nexus(self.now, nexus);
                self.other.remove_nexus(self.now, nexus);
            }
        }
        self.carry_out(fx);
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
        self.core.set_limits(*l);
    }

    pub(super) fn fault(&mut self) {
        let ids: Vec<PathId> = self.nexus_of.keys().copied().collect();
        let id = self.random.pick(&ids);
        let (nexus, name) = (self.nexus_of[&id], self.names[&id].clone());
        let mut fx = Effects::new();
        let count = 1 + u32::try_from(self.random.below(3)).unwrap();
        let fault = match self.random.below(17) {
            0 => Fault::Cut(CutMode::Before),
            1 => Fault::Cut(CutMode::StatusLost),
            2 => Fault::Cut(CutMode::Half),
            3 | 4 => Fault::Hang,
            5 => Fault::Delay(self.random.duration(Duration::from_secs(3))),
            6 => {
                let codes = [
                    (0x6, 0x29, 0x00),
                    (0x6, 0x3f, 0x0e),
                    (0x6, 0x2a, 0x09),
                    (0x2, 0x04, 0x01),
                    (0x2, 0x04, 0x0b),
                    (0x2, 0x3a, 0x00),
                    (0xb, 0x47, 0x00),
                ];
                // A guest that hears of unit attentions gets those of `events.rs`.
                let codes = if self.scsi.is_some() { &codes[3..] } else { &codes[..] };
                let (key, asc, ascq) = self.random.pick(codes);
                self.not_ready |= key == 0x2;
                self.aborts += u32::from(key == 0xb);
                // What is not ready may stay so for a while.
                let count = if key == 0x2 { count } else { 1 };
                Fault::Sense { code: SenseCode::new(Key::from_bits(key), asc, ascq), count }
            }
            7 => {
                let host = self.random.pick(&[
                    HostByte::TRANSPORT_DISRUPTED,
                    HostByte::NO_CONNECT,
                    HostByte::SOFT_ERROR,
                    HostByte::ERROR,
                    HostByte::TRANSPORT_MARGINAL,
                ]);
                self.host_errors |= host == HostByte::ERROR;
                Fault::HostByte { host, count }
            }
            8 => {
                self.medium_errors = true;
                Fault::Sense { code: MEDIUM_ERROR, count: 1 }
            }
            9 => {
                if self.nexus_of.len() < 4 {
                    self.shrink_limits();
                    self.add_path();
                }
                return;
            }
            10 => {
                // Refused for the last path, as it must be.
                let _ = self.map.remove_path(self.now, &name, &mut fx);
                self.carry_out(fx);
                return;
            }
            11 => {
                let _ = self.map.fail_path(self.now, &name, &mut fx);
                self.carry_out(fx);
                return;
            }
            12 => {
                let _ = self.map.reinstate_path(self.now, &name, &mut fx);
                self.carry_out(fx);
                return;
            }
            13 => return self.remap(id),
            _ => {
                self.nexus_lost(id);
                Fault::Plug
            }
        };
        self.array.inject(self.now, nexus, fault);
    }

    /// The storage administrator makes the LU larger, or smaller again, never
    /// to less than the guest uses.
    pub(super) fn resize_lu(&mut self) {
        let blocks = BLOCKS + 64 * self.sizes.below(4);
        if !self.may_be_resized() {
            return;
        }
        let Some(nexus) = self.nexus_of.values().next() else { return };
        let other = blocks != self.blocks;
        self.blocks = blocks;
        self.had.insert(self.blocks);
        let bytes = self.blocks * BLOCK as u64;
        let fault = Fault::Capacity(NewCapacity::Bytes(bytes));
        self.array.try_inject(self.now, *nexus, fault).expect("the medium is memory");
        if other {
            self.resized();
        }
    }

    /// The storage administrator gives the path's LUN to another LU, or back.
    /// Commands the array has already accepted end where they were.
    fn remap(&mut self, id: PathId) {
        let nexus = self.nexus_of[&id];
        let mut wire = self.wire.borrow_mut();
        if wire.remapped.remove(&id).is_some() {
            drop(wire);
            self.nexus_lost(id);
            self.array.inject(self.now, nexus, Fault::Plug);
        } else if let Some(path) = self.map.path(id) {
            // As a unit attention that a plug leaves behind.
            self.other.inject(self.now, nexus, Fault::Plug);
            wire.remapped.insert(id, Remapped { epoch: path.epoch, attention: true });
        }
    }

    pub(super) fn end_of_faults(&mut self) {
        self.wire.borrow_mut().calm = true;
        for (id, nexus) in self.nexus_of.clone() {
            self.wire.borrow_mut().remapped.remove(&id);
            self.nexus_lost(id);
            self.array.inject(self.now, nexus, Fault::Plug);
            self.array.inject(self.now, nexus, Fault::Delay(Duration::ZERO));
            let mut fx = Effects::new();
            if let Some(name) = self.names.get(&id).cloned() {
                let _ = self.map.reinstate_path(self.now, &name, &mut fx);
            }
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
        self.core.stop_ring(self.now, 0, how);
        self.settle();
        let mut asked = false;
        while self.core.outstanding(0) > 0 {
            assert!(
                self.now <= most,
                "the ring does not stop: {} outstanding",
                self.core.outstanding(0)
            );
            if !asked && self.now >= deadline {
                asked = true;
                self.core.stop_deadline(0);
                self.settle();
            }
            if asked {
                // Nothing waits any more: each request has a command out.
                let (left, out) = (self.core.outstanding(0), self.wire.borrow().on_path.len());
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
