//! However the CPUs at one bucket interleave, a search finds a flow whole or not at all, finds it while
//! it is assured or migrated, and finds it in one place when several have placed it.
//!
//! The flow table's own code, `sg_common::flow::slot`, over a model of memory: one slot, or one in each
//! of a flow's two buckets, run through every interleaving by loom. Loads and stores are relaxed, as a
//! processor like arm64 may reorder them all; what order there is comes from `keep_order`, a full
//! barrier there as it is in the kernel's half, and from the lock. All flows have the same tag here,
//! which they rarely have in life: it is the stamp that must tell them apart.

use std::cell::RefCell;

use loom::model::Builder;
use loom::sync::atomic::Ordering::{Relaxed, SeqCst};
use loom::sync::atomic::{AtomicU16, AtomicU32, fence};
use loom::sync::{Arc, Mutex, MutexGuard};
use loom::thread;
use sg_common::flow::FlowKind;
use sg_common::flow::slot::{
    self, Assured, Content, NO_OWNER, Seen, SlotMemory, Wanted, gives_way,
};
use sg_common::ids::Ticks;

/// The tag while a flow is embryonic, and when it is assured.
const EMBRYONIC: u16 = 5;
const ASSURED: u16 = FlowKind::Assured.tag(EMBRYONIC);
/// The state of a flow has several words, all of which say whose it is.
const WORDS: usize = 2;
const OLD: u32 = 1;
const NEW: u32 = 2;

const NOW: Ticks = Ticks(0);
const LATER: Ticks = Ticks(1);

/// What two CPUs do, in every interleaving of up to three involuntary switches between them: more find
/// nothing new in minutes.
///
/// Either CPU is the one that begins. Loom (0.7.3) compares a store with the last access of its place
/// alone, and takes it for independent of an earlier load where the storing CPU has loaded the place
/// itself: a search that begins before a CPU which looks at a tag and then writes it is never shown the
/// new tag.
fn race<P: Send + Sync + 'static, T: Send + 'static, U: Send + 'static>(
    begin: impl Fn() -> P + Copy + Send + Sync + 'static,
    one: impl Fn(&P) -> T + Copy + Send + Sync + 'static,
    other: impl Fn(&P) -> U + Copy + Send + Sync + 'static,
    check: impl Fn(&P, T, U) + Copy + Send + Sync + 'static,
) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let places = Arc::new(begin());
        let elsewhere = thread::spawn({
            let places = Arc::clone(&places);
            move || other(&places)
        });
        let here = one(&places);
        check(&places, here, elsewhere.join().unwrap());
    });
    builder.check(move || {
        let places = Arc::new(begin());
        let elsewhere = thread::spawn({
            let places = Arc::clone(&places);
            move || one(&places)
        });
        let here = other(&places);
        check(&places, elsewhere.join().unwrap(), here);
    });
}

/// The words of a slot.
struct Place {
    lock: Mutex<()>,
    tag: AtomicU16,
    stamp: AtomicU32,
    deadline: AtomicU32,
    key: AtomicU32,
    state: [AtomicU32; WORDS],
}

/// A slot as one CPU reads and writes it.
struct Cpu<'a> {
    place: &'a Place,
    held: RefCell<Option<MutexGuard<'a, ()>>>,
}

impl SlotMemory for &Cpu<'_> {
    type Key = u32;
    type State = [u32; WORDS];

    fn tag(self) -> u16 {
        self.place.tag.load(Relaxed)
    }

    fn set_tag(self, tag: u16) {
        self.place.tag.store(tag, Relaxed);
    }

    fn stamp(self) -> u32 {
        self.place.stamp.load(Relaxed)
    }

    fn set_stamp(self, stamp: u32) {
        self.place.stamp.store(stamp, Relaxed);
    }

    fn deadline(self) -> Ticks {
        Ticks(self.place.deadline.load(Relaxed))
    }

    fn set_deadline(self, Ticks(deadline): Ticks) {
        self.place.deadline.store(deadline, Relaxed);
    }

    fn is_keyed(self, key: &u32) -> bool {
        self.place.key.load(Relaxed) == *key
    }

    fn read_key(self, to: &mut u32) {
        *to = self.place.key.load(Relaxed);
    }

    fn set_key(self, key: &u32) {
        self.place.key.store(*key, Relaxed);
    }

    fn read_state(self, to: &mut [u32; WORDS]) {
        for (word, to) in self.place.state.iter().zip(to) {
            *to = word.load(Relaxed);
        }
    }

    fn write_state(self, state: &[u32; WORDS]) {
        for (word, value) in self.place.state.iter().zip(state) {
            word.store(*value, Relaxed);
        }
    }

    fn owner(self) -> u32 {
        self.place.state[0].load(Relaxed)
    }

    fn clear_counts(self, _now: Ticks) {}

    fn keep_order(self) {
        fence(SeqCst);
    }

    fn lock(self) {
        *self.held.borrow_mut() = Some(self.place.lock.lock().unwrap());
    }

    fn unlock(self) {
        self.held.borrow_mut().take();
    }
}

