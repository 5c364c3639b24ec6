//! Limits that pause and never kill.
//!
//! | limit | what waits | goes on |
//! |---|---|---|
//! | events of the run | the run as a whole is parked; steps that were to be entered are *blocked* | an operator resumes it: the limit is raised by as much again, and they are entered; a run that stops may have as many again to undo |
//! | activities and children under way | the step that would be one more is parked | an operator has it tried again, or resolves it |
//! | size of a value | the step that made it is parked | likewise, with other input |
//! | undos under way | the next ones wait for the others | by itself |

use std::sync::Arc;

use serde_json::Value;

use super::decider::{Decider, Work};
use super::event::Event;
use super::failure::{Failure, error_type};
use super::limits::{MAX_EVENTS, MAX_PENDING};
use super::open::Open;
use super::state::State;
use super::{tree, wait_for};
use crate::json::{self, BadValue, Limits};

impl State {
    /// Whether the run may have no more events until an operator says so.
    fn is_full(&self, more: usize) -> bool {
        let has = self.events as usize + more;
        let may = self.event_limit.unwrap_or(MAX_EVENTS);
        // What was done within the limit can be undone.
        let may = if self.is_stopping() {
            may.saturating_add(MAX_EVENTS)
        } else {
            may
        };
        has >= may as usize
    }

    /// The limit once an operator has raised it, where it was the reason to wait.
    pub(super) fn raised_limit(&self) -> Option<u32> {
        self.is_full(0)
            .then(|| self.events.saturating_add(MAX_EVENTS))
            .or(self.event_limit)
    }
}

/// Whether a step is not to be entered now.
pub(super) fn must_wait(d: &Decider<'_>) -> bool {
    d.state.parked.is_some() || d.state.is_full(d.events_so_far().len())
}

/// Parks a run that has reached its limit of events.
pub(super) fn park_if_full(d: &mut Decider<'_>) {
    if !d.state.is_closed() && d.state.parked.is_none() && d.state.is_full(d.events_so_far().len()) {
        let reason = format!(
            "the run has {} events, which is its limit",
            d.state.events as usize + d.events_so_far().len()
        );
        d.emit(Event::RunParked { reason: reason.into() });
    }
}

/// Enters what was to be entered before, and has signals looked at that came meanwhile.
pub(super) fn resume(d: &mut Decider<'_>, blocked: impl IntoIterator<Item = crate::ids::StepPath>) {
    for path in blocked {
        match tree::find(d.plan, path.as_str()) {
            Some(node) => d.push(Work::Enter { node, path }),
            None => d.park_for_lack_of("step", &path),
        }
    }
    wait_for::offer(d, 0);
}

/// The error of an activity or child that would be one too many.
pub(super) fn one_too_many(state: &State) -> Option<Failure> {
    let children = state
        .open
        .values()
        .filter(|open| matches!(open, Open::Child(_)))
        .count();
    (state.doing.len() + children >= MAX_PENDING).then(|| {
        let message = format!("{MAX_PENDING} activities and children are under way, which is the limit");
        Failure::new(error_type::LIMIT, &message)
    })
}

pub(super) fn is_limit(error: &Failure) -> bool {
    &*error.error_type == error_type::LIMIT
}

/// A value that a run has made, held to the limits of JSON from outside.
pub(super) fn bounded(value: Value) -> Result<Arc<Value>, Failure> {
    check(&value).map(|()| Arc::new(value))
}

pub(super) fn check(value: &Value) -> Result<(), Failure> {
    json::check(value, &Limits::default()).map_err(|problem| {
        let kind = match problem {
            BadValue::TooLarge(_) => error_type::LIMIT,
            BadValue::TooDeep | BadValue::Nul => error_type::EXPRESSION,
        };
        Failure::new(kind, &format!("the value is {problem}"))
    })
}
