//! Task queues: what has been delivered, is taken back, or goes round in circles.

use super::*;

/// Pulls up to `batch` tasks of a queue and acknowledges those that `keep` says.
pub(super) async fn pull_tasks(client: &async_nats::Client, batch: usize, acknowledge: bool) -> usize {
    let inbox = client.new_inbox();
    let mut subscription = client.subscribe(inbox.clone()).await.unwrap();
    let body = json!({ "batch": batch, "expires": 300_000_000 }).to_string();
    client
        .publish_with_reply("$JS.API.CONSUMER.MSG.NEXT.KNARR_TASKS_a.q_q", inbox, body.into())
        .await
        .unwrap();
    let mut count = 0;
    while let Some(message) = subscription.next().await {
        if message.status.is_some() {
            break;
        }
        count += 1;
        let kind: &'static str = if acknowledge { "+ACK" } else { "-NAK" };
        client.publish(message.reply.unwrap(), kind.into()).await.unwrap();
        if count == batch {
            break;
        }
    }
    client.flush().await.unwrap();
    count
}

pub(super) fn a_task(token: &str, partition: u16) -> Outgoing {
    Outgoing {
        subject: subject::task("a", "q", "act").unwrap(),
        headers: vec![
            (Arc::from(header::TOKEN), token.to_owned()),
            (Arc::from(header::DIRECT), subject::direct("a", partition).unwrap()),
        ],
        payload: Bytes::from_static(b"{}"),
        delivery: Delivery::Stream,
    }
}

pub(super) fn queue_q() -> (Namespace, QueueName, Vec<QueueSettings>) {
    let queue = QueueName::new("q");
    let settings = QueueSettings {
        queue: queue.clone(),
        ack_wait: Duration::from_secs(30),
    };
    (Namespace::new("a"), queue, vec![settings])
}

#[tokio::test]
async fn how_far_a_queue_was_delivered_is_known_by_time() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, queue, settings) = queue_q();
    let undelivered = async || bus.undelivered(&namespace, &queue).await.unwrap();
    assert_eq!(undelivered().await, Undelivered::All);
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    assert_eq!(undelivered().await, Undelivered::Nothing);
    assert!(all_ok(&bus.publish(vec![a_task("1", 0), a_task("2", 0)]).await));
    // All by the server's clock: what the test's own did meanwhile does not matter.
    let js = &bus.shared.js;
    let (consumer, filter) = streams::queue_names(&namespace, &queue).unwrap();
    let first = MessageQuery {
        next_by_subj: Some(&filter),
        seq: Some(1),
        ..MessageQuery::default()
    };
    let published = js.message("KNARR_TASKS_a", &first).await.unwrap().unwrap().at();
    let age_now = async || {
        let info = js.consumer("KNARR_TASKS_a", &consumer).await.unwrap();
        Timestamp::from_utc(info.ts.unwrap()).since(published)
    };
    let before = age_now().await;
    let Undelivered::For(age) = undelivered().await else {
        panic!("two tasks wait");
    };
    assert!(before <= age && age <= age_now().await, "{age:?}");
    assert_eq!(pull_tasks(&bus.client(), 1, true).await, 1);
    assert!(matches!(undelivered().await, Undelivered::For(_)));
    assert_eq!(pull_tasks(&bus.client(), 1, true).await, 1);
    assert_eq!(undelivered().await, Undelivered::Nothing);
}

/// At its own place, found in a backlog, and only where nobody has had it.
#[tokio::test]
async fn a_task_is_taken_out_of_its_queue_if_nobody_has_had_it() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, queue, settings) = queue_q();
    let withdraw = async |subject: &str| bus.withdraw(&namespace, &queue, subject).await.unwrap();
    let at = |place: &str| subject::task_at("a", "q", "act", place).unwrap();
    assert!(!withdraw(&at("r-1")).await, "there is no queue");
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    let placed = |place: &str| Outgoing {
        subject: at(place),
        ..a_task(place, 0)
    };
    let mut backlog: Vec<_> = (0..50).map(|n| a_task(&format!("b{n}"), 0)).collect();
    backlog.insert(0, placed("r-1"));
    backlog.push(placed("r-2"));
    backlog.push(placed("r-3"));
    assert!(all_ok(&bus.publish(backlog).await));
    assert!(withdraw(&at("r-2")).await);
    assert!(!withdraw(&at("r-2")).await, "it is gone");
    // Delivered and not acknowledged.
    assert_eq!(pull_tasks(&bus.client(), 1, false).await, 1);
    assert!(!withdraw(&at("r-1")).await);
    assert!(withdraw(&at("r-3")).await);
    let info = bus.shared.js.stream("KNARR_TASKS_a").await.unwrap();
    assert_eq!(info.state.last_seq, 53);
    assert_eq!(
        pull_tasks(&bus.client(), 60, true).await,
        51,
        "the others are where they were, and the one that was given back"
    );
}

