//! `updates:`: requests that are validated first, done by a handler, and answered.
//!
//! | an update comes, and | then |
//! |---|---|
//! | the definition has none of the name, the body does not fit its schema, or `validate` says no | it is refused, and leaves no trace |
//! | the run takes updates | it is accepted, and its handler takes it ([`super::handler`]), in the order of acceptance |
//! | the run waits before it begins, is parked as a whole, or is about to continue as new | it is put off: decided about when the run goes on, or by the one that goes on in its place |
//! | its id was taken before | nothing; who asks is told what becomes, or became, of that one |
//! | the run stops, or has closed | it is refused |
//! | the run is followed by another attempt ([`super::again`]) | what it had accepted has failed with it; what was put off is the next one's to decide |
//!
//! Who waits is told when it is accepted, or when its handler has ended: with `output`, or with the failure, which is the run's too
//! unless it is of `output` itself. What was accepted is done before the run completes or continues as new; where the run stops
//! before, its failure is the answer.
//!
//! **Bound:** as many updates wait as signals may; each that was ever taken costs an event, and its answer is kept with it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decider::{Decider, End};
use super::event::{Event, UpdateTaken};
use super::failure::{Failure, error_type};
use super::handler;
use super::input::{Operation, Rejected};
use super::limits::{MAX_BUFFERED_SIGNALS, MAX_WAITERS};
use super::request::{Verb, was_taken};
use super::state::State;
use crate::definition::plan::Handler;
use crate::ids::{RequestId, StepPath};

/// Who waits for an update, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateAnswer {
    pub to: Arc<str>,
    pub on: UpdateStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateStage {
    Accepted,
    Completed,
}

/// Updates of a run, from their coming on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Updates {
    /// How many have been accepted.
    #[serde(default)]
    pub(super) accepted: u32,
    /// Accepted, and no handler has taken them yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) waiting: Vec<Waiting>,
    /// Not decided about yet, in the order of their coming.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) put_off: Vec<PutOff>,
    /// All that were taken, in the order of their coming.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) known: Vec<Known>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    /// Counted from 1 in the order of acceptance.
    pub(super) number: u32,
    pub(super) id: RequestId,
    pub(super) name: Arc<str>,
    #[serde(default)]
    pub(super) body: Arc<Value>,
}

/// One that nobody has decided about. Moves along to the run that goes on in the place of this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PutOff {
    pub id: RequestId,
    pub name: Arc<str>,
    #[serde(default, skip_serializing_if = "super::event::is_null")]
    pub body: Arc<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiters: Vec<UpdateAnswer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) id: RequestId,
    /// The transition that accepted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) accepted_in: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<Ended>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) waiters: Vec<UpdateAnswer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) seq: u32,
    #[serde(default, skip_serializing_if = "super::event::is_null")]
    pub(super) output: Arc<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Failure>,
}

/// How an update stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Update<'a> {
    Refused(&'a Failure),
    Accepted,
    Completed(&'a Arc<Value>),
    /// It failed, or the run stopped before it was done.
    Failed(&'a Failure),
}

/// An update that is not done, where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenUpdate<'a> {
    pub id: &'a RequestId,
    pub name: Arc<str>,
    pub body: Option<&'a Arc<Value>>,
    pub stage: OpenStage,
    /// How many wait to be told.
    pub waiters: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenStage {
    /// Nobody has decided about it.
    PutOff,
    /// It waits for its handler.
    Accepted,
    /// By the steps under this path.
    UnderWay(StepPath),
}

pub(super) fn receive(
    d: &mut Decider<'_>,
    name: Arc<str>,
    body: Arc<Value>,
    operation: Operation,
    answer: Option<UpdateAnswer>,
) -> Result<(), Rejected> {
    let Some(id) = operation.request_id.clone() else {
        return Err(Rejected::UpdateId);
    };
    if d.state.update_known(&id).is_some() {
        return wait(d, id, answer);
    }
    if was_taken(d.state, Verb::Update, &operation) {
        return Err(Rejected::UpdateBefore);
    }
    if let Some(closed) = d.state.closed() {
        return Err(Rejected::Closed(closed.status.as_str()));
    }
    if !d.state.is_running() {
        return Err(Rejected::UpdateRefused("the run is being undone".to_owned()));
    }
    let handler = handler_of(d, &name)?;
    handler::fits(handler.schema.as_ref(), &body).map_err(Rejected::UpdateSchema)?;
    if d.state.updates.waiting.len() + d.state.updates.put_off.len() >= MAX_BUFFERED_SIGNALS {
        return Err(Rejected::UpdatesFull);
    }
    let taken = Box::new(UpdateTaken {
        name,
        body,
        operation,
        answer,
    });
    if !handler::takes(d.state) {
        d.emit(Event::UpdatePutOff(taken));
        return Ok(());
    }
    validate(d, handler, &taken.body).map_err(|error| Rejected::UpdateRefused(error.message.to_string()))?;
    d.emit(Event::UpdateAccepted(taken));
    Ok(())
}

fn handler_of<'a>(d: &Decider<'a>, name: &str) -> Result<&'a Handler, Rejected> {
    let plan = d.plan;
    let found = plan.update_of(name).map(|(_, handler)| handler);
    found.ok_or_else(|| Rejected::UnknownUpdate(name.chars().take(100).collect()))
}

