//! What the engine reads of a message, for whoever throws bytes at it: tests, and the fuzz target `wire`.
//!
//! A message is text: its subject, its headers (`Name: value`) a line each, an empty line, its body. A subject
//! `direct.<kind>.<namespace>` is one of the direct inlet. A token that says `sign` is replaced by the right one, so that what
//! stands behind it is read as well.
//!
//! **Invariant** that is checked here: every message becomes a job, and no text that a job carries into a run's history holds
//! what the store would refuse.

use std::sync::Arc;

use bytes::Bytes;
use knarr_core::ids::{RunId, TaskNo};
use knarr_core::json;
use knarr_core::time::Timestamp;
use knarr_schemas::header;
use knarr_schemas::subject::{LogSubject, parse_log_subject};
use serde_json::Value;

use super::config::EngineConfig;
use super::job::{Job, JobKind, StartRequest, Verb};
use super::job_reader::{JobReader, MAX_TRACEPARENT};
use super::token::{Signed, TokenKey};
use crate::bus::{DirectKind, DirectMessage, Headers, LogMessage};
use crate::store::Cursor;

/// Reads messages as an engine with default settings does.
#[derive(Debug)]
pub struct Wire {
    reader: JobReader,
}

impl Default for Wire {
    fn default() -> Self {
        let tokens = Arc::new(TokenKey::new(&[7; 32]));
        Self {
            reader: JobReader::new(tokens, &EngineConfig::new("fuzz"), 1 << 20),
        }
    }
}

impl Wire {
    /// # Panics
    /// Where the invariant does not hold.
    pub fn take(&self, bytes: &[u8]) {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n");
        let (head, body) = end.map_or((bytes, &[][..]), |end| (&bytes[..end], &bytes[end + 2..]));
        let head = String::from_utf8_lossy(head);
        let mut lines = head.split('\n');
        let subject = lines.next().unwrap_or_default();
        let headers: Headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (Arc::from(name), self.signed(subject, name, value, body)))
            .collect();
        let payload = Bytes::copy_from_slice(body);
        let job = match subject.strip_prefix("direct.") {
            Some(rest) => {
                let (kind, namespace) = rest.split_once('.').unwrap_or((rest, "default"));
                self.reader.direct(DirectMessage {
                    partition: 3,
                    namespace: namespace.to_owned(),
                    kind: match kind {
                        "result" => DirectKind::Result,
                        "beat" => DirectKind::Beat,
                        _ => DirectKind::Claim,
                    },
                    headers,
                    payload,
                    reply: None,
                })
            }
            None => self.reader.log(LogMessage {
                partition: 3,
                cursor: Cursor {
                    stream: "fuzz".into(),
                    sequence: 1,
                    at: Timestamp(1),
                },
                subject: subject.to_owned(),
                headers,
                flaw: None,
                payload,
                reader: 0,
            }),
        };
        check(&job);
    }

    fn signed(&self, subject: &str, name: &str, value: &str, body: &[u8]) -> String {
        if value != "sign" {
            return value.to_owned();
        }
        match (name, parse_log_subject(subject)) {
            (header::MESSAGE_TOKEN, Ok(LogSubject::Run(run))) => self.reader.tokens.sign(&Signed {
                verb: run.verb,
                namespace: &run.namespace,
                workflow_id: &run.workflow_id,
                body,
            }),
            (header::TOKEN, Ok(LogSubject::Run(run))) => self.token(&run.namespace),
            (header::TOKEN, _) => self.token(subject.rsplit('.').next().unwrap_or_default()),
            _ => value.to_owned(),
        }
    }

    fn token(&self, namespace: &str) -> String {
        self.reader
            .tokens
            .issue(RunId(uuid::Uuid::from_u128(1)), TaskNo(1), namespace)
    }
}

