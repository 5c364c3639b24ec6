//! Expressions and what they refer to, over the whole tree of steps: syntax, names in scope, steps that have not run or may
//! have no output, variables that may not be set, values whose schema says something else; and the order of steps around a
//! pivot, which needs the same walk.
//!
//! The walk follows every way a run can take and carries what is sure on it ([`facts`]): which steps have run, which may
//! have, which variables are set. Where ways meet, only what is sure on all of them stays sure.
//!
//! **Invariant:** what is called sure is there in every run that comes to the place. What is called missing may be there
//! in some.

mod bodies;
mod document;
mod expressions;
mod facts;
mod handlers;
mod index;
mod output;
mod pivot;
mod query;
mod reference;
mod schema_reference;
mod steps;
mod variable;
mod walk;

pub(super) use document::{Forward, check};
pub(super) use query::of_asked;
