//! Bodies of every size, beside their messages and in them, over real servers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use knarr::api::command::{AnswerWanted, Commander, SignalCommand, StartCommand};
use knarr_schemas::body::{Answer, AnswerStage};
use knarr_tests::jetstream::{api, dead_letters, messages, reconfigure};
use knarr_tests::{Replica, ReplicaOptions, Stack, eventually};
use knarr_worker::body::{self, MAX_INLINE_BYTES};
use knarr_worker::{ActivityError, CancellationToken, Context, Worker};
use serde_json::{Value, json};

const MAX_BYTES: usize = 2 << 20;
const BUCKET: &str = "OBJ_KNARR_BODIES_default";

/// Its input is the input of an activity and its result, of an undo, and with the signal that of a child.
const BIG: &str = "
workflow: big
version: 1
defaults: { queue: big, start_to_close: 30s, retry: { initial_interval: 100ms, maximum_attempts: 3 } }
steps:
  - say: { activity: say, input: '${ input }', compensate: { activity: unsay, input: '${ steps.say | default(none) }' } }
  - heard: { wait_for: { signal: more, timeout: 60s } }
  - kid: { workflow: { name: kid, version: 1, input: '${ steps.heard }' } }
  - ship: { activity: ship, input: '${ steps.kid }', no_undo: it fails }
";

const KID: &str = "
workflow: kid
version: 1
defaults: { queue: big, start_to_close: 30s, retry: { initial_interval: 100ms, maximum_attempts: 3 } }
steps:
  - say: { activity: say, input: '${ input }', compensate: { activity: unsay, input: '${ input }' } }
output: '${ steps.say }'
";

const GROW: &str = "
workflow: grow
version: 1
defaults: { queue: big, start_to_close: 30s, retry: { initial_interval: 100ms, maximum_attempts: 3 } }
steps:
  - grow: { activity: grow, input: '${ input }', no_undo: nothing is changed }
";

/// A JSON text of so many bytes.
fn text(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

type Seen = Arc<Mutex<BTreeMap<(String, usize), usize>>>;

/// What activities were given: how often, by name and bytes.
fn worker(stack: &Stack, seen: &Seen) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let note = |seen: &Seen| {
        let seen = Arc::clone(seen);
        move |ctx: &Context, input: &Value| {
            let key = (ctx.activity().to_owned(), input.to_string().len());
            *seen.lock().unwrap().entry(key).or_default() += 1;
        }
    };
    let (say, unsay, ship) = (note(seen), note(seen), note(seen));
    let worker = Worker::builder(stack.nats().clone())
        .queue("big")
        .activity("say", move |ctx: Context, input: Value| {
            say(&ctx, &input);
            async move { Ok::<_, ActivityError>(input) }
        })
        .activity("unsay", move |ctx: Context, input: Value| {
            unsay(&ctx, &input);
            async move { Ok::<_, ActivityError>(input) }
        })
        .activity("ship", move |ctx: Context, input: Value| {
            ship(&ctx, &input);
            async move { Err::<Value, _>(ActivityError::failed("no_stock", "as asked").non_retryable()) }
        })
        .activity("grow", |_: Context, bytes: usize| async move {
            Ok::<_, ActivityError>("x".repeat(bytes - 2))
        })
        .build()
        .unwrap();
    let end = CancellationToken::new();
    let run = worker.run(end.clone());
    let working = tokio::spawn(async move {
        let _ = run.await;
    });
    (end, working)
}

async fn start(stack: &Stack, workflow: &str, id: &str, input: String) -> Answer {
    let command = StartCommand {
        workflow: workflow.to_owned(),
        workflow_id: Some(id.to_owned()),
        input: input.into(),
        request_id: format!("start-{id}"),
        answer: Some(AnswerWanted::Started),
        ..StartCommand::default()
    };
    let mut stored = commander(stack).start(command).await.unwrap();
    stored.answer(Some(Duration::from_secs(30))).await.unwrap()
}

