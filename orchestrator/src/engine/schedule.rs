//! Schedules and triggers: actors beside the runs, kept like them.
//!
//! A schedule is a run of the workflow `$schedule`, a trigger of `$trigger`, under a workflow id that only it can have. So everything that makes a
//! run safe makes it safe as well: its partition's owner alone decides, behind the same fence; what it sends is owed until
//! it is answered; its deadline is found by whoever takes over.

use std::collections::BTreeMap;
use std::sync::Arc;

use knarr_core::ids::WorkflowName;
use knarr_core::run::State;
use knarr_core::run::input::{AnswerOn, Input, Operation, Start};
use knarr_core::run::schedule::{self, schedule_of};
use knarr_core::run::trigger::{self, trigger_of};
use knarr_core::schedule::spec::rfc3339;
use knarr_core::schedule::state::Became;
use knarr_core::schedule::{Command, Schedule};
use knarr_core::time::Timestamp;
use knarr_core::trigger::Command as TriggerCommand;
use knarr_schemas::body::{Answer, AnswerStage};
use knarr_schemas::code;
use serde_json::json;

use super::apply::Applied;
use super::job::{ActorCommand, Job, ScheduleRequest};
use super::live::{IdInfo, IdKey};
use super::outgoing;
use super::perform::Step;
use super::poison::PoisonKey;
use super::refusal::Refusal;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{Store, format};

/// Occurrences that are told of when a schedule is made or changed.
const NEXT_TOLD: usize = 5;

impl ActorCommand {
    fn input(&self, operation: Operation) -> Input {
        match self {
            Self::Schedule(command) => Input::Schedule {
                command: Box::new(command.clone()),
                operation,
            },
            Self::Trigger(command) => Input::Trigger {
                command: Box::new(command.clone()),
                operation,
            },
        }
    }

    /// What a new one begins with.
    fn document(&self, operation: &Operation) -> serde_json::Value {
        match self {
            Self::Schedule(command) => schedule::beginning(command, operation),
            Self::Trigger(command) => schedule::beginning(command, operation),
        }
    }

    /// What it says that occurrences are to start, where somebody says it by hand: the definition may follow.
    pub(super) fn starts(&self) -> Option<(&WorkflowName, Option<u32>)> {
        match self {
            Self::Schedule(Command::Create(spec) | Command::Update(spec)) => {
                Some((&spec.action.workflow, spec.action.version))
            }
            _ => None,
        }
    }

    /// The format level from which on every replica knows it.
    fn format(&self) -> i32 {
        match self {
            Self::Schedule(_) => format::SECOND,
            Self::Trigger(_) => format::THIRD,
        }
    }

