//! The settings of one map, in multipath.conf's words.

pub mod keywords;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::checker::CheckerKind;
use super::hwhandler::HandlerKind;
use super::prio::PrioKind;
use super::snapshot::SelectorKind;
use crate::scsi::reservation::Key;

/// `path_grouping_policy`: which paths share a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupingPolicy {
    /// One path per group: one path works, the others wait.
    Failover,
    /// All paths in one group: all work.
    Multibus,
    /// By unit serial number (VPD 80h).
    GroupBySerial,
    /// By priority.
    GroupByPrio,
    /// By target node name.
    GroupByNodeName,
    /// By target port group.
    GroupByTpg,
}

impl GroupingPolicy {
    /// Every policy.
    pub const ALL: &[GroupingPolicy] = &[
        GroupingPolicy::Failover,
        GroupingPolicy::Multibus,
        GroupingPolicy::GroupBySerial,
        GroupingPolicy::GroupByPrio,
        GroupingPolicy::GroupByNodeName,
        GroupingPolicy::GroupByTpg,
    ];

    /// multipath.conf's spelling.
    pub fn name(self) -> &'static str {
        match self {
            GroupingPolicy::Failover => "failover",
            GroupingPolicy::Multibus => "multibus",
            GroupingPolicy::GroupBySerial => "group_by_serial",
            GroupingPolicy::GroupByPrio => "group_by_prio",
            GroupingPolicy::GroupByNodeName => "group_by_node_name",
            GroupingPolicy::GroupByTpg => "group_by_tpg",
        }
    }
}

impl FromStr for GroupingPolicy {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|p| p.name() == s).copied();
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|p| p.name()).collect();
            format!("'{s}' is not a path grouping policy; use one of {}", names.join(", "))
        })
    }
}

impl SelectorKind {
    /// Every selector.
    pub const ALL: &[SelectorKind] = &[
        SelectorKind::RoundRobin,
        SelectorKind::QueueLength,
        SelectorKind::ServiceTime,
        SelectorKind::HistoricalServiceTime,
        SelectorKind::Latency,
    ];

    /// The kernel's spelling without arguments; `latency` is ours.
    pub fn name(self) -> &'static str {
        match self {
            SelectorKind::RoundRobin => "round-robin",
            SelectorKind::QueueLength => "queue-length",
            SelectorKind::ServiceTime => "service-time",
            SelectorKind::HistoricalServiceTime => "historical-service-time",
            SelectorKind::Latency => "latency",
        }
    }
}

impl FromStr for SelectorKind {
    type Err = String;
    /// Accepts `service-time` and multipath.conf's `service-time 0`.
    fn from_str(s: &str) -> Result<Self, String> {
        let name = s.strip_suffix(" 0").unwrap_or(s);
        let found = Self::ALL.iter().find(|k| k.name() == name).copied();
        found.ok_or_else(|| {
            let names: Vec<String> =
                Self::ALL.iter().map(|k| format!("'{} 0'", k.name())).collect();
            format!("'{s}' is not a path selector; use one of {}", names.join(", "))
        })
    }
}

/// `no_path_retry`: what happens to requests while no path is usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPathRetry {
    /// Fail them at once.
    Fail,
    /// Hold them until a path returns, however long it takes.
    Queue,
    /// Hold them for this many checker rounds (`polling_interval` each).
    Times(u32),
}

impl FromStr for NoPathRetry {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "fail" => Ok(NoPathRetry::Fail),
            "queue" => Ok(NoPathRetry::Queue),
            _ => match s.parse::<u32>() {
                Ok(0) => Ok(NoPathRetry::Fail),
                Ok(n) => Ok(NoPathRetry::Times(n)),
                Err(_) => Err(format!(
                    "'{s}' is not a value of no_path_retry; use fail, queue or a number of checks"
                )),
            },
        }
    }
}

impl fmt::Display for NoPathRetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoPathRetry::Fail => f.write_str("fail"),
            NoPathRetry::Queue => f.write_str("queue"),
            NoPathRetry::Times(n) => write!(f, "{n}"),
        }
    }
}

/// `failback`: when I/O goes back to a better path group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// When an administrator says so, or the group in use has no path left.
    #[default]
    Manual,
    /// At once.
    Immediate,
    /// After this long, counted again from each path that comes up; a path
    /// that fails meanwhile ends it.
    After(Duration),
    /// When the first path of the better group has come back: not because the
    /// group in use was chosen by somebody else.
    Followover,
}

/// `flush_on_last_del`: whether held requests go on waiting when the map's last
/// path is taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlushOnLastDel {
    /// They fail (`always`, `yes`).
    Always,
    /// They fail if nobody uses the map; a map with a guest is used.
    #[default]
    Unused,
    /// They wait (`never`, `no`).
    Never,
}

/// `san_path_err_*`: a path that fails too often is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SanPathErr {
    /// Failures before it is (`san_path_err_threshold`).
    pub threshold: u32,
    /// Good checks that make up for one failure (`san_path_err_forget_rate`).
    pub forget_rate: u32,
    /// How long it is (`san_path_err_recovery_time`).
    pub recovery_time: Duration,
}

impl SanPathErr {
    /// What it begins with when one of its three keywords is set.
    pub const USUAL: SanPathErr =
        SanPathErr { threshold: 5, forget_rate: 10, recovery_time: Duration::from_secs(60) };
}

/// `marginal_path_*`: a path that fails twice in a short time is sampled before
/// it is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarginalPath {
    /// Two failures within this time begin it (`double_failed_time`).
    pub double_failed_time: Duration,
    /// It is read ten times a second for so long (`err_sample_time`).
    pub sample_time: Duration,
    /// More failures than this, in thousandths of the reads, and it is held
    /// back (`err_rate_threshold`).
    pub rate_threshold: u32,
    /// For so long, before it is sampled again (`err_recheck_gap_time`).
    pub recheck_gap: Duration,
}

