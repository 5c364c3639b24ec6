//! From a message to a job.
//!
//! **Invariant:** every message becomes a job; one that makes no sense becomes a refusal, so that its partition moves on.

use std::collections::BTreeMap;
use std::sync::Arc;

use knarr_core::definition::duration;
use knarr_core::ids::{Namespace, RequestId, WorkflowId, WorkflowName};
use knarr_core::json::{self, BadJsonKind};
use knarr_core::run::input::{AnswerOn, AnswerRequest, Operation};
use knarr_core::run::limits::{Limit, RunLimits};
use knarr_core::run::schedule::PREFIX;
use knarr_core::run::trigger;
use knarr_core::time::{Span, Timestamp};
use knarr_schemas::body::RaiseLimits;
use knarr_schemas::code::{self, Code};
use knarr_schemas::header;
use knarr_schemas::subject::{LogSubject, RunSubject, SubjectError, parse_log_subject};
use serde_json::Value;

use super::config::EngineConfig;
use super::job::{Conflict, Job, JobKind, Origin, Reuse, StartRequest, UnkeyedStart, Verb};
use super::log_clock::LogClock;
use super::refusal::Refusal;
use super::token::TokenKey;
use crate::bus::{self, DirectKind, DirectMessage, Headers, LogMessage};
use crate::store::DeferredInput;

/// A longer one is nobody's: the standard has 55 bytes. Every task of the run carries it.
pub(super) const MAX_TRACEPARENT: usize = 256;
const MAX_START_DELAY: Span = Span::from_secs(3_650 * 24 * 3_600);

/// Reads messages by one cluster's rules.
#[derive(Debug)]
pub(super) struct JobReader {
    pub(super) tokens: Arc<TokenKey>,
    pub(super) limits: json::Limits,
    pub(super) answer_prefixes: Vec<String>,
    pub(super) clock: LogClock,
}

impl JobReader {
    pub(super) fn new(tokens: Arc<TokenKey>, config: &EngineConfig, max_body: usize) -> Self {
        Self {
            tokens,
            limits: json::Limits {
                // What is taken has to fit into the messages that carry it on.
                bytes: config.max_body_bytes.min(max_body),
                ..json::Limits::default()
            },
            answer_prefixes: config.answer_prefixes.clone(),
            clock: LogClock::default(),
        }
    }

    pub(super) fn log(&self, message: LogMessage) -> Job {
        let kind = self.log_kind(&message).unwrap_or_else(JobKind::Refused);
        Job::new(Origin::Log(Box::new(message)), kind)
    }

    /// One that was read from the log before, and waited for its run.
    pub(super) fn deferred(&self, input: DeferredInput) -> Job {
        let (message, no) = message_of(input);
        let kind = self.log_kind(&message).unwrap_or_else(JobKind::Refused);
        let message = Box::new(message);
        Job::new(Origin::Deferred { message, no }, kind)
    }

    fn log_kind(&self, message: &LogMessage) -> Result<JobKind, Refusal> {
        let headers = &message.headers;
        if let Some(flaw) = &message.flaw {
            return Err(Refusal::new(&code::UNREADABLE_HEADERS, flaw.clone()));
        }
        match parse_log_subject(&message.subject).map_err(|error| bad_subject(&error, &message.subject))? {
            LogSubject::UnkeyedStart { namespace, workflow } => {
                refuse_task_headers(headers)?;
                refuse_control_characters(headers)?;
                Ok(JobKind::UnkeyedStart(Box::new(UnkeyedStart {
                    namespace: Namespace::new(&namespace),
                    workflow: WorkflowName::new(&workflow),
                    version: version(headers)?,
                    input: self.body(headers, &message.payload)?,
                    workflow_id: bus::header(headers, header::WORKFLOW_ID).map(str::to_owned),
                    message_id: bus::header(headers, header::NATS_MSG_ID).map(str::to_owned),
                    request_id: request_id(message)?,
                    begins_at: self.begins_at(message)?,
                })))
            }
            LogSubject::Run(subject) if subject.workflow_id.starts_with(PREFIX) => match subject.verb {
                "schedule" => self.schedule(&subject, message),
                "message" => self.run_message(&subject, message),
                "answer" => self.run_message_answer(&subject, message),
                _ => Err(reserved("the workflow id", &subject.workflow_id)),
            },
            LogSubject::Run(subject) if subject.workflow_id.starts_with(trigger::PREFIX) => match subject.verb {
                "trigger" => self.trigger(&subject, message),
                "message" => self.run_message(&subject, message),
                "answer" => self.run_message_answer(&subject, message),
                _ => Err(reserved("the workflow id", &subject.workflow_id)),
            },
            LogSubject::Run(subject) => match subject.verb {
                "start" => self
                    .start(&subject, message)
                    .map(|start| JobKind::Start(Box::new(start))),
                "result" => {
                    if subject.name.is_some() {
                        return Err(Refusal::new(
                            &code::BAD_SUBJECT,
                            "a result's subject ends with `.result`",
                        ));
                    }
                    self.result(headers, &message.payload, &subject.namespace)
                }
                "cancel" => self.verb(&subject, message, Verb::Cancel),
                "terminate" => self.verb(&subject, message, Verb::Terminate),
                "parked" => self.parked(&subject, message),
                "limit" => {
                    let body = self.body(&message.headers, &message.payload)?;
                    let limits = raised(&body)?;
                    self.verb(&subject, message, Verb::RaiseLimits(limits))
                }
                "migrate" => self.migrate(&subject, message),
                "signal" => self.signal(&subject, message),
                "update" => self.update(&subject, message),
                "message" => self.run_message(&subject, message),
                "answer" => self.run_message_answer(&subject, message),
                other => Err(Refusal::new(
                    &code::UNKNOWN_VERB,
                    format!("`{other}` is not a verb that a run understands"),
                )),
            },
        }
    }

