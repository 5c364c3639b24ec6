//! Messages between runs: to whom they go, and what is answered where nobody is there.
//!
//! **Invariant:** the answer to a message is a function of the receiver's committed state, or, where there is no receiver, of
//! there being none; a repeat of the message is answered the same, or decided anew.

use std::sync::Arc;

use knarr_core::ids::RunId;
use knarr_core::run::input::Input;
use knarr_core::run::message::{self, Answer, Body, Refusal as Reason, StartChild};

use super::apply::Applied;
use super::job::{Job, RunMessage};
use super::live::{IdKey, LiveRuns};
use super::look_up::Absent;
use super::outgoing;
use super::perform::Step;
use super::poison::PoisonKey;
use super::run_loop::Loop;
use super::schedule::is_reserved;
use crate::bus::Bus;
use crate::store::Store;

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

    /// Who takes it, where it is for this run: if that has continued as new without having answered, the last of its
    /// successors. The error is the first of them that is not in memory, behind its predecessor.
    pub(super) fn in_place(&self, live: &LiveRuns, run_id: RunId) -> Result<RunId, (RunId, RunId)> {
        let mut last = run_id;
        loop {
            let successor = live.get(last).and_then(|live| {
                let answered = live.state.answer_to(self.from.run, self.number).is_some();
                live.state.successor().filter(|_| !answered)
            });
            match successor.map(|start| start.run_id) {
                None => return Ok(last),
                Some(next) if live.contains(next) => last = next,
                Some(next) => return Err((last, next)),
            }
        }
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    pub(super) fn message(&mut self, job: Job, request: &RunMessage) -> Step {
        // Of a receiver that is named the id may never have been looked up; then nobody waits for its successor here.
        if self.continues_first(&request.key()) {
            return Step::Blocked(Box::new(job));
        }
        let receiver = match request.receiver() {
            Some(run_id) => Some(run_id),
            None => match self.live.ids.get(&request.key()) {
                None => return Step::Lacks(Box::new(job)),
                Some(info) => info.newest().map(|known| known.row.run_id),
            },
        };
        if let Some(run_id) = receiver
            && !self.live.contains(run_id)
            && !self.absent.contains_key(&run_id)
        {
            return Step::Lacks(Box::new(job));
        }
        if receiver.is_some_and(|run_id| self.absent.get(&run_id) == Some(&Absent::Unreadable)) {
            // It is there, and an operator has to look at it: the message is offered again.
            return self.message_taken(&job);
        }
        let receiver = receiver.filter(|run_id| {
            let live = self.live.get(*run_id);
            live.is_some_and(|live| {
                live.row.namespace == request.namespace && live.row.workflow_id == request.workflow_id
            })
        });
        match (receiver, &request.body) {
            (Some(run_id), _) => match request.in_place(&self.live, run_id) {
                Ok(run_id) => self.deliver(job, request, run_id),
                Err((before, lacking)) => match self.absent.get(&lacking) {
                    None => Step::Lacks(Box::new(job)),
                    Some(Absent::Missing) => {
                        self.continue_first(before);
                        Step::Blocked(Box::new(job))
                    }
                    // The message is offered again.
                    Some(Absent::Unreadable | Absent::Elsewhere) => self.message_taken(&job),
                },
            },
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
        let Some(info) = self.live.ids.get(&key) else {
            return Step::Lacks(Box::new(job));
        };
        if is_reserved(&request.workflow_id) {
            let message = format!("the workflow id `{}` belongs to a schedule", request.workflow_id);
            self.answer_message(request, &Answer::refused(Reason::NotStarted, &message));
            return self.message_taken(&job);
        }
        if let Some(known) = info.newest().filter(|_| start.scheduled.is_some()) {
            // Its workflow id says which occurrence it is, and that is started once.
            let message = format!("the run {} has this workflow id", known.row.run_id);
            self.answer_message(request, &Answer::refused(Reason::AlreadyStarted, &message));
            return self.message_taken(&job);
        }
        if let Some(open) = info.open() {
            let message = format!("the run {} with this workflow id is open", open.row.run_id);
            self.answer_message(request, &Answer::refused(Reason::IdTaken, &message));
            return self.message_taken(&job);
        }
        if info.closes_in(self.building.number) {
            return Step::Blocked(Box::new(job));
        }
        let plan = self
            .definitions
            .resolve(&request.namespace, &start.workflow, start.version);
        let class = self.definitions.namespace(&request.namespace);
        let (Some(plan), Some(class)) = (plan, class) else {
            let message = format!("`{}` is not registered in `{}`", start.workflow, request.namespace);
            self.answer_message(request, &Answer::refused(Reason::UnknownWorkflow, &message));
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
