//! A schedule is an actor like a run: it has a workflow id of its own, its events are committed, its deadline is its
//! `wake_at`, and it starts its runs as a parent starts children, by messages that are owed until they are answered.
//!
//! | input | then |
//! |---|---|
//! | wake, an occurrence is due | it is decided, and what is decided up to moves on |
//! | wake, an occurrence is past the catch-up window | counted as missed |
//! | wake, a message without an answer | sent again |
//! | its run has closed | what became of it is noted; the schedule is paused, if it failed and that is asked for; the next that waits is started |
//! | its start was refused | noted likewise |
//! | its start was refused and then accepted: it was offered twice | the run is told to cancel |
//! | create, update, define | what the calendar has named up to now is decided; it counts from now |
//! | pause, resume | what comes due in between is not made up for |
//! | trigger, backfill | occurrences beside the calendar |
//! | delete | closes; what it has started goes on |
//!
//! # What an occurrence that is due does
//!
//! | policy | nothing is open | a run of it is open |
//! |---|---|---|
//! | `skip` | started | skipped |
//! | `buffer_one` | started | waits, unless one does |
//! | `buffer_all` | started | waits |
//! | `cancel_other`, `terminate_other` | started | the open ones are told to stop; waits, in place of one that waits |
//! | `allow_all` | started | started |
//!
//! **Invariants:** a nominal time is decided once: by the transition that moves `decided_to` past it. Whether that was
//! committed is settled by the fence, as for every run. The id of the run is fixed by the event that starts it.

mod command;
mod due;
mod occurrence;

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use self::command::{ask, set};
use self::due::{advance, wake};
use self::occurrence::{answered, receive};
use super::decider::Decider;
use super::event::{Event, RunStarted, Transition};
use super::input::{Input, Operation, Rejected, Start};
use super::message::ScheduledBy;
use super::parked;
use super::state::State;
use crate::definition::plan::{CompensationPolicy, Node, NodeId, NodeKind, Plan};
use crate::ids::{DefinitionHash, RequestId, RunId, WorkflowId, WorkflowName};
use crate::schedule::Spec;
use crate::schedule::command::Command;
use crate::schedule::spec::{compact, rfc3339};
use crate::schedule::state::{Due, Next, Schedule, ScheduleEvent};
use crate::time::Timestamp;

/// The name of the workflow that schedules are runs of; no definition can have it.
pub const WORKFLOW: &str = "$schedule";
/// The workflow id of a schedule begins with this; what begins so is nobody else's, of workflow ids and of request ids.
pub const PREFIX: &str = "$schedule/";

const OPERATION: &str = "operation";
const DELETED: &str = "deleted";

/// The workflow id of a schedule.
pub fn workflow_id(schedule: &str) -> WorkflowId {
    WorkflowId::new(&format!("{PREFIX}{schedule}"))
}

/// The name of a schedule, if this is the workflow id of one.
pub fn schedule_of(workflow_id: &WorkflowId) -> Option<&str> {
    workflow_id.as_str().strip_prefix(PREFIX)
}

/// The workflow id of an occurrence.
pub fn occurrence_id(schedule: &str, due: Due) -> WorkflowId {
    let nominal = compact(due.nominal);
    WorkflowId::new(&match due.trigger {
        None => format!("{schedule}-{nominal}"),
        Some(number) => format!("{schedule}-{nominal}-{number}"),
    })
}

/// What schedules have in place of a definition.
pub fn plan() -> Plan {
    Plan {
        workflow: WorkflowName::new(WORKFLOW),
        version: 1,
        hash: definition(),
        nodes: vec![Node {
            parent: None,
            name: Arc::from(""),
            condition: None,
            kind: NodeKind::Sequence { children: Vec::new() },
        }],
        root: NodeId(0),
        id: None,
        input_schema: None,
        output: None,
        search_attributes: Default::default(),
        timeout: None,
        compensation: CompensationPolicy::default(),
        schedule: None,
        concurrency: None,
        priority: None,
        retry: None,
        triggers: Vec::new(),
        queries: Default::default(),
        handlers: Vec::new(),
    }
}

/// In place of a definition's hash.
pub fn definition() -> DefinitionHash {
    DefinitionHash(Arc::from(WORKFLOW))
}

/// The request that starts an occurrence: with the schedule's run, unique in the store.
pub(super) fn request_id(schedule: RunId, by: &ScheduledBy) -> RequestId {
    let nominal = compact(by.nominal_time);
    RequestId::new(&match by.trigger {
        None => format!("{PREFIX}{schedule}/{nominal}"),
        Some(number) => format!("{PREFIX}{schedule}/{nominal}-{number}"),
    })
}

