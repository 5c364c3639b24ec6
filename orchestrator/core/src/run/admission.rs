//! Admission: a run that waits before it begins, for its workflow id or for a place among the runs of its workflow.
//!
//! | what | then |
//! |---|---|
//! | started, to be queued behind the open run of its id | waits; its status is `queued` |
//! | the next attempt of a run that is tried again ([`super::again`]) | waits until its pause has passed; its status is `running` |
//! | started, to begin later | waits until then; its status is `waiting` |
//! | the pause has passed | it begins, or asks for a place like any other, where it has none |
//! | the id is free | it waits on until it may begin, asks for a place, where its definition limits how many are open, else begins |
//! | started, and its definition limits how many are open | it asks the limiter ([`crate::limit`]); its status is `waiting` |
//! | granted | it begins: the first steps are entered |
//! | refused: `reject` | closes as `failed` |
//! | refused: `skip` | closes as `skipped` |
//! | occupied: `cancel_running` | the run that was named is told to cancel, once; it waits |
//! | cancelled, timed out, terminated while it waits | closes at once: there is nothing to undo |
//! | closed, however | the place is given back |
//! | continued as new, or tried again | the successor has the place, if it is of the same limit; else it gives it back and asks for its own |
//!
//! A run that waits is a run: it takes signals, which are buffered, its timeout counts from its start (after a pause: from when
//! that has passed), operators may do with it what they may do with any. It dispatches nothing.
//!
//! A place is a permit of the limiter that is kept for life. It is given back by the transition that closes the run, which
//! looks at what is held and not at how it came to its end, by a message that is owed until it is answered. A child that is told to
//! undo later has given it back: no limit holds up an undo.
//!
//! **Invariants:** at most as many permits are out as the limit says, so no more runs than that have begun and not closed;
//! a run begins once. A run without `concurrency` has no part in any of this.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::decider::{Decider, Work};
use super::event::{Event, RunStarted};
use super::failure::{Failure, error_type};
use super::input::{Operation, Rejected};
use super::message::{Answer, Body, Recipient, Refusal, Sender};
use super::state::State;
use super::status::Status;
use super::{outbox, permit};
use crate::definition::plan::Plan;
use crate::ids::{MessageNo, RunId, StepPath};
use crate::limit::{Ask, Bound, LimitKind, LimitName, OnConflict, PRIORITY};
use crate::time::Timestamp;

/// The place that a run has to have before it begins, evaluated when it is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceWanted {
    pub limit: LimitName,
    pub bound: Bound,
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub on_conflict: OnConflict,
}

/// A place that was asked for, and perhaps granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub limit: LimitName,
    /// Who has asked for it: this run, or the first of the chain that it continues.
    pub asked_by: RunId,
    pub ask: MessageNo,
    /// The last run that was told to cancel for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<RunId>,
    /// As its limiter says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_at: Option<Timestamp>,
}

impl Place {
    /// Whether the limiter speaks of another grant than the one that the run began with: whoever it was handed on to has given
    /// that one back, and an old copy of the ask was granted after that.
    pub(super) fn was_granted_anew(&self, at: Option<Timestamp>) -> bool {
        self.granted_at.zip(at).is_some_and(|(before, at)| before != at)
    }
}

/// What a run waits for before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// Its workflow id, which another run has.
    Id,
    /// A place among the open runs of its workflow.
    Place,
    /// The end of the pause before it, of an attempt that is not the first, or of a start that was to begin later.
    Pause,
}

/// What a run of this definition has to have before it begins.
pub(super) fn wanted(plan: &Plan, unborn: &State) -> Result<Option<Box<PlaceWanted>>, Rejected> {
    let Some(concurrency) = plan.concurrency.as_deref() else {
        return Ok(None);
    };
    let root = StepPath::new("");
    let scope = super::scope::RunScope::new(plan, unborn, &root);
    let key = permit::key_in(&scope, concurrency.key.as_ref())
        .map_err(|error| Rejected::Expression(format!("the key of `concurrency`: {}", error.message)))?;
    Ok(Some(Box::new(PlaceWanted {
        limit: LimitName {
            kind: LimitKind::Workflow,
            of: Arc::from(plan.workflow.as_str()),
            key,
        },
        bound: Bound::Concurrent(concurrency.limit),
        on_conflict: concurrency.on_conflict,
    })))
}

/// The place that a run has from its first moment on: that of the run which it continues.
pub(super) fn inherited(birth: &RunStarted) -> Option<Box<Place>> {
    let before = birth.continues.as_ref()?.place.as_ref()?;
    let wanted = birth.place.as_ref()?;
    (wanted.limit == before.limit).then(|| before.clone())
}

