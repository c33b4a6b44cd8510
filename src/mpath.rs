//! The multipath engine.

pub mod snapshot;
