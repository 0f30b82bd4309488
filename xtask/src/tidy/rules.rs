//! The rules. Each is one function from the tree to what breaks it.

use super::Violation;
use super::code::{has_word, without_prose};
use super::layers::modules_import_upwards;
use super::tree::{File, Tree};

type Rule = fn(&Tree) -> Vec<Violation>;

/// Every rule with what it holds.
pub(super) const ALL: &[(&str, Rule)] = &[
    ("the shared core stands alone", core_stands_alone),
    ("modules import upwards only", modules_import_upwards),
    ("only the dataplane opens BPF", only_the_dataplane_opens_bpf),
    ("compiling a policy is pure", compile_is_pure),
    (
        "unsafe stays where the kernel is met",
        unsafe_stays_at_the_kernel,
    ),
    ("nothing is left for later", nothing_is_left_for_later),
    ("no path of one machine", no_path_of_one_machine),
    (
        "every module says what it is for",
        every_module_says_what_it_is_for,
    ),
    ("both licences are there", licences_are_there),
];

/// They name what they forbid.
const THIS: &str = "xtask/src/tidy";

fn core_stands_alone(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Some(manifest) = tree.find("sg-common/Cargo.toml") {
        for (line, dependency) in dependencies(&manifest.text) {
            // The host turns serde's derives on, to write compiled policies to disk.
            if !matches!(dependency, "network-types" | "serde") {
                found.push(at(manifest, line, format!(
                    "sg-common depends on {dependency}; the kernel and the host share it, so it depends on network-types alone"
                )));
            }
        }
    }
    if let Some(top) = tree.find("sg-common/src/lib.rs") {
        for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
            if !top.text.lines().any(|line| line.trim() == attribute) {
                found.push(whole(top, format!("lacks {attribute}")));
            }
        }
    }
    found
}

/// Dependencies other than those of tests, with their lines.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut listed = Vec::new();
    let mut inside = false;
    for (number, line) in numbered(manifest) {
        if let Some(section) = line.trim().strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies") && !section.ends_with("dev-dependencies");
            // `[dependencies.name]` is a dependency by itself.
            if let Some((table, name)) = section.rsplit_once('.')
                && table.ends_with("dependencies")
                && !table.ends_with("dev-dependencies")
            {
                listed.push((number, name));
            }
        } else if inside
            && let Some(name) = line.split(['=', '.', ' ']).next()
            && !name.is_empty()
            && !name.starts_with('#')
        {
            listed.push((number, name));
        }
    }
    listed
}

fn only_the_dataplane_opens_bpf(tree: &Tree) -> Vec<Violation> {
    let controller = tree
        .rust()
        .filter(|file| file.is_in("sg-ctl/src") && !file.is_in("sg-ctl/src/dataplane"));
    words(
        controller,
        &["aya", "aya_obj", "aya_log", "SYS_bpf", "bpf("],
        |word| format!("{word} belongs into sg-ctl/src/dataplane, the only place that opens BPF"),
    )
}

fn compile_is_pure(tree: &Tree) -> Vec<Violation> {
    let compile = tree.rust().filter(|file| file.is_in("sg-ctl/src/compile"));
    let impure = [
        "std::fs",
        "std::io",
        "std::env",
        "std::process",
        "std::time",
        "std::thread",
        "Instant",
        "SystemTime",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "tokio",
        "rusqlite",
        "rand",
        "fastrand",
    ];
    words(compile, &impure, |word| {
        format!("{word} in compile, which does no I/O and whose equal inputs give equal tables")
    })
}

fn unsafe_stays_at_the_kernel(tree: &Tree) -> Vec<Violation> {
    let elsewhere = tree.rust().filter(|file| {
        !file.is_in("sg-ebpf/src")
            && !file.is_in("sg-ctl/src/dataplane")
            && !file.path.ends_with("build.rs")
            && !file.is_in(THIS)
    });
    words(elsewhere, &["unsafe"], |_| {
        "unsafe belongs into sg-ebpf or sg-ctl/src/dataplane".to_owned()
    })
}

