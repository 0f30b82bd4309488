//! However the CPUs at one bucket interleave, a search finds a flow whole or not at all.
//!
//! A model of the flow table's algorithm, one place of one bucket, run through every interleaving
//! by loom. Loads acquire and stores release, as all do on x86 and as a packet's program may rely
//! on nowhere else. Both flows have the same tag here, which they rarely have in life: it is the
//! stamp that must tell them apart.

use loom::model::Builder;
use loom::sync::atomic::AtomicU32;
use loom::sync::atomic::Ordering::{Acquire, Release};
use loom::sync::{Arc, Mutex};
use loom::thread;

const TAG: u32 = 7;
/// The state of a flow has several words, all of which say whose it is.
const WORDS: usize = 2;
const OLD: u32 = 1;
const NEW: u32 = 2;

/// Every interleaving of up to so many involuntary switches between CPUs: more find nothing new in
/// minutes.
fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

/// A flow's place. Writers hold the lock.
struct Place {
    lock: Mutex<()>,
    tag: AtomicU32,
    /// Odd while a flow moves in.
    stamp: AtomicU32,
    /// Zero has passed.
    deadline: AtomicU32,
    key: AtomicU32,
    state: [AtomicU32; WORDS],
}

impl Place {
    /// A place that holds the old flow.
    fn taken() -> Self {
        Self {
            lock: Mutex::new(()),
            tag: AtomicU32::new(TAG),
            stamp: AtomicU32::new(2),
            deadline: AtomicU32::new(1),
            key: AtomicU32::new(OLD),
            state: [AtomicU32::new(OLD), AtomicU32::new(OLD)],
        }
    }

    /// The state of the flow with this key, and the stamp it was found under.
    fn find(&self, key: u32) -> Option<([u32; WORDS], u32)> {
        if self.tag.load(Acquire) != TAG {
            return None;
        }
        let stamp = self.stamp.load(Acquire);
        if stamp % 2 == 1 || self.deadline.load(Acquire) == 0 || self.key.load(Acquire) != key {
            return None;
        }
        let state = [0, 1].map(|word: usize| self.state[word].load(Acquire));
        (self.stamp.load(Acquire) == stamp).then_some((state, stamp))
    }

    /// Moves a flow in, whatever was there.
    fn place(&self, key: u32) {
        let _held = self.lock.lock().unwrap();
        let stamp = self.stamp.load(Acquire);
        self.tag.store(0, Release);
        self.stamp.store(stamp + 1, Release);
        self.key.store(key, Release);
        self.write(key);
        self.deadline.store(1, Release);
        self.stamp.store(stamp + 2, Release);
        self.tag.store(TAG, Release);
    }

    fn write(&self, value: u32) {
        for word in &self.state {
            word.store(value, Release);
        }
    }

    /// Writes the state of a flow found earlier, if it is still there.
    fn update(&self, stamp: u32, value: u32) {
        let _held = self.lock.lock().unwrap();
        if self.stamp.load(Acquire) == stamp {
            self.write(value);
        }
    }

    /// Ends a flow found earlier, if it is still there, and says whether it was.
    fn clear(&self, stamp: u32) -> bool {
        let _held = self.lock.lock().unwrap();
        let is_there = self.stamp.load(Acquire) == stamp;
        if is_there {
            self.tag.store(0, Release);
            self.deadline.store(0, Release);
            self.stamp.store(stamp + 2, Release);
        }
        is_there
    }

    fn state_words(&self) -> [u32; WORDS] {
        [0, 1].map(|word: usize| self.state[word].load(Acquire))
    }
}

#[test]
fn a_search_never_returns_another_flows_state() {
    for key in [OLD, NEW] {
        model(move || search_while_another_moves_in(key));
    }
}

fn search_while_another_moves_in(key: u32) {
    let place = Arc::new(Place::taken());
    let writer = thread::spawn({
        let place = Arc::clone(&place);
        move || place.place(NEW)
    });
    if let Some((state, _)) = place.find(key) {
        assert_eq!(state, [key; WORDS], "the state found for flow {key}");
    }
    writer.join().unwrap();
    let found = place.find(NEW).map(|(state, _)| state);
    assert_eq!(found, Some([NEW; WORDS]), "the flow that moved in");
    assert_eq!(place.find(OLD), None, "the flow that was there");
}

#[test]
fn a_late_writer_changes_nothing() {
    const LATE: u32 = 9;
    model(|| {
        let place = Arc::new(Place::taken());
        let late = thread::spawn({
            let place = Arc::clone(&place);
            move || {
                if let Some((_, stamp)) = place.find(OLD) {
                    place.update(stamp, LATE);
                }
            }
        });
        place.place(NEW);
        late.join().unwrap();
        assert_eq!(place.state_words(), [NEW; WORDS]);
    });
}

#[test]
fn a_flow_ends_once() {
    model(|| {
        let place = Arc::new(Place::taken());
        let end = |place: &Place| place.find(OLD).is_some_and(|(_, stamp)| place.clear(stamp));
        let other = thread::spawn({
            let place = Arc::clone(&place);
            move || end(&place)
        });
        let ended = u32::from(end(&place)) + u32::from(other.join().unwrap());
        assert_eq!(ended, 1, "times the flow's owner was told");
    });
}
