//! The Debian package: what dpkg reads besides the files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{NAME, compress, copy, date, size_of_tree, source, version, write};
use crate::arch::Arch;
use crate::workspace;

const SCRIPTS: &[&str] = &["postinst", "prerm", "postrm"];

/// The field needs an address; RFC 2606 reserves this domain for examples.
const MAINTAINER: &str = "the authors of sg <sg@sg.example>";

/// Adds to the files what makes them a Debian package, packs them, and takes it away again.
pub(super) fn pack(arch: Arch, root: &Path, output: &Path) -> Result<PathBuf> {
    let tree = tempfile::tempdir().context("making a folder")?;
    let tree = tree.path();
    workspace::run(
        workspace::command("cp")
            .arg("--archive")
            .arg(root.join("usr"))
            .arg(tree),
    )?;
    let documentation = tree.join("usr/share/doc").join(NAME);
    let changelog = documentation.join("changelog");
    write(
        &changelog,
        changelog_of(&fs::read_to_string(documentation.join("CHANGELOG.md"))?)?,
        0o644,
    )?;
    compress(&changelog)?;
    write(&documentation.join("copyright"), COPYRIGHT, 0o644)?;
    let overrides = tree.join("usr/share/lintian/overrides").join(NAME);
    copy(&source("lintian-overrides"), &overrides, 0o644)?;
    let libc = needed_libc(&tree.join("usr/bin/sg-ctl"))?;
    let control = control(arch, size_of_tree(tree)?.div_ceil(1 << 10), libc.as_deref());
    write(&tree.join("DEBIAN/control"), control, 0o644)?;
    write(&tree.join("DEBIAN/md5sums"), sums(tree)?, 0o644)?;
    for script in SCRIPTS {
        copy(&source(script), &tree.join("DEBIAN").join(script), 0o755)?;
    }
    super::set_modes(tree)?;
    let package = output.join(format!("{NAME}_{}_{}.deb", version(), arch.debian()));
    let mut pack = workspace::command("dpkg-deb");
    pack.args(["--root-owner-group", "-Zxz", "--build"])
        .arg(tree)
        .arg(&package)
        .env("SOURCE_DATE_EPOCH", date()?);
    workspace::output(&mut pack)?;
    Ok(package)
}

fn control(arch: Arch, kilobytes: u64, libc: Option<&str>) -> String {
    let depends = match libc {
        Some(version) => format!("Depends: libc6 (>= {version}), libgcc-s1\n"),
        None => String::new(),
    };
    format!(
        "Package: {NAME}\n\
         Version: {}\n\
         Architecture: {}\n\
         Maintainer: {MAINTAINER}\n\
         Installed-Size: {kilobytes}\n\
         {depends}\
         Suggests: iproute2\n\
         Section: net\n\
         Priority: optional\n\
         Description: security groups for any Linux machine\n \
         Named, stateful, allow-only sets of rules that may name each other, attached\n \
         to network interfaces and enforced in the kernel by XDP and TC programs.\n \
         .\n \
         Installing protects nothing: \"sg-ctl apply\" does, with a policy file.\n",
        version(),
        arch.debian(),
    )
}

const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: sg

Files: *
Copyright: 2025 the sg authors
License: Expat or Apache-2.0

License: Apache-2.0
 On Debian systems the text of this licence is in
 /usr/share/common-licenses/Apache-2.0.

License: Expat
 Permission is hereby granted, free of charge, to any person obtaining a copy
 of this software and associated documentation files (the \"Software\"), to deal
 in the Software without restriction, including without limitation the rights
 to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
 copies of the Software, and to permit persons to whom the Software is
 furnished to do so, subject to the following conditions:
 .
 The above copyright notice and this permission notice shall be included in
 all copies or substantial portions of the Software.
 .
 THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
 IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
 FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
 AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
 LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
 OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
 SOFTWARE.
";

/// The changelog of the newest version, as Debian writes it.
fn changelog_of(markdown: &str) -> Result<String> {
    let newest = markdown.split("\n## ").nth(1).unwrap_or_default();
    let mut text = format!("{NAME} ({}) unstable; urgency=medium\n\n", version());
    let mut items: Vec<String> = Vec::new();
    for line in newest.lines() {
        match (line.strip_prefix("- "), line.strip_prefix("  ")) {
            (Some(item), _) => items.push(item.to_owned()),
            (None, Some(rest)) => {
                if let Some(item) = items.last_mut() {
                    item.push(' ');
                    item.push_str(rest);
                }
            }
            (None, None) => {}
        }
    }
    for item in &items {
        text.push_str(&wrapped(item));
    }
    let date = format!("@{}", date()?);
    let mut command = workspace::command("date");
    command.args(["--utc", "--rfc-email", "--date", &date]);
    let date = workspace::output(&mut command)?;
    text.push_str(&format!("\n -- {MAINTAINER}  {date}\n"));
    Ok(text)
}

/// An item in lines of 80 letters at most.
fn wrapped(item: &str) -> String {
    let mut text = String::new();
    let mut line = "  *".to_owned();
    for word in item.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 80 {
            text.push_str(&line);
            text.push('\n');
            line = "   ".to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    text + &line + "\n"
}

/// A line for each file, as `md5sum` writes them.
fn sums(tree: &Path) -> Result<String> {
    let mut command = workspace::command("sh");
    command.args([
        "-c",
        "cd \"$1\" && find usr -type f -print0 | sort -z | xargs -0 md5sum",
        "sh",
    ]);
    Ok(workspace::output(command.arg(tree))? + "\n")
}

/// The newest version of the C library that a program asks for; a static one asks for none.
fn needed_libc(program: &Path) -> Result<Option<String>> {
    let read = Command::new("ldd")
        .arg(program)
        .output()
        .context("running ldd")?;
    let is_dynamic =
        read.status.success() && String::from_utf8_lossy(&read.stdout).contains("libc.so");
    let bytes = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    Ok(is_dynamic.then(|| newest_libc(&bytes)))
}

fn newest_libc(program: &[u8]) -> String {
    const PREFIX: &[u8] = b"GLIBC_2.";
    let found = program
        .windows(PREFIX.len())
        .enumerate()
        .filter(|(_, window)| *window == PREFIX);
    let minor = found.filter_map(|(at, _)| {
        let digits = program.get(at + PREFIX.len()..)?;
        let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
        let text: String = digits.take(3).map(|byte| char::from(*byte)).collect();
        text.parse::<u32>().ok()
    });
    format!("2.{}", minor.max().unwrap_or(34))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_is_asked_for_counts() {
        let program = b"..GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE";
        assert_eq!(newest_libc(program), "2.34");
    }

    #[test]
    fn a_long_item_is_wrapped() {
        let text = wrapped(&"word ".repeat(40));
        assert!(text.starts_with("  * word word"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(
            text.lines()
                .skip(1)
                .all(|line| line.starts_with("    word"))
        );
        assert_eq!(text.matches("word").count(), 40);
    }

    #[test]
    fn the_changelog_is_that_of_the_newest_version() {
        let text = changelog_of("# Changelog\n\n## 2\n\n- one\n  more\n\n## 1\n\n- old\n").unwrap();
        assert!(text.contains("\n\n  * one more\n\n -- "), "{text}");
        assert!(!text.contains("old"), "{text}");
    }
}
