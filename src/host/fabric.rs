//! Which ports a SCSI path goes through: what the transport classes in sysfs
//! say (`fc_remote_ports`, `iscsi_session`, `sas_device`).
//!
//! The names are those that multipath-tools show and group by
//! (`sysfs_get_tgt_nodename`). Read when the path is opened; a transport
//! without a class of its own (a loop-back target, USB) has no names.

use std::fs;
use std::path::Path;

use super::sysfs::{Sysfs, attribute};
use crate::passthrough_scsi::Fabric;

/// Of the SCSI device with this (canonical) directory.
pub(super) fn read(sysfs: &Sysfs, device: &Path) -> Fabric {
    let ancestor = |prefix: &str| {
        let names = device.components().rev().filter_map(|part| part.as_os_str().to_str());
        let rest_is_number = |name: &&str| {
            name.strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        };
        names.into_iter().find(rest_is_number).map(str::to_owned)
    };
    let host = ancestor("host").unwrap_or_default();
    let of = |class: &str, name: &str, what: &str| attribute(&sysfs.class(class, name).join(what));
    let fabric = Fabric { host_adapter: pci_address(device), ..Fabric::default() };
    if let Some(port) = ancestor("rport-") {
        return Fabric {
            protocol: Some("scsi:fcp"),
            host_node: of("fc_host", &host, "node_name"),
            host_port: of("fc_host", &host, "port_name"),
            target_node: of("fc_remote_ports", &port, "node_name"),
            target_port: of("fc_remote_ports", &port, "port_name"),
            ..fabric
        };
    }
    if let Some(session) = ancestor("session") {
        let name = of("iscsi_session", &session, "targetname");
        let group = of("iscsi_session", &session, "tpgt");
        let port = name.as_ref().zip(group).map(|(name, group)| format!("{name},t,{group}"));
        return Fabric {
            protocol: Some("scsi:iscsi"),
            host_node: of("iscsi_session", &session, "initiatorname"),
            host_adapter: of("iscsi_host", &host, "ipaddress").or(fabric.host_adapter),
            target_node: name,
            target_port: port,
            ..fabric
        };
    }
    if let Some(end) = ancestor("end_device-") {
        let address = of("sas_device", &end, "sas_address");
        return Fabric {
            protocol: Some("scsi:sas"),
            host_port: of("sas_host", &host, "sas_address"),
            target_node: address.clone(),
            target_port: address,
            ..fabric
        };
    }
    let ata = ancestor("ata").is_some();
    Fabric { protocol: Some(if ata { "scsi:ata" } else { "scsi:unspec" }), ..fabric }
}

/// Of the nearest PCI device above.
fn pci_address(device: &Path) -> Option<String> {
    let is_pci = |dir: &&Path| {
        let subsystem = fs::canonicalize(dir.join("subsystem"));
        subsystem.is_ok_and(|link| link.file_name().is_some_and(|name| name == "pci"))
    };
    let found = device.ancestors().find(is_pci)?;
    Some(found.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::Dir;
    use super::*;

    fn of(dir: &Dir, device: &str) -> Fabric {
        dir.put(&format!("{device}/state"), "running");
        let root = dir.0.clone();
        read(&Sysfs::at(root.clone()), &fs::canonicalize(root.join(device)).unwrap())
    }

    #[test]
    fn both_ends_of_a_fibre_channel_path_are_known() {
        let dir = Dir::new();
        let pci = "devices/pci0000:3a/0000:3b:00.1";
        dir.put("bus/pci/uevent", "");
        dir.put(&format!("{pci}/vendor"), "0x1077");
        dir.link(&format!("{pci}/subsystem"), "bus/pci");
        dir.put("class/fc_host/host2/node_name", "0x200000e08b0001\n");
        dir.put("class/fc_host/host2/port_name", "0x210000e08b0001\n");
        dir.put("class/fc_remote_ports/rport-2:0-1/node_name", "0x50060160c\n");
        dir.put("class/fc_remote_ports/rport-2:0-1/port_name", "0x500601663\n");
        let found = of(&dir, &format!("{pci}/host2/rport-2:0-1/target2:0:1/2:0:1:0"));
        let name = |text: &str| Some(text.to_owned());
        assert_eq!(found.protocol, Some("scsi:fcp"));
        assert_eq!(found.host_node, name("0x200000e08b0001"));
        assert_eq!(found.host_port, name("0x210000e08b0001"));
        assert_eq!(found.host_adapter, name("0000:3b:00.1"));
        assert_eq!(found.target_node, name("0x50060160c"));
        assert_eq!(found.target_port, name("0x500601663"));
    }

    #[test]
    fn an_iscsi_session_and_a_sas_device_have_names_a_loop_has_none() {
        let dir = Dir::new();
        dir.put("class/iscsi_session/session7/targetname", "iqn.2026-01.org:a\n");
        dir.put("class/iscsi_session/session7/tpgt", "2\n");
        dir.put("class/iscsi_host/host3/ipaddress", "10.0.0.9\n");
        let iscsi = of(&dir, "devices/platform/host3/session7/target3:0:0/3:0:0:0");
        assert_eq!(iscsi.protocol, Some("scsi:iscsi"));
        assert_eq!(iscsi.target_node.as_deref(), Some("iqn.2026-01.org:a"));
        assert_eq!(iscsi.target_port.as_deref(), Some("iqn.2026-01.org:a,t,2"));
        assert_eq!(iscsi.host_adapter.as_deref(), Some("10.0.0.9"));
        dir.put("class/sas_device/end_device-4:0:1/sas_address", "0x5000c500a\n");
        let sas = of(&dir, "devices/host4/port-4:0/end_device-4:0:1/target4:0:1/4:0:1:0");
        assert_eq!(sas.protocol, Some("scsi:sas"));
        assert_eq!(sas.target_node.as_deref(), Some("0x5000c500a"));
        let looped = of(&dir, "devices/pseudo_0/tcm_loop_adapter_0/host5/target5:0:1/5:0:1:0");
        assert_eq!(looped, Fabric { protocol: Some("scsi:unspec"), ..Fabric::default() });
    }
}