/// What an update's `validate` says of it, as the run stands.
fn validate(d: &Decider<'_>, handler: &Handler, body: &Arc<Value>) -> Result<(), Failure> {
    let Some(validate) = &handler.validate else {
        return Ok(());
    };
    let root = StepPath::new("");
    let said = validate
        .evaluate(&d.scope(&root).with_update(body))
        .map_err(|error| Failure::expression(&error))?;
    let no = |reason: &str| Err(Failure::new(error_type::UPDATE_REFUSED, reason));
    match &*said {
        Value::Bool(true) | Value::Null => Ok(()),
        Value::Bool(false) => no(&format!("`{}` is false", validate.source())),
        Value::String(reason) if reason.is_empty() => Ok(()),
        Value::String(reason) => no(reason),
        Value::Number(_) | Value::Array(_) | Value::Object(_) => no(&format!(
            "`{}` is neither true nor false, nor a text that says why",
            validate.source()
        )),
    }
}

/// Decides about what was put off, now that the run goes on.
pub(super) fn decide(d: &mut Decider<'_>) {
    while let Some(next) = d
        .state
        .updates
        .put_off
        .first()
        .filter(|_| handler::takes(d.state))
        .cloned()
    {
        let decided = handler_of(d, &next.name)
            .map_err(|rejected| Failure::new(error_type::UPDATE_REFUSED, &rejected.to_string()))
            .and_then(|handler| {
                handler::fits(handler.schema.as_ref(), &next.body)
                    .map_err(|error| Failure::new(error_type::UPDATE_REFUSED, &error))?;
                validate(d, handler, &next.body)
            });
        d.emit(match decided {
            Ok(()) => Event::UpdateAdmitted { id: next.id },
            Err(error) => Event::UpdateRefused { id: next.id, error },
        });
    }
}

/// Whoever asks again has not heard the answer. Where it is there already the shell gives it, and nothing changes.
fn wait(d: &mut Decider<'_>, id: RequestId, answer: Option<UpdateAnswer>) -> Result<(), Rejected> {
    let Some(answer) = answer.filter(|answer| !d.state.is_update_decided(&id, answer.on)) else {
        return Ok(());
    };
    if let Some(closed) = d.state.closed() {
        // The run that goes on in its place decides about it.
        return Err(Rejected::Closed(closed.status.as_str()));
    }
    let known = d.state.update_known(&id);
    let waiters = known.map_or(&[][..], |known| &known.waiters);
    if waiters.contains(&answer) {
        return Ok(());
    }
    if waiters.len() >= MAX_WAITERS {
        return Err(Rejected::TooManyWaiters);
    }
    d.emit(Event::UpdateAwaited { id, answer });
    Ok(())
}

impl State {
    pub(super) fn update_known(&self, id: &RequestId) -> Option<&Known> {
        self.updates.known.iter().find(|known| known.id == *id)
    }

    fn update_mut(&mut self, id: &RequestId) -> Option<&mut Known> {
        self.updates.known.iter_mut().find(|known| known.id == *id)
    }

