//! Random histories of one LU and three paths, against the engine alone: what
//! no table may ever say, and how every history ends once things are quiet.
//!
//! The model plays the array and the checking threads. A proof is answered in
//! two steps, and a reading of the target port groups is, too, so that it may
//! have read what was true before the latest news.

use super::*;
use crate::mpath::policy::{Failback, MarginalPath, SanPathErr};
use proptest::prelude::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The target port group of each, less one.
const TPG: [u16; 3] = [0, 1, 1];

/// When a proof read, and what.
type Read = (u64, Result<Identity, String>);

/// What a proof of a passive path comes to instead.
const PASSIVE: &str = "passive";

/// When a prioritizer read, and what.
type Found = (u64, Reading);

/// What one path is really like.
#[derive(Clone, Debug)]
struct Truth {
    remapped: bool,
    alive: bool,
    mapped: bool,
    /// The array has told that the path leads elsewhere; it tells it once.
    doubt_untold: bool,
    /// A check or a proof has met that, and no proof has settled it: the
    /// transport stops the guest's next command (`PathPort::issue`).
    met: bool,
    resize_untold: bool,
    /// Since when the engine knows it needs a proof (a step's number).
    needs_proof: u64,
    /// When the last proof that it is the map's LU had read.
    proven: u64,
    listed: bool,
    /// The engine calls it usable.
    usable: bool,
    /// The latest epoch a table had of it.
    epoch: u32,
    /// Since when the engine knows that it is passive.
    told: u64,
    /// When it was last read, or found, not to be.
    active: u64,
    /// The array has told that the target port groups are others now.
    refresh_untold: bool,
    /// Readings under way, as proofs.
    prioritizing: Vec<(u32, Option<Found>)>,
    /// Proofs under way: number, and what they have read, and when.
    reading: Vec<(u32, Option<Read>)>,
}

struct World {
    rig: Rig,
    paths: Vec<Truth>,
    capacity: u64,
    /// Every capacity the LU has had.
    had: Vec<u64>,
    step: u64,
    lun_gone: bool,
    policy: Policy,
    /// Of the two target port groups.
    states: [AccessState; 2],
    /// They change on request.
    explicit: bool,
}

impl World {
    fn new(setup: usize) -> World {
        let truth = Truth {
            remapped: false,
            alive: true,
            mapped: true,
            doubt_untold: false,
            met: false,
            resize_untold: false,
            needs_proof: 0,
            proven: 0,
            listed: true,
            usable: true,
            epoch: 1,
            told: 0,
            active: 0,
            refresh_untold: false,
            prioritizing: Vec::new(),
            reading: Vec::new(),
        };
        let grouping = GroupingPolicy::ALL[setup % 6];
        let failback = [
            Failback::Manual,
            Failback::Immediate,
            Failback::After(Duration::from_secs(3)),
            Failback::Followover,
        ][setup % 4];
        let no_path_retry = [NoPathRetry::Queue, NoPathRetry::Fail][setup % 2];
        let policy =
            Policy { grouping, failback, no_path_retry, pg_init_retries: 2, ..Policy::default() };
        let rig = Rig::new(policy.clone(), &NAMES);
        World {
            policy,
            states: [AccessState::ActiveOptimized; 2],
            explicit: setup % 3 > 0,
            rig,
            paths: vec![truth; 3],
            capacity: 1000,
            had: vec![1000],
            step: 0,
            lun_gone: false,
        }
    }

    fn id(&self, i: usize) -> PathId {
        self.rig.id(NAMES[i])
    }

    fn index(&self, id: PathId) -> usize {
        usize::from(id.slot)
    }

    fn answer(&self, i: usize) -> Result<Identity, String> {
        let truth = &self.paths[i];
        match (truth.alive && truth.mapped, truth.remapped) {
            (false, _) => Err("no answer".to_owned()),
            // The other LU has a size of its own.
            (true, true) => Ok(Identity { capacity: Blocks(7777), ..other_lu() }),
            (true, false) => Ok(sized(self.capacity)),
        }
    }

