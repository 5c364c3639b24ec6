//! Core under random definitions and random fates, by seed; behind the feature `simulation`, and in tests.
//!
//! [`draft`] is a definition as it is drawn, [`draw`] draws one of every kind of step, and what it gives passes the reader
//! and the check like a person's ([`draft::Draft::checked`]). [`case`] is a family of definitions and what happens to their
//! runs, as numbers: a seed gives one, a fuzzer's bytes give one, and a failing one is made smaller by [`shrink`]. [`world`]
//! plays the shell, a log that loses, repeats and reorders, workers, operators and clocks, and [`limiters`] whoever gives out
//! permits and places. [`watched`] is one run, held after every input against what [`told`] makes of its history alone; [`actor`] is
//! a schedule or a trigger, held likewise against what its history says of occurrences and events.
//!
//! **Invariants** that are checked after every step: folding the stored events gives the state, from a snapshot as well; what
//! leaves a run is a function of its stored events; the ledger is durable before a task is out, and an undo's input before the
//! undo; exactly what has to be undone is undone, in the order of its dependencies; nothing fires early; a task ends once; an
//! open run waits for something that has a name; no more limited tasks are out, and no more runs open, than may be, and nobody keeps a
//! permit or a place; a workflow id has one run at a time; each nominal time of a schedule is decided once, and each event of a
//! trigger counts once and in the order of its workflow id; handlers take signals and updates in their order, one at a time, and a run ends
//! over none of them; who waits for an update is told once, and what was said stays true ([`answers`]); a query changes nothing, nor does
//! a repeat; and every run ends when everybody is willing.
//!
//! What it does not do: it knows nothing of store and bus, whose simulation is the engine's.
#![expect(clippy::unwrap_used, reason = "a panic is how a violation is told")]

pub mod actor;
mod answers;
pub mod case;
pub mod draft;
pub mod draw;
mod handled;
mod limiters;
pub mod shrink;
pub mod told;
mod watched;
pub mod words;
mod world;

#[cfg(test)]
mod tests;

pub use case::{Case, Ended, Family};
pub use words::Words;
