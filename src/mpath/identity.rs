//! What a path leads to: doubt, proofs, and a LU that changes its size.
//!
//! Identity is WWID, capacity and block size (law 2). The WWID and the block
//! size of a map never change. Its capacity does, when the LU's does: a path
//! that proves the same LU with more blocks is believed at once, for only the
//! LU can say so; of one that proves fewer it is asked whether the others
//! agree, and until every usable path does the map keeps its size and that
//! path waits in doubt. Whenever the map's size changes, every path that was
//! proven before is proven again, and carries I/O meanwhile: it is the same LU,
//! and a command beyond the end is the LU's to refuse.

use super::Multipath;
use super::effect::{Cause, Change, Effect, Effects};
use super::event::IoReason;
use super::path::{CheckerState, Outstanding, Path, PathState};
use super::snapshot::PathId;
use crate::io::{Blocks, Completion, Identity, Time};
use crate::scsi::sense::SenseCode;

/// Whether a guest's command met the news that the capacity has changed.
pub(super) fn says_resized(reason: &IoReason) -> bool {
    sense_code(reason) == Some(SenseCode::CAPACITY_CHANGED)
}

/// Whether a guest's command was told that there is no such LU.
pub(super) fn says_no_lun(reason: &IoReason) -> bool {
    sense_code(reason) == Some(SenseCode::LUN_NOT_SUPPORTED)
}

fn sense_code(reason: &IoReason) -> Option<SenseCode> {
    match reason {
        IoReason::Judged { completion: Completion::Scsi { sense, .. }, .. } => sense.code(),
        _ => None,
    }
}

impl Multipath {
    /// `resize map`: reads the identity of every path in use again, for an
    /// array that does not tell of a change by itself.
    pub fn prove_all(&mut self, now: Time, fx: &mut Effects) {
        let ids: Vec<PathId> = self.all().map(|p| p.id).collect();
        for id in ids {
            self.resized(now, id, fx);
        }
        self.settle(now, fx);
    }

    /// How many paths are being asked for their identity.
    pub fn being_proven(&self) -> usize {
        self.all().filter(|p| p.proof.is_some_and(|o| !o.late)).count()
    }

    /// The path may lead elsewhere now. The array says so once, perhaps to a
    /// command of an earlier epoch, and perhaps while a proof is under way
    /// that has read what was true before.
    pub(super) fn doubt(&mut self, now: Time, id: PathId, cause: Cause, fx: &mut Effects) {
        let Some(path) = self.path(id) else { return };
        if path.is_usable() {
            self.set_aside(id, PathState::Doubt, cause, fx);
            self.prove(now, id, fx);
        } else {
            self.prove_again(now, id, fx);
        }
    }

    /// The LU may have another capacity now. It is the same LU: the path goes
    /// on while that is read.
    pub(super) fn resized(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        if self.path(id).is_some_and(|p| p.is_usable()) {
            self.prove(now, id, fx);
        } else {
            self.prove_again(now, id, fx);
        }
    }

    /// What was proven of a path out of use, or is just being proven, counts
    /// no longer.
    fn prove_again(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        if self.path(id).is_some_and(|p| p.proof.is_some() || p.shrunk_to.is_some()) {
            self.prove(now, id, fx);
        }
    }

    pub(super) fn prove(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        self.numbers = self.numbers.wrapping_add(1);
        let number = self.numbers;
        let Some(path) = self.path_mut(id) else { return };
        // A proof under way may have read what was true before this doubt:
        // its answer no longer counts.
        path.proof = Some(Outstanding { number, since: now, late: false });
        path.shrunk_to = None;
        fx.push(Effect::Prove { path: id, proof: number });
    }

    pub(super) fn proven(
        &mut self,
        now: Time,
        id: PathId,
        proof: u32,
        identity: Result<Identity, String>,
        fx: &mut Effects,
    ) {
        let expected = self.identity.clone();
        let Some(path) = self.path_mut(id) else { return };
        if path.proof.is_none_or(|o| o.number != proof) {
            return;
        }
        path.proof = None;
        path.next_check = now + path.interval;
        let found = match identity {
            Ok(found) => found,
            Err(why) => return self.fail(now, id, Cause::IdentityUnknown(why), fx),
        };
        if (&found.wwid, found.block_size) != (&expected.wwid, expected.block_size) {
            return self.fail(now, id, Cause::IdentityMismatch { expected, found }, fx);
        }
        path.capacity = found.capacity;
        path.standing.unsized_lu = false;
        if found.capacity < expected.capacity {
            return self.shrunk(now, id, found, fx);
        }
        if found.capacity > expected.capacity {
            self.adopt(now, found.capacity, fx);
        }
        self.reinstate(now, id, fx);
    }