fn check(job: &Job) {
    match &job.kind {
        JobKind::Start(start) => check_start(start),
        JobKind::UnkeyedStart(start) => {
            check_value(&start.input);
            check_text(start.request_id.as_str(), 512);
        }
        JobKind::Verb(verb) => {
            check_operation(&verb.operation);
            if let Verb::Update { name, body, .. } = &verb.verb {
                check_text(name, 512);
                check_value(body);
            }
        }
        JobKind::Signal(signal) => {
            check_value(&signal.body);
            check_operation(&signal.operation);
            if let Some(start) = &signal.start {
                check_start(start);
            }
        }
        JobKind::Refused(refusal) => assert!(refusal.message.len() <= 1_024, "a refusal has a limit"),
        _ => {}
    }
}

fn check_start(start: &StartRequest) {
    check_value(&start.input);
    start.search_attributes.values().for_each(check_value);
    check_text(start.request_id.as_str(), 512);
    check_text(start.workflow_id.as_str(), 512);
    check_text(start.traceparent.as_deref().unwrap_or_default(), MAX_TRACEPARENT);
}

fn check_operation(operation: &knarr_core::run::input::Operation) {
    for text in [&operation.by, &operation.reason].into_iter().flatten() {
        check_text(text, 1_024);
    }
    if let Some(id) = &operation.request_id {
        check_text(id.as_str(), 512);
    }
}

fn check_value(value: &Value) {
    let checked = json::check(value, &json::Limits::default());
    assert!(checked.is_ok(), "a value that cannot be stored was taken: {checked:?}");
}

/// As PostgreSQL takes it, and within its limit.
fn check_text(text: &str, most: usize) {
    assert!(!text.contains('\0'), "a text with NUL was taken: {text:?}");
    assert!(
        text.len() <= most,
        "a text of {} bytes was taken, of at most {most}",
        text.len()
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subject() -> impl Strategy<Value = String> {
        let run = "knarr\\.in\\.[0-9]\\.(default|[a-z%0-9]{1,8})\\.[a-z0-9-]{1,8}\\.(start|signal|update|cancel|terminate|result|message|answer)(\\.[a-z%0-9]{1,6})?";
        prop_oneof![
            8 => run,
            1 => "direct\\.(result|beat|claim)\\.[a-z]{0,8}",
            1 => "knarr\\.start\\.[a-z]{1,8}\\.[a-z]{1,8}",
            1 => ".{0,40}",
        ]
    }

    fn head() -> impl Strategy<Value = String> {
        let names = prop::sample::select(vec![
            header::REQUEST_ID,
            header::BY,
            header::REASON,
            header::VERB,
            header::TOKEN,
            header::MESSAGE_TOKEN,
            header::OUTCOME,
            header::SEARCH_ATTRIBUTES,
            header::START_WORKFLOW,
            header::START_INPUT,
            header::TRACEPARENT,
            header::WORKFLOW_ID,
            header::REPLY_TO,
        ]);
        let value = prop_oneof![
            Just("sign".to_owned()),
            Just("cancel default".to_owned()),
            "[^\n]{0,12}",
            "[a\0]{250,260}",
            Just("a\0b".to_owned()),
        ];
        (names, value).prop_map(|(name, value)| format!("{name}: {value}"))
    }

    /// What is stored of a signal's headers, as of every other verb's.
    #[test]
    fn a_signal_brings_no_text_that_cannot_be_stored() {
        for bad in [
            "Knarr-Reason: a\0b".to_owned(),
            "Knarr-By: a\0b".to_owned(),
            "Knarr-Request-Id: a\0b".to_owned(),
            format!(
                "Knarr-Start-Workflow: order\ntraceparent: {}",
                "a".repeat(MAX_TRACEPARENT + 1)
            ),
        ] {
            Wire::default().take(format!("knarr.in.3.default.o-1.signal.go\n{bad}\n\n1").as_bytes());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn whatever_is_said_becomes_a_job_that_can_be_stored(
            subject in subject(),
            headers in prop::collection::vec(head(), 0..5),
            body in prop_oneof!["[\"{}a:0,\\[\\]\\\\u]{0,20}", Just("{\"a\": 1}".to_owned())],
        ) {
            let message = format!("{subject}\n{}\n\n{body}", headers.join("\n"));
            Wire::default().take(message.as_bytes());
        }
    }
}
