//! Every kind of network device is protected at each hook, or refused with a sentence.
//!
//! A device that sg takes and does not judge would look protected and be open; one whose packets it
//! cannot read would be cut off. So each kind is made as an administrator would make it, tried
//! without sg, and then with each hook: what the rules allow connects in both directions, what they
//! do not allow is dropped and counted at that interface.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tests::lab::{Host, Lab};
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

const HOOKS: [&str; 3] = ["auto", "tc", "xdp"];

/// The addresses that the machines talk by.
const WORLD: &str = "10.9.0.1";
const HOST: &str = "10.9.0.10";

/// Tunnels and the like shake hands before they carry anything.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A kind of device and how it is made of two wires, `eth0` and `eth1`, that are there and down.
struct Kind {
    /// Runs on the machine; `ME` and `PEER` are what the ends of `eth0` are called in 192.0.2.0/24.
    host: &'static str,
    /// Runs outside.
    world: &'static str,
    /// Where the machine has [`HOST`].
    host_device: &'static str,
    /// Where the world has [`WORLD`].
    world_device: &'static str,
    /// What sg is told to protect.
    protected: &'static [&'static str],
}

/// The same on both sides.
const fn alike(commands: &'static str) -> Kind {
    Kind {
        host: commands,
        world: commands,
        host_device: "dev0",
        world_device: "dev0",
        protected: &["dev0"],
    }
}

/// Something on the machine alone, beside a plain `eth0` of the world.
const fn on_the_machine(commands: &'static str) -> Kind {
    Kind {
        world: "link set eth0 up",
        world_device: "eth0",
        ..alike(commands)
    }
}

const UNDERLAY: &str = "link set eth0 up; address add ME/24 dev eth0; ";

fn machines(kind: &Kind) -> Result<Option<(Lab, Host, Host)>> {
    let lab = Lab::new()?;
    let (world, host) = (lab.host("world")?, lab.host("host")?);
    for wire in ["eth0", "eth1"] {
        lab.join((&world, wire), (&host, wire))?;
        for machine in [&world, &host] {
            machine.ip(&format!("link set {wire} down"))?;
        }
    }
    let sides = [
        (&host, kind.host, "192.0.2.10", "192.0.2.1"),
        (&world, kind.world, "192.0.2.1", "192.0.2.10"),
    ];
    for (machine, commands, me, peer) in sides {
        let commands = commands.replace("UNDERLAY", UNDERLAY);
        let commands = commands.replace("ME", me).replace("PEER", peer);
        for command in commands
            .split(';')
            .map(str::trim)
            .filter(|one| !one.is_empty())
        {
            let done = match command.split_once("sysctl ") {
                Some(("", setting)) => machine.run("sysctl", &["-qw", setting]).map(drop),
                _ => machine.ip(command).map(drop),
            };
            let Err(error) = done else { continue };
            let error = format!("{error:#}");
            let missing = [
                "Unknown device type",
                "Operation not supported",
                "Not supported",
            ];
            if missing.iter().any(|word| error.contains(word)) || error.contains("is not a") {
                println!("skipped: `ip {command}` is not to be had here");
                return Ok(None);
            }
            bail!(error);
        }
    }
    world.ip(&format!("address add {WORLD}/24 dev {}", kind.world_device))?;
    host.ip(&format!("address add {HOST}/24 dev {}", kind.host_device))?;
    for (machine, device) in [(&world, kind.world_device), (&host, kind.host_device)] {
        machine.ip(&format!("link set {device} up"))?;
    }
    Ok(Some((lab, world, host)))
}

