//! Edits of a policy, applied all or none.
//!
//! A batch may be inconsistent in the middle; what it leaves behind may not. The rules of that are
//! in `check`; here an edit only fails when what it speaks of is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hashbrown::HashMap;
use ipnet::IpNet;

use super::check;
use super::findings::{Dependents, Findings, Problem, Subject};
use super::model::{Group, Interface, OnRuleRemoval, Peer, Policy, Rule, Vpc};
use super::names::{GroupId, GroupName, InterfaceName, PrefixListName, RuleId, VpcName};
use super::suggest::closest;

/// One edit of one VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The VPC that is edited.
    pub vpc: VpcName,
    /// What happens to it.
    pub edit: Edit,
}

/// The smallest things that can happen to a VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Makes the VPC with its group `default`, which has no rules until they are added.
    CreateVpc {
        /// The id of the group `default`.
        default_group: GroupId,
    },
    /// Deletes the VPC with all its groups; refused while it has interfaces.
    DeleteVpc,
    /// Replaces the services that groups never filter.
    SetLinkLocalServices(BTreeSet<IpAddr>),
    /// Sets what happens to flows whose rule goes.
    SetOnRuleRemoval(OnRuleRemoval),
    /// Makes or replaces a prefix list.
    PutPrefixList(PrefixListName, BTreeSet<IpNet>),
    /// Removes a prefix list that no rule names.
    RemovePrefixList(PrefixListName),
    /// Makes a group that allows nothing until rules are added.
    CreateGroup {
        /// Unique in the VPC without regard to case.
        name: GroupName,
        /// Fresh for a new group.
        id: GroupId,
        /// For people.
        description: String,
    },
    /// Deletes a group that nothing depends on, with its rules.
    DeleteGroup(GroupName),
    /// Replaces a group's description.
    DescribeGroup(GroupName, String),
    /// Replaces a group's static members.
    SetMembers(GroupName, BTreeSet<IpAddr>),
    /// Adds a rule.
    AddRule(GroupName, Rule),
    /// Removes a rule.
    RemoveRule(GroupName, RuleId),
    /// Replaces a rule's description.
    DescribeRule(GroupName, RuleId, String),
    /// Attaches an interface or replaces how it is attached.
    PutInterface(InterfaceName, Interface),
    /// Detaches an interface.
    RemoveInterface(InterfaceName),
}

impl Policy {
    /// Makes all the changes, in order, or says everything that stands against them.
    ///
    /// Takes the policy by value, so that nobody ever holds one that is half changed. Only what
    /// the changes touch is checked again; rules come out sorted by permission.
    pub fn apply(self, changes: &[Change]) -> Result<Self, Findings> {
        let mut draft = Draft {
            policy: self,
            touched: BTreeMap::new(),
        };
        let mut findings = Findings::default();
        for Change { vpc, edit } in changes {
            if let Err(refusal) = draft.make(vpc, edit) {
                findings.add(refusal.0, refusal.1);
            }
        }
        let (policy, touched) = draft.finish();
        // A failed edit leaves gaps that would be reported again as dangling references.
        if findings.is_empty() {
            check::check(&policy, &touched, &mut findings);
            check::check_guests_apart(&policy, &touched, &mut findings);
        }
        findings.or(policy)
    }

    /// Checks a policy that came from elsewhere as a whole, and sorts its rules.
    pub fn checked(mut self) -> Result<Self, Findings> {
        for group in self
            .vpcs
            .values_mut()
            .flat_map(|vpc| vpc.groups.values_mut())
        {
            sort(&mut group.rules);
        }
        let mut findings = Findings::default();
        let everything = |vpc: &Vpc| Touched {
            groups: vpc.groups.keys().map(|name| (name.clone(), None)).collect(),
            prefix_lists: vpc.prefix_lists.keys().cloned().collect(),
            interfaces: vpc.interfaces.keys().cloned().collect(),
        };
        let touched = self
            .vpcs
            .iter()
            .map(|(name, vpc)| (name.clone(), everything(vpc)))
            .collect();
        check::check(&self, &touched, &mut findings);
        findings.or(self)
    }
}

