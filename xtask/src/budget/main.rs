//! Prints what programs and maps take of what the kernel gives, each beside a limit.
//!
//! `cargo xtask budget` builds and runs this. The limits leave room below the kernel's own, so that
//! growth is seen here before another kernel's verifier, which may count more, refuses a program.
//! Exit codes are those of `sg-ctl`: 0 within the limits, 1 beyond one, 2 a failure.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use serde_json::{Value, json};
use sg_ctl::dataplane::measure::{Budget, ProgramCost};
use sg_ctl::dirs::{DirOptions, Dirs};

/// A quarter of `BPF_COMPLEXITY_LIMIT_INSNS`: a kernel that prunes worse still takes it, and the verifier
/// is what a first attach waits for.
const VERIFIED_INSTRUCTIONS: u64 = 250_000;
/// `MAX_BPF_STACK`, for a whole chain of calls.
const STACK_BYTES: u64 = 512;
/// Machine code stays within what a core's second-level cache holds next to tables and frames.
const MACHINE_BYTES: u64 = 128 << 10;
/// One map of the smallest installation.
const MAP_BYTES: u64 = 64 << 20;
/// All maps of the smallest installation: what a machine with a gigabyte can spare.
const MAPS_BYTES: u64 = 128 << 20;

/// Prints what programs and maps take of the kernel's limits; 1 when it is too much.
#[derive(Parser)]
#[command(name = "cargo xtask budget", bin_name = "cargo xtask budget")]
struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A number and the most it may be.
struct Line {
    of: String,
    what: &'static str,
    is: u64,
    limit: u64,
}

impl Line {
    fn exceeds(&self) -> bool {
        self.is > self.limit
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure() {
        Ok(budget) => {
            let lines = lines(&budget);
            if arguments.json {
                println!("{:#}", to_json(&budget, &lines));
            } else {
                print(&budget, &lines);
            }
            ExitCode::from(u8::from(lines.iter().any(Line::exceeds)))
        }
        Err(error) => {
            eprintln!("budget: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Loads everything on a bpf filesystem of its own.
fn measure() -> Result<Budget> {
    let folder = tempfile::Builder::new().prefix("sg-budget-").tempdir()?;
    let dirs = Dirs::create(&DirOptions {
        state_dir: folder.path().join("state"),
        run_dir: folder.path().join("run"),
    })?;
    let lock = dirs.lock()?;
    let bpffs = dirs.bpffs(&lock)?.path;
    let measured = Budget::measure(&bpffs.join("budget"));
    let unmounted = dirs.unmount_if_empty(&lock);
    let budget = measured?;
    unmounted.with_context(|| format!("{} stays mounted", bpffs.display()))?;
    Ok(budget)
}

fn lines(budget: &Budget) -> Vec<Line> {
    let line = |of: &str, what, is, limit| Line {
        of: of.to_owned(),
        what,
        is,
        limit,
    };
    let mut lines = Vec::new();
    for program in &budget.programs {
        let ProgramCost { name, .. } = program;
        lines.extend([
            line(
                name,
                "verified_instructions",
                u64::from(program.verified_instructions),
                VERIFIED_INSTRUCTIONS,
            ),
            line(
                name,
                "stack_bytes",
                u64::from(program.stack_bytes()),
                STACK_BYTES,
            ),
            line(
                name,
                "machine_bytes",
                u64::from(program.machine_bytes),
                MACHINE_BYTES,
            ),
        ]);
    }
    for map in &budget.maps {
        lines.push(line(&map.name, "map_bytes", map.bytes, MAP_BYTES));
    }
    lines.push(line("all maps", "map_bytes", total(budget), MAPS_BYTES));
    lines
}

fn total(budget: &Budget) -> u64 {
    budget.maps.iter().map(|map| map.bytes).sum()
}

/// The chain of frames, as `64+128`.
fn chain(program: &ProgramCost) -> String {
    let frames: Vec<String> = program.stack.iter().map(u32::to_string).collect();
    frames.join("+")
}

fn print(budget: &Budget, lines: &[Line]) {
    println!(
        "{:<16} {:>9} {:>11} {:>8} {:>6}  FRAMES",
        "PROGRAM", "VERIFIED", "TRANSLATED", "MACHINE", "STACK"
    );
    for program in &budget.programs {
        println!(
            "{:<16} {:>9} {:>9} B {:>6} B {:>4} B  {}",
            program.name,
            program.verified_instructions,
            program.translated_bytes,
            program.machine_bytes,
            program.stack_bytes(),
            chain(program)
        );
    }
    println!(
        "{:<16} {:>9} {:>11} {:>6} B {:>4} B",
        "at most", VERIFIED_INSTRUCTIONS, "", MACHINE_BYTES, STACK_BYTES
    );
    println!("\n{:<16} {:>13}", "MAP", "MEMORY");
    for map in &budget.maps {
        println!("{:<16} {:>11} B", map.name, map.bytes);
    }
    println!("{:<16} {:>11} B", "all", total(budget));
    println!(
        "{:<16} {:>11} B each, {MAPS_BYTES} B all",
        "at most", MAP_BYTES
    );
    for line in lines.iter().filter(|line| line.exceeds()) {
        println!(
            "too much: {} of {} is {}, beyond {}",
            line.what, line.of, line.is, line.limit
        );
    }
}

fn to_json(budget: &Budget, lines: &[Line]) -> Value {
    let programs = budget.programs.iter().map(|program| {
        json!({
            "name": program.name,
            "verified_instructions": program.verified_instructions,
            "translated_bytes": program.translated_bytes,
            "machine_bytes": program.machine_bytes,
            "stack_bytes": program.stack_bytes(),
            "frames": program.stack,
        })
    });
    let maps = budget
        .maps
        .iter()
        .map(|map| json!({"name": map.name, "bytes": map.bytes}));
    let exceeded = lines
        .iter()
        .filter(|line| line.exceeds())
        .map(|line| json!({"of": line.of, "what": line.what, "is": line.is, "limit": line.limit}));
    json!({
        "programs": programs.collect::<Vec<_>>(),
        "maps": maps.collect::<Vec<_>>(),
        "map_bytes": total(budget),
        "limits": {
            "verified_instructions": VERIFIED_INSTRUCTIONS,
            "stack_bytes": STACK_BYTES,
            "machine_bytes": MACHINE_BYTES,
            "map_bytes": MAP_BYTES,
            "all_maps_bytes": MAPS_BYTES,
        },
        "exceeded": exceeded.collect::<Vec<_>>(),
    })
}
