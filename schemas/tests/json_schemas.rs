//! The JSON Schemas under `json/` are those of the types. `KNARR_WRITE=1` writes them; otherwise a difference fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use knarr_schemas::{api, body};
use schemars::{Schema, schema_for};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("json")
}

fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("api/register-definition", schema_for!(api::RegisterDefinition)),
        ("api/registered-definition", schema_for!(api::RegisteredDefinition)),
        ("api/list-definitions", schema_for!(api::ListDefinitions)),
        ("api/definition-page", schema_for!(api::DefinitionPage)),
        ("api/show-definition", schema_for!(api::ShowDefinition)),
        ("api/set-default-version", schema_for!(api::SetDefaultVersion)),
        ("api/definition-info", schema_for!(api::DefinitionInfo)),
        ("api/definition-detail", schema_for!(api::DefinitionDetail)),
        ("api/check-report", schema_for!(api::CheckReport)),
        ("api/list-runs", schema_for!(api::ListRuns)),
        ("api/run-page", schema_for!(api::RunPage)),
        ("api/show-run", schema_for!(api::ShowRun)),
        ("api/run-description", schema_for!(api::RunDescription)),
        ("api/show-history", schema_for!(api::ShowHistory)),
        ("api/history-page", schema_for!(api::HistoryPage)),
        ("api/query-run", schema_for!(api::QueryRun)),
        ("api/query-answer", schema_for!(api::QueryAnswer)),
        ("api/complete-activity", schema_for!(api::CompleteActivity)),
        ("api/fail-activity", schema_for!(api::FailActivity)),
        ("api/heartbeat-activity", schema_for!(api::HeartbeatActivity)),
        ("api/activity-answer", schema_for!(api::ActivityAnswer)),
        ("api/heartbeat-answer", schema_for!(api::HeartbeatAnswer)),
        ("api/list-parked", schema_for!(api::ListParked)),
        ("api/parked-page", schema_for!(api::ParkedPage)),
        ("api/check-migration", schema_for!(api::CheckMigration)),
        ("api/migration-page", schema_for!(api::MigrationPage)),
        ("api/create-namespace", schema_for!(api::CreateNamespace)),
        ("api/set-namespace", schema_for!(api::SetNamespace)),
        ("api/namespace-info", schema_for!(api::NamespaceInfo)),
        ("api/list-namespaces", schema_for!(api::ListNamespaces)),
        ("api/namespace-page", schema_for!(api::NamespacePage)),
        ("api/list-schedules", schema_for!(api::ListSchedules)),
        ("api/schedule-page", schema_for!(api::SchedulePage)),
        ("api/show-schedule", schema_for!(api::ShowSchedule)),
        ("api/schedule-description", schema_for!(api::ScheduleDescription)),
        ("api/list-triggers", schema_for!(api::ListTriggers)),
        ("api/trigger-page", schema_for!(api::TriggerPage)),
        ("api/show-trigger", schema_for!(api::ShowTrigger)),
        ("api/trigger-description", schema_for!(api::TriggerDescription)),
        ("api/set-queue", schema_for!(api::SetQueue)),
        ("api/queue-info", schema_for!(api::QueueInfo)),
        ("api/list-queues", schema_for!(api::ListQueues)),
        ("api/queue-page", schema_for!(api::QueuePage)),
        ("answer", schema_for!(body::Answer)),
        ("beat-answer", schema_for!(body::BeatAnswer)),
        ("cancel-tasks", schema_for!(body::CancelTasks)),
        ("claim-answer", schema_for!(body::ClaimAnswer)),
        ("confirmation", schema_for!(body::Confirmation)),
        ("error", schema_for!(body::ErrorBody)),
        ("failure", schema_for!(body::FailureBody)),
        ("raise-limits", schema_for!(body::RaiseLimits)),
        ("run-event", schema_for!(body::RunEvent)),
        ("run-message", schema_for!(body::RunMessage)),
        ("run-message-answer", schema_for!(body::RunMessageAnswer)),
        ("schedule-request", schema_for!(body::ScheduleRequest)),
        ("trigger-request", schema_for!(body::TriggerRequest)),
        ("run-summary", schema_for!(body::RunSummary)),
    ]
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    let write = std::env::var_os("KNARR_WRITE").is_some();
    for (name, schema) in schemas() {
        let path = folder().join(format!("{name}.json"));
        let expected = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if write {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            found,
            expected,
            "{} has drifted: run with KNARR_WRITE=1",
            path.display()
        );
    }
}

#[test]
fn no_schema_is_left_over() {
    let known: Vec<PathBuf> = schemas()
        .iter()
        .map(|(name, _)| folder().join(format!("{name}.json")))
        .collect();
    for place in [folder(), folder().join("api")] {
        for file in std::fs::read_dir(place).unwrap() {
            let path = file.unwrap().path();
            assert!(
                path.is_dir() || known.contains(&path),
                "{} belongs to no type",
                path.display()
            );
        }
    }
}

#[test]
fn every_public_body_has_a_schema() {
    let documents = schemas();
    let everywhere: String = documents
        .iter()
        .map(|(_, schema)| schema.as_value().to_string())
        .collect();
    let sources = [
        include_str!("../src/body.rs"),
        include_str!("../src/api.rs"),
        include_str!("../src/api/activities.rs"),
        include_str!("../src/api/definitions.rs"),
        include_str!("../src/api/migration.rs"),
        include_str!("../src/api/namespaces.rs"),
        include_str!("../src/api/parked.rs"),
        include_str!("../src/api/queries.rs"),
        include_str!("../src/api/queues.rs"),
        include_str!("../src/api/runs.rs"),
        include_str!("../src/api/schedules.rs"),
        include_str!("../src/api/triggers.rs"),
    ];
    for line in sources.iter().flat_map(|source| source.lines()) {
        let Some(name) = line
            .strip_prefix("pub struct ")
            .or_else(|| line.strip_prefix("pub enum "))
        else {
            continue;
        };
        let name = name.trim_end_matches([' ', '{', '}']);
        let titled = everywhere.contains(&format!(r#""title":"{name}""#));
        let defined = everywhere.contains(&format!(r##""#/$defs/{name}""##));
        assert!(titled || defined, "{name} has no schema");
    }
}
