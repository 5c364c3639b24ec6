//! A recorded history through today's core.
//!
//! *Folded:* the events alone give the state, as they do when a run is loaded. A history that does not fold (gaps, a birth
//! that is none, time that goes back) is refused.
//!
//! *Decided again*, where the definition is there: from the state before each transition, the input that must have caused it
//! is made from its first event, and core decides on it anew. The same events mean that today's core would have done the
//! same; the first that differ are shown.
//!
//! What an input said and no event kept (whether a worker called its error retryable, how far a queue had delivered) is
//! tried both ways. Transitions whose input cannot be told from their events are counted, and folded only.
//!
//! **Invariant:** whatever is decided again, the recorded events are what the state is made of: a difference in one
//! transition does not hide those behind it.

mod inverse;
mod read;
mod report;

pub use read::{BadHistory, History, is_part, read};
pub use report::{Definition, Difference, Report};

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::definition::plan::Plan;
use crate::ids::DefinitionHash;
use crate::run::event::RunStarted;
use crate::run::{self, Event, State, Transition, evolve};

#[cfg(test)]
mod tests;

/// Folds a history, and decides it again where the definition is given.
pub fn replay(history: &History, plan: Option<&Plan>) -> Result<Report, BadHistory> {
    let (first, rest) = history.transitions.split_first().ok_or(BadHistory::Empty)?;
    let mut state = State::born(first).ok_or(BadHistory::NoBirth)?;
    let mut hashes: BTreeSet<&DefinitionHash> = definitions(history).collect();
    hashes.insert(state.definition_hash());
    let is_one = plan.is_some_and(|plan| hashes.contains(&plan.hash));
    // A run that has moved to another version was decided by each in its time.
    let decides = |by: &DefinitionHash| plan.filter(|plan| plan.hash == *by || !is_one);
    let mut report = Report::of(&state, plan, is_one);
    if plan.is_some() && decides(state.definition_hash()).is_none() {
        report.folded_only += 1;
    }
    if let Some(plan) = decides(state.definition_hash()) {
        let again = match first.events.first() {
            Some(Event::RunStarted(birth)) => {
                let queues = inverse::queues(first);
                let decided = run::start_within(inverse::terms(birth), plan, inverse::start(birth), first.at, &queues);
                vec![decided.map(|(state, transition)| (state, Some(born_alike(transition, birth))))]
            }
            _ => Vec::new(),
        };
        report.judge(first, again.into_iter().map(words), &state);
    }
    report.count(first);
    for transition in rest {
        if transition.seq != state.seq().saturating_add(1) {
            return Err(BadHistory::Gap {
                after: state.seq(),
                found: transition.seq,
            });
        }
        if transition.at < state.at() {
            return Err(BadHistory::TimeGoesBack { seq: transition.seq });
        }
        let before = state.clone();
        evolve(&mut state, transition);
        report.count(transition);
        if plan.is_some() && decides(before.definition_hash()).is_none() {
            report.folded_only += 1;
        }
        if let Some(plan) = decides(before.definition_hash()) {
            let queues = inverse::queues(transition);
            let inputs = inverse::inputs(&before, transition);
            let again = inputs.into_iter().map(|input| {
                let mut state = before.clone();
                let decided = run::apply_within(plan, &mut state, input, transition.at, &queues);
                words(decided.map(|decided| (state, decided)))
            });
            report.judge(transition, again, &state);
        }
    }
    report.ended(&state, history);
    Ok(report)
}

/// Those that the run has moved to.
fn definitions(history: &History) -> impl Iterator<Item = &DefinitionHash> {
    let events = history.transitions.iter().flat_map(|transition| &transition.events);
    events.filter_map(|event| match event {
        Event::RunMigrated { definition, .. } => Some(definition),
        _ => None,
    })
}

/// That it was another definition is told once, and is no difference.
fn born_alike(mut decided: Transition, recorded: &RunStarted) -> Transition {
    if let Some(Event::RunStarted(birth)) = decided.events.first_mut() {
        let birth = Arc::make_mut(birth);
        birth.definition = recorded.definition.clone();
        birth.version = recorded.version;
    }
    decided
}

/// What core decided: the state and the transition, or in words why there is none.
type Decided = Result<(State, Transition), String>;

fn words(decided: Result<(State, Option<Transition>), run::input::Rejected>) -> Decided {
    match decided {
        Ok((state, Some(transition))) => Ok((state, transition)),
        Ok((_, None)) => Err("today the same input changes nothing".to_owned()),
        Err(rejected) => Err(format!("today the same input is refused: {rejected}")),
    }
}
