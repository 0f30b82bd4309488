//! What tells the daemon that it should look again: devices and addresses of the namespaces that the
//! policy speaks of, namespaces that come and go, and files that commands write.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tracing::{debug, warn};

use super::error::{Error, Result};
use crate::interfaces::{Monitor, Netns};

/// Everything that the daemon waits for between two looks.
pub(super) struct Watches {
    monitors: Vec<Monitor>,
    /// proc_pid_mountinfo(5): it has an exceptional condition when a mount comes or goes. A network
    /// namespace gets its name by a mount.
    mounts: File,
    files: Inotify,
    names: Vec<&'static str>,
    stop: PipeReader,
}

/// Ends the waiting of [`Watches`] for good when it is dropped.
pub(super) struct Stop {
    _pipe: PipeWriter,
}

/// Why the waiting has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// There may be something to do.
    News,
    /// The time is over.
    Time,
    /// No more looks are wanted.
    Stop,
}

impl Watches {
    /// Watches files with these names in these folders, and where namespaces have names; no namespace
    /// yet.
    pub(super) fn new(folders: &[(&Path, &'static [&'static str])]) -> Result<(Self, Stop)> {
        let failed =
            |errno: Errno| Error::system("watch the folders of the instance")(errno.into());
        let files =
            Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(failed)?;
        let events =
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE;
        for (folder, _) in folders {
            files.add_watch(*folder, events).map_err(failed)?;
        }
        let names = folders.iter().flat_map(|(_, names)| *names);
        let (stop, pipe) = io::pipe().map_err(Error::system("make a pipe"))?;
        let mounts = File::open("/proc/self/mountinfo");
        let watches = Self {
            monitors: Vec::new(),
            mounts: mounts.map_err(Error::system("watch mounts"))?,
            files,
            names: names.copied().collect(),
            stop,
        };
        Ok((watches, Stop { _pipe: pipe }))
    }

    /// Watches these namespaces and no others, and says whether one of them was not watched before:
    /// what has changed in it until now is not known.
    pub(super) fn follow(&mut self, namespaces: &[Netns]) -> bool {
        let wanted: HashSet<_> = namespaces.iter().map(Netns::id).collect();
        self.monitors
            .retain(|monitor| wanted.contains(&monitor.netns()));
        let mut watched: HashSet<_> = self.monitors.iter().map(Monitor::netns).collect();
        let before = self.monitors.len();
        for netns in namespaces {
            if !watched.insert(netns.id()) {
                continue;
            }
            match Monitor::open(netns) {
                Ok(monitor) => self.monitors.push(monitor),
                Err(failed) => warn!("{failed}"),
            }
        }
        self.monitors.len() > before
    }

    /// How many namespaces are watched.
    pub(super) fn namespaces(&self) -> usize {
        self.monitors.len()
    }

    /// Waits until there may be something to do, or until `due`.
    pub(super) fn wait(&mut self, due: Option<Instant>) -> Result<Woken> {
        loop {
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Woken::Time);
            }
            // Not a moment too early.
            let left = left.map(|left| left + Duration::from_millis(1));
            let limit = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            });
            let mut files = vec![
                PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.mounts.as_fd(), PollFlags::POLLPRI),
                PollFd::new(self.files.as_fd(), PollFlags::POLLIN),
            ];
            files.extend(
                self.monitors
                    .iter()
                    .map(|monitor| PollFd::new(monitor.as_fd(), PollFlags::POLLIN)),
            );
            match poll(&mut files, limit) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::system("wait for changes")(errno.into())),
            }
            let mut woken: Vec<bool> = files
                .iter()
                .map(|file| file.any().unwrap_or(true))
                .collect();
            drop(files);
            if woken[0] {
                return Ok(Woken::Stop);
            }
            if woken[2] {
                woken[2] = self.is_written();
            }
            let mut news = woken.iter().skip(3);
            self.monitors.retain(|monitor| match news.next() {
                Some(true) => match monitor.take_in() {
                    Ok(()) => true,
                    // It is opened anew after the next look.
                    Err(failed) => {
                        warn!("{failed}");
                        false
                    }
                },
                _ => true,
            });
            if woken.contains(&true) {
                debug!(
                    mounts = woken[1],
                    files = woken[2],
                    devices = woken[3..].contains(&true),
                    "news"
                );
                return Ok(Woken::News);
            }
        }
    }

    /// Whether one of the files that are watched was written or replaced.
    fn is_written(&self) -> bool {
        let mut is_written = false;
        while let Ok(events) = self.files.read_events() {
            is_written |= events.iter().any(|event| {
                let name = event.name.as_ref().and_then(|name| name.to_str());
                let is_lost = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                is_lost || name.is_some_and(|name| self.names.contains(&name))
            });
        }
        is_written
    }
}
