//! An outage that was written down (`sim::scenario`), played with the guest and
//! the threads of a seed. Nothing else happens: messages take milliseconds, and
//! what is asked is answered.

use super::setup::{Plan, draw_depth, draw_limits, draw_lu};
use super::*;
use vhost_mpath::mpath::policy::keywords::Setting;
use vhost_mpath::mpath::topology::GroupStatus;
use vhost_mpath::sim::scenario::{PathPlan, Scenario, Step};
use vhost_mpath::sim::{ACCESS_STATES, Personality, Tpgs, Upgrade};

/// Before the load begins everything has been found, and is at rest.
const REST: Duration = Duration::from_secs(150);

/// Between two requests, at most.
const PAUSE: Duration = Duration::from_secs(3);

/// Plays it to its end, and until everything has come to rest; panics where a
/// law is broken.
///
/// # Errors
/// What the simulation cannot play.
pub(crate) fn play(seed: u64, scenario: &Scenario) -> Result<Record, String> {
    let mut world = World::written_down(seed, scenario)?;
    let begun = world.now;
    world.note(|record, now| record.begin(now));
    for step in &scenario.steps {
        world.load(begun + step.at);
        world.happens(scenario, step)?;
    }
    world.load(begun + scenario.length);
    world.take_down_the_end();
    world.array.inject(world.now, world.story.hosts[0], Fault::Mend);
    world.end_of_faults();
    world.come_to_rest();
    world.read_everything();
    world.stays_quiet();
    Ok(world.record.take().expect("since the beginning"))
}

/// The value of one of a path's options, a word.
fn word<T: Copy>(path: &PathPlan, key: &str, names: &[(T, &str)]) -> Result<Option<T>, String> {
    let Some(word) = path.option(key) else { return Ok(None) };
    let found = names.iter().find(|(_, name)| *name == word);
    found.map(|(value, _)| Some(*value)).ok_or(format!("{key}={word}: there is no such"))
}

fn lu(random: &mut Random, seed: u64, scenario: &Scenario) -> Result<LuConfig, String> {
    let (mut personality, mut tpgs) = (None, None);
    for path in &scenario.paths {
        let known = ["tpg", "access", "personality", "tpgs"];
        if let Some((key, _)) = path.options.iter().find(|(k, _)| !known.contains(&k.as_str())) {
            return Err(format!("path {}: the simulation does not play '{key}='", path.name));
        }
        if path.group() == 0 {
            return Err(format!("path {}: target port groups are counted from 1", path.name));
        }
        personality = personality.or(word(path, "personality", &Personality::NAMES)?);
        tpgs = tpgs.or(word(path, "tpgs", &Tpgs::NAMES)?);
    }
    let personality = personality.unwrap_or_default();
    let tpgs = tpgs.unwrap_or(personality.tpgs());
    Ok(LuConfig { personality, tpgs, ..draw_lu(random, seed) })
}

impl World {
    /// The map is whole and idle.
    fn written_down(seed: u64, scenario: &Scenario) -> Result<World, String> {
        let mut random = Random::new(seed);
        let config = lu(&mut random, seed, scenario)?;
        let settings = scenario.settings.iter().map(|(key, value)| Setting::new(key, value));
        let settings: Vec<Setting> =
            settings.collect::<Result<_, _>>().map_err(|e| format!("set: {e}"))?;
        let policy = Setting::apply_all(&settings, &Policy::default());
        let plan = Plan {
            limits: draw_limits(&mut random, &config),
            config,
            groups: scenario.paths.iter().map(PathPlan::group).max().unwrap_or(1),
            most_paths: scenario.paths.len(),
            policy: policy.map_err(|e| format!("set: {e}"))?,
            depth: draw_depth(&mut random),
            // What such arrays tell of themselves is not for a guest that hears
            // of it.
            scsi: false,
        };
        let mut world = World::with(seed, random, plan);
        world.record = Some(Record::new(seed));
        world.wire.calm = true;
        world.queueing_changed();
        for path in &scenario.paths {
            let access = word(path, "access", &ACCESS_STATES)?;
            world.plug_in(path.name.clone(), usize::from(path.group() - 1), access);
        }
        world.advance(REST);
        Ok(world)
    }

    fn note(&mut self, what: impl FnOnce(&mut Record, Time)) {
        what(self.record.as_mut().expect("since the beginning"), self.now);
    }

    /// The guest's load goes on until then.
    fn load(&mut self, until: Time) {
        while self.now < until {
            for _ in 0..self.random.below(4) {
                self.guest_request();
            }
            self.forget();
            let pause = self.random.duration(PAUSE).min(until.since(self.now));
            self.advance(pause);
        }
    }

