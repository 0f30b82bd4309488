//! The project's own text files, by path from the root.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// A text file of the project.
#[derive(Debug)]
pub(super) struct File {
    /// From the root, with `/` between folders.
    pub(super) path: String,
    pub(super) text: String,
}

impl File {
    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the file is the module of this path (`a/b` is `a/b.rs` or anything below `a/b/`).
    pub(super) fn is_in(&self, module: &str) -> bool {
        self.path
            .strip_prefix(module)
            .is_some_and(|rest| rest.starts_with('/') || rest == ".rs" || rest.is_empty())
    }
}

/// All of them, in the order of their paths.
#[derive(Debug)]
pub(super) struct Tree(Vec<File>);

impl Tree {
    /// Reads the tree below a folder, without what is built, fetched or hidden.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        collect(root, "", &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self(files))
    }

    pub(super) fn files(&self) -> &[File] {
        &self.0
    }

    pub(super) fn rust(&self) -> impl Iterator<Item = &File> {
        self.0.iter().filter(|file| file.is_rust())
    }

    pub(super) fn find(&self, path: &str) -> Option<&File> {
        self.0.iter().find(|file| file.path == path)
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let file = |&(path, text): &(&str, &str)| File {
            path: path.into(),
            text: text.into(),
        };
        Self(files.iter().map(file).collect())
    }
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<File>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}/{name}")
        };
        let kind = entry
            .file_type()
            .with_context(|| format!("cannot look at {path}"))?;
        let hidden = name.starts_with('.') && name != ".cargo" && name != ".ci";
        if kind.is_dir() && !hidden && name != "target" {
            collect(&entry.path(), &path, files)?;
        } else if kind.is_file() && !hidden && name != "Cargo.lock" {
            // A file that is no text, such as a captured frame, has no lines to judge.
            if let Ok(text) = String::from_utf8(
                fs::read(entry.path()).with_context(|| format!("cannot read {path}"))?,
            ) {
                files.push(File { path, text });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_hidden_and_binary_files_are_left_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (path, bytes) in [
            ("src/main.rs", b"fn main() {}".as_slice()),
            ("target/debug/out.rs", b"fn built() {}"),
            (".git/config", b"[core]"),
            (".ci/run", b"exec"),
            ("corpus/frame", b"\xff\xfe"),
            ("Cargo.lock", b"version = 4"),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, bytes).expect("a file");
        }
        let tree = Tree::read(folder.path()).expect("readable");
        let paths: Vec<&str> = tree.files().iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".ci/run", "src/main.rs"]);
    }

    #[test]
    fn a_module_is_its_file_and_its_folder_but_not_its_namesake() {
        let tree = Tree::of(&[("a/b.rs", ""), ("a/b/c.rs", ""), ("a/bc.rs", "")]);
        let inside: Vec<&str> = tree
            .files()
            .iter()
            .filter(|file| file.is_in("a/b"))
            .map(|file| file.path.as_str())
            .collect();
        assert_eq!(inside, ["a/b.rs", "a/b/c.rs"]);
    }
}
