//! Triggers over real servers: two replicas, a stream of the user's, and `kill -9` of whoever reads it.

use std::time::Duration;

use knarr_schemas::api::{ShowTrigger, TriggerDescription, verb};
use knarr_schemas::subject::partition_of;
use knarr_tests::cli::knarr;
use knarr_tests::{Replica, Stack, eventually, jetstream};
use serde_json::{Value, json};

/// Every third order is not wanted; each other one is opened, and signalled once.
const ORDERS: i64 = 600;

const COUNTER: &str = r#"
workflow: counter
version: 1
triggers:
  opened:
    stream: SHOP
    subject: "shop.*.opened"
    filter: event.data.wanted
    id: "${ event.data.id }"
    input: { n: "${ event.data.n }", region: "${ event.headers.Region }" }
  paid: { stream: SHOP, subject: "shop.*.paid", id: "${ event.data.id }", signal: paid }
steps:
  - paid: { wait_for: { signal: paid, timeout: 1h } }
output: { input: "${ input }", paid: "${ steps.paid }" }
"#;

async fn make_stream(stack: &Stack) {
    let config = json!({ "name": "SHOP", "subjects": ["shop.>"], "retention": "limits", "storage": "file" });
    let made = jetstream::api(stack.nats(), "STREAM.CREATE.SHOP", &config).await;
    assert!(made.is_some_and(|made| made.get("error").is_none()));
}

async fn publish(stack: &Stack, subject: String, body: Value) {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Region", "north");
    let request = async_nats::Request::new()
        .headers(headers)
        .payload(serde_json::to_vec(&body).unwrap().into());
    let acknowledged = stack.nats().send_request(subject, request).await.unwrap();
    let acknowledged: Value = serde_json::from_slice(&acknowledged.payload).unwrap();
    assert!(acknowledged.get("error").is_none(), "{acknowledged}");
}

async fn orders(stack: &Stack, numbers: std::ops::Range<i64>) {
    for n in numbers {
        let id = format!("order-{n}");
        let opened = json!({ "id": id, "n": n, "wanted": n % 3 != 0 });
        publish(stack, format!("shop.{n}.opened"), opened).await;
        if n % 3 != 0 {
            publish(stack, format!("shop.{n}.paid"), json!({ "id": id, "n": n })).await;
        }
    }
}

async fn show(stack: &Stack, name: &str) -> Option<TriggerDescription> {
    let show = ShowTrigger {
        workflow: "counter".to_owned(),
        name: name.to_owned(),
    };
    stack.api("default").call(verb::TRIGGER_SHOW, &show).await.ok()
}

/// The replica that owns what is said to this id, as it stands in a subject; none while it is handed over.
async fn owner(stack: &Stack, id: &str) -> Option<String> {
    let partition = partition_of("default", id, stack.partitions());
    let owner = "select s.replica from partitions p join sessions s on s.id = p.owner where p.partition = $1";
    sqlx::query_scalar(owner)
        .bind(i16::try_from(partition).unwrap())
        .fetch_optional(stack.pool())
        .await
        .unwrap()
}

