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

use std::sync::Arc;

use super::deadline;
use super::decider::Decider;
use super::event::{Event, MessageTaken, RunStarted, Transition};
use super::input::{Input, Operation, Rejected, Start};
use super::keys::child_run_id;
use super::message::{Answer, Body, ChildClosed, OnParentClose, Recipient, Refusal, ScheduledBy, Sender, StartChild};
use super::outbox;
use super::parked;
use super::request::{Verb, was_taken};
use super::state::State;
use crate::definition::plan::{CompensationPolicy, Node, NodeId, NodeKind, Plan};
use crate::ids::{DefinitionHash, MessageNo, RequestId, RunId, StepPath, WorkflowId, WorkflowName};
use crate::schedule::command::{Command, MAX_BACKFILL};
use crate::schedule::spec::{compact, rfc3339};
use crate::schedule::state::{Backfill, Became, Due, Next, Schedule, ScheduleEvent, Skip};
use crate::schedule::{Overlap, Spec};
use crate::time::Timestamp;

/// The name of the workflow that schedules are runs of; no definition can have it.
pub const WORKFLOW: &str = "$schedule";
/// The workflow id of a schedule begins with this; what begins so is nobody else's, of workflow ids and of request ids.
pub const PREFIX: &str = "$schedule/";
/// Occurrences that one transition decides; the rest follow at once.
const MAX_AT_ONCE: usize = 100;
/// And fewer, where their inputs come to more: what one transition says is stored and sent as a whole.
const MAX_BYTES_AT_ONCE: u64 = 1 << 20;
/// Missed occurrences that one transition counts, at most.
const MAX_MISSED: usize = 10_000;

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
        triggers: Vec::new(),
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
    spec: Spec,
    version: Option<u32>,
) -> Transition {
    let operation = Operation {
        request_id: birth.request_id.clone(),
        ..Operation::default()
    };
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
        } => return parked::act(d, step, direction, action, operation),
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

fn set(d: &mut Decider<'_>, spec: Spec, version: Option<u32>, operation: Operation) {
    decide_before(d);
    let before = d.state.schedule.as_deref();
    let said = |spec: &Spec| spec.paused.then(|| Arc::<str>::from("it was made paused"));
    // What is paused stays so, and what remains does, unless the specification says something else than before.
    let (paused, remaining) = match before {
        None => (said(&spec), spec.actions),
        Some(before) => (
            match before.spec.paused == spec.paused {
                true => before.paused.clone(),
                false => said(&spec),
            },
            match before.spec.actions == spec.actions {
                true => before.remaining,
                false => spec.actions,
            },
        ),
    };
    let version = version.or(before.and_then(|before| before.version));
    let next = next(d, &spec, d.at);
    let decided_to = d.at;
    emit(
        d,
        ScheduleEvent::Set {
            spec,
            version,
            paused,
            remaining,
            decided_to,
            next,
            operation,
        },
    );
    start_waiting(d);
}

/// Another calendar knows nothing of what this one has named up to now, before an update that is the first after an outage, or
/// comes while a jitter passes. It is decided by what has been said until now; of very much the first, and the rest is missed.
fn decide_before(d: &mut Decider<'_>) {
    let named = |d: &Decider<'_>| {
        let schedule = schedule(d).filter(|schedule| schedule.is_active())?;
        schedule.next.filter(|next| next.nominal <= d.at)
    };
    if d.state.parked.is_none() {
        for _ in 0..MAX_AT_ONCE {
            let Some(next) = named(d) else { return };
            calendar(d, next);
        }
    }
    let rest = named(d).zip(schedule(d).map(|schedule| Arc::clone(&schedule.spec.times)));
    let Some((next, times)) = rest else { return };
    let to = d.at;
    let walk = times.walk(next.nominal, MAX_MISSED - 1, |nominal| nominal <= to);
    let (next, missed) = (None, missed(walk.count));
    emit(d, ScheduleEvent::Passed { to, next, missed });
}