    /// A proof has read the WWID of a passive path, which does not tell its
    /// capacity.
    pub(super) fn recognized(
        &mut self,
        now: Time,
        id: PathId,
        proof: u32,
        wwid: String,
        fx: &mut Effects,
    ) {
        let expected = self.identity.clone();
        let Some(path) = self.path_mut(id) else { return };
        if path.proof.is_none_or(|o| o.number != proof) {
            return;
        }
        path.proof = None;
        path.next_check = now + path.interval;
        if wwid != expected.wwid {
            let found = Identity { wwid, ..expected.clone() };
            return self.fail(now, id, Cause::IdentityMismatch { expected, found }, fx);
        }
        (path.standing.unsized_lu, path.standing.ghost) = (true, true);
        self.reinstate(now, id, fx);
    }

    fn reinstate(&mut self, now: Time, id: PathId, fx: &mut Effects) {
        let Some(path) = self.path(id) else { return };
        if path.failed_by_administrator || path.is_usable() {
            return;
        }
        let interval = self.retry_interval(now, path);
        let Some(path) = self.path_mut(id) else { return };
        path.state = PathState::Active;
        path.checker_state =
            if path.standing.ghost { CheckerState::Ghost } else { CheckerState::Ready };
        path.epoch += 1;
        path.proven = path.epoch;
        path.init.renew();
        path.interval = interval;
        path.next_check = now + interval;
        path.returned = Some(now);
        let name = path.name.clone();
        let usable = self.usable();
        fx.push(Effect::Notify(Change::PathReinstated { path: name, usable }));
    }

    /// A path says that the LU has fewer blocks now: it waits until the others
    /// that are in use have been asked. ([`Multipath::agree_on_capacity`]
    /// decides.)
    fn shrunk(&mut self, now: Time, id: PathId, found: Identity, fx: &mut Effects) {
        let expected = self.identity.clone();
        let interval = self.policy.polling_interval;
        let Some(path) = self.path_mut(id) else { return };
        if path.failed_by_administrator {
            return;
        }
        let to = found.capacity;
        if self.agreed(to, Some(id)) {
            self.adopt(now, to, fx);
            return self.reinstate(now, id, fx);
        }
        let Some(path) = self.path_mut(id) else { return };
        let cause = Cause::IdentityMismatch { expected, found };
        if path.last_cause.as_ref() == Some(&cause) && !path.is_usable() {
            path.state = PathState::Doubt; // told already
        } else {
            self.set_aside(id, PathState::Doubt, cause, fx);
        }
        if let Some(path) = self.path_mut(id) {
            path.shrunk_to = Some(to);
            path.interval = interval;
            path.next_check = now + interval;
        }
        let in_use = |p: &&Path| p.is_usable() && p.proof.is_none();
        let others: Vec<PathId> = self.all().filter(in_use).map(|p| p.id).collect();
        for other in others {
            self.prove(now, other, fx);
        }
    }

    /// Takes over a smaller capacity when the last path that spoke against it
    /// has failed or left.
    pub(super) fn agree_on_capacity(&mut self, now: Time, fx: &mut Effects) {
        let Some(to) = self.all().find_map(|p| p.shrunk_to) else { return };
        if self.agreed(to, None) {
            self.adopt(now, to, fx);
        }
    }

    /// Whether no path but `besides` is in use, or just being asked, and all
    /// that wait have proven the LU with `to` blocks.
    pub(super) fn agreed(&self, to: Blocks, besides: Option<PathId>) -> bool {
        self.all().filter(|p| Some(p.id) != besides).all(|p| match p.state {
            PathState::Active => p.standing.unsized_lu,
            PathState::Doubt => p.shrunk_to == Some(to),
            PathState::Suspect | PathState::Failed => true,
        })
    }

    pub(super) fn adopt(&mut self, now: Time, to: Blocks, fx: &mut Effects) {
        let from = std::mem::replace(&mut self.identity.capacity, to);
        fx.push(Effect::Notify(Change::Resized { from, to }));
        let ids: Vec<PathId> = self.all().map(|p| p.id).collect();
        for id in ids {
            let asks = |p: &Path| p.proof.is_some() || p.shrunk_to.is_some();
            if self.path(id).is_some_and(|p| p.capacity != to || asks(p)) {
                self.resized(now, id, fx);
            }
        }
    }

    /// Tells once when every path has been told that there is no such LU, and
    /// once when one is in use again.
    pub(super) fn track_lun(&mut self, fx: &mut Effects) {
        let gone = !self.order.is_empty() && self.all().all(|p| p.no_lun && !p.is_usable());
        if gone && !self.lun_gone {
            self.lun_gone = true;
            fx.push(Effect::Notify(Change::LunGone));
        } else if self.lun_gone && self.usable() > 0 {
            self.lun_gone = false;
            fx.push(Effect::Notify(Change::LunBack));
        }
    }
}
