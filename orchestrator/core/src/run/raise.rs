//! Raising a limit of a run: by an operator, for one run, and only upwards.
//!
//! | limit | then |
//! |---|---|
//! | events, bytes of history | a run that is parked for it goes on, as if it had been resumed |
//! | activities and children under way | steps that were parked for it are tried again, as many as there is room for |
//!
//! A repeat, by request id, changes nothing; nor does a second raise to what the limit is already.

use super::cancel::refused;
use super::decider::{Decider, Work};
use super::event::{Event, StepOutcome};
use super::input::{Operation, Rejected};
use super::limits::{Limit, RunLimits};
use super::open::Open;
use super::request::{Verb, was_taken};
use super::state::Step;
use super::{admission, blocked, tree};
use crate::ids::StepPath;

pub(super) fn raise(d: &mut Decider<'_>, limits: RunLimits, operation: Operation) -> Result<(), Rejected> {
    if was_taken(d.state, Verb::RaiseLimits, &operation) || refused(d.state)? {
        return Ok(());
    }
    if check(d, &limits)? {
        return Ok(());
    }
    let was_full = d.state.parked.is_some() && d.state.reached().is_some();
    d.emit(Event::LimitsRaised { limits, operation });
    if was_full && d.state.reached().is_none() {
        let blocked: Vec<_> = d.state.blocked.iter().cloned().collect();
        d.emit(Event::RunResumed {
            operation: Operation::default(),
            event_limit: d.state.event_limit,
            history_limit: d.state.history_limit,
        });
        let is_blocked = !blocked.is_empty();
        blocked::resume(d, blocked);
        if !is_blocked {
            admission::resumed(d);
        }
    }
    if limits.pending.is_some() && d.state.parked.is_none() {
        retry_what_had_no_room(d);
    }
    d.settle();
    Ok(())
}

/// Whether nothing is to be done, because the limits are what is asked for.
fn check(d: &Decider<'_>, limits: &RunLimits) -> Result<bool, Rejected> {
    let mut asked = false;
    let mut nothing = true;
    for limit in Limit::ALL {
        let Some(to) = limits.get(limit) else { continue };
        asked = true;
        let now = d.state.usage(limit).limit;
        let most = RunLimits::MOST.get(limit).unwrap_or(u64::MAX);
        if to < now || to > most {
            return Err(Rejected::Limit(format!(
                "the limit of {} is {now} for this run and can be raised to {most}, not to {to}",
                limit.as_str(),
            )));
        }
        nothing &= to == now;
    }
    if asked {
        Ok(nothing)
    } else {
        Err(Rejected::Limit("no limit is named that is to be raised".to_owned()))
    }
}

/// Those that a limit parked before anything was done for them.
fn retry_what_had_no_room(d: &mut Decider<'_>) {
    let usage = d.state.usage(Limit::Pending);
    let room = usize::try_from(usage.limit.saturating_sub(usage.used)).unwrap_or(usize::MAX);
    let waits = |(step, open): (&StepPath, &Open)| {
        let Open::Parked { error, .. } = open else { return None };
        let not_begun = matches!(
            d.state.steps.get(step),
            Some(Step::Failed {
                outcome: StepOutcome::Failed,
                ..
            })
        );
        (not_begun && blocked::is_limit(error)).then(|| step.clone())
    };
    let steps: Vec<_> = d.state.open.iter().filter_map(waits).take(room).collect();
    for step in steps {
        match tree::find(d.plan, step.as_str()) {
            Some(node) => {
                d.emit(Event::StepResumed {
                    step: step.clone(),
                    operation: Operation::default(),
                });
                d.push(Work::Enter { node, path: step });
            }
            None => d.park_for_lack_of("step", &step),
        }
    }
}
