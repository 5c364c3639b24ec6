//! A definition as it was written, typed: what `read` makes of the tree and `resolve` completes.

mod activity;
mod document;
mod handler;
mod step;

pub(super) use activity::{Activity, Attempts, Call, CallFields, Limited, Limiting, RetryFields, Settings, Undo};
pub(super) use document::{Defaults, Definition, JsonSchema, RunConcurrency, Text};
pub(super) use handler::{Handled, Handler};
pub(super) use step::{
    Branch, Case, Catch, ChildWorkflow, Emit, Fail, ForEach, OnTimeout, Parallel, Savepoint, Step, StepKind, Steps,
    Try, Wait, WaitFor, While,
};
