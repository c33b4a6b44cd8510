//! What checkers, prioritizers and hardware handlers ask of a path.
//!
//! They are *command generators*: they decide what to send and what the answers
//! mean, and perform no I/O. Whoever owns the path carries the probes out: its
//! checking thread against the kernel, the simulation in virtual time. A fact
//! that is no command (sysfs) is asked for in the same way.

use std::time::Duration;

pub(super) mod outcome;

use crate::io::Completion;
use crate::scsi::alua::AccessState;
use crate::scsi::cdb::Cdb;

/// Data that goes with a probe's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// None.
    None,
    /// From the LU, this many bytes at most.
    In(usize),
    /// To the LU.
    Out(Vec<u8>),
}

/// What is to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// What the LU answers to this command, by SCSI passthrough.
    Command {
        /// The command.
        cdb: Cdb,
        /// Its data.
        transfer: Transfer,
    },
    /// Whether the first block can be read, bypassing the page cache.
    ReadFirstBlock,
    /// What the host says of the path.
    Fact(Fact),
}

impl Probe {
    /// A command without data.
    pub fn bare(cdb: Cdb) -> Probe {
        Probe::Command { cdb, transfer: Transfer::None }
    }

    /// A command that reads up to `len` bytes.
    pub fn reading(cdb: Cdb, len: usize) -> Probe {
        Probe::Command { cdb, transfer: Transfer::In(len) }
    }
}

/// What the host says of a path, without asking the LU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// sysfs `device/state`.
    DeviceState,
    /// sysfs `device/access_state` and `device/preferred_path`.
    AccessState,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of a command or a read.
    Completed {
        /// How it ended.
        completion: Completion,
        /// Data-in, as long as what arrived.
        data: Vec<u8>,
        /// How long it took.
        took: Duration,
    },
    /// sysfs `device/state`; `None` where there is none (a simulated path, a
    /// file).
    DeviceState(Option<DeviceState>),
    /// The kernel's view of the target port group; `None` where it has none.
    AccessState(Option<(AccessState, bool)>),
}

/// sysfs `device/state` as far as it matters here (`path_sysfs_state` of
/// multipath-tools).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// `running`.
    Running,
    /// `blocked`, `quiesce`, `created-blocked`: commands would wait.
    Blocked,
    /// `offline`, `transport-offline`, `cancel`, `deleted`, `created`.
    Offline,
}

/// A generator's next move; `V` is what it comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<V> {
    /// Send this and come back with its answer.
    Issue(Probe),
    /// Finished.
    Done(V),
}
