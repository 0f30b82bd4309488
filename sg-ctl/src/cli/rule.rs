//! Commands about the rules of a group.

use std::collections::HashSet;

use clap::{Args, Subcommand};
use sg_common::packet::Direction;

use crate::controller::View;
use crate::dirs::DirOptions;
use crate::policy::change::{Change, Edit};
use crate::policy::fan_out;
use crate::policy::model::{Group, Peer, Permission, Policy, Rule, Traffic};
use crate::policy::names::{GroupName, RuleId, VpcName, check_description};
use crate::policy::rule_text::{Protocol, parse_icmp, parse_peer, parse_ports};
use crate::policy::services::service;
use crate::show::{self, Style};

use super::confirm::Confirm;
use super::edit::Edit as CommandEdit;
use super::error::{Error, Result};
use super::output::{print, print_json};
use super::{Answer, choose, json};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add rules to a group: one for each port range and peer
    Add(Add),
    /// Remove rules from a group, by their ids or by what they allow
    Remove(Remove),
    /// List rules with their ids
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The group
    group: GroupName,
    #[command(flatten)]
    words: Words,
    /// A text for people
    #[arg(long, default_value = "")]
    description: String,
    /// The VPC of the group [default: `default`, or the only one that has it]
    #[arg(long)]
    vpc: Option<VpcName>,
    #[command(flatten)]
    confirm: Confirm,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The group
    group: GroupName,
    /// Ids of rules
    #[arg(value_name = "RULE-ID", conflicts_with = "Words")]
    ids: Vec<RuleId>,
    #[command(flatten)]
    words: Words,
    /// Close the connections that no rule allows any more
    #[arg(long)]
    terminate: bool,
    /// The VPC of the group [default: `default`, or the only one that has it]
    #[arg(long)]
    vpc: Option<VpcName>,
    #[command(flatten)]
    confirm: Confirm,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// The group; all of them if none is named
    group: Option<GroupName>,
    /// The VPC
    #[arg(long)]
    vpc: Option<VpcName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What rules allow, as files spell it.
#[derive(Debug, Default, Args)]
#[group(id = "Words", multiple = true)]
struct Words {
    /// Towards the interfaces in the group
    #[arg(long, conflicts_with = "egress")]
    ingress: bool,
    /// Away from the interfaces in the group
    #[arg(long)]
    egress: bool,
    /// A named service like ssh or https, instead of protocol and ports
    #[arg(long, conflicts_with_all = ["protocol", "ports", "icmp_type", "code"])]
    service: Option<String>,
    /// tcp, udp, icmp, icmpv6, all or a number
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Ports like 443, 8000-8080, https or 80,443; all for every port
    #[arg(long, value_name = "PORTS")]
    ports: Vec<String>,
    /// ICMP type; all of them if left out
    #[arg(long = "type", value_name = "TYPE", allow_negative_numbers = true)]
    icmp_type: Option<String>,
    /// ICMP code; all of them if left out
    #[arg(long, allow_negative_numbers = true)]
    code: Option<String>,
    /// Who may open connections to the members: a prefix, sg:GROUP, pl:LIST or self; repeat for several
    #[arg(long, value_name = "PEER")]
    from: Vec<String>,
    /// Where members may open connections to: a prefix, sg:GROUP, pl:LIST or self; repeat for several
    #[arg(long, value_name = "PEER")]
    to: Vec<String>,
}

impl Words {
    /// One permission for each traffic and peer.
    fn permissions(&self, group: &GroupName) -> Result<Vec<Permission>> {
        let (direction, given, other) = match (self.ingress, self.egress) {
            (true, false) => (Direction::Ingress, &self.from, &self.to),
            (false, true) => (Direction::Egress, &self.to, &self.from),
            _ => return Err(Error::NoDirection),
        };
        let (wanted, refused) = match direction {
            Direction::Ingress => ("from", "to"),
            Direction::Egress => ("to", "from"),
        };
        if !other.is_empty() {
            return Err(Error::PeerOption {
                direction: direction.name(),
                given: refused,
                wanted,
            });
        }
        let peers = given.iter().map(|text| parse_peer(text, Some(group)));
        let peers: Vec<Peer> = peers.collect::<Result<_, _>>()?;
        if peers.is_empty() {
            return Err(Error::NoPeer(wanted));
        }
        let traffic = self.traffic()?;
        if fan_out::product(traffic.len(), peers.len()) > fan_out::MOST {
            return Err(Error::FanOut {
                ranges: traffic.len(),
                peers: peers.len(),
            });
        }
        // Said twice is meant once.
        let (mut seen, mut permissions) = (HashSet::new(), Vec::new());
        for traffic in traffic {
            for peer in &peers {
                let permission = Permission {
                    direction,
                    traffic,
                    peer: peer.clone(),
                };
                if seen.insert(permission.clone()) {
                    permissions.push(permission);
                }
            }
        }
        Ok(permissions)
    }

