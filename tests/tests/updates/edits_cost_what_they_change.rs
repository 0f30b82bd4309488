//! A rule, a member or a prefix that comes or goes is made in the maps that are there, and then the
//! kernel holds what is stored.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use sg_common::packet::Direction;
use sg_ctl::controller::{Controller, Done};
use sg_ctl::crash::Point;
use sg_ctl::dirs::DirOptions;
use sg_ctl::policy::change::{Change, Edit};
use sg_ctl::policy::model::{Peer, Permission, PortRange, Rule, Traffic};
use sg_ctl::policy::names::{GroupId, GroupName, RuleId};
use tests::lab::{Lab, Pair};
use tests::sg::{Sg, crashing_sg_ctl};
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, UdpEcho, tcp_connects, udp_roundtrip};

/// Cells of every kind: rules open to everyone, prefixes of both families that overlap, peers that
/// are groups and lists, and addresses and prefixes that are in several of them.
const POLICY: &str = "
prefix_lists:
  clients: [10.0.0.0/28, 2001:db8:aa::/48]
  partners: [10.0.0.0/24, 203.0.113.0/24]
groups:
  web:
    ingress:
      - {protocol: tcp, ports: [7, 8000-8080], from: [pl:clients, sg:admin]}
      - {protocol: tcp, ports: 22, from: [10.0.0.0/8, 10.0.0.0/24, 2001:db8::/32]}
      - {protocol: udp, ports: 53, from: [pl:partners, sg:monitors]}
      - {protocol: icmp, from: [0.0.0.0/0]}
    egress:
      - {protocol: all, to: [10.0.0.0/8, '2001:db8::/32']}
  db:
    ingress:
      - {protocol: tcp, ports: 5432, from: [sg:web, sg:admin, 10.0.0.128/25]}
    egress: []
  admin: {members: [10.1.1.1, '2001:db8::2']}
  monitors: {members: [10.1.1.1, 10.1.1.2]}
interfaces:
  eth0: {groups: [web]}
  eth1: {groups: [web, db]}
";

fn protected() -> Result<(Pair, Sg)> {
    let pair = Lab::pair()?;
    pair.host.ip("link add eth1 type veth peer name other1")?;
    let sg = Sg::on(&pair.host)?;
    sg.apply(POLICY)?;
    Ok((pair, sg))
}

/// A rule of the group `web` that comes or goes.
fn rule<'a>(change: &'a str, words: &'a str) -> Vec<&'a str> {
    let mut command = vec!["rule", change, "web"];
    command.extend(words.split_whitespace());
    command
}

fn edit(words: &str) -> Vec<&str> {
    words.split_whitespace().collect()
}

/// The folders of the maps that hold policies.
fn layouts(sg: &Sg) -> Result<Vec<String>> {
    let names = fs::read_dir(sg.run_dir().join("bpf"))?;
    let names = names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<Result<_>>()?;
    names.retain(|name| name.starts_with("layout-"));
    Ok(names)
}

/// Runs an edit, and makes sure that it was made in the maps that were there and that the kernel then
/// holds what is stored.
fn edits(sg: &Sg, words: &[&str]) -> Result<()> {
    let before = layouts(sg)?;
    sg.run(words)?.succeeded()?;
    ensure!(layouts(sg)? == before, "{words:?}: the maps were made anew");
    holds(sg).with_context(|| format!("after {words:?}"))
}

fn holds(sg: &Sg) -> Result<()> {
    let told = sg.json(&["verify"])?;
    ensure!(told["same"] == true, "{told}");
    Ok(())
}

