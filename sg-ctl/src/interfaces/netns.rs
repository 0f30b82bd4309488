//! Network namespaces: naming them, telling them apart, working inside one.
//!
//! A [`Netns`] holds its namespace open, so what was resolved is what is entered, whatever happens
//! to the name in between.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use super::error::{Error, Hint, Result};

/// Where `ip netns` keeps its names; the second is where older systems have it.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// The calling thread's own namespace. Threads of one process may be in different ones.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace that exists.
#[derive(Clone, Debug)]
pub struct Netns {
    spelling: Option<String>,
    id: NetnsId,
    file: Arc<File>,
}

/// What tells one network namespace from another for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsId {
    /// The device of nsfs.
    pub device: u64,
    /// The namespace's number, as `readlink /proc/PID/ns/net` shows it.
    pub inode: u64,
}

impl Netns {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        Self::open(None, Path::new(OWN))
    }

    /// `None` is the current namespace; a word is a name of `ip netns`; anything with a slash is a
    /// path.
    pub fn resolve(asked: Option<&str>) -> Result<Self> {
        let Some(asked) = asked else {
            return Self::current();
        };
        if asked.contains('/') {
            return Self::open(Some(asked), Path::new(asked));
        }
        if matches!(asked, "" | "." | "..") || asked.contains('\0') {
            return Err(Error::BadNetnsName(asked.to_owned()));
        }
        let path = NAMED
            .map(|folder| Path::new(folder).join(asked))
            .into_iter()
            .find(|path| path.exists())
            .unwrap_or_else(|| Path::new(NAMED[0]).join(asked));
        Self::open(Some(asked), &path)
    }

    /// The name under which `ip netns` knows the current namespace; `None` for that of the machine
    /// itself, and for one that has no name.
    pub fn name_of_current() -> Result<Option<String>> {
        let current = Self::current()?.id;
        // Where pid 1 may not be looked at, a name is still a name.
        if NetnsId::of(Path::new("/proc/1/ns/net")).is_ok_and(|machine| machine == current) {
            return Ok(None);
        }
        Ok(named().into_iter().find_map(|(name, path)| {
            NetnsId::of(&path)
                .is_ok_and(|id| id == current)
                .then_some(name)
        }))
    }

    /// The namespace with this inode number; `None` where no process is in it and no mount that
    /// this process sees holds it, so that it is gone or cannot be entered.
    pub fn with_inode(inode: u64) -> Option<Self> {
        let usual = [OWN, "/proc/1/ns/net"].map(PathBuf::from);
        let mounts = || fs::read_to_string("/proc/self/mountinfo").ok();
        let found = usual.into_iter().find_map(|path| Self::at(&path, inode));
        let found = found.or_else(|| {
            let mut paths = mounted(&mounts()?, inode).into_iter();
            paths.find_map(|path| Self::at(&path, inode))
        });
        found.or_else(|| {
            let processes = fs::read_dir("/proc").ok()?.flatten();
            let mut paths = processes.map(|process| process.path().join("ns/net"));
            paths.find_map(|path| Self::at(&path, inode))
        })
    }

    /// The namespace that a file stands for, if it is the one with this inode number.
    fn at(path: &Path, inode: u64) -> Option<Self> {
        if NetnsId::of(path).ok()?.inode != inode {
            return None;
        }
        let found = Self::open(path.to_str(), path).ok()?;
        (found.id.inode == inode).then_some(found)
    }

    /// What tells this namespace from another.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// The name or path by which it was asked for; `None` for the current one.
    pub fn spelling(&self) -> Option<&str> {
        self.spelling.as_deref()
    }

    /// Runs `work` inside the namespace, on a thread of its own: the caller's stays where it is.
    /// The current namespace needs no privilege to be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = thread::Builder::new()
                .spawn_scoped(scope, || {
                    if NetnsId::of(Path::new(OWN)).ok() != Some(self.id) {
                        self.move_in()?;
                    }
                    Ok(work())
                })
                .map_err(|source| Error::system("start a thread", source))?;
            worker
                .join()
                .unwrap_or_else(|payload| panic::resume_unwind(payload))
        })
    }

    /// As [`Self::enter`], for work that leaves nothing behind in its thread and asks little: in the
    /// current namespace it needs no thread of its own.
    pub fn enter_briefly<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        match NetnsId::of(Path::new(OWN)).ok() == Some(self.id) {
            true => Ok(work()),
            false => self.enter(work),
        }
    }

    fn move_in(&self) -> Result<()> {
        setns(&*self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
            // A namespace, but of mounts, processes or another kind.
            Errno::EINVAL => Error::NotNetns {
                asked: self.spelling.clone().unwrap_or_default(),
            },
            _ => Error::system(format!("enter {self}"), errno),
        })
    }

    fn open(spelling: Option<&str>, path: &Path) -> Result<Self> {
        let asked = || spelling.unwrap_or("current").to_owned();
        let file = File::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NetnsMissing {
                asked: asked(),
                path: path.to_owned(),
                hint: Hint::new(&asked(), named().into_iter().map(|(name, _)| name)),
            },
            _ => Error::system(format!("open {}", path.display()), source),
        })?;
        let id = NetnsId::of_file(&file)
            .map_err(|source| Error::system(format!("look at {}", path.display()), source))?
            .ok_or_else(|| Error::NotNetns { asked: asked() })?;
        Ok(Self {
            spelling: spelling.map(str::to_owned),
            id,
            file: Arc::new(file),
        })
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.spelling {
            None => f.write_str("the current network namespace"),
            Some(name) => write!(f, "network namespace `{name}`"),
        }
    }
}