impl Vpc {
    /// Who would be left with nothing if the group went; its own rules do not count.
    pub fn dependents(&self, group: &GroupName) -> Dependents {
        let names_it = |rule: &Rule| matches!(&rule.permission.peer, Peer::Group(g) if g == group);
        let interfaces = self
            .interfaces
            .iter()
            .filter(|(_, i)| i.groups.contains(group));
        let groups = self.groups.iter().filter(|(name, _)| *name != group);
        Dependents {
            interfaces: interfaces.map(|(name, _)| name.clone()).collect(),
            groups: groups
                .filter(|(_, other)| other.rules.iter().any(names_it))
                .map(|(name, _)| name.clone())
                .collect(),
        }
    }
}

/// What a batch has changed in one VPC, gone things included.
#[derive(Default)]
pub(super) struct Touched {
    /// Groups by name, with their rules by id while a batch edits them.
    pub(super) groups: BTreeMap<GroupName, Option<EditedRules>>,
    pub(super) prefix_lists: BTreeSet<PrefixListName>,
    pub(super) interfaces: BTreeSet<InterfaceName>,
}

/// The rules of a group, to be found by id. Those that stay keep their order, so that sorting them
/// again is to look through them.
pub(super) struct EditedRules {
    rules: Vec<Option<Rule>>,
    places: HashMap<RuleId, usize>,
}

impl EditedRules {
    fn of(rules: Vec<Rule>) -> Self {
        let places = rules.iter().zip(0..).map(|(rule, place)| (rule.id, place));
        Self {
            places: places.collect(),
            rules: rules.into_iter().map(Some).collect(),
        }
    }

    /// Adds a rule; tells whether there was none with its id.
    fn add(&mut self, rule: Rule) -> bool {
        let is_new = self.places.insert(rule.id, self.rules.len()).is_none();
        self.rules.push(Some(rule));
        is_new
    }

    fn remove(&mut self, id: RuleId) -> Option<Rule> {
        let place = self.places.remove(&id)?;
        self.rules.get_mut(place)?.take()
    }

    fn get_mut(&mut self, id: RuleId) -> Option<&mut Rule> {
        self.rules.get_mut(*self.places.get(&id)?)?.as_mut()
    }

    fn into_sorted(self) -> Vec<Rule> {
        let mut rules: Vec<Rule> = self.rules.into_iter().flatten().collect();
        sort(&mut rules);
        rules
    }
}

impl Touched {
    pub(super) fn everything(vpc: &Vpc) -> Self {
        Self {
            groups: vpc.groups.keys().map(|name| (name.clone(), None)).collect(),
            prefix_lists: vpc.prefix_lists.keys().cloned().collect(),
            interfaces: vpc.interfaces.keys().cloned().collect(),
        }
    }
}

/// Why an edit cannot be made; boxed, because nearly all of them can.
type Refusal = Box<(Subject, Problem)>;

fn refuse(subject: Subject, problem: Problem) -> Refusal {
    Box::new((subject, problem))
}

struct Draft {
    policy: Policy,
    touched: BTreeMap<VpcName, Touched>,
}

