//! Messages between runs: to whom they go, and what is answered where nobody is there.
//!
//! What a run that has closed as continued as new, or is tried again, has not answered is for its successor.
//!
//! **Invariant:** the answer to a message is a function of the receiver's committed state, or, where there is no receiver, of
//! there being none; a repeat of the message is answered the same, or decided anew.

use std::sync::Arc;

use knarr_core::ids::RunId;
use knarr_core::run::input::Input;
use knarr_core::run::message::{self, Answer, Body, Refusal as Reason, StartChild, TriggeredBy};
use knarr_core::trigger::spec as trigger;

use super::apply::Applied;
use super::job::{Job, RunMessage};
use super::live::{IdInfo, IdKey, LiveRuns};
use super::look_up::Absent;
use super::outgoing;
use super::perform::Step;
use super::poison::PoisonKey;
use super::repeats::Taken;
use super::run_loop::Loop;
use super::schedule::is_reserved;
use crate::bus::Bus;
use crate::store::{Store, format};

impl RunMessage {
    /// The run it is for, where that is fixed.
    pub(super) fn receiver(&self) -> Option<RunId> {
        match &self.body {
            Body::StartChild(start) => Some(start.run_id),
            _ => self.to_run,
        }
    }

    pub(super) fn key(&self) -> IdKey {
        (self.namespace.clone(), self.workflow_id.clone())
    }
}

/// The run that a message is for, as far as that is known: where that goes on as another, and has not answered, the other.
pub(super) fn receiver_of(live: &LiveRuns, message: &RunMessage) -> Option<RunId> {
    let newest = || Some(live.id(&message.key())?.newest()?.row.run_id);
    let mut receiver = match message.receiver() {
        // However long the chain of those that went on is. That it has been started says the first alone.
        Some(first) => newest()
            .filter(|run_id| message.to_run.is_some() && goes_on_for(live, *run_id, first))
            .unwrap_or(first),
        None => newest()?,
    };
    while let Some(known) = live.get(receiver)
        && known.state.answer_to(message.from.run, message.number).is_none()
        && let Some(successor) = known.state.successor()
    {
        receiver = successor.run_id;
    }
    Some(receiver)
}

/// Whether this run is in memory, and known to be what the other has gone on as in the end: its parent knows it by the first of them,
/// and so does who holds its place.
fn goes_on_for(live: &LiveRuns, run_id: RunId, first: RunId) -> bool {
    live.get(run_id).is_some_and(|live| {
        let of_parent = live.state.parent().is_some_and(|parent| parent.child == first);
        of_parent || live.state.place().is_some_and(|place| place.asked_by == first)
    })
}

impl<S: Store, B: Bus> Loop<S, B> {
    pub(super) fn message(&mut self, job: Job, request: &RunMessage) -> Step {
        // Of a receiver that is named the id may never have been looked up; then nobody waits for its successor here.
        let by_id = request.receiver().is_none();
        if self.continues_first(&request.key()) || by_id && self.others_come_first(&request.key(), None) {
            return Step::Blocked(Box::new(job));
        }
        let named = request.receiver();
        if named.is_none() && self.live.id(&request.key()).is_none() {
            return Step::Lacks(Box::new(job));
        }
        let receiver = receiver_of(&self.live, request);
        if let Some(run_id) = receiver
            && !self.live.contains(run_id)
            && !self.absent.contains_key(&run_id)
        {
            return Step::Lacks(Box::new(job));
        }
        let info = self.live.id(&request.key());
        match info.map_or(Some(Taken::No), |info| info.has_taken(&self.live, request)) {
            None => return Step::Lacks(Box::new(job)),
            Some(Taken::No) => {}
            Some(Taken::Yes) => {
                self.answer_message(request, &Answer::Accepted);
                return self.message_taken(&job);
            }
            Some(Taken::Unreadable(run_id)) => {
                let message = format!("the run {run_id} may have taken it, and its history cannot be read");
                self.answer_message(request, &Answer::refused(Reason::Invalid, &message));
                return self.message_taken(&job);
            }
        }
        if receiver.is_some_and(|run_id| self.absent.get(&run_id) == Some(&Absent::Unreadable)) {
            // It is there, and an operator has to look at it: the message is offered again.
            return self.message_taken(&job);
        }
        if named.is_some() && receiver != named && receiver.is_some_and(|run_id| !self.live.contains(run_id)) {
            // The run that the receiver goes on as has yet to begin: the message is offered again.
            return self.message_taken(&job);
        }
        let receiver = receiver.filter(|run_id| {
            let live = self.live.get(*run_id);
            live.is_some_and(|live| {
                live.row.namespace == request.namespace && live.row.workflow_id == request.workflow_id
            })
        });
        match (receiver, &request.body) {
            (Some(run_id), _) => self.deliver(job, request, run_id),
            (None, Body::StartChild(start)) => self.start_child(job, request, start),
            (None, _) => {
                self.answer_message(request, &Answer::refused(Reason::NoRun, "there is no such run"));
                self.message_taken(&job)
            }
        }
    }