impl MarginalPath {
    /// What it begins with when one of its four keywords is set, and how a path
    /// is sampled that the fabric calls marginal where none is.
    pub const USUAL: MarginalPath = MarginalPath {
        double_failed_time: Duration::from_secs(60),
        sample_time: Duration::from_secs(120),
        rate_threshold: 10,
        recheck_gap: Duration::from_secs(300),
    };
}

/// `reservation_key`: which key the guest may have registered, where the prkeys
/// file says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReservationKey {
    /// The file alone says.
    #[default]
    File,
    /// This one, if the array has it.
    Key {
        /// Which.
        key: Key,
        /// It was registered with APTPL.
        aptpl: bool,
    },
}

impl FromStr for ReservationKey {
    type Err = String;

    fn from_str(text: &str) -> Result<ReservationKey, String> {
        let (word, aptpl) = match text.strip_suffix(":aptpl") {
            Some(word) => (word, true),
            None => (text, false),
        };
        match (text, Key::from_words(word)) {
            ("file", _) => Ok(ReservationKey::File),
            (_, Some(key)) => Ok(ReservationKey::Key { key, aptpl }),
            _ => Err(format!(
                "'{text}' is neither `file` nor a key: up to sixteen hexadecimal digits, not all \
                 zero, with :aptpl behind them if it was registered so"
            )),
        }
    }
}

impl fmt::Display for ReservationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReservationKey::File => f.write_str("file"),
            ReservationKey::Key { key, aptpl } => {
                write!(f, "{key}{}", if *aptpl { ":aptpl" } else { "" })
            }
        }
    }
}

/// Everything that steers the engine of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `path_grouping_policy`.
    pub grouping: GroupingPolicy,
    /// `path_selector`.
    pub selector: SelectorKind,
    /// `rr_min_io_rq`: commands in a row on a path, for `round-robin`.
    pub rr_min_io: u32,
    /// `rr_weight priorities`: times the path's priority.
    pub rr_weight_priorities: bool,
    /// `path_checker`; `None`: `tur` for SCSI, `directio` for the rest.
    pub checker: Option<CheckerKind>,
    /// `prio` and `prio_args`.
    pub prio: PrioKind,
    /// `hardware_handler`.
    pub hardware_handler: HandlerKind,
    /// `pg_init_retries`: of the activation of one path.
    pub pg_init_retries: u32,
    /// `pg_init_delay_msecs`: between two of them, where the array asks for
    /// patience.
    pub pg_init_delay: Duration,
    /// A target port group in transition for longer is taken for standby, where
    /// the array states no time itself.
    pub transition_timeout: Duration,
    /// `failback`.
    pub failback: Failback,
    /// `no_path_retry`. The default here is *queue*, not multipath-tools'
    /// *fail*: a guest that is held for the length of an outage goes on
    /// afterwards, a guest that got an I/O error has a read-only file system;
    /// vhost-user has no `werror=stop` to save it; and what is held is bounded
    /// by the rings and never delays a reboot, `stop` or SIGTERM.
    pub no_path_retry: NoPathRetry,
    /// No request is held longer than this, whatever `no_path_retry` says;
    /// `None`: no limit. Ours: the kernel has one for all maps together.
    pub queue_timeout: Option<Duration>,
    /// `flush_on_last_del`.
    pub flush_on_last_del: FlushOnLastDel,
    /// `reservation_key`.
    pub reservation_key: ReservationKey,
    /// `all_tg_pt`: what the guest registers is registered with ALL_TG_PT.
    pub all_tg_pt: bool,
    /// `polling_interval`: time between two checks of a path that is not good;
    /// a good path's interval doubles up to `max_polling_interval`.
    pub polling_interval: Duration,
    /// `max_polling_interval`; `None`: four times `polling_interval`.
    pub max_polling: Option<Duration>,
    /// `checker_timeout`: a check that has not answered by then says *down*.
    pub checker_timeout: Duration,
    /// Between two checks of each path that is out of use while none carries
    /// I/O, and between two readings of a group that does not.
    pub no_path_interval: Duration,
    /// `san_path_err_*`.
    pub san_path_err: Option<SanPathErr>,
    /// `marginal_path_*`.
    pub marginal_path: Option<MarginalPath>,
    /// `marginal_pathgroups`: unreliable paths are used last instead of not at
    /// all.
    pub marginal_pathgroups: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            grouping: GroupingPolicy::Failover,
            selector: SelectorKind::ServiceTime,
            rr_min_io: 1,
            rr_weight_priorities: false,
            checker: None,
            prio: PrioKind::Detect,
            hardware_handler: HandlerKind::Detect,
            pg_init_retries: 0,
            pg_init_delay: Duration::from_secs(2),
            transition_timeout: Duration::from_secs(60),
            failback: Failback::Manual,
            no_path_retry: NoPathRetry::Queue,
            queue_timeout: None,
            flush_on_last_del: FlushOnLastDel::Unused,
            reservation_key: ReservationKey::File,
            all_tg_pt: false,
            polling_interval: Duration::from_secs(5),
            max_polling: None,
            checker_timeout: Duration::from_secs(30),
            no_path_interval: Duration::from_millis(200),
            san_path_err: None,
            marginal_path: None,
            marginal_pathgroups: false,
        }
    }
}

impl Policy {
    /// Ceiling of the back-off of a good path's interval.
    pub fn max_polling_interval(&self) -> Duration {
        self.max_polling.unwrap_or(self.polling_interval * 4).max(self.polling_interval)
    }
}
