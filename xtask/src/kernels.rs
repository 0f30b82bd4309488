//! `cargo xtask kernels`: boots Debian's kernels in an emulator and proves on each what must hold.
//!
//! Kernels and the programs beside the tests are fetched from Debian once, into the project's own
//! tools. Everything else is what `cargo xtask test` and `cargo xtask build` build. The emulator is
//! never the processor's own virtualisation, so that it runs wherever the project builds, and a
//! kernel of another architecture as well.

mod archive;
mod fetch;
mod image;
mod machine;
mod memory;
mod programs;
mod report;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::arch::Arch;
use crate::{setup, workspace};
use fetch::{Flavour, Kernel, Store};
use image::Base;
use machine::{Event, Hardware, Machine, Outcome};
use report::{Matrix, Ran};
use steps::{Choice, Promise, Step};

/// Stands for the newest kernel that Debian has.
pub(crate) const NEWEST: &str = "newest";

/// Kernels that are tried when none is named: the oldest that must protect, today's stable release,
/// and the newest; and one that must be refused.
const USUAL: [&str; 4] = ["5.10", "6.1", "6.12", NEWEST];

/// Until a kernel runs the init script.
const BOOT: Duration = Duration::from_secs(400);

/// A step ends itself before this beyond its time, unless the kernel is stuck.
const GRACE: Duration = Duration::from_secs(60);

/// What a machine has when nothing else is asked for.
const CPUS: u16 = 2;
const MEMORY_MIB: u32 = 2_048;

/// What to try.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Versions such as `6.12` or `7.3.4`, or `newest` [default: 5.10 6.1 6.12 newest]
    versions: Vec<String>,
    /// The processor's architecture
    #[arg(long, value_enum, default_value_t = Arch::native())]
    arch: Arch,
    /// Kernels with all drivers, instead of those for virtual machines
    #[arg(long)]
    generic: bool,
    /// The few steps that tell most
    #[arg(long)]
    quick: bool,
    /// Only these steps
    #[arg(long = "step", value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(steps::names()))]
    steps: Vec<String>,
    /// An sg-ctl that is built already, instead of one for release
    #[arg(long)]
    program: Option<PathBuf>,
    /// The CPUs of each machine
    #[arg(long, default_value_t = CPUS)]
    cpus: u16,
    /// Measure the kernel's memory with 1, 2 and 16 CPUs instead
    #[arg(long, conflicts_with_all = ["quick", "steps", "cpus"])]
    memory: bool,
    /// How many times longer than usual each step may take, on a busy machine
    #[arg(long, default_value_t = 1)]
    patience: u32,
    /// How long all kernels may take; what has not run by then has failed
    #[arg(long, default_value_t = 240)]
    minutes: u64,
    /// Look for newer kernels than those that are there
    #[arg(long)]
    update: bool,
    /// Print JSON at the end, and steps to standard error
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// What the gate asks of these kernels, in a third of the time that a gate may take.
    pub(crate) fn gate(versions: &[&str], steps: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            versions: owned(versions),
            arch: Arch::native(),
            generic: false,
            quick: false,
            steps: owned(steps),
            program: None,
            patience: 1,
            minutes: 30,
            cpus: CPUS,
            memory: false,
            update: false,
            json: false,
        }
    }
}

