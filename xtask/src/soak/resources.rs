//! What is held of the machine: kernel objects, pins, files.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};
use serde_json::{Value, json};
use tests::sg::Sg;

/// How many of each there are. Those of the kernel are the whole machine's.
pub(crate) struct Resources([(&'static str, u64); 6]);

impl Resources {
    pub(crate) fn of(sg: &Sg) -> Result<Self> {
        Ok(Self([
            ("BPF maps", loaded_maps().count() as u64),
            ("BPF programs", loaded_programs().count() as u64),
            ("BPF links", loaded_links().count() as u64),
            ("pins", entries(&sg.run_dir().join("bpf"))?),
            ("files in the state folder", entries(&sg.state_dir())?),
            ("network namespaces held by a mount", mounts("nsfs")?),
        ]))
    }

    /// What there is more of than before.
    pub(crate) fn beyond<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = String> + 'a {
        let pairs = before.0.iter().zip(&self.0);
        pairs
            .filter(|((_, before), (_, after))| after > before)
            .map(|((what, before), (_, after))| format!("{what}: {before} before, {after} after"))
    }

    pub(crate) fn to_json(&self) -> Value {
        self.0
            .iter()
            .map(|(what, count)| ((*what).to_owned(), json!(count)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

pub(crate) fn side_by_side(before: &Resources, after: &Resources) -> String {
    let pairs = before.0.iter().zip(&after.0);
    pairs
        .map(|((what, before), (_, after))| format!("{before:>10}  {what} before, {after} after\n"))
        .collect()
}

/// How many files there are below a folder.
fn entries(folder: &Path) -> Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        count += match path.is_dir() {
            true => entries(&path)?,
            false => 1,
        };
    }
    Ok(count)
}

fn mounts(kind: &str) -> Result<u64> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let found = mounts.lines();
    let found = found.filter(|line| line.split(' ').nth(2) == Some(kind));
    Ok(found.count() as u64)
}

/// Resident memory in kilobytes, and open descriptors, of a process that is there.
pub(crate) fn of_process(pid: i32) -> Option<(u64, u64)> {
    let folder = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some((
        kilobytes,
        fs::read_dir(folder.join("fd")).ok()?.count() as u64,
    ))
}
