//! SCSI as data: commands, statuses, sense, inquiry pages.
//!
//! Pure encoders and decoders of the wire formats of SAM-5, SPC-5 and SBC-4.
//! No I/O, no clock, no policy: what a sense *means* for a path is decided in
//! `mpath::classify`. Both sides use it: the transports build and read
//! commands of real LUs, the simulated array answers them.
//!
//! Parsers take bytes from guests and arrays alike: they never panic, and
//! they answer `None` rather than guess when a field is missing.

pub mod alua;
pub mod attention;
mod be;
pub mod block;
pub mod capacity;
pub mod cdb;
pub mod clariion;
pub mod command;
pub mod inquiry;
pub mod luns;
pub mod mode;
pub mod opcodes;
pub mod patience;
pub mod rdac;
pub mod reservation;
pub mod sense;
pub mod status;
pub mod unmap;
pub mod vpd;
