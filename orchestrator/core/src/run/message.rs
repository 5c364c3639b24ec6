//! Messages between runs: what they say, how one is received, and what the shell has to do for them.
//!
//! A run that starts, cancels, undoes or tells another one something *sends* a message: [`super::event::Event::MessageSent`]
//! keeps it in the sender's outbox until the receiver's answer has been taken ([`super::outbox`]). The receiver takes each
//! (sender run, number) once, and its answer is a function of its state ever after.
//!
//! | body | receiver | accepted | refused |
//! |---|---|---|---|
//! | `start_child` | does not exist yet | the run is started; its birth names the sender | by the shell, or because the start is |
//! | `child_closed` | the parent | always: the step ends, or the undo of a completed child is settled; what is not expected changes nothing | – |
//! | `cancel`, `terminate` | any run | as an operator's | closed; past its pivot |
//! | `undo` | a child that has closed | it runs its ledger backwards and closes again; one that has undone itself says so again | open; terminated; past its pivot |
//! | `signal` | any open run | buffered | closed; the buffer is full |
//! | `ask`, `release` | a limiter ([`crate::limit`]), which is no run | granted, when there is room; given back | there is none, and a run does not want to wait |
//!
//! # What the shell does
//!
//! **To send.** [`Effect::Send`] is published, after the commit, to the partition of the recipient's workflow id, with the
//! sender (run, namespace, workflow id) and the number. Nothing else is stored: the run's `wake_at` offers it again until
//! it is answered. `wake_at` of a **closed** run is not empty while it has messages pending: such a run is woken, and takes
//! [`Input::MessageAnswered`], like an open one.
//!
//! **To deliver.** The receiver is the run that the recipient names, or, where it names none, the newest run of the
//! workflow id. A receiver that is closed, but has continued as new or is tried again, and has not answered this message
//! ([`State::answer_to`] is `None`), is replaced by its successor ([`State::successor`]), and so on. Then:
//! 1. there is a receiver: `apply(Input::Message)`. A transition carries the answer among its effects
//!    ([`Effect::AnswerMessage`]). Without a transition the shell asks [`State::answer_to`] and publishes that answer; if
//!    that is `None` too (the run is parked as a whole), it answers nothing: the sender offers the message again.
//! 2. there is none: `start_child` starts it, see below; everything else is answered [`Refusal::NoRun`].
//!
//! **To start a child.** If a run with the body's run id exists, it is the receiver: [`State::answer_to`] has the answer.
//! Otherwise the shell refuses with [`Refusal::IdTaken`] where another run of the workflow id is open, and with
//! [`Refusal::UnknownWorkflow`] where there is no such definition or version; else it calls [`super::start`] with
//! [`child_start`]. A start that core rejects is answered [`Refusal::NotStarted`] with the rejection's text. None of these
//! refusals is stored, since each is decided anew for a repeat. A repeat that starts the child after a refusal is no harm: the
//! sender takes the first answer, when it hears the other one tells that child to cancel, and if it has completed to undo.
//!
//! **To answer.** An answer goes, as a message like any other, to the partition of the sender's workflow id and is applied
//! to the sender's *run* as [`Input::MessageAnswered`]. A repeat changes nothing. A sender that does not exist any more
//! needs no answer.
//!
//! **Continue as new.** [`Effect::Continue`] says that the run has closed as continued as new, or without success and that
//! another attempt follows it ([`super::again`]), of which all of this holds likewise. The shell starts the successor
//! from [`State::successor`], with the definition of the closed run, in the same batch or as the very next thing it does
//! for that workflow id; that start cannot be rejected. It is a function of the closed state and its run id is fixed, so
//! it may be repeated: whoever finds the newest run of a workflow id closed as continued as new starts the successor
//! before anything else is applied for that id. Buffered signals, those who wait for the end, and the parent move along.
//!
//! **Undo of a completed child.** The child goes from `completed` back to `compensating` and closes again. It does not take its
//! workflow id back ([`State::holds_workflow_id`] is false, [`State::closed_at`] stays what it was), so another run
//! may have the id meanwhile. A completed run whose parent is still open is not to be dropped by retention.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::child;
use super::decider::Decider;
use super::event::{Event, MessageTaken};
use super::failure::Failure;
use super::input::{Operation, Rejected, Start};
use super::state::State;
use super::status::Status;
use super::{cancel, schedule, signal, workflow};
use crate::ids::{MessageNo, Namespace, RunId, StepPath, WorkflowId, WorkflowName};
use crate::limit::{Ask, LimitName};
use crate::time::Timestamp;
use crate::trigger::spec::{Conflict, Reuse};

#[cfg(doc)]
use super::{effect::Effect, input::Input};

/// The run a message comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    pub run: RunId,
    pub namespace: Namespace,
    pub workflow_id: WorkflowId,
}

