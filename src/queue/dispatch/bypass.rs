//! Paths whose block layer is not to be relied on: it ends reads and writes with
//! EIO that go well by SCSI passthrough, while the path's checker, which sends
//! SCSI commands, is content (ADR 4).
//!
//! Each such error costs a second command. After [`ROW`] of them in a row the
//! path's reads and writes go by SCSI passthrough from the start. Nothing is held
//! against the path itself: if the trouble is its own after all, passthrough says
//! so exactly, and that is judged as on any path. After a while the block layer
//! is tried again. One queue thread's view; pure.

use std::time::Duration;

use super::parts::PartIndex;
use super::{Dispatcher, Report};
use crate::io::{Completion, ErrnoFrom, Op, Time};
use crate::mpath::snapshot::PathId;

/// Errors in a row that the truth did not bear out.
pub(super) const ROW: u8 = 4;
/// An error before this is no part of the row any more.
const WINDOW: Duration = Duration::from_secs(60);
/// The block layer is tried again after this long; when that fails, after twice
/// as long as the last time,
const FIRST: Duration = Duration::from_secs(60);
/// but at most after this long.
const LONGEST: Duration = Duration::from_secs(3600);

/// What the block layer of one path has been worth.
#[derive(Debug, Default)]
pub(super) struct BlockLayer {
    row: u8,
    /// The last of them.
    last: Time,
    /// It is not used until then; how long that is.
    avoided: Option<(Time, Duration)>,
}

impl BlockLayer {
    fn is_avoided(&self, now: Time) -> bool {
        self.avoided.is_some_and(|(until, _)| now < until)
    }

    /// It carried a command; whether it is used again from now on.
    fn was_good(&mut self, now: Time) -> bool {
        // (What was out already when it began to be avoided says nothing.)
        let over = !self.is_avoided(now);
        if over {
            self.row = 0;
        }
        over && self.avoided.take().is_some()
    }

    /// What it ended with an error went well by passthrough; whether it is
    /// avoided from now on, and was not before.
    fn was_wrong(&mut self, now: Time) -> bool {
        if self.is_avoided(now) {
            return false;
        }
        if let Some((until, pause)) = &mut self.avoided {
            // Tried again, in vain.
            *pause = LONGEST.min(*pause * 2);
            *until = now + *pause;
            return false;
        }
        let recent = self.row > 0 && now.since(self.last) < WINDOW;
        self.row = if recent { self.row + 1 } else { 1 };
        self.last = now;
        if self.row < ROW {
            return false;
        }
        (self.row, self.avoided) = (0, Some((now + FIRST, FIRST)));
        true
    }
}

impl Dispatcher {
    /// Whether the part is to go by passthrough on that path.
    pub(super) fn goes_by_passthrough(&self, now: Time, index: PartIndex, path: PathId) -> bool {
        let part = &self.parts[index];
        let transfer = matches!(part.op, Op::Read(_) | Op::Write { .. });
        part.passthrough
            || (transfer && self.paths.block_layer(path).is_some_and(|b| b.is_avoided(now)))
    }

    /// A path ended the part with an error that may be the block layer's alone.
    pub(super) fn accuse_block_layer(
        &mut self,
        index: PartIndex,
        path: PathId,
        completion: &Completion,
    ) {
        if matches!(completion, Completion::Errno { from: ErrnoFrom::Block, .. }) {
            self.parts[index].accused = Some(path);
        }
    }

    /// A command of the part went well on that path.
    pub(super) fn weigh_block_layer(&mut self, now: Time, index: PartIndex, path: PathId) {
        let part = &mut self.parts[index];
        if !part.went_by_passthrough {
            let again = self.paths.block_layer_mut(path).is_some_and(|b| b.was_good(now));
            if again {
                self.report(Report::BlockLayer { path, avoided: false });
            }
            return;
        }
        let Some(accused) = part.accused.take() else { return };
        let avoided = self.paths.block_layer_mut(accused).is_some_and(|b| b.was_wrong(now));
        if avoided {
            self.report(Report::BlockLayer { path: accused, avoided: true });
        }
    }
}
