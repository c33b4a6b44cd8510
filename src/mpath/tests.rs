//! The engine, step by step: what it asks for, and what it publishes.

use std::time::Duration;

use super::*;
use crate::io::{Blocks, Completion, ErrnoFrom, Op, Outcome};
use crate::mpath::checker::Verdict;
use crate::mpath::hwhandler::{Activation, HandlerKind};
use crate::mpath::policy::GroupingPolicy;
use crate::mpath::policy::NoPathRetry;
use crate::mpath::prio::{AluaReading, PrioKind};
use crate::mpath::reservation::{Ask, OrderId, Remembered};
use crate::mpath::snapshot::PathView;
use crate::mpath::snapshot::SelectorKind;
use crate::scsi::alua::AccessState;
use crate::scsi::sense::{Key, Sense, SenseCode};
use crate::scsi::status::{HostByte, Status};

mod access;
mod activation;
mod capacity;
mod checks;
mod failback;
mod grouping;
mod identity;
mod queueing;
mod random;
mod reconfigure;
mod reinstatement;
mod removal;
mod reservation;
mod shaky;

/// A map, its time, and what it asked for and has not been answered.
struct Rig {
    map: Multipath,
    now: Time,
    checks: Vec<(PathId, u32)>,
    proofs: Vec<(PathId, u32)>,
    samples: Vec<(PathId, u32)>,
    /// Of every check asked for.
    checkers: Vec<CheckerKind>,
    readings: Vec<(PathId, u32)>,
    activations: Vec<Asked>,
    retire: Vec<PathId>,
    changes: Vec<Change>,
    tables: Vec<Arc<PathTable>>,
    /// Commands about reservations.
    asks: Vec<(PathId, u32, Ask)>,
    answers: Vec<(OrderId, Outcome)>,
    attentions: Vec<SenseCode>,
    remembered: Vec<Option<Remembered>>,
}

/// An activation under way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    path: PathId,
    number: u32,
    handler: HandlerKind,
    group: Option<u16>,
}

fn lu() -> Identity {
    Identity { wwid: "3600a".to_owned(), capacity: Blocks(1000), block_size: 512 }
}

fn sized(blocks: u64) -> Identity {
    Identity { capacity: Blocks(blocks), ..lu() }
}

fn other_lu() -> Identity {
    Identity { wwid: "3600b".to_owned(), ..lu() }
}

fn failover() -> Policy {
    Policy { grouping: GroupingPolicy::Failover, ..Policy::default() }
}

fn multibus() -> Policy {
    Policy { grouping: GroupingPolicy::Multibus, ..Policy::default() }
}

const UP: Verdict = Verdict::Up { doubt: false };
const GHOST: Verdict = Verdict::Ghost { doubt: false };
const PENDING: Verdict = Verdict::Pending { doubt: false };

impl Rig {
    /// A map with these paths.
    fn new(policy: Policy, names: &[&str]) -> Rig {
        let mut rig = Rig {
            map: Multipath::new(lu(), policy),
            now: Time(1_000_000_000),
            checks: Vec::new(),
            proofs: Vec::new(),
            samples: Vec::new(),
            checkers: Vec::new(),
            readings: Vec::new(),
            activations: Vec::new(),
            retire: Vec::new(),
            changes: Vec::new(),
            tables: Vec::new(),
            asks: Vec::new(),
            answers: Vec::new(),
            attentions: Vec::new(),
            remembered: Vec::new(),
        };
        for name in names {
            rig.add(name).expect("joins");
        }
        rig.changes.clear();
        rig
    }

    fn take(&mut self, fx: Effects) {
        for effect in fx {
            match effect {
                Effect::Publish(table) => self.tables.push(table),
                Effect::Check { path, check, checker } => {
                    self.checkers.push(checker);
                    self.checks.push((path, check));
                }
                Effect::Prove { path, proof } => self.proofs.push((path, proof)),
                Effect::Prioritize { path, reading, .. } => self.readings.push((path, reading)),
                Effect::Activate { path, activation, handler, group } => {
                    self.activations.push(Asked { path, number: activation, handler, group });
                }
                // Being built.
                Effect::Sample { path, sample } => self.samples.push((path, sample)),
                Effect::Retire(id) => self.retire.push(id),
                Effect::Reserve { path, job, ask } => self.asks.push((path, job, ask)),
                Effect::Answer { order, outcome } => self.answers.push((order, outcome)),
                Effect::Attention(code) => self.attentions.push(code),
                Effect::Remember(what) => self.remembered.push(what),
                Effect::Notify(change) => self.changes.push(change),
            }
        }
    }

