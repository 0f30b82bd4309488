//! Sections of the README and of `docs/` that show commands, read so that they can be run.
//!
//! A page is a section (`#` or `##`) with `console` blocks. In them a line like `web$ sg-ctl status` is a
//! command on the machine `web`, and the lines up to the next command are what it prints. A `yaml`
//! block that begins with `# policy.yaml` is a file of that name. An `sh` block is pasted into a root
//! shell, and a `text` block after it is what that prints; `sh debian` blocks are for a clean Debian,
//! where the test of the package runs them. What differs from run to run is
//! not compared: ids of rules, ports that are given out on the way, numbers before a unit, spaces.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};

/// A section with commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its heading.
    pub title: String,
    /// What it has the reader do, in order.
    pub steps: Vec<Step>,
}

/// One thing a page has the reader do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write a file.
    File {
        /// Its name.
        name: String,
        /// All of it.
        text: String,
    },
    /// Run a command, and see this.
    Command {
        /// The machine.
        host: String,
        /// For the shell.
        line: String,
        /// What it prints.
        output: Vec<String>,
    },
    /// Paste this into a root shell.
    Paste {
        /// One or more lines for the shell.
        script: String,
        /// What they print, where the page shows it.
        output: Option<Vec<String>>,
    },
}

/// The pages of a Markdown text that have commands.
pub fn pages(markdown: &str) -> Result<Vec<Page>> {
    let mut pages: Vec<Page> = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ").or_else(|| line.strip_prefix("# ")) {
            pages.push(Page {
                title: title.to_owned(),
                steps: Vec::new(),
            });
        }
        let Some(language) = line.strip_prefix("```").filter(|word| !word.is_empty()) else {
            continue;
        };
        let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        let page = pages.last_mut().context("a block before any heading")?;
        match language {
            "console" => page.steps.extend(commands(&block)?),
            "yaml" => page.steps.extend(file(&block)),
            "sh" => page.steps.push(Step::Paste {
                script: block.join("\n") + "\n",
                output: None,
            }),
            "text" => match page.steps.last_mut() {
                Some(Step::Paste { output, .. }) => {
                    *output = Some(block.iter().map(|&line| line.to_owned()).collect());
                }
                _ => bail!("an output without the commands that print it, before: {block:?}"),
            },
            _ => {}
        }
    }
    let has_commands = |page: &Page| {
        let mut steps = page.steps.iter();
        steps.any(|step| !matches!(step, Step::File { .. }))
    };
    pages.retain(has_commands);
    Ok(pages)
}

fn file(block: &[&str]) -> Option<Step> {
    let name = block.first()?.strip_prefix("# ")?;
    Some(Step::File {
        name: name.to_owned(),
        text: block.join("\n") + "\n",
    })
}

fn commands(block: &[&str]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for line in block {
        let prompt = line.split_once("$ ");
        let prompt = prompt.filter(|(host, _)| {
            !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric())
        });
        match (prompt, steps.last_mut()) {
            (Some((host, line)), _) => steps.push(Step::Command {
                host: host.to_owned(),
                line: line.to_owned(),
                output: Vec::new(),
            }),
            (None, Some(Step::Command { output, .. })) => output.push((*line).to_owned()),
            (None, _) => bail!("a console block begins without a command: {line}"),
        }
    }
    Ok(steps)
}

/// The commands of `sh debian` blocks, block by block.
pub fn debian_blocks(markdown: &str) -> Vec<String> {
    let blocks = markdown.split("```sh debian\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split_once("```").map(|(block, _)| block));
    blocks.map(str::to_owned).collect()
}

/// The targets of a Markdown text's links to other files and headings.
pub fn links(markdown: &str) -> Vec<&str> {
    let targets = markdown.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let is_outside = |target: &&str| target.contains("://") || target.starts_with("mailto:");
    targets.filter(|target| !is_outside(target)).collect()
}

/// The headings of a Markdown text as links name them.
pub fn headings(markdown: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let mut headings = BTreeSet::new();
    for line in markdown.lines() {
        in_block ^= line.starts_with("```");
        let title = line.trim_start_matches('#');
        if !in_block && title.len() < line.len() && title.starts_with(' ') {
            let kept = title.trim().chars().filter_map(|c| match c {
                ' ' | '-' => Some('-'),
                c if c.is_alphanumeric() || c == '_' => Some(c.to_ascii_lowercase()),
                _ => None,
            });
            headings.insert(kept.collect());
        }
    }
    headings
}

