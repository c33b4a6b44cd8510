//! What the stories share: a guest's memory and driver, and a disk to serve.

pub(crate) mod daemon;
pub(crate) mod driver_ring;
pub(crate) mod guest_memory;
pub(crate) mod memory_disk;
