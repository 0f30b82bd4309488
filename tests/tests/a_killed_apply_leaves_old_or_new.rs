//! A command that is killed leaves the old policy in force or the new one, and the next command
//! completes it.

use std::fs;
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

/// Interfaces of which one is protected already.
fn policy_of(interfaces: &[&str]) -> String {
    let mut text =
        "groups: {g: {ingress: [{protocol: tcp, ports: 80, from: [10.0.0.0/8]}]}}\ninterfaces:\n"
            .to_owned();
    for interface in interfaces {
        text += &format!("  {interface}: {{groups: [g]}}\n");
    }
    text
}

/// New links let everything pass until their policy is ready; none may be left so.
#[test]
fn sigkill_while_new_interfaces_get_their_links() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let _listeners = (
        TcpEcho::listen(&pair.host, ":22")?,
        TcpEcho::listen(&pair.host, ":80")?,
    );
    // The link of eth0 comes first.
    let others: Vec<String> = (0..8).map(|number| format!("x{number}")).collect();
    for other in others.iter().map(String::as_str).chain(["d0"]) {
        pair.host
            .ip(&format!("link add {other} type veth peer name {other}p"))?;
    }
    let all: Vec<&str> = ["d0", "eth0"]
        .into_iter()
        .chain(others.iter().map(String::as_str))
        .collect();
    let open = |port: u16| tcp_connects(&pair.world, &format!("10.0.0.10:{port}"));
    let links = || -> Result<usize> { Ok(fs::read_dir(sg.run_dir().join("bpf/links"))?.count()) };
    let mut caught = 0;
    for wanted in [3, 4, 6, 10] {
        sg.apply(&policy_of(&["d0"]))?;
        let path = sg.write_policy(&policy_of(&all))?;
        let mut apply = sg.spawn(&["apply", &path])?;
        while links()? < wanted && apply.try_wait()?.is_none() {
            thread::sleep(Duration::from_micros(200));
        }
        apply.kill()?;
        apply.wait()?;

        let interfaces = sg.json(&["status"])?["interfaces"].clone();
        let interfaces = interfaces.as_array().map(Vec::as_slice);
        let attached = interfaces.unwrap_or_default().iter();
        let protected = attached
            .filter(|interface| interface["attached"] == true)
            .count();
        let reached = open(22)?;
        if protected == 1 {
            caught += 1;
            ensure!(
                reached == Connected,
                "{wanted} links: eth0 is not protected, and port 22 {reached:?}"
            );
        }
        sg.run(&["apply", &path])?.succeeded()?;
        ensure!(
            (open(22)?, open(80)?) == (TimedOut, Connected),
            "{wanted} links: the policy is not in force after the next command"
        );
        sg.run(&["verify"])?.succeeded()?;
    }
    ensure!(caught > 0, "no kill came while links were made");
    Ok(())
}

/// What is refused leaves no link behind.
#[test]
fn a_refused_apply_leaves_no_links() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    for number in 0..6 {
        pair.host
            .ip(&format!("link add x{number} type veth peer name y{number}"))?;
    }
    let _listener = TcpEcho::listen(&pair.host, ":22")?;
    sg.run(&["limits", "set", "rules=1"])?.succeeded()?;
    let names = ["eth0", "x0", "x1", "x2", "x3", "x4", "x5"];
    let path = sg.write_policy(&policy_of(&names))?;
    let refused = sg.run(&["apply", &path])?;
    ensure!(refused.code == Some(2), "{refused}");
    let links = sg.run_dir().join("bpf/links");
    let left = fs::read_dir(&links).map_or(0, Iterator::count);
    ensure!(left == 0, "{left} links are left in {}", links.display());
    ensure!(tcp_connects(&pair.world, "10.0.0.10:22")? == Connected);
    Ok(())
}
