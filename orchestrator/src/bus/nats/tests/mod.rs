//! Against a real nats-server, found as `knarr dev` finds it.

mod adopted;
mod connecting;
mod gaps;
mod log;
mod publishing;
mod queues;
mod sources;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use knarr_core::ids::{Namespace, QueueName, RunId, TaskNo};
use knarr_core::time::Timestamp;
use knarr_schemas::{header, subject};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::jetstream::MessageQuery;
use super::test_server::TestServer;
use super::*;
use crate::bus::inlet::{self, Admitted, Inlet};
use crate::bus::{Delivery, DirectKind, Headers, Incoming, LogGap, LogMessage, Undelivered, head_room};

const DEADLINE: Duration = Duration::from_secs(30);
const CLUSTER: Uuid = Uuid::from_u128(1);

fn config(server: &TestServer) -> NatsConfig {
    NatsConfig {
        url: server.url(),
        idle_after: Duration::from_secs(1),
        ..NatsConfig::default()
    }
}

async fn bus(server: &TestServer, partitions: u16) -> NatsBus {
    let bus = NatsBus::connect(config(server)).await.unwrap();
    bus.prepare(CLUSTER, partitions).await.unwrap();
    bus
}

fn to_log(id: &str, body: &str) -> Outgoing {
    Outgoing {
        subject: subject::start("default", id, "order").unwrap(),
        headers: Headers::new(),
        payload: Bytes::from(body.to_owned()),
        delivery: Delivery::Stream,
    }
}

fn numbered(range: std::ops::Range<u32>) -> Vec<Outgoing> {
    range.map(|n| to_log("o-1", &n.to_string())).collect()
}

fn all_ok(outcomes: &[Result<(), PublishError>]) -> bool {
    outcomes.iter().all(Result::is_ok)
}

/// What the clock says may come at any time.
async fn next(from: &mut mpsc::Receiver<Admitted>) -> Incoming {
    loop {
        let admitted = tokio::time::timeout(DEADLINE, from.recv()).await.expect("in time");
        match admitted.expect("open").incoming {
            Incoming::Clock(_) => {}
            incoming => return incoming,
        }
    }
}

/// The next message of the log; what only tells of the connection is passed over.
async fn next_log(from: &mut mpsc::Receiver<Admitted>) -> LogMessage {
    loop {
        match next(from).await {
            Incoming::Log(message) => return message,
            Incoming::Reconnected | Incoming::Idle { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn next_gap(from: &mut mpsc::Receiver<Admitted>) -> LogGap {
    loop {
        match next(from).await {
            Incoming::Gap(gap) => return gap,
            Incoming::Reconnected | Incoming::Idle { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn number(message: &LogMessage) -> u32 {
    std::str::from_utf8(&message.payload).unwrap().parse().unwrap()
}

async fn expect(from: &mut mpsc::Receiver<Admitted>, range: std::ops::Range<u32>) -> Cursor {
    let mut cursor = Cursor::default();
    for expected in range {
        let message = next_log(from).await;
        assert_eq!(number(&message), expected);
        assert!(message.cursor.sequence > cursor.sequence);
        cursor = message.cursor;
    }
    cursor
}

async fn publish_until_stored(bus: &NatsBus, message: Outgoing) {
    let deadline = Instant::now() + DEADLINE;
    while bus.publish(vec![message.clone()]).await != [Ok(())] {
        assert!(Instant::now() < deadline);
    }
}
