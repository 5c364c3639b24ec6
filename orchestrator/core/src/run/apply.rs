//! The way in: one input, one run, one transition.
//!
//! Rejections are decided before anything is emitted: a rejected input leaves the state as it was. After a panic in here
//! the state may be half-way through a transition; whoever catches it drops the state and loads the run again.

use std::sync::Arc;

use serde_json::Value;

use super::decider::Decider;
use super::event::{Event, RunStarted, Transition};
use super::failure::Failure;
use super::input::{Input, Operation, Rejected, Start, TaskOutcome, Terms};
use super::limits::{MAX_ERROR_MESSAGE_BYTES, RunLimits, truncated};
use super::permit::QueueLimits;
use super::scope::RunScope;
use super::state::State;
use super::{
    admission, answer, attempt, cancel, deadline, heartbeat, held, late, message, migrate, outbox, parked, permit,
    raise, schedule, search_attribute, signal, trigger, update, withdrawal,
};
use crate::definition::plan::Plan;
use crate::ids::{StepPath, TaskNo};
use crate::limit::PRIORITY;
use crate::time::Timestamp;

/// Begins a run where no queue is limited.
pub fn start(plan: &Plan, start: Start, at: Timestamp) -> Result<(State, Transition), Rejected> {
    start_within(Terms::default(), plan, start, at, &permit::UNLIMITED)
}

/// Begins a run under terms of its own: validates, and takes the first steps.
pub fn start_within(
    terms: Terms,
    plan: &Plan,
    mut start: Start,
    at: Timestamp,
    queues: &QueueLimits,
) -> Result<(State, Transition), Rejected> {
    let workflow = plan.workflow.as_str();
    let made_by = match workflow {
        schedule::WORKFLOW | trigger::WORKFLOW => schedule::made_by(&mut start),
        _ => Operation::default(),
    };
    let schedule = match workflow == schedule::WORKFLOW {
        true => Some(schedule::of_start(&start)?),
        false => None,
    };
    let trigger = match workflow == trigger::WORKFLOW {
        true => Some(trigger::of_start(&start)?),
        false => None,
    };
    let birth = Arc::new(RunStarted {
        limits: terms.limits,
        withdraws: terms.withdraws,
        ..birth(plan, start, at)?
    });
    let mut state = State::new(&birth, 1, at);
    if let Some(said) = schedule {
        let transition = schedule::begin(plan, &mut state, birth, said, made_by);
        return Ok((state, transition));
    }
    if let Some(said) = trigger {
        let transition = trigger::begin(plan, &mut state, birth, said, made_by);
        return Ok((state, transition));
    }
    let mut d = Decider::of_birth(plan, &mut state, Event::RunStarted(birth), queues);
    admission::begin(&mut d);
    d.settle();
    let transition = d.conclude();
    Ok((state, transition))
}

/// How a run would begin, or why it would not.
pub(super) fn birth(plan: &Plan, start: Start, at: Timestamp) -> Result<RunStarted, Rejected> {
    check_input(plan, &start.input)?;
    let mut given = start.search_attributes;
    if start.continues.is_some() {
        // What the definition computes is computed anew, from the new input.
        given.retain(|name, _| !plan.search_attributes.contains_key(name));
    }
    let priority = match start.parent {
        // A child inherits, unless its definition says otherwise.
        Some(_) => plan.priority.or(start.priority),
        None => start.priority.or(plan.priority),
    };
    let mut birth = RunStarted {
        run_id: start.run_id,
        namespace: start.namespace,
        workflow_id: start.workflow_id,
        workflow: plan.workflow.clone(),
        version: plan.version,
        definition: plan.hash.clone(),
        input: start.input,
        request_id: start.request_id,
        search_attributes: given,
        answer: start.answer,
        traceparent: start.traceparent,
        timeout_at: None,
        parent: start.parent,
        continues: start.continues,
        limits: RunLimits::default(),
        priority: priority.filter(|priority| *priority != PRIORITY),
        place: None,
        queued: start.queued,
        begins_at: start.begins_at.filter(|begins_at| *begins_at > at),
        withdraws: false,
    };
    // It has its time from when it begins.
    let begins_at = birth.paused_until().unwrap_or(at);
    birth.timeout_at = plan.timeout.map(|timeout| begins_at.plus(timeout));
    if !plan.search_attributes.is_empty() || !birth.search_attributes.is_empty() {
        let root = StepPath::new("");
        let unborn = State::new(&Arc::new(birth.clone()), 1, at);
        let scope = RunScope::new(plan, &unborn, &root);
        birth.search_attributes = search_attribute::collect(plan, &scope, &birth.search_attributes)?;
    }
    if plan.concurrency.is_some() {
        let unborn = State::new(&Arc::new(birth.clone()), 1, at);
        birth.place = admission::wanted(plan, &unborn)?;
    }
    Ok(birth)
}