async fn signal(stack: &Stack, id: &str, body: String) -> Answer {
    let command = SignalCommand {
        workflow_id: id.to_owned(),
        name: "more".to_owned(),
        body: body.into(),
        request_id: format!("signal-{id}"),
        ..SignalCommand::default()
    };
    let mut stored = commander(stack).signal(command).await.unwrap();
    stored.answer(Some(Duration::from_secs(30))).await.unwrap()
}

fn commander(stack: &Stack) -> Commander {
    Commander::new(stack.nats().clone(), "default", Duration::from_secs(10))
}

async fn ends(stack: &Stack, id: &str) -> String {
    let ask = || async {
        let status: Option<String> = sqlx::query_scalar(
            "select status from runs where workflow_id = $1 and (closed_at is not null or status = 'parked')",
        )
        .bind(id)
        .fetch_optional(stack.pool())
        .await
        .unwrap();
        status
    };
    eventually(&format!("the end of {id}"), Duration::from_secs(60), ask)
        .await
        .0
}

#[tokio::test(flavor = "multi_thread")]
async fn every_size_goes_every_way() {
    let stack = Stack::start().await;
    let _replica = stack.first_replica("one").await;
    for definition in [KID, BIG, GROW] {
        stack.register("default", definition).await;
    }
    let seen = Seen::default();
    let (end, working) = worker(&stack, &seen);
    let sizes = [
        127 * 1024,
        MAX_INLINE_BYTES - 1,
        MAX_INLINE_BYTES,
        MAX_INLINE_BYTES + 1,
        1_900_000,
        MAX_BYTES,
    ];
    for (n, size) in sizes.into_iter().enumerate() {
        let id = format!("o-{n}");
        let stored = messages(stack.nats(), BUCKET).await.unwrap();
        let answer = start(&stack, "big", &id, text(size)).await;
        assert_eq!(answer.stage, AnswerStage::Started, "{answer:?}");
        assert_eq!(signal(&stack, &id, text(size)).await.stage, AnswerStage::Accepted);
        assert_eq!(
            ends(&stack, &id).await,
            "compensated",
            "{size}: {}",
            stack.timeline(&id).await
        );
        // The first of it is the same, so is what every activity was given.
        for (activity, times) in [("say", 2), ("unsay", 2), ("ship", 1)] {
            let key = (activity.to_owned(), size);
            assert_eq!(seen.lock().unwrap().get(&key), Some(&times), "{activity} of {size}");
        }
        let stored = messages(stack.nats(), BUCKET).await.unwrap() - stored;
        // What runs say to each other has more in it than the body: the start of the child, and its end.
        match size {
            _ if size > MAX_INLINE_BYTES => assert!(stored > 6, "{size}: {stored}"),
            _ if size > MAX_INLINE_BYTES - 100 => assert_eq!(stored, 6, "{size}"),
            _ => assert_eq!(stored, 0, "{size}"),
        }
    }
    assert_eq!(dead_letters(stack.nats()).await.len(), 0);

    // One past the limit, everywhere.
    let refused = start(&stack, "big", "o-8", text(MAX_BYTES + 1)).await;
    assert_eq!(refused.error.unwrap().code, "KN0204");
    assert_eq!(start(&stack, "big", "o-9", text(100)).await.stage, AnswerStage::Started);
    let refused = signal(&stack, "o-9", text(MAX_BYTES + 1)).await;
    assert_eq!(refused.error.unwrap().code, "KN0204");
    for (id, bytes, end) in [("g-1", MAX_BYTES, "completed"), ("g-2", MAX_BYTES + 1, "parked")] {
        start(&stack, "grow", id, bytes.to_string()).await;
        assert_eq!(ends(&stack, id).await, end, "{}", stack.timeline(id).await);
    }
    end.cancel();
    let _ = working.await;
    stack.stop().await;
}

