//! Whether this process may do what enforcing takes, asked once and early.
//!
//! The kernel has the last word; this is for one sentence instead of a failure half-way.

use std::fs;

/// Bits of the capability sets, from `linux/capability.h`.
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// The capabilities that loading and attaching the programs takes. The verifier allows loops and
/// arithmetic on pointers, which are in all of them, to those alone that have CAP_PERFMON
/// (capabilities(7)).
pub const NEEDED: &str = "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";

/// Why this process cannot change what is enforced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unprivileged {
    /// Capabilities are missing.
    #[error(
        "this needs root, or {NEEDED}; {} missing: run it with sudo",
        match .0.as_slice() {
            [one] => format!("{one} is"),
            several => format!("{} are", several.join(" and ")),
        }
    )]
    Missing(Vec<&'static str>),
    /// The capabilities count only for a user namespace.
    #[error(
        "this process is root only in a user namespace, where BPF is out of reach: run it as root \
         of the machine"
    )]
    UserNamespace,
}

/// Says whether this process may load and attach BPF programs.
///
/// CAP_SYS_ADMIN stands in for CAP_BPF and CAP_PERFMON, as it does in the kernel, and is needed besides only where
/// the bpf filesystem is not mounted yet or another network namespace is entered; those say so
/// themselves.
pub fn check() -> Result<(), Unprivileged> {
    // Without /proc there is nothing to judge by, and the kernel will answer for itself.
    let Some(effective) = effective_capabilities() else {
        return Ok(());
    };
    judge(
        effective,
        fs::read_to_string("/proc/self/uid_map").ok().as_deref(),
    )
}

fn judge(effective: u64, uid_map: Option<&str>) -> Result<(), Unprivileged> {
    let has = |capability: u32| effective & (1 << capability) != 0;
    let missing: Vec<_> = [
        ("CAP_BPF", has(BPF) || has(SYS_ADMIN)),
        ("CAP_NET_ADMIN", has(NET_ADMIN)),
        ("CAP_PERFMON", has(PERFMON) || has(SYS_ADMIN)),
    ]
    .into_iter()
    .filter_map(|(name, is_there)| (!is_there).then_some(name))
    .collect();
    match missing.is_empty() {
        false => Err(Unprivileged::Missing(missing)),
        true if uid_map.is_some_and(|map| !maps_everyone_to_themselves(map)) => {
            Err(Unprivileged::UserNamespace)
        }
        true => Ok(()),
    }
}

fn maps_everyone_to_themselves(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn effective_capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Option<&str> = Some("         0          0 4294967295\n");

    #[test]
    fn root_and_the_three_capabilities_suffice() {
        assert_eq!(judge(u64::MAX, MACHINE), Ok(()));
        let three = 1 << BPF | 1 << NET_ADMIN | 1 << PERFMON;
        assert_eq!(judge(three, MACHINE), Ok(()));
        assert_eq!(judge(1 << SYS_ADMIN | 1 << NET_ADMIN, None), Ok(()));
    }

    #[test]
    fn what_is_missing_is_named() {
        let sentence = |effective| judge(effective, MACHINE).unwrap_err().to_string();
        assert_eq!(
            sentence(1 << BPF | 1 << NET_ADMIN),
            "this needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; CAP_PERFMON is missing: run \
             it with sudo"
        );
        assert!(sentence(1 << SYS_ADMIN).contains("; CAP_NET_ADMIN is missing"));
        assert!(sentence(0).contains("; CAP_BPF and CAP_NET_ADMIN and CAP_PERFMON are missing"));
    }

    #[test]
    fn root_of_a_user_namespace_is_told_so() {
        assert_eq!(
            judge(u64::MAX, Some("0 1000 1\n")),
            Err(Unprivileged::UserNamespace)
        );
    }
}