async fn completed(stack: &Stack) -> i64 {
    let query = "select count(*) from runs where workflow = 'counter' and status = 'completed'";
    stack.number(query).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_counts_once_while_whoever_reads_is_killed() {
    let stack = Stack::start().await;
    make_stream(&stack).await;
    let mut replicas = [Replica::start(&stack, "one").await, Replica::start(&stack, "two").await];
    stack.register("default", COUNTER).await;
    let (mut stored, mut killed) = (0, 0);
    while stored < ORDERS {
        let before = completed(&stack).await;
        orders(&stack, stored..stored + ORDERS / 3).await;
        stored += ORDERS / 3;
        if killed == 2 {
            break;
        }
        // In the middle of it, whoever reads one of the two.
        let of = ["%24trigger%2Fcounter%2Fopened", "%24trigger%2Fcounter%2Fpaid"][killed];
        eventually("it goes on", Duration::from_secs(60), || async {
            (completed(&stack).await > before + 5).then_some(())
        })
        .await;
        let owner = eventually("somebody reads it", Duration::from_secs(30), || owner(&stack, of))
            .await
            .0;
        let victim = &mut replicas[usize::from(owner == "two")];
        victim.kill9();
        killed += 1;
        victim.respawn();
    }
    assert_eq!((stored, killed), (ORDERS, 2));
    let wanted = (0..ORDERS).filter(|n| n % 3 != 0).count();
    eventually("every event has counted", Duration::from_secs(120), || async {
        (completed(&stack).await >= i64::try_from(wanted).unwrap()).then_some(())
    })
    .await;
    eventually("every answer is there", Duration::from_secs(60), || async {
        let (opened, paid) = (show(&stack, "opened").await?, show(&stack, "paid").await?);
        (opened.sent + opened.waiting + paid.sent + paid.waiting == 0).then_some(())
    })
    .await;
    let wanted = u64::try_from(wanted).unwrap();
    let (opened, paid) = (
        show(&stack, "opened").await.unwrap(),
        show(&stack, "paid").await.unwrap(),
    );
    assert_eq!((opened.taken, opened.started, opened.refused), (wanted, wanted, 0));
    assert_eq!((paid.taken, paid.signalled, paid.refused), (wanted, wanted, 0));
    assert_eq!((opened.gaps, paid.gaps), (0, 0));
    let runs = stack
        .number("select count(*) from runs where workflow = 'counter'")
        .await;
    let ids = stack
        .number("select count(distinct workflow_id) from runs where workflow = 'counter'")
        .await;
    assert_eq!((runs, ids), (i64::try_from(wanted).unwrap(), runs));
    // Each has taken one signal, its own.
    let signals = stack
        .number(
            "select count(*) from events e join runs r using (run_id)
             where r.workflow = 'counter' and e.body like '%signal_received%'",
        )
        .await;
    assert_eq!(signals, runs);
    let one: Value = knarr(&stack, &["show", "order-1"]).await.good();
    assert_eq!(one["input"], json!({ "n": 1, "region": "north" }));
    assert!(jetstream::dead_letters(stack.nats()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_purged_or_recreated_is_told_and_what_is_wrong_is_set_aside() {
    let stack = Stack::start().await;
    let replica = Replica::start(&stack, "one").await;
    // Before there is any stream.
    stack.register("default", COUNTER).await;
    let trouble = eventually("it is told", Duration::from_secs(30), || async {
        show(&stack, "opened").await?.summary.trouble
    })
    .await
    .0;
    assert_eq!(trouble, "there is no stream `SHOP`");
    make_stream(&stack).await;
    orders(&stack, 0..6).await;
    publish(&stack, "shop.x.opened".to_owned(), json!({ "wanted": true })).await;
    eventually("four have completed", Duration::from_secs(60), || async {
        (completed(&stack).await == 4).then_some(())
    })
    .await;
    let letters = eventually("the bad one is set aside", Duration::from_secs(30), || async {
        let letters = jetstream::dead_letters(stack.nats()).await;
        (!letters.is_empty()).then_some(letters)
    })
    .await
    .0;
    assert_eq!(letters[0].header("Knarr-Error-Code"), "KN0272");
    assert_eq!(letters[0].header("Knarr-Trigger"), "counter/opened");

    let paused = knarr(&stack, &["trigger", "pause", "counter/opened", "--reason", "too fast"]).await;
    paused.good();
    orders(&stack, 6..9).await;
    let purged = jetstream::api(stack.nats(), "STREAM.PURGE.SHOP", &json!({})).await;
    assert!(purged.is_some_and(|purged| purged.get("error").is_none()));
    orders(&stack, 9..12).await;
    knarr(&stack, &["trigger", "resume", "counter/opened"]).await.good();
    eventually("what was left goes on", Duration::from_secs(60), || async {
        (completed(&stack).await == 6).then_some(())
    })
    .await;
    let lost = show(&stack, "opened").await.unwrap();
    assert_eq!((lost.gaps, lost.lost[0].why.as_str()), (1, "purged"));

    let deleted = jetstream::api(stack.nats(), "STREAM.DELETE.SHOP", &json!({})).await;
    assert!(deleted.is_some_and(|deleted| deleted.get("error").is_none()));
    make_stream(&stack).await;
    orders(&stack, 12..15).await;
    eventually("the new stream is read", Duration::from_secs(60), || async {
        (completed(&stack).await == 8).then_some(())
    })
    .await;
    let again = show(&stack, "opened").await.unwrap();
    assert_eq!((again.gaps, again.lost[1].why.as_str()), (2, "recreated"));
    let listed: Value = knarr(&stack, &["trigger", "list"]).await.good();
    assert_eq!(listed["triggers"].as_array().unwrap().len(), 2);
    assert!(replica.metric("knarr_trigger_gaps_total").await >= 2.0);
}
