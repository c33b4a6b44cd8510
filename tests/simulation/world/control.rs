//! The control thread: engine, checkers, proofs, and what they ask for.

use super::*;

impl World {
    pub(super) fn engine(&mut self, event: Event) {
        self.moment += 1;
        match &event {
            Event::Io(IoReport { path, reason: IoReason::Judged { verdict, .. }, .. })
                if *verdict == PathVerdict::Doubt =>
            {
                self.laws.doubted(self.moment, *path);
            }
            // The capacity is the engine's to judge.
            Event::Proven { path, proof, identity: Ok(found) }
                if found.wwid == self.map.identity().wwid =>
            {
                self.laws.proof_succeeds(*path, *proof);
            }
            _ => {}
        }
        let old = match &event {
            Event::Io(IoReport { path, epoch, reason }) => {
                let doubt = matches!(reason, IoReason::Judged { verdict: PathVerdict::Doubt, .. });
                self.map
                    .path(*path)
                    .filter(|p| p.epoch != *epoch && !doubt)
                    .map(|p| (p.id, p.state))
            }
            _ => None,
        };
        let mut fx = Effects::new();
        self.map.handle(self.now, event, &mut fx);
        if let Some((path, state)) = old {
            let now = self.map.path(path).map(|p| p.state);
            assert_eq!(now, Some(state), "an old report about {path} changed its state");
        }
        self.carry_out(fx);
    }

    pub(super) fn carry_out(&mut self, fx: Effects) {
        self.moment += 1;
        self.laws.check(self.moment, &self.map);
        for effect in fx {
            match effect {
                Effect::Publish(table) => self.post(Message::Table(table)),
                Effect::Check { path, check, .. } => {
                    let mut checker = Checker::new(CheckerKind::Tur);
                    assert_eq!(checker.begin(), Step::Issue(Probe::Fact(Fact::DeviceState)));
                    let sent = checker.on_answer(&Answer::DeviceState(None));
                    assert!(matches!(sent, Step::Issue(_)));
                    let purpose = Purpose::Check { path, check, checker };
                    self.probe(path, purpose, Cdb::test_unit_ready(), 0);
                }
                Effect::Prove { path, proof } => {
                    self.laws.proof_begins(self.moment, path, proof);
                    let (capacity, moment) = (None, self.moment());
                    let proof = Proof { path, proof, step: 0, tries: 5, capacity, moment };
                    self.probe(path, Purpose::Prove(proof), Cdb::read_capacity_16(32), 32);
                }
                // Being built.
                Effect::Prioritize { .. } | Effect::Activate { .. } | Effect::Sample { .. } => {}
                Effect::Retire(path) => self.post(Message::Retire(path)),
                Effect::Notify(Change::PathFailed { .. }) => self.totals.path_failures += 1,
                Effect::Notify(Change::PathReinstated { .. }) => self.totals.reinstated += 1,
                Effect::Notify(Change::Resized { to, .. }) => {
                    assert!(self.had.contains(&to.0), "the LU never had {to} blocks");
                    self.totals.resized += 1;
                }
                Effect::Notify(_) => {}
            }
        }
    }

    fn probe(&mut self, path: PathId, purpose: Purpose, cdb: Cdb, data_in_max: usize) {
        let Some(&nexus) = self.nexus_of.get(&path) else { return };
        let tag = {
            let mut wire = self.wire.borrow_mut();
            let tag = wire.tag();
            wire.tasks.insert(tag, purpose);
            tag
        };
        if let Some(scsi) = &mut self.scsi {
            scsi.sent.insert(tag, scsi.attentions.now());
        }
        let timeout = self.policy.checker_timeout;
        let data_out = Vec::new();
        let task = Task { nexus, tag, cdb, data_out, data_in_max, timeout };
        let mut wire = self.wire.borrow_mut();
        match wire.remapped.get_mut(&path) {
            None => self.array.submit(self.now, task),
            Some(remapped) => {
                // INQUIRY is served in spite of a unit attention.
                remapped.attention &= task.cdb.as_slice()[0] == 0x12;
                self.other.submit(self.now, task);
            }
        }
    }

