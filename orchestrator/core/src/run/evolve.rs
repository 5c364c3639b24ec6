//! The one function that changes a [`State`].
//!
//! Total: an event that does not fit the state changes nothing, so that loading a run never fails on its history.
//! Decides nothing: what an event means never depends on the definition, the clock or the version of the orchestrator.

use std::sync::Arc;

use super::admission::{self, Admission};
use super::change::{offered, unopened};
use super::effect::Direction;
use super::event::{Event, Resolution, RunStarted, StepOutcome, Transition};
use super::execution::{Known, Wait};
use super::failure::Failure;
use super::input::{AnswerOn, AnswerRequest};
use super::ledger::UndoState;
use super::mail::{Pending, Taken};
use super::message::Body;
use super::migrate::Migrated;
use super::open::{Loop, Open, ParkedCall, Stopped};
use super::request::Verb;
use super::signal::Signal;
use super::state::{Closed, Deferred, Heard, Phase, State, Step, Stop, Why};
use super::status::Status;
use super::turn;
use crate::ids::TaskNo;
use crate::limit::LimitKind;
use crate::schedule::Schedule;
use crate::time::Timestamp;
use crate::trigger::{Trigger, TriggerEvent};

/// Brings the state from one transition to the next.
pub fn evolve(state: &mut State, transition: &Transition) {
    for event in &transition.events {
        apply_event(state, transition.seq, transition.at, event);
    }
    conclude(state, transition);
}

/// What every transition changes, whatever its events.
pub(super) fn conclude(state: &mut State, transition: &Transition) {
    state.seq = transition.seq;
    state.at = transition.at;
    let events = u32::try_from(transition.events.len()).unwrap_or(u32::MAX);
    state.events = state.events.saturating_add(events);
    state.history_bytes = state.history_bytes.saturating_add(transition.body().len() as u64);
    turn::note(state);
}

impl State {
    /// The state after a run's first transition; `None` if that is not the birth of a run.
    pub fn born(transition: &Transition) -> Option<Self> {
        let (Event::RunStarted(birth), rest) = transition.events.split_first()? else {
            return None;
        };
        let mut state = Self::new(birth, transition.seq, transition.at);
        for event in rest {
            apply_event(&mut state, transition.seq, transition.at, event);
        }
        conclude(&mut state, transition);
        Some(state)
    }

    pub(super) fn new(birth: &Arc<RunStarted>, seq: u32, at: Timestamp) -> Self {
        let mut state = Self {
            birth: Arc::clone(birth),
            started_at: at,
            seq,
            at,
            phase: Phase::Running,
            parked: None,
            steps: Default::default(),
            doing: Default::default(),
            undoing: Default::default(),
            ledger: Vec::new(),
            tasks: Vec::new(),
            vars: Default::default(),
            waiters: Vec::new(),
            requests: Default::default(),
            taken: Default::default(),
            signals: Default::default(),
            handling: Default::default(),
            updates: Default::default(),
            mail: Default::default(),
            permits: Default::default(),
            admission: match birth.queued {
                true => Some(Admission::Id),
                false => birth.paused_until().map(|_| Admission::Pause),
            },
            place: admission::inherited(birth),
            began_in: None,
            open: Default::default(),
            loops: Default::default(),
            blocked: Default::default(),
            exit: None,
            past_pivot: false,
            deferred: None,
            events: 0,
            event_limit: None,
            history_bytes: 0,
            history_limit: None,
            pending_limit: None,
            emitted: Vec::new(),
            turns: Vec::new(),
            reopened: None,
            parked_at: None,
            schedule: None,
            trigger: None,
            began_at: None,
            retry_waived: false,
            migrated: None,
        };
        if let Some(answer) = &birth.answer {
            state.add_waiter(answer, seq);
        }
        if let Some(continues) = &birth.continues {
            state.signals.buffer.clone_from(&continues.signals);
            // Numbers stay ahead of those that moved along.
            state.signals.received = continues.signals.last().map_or(0, |signal| signal.number);
            state.inherit_updates(&continues.updates);
            for to in &continues.waiters {
                let request = AnswerRequest {
                    to: to.clone(),
                    on: AnswerOn::Closed,
                };
                state.add_waiter(&request, seq);
            }
        }
        state
    }
}

