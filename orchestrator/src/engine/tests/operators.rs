//! What operators decide about what is parked, by the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use knarr_core::run::Event;
use knarr_schemas::body::{Answer, AnswerStage};
use knarr_schemas::{header as names, subject};
use serde_json::{Value, json};

use super::world::{Act, Script, World, done, failed};
use crate::store::FORMAT_LEVEL;

/// The undo of the payment is tried once.
const SALE: &str = r#"
workflow: sale
version: 1
defaults: { queue: orders, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - pay:
      activity: process-payment
      compensate: { activity: refund-payment, input: { account: old }, retry: { maximum_attempts: 1 } }
  - stock: { activity: reserve-inventory, read_only: true }
"#;

/// Undoes itself for its parent, when it has closed long since.
const FAMILY: &str = r#"
workflow: family
version: 1
defaults: { queue: orders, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - kid: { workflow: { name: kid, id: "${ 'kid-1' }" } }
  - stock: { activity: reserve-inventory, read_only: true }
"#;

const KID: &str = r#"
workflow: kid
version: 1
defaults: { queue: orders, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - pay: { activity: process-payment, compensate: { activity: refund-payment, retry: { maximum_attempts: 1 } } }
"#;

/// Stock fails, and so does the refund for as long as it is broken.
fn broken(flag: &Arc<AtomicBool>) -> Script {
    let flag = Arc::clone(flag);
    Arc::new(move |task| match task.activity {
        "reserve-inventory" => failed(),
        "refund-payment" if flag.load(Ordering::SeqCst) => failed(),
        _ => Act {
            output: Some(json!({})),
            ..done()
        },
    })
}

async fn parked(world: &mut World, flag: &Arc<AtomicBool>) {
    world.register(SALE).await;
    world.work(broken(flag));
    let start = subject::start("default", "s-1", "sale").unwrap();
    world.publish(&start, &[], Value::Null).await;
    world
        .until("parked", |world| {
            world.statuses().get("s-1").is_some_and(|status| status == "parked")
        })
        .await;
}

/// Sends an action and reads its answer.
async fn act(world: &World, action: &str, body: Value, headers: &[(&str, &str)]) -> Answer {
    let mut inbox = world.bus.subscribe("_INBOX.ann");
    let verb = format!("parked.{action} default");
    let mut all = vec![
        (names::VERB, verb.as_str()),
        (names::REPLY_TO, "_INBOX.ann"),
        (names::BY, "ann"),
        (names::REASON, "seen to"),
    ];
    all.extend_from_slice(headers);
    let to = subject::parked("default", "s-1", action).unwrap();
    world.publish(&to, &all, body).await;
    world.answer(&mut inbox).await
}

fn refused(answer: &Answer) -> Option<&str> {
    assert_eq!(answer.stage, AnswerStage::Refused);
    answer.error.as_ref().map(|error| error.code.as_str())
}

/// It was surely not done: whoever has the run go on, once that can be, has it offered again.
#[tokio::test(start_paused = true)]
async fn a_task_that_can_never_be_published_is_offered_again_when_its_run_goes_on() {
    let mut world = World::new(210).await;
    world.register(SALE).await;
    let replica = world.replica("r0");
    *world.weather.refuses_subject.lock().unwrap() = Some("knarr.task.");
    let flag = Arc::new(AtomicBool::new(false));
    parked(&mut world, &flag).await;
    let run = world.rows()[0].run_id;
    let reason = world.look(run, |state| state.parked_reason().cloned());
    assert!(reason.is_some_and(|reason| reason.contains("cannot be published")));
    // Nothing has changed yet.
    act(&world, "retry", Value::Null, &[]).await;
    let parked = |world: &World| world.look(run, |state| state.parked_reason().is_some());
    world
        .until("parked again", |world| world.is_quiet() && parked(world))
        .await;
    *world.weather.refuses_subject.lock().unwrap() = None;
    act(&world, "retry", Value::Null, &[]).await;
    world.until("closed", |world| world.closed() == 1).await;
    let events = world.events(run).await;
    let late = |event: &Event| matches!(event, Event::TaskTimedOut { .. } | Event::TaskUnknown { .. });
    assert!(!events.iter().any(late), "{events:#?}");
    world.quiet().await;
    replica.stop().await;
}

const PAY: (&str, &str) = (names::STEP, "pay");

#[tokio::test(start_paused = true)]
async fn a_parked_undo_is_decided_about_and_its_request_counts_once() {
    for (seed, (action, body, status)) in (200_u64..).zip([
        ("retry", Value::Null, "compensated"),
        ("edit", json!({ "account": "new" }), "compensated"),
        ("done", Value::Null, "compensated"),
        ("skip", Value::Null, "compensation_failed"),
    ]) {
        let mut world = World::new(seed).await;
        let replica = world.replica("r0");
        let flag = Arc::new(AtomicBool::new(true));
        parked(&mut world, &flag).await;
        flag.store(false, Ordering::SeqCst);
        let request = (names::REQUEST_ID, "q-1");
        let first = act(&world, action, body.clone(), &[PAY, request]).await;
        assert_eq!(first.stage, AnswerStage::Accepted, "{action}: {first:?}");
        world.until("closed", |world| world.closed() == 1).await;
        assert_eq!(world.statuses()["s-1"], status);
        world.quiet().await;
        let run = world.rows_of("s-1")[0].run_id;
        let events = world.events(run).await;
        let operation = events.iter().find_map(|event| match event {
            Event::UndoResumed { operation, .. } | Event::UndoResolved { operation, .. } => Some(operation),
            _ => None,
        });
        let operation = operation.unwrap();
        assert_eq!(
            (operation.by.as_deref(), operation.reason.as_deref()),
            (Some("ann"), Some("seen to"))
        );
        if action == "edit" {
            let mut inputs = events.iter().rev().filter_map(|event| match event {
                Event::UndoReady { input, .. } => Some((**input).clone()),
                _ => None,
            });
            assert_eq!(inputs.next(), Some(body.clone()));
        }
        // The answer to the request may have been lost.
        let again = act(&world, action, body, &[PAY, request]).await;
        assert_eq!(again.stage, AnswerStage::Accepted, "{action}: {again:?}");
        // The run is closed, and another request finds nothing to decide about.
        let late = act(&world, action, Value::Null, &[PAY, (names::REQUEST_ID, "q-2")]).await;
        assert_eq!(refused(&late), Some("KN0212"));
        assert_eq!(world.events(run).await.len(), events.len());
        replica.stop().await;
    }
}

/// Whoever did not hear that a run was ended asks for it again, and is not told that they were too late.
#[tokio::test(start_paused = true)]
async fn a_repeat_of_what_has_ended_a_run_is_no_refusal() {
    let mut world = World::new(216).await;
    let old = world.replica("r0");
    world.start("o-1", &[]).await;
    world.verb("o-1", "terminate", &[(names::REQUEST_ID, "q-1")]).await;
    world.until("closed", |world| world.closed() == 1).await;
    old.kill();
    let new = world.replica("r1");
    let run = world.rows_of("o-1")[0].run_id;
    let before = world.events(run).await.len();
    let mut inbox = world.bus.subscribe("_INBOX.ann");
    for (verb, request, refusal) in [
        ("terminate", "q-1", None),
        ("terminate", "q-2", Some("KN0212")),
        ("cancel", "q-1", Some("KN0212")),
    ] {
        let headers = [(names::REQUEST_ID, request), (names::REPLY_TO, "_INBOX.ann")];
        world.verb("o-1", verb, &headers).await;
        let answer = world.answer(&mut inbox).await;
        let told = answer.error.as_ref().map(|error| error.code.as_str());
        assert_eq!(told, refusal, "{verb} {request}: {answer:?}");
    }
    assert_eq!(world.events(run).await.len(), before);
    new.stop().await;
}

/// Of two who decide at once one is told that it has been done, and a repeat is no second one.
#[tokio::test(start_paused = true)]
async fn two_operators_decide_once_and_a_takeover_forgets_nothing() {
    let mut world = World::new(210).await;
    let old = world.replica("r0");
    let flag = Arc::new(AtomicBool::new(true));
    parked(&mut world, &flag).await;
    let (ann, bob) = ((names::REQUEST_ID, "ann-1"), (names::REQUEST_ID, "bob-1"));
    assert_eq!(
        act(&world, "retry", Value::Null, &[PAY, ann]).await.stage,
        AnswerStage::Accepted
    );
    // It failed again, at the next owner, who knows both that it is parked and that ann was heard.
    world
        .until("parked again", |world| {
            world.statuses()["s-1"] == "parked" && world.is_quiet()
        })
        .await;
    old.kill();
    let new = world.replica("r1");
    let run = world.rows_of("s-1")[0].run_id;
    let before = world.events(run).await.len();
    assert_eq!(
        act(&world, "retry", Value::Null, &[PAY, ann]).await.stage,
        AnswerStage::Accepted
    );
    assert_eq!(world.events(run).await.len(), before, "a repeat");
    flag.store(false, Ordering::SeqCst);
    assert_eq!(
        act(&world, "done", Value::Null, &[PAY, bob]).await.stage,
        AnswerStage::Accepted
    );
    let late = act(&world, "skip", Value::Null, &[PAY, (names::REQUEST_ID, "ann-2")]).await;
    assert_eq!(refused(&late), Some("KN0212"));
    assert_eq!(world.statuses()["s-1"], "compensated");
    world.quiet().await;
    new.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused_with_a_code_and_the_log_moves_on() {
    let mut world = World::new(211).await;
    let replica = world.replica("r0");
    let flag = Arc::new(AtomicBool::new(true));
    parked(&mut world, &flag).await;
    let run = world.rows_of("s-1")[0].run_id;
    let stranger = uuid::Uuid::from_u128(7).to_string();
    let long = "x".repeat(5_000);
    for (action, body, headers, code) in [
        ("retry", Value::Null, vec![(names::STEP, "stock")], "KN0225"),
        ("retry", Value::Null, vec![], "KN0225"),
        ("retry", json!(1), vec![PAY], "KN0228"),
        ("retry", Value::Null, vec![(names::STEP, long.as_str())], "KN0222"),
        (
            "retry",
            Value::Null,
            vec![PAY, (names::DIRECTION, "sideways")],
            "KN0222",
        ),
        ("retry", Value::Null, vec![PAY, (names::DIRECTION, "do")], "KN0225"),
        ("retry", Value::Null, vec![PAY, (names::RUN_ID, "x")], "KN0222"),
        (
            "retry",
            Value::Null,
            vec![PAY, (names::RUN_ID, stranger.as_str())],
            "KN0211",
        ),
        ("done", json!({ "an": "output" }), vec![PAY], "KN0257"),
        ("forget", Value::Null, vec![PAY], "KN0201"),
    ] {
        let answer = act(&world, action, body, &headers).await;
        assert_eq!(refused(&answer), Some(code), "{action} {headers:?}");
    }
    // No reason, and a header that says something else.
    for (headers, code) in [
        (vec![(names::VERB, "parked.skip default"), PAY], "KN0222"),
        (
            vec![(names::VERB, "parked.retry default"), (names::REASON, "x"), PAY],
            "KN0215",
        ),
        (
            vec![(names::VERB, "parked.skip other"), (names::REASON, "x"), PAY],
            "KN0215",
        ),
    ] {
        let mut inbox = world.bus.subscribe("_INBOX.ann");
        let mut all = headers.clone();
        all.push((names::REPLY_TO, "_INBOX.ann"));
        world
            .publish(&subject::parked("default", "s-1", "skip").unwrap(), &all, Value::Null)
            .await;
        let answer = world.answer(&mut inbox).await;
        assert_eq!(refused(&answer), Some(code), "{headers:?}");
    }
    // The run in full, and both namespaces of ids agree.
    let run = run.to_string();
    let named = act(&world, "skip", Value::Null, &[PAY, (names::RUN_ID, run.as_str())]).await;
    assert_eq!(named.stage, AnswerStage::Accepted);
    world.until("closed", |world| world.closed() == 1).await;
    world.quiet().await;
    replica.stop().await;
}

/// Its workflow id is free, so that it is named by its run.
#[tokio::test(start_paused = true)]
async fn a_child_that_has_closed_and_whose_undo_is_parked_has_a_way_out() {
    let mut world = World::new(212).await;
    let replica = world.replica("r0");
    world.register(KID).await;
    world.register(FAMILY).await;
    world.work(broken(&Arc::new(AtomicBool::new(true))));
    let start = subject::start("default", "f-1", "family").unwrap();
    world.publish(&start, &[], Value::Null).await;
    world
        .until("parked", |world| {
            world.statuses().get("kid-1").is_some_and(|status| status == "parked")
        })
        .await;
    let row = world.rows_of("kid-1").remove(0);
    assert!(row.closed_at.is_some());
    let act = async |run: Option<&str>| {
        let mut inbox = world.bus.subscribe("_INBOX.ann");
        let mut headers = vec![
            (names::VERB, "parked.done default"),
            (names::REPLY_TO, "_INBOX.ann"),
            PAY,
        ];
        headers.extend(run.map(|run| (names::RUN_ID, run)));
        world
            .publish(
                &subject::parked("default", "kid-1", "done").unwrap(),
                &headers,
                Value::Null,
            )
            .await;
        world.answer(&mut inbox).await
    };
    assert_eq!(refused(&act(None).await), Some("KN0212"));
    let run = row.run_id.to_string();
    assert_eq!(act(Some(&run)).await.stage, AnswerStage::Accepted);
    world
        .until("undone", |world| {
            let statuses = world.statuses();
            ["f-1", "kid-1"].iter().all(|id| statuses[*id] == "compensated")
        })
        .await;
    world
        .until("settled", |world| world.rows().iter().all(|row| row.wake_at.is_none()))
        .await;
    world.quiet().await;
    replica.stop().await;
}

/// What an older replica could not read is not written while there is one.
#[tokio::test(start_paused = true)]
async fn an_output_waits_for_the_end_of_an_upgrade() {
    let mut world = World::of_level(213, 1).await;
    let old = world.replica("old");
    world.reads_format = FORMAT_LEVEL;
    let new = world.replica("new");
    let flag = Arc::new(AtomicBool::new(true));
    parked(&mut world, &flag).await;
    let answer = act(&world, "done", json!({ "id": 1 }), &[PAY]).await;
    assert_eq!(refused(&answer), Some("KN0258"));
    old.stop().await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let answer = act(&world, "done", json!({ "id": 1 }), &[PAY]).await;
    assert_eq!(refused(&answer), Some("KN0257"), "of an undo");
    new.stop().await;
}

/// A run waits for its signal while it moves; the next owner knows by which version it goes.
#[tokio::test(start_paused = true)]
async fn a_run_moves_and_its_next_owner_goes_on_with_the_version_it_moved_to() {
    let waiting = |version: u32, undo: &str, more: &str| {
        format!(
            "workflow: sale\nversion: {version}\ndefaults: {{ queue: orders, start_to_close: 5s, retry: {{ maximum_attempts: 1 }} }}\n\
             steps:\n  - pay: {{ activity: process-payment, compensate: {undo} }}\n  - go: {{ wait_for: {{ signal: go, timeout: 1h }} }}\n{more}"
        )
    };
    let mut world = World::new(214).await;
    let old = world.replica("r0");
    world.work(Arc::new(|_| done()));
    world.register(&waiting(1, "refund-payment", "")).await;
    let start = subject::start("default", "s-1", "sale").unwrap();
    world.publish(&start, &[], Value::Null).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    world
        .register(&waiting(
            2,
            "refund-payment",
            "  - mail: { activity: mail, no_undo: it is read }\n",
        ))
        .await;
    world.register(&waiting(3, "other-refund", "")).await;
    let migrate = async |headers: &[(&str, &str)]| {
        let mut inbox = world.bus.subscribe("_INBOX.ann");
        let mut all = vec![(names::VERB, "migrate default"), (names::REPLY_TO, "_INBOX.ann")];
        all.extend_from_slice(headers);
        world
            .publish(
                &subject::run_verb("default", "s-1", "migrate").unwrap(),
                &all,
                Value::Null,
            )
            .await;
        world.answer(&mut inbox).await
    };
    let sale = (names::WORKFLOW, "sale");
    for (headers, code) in [
        (vec![sale], "KN0222"),
        (vec![(names::VERSION, "2")], "KN0222"),
        (vec![sale, (names::VERSION, "x")], "KN0222"),
        (vec![sale, (names::VERSION, "9")], "KN0207"),
        (vec![(names::WORKFLOW, "nothing"), (names::VERSION, "2")], "KN0207"),
        (vec![(names::WORKFLOW, "order"), (names::VERSION, "1")], "KN0259"),
        (vec![sale, (names::VERSION, "3")], "KN0259"),
    ] {
        assert_eq!(refused(&migrate(&headers).await), Some(code), "{headers:?}");
    }
    let to = [sale, (names::VERSION, "2"), (names::REQUEST_ID, "m-1")];
    for _ in 0..2 {
        assert_eq!(migrate(&to).await.stage, AnswerStage::Accepted);
    }
    let row = world.rows_of("s-1").remove(0);
    assert_eq!(row.version, 2);
    assert_eq!(row.definition, *world.state(row.run_id).await.definition_hash());
    let events = world.events(row.run_id).await;
    let moves = events.iter().filter(|event| matches!(event, Event::RunMigrated { .. }));
    assert_eq!(moves.count(), 1, "the repeat is none");
    old.kill();
    let new = world.replica("r1");
    let go = subject::signal("default", "s-1", "go").unwrap();
    world.publish(&go, &[], Value::Null).await;
    world.until("closed", |world| world.closed() == 1).await;
    assert_eq!(world.statuses()["s-1"], "completed");
    let events = world.events(row.run_id).await;
    let mails = events
        .iter()
        .filter(|event| matches!(event, Event::ActivityScheduled(scheduled) if scheduled.step.as_str() == "mail"));
    assert_eq!(mails.count(), 1);
    world.quiet().await;
    new.stop().await;
}

/// What waits for an operator, and what operators do, is counted.
#[tokio::test(start_paused = true)]
async fn parked_undos_and_what_is_done_about_them_are_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    // Everything here runs on this thread.
    let _local = metrics::set_default_local_recorder(&recorder);
    let mut world = World::new(209).await;
    let replica = world.replica("r0");
    parked(&mut world, &Arc::new(AtomicBool::new(true))).await;
    let skipped = act(&world, "skip", Value::Null, &[PAY]).await;
    assert_eq!(skipped.stage, AnswerStage::Accepted, "{skipped:?}");
    world.until("closed", |world| world.closed() == 1).await;
    world.quiet().await;
    let text = counted.render();
    for line in [
        "knarr_undo_parked_total 1",
        "knarr_operator_actions_total{action=\"skip\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    replica.stop().await;
}