impl Draft {
    fn make(&mut self, name: &VpcName, edit: &Edit) -> Result<(), Refusal> {
        let subject = || Subject::Vpc(name.clone());
        match edit {
            Edit::CreateVpc { .. } if self.policy.vpcs.contains_key(name) => {
                return Err(refuse(subject(), Problem::VpcExists));
            }
            Edit::CreateVpc { default_group } => {
                self.policy
                    .vpcs
                    .insert(name.clone(), Vpc::bare(*default_group));
                let touched = self.touched.entry(name.clone()).or_default();
                touched.groups.insert(GroupName::default_group(), None);
                return Ok(());
            }
            _ => {}
        }
        let vpc = self
            .policy
            .vpcs
            .get_mut(name)
            .ok_or_else(|| refuse(subject(), Problem::NoVpc))?;
        if matches!(edit, Edit::DeleteVpc) {
            if !vpc.interfaces.is_empty() {
                let interfaces = vpc.interfaces.keys().cloned().collect();
                return Err(refuse(subject(), Problem::VpcInUse(interfaces)));
            }
            self.policy.vpcs.remove(name);
            self.touched.remove(name);
            return Ok(());
        }
        if !self.touched.contains_key(name) {
            self.touched.insert(name.clone(), Touched::default());
        }
        match self.touched.get_mut(name) {
            Some(touched) => VpcDraft { name, vpc, touched }.make(edit),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> (Policy, BTreeMap<VpcName, Touched>) {
        for (name, touched) in &mut self.touched {
            let Some(vpc) = self.policy.vpcs.get_mut(name) else {
                continue;
            };
            for (name, rules) in &mut touched.groups {
                if let (Some(rules), Some(group)) = (rules.take(), vpc.groups.get_mut(name)) {
                    group.rules = rules.into_sorted();
                }
            }
        }
        (self.policy, self.touched)
    }
}

/// The order of rules means nothing; one order makes equal groups compare equal.
pub(crate) fn sort(rules: &mut [Rule]) {
    // A stable sort is quick where most are in order.
    rules.sort_by(|a, b| (&a.permission, a.id).cmp(&(&b.permission, b.id)));
}

struct VpcDraft<'a> {
    name: &'a VpcName,
    vpc: &'a mut Vpc,
    touched: &'a mut Touched,
}

impl VpcDraft<'_> {
    fn make(mut self, edit: &Edit) -> Result<(), Refusal> {
        match edit {
            Edit::CreateVpc { .. } | Edit::DeleteVpc => {}
            Edit::SetLinkLocalServices(services) => {
                self.vpc.link_local_services.clone_from(services);
            }
            Edit::SetOnRuleRemoval(choice) => self.vpc.on_rule_removal = *choice,
            Edit::PutPrefixList(name, prefixes) => {
                self.vpc.prefix_lists.insert(name.clone(), prefixes.clone());
                self.touched.prefix_lists.insert(name.clone());
            }
            Edit::RemovePrefixList(name) => self.remove_prefix_list(name)?,
            Edit::CreateGroup {
                name,
                id,
                description,
            } => {
                self.create_group(name, Group::bare(*id, description.clone()))?;
            }
            Edit::DeleteGroup(name) => self.delete_group(name)?,
            Edit::DescribeGroup(name, text) => self.group(name)?.description.clone_from(text),
            Edit::SetMembers(name, members) => self.group(name)?.members.clone_from(members),
            Edit::AddRule(name, rule) => {
                if !self.rules(name)?.add(rule.clone()) {
                    return Err(refuse(self.subject(name), Problem::RuleIdTwice(rule.id)));
                }
            }
            Edit::RemoveRule(name, id) => {
                if self.rules(name)?.remove(*id).is_none() {
                    return Err(refuse(self.subject(name), Problem::NoRule(*id)));
                }
            }
            Edit::DescribeRule(name, id, text) => match self.rules(name)?.get_mut(*id) {
                Some(rule) => rule.description.clone_from(text),
                None => return Err(refuse(self.subject(name), Problem::NoRule(*id))),
            },
            Edit::PutInterface(name, interface) => {
                self.vpc.interfaces.insert(name.clone(), interface.clone());
                self.touched.interfaces.insert(name.clone());
            }
            Edit::RemoveInterface(name) => {
                if self.vpc.interfaces.remove(name).is_none() {
                    let subject = Subject::Interface(self.name.clone(), name.clone());
                    return Err(refuse(subject, Problem::NoInterface));
                }
            }
        }
        Ok(())
    }

