use std::time::Duration;

use knarr_schemas::api::{
    CreateNamespace, FindingSeverity, ListDefinitions, ListRuns, MAX_PAGE, RegistrationOutcome, RunDescription,
    RunName, SetNamespace, SetQueue, ShowDefinition, ShowHistory, WaitingSignal,
};

use knarr_schemas::body::ScheduleVerb;

use super::*;
use crate::api::namespaces::MOST_NAMESPACES;
use crate::cli::globals::Look;
use crate::cli::{show, timeline::Timeline};

const BUDGET: usize = 1_000_000;

fn by_id(id: &str) -> RunName {
    RunName::WorkflowId(id.to_owned())
}

#[tokio::test]
async fn a_registration_is_stored_once_and_sets_up_its_queues() {
    let world = World::new().await;
    let first = world.register(ORDER).await;
    assert_eq!(first.outcome, RegistrationOutcome::Registered);
    assert_eq!(first.queues, ["orders", "undo"]);
    let told = world.told.lock().unwrap().clone();
    let waits: Vec<_> = told[0].1.iter().map(|q| (q.queue.as_str(), q.ack_wait)).collect();
    // The largest start-to-close of a queue, and never less than the least.
    assert_eq!(
        waits,
        [("orders", Duration::from_secs(45)), ("undo", Duration::from_secs(30))]
    );

    world.store.advance(knarr_core::time::Span::from_secs(60));
    let again = world.register(ORDER).await;
    assert_eq!(again.outcome, RegistrationOutcome::Unchanged);
    assert_eq!(again.definition, first.definition);

    // Runs of version 1 still send tasks that may take 45 s.
    let newer = ORDER.replace("version: 1", "version: 2").replace("45s", "1s");
    world.register(&newer).await;
    let last = world.told.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last.1[0].ack_wait, Duration::from_secs(45));

    let other = world.register(&ORDER.replace("45s", "46s")).await;
    assert_eq!(other.outcome, RegistrationOutcome::Refused);
    assert_eq!(other.error.unwrap().code, "KN0230");

    let page = world
        .operations
        .list_definitions(
            &"default".into(),
            &ListDefinitions {
                limit: Some(1),
                ..Default::default()
            },
        )
        .await
        .unwrap();
    assert_eq!((page.definitions.len(), page.definitions[0].version), (1, 1));
    let page = world
        .operations
        .list_definitions(
            &"default".into(),
            &ListDefinitions {
                after: page.next,
                ..Default::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(
        (page.definitions.len(), page.definitions[0].version, page.next),
        (1, 2, None)
    );
}

#[tokio::test]
async fn a_definition_with_errors_is_answered_with_findings_and_not_stored() {
    let world = World::new().await;
    let refused = world
        .register("workflow: order\nversion: 1\nsteps:\n  - pay: { activty: pay }\n")
        .await;
    assert_eq!(refused.outcome, RegistrationOutcome::Refused);
    assert!(
        refused
            .findings
            .iter()
            .any(|finding| { finding.severity == FindingSeverity::Error && finding.at.is_some_and(|at| at.line == 4) })
    );
    assert!(world.told.lock().unwrap().is_empty());
    let all = ListDefinitions::default();
    let list = world.operations.list_definitions(&"default".into(), &all).await;
    assert!(list.unwrap().definitions.is_empty());

    let show = |workflow: &str, version| {
        let request = ShowDefinition {
            workflow: workflow.to_owned(),
            version,
        };
        let operations = Arc::clone(&world.operations);
        async move { operations.show_definition(&"default".into(), &request).await }
    };
    assert_eq!(show("order", None).await.unwrap_err().body.code, "KN0206");
    world.register(ORDER).await;
    assert_eq!(show("order", None).await.unwrap().source, ORDER);
    assert_eq!(show("order", Some(7)).await.unwrap_err().body.code, "KN0207");
    assert_eq!(show("order", Some(u32::MAX)).await.unwrap_err().body.code, "KN0207");
}

#[tokio::test]
async fn files_of_a_definition_come_with_it() {
    let world = World::new().await;
    let source = ORDER.replace("version: 1", "version: 1\ninput_schema: ./order.schema.json");
    let mut request = RegisterDefinition {
        source,
        file_name: None,
        files: Default::default(),
    };
    let register = |request| {
        let operations = Arc::clone(&world.operations);
        async move { operations.register_definition(&"default".into(), request).await }
    };
    let missing = register(request.clone()).await.unwrap();
    assert_eq!(missing.findings[0].code, "KN0130");
    let schema = r#"{"type": "object"}"#.to_owned();
    request.files.insert("./order.schema.json".to_owned(), schema);
    assert_eq!(
        register(request).await.unwrap().outcome,
        RegistrationOutcome::Registered
    );
    let shown = ShowDefinition {
        workflow: "order".to_owned(),
        version: None,
    };
    let shown = world
        .operations
        .show_definition(&"default".into(), &shown)
        .await
        .unwrap();
    assert_eq!(shown.input_schema, Some(json!({"type": "object"})));
}

#[tokio::test]
async fn runs_are_listed_newest_first_in_pages() {
    let world = World::new().await;
    for n in 1..=5 {
        world.add(&TestRun::start(n, &format!("o-{n}"), json!(null))).await;
    }
    let list = |request: ListRuns| {
        let operations = Arc::clone(&world.operations);
        async move { operations.list_runs(&"default".into(), &request).await }
    };
    let first = list(ListRuns {
        limit: Some(2),
        ..Default::default()
    })
    .await
    .unwrap();
    let ids =
        |page: &knarr_schemas::api::RunPage| page.runs.iter().map(|run| run.workflow_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first), ["o-5", "o-4"]);
    let second = list(ListRuns {
        limit: Some(3),
        before: first.next,
        ..Default::default()
    })
    .await
    .unwrap();
    assert_eq!(
        (ids(&second), second.next),
        (vec!["o-3".into(), "o-2".into(), "o-1".into()], None)
    );
    let wrong = list(ListRuns {
        status: Some("Running".to_owned()),
        ..Default::default()
    });
    assert_eq!(wrong.await.unwrap_err().body.code, "KN0228");
    let all = ListRuns::default();
    let elsewhere = world.operations.list_runs(&"elsewhere".into(), &all).await;
    assert_eq!(elsewhere.unwrap_err().body.code, "KN0205");
}