/// Makes a schedule, as the run that it is. The input of the start is the specification.
pub(super) fn begin(
    plan: &Plan,
    state: &mut State,
    birth: Arc<RunStarted>,
    (spec, version): (Spec, Option<u32>),
    operation: Operation,
) -> Transition {
    let mut d = Decider::of_birth(plan, state, Event::RunStarted(birth), &super::permit::UNLIMITED);
    set(&mut d, spec, version, operation);
    d.conclude()
}

/// What a start says of the schedule that it makes.
pub(super) fn of_start(start: &Start) -> Result<(Spec, Option<u32>), Rejected> {
    let command: Command =
        serde_json::from_value((*start.input).clone()).map_err(|error| Rejected::Schedule(error.to_string()))?;
    match command {
        Command::Create(spec) => Ok((*spec, None)),
        Command::Define {
            version,
            spec: Some(spec),
        } => Ok((*spec, Some(version))),
        _ => Err(Rejected::Schedule("a schedule begins with what it is to do".to_owned())),
    }
}

/// The input of the start of a schedule or a trigger: what it is to do, and who says so.
pub fn beginning(command: &impl Serialize, operation: &Operation) -> Value {
    // Texts, numbers and JSON: they always serialise.
    let mut said = serde_json::to_value(command).unwrap_or_default();
    if let Some(said) = said.as_object_mut().filter(|_| *operation != Operation::default()) {
        let operation = serde_json::to_value(operation).unwrap_or_default();
        said.insert(OPERATION.to_owned(), operation);
    }
    said
}

/// Who makes it; the input is the command alone from here on.
pub(super) fn made_by(start: &mut Start) -> Operation {
    let input = Arc::make_mut(&mut start.input).as_object_mut();
    let said = input.and_then(|input| input.remove(OPERATION));
    Operation {
        request_id: start.request_id.clone(),
        ..said
            .and_then(|said| serde_json::from_value(said).ok())
            .unwrap_or_default()
    }
}

/// The output of a schedule or a trigger that is deleted: who has said so. Of a repeat of that it can be told from here.
pub(super) fn deletion(operation: &Operation) -> Arc<Value> {
    if *operation == Operation::default() {
        return Arc::default();
    }
    let mut output = Map::new();
    output.insert(DELETED.to_owned(), serde_json::to_value(operation).unwrap_or_default());
    Arc::new(Value::Object(output))
}

/// Which request has deleted a schedule or a trigger that ended with this output.
pub fn deleted_by(output: &Value) -> Option<RequestId> {
    let operation = output.get(DELETED)?.clone();
    serde_json::from_value::<Operation>(operation).ok()?.request_id
}

/// Of [`super::apply()`], for a run that is a schedule.
pub(super) fn apply(d: &mut Decider<'_>, input: Input) -> Result<(), Rejected> {
    match input {
        Input::Wake(_) => wake(d),
        Input::Message { from, number, body } => receive(d, from, number, body),
        Input::MessageAnswered { number, answer } => answered(d, number, &answer),
        Input::Schedule { command, operation } => return ask(d, *command, operation),
        Input::Park { reason } => parked::park_run(d, reason),
        Input::Parked {
            step,
            direction,
            action,
            operation,
        } => {
            parked::act(d, step, direction, action, operation)?;
            // Who waits for nobody but a person is started now.
            advance(d);
        }
        // Nothing of this is said to a schedule.
        _ => {}
    }
    Ok(())
}

fn schedule<'d>(d: &'d Decider<'_>) -> Option<&'d Schedule> {
    d.state.schedule.as_deref().filter(|_| !d.state.is_closed())
}

fn emit(d: &mut Decider<'_>, event: ScheduleEvent) {
    d.emit(Event::Schedule(Box::new(event)));
}

fn name(d: &Decider<'_>) -> Arc<str> {
    Arc::from(schedule_of(d.state.workflow_id()).unwrap_or_default())
}

fn next(d: &Decider<'_>, spec: &Spec, after: Timestamp) -> Option<Next> {
    let nominal = spec.times.next_after(after)?;
    let at = spec.times.fires_at(&name(d), nominal);
    Some(Next { nominal, at })
}

impl State {
    /// Of a run that is a schedule.
    pub fn schedule(&self) -> Option<&Schedule> {
        self.schedule.as_deref()
    }

    /// The nominal time of a run that a schedule has started.
    pub fn scheduled_at(&self) -> Option<Timestamp> {
        let parent = self.birth.parent.as_ref()?;
        Some(parent.scheduled.as_ref()?.nominal_time)
    }
}

/// For expressions: `run.scheduled_at`.
pub(super) fn scheduled_at(state: &State) -> Option<String> {
    state.scheduled_at().map(rfc3339)
}
