//! A case as data, and the only code that knows how to ask for a verdict.
//!
//! A story has one step a line:
//!
//! ```text
//! in WORDS => REASON        a packet towards what eth0 protects, as `tests::packets::words` has it
//! out WORDS => REASON       a packet away from it
//! eth1 in WORDS => REASON   the same at another interface
//! wait SECONDS              the clock moves on
//! policy N                  policy N of the case, counted from 0, is put in force
//! room N                    on the first line: each flow table has room for so many
//! ```
//!
//! `host`, `peer` and the other [`NAMES`] stand for addresses.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use sg_common::flow::Ticks;
use sg_common::packet::Direction;
use sg_common::tables::{Generation, InterfaceFlags};
use sg_ctl::compile::host::HostTables;
use sg_ctl::compile::image::Image;
use sg_ctl::compile::{AttachedInterface, Limits, Settings, compile};
use sg_ctl::policy::file::PolicyFile;
use sg_ctl::policy::model::{OnRuleRemoval, Policy};
use tests::packets::words;

/// A fact, and the story that shows it.
pub(super) struct Case {
    /// What the case is named for.
    pub(super) fact: &'static str,
    policies: &'static [&'static str],
    story: &'static str,
}

/// Under one policy.
pub(super) const fn case(
    fact: &'static str,
    policy: &'static [&'static str],
    story: &'static str,
) -> Case {
    Case {
        fact,
        policies: policy,
        story,
    }
}

/// Who is who in the stories; `peer:80` is an endpoint.
const NAMES: [(&str, &str); 15] = [
    ("host", "10.0.0.10"),
    ("sibling", "10.0.0.11"),
    ("peer", "198.51.100.7"),
    ("other", "203.0.113.5"),
    ("router", "192.0.2.1"),
    ("guest", "10.0.3.7"),
    ("metadata", "169.254.169.254"),
    ("host6", "2001:db8::10"),
    ("peer6", "2001:db8:7::7"),
    ("other6", "2001:db8:5::5"),
    ("router6", "2001:db8:ffff::1"),
    ("guest6", "2001:db8:3::7"),
    ("link6", "fe80::1"),
    ("far6", "fe80::99"),
    ("metadata6", "fd00:ec2::254"),
];

const NETNS: u32 = 1;
const JIFFIES_PER_SECOND: u32 = 1000;
const ROOM: usize = 1 << 10;

/// Checks every case, and shows each one that fails as a whole.
pub(super) fn check_all(cases: &[Case]) {
    let failures: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases fail\n\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

fn check(case: &Case) -> Result<(), String> {
    let mut told = String::new();
    let outcome = tell(case, &mut told);
    outcome.map_err(|wrong| {
        let policies = case.policies.join("\n--\n");
        format!("## {}\n{policies}\n\n{told}{wrong}\n", case.fact)
    })
}

/// Tells the story step by step into `told`.
fn tell(case: &Case, told: &mut String) -> Result<(), String> {
    let lines: Vec<&str> = case
        .story
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let room = lines.first().and_then(|line| line.strip_prefix("room "));
    let room = room.map_or(ROOM, |room| room.parse().expect("a number of flows"));
    let mut world = World::new(case.policies, room)?;
    let mut differs = false;
    for line in lines.into_iter().filter(|line| !line.starts_with("room ")) {
        let step = world
            .step(line)
            .map_err(|error| format!("  {line}\n  ^ {error}"))?;
        let Some(reason) = step else {
            let _ = writeln!(told, "  {line}");
            continue;
        };
        let (_, expected) = line.rsplit_once("=>").ok_or("no `=>`")?;
        let right = expected.trim() == reason;
        differs |= !right;
        let mark = if right { "" } else { "   <== is " };
        let _ = writeln!(told, "  {line}{mark}{}", if right { "" } else { reason });
    }
    if differs { Err(String::new()) } else { Ok(()) }
}

struct World {
    policies: &'static [&'static str],
    policy: Policy,
    image: &'static Image,
    generation: Generation,
    tables: HostTables<'static>,
    milliseconds: u64,
}

