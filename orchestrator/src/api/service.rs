//! The API as a NATS micro service: one endpoint a verb for all namespaces, shared by all replicas through a queue group.
//!
//! **Invariants:** a request is answered or refused within [`TIME_LIMIT`]; at most [`ADMITTED`] requests are held, of
//! which [`RUNNING`] touch the store at a time; a panic in one is its own refusal.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::service::{Request, Service, ServiceExt};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{SelectAll, StreamExt};
use knarr_core::ids::Namespace;
use knarr_schemas::api::{self, verb};
use knarr_schemas::code::{self, Code};
use knarr_schemas::{header, subject};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::api::client::max_payload;
use crate::api::{Operations, Refusal};
use crate::store::Store;
use crate::telemetry::{metric, trace};

/// Requests held at a time; more are refused at once.
pub const ADMITTED: usize = 256;
/// Requests worked on at a time.
pub const RUNNING: usize = 16;
/// Longest time from a request's arrival to its answer.
pub const TIME_LIMIT: Duration = Duration::from_secs(20);
/// Longest wait, at the end, for requests under way.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// Left of a message for its headers.
const HEADROOM: usize = 4 * 1024;

const QUEUE_GROUP: &str = "knarr";

#[derive(Debug, thiserror::Error)]
#[error("the API cannot be served over NATS: {0}")]
pub struct ServeError(String);

/// The service while it is up; [`ApiService::stop`] ends it.
#[derive(Debug)]
pub struct ApiService {
    nats: async_nats::Client,
    service: Service,
    requests: TaskTracker,
    accept: JoinHandle<()>,
}

impl ApiService {
    /// Takes no more requests and lets those under way finish. When this returns, calls go to other replicas, or are told
    /// that nobody is there.
    ///
    /// A request that the server routes here in the moment it takes to unsubscribe is lost to its caller, who times out:
    /// the client library cannot drain an endpoint. No operation is harmed by being asked again.
    pub async fn stop(self) {
        if let Err(error) = self.service.stop().await {
            tracing::warn!(%error, "the API's service did not stop cleanly");
        }
        let drained = async {
            // The endpoints end once they have handed over what had come.
            if self.accept.await.is_err() {
                tracing::error!("the API's accept loop panicked");
            }
            self.requests.close();
            self.requests.wait().await;
        };
        if tokio::time::timeout(DRAIN_LIMIT, drained).await.is_err() {
            tracing::warn!(left = self.requests.len(), "requests of the API were still under way");
        }
        if let Err(error) = round_trip(&self.nats).await {
            tracing::warn!(%error, "NATS did not confirm the end of the API");
        }
    }
}

/// Until the server has processed what was sent to it before. Flushing the client alone does not tell.
async fn round_trip(nats: &async_nats::Client) -> Result<(), ServeError> {
    let failed = |error: &dyn std::fmt::Display| ServeError(error.to_string());
    let inbox = nats.new_inbox();
    let mut echo = nats.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
    nats.publish(inbox, Bytes::new())
        .await
        .map_err(|error| failed(&error))?;
    match tokio::time::timeout(DRAIN_LIMIT, echo.next()).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(failed(&"the connection was closed")),
        Err(_) => Err(failed(&"no answer in time")),
    }
}

/// Starts serving; returns when every endpoint is subscribed.
pub async fn serve<S: Store>(
    nats: async_nats::Client,
    operations: Arc<Operations<S>>,
) -> Result<ApiService, ServeError> {
    let failed = |error: async_nats::Error| ServeError(error.to_string());
    let errors: Arc<[AtomicU64; verb::ALL.len()]> = Arc::default();
    let counted = Arc::clone(&errors);
    let service = nats
        .service_builder()
        .description("Knarr: runs and definitions")
        .queue_group(QUEUE_GROUP)
        .stats_handler(move |endpoint, _| {
            let refused = verb::ALL
                .iter()
                .position(|verb| endpoint_name(verb) == endpoint)
                .map_or(0, |index| counted[index].load(Ordering::Relaxed));
            serde_json::json!({ "refused": refused })
        })
        .start(api::SERVICE, env!("CARGO_PKG_VERSION"))
        .await
        .map_err(failed)?;
    let mut incoming = SelectAll::new();
    for (index, verb) in verb::ALL.iter().enumerate() {
        let endpoint = service
            .endpoint_builder()
            .name(endpoint_name(verb))
            .add(format!("knarr.api.*.{verb}"))
            .await
            .map_err(failed)?;
        incoming.push(endpoint.map(move |request| (index, request)));
    }
    // The subscriptions are known to the server before the caller says that the API is up.
    round_trip(&nats).await?;
    let requests = TaskTracker::new();
    let acceptor = Acceptor {
        nats: nats.clone(),
        operations,
        errors,
        admitted: Arc::new(Semaphore::new(ADMITTED)),
        running: Arc::new(Semaphore::new(RUNNING)),
        requests: requests.clone(),
    };
    let accept = tokio::spawn(async move {
        while let Some((index, request)) = incoming.next().await {
            acceptor.accept(index, request);
        }
    });
    Ok(ApiService {
        nats,
        service,
        requests,
        accept,
    })
}