    /// How an update stands that this run has taken; `None` also while nobody has decided about it.
    pub fn update(&self, id: &RequestId) -> Option<Update<'_>> {
        let known = self.update_known(id)?;
        match &known.ended {
            Some(Ended { error: Some(error), .. }) if known.accepted_in.is_none() => Some(Update::Refused(error)),
            Some(Ended { error: Some(error), .. }) => Some(Update::Failed(error)),
            Some(ended) => Some(Update::Completed(&ended.output)),
            None => match (self.failure().filter(|_| self.is_closed()), known.accepted_in) {
                (Some(error), None) if self.successor_id().is_none() => Some(Update::Refused(error)),
                (Some(error), Some(_)) => Some(Update::Failed(error)),
                (_, accepted_in) => accepted_in.map(|_| Update::Accepted),
            },
        }
    }

    /// Updates that are under way or wait: those that handlers are at first, then each in the order of its coming. Of a run that
    /// stops they wait for its end.
    pub fn open_updates(&self) -> Vec<OpenUpdate<'_>> {
        if self.is_closed() {
            return Vec::new();
        }
        let waiters = |id: &RequestId| {
            let known = self.update_known(id);
            let waiters = known.iter().flat_map(|known| &known.waiters);
            waiters.filter(|waiter| !self.is_update_decided(id, waiter.on)).count()
        };
        let of = |id, name: &Arc<str>, body, stage| OpenUpdate {
            id,
            name: Arc::clone(name),
            body,
            stage,
            waiters: waiters(id),
        };
        let under_way = self.executions_of_updates();
        let under_way =
            under_way.map(|(id, name, execution, body)| of(id, &name, body, OpenStage::UnderWay(execution)));
        let waiting = self.updates.waiting.iter();
        let waiting = waiting.map(|one| of(&one.id, &one.name, Some(&one.body), OpenStage::Accepted));
        let put_off = self.updates.put_off.iter();
        let put_off = put_off.map(|one| of(&one.id, &one.name, Some(&one.body), OpenStage::PutOff));
        under_way.chain(waiting).chain(put_off).collect()
    }

    /// Whether there is what somebody waits for who waits for this stage.
    pub fn is_update_decided(&self, id: &RequestId, on: UpdateStage) -> bool {
        match self.update(id) {
            None => false,
            Some(Update::Accepted) => on == UpdateStage::Accepted,
            Some(Update::Refused(_) | Update::Completed(_) | Update::Failed(_)) => true,
        }
    }

    pub(super) fn update_taken(&mut self, taken: &UpdateTaken, seq: u32, accepted: bool) {
        self.taken.remember(Verb::Update, &taken.operation);
        let Some(id) = taken.operation.request_id.clone() else {
            return;
        };
        self.put_off(&PutOff {
            id: id.clone(),
            name: taken.name.clone(),
            body: taken.body.clone(),
            waiters: taken.answer.iter().cloned().collect(),
        });
        if accepted {
            self.update_admitted(&id, seq);
        }
    }

    fn put_off(&mut self, one: &PutOff) {
        self.updates.known.push(Known {
            id: one.id.clone(),
            accepted_in: None,
            ended: None,
            waiters: one.waiters.clone(),
        });
        self.updates.put_off.push(PutOff {
            waiters: Vec::new(),
            ..one.clone()
        });
    }

    pub(super) fn update_admitted(&mut self, id: &RequestId, seq: u32) {
        let Some(at) = self.updates.put_off.iter().position(|one| one.id == *id) else {
            return;
        };
        let PutOff { id, name, body, .. } = self.updates.put_off.remove(at);
        self.updates.accepted = self.updates.accepted.saturating_add(1);
        let number = self.updates.accepted;
        if let Some(known) = self.update_mut(&id) {
            known.accepted_in = Some(seq);
        }
        self.updates.waiting.push(Waiting { number, id, name, body });
    }

    pub(super) fn update_refused(&mut self, id: &RequestId, error: &Failure, seq: u32) {
        self.updates.put_off.retain(|one| one.id != *id);
        self.end_update(id, Arc::default(), Some(error.clone()), seq);
    }

    pub(super) fn update_awaited(&mut self, id: &RequestId, answer: &UpdateAnswer) {
        if let Some(known) = self.update_mut(id) {
            known.waiters.push(answer.clone());
        }
    }

    pub(super) fn update_ended(&mut self, id: &RequestId, (output, end): (&Arc<Value>, &End), seq: u32) {
        match end {
            End::Passed => self.end_update(id, output.clone(), None, seq),
            End::Failed(error) => self.end_update(id, Arc::default(), Some(error.clone()), seq),
            // The run's failure is its answer, once it has closed.
            End::Halted => {}
        }
    }

    fn end_update(&mut self, id: &RequestId, output: Arc<Value>, error: Option<Failure>, seq: u32) {
        if let Some(known) = self.update_mut(id) {
            known.ended = Some(Ended { seq, output, error });
        }
    }

    /// For the run that goes on in the place of this one.
    pub(super) fn updates_put_off(&self) -> Vec<PutOff> {
        let with_waiters = |one: &PutOff| PutOff {
            waiters: self
                .update_known(&one.id)
                .map(|known| known.waiters.clone())
                .unwrap_or_default(),
            ..one.clone()
        };
        self.updates.put_off.iter().map(with_waiters).collect()
    }

    /// What the run before had not decided about.
    pub(super) fn inherit_updates(&mut self, put_off: &[PutOff]) {
        put_off.iter().for_each(|one| self.put_off(one));
    }

    /// Those who wait for an update, and hear of it by these transitions.
    pub(super) fn update_answers(&self, span: &std::ops::RangeInclusive<u32>) -> Vec<(RequestId, UpdateAnswer)> {
        let closed = self.closed().map(|closed| closed.seq);
        let mut answers = Vec::new();
        for known in &self.updates.known {
            let ended = known.ended.as_ref().map(|ended| ended.seq).or(closed);
            // Of one that was put off, the run that goes on in this one's place tells.
            let moved = known.accepted_in.is_none() && known.ended.is_none() && self.successor_id().is_some();
            for waiter in known.waiters.iter().filter(|_| !moved) {
                let decided = match waiter.on {
                    UpdateStage::Accepted => known.accepted_in.or(ended),
                    UpdateStage::Completed => ended,
                };
                if decided.is_some_and(|decided| span.contains(&decided)) {
                    answers.push((known.id.clone(), waiter.clone()));
                }
            }
        }
        answers
    }
}
