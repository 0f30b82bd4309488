//! The keys of the policy file as documents show them: Markdown and a page of the manual.

use clap_mangen::roff::{Roff, bold, roman};

use crate::policy::file::schema::{Key, Kind, Preset, TABLES, Table, plain};
use crate::policy::services::SERVICES;

/// The rows of a table for Markdown.
pub fn markdown(table: &Table) -> String {
    let mut text =
        String::from("| key | value | default | example | what it does |\n|---|---|---|---|---|\n");
    for key in table.keys {
        let cells = [
            format!("`{}`", key.name),
            value(&key.kind),
            default(key),
            format!("`{}`", key.example),
            key.about.to_owned(),
        ];
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

/// The services for Markdown.
pub fn services_markdown() -> String {
    let mut text = String::from("| service | allows | for |\n|---|---|---|\n");
    for service in SERVICES {
        let traffic: Vec<_> = service.traffic.iter().map(ToString::to_string).collect();
        let (name, traffic) = (service.name, traffic.join(", "));
        text.push_str(&format!("| `{name}` | {traffic} | {} |\n", service.about));
    }
    text
}

/// What may stand behind a key, in words.
fn value(kind: &Kind) -> String {
    match kind {
        Kind::Text(what) | Kind::TextOrNumber(what) => (*what).to_owned(),
        Kind::Words(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(", ")
        }
        Kind::Boolean => "`true` or `false`".to_owned(),
        Kind::Number { least, most } => format!("a number from {least} to {most}"),
        Kind::Seconds { least, most } => {
            format!("a time from {least} to {most} seconds, like {least}, {least}s or 1m")
        }
        Kind::Maps(table) => format!("a list of maps: {}", keys_of(table)),
        Kind::OneOrMore(kind, what) => format!("a list of {what}; each is {}", value(kind)),
        Kind::Map(table) => format!("a map: {}", keys_of(table)),
        Kind::Named(name, kind) => {
            format!("a map; its keys are {name}; its values are {}", value(kind))
        }
        Kind::NamedMaps(name, table) => format!(
            "a map; its keys are {name}; its values are maps: {}",
            keys_of(table)
        ),
    }
}

fn keys_of(table: &Table) -> String {
    format!("see the keys of {}", table.holder)
}

fn default(key: &Key) -> String {
    match key.default {
        Preset::Required => "none: it is required".to_owned(),
        Preset::Value(value) => format!("`{value}`"),
        Preset::Words(words) => words.to_owned(),
    }
}

/// The page sg-policy(5).
pub fn manual(version: &str) -> String {
    let mut page = Roff::new();
    page.control("TH", ["sg-policy", "5", "", version, ""]);
    page.control("SH", ["NAME"]);
    page.text([roman("sg-policy - the policy file of sg-ctl(1)")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "A policy file is YAML; JSON is YAML too. It is the whole truth of one VPC: sg-ctl apply \
         makes the VPC match the file, so a rule that is not in the file goes. Everything that is \
         wrong with a file is reported at once, with its line and column, and then nothing is \
         changed.",
    )]);
    for table in TABLES {
        page.control(
            "SH",
            [format!("THE KEYS OF {}", table.holder.to_uppercase()).as_str()],
        );
        page.text([roman(plain(table.about))]);
        for key in table.keys {
            page.control("TP", []);
            page.text([bold(key.name)]);
            page.text([roman(plain(key.about))]);
            page.control("RS", []);
            page.text([bold("Value: "), roman(plain(&value(&key.kind)))]);
            page.control("br", []);
            page.text([bold("Default: "), roman(plain(&default(key)))]);
            page.control("br", []);
            page.text([bold("Example: "), roman(key.example)]);
            page.control("RE", []);
        }
    }
    page.control("SH", ["SERVICES"]);
    for service in SERVICES {
        let traffic: Vec<_> = service.traffic.iter().map(ToString::to_string).collect();
        page.control("TP", []);
        page.text([bold(service.name)]);
        page.text([roman(format!("{}: {}", traffic.join(", "), service.about))]);
    }
    page.control("SH", ["EXAMPLE"]);
    page.control("nf", []);
    for line in EXAMPLE.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    page.control("SH", ["FILES"]);
    for (path, what) in [
        (
            "/usr/share/sg-ctl/policy.schema.json",
            "The JSON schema of the file, for editors.",
        ),
        (
            "/usr/share/doc/sg-ctl/examples",
            "Whole policies to begin with.",
        ),
    ] {
        page.control("TP", []);
        page.text([bold(path)]);
        page.text([roman(what)]);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([roman(
        "sg-ctl(1), sg-ctl-apply(1), sg-ctl-check(1), sg-ctl-export(1)",
    )]);
    page.render()
}

/// Sections of a page of the manual: each a heading, with terms and what they mean.
pub fn manual_sections(sections: &[(&str, Vec<(String, String)>)]) -> String {
    let mut page = Roff::new();
    for (heading, lines) in sections {
        page.control("SH", [heading.to_uppercase().as_str()]);
        for (term, meaning) in lines {
            if meaning.is_empty() {
                page.text([roman(term)]);
                continue;
            }
            page.control("TP", []);
            page.text([bold(term)]);
            page.text([roman(meaning)]);
        }
    }
    page.to_roff()
}

/// A policy with most of what a file can say.
const EXAMPLE: &str = "\
prefix_lists:
  office: [203.0.113.0/24, \"2001:db8:aa::/48\"]
groups:
  web:
    description: the site
    ingress:
      - {service: https, from: [0.0.0.0/0, \"::/0\"]}
  ssh:
    ingress:
      - {service: ssh, from: [pl:office]}
  app:
    ingress:
      - {protocol: tcp, ports: [8000-8080, 9000], from: [sg:web]}
    egress: []
interfaces:
  eth0: {groups: [web, ssh]}
  tap3: {groups: [app], side: guest, addresses: [10.0.3.7]}
";

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::{env, fs};

    use super::*;
    use crate::policy::file::PolicyFile;
    use crate::policy::file::schema::json_schema;

    fn document(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../docs")
            .join(name)
    }

    /// `SG_DOCS=write` writes what would be compared.
    fn check(name: &str, wanted: &str) {
        let path = document(name);
        if env::var_os("SG_DOCS").is_some_and(|value| value == "write") {
            fs::write(&path, wanted).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "docs/{name} differs from the code; `SG_DOCS=write cargo test -p sg-ctl --lib \
             documents_are_those_of_the_code` writes it anew"
        );
    }

    /// A text whose marked parts are written anew.
    fn filled(mut text: String) -> String {
        let tables = TABLES.iter().map(|table| (table.name, markdown(table)));
        for (name, rows) in tables.chain([("services", services_markdown())]) {
            let begin = format!("<!-- keys of {name}, from the code -->\n");
            let (before, rest) = text.split_once(&begin).expect("the mark of a table");
            let (_, after) = rest.split_once("<!-- end -->").expect("the end of a table");
            text = format!("{before}{begin}\n{rows}\n<!-- end -->{after}");
        }
        text
    }

    #[test]
    fn documents_are_those_of_the_code() {
        let page = fs::read_to_string(document("policy.md")).unwrap();
        check("policy.md", &filled(page));
        check("policy.schema.json", &format!("{:#}\n", json_schema()));
    }

    #[test]
    fn the_manual_has_every_key_and_a_sound_example() {
        let manual = manual("0");
        for table in TABLES {
            for key in table.keys {
                assert!(
                    manual.contains(&format!("\\fB{}\\fR", key.name)),
                    "{}",
                    key.name
                );
            }
        }
        PolicyFile::parse("example", EXAMPLE).unwrap_or_else(|findings| panic!("{findings}"));
    }
}