    fn deliver(&mut self, job: Job, request: &RunMessage, run_id: RunId) -> Step {
        let input = Input::Message {
            from: request.from.clone(),
            number: request.number,
            body: request.body.clone(),
        };
        match self.apply(run_id, input) {
            // The answer is among the transition's effects.
            Applied::Changed => {}
            Applied::Nothing => {
                let live = self.live.get(run_id);
                let answer = live.and_then(|live| live.state.answer_to(request.from.run, request.number));
                // A parked run says nothing yet: the message is offered again.
                if let Some(answer) = answer {
                    self.answer_message(request, &answer);
                }
            }
            Applied::Rejected(refusal) => {
                self.answer_message(request, &Answer::refused(Reason::Invalid, &refusal.message));
            }
            Applied::Panicked => return self.poison(PoisonKey::of(&job)),
        }
        self.message_taken(&job)
    }

    fn start_child(&mut self, job: Job, request: &RunMessage, start: &StartChild) -> Step {
        let key = request.key();
        if !self.was_looked_up(&job) {
            return Step::Lacks(Box::new(job));
        }
        let Some(info) = self.live.id(&key) else {
            return Step::Lacks(Box::new(job));
        };
        if is_reserved(&request.workflow_id) {
            let message = format!(
                "the workflow id `{}` belongs to a schedule or a trigger",
                request.workflow_id
            );
            self.answer_message(request, &Answer::refused(Reason::NotStarted, &message));
            return self.message_taken(&job);
        }
        if let Some(known) = info.newest().filter(|_| start.scheduled.is_some()) {
            // Its workflow id says which occurrence it is, and that is started once.
            let message = format!("the run {} has this workflow id", known.row.run_id);
            self.answer_message(request, &Answer::refused(Reason::AlreadyStarted, &message));
            return self.message_taken(&job);
        }
        if let Some(by) = &start.triggered
            && let Some(answer) = answer_to_trigger(info, by, self.may_store(format::FOURTH))
        {
            self.answer_message(request, &answer);
            return self.message_taken(&job);
        }
        if let Some(open) = info.open() {
            let message = format!("the run {} with this workflow id is open", open.row.run_id);
            self.answer_message(request, &Answer::refused(Reason::IdTaken, &message));
            return self.message_taken(&job);
        }
        if info.closes_in(self.building.number) || self.others_come_first(&key, None) {
            return Step::Blocked(Box::new(job));
        }
        let plan = self
            .definitions
            .resolve(&request.namespace, &start.workflow, start.version);
        let class = self.definitions.namespace(&request.namespace);
        let (Some(plan), Some(class)) = (plan, class) else {
            let missing = self.not_there(&request.namespace, &start.workflow, start.version);
            self.answer_message(request, &Answer::refused(Reason::UnknownWorkflow, &missing.message));
            return self.message_taken(&job);
        };
        let child = message::child_start(&request.from, request.number, &request.workflow_id, start);
        match self.open(&key, &plan, class, child) {
            // Its birth answers.
            Ok(true) => {}
            Ok(false) => return self.poison(PoisonKey::of(&job)),
            Err(refusal) => {
                self.answer_message(request, &Answer::refused(Reason::NotStarted, &refusal.message));
            }
        }
        self.message_taken(&job)
    }

    fn message_taken(&mut self, job: &Job) -> Step {
        self.taken(&job.origin, None);
        self.building.inputs += 1;
        Step::Done
    }

    /// Said after the commit; if it is lost the message is offered again, and answered again.
    fn answer_message(&mut self, request: &RunMessage, answer: &Answer) {
        let tokens = Arc::clone(&self.tokens);
        if let Some(message) = outgoing::message_answer(&tokens, &request.from, request.number, answer) {
            self.building.answer(message);
        }
    }
}

/// What earlier runs of the workflow id mean for a start by a trigger, beside that one which is open is in its way. Of that a
/// trigger which uses it is told as well, by which it knows that a run that a repeat of its start begins is one too many; of an
/// older version it takes that for a refusal (`tells_apart`).
fn answer_to_trigger(info: &IdInfo, by: &TriggeredBy, tells_apart: bool) -> Option<Answer> {
    if info.open().is_some() {
        let is_used = by.conflict == trigger::Conflict::UseExisting;
        return (is_used && !tells_apart).then_some(Answer::Accepted);
    }
    let closed = info.newest_closed()?;
    let refused = match by.reuse {
        trigger::Reuse::AllowDuplicate => false,
        trigger::Reuse::AllowDuplicateFailedOnly => closed.row.status == "completed",
        trigger::Reuse::RejectDuplicate => true,
    };
    refused.then(|| {
        let message = format!(
            "the run {} with this workflow id is {}",
            closed.row.run_id, closed.row.status
        );
        Answer::refused(Reason::AlreadyStarted, &message)
    })
}
