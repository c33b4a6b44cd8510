//! What the engine's tables must never say.

use std::sync::Arc;

use vhost_mpath::io::Time;
use vhost_mpath::mpath::Multipath;
use vhost_mpath::mpath::path::PathState;
use vhost_mpath::mpath::snapshot::{PathId, PathTable};

/// What is known of a path besides what the engine thinks.
#[derive(Debug)]
struct Known {
    id: PathId,
    /// Epoch at which it was listed last.
    epoch: u32,
    /// Listed in the last table.
    listed: bool,
    /// In order, by the engine's last word.
    active: bool,
    /// When it was last taken out of use, or came into doubt.
    out: u64,
    /// When the last proof that succeeded had begun.
    proven: u64,
    /// When each proof began.
    proofs: Vec<(u32, u64)>,
}

/// Watches the tables of a map.
#[derive(Debug, Default)]
pub(crate) struct EngineLaws {
    paths: Vec<Known>,
    last: Option<Arc<PathTable>>,
}

impl EngineLaws {
    /// A proven path joins.
    pub(crate) fn joins(&mut self, now: u64, id: PathId) {
        let (epoch, listed, active) = (0, false, true);
        let (out, proven, proofs) = (0, now, Vec::new());
        self.paths.push(Known { id, epoch, listed, active, out, proven, proofs });
    }

    pub(crate) fn leaves(&mut self, path: PathId) {
        self.paths.retain(|k| k.id != path);
    }

    fn known(&mut self, path: PathId) -> Option<&mut Known> {
        self.paths.iter_mut().find(|k| k.id == path)
    }

    pub(crate) fn proof_begins(&mut self, now: u64, path: PathId, proof: u32) {
        if let Some(known) = self.known(path) {
            known.proofs.push((proof, now));
        }
    }

    pub(crate) fn proof_succeeds(&mut self, path: PathId, proof: u32) {
        if let Some(known) = self.known(path) {
            let at = known.proofs.iter().position(|p| p.0 == proof);
            let begun = at.map_or(0, |at| known.proofs.remove(at).1);
            known.proven = known.proven.max(begun);
        }
    }

    /// The engine has been told that the path may lead elsewhere.
    pub(crate) fn doubted(&mut self, now: u64, path: PathId) {
        if let Some(known) = self.known(path) {
            known.out = now;
        }
    }

    /// After every step of the engine.
    pub(crate) fn check(&mut self, now: u64, _time: Time, map: &Multipath) {
        let Some(table) = map.table() else { return };
        for known in &mut self.paths {
            let path = map.path(known.id);
            let active = path.is_some_and(|p| p.state == PathState::Active);
            if known.active && !active {
                known.out = now;
            }
            known.active = active;
            let id = known.id;
            let view = table.groups.iter().flat_map(|g| &g.paths).find(|v| v.id == id);
            let Some(view) = view else {
                known.listed = false;
                continue;
            };
            assert!(known.proven >= known.out, "{id} is in use with an unproven identity");
            let path = path.expect("in the map");
            let (proven, size) = (path.capacity, map.identity().capacity);
            let sized = proven == size || path.is_being_proven();
            assert!(sized, "{id} was proven with {proven} blocks, the map has {size}");
            assert_eq!(path.shrunk_to, None, "{id} is in use and waits");
            assert!(!path.failed_by_administrator, "{id} is in use against the administrator");
            if known.listed {
                assert_eq!(view.epoch, known.epoch, "{id} has another epoch without a break");
            } else {
                assert!(view.epoch > known.epoch, "{id} is back with epoch {}", view.epoch);
            }
            (known.listed, known.epoch) = (true, view.epoch);
        }
        if let Some(last) = self.last.as_ref().filter(|last| !Arc::ptr_eq(last, table)) {
            assert!(table.generation > last.generation);
        }
        self.last = Some(Arc::clone(table));
    }
}
