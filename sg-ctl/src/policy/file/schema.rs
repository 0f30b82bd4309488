//! The keys of a policy file: one table that the reader, the documents and editors share.
//!
//! The reader refuses a key that is not here. The pages of the manual, `docs/policy.md` and the
//! JSON schema are written from the same rows, and tests hold each default, bound, word and example
//! against what the reader does.

use serde_json::{Map, Value, json};

/// A map of a policy file whose keys are known words.
#[derive(Debug)]
pub struct Table {
    /// The one word that documents use as its heading.
    pub name: &'static str,
    /// How messages call the map.
    pub holder: &'static str,
    /// What messages propose in the place of something else.
    pub(super) wanted: &'static str,
    /// Where the map stands, in a sentence.
    pub about: &'static str,
    /// Its keys, in the order of the documents.
    pub keys: &'static [Key],
}

/// A key with everything that a user has to know about it.
#[derive(Debug)]
pub struct Key {
    /// The key as it is written.
    pub name: &'static str,
    /// What may stand behind it.
    pub kind: Kind,
    /// What a file means that leaves it out.
    pub default: Preset,
    /// A line of a policy file, or the members of a map in braces.
    pub example: &'static str,
    /// What it does, in whole sentences.
    pub about: &'static str,
}

/// What a file means that leaves a key out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// The key may not be left out.
    Required,
    /// The same as with this value.
    Value(&'static str),
    /// Something that no value says.
    Words(&'static str),
}

/// What may stand behind a key.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A text of this form.
    Text(&'static str),
    /// A text of this form, which YAML may take for a number.
    TextOrNumber(&'static str),
    /// One of these words.
    Words(&'static [&'static str]),
    /// `true` or `false`.
    Boolean,
    /// A number within these bounds.
    Number {
        /// The lowest.
        least: u32,
        /// The highest.
        most: u32,
    },
    /// A time within these bounds, in seconds or with a unit.
    Seconds {
        /// The shortest.
        least: u32,
        /// The longest.
        most: u32,
    },
    /// A list of maps.
    Maps(&'static Table),
    /// One value, or a list of them.
    OneOrMore(&'static Kind, &'static str),
    /// A map with known keys.
    Map(&'static Table),
    /// A map from names to values.
    Named(&'static str, &'static Kind),
    /// A map from names to maps, which may be empty.
    NamedMaps(&'static str, &'static Table),
}

impl Table {
    /// The keys as messages list them.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        self.keys.iter().map(|key| key.name)
    }
}

const NAME: &str = "at most 255 letters a-z and A-Z, digits, spaces and marks like . _ - : /";
const ADDRESS: Kind = Kind::Text("an address like 192.0.2.1 or 2001:db8::1");
const PREFIX: Kind = Kind::Text("a prefix like 10.0.0.0/8 or 2001:db8::/32, or an address");
const PEER: Kind = Kind::Text("a prefix, an address, sg:GROUP, pl:LIST or self");
const PORT: Kind =
    Kind::TextOrNumber("a port, a range like 8000-8080, the name of a service, or all");
const GROUP_NAME: Kind = Kind::Text("the name of a group, with or without sg: before it");
const PREFIX_LIST: Kind = Kind::OneOrMore(&PREFIX, "prefixes");

/// The whole file.
pub static FILE: Table = Table {
    name: "file",
    holder: "a policy file",
    wanted: "keys like groups and interfaces",
    about: "The keys of the file itself.",
    keys: &[
        Key {
            name: "vpc",
            kind: Kind::Text(NAME),
            default: Preset::Value("default"),
            example: "vpc: prod",
            about: "The VPC that the file describes. `apply` makes this VPC match the file and \
                    changes no other VPC. Names of groups and prefix lists belong to one VPC.",
        },
        Key {
            name: "prefix_lists",
            kind: Kind::Named("names of lists, which may not begin with pl-", &PREFIX_LIST),
            default: Preset::Value("{}"),
            example: "prefix_lists: {office: [203.0.113.0/24, \"2001:db8:aa::/48\"]}",
            about: "Named lists of prefixes. A rule names one as `pl:office`. One list may have \
                    prefixes of both families.",
        },
        Key {
            name: "groups",
            kind: Kind::NamedMaps("names of groups, which may not begin with sg-", &GROUP),
            default: Preset::Value("{}"),
            example: "groups: {web: {ingress: [{service: https, from: [0.0.0.0/0]}]}}",
            about: "The security groups. Each VPC also has the group `default`: its members reach \
                    each other and everything outside, unless the file says otherwise. Names are \
                    compared without regard to case.",
        },
        Key {
            name: "interfaces",
            kind: Kind::NamedMaps(
                "names of interfaces, of 1 to 15 bytes; with match 1 to 63",
                &INTERFACE,
            ),
            default: Preset::Words("interfaces stay as they are"),
            example: "interfaces: {eth0: {groups: [default]}}",
            about: "The protected interfaces. `apply` attaches each one in the file, and detaches \
                    each interface of this VPC that is not in the file. Without this key \
                    interfaces stay as they are; `{}` detaches all of them.",
        },
        Key {
            name: "link_local_services",
            kind: Kind::OneOrMore(
                &ADDRESS,
                "addresses in 169.254.0.0/16, fd00:ec2::/32 or fe80::/10",
            ),
            default: Preset::Words(
                "169.254.169.123, .250, .251, .253 and .254, 169.254.170.2, fd00:ec2::123, \
                 fd00:ec2::253 and fd00:ec2::254",
            ),
            example: "link_local_services: [169.254.169.254, \"fd00:ec2::254\"]",
            about: "Services on the link that groups never filter, in both directions: name \
                    resolution, time and instance metadata of a cloud. `[]` means that rules judge \
                    them like any other address.",
        },
        Key {
            name: "on_rule_removal",
            kind: Kind::Words(&["keep", "terminate"]),
            default: Preset::Value("keep"),
            example: "on_rule_removal: terminate",
            about: "What a removed rule does to the connections that it allowed. With `keep` they \
                    go on until they end, as on AWS, but for untracked ones, which end. With `terminate` the next packet of each \
                    connection is judged by the new rules.",
        },
    ],
};

/// A group.
pub static GROUP: Table = Table {
    name: "group",
    holder: "a group",
    wanted: "keys like ingress and egress",
    about: "The keys of a group, under its name in `groups`. A group without any key lets nothing \
            in and everything out.",
    keys: &[
        Key {
            name: "description",
            kind: Kind::Text("at most 255 characters, those of names"),
            default: Preset::Value("\"\""),
            example: "description: SSH from the office",
            about: "A text for people.",
        },
        Key {
            name: "ingress",
            kind: Kind::Maps(&RULE),
            default: Preset::Value("[]"),
            example: "ingress: [{service: ssh, from: [10.0.0.0/8]}]",
            about: "What may reach the members. `inbound` is another word for it. In the group \
                    `default` the default is everything from its own members.",
        },
        Key {
            name: "egress",
            kind: Kind::Maps(&RULE),
            default: Preset::Value("[{protocol: all, to: [0.0.0.0/0, \"::/0\"]}]"),
            example: "egress: [{service: dns, to: [192.0.2.53]}]",
            about: "What the members may reach. `outbound` is another word for it. `[]` lets \
                    nothing out but answers.",
        },
        Key {
            name: "members",
            kind: Kind::OneOrMore(&ADDRESS, "unicast addresses"),
            default: Preset::Value("[]"),
            example: "members: [192.0.2.20]",
            about: "Addresses that belong to the group besides those of its interfaces: other \
                    machines that rules mean when they name the group.",
        },
    ],
};

/// A rule.
pub static RULE: Table = Table {
    name: "rule",
    holder: "a rule",
    wanted: "a rule like {protocol: tcp, ports: 22, from: [10.0.0.0/8]}",
    about: "The keys of a rule, in the lists `ingress` and `egress`. A rule allows; no rule \
            forbids. A rule has a `service` or a `protocol`, and `from` in ingress or `to` in egress. \
            One entry with several ports and peers stands for a rule for each pair of them.",
    keys: &[
        Key {
            name: "service",
            kind: Kind::Text("the name of a service (the list is below)"),
            default: Preset::Words("none: `protocol` says what is allowed"),
            example: "{service: https, from: [0.0.0.0/0, \"::/0\"]}",
            about: "A protocol and its ports by one name. It replaces `protocol`, `ports`, `type` \
                    and `code`.",
        },
        Key {
            name: "protocol",
            kind: Kind::TextOrNumber(
                "tcp, udp, icmp, icmpv6, all, a number from 0 to 255, or one of the names igmp, \
                 ipip, dccp, ipv6, gre, esp, ah, ospf, pim, vrrp, sctp, udplite",
            ),
            default: Preset::Words("none: `service` says what is allowed"),
            example: "{protocol: esp, from: [198.51.100.0/24]}",
            about: "The protocol. Only TCP and UDP have ports, and only ICMP and ICMPv6 have a \
                    type and a code; any other protocol is allowed whole. `all` is every protocol.",
        },
        Key {
            name: "ports",
            kind: Kind::OneOrMore(&PORT, "ports from 0 to 65535"),
            default: Preset::Words("required with tcp and udp"),
            example: "{protocol: tcp, ports: [https, 8000-8080], from: [0.0.0.0/0]}",
            about: "The destination ports. `all` is every port. A service stands for the ports that \
                    it has in this protocol.",
        },
        Key {
            name: "type",
            kind: Kind::TextOrNumber("0 to 255, or -1 for every type"),
            default: Preset::Words("every type"),
            example: "{protocol: icmp, type: 8, from: [10.0.0.0/8]}",
            about: "The ICMP or ICMPv6 type. Echo requests are 8 for `icmp` and 128 for `icmpv6`; \
                    the service `ping` allows both.",
        },
        Key {
            name: "code",
            kind: Kind::TextOrNumber("0 to 255, or -1 for every code"),
            default: Preset::Words("every code of the type"),
            example: "{protocol: icmp, type: 3, code: 4, from: [0.0.0.0/0]}",
            about: "The ICMP or ICMPv6 code. It needs a `type`.",
        },
        Key {
            name: "from",
            kind: Kind::OneOrMore(&PEER, "peers"),
            default: Preset::Words("required in ingress"),
            example: "{service: ssh, from: [203.0.113.0/24, sg:web, pl:office, self]}",
            about: "Who may open the connection: a prefix, the members of a group (`sg:web`), the \
                    prefixes of a list (`pl:office`), or the members of this group itself \
                    (`self`). Bits behind the length of a prefix are cleared.",
        },
        Key {
            name: "to",
            kind: Kind::OneOrMore(&PEER, "peers"),
            default: Preset::Words("required in egress"),
            example: "{service: https, to: [0.0.0.0/0, \"::/0\"]}",
            about: "Where members may open a connection to, in the same words as `from`.",
        },
        Key {
            name: "description",
            kind: Kind::Text("at most 255 characters, those of names"),
            default: Preset::Value("\"\""),
            example: "{service: ssh, from: [10.0.0.0/8], description: from the bastion}",
            about: "A text for people. Two rules that allow the same are one rule, whatever their \
                    descriptions are.",
        },
    ],
};

/// A protected interface.
pub static INTERFACE: Table = Table {
    name: "interface",
    holder: "an interface",
    wanted: "its settings like {groups: [web]}",
    about: "The keys of an interface, under its name in `interfaces`.",
    keys: &[
        Key {
            name: "match",
            kind: Kind::Map(&MATCH),
            default: Preset::Words("the device of the interface's name"),
            example: "match: {name: \"vnet*\"}",
            about: "Which devices the entry is for. Each of them is an interface of its own, called \
                    `ENTRY/DEVICE`. There may be none yet: what comes later is protected when it \
                    comes.",
        },
        Key {
            name: "groups",
            kind: Kind::OneOrMore(&GROUP_NAME, "at least one group of this VPC"),
            default: Preset::Required,
            example: "groups: [default]",
            about: "The groups that the interface is in. A packet passes when any rule of any of \
                    them allows it.",
        },
        Key {
            name: "side",
            kind: Kind::Words(&["host", "guest"]),
            default: Preset::Value("host"),
            example: "side: guest, addresses: [10.0.3.7]",
            about: "What is protected. `host` is this machine: what the interface receives is \
                    ingress. `guest` is the virtual machine or container behind a tap or veth: \
                    what the interface receives is the guest's egress.",
        },
        Key {
            name: "hook",
            kind: Kind::Words(&["auto", "xdp", "tc", "xdp-generic"]),
            default: Preset::Value("auto"),
            example: "hook: tc",
            about: "The hook of the kernel that judges what the interface receives. `auto` takes \
                    the faster one for the kind of device. `xdp` is run by the driver, and is \
                    refused where the driver cannot; `xdp-generic` is run by the kernel above any \
                    driver. What leaves is always judged at TC.",
        },
        Key {
            name: "netns",
            kind: Kind::Text("a name below /run/netns, or an absolute path"),
            default: Preset::Words("the namespace of the command"),
            example: "netns: web",
            about: "The network namespace of the interface.",
        },
        Key {
            name: "addresses",
            kind: Kind::OneOrMore(
                &ADDRESS,
                "unicast addresses; required for guests, refused for hosts",
            ),
            default: Preset::Value("[]"),
            example: "side: guest, addresses: [10.0.3.7, \"2001:db8::7\"]",
            about: "The addresses of a guest. It can send from no other address and receives for \
                    no other, and they are its addresses as a member of its groups. The addresses \
                    of a host are read from the interface.",
        },
        Key {
            name: "macs",
            kind: Kind::OneOrMore(
                &Kind::Text(
                    "a MAC address like 52:54:00:12:34:56; or the word peer or any instead",
                ),
                "MAC addresses; refused for hosts",
            ),
            default: Preset::Words("`peer`"),
            example: "side: guest, addresses: [10.0.3.7], macs: [\"52:54:00:12:34:56\"]",
            about: "The MAC addresses that a guest sends from. `peer` is that of the other end of a \
                    veth or netkit pair; the guest of a tap, which has no other end, then sends \
                    from any. `any` is every MAC address.",
        },
        Key {
            name: "vlans",
            kind: Kind::OneOrMore(
                &Kind::Number {
                    least: 1,
                    most: 4094,
                },
                "VLANs; refused for hosts",
            ),
            default: Preset::Value("[]"),
            example: "side: guest, addresses: [10.0.3.7], vlans: [10, 20]",
            about: "The VLANs of a guest. Frames with another tag are dropped both ways, and so \
                    are all with two tags.",
        },
        Key {
            name: "ethertypes",
            kind: Kind::OneOrMore(
                &Kind::Number {
                    least: 0x0600,
                    most: 0xffff,
                },
                "at most 8 EtherTypes, none of which carries IP packets",
            ),
            default: Preset::Value("[]"),
            example: "ethertypes: [0x8915]",
            about: "EtherTypes besides IP that pass without a judgement. Others are dropped, but \
                    for ARP, LLDP, spanning tree, LACP, EAPOL and PTP.",
        },
        Key {
            name: "replace_xdp",
            kind: Kind::Boolean,
            default: Preset::Value("false"),
            example: "replace_xdp: true",
            about: "Whether sg may replace an XDP program that another program attached.",
        },
        Key {
            name: "tcp_pickup",
            kind: Kind::Boolean,
            default: Preset::Value("true"),
            example: "tcp_pickup: false",
            about: "Whether the rules judge a TCP packet from the middle of an unknown connection. \
                    With `false` it is dropped. `true` keeps connections alive that were open \
                    before the interface was attached.",
        },
        Key {
            name: "fragments",
            kind: Kind::Words(&["early", "strict"]),
            default: Preset::Value("early"),
            example: "fragments: strict",
            about: "Whether a later fragment of an IP packet may pass before its first one, which then \
                    decides for the whole packet (`early`), or only behind it (`strict`). Only a \
                    fragment passes early that holds nothing of a transport header, and whose \
                    protocol some rule admits between the two addresses.",
        },
        Key {
            name: "egress_drops",
            kind: Kind::Words(&["silent", "told"]),
            default: Preset::Value("silent"),
            example: "egress_drops: told",
            about: "What a sender on this machine hears of a packet that is dropped on its way \
                    out. With `silent` nothing, as if it had been lost further on: connections \
                    wait, and survive a drop that is taken back. With `told` the kernel says that \
                    it was not sent: connections end within seconds, and programs may see \
                    \"No buffer space available\".",
        },
        Key {
            name: "audit",
            kind: Kind::Boolean,
            default: Preset::Value("false"),
            example: "audit: true",
            about: "Judge, count and report every packet, but let all of them pass.",
        },
        Key {
            name: "timeouts",
            kind: Kind::Map(&TIMEOUTS),
            default: Preset::Value("{}"),
            example: "timeouts: {tcp_established: 1h}",
            about: "How long idle connections are remembered.",
        },
        Key {
            name: "max_flows",
            kind: Kind::Number {
                least: 1,
                most: u32::MAX,
            },
            default: Preset::Words("no quota of its own"),
            example: "max_flows: 20000",
            about: "The most connections of this interface that may be remembered at one time. \
                    New ones are dropped beyond it (`quota-full`), and existing ones go on.",
        },
    ],
};

/// Which devices an entry is for.
pub static MATCH: Table = Table {
    name: "match",
    holder: "a match",
    wanted: "criteria like {name: \"vnet*\"}",
    about: "The keys of `match` of an interface. At least one is needed, and a device has to be as \
            all of them say.",
    keys: &[
        Key {
            name: "name",
            kind: Kind::Text(
                "1 to 15 bytes; `*` stands for any characters and `?` for any one of them",
            ),
            default: Preset::Words("any name"),
            example: "match: {name: \"vnet*\"}",
            about: "The name of the device.",
        },
        Key {
            name: "mac",
            kind: Kind::Text(
                "a MAC address like 52:54:00:12:34:56, or its beginning like 52:54:00:*",
            ),
            default: Preset::Words("any MAC address"),
            example: "match: {mac: \"52:54:00:12:34:56\"}",
            about: "The MAC address of the device. With `side: guest` that of the guest is meant as \
                    well: of the other end of a veth or netkit pair, and of the guest behind a tap \
                    that has the same address but for a first byte of fe, as libvirt makes it.",
        },
        Key {
            name: "alias",
            kind: Kind::Text("1 to 255 bytes with `*` and `?` as in name"),
            default: Preset::Words("any alias, or none"),
            example: "match: {alias: \"vm web*\"}",
            about: "The alias that an administrator or a manager of guests has given the device, as \
                    `ip link set DEVICE alias TEXT` does.",
        },
    ],
};

/// Idle timeouts.
pub static TIMEOUTS: Table = Table {
    name: "timeouts",
    holder: "timeouts",
    wanted: "times like {tcp_established: 1h}",
    about: "The keys of `timeouts`. A number is seconds; the units are s, m, h and d. The names and \
            the bounds are those of AWS.",
    keys: &[
        Key {
            name: "tcp_established",
            kind: Kind::Seconds {
                least: 60,
                most: 432_000,
            },
            default: Preset::Value("432000"),
            example: "timeouts: {tcp_established: 1h}",
            about: "An established TCP connection.",
        },
        Key {
            name: "udp",
            kind: Kind::Seconds {
                least: 30,
                most: 60,
            },
            default: Preset::Value("30"),
            example: "timeouts: {udp: 60}",
            about: "UDP in one direction only, or one request and its response.",
        },
        Key {
            name: "udp_stream",
            kind: Kind::Seconds {
                least: 60,
                most: 180,
            },
            default: Preset::Value("180"),
            example: "timeouts: {udp_stream: 2m}",
            about: "UDP with more than one request and its response.",
        },
    ],
};

/// Every table, in the order of the documents.
pub static TABLES: [&Table; 6] = [&FILE, &GROUP, &RULE, &INTERFACE, &MATCH, &TIMEOUTS];

/// The schema that editors use to complete and check a policy file as it is written.
pub fn json_schema() -> Value {
    let mut schema = table_schema(&FILE);
    let definitions = TABLES.iter().skip(1);
    let definitions: Map<_, _> = definitions
        .map(|table| (table.name.to_owned(), table_schema(table)))
        .collect();
    if let Value::Object(fields) = &mut schema {
        fields.insert(
            "$schema".to_owned(),
            json!("http://json-schema.org/draft-07/schema#"),
        );
        fields.insert("title".to_owned(), json!("a policy file of sg"));
        fields.insert("definitions".to_owned(), definitions.into());
    }
    schema
}

fn table_schema(table: &Table) -> Value {
    let keys = table.keys.iter().flat_map(|key| {
        let mut schema = kind_schema(&key.kind);
        if let Value::Object(fields) = &mut schema {
            fields.insert("description".to_owned(), json!(plain(key.about)));
            if let Some(default) = default_value(key) {
                fields.insert("default".to_owned(), default);
            }
        }
        let other = other_spelling(key.name).map(|other| (other.to_owned(), schema.clone()));
        [(key.name.to_owned(), schema)].into_iter().chain(other)
    });
    let keys: Map<_, _> = keys.collect();
    let required = table.keys.iter();
    let required = required.filter(|key| key.default == Preset::Required);
    let required: Vec<_> = required.map(|key| key.name).collect();
    json!({
        "type": "object",
        "description": plain(table.about),
        "properties": keys,
        "required": required,
        "additionalProperties": false,
    })
}

/// Sentences without the marks of Markdown.
pub fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// The other word for a key.
pub(super) fn other_spelling(key: &str) -> Option<&'static str> {
    match key {
        "ingress" => Some("inbound"),
        "egress" => Some("outbound"),
        _ => None,
    }
}

fn default_value(key: &Key) -> Option<Value> {
    let Preset::Value(text) = key.default else {
        return None;
    };
    match key.kind {
        Kind::Words(_) | Kind::Text(_) => Some(json!(text.trim_matches('"'))),
        Kind::Boolean | Kind::Number { .. } | Kind::Seconds { .. } => {
            serde_json::from_str(text).ok()
        }
        _ => None,
    }
}

fn kind_schema(kind: &Kind) -> Value {
    match kind {
        Kind::Text(_) => json!({"type": "string"}),
        Kind::TextOrNumber(_) => json!({"type": ["string", "integer"]}),
        Kind::Words(words) => json!({"enum": words}),
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Number { least, most } => {
            json!({"type": "integer", "minimum": least, "maximum": most})
        }
        // Bounds are for numbers only, and the pattern for texts.
        Kind::Seconds { least, most } => json!({
            "type": ["integer", "string"],
            "minimum": least,
            "maximum": most,
            "pattern": "^[0-9.]+(s|m|h|d)?$",
        }),
        Kind::Maps(table) => json!({"type": "array", "items": reference(table)}),
        Kind::OneOrMore(kind, _) => {
            let one = kind_schema(kind);
            json!({"anyOf": [one, {"type": "array", "items": one}]})
        }
        Kind::Map(table) => json!({"allOf": [reference(table)]}),
        Kind::Named(_, kind) => {
            json!({"type": "object", "additionalProperties": kind_schema(kind)})
        }
        Kind::NamedMaps(_, table) => {
            let each = match table.keys.iter().any(|key| key.default == Preset::Required) {
                true => reference(table),
                false => json!({"anyOf": [reference(table), {"type": "null"}]}),
            };
            json!({"type": "object", "additionalProperties": each})
        }
    }
}

fn reference(table: &Table) -> Value {
    json!({"$ref": format!("#/definitions/{}", table.name)})
}

#[cfg(test)]
mod tests {
    use super::super::super::model::Vpc;
    use super::super::PolicyFile;
    use super::*;

    /// A whole file around the members of a map, for each table.
    fn file(table: &Table, key: &Key, members: &str) -> String {
        const LISTS: &str = "prefix_lists: {office: [10.0.0.0/8]}\n";
        let inside = members.strip_prefix('{').unwrap_or(members);
        let inside = inside.strip_suffix('}').unwrap_or(inside);
        match table.name {
            "file" => members.to_owned(),
            "group" => format!("groups: {{g: {{{members}}}}}"),
            "rule" if key.name == "to" => {
                format!("{LISTS}groups: {{web: , g: {{egress: [{{{inside}}}]}}}}")
            }
            "rule" => format!("{LISTS}groups: {{web: , g: {{ingress: [{{{inside}}}]}}}}"),
            "timeouts" => {
                let members = members.strip_prefix("timeouts: ").unwrap_or(members);
                format!("interfaces: {{eth0: {{groups: [default], timeouts: {members}}}}}")
            }
            _ if members.starts_with("groups:") => format!("interfaces: {{eth0: {{{members}}}}}"),
            _ => format!("interfaces: {{eth0: {{groups: [default], {members}}}}}"),
        }
    }

    fn read(text: &str) -> Result<Vpc, String> {
        let file = PolicyFile::parse("p", text).map_err(|findings| findings.to_string())?;
        Ok(without_ids(file.vpc().clone()))
    }

    /// Ids are drawn anew by each reading.
    fn without_ids(mut vpc: Vpc) -> Vpc {
        let id = "sg-00000000000000000".parse().unwrap();
        for group in vpc.groups.values_mut() {
            group.id = id;
            for rule in &mut group.rules {
                rule.id = "sgr-00000000000000000".parse().unwrap();
            }
        }
        vpc
    }

    fn keys() -> impl Iterator<Item = (&'static Table, &'static Key)> {
        let tables = TABLES.into_iter();
        tables.flat_map(|table| table.keys.iter().map(move |key| (table, key)))
    }

    #[test]
    fn every_example_is_a_policy_that_shows_its_key() {
        for (table, key) in keys() {
            let text = file(table, key, key.example);
            assert!(key.example.contains(&format!("{}:", key.name)), "{text}");
            read(&text).unwrap_or_else(|findings| panic!("{findings}\n{text}"));
        }
    }

    #[test]
    fn a_key_with_its_default_means_what_a_file_without_it_means() {
        for (table, key) in keys() {
            let Preset::Value(default) = key.default else {
                continue;
            };
            let set = match table.name {
                "rule" => format!(
                    "{{service: ssh, from: [10.0.0.0/8], {}: {default}}}",
                    key.name
                ),
                "timeouts" => format!("{{{}: {default}}}", key.name),
                _ => format!("{}: {default}", key.name),
            };
            let unset = match table.name {
                "file" if key.name == "groups" => "prefix_lists: {}".to_owned(),
                "file" => "groups: {}".to_owned(),
                "group" => String::new(),
                "rule" => "{service: ssh, from: [10.0.0.0/8]}".to_owned(),
                "timeouts" => "{}".to_owned(),
                _ => "side: host".to_owned(),
            };
            let unset = file(table, key, &unset);
            assert_eq!(read(&file(table, key, &set)), read(&unset), "{}", key.name);
        }
    }

    #[test]
    fn words_and_bounds_are_those_of_the_reader() {
        // A guest has addresses, and a host has none.
        let around = |value: String| match value.as_str() {
            "side: guest" => format!("{value}, addresses: [10.0.0.1]"),
            vlans if vlans.starts_with("vlans:") => {
                format!("side: guest, addresses: [10.0.0.1], {vlans}")
            }
            _ => value,
        };
        for (table, key) in keys() {
            let check = |value: String| {
                let value = match table.name {
                    "timeouts" => format!("{{{}: {value}}}", key.name),
                    _ => around(format!("{}: {value}", key.name)),
                };
                read(&file(table, key, &value))
            };
            match &key.kind {
                Kind::Words(words) => {
                    for word in *words {
                        assert_eq!(check((*word).to_owned()).err(), None, "{word}");
                    }
                    let refusal = check("nonsense".to_owned()).unwrap_err();
                    let named = words.iter().all(|word| refusal.contains(word));
                    assert!(named, "{refusal} does not name {words:?}");
                }
                Kind::Number { least, most }
                | Kind::Seconds { least, most }
                | Kind::OneOrMore(Kind::Number { least, most }, _) => {
                    assert_eq!(check(most.to_string()).err(), None, "{}", key.name);
                    if *least != 0x0600 {
                        assert_eq!(check(least.to_string()).err(), None, "{}", key.name);
                    }
                    let outside = [least.checked_sub(1), most.checked_add(1)];
                    for outside in outside.into_iter().flatten() {
                        assert!(
                            check(outside.to_string()).is_err(),
                            "{} {outside}",
                            key.name
                        );
                    }
                }
                Kind::Boolean => {
                    assert_eq!(check("true".to_owned()).err(), None, "{}", key.name);
                    assert!(check("yes".to_owned()).is_err(), "{}", key.name);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn the_schema_names_every_key_once() {
        let schema = json_schema();
        for table in TABLES {
            let properties = match table.name {
                "file" => &schema["properties"],
                name => &schema["definitions"][name]["properties"],
            };
            for key in table.names() {
                assert!(properties[key]["description"].is_string(), "{key}");
            }
        }
        assert_eq!(
            schema["definitions"]["interface"]["required"],
            json!(["groups"])
        );
        assert_eq!(
            schema["definitions"]["interface"]["properties"]["hook"]["enum"],
            json!(["auto", "xdp", "tc", "xdp-generic"])
        );
        assert_eq!(
            schema["definitions"]["timeouts"]["properties"]["udp"]["maximum"],
            60
        );
    }
}