    /// When a run begins that is started with a delay, by the store's clock. It counts from when the log took the start.
    pub(super) fn begins_at(&self, message: &LogMessage) -> Result<Option<Timestamp>, Refusal> {
        let Some(text) = bus::header(&message.headers, header::START_DELAY) else {
            return Ok(None);
        };
        let problem = match duration::parse(text) {
            Ok(delay) if delay <= MAX_START_DELAY => {
                return Ok(Some(self.clock.of_store(message.cursor.at).plus(delay)));
            }
            Ok(_) => "is longer than ten years".to_owned(),
            Err(error) => format!("is no delay: {error}"),
        };
        Err(Refusal::new(
            &code::START_DELAY,
            format!("`{}: {}` {problem}", header::START_DELAY, shorten(text, 64)),
        ))
    }

    /// A message of the direct inlet. What it cannot be read as is told to the worker, not to the dead-letter stream:
    /// the worker still has the task and the log.
    pub(super) fn direct(&self, message: DirectMessage) -> Job {
        let token = bus::header(&message.headers, header::TOKEN)
            .unwrap_or_default()
            .to_owned();
        let kind = match message.kind {
            DirectKind::Result => self
                .result(&message.headers, &message.payload, &message.namespace)
                .unwrap_or_else(JobKind::Refused),
            DirectKind::Beat => self
                .beat(&message.headers, &message.payload, &message.namespace)
                .unwrap_or_else(JobKind::Refused),
            DirectKind::Claim => self
                .claim(&message.headers, &message.namespace)
                .unwrap_or_else(JobKind::Refused),
        };
        // Knarr publishes with its own rights: a worker must not be able to name any subject it likes.
        let confirm = bus::header(&message.headers, header::CONFIRM)
            .or(message.reply.as_deref())
            .filter(|to| self.may_answer(to))
            .map(str::to_owned);
        let message = Box::new(message);
        Job::new(
            Origin::Direct {
                confirm,
                token,
                message,
            },
            kind,
        )
    }

    /// A task that the server gave up; `None` if its token is not one of ours.
    pub(super) fn task_lost(&self, namespace: &str, token: &str) -> Option<Job> {
        let (run_id, task) = self.tokens.verify(token, namespace)?;
        Some(Job::internal(JobKind::TaskLost { run_id, task }))
    }

