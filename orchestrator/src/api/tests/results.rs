//! What becomes of results that are handed in by the API, runs that are too large for an answer, and what is not there yet.

use knarr_core::run::input::Horizon;
use knarr_schemas::api::{ActivityAnswer, FindingSeverity, ListSchedules, RunName};
use knarr_schemas::token::TaskToken;

use super::*;
use crate::api::runs::encoded_len;

/// What is said of a result that has been handed in.
async fn stage(world: &World, run: &TestRun, task: u32, success: bool) -> String {
    let token = TaskToken {
        run_id: run.state.run_id().0,
        task,
        mac: [0; 16],
    };
    let committed = ActivityAnswer {
        stage: "committed".to_owned(),
    };
    let token = token.encode();
    world
        .operations
        .judged(committed, &run.row(), &token, success)
        .await
        .stage
}

fn later(run: &TestRun, seconds: i64) -> Timestamp {
    Timestamp(run.state.at().0 + seconds * 1_000_000)
}

impl TestRun {
    fn tell_at(&mut self, input: Input, at: Timestamp) {
        let transition = apply(&self.definition.plan, &mut self.state, input, at).unwrap();
        self.transitions.extend(transition);
    }
}

#[tokio::test]
async fn a_result_that_comes_too_late_is_said_to() {
    let world = World::new().await;
    let mut open = TestRun::start(1, "o-1", json!({}));
    open.complete(1, json!({ "id": 1 }));
    world.add(&open).await;
    assert_eq!(stage(&world, &open, 1, true).await, "committed");
    assert_eq!(stage(&world, &open, 1, false).await, "gone", "it was done");
    assert_eq!(
        stage(&world, &open, 2, true).await,
        "committed",
        "its run is parked, say"
    );

    let mut ended = TestRun::start(2, "o-2", json!({}));
    ended.tell(Input::Terminate(Operation::default()));
    world.add(&ended).await;
    assert_eq!(stage(&world, &ended, 1, false).await, "gone");

    let mut late = TestRun::start(3, "o-3", json!({}));
    late.tell(Input::Terminate(Operation::default()));
    late.complete(1, json!({ "id": 1 }));
    world.add(&late).await;
    assert_eq!(stage(&world, &late, 1, true).await, "late");

    let mut timed_out = TestRun::start(4, "o-4", json!({}));
    // By the first look it is known to be with a worker; by the second that worker has said nothing for too long.
    for _ in 0..2 {
        let past = later(&timed_out, 3_600);
        let horizon = Horizon {
            log_read_to: past,
            delivered_to: [("orders".into(), past)].into(),
            ..Horizon::default()
        };
        timed_out.tell_at(Input::Wake(horizon), past);
    }
    world.add(&timed_out).await;
    assert_eq!(stage(&world, &timed_out, 1, false).await, "gone");
}

#[tokio::test]
async fn a_run_that_is_too_large_is_shown_without_what_matters_least() {
    let world = World::new().await;
    let mut run = TestRun::start(1, "o-1", json!({ "text": "x".repeat(5_000) }));
    run.complete(1, json!({ "id": "y".repeat(5_000) }));
    run.fail(2);
    world.add(&run).await;
    let show = async |budget| {
        let name = RunName::WorkflowId("o-1".to_owned());
        world
            .operations
            .show_run(&"default".into(), &name, budget)
            .await
            .unwrap()
    };
    let whole = show(1 << 20).await;
    assert!(!whole.shortened && whole.left_out.is_none());
    let mut shortened = whole.clone();
    shortened.shorten();
    let enough = encoded_len(&shortened);
    assert_eq!(show(enough).await, shortened);

    let cut = show(enough - 1).await;
    assert!(encoded_len(&cut) < enough, "{cut:?}");
    let left_out = cut.left_out.unwrap();
    assert_eq!((left_out.steps, left_out.ledger), (1, 1));
    assert_eq!(cut.steps.len(), 1);
    assert_eq!(
        cut.steps[0].status, "failed",
        "what has failed is kept before what is done"
    );
    assert_eq!((&cut.run, &cut.limits), (&whole.run, &whole.limits));
    // Whatever there is room for, an answer comes.
    let least = show(1).await;
    assert!(least.steps.is_empty() && least.ledger.is_empty() && least.run == whole.run);
    assert_eq!(least.left_out.unwrap().steps, 2);
}

#[tokio::test]
async fn a_registration_warns_of_children_that_are_not_there() {
    let world = World::new().await;
    let parent = "workflow: parent\nversion: 1\nsteps:\n  - a: { workflow: { name: child } }\n  - b: { workflow: { name: child } }\n  - c: { workflow: { name: child, version: 2 } }\n  - d: { workflow: { name: parent } }\n";
    let warned = async || {
        let registered = world.register(parent).await;
        let findings = registered.findings.into_iter();
        let missing = findings.filter(|finding| finding.code.starts_with("KN02"));
        missing
            .map(|finding| {
                assert_eq!(finding.severity, FindingSeverity::Warning);
                format!("{} {}", finding.code, finding.message)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        warned().await,
        [
            "KN0206 no workflow `child` is registered; until it is, the step that starts it as a child fails",
            "KN0207 `child` v2 is not registered; until it is, the step that starts it as a child fails",
        ]
    );
    world
        .register("workflow: child\nversion: 2\nsteps: [ { a: { set: { x: 1 } } } ]\n")
        .await;
    assert_eq!(warned().await, [""; 0]);
}

#[tokio::test]
async fn the_status_of_a_schedule_is_how_it_stands() {
    let world = World::new().await;
    let row = |number, name: &str, paused: Value, remaining: Value| {
        let mut row = TestRun::start(number, &format!("$schedule/{name}"), json!({})).row();
        let said = json!({
            "schedule": { "workflow": "order", "every": ["1h"] },
            "paused": paused,
            "remaining": remaining,
            "version": null,
        });
        row.workflow = knarr_core::run::schedule::WORKFLOW.into();
        row.search_attributes = Some(said.to_string());
        row
    };
    let rows = [
        row(1, "active", json!(null), json!(null)),
        row(2, "ended", json!(null), json!(0)),
        row(3, "paused", json!("too loud"), json!(null)),
    ];
    let batch = Batch {
        runs: rows.into_iter().map(RunWrite::Insert).collect(),
        ..Batch::default()
    };
    let session = *world.session.lock().unwrap();
    world.store.commit(&session, &batch).await.unwrap();
    let page = world
        .operations
        .list_schedules(&"default".into(), &ListSchedules::default())
        .await
        .unwrap();
    let told: Vec<_> = page
        .schedules
        .iter()
        .map(|schedule| (&*schedule.name, &*schedule.status))
        .collect();
    assert_eq!(told, [("active", "active"), ("ended", "ended"), ("paused", "paused")]);
}
