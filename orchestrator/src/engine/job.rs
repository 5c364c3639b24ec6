//! A job: one thing to do to a run, parsed, checked and addressed, before any state is looked at.

use std::collections::BTreeMap;
use std::sync::Arc;

use knarr_core::ids::{MessageNo, Namespace, RequestId, RunId, StepPath, TaskNo, WorkflowId, WorkflowName};
use knarr_core::run::UpdateStage;
use knarr_core::run::effect::Direction;
use knarr_core::run::input::{AnswerRequest, Operation, ParkedAction, TaskOutcome};
use knarr_core::run::limits::RunLimits;
use knarr_core::run::message::{self, Sender};
use knarr_core::time::{Span, Timestamp};
use knarr_core::{schedule, trigger};
use serde_json::Value;

use super::limits::{LimitRequest, LimiterKey};
use super::live::IdKey;
use super::refusal::Refusal;
use crate::bus::inlet::Held;
use crate::bus::source::SourceItem;
use crate::bus::{self, DirectMessage, LogMessage};

/// One thing to do, and where it came from.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) origin: Origin,
    pub(super) kind: JobKind,
    /// The look-up that was asked about its id or definition: once that has returned, what is not known does not exist.
    pub(super) asked_in: Option<u64>,
    /// The same for its run.
    pub(super) asked_run: Option<u64>,
    /// Its room, until it is done.
    pub(super) held: Option<Held>,
}

impl Job {
    pub(super) fn new(origin: Origin, kind: JobKind) -> Self {
        Self {
            origin,
            kind,
            asked_in: None,
            asked_run: None,
            held: None,
        }
    }

    pub(super) fn internal(kind: JobKind) -> Self {
        Self::new(Origin::Internal, kind)
    }
}

#[derive(Debug)]
pub(super) enum Origin {
    Log(Box<LogMessage>),
    /// Of the log as well; its cursor passed while its run could not be loaded.
    Deferred {
        message: Box<LogMessage>,
        no: i64,
    },
    /// A worker waits at `confirm` for word about `token`. The message is kept for the dead letters.
    Direct {
        confirm: Option<String>,
        token: String,
        message: Box<DirectMessage>,
    },
    /// The engine itself: a deadline, a refused dispatch, a lost task.
    Internal,
}

impl Origin {
    /// The message of the log, if it is one.
    pub(super) fn message(&self) -> Option<&LogMessage> {
        match self {
            Self::Log(message) | Self::Deferred { message, .. } => Some(message),
            Self::Direct { .. } | Self::Internal => None,
        }
    }
}

#[derive(Debug)]
pub(super) enum JobKind {
    Start(Box<StartRequest>),
    UnkeyedStart(Box<UnkeyedStart>),
    /// The token has been verified. `letter` says what was wrong with a body that could not be read.
    Result {
        run_id: RunId,
        task: TaskNo,
        outcome: HandedIn,
        letter: Option<Refusal>,
    },
    Beat {
        run_id: RunId,
        task: TaskNo,
        said: BeatSaid,
    },
    /// A worker asks for a task that may run at most once.
    Claim {
        run_id: RunId,
        task: TaskNo,
        by: Arc<str>,
    },
    /// A worker that promised to beat has not been heard of.
    Silent {
        run_id: RunId,
        task: TaskNo,
    },
    /// Whether a task was taken out of its queue.
    Withdrawn {
        run_id: RunId,
        task: TaskNo,
        withdrawn: bool,
    },
    Verb(Box<VerbRequest>),
    Signal(Box<SignalRequest>),
    Schedule(Box<ScheduleRequest>),
    /// A trigger is to be tended, or something has been read for it.
    Read {
        run_id: RunId,
        read: Option<Box<SourceRead>>,
    },
    /// Of another run.
    Message(Box<RunMessage>),
    /// To a limiter.
    Limit(Box<LimitRequest>),
    LimiterWake(LimiterKey),
    /// A workflow id may be free, and somebody is in line for it.
    NextInLine(IdKey),
    /// A run has closed as continued as new: its successor is to be started, if it is not there. `commit` owes it.
    Continue {
        run_id: RunId,
        commit: Option<crate::store::CommitId>,
    },
    /// The answer to a message of this run.
    Answered {
        run_id: RunId,
        number: MessageNo,
        answer: message::Answer,
    },
    Wake {
        run_id: RunId,
    },
    TaskLost {
        run_id: RunId,
        task: TaskNo,
    },
    /// The tasks of one commit that a full stream refused.
    Held {
        run_id: RunId,
        task: TaskNo,
        in_doubt: bool,
        commit: crate::store::CommitId,
    },
    /// A task that can never be published.
    Unpublishable {
        run_id: RunId,
        task: TaskNo,
        in_doubt: bool,
        reason: Arc<str>,
        commit: crate::store::CommitId,
    },
    /// The log lost something behind what came before in this queue.
    Gap {
        gap: bus::LogGap,
        /// The last permit of which it has been said again that it is out.
        said_to: Option<(LimiterKey, i64)>,
    },
    Refused(Refusal),
}

