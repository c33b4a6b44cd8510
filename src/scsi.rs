//! SCSI as data: commands, statuses, sense, inquiry pages.
//!
//! Pure encoders and decoders of the wire formats of SAM-5, SPC-5 and SBC-4.
//! No I/O, no clock, no policy: what a sense *means* for a path is decided in
//! `mpath::classify`. Both sides use it: the transports build and read
//! commands of real LUs, the simulated array answers them.

pub mod sense;
pub mod status;
