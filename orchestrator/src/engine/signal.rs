//! Signals from outside: to the open run of a workflow id, or to one that they start.

use knarr_core::run::input::{AnswerOn, Input};
use knarr_core::run::signal_refused;
use knarr_schemas::body::AnswerStage;
use knarr_schemas::code;

use super::apply::Applied;
use super::job::{Job, SignalRequest, StartRequest};
use super::live::IdKey;
use super::outgoing;
use super::perform::{Step, unreadable};
use super::poison::PoisonKey;
use super::refusal::Refusal;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{RunRow, Store};

impl<S: Store, B: Bus> Loop<S, B> {
    pub(super) fn signal(&mut self, job: Job, request: &SignalRequest) -> Step {
        let key: IdKey = (request.namespace.clone(), request.workflow_id.clone());
        if self.live.id(&key).is_none() {
            return Step::Lacks(Box::new(job));
        }
        if self.continues_first(&key) || self.others_come_first(&key, None) {
            return Step::Blocked(Box::new(job));
        }
        let Some(info) = self.live.id(&key) else {
            return Step::Lacks(Box::new(job));
        };
        if let Some(start) = &request.start {
            // An older run may have been started by this very signal.
            if !self.was_looked_up(&job) || self.live.id_asked_in(&key, job.asked_in).is_none() {
                return Step::Lacks(Box::new(job));
            }
            let open = info.open().map(|open| open.row.run_id);
            if let Some(known) = info
                .by_request(&start.request_id)
                .filter(|known| Some(known.row.run_id) != open)
            {
                let row = known.row.clone();
                return self.signal_was_taken(&job, request, &row);
            }
        }
        // A repeat of what the last one has taken is no mistake, and starts nothing; that run alone knows of it.
        let open = info.open().map(|open| open.row.run_id);
        let closes_now = info.closes_in(self.building.number);
        if let Some(closed) = info.last_of_closed().filter(|run_id| !self.absent.contains_key(run_id)) {
            let Some(live) = self.live.get(closed) else {
                return Step::Lacks(Box::new(job));
            };
            let was_taken = live.state.has_taken_signal(&request.operation);
            let row = live.row.clone();
            self.live.finish(closed);
            if was_taken {
                return self.signal_was_taken(&job, request, &row);
            }
        }
        let open = match (open, &request.start) {
            (Some(open), _) => open,
            (None, None) => return self.refuse_closed(job, &key),
            (None, Some(start)) => {
                if closes_now {
                    return Step::Blocked(Box::new(job));
                }
                if let Err(refusal) = self.would_take(start, request) {
                    self.refuse(&job.origin, &refusal);
                    self.building.inputs += 1;
                    return Step::Done;
                }
                match self.begin(&key, start) {
                    Ok(Some(run_id)) => run_id,
                    Ok(None) => return self.poison(PoisonKey::of(&job)),
                    Err(refusal) => {
                        self.refuse(&job.origin, &refusal);
                        self.building.inputs += 1;
                        return Step::Done;
                    }
                }
            }
        };
        if !self.live.contains(open) {
            return self.await_open(job, open);
        }
        let input = Input::Signal {
            name: request.name.clone(),
            body: request.body.clone(),
            operation: request.operation.clone(),
        };
        self.building.inputs += 1;
        match self.apply(open, input) {
            Applied::Changed | Applied::Nothing => {
                if let (Some(to), Some(live)) = (&request.answer_to, self.live.get(open)) {
                    let mut answer = outgoing::answer_of(&live.state, AnswerOn::Started);
                    answer.stage = AnswerStage::Accepted;
                    self.building.answer(outgoing::answer(to, &answer));
                }
                self.taken(&job.origin, None);
            }
            Applied::Rejected(refusal) => self.refuse(&job.origin, &refusal),
            Applied::Panicked => return self.poison(PoisonKey::of(&job)),
        }
        Step::Done
    }

    /// A closed run had taken it.
    fn signal_was_taken(&mut self, job: &Job, request: &SignalRequest, by: &RunRow) -> Step {
        if let Some(to) = &request.answer_to {
            let mut answer = outgoing::answer_of_row(by, AnswerStage::Accepted);
            (answer.output, answer.failure) = (None, None);
            self.building.answer(outgoing::answer(to, &answer));
        }
        self.taken(&job.origin, None);
        self.building.inputs += 1;
        Step::Done
    }

    /// A run whose first signal would be refused is not started. What else is wrong with the start is told by it.
    fn would_take(&self, start: &StartRequest, request: &SignalRequest) -> Result<(), Refusal> {
        let plan = self
            .definitions
            .resolve(&start.namespace, &start.workflow, start.version);
        match plan {
            Some(plan) => signal_refused(&plan, &request.name, &request.body).map_err(Refusal::from),
            None => Ok(()),
        }
    }

    /// What is said to the open run of a workflow id that has none.
    pub(super) fn refuse_closed(&mut self, job: Job, key: &IdKey) -> Step {
        let closed = self.live.id(key).and_then(|info| info.newest_closed());
        let refusal = match closed {
            Some(known) => Refusal::new(
                &code::RUN_CLOSED,
                format!("the run {} is closed ({})", known.row.run_id, known.row.status),
            ),
            None => Refusal::new(
                &code::UNKNOWN_RUN,
                format!("no run in `{}` has the workflow id `{}`", key.0, key.1),
            ),
        };
        self.refuse(&job.origin, &refusal);
        self.building.inputs += 1;
        Step::Done
    }

    /// The open run of an id is not in memory: it is loaded, unless it is known that it cannot be read.
    pub(super) fn await_open(&mut self, job: Job, open: knarr_core::ids::RunId) -> Step {
        if !self.absent.contains_key(&open) {
            return Step::Lacks(Box::new(job));
        }
        // It was there a moment ago and cannot be read: an operator has to look at it.
        let refusal = unreadable(open);
        self.refuse(&job.origin, &refusal);
        self.building.inputs += 1;
        Step::Done
    }
}