/// What does not differ from run to run.
pub fn lasting(text: &str) -> Vec<String> {
    const UNITS: [&str; 7] = ["ms", "s", "min", "h", "d", "B", "kB"];
    let lines = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty());
    let lasting = lines.map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let lasting = words.iter().enumerate().map(|(index, word)| {
            let next = words
                .get(index + 1)
                .map(|word| word.trim_end_matches([',', ':']));
            let is_number = word
                .chars()
                .all(|c| c.is_ascii_digit() || c == '.' || c == ',');
            match (word, next) {
                (word, _) if word.starts_with("sgr-") => "sgr-",
                (_, Some(unit)) if is_number && UNITS.contains(&unit) => "N",
                (word, _) => match word.rsplit_once(':') {
                    Some((address, port)) if is_ephemeral(port) => address,
                    _ => word,
                },
            }
        });
        lasting.collect::<Vec<_>>().join(" ")
    });
    lasting.collect()
}

/// Whether Linux gives the port to who asks for any.
fn is_ephemeral(port: &str) -> bool {
    port.parse::<u16>().is_ok_and(|port| port >= 32_768)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_files_and_commands_with_what_they_print() {
        let text = "## Quiet\n\n    $ sg-ctl\n\n## Loud\n```yaml\n# p.yaml\ngroups: {}\n```\n\
                    ```console\nweb$ sg-ctl apply p.yaml\n+ group web\nlaptop$ true\n```\n";
        let [page] = pages(text).unwrap().try_into().unwrap();
        assert_eq!(page.title, "Loud");
        let command = |host: &str, line: &str, output: &[&str]| Step::Command {
            host: host.to_owned(),
            line: line.to_owned(),
            output: output.iter().map(|&line| line.to_owned()).collect(),
        };
        assert_eq!(
            page.steps,
            [
                Step::File {
                    name: "p.yaml".to_owned(),
                    text: "# p.yaml\ngroups: {}\n".to_owned()
                },
                command("web", "sg-ctl apply p.yaml", &["+ group web"]),
                command("laptop", "true", &[]),
            ]
        );
        assert!(pages("## A\n```console\nno command\n```\n").is_err());
    }

    #[test]
    fn what_is_pasted_may_show_what_it_prints() {
        let text = "## A\n```sh\na\nb\n```\n```text\nc\n```\n```sh\nd\n```\n```sh debian\ne\n```\n";
        let [page] = pages(text).unwrap().try_into().unwrap();
        let paste = |script: &str, output: Option<&str>| Step::Paste {
            script: script.to_owned(),
            output: output.map(|line| vec![line.to_owned()]),
        };
        assert_eq!(page.steps, [paste("a\nb\n", Some("c")), paste("d\n", None)]);
        assert_eq!(debian_blocks(text), ["e\n"]);
        assert!(pages("## A\n```text\nc\n```\n").is_err());
    }

    #[test]
    fn links_and_headings_are_found() {
        let text = "# A `key`, or two\nsee [b](b.md#c), [d](https://d/e)\n```\n# no\n```\n## F-g\n";
        assert_eq!(links(text), ["b.md#c"]);
        assert_eq!(
            headings(text),
            ["a-key-or-two", "f-g"].map(str::to_owned).into()
        );
    }

    #[test]
    fn ids_times_and_spaces_may_differ() {
        let one = "rule  sgr-0123456789abcdef0 5 s ago,   12 ms\n\n10.0.0.1:40000 443\n";
        let other = "rule sgr-fedcba9876543210f 17 s ago, 3 ms\n10.0.0.1:50000 443";
        assert_eq!(lasting(one), lasting(other));
        assert_ne!(lasting("443"), lasting("444"));
        assert_ne!(lasting("10.0.0.1:443"), lasting("10.0.0.1:444"));
    }
}