    fn happens(&mut self, scenario: &Scenario, step: &Step) -> Result<(), String> {
        let names = step.paths.iter().map(|&i| scenario.paths[i].name.as_str());
        let names: Vec<&str> = names.collect();
        if self.trace {
            eprintln!("{:?} {} {}", self.now, names.join(" "), step.words);
        }
        self.note(|record, now| record.fault(now, format!("{} {}", names.join(" "), step.words)));
        for name in names {
            self.totals.steps += 1;
            let at = self.wire.plugs.iter().position(|plug| plug.name == name);
            self.befalls(at.expect("paths stay"), step.fault)
                .map_err(|why| format!("'{}' {why}", step.words))?;
        }
        self.settle();
        Ok(())
    }

    fn befalls(&mut self, at: usize, fault: Fault) -> Result<(), String> {
        let nexus = self.wire.plugs[at].nexus;
        match fault {
            Fault::LateCut(_) => return Err("breaks law 1: there is nothing to be proved".into()),
            Fault::Foreign { .. } => return Err("is not played: the guest reserves nothing".into()),
            Fault::Remap if self.wire.plugs[at].remapped.is_none() => self.remap(at),
            Fault::Remap => {}
            Fault::Capacity(NewCapacity::Grow) => self.resize_to(MOST_BLOCKS as u64),
            Fault::Capacity(_) => return Err("is not for a unit of 128 KiB: say grow".into()),
            fault => {
                self.may_be_told(fault);
                // What is on its way to another LU meets it, too.
                if let Some(remapped) = self.wire.plugs[at].remapped.take() {
                    self.other.inject(self.now, nexus, fault);
                    self.wire.plugs[at].remapped = Some(remapped).filter(|_| fault != Fault::Plug);
                }
                let done = self.array.try_inject(self.now, nexus, fault);
                done.map_err(|why| why.to_string())?;
            }
        }
        Ok(())
    }

    /// What the array says the guest may hear.
    fn may_be_told(&mut self, fault: Fault) {
        match fault {
            Fault::Sense { code, .. } | Fault::IoSense { code, .. } => {
                self.note(|record, _| record.senses.push(code));
            }
            Fault::Busy { .. } | Fault::TaskSetFull { .. } => self.busy = true,
            Fault::Upgrade { how: Upgrade::Busy, .. } => self.busy = true,
            Fault::Upgrade { how: Upgrade::BecomingReady, .. } => self.not_ready = true,
            Fault::MediumError { .. } => self.medium_errors = true,
            Fault::HostByte { host: HostByte::ERROR, .. }
            | Fault::IoHostByte { host: HostByte::ERROR, .. } => self.host_errors = true,
            _ => {}
        }
    }

    /// The file has the array, or a host, say this.
    pub(super) fn is_written_down(&self, outcome: &Outcome) -> bool {
        let Some(record) = &self.record else { return false };
        match outcome {
            Outcome::Lu { status: Status::CHECK_CONDITION, sense, .. } => {
                let said = |code: SenseCode| {
                    let medium = self.medium_errors && code.key == Key::MediumError;
                    medium || record.senses.contains(&code)
                };
                sense.code().is_some_and(said)
            }
            Outcome::Host(libc::EIO) => self.host_errors,
            _ => false,
        }
    }

    pub(super) fn take_down(&mut self, change: &Change) {
        let Some(record) = &mut self.record else { return };
        record.changed(self.now, change);
        // Groups are numbered anew whenever they are ordered anew.
        if let Change::GroupSwitched { from: Some(_), to } = change {
            let groups = self.map.topology().groups;
            let group = groups.iter().filter(|group| group.number == *to);
            let paths = group.flat_map(|group| &group.paths).filter(|path| path.carries());
            let names: Vec<&str> = paths.map(|path| path.name.as_str()).collect();
            record.moved(self.now, names.join(", "));
        }
    }

    /// What is out still, and what carries I/O now.
    fn take_down_the_end(&mut self) {
        let out: Vec<Time> = self.pending.iter().flatten().map(|p| p.submitted).collect();
        let topology = self.map.topology();
        let mut groups: Vec<_> = topology.groups.iter().collect();
        groups.sort_by_key(|group| group.status != GroupStatus::Active);
        let carrying = |group: &vhost_mpath::mpath::topology::TopologyGroup| {
            let paths = group.paths.iter().filter(|path| path.carries());
            (group.number, paths.map(|path| path.name.clone()).collect())
        };
        let groups = groups.into_iter().map(carrying).collect();
        self.note(|record, now| {
            out.iter().for_each(|submitted| record.ended(now, *submitted, None));
            record.groups = groups;
            record.end();
        });
    }
}
