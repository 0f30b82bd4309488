//! The optional process that makes the machine follow what changes, without anybody typing a command.
//!
//! Enforcement never depends on it. It takes the same lock as every command for each change that it
//! makes and keeps it no longer, so that commands work beside it, and makes for them what it can make
//! from memory; it ends between two changes, and starts with what it finds in force.

mod commands;
mod config;
mod edits;
mod error;
mod follow;
mod http;
mod instance;
mod keeper;
mod log;
mod metrics;
mod socket;
mod state;
mod watches;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::controller::hand_over_confirmation;
use crate::dataplane::Dataplane;
use crate::dirs::{DirOptions, Dirs};
use crate::privileges;
use crate::store::SqliteStore;

pub use commands::{Answered, Asked, Serve, forward};
pub use config::{Config, ConfigError};
pub use error::{Error, Result};
pub use keeper::Keeper;
pub use socket::{SOCKET, ask};
pub use state::{Report, State};

use follow::Follower;
use http::Listeners;
use watches::Watches;

/// Where the configuration is unless a command says otherwise.
pub const CONFIG: &str = "/etc/sg/daemon.toml";

/// Runs until a signal ends it. Without a configuration file at the usual place everything is as the
/// defaults have it; a file that was asked for must be there. `commands` makes what commands ask for.
pub fn run(options: &DirOptions, config: Option<&Path>, commands: Serve) -> Result<()> {
    privileges::check()?;
    let read = || Config::read(config);
    let first = read()?;
    let dirs = Dirs::create(options)?;
    let instance = instance::take(&dirs)?;
    let options = DirOptions {
        state_dir: dirs.state().to_owned(),
        run_dir: dirs.run().to_owned(),
    };
    log::start(first.log.level);
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::system("start an event loop"))?;
    let served = runtime.block_on(serve(&options, first, &read, commands));
    // In this order: a command that finds the lock taken leaves the deadline to this process.
    drop(instance);
    if let Err(failed) = hand_over_confirmation(&options) {
        error!("{failed}; the change that waits for its confirmation stays until a command runs");
    }
    served
}

async fn serve(
    options: &DirOptions,
    config: Config,
    read: &dyn Fn() -> Result<Config, ConfigError>,
    commands: Serve,
) -> Result<()> {
    let catch = |kind| signal(kind).map_err(Error::system("catch signals"));
    let mut terminated = catch(SignalKind::terminate())?;
    let mut interrupted = catch(SignalKind::interrupt())?;
    let mut hung_up = catch(SignalKind::hangup())?;
    let state = Arc::new(State::new(options.clone(), commands));
    let mut listeners = Listeners::new(Arc::clone(&state));
    listeners.open_socket()?;
    listeners.listen(&config).await?;
    let folders = [
        (options.state_dir.as_path(), SqliteStore::FILES),
        (options.run_dir.as_path(), &[Dataplane::RECORD]),
    ];
    let (watches, stop) = Watches::new(&folders)?;
    let follower = Follower::new(Arc::clone(&state));
    let mut follower = spawn_blocking(move || follower.run(watches));
    info!(
        version = env!("SG_VERSION"),
        "follows {}",
        options.state_dir.display()
    );
    notify(&[NotifyState::Ready]);
    let mut watchdog = watchdog();
    let signal = loop {
        tokio::select! {
            ended = &mut follower => {
                listeners.close();
                let failed = |failed: JoinError| Error::system("follow the machine")(failed.into());
                return ended.map_err(failed)?;
            }
            _ = terminated.recv() => break "SIGTERM",
            _ = interrupted.recv() => break "SIGINT",
            _ = hung_up.recv() => reload(&mut listeners, read).await,
            () = tick(watchdog.as_mut()) => {
                // A look that never ends is what a watchdog is for.
                if state.is_alive(Instant::now()) {
                    notify(&[NotifyState::Watchdog]);
                }
            }
        }
    };
    info!("{signal}: ends when the change in progress is made");
    notify(&[NotifyState::Stopping]);
    listeners.close();
    drop(stop);
    follower
        .await
        .map_err(|failed| Error::system("follow the machine")(failed.into()))?
}

/// Reads the configuration again; what cannot be read leaves everything as it is.
async fn reload(listeners: &mut Listeners, read: &dyn Fn() -> Result<Config, ConfigError>) {
    let reloading = NotifyState::monotonic_usec_now();
    if let Ok(now) = reloading {
        notify(&[NotifyState::Reloading, now]);
    }
    match read() {
        Ok(config) => {
            log::set_level(config.log.level);
            match listeners.listen(&config).await {
                Ok(()) => info!("the configuration was read again"),
                Err(failed) => error!("{failed}; the rest of the configuration is in force"),
            }
        }
        Err(refused) => error!("{refused}; the former configuration stays in force"),
    }
    notify(&[NotifyState::Ready]);
}

fn notify(news: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    if let Err(failed) = sd_notify::notify(news) {
        warn!("systemd cannot be told: {failed}");
    }
}

/// Ticks twice in the time in which systemd wants to hear something, if it does.
fn watchdog() -> Option<tokio::time::Interval> {
    let every: Duration = sd_notify::watchdog_enabled()? / 2;
    let mut interval = interval(every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(interval)
}

async fn tick(watchdog: Option<&mut tokio::time::Interval>) {
    match watchdog {
        Some(watchdog) => {
            watchdog.tick().await;
        }
        None => std::future::pending().await,
    }
}
