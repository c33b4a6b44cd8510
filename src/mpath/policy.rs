//! The settings of one map, in multipath.conf's words.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::snapshot::SelectorKind;

/// `path_grouping_policy`: which paths share a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupingPolicy {
    /// One path per group: one path works, the others wait.
    Failover,
    /// All paths in one group: all work.
    Multibus,
}

impl GroupingPolicy {
    /// multipath.conf's spelling.
    pub fn name(self) -> &'static str {
        match self {
            GroupingPolicy::Failover => "failover",
            GroupingPolicy::Multibus => "multibus",
        }
    }
}

impl FromStr for GroupingPolicy {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "failover" => Ok(GroupingPolicy::Failover),
            "multibus" => Ok(GroupingPolicy::Multibus),
            _ => Err(format!("'{s}' is not a path grouping policy; use failover or multibus")),
        }
    }
}

impl SelectorKind {
    /// The kernel's spelling without arguments.
    pub fn name(self) -> &'static str {
        match self {
            SelectorKind::RoundRobin => "round-robin",
            SelectorKind::ServiceTime => "service-time",
        }
    }
}

impl FromStr for SelectorKind {
    type Err = String;
    /// Accepts `service-time` and multipath.conf's `service-time 0`.
    fn from_str(s: &str) -> Result<Self, String> {
        match s.strip_suffix(" 0").unwrap_or(s) {
            "round-robin" => Ok(SelectorKind::RoundRobin),
            "service-time" => Ok(SelectorKind::ServiceTime),
            _ => Err(format!(
                "'{s}' is not a path selector; use 'service-time 0' or 'round-robin 0'"
            )),
        }
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

/// Everything that steers the engine of one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `path_grouping_policy`.
    pub grouping: GroupingPolicy,
    /// `path_selector`.
    pub selector: SelectorKind,
    /// `no_path_retry`. The default here is *queue*, not multipath-tools'
    /// *fail*: a guest that is held for the length of an outage goes on
    /// afterwards, a guest that got an I/O error has a read-only file system;
    /// vhost-user has no `werror=stop` to save it; and what is held is bounded
    /// by the rings and never delays a reboot, `stop` or SIGTERM.
    pub no_path_retry: NoPathRetry,
    /// `polling_interval`: time between two checks of a path that is not good;
    /// a good path's interval doubles up to four times this.
    pub polling_interval: Duration,
    /// `checker_timeout`: a check that has not answered by then says *down*.
    pub checker_timeout: Duration,
    /// Checks of each path while the map has no usable path, at most.
    pub no_path_interval: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            grouping: GroupingPolicy::Failover,
            selector: SelectorKind::ServiceTime,
            no_path_retry: NoPathRetry::Queue,
            polling_interval: Duration::from_secs(5),
            checker_timeout: Duration::from_secs(30),
            no_path_interval: Duration::from_secs(1),
        }
    }
}

impl Policy {
    /// Ceiling of the back-off of a good path's interval
    /// (`max_polling_interval`, 4 × `polling_interval`).
    pub fn max_polling_interval(&self) -> Duration {
        self.polling_interval * 4
    }
}