    fn start(&self, subject: &RunSubject<'_>, message: &LogMessage) -> Result<StartRequest, Refusal> {
        let headers = &message.headers;
        refuse_task_headers(headers)?;
        refuse_control_characters(headers)?;
        let workflow = subject
            .name
            .and_then(|name| knarr_schemas::subject::decode_token(name).ok())
            .ok_or_else(|| Refusal::new(&code::BAD_SUBJECT, "a start's subject ends with `.start.<workflow>`"))?;
        let choice = |name: &str, allowed: &[&'static str]| match bus::header(headers, name) {
            None => Ok(allowed[0]),
            Some(text) => allowed.iter().find(|a| **a == text).copied().ok_or_else(|| {
                Refusal::new(
                    &code::BAD_HEADER,
                    format!("`{name}: {text}` is none of {}", allowed.join(", ")),
                )
            }),
        };
        let reuse = match choice(
            header::ID_REUSE,
            &["allow_duplicate", "allow_duplicate_failed_only", "reject_duplicate"],
        )? {
            "allow_duplicate_failed_only" => Reuse::FailedOnly,
            "reject_duplicate" => Reuse::Reject,
            _ => Reuse::AllowDuplicate,
        };
        let conflict = match choice(
            header::ID_CONFLICT,
            &["fail", "use_existing", "terminate_existing", "queue"],
        )? {
            "use_existing" => Conflict::UseExisting,
            "terminate_existing" => Conflict::TerminateExisting,
            "queue" => Conflict::Queue,
            _ => Conflict::Fail,
        };
        if (conflict, reuse) == (Conflict::TerminateExisting, Reuse::Reject) {
            return Err(Refusal::new(
                &code::BAD_HEADER,
                format!(
                    "`{}: terminate_existing` does not go with `{}: reject_duplicate`: the run that is terminated would be \
                     the duplicate",
                    header::ID_CONFLICT,
                    header::ID_REUSE
                ),
            ));
        }
        if conflict == Conflict::Queue && reuse != Reuse::AllowDuplicate {
            return Err(Refusal::new(
                &code::BAD_HEADER,
                format!(
                    "`{}: queue` goes with `{}: allow_duplicate` alone: the run that is waited for would be the duplicate",
                    header::ID_CONFLICT,
                    header::ID_REUSE
                ),
            ));
        }
        let search_attributes = match bus::header(headers, header::SEARCH_ATTRIBUTES) {
            None => BTreeMap::new(),
            Some(text) => match json::parse(text.as_bytes(), &self.limits) {
                Ok(Value::Object(map)) => map.into_iter().collect(),
                Ok(_) => {
                    return Err(Refusal::new(
                        &code::SEARCH_ATTRIBUTE,
                        format!("`{}` is not a JSON object", header::SEARCH_ATTRIBUTES),
                    ));
                }
                Err(error) => {
                    return Err(Refusal::new(
                        &code::SEARCH_ATTRIBUTE,
                        format!("`{}`: {error}", header::SEARCH_ATTRIBUTES),
                    ));
                }
            },
        };
        Ok(StartRequest {
            namespace: Namespace::new(&subject.namespace),
            workflow_id: WorkflowId::new(&subject.workflow_id),
            workflow: WorkflowName::new(&workflow),
            version: version(headers)?,
            input: self.body(headers, &message.payload)?,
            request_id: request_id(message)?,
            reuse,
            conflict,
            search_attributes,
            answer: self.answer(headers)?,
            traceparent: traceparent(headers),
            priority: priority(headers)?,
            begins_at: self.begins_at(message)?,
        })
    }

    /// An empty body is `null`. One that the bus could not fetch is told by the bus.
    pub(super) fn body(&self, headers: &Headers, payload: &[u8]) -> Result<Arc<Value>, Refusal> {
        if bus::header(headers, header::BODY).is_some() {
            let told = bus::header(headers, header::ERROR_CODE).and_then(code::lookup);
            let why = bus::header(headers, header::ERROR_MESSAGE).unwrap_or(code::BODY_MISSING.cause);
            return Err(Refusal::new(told.unwrap_or(&code::BODY_MISSING), why));
        }
        self.json(payload)
    }

    pub(super) fn json(&self, payload: &[u8]) -> Result<Arc<Value>, Refusal> {
        if payload.is_empty() {
            return Ok(Arc::new(Value::Null));
        }
        json::parse(payload, &self.limits)
            .map(Arc::new)
            .map_err(|error| Refusal::new(code_of(error.kind), error.to_string()))
    }

    fn answer(&self, headers: &Headers) -> Result<Option<AnswerRequest>, Refusal> {
        let on = match bus::header(headers, header::REPLY_ON) {
            None | Some("started") => AnswerOn::Started,
            Some("closed") => AnswerOn::Closed,
            Some(other) => {
                return Err(Refusal::new(
                    &code::BAD_HEADER,
                    format!("`{}: {other}` is neither started nor closed", header::REPLY_ON),
                ));
            }
        };
        Ok(self.answer_to(headers)?.map(|to| AnswerRequest { to, on }))
    }

