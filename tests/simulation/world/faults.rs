//! What happens to the paths and to the LU.

use super::*;
use crate::jobs::What;

/// A path is blocked no longer.
pub(super) const MOST_BLOCKED: Duration = Duration::from_secs(10);

impl World {
    /// Index of a path that is not being closed.
    pub(super) fn any_plug(&mut self) -> Option<usize> {
        let n = self.wire.plugs.len();
        (n > 0).then(|| usize::try_from(self.random.below(n as u64)).unwrap())
    }

    pub(super) fn fault(&mut self) {
        let Some(at) = self.any_plug() else { return };
        if self.wire.plugs[at].deleted {
            return; // nothing leads there any more
        }
        let (id, nexus) = (self.wire.plugs[at].id, self.wire.plugs[at].nexus);
        let count = 1 + u32::try_from(self.random.below(3)).unwrap();
        let fault = match self.random.below(20) {
            0 => Fault::Cut(CutMode::Before),
            1 => Fault::Cut(CutMode::StatusLost),
            2 => Fault::Cut(CutMode::Half),
            3 | 4 => Fault::Hang,
            5 => Fault::Delay(self.random.duration(Duration::from_secs(3))),
            6 => self.sense(count),
            7 => self.host_byte(count),
            8 => {
                self.medium_errors = true;
                Fault::Sense { code: MEDIUM_ERROR, count: 1 }
            }
            9 => self.storm(count * 8),
            10 => self.takes_nothing(count),
            11 => self.device(nexus),
            12 => {
                let code = self.random.pick(&[(5, 0x91, 0x36), (2, 0x04, 0x03), (5, 0x04, 0x00)]);
                let code = SenseCode::new(Key::from_bits(code.0), code.1, code.2);
                Fault::ActivationSense { code, count }
            }
            13 => return self.remap(at),
            _ => {
                self.nexus_lost(id);
                Fault::Plug
            }
        };
        if self.trace {
            eprintln!("{:?} fault of {id}: {fault:?}", self.now);
        }
        self.array.inject(self.now, nexus, fault);
    }

    /// The host's transport has lost sight of the port: commands wait, but not
    /// for ever (`fast_io_fail_tmo`).
    fn device(&mut self, nexus: NexusId) -> Fault {
        if self.random.one_in(3) {
            return Fault::Device(DeviceState::Offline);
        }
        let blocked = self.random.duration(MOST_BLOCKED);
        let then = self.random.pick(&[DeviceState::Offline, DeviceState::Running]);
        self.unblocked.push((self.now + blocked, nexus, then));
        Fault::Device(DeviceState::Blocked)
    }

    /// Paths that were blocked for long enough.
    pub(super) fn unblock(&mut self) -> bool {
        let now = self.now;
        let due = |u: &(Time, NexusId, DeviceState)| u.0 <= now;
        let Some(at) = self.unblocked.iter().position(due) else { return false };
        let (_, nexus, then) = self.unblocked.remove(at);
        if self.array.device_state(nexus) == Some(DeviceState::Blocked) {
            self.array.inject(self.now, nexus, Fault::Device(then));
        }
        true
    }

    /// The LU has no room for commands.
    fn storm(&mut self, count: u32) -> Fault {
        self.busy = true;
        match self.random.one_in(2) {
            true => Fault::Busy { count },
            false => Fault::TaskSetFull { count },
        }
    }

    /// The path says that it is in order, and takes no I/O; 0: for good.
    fn takes_nothing(&mut self, count: u32) -> Fault {
        let count = if self.random.one_in(4) { 0 } else { count * 2 };
        match self.random.one_in(2) {
            true => Fault::IoHostByte { host: HostByte::TRANSPORT_DISRUPTED, count },
            false => {
                self.aborts += 1;
                Fault::IoSense { code: CRC_ERROR, count }
            }
        }
    }

    fn sense(&mut self, count: u32) -> Fault {
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

    fn host_byte(&mut self, count: u32) -> Fault {
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

    /// The storage administrator makes the LU larger, or smaller again, never
    /// to less than the guest uses.
    pub(super) fn resize_lu(&mut self) {
        let blocks = BLOCKS + 64 * self.sizes.below(4);
        // A map without a path cannot learn of it, and admits no path then.
        let has_path = self.wire.plugs.iter().any(|p| self.map.path(p.id).is_some());
        if !has_path || !self.may_be_resized() {
            return;
        }
        self.resize_to(blocks);
    }

    pub(super) fn resize_to(&mut self, blocks: u64) {
        let other = blocks != self.blocks;
        self.blocks = blocks;
        self.had.insert(self.blocks);
        let bytes = self.blocks * BLOCK as u64;
        let fault = Fault::Capacity(NewCapacity::Bytes(bytes));
        let host = self.story.hosts[0];
        self.array.try_inject(self.now, host, fault).expect("the medium is memory");
        if other {
            self.resized();
        }
    }

    /// The storage administrator gives the path's LUN to another LU, or back.
    /// Commands the array has already accepted end where they were.
    pub(super) fn remap(&mut self, at: usize) {
        let plug = &mut self.wire.plugs[at];
        let (id, nexus) = (plug.id, plug.nexus);
        if plug.remapped.take().is_some() {
            self.nexus_lost(id);
            self.array.inject(self.now, nexus, Fault::Plug);
        } else if self.map.path(id).is_some() {
            // What is out may yet tell of an event that the array asks it for no more.
            self.nexus_lost(id);
            let plug = &mut self.wire.plugs[at];
            // As a unit attention that a plug leaves behind.
            self.other.inject(self.now, nexus, Fault::Plug);
            let (attention, telling) = (true, None);
            plug.remapped = Some(Remapped { attention, telling });
        }
        if self.trace {
            eprintln!("{:?} {id} leads to {:?}", self.now, self.wire.plugs[at].remapped);
        }
    }

    pub(super) fn end_of_faults(&mut self) {
        // What another host has asked of the array is one of them.
        while self.wire.jobs.iter().any(|j| matches!(j.what, What::SetGroups)) {
            self.advance(Duration::from_millis(1));
        }
        self.wire.calm = true;
        self.answers_come();
        self.host_comes_to_rest();
        for at in 0..self.wire.plugs.len() {
            let plug = &mut self.wire.plugs[at];
            plug.remapped = None;
            plug.stuck = 0;
            let (id, nexus) = (plug.id, plug.nexus);
            self.nexus_lost(id);
            self.array.inject(self.now, nexus, Fault::Plug);
            self.array.inject(self.now, nexus, Fault::Delay(Duration::ZERO));
        }
        if self.wire.plugs.iter().all(|p| self.map.path(p.id).is_none()) {
            self.add_path();
        }
        self.groups_come_to_rest();
        self.allow_everything();
        self.hosts_come_to_rest();
    }
}
