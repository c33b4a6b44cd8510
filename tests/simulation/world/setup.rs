//! What a seed draws before anything happens: array, map, guest, paths.

use super::*;
use vhost_mpath::mpath::checker::CheckerKind;
use vhost_mpath::mpath::hwhandler::HandlerKind;
use vhost_mpath::mpath::policy::{
    Failback, FlushOnLastDel, GroupingPolicy, MarginalPath, SanPathErr,
};
use vhost_mpath::mpath::prio::PrioKind;
use vhost_mpath::mpath::snapshot::SelectorKind;
use vhost_mpath::sim::{Personality, Plugged, Tpgs};

/// What stays as it was drawn.
#[derive(Debug)]
pub(super) struct Story {
    /// Another host's path into each target port group.
    pub(super) hosts: Vec<NexusId>,
    pub(super) personality: Personality,
    /// Access states change by themselves; by SET TARGET PORT GROUPS.
    pub(super) implicit: bool,
    pub(super) explicit: bool,
    pub(super) most_paths: usize,
}

impl Story {
    /// The array tells of access states.
    pub(super) fn alua(&self) -> bool {
        self.implicit || self.explicit
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What is drawn, or written down, before a world is made.
pub(super) struct Plan {
    pub(super) config: LuConfig,
    pub(super) limits: Limits,
    /// Target port groups.
    pub(super) groups: u16,
    pub(super) most_paths: usize,
    pub(super) policy: Policy,
    /// Entries of the guest's ring.
    pub(super) depth: u16,
    /// The guest composes its own commands.
    pub(super) scsi: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let config = draw_lu(&mut random, seed);
        let limits = draw_limits(&mut random, &config);
        let groups = match config.personality {
            Personality::Generic => 1 + u16::try_from(random.below(4)).unwrap(),
            Personality::Rdac | Personality::Clariion => 2,
        };
        let most_paths = 1 + usize::try_from(random.below(8)).unwrap();
        let policy = draw_policy(&mut random, config.personality);
        let (depth, scsi) = (draw_depth(&mut random), seed % 2 == 1);
        let plan = Plan { config, limits, groups, most_paths, policy, depth, scsi };
        let reserves = seed % 4 == 1;
        let config = plan.config.clone();
        let mut world = World::with(seed, random, plan);
        world.hosts = reserves.then(|| reservations::Hosts::new(seed, &config));
        let transition = world.random.duration(seconds(3));
        world.array.set_transition(transition);
        world.set_out_hosts();
        world.set_out();
        world
    }

    /// No path yet; the array takes its time for each command.
    pub(super) fn with(seed: u64, random: Random, plan: Plan) -> World {
        let Plan { config, limits, groups, most_paths, policy, depth, scsi } = plan;
        let dirty = Dirty::default();
        let medium = Cached::new(usize::try_from(BLOCKS).unwrap(), dirty.clone());
        let mut other = config.clone();
        other.wwid_naa[15] = 2;
        let mut array = Array::new(config.clone(), Box::new(medium));
        let mut other = Array::new(other, Box::new(MemoryMedium::new(BLOCKS * BLOCK as u64)));
        let mut host = |group: u16| {
            let name = format!("host{group}");
            let at = Plugged { group: Some(group), ..Plugged::default() };
            let nexus = array.connect(&name, at).expect("a new port");
            assert_eq!(other.connect(&name, at).expect("a new port"), nexus);
            nexus
        };
        let story = Story {
            hosts: (1..=groups).map(&mut host).collect(),
            personality: config.personality,
            implicit: matches!(config.tpgs, Tpgs::Implicit | Tpgs::Both),
            explicit: matches!(config.tpgs, Tpgs::Explicit | Tpgs::Both),
            most_paths,
        };
        let scsi = scsi.then(|| events::Scsi::new(story.hosts[0]));
        let attentions = scsi.as_ref().map(|s| Arc::clone(&s.attentions));
        let identity = Identity {
            wwid: "3600000000073696d0000000000000001".to_owned(),
            capacity: Blocks(BLOCKS),
            block_size: u32::try_from(BLOCK).unwrap(),
        };
        let settings = Settings {
            limits,
            block_size: u32::try_from(BLOCK).unwrap(),
            command_timeout: COMMAND_TIMEOUT,
            suspect_after: SUSPECT_AFTER,
            max_requests: usize::from(depth),
            rings: 1,
        };
        let empty = PathTable {
            generation: 0,
            groups: Vec::new(),
            queueing: Queueing::Hold,
            selector: policy.selector,
            suspended: false,
            registered: false,
            hold_for: None,
        };
        let mut world = World {
            trace: std::env::var_os("VHOST_MPATH_TRACE").is_some(),
            now: Time(1_000_000_000),
            moment: 1,
            array,
            other,
            map: Multipath::new(identity, policy.clone()),
            core: Dispatcher::new(settings, Arc::new(empty), attentions),
            wire: Wire::new(Random::new(seed ^ 0xa11c_e000)),
            laws: EngineLaws::default(),
            reasons: Reasons::default(),
            access: AccessLaws::default(),
            watch: WatchLaws::default(),
            dirty,
            to_engine: Mail::new(),
            to_queue: Mail::new(),
            answers: Vec::new(),
            unblocked: Vec::new(),
            pending: (0..depth).map(|_| None).collect(),
            memory: guest::memory(depth),
            free_heads: (0..depth).collect(),
            spare: Vec::new(),
            scratch: Vec::new(),
            done: Vec::new(),
            finished: Vec::new(),
            touched: true,
            shadow: Shadow::new(usize::try_from(BLOCKS).unwrap()),
            next_value: 1,
            stopping: None,
            progress: progress::Progress::default(),
            story,
            policy,
            medium_errors: false,
            aborts: 0,
            totals: Totals::default(),
            paths_made: 0,
            limits,
            told_size: Vec::new(),
            sizes: Random::new(seed ^ 0x5123_0000),
            host: Random::new(seed ^ 0x4057_0000),
            discovery: Vec::new(),
            blocks: BLOCKS,
            had: BTreeSet::from([BLOCKS]),
            not_ready: false,
            busy: false,
            host_errors: false,
            serial: 0,
            scsi,
            functions: Vec::new(),
            hosts: None,
            record: None,
            random,
        };
        world.array.set_latency(world.random.duration(Duration::from_millis(5)));
        world
    }

    /// The states of the groups, and the first paths.
    fn set_out(&mut self) {
        self.queueing_changed();
        if self.story.alua() {
            for group in 1..self.story.hosts.len() {
                let state = self.random.pick(&[
                    AccessState::ActiveOptimized,
                    AccessState::ActiveNonOptimized,
                    AccessState::Standby,
                ]);
                let fault = Fault::Alua { state, transition: Duration::ZERO };
                self.array.inject(self.now, self.story.hosts[group], fault);
            }
        }
        let first = 1 + self.random.below(self.story.most_paths.min(4) as u64);
        for _ in 0..first {
            self.add_path();
        }
    }
}

/// Entries of the guest's ring.
pub(super) fn draw_depth(random: &mut Random) -> u16 {
    random.pick(&[4, 16, 32])
}

pub(super) fn draw_lu(random: &mut Random, seed: u64) -> LuConfig {
    let generic = Personality::Generic;
    let personality = random.pick(&[generic, generic, Personality::Rdac, Personality::Clariion]);
    // What these tell of themselves is not for a guest that hears of it.
    let personality = if seed % 2 == 1 { generic } else { personality };
    let tpgs =
        random.pick(&[Tpgs::None, Tpgs::Implicit, Tpgs::Implicit, Tpgs::Explicit, Tpgs::Both]);
    LuConfig {
        block_size: u32::try_from(BLOCK).unwrap(),
        blocks: BLOCKS,
        thin: !random.one_in(4),
        max_transfer_blocks: random.pick(&[0, 8, 24]),
        max_unmap_blocks: 24,
        max_unmap_descriptors: 2,
        // Refused with 05/24 where it is less than the limit below.
        max_write_same_blocks: random.pick(&[16, 16, 4]),
        tpgs: if personality == generic { tpgs } else { Tpgs::None },
        personality,
        ..LuConfig::default()
    }
}

pub(super) fn draw_limits(random: &mut Random, config: &LuConfig) -> Limits {
    Limits {
        max_transfer: Blocks(match config.max_transfer_blocks {
            0 => LONGEST,
            n => u64::from(n),
        }),
        max_segments: random.pick(&[2, 3, 64]),
        max_unmap: Blocks(if config.thin { 24 } else { 0 }),
        max_unmap_descriptors: 2,
        unmap_granularity: Blocks(1),
        unmap_alignment: Lba(0),
        max_write_same: Blocks(random.pick(&[0, 16])),
        fua: random.one_in(2),
    }
}

/// Any policy of an administrator. `queue` more often than not: it is the
/// default, and errors end the stories early.
pub(super) fn draw_policy(random: &mut Random, personality: Personality) -> Policy {
    let policy = draw_generic(random);
    let (checker, prio, handler) = match personality {
        Personality::Generic => return policy,
        Personality::Rdac => (CheckerKind::Rdac, PrioKind::Rdac, HandlerKind::Rdac),
        Personality::Clariion => (CheckerKind::EmcClariion, PrioKind::Emc, HandlerKind::Emc),
    };
    Policy { checker: Some(checker), prio, hardware_handler: handler, ..policy }
}

fn draw_generic(random: &mut Random) -> Policy {
    let after = Failback::After(seconds(1 + random.below(20)));
    let weights = "devname sim[1357]$ 20 devname sim[26] 10";
    let latency = PrioKind::PathLatency { io_num: 20, base_milli: 3000 };
    let (few, long) = (random.one_in(4), random.one_in(2));
    let prios = [
        PrioKind::Detect,
        PrioKind::Detect,
        PrioKind::Detect,
        PrioKind::Const,
        PrioKind::Alua { exclusive_pref: false },
        PrioKind::Alua { exclusive_pref: true },
        PrioKind::Sysfs { exclusive_pref: false },
        PrioKind::WeightedPath(weights.into()),
        latency,
        PrioKind::Random,
    ];
    let which = usize::try_from(random.below(prios.len() as u64)).unwrap();
    Policy {
        grouping: random.pick(GroupingPolicy::ALL),
        selector: random.pick(SelectorKind::ALL),
        rr_min_io: 1 + u32::try_from(random.below(3)).unwrap(),
        rr_weight_priorities: random.one_in(3),
        checker: random.pick(&[
            None,
            Some(CheckerKind::Tur),
            Some(CheckerKind::Tur),
            Some(CheckerKind::DirectIo),
            Some(CheckerKind::ReadSector0),
        ]),
        prio: prios[which].clone(),
        hardware_handler: random.pick(&[
            HandlerKind::Detect,
            HandlerKind::Detect,
            HandlerKind::Alua,
            HandlerKind::None,
        ]),
        pg_init_retries: u32::try_from(random.below(4)).unwrap(),
        pg_init_delay: seconds(random.below(3)),
        transition_timeout: random.pick(&[seconds(60), seconds(5)]),
        failback: random.pick(&[
            Failback::Manual,
            Failback::Immediate,
            Failback::Immediate,
            after,
            Failback::Followover,
        ]),
        no_path_retry: random.pick(&[
            NoPathRetry::Queue,
            NoPathRetry::Queue,
            NoPathRetry::Queue,
            NoPathRetry::Fail,
            NoPathRetry::Times(3),
        ]),
        queue_timeout: random.one_in(5).then_some(seconds(2 + 10 * u64::from(long))),
        flush_on_last_del: random.pick(&[
            FlushOnLastDel::Unused,
            FlushOnLastDel::Always,
            FlushOnLastDel::Never,
        ]),
        polling_interval: random.pick(&[seconds(5), seconds(5), seconds(1)]),
        san_path_err: few.then_some(SanPathErr {
            threshold: 2,
            forget_rate: 4,
            recovery_time: seconds(10),
        }),
        marginal_path: random.one_in(4).then_some(MarginalPath {
            double_failed_time: seconds(30),
            sample_time: seconds(5),
            rate_threshold: 100,
            recheck_gap: seconds(10),
        }),
        marginal_pathgroups: random.one_in(2),
        ..Policy::default()
    }
}
