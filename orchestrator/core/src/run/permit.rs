//! Permits: a task that is limited over all runs is given out when it has been granted one ([`crate::limit`]).
//!
//! | what | then |
//! |---|---|
//! | a limited task is to be opened | the first permit it lacks is asked for; the step waits |
//! | granted | the next one it lacks is asked for, else the task is opened |
//! | granted, and not wanted any more, or the run is parked | given back; what was parked asks again when it is resumed |
//! | the task has ended, whatever it ended with | given back; another attempt asks again after its pause |
//! | *retry later* | kept: it is running somewhere |
//! | the step was halted, the run is closed | given back |
//! | its worker is lost while the run is parked as a whole | given back ([`super::heartbeat`]) |
//!
//! So a permit is out exactly while a worker may be at work, and an attempt that waits for its next one stands in nobody's way.
//! Several permits are asked for one after the other, always in the same order, so that two steps never wait for each other;
//! those of rates come last, because they pass while one waits.
//!
//! **Invariants:** what is asked for is pending until it is granted or taken back, and what was granted is kept until it is given
//! back by a message that is pending until it is answered: nothing is lost by a crash. What is not needed at the end of a transition
//! is given back by that transition, so no way for a task to end can forget it. A run without limits has no part in any of this.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decider::Decider;
use super::effect::Direction;
use super::event::Event;
use super::execution::{Execution, Wait};
use super::failure::{Failure, error_type};
use super::message::{Answer, Body, Recipient};
use super::outbox;
use super::scope::RunScope;
use super::state::{Heard, State};
use crate::definition::plan::{Activity, Limiting};
use crate::expression::Template;
use crate::ids::{MessageNo, QueueName, StepPath, TaskNo};
use crate::limit::{Ask, Bound, LimitKind, LimitName, OnConflict, PRIORITY};
use crate::time::Timestamp;

/// What asking for a permit takes in a history, without the names in it.
const ASKING_BYTES: u64 = 512;
/// Longest key of a limit, in bytes.
const MAX_KEY_BYTES: usize = 512;

/// What the tasks of a step are limited by, evaluated when the step is entered: its attempts and its undo have the same keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskLimits {
    /// In the order in which permits are asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub of: Vec<TaskLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub fairness_key: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLimit {
    pub name: LimitName,
    pub bound: Bound,
}

/// What operators allow the queues of a namespace, as it is when something is decided: not part of any run. Of a queue the
/// limit on tasks at a time comes before the rate.
pub type QueueLimits = BTreeMap<QueueName, Vec<TaskLimit>>;

/// No queue is limited.
pub(super) static UNLIMITED: QueueLimits = BTreeMap::new();

/// A permit that was granted to a task and not given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Permit {
    pub(super) limit: LimitName,
    pub(super) step: StepPath,
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub(super) direction: Direction,
}

/// What a step that is entered is limited by.
pub(super) fn limits(
    d: &Decider<'_>,
    step: &StepPath,
    activity: &Activity,
) -> Result<Option<Arc<TaskLimits>>, Failure> {
    let Some(limiting) = activity.limiting.as_deref() else {
        return Ok(None);
    };
    let Limiting {
        concurrency,
        rate,
        priority,
        fairness_key,
    } = limiting;
    let name = |kind, key| LimitName {
        kind,
        of: Arc::from(activity.call.activity.as_str()),
        key,
    };
    let mut of = Vec::new();
    let mut own_key = None;
    if let Some(concurrency) = concurrency {
        let key = key(d, step, concurrency.key.as_ref())?;
        own_key = Some(Arc::clone(&key));
        of.push(TaskLimit {
            name: name(LimitKind::Activity, key),
            bound: Bound::Concurrent(concurrency.to),
        });
    }
    if let Some(rate) = rate {
        let key = key(d, step, rate.key.as_ref())?;
        own_key.get_or_insert_with(|| Arc::clone(&key));
        of.push(TaskLimit {
            name: name(LimitKind::ActivityRate, key),
            bound: Bound::Rate(rate.to),
        });
    }
    let fairness_key = match fairness_key {
        Some(template) => key(d, step, Some(template))?,
        // Who has a limit of their own is told apart where there is one for all, too.
        None => own_key.unwrap_or_default(),
    };
    Ok(Some(Arc::new(TaskLimits {
        of,
        priority: *priority,
        fairness_key,
    })))
}

fn key(d: &Decider<'_>, step: &StepPath, template: Option<&Template>) -> Result<Arc<str>, Failure> {
    key_in(&d.scope(step), template)
}

