//! Limits that pause and never kill.
//!
//! | limit | what waits | goes on |
//! |---|---|---|
//! | events of the run, bytes of its history | the run as a whole is parked; steps that were to be entered are *blocked* | an operator resumes it: the limit is raised by as much again, and by what it takes to ask for permits that were given back; or raises it ([`super::raise`]) |
//! | activities and children under way | the step that would be one more is parked | an operator has it tried again, resolves it, or raises the limit |
//! | size of a value | the step that made it is parked, also the activity whose worker has answered too much; for the run's output the run is | an operator has it tried again, with other input, or resolves it |
//! | undos under way | the next ones wait for the others | by itself |
//!
//! **No limit holds up an undo.** A run that stops is not parked by its limits, however much there is to undo; it may have as
//! much again for entering steps of a `finally`, and only what is blocked there parks it. Each limit is warned of by the shell
//! from a fifth of it on ([`State::usage`]).

use std::sync::Arc;

use serde_json::Value;

use super::decider::{Decider, Work};
use super::event::Event;
use super::failure::{Failure, error_type};
use super::input::Operation;
use super::limits::{Limit, RunLimits, Usage};
use super::open::Open;
use super::state::State;
use super::{held, permit, tree, wait_for};
use crate::definition::plan::NodeKind;
use crate::json::{self, BadValue, Limits};

impl State {
    /// How much there is of what is limited, and how much there may be.
    pub fn usage(&self, limit: Limit) -> Usage {
        let raised = RunLimits {
            events: self.event_limit,
            history_bytes: self.history_limit,
            pending: self.pending_limit,
        };
        let used = match limit {
            Limit::Events => u64::from(self.events),
            Limit::HistoryBytes => self.history_bytes,
            Limit::Pending => self.pending() as u64,
        };
        let limits = raised.or(self.birth.limits).or(RunLimits::DEFAULT);
        if self.is_actor() {
            // It goes on for ever, and what has passed is not kept.
            return Usage { used, limit: u64::MAX };
        }
        Usage {
            used,
            limit: limits.get(limit).unwrap_or(u64::MAX),
        }
    }

    /// The limit that the run as a whole has reached.
    pub fn reached(&self) -> Option<Limit> {
        self.reached_with(0, 0)
    }

    fn reached_with(&self, events: usize, bytes: u64) -> Option<Limit> {
        let more = [(Limit::Events, events as u64), (Limit::HistoryBytes, bytes)];
        let reached = |(limit, more): &(Limit, u64)| {
            let usage = self.usage(*limit);
            // What was done within the limit can be undone, and tidied up after.
            let again = if self.is_stopping() { self.base(*limit) } else { 0 };
            usage.used.saturating_add(*more) >= usage.limit.saturating_add(again)
        };
        more.iter().find(|limit| reached(limit)).map(|(limit, _)| *limit)
    }

    /// As the run was started.
    fn base(&self, limit: Limit) -> u64 {
        let limits = self.birth.limits.or(RunLimits::DEFAULT);
        limits.get(limit).unwrap_or(u64::MAX)
    }

    /// Activities and children under way forwards.
    fn pending(&self) -> usize {
        let mut pending = self.doing.len();
        if !self.open.is_empty() {
            let children = self.open.values().filter(|open| matches!(open, Open::Child(_)));
            pending += children.count();
        }
        pending
    }
}

/// Whether a step is not to be entered now.
pub(super) fn must_wait(d: &mut Decider<'_>) -> bool {
    let bytes = d.bytes_so_far();
    d.state.parked.is_some() || d.state.reached_with(d.events_so_far().len(), bytes).is_some()
}

/// Parks a run that has reached a limit with this transition of so many bytes; whether it did.
pub(super) fn park_if_full(d: &mut Decider<'_>, bytes: u64) -> bool {
    if d.state.is_closed() || d.state.parked.is_some() || d.state.is_stopping() && d.state.blocked.is_empty() {
        return false;
    }
    let events = d.events_so_far().len();
    let Some(limit) = d.state.reached_with(events, bytes) else {
        return false;
    };
    let used = d.state.usage(limit).used;
    let reason = match limit {
        Limit::HistoryBytes => format!(
            "the history of the run has {} bytes, which is its limit",
            used.saturating_add(bytes)
        ),
        _ => format!(
            "the run has {} events, which is its limit",
            used.saturating_add(events as u64)
        ),
    };
    d.emit(Event::RunParked { reason: reason.into() });
    true
}

/// Ends the parking. A limit that the run is at is raised by as much again, and by what it takes to ask for its permits: else a
/// run with many steps that wait for some would come to no task before it is parked again, however often it is resumed.
pub(super) fn resumed(d: &mut Decider<'_>, operation: Operation) {
    let (events, bytes) = permit::to_ask_for_all(d);
    let raised = |limit, more: u64| {
        let usage = d.state.usage(limit);
        let most = usage.used.saturating_add(d.state.base(limit)).saturating_add(more);
        usage.is_reached().then_some(most)
    };
    let events = raised(Limit::Events, events).map(|most| u32::try_from(most).unwrap_or(u32::MAX));
    let bytes = raised(Limit::HistoryBytes, bytes);
    d.emit(Event::RunResumed {
        operation,
        event_limit: events.or(d.state.event_limit),
        history_limit: bytes.or(d.state.history_limit),
    });
}

/// A stop takes a parked run out of that, and gives one at its limit room again: what is blocked in a `finally` is entered.
pub(super) fn go_on(d: &mut Decider<'_>) {
    if d.state.blocked.is_empty() || d.state.is_closed() || must_wait(d) {
        return;
    }
    let blocked: Vec<_> = d.state.blocked.iter().cloned().collect();
    d.emit(Event::RunResumed {
        operation: Operation::default(),
        event_limit: d.state.event_limit,
        history_limit: d.state.history_limit,
    });
    resume(d, blocked);
}

/// Enters what was to be entered before, and looks at what came meanwhile: signals, and tasks that their stream refused.
pub(super) fn resume(d: &mut Decider<'_>, blocked: impl IntoIterator<Item = crate::ids::StepPath>) {
    for path in blocked {
        // What waits at the root is the output of the run, unless nothing was entered yet.
        if path.as_str().is_empty() {
            let node = d.plan.root;
            match is_entered(d) {
                true => d.passed(node, path),
                false => d.push(Work::Enter { node, path }),
            }
            continue;
        }
        match tree::find(d.plan, path.as_str()) {
            Some(node) => d.push(Work::Enter { node, path }),
            None => d.park_for_lack_of("step", &path),
        }
    }
    wait_for::offer(d, 0);
    held::resume(d);
}

/// Whether the run has got beyond its birth, or there is nothing to get to.
pub(super) fn is_entered(d: &Decider<'_>) -> bool {
    let root = &d.plan.node(d.plan.root).kind;
    !d.state.steps.is_empty() || matches!(root, NodeKind::Sequence { children } if children.is_empty())
}

/// The error of an activity or child that would be one too many.
pub(super) fn one_too_many(state: &State) -> Option<Failure> {
    let usage = state.usage(Limit::Pending);
    usage.is_reached().then(|| {
        let message = format!(
            "{} activities and children are under way, which is the limit",
            usage.used
        );
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
