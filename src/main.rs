//! Entry point of the `vhost-mpath` binary; all logic is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    vhost_mpath::cli::main()
}
