//! From the tree to the model: the shape of the language, key by key.
//!
//! **Invariant:** reading goes on after every finding; what cannot be read is left out or has a stand-in that nothing
//! follows from. How deep steps nest and how many there are is bounded here, so that everything after may recurse.

mod activity;
mod branching;
mod child;
mod document;
mod ending;
mod guard;
mod handler;
mod limiting;
mod query;
mod repeat;
mod retry;
mod schedule;
mod step;
mod steps;
mod trigger;
mod value;
mod waiting;

pub(super) use document::definition;
pub(super) use query::asked;
pub(super) use schedule::document as schedule;
#[cfg(test)]
pub(super) use steps::{MAX_NESTING, MAX_STEPS};
pub(super) use trigger::document as trigger;

use super::diagnostic::Diagnostic;

type Found = Vec<Diagnostic>;
/// The content of a file the document names, or why there is none.
type Files<'f> = &'f dyn Fn(&str) -> Result<String, String>;
