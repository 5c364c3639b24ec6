//! What is said to runs: signals from outside, and messages between runs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use knarr_core::ids::RunId;
use knarr_core::run::Event;
use knarr_core::run::message::{Answer, Body, OnParentClose, Refusal, StartChild, TriggeredBy};
use knarr_core::trigger::spec::{Conflict, Reuse};
use knarr_schemas::body::{AnswerStage, RunMessage, RunMessageAnswer, SendingRun};
use knarr_schemas::{header as names, subject};
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::token::{Signed, TokenKey};
use super::scripts::honest;
use super::world::{Act, World, done};
use crate::store::memory::CommitFault;

fn key() -> TokenKey {
    // Of the memory store's clusters.
    TokenKey::new(&[7; 32])
}

/// A run that no cluster has started.
pub(super) fn stranger() -> RunId {
    RunId(Uuid::from_u128(
        (0x0190_0000_0000 << 80) | (0x7 << 76) | (0x8 << 60) | 42,
    ))
}

pub(super) async fn publish_signed(world: &World, verb: &str, id: &str, body: &impl serde::Serialize) {
    let body = serde_json::to_vec(body).unwrap();
    let token = key().sign(&Signed {
        verb,
        namespace: "default",
        workflow_id: id,
        body: &body,
    });
    let headers = super::world::headers_of(&[(names::MESSAGE_TOKEN, &token)]);
    let subject = subject::run_verb("default", id, verb).unwrap();
    world.bus.publish_to_log(&subject, headers, Bytes::from(body)).unwrap();
}

/// A message from a run called `parent`, which this test plays.
pub(super) async fn say(world: &World, to: &str, number: u32, to_run: Option<RunId>, body: &Body) {
    let message = RunMessage {
        from: SendingRun {
            run: stranger().0,
            namespace: "default".to_owned(),
            workflow_id: "parent".to_owned(),
        },
        number,
        to_run: to_run.map(|run| run.0),
        message: serde_json::to_value(body).unwrap(),
    };
    publish_signed(world, "message", to, &message).await;
}

/// The answers that the log has for `parent`, in order.
pub(super) fn answers(world: &World) -> Vec<(u32, Answer)> {
    let messages = world.bus.logged("default.parent.answer");
    let read = |body: &Bytes| {
        let body: RunMessageAnswer = serde_json::from_slice(body).unwrap();
        assert_eq!(body.to_run, stranger().0);
        (body.number, serde_json::from_value(body.answer).unwrap())
    };
    messages.iter().map(read).collect()
}

pub(super) fn start_child(run_id: RunId, workflow: &str) -> Body {
    Body::StartChild(StartChild {
        run_id,
        workflow: workflow.into(),
        version: None,
        input: std::sync::Arc::new(json!({ "order": "c-1" })),
        step: "child".into(),
        parent_close: OnParentClose::RequestCancel,
        detached: false,
        scheduled: None,
        priority: None,
        triggered: None,
    })
}

pub(super) fn signals(events: &[Event]) -> Vec<Value> {
    let taken = events.iter().filter_map(|event| match event {
        Event::SignalReceived(signal) => Some((*signal.body).clone()),
        _ => None,
    });
    taken.collect()
}

pub(super) fn slow() -> super::world::Script {
    std::sync::Arc::new(|_| Act {
        takes_ms: 2_000,
        ..done()
    })
}