#[test]
fn each_edit_is_made_in_the_tables_that_are_there() -> Result<()> {
    let (_pair, sg) = protected()?;
    for words in [
        "--ingress --protocol tcp --ports 443 --from 198.51.100.0/24",
        "--ingress --protocol tcp --ports 443 --from 198.51.100.7",
        "--ingress --protocol tcp --ports 22 --from 10.0.0.0/9",
        "--ingress --protocol tcp --ports 443 --from 2001:db8:1::/48",
        "--ingress --protocol tcp --ports 443 --from 2001:db8:1::7",
        "--ingress --protocol tcp --ports 443 --from 0.0.0.0/0 --from ::/0",
        "--ingress --protocol udp --ports 1-1000,2000 --from sg:admin",
        "--ingress --protocol udp --ports 500 --from pl:partners",
        "--egress --protocol tcp --ports 443 --to 198.51.100.0/24",
        "--egress --protocol all --to sg:monitors",
    ] {
        edits(&sg, &rule("add", words))?;
        edits(&sg, &rule("remove", words))?;
        edits(&sg, &rule("add", words))?;
    }
    for words in [
        "group members admin --add 10.0.0.77 2001:db8::77",
        "group members monitors --add 10.0.0.77",
        "group members admin --remove 10.0.0.77",
        "group members monitors --remove 10.0.0.77 10.1.1.1",
        "group members web --add 10.0.0.77",
        "prefix-list add clients 10.0.0.1/32 198.51.100.0/25",
        "prefix-list add clients 2001:db8:bb:1::5/128",
        "prefix-list add clients 2001:db8:bb::/48",
        "prefix-list remove clients 10.0.0.0/28",
        "prefix-list remove clients 2001:db8:aa::/48 10.0.0.1/32",
        "prefix-list add partners 198.51.100.0/24",
    ] {
        edits(&sg, &edit(words))?;
    }
    Ok(())
}

/// A change of the only VPC.
fn change(edit: Edit) -> Result<Change> {
    Ok(Change {
        vpc: "default".parse()?,
        edit,
    })
}

fn tcp(port: u16, peer: Peer) -> Result<Rule> {
    let port = PortRange::new(port, port).context("no port")?;
    Ok(Rule {
        id: RuleId::random(),
        permission: Permission {
            direction: Direction::Ingress,
            traffic: Traffic::Tcp(port),
            peer,
        },
        description: String::new(),
    })
}

#[test]
fn a_policy_that_is_kept_compiled_is_edited_in_the_tables_that_are_there() -> Result<()> {
    let (pair, sg) = protected()?;
    let _listener = TcpEcho::listen(&pair.host, ":443")?;
    let before = layouts(&sg)?;
    let options = DirOptions {
        state_dir: sg.state_dir(),
        run_dir: sg.run_dir(),
    };
    let web: GroupName = "web".parse()?;
    let monitors: GroupName = "monitors".parse()?;
    let rules = [
        tcp(443, Peer::Prefix("10.0.0.1/32".parse()?))?,
        tcp(444, Peer::Prefix("2001:db8:1::7/128".parse()?))?,
        tcp(445, Peer::PrefixList("partners".parse()?))?,
        tcp(446, Peer::Group(monitors.clone()))?,
    ];
    let members = |texts: &[&str]| -> Result<Edit> {
        let members = texts.iter().map(|text| Ok(text.parse()?));
        Ok(Edit::SetMembers(
            monitors.clone(),
            members.collect::<Result<_>>()?,
        ))
    };
    let prefixes = |texts: &[&str]| -> Result<Edit> {
        let prefixes = texts.iter().map(|text| Ok(text.parse()?));
        let name = "partners".parse()?;
        Ok(Edit::PutPrefixList(name, prefixes.collect::<Result<_>>()?))
    };
    let mut edits = Vec::new();
    for rule in &rules {
        edits.push(Edit::AddRule(web.clone(), rule.clone()));
    }
    edits.extend([
        members(&["10.1.1.1", "10.1.1.3", "2001:db8::9"])?,
        members(&["10.1.1.3"])?,
        prefixes(&["10.0.0.0/25", "203.0.113.0/24", "2001:db8:bb::/48"])?,
        prefixes(&["203.0.113.0/24"])?,
    ]);
    for rule in &rules[1..] {
        edits.push(Edit::RemoveRule(web.clone(), rule.id));
    }
    pair.host.enter(|| {
        let mut controller = Controller::open(&options)?;
        controller.hold()?;
        let mut last: Option<Done> = None;
        for edit in edits {
            let edited = controller.change(&[change(edit.clone())?])?;
            ensure!(edited.generation.is_some(), "{edit:?} was installed whole");
            if let Some(last) = last {
                ensure!(edited.generation == last.generation.map(|one| one + 1));
                ensure!(edited.revision > last.revision);
            }
            last = Some(edited);
        }
        // What the tables have no edit for is installed whole, and edits go on.
        let group = Edit::CreateGroup {
            name: "other".parse()?,
            id: GroupId::random(),
            description: String::new(),
        };
        ensure!(controller.change(&[change(group)?])?.generation.is_none());
        // What is refused changes nothing.
        let again = Edit::AddRule(web.clone(), tcp(1, Peer::Group("nobody".parse()?))?);
        ensure!(controller.change(&[change(again)?]).is_err());
        let comes = Edit::AddRule(web.clone(), tcp(7, Peer::Prefix("10.0.0.2/32".parse()?))?);
        ensure!(controller.change(&[change(comes)?])?.generation.is_some());
        Ok(())
    })?;
    ensure!(layouts(&sg)? == before, "the maps were made anew");
    holds(&sg)?;
    ensure!(tcp_connects(&pair.world, "10.0.0.10:443")? == Connected);
    ensure!(tcp_connects(&pair.world, "10.0.0.10:445")? == TimedOut);
    // And a command goes on from there.
    self::edits(
        &sg,
        &rule("add", "--ingress --protocol tcp --ports 9 --from sg:admin"),
    )
}

