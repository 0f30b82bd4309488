//! Why the kernel takes no program: what it has said, told apart, and nothing guessed.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aya::programs::ProgramError;
use nix::errno::Errno;

use crate::privileges;

/// `ENOTSUPP` of <https://github.com/torvalds/linux/blob/v6.18/include/linux/errno.h>, which the
/// kernel keeps to itself but for BPF.
const ENOTSUPP: i32 = 524;

/// Lines of the verifier's log that an error shows: what it was at, and what it found there.
const SHOWN_LINES: usize = 6;

/// A number of the kernel's with its name.
pub(super) fn errno(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(ENOTSUPP) => "ENOTSUPP: this kernel does not support it".to_owned(),
        Some(number) if Errno::from_raw(number) != Errno::UnknownErrno => {
            Errno::from_raw(number).to_string()
        }
        _ => error.to_string(),
    }
}

/// What the kernel has said to a program.
pub(super) fn said(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, .. } => match verifier_log(error) {
            Some(log) => format!(
                "its verifier refuses it ({}):{}",
                errno(io_error),
                last_lines(&log)
            ),
            None => format!("{}{}", errno(io_error), standing(io_error)),
        },
        ProgramError::SyscallError(error) => {
            format!("{}{}", errno(&error.io_error), standing(&error.io_error))
        }
        other => with_causes(other),
    }
}

/// The whole log of the verifier, where it came to look at the program.
pub(super) fn verifier_log(error: &ProgramError) -> Option<String> {
    match error {
        ProgramError::LoadError { verifier_log, .. } => {
            Some(verifier_log.to_string()).filter(|log| !log.trim().is_empty())
        }
        _ => None,
    }
}

/// Writes a verifier's log into a folder, for its owner alone.
pub(crate) fn write_log(folder: &Path, program: &str, log: &str) -> io::Result<PathBuf> {
    let path = folder.join(format!("verifier-{program}.log"));
    // What somebody has put there is not followed.
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(log.as_bytes())?;
    Ok(path)
}

/// The lines that say what was found, and not what it took to find it.
fn last_lines(log: &str) -> String {
    let is_statistic = |line: &&str| {
        let statistics = [
            "processed ",
            "verification time ",
            "stack depth ",
            // Linux 7.3 has one of each function.
            "subprog ",
        ];
        statistics.iter().any(|start| line.starts_with(start))
    };
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && !is_statistic(line))
        .collect();
    let first = lines.len().saturating_sub(SHOWN_LINES);
    lines
        .iter()
        .skip(first)
        .fold(String::new(), |mut shown, line| {
            let _ = write!(shown, "\n    {line}");
            shown
        })
}

/// Whether a refusal for want of privilege is one: the kernel does not say which it misses, and
/// security modules refuse in the same words.
fn standing(error: &io::Error) -> String {
    let number = error.raw_os_error();
    if number != Some(libc::EPERM) && number != Some(libc::EACCES) {
        return String::new();
    }
    match privileges::check() {
        Ok(()) => format!(", although this process has {}", privileges::NEEDED),
        Err(missing) => format!("; {missing}"),
    }
}

/// An error with what it comes from, each once.
pub(super) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = match error.downcast_ref::<io::Error>() {
            Some(error) => errno(error),
            None => error.to_string(),
        };
        if !text.contains(&said) {
            let _ = write!(text, ": {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use aya::maps::MapError;
    use aya_obj::VerifierLog;

    use super::*;

    fn refused(number: i32, log: &str) -> String {
        said(&ProgramError::LoadError {
            io_error: io::Error::from_raw_os_error(number),
            verifier_log: VerifierLog::new(log.to_owned()),
        })
    }

    #[test]
    fn a_verifiers_refusal_is_told_in_its_own_words_and_not_as_one_of_privilege() {
        let log = "0: (bf) r6 = r1\n\n1: (71) r0 = *(u8 *)(r1 +0)\ninvalid access to packet, off=0 \
                   size=1, R1(id=0,off=0,r=0)\nR1 offset is outside of the packet\nprocessed 2 insns \
                   (limit 1000000) max_states_per_insn 0\nverification time 12 usec\n\
                   subprog 0 (sg_pass) main insns_self 2 insns_total 2 stack 0\n";
        assert_eq!(
            refused(libc::EACCES, log),
            "its verifier refuses it (EACCES: Permission denied):\n    0: (bf) r6 = r1\n    1: (71) \
             r0 = *(u8 *)(r1 +0)\n    invalid access to packet, off=0 size=1, R1(id=0,off=0,r=0)\n    \
             R1 offset is outside of the packet"
        );
        // A verifier has several numbers for its refusals.
        assert!(refused(libc::E2BIG, "BPF program is too large.").contains("verifier refuses"));
        assert_eq!(
            refused(libc::E2BIG, &"x\n".repeat(50)).lines().count(),
            1 + SHOWN_LINES
        );
    }

    #[test]
    fn each_number_of_the_kernels_has_its_name() {
        assert_eq!(refused(libc::EINVAL, ""), "EINVAL: Invalid argument");
        assert_eq!(refused(libc::E2BIG, "\n"), "E2BIG: Argument list too long");
        assert_eq!(refused(libc::ENOSPC, ""), "ENOSPC: No space left on device");
        assert_eq!(
            refused(ENOTSUPP, ""),
            "ENOTSUPP: this kernel does not support it"
        );
        // Which of the two follows hangs on who runs this test.
        let denied = refused(libc::EPERM, "");
        assert!(
            denied.starts_with("EPERM: Operation not permitted"),
            "{denied}"
        );
        assert!(denied.contains("CAP_PERFMON"), "{denied}");
    }

    #[test]
    fn a_log_is_for_its_owner_alone_and_written_through_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let path = write_log(folder.path(), "sg_pass", "why").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "why");
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_log(folder.path(), "sg_pass", "and").unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), mode(&path)),
            ("and", 0o600)
        );
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("other"), &path).unwrap();
        assert!(write_log(folder.path(), "sg_pass", "why").is_err());
    }

    #[test]
    fn an_error_is_told_with_what_it_comes_from() {
        let error = MapError::CreateError {
            name: "FLOWS".to_owned(),
            io_error: io::Error::from_raw_os_error(libc::ENOMEM),
        };
        assert_eq!(
            with_causes(&error),
            "failed to create map `FLOWS`: ENOMEM: Out of memory"
        );
    }
}
