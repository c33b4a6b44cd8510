//! The control thread: owner of the engine, and all that is not a hot path.
//!
//! One thread, the process's first, runs [`daemon::run`]: it opens the paths,
//! starts the queue threads and the vhost-user listener, and then waits in
//! poll(2) for reports of queue threads, answers of the paths' checking
//! threads, signals, administrators (QMP) and the engine's deadlines. It is
//! the only one to touch [`Multipath`](crate::mpath::Multipath), and it never
//! waits for a path: what may block has a thread of its own. Not here: what
//! happens to a request (`queue`) and any decision about a path (`mpath`).
//!
//! [`ctl`] is the other end of the control socket, run by `vhost-mpath ctl`.

mod checking;
pub mod ctl;
pub mod daemon;
mod devices;
mod discovery;
mod events;
pub mod journal;
mod lun;
mod mailbox;
mod map;
mod maps;
mod opening;
mod prkeys;
mod probing;
mod qmp;
mod rate;
mod requests;
pub mod settings;
mod sim_fault;
mod start;
pub mod status;
pub mod topology;
mod uevents;
pub mod wildcards;

pub use prkeys::{Prkeys, PrkeysError};
pub use settings::{Listen, Settings};
