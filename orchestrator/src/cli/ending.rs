//! Waiting for the end of a run that was started: by its answer, and by asking.
//!
//! The answer is one message of core NATS. It is lost when the connection is away in the moment it is sent, or when it is
//! larger than the server takes, and nobody sends it again; so every few seconds the API is asked as well. What counts is
//! the run that this very request has started: under the same workflow id an older one may have closed. Where that is tried again,
//! its end is that of its last attempt. The end of one that continues as new is known by the answer alone.

use std::time::Duration;

use knarr_schemas::api::{RunDescription, RunName, ShowRun, verb};
use knarr_schemas::body::{Answer, AnswerStage};
use uuid::Uuid;

use crate::api::client::ApiClient;
use crate::api::command::{AnswerError, AnswerWanted, Commander, StartCommand, Stored};
use crate::cli::output;

const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Each repeat of a start is a message in the log, which an orchestrator that is away finds there when it is back.
const REPEAT: Duration = Duration::from_secs(60);

/// The start that was stored, and whom to ask about it.
#[derive(Debug)]
pub struct Asked {
    pub api: ApiClient,
    pub commander: Commander,
    pub command: StartCommand,
}

/// The first of: the answer, what the API says, the limit.
pub async fn of_run(stored: &mut Stored, limit: Duration, asked: &Asked) -> Result<Answer, AnswerError> {
    let asking = async {
        let mut name = asked.command.workflow_id.clone().map(RunName::WorkflowId);
        loop {
            tokio::time::sleep(ASK_AGAIN).await;
            if name.is_none() {
                name = asked.run_of_unkeyed_start().await.map(RunName::RunId);
            }
            if let Some(run) = &mut name
                && let Some(answer) = asked.end_of(run).await
            {
                return answer;
            }
        }
    };
    tokio::select! {
        answer = stored.answer(Some(limit)) => answer,
        answer = asking => Ok(answer),
    }
}

impl Asked {
    /// The run as it stands when nobody waits for it any more; `None` where it is not known.
    pub async fn standing(&self) -> Option<RunDescription> {
        let mut name = match &self.command.workflow_id {
            Some(id) => RunName::WorkflowId(id.clone()),
            None => {
                let run = tokio::time::timeout(ASK_AGAIN, self.run_of_unkeyed_start()).await;
                RunName::RunId(run.ok().flatten()?)
            }
        };
        self.latest(&mut name).await
    }

    /// `None` = not closed, another request's, or not known just now. Goes on to the attempt that is the last so far.
    async fn end_of(&self, run: &mut RunName) -> Option<Answer> {
        let shown = self.latest(run).await?;
        if shown.run.closed_at.is_none() || shown.run.status == "continued_as_new" {
            return None;
        }
        if shown.shortened {
            output::note("note: the run's output is too large to be sent; `knarr history` shows it in parts");
        }
        Some(Answer {
            workflow_id: shown.run.workflow_id,
            run_id: Some(shown.run.run_id),
            stage: AnswerStage::Closed,
            status: Some(shown.run.status),
            output: shown.output,
            failure: shown.failure,
            error: None,
        })
    }

    /// The last attempt of what this request has started.
    async fn latest(&self, run: &mut RunName) -> Option<RunDescription> {
        let mut shown = self.show(run).await?;
        let request = match shown.run.attempt.as_ref().and_then(|attempt| attempt.first) {
            Some(first) => self.show(&RunName::RunId(first)).await?.request_id,
            None => shown.request_id.clone(),
        };
        if request.as_ref() != Some(&self.command.request_id) {
            return None;
        }
        while let Some(next) = shown.run.retried_by {
            *run = RunName::RunId(next);
            shown = self.show(run).await?;
        }
        Some(shown)
    }

    async fn show(&self, run: &RunName) -> Option<RunDescription> {
        let request = ShowRun { run: run.clone() };
        self.api.call(verb::RUN_SHOW, &request).await.ok()
    }

    /// Only the orchestrator knows which id an un-keyed start was given. The same request sent again starts nothing and
    /// is answered with the run.
    async fn run_of_unkeyed_start(&self) -> Option<Uuid> {
        // A run that was there already belongs to another request: its end is known by the answer alone, and once it has
        // closed a repeat would start one.
        if self.command.id_conflict.as_deref() == Some("use_existing") {
            return None;
        }
        let command = StartCommand {
            answer: Some(AnswerWanted::Started),
            ..self.command.clone()
        };
        let mut stored = self.commander.start(command).await.ok()?;
        stored.answer(Some(REPEAT)).await.ok()?.run_id
    }
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream;
    use futures_util::StreamExt as _;
    use knarr_schemas::body::{RunAttempt, RunSummary};
    use knarr_schemas::header;
    use serde_json::json;

    use super::*;
    use crate::bus::nats::test_server::TestServer;

