//! A change that takes itself back unless somebody says in time that it did no harm.
//!
//! What is to be returned to is kept by the store before the change is made, as a copy of the whole
//! policy, and the change is not made before a process waits for the deadline: the daemon where one
//! runs, a process of its own where none does. Should that process die too, the next command that
//! changes anything rolls back, and so do a daemon that starts and `restore` at the next boot: after a
//! restart the session that would have confirmed is gone. Time is counted on the clock that goes on while the machine sleeps and that nobody
//! can set.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::{Controller, Needed, Plan};
use crate::crash::{self, Point};
use crate::dirs::{DirOptions, Dirs};
use crate::store::{SqliteStore, Store};

/// The settings of the store that hold the two records.
const UNCONFIRMED: &str = "unconfirmed";
const TAKEN_BACK: &str = "taken-back";

/// How often the waiting process looks whether it is still needed.
const PULSE: Duration = Duration::from_millis(500);

/// How long it waits before it tries again what has failed.
const RETRY: Duration = Duration::from_secs(2);

/// The command that waits for the deadline of a change.
pub const AWAIT_COMMAND: &str = "await-confirmation";

/// A change that is in force and waits for its confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// Tells it from any other.
    pub id: u64,
    /// The revision before the change.
    pub before: u64,
    /// Which boot of the machine the deadline belongs to.
    boot: String,
    /// Milliseconds since that boot.
    deadline_ms: u64,
    /// Why taking it back has failed so far.
    pub failure: Option<String>,
}

/// A change that nobody confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenBack {
    /// The revision whose policy is in force again.
    pub before: u64,
    /// The revision that holds it.
    pub revision: u64,
    /// When, in seconds since 1970.
    pub unix_time_s: u64,
}

impl Unconfirmed {
    /// The change that waits, if there is one.
    pub(super) fn find(store: &dyn Store) -> Result<Option<Self>> {
        read(store, UNCONFIRMED)
    }

    /// How long there still is; zero once it is to be taken back.
    pub fn left(&self) -> Duration {
        let deadline = Duration::from_millis(self.deadline_ms);
        match boot() == self.boot {
            true => deadline.saturating_sub(since_boot()),
            false => Duration::ZERO,
        }
    }

    /// The same in whole seconds, so that only what is overdue has none left.
    pub fn left_s(&self) -> u64 {
        let left = self.left();
        left.as_secs() + u64::from(left.subsec_nanos() > 0)
    }

    fn expire_in(&mut self, within: Duration) {
        self.boot = boot();
        let deadline = since_boot().saturating_add(within);
        self.deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    }

    fn store(&self, store: &mut dyn Store) -> Result<()> {
        write(store, UNCONFIRMED, Some(self))
    }
}

impl TakenBack {
    /// What was taken back last, unless something was changed since.
    pub(super) fn find(store: &dyn Store) -> Result<Option<Self>> {
        read(store, TAKEN_BACK)
    }

    /// Forgets it.
    pub(super) fn forget(store: &mut dyn Store) -> Result<()> {
        match Self::find(store)? {
            Some(_) => write::<Self>(store, TAKEN_BACK, None),
            None => Ok(()),
        }
    }
}

