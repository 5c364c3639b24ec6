//! What operators and services ask of an open run.

use knarr_core::ids::RunId;
use knarr_core::run::input::{AnswerOn, AnswerRequest, Input};
use knarr_schemas::body::AnswerStage;

use super::apply::Applied;
use super::job::{Job, Verb, VerbRequest};
use super::live::IdKey;
use super::outgoing;
use super::perform::Step;
use super::poison::PoisonKey;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::Store;

impl<S: Store, B: Bus> Loop<S, B> {
    pub(super) fn verb(&mut self, job: Job, request: &VerbRequest) -> Step {
        let key: IdKey = (request.namespace.clone(), request.workflow_id.clone());
        if !self.live.ids.contains_key(&key) {
            return Step::Lacks(Box::new(job));
        }
        if self.continues_first(&key) {
            return Step::Blocked(Box::new(job));
        }
        let Some(info) = self.live.ids.get(&key) else {
            return Step::Lacks(Box::new(job));
        };
        let Some(open) = info.open().map(|known| known.row.run_id) else {
            return self.refuse_closed(job, &key);
        };
        if !self.live.contains(open) {
            return self.await_open(job, open);
        }
        let input = match request.verb {
            Verb::Cancel => Input::Cancel(request.operation.clone()),
            Verb::Terminate => Input::Terminate(request.operation.clone()),
            Verb::RaiseLimits(limits) => Input::RaiseLimits {
                limits,
                operation: request.operation.clone(),
            },
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

    /// Lets somebody else wait for a run's end.
    pub(super) fn await_run(&mut self, run_id: RunId, request: AnswerRequest) -> Applied {
        self.apply(run_id, Input::Await(request))
    }
}