fn nothing_is_left_for_later(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.files().iter().filter(|file| !file.is_in(THIS)) {
        for (line, text) in numbered(&file.text) {
            for word in ["TODO", "FIXME", "XXX"] {
                if has_word(text, word) {
                    found.push(at(
                        file,
                        line,
                        format!("{word}: do it, or say it in docs/limitations.md"),
                    ));
                }
            }
        }
    }
    for file in tree.rust().filter(|file| !file.is_in(THIS)) {
        for (line, code) in numbered(&without_prose(&file.text)) {
            let code: String = code.split_whitespace().collect();
            if code.contains("#[ignore") {
                found.push(at(
                    file,
                    line,
                    "an ignored test proves nothing: run it, or let it print `skipped` and why"
                        .to_owned(),
                ));
            }
            if code.contains("#[allow(") || code.contains("#![allow(") {
                found.push(at(
                    file,
                    line,
                    "write #[expect(lint, reason = \"…\")], which goes away with its cause"
                        .to_owned(),
                ));
            }
        }
    }
    found
}

fn no_path_of_one_machine(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.files().iter().filter(|file| !file.is_in(THIS)) {
        for (line, text) in numbered(&file.text) {
            for path in ["/root/", "/work/", "/home/"] {
                if text.contains(path) {
                    found.push(at(file, line, format!("{path} is a path of one machine")));
                }
            }
        }
    }
    found
}

fn every_module_says_what_it_is_for(tree: &Tree) -> Vec<Violation> {
    tree.rust()
        .filter(|file| {
            let opening = file
                .text
                .lines()
                .map(str::trim)
                .find(|line| !line.is_empty());
            !opening.is_some_and(|line| line.starts_with("//!"))
        })
        .map(|file| {
            whole(
                file,
                "opens without `//!`: say what it is for and what it refuses to know".into(),
            )
        })
        .collect()
}

fn licences_are_there(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, sentence) in [
        (
            "LICENSE-MIT",
            "Permission is hereby granted, free of charge",
        ),
        (
            "LICENSE-APACHE",
            "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION",
        ),
    ] {
        if !tree
            .find(path)
            .is_some_and(|file| file.text.contains(sentence))
        {
            found.push(Violation {
                path: path.to_owned(),
                line: None,
                what: "lacks the text of the licence".to_owned(),
            });
        }
    }
    for manifest in tree
        .files()
        .iter()
        .filter(|file| file.path.ends_with("/Cargo.toml"))
    {
        if !manifest
            .text
            .lines()
            .any(|line| line.trim() == "license.workspace = true")
        {
            found.push(whole(
                manifest,
                "lacks `license.workspace = true`".to_owned(),
            ));
        }
    }
    found
}

/// Every line of code with one of the words.
fn words<'a>(
    files: impl Iterator<Item = &'a File>,
    forbidden: &[&str],
    what: impl Fn(&str) -> String,
) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files {
        for (line, code) in numbered(&without_prose(&file.text)) {
            for word in forbidden.iter().filter(|word| has_word(code, word)) {
                found.push(at(file, line, what(word)));
            }
        }
    }
    found
}

pub(super) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

pub(super) fn at(file: &File, line: usize, what: String) -> Violation {
    Violation {
        path: file.path.clone(),
        line: Some(line),
        what,
    }
}

