//! What the stories share: a guest's memory and driver, the front-end double,
//! the daemon under test, a shadow of its disk; and a disk to serve elsewhere.

#[allow(dead_code)] // some is for the load generator only
pub(crate) mod blk_queue;
pub(crate) mod cdb;
pub(crate) mod daemon;
pub(crate) mod driver_ring;
pub(crate) mod front_end;
pub(crate) mod guest;
pub(crate) mod guest_memory;
pub(crate) mod load;
pub(crate) mod memory_disk;
#[allow(dead_code)] // some is for the simulation only
#[path = "../simulation/random.rs"]
pub(crate) mod random;
pub(crate) mod scsi_guest;
pub(crate) mod scsi_load;
pub(crate) mod scsi_queue;
pub(crate) mod shadow;
pub(crate) mod sim_daemon;
#[allow(dead_code)] // some is for the load generator only
pub(crate) mod slot_queue;
