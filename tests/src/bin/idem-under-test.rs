//! The command `idem`, so that tests can run it: cargo tells a test only the binaries of its own package.

use std::process::ExitCode;

fn main() -> ExitCode {
    idem_cli::main()
}