    /// Takes what the engine asked for, and holds it to the laws.
    fn settle(&mut self) {
        for (path, proof) in std::mem::take(&mut self.rig.proofs) {
            let i = self.index(path);
            self.paths[i].reading.push((proof, None));
        }
        for (path, reading) in std::mem::take(&mut self.rig.readings) {
            let i = self.index(path);
            assert!(self.paths[i].prioritizing.is_empty(), "one at a time");
            self.paths[i].prioritizing.push((reading, None));
        }
        for asked in &self.rig.activations {
            assert!(self.explicit && asked.handler == HandlerKind::Alua);
        }
        for change in self.rig.took_changes() {
            match change {
                Change::LunGone => {
                    assert!(!std::mem::replace(&mut self.lun_gone, true), "told twice");
                }
                Change::LunBack => {
                    assert!(std::mem::replace(&mut self.lun_gone, false), "it was not gone");
                }
                Change::Resized { to, .. } => assert_eq!(self.rig.map.identity().capacity, to),
                _ => {}
            }
        }
        let map = self.rig.map.identity().clone();
        assert_eq!((&map.wwid, map.block_size), (&lu().wwid, 512));
        assert!(self.had.contains(&map.capacity.0), "the LU never had {}", map.capacity);
        let table = self.rig.table().clone();
        assert_eq!(table.groups.is_empty(), self.rig.map.carrying() == 0);
        for (i, name) in NAMES.iter().enumerate() {
            let view = table.groups.iter().flat_map(|g| &g.paths).find(|v| v.id == self.id(i));
            let listed = view.is_some();
            let path = self.rig.path(name).clone();
            let truth = &mut self.paths[i];
            if truth.usable && !path.is_usable() {
                truth.needs_proof = self.step;
            }
            truth.usable = path.is_usable();
            let began = listed && !truth.listed;
            truth.listed = listed;
            assert_eq!(listed, path.carries());
            if let Some(view) = view {
                assert!(view.epoch > truth.epoch || (!began && view.epoch == truth.epoch));
                truth.epoch = view.epoch;
                assert!(truth.active >= truth.told, "{name} is in use, and known to be passive");
            }
            if !listed {
                continue;
            }
            assert!(truth.proven >= truth.needs_proof, "{name} is in use, unproven");
            assert!(
                path.capacity == map.capacity || path.proof.is_some(),
                "{name} was proven at {}, the map has {}, and nobody asks",
                path.capacity,
                map.capacity
            );
            assert_eq!(path.shrunk_to, None);
        }
    }

    fn event(&mut self, event: Event) {
        self.step += 1;
        self.rig.event(event);
        self.settle();
    }

    fn met(&mut self, i: usize, reason: IoReason) {
        let (path, epoch) = (self.id(i), self.rig.path(NAMES[i]).epoch);
        self.event(Event::Io(IoReport { path, epoch, reason }));
    }

    /// A guest's command on the path, if it is in use.
    fn guest_command(&mut self, i: usize) {
        let truth = self.paths[i].clone();
        if !truth.listed {
            return;
        }
        assert!(
            !truth.remapped || truth.doubt_untold || truth.met || !truth.alive || !truth.mapped,
            "a guest's command on {} went to another LU, which the array had told of",
            NAMES[i]
        );
        let ours = !truth.remapped && truth.alive && truth.mapped;
        if !truth.met && (!truth.alive || !truth.mapped) {
            self.met(i, judged(PathVerdict::Fail));
        } else if truth.met || truth.doubt_untold {
            // (The transport tells each thread once; one that is told in vain
            // reports again.)
            self.paths[i].doubt_untold &= truth.met;
            self.step += 1;
            self.paths[i].needs_proof = self.step;
            self.met(i, judged(PathVerdict::Doubt));
        } else if truth.resize_untold {
            self.paths[i].resize_untold = false;
            self.met(i, capacity_changed());
        } else if ours && std::mem::take(&mut self.paths[i].refresh_untold) {
            self.met(i, judged(PathVerdict::Refresh));
        } else if let Some(ascq) = self.passive(i).filter(|_| ours) {
            self.step += 1;
            self.paths[i].told = self.step;
            self.met(i, not_ready(ascq));
        }
    }

    /// What a command on the path is told, if its target port group does not
    /// carry I/O.
    fn passive(&self, i: usize) -> Option<u8> {
        match self.states[usize::from(TPG[i])] {
            AccessState::Transitioning => Some(0x0a),
            AccessState::Standby => Some(0x0b),
            AccessState::Unavailable => Some(0x0c),
            _ => None,
        }
    }

    /// The reading under way reads, or is answered if it has read.
    fn prioritize(&mut self, i: usize) {
        self.step += 1;
        let (step, answers) = (self.step, self.answer(i).is_ok() && !self.paths[i].remapped);
        let found = match (answers, self.explicit) {
            (false, _) => Reading { priority: None, alua: None },
            (true, true) => explicit(1 + TPG[i], &self.states),
            (true, false) => alua(1 + TPG[i], &self.states),
        };
        let Some((reading, read)) = self.paths[i].prioritizing.first_mut() else { return };
        let reading = *reading;
        match read.take() {
            None => *read = Some((step, found)),
            Some((at, found)) => {
                self.paths[i].prioritizing.remove(0);
                for (truth, tpg) in self.paths.iter_mut().zip(TPG) {
                    let state = found.alua.as_ref().map(|a| a.groups[usize::from(tpg)].1);
                    let active = [AccessState::ActiveOptimized, AccessState::ActiveNonOptimized];
                    if state.is_some_and(|s| active.contains(&s)) {
                        truth.active = truth.active.max(at);
                    }
                }
                let path = self.id(i);
                self.event(Event::Prioritized { path, reading, found });
            }
        }
    }

