//! However the CPUs at one bucket interleave, a search finds a flow whole or not at all, finds it while
//! it is assured, and finds it in one place when several have placed it.
//!
//! A model of the flow table's algorithm, one place of one bucket or one of each of a flow's two, run
//! through every interleaving by loom. Loads and stores are relaxed, as a processor like arm64 may
//! reorder them all; what order there is comes from `keep_order`, a full barrier there as it is in the
//! kernel's half, and from the lock. Both flows have the same tag here, which they rarely have in life: it is the
//! stamp that must tell them apart.

use loom::model::Builder;
use loom::sync::atomic::Ordering::{Relaxed, SeqCst};
use loom::sync::atomic::{AtomicU32, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// The tag while a flow is embryonic, and when it is assured.
const EMBRYONIC: u32 = 5;
const ASSURED: u32 = 7;
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

/// What comes before stays before what comes after.
fn keep_order() {
    fence(SeqCst);
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
            tag: AtomicU32::new(EMBRYONIC),
            stamp: AtomicU32::new(2),
            deadline: AtomicU32::new(1),
            key: AtomicU32::new(OLD),
            state: [AtomicU32::new(OLD), AtomicU32::new(OLD)],
        }
    }

    fn free() -> Self {
        let place = Self::taken();
        place.tag.store(0, Relaxed);
        place
    }

    /// The state of the flow with this key, and the stamp it was found under.
    fn find(&self, key: u32) -> Option<([u32; WORDS], u32)> {
        self.find_in(EMBRYONIC, key)
    }

    /// The same for a flow with this tag.
    fn find_in(&self, tag: u32, key: u32) -> Option<([u32; WORDS], u32)> {
        if self.tag.load(Relaxed) != tag {
            return None;
        }
        let stamp = self.stamp.load(Relaxed);
        keep_order();
        if stamp % 2 == 1 || self.deadline.load(Relaxed) == 0 || self.key.load(Relaxed) != key {
            return None;
        }
        let state = self.state_words();
        keep_order();
        (self.stamp.load(Relaxed) == stamp).then_some((state, stamp))
    }

    /// Moves a flow in, whatever was there.
    fn place(&self, key: u32) {
        let _held = self.lock.lock().unwrap();
        let stamp = self.stamp.load(Relaxed);
        self.tag.store(0, Relaxed);
        self.stamp.store(stamp + 1, Relaxed);
        keep_order();
        self.key.store(key, Relaxed);
        self.write(key);
        self.deadline.store(1, Relaxed);
        keep_order();
        self.stamp.store(stamp + 2, Relaxed);
        self.tag.store(EMBRYONIC, Relaxed);
    }

    /// Assures a flow, if it is there and embryonic.
    fn assure(&self, key: u32) {
        self.assure_as(key, key);
    }

    /// The same, with another state.
    fn assure_as(&self, key: u32, state: u32) {
        let _held = self.lock.lock().unwrap();
        if self.tag.load(Relaxed) == EMBRYONIC && self.key.load(Relaxed) == key {
            self.write(state);
            keep_order();
            self.tag.store(ASSURED, Relaxed);
        }
    }

    fn write(&self, value: u32) {
        for word in &self.state {
            word.store(value, Relaxed);
        }
    }

    /// Whether a flow found earlier is still there, and as it was. The lock is held.
    fn holds(&self, tag: u32, stamp: u32) -> bool {
        self.stamp.load(Relaxed) == stamp && self.tag.load(Relaxed) == tag
    }

    /// Writes the state of an embryonic flow found earlier, if it is still one.
    fn update(&self, stamp: u32, value: u32) {
        let _held = self.lock.lock().unwrap();
        if self.holds(EMBRYONIC, stamp) {
            self.write(value);
        }
    }

    /// Ends a flow found earlier, if it is still there, and says whether it was.
    fn clear(&self, tag: u32, stamp: u32) -> bool {
        let _held = self.lock.lock().unwrap();
        let is_there = self.holds(tag, stamp);
        if is_there {
            self.tag.store(0, Relaxed);
            self.stamp.store(stamp + 2, Relaxed);
        }
        is_there
    }

    fn state_words(&self) -> [u32; WORDS] {
        [0, 1].map(|word: usize| self.state[word].load(Relaxed))
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
        let end = |place: &Place| {
            let found = place.find(OLD);
            found.is_some_and(|(_, stamp)| place.clear(EMBRYONIC, stamp))
        };
        let other = thread::spawn({
            let place = Arc::clone(&place);
            move || end(&place)
        });
        let ended = u32::from(end(&place)) + u32::from(other.join().unwrap());
        assert_eq!(ended, 1, "times the flow's owner was told");
    });
}