    /// A plain subject under an allowed inbox prefix.
    fn may_answer(&self, to: &str) -> bool {
        let plain = to.len() <= 256
            && !to.contains(['*', '>', ' '])
            && !to.contains(|c: char| c.is_ascii_control())
            && !to.ends_with('.');
        plain
            && self
                .answer_prefixes
                .iter()
                .any(|prefix| to.starts_with(prefix.as_str()))
    }

    pub(super) fn answer_to(&self, headers: &Headers) -> Result<Option<Arc<str>>, Refusal> {
        let Some(to) = bus::header(headers, header::REPLY_TO) else {
            return Ok(None);
        };
        if self.may_answer(to) {
            Ok(Some(Arc::from(to)))
        } else {
            Err(Refusal::new(
                &code::ANSWER_SUBJECT,
                format!("answers may not go to `{}`", shorten(to, 256)),
            ))
        }
    }
}

/// From 1, the most important, to 5.
pub(super) fn priority(headers: &Headers) -> Result<Option<u8>, Refusal> {
    let Some(text) = bus::header(headers, header::PRIORITY) else {
        return Ok(None);
    };
    match text.parse::<u8>() {
        Ok(priority @ 1..=5) => Ok(Some(priority)),
        _ => Err(Refusal::new(
            &code::BAD_HEADER,
            format!(
                "`{}: {}` is not a number from 1 to 5",
                header::PRIORITY,
                shorten(text, 64)
            ),
        )),
    }
}

/// Where an answer may go, as far as it can be told from a message that is otherwise refused.
pub(super) fn answer_to(reader: &JobReader, message: &LogMessage) -> Option<Arc<str>> {
    reader.answer_to(&message.headers).ok().flatten()
}

/// Who asks, and why.
pub(super) fn operation(message: &LogMessage) -> Result<Operation, Refusal> {
    let text = |name: &str| bus::header(&message.headers, name).map(|text| Arc::from(shorten(text, 1_024)));
    Ok(Operation {
        request_id: Some(request_id(message)?),
        by: text(header::BY),
        reason: text(header::REASON),
    })
}

/// A task or an acknowledgement that a reply subject carried into the log is not a request.
pub(super) fn refuse_task_headers(headers: &Headers) -> Result<(), Refusal> {
    if bus::header(headers, header::TASK).is_some() || bus::header(headers, header::TOKEN).is_some() {
        return Err(Refusal::new(
            &code::TASK_HEADERS,
            "a message with a task's headers can only be a result",
        ));
    }
    Ok(())
}

/// What is stored of headers is text, and PostgreSQL does not take every text. A tab is white space like any other.
pub(super) fn refuse_control_characters(headers: &Headers) -> Result<(), Refusal> {
    let stored = |name: &str| name.starts_with("Knarr-") || name == header::TRACEPARENT || name == header::NATS_MSG_ID;
    let bad = headers
        .iter()
        .find(|(name, value)| stored(name) && value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t'));
    match bad {
        None => Ok(()),
        Some((name, _)) => Err(Refusal::new(
            &code::BAD_HEADER,
            format!("`{name}` contains a control character"),
        )),
    }
}

pub(super) fn traceparent(headers: &Headers) -> Option<Arc<str>> {
    bus::header(headers, header::TRACEPARENT)
        .filter(|text| text.len() <= MAX_TRACEPARENT)
        .map(Arc::from)
}

/// What a `limit` asks for; a number beyond what can be counted is refused like any other that is too large.
fn raised(body: &Value) -> Result<RunLimits, Refusal> {
    let asked: RaiseLimits = serde_json::from_value(body.clone()).map_err(|error| {
        Refusal::new(
            &code::BAD_REQUEST,
            format!("the body does not say which limits to raise: {error}"),
        )
    })?;
    let mut limits = RunLimits::default();
    for (limit, to) in [
        (Limit::Events, asked.events),
        (Limit::HistoryBytes, asked.history_bytes),
        (Limit::Pending, asked.pending),
    ] {
        if let Some(to) = to {
            limits.set(limit, to);
        }
    }
    Ok(limits)
}

pub(super) fn version(headers: &Headers) -> Result<Option<u32>, Refusal> {
    match bus::header(headers, header::VERSION) {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Refusal::new(
                &code::BAD_HEADER,
                format!("`{}: {text}` is not a version number", header::VERSION),
            )
        }),
    }
}

