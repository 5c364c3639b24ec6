//! Commands against a real nats-server, with a stand-in for the orchestrator where one has to answer.

use std::time::Duration;

use async_nats::jetstream;
use clap::Parser as _;
use futures_util::StreamExt as _;
use knarr_schemas::body::{Answer, AnswerStage, FailureBody};
use knarr_schemas::header;
use uuid::Uuid;

use super::*;
use crate::api::command::{AnswerError, CommandError};
use crate::bus::nats::test_server::TestServer;

mod waits;

async fn knarr(url: &str, arguments: &[&str]) -> Result<(), CliError> {
    let line = [&["knarr", "--nats-url", url, "-o", "json"], arguments].concat();
    execute(Cli::try_parse_from(line).unwrap()).await.1
}

/// Its code, and the status of the process.
fn end(result: Result<(), CliError>) -> (String, u8) {
    let error = result.unwrap_err();
    (error.body.map(|body| body.code).unwrap_or_default(), error.exit as u8)
}

/// Answers every message of the log that asks for it.
async fn stand_in(url: &str, answer: impl Fn(&str) -> Answer + Send + 'static) {
    let nats = async_nats::connect(url).await.unwrap();
    let config = jetstream::stream::Config {
        name: "KNARR_IN".to_owned(),
        subjects: vec!["knarr.run.>".to_owned(), "knarr.start.>".to_owned()],
        ..Default::default()
    };
    jetstream::new(nats.clone()).create_stream(config).await.unwrap();
    let mut messages = nats.subscribe("knarr.run.>").await.unwrap();
    nats.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            let headers = message.headers.unwrap_or_default();
            if let Some(to) = headers.get(header::REPLY_TO) {
                let body = serde_json::to_vec(&answer(&message.subject)).unwrap();
                nats.publish(to.as_str().to_owned(), body.into()).await.unwrap();
            }
        }
    });
}