/// The value of a key; empty where there is none.
pub(super) fn key_in(scope: &RunScope<'_>, template: Option<&Template>) -> Result<Arc<str>, Failure> {
    let Some(template) = template else {
        return Ok(Arc::default());
    };
    let bad = |problem: &str| Failure::new(error_type::EXPRESSION, &format!("the key of a limit {problem}"));
    let key = match &*scope.evaluate(Some(template))? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        _ => return Err(bad("is neither a text nor a number")),
    };
    if key.is_empty() {
        return Err(bad("is empty"));
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(bad(&format!("has more than {MAX_KEY_BYTES} bytes")));
    }
    Ok(Arc::from(key))
}

/// Whether the first task of an activity or undo has to wait for a permit.
pub(super) fn have_tasks_wait(d: &Decider<'_>, limits: Option<&TaskLimits>, queue: &QueueName) -> bool {
    limits.is_some_and(|limits| !limits.of.is_empty()) || !d.queues.is_empty() && d.queues.contains_key(queue)
}

/// The number in the event that schedules an activity or an undo.
pub(super) fn first_task(state: &State, waits: bool) -> TaskNo {
    if waits { TaskNo::NONE } else { state.next_task() }
}

/// Opens the next task of an execution, or asks for a permit that it lacks.
pub(super) fn open(d: &mut Decider<'_>, step: &StepPath, direction: Direction) {
    let Some(execution) = d.state.executions(direction).get(step) else {
        return;
    };
    let limits = execution.limits.as_deref();
    let own = limits.map_or(&[][..], |limits| &limits.of);
    let of_queue = d.queues.get(&execution.queue).map_or(&[][..], |limits| limits);
    let has = |limit: &&TaskLimit| {
        let mut permits = d.state.permits.values();
        permits.any(|permit| permit.step == *step && permit.direction == direction && permit.limit == limit.name)
    };
    let is_rate = |limit: &&TaskLimit| matches!(limit.bound, Bound::Rate(_));
    // Of those of one sort the first.
    let lacking = own
        .iter()
        .chain(of_queue)
        .filter(|limit| !has(limit))
        .min_by_key(is_rate);
    let ask = lacking.map(|limit| Ask {
        limit: limit.name.clone(),
        bound: limit.bound,
        step: step.clone(),
        direction,
        priority: limits
            .and_then(|limits| limits.priority)
            .or(d.state.birth.priority)
            .unwrap_or(PRIORITY),
        fairness_key: limits
            .map(|limits| Arc::clone(&limits.fairness_key))
            .unwrap_or_default(),
        on_conflict: OnConflict::Queue,
    });
    match ask {
        Some(ask) => outbox::send(d, to(&ask.limit), Body::Ask(Box::new(ask))),
        None => d.emit(Event::TaskOpened {
            task: d.state.next_task(),
            step: step.clone(),
            direction,
            attempt: execution.attempt,
        }),
    }
}

/// Events, and bytes of them, that it takes to ask for every permit that a step waits for, and to have a task then; at the most.
pub(super) fn to_ask_for_all(d: &Decider<'_>) -> (u64, u64) {
    let length = |text: serde_json::Result<String>| text.map_or(0, |text| text.len() as u64);
    let waiting = d.state.doing.iter().chain(&d.state.undoing);
    let waiting = waiting.filter(|(_, execution)| !matches!(execution.wait, Wait::Task(_)));
    waiting.fold((0_u64, 0_u64), |(events, bytes), (step, execution)| {
        let own = execution.limits.as_deref();
        let of_queue = d.queues.get(&execution.queue);
        let count = own.map_or(0, |limits| limits.of.len()) + of_queue.map_or(0, Vec::len);
        if count == 0 {
            return (events, bytes);
        }
        let of_queue = of_queue.map_or(0, |limits| length(serde_json::to_string(limits)));
        let names = length(serde_json::to_string(&own)) + of_queue + step.as_str().len() as u64;
        let count = count as u64;
        // The ask, the grant, the task, and the permit when it is given back.
        (events + 4 * count, bytes + count * (ASKING_BYTES + 4 * names))
    })
}

/// Whichever run has the id: limiters are none.
pub(super) fn to(limit: &LimitName) -> Recipient {
    Recipient {
        workflow_id: limit.address(),
        run: None,
    }
}

/// A permit was granted.
pub(super) fn answered(d: &mut Decider<'_>, number: MessageNo, body: &Body) {
    let Body::Ask(ask) = body else { return };
    let goes_on = !d.state.is_closed() && d.state.parked.is_none() && !ask.is_of_run();
    if goes_on && d.state.waits_for(ask, number) {
        open(d, &ask.step, ask.direction);
    }
}

