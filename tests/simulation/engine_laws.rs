//! What the engine's tables must never say.

use std::collections::BTreeMap;

use vhost_mpath::mpath::Multipath;
use vhost_mpath::mpath::snapshot::{PathId, PathTable};

/// What is known of a path besides what the engine thinks.
#[derive(Debug, Default)]
struct Known {
    /// Epoch at which it was listed last.
    epoch: u32,
    /// Listed in the last table.
    listed: bool,
    /// The engine called it usable after its last step.
    usable: bool,
    /// When it was last out of order, or came into doubt. (One that is passive
    /// leaves the tables and is in order.)
    out: u64,
    /// When the last proof that succeeded had begun.
    proven: u64,
    /// When each proof began.
    proofs: BTreeMap<u32, u64>,
}

/// Watches the tables of a map.
#[derive(Debug, Default)]
pub(crate) struct EngineLaws {
    paths: BTreeMap<PathId, Known>,
    last: Option<PathTable>,
}

impl EngineLaws {
    /// A proven path joins.
    pub(crate) fn joins(&mut self, now: u64, path: PathId) {
        self.paths.insert(path, Known { proven: now, usable: true, ..Known::default() });
    }

    pub(crate) fn leaves(&mut self, path: PathId) {
        self.paths.remove(&path);
    }

    pub(crate) fn proof_begins(&mut self, now: u64, path: PathId, proof: u32) {
        if let Some(known) = self.paths.get_mut(&path) {
            known.proofs.insert(proof, now);
        }
    }

    pub(crate) fn proof_succeeds(&mut self, path: PathId, proof: u32) {
        if let Some(known) = self.paths.get_mut(&path) {
            known.proven = known.proven.max(known.proofs.remove(&proof).unwrap_or(0));
        }
    }

    /// The engine has been told that the path may lead elsewhere.
    pub(crate) fn doubted(&mut self, now: u64, path: PathId) {
        if let Some(known) = self.paths.get_mut(&path) {
            known.out = now;
        }
    }

    /// After every step of the engine.
    pub(crate) fn check(&mut self, now: u64, map: &Multipath) {
        let Some(table) = map.table() else { return };
        for known in self.paths.iter_mut() {
            let (id, known) = known;
            let usable = map.path(*id).is_some_and(|p| p.is_usable());
            if std::mem::replace(&mut known.usable, usable) && !usable {
                known.out = now;
            }
            let view = table.groups.iter().flat_map(|g| &g.paths).find(|v| v.id == *id);
            let Some(view) = view else {
                known.listed = false;
                continue;
            };
            assert!(known.proven >= known.out, "{id} is in use with an unproven identity");
            let path = map.path(*id).expect("in the map");
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
        if let Some(last) = &self.last {
            follows(last, table);
        }
        self.last = Some(PathTable::clone(table));
    }
}

/// Generations grow, and I/O stays where it is while it can (failback manual).
fn follows(last: &PathTable, table: &PathTable) {
    if last == table {
        return;
    }
    assert!(table.generation > last.generation);
    let (Some(was), Some(is)) = (last.groups.first(), table.groups.first()) else { return };
    let all = || table.groups.iter().flat_map(|g| &g.paths);
    let same = |id: PathId| was.paths.iter().any(|v| v.id == id);
    if all().any(|v| same(v.id)) {
        assert!(is.paths.iter().any(|v| same(v.id)), "the group in use was left for another");
    }
}
