//! Random histories of one LU and three paths, against the engine alone: what
//! no table may ever say, and how every history ends once things are quiet.
//!
//! The model plays the array and the checking threads. A proof is answered in
//! two steps, so that it may have read what was true before the latest news.

use super::*;
use proptest::prelude::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// When a proof read, and what.
type Read = (u64, Result<Identity, String>);

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
}

impl World {
    fn new() -> World {
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
            reading: Vec::new(),
        };
        let rig = Rig::new(multibus(), &NAMES);
        World {
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
        for (i, name) in NAMES.iter().enumerate() {
            let listed = table.groups.iter().flat_map(|g| &g.paths).any(|v| v.id == self.id(i));
            let path = self.rig.path(name).clone();
            let truth = &mut self.paths[i];
            if truth.listed && !listed {
                truth.needs_proof = self.step;
            }
            truth.listed = listed;
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
        }
    }

    /// A check under way is answered.
    fn check(&mut self, i: usize) {
        let id = self.id(i);
        let Some(at) = self.rig.checks.iter().position(|c| c.0 == id) else { return };
        let (path, check) = self.rig.checks.remove(at);
        let truth = &mut self.paths[i];
        let verdict = match (truth.alive, truth.mapped) {
            (false, _) => Verdict::Down,
            (true, false) => Verdict::Disconnected,
            (true, true) => {
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
                *read = Some((step, answer));
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
        for _ in 0..60 {
            for i in 0..3 {
                self.guest_command(i);
                self.check(i);
                while !self.paths[i].reading.is_empty() {
                    self.prove(i);
                }
            }
            self.step += 1;
            self.rig.pass(Duration::from_secs(5));
            self.settle();
        }
        assert_eq!(self.rig.map.identity(), &sized(self.capacity));
        assert!(self.paths.iter().all(|t| t.listed), "{:#?}", self.rig.map.topology());
        assert!(!self.lun_gone);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_history_lets_an_unproven_path_carry_a_guests_command(
        history in prop::collection::vec((0u8..16, 0usize..3), 0..200),
    ) {
        let mut world = World::new();
        for (what, i) in history {
            world.act(what, i);
        }
        world.come_to_rest();
    }
}
