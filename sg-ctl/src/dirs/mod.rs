//! The two folders of one instance: what must outlive a reboot, and what must not.
//!
//! Everything an instance leaves on a machine is under these two, so several instances live side
//! by side and a test needs nothing but two temporary folders. What the files mean is for the
//! store and the dataplane to know.

mod bpffs;
mod lock;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use bpffs::{BpfFs, Place};
pub use lock::Lock;

/// Where the folders are asked to be.
#[derive(Clone, Debug, clap::Args)]
pub struct DirOptions {
    /// Folder of what outlives a reboot
    #[arg(
        long,
        global = true,
        env = "SG_STATE_DIR",
        value_name = "DIR",
        default_value = "/var/lib/sg"
    )]
    pub state_dir: PathBuf,
    /// Folder of pins and locks
    #[arg(
        long,
        global = true,
        env = "SG_RUN_DIR",
        value_name = "DIR",
        default_value = "/run/sg"
    )]
    pub run_dir: PathBuf,
}

/// Two folders that exist and that nobody else can write to; both paths are absolute and free of
/// symbolic links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    state: PathBuf,
    run: PathBuf,
}

/// Why the folders cannot be worked in.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// There is something else in its place.
    #[error("{} is not a folder; move it away or choose another with {option}", path.display())]
    NotFolder {
        /// The path.
        path: PathBuf,
        /// The option that names it.
        option: &'static str,
    },
    /// Someone else could put files there that this program would trust.
    #[error(
        "{} belongs to user {owner} with mode {mode:04o}, so others could change what is enforced; \
         `chown root {0}` and `chmod 0700 {0}`, or choose another with {option}",
        path.display()
    )]
    WritableByOthers {
        /// The path.
        path: PathBuf,
        /// The numeric id of its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// The option that names it.
        option: &'static str,
    },
    /// Another command is at work and did not end in time.
    #[error(
        "another sg-ctl{} is changing this machine ({} is locked) and did not finish within \
         {} s; try again when it has",
        holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), path.display(),
        waited.as_secs()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as far as can be known.
        holder: Option<u32>,
        /// How long the wait was.
        waited: Duration,
    },
    /// The bpf filesystem could not be mounted.
    #[error(
        "cannot mount a bpf filesystem on {}: {source}; mounting needs root or CAP_SYS_ADMIN, and \
         a kernel with CONFIG_BPF_SYSCALL", path.display()
    )]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    System {
        /// What was attempted.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DirError {
    fn system(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::System {
            doing,
            path,
            source,
        }
    }
}

impl Dirs {
    /// Makes the folders that are missing, for their owner only, and refuses those that others may
    /// write to.
    pub fn create(options: &DirOptions) -> Result<Self, DirError> {
        Ok(Self {
            state: private_folder(&options.state_dir, "--state-dir")?,
            run: private_folder(&options.run_dir, "--run-dir")?,
        })
    }

    /// What must outlive a reboot.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Pins and locks.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Waits, for a while, until no other command is changing anything.
    pub fn lock(&self) -> Result<Lock, DirError> {
        Lock::take(self.run.join("lock"), lock::PATIENCE)
    }

    /// The bpf filesystem for pins, if one is mounted.
    pub fn find_bpffs(&self) -> Result<Option<BpfFs>, DirError> {
        bpffs::find(&self.run.join(bpffs::NAME))
    }

    /// The bpf filesystem for pins, mounted where it outlives this command.
    pub fn bpffs(&self, _lock: &Lock) -> Result<BpfFs, DirError> {
        bpffs::find_or_mount(&self.run.join(bpffs::NAME))
    }

    /// Takes the bpf filesystem away if nothing is pinned in it, and says whether it is gone.
    pub fn unmount_if_empty(&self, _lock: &Lock) -> Result<bool, DirError> {
        bpffs::unmount_if_empty(&self.run.join(bpffs::NAME))
    }
}

fn private_folder(path: &Path, option: &'static str) -> Result<PathBuf, DirError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => DirError::NotFolder {
                path: path.to_owned(),
                option,
            },
            _ => DirError::System {
                doing: "create the folder",
                path: path.to_owned(),
                source,
            },
        })?;
    let path = fs::canonicalize(path).map_err(DirError::system("resolve", path))?;
    let found = fs::metadata(&path).map_err(DirError::system("look at", &path))?;
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    let is_ours = owner == 0 || owner == nix::unistd::geteuid().as_raw();
    if !is_ours || mode & 0o022 != 0 {
        return Err(DirError::WritableByOthers {
            path,
            owner,
            mode,
            option,
        });
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn options(root: &Path) -> DirOptions {
        DirOptions {
            state_dir: root.join("deep/state"),
            run_dir: root.join("run"),
        }
    }

    #[test]
    fn new_folders_are_for_their_owner_only() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::create(&options(root.path())).unwrap();
        for path in [dirs.state(), dirs.run()] {
            assert_eq!(
                fs::metadata(path).unwrap().mode() & 0o7777,
                0o700,
                "{}",
                path.display()
            );
        }
        assert_eq!(Dirs::create(&options(root.path())).unwrap(), dirs);
    }

    #[test]
    fn a_folder_others_may_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let options = options(root.path());
        fs::create_dir(&options.run_dir).unwrap();
        fs::set_permissions(&options.run_dir, fs::Permissions::from_mode(0o777)).unwrap();
        let error = Dirs::create(&options).unwrap_err().to_string();
        assert!(error.contains("with mode 0777"), "{error}");
        assert!(error.contains("--run-dir"), "{error}");
    }

    #[test]
    fn a_file_in_the_folders_place_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let options = options(root.path());
        fs::write(&options.run_dir, "").unwrap();
        let error = Dirs::create(&options).unwrap_err().to_string();
        assert!(error.contains("is not a folder"), "{error}");
    }

    #[test]
    fn a_symbolic_link_is_resolved() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        let options = options(&root);
        fs::create_dir(root.join("elsewhere")).unwrap();
        symlink(root.join("elsewhere"), &options.run_dir).unwrap();
        assert_eq!(
            Dirs::create(&options).unwrap().run(),
            root.join("elsewhere")
        );
    }
}
