//! What is said when something is not done in time, and of ids that are those of runs.

use knarr_schemas::api::{RunDescription, RunName, ShowRun};
use serde_json::{Value, json};

use super::*;

/// The run of the golden files, said otherwise.
fn shown(change: impl FnOnce(&mut Value)) -> RunDescription {
    let golden = include_str!("../../../../schemas/golden/v1/api-run-show-reply.json");
    let mut golden: Value = serde_json::from_str(golden).unwrap();
    let body = &mut golden["body"];
    body["run"]["workflow_id"] = json!("o-1");
    body["request_id"] = json!("r-1");
    change(body);
    serde_json::from_value(body.take()).unwrap()
}

/// A log whose messages nobody answers, or refuses, and an API that shows this run, by whatever name.
async fn orchestrator(url: &str, shown: RunDescription) {
    stand_in(url, |subject| match subject.split('.').nth(3) {
        Some("o-1") => answer(AnswerStage::Started, Some("running")),
        _ => Answer {
            run_id: None,
            error: Some(knarr_schemas::code::UNKNOWN_RUN.plain()),
            ..answer(AnswerStage::Refused, None)
        },
    })
    .await;
    shows(url, shown).await;
}

async fn silent(url: &str, shown: RunDescription) {
    let nats = async_nats::connect(url).await.unwrap();
    let config = jetstream::stream::Config {
        name: "KNARR_IN".to_owned(),
        subjects: vec!["knarr.run.>".to_owned(), "knarr.start.>".to_owned()],
        ..Default::default()
    };
    jetstream::new(nats).create_stream(config).await.unwrap();
    shows(url, shown).await;
}

async fn shows(url: &str, shown: RunDescription) {
    let nats = async_nats::connect(url).await.unwrap();
    let mut calls = nats.subscribe("knarr.api.default.run.show").await.unwrap();
    nats.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(call) = calls.next().await {
            let asked: ShowRun = serde_json::from_slice(&call.payload).unwrap();
            let named = match asked.run {
                RunName::RunId(id) => id == shown.run.run_id,
                RunName::WorkflowId(id) => id == shown.run.workflow_id,
            };
            let body = match named {
                true => serde_json::to_vec(&shown).unwrap(),
                false => serde_json::to_vec(&knarr_schemas::code::UNKNOWN_RUN.plain()).unwrap(),
            };
            nats.publish(call.reply.unwrap(), body.into()).await.unwrap();
        }
    });
}

async fn refusal(url: &str, line: &[&str]) -> (knarr_schemas::body::ErrorBody, u8) {
    let error = knarr_for_people(url, line).await.unwrap_err();
    (error.body.unwrap(), error.exit as u8)
}

async fn knarr_for_people(url: &str, arguments: &[&str]) -> Result<(), CliError> {
    let line = [&["knarr", "--nats-url", url], arguments].concat();
    execute(Cli::try_parse_from(line).unwrap()).await.1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_takes_longer_goes_on() {
    let server = TestServer::start();
    let url = server.url();
    let run = shown(|body| {
        body["run"]["status"] = json!("running");
        body["updates"] = json!([
            { "id": "u-1", "name": "slow", "status": "running", "step": "$updates.slow[0].wait" },
            { "id": "u-2", "name": "slow", "status": "accepted" },
        ]);
    });
    silent(&url, run).await;
    let update = |id| ["--timeout", "300ms", "update", "o-1", "slow", "--request-id", id];
    let (body, exit) = refusal(&url, &update("u-1")).await;
    assert_eq!((&*body.code, exit), ("KN0405", 124), "{body:?}");
    assert_eq!(
        body.message,
        "the update is under way (at `$updates.slow[0].wait`) and has not been done within 300ms (request id u-1)"
    );
    assert!(body.remedy.contains(" show o-1`"), "{body:?}");
    let (body, exit) = refusal(&url, &update("u-2")).await;
    assert_eq!((&*body.code, exit), ("KN0405", 124), "{body:?}");
    assert!(
        body.message
            .starts_with("the update is accepted and waits for its turn")
    );
    // One that the run does not have is in doubt.
    let (body, exit) = refusal(&url, &update("u-3")).await;
    assert_eq!((&*body.code, exit), ("KN0347", 3), "{body:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_end_does_not_come_is_said_to_go_on_or_to_be_parked() {
    let start = |id| {
        [
            "--timeout",
            "300ms",
            "start",
            "order",
            "--id",
            id,
            "--wait",
            "--request-id",
            "r-1",
        ]
    };
    for (status, says, look) in [
        (
            "running",
            "`o-1` is running and has not closed within 300ms (request id r-1)",
            "show o-1`",
        ),
        (
            "parked",
            "`o-1` is parked and has not closed within 300ms: the run waits for an operator (too many events) (request id r-1)",
            "parked list o-1`",
        ),
    ] {
        let server = TestServer::start();
        let url = server.url();
        silent(&url, shown(|body| body["run"]["status"] = json!(status))).await;
        let (body, exit) = refusal(&url, &start("o-1")).await;
        assert_eq!((&*body.code, exit), ("KN0405", 124), "{body:?}");
        assert_eq!(body.message, says);
        assert!(body.remedy.contains(look), "{body:?}");
        // Whose run is not there yet, or another request's, is in doubt as before.
        let (body, exit) = refusal(&url, &start("o-2")).await;
        assert_eq!((&*body.code, exit), ("KN0347", 3), "{body:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_a_run_id_for_a_workflow_id_is_told() {
    let server = TestServer::start();
    let url = server.url();
    let run = shown(|_| ());
    let id = run.run.run_id.to_string();
    orchestrator(&url, run).await;
    let (body, exit) = refusal(&url, &["cancel", &id]).await;
    assert_eq!((&*body.code, exit), ("KN0211", 1));
    assert_eq!(
        body.message,
        format!("`{id}` is a run id, and this takes a workflow id: that of the run is `o-1`")
    );
    assert!(
        body.remedy.contains(&format!("`knarr cancel o-1 --run {id}`")),
        "{body:?}"
    );
    let (body, _) = refusal(&url, &["signal", &id, "paid"]).await;
    assert!(body.remedy.contains("`knarr signal o-1 …`"), "{body:?}");
    // Of another one, that it has the form of one.
    let other = Uuid::from_u128(9).to_string();
    let (body, _) = refusal(&url, &["update", &other, "change"]).await;
    assert!(body.message.contains("has the form of a run id"), "{body:?}");
    let (body, _) = refusal(&url, &["cancel", "o-2"]).await;
    assert_eq!(body.message, knarr_schemas::code::UNKNOWN_RUN.cause);
}
