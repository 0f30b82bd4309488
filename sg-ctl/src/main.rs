//! The command line: see `sg-ctl --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sg_ctl::cli::main()
}