    fn subject(&self, group: &GroupName) -> Subject {
        Subject::Group(self.name.clone(), group.clone())
    }

    fn remove_prefix_list(&mut self, name: &PrefixListName) -> Result<(), Refusal> {
        if self.vpc.prefix_lists.remove(name).is_none() {
            let known = self.vpc.prefix_lists.keys().map(PrefixListName::as_str);
            let suggestion = closest(name.as_str(), known).and_then(|name| name.parse().ok());
            let subject = Subject::PrefixList(self.name.clone(), name.clone());
            return Err(refuse(subject, Problem::NoPrefixList { suggestion }));
        }
        self.touched.prefix_lists.insert(name.clone());
        Ok(())
    }

    fn create_group(&mut self, name: &GroupName, group: Group) -> Result<(), Refusal> {
        if let Some((existing, _)) = self.vpc.groups.get_key_value(name) {
            let existing = existing.clone();
            return Err(refuse(
                self.subject(name),
                Problem::GroupExists { existing },
            ));
        }
        self.vpc.groups.insert(name.clone(), group);
        self.touched.groups.insert(name.clone(), None);
        Ok(())
    }

    fn delete_group(&mut self, name: &GroupName) -> Result<(), Refusal> {
        if name.is_default() {
            return Err(refuse(self.subject(name), Problem::DefaultGroup));
        }
        if self.vpc.groups.remove(name).is_none() {
            return Err(self.no_group(name));
        }
        self.touched.groups.insert(name.clone(), None);
        Ok(())
    }

    fn no_group(&self, name: &GroupName) -> Refusal {
        let known = self.vpc.groups.keys().map(GroupName::as_str);
        let suggestion = closest(name.as_str(), known).and_then(|name| name.parse().ok());
        refuse(self.subject(name), Problem::NoGroup { suggestion })
    }

    fn group(&mut self, name: &GroupName) -> Result<&mut Group, Refusal> {
        if !self.vpc.groups.contains_key(name) {
            return Err(self.no_group(name));
        }
        if !self.touched.groups.contains_key(name) {
            self.touched.groups.insert(name.clone(), None);
        }
        let subject = self.subject(name);
        let missing = Problem::NoGroup { suggestion: None };
        self.vpc
            .groups
            .get_mut(name)
            .ok_or_else(|| refuse(subject, missing))
    }

    /// The rules of a group by id, so that a long batch looks none of them up twice.
    fn rules(&mut self, name: &GroupName) -> Result<&mut EditedRules, Refusal> {
        let begun = self.touched.groups.get(name).is_some_and(Option::is_some);
        if !begun {
            let rules = std::mem::take(&mut self.group(name)?.rules);
            let rules = EditedRules::of(rules);
            self.touched.groups.insert(name.clone(), Some(rules));
        }
        let begun = self.touched.groups.get_mut(name).and_then(Option::as_mut);
        begun.ok_or_else(|| {
            let missing = Problem::NoGroup { suggestion: None };
            refuse(Subject::Group(self.name.clone(), name.clone()), missing)
        })
    }
}

#[cfg(test)]
mod tests {
    use sg_common::packet::Direction;

    use super::super::defaults::{create_group, create_vpc};
    use super::super::model::{PortRange, Side, Timeouts, Traffic};
    use super::super::names::NameError;
    use super::*;

    fn name<T: std::str::FromStr<Err = NameError>>(text: &str) -> T {
        text.parse().unwrap()
    }

    fn edit(vpc: &str, edit: Edit) -> Change {
        Change {
            vpc: name(vpc),
            edit,
        }
    }

    fn rule(port: u16, peer: &str) -> Rule {
        let peer = match peer.split_once(':') {
            Some(("sg", group)) => Peer::Group(name(group)),
            Some(("pl", list)) => Peer::PrefixList(name(list)),
            _ => Peer::Prefix(peer.parse().unwrap()),
        };
        let traffic = Traffic::Tcp(PortRange::new(port, port).unwrap());
        let permission = super::super::model::Permission {
            direction: Direction::Ingress,
            traffic,
            peer,
        };
        Rule {
            id: RuleId::random(),
            permission,
            description: String::new(),
        }
    }

