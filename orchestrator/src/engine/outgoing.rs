//! From effects and refusals to messages on the wire.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use knarr_core::ids::{MessageNo, Namespace, QueueName, RequestId, RunId, TaskNo, WorkflowId, WorkflowName};
use knarr_core::limit::OnConflict;
use knarr_core::run::effect::{Dispatch, Effect};
use knarr_core::run::input::AnswerOn;
use knarr_core::run::message::{self, Recipient, Sender};
use knarr_core::run::{State, Update};
use knarr_core::time::Timestamp;
use knarr_schemas::body::{
    Answer, AnswerStage, CancelTasks, Confirmation, FailureBody, RunMessage, RunMessageAnswer, SendingRun,
};
use knarr_schemas::{code, header, subject};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::emitted;
use super::refusal::Refusal;
use super::token::{Signed, TokenKey};
use crate::bus::source::SourceMessage;
use crate::bus::{Delivery, DirectMessage, Headers, LogMessage, Outgoing};
use crate::store::RunRow;
use crate::telemetry::span::RunTrace;

/// What every message of a run says, made once a run.
#[derive(Debug)]
pub(super) struct RunRef {
    pub(super) namespace: Namespace,
    pub(super) workflow: WorkflowName,
    pub(super) run_id: RunId,
    run_id_text: String,
    pub(super) workflow_id: WorkflowId,
    /// Percent-encoded: a header cannot hold every text.
    pub(super) workflow_id_token: String,
    pub(super) version: u32,
    reply: String,
    direct: String,
    traceparent: Option<Arc<str>>,
    pub(super) trace: RunTrace,
}

impl RunRef {
    /// `None` for names that cannot be subjects, which no run that was started has.
    pub(super) fn new(state: &State, partition: i16) -> Option<Self> {
        let namespace = state.namespace();
        let number = u16::try_from(partition).ok()?;
        Some(Self {
            reply: subject::run_verb(namespace.as_str(), state.workflow_id().as_str(), "result").ok()?,
            direct: subject::direct(namespace.as_str(), number).ok()?,
            namespace: namespace.clone(),
            workflow: state.workflow().clone(),
            workflow_id: state.workflow_id().clone(),
            version: state.version(),
            run_id: state.run_id(),
            run_id_text: state.run_id().to_string(),
            workflow_id_token: subject::encode_token(state.workflow_id().as_str()).ok()?.into_owned(),
            traceparent: state.traceparent().cloned(),
            trace: RunTrace::new(state.run_id(), state.traceparent().map(|text| &**text)),
        })
    }
}

impl RunRef {
    /// Of events.
    pub(super) fn source(&self) -> String {
        let Self {
            namespace,
            workflow,
            workflow_id_token,
            ..
        } = self;
        format!("/knarr/{namespace}/{workflow}/{workflow_id_token}")
    }
}

/// Something to publish for a run.
#[derive(Debug)]
pub(super) enum Publication {
    /// A task, made into a message when it is published.
    Task {
        run: Arc<RunRef>,
        dispatch: Box<Dispatch>,
    },
    Message(Outgoing),
    /// Of the run's events.
    OfRun(RunId, Outgoing),
    /// Not a message: a task is to be taken out of its queue.
    Withdraw(Withdrawal),
    /// Not a message: the successor of a run that has closed is owed.
    Continue(RunId),
}

impl Publication {
    /// Of its message, if that is composed already.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Message(message) | Self::OfRun(_, message) => message.payload.len(),
            Self::Task { .. } | Self::Withdraw(_) | Self::Continue(_) => 0,
        }
    }
}

/// A task that nobody took in time, or that is not needed any more.
#[derive(Debug, Clone)]
pub(super) struct Withdrawal {
    pub(super) run: Arc<RunRef>,
    pub(super) task: TaskNo,
    pub(super) queue: QueueName,
    /// When it was offered.
    pub(super) since: Timestamp,
    /// The run is told what becomes of it: it is open.
    pub(super) is_told: bool,
}