impl NetnsId {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// `None` for a file that is no namespace at all.
    fn of_file(file: &File) -> io::Result<Option<Self>> {
        if fstatfs(file)?.filesystem_type() != NSFS_MAGIC {
            return Ok(None);
        }
        let metadata = file.metadata()?;
        Ok(Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }))
    }
}

/// Every network namespace that has a name or a process, as far as this process may look.
pub fn every_namespace() -> Vec<Netns> {
    let named = named().into_iter().filter_map(|(name, path)| {
        let netns = Netns::open(Some(&name), &path).ok()?;
        Some((netns.id, netns))
    });
    let mut found: BTreeMap<NetnsId, Netns> = BTreeMap::new();
    for (id, netns) in named {
        found.entry(id).or_insert(netns);
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let is_process = process.file_name().to_string_lossy().parse::<u32>().is_ok();
        let path = process.path().join("ns/net");
        if is_process
            && let Ok(id) = NetnsId::of(&path)
            && let Entry::Vacant(place) = found.entry(id)
            && let Ok(netns) = Netns::open(path.to_str(), &path)
        {
            place.insert(netns);
        }
    }
    found.into_values().collect()
}

/// Every name `ip netns` has given, with its file.
fn named() -> Vec<(String, PathBuf)> {
    NAMED
        .iter()
        .find_map(|folder| fs::read_dir(folder).ok())
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name().and_then(OsStr::to_str)?.to_owned(), path))
        })
        .collect()
}

/// Where a namespace is mounted, of what `/proc/self/mountinfo` lists: proc_pid_mountinfo(5).
fn mounted(mounts: &str, inode: u64) -> Vec<PathBuf> {
    let root = format!("net:[{inode}]");
    let points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        (fields.next()? == root).then(|| fields.next())?
    });
    points.map(unescaped).collect()
}

