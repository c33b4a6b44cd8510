//! What the daemon is asked to do: the command line, understood and checked.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::host::{Options, PathSpec};
use crate::mpath::policy::Policy;

pub use crate::sys::inherit::group_by_name;
pub use crate::vhost_blk::{MAX_QUEUE_SIZE, MAX_QUEUES};
pub use crate::vhost_user::socket::Access;

/// Where front-ends come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A socket to make (`--socket-path`).
    Path(PathBuf),
    /// One to inherit (`--fd`), listening or connected.
    Fd(RawFd),
}

/// Everything about one disk.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where front-ends come from.
    pub listen: Listen,
    /// Who may connect there.
    pub access: Access,
    /// The control socket, if one is wanted.
    pub control: Option<PathBuf>,
    /// The paths to the LU, in order.
    pub paths: Vec<PathSpec>,
    /// How paths are opened.
    pub open: Options,
    /// Name of the map; the WWID without one.
    pub alias: Option<String>,
    /// Request queues offered.
    pub num_queues: u16,
    /// Largest ring accepted, in descriptors.
    pub queue_size: u16,
    /// Refuse writes.
    pub read_only: bool,
    /// Serial number shown to the guest.
    pub serial: Option<String>,
    /// Steers the engine.
    pub policy: Policy,
    /// A command out for longer makes its path suspect.
    pub suspect_after: Duration,
}
