//! Layers: modules import only those above them, so that no two import each other.

use super::Violation;
use super::code::without_prose;
use super::rules::{at, numbered};
use super::tree::{File, Tree};

/// The modules of one folder, from the top: each line may import the lines above it. What makes the
/// folder a module (`mod.rs`, `lib.rs`, `main.rs`) stands below all of them.
struct Layers {
    folder: &'static str,
    /// How a file of the folder names a module beside it.
    prefix: &'static str,
    lines: &'static [&'static str],
}

const ALL: &[Layers] = &[
    Layers {
        folder: "sg-common/src",
        prefix: "crate::",
        lines: &[
            "addr protocol ids scatter",
            "packet report",
            "parse",
            "ports ranges flow",
            "abi",
            "tables event",
            "decide",
            "trace",
        ],
    },
    Layers {
        folder: "sg-common/src/parse",
        prefix: "super::",
        lines: &["headers", "ip l4 plain", "quote"],
    },
    Layers {
        folder: "sg-common/src/flow",
        prefix: "super::",
        lines: &["kind phase", "key slot state", "tcp bucket"],
    },
    Layers {
        folder: "sg-common/src/abi",
        prefix: "super::",
        lines: &["counters double_buffer fragments group_set", "interface"],
    },
    Layers {
        folder: "sg-common/src/decide",
        prefix: "super::",
        lines: &[
            "trace scratch",
            "question",
            "guest rules",
            "exempt fragments stateful",
            "stages fast",
            "fast_v4",
        ],
    },
    Layers {
        folder: "sg-ebpf/src",
        prefix: "crate::",
        lines: &[
            "opaque registers words",
            "frame globals",
            "context maps",
            "counters events flows trace untraced",
            "tables",
            "stages measure",
        ],
    },
    Layers {
        folder: "sg-ebpf/src/flows",
        prefix: "super::",
        lines: &[
            "openings order owners",
            "bucket",
            "change search expire",
            "fast place",
            "resize",
        ],
    },
];

impl Layers {
    /// The line that has the module, counted from the top.
    fn line_of(&self, module: &str) -> Option<usize> {
        self.lines
            .iter()
            .position(|line| line.split(' ').any(|name| name == module))
    }

    /// The module of this folder that a file is, or is a part of.
    fn module<'a>(&self, file: &'a File) -> Option<&'a str> {
        let inside = file.path.strip_prefix(self.folder)?.strip_prefix('/')?;
        let (module, rest) = inside.split_once('/').unwrap_or((inside, ""));
        let module = module.strip_suffix(".rs").unwrap_or(module);
        let is_the_folder_itself = rest.is_empty() && matches!(module, "mod" | "lib" | "main");
        (!is_the_folder_itself).then_some(module)
    }

    fn check(&self, file: &File, found: &mut Vec<Violation>) {
        let Some(module) = self.module(file) else {
            return;
        };
        let Some(own) = self.line_of(module) else {
            // The test below holds that every module has a line.
            return;
        };
        for (line, code) in numbered(&without_prose(&file.text)) {
            for (start, _) in code.match_indices(self.prefix) {
                let rest = &code[start + self.prefix.len()..];
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                let imported = &rest[..end.unwrap_or(rest.len())];
                if imported != module && self.line_of(imported).is_some_and(|line| line >= own) {
                    found.push(at(
                        file,
                        line,
                        format!(
                            "{module} imports {imported}, which stands beside or below it: {}",
                            self.lines.join(" → ")
                        ),
                    ));
                }
            }
        }
    }
}

/// Every import of a module that stands beside or below the importing one.
pub(super) fn modules_import_upwards(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for layers in ALL {
            layers.check(file, &mut found);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(files: &[(&str, &str)]) -> Vec<String> {
        modules_import_upwards(&Tree::of(files))
            .into_iter()
            .map(|found| format!("{}:{}", found.path, found.line.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn an_import_of_what_stands_below_is_found() {
        let found = lines(&[
            (
                "sg-common/src/abi/mod.rs",
                "//! Knows no [`crate::decide`].\nuse crate::flow::HashKey;\nuse crate::tables::Tables;\n",
            ),
            (
                "sg-common/src/decide/mod.rs",
                "use crate::tables::Tables;\n",
            ),
            (
                "sg-common/src/decide/guest.rs",
                "use super::stages::Stage;\n",
            ),
            ("sg-ebpf/src/maps.rs", "fn f() { crate::stages::call() }\n"),
        ]);
        assert_eq!(
            found,
            [
                "sg-common/src/abi/mod.rs:3",
                "sg-common/src/decide/guest.rs:1",
                "sg-ebpf/src/maps.rs:1"
            ]
        );
    }

    #[test]
    fn a_module_may_import_itself_and_what_stands_above() {
        let found = lines(&[
            (
                "sg-common/src/flow/state.rs",
                "use super::phase::Phase;\nuse crate::parse::Headers;\nuse crate::flow::Leg;\n",
            ),
            ("sg-ebpf/src/main.rs", "use crate::stages;\n"),
        ]);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn every_module_of_the_project_has_its_line() {
        let tree = Tree::read(&crate::workspace::root()).expect("the project is readable");
        for layers in ALL {
            for file in tree.rust() {
                let Some(module) = layers.module(file) else {
                    continue;
                };
                assert!(
                    layers.line_of(module).is_some() || module == "yardsticks",
                    "{} has no line in xtask/src/tidy/layers.rs",
                    file.path
                );
            }
        }
    }
}