#[test]
fn what_gives_many_entries_another_shape_is_made_in_them_too() -> Result<()> {
    let (_pair, sg) = protected()?;
    // Nobody has named these before, and then nobody does any more.
    let first = "--ingress --protocol tcp --ports 1 --from sg:db";
    edits(&sg, &rule("add", first))?;
    edits(&sg, &rule("remove", first))?;
    // Who is everyone is looked up elsewhere.
    edits(&sg, &edit("prefix-list add clients 0.0.0.0/0"))?;
    edits(&sg, &edit("prefix-list remove clients 0.0.0.0/0"))?;
    // Those of a policy that nothing is in change nothing in the kernel.
    sg.run(&edit("group create idle"))?.succeeded()?;
    sg.run(&edit(
        "rule add idle --ingress --protocol tcp --ports 1 --from 10.0.0.0/8",
    ))?
    .succeeded()?;
    holds(&sg)
}

#[test]
fn an_edit_is_refused_as_ever_and_changes_nothing() -> Result<()> {
    let (_pair, sg) = protected()?;
    // Where there is a daemon, it has taken in what was applied by the time that this is made.
    edits(&sg, &edit("group members admin --add 10.0.0.78"))?;
    let generation = || fs::read(sg.run_dir().join("installed"));
    let before = generation()?;
    for (words, told) in [
        (
            "rule add web --ingress --protocol tcp --ports 22 --from 10.0.0.0/8",
            "already",
        ),
        (
            "rule add wep --ingress --protocol tcp --ports 23 --from 10.0.0.0/8",
            "did you mean \"web\"",
        ),
        (
            "rule add web --ingress --protocol tcp --ports 23 --from sg:nobody",
            "nobody",
        ),
        (
            "rule remove web --ingress --protocol tcp --ports 23 --from 10.0.0.0/8",
            "no rule",
        ),
        ("prefix-list add nobody 10.0.0.0/8", "nobody"),
    ] {
        let ran = sg.run(&edit(words))?;
        ensure!(ran.code == Some(2) && ran.stderr.contains(told), "{ran}");
    }
    ensure!(generation()? == before);
    holds(&sg)
}

#[test]
fn packets_meet_what_an_edit_makes() -> Result<()> {
    let (pair, sg) = protected()?;
    let _listeners = (
        TcpEcho::listen(&pair.host, ":7")?,
        TcpEcho::listen(&pair.host, ":9000")?,
        UdpEcho::listen(&pair.host, ":53")?,
    );
    let tcp = |port: u16| tcp_connects(&pair.world, &format!("10.0.0.10:{port}"));
    let udp = || udp_roundtrip(pair.world.at("10.0.0.1")?, "10.0.0.10:53");
    ensure!(tcp(7)? == Connected && tcp(9000)? == TimedOut && udp()? == Connected);
    let open = "--ingress --protocol tcp --ports 9000 --from 10.0.0.1";
    edits(&sg, &rule("add", open))?;
    ensure!(tcp(9000)? == Connected, "a rule was added");
    edits(&sg, &rule("remove", open))?;
    ensure!(tcp(9000)? == TimedOut, "it was removed");
    edits(&sg, &edit("prefix-list remove clients 10.0.0.0/28"))?;
    ensure!(tcp(7)? == TimedOut, "a prefix was removed");
    edits(&sg, &edit("group members admin --add 10.0.0.1"))?;
    ensure!(
        tcp(7)? == Connected,
        "the peer is a member of another group"
    );
    edits(&sg, &edit("group members admin --remove 10.0.0.1"))?;
    edits(&sg, &edit("prefix-list add clients 10.0.0.0/31"))?;
    ensure!(tcp(7)? == Connected, "a shorter prefix was added");
    edits(&sg, &edit("prefix-list remove partners 10.0.0.0/24"))?;
    ensure!(
        udp()? == TimedOut,
        "what another list holds is nothing to this one"
    );
    edits(&sg, &edit("group members monitors --add 10.0.0.1"))?;
    ensure!(udp()? == Connected);
    Ok(())
}

