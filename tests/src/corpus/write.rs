//! Writes into a file of the corpus what follows from the words: the bytes of each packet, and what
//! it did to the flow table. The reason is never written: it is what the author says it is.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use super::{Change, PacketStep, Step, Theme, bytes, is_bare};

/// Rewrites the file of a theme; `changes` are those of the packet on each line.
pub fn write(theme: &Theme, changes: &BTreeMap<usize, Vec<Change>>) -> Result<()> {
    let path = &theme.path;
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let steps = theme.cases.iter().flat_map(|case| &case.steps);
    let packets: BTreeMap<usize, &PacketStep> = steps
        .filter_map(|step| match step {
            Step::Packet(packet) => Some((packet.line, packet)),
            _ => None,
        })
        .collect();
    let mut written = String::new();
    let mut in_bytes = false;
    for (line, number) in text.lines().zip(1..) {
        in_bytes &= line.starts_with("    ");
        if in_bytes {
            continue;
        }
        let Some(packet) = packets.get(&number) else {
            written.push_str(line);
            written.push('\n');
            continue;
        };
        in_bytes = true;
        written.push_str(&packet.written);
        written.push_str(" => ");
        written.push_str(packet.reason.name());
        for change in changes.get(&number).unwrap_or(&packet.changes) {
            written.push_str(&format!(", {change}"));
        }
        written.push('\n');
        for line in bytes::lines(&packet.frame, is_bare(&packet.interface)) {
            written.push_str(&line);
            written.push('\n');
        }
    }
    fs::write(path, written).with_context(|| path.display().to_string())
}