/// An object of chunks of one byte, as whoever may write to the bucket can make one.
async fn cut_small(nats: &async_nats::Client, body: &str) -> String {
    let bucket = "KNARR_BODIES_default";
    for byte in body.bytes() {
        let chunk = Bytes::copy_from_slice(&[byte]);
        nats.publish(format!("$O.{bucket}.C.crumbs"), chunk).await.unwrap();
    }
    let record = json!({
        "name": "crumbs", "bucket": bucket, "nuid": "crumbs", "size": body.len(), "chunks": body.len(),
        "mtime": "2026-11-23T06:00:00Z",
    });
    // The name as URL-safe base64.
    let stored = nats
        .request(format!("$O.{bucket}.M.Y3J1bWJz"), record.to_string().into())
        .await
        .unwrap();
    let stored: Value = serde_json::from_slice(&stored.payload).unwrap();
    assert!(stored["seq"].as_u64() > Some(2_000), "{stored}");
    format!("{bucket}/crumbs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_there_is_a_dead_letter_and_holds_up_nothing() {
    let stack = Stack::start().await;
    let _replica = stack.first_replica("one").await;
    stack.register("default", GROW).await;
    stack.create_namespace("other").await;
    let (nats, starter) = (stack.nats(), stack.starter());
    let large: Bytes = text(300_000).into();
    let mine = body::put(nats, "default", &large).await.unwrap();
    let others = body::put(nats, "other", &large).await.unwrap();
    let wrong = format!("SHA-256={}", "A".repeat(43));
    let crumbs = cut_small(nats, &text(2_000)).await;
    let cases = [
        ("KNARR_BODIES_default/nothing", None, "", "KN0262"),
        (others.object.as_str(), None, "", "KN0261"),
        ("KNARR_IN/1", None, "", "KN0261"),
        ("KNARR_BODIES_default/", None, "", "KN0261"),
        ("", None, "", "KN0261"),
        (mine.object.as_str(), Some(wrong.as_str()), "", "KN0263"),
        (mine.object.as_str(), None, "1", "KN0261"),
        // Whole and right, but two thousand requests.
        (crumbs.as_str(), None, "", "KN0263"),
    ];
    for (n, (object, digest, payload, code)) in cases.into_iter().enumerate() {
        let mut headers = HeaderMap::new();
        headers.insert("Knarr-Body", object);
        // Nobody else says why.
        headers.insert("Knarr-Error-Code", "KN0220");
        if let Some(digest) = digest {
            headers.insert("Knarr-Body-Digest", digest);
        }
        let subject = format!("knarr.run.default.b-{n}.start.grow");
        assert!(starter.publish_once(&subject, headers, payload.into()).await.is_some());
        let letters = eventually("its dead letter", Duration::from_secs(30), || async {
            let letters = dead_letters(nats).await;
            (letters.len() > n).then_some(letters)
        });
        let letters = letters.await.0;
        assert_eq!(
            letters[n].header("Knarr-Error-Code"),
            code,
            "{object}: {:?}",
            letters[n]
        );
    }
    assert_eq!(stack.number("select count(*) from runs").await, 0);
    stack.stop().await;
}

/// Objects are there for three days: until then a full bucket would hold up every task that has a large input.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_bucket_holds_up_nothing_that_a_message_can_carry() {
    let stack = Stack::start().await;
    let _replica = stack.first_replica("one").await;
    stack.register("default", KID).await;
    reconfigure(stack.nats(), BUCKET, &[("max_bytes", 4_096.into())]).await;
    let seen = Seen::default();
    let (end, working) = worker(&stack, &seen);
    let answer = start(&stack, "kid", "k-1", text(500_000)).await;
    assert_eq!(answer.stage, AnswerStage::Started);
    assert_eq!(
        ends(&stack, "k-1").await,
        "completed",
        "{}",
        stack.timeline("k-1").await
    );
    assert_eq!(seen.lock().unwrap().get(&("say".to_owned(), 500_000)), Some(&1));
    assert_eq!(messages(stack.nats(), BUCKET).await, Some(0));
    end.cancel();
    let _ = working.await;
    stack.stop().await;
}

