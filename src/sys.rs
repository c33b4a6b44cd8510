//! Kernel interfaces: the structs, ioctls and rings the transports need.
//!
//! Thin and without policy: every function is one system call (or one copy)
//! with its errno passed on as it came. Not here: which device to open
//! (`host`), which command to send (`passthrough_scsi`), what an error means
//! (`mpath::classify`). Any thread may call it; a [`uring::Uring`] belongs to
//! the thread that made it. `unsafe` lives here and in the modules named in
//! `docs/architecture.md`.

pub mod block;
pub mod bsg;
pub mod buffer;
pub mod eventfd;
pub mod file;
pub mod inherit;
pub mod netlink;
pub mod peer;
pub mod poll;
pub mod scsi_generic;
pub mod segment;
pub mod signal;
pub mod socket;
pub mod uring;
