//! Golden files: messages as they were once sent. They must be readable for ever, and what is read must be all there is.
//!
//! A file is only ever added. `v1` is the first version of the wire; each file holds one message's headers and body.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use knarr_schemas::subject::{self, LogSubject, RunSubject};
use knarr_schemas::token::TaskToken;
use knarr_schemas::{api, body, code, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    subject: String,
    /// Of the log, as the server's mapping stores it.
    #[serde(default)]
    stored_as: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Value,
}

fn read(name: &str) -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden/v1")
        .join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads the body as its type, and finds that nothing of it was dropped.
fn body_of<T: DeserializeOwned + Serialize>(name: &str) -> T {
    let golden = read(name);
    let typed: T = serde_json::from_value(golden.body.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(serde_json::to_value(&typed).unwrap(), golden.body, "{name}");
    typed
}

fn run_subject<'a>(text: &'a str) -> RunSubject<'a> {
    match subject::parse_log_subject(text) {
        Ok(LogSubject::Run(run)) => run,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn bodies_read_as_they_were_written() {
    let started: body::Answer = body_of("answer-started");
    assert_eq!(started.stage, body::AnswerStage::Started);
    assert!(body_of::<body::Answer>("answer-completed").output.is_some());
    let closed: body::Answer = body_of("answer-closed");
    assert_eq!(closed.failure.unwrap().step.as_deref(), Some("stock"));
    let refused: body::Answer = body_of("answer-refused");
    assert_eq!(
        code::lookup(&refused.error.unwrap().code),
        Some(&code::UNKNOWN_WORKFLOW)
    );
    let no_place: body::Answer = body_of("answer-no-place");
    assert_eq!(code::lookup(&no_place.error.unwrap().code), Some(&code::NO_PLACE));
    let confirmation: body::Confirmation = body_of("confirmation");
    assert_eq!(confirmation.results.len(), 2);
    assert!(
        confirmation
            .results
            .iter()
            .all(|result| TaskToken::decode(&result.token).is_some())
    );
    assert_eq!(body_of::<body::RaiseLimits>("limit").pending, Some(5_000));
    let moved: body::Confirmation = body_of("confirmation-moved");
    assert!(moved.results.is_empty() && TaskToken::decode(&moved.moved[0]).is_some());
    assert_eq!(body_of::<body::RunMessage>("run-message").number, 3);
    assert_eq!(body_of::<body::RunMessageAnswer>("run-message-answer").number, 3);
    assert_eq!(body_of::<body::RunEvent>("run-event-started").status, "running");
    assert!(body_of::<body::RunEvent>("run-event-completed").output.is_some());
    assert!(body_of::<body::RunEvent>("run-event-large").output_bytes.is_some());
    assert!(body_of::<body::RunEvent>("run-event-compensated").error.is_some());
    assert!(body_of::<body::RunEvent>("run-event-continued").continued_by.is_some());
    assert_eq!(body_of::<body::BeatAnswer>("beat-answer"), body::BeatAnswer::Cancel);
    assert_eq!(body_of::<Value>("beat-details")["page"], 7);
    for (name, answer) in [
        ("claim-answer", body::ClaimAnswer::Granted),
        ("claim-answer-taken", body::ClaimAnswer::Taken),
        ("claim-answer-cancel", body::ClaimAnswer::Cancel),
        ("claim-answer-gone", body::ClaimAnswer::Gone),
    ] {
        assert_eq!(body_of::<body::ClaimAnswer>(name), answer);
    }
    assert_eq!(body_of::<body::CancelTasks>("cancel-tasks").tokens.len(), 1);
    let asked: body::ScheduleRequest = body_of("schedule");
    assert_eq!(asked.ask, body::ScheduleVerb::Create);
    assert!(body_of::<body::ScheduleRequest>("schedule-backfill").until.is_some());
    let asked: body::TriggerRequest = body_of("trigger");
    assert_eq!(asked.ask, body::TriggerVerb::Define);
    let reset: body::TriggerRequest = body_of("trigger-reset");
    assert_eq!(reset.to, Some(body::TriggerPosition::Sequence(1041)));
    assert_eq!(body_of::<body::RunSummary>("run-summary").version, 3);
}

#[test]
fn calls_of_the_api_read_as_they_were_written() {
    body_of::<api::RegisterDefinition>("api-definition-register-request");
    body_of::<api::RegisteredDefinition>("api-definition-register-reply");
    let scheduled: api::RegisteredDefinition = body_of("api-definition-register-scheduled");
    assert_eq!(scheduled.schedule.unwrap().next.len(), 2);
    body_of::<api::ListDefinitions>("api-definition-list-request");
    body_of::<api::DefinitionPage>("api-definition-list-reply");
    body_of::<api::SetDefaultVersion>("api-definition-default-request");
    body_of::<api::DefinitionInfo>("api-definition-default-reply");
    body_of::<api::ShowDefinition>("api-definition-show-request");
    body_of::<api::DefinitionDetail>("api-definition-show-reply");
    body_of::<api::ListRuns>("api-run-list-request");
    body_of::<api::RunPage>("api-run-list-reply");
    body_of::<api::ShowRun>("api-run-show-request");
    body_of::<api::RunDescription>("api-run-show-reply");
    let waiting: api::RunDescription = body_of("api-run-show-waiting");
    assert_eq!(waiting.turn.unwrap().waiting, Some(3));
    body_of::<api::ShowHistory>("api-run-history-request");
    body_of::<api::HistoryPage>("api-run-history-reply");
    body_of::<api::CompleteActivity>("api-activity-complete-request");
    body_of::<api::ActivityAnswer>("api-activity-complete-reply");
    let failed: api::FailActivity = body_of("api-activity-fail-request");
    assert!(failed.not_done && !failed.retryable);
    body_of::<api::ActivityAnswer>("api-activity-fail-reply");
    body_of::<api::HeartbeatActivity>("api-activity-heartbeat-request");
    assert_eq!(
        body_of::<api::HeartbeatAnswer>("api-activity-heartbeat-reply").answer,
        body::BeatAnswer::Cancel
    );
    body_of::<api::ListParked>("api-parked-list-request");
    body_of::<api::ParkedPage>("api-parked-list-reply");
    body_of::<api::CheckMigration>("api-migration-check-request");
    body_of::<api::MigrationPage>("api-migration-check-reply");
    body_of::<api::RunDescription>("api-run-show-operations");
    body_of::<api::ListSchedules>("api-schedule-list-request");
    body_of::<api::SchedulePage>("api-schedule-list-reply");
    body_of::<api::ShowSchedule>("api-schedule-show-request");
    body_of::<api::ScheduleDescription>("api-schedule-show-reply");
    body_of::<api::ListTriggers>("api-trigger-list-request");
    body_of::<api::TriggerPage>("api-trigger-list-reply");
    body_of::<api::ShowTrigger>("api-trigger-show-request");
    body_of::<api::TriggerDescription>("api-trigger-show-reply");
    body_of::<api::CreateNamespace>("api-namespace-create-request");
    body_of::<api::NamespaceInfo>("api-namespace-create-reply");
    assert_eq!(
        body_of::<api::SetNamespace>("api-namespace-set-request").events,
        Some(true)
    );
    assert_eq!(
        body_of::<api::NamespaceInfo>("api-namespace-set-reply").events,
        Some(true)
    );
    body_of::<api::ListNamespaces>("api-namespace-list-request");
    body_of::<api::NamespacePage>("api-namespace-list-reply");
    body_of::<api::SetQueue>("api-queue-set-request");
    assert_eq!(
        body_of::<api::SetQueue>("api-queue-set-lease").ack_wait_ms,
        Some(120_000)
    );
    body_of::<api::QueueInfo>("api-queue-set-reply");
    body_of::<api::ListQueues>("api-queue-list-request");
    body_of::<api::QueuePage>("api-queue-list-reply");
}

#[test]
fn messages_to_runs_read_as_they_were_addressed() {
    // File → workflow id, verb, name.
    for (name, workflow_id, verb, rest) in [
        ("start", "o/1", "start", Some("order")),
        ("start-queued", "o/1", "start", Some("order")),
        ("cancel", "o/1", "cancel", None),
        ("terminate", "o/1", "terminate", None),
        ("limit", "o/1", "limit", None),
        ("result-log", "o/1", "result", None),
        ("signal", "o/1", "signal", Some("paid")),
        ("parked-edit", "o/1", "parked", Some("edit")),
        ("migrate", "o/1", "migrate", None),
        ("run-message", "o/1", "message", None),
        ("run-message-answer", "o/1", "answer", None),
    ] {
        let golden = read(name);
        for text in [&golden.subject, golden.stored_as.as_ref().unwrap()] {
            let run = run_subject(text);
            assert_eq!(
                (&*run.namespace, &*run.workflow_id, run.verb, run.name),
                ("default", workflow_id, verb, rest),
                "{name}"
            );
        }
        // The server's own mapping: `knarr.in.<partition(64, namespace, id)>.…`.
        let partition = subject::partition_of("default", "o%2F1", 64);
        assert!(
            golden
                .stored_as
                .unwrap()
                .starts_with(&format!("knarr.in.{partition}.default.o%2F1.")),
            "{name}"
        );
    }
    assert_eq!(
        subject::parse_log_subject(&read("start-unkeyed").subject),
        Ok(LogSubject::UnkeyedStart {
            namespace: "default".into(),
            workflow: "order".into()
        })
    );
}

#[test]
fn subjects_are_composed_as_they_always_were() {
    for (composed, golden) in [
        (subject::start("default", "o/1", "order"), "start"),
        (subject::unkeyed_start("default", "order"), "start-unkeyed"),
        (subject::run_verb("default", "o/1", "cancel"), "cancel"),
        (
            subject::run_verb("default", "$schedule/nightly", "schedule"),
            "schedule",
        ),
        (
            subject::run_verb("default", "$trigger/order/placed", "trigger"),
            "trigger",
        ),
        (subject::run_verb("default", "o/1", "limit"), "limit"),
        (subject::run_verb("default", "o/1", "result"), "result-log"),
        (subject::signal("default", "o/1", "paid"), "signal"),
        (subject::parked("default", "o/1", "edit"), "parked-edit"),
        (subject::event("default", "order", "o%2F1", "paid"), "event"),
        (
            subject::event("default", "order", "o%2F1", "compensated"),
            "run-event-compensated",
        ),
        (
            subject::api("default", api::verb::NAMESPACE_SET),
            "api-namespace-set-request",
        ),
        (subject::run_verb("default", "o/1", "message"), "run-message"),
        (subject::run_verb("default", "o/1", "answer"), "run-message-answer"),
        (subject::task("default", "orders", "process-payment"), "task"),
        (
            subject::direct("default", 17).map(|prefix| prefix + ".result"),
            "result-direct",
        ),
        (
            subject::direct("default", 17).map(|prefix| prefix + ".result"),
            "result-later",
        ),
        (subject::direct("default", 17).map(|prefix| prefix + ".beat"), "beat"),
        (
            subject::direct("default", 17).map(|prefix| prefix + ".beat"),
            "beat-details",
        ),
        (subject::direct("default", 17).map(|prefix| prefix + ".claim"), "claim"),
        (subject::task("default", "orders", "process-payment"), "task-retried"),
        (
            subject::api("default", api::verb::ACTIVITY_COMPLETE),
            "api-activity-complete-request",
        ),
        (
            subject::api("default", api::verb::ACTIVITY_FAIL),
            "api-activity-fail-request",
        ),
        (
            subject::api("default", api::verb::ACTIVITY_HEARTBEAT),
            "api-activity-heartbeat-request",
        ),
        (subject::cancel("default", "orders"), "cancel-tasks"),
        (subject::api("default", api::verb::RUN_SHOW), "api-run-show-request"),
        (
            Ok(subject::dead_letter(Some("default"), code::UNKNOWN_WORKFLOW.title)),
            "dead-letter",
        ),
    ] {
        assert_eq!(composed.unwrap(), read(golden).subject, "{golden}");
    }
}

#[test]
fn every_header_in_a_golden_file_is_a_header_of_knarr() {
    let source = include_str!("../src/header.rs");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let golden = read(name.strip_suffix(".json").unwrap());
        for header in golden.headers.keys() {
            assert!(source.contains(&format!("{header:?}")), "{name}: {header}");
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} headers");
}

#[test]
fn a_task_names_itself_in_its_headers() {
    for name in ["task", "task-retried"] {
        let task = read(name);
        let token = TaskToken::decode(&task.headers[header::TOKEN]).unwrap();
        assert_eq!(token.run_id.to_string(), task.headers[header::RUN_ID]);
        assert_eq!(token.task.to_string(), task.headers[header::TASK]);
        assert_eq!(task.headers[header::REPLY], read("result-log").subject);
        for said in ["result-direct", "result-later", "beat", "beat-details", "claim"] {
            let said = read(said);
            assert!(said.subject.starts_with(&task.headers[header::DIRECT]));
            assert_eq!(said.headers[header::TOKEN], task.headers[header::TOKEN]);
        }
    }
    // A header holds no other text than ASCII.
    let task = read("task-encoded");
    let token = subject::encode_token("order:4711 für Zoë").unwrap();
    assert_eq!(task.headers[header::WORKFLOW_ID], token);
    assert_eq!(task.headers[header::REPLY], format!("knarr.run.default.{token}.result"));
    // What the next attempt finds is what the one before said.
    let details: Value = serde_json::from_str(&read("task-retried").headers[header::LAST_DETAILS]).unwrap();
    assert_eq!(details["page"], read("beat-details").body["page"]);
}
