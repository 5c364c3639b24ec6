//! The state machine of one run: `apply` decides, `evolve` alone changes state.
//!
//! [`apply`] takes one input, decides, and returns what it decided as a [`Transition`]; inside it every event passes
//! through the one function that changes state, so deciding and changing cannot disagree. Events carry every decision and
//! every evaluated expression: a stored run is loaded by [`State::born`] and [`evolve`] alone, without its definition.
//!
//! One behaviour a file: [`tree`] walks the plan and tells containers ([`sequence`]) of their children; [`activity`] and
//! [`set`] are leaves; [`attempt`] ends attempts, [`retry`] says when the next is made, [`stop`] ends the forward part,
//! [`compensation`] undoes, [`deadline`] fires what is due; [`message`] and [`outbox`] are the two ends of what runs say to
//! each other, [`child`] is about children; [`signal`], [`cancel`], [`parked`], [`held`], [`late`] and [`answer`] are the other
//! inputs.
//!
//! **Invariants:** `fold(evolve, events) == state` after every transition; effects are a function of the state and its
//! last transition's events, so that whoever loads a run can publish what it still owes; time never goes back for a run;
//! no input makes it panic or grow without a row of history that says why.

mod activity;
mod answer;
mod apply;
mod attempt;
mod cancel;
mod child;
mod compensation;
mod deadline;
mod decider;
pub mod effect;
pub mod event;
mod evolve;
mod execution;
mod failure;
mod held;
pub mod input;
mod keys;
mod late;
mod ledger;
pub mod limits;
pub mod message;
mod outbox;
mod parked;
mod retry;
mod scope;
pub mod search_attribute;
mod sequence;
mod set;
mod signal;
mod state;
mod status;
mod stop;
mod tree;

#[cfg(test)]
mod tests;

pub use apply::{apply, start};
pub use effect::{effects, effects_still_wanted};
pub use event::{Event, Transition};
pub use evolve::evolve;
pub use execution::{Execution, Known, OpenTask, Wait};
pub use failure::{Failure, error_type};
pub use keys::idempotency_key;
pub use ledger::{LedgerEntry, UndoState};
pub use signal::Signal;
pub use state::{OpenTaskView, Outcome, State, Step};
pub use status::Status;
