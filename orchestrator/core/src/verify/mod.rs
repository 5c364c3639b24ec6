//! Explores everything that may happen to a run of a definition, before there is one.
//!
//! A state-space search over the production core: from every state, every outcome of every task, every order of what runs
//! side by side, every timeout, signal and answer of a child, and a cancellation. States from which the same may follow are
//! one ([`crate::run`]'s fingerprints), so the search ends. What it finds is named with the shortest way that leads to it.
//!
//! **Covered, without end:** each step and undo completes, fails for good (with each error type that a `try` around it names,
//! and one that none does), or ends unknown for good; attempts in between change nothing but time. Each timer and timeout in
//! any order with everything else; a run's timeout stops a run exactly as a cancellation does and is explored as one. Of a run
//! that is tried again (`retry:`) one attempt is: each has undone itself before the next begins with nothing but the input, and
//! what reads the attempt's number is taken both ways, so that what holds of one holds of any number of them.
//!
//! **Covered, up to a bound:** lists have 0, 1 and [`MAX_ITEMS`] items, and `while` loops fail after [`MAX_ITERATIONS`]
//! iterations where they may have more; a handler takes up to
//! [`MAX_HANDLED`] signals or updates, each of which comes at any moment; at most [`MAX_PARKED`] undos keep failing on one way. Iterations of a loop that stand
//! the same are explored once, and what cannot influence each other (undos side by side, tasks that a run that stops waits
//! for) in one order. Where there are more states than may be looked at, ways with few faults are, completely: the report
//! says how many.
//!
//! **Abstracted:** data. Outputs and inputs are opaque values. What a condition asks of what is there (`steps.x is defined`)
//! is answered by the state. One that reads data is taken both ways; one that reads only what does not change in a run (the
//! input, the output of a step outside of loops) goes the same way every time, wherever its text stands, and so does a list;
//! one whose variables hold constants, or that reads nothing, is evaluated. An expression fails exactly when a step or
//! variable is not there that it reads unguarded, and may read as far as what is there decides; a guard whose effect is
//! not understood is believed, as `knarr check` believes it. So the search may report a way that the data of no run ever
//! takes, and misses none that differs by more than data.
//!
//! **Not covered:** expressions that fail on the data they get, late results, operators' decisions (what is parked stays),
//! limits, and what becomes of children inside (each is verified by itself).

mod abstraction;
mod choice;
pub mod code;
mod ends;
mod moves;
mod paths;
mod report;
mod search;

pub use report::{Bound, Coverage, Finding, Report, Severity};
pub use search::{Limits, verify};

/// Longest list.
pub const MAX_ITEMS: usize = 2;
/// Most undos that keep failing on one way: one that is parked holds up nothing, or everything.
pub const MAX_PARKED: usize = 2;
/// Most signals, or updates, of a name that a handler takes.
pub const MAX_HANDLED: usize = 2;
/// Most iterations of a `while`.
pub const MAX_ITERATIONS: u32 = 2;

#[cfg(test)]
mod tests;