/// Turns a run's effects into publications; answers are composed from the state as it is now.
pub(super) fn publications(
    state: &State,
    run: &Arc<RunRef>,
    effects: Vec<Effect>,
    tokens: &TokenKey,
    into: &mut Vec<Publication>,
) {
    // Many may wait for the same: what they are told is made once.
    let mut bodies: Vec<(AnswerOn, Bytes)> = Vec::new();
    for effect in effects {
        match effect {
            Effect::Dispatch(dispatch) => {
                into.push(Publication::Task {
                    run: Arc::clone(run),
                    dispatch: Box::new(dispatch),
                });
            }
            Effect::Withdraw { queue, task, since } => {
                into.push(Publication::Withdraw(Withdrawal {
                    run: Arc::clone(run),
                    task,
                    queue,
                    since,
                    is_told: !state.is_closed(),
                }));
            }
            Effect::CancelTask { queue, task } => {
                let token = tokens.issue(run.run_id, task, run.namespace.as_str());
                let notice = CancelTasks { tokens: vec![token] };
                if let (Ok(subject), Ok(body)) = (
                    subject::cancel(run.namespace.as_str(), queue.as_str()),
                    serde_json::to_vec(&notice),
                ) {
                    into.push(Publication::Message(core(subject, body)));
                }
            }
            Effect::Answer { to, on } => {
                let body = match bodies.iter().find(|(known, _)| *known == on) {
                    Some((_, body)) => body.clone(),
                    None => {
                        let body = Bytes::from(answer_body(&answer_of(state, on)));
                        bodies.push((on, body.clone()));
                        body
                    }
                };
                into.push(Publication::Message(core(to.to_string(), body)));
            }
            Effect::AnswerUpdate { to, id } => {
                into.push(Publication::Message(answer(&to, &answer_of_update(state, &id))))
            }
            Effect::Send { number, to, body } => {
                let message = run_message(state, tokens, number, &to, &body);
                into.extend(message.map(|message| Publication::OfRun(run.run_id, message)));
            }
            Effect::AnswerMessage { to, number, answer } => {
                let message = message_answer(tokens, &to, number, &answer);
                into.extend(message.map(|message| Publication::OfRun(run.run_id, message)));
            }
            Effect::Emit {
                seq,
                index,
                step,
                subject,
                body,
            } => {
                let id = format!("{}/{seq}/{index}", run.run_id_text);
                let event = emitted::message(run, id, step.as_str(), &subject, &body);
                into.extend(event.map(|message| Publication::OfRun(run.run_id, message)));
            }
            Effect::Continue => into.push(Publication::Continue(run.run_id)),
        }
    }
}

/// A message to another run, to the partition of its workflow id.
fn run_message(
    state: &State,
    tokens: &TokenKey,
    number: MessageNo,
    to: &Recipient,
    said: &message::Body,
) -> Option<Outgoing> {
    let from = Sender {
        run: state.run_id(),
        namespace: state.namespace().clone(),
        workflow_id: state.workflow_id().clone(),
    };
    message_of(tokens, &from, number, (&to.workflow_id, to.run), said)
}

/// A message between runs, whoever composes it.
pub(super) fn message_of(
    tokens: &TokenKey,
    from: &Sender,
    number: MessageNo,
    (to, to_run): (&WorkflowId, Option<RunId>),
    said: &message::Body,
) -> Option<Outgoing> {
    let body = RunMessage {
        from: SendingRun {
            run: from.run.0,
            namespace: from.namespace.to_string(),
            workflow_id: from.workflow_id.to_string(),
        },
        number: number.0,
        to_run: to_run.map(|run| run.0),
        message: serde_json::to_value(said).ok()?,
    };
    signed(tokens, "message", &from.namespace, to, &body)
}

/// The answer to a message of another run.
pub(super) fn message_answer(
    tokens: &TokenKey,
    to: &Sender,
    number: MessageNo,
    answer: &message::Answer,
) -> Option<Outgoing> {
    let body = RunMessageAnswer {
        to_run: to.run.0,
        number: number.0,
        answer: serde_json::to_value(answer).ok()?,
    };
    signed(tokens, "answer", &to.namespace, &to.workflow_id, &body)
}

/// `None` for a workflow id that cannot be a subject: no run has it.
fn signed(
    tokens: &TokenKey,
    verb: &str,
    namespace: &Namespace,
    workflow_id: &WorkflowId,
    body: &impl Serialize,
) -> Option<Outgoing> {
    let subject = subject::run_verb(namespace.as_str(), workflow_id.as_str(), verb).ok()?;
    let body = serde_json::to_vec(body).ok()?;
    let token = tokens.sign(&Signed {
        verb,
        namespace: namespace.as_str(),
        workflow_id: workflow_id.as_str(),
        body: &body,
    });
    Some(Outgoing {
        subject,
        headers: vec![(header::MESSAGE_TOKEN.into(), token)],
        payload: Bytes::from(body),
        delivery: Delivery::Stream,
    })
}

