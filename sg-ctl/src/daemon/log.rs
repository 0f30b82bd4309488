//! Where the daemon says what it does: the journal where systemd reads standard error, else standard
//! error itself.

use std::env;
use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicU8, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::config::Level;

/// The least important messages that are written.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Begins to write. What is said before goes nowhere.
pub(super) fn start(level: Level) {
    set_level(level);
    let journal = match env::var_os("JOURNAL_STREAM") {
        Some(_) => tracing_journald::layer().ok(),
        None => None,
    };
    let stderr = journal.is_none().then(|| {
        fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
    });
    let layers = tracing_subscriber::registry();
    let layers = layers.with(journal.map(|layer| layer.with_filter(Chosen)));
    let layers = layers.with(stderr.map(|layer| layer.with_filter(Chosen)));
    // Only a process that runs two daemons has one already.
    let _ = layers.try_init();
}

/// Writes more or less from now on.
pub(super) fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

fn chosen() -> LevelFilter {
    match LEVEL.load(Ordering::Relaxed) {
        level if level == Level::Error as u8 => LevelFilter::ERROR,
        level if level == Level::Warn as u8 => LevelFilter::WARN,
        level if level == Level::Info as u8 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    }
}

/// Lets through what is as important as was chosen, and of other crates what failed.
struct Chosen;

impl<S: Subscriber> Filter<S> for Chosen {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        let is_ours = metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
        let most = if is_ours {
            chosen()
        } else {
            LevelFilter::ERROR
        };
        *metadata.level() <= most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(chosen())
    }
}
