//! A command that is killed leaves the old policy in force or the new one, and the next command
//! completes it.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

const KILLS: u32 = 20;

/// Port 80 is open under one policy, port 443 under the other, port 22 under neither.
fn policy(port: u16) -> String {
    format!(
        "
groups:
  g:
    ingress:
      - {{protocol: tcp, ports: {port}, from: [10.0.0.0/8]}}
interfaces:
  eth0: {{groups: [g]}}
"
    )
}

#[test]
fn sigkill_at_forty_moments_of_an_apply() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let _listeners = (
        TcpEcho::listen(&pair.host, ":22")?,
        TcpEcho::listen(&pair.host, ":80")?,
        TcpEcho::listen(&pair.host, ":443")?,
    );
    sg.apply(&policy(80))?;
    let mut old = 80;
    let (mut kept, mut replaced) = (0, 0);
    for kill in 0..KILLS {
        let new = 523 - old;
        let path = sg.write_policy(&policy(new))?;
        let mut apply = sg.spawn(&["apply", &path])?;
        // An update takes a few tens of milliseconds, most of it in two grace periods.
        thread::sleep(Duration::from_micros(u64::from(kill) * 1_500));
        apply.kill()?;
        apply.wait()?;

        let open = |port: u16| tcp_connects(&pair.world, &format!("10.0.0.10:{port}"));
        let (by_old, by_new) = (open(old)?, open(new)?);
        ensure!(
            matches!(
                (by_old, by_new),
                (Connected, TimedOut) | (TimedOut, Connected)
            ),
            "kill {kill}: port {old} {by_old:?}, port {new} {by_new:?}: neither policy"
        );
        ensure!(
            open(22)? == TimedOut,
            "kill {kill}: a port that neither policy opens"
        );
        match by_new {
            Connected => replaced += 1,
            _ => kept += 1,
        }

        sg.run(&["apply", &path])?.succeeded()?;
        ensure!(
            open(new)? == Connected,
            "kill {kill}: the next command does not complete it"
        );
        ensure!(
            open(old)? == TimedOut,
            "kill {kill}: the old policy lingers"
        );
        old = new;
    }
    println!("of {KILLS} kills {kept} left the old policy and {replaced} the new one");
    Ok(())
}
