//! Pieces of a machine for tests: network namespaces that go when they are dropped.

use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

/// Says whether the test may touch the machine, and what stays unproven if it may not.
pub(crate) fn is_root(proving: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("skipped for want of root; not proven: {proving}");
    }
    is_root
}

/// A named network namespace.
pub(crate) struct Namespace(String);

impl Namespace {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sgh-{}-{count}", process::id());
        ip(&["netns", "add", &name]);
        Self(name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Runs `ip -n NAME …` with the words of `command`.
    pub(crate) fn ip(&self, command: &str) {
        let words: Vec<&str> = ["-n", &self.0]
            .into_iter()
            .chain(command.split(' '))
            .collect();
        ip(&words);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.0])
            .status();
    }
}

fn ip(words: &[&str]) {
    let output = Command::new("ip")
        .args(words)
        .output()
        .expect("iproute2 is installed");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {told}", words.join(" "));
}
