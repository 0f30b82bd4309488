//! Waits for the next revision: what is committed is written to the file's log, and the kernel tells of
//! that.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{SqliteStore, StoreError};
use crate::store::{Revision, Store as _};

pub(super) fn until(
    store: &SqliteStore,
    seen: Revision,
    within: Duration,
) -> Result<Revision, StoreError> {
    let begin = Instant::now();
    // Watched first: what is committed after the first look is told.
    let folder = store.path.parent().unwrap_or(Path::new("/"));
    let failed = |errno: Errno| StoreError::System {
        doing: "watch",
        path: folder.to_owned(),
        source: io::Error::from(errno).into(),
    };
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(failed)?;
    let written = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    watch.add_watch(folder, written).map_err(failed)?;
    loop {
        let found = store.revision()?;
        let left = within.saturating_sub(begin.elapsed());
        if found != seen || left.is_zero() {
            return Ok(found);
        }
        // Rounded up, so that it is not looked again before the time is over.
        let left = left.saturating_add(Duration::from_millis(1));
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        // Which file it was does not matter.
        while let Ok(events) = watch.read_events()
            && !events.is_empty()
        {}
    }
}
