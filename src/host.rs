//! The host's side of a path: what a device is, who else uses it, opening and
//! claiming it.
//!
//! [`open_path`] turns the administrator's words ([`PathSpec`]) into a
//! [`PathHandle`](crate::passthrough_scsi::PathHandle) that has proved what it
//! is a path to. It blocks (open, sysfs, INQUIRY). [`discover`] says which SCSI
//! disks there are, [`uevent`] what the kernel tells of them. Not here: carrying commands (`passthrough_scsi`), deciding whether a path
//! belongs to a map (`mpath`).

mod bindings;
pub mod discover;
mod error;
mod fabric;
mod image;
mod open;
mod registry;
mod spec;
mod sysfs;
pub mod uevent;
mod users;
mod wwid;

#[cfg(test)]
mod tests;

pub use bindings::{AliasError, wwid_of_alias};
pub use discover::in_user_namespace;
pub use error::OpenError;
pub use open::{Options, TransportChoice, left_behind, open_path};
pub use spec::{PathSpec, SimSpec, SpecError, Target, parse_size, split_list};
pub use sysfs::{DevT, DeviceState, access_state, device_state};
pub use users::User;
pub use wwid::understand as understand_wwid;