    fn with<T>(&mut self, step: impl FnOnce(&mut Multipath, Time, &mut Effects) -> T) -> T {
        let mut fx = Effects::new();
        let result = step(&mut self.map, self.now, &mut fx);
        self.take(fx);
        result
    }

    fn add(&mut self, name: &str) -> Result<PathId, MapError> {
        self.add_with(name, lu())
    }

    fn add_with(&mut self, name: &str, identity: Identity) -> Result<PathId, MapError> {
        self.join(NewPath { identity, ..new_path(name) })
    }

    fn join(&mut self, new: NewPath) -> Result<PathId, MapError> {
        self.with(|m, now, fx| m.add_path(now, new, fx))
    }

    /// A map with these paths, which have been read before they joined.
    fn read(policy: Policy, paths: &[(&str, Reading)]) -> Rig {
        let mut rig = Rig::new(policy, &[]);
        for (name, reading) in paths {
            let reading = Some(reading.clone());
            rig.join(NewPath { reading, ..new_path(name) }).expect("joins");
        }
        rig.changes.clear();
        rig
    }

    fn set_marginal(&mut self, name: &str, marginal: bool) {
        self.with(|m, now, fx| m.set_marginal(now, name, marginal, fx)).expect("in the map");
    }

    fn is_reading(&self, name: &str) -> bool {
        self.readings.iter().any(|r| r.0 == self.id(name))
    }

    /// Answers the reading under way.
    fn prioritized(&mut self, name: &str, found: Reading) {
        let id = self.id(name);
        let at = self.readings.iter().position(|r| r.0 == id).expect("a reading is under way");
        let (path, reading) = self.readings.remove(at);
        self.event(Event::Prioritized { path, reading, found });
    }

    fn is_activating(&self, name: &str) -> bool {
        self.activations.iter().any(|a| a.path == self.id(name))
    }

    /// Answers the activation under way.
    fn activated(&mut self, name: &str, result: Activation) {
        let id = self.id(name);
        let at = self.activations.iter().position(|a| a.path == id).expect("it is under way");
        let Asked { path, number, .. } = self.activations.remove(at);
        self.event(Event::Activated { path, activation: number, result });
    }

    fn id(&self, name: &str) -> PathId {
        self.path(name).id
    }

    fn path(&self, name: &str) -> &Path {
        self.map.path_by_name(name).expect("in the map")
    }

    fn event(&mut self, event: Event) {
        self.with(|m, now, fx| m.handle(now, event, fx));
    }

    /// Lets time pass, with the timer as the engine wants it.
    fn pass(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(at) = self.map.next_deadline().filter(|at| *at <= until) {
            assert!(at >= self.now, "the deadline {at:?} has passed at {:?}", self.now);
            self.now = at;
            self.event(Event::Timer);
            assert_ne!(self.map.next_deadline(), Some(at), "the timer does not help");
        }
        self.now = until;
    }

    fn report(&mut self, name: &str, epoch: u32, reason: IoReason) {
        let path = self.id(name);
        self.event(Event::Io(IoReport { path, epoch, reason }));
    }

    /// A queue thread saw it at the present epoch.
    fn saw(&mut self, name: &str, verdict: PathVerdict) {
        let epoch = self.path(name).epoch;
        self.report(name, epoch, judged(verdict));
    }

    fn fail(&mut self, name: &str) {
        self.saw(name, PathVerdict::Fail);
        assert!(!self.path(name).is_usable());
    }

    /// Answers the check under way.
    fn checked(&mut self, name: &str, verdict: Verdict) {
        let id = self.id(name);
        let at = self.checks.iter().position(|c| c.0 == id).expect("a check is under way");
        let (path, check) = self.checks.remove(at);
        self.event(Event::Checked { path, check, verdict });
    }