/// The message of a task. Registration has seen to it that its names are tokens and its input is JSON.
/// `traced`: its attempt has a span, which stands between the start's and the worker's.
pub(super) fn task(run: &RunRef, dispatch: &Dispatch, tokens: &TokenKey, traced: bool) -> Outgoing {
    let namespace = run.namespace.as_str();
    let mut headers: Headers = Vec::with_capacity(20);
    let mut put = |name: &'static str, value: String| headers.push((name.into(), value));
    // The offer is part of the id: a deliberate repeat must not be swallowed by the stream's window.
    put(
        header::NATS_MSG_ID,
        format!("{}/{}/{}", run.run_id_text, dispatch.task.0, dispatch.offer),
    );
    put(header::NAMESPACE, namespace.to_owned());
    put(header::WORKFLOW, run.workflow.as_str().to_owned());
    put(header::WORKFLOW_ID, run.workflow_id_token.clone());
    put(header::RUN_ID, run.run_id_text.clone());
    put(header::STEP, dispatch.step.as_str().to_owned());
    put(header::ACTIVITY, dispatch.activity.as_str().to_owned());
    put(header::TASK, dispatch.task.0.to_string());
    put(header::TOKEN, tokens.issue(run.run_id, dispatch.task, namespace));
    put(header::ATTEMPT, dispatch.attempt.to_string());
    if let Some(max) = dispatch.max_attempts {
        put(header::MAX_ATTEMPTS, max.to_string());
    }
    put(header::DIRECTION, dispatch.direction.as_str().to_owned());
    put(header::IDEMPOTENCY_KEY, dispatch.idempotency_key.to_string());
    put(header::START_TO_CLOSE, dispatch.start_to_close.as_millis().to_string());
    if let Some(deadline) = dispatch.deadline {
        put(
            header::DEADLINE,
            deadline.to_utc().to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        );
    }
    if let Some(silence) = dispatch.heartbeat {
        put(header::HEARTBEAT, silence.as_millis().to_string());
    }
    if let Some(details) = &dispatch.last_details {
        put(header::LAST_DETAILS, ascii(details));
    }
    if dispatch.waits_cancelled {
        put(header::CANCELLATION, "wait_cancelled".to_owned());
    }
    put(header::REPLY, run.reply.clone());
    put(header::DIRECT, run.direct.clone());
    let attempt = traced.then(|| run.trace.traceparent(dispatch.task)).flatten();
    if let Some(traceparent) = attempt.or_else(|| run.traceparent.as_ref().map(|text| text.to_string())) {
        put(header::TRACEPARENT, traceparent);
    }
    Outgoing {
        subject: subject::task(namespace, dispatch.queue.as_str(), dispatch.activity.as_str()).unwrap_or_default(),
        headers,
        payload: Bytes::from(serde_json::to_vec(&*dispatch.input).unwrap_or_default()),
        delivery: Delivery::Stream,
    }
}

/// JSON that fits into a header.
fn ascii(value: &serde_json::Value) -> String {
    let text = value.to_string();
    if text.is_ascii() {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() * 2);
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("\\u{unit:04x}")),
        }
    }
    escaped
}

/// What somebody who waits for a run is told.
pub(super) fn answer_of(state: &State, on: AnswerOn) -> Answer {
    let closed = state.is_closed();
    let without_room = state.refused_for_room();
    Answer {
        workflow_id: state.workflow_id().to_string(),
        run_id: Some(state.run_id().0),
        stage: if without_room == Some(OnConflict::Reject) {
            AnswerStage::Refused
        } else if closed && (on == AnswerOn::Closed || without_room.is_some()) {
            AnswerStage::Closed
        } else {
            AnswerStage::Started
        },
        status: Some(state.status().as_str().to_owned()),
        output: if closed {
            state.output().map(|output| (**output).clone())
        } else {
            None
        },
        failure: if closed {
            state.failure().map(failure_body)
        } else {
            None
        },
        error: without_room
            .filter(|conflict| *conflict == OnConflict::Reject)
            .and_then(|_| state.failure())
            .map(|failure| Refusal::new(&code::NO_PLACE, &*failure.message).body()),
    }
}

/// What somebody who waits for an update is told.
pub(super) fn answer_of_update(state: &State, id: &RequestId) -> Answer {
    let mut answer = Answer {
        workflow_id: state.workflow_id().to_string(),
        run_id: Some(state.run_id().0),
        stage: AnswerStage::Accepted,
        status: Some(state.status().as_str().to_owned()),
        output: None,
        failure: None,
        error: None,
    };
    match state.update(id) {
        Some(Update::Completed(output)) => {
            answer.stage = AnswerStage::Completed;
            answer.output = Some((**output).clone());
        }
        Some(Update::Failed(failure)) => {
            answer.stage = AnswerStage::Completed;
            answer.failure = Some(failure_body(failure));
        }
        Some(Update::Refused(failure)) => {
            answer.stage = AnswerStage::Refused;
            answer.error = Some(Refusal::new(&code::UPDATE_REFUSED, &*failure.message).body());
        }
        Some(Update::Accepted) | None => {}
    }
    answer
}

