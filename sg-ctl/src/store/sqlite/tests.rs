//! What the store promises, against real files.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use sg_common::packet::Direction;
use tempfile::TempDir;

use super::*;
use crate::policy::change::Edit;
use crate::policy::matching::DeviceMatch;
use crate::policy::model::{
    EgressDrops, Hook, IcmpMatch, Interface, Macs, OnRuleRemoval, Peer, Permission, PortRange,
    Rule, Side, Timeouts, Traffic,
};
use crate::policy::names::{
    GroupId, GroupName, InterfaceName, NameError, PrefixListId, PrefixListName, RuleId,
};
use crate::store::contract;

fn name<T: FromStr<Err = NameError>>(text: &str) -> T {
    text.parse().unwrap()
}

fn edit(edit: Edit) -> Change {
    Change {
        vpc: VpcName::default(),
        edit,
    }
}

fn rule(peer: Peer) -> Rule {
    let permission = Permission {
        direction: Direction::Ingress,
        traffic: Traffic::All,
        peer,
    };
    Rule {
        id: RuleId::random(),
        permission,
        description: String::new(),
    }
}

fn create_group(group: &str) -> Change {
    let (id, description) = (GroupId::random(), "for a test".to_owned());
    edit(Edit::CreateGroup {
        name: name(group),
        id,
        description,
    })
}

fn open(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(folder.path()).unwrap()
}

fn new_store() -> (TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    (folder, store)
}

/// Commits to what is there, and gives what is there then.
fn commit(store: &mut SqliteStore, changes: &[Change]) -> Policy {
    let (revision, _) = store.snapshot().unwrap();
    store.commit(revision, changes).unwrap();
    store.snapshot().unwrap().1
}

#[test]
fn a_new_store_holds_the_vpc_default_with_its_group() {
    let (folder, store) = new_store();
    let (revision, policy) = store.snapshot().unwrap();
    let vpc = &policy.vpcs[&VpcName::default()];
    assert_eq!(policy.vpcs.len(), 1);
    assert_eq!(
        vpc.groups.keys().map(GroupName::as_str).collect::<Vec<_>>(),
        ["default"]
    );
    assert_eq!(vpc.groups[&GroupName::default_group()].rules.len(), 3);
    drop(store);
    assert_eq!(open(&folder).snapshot().unwrap(), (revision, policy));
}