    /// Answers the newest proof under way; older ones are forgotten.
    fn proven(&mut self, name: &str, identity: Result<Identity, String>) {
        let id = self.id(name);
        let (path, proof) = *self.proofs.iter().rfind(|p| p.0 == id).expect("a proof is under way");
        self.proofs.retain(|p| p.0 != id);
        self.event(Event::Proven { path, proof, identity });
    }

    fn is_checking(&self, name: &str) -> bool {
        self.checks.iter().any(|c| c.0 == self.id(name))
    }

    /// Answers every check under way alike.
    fn all_checked(&mut self, verdict: Verdict) {
        for (path, check) in std::mem::take(&mut self.checks) {
            self.event(Event::Checked { path, check, verdict });
        }
    }

    fn is_proving(&self, name: &str) -> bool {
        self.proofs.iter().any(|p| p.0 == self.id(name))
    }

    /// Brings a failed path back the only way there is.
    fn come_back(&mut self, name: &str) {
        self.pass(self.map.policy.polling_interval);
        self.checked(name, UP);
        self.proven(name, Ok(lu()));
        assert!(self.path(name).is_usable());
    }

    fn table(&self) -> &PathTable {
        self.map.table().expect("published")
    }

    /// Names of the usable paths by group, as published.
    fn groups(&self) -> Vec<Vec<&str>> {
        let name = |v: &PathView| self.map.path(v.id).expect("in the map").name.as_str();
        self.table().groups.iter().map(|g| g.paths.iter().map(name).collect()).collect()
    }

    fn took_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn failures_told(&self) -> usize {
        self.changes.iter().filter(|c| matches!(c, Change::PathFailed { .. })).count()
    }
}

fn new_path(name: &str) -> NewPath {
    NewPath {
        name: name.to_owned(),
        identity: lu(),
        checker: CheckerKind::Tur,
        attributes: Attributes::default(),
        reading: None,
    }
}

/// A reading without target port groups.
fn priority(priority: i32) -> Reading {
    Reading { priority: Some(priority), alua: None }
}

/// What the `alua` prioritizer reads by a path of group `own`: the states of
/// the groups 1, 2, ….
fn alua(own: u16, states: &[AccessState]) -> Reading {
    let groups = (1..).zip(states).map(|(id, state)| (id, *state, false)).collect();
    let priority = match states[usize::from(own) - 1] {
        AccessState::ActiveOptimized => 50,
        AccessState::ActiveNonOptimized => 10,
        AccessState::LbaDependent => 5,
        AccessState::Standby => 1,
        _ => 0,
    };
    let reading = AluaReading { own, implicit: true, explicit: false, transition: None, groups };
    Reading { priority: Some(priority), alua: Some(reading) }
}

/// The same of an array that changes states on request.
fn explicit(own: u16, states: &[AccessState]) -> Reading {
    let Reading { priority, alua } = alua(own, states);
    let alua = alua.map(|a| AluaReading { implicit: false, explicit: true, ..a });
    Reading { priority, alua }
}

/// A guest's command was told 02/04/xx.
fn not_ready(ascq: u8) -> IoReason {
    let completion = Completion::Scsi {
        status: Status::CHECK_CONDITION,
        host: HostByte::OK,
        sense: Sense::fixed(SenseCode::new(Key::NotReady, 0x04, ascq)),
        residual: 0,
    };
    IoReason::Judged { rule: "test", verdict: PathVerdict::Passive, op: Op::Flush, completion }
}

fn judged(verdict: PathVerdict) -> IoReason {
    let completion = Completion::Errno { from: ErrnoFrom::Block, code: libc::ENODEV };
    IoReason::Judged { rule: "test", verdict, op: Op::Flush, completion }
}

/// A guest's command met CAPACITY DATA HAS CHANGED.
fn capacity_changed() -> IoReason {
    let completion = Completion::Scsi {
        status: Status::CHECK_CONDITION,
        host: HostByte::OK,
        sense: Sense::fixed(SenseCode::CAPACITY_CHANGED),
        residual: 0,
    };
    let (rule, verdict) = ("ua-capacity-changed", PathVerdict::Check);
    IoReason::Judged { rule, verdict, op: Op::Flush, completion }
}

fn hung() -> IoReason {
    IoReason::Hung { op: Op::Flush, out: Duration::from_secs(1) }
}
