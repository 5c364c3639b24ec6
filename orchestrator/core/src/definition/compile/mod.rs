//! From the checked, resolved model to the plan.
//!
//! **Invariant:** node ids grow in the order of the text, a parent before its bodies, a body before its steps.

mod activity;
mod document;
mod expressions;
mod handler;
mod steps;

pub(super) use document::plan;
