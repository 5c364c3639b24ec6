//! Limits of runs and bodies, from their configuration to the operator who lifts them.

use std::sync::Arc;

use knarr_core::run::limits::{Limit, RunLimits};
use knarr_core::run::{Event, Status};
use knarr_schemas::{header as names, subject};
use serde_json::json;

use super::scripts::honest;
use super::world::{Act, World, done};
use crate::bus::header;

fn is(world: &World, status: &str) -> bool {
    world.statuses().get("o-1").is_some_and(|now| now == status)
}

async fn raise(world: &World, id: &str, body: serde_json::Value) {
    let subject = subject::run_verb("default", id, "limit").unwrap();
    world.publish(&subject, &[(names::VERB, "limit default")], body).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_at_its_limit_is_parked_and_goes_on_when_it_is_raised() {
    let mut world = World::new(91).await;
    world.config.run_limits = RunLimits {
        events: Some(8),
        ..RunLimits::default()
    };
    let replica = world.replica("r0");
    world.work(honest());
    world.start("o-1", &[]).await;
    world.until("parked", |world| is(world, "parked")).await;
    let run = world.rows_of("o-1")[0].run_id;
    assert_eq!(world.state(run).await.usage(Limit::Events).limit, 8);

    // A replica that was started with other limits keeps to those of the run.
    replica.stop().await;
    world.config.run_limits = RunLimits::default();
    let replica = world.replica("r1");
    for (body, code) in [
        (json!({ "events": 5 }), "KN0260"),
        (json!({ "events": 9_999_999_999_u64 }), "KN0260"),
        (json!({}), "KN0260"),
        (json!({ "event": 100 }), "KN0228"),
        (json!({ "events": -1 }), "KN0228"),
        (json!("more"), "KN0228"),
    ] {
        let before = world.bus.dead_letters().len();
        raise(&world, "o-1", body.clone()).await;
        world
            .until("a dead letter", |world| world.bus.dead_letters().len() > before)
            .await;
        let letters = world.bus.dead_letters();
        let said = header(&letters[before].headers, names::ERROR_CODE).unwrap().to_owned();
        assert_eq!(said, code, "{body}");
    }
    assert_eq!(world.statuses()["o-1"], "parked");
    raise(&world, "o-1", json!({ "events": 100 })).await;
    world.until("completed", |world| is(world, "completed")).await;
    let raised = |event: &Event| matches!(event, Event::LimitsRaised { .. });
    assert_eq!(world.events(run).await.iter().filter(|event| raised(event)).count(), 1);
    world.quiet().await;
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_too_large_waits_for_an_operator() {
    for by_log in [false, true] {
        let mut world = World::new(92).await;
        world.config.max_body_bytes = 2_000;
        let replica = world.replica("r0");
        world.work(Arc::new(move |task| Act {
            by_log,
            output: (task.activity == "process-payment").then(|| json!("x".repeat(2_000 - 1))),
            ..done()
        }));
        world.start("o-1", &[]).await;
        world.until("parked", |world| is(world, "parked")).await;
        let run = world.rows_of("o-1")[0].run_id;
        let state = world.state(run).await;
        let (step, error) = state.parked_steps().next().unwrap();
        assert_eq!((step.as_str(), &*error.error_type), ("payment", "limit"));
        assert!(error.message.contains("2001 bytes"), "{}", error.message);
        let attempts = |event: &&Event| matches!(event, Event::TaskOpened { .. } | Event::UndoScheduled { .. });
        assert_eq!(world.events(run).await.iter().filter(attempts).count(), 0);
        // It was done, so it is undone if somebody says so.
        world.verb("o-1", "cancel", &[]).await;
        world.until("closed", |world| world.closed() == 1).await;
        assert_eq!(world.state(run).await.status(), Status::Cancelled);
        let undone = |event: &&Event| matches!(event, Event::UndoScheduled { .. });
        assert_eq!(world.events(run).await.iter().filter(undone).count(), 2);
        world.quiet().await;
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_at_the_limit_is_taken() {
    let mut world = World::new(93).await;
    world.config.max_body_bytes = 2_000;
    let replica = world.replica("r0");
    world.work(Arc::new(|task| Act {
        output: (task.activity == "process-payment").then(|| json!("x".repeat(2_000 - 2))),
        ..done()
    }));
    world.start("o-1", &[]).await;
    world.until("closed", |world| world.closed() == 1).await;
    assert_eq!(world.statuses()["o-1"], "completed");
    world.quiet().await;
    replica.stop().await;
}

/// A warning and what was parked are counted, once for a run and a limit.
#[tokio::test(start_paused = true)]
async fn limits_that_are_near_and_those_that_are_met_are_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    // Everything here runs on this thread.
    let _local = metrics::set_default_local_recorder(&recorder);
    let mut world = World::new(94).await;
    world.config.run_limits = RunLimits {
        events: Some(8),
        ..RunLimits::default()
    };
    let replica = world.replica("r0");
    world.work(honest());
    world.start("o-1", &[]).await;
    world.until("parked", |world| is(world, "parked")).await;
    let text = counted.render();
    for line in [
        "knarr_limit_warnings_total{limit=\"events\"} 1",
        "knarr_limit_parked_total{limit=\"events\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    replica.stop().await;
}
