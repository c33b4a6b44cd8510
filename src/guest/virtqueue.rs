//! A running ring as its queue thread owns it.

/// A split ring with its in-flight record and eventfds.
#[derive(Debug)]
pub struct VirtQueue {}