fn ask(d: &mut Decider<'_>, command: Command, operation: Operation) -> Result<(), Rejected> {
    let Some(schedule) = schedule(d) else {
        return Err(Rejected::Closed("completed"));
    };
    // What has a parked schedule go on is remembered like that of any run.
    if schedule.has_taken(&operation) || was_taken(d.state, Verb::Retry, &operation) {
        return Ok(());
    }
    match command {
        Command::Create(spec) if schedule.spec == *spec => {}
        Command::Create(_) => return Err(Rejected::ScheduleExists),
        Command::Update(spec) if schedule.spec == *spec => {}
        Command::Update(spec) => set(d, *spec, None, operation),
        Command::Define { version, spec } => return define(d, version, spec, operation),
        // Also what changes nothing is remembered: its repeat may come when somebody else has said otherwise.
        Command::Pause => {
            let reason = schedule
                .paused
                .clone()
                .or_else(|| operation.reason.clone())
                .unwrap_or_else(|| Arc::from("an operator paused it"));
            emit(d, ScheduleEvent::Paused { reason, operation });
        }
        Command::Resume if d.state.parked.is_some() => {
            d.emit(Event::RunResumed {
                operation,
                event_limit: None,
                history_limit: None,
            });
            advance(d);
        }
        Command::Resume => {
            let (decided_to, next) = match schedule.paused {
                Some(_) => (d.at, next(d, &schedule.spec, d.at)),
                None => (schedule.decided_to, schedule.next),
            };
            emit(
                d,
                ScheduleEvent::Resumed {
                    decided_to,
                    next,
                    operation,
                },
            );
            start_waiting(d);
        }
        Command::Trigger { overlap } => {
            let number = schedule.triggers.saturating_add(1);
            let due = Due {
                nominal: Timestamp(d.at.0 - d.at.0.rem_euclid(1_000_000)),
                trigger: Some(number),
                overlap: overlap.unwrap_or(schedule.spec.policy.overlap),
                counted: false,
            };
            emit(d, ScheduleEvent::Triggered { number, operation });
            occur(d, due);
        }
        Command::Backfill { from, until, overlap } => {
            let backfill = Backfill {
                after: Timestamp(from.0.saturating_sub(1)),
                until,
                overlap: overlap.unwrap_or(Overlap::BufferAll),
            };
            may_backfill(schedule, &backfill, d.at)?;
            emit(d, ScheduleEvent::BackfillBegun { backfill, operation });
            advance(d);
        }
        Command::Delete => delete(d),
    }
    Ok(())
}

fn delete(d: &mut Decider<'_>) {
    let output = Arc::default();
    d.emit(Event::RunCompleted { output });
}

/// An older version than the one that spoke last says nothing any more, nor does any of a schedule that was made by hand.
fn define(d: &mut Decider<'_>, version: u32, spec: Option<Box<Spec>>, operation: Operation) -> Result<(), Rejected> {
    let Some(schedule) = schedule(d) else { return Ok(()) };
    match (schedule.version, spec) {
        (Some(last), _) if version < last => {}
        (None, Some(_)) => return Err(Rejected::ScheduleExists),
        (None, None) => {}
        (Some(last), Some(spec)) if last == version && schedule.spec == *spec => {}
        (Some(_), Some(spec)) => set(d, *spec, Some(version), operation),
        (Some(_), None) => delete(d),
    }
    Ok(())
}

fn may_backfill(schedule: &Schedule, backfill: &Backfill, now: Timestamp) -> Result<(), Rejected> {
    let refuse = |why: String| Err(Rejected::Schedule(why));
    if backfill.until > now {
        return refuse("a backfill ends in the past; what is to come is the schedule's own".to_owned());
    }
    if backfill.after >= backfill.until {
        return refuse("the backfill ends before it begins".to_owned());
    }
    if schedule.backfills.len() >= 10 {
        return refuse("ten backfills are under way already".to_owned());
    }
    let times = &schedule.spec.times;
    let walk = times.walk(backfill.after, MAX_BACKFILL + 1, |nominal| nominal <= backfill.until);
    if walk.count > MAX_BACKFILL {
        return refuse(format!(
            "the range has more than {MAX_BACKFILL} occurrences; take a shorter one"
        ));
    }
    if !walk.whole {
        return refuse("the calendar names too much to look through in the range; take a shorter one".to_owned());
    }
    Ok(())
}

fn wake(d: &mut Decider<'_>) {
    for number in deadline::messages_due(d) {
        outbox::offer_again(d, number);
    }
    advance(d);
}

/// Decides what is due: of the calendar, then of backfills.
fn advance(d: &mut Decider<'_>) {
    if d.state.parked.is_some() {
        return;
    }
    for _ in 0..MAX_AT_ONCE {
        if d.bytes_so_far() >= MAX_BYTES_AT_ONCE {
            break;
        }
        let Some(schedule) = schedule(d) else { return };
        let due = schedule.next.filter(|next| schedule.is_active() && next.at <= d.at);
        match due {
            Some(due) => calendar(d, due),
            None if !backfill(d) => break,
            None => {}
        }
    }
    start_waiting(d);
}

