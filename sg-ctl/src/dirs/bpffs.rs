//! The bpf filesystem that holds the pins, mounted where it outlives the command.
//!
//! A pin lasts as long as its filesystem, and a filesystem as long as some mount namespace shows
//! it. `ip netns exec`, service managers and containers run commands in a mount namespace of their
//! own, which goes with the command: pins made there would go too, and enforcement with them. So
//! the filesystem belongs into the *machine's* mount namespace: that of pid 1 or, where pid 1 may
//! not be looked at, that of the oldest ancestor which may.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::iter;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::panic;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;

use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::DirError;

pub(super) const NAME: &str = "bpf";

/// What a kernel with CONFIG_BPF_PRELOAD (since 5.10) puts into each bpf filesystem by itself:
/// `populate_bpffs` of <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/inode.c>.
const PRELOADED: [&str; 2] = ["maps.debug", "progs.debug"];

/// A mounted bpf filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpfFs {
    /// The way to it from this process; not always the path it is mounted on.
    pub path: PathBuf,
    /// Where it is mounted.
    pub place: Place,
}

/// Whose mount namespace holds the filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The machine's: pins last until they are removed.
    Machine,
    /// Only this process's own: pins go when the last process in that namespace ends.
    Private,
}

/// The filesystem as it can be seen from here, the machine's before our own: a mount namespace that
/// is older than the last unmount may still show a filesystem that nobody else has.
pub(super) fn find(path: &Path) -> Result<Option<BpfFs>, DirError> {
    let machine = Machine::find(path);
    if let Some(found) = machine.as_ref().and_then(|machine| machine.bpffs(path)) {
        return Ok(Some(found));
    }
    // Where the machine has none, pins are what tells one in use from one left over.
    let is_used = is_bpffs(path) && (machine.is_none() || !is_empty(path)?);
    Ok(is_used.then(|| BpfFs {
        path: path.to_owned(),
        place: Place::Private,
    }))
}

pub(super) fn find_or_mount(path: &Path) -> Result<BpfFs, DirError> {
    if let Some(found) = find(path)? {
        return Ok(found);
    }
    make_mount_point(path)?;
    if let Some(machine) = Machine::find(path)
        && machine.within(|| mount_bpffs(path)).is_ok()
        && let Some(found) = machine.bpffs(path)
    {
        return Ok(found);
    }
    mount_bpffs(path).map_err(|source| DirError::Mount {
        path: path.to_owned(),
        source,
    })?;
    Ok(BpfFs {
        path: path.to_owned(),
        place: Place::Private,
    })
}

pub(super) fn unmount_if_empty(path: &Path) -> Result<bool, DirError> {
    let found = find(path)?;
    if let Some(found) = &found
        && !is_empty(&found.path)?
    {
        return Ok(false);
    }
    let is_mounted = found.is_some();
    let remove = || match if is_mounted { umount(path) } else { Ok(()) } {
        Ok(()) => remove_mount_point(path),
        // Someone stands in it; the next command may find it free.
        Err(nix::Error::EBUSY) => Ok(false),
        Err(errno) => Err(errno.into()),
    };
    match Machine::find(path) {
        Some(machine) if found.is_none_or(|found| found.place == Place::Machine) => {
            machine.within(remove)
        }
        _ => remove(),
    }
    .map_err(DirError::system("unmount", path))
}

/// The machine's mount namespace, seen through a process that lives in it.
struct Machine {
    proc: PathBuf,
    is_ours: bool,
}

impl Machine {
    /// `None` when no process outside can be looked at, or when the run folder is not the same
    /// folder there.
    fn find(path: &Path) -> Option<Self> {
        let ours = identity(Path::new("/proc/thread-self/ns/mnt")).ok()?;
        let proc = eldest()?;
        let theirs = identity(&proc.join("ns/mnt")).ok()?;
        let machine = Self {
            proc,
            is_ours: ours == theirs,
        };
        let run = path.parent()?;
        let is_same = identity(&machine.seen(run)).ok()? == identity(run).ok()?;
        is_same.then_some(machine)
    }