    fn traffic(&self) -> Result<Vec<Traffic>> {
        if let Some(name) = &self.service {
            return Ok(service(name)?.traffic.to_vec());
        }
        let protocol = self.protocol.ok_or(Error::NoTraffic)?;
        let mut ports = Vec::new();
        for text in &self.ports {
            for read in parse_ports(text)? {
                ports.extend(read.ranges(protocol)?);
            }
        }
        let icmp = match (&self.icmp_type, &self.code) {
            (None, None) => None,
            (kind, code) => Some(parse_icmp(kind.as_deref(), code.as_deref())?),
        };
        let ports = (!self.ports.is_empty()).then_some(ports.as_slice());
        Ok(protocol.traffic(ports, icmp)?)
    }
}

impl Command {
    /// What it changes, if anything.
    pub(super) fn edit(self) -> Option<Result<CommandEdit>> {
        match self {
            Self::Add(command) => Some(command.edit()),
            Self::Remove(command) => Some(command.edit()),
            Self::List(_) => None,
        }
    }

    pub(super) fn run(self, dirs: &DirOptions) -> Result<Answer> {
        match self {
            Self::Add(command) => command.edit()?.run(dirs),
            Self::Remove(command) => command.edit()?.run(dirs),
            Self::List(command) => command.run(dirs),
        }
    }
}

impl Add {
    fn edit(self) -> Result<CommandEdit> {
        let permissions = self.words.permissions(&self.group)?;
        check_description(&self.description)?;
        let changes = move |policy: &Policy| {
            let (vpc, _, name, group) =
                choose::vpc_of_group(policy, self.vpc.as_ref(), &self.group)?;
            let rules = permissions.iter().map(|permission| {
                if let Some(rule) = find(group, permission) {
                    return Err(Error::RuleExists {
                        group: name.clone(),
                        id: rule.id,
                        permission: permission.clone(),
                    });
                }
                let rule = Rule {
                    id: RuleId::random(),
                    permission: permission.clone(),
                    description: self.description.clone(),
                };
                Ok(Change {
                    vpc: vpc.clone(),
                    edit: Edit::AddRule(name.clone(), rule),
                })
            });
            rules.collect()
        };
        Ok(CommandEdit::new(self.confirm, changes).of_rules(false))
    }
}

impl Remove {
    fn edit(self) -> Result<CommandEdit> {
        let permissions = match self.ids.is_empty() {
            true => self.words.permissions(&self.group).map_err(|error| {
                match self.words.is_empty() {
                    true => Error::NothingToRemove,
                    false => error,
                }
            })?,
            false => Vec::new(),
        };
        let terminate = self.terminate;
        let changes = move |policy: &Policy| {
            let (vpc, _, name, group) =
                choose::vpc_of_group(policy, self.vpc.as_ref(), &self.group)?;
            let mut ids = self.ids.clone();
            ids.sort_unstable();
            ids.dedup();
            for permission in &permissions {
                match find(group, permission) {
                    Some(rule) => ids.push(rule.id),
                    None => {
                        return Err(Error::NoSuchRule {
                            group: name.clone(),
                            permission: permission.clone(),
                        });
                    }
                }
            }
            let changes = ids.into_iter().map(|id| Change {
                vpc: vpc.clone(),
                edit: Edit::RemoveRule(name.clone(), id),
            });
            Ok(changes.collect())
        };
        Ok(CommandEdit::new(self.confirm, changes).of_rules(terminate))
    }
}

impl Words {
    fn is_empty(&self) -> bool {
        !self.ingress
            && !self.egress
            && self.service.is_none()
            && self.protocol.is_none()
            && self.ports.is_empty()
            && self.from.is_empty()
            && self.to.is_empty()
    }
}

/// The rules of a group are sorted by what they allow.
fn find<'a>(group: &'a Group, permission: &Permission) -> Option<&'a Rule> {
    let rules = &group.rules;
    let at = rules.partition_point(|rule| rule.permission < *permission);
    rules.get(at).filter(|rule| rule.permission == *permission)
}

