//! What the kernel can do.

use std::fs;
use std::path::Path;

use super::Check;
use crate::dataplane::{self, TcHook, probe};
use crate::interfaces::Netns;
use crate::privileges;

pub(super) fn checks(run: &Path) -> Vec<Check> {
    let jit = Jit::read();
    let mut checks = vec![privileges(), version(), btf()];
    checks.extend(programs(run, jit));
    checks.extend([tc_hook(), grace(), jit.check(), unprivileged(), lockdown()]);
    checks
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

fn privileges() -> Check {
    match privileges::check() {
        Ok(()) => Check::ok("privileges", "may load programs and change interfaces"),
        Err(error) => Check::problem("privileges", error.to_string(), "run sg-ctl as root"),
    }
}

/// The version is told and not judged: what the kernel can do is asked.
fn version() -> Check {
    let release = read("/proc/sys/kernel/osrelease");
    Check::ok(
        "kernel",
        format!(
            "Linux {}",
            release
                .as_deref()
                .unwrap_or("of a version that is not visible from here")
        ),
    )
}

fn btf() -> Check {
    match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => Check::ok("BTF", "the kernel describes its types"),
        false => Check::warning(
            "BTF",
            "the kernel does not describe its types",
            "use a kernel built with CONFIG_DEBUG_INFO_BTF, should programs not load",
        ),
    }
}

/// Loads all of them, as nothing but the kernel knows what it takes.
fn programs(run: &Path, jit: Jit) -> Vec<Check> {
    let accepted = match probe::programs() {
        Ok(accepted) => accepted,
        Err(error) => return vec![refused(&error, run, jit)],
    };
    let refusals = accepted.refused.iter();
    let mut checks: Vec<Check> = refusals.map(|error| refused(error, run, jit)).collect();
    if checks.is_empty() {
        let ticks = accepted.ticks;
        checks.push(Check::ok(
            "programs",
            format!("the kernel takes all of them; its clock has {ticks} ticks a second"),
        ));
    }
    checks
}

fn refused(error: &dataplane::Error, run: &Path, jit: Jit) -> Check {
    let log = match run.is_dir() {
        true => error.keep_verifier_log(run),
        // Looking makes no folder.
        false => None,
    };
    let next = match (error, error.verifier_log().is_some()) {
        (dataplane::Error::Lacks { .. }, _) => "boot a kernel that has it",
        // Without it each frame counts as more stack, and some helpers are missing.
        _ if jit == Jit::Off => "turn the JIT on: `sysctl net.core.bpf_jit_enable=1`",
        (_, true) => "report it to sg's developers with that log and the kernel's version",
        (_, false) if privileges::check().is_err() => "run sg-ctl as root",
        (_, false) => "find out what keeps this process from bpf(2)",
    };
    let found = match log {
        Some(log) => format!("{error}\n{log}"),
        None => error.to_string(),
    };
    Check::problem("programs", found, next)
}

fn tc_hook() -> Check {
    match probe::tc_hook() {
        Ok(TcHook::Tcx) => Check::ok("TC", "programs are attached by TCX links"),
        Ok(TcHook::Clsact) => Check::ok(
            "TC",
            "this kernel has no TCX links, so programs are attached by filters of clsact",
        ),
        Err(error) => Check::problem("TC", error.to_string(), "run sg-ctl as root"),
    }
}

fn grace() -> Check {
    let isolated = read("/sys/devices/system/cpu/nohz_full");
    let isolated = isolated.filter(|cpus| !cpus.is_empty() && cpus != "(null)");
    match (probe::can_wait_for_readers(), isolated) {
        (true, _) => Check::ok(
            "grace periods",
            "the kernel tells when the old tables are no longer in use",
        ),
        (false, Some(cpus)) => Check::problem(
            "grace periods",
            format!("membarrier(2) is refused, because the CPUs {cpus} run without ticks"),
            "boot without nohz_full",
        ),
        (false, None) => Check::problem(
            "grace periods",
            "membarrier(2) is refused",
            "use a kernel built with CONFIG_MEMBARRIER",
        ),
    }
}

/// Whether the kernel turns programs into machine code.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Jit {
    On,
    Off,
    /// It has no other way, or does not tell.
    Unknown,
}

impl Jit {
    /// The setting is shown in the machine's own namespace alone.
    fn read() -> Self {
        const SETTING: &str = "/proc/sys/net/core/bpf_jit_enable";
        let machine = Netns::resolve(Some("/proc/1/ns/net"));
        let there = machine.and_then(|netns| netns.enter(|| read(SETTING)));
        let setting = there.ok().flatten().or_else(|| read(SETTING));
        match setting.as_deref() {
            Some("0") => Self::Off,
            Some(_) => Self::On,
            None => Self::Unknown,
        }
    }

    fn check(self) -> Check {
        match self {
            Self::Off => Check::warning(
                "JIT",
                "programs are interpreted, which is slow, and the kernel may not take them",
                "sysctl net.core.bpf_jit_enable=1",
            ),
            Self::On => Check::ok("JIT", "programs run as machine code"),
            Self::Unknown => Check::ok("JIT", "always on, or not visible from here"),
        }
    }
}

fn unprivileged() -> Check {
    match read("/proc/sys/kernel/unprivileged_bpf_disabled").as_deref() {
        Some("0") => Check::warning(
            "unprivileged BPF",
            "every user may load programs",
            "sysctl kernel.unprivileged_bpf_disabled=1",
        ),
        _ => Check::ok("unprivileged BPF", "only privileged users load programs"),
    }
}

fn lockdown() -> Check {
    let modes = read("/sys/kernel/security/lockdown");
    let mode = modes.as_deref().and_then(chosen).unwrap_or("none");
    Check::ok("lockdown", format!("{mode}; sg reads no kernel memory"))
}

/// The word in brackets.
fn chosen(modes: &str) -> Option<&str> {
    Some(modes.split_once('[')?.1.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_mode_is_the_one_in_brackets() {
        assert_eq!(
            chosen("none [integrity] confidentiality"),
            Some("integrity")
        );
        assert_eq!(chosen("none"), None);
    }
}