    /// The path by which this process reaches what the machine has at `path`.
    fn seen(&self, path: &Path) -> PathBuf {
        match (self.is_ours, path.strip_prefix("/")) {
            (false, Ok(relative)) => self.proc.join("root").join(relative),
            _ => path.to_owned(),
        }
    }

    fn bpffs(&self, path: &Path) -> Option<BpfFs> {
        let seen = self.seen(path);
        if !is_bpffs(&seen) {
            return None;
        }
        // The plain path is the better one wherever it leads to the same filesystem.
        let is_here = identity(path).ok() == identity(&seen).ok();
        let path = if is_here { path.to_owned() } else { seen };
        Some(BpfFs {
            path,
            place: Place::Machine,
        })
    }

    /// Does `work` in the machine's mount namespace, on a thread of its own.
    fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        if self.is_ours {
            return work();
        }
        let namespace = File::open(self.proc.join("ns/mnt"))?;
        thread::scope(|scope| {
            let worker = thread::Builder::new().spawn_scoped(scope, || {
                // The kernel moves only threads that share their root and working folder with none.
                unshare(CloneFlags::CLONE_FS)?;
                setns(&namespace, CloneFlags::CLONE_NEWNS)?;
                work()
            })?;
            worker
                .join()
                .unwrap_or_else(|payload| panic::resume_unwind(payload))
        })
    }
}

/// The `/proc` folder of pid 1, else of the oldest ancestor whose namespaces may be looked at.
fn eldest() -> Option<PathBuf> {
    let may_look = |proc: &PathBuf| fs::metadata(proc.join("ns/mnt")).is_ok();
    let own = process::id();
    let first = if own == 1 { Some(own) } else { parent_of(own) };
    iter::successors(first, |pid| parent_of(*pid))
        .take_while(|pid| *pid > 0)
        .map(|pid| PathBuf::from(format!("/proc/{pid}")))
        .filter(may_look)
        .last()
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()
}

