//! Guest memory table.

/// Immutable snapshot of the guest's memory table.
#[derive(Debug)]
pub struct Memory {}
