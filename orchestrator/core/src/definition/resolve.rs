//! Filling in defaults, so that every call says everything about how its tasks are given out.

use std::sync::Arc;

use super::code;
use super::diagnostic::{Diagnostic, Severity};
use super::model::{Attempts, Call, CallFields, Definition, RetryFields, Settings, Step, StepKind, Undo};
use super::plan::{Cancellation, RetryPolicy, Timeouts};
use super::tree::Place;
use crate::ids::QueueName;
use crate::time::Span;

/// Where neither the step nor `defaults` say anything.
const START_TO_CLOSE: Span = Span::from_secs(10);
const INITIAL_INTERVAL: Span = Span::from_secs(1);
const BACKOFF_COEFFICIENT: f64 = 2.0;
/// Of the initial interval.
const MAXIMUM_INTERVAL_FACTOR: u64 = 100;
const UNDO_MAXIMUM_INTERVAL: Span = Span::from_secs(300);
const UNDO_MAXIMUM_ATTEMPTS: u32 = 10;

pub(super) fn fill(definition: &mut Definition, found: &mut Vec<Diagnostic>) {
    let none = CallFields::default();
    let (call_defaults, undo_defaults, cancellation) = match &definition.defaults {
        Some(defaults) => (&defaults.call, &defaults.undo, defaults.cancellation),
        None => (&none, &none, None),
    };
    let limits = definition.defaults.as_ref();
    let policy = definition.compensation.on_exhausted;
    let has_defaults = definition.defaults.is_some();
    let mut assumed: Option<(Place, Vec<String>)> = None;
    let mut each = |step: &mut Step| {
        let StepKind::Activity(activity) = &mut step.kind else {
            return;
        };
        let call = &mut activity.call;
        let queue = first([&call.fields, call_defaults], |f| f.queue.as_ref());
        let queue = match queue {
            Some(queue) => QueueName::new(&queue.text),
            None => {
                let message = format!("the step `{}` has no queue", step.id.text);
                found.push(Diagnostic::error(code::NO_QUEUE, step.id.place.clone(), message));
                return;
            }
        };
        let timeouts = timeouts([&call.fields, call_defaults]);
        let start_to_close = first([&call.fields, call_defaults], |f| f.start_to_close.as_ref()).copied();
        // What all attempts may take, each may.
        let start_to_close = start_to_close.or(timeouts.schedule_to_close);
        if start_to_close.is_none() {
            if has_defaults {
                let message = format!("the step `{}` has no `start_to_close`", step.id.text);
                found.push(Diagnostic::error(code::NO_TIMEOUT, step.id.place.clone(), message));
            } else {
                assumed
                    .get_or_insert_with(|| (step.id.place.clone(), Vec::new()))
                    .1
                    .push(step.id.text.clone());
            }
        }
        let mut settings = Settings {
            queue,
            start_to_close: start_to_close.unwrap_or(START_TO_CLOSE),
            timeouts,
            retry: retry([&call.fields.retry, &call_defaults.retry], None),
            on_exhausted: None,
        };
        let mut contradicts = |message: String| {
            found.push(Diagnostic::error(code::TIMEOUT_IDLE, step.id.place.clone(), message));
        };
        if let Undo::Compensate(undo) = &mut activity.undo {
            let mut of_undo = undo_settings(undo, undo_defaults, &settings);
            of_undo.on_exhausted = of_undo.on_exhausted.filter(|said| *said != policy);
            let what = format!("the undo of `{}`", step.id.text);
            agree(&undo.fields, &mut of_undo, &what, &mut contradicts);
            undo.settings = Some(of_undo);
        }
        agree(
            &call.fields,
            &mut settings,
            &format!("`{}`", step.id.text),
            &mut contradicts,
        );
        let limiting = &mut activity.limiting;
        if let Some(defaults) = limits {
            limiting.priority = limiting.priority.or(defaults.priority);
            if limiting.concurrency.is_none() {
                limiting.concurrency.clone_from(&defaults.concurrency);
            }
        }
        let said = activity.cancellation;
        // What cannot be said of a pivot is not meant for it where it stands under `defaults`.
        let general = cancellation.filter(|it| !(activity.pivot && *it == Cancellation::Abandon));
        activity.cancellation = said.or(general);
        let bounded = settings.timeouts.heartbeat.or(settings.timeouts.schedule_to_close);
        if activity.cancellation == Some(Cancellation::WaitCancelled) && bounded.is_none() {
            let message = format!(
                "nothing ends the wait for `{}` once it has been cancelled",
                step.id.text
            );
            found.push(Diagnostic::error(
                code::ENDLESS_CANCELLATION,
                step.id.place.clone(),
                message,
            ));
        }
        call.settings = Some(settings);
    };
    definition.steps.visit_mut(&mut each);
    for handler in definition.signals.iter_mut().chain(&mut definition.updates) {
        handler.steps.visit_mut(&mut each);
    }
    if let Some((place, steps)) = assumed {
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        let message = format!(
            "10 s is assumed as `start_to_close` of {}",
            super::fields::listed(&steps)
        );
        found.push(Diagnostic::error(code::TIMEOUT_ASSUMED, place, message).severity(Severity::Notice));
    }
}

