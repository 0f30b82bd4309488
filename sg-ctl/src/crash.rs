//! Points at which a test has a command die, as SIGKILL or a loss of power would have it die there.
//!
//! Each step of a change has one. With the feature `crash-points`, the variable `SG_CRASH_AT` names the
//! point at which the process kills itself, `NAME` at the first time that it comes by and `NAME:3` at
//! the third. Without the feature, which no package has, nothing looks at it and a point is nothing.

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A step that has just been made.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $($(#[$doc])* $point,)*
        }

        #[cfg(feature = "crash-points")]
        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// What `SG_CRASH_AT` calls it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

points! {
    /// The store is copied, to return to.
    WayBackCopied = "way-back-copied",
    /// The store knows that a change waits for its confirmation.
    WayBackNoted = "way-back-noted",
    /// A process waits for the confirmation.
    WaiterStarted = "waiter-started",
    /// The change is written, in a transaction that is still open.
    StoreWritten = "store-written",
    /// The change is stored for good.
    StoreCommitted = "store-committed",
    /// Other limits are stored.
    LimitsStored = "limits-stored",
    /// A link is made before its policy is ready, and lets everything pass.
    LinkPlaced = "link-placed",
    /// A layout has its maps, and they are empty.
    LayoutMade = "layout-made",
    /// A layout's maps have the policy.
    LayoutFilled = "layout-filled",
    /// A layout has its programs.
    LayoutLoaded = "layout-loaded",
    /// A mark says that maps are being written.
    Marked = "marked",
    /// The run folder knows whose policy is installed.
    OwnerWritten = "owner-written",
    /// The links of a device that has moved have its new name.
    LinksRenamed = "links-renamed",
    /// A link's program is detached, and its pin is still there.
    LinkDetached = "link-detached",
    /// A filter is taken away, and its mark is still there.
    FilterRemoved = "filter-removed",
    /// The links of interfaces that are not wanted any more are gone.
    UnwantedRemoved = "unwanted-removed",
    /// What was counted until an interface was audited is written down.
    AuditNoted = "audit-noted",
    /// Tables are written to which nothing points yet.
    ArenasWritten = "arenas-written",
    /// Counters of new rules and interfaces are zero.
    CountersCleared = "counters-cleared",
    /// The buffers that no packet reads are written.
    BuffersPrepared = "buffers-prepared",
    /// New keys lead to what is new.
    KeysWritten = "keys-written",
    /// Packets see the new policy.
    GenerationRaised = "generation-raised",
    /// No packet is left that saw the old one.
    ReadersGone = "readers-gone",
    /// The other buffers are made equal.
    BuffersMirrored = "buffers-mirrored",
    /// Keys that lead to nothing are gone.
    KeysDeleted = "keys-deleted",
    /// A device's programs are loaded.
    ProgramsPinned = "programs-pinned",
    /// A link is made, and not yet pinned: it goes with the process.
    LinkMade = "link-made",
    /// A link is pinned.
    LinkPinned = "link-pinned",
    /// A link has another program.
    LinkReplaced = "link-replaced",
    /// A mark says that a filter will be there.
    FilterMarked = "filter-marked",
    /// The queueing discipline is there that filters hang on.
    ClsactAdded = "clsact-added",
    /// A filter judges.
    FilterPut = "filter-put",
    /// A new layout has counted on from the one before.
    CountsContinued = "counts-continued",
    /// Tables of flows of another size are named.
    TablesNamed = "tables-named",
    /// Programs look into both tables of flows.
    BothTablesRead = "both-tables-read",
    /// Some flows are in their new table.
    FlowsMigrating = "flows-migrating",
    /// All of them are.
    FlowsMigrated = "flows-migrated",
    /// The record says what is in force.
    RecordWritten = "record-written",
    /// The mark is gone.
    Unmarked = "unmarked",
    /// Layouts and tables that nothing uses are gone.
    UnusedRemoved = "unused-removed",
    /// Nothing is protected any more, and maps are still there.
    AllLinksRemoved = "all-links-removed",
    /// All maps are gone, and the record is still there.
    AllMapsRemoved = "all-maps-removed",
    /// The record is gone, and other files are still there.
    RecordRemoved = "record-removed",
    /// The old policy is stored again after the new one could not be enforced.
    UndoStored = "undo-stored",
    /// A change that was not confirmed is rolled back.
    RolledBack = "rolled-back",
    /// The store says so.
    RollbackNoted = "rollback-noted",
    /// No change waits for its confirmation any more, and the copy is still there.
    WayBackForgotten = "way-back-forgotten",
}

/// A step is made.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub(crate) fn at(_: Point) {}

/// A step is made.
#[cfg(feature = "crash-points")]
pub(crate) fn at(point: Point) {
    wished::come_by(point);
}

#[cfg(feature = "crash-points")]
mod wished {
    use std::env;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::Point;

    /// How often the process came by the point that is wished for.
    static TIMES: AtomicU32 = AtomicU32::new(0);

    pub(super) fn come_by(point: Point) {
        let Ok(wish) = env::var("SG_CRASH_AT") else {
            return;
        };
        let (name, time) = wish.split_once(':').unwrap_or((&wish, "1"));
        let time: u32 = time.parse().expect("SG_CRASH_AT is NAME or NAME:NUMBER");
        if name == point.name() && TIMES.fetch_add(1, Ordering::Relaxed) + 1 == time {
            // Nothing is dropped, flushed or unwound.
            let _ = kill(Pid::this(), Signal::SIGKILL);
            unreachable!("SIGKILL cannot be refused");
        }
    }
}