/// Whom a message is for, within the sender's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    pub workflow_id: WorkflowId,
    /// `None` = the newest run of the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// What a message says. Stored, and sent as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    StartChild(StartChild),
    ChildClosed(ChildClosed),
    Cancel {
        #[serde(default, skip_serializing_if = "super::event::is_default")]
        operation: Operation,
    },
    Terminate {
        #[serde(default, skip_serializing_if = "super::event::is_default")]
        operation: Operation,
    },
    /// A child that has completed runs its own ledger backwards, because its parent failed.
    Undo {
        error: Failure,
    },
    Signal {
        name: Arc<str>,
        #[serde(default, skip_serializing_if = "super::event::is_null")]
        body: Arc<Value>,
        /// Of one to whatever run is open: when it was first sent, by which a run that has closed since is known, which may have
        /// taken it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent_at: Option<Timestamp>,
    },
    /// To a limiter, which answers when it grants.
    Ask(Box<Ask>),
    /// To a limiter: what that message asked for is not needed any more.
    Release {
        limit: LimitName,
        ask: MessageNo,
        /// The run that asked, where another gives back what it has taken over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<RunId>,
    },
}

/// The recipient is the child's workflow id; the sender is the parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartChild {
    /// Fixed by the parent.
    pub run_id: RunId,
    pub workflow: WorkflowName,
    /// `None` = the one a start without a version takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    #[serde(default, skip_serializing_if = "super::event::is_null")]
    pub input: Arc<Value>,
    /// Of the parent.
    pub step: StepPath,
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub parent_close: OnParentClose,
    /// The parent does not hear of the child's end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
    /// The parent is a schedule, and the child an occurrence of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<ScheduledBy>,
    /// Of the parent, for a child whose definition says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// The parent is a trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggered: Option<TriggeredBy>,
}

/// Which event of its trigger has started a run, and how that treats other runs of its workflow id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggeredBy {
    pub sequence: u64,
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub reuse: Reuse,
    #[serde(default, skip_serializing_if = "super::event::is_default")]
    pub conflict: Conflict,
}

/// Which occurrence of its schedule a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledBy {
    pub nominal_time: Timestamp,
    /// The number of the trigger, where it was not due by the calendar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<u32>,
}

/// What the parent does about a child that is open when the parent closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnParentClose {
    #[default]
    RequestCancel,
    Terminate,
    Abandon,
}

/// A child has closed, for the first time or again after it was undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChildClosed {
    /// The run that the parent started; the sender may be its successor.
    pub child: RunId,
    /// Of the parent.
    pub step: StepPath,
    pub status: Status,
    #[serde(default, skip_serializing_if = "super::event::is_null")]
    pub output: Arc<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// What a receiver says to a message; once, and the same for every repeat.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    #[default]
    Accepted,
    Refused {
        reason: Refusal,
        message: Arc<str>,
    },
    /// Of a limiter: the task may go out, or the run begin.
    Granted {
        limit: LimitName,
        /// When, of a place: it may outlive the run that asked, which tells by this whether it is another grant that it hears of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Timestamp>,
    },
    /// Of a limiter, to a run that is to begin in the place of another: this one may be asked to go. The ask waits on.
    Occupied {
        by: Sender,
    },
}

/// Stable names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// There is no such run (any more). Said by the shell.
    NoRun,
    /// Another run of the workflow id is open. Said by the shell.
    IdTaken,
    /// There is no such definition or version. Said by the shell.
    UnknownWorkflow,
    /// The start was rejected, for its input for example. Said by the shell.
    NotStarted,
    /// A run of that workflow id has been started before, and the occurrence of a schedule is started once. Said by the
    /// shell.
    AlreadyStarted,
    Closed,
    /// The run has completed its pivot and only goes forward.
    PastPivot,
    /// The run is open: there is nothing completed to undo yet.
    Open,
    /// A limit or a shape: the message can never be taken.
    Invalid,
    /// Said by a limiter to a run that does not want to wait.
    NoPlace,
}

impl Refusal {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRun => "no_run",
            Self::IdTaken => "id_taken",
            Self::UnknownWorkflow => "unknown_workflow",
            Self::NotStarted => "not_started",
            Self::AlreadyStarted => "already_started",
            Self::Closed => "closed",
            Self::PastPivot => "past_pivot",
            Self::Open => "open",
            Self::Invalid => "invalid",
            Self::NoPlace => "no_place",
        }
    }
}

impl Answer {
    pub fn refused(reason: Refusal, message: &str) -> Self {
        Self::Refused {
            reason,
            message: Arc::from(message),
        }
    }
}

/// The parent of a run, in its birth. A successor has the parent of the run it continues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub run: RunId,
    pub namespace: Namespace,
    pub workflow_id: WorkflowId,
    pub step: StepPath,
    /// The message that started the child.
    pub message: MessageNo,
    /// The run that the message started.
    pub child: RunId,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
    /// The parent is a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<ScheduledBy>,
}