impl List {
    fn run(self, dirs: &DirOptions) -> Result<Answer> {
        let policy = View::open(dirs)?.policy;
        let asked = self.vpc.as_ref();
        let groups: Vec<(&VpcName, &GroupName, &Group)> = match &self.group {
            Some(group) => {
                let (vpc, _, name, group) = choose::vpc_of_group(&policy, asked, group)?;
                vec![(vpc, name, group)]
            }
            None => {
                if let Some(asked) = asked {
                    choose::named_vpc(&policy, asked)?;
                }
                let vpcs = policy.vpcs.iter();
                vpcs.filter(|(name, _)| asked.is_none_or(|asked| asked == *name))
                    .flat_map(|(vpc_name, vpc)| {
                        let groups = vpc.groups.iter();
                        groups.map(move |(name, group)| (vpc_name, name, group))
                    })
                    .collect()
            }
        };
        let rules = groups.into_iter().flat_map(|(vpc, name, group)| {
            let rules = group.rules.iter();
            rules.map(move |rule| (vpc, name, rule))
        });
        match self.json {
            true => {
                let rules = rules.map(|(vpc, group, rule)| json::rule(vpc, group, rule));
                let rules: Vec<_> = rules.collect();
                print_json(&serde_json::json!({ "rules": rules }))?;
            }
            false => print(&show::rules(rules, Style::of_stdout()))?,
        }
        Ok(Answer::Yes)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command as Any};
    use super::*;

    /// What the rules of a command line allow, or the first line of what it is told.
    fn check(line: &str, wanted: &[&str]) {
        let words = ["sg-ctl", "rule", "add", "web"].into_iter();
        let told = match Cli::try_parse_from(words.chain(line.split_whitespace())) {
            Err(error) => vec![error.to_string().lines().next().unwrap().to_owned()],
            Ok(Cli {
                command: Any::Rule(Command::Add(add)),
                ..
            }) => match add.words.permissions(&add.group) {
                Ok(permissions) => permissions.iter().map(Permission::to_string).collect(),
                Err(error) => vec![error.to_string()],
            },
            Ok(other) => panic!("{other:?}"),
        };
        assert_eq!(told, wanted, "{line}");
    }

    #[test]
    fn a_rule_is_said_as_a_file_says_it() {
        check(
            "--ingress --protocol tcp --ports 443 --from 0.0.0.0/0 --from ::/0",
            &["tcp 443 from 0.0.0.0/0", "tcp 443 from ::/0"],
        );
        check(
            "--ingress --protocol tcp --ports 8000-8080,9000 --from sg:web",
            &["tcp 8000-8080 from sg:web", "tcp 9000 from sg:web"],
        );
        check(
            "--egress --service dns --to pl:dns",
            &["tcp 53 to pl:dns", "udp 53 to pl:dns"],
        );
        check(
            "--ingress --protocol icmp --type 8 --from self",
            &["icmp 8 from sg:web"],
        );
        check(
            "--ingress --protocol icmp --type -1 --from self",
            &["icmp * from sg:web"],
        );
        check(
            "--ingress --protocol 47 --from 10.0.0.1",
            &["protocol 47 from 10.0.0.1/32"],
        );
        check(
            "--ingress --service ssh --from 10.0.0.0/8 --from 10.1.2.3/8",
            &["tcp 22 from 10.0.0.0/8"],
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_said_in_a_sentence() {
        check(
            "--protocol tcp --ports 1 --from ::/0",
            &["say --ingress or --egress"],
        );
        check(
            "--ingress --from ::/0",
            &[
                "say what the rule allows: --service NAME, or --protocol with --ports, or with --type",
            ],
        );
        check(
            "--ingress --service ssh",
            &["say whom the rule speaks of with --from: a prefix, sg:GROUP or pl:LIST"],
        );
        check(
            "--egress --service ssh --from ::/0",
            &["an egress rule has no --from; its peers follow --to"],
        );
        check(
            "--ingress --protocol tcp --ports 90-80 --from ::/0",
            &["the port range 90-80 is reversed; write 80-90"],
        );
        check(
            "--ingress --protocol tcpp --ports 90 --from ::/0",
            &[
                "error: invalid value 'tcpp' for '--protocol <PROTOCOL>': \"tcpp\" is not a protocol; did you mean \"tcp\"?",
            ],
        );
    }

    #[test]
    fn rules_to_remove_are_named_by_ids_or_by_words_but_not_by_both() {
        let parse = |line: &str| {
            let words = ["sg-ctl", "rule", "remove", "web"].into_iter();
            Cli::try_parse_from(words.chain(line.split_whitespace()))
        };
        assert!(parse("sgr-00000000000000001 sgr-00000000000000002 --terminate").is_ok());
        assert!(parse("--ingress --service ssh --from ::/0").is_ok());
        assert!(parse("sgr-00000000000000001 --ingress").is_err());
        assert!(parse("sgr-1").is_err());
    }
}