/// Device and inode: equal for two paths to one file.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// Says whether nobody has pinned anything.
fn is_empty(path: &Path) -> Result<bool, DirError> {
    for entry in fs::read_dir(path).map_err(DirError::system("list", path))? {
        let name = entry.map_err(DirError::system("list", path))?.file_name();
        if !PRELOADED.iter().any(|preloaded| name == *preloaded) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn make_mount_point(path: &Path) -> Result<(), DirError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(DirError::System {
            doing: "create the folder",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn mount_bpffs(path: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(
        Some("bpf"),
        path,
        Some("bpf"),
        flags,
        Some("mode=0700"),
    )?)
}

/// Removing the folder also takes it from any older mount namespace that still shows it mounted.
fn remove_mount_point(path: &Path) -> io::Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(source) => match source.kind() {
            io::ErrorKind::NotFound => Ok(true),
            io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty => Ok(false),
            _ => Err(source),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;

    use tempfile::TempDir;

    use super::super::{DirOptions, Dirs};
    use super::*;
    use crate::scratch::{Namespace, is_root};

    /// Two folders that leave no mount behind, however the test ends.
    struct Instance {
        root: TempDir,
        dirs: Dirs,
    }

    impl Instance {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let dirs = Dirs::create(&options(root.path())).unwrap();
            Self { root, dirs }
        }

        fn mount(&self) -> BpfFs {
            self.dirs.bpffs(&self.dirs.lock().unwrap()).unwrap()
        }

        fn unmount_if_empty(&self) -> bool {
            self.dirs
                .unmount_if_empty(&self.dirs.lock().unwrap())
                .unwrap()
        }
    }

    impl Drop for Instance {
        fn drop(&mut self) {
            let _ = umount(&self.dirs.run().join(NAME));
        }
    }

    fn options(root: &Path) -> DirOptions {
        DirOptions {
            state_dir: root.join("state"),
            run_dir: root.join("run"),
        }
    }

    /// As `ip netns exec` does: what is mounted outside arrives, what is mounted inside stays.
    fn in_private_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNS).unwrap();
                    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
                    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).unwrap();
                    work()
                })
                .join()
                .unwrap()
        })
    }

    #[test]
    fn it_is_mounted_once_and_found_again() {
        if !is_root("that the bpf filesystem is mounted") {
            return;
        }
        let instance = Instance::new();
        assert_eq!(instance.dirs.find_bpffs().unwrap(), None);
        let first = instance.mount();
        assert_eq!(
            first,
            BpfFs {
                path: instance.dirs.run().join(NAME),
                place: Place::Machine
            }
        );
        fs::create_dir(first.path.join("pins")).unwrap();
        assert_eq!(instance.mount(), first);
        assert!(
            first.path.join("pins").is_dir(),
            "a second filesystem hides the first"
        );
    }

    #[test]
    fn it_goes_only_when_nothing_is_pinned() {
        if !is_root("that the bpf filesystem is unmounted") {
            return;
        }
        let instance = Instance::new();
        let mounted = instance.mount();
        fs::create_dir(mounted.path.join("pins")).unwrap();
        assert!(!instance.unmount_if_empty());
        fs::remove_dir(mounted.path.join("pins")).unwrap();
        assert!(instance.unmount_if_empty());
        assert!(!mounted.path.exists());
        assert!(instance.unmount_if_empty(), "gone is gone");
    }

    #[test]
    fn what_is_made_in_a_private_mount_namespace_outlives_it() {
        if !is_root("that pins outlive a private mount namespace") {
            return;
        }
        let instance = Instance::new();
        in_private_namespace(|| {
            let mounted = instance.mount();
            assert_eq!(mounted.place, Place::Machine);
            fs::create_dir(mounted.path.join("pins")).unwrap();
        });
        let found = instance
            .dirs
            .find_bpffs()
            .unwrap()
            .expect("mounted outside");
        assert!(found.path.join("pins").is_dir());
        fs::remove_dir(found.path.join("pins")).unwrap();
        in_private_namespace(|| assert!(instance.unmount_if_empty()));
        assert!(!is_bpffs(&instance.dirs.run().join(NAME)));
    }

    #[test]
    fn a_filesystem_left_over_in_an_old_mount_namespace_is_not_used() {
        if !is_root("that a left-over filesystem is not used") {
            return;
        }
        let instance = Instance::new();
        instance.mount();
        in_private_namespace(|| {
            let path = instance.dirs.run().join(NAME);
            // The old namespace gets no news of the machine's mounts, as where nothing is shared.
            let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let machine = Machine::find(&path).unwrap();
            machine.within(|| Ok(umount(&path)?)).unwrap();
            machine.within(|| mount_bpffs(&path)).unwrap();
            let found = instance.mount();
            assert_eq!(found.path, machine.seen(&path));
            fs::create_dir(found.path.join("pins")).unwrap();
        });
        assert!(instance.dirs.run().join("bpf/pins").is_dir());
    }

    const CHILD_ROOT: &str = "SG_TEST_BPFFS_ROOT";

    /// Not a promise of its own: what the next test runs through `ip netns exec`.
    #[test]
    fn child_of_ip_netns_exec() {
        let Some(root) = env::var_os(CHILD_ROOT) else {
            return;
        };
        let dirs = Dirs::create(&options(Path::new(&root))).unwrap();
        let mounted = dirs.bpffs(&dirs.lock().unwrap()).unwrap();
        assert_eq!(mounted.place, Place::Machine);
        fs::create_dir(mounted.path.join("pins")).unwrap();
    }

    #[test]
    fn what_is_made_through_ip_netns_exec_is_seen_outside() {
        if !is_root("that pins made through `ip netns exec` are seen outside") {
            return;
        }
        let instance = Instance::new();
        let namespace = Namespace::new();
        let status = Command::new("ip")
            .args(["netns", "exec", namespace.name()])
            .arg(env::current_exe().unwrap())
            .args(["--exact", "dirs::bpffs::tests::child_of_ip_netns_exec"])
            .env(CHILD_ROOT, instance.root.path())
            .status()
            .unwrap();
        assert!(status.success());
        assert!(instance.dirs.run().join("bpf/pins").is_dir());
    }
}