pub(super) fn apply_event(state: &mut State, seq: u32, at: Timestamp, event: &Event) {
    match event {
        // Only ever the first event, which `born` takes.
        Event::RunStarted(_) => {}
        Event::StepSkipped { step } => {
            state.steps.insert(step.clone(), Step::Skipped);
        }
        Event::StepPassed { step } => state.end_step(step, Step::Passed),
        Event::StepCompleted { step, output } => {
            let output = output.clone();
            state.end_step(step, Step::Completed { output });
        }
        Event::ParallelStarted { step } => {
            state.open.insert(step.clone(), Open::Parallel(Default::default()));
        }
        Event::BranchEnded { step, branch, end } => {
            if let Some(Open::Parallel(parallel)) = state.open.get_mut(step) {
                parallel.branch_ended(branch, end);
            }
        }
        Event::ParallelStopped { step, error } => {
            if let Some(Open::Parallel(parallel)) = state.open.get_mut(step) {
                let error = error.clone();
                parallel.stopped = Some(Stopped { seq, error });
            }
        }
        Event::ForEachStarted { step, items } => {
            let items = items.clone();
            state.loops.insert(step.clone(), Loop { items, last: 0 });
            state.open.insert(step.clone(), Open::ForEach(Default::default()));
        }
        Event::IterationStarted { step, index } => {
            state.loops.entry(step.clone()).or_default().last = *index;
            if let Some(Open::ForEach(each)) = state.open.get_mut(step) {
                each.begun = index.saturating_add(1);
            }
        }
        Event::IterationEnded {
            step, index, output, ..
        } => {
            if let Some(Open::ForEach(each)) = state.open.get_mut(step) {
                each.ended = each.ended.saturating_add(1);
                if !output.is_null() {
                    each.outputs.insert(*index, output.clone());
                }
            }
        }
        Event::ForEachStopped { step, error } => {
            if let Some(Open::ForEach(each)) = state.open.get_mut(step) {
                let error = Some(error.clone());
                each.stopped = Some(Stopped { seq, error });
            }
        }
        Event::ErrorCaught { step, error, .. } => {
            let caught = Some(error.clone());
            state.open.insert(step.clone(), Open::Try { caught, finally: None });
        }
        Event::FinallyStarted { step, end } => {
            let (caught, finally) = (None, Some(end.clone()));
            state.open.insert(step.clone(), Open::Try { caught, finally });
        }
        Event::ScopeFailed { step, error } => {
            let (error, undone) = (error.clone(), false);
            state.open.insert(step.clone(), Open::Scope { error, undone });
            state.discard(std::slice::from_ref(step));
        }
        Event::ScopeUndone { step } => {
            if let Some(Open::Scope { undone, .. }) = state.open.get_mut(step) {
                *undone = true;
            }
        }
        Event::BodiesDiscarded { step, bodies } => {
            if let Some(Open::Parallel(parallel)) = state.open.get_mut(step) {
                parallel.undoing = true;
            }
            state.discard(bodies);
        }
        Event::TimerSet { step, due } => {
            state.open.insert(step.clone(), Open::Timer { due: *due });
        }
        Event::SignalAwaited { step, signal, due } => {
            let (name, due) = (signal.clone(), *due);
            state.open.insert(step.clone(), Open::Signal { name, due });
        }
        Event::SignalTaken { step, signal } => {
            let buffer = &mut state.signals.buffer;
            if let Some(index) = buffer.iter().position(|one| one.number == *signal) {
                let output = buffer.remove(index).body;
                state.end_step(step, Step::Completed { output });
            }
        }
        Event::SignalTimedOut { step } => {
            state.open.remove(step);
        }
        Event::Emitted(emitted) => {
            if state.emitted.last() != Some(&seq) {
                state.emitted.push(seq);
            }
            state.end_step(&emitted.step, Step::Passed);
        }
        Event::ChildEnded(ended) => state.child_ended(ended),
        Event::ChildStopped { step } => {
            if let Some(Open::Child(child)) = state.open.get_mut(step) {
                child.stopping = true;
            }
        }
        Event::ChildUndoSent { step, message } => {
            if let Some(entry) = state.entry_mut(step) {
                entry.state = UndoState::Running;
                if let Some(child) = &mut entry.child {
                    child.undo = Some(*message);
                }
            }
        }
        Event::PivotCompleted { .. } => {
            state.past_pivot = true;
            state.deferred = None;
        }
        Event::StopDeferred {
            why,
            pivot,
            error,
            operation,
        } => {
            state.taken.remember(Verb::Cancel, operation);
            state.parked = None;
            state.deferred = Some(Box::new(Deferred {
                why: *why,
                pivot: pivot.clone(),
                error: error.clone(),
                seq,
            }));
        }
        Event::StepParked { step, outcome, error } => {
            let call = state.doing.remove(step).map(ParkedCall::of);
            let (outcome, error) = (*outcome, error.clone());
            let parked = Open::Parked {
                error: error.clone(),
                since: Some(at),
                call,
            };
            state.end_step(step, Step::Failed { outcome, error });
            state.open.insert(step.clone(), parked);
        }
        Event::StepResumed { step, operation } => {
            state.taken.remember(Verb::Retry, operation);
            state.open.remove(step);
        }
        Event::StepResolved {
            step,
            how,
            output,
            operation,
        } => {
            state.taken.remember(Verb::resolving(*how), operation);
            let end = match how {
                Resolution::Done if output.is_null() => Step::Passed,
                Resolution::Done => Step::Completed { output: output.clone() },
                Resolution::Skipped => Step::Skipped,
            };
            state.end_step(step, end);
        }
        Event::StepBlocked { step } => {
            state.blocked.insert(step.clone());
        }
        Event::ExitRequested { exit, step } => {
            state.exit = Some((exit.clone(), seq));
            state.handling.ends_at.clone_from(step);
        }
        Event::VarsSet { step, vars } => {
            state
                .vars
                .extend(vars.iter().map(|(name, value)| (name.clone(), value.clone())));
            state.steps.insert(step.clone(), Step::Passed);
        }
        Event::ActivityScheduled(scheduled) => state.schedule_do(scheduled, seq, at),
        Event::TaskOpened {
            task,
            step,
            direction,
            attempt,
        } => {
            if let Some(execution) = state.executions_mut(*direction).get_mut(step) {
                execution.attempt = *attempt;
                execution.wait = offered(*task, seq, at, execution);
                state.add_task(*task, step, *direction);
            }
        }
        Event::DispatchHeld { task, until, in_doubt } => state.with_open_task(*task, |open| {
            open.known = Known::Held;
            open.in_doubt |= in_doubt;
            open.due = *until;
        }),
        Event::TaskOffered { task, offer } => {
            let look = state.open_task(*task).map(|view| view.execution.first_look());
            state.with_open_task(*task, |open| {
                open.seq = seq;
                open.offer = *offer;
                open.known = Known::Offered;
                open.opened_at = at;
                open.due = at.plus(look.unwrap_or_default());
            });
        }
        Event::TaskStarted { task, at: began } => state.found(*task, Known::Started, *began),
        Event::TaskDelivered { task } => state.found(*task, Known::Delivered, at),
        Event::DeadlineDeferred { task, until } => state.with_open_task(*task, |open| open.due = *until),
        Event::HeartbeatTaken { task, at, details } => state.beaten(*task, *at, details.as_ref()),
        Event::WorkerSilent { task } => {
            // It had begun, whatever was known of that.
            if state
                .open_task(*task)
                .is_some_and(|view| view.open.known != Known::Started)
            {
                state.found(*task, Known::Started, at);
            }
            state.with_open_task(*task, |open| open.silent_at = Some(at));
        }
        Event::TaskClaimed { task, by } => {
            state.found(*task, Known::Started, at);
            state.with_open_task(*task, |open| open.claimed = Some(by.clone()));
        }
        Event::TaskLeft { task } => {
            if state
                .open_task(*task)
                .is_some_and(|view| view.open.known != Known::Started)
            {
                state.found(*task, Known::Started, at);
            }
            state.with_open_task(*task, |open| {
                open.later = true;
                open.silent_at = None;
            });
        }
        Event::WithdrawalRequested { task, timeout, until } => state.with_open_task(*task, |open| {
            open.seq = seq;
            open.withdrawn_for = Some(*timeout);
            open.due = *until;
        }),
        Event::TaskWithdrawn { task, error } => {
            // What was refused in doubt may be somewhere all the same.
            let in_doubt = state.open_task(*task).is_some_and(|view| view.open.in_doubt);
            state.end_attempt(*task, Heard::Nothing, error, |execution| execution.unknown |= in_doubt);
        }
        Event::ScheduleToClosePassed { step, direction, error } => {
            if let Some(execution) = state.executions_mut(*direction).get_mut(step) {
                execution.last_error = Some(error.clone());
                execution.close_by = None;
            }
        }
        Event::TimeoutVoided { step } => {
            if let Some(execution) = state.doing.get_mut(step) {
                execution.close_by = None;
                if let Wait::Task(open) = &mut execution.wait {
                    open.start_by = None;
                }
            }
        }
        Event::TaskAbandoned { task } => {
            if let Some(abandoned) = state.task_mut(*task) {
                abandoned.abandoned = true;
            }
            let error = Failure::abandoned();
            state.end_attempt(*task, Heard::Nothing, &error, |execution| execution.unknown = true);
        }
        Event::TaskCompleted { task, output } => {
            if let Some((step, direction)) = state.close_task(*task, Heard::Success) {
                state.executions_mut(direction).remove(&step);
                match direction {
                    Direction::Do => {
                        state.steps.insert(step, Step::Completed { output: output.clone() });
                    }
                    Direction::Undo => state.set_entry(&step, UndoState::Done),
                }
            }
        }
        Event::TaskFailed { task, error, not_done } => {
            state.end_attempt(*task, Heard::Other, error, |execution| {
                execution.unknown &= !not_done;
                execution.deferred = false;
            });
        }
        Event::TaskUnknown { task, error } => {
            state.end_attempt(*task, Heard::Other, error, |execution| execution.unknown = true);
        }
        Event::TaskTimedOut { task, error } | Event::TaskLost { task, error } => {
            state.end_attempt(*task, Heard::Nothing, error, |execution| execution.unknown = true);
        }
        Event::TaskCancelled { task } => {
            let error = Failure::cancelled("the worker stopped the task");
            state.end_attempt(*task, Heard::Other, &error, |execution| execution.deferred = false);
        }
        Event::TaskDeferred { task, until, in_doubt } => state.task_deferred(*task, *until, *in_doubt),
        Event::RetryScheduled {
            step,
            direction,
            attempt,
            at,
        } => {
            if let Some(execution) = state.executions_mut(*direction).get_mut(step) {
                execution.attempt = *attempt;
                execution.deferred = false;
                execution.wait = Wait::Until(*at);
            }
        }
        Event::StepFailed { step, outcome, error } => {
            state.doing.remove(step);
            state.blocked.remove(step);
            let failed = Step::Failed {
                outcome: *outcome,
                error: error.clone(),
            };
            state.end_step(step, failed);
            // A child that may have completed is told to undo what it did.
            if *outcome == StepOutcome::Unknown
                && let Some(entry) = state.entry_mut(step).filter(|entry| entry.child.is_some())
            {
                entry.state = UndoState::Ready;
            }
        }
        Event::UndoReady { step, input } => {
            if let Some(entry) = state.entry_mut(step) {
                entry.input = input.clone();
                entry.state = UndoState::Ready;
            }
        }
        Event::UndoNeeded { step } => state.set_entry(step, UndoState::Needed),
        Event::UndoScheduled {
            step,
            task,
            start_to_close,
            timeouts,
            max_attempts,
        } => {
            if let Some(entry) = state.entry_mut(step) {
                entry.state = UndoState::Running;
                let Some(undo) = &entry.undo else { return };
                let call = (&undo.activity, &undo.queue, &entry.input);
                let mut execution = unopened(call, (*start_to_close, *timeouts), *max_attempts, at);
                execution.limits.clone_from(&entry.limits);
                if *task != TaskNo::NONE {
                    execution.wait = offered(*task, seq, at, &execution);
                    state.add_task(*task, step, Direction::Undo);
                }
                state.undoing.insert(step.clone(), execution);
            }
        }
        Event::UndoParked { step, error } => {
            state.undoing.remove(step);
            if let Some(entry) = state.entry_mut(step) {
                let prepared = matches!(entry.state, UndoState::Ready | UndoState::Running);
                entry.state = UndoState::Parked {
                    error: error.clone(),
                    prepared,
                    since: Some(at),
                };
            }
        }
        Event::UndoResumed { step, operation } => {
            state.taken.remember(Verb::Retry, operation);
            if let Some(entry) = state.entry_mut(step) {
                entry.state = UndoState::Ready;
                entry.resumed = true;
            }
        }
        Event::UndoResolved { step, how, operation } => {
            state.taken.remember(Verb::resolving(*how), operation);
            state.undoing.remove(step);
            let resolved = match how {
                Resolution::Done => UndoState::Done,
                Resolution::Skipped => UndoState::Skipped,
            };
            state.set_entry(step, resolved);
        }
        Event::RunFailed { error } => state.stop(Why::Failed, error, seq),
        Event::RunTimedOut { error } => state.stop(Why::TimedOut, error, seq),
        Event::CancelRequested { error, operation } => {
            state.taken.remember(Verb::Cancel, operation);
            state.parked = None;
            state.stop(Why::Cancelled, error, seq);
        }
        Event::RunAdmitted { to } => state.admitted(*to, seq, at),
        Event::RunParked { reason } => {
            state.parked = Some(reason.clone());
            state.parked_at = Some(at);
        }
        Event::RunResumed {
            operation,
            event_limit,
            history_limit,
        } => {
            state.taken.remember(Verb::Retry, operation);
            state.parked = None;
            state.blocked.clear();
            state.event_limit = *event_limit;
            state.history_limit = *history_limit;
        }
        Event::LimitsRaised { limits, operation } => {
            state.taken.remember(Verb::RaiseLimits, operation);
            state.event_limit = limits.events.or(state.event_limit);
            state.history_limit = limits.history_bytes.or(state.history_limit);
            state.pending_limit = limits.pending.or(state.pending_limit);
        }
        Event::RunMigrated {
            version,
            definition,
            operation,
        } => {
            state.taken.remember(Verb::Migrate, operation);
            state.migrated = Some(Box::new(Migrated {
                version: *version,
                definition: definition.clone(),
            }));
        }
        Event::Awaited(request) => state.add_waiter(request, seq),
        Event::LateResult(late) => state.hear_late(late.task, late.outcome),
        Event::MessageSent(sent) => {
            state.mail.sent = sent.number.0;
            let pending = Pending {
                to: sent.to.clone(),
                body: Arc::clone(&sent.body),
                seq,
                due: sent.due,
                offers: 0,
            };
            state.mail.outbox.insert(sent.number, pending);
            match &*sent.body {
                // A trigger knows what it has sent, and nothing of what becomes of it.
                Body::StartChild(_) if state.trigger.is_some() => {}
                Body::StartChild(start) => state.child_sent(sent.number, &sent.to, start),
                Body::Ask(ask) if ask.is_of_run() => state.place_asked(sent.number, ask),
                Body::Ask(ask) => state.permit_asked(sent.number, ask),
                Body::Cancel { .. } => state.told_to_make_room(sent.to.run),
                Body::Release { limit, ask, of } => {
                    if limit.kind == LimitKind::Workflow {
                        state.place_released(*ask, *of);
                    }
                    if of.is_none() {
                        state.mail.granted_again.remove(ask);
                        state.permit_released(*ask, at);
                    }
                }
                _ => {}
            }
        }
        Event::MessageOffered { number, due } => {
            if let Some(pending) = state.mail.outbox.get_mut(number) {
                pending.seq = seq;
                pending.due = *due;
                pending.offers = pending.offers.saturating_add(1);
            }
        }
        Event::MessageAnswered { number, answer } => state.message_answered(*number, answer),
        // A schedule knows its runs, of which it has one answer for every repeat.
        Event::MessageTaken(_) if state.is_actor() => {}
        Event::MessageTaken(message) => {
            let taken = Taken {
                namespace: message.from.namespace.clone(),
                workflow_id: message.from.workflow_id.clone(),
                seq,
                answer: message.answer.clone(),
            };
            let of = state.mail.taken.entry(message.from.run).or_default();
            of.insert(message.number, taken);
        }
        Event::SignalReceived(signal) => {
            state.taken.remember(Verb::Signal, &signal.operation);
            state.signals.received = state.signals.received.saturating_add(1);
            state.signals.buffer.push(Signal {
                number: state.signals.received,
                name: signal.name.clone(),
                body: signal.body.clone(),
                request_id: signal.operation.request_id.clone(),
            });
        }
        Event::HandlerStarted {
            step,
            index,
            signal,
            update,
        } => state.handler_started(step, *index, (*signal, *update)),
        Event::HandlerEnded {
            step,
            index,
            output,
            end,
        } => state.handler_ended(step, *index, (output, end), seq),
        Event::UpdateAccepted(taken) => state.update_taken(taken, seq, true),
        Event::UpdatePutOff(taken) => state.update_taken(taken, seq, false),
        Event::UpdateAdmitted { id } => state.update_admitted(id, seq),
        Event::UpdateRefused { id, error } => state.update_refused(id, error, seq),
        Event::UpdateAwaited { id, answer } => state.update_awaited(id, answer),
        Event::MainBodyPassed {} => state.handling.passed = true,
        Event::RunReopened { error } => {
            if let Phase::Closed(closed) = &state.phase {
                state.reopened = Some(Box::new(closed.clone()));
                let (why, error) = (Why::Failed, error.clone());
                state.phase = Phase::Stopping(Stop { why, error, seq });
            }
        }
        Event::Schedule(event) => Schedule::evolve(&mut state.schedule, at, event),
        Event::Trigger(event) => {
            if let TriggerEvent::Postponed { message, due, .. } = &**event
                && let Some(pending) = state.mail.outbox.get_mut(message)
            {
                pending.due = *due;
            }
            Trigger::evolve(&mut state.trigger, at, event);
        }
        Event::RunContinued { successor, input } => {
            state.parked = None;
            state.phase = Phase::Closed(Closed {
                status: Status::ContinuedAsNew,
                at,
                seq,
                output: input.clone(),
                error: None,
                successor: Some(*successor),
                attempt: None,
            });
        }
        Event::RunRetried { successor, attempt } => {
            if let Phase::Closed(closed) = &mut state.phase {
                closed.successor = Some(*successor);
                closed.attempt = Some(attempt.clone());
            }
        }
        Event::RetryWaived { operation } => {
            state.taken.remember(Verb::Cancel, operation);
            state.retry_waived = true;
        }
        Event::RunCompleted { output } => {
            state.parked = None;
            state.phase = Phase::Closed(Closed {
                status: Status::Completed,
                at,
                seq,
                output: output.clone(),
                error: None,
                successor: None,
                attempt: None,
            });
        }
        Event::RunClosed { status } => {
            let error = state.failure().cloned();
            state.close(*status, error, seq, at);
        }
        Event::RunTerminated { error, operation } => {
            state.taken.remember(Verb::Terminate, operation);
            state.parked = None;
            let error = state.failure().unwrap_or(error).clone();
            state.close(Status::Terminated, Some(error), seq, at);
        }
    }
}
