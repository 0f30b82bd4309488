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
use tests::sockets::{Session, TcpEcho, tcp_connects};

const HOOKS: [&str; 4] = ["auto", "tc", "xdp", "xdp-generic"];

/// The addresses that the machines talk by.
const WORLD: &str = "10.9.0.1";
const HOST: &str = "10.9.0.10";

/// Tunnels and the like shake hands before they carry anything.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A kind of device and how it is made of two wires, `eth0` and `eth1`, that are there and down.
struct Kind {
    /// Runs on the machine: words for `ip`, or a line for the shell behind `run`. `ME` and `PEER` are
    /// what the ends of `eth0` are called in 192.0.2.0/24, and `OTHER` is the other machine's namespace.
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

const BOND: &str = "link add dev0 type bond mode active-backup miimon 100; \
    link set eth0 master dev0; link set eth1 master dev0; link set eth0 up; link set eth1 up";

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
        (&host, kind.host, "192.0.2.10", "192.0.2.1", &world),
        (&world, kind.world, "192.0.2.1", "192.0.2.10", &host),
    ];
    for (machine, commands, me, peer, other) in sides {
        let commands = commands.replace("UNDERLAY", UNDERLAY);
        let commands = commands.replace("ME", me).replace("PEER", peer);
        let commands = commands.replace("OTHER", other.namespace());
        for command in commands
            .split(';')
            .map(str::trim)
            .filter(|one| !one.is_empty())
        {
            let done = match command.strip_prefix("run ") {
                Some(line) => machine.run("sh", &["-c", line]),
                None => machine.ip(command),
            };
            let Err(error) = done else { continue };
            let error = format!("{error:#}");
            let missing = [
                "Unknown device type",
                "Operation not supported",
                "Not supported",
                "algorithm not found",
                "wg: not found",
                // An `ip` that does not know the device.
                "Garbage instead of arguments",
            ];
            if missing.iter().any(|word| error.contains(word)) || error.contains("is not a") {
                println!("skipped: `{command}` is not to be had here");
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
    a_vlan_and_its_parent: Kind {
        protected: &["eth0", "dev0"],
        ..alike("link set eth0 up; link add link eth0 name dev0 type vlan id 5")
    },
    a_bond: alike(BOND),
    all_ports_of_a_bond: Kind {
        protected: &["eth0", "eth1"],
        ..alike(BOND)
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
    a_netkit_in_mode_l2: Kind {
        world: "",
        ..alike("link add dev0 type netkit mode l2 peer name dev0 netns OTHER")
    },
    a_netkit_in_mode_l3: Kind {
        world: "",
        ..alike("link add dev0 type netkit mode l3 peer name dev0 netns OTHER")
    },
    a_vrf: Kind {
        host_device: "eth0",
        protected: &["red"],
        ..on_the_machine(
            "run sysctl -qw net.ipv4.tcp_l3mdev_accept=1; link add red type vrf table 10; \
             link set red up; link set eth0 master red; link set eth0 up; \
             route add 10.9.0.0/24 dev red"
        )
    },
    a_port_of_a_vrf: Kind {
        host_device: "eth0",
        protected: &["eth0"],
        ..on_the_machine(
            "run sysctl -qw net.ipv4.tcp_l3mdev_accept=1; link add red type vrf table 10; \
             link set red up; link set eth0 master red; link set eth0 up; \
             route add 10.9.0.0/24 dev red"
        )
    },
    a_wireguard_tunnel: Kind {
        host: concat!(
            "UNDERLAY link add dev0 type wireguard; ",
            "run echo III5CwcWBel032ru/yeHo8x6vUR+YAh+1JZvxio1OX8= | wg set dev0 ",
            "private-key /dev/stdin listen-port 51820 ",
            "peer DE03CpGi6Zn16h7j9g/bG+6yL/r8koTlbOITRDF4ZGk= ",
            "allowed-ips 10.9.0.0/24 endpoint PEER:51820",
        ),
        world: concat!(
            "UNDERLAY link add dev0 type wireguard; ",
            "run echo +DPrkn4Y1PnOyK8WXuALnTYILyYMarBzx6ZHmUslaFE= | wg set dev0 ",
            "private-key /dev/stdin listen-port 51820 ",
            "peer 9AhqPkSQPY1jwLOUG2UJ/SyZDD0/3dl35k4ckBwi8C0= ",
            "allowed-ips 10.9.0.0/24 endpoint PEER:51820",
        ),
        ..alike("")
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

#[test]
fn a_bond_stays_protected_when_it_fails_over() -> Result<()> {
    let Some((_lab, world, host)) = machines(&alike(BOND))? else {
        return Ok(());
    };
    let _echoes = [":22", ":80"].map(|port| TcpEcho::listen(&host, port));
    let to = |port: u16| format!("{HOST}:{port}");
    ensure!(connects_in_time(&world, &to(80))?, "before it is protected");
    let sg = Sg::on(&host)?;
    sg.apply(&policy(&["dev0"], "auto")?)?;
    ensure!(connects_in_time(&world, &to(22))?, "what a rule allows");
    let mut session = Session::open(&world, &to(22))?;
    ensure!(session.echoes()? == Connected, "a new connection");
    for failed in ["eth0", "eth1"] {
        for machine in [&world, &host] {
            let other = if failed == "eth0" { "eth1" } else { "eth0" };
            machine.ip(&format!("link set {other} up"))?;
            machine.ip(&format!("link set {failed} down"))?;
        }
        ensure!(
            connects_in_time(&world, &to(22))?,
            "{failed} is down: port 22"
        );
        ensure!(
            session.echoes()? == Connected,
            "{failed} is down: it is cut"
        );
        let closed = tcp_connects(&world, &to(80))?;
        ensure!(closed == TimedOut, "{failed} is down: port 80: {closed:?}");
    }
    Ok(())
}

/// States and policies of one end, for every packet between the two machines. `MODE` is the mode.
const IPSEC: &str = concat!(
    "link set eth0 up; ",
    "xfrm state add src 10.9.0.10 dst 10.9.0.1 proto esp spi 10 mode MODE ",
    "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128; ",
    "xfrm state add src 10.9.0.1 dst 10.9.0.10 proto esp spi 1 mode MODE ",
    "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128; ",
    "xfrm policy add dir WAY_THERE src 10.9.0.10 dst 10.9.0.1 ",
    "tmpl src 10.9.0.10 dst 10.9.0.1 proto esp mode MODE; ",
    "xfrm policy add dir WAY_BACK src 10.9.0.1 dst 10.9.0.10 ",
    "tmpl src 10.9.0.1 dst 10.9.0.10 proto esp mode MODE",
);

/// Two machines that speak by ESP, and whether a connection comes about by each hook with a rule for
/// ESP packets and without.
fn ipsec(mode: &str, hooks: &[&str]) -> Result<Option<Vec<String>>> {
    let ends = |there: &str, back: &str| {
        let commands = IPSEC.replace("MODE", mode);
        let commands = commands.replace("WAY_THERE", there);
        &*commands.replace("WAY_BACK", back).leak()
    };
    let kind = Kind {
        host: ends("out", "in"),
        world: ends("in", "out"),
        host_device: "eth0",
        world_device: "eth0",
        protected: &["eth0"],
    };
    let Some((_lab, world, host)) = machines(&kind)? else {
        return Ok(None);
    };
    let _echo = TcpEcho::listen(&host, ":22")?;
    let to = format!("{HOST}:22");
    ensure!(connects_in_time(&world, &to)?, "before it is protected");
    let mut said = Vec::new();
    for hook in hooks {
        let sg = Sg::on(&host)?;
        for rule in ["", "{protocol: '50', from: 10.9.0.0/24}"] {
            sg.apply(&format!(
                "groups: {{g: {{ingress: [{rule}]}}}}
interfaces: {{eth0: {{groups: [g], hook: {hook}}}}}"
            ))?;
            let outcome = tcp_connects(&world, &to)?;
            let is_open = !rule.is_empty();
            said.push(format!("{hook}, ESP {is_open}: {outcome:?}"));
        }
        let doctor = sg.run(&["doctor"])?;
        let is_told = doctor.stdout.contains("the IPsec tunnel from 10.9.0.1");
        said.push(format!("{hook}, doctor tells of a tunnel: {is_told}"));
    }
    Ok(Some(said))
}

#[test]
fn ipsec_in_transport_mode_is_judged_by_the_rules_for_esp() -> Result<()> {
    let hooks = ["tc", "xdp", "xdp-generic"];
    let Some(said) = ipsec("transport", &hooks)? else {
        return Ok(());
    };
    let right = hooks.iter().flat_map(|hook| {
        [
            format!("{hook}, ESP false: TimedOut"),
            format!("{hook}, ESP true: Connected"),
            format!("{hook}, doctor tells of a tunnel: false"),
        ]
    });
    ensure!(right.eq(said.clone()), "{said:#?}");
    Ok(())
}

#[test]
fn an_ipsec_tunnel_without_an_interface_works_at_xdp_and_doctor_tells_of_it_at_tc() -> Result<()> {
    let Some(said) = ipsec("tunnel", &["tc", "xdp"])? else {
        return Ok(());
    };
    let right = [
        "tc, ESP false: TimedOut",
        "tc, ESP true: TimedOut",
        "tc, doctor tells of a tunnel: true",
        "xdp, ESP false: TimedOut",
        "xdp, ESP true: Connected",
        "xdp, doctor tells of a tunnel: false",
    ];
    ensure!(said == right, "{said:#?}");
    Ok(())
}

#[test]
fn doctor_tells_of_a_flowtable_that_forwards_past_a_vlan() -> Result<()> {
    let vlan = "link set eth0 up; link add link eth0 name dev0 type vlan id 5";
    let Some((_lab, _world, host)) = machines(&alike(vlan))? else {
        return Ok(());
    };
    let flowtable = "table inet filter { flowtable fast { hook ingress priority 0; \
                     devices = { eth0 }; } }";
    if let Err(error) = host.run("nft", &[flowtable]) {
        println!("skipped: no flowtable is to be had here: {error:#}");
        return Ok(());
    }
    let sg = Sg::on(&host)?;
    let said = "connections that the flowtable fast of nftables' table filter forwards by eth0 do \
                not pass the hooks of dev0";
    for (protected, is_told) in [("dev0", true), ("eth0", false)] {
        sg.apply(&policy(&[protected], "tc")?)?;
        let doctor = sg.run(&["doctor"])?;
        ensure!(
            doctor.stdout.contains(said) == is_told,
            "{protected}: {doctor}"
        );
    }
    Ok(())
}