    fn add(group: &str, rule: Rule) -> Change {
        edit("prod", Edit::AddRule(name(group), rule))
    }

    fn interface(groups: &[&str]) -> Interface {
        Interface {
            groups: groups.iter().map(|g| name(g)).collect(),
            ..Interface::default()
        }
    }

    fn put(vpc: &str, interface_name: &str, interface: Interface) -> Change {
        edit(vpc, Edit::PutInterface(name(interface_name), interface))
    }

    /// VPC "prod" with prefix list office, groups web and app, eth0 in web, app open to web.
    fn prod() -> Policy {
        let changes = [
            create_vpc(&name("prod")),
            create_group(&name("prod"), &name("web"), ""),
            create_group(&name("prod"), &name("app"), ""),
            create_vpc(&name("dev")),
            create_group(&name("dev"), &name("lab"), ""),
            vec![
                edit(
                    "prod",
                    Edit::PutPrefixList(
                        name("office"),
                        BTreeSet::from(["203.0.113.0/24".parse().unwrap()]),
                    ),
                ),
                add("app", rule(8080, "sg:web")),
                add("web", rule(22, "pl:office")),
                put("prod", "eth0", interface(&["web"])),
            ],
        ];
        Policy::default().apply(&changes.concat()).unwrap()
    }

    fn check(changes: &[Change], wanted: &[&str]) {
        let before = prod();
        let findings = before.clone().apply(changes).err().unwrap_or_default();
        let found: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(found, wanted, "{changes:#?}\non {before:#?}");
    }

    #[test]
    fn a_sound_batch_may_be_unsound_in_the_middle() {
        check(
            &[
                add("app", rule(1, "sg:new")),
                edit("prod", Edit::DeleteGroup(name("web"))),
                edit("prod", Edit::RemoveInterface(name("eth0"))),
                edit(
                    "prod",
                    Edit::CreateGroup {
                        name: name("web"),
                        id: GroupId::random(),
                        description: String::new(),
                    },
                ),
                edit(
                    "prod",
                    Edit::CreateGroup {
                        name: name("new"),
                        id: GroupId::random(),
                        description: String::new(),
                    },
                ),
            ],
            &[],
        );
    }

    #[test]
    fn what_is_not_there_cannot_be_edited() {
        check(
            &[edit("pro", Edit::DeleteVpc)],
            &["VPC \"pro\" does not exist; create it first"],
        );
        check(
            &[edit("prod", Edit::DeleteGroup(name("wbe")))],
            &["VPC \"prod\", group \"wbe\" does not exist; did you mean \"web\"?"],
        );
        check(
            &[edit("prod", Edit::RemovePrefixList(name("homes")))],
            &["VPC \"prod\", prefix list \"homes\" does not exist; create it first"],
        );
        check(
            &[edit("prod", Edit::RemoveInterface(name("eth1")))],
            &["VPC \"prod\", interface \"eth1\" is not attached; attach it first"],
        );
        let id = name("sgr-00000000000000001");
        check(
            &[edit("prod", Edit::RemoveRule(name("web"), id))],
            &[
                "VPC \"prod\", group \"web\" has no rule sgr-00000000000000001; list its rules to \
               see their ids",
            ],
        );
    }

    #[test]
    fn a_name_is_taken_in_every_spelling() {
        check(
            &create_group(&name("prod"), &name("WEB"), "")[..1],
            &["VPC \"prod\", group \"WEB\" exists already (spelt \"web\"); choose another name"],
        );
        check(
            &create_vpc(&name("PROD"))[..1],
            &["VPC \"PROD\" exists already; choose another name"],
        );
    }

