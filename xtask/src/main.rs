//! `cargo xtask TASK`: builds, proves and shows the project. One file a task.
//!
//! Nothing here is shipped. A task may fetch what it lacks; it says what and why before it does,
//! and once everything is in place no task touches the network.

mod arch;
mod bench;
mod budget;
mod build;
mod ci;
mod demo;
mod fuzz;
mod kernels;
mod lint;
mod miri;
mod package;
mod setup;
mod soak;
mod test;
mod tidy;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use arch::Arch;

/// Builds, proves and shows the project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Puts in place what the other tasks need; they call it themselves
    Setup {
        /// Also what only benchmarks want
        #[arg(long)]
        bench: bool,
    },
    /// Builds sg-ctl for release, with the kernel's half inside
    Build {
        /// The processor's architecture
        #[arg(long, value_enum, default_value_t = Arch::native())]
        arch: Arch,
    },
    /// Makes a Debian package, a tarball and an OCI image of the program
    Package {
        /// The processor's architecture
        #[arg(long, value_enum, default_value_t = Arch::native())]
        arch: Arch,
        /// A program that is built already, instead of a static one for release
        #[arg(long)]
        program: Option<PathBuf>,
        /// The folder that gets the packages [default: target]
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Shows the main job live: two protected machines, real connections, a hot change, counters
    Demo {
        /// A program that is built already, instead of one for release
        #[arg(long)]
        program: Option<PathBuf>,
    },
    /// Runs everything that must hold
    Test {
        /// Unit tests and a few promises, for between two edits; says how much it leaves out
        #[arg(long)]
        quick: bool,
        /// What cargo test gets, such as `--package sg-common` or `-- NAME`
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            conflicts_with = "quick"
        )]
        arguments: Vec<String>,
    },
    /// Measures what fast means, beside nftables and beside nothing
    Bench(bench::Arguments),
    /// Prints what programs and maps take of the kernel's limits; 1 when it is too much
    Budget {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Lets everything happen at once for a while, and counts what may not happen
    Soak(soak::Arguments),
    /// Boots Debian's kernels in an emulator and proves on each what must hold
    Kernels(kernels::Arguments),
    /// Looks for inputs that break a property: without a name, by each target in turn
    Fuzz(fuzz::Arguments),
    /// Runs the tests of sg-common under Miri, which sees undefined behaviour
    Miri,
    /// Checks format, lints, documentation, licences and sources
    Lint,
    /// Checks the invariants that a reader of the text can check
    Tidy,
    /// The gate: tidy, lint, test, budget and kernels
    Ci,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Setup { bench } => setup::everything(bench),
        Task::Build { arch } => {
            build::release(arch).map(|program| println!("{}", program.display()))
        }
        Task::Package {
            arch,
            program,
            output,
        } => {
            let show = |package: &PathBuf| println!("{}", package.display());
            package::run(arch, program, output).map(|packages| packages.iter().for_each(show))
        }
        Task::Demo { program } => demo::run(program),
        Task::Test { quick, arguments } => test::run(quick, &arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Budget { json } => budget::run(json),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Kernels(arguments) => kernels::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Miri => miri::run(),
        Task::Lint => lint::run(),
        Task::Tidy => tidy::run(),
        Task::Ci => ci::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