fn answer(stage: AnswerStage, status: Option<&str>) -> Answer {
    Answer {
        workflow_id: "o-1".to_owned(),
        run_id: Some(Uuid::from_u128(1)),
        stage,
        status: status.map(ToOwned::to_owned),
        output: None,
        failure: None,
        error: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_said() {
    // Nothing listens on the port of a server that has ended.
    let gone = TestServer::start().url();
    assert_eq!(end(knarr(&gone, &["list"]).await), ("KN0341".to_owned(), 3));

    let server = TestServer::start();
    let url = server.url();
    assert_eq!(end(knarr(&url, &["list"]).await), ("KN0342".to_owned(), 3));
    assert_eq!(end(knarr(&url, &["show", "o-1"]).await), ("KN0342".to_owned(), 3));
    assert_eq!(end(knarr(&url, &["start", "order"]).await), ("KN0344".to_owned(), 3));
    assert_eq!(end(knarr(&url, &["cancel", "o-1"]).await), ("KN0344".to_owned(), 3));
    // Nobody can be asked in a test.
    assert_eq!(end(knarr(&url, &["terminate", "o-1"]).await), ("KN0349".to_owned(), 2));
    // One server of a cluster is enough.
    let cluster = format!("{gone}, {url}");
    assert_eq!(end(knarr(&cluster, &["list"]).await), ("KN0342".to_owned(), 3));
    let wrong = knarr("nats://u:secret@no url", &["list"]).await.unwrap_err();
    assert!(!wrong.to_string().contains("secret"), "{wrong}");
    assert_eq!(end(Err(wrong)), ("KN0348".to_owned(), 2));
    let broken = ["start", "order", "--request-id", "a\nb"];
    assert_eq!(end(knarr(&url, &broken).await), ("KN0348".to_owned(), 2));
    assert_eq!(
        end(knarr(&url, &["start", "order", "-i", "{"]).await),
        ("KN0348".to_owned(), 2)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_of_a_start_is_that_of_its_run() {
    let server = TestServer::start();
    let url = server.url();
    stand_in(&url, |subject| match subject.split('.').nth(3) {
        Some("good") => answer(AnswerStage::Closed, Some("completed")),
        Some("undone") => answer(AnswerStage::Closed, Some("compensated")),
        Some("new") => answer(AnswerStage::Started, Some("running")),
        _ => Answer {
            run_id: None,
            error: Some(knarr_schemas::code::UNKNOWN_WORKFLOW.plain()),
            ..answer(AnswerStage::Refused, None)
        },
    })
    .await;
    let start = |id| {
        let url = url.clone();
        async move { knarr(&url, &["start", "order", "--id", id, "--wait"]).await }
    };
    assert_eq!(start("good").await, Ok(()));
    assert_eq!(start("new").await, Ok(()));
    assert_eq!(end(start("undone").await), (String::new(), 1));
    // In JSON the answer itself says why.
    assert_eq!(end(start("refused").await), (String::new(), 1));
    assert_eq!(knarr(&url, &["start", "order", "--wait", "stored"]).await, Ok(()));
    // Un-keyed starts are not answered by this stand-in.
    let unanswered = knarr(&url, &["--timeout", "50ms", "start", "order"]).await;
    assert_eq!(end(unanswered), ("KN0347".to_owned(), 3));
    // Whose end was waited for, it has been started and goes on.
    let waiting = ["--timeout", "1s", "start", "order", "--wait", "--request-id", "r-9"];
    let body = knarr(&url, &waiting).await.unwrap_err().body.unwrap();
    assert_eq!(body.code, "KN0347");
    assert_eq!(
        body.message,
        "the start is stored, but the run has not closed within 1s (request id r-9)"
    );
    assert!(
        body.remedy.starts_with("It goes on without being waited for"),
        "{body:?}"
    );
}

/// The environment variable that makes the test below wait for a run, as the process that is interrupted.
const WAITS_AT: &str = "KNARR_TEST_WAITS_AT";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_interrupted_while_waiting_is_told_that_the_run_goes_on() {
    let start = ["start", "order", "--id", "o-1", "--wait", "--request-id", "r-1"];
    if let Ok(url) = std::env::var(WAITS_AT) {
        let line = [&["knarr", "--nats-url", &url], &start[..]].concat();
        let (globals, result) = execute(Cli::try_parse_from(line).unwrap()).await;
        let error = result.unwrap_err();
        report(&error, &globals);
        std::process::exit(error.exit as i32);
    }
    let server = TestServer::start();
    let url = server.url();
    let nats = async_nats::connect(&url).await.unwrap();
    let config = jetstream::stream::Config {
        name: "KNARR_IN".to_owned(),
        subjects: vec!["knarr.run.>".to_owned()],
        ..Default::default()
    };
    jetstream::new(nats.clone()).create_stream(config).await.unwrap();
    let mut starts = nats.subscribe("knarr.run.>").await.unwrap();
    nats.flush().await.unwrap();
    let name = "cli::tests::who_is_interrupted_while_waiting_is_told_that_the_run_goes_on";
    let waiting = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(WAITS_AT, &url)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    starts.next().await.unwrap();
    let pid = nix::unistd::Pid::from_raw(waiting.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let ended = waiting.wait_with_output().await.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    for part in [
        "error[KN0404]: interrupted while waiting; the start is stored, and the run goes on (request id r-1)",
        "show o-1`.",
        "--request-id=r-1",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_says_who_asks_for_it() {
    let server = TestServer::start();
    let url = server.url();
    let nats = async_nats::connect(&url).await.unwrap();
    // Whoever listens is no log: nothing is acknowledged.
    let mut messages = nats.subscribe("knarr.>").await.unwrap();
    nats.flush().await.unwrap();
    let who = bulk::whoami();
    for line in [
        &["cancel", "o-1"][..],
        &["terminate", "o-1", "--yes"],
        &["signal", "o-1", "paid"],
        &["limit", "raise", "o-1", "--events", "100000"],
        &["schedule", "create", "nightly", "--workflow", "order", "--every", "1h"],
        &["schedule", "pause", "nightly"],
        &["schedule", "delete", "nightly", "--yes"],
        &["trigger", "pause", "order/paid"],
    ] {
        for (by, expected) in [(&[][..], who.as_str()), (&["--by", "ann"], "ann")] {
            let line = [&["--timeout", "50ms"], line, by].concat();
            assert_eq!(end(knarr(&url, &line).await).0, "KN0346", "{line:?}");
            let headers = messages.next().await.unwrap().headers.unwrap();
            assert_eq!(headers.get(header::BY).unwrap().as_str(), expected, "{line:?}");
        }
    }
}

/// A message whose acknowledgement is lost may be stored: what is printed must lead back to the same request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_doubt_can_be_sent_again_as_it_was() {
    let server = TestServer::start();
    let url = server.url();
    let nats = async_nats::connect(&url).await.unwrap();
    let mut messages = nats.subscribe("knarr.>").await.unwrap();
    nats.flush().await.unwrap();
    for line in [
        &["start", "order"][..],
        &["start", "order", "--id", "o-1"],
        &["cancel", "o-1"],
        &["signal", "o-1", "paid", "--body", "7"],
    ] {
        let unsent = knarr(&url, &[&["--timeout", "50ms"], line].concat()).await.unwrap_err();
        let body = unsent.body.unwrap();
        assert_eq!(body.code, "KN0346", "{body:?}");
        let sent = messages.next().await.unwrap();
        let headers = sent.headers.unwrap();
        let request_id = headers.get(header::REQUEST_ID).unwrap().as_str();
        assert!(body.message.contains(request_id), "{body:?}");
        let (_, command) = body.remedy.split_once("harmlessly: ").unwrap();
        let words = command.split(' ');
        let repeated = execute(Cli::try_parse_from(words.chain(["--timeout", "50ms"])).unwrap()).await;
        assert!(repeated.1.is_err());
        let again = messages.next().await.unwrap();
        assert_eq!(again.subject, sent.subject);
        let headers = again.headers.unwrap();
        assert_eq!(headers.get(header::REQUEST_ID).unwrap().as_str(), request_id);
    }
}

/// A complaint of the server's may have nothing to do with the error, so it is added and nothing is taken away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nats_complained_of_is_added_to_an_error() {
    let server = TestServer::start();
    let url = server.url();
    let cli = Cli::try_parse_from(["knarr", "--nats-url", &url, "list"]).unwrap();
    let connection = cli.globals.connect().await.unwrap();
    connection.complain("permissions violation");
    let error = connection.explain(CommandError::Unacknowledged("timed out".to_owned()));
    let body = error.body.unwrap();
    assert_eq!(body.code, "KN0346");
    assert!(body.message.contains("timed out") && body.message.ends_with("(NATS says: permissions violation)"));
    assert!(body.remedy.contains("--request-id"));
}

#[test]
fn answers_and_errors_look_like_this() {
    let look = globals::Look {
        color: false,
        width: None,
        now: chrono::DateTime::UNIX_EPOCH,
    };
    let completed = Answer {
        output: Some(serde_json::json!({"order_id": "o-1", "lines": [1]})),
        ..answer(AnswerStage::Closed, Some("completed"))
    };
    let compensated = Answer {
        failure: Some(FailureBody {
            step: Some("payment".to_owned()),
            error_type: "card_declined".to_owned(),
            message: "the card was declined".to_owned(),
        }),
        ..answer(AnswerStage::Closed, Some("compensated"))
    };
    let timed_out = AnswerError::TimedOut(Duration::from_secs(10));
    let cli = Cli::try_parse_from(["knarr", "start", "order", "--id", "o-1", "-i", "{\"items\": []}"]).unwrap();
    let Command::Start(args) = &cli.command else {
        panic!("{cli:?}")
    };
    let again = again::Again::start(args, &cli.globals, "r-1");
    let texts = [
        start::render(&answer(AnswerStage::Started, Some("running")), &look),
        start::render(&answer(AnswerStage::Existing, Some("running")), &look),
        start::render(&answer(AnswerStage::Accepted, Some("running")), &look),
        start::render(&completed, &look),
        start::render(&compensated, &look),
        CliError::unanswered(&timed_out, &again).to_string(),
        CliError::unsent(CommandError::Unacknowledged("timed out".to_owned()), &again).to_string(),
        CliError::refused(knarr_schemas::code::WORKFLOW_ID_OPEN.error("`o-1` is open (run 7)")).to_string(),
    ];
    insta::assert_snapshot!("answers", texts.join("\n\n"));
}
