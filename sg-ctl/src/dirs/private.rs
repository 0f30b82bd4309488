//! Folders and files that only their owner can change.
//!
//! A folder is as safe as the way to it: whoever may write to a folder above it, or owns a link on
//! the way, can put another one in its place. So the whole way is looked at before anything is
//! made.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Component, Path, PathBuf, absolute};

use super::DirError;

/// As many links as the kernel follows.
const MOST_LINKS: u32 = 40;

const STICKY: u32 = 0o1000;

/// Opens a file for reading and writing, and makes it if there is none: mode 0600 whatever the
/// umask is, and whatever mode a copy from a backup has.
pub fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.permissions().mode() & 0o7777 != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// As [`open_file`], for an empty file.
pub fn create_file(path: &Path) -> io::Result<File> {
    let file = open_file(path)?;
    file.set_len(0)?;
    Ok(file)
}

/// Makes a folder for its owner only, with those above it that are missing, or refuses what is
/// there. The path that it returns is absolute and has no links.
pub(super) fn folder(asked: &Path, option: &'static str) -> Result<PathBuf, DirError> {
    let path = absolute(asked).map_err(DirError::system("resolve", asked))?;
    let mut rest = parts(&path);
    let mut resolved = PathBuf::from("/");
    let mut links = 0;
    loop {
        let found = fs::symlink_metadata(&resolved);
        let found = found.map_err(DirError::system("look at", &resolved))?;
        let Some(part) = rest.pop() else {
            refuse_writable(&resolved, &found, option)?;
            return Ok(resolved);
        };
        refuse_unsafe_parent(asked, &resolved, &found, option)?;
        if part == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(part);
        let found = match fs::symlink_metadata(&next) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                make(&next)?;
                fs::symlink_metadata(&next)
            }
            found => found,
        };
        let found = found.map_err(DirError::system("look at", &next))?;
        if found.is_symlink() {
            links += 1;
            if !is_ours(&found) || links > MOST_LINKS {
                return Err(DirError::UnsafeLink {
                    path: asked.to_owned(),
                    link: next,
                    owner: found.uid(),
                    option,
                });
            }
            let target = fs::read_link(&next).map_err(DirError::system("read the link", &next))?;
            if target.is_absolute() {
                resolved = PathBuf::from("/");
            }
            rest.extend(parts(&target));
        } else if found.is_dir() {
            resolved = next;
        } else {
            return Err(DirError::NotFolder { path: next, option });
        }
    }
}

/// The names and `..` of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    parts.rev().collect()
}

fn make(path: &Path) -> Result<(), DirError> {
    match DirBuilder::new().mode(0o700).create(path) {
        // Another command may have been first; what it made is looked at as any other.
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(DirError::System {
            doing: "create the folder",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn is_ours(found: &Metadata) -> bool {
    found.uid() == 0 || found.uid() == nix::unistd::geteuid().as_raw()
}

fn refuse_writable(path: &Path, found: &Metadata, option: &'static str) -> Result<(), DirError> {
    let mode = found.mode() & 0o7777;
    if is_ours(found) && mode & 0o022 == 0 {
        return Ok(());
    }
    Err(DirError::WritableByOthers {
        path: path.to_owned(),
        owner: found.uid(),
        mode,
        option,
    })
}

/// What others may write to is safe above a folder where only owners may rename and remove, as in
/// `/tmp`, and where the group is that of root.
fn refuse_unsafe_parent(
    asked: &Path,
    parent: &Path,
    found: &Metadata,
    option: &'static str,
) -> Result<(), DirError> {
    let mode = found.mode() & 0o7777;
    let by_group = mode & 0o020 != 0 && found.gid() != 0;
    let by_others = mode & 0o002 != 0;
    let is_writable = mode & STICKY == 0 && (by_group || by_others);
    if is_ours(found) && !is_writable {
        return Ok(());
    }
    Err(DirError::UnsafeParent {
        path: asked.to_owned(),
        parent: parent.to_owned(),
        owner: found.uid(),
        mode,
        option,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, lchown, symlink};

    use super::*;
    use crate::scratch::is_root;

    fn refusal(path: &Path) -> String {
        folder(path, "--run-dir").unwrap_err().to_string()
    }

    #[test]
    fn files_are_private_whatever_they_were() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let mode = |file: &File| file.metadata().unwrap().mode() & 0o7777;
        fs::write(&path, "content").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert_eq!(mode(&open_file(&path).unwrap()), 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(mode(&create_file(&path).unwrap()), 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_parent_that_others_may_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("parent");
        fs::create_dir(&parent).unwrap();
        fs::set_permissions(&parent, Permissions::from_mode(0o777)).unwrap();
        let told = refusal(&parent.join("run"));
        assert!(
            told.contains("parent, which belongs to user") && told.contains("0777"),
            "{told}"
        );
        assert!(!parent.join("run").exists());
        // Nobody can replace what another owns there.
        fs::set_permissions(&parent, Permissions::from_mode(0o1777)).unwrap();
        folder(&parent.join("run"), "--run-dir").unwrap();
    }

    #[test]
    fn a_parent_or_a_link_of_another_user_is_refused() {
        if !is_root("that folders and links of other users are refused") {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("parent");
        fs::create_dir(&parent).unwrap();
        chown(&parent, Some(12_345), None).unwrap();
        let told = refusal(&parent.join("run"));
        assert!(told.contains("belongs to user 12345"), "{told}");
        assert!(!parent.join("run").exists());

        let (elsewhere, link) = (root.path().join("elsewhere"), root.path().join("link"));
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, &link).unwrap();
        lchown(&link, Some(12_345), None).unwrap();
        let told = refusal(&link.join("run"));
        assert!(
            told.contains("the link") && told.contains("user 12345"),
            "{told}"
        );
        assert!(!elsewhere.join("run").exists());
    }

    #[test]
    fn links_lead_to_where_they_lead_and_end_somewhere() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        fs::create_dir(root.join("a")).unwrap();
        symlink("../a", root.join("a/up")).unwrap();
        let found = folder(&root.join("a/up/./b/../b"), "--run-dir").unwrap();
        assert_eq!(found, root.join("a/b"));
        symlink("loop", root.join("loop")).unwrap();
        let told = refusal(&root.join("loop/run"));
        assert!(told.contains("loop"), "{told}");
    }
}
