//! `workflow:`: a child run, from its parent's side. What runs say to each other is in [`super::message`].
//!
//! | what | then |
//! |---|---|
//! | entered | its start is sent, with the child's run id; a child that is not detached gets a ledger entry |
//! | start accepted | waited for; a detached child's step completes with its ids |
//! | start refused, or its workflow id cannot be part of a subject | the step fails: nothing was done |
//! | closed: completed, though its start was refused | told to undo, whatever has become of this run |
//! | closed: completed | the step completes with the child's output, and is undone if the run fails |
//! | closed: otherwise | the step fails with the child's error: it has undone itself, or an operator answers for it |
//! | halted, `request_cancel` or `terminate` | told so, once its start was accepted, and waited for |
//! | halted, `abandon` or detached | left alone, the step ends as cancelled |
//! | the run is terminated | told what `parent_close` says, not waited for |
//! | told to stop, and there is no such run | the step ends unknown |
//! | undo due | told to undo; parked if it refuses; done when it has closed again (`skipped` if its operator skipped something) |

use serde_json::{Value, json};

use super::decider::{Decider, End, Work};
use super::event::{ChildEnded, Event, Resolution, StepOutcome};
use super::failure::{Failure, error_type};
use super::input::Operation;
use super::keys::child_run_id;
use super::ledger::UndoState;
use super::message::{Answer, Body, ChildClosed, OnParentClose, Recipient, Refusal, Sender, StartChild};
use super::open::{Child, Open};
use super::status::Status;
use super::{blocked, halt as halting, outbox, pivot, tree};
use crate::definition::plan::{ChildWorkflow, NodeId, ParentClose};
use crate::ids::{MessageNo, RunId, StepPath, WorkflowId};

/// Of a token of a subject.
const MAX_ENCODED_ID_BYTES: usize = 200;

pub(super) fn enter(d: &mut Decider<'_>, node: NodeId, path: StepPath, child: &ChildWorkflow) {
    if let Some(error) = blocked::one_too_many(d.state) {
        return tree::fail(d, node, path, error);
    }
    let scope = d.scope(&path);
    let workflow_id = match &child.id {
        None => Ok(WorkflowId::new(&format!("{}/{path}", d.state.workflow_id()))),
        Some(id) => scope.evaluate(Some(id)).and_then(|value| workflow_id(&value)),
    };
    let workflow_id = workflow_id.and_then(addressable);
    match workflow_id.and_then(|id| Ok((id, scope.evaluate(child.input.as_ref())?))) {
        Ok((workflow_id, input)) => {
            let run_id = child_run_id(d.state.run_id(), d.state.next_message(), d.at);
            let to = Recipient {
                workflow_id,
                run: Some(run_id),
            };
            let body = StartChild {
                run_id,
                workflow: child.workflow.clone(),
                version: child.version,
                input,
                step: path,
                parent_close: match child.parent_close {
                    ParentClose::RequestCancel => OnParentClose::RequestCancel,
                    ParentClose::Terminate => OnParentClose::Terminate,
                    ParentClose::Abandon => OnParentClose::Abandon,
                },
                detached: child.detached,
                scheduled: None,
                priority: d.state.birth.priority,
                triggered: None,
            };
            outbox::send(d, to, Body::StartChild(body));
        }
        Err(error) => tree::fail(d, node, path, error),
    }
}

fn workflow_id(value: &Value) -> Result<WorkflowId, Failure> {
    match value {
        Value::String(id) if !id.is_empty() => Ok(WorkflowId::new(id)),
        Value::Number(number) => Ok(WorkflowId::new(&number.to_string())),
        _ => {
            let message = "the child's `id` is neither a text nor a number";
            Err(Failure::new(error_type::EXPRESSION, message))
        }
    }
}