/// Applies one input where no queue is limited.
pub fn apply(plan: &Plan, state: &mut State, input: Input, at: Timestamp) -> Result<Option<Transition>, Rejected> {
    apply_within(plan, state, input, at, &permit::UNLIMITED)
}

/// Applies one input. `None`: it changed nothing (a duplicate, or nothing was due).
pub fn apply_within(
    plan: &Plan,
    state: &mut State,
    input: Input,
    at: Timestamp,
    queues: &QueueLimits,
) -> Result<Option<Transition>, Rejected> {
    let mut d = Decider::new(plan, state, at, queues);
    if d.state.schedule.is_some() {
        schedule::apply(&mut d, input)?;
        return Ok(d.finish());
    }
    if d.state.trigger.is_some() {
        trigger::apply(&mut d, input)?;
        return Ok(d.finish());
    }
    match input {
        Input::TaskEnded { task, outcome } => task_ended(&mut d, task, outcome)?,
        Input::TaskStarted { task, at } => {
            known(&d, task)?;
            heartbeat::task_started(&mut d, task, at);
        }
        Input::Heartbeat { task, beat } => {
            known(&d, task)?;
            heartbeat::beat(&mut d, task, beat);
        }
        Input::WorkerSilent { task } => {
            known(&d, task)?;
            heartbeat::silent(&mut d, task);
        }
        Input::TaskClaimed { task, by } => {
            known(&d, task)?;
            heartbeat::claimed(&mut d, task, by);
        }
        Input::TaskLeft { task } => {
            known(&d, task)?;
            heartbeat::left(&mut d, task);
        }
        Input::Withdrawn { task, withdrawn } => {
            known(&d, task)?;
            withdrawal::answered(&mut d, task, withdrawn);
        }
        Input::TaskLost { task } => {
            known(&d, task)?;
            if takes_results(&d) {
                attempt::lost(&mut d, task, Failure::lost());
                d.settle();
            } else {
                heartbeat::lost_while_parked(&mut d, task, Failure::lost());
            }
        }
        Input::DispatchHeld { task, in_doubt } => {
            known(&d, task)?;
            held::dispatch_held(&mut d, task, in_doubt);
        }
        Input::Wake(horizon) => {
            deadline::wake(&mut d, &horizon);
        }
        Input::Cancel(operation) => cancel::cancel(&mut d, operation)?,
        Input::Terminate(operation) => cancel::terminate(&mut d, operation)?,
        Input::Message { from, number, body } => message::receive(&mut d, from, number, body),
        Input::MessageAnswered { number, answer } => outbox::answered(&mut d, number, answer),
        Input::Signal { name, body, operation } => {
            signal::receive(&mut d, name, body, operation)?;
            d.settle();
        }
        Input::Update {
            name,
            body,
            operation,
            answer,
        } => {
            update::receive(&mut d, name, body, operation, answer)?;
            d.settle();
        }
        Input::IdFree => admission::id_is_free(&mut d),
        Input::Await(request) => answer::wait(&mut d, request)?,
        Input::Parked {
            step,
            direction,
            action,
            operation,
        } => parked::act(&mut d, step, direction, action, operation)?,
        Input::RaiseLimits { limits, operation } => raise::raise(&mut d, limits, operation)?,
        Input::Migrate { to, operation } => migrate::migrate(&mut d, &to.0, operation)?,
        Input::Park { reason } => parked::park_run(&mut d, reason),
        Input::Schedule { .. } => return Err(Rejected::Schedule("the run is no schedule".to_owned())),
        Input::Trigger { .. } | Input::Read(_) => return Err(Rejected::Trigger("the run is no trigger".to_owned())),
    }
    Ok(d.finish())
}

fn task_ended(d: &mut Decider<'_>, task: TaskNo, outcome: TaskOutcome) -> Result<(), Rejected> {
    known(d, task)?;
    if takes_results(d) && d.state.open_task(task).is_some() {
        attempt::ended(d, task, outcome);
    } else {
        late::result(d, task, outcome);
    }
    Ok(())
}

fn takes_results(d: &Decider<'_>) -> bool {
    !d.state.is_closed() && d.state.parked.is_none()
}

fn known(d: &Decider<'_>, task: TaskNo) -> Result<(), Rejected> {
    match d.state.task(task) {
        Some(_) => Ok(()),
        None => Err(Rejected::UnknownTask(task.0)),
    }
}

fn check_input(plan: &Plan, input: &Value) -> Result<(), Rejected> {
    let Some(schema) = &plan.input_schema else {
        return Ok(());
    };
    schema.0.validate(input).map_err(|error| {
        let place = error.instance_path().to_string();
        let place = if place.is_empty() { "the input" } else { &place };
        // The message may repeat the whole value.
        let text = format!("{}: {error}", truncated(place, 256));
        Rejected::InputSchema(truncated(&text, MAX_ERROR_MESSAGE_BYTES).to_owned())
    })
}
