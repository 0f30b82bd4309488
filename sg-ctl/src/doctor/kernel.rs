//! What the kernel can do.

use std::fs;
use std::path::Path;

use super::Check;
use crate::dataplane::{TcHook, probe};
use crate::privileges;

/// The first version with TCX links.
const OLDEST: (u32, u32) = (6, 6);

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![privileges(), version(), btf()];
    checks.extend([
        programs(),
        tc_hook(),
        grace(),
        jit(),
        unprivileged(),
        lockdown(),
    ]);
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

fn version() -> Check {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    match parse_version(&release) {
        Some(version) if version >= OLDEST => Check::ok("kernel", format!("Linux {release}")),
        _ => Check::problem(
            "kernel",
            format!("Linux {release}"),
            format!("boot Linux {}.{} or later", OLDEST.0, OLDEST.1),
        ),
    }
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
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

fn programs() -> Check {
    match probe::load() {
        Ok(ticks) => Check::ok(
            "programs",
            format!("the kernel takes them; its clock has {ticks} ticks a second"),
        ),
        Err(error) => Check::problem(
            "programs",
            error.to_string(),
            "run sg-ctl as root, on a kernel with CONFIG_BPF_SYSCALL and outside of a container \
             that keeps bpf(2) away",
        ),
    }
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
            "the kernel tells when nobody reads any more",
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

fn jit() -> Check {
    match read("/proc/sys/net/core/bpf_jit_enable").as_deref() {
        Some("0") => Check::warning(
            "JIT",
            "programs are interpreted, which is slow",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Some(_) => Check::ok("JIT", "programs run as machine code"),
        None => Check::ok("JIT", "always on, or not visible from here"),
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
    fn versions_are_read_whatever_follows_them() {
        assert_eq!(parse_version("6.6.0-rc1"), Some((6, 6)));
        assert_eq!(parse_version("6.18-amd64"), Some((6, 18)));
        assert_eq!(parse_version("x"), None);
    }

    #[test]
    fn the_chosen_mode_is_the_one_in_brackets() {
        assert_eq!(
            chosen("none [integrity] confidentiality"),
            Some("integrity")
        );
        assert_eq!(chosen("none"), None);
    }
}