    fn absent(&self, request: &ScheduleRequest) -> Refusal {
        let (id, namespace) = (&request.workflow_id, &request.namespace);
        match self {
            Self::Schedule(_) => {
                let name = schedule_of(id).unwrap_or_default();
                let problem = format!("there is no schedule `{name}` in `{namespace}`");
                Refusal::new(&code::UNKNOWN_SCHEDULE, problem)
            }
            Self::Trigger(_) => {
                let (workflow, name) = trigger_of(id).unwrap_or_default();
                let problem = format!("there is no trigger `{name}` of `{workflow}` in `{namespace}`");
                Refusal::new(&code::UNKNOWN_TRIGGER, problem)
            }
        }
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    pub(super) fn schedule(&mut self, job: Job, request: &ScheduleRequest) -> Step {
        let key: IdKey = (request.namespace.clone(), request.workflow_id.clone());
        if self.live.id(&key).is_none() {
            return Step::Lacks(Box::new(job));
        }
        // Before somebody is told that it is not registered, it has been looked for.
        if self.starts_nothing(request).is_some() && !self.was_looked_up(&job) {
            return Step::Lacks(Box::new(job));
        }
        let Some(info) = self.live.id(&key) else {
            return Step::Lacks(Box::new(job));
        };
        if let Some(open) = info.open().map(|known| known.row.run_id) {
            if !self.live.contains(open) {
                return self.await_open(job, open);
            }
            self.building.inputs += 1;
            if deleted_before(info, request) {
                self.answer_absent(request);
                self.taken(&job.origin, None);
                return Step::Done;
            }
            let input = request.command.input(request.operation.clone());
            match self.apply(open, input) {
                Applied::Changed | Applied::Nothing => self.schedule_taken(&job, request, open),
                Applied::Rejected(refusal) => self.refuse(&job.origin, &refusal),
                Applied::Panicked => return self.poison(PoisonKey::of(&job)),
            }
            return Step::Done;
        }
        match &request.command {
            ActorCommand::Schedule(Command::Create(_) | Command::Define { spec: Some(_), .. })
            | ActorCommand::Trigger(TriggerCommand::Define { spec: Some(_), .. }) => {}
            // The one that a definition has made is gone already, or there never was any.
            ActorCommand::Schedule(Command::Define { spec: None, .. })
            | ActorCommand::Trigger(TriggerCommand::Define { spec: None, .. }) => {
                self.answer_absent(request);
                self.taken(&job.origin, None);
                self.building.inputs += 1;
                return Step::Done;
            }
            // As it was told the first time.
            _ if deleted_before(info, request) => {
                self.answer_absent(request);
                self.taken(&job.origin, None);
                self.building.inputs += 1;
                return Step::Done;
            }
            _ => {
                let refusal = request.command.absent(request);
                self.refuse(&job.origin, &refusal);
                self.building.inputs += 1;
                return Step::Done;
            }
        }
        // An earlier one of that name may have been made by this very request, and deleted since.
        if !self.was_looked_up(&job) || self.live.id_asked_in(&key, job.asked_in).is_none() {
            return Step::Lacks(Box::new(job));
        }
        if info.by_request(&request.request_id).is_some() {
            self.answer_absent(request);
            self.taken(&job.origin, None);
            self.building.inputs += 1;
            return Step::Done;
        }
        if info.closes_in(self.building.number) {
            return Step::Blocked(Box::new(job));
        }
        self.building.inputs += 1;
        match self.make_schedule(&key, request) {
            Ok(Some(run_id)) => self.schedule_taken(&job, request, run_id),
            Ok(None) => return self.poison(PoisonKey::of(&job)),
            Err(refusal) => self.refuse(&job.origin, &refusal),
        }
        Step::Done
    }

    /// Why none of its occurrences could be started now.
    fn starts_nothing(&self, request: &ScheduleRequest) -> Option<Refusal> {
        let (workflow, version) = request.command.starts()?;
        match self.definitions.resolve(&request.namespace, workflow, version) {
            Some(_) => None,
            None => Some(self.not_there(&request.namespace, workflow, version)),
        }
    }

    /// `Ok(None)` = core panicked.
    fn make_schedule(
        &mut self,
        key: &IdKey,
        request: &ScheduleRequest,
    ) -> Result<Option<knarr_core::ids::RunId>, Refusal> {
        let Some(class) = self.definitions.namespace(&request.namespace) else {
            let problem = format!("there is no namespace `{}`", request.namespace);
            return Err(Refusal::new(&code::UNKNOWN_NAMESPACE, problem));
        };
        if !self.may_store(request.command.format()) {
            return Err(Refusal::new(&code::OLDER_REPLICAS, code::OLDER_REPLICAS.cause));
        }
        let run_id = self.new_run_id(key);
        let input = request.command.document(&request.operation);
        let start = Start {
            run_id,
            namespace: request.namespace.clone(),
            workflow_id: request.workflow_id.clone(),
            input: Arc::new(input),
            request_id: Some(request.request_id.clone()),
            search_attributes: BTreeMap::new(),
            answer: None,
            traceparent: None,
            parent: None,
            priority: None,
            queued: false,
            begins_at: None,
            continues: None,
        };
        let plan = match request.command {
            ActorCommand::Schedule(_) => self.definitions.of_schedules(),
            ActorCommand::Trigger(_) => self.definitions.of_triggers(),
        };
        Ok(self.open(key, &plan, class, start)?.then_some(run_id))
    }

    fn schedule_taken(&mut self, job: &Job, request: &ScheduleRequest, run_id: knarr_core::ids::RunId) {
        if let (Some(to), Some(live)) = (&request.answer_to, self.live.get(run_id)) {
            let mut answer = outgoing::answer_of(&live.state, AnswerOn::Started);
            answer.stage = AnswerStage::Accepted;
            if let (Some(name), Some(schedule)) = (schedule_of(&request.workflow_id), live.state.schedule()) {
                let mut said = told(name, schedule, live.state.is_closed());
                if let ActorCommand::Schedule(Command::Trigger { .. }) = request.command {
                    said["skipped"] = json!(skipped(schedule));
                }
                if let Some(missing) = self.starts_nothing(request) {
                    let message = format!("{}; until it is, no occurrence is started", missing.message);
                    said["warnings"] = json!([missing.code.error(message)]);
                }
                answer.output = Some(said);
            }
            if let Some(trigger) = live.state.trigger() {
                answer.output = Some(json!({
                    "trigger": &*trigger.spec.name,
                    "workflow": trigger.spec.workflow.as_str(),
                    "paused": trigger.paused,
                    "deleted": live.state.is_closed(),
                }));
            }
            self.building.answer(outgoing::answer(to, &answer));
        }
        self.taken(&job.origin, None);
    }

    fn answer_absent(&mut self, request: &ScheduleRequest) {
        if let Some(to) = &request.answer_to {
            let answer = Answer {
                workflow_id: request.workflow_id.to_string(),
                run_id: None,
                stage: AnswerStage::Accepted,
                status: None,
                output: None,
                failure: None,
                error: None,
            };
            self.building.answer(outgoing::answer(to, &answer));
        }
    }
}

/// The last one of that name was deleted by this very request: one that has been made since stays.
fn deleted_before(info: &IdInfo, request: &ScheduleRequest) -> bool {
    let last = info.newest_closed().and_then(|last| last.row.outcome.as_deref());
    let output = last.and_then(|output| serde_json::from_str(output).ok());
    output.is_some_and(|output| schedule::deleted_by(&output).as_ref() == Some(&request.request_id))
}

/// What who has asked something of a schedule is told of it.
fn told(name: &str, schedule: &Schedule, deleted: bool) -> serde_json::Value {
    let mut next = Vec::new();
    if schedule.is_active() && !deleted {
        let times = schedule.spec.times.between(schedule.decided_to, Timestamp::MAX);
        let remaining = schedule.remaining.map_or(usize::MAX, |remaining| remaining as usize);
        next.extend(times.take(NEXT_TOLD.min(remaining)).map(rfc3339));
    }
    json!({
        "schedule": name,
        "workflow": schedule.spec.action.workflow.as_str(),
        "next": next,
        "zone": schedule.spec.times.zone.name(),
        "paused": schedule.paused,
        "deleted": deleted,
    })
}

/// Why what was triggered last has not been started, if it has been skipped.
fn skipped(schedule: &Schedule) -> Option<&'static str> {
    let last = schedule.past.last()?;
    let is_it = last.due.trigger == Some(schedule.triggers) && matches!(last.became, Became::Skipped(_));
    is_it.then(|| last.became.as_str())
}

/// What the row of a schedule or a trigger says of it, where that of a run has its search attributes.
pub(super) fn row_attributes(state: &State) -> Option<String> {
    if let Some(trigger) = state.trigger() {
        let said = json!({
            "trigger": &**trigger.spec.json(),
            "paused": trigger.paused,
            "trouble": trigger.trouble,
            "version": trigger.version,
        });
        return serde_json::to_string(&said).ok();
    }
    let schedule = state.schedule()?;
    let said = json!({
        "schedule": &**schedule.spec.json(),
        "paused": schedule.paused,
        "remaining": schedule.remaining,
        "version": schedule.version,
    });
    serde_json::to_string(&said).ok()
}

/// Whether a workflow id can only be that of a schedule or a trigger.
pub(super) fn is_reserved(workflow_id: &knarr_core::ids::WorkflowId) -> bool {
    let id = workflow_id.as_str();
    id.starts_with(schedule::PREFIX) || id.starts_with(trigger::PREFIX)
}
