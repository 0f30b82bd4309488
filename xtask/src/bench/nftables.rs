//! nftables, as somebody would write it for the same purpose.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};
use tests::lab::Host;

use crate::policies;

/// Whether there is an `nft` to compare with.
pub(crate) fn is_there(host: &Host) -> Result<()> {
    host.run("nft", &["--version"])
        .map(drop)
        .context("nftables can't be compared with: no nft (Debian package nftables)")
}

/// HTTPS from so many prefixes, in an interval set, at the earliest hook there is; all else drops.
pub(crate) fn at_ingress(interface: &str, prefixes: u32) -> Result<String> {
    let mut text = String::from(
        "table netdev bench {\n  set customers {\n    type ipv4_addr\n    flags interval\n    elements = {\n",
    );
    for prefix in policies::prefixes(prefixes) {
        writeln!(text, "{prefix},")?;
    }
    write!(
        text,
        "    }}\n  }}\n  chain ingress {{\n    \
         type filter hook ingress device \"{interface}\" priority 0; policy drop;\n    \
         tcp dport 443 ip saddr @customers accept\n    ether type arp accept\n  }}\n}}\n"
    )?;
    Ok(text)
}

/// A host's usual firewall: what is established goes on, some ports are open to the neighbours.
pub(crate) const STATEFUL: &str = "\
table inet bench {
  chain input {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    iif lo accept
    meta l4proto ipv6-icmp accept
    ip saddr 10.0.0.0/24 tcp dport 5001-5003 accept
    ip saddr 32.0.0.0/3 udp dport 5004 accept
  }
  chain output {
    type filter hook output priority 0; policy accept;
    ct state invalid drop
  }
}
";

/// Puts a rule set in force on a machine.
pub(crate) fn load(host: &Host, rules: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), rules)?;
    host.run("nft", &["-f".as_ref(), file.path().as_os_str()])?;
    Ok(())
}
