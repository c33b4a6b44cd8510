//! Stories that cross module borders, one file per story.
#![allow(clippy::disallowed_methods)] // stories happen in real time

mod cli;
mod control;
mod cuts_under_load;
mod ending;
mod harness;
mod luns;
mod malformed_chains;
mod policies;
mod protocol_abuse;
mod reconnect;
mod request_types;
mod reservations;
mod reservations_hostile;
mod resize;
mod ring_stop;
mod running_changes;
mod scsi_cuts;
mod scsi_events;
mod scsi_one_lu;
mod scsi_reconnect;
mod scsi_requests;
mod scsi_task_management;
mod scsi_unit_attentions;
mod sim_reservations;
mod stock_daemon;
