//! What every store promises, whatever it is kept in.

use std::thread;
use std::time::{Duration, Instant};

use sg_common::packet::Direction;

use super::{Owned, Revision, Store, StoreError};
use crate::policy::change::{Change, Edit};
use crate::policy::model::{Peer, Permission, Policy, Rule, Traffic};
use crate::policy::names::{GroupId, GroupName, RuleId, VpcName};

/// Longer than any wait of these tests.
const LONG: Duration = Duration::from_secs(60);

fn group(text: &str) -> GroupName {
    text.parse().unwrap()
}

fn change(edit: Edit) -> Change {
    Change {
        vpc: VpcName::default(),
        edit,
    }
}

fn create(name: &str) -> Change {
    change(Edit::CreateGroup {
        name: group(name),
        id: GroupId::random(),
        description: "for a test".to_owned(),
    })
}

fn rule(prefix: &str) -> Rule {
    Rule {
        id: RuleId::random(),
        permission: Permission {
            direction: Direction::Ingress,
            traffic: Traffic::All,
            peer: Peer::Prefix(prefix.parse().unwrap()),
        },
        description: String::new(),
    }
}

/// Commits to what is there.
fn commit(store: &mut dyn Store, changes: &[Change]) -> (Revision, Policy) {
    let (revision, policy) = store.snapshot().unwrap();
    let next = store.commit(revision, changes).unwrap();
    assert_eq!(next > revision, !changes.is_empty());
    let wanted = policy.apply(changes).unwrap();
    let stored = store.snapshot().unwrap();
    assert_eq!(stored, (next, wanted));
    stored
}

/// Asks everything of a new store that the controller relies on. `open` opens the same store once more.
pub(super) fn holds<S: Store + Send>(store: &mut dyn Store, open: impl Fn() -> S + Sync) {
    commits_are_whole_and_in_order(store, &open());
    groups_and_rules_are_found_alone(store);
    settings_and_drafts_are_beside_the_policy(store, &open());
    a_watch_ends_with_the_next_revision(store, &open);
    assert_eq!(store.id().unwrap(), open().id().unwrap());
    assert_eq!(store.give_id().unwrap(), store.id().unwrap());
    assert!(store.id().unwrap().is_some() && store.read_only().is_none());
}

fn commits_are_whole_and_in_order(store: &mut dyn Store, other: &dyn Store) {
    let (first, _) = store.snapshot().unwrap();
    let (second, policy) = commit(store, &[create("web"), create("db")]);
    assert_eq!(other.snapshot().unwrap(), (second, policy));
    assert_eq!(commit(store, &[]).0, second);
    // For another revision, and of what is not there.
    match store.commit(first, &[create("late")]) {
        Err(StoreError::Conflict { expected, found }) => {
            assert_eq!((expected, found), (first, second));
        }
        other => panic!("{other:?}"),
    }
    let misfit = [create("half"), change(Edit::DeleteGroup(group("nobody")))];
    let refused = store.commit(second, &misfit);
    assert!(matches!(refused, Err(StoreError::Misfit(_))), "{refused:?}");
    assert_eq!(other.snapshot().unwrap().0, second);
}

fn groups_and_rules_are_found_alone(store: &mut dyn Store) {
    let (one, two) = (rule("192.0.2.0/24"), rule("2001:db8::/32"));
    let (revision, policy) = commit(
        store,
        &[
            change(Edit::AddRule(group("web"), two.clone())),
            change(Edit::AddRule(group("web"), one.clone())),
            change(Edit::SetMembers(
                group("web"),
                ["192.0.2.7".parse().unwrap()].into(),
            )),
        ],
    );
    let vpc = VpcName::default();
    for (name, stored) in &policy.vpcs[&vpc].groups {
        let found = store.group(&vpc, name).unwrap();
        assert_eq!(found, (revision, Some(stored.clone())));
    }
    let nobody = store.group(&vpc, &group("nobody")).unwrap();
    assert_eq!(nobody, (revision, None));
    for rule in [one, two] {
        let found = store.rule(rule.id).unwrap();
        let (vpc, group) = (vpc.clone(), group("web"));
        assert_eq!(found, (revision, Some(Owned { vpc, group, rule })));
    }
    assert_eq!(store.rule(RuleId::random()).unwrap(), (revision, None));
}

fn settings_and_drafts_are_beside_the_policy(store: &mut dyn Store, other: &dyn Store) {
    let (revision, kept) = store.snapshot().unwrap();
    store.set_setting("flows", Some("1000")).unwrap();
    store.set_setting("flows", Some("2000")).unwrap();
    assert_eq!(other.setting("flows").unwrap().as_deref(), Some("2000"));
    store.set_setting("flows", None).unwrap();
    assert_eq!(other.setting("flows").unwrap(), None);
    store.drop_draft().unwrap();
    assert_eq!(other.draft().unwrap(), None);
    store.keep_draft().unwrap();
    assert_eq!(store.snapshot().unwrap().0, revision);
    let (_, after) = commit(store, &[create("later")]);
    assert_eq!(other.draft().unwrap(), Some(kept));
    store.keep_draft().unwrap();
    assert_eq!(other.draft().unwrap(), Some(after));
    store.drop_draft().unwrap();
    assert_eq!(other.draft().unwrap(), None);
}

fn a_watch_ends_with_the_next_revision<S: Store + Send>(
    store: &mut dyn Store,
    open: &(impl Fn() -> S + Sync),
) {
    let (seen, _) = store.snapshot().unwrap();
    assert_eq!(store.watch(seen, Duration::ZERO).unwrap(), seen);
    let begin = Instant::now();
    let short = Duration::from_millis(20);
    assert_eq!(store.watch(seen, short).unwrap(), seen);
    assert!(begin.elapsed() >= short);
    let next = thread::scope(|scope| {
        let watching = scope.spawn(|| open().watch(seen, LONG).unwrap());
        // A setting is no revision.
        store.set_setting("flows", Some("1000")).unwrap();
        let (next, _) = commit(store, &[create("watched")]);
        assert_eq!(watching.join().unwrap(), next);
        next
    });
    assert_eq!(
        store.watch(seen, LONG).unwrap(),
        next,
        "it has come already"
    );
}
