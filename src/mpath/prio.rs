//! Prioritizers: how good a path is (`prio` in multipath.conf).
//!
//! Command generators like the checkers; the numbers are those of
//! multipath-tools' `libmultipath/prioritizers/*.c`. What an ALUA prioritizer
//! learns on the way about the target port groups goes with the number: the
//! engine decides by it which path can carry I/O.

use std::sync::Arc;
use std::time::Duration;

use super::probe::{Answer, Step};
use crate::scsi::alua::AccessState;

mod alua;
pub(super) mod groups;
mod path_latency;
mod random;
mod vendor;
mod weightedpath;

#[cfg(test)]
mod tests;

use alua::{Alua, Sysfs};
use path_latency::PathLatency;
use random::Random;
use vendor::{Page, Vendor};

/// What is known of a path without asking the LU: what `weightedpath`, `iet`
/// and the grouping policies go by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Kernel name, `sdb`; the path's name where there is none.
    pub devname: String,
    /// `H:C:T:L`.
    pub hbtl: Option<String>,
    /// Unit serial number (VPD 80h).
    pub serial: Option<String>,
    /// FC, SAS or iSCSI target node name.
    pub target_node: Option<String>,
    /// Target port name.
    pub target_port: Option<String>,
}

/// Which prioritizer, with its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PrioKind {
    /// `alua` where the target port supports it, else `const` (`detect_prio`).
    #[default]
    Detect,
    /// 1.
    Const,
    /// REPORT TARGET PORT GROUPS.
    Alua {
        /// `exclusive_pref_bit`.
        exclusive_pref: bool,
    },
    /// As `alua`, from sysfs.
    Sysfs {
        /// `exclusive_pref_bit`.
        exclusive_pref: bool,
    },
    /// `prio_args` of `weightedpath`.
    WeightedPath(Arc<str>),
    /// Reads of one block, in a logarithmic scale.
    PathLatency {
        /// `io_num`: 20 to 200.
        io_num: u16,
        /// `base_num`, in thousandths: 1100 to 10000.
        base_milli: u32,
    },
    /// 1 to 10.
    Random,
    /// VPD C9h.
    Rdac,
    /// VPD C0h.
    Emc,
}

impl PrioKind {
    /// Reads the state of every target port group on the way (SPC-5 6.37).
    pub(super) fn reads_groups(&self) -> bool {
        matches!(self, PrioKind::Detect | PrioKind::Alua { .. })
    }

    /// Learns access states on the way, be it the path's own alone.
    #[must_use]
    pub fn reads_access(&self) -> bool {
        self.reads_groups() || matches!(self, PrioKind::Sysfs { .. })
    }
}

/// The target port groups as a path reported them (SPC-5 6.37).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AluaReading {
    /// The path's own group.
    pub own: u16,
    /// TPGS of standard INQUIRY data: states change by themselves.
    pub implicit: bool,
    /// TPGS: states change by SET TARGET PORT GROUPS.
    pub explicit: bool,
    /// Implicit transition time, if it is stated.
    pub transition: Option<Duration>,
    /// All groups: identifier, state, PREF.
    pub groups: Vec<(u16, AccessState, bool)>,
}

/// What a prioritizer comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The priority; `None`: it could not be learned, the old one stays.
    pub priority: Option<i32>,
    /// The target port groups, if it asked for them.
    pub alua: Option<AluaReading>,
}

/// Nothing was learned: the old priority stays.
const UNKNOWN: Reading = Reading { priority: None, alua: None };

/// One path's prioritizer; kept from one use to the next, since some learn.
#[derive(Debug)]
pub struct Prioritizer {
    kind: PrioKind,
    method: Method,
}

#[derive(Debug)]
enum Method {
    /// It never changes.
    Fixed(i32),
    Alua(Alua),
    Sysfs(Sysfs),
    PathLatency(PathLatency),
    Random(Random),
    Vendor(Vendor),
}

impl Prioritizer {
    /// For a path with these attributes.
    pub fn new(kind: PrioKind, attributes: &Attributes) -> Prioritizer {
        let method = match &kind {
            PrioKind::Detect => Method::Alua(Alua::new(false, true)),
            PrioKind::Const => Method::Fixed(1),
            PrioKind::Alua { exclusive_pref } => Method::Alua(Alua::new(*exclusive_pref, false)),
            PrioKind::Sysfs { exclusive_pref } => Method::Sysfs(Sysfs::new(*exclusive_pref)),
            PrioKind::WeightedPath(args) => Method::Fixed(weightedpath::priority(args, attributes)),
            PrioKind::PathLatency { io_num, base_milli } => {
                Method::PathLatency(PathLatency::new(*io_num, *base_milli))
            }
            PrioKind::Random => Method::Random(Random::new(&attributes.devname)),
            PrioKind::Rdac => Method::Vendor(Vendor::new(Page::Rdac)),
            PrioKind::Emc => Method::Vendor(Vendor::new(Page::Emc)),
        };
        Prioritizer { kind, method }
    }

    /// What it was made for.
    pub fn kind(&self) -> &PrioKind {
        &self.kind
    }

    /// Begins to determine the priority.
    pub fn begin(&mut self) -> Step<Reading> {
        match &mut self.method {
            Method::Fixed(priority) => fixed(*priority),
            Method::Alua(alua) => alua.begin(),
            Method::Sysfs(sysfs) => sysfs.begin(),
            Method::PathLatency(latency) => latency.begin(),
            Method::Random(random) => fixed(random.next()),
            Method::Vendor(vendor) => vendor.begin(),
        }
    }

    /// Goes on with the answer to what it asked for.
    pub fn on_answer(&mut self, answer: &Answer) -> Step<Reading> {
        match &mut self.method {
            Method::Alua(alua) => alua.on_answer(answer),
            Method::Sysfs(sysfs) => sysfs.on_answer(answer),
            Method::PathLatency(latency) => latency.on_answer(answer),
            Method::Vendor(vendor) => vendor.on_answer(answer),
            // They ask for nothing.
            Method::Fixed(_) | Method::Random(_) => Step::Done(UNKNOWN),
        }
    }
}

fn fixed(priority: i32) -> Step<Reading> {
    Step::Done(Reading { priority: Some(priority), alua: None })
}

/// What is wrong with the `prio_args` of a `weightedpath`, in words; `None` if
/// nothing is. The prioritizer itself makes the best of what it is given.
pub fn weightedpath_problem(args: &str) -> Option<String> {
    weightedpath::problem(args)
}