/// Names of endpoints hold no dots.
fn endpoint_name(verb: &str) -> String {
    verb.replace('.', "-")
}

struct Acceptor<S> {
    nats: async_nats::Client,
    operations: Arc<Operations<S>>,
    errors: Arc<[AtomicU64; verb::ALL.len()]>,
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
    requests: TaskTracker,
}

impl<S: Store> Acceptor<S> {
    fn accept(&self, index: usize, request: Request) {
        if request.message.reply.is_none() {
            return;
        }
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().ok();
        let call = Call {
            nats: self.nats.clone(),
            operations: Arc::clone(&self.operations),
            errors: Arc::clone(&self.errors),
            running: Arc::clone(&self.running),
            verb: verb::ALL[index],
            index,
            request,
        };
        let span = call.span();
        self.requests.spawn(call.run(admitted).instrument(span));
    }
}

struct Call<S> {
    nats: async_nats::Client,
    operations: Arc<Operations<S>>,
    errors: Arc<[AtomicU64; verb::ALL.len()]>,
    running: Arc<Semaphore>,
    verb: &'static str,
    index: usize,
    request: Request,
}

impl<S: Store> Call<S> {
    /// A child of the caller's span, if the request says which.
    fn span(&self) -> tracing::Span {
        let span = tracing::info_span!("api", verb = self.verb, otel.kind = "server");
        if let Some(traceparent) = self
            .request
            .message
            .headers
            .as_ref()
            .and_then(|h| h.get(header::TRACEPARENT))
        {
            let headers = vec![(Arc::from(header::TRACEPARENT), traceparent.as_str().to_owned())];
            trace::continue_from(&span, &headers);
        }
        span
    }

    async fn run(self, admitted: Option<OwnedSemaphorePermit>) {
        let answer = match &admitted {
            None => Err(Refusal::new(503, &code::BUSY, code::BUSY.cause)),
            Some(_) => match AssertUnwindSafe(self.answer_in_time()).catch_unwind().await {
                Ok(answer) => answer,
                Err(_) => Err(Refusal::new(500, &code::INTERNAL, code::INTERNAL.cause)),
            },
        };
        let sent = match answer {
            Ok(body) => self.request.respond(Ok(body)).await,
            Err(refusal) => self.refuse(&refusal).await,
        };
        if let Err(error) = sent {
            tracing::warn!(verb = self.verb, %error, "an answer of the API could not be sent");
        }
    }

    async fn answer_in_time(&self) -> Result<Bytes, Refusal> {
        let answer = async {
            // The semaphore is never closed.
            let _running = self.running.acquire().await.ok();
            self.answer().await
        };
        tokio::time::timeout(TIME_LIMIT, answer).await.unwrap_or_else(|_| {
            let code = out_of_time(self.verb);
            Err(Refusal::new(503, code, code.cause))
        })
    }

