//! The log between runs, actors and limiters, and what becomes of what comes out of it.

use std::sync::Arc;

use super::World;
use super::inputs::TOO_MANY;
use crate::ids::{MessageNo, RunId, TaskNo, WorkflowId};
use crate::run::Status;
use crate::run::input::Input;
use crate::run::message::{Answer, Body, Recipient, Refusal, Sender, StartChild, child_start};
use crate::simulation::watched::{Played, Watched};
use crate::trigger::spec::{Conflict, Reuse};

/// What is on its way.
#[derive(Debug, Clone)]
pub(super) enum Parcel {
    Message(Sender, MessageNo, Recipient, Arc<Body>),
    Answer(Sender, MessageNo, Answer),
    /// A task is to be taken out of its queue.
    Withdrawal(RunId, TaskNo),
}

impl World<'_> {
    /// Out of order, once or several times, or never.
    pub(super) fn parcel(&mut self, which: u32, how: u32) {
        if self.log.is_empty() {
            return;
        }
        let at = if self.temper.loses {
            which as usize % self.log.len()
        } else {
            0
        };
        let parcel = match how % 4 {
            0 if self.temper.loses => self.log[at].clone(),
            _ => self.log.remove(at),
        };
        // A grant is owed by the commit of its limiter until the log has it; what was asked for twice has nobody who asks again.
        let is_grant = matches!(parcel, Parcel::Answer(_, _, Answer::Granted { .. }));
        if how % 8 != 1 || !self.temper.loses || is_grant {
            self.deliver(parcel);
        }
    }

    pub(super) fn deliver(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Answer(to, number, answer) => {
                let input = Input::MessageAnswered { number, answer };
                if let Some(index) = self.find(to.run) {
                    self.apply(index, input);
                } else if let Some(at) = self.find_actor(to.run) {
                    self.tell(at, input);
                }
            }
            Parcel::Withdrawal(run, task) => {
                if let Some(index) = self.find(run) {
                    // Its queue has it still, or not, whatever a worker says of it later.
                    let withdrawn = (run.0.as_u128() as u32 ^ task.0).is_multiple_of(2);
                    self.apply(index, Input::Withdrawn { task, withdrawn });
                }
            }
            Parcel::Message(from, number, to, body) => self.receive(from, number, &to, &body),
        }
    }

    fn receive(&mut self, from: Sender, number: MessageNo, to: &Recipient, body: &Arc<Body>) {
        if let Body::Ask(_) | Body::Release { .. } = **body {
            let told = self.limiters.receive(&from, number, body, self.now);
            self.told(told);
            if let Body::Release { .. } = **body {
                self.log.push(Parcel::Answer(from, number, Answer::Accepted));
            }
            return;
        }
        let input = Input::Message {
            from: from.clone(),
            number,
            body: (**body).clone(),
        };
        let answer = if let Some(at) = to.run.and_then(|run| self.find_actor(run)) {
            if self.tell(at, input) {
                return;
            }
            self.actors[at].state.answer_to(from.run, number)
        } else if self.was_taken(&from, number, to, body) {
            Some(Answer::Accepted)
        } else {
            match (self.receiver(&from, number, to), &**body) {
                (Some(index), _) => {
                    let changed = self.apply(index, input);
                    let answer = self.runs[index].state.answer_to(from.run, number);
                    if changed {
                        self.note_signal(&from, number, answer);
                        return;
                    }
                    answer
                }
                (None, Body::StartChild(start)) => self.start_child(&from, number, &to.workflow_id, start),
                (None, _) => Some(Answer::refused(Refusal::NoRun, "there is no such run")),
            }
        };
        if let Some(answer) = answer {
            self.log.push(Parcel::Answer(from, number, answer));
        }
    }

    /// A trigger's signal to whoever is open: an earlier run of the id, which has closed since, may have taken it.
    fn was_taken(&self, from: &Sender, number: MessageNo, to: &Recipient, body: &Body) -> bool {
        let is_to_any = to.run.is_none() && matches!(body, Body::Signal { sent_at: Some(_), .. });
        let of_id = |run: &&Watched<'_>| *run.state.workflow_id() == to.workflow_id;
        let took = |run: &Watched<'_>| run.state.answer_to(from.run, number) == Some(Answer::Accepted);
        is_to_any && self.runs.iter().filter(of_id).any(took)
    }

    fn note_signal(&mut self, from: &Sender, number: MessageNo, answer: Option<Answer>) {
        if self.find_actor(from.run).is_some() && answer == Some(Answer::Accepted) {
            let times = self.taken.entry((from.run, number)).or_default();
            *times += 1;
            assert_eq!(*times, 1, "what a trigger has said was taken twice");
        }
    }

    pub(super) fn told(&mut self, told: Vec<(Sender, MessageNo, Answer)>) {
        let answers = told.into_iter();
        self.log
            .extend(answers.map(|(to, number, answer)| Parcel::Answer(to, number, answer)));
    }

    /// The run that a message is for, or who has gone on in its place.
    fn receiver(&self, from: &Sender, number: MessageNo, to: &Recipient) -> Option<usize> {
        let mut index = match to.run {
            Some(run) => self.find(run)?,
            None => self.holder(&to.workflow_id).or_else(|| {
                let of_id = |run: &Watched<'_>| *run.state.workflow_id() == to.workflow_id;
                let had_it = |run: &Watched<'_>| of_id(run) && run.state.status() != Status::Queued;
                self.runs.iter().rposition(had_it)
            })?,
        };
        loop {
            let state = &self.runs[index].state;
            if state.successor().is_none() || state.answer_to(from.run, number).is_some() {
                return Some(index);
            }
            index = self.find(state.successor()?.run_id)?;
        }
    }

    fn start_child(
        &mut self,
        from: &Sender,
        number: MessageNo,
        workflow_id: &WorkflowId,
        start: &StartChild,
    ) -> Option<Answer> {
        if let Some(answer) = self.answer_to_actor(workflow_id, start) {
            return Some(answer);
        }
        let plan = |played: &&Played| played.plan.workflow == start.workflow;
        let Some(played) = self.plans.iter().find(plan).filter(|_| !self.refusing) else {
            return Some(Answer::refused(Refusal::UnknownWorkflow, "there is none"));
        };
        self.call_next(workflow_id);
        if self.holder(workflow_id).is_some() {
            return Some(Answer::refused(Refusal::IdTaken, "it is open"));
        }
        let child = child_start(from, number, workflow_id, start);
        let started = self.open(played, child);
        if started && (start.scheduled.is_some() || start.triggered.is_some()) {
            *self.opened.entry((from.run, number)).or_default() += 1;
        }
        (!started).then(|| Answer::refused(Refusal::NotStarted, "no"))
    }

    /// What earlier runs of the workflow id mean for an occurrence of a schedule or an event of a trigger.
    fn answer_to_actor(&self, workflow_id: &WorkflowId, start: &StartChild) -> Option<Answer> {
        let mut earlier = self.runs.iter().filter(|run| run.state.workflow_id() == workflow_id);
        if start.scheduled.is_some() && earlier.clone().next().is_some() {
            return Some(Answer::refused(Refusal::AlreadyStarted, "it was"));
        }
        if let Some(by) = &start.triggered {
            if self.holder(workflow_id).is_some() {
                // As a replica of an earlier version answers to some.
                let is_old = by.conflict == Conflict::UseExisting && start.run_id.0.as_u128().is_multiple_of(8);
                return is_old.then_some(Answer::Accepted);
            }
            let closed = earlier.rfind(|run| run.state.closed_at().is_some());
            let refused = closed.is_some_and(|closed| match by.reuse {
                Reuse::AllowDuplicate => false,
                Reuse::AllowDuplicateFailedOnly => closed.state.status() == Status::Completed,
                Reuse::RejectDuplicate => true,
            });
            if refused {
                return Some(Answer::refused(Refusal::AlreadyStarted, "it was"));
            }
        }
        let is_of_actor = start.scheduled.is_some() || start.triggered.is_some();
        (is_of_actor && self.runs.len() >= TOO_MANY).then(|| Answer::refused(Refusal::NotStarted, "there are too many"))
    }
}