/// Each time that a task is offered it has another object.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_its_stream_refuses_leaves_no_objects_behind() {
    let stack = Stack::start().await;
    let _replica = stack.first_replica("one").await;
    stack.register("default", KID).await;
    let tasks = "KNARR_TASKS_default";
    // Less than a task, whose headers alone are as long.
    reconfigure(stack.nats(), tasks, &[("max_bytes", 256.into())]).await;
    let answer = start(&stack, "kid", "k-1", text(500_000)).await;
    assert_eq!(answer.stage, AnswerStage::Started);
    let held = "select count(*) from events where body like '%\"dispatch_held\"%'";
    eventually("a held dispatch", Duration::from_secs(20), || async {
        (stack.number(held).await > 0).then_some(())
    })
    .await;
    // Four chunks and a record, of the start.
    eventually("no object of the task", Duration::from_secs(20), || async {
        (messages(stack.nats(), BUCKET).await == Some(5)).then_some(())
    })
    .await;
    reconfigure(stack.nats(), tasks, &[("max_bytes", (1 << 30).into())]).await;
    let seen = Seen::default();
    let (end, working) = worker(&stack, &seen);
    assert_eq!(
        ends(&stack, "k-1").await,
        "completed",
        "{}",
        stack.timeline("k-1").await
    );
    end.cancel();
    let _ = working.await;
    stack.stop().await;
}

/// Objects go by age; what a run needs is in PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_has_gone_comes_again_with_the_next_attempt() {
    let stack = Stack::start().await;
    let mut replica = stack.first_replica("one").await;
    stack.register("default", KID).await;
    let answer = start(&stack, "kid", "k-1", text(500_000)).await;
    assert_eq!(answer.stage, AnswerStage::Started);
    let tasks = || async { (messages(stack.nats(), "KNARR_TASKS_default").await == Some(1)).then_some(()) };
    eventually("the task", Duration::from_secs(20), tasks).await;
    let purged = api(stack.nats(), &format!("STREAM.PURGE.{BUCKET}"), &Value::Null)
        .await
        .unwrap();
    assert_eq!(purged["success"], json!(true), "{purged}");
    // Another replica has it as well.
    replica.kill9();
    let _next = Replica::start(&stack, "two").await;
    let seen = Seen::default();
    let (end, working) = worker(&stack, &seen);
    assert_eq!(
        ends(&stack, "k-1").await,
        "completed",
        "{}",
        stack.timeline("k-1").await
    );
    assert_eq!(seen.lock().unwrap().len(), 1);
    let failed = "select count(*) from event_rows where event::text like '%body_missing%'";
    assert_eq!(stack.number(failed).await, 1);
    end.cancel();
    let _ = working.await;
    stack.stop().await;
}

/// Who dies between its commit, the object and the message that names it leaves an object at most.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_before_it_has_published_sends_large_bodies_again() {
    let stack = Stack::start().await;
    let mut replica = stack.first_replica("one").await;
    stack.register("default", KID).await;
    replica.terminate().await;
    let seen = Seen::default();
    let (end, working) = worker(&stack, &seen);
    let mut runs = 0;
    for stage in ["committed:1", "committed:3", "published:1", "published:4"] {
        let options = ReplicaOptions {
            failpoint: Some(stage.to_owned()),
            ..ReplicaOptions::default()
        };
        let mut replica = Replica::spawn(&stack, "one", options);
        let first = runs;
        while !replica.has_ended() {
            assert!(runs - first < 100, "{stage} was never passed:\n{}", replica.log());
            if usize::try_from(stack.closed_runs().await).unwrap() == runs {
                runs += 1;
                let reference = body::put(stack.nats(), "default", &text(300_000).into()).await.unwrap();
                let mut headers = HeaderMap::new();
                for (name, value) in reference.headers() {
                    headers.insert(name, value.as_str());
                }
                let subject = format!("knarr.run.default.k-{runs}.start.kid");
                let stored = stack.starter().publish_once(&subject, headers, Bytes::new()).await;
                assert!(stored.is_some());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        replica.respawn();
        stack.all_closed(runs, Duration::from_secs(60)).await;
        replica.terminate().await;
    }
    let completed = stack
        .number("select count(*) from runs where status = 'completed'")
        .await;
    assert_eq!(usize::try_from(completed).unwrap(), runs);
    assert_eq!(dead_letters(stack.nats()).await.len(), 0);
    end.cancel();
    let _ = working.await;
    stack.stop().await;
}