#[tokio::test]
async fn a_run_is_described_while_it_runs_and_after_it_was_undone() {
    let world = World::new().await;
    let mut run = TestRun::start(1, "order-17", json!({"amount": 12}));
    run.complete(1, json!({"order_id": "o-1"}));
    world.add(&run).await;
    let described = |id: &'static str| {
        let operations = Arc::clone(&world.operations);
        async move { operations.show_run(&"default".into(), &by_id(id), BUDGET).await }
    };
    let description = described("order-17").await.unwrap();
    assert_eq!(description.run.status, "running");
    let steps: Vec<_> = description
        .steps
        .iter()
        .map(|s| (s.path.as_str(), s.status.as_str(), s.attempts))
        .collect();
    assert_eq!(steps, [("create_order", "completed", 1), ("payment", "running", 1)]);
    assert_eq!(description.tasks.len(), 1);
    assert_eq!(description.search_attributes["customer"], "c-1");

    // 3 = the undo of create_order.
    let mut failed = TestRun::start(2, "order-18", json!({"amount": 12}));
    failed.complete(1, json!({"order_id": "o-2"}));
    failed.fail(2);
    failed.complete(3, json!(null));
    world.add(&failed).await;
    let description = described("order-18").await.unwrap();
    let look = Look {
        color: false,
        width: None,
        now: failed.state.at().to_utc() + chrono::TimeDelta::seconds(90),
    };
    insta::assert_snapshot!("described", show::render(&description, &look));
    insta::assert_json_snapshot!("description", description);

    assert_eq!(described("order-19").await.unwrap_err().body.code, "KN0211");
    let run_id = RunName::RunId(Uuid::from_u128(2));
    let same = world
        .operations
        .show_run(&"default".into(), &run_id, BUDGET)
        .await
        .unwrap();
    assert_eq!(same, description);
    // A run id of another namespace tells nothing.
    let namespace = world
        .operations
        .create_namespace(&"other".into(), CreateNamespace::default())
        .await
        .unwrap();
    assert!(namespace.created && namespace.events.is_some());
    for on in [true, false] {
        let set = SetNamespace { events: Some(on) };
        let set = world.operations.set_namespace(&"other".into(), set).await.unwrap();
        assert_eq!((set.created, set.events), (false, Some(on)));
        let again = CreateNamespace { events: Some(!on) };
        let there = world.operations.create_namespace(&"other".into(), again).await.unwrap();
        assert_eq!(there.events, Some(on), "it is left as it is");
    }
    let nowhere = SetNamespace { events: Some(true) };
    let nowhere = world.operations.set_namespace(&"nowhere".into(), nowhere).await;
    assert_eq!(nowhere.unwrap_err().body.code, "KN0205");
    let other = world.operations.show_run(&"other".into(), &run_id, BUDGET).await;
    assert_eq!(other.unwrap_err().body.code, "KN0211");
}

