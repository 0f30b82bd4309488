//! The kernel memory of one protected interface, with few CPUs and with many.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::fetch::Kernel;
use super::image::Base;
use super::machine::{Event, Hardware, Machine, Outcome};
use super::steps::Step;
use super::{Arguments, BOOT, GRACE, log_of, report};
use crate::arch::Arch;

/// One interface with a small policy, measured before and after.
const SCRIPT: &str = include_str!("memory.sh");

/// Machines that are measured, by their CPUs.
const CPUS: [u16; 3] = [1, 2, 16];

/// The tables, the per-CPU tables and the page tables of 16 CPUs fit, whatever they are.
const MEMORY_MIB: u32 = 3_072;

/// A line that the script prints, in KiB: what the tables say they take, without and of the flow
/// table, and what the kernel says is allocated per CPU and gone from its free memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measured {
    tables: u64,
    flow_table: u64,
    per_cpu: u64,
    all: u64,
}

/// Boots each kernel with each number of CPUs and prints what one interface takes.
pub(super) fn run(
    arch: Arch,
    debian: &Path,
    sg_ctl: PathBuf,
    kernels: &[Kernel],
    arguments: &Arguments,
) -> Result<()> {
    let built = vec![("sg-ctl".to_owned(), sg_ctl)];
    let base = Base::pack(arch, debian, &built)?;
    let step = Step {
        name: "memory",
        promise: "the kernel memory of one interface",
        seconds: 300 * u64::from(arguments.patience),
        script: SCRIPT.to_owned(),
    };
    let mut rows = Vec::new();
    let as_json = arguments.json;
    if !as_json {
        println!(
            "{:<10}  {:>4}  {:>14}  {:>14}  {:>14}  {:>14}",
            "KERNEL", "CPUS", "TABLES KiB", "FLOWS KiB", "PER-CPU KiB", "ALL KiB"
        );
    }
    for kernel in kernels {
        let image = base.image(kernel, std::slice::from_ref(&step))?;
        for cpus in CPUS {
            let hardware = Hardware {
                arch,
                cpus,
                memory_mib: MEMORY_MIB,
            };
            let log = log_of(kernel, arch)?;
            let machine = Machine::boot(hardware, &kernel.image(), &image, &log)?;
            let boot = BOOT * arguments.patience;
            let limit = boot + Duration::from_secs(step.seconds) + GRACE;
            let measured = measure(machine, limit).with_context(|| {
                format!(
                    "{} with {cpus} CPUs (log: {})",
                    kernel.upstream(),
                    log.display()
                )
            })?;
            let Measured {
                tables,
                flow_table,
                per_cpu,
                all,
            } = measured;
            let version = kernel.upstream();
            report::say(
                as_json,
                &format!(
                    "{version:<10}  {cpus:>4}  {tables:>14}  {flow_table:>14}  {per_cpu:>14}  {all:>14}"
                ),
            );
            rows.push(json!({
                "version": version,
                "arch": arch.debian(),
                "cpus": cpus,
                "tables_kib": tables,
                "flow_table_kib": flow_table,
                "per_cpu_kib": per_cpu,
                "all_kib": all,
            }));
        }
    }
    if as_json {
        println!("{:#}", json!({ "memory": rows }));
    }
    Ok(())
}

fn measure(mut machine: Machine, limit: Duration) -> Result<Measured> {
    let deadline = Instant::now() + limit;
    let mut measured = None;
    while let Some(event) = machine.next(deadline)? {
        match event {
            Event::Printed(line) => measured = measured.or(read(&line)),
            Event::End(_, Outcome::Passed) => return measured.context("it measured nothing"),
            Event::End(_, outcome) => bail!("the measurement ended: {outcome:?}"),
            _ => {}
        }
    }
    bail!("the machine stopped")
}

/// Reads `memory: 1 2 3 4`.
fn read(line: &str) -> Option<Measured> {
    let numbers = line.strip_prefix("memory: ")?.split(' ').map(str::parse);
    match numbers.collect::<Result<Vec<u64>, _>>().ok()?[..] {
        [tables, flow_table, per_cpu, all] => Some(Measured {
            tables,
            flow_table,
            per_cpu,
            all,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_numbers_is_read() {
        assert_eq!(
            read("memory: 1 2 3 4"),
            Some(Measured {
                tables: 1,
                flow_table: 2,
                per_cpu: 3,
                all: 4
            })
        );
        assert_eq!(read("memory: 1 2"), None);
        assert_eq!(read("something else"), None);
    }
}