/// The steps of an edit.
const STEPS: [Point; 13] = [
    Point::StoreWritten,
    Point::StoreCommitted,
    Point::Marked,
    Point::ArenasWritten,
    Point::CountersCleared,
    Point::BuffersPrepared,
    Point::KeysWritten,
    Point::GenerationRaised,
    Point::ReadersGone,
    Point::BuffersMirrored,
    Point::KeysDeleted,
    Point::RecordWritten,
    Point::Unmarked,
];

#[test]
fn a_killed_edit_is_completed_by_the_next_one() -> Result<()> {
    let (pair, mut sg) = protected()?;
    sg.end_daemon();
    let program = crashing_sg_ctl()?;
    let _listener = TcpEcho::listen(&pair.host, ":7")?;
    let connects = || tcp_connects(&pair.world, "10.0.0.10:7");
    for (number, step) in STEPS.iter().enumerate() {
        let command = match number % 3 {
            0 => format!(
                "rule add web --ingress --protocol tcp --ports {} --from 192.0.2.0/24",
                20_000 + number
            ),
            1 => format!("group members admin --add 10.7.0.{number}"),
            _ => format!("prefix-list add clients 10.8.{number}.0/24"),
        };
        let killed = sg.run_to(step.name(), &program, &edit(&command))?;
        let at = format!("{command}, killed at {}", step.name());
        ensure!(killed.code.is_none(), "{at}: not reached: {killed}");
        ensure!(
            connects()? == Connected,
            "{at}: what no edit is about is cut"
        );
        let next = format!("prefix-list add partners 10.9.{number}.0/24");
        sg.run(&edit(&next))?.succeeded()?;
        holds(&sg).with_context(|| at)?;
    }
    Ok(())
}

#[test]
fn neighbours_that_share_a_table_stay_when_others_come() -> Result<()> {
    let (pair, sg) = protected()?;
    pair.world
        .ip("addr add 2001:db8:0:1::1/128 dev eth0 nodad")?;
    pair.world
        .ip("addr add 2001:db8:0:2::1/128 dev eth0 nodad")?;
    let gateways = "prefix-list set clients 2001:db8:0:1::1/128 2001:db8:0:2::1/128";
    sg.run(&edit(gateways))?.succeeded()?;
    let passes = || -> Result<bool> {
        let mut all = true;
        for source in ["2001:db8:0:1::1", "2001:db8:0:2::1"] {
            let explained = sg.run(&["explain", "eth0", "ingress", "tcp", source, ":7"])?;
            ensure!(matches!(explained.code, Some(0 | 1)), "{explained}");
            all &= explained.code == Some(0);
        }
        Ok(all)
    };
    ensure!(passes()?, "as they were set");
    edits(&sg, &edit("prefix-list add clients 2001:db8:ff::/48"))?;
    ensure!(passes()?, "an edit of another region cut them off");
    Ok(())
}

#[test]
fn an_edit_repairs_what_others_have_undone() -> Result<()> {
    let (_pair, sg) = protected()?;
    // Whoever detaches a link behind our back is found out.
    let links = sg.run_dir().join("bpf/links");
    let link = fs::read_dir(&links)?.flatten().next().context("no link")?;
    fs::remove_file(link.path())?;
    sg.run(&edit("group members admin --add 10.0.0.9"))?
        .succeeded()?;
    holds(&sg)?;
    sg.run(&edit("group members admin --add 10.0.0.10"))?
        .succeeded()?;
    let shown = sg.json(&edit("group show admin"))?.to_string();
    ensure!(shown.contains("10.0.0.10"), "{shown}");
    holds(&sg)
}