    #[test]
    fn what_others_depend_on_stays_and_they_are_named() {
        check(
            &[edit("prod", Edit::DeleteGroup(name("web")))],
            &[
                "VPC \"prod\", group \"web\" is still used by interface \"eth0\" and rules of group \
               \"app\"; change what uses it first",
            ],
        );
        check(
            &[edit("prod", Edit::RemovePrefixList(name("office")))],
            &[
                "VPC \"prod\", prefix list \"office\" is still named by rules of group \"web\"; \
               remove those rules first",
            ],
        );
        check(
            &[edit("prod", Edit::DeleteVpc)],
            &["VPC \"prod\" is used by interface \"eth0\"; detach what uses it first"],
        );
        check(
            &[edit("prod", Edit::DeleteGroup(name("Default")))],
            &[
                "VPC \"prod\", group \"Default\" cannot be deleted, because every VPC has it; \
               remove its rules instead",
            ],
        );
    }

    #[test]
    fn what_goes_is_reported_once_and_not_by_each_that_names_it() {
        check(
            &[
                edit("prod", Edit::DeleteGroup(name("web"))),
                edit("prod", Edit::RemovePrefixList(name("office"))),
                add("app", rule(1, "sg:web")),
                add("app", rule(2, "pl:office")),
                put("prod", "eth0", interface(&["web"])),
            ],
            &[
                "VPC \"prod\", prefix list \"office\" is still named by rules of group \"app\"; \
                 remove those rules first",
                "VPC \"prod\", group \"web\" is still used by interface \"eth0\" and rules of \
                 group \"app\"; change what uses it first",
            ],
        );
    }

    #[test]
    fn references_lead_somewhere_in_the_same_vpc() {
        check(
            &[
                add("web", rule(1, "sg:ap")),
                add("web", rule(2, "sg:lab")),
                add("web", rule(3, "pl:ofice")),
            ],
            &[
                "VPC \"prod\", group \"web\" names group \"ap\", which does not exist; did you \
                 mean \"app\"?",
                "VPC \"prod\", group \"web\" names group \"lab\", which is in VPC \"dev\"; \
                 references never leave a VPC, so create the group here or name its prefixes",
                "VPC \"prod\", group \"web\" names prefix list \"ofice\", which does not exist; \
                 did you mean \"office\"?",
            ],
        );
    }

    #[test]
    fn a_rule_is_there_once() {
        let (first, second) = (rule(80, "10.0.0.0/8"), rule(80, "10.0.0.0/8"));
        let ids = [first.id.min(second.id), first.id.max(second.id)];
        check(
            &[add("web", first), add("web", second)],
            &[&format!(
                "VPC \"prod\", group \"web\" allows \"tcp 80 from 10.0.0.0/8\" twice ({} and {}); \
                 keep one",
                ids[0], ids[1]
            )],
        );
        check(
            &[
                add("web", rule(80, "10.0.0.0/8")),
                add("web", rule(80, "10.0.0.0/9")),
            ],
            &[],
        );
    }

    #[test]
    fn an_interface_is_whole_and_in_one_vpc() {
        let guest = Interface {
            side: Side::Guest,
            ..interface(&["web"])
        };
        let addresses = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
        check(
            &[
                put("prod", "eth0", interface(&[])),
                put(
                    "prod",
                    "eth1",
                    Interface {
                        addresses,
                        ..interface(&["web"])
                    },
                ),
                put("prod", "tap0", guest),
            ],
            &[
                "VPC \"prod\", interface \"eth0\" has no group; give it at least one, like \
                 \"default\"",
                "VPC \"prod\", interface \"eth1\" protects this machine, whose addresses are read \
                 from the interface; leave addresses out, or set side to guest",
                "VPC \"prod\", interface \"tap0\" protects a guest but has no addresses; list the \
                 addresses of the guest",
            ],
        );
        check(
            &[put("dev", "eth0", interface(&["lab"]))],
            &[
                "VPC \"prod\", interface \"eth0\" is attached in VPC \"dev\" and in VPC \"prod\"; \
               detach it from one of them",
            ],
        );
        let elsewhere = Interface {
            netns: Some("blue".to_owned()),
            ..interface(&["lab"])
        };
        check(&[put("dev", "eth0", elsewhere)], &[]);
    }