#[test]
fn the_file_is_for_its_owner_only() {
    let (folder, store) = new_store();
    let mode = |file: &str| {
        fs::metadata(folder.path().join(file))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    for file in ["policy.db", "policy.db-wal", "policy.db-shm"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    drop(store);
    let file = folder.path().join("policy.db");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let _store = open(&folder);
    assert_eq!(mode("policy.db"), 0o600);
}

#[test]
fn the_second_of_two_writers_is_told_of_the_first() {
    let (folder, mut first) = new_store();
    let mut second = open(&folder);
    let (revision, _) = second.snapshot().unwrap();
    let next = first.commit(revision, &[create_group("web")]).unwrap();
    match second.commit(revision, &[create_group("app")]) {
        Err(StoreError::Conflict { expected, found }) => {
            assert_eq!((expected, found), (revision, next));
        }
        other => panic!("{other:?}"),
    }
    second.commit(next, &[create_group("app")]).unwrap();
    assert_eq!(
        first.snapshot().unwrap().1.vpcs[&VpcName::default()]
            .groups
            .len(),
        3
    );
}

#[test]
fn writers_at_once_lose_nothing() {
    let (folder, store) = new_store();
    thread::scope(|scope| {
        for writer in 0..4 {
            let folder = &folder;
            scope.spawn(move || {
                let mut store = open(folder);
                for i in 0..10 {
                    let change = [create_group(&format!("g{writer}-{i}"))];
                    loop {
                        let (revision, _) = store.snapshot().unwrap();
                        match store.commit(revision, &change) {
                            Ok(_) => break,
                            Err(StoreError::Conflict { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(
        store.snapshot().unwrap().1.vpcs[&VpcName::default()]
            .groups
            .len(),
        41
    );
}

#[test]
fn no_changes_make_no_revision() {
    let (_folder, mut store) = new_store();
    let (revision, _) = store.snapshot().unwrap();
    assert_eq!(store.commit(revision, &[]).unwrap(), revision);
}

#[test]
fn a_batch_may_delete_what_others_name_if_it_makes_it_again() {
    let (_folder, mut store) = new_store();
    let (web, list) = (name("web"), name("office"));
    let prefixes: BTreeSet<_> = [name_free("10.0.0.0/8")].into();
    commit(
        &mut store,
        &[
            edit(Edit::AddRule(
                GroupName::default_group(),
                rule(Peer::Group(name("web"))),
            )),
            edit(Edit::AddRule(
                GroupName::default_group(),
                rule(Peer::PrefixList(name("office"))),
            )),
            create_group("web"),
            edit(Edit::PutPrefixList(name("office"), prefixes.clone())),
        ],
    );
    let policy = commit(
        &mut store,
        &[
            edit(Edit::DeleteGroup(web)),
            edit(Edit::RemovePrefixList(list)),
            create_group("WEB"),
            edit(Edit::PutPrefixList(name("Office"), prefixes)),
        ],
    );
    let vpc = &policy.vpcs[&VpcName::default()];
    assert!(vpc.groups.keys().any(|name| name.as_str() == "WEB"));
    assert_eq!(vpc.groups[&GroupName::default_group()].rules.len(), 5);
}

fn name_free<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

#[test]
fn changes_that_do_not_fit_leave_everything_as_it_was() {
    let (_folder, mut store) = new_store();
    commit(
        &mut store,
        &[
            create_group("web"),
            edit(Edit::AddRule(
                GroupName::default_group(),
                rule(Peer::Group(name("web"))),
            )),
        ],
    );
    let before = store.snapshot().unwrap();
    let misfits = [
        (
            edit(Edit::DeleteGroup(name("web"))),
            "would name a group or prefix list that is not",
        ),
        (edit(Edit::DeleteGroup(name("app"))), "no group \"app\""),
        (create_group("Web"), "UNIQUE constraint failed"),
        (
            edit(Edit::RemovePrefixList(name("office"))),
            "no prefix list \"office\"",
        ),
        (
            edit(Edit::RemoveInterface(name("eth0"))),
            "no interface \"eth0\" in VPC \"default\"",
        ),
        (
            edit(Edit::RemoveRule(name("web"), RuleId::random())),
            "no rule sgr-",
        ),
        (
            Change {
                vpc: name("prod"),
                edit: Edit::DeleteVpc,
            },
            "no VPC \"prod\"",
        ),
    ];
    for (misfit, sentence) in misfits {
        let error = store
            .commit(before.0, &[create_group("new"), misfit])
            .unwrap_err();
        assert!(matches!(error, StoreError::Misfit(_)), "{error:?}");
        assert!(error.to_string().contains(sentence), "{error}");
        assert_eq!(store.snapshot().unwrap(), before);
    }
}

#[test]
fn one_prefix_more_in_a_long_list_is_one_row() {
    let (_folder, mut store) = new_store();
    let mut prefixes: BTreeSet<_> = (0..=255)
        .map(|i| name_free(&format!("10.0.{i}.0/24")))
        .collect();
    commit(
        &mut store,
        &[edit(Edit::PutPrefixList(name("office"), prefixes.clone()))],
    );
    prefixes.insert(name_free("192.0.2.0/24"));
    let (revision, _) = store.snapshot().unwrap();
    let before = store.db.total_changes();
    store
        .commit(
            revision,
            &[edit(Edit::PutPrefixList(name("office"), prefixes))],
        )
        .unwrap();
    assert_eq!(
        store.db.total_changes() - before,
        2,
        "the prefix and the revision"
    );
}

#[test]
fn it_is_a_store() {
    let (folder, mut store) = new_store();
    contract::holds(&mut store, || open(&folder));
}

#[test]
fn a_draft_is_private_and_leaves_nothing_when_it_goes() {
    let (folder, mut store) = new_store();
    let path = draft::path(&store);
    commit(&mut store, &[create_group("before")]);
    store.keep_draft().unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // Another takes its place, whatever an interrupted command has left beside it.
    let mut log = path.clone().into_os_string();
    log.push("-wal");
    fs::write(log, b"left").unwrap();
    commit(&mut store, &[create_group("after")]);
    store.keep_draft().unwrap();
    let (_, after) = store.snapshot().unwrap();
    assert_eq!(store.draft().unwrap(), Some(after));
    store.drop_draft().unwrap();
    let left = fs::read_dir(folder.path()).unwrap().flatten();
    let left = left.filter(|file| !file.file_name().to_string_lossy().starts_with("policy"));
    assert_eq!(left.count(), 0);
}

fn refusal(folder: &TempDir) -> StoreError {
    match SqliteStore::open(folder.path()) {
        Err(error) => error,
        Ok(store) => store.snapshot().expect_err("refused"),
    }
}

#[test]
fn a_store_of_the_first_version_goes_on_and_enforces() {
    let (folder, mut store) = new_store();
    let vpc = VpcName::default();
    let eth0: InterfaceName = name("eth0");
    let put = Change {
        vpc: vpc.clone(),
        edit: Edit::PutInterface(
            eth0.clone(),
            Interface {
                groups: BTreeSet::from([GroupName::default_group()]),
                ..Interface::default()
            },
        ),
    };
    let (revision, _) = store.snapshot().unwrap();
    store.commit(revision, &[put]).unwrap();
    let before = store.snapshot().unwrap();
    let older = "DROP TRIGGER rule_has_no_notes; DROP TRIGGER group_has_no_notes; \
                 DROP TRIGGER vpc_has_no_notes; DROP TRIGGER interface_has_no_notes; \
                 DROP TRIGGER prefix_list_has_no_notes; DROP TABLE note; \
                 ALTER TABLE vpc DROP COLUMN object_id; \
                 ALTER TABLE prefix_list DROP COLUMN object_id; \
                 ALTER TABLE interface DROP COLUMN object_id; \
                 DROP TABLE guest_vlan; DROP TABLE guest_mac; \
                 ALTER TABLE interface DROP COLUMN match_name; \
                 ALTER TABLE interface DROP COLUMN match_mac; \
                 ALTER TABLE interface DROP COLUMN match_alias; \
                 ALTER TABLE interface DROP COLUMN any_mac; \
                 ALTER TABLE interface DROP COLUMN egress_drops; \
                 ALTER TABLE interface DROP COLUMN audit; \
                 ALTER TABLE interface DROP COLUMN strict_fragments; \
                 PRAGMA user_version = 1";
    store.db.execute_batch(older).unwrap();
    drop(store);
    let store = open(&folder);
    let after = store.snapshot().unwrap();
    assert_eq!(after, before);
    assert!(!after.1.vpcs[&vpc].interfaces[&eth0].audit);
    let annotated = store.annotated().unwrap().2;
    assert_eq!((annotated.vpcs.len(), annotated.interfaces.len()), (1, 1));
}

#[test]
fn an_object_keeps_its_id_and_notes_until_it_goes() {
    let (_folder, mut store) = new_store();
    let office: PrefixListName = name("office");
    let change = |edit| Change {
        vpc: VpcName::default(),
        edit,
    };
    let put = change(Edit::PutPrefixList(office.clone(), BTreeSet::new()));
    let place = (VpcName::default(), office.clone());
    let web: GroupName = name("web");
    let mut do_with = |changes: &[Change], annotations: &[Annotation]| {
        let (revision, _) = store.snapshot().unwrap();
        let next = store.commit_annotated(revision, changes, annotations);
        assert_eq!(next.unwrap(), store.revision().unwrap());
        assert_ne!(store.revision().unwrap(), revision);
        store.annotated().unwrap().2
    };
    let made = do_with(&[put.clone(), create_group("web")], &[]);
    let id = made.prefix_lists[&place];
    let note = |object: String| Annotation::set(object, "tag:a", "b");
    let again = do_with(std::slice::from_ref(&put), &[note(id.to_string())]);
    assert_eq!(again.prefix_lists[&place], id);
    assert_eq!(again.notes[&id.to_string()]["tag:a"], "b");
    let given: PrefixListId = name("pl-0123456789abcdef0");
    let identify = Annotation::IdentifyPrefixList(place.0.clone(), office.clone(), given);
    assert_eq!(do_with(&[], &[identify]).prefix_lists[&place], given);
    let remove = change(Edit::RemovePrefixList(office.clone()));
    let gone = do_with(&[remove], &[]);
    assert!(gone.prefix_lists.is_empty());
    let made = do_with(&[put], &[note(given.to_string())]);
    assert_ne!(made.prefix_lists[&place], given);
    // What is of no object stays until it is forgotten.
    assert_eq!(made.notes.len(), 2);
    let delete = change(Edit::DeleteGroup(web));
    let gone = do_with(
        &[delete],
        &[Annotation::forget(given), Annotation::forget(id)],
    );
    assert!(gone.notes.is_empty());
}

#[test]
fn a_store_of_a_newer_program_is_left_alone() {
    let (folder, store) = new_store();
    store
        .db
        .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
        .unwrap();
    drop(store);
    let error = refusal(&folder);
    assert!(matches!(error, StoreError::Newer { .. }), "{error:?}");
    assert!(
        error.to_string().contains("was written by a newer sg-ctl"),
        "{error}"
    );
}

#[test]
fn a_file_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.db");
    fs::write(&path, "vpc: prod\n".repeat(200)).unwrap();
    let error = refusal(&folder);
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "vpc: prod\n".repeat(200)
    );

    fs::remove_file(&path).unwrap();
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE song (title)")
        .unwrap();
    let before = fs::read(&path).unwrap();
    let error = refusal(&folder);
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_damaged_file_is_told_from_a_sound_one() {
    let (folder, mut store) = new_store();
    let groups: Vec<_> = (0..500)
        .map(|i| create_group(&format!("group-{i}")))
        .collect();
    commit(&mut store, &groups);
    drop(store);
    let path = folder.path().join("policy.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096..].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let error = refusal(&folder);
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[test]
fn values_that_nobody_wrote_are_refused() {
    for meddling in [
        "UPDATE rule SET direction = 2",
        "UPDATE rule SET rule_id = 'sgr-1' WHERE direction = 0",
        "UPDATE rule SET low = 5",
        "UPDATE rule SET peer_address = x'0102' WHERE peer_address IS NOT NULL",
        "UPDATE security_group SET name = 'sg-x'",
        "UPDATE rule SET description = 'ü'",
        "DELETE FROM revision",
        "UPDATE revision SET number = -1",
    ] {
        let (folder, store) = new_store();
        store.db.pragma_update(None, "foreign_keys", "OFF").unwrap();
        store
            .db
            .execute_batch(meddling)
            .map_err(|error| format!("{meddling}: {error}"))
            .ok();
        drop(store);
        let error = refusal(&folder);
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "{meddling}: {error:?}"
        );
    }
}

const CHILD_FOLDER: &str = "SG_TEST_STORE_FOLDER";

/// Not a promise of its own: what the next test kills. Each commit writes its number in two
/// tables, and says so when it is done.
#[test]
fn child_that_commits_until_it_is_killed() {
    let Some(folder) = env::var_os(CHILD_FOLDER) else {
        return;
    };
    let mut store = SqliteStore::open(Path::new(&folder)).unwrap();
    let (mut revision, _) = store.snapshot().unwrap();
    loop {
        let number = revision.number() + 1;
        let members = (0..number % 200)
            .map(|i| IpAddr::from([10, 0, 0, i as u8]))
            .collect();
        let changes = [
            edit(Edit::DescribeGroup(
                GroupName::default_group(),
                number.to_string(),
            )),
            edit(Edit::SetMembers(GroupName::default_group(), members)),
        ];
        revision = store.commit(revision, &changes).unwrap();
        println!("committed {revision}");
    }
}

#[test]
fn a_killed_commit_is_there_whole_or_not_at_all() {
    let (folder, store) = new_store();
    drop(store);
    let mut last = 0;
    for round in 0..20 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("store::sqlite::tests::child_that_commits_until_it_is_killed")
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let first = told.find(|line| line.starts_with("committed"));
        assert!(first.is_some(), "the child committed nothing");
        thread::sleep(Duration::from_micros(700 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged: u64 = first
            .into_iter()
            .chain(told)
            .filter_map(|line| line.strip_prefix("committed ")?.parse().ok())
            .last()
            .unwrap();

        let (revision, policy) = open(&folder).snapshot().unwrap();
        let group = &policy.vpcs[&VpcName::default()].groups[&GroupName::default_group()];
        let number = revision.number();
        assert!(acknowledged > last, "round {round} did nothing");
        assert!(
            number == acknowledged || number == acknowledged + 1,
            "{acknowledged} was acknowledged, {number} is there"
        );
        assert_eq!(group.description, number.to_string());
        assert_eq!(group.members.len() as u64, number % 200);
        last = acknowledged;
    }
}

fn group_name() -> impl Strategy<Value = GroupName> {
    prop::sample::select(vec!["default", "web", "WEB", "app", "App", "db"]).prop_map(name)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (1..5_u8).prop_map(|i| IpAddr::from([192, 0, 2, i])),
        (1..5_u16).prop_map(|i| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, i])),
    ]
}

fn prefix_of_any_length() -> impl Strategy<Value = ipnet::IpNet> {
    (address(), 0..=32_u8)
        .prop_map(|(address, length)| ipnet::IpNet::new(address, length).unwrap().trunc())
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let range = || (any::<u16>(), any::<u16>());
    let range = move || range().prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap());
    let icmp = || {
        prop_oneof![
            Just(IcmpMatch::Any),
            any::<u8>().prop_map(IcmpMatch::Type),
            any::<(u8, u8)>().prop_map(|(kind, code)| IcmpMatch::TypeCode(kind, code)),
        ]
    };
    prop_oneof![
        Just(Traffic::All),
        range().prop_map(Traffic::Tcp),
        range().prop_map(Traffic::Udp),
        icmp().prop_map(Traffic::Icmp),
        icmp().prop_map(Traffic::Icmpv6),
        any::<u8>().prop_map(Traffic::Protocol),
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let direction = prop::sample::select(vec![Direction::Ingress, Direction::Egress]);
    let peer = prop_oneof![
        prefix_of_any_length().prop_map(Peer::Prefix),
        Just(Peer::PrefixList(name("office"))),
        group_name().prop_map(Peer::Group),
    ];
    (direction, traffic(), peer, "[a-c]{0,2}").prop_map(
        |(direction, traffic, peer, description)| {
            let permission = Permission {
                direction,
                traffic,
                peer,
            };
            Rule {
                id: RuleId::random(),
                permission,
                description,
            }
        },
    )
}

fn interface() -> impl Strategy<Value = Interface> {
    let groups = prop::collection::btree_set(group_name(), 1..3);
    let told = prop::sample::select(vec![EgressDrops::Silent, EgressDrops::Told]);
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        told,
    );
    let choices = (any::<bool>(), 0..3_usize, flags);
    let netns = prop::option::of("[a-c]{1,3}");
    let addresses = prop::collection::btree_set(address(), 0..3);
    let numbers = (
        60..432_000_u32,
        30..60_u32,
        60..180_u32,
        prop::option::of(1..9_u32),
    );
    let ethertypes = prop::collection::btree_set(prop::sample::select(vec![0x8915, 0x88b5]), 0..2);
    (groups, choices, netns, addresses, numbers, ethertypes).prop_map(
        |(groups, (is_guest, hook, flags), netns, addresses, numbers, types)| {
            let macs = match hook {
                0 => Macs::Peer,
                1 => Macs::Any,
                _ => Macs::Listed(["02:00:00:00:00:01".parse().unwrap()].into()),
            };
            let guest_only = if is_guest { macs } else { Macs::Peer };
            let vlans = if is_guest {
                types.clone()
            } else {
                BTreeSet::new()
            };
            let vlans = vlans.into_iter().map(|number: u16| number & 0xff).collect();
            let (replace_xdp, tcp_pickup, strict_fragments, audit, egress_drops) = flags;
            let (tcp_established_s, udp_s, udp_stream_s, max_flows) = numbers;
            let matching = max_flows.map(|number| {
                let mut matching = DeviceMatch::default();
                let criterion = match number & 3 {
                    0 => format!("name=vnet{number}*"),
                    1 => format!("mac=52:54:0{number}:*"),
                    2 => format!("mac=52:54:00:00:00:0{number}"),
                    _ => format!("alias=vm {number}"),
                };
                matching.add(&criterion).unwrap();
                Box::new(matching)
            });
            Interface {
                matching,
                groups,
                side: if is_guest { Side::Guest } else { Side::Host },
                hook: [Hook::Auto, Hook::Xdp, Hook::Tc][hook],
                netns,
                addresses: if is_guest { addresses } else { BTreeSet::new() },
                ethertypes: types,
                replace_xdp,
                tcp_pickup,
                strict_fragments,
                macs: guest_only,
                vlans,
                egress_drops,
                audit,
                timeouts: Timeouts {
                    tcp_established_s,
                    udp_s,
                    udp_stream_s,
                },
                max_flows,
            }
        },
    )
}

/// Changes most of which fit a policy; rules to remove or describe are picked by number.
#[derive(Clone, Debug)]
enum Step {
    Edit(Edit),
    CreateVpc,
    RemoveRule(GroupName, usize),
    DescribeRule(GroupName, usize, String),
}

fn step() -> impl Strategy<Value = Step> {
    let interface_name = || prop::sample::select(vec!["eth0", "tap0"]).prop_map(name);
    let list_name = || prop::sample::select(vec!["office", "OFFICE", "home"]).prop_map(name);
    let text = || "[a-z]{0,3}";
    let edits = prop_oneof![
        1 => Just(Edit::DeleteVpc),
        2 => Just(Edit::SetLinkLocalServices([IpAddr::from([169, 254, 1, 1])].into())),
        2 => prop::sample::select(vec![OnRuleRemoval::Keep, OnRuleRemoval::Terminate])
            .prop_map(Edit::SetOnRuleRemoval),
        6 => (list_name(), prop::collection::btree_set(prefix_of_any_length(), 0..4))
            .prop_map(|(list, prefixes)| Edit::PutPrefixList(list, prefixes)),
        2 => list_name().prop_map(Edit::RemovePrefixList),
        6 => (group_name(), text()).prop_map(|(name, description)| Edit::CreateGroup {
            name, id: GroupId::random(), description: format!("x{description}"),
        }),
        2 => group_name().prop_map(Edit::DeleteGroup),
        2 => (group_name(), text())
            .prop_map(|(group, text)| Edit::DescribeGroup(group, format!("x{text}"))),
        3 => (group_name(), prop::collection::btree_set(address(), 0..4))
            .prop_map(|(group, members)| Edit::SetMembers(group, members)),
        12 => (group_name(), any_rule()).prop_map(|(group, rule)| Edit::AddRule(group, rule)),
        6 => (interface_name(), interface())
            .prop_map(|(name, interface)| Edit::PutInterface(name, interface)),
        2 => interface_name().prop_map(Edit::RemoveInterface),
    ];
    prop_oneof![
        30 => edits.prop_map(Step::Edit),
        2 => Just(Step::CreateVpc),
        4 => (group_name(), any::<usize>()).prop_map(|(group, at)| Step::RemoveRule(group, at)),
        3 => (group_name(), any::<usize>(), text())
            .prop_map(|(group, at, text)| Step::DescribeRule(group, at, text)),
    ]
}

fn changes_of(policy: &Policy, vpc: &VpcName, step: Step) -> Vec<Change> {
    let rule_at = |group: &GroupName, at: usize| {
        let rules = &policy.vpcs.get(vpc)?.groups.get(group)?.rules;
        Some(rules.get(at.checked_rem(rules.len())?)?.id)
    };
    let edit = match step {
        Step::CreateVpc => return create_vpc(vpc),
        Step::Edit(edit) => Some(edit),
        Step::RemoveRule(group, at) => rule_at(&group, at).map(|id| Edit::RemoveRule(group, id)),
        Step::DescribeRule(group, at, text) => {
            rule_at(&group, at).map(|id| Edit::DescribeRule(group, id, text))
        }
    };
    edit.into_iter()
        .map(|edit| Change {
            vpc: vpc.clone(),
            edit,
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Down to the spelling of names, which equality does not look at.
    #[test]
    fn what_was_committed_is_what_is_read(
        steps in prop::collection::vec((any::<bool>(), 0..4_u8, step()), 1..80)
    ) {
        let (folder, mut store) = new_store();
        let (mut revision, mut policy) = store.snapshot().unwrap();
        let mut batch = Vec::new();
        for (ends_batch, vpc, step) in steps {
            let vpc = name(if vpc == 0 { "prod" } else { "default" });
            let changes = changes_of(&policy, &vpc, step);
            if let Ok(next) = policy.clone().apply(&changes) {
                policy = next;
                batch.extend(changes);
            }
            if ends_batch {
                revision = store.commit(revision, &batch).unwrap();
                batch.clear();
            }
        }
        revision = store.commit(revision, &batch).unwrap();
        drop(store);
        let (found, stored) = open(&folder).snapshot().unwrap();
        prop_assert_eq!(found, revision);
        prop_assert_eq!(format!("{stored:#?}"), format!("{policy:#?}"));
    }
}