impl World {
    fn new(policies: &'static [&'static str], room: usize) -> Result<Self, String> {
        let first = policies.first().ok_or("no policy")?;
        let policy = read(first, &Policy::default())?;
        let generation = Generation(1);
        let image = compiled(&policy, None, generation)?;
        Ok(Self {
            policies,
            policy,
            image,
            generation,
            tables: HostTables::new(image, generation, room),
            milliseconds: 0,
        })
    }

    /// Takes a step; a packet's reason.
    fn step(&mut self, line: &str) -> Result<Option<&'static str>, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["wait", seconds] => {
                let seconds: u64 = seconds.parse().map_err(|_| "no number of seconds")?;
                self.milliseconds += seconds * 1000;
                let jiffies = self.milliseconds * u64::from(JIFFIES_PER_SECOND) / 1000;
                self.tables.set_now(Ticks::from_jiffies(jiffies));
                Ok(None)
            }
            ["policy", number] => {
                let number: usize = number.parse().map_err(|_| "no number of a policy")?;
                let text = self.policies.get(number).ok_or("no such policy")?;
                self.policy = read(text, &self.policy)?;
                self.generation = self.generation.next();
                self.image = compiled(&self.policy, Some(self.image), self.generation)?;
                self.tables.install(self.image, self.generation);
                Ok(None)
            }
            [way @ ("in" | "out"), packet @ .., "=>", _] => {
                self.packet("eth0", way, packet).map(Some)
            }
            [name, way @ ("in" | "out"), packet @ .., "=>", _] => {
                self.packet(name, way, packet).map(Some)
            }
            _ => Err("is no step".to_owned()),
        }
    }

    fn packet(&self, name: &str, way: &str, packet: &[&str]) -> Result<&'static str, String> {
        let words: Vec<String> = packet.iter().map(|word| spelt_out(word)).collect();
        let frame = words::frame(&words.join(" ")).map_err(|error| format!("{error:#}"))?;
        let interfaces = &self.image.interfaces;
        let installed = interfaces
            .values()
            .find(|installed| installed.name.as_str() == name);
        let interface = &installed.ok_or("no such interface")?.interface;
        let direction = match way {
            "in" => Direction::Ingress,
            _ => Direction::Egress,
        };
        let is_guest = interface.flags.has(InterfaceFlags::GUEST);
        let received = (direction == Direction::Ingress) != is_guest;
        Ok(self
            .tables
            .judge(interface, received, frame.as_slice(), &())
            .reason
            .name())
    }
}

/// Replaces a name of [`NAMES`] by its address.
fn spelt_out(word: &str) -> String {
    let (name, port) = match word.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (word, None),
    };
    let Some((_, address)) = NAMES.iter().find(|(known, _)| *known == name) else {
        return word.to_owned();
    };
    match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => (*address).to_owned(),
    }
}

fn read(text: &str, existing: &Policy) -> Result<Policy, String> {
    let file = PolicyFile::parse("policy", text).map_err(|findings| findings.to_string())?;
    file.to_policy(existing)
        .map_err(|findings| findings.to_string())
}

/// eth0 has the address 10.0.0.10 and 2001:db8::10, the next host-side interface 11, and so on.
fn compiled(
    policy: &Policy,
    previous: Option<&Image>,
    generation: Generation,
) -> Result<&'static Image, String> {
    let mut attached = Vec::new();
    for (vpc_name, vpc) in &policy.vpcs {
        for (name, number) in vpc.interfaces.keys().zip(0_u32..) {
            let addresses = [
                format!("10.0.0.{}", 10 + number),
                format!("2001:db8::{}", 10 + number),
            ];
            let addresses = addresses
                .iter()
                .map(|address| address.parse::<IpAddr>().expect("an address"));
            let terminates = previous.is_some() && vpc.on_rule_removal == OnRuleRemoval::Terminate;
            attached.push(AttachedInterface {
                vpc: vpc_name.clone(),
                name: name.clone(),
                netns: NETNS,
                ifindex: number + 2,
                bare: false,
                incarnation: number,
                addresses: addresses.collect::<BTreeSet<_>>(),
                judge_again_before: terminates.then_some(generation),
            });
        }
    }
    let settings = Settings {
        jiffies_per_second: JIFFIES_PER_SECOND,
        assured_flows: 1 << 16,
        limits: Limits::default(),
    };
    let image =
        compile(policy, &attached, previous, &settings).map_err(|error| error.to_string())?;
    Ok(Box::leak(Box::new(image)))
}