/// What a worker hands in.
#[derive(Debug)]
pub(super) enum HandedIn {
    Outcome(TaskOutcome),
    /// The outcome comes later; the message of the task is let go.
    Later,
}

/// What a beat says.
#[derive(Debug)]
pub(super) struct BeatSaid {
    /// How long the handler has been at work.
    pub(super) running: Span,
    /// When the next one comes, if the worker promises one.
    pub(super) every: Option<Span>,
    pub(super) details: Option<Arc<Value>>,
}

/// How a start treats earlier runs of its workflow id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    AllowDuplicate,
    FailedOnly,
    Reject,
}

/// How a start treats an open run of its workflow id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conflict {
    Fail,
    UseExisting,
    TerminateExisting,
    /// It waits until that one has closed.
    Queue,
}

#[derive(Debug, Clone)]
pub(super) struct StartRequest {
    pub(super) namespace: Namespace,
    pub(super) workflow_id: WorkflowId,
    pub(super) workflow: WorkflowName,
    pub(super) version: Option<u32>,
    pub(super) input: Arc<Value>,
    /// Given, or derived from the message's place in the log: a repeat of either finds the run it started.
    pub(super) request_id: RequestId,
    pub(super) reuse: Reuse,
    pub(super) conflict: Conflict,
    pub(super) search_attributes: BTreeMap<String, Value>,
    pub(super) answer: Option<AnswerRequest>,
    pub(super) traceparent: Option<Arc<str>>,
    /// From 1, the most important, to 5.
    pub(super) priority: Option<u8>,
    /// Not before.
    pub(super) begins_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(super) struct UnkeyedStart {
    pub(super) namespace: Namespace,
    pub(super) workflow: WorkflowName,
    pub(super) version: Option<u32>,
    pub(super) input: Arc<Value>,
    /// `Knarr-Workflow-Id`, which spares the rest.
    pub(super) workflow_id: Option<String>,
    /// `Nats-Msg-Id`.
    pub(super) message_id: Option<String>,
    pub(super) request_id: RequestId,
    /// Not before.
    pub(super) begins_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(super) struct VerbRequest {
    pub(super) namespace: Namespace,
    pub(super) workflow_id: WorkflowId,
    /// `None` = the open one.
    pub(super) run: Option<RunId>,
    pub(super) verb: Verb,
    pub(super) operation: Operation,
    pub(super) answer_to: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub(super) struct SignalRequest {
    pub(super) namespace: Namespace,
    pub(super) workflow_id: WorkflowId,
    pub(super) name: Arc<str>,
    pub(super) body: Arc<Value>,
    pub(super) operation: Operation,
    pub(super) answer_to: Option<Arc<str>>,
    /// What is started where no run is open.
    pub(super) start: Option<Box<StartRequest>>,
}

/// What is asked of a schedule or a trigger.
#[derive(Debug, Clone)]
pub(super) struct ScheduleRequest {
    pub(super) namespace: Namespace,
    pub(super) workflow_id: WorkflowId,
    pub(super) command: ActorCommand,
    pub(super) operation: Operation,
    pub(super) request_id: RequestId,
    pub(super) answer_to: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub(super) enum ActorCommand {
    Schedule(schedule::Command),
    Trigger(trigger::Command),
}

/// What a feed has brought for a trigger.
#[derive(Debug)]
pub(super) struct SourceRead {
    /// The opening of its source that it comes from.
    pub(super) opening: u32,
    pub(super) items: Vec<SourceItem>,
}

/// A message between runs; its token has been verified.
#[derive(Debug, Clone)]
pub(super) struct RunMessage {
    pub(super) namespace: Namespace,
    /// The recipient's.
    pub(super) workflow_id: WorkflowId,
    pub(super) from: Sender,
    pub(super) number: MessageNo,
    pub(super) to_run: Option<RunId>,
    pub(super) body: message::Body,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verb {
    Cancel,
    Terminate,
    Parked {
        step: StepPath,
        direction: Option<Direction>,
        action: ParkedAction,
    },
    RaiseLimits(RunLimits),
    /// Its id is the request's.
    Update {
        name: Arc<str>,
        body: Arc<Value>,
        on: UpdateStage,
    },
    /// To a version of the workflow, which has to be the run's.
    Migrate {
        workflow: WorkflowName,
        version: u32,
    },
}
