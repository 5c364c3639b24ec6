//! What became of a replay.

use serde::Serialize;
use serde_json::Value;

use super::{Decided, History};
use crate::definition::plan::Plan;
use crate::run::{State, Status, Transition};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub transitions: u32,
    pub events: u32,
    /// Set by whoever knows that the history goes on behind these: what comes there was not looked at.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_part: bool,
    /// By the events.
    pub status: Status,
    pub workflow: String,
    pub version: u32,
    pub definition: Definition,
    /// Transitions that today's core decides as they are recorded.
    pub same: u32,
    /// Those whose input cannot be told from their events.
    pub folded_only: u32,
    pub different: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_difference: Option<Difference>,
    /// What else is not as it should be.
    pub problems: Vec<String>,
}

/// What it was decided again with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Definition {
    NotGiven,
    /// The one the run began with, or one it has moved to.
    Same,
    /// Another one: differences say what it would have done.
    Other,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub seq: u32,
    /// The first event that differs, counted from 0.
    pub event: usize,
    /// `None` = there is none any more.
    pub recorded: Option<Value>,
    pub decided: Option<Value>,
    /// Where nothing was decided, why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Report {
    /// `is_one`: the plan is one that the run went by.
    pub(super) fn of(state: &State, plan: Option<&Plan>, is_one: bool) -> Self {
        Self {
            transitions: 0,
            events: 0,
            is_part: false,
            status: state.status(),
            workflow: state.workflow().to_string(),
            version: state.version(),
            definition: match plan {
                None => Definition::NotGiven,
                Some(_) if is_one => Definition::Same,
                Some(_) => Definition::Other,
            },
            same: 0,
            folded_only: 0,
            different: 0,
            first_difference: None,
            problems: Vec::new(),
        }
    }

    /// Whether everything is as it should be.
    pub fn is_good(&self) -> bool {
        self.different == 0 && self.problems.is_empty()
    }

    pub(super) fn count(&mut self, transition: &Transition) {
        self.transitions += 1;
        self.events += u32::try_from(transition.events.len()).unwrap_or(u32::MAX);
    }

    /// The first of what was decided again that is the same, else how the first of them differs.
    pub(super) fn judge(&mut self, recorded: &Transition, again: impl Iterator<Item = Decided>, folded: &State) {
        let mut nearest: Option<Difference> = None;
        for decided in again {
            let difference = match decided {
                Ok((state, transition)) if transition.events == recorded.events => {
                    if self.definition == Definition::Same && state != *folded {
                        let problem = "the events are the same, and the state they give is another one";
                        self.problems.push(format!("transition {}: {problem}", recorded.seq));
                    }
                    self.same += 1;
                    return;
                }
                Ok((_, transition)) => difference(recorded, &transition),
                Err(why) => Difference {
                    seq: recorded.seq,
                    event: 0,
                    recorded: recorded.events.first().map(json),
                    decided: None,
                    why: Some(why),
                },
            };
            // The guess that goes wrong last is the nearest.
            if nearest.as_ref().is_none_or(|nearest| difference.event > nearest.event) {
                nearest = Some(difference);
            }
        }
        match nearest {
            None => self.folded_only += 1,
            Some(difference) => {
                self.different += 1;
                self.first_difference.get_or_insert(difference);
            }
        }
    }

    pub(super) fn ended(&mut self, state: &State, history: &History) {
        self.status = state.status();
        if let Some(told) = history.status.filter(|told| *told != self.status) {
            let problem = format!("the run is said to be {told}; by its events it is {}", self.status);
            self.problems.push(problem);
        }
    }
}

fn difference(recorded: &Transition, decided: &Transition) -> Difference {
    let same = recorded.events.iter().zip(&decided.events).take_while(|(a, b)| a == b);
    let event = same.count();
    Difference {
        seq: recorded.seq,
        event,
        recorded: recorded.events.get(event).map(json),
        decided: decided.events.get(event).map(json),
        why: None,
    }
}

fn json(event: &crate::run::Event) -> Value {
    // Events always serialise: they are stored.
    serde_json::to_value(event).unwrap_or_default()
}
