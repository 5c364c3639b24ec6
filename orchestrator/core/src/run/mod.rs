//! The state machine of one run: `apply` decides, `evolve` alone changes state.
//!
//! **Invariant:** `fold(evolve, events) == state` after every transition; effects are a function of the state and its
//! last transition's events, so that whoever loads a run can publish what it still owes.

pub mod effect;
pub mod input;
