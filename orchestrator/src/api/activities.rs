//! Tasks that are finished from elsewhere than their worker: what is said of them takes the way of a worker's word, to the
//! partition's owner, else into the log. The token is checked there.

use std::time::Duration;

use async_nats::client::{Request, RequestErrorKind};
use async_nats::{Client, HeaderMap, Message};
use bytes::Bytes;
use knarr_core::ids::{Namespace, TaskNo};
use knarr_core::run::limits::MAX_DETAILS_BYTES;
use knarr_core::run::{Event, Transition};
use knarr_schemas::api::{ActivityAnswer, CompleteActivity, FailActivity, HeartbeatActivity, HeartbeatAnswer, RunName};
use knarr_schemas::body::{Confirmation, ErrorBody};
use knarr_schemas::token::TaskToken;
use knarr_schemas::{code, header, subject};
use serde::Deserialize;

use crate::api::{Operations, Refusal};
use crate::store::{RunRow, Store};

/// A partition's owner answers after a commit; then the log is asked.
const OWNER_WITHIN: Duration = Duration::from_secs(2);
const LOG_WITHIN: Duration = Duration::from_secs(5);

/// Transitions asked of the store at a time.
const CHUNK: u32 = 200;

const COMMITTED: &str = "committed";

/// What a run's history tells of one task.
#[derive(Debug, Default)]
struct HeardOf {
    ended: Option<Ended>,
    /// A result came when the task had ended.
    late: bool,
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Completed,
    /// With another word of whoever had it.
    Otherwise,
    /// Without a word.
    Unheard,
}

impl HeardOf {
    fn learn(&mut self, event: &Event, task: TaskNo) {
        match event {
            Event::TaskCompleted { task: of, .. } if *of == task => self.ended = Some(Ended::Completed),
            Event::TaskFailed { task: of, .. }
            | Event::TaskUnknown { task: of, .. }
            | Event::TaskCancelled { task: of, .. }
            | Event::TaskDeferred { task: of, .. }
                if *of == task =>
            {
                self.ended = Some(Ended::Otherwise);
            }
            Event::TaskTimedOut { task: of, .. }
            | Event::TaskLost { task: of, .. }
            | Event::TaskWithdrawn { task: of, .. }
            | Event::TaskAbandoned { task: of, .. }
                if *of == task =>
            {
                self.ended = Some(Ended::Unheard);
            }
            Event::LateResult(late) if late.task == task => self.late = true,
            Event::RunCompleted { .. } | Event::RunClosed { .. } | Event::RunTerminated { .. } => self.closed = true,
            _ => {}
        }
    }

    /// Of a result that has been handed in, a success or another one.
    fn stage(&self, success: bool) -> &'static str {
        match (self.late, self.ended) {
            (true, _) => "late",
            (false, Some(Ended::Unheard)) => "gone",
            (false, None) if self.closed => "gone",
            // That it was done counts, whatever is said of it later.
            (false, Some(Ended::Completed)) if !success => "gone",
            // A repeat is taken like the first.
            (false, _) => COMMITTED,
        }
    }
}

/// JetStream's acknowledgement, as far as it matters here.
#[derive(Deserialize)]
struct Stored {
    #[serde(default)]
    seq: u64,
}

impl<S: Store> Operations<S> {
    pub(super) async fn complete_activity(
        &self,
        nats: &Client,
        namespace: &Namespace,
        request: CompleteActivity,
    ) -> Result<ActivityAnswer, Refusal> {
        let row = self.run_of_task(namespace, &request.token).await?;
        let mut headers = HeaderMap::new();
        headers.insert(header::TOKEN, request.token.as_str());
        let body = Bytes::from(serde_json::to_vec(&request.output).unwrap_or_default());
        let answer = hand_in(nats, &row, headers, body).await?;
        Ok(self.judged(answer, &row, &request.token, true).await)
    }

    pub(super) async fn fail_activity(
        &self,
        nats: &Client,
        namespace: &Namespace,
        request: FailActivity,
    ) -> Result<ActivityAnswer, Refusal> {
        if !["failed", "unknown", "cancelled", "retry_later"].contains(&request.outcome.as_str()) {
            let problem = format!(
                "`{}` is none of failed, unknown, cancelled, retry_later",
                request.outcome
            );
            return Err(Refusal::new(400, &code::BAD_REQUEST, problem));
        }
        let row = self.run_of_task(namespace, &request.token).await?;
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: &str| headers.insert(name, one_line(value).as_str());
        put(header::TOKEN, &request.token);
        put(header::OUTCOME, &request.outcome);
        for (name, text) in [
            (header::ERROR_TYPE, &request.error_type),
            (header::ERROR_MESSAGE, &request.message),
        ] {
            if !text.is_empty() {
                put(name, text);
            }
        }
        if !request.retryable {
            put(header::RETRYABLE, "false");
        }
        if request.not_done {
            put(header::NOT_DONE, "true");
        }
        if let Some(ms) = request.retry_after_ms {
            put(header::RETRY_AFTER, &format!("{ms}ms"));
        }
        let answer = hand_in(nats, &row, headers, Bytes::new()).await?;
        Ok(self.judged(answer, &row, &request.token, false).await)
    }

    /// The owner confirms whatever it need not hear again. What has come of it is in the run's history; where that cannot be
    /// read just now, it is only known that it is committed.
    pub(super) async fn judged(
        &self,
        answer: ActivityAnswer,
        row: &RunRow,
        token: &str,
        success: bool,
    ) -> ActivityAnswer {
        let Some(token) = TaskToken::decode(token).filter(|_| answer.stage == COMMITTED) else {
            return answer;
        };
        let heard = self.heard_of(row, TaskNo(token.task)).await;
        let stage = heard.map_or(COMMITTED, |heard| heard.stage(success));
        ActivityAnswer {
            stage: stage.to_owned(),
        }
    }

