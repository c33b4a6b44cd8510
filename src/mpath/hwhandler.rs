//! Hardware handlers: making a path group carry I/O (`hardware_handler`).
//!
//! Command generators for the *activation* of a path, as the kernel's
//! `scsi_dh_*` do it; when to activate, how often to retry and which group to
//! bypass is the engine's (`pg_init` of dm-mpath).

use super::probe::{Answer, Step};

/// Which handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HandlerKind {
    /// `alua` where the path's readings say so, else none.
    #[default]
    Detect,
    /// None: every path carries I/O as it is.
    None,
    /// SET TARGET PORT GROUPS.
    Alua,
    /// MODE SELECT of page 2Ch.
    Rdac,
    /// MODE SELECT of page 22h (trespass).
    Emc,
}

/// What came of an activation (dm-mpath's `pg_init_done`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The path carries I/O now.
    Done,
    /// The array is not in the mood (a firmware upgrade): leave the group
    /// alone for a while.
    Busy,
    /// Try again, at once or after a pause.
    Retry {
        /// After `pg_init_delay_msecs`.
        delayed: bool,
    },
    /// The path cannot be activated.
    Failed,
    /// It needs no activation, or knows none.
    Unsupported,
}

/// One activation in progress.
#[derive(Debug)]
pub struct Handler {
    kind: HandlerKind,
}

impl Handler {
    /// An activation that has not begun; `group` is the path's target port
    /// group, if one is known.
    pub fn new(kind: HandlerKind, _group: Option<u16>) -> Handler {
        Handler { kind }
    }

    /// What it was made for.
    pub fn kind(&self) -> HandlerKind {
        self.kind
    }

    /// The first move.
    pub fn begin(&mut self) -> Step<Activation> {
        Step::Done(Activation::Unsupported)
    }

    /// The next move.
    pub fn on_answer(&mut self, _answer: &Answer) -> Step<Activation> {
        self.begin()
    }
}