/// The first thing that a run does.
pub(super) fn begin(d: &mut Decider<'_>) {
    let before = d.state.birth.continues.as_ref().and_then(|it| it.place.clone());
    if let Some(before) = before.filter(|_| d.state.place.is_none()) {
        give_back_place(d, &before);
    }
    if d.state.admission.is_none() {
        seek_place(d);
    }
}

/// The workflow id is the run's from here on.
pub(super) fn id_is_free(d: &mut Decider<'_>) {
    if d.state.is_closed() || d.state.admission != Some(Admission::Id) {
        return;
    }
    d.emit(Event::RunAdmitted { to: Admission::Id });
    if d.state.parked.is_none() && d.state.admission.is_none() {
        seek_place(d);
        d.settle();
    }
}

/// An attempt begins, or a start that was to begin later.
pub(super) fn pause_is_over(d: &mut Decider<'_>) {
    if d.state.begins_at().is_some_and(|at| at <= d.at) {
        d.emit(Event::RunAdmitted { to: Admission::Pause });
        seek_place(d);
    }
}

/// A run that was parked when its id became free goes on from there.
pub(super) fn resumed(d: &mut Decider<'_>) {
    let untouched = d.state.is_running() && d.state.is_quiet() && d.state.steps.is_empty() && d.state.exit.is_none();
    if untouched && d.state.admission.is_none() {
        seek_place(d);
    }
}

/// Asks for a place, or begins where none is needed.
fn seek_place(d: &mut Decider<'_>) {
    let wanted = d.state.birth.place.clone().filter(|_| d.state.place.is_none());
    let Some(wanted) = wanted else {
        return enter(d);
    };
    let ask = Ask {
        limit: wanted.limit.clone(),
        bound: wanted.bound,
        step: StepPath::new(""),
        direction: super::effect::Direction::Do,
        priority: d.state.birth.priority.unwrap_or(PRIORITY),
        fairness_key: Arc::default(),
        on_conflict: wanted.on_conflict,
    };
    outbox::send(d, permit::to(&wanted.limit), Body::Ask(Box::new(ask)));
}

fn enter(d: &mut Decider<'_>) {
    d.push(Work::Enter {
        node: d.plan.root,
        path: StepPath::new(""),
    });
}

/// Whether this answer to an ask for a place decides it; what does not is dealt with here.
pub(super) fn hear(d: &mut Decider<'_>, answer: &Answer) -> bool {
    // It is answered again once the run is resumed.
    if d.state.parked.is_some() {
        return false;
    }
    match answer {
        Answer::Granted { .. }
        | Answer::Refused {
            reason: Refusal::NoPlace,
            ..
        } => true,
        Answer::Occupied { by } => {
            occupied(d, by);
            false
        }
        Answer::Accepted | Answer::Refused { .. } => false,
    }
}

/// Another run is to make room for this one.
fn occupied(d: &mut Decider<'_>, by: &Sender) {
    let waits = d.state.admission == Some(Admission::Place) && !d.state.is_closed();
    let told = d.state.place.as_ref().and_then(|place| place.told);
    if !waits || told == Some(by.run) {
        return;
    }
    let reason = format!(
        "the run {} of `{}` begins in its place (on_conflict: cancel_running)",
        d.state.run_id(),
        d.state.workflow_id()
    );
    let operation = Operation {
        reason: Some(reason.into()),
        ..Operation::default()
    };
    let to = Recipient {
        workflow_id: by.workflow_id.clone(),
        run: Some(by.run),
    };
    outbox::send(d, to, Body::Cancel { operation });
}

/// The limiter has decided about the ask.
pub(super) fn decided(d: &mut Decider<'_>, answer: &Answer) {
    if d.state.is_closed() || d.state.admission != Some(Admission::Place) {
        return;
    }
    match answer {
        Answer::Granted { .. } => {
            d.emit(Event::RunAdmitted { to: Admission::Place });
            enter(d);
        }
        Answer::Refused { message, .. } => {
            let error = Failure::new(error_type::CONCURRENCY, message);
            d.emit(Event::RunFailed { error });
            if d.state.birth.place.as_ref().map(|wanted| wanted.on_conflict) == Some(OnConflict::Skip) {
                d.emit(Event::RunClosed {
                    status: Status::Skipped,
                });
            }
        }
        Answer::Accepted | Answer::Occupied { .. } => {}
    }
}

