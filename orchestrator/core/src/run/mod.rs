//! The state machine of one run: `apply` decides, `evolve` alone changes state.
//!
//! [`apply`] takes one input, decides, and returns what it decided as a [`Transition`]; inside it every event passes
//! through the one function that changes state, so deciding and changing cannot disagree. Events carry every decision and
//! every evaluated expression: a stored run is loaded by [`State::born`] and [`evolve`] alone, without its definition.
//!
//! One behaviour a file. [`tree`] walks the plan and tells containers of their children: [`sequence`], [`parallel`],
//! [`for_each`], [`while_loop`], [`switch`], [`try_catch`], [`savepoint`]. [`activity`], [`set`], [`timer`], [`wait_for`],
//! [`workflow`], [`emission`] and [`ending`] are leaves. [`attempt`] ends attempts, [`retry`] says when the next is made,
//! [`pivot`] where there is no way back; [`halt`] ends a region from outside, [`stop`] the forward part of the run;
//! [`compensation`] undoes, [`deadline`] fires what is due, [`heartbeat`] hears of workers, [`withdrawal`]
//! takes back what nobody took, [`blocked`] holds limits that pause, and [`raise`] lifts them,
//! [`permit`] has steps wait for limits that count over all runs ([`crate::limit`]), and [`admission`] has runs wait before they begin;
//! [`again`] has one that failed followed by another attempt. [`message`] and [`outbox`] are
//! the two ends of what runs say to each other, [`child`] is a run as a child; [`signal`], [`cancel`], [`parked`], [`held`],
//! [`late`] and [`answer`] are the other inputs; [`handler`] takes signals beside the main body, and [`update`] decides
//! about those that are answered; [`request`] knows which of them are repeats, [`turn`] says how the status has
//! changed, [`parked_item`] lists what operators are asked about, and [`query`] answers who asks; [`migrate`] moves a
//! run to another version of its definition. [`explore`] and [`fingerprint`] are for those who look at what a run may do,
//! and not part of running it.
//!
//! **Invariants:** `fold(evolve, events) == state` after every transition; effects are a function of the state and its
//! last transition's events, so that whoever loads a run can publish what it still owes; time never goes back for a run;
//! no input makes it panic or grow without a row of history that says why.

mod activity;
mod admission;
mod again;
mod answer;
mod apply;
mod attempt;
mod blocked;
mod cancel;
mod change;
mod child;
mod compensation;
mod deadline;
mod decider;
pub mod effect;
mod emission;
mod ending;
pub mod event;
mod evolve;
mod execution;
mod explore;
mod failure;
mod fingerprint;
mod for_each;
mod halt;
mod handler;
mod heartbeat;
mod held;
pub mod input;
mod keys;
mod late;
mod ledger;
pub mod limits;
mod mail;
pub mod message;
pub mod migrate;
mod open;
mod outbox;
mod parallel;
mod parked;
mod parked_item;
mod path;
mod permit;
mod pivot;
mod query;
mod raise;
pub mod request;
mod retry;
mod savepoint;
pub mod schedule;
mod scope;
pub mod search_attribute;
mod sequence;
mod set;
mod signal;
mod state;
mod status;
mod stop;
mod switch;
mod timer;
mod tree;
pub mod trigger;
mod try_catch;
mod turn;
mod update;
mod wait_for;
mod while_loop;
mod withdrawal;
mod workflow;

#[cfg(test)]
mod tests;

pub use admission::{Admission, Place, PlaceWanted};
pub use again::Attempt;
pub use apply::{apply, apply_within, start, start_within};
pub use decider::End;
pub use effect::{effects, effects_still_wanted, emissions};
pub use event::{Event, Transition};
pub use evolve::evolve;
pub use execution::{Execution, Known, OpenTask, Unstarted, Wait};
pub(crate) use explore::{OpenChild, Passing};
pub use failure::{Failure, error_type};
pub use handler::refused as signal_refused;
pub(crate) use handler::{SIGNALS, UPDATES};
pub use keys::{behind, idempotency_key};
pub use ledger::{ChildToUndo, LedgerEntry, UndoState};
pub use open::Exit;
pub use parked_item::{ParkedItem, ParkedStep, ParkedWhat};
pub use permit::{QueueLimits, TaskLimit, TaskLimits};
pub use query::query;
pub use signal::Signal;
pub use state::{OpenTaskView, Outcome, State, Step, Waiting, Why};
pub use status::Status;
pub use turn::{Turn, turns};
pub use update::{OpenStage, OpenUpdate, Update, UpdateAnswer, UpdateStage};
