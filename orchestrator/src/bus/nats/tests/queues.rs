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

fn name(run: u128, task: u32) -> (RunId, TaskNo) {
    (RunId(Uuid::from_u128(run)), TaskNo(task))
}

/// As the engine publishes it.
fn named((run, task): (RunId, TaskNo)) -> Outgoing {
    let mut message = a_task(&format!("{run}-{}", task.0), 0);
    message.headers.extend([
        (Arc::from(header::RUN_ID), run.to_string()),
        (Arc::from(header::TASK), task.0.to_string()),
    ]);
    message
}

async fn stored(bus: &NatsBus) -> u64 {
    let info: Value = bus
        .shared
        .js
        .call("STREAM.INFO.KNARR_TASKS_a", &json!({}))
        .await
        .unwrap();
    info["state"]["messages"].as_u64().unwrap()
}

/// Found in a backlog of several batches, and only where nobody has had it.
#[tokio::test]
async fn a_task_is_taken_out_of_its_queue_if_nobody_has_had_it() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, queue, settings) = queue_q();
    let withdraw = async |names: &[_]| bus.withdraw(&namespace, &queue, names).await;
    let (taken, not) = (Some(true), Some(false));
    assert_eq!(withdraw(&[name(1, 1)]).await, [not], "there is no queue");
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    let mut backlog: Vec<_> = (0..1_200).map(|n| named(name(9, n))).collect();
    backlog.insert(0, named(name(1, 1)));
    backlog.insert(700, named(name(1, 2)));
    backlog.push(named(name(1, 3)));
    backlog.push(named(name(1, 4)));
    // Of another queue.
    backlog.push(Outgoing {
        subject: subject::task("a", "r", "act").unwrap(),
        ..named(name(1, 5))
    });
    assert!(all_ok(&bus.publish(backlog).await));
    let asked = [name(1, 2), name(1, 5), name(1, 2), name(2, 3), name(1, 3)];
    assert_eq!(withdraw(&asked).await, [taken, not, taken, not, taken]);
    assert_eq!(withdraw(&[name(1, 2)]).await, [not], "it is gone");
    // Delivered and not acknowledged.
    assert_eq!(pull_tasks(&bus.client(), 1, false).await, 1);
    assert_eq!(withdraw(&[name(1, 4), name(1, 1)]).await, [taken, not]);
    // Delivered and acknowledged.
    assert_eq!(pull_tasks(&bus.client(), 1, true).await, 1);
    assert_eq!(withdraw(&[name(1, 1)]).await, [not]);
    assert_eq!(stored(&bus).await, 1_201);
    assert_eq!(
        pull_tasks(&bus.client(), 1_300, true).await,
        1_200,
        "the others are where they were"
    );
}

#[tokio::test]
async fn thousands_of_tasks_are_taken_out_by_one_look() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, queue, settings) = queue_q();
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    let names: Vec<_> = (0..3_000).map(|run| name(run, 1)).collect();
    assert!(all_ok(&bus.publish(names.iter().copied().map(named).collect()).await));
    assert_eq!(pull_tasks(&bus.client(), 100, true).await, 100);
    let answers = bus.withdraw(&namespace, &queue, &names).await;
    assert_eq!(answers[..100], [Some(false); 100]);
    assert_eq!(answers[100..], [Some(true); 2_900]);
    assert_eq!(stored(&bus).await, 0);
}

/// Whoever has taken over may have published it once more: all of it goes, and none that was delivered counts as withdrawn.
#[tokio::test]
async fn every_copy_of_a_task_is_taken_out() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, queue, settings) = queue_q();
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    let publish = async |names: &[_]| {
        let messages = names.iter().copied().map(named).collect();
        assert!(all_ok(&bus.publish(messages).await));
    };
    publish(&[name(1, 1), name(9, 9), name(1, 1), name(1, 2)]).await;
    assert_eq!(bus.withdraw(&namespace, &queue, &[name(1, 1)]).await, [Some(true)]);
    assert_eq!(stored(&bus).await, 2);
    // The first copy of it is in somebody's hands.
    assert_eq!(pull_tasks(&bus.client(), 2, false).await, 2);
    publish(&[name(1, 2)]).await;
    assert_eq!(bus.withdraw(&namespace, &queue, &[name(1, 2)]).await, [Some(false)]);
    assert_eq!(stored(&bus).await, 3, "what a worker has is not taken from it");
}

