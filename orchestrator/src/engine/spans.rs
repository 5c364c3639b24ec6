//! What a transition ends, as spans: attempts with their outcome, and the run itself.
//!
//! Only where spans are exported. They leave with the batch that commits what they tell, like everything else.

use knarr_core::ids::TaskNo;
use knarr_core::run::{Event, Failure, OpenTaskView, State, Transition};
use knarr_core::time::Timestamp;

use crate::telemetry::span::{Ended, RunTrace, Whose};

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Attempt {
    task: TaskNo,
    from: Timestamp,
    name: String,
    attributes: Vec<(&'static str, String)>,
}

impl Attempt {
    fn of(view: &OpenTaskView<'_>) -> Self {
        let execution = view.execution;
        Self {
            task: view.open.task,
            from: view.open.opened_at,
            name: execution.activity.to_string(),
            attributes: vec![
                ("knarr.step", view.step.to_string()),
                ("knarr.direction", view.direction.as_str().to_owned()),
                ("knarr.attempt", execution.attempt.to_string()),
                ("knarr.queue", execution.queue.to_string()),
            ],
        }
    }
}

/// Takes note of what is under way in a run that has just been loaded, so that its end finds it.
pub(super) fn resume(state: &State, under_way: &mut Vec<Attempt>) {
    let known = |task| under_way.iter().any(|attempt: &Attempt| attempt.task == task);
    let new: Vec<_> = state
        .open_tasks()
        .filter(|view| !known(view.open.task))
        .map(|view| Attempt::of(&view))
        .collect();
    under_way.extend(new);
}

/// `state` is the one right after the transition.
pub(super) fn of_transition(
    state: &State,
    trace: RunTrace,
    transition: &Transition,
    under_way: &mut Vec<Attempt>,
    into: &mut Vec<Ended>,
) {
    let mut end = |task: TaskNo, outcome: &'static str, error: Option<String>| {
        let Some(index) = under_way.iter().position(|attempt| attempt.task == task) else {
            return;
        };
        into.push(ended(
            under_way.swap_remove(index),
            trace,
            transition.at,
            outcome,
            error,
        ));
    };
    for event in &transition.events {
        match event {
            Event::TaskCompleted { task, .. } => end(*task, "completed", None),
            Event::TaskFailed { task, error, .. } => end(*task, "failed", Some(said(error))),
            Event::TaskUnknown { task, error } => end(*task, "unknown", Some(said(error))),
            Event::TaskTimedOut { task, error } => end(*task, "timed_out", Some(said(error))),
            Event::TaskLost { task, error } => end(*task, "lost", Some(said(error))),
            Event::TaskWithdrawn { task, error } => end(*task, "withdrawn", Some(said(error))),
            Event::TaskAbandoned { task } => end(*task, "abandoned", None),
            Event::TaskCancelled { task } => end(*task, "cancelled", None),
            Event::TaskDeferred { task, .. } => end(*task, "retry_later", None),
            _ => {}
        }
    }
    if state.is_closed() {
        for attempt in under_way.drain(..) {
            let error = "the run was closed over it".to_owned();
            into.push(ended(attempt, trace, transition.at, "abandoned", Some(error)));
        }
        if state.closed_at() == Some(transition.at) {
            into.push(run(state, trace, transition.at));
        }
    } else {
        resume(state, under_way);
    }
}

fn ended(attempt: Attempt, trace: RunTrace, to: Timestamp, outcome: &'static str, error: Option<String>) -> Ended {
    let mut attributes = attempt.attributes;
    attributes.push(("knarr.outcome", outcome.to_owned()));
    Ended {
        trace,
        whose: Whose::Attempt(attempt.task),
        name: attempt.name.into(),
        from: attempt.from,
        to,
        attributes,
        error,
    }
}

fn run(state: &State, trace: RunTrace, to: Timestamp) -> Ended {
    // Each attempt of a run that is tried again is a run of its own, in the same trace.
    let attempt = state
        .attempt_made()
        .map(|attempt| ("knarr.run_attempt", attempt.number.to_string()));
    let attributes = [
        ("knarr.namespace", state.namespace().to_string()),
        ("knarr.workflow_id", state.workflow_id().to_string()),
        ("knarr.run_id", state.run_id().to_string()),
        ("knarr.workflow", state.workflow().to_string()),
        ("knarr.version", state.version().to_string()),
        ("knarr.status", state.status().as_str().to_owned()),
    ];
    Ended {
        trace,
        whose: Whose::Run,
        name: state.workflow().to_string().into(),
        from: state.started_at(),
        to,
        attributes: attributes.into_iter().chain(attempt).collect(),
        error: state.failure().map(said),
    }
}

fn said(failure: &Failure) -> String {
    format!("{}: {}", failure.error_type, failure.message)
}
