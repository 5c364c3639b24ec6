//! The form that is hashed and stored: JSON in a fixed order of keys, every default filled in, files inlined.
//!
//! It is itself a definition, with `expr_version` added. Data (inputs, schemas, assignments) keep the order they were
//! written in: the order of assignments has a meaning.
//!
//! **Invariant:** a key that the language gained later stands in it only where it says something, so that a definition
//! from before keeps its hash.

mod activity;
mod document;
mod steps;

pub(super) use document::json;