    async fn answer(&self) -> Result<Bytes, Refusal> {
        let size = self.request.message.payload.len();
        if size > api::MAX_REQUEST_BYTES {
            return Err(Refusal::new(
                413,
                &code::BODY_TOO_LARGE,
                format!("the request has {size} bytes; the limit is {}", api::MAX_REQUEST_BYTES),
            ));
        }
        let namespace = self.namespace()?;
        let operations = &self.operations;
        match self.verb {
            verb::DEFINITION_REGISTER => {
                let reply = operations.register_definition(&namespace, self.body()?).await?;
                self.encode(&reply)
            }
            verb::DEFINITION_LIST => self.encode(&operations.list_definitions(&namespace, &self.body()?).await?),
            verb::DEFINITION_SHOW => self.encode(&operations.show_definition(&namespace, &self.body()?).await?),
            verb::DEFINITION_DEFAULT => self.encode(&operations.set_default_version(&namespace, &self.body()?).await?),
            verb::RUN_LIST => self.encode(&operations.list_runs(&namespace, &self.body()?).await?),
            verb::RUN_SHOW => {
                let request: api::ShowRun = self.body()?;
                self.encode(&operations.show_run(&namespace, &request.run, self.budget()).await?)
            }
            verb::RUN_HISTORY => self.encode(&operations.history(&namespace, &self.body()?, self.budget()).await?),
            verb::RUN_QUERY => self.encode(&operations.query_run(&namespace, &self.body()?).await?),
            verb::ACTIVITY_COMPLETE => {
                let asked = self.body()?;
                self.encode(&operations.complete_activity(&self.nats, &namespace, asked).await?)
            }
            verb::ACTIVITY_FAIL => {
                let asked = self.body()?;
                self.encode(&operations.fail_activity(&self.nats, &namespace, asked).await?)
            }
            verb::ACTIVITY_HEARTBEAT => {
                let asked = self.body()?;
                self.encode(&operations.heartbeat_activity(&self.nats, &namespace, asked).await?)
            }
            verb::PARKED_LIST => self.encode(&operations.list_parked(&namespace, &self.body()?, self.budget()).await?),
            verb::SCHEDULE_LIST => self.encode(&operations.list_schedules(&namespace, &self.body()?).await?),
            verb::SCHEDULE_SHOW => self.encode(&operations.show_schedule(&namespace, &self.body()?).await?),
            verb::TRIGGER_LIST => self.encode(&operations.list_triggers(&namespace, &self.body()?).await?),
            verb::TRIGGER_SHOW => self.encode(&operations.show_trigger(&namespace, &self.body()?).await?),
            verb::MIGRATION_CHECK => {
                let reply = operations
                    .check_migration(&namespace, &self.body()?, self.budget())
                    .await?;
                self.encode(&reply)
            }
            verb::NAMESPACE_CREATE => {
                let request = self.body()?;
                self.encode(&operations.create_namespace(&namespace, request).await?)
            }
            verb::QUEUE_SET => self.encode(&operations.set_queue(&namespace, self.body()?).await?),
            verb::QUEUE_LIST => {
                let api::ListQueues {} = self.body()?;
                self.encode(&operations.list_queues(&namespace).await?)
            }
            verb::NAMESPACE_SET => self.encode(&operations.set_namespace(&namespace, self.body()?).await?),
            _ => {
                let api::ListNamespaces {} = self.body()?;
                self.encode(&operations.list_namespaces().await?)
            }
        }
    }

    /// `knarr.api.<namespace>.<verb>`; the subscription has matched the rest.
    fn namespace(&self) -> Result<Namespace, Refusal> {
        let token = self.request.message.subject.split('.').nth(2).unwrap_or_default();
        let name = subject::decode_token(token)
            .map_err(|error| Refusal::new(400, &code::BAD_TOKEN, format!("the namespace in the subject {error}")))?;
        if name.chars().any(char::is_control) {
            return Err(Refusal::new(
                400,
                &code::BAD_TOKEN,
                "the namespace contains control characters",
            ));
        }
        Ok(Namespace::new(&name))
    }

    /// An empty body is an empty object, so that `nats req` without one works.
    fn body<Q: DeserializeOwned>(&self) -> Result<Q, Refusal> {
        let payload = &self.request.message.payload;
        let payload: &[u8] = if payload.is_empty() { b"{}" } else { payload };
        // Names and texts that PostgreSQL does not take. Data is for those to judge who take it.
        let is_data = matches!(
            self.verb,
            verb::DEFINITION_REGISTER | verb::ACTIVITY_COMPLETE | verb::ACTIVITY_FAIL | verb::ACTIVITY_HEARTBEAT
        );
        if !is_data && names_nul(payload) {
            return Err(Refusal::new(400, &code::NUL_CHARACTER, code::NUL_CHARACTER.cause));
        }
        serde_json::from_slice(payload).map_err(|error| unreadable::<Q>(payload, &error))
    }

    /// Bytes of JSON that fit a reply.
    fn budget(&self) -> usize {
        max_payload(&self.nats).saturating_sub(HEADROOM)
    }

    fn encode(&self, reply: &impl Serialize) -> Result<Bytes, Refusal> {
        let body = serde_json::to_vec(reply)
            .map_err(|error| Refusal::new(500, &code::INTERNAL, format!("the answer cannot be written: {error}")))?;
        let budget = self.budget();
        if body.len() > budget {
            return Err(Refusal::new(
                413,
                &code::REPLY_TOO_LARGE,
                format!("the answer has {} bytes; NATS takes {budget}", body.len()),
            ));
        }
        Ok(body.into())
    }

    async fn refuse(&self, refusal: &Refusal) -> Result<(), async_nats::PublishError> {
        self.errors[self.index].fetch_add(1, Ordering::Relaxed);
        count(refusal);
        let mut headers = HeaderMap::new();
        headers.insert(api::ERROR, one_line(&refusal.body.message).as_str());
        headers.insert(api::ERROR_CODE, refusal.status.to_string().as_str());
        let body = serde_json::to_vec(&refusal.body).unwrap_or_default();
        // The client's own way of refusing would send no body.
        self.request.respond_with_headers(Ok(body.into()), headers).await
    }
}