/// A permit was granted that nobody asks for any more: an old copy of the ask has arrived after it was taken back. A release
/// that is under way may have been there before that copy, so one more follows when it has been answered.
pub(super) fn not_needed(d: &mut Decider<'_>, ask: MessageNo, limit: LimitName, at: Option<Timestamp>) {
    let own = d.state.run_id();
    let place = d.state.place.as_ref();
    let is_place = place.is_some_and(|place| place.ask == ask && place.asked_by == own && !place.was_granted_anew(at));
    if is_place || d.state.permits.contains_key(&ask) || d.state.mail.granted_again.contains(&ask) {
        return;
    }
    let mut pending = d.state.mail.outbox.values();
    // One in the name of another run is of an ask that has this number by chance.
    if pending.any(|pending| matches!(&*pending.body, Body::Release { ask: other, of: None, .. } if *other == ask)) {
        let (number, answer) = (ask, Answer::Granted { limit, at });
        d.emit(Event::MessageAnswered { number, answer });
    } else {
        outbox::send(d, to(&limit), Body::Release { limit, ask, of: None });
    }
}

/// A limiter has had a release.
pub(super) fn released(d: &mut Decider<'_>, body: &Body) {
    if let Body::Release { limit, ask, of: None } = body
        && d.state.mail.granted_again.contains(ask)
    {
        let (limit, ask) = (limit.clone(), *ask);
        outbox::send(d, to(&limit), Body::Release { limit, ask, of: None });
    }
}

/// Gives back what is not needed any more.
pub(super) fn give_back(d: &mut Decider<'_>) {
    if d.state.permits.is_empty() && d.state.mail.outbox.is_empty() {
        return;
    }
    loop {
        let asked = d
            .state
            .mail
            .outbox
            .iter()
            .filter_map(|(number, pending)| match &*pending.body {
                // That of the run itself is for its admission to give back.
                Body::Ask(ask) if !ask.is_of_run() && (d.state.is_closed() || !d.state.waits_for(ask, *number)) => {
                    Some((*number, ask.limit.clone()))
                }
                _ => None,
            });
        let permits = d.state.permits.iter();
        let held = permits.filter(|(number, permit)| !d.state.needs(permit, **number));
        let unneeded: Vec<_> = asked
            .chain(held.map(|(number, permit)| (*number, permit.limit.clone())))
            .collect();
        if unneeded.is_empty() {
            return;
        }
        // What is given back may have been what others were kept for.
        for (ask, limit) in unneeded {
            outbox::send(d, to(&limit), Body::Release { limit, ask, of: None });
        }
    }
}

impl State {
    /// What an activity under way waits for, if it is a permit.
    pub fn limit_of(&self, execution: &Execution) -> Option<&LimitName> {
        let Wait::Permit(number) = &execution.wait else {
            return None;
        };
        match &*self.mail.outbox.get(number)?.body {
            Body::Ask(ask) => Some(&ask.limit),
            _ => None,
        }
    }

    pub(super) fn has_permits(&self, step: &StepPath, direction: Direction) -> bool {
        let mut permits = self.permits.values();
        permits.any(|permit| permit.step == *step && permit.direction == direction)
    }

    fn waits_for(&self, ask: &Ask, number: MessageNo) -> bool {
        let execution = self.executions(ask.direction).get(&ask.step);
        execution.is_some_and(|execution| execution.wait == Wait::Permit(number))
    }

    /// Whether a task is out with the permit, or is waiting for another one as well.
    fn needs(&self, permit: &Permit, number: MessageNo) -> bool {
        let execution = self.executions(permit.direction).get(&permit.step);
        let Some(execution) = execution.filter(|_| !self.is_closed()) else {
            return false;
        };
        match &execution.wait {
            // A parked run has heard of it, and cannot take it in yet.
            Wait::Task(open) => self.task(open.task).is_some_and(|task| task.heard == Heard::Nothing),
            Wait::Until(_) => execution.deferred,
            Wait::Permit(asked) => *asked != number,
            Wait::Decision => false,
        }
    }

    pub(super) fn permit_asked(&mut self, number: MessageNo, ask: &Ask) {
        if let Some(execution) = self.executions_mut(ask.direction).get_mut(&ask.step) {
            execution.wait = Wait::Permit(number);
        }
    }

    pub(super) fn permit_granted(&mut self, number: MessageNo, ask: &Ask) {
        let permit = Permit {
            limit: ask.limit.clone(),
            step: ask.step.clone(),
            direction: ask.direction,
        };
        self.permits.insert(number, permit);
    }

    /// What waits for it still asks again as soon as the run goes on.
    pub(super) fn permit_released(&mut self, ask: MessageNo, at: Timestamp) {
        self.mail.outbox.remove(&ask);
        self.permits.remove(&ask);
        let executions = self.doing.values_mut().chain(self.undoing.values_mut());
        for execution in executions.filter(|execution| execution.wait == Wait::Permit(ask)) {
            execution.wait = Wait::Until(at);
        }
    }
}
