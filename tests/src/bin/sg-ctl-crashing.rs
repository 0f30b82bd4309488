//! `sg-ctl` that can be had die after each step of a change, for tests: see `sg_ctl::crash`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sg_ctl::cli::main()
}
