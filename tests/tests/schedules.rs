//! Schedules over real servers: two replicas, one due every second, and `kill -9` of either.
//!
//! `KNARR_SCHEDULE_SECONDS=600` runs it for ten minutes instead of twenty seconds.

use std::time::Duration;

use knarr::api::command::{Commander, ScheduleCommand};
use knarr_schemas::api::{ListSchedules, ScheduleDescription, SchedulePage, ShowSchedule, verb};
use knarr_schemas::body::{Answer, AnswerStage, ScheduleRequest, ScheduleVerb};
use knarr_tests::{Replica, Stack, eventually};
use serde_json::json;

async fn number(stack: &Stack, query: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned()))
        .fetch_one(stack.pool())
        .await
        .unwrap()
}

const TICK: &str = "\
workflow: tick
version: 1
steps:
  - note: { set: { at: \"${ run.scheduled_at }\" } }
output: \"${ vars.at }\"
";
const SCHEDULES: [&str; 4] = ["north", "east", "south", "west"];

async fn ask(stack: &Stack, name: &str, request_id: &str, request: ScheduleRequest) -> Answer {
    let commander = Commander::new(stack.nats().clone(), "default", Duration::from_secs(5));
    let command = ScheduleCommand {
        name: name.to_owned(),
        request,
        request_id: request_id.to_owned(),
        by: None,
        reason: None,
    };
    let mut stored = commander.schedule(command).await.unwrap();
    stored.answer(Some(Duration::from_secs(30))).await.unwrap()
}

fn asking(ask: ScheduleVerb) -> ScheduleRequest {
    ScheduleRequest {
        ask,
        schedule: None,
        version: None,
        from: None,
        until: None,
        overlap: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_second_is_started_once_while_replicas_are_killed() {
    let seconds = std::env::var("KNARR_SCHEDULE_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let seconds: u64 = seconds.unwrap_or(20);
    let stack = Stack::start().await;
    let mut replicas = [Replica::start(&stack, "one").await, Replica::start(&stack, "two").await];
    stack.register("default", TICK).await;
    for name in SCHEDULES {
        let request = ScheduleRequest {
            schedule: Some(json!({ "workflow": "tick", "every": "1s", "overlap": "allow_all" })),
            ..asking(ScheduleVerb::Create)
        };
        let answer = ask(&stack, name, &format!("create-{name}"), request).await;
        assert_eq!(answer.stage, AnswerStage::Accepted, "{answer:?}");
    }
    let ends = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut killed = 0;
    while tokio::time::Instant::now() < ends {
        let victim = &mut replicas[killed % 2];
        killed += 1;
        // The work goes on for as long as it takes to see that it does, and a replica is killed in the middle of it.
        let before = stack.number("select count(*) from runs where workflow = 'tick'").await;
        eventually("it goes on", Duration::from_secs(30), || async {
            let now = stack.number("select count(*) from runs where workflow = 'tick'").await;
            (now >= before + 8).then_some(())
        })
        .await;
        victim.kill9();
        victim.respawn();
    }
    for name in SCHEDULES {
        let answer = ask(&stack, name, &format!("pause-{name}"), asking(ScheduleVerb::Pause)).await;
        assert_eq!(answer.stage, AnswerStage::Accepted, "{answer:?}");
    }
    eventually(
        "everything has been started and has ended",
        Duration::from_secs(60),
        || async {
            let mut open = 0;
            for name in SCHEDULES {
                let show = ShowSchedule {
                    name: name.to_owned(),
                    next: Some(0),
                };
                let shown: ScheduleDescription = stack.api("default").call(verb::SCHEDULE_SHOW, &show).await.ok()?;
                open += shown.open.len();
            }
            (open == 0).then_some(())
        },
    )
    .await;
    let page: SchedulePage = stack
        .api("default")
        .call(verb::SCHEDULE_LIST, &ListSchedules::default())
        .await
        .unwrap();
    assert_eq!(page.schedules.len(), SCHEDULES.len());
    assert!(page.schedules.iter().all(|schedule| schedule.paused.is_some()));
    for name in SCHEDULES {
        // Each nominal time from the first to the last has one run, which has completed.
        let like = format!("from runs where workflow = 'tick' and workflow_id like '{name}-%'");
        let runs = number(&stack, &format!("select count(*) {like}")).await;
        let ids = number(&stack, &format!("select count(distinct workflow_id) {like}")).await;
        let completed = number(&stack, &format!("select count(*) {like} and status = 'completed'")).await;
        let span = number(
            &stack,
            &format!(
                "select 1 + extract(epoch from max(t) - min(t))::bigint from
                 (select to_timestamp(substr(workflow_id, {}), 'YYYYMMDD\"T\"HH24MISS\"Z\"') as t {like}) x",
                name.len() + 2
            ),
        )
        .await;
        assert_eq!((ids, completed, span), (runs, runs, runs), "{name}");
        assert!(runs >= i64::try_from(seconds / 2).unwrap(), "{name}: {runs}");
    }
    assert!(killed >= 3, "only {killed} were killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_makes_changes_and_deletes_the_schedule_named_after_it() {
    let stack = Stack::start().await;
    let _replica = Replica::start(&stack, "one").await;
    let text = |version: u32, schedule: &str| {
        format!("workflow: pulse\nversion: {version}\n{schedule}steps: [ {{ note: {{ set: {{ x: 1 }} }} }} ]\n")
    };
    let show = async || {
        let show = ShowSchedule {
            name: "pulse".to_owned(),
            next: None,
        };
        let shown: Result<ScheduleDescription, _> = stack.api("default").call(verb::SCHEDULE_SHOW, &show).await;
        shown.map_err(|error| error.to_string())
    };
    let registered = stack
        .register("default", &text(1, "schedule: { every: 1s, overlap: allow_all }\n"))
        .await;
    let outlook = registered.schedule.expect("it is told when it comes due");
    assert_eq!((outlook.zone.as_str(), outlook.next.len()), ("UTC", 5));
    let made = show().await.unwrap();
    assert_eq!((made.summary.version, made.upcoming.len()), (Some(1), 10));
    eventually("it starts runs", Duration::from_secs(30), || async {
        let runs = number(
            &stack,
            "select count(*) from runs where workflow = 'pulse' and status = 'completed'",
        )
        .await;
        (runs >= 2).then_some(())
    })
    .await;
    stack.register("default", &text(2, "schedule: '@daily'\n")).await;
    let changed = show().await.unwrap();
    assert_eq!((changed.summary.version, changed.run_id), (Some(2), made.run_id));
    assert_eq!(changed.summary.schedule["cron"], json!(["@daily"]));
    assert_eq!(stack.register("default", &text(3, "")).await.schedule, None);
    let gone = show().await.unwrap_err();
    assert!(gone.contains("there is no schedule `pulse`"), "{gone}");
}