/// Boots each kernel; a step that fails on any is an error.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let arch = arguments.arch;
    setup::for_kernels(arch)?;
    let flavour = match arguments.generic {
        true => Flavour::Generic,
        false => Flavour::Cloud,
    };
    let store = Store::new(arch, arguments.update);
    let named = arguments.versions.iter().map(String::as_str);
    let named: Vec<&str> = named.collect();
    let usual = if named.is_empty() { &USUAL[..] } else { &named };
    let kernels: Vec<Kernel> = usual
        .iter()
        .map(|version| store.kernel(flavour, version))
        .collect::<Result<_>>()?;
    let debian = store.programs()?;
    if arguments.memory {
        let sg_ctl = programs::sg_ctl(arch, arguments.program.clone())?;
        return memory::run(arch, &debian, sg_ctl, &kernels, arguments);
    }

    let choice = Choice {
        quick: arguments.quick,
        patience: arguments.patience.into(),
        flavour,
        named: arguments.steps.clone(),
    };
    let plans: Vec<(Kernel, Vec<Step>)> = kernels
        .into_iter()
        .map(|kernel| {
            let steps = choice.steps(promise(&kernel));
            (kernel, steps)
        })
        .filter(|(_, steps)| !steps.is_empty())
        .collect();
    ensure!(!plans.is_empty(), "no kernel has such a step");
    let steps: Vec<&Step> = plans.iter().flat_map(|(_, steps)| steps).collect();
    let built = programs::build(arch, arguments.program.clone(), &steps)?;
    let base = Base::pack(arch, &debian, &built)?;
    let hardware = Hardware {
        arch,
        cpus: arguments.cpus,
        memory_mib: MEMORY_MIB,
    };
    let mut matrix = Matrix::default();
    let limits = Limits {
        boot: BOOT * arguments.patience,
        end: Instant::now() + Duration::from_secs(arguments.minutes * 60),
    };
    for (kernel, steps) in &plans {
        let log = log_of(kernel, arch)?;
        let ran = prove(hardware, &base, kernel, steps, &log, limits, &mut |line| {
            report::say(arguments.json, line);
        })?;
        matrix.add(kernel, arch, &log, ran);
    }
    matrix.print(arguments.json);
    matrix.verdict()
}

/// How long a kernel may take until it is there, and when it is over in any case.
#[derive(Clone, Copy, Debug)]
struct Limits {
    boot: Duration,
    end: Instant,
}

/// What a kernel must do: sg asks it what it can, so that only this list of what Debian ships speaks
/// of versions.
fn promise(kernel: &Kernel) -> Promise {
    match kernel.upstream().split_once('.') {
        Some((major, _)) if major.parse().is_ok_and(|major: u32| major < 6) => Promise::IsRefused,
        _ => Promise::Protects,
    }
}

fn log_of(kernel: &Kernel, arch: Arch) -> Result<PathBuf> {
    let folder = workspace::target().join("kernels");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder.join(format!("{}-{}.log", kernel.release, arch.debian())))
}

/// Boots a kernel and runs the steps, each within its time and all of them within theirs.
fn prove(
    hardware: Hardware,
    base: &Base,
    kernel: &Kernel,
    steps: &[Step],
    log: &Path,
    limits: Limits,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<Ran>> {
    let image = base.image(kernel, steps)?;
    let mut machine = Machine::boot(hardware, &kernel.image(), &image, log)?;
    let name = format!("{} {}", kernel.upstream(), hardware.arch.debian());
    let booting = Instant::now();
    let mut deadline = booting + limits.boot;
    let mut current: Option<(usize, Instant)> = None;
    let mut ran: Vec<Ran> = steps.iter().map(Ran::not_yet).collect();
    loop {
        match machine.next(deadline.min(limits.end))? {
            Some(Event::Ready(release)) => {
                say(&format!(
                    "{name}  boots {release} in {} s",
                    booting.elapsed().as_secs()
                ));
                deadline = Instant::now() + GRACE;
            }
            Some(Event::Begin(step)) => {
                current = steps
                    .iter()
                    .position(|one| one.name == step)
                    .map(|at| (at, Instant::now()));
                let seconds = current.map_or(0, |(at, _)| steps[at].seconds);
                deadline = Instant::now() + Duration::from_secs(seconds) + GRACE;
            }
            Some(Event::Printed(line)) => {
                if let Some((at, _)) = current {
                    ran[at].read(&line);
                }
            }
            Some(Event::End(_, outcome)) => {
                if let Some((at, began)) = current.take() {
                    ran[at].ended(outcome, began.elapsed());
                    say(&format!("{name}  {}", ran[at]));
                }
                deadline = Instant::now() + GRACE;
            }
            Some(Event::Over) => break,
            None => {
                if let Some((at, began)) = current {
                    ran[at].ended(Outcome::TimedOut, began.elapsed());
                }
                say(&format!(
                    "{name}  the machine stopped, or its time was over; what it said last:"
                ));
                say(&report::tail(log)?);
                break;
            }
        }
    }
    drop(machine);
    fs::remove_file(&image).with_context(|| format!("removing {}", image.display()))?;
    for failed in ran.iter().filter(|ran| !ran.passed()) {
        for line in failed.last_lines() {
            say(&format!("    {line}"));
        }
    }
    Ok(ran)
}
