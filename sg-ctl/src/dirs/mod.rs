//! The two folders of one instance: what must outlive a reboot, and what must not.
//!
//! Everything an instance leaves on a machine is under these two, so several instances live side
//! by side and a test needs nothing but two temporary folders. What the files mean is for the
//! store and the dataplane to know.

mod bpffs;
mod lock;
mod private;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use bpffs::{BpfFs, Place};
pub use lock::{DaemonLock, Lock};
pub use private::{create_file, open_file};

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
    /// Someone else could put another folder in its place.
    #[error(
        "{} lies in {1}, which belongs to user {owner} with mode {mode:04o}, so others could put \
         another folder in its place; `chown root {1}` and `chmod go-w {1}`, or choose another \
         with {option}", path.display(), parent.display()
    )]
    UnsafeParent {
        /// The path.
        path: PathBuf,
        /// The folder above it.
        parent: PathBuf,
        /// The numeric id of its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// The option that names the path.
        option: &'static str,
    },
    /// A link on the way to it is someone else's, or leads in a circle.
    #[error(
        "the way to {} goes through the link {1}, which belongs to user {owner} or leads back to \
         itself; remove the link, or choose another folder with {option}", path.display(),
        link.display()
    )]
    UnsafeLink {
        /// The path.
        path: PathBuf,
        /// The link.
        link: PathBuf,
        /// The numeric id of its owner.
        owner: u32,
        /// The option that names the path.
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
            state: private::folder(&options.state_dir, "--state-dir")?,
            run: private::folder(&options.run_dir, "--run-dir")?,
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

    /// Marks the run folder as a daemon's; none where it is another daemon's.
    pub fn lock_for_daemon(&self) -> io::Result<Option<DaemonLock>> {
        DaemonLock::take(&self.run.join(lock::DAEMON), &self.state)
    }

    /// The process of the daemon that works in the run folder, as far as can be known.
    pub fn daemon_pid(&self) -> Option<u32> {
        lock::daemon(&self.run.join(lock::DAEMON))?.0
    }

    /// Whether a daemon works with both folders.
    pub fn has_daemon(&self) -> bool {
        let daemon = lock::daemon(&self.run.join(lock::DAEMON));
        daemon.is_some_and(|(_, state)| state == self.state)
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

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