fn count(refusal: &Refusal) {
    metrics::counter!(metric::REJECTED, "code" => refusal.body.code.clone()).increment(1);
}

/// Why a request is none. Of the wrong shapes the reader of bytes takes some for bad syntax, so the value is asked.
fn unreadable<Q: DeserializeOwned>(payload: &[u8], error: &serde_json::Error) -> Refusal {
    let refused = |code, problem: &str| Refusal::new(400, code, format!("the request cannot be read: {problem}"));
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(payload) else {
        return refused(&code::BAD_JSON, &error.to_string());
    };
    let problem = match serde_path_to_error::deserialize::<_, Q>(value) {
        // A key that appears twice is one in the value.
        Ok(_) => error.to_string(),
        Err(wrong) => {
            let (path, problem) = (wrong.path().to_string(), wrong.inner().to_string());
            match path == "." || problem.contains(&format!("`{path}`")) {
                true => problem,
                false => format!("`{path}`: {problem}"),
            }
        }
    };
    refused(&code::BAD_REQUEST, &problem)
}

/// What a request that was cut off has left behind.
fn out_of_time(verb: &str) -> &'static Code {
    match verb {
        verb::DEFINITION_REGISTER
        | verb::DEFINITION_DEFAULT
        | verb::NAMESPACE_CREATE
        | verb::NAMESPACE_SET
        | verb::ACTIVITY_COMPLETE
        | verb::ACTIVITY_FAIL
        | verb::ACTIVITY_HEARTBEAT
        | verb::QUEUE_SET => &code::UNAVAILABLE,
        _ => &code::NOT_ANSWERED,
    }
}

/// Whether a JSON text names U+0000; as a byte of its own it is not valid there.
fn names_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        rest = &rest[at + 1..];
        if rest.starts_with(b"u0000") {
            return true;
        }
        // What is escaped does not begin an escape.
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(500)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_character_is_found_however_it_is_written() {
        for (text, found) in [
            (r#"{"a": "\u0000"}"#, true),
            (r#"{"a": "b\\\u0000"}"#, true),
            (r#"{"a": "\n\"\u0000"}"#, true),
            (r#"{"a": "\\u0000"}"#, false),
            (r#"{"a": "u0000 \u0001 \\"}"#, false),
            ("{\"a\\", false),
            ("", false),
        ] {
            assert_eq!(names_nul(text.as_bytes()), found, "{text}");
        }
    }

    #[test]
    fn json_of_a_wrong_shape_is_told_by_its_field() {
        fn told<Q: DeserializeOwned + std::fmt::Debug>(text: &str) -> (String, String) {
            let error = serde_json::from_str::<Q>(text).unwrap_err();
            let body = unreadable::<Q>(text.as_bytes(), &error).body;
            (body.code, body.message)
        }
        for (text, said) in [
            (r#"{"run": 3}"#, "`run`: invalid type: integer `3`"),
            (
                r#"{"run": {"workflow_id": 3}}"#,
                "`run.workflow_id`: invalid type: integer `3`",
            ),
            (r#"{"run": {"workflow_id": "o-1"}, "rnu": 3}"#, ": unknown field `rnu`"),
            ("{}", ": missing field `run`"),
            ("3", ": invalid type: integer `3`"),
        ] {
            let (code, message) = told::<api::ShowRun>(text);
            assert_eq!(code, "KN0228", "{text}: {message}");
            assert!(message.contains(said), "{text}: {message}");
        }
        let twice = r#"{"status": "a", "status": "b"}"#;
        let (code, message) = told::<api::ListRuns>(twice);
        assert_eq!(code, "KN0228");
        assert!(message.contains("duplicate field `status`"), "{message}");
        for text in ["{", "{\"run\": }", "{} {}", "\u{feff}{}"] {
            assert_eq!(told::<api::ShowRun>(text).0, "KN0203", "{text}");
        }
    }

    #[test]
    fn a_question_that_takes_too_long_changes_nothing_and_says_so() {
        let codes = verb::ALL.iter().map(|verb| (*verb, out_of_time(verb).id));
        let in_doubt: Vec<_> = codes.filter(|(_, id)| *id == "KN0227").map(|(verb, _)| verb).collect();
        assert_eq!(
            in_doubt,
            [
                verb::DEFINITION_REGISTER,
                verb::DEFINITION_DEFAULT,
                verb::ACTIVITY_COMPLETE,
                verb::ACTIVITY_FAIL,
                verb::ACTIVITY_HEARTBEAT,
                verb::NAMESPACE_CREATE,
                verb::NAMESPACE_SET,
                verb::QUEUE_SET,
            ]
        );
    }
}