/// Workers and whoever else takes it back may come at any moment between the look through the queue and its end.
#[tokio::test]
async fn what_happens_between_the_look_and_the_deletion_is_seen() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, _, settings) = queue_q();
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    let queue = withdrawal::Queue {
        js: &bus.shared.js,
        stream: "KNARR_TASKS_a",
        consumer: "q_q",
    };
    let names: Vec<_> = (1..=4).map(|task| name(1, task)).collect();
    assert!(all_ok(&bus.publish(names.iter().copied().map(named).collect()).await));
    let sweep = sweep::Sweep::new(queue.js, queue.stream, "knarr.task.a.q.>", 4, &names);
    let mut there: Vec<_> = sweep.find().await.unwrap().into_iter().collect();
    there.sort_by_key(|(name, _)| *name);
    let at_first = queue.consumer().await.unwrap();
    let taken_out = async |before, there: &[_]| {
        let mut answers = HashMap::new();
        queue.delete(before, there, &mut answers).await.unwrap();
        let answers = there.iter().map(|(name, _)| answers.get(name).copied());
        answers.collect::<Vec<_>>()
    };
    // Delivered, and done, after the consumer was asked.
    assert_eq!(pull_tasks(&bus.client(), 1, true).await, 1);
    assert_eq!(taken_out(at_first.clone(), &there[..1]).await, [Some(false)]);
    // Delivered after the look: it stays where it is.
    assert_eq!(pull_tasks(&bus.client(), 1, false).await, 1);
    let now = queue.consumer().await.unwrap();
    assert_eq!(taken_out(now, &there[1..2]).await, [Some(false)]);
    assert_eq!(stored(&bus).await, 3);
    // Or after the consumer was asked.
    assert_eq!(taken_out(at_first, &there[1..2]).await, [Some(false)]);
    assert_eq!(stored(&bus).await, 2);
    // Deleted by somebody else, before anybody had it.
    let delete = json!({ "seq": 3 });
    let _: Value = queue.js.call("STREAM.MSG.DELETE.KNARR_TASKS_a", &delete).await.unwrap();
    let now = queue.consumer().await.unwrap();
    assert_eq!(taken_out(now, &there[2..]).await, [Some(true); 2]);
    assert_eq!(stored(&bus).await, 0);
}

/// It starts from the beginning of the queue, whatever the one before has given out.
#[tokio::test]
async fn a_consumer_that_is_younger_than_a_task_does_not_tell_that_nobody_has_had_it() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, queue, settings) = queue_q();
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    assert!(all_ok(&bus.publish(vec![named(name(1, 1))]).await));
    let delete = "CONSUMER.DELETE.KNARR_TASKS_a.q_q";
    let _: Value = bus.shared.js.call(delete, &json!({})).await.unwrap();
    assert_eq!(bus.withdraw(&namespace, &queue, &[name(1, 1)]).await, [Some(false)]);
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    assert!(all_ok(&bus.publish(vec![named(name(1, 2))]).await));
    let answers = bus.withdraw(&namespace, &queue, &[name(1, 1), name(1, 2)]).await;
    assert_eq!(answers, [Some(false), Some(true)]);
}

/// Headers that no client reads, and ones that say what the server says of its answers.
#[tokio::test]
async fn whatever_lies_in_a_queue_is_passed_over() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, queue, settings) = queue_q();
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    let publish = async |number| assert!(all_ok(&bus.publish(vec![named(name(1, number))]).await));
    publish(1).await;
    server.publish_raw(
        "knarr.task.a.q.act",
        b"NATS/1.0 204 EOB\r\nNats-Last-Sequence: 1\r\nNats-Sequence: 9\r\n\r\n",
        b"",
    );
    publish(2).await;
    server.publish_raw("knarr.task.a.q.act", b"NATS/1.0\r\nX: caf\xe9\r\nno colon\r\n\r\n", b"");
    server.publish_raw(
        "knarr.task.a.q.act",
        b"NATS/1.0\r\nKnarr-Run-Id: x\r\nKnarr-Task: y\r\n\r\n",
        b"",
    );
    publish(3).await;
    let names = [name(1, 1), name(1, 2), name(1, 3)];
    assert_eq!(bus.withdraw(&namespace, &queue, &names).await, [Some(true); 3]);
    assert_eq!(stored(&bus).await, 3);
}

/// The client takes what one batch has at most, bodies and all.
#[tokio::test]
async fn large_tasks_come_in_smaller_batches() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, queue, settings) = queue_q();
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    let body = Bytes::from(vec![b'x'; 1_000_000]);
    for number in 1..=6 {
        let large = Outgoing {
            payload: body.clone(),
            ..named(name(1, number))
        };
        bus.client()
            .publish_with_headers(
                large.subject,
                header_map::to_client(large.headers).unwrap(),
                large.payload,
            )
            .await
            .unwrap();
    }
    assert!(all_ok(&bus.publish(vec![named(name(1, 7))]).await));
    let answers = bus.withdraw(&namespace, &queue, &[name(1, 6), name(1, 7)]).await;
    assert_eq!(answers, [Some(true); 2]);
}

