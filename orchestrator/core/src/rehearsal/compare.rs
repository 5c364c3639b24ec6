//! What a case expects against what was seen.

use serde::Serialize;
use serde_json::Value;

use super::record::Record;
use super::report::Deviation;
use crate::definition::duration;
use crate::definition::plan::Plan;
use crate::definition::test_file::{Case, Expectation, Expected, Took, code};
use crate::run::{self, Outcome, State, UndoState};
use crate::time::Span;

pub(super) fn deviations(
    expect: &Expectation,
    (plan, state): (&Plan, &State),
    record: &Record,
    took: Span,
) -> Vec<Deviation> {
    let mut all = Comparison { found: Vec::new() };
    if let Some(rejected) = &expect.rejected {
        all.differs("rejected", rejected, &rejected.value, "the input was accepted");
    }
    all.text(
        "status",
        expect.status.as_ref(),
        |status| status.as_str(),
        state.status().as_str(),
    );
    all.outcome(expect, state);
    all.list("steps", expect.steps.as_ref(), &record.steps);
    all.set("skipped", expect.skipped.as_ref(), &record.skipped);
    all.list("undos", expect.undos.as_ref(), &record.undos);
    all.set("parked", expect.parked.as_ref(), &parked(state));
    for (name, expected) in &expect.attempts {
        let actual = record.attempts.get(name).copied().unwrap_or(0);
        if actual != expected.value {
            all.differs(
                &format!("attempts of {name}"),
                expected,
                &expected.value.to_string(),
                &actual.to_string(),
            );
        }
    }
    if let Some(expected) = &expect.run_attempts
        && expected.value != u64::from(state.attempt())
    {
        let actual = state.attempt().to_string();
        all.differs("run_attempts", expected, &expected.value.to_string(), &actual);
    }
    for (name, expected) in &expect.inputs {
        all.value(
            &format!("input of {name}"),
            Some(expected),
            record.inputs.get(name).map(|input| &**input),
        );
    }
    for (name, expected) in &expect.vars {
        let actual = state.vars().get(name.as_str()).map(|value| &**value);
        all.value(&format!("vars.{name}"), Some(expected), actual);
    }
    for (name, expected) in &expect.queries {
        // A name that the plan does not have is a finding of the file.
        let Some(query) = plan.queries.get(name.as_str()) else {
            continue;
        };
        match run::query(plan, state, query) {
            Ok(answer) => all.value(&format!("query {name}"), Some(expected), Some(&answer)),
            Err(error) => {
                let wanted = pretty(&expected.value);
                all.differs(&format!("query {name}"), expected, &wanted, &error.message);
            }
        }
    }
    all.ledger(expect, state);
    all.emitted(expect, record);
    if let Some(expected) = &expect.took {
        all.took(expected, took);
    }
    all.found
}

/// A start that was rejected.
pub(super) fn rejected(case: &Case, reason: &str) -> Option<Deviation> {
    match &case.expect.rejected {
        Some(expected) if reason.contains(&expected.value) => None,
        Some(expected) => Some(
            Deviation::new(code::NOT_AS_EXPECTED, &expected.place, "rejected")
                .between(expected.value.clone(), reason.to_owned()),
        ),
        None => Some(Deviation::new(code::REJECTED, &case.place, reason)),
    }
}

struct Comparison {
    found: Vec<Deviation>,
}

impl Comparison {
    fn differs<T>(&mut self, what: &str, expected: &Expected<T>, wanted: &str, actual: &str) {
        let deviation = Deviation::new(code::NOT_AS_EXPECTED, &expected.place, what);
        self.found.push(deviation.between(wanted.to_owned(), actual.to_owned()));
    }

    fn text<T>(&mut self, what: &str, expected: Option<&Expected<T>>, of: fn(&T) -> &str, actual: &str) {
        if let Some(expected) = expected
            && of(&expected.value) != actual
        {
            self.differs(what, expected, of(&expected.value), actual);
        }
    }

