//! The state of a map as data: what QMP's `query-…` commands return and
//! `vhost-mpath ctl` prints.
//!
//! Field names are those of multipathd's JSON (`libmultipath/print.c`), so
//! that what reads one can read the other; what multipathd does not have
//! follows in the same style.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The answer of `query-maps`, and of `ctl show maps --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Maps {
    /// Of the format, as multipathd counts.
    pub major_version: u32,
    /// Of the format, as multipathd counts.
    pub minor_version: u32,
    /// The maps.
    pub maps: Vec<MapStatus>,
}

/// A map.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // multipathd's names; those that are ours say what they mean
pub struct MapStatus {
    pub name: String,
    /// Where a SCSI device shows it, `T:L`.
    #[serde(default)]
    pub lun: Option<String>,
    pub uuid: String,
    pub sysfs: String,
    pub failback: String,
    /// Seconds until I/O goes back, while that is so.
    pub failback_in: Option<f64>,
    /// `on`, `off`, or `N chk`.
    pub queueing: String,
    /// `disablequeueing` holds.
    pub queueing_disabled: bool,
    /// Usable paths.
    pub paths: usize,
    pub write_prot: String,
    pub dm_st: String,
    pub features: String,
    pub hwhandler: String,
    pub action: String,
    pub path_faults: u64,
    pub vend: String,
    pub prod: String,
    pub rev: String,
    pub switch_grp: u64,
    pub map_loads: u64,
    pub total_q_time: u64,
    pub q_timeouts: u64,
    /// Times requests failed because no path was left.
    pub map_failures: u64,
    pub path_groups: Vec<GroupStatus>,
    /// Capacity in bytes.
    pub size: u64,
    /// Capacity of a vhost-user-blk disk as its guest is shown it, in bytes:
    /// larger than `size` after the LU has shrunk. `None` where the guest asks
    /// the LU itself.
    #[serde(default)]
    pub guest_size: Option<u64>,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Unit serial number of the LU; may be empty.
    pub serial: String,
    /// A front-end is connected.
    pub front_end: bool,
    /// Every keyword with its value.
    pub policy: BTreeMap<String, String>,
}

/// A path group.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct GroupStatus {
    pub selector: String,
    pub pri: i32,
    pub dm_st: String,
    pub marginal_st: String,
    pub group: u16,
    pub paths: Vec<PathStatus>,
}

/// A path.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PathStatus {
    pub dev: String,
    /// Name of its map.
    #[serde(default)]
    pub multipath: String,
    pub dev_t: String,
    /// `H:C:T:L`.
    pub hcil: String,
    pub dm_st: String,
    pub dev_st: String,
    pub chk_st: String,
    pub checker: String,
    pub pri: i32,
    pub host_wwnn: String,
    pub target_wwnn: String,
    pub host_wwpn: String,
    pub target_wwpn: String,
    pub host_adapter: String,
    pub lun_hex: String,
    pub marginal_st: String,
    /// `scsi:fcp` and the like.
    pub protocol: String,
    /// Target port group, where the array has one.
    pub target_port_group: Option<u16>,
    /// Its asymmetric access state.
    pub access_state: Option<String>,
    /// The array prefers the group.
    pub preferred: bool,
    pub vend_prod_rev: String,
    /// Capacity in bytes.
    pub size: u64,
    /// Unit serial number of the LU; may be empty.
    pub serial: String,
    /// Number of its group.
    pub group: u16,
    /// The engine's view: `active`, `unregistered` (it is in order and carries nothing before the
    /// guest's reservation key is registered by it), `reserved` (nor while another path holds the
    /// guest's reservation, which admits one path only), `suspect`, `doubt`, `failed`.
    pub state: String,
    /// `fail path` holds.
    pub failed_by_administrator: bool,
    /// A check or a proof of identity is under way.
    pub checking: bool,
    /// Seconds to the next check.
    pub next_check: f64,
    /// Seconds between checks at present.
    pub check_interval: f64,
    /// Times it went from usable to failed.
    pub failures: u64,
    /// Why it is, or last was, not in use.
    pub last_cause: Option<String>,
    /// The same in parts: command, host byte, status, sense, rule.
    pub last_cause_data: Option<serde_json::Value>,
    /// Commands issued since it joined.
    pub ios: u64,
    /// Bytes of those commands.
    pub bytes: u64,
    /// As the administrator gave it.
    pub spec: String,
    /// Transport of reads and writes.
    pub transport: String,
    /// Why that one.
    pub transport_reason: String,
    /// WWID it has proved.
    pub wwid: String,
    /// Faults of a simulated path.
    pub faults: Option<String>,
    /// The sg node of its device, `sg2`.
    #[serde(default)]
    pub sg: Option<String>,
    /// The bsg node of its device, `bsg/1:0:0:0`.
    #[serde(default)]
    pub bsg: Option<String>,
}