#[test]
fn a_flow_is_found_while_another_cpu_assures_it() {
    model(|| {
        let place = Arc::new(Place::taken());
        let other = thread::spawn({
            let place = Arc::clone(&place);
            move || place.assure(OLD)
        });
        let looks = [ASSURED, EMBRYONIC, ASSURED];
        let found = looks.iter().any(|tag| place.find_in(*tag, OLD).is_some());
        assert!(found, "the flow is in neither table");
        other.join().unwrap();
    });
}

#[test]
fn a_flow_that_is_found_assured_has_the_state_of_an_assured_one() {
    const GROWN: u32 = 9;
    model(|| {
        let place = Arc::new(Place::taken());
        let other = thread::spawn({
            let place = Arc::clone(&place);
            move || place.assure_as(OLD, GROWN)
        });
        if let Some((state, _)) = place.find_in(ASSURED, OLD) {
            assert_eq!(state, [GROWN; WORDS]);
        }
        other.join().unwrap();
    });
}

#[test]
fn a_late_writer_takes_nothing_from_an_assured_flow() {
    const LATE: u32 = 9;
    model(|| {
        let place = Arc::new(Place::taken());
        let late = thread::spawn({
            let place = Arc::clone(&place);
            move || {
                if let Some((_, stamp)) = place.find(OLD) {
                    place.update(stamp, LATE);
                    place.clear(EMBRYONIC, stamp);
                }
            }
        });
        place.assure(OLD);
        let is_assured = place.tag.load(Relaxed) == ASSURED;
        late.join().unwrap();
        if is_assured {
            assert_eq!(place.state_words(), [OLD; WORDS]);
            assert_eq!(place.tag.load(Relaxed), ASSURED);
        }
    });
}

/// A place in each of a flow's two buckets, in the order of a search.
type Places = [Place; 2];

/// Writes a flow into one of its places, and then looks for it in the other: of two, the assured one
/// stays, or else the first.
fn place_once(places: &Places, own: usize) {
    places[own].place(NEW);
    part_twins(places, own);
}

fn part_twins(places: &Places, own: usize) {
    let twin = 1 - own;
    keep_order();
    // What is found may have changed when it is to go; then the next look says more.
    for _ in 0..4 {
        let find = |place: &Place| {
            let mut tables = [EMBRYONIC, ASSURED].into_iter();
            tables.find_map(|tag| Some((tag, place.find_in(tag, NEW)?.1)))
        };
        let (Some((other_tag, other_stamp)), Some((tag, stamp))) =
            (find(&places[twin]), find(&places[own]))
        else {
            return;
        };
        let own_goes = match tag == other_tag {
            true => twin < own,
            false => other_tag == ASSURED,
        };
        if own_goes {
            places[own].clear(tag, stamp);
            return;
        }
        places[twin].clear(other_tag, other_stamp);
    }
}

fn held(places: &Places) -> usize {
    let held = places.iter().filter(|place| place.tag.load(Relaxed) != 0);
    held.count()
}

#[test]
fn a_flow_that_two_cpus_place_stays_in_one_place() {
    model(|| {
        let places = Arc::new([Place::free(), Place::free()]);
        let other = thread::spawn({
            let places = Arc::clone(&places);
            move || place_once(&places, 1)
        });
        place_once(&places, 0);
        other.join().unwrap();
        assert_eq!(held(&places), 1, "places that hold the flow");
    });
}

#[test]
fn a_flow_that_is_assured_while_another_cpu_places_it_stays_assured() {
    model(|| {
        let places = Arc::new([Place::free(), Place::free()]);
        places[1].place(NEW);
        let other = thread::spawn({
            let places = Arc::clone(&places);
            move || {
                places[1].assure(NEW);
                places[1].tag.load(Relaxed) == ASSURED
            }
        });
        place_once(&places, 0);
        if other.join().unwrap() {
            assert_eq!(places[1].tag.load(Relaxed), ASSURED, "the assured flow");
        }
        assert_eq!(held(&places), 1, "places that hold the flow");
    });
}