    /// An activation under way is answered: what it comes to is up to `luck`.
    fn activate(&mut self, luck: usize) {
        let Some(Asked { path, number, group, .. }) = self.rig.activations.pop() else { return };
        let i = self.index(path);
        let result = match luck {
            _ if self.answer(i).is_err() => Activation::Failed,
            0 => Activation::Busy,
            1 => Activation::Retry { delayed: self.step % 2 == 0 },
            2 => Activation::Transition,
            _ => Activation::Done,
        };
        self.step += 1;
        if result == Activation::Done && !self.paths[i].remapped {
            assert_eq!(group, Some(1 + TPG[i]));
            self.states[usize::from(TPG[i])] = AccessState::ActiveOptimized;
        }
        if result == Activation::Done {
            for (truth, tpg) in self.paths.iter_mut().zip(TPG) {
                truth.active = if tpg == TPG[i] { self.step } else { truth.active };
            }
        }
        self.event(Event::Activated { path, activation: number, result });
    }

    /// The array changes the state of a target port group, and tells.
    fn change_access(&mut self, tpg: usize) {
        let states = [
            AccessState::ActiveOptimized,
            AccessState::Standby,
            AccessState::Transitioning,
            AccessState::ActiveNonOptimized,
            AccessState::Unavailable,
        ];
        let at = usize::try_from(self.step).expect("small");
        self.states[tpg] = states[(at / 3 + tpg) % 5];
        self.paths.iter_mut().for_each(|t| t.refresh_untold = true);
    }

    /// A check under way is answered.
    fn check(&mut self, i: usize) {
        let id = self.id(i);
        let Some(at) = self.rig.checks.iter().position(|c| c.0 == id) else { return };
        let (path, check) = self.rig.checks.remove(at);
        let passive = self.passive(i).filter(|_| !self.paths[i].remapped);
        self.step += 1;
        let step = self.step;
        let truth = &mut self.paths[i];
        let verdict = match (truth.alive, truth.mapped) {
            (false, _) => Verdict::Down,
            (true, false) => Verdict::Disconnected,
            (true, true) if passive.is_some() => {
                let doubt = std::mem::take(&mut truth.doubt_untold);
                truth.met |= doubt;
                match passive {
                    Some(0x0a) => Verdict::Pending { doubt },
                    Some(0x0b) => Verdict::Ghost { doubt },
                    _ => Verdict::Down,
                }
            }
            (true, true) => {
                truth.active = step;
                let resized = std::mem::take(&mut truth.resize_untold);
                match std::mem::take(&mut truth.doubt_untold) {
                    true => {
                        truth.met = true;
                        Verdict::Up { doubt: true }
                    }
                    false if resized => Verdict::Resized,
                    false => UP,
                }
            }
        };
        self.event(Event::Checked { path, check, verdict });
    }

    /// The oldest proof under way reads, or is answered if it has read. What it
    /// meets on the way it passes over.
    fn prove(&mut self, i: usize) {
        self.step += 1;
        let (step, answer) = (self.step, self.answer(i));
        let passive = self.passive(i).is_some() && !self.paths[i].remapped;
        let truth = &mut self.paths[i];
        let Some((proof, read)) = truth.reading.first_mut() else { return };
        let proof = *proof;
        match read.take() {
            None => {
                if let Ok(found) = &answer {
                    truth.met |= std::mem::take(&mut truth.doubt_untold);
                    truth.met &= found.wwid != lu().wwid;
                    truth.resize_untold = false;
                }
                // READ CAPACITY is not answered in standby.
                *read = Some((
                    step,
                    if passive && answer.is_ok() { Err(PASSIVE.to_owned()) } else { answer },
                ));
            }
            Some((_, Err(passive))) if passive == PASSIVE => {
                truth.reading.remove(0);
                let counts = self.rig.path(NAMES[i]).proof.is_some_and(|o| o.number == proof);
                if counts {
                    self.paths[i].needs_proof = step;
                }
                let path = self.id(i);
                self.event(Event::Recognized { path, proof, wwid: lu().wwid });
            }
            Some((at, identity)) => {
                truth.reading.remove(0);
                if identity.as_ref().is_ok_and(|found| found.wwid == lu().wwid) {
                    truth.proven = truth.proven.max(at);
                }
                let path = self.id(i);
                self.event(Event::Proven { path, proof, identity });
            }
        }
    }