pub(super) fn failure_body(failure: &knarr_core::run::Failure) -> FailureBody {
    FailureBody {
        step: failure.step.as_ref().map(|step| step.to_string()),
        error_type: failure.error_type.to_string(),
        message: failure.message.to_string(),
    }
}

/// What the row of a closed run says of its end: the output, or the failure, as JSON.
pub(super) fn outcome(state: &State) -> Option<String> {
    match (state.output(), state.failure()) {
        (Some(output), _) => serde_json::to_string(&**output).ok(),
        (None, Some(failure)) => serde_json::to_string(&failure_body(failure)).ok(),
        (None, None) => None,
    }
}

/// The same from a row, for a run that is not in memory.
pub(super) fn answer_of_row(row: &RunRow, stage: AnswerStage) -> Answer {
    let outcome = row.outcome.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let completed = row.status == "completed";
    Answer {
        workflow_id: row.workflow_id.to_string(),
        run_id: Some(row.run_id.0),
        stage,
        status: Some(row.status.clone()),
        output: if completed { outcome.clone() } else { None },
        failure: if completed {
            None
        } else {
            outcome.and_then(|value| serde_json::from_value(value).ok())
        },
        error: None,
    }
}

pub(super) fn refused(workflow_id: &str, refusal: &Refusal) -> Answer {
    Answer {
        workflow_id: workflow_id.to_owned(),
        run_id: None,
        stage: AnswerStage::Refused,
        status: None,
        output: None,
        failure: None,
        error: Some(refusal.body()),
    }
}

pub(super) fn answer(to: &str, answer: &Answer) -> Outgoing {
    core(to.to_owned(), answer_body(answer))
}

/// Serialising an answer cannot fail: its maps have text keys and its numbers came from JSON.
fn answer_body(answer: &Answer) -> Vec<u8> {
    serde_json::to_vec(answer).unwrap_or_default()
}

/// Word to a worker that its results are taken elsewhere.
pub(super) fn moved(inbox: String, moved: Vec<String>) -> Outgoing {
    let confirmation = Confirmation {
        results: Vec::new(),
        moved,
    };
    core(inbox, serde_json::to_vec(&confirmation).unwrap_or_default())
}

pub(super) fn core(subject: String, body: impl Into<Bytes>) -> Outgoing {
    Outgoing {
        subject,
        headers: Vec::new(),
        payload: body.into(),
        delivery: Delivery::Core,
    }
}

/// The copy of a log message that could not be taken.
pub(super) fn dead_letter(message: &LogMessage, refusal: &Refusal) -> Outgoing {
    let namespace = match subject::parse_log_subject(&message.subject) {
        Ok(subject::LogSubject::Run(run)) => Some(run.namespace.into_owned()),
        Ok(subject::LogSubject::UnkeyedStart { namespace, .. }) => Some(namespace.into_owned()),
        // What is wrong may be another part.
        Err(_) => subject::namespace_of(&message.subject).map(std::borrow::Cow::into_owned),
    };
    let sequence = message.cursor.sequence;
    let own = vec![
        (
            header::NATS_MSG_ID.into(),
            format!("{}#{sequence}", message.cursor.stream),
        ),
        // Where it was sent to, and may be sent to again.
        (
            header::ORIGINAL_SUBJECT.into(),
            subject::published(&message.subject).into_owned(),
        ),
        (header::ORIGINAL_SEQUENCE.into(), sequence.to_string()),
    ];
    let original = (&message.headers, &message.payload);
    letter(namespace.as_deref(), own, original, refusal)
}

/// The copy of a result of the direct inlet; no log has it.
pub(super) fn dead_letter_of_direct(message: &DirectMessage, token: &str, refusal: &Refusal) -> Outgoing {
    let partition = u16::try_from(message.partition).unwrap_or(u16::MAX);
    let direct = subject::direct(&message.namespace, partition).unwrap_or_default();
    let own = vec![
        (header::NATS_MSG_ID.into(), format!("direct/{token}")),
        (header::ORIGINAL_SUBJECT.into(), format!("{direct}.result")),
    ];
    let original = (&message.headers, &message.payload);
    letter(Some(&message.namespace), own, original, refusal)
}

