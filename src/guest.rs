//! Guest memory and rings: the memory table, the split-ring view, the
//! in-flight area, and the copies between them and our own buffers.
//!
//! Not here: what a request means (`vhost_blk`, `vhost_scsi`) and who polls a
//! ring (`queue`). With `sys/` and the transports this is the only place that
//! touches memory by raw address; `guest::shared` and `guest::copy` hold all
//! of it. Guest memory is read once, copied, validated, then used; there is
//! never a Rust reference into it (law 7).

pub mod buffer;
pub mod copy;
pub mod driver;
pub mod inflight;
pub mod memfd;
pub mod memory;
pub mod ring;
mod shared;
pub mod virtqueue;