fn read<T: for<'a> Deserialize<'a>>(store: &dyn Store, name: &str) -> Result<Option<T>> {
    let text = store.setting(name)?;
    // What cannot be read was written by another version: there is nothing to be done about it.
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

fn write<T: Serialize>(store: &mut dyn Store, name: &str, value: Option<&T>) -> Result<()> {
    let text = value.map(serde_json::to_string).transpose();
    let text = text.map_err(|source| Error::Waiter(source.into()))?;
    Ok(store.set_setting(name, text.as_deref())?)
}

/// Readies the way back: from here on, whatever happens, the policy as it is returns.
pub(super) fn begin(
    store: &mut dyn Store,
    dirs: &Dirs,
    before: u64,
    within: Duration,
) -> Result<Unconfirmed> {
    let mut unconfirmed = Unconfirmed {
        id: rand::random(),
        before,
        boot: String::new(),
        deadline_ms: 0,
        failure: None,
    };
    unconfirmed.expire_in(within);
    store.keep_draft()?;
    crash::at(Point::WayBackCopied);
    unconfirmed.store(store)?;
    crash::at(Point::WayBackNoted);
    // A daemon that ends meanwhile looks for it once more.
    if !dirs.has_daemon()
        && let Err(error) = start_waiter(dirs)
    {
        end(store)?;
        return Err(error);
    }
    crash::at(Point::WaiterStarted);
    Ok(unconfirmed)
}

/// Counts the time from now on: making the change took some of it.
pub(super) fn restart(
    store: &mut dyn Store,
    unconfirmed: &mut Unconfirmed,
    within: Duration,
) -> Result<()> {
    unconfirmed.expire_in(within);
    unconfirmed.store(store)
}

/// Gives up the way back.
pub(super) fn end(store: &mut dyn Store) -> Result<()> {
    write::<Unconfirmed>(store, UNCONFIRMED, None)?;
    crash::at(Point::WayBackForgotten);
    Ok(store.drop_draft()?)
}

impl Controller {
    /// The change that waits for its confirmation, if there is one.
    pub fn unconfirmed(&self) -> Option<&Unconfirmed> {
        self.unconfirmed.as_ref()
    }

    /// What was taken back last, unless something was changed since.
    pub fn taken_back(&self) -> Result<Option<TakenBack>> {
        TakenBack::find(&*self.store)
    }

    /// Keeps the change that waits.
    pub fn confirm(&mut self) -> Result<()> {
        self.take_unconfirmed()?;
        end(&mut *self.store)
    }

    /// Makes the policy and the kernel what they were before the change that waits.
    pub fn take_back(&mut self) -> Result<TakenBack> {
        let unconfirmed = self.take_unconfirmed()?;
        // None when somebody has removed it.
        let Some(policy) = self.store.draft()? else {
            end(&mut *self.store)?;
            return Err(Error::NothingToReturnTo);
        };
        let plan = Plan {
            policy,
            needed: Needed::None,
            terminate: false,
        };
        let done = self.install(plan)?;
        crash::at(Point::RolledBack);
        let taken_back = TakenBack {
            before: unconfirmed.before,
            revision: done.revision.number(),
            unix_time_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        };
        write(&mut *self.store, TAKEN_BACK, Some(&taken_back))?;
        crash::at(Point::RollbackNoted);
        end(&mut *self.store)?;
        Ok(taken_back)
    }

    fn take_unconfirmed(&mut self) -> Result<Unconfirmed> {
        match (self.unconfirmed.take(), TakenBack::find(&*self.store)?) {
            (Some(unconfirmed), _) => Ok(unconfirmed),
            (None, Some(taken_back)) => Err(Error::TooLate(taken_back.before)),
            (None, None) => Err(Error::NothingUnconfirmed),
        }
    }
}

/// Waits until the change that waits is confirmed or overdue, and takes it back if it is. It ends
/// when there is nothing left to wait for.
pub fn await_confirmation(options: &DirOptions) -> Result<()> {
    close_inherited_files();
    // The second fork, in a session of its own: no terminal and no process group can end it.
    nix::unistd::daemon(false, false).map_err(|errno| Error::Waiter(errno.into()))?;
    let store = options.state_dir.join(SqliteStore::FILE);
    let mut id = None;
    loop {
        // Whoever removes the store has no policy to return to.
        if !fs::exists(&store).unwrap_or(false) {
            return Ok(());
        }
        // A store that cannot be read now may be readable later.
        let found = SqliteStore::open(&options.state_dir).map(|store| Unconfirmed::find(&store));
        let unconfirmed = match found {
            Ok(Ok(Some(unconfirmed))) => unconfirmed,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(_)) | Err(_) => {
                thread::sleep(RETRY);
                continue;
            }
        };
        if *id.get_or_insert(unconfirmed.id) != unconfirmed.id {
            return Ok(());
        }
        let left = unconfirmed.left();
        if !left.is_zero() {
            thread::sleep(left.min(PULSE));
            continue;
        }
        // Opening completes what is overdue. What is not any more, because the change took longer
        // to make than it had to be confirmed, is waited for again.
        if let Err(error) = Controller::open(options) {
            // Where nothing can be noted, the next attempt may still succeed.
            let _ = note_failure(options, &unconfirmed, &error);
            thread::sleep(RETRY);
        }
    }
}

/// Has a process wait for the deadline, should there be one: nobody else does from here on.
pub fn hand_over_confirmation(options: &DirOptions) -> Result<()> {
    if !SqliteStore::is_in(&options.state_dir).unwrap_or(false) {
        return Ok(());
    }
    let store = SqliteStore::open_to_read(&options.state_dir, &options.run_dir)?;
    match Unconfirmed::find(&store)? {
        Some(_) => start_waiter(&Dirs::create(options)?),
        None => Ok(()),
    }
}

/// Lets `status` say why a change that is overdue is still there.
pub fn note_failure(options: &DirOptions, overdue: &Unconfirmed, why: &Error) -> Result<()> {
    // Whoever holds the lock may be confirming.
    let Ok(_lock) = Dirs::create(options)?.lock() else {
        return Ok(());
    };
    let mut store = SqliteStore::open(&options.state_dir)?;
    // Its deadline may have been moved meanwhile.
    match Unconfirmed::find(&store)? {
        Some(found) if found.id == overdue.id && found.left().is_zero() => {
            let failed = Unconfirmed {
                failure: Some(why.to_string()),
                ..found
            };
            failed.store(&mut store)
        }
        _ => Ok(()),
    }
}

/// A pipe or a lock that the command was given must not stay open until the deadline.
fn close_inherited_files() {
    let names = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers: Vec<i32> = names
        .filter_map(|name| name.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // That of the listing itself is closed already.
        let _ = nix::unistd::close(number);
    }
}

/// Starts the process that waits, and returns when nothing that happens to this one can end it.
fn start_waiter(dirs: &Dirs) -> Result<()> {
    // By this name even where an upgrade has replaced the file.
    let status = Command::new("/proc/self/exe")
        .arg("--state-dir")
        .arg(dirs.state())
        .arg("--run-dir")
        .arg(dirs.run())
        .arg(AWAIT_COMMAND)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(Error::Waiter)?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::Waiter(io::Error::other(format!(
            "it ended with {status}"
        )))),
    }
}

/// What tells one boot of the machine from another.
fn boot() -> String {
    let id = fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"));
    id.unwrap_or_default().trim().to_owned()
}

fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from)
}
