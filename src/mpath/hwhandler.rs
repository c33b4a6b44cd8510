//! Hardware handlers: making a path group carry I/O (`hardware_handler`).
//!
//! Command generators for the *activation* of a path, as the kernel's
//! `scsi_dh_*` do it; when to activate, how often to retry and which group to
//! bypass is the engine's (`pg_init` of dm-mpath).
//!
//! What is sent moves the LU as a whole, and may be sent again after any
//! answer: it names the state that shall be, not a change.

use super::probe::outcome::Outcome;
use super::probe::{Answer, Step};
use crate::scsi::status::HostByte;

mod alua;
mod emc;
mod rdac;

#[cfg(test)]
mod tests;

use alua::Alua;
use emc::Emc;
use rdac::Rdac;

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
    /// Its target port group is in transition: nothing to be tried, and no
    /// failure until that has taken too long.
    Transition,
    /// The path cannot be activated.
    Failed,
    /// It needs no activation, or knows none.
    Unsupported,
}

/// One activation in progress.
#[derive(Debug)]
pub struct Handler {
    kind: HandlerKind,
    method: Method,
}

#[derive(Debug)]
enum Method {
    None,
    Alua(Alua),
    Rdac(Rdac),
    Emc(Emc),
}

impl Handler {
    /// An activation that has not begun; `group` is the path's target port
    /// group, if one is known.
    pub fn new(kind: HandlerKind, group: Option<u16>) -> Handler {
        let method = match kind {
            HandlerKind::Detect | HandlerKind::None => Method::None,
            HandlerKind::Alua => Method::Alua(Alua::new(group)),
            HandlerKind::Rdac => Method::Rdac(Rdac::default()),
            HandlerKind::Emc => Method::Emc(Emc::default()),
        };
        Handler { kind, method }
    }

    /// What it was made for.
    pub fn kind(&self) -> HandlerKind {
        self.kind
    }

    /// The first move.
    pub fn begin(&mut self) -> Step<Activation> {
        match &mut self.method {
            Method::None => Step::Done(Activation::Unsupported),
            Method::Alua(alua) => alua.begin(),
            Method::Rdac(rdac) => rdac.begin(),
            Method::Emc(emc) => emc.begin(),
        }
    }

    /// The next move.
    pub fn on_answer(&mut self, answer: &Answer) -> Step<Activation> {
        match &mut self.method {
            Method::None => Step::Done(Activation::Unsupported),
            Method::Alua(alua) => alua.on_answer(answer),
            Method::Rdac(rdac) => rdac.on_answer(answer),
            Method::Emc(emc) => emc.on_answer(answer),
        }
    }
}

/// What an outcome that no handler knows better makes of an activation.
fn failed(outcome: Outcome) -> Activation {
    match outcome {
        // The tries of this activation are used up; the array is talking.
        Outcome::Again(_) | Outcome::Busy => Activation::Retry { delayed: true },
        // The nexus may be back at once.
        Outcome::Host(
            HostByte::TRANSPORT_DISRUPTED
            | HostByte::BUS_BUSY
            | HostByte::SOFT_ERROR
            | HostByte::IMM_RETRY
            | HostByte::REQUEUE
            | HostByte::RESET,
        )
        | Outcome::Errno(libc::ENOMEM | libc::EAGAIN | libc::EINTR) => {
            Activation::Retry { delayed: false }
        }
        // It does not know the page, or speaks no SCSI.
        outcome if outcome.is_refused() => Activation::Unsupported,
        Outcome::Errno(libc::ENOTTY) => Activation::Unsupported,
        _ => Activation::Failed,
    }
}