    fn outcome(&mut self, expect: &Expectation, state: &State) {
        let successor = state.successor();
        let next_input = successor.as_ref().map(|start| &*start.input);
        self.value("next_input", expect.next_input.as_ref(), next_input);
        let output = match state.outcome() {
            Some(Outcome::Output(output)) if next_input.is_none() => Some(&**output),
            _ => None,
        };
        self.value("output", expect.output.as_ref(), output);
        let none = "no error";
        let failure = state.failure();
        let step = failure.and_then(|failure| failure.step.as_ref());
        let step = step.map_or(none, |step| step.as_str());
        self.text("error.step", expect.error_step.as_ref(), String::as_str, step);
        let error_type = failure.map_or(none, |failure| &*failure.error_type);
        self.text("error.type", expect.error_type.as_ref(), String::as_str, error_type);
        let message = failure.map_or(none, |failure| &*failure.message);
        if let Some(expected) = &expect.error_message
            && !message.contains(&expected.value)
        {
            self.differs("error.message", expected, &expected.value, message);
        }
    }

    fn value(&mut self, what: &str, expected: Option<&Expected<Value>>, actual: Option<&Value>) {
        if let Some(expected) = expected
            && actual != Some(&expected.value)
        {
            let actual = actual.map_or_else(|| "nothing".to_owned(), pretty);
            self.differs(what, expected, &pretty(&expected.value), &actual);
        }
    }

    fn list(&mut self, what: &str, expected: Option<&Expected<Vec<String>>>, actual: &[String]) {
        if let Some(expected) = expected
            && expected.value != actual
        {
            self.differs(what, expected, &expected.value.join("\n"), &actual.join("\n"));
        }
    }

    fn set(&mut self, what: &str, expected: Option<&Expected<Vec<String>>>, actual: &[String]) {
        let Some(expected) = expected else {
            return;
        };
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list
        };
        let (wanted, actual) = (sorted(&expected.value), sorted(actual));
        if wanted != actual {
            self.differs(what, expected, &wanted.join("\n"), &actual.join("\n"));
        }
    }

    fn ledger(&mut self, expect: &Expectation, state: &State) {
        let Some(expected) = &expect.ledger else {
            return;
        };
        let actual = state.ledger().iter();
        let actual = actual.map(|entry| format!("{}: {}", entry.step, undo_state(&entry.state)));
        let actual: Vec<_> = actual.collect();
        let wanted: Vec<_> = expected
            .value
            .iter()
            .map(|(step, state)| format!("{step}: {state}"))
            .collect();
        if wanted != actual {
            self.differs("ledger", expected, &wanted.join("\n"), &actual.join("\n"));
        }
    }

    fn emitted(&mut self, expect: &Expectation, record: &Record) {
        let Some(expected) = &expect.emitted else {
            return;
        };
        let same = expected.value.len() == record.emitted.len()
            && expected
                .value
                .iter()
                .zip(&record.emitted)
                .all(|(wanted, (subject, body))| {
                    wanted.0 == *subject && wanted.1.as_ref().is_none_or(|wanted| *wanted == **body)
                });
        if same {
            return;
        }
        let wanted = expected.value.iter().map(|(subject, body)| match body {
            Some(body) => format!("{subject} {body}"),
            None => subject.clone(),
        });
        let actual = record.emitted.iter().map(|(subject, body)| format!("{subject} {body}"));
        let (wanted, actual) = (wanted.collect::<Vec<_>>(), actual.collect::<Vec<_>>());
        self.differs("emitted", expected, &wanted.join("\n"), &actual.join("\n"));
    }

    fn took(&mut self, expected: &Expected<Took>, took: Span) {
        let Took { at_least, at_most } = expected.value;
        // People write whole milliseconds.
        let took = Span::from_millis(took.as_millis());
        if (at_least..=at_most).contains(&took) {
            return;
        }
        let wanted = match (at_least, at_most) {
            (low, high) if low == high => duration::format(low),
            (low, Span(u64::MAX)) => format!("at least {}", duration::format(low)),
            (Span::ZERO, high) => format!("at most {}", duration::format(high)),
            (low, high) => format!("{} to {}", duration::format(low), duration::format(high)),
        };
        self.differs("took", expected, &wanted, &duration::format(took));
    }
}

fn parked(state: &State) -> Vec<String> {
    let undos = state.parked_undos().map(|entry| entry.step.to_string());
    undos
        .chain(state.parked_steps().map(|(step, _)| step.to_string()))
        .collect()
}

fn undo_state(state: &UndoState) -> &'static str {
    match state {
        UndoState::Dormant => "dormant",
        UndoState::Needed => "needed",
        UndoState::Ready => "ready",
        UndoState::Running => "running",
        UndoState::Parked { .. } => "parked",
        UndoState::Done => "done",
        UndoState::Skipped => "skipped",
    }
}

fn pretty(value: &(impl Serialize + ToString)) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}