#[tokio::test]
async fn too_much_data_is_left_out_of_a_description() {
    let world = World::new().await;
    let mut run = TestRun::start(1, "big", json!("x".repeat(2_000)));
    run.complete(1, json!("y".repeat(2_000)));
    world.add(&run).await;
    let description = world
        .operations
        .show_run(&"default".into(), &by_id("big"), 3_000)
        .await
        .unwrap();
    assert!(description.shortened && description.input.is_none());
    assert_eq!(description.steps[0].output, None);
}

#[tokio::test]
async fn the_open_run_is_meant_else_the_last_one() {
    let world = World::new().await;
    for n in [1, 2] {
        let mut run = TestRun::start(n, "again", json!(n));
        run.complete(1, json!(null));
        run.complete(2, json!(null));
        world.add(&run).await;
    }
    let shown = || async {
        let found = world
            .operations
            .show_run(&"default".into(), &by_id("again"), BUDGET)
            .await;
        found.unwrap().run.run_id.as_u128()
    };
    assert_eq!(shown().await, 2);
    world.add(&TestRun::start(3, "again", json!(3))).await;
    assert_eq!(shown().await, 3);
}

#[tokio::test]
async fn a_history_comes_in_pages_of_bounded_size() {
    let world = World::new().await;
    let mut run = TestRun::start(1, "h", json!("x".repeat(1_500)));
    run.complete(1, json!({"order_id": "o-1"}));
    run.fail(2);
    run.complete(3, json!(null));
    world.add(&run).await;
    let page = |after, limit, budget| {
        let operations = Arc::clone(&world.operations);
        let request = ShowHistory {
            run: by_id("h"),
            after,
            limit,
        };
        async move { operations.history(&"default".into(), &request, budget).await.unwrap() }
    };
    let whole = page(None, None, BUDGET).await;
    assert_eq!((whole.transitions.len(), whole.next), (run.transitions.len(), None));
    let text: Vec<_> = whole.transitions[0].events.iter().map(Value::to_string).collect();
    assert_eq!(format!("[{}]", text.join(",")), stored(&run.transitions[0]).body);

    // Page by page gives the same, whatever the pages are cut by.
    for (limit, budget) in [(Some(1), BUDGET), (None, 4_500), (Some(MAX_PAGE + 1), BUDGET)] {
        let mut transitions = Vec::new();
        let mut after = None;
        loop {
            let next = page(after, limit, budget).await;
            assert!(serde_json::to_vec(&next).unwrap().len() <= budget);
            transitions.extend(next.transitions);
            after = next.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(transitions, whole.transitions);
    }

    // What fits no page is named by its size.
    let small = page(None, None, 2_000).await;
    assert!(small.transitions[0].omitted_bytes.is_some_and(|bytes| bytes > 3_000));
    assert_eq!(small.transitions[1], whole.transitions[1]);

    let mut timeline = Timeline::default();
    for transition in small.transitions.iter().chain(&whole.transitions[2..]) {
        timeline.add(transition);
    }
    assert!(!whole.transitions.is_empty());
    let look = Look {
        color: false,
        width: None,
        now: chrono::DateTime::UNIX_EPOCH,
    };
    let mut timeline = Timeline::default();
    for transition in &whole.transitions {
        timeline.add(transition);
    }
    insta::assert_snapshot!("real_timeline", timeline.render(&look));
}

#[tokio::test]
async fn a_store_that_is_away_is_said_to_be() {
    let world = World::new().await;
    world.store.set_available(false);
    let refusal = world
        .operations
        .list_runs(&"default".into(), &ListRuns::default())
        .await
        .unwrap_err();
    assert_eq!((refusal.status, refusal.body.code.as_str()), (503, "KN0233"));
}

#[tokio::test]
async fn namespaces_are_created_up_to_their_limit() {
    let world = World::new().await;
    let create = async |n: usize| {
        world
            .operations
            .create_namespace(&Namespace::new(&format!("ns{n}")), CreateNamespace::default())
            .await
    };
    // `default` is there already.
    for n in 1..MOST_NAMESPACES {
        assert!(create(n).await.unwrap().created);
    }
    assert_eq!(create(MOST_NAMESPACES).await.unwrap_err().body.code, "KN0251");
    assert!(!create(1).await.unwrap().created);
}

#[test]
fn queues_that_cannot_be_set_up_are_told_apart_from_a_definition_that_is_not_registered() {
    let away = Refusal::from(BusError::Unavailable("KN0301: no NATS server answers".to_owned()));
    assert_eq!((away.status, away.body.code.as_str()), (503, "KN0243"));
    let refused = Refusal::from(BusError::Misconfigured(
        "KN0306: insufficient storage resources available".to_owned(),
    ));
    assert_eq!((refused.status, refused.body.code.as_str()), (500, "KN0244"));
    for refusal in [away, refused] {
        assert!(refusal.body.message.contains("is registered"), "{refusal:?}");
        assert!(
            !refusal.body.message.contains("KN03"),
            "one code at a time: {refusal:?}"
        );
        assert!(
            refusal.body.remedy.contains("register the same definition again"),
            "{refusal:?}"
        );
    }
}

#[tokio::test]
async fn the_highest_version_of_a_workflow_speaks_for_its_schedule() {
    let world = World::new().await;
    let text = |version, schedule: &str| {
        format!("workflow: tick\nversion: {version}\n{schedule}steps: [ {{ a: {{ set: {{ x: 1 }} }} }} ]\n")
    };
    let told = |world: &World| std::mem::take(&mut *world.scheduled.lock().unwrap());
    // Nothing is said where there is nothing to say.
    assert_eq!(world.register(&text(1, "")).await.schedule, None);
    assert_eq!(told(&world), []);
    let registered = world.register(&text(3, "schedule: '@daily'\n")).await;
    let outlook = registered.schedule.expect("what comes");
    assert_eq!(
        (outlook.zone.as_str(), outlook.next.len(), outlook.paused),
        ("UTC", 1, None)
    );
    let [(name, request)] = &told(&world)[..] else { panic!() };
    assert_eq!(
        (name.as_str(), request.ask, request.version),
        ("tick", ScheduleVerb::Define, Some(3))
    );
    let document = request.schedule.as_ref().unwrap();
    assert_eq!(
        (&document["workflow"], &document["cron"]),
        (&json!("tick"), &json!(["@daily"]))
    );
    // Registering it again says it again: what was missed is mended.
    let again = world.register(&text(3, "schedule: '@daily'\n")).await;
    assert_eq!((told(&world).len(), again.schedule.is_some()), (1, true));
    // An older version does not speak any more.
    let older = world.register(&text(2, "schedule: '@hourly'\n")).await;
    assert_eq!((told(&world), older.schedule), (vec![], None));
}

#[tokio::test]
async fn a_lease_is_asserted_when_it_is_said_and_when_it_is_taken_back() {
    let world = World::new().await;
    world.register(ORDER).await;
    let namespace = "default".into();
    let told = || std::mem::take(&mut *world.told.lock().unwrap());
    told();
    let set = async |queue: &str, ack_wait_ms: Option<u64>| {
        let request = SetQueue {
            queue: queue.to_owned(),
            max_concurrent: None,
            rate: None,
            ack_wait_ms,
        };
        world.operations.set_queue(&namespace, request).await
    };
    for (said, seconds) in [
        (Some(1_000), 1),
        (Some(2_592_000_000), 2_592_000),
        (None, 45),
        (None, 45),
    ] {
        assert_eq!(set("orders", said).await.unwrap().ack_wait_ms, said);
        let settings = QueueSettings {
            queue: "orders".into(),
            ack_wait: std::time::Duration::from_secs(seconds),
        };
        assert_eq!(told(), [("default".to_owned(), vec![settings])]);
    }
    // Of a queue that no definition names there is nothing to assert yet.
    set("later", Some(5_000)).await.unwrap();
    assert_eq!(told(), []);
    for bad in [0, 999, 2_592_000_001, u64::MAX] {
        assert_eq!(set("orders", Some(bad)).await.unwrap_err().body.code, "KN0280", "{bad}");
    }
    let page = world.operations.list_queues(&namespace).await.unwrap();
    assert_eq!(page.queues.len(), 1);
    assert_eq!(page.queues[0].ack_wait_ms, Some(5_000));
}

/// A replica of the first level could not read them; a limit may be lifted at any time.
#[tokio::test]
async fn what_older_replicas_could_not_read_waits_for_the_end_of_an_upgrade() {
    for level in [1, 2] {
        let world = World::of_level(level).await;
        assert_eq!(world.register(ORDER).await.outcome, RegistrationOutcome::Registered);
        let newer = ORDER.replace("version: 1", "version: 2").replace(
            "activity: process-payment",
            "activity: process-payment\n      heartbeat: 5s",
        );
        let registered = world.register(&newer).await;
        let limit = |max_concurrent| SetQueue {
            queue: "orders".to_owned(),
            max_concurrent,
            rate: None,
            ack_wait_ms: None,
        };
        let namespace = "default".into();
        let limited = world.operations.set_queue(&namespace, limit(Some(3))).await;
        world.operations.set_queue(&namespace, limit(None)).await.unwrap();
        if level == 1 {
            assert_eq!(registered.outcome, RegistrationOutcome::Refused);
            assert_eq!(registered.error.unwrap().code, "KN0258");
            assert_eq!(limited.unwrap_err().body.code, "KN0258");
            let stored = world.store.definition(&namespace, &"order".into(), None).await.unwrap();
            assert_eq!(stored.unwrap().version, 1);
        } else {
            assert_eq!(registered.outcome, RegistrationOutcome::Registered);
            limited.unwrap();
        }
    }
}

#[tokio::test]
async fn definitions_whose_runs_are_tried_again_wait_for_the_end_of_an_upgrade() {
    let newer = [
        ORDER.replace("version: 1", "version: 1\nretry: { maximum_attempts: 3 }"),
        ORDER.replace("activity: cancel-order", "activity: cancel-order, on_exhausted: halt"),
    ];
    for text in newer {
        assert_ne!(text, ORDER);
        let older = World::of_level(FORMAT_LEVEL - 1).await;
        assert_eq!(older.register(&text).await.error.unwrap().code, "KN0258");
        let registered = World::new().await.register(&text).await;
        assert_eq!(registered.outcome, RegistrationOutcome::Registered);
    }
}

#[tokio::test]
async fn the_highest_version_of_a_workflow_speaks_for_its_triggers() {
    let world = World::new().await;
    let text = |version, triggers: &str| {
        format!("workflow: tick\nversion: {version}\n{triggers}steps: [ {{ a: {{ set: {{ x: 1 }} }} }} ]\n")
    };
    let told = |world: &World| std::mem::take(&mut *world.triggered.lock().unwrap());
    world.register(&text(1, "")).await;
    assert_eq!(told(&world), []);
    let two = "triggers: { a: { stream: S }, b: { stream: S, subject: 's.b' } }\n";
    world.register(&text(3, two)).await;
    let heard = told(&world);
    let names: Vec<&str> = heard.iter().map(|(name, _)| name.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    for (name, request) in &heard {
        assert_eq!((name.workflow.as_str(), request.version), ("tick", Some(3)));
        assert_eq!(request.trigger.as_ref().unwrap()["stream"], json!("S"));
    }
    // Registering it again says it again; an older version does not speak any more.
    world.register(&text(3, two)).await;
    assert_eq!(told(&world).len(), 2);
    world.register(&text(2, two)).await;
    assert_eq!(told(&world), []);
}

#[tokio::test]
async fn updates_that_are_not_done_and_signals_that_nobody_took_are_told_of() {
    let world = World::new().await;
    let text = "workflow: order\nversion: 1\ndefaults: { queue: q, start_to_close: 5s, retry: { maximum_attempts: 2 } }\n\
        steps:\n  - pack: { activity: pack, compensate: unpack }\n  - approval: { wait_for: { signal: approve, timeout: 1h } }\n\
        updates: { change: { steps: [ { check: { activity: check, read_only: true } } ] } }\n";
    assert_eq!(world.register(text).await.findings, []);
    let mut run = TestRun::start_of(text, 7, "o-7", json!(null));
    run.update("u-1", UpdateStage::Completed);
    run.update("u-2", UpdateStage::Accepted);
    run.tell(Input::Park {
        reason: "broken".into(),
    });
    run.update("u-3", UpdateStage::Completed);
    run.tell(Input::Signal {
        name: "approve".into(),
        body: Arc::new(json!({ "ok": true })),
        operation: Operation::default(),
    });
    world.add(&run).await;
    let show = async |id: &str| {
        let operations = &world.operations;
        operations
            .show_run(&"default".into(), &by_id(id), BUDGET)
            .await
            .unwrap()
    };
    let shown = show("o-7").await;
    let told = |shown: &RunDescription| -> Vec<_> {
        let updates = shown.updates.iter();
        let told = updates.map(|it| (it.id.clone(), it.status.clone(), it.step.clone(), it.waiters));
        told.collect()
    };
    let of = |id: &str, status: &str, step: Option<&str>, waiters| {
        (id.to_owned(), status.to_owned(), step.map(str::to_owned), waiters)
    };
    assert_eq!(
        told(&shown),
        [
            of("u-1", "running", Some("$updates.change[0]"), 1),
            // Whoever waits for no more than its acceptance has been told.
            of("u-2", "accepted", None, 0),
            of("u-3", "put_off", None, 1),
        ]
    );
    assert_eq!(shown.updates[0].input, Some(json!("u-1")));
    let signal = WaitingSignal {
        name: "approve".to_owned(),
        body: Some(json!({ "ok": true })),
    };
    assert_eq!(shown.signals, [signal]);
    let mut short = shown.clone();
    short.shorten();
    assert_eq!((&short.updates[0].input, &short.signals[0].body), (&None, &None));
    let mut closed = TestRun::start_of(text, 8, "o-8", json!(null));
    closed.update("u-1", UpdateStage::Completed);
    closed.tell(Input::Terminate(Operation::default()));
    world.add(&closed).await;
    let closed = show("o-8").await;
    assert_eq!(
        (closed.updates.len(), closed.signals.len()),
        (0, 0),
        "nothing waits in it any more"
    );
}

#[tokio::test]
async fn a_step_that_took_a_signal_from_before_is_told_of() {
    let world = World::new().await;
    let text = "workflow: order\nversion: 1\ndefaults: { queue: q, start_to_close: 5s, retry: { maximum_attempts: 2 } }\n\
        steps:\n  - pack: { activity: pack, compensate: unpack }\n  - approval: { wait_for: { signal: approve, timeout: 1h } }\n  \
        - pause: { wait: 1h }\n";
    world.register(text).await;
    let mut run = TestRun::start_of(text, 7, "o-7", json!(null));
    let signal = Input::Signal {
        name: "approve".into(),
        body: Arc::new(json!({ "ok": true })),
        operation: knarr_core::run::input::Operation::default(),
    };
    let at = Timestamp(run.state.at().0 + 1_000);
    let taken = apply(&run.definition.plan, &mut run.state, signal, at).unwrap();
    run.transitions.extend(taken);
    run.complete(1, json!(1));
    world.add(&run).await;
    let shown = world
        .operations
        .show_run(&"default".into(), &by_id("o-7"), BUDGET)
        .await
        .unwrap();
    let steps: Vec<_> = shown
        .steps
        .iter()
        .map(|step| (step.path.as_str(), step.status.as_str()))
        .collect();
    assert_eq!(
        steps,
        [("pack", "completed"), ("approval", "completed"), ("pause", "waiting")]
    );
}