/// Timeouts of which the shorter makes the longer idle: an error where the step itself says the longer; what comes from
/// `defaults` is fitted to the step.
fn agree(own: &CallFields, settings: &mut Settings, what: &str, contradicts: &mut impl FnMut(String)) {
    let mut idle = |longer: &str, shorter: &str| {
        contradicts(format!("`{longer}` of {what} comes to nothing: `{shorter}` ends first"));
    };
    let timeouts = &mut settings.timeouts;
    if let Some(all) = timeouts.schedule_to_close {
        if all < settings.start_to_close {
            if own.start_to_close.is_some() {
                idle("start_to_close", "schedule_to_close");
            }
            settings.start_to_close = all;
        }
        if timeouts.schedule_to_start.is_some_and(|start| start >= all) {
            if own.timeouts.schedule_to_start.is_some() {
                idle("schedule_to_start", "schedule_to_close");
            }
            timeouts.schedule_to_start = None;
        }
    }
    if timeouts
        .heartbeat
        .is_some_and(|silence| silence >= settings.start_to_close)
    {
        if own.timeouts.heartbeat.is_some() {
            idle("heartbeat", "start_to_close");
        }
        timeouts.heartbeat = None;
    }
}

/// One by one: what the step does not say it takes from `defaults`.
fn timeouts(sources: [&CallFields; 2]) -> Timeouts {
    let of = |field: fn(&Timeouts) -> Option<Span>| sources.into_iter().find_map(|fields| field(&fields.timeouts));
    Timeouts {
        schedule_to_start: of(|it| it.schedule_to_start),
        schedule_to_close: of(|it| it.schedule_to_close),
        heartbeat: of(|it| it.heartbeat),
    }
}

/// An undo goes to its step's queue and has its step's timeout unless something else is said; its retries are its own.
fn undo_settings(undo: &Call, defaults: &CallFields, step: &Settings) -> Settings {
    let sources = [&undo.fields, defaults];
    Settings {
        queue: first(sources, |f| f.queue.as_ref()).map_or_else(|| step.queue.clone(), |q| QueueName::new(&q.text)),
        start_to_close: first(sources, |f| f.start_to_close.as_ref())
            .copied()
            .unwrap_or(step.start_to_close),
        timeouts: timeouts(sources),
        retry: retry(
            [&undo.fields.retry, &defaults.retry],
            Some((UNDO_MAXIMUM_INTERVAL, UNDO_MAXIMUM_ATTEMPTS)),
        ),
        on_exhausted: first(sources, |f| f.on_exhausted.as_ref()).copied(),
    }
}

/// Field by field: what the step does not say it takes from `defaults`.
fn retry(sources: [&RetryFields; 2], undo: Option<(Span, u32)>) -> RetryPolicy {
    let initial_interval = first(sources, |r| r.initial_interval.as_ref())
        .copied()
        .unwrap_or(INITIAL_INTERVAL);
    let maximum_interval = first(sources, |r| r.maximum_interval.as_ref())
        .copied()
        .unwrap_or(undo.map_or(
            Span(initial_interval.0.saturating_mul(MAXIMUM_INTERVAL_FACTOR)),
            |(interval, _)| interval,
        ));
    let maximum_attempts = match first(sources, |r| r.maximum_attempts.as_ref()) {
        Some(Attempts::AtMost(attempts)) => Some(*attempts),
        Some(Attempts::Unlimited) => None,
        None => undo.map(|(_, attempts)| attempts),
    };
    let non_retryable = first(sources, |r| r.non_retryable.as_ref());
    RetryPolicy {
        initial_interval,
        backoff_coefficient: first(sources, |r| r.backoff_coefficient.as_ref())
            .copied()
            .unwrap_or(BACKOFF_COEFFICIENT),
        maximum_interval: maximum_interval.max(initial_interval).min(super::duration::MAX),
        maximum_attempts,
        non_retryable: non_retryable
            .map(|types| types.iter().map(|t| Arc::from(t.as_str())).collect())
            .unwrap_or_default(),
    }
}

/// Of runs: as of activities.
pub(super) fn retry_of_run(said: &RetryFields) -> RetryPolicy {
    retry([said, &RetryFields::default()], None)
}

fn first<'a, S, T>(sources: [&'a S; 2], field: impl Fn(&'a S) -> Option<&'a T>) -> Option<&'a T> {
    sources.into_iter().find_map(field)
}
