//! What operators ask of a run: of the open one of a workflow id, or of the one they name.
//!
//! A run is named where the open one is not meant or need not be: by commands in bulk, and for a child that has closed and
//! undoes itself for its parent, whose workflow id is free.

use std::sync::Arc;

use knarr_core::definition::plan::Plan;
use knarr_core::ids::RunId;
use knarr_core::run::input::{AnswerOn, AnswerRequest, Input, ParkedAction};
use knarr_core::run::migrate::Target;
use knarr_core::run::{UpdateAnswer, UpdateStage};
use knarr_schemas::body::AnswerStage;
use knarr_schemas::code;

use super::apply::Applied;
use super::job::{Job, Verb, VerbRequest};
use super::live::IdKey;
use super::look_up::Absent;
use super::outgoing::{self, RunRef};
use super::perform::{Step, unreadable};
use super::poison::PoisonKey;
use super::refusal::Refusal;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{Store, format};
use crate::telemetry::metric;

impl Verb {
    /// What it is counted as.
    fn name(&self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Terminate => "terminate",
            Self::RaiseLimits(_) => "limit",
            Self::Parked { action, .. } => match action {
                ParkedAction::Retry => "retry",
                ParkedAction::RetryWithInput(_) => "edit",
                ParkedAction::MarkDone | ParkedAction::MarkDoneWithOutput(_) => "done",
                ParkedAction::Skip => "skip",
            },
            Self::Migrate { .. } => "migrate",
            Self::Update { .. } => "update",
        }
    }

    /// The storage format that what it stores belongs to.
    fn format_level(&self) -> i32 {
        match self {
            Self::RaiseLimits(_)
            | Self::Parked {
                action: ParkedAction::MarkDoneWithOutput(_),
                ..
            }
            | Self::Migrate { .. } => format::SECOND,
            Self::Update { .. } => format::FOURTH,
            _ => 1,
        }
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    pub(super) fn verb(&mut self, job: Job, request: &VerbRequest) -> Step {
        let target = match &request.verb {
            Verb::Migrate { workflow, version } => {
                match self.definitions.resolve(&request.namespace, workflow, Some(*version)) {
                    Some(plan) => Some(plan),
                    None if !self.was_looked_up(&job) => return Step::Lacks(Box::new(job)),
                    None => {
                        let message = format!(
                            "`{workflow}` is not registered in `{}` in version {version}",
                            request.namespace
                        );
                        self.refuse(&job.origin, &Refusal::new(&code::UNKNOWN_VERSION, message));
                        self.building.inputs += 1;
                        return Step::Done;
                    }
                }
            }
            Verb::Cancel | Verb::Terminate | Verb::RaiseLimits(_) | Verb::Parked { .. } | Verb::Update { .. } => None,
        };
        match request.run {
            Some(run_id) => self.verb_to_run(job, request, target, run_id),
            None => self.verb_to_open(job, request, target),
        }
    }

    fn verb_to_open(&mut self, job: Job, request: &VerbRequest, target: Option<Arc<Plan>>) -> Step {
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
        let Some(open) = info.open().map(|known| known.row.run_id) else {
            let closed = info.newest_closed().map(|known| known.row.run_id);
            return self.verb_to_closed(job, request, target, closed);
        };
        if !self.live.contains(open) {
            return self.await_open(job, open);
        }
        self.operate(&job, request, target, open)
    }

    /// No run is open. A repeat of what the last one has taken is no mistake, and that run alone knows of it.
    fn verb_to_closed(
        &mut self,
        job: Job,
        request: &VerbRequest,
        target: Option<Arc<Plan>>,
        closed: Option<RunId>,
    ) -> Step {
        if let Some(run_id) = closed.filter(|run_id| !self.absent.contains_key(run_id)) {
            match self.live.get(run_id) {
                None => return Step::Lacks(Box::new(job)),
                Some(live) if live.state.is_closed() => return self.operate(&job, request, target, run_id),
                // It undoes itself for its parent, and has to be named.
                Some(_) => {}
            }
        }
        let key: IdKey = (request.namespace.clone(), request.workflow_id.clone());
        self.refuse_closed(job, &key)
    }

    fn verb_to_run(&mut self, job: Job, request: &VerbRequest, target: Option<Arc<Plan>>, run_id: RunId) -> Step {
        let unknown = || {
            let message = format!(
                "no run in `{}` has the workflow id `{}` and the run id {run_id}",
                request.namespace, request.workflow_id
            );
            Refusal::new(&code::UNKNOWN_RUN, message)
        };
        let refusal = match (self.live.get(run_id), self.absent.get(&run_id)) {
            (None, None) => return Step::Lacks(Box::new(job)),
            (None, Some(Absent::Unreadable)) => unreadable(run_id),
            (None, Some(Absent::Missing | Absent::Elsewhere)) => unknown(),
            (Some(live), _) => {
                let is_meant = live.row.namespace == request.namespace && live.row.workflow_id == request.workflow_id;
                if is_meant {
                    return self.operate(&job, request, target, run_id);
                }
                unknown()
            }
        };
        self.refuse(&job.origin, &refusal);
        self.building.inputs += 1;
        Step::Done
    }

    fn operate(&mut self, job: &Job, request: &VerbRequest, target: Option<Arc<Plan>>, run_id: RunId) -> Step {
        self.building.inputs += 1;
        if !self.may_store(request.verb.format_level()) {
            let refusal = Refusal::new(&code::OLDER_REPLICAS, code::OLDER_REPLICAS.cause);
            self.refuse(&job.origin, &refusal);
            return Step::Done;
        }
        let operation = request.operation.clone();
        let input = match &request.verb {
            Verb::Cancel => Input::Cancel(operation),
            Verb::Terminate => Input::Terminate(operation),
            Verb::RaiseLimits(limits) => Input::RaiseLimits {
                limits: *limits,
                operation,
            },
            Verb::Parked {
                step,
                direction,
                action,
            } => Input::Parked {
                step: step.clone(),
                direction: *direction,
                action: action.clone(),
                operation,
            },
            Verb::Update { name, body, on } => Input::Update {
                name: Arc::clone(name),
                body: Arc::clone(body),
                operation,
                answer: request.answer_to.clone().map(|to| UpdateAnswer { to, on: *on }),
            },
            Verb::Migrate { .. } => match &target {
                Some(plan) => Input::Migrate {
                    to: Target(Arc::clone(plan)),
                    operation,
                },
                // It was resolved before.
                None => return Step::Done,
            },
        };
        let applied = self.apply(run_id, input);
        if !matches!(applied, Applied::Changed) {
            self.live.finish(run_id);
        }
        match applied {
            Applied::Changed | Applied::Nothing => {
                if let Verb::Update { on, .. } = &request.verb {
                    if matches!(applied, Applied::Nothing) {
                        self.tell_again(request, *on, run_id);
                    }
                    self.taken(&job.origin, None);
                    return Step::Done;
                }
                if matches!(applied, Applied::Changed) {
                    if let (Some(plan), Some(live)) = (target, self.live.get_mut(run_id)) {
                        live.plan = plan;
                        // What is told of the run names its version.
                        if let Some(reference) = RunRef::new(&live.state, live.row.partition) {
                            live.reference = Arc::new(reference);
                        }
                    }
                    metrics::counter!(metric::OPERATOR_ACTIONS, "action" => request.verb.name()).increment(1);
                }
                if let (Some(to), Some(live)) = (&request.answer_to, self.live.get(run_id)) {
                    let mut answer = outgoing::answer_of(&live.state, AnswerOn::Started);
                    answer.stage = AnswerStage::Accepted;
                    self.building.answer(outgoing::answer(to, &answer));
                }
                self.taken(&job.origin, None);
            }
            Applied::Rejected(refusal) => self.refuse(&job.origin, &refusal),
            Applied::Panicked => return self.poison(PoisonKey::of(job)),
        }
        Step::Done
    }

    /// A repeat of an update is told of the first, if that has come as far as is waited for; else when it has.
    fn tell_again(&mut self, request: &VerbRequest, on: UpdateStage, run_id: RunId) {
        let (Some(to), Some(id)) = (&request.answer_to, &request.operation.request_id) else {
            return;
        };
        let Some(live) = self
            .live
            .get(run_id)
            .filter(|live| live.state.is_update_decided(id, on))
        else {
            return;
        };
        let answer = outgoing::answer_of_update(&live.state, id);
        self.building.answer(outgoing::answer(to, &answer));
    }

    /// Lets somebody else wait for a run's end.
    pub(super) fn await_run(&mut self, run_id: RunId, request: AnswerRequest) -> Applied {
        self.apply(run_id, Input::Await(request))
    }
}