/// The repeat of a start is asked about just before the child begins, and hears only when that has closed and left the memory
/// that there was no such run.
#[tokio::test(start_paused = true)]
async fn a_child_that_closes_while_it_is_looked_up_is_not_started_again() {
    let mut world = World::new(109).await;
    world
        .register("workflow: quick\nversion: 1\nsteps:\n  - note: { set: { seen: true } }\n")
        .await;
    // One batch commits, and the next is full.
    world.config.batch_inputs = 1;
    let replica = world.replica("r0");
    world.weather.commit_ms.store(300, Ordering::SeqCst);
    world.weather.answers_late_ms.store(500, Ordering::SeqCst);
    let run = |n| RunId(Uuid::from_u128(stranger().0.as_u128() + n));
    say(&world, "c-0", 1, None, &start_child(run(1), "quick")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    // They are asked about in one look-up, when the first has returned.
    for number in [2, 3, 4] {
        let start = start_child(run(number), "quick");
        say(&world, "c-1", u32::try_from(number).unwrap(), None, &start).await;
    }
    // The repeat is asked about next: when the first of them has just begun, and the second not yet. Its turn comes after the
    // third, when the second has closed and left.
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.weather.answers_late_ms.store(5_000, Ordering::SeqCst);
    say(&world, "c-1", 3, None, &start_child(run(3), "quick")).await;
    // The answer comes, and what it says of that one is no longer true.
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.check().await;
    assert_eq!(world.rows_of("c-1").len(), 3);
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn signals_are_kept_in_order_and_once() {
    let mut world = World::new(110).await;
    let replica = world.replica("r0");
    world.work(slow());
    world.start("o-1", &[]).await;
    let mut inbox = world.bus.subscribe("_INBOX.test");
    let to = subject::signal("default", "o-1", "paid").unwrap();
    for n in 0..5 {
        let request = format!("s-{n}");
        for _ in 0..2 {
            let headers = [(names::REQUEST_ID, &*request), (names::REPLY_TO, "_INBOX.test")];
            world.publish(&to, &headers, json!(n)).await;
        }
    }
    for _ in 0..10 {
        assert_eq!(world.answer(&mut inbox).await.stage, AnswerStage::Accepted);
    }
    let run = world.rows_of("o-1")[0].run_id;
    assert_eq!(
        signals(&world.events(run).await),
        [json!(0), json!(1), json!(2), json!(3), json!(4)]
    );
    world.until("closed", |world| world.closed() == 1).await;
    world.quiet().await;
    // Nobody is there any more, and nobody ever was.
    for (id, code) in [("o-1", "KN0212"), ("o-2", "KN0211")] {
        let to = subject::signal("default", id, "paid").unwrap();
        world.publish(&to, &[], json!(9)).await;
        world
            .until("a dead letter", |world| {
                let letters = world.bus.dead_letters();
                letters
                    .iter()
                    .any(|letter| crate::bus::header(&letter.headers, names::ERROR_CODE) == Some(code))
            })
            .await;
    }
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_signal_may_start_its_run_once() {
    let mut world = World::new(111).await;
    let replica = world.replica("r0");
    world.work(honest());
    let to = subject::signal("default", "o-1", "paid").unwrap();
    let headers = [(names::START_WORKFLOW, "order"), (names::REQUEST_ID, "s-1")];
    for _ in 0..3 {
        world.publish(&to, &headers, json!({ "order": 1 })).await;
    }
    world.until("closed", |world| world.closed() == 1).await;
    // A repeat that comes when the run has closed: who sends it waits for the answer that was lost.
    let mut inbox = world.bus.subscribe("_INBOX.test");
    let [start, request] = headers;
    let repeat = [start, request, (names::REPLY_TO, "_INBOX.test")];
    world.publish(&to, &repeat, json!({ "order": 1 })).await;
    let answer = world.answer(&mut inbox).await;
    assert_eq!(answer.stage, AnswerStage::Accepted, "{answer:?}");
    world.quiet().await;
    let rows = world.rows_of("o-1");
    assert_eq!((rows.len(), answer.run_id), (1, Some(rows[0].run_id.0)));
    assert_eq!(signals(&world.events(rows[0].run_id).await), [json!({ "order": 1 })]);
    // Another signal starts another run.
    let other = [
        (names::START_WORKFLOW, "order"),
        (names::START_INPUT, r#"{"order": 2}"#),
        (names::REQUEST_ID, "s-2"),
    ];
    world.publish(&to, &other, json!("body")).await;
    world.until("closed", |world| world.closed() == 2).await;
    world.quiet().await;
    assert_eq!(world.bus.dead_letters().len(), 0);
    replica.stop().await;
}

/// Its repeat is no signal to the run that has the id by then.
#[tokio::test(start_paused = true)]
async fn a_signal_that_has_started_a_run_is_not_given_to_the_next_one() {
    let mut world = World::new(118).await;
    let replica = world.replica("r0");
    world.work(slow());
    let mut inbox = world.bus.subscribe("_INBOX.test");
    let to = subject::signal("default", "o-1", "paid").unwrap();
    let headers = [
        (names::START_WORKFLOW, "order"),
        (names::REQUEST_ID, "s-1"),
        (names::REPLY_TO, "_INBOX.test"),
    ];
    world.publish(&to, &headers, json!({ "order": 1 })).await;
    let first = world.answer(&mut inbox).await;
    assert_eq!(first.stage, AnswerStage::Accepted);
    world.until("closed", |world| world.closed() == 1).await;
    world.start("o-1", &[]).await;
    world.until("another", |world| world.rows_of("o-1").len() == 2).await;
    world.publish(&to, &headers, json!({ "order": 1 })).await;
    let again = world.answer(&mut inbox).await;
    assert_eq!((again.stage, again.run_id), (AnswerStage::Accepted, first.run_id));
    let rows = world.rows_of("o-1");
    assert_eq!(first.run_id, Some(rows[0].run_id.0));
    assert_eq!(signals(&world.events(rows[1].run_id).await), Vec::<Value>::new());
    world.until("both closed", |world| world.closed() == 2).await;
    world.quiet().await;
    replica.stop().await;
}

/// Whatever dies or is lost, a child is started once, answers once and says its end until that is heard.
#[tokio::test(start_paused = true)]
async fn a_child_is_started_once_and_says_its_end_until_it_is_heard() {
    for fault in [None, Some(CommitFault::LostBefore), Some(CommitFault::LostAfter)] {
        let mut world = World::new(112).await;
        let mut replica = world.replica("r0");
        world.work(honest());
        *world.weather.loses_subject.lock().unwrap() = Some("knarr.run.default.parent.message");
        let child = RunId(Uuid::from_u128(
            (0x0190_0000_0001 << 80) | (0x7 << 76) | (0x8 << 60) | 7,
        ));
        if let Some(fault) = fault {
            world.store.fail_next_commit(fault);
        }
        for _ in 0..2 {
            say(&world, "child", 1, None, &start_child(child, "order")).await;
        }
        world.until("answered", |world| !answers(world).is_empty()).await;
        if fault.is_some() {
            replica.kill();
            replica = world.replica("r1");
        }
        world.until("the child is done", |world| world.closed() == 1).await;
        assert!(answers(&world).iter().all(|answer| *answer == (1, Answer::Accepted)));
        let rows = world.rows_of("child");
        assert_eq!((rows.len(), rows[0].run_id), (1, child));

        // Its end is said until it is answered, though it has closed: by who owned it then, or by the next.
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        assert!(world.rows_of("child")[0].wake_at.is_some());
        assert_eq!(world.bus.logged("default.parent.message").len(), 0);
        replica.kill();
        replica = world.replica("r2");
        *world.weather.loses_subject.lock().unwrap() = None;
        world
            .until("its end is said", |world| {
                !world.bus.logged("default.parent.message").is_empty()
            })
            .await;
        let said: RunMessage = serde_json::from_slice(&world.bus.logged("default.parent.message")[0]).unwrap();
        assert_eq!(said.from.run, child.0);
        assert!(
            said.message["child_closed"]["status"] == "completed",
            "{}",
            said.message
        );
        // A parent that does not exist is answered by the shell: the end is settled.
        world
            .until("settled", |world| world.rows_of("child")[0].wake_at.is_none())
            .await;
        world.quiet().await;
        let count = world.bus.logged("default.parent.message").len();
        tokio::time::sleep(std::time::Duration::from_secs(1_000)).await;
        assert_eq!(world.bus.logged("default.parent.message").len(), count);
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_delivered_is_answered() {
    let mut world = World::new(113).await;
    let replica = world.replica("r0");
    world.work(slow());
    world.start("taken", &[]).await;
    world.until("started", |world| world.rows().len() == 1).await;
    let child = |n: u128| {
        RunId(Uuid::from_u128(
            (0x0190_0000_0001 << 80) | (0x7 << 76) | (0x8 << 60) | n,
        ))
    };
    let cancel = Body::Cancel {
        operation: Default::default(),
    };
    say(&world, "taken", 1, None, &start_child(child(1), "order")).await;
    say(&world, "child", 2, None, &start_child(child(2), "nothing")).await;
    say(&world, "nobody", 3, None, &cancel).await;
    say(&world, "taken", 4, Some(child(3)), &cancel).await;
    world.until("answered", |world| answers(world).len() == 4).await;
    let mut reasons: Vec<(u32, Refusal)> = answers(&world)
        .into_iter()
        .map(|(number, answer)| match answer {
            Answer::Refused { reason, .. } => (number, reason),
            Answer::Accepted | Answer::Granted { .. } | Answer::Occupied { .. } => panic!("{number} was accepted"),
        })
        .collect();
    reasons.sort_by_key(|(number, _)| *number);
    let expected = [
        (1, Refusal::IdTaken),
        (2, Refusal::UnknownWorkflow),
        (3, Refusal::NoRun),
        (4, Refusal::NoRun),
    ];
    assert_eq!(reasons, expected);

    // A signal from a run is kept once, however often it is offered.
    let signal = Body::Signal {
        name: "paid".into(),
        body: std::sync::Arc::new(json!(7)),
        sent_at: None,
    };
    for _ in 0..3 {
        say(&world, "taken", 5, None, &signal).await;
    }
    world.until("answered", |world| answers(world).len() == 7).await;
    let run = world.rows_of("taken")[0].run_id;
    assert_eq!(signals(&world.events(run).await), [json!(7)]);
    world.until("closed", |world| world.closed() == 1).await;
    replica.stop().await;
}

pub(super) const CHAIN: &str = r#"
workflow: chain
version: 1
defaults: { queue: orders, start_to_close: 5s, retry: { maximum_attempts: 1 } }
steps:
  - wait: { wait_for: { signal: go, timeout: 1h } }
  - work: { activity: work, no_undo: it is read }
  - more:
      if: "${ input.left > 0 }"
      continue_as_new: { left: "${ input.left - 1 }" }
output: "done"
"#;

/// What is said to a run that has gone on as another reaches that one, in memory or where a new owner has to look both up.
#[tokio::test(start_paused = true)]
async fn a_message_follows_a_run_that_goes_on_as_another() {
    for dies in [false, true] {
        let mut world = World::new(115).await;
        world.register(CHAIN).await;
        let mut replica = world.replica("r0");
        world.work(honest());
        let to = subject::start("default", "c-1", "chain").unwrap();
        world.publish(&to, &[], json!({ "left": 5 })).await;
        let go = subject::signal("default", "c-1", "go").unwrap();
        world
            .until("it has begun", |world| world.rows_of("c-1").len() == 1)
            .await;
        for runs in [2, 3] {
            world.publish(&go, &[], json!(runs)).await;
            world
                .until("it goes on", |world| world.rows_of("c-1").len() == runs)
                .await;
        }
        if dies {
            replica.kill();
            replica = world.replica("r1");
        }
        let first = world.rows_of("c-1")[0].run_id;
        let cancel = Body::Cancel {
            operation: Default::default(),
        };
        for _ in 0..2 {
            say(&world, "c-1", 1, Some(first), &cancel).await;
        }
        world.until("answered", |world| answers(world).len() == 2).await;
        assert!(answers(&world).iter().all(|answer| *answer == (1, Answer::Accepted)));
        world.until("all have closed", |world| world.closed() == 3).await;
        let rows = world.rows_of("c-1");
        let statuses: Vec<&str> = rows.iter().map(|row| row.status.as_str()).collect();
        assert_eq!(statuses, ["continued_as_new", "continued_as_new", "cancelled"]);
        // And is answered when that has closed as well.
        say(&world, "c-1", 2, Some(first), &cancel).await;
        world.until("refused", |world| answers(world).len() == 3).await;
        let last = answers(&world).into_iter().find(|(number, _)| *number == 2);
        let Some((_, Answer::Refused { reason, .. })) = last else {
            panic!("{last:?}");
        };
        assert_eq!(reason, Refusal::Closed);
        world.quiet().await;
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_by_a_trigger_says_what_other_runs_of_its_id_mean() {
    let mut world = World::new(117).await;
    let replica = world.replica("r0");
    world.work(slow());
    let child = |n: u128| {
        RunId(Uuid::from_u128(
            (0x0190_0000_0002 << 80) | (0x7 << 76) | (0x8 << 60) | n,
        ))
    };
    let start = |n: u128, reuse: Reuse, conflict: Conflict| {
        let Body::StartChild(start) = start_child(child(n), "order") else {
            panic!("it is a start");
        };
        Body::StartChild(StartChild {
            detached: true,
            triggered: Some(TriggeredBy {
                sequence: 1,
                reuse,
                conflict,
            }),
            ..start
        })
    };
    say(&world, "o-1", 1, None, &start(1, Reuse::default(), Conflict::Fail)).await;
    world.until("started", |world| world.rows().len() == 1).await;
    say(&world, "o-1", 2, None, &start(2, Reuse::default(), Conflict::Fail)).await;
    say(
        &world,
        "o-1",
        3,
        None,
        &start(3, Reuse::default(), Conflict::UseExisting),
    )
    .await;
    world.until("closed", |world| world.closed() == 1).await;
    say(
        &world,
        "o-1",
        4,
        None,
        &start(4, Reuse::RejectDuplicate, Conflict::Fail),
    )
    .await;
    say(
        &world,
        "o-1",
        5,
        None,
        &start(5, Reuse::AllowDuplicateFailedOnly, Conflict::Fail),
    )
    .await;
    say(&world, "o-1", 6, None, &start(6, Reuse::AllowDuplicate, Conflict::Fail)).await;
    world.until("answered", |world| answers(world).len() == 6).await;
    let told: Vec<(u32, Option<Refusal>)> = answers(&world)
        .into_iter()
        .map(|(number, answer)| match answer {
            Answer::Refused { reason, .. } => (number, Some(reason)),
            _ => (number, None),
        })
        .collect();
    assert_eq!(
        told,
        [
            (1, None),
            (2, Some(Refusal::IdTaken)),
            // The open run is used, and this start has begun none: a repeat of it that does is one too many.
            (3, Some(Refusal::IdTaken)),
            (4, Some(Refusal::AlreadyStarted)),
            (5, Some(Refusal::AlreadyStarted)),
            (6, None),
        ]
    );
    let runs: Vec<RunId> = world.rows_of("o-1").iter().map(|row| row.run_id).collect();
    assert_eq!(runs, [child(1), child(6)]);
    world.until("closed", |world| world.closed() == 2).await;
    replica.stop().await;
}

/// Nobody else can speak for a run.
#[tokio::test(start_paused = true)]
async fn a_forged_message_is_a_dead_letter() {
    let mut world = World::new(114).await;
    let replica = world.replica("r0");
    world.work(slow());
    world.start("o-1", &[]).await;
    world.until("started", |world| world.rows().len() == 1).await;
    let body = json!({
        "from": { "run": stranger().0, "namespace": "default", "workflow_id": "parent" },
        "number": 1,
        "message": { "terminate": {} },
    });
    let genuine = key().sign(&Signed {
        verb: "message",
        namespace: "default",
        workflow_id: "o-2",
        body: body.to_string().as_bytes(),
    });
    let to = subject::run_verb("default", "o-1", "message").unwrap();
    for token in ["", "AAAA", &genuine] {
        world.publish(&to, &[(names::MESSAGE_TOKEN, token)], body.clone()).await;
    }
    world
        .until("dead letters", |world| world.bus.dead_letters().len() == 3)
        .await;
    for letter in world.bus.dead_letters() {
        assert_eq!(crate::bus::header(&letter.headers, names::ERROR_CODE), Some("KN0238"));
    }
    world.until("closed", |world| world.closed() == 1).await;
    assert_eq!(world.statuses()["o-1"], "completed");
    assert_eq!(answers(&world), []);
    replica.stop().await;
}

/// The look-up is not waited for, and then says nothing: that the child is not there is no reason to leave it alone.
#[tokio::test(start_paused = true)]
async fn a_child_is_started_after_a_look_up_that_was_slow_and_failed() {
    let mut world = World::new(129).await;
    let replica = world.replica("r0");
    world.work(honest());
    world
        .weather
        .loses_look_up
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let child = RunId(Uuid::from_u128(
        (0x0190_0000_0001 << 80) | (0x7 << 76) | (0x8 << 60) | 7,
    ));
    say(&world, "child", 1, None, &start_child(child, "order")).await;
    world.until("the child is done", |world| world.closed() == 1).await;
    assert_eq!(world.rows_of("child")[0].run_id, child);
    assert_eq!(answers(&world)[0], (1, Answer::Accepted));
    replica.stop().await;
}