/// A run that has closed needs no place; one that another goes on for has handed it on.
pub(super) fn give_back(d: &mut Decider<'_>) {
    let Some(place) = d.state.place.clone() else { return };
    let closed = d.state.closed();
    if closed.is_some_and(|closed| closed.successor.is_none()) {
        give_back_place(d, &place);
    }
}

fn give_back_place(d: &mut Decider<'_>, place: &Place) {
    let of = (place.asked_by != d.state.run_id()).then_some(place.asked_by);
    let (limit, ask) = (place.limit.clone(), place.ask);
    outbox::send(d, permit::to(&place.limit), Body::Release { limit, ask, of });
}

impl State {
    /// What the run waits for before it begins; `None` = it has begun.
    pub fn admission(&self) -> Option<Admission> {
        self.admission.filter(|_| !self.is_closed())
    }

    /// When it begins, of one whose pause has not passed.
    pub fn begins_at(&self) -> Option<Timestamp> {
        let waits = self.admission() == Some(Admission::Pause);
        self.paused_until().filter(|_| waits)
    }

    /// Before which it did not begin, of an attempt that is not the first, or of a start that was to begin later.
    pub fn paused_until(&self) -> Option<Timestamp> {
        self.birth.paused_until()
    }

    /// It has closed in line for its workflow id, which it never had.
    pub fn left_line(&self) -> bool {
        self.is_closed() && self.admission == Some(Admission::Id)
    }

    /// The place that it asks for or has, among the open runs of its workflow.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_deref()
    }

    /// Whether that place, as it was granted then, is this run's: its own, or that of a run which it continues.
    pub fn has_place(&self, asked_by: RunId, ask: MessageNo, granted_at: Option<Timestamp>) -> bool {
        self.place
            .as_ref()
            .is_some_and(|place| place.asked_by == asked_by && place.ask == ask && !place.was_granted_anew(granted_at))
    }

    /// From 1, the most important, to 5.
    pub fn priority(&self) -> u8 {
        self.birth.priority.unwrap_or(PRIORITY)
    }

    /// Whether it closed because there was no room, and what becomes of such a start.
    pub fn refused_for_room(&self) -> Option<OnConflict> {
        let wanted = self.birth.place.as_ref()?;
        let refused = self.is_closed()
            && self.began_in.is_none()
            && self
                .failure()
                .is_some_and(|error| &*error.error_type == error_type::CONCURRENCY);
        refused.then_some(wanted.on_conflict)
    }

    /// The transition from which on who waits for the start is told what has become of it; `None` = not yet.
    pub(super) fn start_decided_in(&self) -> Option<u32> {
        let at_once = self
            .birth
            .place
            .as_ref()
            .is_some_and(|wanted| wanted.on_conflict.is_decided_at_once());
        if !at_once || self.birth.continues.is_some() {
            return Some(1);
        }
        self.began_in.or(self.closed().map(|closed| closed.seq))
    }

    pub(super) fn place_asked(&mut self, number: MessageNo, ask: &Ask) {
        self.admission = Some(Admission::Place);
        self.place = Some(Box::new(Place {
            limit: ask.limit.clone(),
            asked_by: self.birth.run_id,
            ask: number,
            told: None,
            granted_at: None,
        }));
    }

    pub(super) fn told_to_make_room(&mut self, run: Option<RunId>) {
        if self.admission == Some(Admission::Place)
            && let Some(place) = &mut self.place
        {
            place.told = run;
        }
    }

    /// A refused ask has left nothing.
    pub(super) fn place_decided(&mut self, answer: &Answer) {
        match (answer, &mut self.place) {
            (Answer::Granted { at, .. }, Some(place)) => place.granted_at = *at,
            (Answer::Granted { .. }, None) => {}
            _ => self.place = None,
        }
    }

    /// Whether this is what was given back.
    pub(super) fn place_released(&mut self, ask: MessageNo, of: Option<RunId>) {
        let by = of.unwrap_or(self.birth.run_id);
        if self
            .place
            .as_ref()
            .is_some_and(|place| place.ask == ask && place.asked_by == by)
        {
            self.place = None;
        }
    }

    pub(super) fn admitted(&mut self, to: Admission, seq: u32, at: Timestamp) {
        self.admission = None;
        if to == Admission::Pause {
            self.began_at = Some(at);
        }
        if to == Admission::Id && self.birth.begins_at.is_some_and(|begins_at| begins_at > at) {
            self.admission = Some(Admission::Pause);
            return;
        }
        if to == Admission::Place || self.birth.place.is_none() || self.place.is_some() {
            self.began_in = Some(seq);
        }
    }
}