/// An LU of a SCSI device (`query-luns`, `ctl show luns`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LunStatus {
    /// Target and LUN, `T:L`.
    pub lun: String,
    /// Name of its map.
    pub map: String,
    /// WWID.
    pub uuid: String,
    /// Capacity in bytes.
    pub size: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    pub paths: usize,
    pub usable: usize,
    pub read_only: bool,
    /// `lu`, or `path` where the guest sees the path itself.
    pub exposed: String,
    /// `serving`, `leaving`.
    pub state: String,
    /// Groups of commands the guest is refused.
    pub denied: Vec<String>,
    /// A unit attention waits for the guest's next command.
    pub attention_pending: bool,
}

/// Reservations of an LU's guest (`query-reservations`, `ctl show
/// reservations`), with multipathd's words where it has some.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ReservationStatus {
    /// Name of its map.
    pub map: String,
    /// Target and LUN, `T:L`.
    pub lun: String,
    /// WWID.
    pub uuid: String,
    /// The key that the guest has registered.
    pub prkey: Option<String>,
    pub aptpl: bool,
    pub all_tg_pt: bool,
    /// Whether it is registered: `set`, `unset`, `unknown`.
    pub prstatus: String,
    /// Whether the guest holds a reservation: `set`, `unset`, `unknown`.
    pub prhold: String,
    /// Of which type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The path by which it holds it, where that is known.
    pub holder: Option<String>,
    /// Registrations that the array has of it, or may have.
    pub copies: usize,
    /// PERSISTENT RESERVE OUT commands of the guest that are not answered yet.
    pub orders: usize,
    /// The guest's I/O is held while its reservation is moved.
    pub suspended: bool,
    /// What is to be remembered is on the disk.
    pub saved: bool,
    pub paths: Vec<RegistrationStatus>,
}

/// What a path is to the array as far as the guest's key goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RegistrationStatus {
    pub dev: String,
    /// `registered`, `none`, `unknown`.
    pub registration: String,
    /// It carries nothing for that reason.
    pub barred: bool,
}

/// A SCSI disk of this host (`query-devices`, `ctl show devices`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DeviceStatus {
    pub dev: String,
    /// `H:C:T:L`.
    pub hcil: String,
    pub dev_t: String,
    /// WWID, as the kernel has it; empty: it has none.
    pub uuid: String,
    /// Its sg node, `sg2`.
    pub sg: Option<String>,
    /// Its bsg node, `bsg/1:0:0:0`.
    pub bsg: Option<String>,
    /// The map it is a path of.
    pub multipath: Option<String>,
    /// Why it is no path, where one was wanted.
    pub reason: Option<String>,
}

/// The daemon as a whole (`query-status`, `ctl show status`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DaemonStatus {
    pub version: String,
    pub pid: u32,
    /// Seconds since the start.
    pub uptime: f64,
    /// Names of the maps.
    pub maps: Vec<String>,
    /// Where front-ends connect.
    pub socket: String,
    pub front_end: bool,
    pub queue_threads: usize,
    /// Ending; waiting for commands in the kernel.
    pub stopping: bool,
    /// Paths by the checker's finding.
    pub checker_states: BTreeMap<String, usize>,
    pub paths: usize,
    pub usable: usize,
}