/// Another server of the stream's answers, and does not have all of it yet; or it leaves something out.
#[tokio::test]
async fn a_server_that_is_behind_hides_nothing() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let js = &bus.shared.js;
    // What is got directly goes to whoever listens: nobody, but for the test.
    let config = json!({ "name": "S", "subjects": ["s.>"], "retention": "limits", "storage": "memory" });
    let _: Value = js.call("STREAM.CREATE.S", &config).await.unwrap();
    for number in 1..=4 {
        let message = named(name(1, number));
        let headers = header_map::to_client(message.headers).unwrap();
        let request = async_nats::client::Request::new().headers(headers).payload("".into());
        bus.client().send_request("s.a", request).await.unwrap();
    }
    let mut asked = bus.client().subscribe("$JS.API.DIRECT.GET.S").await.unwrap();
    let end = |last: u64| format!("NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\nNats-Last-Sequence: {last}\r\n\r\n");
    let message = |sequence: u64, after: u64| {
        format!(
            "NATS/1.0\r\nNats-Sequence: {sequence}\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\nNats-Num-Pending: 0\r\n\
             Nats-Last-Sequence: {after}\r\n\r\n"
        )
    };
    let behind = [
        // It has the first message and no more.
        vec![message(1, 0), end(1)],
        // It has not even that.
        vec!["NATS/1.0 404 Message Not Found\r\n\r\n".to_owned()],
        // One was lost on the way.
        vec![message(4, 3)],
    ];
    let answering = async {
        let mut froms = Vec::new();
        for answers in behind {
            let request = asked.next().await.unwrap();
            let query: Value = serde_json::from_slice(&request.payload).unwrap();
            froms.push(query["seq"].as_u64().unwrap());
            for answer in answers {
                server.publish_raw(request.reply.as_ref().unwrap(), answer.as_bytes(), b"");
            }
        }
        froms
    };
    let wanted: Vec<_> = (1..=5).map(|number| name(1, number)).collect();
    let sweep = sweep::Sweep::new(js, "S", "s.>", 4, &wanted);
    let (found, asked_from) = tokio::join!(sweep.find(), answering);
    let found = found.unwrap();
    let sequences = |number| {
        let of_it = &found[&name(1, number)];
        of_it.iter().map(|found| found.sequence).collect::<Vec<_>>()
    };
    // What the answers brought had no names; the others were got from the stream itself.
    assert_eq!(
        (1..=5).map(sequences).collect::<Vec<_>>(),
        [vec![], vec![2], vec![3], vec![4], vec![]]
    );
    assert_eq!(asked_from, [1, 3, 4]);
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
    assert_eq!(stored(&bus).await, 1);
    // The other one waits until its partition is opened.
    bus.open_partition(3, Cursor::default(), 1, into).await.unwrap();
    assert_eq!(lost(&mut from).await, (3, "other".to_owned()));
    assert_eq!(stored(&bus).await, 0);
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

async fn lease(bus: &NatsBus) -> Option<u64> {
    let info = "$JS.API.CONSUMER.INFO.KNARR_TASKS_a.q_q";
    let info = bus.client().request(info, Bytes::new()).await.unwrap();
    let info: Value = serde_json::from_slice(&info.payload).unwrap();
    info["config"]["ack_wait"].as_u64().map(|nanos| nanos / 1_000_000_000)
}

/// What a replica was told is not known to the others at once, and what they assert after a reconnect is older.
#[tokio::test]
async fn what_is_asserted_again_changes_no_lease() {
    let server = TestServer::start();
    let (told, other) = (bus(&server, 1).await, bus(&server, 1).await);
    let (namespace, _, mut settings) = queue_q();
    for bus in [&told, &other] {
        bus.ensure_queues(&namespace, &settings).await.unwrap();
    }
    settings[0].ack_wait = Duration::from_secs(600);
    told.ensure_queues(&namespace, &settings).await.unwrap();
    other.shared.streams.assert_again().await.unwrap();
    assert_eq!(lease(&told).await, Some(600));
}

/// By hand, say. Nobody else would notice: a stream without a consumer takes tasks all the same.
#[tokio::test]
async fn a_consumer_that_was_deleted_is_made_again() {
    let server = TestServer::start();
    let bus = bus(&server, 1).await;
    let (namespace, queue, settings) = queue_q();
    bus.ensure_queues(&namespace, &settings).await.unwrap();
    let delete = "CONSUMER.DELETE.KNARR_TASKS_a.q_q";
    let _: Value = bus.shared.js.call(delete, &json!({})).await.unwrap();
    assert_eq!(lease(&bus).await, None);
    assert_eq!(bus.undelivered(&namespace, &queue).await.unwrap(), Undelivered::All);
    let deadline = Instant::now() + DEADLINE;
    while lease(&bus).await != Some(30) {
        assert!(Instant::now() < deadline, "it is still missing");
    }
}