    #[test]
    fn the_settings_of_an_interface_have_bounds() {
        let timeouts = Timeouts {
            tcp_established_s: 59,
            udp_s: 61,
            udp_stream_s: 180,
        };
        let ethertypes = BTreeSet::from([0x8847, 0x8915, 0x0100]);
        let odd = Interface {
            timeouts,
            ethertypes,
            max_flows: Some(0),
            netns: Some("a/b".to_owned()),
            ..interface(&["web"])
        };
        check(
            &[put("prod", "eth0", odd)],
            &[
                "VPC \"prod\", interface \"eth0\" has tcp_established at 59 s; use 60 to 432000 s",
                "VPC \"prod\", interface \"eth0\" has udp at 61 s; use 30 to 60 s",
                "VPC \"prod\", interface \"eth0\" lets EtherType 0x0100 pass unjudged, which is a \
                 length; leave it out, or use a number from 0x0600 to 0xffff",
                "VPC \"prod\", interface \"eth0\" lets EtherType 0x8847 pass unjudged, which is \
                 MPLS, which carries packets; leave it out, because what it carries is for the \
                 rules to judge",
                "VPC \"prod\", interface \"eth0\" has max_flows at 0, which admits no tracked \
                 flow; use 1 or more, or leave it out",
                "VPC \"prod\", interface \"eth0\" has \"a/b\" as its network namespace; give a \
                 name of `ip netns` or an absolute path",
            ],
        );
    }

    #[test]
    fn values_that_cannot_mean_what_they_say_are_refused() {
        check(
            &[
                edit(
                    "prod",
                    Edit::SetMembers(name("web"), BTreeSet::from(["ff02::1".parse().unwrap()])),
                ),
                edit(
                    "prod",
                    Edit::SetLinkLocalServices(BTreeSet::from(["10.0.0.2".parse().unwrap()])),
                ),
                add("app", rule(1, "10.0.0.1/8")),
            ],
            &[
                "VPC \"prod\" has a fault: 10.0.0.2 is not link-local; services that groups never \
                 filter lie in 169.254.0.0/16, fd00:ec2::/32 or fe80::/10, and any other address \
                 needs a rule",
                "VPC \"prod\", group \"app\" has a fault: 10.0.0.1/8 has bits set behind its \
                 length; write 10.0.0.0/8",
                "VPC \"prod\", group \"web\" has a fault: ff02::1 is a multicast address, which \
                 no peer has as its own; give a unicast address",
            ],
        );
    }

    #[test]
    fn a_policy_from_elsewhere_is_checked_whole() {
        let mut policy = prod();
        assert_eq!(policy.clone().checked(), Ok(policy.clone()));
        let vpc = policy.vpcs.get_mut(&name::<VpcName>("prod")).unwrap();
        vpc.groups.remove(&name::<GroupName>("web"));
        assert_eq!(policy.checked().unwrap_err().count(), 2);
    }

    #[test]
    fn untouched_groups_keep_their_rules_and_touched_ones_are_sorted() {
        let before = prod();
        let after = before
            .clone()
            .apply(&[add("web", rule(1, "10.0.0.0/8"))])
            .unwrap();
        let (before, after) = (&before.vpcs[&name("prod")], &after.vpcs[&name("prod")]);
        assert_eq!(before.groups[&name("app")], after.groups[&name("app")]);
        let permissions: Vec<_> = after.groups[&name("web")]
            .rules
            .iter()
            .map(|r| r.permission.clone())
            .collect();
        assert!(permissions.is_sorted());
    }
}