fn calendar(d: &mut Decider<'_>, due: Next) {
    let Some((spec, decided_to)) = schedule(d).map(|schedule| (schedule.spec.clone(), schedule.decided_to)) else {
        return;
    };
    let window = spec.policy.catch_up_window;
    // Its time is when it is to fire: jitter is no delay.
    if d.at.since(due.at) > window {
        let oldest = Timestamp(d.at.0.saturating_sub(i64::try_from(window.0).unwrap_or(i64::MAX)));
        let gone = Timestamp(oldest.0.saturating_sub(1));
        let id = name(d);
        // They fire in the order of their nominal times, each before the next one.
        let is_gone = |nominal: Timestamp| nominal <= gone && spec.times.fires_at(&id, nominal) <= gone;
        let walk = spec.times.walk(due.nominal, MAX_MISSED - 1, is_gone);
        // Else not all are counted, and all are passed.
        let to = if walk.whole { walk.last } else { gone };
        let missed = missed(walk.count);
        let next = next(d, &spec, to.max(decided_to));
        return emit(d, ScheduleEvent::Passed { to, next, missed });
    }
    let next = next(d, &spec, due.nominal);
    emit(
        d,
        ScheduleEvent::Passed {
            to: due.nominal,
            next,
            missed: 0,
        },
    );
    let due = Due {
        nominal: due.nominal,
        trigger: None,
        overlap: spec.policy.overlap,
        counted: true,
    };
    occur(d, due);
}

/// One, and so many behind it.
fn missed(more: usize) -> u32 {
    u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1)
}

/// One occurrence of the first backfill; `false` if there is none to decide.
fn backfill(d: &mut Decider<'_>) -> bool {
    let Some(schedule) = schedule(d) else { return false };
    let Some(backfill) = schedule.backfills.first().copied() else {
        return false;
    };
    if !schedule.has_room(backfill.overlap) {
        return false;
    }
    let nominal = schedule.spec.times.next_after(backfill.after);
    match nominal.filter(|nominal| *nominal <= backfill.until) {
        None => emit(
            d,
            ScheduleEvent::BackfillPassed {
                after: backfill.until,
                done: true,
            },
        ),
        Some(nominal) => {
            emit(
                d,
                ScheduleEvent::BackfillPassed {
                    after: nominal,
                    done: false,
                },
            );
            let due = Due {
                nominal,
                trigger: None,
                overlap: backfill.overlap,
                counted: false,
            };
            occur(d, due);
        }
    }
    true
}

/// An occurrence is due: what becomes of it.
fn occur(d: &mut Decider<'_>, due: Due) {
    let Some(schedule) = schedule(d) else { return };
    let skip = |d: &mut Decider<'_>, why| emit(d, ScheduleEvent::Skipped { due, why });
    let free = schedule.running.is_empty() && schedule.buffer.is_empty();
    if !schedule.has_room(due.overlap) {
        return skip(d, Skip::Full);
    }
    if free || due.overlap == Overlap::AllowAll {
        return start(d, due);
    }
    match due.overlap {
        Overlap::Skip => skip(d, Skip::Overlap),
        Overlap::BufferOne if !schedule.buffer.is_empty() => skip(d, Skip::Overlap),
        Overlap::BufferOne | Overlap::BufferAll | Overlap::AllowAll => emit(d, ScheduleEvent::Buffered { due }),
        Overlap::CancelOther | Overlap::TerminateOther => {
            let stops = |waiting: &&Due| matches!(waiting.overlap, Overlap::CancelOther | Overlap::TerminateOther);
            let replaced: Vec<Due> = schedule.buffer.iter().filter(stops).copied().collect();
            let running: Vec<RunId> = schedule.running.keys().copied().collect();
            for due in replaced {
                let why = Skip::Replaced;
                emit(d, ScheduleEvent::Skipped { due, why });
            }
            emit(d, ScheduleEvent::Buffered { due });
            for run in running {
                stop(d, run, due.overlap);
            }
        }
    }
}

fn start(d: &mut Decider<'_>, due: Due) {
    let id = name(d);
    let Some(spec) = schedule(d).map(|schedule| schedule.spec.clone()) else {
        return;
    };
    let input = match spec.input(&id, due.nominal) {
        Ok(input) => input,
        Err(error) => {
            let text = error.to_string();
            let message = Arc::from(super::limits::truncated(&text, 1_024));
            let reason = Arc::from("expression_error");
            emit(d, ScheduleEvent::NotStarted { due, reason, message });
            return pause_on_failure(d, "the input of an occurrence could not be evaluated");
        }
    };
    let message = d.state.next_message();
    let run = child_run_id(d.state.run_id(), message, d.at);
    let workflow_id = occurrence_id(&id, due);
    emit(d, ScheduleEvent::Started { due, run, message });
    let to = Recipient {
        workflow_id,
        run: Some(run),
    };
    let body = StartChild {
        run_id: run,
        workflow: spec.action.workflow.clone(),
        version: spec.action.version,
        input,
        step: StepPath::new(""),
        parent_close: OnParentClose::Abandon,
        detached: false,
        priority: None,
        scheduled: Some(ScheduledBy {
            nominal_time: due.nominal,
            trigger: due.trigger,
        }),
        triggered: None,
    };
    outbox::send(d, to, Body::StartChild(body));
}

