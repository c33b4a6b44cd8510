//! RESERVATION CONFLICT while the guest has a key registered: the LU's word,
//! or that of a nexus which has lost its registration (law 5).
//!
//! Nothing in the answer tells which. So a part's first conflict is the path's:
//! nothing goes there at that epoch any more, the part goes elsewhere, and the
//! engine asks the array who is registered. A conflict by a path that has come
//! to its epoch since then is the guest's: the engine has looked after that
//! nexus, and the LU refuses the command all the same. Nothing here asks the
//! array (`mpath::reservation`).

use super::Dispatcher;
use super::parts::PartIndex;
use crate::mpath::classify::Disposition;
use crate::mpath::snapshot::PathId;

impl Dispatcher {
    /// The verdict on a completion, where it is a conflict.
    pub(super) fn weigh_conflict(
        &mut self,
        index: PartIndex,
        path: PathId,
        epoch: u32,
        verdict: Disposition,
    ) -> Disposition {
        if !self.table.registered || !verdict.is_conflict() {
            return verdict;
        }
        let part = &mut self.parts[index];
        let since = self.paths.since(path, epoch);
        match (part.conflicted, since) {
            (Some(first), Some(since)) if since > first => verdict,
            _ => {
                part.conflicted.get_or_insert(part.table);
                verdict.of_an_unregistered_path()
            }
        }
    }
}
