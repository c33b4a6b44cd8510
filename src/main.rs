//! Entry point of the `vhost-mpath` binary; all logic is in the library.

fn main() {}