/// Whoever has taken over may have published it once more: all of it goes, and none that was delivered counts as withdrawn.
#[tokio::test]
async fn every_copy_of_a_task_is_taken_out() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, queue, settings) = queue_q();
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    let place = |place: &str| subject::task_at("a", "q", "act", place).unwrap();
    let copy = |number: &str| Outgoing {
        subject: place(number),
        ..a_task(number, 0)
    };
    let messages = async || {
        let all = json!({});
        let info = bus.shared.js.call::<Value>("STREAM.INFO.KNARR_TASKS_a", &all).await;
        info.unwrap()["state"]["messages"].as_u64().unwrap()
    };
    assert!(all_ok(
        &bus.publish(vec![copy("r-1"), a_task("b", 0), copy("r-1"), copy("r-2")])
            .await
    ));
    assert!(bus.withdraw(&namespace, &queue, &place("r-1")).await.unwrap());
    assert_eq!(messages().await, 2);
    // The first copy of it is in somebody's hands.
    assert_eq!(pull_tasks(&bus.client(), 2, false).await, 2);
    assert!(all_ok(&bus.publish(vec![copy("r-2")]).await));
    assert!(!bus.withdraw(&namespace, &queue, &place("r-2")).await.unwrap());
}

#[tokio::test]
async fn a_task_delivered_too_often_is_reported_to_its_owner_and_removed() {
    let server = TestServer::start();
    let bus = bus(&server, 4).await;
    let (namespace, _, settings) = queue_q();
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    let (into, mut from) = Inlet::of_messages(16);
    bus.open_partition(2, Cursor::default(), 1, into.clone()).await.unwrap();
    assert!(all_ok(&bus.publish(vec![a_task("mine", 2), a_task("other", 3)]).await));
    let deadline = Instant::now() + DEADLINE;
    while pull_tasks(&bus.client(), 2, false).await > 0 {
        assert!(Instant::now() < deadline);
    }
    let lost = async |from: &mut mpsc::Receiver<Admitted>| match next(from).await {
        Incoming::TaskLost { partition, token, .. } => (partition, token),
        other => panic!("{other:?}"),
    };
    assert_eq!(lost(&mut from).await, (2, "mine".to_owned()));
    let state = async || {
        let info: Value = bus
            .shared
            .js
            .call("STREAM.INFO.KNARR_TASKS_a", &json!({}))
            .await
            .unwrap();
        info["state"]["messages"].as_u64().unwrap()
    };
    assert_eq!(state().await, 1);
    // The other one waits until its partition is opened.
    bus.open_partition(3, Cursor::default(), 1, into).await.unwrap();
    assert_eq!(lost(&mut from).await, (3, "other".to_owned()));
    assert_eq!(state().await, 0);
}

/// What an operator says of it counts for the consumer that is there, with the tasks that it has given out.
#[tokio::test]
async fn the_lease_of_a_queue_that_is_there_is_changed() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, _, mut settings) = queue_q();
    for seconds in [30, 2, 86_400] {
        settings[0].ack_wait = Duration::from_secs(seconds);
        bus.ensure_queues(&namespace, &settings).await.unwrap();
        let info = "$JS.API.CONSUMER.INFO.KNARR_TASKS_a.q_q";
        let info = bus.client().request(info, Bytes::new()).await.unwrap();
        let info: Value = serde_json::from_slice(&info.payload).unwrap();
        assert_eq!(info["config"]["ack_wait"], seconds * 1_000_000_000);
    }
}