    fn run(request_id: &str, closed: bool) -> RunDescription {
        RunDescription {
            run: RunSummary {
                namespace: "default".to_owned(),
                workflow_id: "o-1".to_owned(),
                run_id: Uuid::from_u128(1),
                workflow: "order".to_owned(),
                version: 1,
                status: if closed { "completed" } else { "running" }.to_owned(),
                started_at: chrono::DateTime::UNIX_EPOCH,
                closed_at: closed.then_some(chrono::DateTime::UNIX_EPOCH),
                begins_at: None,
                attempt: None,
                retried_by: None,
            },
            definition: String::new(),
            seq: 1,
            request_id: Some(request_id.to_owned()),
            search_attributes: serde_json::Map::new(),
            input: None,
            output: Some(json!(7)),
            failure: None,
            parked: None,
            turn: None,
            wake_at: None,
            steps: Vec::new(),
            ledger: Vec::new(),
            tasks: Vec::new(),
            waiting: Vec::new(),
            signals: Vec::new(),
            updates: Vec::new(),
            operations: Vec::new(),
            limits: Vec::new(),
            past_pivot: false,
            shortened: false,
            left_out: None,
        }
    }

    /// An orchestrator whose answers to `closed` are all lost.
    async fn start(workflow_id: Option<&str>, shown: Vec<RunDescription>) -> Result<Answer, AnswerError> {
        let server = TestServer::start();
        let nats = async_nats::connect(server.url()).await.unwrap();
        let config = jetstream::stream::Config {
            name: "KNARR_IN".to_owned(),
            subjects: vec!["knarr.run.>".to_owned(), "knarr.start.>".to_owned()],
            ..Default::default()
        };
        jetstream::new(nats.clone()).create_stream(config).await.unwrap();
        let mut calls = nats.subscribe("knarr.api.default.run.show").await.unwrap();
        let mut starts = nats.subscribe("knarr.start.>").await.unwrap();
        nats.flush().await.unwrap();
        let answering = nats.clone();
        tokio::spawn(async move {
            let mut shown = shown.into_iter();
            loop {
                tokio::select! {
                    Some(call) = calls.next() => {
                        let body = serde_json::to_vec(&shown.next().unwrap()).unwrap();
                        answering.publish(call.reply.unwrap(), body.into()).await.unwrap();
                    }
                    Some(start) = starts.next() => {
                        let headers = start.headers.unwrap();
                        if headers.get(header::REPLY_ON).unwrap().as_str() == "started" {
                            let to = headers.get(header::REPLY_TO).unwrap().as_str().to_owned();
                            let body = json!({ "workflow_id": "o-1", "run_id": Uuid::from_u128(1), "stage": "existing" });
                            answering.publish(to, body.to_string().into()).await.unwrap();
                        }
                    }
                    else => return,
                }
            }
        });
        let limit = Duration::from_secs(20);
        let asked = Asked {
            api: ApiClient::new(nats.clone(), "default", limit),
            commander: Commander::new(nats, "default", limit),
            command: StartCommand {
                workflow: "order".to_owned(),
                workflow_id: workflow_id.map(str::to_owned),
                request_id: "r-1".to_owned(),
                answer: Some(AnswerWanted::Closed),
                ..StartCommand::default()
            },
        };
        let mut stored = asked.commander.start(asked.command.clone()).await.unwrap();
        of_run(&mut stored, limit, &asked).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_end_whose_answer_was_lost_is_found_by_asking() {
        let shown = vec![run("another", true), run("r-1", false), run("r-1", true)];
        let (keyed, unkeyed) = tokio::join!(start(Some("o-1"), shown), start(None, vec![run("r-1", true)]));
        for answer in [keyed.unwrap(), unkeyed.unwrap()] {
            assert_eq!(
                (answer.stage, answer.status.as_deref()),
                (AnswerStage::Closed, Some("completed"))
            );
            assert_eq!(answer.output, Some(json!(7)));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_end_of_a_run_that_is_tried_again_is_that_of_its_last_attempt() {
        let attempt = |number: u32, retried: bool| {
            let mut shown = run("r-1", true);
            shown.run.run_id = Uuid::from_u128(u128::from(number));
            shown.run.retried_by = retried.then(|| Uuid::from_u128(u128::from(number) + 1));
            if number > 1 {
                shown.request_id = None;
                shown.run.attempt = Some(RunAttempt {
                    number,
                    most: Some(3),
                    first: Some(Uuid::from_u128(1)),
                    begins_at: chrono::DateTime::UNIX_EPOCH,
                });
            }
            if retried {
                shown.run.status = "compensated".to_owned();
                shown.output = None;
            }
            shown
        };
        let open = |mut shown: RunDescription| {
            shown.run.closed_at = None;
            shown.run.status = "running".to_owned();
            shown
        };
        // By the id: the second one waits, and its first was started by this request; then the third has completed.
        let keyed = vec![
            open(attempt(2, false)),
            attempt(1, true),
            attempt(2, true),
            attempt(1, true),
            attempt(3, false),
        ];
        // By the run that was started.
        let unkeyed = vec![attempt(1, true), attempt(2, true), attempt(3, false)];
        let (keyed, unkeyed) = tokio::join!(start(Some("o-1"), keyed), start(None, unkeyed));
        for answer in [keyed.unwrap(), unkeyed.unwrap()] {
            assert_eq!(answer.status.as_deref(), Some("completed"));
            assert_eq!(
                (answer.run_id, answer.output),
                (Some(Uuid::from_u128(3)), Some(json!(7)))
            );
        }
    }
}
