//! vhost-mpath: SAN disks for virtual machines.
//!
//! A daemon that joins the several paths a host has to one SCSI logical unit
//! into a *map*, and serves the map to a virtual machine as a vhost-user disk.
//! `docs/architecture.md` has the picture, the life of one read and the life
//! of one path failure.
//!
//! The library holds all the logic so that integration tests, benches and the
//! simulation use the very code the daemon runs; it is not a stable API.

pub mod cli;
pub mod control;
pub mod guest;
pub mod host;
pub mod io;
pub mod mpath;
pub mod passthrough_scsi;
pub mod queue;
pub mod scsi;
pub mod sim;
pub mod sys;
pub mod vhost_blk;
pub mod vhost_scsi;
pub mod vhost_user;
pub mod virtio;
