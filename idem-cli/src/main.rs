//! The command `idem`.

use std::process::ExitCode;

fn main() -> ExitCode {
    idem_cli::main()
}
