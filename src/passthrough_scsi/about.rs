//! What is said about a path besides what it answers itself: names and kinds
//! for display, and what an administrator's rules may go by. Nobody owns it;
//! it is made when the path is opened and does not change.

use super::{PathKind, Transport};

/// A path's names and kinds.
#[derive(Clone, Debug)]
pub struct About {
    /// Short name, unique in the process: `sdb`, `sim0`, `disk.img`.
    pub name: String,
    /// As given by the administrator.
    pub spec: String,
    /// Kind.
    pub kind: PathKind,
    /// Kernel name of the disk, `sdb`; `None` where there is no block node.
    pub devname: Option<String>,
    /// `H:C:T:L` of a SCSI device.
    pub hctl: Option<String>,
    /// `MAJOR:MINOR` of a device node.
    pub dev_t: Option<String>,
    /// Transport.
    pub transport: Transport,
    /// Why this transport.
    pub reason: String,
    /// The ports it goes through, as far as the host knows them.
    pub fabric: Fabric,
}

/// The two ends of a path, by the names that the host's transport class has
/// for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fabric {
    /// `scsi:fcp`, `scsi:iscsi`, `scsi:sas`, `scsi:unspec` as multipath-tools
    /// call it; `None` for what is no SCSI device.
    pub protocol: Option<&'static str>,
    /// Node name of the host bus adapter.
    pub host_node: Option<String>,
    /// Its port name.
    pub host_port: Option<String>,
    /// Its PCI address, or the IP address of an iSCSI host.
    pub host_adapter: Option<String>,
    /// Node name of the target: FC node name, SAS address, iSCSI name.
    pub target_node: Option<String>,
    /// Name of the target port.
    pub target_port: Option<String>,
}