    async fn heard_of(&self, row: &RunRow, task: TaskNo) -> Option<HeardOf> {
        let mut heard = HeardOf::default();
        let mut after = 0;
        loop {
            let stored = self.store.history(row.run_id, after, CHUNK).await.ok()?;
            let read = stored.len();
            for stored in stored {
                let seq = u32::try_from(stored.seq).unwrap_or_default();
                after = stored.seq;
                let transition = Transition::read(seq, stored.at, stored.body).ok()?;
                transition.events.iter().for_each(|event| heard.learn(event, task));
            }
            if read < CHUNK as usize {
                return Some(heard);
            }
        }
    }

    pub(super) async fn heartbeat_activity(
        &self,
        nats: &Client,
        namespace: &Namespace,
        request: HeartbeatActivity,
    ) -> Result<HeartbeatAnswer, Refusal> {
        let details = request.details.as_ref().map(|details| details.to_string());
        let details = details.unwrap_or_default();
        if details.len() > MAX_DETAILS_BYTES {
            let problem = format!("{} bytes of details are more than {MAX_DETAILS_BYTES}", details.len());
            return Err(Refusal::new(413, &code::DETAILS_TOO_LARGE, problem));
        }
        let row = self.run_of_task(namespace, &request.token).await?;
        let mut headers = HeaderMap::new();
        headers.insert(header::TOKEN, request.token.as_str());
        let body = Bytes::from(details);
        let Some(answer) = ask_owner(nats, &row, "beat", &headers, &body).await? else {
            let problem = "the run's partition has no owner just now";
            return Err(Refusal::new(503, &code::UNAVAILABLE, problem));
        };
        if let Ok(answer) = serde_json::from_slice(&answer.payload) {
            return Ok(HeartbeatAnswer { answer });
        }
        refused(&answer)?;
        Err(Refusal::new(
            500,
            &code::INTERNAL,
            "the answer to a heartbeat cannot be read",
        ))
    }

    /// Whose task it is, by what its token says; whether that is true is for the owner to find.
    async fn run_of_task(&self, namespace: &Namespace, token: &str) -> Result<RunRow, Refusal> {
        let Some(read) = TaskToken::decode(token) else {
            let problem = "this is not the token of a task";
            return Err(Refusal::new(400, &code::BAD_TASK_TOKEN, problem));
        };
        self.find_run(namespace, &RunName::RunId(read.run_id)).await
    }
}

async fn hand_in(nats: &Client, row: &RunRow, headers: HeaderMap, body: Bytes) -> Result<ActivityAnswer, Refusal> {
    if let Some(answer) = ask_owner(nats, row, "result", &headers, &body).await? {
        let confirmed: Result<Confirmation, _> = serde_json::from_slice(&answer.payload);
        // One that is about to leave sends to the log.
        if confirmed.is_ok_and(|confirmed| confirmed.moved.is_empty()) {
            refused(&answer)?;
            let stage = COMMITTED.to_owned();
            return Ok(ActivityAnswer { stage });
        }
    }
    let unavailable = |problem: String| Refusal::new(503, &code::UNAVAILABLE, problem);
    let subject = subject::run_verb(row.namespace.as_str(), row.workflow_id.as_str(), "result");
    let subject = subject.map_err(|error| unavailable(error.to_string()))?;
    let request = Request::new().headers(headers).payload(body).timeout(Some(LOG_WITHIN));
    let answer = nats
        .send_request(subject, request)
        .await
        .map_err(|error| unavailable(format!("the log does not take it: {error}")))?;
    match serde_json::from_slice::<Stored>(&answer.payload) {
        Ok(Stored { seq }) if seq > 0 => Ok(ActivityAnswer {
            stage: "stored".to_owned(),
        }),
        _ => {
            let answer = String::from_utf8_lossy(&answer.payload);
            Err(unavailable(format!("the log does not take it: {answer}")))
        }
    }
}

/// `None` where nobody owns the partition, or its owner does not answer.
async fn ask_owner(
    nats: &Client,
    row: &RunRow,
    kind: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Option<Message>, Refusal> {
    let partition = u16::try_from(row.partition).unwrap_or(u16::MAX);
    let direct = subject::direct(row.namespace.as_str(), partition)
        .map_err(|error| Refusal::new(500, &code::INTERNAL, error.to_string()))?;
    let request = Request::new()
        .headers(headers.clone())
        .payload(body.clone())
        .timeout(Some(OWNER_WITHIN));
    match nats.send_request(format!("{direct}.{kind}"), request).await {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => match error.kind() {
            RequestErrorKind::NoResponders | RequestErrorKind::TimedOut => Ok(None),
            _ => Err(Refusal::new(503, &code::UNAVAILABLE, error.to_string())),
        },
    }
}

/// What the owner has against it.
fn refused(answer: &Message) -> Result<(), Refusal> {
    let confirmed: Result<Confirmation, _> = serde_json::from_slice(&answer.payload);
    let refused = confirmed.ok().and_then(|confirmed| {
        let mut results = confirmed.results.into_iter();
        results.find_map(|result| result.refused)
    });
    match refused {
        None => Ok(()),
        Some(body) => Err(as_refusal(body)),
    }
}

fn as_refusal(body: ErrorBody) -> Refusal {
    Refusal { status: 409, body }
}

/// What a header can carry.
fn one_line(text: &str) -> String {
    let short = &text[..text.floor_char_boundary(4_096)];
    short.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