fn connects_in_time(from: &Host, to: &str) -> Result<bool> {
    let deadline = Instant::now() + READY_WITHIN;
    while Instant::now() < deadline {
        if matches!(tcp_connects(from, to), Ok(Connected)) {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}

fn policy(protected: &[&str], hook: &str) -> Result<String> {
    let mut policy = "
groups:
  g:
    ingress:
      - {protocol: tcp, ports: 22, from: [10.9.0.0/24]}
      - {protocol: '4', from: [192.0.2.0/24]}
      - {protocol: '47', from: [192.0.2.0/24]}
    egress:
      - {protocol: tcp, ports: 22, to: [10.9.0.0/24]}
interfaces:
"
    .to_owned();
    for interface in protected {
        writeln!(policy, "  {interface}: {{groups: [g], hook: {hook}}}")?;
    }
    Ok(policy)
}

/// How many packets a direction has dropped for want of a rule.
fn refused_packets(sg: &Sg, direction: &str) -> Result<u64> {
    let stats = sg.json(&["stats"])?;
    let interfaces = stats["interfaces"].as_array().context("no interfaces")?;
    let reasons = interfaces
        .iter()
        .filter_map(|one| one["reasons"].as_array())
        .flatten();
    let refused =
        reasons.filter(|count| count["reason"] == "no-rule" && count["direction"] == direction);
    Ok(refused.filter_map(|count| count["packets"].as_u64()).sum())
}

/// Says for a hook what came of it.
fn try_hook(world: &Host, host: &Host, kind: &Kind, hook: &str) -> Result<String> {
    let sg = Sg::on(host)?;
    let path = sg.write_policy(&policy(kind.protected, hook)?)?;
    let applied = sg.run(&["apply", &path])?;
    if applied.code == Some(2) {
        let said = applied.stderr.trim();
        ensure!(
            kind.protected.iter().any(|device| said.contains(device)),
            "the refusal names no device: {applied}"
        );
        ensure!(
            connects_in_time(world, &format!("{HOST}:80"))?,
            "a device that was refused is cut off: {applied}"
        );
        return Ok(format!("refused: {said}"));
    }
    let applied = applied.succeeded()?;
    for (name, from, to) in [("ingress", world, HOST), ("egress", host, WORLD)] {
        ensure!(
            connects_in_time(from, &format!("{to}:22"))?,
            "{name}: what a rule allows does not connect\n{}\n{applied}",
            sg.run(&["stats"])?
        );
        let before = refused_packets(&sg, name)?;
        let outcome = tcp_connects(from, &format!("{to}:80"))?;
        ensure!(
            outcome == TimedOut,
            "{name}: what no rule allows: {outcome:?}\n{}",
            sg.run(&["stats"])?
        );
        ensure!(
            refused_packets(&sg, name)? > before,
            "{name}: it was dropped and not counted\n{}",
            sg.run(&["stats"])?
        );
    }
    let status = sg.json(&["status"])?;
    let used = status["interfaces"][0]["hook"]
        .as_str()
        .unwrap_or("?")
        .to_owned();
    Ok(format!("judged at {used}"))
}

fn every_hook(name: &str, kind: &Kind) -> Result<()> {
    let Some((_lab, world, host)) = machines(kind)? else {
        return Ok(());
    };
    let ports = [":22", ":80"];
    let listeners = [&world, &host].map(|machine| ports.map(|port| TcpEcho::listen(machine, port)));
    for (from, to) in [(&world, HOST), (&host, WORLD)] {
        for port in ports {
            ensure!(
                connects_in_time(from, &format!("{to}{port}"))?,
                "{to}{port} does not connect before anything is protected"
            );
        }
    }
    let mut wrong = Vec::new();
    for hook in HOOKS {
        match try_hook(&world, &host, kind, hook) {
            Ok(what) => println!("device: {name}, hook {hook}: {what}"),
            Err(error) => wrong.push(format!("hook {hook}: {error:#}")),
        }
    }
    drop(listeners);
    ensure!(wrong.is_empty(), "{name}: {}", wrong.join("\n\n"));
    Ok(())
}

macro_rules! kinds {
    ($($name:ident: $kind:expr,)*) => {
        $(
            #[test]
            fn $name() -> Result<()> {
                every_hook(&stringify!($name).replace('_', " "), &$kind)
            }
        )*
    };
}

kinds! {
    a_veth: Kind {
        host_device: "eth0",
        protected: &["eth0"],
        ..on_the_machine("link set eth0 up")
    },
    a_vlan: alike("link set eth0 up; link add link eth0 name dev0 type vlan id 5"),
    a_vlan_without_header_reordering: alike(
        "link set eth0 up; link add link eth0 name dev0 type vlan id 5 reorder_hdr off"
    ),
    the_parent_of_a_vlan: Kind {
        protected: &["eth0"],
        ..alike("link set eth0 up; link add link eth0 name dev0 type vlan id 5")
    },
    a_bond: alike(
        "link add dev0 type bond mode active-backup miimon 100; link set eth0 master dev0; \
         link set eth1 master dev0; link set eth0 up; link set eth1 up"
    ),
    all_ports_of_a_bond: Kind {
        protected: &["eth0", "eth1"],
        ..alike(
            "link add dev0 type bond mode active-backup miimon 100; link set eth0 master dev0; \
             link set eth1 master dev0; link set eth0 up; link set eth1 up"
        )
    },
    a_bridge: on_the_machine(
        "link add dev0 type bridge stp_state 0 forward_delay 0; link set eth0 master dev0; \
         link set eth0 up"
    ),
    a_macvlan: on_the_machine(
        "link set eth0 up; link add link eth0 name dev0 type macvlan mode bridge"
    ),
    an_ipvlan_in_mode_l2: on_the_machine(
        "link set eth0 up; link add link eth0 name dev0 type ipvlan mode l2"
    ),
    an_ipvlan_in_mode_l3: on_the_machine(
        "link set eth0 up; link add link eth0 name dev0 type ipvlan mode l3"
    ),
    an_ipvlan_in_mode_l3s: on_the_machine(
        "link set eth0 up; link add link eth0 name dev0 type ipvlan mode l3s"
    ),
    the_parent_of_an_ipvlan: Kind {
        protected: &["eth0"],
        ..on_the_machine("link set eth0 up; link add link eth0 name dev0 type ipvlan mode l2")
    },
    a_vrf: Kind {
        host_device: "eth0",
        protected: &["red"],
        ..on_the_machine(
            "sysctl net.ipv4.tcp_l3mdev_accept=1; link add red type vrf table 10; \
             link set red up; link set eth0 master red; link set eth0 up; \
             route add 10.9.0.0/24 dev red"
        )
    },
    a_port_of_a_vrf: Kind {
        host_device: "eth0",
        protected: &["eth0"],
        ..on_the_machine(
            "sysctl net.ipv4.tcp_l3mdev_accept=1; link add red type vrf table 10; \
             link set red up; link set eth0 master red; link set eth0 up; \
             route add 10.9.0.0/24 dev red"
        )
    },
    a_gre_tunnel: alike("UNDERLAY link add dev0 type gre local ME remote PEER"),
    a_gre_tunnel_with_ethernet: alike("UNDERLAY link add dev0 type gretap local ME remote PEER"),
    an_ipip_tunnel: alike("UNDERLAY link add dev0 type ipip local ME remote PEER"),
    a_geneve_tunnel: alike("UNDERLAY link add dev0 type geneve id 5 remote PEER"),
    a_vxlan_tunnel: alike(
        "UNDERLAY link add dev0 type vxlan id 5 local ME remote PEER dstport 4789"
    ),
    an_xfrm_interface: Kind {
        host: concat!(
            "UNDERLAY link add dev0 type xfrm dev eth0 if_id 42; ",
            "xfrm state add src ME dst PEER proto esp spi 10 mode tunnel if_id 42 ",
            "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128; ",
            "xfrm state add src PEER dst ME proto esp spi 1 mode tunnel if_id 42 ",
            "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128; ",
            "xfrm policy add dir out if_id 42 tmpl src ME dst PEER proto esp mode tunnel; ",
            "xfrm policy add dir in if_id 42 tmpl src PEER dst ME proto esp mode tunnel",
        ),
        world: concat!(
            "UNDERLAY link add dev0 type xfrm dev eth0 if_id 42; ",
            "xfrm state add src ME dst PEER proto esp spi 1 mode tunnel if_id 42 ",
            "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128; ",
            "xfrm state add src PEER dst ME proto esp spi 10 mode tunnel if_id 42 ",
            "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128; ",
            "xfrm policy add dir out if_id 42 tmpl src ME dst PEER proto esp mode tunnel; ",
            "xfrm policy add dir in if_id 42 tmpl src PEER dst ME proto esp mode tunnel",
        ),
        ..alike("")
    },
}