    /// The host's kernel has heard something, of whatever command.
    fn told(&mut self, i: usize) {
        let news = match self.step % 3 {
            0 => HostNews::Capacity,
            1 => HostNews::AccessStates,
            _ => {
                self.step += 1;
                self.paths[i].needs_proof = self.step;
                HostNews::PerhapsAnother("INQUIRY_DATA_HAS_CHANGED")
            }
        };
        self.event(Event::Told { path: self.id(i), news });
    }

    /// An administrator calls a path unreliable, or reliable.
    fn mark(&mut self, i: usize, marginal: bool) {
        self.step += 1;
        self.rig.set_marginal(NAMES[i], marginal);
        self.settle();
    }

    /// Other settings, of those that decide how unreliable paths are treated.
    fn reconfigure(&mut self, how: usize) {
        let san_path_err =
            SanPathErr { threshold: 1, forget_rate: 2, recovery_time: Duration::from_secs(20) };
        let marginal_path = MarginalPath {
            double_failed_time: Duration::from_secs(60),
            sample_time: Duration::from_secs(2),
            rate_threshold: 100,
            recheck_gap: Duration::from_secs(10),
        };
        let policy = Policy {
            san_path_err: (how > 0).then_some(san_path_err),
            marginal_path: (how > 0).then_some(marginal_path),
            marginal_pathgroups: how == 2,
            ..self.policy.clone()
        };
        self.step += 1;
        self.rig.with(|m, now, fx| m.set_policy(now, policy, fx));
        self.settle();
    }

    /// The reads of paths under way are answered.
    fn sample(&mut self) {
        for (path, sample) in std::mem::take(&mut self.rig.samples) {
            let good = self.answer(self.index(path)).is_ok();
            self.event(Event::Sampled { path, sample, good });
        }
    }

    fn act(&mut self, what: u8, i: usize) {
        match what {
            0 => self.paths[i].alive = !self.paths[i].alive,
            1 => self.paths[i].mapped = !self.paths[i].mapped,
            2 => {
                self.paths[i].remapped = !self.paths[i].remapped;
                self.paths[i].doubt_untold = true;
            }
            3 => {
                self.capacity = [400, 500, 1000, 2000, 3000][(self.had.len() + i) % 5];
                self.had.push(self.capacity);
                for truth in self.paths.iter_mut().filter(|t| !t.remapped) {
                    truth.resize_untold = true;
                }
            }
            4 | 5 => self.check(i),
            6..=9 => self.prove(i),
            10 => {
                self.step += 1;
                self.rig.pass(Duration::from_secs(1 + i as u64 * 7));
                self.settle();
            }
            11 => self.met(i, hung()),
            16 => self.change_access(i % 2),
            17..=19 => self.prioritize(i),
            20 | 21 => self.activate(i),
            22 => self.met(i, judged(PathVerdict::Marginal)),
            23 => self.mark(i, self.step % 2 == 0),
            24 => self.reconfigure(i),
            25 => self.sample(),
            26 => self.told(i),
            _ => self.guest_command(i),
        }
    }

    /// Everything is mended and everything is answered.
    fn come_to_rest(&mut self) {
        for truth in &mut self.paths {
            (truth.alive, truth.mapped) = (true, true);
            if std::mem::take(&mut truth.remapped) {
                truth.doubt_untold = true;
            }
        }
        self.reconfigure(0);
        for i in 0..3 {
            self.mark(i, false);
        }
        let settled = |s| match s {
            AccessState::Transitioning | AccessState::Unavailable => AccessState::Standby,
            s => s,
        };
        self.states = self.states.map(settled);
        if !self.explicit {
            self.states[0] = AccessState::ActiveOptimized;
        }
        for _ in 0..60 {
            for i in 0..3 {
                self.guest_command(i);
                self.check(i);
                while !self.paths[i].reading.is_empty() {
                    self.prove(i);
                }
                while !self.paths[i].prioritizing.is_empty() {
                    self.prioritize(i);
                }
                while !self.rig.activations.is_empty() {
                    self.activate(3);
                }
            }
            self.step += 1;
            self.rig.pass(Duration::from_secs(5));
            self.settle();
        }
        assert_eq!(self.rig.map.identity(), &sized(self.capacity));
        let topology = self.rig.map.topology();
        for (i, truth) in self.paths.iter().enumerate() {
            assert!(truth.usable, "{topology:#?}");
            assert_eq!(truth.listed, self.passive(i).is_none(), "{:?} {topology:#?}", self.states);
        }
        assert!(topology.carrying > 0, "a group could be activated");
        assert!(!self.lun_gone);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_history_lets_an_unproven_path_carry_a_guests_command(
        setup in 0usize..24,
        history in prop::collection::vec((0u8..27, 0usize..3), 0..200),
    ) {
        let mut world = World::new(setup);
        for (what, i) in history {
            world.act(what, i);
        }
        world.come_to_rest();
    }
}
