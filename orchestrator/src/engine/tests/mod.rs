//! The engine over the memory store and the memory bus, in stopped time.
//!
//! Every replica reaches both by a [`line`] that delays, loses and cuts; [`world`] plays workers and services and says what
//! must hold in the end. A seed fixes the faults; run ids and the order of hash maps are not under it, so a seed that fails
//! may need a few repeats. `KNARR_SIM_SEEDS=N` runs N seeds of the random scenario ([`random`]) instead of a few, and
//! `KNARR_SIM_SEED=S` that one alone. [`sim`] does the same for definitions of every kind.

mod activities;
mod admission;
mod again;
mod bounds;
mod deadlines;
mod deferral;
mod families;
mod handlers;
mod head_room;
mod lifecycle;
mod limits;
mod line;
mod memory;
mod messages;
mod operators;
mod permits;
mod places;
mod queues;
mod random;
mod refusals;
mod removals;
mod repeats;
mod robustness;
mod scenarios;
mod schedules;
mod scripts;
mod sharing;
mod sim;
mod starts;
mod tenure;
mod timeouts;
mod timers;
mod triggers;
mod updates;
mod upgrade;
mod wire;
mod world;

use std::cell::Cell;

use knarr_core::run::input::{Input, Start, TaskOutcome};
use knarr_core::trigger::source::Item;

use crate::bus::inlet::InUse;

thread_local! {
    static TURNS: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<usize> = const { Cell::new(0) };
    /// The birth of a successor makes core panic.
    static BIRTHS_PANIC: Cell<bool> = const { Cell::new(false) };
    /// Parking a run makes core panic.
    static PARKING_PANICS: Cell<bool> = const { Cell::new(false) };
    /// Each event that a trigger reads makes core panic.
    static EVENTS_PANIC: Cell<bool> = const { Cell::new(false) };
    static MOST: Cell<Kept> = const { Cell::new(Kept { live: 0, live_bytes: 0, intake: InUse { log: 0, direct: 0 }, publishing_bytes: 0, asleep: 0 }) };
    static WAKES: Cell<(bool, u32)> = const { Cell::new((false, 0)) };
}

/// What a loop keeps in memory at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub(super) live: usize,
    pub(super) live_bytes: usize,
    pub(super) intake: InUse,
    pub(super) publishing_bytes: usize,
    pub(super) asleep: usize,
}

/// Counts rounds of all loops of this test, and notes how many runs the last one had in memory and the most that any kept.
pub(super) fn turned(now: Kept) {
    TURNS.set(TURNS.get() + 1);
    LIVE.set(now.live);
    let most = MOST.get();
    MOST.set(Kept {
        live: most.live.max(now.live),
        live_bytes: most.live_bytes.max(now.live_bytes),
        intake: InUse {
            log: most.intake.log.max(now.intake.log),
            direct: most.intake.direct.max(now.intake.direct),
        },
        publishing_bytes: most.publishing_bytes.max(now.publishing_bytes),
        asleep: most.asleep.max(now.asleep),
    });
}

/// The most that was kept since this was last asked.
fn most_kept() -> Kept {
    let most = MOST.get();
    MOST.set(Kept {
        live: 0,
        live_bytes: 0,
        intake: InUse::default(),
        publishing_bytes: 0,
        asleep: 0,
    });
    most
}

fn turns() -> u64 {
    TURNS.get()
}

fn live() -> usize {
    LIVE.get()
}

/// Whether limiters break when time passes, and how often one has.
pub(super) fn break_wakes(broken: bool) {
    WAKES.set((broken, WAKES.get().1));
}

pub(super) fn broken_wakes() -> u32 {
    WAKES.get().1
}

/// Stands in for a bug of core.
pub(super) fn perhaps_panic_at_a_wake() {
    let (broken, times) = WAKES.get();
    // Not for ever, so that what goes on for ever is seen.
    if broken && times < 20 {
        WAKES.set((broken, times + 1));
        panic!("a panic at a wake-up, asked for by a test");
    }
}

/// Stands in for a bug of core: a failure of the type `panic` panics.
pub(super) fn perhaps_panic(input: &Input) {
    if let Input::Park { .. } = input {
        assert!(
            !PARKING_PANICS.get(),
            "a panic while a run is parked, asked for by a test"
        );
    }
    if let Input::Read(read) = input {
        let event = read.items.iter().any(|item| matches!(item, Item::Event(_)));
        assert!(
            !(event && EVENTS_PANIC.get()),
            "a panic over an event, asked for by a test"
        );
    }
    if let Input::TaskEnded {
        outcome: TaskOutcome::Failed(error),
        ..
    } = input
    {
        assert!(&*error.error_type != "panic", "a panic in core, asked for by a test");
    }
}

pub(super) fn perhaps_panic_at_birth(start: &Start) {
    let panics = start.continues.is_some() && BIRTHS_PANIC.get();
    assert!(!panics, "a panic over a successor, asked for by a test");
}