fn whole(file: &File, what: String) -> Violation {
    Violation {
        path: file.path.clone(),
        line: None,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows violations as `path:line`, `path` where the file as a whole is meant.
    fn places(rule: Rule, files: &[(&str, &str)]) -> Vec<String> {
        rule(&Tree::of(files))
            .into_iter()
            .map(|violation| match violation.line {
                Some(line) => format!("{}:{line}", violation.path),
                None => violation.path,
            })
            .collect()
    }

    #[test]
    fn the_project_keeps_every_rule() {
        let tree = Tree::read(&crate::workspace::root()).expect("the project is readable");
        for (name, rule) in ALL {
            assert_eq!(rule(&tree), [], "{name}");
        }
    }

    #[test]
    fn a_second_dependency_of_the_core_is_found_in_any_table() {
        let manifest = "[dependencies]\nnetwork-types.workspace = true\naya = \"1\"\n\
                        [dev-dependencies]\nproptest = \"1\"\n\
                        [target.'cfg(unix)'.dependencies]\nlibc = \"1\"\n\
                        [dependencies.log]\nversion = \"1\"\n";
        assert_eq!(
            places(core_stands_alone, &[("sg-common/Cargo.toml", manifest)]),
            [
                "sg-common/Cargo.toml:3",
                "sg-common/Cargo.toml:7",
                "sg-common/Cargo.toml:8"
            ]
        );
    }

    #[test]
    fn a_core_that_permits_unsafe_or_std_is_found() {
        let top = |text| places(core_stands_alone, &[("sg-common/src/lib.rs", text)]).len();
        assert_eq!(top("#![no_std]\n#![forbid(unsafe_code)]\n"), 0);
        assert_eq!(top("#![no_std]\n"), 1);
        assert_eq!(top("// #![no_std]\n#![deny(unsafe_code)]\n"), 2);
    }

    #[test]
    fn bpf_outside_the_dataplane_is_found() {
        let uses = "use aya::Ebpf;\n";
        assert_eq!(
            places(
                only_the_dataplane_opens_bpf,
                &[
                    ("sg-ctl/src/dataplane.rs", uses),
                    ("sg-ctl/src/dataplane/object.rs", uses),
                    ("sg-ctl/src/cli/attach.rs", uses),
                    (
                        "sg-ctl/src/observe.rs",
                        "//! Knows no aya.\nlet r = libc::bpf(1);\n"
                    ),
                ]
            ),
            ["sg-ctl/src/cli/attach.rs:1", "sg-ctl/src/observe.rs:2"]
        );
    }

    #[test]
    fn a_compiler_that_reads_a_file_or_a_clock_is_found() {
        assert_eq!(
            places(
                compile_is_pure,
                &[
                    (
                        "sg-ctl/src/compile/ids.rs",
                        "use std::collections::BTreeMap;\n"
                    ),
                    (
                        "sg-ctl/src/compile/mod.rs",
                        "let x = std::fs::read(p);\nInstant::now();\n"
                    ),
                    ("sg-ctl/src/store/mod.rs", "use std::fs;\n"),
                ]
            ),
            ["sg-ctl/src/compile/mod.rs:1", "sg-ctl/src/compile/mod.rs:2"]
        );
    }

    #[test]
    fn unsafe_away_from_the_kernel_is_found_in_code_and_not_in_prose() {
        let uses = "fn f() { unsafe { g() } }\n";
        assert_eq!(
            places(
                unsafe_stays_at_the_kernel,
                &[
                    ("sg-ebpf/src/main.rs", uses),
                    ("sg-ctl/src/dataplane/pod.rs", uses),
                    ("sg-ctl/src/store/mod.rs", uses),
                    (
                        "tests/src/lab.rs",
                        "// unsafe\nlet s = \"unsafe\";\n#![forbid(unsafe_code)]\n"
                    ),
                ]
            ),
            ["sg-ctl/src/store/mod.rs:1"]
        );
    }

    #[test]
    fn what_is_left_for_later_is_found() {
        assert_eq!(
            places(
                nothing_is_left_for_later,
                &[
                    ("README.md", "works\nTODO: the rest\n"),
                    (
                        "a.rs",
                        "// FIXME\n#[ignore]\n#[ ignore = \"slow\"]\n#![allow(dead_code)]\n#[expect(dead_code, reason = \"x\")]\n"
                    ),
                    ("b.rs", "// never #[allow(x)]\n"),
                ]
            ),
            ["README.md:2", "a.rs:1", "a.rs:2", "a.rs:3", "a.rs:4"]
        );
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        assert_eq!(
            places(
                no_path_of_one_machine,
                &[
                    ("README.md", "cd /root/sg\n"),
                    ("a.rs", "\"/run/sg\"\n\"/work/x\"\n"),
                ]
            ),
            ["README.md:1", "a.rs:2"]
        );
    }

    #[test]
    fn a_module_without_its_purpose_is_found() {
        assert_eq!(
            places(
                every_module_says_what_it_is_for,
                &[
                    ("a.rs", "//! What it is for.\n"),
                    ("b.rs", "use std::fs;\n//! Too late.\n"),
                    ("c.rs", ""),
                    ("d.md", "# no code\n"),
                ]
            ),
            ["b.rs", "c.rs"]
        );
    }

    #[test]
    fn a_missing_licence_is_found() {
        let mit = (
            "LICENSE-MIT",
            "Permission is hereby granted, free of charge, to …",
        );
        assert_eq!(
            places(
                licences_are_there,
                &[mit, ("a/Cargo.toml", "license.workspace = true\n")]
            ),
            ["LICENSE-APACHE"]
        );
        assert_eq!(
            places(licences_are_there, &[mit, ("a/Cargo.toml", "[package]\n")]),
            ["LICENSE-APACHE", "a/Cargo.toml"]
        );
    }
}
