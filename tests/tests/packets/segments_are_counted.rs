//! A frame that stands for several packets of the wire counts as so many, also when only its guest
//! knows how many they are.

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::packets::words::packet;
use tests::sg::Sg;
use tests::sockets::PATIENCE;
use tests::tap::Tap;

const POLICY: &str = "
groups:
  g:
    ingress: []
    egress: [{protocol: tcp, ports: 80, to: [10.0.0.0/24, '2001:db8::/64']}]
interfaces:
  tap0: {groups: [g], side: guest, addresses: [10.0.0.10, '2001:db8::10']}
";

/// What the guest has sent and was admitted, in packets.
fn admitted(sg: &Sg) -> Result<u64> {
    sg.packets(|reason| {
        reason["direction"] == "egress"
            && (reason["reason"] == "rule" || reason["reason"] == "tracked")
    })
}

#[test]
fn of_a_guest_that_merges_its_segments() -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("host")?;
    let tap = Tap::on(&host, "tap0")?;
    host.add_addresses("tap0", &["10.0.0.1/24", "2001:db8::1/64"])?;
    let sg = Sg::on(&host)?;
    sg.apply(POLICY)?.succeeded()?;
    let mac = host.mac("tap0")?;
    let mut before = 0;
    for (words, headers) in [
        ("tcp 10.0.0.10:4000 > 10.0.0.1:80 ack", 54),
        ("tcp [2001:db8::10]:4000 > [2001:db8::1]:80 ack", 74),
    ] {
        for (payload, size, segments) in [
            (5_000, 1_000, 5),
            (5_001, 1_000, 6),
            (999, 1_000, 1),
            (30_000, 1_448, 21),
        ] {
            let packet = packet(&format!("{words} payload {payload}"))?.to_mac(mac);
            tap.send_merged(&packet.frame(), headers, size)?;
            let wanted = before + segments;
            let deadline = std::time::Instant::now() + 10 * PATIENCE;
            let mut counted = admitted(&sg)?;
            while counted < wanted && std::time::Instant::now() < deadline {
                counted = admitted(&sg)?;
            }
            ensure!(
                counted == wanted,
                "{words} payload {payload} in pieces of {size}: {} instead of {segments}",
                counted - before
            );
            before = counted;
        }
    }
    Ok(())
}