    pub(super) fn task_done(&mut self, done: &Done) {
        let purpose = self.wire.borrow_mut().tasks.remove(&done.tag).expect("a task ends once");
        match purpose {
            Purpose::Guest { cookie, key } => self.command_done(done, cookie, key),
            Purpose::OtherHost { descriptor_sense } => {
                self.mode_selected(&done.completion, descriptor_sense);
            }
            Purpose::Check { path, check, mut checker } => {
                self.overhear(path, done.tag, &done.completion);
                let answer = Answer::Completed {
                    completion: done.completion,
                    data: Vec::new(),
                    took: Duration::ZERO,
                };
                match checker.on_answer(&answer) {
                    Step::Issue(_) => {
                        let purpose = Purpose::Check { path, check, checker };
                        self.probe(path, purpose, Cdb::test_unit_ready(), 0);
                    }
                    Step::Done(verdict) => self.post_checked(path, check, verdict),
                }
            }
            Purpose::Prove(proof) => {
                self.overhear(proof.path, done.tag, &done.completion);
                self.proof_step(done, proof);
            }
        }
    }

    fn post_checked(&mut self, path: PathId, check: u32, verdict: Verdict) {
        self.post(Message::ToEngine(Event::Checked { path, check, verdict }));
    }

    fn command_done(&mut self, done: &Done, cookie: Cookie, key: u64) {
        self.moment += 1;
        let table = std::sync::Arc::clone(self.core.table());
        let path = self.wire.borrow().on_path.get(&key).map(|w| w.path);
        let completion =
            self.wire.borrow_mut().take_off(key, done.completion, &done.data_in, &table);
        let retry = !matches!(completion, Completion::Good);
        self.totals.retries += u64::from(retry);
        if let (Some(scsi), Some(path)) = (&mut self.scsi, path) {
            if let Some(sense) = unit_attention(&completion) {
                scsi.told(path, sense);
            }
        }
        self.core.complete(self.now, cookie, &completion);
    }

    fn proof_step(&mut self, done: &Done, p: Proof) {
        let good = match &done.completion {
            Completion::Good => true,
            Completion::Scsi { status, host, .. } => {
                *status == Status::GOOD && *host == HostByte::OK
            }
            _ => false,
        };
        let Proof { path, proof, .. } = p;
        let answer = |identity| Message::ToEngine(Event::Proven { path, proof, identity });
        if !good && p.tries > 0 {
            let (cdb, room, moment) = if p.step == 0 {
                (Cdb::read_capacity_16(32), 32, self.moment())
            } else {
                (Cdb::inquiry(Some(vpd::IDENTIFICATION), 252), 252, p.moment)
            };
            let again = Proof { tries: p.tries - 1, moment, ..p };
            self.probe(path, Purpose::Prove(again), cdb, room);
        } else if !good {
            self.post(answer(Err(format!("{:?}", done.completion))));
        } else if p.step == 0 {
            // The name last, as in the daemon: INQUIRY uses up no unit attention.
            let capacity = Capacity::parse_16(&done.data_in);
            let purpose = Purpose::Prove(Proof { step: 1, capacity, ..p });
            self.probe(path, purpose, Cdb::inquiry(Some(vpd::IDENTIFICATION), 252), 252);
        } else {
            let capacity = p.capacity.expect("READ CAPACITY(16)");
            let identity = Identity {
                wwid: vpd::wwid(Some(&done.data_in), None).expect("VPD 83h"),
                capacity: capacity.blocks,
                block_size: capacity.block_size,
            };
            let ours = identity == *self.map.identity();
            if let Some(scsi) = self.scsi.as_mut().filter(|_| ours) {
                scsi.proven(path, p.moment);
            }
            self.post(answer(Ok(identity)));
        }
    }

    /// For the unit attentions: a proof begins.
    fn moment(&self) -> u64 {
        self.scsi.as_ref().map_or(0, |s| s.attentions.moment())
    }
}
