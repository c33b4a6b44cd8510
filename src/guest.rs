//! Guest memory and rings. The only place, with `sys/` and the transports,
//! that touches memory by raw address.

pub mod memory;
pub mod virtqueue;