/// The event of a trigger that nothing came of.
pub(super) struct OfTrigger<'a> {
    pub(super) namespace: &'a str,
    pub(super) run: RunId,
    /// The transition that says so.
    pub(super) transition: u32,
    /// Its workflow's, and its own.
    pub(super) names: (&'a str, &'a str),
    pub(super) stream: Option<&'a str>,
    pub(super) subject: &'a str,
    pub(super) sequence: u64,
    /// Of what would have been started or signalled.
    pub(super) workflow_id: Option<&'a WorkflowId>,
}

/// The copy of an event, where it is at hand, or of what would have been started or signalled with.
pub(super) fn dead_letter_of_event(
    of: &OfTrigger<'_>,
    input: Option<&Value>,
    original: Option<&SourceMessage>,
    refusal: &Refusal,
) -> Outgoing {
    let (workflow, name) = of.names;
    let subject = original.map_or(of.subject, |message| &message.subject);
    let mut own: Headers = vec![
        (
            header::NATS_MSG_ID.into(),
            format!("{}/{}/{}", of.run, of.transition, of.sequence),
        ),
        (header::TRIGGER.into(), format!("{workflow}/{name}")),
        (header::ORIGINAL_SUBJECT.into(), one_line(subject)),
        (header::ORIGINAL_SEQUENCE.into(), of.sequence.to_string()),
    ];
    if let Some(stream) = of.stream {
        own.push((header::ORIGINAL_STREAM.into(), stream.to_owned()));
    }
    if let Some(token) = of.workflow_id.and_then(|id| subject::encode_token(id.as_str()).ok()) {
        own.push((header::WORKFLOW_ID.into(), token.into_owned()));
    }
    let none = Headers::new();
    let body = input.map(|input| Bytes::from(serde_json::to_vec(input).unwrap_or_default()));
    let original = match (&body, original) {
        (Some(body), _) => (&none, body),
        (None, Some(message)) => (&message.headers, &message.payload),
        (None, None) => (&none, &Bytes::new()),
    };
    letter(Some(of.namespace), own, original, refusal)
}

fn letter(namespace: Option<&str>, own: Headers, original: (&Headers, &Bytes), refusal: &Refusal) -> Outgoing {
    let (original, payload) = original;
    let mut headers = own;
    headers.extend([
        (header::ERROR_CODE.into(), refusal.code.id.to_owned()),
        (header::ERROR_MESSAGE.into(), one_line(&refusal.message)),
        (header::ERROR_REMEDY.into(), one_line(refusal.code.remedy)),
    ]);
    // The server's own headers would be acted upon again.
    let own: Vec<_> = headers.iter().map(|(name, _)| Arc::clone(name)).collect();
    let kept = |(name, _): &&(Arc<str>, String)| !name.starts_with("Nats-") && !own.contains(name);
    headers.extend(original.iter().filter(kept).cloned());
    Outgoing {
        subject: subject::dead_letter(namespace, refusal.code.title),
        headers,
        payload: payload.clone(),
        delivery: Delivery::Stream,
    }
}

fn one_line(text: &str) -> String {
    let short = &text[..text.floor_char_boundary(1_024)];
    short.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[derive(Serialize, Deserialize)]
struct StoredMessage {
    subject: String,
    headers: Vec<(String, String)>,
    /// Base64: a body need not be text.
    body: String,
}

/// Messages that no run's events contain, as a commit stores them until they are published.
pub(super) fn encode(messages: &[Outgoing]) -> Option<String> {
    if messages.is_empty() {
        return None;
    }
    let stored: Vec<_> = messages
        .iter()
        .map(|message| StoredMessage {
            subject: message.subject.clone(),
            headers: message
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect(),
            body: STANDARD.encode(&message.payload),
        })
        .collect();
    serde_json::to_string(&stored).ok()
}

/// The inverse of [`encode`]; what cannot be read is dropped with an error logged by the caller.
pub(super) fn decode(text: &str) -> Result<Vec<Outgoing>, String> {
    let stored: Vec<StoredMessage> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    stored
        .into_iter()
        .map(|message| {
            Ok(Outgoing {
                subject: message.subject,
                headers: message
                    .headers
                    .into_iter()
                    .map(|(name, value)| (name.into(), value))
                    .collect(),
                payload: Bytes::from(STANDARD.decode(message.body).map_err(|error| error.to_string())?),
                delivery: Delivery::Stream,
            })
        })
        .collect()
}
