//! The pure core of Knarr: definitions, expressions, and the state machine of one run.
//!
//! **Invariant:** nothing here reads a clock, does IO, draws a random number, spawns a thread or iterates over a hash map.
//! Time is an argument, ids derive from their parents, deadlines leave as values.

pub mod definition;
pub mod expression;
pub mod ids;
pub mod json;
pub mod limit;
pub mod lines;
pub mod rehearsal;
pub mod replay;
pub mod run;
pub mod schedule;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod time;
pub mod trigger;
pub mod verify;