/// Tells an open run to stop, once; one whose start is not accepted yet is told when it is.
fn stop(d: &mut Decider<'_>, run: RunId, how: Overlap) {
    let running = schedule(d).and_then(|schedule| schedule.running.get(&run)).cloned();
    let Some(running) = running.filter(|running| running.stopping.is_none()) else {
        return;
    };
    emit(d, ScheduleEvent::StopAsked { run, how });
    if running.started {
        send_stop(d, run, running.due, how);
    }
}

fn send_stop(d: &mut Decider<'_>, run: RunId, due: Due, how: Overlap) {
    let workflow_id = occurrence_id(&name(d), due);
    let operation = Operation {
        reason: Some(Arc::from("a later occurrence of its schedule is due")),
        ..Operation::default()
    };
    let body = match how {
        Overlap::TerminateOther => Body::Terminate { operation },
        _ => Body::Cancel { operation },
    };
    let run = Some(run);
    outbox::send(d, Recipient { workflow_id, run }, body);
}

/// Whoever waits is started when nothing is open.
fn start_waiting(d: &mut Decider<'_>) {
    loop {
        let Some(schedule) = schedule(d) else { return };
        if !schedule.running.is_empty() || d.state.parked.is_some() {
            return;
        }
        // A pause holds back what is due by the calendar, not what somebody asks for.
        let may_start = |due: &&Due| schedule.paused.is_none() || !due.counted;
        let Some(due) = schedule.buffer.iter().find(may_start).copied() else {
            return;
        };
        if due.counted && schedule.remaining == Some(0) {
            let why = Skip::Limit;
            emit(d, ScheduleEvent::Skipped { due, why });
        } else {
            start(d, due);
        }
    }
}

fn ended(d: &mut Decider<'_>, run: RunId, became: Became) {
    let failed = became.is_failure();
    let why = format!("its run {run} ended as {}", became.as_str());
    emit(d, ScheduleEvent::Ended { run, became });
    if failed {
        pause_on_failure(d, &why);
    }
    start_waiting(d);
    // A backfill may have waited for room.
    if schedule(d).is_some_and(|schedule| !schedule.backfills.is_empty()) {
        advance(d);
    }
}

fn is_running(d: &Decider<'_>, run: RunId) -> bool {
    schedule(d).is_some_and(|schedule| schedule.running.contains_key(&run))
}

fn pause_on_failure(d: &mut Decider<'_>, why: &str) {
    let asked = schedule(d).is_some_and(|schedule| schedule.spec.policy.pause_on_failure && schedule.paused.is_none());
    if asked {
        let (reason, operation) = (Arc::from(why), Operation::default());
        emit(d, ScheduleEvent::Paused { reason, operation });
    }
}

fn receive(d: &mut Decider<'_>, from: Sender, number: MessageNo, body: Body) {
    if d.state.parked.is_some() {
        return;
    }
    let Body::ChildClosed(ChildClosed { child, status, .. }) = body else {
        return;
    };
    // What is not running has been heard of: the shell answers.
    if is_running(d, child) {
        let answer = Answer::Accepted;
        d.emit(Event::MessageTaken(Box::new(MessageTaken { from, number, answer })));
        ended(d, child, Became::Closed(status));
    }
}

fn answered(d: &mut Decider<'_>, number: MessageNo, answer: &Answer) {
    let Some(pending) = d.state.mail.outbox.get(&number) else {
        return;
    };
    let (to, body) = (pending.to.clone(), Arc::clone(&pending.body));
    d.emit(Event::MessageAnswered {
        number,
        answer: answer.clone(),
    });
    match (&*body, answer, to.run) {
        (Body::StartChild(_), Answer::Accepted, Some(run)) => {
            let running = schedule(d).and_then(|schedule| schedule.running.get(&run));
            let stopping = running.and_then(|running| Some((running.due, running.stopping?)));
            if let Some((due, how)) = stopping {
                send_stop(d, run, due, how);
            }
        }
        (Body::StartChild(_), Answer::Refused { reason, message }, Some(run)) => {
            let became = match reason {
                Refusal::AlreadyStarted => Became::AlreadyStarted,
                reason => Became::NotStarted {
                    reason: Arc::from(reason.as_str()),
                    message: message.clone(),
                },
            };
            if is_running(d, run) {
                ended(d, run, became);
            }
        }
        (_, Answer::Refused { reason, .. }, Some(run)) if *reason == Refusal::NoRun && is_running(d, run) => {
            ended(d, run, Became::Lost);
        }
        _ => {}
    }
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