/// A child is spoken to by a subject that names it. One that no subject can name would never be started, and be waited for
/// without end.
fn addressable(id: WorkflowId) -> Result<WorkflowId, Failure> {
    let refused = |why: String| Err(Failure::new(error_type::CHILD_NOT_STARTED, &why));
    if id.as_str().bytes().any(|byte| byte.is_ascii_control()) {
        return refused("the child's workflow id contains a control character".to_owned());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let encoded = id.as_str().bytes().map(|byte| if plain(byte) { 1 } else { 3 });
    let bytes: usize = encoded.sum();
    if bytes > MAX_ENCODED_ID_BYTES {
        return refused(format!(
            "the child's workflow id is {bytes} bytes long once encoded, and the limit is {MAX_ENCODED_ID_BYTES}; give it a \
             shorter one with `id`"
        ));
    }
    Ok(id)
}

fn open<'d>(d: &'d Decider<'_>, step: &StepPath) -> Option<&'d Child> {
    match d.state.open.get(step) {
        Some(Open::Child(child)) => Some(child),
        _ => None,
    }
}

/// What the answer to a message of this run means for the step that sent it.
pub(super) fn answered(d: &mut Decider<'_>, number: MessageNo, to: &Recipient, body: &Body, answer: &Answer) {
    match (body, answer) {
        (Body::StartChild(start), Answer::Accepted) => accepted(d, start, to),
        (Body::StartChild(start), Answer::Refused { reason, message }) => {
            let error = format!("the child was not started ({}): {message}", reason.as_str());
            let error = Failure::new(error_type::CHILD_NOT_STARTED, &error);
            end(d, &start.step, StepOutcome::Failed, error);
        }
        (
            Body::Cancel { .. } | Body::Terminate { .. },
            Answer::Refused {
                reason: Refusal::NoRun, ..
            },
        ) => lost(d, to),
        (Body::Undo { .. }, Answer::Refused { reason, message }) => {
            let mut ledger = d.state.ledger.iter();
            // The child may have closed before its answer was heard.
            let refused = ledger.find(|entry| {
                let asked = entry.child.as_ref().is_some_and(|child| child.undo == Some(number));
                asked && entry.state == UndoState::Running
            });
            if let Some(step) = refused.map(|entry| entry.step.clone()) {
                let error = format!("the child was not undone ({}): {message}", reason.as_str());
                let error = Failure::new(error_type::CHILD_NOT_UNDONE, &error).at(&step);
                d.emit(Event::UndoParked { step, error });
            }
        }
        _ => {}
    }
}

fn accepted(d: &mut Decider<'_>, start: &StartChild, to: &Recipient) {
    let Some(child) = open(d, &start.step).filter(|child| child.run == start.run_id).cloned() else {
        return;
    };
    if child.detached && !d.state.is_closed() {
        let output = json!({"run_id": child.run.to_string(), "workflow_id": to.workflow_id.as_str()});
        if let Some(node) = tree::find(d.plan, start.step.as_str()) {
            d.completed(node, start.step.clone(), output.into());
        }
    } else if !child.detached && (child.stopping || d.state.is_closed()) {
        tell_to_stop(d, &child);
    }
}

/// A child that was told to stop does not exist any more: nobody will say how it ended.
fn lost(d: &mut Decider<'_>, to: &Recipient) {
    let mut children = d.state.open.iter();
    let step = children.find_map(|(step, open)| match open {
        Open::Child(child) if Some(child.run) == to.run => Some(step.clone()),
        _ => None,
    });
    if let Some(step) = step {
        let error = Failure::new(error_type::LOST, "the child does not exist any more");
        end(d, &step, StepOutcome::Unknown, error);
    }
}

fn end(d: &mut Decider<'_>, step: &StepPath, outcome: StepOutcome, error: Failure) {
    let Some(node) = open(d, step).and_then(|_| tree::find(d.plan, step.as_str())) else {
        return;
    };
    if d.state.is_closed() {
        return;
    }
    tree::step_failed(d, node, step.clone(), outcome, error.at(step));
}

/// A child of this run has closed. What is not expected changes nothing.
pub(super) fn closed(d: &mut Decider<'_>, from: Sender, closed: ChildClosed) {
    let is_open = !d.state.is_closed();
    if is_open && open(d, &closed.step).is_some_and(|child| child.run == closed.child) {
        return ended(d, from.run, closed);
    }
    let entry = d.state.entry(&closed.step).filter(|entry| {
        let is_child = entry.child.as_ref().is_some_and(|child| child.run == from.run);
        is_child && entry.state == UndoState::Running
    });
    if is_open && entry.is_some() {
        return undone(d, closed);
    }
    let mut refused = d.state.mail.refused.values();
    // One that was undone like any other has been told.
    let is_settled = d
        .state
        .entry(&closed.step)
        .is_some_and(|entry| entry.state != UndoState::Dormant);
    if !is_settled && refused.any(|refused| refused.to.run == Some(closed.child)) {
        unwanted(d, from, &closed);
    }
}

/// Its start had been refused, and a repeat has started it. The step has failed long since, and so may the run have.
fn unwanted(d: &mut Decider<'_>, from: Sender, closed: &ChildClosed) {
    if closed.status == Status::Completed {
        let to = Recipient {
            workflow_id: from.workflow_id,
            run: Some(from.run),
        };
        let error = Failure::not_needed().at(&closed.step);
        outbox::send(d, to, Body::Undo { error });
    }
}

fn ended(d: &mut Decider<'_>, run: RunId, closed: ChildClosed) {
    let step = closed.step;
    let Some(node) = tree::find(d.plan, step.as_str()) else {
        return d.park_for_lack_of("workflow", &step);
    };
    // One for which there was no room was not to begin then: that is no failure.
    let completed = matches!(closed.status, Status::Completed | Status::Skipped);
    let error = (!completed).then(|| {
        let unsaid = || Failure::new(error_type::CHILD_FAILED, "the child did not complete");
        closed.error.unwrap_or_else(unsaid).at(&step)
    });
    d.emit(Event::ChildEnded(Box::new(ChildEnded {
        step: step.clone(),
        run,
        status: closed.status,
        output: closed.output,
        error: error.clone(),
    })));
    let Some(error) = error else {
        return d.passed(node, step);
    };
    if pivot::must_not_fail(d, node, &step, &error) {
        let outcome = StepOutcome::Failed;
        return d.emit(Event::StepParked { step, outcome, error });
    }
    d.push(Work::Ended {
        node,
        path: step,
        end: End::Failed(error),
    });
}

fn undone(d: &mut Decider<'_>, closed: ChildClosed) {
    let how = match closed.status {
        Status::CompensationFailed => Resolution::Skipped,
        Status::Terminated => {
            let error = Failure::new(error_type::CHILD_NOT_UNDONE, "the child was terminated").at(&closed.step);
            return d.emit(Event::UndoParked {
                step: closed.step,
                error,
            });
        }
        Status::Failed | Status::Compensated | Status::Cancelled | Status::TimedOut | Status::Skipped => {
            Resolution::Done
        }
        _ => return,
    };
    d.emit(Event::UndoResolved {
        step: closed.step,
        how,
        operation: Operation::default(),
    });
}

/// The step is in a region that was halted.
pub(super) fn halt(d: &mut Decider<'_>, step: StepPath) {
    let Some(child) = open(d, &step).cloned() else {
        return;
    };
    if child.detached || child.parent_close == OnParentClose::Abandon {
        return halting::cancelled(d, step);
    }
    if !child.stopping {
        d.emit(Event::ChildStopped { step });
        if child.started {
            tell_to_stop(d, &child);
        }
    }
}

/// The run is closed over its children.
pub(super) fn parent_closed(d: &mut Decider<'_>) {
    let open: Vec<_> = d.state.open.values().cloned().collect();
    for open in open {
        match open {
            // One whose start is not answered is told when it is.
            Open::Child(child) if !child.detached && child.started => tell_to_stop(d, &child),
            _ => {}
        }
    }
}

fn tell_to_stop(d: &mut Decider<'_>, child: &Child) {
    let operation = Operation {
        reason: Some("the parent run stops".into()),
        ..Operation::default()
    };
    let body = match child.parent_close {
        OnParentClose::RequestCancel => Body::Cancel { operation },
        OnParentClose::Terminate => Body::Terminate { operation },
        OnParentClose::Abandon => return,
    };
    outbox::send(d, child.to.clone(), body);
}

/// Tells a completed child to run its ledger backwards.
pub(super) fn undo(d: &mut Decider<'_>, step: StepPath, error: Failure) {
    let Some(child) = d.state.entry(&step).and_then(|entry| entry.child.clone()) else {
        return;
    };
    d.emit(Event::ChildUndoSent {
        step,
        message: d.state.next_message(),
    });
    let to = Recipient {
        workflow_id: child.workflow_id,
        run: Some(child.run),
    };
    outbox::send(d, to, Body::Undo { error });
}