/// The flow with this key, wherever it is.
struct Flow(u32);

impl Wanted<u32> for Flow {
    fn key(&self) -> &u32 {
        &self.0
    }

    fn now(&self) -> Ticks {
        NOW
    }

    fn leaves_out(&self) -> bool {
        false
    }
}

impl Place {
    /// A place that holds the old flow.
    fn taken() -> Self {
        Self {
            lock: Mutex::new(()),
            tag: AtomicU16::new(EMBRYONIC),
            stamp: AtomicU32::new(2),
            deadline: AtomicU32::new(LATER.0),
            key: AtomicU32::new(OLD),
            state: [AtomicU32::new(OLD), AtomicU32::new(OLD)],
        }
    }

    fn free() -> Self {
        let place = Self::taken();
        place.tag.store(0, Relaxed);
        place
    }

    fn cpu(&self) -> Cpu<'_> {
        Cpu {
            place: self,
            held: RefCell::default(),
        }
    }

    /// What a search finds of the flow with this key, which is of either kind: it compares tags first.
    fn find(&self, key: u32) -> Option<(Seen, [u32; WORDS])> {
        if FlowKind::Assured.tag(self.tag.load(Relaxed)) != ASSURED {
            return None;
        }
        let mut state = [0; WORDS];
        let cpu = &self.cpu();
        let seen = slot::look(cpu, &Flow(key))?;
        slot::read_state(cpu, seen, &mut state).then_some((seen, state))
    }

    /// Moves a flow in, whatever was there, as the kernel's half does when it has chosen the place.
    fn fill(&self, tag: u16, key: u32, state: [u32; WORDS]) -> Seen {
        let cpu = &self.cpu();
        cpu.lock();
        let stamp = slot::fill(cpu, tag, &key, &state, LATER, NOW);
        cpu.unlock();
        Seen { tag, stamp }
    }

    fn place(&self, key: u32) -> Seen {
        self.fill(EMBRYONIC, key, [key; WORDS])
    }

    fn assure(&self, key: u32, state: u32) -> Assured {
        slot::assure(&self.cpu(), &key, &[state; WORDS], LATER)
    }

    fn update(&self, seen: Seen, state: [u32; WORDS]) {
        slot::update(&self.cpu(), kind(seen), seen.stamp, &state);
    }

    /// Ends a flow found earlier, if it is still there, and says whether it was.
    fn clear(&self, seen: Seen) -> bool {
        slot::clear(&self.cpu(), kind(seen), seen.stamp) != NO_OWNER
    }

    fn state_words(&self) -> [u32; WORDS] {
        let mut state = [0; WORDS];
        (&self.cpu()).read_state(&mut state);
        state
    }

    fn is_assured(&self) -> bool {
        self.tag.load(Relaxed) == ASSURED
    }
}

fn kind(seen: Seen) -> FlowKind {
    FlowKind::of_tag(seen.tag).expect("what is seen is no free place")
}

#[test]
fn a_search_never_returns_another_flows_state() {
    for key in [OLD, NEW] {
        race(
            Place::taken,
            move |place| place.find(key),
            |place| place.place(NEW),
            move |place, found, _| {
                if let Some((_, state)) = found {
                    assert_eq!(state, [key; WORDS], "the state found for flow {key}");
                }
                let found = place.find(NEW).map(|(_, state)| state);
                assert_eq!(found, Some([NEW; WORDS]), "the flow that moved in");
                assert_eq!(place.find(OLD), None, "the flow that was there");
            },
        );
    }
}

#[test]
fn a_late_writer_changes_nothing() {
    const LATE: u32 = 9;
    race(
        Place::taken,
        |place| {
            if let Some((seen, _)) = place.find(OLD) {
                place.update(seen, [LATE; WORDS]);
            }
        },
        |place| place.place(NEW),
        |place, (), _| assert_eq!(place.state_words(), [NEW; WORDS]),
    );
}

#[test]
fn a_flow_ends_once() {
    let end = |place: &Place| place.find(OLD).is_some_and(|(seen, _)| place.clear(seen));
    race(Place::taken, end, end, |_, one, other| {
        assert!(one != other, "the flow's owner is told once");
    });
}

#[test]
fn a_flow_is_assured_once() {
    let assure = |place: &Place| matches!(place.assure(OLD, OLD), Assured::Now(_));
    race(Place::taken, assure, assure, |_, one, other| {
        assert!(one != other, "the flow is counted once");
    });
}

#[test]
fn a_flow_is_found_while_another_cpu_assures_it() {
    race(
        Place::taken,
        |place| place.find(OLD),
        |place| place.assure(OLD, OLD),
        |_, found, _| assert!(found.is_some(), "the flow is found"),
    );
}

