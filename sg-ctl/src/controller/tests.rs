//! What is stored and installed when the kernel refuses.

use tempfile::TempDir;

use super::*;
use crate::dataplane::Error::NoGrace;
use crate::policy::defaults::create_group;
use crate::policy::names::{GroupName, VpcName};

/// Refuses so many installations, and remembers what it was given.
struct Refusing<'a> {
    preparing: bool,
    installations: u32,
    installed: &'a mut Vec<Policy>,
}

impl Kernel for Refusing<'_> {
    type Prepared = Policy;

    fn image(_prepared: &Policy) -> Option<&Image> {
        None
    }

    fn prepare(&self, wanted: &Wanted<'_>) -> Result<Policy, dataplane::Error> {
        match self.preparing {
            true => Err(NoGrace),
            false => Ok(wanted.policy.clone()),
        }
    }

    fn stage(&self, policy: Policy) -> Result<Policy, dataplane::Error> {
        Ok(policy)
    }

    fn install(&mut self, policy: Policy) -> Result<Outcome, dataplane::Error> {
        match self.installations.checked_sub(1) {
            Some(left) => {
                self.installations = left;
                Err(NoGrace)
            }
            None => {
                self.installed.push(policy);
                Ok(Outcome {
                    generation: 0,
                    flows_left: 0,
                })
            }
        }
    }
}

fn controller(folder: &TempDir) -> Controller {
    let options = DirOptions {
        state_dir: folder.path().join("state"),
        run_dir: folder.path().join("run"),
    };
    let dirs = Dirs::create(&options).unwrap();
    let lock = dirs.lock().unwrap();
    let store = SqliteStore::open(dirs.state()).unwrap();
    let (revision, policy) = store.snapshot().unwrap();
    Controller {
        dirs,
        store: Box::new(store),
        revision,
        policy,
        limits: Limits::default(),
        unconfirmed: None,
        takes_over: false,
        news: Vec::new(),
        holds: false,
        held: None,
        installed_for: None,
        annotations: Vec::new(),
        annotations_before: Vec::new(),
        lock,
    }
}

/// Creates a group while the kernel refuses: what is then stored, installed and said.
fn create_web(preparing: bool, installations: u32) -> (bool, Vec<bool>, Result<()>) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = controller(&folder);
    let web: GroupName = "web".parse().unwrap();
    let has_web = |policy: &Policy| policy.vpcs[&VpcName::default()].groups.contains_key(&web);
    let changes = create_group(&VpcName::default(), &web, "");
    let policy = controller.policy.clone().apply(&changes).unwrap();
    let wanted = Wanted {
        policy: &policy,
        devices: Vec::new(),
        terminate: false,
        capacity: controller.limits.flows,
        limits: controller.limits.tables,
    };
    let mut installed = Vec::new();
    let mut kernel = Refusing {
        preparing,
        installations,
        installed: &mut installed,
    };
    let care = Care {
        confirm_within: None,
        session: None,
        tell: &|_| (),
    };
    let told = controller
        .enforce(&mut kernel, &wanted, &changes, &care)
        .map(drop);
    let (revision, stored) = controller.store.snapshot().unwrap();
    assert_eq!(revision, controller.revision);
    (
        has_web(&stored),
        installed.iter().map(has_web).collect(),
        told,
    )
}

#[test]
fn what_the_kernel_takes_is_stored() {
    let (stored, installed, told) = create_web(false, 0);
    told.unwrap();
    assert_eq!((stored, installed), (true, vec![true]));
}

#[test]
fn what_cannot_be_prepared_is_never_stored() {
    let (stored, installed, told) = create_web(true, 0);
    assert!(matches!(told, Err(Error::Dataplane(NoGrace))), "{told:?}");
    assert_eq!((stored, installed), (false, vec![]));
}

#[test]
fn what_cannot_be_installed_is_taken_back() {
    let (stored, installed, told) = create_web(false, 1);
    let told = told.unwrap_err();
    assert!(
        matches!(told, Error::TakenBack { why: NoGrace, .. }),
        "{told:?}"
    );
    assert_eq!((stored, installed), (false, vec![false]));
    // The policy before has no interface.
    let told = told.to_string();
    assert!(
        told.ends_with("; the change was rolled back, and no interface is protected, as before"),
        "{told}"
    );
}

#[test]
fn a_way_back_that_fails_too_is_told_and_is_stored_for_the_next_command() {
    let (stored, installed, told) = create_web(false, 2);
    let told = told.unwrap_err().to_string();
    assert!(
        told.contains("rolling the change back failed too"),
        "{told}"
    );
    assert_eq!((stored, installed), (false, vec![]));
}
