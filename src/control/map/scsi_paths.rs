//! The paths of a map that are SCSI devices of this host: which device each
//! is, and what becomes of one that has gone.

use std::sync::Arc;

use super::Map;
use crate::io::Time;
use crate::mpath::snapshot::PathId;
use crate::passthrough_scsi::{PathHandle, PathKind};

/// An open path that is a SCSI disk of this host, by whatever node.
#[derive(Clone, Debug)]
pub(in crate::control) struct ScsiPath {
    pub(in crate::control) id: PathId,
    pub(in crate::control) name: String,
    /// `H:C:T:L`.
    pub(in crate::control) hctl: String,
    /// Kernel name of the disk, `sdb`.
    pub(in crate::control) devname: String,
    /// Number of the node that is open.
    pub(in crate::control) dev_t: String,
    /// It is an sg or bsg node.
    pub(in crate::control) generic: bool,
}

impl ScsiPath {
    /// `None`: it is none.
    pub(in crate::control) fn of(id: PathId, handle: &PathHandle) -> Option<ScsiPath> {
        Some(ScsiPath {
            id,
            name: handle.name().to_owned(),
            hctl: handle.hctl()?.to_owned(),
            devname: handle.devname()?.to_owned(),
            dev_t: handle.dev_t()?.to_owned(),
            generic: matches!(handle.kind(), PathKind::ScsiGeneric | PathKind::ScsiBsg),
        })
    }
}

impl Map {
    /// Those in the map, and those that have left it and are not let go of.
    pub(in crate::control) fn scsi_paths(&self) -> Vec<ScsiPath> {
        let of = |(id, handle): (PathId, &Arc<PathHandle>)| ScsiPath::of(id, handle);
        let open = self.paths.iter().filter_map(|(id, path)| Some((*id, &path.open.as_ref()?.0)));
        open.filter_map(of).collect()
    }

    /// Whether it has to do with SCSI disks of this host at all.
    pub(in crate::control) fn is_of_scsi_disks(&self) -> bool {
        self.of_scsi_disks
    }

    /// Whether its paths join and leave by themselves. Not where the guest
    /// sees a path: it would see another one.
    pub(in crate::control) fn discovers(&self) -> bool {
        let joined = self.lun.as_ref().is_none_or(|lun| lun.joined);
        self.discover && joined && self.of_scsi_disks && self.leaving.is_none()
    }

    /// What its paths lead to.
    pub(in crate::control) fn wwid(&self) -> &str {
        &self.engine.identity().wwid
    }

    /// The LU may be another one, says the kernel by this path: no thread's
    /// command goes there before a proof, which the engine asks for.
    pub(in crate::control) fn question(&self, id: PathId) {
        let open = self.paths.get(&id).and_then(|path| path.open.as_ref());
        if let Some((handle, _)) = open {
            handle.question();
        }
    }

    /// The device of a path has gone. Its file is closed after its last
    /// command, and the kernel may give its name to another device then.
    pub(in crate::control) fn lose_path(&mut self, now: Time, path: &ScsiPath) {
        // (One that has left already has nothing to lose.)
        if self.engine.path(path.id).is_some() {
            let lost = self.tell(now, |engine, fx| engine.lose_path(now, &path.name, fx));
            debug_assert!(lost.is_ok(), "{lost:?}");
        }
    }
}