/// The start that a `start_child` message asks for; the recipient's workflow id is the child's.
pub fn child_start(from: &Sender, number: MessageNo, workflow_id: &WorkflowId, body: &StartChild) -> Start {
    Start {
        run_id: body.run_id,
        namespace: from.namespace.clone(),
        workflow_id: workflow_id.clone(),
        input: Arc::clone(&body.input),
        request_id: body.scheduled.as_ref().map(|by| schedule::request_id(from.run, by)),
        search_attributes: std::collections::BTreeMap::new(),
        answer: None,
        traceparent: None,
        parent: Some(Box::new(Parent {
            run: from.run,
            namespace: from.namespace.clone(),
            workflow_id: from.workflow_id.clone(),
            step: body.step.clone(),
            message: number,
            child: body.run_id,
            detached: body.detached,
            scheduled: body.scheduled.clone(),
        })),
        priority: body.priority,
        queued: false,
        begins_at: None,
        continues: None,
    }
}

impl State {
    /// What this run answers to a message that it has taken, or can never take; `None` if it has not been decided.
    pub fn answer_to(&self, from: RunId, number: MessageNo) -> Option<Answer> {
        if let Some(taken) = self.mail.taken.get(&from).and_then(|of| of.get(&number)) {
            return Some(taken.answer.clone());
        }
        if self.started_by(from, number) {
            return Some(Answer::Accepted);
        }
        if self.is_actor() {
            // It was told of the end of a run, and knows, or has nothing to do with it any more.
            return self.parked.is_none().then_some(Answer::Accepted);
        }
        let closed = self.closed()?;
        closed
            .successor
            .is_none()
            .then(|| Answer::refused(Refusal::Closed, &format!("the run is closed ({})", closed.status)))
    }

    pub fn parent(&self) -> Option<&Parent> {
        self.birth.parent.as_deref()
    }

    /// The messages that it has taken, those of each sender in the order of their numbers, and whether it has accepted them.
    pub fn messages_taken(&self) -> impl Iterator<Item = (RunId, MessageNo, bool)> {
        self.mail.taken.iter().flat_map(|(from, of)| {
            of.iter()
                .map(|(number, taken)| (*from, *number, taken.answer == Answer::Accepted))
        })
    }

    /// Whether this run was started by that message.
    pub(super) fn started_by(&self, from: RunId, number: MessageNo) -> bool {
        self.birth
            .parent
            .as_ref()
            .is_some_and(|parent| parent.run == from && parent.message == number && parent.child == self.birth.run_id)
    }
}

/// Takes a message that has not been taken. Nothing is decided while the run is parked as a whole, except by those who may
/// end that: the sender offers the message again.
pub(super) fn receive(d: &mut Decider<'_>, from: Sender, number: MessageNo, body: Body) {
    let taken = d.state.mail.taken.get(&from.run);
    if taken.is_some_and(|of| of.contains_key(&number)) || d.state.started_by(from.run, number) {
        return;
    }
    let ends_parking = matches!(body, Body::Cancel { .. } | Body::Terminate { .. } | Body::Signal { .. });
    if d.state.parked.is_some() && !ends_parking {
        return;
    }
    match body {
        // Another run has this workflow id: the shell refuses by itself, and asks here only by mistake.
        Body::StartChild(_) => {}
        // A limiter takes them.
        Body::Ask(_) | Body::Release { .. } => {}
        Body::ChildClosed(closed) => {
            take(d, from.clone(), number, Answer::Accepted);
            workflow::closed(d, from, closed);
        }
        Body::Undo { error } => match child::undo_refused(d.state) {
            None => {
                take(d, from, number, Answer::Accepted);
                child::undo(d, error);
            }
            Some(answer) => take(d, from, number, answer),
        },
        Body::Cancel { operation } => taken_by(d, from, number, |d| cancel::cancel(d, operation)),
        Body::Terminate { operation } => taken_by(d, from, number, |d| cancel::terminate(d, operation)),
        Body::Signal { name, body, .. } => {
            taken_by(d, from, number, |d| {
                signal::receive(d, name, body, Operation::default())
            });
        }
    }
    d.settle();
}

/// Like the same request from outside, and the answer says what became of it.
fn taken_by(
    d: &mut Decider<'_>,
    from: Sender,
    number: MessageNo,
    request: impl FnOnce(&mut Decider<'_>) -> Result<(), Rejected>,
) {
    if d.state.is_closed() {
        return;
    }
    let answer = match request(d) {
        Ok(()) => Answer::Accepted,
        Err(rejected) => Answer::refused(refusal(&rejected), &rejected.to_string()),
    };
    take(d, from, number, answer);
}

fn refusal(rejected: &Rejected) -> Refusal {
    match rejected {
        Rejected::Closed(_) => Refusal::Closed,
        Rejected::PastPivot => Refusal::PastPivot,
        _ => Refusal::Invalid,
    }
}

fn take(d: &mut Decider<'_>, from: Sender, number: MessageNo, answer: Answer) {
    d.emit(Event::MessageTaken(Box::new(MessageTaken { from, number, answer })));
}
