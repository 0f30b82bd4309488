//! What happens to interfaces behind sg's back must not take their protection away.

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

const CLOSED: &str = "
groups:
  g: {}
interfaces:
  eth0: {groups: [g], hook: xdp}
";

#[test]
fn a_renamed_interface_stays_protected_and_stops_other_commands() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(CLOSED)?;
    let _listener = TcpEcho::listen(&pair.host, "10.0.0.10:80")?;
    for words in [
        "link set eth0 down",
        "link set eth0 name lan0",
        "link set lan0 up",
    ] {
        pair.host.ip(words)?;
    }
    let refused = sg.run(&["group", "create", "other"])?;
    ensure!(refused.code == Some(2), "{refused}");
    ensure!(
        refused.stderr.contains("still there and protected"),
        "{refused}"
    );
    ensure!(
        tcp_connects(&pair.world, "10.0.0.10:80")? == TimedOut,
        "it is open"
    );

    sg.run(&["detach", "eth0"])?.succeeded()?;
    ensure!(
        tcp_connects(&pair.world, "10.0.0.10:80")? == Connected,
        "it is not free"
    );
    sg.run(&["group", "create", "other"])?.succeeded()?;
    Ok(())
}

#[test]
fn an_interface_changes_its_side_and_hook_without_replacing_anything() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(CLOSED)?;
    let _listener = TcpEcho::listen(&pair.host, "10.0.0.10:80")?;
    for hook in ["tc", "xdp", "auto", "xdp"] {
        sg.run(&["attach", "eth0", "--group", "g", "--hook", hook])?
            .succeeded()?;
        let got = tcp_connects(&pair.world, "10.0.0.10:80")?;
        ensure!(got == TimedOut, "{hook}: {got:?}");
    }
    Ok(())
}

#[test]
fn another_xdp_program_is_not_replaced_unasked() -> Result<()> {
    let pair = Lab::pair()?;
    let (first, second) = (Sg::on(&pair.host)?, Sg::on(&pair.host)?);
    first.apply(CLOSED)?;
    let refused = second.run(&["apply", &second.write_policy(CLOSED)?])?;
    ensure!(refused.code == Some(2), "{refused}");
    ensure!(refused.stderr.contains("another XDP program"), "{refused}");
    second.apply(&CLOSED.replace("xdp", "tc"))?;
    Ok(())
}