#[test]
fn a_flow_that_is_found_assured_has_the_state_of_an_assured_one() {
    const GROWN: u32 = 9;
    race(
        Place::taken,
        |place| place.find(OLD),
        |place| place.assure(OLD, GROWN),
        |_, found, _| {
            if let Some((seen, state)) = found
                && seen.tag == ASSURED
            {
                assert_eq!(state, [GROWN; WORDS]);
            }
        },
    );
}

#[test]
fn a_late_writer_takes_nothing_from_an_assured_flow() {
    const LATE: u32 = 9;
    race(
        Place::taken,
        |place| {
            if let Some((seen, _)) = place.find(OLD)
                && seen.tag == EMBRYONIC
            {
                place.update(seen, [LATE; WORDS]);
                place.clear(seen);
            }
        },
        |place| matches!(place.assure(OLD, OLD), Assured::Now(_)),
        |place, (), is_assured| {
            if is_assured {
                assert_eq!(place.state_words(), [OLD; WORDS]);
                assert!(place.is_assured());
            }
        },
    );
}

/// A place in each of a flow's two buckets, in the order of a search.
type Places = [Place; 2];

/// Writes a flow into one of its places, and then looks for it in the other, as the kernel's half does.
fn place_once(places: &Places, own: usize) {
    places[own].place(NEW);
    fence(SeqCst);
    let duplicate = 1 - own;
    // What is found may have changed when it is to go; then the next look says more.
    for _ in 0..4 {
        let (Some((other, _)), Some((seen, _))) =
            (places[duplicate].find(NEW), places[own].find(NEW))
        else {
            return;
        };
        let ranks = [(kind(seen), own as u32), (kind(other), duplicate as u32)];
        if gives_way(ranks[0], ranks[1]) {
            places[own].clear(seen);
            return;
        }
        places[duplicate].clear(other);
    }
}

fn held(places: &Places) -> usize {
    let held = places.iter().filter(|place| place.tag.load(Relaxed) != 0);
    held.count()
}

#[test]
fn a_flow_that_two_cpus_place_stays_in_one_place() {
    race(
        || [Place::free(), Place::free()],
        |places| place_once(places, 0),
        |places| place_once(places, 1),
        |places, (), ()| assert_eq!(held(places), 1, "places that hold the flow"),
    );
}

#[test]
fn a_flow_that_is_assured_while_another_cpu_places_it_stays_assured() {
    race(
        || {
            let places = [Place::free(), Place::free()];
            places[1].place(NEW);
            places
        },
        |places| place_once(places, 0),
        |places| matches!(places[1].assure(NEW, NEW), Assured::Now(_)),
        |places, (), is_assured| {
            if is_assured {
                assert!(places[1].is_assured(), "the assured flow");
            }
            assert_eq!(held(places), 1, "places that hold the flow");
        },
    );
}

/// Migrates the old flow from the second place to the first, as the kernel's half does.
fn migrate([to, from]: &Places) {
    let (mut key, mut state) = (0, [0; WORDS]);
    let Content::Live(seen, _) = slot::copy(&from.cpu(), NOW, &mut key, &mut state) else {
        return;
    };
    let placed = to.fill(seen.tag, key, state);
    let mut last = state;
    match slot::leave(&from.cpu(), seen.stamp, &mut last) {
        None => {
            to.clear(placed);
        }
        Some((tag, _)) if tag != seen.tag => {
            slot::assure(&to.cpu(), &key, &last, LATER);
        }
        Some(_) if last != state => to.update(placed, last),
        Some(_) => {}
    }
}

/// A search while flows are migrated.
fn find_either([to, from]: &Places) -> Option<(&Place, Seen)> {
    let found = |place: &Place| place.find(OLD).map(|(seen, _)| seen);
    if let Some(seen) = found(to) {
        return Some((to, seen));
    }
    if let Some(seen) = found(from) {
        return Some((from, seen));
    }
    fence(SeqCst);
    found(to).map(|seen| (to, seen))
}

#[test]
fn a_flow_is_found_while_it_is_migrated() {
    race(
        || [Place::free(), Place::taken()],
        |places| find_either(places).is_some(),
        migrate,
        |places, is_found, ()| {
            assert!(is_found, "the flow is found");
            assert_eq!(held(places), 1, "places that hold the flow");
        },
    );
}

#[test]
fn a_flow_that_is_assured_while_it_is_migrated_stays_assured() {
    const GROWN: u32 = 9;
    race(
        || [Place::free(), Place::taken()],
        |places| {
            find_either(places)
                .is_some_and(|(place, _)| matches!(place.assure(OLD, GROWN), Assured::Now(_)))
        },
        migrate,
        |places, is_assured, ()| {
            let [to, _] = places;
            assert_eq!(held(places), 1, "places that hold the flow");
            if is_assured {
                assert!(to.is_assured(), "the flow in its new place");
                assert_eq!(to.state_words(), [GROWN; WORDS]);
            }
        },
    );
}
