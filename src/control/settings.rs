//! What the daemon is asked to do: the command line, understood and checked.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::host::Options;
use crate::mpath::policy::Policy;
use crate::scsi::command::CommandPolicy;

use super::prkeys::Prkeys;

pub use super::lun::{
    Address, LuSettings, LunError, check_alias, check_together, check_wwid, undecided,
};
pub use crate::scsi::command::Group;
pub use crate::sys::inherit::group_by_name;
pub use crate::vhost_blk::{MAX_QUEUE_SIZE, MAX_QUEUES};
pub use crate::vhost_scsi::{NoPathAnswer, PrShow};
pub use crate::vhost_user::socket::Access;

/// Request queues a SCSI device offers unless told otherwise: more than the
/// virtual CPUs of most guests, so that QEMU's `num_queues` needs no thought.
pub const SCSI_QUEUES: u16 = 64;

/// Most request queues of a SCSI device: two rings are for control and events.
pub const MAX_SCSI_QUEUES: u16 = MAX_QUEUES - 2;

/// Where front-ends come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A socket to make (`--socket-path`).
    Path(PathBuf),
    /// One to inherit (`--fd`), listening or connected.
    Fd(RawFd),
}

/// What the guest sees.
#[derive(Clone, Debug)]
pub enum Device {
    /// A vhost-user-blk disk, of one LU.
    Blk {
        /// Serial number shown to the guest.
        serial: Option<String>,
    },
    /// A vhost-user-scsi host bus adapter, of any number of LUs.
    Scsi(Scsi),
}

/// How LUs are shown by a SCSI device.
#[derive(Clone, Copy, Debug)]
pub struct Scsi {
    /// As one LU, or path by path.
    pub expose: Expose,
    /// What the guest is told when no path is left and nothing is held.
    pub no_path: NoPathAnswer,
    /// How far an LU reset of the guest goes.
    pub lu_reset: LuReset,
    /// What the guest reads of its own registrations.
    pub pr_show: PrShow,
    /// What the guest may send; an LU's own words come on top.
    pub policy: CommandPolicy,
}

/// What of an LU the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expose {
    /// One LU: the daemon joins the paths.
    Lu,
    /// Each path, as a target of its own: the guest joins them.
    Paths,
}

/// How far an LU reset of the guest goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LuReset {
    /// The guest's own commands end; other hosts notice nothing.
    Own,
    /// The LU is reset in the array as well, for everybody.
    Array,
}

/// Everything about one device.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where front-ends come from.
    pub listen: Listen,
    /// Who may connect there.
    pub access: Access,
    /// The control socket, if one is wanted.
    pub control: Option<PathBuf>,
    /// What the guest sees.
    pub device: Device,
    /// The LUs to begin with: exactly one for [`Device::Blk`].
    pub lus: Vec<LuSettings>,
    /// Where the guests' reservation keys are kept; `None` for
    /// [`Device::Blk`], whose guest cannot reserve.
    pub prkeys: Option<Prkeys>,
    /// How paths are opened.
    pub open: Options,
    /// How long to wait at the start for the first path of an LU that is given
    /// by its name.
    pub wait_paths: Duration,
    /// Paths of LUs added later join and leave by themselves, unless their own
    /// settings say otherwise.
    pub discover: bool,
    /// Refuse writes to all LUs, those added later as well.
    pub read_only: bool,
    /// Request queues offered.
    pub num_queues: u16,
    /// Largest ring accepted, in descriptors.
    pub queue_size: u16,
    /// Steers the engines.
    pub policy: Policy,
    /// A command out for longer makes its path suspect.
    pub suspect_after: Duration,
}