/// The caller's own id, or one derived from the message's place in the log.
pub(super) fn request_id(message: &LogMessage) -> Result<RequestId, Refusal> {
    let headers = &message.headers;
    match bus::header(headers, header::REQUEST_ID).or_else(|| bus::header(headers, header::NATS_MSG_ID)) {
        Some(id) if id.starts_with(PREFIX) => Err(reserved("the request id", id)),
        Some(id) if id.len() <= 512 => Ok(RequestId::new(id)),
        Some(id) => Err(Refusal::new(
            &code::BAD_HEADER,
            format!("the request id is {} bytes long; the limit is 512", id.len()),
        )),
        // With its time: a log that went back in time gives a sequence out again.
        None => Ok(RequestId::new(&format!(
            "{}#{}@{}",
            message.cursor.stream, message.cursor.sequence, message.cursor.at.0
        ))),
    }
}

/// Verbs other than start and signal are named again by a header, which a stored acknowledgement has not.
pub(super) fn check_verb_header(said: &str, subject: &RunSubject<'_>, headers: &Headers) -> Result<(), Refusal> {
    // As in the subject: one spelling in both places.
    let namespace = knarr_schemas::subject::encode_token(&subject.namespace).unwrap_or_default();
    let expected = format!("{said} {namespace}");
    if bus::header(headers, header::VERB) != Some(&expected) {
        return Err(Refusal::new(
            &code::VERB_HEADER,
            format!(
                "the header `{}: {expected}` is missing or says something else",
                header::VERB
            ),
        ));
    }
    Ok(())
}

fn reserved(what: &str, id: &str) -> Refusal {
    let id = shorten(id, 256);
    Refusal::new(&code::RESERVED_ID, format!("{what} `{id}` belongs to a schedule"))
}

fn code_of(kind: BadJsonKind) -> &'static Code {
    match kind {
        BadJsonKind::Syntax => &code::BAD_JSON,
        BadJsonKind::Size => &code::BODY_TOO_LARGE,
        BadJsonKind::Nul => &code::NUL_CHARACTER,
        BadJsonKind::Number => &code::NUMBER_RANGE,
    }
}

fn bad_subject(error: &SubjectError, subject: &str) -> Refusal {
    let code = match error {
        SubjectError::Shape => &code::BAD_SUBJECT,
        SubjectError::Token { .. } => &code::BAD_TOKEN,
    };
    Refusal::new(code, format!("{error}: {subject}"))
}

pub(super) fn shorten(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// The message as it came from the log.
fn message_of(input: DeferredInput) -> (LogMessage, i64) {
    let headers: Vec<(String, String)> = serde_json::from_str(&input.headers).unwrap_or_default();
    let headers: Headers = headers.into_iter().map(|(name, value)| (name.into(), value)).collect();
    let message = LogMessage {
        partition: input.partition,
        cursor: input.cursor,
        subject: input.subject,
        headers,
        // Refusals are not deferred.
        flaw: None,
        payload: input.body.into(),
        reader: 0,
    };
    (message, input.no)
}

/// What a worker says, as it can be stored: it is taken all the same, for something has been done.
pub(super) fn storable(text: &str, bytes: usize) -> Arc<str> {
    let short = shorten(text, bytes);
    if short.contains('\0') {
        // One byte becomes three.
        let replaced = short.replace('\0', "\u{fffd}");
        return Arc::from(shorten(&replaced, bytes));
    }
    Arc::from(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_says_is_stored_within_its_limit() {
        for (text, stored) in [
            ("abcd", "abcd"),
            ("abcde", "abcd"),
            ("abc\0", "abc"),
            ("a\0b", "a\u{fffd}"),
            ("ab\u{e9}", "ab\u{e9}"),
            ("abc\u{e9}", "abc"),
        ] {
            assert_eq!(&*storable(text, 4), stored, "{text:?}");
        }
    }

    #[test]
    fn control_characters_are_refused_where_they_would_be_stored() {
        let refused = |name: &str, value: &str| {
            let headers = vec![(Arc::from(name), value.to_owned())];
            refuse_control_characters(&headers).is_err()
        };
        assert!(refused(header::REQUEST_ID, "a\0") && refused(header::NATS_MSG_ID, "\x1f"));
        assert!(refused(header::TRACEPARENT, "\x7f") && refused(header::REASON, "\0"));
        assert!(!refused(header::REASON, "a\tb\u{80}") && !refused("X-Own", "\0"));
    }
}