/// A path of mountinfo, where a space, a tab, a line feed and a backslash are three octal digits.
fn unescaped(path: &str) -> PathBuf {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    let path = escapes
        .iter()
        .fold(path.to_owned(), |path, (from, to)| path.replace(from, to));
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::{Namespace, is_root};

    #[test]
    fn a_missing_namespace_is_named_with_its_path() {
        let error = Netns::resolve(Some("sg-no-such-namespace")).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::NetnsMissing { .. }), "{text}");
        assert!(
            text.starts_with(
                "no network namespace `sg-no-such-namespace`: /run/netns/sg-no-such-namespace \
                 does not exist"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_file_that_is_no_network_namespace_is_refused() {
        for path in ["/proc/self/status", "/proc/self/ns", "/proc/self/ns/uts"] {
            let entered = Netns::resolve(Some(path)).and_then(|netns| netns.enter(|| ()));
            let error = entered.unwrap_err();
            assert!(matches!(error, Error::NotNetns { .. }), "{path}: {error}");
        }
    }

    #[test]
    fn a_name_cannot_climb_out_of_its_folder() {
        for name in ["", ".", ".."] {
            let error = Netns::resolve(Some(name)).unwrap_err();
            assert!(matches!(error, Error::BadNetnsName(_)), "{name:?}: {error}");
        }
    }

    #[test]
    fn the_current_namespace_is_the_same_by_path() {
        let current = Netns::current().unwrap();
        let path = Netns::resolve(Some("/proc/self/ns/net")).unwrap();
        assert_eq!(current.id(), path.id());
        assert_eq!(
            current.enter(|| Netns::current().unwrap().id()).unwrap(),
            current.id()
        );
    }

    #[test]
    fn what_runs_inside_is_inside_and_the_caller_stays_outside() {
        if !is_root("that a namespace is entered") {
            return;
        }
        let namespace = Namespace::new();
        let outside = Netns::current().unwrap().id();
        let netns = Netns::resolve(Some(namespace.name())).unwrap();
        let inside = netns.enter(|| Netns::current().unwrap().id()).unwrap();
        assert_eq!(inside, netns.id());
        assert_ne!(inside, outside);
        assert_eq!(Netns::current().unwrap().id(), outside);
    }

    #[test]
    fn a_namespace_is_found_by_its_inode_number() {
        let current = Netns::current().unwrap().id();
        assert_eq!(
            Netns::with_inode(current.inode).map(|found| found.id()),
            Some(current)
        );
        assert!(Netns::with_inode(1).is_none());
        if !is_root("that a named namespace is found by its inode number") {
            return;
        }
        let namespace = Namespace::new();
        let id = Netns::resolve(Some(namespace.name())).unwrap().id();
        let found = Netns::with_inode(id.inode).unwrap();
        assert_eq!(found.id(), id);
        assert_eq!(found.enter(|| Netns::current().unwrap().id()).unwrap(), id);
    }

    #[test]
    fn mounts_of_a_namespace_are_found_by_its_number() {
        let mounts = "\
25 30 0:23 / /run rw shared:3 - tmpfs run rw
64 25 0:4 net:[4026532201] /run/netns/a rw - nsfs nsfs rw
65 25 0:4 net:[4026532202] /srv/b\\040c rw - nsfs nsfs rw
66 25 0:4 mnt:[4026532203] /run/m rw - nsfs nsfs rw
";
        let at = |inode| mounted(mounts, inode);
        assert_eq!(at(4_026_532_201), [PathBuf::from("/run/netns/a")]);
        assert_eq!(at(4_026_532_202), [PathBuf::from("/srv/b c")]);
        assert!(at(4_026_532_203).is_empty());
    }

    #[test]
    fn the_current_namespace_knows_its_name() {
        if !is_root("that the current namespace knows its name") {
            return;
        }
        let namespace = Namespace::new();
        let netns = Netns::resolve(Some(namespace.name())).unwrap();
        let name = netns.enter(|| Netns::name_of_current().unwrap()).unwrap();
        assert_eq!(name.as_deref(), Some(namespace.name()));
        assert_eq!(Netns::name_of_current().unwrap(), None);
    }

    #[test]
    fn a_mistyped_namespace_is_met_with_the_one_that_was_meant() {
        if !is_root("that a mistyped namespace is met with the one that was meant") {
            return;
        }
        let namespace = Namespace::new();
        let mistyped = namespace.name().replacen("sgh", "shg", 1);
        let text = Netns::resolve(Some(&mistyped)).unwrap_err().to_string();
        assert!(text.contains("; did you mean `sgh-"), "{text}");
    }
}
